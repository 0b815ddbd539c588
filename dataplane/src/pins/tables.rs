//! The tables that outlive a daemon: what is known about live traffic and cannot be had again. What the configuration and
//! the kernel's routes say is in others, of which each load has its own.
//!
//! A table is adopted as it is if it has the layout and the size that this load would give it. Of another size its entries
//! are carried over; of another layout they cannot be read, and all tables begin anew.

use std::{os::fd::AsFd as _, path::Path};

use aya::maps::{MapData, MapInfo, MapType};
use bulkhead_abi as abi;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{
    bpf::{BpfError, KernelMaps, LIMITED_ADDRESSES, Sizes},
    table::{self, TableError, TypedMap},
};

/// `BPF_F_NO_PREALLOC`.
const NO_PREALLOC: u32 = 1;

/// What a table is to look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    kind: MapType,
    key_bytes: u32,
    value_bytes: u32,
    flags: u32,
    entries: u32,
}

/// How a table that is there compares with the shape wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fit {
    Exact,
    /// The number of entries it holds differs.
    Resized,
    Different,
}

impl Shape {
    fn of<K, V>(name: &'static str, kind: MapType, entries: u32) -> Self {
        let flags = if kind == MapType::Hash { NO_PREALLOC } else { 0 };
        Self {
            name,
            kind,
            key_bytes: size_of::<K>() as u32,
            value_bytes: size_of::<V>() as u32,
            flags,
            entries: entries.max(1),
        }
    }

    /// Compares a table with it.
    pub(crate) fn fit(&self, info: &MapInfo) -> Fit {
        let same = info.map_type().is_ok_and(|kind| kind == self.kind)
            && info.key_size() == self.key_bytes
            && info.value_size() == self.value_bytes
            && info.map_flags() == self.flags;
        match (same, info.max_entries() == self.entries) {
            (false, _) => Fit::Different,
            (true, false) => Fit::Resized,
            (true, true) => Fit::Exact,
        }
    }
}

/// The shapes of all tables that outlive a daemon.
pub(crate) fn shapes(sizes: &Sizes) -> Vec<Shape> {
    use MapType::{Array, Hash, LruHash, PerCpuArray};
    let (flows, half_open) = (sizes.flows(), sizes.half_open_flows());
    vec![
        Shape::of::<abi::FlowKey4, abi::Flow>("FLOWS4", Hash, flows),
        Shape::of::<abi::FlowKey6, abi::Flow>("FLOWS6", Hash, flows),
        Shape::of::<abi::FlowKey4, abi::Flow>("HALF_OPEN4", LruHash, half_open),
        Shape::of::<abi::FlowKey6, abi::Flow>("HALF_OPEN6", LruHash, half_open),
        Shape::of::<abi::MappingKey, abi::MappingKey>("MAPPINGS_INSIDE", Hash, sizes.sessions),
        Shape::of::<abi::MappingKey, abi::Mapping>("MAPPINGS_OUTSIDE", Hash, sizes.sessions),
        Shape::of::<abi::PermitKey, u64>("NAT_PERMITS", LruHash, 65_536),
        Shape::of::<abi::LimitKey, abi::SessionCount>("LIMITS", LruHash, LIMITED_ADDRESSES),
        Shape::of::<abi::ExpectKey, abi::Expectation>("EXPECTED", LruHash, 4_096),
        Shape::of::<abi::FragmentKey, abi::Datagram>("FRAGMENTS", LruHash, abi::FRAGMENT_ENTRIES),
        Shape::of::<u32, u64>("DATAGRAM_IDS", Array, 1),
        Shape::of::<u32, u64>("SESSION_IDS", PerCpuArray, 1),
        Shape::of::<u32, u64>("COUNTERS", PerCpuArray, abi::Reason::SLOTS),
        Shape::of::<u32, u64>("TALLIES", PerCpuArray, abi::Tally::COUNT),
        Shape::of::<u32, abi::ScreenCount>("SCREEN_COUNTS", PerCpuArray, abi::ScreenCount::ENTRIES),
        Shape::of::<abi::ScreenKey, abi::RateState>("SCREEN_RATES", LruHash, 32_768),
        Shape::of::<abi::ScreenKey, abi::ScanState>("SCREEN_SCANS", LruHash, 16_384),
        Shape::of::<u32, u64>("MARKS", Array, 1),
    ]
}

/// Sessions in the tables of a directory, of whatever version: two flows each.
pub(super) fn count_sessions(directory: &Path) -> u64 {
    let flows = ["FLOWS4", "FLOWS6"].map(|name| {
        let map = MapData::from_pin(directory.join(name)).ok()?;
        let info = map.info().ok()?;
        table::count(map.fd().as_fd(), info.key_size() as usize, info.max_entries()).ok()
    });
    flows.into_iter().flatten().sum::<u64>() / 2
}

/// What came of carrying entries over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Entries that are in the new table now.
    pub(crate) entries: u64,
    /// Entries that found no room.
    pub(crate) dropped: u64,
}

/// Enters what `old`, a table of the same layout, holds and `new` does not.
fn carry<K, V>(old: &MapData, new: &TypedMap<K, V>, change: impl Fn(&mut V)) -> Result<Carried, BpfError>
where
    K: IntoBytes + FromBytes + Immutable + Copy,
    V: IntoBytes + FromBytes + Immutable + Copy,
{
    let old: TypedMap<K, V> = TypedMap::open(new.name(), old.fd().as_fd(), size_of::<K>(), size_of::<V>())?;
    let mut carried = Carried::default();
    let mut failed: Option<TableError> = None;
    old.for_each(|key, value| {
        let mut value = *value;
        change(&mut value);
        match new.insert(key, &value) {
            Ok(true) => carried.entries += 1,
            Ok(false) => {}
            Err(error) if error.is_full() => carried.dropped += 1,
            Err(error) => failed = Some(error),
        }
    })?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(carried),
    }
}

/// The old table goes on while it is read: what it knows of sequence numbers is old at once, and a segment beyond them
/// would be refused. So TCP sessions that move are followed without checks from then on.
fn unchecked(flow: &mut abi::Flow) {
    if flow.protocol == abi::protocol::TCP {
        flow.flags |= abi::flow_flags::LIBERAL;
    }
}

/// Carries the entries of a table of another size over; `None` for a table whose entries are not worth it: counts,
/// announcements and rates of seconds ago.
pub(crate) fn carry_over(
    name: &'static str,
    old: &MapData,
    maps: &KernelMaps,
) -> Result<Option<Carried>, BpfError> {
    match name {
        "FLOWS4" => carry(old, &maps.flows4, unchecked),
        "FLOWS6" => carry(old, &maps.flows6, unchecked),
        "HALF_OPEN4" => carry(old, &maps.half_open4, unchecked),
        "HALF_OPEN6" => carry(old, &maps.half_open6, unchecked),
        "MAPPINGS_INSIDE" => carry(old, &maps.mapping_ends, |_| ()),
        "MAPPINGS_OUTSIDE" => carry(old, &maps.mappings, |_| ()),
        "NAT_PERMITS" => carry(old, &maps.permits, |_| ()),
        "LIMITS" => carry(old, &maps.limits, |_| ()),
        _ => return Ok(None),
    }
    .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `ABI_VERSION` is the version of is what is pinned.
    #[test]
    fn tables_are_those_recorded_of_the_version() {
        let record = include_str!("../../../ebpf/abi/tests/layouts/layouts.txt");
        assert!(record.contains(&format!("\nversion {}\n", abi::ABI_VERSION)));
        let recorded = record.split("growing tables\n").nth(1).expect("a section");
        let recorded: Vec<_> = recorded
            .lines()
            .map_while(|line| line.strip_prefix("  "))
            .collect();
        for shape in shapes(&Sizes::small()) {
            // The kind by the name it has in the programs, the key's and the value's length behind their types.
            let begins = format!("{} {:?} flags {} key ", shape.name, shape.kind, shape.flags);
            let lengths = |line: &&str| {
                let words: Vec<_> = line.split(' ').collect();
                let length = |place: usize| words.get(place).and_then(|word| word.parse::<u32>().ok());
                length(6) == Some(shape.key_bytes) && length(9) == Some(shape.value_bytes)
            };
            let mut found = recorded.iter().filter(|line| line.starts_with(&begins));
            assert!(
                found.next().is_some_and(lengths),
                "{shape:?}: not so in ebpf/abi/tests/layouts, which records what is pinned"
            );
        }
        assert_eq!(recorded.len(), shapes(&Sizes::small()).len(), "{recorded:?}");
    }
}
