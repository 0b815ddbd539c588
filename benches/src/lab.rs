//! One contender in its own network: source, firewall and sink, each in a namespace.
//!
//! Owns the namespaces and what stands in the firewall's. Labs of all contenders exist side by side, so that rounds
//! can be interleaved; none shares rules, routes or sysctls with another. Kernel forwarding is on only where the kernel
//! is what forwards, or is asked for the way. Behind the source and behind the sink lies a network of many addresses each.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use bulkhead_dataplane::netlink::ethtool::Offload;
use bulkhead_testkit::{Host, HostSpec, Namespace, Topology};

use crate::bulkhead::Bulkhead;
use crate::conntrack;
use crate::contender::{Carrier, Contender};
use crate::frame::FrameSpec;
use crate::object::{Globals, Object};
use crate::policy::{self, Policy, Rules};

/// Prefix of all namespaces' names.
pub const PREFIX: &str = "bht-bench";
/// Source port of the first flow.
pub const FIRST_PORT: u16 = 20_000;
/// Destination port of measured packets.
pub const SINK_PORT: u16 = 4_242;
/// The first source address; its /10 lies behind the source.
pub const SOURCES: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 1);
/// The first destination; its /10 lies behind the sink.
pub const TARGETS: Ipv4Addr = Ipv4Addr::new(10, 192, 0, 1);
/// Length of both prefixes.
const NETWORK_BITS: u8 = 10;

/// What the lab is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Frames made by XDP: whatever they are redirected into needs GRO, or XDP at the far end.
    Frames,
    /// Sockets: every interface as the kernel makes it, but for GRO where XDP redirects into it.
    Sockets,
}

/// A contender's network.
pub struct Lab {
    /// Who is in it.
    pub contender: Contender,
    policy: Policy,
    // Dropped before the namespaces they stand in.
    bulkhead: Option<Bulkhead>,
    bare: Vec<Object>,
    topology: Topology,
}

impl Lab {
    /// Makes the network and starts what forwards there. For frames bare redirects and Bulkhead are the caller's.
    pub fn new(contender: Contender, purpose: Purpose, policy: Policy) -> Result<Self> {
        let mut lab = Self::bare(contender, purpose, policy)?;
        match (contender.carrier(), purpose) {
            (Carrier::Bulkhead { .. }, Purpose::Sockets) => lab.start_bulkhead(1_000)?,
            (Carrier::BareTcx(name), Purpose::Sockets) => lab.redirect_both_ways(name)?,
            _ => {}
        }
        Ok(lab)
    }

    /// The same without Bulkhead in it.
    pub fn bare(contender: Contender, purpose: Purpose, policy: Policy) -> Result<Self> {
        Self::build(contender, purpose, policy)
            .with_context(|| format!("cannot set up contender {}", contender.id()))
    }

    fn build(contender: Contender, purpose: Purpose, policy: Policy) -> Result<Self> {
        let (mut source, mut sink) = (HostSpec::new("source"), HostSpec::new("sink"));
        let xdp = matches!(contender.carrier(), Carrier::Bulkhead { xdp: true, .. });
        if purpose == Purpose::Frames || xdp {
            // For replies that XDP redirects.
            source = source.host_gro();
        }
        if purpose == Purpose::Sockets && xdp {
            // Nothing is attached there that would let them in.
            sink = sink.host_gro();
        }
        let topology = Topology::builder(PREFIX)
            .host(source)
            .host(sink)
            .kernel_forwarding(contender.kernel_forwarding())
            .build()?;
        let firewall = topology.firewall();
        for (name, network) in [("source", SOURCES), ("sink", TARGETS)] {
            let host = topology.host(name);
            let network = IpAddr::V4(u32::from(network).wrapping_sub(1).into());
            firewall
                .netlink()?
                .add_route(network, NETWORK_BITS, Some(host.v4.into()), None)?;
            if purpose == Purpose::Frames {
                firewall
                    .ethtool()?
                    .set_offload(&host.firewall_interface, Offload::Gro, true)?;
            }
        }
        topology.resolve_neighbours()?;
        let lab = Self {
            contender,
            policy,
            bulkhead: None,
            bare: Vec::new(),
            topology,
        };
        if let Carrier::Kernel(Some(rules)) = contender.carrier() {
            conntrack::set_timeouts(lab.firewall())?;
            lab.load(rules)?;
        }
        Ok(lab)
    }

    /// What the kernel's firewall is told to load a policy, or with `replace` to take it instead of the present one.
    pub fn input(&self, rules: Rules, policy: Policy, replace: bool) -> String {
        match rules {
            Rules::Ipset if replace => policy::ipset_in_place(policy),
            Rules::Ipset => policy::ipset(policy, policy::SET),
            _ => policy::nft(rules, policy),
        }
    }

    /// Gives it to the tool whose language it is.
    pub fn enter_rules(&self, rules: Rules, input: &str) -> Result<()> {
        match rules {
            Rules::Ipset => feed(self.firewall(), "ipset", &["restore"], input),
            _ => feed(self.firewall(), "nft", &["-f", "-"], input),
        }
    }

    fn load(&self, rules: Rules) -> Result<()> {
        let input = self.input(rules, self.policy, false);
        if !input.is_empty() {
            self.enter_rules(rules, &input)?;
        }
        if rules == Rules::Ipset {
            let chains = policy::iptables(self.policy);
            feed(self.firewall(), "iptables-legacy-restore", &[], &chains)?;
        }
        Ok(())
    }

    /// A bare redirect on either side, each into the other.
    fn redirect_both_ways(&mut self, program: &str) -> Result<()> {
        let (source, sink) = (self.source(), self.sink());
        let mut bare = Vec::new();
        for (from, to) in [(source, sink), (sink, source)] {
            let mut object = Object::load(&Globals {
                frame: self.frame(),
                source_ifindex: from.firewall_index,
                bare_ifindex: to.firewall_index,
                bare_macs: [to.mac, to.firewall_mac],
                bare_entries: 0,
                draws: false,
            })?;
            self.firewall()
                .run(|| object.attach_tcx(program, &from.firewall_interface))?;
            bare.push(object);
        }
        self.bare = bare;
        Ok(())
    }

    /// The measured packet of this network.
    pub fn frame(&self) -> FrameSpec {
        FrameSpec {
            destination_mac: self.source().firewall_mac,
            source_mac: self.source().mac,
            first_source: SOURCES,
            first_target: TARGETS,
            first_port: FIRST_PORT,
            destination_port: SINK_PORT,
        }
    }

    /// Starts Bulkhead in the firewall's namespace; for [`Purpose::Frames`] once the sink can receive.
    pub fn start_bulkhead(&mut self, sessions: u32) -> Result<()> {
        let Carrier::Bulkhead { xdp, nat } = self.contender.carrier() else {
            return Ok(());
        };
        self.bulkhead = Some(Bulkhead::start(
            self.topology.firewall(),
            xdp,
            nat,
            self.policy,
            sessions,
        )?);
        Ok(())
    }

    /// Bulkhead, where it is the contender.
    pub const fn bulkhead(&self) -> Option<&Bulkhead> {
        self.bulkhead.as_ref()
    }

    /// What is permitted.
    pub const fn policy(&self) -> Policy {
        self.policy
    }

    /// The firewall's namespace.
    pub const fn firewall(&self) -> &Namespace {
        self.topology.firewall()
    }

    /// Where packets come from.
    pub fn source(&self) -> &Host {
        self.topology.host("source")
    }

    /// Where they go.
    pub fn sink(&self) -> &Host {
        self.topology.host("sink")
    }

    /// Lets the sink take packets to every target as its own, for sockets.
    pub fn own_targets(&self) -> Result<()> {
        let network = format!(
            "{}/{NETWORK_BITS}",
            Ipv4Addr::from(u32::from(TARGETS).wrapping_sub(1))
        );
        let arguments = ["route", "add", "local", &network, "dev", "lo"];
        feed(&self.sink().namespace, "ip", &arguments, "")
    }
}

/// Runs a program in a namespace with an input.
pub fn feed(namespace: &Namespace, program: &str, arguments: &[&str], input: &str) -> Result<()> {
    // A child inherits the namespace of the thread that starts it.
    let mut child = namespace
        .run(|| {
            Command::new(program)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
        })
        .with_context(|| format!("cannot run {program}; `cargo xtask setup` installs it"))?;
    // A program that gives up early says why on its standard error.
    let written = child
        .stdin
        .take()
        .with_context(|| format!("{program} has no standard input"))?
        .write_all(input.as_bytes());
    let output = child
        .wait_with_output()
        .with_context(|| format!("cannot wait for {program}"))?;
    ensure!(
        output.status.success(),
        "{program} refused its input: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    written.with_context(|| format!("cannot write to {program}"))
}
