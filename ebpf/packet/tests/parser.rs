//! The parser on arbitrary bytes, on frames that are nearly right, and on the fuzz target's stored corpus.

mod invariants;

use std::{fs, path::Path};

use proptest::prelude::*;

/// The stored corpus, by name.
fn corpus() -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/parse");
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut frames: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("a directory entry").path();
            let name = path
                .file_name()
                .expect("a file name")
                .to_string_lossy()
                .into_owned();
            (name, fs::read(&path).expect("a readable file"))
        })
        .collect();
    frames.sort();
    frames
}

#[test]
fn the_stored_corpus_holds() {
    let frames = corpus();
    assert!(frames.len() >= 30, "only {} inputs are left", frames.len());
    for (name, frame) in frames {
        println!("{name}");
        invariants::check(&frame);
        for length in 0..frame.len() {
            invariants::check(&frame[..length]);
        }
    }
}

/// The names say what becomes of them: `ok_...`, or the reason and a number.
#[test]
fn the_stored_corpus_is_judged_as_its_names_say() {
    use bulkhead_packet::{HeaderBuffer, Packet, PlainLoop, parse};
    let mut reasons = std::collections::BTreeSet::new();
    for (name, frame) in corpus() {
        let headers = HeaderBuffer::from_frame(&frame);
        let outcome = parse(
            &PlainLoop,
            &headers,
            frame.len() as u32,
            false,
            &mut Packet::default(),
        );
        let verdict = outcome.map_or_else(|reason| reason.name(), |()| "ok");
        assert!(name.starts_with(verdict), "{name} is {verdict}");
        reasons.insert(verdict);
    }
    assert_eq!(
        reasons.len(),
        15,
        "every reason of the parser, and `ok`: {reasons:?}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(frame in proptest::collection::vec(any::<u8>(), 0..260)) {
        invariants::check(&frame);
    }

    #[test]
    fn nearly_right_frames(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        length in 0..300usize,
        repair in any::<bool>(),
    ) {
        let frames = corpus();
        let mut frame = frames[which.index(frames.len())].1.clone();
        for (at, value) in changes {
            if !frame.is_empty() {
                let at = at.index(frame.len());
                frame[at] = value;
            }
        }
        if repair {
            repair_ipv4(&mut frame);
        }
        invariants::check(&frame);
        frame.truncate(length);
        invariants::check(&frame);
    }
}

/// Makes an IPv4 header checksum right, so that what stands behind the check is reached.
fn repair_ipv4(frame: &mut [u8]) {
    if frame.len() < 34 || frame[12..14] != [8, 0] {
        return;
    }
    let end = 14 + usize::from(frame[14] & 15) * 4;
    if end < 34 || end > frame.len() {
        return;
    }
    frame[24..26].fill(0);
    let mut sum: u32 = frame[14..end]
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}
