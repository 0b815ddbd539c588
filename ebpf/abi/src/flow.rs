//! Flows: the two entries of a session, one per direction, each found by the packet as it arrives.
//!
//! An established packet touches its own direction's entry and no other. The partner is found by turning the
//! translated tuple round. See `Flow::partner4` and `Flow::partner6`.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// IP protocol numbers the pipeline knows by name (IANA).
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP (RFC 4340).
    pub const DCCP: u8 = 33;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP (RFC 9260).
    pub const SCTP: u8 = 132;
    /// UDP-Lite (RFC 3828).
    pub const UDP_LITE: u8 = 136;

    /// Whether source and destination port are the first four bytes of the header.
    #[must_use]
    #[inline(always)]
    pub const fn has_ports(protocol: u8) -> bool {
        matches!(protocol, TCP | UDP | DCCP | SCTP | UDP_LITE)
    }

    /// Whether a port, or the identifier of an ICMP query, may be translated. SCTP's checksum is a CRC over the whole packet,
    /// which no part of it can be changed in.
    #[must_use]
    #[inline(always)]
    pub const fn port_may_change(protocol: u8) -> bool {
        matches!(protocol, TCP | UDP | DCCP | UDP_LITE | ICMP | ICMPV6)
    }
}

/// Key of an IPv4 flow: the packet's tuple as it arrives, before translation.
///
/// Aligned so that it can be stored as two eight-byte words: the kernel hashes it in four-byte words and compares it in
/// eight-byte ones right after it was written, and a load waits for every smaller store it covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct FlowKey4 {
    /// Source address, network order.
    pub source_be: u32,
    /// Destination address, network order.
    pub destination_be: u32,
    /// Source port; for ICMP queries the identifier in both ports; 0 for protocols without ports.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// IP protocol in the low byte; above it the packet's context, 0 in routed mode (see [`Flow::context`]).
    pub protocol: u32,
}

/// Key of an IPv6 flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowKey6 {
    /// Source address, network order.
    pub source_be: [u32; 4],
    /// Destination address, network order.
    pub destination_be: [u32; 4],
    /// Source port, as in [`FlowKey4`].
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// IP protocol and context, as in [`FlowKey4`].
    pub protocol: u32,
}

/// Where a session stands. Stored as a byte in both its flows; indexes [`crate::Settings::timeouts_ns`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum SessionState {
    /// TCP: a SYN was seen, nothing came back.
    TcpSynSent = 0,
    /// TCP: the SYN was answered by a SYN+ACK.
    TcpSynReceived = 1,
    /// TCP: handshake complete.
    TcpEstablished = 2,
    /// TCP: one side has sent FIN; the other may go on for as long as it likes.
    TcpClosing = 3,
    /// TCP: a valid reset.
    TcpClosed = 4,
    /// UDP: only the first side has sent.
    UdpOneWay = 5,
    /// UDP: both sides have sent.
    UdpTwoWay = 6,
    /// ICMP query, answered or not.
    Icmp = 7,
    /// Any other protocol.
    Other = 8,
    /// TCP: both sides have sent a SYN, none has acknowledged the other's (RFC 9293, 3.5: simultaneous open).
    TcpSynCrossed = 9,
    /// TCP: both sides have sent FIN.
    TcpLastAck = 10,
    /// TCP: both FINs are acknowledged.
    TcpTimeWait = 11,
    /// TCP: picked up in mid-stream, the other side was not seen yet.
    TcpMidstream = 12,
    /// DCCP: both sides have sent. Its handshake and farewell are not followed; before, it is [`Self::Other`].
    Dccp = 13,
}

/// Number of [`SessionState`]s, hence of timeouts.
pub const TIMEOUTS: usize = 14;

impl SessionState {
    /// All states in the order of their numbers.
    pub const ALL: [Self; TIMEOUTS] = [
        Self::TcpSynSent,
        Self::TcpSynReceived,
        Self::TcpEstablished,
        Self::TcpClosing,
        Self::TcpClosed,
        Self::UdpOneWay,
        Self::UdpTwoWay,
        Self::Icmp,
        Self::Other,
        Self::TcpSynCrossed,
        Self::TcpLastAck,
        Self::TcpTimeWait,
        Self::TcpMidstream,
        Self::Dccp,
    ];

    /// The state with this number.
    #[must_use]
    #[inline(always)]
    pub const fn from_number(number: u8) -> Option<Self> {
        // A match, not a look into `ALL`: the BPF programs use this, and a table would be a map of its own to them.
        match number {
            0 => Some(Self::TcpSynSent),
            1 => Some(Self::TcpSynReceived),
            2 => Some(Self::TcpEstablished),
            3 => Some(Self::TcpClosing),
            4 => Some(Self::TcpClosed),
            5 => Some(Self::UdpOneWay),
            6 => Some(Self::UdpTwoWay),
            7 => Some(Self::Icmp),
            8 => Some(Self::Other),
            9 => Some(Self::TcpSynCrossed),
            10 => Some(Self::TcpLastAck),
            11 => Some(Self::TcpTimeWait),
            12 => Some(Self::TcpMidstream),
            13 => Some(Self::Dccp),
            _ => None,
        }
    }

    /// Whether this is a TCP connection past its handshake that no reset has ended.
    #[must_use]
    #[inline(always)]
    pub const fn is_open_tcp(self) -> bool {
        matches!(
            self,
            Self::TcpEstablished | Self::TcpClosing | Self::TcpLastAck | Self::TcpTimeWait
        )
    }

    /// The word used on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TcpSynSent => "syn-sent",
            Self::TcpSynReceived => "syn-received",
            Self::TcpEstablished => "established",
            Self::TcpClosing => "closing",
            Self::TcpClosed => "closed",
            Self::UdpOneWay => "one-way",
            Self::UdpTwoWay => "two-way",
            Self::Icmp => "icmp",
            Self::Other => "other",
            Self::TcpSynCrossed => "syn-crossed",
            Self::TcpLastAck => "last-ack",
            Self::TcpTimeWait => "time-wait",
            Self::TcpMidstream => "midstream",
            Self::Dccp => "dccp",
        }
    }
}

/// How long a session in state `state` may be idle, ns: what its service says if that is anything (`service_s`, seconds)
/// and the conversation is under way, else what the configuration says of the state (`of_state_ns`). A service does not
/// change how long a handshake or a farewell may take.
///
/// The one place where this is decided, for packets, for ageing and for people.
#[must_use]
#[inline(always)]
pub const fn idle_timeout_ns(state: u8, service_s: u32, of_state_ns: u64) -> u64 {
    const ESTABLISHED: u8 = SessionState::TcpEstablished as u8;
    const FIRST_WITHOUT_CONNECTION: u8 = SessionState::UdpOneWay as u8;
    const LAST_WITHOUT_CONNECTION: u8 = SessionState::Other as u8;
    const DCCP: u8 = SessionState::Dccp as u8;
    let without_connection = state >= FIRST_WITHOUT_CONNECTION && state <= LAST_WITHOUT_CONNECTION;
    let under_way = state == ESTABLISHED || state == DCCP || without_connection;
    if service_s != 0 && under_way {
        service_s as u64 * 1_000_000_000
    } else {
        of_state_ns
    }
}

/// What [`Flow::generation`] says besides a generation. A flow of which it says anything never takes the short way.
///
/// The generation of a session's first direction also decides who may end the session: see
/// `deploy/docs/decisions/0004-ageing.md`.
pub mod flow_generation {
    /// Bit beside the generation: found idle. A packet that comes in time takes the mark away; if none does, the session
    /// is collected.
    pub const MARK: u32 = 1 << 31;
    /// Ended. Whoever stored this removes the flow, and nobody else does.
    pub const DEAD: u32 = u32::MAX;

    /// Whether a flow is marked, and not dead.
    #[must_use]
    #[inline(always)]
    pub const fn is_marked(generation: u32) -> bool {
        generation & MARK != 0 && generation != DEAD
    }

    /// The generation without its mark.
    #[must_use]
    #[inline(always)]
    pub const fn unmarked(generation: u32) -> u32 {
        if generation == DEAD {
            generation
        } else {
            generation & !MARK
        }
    }
}

/// What happens to a packet of this flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Disposition {
    /// Goes out of another data interface.
    Forward = 0,
    /// Is for the firewall itself.
    ToHost = 1,
    /// Was sent by the firewall itself (only met by the egress program).
    FromHost = 2,
}

/// How the flow's next hop is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hop {
    /// Not known: look at routes and neighbours again.
    Unresolved = 0,
    /// `bpf_redirect` to the egress interface.
    Redirect = 1,
    /// `bpf_redirect_peer`: the egress interface is a veth whose peer is in another namespace.
    RedirectPeer = 2,
}

/// Bits of [`Flow::flags`].
pub mod flow_flags {
    /// This flow is the reply direction.
    pub const REPLY: u8 = 1;
    /// Addresses or ports change.
    pub const TRANSLATED: u8 = 1 << 1;
    /// TCP: this direction sent a FIN.
    pub const FIN_SENT: u8 = 1 << 2;
    /// The egress interface may receive redirected XDP frames.
    pub const XDP_EGRESS: u8 = 1 << 3;
    /// A flood screen counts every packet of the flow.
    pub const COUNTED: u8 = 1 << 4;
    /// The handshake was answered in the server's place: sequence numbers differ by [`super::Flow::tcp_delta`].
    pub const PROXIED: u8 = 1 << 5;
    /// An application level gateway reads every packet of the flow.
    pub const GATEWAY: u8 = 1 << 6;
    /// TCP: sequence numbers are not checked (picked up in mid-stream, or configured so).
    pub const LIBERAL: u8 = 1 << 7;
    /// Flows with any of these never take the short way.
    pub const LONG_WAY: u8 = COUNTED | PROXIED | GATEWAY;
}

/// Silence is measured in units of `1 << SILENCE_SHIFT` nanoseconds, about a millisecond: see [`Flow::silence`].
const SILENCE_SHIFT: u32 = 20;

/// One direction of a session. 176 bytes, in the order in which a packet needs them.
///
/// The kernel gives an entry of 256 bytes that begins at a cache line, of which 8 are the allocator's and 48 the table's own
/// (`LLIST_NODE_SZ` in kernel/bpf/memalloc.c, `struct htab_elem` in kernel/bpf/hashtab.c). Behind an IPv4 key the first
/// 56 bytes of the value share a cache line with the key's end: what every packet writes and most of what it compares.
/// The next 64 are another: the rest of what is compared, a TCP connection's edges, and an IPv4 translation. The last
/// 56 no established IPv4 packet touches. Behind an IPv6 key the lines begin 24 bytes earlier.
///
/// Races: packets of one flow may run on several CPUs. `last_seen_ns`, `packets`, `bytes` and the TCP fields are
/// written without atomics: the worst outcome is a count short by the packets that collided, or a window a segment
/// behind. Fields that decide (state, generation, hop) are single stores of at most eight bytes. The memory of a removed flow
/// may become another's at once: a packet that found the old one in that instant is accounted, and may be rewritten, as
/// the new one's. It takes a session that ends while its packet is between lookup and copy, some ten nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Flow {
    /// When this direction last carried a packet, ns. Written by the packet path.
    pub last_seen_ns: u64,
    /// Packets carried.
    pub packets: u64,
    /// Bytes carried, layer 2 included.
    pub bytes: u64,
    /// Judgement number ([`crate::Live::generation`]) that last permitted the session, with what [`flow_generation`] adds. Changed only by
    /// atomic exchange.
    pub generation: u32,
    /// [`crate::Live::fib_epoch`] at which the next hop was resolved.
    pub fib_epoch: u32,
    /// Egress interface index.
    pub egress_ifindex: u32,
    /// Ingress interface index.
    pub ingress_ifindex: u32,
    /// Destination MAC of the next hop.
    pub next_hop_mac: [u8; 6],
    /// MAC of the egress interface.
    pub egress_mac: [u8; 6],
    /// A [`SessionState`].
    pub state: u8,
    /// [`flow_flags`].
    pub flags: u8,
    /// A [`Disposition`].
    pub disposition: u8,
    /// A [`Hop`].
    pub hop: u8,

    /// MTU of the egress interface, bytes of layer 3.
    pub mtu: u32,
    /// Silent for less than this, the session is within its timeout whatever its other direction did: the timeout of its
    /// state and service under the configuration that `generation` names, in whole units of 2^20 ns. Written by the long
    /// way together with `state`, and good for as long as the generation is in force.
    pub silence: u32,
    /// Last four bytes of the ingress interface's MAC, memory order: frames for another station are not ours.
    pub ingress_mac_low: u32,
    /// First two bytes of the ingress interface's MAC, memory order.
    pub ingress_mac_high: u16,
    /// TCP: largest window this side has advertised since the handshake, unscaled; before, that of its SYN.
    pub tcp_window: u16,
    /// TCP: highest sequence number this side sent, plus one.
    pub tcp_end: u32,
    /// TCP: highest acknowledgement this side sent; before it sent any, the other side's initial sequence number.
    pub tcp_ack: u32,
    /// TCP: the highest sequence number this side may send up to: the other direction's `tcp_offer` as it was when it was
    /// last looked at.
    pub tcp_limit: u32,
    /// TCP: the highest sequence number the other side was ever allowed to send up to: acknowledgement plus window.
    pub tcp_offer: u32,
    /// TCP: shift of this side's windows. During the handshake what its SYN announced: [`Flow::NO_SCALE`] for nothing.
    pub tcp_scale: u8,
    /// Zone the session's packets of this direction come from.
    pub from_zone: u8,
    /// Zone they go to.
    pub to_zone: u8,
    /// Protocol, for user space and for building the partner's key.
    pub protocol: u8,
    /// Source port (ICMP: identifier) after translation, host order.
    pub new_source_port: u16,
    /// Destination port after translation, host order.
    pub new_destination_port: u16,
    /// Source address after translation, network order.
    pub new_source_be: [u32; 4],
    /// Destination address after translation, network order.
    pub new_destination_be: [u32; 4],

    /// ICMP: `type << 8 | code` of the session's first packet, what policy was asked about; in the reply flow the type
    /// that answers it. Only messages of this type are the flow's.
    pub icmp_type_code: u32,
    /// What tells equal tuples apart that are not the same conversation, as the bits above the protocol in the key:
    /// service tag (802.1ad) << 28 | wire number << 20 | VLAN << 8. 0 in routed mode.
    pub context: u32,
    /// Idle timeout of the session's service, s; 0: that of its state.
    pub timeout_s: u32,
    /// Index of the policy that permitted the session, `u32::MAX` for none.
    pub policy: u32,
    /// Index of the source NAT rule, `u32::MAX` for none.
    pub nat_rule: u32,
    /// TCP: what is added to this direction's acknowledgements (first direction) or sequence numbers (replies) of a
    /// proxied session. Before the server has answered, its numbers are taken to begin at 0.
    pub tcp_delta: u32,
    /// Index of the destination NAT rule, `u32::MAX` for none.
    pub destination_rule: u32,
    /// 1: nobody has answered yet, and the other direction has no entry. It is made of this one when its first packet
    /// comes: see `bulkhead_pipeline`'s module on sessions. Only half-open first directions are.
    pub unanswered: u32,
    /// Number of the session, the same in both flows.
    pub session_id: u64,
    /// When the session was created, ns.
    pub created_ns: u64,
}

/// Bytes of the value in the first of an IPv4 entry's cache lines that hold any of it.
const FIRST_LINE_BYTES: usize = 56;
const _: () = assert!(size_of::<Flow>() == 176 && size_of::<FlowKey4>() == 16 && size_of::<FlowKey6>() == 40);
const _: () = assert!(core::mem::offset_of!(Flow, mtu) == FIRST_LINE_BYTES);
// The first word of an address is all of an IPv4 address.
const _: () = assert!(core::mem::offset_of!(Flow, new_destination_be) + 4 <= FIRST_LINE_BYTES + 64);

impl Flow {
    /// [`Flow::silence`] of a session that may be idle for so long.
    #[must_use]
    #[inline(always)]
    pub const fn silence_of(timeout_ns: u64) -> u32 {
        // What is cut off makes it shorter than the timeout, never longer; so does the cap, 52 days.
        let units = timeout_ns >> SILENCE_SHIFT;
        if units > u32::MAX as u64 {
            u32::MAX
        } else {
            units as u32
        }
    }

    /// Whether this direction alone says that the session is within its timeout.
    #[must_use]
    #[inline(always)]
    pub const fn is_lively(&self, now_ns: u64) -> bool {
        now_ns.wrapping_sub(self.last_seen_ns) >> SILENCE_SHIFT < self.silence as u64
    }

    /// [`Flow::tcp_scale`] of a side whose SYN announced none, which rules scaling out for both (RFC 7323, 2.2).
    pub const NO_SCALE: u8 = 0x80;

    /// The word of the flow's keys that holds protocol and context.
    #[must_use]
    #[inline(always)]
    pub const fn key_protocol(&self) -> u32 {
        self.protocol as u32 | self.context
    }

    /// Key of the other direction, IPv4: the translated tuple turned round.
    #[must_use]
    #[inline(always)]
    pub fn partner4(&self) -> FlowKey4 {
        FlowKey4 {
            source_be: self.new_destination_be[0],
            destination_be: self.new_source_be[0],
            source_port: self.new_destination_port,
            destination_port: self.new_source_port,
            protocol: self.key_protocol(),
        }
    }

    /// Key of the other direction, IPv6.
    #[must_use]
    #[inline(always)]
    pub fn partner6(&self) -> FlowKey6 {
        FlowKey6 {
            source_be: self.new_destination_be,
            destination_be: self.new_source_be,
            source_port: self.new_destination_port,
            destination_port: self.new_source_port,
            protocol: self.key_protocol(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_lively_beyond_the_timeout() {
        for timeout_ns in [
            1,
            1_000_000,
            1_000_000_000,
            20_000_000_001,
            7_440_000_000_000,
            u64::MAX,
        ] {
            let flow = Flow {
                last_seen_ns: 5,
                silence: Flow::silence_of(timeout_ns),
                ..Flow::default()
            };
            assert!(!flow.is_lively(timeout_ns.saturating_add(5)), "{timeout_ns}");
            let unit = 1 << SILENCE_SHIFT;
            if timeout_ns >= 2 * unit {
                let most = (u64::from(u32::MAX) << SILENCE_SHIFT).min(timeout_ns);
                assert!(flow.is_lively(most - unit + 4), "{timeout_ns}");
            }
        }
    }

    #[test]
    fn a_flow_that_was_never_told_is_not_lively() {
        assert!(!Flow::default().is_lively(0));
    }
}
