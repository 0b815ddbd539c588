//! Fragments between real stacks: any size, both ways, both families, through policy and translation, in any order; and
//! what floods of them cost.

mod common;

use std::{
    collections::BTreeMap,
    net::{IpAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::Result;
use bulkhead_abi::FRAGMENT_ENTRIES;
use bulkhead_dataplane::{engine::Engine, ruleset::HookMode};
use bulkhead_testkit::{
    Attachment, Frame, Host, HostSpec, RawPort, Topology, UdpServer, patience, ping::PingSpec, privileged,
};

/// What a fragment that went its way is counted as.
const ON_THEIR_WAY: [&str; 4] = ["session_created", "half_open", "established", "established_xdp"];

/// How counters moved, zeros left out, what hosts say unasked left out too.
fn moved(before: &BTreeMap<String, u64>, engine: &Engine) -> Result<BTreeMap<String, u64>> {
    let noise = [
        "arp",
        "neighbour_discovery",
        "host_inbound_deny",
        "from_host",
        "to_host",
    ];
    let after = engine.counters()?;
    Ok(after
        .into_iter()
        .map(|(name, count)| {
            let by = count - before[&name];
            (name, by)
        })
        .filter(|(name, by)| *by != 0 && !noise.contains(&name.as_str()))
        .filter(|(name, _)| !name.starts_with("decision_cache"))
        .collect())
}

/// Sum of those that went their way; panics if anything else moved.
#[track_caller]
fn forwarded(moved: &BTreeMap<String, u64>, besides: &[&str]) -> u64 {
    for name in moved.keys() {
        let known = ON_THEIR_WAY.contains(&name.as_str()) || besides.contains(&name.as_str());
        assert!(known || name == "sessions_established", "{name} moved: {moved:?}");
    }
    ON_THEIR_WAY.iter().filter_map(|name| moved.get(*name)).sum()
}

/// Fragments of a datagram of `bytes` bytes of UDP payload at an MTU.
fn fragments(family: &IpAddr, bytes: usize, mtu: usize) -> usize {
    let (whole, part) = match family {
        IpAddr::V4(_) => (mtu - 20, (mtu - 20) & !7),
        IpAddr::V6(_) => (mtu - 40, (mtu - 48) & !7),
    };
    if bytes + 8 <= whole {
        1
    } else {
        (bytes + 8).div_ceil(part)
    }
}

fn sizes_both_ways(attachment: Attachment, hook: HookMode, nat: bool) -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| {
        let host = host.attachment(attachment);
        // What a frame that XDP redirects needs at its target.
        if hook == HookMode::Xdp {
            host.host_gro()
        } else {
            host
        }
    });
    let engine = common::start(&lab, common::ruleset(hook, nat));
    lab.resolve_neighbours()?;
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    for server in outside.addresses() {
        let _server = UdpServer::start(&outside.namespace, (server, 53).into())?;
        for bytes in [1472, 1473, 2960, 2961, 9000, 20_001, 60_000] {
            let before = engine.counters()?;
            let mut conversation = inside.client().udp((server, 53).into())?.answered()?;
            let mut expected = 0;
            // The second time both sides have spoken.
            for _ in 0..2 {
                let answer = conversation.probe(bytes)?.answered().unwrap_or_else(|error| {
                    panic!("{bytes} bytes: {error}: {:#?}", engine.nonzero_counters())
                });
                let seen = answer.seen_as;
                let gateway = match server {
                    IpAddr::V4(_) => IpAddr::V4(outside.firewall_v4),
                    IpAddr::V6(_) => IpAddr::V6(outside.firewall_v6),
                };
                assert_eq!(seen.ip() == gateway, nat, "seen as {seen}");
                let reply = bytes + 1 + seen.to_string().len();
                expected += fragments(&server, bytes, 1500) + fragments(&server, reply, 1500);
            }
            let moved = moved(&before, &engine)?;
            assert_eq!(
                forwarded(&moved, &["checksums_repaired"]),
                expected as u64,
                "{bytes} bytes: {moved:?}"
            );
        }
        // ICMP, with an identifier to translate.
        let spec = PingSpec {
            payload_bytes: 20_000,
            ..PingSpec::default()
        };
        inside.client().ping_with(server, &spec)?.answered()?;
    }
    let left = engine.with_object(|object| object.maps.fragments.keys())?;
    assert!(
        left.is_empty(),
        "complete datagrams leave nothing behind: {left:?}"
    );
    Ok(())
}

#[test]
fn netns_fragments_of_any_size_both_ways_over_veth() -> Result<()> {
    sizes_both_ways(Attachment::Veth, HookMode::Auto, false)
}

#[test]
fn netns_fragments_of_any_size_both_ways_through_source_nat() -> Result<()> {
    sizes_both_ways(Attachment::Veth, HookMode::Auto, true)
}

#[test]
fn netns_fragments_of_any_size_both_ways_with_xdp_and_source_nat() -> Result<()> {
    sizes_both_ways(Attachment::Veth, HookMode::Xdp, true)
}

#[test]
fn netns_fragments_of_any_size_both_ways_over_macvlan() -> Result<()> {
    sizes_both_ways(Attachment::Macvlan, HookMode::Auto, true)
}

#[test]
fn netns_fragments_to_the_firewall_itself() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let engine = common::start(&lab, common::ruleset(HookMode::Auto, false));
    let inside = lab.host("inside");
    let spec = PingSpec {
        payload_bytes: 10_000,
        ..PingSpec::default()
    };
    for own in inside.gateways() {
        inside
            .client()
            .ping_with(own, &spec)?
            .answered()
            .unwrap_or_else(|error| panic!("{own}: {error}: {:#?}", engine.nonzero_counters()));
    }
    Ok(())
}

/// All orders of 0, 1, 2, 3.
fn orders() -> Vec<[usize; 4]> {
    let mut orders = Vec::new();
    for number in 0..256 {
        let order = [number & 3, number >> 2 & 3, number >> 4 & 3, number >> 6];
        if (0..4).all(|piece| order.contains(&piece)) {
            orders.push(order);
        }
    }
    orders
}

/// A socket that the fragments' datagrams arrive at.
fn receiver(host: &Host, address: IpAddr) -> Result<UdpSocket> {
    let socket = host.namespace.run(|| UdpSocket::bind((address, 53)))?;
    socket.set_read_timeout(Some(patience(Duration::from_secs(2))))?;
    Ok(socket)
}

fn any_order(attachment: Attachment, hook: HookMode, nat: bool) -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host.attachment(attachment));
    let engine = common::start(&lab, common::ruleset(hook, nat));
    lab.resolve_neighbours()?;
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let port = RawPort::open(&inside.namespace, &inside.interface)?;
    let orders = orders();
    assert_eq!(orders.len(), 24);
    for (client, server) in inside.addresses().into_iter().zip(outside.addresses()) {
        let socket = receiver(outside, server)?;
        let before = engine.counters()?;
        let mut early = 0;
        for (number, order) in orders.iter().enumerate() {
            let payload: Vec<u8> = (0..5000).map(|at| (at * 7 + number) as u8).collect();
            let pieces = Frame::ip(client, server)
                .macs(inside.mac, inside.firewall_mac)
                .udp(4000 + number as u16, 53)
                .payload(&payload)
                .build_fragments(1400, 900 + number as u32);
            for piece in order {
                port.send(&pieces[*piece])?;
            }
            early += order.iter().position(|piece| *piece == 0).unwrap_or(0);
            let mut buffer = [0; 6000];
            let (length, from) = socket
                .recv_from(&mut buffer)
                .unwrap_or_else(|error| panic!("{order:?}: {error}: {:#?}", engine.nonzero_counters()));
            assert_eq!(buffer[..length], payload, "{order:?}");
            assert_eq!(from.ip() == client, !nat);
        }
        let moved = moved(&before, &engine)?;
        let besides = ["fragments_held", "frames_injected"];
        assert_eq!(forwarded(&moved, &besides), 24 * 4, "{moved:?}");
        for name in besides {
            assert_eq!(moved.get(name), Some(&(early as u64)), "{moved:?}");
        }
    }
    Ok(())
}

#[test]
fn netns_rfc4787_14_fragments_in_every_order_over_veth() -> Result<()> {
    any_order(Attachment::Veth, HookMode::Auto, false)
}

#[test]
fn netns_rfc4787_14_fragments_in_every_order_with_xdp_and_source_nat() -> Result<()> {
    any_order(Attachment::Veth, HookMode::Xdp, true)
}

#[test]
fn netns_rfc4787_14_fragments_in_every_order_over_macvlan_and_source_nat() -> Result<()> {
    any_order(Attachment::Macvlan, HookMode::Auto, true)
}

fn narrow_way_out(hook: HookMode, nat: bool) -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = Topology::builder("bht-")
        .host(HostSpec::new("inside").mtu(1500))
        .host(HostSpec::new("outside").mtu(1280))
        .build()?;
    let engine = common::start(&lab, common::ruleset(hook, nat));
    lab.resolve_neighbours()?;
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    // Sockets that leave "don't fragment" off.
    inside.namespace.set_sysctl("net/ipv4/ip_no_pmtu_disc", "1")?;
    let _server = UdpServer::start(&outside.namespace, outside.v4_port(53))?;
    for bytes in [1252, 1253, 1400, 1472, 1473, 1480, 5000, 60_000] {
        let before = engine.counters()?;
        let mut conversation = inside.client().udp(outside.v4_port(53))?.answered()?;
        for _ in 0..2 {
            conversation
                .probe(bytes)?
                .answered()
                .unwrap_or_else(|error| panic!("{bytes} bytes: {error}: {:#?}", engine.nonzero_counters()));
        }
        let moved = moved(&before, &engine)?;
        let cut = moved.get("fragmented").copied().unwrap_or(0);
        // Two packets, or the full fragments of two datagrams (the last of which may fit as it is).
        let full = fragments(&IpAddr::V4(inside.v4), bytes, 1500) as u64 * 2;
        let expected = match bytes {
            1252 => 0..=0,
            1253..=1472 => 2..=2,
            _ => full - 2..=full,
        };
        assert!(expected.contains(&cut), "{bytes} bytes: {cut} cut: {moved:?}");
        forwarded(
            &moved,
            &[
                "fragmented",
                "frames_injected",
                "fragments_held",
                "checksums_repaired",
            ],
        );
    }
    Ok(())
}

#[test]
fn netns_rfc4787_13_packets_without_df_are_fragmented_for_a_narrow_way_out() -> Result<()> {
    narrow_way_out(HookMode::Auto, false)
}

#[test]
fn netns_rfc4787_13_packets_without_df_are_fragmented_through_source_nat_with_xdp() -> Result<()> {
    narrow_way_out(HookMode::Xdp, true)
}

/// Waits until `done`, at most five seconds on a usual machine.
fn settle(engine: &Engine, done: impl Fn(&BTreeMap<String, u64>) -> bool) -> Result<BTreeMap<String, u64>> {
    let deadline = Instant::now() + patience(Duration::from_secs(5));
    loop {
        let counters = engine.counters()?;
        if done(&counters) || Instant::now() > deadline {
            return Ok(counters);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn netns_fragments_that_wait_in_vain_are_accounted_for() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let engine = common::start(&lab, common::ruleset(HookMode::Auto, false));
    lab.resolve_neighbours()?;
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let port = RawPort::open(&inside.namespace, &inside.interface)?;
    let later = |source: IpAddr, id: u32| {
        Frame::ip(source, outside.v4)
            .macs(inside.mac, inside.firewall_mac)
            .udp(4000, 53)
            .payload_bytes(2000)
            .build_fragments(1400, id)
            .swap_remove(1)
    };
    // Alone: it waits two seconds.
    let began = Instant::now();
    port.send(&later(IpAddr::V4(inside.v4), 1))?;
    let counters = settle(&engine, |counters| counters["fragment_timeout"] == 1)?;
    assert_eq!((counters["fragments_held"], counters["fragment_timeout"]), (1, 1));
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    // A flood: of one source, and of many.
    const FLOOD: u64 = 8000;
    for number in 0..FLOOD as u32 {
        let forged = [10, 77, 9, 9].map(|octet: u8| octet);
        let source = if number % 2 == 0 {
            IpAddr::V4(inside.v4)
        } else {
            let [_, b, c, d] = number.to_be_bytes();
            IpAddr::from([forged[0], b, c, d])
        };
        port.send(&later(source, number))?;
    }
    // While it lasts, what only came out of order still gets through.
    let socket = receiver(outside, IpAddr::V4(outside.v4))?;
    let pieces = Frame::ip(inside.v4, outside.v4)
        .macs(inside.mac, inside.firewall_mac)
        .udp(4001, 53)
        .payload_bytes(2000)
        .build_fragments(1400, 50_000);
    port.send(&pieces[0])?;
    port.send(&pieces[1])?;
    let mut buffer = [0; 3000];
    assert_eq!(socket.recv(&mut buffer)?, 2000);
    let ended = |counters: &BTreeMap<String, u64>| counters["fragment_limit"] + counters["fragment_timeout"];
    let counters = settle(&engine, |counters| ended(counters) == FLOOD + 1)?;
    assert_eq!(ended(&counters), FLOOD + 1, "{:#?}", engine.nonzero_counters());
    assert!(counters["fragments_held"] <= FLOOD + 1);
    assert_eq!(counters["frames_injected"], 0);
    Ok(())
}

#[test]
fn netns_a_flood_of_first_fragments_costs_no_memory_and_no_other_datagram() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let engine = common::start(&lab, common::ruleset(HookMode::Auto, false));
    lab.resolve_neighbours()?;
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let port = RawPort::open(&inside.namespace, &inside.interface)?;
    const FLOOD: u32 = 2 * FRAGMENT_ENTRIES;
    for number in 0..FLOOD {
        let [_, b, c, d] = number.to_be_bytes();
        let first = Frame::ip([10, b, c, d], outside.v4)
            .macs(inside.mac, inside.firewall_mac)
            .udp(4000, 54)
            .payload_bytes(40)
            .build_fragments(24, number)
            .swap_remove(0);
        port.send(&first)?;
    }
    let counters = settle(&engine, |counters| counters["default_deny"] >= u64::from(FLOOD))?;
    assert!(counters["default_deny"] >= u64::from(FLOOD));
    let entries = engine.with_object(|object| object.maps.fragments.keys())?.len();
    assert!(entries <= FRAGMENT_ENTRIES as usize, "{entries} entries");
    let _server = UdpServer::start(&outside.namespace, outside.v4_port(53))?;
    inside
        .client()
        .udp_probe(outside.v4_port(53), 60_000)?
        .answered()?;
    Ok(())
}

#[test]
fn netns_no_ipv4_error_is_about_a_later_fragment() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let engine = common::start(&lab, common::ruleset(HookMode::Auto, false));
    lab.resolve_neighbours()?;
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let port = RawPort::open(&inside.namespace, &inside.interface)?;
    for (number, (client, server)) in inside
        .addresses()
        .into_iter()
        .zip(outside.addresses())
        .enumerate()
    {
        let packet = Frame::ip(client, server)
            .macs(inside.mac, inside.firewall_mac)
            .udp(4000, 53)
            .payload_bytes(2000);
        port.send(&packet.build_fragments(1400, 7)[0])?;
        // RFC 1122, 3.2.2; IPv6 has no such rule (RFC 4443, 2.4).
        port.send(&packet.ttl(1).build_fragments(1400, 7)[1])?;
        let answer = port.receive_matching(Duration::from_millis(500), |seen| {
            let (protocol, kind) = if client.is_ipv4() { (23, 34) } else { (20, 54) };
            matches!((seen.frame[protocol], seen.frame[kind]), (1, 11) | (58, 3))
        })?;
        assert_eq!(answer.is_some(), client.is_ipv6(), "{answer:?}");
        assert_eq!(engine.counters()?["ttl_exceeded"], number as u64 + 1);
    }
    Ok(())
}
