//! What a restart does to policy: the new configuration holds from the first packet on, its numbers name its own rules, and
//! a start that fails leaves everything as it was.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result};
use bulkhead_dataplane::{
    engine::{Engine, EngineError, Session},
    ruleset::{Action, HookMode, Policy, Ruleset},
};
use bulkhead_testkit::{Outcome, TcpServer, patience, privileged};

use super::{Lab, common, whole};

/// The policy that a session of TCP port 80 is said to be of.
fn policy_of(engine: &Engine) -> Result<String> {
    let is_http = |session: &Session| session.original.destination.port() == 80;
    let found = engine
        .sessions(&is_http, 1)?
        .sessions
        .pop()
        .context("a session")?;
    found.policy.context("a policy")
}

/// The common rules with another policy in front, so that every number means another rule.
fn shifted() -> Ruleset {
    let mut rules = common::ruleset(HookMode::Auto, false);
    rules.policies.insert(
        0,
        Policy {
            name: "in-front".into(),
            from: vec![1],
            to: vec![0],
            action: Action::Deny,
            ..Policy::default()
        },
    );
    rules
}

#[test]
fn netns_restart_numbers_of_before_name_no_rule_of_now() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(|host| host)?;
    let engine = lab.start(common::ruleset(HookMode::Auto, false))?;
    let outside = lab.topology.host("outside");
    let server = TcpServer::start(&outside.namespace, outside.v4_port(80))?;
    let mut held = lab
        .topology
        .host("inside")
        .client()
        .tcp(server.address())?
        .answered()
        .expect("open");
    assert_eq!(policy_of(&engine)?, "out");
    drop(engine);
    let engine = lab.start(shifted())?;
    assert_eq!(
        policy_of(&engine)?,
        "before restart",
        "its number is that of \"no\" now"
    );
    held.exchange(10, 10)?.answered().expect("an exchange");
    assert_eq!(policy_of(&engine)?, "out", "judged again");
    Ok(())
}

#[test]
fn netns_restart_with_less_permitted_stops_live_sessions() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(|host| host)?;
    let engine = lab.start(common::ruleset(HookMode::Auto, true))?;
    let counting = lab.counting()?;
    let outside = lab.topology.host("outside");
    let mut held = Vec::new();
    let mut servers = Vec::new();
    for to in [outside.v4_port(80), outside.v6_port(80)] {
        servers.push(TcpServer::start(&outside.namespace, to)?);
        held.push(
            lab.topology
                .host("inside")
                .client()
                .tcp(to)?
                .answered()
                .expect("open"),
        );
    }
    drop(engine);
    let mut less = common::ruleset(HookMode::Auto, true);
    // Names and ping alone.
    less.policies[1].service = vec![1, 2];
    let engine = lab.start(less)?;
    for held in &mut held {
        assert_ne!(
            held.exchange(10, 10)?.map(drop),
            Outcome::Answered(()),
            "not permitted any more"
        );
    }
    assert_ne!(engine.counters()?["policy_changed"], 0);
    counting.iter().try_for_each(|stream| stream.advance(50))?;
    whole(counting);
    Ok(())
}

/// Fails when everything is loaded and staged, and the programs are still the old ones.
fn impossible() -> Ruleset {
    let mut rules = common::ruleset(HookMode::Auto, false);
    rules.policies.clear();
    rules.interfaces[1].addresses = vec![(IpAddr::from([10, 99, 0, 1]), 77)];
    rules
}

#[test]
fn netns_restart_that_fails_leaves_what_was() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(|host| host)?;
    // Without anything to take over, nothing stays.
    let failed = lab.start(impossible());
    assert!(matches!(failed.err(), Some(EngineError::Netlink(_))));
    assert!(!lab.pins().exists(), "neither programs nor tables");
    let engine = lab.start(common::ruleset(HookMode::Auto, false))?;
    let _forbidden = lab.forbidden()?;
    let (_servers, bulk) = lab.bulk()?;
    let counting = lab.counting()?;
    drop(engine);
    let before = files(&lab)?;
    for _ in 0..3 {
        let failed = lab.start(impossible());
        assert!(matches!(failed.err(), Some(EngineError::Netlink(_))));
        assert_eq!(files(&lab)?, before, "nothing is touched");
        lab.policy_holds();
        counting.iter().try_for_each(|stream| stream.advance(20))?;
        bulk.iter().try_for_each(|stream| stream.advance(1))?;
    }
    let _engine = lab.start(common::ruleset(HookMode::Auto, false))?;
    lab.policy_holds();
    whole(counting);
    Ok(())
}

/// The programs of another version go on, too: nothing of theirs is in this version's tables.
#[test]
fn netns_restart_that_fails_leaves_what_another_version_was() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Lab::new(|host| host)?;
    drop(lab.start(common::ruleset(HookMode::Auto, false))?);
    let _forbidden = lab.forbidden()?;
    let (_servers, bulk) = lab.bulk()?;
    let version = |number: u32| lab.pins().join(format!("v{number}"));
    let (own, other) = (
        version(bulkhead_abi::ABI_VERSION),
        version(bulkhead_abi::ABI_VERSION + 1),
    );
    std::fs::rename(&own, &other)?;
    let links = || -> Result<usize> { Ok(std::fs::read_dir(lab.pins().join("links"))?.count()) };
    let before = links()?;
    assert!(lab.start(impossible()).is_err());
    assert!(other.exists() && links()? == before, "{before}");
    lab.policy_holds();
    bulk.iter().try_for_each(|stream| stream.advance(1))?;
    Ok(())
}

/// What an FTP control connection comes to over a restart: whether it goes on, and why it ended if not.
fn control_connection(nat: bool) -> Result<(bool, bool)> {
    let lab = Lab::new(|host| host)?;
    let mut rules = common::ruleset(HookMode::Auto, nat);
    rules.services.push(common::tcp("ftp", 21));
    rules.policies[1].service.push(4);
    rules.gateways.ftp = true;
    let engine = lab.start(rules.clone())?;
    let outside = lab.topology.host("outside");
    let listener = outside.namespace.run(|| TcpListener::bind(outside.v4_port(21)))?;
    let server = outside.namespace.spawn(move || -> std::io::Result<u64> {
        let (stream, _) = listener.accept()?;
        // Each line comes back.
        std::io::copy(&mut &stream, &mut &stream)
    })?;
    let stream = lab
        .topology
        .host("inside")
        .namespace
        .run(|| TcpStream::connect(outside.v4_port(21)))?;
    stream.set_read_timeout(Some(patience(Duration::from_millis(700))))?;
    let said = |line: &[u8]| -> bool {
        let mut back = vec![0; line.len()];
        (&stream).write_all(line).is_ok() && (&stream).read_exact(&mut back).is_ok() && back == line
    };
    assert!(said(b"NOOP\r\n"), "before");
    drop(engine);
    let engine = lab.start(rules)?;
    let goes_on = said(b"NOOP\r\n");
    let forgotten = engine.recent_events(100).iter().any(|event| {
        event.reason == bulkhead_abi::Reason::GatewayForgotten && event.destination.port() == 21
    });
    drop(engine);
    // The server's thread ends with its connection, which may not be there any more.
    drop((stream, server));
    Ok((goes_on, forgotten))
}

#[test]
fn netns_restart_ends_translated_ftp_control_connections_by_name() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    assert_eq!(control_connection(true)?, (false, true));
    assert_eq!(control_connection(false)?, (true, false), "nothing was rewritten");
    Ok(())
}

/// Everything that is pinned.
fn files(lab: &Lab) -> Result<Vec<String>> {
    fn below(directory: &std::path::Path, found: &mut Vec<String>) -> Result<()> {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                below(&path, found)?;
            }
            found.push(path.display().to_string());
        }
        Ok(())
    }
    let mut found = Vec::new();
    below(&lab.pins(), &mut found)?;
    found.sort();
    Ok(found)
}
