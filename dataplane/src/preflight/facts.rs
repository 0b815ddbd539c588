//! What the choice of hooks rests on, as the kernel tells it at this moment.
//!
//! Owns the gathering, from rtnetlink, ethtool and the `netdev` family. Assumes that the interface is in the
//! network namespace of the calling thread. Refuses nothing: what the kernel does not tell stays `None`, and
//! the choice says so.

use crate::bpf::has_tcx;
use crate::netlink::ethtool::{Ethtool, Offload};
use crate::netlink::netdev::{self, XdpFeatures};
use crate::netlink::{Link, LinkKind, Netlink};

/// Facts of a data interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceFacts {
    /// Kernel name.
    pub name: String,
    /// What drives it.
    pub kind: LinkKind,
    /// The driver's name, where ethtool knows it.
    pub driver: Option<String>,
    /// Largest layer-3 packet, bytes.
    pub mtu: u32,
    /// Receive queues in use.
    pub rx_queues: u32,
    /// Transmit queues in use.
    pub tx_queues: u32,
    /// Whether the kernel has TCX.
    pub tcx: bool,
    /// What the driver can do with XDP now; `None` if this kernel does not tell.
    pub xdp: Option<XdpFeatures>,
    /// A veth's other end, where it is in the same namespace. It usually is not: then only [`Self::xdp`] tells of it.
    pub peer: Option<PeerFacts>,
}

/// Facts of a veth's other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFacts {
    /// Kernel name.
    pub name: String,
    /// Largest layer-3 packet, bytes.
    pub mtu: u32,
    /// Transmit queues in use.
    pub tx_queues: u32,
    /// Generic receive offload: what lets redirected frames in.
    pub gro: Option<bool>,
    /// TCP segmentation offload: what native XDP at our end takes away.
    pub tso: Option<bool>,
}

impl InterfaceFacts {
    /// Asks the kernel. What cannot be read is left out, with a line in the debug log.
    pub fn gather(link: &Link, netlink: &mut Netlink, ethtool: &Ethtool) -> Self {
        let (rx_queues, tx_queues) = queues(link, ethtool);
        Self {
            name: link.name.clone(),
            kind: link.kind.clone(),
            driver: told(&link.name, ethtool.driver(&link.name)),
            mtu: link.mtu,
            rx_queues,
            tx_queues,
            tcx: has_tcx(),
            xdp: told(&link.name, netdev::xdp_features(link.index)).flatten(),
            peer: peer(link, netlink, ethtool),
        }
    }

    /// The driver in words.
    pub(super) fn driver_name(&self) -> &str {
        self.driver.as_deref().unwrap_or("unknown to ethtool")
    }
}

fn peer(link: &Link, netlink: &mut Netlink, ethtool: &Ethtool) -> Option<PeerFacts> {
    let index = match (&link.kind, link.peer_index, link.peer_netnsid) {
        (LinkKind::Veth, Some(index), None) => index,
        _ => return None,
    };
    let peer = told(&link.name, netlink.link_by_index(index)).flatten()?;
    Some(PeerFacts {
        tx_queues: queues(&peer, ethtool).1,
        gro: told(&peer.name, ethtool.offload(&peer.name, Offload::Gro)),
        tso: told(&peer.name, ethtool.offload(&peer.name, Offload::Tso)),
        mtu: peer.mtu,
        name: peer.name,
    })
}

/// Receive and transmit queues in use; those allocated where the driver makes no difference.
fn queues(link: &Link, ethtool: &Ethtool) -> (u32, u32) {
    match told(&link.name, ethtool.channels(&link.name)).flatten() {
        Some(channels) => (channels.receiving(), channels.transmitting()),
        None => (link.rx_queues, link.tx_queues),
    }
}

fn told<T>(interface: &str, answer: crate::netlink::Result<T>) -> Option<T> {
    answer
        .inspect_err(|error| tracing::debug!(interface, %error, "the kernel does not tell"))
        .ok()
}
