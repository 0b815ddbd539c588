//! Network interfaces as the kernel describes them.

use std::fmt;

use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Error, Netlink, Result};

/// `IFNAMSIZ` less the terminating zero.
pub(super) const NAME_BYTES: usize = 15;

/// What drives an interface, as far as the choice of hooks depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LinkKind {
    /// One end of a virtual cable.
    Veth,
    /// A further MAC address on a parent interface.
    Macvlan,
    /// A software switch.
    Bridge,
    /// The loopback interface.
    Loopback,
    /// An 802.1Q child.
    Vlan,
    /// Discards what is sent.
    Dummy,
    /// No software kind: a NIC, an SR-IOV function or virtio. `ethtool::Ethtool::driver` tells which.
    Physical,
    /// Any other software kind, by its rtnetlink name.
    Other(String),
}

impl fmt::Display for LinkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Veth => "veth",
            Self::Macvlan => "macvlan",
            Self::Bridge => "bridge",
            Self::Loopback => "loopback",
            Self::Vlan => "vlan",
            Self::Dummy => "dummy",
            Self::Physical => "physical",
            Self::Other(kind) => kind,
        })
    }
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Link {
    /// Interface index, unique in its namespace.
    pub index: u32,
    /// Interface name; can change while the index stays.
    pub name: String,
    /// What drives it.
    pub kind: LinkKind,
    /// Hardware address; zero where the interface has none of six bytes.
    pub mac: [u8; 6],
    /// Largest layer-3 packet, in bytes.
    pub mtu: u32,
    /// Administratively up.
    pub up: bool,
    /// Up and able to carry packets: the other end of the cable is up too.
    pub running: bool,
    /// Receive queues allocated; [`ethtool`](super::ethtool) tells how many are in use.
    pub rx_queues: u32,
    /// Transmit queues allocated.
    pub tx_queues: u32,
    /// `IFLA_LINK`: a veth's peer, or the parent of a macvlan or vlan. Valid in the namespace that
    /// [`Self::peer_netnsid`] names.
    pub peer_index: Option<u32>,
    /// `IFLA_LINK_NETNSID`: the namespace of the peer, where that is not this one.
    pub peer_netnsid: Option<i32>,
    /// The bridge or bond that this interface is a port of.
    pub controller: Option<u32>,
}

impl Link {
    /// `None` for messages about something else, such as a bridge's view of its port.
    pub(super) fn from_message(message: LinkMessage) -> Option<Self> {
        if message.header.interface_family != AddressFamily::Unspec {
            return None;
        }
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            kind: if flags.contains(LinkFlags::Loopback) {
                LinkKind::Loopback
            } else {
                LinkKind::Physical
            },
            mac: [0; 6],
            mtu: 0,
            up: flags.contains(LinkFlags::Up),
            running: flags.contains(LinkFlags::Running),
            rx_queues: 1,
            tx_queues: 1,
            peer_index: None,
            peer_netnsid: None,
            controller: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) => link.mac = bytes.try_into().unwrap_or_default(),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::NumRxQueues(queues) => link.rx_queues = queues,
                LinkAttribute::NumTxQueues(queues) => link.tx_queues = queues,
                LinkAttribute::Link(index) => link.peer_index = (index != 0).then_some(index),
                LinkAttribute::LinkNetNsId(id) => link.peer_netnsid = (id >= 0).then_some(id),
                LinkAttribute::Controller(index) => link.controller = (index != 0).then_some(index),
                LinkAttribute::LinkInfo(infos) => {
                    if let Some(kind) = infos.iter().find_map(kind_of) {
                        link.kind = kind;
                    }
                }
                _ => {}
            }
        }
        Some(link)
    }
}

fn kind_of(info: &LinkInfo) -> Option<LinkKind> {
    let LinkInfo::Kind(kind) = info else { return None };
    Some(match kind {
        InfoKind::Veth => LinkKind::Veth,
        InfoKind::MacVlan => LinkKind::Macvlan,
        InfoKind::Bridge => LinkKind::Bridge,
        InfoKind::Vlan => LinkKind::Vlan,
        InfoKind::Dummy => LinkKind::Dummy,
        other => LinkKind::Other(other.to_string()),
    })
}

impl Netlink {
    /// All interfaces of the namespace, in the order of their indices.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut request = LinkMessage::default();
        request.attributes.push(without_statistics());
        let answers = self
            .socket
            .dump("list interfaces", &RouteNetlinkMessage::GetLink(request))?;
        let mut links: Vec<Link> = answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(message) => Link::from_message(message),
                _ => None,
            })
            .collect();
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// The interface of this name; [`Error::NoSuchInterface`] where there is none.
    pub fn link_by_name(&mut self, name: &str) -> Result<Link> {
        let absent = || Error::NoSuchInterface { name: name.into() };
        if name.is_empty() || name.len() > NAME_BYTES {
            return Err(absent());
        }
        let mut request = LinkMessage::default();
        request.attributes.push(LinkAttribute::IfName(name.into()));
        self.link(&format!("look up interface {name}"), request)?
            .ok_or_else(absent)
    }

    /// The interface of this index, or `None`.
    pub fn link_by_index(&mut self, index: u32) -> Result<Option<Link>> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        self.link(&format!("look up interface index {index}"), request)
    }

    fn link(&mut self, operation: &str, mut request: LinkMessage) -> Result<Option<Link>> {
        request.attributes.push(without_statistics());
        match self.socket.get(operation, RouteNetlinkMessage::GetLink(request)) {
            Ok(RouteNetlinkMessage::NewLink(message)) => Ok(Link::from_message(message)),
            Ok(_) => Ok(None),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn without_statistics() -> LinkAttribute {
    LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridges_view_of_a_port_is_not_a_link() {
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Bridge;
        assert_eq!(Link::from_message(message), None);
    }

    #[test]
    fn a_link_without_a_kind_is_physical_unless_it_loops_back() {
        let mut message = LinkMessage::default();
        message
            .attributes
            .push(LinkAttribute::Address(vec![1, 2, 3, 4, 5, 6, 7, 8]));
        let link = Link::from_message(message.clone()).expect("a link message");
        assert_eq!(
            (link.kind, link.mac),
            (LinkKind::Physical, [0; 6]),
            "an InfiniBand address is not a MAC"
        );
        message.header.flags = LinkFlags::Loopback;
        assert_eq!(
            Link::from_message(message).expect("a link message").kind,
            LinkKind::Loopback
        );
    }
}
