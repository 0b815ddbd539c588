//! What a hostile reader of the code found once, so that it stays found.

mod common;

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use bulkhead_dataplane::ruleset::{Action, HookMode, InterfaceRule, Policy, Ruleset, Zone};
use bulkhead_testkit::{Frame, HostSpec, Outcome, RawPort, Topology, UdpServer, privileged};

#[test]
fn netns_a_commit_that_fails_late_leaves_nothing_for_the_next_one() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let outside = lab.host("outside");
    let engine = common::start(&lab, common::ruleset(HookMode::Auto, false));
    let _server = UdpServer::start(&outside.namespace, outside.v4_port(53))?;
    // Everything permitted, and an address that no interface can have: staged, and then refused by the kernel.
    let anything = Policy {
        name: "anything".into(),
        action: Action::Permit,
        ..Policy::default()
    };
    let mut refused = Ruleset {
        policies: vec![anything],
        ..common::ruleset(HookMode::Auto, false)
    };
    refused.interfaces[0].addresses = vec![(IpAddr::V6("ff02::1".parse()?), 64)];
    assert!(lab.firewall().run(|| engine.commit(refused)).is_err());
    assert_eq!(engine.generation(), 1, "the old generation stays in force");
    let client = lab.host("inside").client().timeout(Duration::from_millis(600));
    client
        .dns_query(outside.v4_port(53), "example.test")?
        .answered()?;
    // A rule in the same place, for a zone this traffic does not come from: nothing else permits.
    let narrow = Policy {
        name: "narrow".into(),
        from: vec![1],
        action: Action::Permit,
        ..Policy::default()
    };
    let next = Ruleset {
        policies: vec![narrow],
        ..common::ruleset(HookMode::Auto, false)
    };
    let generation = lab.firewall().run(|| engine.commit(next))?;
    assert!(generation > 2, "the failed number is spent");
    let outcome = client
        .source((lab.host("inside").v4, 4444).into())
        .dns_query(outside.v4_port(53), "example.test")?;
    assert!(
        matches!(outcome, Outcome::TimedOut),
        "leftovers of a failed commit permit: {outcome:?}"
    );
    Ok(())
}

#[test]
fn netns_an_answer_to_a_forged_source_does_not_enter_the_forged_zone() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Topology::builder("bht-")
        .host(HostSpec::new("inside"))
        .host(HostSpec::new("outside"))
        .host(HostSpec::new("guest"))
        .build()?;
    let mut rules = common::ruleset(HookMode::Auto, false);
    rules.zones.push(Zone {
        name: "guest".into(),
        host_inbound: vec![],
        ..Zone::default()
    });
    rules.interfaces.push(InterfaceRule {
        name: "net3".into(),
        zone: 2,
        ..InterfaceRule::default()
    });
    let engine = common::start(&lab, rules);
    lab.resolve_neighbours()?;
    let (inside, outside, guest) = (lab.host("inside"), lab.host("outside"), lab.host("guest"));
    let _server = UdpServer::start(&outside.namespace, outside.v4_port(53))?;
    let listener = RawPort::open(&guest.namespace, &guest.interface)?;
    let port = RawPort::open(&inside.namespace, &inside.interface)?;
    // Inside may ask the server; it claims to be the guest, to whom the server may say nothing.
    let mut query = vec![
        0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'x', 4, b't', b'e', b's', b't', 0, 0, 1, 0, 1,
    ];
    query.truncate(24);
    let forged = Frame::ip(guest.v4, outside.v4)
        .macs(inside.mac, inside.firewall_mac)
        .udp(4000, 53)
        .payload(&query)
        .build();
    port.send(&forged)?;
    let arrived = listener.receive_matching(Duration::from_millis(800), |seen| {
        seen.frame.len() > 23 && seen.frame[12..14] == [8, 0] && seen.frame[23] == 17
    })?;
    assert!(
        arrived.is_none(),
        "the answer crossed into a zone nothing permits"
    );
    let counters = engine.counters()?;
    assert_eq!(counters["policy_changed"], 1, "{:#?}", engine.nonzero_counters());
    Ok(())
}
