//! Building networks: what the demo, the tests and configured addresses need.
//!
//! Every operation acts in the namespace of its connection. An operation that makes an interface returns
//! its index there, so it must not be made elsewhere: `*_namespace` fields concern the far end only.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoMacVlan, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};

use super::link::NAME_BYTES;
use super::{Error, Family, Netlink, Result};

/// A virtual cable to be made.
#[derive(Debug, Clone, Copy, Default)]
pub struct VethSpec<'a> {
    /// Name of the end that stays here.
    pub name: &'a str,
    /// Name of the other end.
    pub peer_name: &'a str,
    /// Where the other end goes; `None`: here.
    pub peer_namespace: Option<BorrowedFd<'a>>,
    /// Receive and transmit queues of each end; 0 leaves the kernel's choice, which is 1.
    pub queues: u32,
    /// Largest layer-3 packet of both ends; `None`: 1500.
    pub mtu: Option<u32>,
}

/// A macvlan child in bridge mode, to be made.
#[derive(Debug, Clone, Copy)]
pub struct MacvlanSpec<'a> {
    /// Name of the new interface.
    pub name: &'a str,
    /// Index of the parent, in the namespace of the connection.
    pub parent: u32,
    /// Where the new interface goes; `None`: here.
    pub namespace: Option<BorrowedFd<'a>>,
}

impl Netlink {
    /// Makes a veth pair, both ends down. Returns the index of the near end.
    pub fn create_veth(&mut self, spec: &VethSpec<'_>) -> Result<u32> {
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(spec.peer_name.into()));
        if let Some(namespace) = spec.peer_namespace {
            peer.attributes
                .push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
        }
        let mut ends = vec![];
        if spec.queues != 0 {
            ends.extend([
                LinkAttribute::NumTxQueues(spec.queues),
                LinkAttribute::NumRxQueues(spec.queues),
            ]);
        }
        ends.extend(spec.mtu.map(LinkAttribute::Mtu));
        peer.attributes.extend(ends.iter().cloned());
        check_name("create a veth", spec.peer_name)?;
        let data = InfoData::Veth(InfoVeth::Peer(peer));
        self.create(spec.name, InfoKind::Veth, Some(data), ends)?;
        Ok(self.link_by_name(spec.name)?.index)
    }

    /// Makes a macvlan child in bridge mode, down. Find it with `link_by_name` where it was put.
    pub fn create_macvlan(&mut self, spec: &MacvlanSpec<'_>) -> Result<()> {
        let mut attributes = vec![LinkAttribute::Link(spec.parent)];
        attributes.extend(
            spec.namespace
                .map(|namespace| LinkAttribute::NetNsFd(namespace.as_raw_fd())),
        );
        let data = InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::Bridge)]);
        self.create(spec.name, InfoKind::MacVlan, Some(data), attributes)
    }

    /// Makes a bridge, down. Returns its index.
    pub fn create_bridge(&mut self, name: &str) -> Result<u32> {
        self.create(name, InfoKind::Bridge, None, vec![])?;
        Ok(self.link_by_name(name)?.index)
    }

    /// Makes a dummy interface, down. Returns its index.
    pub fn create_dummy(&mut self, name: &str) -> Result<u32> {
        self.create(name, InfoKind::Dummy, None, vec![])?;
        Ok(self.link_by_name(name)?.index)
    }

    fn create(
        &mut self,
        name: &str,
        kind: InfoKind,
        data: Option<InfoData>,
        mut attributes: Vec<LinkAttribute>,
    ) -> Result<()> {
        let operation = format!("create {kind} {name}");
        check_name(&operation, name)?;
        let mut info = vec![LinkInfo::Kind(kind)];
        info.extend(data.map(LinkInfo::Data));
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        message.attributes.append(&mut attributes);
        message.attributes.push(LinkAttribute::LinkInfo(info));
        self.socket.change(
            &operation,
            RouteNetlinkMessage::NewLink(message),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Brings an interface up.
    pub fn set_up(&mut self, index: u32) -> Result<()> {
        self.set_flags(index, LinkFlags::Up, true)
    }

    /// Takes an interface down.
    pub fn set_down(&mut self, index: u32) -> Result<()> {
        self.set_flags(index, LinkFlags::Up, false)
    }

    /// Makes an interface take frames for every station, as the end of a wire must. It stays so.
    pub fn set_promiscuous(&mut self, index: u32) -> Result<()> {
        self.set_flags(index, LinkFlags::Promisc, true)
    }

    fn set_flags(&mut self, index: u32, flag: LinkFlags, on: bool) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.change_mask = flag;
        message.header.flags = if on { flag } else { LinkFlags::empty() };
        let state = if on { "on" } else { "off" };
        let operation = format!("switch {flag:?} of interface index {index} {state}");
        self.socket
            .change(&operation, RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Sets the largest layer-3 packet, in bytes.
    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> Result<()> {
        self.set(
            index,
            &format!("set the mtu of interface index {index} to {mtu}"),
            LinkAttribute::Mtu(mtu),
        )
    }

    /// Sets the hardware address. Many drivers want the interface down.
    pub fn set_mac(&mut self, index: u32, mac: [u8; 6]) -> Result<()> {
        let operation = format!("set the mac address of interface index {index} to {mac:02x?}");
        self.set(index, &operation, LinkAttribute::Address(mac.to_vec()))
    }

    /// Renames an interface.
    pub fn set_name(&mut self, index: u32, name: &str) -> Result<()> {
        let operation = format!("rename interface index {index} to {name}");
        check_name(&operation, name)?;
        self.set(index, &operation, LinkAttribute::IfName(name.into()))
    }

    /// Makes an interface a port of a bridge; `None` releases it.
    pub fn set_master(&mut self, index: u32, master: Option<u32>) -> Result<()> {
        let operation = match master {
            Some(master) => format!("make interface index {index} a port of {master}"),
            None => format!("release interface index {index} from its bridge"),
        };
        self.set(index, &operation, LinkAttribute::Controller(master.unwrap_or(0)))
    }

    /// Moves an interface to another namespace; it loses its addresses and goes down.
    pub fn move_to_netns(&mut self, index: u32, namespace: BorrowedFd<'_>) -> Result<()> {
        let operation = format!("move interface index {index} to another namespace");
        self.set(index, &operation, LinkAttribute::NetNsFd(namespace.as_raw_fd()))
    }

    fn set(&mut self, index: u32, operation: &str, attribute: LinkAttribute) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(attribute);
        self.socket
            .change(operation, RouteNetlinkMessage::SetLink(message), 0)
    }

    /// Deletes an interface; a veth takes its peer along.
    pub fn delete_link(&mut self, index: u32) -> Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        let operation = format!("delete interface index {index}");
        self.socket
            .change(&operation, RouteNetlinkMessage::DelLink(message), 0)
    }

    /// Gives an interface an address, or changes the one it has. IPv6 without duplicate address detection,
    /// so that it can be used at once.
    pub fn add_address(&mut self, index: u32, address: IpAddr, prefix_len: u8) -> Result<()> {
        let operation = format!("add address {address}/{prefix_len} to interface index {index}");
        let family = Family::of(&address);
        if prefix_len > family.bits() {
            let reason = format!("an {family} prefix has at most {} bits", family.bits());
            return Err(Error::Invalid { operation, reason });
        }
        let mut message = address_message(index, address, prefix_len);
        match address {
            // What the kernel leaves to user space: without it no broadcast route appears.
            IpAddr::V4(v4) if prefix_len < 31 => {
                let broadcast = v4.to_bits() | u32::MAX >> prefix_len;
                message
                    .attributes
                    .push(AddressAttribute::Broadcast(broadcast.into()));
            }
            IpAddr::V4(_) => {}
            IpAddr::V6(_) => message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad)),
        }
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        self.socket
            .change(&operation, RouteNetlinkMessage::NewAddress(message), flags)
    }

    /// Takes an address from an interface.
    pub fn delete_address(&mut self, index: u32, address: IpAddr, prefix_len: u8) -> Result<()> {
        let operation = format!("delete address {address}/{prefix_len} from interface index {index}");
        let message = address_message(index, address, prefix_len);
        self.socket
            .change(&operation, RouteNetlinkMessage::DelAddress(message), 0)
    }
}

fn address_message(index: u32, address: IpAddr, prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = Family::of(&address).wire();
    message.header.index = index;
    message.header.prefix_len = prefix_len;
    message.attributes = vec![
        AddressAttribute::Local(address),
        AddressAttribute::Address(address),
    ];
    message
}

fn check_name(operation: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_BYTES {
        let reason = format!(
            "interface name \"{name}\" has {} bytes; 1 to {NAME_BYTES} are allowed",
            name.len()
        );
        return Err(Error::Invalid {
            operation: operation.into(),
            reason,
        });
    }
    Ok(())
}
