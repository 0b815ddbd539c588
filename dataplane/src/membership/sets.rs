//! Sets of base lists, each under a number that is never given to another: the classes of addresses.
//!
//! A set is forgotten when no prefix has it any more and a commit asks for it; if it comes back it is under a new number, so
//! that whatever still speaks of the old one in the kernel speaks of the same set. Unions and members that come and go are
//! remembered, since a list of a million addresses asks the same question a million times.

use std::{collections::HashMap, sync::Arc};

/// The set without members, and the class of addresses on no list.
pub const EMPTY: u32 = 0;

#[derive(Clone, Debug)]
struct Known {
    lists: Arc<[u32]>,
    /// Prefixes whose own lists these are, and prefixes whose class this is.
    uses: u32,
}

/// Sets by number and numbers by set.
#[derive(Clone, Debug, Default)]
pub struct Sets {
    numbers: HashMap<Arc<[u32]>, u32>,
    known: HashMap<u32, Known>,
    last: u32,
    with: HashMap<(u32, u32), u32>,
    without: HashMap<(u32, u32), u32>,
    unions: HashMap<(u32, u32), u32>,
}

impl Sets {
    fn number(&mut self, lists: Vec<u32>) -> u32 {
        if lists.is_empty() {
            return EMPTY;
        }
        if let Some(number) = self.numbers.get(lists.as_slice()) {
            return *number;
        }
        self.last += 1;
        let lists: Arc<[u32]> = lists.into();
        self.numbers.insert(lists.clone(), self.last);
        self.known.insert(self.last, Known { lists, uses: 0 });
        self.last
    }

    /// The lists of a set, sorted.
    #[must_use]
    pub fn lists(&self, set: u32) -> &[u32] {
        self.known.get(&set).map_or(&[], |known| &known.lists)
    }

    /// The set with another list.
    pub fn with(&mut self, set: u32, list: u32) -> u32 {
        if let Some(number) = self.with.get(&(set, list)) {
            return *number;
        }
        let mut lists = self.lists(set).to_vec();
        if let Err(place) = lists.binary_search(&list) {
            lists.insert(place, list);
        }
        let number = self.number(lists);
        self.with.insert((set, list), number);
        number
    }

    /// The set without a list.
    pub fn without(&mut self, set: u32, list: u32) -> u32 {
        if let Some(number) = self.without.get(&(set, list)) {
            return *number;
        }
        let mut lists = self.lists(set).to_vec();
        lists.retain(|other| *other != list);
        let number = self.number(lists);
        self.without.insert((set, list), number);
        number
    }

    /// The set of what is in either.
    pub fn union(&mut self, a: u32, b: u32) -> u32 {
        match (a, b) {
            (EMPTY, other) | (other, EMPTY) => return other,
            (a, b) if a == b => return a,
            _ => {}
        }
        if let Some(number) = self.unions.get(&(a, b)) {
            return *number;
        }
        let mut lists = [self.lists(a), self.lists(b)].concat();
        lists.sort_unstable();
        lists.dedup();
        let number = self.number(lists);
        self.unions.insert((a, b), number);
        number
    }

    /// A prefix has the set from now on.
    pub(super) fn hold(&mut self, set: u32) {
        if let Some(known) = self.known.get_mut(&set) {
            known.uses += 1;
        }
    }

    /// A prefix has the set no longer.
    pub(super) fn release(&mut self, set: u32) {
        if let Some(known) = self.known.get_mut(&set) {
            known.uses -= 1;
        }
    }

    /// The sets that some prefix has, in the order of their numbers.
    #[must_use]
    pub fn used(&self) -> Vec<u32> {
        let used = self.known.iter().filter(|(_, known)| known.uses != 0);
        let mut numbers: Vec<u32> = used.map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// The sets with this list.
    pub(super) fn having(&self, list: u32) -> std::collections::HashSet<u32> {
        let having = self.known.iter();
        having
            .filter(|(_, known)| known.lists.binary_search(&list).is_ok())
            .map(|(number, _)| *number)
            .collect()
    }

    /// Forgets the sets that no prefix has.
    pub(super) fn forget_unused(&mut self) {
        self.known.retain(|_, known| known.uses != 0);
        let known = &self.known;
        self.numbers.retain(|_, number| known.contains_key(number));
        self.with.clear();
        self.without.clear();
        self.unions.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_one_number_however_it_came_about() {
        let mut sets = Sets::default();
        let a = sets.with(EMPTY, 7);
        let b = sets.with(EMPTY, 3);
        let both = sets.union(a, b);
        assert_eq!(sets.lists(both), [3, 7]);
        assert_eq!((sets.with(a, 3), sets.with(b, 7)), (both, both));
        assert_eq!((sets.without(both, 3), sets.without(a, 7)), (a, EMPTY));
        assert_eq!(sets.with(both, 7), both);
    }

    #[test]
    fn a_number_is_never_given_twice() {
        let mut sets = Sets::default();
        let kept = sets.with(EMPTY, 1);
        let lost = sets.with(kept, 2);
        sets.hold(kept);
        sets.forget_unused();
        assert_eq!(sets.lists(lost), [0_u32; 0]);
        assert_eq!(sets.with(EMPTY, 1), kept);
        assert!(sets.with(kept, 2) > lost);
        assert_eq!(sets.used(), [kept]);
        sets.release(kept);
        assert_eq!(sets.used(), [0_u32; 0]);
    }
}
