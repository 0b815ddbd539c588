//! Which format a list has, and the way through its wrappings.
//!
//! Owns detection by content: gzip by its magic, tar by its header, a JSON text by its first character, everything else
//! is lines. A configured format is believed, its wrapping is still looked at, since no list of any format begins like
//! gzip. What is unpacked is bounded in bytes whatever the wrapping claims.

mod archive;

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::time::SystemTime;

use crate::list::{Collector, List, ListError, Rules};
use crate::{json, stix, text};

/// How a list is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Found out by looking.
    #[default]
    Auto,
    /// A line for each entry.
    Text,
    /// JSON, one document or several.
    Json,
    /// A STIX 2.1 bundle.
    Stix,
    /// A compressed tar of files of any of these.
    Tgz,
}

const GZIP: &[u8] = &[0x1f, 0x8b];

/// Reads a list to its end. `now` decides which STIX indicators are valid.
///
/// # Errors
/// If the list is refused as a whole; single bad entries are counted in it.
pub fn read(input: impl Read, rules: &Rules, now: SystemTime) -> Result<List, ListError> {
    let mut collector = Collector::new(rules);
    let mut input = BufReader::with_capacity(32 * 1024, input);
    let head = head(&mut input)?;
    let packed = head.starts_with(GZIP);
    let mut input = Cursor::new(head).chain(input);
    let read = if packed {
        let unpacked = Limited::new(flate2::bufread::MultiGzDecoder::new(input), rules.max_bytes);
        archive::unpacked(&mut BufReader::new(unpacked), &mut collector, now)
    } else if rules.format == Format::Tgz {
        return Err(ListError::Malformed {
            format: "a .tgz",
            why: "it does not begin like gzip".to_owned(),
        });
    } else {
        let mut limited = BufReader::new(Limited::new(&mut input, rules.max_bytes));
        plain(&mut limited, &mut collector, now)
    };
    match read {
        Err(ListError::Read(error)) if error.get_ref().is_some_and(|inner| inner.is::<TooLarge>()) => {
            return Err(ListError::TooLarge(rules.max_bytes));
        }
        read => read?,
    }
    collector.finish()
}

/// The first bytes, as many as a tar header has, however few a read yields.
fn head(input: &mut dyn BufRead) -> Result<Vec<u8>, ListError> {
    let mut head = Vec::with_capacity(archive::BLOCK);
    let mut first = input.take(archive::BLOCK as u64);
    first.read_to_end(&mut head).map_err(ListError::Read)?;
    Ok(head)
}

/// A list without any wrapping.
fn plain(input: &mut dyn BufRead, collector: &mut Collector<'_>, now: SystemTime) -> Result<(), ListError> {
    let format = match collector.rules.format {
        Format::Auto | Format::Tgz => detect(input, collector.rules).map_err(ListError::Read)?,
        format => format,
    };
    match format {
        Format::Json => json::read(input, collector),
        Format::Stix => stix::read(input, collector, now),
        Format::Auto | Format::Text | Format::Tgz => text::read(input, collector),
    }
}

/// By the first character that is not white space: no entry of lines begins with a brace, and JSON whose addresses are
/// in mappings needs a key, unless it is STIX.
fn detect(input: &mut dyn BufRead, rules: &Rules) -> io::Result<Format> {
    const BOM: &[u8] = "\u{feff}".as_bytes();
    if input.fill_buf()?.starts_with(BOM) {
        input.consume(BOM.len());
    }
    loop {
        let buffer = input.fill_buf()?;
        let blank = buffer
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count();
        return Ok(match buffer.get(blank) {
            None if blank > 0 => {
                input.consume(blank);
                continue;
            }
            Some(b'[') => Format::Json,
            Some(b'{') if rules.keys.is_empty() => Format::Stix,
            Some(b'{') => Format::Json,
            _ => Format::Text,
        });
    }
}

#[derive(Debug, thiserror::Error)]
#[error("too large")]
struct TooLarge;

/// Fails behind so many bytes, where [`Read::take`] would pretend that the text has ended.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R> Limited<R> {
    fn new(inner: R, limit: u64) -> Self {
        Self { inner, left: limit }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(got as u64)
            .ok_or_else(|| io::Error::other(TooLarge))?;
        Ok(got)
    }
}
