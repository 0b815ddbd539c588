//! The pipeline's world on a host: tables in memory, a clock set by hand, frames as bytes.
//!
//! Owns what host tests, fuzzing and `explain`-like tools need to run the pipeline without a kernel. Its maps have the
//! names and types of the kernel's, so the same `(key, value)` entries load both. Assumes one thread. Refuses, by
//! panicking, what would be wrong in the kernel: a map touched while a flow's entry is borrowed.
//!
//! Differs from the kernel in two ways a test can see: half-open tables evict exactly the least recently used entry,
//! and randomness is a fixed sequence (see [`HostTables::script_random`]).

extern crate std;

mod cookie;
mod firewall;
mod frame;
mod map;

pub use firewall::{HostFirewall, Outcome, ingress_elsewhere};
pub use frame::{Asked, Handed, Hook, HostFrame};
pub use map::{FlowTable, HostMap, HostTrie, TrieKey};

use std::{
    boxed::Box,
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};

use bulkhead_abi::{
    AddressClass, AnyVectors, Datagram, Decision, DecisionKey, Event, ExpectKey, Expectation, Flow, FlowKey6,
    FragmentKey, HostKey4, HostKey6, Interface, LimitKey, LimitRule, LimitRuleKey, Live, Mapping, MappingKey,
    NatAddressKey4, NatAddressKey6, NatPool, NatRule, NatRuleKey, NeighbourKey, PermitKey, PolicyKey,
    PolicyRule, PoolKey, PrefixKey4, PrefixKey6, RateState, Reason, Route4Key, Route6Key, RouteEntry,
    ScanState, ScreenCount, ScreenKey, ScreenProfile, ServiceKey, SessionCount, Settings, Tally, TimeoutKey,
    VectorKey, ZoneKey, flow_generation,
};
use bulkhead_packet::{HeaderBuffer, PlainLoop, Repeat};

use crate::{Clock, HAND_OVER_RATE, Insert, Limiter, NO_COOKIE, Table, Tables, begin_second, take_token};

/// Counters by name.
pub type Counters = BTreeMap<&'static str, u64>;

/// What another CPU does at a chosen moment.
type Interruption = Box<dyn FnOnce(&HostTables)>;

/// The tables of the kernel object, in memory. Fields are named as the kernel's maps.
#[derive(Default)]
pub struct HostTables {
    /// The live record.
    pub live: Cell<Live>,
    /// Settings by `generation & 1`.
    pub settings: HostMap<u32, Settings>,
    /// Established IPv4 flows.
    pub flows4: FlowTable,
    /// Established IPv6 flows.
    pub flows6: FlowTable,
    /// Half-open IPv4 flows.
    pub half_open4: FlowTable,
    /// Half-open IPv6 flows.
    pub half_open6: FlowTable,
    /// Interface to zone.
    pub zones: HostMap<ZoneKey, u32>,
    /// Exact IPv4 hosts.
    pub hosts4: HostMap<HostKey4, AddressClass>,
    /// Exact IPv6 hosts.
    pub hosts6: HostMap<HostKey6, AddressClass>,
    /// IPv4 prefixes.
    pub prefixes4: HostTrie<PrefixKey4, AddressClass>,
    /// IPv6 prefixes.
    pub prefixes6: HostTrie<PrefixKey6, AddressClass>,
    /// Services.
    pub services: HostTrie<ServiceKey, u32>,
    /// Words of rule vectors.
    pub vectors: HostMap<VectorKey, u64>,
    /// Words of the rules that accept everything.
    pub any_vectors: HostMap<VectorKey, AnyVectors>,
    /// Rules.
    pub rules: HostMap<PolicyKey, PolicyRule>,
    /// Remembered decisions.
    pub decisions: HostMap<DecisionKey, Decision>,
    /// NAT rules.
    pub nat_rules: HostMap<NatRuleKey, NatRule>,
    /// Pools.
    pub pools: HostMap<PoolKey, NatPool>,
    /// IPv4 addresses that translation owns.
    pub nat_addresses4: HostTrie<NatAddressKey4, u64>,
    /// IPv6 addresses that translation owns.
    pub nat_addresses6: HostTrie<NatAddressKey6, u64>,
    /// Inside ends of mappings.
    pub mapping_ends: HostMap<MappingKey, MappingKey>,
    /// Mappings by their outside ends.
    pub mappings: HostMap<MappingKey, Mapping>,
    /// Remote ends that insides have sent to.
    pub permits: HostMap<PermitKey, u64>,
    /// Expected conversations.
    pub expected: HostMap<ExpectKey, Expectation>,
    /// Interfaces.
    pub interfaces: HostMap<u32, Interface>,
    /// IPv4 routes.
    pub routes4: HostTrie<Route4Key, RouteEntry>,
    /// IPv6 routes.
    pub routes6: HostTrie<Route6Key, RouteEntry>,
    /// Neighbours.
    pub neighbours: HostMap<NeighbourKey, u64>,
    // Screens.
    /// Screen profiles, by index.
    pub screens: HostMap<u32, ScreenProfile>,
    /// What the screens saw, by index.
    pub screen_counts: HostMap<u32, ScreenCount>,
    /// Rates. Nothing is evicted.
    pub screen_rates: HostMap<ScreenKey, RateState>,
    /// Scans. Nothing is evicted.
    pub screen_scans: HostMap<ScreenKey, ScanState>,
    /// Datagrams in fragments.
    pub fragments: HostMap<FragmentKey, Datagram>,
    datagrams: Cell<u32>,
    now_ns: Cell<u64>,
    sessions: Cell<u64>,
    random: Cell<u64>,
    scripted: RefCell<VecDeque<u32>>,
    wired: Cell<bool>,
    limiters: [Cell<u64>; 4],
    counters: RefCell<BTreeMap<u32, u64>>,
    events: RefCell<Vec<Event>>,
    /// A flow's entry is borrowed.
    borrowed: Cell<bool>,
    interruption: RefCell<Option<(u32, Interruption)>>,
    /// Timeouts of services.
    pub service_timeouts: HostMap<TimeoutKey, u32>,
    /// Limits of sessions by zone.
    pub limit_rules: HostMap<LimitRuleKey, LimitRule>,
    /// Sessions by address.
    pub limits: HostMap<LimitKey, SessionCount>,
    tallies: [Cell<u64>; Tally::COUNT as usize],
    interrupted_swap: RefCell<Option<(u32, Interruption)>>,
    interrupted_look: RefCell<Option<(u32, Interruption)>>,
    interrupted_removal: RefCell<Option<(u32, Interruption)>>,
}

impl HostTables {
    /// Empty tables: `sessions` and `half_open` sessions per family fit. The clock stands at ten seconds.
    #[must_use]
    pub fn new(sessions: usize, half_open: usize) -> Self {
        Self {
            flows4: FlowTable::refusing(sessions * 2),
            flows6: FlowTable::refusing(sessions * 2),
            half_open4: FlowTable::evicting(half_open * 2),
            half_open6: FlowTable::evicting(half_open * 2),
            now_ns: Cell::new(10_000_000_000),
            random: Cell::new(0x9e37_79b9_7f4a_7c15),
            ..Self::default()
        }
    }

    /// Sets the clock.
    pub fn set_now_ns(&self, now_ns: u64) {
        self.now_ns.set(now_ns);
    }

    /// Splices the interfaces in pairs.
    pub fn set_wired(&self, wired: bool) {
        self.wired.set(wired);
    }

    /// Moves the clock on.
    pub fn advance_ns(&self, by_ns: u64) {
        self.now_ns.set(self.now_ns.get() + by_ns);
    }

    /// The next random numbers, before the fixed sequence goes on; those of an earlier script that nobody drew are
    /// forgotten.
    pub fn script_random(&self, numbers: impl IntoIterator<Item = u32>) {
        let mut scripted = self.scripted.borrow_mut();
        scripted.clear();
        scripted.extend(numbers);
    }

    /// Runs `f` right before the `insertion`th (from 0) insertion of a flow or of a mapping's inside end from now on:
    /// another CPU's turn.
    pub fn interrupt(&self, insertion: u32, f: impl FnOnce(&Self) + 'static) {
        *self.interruption.borrow_mut() = Some((insertion, Box::new(f)));
    }

    /// Runs `f` right before the `swap`th (from 0) change of a flow's generation from now on: another CPU's turn.
    pub fn interrupt_swap(&self, swap: u32, f: impl FnOnce(&Self) + 'static) {
        *self.interrupted_swap.borrow_mut() = Some((swap, Box::new(f)));
    }

    /// Runs `f` right before the `look`th (from 0) look at a flow from now on: another CPU's turn.
    pub fn interrupt_look(&self, look: u32, f: impl FnOnce(&Self) + 'static) {
        *self.interrupted_look.borrow_mut() = Some((look, Box::new(f)));
    }

    /// Runs `f` right before the `removal`th (from 0) removal of a flow from now on: another CPU's turn.
    pub fn interrupt_removal(&self, removal: u32, f: impl FnOnce(&Self) + 'static) {
        *self.interrupted_removal.borrow_mut() = Some((removal, Box::new(f)));
    }

    /// Whether an interruption of any kind is still waiting for its moment.
    #[must_use]
    pub fn interruption_pending(&self) -> bool {
        [&self.interruption, &self.interrupted_swap, &self.interrupted_look]
            .iter()
            .any(|waiting| waiting.borrow().is_some())
    }

    fn another_turn(&self, waiting: &RefCell<Option<(u32, Interruption)>>) {
        let turn = waiting.take();
        match turn {
            Some((0, f)) => f(self),
            Some((later, f)) => *waiting.borrow_mut() = Some((later - 1, f)),
            None => {}
        }
    }

    /// A tally.
    #[must_use]
    pub fn tallied(&self, tally: Tally) -> u64 {
        self.tallies[tally as usize].get()
    }

    /// All counters that are not zero.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
            .borrow()
            .iter()
            .map(|(slot, count)| (counter_name(*slot), *count))
            .collect()
    }

    /// Events emitted since the last call.
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        self.events.take()
    }

    /// The table of a family.
    #[must_use]
    pub fn flows(&self, table: Table, family: u8) -> &FlowTable {
        match (table, family) {
            (Table::Established, 4) => &self.flows4,
            (Table::Established, _) => &self.flows6,
            (Table::HalfOpen, 4) => &self.half_open4,
            (Table::HalfOpen, _) => &self.half_open6,
        }
    }

    /// Runs `f` on a flow, and sees to it that nothing else is touched meanwhile.
    fn borrow_flow<R>(
        &self,
        table: Table,
        family: u8,
        key: &FlowKey6,
        f: impl FnOnce(&mut Flow) -> R,
    ) -> Option<R> {
        self.flows(table, family).with(key, |flow| {
            self.borrowed.set(true);
            let result = f(flow);
            self.borrowed.set(false);
            result
        })
    }

    /// What the kernel's verifier cannot check and `Tables` asks for.
    fn alone(&self) {
        assert!(
            !self.borrowed.get(),
            "a table was touched while a flow's entry was borrowed"
        );
    }
}

/// Name of a counter slot.
fn counter_name(slot: u32) -> &'static str {
    let reason = u8::try_from(slot)
        .ok()
        .and_then(Reason::from_number)
        .map(Reason::name);
    let extra = || {
        Reason::EXTRA
            .iter()
            .find(|(number, _)| *number == slot)
            .map(|(_, name)| *name)
    };
    reason.or_else(extra).unwrap_or("unnamed")
}

/// Every counter by its name, 0 where the slot is absent: for slots as user space reads them from the kernel.
#[must_use]
pub fn named_counters(slots: &[u64]) -> Counters {
    let named = slots.iter().enumerate().filter(|(_, count)| **count != 0);
    named
        .map(|(slot, count)| (counter_name(slot as u32), *count))
        .collect()
}

impl Repeat for HostTables {
    fn repeat(&self, times: u32, f: impl FnMut(u32) -> bool) {
        PlainLoop.repeat(times, f);
    }
}

impl Clock for HostTables {
    fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }

    fn precise_ns(&self) -> u64 {
        self.now_ns.get()
    }

    fn random(&self) -> u32 {
        if let Some(number) = self.scripted.borrow_mut().pop_front() {
            return number;
        }
        // xorshift64 (Marsaglia 2003): never zero from a seed that is not.
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (x >> 32) as u32
    }

    fn session_id(&self) -> u64 {
        self.sessions.set(self.sessions.get() + 1);
        self.sessions.get()
    }

    fn datagram_id(&self) -> u32 {
        let number = self.datagrams.get();
        self.datagrams.set(number.wrapping_add(1));
        number
    }
}

impl Tables for HostTables {
    fn wired(&self) -> bool {
        self.wired.get()
    }

    fn live(&self) -> Live {
        self.alone();
        self.live.get()
    }

    fn timeout_ns(&self, generation: u32, state: u8) -> u64 {
        self.alone();
        let settings = self.settings.get(&(generation & 1)).unwrap_or_default();
        settings.timeouts_ns.get(usize::from(state)).copied().unwrap_or(0)
    }

    fn permitted(&self, generation: u32, limiter: Limiter, now_ns: u64) -> bool {
        self.alone();
        let settings = self.settings.get(&(generation & 1)).unwrap_or_default();
        let rate = match limiter {
            Limiter::SlowPath => settings.slow_path_rate,
            Limiter::DenyEvent | Limiter::ScreenEvent => settings.deny_event_rate,
            Limiter::HandOver => HAND_OVER_RATE,
        };
        let limiter = &self.limiters[limiter as usize];
        let mut state = limiter.get();
        let permitted = take_token(&mut state, rate, now_ns);
        limiter.set(state);
        permitted
    }

    fn zone(&self, generation: u32, ifindex: u32) -> Option<u8> {
        self.alone();
        self.zones
            .get(&ZoneKey { generation, ifindex })
            .map(|zone| zone as u8)
    }

    fn interface(&self, ifindex: u32, to: &mut Interface) -> bool {
        self.alone();
        self.interfaces
            .get(&ifindex)
            .inspect(|interface| *to = *interface)
            .is_some()
    }

    fn address_class(&self, generation: u32, family: u8, address_be: &[u32; 4]) -> u32 {
        self.alone();
        let class = if family == 4 {
            let address_be = address_be[0];
            self.hosts4.get(&HostKey4 { address_be }).or_else(|| {
                let key = PrefixKey4 { bits: 32, address_be };
                self.prefixes4.longest(&key)
            })
        } else {
            let address_be = *address_be;
            self.hosts6.get(&HostKey6 { address_be }).or_else(|| {
                let key = PrefixKey6 {
                    bits: 128,
                    address_be,
                };
                self.prefixes6.longest(&key)
            })
        };
        class.map_or(0, |class| class.of(generation))
    }

    fn service_class(&self, generation: u32, protocol: u8, port: u16) -> u32 {
        self.alone();
        let key = ServiceKey {
            bits: 64,
            generation,
            reserved: 0,
            protocol,
            port_be: port.to_be(),
        };
        self.services.longest(&key).unwrap_or(0)
    }

    fn vector(&self, key: &VectorKey) -> u64 {
        self.alone();
        self.vectors.get(key).unwrap_or(0)
    }

    fn any_vectors(&self, key: &VectorKey, to: &mut AnyVectors) {
        self.alone();
        *to = self.any_vectors.get(key).unwrap_or_default();
    }

    fn rule(&self, generation: u32, rule: u32, hit: bool) -> Option<PolicyRule> {
        self.alone();
        self.rules.update(&PolicyKey { generation, rule }, |found| {
            found.hits += u64::from(hit);
            *found
        })
    }

    fn cached_decision(&self, key: &DecisionKey) -> Option<Decision> {
        self.alone();
        self.decisions.get(key)
    }

    fn cache_decision(&self, key: &DecisionKey, decision: Decision) {
        self.alone();
        self.decisions.set(key, &decision);
    }

    fn with_flow<R>(
        &self,
        table: Table,
        family: u8,
        key: &FlowKey6,
        f: impl FnOnce(&mut Flow) -> R,
    ) -> Option<R> {
        self.alone();
        self.another_turn(&self.interrupted_look);
        self.borrow_flow(table, family, key, f)
    }

    fn insert_flow(&self, table: Table, family: u8, key: &FlowKey6, flow: &Flow) -> Insert {
        self.alone();
        self.another_turn(&self.interruption);
        self.flows(table, family).insert(key, flow)
    }

    fn remove_flow(&self, table: Table, family: u8, key: &FlowKey6) {
        self.alone();
        self.another_turn(&self.interrupted_removal);
        self.flows(table, family).remove(key);
    }

    fn route(&self, family: u8, address_be: &[u32; 4], to: &mut RouteEntry) -> bool {
        self.alone();
        let found = if family == 4 {
            self.routes4.longest(&Route4Key {
                bits: 32,
                address_be: address_be[0],
            })
        } else {
            self.routes6.longest(&Route6Key {
                bits: 128,
                address_be: *address_be,
            })
        };
        found.inspect(|entry| *to = *entry).is_some()
    }

    fn neighbour(&self, key: &NeighbourKey) -> Option<u64> {
        self.alone();
        self.neighbours.get(key)
    }

    fn tcp_rules(&self, generation: u32) -> u32 {
        self.alone();
        self.settings.get(&(generation & 1)).unwrap_or_default().tcp_rules
    }

    fn tcp_mss(&self, generation: u32) -> u32 {
        self.alone();
        self.settings.get(&(generation & 1)).unwrap_or_default().tcp_mss
    }

    fn gateways(&self, generation: u32) -> u32 {
        self.alone();
        self.settings.get(&(generation & 1)).unwrap_or_default().gateways
    }

    fn expectation(&self, key: &ExpectKey, to: &mut Expectation) -> bool {
        self.alone();
        let found = self.expected.get(key);
        found.inspect(|expectation| *to = *expectation).is_some()
    }

    fn remove_expectation(&self, key: &ExpectKey, created_ns: u64) {
        self.alone();
        if self
            .expected
            .get(key)
            .is_some_and(|found| found.created_ns == created_ns)
        {
            self.expected.remove(key);
        }
    }

    fn expect(&self, key: &ExpectKey, expectation: &Expectation) {
        self.alone();
        self.expected.set(key, expectation);
    }

    fn datagram(&self, key: &FragmentKey, to: &mut Datagram) -> bool {
        self.alone();
        self.fragments.get(key).inspect(|found| *to = *found).is_some()
    }

    fn set_datagram(&self, key: &FragmentKey, datagram: &Datagram) {
        self.alone();
        self.fragments.set(key, datagram);
    }

    fn remove_datagram(&self, key: &FragmentKey) {
        self.alone();
        self.fragments.remove(key);
    }

    fn count(&self, slot: u32) {
        self.alone();
        *self.counters.borrow_mut().entry(slot).or_insert(0) += 1;
    }

    fn emit(&self, event: &Event) {
        self.alone();
        self.events.borrow_mut().push(*event);
    }

    fn swap_generation(
        &self,
        table: Table,
        family: u8,
        key: &FlowKey6,
        session_id: u64,
        expected: u32,
        new: u32,
    ) -> Option<u32> {
        self.alone();
        self.another_turn(&self.interrupted_swap);
        self.borrow_flow(table, family, key, |flow| {
            (flow.session_id == session_id).then(|| {
                let found = flow.generation;
                if found == expected {
                    flow.generation = new;
                }
                found
            })
        })
        .flatten()
    }

    fn end_flow(&self, table: Table, family: u8, key: &FlowKey6, session_id: u64) -> Option<bool> {
        self.alone();
        self.another_turn(&self.interrupted_swap);
        self.borrow_flow(table, family, key, |flow| {
            (flow.session_id == session_id).then(|| {
                let alive = flow.generation != flow_generation::DEAD;
                flow.generation = flow_generation::DEAD;
                alive
            })
        })
        .flatten()
    }

    fn service_timeout_s(&self, generation: u32, service: u32) -> u32 {
        self.alone();
        self.service_timeouts
            .get(&TimeoutKey { generation, service })
            .unwrap_or(0)
    }

    fn limit_rule(&self, generation: u32, zone: u8) -> LimitRule {
        self.alone();
        let zone = u32::from(zone);
        self.limit_rules
            .get(&LimitRuleKey { generation, zone })
            .unwrap_or_default()
    }

    fn count_session(&self, key: &LimitKey, by: i64) -> i64 {
        self.alone();
        let mut count = self.limits.get(key).unwrap_or_default();
        count.sessions = count.sessions.wrapping_add_signed(by);
        count.returned += u64::from(by < 0);
        self.limits.set(key, &count);
        count.sessions as i64
    }

    fn tally(&self, tally: Tally) {
        self.alone();
        let tally = &self.tallies[tally as usize];
        tally.set(tally.get() + 1);
    }

    fn screens(&self, generation: u32, zone: u8, to: &mut ScreenProfile) -> bool {
        self.alone();
        let profile = self.screens.get(&ScreenProfile::index(generation, zone));
        let profile = profile.filter(|profile| profile.enabled != 0);
        profile.inspect(|profile| *to = *profile).is_some()
    }

    fn count_screen(&self, zone: u8, screen: u32, dropped: bool) {
        self.alone();
        let index = ScreenCount::index(zone, screen);
        let mut count = self.screen_counts.get(&index).unwrap_or_default();
        if dropped {
            count.dropped += 1;
        } else {
            count.alarmed += 1;
        }
        self.screen_counts.set(&index, &count);
    }

    fn rate(&self, key: &ScreenKey, now_ns: u64, packets: u32, attack: u32, attack_until_ns: u64) -> u64 {
        self.alone();
        let mut state = self.screen_rates.get(key).unwrap_or(RateState {
            began_ns: now_ns,
            ..RateState::default()
        });
        begin_second(&mut state, now_ns);
        state.packets += u64::from(packets);
        if state.packets > u64::from(attack) {
            state.until_ns = attack_until_ns;
        }
        self.screen_rates.set(key, &state);
        state.packets
    }

    fn rate_state(&self, key: &ScreenKey) -> Option<RateState> {
        self.alone();
        self.screen_rates.get(key)
    }

    fn with_scan<R>(
        &self,
        key: &ScreenKey,
        fresh: &ScanState,
        f: impl FnOnce(&mut ScanState) -> R,
    ) -> Option<R> {
        self.alone();
        if self.screen_scans.get(key).is_none() {
            self.screen_scans.set(key, fresh);
        }
        self.screen_scans.update(key, f)
    }

    fn make_cookie(&self, headers: &mut HeaderBuffer, family: u8, tcp_bytes: u32) -> u64 {
        cookie::make(headers, family, tcp_bytes, self.now_ns.get()).unwrap_or(NO_COOKIE)
    }

    fn proves_cookie(&self, headers: &mut HeaderBuffer, family: u8) -> bool {
        cookie::proves(headers, family, self.now_ns.get()).unwrap_or(false)
    }

    fn nat_flags(&self, generation: u32) -> u64 {
        self.alone();
        self.settings.get(&(generation & 1)).unwrap_or_default().nat
    }

    fn nat_rule(&self, key: &NatRuleKey, hit: bool, to: &mut NatRule) -> bool {
        self.alone();
        let found = self.nat_rules.update(key, |found| {
            found.hits += u64::from(hit);
            *found
        });
        found.inspect(|rule| *to = *rule).is_some()
    }

    fn pool(&self, key: &PoolKey, to: &mut NatPool) -> bool {
        self.alone();
        self.pools.get(key).inspect(|pool| *to = *pool).is_some()
    }

    fn nat_address(&self, generation: u32, family: u8, address_be: &[u32; 4]) -> u64 {
        self.alone();
        let zones = if family == 4 {
            self.nat_addresses4.longest(&NatAddressKey4 {
                bits: 64,
                generation,
                address_be: address_be[0],
            })
        } else {
            self.nat_addresses6.longest(&NatAddressKey6 {
                bits: 160,
                generation,
                address_be: *address_be,
            })
        };
        zones.unwrap_or(0)
    }

    fn mapping_end(&self, inside: &MappingKey, to: &mut MappingKey) -> bool {
        self.alone();
        self.mapping_ends
            .get(inside)
            .inspect(|outside| *to = *outside)
            .is_some()
    }

    fn mapping(&self, outside: &MappingKey, to: &mut Mapping) -> bool {
        self.alone();
        self.mappings
            .get(outside)
            .inspect(|mapping| *to = *mapping)
            .is_some()
    }

    fn insert_mapping_end(&self, inside: &MappingKey, outside: &MappingKey) -> Insert {
        self.alone();
        self.another_turn(&self.interruption);
        self.mapping_ends.insert(inside, outside)
    }

    fn insert_mapping(&self, outside: &MappingKey, mapping: &Mapping) -> Insert {
        self.alone();
        self.mappings.insert(outside, mapping)
    }

    fn replace_mapping(&self, outside: &MappingKey, mapping: &Mapping) {
        self.alone();
        self.mappings.update(outside, |found| *found = *mapping);
    }

    fn use_mapping(&self, outside: &MappingKey, now_ns: u64) {
        self.alone();
        self.mappings.update(outside, |found| found.last_used_ns = now_ns);
    }

    fn remove_mapping_end(&self, inside: &MappingKey) {
        self.alone();
        self.mapping_ends.remove(inside);
    }

    fn remove_mapping(&self, outside: &MappingKey) {
        self.alone();
        self.mappings.remove(outside);
    }

    fn permit(&self, key: &PermitKey, now_ns: u64) {
        self.alone();
        self.permits.set(key, &now_ns);
    }

    fn is_permitted(&self, key: &PermitKey) -> bool {
        self.alone();
        self.permits.get(key).is_some()
    }
}
