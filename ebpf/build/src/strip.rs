//! Takes the DWARF out of a BPF object, and puts its types in an order that is the same in every build ([`btf`]).
//!
//! DWARF is what `.BTF` and `.BTF.ext` are made from, by which the kernel names lines, and nobody reads it afterwards; but it is
//! three quarters of the object, and the object is in the binary. Sections keep their numbers, by which symbols and relocations
//! refer to them: one that is taken out becomes empty. Refuses what is not a 64-bit little-endian ELF file with its parts inside.

use std::borrow::Cow;

use anyhow::{Context as _, Result, bail};

use crate::btf;

/// Length of the file's header, and of a section's.
const HEADER: usize = 64;
/// The places of fields in the file's header (elf(5), `Elf64_Ehdr`).
const SECTIONS_AT: usize = 40;
const SECTION_COUNT: usize = 60;
const NAMES_SECTION: usize = 62;
/// The places of fields in a section's header (`Elf64_Shdr`).
const NAME: usize = 0;
const KIND: usize = 4;
const OFFSET: usize = 24;
const SIZE: usize = 32;
const ALIGNMENT: usize = 48;
/// A section without bytes in the file.
const NO_BITS: u64 = 8;

/// The object without the sections `.debug_*` and their relocations, its types in order.
pub(crate) fn without_dwarf(object: &[u8]) -> Result<Vec<u8>> {
    if object.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("not a 64-bit little-endian ELF file");
    }
    let start = place(read(object, SECTIONS_AT, 8)?)?;
    let count = place(read(object, SECTION_COUNT, 2)?)?;
    let names = place(read(object, NAMES_SECTION, 2)?)?;
    let headers = slice(object, start, count * HEADER)?;
    let names = content(object, slice(headers, names * HEADER, HEADER)?)?;
    let mut result = slice(object, 0, HEADER)?.to_vec();
    let mut kept = Vec::with_capacity(headers.len());
    for header in headers.chunks_exact(HEADER) {
        let mut header = header.to_vec();
        let name = names.get(place(read(&header, NAME, 4)?)?..).unwrap_or_default();
        if name.starts_with(b".debug_") || name.starts_with(b".rel.debug_") {
            header.fill(0);
        }
        let bytes = content(object, &header)?;
        let bytes = if name.starts_with(b".BTF\0") {
            Cow::Owned(btf::ordered(bytes).context("in the section .BTF")?)
        } else {
            Cow::Borrowed(bytes)
        };
        if !bytes.is_empty() {
            let alignment = place(read(&header, ALIGNMENT, 8)?)?.max(1);
            result.resize(result.len().next_multiple_of(alignment), 0);
            header[OFFSET..OFFSET + 8].copy_from_slice(&(result.len() as u64).to_le_bytes());
            result.extend_from_slice(&bytes);
        }
        kept.extend_from_slice(&header);
    }
    result.resize(result.len().next_multiple_of(8), 0);
    let start = (result.len() as u64).to_le_bytes();
    result[SECTIONS_AT..SECTIONS_AT + 8].copy_from_slice(&start);
    result.extend_from_slice(&kept);
    Ok(result)
}

/// What a section has in the file.
fn content<'o>(object: &'o [u8], header: &[u8]) -> Result<&'o [u8]> {
    match read(header, KIND, 4)? {
        0 | NO_BITS => Ok(&[]),
        _ => slice(
            object,
            place(read(header, OFFSET, 8)?)?,
            place(read(header, SIZE, 8)?)?,
        ),
    }
}

fn slice(bytes: &[u8], start: usize, length: usize) -> Result<&[u8]> {
    let end = start.checked_add(length);
    end.and_then(|end| bytes.get(start..end))
        .with_context(|| format!("the ELF file ends before {start} + {length}"))
}

/// A little-endian number.
fn read(bytes: &[u8], at: usize, length: usize) -> Result<u64> {
    let bytes = slice(bytes, at, length)?;
    Ok(bytes
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn place(number: u64) -> Result<usize> {
    usize::try_from(number).with_context(|| format!("{number} is no place in a file"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[u8] = b"\0.text\0.debug_info\0.rel.debug_info\0.BTF.ext\0.bss\0.names\0";

    /// A file of these sections: name, kind, alignment, bytes.
    fn file(sections: &[(&str, u64, u64, &[u8])]) -> Vec<u8> {
        let mut file = vec![0; HEADER];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let mut headers = vec![0; HEADER];
        for (name, kind, alignment, bytes) in sections {
            let at = NAMES
                .windows(name.len() + 1)
                .position(|part| part == [name.as_bytes(), b"\0"].concat());
            let mut header = vec![0; HEADER];
            header[NAME] = u8::try_from(at.expect("a name")).expect("a place");
            header[KIND] = *kind as u8;
            header[OFFSET..OFFSET + 8].copy_from_slice(&(file.len() as u64).to_le_bytes());
            header[SIZE..SIZE + 8].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
            header[ALIGNMENT] = *alignment as u8;
            headers.extend(header);
            file.extend_from_slice(bytes);
        }
        let start = (file.len() as u64).to_le_bytes();
        file[SECTIONS_AT..SECTIONS_AT + 8].copy_from_slice(&start);
        file[SECTION_COUNT] = sections.len() as u8 + 1;
        file[NAMES_SECTION] = sections.len() as u8;
        file.extend(headers);
        file
    }

    fn section(file: &[u8], number: usize) -> Vec<u8> {
        let start = place(read(file, SECTIONS_AT, 8).expect("a start")).expect("a place");
        let header = slice(file, start + number * HEADER, HEADER).expect("a header");
        content(file, header).expect("a section").to_vec()
    }

    #[test]
    fn dwarf_goes_and_everything_else_keeps_its_number_and_its_bytes() {
        let whole = file(&[
            (".text", 1, 8, b"instructions"),
            (".debug_info", 1, 1, &[7; 1_000]),
            (".rel.debug_info", 9, 8, &[9; 500]),
            (".BTF.ext", 1, 4, b"lines"),
            (".bss", NO_BITS, 8, &[]),
            (".names", 3, 1, NAMES),
        ]);
        let stripped = without_dwarf(&whole).expect("a file");
        assert!(
            stripped.len() < whole.len() - 1_400,
            "{} of {}",
            stripped.len(),
            whole.len()
        );
        assert_eq!(section(&stripped, 1), b"instructions");
        assert_eq!(section(&stripped, 2), b"");
        assert_eq!(section(&stripped, 3), b"");
        assert_eq!(section(&stripped, 4), b"lines");
        assert_eq!(section(&stripped, 6), NAMES);
        assert_eq!(
            without_dwarf(&stripped).expect("a file"),
            stripped,
            "there is nothing more to take out"
        );
    }

    #[test]
    fn what_is_no_whole_file_is_refused() {
        let whole = file(&[(".names", 3, 1, NAMES)]);
        assert!(without_dwarf(&whole).is_ok());
        for broken in [&whole[..whole.len() - 1], &whole[..20], b"\x7fELF\x01\x01", b""] {
            assert!(without_dwarf(broken).is_err());
        }
    }
}
