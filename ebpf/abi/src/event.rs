//! What the programs tell user space through ring buffers: session and denial events, slow-path requests.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EventKind {
    /// A session was created.
    Create = 1,
    /// A session ended.
    Close = 2,
    /// A packet was denied or rejected.
    Deny = 3,
    /// A screen dropped a packet or raised the alarm about it.
    Screen = 4,
}

/// An event. Addresses and ports are those of the session's first packet, before and after translation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Event {
    /// Monotonic time, ns.
    pub time_ns: u64,
    /// Session number; 0 for what concerns a packet alone.
    pub session_id: u64,
    /// Packets of the first direction (close only).
    pub packets: u64,
    /// Bytes of the first direction (close only).
    pub bytes: u64,
    /// Packets of the reply direction (close only).
    pub reply_packets: u64,
    /// Bytes of the reply direction (close only).
    pub reply_bytes: u64,
    /// When the session was created, ns (close only).
    pub created_ns: u64,
    /// Source, network order.
    pub source_be: [u32; 4],
    /// Destination, network order.
    pub destination_be: [u32; 4],
    /// Source after translation.
    pub new_source_be: [u32; 4],
    /// Destination after translation.
    pub new_destination_be: [u32; 4],
    /// Source port, host order; ICMP: identifier.
    pub source_port: u16,
    /// Destination port, host order; ICMP: identifier.
    pub destination_port: u16,
    /// Source port after translation.
    pub new_source_port: u16,
    /// Destination port after translation.
    pub new_destination_port: u16,
    /// Ingress interface.
    pub ingress_ifindex: u32,
    /// Egress interface; 0: none.
    pub egress_ifindex: u32,
    /// Index of the configured policy; `u32::MAX`: none.
    pub policy: u32,
    /// Index of the source NAT rule; `u32::MAX`: none.
    pub nat_rule: u32,
    /// Generation that judged.
    pub generation: u32,
    /// An [`EventKind`].
    pub kind: u8,
    /// A [`crate::Reason`].
    pub reason: u8,
    /// 4 or 6.
    pub family: u8,
    /// IP protocol.
    pub protocol: u8,
    /// Source zone.
    pub from_zone: u8,
    /// Destination zone.
    pub to_zone: u8,
    /// Last [`crate::SessionState`] (close); 1 if the packet was dropped, 0 if it went on (screens).
    pub state: u8,
    /// TCP flags of the packet (denial and screens only).
    pub tcp_flags: u8,
    /// ICMP `type << 8 | code` of the (first) packet; 0 for other protocols.
    pub icmp_type_code: u32,
    /// Index of the destination NAT rule; `u32::MAX`: none.
    pub destination_rule: u32,
    /// Zero.
    pub reserved: u32,
}

/// What the slow path is asked to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum SlowPathKind {
    /// A policy rejected: TCP reset, or ICMP administratively prohibited.
    Reject = 1,
    /// Time exceeded.
    TtlExceeded = 2,
    /// Fragmentation needed, or packet too big.
    MtuExceeded = 3,
    /// Destination unreachable, no route.
    NoRoute = 4,
    /// Administratively prohibited, over TCP too: translation has no port left (RFC 5508, REQ-8).
    Prohibited = 5,
}

/// Bytes of the offending packet a request carries: what an ICMPv6 error may quote (RFC 4443, 2.4 (c)).
pub const SLOW_PATH_BYTES: usize = 1280;

/// A request to the slow path, with the packet as it arrived.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SlowPathRequest {
    /// A [`SlowPathKind`].
    pub kind: u32,
    /// Interface the packet came in on; the answer leaves there.
    pub ifindex: u32,
    /// MTU to report ([`SlowPathKind::MtuExceeded`] only), bytes.
    pub mtu: u32,
    /// Bytes valid in `packet`.
    pub length: u32,
    /// VLAN tag the packet carried (see [`crate::vlan_tag`]), which `packet` does not show; 0: none.
    pub vlan: u32,
    /// The packet from its Ethernet header on.
    pub packet: [u8; SLOW_PATH_BYTES],
}

/// A request of user space to the control program, passed as the packet of a test run behind an Ethernet header
/// of zeros: set the live record, age or end one session, correct a count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ControlRequest {
    /// 1: set the generation to `argument`; 2: set the FIB epoch. 5 and 6: end the IPv4 (IPv6) session of `key`, whatever
    /// the clock says. 30: count `key[0]` packets as ended in user space for the [`crate::Reason`] `argument`, one of
    /// fragments. 40 and 41: mark it if it is idle for longer than it may be, or than `argument` ms if that is not 0
    /// and less. 42 and 43: end it if it is marked and still idle. 44: add `argument` to the count of sessions of `key`.
    /// 45: remove what is left of a dead session of family `argument`. 20: remove the persistent mapping of `key` unless it
    /// was used since; 21: note when it was used; 22: remove it in any case. 3 and 4 were used once.
    pub operation: u32,
    /// Argument of the operation.
    pub argument: u32,
    /// A `FlowKey4` (first four words), a `FlowKey6`, a `LimitKey` (first five words), or the `MappingKey` of an outside end
    /// (six words) and a time in ns, low word first (20 to 22), or a number (30).
    pub key: [u32; 10],
}
