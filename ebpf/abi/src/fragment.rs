//! Datagrams in fragments, as far as they have been seen: one entry each, written when the first fragment was judged.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Disjoint stretches of one datagram that are remembered. Fragments in order are one stretch; more than this many
/// gaps at a time are refused.
pub const FRAGMENT_RANGES: usize = 8;

/// An entry older than this is not used (RFC 791 suggests 15 s for reassembly, RFC 8200 60 s, Linux takes 30 s).
pub const FRAGMENT_LIFETIME_NS: u64 = 30_000_000_000;

/// Entries of the table of datagrams. It evicts: a flood of first fragments costs others theirs, not memory.
pub const FRAGMENT_ENTRIES: u32 = 16_384;

/// What fragments of one datagram have in common.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(C)]
pub struct FragmentKey {
    /// Source address as it arrives, network order.
    pub source_be: [u32; 4],
    /// Destination address as it arrives.
    pub destination_be: [u32; 4],
    /// Identification.
    pub id: u32,
    /// IPv4: protocol; IPv6, where each fragment names what follows it in its own way: 0. Above it the packet's context
    /// (see [`crate::Flow::context`]).
    pub protocol: u32,
    /// 4 or 6.
    pub family: u16,
    /// Zone it comes from: nobody elsewhere can speak for a datagram by forging its addresses.
    pub zone: u16,
}

/// Bits of [`Datagram::flags`].
pub mod datagram_flags {
    /// Nothing of it goes on any more; [`super::Datagram::reason`] says why.
    pub const POISONED: u8 = 1;
    /// The first fragment was handed to the kernel of this host, perhaps without a session (multicast).
    pub const TO_HOST: u8 = 1 << 1;
    /// All of it has been seen. Never in the table: the entry goes with the last fragment.
    pub const COMPLETE: u8 = 1 << 2;
    /// The first fragment crossed a wire without a session (multicast and broadcast that a policy names).
    pub const CROSSES: u8 = 1 << 3;
}

/// What is known of a datagram: what its first fragment said, and which of its bytes went by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Datagram {
    /// When the first fragment was judged, ns.
    pub created_ns: u64,
    /// When the last fragment went by, ns.
    pub last_ns: u64,
    /// Identification under which it is sent on, if its addresses are translated.
    pub new_id: u32,
    /// Bytes it will have behind the headers that every fragment repeats; 0: the last fragment has not been seen.
    pub end: u32,
    /// TCP: the sequence number that byte 0 of the datagram would have.
    pub tcp_base: u32,
    /// Source port of the first fragment (ICMP: identifier), host order.
    pub source_port: u16,
    /// Destination port of the first fragment.
    pub destination_port: u16,
    /// Protocol of the layer 4 header.
    pub protocol: u8,
    /// [`datagram_flags`].
    pub flags: u8,
    /// The [`crate::Reason`] that ended it, if it is poisoned.
    pub reason: u8,
    /// Zero.
    pub reserved: [u8; 5],
    /// Bytes that went by: `first << 16 | behind the last`, disjoint, not touching, in no order; 0: free.
    pub ranges: [u32; FRAGMENT_RANGES],
}

const _: () = assert!(size_of::<FragmentKey>() == 44 && size_of::<Datagram>() == 72);
