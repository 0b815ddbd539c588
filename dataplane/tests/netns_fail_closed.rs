//! Nothing crosses that policy did not permit, whatever becomes of the firewall.

mod common;

use std::time::Duration;

use anyhow::Result;
use bulkhead_dataplane::ruleset::{Action, HookMode, Policy, Ruleset};
use bulkhead_testkit::{HttpServer, Outcome, TcpServer, Topology, privileged};

/// Whether `inside` reaches http on `outside`, both families, within a short while.
fn reaches(lab: &Topology) -> Result<bool> {
    let client = lab.host("inside").client().timeout(Duration::from_millis(400));
    let outside = lab.host("outside");
    let mut answers = Vec::new();
    for address in [outside.v4_port(80), outside.v6_port(80)] {
        answers.push(client.http_get(address, "/")?.is_answered());
    }
    assert_eq!(answers[0], answers[1], "families differ");
    Ok(answers[0])
}

#[test]
fn netns_detached_programs_forward_nothing_even_where_the_kernel_would() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let outside = lab.host("outside");
    let _servers = [
        HttpServer::start(&outside.namespace, outside.v4_port(80), "x")?,
        HttpServer::start(&outside.namespace, outside.v6_port(80), "x")?,
    ];
    // The worst case: the kernel forwards between its interfaces, as a Docker host tells every container to.
    lab.firewall().set_kernel_forwarding(true)?;
    assert!(reaches(&lab)?, "the kernel forwards before the firewall is there");
    let engine = common::start(&lab, common::ruleset(HookMode::Auto, false));
    assert!(reaches(&lab)?, "policy permits");
    engine.detach();
    assert!(!reaches(&lab)?, "programs gone: the fail-closed rules hold");
    engine.stop();
    drop(engine);
    assert!(!reaches(&lab)?, "engine gone: the fail-closed rules stay");
    let rules = lab.firewall().netlink()?.blackhole_rules()?;
    assert_eq!(rules.len(), 4, "two interfaces, two families: {rules:?}");
    Ok(())
}

#[test]
fn netns_an_engine_without_policies_denies() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let outside = lab.host("outside");
    let _server = HttpServer::start(&outside.namespace, outside.v4_port(80), "x")?;
    lab.firewall().set_kernel_forwarding(true)?;
    let empty = Ruleset {
        policies: vec![],
        ..common::ruleset(HookMode::Auto, false)
    };
    let engine = common::start(&lab, empty);
    assert!(!reaches(&lab)?);
    assert!(engine.counters()?["default_deny"] > 0);
    Ok(())
}

#[test]
fn netns_a_commit_ends_live_sessions_it_no_longer_permits_and_only_those() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let engine = common::start(&lab, common::ruleset(HookMode::Auto, true));
    let _server = TcpServer::start(&outside.namespace, outside.v4_port(80))?;
    let client = inside.client().timeout(Duration::from_millis(1000));
    let mut talk = client.tcp(outside.v4_port(80))?.answered()?;
    talk.exchange(10_000, 10_000)?.answered()?;
    // The same rules again: the session notices nothing.
    lab.firewall()
        .run(|| engine.commit(common::ruleset(HookMode::Auto, true)))?;
    assert_eq!(engine.generation(), 2);
    talk.exchange(10_000, 10_000)?.answered()?;
    // A rule in front denies it: nothing more goes either way, and a new connection does not open.
    let mut denied = common::ruleset(HookMode::Auto, true);
    denied.policies.insert(
        0,
        Policy {
            name: "stop".into(),
            action: Action::Deny,
            ..Policy::default()
        },
    );
    lab.firewall().run(|| engine.commit(denied))?;
    assert!(
        !talk.exchange(1, 1)?.is_answered(),
        "a live session outlived its permission"
    );
    assert!(matches!(client.tcp(outside.v4_port(80))?, Outcome::TimedOut));
    assert!(
        engine.counters()?["policy_changed"] > 0,
        "{:#?}",
        engine.nonzero_counters()
    );
    assert_eq!(engine.sessions(&|_| true, 10)?.total, 0);
    Ok(())
}

#[test]
fn netns_a_refused_commit_changes_nothing() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let outside = lab.host("outside");
    let engine = common::start(&lab, common::ruleset(HookMode::Auto, false));
    let _servers = [
        HttpServer::start(&outside.namespace, outside.v4_port(80), "x")?,
        HttpServer::start(&outside.namespace, outside.v6_port(80), "x")?,
    ];
    let mut wrong = common::ruleset(HookMode::Auto, false);
    wrong.interfaces[1].name = "net9".into();
    let error = lab
        .firewall()
        .run(|| engine.commit(wrong))
        .expect_err("net9 does not exist")
        .to_string();
    assert_eq!(error, "interface net9 does not exist");
    assert_eq!(engine.generation(), 1);
    assert!(reaches(&lab)?);
    Ok(())
}
