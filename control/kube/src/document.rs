//! From an object of the API to the document it has.

use kube::core::DynamicObject;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::agent::{Document, Origin, Reason, Refusal};
use crate::place::{DEFAULT_KEY, Place};

/// The document of an object.
///
/// # Errors
/// If it has none, and why.
pub fn of(place: &Place, object: &DynamicObject) -> Result<Document, Refusal> {
    let (name, text) = match place.origin {
        Origin::ConfigMap => {
            let (key, text) = key(place, &object.data["data"])?;
            (
                format!("configmap {}/{}/{key}", place.namespace, place.name),
                text.to_owned(),
            )
        }
        Origin::Firewall => {
            let document = json!({
                "apiVersion": bulkhead_config::API_VERSION,
                "kind": bulkhead_config::KIND,
                "metadata": { "name": place.name },
                "spec": object.data["spec"],
            });
            // What was JSON is written as JSON; lines are what diagnostics point at.
            (place.to_string(), format!("{document:#}\n"))
        }
    };
    let text = text.into_bytes();
    Ok(Document {
        hash: digest(&text),
        origin: place.origin,
        name,
        text,
    })
}

fn key<'o>(place: &'o Place, data: &'o Value) -> Result<(&'o str, &'o str), Refusal> {
    let invalid = |message| Refusal {
        reason: Reason::Invalid,
        message,
    };
    let keys: Vec<&str> = data
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| &**key)
        .collect();
    let key = match (&place.key, &keys[..]) {
        (Some(key), _) => key,
        (None, keys) if keys.contains(&DEFAULT_KEY) => DEFAULT_KEY,
        (None, [one]) => one,
        (None, []) => {
            return Err(invalid(format!(
                "{place} has no data; put the document under {DEFAULT_KEY}"
            )));
        }
        (None, several) => {
            return Err(invalid(format!(
                "{place} has the keys {} and none is {DEFAULT_KEY}; name one of them: NAMESPACE/NAME/KEY",
                several.join(", ")
            )));
        }
    };
    match data[key].as_str() {
        Some(text) => Ok((key, text)),
        None => Err(invalid(format!(
            "{place} has no key {key}; it has {}",
            keys.join(", ")
        ))),
    }
}

/// SHA-256 as `sha256sum` writes it.
pub fn digest(text: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(text)
        .iter()
        .fold(String::with_capacity(64), |mut hash, byte| {
            // Writing to a `String` cannot fail.
            let _ = write!(hash, "{byte:02x}");
            hash
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).expect("an object")
    }

    fn config_map(data: &Value) -> DynamicObject {
        object(json!({ "metadata": { "name": "policy", "namespace": "edge" }, "data": data }))
    }

    #[test]
    fn the_key_is_the_one_that_is_named_the_usual_one_or_the_only_one() {
        let place = Place::config_map("edge/policy").expect("a place");
        let two = config_map(&json!({ "firewall.yaml": "a: 1\n", "other": "b" }));
        let document = of(&place, &two).expect("a document");
        assert_eq!(
            (document.name.as_str(), &*document.text),
            ("configmap edge/policy/firewall.yaml", &b"a: 1\n"[..])
        );
        let only = config_map(&json!({ "fw": "c" }));
        assert_eq!(of(&place, &only).expect("a document").text, b"c");
        let named = Place::config_map("edge/policy/other").expect("a place");
        assert_eq!(of(&named, &two).expect("a document").text, b"b");
        for (place, object) in [
            (&place, config_map(&json!({ "a": "", "b": "" }))),
            (&place, config_map(&Value::Null)),
            (&named, only),
        ] {
            let refusal = of(place, &object).expect_err("there is no telling which");
            assert_eq!(refusal.reason, Reason::Invalid);
        }
    }

    #[test]
    fn a_firewall_is_the_document_that_the_parser_reads() {
        let place = Place::firewall("edge/shop").expect("a place");
        let object = object(json!({
            "apiVersion": "bulkhead.dev/v1alpha1",
            "kind": "Firewall",
            "metadata": { "name": "shop", "namespace": "edge", "generation": 4, "labels": { "a": "b" } },
            "spec": {
                "zones": [{ "name": "web" }],
                "interfaces": [{ "name": "net1", "zone": "web" }],
            },
            "status": { "hash": "" },
        }));
        let document = of(&place, &object).expect("a document");
        let parsed = bulkhead_config::parse(&document.name, &document.text).expect("a sound document");
        assert_eq!(parsed.config.name, "shop");
        assert_eq!(parsed.config.interfaces.len(), 1);
        assert_eq!(document.hash, of(&place, &object).expect("a document").hash);
        assert_eq!(digest(b"abc")[..8], *"ba7816bf");
    }
}
