//! Later fragments that came before the first of their datagram.
//!
//! Owns what waits and its bounds: so many fragments, so many bytes, so many of one source (IPv6: of one /64), for so
//! long. Assumes that the caller looks into the kernel's table of datagrams when told to, and lets go what is found there.
//! Refuses nothing: what there is no room for takes the place of what has waited longest, so that under a flood of
//! fragments that wait in vain the others still get the time that reordering takes.

use std::collections::{BTreeMap, VecDeque};

use bulkhead_abi::FragmentKey;

/// Fragments at a time.
pub const MOST_FRAGMENTS: usize = 256;
/// Their bytes at a time.
pub const MOST_BYTES: usize = 1 << 20;
/// Fragments of one source at a time: more than the longest datagram has at the smallest MTU of IPv6.
pub const MOST_OF_A_SOURCE: usize = 64;
/// How long a fragment waits, ns.
pub const PATIENCE_NS: u64 = 2_000_000_000;

/// The first look for a datagram comes this long after its fragment, ns; the next ones at twice the distance each.
const FIRST_LOOK_NS: u64 = 1_000_000;
/// The longest distance between two looks, ns.
const LONGEST_LOOK_NS: u64 = 32_000_000;

/// A fragment that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The interface it came in on.
    pub ifindex: u32,
    /// The VLAN tag that was taken off it; 0: none.
    pub vlan: u32,
    /// The frame.
    pub frame: Vec<u8>,
}

/// What waits for one first fragment.
#[derive(Debug, Default)]
struct Waiting {
    /// In the order in which they came, with their numbers.
    fragments: Vec<(u64, Fragment)>,
    look_at_ns: u64,
    distance_ns: u64,
}

/// Who sent it, as far as bounds are concerned.
type Source = (u16, [u32; 4]);

fn source(key: &FragmentKey) -> Source {
    let [a, b, c, d] = key.source_be;
    if key.family == 4 {
        (4, [a, b, c, d])
    } else {
        (key.family, [a, b, 0, 0])
    }
}

/// All that waits.
#[derive(Debug, Default)]
pub struct Hold {
    datagrams: BTreeMap<FragmentKey, Waiting>,
    /// Number, key and time of arrival of each fragment, oldest first; those let go meanwhile too, for a while.
    arrivals: VecDeque<(u64, FragmentKey, u64)>,
    sources: BTreeMap<Source, usize>,
    fragments: usize,
    bytes: usize,
    next: u64,
}

impl Hold {
    /// Takes a fragment in. Returns how many fragments had to go for it; with too many of its source here, itself.
    pub fn add(&mut self, key: FragmentKey, fragment: Fragment, now_ns: u64) -> usize {
        let of_source = self.sources.get(&source(&key)).copied().unwrap_or(0);
        if of_source >= MOST_OF_A_SOURCE || fragment.frame.len() > MOST_BYTES {
            return 1;
        }
        let mut dropped = 0;
        while self.fragments >= MOST_FRAGMENTS || self.bytes + fragment.frame.len() > MOST_BYTES {
            dropped += usize::from(self.drop_oldest());
        }
        self.fragments += 1;
        self.bytes += fragment.frame.len();
        *self.sources.entry(source(&key)).or_insert(0) += 1;
        self.arrivals.push_back((self.next, key, now_ns));
        let waiting = self.datagrams.entry(key).or_insert_with(|| Waiting {
            fragments: Vec::new(),
            look_at_ns: now_ns + FIRST_LOOK_NS,
            distance_ns: FIRST_LOOK_NS,
        });
        waiting.fragments.push((self.next, fragment));
        self.next += 1;
        // Entries of those let go; without this they would stay until their time is over.
        if self.arrivals.len() > 2 * MOST_FRAGMENTS {
            let datagrams = &self.datagrams;
            self.arrivals.retain(|(number, key, _)| {
                datagrams
                    .get(key)
                    .is_some_and(|waiting| waiting.fragments.iter().any(|(its, _)| its == number))
            });
        }
        dropped
    }

    /// The datagrams to look for now.
    pub fn due(&mut self, now_ns: u64) -> Vec<FragmentKey> {
        let mut keys = Vec::new();
        for (key, waiting) in &mut self.datagrams {
            if waiting.look_at_ns <= now_ns {
                waiting.distance_ns = (waiting.distance_ns * 2).min(LONGEST_LOOK_NS);
                waiting.look_at_ns = now_ns + waiting.distance_ns;
                keys.push(*key);
            }
        }
        keys
    }

    /// Lets go what waits for a datagram, in the order in which it came.
    pub fn release(&mut self, key: &FragmentKey) -> Vec<Fragment> {
        let Some(waiting) = self.datagrams.remove(key) else {
            return Vec::new();
        };
        let fragments: Vec<Fragment> = waiting
            .fragments
            .into_iter()
            .map(|(_, fragment)| fragment)
            .collect();
        for fragment in &fragments {
            self.forget(key, fragment.frame.len());
        }
        fragments
    }

    /// Drops what has waited long enough. Returns how many.
    pub fn expire(&mut self, now_ns: u64) -> usize {
        let mut dropped = 0;
        while let Some((_, _, since_ns)) = self.arrivals.front()
            && now_ns.saturating_sub(*since_ns) >= PATIENCE_NS
        {
            dropped += usize::from(self.drop_oldest());
        }
        dropped
    }

    /// How long until something is due or over; `None` while nothing waits.
    #[must_use]
    pub fn idle_ns(&self, now_ns: u64) -> Option<u64> {
        let look = self.datagrams.values().map(|waiting| waiting.look_at_ns).min()?;
        let over = self
            .arrivals
            .front()
            .map_or(look, |(_, _, since_ns)| since_ns + PATIENCE_NS);
        Some(look.min(over).saturating_sub(now_ns))
    }

    /// Fragments and bytes that wait.
    #[must_use]
    pub const fn size(&self) -> (usize, usize) {
        (self.fragments, self.bytes)
    }

    /// Drops the oldest arrival; false if it had been let go already.
    fn drop_oldest(&mut self) -> bool {
        let Some((number, key, _)) = self.arrivals.pop_front() else {
            return false;
        };
        let Some(waiting) = self.datagrams.get_mut(&key) else {
            return false;
        };
        let Some(at) = waiting.fragments.iter().position(|(its, _)| *its == number) else {
            return false;
        };
        let (_, fragment) = waiting.fragments.remove(at);
        if waiting.fragments.is_empty() {
            self.datagrams.remove(&key);
        }
        self.forget(&key, fragment.frame.len());
        true
    }

    fn forget(&mut self, key: &FragmentKey, bytes: usize) {
        self.fragments -= 1;
        self.bytes -= bytes;
        let source = source(key);
        if let Some(count) = self.sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests;
