//! Rulesets that change: what the judged conversations need stays, everything around it is drawn anew.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use bulkhead_dataplane::ruleset::{
    Action, Group, InterfaceRule, Policy, Prefix, Ruleset, Screen, Service, ServiceMatch, SourceNat,
    SourceTranslation, Timeouts, Zone,
};
use serde::Serialize;

use crate::{
    random::Random,
    world::{TCP_PORTS, UDP_PORTS, World},
};

/// Zones, by index.
mod zone {
    pub(super) const INSIDE: usize = 0;
    pub(super) const DMZ: usize = 1;
    pub(super) const INTERNET: usize = 2;
    pub(super) const WILD: usize = 3;
}

/// Services, by index.
mod service {
    pub(super) const HTTP: usize = 0;
    pub(super) const DNS: usize = 1;
    pub(super) const PING: usize = 2;
    pub(super) const EXTRA_TCP: usize = 3;
    pub(super) const EXTRA_UDP: usize = 4;
}

/// What commits came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Commits {
    /// Rulesets that came into force.
    pub committed: u64,
    /// The longest time a commit took.
    pub longest: Duration,
    /// Those that were refused: none should be.
    pub refused: Vec<String>,
    /// Sessions that were ended by command.
    pub cleared: u64,
}

/// The first ruleset, and the last.
pub fn base() -> Ruleset {
    let zone = |name: &str, host_inbound: &[usize]| Zone {
        name: name.into(),
        host_inbound: host_inbound.to_vec(),
        ..Zone::default()
    };
    let interface = |name: &str, zone| InterfaceRule {
        name: name.into(),
        zone,
        ..InterfaceRule::default()
    };
    let core = [service::HTTP, service::DNS, service::PING];
    let permit = |name: &str, from: &[usize], to| Policy {
        name: name.into(),
        from: from.to_vec(),
        to: vec![to],
        service: core.to_vec(),
        action: Action::Permit,
        ..Policy::default()
    };
    Ruleset {
        zones: vec![
            zone("inside", &[service::PING]),
            zone("dmz", &[]),
            zone("internet", &[]),
            zone("wild", &[]),
        ],
        interfaces: vec![
            interface("net1", zone::INSIDE),
            interface("net2", zone::INSIDE),
            interface("net3", zone::DMZ),
            interface("net4", zone::INTERNET),
            interface("net5", zone::WILD),
        ],
        services: vec![
            ports("http", 6, TCP_PORTS[0]),
            ports("dns", 17, UDP_PORTS[0]),
            Service {
                name: "ping".into(),
                matches: [(1, 8), (58, 128)]
                    .map(|(protocol, kind)| ServiceMatch::Icmp {
                        protocol,
                        kind,
                        code: None,
                    })
                    .to_vec(),
                ..Service::default()
            },
            ports("extra-tcp", 6, TCP_PORTS[1]),
            ports("extra-udp", 17, UDP_PORTS[1]),
        ],
        policies: vec![
            permit("inside-to-dmz", &[zone::INSIDE], zone::DMZ),
            permit("inside-to-internet", &[zone::INSIDE], zone::INTERNET),
            permit("north-south", &[zone::INTERNET, zone::WILD], zone::DMZ),
        ],
        source_nat: vec![SourceNat {
            name: "out".into(),
            from: vec![zone::INSIDE],
            to: vec![zone::INTERNET],
            translation: SourceTranslation::Interface,
            ..SourceNat::default()
        }],
        // Short, so that the end of the soak need not wait for hours.
        timeouts: Timeouts {
            tcp_opening: Duration::from_secs(6),
            tcp_closing: Duration::from_secs(6),
            tcp_closed: Duration::from_secs(2),
            udp_one_way: Duration::from_secs(5),
            udp_two_way: Duration::from_secs(8),
            icmp: Duration::from_secs(5),
            other: Duration::from_secs(8),
            ..Timeouts::default()
        },
        answers_per_second: 200,
        deny_events_per_second: 200,
        ..Ruleset::default()
    }
}

fn ports(name: &str, protocol: u8, port: u16) -> Service {
    Service {
        name: name.into(),
        matches: vec![ServiceMatch::Ports {
            protocol,
            first: port,
            last: port,
        }],
        ..Service::default()
    }
}

/// The first ruleset with other rules before, between and behind: some about services that nothing judged uses, the rest
/// about addresses that nobody has.
fn vary(random: &mut Random) -> Ruleset {
    let mut rules = base();
    for number in 0..random.between(1, 12) {
        let members = (0..random.between(1, 40)).map(|_| nobody(random)).collect();
        rules.groups.push(Group {
            name: format!("group{number}"),
            members,
            ..Group::default()
        });
    }
    let groups = rules.groups.len() as u64;
    let action = |random: &mut Random| *random.pick(&[Action::Permit, Action::Deny, Action::Reject]);
    for number in 0..random.between(0, 150) {
        let (mut source, mut destination) = (vec![], vec![]);
        let group = usize::try_from(random.between(0, groups - 1)).unwrap_or(0);
        // At least one side is nobody.
        if random.chance(50) {
            source.push(group);
        } else {
            destination.push(group);
        }
        let policy = Policy {
            name: format!("noise{number}"),
            source,
            destination,
            action: action(random),
            log_deny: random.chance(20),
            log_create: random.chance(20),
            log_close: random.chance(20),
            ..Policy::default()
        };
        insert(&mut rules, random, policy);
    }
    for extra in [service::EXTRA_TCP, service::EXTRA_UDP] {
        if random.chance(70) {
            let policy = Policy {
                name: format!("extra{extra}"),
                from: vec![zone::INSIDE],
                to: vec![*random.pick(&[zone::DMZ, zone::INTERNET])],
                service: vec![extra],
                action: action(random),
                log_deny: random.chance(50),
                ..Policy::default()
            };
            insert(&mut rules, random, policy);
        }
    }
    for policy in &mut rules.policies {
        policy.log_close |= random.chance(10);
    }
    if random.chance(60) {
        // Only what no honest conversation here is screened by; a SYN flood makes the firewall answer in the server's
        // place, which honest clients do not notice either.
        let zones = [zone::INTERNET, zone::WILD];
        for zone in zones {
            rules.zones[zone].screen = Some(rules.screens.len());
        }
        rules.screens.push(Screen {
            name: "edge".into(),
            syn_flood_attack: Some(u32::try_from(random.between(20, 600)).unwrap_or(600)),
            land: random.chance(50),
            tcp_no_flags: random.chance(50),
            tcp_syn_fin: random.chance(50),
            tcp_fin_no_ack: random.chance(50),
            ip_bad_option: random.chance(50),
            ip_fragment: random.chance(50),
            ip_spoofing: random.chance(50),
            unknown_protocol: random.chance(50),
            ..Screen::default()
        });
    }
    rules
}

/// At a random place.
fn insert(rules: &mut Ruleset, random: &mut Random, policy: Policy) {
    let at = random.between(0, rules.policies.len() as u64);
    rules.policies.insert(usize::try_from(at).unwrap_or(0), policy);
}

/// A prefix of addresses for documentation (RFC 5737, RFC 3849), which no host here has and no flood pretends to have.
fn nobody(random: &mut Random) -> Prefix {
    let low = random.next().to_le_bytes();
    if random.chance(50) {
        Prefix {
            address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, low[0])),
            length: *random.pick(&[24, 28, 32]),
        }
    } else {
        let word = u16::from_le_bytes([low[0], low[1]]);
        Prefix {
            address: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, word, 0, 0, 0, 0, 1)),
            length: *random.pick(&[32, 48, 128]),
        }
    }
}

/// Commits one ruleset after the other until the deadline; now and then ends what is only sometimes permitted.
pub fn keep_changing(world: &World, deadline: Instant, random: &mut Random) -> Result<Commits> {
    let mut commits = Commits::default();
    while Instant::now() < deadline {
        thread::sleep(Duration::from_millis(random.between(100, 1500)));
        let rules = vary(random);
        let began = Instant::now();
        match world.firewall().run(|| world.engine.commit(rules)) {
            Ok(_) => commits.committed += 1,
            Err(error) => commits.refused.push(error.to_string()),
        }
        commits.longest = commits.longest.max(began.elapsed());
        if random.chance(20) {
            let ended = world.engine.clear_sessions(&|session| {
                [TCP_PORTS[1], UDP_PORTS[1]].contains(&session.original.destination.port())
            })?;
            commits.cleared += ended as u64;
        }
    }
    Ok(commits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_judged_rules_stay_in_their_order() {
        let mut random = Random::new(3);
        for _ in 0..50 {
            let rules = vary(&mut random);
            let core: Vec<&str> = rules
                .policies
                .iter()
                .map(|policy| policy.name.as_str())
                .filter(|name| name.contains("to-") || name.contains("-south"))
                .collect();
            assert_eq!(core, ["inside-to-dmz", "inside-to-internet", "north-south"]);
            let noise = |policy: &&Policy| policy.name.starts_with("noise");
            assert!(
                rules
                    .policies
                    .iter()
                    .filter(noise)
                    .all(|policy| !policy.source.is_empty() || !policy.destination.is_empty())
            );
        }
    }
}
