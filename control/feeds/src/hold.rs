//! Who is a member: those of the list, and those that left it a while ago.

use std::time::{Duration, SystemTime};

use bulkhead_config::IpPrefix;

/// The most that are held; those with the least time left go first.
pub const MOST_HELD: usize = 1_000_000;

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

    /// Takes over another list (ascending, each once). What left it stays until `hold` has passed.
    pub fn replace(&mut self, list: Vec<IpPrefix>, hold: Option<Duration>, now: SystemTime) {
        let before = std::mem::replace(&mut self.current, list);
        let current = &self.current;
        let gone = |prefix: &IpPrefix| current.binary_search(prefix).is_err();
        self.held.retain(|(prefix, until)| *until > now && gone(prefix));
        let Some(until) = hold.and_then(|hold| now.checked_add(hold)) else {
            self.held.clear();
            return;
        };
        let left = before.into_iter().filter(gone).map(|prefix| (prefix, until));
        self.held.extend(left);
        if self.held.len() > MOST_HELD {
            self.held
                .sort_unstable_by_key(|(_, until)| std::cmp::Reverse(*until));
            self.held.truncate(MOST_HELD);
        }
        self.held.sort_unstable();
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
}
