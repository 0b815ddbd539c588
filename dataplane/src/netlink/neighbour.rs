//! The kernel's neighbour tables: which MAC address a next hop answers with.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as WireState,
};

use netlink_packet_route::neighbour_table::{
    NeighbourTableAttribute, NeighbourTableHeader, NeighbourTableMessage, NeighbourTableParameter,
};

use super::{Error, Family, Netlink, Result};

/// Reachability of a neighbour (`NUD_*`); the kernel sets one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NeighbourState {
    /// Nothing known.
    None,
    /// Being asked for, never answered yet.
    Incomplete,
    /// Confirmed recently.
    Reachable,
    /// Was confirmed; to be confirmed again at the next use.
    Stale,
    /// In use, waiting for a confirmation from above.
    Delay,
    /// In use, being asked directly.
    Probe,
    /// Did not answer.
    Failed,
    /// Needs no resolution: multicast or point-to-point.
    NoArp,
    /// Set by hand.
    Permanent,
    /// A combination or value unknown to this program.
    Other(u16),
}

impl NeighbourState {
    /// `NUD_VALID`: the MAC address may be used for sending.
    pub const fn usable(self) -> bool {
        matches!(
            self,
            Self::Reachable | Self::Stale | Self::Delay | Self::Probe | Self::NoArp | Self::Permanent
        )
    }

    fn from_wire(state: WireState) -> Self {
        match state {
            WireState::None => Self::None,
            WireState::Incomplete => Self::Incomplete,
            WireState::Reachable => Self::Reachable,
            WireState::Stale => Self::Stale,
            WireState::Delay => Self::Delay,
            WireState::Probe => Self::Probe,
            WireState::Failed => Self::Failed,
            WireState::Noarp => Self::NoArp,
            WireState::Permanent => Self::Permanent,
            other => Self::Other(other.into()),
        }
    }
}

impl fmt::Display for NeighbourState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Incomplete => "incomplete",
            Self::Reachable => "reachable",
            Self::Stale => "stale",
            Self::Delay => "delay",
            Self::Probe => "probe",
            Self::Failed => "failed",
            Self::NoArp => "noarp",
            Self::Permanent => "permanent",
            Self::Other(bits) => return write!(f, "{bits:#06x}"),
        })
    }
}

/// One entry of the neighbour table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Neighbour {
    /// The interface it is behind.
    pub index: u32,
    /// Its layer-3 address.
    pub address: IpAddr,
    /// Its MAC address, once known.
    pub mac: Option<[u8; 6]>,
    /// How far the MAC address can be trusted.
    pub state: NeighbourState,
}

impl Neighbour {
    /// Whether frames may be sent to [`Self::mac`] now.
    pub const fn usable(&self) -> bool {
        self.mac.is_some() && self.state.usable()
    }

    /// `None` for bridge forwarding entries and proxies, which are no next hops.
    pub(super) fn from_message(message: NeighbourMessage) -> Option<Self> {
        Family::from_wire(message.header.family)?;
        if message.header.flags.contains(NeighbourFlags::Proxy) {
            return None;
        }
        let (mut address, mut mac) = (None, None);
        for attribute in message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => address = Some(v4.into()),
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => address = Some(v6.into()),
                NeighbourAttribute::LinkLayerAddress(bytes) => mac = bytes.try_into().ok(),
                _ => {}
            }
        }
        Some(Self {
            index: message.header.ifindex,
            address: address?,
            mac,
            state: NeighbourState::from_wire(message.header.state),
        })
    }
}

impl Netlink {
    /// The neighbours of all interfaces, both families, in whatever state.
    pub fn neighbours(&mut self) -> Result<Vec<Neighbour>> {
        let mut neighbours = Vec::new();
        for family in Family::ALL {
            let mut request = NeighbourMessage::default();
            request.header.family = family.wire();
            let operation = format!("list {family} neighbours");
            let answers = match self
                .socket
                .dump(&operation, &RouteNetlinkMessage::GetNeighbour(request))
            {
                Err(error) if error.is_unsupported_family() => continue,
                answers => answers?,
            };
            neighbours.extend(answers.into_iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewNeighbour(message) => Neighbour::from_message(message),
                _ => None,
            }));
        }
        Ok(neighbours)
    }

    /// Tells the kernel that an entry is in use (`NTF_USE`): an unknown neighbour is resolved now, a stale
    /// one is confirmed after `delay_first_probe_time` (5 s unless changed) or forgotten.
    ///
    /// A data plane that forwards around the kernel's stack must do this, or entries in use go stale.
    pub fn probe_neighbour(&mut self, index: u32, address: IpAddr) -> Result<()> {
        let mut request = neighbour_message(index, address);
        request.header.flags = NeighbourFlags::Use;
        self.socket.change(
            &format!("probe neighbour {address} on interface index {index}"),
            RouteNetlinkMessage::NewNeighbour(request),
            NLM_F_CREATE,
        )
    }

    /// Sets a permanent entry, replacing what is there.
    pub fn add_neighbour(&mut self, index: u32, address: IpAddr, mac: [u8; 6]) -> Result<()> {
        let mut request = neighbour_message(index, address);
        request.header.state = WireState::Permanent;
        request
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
        self.socket.change(
            &format!("set neighbour {address} on interface index {index}"),
            RouteNetlinkMessage::NewNeighbour(request),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Forgets an entry. The kernel keeps it for a moment as `Failed` while something refers to it.
    pub fn delete_neighbour(&mut self, index: u32, address: IpAddr) -> Result<()> {
        self.socket.change(
            &format!("delete neighbour {address} on interface index {index}"),
            RouteNetlinkMessage::DelNeighbour(neighbour_message(index, address)),
            0,
        )
    }

    /// Sets how long the neighbours of an interface count as reachable once they were heard of (`base_reachable_time`; the
    /// kernel takes half to one and a half of it). Works where `/proc/sys` cannot be written.
    pub fn set_reachable_time(&mut self, index: u32, family: Family, time: Duration) -> Result<()> {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut request = NeighbourTableMessage::default();
        request.header = NeighbourTableHeader {
            family: family.wire(),
        };
        request.attributes = vec![
            NeighbourTableAttribute::Name(
                match family {
                    Family::V4 => "arp_cache",
                    Family::V6 => "ndisc_cache",
                }
                .to_owned(),
            ),
            NeighbourTableAttribute::Parms(vec![
                NeighbourTableParameter::Ifindex(index),
                NeighbourTableParameter::BaseReachableTime(milliseconds),
            ]),
        ];
        self.socket.change(
            &format!("set the {family} neighbour timeout of interface index {index}"),
            RouteNetlinkMessage::SetNeighbourTable(request),
            0,
        )
    }

    /// The entry of one address, or `None`.
    pub fn neighbour(&mut self, index: u32, address: IpAddr) -> Result<Option<Neighbour>> {
        let operation = format!("look up neighbour {address} on interface index {index}");
        let request = RouteNetlinkMessage::GetNeighbour(neighbour_message(index, address));
        match self.socket.get(&operation, request) {
            Ok(RouteNetlinkMessage::NewNeighbour(message)) => Ok(Neighbour::from_message(message)),
            Ok(_) => Err(Error::Protocol {
                operation,
                reason: "not a neighbour".into(),
            }),
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn neighbour_message(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = Family::of(&address).wire();
    message.header.ifindex = index;
    message
        .attributes
        .push(NeighbourAttribute::Destination(address.into()));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_is_usable_only_with_a_mac_and_a_valid_state() {
        let mut message = neighbour_message(3, IpAddr::from([10, 0, 0, 2]));
        message.header.state = WireState::Stale;
        let neighbour = Neighbour::from_message(message.clone()).expect("a neighbour");
        assert!(!neighbour.usable(), "no MAC address: {neighbour:?}");
        message
            .attributes
            .push(NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1]));
        assert!(
            Neighbour::from_message(message.clone())
                .expect("a neighbour")
                .usable()
        );
        message.header.state = WireState::Failed;
        assert!(!Neighbour::from_message(message).expect("a neighbour").usable());
    }

    #[test]
    fn proxies_are_not_neighbours() {
        let mut message = neighbour_message(3, IpAddr::from([10, 0, 0, 2]));
        message.header.flags = NeighbourFlags::Proxy;
        assert_eq!(Neighbour::from_message(message), None);
    }
}
