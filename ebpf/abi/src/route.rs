//! The mirror of the kernel's forwarding state, the per-generation settings and the switch between generations.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::TIMEOUTS;

/// Which configuration is in force, and how fresh cached next hops are. One entry. `generation` and `tables` are read and
/// written as one eight-byte word ([`Live::judged_by`]), so that a packet never has the one without the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(8))]
pub struct Live {
    /// The judgement number: raised whenever packets may be judged differently, by commits and by changes of group
    /// members. Flows store the one that judged them last. 0: nothing is loaded, everything is denied.
    pub generation: u32,
    /// The configuration generation that table keys carry: raised by commits.
    pub tables: u32,
    /// Raised by user space after every change to routes, neighbours or interfaces.
    pub fib_epoch: u32,
    /// Zero.
    pub reserved: u32,
}

impl Live {
    /// Judgement and table number as the word they are on a little-endian machine.
    #[must_use]
    #[inline(always)]
    pub const fn judged_by(generation: u32, tables: u32) -> u64 {
        generation as u64 | (tables as u64) << 32
    }
}

/// Settings of one generation; slot `generation & 1` of a two-entry array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Settings {
    /// Idle timeouts by [`crate::SessionState`], ns.
    pub timeouts_ns: [u64; TIMEOUTS],
    /// Slow-path requests per second and CPU.
    pub slow_path_rate: u32,
    /// Denial events per second and CPU.
    pub deny_event_rate: u32,
    /// [`crate::gateways`] in use.
    pub gateways: u32,
    /// [`tcp_rules`].
    pub tcp_rules: u32,
    /// Largest maximum segment size that a SYN may announce; [`Settings::MSS_KEEP`] or [`Settings::MSS_PATH`].
    pub tcp_mss: u32,
    /// Zero.
    pub reserved: u32,
    /// [`crate::nat_flags`].
    pub nat: u64,
}

impl Settings {
    /// Maximum segment sizes are left alone.
    pub const MSS_KEEP: u32 = 0;
    /// Maximum segment sizes are what the MTU of both interfaces allows, or less.
    pub const MSS_PATH: u32 = u32::MAX;
}

/// Bits of [`Settings::tcp_rules`].
pub mod tcp_rules {
    /// Segments outside the window pass.
    pub const LIBERAL: u32 = 1;
    /// A segment that is not a SYN may open a session.
    pub const MIDSTREAM: u32 = 1 << 1;
}

/// Bits of [`Interface::flags`].
pub mod interface_flags {
    /// A data interface of this firewall: packets may leave through it.
    pub const DATA: u32 = 1;
    /// A veth whose other end is in another namespace: `bpf_redirect_peer` reaches it.
    pub const PEER: u32 = 1 << 1;
    /// May be the target of an XDP redirect.
    pub const XDP_TARGET: u32 = 1 << 2;
    /// Wire mode: ARP and neighbour discovery cross.
    pub const WIRE_ARP: u32 = 1 << 8;
    /// Wire mode: what is neither IP nor ARP crosses.
    pub const WIRE_NON_IP: u32 = 1 << 9;
}

/// What the packet path needs to know of an interface. Written by user space from netlink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Interface {
    /// MAC address.
    pub mac: [u8; 6],
    /// Zero.
    pub reserved: u16,
    /// MTU, bytes of layer 3.
    pub mtu: u32,
    /// [`interface_flags`].
    pub flags: u32,
    /// Primary IPv4 address, network order; 0: none.
    pub address4_be: u32,
    /// Primary global IPv6 address, network order; zero: none.
    pub address6_be: [u32; 4],
    /// Wire mode: index of the other end; 0: none.
    pub wire_peer: u32,
    /// Wire mode: number of the wire, from 1.
    pub wire: u32,
}

/// Key of the IPv4 route trie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Route4Key {
    /// Prefix length.
    pub bits: u32,
    /// Address, network order.
    pub address_be: u32,
}

/// Key of the IPv6 route trie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Route6Key {
    /// Prefix length.
    pub bits: u32,
    /// Address, network order.
    pub address_be: [u32; 4],
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RouteKind {
    /// Out of an interface, directly or through a gateway.
    Unicast = 0,
    /// To this host.
    Local = 1,
    /// Broadcast, multicast, anycast: never forwarded.
    NotForwarded = 2,
    /// Blackhole, unreachable, prohibit.
    Reject = 3,
}

/// Value of the route tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RouteEntry {
    /// A [`RouteKind`].
    pub kind: u32,
    /// Egress interface index.
    pub ifindex: u32,
    /// 0: on link; 4 or 6: family of `gateway_be`.
    pub gateway_family: u32,
    /// Gateway, network order.
    pub gateway_be: [u32; 4],
}

/// Key of the neighbour table; the value is a MAC address in the low 48 bits of a `u64`, first byte lowest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NeighbourKey {
    /// Interface index.
    pub ifindex: u32,
    /// 4 or 6.
    pub family: u32,
    /// Address, network order.
    pub address_be: [u32; 4],
}
