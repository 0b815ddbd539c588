//! What comes out of gzip: a tar (POSIX ustar, GNU, pax) of lists, or a list.
//!
//! Owns just enough of tar to read regular files one after the other; nothing is ever written to disk, so names and
//! links do not matter. Names of files that begin with a dot are left out: they are notes of file managers.

use std::io::{self, BufRead, Cursor, Read as _};
use std::time::SystemTime;

use super::{head, plain};
use crate::Format;
use crate::list::{Collector, ListError};

pub(super) const BLOCK: usize = 512;
/// More files than any archive of lists has.
const MOST_FILES: usize = 10_000;

pub(super) fn unpacked(
    input: &mut dyn BufRead,
    collector: &mut Collector<'_>,
    now: SystemTime,
) -> Result<(), ListError> {
    let first = head(input)?;
    let tar = first.len() == BLOCK && Header::of(&first).is_some();
    let mut input = Cursor::new(first).chain(input);
    if tar {
        files(&mut input, collector, now)?;
        // To the end, where gzip's checksum is.
        return io::copy(&mut input, &mut io::sink())
            .map(drop)
            .map_err(ListError::Read);
    }
    if collector.rules.format == Format::Tgz {
        return Err(not_tar("there is no tar within the gzip"));
    }
    plain(&mut input, collector, now)
}

fn not_tar(why: &str) -> ListError {
    ListError::Malformed {
        format: "a .tgz",
        why: why.to_owned(),
    }
}

fn files(input: &mut dyn BufRead, collector: &mut Collector<'_>, now: SystemTime) -> Result<(), ListError> {
    for _ in 0..MOST_FILES {
        let mut block = [0; BLOCK];
        match input.read_exact(&mut block) {
            // Some writers leave the two empty blocks out.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read.map_err(ListError::Read)?,
        }
        if block.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        let header = Header::of(&block).ok_or_else(|| not_tar("a header in it is damaged"))?;
        let mut content = input.take(header.size);
        if header.regular && !header.hidden {
            plain(&mut content, collector, now)?;
        }
        let left = content.limit();
        let padding = header.size.next_multiple_of(BLOCK as u64) - header.size;
        let skip = left + padding;
        let skipped = io::copy(&mut input.take(skip), &mut io::sink()).map_err(ListError::Read)?;
        if skipped < left {
            return Err(not_tar("it breaks off"));
        }
    }
    Err(not_tar("it has too many files"))
}

struct Header {
    size: u64,
    regular: bool,
    hidden: bool,
}

impl Header {
    /// `None` if the checksum is wrong: the sum of all bytes, the field itself read as spaces.
    fn of(block: &[u8]) -> Option<Self> {
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, &byte)| u64::from(if (148..156).contains(&at) { b' ' } else { byte }))
            .sum();
        let name = block.get(..100)?.split(|&byte| byte == 0).next()?;
        let last = name.rsplit(|&byte| byte == b'/').find(|part| !part.is_empty());
        (octal(block.get(148..156)?)? == sum).then_some(Self {
            size: octal(block.get(124..136)?)?.min(u64::MAX / 2),
            regular: matches!(block.get(156)?, 0 | b'0' | b'7'),
            hidden: last.is_some_and(|part| part.starts_with(b".")),
        })
    }
}

/// Digits between spaces and zeros. Larger sizes, in another notation, exceed every limit anyway.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.trim_matches(['\0', ' ']);
    u64::from_str_radix(digits, 8)
        .ok()
        .filter(|_| !digits.starts_with('+'))
}
