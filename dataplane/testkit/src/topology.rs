//! A firewall and the hosts around it, each in a namespace of its own.
//!
//! Owns every namespace and cable. By default a host hangs on a veth with default offloads, because that is
//! what users have. Host number N (from 0) gets `10.77.N.2/24` and `fd77:N::2/64` unless told otherwise, the
//! firewall `.1` and `::1` on an interface `net(N+1)`, named as Multus does. The kernel forwards nothing
//! unless asked to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bulkhead_dataplane::netlink::ethtool::Offload;
use bulkhead_dataplane::netlink::{MacvlanSpec, Netlink, VethSpec};

use crate::endpoint::Client;
use crate::namespace::Namespace;

/// Name of every host's interface.
const HOST_INTERFACE: &str = "eth0";
/// How long neighbours may take to answer each other.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

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
    name: String,
    attachment: Attachment,
    offloads: Offloads,
    mtu: Option<u32>,
    queues: u32,
    host_gro: bool,
    internet: bool,
    firewall_interface: Option<String>,
    v4: Option<(Ipv4Addr, Ipv4Addr, u8)>,
    v6: Option<(Ipv6Addr, Ipv6Addr, u8)>,
    further: Vec<(IpAddr, u8)>,
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

/// A host that is up.
#[derive(Debug)]
pub struct Host {
    /// Its name in the topology.
    pub name: String,
    /// Where it lives.
    pub namespace: Namespace,
    /// Its interface.
    pub interface: String,
    /// The MAC address of its interface.
    pub mac: [u8; 6],
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// The firewall's interface towards it.
    pub firewall_interface: String,
    /// The index of that interface.
    pub firewall_index: u32,
    /// The MAC address of that interface.
    pub firewall_mac: [u8; 6],
    /// The firewall's IPv4 address there: the host's gateway.
    pub firewall_v4: Ipv4Addr,
    /// The firewall's IPv6 address there: the host's gateway.
    pub firewall_v6: Ipv6Addr,
}

impl Host {
    /// Somebody on the host who starts conversations.
    pub const fn client(&self) -> Client<'_> {
        Client::new(&self.namespace)
    }

    /// A port at the host's IPv4 address.
    pub const fn v4_port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.v4), port)
    }

    /// A port at the host's IPv6 address.
    pub const fn v6_port(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(self.v6), port)
    }

    /// Both addresses of the host, IPv4 first.
    pub const fn addresses(&self) -> [IpAddr; 2] {
        [IpAddr::V4(self.v4), IpAddr::V6(self.v6)]
    }

    /// Both addresses of the firewall on this side, IPv4 first.
    pub const fn gateways(&self) -> [IpAddr; 2] {
        [IpAddr::V4(self.firewall_v4), IpAddr::V6(self.firewall_v6)]
    }
}

/// A network to be made.
#[derive(Debug, Clone)]
pub struct TopologyBuilder {
    prefix: String,
    hosts: Vec<HostSpec>,
    kernel_forwarding: bool,
}

impl TopologyBuilder {
    /// Adds a host.
    #[must_use]
    pub fn host(mut self, host: HostSpec) -> Self {
        self.hosts.push(host);
        self
    }

    /// Lets the firewall's kernel forward by itself.
    #[must_use]
    pub const fn kernel_forwarding(mut self, on: bool) -> Self {
        self.kernel_forwarding = on;
        self
    }

    /// Makes it all. What was made before an error is removed again.
    pub fn build(self) -> Result<Topology> {
        let firewall = Namespace::new(&format!("{}-fw", self.prefix))?;
        firewall.set_kernel_forwarding(self.kernel_forwarding)?;
        let mut topology = Topology { hosts: Vec::new(), switches: Vec::new(), firewall };
        for (number, spec) in self.hosts.into_iter().enumerate() {
            ensure!(topology.find(&spec.name).is_none(), "two hosts are named \"{}\"", spec.name);
            let name = spec.name.clone();
            topology
                .attach(&self.prefix, number, spec)
                .with_context(|| format!("cannot set up host \"{name}\""))?;
        }
        Ok(topology)
    }
}

/// A firewall and its hosts; all of it goes when this is dropped.
#[derive(Debug)]
pub struct Topology {
    // Dropped first: a host's interfaces must be gone before the parents they stand on.
    hosts: Vec<Host>,
    /// Where the parents of macvlans are.
    switches: Vec<Namespace>,
    firewall: Namespace,
}

impl Topology {
    /// Begins a network whose namespaces are named after this prefix.
    pub fn builder(prefix: &str) -> TopologyBuilder {
        TopologyBuilder { prefix: prefix.to_owned(), hosts: Vec::new(), kernel_forwarding: false }
    }

    /// The firewall's namespace.
    pub const fn firewall(&self) -> &Namespace {
        &self.firewall
    }

    /// All hosts in the order in which they were added.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host of this name, if there is one.
    pub fn find(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// The host of this name.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn host(&self, name: &str) -> &Host {
        self.find(name).unwrap_or_else(|| panic!("no host is named \"{name}\""))
    }

    /// Leaves everything behind when this is dropped.
    pub fn keep(&mut self) {
        self.firewall.keep();
        self.switches.iter_mut().for_each(Namespace::keep);
        self.hosts.iter_mut().for_each(|host| host.namespace.keep());
    }

    /// Lets every host and the firewall find each other's MAC address, so that what follows is free of
    /// neighbour discovery.
    pub fn resolve_neighbours(&self) -> Result<()> {
        let mut firewall = self.firewall.netlink()?;
        for host in &self.hosts {
            let mut netlink = host.namespace.netlink()?;
            let index = netlink.link_by_name(&host.interface)?.index;
            for (gateway, address) in host.gateways().into_iter().zip(host.addresses()) {
                resolve(&mut netlink, index, gateway)
                    .and_then(|()| resolve(&mut firewall, host.firewall_index, address))
                    .with_context(|| format!("host \"{}\" and the firewall do not hear each other", host.name))?;
            }
        }
        Ok(())
    }

    fn attach(&mut self, prefix: &str, number: usize, spec: HostSpec) -> Result<()> {
        let octet = u8::try_from(number).context("more than 256 hosts")?;
        let segment = u16::from(octet);
        let firewall_interface = spec.firewall_interface.unwrap_or_else(|| format!("net{}", number + 1));
        let (firewall_v4, v4, v4_len) =
            spec.v4.unwrap_or((Ipv4Addr::new(10, 77, octet, 1), Ipv4Addr::new(10, 77, octet, 2), 24));
        let (firewall_v6, v6, v6_len) = spec.v6.unwrap_or((
            Ipv6Addr::new(0xfd77, segment, 0, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0xfd77, segment, 0, 0, 0, 0, 0, 2),
            64,
        ));
        let namespace = Namespace::new(&format!("{prefix}-{}", spec.name))?;
        let near = &self.firewall;

        // The cable, and the switch in its middle if there is one.
        match spec.attachment {
            Attachment::Veth => {
                let cable = VethSpec {
                    name: HOST_INTERFACE,
                    peer_name: &firewall_interface,
                    peer_namespace: Some(near.fd()),
                    queues: spec.queues,
                    mtu: spec.mtu,
                };
                namespace.netlink()?.create_veth(&cable)?;
            }
            Attachment::Macvlan | Attachment::MacvlanOverVeth => {
                let switch = Namespace::new(&format!("{prefix}-sw"))?;
                let mut netlink = switch.netlink()?;
                let over_veth = spec.attachment == Attachment::MacvlanOverVeth;
                let cable = VethSpec {
                    name: "parent",
                    peer_name: if over_veth { HOST_INTERFACE } else { "carrier" },
                    peer_namespace: over_veth.then_some(namespace.fd()),
                    queues: spec.queues,
                    mtu: spec.mtu,
                };
                let parent = netlink.create_veth(&cable)?;
                // A parent without carrier carries nothing, so the far end is there and up too.
                netlink.set_up(parent)?;
                let child = |name, namespace: &Namespace, netlink: &mut Netlink| {
                    netlink.create_macvlan(&MacvlanSpec { name, parent, namespace: Some(namespace.fd()) })
                };
                child(&firewall_interface, near, &mut netlink)?;
                if !over_veth {
                    let carrier = netlink.link_by_name("carrier")?.index;
                    netlink.set_up(carrier)?;
                    child(HOST_INTERFACE, &namespace, &mut netlink)?;
                }
                if spec.offloads == Offloads::Off {
                    without_offloads(&switch, "parent")?;
                }
                self.switches.push(switch);
            }
        }

        // What the ends do by themselves.
        if spec.offloads == Offloads::Off {
            without_offloads(near, &firewall_interface)?;
            without_offloads(&namespace, HOST_INTERFACE)?;
        }
        if spec.host_gro {
            namespace.ethtool()?.set_offload(HOST_INTERFACE, Offload::Gro, true)?;
        }

        // Addresses and routes.
        let mut far = namespace.netlink()?;
        let mut netlink = near.netlink()?;
        let link = far.link_by_name(HOST_INTERFACE)?;
        let firewall_link = netlink.link_by_name(&firewall_interface)?;
        far.set_up(link.index)?;
        netlink.set_up(firewall_link.index)?;
        let pairs = [
            (IpAddr::V4(firewall_v4), IpAddr::V4(v4), v4_len),
            (IpAddr::V6(firewall_v6), IpAddr::V6(v6), v6_len),
        ];
        for (gateway, address, prefix_len) in pairs {
            netlink.add_address(firewall_link.index, gateway, prefix_len)?;
            far.add_address(link.index, address, prefix_len)?;
            let anywhere: IpAddr =
                if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            if spec.internet {
                netlink.add_route(anywhere, 0, Some(address), None)?;
            } else {
                far.add_route(anywhere, 0, Some(gateway), None)?;
            }
        }
        for (address, prefix_len) in spec.further {
            far.add_address(link.index, address, prefix_len)?;
        }
        self.hosts.push(Host {
            name: spec.name,
            namespace,
            interface: HOST_INTERFACE.to_owned(),
            mac: link.mac,
            v4,
            v6,
            firewall_interface,
            firewall_index: firewall_link.index,
            firewall_mac: firewall_link.mac,
            firewall_v4,
            firewall_v6,
        });
        Ok(())
    }
}

/// Switches off whatever can be switched off. A driver that lacks an offload refuses to hear of it.
fn without_offloads(namespace: &Namespace, interface: &str) -> Result<()> {
    let ethtool = namespace.ethtool()?;
    for offload in Offload::ALL {
        match ethtool.set_offload(interface, offload, false) {
            Err(error) if error.errno() == Some(libc::EOPNOTSUPP) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

fn resolve(netlink: &mut Netlink, index: u32, address: IpAddr) -> Result<()> {
    let deadline = Instant::now() + RESOLVE_TIMEOUT;
    netlink.probe_neighbour(index, address)?;
    loop {
        if netlink.neighbour(index, address)?.is_some_and(|neighbour| neighbour.usable()) {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("{address} did not answer neighbour discovery within {} s", RESOLVE_TIMEOUT.as_secs());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
