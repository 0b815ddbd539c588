//! Addresses that interfaces carry.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};

pub use netlink_packet_route::address::AddressScope;

use super::{Family, Netlink, Result};

/// One address of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct InterfaceAddress {
    /// The interface.
    pub index: u32,
    /// The interface's own address; of a point-to-point link, this end's.
    pub address: IpAddr,
    /// Length of the on-link prefix, in bits.
    pub prefix_len: u8,
    /// How far the address is valid: `Link` and `Host` addresses never leave their link.
    pub scope: AddressScope,
    /// Whether the kernel uses it: duplicate address detection is over and has not failed.
    pub usable: bool,
    /// IPv4 only: another address of the same prefix is the primary one.
    pub secondary: bool,
}

impl InterfaceAddress {
    fn from_message(message: AddressMessage) -> Option<Self> {
        Family::from_wire(message.header.family)?;
        let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
        let (mut own, mut prefix) = (None, None);
        for attribute in message.attributes {
            match attribute {
                AddressAttribute::Local(address) => own = Some(address),
                AddressAttribute::Address(address) => prefix = Some(address),
                AddressAttribute::Flags(all) => flags = all,
                _ => {}
            }
        }
        Some(Self {
            index: message.header.index,
            // IFA_ADDRESS is the far end of a point-to-point link; IPv6 sends only it on ordinary ones.
            address: own.or(prefix)?,
            prefix_len: message.header.prefix_len,
            scope: message.header.scope,
            usable: !flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed)
                || flags.contains(AddressFlags::Optimistic),
            // IPv6 uses the same bit for temporary (privacy) addresses, which are as good as any.
            secondary: message.header.family == Family::V4.wire() && flags.contains(AddressFlags::Secondary),
        })
    }
}

impl Netlink {
    /// All addresses of all interfaces, both families.
    pub fn addresses(&mut self) -> Result<Vec<InterfaceAddress>> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.socket.dump("list addresses", &request)?;
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewAddress(message) => InterfaceAddress::from_message(message),
                _ => None,
            })
            .collect())
    }
}
