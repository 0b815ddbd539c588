//! Objects written past the API server, straight into its store: ten thousand in a second or two.
//!
//! For tests that need many and do not care how they came. Nothing judges or completes them: they are to be as the API server would
//! have stored them, with namespace, uid and time of creation. Its watches see them as they see any other.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::client::Client;

/// Writes in one transaction; etcd takes 128.
const TOGETHER: usize = 100;

/// Where the API server has an object of a namespaced core resource.
fn key(resource: &str, object: &Value) -> Result<String> {
    let text = |field: &str| {
        let text = object["metadata"][field].as_str();
        text.with_context(|| format!("an object without metadata.{field}"))
    };
    Ok(format!(
        "/registry/{resource}/{}/{}",
        text("namespace")?,
        text("name")?
    ))
}

pub(super) fn put(etcd: &str, resource: &str, objects: &[Value]) -> Result<()> {
    let transaction = Client::plain(&format!("{etcd}/v3/kv/txn"));
    for some in objects.chunks(TOGETHER) {
        let puts = some
            .iter()
            .map(|object| {
                let (key, value) = (key(resource, object)?, object.to_string());
                Ok(json!({ "requestPut": { "key": base64(key.as_bytes()), "value": base64(value.as_bytes()) } }))
            })
            .collect::<Result<Vec<_>>>()?;
        transaction.post_json(&json!({ "success": puts }))?;
    }
    Ok(())
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |number: usize| u32::from(three.get(number).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            match digit <= three.len() {
                true => text.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63])),
                false => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_that_of_the_standard() {
        // RFC 4648, section 10.
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0]), "+/8A");
    }
}
