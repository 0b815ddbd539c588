//! One kind of DNS message (RFC 1035): a TXT question, and its answer. `dig` understands the server.

const HEADER_BYTES: usize = 12;
const TYPE_TXT: u16 = 16;
const CLASS_IN: u16 = 1;

/// A recursive TXT query. `None` if the name has an empty label or one of more than 63 bytes.
pub fn query(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    for word in [id, 0x0100, 1, 0, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|length| (1..64).contains(length))?;
        message.push(length);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(TYPE_TXT.to_be_bytes());
    message.extend(CLASS_IN.to_be_bytes());
    Some(message)
}

/// The response to a query, with `text` (at most 255 bytes of it) as its only record. `None` if it is no
/// query with exactly one question.
pub fn respond(query: &[u8], text: &str) -> Option<Vec<u8>> {
    let word = |at: usize| Some(u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?));
    let is_response = word(2)? & 0x8000 != 0;
    if is_response || word(4)? != 1 {
        return None;
    }
    let end = question_end(query)?;
    let text = &text.as_bytes()[..text.len().min(255)];
    let length = u8::try_from(text.len()).ok()?;
    let mut message = Vec::new();
    // Response, recursion desired and available, no error; one question, one answer.
    for word in [word(0)?, 0x8180, 1, 1, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    message.extend(query.get(HEADER_BYTES..end)?);
    // The name is that of the question; time to live 0.
    for word in [
        0xc000 | HEADER_BYTES as u16,
        TYPE_TXT,
        CLASS_IN,
        0,
        0,
        u16::from(length) + 1,
    ] {
        message.extend(word.to_be_bytes());
    }
    message.push(length);
    message.extend(text);
    Some(message)
}

/// The text of a response to the query of this id. `None` if it is something else.
pub fn text(id: u16, response: &[u8]) -> Option<String> {
    let word = |at: usize| Some(u16::from_be_bytes(response.get(at..at + 2)?.try_into().ok()?));
    if word(0)? != id || word(2)? & 0x800f != 0x8000 || word(6)? == 0 {
        return None;
    }
    let record = question_end(response)?;
    if word(record + 2)? != TYPE_TXT {
        return None;
    }
    let data = record + 12;
    let length = usize::from(*response.get(data)?);
    String::from_utf8(response.get(data + 1..data + 1 + length)?.to_vec()).ok()
}

/// Where the only question ends. Questions are never compressed.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER_BYTES;
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 5).filter(|end| *end <= message.len()),
            length @ 1..64 => at += 1 + length,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_carries_the_text_to_whoever_asked() {
        let query = query(0x1234, "db.bulkhead.test").expect("a name");
        let response = respond(&query, "10.0.0.1:53").expect("a response");
        assert_eq!(text(0x1234, &response).as_deref(), Some("10.0.0.1:53"));
        assert_eq!(text(0x1235, &response), None, "someone else's question");
        assert_eq!(respond(&response, "x"), None, "a response is not answered");
        assert_eq!(text(0x1234, &query), None, "a query is no response");
    }

    #[test]
    fn truncated_messages_are_refused_not_read_past() {
        let query = query(1, "a.b").expect("a name");
        let response = respond(&query, "hello").expect("a response");
        for length in 0..query.len() {
            assert_eq!(respond(&query[..length], "x"), None, "{length} bytes");
        }
        for length in 0..response.len() {
            assert_eq!(text(1, &response[..length]), None, "{length} bytes");
        }
    }
}
