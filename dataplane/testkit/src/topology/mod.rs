//! A firewall and the hosts around it, each in a namespace of its own.
//!
//! Owns every namespace and cable. By default a host hangs on a veth with default offloads, because that is
//! what users have. Host number N (from 0) gets `10.77.N.2/24` and `fd77:N::2/64` unless told otherwise, the
//! firewall `.1` and `::1` on an interface `net(N+1)`, named as Multus does. The kernel forwards nothing
//! unless asked to.

mod spec;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bulkhead_dataplane::netlink::ethtool::Offload;
use bulkhead_dataplane::netlink::netdev;
use bulkhead_dataplane::netlink::{MacvlanSpec, Netlink, VethSpec};

use crate::effort::{self, patience};
use crate::endpoint::Client;
use crate::namespace::Namespace;

pub use self::spec::{Attachment, HostSpec, Offloads};

/// Name of every host's interface.
const HOST_INTERFACE: &str = "eth0";
/// How long links may take to come up, and neighbours to answer each other.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

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
        let mut topology = Topology {
            hosts: Vec::new(),
            switches: Vec::new(),
            firewall,
        };
        for (number, spec) in self.hosts.into_iter().enumerate() {
            ensure!(
                topology.find(&spec.name).is_none(),
                "two hosts are named \"{}\"",
                spec.name
            );
            let name = spec.name.clone();
            topology
                .attach(&self.prefix, number, spec)
                .with_context(|| format!("cannot set up host \"{name}\""))?;
        }
        topology.await_links()?;
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
        TopologyBuilder {
            prefix: prefix.to_owned(),
            hosts: Vec::new(),
            kernel_forwarding: false,
        }
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
        self.find(name)
            .unwrap_or_else(|| panic!("no host is named \"{name}\""))
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
                    .with_context(|| {
                        format!("host \"{}\" and the firewall do not hear each other", host.name)
                    })?;
            }
        }
        Ok(())
    }

    /// Waits until every interface carries packets: the kernel gives a link its queue only after it has
    /// noticed, a moment later, that the far end is up.
    fn await_links(&self) -> Result<()> {
        let deadline = effort::deadline(SETTLE_TIMEOUT);
        let namespaces = self
            .switches
            .iter()
            .chain(self.hosts.iter().map(|host| &host.namespace));
        for namespace in namespaces.chain([&self.firewall]) {
            let mut netlink = namespace.netlink()?;
            while let Some(link) = netlink.links()?.into_iter().find(|link| link.up && !link.running) {
                ensure!(
                    Instant::now() < deadline,
                    "{} in {} has no carrier after {} s",
                    link.name,
                    namespace.name(),
                    patience(SETTLE_TIMEOUT).as_secs()
                );
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }

    fn attach(&mut self, prefix: &str, number: usize, spec: HostSpec) -> Result<()> {
        let octet = u8::try_from(number).context("more than 256 hosts")?;
        let segment = u16::from(octet);
        let firewall_interface = spec
            .firewall_interface
            .unwrap_or_else(|| format!("net{}", number + 1));
        let (firewall_v4, v4, v4_len) = spec.v4.unwrap_or((
            Ipv4Addr::new(10, 77, octet, 1),
            Ipv4Addr::new(10, 77, octet, 2),
            24,
        ));
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
                    netlink.create_macvlan(&MacvlanSpec {
                        name,
                        parent,
                        namespace: Some(namespace.fd()),
                    })
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
            namespace
                .ethtool()?
                .set_offload(HOST_INTERFACE, Offload::Gro, true)?;
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
            let anywhere: IpAddr = if address.is_ipv4() {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            };
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

/// Whether a firewall may redirect by XDP to hosts. Their ends of the cables are in namespaces it does not see, and a kernel
/// before 6.3 does not tell it whether they would receive: what goes to them leaves XDP for the next hook.
pub fn xdp_reaches_hosts() -> Result<bool> {
    const LOOPBACK: u32 = 1;
    Ok(netdev::xdp_features(LOOPBACK)?.is_some())
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
    let deadline = effort::deadline(SETTLE_TIMEOUT);
    netlink.probe_neighbour(index, address)?;
    loop {
        if netlink
            .neighbour(index, address)?
            .is_some_and(|neighbour| neighbour.usable())
        {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!(
                "{address} did not answer neighbour discovery within {} s",
                patience(SETTLE_TIMEOUT).as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
