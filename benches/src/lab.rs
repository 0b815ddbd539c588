//! One contender in its own network: source, firewall and sink, each in a namespace.
//!
//! Owns the namespaces and what stands in the firewall's. Labs of all contenders exist side by side, so that rounds
//! can be interleaved; none shares rules, routes or sysctls with another. Kernel forwarding is on only where the kernel
//! is what forwards, or is asked for the way.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use bulkhead_dataplane::netlink::ethtool::Offload;
use bulkhead_testkit::{Host, HostSpec, Namespace, Topology};

use crate::bulkhead::Bulkhead;
use crate::contender::{Carrier, Contender};

/// Prefix of all namespaces' names.
pub const PREFIX: &str = "bht-bench";
/// Source port of the first flow.
pub const FIRST_PORT: u16 = 20_000;
/// Destination port of measured packets.
pub const SINK_PORT: u16 = 4_242;

/// What the lab is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Frames made by XDP: whatever they are redirected into needs GRO, or XDP at the far end.
    Frames,
    /// Sockets: every interface as the kernel makes it.
    Sockets,
}

/// A contender's network.
pub struct Lab {
    /// Who is in it.
    pub contender: Contender,
    // Dropped before the namespaces it stands in.
    bulkhead: Option<Bulkhead>,
    topology: Topology,
}

impl Lab {
    /// Makes the network and starts what forwards there. Bare redirects are the caller's.
    pub fn new(contender: Contender, purpose: Purpose) -> Result<Self> {
        Self::build(contender, purpose).with_context(|| format!("cannot set up contender {}", contender.id()))
    }

    fn build(contender: Contender, purpose: Purpose) -> Result<Self> {
        let carrier = contender.carrier();
        let mut source = HostSpec::new("source");
        if purpose == Purpose::Frames {
            // For replies that XDP redirects while sessions are being established.
            source = source.host_gro();
        }
        let topology = Topology::builder(PREFIX)
            .host(source)
            .host(HostSpec::new("sink"))
            .kernel_forwarding(contender.kernel_forwarding())
            .build()?;
        if purpose == Purpose::Frames {
            let ingress = &topology.host("source").firewall_interface;
            topology
                .firewall()
                .ethtool()?
                .set_offload(ingress, Offload::Gro, true)?;
        }
        topology.resolve_neighbours()?;
        if let Carrier::Kernel(Some(rules)) = carrier {
            nft(topology.firewall(), rules)?;
        }
        let mut lab = Self {
            contender,
            bulkhead: None,
            topology,
        };
        if let Carrier::Bulkhead { xdp, nat } = carrier
            && purpose == Purpose::Sockets
        {
            lab.start_bulkhead(xdp, nat)?;
        }
        Ok(lab)
    }

    /// Starts Bulkhead in the firewall's namespace; for [`Purpose::Frames`] once the sink can receive.
    pub fn start_bulkhead(&mut self, xdp: bool, nat: bool) -> Result<()> {
        self.bulkhead = Some(Bulkhead::start(self.topology.firewall(), xdp, nat)?);
        Ok(())
    }

    /// Bulkhead, where it is the contender.
    pub const fn bulkhead(&self) -> Option<&Bulkhead> {
        self.bulkhead.as_ref()
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
}

/// Loads rules in a namespace.
fn nft(namespace: &Namespace, rules: &str) -> Result<()> {
    // A child inherits the namespace of the thread that starts it.
    let mut child = namespace
        .run(|| {
            Command::new("nft")
                .args(["-f", "-"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
        })
        .context("cannot run nft; is the package nftables installed?")?;
    child
        .stdin
        .take()
        .context("nft has no standard input")?
        .write_all(rules.as_bytes())?;
    let output = child.wait_with_output().context("cannot wait for nft")?;
    ensure!(
        output.status.success(),
        "nft refused the rules: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
