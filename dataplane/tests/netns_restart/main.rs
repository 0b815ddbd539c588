//! Restart, upgrade and death of the daemon: what is pinned goes on enforcing, the next one takes it over, and nobody who
//! talks notices.

mod builds;
mod child;
#[expect(dead_code, reason = "these tests pin, and start engines of their own")]
#[path = "../common/mod.rs"]
mod common;
mod configuration;
mod death;
mod inheritance;

use std::path::PathBuf;

use anyhow::Result;
use bulkhead_dataplane::{
    bpf::Sizes,
    engine::{Engine, EngineError, Options},
    link::{Hook, has_tcx, links_on},
    netlink::Direction,
    ruleset::{HookMode, Ruleset},
};
use bulkhead_testkit::{
    Bpffs, Counters, CountingStream, HostSpec, Stream, TcpServer, Topology, effort, privileged,
    xdp_reaches_hosts,
};

/// Small enough to be made twenty times in a test.
const SIZES: Sizes = Sizes {
    sessions: 4_096,
    half_open: 1_024,
    rules: 4_096,
    addresses: 4_096,
    routes: 1_024,
    neighbours: 256,
};

/// A firewall between two hosts, and the bpffs it pins in.
struct Lab {
    topology: Topology,
    bpffs: Bpffs,
}

impl Lab {
    fn new(shape: impl Fn(HostSpec) -> HostSpec) -> Result<Self> {
        let topology = Topology::builder("bhpin-")
            .host(shape(HostSpec::new("inside")))
            .host(shape(HostSpec::new("outside")))
            .build()?;
        topology.resolve_neighbours()?;
        Ok(Self {
            topology,
            bpffs: Bpffs::mount()?,
        })
    }

    fn pins(&self) -> PathBuf {
        self.bpffs.path().join("bulkhead/edge")
    }

    fn options(&self) -> Options {
        Options {
            sizes: SIZES,
            pins: Some(self.pins()),
            ..Options::default()
        }
    }

    fn start(&self, ruleset: Ruleset) -> Result<Engine, EngineError> {
        self.start_with(ruleset, &self.options())
    }

    fn start_with(&self, ruleset: Ruleset, options: &Options) -> Result<Engine, EngineError> {
        self.topology.firewall().run(|| Engine::start(ruleset, options))
    }

    /// Counting streams of both families that policy permits.
    fn counting(&self) -> Result<Vec<CountingStream>> {
        let (inside, outside) = (self.topology.host("inside"), self.topology.host("outside"));
        [outside.v4_port(53), outside.v6_port(53)]
            .into_iter()
            .map(|to| CountingStream::start(&inside.namespace, &outside.namespace, to))
            .collect()
    }

    /// A TCP server and a bulk stream to it, of each family.
    fn bulk(&self) -> Result<(Vec<TcpServer>, Vec<Stream>)> {
        self.streams(1 << 20)
    }

    /// The same for XDP: a veth with XDP takes packets one by one, and drops those beyond 256 (drivers/net/veth.c,
    /// `VETH_RING_SIZE`) where nobody runs to take them off. What is counted must not be lost to that.
    fn bulk_at(&self, hook: HookMode) -> Result<(Vec<TcpServer>, Vec<Stream>)> {
        match hook {
            HookMode::Xdp => self.streams(32 << 10),
            _ => self.bulk(),
        }
    }

    fn streams(&self, bytes: u64) -> Result<(Vec<TcpServer>, Vec<Stream>)> {
        let (inside, outside) = (self.topology.host("inside"), self.topology.host("outside"));
        let mut servers = Vec::new();
        let mut streams = Vec::new();
        for to in [outside.v4_port(80), outside.v6_port(80)] {
            servers.push(TcpServer::start(&outside.namespace, to)?);
            let conversation = inside
                .client()
                .tcp(to)?
                .answered()
                .unwrap_or_else(|error| panic!("{to}: {error}"));
            streams.push(Stream::start(conversation, bytes)?);
        }
        Ok((servers, streams))
    }

    /// What may begin begins, and what may not does not, in both families.
    #[track_caller]
    fn policy_holds(&self) {
        let (inside, outside) = (self.topology.host("inside"), self.topology.host("outside"));
        let brief = || inside.client().timeout(std::time::Duration::from_millis(150));
        for (permitted, denied) in [
            (outside.v4_port(80), outside.v4_port(81)),
            (outside.v6_port(80), outside.v6_port(81)),
        ] {
            inside
                .client()
                .tcp(permitted)
                .expect("a socket")
                .answered()
                .unwrap_or_else(|error| panic!("{permitted}: {error}"));
            let outcome = brief().tcp(denied).expect("a socket");
            assert!(!outcome.is_answered(), "{denied} is not permitted");
        }
    }

    /// Servers where policy forbids to go: whoever reaches them was let through.
    fn forbidden(&self) -> Result<Vec<TcpServer>> {
        let outside = self.topology.host("outside");
        [outside.v4_port(81), outside.v6_port(81)]
            .into_iter()
            .map(|to| TcpServer::start(&outside.namespace, to))
            .collect()
    }
}

/// Programs on a hook of one of the firewall's interfaces.
fn programs(lab: &Lab, hook: Hook, ifindex: u32) -> usize {
    let firewall = lab.topology.firewall();
    if has_tcx() {
        let links = firewall.run(|| links_on(hook, ifindex));
        return links.expect("an answer").len();
    }
    let direction = if hook == Hook::Egress {
        Direction::Egress
    } else {
        Direction::Ingress
    };
    let filter = firewall.netlink().expect("netlink").filter(ifindex, direction);
    usize::from(filter.expect("an answer").is_some())
}

/// Checks that no datagram is missing.
#[track_caller]
fn whole(streams: Vec<CountingStream>) {
    for stream in streams {
        let server = stream.server();
        let count = stream.finish();
        assert!(count.is_whole() && count.sent > 100, "{server}: {count:?}");
    }
}

/// Packets that were dropped, by reason, without what hosts multicast and what the tests try in vain.
fn dropped(counters: &Counters) -> Counters {
    let expected = ["host_inbound_deny", "default_deny"];
    let drops = bulkhead_abi::Reason::ALL
        .iter()
        .filter(|reason| reason.is_drop() && !expected.contains(&reason.name()));
    drops
        .filter_map(|reason| {
            let count = counters.get(reason.name()).copied().unwrap_or(0);
            (count != 0).then(|| (reason.name().to_owned(), count))
        })
        .collect()
}

/// Restarts often, while streams of both families and both protocols go on.
fn restarts(hook: HookMode, nat: bool, rounds: usize) -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(|host| {
        if hook == HookMode::Xdp {
            host.host_gro()
        } else {
            host
        }
    })?;
    let rules = || common::ruleset(hook, nat);
    let mut engine = lab.start(rules())?;
    let _forbidden = lab.forbidden()?;
    let (_servers, bulk) = lab.bulk_at(hook)?;
    let counting = lab.counting()?;
    bulk.iter().try_for_each(|stream| stream.advance(2))?;
    let ids = |engine: &Engine| -> Result<Vec<u64>> {
        let is_stream = |session: &bulkhead_dataplane::engine::Session| session.original.packets > 20;
        let mut ids: Vec<u64> = engine
            .sessions(&is_stream, 100)?
            .sessions
            .iter()
            .map(|session| session.id)
            .collect();
        ids.sort_unstable();
        Ok(ids)
    };
    // A busy machine takes its time until every stream has spoken often enough.
    let deadline = effort::deadline(std::time::Duration::from_secs(30));
    let mut before = ids(&engine)?;
    while before.len() < 4 && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(50));
        before = ids(&engine)?;
    }
    assert!(before.len() >= 4, "{before:?}");
    let mut generation = engine.generation();
    for round in 0..effort(rounds) {
        drop(engine);
        if round % 5 == 0 {
            // Nobody is there, and everything goes on.
            counting.iter().try_for_each(|stream| stream.advance(20))?;
            lab.policy_holds();
        }
        engine = lab.start(rules())?;
        assert!(engine.generation() > generation, "numbers go on");
        generation = engine.generation();
        counting.iter().try_for_each(|stream| stream.advance(20))?;
    }
    bulk.iter().try_for_each(|stream| stream.advance(2))?;
    lab.policy_holds();
    let after = ids(&engine)?;
    assert!(before.iter().all(|id| after.contains(id)), "{before:?} {after:?}");
    let counters = engine.counters()?;
    assert_eq!(
        counters["established_xdp"] > 0,
        hook == HookMode::Xdp && xdp_reaches_hosts()?,
        "{counters:?}"
    );
    let exchanged: u64 = bulk.iter().map(|stream| stream.report().exchanges).sum();
    assert!(exchanged > 8, "{exchanged}");
    drop(bulk);
    let lost = dropped(&engine.counters()?);
    assert!(lost.is_empty(), "{lost:?}");
    whole(counting);
    Ok(())
}

#[test]
fn netns_restart_twenty_times_loses_nothing() -> Result<()> {
    restarts(HookMode::Auto, false, 20)
}

#[test]
fn netns_restart_twenty_times_loses_nothing_source_nat() -> Result<()> {
    restarts(HookMode::Auto, true, 20)
}

#[test]
fn netns_restart_twenty_times_loses_nothing_forced_xdp() -> Result<()> {
    restarts(HookMode::Xdp, false, 20)
}

#[test]
fn netns_restart_twenty_times_loses_nothing_forced_xdp_source_nat() -> Result<()> {
    restarts(HookMode::Xdp, true, 20)
}
