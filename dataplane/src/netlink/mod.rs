//! Everything Bulkhead says to and hears from rtnetlink, over blocking sockets.
//!
//! Owns: the links, addresses, routes and neighbours as the kernel has them ([`Netlink`]), the stream of
//! their changes ([`Monitor`]), the fail-closed routing-policy rules, programs as `clsact` filters ([`Filter`]), the set-up operations that tests and
//! the demo need, and the offload facts that only [`ethtool`] knows.
//!
//! Assumes: a socket belongs to the network namespace of the thread that opened it, for good. Whoever
//! changes namespaces opens a new one.
//!
//! Refuses: to guess. A message that does not decode is skipped with a warning rather than read half, and
//! a dump that the kernel marks as interrupted is repeated, never returned.

#![deny(unsafe_code)]

mod address;
mod error;
pub mod ethtool;
mod filter;
mod link;
mod monitor;
mod namespace;
mod neighbour;
pub mod netdev;
mod route;
mod rule;
mod setup;
mod socket;

use std::fmt;
use std::net::IpAddr;

use netlink_packet_route::AddressFamily;

pub use self::address::{AddressScope, InterfaceAddress};
pub use self::error::{Error, Result};
pub use self::filter::{Direction, Filter, FilterInfo, HANDLE, PREFERENCE};
pub use self::link::{Link, LinkKind};
pub use self::monitor::{Event, Monitor};
pub use self::namespace::Namespace;
pub use self::neighbour::{Neighbour, NeighbourState};
pub use self::route::{NextHop, Route, RouteKind, Table};
pub use self::rule::{BLACKHOLE_PREFERENCE, BlackholeRule};
pub use self::setup::{MacvlanSpec, VethSpec};

/// A connection to rtnetlink in one network namespace.
///
/// Methods take `&mut self` because a netlink socket carries one conversation at a time. Opening another
/// connection costs one system call; threads do not share one.
#[derive(Debug)]
pub struct Netlink {
    socket: socket::Socket,
}

impl Netlink {
    /// Connects in the network namespace of the calling thread.
    pub fn connect() -> Result<Self> {
        Ok(Self {
            socket: socket::Socket::open()?,
        })
    }
}

/// An address family that the firewall forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, for what has to be done twice.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub const fn of(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bits in an address: 32 or 128.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The all-zero address, which with a prefix length of 0 is the default destination.
    const fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
        }
    }

    const fn wire(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }

    const fn from_wire(family: AddressFamily) -> Option<Self> {
        match family {
            AddressFamily::Inet => Some(Self::V4),
            AddressFamily::Inet6 => Some(Self::V6),
            _ => None,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        })
    }
}
