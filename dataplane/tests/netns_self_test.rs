//! The self-test: it passes where packets are judged as configured, fails where a table lacks something, and is in no counter.

#[expect(dead_code, reason = "these tests start engines of their own")]
mod common;

use anyhow::{Context as _, Result, ensure};
use bulkhead_abi::{PolicyAction, Reason, Route4Key, Route6Key, RouteEntry, ZoneKey, protocol};
use bulkhead_dataplane::{
    bpf::Object,
    engine::{Check, Engine, Options},
    ruleset::{Action, DestinationNat, Group, HookMode, Policy, Pool, Prefix, Ruleset, Scan, Screen, Wire},
};
use bulkhead_testkit::{HostSpec, Topology, privileged};

/// What the tables of routes hold.
type Routes = (Vec<(Route4Key, RouteEntry)>, Vec<(Route6Key, RouteEntry)>);

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
    .map(|reason| reason.name())
    .chain([
        "decision_cache_hits",
        "decision_cache_misses",
        "events_suppressed",
        "slow_path_suppressed",
    ])
    .map(|name| {
        counters
            .get(name)
            .copied()
            .with_context(|| format!("no counter {name}"))
    })
    .chain(engine.policy_hits()?.into_iter().map(Ok))
    .collect()
}

/// The tightest there is: any second target is a scan.
fn scan() -> Option<Scan> {
    Some(Scan {
        count: 1,
        interval: std::time::Duration::from_secs(1),
    })
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
    // Screens that see every packet out of the ordinary, and all of the first ones.
    let mut screened = common::ruleset(HookMode::Auto, false);
    screened.screens.push(Screen {
        name: "all".to_owned(),
        ip_spoofing: true,
        unknown_protocol: true,
        udp_flood: Some(1),
        udp_port_scan: scan(),
        udp_sweep: scan(),
        ..Screen::default()
    });
    for zone in &mut screened.zones {
        zone.screen = Some(0);
    }
    for (case, rules) in [
        ("routed", common::ruleset(HookMode::Auto, false)),
        ("open to the firewall itself", open),
        ("wired", wired()),
        ("screened", screened),
    ] {
        let topology = topology()?;
        // Nobody asks twenty times in a second; what denials may be told of is for users' packets.
        let rules = Ruleset {
            deny_events_per_second: 1_000,
            ..rules
        };
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
        let sessions = engine.sessions(&|_| true, 10)?;
        ensure!(sessions.total == 0, "{case}: {sessions:?}");
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

/// Tables of policy that have lost what the configuration says: asked of the tables in either family, met by a packet on its
/// way from zone to zone.
#[test]
fn netns_self_test_fails_when_policy_tables_lack_what_the_configuration_says() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let topology = topology()?;
    // One group a family: each policy is about an address of its own.
    let mut rules = common::ruleset(HookMode::Auto, false);
    let v6 = rules.groups[0].members.split_off(1);
    rules.groups.push(Group {
        name: "servers6".into(),
        members: v6,
        ..Group::default()
    });
    let out6 = Policy {
        name: "out6".into(),
        destination: vec![1],
        ..rules.policies[1].clone()
    };
    rules.policies.push(out6);
    let engine = start(&topology, rules)?;
    let sound = |what: &str| -> Result<()> {
        let checks = ask(&topology, &engine);
        ensure!(wrong(&checks).is_empty(), "{what}: {checks:?}");
        Ok(())
    };
    let lame = |what: &str, says: &str| -> Result<()> {
        let checks = ask(&topology, &engine);
        let [("self-test", why)] = wrong(&checks)[..] else {
            anyhow::bail!("{what}: {checks:?}")
        };
        ensure!(why.contains(says), "{what}: {why}");
        Ok(())
    };
    sound("at first")?;

    // The class of the servers, in each family.
    let (key4, key6) = engine.with_object(|object| -> Result<_> {
        Ok((object.maps.prefixes4.keys()?, object.maps.prefixes6.keys()?))
    })?;
    let ([key4], [key6]) = (&key4[..], &key6[..]) else {
        anyhow::bail!("{key4:?} {key6:?}")
    };
    let class = engine.with_object(|object| object.maps.prefixes4.get(key4))?;
    let class = class.context("a class")?;
    engine.with_object(|object| object.maps.prefixes4.remove(key4))?;
    lame(
        "without the IPv4 class",
        "policy out is to decide, and by the tables no policy",
    )?;
    engine.with_object(|object| object.maps.prefixes4.set(key4, &class))?;
    sound("with it")?;
    let class = engine.with_object(|object| object.maps.prefixes6.get(key6))?;
    let class = class.context("a class")?;
    engine.with_object(|object| object.maps.prefixes6.remove(key6))?;
    lame(
        "without the IPv6 class",
        "policy out6 is to decide, and by the tables no policy",
    )?;
    engine.with_object(|object| object.maps.prefixes6.set(key6, &class))?;
    sound("with it")?;

    // The vectors of all rules.
    let vectors = engine.with_object(|object| -> Result<_> {
        let mut found = Vec::new();
        object
            .maps
            .vectors
            .for_each(|key, word| found.push((*key, *word)))?;
        object
            .maps
            .vectors
            .remove_all(found.iter().map(|(key, _)| *key))?;
        Ok(found)
    })?;
    ensure!(!vectors.is_empty());
    lame("without vectors", "policy no is to decide")?;
    engine.with_object(|object| object.maps.vectors.set_all(vectors))?;
    sound("with them")?;

    // The rule itself says otherwise.
    let rules = engine.with_object(|object| object.maps.rules.keys())?;
    for key in &rules {
        let rule = engine.with_object(|object| object.maps.rules.get(key))?;
        let mut rule = rule.context("a rule")?;
        if rule.policy == 0 {
            rule.action = PolicyAction::Permit as u8;
            engine.with_object(|object| object.maps.rules.set(key, &rule))?;
            lame("with another action", "policy no is to Reject")?;
            rule.action = PolicyAction::Reject as u8;
            engine.with_object(|object| object.maps.rules.set(key, &rule))?;
        }
    }
    sound("with its own")?;

    // What only a packet meets: where it goes. The mirror of the routes knows better than their table.
    for (table, name) in [
        ("IPv4", "an IPv4 packet between zones"),
        ("IPv6", "an IPv6 packet between zones"),
    ] {
        let remove = |object: &mut Object| -> Result<Routes> {
            let (mut v4, mut v6) = (Vec::new(), Vec::new());
            if table == "IPv4" {
                object
                    .maps
                    .routes4
                    .for_each(|key, route| v4.push((*key, *route)))?;
                object.maps.routes4.remove_all(v4.iter().map(|(key, _)| *key))?;
            } else {
                object
                    .maps
                    .routes6
                    .for_each(|key, route| v6.push((*key, *route)))?;
                object.maps.routes6.remove_all(v6.iter().map(|(key, _)| *key))?;
            }
            Ok((v4, v6))
        };
        let (v4, v6) = engine.with_object(remove)?;
        lame(table, name)?;
        lame(table, "must end as default_deny")?;
        engine.with_object(|object| object.maps.routes4.set_all(v4))?;
        engine.with_object(|object| object.maps.routes6.set_all(v6))?;
        sound(table)?;
    }
    Ok(())
}

/// Members of a dynamic group count as they are by now, not as the configuration began.
#[test]
fn netns_self_test_goes_by_the_members_that_groups_have() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let topology = topology()?;
    let mut rules = common::ruleset(HookMode::Auto, false);
    rules.groups[0].dynamic = true;
    let engine = start(&topology, rules)?;
    for members in [vec![], vec!["192.0.2.9"], vec!["10.77.1.2", "198.51.100.77"]] {
        let members = members.iter().map(|member| {
            Ok(Prefix {
                address: member.parse()?,
                length: 32,
            })
        });
        engine.set_members("servers", members.collect::<Result<_>>()?)?;
        let checks = ask(&topology, &engine);
        ensure!(wrong(&checks).is_empty(), "{checks:?}");
    }
    // The table has lost one that was added.
    let hosts = engine.with_object(|object| object.maps.hosts4.keys())?;
    ensure!(hosts.len() == 2, "{hosts:?}");
    engine.with_object(|object| object.maps.hosts4.remove_all(hosts))?;
    let checks = ask(&topology, &engine);
    ensure!(
        matches!(wrong(&checks)[..], [("self-test", why)] if why.contains("policy out is to decide")),
        "{checks:?}"
    );
    Ok(())
}

/// A packet that a rule of translation turns elsewhere may be permitted there. Whom such a rule is about can change without a commit.
#[test]
fn netns_self_test_opens_nothing_where_a_group_brings_translation() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let topology = topology()?;
    let prefix = |address: &str, length| -> Result<Prefix> {
        Ok(Prefix {
            address: address.parse()?,
            length,
        })
    };
    let group = |name: &str, members, dynamic| Group {
        name: name.into(),
        members,
        dynamic,
        ..Group::default()
    };
    let mut rules = common::ruleset(HookMode::Auto, false);
    let target = prefix("10.77.0.2", 32)?;
    rules.groups.push(group("people", Vec::new(), true));
    rules.groups.push(group("target", vec![target], false));
    rules.policies.push(Policy {
        name: "in".into(),
        from: vec![1],
        to: vec![0],
        destination: vec![2],
        action: Action::Permit,
        ..Policy::default()
    });
    rules.pools.push(Pool {
        name: "target".into(),
        ranges: vec![(target.address, target.address)],
        ..Pool::default()
    });
    rules.destination_nat.push(DestinationNat {
        name: "turned".into(),
        from: vec![1],
        source: vec![1],
        pool: Some(0),
        ..DestinationNat::default()
    });
    let engine = start(&topology, rules)?;
    for members in [vec![], vec![prefix("10.77.1.0", 24)?]] {
        engine.set_members("people", members)?;
        // All pairs of interfaces have their turn.
        for _ in 0..4 {
            let checks = ask(&topology, &engine);
            ensure!(wrong(&checks).is_empty(), "{checks:?}");
        }
    }
    let opened = engine.sessions(&|session| session.protocol == protocol::UDP_LITE, 10)?;
    ensure!(opened.total == 0, "{opened:?}");
    Ok(())
}
