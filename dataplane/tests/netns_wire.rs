//! Wire mode between real namespaces: two hosts of one network, spliced by a firewall that has no part in it.

mod common;

use std::{net::IpAddr, process::Command, time::Duration};

use anyhow::Result;
use bulkhead_dataplane::{
    engine::Engine,
    ruleset::{Group, HookMode, Prefix, Ruleset, Wire},
};
use bulkhead_testkit::{Frame, HttpServer, Outcome, RawPort, Topology, UdpServer};

/// `ip` in a namespace.
fn ip(namespace: &bulkhead_testkit::Namespace, arguments: &str) {
    let status = namespace.run(|| Command::new("ip").args(arguments.split(' ')).status());
    assert!(status.expect("ip").success(), "ip {arguments}");
}

/// The interface of a host.
const LINK: &str = "eth0";

/// Puts both hosts into one network, which the firewall has no address in.
fn one_network(lab: &Topology) {
    for (host, n) in [("inside", 1), ("outside", 2)] {
        let namespace = &lab.host(host).namespace;
        ip(namespace, &format!("addr add 10.99.0.{n}/24 dev {LINK}"));
        ip(namespace, &format!("-6 addr add fd99::{n}/64 dev {LINK} nodad"));
    }
}

fn rules(arp: bool) -> Ruleset {
    Ruleset {
        wires: vec![Wire {
            name: "w".into(),
            interfaces: [0, 1],
            arp,
            non_ip: false,
        }],
        groups: vec![Group {
            name: "servers".into(),
            members: [("10.99.0.2", 32), ("fd99::2", 128)]
                .map(|(address, length)| Prefix {
                    address: address.parse().expect("an address"),
                    length,
                })
                .to_vec(),
            ..Group::default()
        }],
        ..common::ruleset(HookMode::Auto, false)
    }
}

/// Conversations that policy permits, denies and rejects, both families.
fn conversations(lab: &Topology, engine: &Engine) -> Result<()> {
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let client = inside.client().timeout(Duration::from_millis(1500));
    let back = outside.client().timeout(Duration::from_millis(500));
    for (server, other) in [("10.99.0.2", "10.99.0.1"), ("fd99::2", "fd99::1")] {
        let (server, other): (IpAddr, IpAddr) = (server.parse()?, other.parse()?);
        let _http = HttpServer::start(&outside.namespace, (server, 80).into(), "across")?;
        let _dns = UdpServer::start(&outside.namespace, (server, 53).into())?;
        let answer = client.http_get((server, 80).into(), "/")?;
        let answer = answer
            .answered()
            .unwrap_or_else(|e| panic!("{e}: {:#?}", engine.counters()));
        assert_eq!((answer.body.as_str(), answer.seen_as.ip()), ("across", other));
        client
            .dns_query((server, 53).into(), "example.test")?
            .answered()?;
        client.ping(server)?.answered()?;
        assert!(matches!(client.tcp((server, 9999).into())?, Outcome::Refused));
        assert!(matches!(client.tcp((server, 81).into())?, Outcome::TimedOut));
        assert!(matches!(back.ping(other)?, Outcome::TimedOut));
    }
    Ok(())
}

#[test]
fn netns_wire_conversations() -> Result<()> {
    let lab = common::topology(|host| host);
    one_network(&lab);
    let engine = common::start(&lab, rules(true));
    conversations(&lab, &engine)?;
    let sessions = engine.sessions(&|_| true, 100)?;
    assert!(sessions.total >= 4, "{sessions:#?}");
    // The firewall's own address is on the other side of nothing: what is sent to it goes across like all the rest.
    let own = lab.host("inside").firewall_v4;
    let client = lab.host("inside").client().timeout(Duration::from_millis(300));
    assert!(matches!(
        client.ping(IpAddr::V4(own))?,
        Outcome::TimedOut | Outcome::Unreachable { .. }
    ));
    Ok(())
}

/// Raw frames, because not every kernel has VLAN devices.
#[test]
fn netns_wire_carries_vlan_tags() -> Result<()> {
    let lab = common::topology(|host| host);
    one_network(&lab);
    let engine = common::start(&lab, rules(true));
    let near = RawPort::open(&lab.host("inside").namespace, LINK)?;
    let far = RawPort::open(&lab.host("outside").namespace, LINK)?;
    // A customer's tag (802.1Q) and a service provider's (802.1ad).
    for (turn, [a, b]) in [[0x81, 0x00], [0x88, 0xa8]].into_iter().enumerate() {
        carries_tags(&engine, &near, &far, [a, b, 0x60], turn as u64 + 1)?;
    }
    Ok(())
}

/// Conversations in the VLANs 42 and 43 of one kind of tag, `turn` times so far.
fn carries_tags(engine: &Engine, near: &RawPort, far: &RawPort, kind: [u8; 3], turn: u64) -> Result<()> {
    let [a, b, priority] = kind;
    let tag = |mut frame: Vec<u8>, id: u8| {
        frame.splice(12..12, [a, b, priority, id]);
        frame
    };
    let query = |id| {
        let frame = Frame::ip([10, 99, 0, 1], [10, 99, 0, 2])
            .macs(near.mac(), far.mac())
            .udp(4000, 53)
            .build();
        tag(frame, id)
    };
    let answer = |id| {
        let frame = Frame::ip([10, 99, 0, 2], [10, 99, 0, 1])
            .macs(far.mac(), near.mac())
            .udp(53, 4000)
            .build();
        tag(frame, id)
    };
    let wait = Duration::from_millis(500);
    near.send(&query(42))?;
    let arrived = far.receive_matching(wait, |captured| captured.frame == query(42))?;
    assert!(arrived.is_some(), "{:#?}", engine.counters());
    // The answer in another VLAN is nobody's.
    far.send(&answer(43))?;
    far.send(&answer(42))?;
    let arrived = near.receive_matching(wait, |captured| captured.frame.ends_with(&answer(42)[18..]))?;
    assert_eq!(arrived.map(|captured| captured.frame), Some(answer(42)));
    assert_eq!(engine.counters()?["default_deny"], turn);
    // Rejected: the reset carries the tag.
    let frame = Frame::ip([10, 99, 0, 1], [10, 99, 0, 2])
        .macs(near.mac(), far.mac())
        .tcp(4000, 9999)
        .syn()
        .build();
    near.send(&tag(frame, 42))?;
    let reset = near.receive_matching(wait, |captured| captured.frame[12..16] == [a, b, priority, 42])?;
    assert!(reset.is_some(), "{:#?}", engine.counters());
    Ok(())
}

#[test]
fn netns_wire_without_arp_is_silent() -> Result<()> {
    let lab = common::topology(|host| host);
    one_network(&lab);
    let engine = common::start(&lab, rules(false));
    let server: IpAddr = "10.99.0.2".parse()?;
    let client = lab.host("inside").client().timeout(Duration::from_millis(500));
    assert!(!matches!(client.ping(server)?, Outcome::Answered(_)));
    assert!(engine.counters()?["wire_arp_denied"] > 0);
    Ok(())
}

#[test]
fn netns_wire_dead_is_cut() -> Result<()> {
    let lab = common::topology(|host| host);
    one_network(&lab);
    let engine = common::start(&lab, rules(true));
    let server: IpAddr = "10.99.0.2".parse()?;
    let client = lab.host("inside").client().timeout(Duration::from_millis(700));
    client.ping(server)?.answered()?;
    lab.firewall().set_kernel_forwarding(true)?;
    engine.detach();
    assert!(!matches!(client.ping(server)?, Outcome::Answered(_)));
    Ok(())
}

#[test]
fn netns_wire_fragments_in_any_order_keep_their_tag() -> Result<()> {
    let lab = common::topology(|host| host);
    one_network(&lab);
    let engine = common::start(&lab, rules(true));
    let near = RawPort::open(&lab.host("inside").namespace, LINK)?;
    let far = RawPort::open(&lab.host("outside").namespace, LINK)?;
    for tag in [None, Some([0x81, 0x00]), Some([0x88, 0xa8])] {
        let fragments: Vec<Vec<u8>> = Frame::ip([10, 99, 0, 1], [10, 99, 0, 2])
            .macs(near.mac(), far.mac())
            .udp(4000, 53)
            .payload_bytes(4000)
            .build_fragments(1400, 7)
            .into_iter()
            .map(|mut frame| {
                if let Some([a, b]) = tag {
                    frame.splice(12..12, [a, b, 0x60, 42]);
                }
                frame
            })
            .collect();
        for number in [2, 1, 0] {
            near.send(&fragments[number])?;
        }
        // The first goes by at once, the others behind it in the order in which they came.
        for number in [0, 2, 1] {
            let wait = Duration::from_secs(2);
            let arrived = far.receive_matching(wait, |captured| captured.frame == fragments[number])?;
            assert!(
                arrived.is_some(),
                "fragment {number}, tag {tag:?}: {:#?}",
                engine.nonzero_counters()
            );
        }
    }
    Ok(())
}
