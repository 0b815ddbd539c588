//! The self-test: it passes where packets are judged as configured, fails where a table lacks something, and is in no counter.

#[expect(dead_code, reason = "these tests start engines of their own")]
mod common;

use anyhow::{Context as _, Result, ensure};
use bulkhead_abi::{Reason, ZoneKey};
use bulkhead_dataplane::{
    engine::{Check, Engine, Options},
    ruleset::{HookMode, Ruleset, Wire},
};
use bulkhead_testkit::{HostSpec, Topology, privileged};

fn topology() -> Result<Topology> {
    Topology::builder("bhst-")
        .host(HostSpec::new("inside"))
        .host(HostSpec::new("outside"))
        .build()
}

fn start(topology: &Topology, rules: Ruleset) -> Result<Engine> {
    Ok(topology
        .firewall()
        .run(|| Engine::start(rules, &Options::default()))?)
}

fn ask(topology: &Topology, engine: &Engine) -> Vec<Check> {
    topology.firewall().run(|| engine.readiness())
}

fn wrong(checks: &[Check]) -> Vec<(&str, &str)> {
    let wrong = |check: &'_ Check| check.wrong.is_some();
    checks
        .iter()
        .filter(|check| wrong(check))
        .map(|check| (check.name.as_str(), check.wrong.as_deref().unwrap_or_default()))
        .collect()
}

/// What packets of self-tests end as.
fn counted(engine: &Engine) -> Result<Vec<u64>> {
    let counters = engine.counters()?;
    [
        Reason::Ipv4HeaderInvalid,
        Reason::HostInboundDeny,
        Reason::ToHost,
        Reason::DefaultDeny,
        Reason::TcpNoSession,
    ]
    .iter()
    .map(|reason| counters.get(reason.name()).copied().context("a reason"))
    .collect()
}

/// Both ends of one wire, and no policy.
fn wired() -> Ruleset {
    Ruleset {
        wires: vec![Wire {
            name: "splice".into(),
            interfaces: [0, 1],
            arp: true,
            non_ip: false,
        }],
        policies: Vec::new(),
        source_nat: Vec::new(),
        ..common::ruleset(HookMode::Auto, false)
    }
}

#[test]
fn netns_self_test_passes_as_configured_and_leaves_no_trace() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let mut open = common::ruleset(HookMode::Auto, false);
    // Everything may reach the firewall itself: the datagrams' other verdict.
    let any = open.services.len();
    open.services.push(bulkhead_dataplane::ruleset::Service {
        name: "everything".to_owned(),
        matches: vec![bulkhead_dataplane::ruleset::ServiceMatch::Any],
        timeout: None,
    });
    for zone in &mut open.zones {
        zone.host_inbound.push(any);
    }
    for (case, rules) in [
        ("routed", common::ruleset(HookMode::Auto, false)),
        ("open to the firewall itself", open),
        ("wired", wired()),
    ] {
        let topology = topology()?;
        let engine = start(&topology, rules)?;
        let before = counted(&engine)?;
        for _ in 0..20 {
            let checks = ask(&topology, &engine);
            ensure!(checks.len() == 4, "{case}: {checks:?}");
            ensure!(wrong(&checks).is_empty(), "{case}: {checks:?}");
        }
        ensure!(engine.self_tests().passed == 20 && engine.self_tests().failed == 0);
        std::thread::sleep(std::time::Duration::from_millis(100));
        let after = counted(&engine)?;
        ensure!(before == after, "{case}: {before:?} {after:?}");
        let told = engine.recent_events(usize::MAX);
        let own = told.iter().filter(|event| event.destination.port() == 9);
        ensure!(own.count() == 0, "{case}: {told:?}");
        ensure!(engine.stuck().is_empty(), "{case}: {:?}", engine.stuck());
    }
    Ok(())
}

/// What the programs look up is gone: packets end otherwise, and that is told and stays counted.
#[test]
fn netns_self_test_fails_when_a_table_lacks_what_the_configuration_says() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let topology = topology()?;
    let engine = start(&topology, common::ruleset(HookMode::Auto, false))?;
    ensure!(wrong(&ask(&topology, &engine)).is_empty());
    let host = topology.host("inside");
    let key = ZoneKey {
        generation: engine.generation(),
        ifindex: host.firewall_index,
    };
    let zone = engine.with_object(|object| object.maps.zones.get(&key))?;
    let zone = zone.context("the interface's zone")?;
    engine.with_object(|object| object.maps.zones.remove(&key))?;
    let checks = ask(&topology, &engine);
    let found = wrong(&checks);
    let [("self-test", why)] = found[..] else {
        anyhow::bail!("{checks:?}")
    };
    ensure!(
        why.contains(&host.firewall_interface) && why.contains("must end as host_inbound_deny"),
        "{why}"
    );
    ensure!(engine.counters()?[Reason::NotConfigured.name()] >= 1);
    ensure!(engine.self_tests().failed == 1);
    engine.with_object(|object| object.maps.zones.set(&key, &zone))?;
    let checks = ask(&topology, &engine);
    ensure!(wrong(&checks).is_empty(), "{checks:?}");

    // No generation at all.
    let live = engine.with_object(|object| object.maps.live.get(&0))?;
    let live = live.context("the live record")?;
    engine.with_object(|object| object.maps.live.set(&0, &bulkhead_abi::Live::default()))?;
    let checks = ask(&topology, &engine);
    ensure!(
        wrong(&checks)
            .iter()
            .any(|(name, why)| *name == "generation" && why.contains("no generation is live")),
        "{checks:?}"
    );
    engine.with_object(|object| object.maps.live.set(&0, &live))?;
    ensure!(wrong(&ask(&topology, &engine)).is_empty());
    Ok(())
}
