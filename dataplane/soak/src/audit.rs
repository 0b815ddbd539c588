//! Memory, as the kernel counts it, and what may be left of it.

use std::fs;

use anyhow::{Context as _, Result};
use bulkhead_testkit::memory::{own_map_bytes, resident_bytes};
use serde::Serialize;

/// How much more may be resident in the end: freed memory that the heap keeps for the threads that made conversations.
const RESIDENT_SLACK_BYTES: u64 = 24 << 20;
/// How much more maps may hold: the count of entries that allocate as they come is kept per CPU and read in batches.
const MAP_SLACK_BYTES: u64 = 256 << 10;

/// What this process holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// All BPF maps, bytes.
    pub map_bytes: u64,
    /// Resident, bytes; the hosts' sockets and servers live in the same process.
    pub resident_bytes: u64,
    /// Open descriptors.
    pub descriptors: u64,
}

impl Memory {
    /// As it is now.
    pub fn take() -> Result<Self> {
        let descriptors = fs::read_dir("/proc/self/fd").context("cannot list /proc/self/fd")?;
        Ok(Self {
            map_bytes: own_map_bytes()?,
            resident_bytes: resident_bytes()?,
            descriptors: descriptors.count() as u64,
        })
    }

    /// What is left of it that was not there before.
    pub fn problems_since(&self, before: &Self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut at_most = |what: &str, now: u64, limit: u64| {
            if now > limit {
                problems.push(format!("{what}: {now} in the end, at most {limit} expected"));
            }
        };
        at_most(
            "resident bytes",
            self.resident_bytes,
            before.resident_bytes + RESIDENT_SLACK_BYTES,
        );
        at_most("map bytes", self.map_bytes, before.map_bytes + MAP_SLACK_BYTES);
        at_most("descriptors", self.descriptors, before.descriptors);
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_is_a_problem_and_slack_is_not() {
        let before = Memory {
            map_bytes: 1 << 20,
            resident_bytes: 1 << 26,
            descriptors: 40,
        };
        assert_eq!(before.problems_since(&before), [""; 0]);
        let leaking = Memory {
            map_bytes: 2 << 20,
            resident_bytes: (1 << 26) + (25 << 20),
            descriptors: 41,
        };
        assert_eq!(leaking.problems_since(&before).len(), 3);
    }
}
