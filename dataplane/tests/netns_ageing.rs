//! Ageing in real time between real stacks: timeouts of states and services, early ageing, limits per address, what the
//! half-open table evicts, and what a sweep over 100,000 sessions costs.

mod common;

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use bulkhead_abi::{Flow, FlowKey4, Hop, Reason, SessionState, flow_flags};
use bulkhead_dataplane::{
    bpf::Sizes,
    engine::{AgeingReport, Engine, EventKind, Options, Session},
    ruleset::{EarlyAgeing, HookMode, Ruleset, Screen, Timeouts},
};
use bulkhead_testkit::{
    Host, Outcome, TcpServer, Topology, UdpConversation, UdpServer, patience, privileged,
};

/// Longest time from the end of a session's time to its removal: two sweeps, and a busy machine.
const REMOVAL: Duration = Duration::from_secs(6);

fn rules() -> Ruleset {
    let mut rules = common::ruleset(HookMode::Tcx, false);
    // Any UDP port of the servers.
    rules.services[1].matches = vec![bulkhead_dataplane::ruleset::ServiceMatch::Protocol(17)];
    rules
}

/// Starts an engine with small tables.
fn start(lab: &Topology, rules: Ruleset, sizes: Sizes) -> Result<Engine> {
    Ok(lab.firewall().run(|| {
        Engine::start(
            rules,
            &Options {
                sizes,
                ..Options::default()
            },
        )
    })?)
}

fn udp_sessions(engine: &Engine) -> Result<Vec<Session>> {
    Ok(engine.sessions(&|session| session.protocol == 17, 1000)?.sessions)
}

/// Waits until `reached`; the time it took.
fn wait(limit: Duration, mut reached: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let began = Instant::now();
    let limit = patience(limit);
    while !reached()? {
        if began.elapsed() > limit {
            bail!("not within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(began.elapsed())
}

/// A conversation from an ephemeral port that has been answered.
fn ask(host: &Host, server: std::net::SocketAddr) -> Result<UdpConversation> {
    let mut conversation = host
        .client()
        .timeout(Duration::from_secs(1))
        .udp(server)?
        .answered()?;
    conversation.probe(32)?.answered()?;
    Ok(conversation)
}

#[test]
fn netns_sessions_end_in_their_time_and_not_before() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let mut rules = rules();
    let timeout = patience(Duration::from_secs(2));
    rules.timeouts = Timeouts {
        udp_two_way: timeout,
        udp_one_way: timeout / 2,
        tcp_established: timeout,
        ..Timeouts::default()
    };
    let engine = common::start(&lab, rules);
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let events = engine.subscribe();
    for (server, http) in [
        (outside.v4_port(53), outside.v4_port(80)),
        (outside.v6_port(53), outside.v6_port(80)),
    ] {
        let _udp = UdpServer::start(&outside.namespace, server)?;
        let _tcp = TcpServer::start(&outside.namespace, http)?;
        let mut lively = ask(inside, server)?;
        let lively_port = lively.local().port();
        let mut idle = inside.client().tcp(http)?.answered()?;
        idle.exchange(1000, 1000)?.answered()?;
        let began = Instant::now();
        // Refreshed, it outlives its timeout several times over.
        let mut ended = None;
        while began.elapsed() < 3 * timeout {
            lively.probe(32)?.answered()?;
            let there = engine.sessions(&|session| session.protocol == 6, 10)?.total != 0;
            if !there && ended.is_none() {
                ended = Some(began.elapsed());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let ended = ended.expect("the idle connection has ended");
        assert!(ended >= timeout, "{ended:?}");
        let sessions = udp_sessions(&engine)?;
        assert_eq!(sessions.len(), 1, "{sessions:#?}");
        assert!(sessions[0].age >= 3 * timeout && sessions[0].timeout == timeout);
        // Silent, it goes.
        wait(timeout + REMOVAL, || Ok(udp_sessions(&engine)?.is_empty()))?;
        let closed: Vec<_> =
            std::iter::from_fn(|| events.recv_timeout(patience(Duration::from_millis(200))).ok())
                .filter(|event| event.kind == EventKind::Close)
                .filter(|event| [server, http].contains(&event.destination))
                .map(|event| (event.protocol, event.reason))
                .collect();
        assert_eq!(closed, [(6, Reason::SessionClosed), (17, Reason::SessionClosed)]);
        // The same port again is another session.
        lively.probe(32)?.answered()?;
        let sessions = udp_sessions(&engine)?;
        assert_eq!(sessions.len(), 1);
        assert_eq!(sessions[0].original.source.port(), lively_port);
        assert!(sessions[0].age < timeout);
        wait(timeout + REMOVAL, || Ok(udp_sessions(&engine)?.is_empty()))?;
    }
    Ok(())
}

#[test]
fn netns_a_services_timeout_holds_and_follows_a_commit() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let with = |seconds| {
        let mut rules = rules();
        rules.timeouts.udp_two_way = Duration::from_secs(1);
        rules.services[1].timeout = Some(Duration::from_secs(seconds));
        rules
    };
    let engine = common::start(&lab, with(600));
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let server = outside.v4_port(53);
    let _udp = UdpServer::start(&outside.namespace, server)?;
    let _kept = ask(inside, server)?;
    std::thread::sleep(Duration::from_secs(5));
    let sessions = udp_sessions(&engine)?;
    assert_eq!(sessions.len(), 1, "five seconds are nothing to this service");
    assert_eq!(sessions[0].timeout, Duration::from_secs(600));
    // Nothing is sent any more: ageing alone applies the new configuration.
    lab.firewall().run(|| engine.commit(with(2)))?;
    assert!(
        udp_sessions(&engine)?
            .iter()
            .all(|session| session.timeout == Duration::from_secs(2))
    );
    wait(REMOVAL, || Ok(udp_sessions(&engine)?.is_empty()))?;
    Ok(())
}

#[test]
fn netns_early_ageing_makes_room_from_the_longest_idle_on() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let mut rules = rules();
    rules.early_ageing = Some(EarlyAgeing {
        high: 90,
        low: 50,
        timeout: patience(Duration::from_secs(1)),
    });
    let sizes = Sizes {
        sessions: 100,
        ..Sizes::default()
    };
    let engine = start(&lab, rules, sizes)?;
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let server = outside.v4_port(53);
    let _udp = UdpServer::start(&outside.namespace, server)?;
    let events = engine.subscribe();
    // All stay open to the end: a port that was given back could become a young one's.
    let mut old = (0..60).map(|_| ask(inside, server)).collect::<Result<Vec<_>>>()?;
    std::thread::sleep(patience(Duration::from_millis(1500)));
    assert_eq!(
        udp_sessions(&engine)?.len(),
        60,
        "below the mark, nothing is early"
    );
    // One of the old ones is in use.
    let mut used = old.swap_remove(0);
    let mut young = (0..35).map(|_| ask(inside, server)).collect::<Result<Vec<_>>>()?;
    let began = Instant::now();
    wait(REMOVAL, || {
        used.probe(32)?.answered()?;
        for conversation in &mut young {
            conversation.probe(32)?.answered()?;
        }
        Ok(udp_sessions(&engine)?.len() < 50)
    })?;
    println!("from 95 to below 50 sessions in {:?}", began.elapsed());
    let left = udp_sessions(&engine)?;
    for conversation in young.iter().chain([&used]) {
        assert!(
            left.iter()
                .any(|session| session.original.source.port() == conversation.local().port()),
            "a session in use was ended"
        );
    }
    assert_eq!(left.len(), 49, "no more than needed");
    // A session is counted when it is gone.
    wait(REMOVAL, || Ok(engine.counters()?["sessions_aged_early"] == 46))?;
    let early = std::iter::from_fn(|| events.recv_timeout(patience(Duration::from_secs(1))).ok())
        .filter(|event| event.kind == EventKind::Close && event.reason == Reason::EarlyAged);
    assert_eq!(early.count(), 46);
    // Below the low mark it is over.
    std::thread::sleep(patience(Duration::from_millis(1500)));
    assert_eq!(udp_sessions(&engine)?.len(), 49);
    drop(old);
    Ok(())
}

/// The common rules with limits on what comes from the inside.
fn limited(screen: Screen) -> Ruleset {
    let mut rules = rules();
    rules.screens = vec![screen];
    rules.zones[0].screen = Some(0);
    rules
}

#[test]
fn netns_a_source_opens_so_many_connections_and_no_more() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let mut rules = limited(Screen {
        session_limit_source: Some(5),
        ..Screen::default()
    });
    rules.timeouts.tcp_closing = Duration::from_secs(1);
    rules.timeouts.tcp_closed = Duration::from_secs(1);
    let engine = common::start(&lab, rules);
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    for server in [outside.v4_port(80), outside.v6_port(80)] {
        let _tcp = TcpServer::start(&outside.namespace, server)?;
        let client = inside.client().timeout(Duration::from_millis(1500));
        let mut open = (0..5)
            .map(|_| client.tcp(server)?.answered())
            .collect::<Result<Vec<_>>>()?;
        let refused = engine.counters()?["session_limit_source"];
        assert!(matches!(client.tcp(server)?, Outcome::TimedOut));
        assert!(engine.counters()?["session_limit_source"] > refused);
        for connection in &mut open {
            connection.exchange(1000, 1000)?.answered()?;
        }
        open.pop().expect("five").close()?;
        // The client's own repetitions are among those refused until then.
        wait(REMOVAL, || Ok(client.tcp(server)?.is_answered()))?;
        drop(open);
        wait(REMOVAL, || {
            Ok(engine.sessions(&|session| session.protocol == 6, 10)?.total == 0)
        })?;
    }
    assert_eq!(engine.ageing().corrected, 0, "every end was told");
    Ok(())
}

/// What the half-open table evicts is counted, and does not count against its source for ever.
#[test]
fn netns_what_is_evicted_shows_and_is_given_back() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let sizes = Sizes {
        half_open: 64,
        ..Sizes::default()
    };
    let rules = limited(Screen {
        session_limit_source: Some(1000),
        ..Screen::default()
    });
    let engine = start(&lab, rules, sizes)?;
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    // Nobody answers; the host says so, which changes nothing.
    let send = |count: u16| -> Result<()> {
        let target = outside.v4;
        let source = inside.v4;
        inside.namespace.run(|| {
            let socket = UdpSocket::bind((source, 0))?;
            for port in 0..count {
                socket.send_to(b"anybody?", (target, 20_000 + port))?;
            }
            Ok(())
        })
    };
    let counter = |name: &str| engine.counters().map(|counters| counters[name]);
    send(1500)?;
    let created = counter("session_created")?;
    assert_eq!(created, 1000, "the limit, of which most were evicted");
    assert_eq!(counter("session_limit_source")?, 500);
    wait(REMOVAL, || Ok(engine.ageing().corrected != 0))?;
    wait(REMOVAL, || Ok(engine.ageing().corrected == 0))?;
    let report: AgeingReport = engine.ageing();
    let there = report.half_open as u64;
    assert!((1..=128).contains(&there), "{report:?}");
    assert_eq!(counter("sessions_evicted")?, created - there);
    send(500)?;
    assert!(
        counter("session_created")? > created,
        "{:#?}",
        engine.nonzero_counters()
    );
    Ok(())
}

/// Writes so many established UDP sessions into the table, last seen `idle` ago.
fn fill(engine: &Engine, sessions: u32, idle: Duration) -> Result<()> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    let last_seen_ns = (Duration::from(now) - idle).as_nanos() as u64;
    let generation = engine.generation();
    engine.with_object(|object| {
        for number in 0..sessions {
            let (inside, outside) = (0x0a00_0000 + number, 0xc000_0201_u32);
            let flow = Flow {
                last_seen_ns,
                generation,
                hop: Hop::Redirect as u8,
                state: SessionState::UdpTwoWay as u8,
                new_source_be: [inside.to_be(), 0, 0, 0],
                new_destination_be: [outside.to_be(), 0, 0, 0],
                new_source_port: 1000,
                new_destination_port: 53,
                from_zone: 1,
                to_zone: 2,
                protocol: 17,
                session_id: 1 << 40 | u64::from(number),
                created_ns: last_seen_ns,
                ..Flow::default()
            };
            let reply = Flow {
                flags: flow_flags::REPLY,
                new_source_be: flow.new_destination_be,
                new_destination_be: flow.new_source_be,
                new_source_port: 53,
                new_destination_port: 1000,
                ..flow
            };
            let key = FlowKey4 {
                source_be: inside.to_be(),
                destination_be: outside.to_be(),
                source_port: 1000,
                destination_port: 53,
                protocol: 17,
            };
            object.maps.flows4.set(&key, &flow)?;
            object.maps.flows4.set(&flow.partner4(), &reply)?;
        }
        Ok(())
    })
}

#[test]
fn netns_a_sweep_over_100000_sessions_is_bounded() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    const SESSIONS: u32 = 100_000;
    let lab = common::topology(|host| host);
    let mut rules = rules();
    rules.timeouts.udp_two_way = Duration::from_secs(3600);
    let engine = common::start(&lab, rules.clone());
    let next = |count: u64| -> Result<AgeingReport> {
        let last = engine.ageing().sweeps;
        wait(Duration::from_secs(70), || {
            Ok(engine.ageing().sweeps >= last + count)
        })?;
        Ok(engine.ageing())
    };
    fill(&engine, SESSIONS, Duration::from_secs(5))?;
    let quiet = next(2)?;
    assert_eq!(quiet.established[0], SESSIONS as usize);
    assert_eq!((quiet.marked, quiet.ended), (0, 0));
    println!("nothing idle: {:?} of CPU", quiet.cpu_time);
    // All of them over at once.
    rules.timeouts.udp_two_way = Duration::from_secs(1);
    lab.firewall().run(|| engine.commit(rules))?;
    let (mut marking, mut collecting) = (quiet, quiet);
    wait(Duration::from_secs(150), || {
        let report = engine.ageing();
        if report.marked > marking.marked {
            marking = report;
        }
        if report.ended > collecting.ended {
            collecting = report;
        }
        Ok(report.ended > 0 && report.sweeps > collecting.sweeps || report.established == [0, 0])
    })?;
    println!(
        "marking {}: {:?} of CPU; ending {}: {:?}",
        marking.marked, marking.cpu_time, collecting.ended, collecting.cpu_time
    );
    assert_eq!(
        (marking.marked, collecting.ended),
        (SESSIONS as usize, SESSIONS as usize)
    );
    wait(Duration::from_secs(70), || {
        Ok(engine.ageing().established == [0, 0])
    })?;
    assert_eq!(engine.counters()?["sessions_expired"], u64::from(SESSIONS));
    // Generous: an unoptimised build on a busy machine.
    assert!(
        quiet.cpu_time < patience(Duration::from_millis(800)),
        "{:?}",
        quiet.cpu_time
    );
    assert!(
        marking.cpu_time < patience(Duration::from_secs(4)),
        "{:?}",
        marking.cpu_time
    );
    assert!(
        collecting.cpu_time < patience(Duration::from_secs(4)),
        "{:?}",
        collecting.cpu_time
    );
    Ok(())
}
