//! The addresses of one family: which prefixes are on which lists, and what class that makes them.
//!
//! Hosts (prefixes of full length) stand apart from real prefixes, as they do in the kernel, in ordered maps: some twenty
//! bytes per IPv4 host, and what a prefix covers stands together. A prefix's class is the set of its own lists and of those
//! of every prefix around it. Changes are told as [`Moved`], of which the caller makes table writes.

use std::{collections::BTreeMap, fmt::Debug};

use super::sets::{EMPTY, Sets};

/// An address as a number.
pub trait Bits: Copy + Ord + Debug {
    /// Its length.
    const WIDTH: u8;
    /// Its first `length` bits, zeros behind them.
    fn masked(self, length: u8) -> Self;
    /// The last address with these first `length` bits.
    fn last(self, length: u8) -> Self;
    /// How many first bits it has in common with another.
    fn common(self, other: Self) -> u8;
}

macro_rules! bits {
    ($($number:ty),*) => {
        $(impl Bits for $number {
            const WIDTH: u8 = <$number>::BITS as u8;
            fn masked(self, length: u8) -> Self {
                self & Self::MAX.checked_shl(Self::BITS - u32::from(length)).unwrap_or(0)
            }
            fn last(self, length: u8) -> Self {
                self | Self::MAX.checked_shr(u32::from(length)).unwrap_or(0)
            }
            fn common(self, other: Self) -> u8 {
                (self ^ other).leading_zeros() as u8
            }
        })*
    };
}

bits!(u32, u128);

/// A prefix as its bits and length.
pub type Key<A> = (A, u8);

/// A prefix comes onto a list or leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edit<A> {
    /// The prefix.
    pub key: Key<A>,
    /// The list.
    pub list: u32,
    /// Comes rather than leaves.
    pub add: bool,
}

/// A prefix whose entry changes. What it has no entry for has the class of what is around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved<A> {
    /// The prefix.
    pub key: Key<A>,
    /// The class of its addresses before, but for those of longer prefixes.
    pub before: u32,
    /// The class afterwards.
    pub after: u32,
    /// Whether it had an entry before.
    pub was: bool,
    /// Whether it has one afterwards.
    pub is: bool,
}

impl<A> Moved<A> {
    /// The way back.
    #[must_use]
    pub fn turned(self) -> Self {
        Self {
            key: self.key,
            before: self.after,
            after: self.before,
            was: self.is,
            is: self.was,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Node {
    /// The lists it is on.
    own: u32,
    /// Those and the lists of every prefix around it.
    class: u32,
}

/// One family.
#[derive(Clone, Debug)]
pub struct Side<A> {
    hosts: BTreeMap<A, Node>,
    prefixes: BTreeMap<Key<A>, Node>,
}

impl<A> Default for Side<A> {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            prefixes: BTreeMap::new(),
        }
    }
}

/// A prefix with other lists than before.
struct Touched<A> {
    key: Key<A>,
    before: u32,
    was: bool,
    is: bool,
}

impl<A: Bits> Side<A> {
    /// Hosts.
    #[must_use]
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// Real prefixes.
    #[must_use]
    pub fn prefixes(&self) -> usize {
        self.prefixes.len()
    }

    fn node(&self, (bits, length): Key<A>) -> Option<&Node> {
        if length == A::WIDTH {
            self.hosts.get(&bits)
        } else {
            self.prefixes.get(&(bits, length))
        }
    }

    /// The set of lists that a prefix itself is on.
    #[must_use]
    pub fn own(&self, key: Key<A>) -> u32 {
        self.node(key).map_or(EMPTY, |node| node.own)
    }

    /// The class of an address.
    #[must_use]
    pub fn class(&self, address: A) -> u32 {
        let host = self.hosts.get(&address).map(|node| node.class);
        host.unwrap_or_else(|| self.around((address, A::WIDTH)))
    }

    /// The class of the longest prefix around a prefix, itself not included.
    fn around(&self, (bits, length): Key<A>) -> u32 {
        // Prefixes stand in the order of a walk through a trie. The last one before the place of a prefix either covers it,
        // or shares so many bits with it that none longer than that covers it; of the same or fewer bits there is another
        // place to look before.
        let Some(mut longest) = length.checked_sub(1) else {
            return EMPTY;
        };
        if self.prefixes.is_empty() {
            return EMPTY;
        }
        loop {
            let place = (bits.masked(longest), longest);
            let Some(((found, length), node)) = self.prefixes.range(..=place).next_back() else {
                return EMPTY;
            };
            let common = found.common(bits);
            if common >= *length {
                return node.class;
            }
            longest = common;
        }
    }

    /// Changes who is on which list; returns what that moves. `edits` are sorted, and each changes something.
    pub fn apply(&mut self, sets: &mut Sets, edits: &[Edit<A>]) -> Vec<Moved<A>> {
        let mut touched = Vec::new();
        let mut changed = Vec::new();
        for edits in edits.chunk_by(|a, b| a.key == b.key) {
            let Some(key) = edits.first().map(|edit| edit.key) else {
                continue;
            };
            let found = self.node(key).copied();
            let before = found.map_or(EMPTY, |node| node.own);
            let own = edits.iter().fold(before, |own, edit| {
                if edit.add {
                    sets.with(own, edit.list)
                } else {
                    sets.without(own, edit.list)
                }
            });
            if own == before {
                continue;
            }
            touched.push(Touched {
                key,
                before: found.map_or_else(|| self.around(key), |node| node.class),
                was: found.is_some(),
                is: own != EMPTY,
            });
            changed.push(own);
        }
        for (touched, own) in touched.iter().zip(changed) {
            self.enter(sets, touched.key, own);
        }
        let mut moved = Vec::with_capacity(touched.len());
        let mut done: Option<A> = None;
        for Touched { key, .. } in &touched {
            let (bits, length) = *key;
            if done.is_some_and(|done| bits <= done) {
                // Part of a prefix that was looked through.
                continue;
            }
            if length == A::WIDTH {
                let around = self.around(*key);
                if let Some(node) = self.hosts.get_mut(&bits) {
                    reclass(sets, node, around);
                }
            } else {
                done = Some(bits.last(length));
                self.look_through(sets, *key, &touched, &mut moved);
            }
        }
        moved.extend(touched.into_iter().filter_map(|touched| {
            let after = match self.node(touched.key) {
                Some(node) => node.class,
                None => self.around(touched.key),
            };
            let moved = Moved {
                key: touched.key,
                before: touched.before,
                after,
                was: touched.was,
                is: touched.is,
            };
            (moved.before != moved.after || moved.was != moved.is).then_some(moved)
        }));
        moved
    }

    /// Gives a prefix its own lists; its class is for later.
    fn enter(&mut self, sets: &mut Sets, (bits, length): Key<A>, own: u32) {
        let node = |found: Option<Node>| Node {
            own,
            class: found.map_or(EMPTY, |node| node.class),
        };
        let found = self.node((bits, length)).copied();
        if let Some(found) = found {
            sets.release(found.own);
        }
        sets.hold(own);
        match (own == EMPTY, length == A::WIDTH) {
            (false, true) => drop(self.hosts.insert(bits, node(found))),
            (false, false) => drop(self.prefixes.insert((bits, length), node(found))),
            (true, host) => {
                if let Some(found) = found {
                    sets.release(found.class);
                }
                if host {
                    self.hosts.remove(&bits);
                } else {
                    self.prefixes.remove(&(bits, length));
                }
            }
        }
    }

    /// Finds the classes of everything within a prefix anew. What is in `touched` is told of elsewhere.
    fn look_through(
        &mut self,
        sets: &mut Sets,
        key: Key<A>,
        touched: &[Touched<A>],
        moved: &mut Vec<Moved<A>>,
    ) {
        let outer = self.around(key);
        let last = key.0.last(key.1);
        // The prefixes around the current place, each with its class.
        let mut around: Vec<(Key<A>, u32)> = Vec::new();
        let enclosing = |around: &mut Vec<(Key<A>, u32)>, bits: A| {
            while let Some(((outer, length), class)) = around.last() {
                if bits.common(*outer) >= *length {
                    return *class;
                }
                around.pop();
            }
            outer
        };
        let mut tell = |key: Key<A>, before: u32, after: u32| {
            if before != after && touched.binary_search_by_key(&key, |touched| touched.key).is_err() {
                moved.push(Moved {
                    key,
                    before,
                    after,
                    was: true,
                    is: true,
                });
            }
        };
        let mut hosts = self.hosts.range_mut(key.0..=last).peekable();
        let mut prefixes = self.prefixes.range_mut(key..=(last, A::WIDTH)).peekable();
        loop {
            // A prefix stands before the hosts in it.
            let host_first = match (hosts.peek(), prefixes.peek()) {
                (Some((host, _)), Some(((prefix, _), _))) => *host < prefix,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => break,
            };
            if host_first {
                if let Some((bits, node)) = hosts.next() {
                    let before = node.class;
                    reclass(sets, node, enclosing(&mut around, *bits));
                    tell((*bits, A::WIDTH), before, node.class);
                }
            } else if let Some((key, node)) = prefixes.next() {
                let before = node.class;
                reclass(sets, node, enclosing(&mut around, key.0));
                tell(*key, before, node.class);
                around.push((*key, node.class));
            }
        }
    }

    /// Every prefix with its class: hosts, then real prefixes.
    pub fn classes(&self) -> impl Iterator<Item = (Key<A>, u32)> {
        let hosts = self
            .hosts
            .iter()
            .map(|(bits, node)| ((*bits, A::WIDTH), node.class));
        hosts.chain(self.prefixes.iter().map(|(key, node)| (*key, node.class)))
    }

    /// A prefix on a list, among the first `visits` hosts and the first `visits` real prefixes.
    pub fn sample(&self, sets: &Sets, list: u32, visits: usize) -> Option<Key<A>> {
        let hosts = self
            .hosts
            .iter()
            .map(|(bits, node)| ((*bits, A::WIDTH), node.own));
        let prefixes = self.prefixes.iter().map(|(key, node)| (*key, node.own));
        let looked_at = hosts.take(visits).chain(prefixes.take(visits));
        let mut on_list = looked_at.filter(|(_, own)| sets.lists(*own).binary_search(&list).is_ok());
        on_list.next().map(|(key, _)| key)
    }

    /// The prefixes on a list, in order.
    pub fn on_list(&self, sets: &Sets, list: u32) -> impl Iterator<Item = Key<A>> {
        let having = sets.having(list);
        let mut hosts = self.hosts.iter().peekable();
        let mut prefixes = self.prefixes.iter().peekable();
        std::iter::from_fn(move || {
            loop {
                let host_first = match (hosts.peek(), prefixes.peek()) {
                    (Some((host, _)), Some(((prefix, _), _))) => *host < prefix,
                    (host, _) => host.is_some(),
                };
                let (key, own) = if host_first {
                    hosts.next().map(|(bits, node)| ((*bits, A::WIDTH), node.own))?
                } else {
                    prefixes.next().map(|(key, node)| (*key, node.own))?
                };
                if having.contains(&own) {
                    return Some(key);
                }
            }
        })
    }
}

/// Gives a node the class that its own lists and those around it make.
fn reclass(sets: &mut Sets, node: &mut Node, around: u32) {
    let class = sets.union(node.own, around);
    if class != node.class {
        sets.release(node.class);
        sets.hold(class);
        node.class = class;
    }
}
