//! What the pipeline needs from the world: a frame, tables, a clock.

use bulkhead_abi::{
    AnyVectors, Datagram, Decision, DecisionKey, Event, ExpectKey, Expectation, Flow, FlowKey6, FragmentKey,
    FrameKind, Interface, LimitKey, LimitRule, Live, Mapping, MappingKey, NatPool, NatRule, NatRuleKey,
    NeighbourKey, PermitKey, PolicyRule, PoolKey, RateState, RouteEntry, ScanState, ScreenKey, ScreenProfile,
    SlowPathKind, Tally, VectorKey,
};
use bulkhead_packet::{HeaderBuffer, Repeat, checksum};

/// A pending change of a layer 4 checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checksum {
    /// Offset of the checksum field; 0: there is none to change.
    pub at: usize,
    /// Change of the pseudo header (addresses), unfolded, memory order.
    pub pseudo: u32,
    /// Change of bytes the checksum covers itself (ports, identifiers, quoted headers).
    pub data: u32,
    /// A UDP checksum of zero means "none" and stays (RFC 768, RFC 6936); one that becomes zero is sent as all ones.
    pub udp: bool,
    /// The packet is IPv6: no header checksum balances the address change.
    pub ipv6: bool,
    /// Change of bytes that no checksum in the packet balances (the IPv6 hop limit), for hooks that keep a sum of
    /// the whole packet as the hardware computed it.
    pub unbalanced: u32,
}

/// No SYN cookie could be made.
pub const NO_COOKIE: u64 = u64::MAX;

/// The packet as the hook holds it.
pub trait Frame {
    /// Length of the whole frame, bytes.
    fn bytes(&self) -> u32;

    /// Payload bytes of one segment if the frame is an aggregate the kernel will segment, else 0.
    fn gso_segment_bytes(&self) -> u32;

    /// Stores the first `end` bytes of the buffer back over the frame and changes the layer 4 checksum. False: nothing may be sent.
    fn write_back(&mut self, headers: &mut HeaderBuffer, end: usize, checksum: &Checksum) -> bool;

    /// Completes the checksum field at `at` if it holds only `pseudo` (folded), the sum of the pseudo header, where the
    /// hook would lose the mark that says so (XDP). The layer 4 packet is `l4_bytes` long from `l4` on. True if the
    /// frame may go on.
    fn complete_checksum(
        &mut self,
        headers: &mut HeaderBuffer,
        l4: usize,
        l4_bytes: u32,
        at: usize,
        pseudo: u16,
    ) -> bool;

    /// Makes the frame the first `end` bytes of the buffer, longer or shorter than it was: a TCP header without payload, or a
    /// short ICMP message.
    /// The buffer's checksum field at `at` is right; `pseudo` (folded) is what belongs there instead where the hook
    /// leaves the rest of the sum to others. False: nothing may be sent.
    fn replace(&mut self, headers: &mut HeaderBuffer, end: usize, at: usize, pseudo: u16) -> bool;

    /// Sends the frame as it stands out of an interface and keeps it. False if the copy was lost.
    fn send_copy(&mut self, ifindex: u32) -> bool;
    /// Whether this firewall's XDP program has screened the packet on this interface already (TCX).
    fn screened(&self, ifindex: u32) -> bool;

    /// Notes on the packet, for the TCX program of this interface, that it was screened (XDP). False: there is no place.
    fn mark_screened(&mut self, ifindex: u32) -> bool;

    /// Hands the packet as it arrived to the slow path. False if it was lost.
    fn ask_slow_path(&mut self, kind: SlowPathKind, ifindex: u32, mtu: u32) -> bool;

    /// Hands the whole frame as it is now to user space. False if it was lost: too large, no room, or a hook that cannot.
    fn hand_over(&mut self, kind: FrameKind, ifindex: u32, argument: u32) -> bool;
}

/// Which session table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Sessions both sides have spoken in. Never evicts.
    Established,
    /// Half-open and one-way sessions. Evicts the least recently used.
    HalfOpen,
}

/// Outcome of an insertion that must not overwrite.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Insert {
    /// Inserted.
    Done,
    /// The key was there already.
    Exists,
    /// The table is full.
    Full,
}

/// Which rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Limiter {
    /// Requests to the slow path.
    SlowPath = 0,
    /// Denial events.
    DenyEvent = 1,
    /// Frames handed to user space; see [`HAND_OVER_RATE`].
    HandOver = 2,
    /// Events of screens, as many per second as denial events.
    ScreenEvent = 3,
}

/// Frames that user space is given per second and CPU. Not configurable: what it does with them is bounded in memory,
/// and at this rate in time.
pub const HAND_OVER_RATE: u32 = 10_000;

/// The maps. Lookups that return numbers return 0 (or class 0) for what is absent.
///
/// Values of session tables are only reachable inside a closure: what is needed is copied out before another map is
/// touched, because the kernel may recycle the entry (hash nodes are reused without a grace period).
///
/// `generation` is what the keys of configuration tables carry: [`crate::Work::tables`].
pub trait Tables: Repeat {
    /// Whether the interfaces are spliced in pairs instead of routing. A constant of the loaded programs: what it excludes
    /// costs nothing.
    fn wired(&self) -> bool;
    /// The live record.
    fn live(&self) -> Live;
    /// Idle timeout of a `SessionState`, given by number; ns.
    fn timeout_ns(&self, generation: u32, state: u8) -> u64;
    /// Takes one token of a per-CPU rate limit; false: over the limit.
    fn permitted(&self, generation: u32, limiter: Limiter, now_ns: u64) -> bool;
    /// Zone of an interface.
    fn zone(&self, generation: u32, ifindex: u32) -> Option<u8>;
    /// Facts of an interface; false if unknown.
    fn interface(&self, ifindex: u32, to: &mut Interface) -> bool;
    /// Class of an address: the exact host if listed, else the longest prefix, else 0.
    fn address_class(&self, generation: u32, family: u8, address_be: &[u32; 4]) -> u32;
    /// Class of a protocol and port.
    fn service_class(&self, generation: u32, protocol: u8, port: u16) -> u32;
    /// One word of a rule vector.
    fn vector(&self, key: &VectorKey) -> u64;
    /// The words of the rules that accept everything, by dimension.
    fn any_vectors(&self, key: &VectorKey, to: &mut AnyVectors);
    /// A rule; counts a hit if `hit`.
    fn rule(&self, generation: u32, rule: u32, hit: bool) -> Option<PolicyRule>;
    /// A remembered decision.
    fn cached_decision(&self, key: &DecisionKey) -> Option<Decision>;
    /// Remembers a decision; may fail without consequence.
    fn cache_decision(&self, key: &DecisionKey, decision: Decision);
    /// Runs `f` on a flow, if there is one.
    fn with_flow<R>(
        &self,
        table: Table,
        family: u8,
        key: &FlowKey6,
        f: impl FnOnce(&mut Flow) -> R,
    ) -> Option<R>;
    /// Inserts a flow under a key that must be free.
    fn insert_flow(&self, table: Table, family: u8, key: &FlowKey6, flow: &Flow) -> Insert;
    /// Removes a flow.
    fn remove_flow(&self, table: Table, family: u8, key: &FlowKey6);
    /// Longest-prefix route; false if none.
    fn route(&self, family: u8, address_be: &[u32; 4], to: &mut RouteEntry) -> bool;
    /// MAC of a neighbour, first byte lowest.
    fn neighbour(&self, key: &NeighbourKey) -> Option<u64>;
    // TCP.
    /// The rules for TCP in force (`abi::tcp_rules`).
    fn tcp_rules(&self, generation: u32) -> u32;
    /// [`bulkhead_abi::Settings::tcp_mss`] of a generation.
    fn tcp_mss(&self, generation: u32) -> u32;
    // Gateways.
    /// The gateways in use (`abi::gateways`).
    fn gateways(&self, generation: u32) -> u32;
    /// Copies an expectation; false if there is none.
    fn expectation(&self, key: &ExpectKey, to: &mut Expectation) -> bool;
    /// Forgets an expectation, if it is still the one that was made then.
    fn remove_expectation(&self, key: &ExpectKey, created_ns: u64);
    /// Makes a conversation expected, in place of an earlier one under the same key.
    fn expect(&self, key: &ExpectKey, expectation: &Expectation);
    // Fragments.
    /// Copies what is known of a datagram; false if nothing is.
    fn datagram(&self, key: &FragmentKey, to: &mut Datagram) -> bool;
    /// Remembers a datagram, in the place of what was known of it. May fail: then its other fragments wait in vain.
    fn set_datagram(&self, key: &FragmentKey, datagram: &Datagram);
    /// Forgets a datagram.
    fn remove_datagram(&self, key: &FragmentKey);
    /// Adds one to a counter.
    fn count(&self, slot: u32);
    /// Tells user space.
    fn emit(&self, event: &Event);

    // Ageing and limits.

    /// Makes the generation of a flow of this session `new` if it is `expected`, as one step for all CPUs. Returns what it
    /// was; `None`: there is no such flow.
    fn swap_generation(
        &self,
        table: Table,
        family: u8,
        key: &FlowKey6,
        session_id: u64,
        expected: u32,
        new: u32,
    ) -> Option<u32>;
    /// Makes the generation of a flow of this session `DEAD`, as one step for all CPUs. Returns whether it was anything
    /// else; `None`: there is no such flow.
    fn end_flow(&self, table: Table, family: u8, key: &FlowKey6, session_id: u64) -> Option<bool>;
    /// Timeout of a service class, s; 0: none of its own.
    fn service_timeout_s(&self, generation: u32, service: u32) -> u32;
    /// Limits of the sessions that come from a zone.
    fn limit_rule(&self, generation: u32, zone: u8) -> LimitRule;
    /// Adds to (1) or takes from (-1) the number of sessions of an address; the number afterwards. What cannot be counted
    /// is 0.
    fn count_session(&self, key: &LimitKey, by: i64) -> i64;
    /// Adds one to a tally.
    fn tally(&self, tally: Tally);
    // Screens.
    /// The screens of a zone; false (and nothing written) if it has none.
    fn screens(&self, generation: u32, zone: u8, to: &mut ScreenProfile) -> bool;
    /// Counts a packet that a zone's screen (by number) dropped, or raised the alarm about.
    fn count_screen(&self, zone: u8, screen: u32, dropped: bool);
    /// Counts packets of a rate; returns those of the running second, these included. If that is more than `attack`, the
    /// address counts as under attack until `attack_until_ns`.
    fn rate(&self, key: &ScreenKey, now_ns: u64, packets: u32, attack: u32, attack_until_ns: u64) -> u64;
    /// A rate as it stands.
    fn rate_state(&self, key: &ScreenKey) -> Option<RateState>;
    /// Runs `f` on a source's scan, which begins as `fresh` if there is none.
    fn with_scan<R>(
        &self,
        key: &ScreenKey,
        fresh: &ScanState,
        f: impl FnOnce(&mut ScanState) -> R,
    ) -> Option<R>;
    // SYN cookies
    /// The cookie for the SYN in `headers` (low half) and the segment size it remembers (above); [`NO_COOKIE`] if there
    /// is none. No IPv4 options, no extension headers; the TCP header has `tcp_bytes` bytes and says so itself.
    fn make_cookie(&self, headers: &mut HeaderBuffer, family: u8, tcp_bytes: u32) -> u64;
    /// Whether the acknowledgement in `headers` proves a cookie of the last two minutes.
    fn proves_cookie(&self, headers: &mut HeaderBuffer, family: u8) -> bool;

    // Address translation.

    /// What of it a generation has: `nat_flags`.
    fn nat_flags(&self, generation: u32) -> u64;
    /// Copies a NAT rule; false if there is none. Counts a hit if `hit`.
    fn nat_rule(&self, key: &NatRuleKey, hit: bool, to: &mut NatRule) -> bool;
    /// Copies a pool's addresses of a family; false if it has none.
    fn pool(&self, key: &PoolKey, to: &mut NatPool) -> bool;
    /// The zones (one bit each) in which translation owns the address.
    fn nat_address(&self, generation: u32, family: u8, address_be: &[u32; 4]) -> u64;
    /// Copies the outside end of the mapping with this inside end; false if there is none.
    fn mapping_end(&self, inside: &MappingKey, to: &mut MappingKey) -> bool;
    /// Copies the mapping with this outside end; false if there is none.
    fn mapping(&self, outside: &MappingKey, to: &mut Mapping) -> bool;
    /// Inserts the way from an inside end to an outside end, which must be free.
    fn insert_mapping_end(&self, inside: &MappingKey, outside: &MappingKey) -> Insert;
    /// Inserts a mapping under its outside end, which must be free.
    fn insert_mapping(&self, outside: &MappingKey, mapping: &Mapping) -> Insert;
    /// Writes a mapping over the one with its outside end, if there is one.
    fn replace_mapping(&self, outside: &MappingKey, mapping: &Mapping);
    /// Notes when a mapping was used.
    fn use_mapping(&self, outside: &MappingKey, now_ns: u64);
    /// Removes the way from an inside end.
    fn remove_mapping_end(&self, inside: &MappingKey);
    /// Removes the mapping with this outside end.
    fn remove_mapping(&self, outside: &MappingKey);
    /// Notes that a mapping's inside has sent to a remote end.
    fn permit(&self, key: &PermitKey, now_ns: u64);
    /// Whether it has.
    fn is_permitted(&self, key: &PermitKey) -> bool;
}

/// Time, chance and numbers.
pub trait Clock {
    /// Monotonic time, ns. Coarse (a few ms) is enough.
    fn now_ns(&self) -> u64;
    /// Monotonic time, ns, to the microsecond.
    fn precise_ns(&self) -> u64;
    /// A random number.
    fn random(&self) -> u32;
    /// A number no other session has.
    fn session_id(&self) -> u64;
    /// An identification for a datagram: each number once in a row of 2^32, whatever the CPU.
    fn datagram_id(&self) -> u32;
}

/// One second, ns.
pub(crate) const SECOND_NS: u64 = 1_000_000_000;

/// Begins another second of a rate if the last one is over. See [`RateState`] for what other CPUs may do meanwhile.
#[inline(always)]
pub fn begin_second(state: &mut RateState, now_ns: u64) {
    if now_ns.wrapping_sub(state.began_ns) >= SECOND_NS {
        state.packets = 0;
        state.began_ns = now_ns;
    }
}

/// A token bucket of one second's depth. `state` packs the time of the last refill (ms, high half) and the tokens
/// left (low half). Per CPU, so nobody else writes it.
#[inline(always)]
pub fn take_token(state: &mut u64, rate: u32, now_ns: u64) -> bool {
    let now_ms = (now_ns / 1_000_000) as u32;
    let elapsed_ms = now_ms.wrapping_sub((*state >> 32) as u32).min(1000);
    let refill = u64::from(elapsed_ms) * u64::from(rate) / 1000;
    let held = (*state & 0xffff_ffff).min(u64::from(rate));
    let tokens = (held + refill).min(u64::from(rate));
    // Time only moves on when it bought a token: else a slow trickle would never refill.
    let stamp = if refill > 0 || elapsed_ms == 1000 {
        u64::from(now_ms)
    } else {
        *state >> 32
    };
    if tokens == 0 {
        *state = stamp << 32;
        return false;
    }
    *state = stamp << 32 | (tokens - 1);
    true
}

/// Applies a pending change to the checksum field in the header buffer, for hooks whose packets carry finished
/// checksums. False: the field is not in the buffer.
#[inline(always)]
pub fn apply_checksum(headers: &mut HeaderBuffer, change: &Checksum) -> bool {
    let Some(field) = headers.be16(change.at) else {
        return false;
    };
    if change.udp && field == 0 {
        return true;
    }
    let sum = checksum::add(change.pseudo, change.data);
    let mut finished = checksum::apply(field.to_be(), sum);
    if change.udp && finished == 0 {
        finished = 0xffff;
    }
    headers.set_be16(change.at, u16::from_be(finished));
    true
}
