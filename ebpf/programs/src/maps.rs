//! Map definitions. Sizes here are the smallest sensible ones; user space sets the configured ones before loading.
//!
//! Session tables of established sessions allocate as they grow: a table sized for a million sessions costs nothing
//! until they come. Half-open tables evict, hence are preallocated, hence small.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf, lpm_trie::Key},
};
use bulkhead_abi::{
    AddressClass, AnyVectors, Datagram, Decision, DecisionKey, ExpectKey, Expectation, FRAGMENT_ENTRIES,
    Flow, FlowKey4, FlowKey6, FragmentKey, HostKey4, HostKey6, Interface, LimitKey, LimitRule, LimitRuleKey,
    Live, Mapping, MappingKey, NatPool, NatRule, NatRuleKey, NeighbourKey, PermitKey, PolicyKey, PolicyRule,
    PoolKey, RateState, Reason, RouteEntry, ScanState, ScreenCount, ScreenKey, ScreenProfile, SessionCount,
    Settings, Tally, TimeoutKey, VectorKey, ZoneKey,
};
use bulkhead_pipeline::Work;

/// Allocate entries as they come.
const NO_PREALLOC: u32 = 1;

/// 1: interfaces are spliced in pairs. User space sets it before loading; the verifier knows its value and leaves out what
/// it excludes.
#[unsafe(no_mangle)]
pub static WIRED: u32 = 0;

/// The live record.
#[map]
pub static LIVE: Array<Live> = Array::with_max_entries(1, 0);
/// Settings of the two youngest generations.
#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(2, 0);

/// Established IPv4 flows.
#[map]
pub static FLOWS4: HashMap<FlowKey4, Flow> = HashMap::with_max_entries(1024, NO_PREALLOC);
/// Established IPv6 flows.
#[map]
pub static FLOWS6: HashMap<FlowKey6, Flow> = HashMap::with_max_entries(1024, NO_PREALLOC);
/// Half-open IPv4 flows.
#[map]
pub static HALF_OPEN4: LruHashMap<FlowKey4, Flow> = LruHashMap::with_max_entries(1024, 0);
/// Half-open IPv6 flows.
#[map]
pub static HALF_OPEN6: LruHashMap<FlowKey6, Flow> = LruHashMap::with_max_entries(1024, 0);

/// Interface to zone, by generation.
#[map]
pub static ZONES: HashMap<ZoneKey, u32> = HashMap::with_max_entries(64, NO_PREALLOC);
/// Exact IPv4 hosts to address class.
#[map]
pub static HOSTS4: HashMap<HostKey4, AddressClass> = HashMap::with_max_entries(1024, NO_PREALLOC);
/// Exact IPv6 hosts to address class.
#[map]
pub static HOSTS6: HashMap<HostKey6, AddressClass> = HashMap::with_max_entries(1024, NO_PREALLOC);
/// IPv4 prefixes to address class.
#[map]
pub static PREFIXES4: LpmTrie<u32, AddressClass> = LpmTrie::with_max_entries(1024, NO_PREALLOC);
/// IPv6 prefixes to address class.
#[map]
pub static PREFIXES6: LpmTrie<[u32; 4], AddressClass> = LpmTrie::with_max_entries(1024, NO_PREALLOC);
/// Protocol and port prefixes to service class; the trie's data is generation, zero, protocol, port.
#[map]
pub static SERVICES: LpmTrie<[u32; 2], u32> = LpmTrie::with_max_entries(1024, NO_PREALLOC);
/// Words of rule vectors, by generation.
#[map]
pub static VECTORS: HashMap<VectorKey, u64> = HashMap::with_max_entries(1024, NO_PREALLOC);
/// Words of the rules that accept everything, by generation.
#[map]
pub static ANY_VECTORS: HashMap<VectorKey, AnyVectors> = HashMap::with_max_entries(1024, NO_PREALLOC);
/// Rules, by generation.
#[map]
pub static RULES: HashMap<PolicyKey, PolicyRule> = HashMap::with_max_entries(1024, NO_PREALLOC);
/// Remembered decisions.
#[map]
pub static DECISIONS: LruHashMap<DecisionKey, Decision> = LruHashMap::with_max_entries(1024, 0);

/// Facts of interfaces.
#[map]
pub static INTERFACES: HashMap<u32, Interface> = HashMap::with_max_entries(64, NO_PREALLOC);
/// IPv4 routes.
#[map]
pub static ROUTES4: LpmTrie<u32, RouteEntry> = LpmTrie::with_max_entries(1024, NO_PREALLOC);
/// IPv6 routes.
#[map]
pub static ROUTES6: LpmTrie<[u32; 4], RouteEntry> = LpmTrie::with_max_entries(1024, NO_PREALLOC);
/// Neighbours.
#[map]
pub static NEIGHBOURS: HashMap<NeighbourKey, u64> = HashMap::with_max_entries(1024, NO_PREALLOC);

// Gateways.

/// Conversations that others announced.
#[map]
pub static EXPECTED: LruHashMap<ExpectKey, Expectation> = LruHashMap::with_max_entries(4096, 0);

/// Counters, by [`Reason`] and slot.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::SLOTS, 0);
/// Token buckets, by limiter.
#[map]
pub static LIMITERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(4, 0);
/// Numbers for new sessions.
#[map]
pub static SESSION_IDS: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);
/// What a program needs per packet, one entry per program: an XDP and a TCX program never share one packet's run, but
/// the control program runs whenever user space asks.
#[map]
pub static SCRATCH: PerCpuArray<Work> = PerCpuArray::with_max_entries(4, 0);
/// Bytes being summed.
#[map]
pub static SUM_CHUNK: PerCpuArray<[u8; crate::xdp::CHUNK]> = PerCpuArray::with_max_entries(1, 0);

/// The programs of the stages, by `bulkhead_pipeline::Stage`.
#[map]
pub static STAGES: ProgramArray = ProgramArray::with_max_entries(8, 0);

/// Session and denial events.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
/// Requests to the slow path.
#[map]
pub static SLOW_PATH: RingBuf = RingBuf::with_byte_size(1 << 18, 0);

// Frames put back and fragments.
/// Whole frames for user space: a hundred large ones or five hundred small ones.
#[map]
pub static FRAMES: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
// Ageing and limits.

/// Timeouts of services, by generation, s.
#[map]
pub static SERVICE_TIMEOUTS: HashMap<TimeoutKey, u32> = HashMap::with_max_entries(1024, NO_PREALLOC);
/// Limits of sessions, by zone and generation.
#[map]
pub static LIMIT_RULES: HashMap<LimitRuleKey, LimitRule> = HashMap::with_max_entries(512, NO_PREALLOC);
/// Sessions by address, where a zone limits them. Evicts: forged sources must not fill it for the others, and user space
/// puts back what was forgotten of those that have many.
#[map]
pub static LIMITS: LruHashMap<LimitKey, SessionCount> = LruHashMap::with_max_entries(1024, 0);
/// Sessions created and ended, by [`Tally`].
#[map]
pub static TALLIES: PerCpuArray<u64> = PerCpuArray::with_max_entries(Tally::COUNT, 0);
// Screens.

/// Screen profiles of two generations, by `ScreenProfile::index`.
#[map]
pub static SCREENS: Array<ScreenProfile> = Array::with_max_entries(ScreenProfile::ENTRIES, 0);
/// What the screens saw, by `ScreenCount::index`.
#[map]
pub static SCREEN_COUNTS: PerCpuArray<ScreenCount> = PerCpuArray::with_max_entries(ScreenCount::ENTRIES, 0);
/// Rates by screen, zone and address.
#[map]
pub static SCREEN_RATES: LruHashMap<ScreenKey, RateState> = LruHashMap::with_max_entries(1024, 0);
/// Scans by screen, zone and source.
#[map]
pub static SCREEN_SCANS: LruHashMap<ScreenKey, ScanState> = LruHashMap::with_max_entries(1024, 0);

// Address translation.

/// NAT rules by rule set, by generation.
#[map]
pub static NAT_RULES: HashMap<NatRuleKey, NatRule> = HashMap::with_max_entries(1024, NO_PREALLOC);
/// Pools by number and family, by generation.
#[map]
pub static POOLS: HashMap<PoolKey, NatPool> = HashMap::with_max_entries(1024, NO_PREALLOC);
/// IPv4 prefixes that translation owns to the zones in which; the trie's data is generation and address.
#[map]
pub static NAT_ADDRESSES4: LpmTrie<[u32; 2], u64> = LpmTrie::with_max_entries(1024, NO_PREALLOC);
/// IPv6 prefixes that translation owns.
#[map]
pub static NAT_ADDRESSES6: LpmTrie<[u32; 5], u64> = LpmTrie::with_max_entries(1024, NO_PREALLOC);
/// Inside ends of persistent mappings to their outside ends.
#[map]
pub static MAPPINGS_INSIDE: HashMap<MappingKey, MappingKey> = HashMap::with_max_entries(1024, NO_PREALLOC);
/// Persistent mappings by their outside ends.
#[map]
pub static MAPPINGS_OUTSIDE: HashMap<MappingKey, Mapping> = HashMap::with_max_entries(1024, NO_PREALLOC);
/// Remote ends that the insides of mappings have sent to, and when. Evicts: a remote end that is forgotten must be sent to
/// again before it may send.
#[map]
pub static NAT_PERMITS: LruHashMap<PermitKey, u64> = LruHashMap::with_max_entries(1024, 0);
/// Datagrams in fragments.
#[map]
pub static FRAGMENTS: LruHashMap<FragmentKey, Datagram> = LruHashMap::with_max_entries(FRAGMENT_ENTRIES, 0);
/// The last identification given to a datagram.
#[map]
pub static DATAGRAM_IDS: Array<u64> = Array::with_max_entries(1, 0);

/// The marks this load was given, for the load after it: `INJECT_MARK` in the low half, `SCREENED_MARK` above. No program
/// reads it.
#[map]
pub static MARKS: Array<u64> = Array::with_max_entries(1, 0);

/// Key of a trie.
#[inline(always)]
pub fn trie_key<T>(bits: u32, data: T) -> Key<T> {
    Key::new(bits, data)
}
