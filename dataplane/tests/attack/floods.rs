//! Floods: half-open sessions, one-way sessions, translated ports.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use bulkhead_dataplane::ruleset::{HookMode, Pool, Screen, SourceNat, SourceTranslation};
use bulkhead_testkit::privileged;

use crate::{
    arena::{Arena, HALF_OPEN, Position},
    reasons,
};

/// SYNs per flood: several times what the half-open table holds.
const SYNS: u64 = 8000;

fn syn_flood(hook: HookMode) -> Result<()> {
    let arena = Arena::with(Position::Stranger, hook, |_| {})?;
    let siege = arena.besiege()?;
    siege.run();
    arena.spoofed_syns(SYNS, "u200")?;
    let six = [
        ("to", arena.outside().v6.to_string()),
        ("port", "80".to_owned()),
        ("count", "4000".to_owned()),
    ];
    let sent = SYNS + arena.scapy(arena.attacker(), "syn_flood", &six)?;
    let account = siege.lift(&reasons::SYN_FLOOD)?;
    ensure!(
        account.received["net3"] >= sent,
        "{} of {sent} frames arrived",
        account.received["net3"]
    );
    // Nearly all sources are fit to be forwarded to: those were admitted, and pushed each other out.
    ensure!(account.of("session_created") > sent / 2, "{account:#?}");
    Ok(())
}

#[test]
fn attack_syn_flood_from_spoofed_sources() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    syn_flood(HookMode::Auto)
}

#[test]
fn attack_syn_flood_from_spoofed_sources_over_forced_xdp() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    syn_flood(HookMode::Xdp)
}

/// SYNs per second to one destination from which on the firewall answers in its place: those before it reach the server,
/// whose queue must have room for them.
const ATTACK_THRESHOLD: u32 = 20;

/// The server alone would not survive this: its own cookies are off, and its queue is short.
#[test]
fn attack_syn_flood_leaves_room_for_new_connections() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let arena = Arena::with(Position::Stranger, HookMode::Auto, |rules| {
        rules.zones[2].screen = Some(rules.screens.len());
        rules.screens.push(Screen {
            name: "edge".into(),
            syn_flood_attack: Some(ATTACK_THRESHOLD),
            ..Screen::default()
        });
    })?;
    let (outside, attacker) = (arena.outside(), arena.attacker());
    outside.namespace.set_sysctl("net/ipv4/tcp_syncookies", "0")?;
    outside
        .namespace
        .set_sysctl("net/ipv4/tcp_max_syn_backlog", "64")?;
    let siege = arena.besiege()?;
    siege.run();
    let six = [
        ("to", outside.v6.to_string()),
        ("port", "80".to_owned()),
        ("count", SYNS.to_string()),
        ("rate", "2000".to_owned()),
    ];
    std::thread::scope(|scope| -> Result<()> {
        let floods = [
            scope.spawn(|| arena.spoofed_syns(2 * SYNS, "u250").map(drop)),
            scope.spawn(|| arena.scapy(attacker, "syn_flood", &six).map(drop)),
        ];
        // In the middle of it: past the threshold, and past what the server's queue holds.
        std::thread::sleep(Duration::from_millis(1500));
        for host in [attacker, arena.inside()] {
            for server in [outside.v4_port(80), outside.v6_port(80)] {
                // Its first SYN may be lost in a queue of the hosts'; the second comes after one second.
                let client = host.client().timeout(Duration::from_millis(2500));
                let transfer = client.tcp_transfer(server, 10_000, 10_000)?;
                ensure!(
                    transfer.is_answered(),
                    "{} cannot reach {server} during a flood: {}; {:#?}",
                    host.name,
                    transfer.describe(),
                    arena.engine.nonzero_counters()
                );
                ensure!(
                    floods.iter().any(|flood| !flood.is_finished()),
                    "the flood ended before {} was through",
                    host.name
                );
            }
        }
        for flood in floods {
            flood
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(())
    })?;
    let account = siege.lift(&reasons::SYN_FLOOD_PROXIED)?;
    // Challenged, not admitted: the flood costs no sessions.
    ensure!(
        account.of("syn_cookie_sent") > SYNS && account.of("session_created") < SYNS / 2,
        "{account:#?}"
    );
    Ok(())
}

#[test]
fn attack_one_way_udp_flood() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    // To a port that nobody answers: the dns servers are there, so another one is permitted.
    let arena = Arena::with(Position::Stranger, HookMode::Auto, |rules| {
        rules.services.push(crate::common::udp("syslog", 514));
        let syslog = rules.services.len() - 1;
        for policy in &mut rules.policies {
            if policy.name == "strangers" {
                policy.service.push(syslog);
            }
        }
    })?;
    // Silent: a closed port would answer, and the answers make sessions of both ways.
    let outside = arena.outside();
    let _listeners = [outside.v4_port(514), outside.v6_port(514)]
        .map(|address| outside.namespace.run(move || std::net::UdpSocket::bind(address)));
    let siege = arena.besiege()?;
    siege.run();
    let attacker = arena.attacker();
    let mut sent = 0;
    for (to, prefix) in [
        (outside.v4.to_string(), "10.77.2."),
        (outside.v6.to_string(), "fd77:2::"),
    ] {
        let arguments = [
            ("to", to),
            ("port", "514".to_owned()),
            ("prefix", prefix.to_owned()),
            ("count", "6000".to_owned()),
        ];
        sent += arena.scapy(attacker, "udp_flood", &arguments)?;
    }
    let account = siege.lift(&reasons::UDP_FLOOD)?;
    ensure!(account.of("session_created") == sent, "{sent} sent: {account:#?}");
    // The table was filled to its end, and still lets anybody new in.
    let list = arena
        .engine
        .sessions(&|session| session.family == 4 && session.protocol == 17, 0)?;
    ensure!(
        list.total > HALF_OPEN as usize / 2,
        "{} sessions are left of a flood",
        list.total
    );
    let client = arena.inside().client().timeout(Duration::from_secs(2));
    client
        .dns_query(outside.v4_port(53), "example.test")?
        .answered()?;
    client
        .dns_query(outside.v6_port(53), "example.test")?
        .answered()?;
    Ok(())
}

#[test]
fn attack_translated_ports_are_never_shared() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    // Everybody inside wants the same few ports of the one outside address, towards the same server.
    let arena = Arena::with(Position::Stranger, HookMode::Auto, |rules| {
        rules.services.push(crate::common::udp("syslog", 514));
        let syslog = rules.services.len() - 1;
        rules.policies[1].service.push(syslog);
    })?;
    let outside = arena.outside();
    let _listeners = [outside.v4_port(514), outside.v6_port(514)]
        .map(|address| outside.namespace.run(move || std::net::UdpSocket::bind(address)));
    let siege = arena.besiege()?;
    siege.run();
    let mut sent = 0;
    for (to, prefix) in [
        (outside.v4.to_string(), "10.77.0."),
        (outside.v6.to_string(), "fd77:0::"),
    ] {
        let arguments = [
            ("to", to),
            ("port", "514".to_owned()),
            ("prefix", prefix.to_owned()),
            ("count", "1500".to_owned()),
        ];
        sent += arena.scapy(arena.inside(), "one_port_many_hosts", &arguments)?;
    }
    let account = siege.lift(&reasons::PORT_EXHAUSTION)?;
    ensure!(
        account.of("session_created") + account.of("nat_ports_exhausted") >= sent,
        "{sent} sent: {account:#?}"
    );
    // 250 hosts on 6 ports: 6 keep theirs, per family.
    ensure!(account.of("nat_ports_changed") > sent / 2, "{account:#?}");
    let list = arena
        .engine
        .sessions(&|session| session.protocol == 17 && session.translated, 100_000)?;
    let outside_ports: BTreeSet<_> = list
        .sessions
        .iter()
        .map(|session| (session.reply.source, session.reply.destination))
        .collect();
    ensure!(
        outside_ports.len() == list.total && list.total > 1000,
        "{} sessions share {} outside ports",
        list.total,
        outside_ports.len()
    );
    Ok(())
}

/// Sessions that a pool of one address and so few ports can carry to one destination.
const POOL_PORTS: u16 = 64;

#[test]
fn attack_exhausted_pool_ends_nobody_else() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let arena = Arena::with(Position::Stranger, HookMode::Auto, |rules| {
        rules.services.push(crate::common::udp("syslog", 514));
        let syslog = rules.services.len() - 1;
        rules.policies[1].service.push(syslog);
        let addresses = ["203.0.113.7", "2001:db8:7::7"].map(|text| text.parse().expect("an address"));
        rules.pools.push(Pool {
            name: "small".into(),
            ranges: addresses.map(|address| (address, address)).to_vec(),
            ports: Some((40_000, 40_000 + POOL_PORTS - 1)),
            ..Pool::default()
        });
        // Before the rule that everything else falls under.
        let first = SourceNat {
            name: "small".into(),
            from: vec![0],
            to: vec![1],
            service: vec![syslog],
            translation: SourceTranslation::Pool(0),
            ..SourceNat::default()
        };
        rules.source_nat.insert(0, first);
    })?;
    let outside = arena.outside();
    let _listeners = [outside.v4_port(514), outside.v6_port(514)]
        .map(|address| outside.namespace.run(move || std::net::UdpSocket::bind(address)));
    let siege = arena.besiege()?;
    siege.run();
    let mut sent = 0;
    for (to, prefix) in [
        (outside.v4.to_string(), "10.77.0."),
        (outside.v6.to_string(), "fd77:0::"),
    ] {
        let arguments = [
            ("to", to),
            ("port", "514".to_owned()),
            ("prefix", prefix.to_owned()),
            ("count", "1000".to_owned()),
        ];
        sent += arena.scapy(arena.inside(), "one_port_many_hosts", &arguments)?;
    }
    let account = siege.lift(&reasons::PORT_EXHAUSTION)?;
    let admitted = account.of("session_created");
    ensure!(
        admitted <= 2 * u64::from(POOL_PORTS) && admitted > u64::from(POOL_PORTS),
        "{admitted} sessions on two times {POOL_PORTS} ports: {account:#?}"
    );
    ensure!(
        account.of("nat_ports_exhausted") == sent - admitted,
        "{sent} sent: {account:#?}"
    );
    Ok(())
}
