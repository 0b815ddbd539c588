//! The engine between real namespaces: conversations permitted, denied, rejected and translated.

mod common;

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bulkhead_dataplane::{
    engine::{Engine, Explain, Session},
    ruleset::{Action, HookMode, Policy},
    table::TypedMap,
};
use bulkhead_testkit::{Client, HttpServer, Outcome, UdpServer, privileged};

fn conversations(hook: HookMode, nat: bool) -> Result<()> {
    let lab = common::topology(|host| host);
    let engine = common::start(&lab, common::ruleset(hook, nat));
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let client = inside.client().timeout(Duration::from_millis(1500));
    let back = outside.client().timeout(Duration::from_millis(500));
    for (server, seen, own) in [
        (
            IpAddr::V4(outside.v4),
            IpAddr::V4(if nat { outside.firewall_v4 } else { inside.v4 }),
            outside.v4_port(80),
        ),
        (
            IpAddr::V6(outside.v6),
            IpAddr::V6(if nat { outside.firewall_v6 } else { inside.v6 }),
            outside.v6_port(80),
        ),
    ] {
        let _http = HttpServer::start(&outside.namespace, own, "hello")?;
        let _dns = UdpServer::start(&outside.namespace, (server, 53).into())?;
        let answer = client.http_get((server, 80).into(), "/")?;
        let answer = answer
            .answered()
            .unwrap_or_else(|e| panic!("{e}: {:#?}", engine.counters()));
        assert_eq!(answer.body, "hello");
        assert_eq!(answer.seen_as.ip(), seen, "source as the server saw it");
        let answer = client
            .dns_query((server, 53).into(), "example.test")?
            .answered()?;
        assert_eq!(answer.seen_as.ip(), seen);
        client.ping(server)?.answered()?;
        // Rejected: told at once.
        assert!(
            matches!(client.tcp((server, 9999).into())?, Outcome::Refused),
            "reset"
        );
        // Not in any policy: silence.
        assert!(
            matches!(client.tcp((server, 81).into())?, Outcome::TimedOut),
            "default deny"
        );
        // The other way round nothing is permitted.
        let inside_address = if server.is_ipv4() {
            IpAddr::V4(inside.v4)
        } else {
            IpAddr::V6(inside.v6)
        };
        assert!(matches!(back.ping(inside_address)?, Outcome::TimedOut));
        // hostInbound: inside may ping the firewall, outside may not.
        let (own, other) = if server.is_ipv4() {
            (IpAddr::V4(inside.firewall_v4), IpAddr::V4(outside.firewall_v4))
        } else {
            (IpAddr::V6(inside.firewall_v6), IpAddr::V6(outside.firewall_v6))
        };
        client.ping(own)?.answered()?;
        assert!(matches!(back.ping(other)?, Outcome::TimedOut));
        // The firewall's own connections are answered without a rule.
        Client::new(lab.firewall()).ping(server)?.answered()?;
        Client::new(lab.firewall())
            .http_get((server, 80).into(), "/")?
            .answered()?;
    }
    let sessions = engine.sessions(&|_| true, 100)?;
    assert!(sessions.total >= 4, "{sessions:#?}");
    engine.stop();
    Ok(())
}

#[test]
fn netns_conversations_over_tcx() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    conversations(HookMode::Tcx, false)
}

#[test]
fn netns_conversations_over_tcx_with_source_nat() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    conversations(HookMode::Tcx, true)
}

#[test]
fn netns_conversations_over_forced_xdp() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    conversations(HookMode::Xdp, false)
}

#[test]
fn netns_conversations_over_forced_xdp_with_source_nat() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    conversations(HookMode::Xdp, true)
}

/// A question that nobody has answered has one entry; its answer belongs to the session all the same.
#[test]
fn netns_explain_knows_the_answer_that_has_not_come_yet() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let engine = common::start(&lab, common::ruleset(HookMode::Tcx, false));
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    for (client, server) in inside.addresses().into_iter().zip(outside.addresses()) {
        let socket = inside.namespace.run(|| UdpSocket::bind((client, 0)))?;
        socket.send_to(b"anybody there?", (server, 53))?;
        let port = socket.local_addr()?.port();
        let explain = |answer: bool| {
            let (from, to) = if answer {
                (server, client)
            } else {
                (client, server)
            };
            let (source_port, destination_port) = if answer { (53, port) } else { (port, 53) };
            engine.explain(&Explain {
                ingress: if answer {
                    &outside.firewall_interface
                } else {
                    &inside.firewall_interface
                }
                .clone(),
                source: from,
                destination: to,
                protocol: 17,
                source_port,
                destination_port,
                icmp: None,
            })
        };
        let deadline = Instant::now() + Duration::from_secs(5);
        let asked = loop {
            match explain(false)?.existing_session {
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                asked => break asked,
            }
        };
        assert!(asked.is_some(), "{:#?}", engine.nonzero_counters());
        assert_eq!(explain(true)?.existing_session, asked);
    }
    engine.stop();
    Ok(())
}

/// Sends so many datagrams from one end and waits until they are counted.
fn send(engine: &Engine, from: &UdpSocket, to: SocketAddr, count: u64) -> Result<Session> {
    for _ in 0..count {
        from.send_to(b"anybody there?", to)?;
    }
    let source = from.local_addr()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let found = engine
            .sessions(&|session| session.original.source == source, 10)?
            .sessions;
        match found.as_slice() {
            [session] if session.original.packets == count => return Ok(session.clone()),
            _ => ensure!(Instant::now() < deadline, "{found:#?}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The only entry of a table, taken out.
fn taken<K, V>(table: &TypedMap<K, V>) -> Result<(K, V)>
where
    K: zerocopy::IntoBytes + zerocopy::FromBytes + zerocopy::Immutable + Copy,
    V: zerocopy::IntoBytes + zerocopy::FromBytes + zerocopy::Immutable + Copy,
{
    let mut entries = Vec::new();
    table.for_each(|key, value| entries.push((*key, *value)))?;
    ensure!(entries.len() == 1, "{} entries", entries.len());
    let (key, value) = entries[0];
    ensure!(table.remove(&key)?);
    Ok((key, value))
}

/// Two hosts that open to each other at once leave two sessions that nobody has answered, each where the other's answers
/// would be: each is shown with its own counts. That no packet of the one met the entry of the other is brought about here
/// by taking that entry out meanwhile.
#[test]
fn netns_sessions_that_crossed_are_shown_with_their_own_counts() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let mut rules = common::ruleset(HookMode::Tcx, false);
    rules.policies = vec![Policy {
        name: "all".into(),
        action: Action::Permit,
        ..Policy::default()
    }];
    let engine = common::start(&lab, rules);
    let maps = engine.with_object(|object| object.maps.clone());
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    for (one, other) in inside.addresses().into_iter().zip(outside.addresses()) {
        let there = inside.namespace.run(|| UdpSocket::bind((one, 5000)))?;
        let back = outside.namespace.run(|| UdpSocket::bind((other, 5000)))?;
        let (one, other) = (there.local_addr()?, back.local_addr()?);
        send(&engine, &there, other, 3)?;
        if one.is_ipv4() {
            let (key, flow) = taken(&maps.half_open4)?;
            send(&engine, &back, one, 2)?;
            maps.half_open4.set(&key, &flow)?;
        } else {
            let (key, flow) = taken(&maps.half_open6)?;
            send(&engine, &back, one, 2)?;
            maps.half_open6.set(&key, &flow)?;
        }
        let shown = engine.sessions(
            &|session| !session.established && session.original.packets != 0,
            10,
        )?;
        let mut shown: Vec<_> = shown
            .sessions
            .iter()
            .map(|session| {
                (
                    session.original.source,
                    session.original.packets,
                    session.reply.packets,
                )
            })
            .collect();
        shown.sort_unstable();
        let mut expected = vec![(one, 3, 0), (other, 2, 0)];
        expected.sort_unstable();
        ensure!(shown == expected, "{shown:?}");
        ensure!(engine.clear_sessions(&|_| true)? == 2, "two sessions");
    }
    engine.stop();
    Ok(())
}
