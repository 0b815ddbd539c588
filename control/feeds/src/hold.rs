//! Who is a member: those of the list, and those that left it a while ago.

use std::time::{Duration, SystemTime};

use bulkhead_config::IpPrefix;

/// The most that are held; those with the least time left go first.
pub const MOST_HELD: usize = 1_000_000;

/// What leads from one set of members to another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Who is new.
    pub add: Vec<IpPrefix>,
    /// Who is one no longer.
    pub remove: Vec<IpPrefix>,
}

impl Step {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }

    /// From one set to the other, in any order.
    pub fn between(mut before: Vec<IpPrefix>, mut after: Vec<IpPrefix>) -> Self {
        before.sort_unstable();
        after.sort_unstable();
        let (add, remove) = differences(&before, &after);
        Self { add, remove }
    }
}

/// What only the second of two ascending lists has, and what only the first.
fn differences(before: &[IpPrefix], after: &[IpPrefix]) -> (Vec<IpPrefix>, Vec<IpPrefix>) {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let (mut came, mut left) = (Vec::new(), Vec::new());
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return (came, left),
            (Some(_), None) => Less,
            (None, Some(_)) => Greater,
            (Some(old), Some(new)) => old.cmp(new),
        };
        if order != Greater {
            left.extend(old.next().filter(|_| order == Less));
        }
        if order != Less {
            came.extend(new.next().filter(|_| order != Equal));
        }
    }
}

/// Members by a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Those of the list; ascending, each once.
    current: Vec<IpPrefix>,
    /// Those that left it, and until when they stay; ascending, none of `current`.
    held: Vec<(IpPrefix, SystemTime)>,
}

impl Members {
    /// Members as they were kept; whatever the order.
    pub fn new(mut current: Vec<IpPrefix>, mut held: Vec<(IpPrefix, SystemTime)>) -> Self {
        current.sort_unstable();
        current.dedup();
        held.sort_unstable_by_key(|(prefix, until)| (*prefix, std::cmp::Reverse(*until)));
        held.dedup_by_key(|(prefix, _)| *prefix);
        held.retain(|(prefix, _)| current.binary_search(prefix).is_err());
        Self { current, held }
    }

    /// Takes over another list (ascending, each once). What left it stays until `hold` has passed. One walk along both
    /// lists: what changes is little, what stays may be a million.
    pub fn replace(&mut self, list: Vec<IpPrefix>, hold: Option<Duration>, now: SystemTime) -> Step {
        let (came, left) = differences(&self.current, &list);
        self.current = list;
        let before = std::mem::take(&mut self.held);
        if let Some(until) = hold.and_then(|hold| now.checked_add(hold)) {
            let still = before
                .iter()
                .filter(|(prefix, until)| *until > now && !self.has(prefix));
            self.held = still
                .copied()
                .chain(left.iter().map(|prefix| (*prefix, until)))
                .collect();
            if self.held.len() > MOST_HELD {
                self.held
                    .sort_unstable_by_key(|(_, until)| std::cmp::Reverse(*until));
                self.held.truncate(MOST_HELD);
            }
            self.held.sort_unstable();
        }
        let holds = |held: &[(IpPrefix, SystemTime)], prefix: &IpPrefix| {
            held.binary_search_by_key(prefix, |(held, _)| *held).is_ok()
        };
        // Those that were held have been members all the time.
        let add = came
            .into_iter()
            .filter(|prefix| !holds(&before, prefix))
            .collect();
        let gone = before.iter().map(|(prefix, _)| *prefix).chain(left);
        let remove = gone
            .filter(|prefix| !self.has(prefix) && !holds(&self.held, prefix))
            .collect();
        Step { add, remove }
    }

    /// Whether the list has exactly this.
    fn has(&self, prefix: &IpPrefix) -> bool {
        self.current.binary_search(prefix).is_ok()
    }

    /// Lets go whom it is time for; whether there was anyone.
    pub fn expire(&mut self, now: SystemTime) -> bool {
        let before = self.held.len();
        self.held.retain(|(_, until)| *until > now);
        self.held.len() != before
    }

    /// When the next one goes.
    pub fn next_expiry(&self) -> Option<SystemTime> {
        self.held.iter().map(|(_, until)| *until).min()
    }

    /// Those of the list.
    pub fn current(&self) -> &[IpPrefix] {
        &self.current
    }

    /// Those that left it and stay for now.
    pub fn held(&self) -> &[(IpPrefix, SystemTime)] {
        &self.held
    }

    /// Everyone.
    pub fn all(&self) -> Vec<IpPrefix> {
        let held = self.held.iter().map(|(prefix, _)| *prefix);
        self.current.iter().copied().chain(held).collect()
    }

    /// Lets everyone go.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Lets those go that are not to stay.
    pub fn retain(&mut self, mut stay: impl FnMut(&IpPrefix) -> bool) {
        self.current.retain(&mut stay);
        self.held.retain(|(prefix, _)| stay(prefix));
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.current.len() + self.held.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(last: u8) -> IpPrefix {
        IpPrefix::host(std::net::IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn who_left_stays_as_long_as_was_asked() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let hold = Some(Duration::from_secs(10));
        let mut members = Members::default();
        members.replace(vec![host(1), host(2)], hold, at(0));
        members.replace(vec![host(2), host(3)], hold, at(5));
        assert_eq!(members.all(), [host(2), host(3), host(1)]);
        assert_eq!(members.next_expiry(), Some(at(15)));
        members.replace(vec![host(1)], hold, at(9));
        assert_eq!(
            (members.current(), members.held().len()),
            (&[host(1)][..], 2),
            "back, and no longer held"
        );
        assert!(!members.expire(at(18)));
        assert!(members.expire(at(19)));
        assert_eq!(members.all(), [host(1)]);
        members.replace(vec![], None, at(20));
        assert!(members.is_empty(), "without hold at once");
    }

    proptest::proptest! {
        #[test]
        fn a_step_leads_from_before_to_after(
            lists in proptest::collection::vec(proptest::collection::btree_set(0u8..20, 0..20), 1..8),
            holds in proptest::collection::vec(proptest::option::of(1u64..4), 8),
        ) {
            use std::collections::BTreeSet;
            let (mut members, mut in_force) = (Members::default(), BTreeSet::new());
            for (second, list) in (0..).zip(&lists) {
                let now = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
                let hold = holds[second as usize].map(Duration::from_secs);
                let step = members.replace(list.iter().map(|&last| host(last)).collect(), hold, now);
                for prefix in &step.add {
                    proptest::prop_assert!(in_force.insert(*prefix), "added twice");
                }
                for prefix in &step.remove {
                    proptest::prop_assert!(in_force.remove(prefix), "removed what was not there");
                }
                let all: BTreeSet<IpPrefix> = members.all().into_iter().collect();
                proptest::prop_assert_eq!(all.len(), members.len(), "each once");
                proptest::prop_assert_eq!(&in_force, &all);
                proptest::prop_assert!(list.iter().all(|&last| in_force.contains(&host(last))));
            }
        }
    }
}
