//! From what moved to what is written, and in which order.
//!
//! A packet looks up one entry per address: the host's, else that of the longest prefix. So a change of members, which
//! packets see while it is written, is written in an order in which every address goes from its old class straight to its
//! new one:
//!
//! 1. Entries that come or change, longest prefixes first. An entry that comes takes its addresses from the one around it
//!    while that still has its old class.
//! 2. Entries that go, shortest first. What they leave falls to an entry that has its new class already, and never to one
//!    that goes itself.
//!
//! A commit is not seen while it is written: it writes the other half of the entries, for which any order will do.

use bulkhead_abi::AddressClass;

use super::side::{Bits, Key, Moved};

/// One write: an entry, or its removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write<A> {
    /// The prefix.
    pub key: Key<A>,
    /// Its entry; `None`: it goes.
    pub value: Option<AddressClass>,
}

/// The writes of a change of members, in order.
#[must_use]
pub fn change<A: Bits>(moved: &[Moved<A>]) -> Vec<Write<A>> {
    let write = |moved: &Moved<A>| Write {
        key: moved.key,
        value: moved.is.then_some(AddressClass::both(moved.after)),
    };
    let mut writes: Vec<Write<A>> = moved.iter().map(write).collect();
    writes.sort_by_key(|write| {
        let (_, length) = write.key;
        match write.value {
            Some(_) => (false, A::WIDTH - length),
            None => (true, length),
        }
    });
    writes
}

/// The writes that stage a commit beside the generation `live`: its packets find what they found before.
#[must_use]
pub fn stage<A: Bits>(moved: &[Moved<A>], live: u32) -> Vec<Write<A>> {
    let half = |moved: &Moved<A>| {
        if live & 1 == 0 {
            [moved.before, moved.after]
        } else {
            [moved.after, moved.before]
        }
    };
    let write = |moved: &Moved<A>| Write {
        key: moved.key,
        value: Some(AddressClass { class: half(moved) }),
    };
    moved.iter().map(write).collect()
}

/// The writes after which both halves of every entry are what the moves lead to: of a commit, when no packet is judged by the
/// generation before any more, and of the way back of one that was staged and did not happen.
///
/// What goes goes first: before 6.13 a full trie refuses even to replace an entry, and this makes room. Packets find in their
/// half what they will find at the end, whatever the order: an entry that goes has there the class of what is around it.
#[must_use]
pub fn settle<A: Bits>(moved: &[Moved<A>]) -> Vec<Write<A>> {
    let mut writes = change(moved);
    writes.sort_by_key(|write| write.value.is_some());
    writes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries of lengths 8, 16 and 24, one around the other, that turn from `was` to `is`.
    fn nested(was: bool, is: bool) -> [Moved<u32>; 3] {
        [(16, 2), (8, 1), (24, 3)].map(|(length, class)| Moved {
            key: (0x0a00_0000, length),
            before: if was { class } else { 9 },
            after: if is { class + 10 } else { 9 },
            was,
            is,
        })
    }

    fn lengths(writes: &[Write<u32>]) -> Vec<u8> {
        writes.iter().map(|write| write.key.1).collect()
    }

    #[test]
    fn what_comes_is_written_from_the_inside_and_what_goes_from_the_outside() {
        assert_eq!(lengths(&change(&nested(false, true))), [24, 16, 8]);
        assert_eq!(lengths(&change(&nested(true, true))), [24, 16, 8]);
        assert_eq!(lengths(&change(&nested(true, false))), [8, 16, 24]);
        let back = nested(false, true).map(Moved::turned);
        assert_eq!(lengths(&change(&back)), [8, 16, 24]);
        let both = [nested(true, false), nested(false, true)].concat();
        let goes = |writes: Vec<Write<u32>>| -> Vec<bool> {
            writes.iter().map(|write| write.value.is_none()).collect()
        };
        assert_eq!(goes(change(&both)), [false, false, false, true, true, true]);
        assert_eq!(goes(settle(&both)), [true, true, true, false, false, false]);
    }

    #[test]
    fn a_staged_commit_leaves_the_live_half_alone() {
        for (live, class) in [(6, [2, 12]), (7, [12, 2])] {
            let staged = stage(&nested(true, true), live);
            assert_eq!(staged[0].value, Some(AddressClass { class }));
        }
    }
}
