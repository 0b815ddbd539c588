//! The pipeline's tables and clock over BPF maps and helpers: the one place that dereferences map values.

use aya_ebpf::{
    helpers::{
        bpf_get_prandom_u32, bpf_get_smp_processor_id, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns,
        generated::{
            bpf_loop, bpf_tcp_raw_check_syncookie_ipv4, bpf_tcp_raw_check_syncookie_ipv6,
            bpf_tcp_raw_gen_syncookie_ipv4, bpf_tcp_raw_gen_syncookie_ipv6,
        },
    },
    maps::{HashMap, LruHashMap},
};
use bulkhead_abi::{
    AddressClass, AnyVectors, Datagram, Decision, DecisionKey, Event, ExpectKey, Expectation, Flow, FlowKey4,
    FlowKey6, FragmentKey, HostKey4, HostKey6, Interface, LimitKey, LimitRule, LimitRuleKey, Live, Mapping,
    MappingKey, NatPool, NatRule, NatRuleKey, NeighbourKey, PermitKey, PolicyKey, PolicyRule, PoolKey,
    RateState, RouteEntry, ScanState, ScreenCount, ScreenKey, ScreenProfile, SessionCount, Tally, TimeoutKey,
    VectorKey, ZoneKey, flow_generation,
};
use bulkhead_packet::{ETHERNET_BYTES, HeaderBuffer, LEAD_BYTES, Repeat};
use bulkhead_pipeline::{
    Clock, HAND_OVER_RATE, Insert, Limiter, NO_COOKIE, Table, Tables, begin_second, take_token,
};
use core::{ffi::c_void, ptr, sync::atomic::AtomicU64};

use crate::maps;

/// `BPF_NOEXIST` and `BPF_EXIST` (include/uapi/linux/bpf.h).
const BPF_NOEXIST: u64 = 1;
const BPF_EXIST: u64 = 2;
/// `BPF_RB_NO_WAKEUP`: readers poll; waking them would cost every new session an interrupt.
const BPF_RB_NO_WAKEUP: u64 = 1;
/// `EEXIST`.
const EEXIST: i32 = 17;

/// Word of the header buffer at which layer 3 begins.
const L3_WORD: usize = (LEAD_BYTES + ETHERNET_BYTES) / 4;

/// The running kernel.
pub struct Kernel;

/// The IPv4 key as two stores; see [`FlowKey4`] for why. The target is little-endian.
#[inline(always)]
fn key4(key: &FlowKey6) -> FlowKey4 {
    let addresses = u64::from(key.source_be[0]) | u64::from(key.destination_be[0]) << 32;
    let ports = u64::from(key.source_port) | u64::from(key.destination_port) << 16;
    zerocopy::transmute!([addresses, ports | u64::from(key.protocol) << 32])
}

#[inline(always)]
fn flow_ptr(table: Table, family: u8, key: &FlowKey6) -> Option<*mut Flow> {
    match (table, family) {
        (Table::Established, 4) => maps::FLOWS4.get_ptr_mut(&key4(key)),
        (Table::Established, _) => maps::FLOWS6.get_ptr_mut(key),
        (Table::HalfOpen, 4) => maps::HALF_OPEN4.get_ptr_mut(&key4(key)),
        (Table::HalfOpen, _) => maps::HALF_OPEN6.get_ptr_mut(key),
    }
}

#[inline(always)]
fn inserted(result: Result<(), i32>) -> Insert {
    match result {
        Ok(()) => Insert::Done,
        Err(error) if error == -EEXIST => Insert::Exists,
        Err(_) => Insert::Full,
    }
}

impl Kernel {
    /// Adds to a counter. The sum over all CPUs is what counts, and wraps.
    #[inline(always)]
    pub fn add(&self, slot: u32, by: u64) {
        if let Some(counter) = maps::COUNTERS.get_ptr_mut(slot) {
            // SAFETY: a per-CPU entry; see `permitted`.
            unsafe { *counter = (*counter).wrapping_add(by) };
        }
    }
}

/// A copy of a value.
#[inline(always)]
fn copied<K, V: Copy>(map: &HashMap<K, V>, key: &K) -> Option<V> {
    // SAFETY: the pointer comes from a successful lookup, and the verifier keeps it valid until the program ends. Entries
    // of policy are written before their generation is live and never after. Interfaces, neighbours and routes do
    // change, and a removed entry's memory may be another's at once: a packet may then see a mix of two neighbours, until
    // the FIB epoch, raised after the change, makes its flow look again.
    map.get_ptr(key).map(|value| unsafe { *value })
}

/// The half of an address's class that belongs to a generation.
///
/// User space replaces entries, whose memory may be another address's at once: a packet that looked its address up and reads
/// the class after two system calls of another CPU may see that of another address. It was judged by the number before the
/// one that follows those changes, so what it let pass is asked about again at its next packet.
#[inline(always)]
fn class(entry: *const AddressClass, generation: u32) -> u32 {
    // SAFETY: as in `copied`; one aligned word of the entry.
    unsafe { (&raw const (*entry).class[(generation & 1) as usize]).read_volatile() }
}

#[inline(always)]
fn copied_lru<K, V: Copy>(map: &LruHashMap<K, V>, key: &K) -> Option<V> {
    // SAFETY: as in `copied`; the one value read this way is eight bytes with a tag (see `Decision`), so that an entry
    // recycled under the reader is recognised.
    map.get_ptr(key).map(|value| unsafe { *value })
}

impl Tables for Kernel {
    #[inline(always)]
    fn wired(&self) -> bool {
        // SAFETY: a constant of the object, set before it is loaded; volatile because the compiler believes its first value.
        unsafe { ptr::read_volatile(&raw const maps::WIRED) != 0 }
    }

    #[inline(always)]
    fn live(&self) -> Live {
        let Some(live) = maps::LIVE.get_ptr(0) else {
            return Live::default();
        };
        // SAFETY: the pointer comes from a successful lookup in an array, whose entries stay. The first eight bytes are
        // aligned and read as one word, as they are written: judgement and tables belong together.
        let (judged_by, fib_epoch) = unsafe {
            (
                live.cast::<u64>().read_volatile(),
                (&raw const (*live).fib_epoch).read_volatile(),
            )
        };
        Live {
            generation: judged_by as u32,
            tables: (judged_by >> 32) as u32,
            fib_epoch,
            reserved: 0,
        }
    }

    #[inline(always)]
    fn timeout_ns(&self, generation: u32, state: u8) -> u64 {
        match maps::SETTINGS.get(generation & 1) {
            Some(settings) => settings.timeouts_ns.get(usize::from(state)).copied().unwrap_or(0),
            None => 0,
        }
    }

    #[inline(always)]
    fn permitted(&self, generation: u32, limiter: Limiter, now_ns: u64) -> bool {
        let Some(settings) = maps::SETTINGS.get(generation & 1) else {
            return false;
        };
        let rate = match limiter {
            Limiter::SlowPath => settings.slow_path_rate,
            Limiter::DenyEvent | Limiter::ScreenEvent => settings.deny_event_rate,
            Limiter::HandOver => HAND_OVER_RATE,
        };
        match maps::LIMITERS.get_ptr_mut(limiter as u32) {
            // SAFETY: a per-CPU entry, and the reference lives for this call only. All programs of this object run with bottom
            // halves disabled, so none interrupts another; one runs inside another only where that calls
            // `bpf_clone_redirect`, which no code does while it holds such a reference (see `crate::scratch`).
            Some(state) => take_token(unsafe { &mut *state }, rate, now_ns),
            None => false,
        }
    }

    #[inline(always)]
    fn zone(&self, generation: u32, ifindex: u32) -> Option<u8> {
        copied(&maps::ZONES, &ZoneKey { generation, ifindex }).map(|zone| zone as u8)
    }

    #[inline(always)]
    fn interface(&self, ifindex: u32, to: &mut Interface) -> bool {
        match copied(&maps::INTERFACES, &ifindex) {
            Some(interface) => {
                *to = interface;
                true
            }
            None => false,
        }
    }

    #[inline(always)]
    fn address_class(&self, generation: u32, family: u8, address_be: &[u32; 4]) -> u32 {
        let host = if family == 4 {
            let address_be = address_be[0];
            maps::HOSTS4.get_ptr(&HostKey4 { address_be })
        } else {
            let address_be = *address_be;
            maps::HOSTS6.get_ptr(&HostKey6 { address_be })
        };
        if let Some(host) = host {
            return class(host, generation);
        }
        let prefix = if family == 4 {
            maps::PREFIXES4.get(&maps::trie_key(32, address_be[0]))
        } else {
            maps::PREFIXES6.get(&maps::trie_key(128, *address_be))
        };
        prefix.map_or(0, |prefix| class(prefix, generation))
    }

    #[inline(always)]
    fn service_class(&self, generation: u32, protocol: u8, port: u16) -> u32 {
        let [high, low] = port.to_be_bytes();
        let service = u32::from_ne_bytes([0, protocol, high, low]);
        maps::SERVICES
            .get(&maps::trie_key(64, [generation, service]))
            .copied()
            .unwrap_or(0)
    }

    #[inline(always)]
    fn vector(&self, key: &VectorKey) -> u64 {
        copied(&maps::VECTORS, key).unwrap_or_else(absent)
    }

    #[inline(always)]
    fn any_vectors(&self, key: &VectorKey, to: &mut AnyVectors) {
        match maps::ANY_VECTORS.get_ptr(key) {
            // SAFETY: as in `copied`.
            Some(found) => *to = unsafe { *found },
            None => to.words = [absent(); 5],
        }
    }

    #[inline(always)]
    fn rule(&self, generation: u32, rule: u32, hit: bool) -> Option<PolicyRule> {
        let found = maps::RULES.get_ptr_mut(&PolicyKey { generation, rule })?;
        if hit {
            // SAFETY: valid as in `copied`; the addition is atomic, since every CPU counts here.
            unsafe { atomic_increment(&raw mut (*found).hits) };
        }
        // SAFETY: as in `copied`; apart from `hits` the value never changes.
        Some(unsafe { *found })
    }

    #[inline(always)]
    fn cached_decision(&self, key: &DecisionKey) -> Option<Decision> {
        copied_lru(&maps::DECISIONS, key)
    }

    #[inline(always)]
    fn cache_decision(&self, key: &DecisionKey, decision: Decision) {
        // A decision that is not remembered is made again.
        let _remembered = maps::DECISIONS.insert(key, decision, 0);
    }

    #[inline(always)]
    fn with_flow<R>(
        &self,
        table: Table,
        family: u8,
        key: &FlowKey6,
        f: impl FnOnce(&mut Flow) -> R,
    ) -> Option<R> {
        // SAFETY: the pointer comes from a successful lookup, the closure touches no other map and the reference does not
        // leave it. Other CPUs may write the same fields, which the language calls a race and the machine a plain store:
        // `Flow` says which exist and what their worst outcome is, a recycled entry's included.
        flow_ptr(table, family, key).map(|flow| f(unsafe { &mut *flow }))
    }

    #[inline(always)]
    fn insert_flow(&self, table: Table, family: u8, key: &FlowKey6, flow: &Flow) -> Insert {
        match (table, family) {
            (Table::Established, 4) => inserted(maps::FLOWS4.insert(&key4(key), flow, BPF_NOEXIST)),
            (Table::Established, _) => inserted(maps::FLOWS6.insert(key, flow, BPF_NOEXIST)),
            (Table::HalfOpen, 4) => inserted(maps::HALF_OPEN4.insert(&key4(key), flow, BPF_NOEXIST)),
            (Table::HalfOpen, _) => inserted(maps::HALF_OPEN6.insert(key, flow, BPF_NOEXIST)),
        }
    }

    #[inline(always)]
    fn remove_flow(&self, table: Table, family: u8, key: &FlowKey6) {
        // Absent is as good as removed.
        let _removed = match (table, family) {
            (Table::Established, 4) => maps::FLOWS4.remove(&key4(key)),
            (Table::Established, _) => maps::FLOWS6.remove(key),
            (Table::HalfOpen, 4) => maps::HALF_OPEN4.remove(&key4(key)),
            (Table::HalfOpen, _) => maps::HALF_OPEN6.remove(key),
        };
    }

    #[inline(always)]
    fn route(&self, family: u8, address_be: &[u32; 4], to: &mut RouteEntry) -> bool {
        let found = if family == 4 {
            maps::ROUTES4.get(&maps::trie_key(32, address_be[0]))
        } else {
            maps::ROUTES6.get(&maps::trie_key(128, *address_be))
        };
        match found {
            Some(entry) => {
                *to = *entry;
                true
            }
            None => false,
        }
    }

    #[inline(always)]
    fn neighbour(&self, key: &NeighbourKey) -> Option<u64> {
        copied(&maps::NEIGHBOURS, key)
    }

    #[inline(always)]
    fn tcp_rules(&self, generation: u32) -> u32 {
        maps::SETTINGS
            .get(generation & 1)
            .map_or(0, |settings| settings.tcp_rules)
    }

    #[inline(always)]
    fn tcp_mss(&self, generation: u32) -> u32 {
        maps::SETTINGS
            .get(generation & 1)
            .map_or(bulkhead_abi::Settings::MSS_KEEP, |settings| settings.tcp_mss)
    }

    #[inline(always)]
    fn gateways(&self, generation: u32) -> u32 {
        maps::SETTINGS
            .get(generation & 1)
            .map_or(0, |settings| settings.gateways)
    }

    #[inline(always)]
    fn expectation(&self, key: &ExpectKey, to: &mut Expectation) -> bool {
        match maps::EXPECTED.get_ptr(key) {
            Some(found) => {
                // SAFETY: the pointer comes from a successful lookup and is read before any other map is touched. An entry
                // recycled in this instant is another announcement, of which each word is one that was made.
                *to = unsafe { *found };
                true
            }
            None => false,
        }
    }

    #[inline(always)]
    fn remove_expectation(&self, key: &ExpectKey, created_ns: u64) {
        // SAFETY: the pointer comes from a successful lookup and is read before any other map is touched.
        let created = |found: *const Expectation| unsafe { (*found).created_ns };
        let found = maps::EXPECTED.get_ptr(key).map_or_else(absent, created);
        // Who announces anew in this very instant loses it: the client asks again.
        if found == created_ns {
            // Absent is as good as removed.
            let _removed = maps::EXPECTED.remove(key);
        }
    }

    #[inline(always)]
    fn datagram(&self, key: &FragmentKey, to: &mut Datagram) -> bool {
        match maps::FRAGMENTS.get_ptr(key) {
            Some(found) => {
                // SAFETY: the pointer comes from a successful lookup. Entries are replaced as a whole, and one that is evicted
                // meanwhile may be another datagram's: `bulkhead_pipeline`'s module on fragments says what comes of it.
                *to = unsafe { *found };
                true
            }
            None => false,
        }
    }

    #[inline(always)]
    fn expect(&self, key: &ExpectKey, expectation: &Expectation) {
        // Without room the conversation needs a policy of its own.
        let _inserted = maps::EXPECTED.insert(key, expectation, 0);
    }

    #[inline(always)]
    fn set_datagram(&self, key: &FragmentKey, datagram: &Datagram) {
        // An entry that is not written is one evicted at once.
        let _written = maps::FRAGMENTS.insert(key, datagram, 0);
    }

    #[inline(always)]
    fn remove_datagram(&self, key: &FragmentKey) {
        // Absent is as good as removed.
        let _removed = maps::FRAGMENTS.remove(key);
    }

    #[inline(always)]
    fn count(&self, slot: u32) {
        self.add(slot, 1);
    }

    #[inline(always)]
    fn emit(&self, event: &Event) {
        if maps::EVENTS.output::<Event>(event, BPF_RB_NO_WAKEUP).is_err() {
            self.count(bulkhead_abi::Reason::SLOT_EVENTS_LOST);
        }
    }

    // Ageing and limits.

    #[inline(always)]
    fn swap_generation(
        &self,
        table: Table,
        family: u8,
        key: &FlowKey6,
        session_id: u64,
        expected: u32,
        new: u32,
    ) -> Option<u32> {
        let flow = flow_ptr(table, family, key)?;
        // SAFETY: as in `with_flow`.
        if unsafe { (*flow).session_id } != session_id {
            return None;
        }
        // SAFETY: an aligned field of a live map value. An entry recycled since the line above, some ten nanoseconds ago,
        // may hold a session whose generation is `expected` too: one that ageing meant to mark is then marked, which its
        // next packet undoes; one that entered under the generation before a switch may be taken for judged by the new.
        Some(unsafe { compare_exchange(&raw mut (*flow).generation, expected, new) })
    }

    #[inline(always)]
    fn end_flow(&self, table: Table, family: u8, key: &FlowKey6, session_id: u64) -> Option<bool> {
        let flow = flow_ptr(table, family, key)?;
        // SAFETY: as in `with_flow`.
        if unsafe { (*flow).session_id } != session_id {
            return None;
        }
        // SAFETY: an aligned field of a live map value. An entry recycled since the line above would be another session's,
        // dead and never removed: user space finds and buries such flows.
        let before = unsafe { exchange(&raw mut (*flow).generation, flow_generation::DEAD) };
        Some(before != flow_generation::DEAD)
    }

    #[inline(always)]
    fn service_timeout_s(&self, generation: u32, service: u32) -> u32 {
        copied(&maps::SERVICE_TIMEOUTS, &TimeoutKey { generation, service }).unwrap_or(0)
    }

    #[inline(always)]
    fn limit_rule(&self, generation: u32, zone: u8) -> LimitRule {
        let zone = u32::from(zone);
        copied(&maps::LIMIT_RULES, &LimitRuleKey { generation, zone }).unwrap_or_default()
    }

    #[inline(always)]
    fn count_session(&self, key: &LimitKey, by: i64) -> i64 {
        if maps::LIMITS.get_ptr(key).is_none() {
            let nothing = SessionCount::default();
            // Another CPU may be faster; then its entry is as good.
            let _made = maps::LIMITS.insert(key, &nothing, BPF_NOEXIST);
        }
        match maps::LIMITS.get_ptr_mut(key) {
            // SAFETY: aligned words of a live map value, only ever added to. An entry recycled in between is another
            // address's, whose count is then wrong by one until user space corrects it.
            Some(count) => unsafe {
                if by < 0 {
                    atomic_increment(&raw mut (*count).returned);
                }
                (fetch_add(&raw mut (*count).sessions, by as u64) as i64).wrapping_add(by)
            },
            None => 0,
        }
    }

    #[inline(always)]
    fn tally(&self, tally: Tally) {
        if let Some(tally) = maps::TALLIES.get_ptr_mut(tally as u32) {
            // SAFETY: a per-CPU entry; see `permitted`.
            unsafe { *tally += 1 };
        }
    }

    #[inline(always)]
    fn screens(&self, generation: u32, zone: u8, to: &mut ScreenProfile) -> bool {
        match maps::SCREENS.get(ScreenProfile::index(generation, zone)) {
            Some(profile) if profile.enabled != 0 => {
                *to = *profile;
                true
            }
            _ => false,
        }
    }

    #[inline(always)]
    fn count_screen(&self, zone: u8, screen: u32, dropped: bool) {
        if let Some(count) = maps::SCREEN_COUNTS.get_ptr_mut(ScreenCount::index(zone, screen)) {
            // SAFETY: a per-CPU entry; see `permitted`.
            let count = unsafe { &mut *count };
            if dropped {
                count.dropped += 1;
            } else {
                count.alarmed += 1;
            }
        }
    }

    #[inline(always)]
    fn rate(&self, key: &ScreenKey, now_ns: u64, packets: u32, attack: u32, attack_until_ns: u64) -> u64 {
        let (packets, attack) = (u64::from(packets), u64::from(attack));
        let Some(state) = maps::SCREEN_RATES.get_ptr_mut(key) else {
            let until_ns = if packets > attack { attack_until_ns } else { 0 };
            let state = RateState {
                began_ns: now_ns,
                packets,
                until_ns,
            };
            // Another CPU may have been faster: then these packets are not counted.
            let _begun = maps::SCREEN_RATES.insert(key, state, BPF_NOEXIST);
            return packets;
        };
        // SAFETY: valid as in `with_flow`. Other CPUs write it too: `RateState` says what that may cost, and why the count
        // is added to atomically.
        unsafe {
            begin_second(&mut *state, now_ns);
            atomic_add(&raw mut (*state).packets, packets);
            let counted = (&raw const (*state).packets).read_volatile();
            if counted > attack {
                (*state).until_ns = attack_until_ns;
            }
            counted
        }
    }

    #[inline(always)]
    fn rate_state(&self, key: &ScreenKey) -> Option<RateState> {
        // SAFETY: as in `rate`; each field is a single load.
        maps::SCREEN_RATES.get_ptr(key).map(|state| unsafe { *state })
    }

    #[inline(always)]
    fn with_scan<R>(
        &self,
        key: &ScreenKey,
        fresh: &ScanState,
        f: impl FnOnce(&mut ScanState) -> R,
    ) -> Option<R> {
        if maps::SCREEN_SCANS.get_ptr(key).is_none() {
            // Another CPU may have been faster: then its entry is as fresh.
            let _begun = maps::SCREEN_SCANS.insert(key, fresh, BPF_NOEXIST);
        }
        // SAFETY: as in `with_flow`; `ScanState` says what other CPUs may do.
        maps::SCREEN_SCANS
            .get_ptr_mut(key)
            .map(|state| f(unsafe { &mut *state }))
    }
    // SYN cookies

    #[inline(always)]
    fn make_cookie(&self, headers: &mut HeaderBuffer, family: u8, tcp_bytes: u32) -> u64 {
        let Some(tcp_bytes) = between(tcp_bytes as usize, 20, 60) else {
            return NO_COOKIE;
        };
        // SAFETY: the layer 3 header begins at the buffer's word L3_WORD, the TCP header right behind its 5 or 10 words,
        // and the buffer holds 60 bytes from there on.
        let made = unsafe {
            let l3 = headers.words.as_mut_ptr().add(L3_WORD);
            if family == 4 {
                bpf_tcp_raw_gen_syncookie_ipv4(l3.cast(), l3.add(5).cast(), tcp_bytes as u32)
            } else {
                bpf_tcp_raw_gen_syncookie_ipv6(l3.cast(), l3.add(10).cast(), tcp_bytes as u32)
            }
        };
        if made < 0 { NO_COOKIE } else { made as u64 }
    }

    #[inline(always)]
    fn proves_cookie(&self, headers: &mut HeaderBuffer, family: u8) -> bool {
        // SAFETY: as above.
        unsafe {
            let l3 = headers.words.as_mut_ptr().add(L3_WORD);
            if family == 4 {
                bpf_tcp_raw_check_syncookie_ipv4(l3.cast(), l3.add(5).cast()) == 0
            } else {
                bpf_tcp_raw_check_syncookie_ipv6(l3.cast(), l3.add(10).cast()) == 0
            }
        }
    }

    #[inline(always)]
    fn nat_flags(&self, generation: u32) -> u64 {
        match maps::SETTINGS.get(generation & 1) {
            Some(settings) => settings.nat,
            None => 0,
        }
    }

    #[inline(always)]
    fn nat_rule(&self, key: &NatRuleKey, hit: bool, to: &mut NatRule) -> bool {
        let Some(found) = maps::NAT_RULES.get_ptr_mut(key) else {
            return false;
        };
        if hit {
            // SAFETY: as in `rule`.
            unsafe { atomic_increment(&raw mut (*found).hits) };
        }
        // SAFETY: as in `rule`. Copied without a stop on the stack, as are the values below.
        unsafe { ptr::copy_nonoverlapping(found, to, 1) };
        true
    }

    #[inline(always)]
    fn pool(&self, key: &PoolKey, to: &mut NatPool) -> bool {
        let Some(found) = maps::POOLS.get_ptr(key) else {
            return false;
        };
        // SAFETY: as in `copied`, an entry of policy.
        unsafe { ptr::copy_nonoverlapping(found, to, 1) };
        true
    }

    #[inline(always)]
    fn nat_address(&self, generation: u32, family: u8, address_be: &[u32; 4]) -> u64 {
        let a = address_be;
        let zones = if family == 4 {
            maps::NAT_ADDRESSES4.get(&maps::trie_key(64, [generation, a[0]]))
        } else {
            maps::NAT_ADDRESSES6.get(&maps::trie_key(160, [generation, a[0], a[1], a[2], a[3]]))
        };
        zones.copied().unwrap_or(0)
    }

    #[inline(always)]
    fn mapping_end(&self, inside: &MappingKey, to: &mut MappingKey) -> bool {
        let Some(found) = maps::MAPPINGS_INSIDE.get_ptr(inside) else {
            return false;
        };
        // SAFETY: the pointer comes from a successful lookup. The entry is never written again; if it is removed and
        // recycled while it is copied, the mapping it leads to does not name this inside end.
        unsafe { ptr::copy_nonoverlapping(found, to, 1) };
        true
    }

    #[inline(always)]
    fn mapping(&self, outside: &MappingKey, to: &mut Mapping) -> bool {
        let Some(found) = maps::MAPPINGS_OUTSIDE.get_ptr(outside) else {
            return false;
        };
        // SAFETY: the pointer comes from a successful lookup. `Mapping` says who may write it meanwhile, and that readers
        // compare its ends with those they asked for.
        unsafe { ptr::copy_nonoverlapping(found, to, 1) };
        true
    }

    #[inline(always)]
    fn insert_mapping_end(&self, inside: &MappingKey, outside: &MappingKey) -> Insert {
        inserted(maps::MAPPINGS_INSIDE.insert(inside, outside, BPF_NOEXIST))
    }

    #[inline(always)]
    fn insert_mapping(&self, outside: &MappingKey, mapping: &Mapping) -> Insert {
        inserted(maps::MAPPINGS_OUTSIDE.insert(outside, mapping, BPF_NOEXIST))
    }

    #[inline(always)]
    fn replace_mapping(&self, outside: &MappingKey, mapping: &Mapping) {
        // One that was removed meanwhile stays so.
        let _replaced = maps::MAPPINGS_OUTSIDE.insert(outside, mapping, BPF_EXIST);
    }

    #[inline(always)]
    fn use_mapping(&self, outside: &MappingKey, now_ns: u64) {
        if let Some(mapping) = maps::MAPPINGS_OUTSIDE.get_ptr_mut(outside) {
            // SAFETY: the pointer comes from a successful lookup; one aligned eight-byte store. If the entry is another's by
            // now, that one lives longer than it need.
            unsafe { (&raw mut (*mapping).last_used_ns).write_volatile(now_ns) };
        }
    }

    #[inline(always)]
    fn remove_mapping_end(&self, inside: &MappingKey) {
        // Absent is as good as removed, here and below.
        let _removed = maps::MAPPINGS_INSIDE.remove(inside);
    }

    #[inline(always)]
    fn remove_mapping(&self, outside: &MappingKey) {
        let _removed = maps::MAPPINGS_OUTSIDE.remove(outside);
    }

    #[inline(always)]
    fn permit(&self, key: &PermitKey, now_ns: u64) {
        // What cannot be noted is refused later.
        let _noted = maps::NAT_PERMITS.insert(key, now_ns, 0);
    }

    #[inline(always)]
    fn is_permitted(&self, key: &PermitKey) -> bool {
        maps::NAT_PERMITS.get_ptr(key).is_some()
    }
}

impl Repeat for Kernel {
    #[inline(always)]
    fn repeat(&self, times: u32, mut f: impl FnMut(u32) -> bool) {
        extern "C" fn step<F: FnMut(u32) -> bool>(index: u32, state: *mut c_void) -> i64 {
            // SAFETY: `state` is the closure below, which outlives the loop; bpf_loop calls from this thread only.
            let f = unsafe { &mut *state.cast::<F>() };
            i64::from(f(index))
        }
        fn of<F: FnMut(u32) -> bool>(_: &F) -> extern "C" fn(u32, *mut c_void) -> i64 {
            step::<F>
        }
        let callback = of(&f) as *mut c_void;
        // SAFETY: the callback has bpf_loop's signature (kernel/bpf/bpf_iter.c, bpf_loop) and gets its own state back.
        unsafe { bpf_loop(times, callback, ptr::from_mut(&mut f).cast(), 0) };
    }
}

/// An atomic addition (`BPF_ATOMIC | BPF_ADD`). The target has the instruction but no compare-and-swap, so the standard
/// library offers no `fetch_add` for it.
///
/// # Safety
/// `counter` must point to an aligned `u64` inside a live map value.
#[inline(always)]
unsafe fn atomic_add(counter: *mut u64, by: u64) {
    // SAFETY: one instruction on memory the caller vouches for.
    unsafe { core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) by) };
}

/// An atomic addition of one.
///
/// # Safety
/// As for [`atomic_add`].
#[inline(always)]
unsafe fn atomic_increment(counter: *mut u64) {
    // SAFETY: the caller vouches for it.
    unsafe { atomic_add(counter, 1) };
}

/// An atomic addition that tells what was there before (`BPF_ATOMIC | BPF_ADD | BPF_FETCH`).
///
/// # Safety
/// `number` must point to an aligned `u64` inside a live map value.
#[inline(always)]
unsafe fn fetch_add(number: *mut u64, by: u64) -> u64 {
    let mut value = by;
    // SAFETY: one instruction on memory the caller vouches for.
    unsafe {
        core::arch::asm!("{1} = atomic_fetch_add((u64 *)({0} + 0), {1})", in(reg) number, inout(reg) value);
    }
    value
}

/// An atomic exchange (`BPF_ATOMIC | BPF_XCHG`); what was there before.
///
/// # Safety
/// `number` must point to an aligned `u32` inside a live map value.
#[inline(always)]
unsafe fn exchange(number: *mut u32, new: u32) -> u32 {
    let mut value = u64::from(new);
    // SAFETY: one instruction on memory the caller vouches for. Its register is named because half of one has no name here.
    unsafe {
        core::arch::asm!("w2 = xchg32_32({0} + 0, w2)", in(reg) number, inout("r2") value);
    }
    value as u32
}

/// An atomic compare-and-exchange (`BPF_ATOMIC | BPF_CMPXCHG`, kernel 5.12); what was there before.
///
/// # Safety
/// `number` must point to an aligned `u32` inside a live map value.
#[inline(always)]
unsafe fn compare_exchange(number: *mut u32, expected: u32, new: u32) -> u32 {
    let mut value = u64::from(expected);
    // SAFETY: one instruction on memory the caller vouches for. It compares with register 0, always.
    unsafe {
        core::arch::asm!(
            "w0 = cmpxchg32_32({0} + 0, w0, w2)",
            in(reg) number, inout("r0") value, in("r2") u64::from(new),
        );
    }
    value as u32
}

/// The number before an atomic addition of one (`BPF_ATOMIC | BPF_ADD | BPF_FETCH`, kernel 5.12). See [`atomic_increment`].
///
/// # Safety
/// As for [`atomic_increment`].
#[inline(always)]
unsafe fn atomic_next(counter: *mut u64) -> u64 {
    let mut number = 1u64;
    // SAFETY: one instruction on memory the caller vouches for.
    unsafe {
        core::arch::asm!("{0} = atomic_fetch_add((u64 *)({1} + 0), {0})", inout(reg) number, in(reg) counter)
    };
    number
}

/// Zero, but the verifier does not know: with a constant it would follow every combination of present and absent
/// vectors on its own (2^10 of them) instead of finding that they all lead to "some number".
static ABSENT: AtomicU64 = AtomicU64::new(0);

#[inline(always)]
fn absent() -> u64 {
    // SAFETY: a word of this object's .bss, which nothing ever writes. Volatile, because the compiler knows that too.
    unsafe { ABSENT.as_ptr().read_volatile() }
}

/// What packets that the XDP program has screened carry, but for the interface. A random number that user space sets before
/// the object is loaded: metadata may travel with a packet from anywhere on this machine.
#[unsafe(no_mangle)]
static SCREENED_MARK: u32 = 0;

/// What a packet screened on this interface carries as metadata.
#[inline(always)]
pub fn screened_mark(ifindex: u32) -> u32 {
    // SAFETY: a word of this object's .rodata. Volatile, because the compiler believes that it is zero.
    unsafe { (&raw const SCREENED_MARK).read_volatile() ^ ifindex }
}

/// The same number, of which the compiler knows nothing any more: checks behind it stay where they stand, on the very
/// register the verifier will look at.
#[inline(always)]
pub fn opaque(number: usize) -> usize {
    let mut number = number;
    // SAFETY: a register moved to itself. Without any instruction the line information would name one address twice,
    // which the kernel refuses.
    unsafe {
        core::arch::asm!("{0} = {0}", inout(reg) number, options(pure, nomem, nostack, preserves_flags))
    };
    number
}

/// `number` if it lies in the range, in a way that the verifier of every kernel follows: two comparisons of the very
/// register that is used. The compiler would make one of them, of a difference, from which Linux before 6.13 learns nothing
/// about the number; and it would compare with zero for equality, from which Linux before 6.8 learns nothing either.
#[inline(always)]
pub fn between(number: usize, least: usize, most: usize) -> Option<usize> {
    let number = opaque(number);
    if number < opaque(least) {
        return None;
    }
    let number = opaque(number);
    if number > most {
        return None;
    }
    Some(opaque(number))
}

impl Clock for Kernel {
    #[inline(always)]
    fn now_ns(&self) -> u64 {
        // SAFETY: no arguments, no preconditions.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn precise_ns(&self) -> u64 {
        // SAFETY: no arguments, no preconditions.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: no arguments, no preconditions.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn session_id(&self) -> u64 {
        // SAFETY: no arguments, no preconditions.
        let cpu = u64::from(unsafe { bpf_get_smp_processor_id() });
        match maps::SESSION_IDS.get_ptr_mut(0) {
            Some(last) => {
                // SAFETY: a per-CPU entry; see `permitted`.
                let next = unsafe { *last + 1 };
                // SAFETY: as above.
                unsafe { *last = next };
                cpu << 48 | next
            }
            None => 0,
        }
    }

    #[inline(always)]
    fn datagram_id(&self) -> u32 {
        match maps::DATAGRAM_IDS.get_ptr_mut(0) {
            // SAFETY: an aligned word of a map value that lives as long as the object; every CPU adds to it.
            Some(last) => unsafe { atomic_next(last) as u32 },
            None => 0,
        }
    }
}
