//! Policy for live sessions between real stacks: a stream that stays permitted loses nothing over hundreds of commits, one
//! that is no longer permitted carries not one packet more.

mod common;

use std::{
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::Result;
use bulkhead_dataplane::{
    engine::Engine,
    ruleset::{Group, HookMode, Policy, Prefix, Ruleset},
};
use bulkhead_testkit::{Host, KernelCounters, RawPort, TcpServer, Topology, effort, patience, privileged};

const COMMITS: usize = 200;

/// The common rules with bulk TCP on port 5001 beside http, and `noise` rules and groups in front that match nothing here.
fn rules(hook: HookMode, nat: bool, permitted: bool, noise: usize) -> Ruleset {
    let mut rules = common::ruleset(hook, nat);
    rules.services.push(common::tcp("bulk", 5001));
    if permitted {
        rules.policies[1].service.push(4);
    }
    for number in 0..noise {
        rules.groups.push(Group {
            name: format!("noise{number}"),
            members: vec![Prefix {
                address: IpAddr::from([192, 0, 2, number as u8]),
                length: 32,
            }],
            ..Group::default()
        });
        let policy = Policy {
            name: format!("noise{number}"),
            source: vec![number + 1],
            ..Policy::default()
        };
        rules.policies.insert(0, policy);
    }
    rules
}

fn commit(lab: &Topology, engine: &Engine, rules: Ruleset) -> Result<()> {
    lab.firewall().run(|| engine.commit(rules))?;
    Ok(())
}

/// Reasons that would have cost the stream a packet.
fn lost(engine: &Engine) -> u64 {
    let counters = engine.nonzero_counters();
    let reasons = [
        "policy_changed",
        "session_closed",
        "tcp_no_session",
        "tcp_state_invalid",
        "tcp_reset_out_of_window",
        "wrong_zone",
        "not_configured",
        "default_deny",
        "session_table_full",
        "rewrite_failed",
        "internal",
        "no_route",
        "mtu_exceeded",
    ];
    reasons.iter().filter_map(|reason| counters.get(*reason)).sum()
}

fn a_permitted_stream_loses_nothing(hook: HookMode, nat: bool) -> Result<()> {
    let lab = common::topology(|host| host);
    let engine = common::start(&lab, rules(hook, nat, true, 0));
    lab.resolve_neighbours()?;
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    for server in [outside.v4_port(5001), outside.v6_port(5001)] {
        let _server = TcpServer::start(&outside.namespace, server)?;
        let mut stream = inside
            .client()
            .timeout(Duration::from_secs(20))
            .tcp(server)?
            .answered()?;
        let ids = || -> Result<Vec<u64>> {
            let ours = engine.sessions(&|session| session.original.destination == server, 10)?;
            Ok(ours.sessions.iter().map(|session| session.id).collect())
        };
        let session = ids()?;
        assert_eq!(session.len(), 1);
        let before = [inside, outside].map(|host| KernelCounters::snapshot(&host.namespace));
        let lost_before = lost(&engine);
        let done = AtomicBool::new(false);
        let exchanges = std::thread::scope(|scope| -> Result<usize> {
            let stream = scope.spawn(|| -> Result<usize> {
                let mut exchanges = 0;
                // Content and digests compared at both ends, in each direction.
                while !done.load(Ordering::Acquire) {
                    stream.exchange(8 << 20, 8 << 20)?.answered()?;
                    exchanges += 1;
                }
                Ok(exchanges)
            });
            let committed = (0..effort(COMMITS)).try_for_each(|number| {
                commit(&lab, &engine, rules(hook, nat, true, number % 7))?;
                // So that each generation sees some packets.
                std::thread::sleep(patience(Duration::from_millis(5)));
                Ok(())
            });
            done.store(true, Ordering::Release);
            let exchanges = stream.join().expect("the stream's thread");
            committed.and(exchanges)
        })?;
        let after = [inside, outside].map(|host| KernelCounters::snapshot(&host.namespace));
        let mut retransmitted = 0;
        let mut sent = 0;
        for (before, after) in before.into_iter().zip(after) {
            let (before, after) = (before?, after?);
            retransmitted += after.since(&before, "TcpRetransSegs");
            sent += after.since(&before, "TcpOutSegs");
        }
        println!("{server}: {exchanges} exchanges, {sent} segments, {retransmitted} sent again");
        assert_eq!(lost(&engine), lost_before, "{:#?}", engine.nonzero_counters());
        assert!(exchanges > 0);
        // A busy machine may cost a segment here and there; a stream that was cut and mended costs many.
        assert!(
            retransmitted * 1000 <= sent,
            "{retransmitted} of {sent} segments were sent again"
        );
        assert!(engine.generation() as usize > effort(COMMITS));
        assert_eq!(ids()?, session, "it is still the same session");
    }
    Ok(())
}

#[test]
fn netns_a_permitted_stream_loses_nothing_over_commits() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    a_permitted_stream_loses_nothing(HookMode::Tcx, false)
}

#[test]
fn netns_a_permitted_translated_stream_loses_nothing_over_commits_in_xdp() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    a_permitted_stream_loses_nothing(HookMode::Xdp, true)
}

/// Whether a TCP packet comes from the firewall within this time.
fn carries(port: &RawPort, host: &Host, time: Duration) -> Result<bool> {
    let tcp = |frame: &[u8]| {
        let at = match frame.get(12..14) {
            Some([0x08, 0x00]) => 23,
            Some([0x86, 0xdd]) => 20,
            _ => return false,
        };
        frame[6..12] == host.firewall_mac && frame.get(at) == Some(&6)
    };
    Ok(port.receive_matching(time, |seen| tcp(&seen.frame))?.is_some())
}

fn a_denied_stream_stops(hook: HookMode, nat: bool, upload: bool) -> Result<()> {
    let lab = common::topology(|host| host);
    let engine = common::start(&lab, rules(hook, nat, true, 0));
    lab.resolve_neighbours()?;
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let servers: [SocketAddr; 2] = [outside.v4_port(5001), outside.v6_port(5001)];
    for server in servers {
        commit(&lab, &engine, rules(hook, nat, true, 0))?;
        let _server = TcpServer::start(&outside.namespace, server)?;
        let mut stream = inside
            .client()
            .timeout(Duration::from_secs(2))
            .tcp(server)?
            .answered()?;
        stream.exchange(1 << 20, 1 << 20)?.answered()?;
        let ports = [
            RawPort::open(&inside.namespace, &inside.interface)?,
            RawPort::open(&outside.namespace, &outside.interface)?,
        ];
        let changed = engine.counters()?["policy_changed"];
        std::thread::scope(|scope| -> Result<()> {
            // More than can be carried before the stream is cut.
            let (up, down) = if upload { (1 << 40, 0) } else { (0, 1 << 40) };
            let stream = scope.spawn(move || stream.exchange(up, down).map(|outcome| outcome.describe()));
            std::thread::sleep(patience(Duration::from_millis(100)));
            for (port, host) in ports.iter().zip([inside, outside]) {
                assert!(carries(port, host, Duration::from_secs(1))?, "the stream flows");
            }
            commit(&lab, &engine, rules(hook, nat, false, 3))?;
            let committed = Instant::now();
            // What was on its way, in queues on either side of the firewall.
            std::thread::sleep(patience(Duration::from_millis(20)));
            for port in &ports {
                port.drain()?;
            }
            for (port, host) in ports.iter().zip([inside, outside]) {
                assert!(
                    !carries(port, host, Duration::from_millis(400))?,
                    "a packet {:?} after the commit, towards {}",
                    committed.elapsed(),
                    host.name
                );
            }
            let outcome = stream.join().expect("the stream's thread")?;
            assert!(
                outcome.contains("timed out") || outcome.contains("TimedOut"),
                "{outcome}"
            );
            Ok(())
        })?;
        assert!(engine.counters()?["policy_changed"] > changed);
        let left = engine.sessions(&|session| session.original.destination == server, 10)?;
        assert_eq!(left.total, 0, "{left:#?}");
    }
    Ok(())
}

#[test]
fn netns_a_denied_upload_stops_at_the_commit() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    a_denied_stream_stops(HookMode::Tcx, false, true)
}

#[test]
fn netns_a_denied_download_stops_at_the_commit_translated_and_in_xdp() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    a_denied_stream_stops(HookMode::Xdp, true, false)
}
