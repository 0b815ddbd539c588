//! Lists of lines, whatever their vendor.

use std::io::{BufRead, Read as _};

use crate::entry::{Entry, Fault};
use crate::list::{Collector, ListError};

/// The longest line: an entry has at most 87 bytes, the rest is comment.
const LONGEST: usize = 4_096;

pub(crate) fn read(input: &mut dyn BufRead, collector: &mut Collector<'_>) -> Result<(), ListError> {
    let (mut line, mut number) = (Vec::with_capacity(256), 0u64);
    loop {
        line.clear();
        number += 1;
        let got = input
            .take(LONGEST as u64 + 1)
            .read_until(b'\n', &mut line)
            .map_err(ListError::Read)?;
        if got == 0 {
            return Ok(());
        }
        if got > LONGEST && line.last() != Some(&b'\n') {
            collector.refuse(number, &String::from_utf8_lossy(&line), Fault::TooLong);
            skip_line(input)?;
            continue;
        }
        // Comments are in any encoding; entries are ASCII.
        let text = String::from_utf8_lossy(&line);
        if let Some(entry) = Entry::of_line(&text) {
            collector.take(number, &text, entry)?;
        }
    }
}

fn skip_line(input: &mut dyn BufRead) -> Result<(), ListError> {
    loop {
        let buffer = input.fill_buf().map_err(ListError::Read)?;
        let end = buffer.iter().position(|&byte| byte == b'\n');
        let (used, done) = match end {
            Some(end) => (end + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        input.consume(used);
        if done {
            return Ok(());
        }
    }
}
