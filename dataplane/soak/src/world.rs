//! The network that is soaked: two hosts inside, a server in a DMZ, the world outside, and somebody who only attacks.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use bulkhead_dataplane::{
    bpf::Sizes,
    engine::{Engine, Options},
};
use bulkhead_testkit::{HostSpec, Namespace, TcpServer, Topology, UdpServer};

use crate::rules;

/// What every namespace's name begins with.
const PREFIX: &str = "bht-k";
/// Half-open sessions there is room for, per family: few, so that floods push each other out.
const HALF_OPEN: u32 = 8192;
/// Established sessions there is room for, per family.
const SESSIONS: u32 = 32_768;

/// The hosts, in the order of their interfaces `net1` to `net5`.
pub const HOSTS: [&str; 5] = ["alice", "bob", "web", "world", "storm"];

/// Hosts that answer, everywhere the same services: what does not answer is not permitted.
const SERVERS: [&str; 3] = ["alice", "web", "world"];
/// TCP ports they listen on.
pub const TCP_PORTS: [u16; 3] = [80, 8080, 22];
/// UDP ports they listen on.
pub const UDP_PORTS: [u16; 2] = [53, 8053];

/// The network and the engine in its middle.
pub struct World {
    // The servers go before the namespaces they live in.
    _servers: (Vec<TcpServer>, Vec<UdpServer>),
    /// The engine under test.
    pub engine: Engine,
    /// The network.
    pub lab: Topology,
}

/// How the session tables came to rest.
#[derive(Clone, Debug)]
pub struct Rest {
    /// Until they were empty, or patience ended.
    pub took: Duration,
    /// Flows that are left.
    pub left: u64,
    /// What some of them are.
    pub sample: Vec<String>,
}

/// Flows named in a [`Rest`].
const SAMPLE: usize = 5;

impl World {
    /// Makes it; what an earlier run that was killed left behind is removed first.
    pub fn new() -> Result<Self> {
        Namespace::sweep(PREFIX)?;
        let lab = Topology::builder(PREFIX)
            .host(HostSpec::new(HOSTS[0]))
            .host(HostSpec::new(HOSTS[1]))
            .host(HostSpec::new(HOSTS[2]))
            .host(HostSpec::new(HOSTS[3]).internet())
            .host(HostSpec::new(HOSTS[4]))
            .build()?;
        // The world knows the way to the server, as north-south traffic must, and none to the hosts inside.
        let (world, web) = (lab.host("world"), lab.host("web"));
        let mut netlink = world.namespace.netlink()?;
        let [v4, v6] = web.addresses();
        netlink.add_route(v4, 32, Some(world.firewall_v4.into()), None)?;
        netlink.add_route(v6, 128, Some(world.firewall_v6.into()), None)?;
        let options = Options {
            sizes: Sizes {
                sessions: SESSIONS,
                half_open: HALF_OPEN,
                ..Sizes::default()
            },
            ..Options::default()
        };
        let engine = lab.firewall().run(|| Engine::start(rules::base(), &options))?;
        lab.resolve_neighbours()?;
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        for host in SERVERS.map(|name| lab.host(name)) {
            for address in host.addresses() {
                for port in TCP_PORTS {
                    tcp.push(TcpServer::start(&host.namespace, (address, port).into())?);
                }
                for port in UDP_PORTS {
                    udp.push(UdpServer::start(&host.namespace, (address, port).into())?);
                }
            }
        }
        Ok(Self {
            _servers: (tcp, udp),
            engine,
            lab,
        })
    }

    /// The firewall's namespace.
    pub const fn firewall(&self) -> &Namespace {
        self.lab.firewall()
    }

    /// Flows in all four session tables, replies included, and what some of them are.
    fn flows(&self) -> Result<(u64, Vec<String>)> {
        let maps = self.engine.with_object(|object| object.maps.clone());
        let (mut flows, mut sample) = (0, Vec::new());
        let mut note = |key: &dyn fmt::Debug, flow: &dyn fmt::Debug| {
            flows += 1;
            if sample.len() < SAMPLE {
                sample.push(format!("{key:?}: {flow:?}"));
            }
        };
        for table in [&maps.flows4, &maps.half_open4] {
            table.for_each(|key, flow| note(key, flow))?;
        }
        for table in [&maps.flows6, &maps.half_open6] {
            table.for_each(|key, flow| note(key, flow))?;
        }
        Ok((flows, sample))
    }

    /// Waits until every session has expired.
    pub fn rest(&self, patience: Duration) -> Result<Rest> {
        let began = Instant::now();
        loop {
            let (left, sample) = self.flows()?;
            let took = began.elapsed();
            if left == 0 || took > patience {
                return Ok(Rest { took, left, sample });
            }
            thread::sleep(Duration::from_millis(250));
        }
    }

    /// Commits the first ruleset twice: what a generation left behind is removed when the next but one is staged.
    pub fn settle_rules(&self) -> Result<()> {
        for _ in 0..2 {
            self.firewall().run(|| self.engine.commit(rules::base()))?;
        }
        Ok(())
    }
}
