//! Memory that the tables take, against the memory there is.
//!
//! Owns the sum: for each large table what the kernel allocates when it is made (buckets; entries too where it
//! evicts) and what it adds per entry. Assumes the layouts of `kernel/bpf/hashtab.c` and `lpm_trie.c` as of Linux 6.18; a
//! test compares with what the kernel says of the loaded object. Address and rule tables grow with the configuration,
//! which is not known here: of them only the bound that their sizes set.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bulkhead_abi as abi;

use super::Check;
use crate::bpf::Sizes;

/// `struct htab_elem` before the key.
const ELEMENT_HEADER_BYTES: u64 = 48;
/// `struct bucket`.
const BUCKET_BYTES: u64 = 16;
/// Ring buffers, per-CPU arrays and small tables, generously.
const REST_BYTES: u64 = 4 << 20;
/// Entries of the decision cache, whatever the sizes.
const DECISIONS: u32 = 65_536;
/// Entries of the screens' tables, whatever the sizes.
const SCREEN_RATES: u32 = 32_768;
const SCREEN_SCANS: u32 = 16_384;

/// NAT rules, whatever the sizes.
const NAT_RULES: u32 = 65_536;
/// Remote ends that mappings may be used by, whatever the sizes.
const NAT_PERMITS: u32 = 65_536;

/// When a hash table's entries are allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allocation {
    /// As they come.
    Growing,
    /// All when it is made, because it evicts.
    AtOnce,
}

/// A large hash table.
#[derive(Clone, Copy, Debug)]
struct HashTable {
    name: &'static str,
    key_bytes: usize,
    value_bytes: usize,
    entries: u32,
    allocation: Allocation,
    /// Grows with traffic rather than with the configuration.
    traffic: bool,
}

impl HashTable {
    const fn new<K, V>(name: &'static str, entries: u32) -> Self {
        let (key_bytes, value_bytes) = (size_of::<K>(), size_of::<V>());
        Self {
            name,
            key_bytes,
            value_bytes,
            entries,
            allocation: Allocation::Growing,
            traffic: false,
        }
    }

    const fn traffic(self) -> Self {
        Self {
            traffic: true,
            ..self
        }
    }

    const fn evicting(self) -> Self {
        Self {
            allocation: Allocation::AtOnce,
            ..self
        }
    }

    fn element_bytes(&self) -> u64 {
        let padded = self.key_bytes.next_multiple_of(8) + self.value_bytes.next_multiple_of(8);
        ELEMENT_HEADER_BYTES + padded as u64
    }

    fn entries_bytes(&self) -> u64 {
        u64::from(self.entries) * self.element_bytes()
    }

    fn at_start_bytes(&self) -> u64 {
        let buckets = u64::from(self.entries.next_power_of_two()) * BUCKET_BYTES;
        match self.allocation {
            Allocation::Growing => buckets,
            Allocation::AtOnce => buckets + self.entries_bytes(),
        }
    }

    /// What traffic adds.
    fn traffic_bytes(&self) -> u64 {
        if self.traffic { self.growth_bytes() } else { 0 }
    }

    /// What it adds when it is full. Entries that come one by one come from the kernel's size classes.
    fn growth_bytes(&self) -> u64 {
        match self.allocation {
            Allocation::Growing => u64::from(self.entries) * size_class(self.element_bytes() + UNIT_BYTES),
            Allocation::AtOnce => 0,
        }
    }
}

/// What the allocator keeps in front of each entry (`LLIST_NODE_SZ`, kernel/bpf/memalloc.c).
const UNIT_BYTES: u64 = 8;

/// The `kmalloc` size class that an allocation comes from.
fn size_class(bytes: u64) -> u64 {
    match bytes {
        65..=96 => 96,
        129..=192 => 192,
        bytes => bytes.next_power_of_two(),
    }
}

/// The hash tables that matter, with the entries that [`crate::bpf::Object::load`] gives them.
fn tables(sizes: &Sizes) -> [HashTable; 20] {
    let flows = sizes.sessions.saturating_mul(2).max(2);
    let half_open = sizes.half_open.saturating_mul(2).max(2);
    let addresses = sizes.addresses.max(1);
    [
        HashTable::new::<abi::FlowKey4, abi::Flow>("FLOWS4", flows).traffic(),
        HashTable::new::<abi::FlowKey6, abi::Flow>("FLOWS6", flows).traffic(),
        HashTable::new::<abi::FlowKey4, abi::Flow>("HALF_OPEN4", half_open).evicting(),
        HashTable::new::<abi::FlowKey6, abi::Flow>("HALF_OPEN6", half_open).evicting(),
        HashTable::new::<abi::DecisionKey, abi::Decision>("DECISIONS", DECISIONS).evicting(),
        HashTable::new::<abi::HostKey4, abi::AddressClass>("HOSTS4", addresses),
        HashTable::new::<abi::HostKey6, abi::AddressClass>("HOSTS6", addresses),
        HashTable::new::<abi::VectorKey, u64>("VECTORS", sizes.vectors()),
        HashTable::new::<abi::VectorKey, abi::AnyVectors>("ANY_VECTORS", crate::bpf::ANY_VECTORS),
        HashTable::new::<abi::PolicyKey, abi::PolicyRule>("RULES", sizes.rules.max(1)),
        HashTable::new::<abi::TimeoutKey, u32>("SERVICE_TIMEOUTS", sizes.service_timeouts()),
        HashTable::new::<abi::NeighbourKey, u64>("NEIGHBOURS", sizes.neighbours.max(1)),
        HashTable::new::<abi::LimitKey, abi::SessionCount>("LIMITS", crate::bpf::LIMITED_ADDRESSES)
            .evicting(),
        // Screens.
        HashTable::new::<abi::ScreenKey, abi::RateState>("SCREEN_RATES", SCREEN_RATES).evicting(),
        HashTable::new::<abi::ScreenKey, abi::ScanState>("SCREEN_SCANS", SCREEN_SCANS).evicting(),
        // Address translation. Mappings come with traffic too, where rules are `persistent`; which is not known here.
        HashTable::new::<abi::NatRuleKey, abi::NatRule>("NAT_RULES", NAT_RULES),
        HashTable::new::<abi::MappingKey, abi::MappingKey>("MAPPINGS_INSIDE", sizes.sessions.max(1)),
        HashTable::new::<abi::MappingKey, abi::Mapping>("MAPPINGS_OUTSIDE", sizes.sessions.max(1)),
        HashTable::new::<abi::PermitKey, u64>("NAT_PERMITS", NAT_PERMITS).evicting(),
        HashTable::new::<abi::FragmentKey, abi::Datagram>("FRAGMENTS", abi::FRAGMENT_ENTRIES).evicting(),
    ]
}

impl Sizes {
    /// What the large tables take when they are full, by name: an estimate of the kernel's allocations.
    #[must_use]
    pub fn full_bytes(&self) -> Vec<(&'static str, u64)> {
        /// `struct lpm_trie_node` before its key.
        const NODE_BYTES: u64 = 24;
        // Each prefix may bring one more node, where its way parts from another's.
        let trie = |entries: u32, address_bytes: u64, value_bytes: u64| {
            2 * u64::from(entries) * size_class(NODE_BYTES + address_bytes + value_bytes + UNIT_BYTES)
        };
        let class = size_of::<abi::AddressClass>() as u64;
        let route = size_of::<abi::RouteEntry>() as u64;
        let tries = [
            ("PREFIXES4", trie(self.addresses, 4, class)),
            ("PREFIXES6", trie(self.addresses, 16, class)),
            ("ROUTES4", trie(self.routes, 4, route)),
            ("ROUTES6", trie(self.routes, 16, route)),
        ];
        let hash = |table: &HashTable| (table.name, table.at_start_bytes() + table.growth_bytes());
        tables(self).iter().map(hash).chain(tries).collect()
    }
}

/// The most that the tables of these sizes can take: every one of them full.
#[must_use]
pub fn most_bytes(sizes: &Sizes) -> u64 {
    Footprint::of(sizes).most_bytes
}

/// What the tables take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Footprint {
    /// As soon as they are made.
    at_start_bytes: u64,
    /// When as many sessions are there as may be, in both families.
    busy_bytes: u64,
    /// When every table is full.
    most_bytes: u64,
}

impl Footprint {
    fn of(sizes: &Sizes) -> Self {
        let tables = tables(sizes);
        let at_start_bytes = REST_BYTES + tables.iter().map(HashTable::at_start_bytes).sum::<u64>();
        let busy_bytes = at_start_bytes + tables.iter().map(HashTable::traffic_bytes).sum::<u64>();
        Self {
            at_start_bytes,
            busy_bytes,
            most_bytes: REST_BYTES + sizes.full_bytes().iter().map(|(_, bytes)| bytes).sum::<u64>(),
        }
    }
}

/// Memory to be had, and where the limit is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Room {
    bytes: u64,
    limit: &'static str,
}

/// Compares the tables of these sizes with the memory that this process may still get. Never fails: a sum is no proof,
/// and the tables of a firewall that runs here already are taken from what is left.
pub(super) fn check(sizes: &Sizes) -> Check {
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| field(&text, "MemAvailable:"));
    let machine = machine.map(|kib| Room {
        bytes: kib * 1024,
        limit: "available on this machine",
    });
    let group = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|text| control_group(&text));
    let group = group.map(|bytes| Room {
        bytes,
        limit: "left below the control group's memory limit",
    });
    judge(
        Footprint::of(sizes),
        machine.into_iter().chain(group).min_by_key(|room| room.bytes),
    )
}

fn judge(footprint: Footprint, room: Option<Room>) -> Check {
    let Footprint {
        at_start_bytes,
        busy_bytes,
        most_bytes,
    } = footprint;
    let needs = format!(
        "the tables take {} at start, {} with every session in use, and {} at most, when addresses and rules fill them too",
        mebibytes(at_start_bytes),
        mebibytes(busy_bytes),
        mebibytes(most_bytes)
    );
    let Some(Room { bytes, limit }) = room else {
        let remedy = "mount /proc, or see for yourself that there is as much";
        return Check::warn(
            "memory",
            format!("{needs}; how much there is cannot be read"),
            remedy,
        );
    };
    let found = format!("{needs}; {} are {limit}", mebibytes(bytes));
    let remedy = format!(
        "raise the memory limit to at least {} (Kubernetes: resources.limits.memory, docker: --memory), or write \
         a smaller size, or less for sessions.max and sessions.halfOpen, into the configuration",
        mebibytes(busy_bytes)
    );
    if bytes < at_start_bytes {
        let found =
            format!("{found}: a start would run out of memory, unless the firewall runs here already");
        Check::warn("memory", found, remedy)
    } else if bytes < busy_bytes {
        Check::warn("memory", found, remedy)
    } else {
        Check::ok("memory", found)
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What the memory controller still grants; `None` without a limit. `groups` is `/proc/self/cgroup`.
fn control_group(groups: &str) -> Option<u64> {
    groups
        .lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let path = path.trim_start_matches('/');
            if controllers.is_empty() {
                granted(
                    Path::new("/sys/fs/cgroup"),
                    path,
                    "memory.max",
                    "memory.current",
                    "inactive_file ",
                )
            } else if controllers.split(',').any(|name| name == "memory") {
                let root = Path::new("/sys/fs/cgroup/memory");
                granted(
                    root,
                    path,
                    "memory.limit_in_bytes",
                    "memory.usage_in_bytes",
                    "total_inactive_file ",
                )
            } else {
                None
            }
        })
        .min()
}

/// The least that any group from `path` up to the root grants. In a container the path may be that of the host while
/// what is mounted is the container's own group: then the root is what counts, and the loop ends there.
fn granted(root: &Path, path: &str, limit: &str, usage: &str, cache: &str) -> Option<u64> {
    let number = |file: PathBuf| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let groups = root.join(path);
    let groups = groups.ancestors().take_while(|group| group.starts_with(root));
    groups
        .filter_map(|group| {
            let statistics = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
            // Page cache that nobody uses goes before anybody is refused memory.
            let used = number(group.join(usage))?.saturating_sub(field(&statistics, cache).unwrap_or(0));
            Some(number(group.join(limit))?.saturating_sub(used))
        })
        .min()
}

#[cfg(test)]
mod tests;
