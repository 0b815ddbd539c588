//! The live tables as the pipeline asks for them, and nothing that would change them.

use bulkhead_abi::{
    AnyVectors, Datagram, Decision, DecisionKey, Event, ExpectKey, Expectation, Flow, FlowKey6, FragmentKey,
    HostKey4, HostKey6, Interface, LimitKey, LimitRule, Live, Mapping, MappingKey, NatAddressKey4,
    NatAddressKey6, NatPool, NatRule, NatRuleKey, NeighbourKey, PermitKey, PolicyKey, PolicyRule, PoolKey,
    PrefixKey4, PrefixKey6, RateState, Route4Key, Route6Key, RouteEntry, ScanState, ScreenKey, ScreenProfile,
    ServiceKey, Tally, TimeoutKey, VectorKey, ZoneKey,
};
use bulkhead_packet::{HeaderBuffer, PlainLoop, Repeat};
use bulkhead_pipeline::{Clock, Insert, Limiter, NO_COOKIE, Table, Tables};

use crate::bpf::KernelMaps;

/// The live tables, read-only: what would change them does nothing.
pub(in crate::engine) struct ReadOnly<'a> {
    pub(in crate::engine) maps: &'a KernelMaps,
    pub(in crate::engine) wired: bool,
}

impl Repeat for ReadOnly<'_> {
    fn repeat(&self, times: u32, f: impl FnMut(u32) -> bool) {
        PlainLoop.repeat(times, f);
    }
}

/// An unreadable table counts as empty: the explanation then says "denied by default", as the packet would be.
fn present<V>(result: Result<Option<V>, crate::table::TableError>) -> Option<V> {
    result.unwrap_or_else(|error| {
        tracing::warn!(%error, "a table cannot be read");
        None
    })
}

fn copied<V>(result: Result<Option<V>, crate::table::TableError>, to: &mut V) -> bool {
    present(result).map(|value| *to = value).is_some()
}

impl Tables for ReadOnly<'_> {
    fn wired(&self) -> bool {
        self.wired
    }
    fn live(&self) -> Live {
        present(self.maps.live.get(&0)).unwrap_or_default()
    }
    fn timeout_ns(&self, _: u32, _: u8) -> u64 {
        u64::MAX
    }
    fn permitted(&self, _: u32, _: Limiter, _: u64) -> bool {
        false
    }
    fn zone(&self, generation: u32, ifindex: u32) -> Option<u8> {
        present(self.maps.zones.get(&ZoneKey { generation, ifindex }))
            .and_then(|zone| u8::try_from(zone).ok())
    }
    fn interface(&self, ifindex: u32, to: &mut Interface) -> bool {
        present(self.maps.interfaces.get(&ifindex))
            .map(|interface| *to = interface)
            .is_some()
    }
    fn address_class(&self, generation: u32, family: u8, a: &[u32; 4]) -> u32 {
        let found = if family == 4 {
            let address_be = a[0];
            present(self.maps.hosts4.get(&HostKey4 { address_be })).or_else(|| {
                let key = PrefixKey4 { bits: 32, address_be };
                present(self.maps.prefixes4.get(&key))
            })
        } else {
            let address_be = *a;
            present(self.maps.hosts6.get(&HostKey6 { address_be })).or_else(|| {
                let key = PrefixKey6 {
                    bits: 128,
                    address_be,
                };
                present(self.maps.prefixes6.get(&key))
            })
        };
        found.map_or(0, |class| class.of(generation))
    }
    fn service_class(&self, generation: u32, protocol: u8, port: u16) -> u32 {
        let key = ServiceKey {
            bits: 64,
            generation,
            reserved: 0,
            protocol,
            port_be: port.to_be(),
        };
        present(self.maps.services.get(&key)).unwrap_or(0)
    }
    fn vector(&self, key: &VectorKey) -> u64 {
        present(self.maps.vectors.get(key)).unwrap_or(0)
    }
    fn any_vectors(&self, key: &VectorKey, to: &mut AnyVectors) {
        *to = present(self.maps.any_vectors.get(key)).unwrap_or_default();
    }
    fn rule(&self, generation: u32, rule: u32, _: bool) -> Option<PolicyRule> {
        present(self.maps.rules.get(&PolicyKey { generation, rule }))
    }
    fn cached_decision(&self, _: &DecisionKey) -> Option<Decision> {
        // Decided afresh, so that explain does not repeat what a stale cache would say.
        None
    }
    fn cache_decision(&self, _: &DecisionKey, _: Decision) {}
    fn with_flow<R>(
        &self,
        table: Table,
        family: u8,
        key: &FlowKey6,
        f: impl FnOnce(&mut Flow) -> R,
    ) -> Option<R> {
        let key4 = bulkhead_abi::FlowKey4 {
            source_be: key.source_be[0],
            destination_be: key.destination_be[0],
            source_port: key.source_port,
            destination_port: key.destination_port,
            protocol: key.protocol,
        };
        let found = match (table, family) {
            (Table::Established, 4) => self.maps.flows4.get(&key4),
            (Table::Established, _) => self.maps.flows6.get(key),
            (Table::HalfOpen, 4) => self.maps.half_open4.get(&key4),
            (Table::HalfOpen, _) => self.maps.half_open6.get(key),
        };
        present(found).map(|mut copy| f(&mut copy))
    }
    fn insert_flow(&self, _: Table, _: u8, _: &FlowKey6, _: &Flow) -> Insert {
        Insert::Full
    }
    fn remove_flow(&self, _: Table, _: u8, _: &FlowKey6) {}
    fn route(&self, family: u8, address_be: &[u32; 4], to: &mut RouteEntry) -> bool {
        let found = if family == 4 {
            self.maps.routes4.get(&Route4Key {
                bits: 32,
                address_be: address_be[0],
            })
        } else {
            self.maps.routes6.get(&Route6Key {
                bits: 128,
                address_be: *address_be,
            })
        };
        present(found).map(|entry| *to = entry).is_some()
    }
    fn neighbour(&self, key: &NeighbourKey) -> Option<u64> {
        present(self.maps.neighbours.get(key))
    }
    fn count(&self, _: u32) {}
    fn emit(&self, _: &Event) {}

    fn nat_flags(&self, generation: u32) -> u64 {
        present(self.maps.settings.get(&(generation & 1))).map_or(0, |settings| settings.nat)
    }
    fn nat_rule(&self, key: &NatRuleKey, _: bool, to: &mut NatRule) -> bool {
        copied(self.maps.nat_rules.get(key), to)
    }
    fn pool(&self, key: &PoolKey, to: &mut NatPool) -> bool {
        copied(self.maps.pools.get(key), to)
    }
    fn nat_address(&self, generation: u32, family: u8, a: &[u32; 4]) -> u64 {
        let zones = if family == 4 {
            self.maps.nat_addresses4.get(&NatAddressKey4 {
                bits: 64,
                generation,
                address_be: a[0],
            })
        } else {
            self.maps.nat_addresses6.get(&NatAddressKey6 {
                bits: 160,
                generation,
                address_be: *a,
            })
        };
        present(zones).unwrap_or(0)
    }
    fn mapping_end(&self, inside: &MappingKey, to: &mut MappingKey) -> bool {
        copied(self.maps.mapping_ends.get(inside), to)
    }
    fn mapping(&self, outside: &MappingKey, to: &mut Mapping) -> bool {
        copied(self.maps.mappings.get(outside), to)
    }
    fn insert_mapping_end(&self, _: &MappingKey, _: &MappingKey) -> Insert {
        // As if: the mapping that would be made is what the packet would get.
        Insert::Done
    }
    fn insert_mapping(&self, outside: &MappingKey, _: &Mapping) -> Insert {
        if present(self.maps.mappings.get(outside)).is_some() {
            Insert::Exists
        } else {
            Insert::Done
        }
    }
    fn replace_mapping(&self, _: &MappingKey, _: &Mapping) {}
    fn use_mapping(&self, _: &MappingKey, _: u64) {}
    fn remove_mapping_end(&self, _: &MappingKey) {}
    fn remove_mapping(&self, _: &MappingKey) {}
    fn permit(&self, _: &PermitKey, _: u64) {}
    fn is_permitted(&self, key: &PermitKey) -> bool {
        present(self.maps.permits.get(key)).is_some()
    }
    fn swap_generation(&self, _: Table, _: u8, _: &FlowKey6, _: u64, _: u32, _: u32) -> Option<u32> {
        None
    }
    fn end_flow(&self, _: Table, _: u8, _: &FlowKey6, _: u64) -> Option<bool> {
        None
    }
    fn service_timeout_s(&self, generation: u32, service: u32) -> u32 {
        present(
            self.maps
                .service_timeouts
                .get(&TimeoutKey { generation, service }),
        )
        .unwrap_or(0)
    }
    fn limit_rule(&self, _: u32, _: u8) -> LimitRule {
        LimitRule::default()
    }
    fn count_session(&self, _: &LimitKey, _: i64) -> i64 {
        0
    }
    fn tally(&self, _: Tally) {}
    fn screens(&self, generation: u32, zone: u8, to: &mut ScreenProfile) -> bool {
        let index = ScreenProfile::index(generation, zone);
        present(self.maps.screens.get(&index))
            .filter(|profile| profile.enabled != 0)
            .map(|profile| *to = profile)
            .is_some()
    }
    fn count_screen(&self, _: u8, _: u32, _: bool) {}
    fn rate(&self, key: &ScreenKey, _: u64, _: u32, _: u32, _: u64) -> u64 {
        self.rate_state(key).map_or(0, |state| state.packets)
    }
    fn rate_state(&self, key: &ScreenKey) -> Option<RateState> {
        present(self.maps.screen_rates.get(key))
    }
    fn with_scan<R>(&self, key: &ScreenKey, _: &ScanState, f: impl FnOnce(&mut ScanState) -> R) -> Option<R> {
        present(self.maps.screen_scans.get(key)).map(|mut copy| f(&mut copy))
    }

    // SYN cookies
    fn make_cookie(&self, _: &mut HeaderBuffer, _: u8, _: u32) -> u64 {
        NO_COOKIE
    }
    fn proves_cookie(&self, _: &mut HeaderBuffer, _: u8) -> bool {
        false
    }
    fn gateways(&self, _: u32) -> u32 {
        0
    }
    fn expectation(&self, _: &ExpectKey, _: &mut Expectation) -> bool {
        false
    }
    fn remove_expectation(&self, _: &ExpectKey, _: u64) {}
    fn expect(&self, _: &ExpectKey, _: &Expectation) {}
    fn datagram(&self, _: &FragmentKey, _: &mut Datagram) -> bool {
        false
    }
    fn set_datagram(&self, _: &FragmentKey, _: &Datagram) {}
    fn remove_datagram(&self, _: &FragmentKey) {}
    fn tcp_rules(&self, _: u32) -> u32 {
        0
    }
    fn tcp_mss(&self, _: u32) -> u32 {
        0
    }
}

/// A question has no time, and nothing is left to chance: of several addresses the first is named.
impl Clock for ReadOnly<'_> {
    fn now_ns(&self) -> u64 {
        0
    }
    fn random(&self) -> u32 {
        0
    }
    fn session_id(&self) -> u64 {
        0
    }
    fn precise_ns(&self) -> u64 {
        0
    }
    fn datagram_id(&self) -> u32 {
        0
    }
}
