//! Bulkhead as a contender: the engine in the firewall's namespace, with the policy that nftables gets too.

use anyhow::{Context as _, Result, ensure};
use bulkhead_dataplane::bpf::Sizes;
use bulkhead_dataplane::engine::{Engine, Options};
use bulkhead_dataplane::ruleset::{
    Action, HookMode, InterfaceRule, Policy, Ruleset, Service, ServiceMatch, SourceNat, SourceTranslation,
    Timeouts, Zone,
};
use bulkhead_testkit::Namespace;

/// Room for the benchmark's flows and for what the miss measurement opens; several engines live side by side.
const SIZES: Sizes = Sizes {
    sessions: 65_536,
    half_open: 32_768,
    rules: 1_024,
    addresses: 1_024,
    routes: 1_024,
    neighbours: 1_024,
};

/// A running data plane.
pub struct Bulkhead {
    engine: Engine,
}

impl Bulkhead {
    /// Starts in the firewall's namespace, hooked as told.
    pub fn start(firewall: &Namespace, xdp: bool, nat: bool) -> Result<Self> {
        let hook = if xdp { HookMode::Xdp } else { HookMode::Tcx };
        let engine = firewall
            .run(|| {
                Engine::start(
                    ruleset(hook, nat),
                    &Options {
                        sizes: SIZES,
                        ..Options::default()
                    },
                )
            })
            .context("cannot start the data plane")?;
        let this = Self { engine };
        let expected = if xdp { "xdp+tcx" } else { "tcx" };
        for interface in firewall.run(|| this.engine.interfaces())? {
            ensure!(
                interface.hook == expected,
                "{} is hooked as {}, expected {expected}: {}",
                interface.name,
                interface.hook,
                interface.reason
            );
        }
        Ok(this)
    }

    /// The engine, for test runs and counters.
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }
}

/// From `net1` to `net2` is permitted, nothing else; perhaps translated on the way.
fn ruleset(hook: HookMode, nat: bool) -> Ruleset {
    let zone = |name: &str| Zone {
        name: name.to_owned(),
        host_inbound: Vec::new(),
        ..Zone::default()
    };
    let interface = |name: &str, zone| InterfaceRule {
        name: name.to_owned(),
        zone,
        addresses: Vec::new(),
        hook,
    };
    let rule = SourceNat {
        name: "masquerade".to_owned(),
        from: vec![0],
        to: vec![1],
        translation: SourceTranslation::Interface,
        ..SourceNat::default()
    };
    Ruleset {
        zones: vec![zone("source"), zone("sink")],
        interfaces: vec![interface("net1", 0), interface("net2", 1)],
        groups: Vec::new(),
        services: vec![Service {
            name: "any".to_owned(),
            matches: vec![ServiceMatch::Any],
            ..Service::default()
        }],
        policies: vec![Policy {
            name: "source-to-sink".to_owned(),
            from: vec![0],
            to: vec![1],
            action: Action::Permit,
            ..Policy::default()
        }],
        source_nat: if nat { vec![rule] } else { Vec::new() },
        timeouts: Timeouts::default(),
        answers_per_second: 1_000,
        deny_events_per_second: 1_000,
        ..Ruleset::default()
    }
}
