//! The book: every base list of the configuration in force, and the class of every prefix on any of them.
//!
//! Pure: it says what the tables must come to hold, and never touches them. A change that could not be carried out is
//! taken back with [`Book::undo`]. Lists are known by what they are (a group's members by the group's name), so that a
//! commit which changes none of them moves no address.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use super::{
    meaning::{Meaning, Role},
    nesting::Cycle,
    sets::Sets,
    side::{Bits, Edit, Key, Moved, Side},
};
use crate::ruleset::{Group, Prefix, Ruleset};

/// What a base list is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum ListKey {
    /// The members of a group; of several groups of one name the how-manieth.
    Members(String, u32),
    /// What a group excepts.
    Except(String, u32),
    /// What a static translation matches.
    Fixed(Prefix),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct List {
    number: u32,
    /// Changes without a commit.
    dynamic: bool,
    /// Prefixes on it.
    count: usize,
}

/// What changed in both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// IPv4 prefixes.
    pub v4: Vec<Moved<u32>>,
    /// IPv6 prefixes.
    pub v6: Vec<Moved<u128>>,
}

impl Moves {
    /// Whether nothing moved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }

    /// Whether entries of hosts are among them.
    #[must_use]
    pub fn has_hosts(&self) -> bool {
        self.v4.iter().any(|moved| moved.key.1 == u32::WIDTH)
            || self.v6.iter().any(|moved| moved.key.1 == u128::WIDTH)
    }

    /// The way back.
    #[must_use]
    pub fn turned(&self) -> Self {
        Self {
            v4: self.v4.iter().map(|moved| moved.turned()).collect(),
            v6: self.v6.iter().map(|moved| moved.turned()).collect(),
        }
    }
}

/// A change as it was made, to be carried out or taken back.
#[derive(Clone, Debug, Default)]
pub struct Done {
    /// What the tables must follow.
    pub moves: Moves,
    /// Prefixes that came onto a list.
    pub added: usize,
    /// Prefixes that left one.
    pub removed: usize,
    v4: Vec<Edit<u32>>,
    v6: Vec<Edit<u128>>,
    /// The lists as they were, if their number changed.
    lists: Option<HashMap<ListKey, List>>,
}

/// Edits under construction.
#[derive(Default)]
struct Edits {
    v4: Vec<Edit<u32>>,
    v6: Vec<Edit<u128>>,
}

impl Edits {
    fn push(&mut self, prefix: &Prefix, list: u32, add: bool) {
        let length = prefix.length;
        match prefix.address {
            IpAddr::V4(address) => self.v4.push(Edit {
                key: (u32::from(address), length),
                list,
                add,
            }),
            IpAddr::V6(address) => self.v6.push(Edit {
                key: (u128::from(address), length),
                list,
                add,
            }),
        }
    }

    /// What makes sorted `old` into sorted `new`.
    fn difference(&mut self, list: u32, old: &[Prefix], new: &[Prefix]) {
        let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
        loop {
            match (old.peek(), new.peek()) {
                (Some(a), Some(b)) if a == b => {
                    old.next();
                    new.next();
                }
                (Some(a), Some(b)) if a < b => {
                    self.push(a, list, false);
                    old.next();
                }
                (Some(a), None) => {
                    self.push(a, list, false);
                    old.next();
                }
                (_, Some(b)) => {
                    self.push(b, list, true);
                    new.next();
                }
                (None, None) => return,
            }
        }
    }
}

/// A prefix of the tables as a plain one.
fn plain4((bits, length): Key<u32>) -> Prefix {
    Prefix {
        address: IpAddr::V4(bits.into()),
        length,
    }
}

fn plain6((bits, length): Key<u128>) -> Prefix {
    Prefix {
        address: IpAddr::V6(bits.into()),
        length,
    }
}

/// The prefixes without bits beyond their lengths, each once, sorted.
#[must_use]
pub fn distinct(prefixes: &[Prefix]) -> Vec<Prefix> {
    let mut distinct: Vec<Prefix> = prefixes.iter().map(Prefix::canonical).collect();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

/// All lists of one ruleset, with what is on those that are not dynamic.
fn lists(ruleset: &Ruleset) -> Vec<(ListKey, Option<&[Prefix]>, Role)> {
    let mut seen: HashMap<&str, u32> = HashMap::new();
    let mut lists = Vec::with_capacity(2 * (ruleset.groups.len() + ruleset.static_nat.len()));
    for (index, group) in (0..).zip(&ruleset.groups) {
        let nth = seen.entry(&group.name).or_default();
        let key = ListKey::Members(group.name.clone(), *nth);
        let members = (!group.dynamic).then_some(group.members.as_slice());
        lists.push((key, members, Role::Members(index)));
        if !group.except.is_empty() {
            let key = ListKey::Except(group.name.clone(), *nth);
            lists.push((key, Some(&group.except), Role::Except(index)));
        }
        *nth += 1;
    }
    let groups = ruleset.groups.len() as u32;
    for (index, rule) in (0..).zip(&ruleset.static_nat) {
        for (side, prefix) in [(0, &rule.outside), (1, &rule.inside)] {
            let role = Role::Fixed(groups + 2 * index + side);
            lists.push((
                ListKey::Fixed(prefix.canonical()),
                Some(std::slice::from_ref(prefix)),
                role,
            ));
        }
    }
    lists
}

/// The book. Begins empty, as that of a ruleset without groups.
#[derive(Clone, Debug, Default)]
pub struct Book {
    sets: Sets,
    v4: Side<u32>,
    v6: Side<u128>,
    lists: HashMap<ListKey, List>,
    last_list: u32,
}

impl Book {
    /// Turns the lists of `before`, the ruleset of the last commit, into those of `after`; returns what that moves and what
    /// the lists mean from now on.
    ///
    /// # Errors
    /// If a group is part of itself; then nothing has changed.
    pub fn commit(&mut self, before: &Ruleset, after: &Ruleset) -> Result<(Done, Meaning), Cycle> {
        let mut meaning = Meaning::of(&after.groups)?;
        self.sets.forget_unused();
        let earlier = self.lists.clone();
        let mut old: HashMap<ListKey, Option<&[Prefix]>> = lists(before)
            .into_iter()
            .map(|(key, members, _)| (key, members))
            .collect();
        let mut edits = Edits::default();
        let mut kept: HashMap<ListKey, List> = HashMap::with_capacity(earlier.len());
        for (key, members, role) in lists(after) {
            if let Some(list) = kept.get(&key) {
                // Another static translation of the same prefix.
                meaning.name(list.number, role);
                continue;
            }
            let known = earlier.get(&key).copied();
            let list = known.unwrap_or_else(|| {
                self.last_list += 1;
                List {
                    number: self.last_list,
                    dynamic: false,
                    count: 0,
                }
            });
            meaning.name(list.number, role);
            let was = old.remove(&key).flatten();
            let (dynamic, wanted) = match members {
                Some(members) => (false, members),
                None => (true, starting(&after.groups, role)),
            };
            let unchanged = if dynamic {
                list.dynamic
            } else {
                !list.dynamic && known.is_some() && was == Some(wanted)
            };
            let count = if unchanged {
                list.count
            } else {
                let wanted = distinct(wanted);
                let had = match was {
                    Some(was) if !list.dynamic && known.is_some() => distinct(was),
                    _ if known.is_some() => self.members_of(list.number, usize::MAX),
                    _ => Vec::new(),
                };
                edits.difference(list.number, &had, &wanted);
                wanted.len()
            };
            kept.insert(
                key,
                List {
                    dynamic,
                    count,
                    ..list
                },
            );
        }
        for (key, list) in &earlier {
            if !kept.contains_key(key) {
                let had = match old.get(key) {
                    Some(Some(was)) if !list.dynamic => distinct(was),
                    _ => self.members_of(list.number, usize::MAX),
                };
                edits.difference(list.number, &had, &[]);
            }
        }
        self.lists = kept;
        let mut done = self.apply(edits);
        done.lists = Some(earlier);
        Ok((done, meaning))
    }

    /// Changes the members of a dynamic group; `None`: there is none of that name.
    pub fn update(&mut self, group: &str, add: &[Prefix], remove: &[Prefix]) -> Option<Done> {
        let number = self.dynamic(group)?.number;
        let (add, remove) = (distinct(add), distinct(remove));
        let is_on = |book: &Self, prefix: &Prefix| {
            let lists = book.sets.lists(book.own(prefix));
            lists.binary_search(&number).is_ok()
        };
        let mut edits = Edits::default();
        for prefix in &add {
            if !is_on(self, prefix) {
                edits.push(prefix, number, true);
            }
        }
        for prefix in &remove {
            // What is both taken out and put in stays.
            if is_on(self, prefix) && add.binary_search(prefix).is_err() {
                edits.push(prefix, number, false);
            }
        }
        Some(self.change(group, edits))
    }

    /// Replaces the members of a dynamic group; `None`: there is none of that name.
    pub fn replace(&mut self, group: &str, members: &[Prefix]) -> Option<Done> {
        let number = self.dynamic(group)?.number;
        let had = self.members_of(number, usize::MAX);
        let mut edits = Edits::default();
        edits.difference(number, &had, &distinct(members));
        Some(self.change(group, edits))
    }

    fn change(&mut self, group: &str, edits: Edits) -> Done {
        let done = self.apply(edits);
        if let Some(list) = self.lists.get_mut(&ListKey::Members(group.to_owned(), 0)) {
            list.count = list.count + done.added - done.removed;
        }
        done
    }

    fn apply(&mut self, mut edits: Edits) -> Done {
        edits.v4.sort_unstable();
        edits.v6.sort_unstable();
        let moves = Moves {
            v4: self.v4.apply(&mut self.sets, &edits.v4),
            v6: self.v6.apply(&mut self.sets, &edits.v6),
        };
        let added =
            edits.v4.iter().filter(|edit| edit.add).count() + edits.v6.iter().filter(|edit| edit.add).count();
        Done {
            moves,
            added,
            removed: edits.v4.len() + edits.v6.len() - added,
            v4: edits.v4,
            v6: edits.v6,
            lists: None,
        }
    }

    /// Takes back the last change, which was not carried out. A change of members is taken back with the group's name.
    pub fn undo(&mut self, done: Done, group: Option<&str>) {
        let mut edits = Edits {
            v4: done.v4,
            v6: done.v6,
        };
        edits.v4.iter_mut().for_each(|edit| edit.add = !edit.add);
        edits.v6.iter_mut().for_each(|edit| edit.add = !edit.add);
        match group {
            Some(group) => drop(self.change(group, edits)),
            None => drop(self.apply(edits)),
        }
        if let Some(lists) = done.lists {
            self.lists = lists;
        }
    }

    fn dynamic(&self, group: &str) -> Option<&List> {
        let list = self.lists.get(&ListKey::Members(group.to_owned(), 0));
        list.filter(|list| list.dynamic)
    }

    fn own(&self, prefix: &Prefix) -> u32 {
        match prefix.address {
            IpAddr::V4(address) => self.v4.own((u32::from(address), prefix.length)),
            IpAddr::V6(address) => self.v6.own((u128::from(address), prefix.length)),
        }
    }

    fn members_of(&self, list: u32, limit: usize) -> Vec<Prefix> {
        let v4 = self.v4.on_list(&self.sets, list).map(plain4);
        let v6 = self.v6.on_list(&self.sets, list).map(plain6);
        v4.chain(v6).take(limit).collect()
    }

    /// How many members a dynamic group has; `None`: there is none of that name.
    #[must_use]
    pub fn count(&self, group: &str) -> Option<usize> {
        Some(self.dynamic(group)?.count)
    }

    /// The first members of a dynamic group, in order; `None`: there is none of that name.
    #[must_use]
    pub fn members(&self, group: &str, limit: usize) -> Option<Vec<Prefix>> {
        Some(self.members_of(self.dynamic(group)?.number, limit))
    }

    /// A member of a dynamic group in a family, if there is one among the first `visits` entries of each kind; `None`: there is no
    /// group of that name.
    #[must_use]
    pub fn sample(&self, group: &str, v4: bool, visits: usize) -> Option<Option<Prefix>> {
        let list = self.dynamic(group)?.number;
        Some(if v4 {
            self.v4.sample(&self.sets, list, visits).map(plain4)
        } else {
            self.v6.sample(&self.sets, list, visits).map(plain6)
        })
    }

    /// The class of an address.
    #[must_use]
    pub fn class(&self, address: &IpAddr) -> u32 {
        match address {
            IpAddr::V4(address) => self.v4.class(u32::from(*address)),
            IpAddr::V6(address) => self.v6.class(u128::from(*address)),
        }
    }

    /// The base lists of a class.
    #[must_use]
    pub fn lists_of(&self, class: u32) -> &[u32] {
        self.sets.lists(class)
    }

    /// The classes that prefixes have, each with the groups it is of.
    #[must_use]
    pub fn classes(&self, meaning: &Meaning) -> Vec<(u32, Vec<u32>)> {
        let mut walk = super::nesting::Walk::default();
        let of = |class| (class, meaning.groups_of(self.sets.lists(class), &mut walk));
        self.sets.used().into_iter().map(of).collect()
    }

    /// The classes that `moves` lead to and that `known` does not have.
    #[must_use]
    pub fn new_classes(moves: &Moves, known: &HashSet<u32>) -> Vec<u32> {
        let after = moves.v4.iter().map(|moved| moved.after);
        let mut new: Vec<u32> = after
            .chain(moves.v6.iter().map(|moved| moved.after))
            .filter(|class| !known.contains(class))
            .collect();
        new.sort_unstable();
        new.dedup();
        new
    }

    /// IPv4 and IPv6.
    #[must_use]
    pub fn sides(&self) -> (&Side<u32>, &Side<u128>) {
        (&self.v4, &self.v6)
    }
}

/// What a dynamic group begins with.
fn starting(groups: &[Group], role: Role) -> &[Prefix] {
    match role {
        Role::Members(index) => groups.get(index as usize).map_or(&[], |group| &group.members),
        Role::Except(_) | Role::Fixed(_) => &[],
    }
}
