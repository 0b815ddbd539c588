//! A list that was read, and how much of it was bad.
//!
//! Owns the limits that hold for every format: the entry cap, the refusal of a list that says "everyone", and the
//! line between a list with a slip of the pen and something that is no list. Memory is bounded by the cap: 18 bytes for
//! each prefix, plus a fixed number of examples of what was bad.

use std::io;

use bulkhead_config::IpPrefix;

use crate::entry::{Entry, Fault};

/// How many bad entries are kept as examples.
pub const EXAMPLES: usize = 5;
/// How much of a bad entry is kept, in characters.
const EXAMPLE_LENGTH: usize = 80;
/// A list is refused if more than one entry in this many is bad.
pub const WORST: u64 = 4;
/// By how much the prefixes may exceed the cap before twins are taken out.
const SLACK: usize = 65_536;

/// What a list may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How it is written.
    pub format: crate::Format,
    /// Where the addresses are in JSON: names joined by dots, `*` for any. None: the strings of the outermost list.
    pub keys: Vec<String>,
    /// The most prefixes it may come to.
    pub max_entries: usize,
    /// The most bytes it may come to once unpacked.
    pub max_bytes: u64,
    /// Whether `0.0.0.0/0` and `::/0` are taken.
    pub allow_default_route: bool,
}

/// A list that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// What it covers, ascending, each once.
    pub prefixes: Vec<IpPrefix>,
    /// How many entries were good.
    pub good: u64,
    /// How many were not.
    pub bad: u64,
    /// The first of those.
    pub examples: Vec<Bad>,
    /// Statements that are not about addresses, or no longer hold (STIX).
    pub skipped: u64,
}

/// An entry that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Its line, or its number in a format without lines; from 1.
    pub place: u64,
    /// Its beginning, without control characters.
    pub text: String,
    /// What is wrong with it.
    pub fault: Fault,
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "entry {}: \"{}\" {}", self.place, self.text, self.fault)
    }
}

/// Why a list is refused as a whole.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// More than the cap.
    #[error("the list has more than {0} entries; raise maxEntries if that is meant")]
    TooMany(usize),
    /// More than the cap of bytes.
    #[error("the list unpacks to more than {0} bytes")]
    TooLarge(u64),
    /// It says everyone.
    #[error("the list covers every address by {0}; set allowDefaultRoute if that is meant")]
    Everyone(IpPrefix),
    /// It is no list, or not of this format.
    #[error("{bad} of {all} entries are bad, more than one in {WORST}; {first}")]
    MostlyBad {
        /// How many are bad.
        bad: u64,
        /// How many there are.
        all: u64,
        /// The first of them.
        first: Bad,
    },
    /// The keys lead nowhere.
    #[error("nothing in the list is at {0}; correct key")]
    NothingAt(String),
    /// It is not what its format says.
    #[error("the list is not {format}: {why}")]
    Malformed {
        /// What it should be.
        format: &'static str,
        /// What stands against it.
        why: String,
    },
    /// It could not be read to its end.
    #[error("the list breaks off: {0}")]
    Read(io::Error),
}

/// Collects entries into a [`List`].
pub(crate) struct Collector<'r> {
    pub(crate) rules: &'r Rules,
    list: List,
    everyone: Option<IpPrefix>,
}

impl<'r> Collector<'r> {
    pub(crate) fn new(rules: &'r Rules) -> Self {
        Self {
            rules,
            list: List::default(),
            everyone: None,
        }
    }

    /// How many entries there were, good and bad.
    pub(crate) fn seen(&self) -> u64 {
        self.list.good + self.list.bad
    }

    pub(crate) fn skip(&mut self) {
        self.list.skipped += 1;
    }

    pub(crate) fn take(
        &mut self,
        place: u64,
        text: &str,
        entry: Result<Entry, Fault>,
    ) -> Result<(), ListError> {
        let entry = match entry {
            Ok(entry) => entry,
            Err(fault) => {
                self.refuse(place, text, fault);
                return Ok(());
            }
        };
        self.list.good += 1;
        for prefix in entry.prefixes() {
            if prefix.length == 0 {
                self.everyone = Some(prefix);
            }
            self.list.prefixes.push(prefix);
        }
        if self.list.prefixes.len() > self.rules.max_entries.saturating_add(SLACK) {
            self.compact()?;
        }
        Ok(())
    }

    /// Counts a bad entry.
    pub(crate) fn refuse(&mut self, place: u64, text: &str, fault: Fault) {
        self.list.bad += 1;
        if self.list.examples.len() < EXAMPLES {
            let shown = text.trim().chars().take(EXAMPLE_LENGTH);
            self.list.examples.push(Bad {
                place,
                text: shown.map(|c| if c.is_control() { ' ' } else { c }).collect(),
                fault,
            });
        }
    }

    fn compact(&mut self) -> Result<(), ListError> {
        self.list.prefixes.sort_unstable();
        self.list.prefixes.dedup();
        match self.list.prefixes.len() > self.rules.max_entries {
            true => Err(ListError::TooMany(self.rules.max_entries)),
            false => Ok(()),
        }
    }

    pub(crate) fn finish(mut self) -> Result<List, ListError> {
        self.compact()?;
        let all = self.seen();
        if self.list.bad * WORST > all
            && let Some(first) = self.list.examples.first()
        {
            return Err(ListError::MostlyBad {
                bad: self.list.bad,
                all,
                first: first.clone(),
            });
        }
        if let Some(everyone) = self.everyone.or_else(|| family_covered(&self.list.prefixes))
            && !self.rules.allow_default_route
        {
            return Err(ListError::Everyone(everyone));
        }
        self.list.prefixes.shrink_to_fit();
        Ok(self.list)
    }
}

/// The family of which ascending prefixes leave no address out, such as `0.0.0.0/1` and `128.0.0.0/1` together.
fn family_covered(prefixes: &[IpPrefix]) -> Option<IpPrefix> {
    let bits = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(address) => u128::from(address.to_bits()),
        std::net::IpAddr::V6(address) => address.to_bits(),
    };
    for (v4, top) in [(true, u128::from(u32::MAX)), (false, u128::MAX)] {
        let mut family = prefixes.iter().filter(|prefix| prefix.address.is_ipv4() == v4);
        // The lowest address that nothing so far covers; `None` once there is none left.
        let mut open = Some(0);
        let covered = family.by_ref().find_map(|prefix| {
            let next = open?;
            let range = prefix.range();
            if bits(range.first) > next {
                return Some(false);
            }
            let last = bits(range.last).max(next.saturating_sub(1));
            open = (last < top).then(|| last + 1);
            open.is_none().then_some(true)
        });
        if covered == Some(true) {
            let first = prefixes.iter().find(|prefix| prefix.address.is_ipv4() == v4)?;
            return IpPrefix::around(first.address, 0);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::family_covered;
    use crate::entry::Entry;

    #[test]
    fn a_family_is_covered_only_without_a_gap() {
        let covered = |texts: &[&str]| {
            let mut prefixes: Vec<_> = texts
                .iter()
                .flat_map(|text| Entry::of_value(text).expect("an entry").prefixes())
                .collect();
            prefixes.sort_unstable();
            family_covered(&prefixes).map(|prefix| prefix.to_string())
        };
        assert_eq!(covered(&["0.0.0.0/1", "128.0.0.0/1"]), Some("0.0.0.0/0".into()));
        assert_eq!(
            covered(&["0.0.0.0/1", "10.0.0.0/8", "128.0.0.0/1"]),
            Some("0.0.0.0/0".into())
        );
        assert_eq!(covered(&["::/1", "8000::/1"]), Some("::/0".into()));
        assert_eq!(covered(&["0.0.0.0/1", "128.0.0.0-255.255.255.254"]), None);
        assert_eq!(covered(&["0.0.0.1-255.255.255.255"]), None);
        assert_eq!(covered(&["10.0.0.1"]), None);
        assert_eq!(covered(&[]), None);
    }
}
