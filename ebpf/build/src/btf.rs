//! Puts the forward declarations of a BPF object's types in order.
//!
//! LLVM appends them (`BTF_KIND_FWD`) in the order in which it holds their descriptions in memory, which is another from one run to
//! the next; two builds of the same sources would differ in a few numbers. Here they stand by their names. Types keep their
//! places but for these, which all have one size, and what refers to them follows. Assumes the layout of the kernel's
//! `Documentation/bpf/btf.rst`. Refuses kinds of types that are not known from there.

use anyhow::{Context as _, Result, bail};

/// `BTF_MAGIC`, in the only byte order that is built here.
const MAGIC: [u8; 2] = [0x9f, 0xeb];
/// Length of what every type begins with: name, information, and a size or another type.
const COMMON: usize = 12;
const FORWARD: u32 = 7;

/// Where a type refers to another, and how long it is.
struct Shape {
    references: Vec<usize>,
    length: usize,
}

impl Shape {
    /// Of a type of this kind with so many parts. Places count from the type's beginning.
    fn of(kind: u32, parts: usize) -> Result<Self> {
        let each = |size: usize, at: usize| Self {
            references: (0..parts).map(|part| COMMON + part * size + at).collect(),
            length: COMMON + parts * size,
        };
        let plain = |more: usize| Self {
            references: Vec::new(),
            length: COMMON + more,
        };
        let one = |more: usize| Self {
            references: vec![8],
            length: COMMON + more,
        };
        Ok(match kind {
            // Integers, enumerations of both widths, forward declarations, floating point numbers.
            1 => plain(4),
            6 => plain(parts * 8),
            19 => plain(parts * 12),
            FORWARD | 16 => plain(0),
            // Pointers, names for types, their qualifiers, functions, tags of types.
            2 | 8..=12 | 18 => one(0),
            // Variables, tags of declarations.
            14 | 17 => one(4),
            // Arrays: of what, counted by what.
            3 => Self {
                references: vec![COMMON, COMMON + 4],
                length: COMMON + 12,
            },
            // Structures and unions; sections of data.
            4 | 5 => each(12, 4),
            15 => each(12, 0),
            // Prototypes: what is returned, then the parameters.
            13 => {
                let mut shape = each(8, 4);
                shape.references.push(8);
                shape
            }
            _ => bail!("a type of kind {kind} is not known"),
        })
    }
}

/// The same types (the content of a section `.BTF`), forward declarations in the order of their names.
pub(crate) fn ordered(section: &[u8]) -> Result<Vec<u8>> {
    if section.get(..2) != Some(&MAGIC) {
        bail!("not BTF in little-endian order");
    }
    let header = number(section, 4)?;
    let types = header + number(section, 8)?;
    let end = types + number(section, 12)?;
    let strings = header + number(section, 16)?;
    let name = |at: usize| -> Result<&[u8]> {
        let rest = section.get(strings + number(section, at)?..);
        rest.and_then(|rest| rest.split(|byte| *byte == 0).next())
            .context("a name beyond the strings")
    };

    // Types are numbered from 1: 0 is `void`.
    let (mut forwards, mut references) = (Vec::new(), Vec::new());
    let (mut at, mut id) = (types, 1_u32);
    while at < end {
        let information = word(section, at + 4)?;
        let kind = information >> 24 & 0x1f;
        let shape = Shape::of(kind, (information & 0xffff) as usize)?;
        references.extend(shape.references.iter().map(|place| at + place));
        if kind == FORWARD {
            forwards.push((name(at)?, at, id));
        }
        at += shape.length;
        id += 1;
    }
    if at != end {
        bail!("the last type ends at {at}, and the types at {end}");
    }

    let places: Vec<(usize, u32)> = forwards.iter().map(|(_, at, id)| (*at, *id)).collect();
    forwards.sort_by_key(|(name, at, _)| (*name, section.get(at + 4..at + 8)));
    let mut result = section.to_vec();
    for ((_, from, _), (to, _)) in forwards.iter().zip(&places) {
        let moved = section
            .get(*from..from + COMMON)
            .context("a type beyond the end")?;
        result[*to..to + COMMON].copy_from_slice(moved);
    }
    for place in references {
        let before = word(section, place)?;
        let moved = forwards.iter().position(|(_, _, id)| *id == before);
        if let Some(after) = moved.and_then(|position| places.get(position)) {
            result[place..place + 4].copy_from_slice(&after.1.to_le_bytes());
        }
    }
    Ok(result)
}

fn word(section: &[u8], at: usize) -> Result<u32> {
    let bytes = section.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    Ok(u32::from_le_bytes(
        bytes.with_context(|| format!("BTF ends before {at} + 4"))?,
    ))
}

fn number(section: &[u8], at: usize) -> Result<usize> {
    Ok(word(section, at)? as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRINGS: &[u8] = b"\0alpha\0beta\0s\0";
    const ALPHA: u32 = 1;
    const BETA: u32 = 7;

    /// Types as words, under a header and before the strings.
    fn section(types: &[u32]) -> Vec<u8> {
        let length = types.len() as u32 * 4;
        let mut section = MAGIC.to_vec();
        section.extend([1, 0]);
        for field in [24, 0, length, length, STRINGS.len() as u32] {
            section.extend(u32::to_le_bytes(field));
        }
        section.extend(types.iter().flat_map(|word| word.to_le_bytes()));
        section.extend(STRINGS);
        section
    }

    /// Pointers to the declarations 5 and 6, a structure of both pointers and one of them itself, and the declarations.
    fn types(pointed: [u32; 2], declared: [u32; 2]) -> Vec<u8> {
        section(&[
            0,
            2 << 24,
            pointed[0], // 1: a pointer to alpha
            0,
            2 << 24,
            pointed[1], // 2: a pointer to beta
            13,
            4 << 24 | 3,
            24,
            0,
            1,
            0,
            0,
            2,
            64,
            0,
            pointed[1],
            128, // 3: { *alpha; *beta; beta }
            0,
            13 << 24 | 1,
            pointed[0],
            0,
            3, // 4: a prototype: alpha from 3
            declared[0],
            7 << 24,
            0, // 5
            declared[1],
            7 << 24,
            0, // 6
        ])
    }

    #[test]
    fn the_order_of_declarations_is_that_of_their_names_and_everything_refers_to_the_same() {
        let one = types([5, 6], [ALPHA, BETA]);
        let other = types([6, 5], [BETA, ALPHA]);
        assert_ne!(one, other);
        assert_eq!(ordered(&one).expect("types"), one);
        assert_eq!(ordered(&other).expect("types"), one);
    }

    #[test]
    fn what_is_no_btf_is_refused() {
        let whole = types([5, 6], [ALPHA, BETA]);
        for broken in [&whole[..40], &whole[..3], b"", b"\xeb\x9f\x01\0"] {
            assert!(ordered(broken).is_err());
        }
        let error = ordered(&section(&[0, 31 << 24, 0])).expect_err("no such kind");
        assert!(error.to_string().contains("kind 31"), "{error}");
    }
}
