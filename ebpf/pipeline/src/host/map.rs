//! The kernel's map types as far as the pipeline can tell them apart: hash, longest-prefix trie, flow table.

use super::std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, hash_map::Entry},
    hash::Hash,
    vec::Vec,
};

use bulkhead_abi::{
    Flow, FlowKey6, NatAddressKey4, NatAddressKey6, PrefixKey4, PrefixKey6, Route4Key, Route6Key, ServiceKey,
};

use crate::Insert;

/// A hash map.
#[derive(Debug)]
pub struct HostMap<K, V> {
    entries: RefCell<HashMap<K, V>>,
}

impl<K, V> Default for HostMap<K, V> {
    fn default() -> Self {
        Self {
            entries: RefCell::default(),
        }
    }
}

impl<K: Copy + Eq + Hash, V: Copy> HostMap<K, V> {
    /// Sets the value under `key`.
    pub fn set(&self, key: &K, value: &V) {
        self.entries.borrow_mut().insert(*key, *value);
    }

    /// Sets all these entries.
    pub fn load(&self, entries: impl IntoIterator<Item = (K, V)>) {
        self.entries.borrow_mut().extend(entries);
    }

    /// The value under `key`.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<V> {
        self.entries.borrow().get(key).copied()
    }

    /// Inserts under a key that must be free.
    pub fn insert(&self, key: &K, value: &V) -> Insert {
        match self.entries.borrow_mut().entry(*key) {
            Entry::Occupied(_) => Insert::Exists,
            Entry::Vacant(entry) => {
                entry.insert(*value);
                Insert::Done
            }
        }
    }

    /// Removes everything.
    pub fn clear(&self) {
        self.entries.borrow_mut().clear();
    }

    /// Removes `key`; whether it was there.
    pub fn remove(&self, key: &K) -> bool {
        self.entries.borrow_mut().remove(key).is_some()
    }

    /// Runs `f` on the value under `key`.
    pub fn update<R>(&self, key: &K, f: impl FnOnce(&mut V) -> R) -> Option<R> {
        self.entries.borrow_mut().get_mut(key).map(f)
    }

    /// All entries, in no order.
    #[must_use]
    pub fn entries(&self) -> Vec<(K, V)> {
        self.entries
            .borrow()
            .iter()
            .map(|(key, value)| (*key, *value))
            .collect()
    }
}

/// A key of a longest-prefix trie: how many bits count, and the bytes they count in.
pub trait TrieKey: Copy {
    /// Significant bits.
    fn bits(&self) -> u32;
    /// The bytes behind the length, zeros behind them.
    fn data(&self) -> [u8; 20];
}

fn words<const N: usize>(words: [u32; N]) -> [u8; 20] {
    let mut data = [0; 20];
    for (to, word) in data.chunks_exact_mut(4).zip(words) {
        to.copy_from_slice(&word.to_ne_bytes());
    }
    data
}

macro_rules! trie_keys {
    ($($key:ident => |$k:ident| $words:expr;)*) => {
        $(impl TrieKey for $key {
            fn bits(&self) -> u32 {
                self.bits
            }

            fn data(&self) -> [u8; 20] {
                let $k = self;
                words($words)
            }
        })*
    };
}

trie_keys! {
    PrefixKey4 => |k| [k.address_be];
    PrefixKey6 => |k| k.address_be;
    NatAddressKey4 => |k| [k.generation, k.address_be];
    NatAddressKey6 => |k| [k.generation, k.address_be[0], k.address_be[1], k.address_be[2], k.address_be[3]];
    Route4Key => |k| [k.address_be];
    Route6Key => |k| k.address_be;
    ServiceKey => |k| {
        let [high, low] = k.port_be.to_ne_bytes();
        [k.generation, u32::from_ne_bytes([k.reserved, k.protocol, high, low])]
    };
}

/// `data` with everything behind `bits` bits cleared.
fn masked(mut data: [u8; 20], bits: u32) -> [u8; 20] {
    for (at, byte) in data.iter_mut().enumerate() {
        let kept = bits.saturating_sub(at as u32 * 8).min(8);
        *byte &= !(0xff_u16 >> kept) as u8;
    }
    data
}

/// The prefixes of one length, by their bytes.
type Prefixes<K, V> = HashMap<[u8; 20], (K, V)>;

/// A longest-prefix trie: per prefix length in use, a hash of the prefixes.
#[derive(Debug)]
pub struct HostTrie<K, V> {
    lengths: RefCell<BTreeMap<u32, Prefixes<K, V>>>,
}

impl<K, V> Default for HostTrie<K, V> {
    fn default() -> Self {
        Self {
            lengths: RefCell::default(),
        }
    }
}

impl<K: TrieKey, V: Copy> HostTrie<K, V> {
    /// Sets the value of a prefix.
    pub fn set(&self, key: &K, value: &V) {
        let prefix = masked(key.data(), key.bits());
        self.lengths
            .borrow_mut()
            .entry(key.bits())
            .or_default()
            .insert(prefix, (*key, *value));
    }

    /// Sets all these prefixes.
    pub fn load(&self, entries: impl IntoIterator<Item = (K, V)>) {
        for (key, value) in entries {
            self.set(&key, &value);
        }
    }

    /// The value of the longest prefix of `key`, no longer than its own length.
    #[must_use]
    pub fn longest(&self, key: &K) -> Option<V> {
        let data = key.data();
        let lengths = self.lengths.borrow();
        let mut found = lengths
            .range(..=key.bits())
            .rev()
            .filter_map(|(bits, prefixes)| prefixes.get(&masked(data, *bits)));
        found.next().map(|(_, value)| *value)
    }

    /// Removes everything.
    pub fn clear(&self) {
        self.lengths.borrow_mut().clear();
    }

    /// Removes a prefix; whether it was there.
    pub fn remove(&self, key: &K) -> bool {
        let prefix = masked(key.data(), key.bits());
        self.lengths
            .borrow_mut()
            .get_mut(&key.bits())
            .is_some_and(|prefixes| prefixes.remove(&prefix).is_some())
    }

    /// All prefixes, shortest first.
    #[must_use]
    pub fn entries(&self) -> Vec<(K, V)> {
        self.lengths
            .borrow()
            .values()
            .flat_map(HashMap::values)
            .copied()
            .collect()
    }
}

/// A table of flows, of either family.
#[derive(Debug, Default)]
pub struct FlowTable {
    flows: RefCell<HashMap<FlowKey6, Kept>>,
    capacity: usize,
    evicts: bool,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    flow: Flow,
    /// When it was last looked up or inserted, as a number that only grows.
    used: u64,
}

impl FlowTable {
    /// A table that refuses the flow after the `capacity`th.
    #[must_use]
    pub fn refusing(capacity: usize) -> Self {
        Self {
            capacity,
            ..Self::default()
        }
    }

    /// A table that evicts the least recently used flow for a new one.
    #[must_use]
    pub fn evicting(capacity: usize) -> Self {
        Self {
            capacity,
            evicts: true,
            ..Self::default()
        }
    }

    fn next_use(flows: &HashMap<FlowKey6, Kept>) -> u64 {
        flows.values().map(|entry| entry.used).max().unwrap_or(0) + 1
    }

    /// Runs `f` on a flow.
    pub fn with<R>(&self, key: &FlowKey6, f: impl FnOnce(&mut Flow) -> R) -> Option<R> {
        let mut flows = self.flows.borrow_mut();
        let used = if self.evicts { Self::next_use(&flows) } else { 0 };
        flows.get_mut(key).map(|entry| {
            entry.used = used;
            f(&mut entry.flow)
        })
    }

    /// Inserts a flow under a key that must be free.
    pub fn insert(&self, key: &FlowKey6, flow: &Flow) -> Insert {
        let mut flows = self.flows.borrow_mut();
        if flows.contains_key(key) {
            return Insert::Exists;
        }
        if flows.len() >= self.capacity {
            let oldest = flows
                .iter()
                .min_by_key(|(_, entry)| entry.used)
                .map(|(key, _)| *key);
            match oldest {
                Some(oldest) if self.evicts => flows.remove(&oldest),
                _ => return Insert::Full,
            };
        }
        let used = if self.evicts { Self::next_use(&flows) } else { 0 };
        flows.insert(*key, Kept { flow: *flow, used });
        Insert::Done
    }

    /// Removes a flow; whether it was there.
    pub fn remove(&self, key: &FlowKey6) -> bool {
        self.flows.borrow_mut().remove(key).is_some()
    }

    /// A copy of the flow under `key`. Looking does not count as use.
    #[must_use]
    pub fn get(&self, key: &FlowKey6) -> Option<Flow> {
        self.flows.borrow().get(key).map(|entry| entry.flow)
    }

    /// All flows, in no order.
    #[must_use]
    pub fn entries(&self) -> Vec<(FlowKey6, Flow)> {
        self.flows
            .borrow()
            .iter()
            .map(|(key, entry)| (*key, entry.flow))
            .collect()
    }

    /// Number of flows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flows.borrow().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins_and_bits_beyond_the_length_do_not_count() {
        let trie = HostTrie::default();
        let key = |bits, a: [u8; 4]| Route4Key {
            bits,
            address_be: u32::from_ne_bytes(a),
        };
        trie.load([
            (key(0, [1, 1, 1, 1]), 0),
            (key(8, [10, 9, 9, 9]), 8),
            (key(31, [10, 0, 0, 3]), 31),
        ]);
        assert_eq!(trie.longest(&key(32, [10, 0, 0, 2])), Some(31));
        assert_eq!(trie.longest(&key(32, [10, 0, 0, 4])), Some(8));
        assert_eq!(trie.longest(&key(32, [11, 0, 0, 4])), Some(0));
        assert!(trie.remove(&key(0, [0; 4])));
        assert_eq!(trie.longest(&key(32, [11, 0, 0, 4])), None);
    }

    #[test]
    fn the_least_recently_used_flow_is_evicted() {
        let table = FlowTable::evicting(2);
        let key = |n| FlowKey6 {
            protocol: n,
            ..FlowKey6::default()
        };
        assert_eq!(table.insert(&key(1), &Flow::default()), Insert::Done);
        assert_eq!(table.insert(&key(2), &Flow::default()), Insert::Done);
        assert!(table.with(&key(1), |_| ()).is_some());
        assert_eq!(table.insert(&key(3), &Flow::default()), Insert::Done);
        assert!(table.get(&key(2)).is_none() && table.get(&key(1)).is_some());
    }
}
