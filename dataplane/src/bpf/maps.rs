//! The object's tables, opened: typed for those that user space reads and writes entry by entry, listed for those it counts.
//!
//! Assumes the tables of the embedded object. Refuses one whose key or value has another size than its type here.

use std::os::fd::{AsFd as _, OwnedFd};

use aya::maps::{Map, MapData, MapType, PerCpuArray};
use bulkhead_abi as abi;

use super::{BpfError, load::Maps};
use crate::{
    memory::{Kind, Listed},
    table::{TableError, TypedMap},
};

/// The object's tables, typed.
#[derive(Debug)]
pub struct KernelMaps {
    /// The live record.
    pub live: TypedMap<u32, abi::Live>,
    /// Settings by `generation & 1`.
    pub settings: TypedMap<u32, abi::Settings>,
    /// Established IPv4 flows.
    pub flows4: TypedMap<abi::FlowKey4, abi::Flow>,
    /// Established IPv6 flows.
    pub flows6: TypedMap<abi::FlowKey6, abi::Flow>,
    /// Half-open IPv4 flows.
    pub half_open4: TypedMap<abi::FlowKey4, abi::Flow>,
    /// Half-open IPv6 flows.
    pub half_open6: TypedMap<abi::FlowKey6, abi::Flow>,
    /// Interface to zone.
    pub zones: TypedMap<abi::ZoneKey, u32>,
    /// Exact IPv4 hosts.
    pub hosts4: TypedMap<abi::HostKey4, abi::AddressClass>,
    /// Exact IPv6 hosts.
    pub hosts6: TypedMap<abi::HostKey6, abi::AddressClass>,
    /// IPv4 prefixes.
    pub prefixes4: TypedMap<abi::PrefixKey4, abi::AddressClass>,
    /// IPv6 prefixes.
    pub prefixes6: TypedMap<abi::PrefixKey6, abi::AddressClass>,
    /// Services.
    pub services: TypedMap<abi::ServiceKey, u32>,
    /// Words of rule vectors.
    pub vectors: TypedMap<abi::VectorKey, u64>,
    /// Words of the rules that accept anything.
    pub any_vectors: TypedMap<abi::VectorKey, abi::AnyVectors>,
    /// Rules.
    pub rules: TypedMap<abi::PolicyKey, abi::PolicyRule>,
    /// Remembered decisions.
    pub decisions: TypedMap<abi::DecisionKey, abi::Decision>,
    /// Expected conversations.
    pub expected: TypedMap<abi::ExpectKey, abi::Expectation>,
    /// Interfaces.
    pub interfaces: TypedMap<u32, abi::Interface>,
    /// IPv4 routes.
    pub routes4: TypedMap<abi::Route4Key, abi::RouteEntry>,
    /// IPv6 routes.
    pub routes6: TypedMap<abi::Route6Key, abi::RouteEntry>,
    /// Neighbours.
    pub neighbours: TypedMap<abi::NeighbourKey, u64>,
    // Ageing and limits.
    /// Timeouts of services.
    pub service_timeouts: TypedMap<abi::TimeoutKey, u32>,
    /// Limits of sessions by zone.
    pub limit_rules: TypedMap<abi::LimitRuleKey, abi::LimitRule>,
    /// Sessions by address.
    pub limits: TypedMap<abi::LimitKey, abi::SessionCount>,
    // Screens.
    /// Screen profiles, by [`abi::ScreenProfile::index`].
    pub screens: TypedMap<u32, abi::ScreenProfile>,
    /// Rates that screens count.
    pub screen_rates: TypedMap<abi::ScreenKey, abi::RateState>,
    /// Scans that screens count.
    pub screen_scans: TypedMap<abi::ScreenKey, abi::ScanState>,

    // Address translation.
    /// NAT rules.
    pub nat_rules: TypedMap<abi::NatRuleKey, abi::NatRule>,
    /// Pools.
    pub pools: TypedMap<abi::PoolKey, abi::NatPool>,
    /// IPv4 prefixes that translation owns, to the zones in which.
    pub nat_addresses4: TypedMap<abi::NatAddressKey4, u64>,
    /// IPv6 prefixes that translation owns.
    pub nat_addresses6: TypedMap<abi::NatAddressKey6, u64>,
    /// Inside ends of persistent mappings.
    pub mapping_ends: TypedMap<abi::MappingKey, abi::MappingKey>,
    /// Persistent mappings by their outside ends.
    pub mappings: TypedMap<abi::MappingKey, abi::Mapping>,
    /// Remote ends that their insides have sent to.
    pub permits: TypedMap<abi::PermitKey, u64>,
    /// Datagrams in fragments.
    pub fragments: TypedMap<abi::FragmentKey, abi::Datagram>,
}

impl KernelMaps {
    /// Those among the object's.
    pub(super) fn open(maps: &Maps) -> Result<Self, BpfError> {
        Ok(Self {
            live: open(maps, "LIVE")?,
            settings: open(maps, "SETTINGS")?,
            flows4: open(maps, "FLOWS4")?,
            flows6: open(maps, "FLOWS6")?,
            half_open4: open(maps, "HALF_OPEN4")?,
            half_open6: open(maps, "HALF_OPEN6")?,
            zones: open(maps, "ZONES")?,
            hosts4: open(maps, "HOSTS4")?,
            hosts6: open(maps, "HOSTS6")?,
            prefixes4: open(maps, "PREFIXES4")?,
            prefixes6: open(maps, "PREFIXES6")?,
            services: open(maps, "SERVICES")?,
            vectors: open(maps, "VECTORS")?,
            any_vectors: open(maps, "ANY_VECTORS")?,
            rules: open(maps, "RULES")?,
            decisions: open(maps, "DECISIONS")?,
            expected: open(maps, "EXPECTED")?,
            interfaces: open(maps, "INTERFACES")?,
            routes4: open(maps, "ROUTES4")?,
            routes6: open(maps, "ROUTES6")?,
            neighbours: open(maps, "NEIGHBOURS")?,
            service_timeouts: open(maps, "SERVICE_TIMEOUTS")?,
            limit_rules: open(maps, "LIMIT_RULES")?,
            limits: open(maps, "LIMITS")?,
            screens: open(maps, "SCREENS")?,
            screen_rates: open(maps, "SCREEN_RATES")?,
            screen_scans: open(maps, "SCREEN_SCANS")?,
            nat_rules: open(maps, "NAT_RULES")?,
            pools: open(maps, "POOLS")?,
            nat_addresses4: open(maps, "NAT_ADDRESSES4")?,
            nat_addresses6: open(maps, "NAT_ADDRESSES6")?,
            mapping_ends: open(maps, "MAPPINGS_INSIDE")?,
            mappings: open(maps, "MAPPINGS_OUTSIDE")?,
            permits: open(maps, "NAT_PERMITS")?,
            fragments: open(maps, "FRAGMENTS")?,
        })
    }
}

/// Opens a table of the object.
pub(super) fn open<K, V>(maps: &Maps, name: &'static str) -> Result<TypedMap<K, V>, BpfError>
where
    K: zerocopy::IntoBytes + zerocopy::FromBytes + zerocopy::Immutable + Copy,
    V: zerocopy::IntoBytes + zerocopy::FromBytes + zerocopy::Immutable + Copy,
{
    let data = maps.get(name).ok_or(BpfError::Missing(name))?;
    let info = data.info().map_err(|source| BpfError::Map { name, source })?;
    Ok(TypedMap::open(
        name,
        data.fd().as_fd(),
        info.key_size() as usize,
        info.value_size() as usize,
    )?)
}

/// A descriptor of a table of the object.
pub(super) fn table_fd(maps: &Maps, name: &'static str) -> Result<OwnedFd, BpfError> {
    let data = maps.get(name).ok_or(BpfError::Missing(name))?;
    data.fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| BpfError::Attach {
            operation: format!("duplicate the descriptor of {name}"),
            source: source.into(),
        })
}

/// Takes an array with a value per CPU out of the object.
pub(super) fn per_cpu<V: aya::Pod>(
    maps: &mut Maps,
    name: &'static str,
) -> Result<PerCpuArray<MapData, V>, BpfError> {
    let map = maps.remove(name).ok_or(BpfError::Missing(name))?;
    PerCpuArray::try_from(Map::PerCpuArray(map)).map_err(|source| BpfError::Map { name, source })
}

/// Every map of the object that is not a table of programs.
pub(super) fn list(maps: &Maps) -> Result<Vec<Listed>, BpfError> {
    let mut listed = Vec::new();
    for (name, data) in maps {
        let fail = |source| BpfError::Map { name: "info", source };
        let info = data.info().map_err(fail)?;
        let kind = match info.map_type().map_err(fail)? {
            MapType::Array | MapType::PerCpuArray => Kind::Fixed,
            MapType::Hash | MapType::LruHash => Kind::Hash,
            MapType::LpmTrie => Kind::Trie,
            MapType::RingBuf => Kind::Ring,
            _ => continue,
        };
        let fd = data.fd().as_fd().try_clone_to_owned();
        listed.push(Listed {
            name: name.to_owned(),
            kind,
            fd: fd.map_err(|source| TableError {
                map: "of the object",
                operation: "duplicate",
                source,
            })?,
            key_bytes: info.key_size() as usize,
            value_bytes: info.value_size() as usize,
            capacity: info.max_entries(),
        });
    }
    Ok(listed)
}

/// The sum over all CPUs.
pub(super) fn sum(map: &PerCpuArray<MapData, u64>, name: &'static str, slot: u32) -> Result<u64, BpfError> {
    let values = map
        .get(&slot, 0)
        .map_err(|source| BpfError::Map { name, source })?;
    // Wrapping: what one CPU has counted another may have taken back.
    Ok(values.iter().fold(0, |sum: u64, value| sum.wrapping_add(*value)))
}
