//! Many rules and many addresses in the kernel's tables: what a commit takes, what the tables take, and that the first match
//! is still the first match. All of it in a debug build too; an emulated machine does a tenth.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::Result;
use bulkhead_dataplane::{
    bpf::Sizes,
    engine::{Engine, Explain, Options},
    reference::{self, Tuple},
    ruleset::{Action, Group, HookMode, InterfaceRule, Policy, Prefix, Ruleset, Service, ServiceMatch, Zone},
};
use bulkhead_testkit::{HostSpec, Topology, privileged, slowness};
use nix::time::{ClockId, clock_gettime};

/// Services, each of one port.
const SERVICES: u16 = 2_000;

/// Groups that rules share.
const GROUPS: u32 = 250;

/// The `number`th address of a group.
fn member(group: u32, number: u32) -> Ipv4Addr {
    Ipv4Addr::from(0x0a00_0000 + (group << 12) + number)
}

fn prefix(address: Ipv4Addr, length: u8) -> Prefix {
    Prefix {
        address: address.into(),
        length,
    }
}

/// `rules` policies, every fourth with a source and a destination that no other has, the others between groups.
/// `groups` groups have `members` addresses each, and what they have in common with the next.
fn ruleset(rules: u32, groups: u32, members: u32, noise: &str) -> Ruleset {
    let interface = |name: &str, zone| InterfaceRule {
        name: name.into(),
        zone,
        hook: HookMode::Tcx,
        ..InterfaceRule::default()
    };
    let zone = |name: &str| Zone {
        name: name.into(),
        ..Zone::default()
    };
    let mut ruleset = Ruleset {
        zones: vec![zone("inside"), zone("outside")],
        interfaces: vec![interface("net1", 0), interface("net2", 1)],
        ..Ruleset::default()
    };
    for group in 0..groups {
        let own = (0..members).map(|number| prefix(member(group, number), 32));
        let common = prefix(member(group + 1, 0), 26);
        ruleset.groups.push(Group {
            name: format!("group{group}"),
            members: own.chain([common]).collect(),
            ..Group::default()
        });
    }
    for number in 0..SERVICES {
        ruleset.services.push(Service {
            name: format!("tcp{number}"),
            matches: vec![ServiceMatch::Ports {
                protocol: 6,
                first: number,
                last: number,
            }],
            ..Service::default()
        });
    }
    for number in 0..rules {
        let mut policy = Policy {
            name: format!("{noise}{number}"),
            from: vec![0],
            to: vec![1],
            action: if number % 2 == 0 {
                Action::Permit
            } else {
                Action::Deny
            },
            ..Policy::default()
        };
        if number % 4 == 0 {
            for (index, list) in [&mut policy.source, &mut policy.destination]
                .into_iter()
                .enumerate()
            {
                list.push(ruleset.groups.len());
                let address = Ipv4Addr::from(0xc000_0000 + number * 2 + index as u32);
                ruleset.groups.push(Group {
                    name: address.to_string(),
                    members: vec![prefix(address, 32)],
                    ..Group::default()
                });
            }
            policy.service = vec![(number % u32::from(SERVICES)) as usize];
        } else {
            policy.source = vec![(number % groups) as usize];
            policy.destination = vec![(number / groups % groups) as usize];
            policy.service = vec![(number / 7 % u32::from(SERVICES)) as usize];
        }
        ruleset.policies.push(policy);
    }
    ruleset
}

/// Packets that some rule is about, and others.
fn tuples(ruleset: &Ruleset, rules: u32) -> Vec<Tuple> {
    let mut tuples = Vec::new();
    for number in (0..rules)
        .step_by(rules as usize / 40 + 1)
        .chain([rules - 1, rules - 2])
    {
        let policy = &ruleset.policies[number as usize];
        let first = |named: &[usize]| ruleset.groups[named[0]].members[0].address;
        let port = match ruleset.services[policy.service[0]].matches[0] {
            ServiceMatch::Ports { first, .. } => first,
            _ => 0,
        };
        for port in [port, port.wrapping_add(1)] {
            tuples.push(Tuple {
                source: first(&policy.source),
                destination: first(&policy.destination),
                protocol: 6,
                port,
            });
        }
    }
    tuples
}

/// Commits and says how long that took; returns this thread's time on a CPU, ms, which does not depend on what else runs.
fn commit_takes(lab: &Topology, engine: &Engine, ruleset: Ruleset, what: &str) -> Result<u128> {
    let began = Instant::now();
    let own = lab.firewall().run(|| {
        let time = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
        let began = time()?;
        engine.commit(ruleset)?;
        anyhow::Ok(time()?.saturating_sub(began))
    })?;
    println!("{what}: {:?}, {own:?} of them on a CPU", began.elapsed());
    Ok(own.as_millis())
}

#[test]
fn netns_a_hundred_thousand_rules_and_a_million_addresses() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let scale = if slowness() > 1 { 10 } else { 1 };
    let (rules, addresses) = (100_000 / scale, 1_000_000 / scale);
    // Half of the rules' addresses are theirs alone: a source and a destination of every fourth.
    let members = (addresses - rules / 2) / GROUPS;
    let lab = Topology::builder("bts-")
        .host(HostSpec::new("inside"))
        .host(HostSpec::new("outside").internet())
        .build()?;
    let small = ruleset(10, 2, 4, "few");
    let engine = lab.firewall().run(|| {
        Engine::start(
            small.clone(),
            &Options {
                // As documented for a site: a configuration at the limits of `size: large`.
                sizes: Sizes::large(),
                ..Options::default()
            },
        )
    })?;
    let ten_thousand = ruleset(10_000, GROUPS, 40, "rule");
    commit_takes(&lab, &engine, ten_thousand.clone(), "10,000 rules, first")?;
    let mut changed = ten_thousand;
    changed.policies[5_000].action = Action::Reject;
    let took = commit_takes(&lab, &engine, changed, "10,000 rules, one changed")?;
    // Emulated, the clock is that of another machine.
    assert!(took <= 500 || scale > 1, "{took} ms");
    let many = ruleset(rules, GROUPS, members, "rule");
    commit_takes(&lab, &engine, many.clone(), "all of it")?;
    commit_takes(&lab, &engine, many.clone(), "all of it again")?;
    let entries = |table: &str| -> Result<u64> {
        let memory = engine.memory()?;
        let found = memory.iter().find(|found| found.name == table);
        Ok(found.map_or(0, |found| found.entries))
    };
    assert_eq!(
        (entries("RULES")?, entries("HOSTS4")?),
        (rules.into(), addresses.into())
    );
    let mut wrong = BTreeMap::new();
    let mut matched = 0;
    for tuple in tuples(&many, rules) {
        let want = reference::first_match(&many, 0, 1, &tuple).map(|index| many.policies[index].name.clone());
        let question = Explain {
            ingress: "net1".into(),
            source: tuple.source,
            destination: tuple.destination,
            protocol: tuple.protocol,
            source_port: 1,
            destination_port: tuple.port,
            icmp: None,
        };
        let explained = engine.explain(&question)?;
        matched += usize::from(want.is_some());
        assert_eq!(explained.to_zone, "outside");
        if explained.policy != want {
            wrong.insert(format!("{tuple:?}"), (want, explained.policy));
        }
    }
    println!("{matched} packets matched");
    assert!(matched > 40 && wrong.is_empty(), "{matched}: {wrong:#?}");
    for table in engine.memory()?.iter().filter(|table| table.entries > 5_000) {
        println!(
            "{:16} {:>9} of {:>9} {:>6} KiB",
            table.name,
            table.entries,
            table.capacity,
            table.bytes >> 10
        );
    }
    commit_takes(&lab, &engine, small, "and back")?;
    let left = engine.memory()?;
    let left = left
        .iter()
        .filter(|table| ["HOSTS4", "PREFIXES4", "VECTORS", "RULES"].contains(&&*table.name));
    for table in left {
        assert!(table.entries < 100, "{table:?}");
    }
    Ok(())
}
