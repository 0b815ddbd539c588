//! What a router owes its neighbours: errors answered, errors of others translated, first packets not lost.

mod common;

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use bulkhead_dataplane::ruleset::HookMode;
use bulkhead_testkit::{
    CounterDelta, Frame, HostSpec, IcmpError, Outcome, RawPort, UdpServer, ping::PingSpec, privileged,
    verify_checksums,
};

/// The ICMP error an outcome consists of.
fn icmp<T: std::fmt::Debug>(outcome: Outcome<T>) -> IcmpError {
    outcome
        .icmp()
        .unwrap_or_else(|| panic!("no ICMP error: {outcome:?}"))
}

#[test]
fn netns_ttl_exceeded_is_answered() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let engine = common::start(&lab, common::ruleset(HookMode::Auto, true));
    let client = inside.client().timeout(Duration::from_millis(1500));
    let spec = PingSpec {
        ttl: 1,
        ..PingSpec::default()
    };
    let error = icmp(client.ping_with(IpAddr::V4(outside.v4), &spec)?);
    assert_eq!(
        (error.kind, error.code, error.from),
        (11, 0, Some(IpAddr::V4(inside.firewall_v4)))
    );
    let error = icmp(client.ping_with(IpAddr::V6(outside.v6), &spec)?);
    assert_eq!(
        (error.kind, error.code, error.from),
        (3, 0, Some(IpAddr::V6(inside.firewall_v6)))
    );
    assert_eq!(engine.counters()?["ttl_exceeded"], 2);
    // With one more hop it arrives.
    let spec = PingSpec {
        ttl: 2,
        ..PingSpec::default()
    };
    client.ping_with(IpAddr::V4(outside.v4), &spec)?.answered()?;
    client.ping_with(IpAddr::V6(outside.v6), &spec)?.answered()?;
    Ok(())
}

#[test]
fn netns_too_big_is_answered_with_the_mtu() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    // A wide link inside, a narrow one outside.
    let lab = bulkhead_testkit::Topology::builder("bht-")
        .host(HostSpec::new("inside").mtu(1500))
        .host(HostSpec::new("outside").mtu(1400))
        .build()?;
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let engine = common::start(&lab, common::ruleset(HookMode::Auto, false));
    let client = inside.client().timeout(Duration::from_millis(1500));
    let port = RawPort::open(&inside.namespace, &inside.interface)?;
    // IPv4 with "don't fragment", by hand: a socket would fragment or believe its own route.
    let big = Frame::ip(IpAddr::V4(inside.v4), IpAddr::V4(outside.v4))
        .macs(inside.mac, inside.firewall_mac)
        .ipv4(|header| header.dont_fragment = true)
        .udp(4000, 53)
        .payload_bytes(1450)
        .build();
    port.send(&big)?;
    let answer = port.receive_matching(Duration::from_secs(2), |seen| {
        seen.frame.len() > 35 && seen.frame[23] == 1
    })?;
    let answer = answer.expect("fragmentation needed").frame;
    verify_checksums(&answer).map_err(anyhow::Error::msg)?;
    assert_eq!((answer[34], answer[35]), (3, 4));
    assert_eq!(
        u16::from_be_bytes([answer[40], answer[41]]),
        1400,
        "the MTU of the next hop"
    );
    // IPv6, by a socket that learns.
    let spec = PingSpec {
        payload_bytes: 1440,
        ..PingSpec::default()
    };
    let error = icmp(client.ping_with(IpAddr::V6(outside.v6), &spec)?);
    assert_eq!((error.kind, error.mtu), (2, 1400));
    assert_eq!(engine.counters()?["mtu_exceeded"], 2);
    Ok(())
}

#[test]
fn netns_unreachable_port_comes_back_through_source_nat() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let engine = common::start(&lab, common::ruleset(HookMode::Auto, true));
    let client = inside.client().timeout(Duration::from_millis(1500));
    // Nobody listens on port 53: the server's kernel says so, quoting the translated packet. The client's kernel only
    // hands the error to the socket if the quoted tuple is the socket's own.
    for server in [IpAddr::V4(outside.v4), IpAddr::V6(outside.v6)] {
        let outcome = client.dns_query((server, 53).into(), "example.test")?;
        assert!(
            matches!(outcome, Outcome::Refused) || outcome.icmp().is_some(),
            "{server}: {outcome:?}: {:#?}",
            engine.nonzero_counters()
        );
    }
    assert_eq!(
        engine.counters()?["related_icmp"],
        2,
        "{:#?}",
        engine.nonzero_counters()
    );
    Ok(())
}

#[test]
fn netns_reject_tells_udp_and_icmp_senders() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let mut rules = common::ruleset(HookMode::Auto, false);
    rules.services.push(common::udp("syslog", 514));
    rules.policies[0].service.push(4);
    let engine = common::start(&lab, rules);
    let client = inside.client().timeout(Duration::from_millis(1500));
    let error = icmp(client.udp_probe(outside.v4_port(514), 64)?);
    assert_eq!((error.kind, error.code), (3, 13));
    let error = icmp(client.udp_probe(outside.v6_port(514), 64)?);
    assert_eq!((error.kind, error.code), (1, 1));
    assert_eq!(engine.counters()?["policy_reject"], 2);
    Ok(())
}

#[test]
fn netns_the_first_packet_is_not_lost_to_arp_and_exactly_the_stated_counters_move() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let engine = common::start(&lab, common::ruleset(HookMode::Auto, false));
    let _dns = UdpServer::start(&outside.namespace, outside.v4_port(53))?;
    let client = inside.client().timeout(Duration::from_millis(1500));
    let own = lab.firewall().netlink()?;
    let mut netlink = own;
    // Nobody knows anybody: the firewall has never spoken to the server.
    let known = netlink.neighbour(outside.firewall_index, IpAddr::V4(outside.v4))?;
    assert!(
        known.is_none_or(|neighbour| !neighbour.usable()),
        "the server is known already"
    );
    let before = engine.counters()?;
    // One query, sent once: an answer means that neither it nor the reply was lost.
    client
        .dns_query(outside.v4_port(53), "example.test")?
        .answered()?;
    CounterDelta::between(before, engine.counters()?)
        // Resolution itself, and the hosts' multicast chatter.
        .ignoring(&[
            "arp",
            "neighbour_discovery",
            "host_inbound_deny",
            "from_host",
            "decision_cache_hits",
        ])
        .expect(&[
            ("session_created", 1),
            // The answer, which makes the session two-way.
            ("established", 1),
            ("sessions_established", 1),
            ("decision_cache_misses", 1),
        ]);
    Ok(())
}
