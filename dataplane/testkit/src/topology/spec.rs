//! What is asked of a topology: its hosts, and how each is joined to the firewall.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How a host is joined to the firewall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Attachment {
    /// A veth from one to the other.
    #[default]
    Veth,
    /// A macvlan at either end, siblings on one parent: frames pass inside the macvlan driver.
    Macvlan,
    /// A macvlan at the firewall over one end of a veth, the host at the other: frames pass the parent, as
    /// they do with a NIC.
    MacvlanOverVeth,
}

/// What the interfaces leave to the hardware that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offloads {
    /// As the kernel made them: checksums and segmentation put off.
    #[default]
    Default,
    /// All off at both ends: every packet complete and no larger than the MTU.
    Off,
}

/// A host to be made.
#[derive(Debug, Clone)]
pub struct HostSpec {
    pub(super) name: String,
    pub(super) attachment: Attachment,
    pub(super) offloads: Offloads,
    pub(super) mtu: Option<u32>,
    pub(super) queues: u32,
    pub(super) host_gro: bool,
    pub(super) internet: bool,
    pub(super) firewall_interface: Option<String>,
    pub(super) v4: Option<(Ipv4Addr, Ipv4Addr, u8)>,
    pub(super) v6: Option<(Ipv6Addr, Ipv6Addr, u8)>,
    pub(super) further: Vec<(IpAddr, u8)>,
}

impl HostSpec {
    /// A host on a veth with default offloads, one queue and an MTU of 1500.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            attachment: Attachment::default(),
            offloads: Offloads::default(),
            mtu: None,
            queues: 0,
            host_gro: false,
            internet: false,
            firewall_interface: None,
            v4: None,
            v6: None,
            further: Vec::new(),
        }
    }

    /// Joins it to the firewall in this way.
    #[must_use]
    pub const fn attachment(mut self, attachment: Attachment) -> Self {
        self.attachment = attachment;
        self
    }

    /// Leaves or removes the offloads of both ends.
    #[must_use]
    pub const fn offloads(mut self, offloads: Offloads) -> Self {
        self.offloads = offloads;
        self
    }

    /// Sets the MTU of both ends.
    #[must_use]
    pub const fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// Sets the number of receive and transmit queues of both ends of a veth.
    #[must_use]
    pub const fn queues(mut self, queues: u32) -> Self {
        self.queues = queues;
        self
    }

    /// Switches GRO on at the host's end: what lets frames in that XDP redirected.
    #[must_use]
    pub const fn host_gro(mut self) -> Self {
        self.host_gro = true;
        self
    }

    /// Makes it the rest of the world: it knows no route to the others, so it can only answer addresses
    /// that were translated, and the firewall's default route leads to it.
    #[must_use]
    pub const fn internet(mut self) -> Self {
        self.internet = true;
        self
    }

    /// Names the firewall's interface towards it.
    #[must_use]
    pub fn firewall_interface(mut self, name: &str) -> Self {
        self.firewall_interface = Some(name.to_owned());
        self
    }

    /// Sets the IPv4 addresses.
    #[must_use]
    pub const fn ipv4(mut self, firewall: Ipv4Addr, host: Ipv4Addr, prefix_len: u8) -> Self {
        self.v4 = Some((firewall, host, prefix_len));
        self
    }

    /// Sets the IPv6 addresses.
    #[must_use]
    pub const fn ipv6(mut self, firewall: Ipv6Addr, host: Ipv6Addr, prefix_len: u8) -> Self {
        self.v6 = Some((firewall, host, prefix_len));
        self
    }

    /// Gives the host a further address.
    #[must_use]
    pub fn further_address(mut self, address: IpAddr, prefix_len: u8) -> Self {
        self.further.push((address, prefix_len));
        self
    }
}
