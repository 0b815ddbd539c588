//! A revision as a file: a line of JSON, then the document, byte by byte as it was written.
//!
//! So `tail -n +2` gives the document to a person who has nothing but a shell.

use crate::revision::{Revision, digest};

/// Longest first line. A comment is the one part that people choose freely, and it is bounded where it is taken in.
const MAX_HEADER_BYTES: u64 = 64 * 1024;

/// The name of a revision's file.
pub(crate) fn name(number: u64) -> String {
    format!("{number:08}.revision")
}

/// The number in a file's name.
pub(crate) fn number(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".revision")?.parse().ok()?;
    (self::name(number) == name).then_some(number)
}

/// The name of what is not a revision yet.
pub(crate) const TEMPORARY: &str = "next.temporary";

/// How much of a file is read for [`header`].
pub(crate) const fn header_limit() -> u64 {
    MAX_HEADER_BYTES
}

/// The first line, its end included.
pub(crate) fn first_line(revision: &Revision) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(revision)?;
    line.push(b'\n');
    Ok(line)
}

/// Reads the first line of a file of which at least [`header_limit`] bytes are there, or all of it.
pub(crate) fn header(content: &[u8], number: u64) -> Result<(Revision, usize), String> {
    let end = content
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or("its first line has no end")?;
    let revision: Revision = serde_json::from_slice(&content[..end])
        .map_err(|error| format!("its first line cannot be understood: {error}"))?;
    if revision.number != number {
        return Err(format!("it says that it is revision {}", revision.number));
    }
    Ok((revision, end + 1))
}

/// Reads a whole file.
pub(crate) fn whole(mut content: Vec<u8>, number: u64) -> Result<(Revision, Vec<u8>), String> {
    let (revision, begin) = header(&content, number)?;
    content.drain(..begin);
    if content.len() as u64 != revision.bytes {
        return Err(format!(
            "its document has {} bytes and not {}",
            content.len(),
            revision.bytes
        ));
    }
    if digest(&content) != revision.sha256 {
        return Err("its document is not what its digest says".to_owned());
    }
    Ok((revision, content))
}
