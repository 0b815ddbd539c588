//! Whole frames for user space: what waits for another packet, what must be cut, what has to be read.
//!
//! An entry of the ring is a [`FrameHeader`] and behind it the frame, in one of two sizes, so that small frames leave
//! room for more of them. The slow path's requests (see [`crate::SlowPathRequest`]) carry as much of a packet as an
//! error may quote; here nothing is cut off.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What user space is to do with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FrameKind {
    /// A later fragment that came before the first: hold it until the first has been judged, then put it back.
    /// The argument is the packet's context (see [`crate::Flow::context`]).
    Fragment = 1,
    /// An IPv4 packet larger than its way out and free to be fragmented: cut it, put the pieces back. The argument is
    /// the MTU, bytes of layer 3.
    Oversize = 2,
    /// A packet of a session whose application level gateway reads every packet.
    Gateway = 3,
}

impl FrameKind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Fragment),
            2 => Some(Self::Oversize),
            3 => Some(Self::Gateway),
            _ => None,
        }
    }
}

/// Bytes of frame in the small entries of the ring.
pub const SMALL_FRAME_BYTES: usize = 2028;

/// Bytes of frame in the large ones, and the largest frame that user space gets to see.
pub const LARGE_FRAME_BYTES: usize = 9216;

/// What stands in front of a frame in the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FrameHeader {
    /// A [`FrameKind`].
    pub kind: u32,
    /// Interface the frame came in on; it is put back there.
    pub ifindex: u32,
    /// What the kind says.
    pub argument: u32,
    /// Bytes of frame behind this header; what follows them is left over from other entries.
    pub length: u32,
    /// The VLAN tag that the device took off the frame (wire mode), as [`vlan_tag`] makes it; 0: none.
    pub vlan: u32,
    /// Payload bytes of one segment if the frame is an aggregate, which may be longer than its interface's MTU; else 0.
    pub segment: u32,
}

/// A VLAN tag as one number: its EtherType (host order; 0x8100 for 802.1Q, 0x88a8 for 802.1ad) above its control
/// information.
#[must_use]
#[inline(always)]
pub const fn vlan_tag(ether_type: u16, control: u16) -> u32 {
    (ether_type as u32) << 16 | control as u32
}

/// The four bytes of such a tag as they stand in a frame, behind the stations.
#[must_use]
pub const fn vlan_bytes(tag: u32) -> [u8; 4] {
    tag.to_be_bytes()
}

/// Whether the tag is a service provider's (802.1ad).
#[must_use]
#[inline(always)]
pub const fn is_service_tag(tag: u32) -> bool {
    tag >> 16 == 0x88a8
}
