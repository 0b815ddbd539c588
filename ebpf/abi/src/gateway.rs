//! Conversations that another one announced (FTP's and TFTP's data), and what a data flow remembers of that.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bits of [`crate::Settings::gateways`].
pub mod gateways {
    /// FTP: control connections to TCP port 21 are read in user space.
    pub const FTP: u32 = 1;
    /// TFTP: the answer to a request to UDP port 69 may come from another port.
    pub const TFTP: u32 = 1 << 1;
}

/// Ports of the servers whose conversations announce others (IANA).
pub mod announced_by {
    /// FTP control.
    pub const FTP: u16 = 21;
    /// TFTP.
    pub const TFTP: u16 = 69;
}

/// Key of the table of expected conversations: the first packet's addresses and destination port, as it arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExpectKey {
    /// Who opens it, network order.
    pub source_be: [u32; 4],
    /// The address it opens to.
    pub destination_be: [u32; 4],
    /// The port it opens to, host order.
    pub destination_port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// The packet's context, as in the flow keys.
    pub context: u32,
}

/// Value of the table of expected conversations. Taken out by the packet that fulfils it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Expectation {
    /// When it was announced, ns; it is good for [`Expectation::LIFETIME_NS`].
    pub created_ns: u64,
    /// The source as the listener must see it, network order.
    pub new_source_be: [u32; 4],
    /// The listener, network order.
    pub new_destination_be: [u32; 4],
    /// The listener's port, host order.
    pub new_destination_port: u16,
    /// Port of the announcing conversation's server.
    pub announced_by: u16,
    /// 1: the server of the announcing conversation opens this one.
    pub from_server: u32,
}

impl Expectation {
    /// How long an announcement is good for: servers connect at once, people's clients within seconds.
    pub const LIFETIME_NS: u64 = 60_000_000_000;
}

/// What a data flow keeps in [`crate::Flow::icmp_type_code`], of no use to it otherwise: that policy is asked about the
/// conversation that announced it, and how to find that one's addresses.
pub mod announced {
    /// The flow was announced.
    pub const ANNOUNCED: u32 = 1 << 31;
    /// The server of the announcing conversation opened it.
    pub const FROM_SERVER: u32 = 1 << 30;
}
