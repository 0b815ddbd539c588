//! UDP, ICMP queries and protocols without ports.

use bulkhead_abi::{Reason, SessionState};
use bulkhead_pipeline::Table;

use crate::{
    FAMILIES,
    frame::{Frame, ICMP, ICMPV6},
    net::{ANY, HIT, INSIDE, MISS, Net, OUTSIDE, SECOND, ZONE_INSIDE, ZONE_OUTSIDE, permit},
};

const ESTABLISHED: (&str, u64) = ("sessions_established", 1);

fn outbound() -> Net {
    Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)])
}

fn family(address: &str) -> u8 {
    if address.contains(':') { 6 } else { 4 }
}

#[test]
fn udp_is_one_way_until_it_is_answered() {
    for (client, server, router) in FAMILIES {
        let mut net = outbound();
        let ask = Frame::new(client, server).udp(5000, 53).payload(b"question");
        let answer = Frame::new(server, client).udp(53, 5000).payload(b"answer");
        net.receive(INSIDE, &ask)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS])
            .via(router);
        net.receive(INSIDE, &ask)
            .forwarded(OUTSIDE, Reason::HalfOpen, &[])
            .via(router);
        assert_eq!(net.flows(), (0, 1));
        net.receive(OUTSIDE, &answer)
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED])
            .via(client);
        assert_eq!(net.flows(), (2, 0));
        for (_, flow) in net.tables().flows(Table::Established, family(client)).entries() {
            assert_eq!(flow.state, SessionState::UdpTwoWay as u8);
        }
        net.receive(INSIDE, &ask)
            .forwarded(OUTSIDE, Reason::Established, &[]);
        net.receive(OUTSIDE, &answer)
            .forwarded(INSIDE, Reason::Established, &[]);
        net.advance(300 * SECOND + 1);
        assert_eq!(net.age(), 1);
    }
}

#[test]
fn unanswered_udp_is_forgotten_sooner() {
    let mut net = outbound();
    let ask = Frame::new("10.1.0.2", "192.0.2.80").udp(5000, 53);
    net.receive(INSIDE, &ask)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.advance(30 * SECOND);
    assert_eq!(net.age(), 0);
    net.receive(INSIDE, &ask)
        .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
    net.advance(30 * SECOND + 1);
    // Not even a late answer gets through.
    let answer = Frame::new("192.0.2.80", "10.1.0.2").udp(53, 5000);
    net.receive(OUTSIDE, &answer)
        .dropped(Reason::DefaultDeny, &[MISS]);
    assert_eq!(net.flows(), (0, 0));
}

#[test]
fn either_side_keeps_a_session_alive() {
    let mut net = outbound();
    let ask = Frame::new("10.1.0.2", "192.0.2.80").udp(5000, 53);
    let answer = Frame::new("192.0.2.80", "10.1.0.2").udp(53, 5000);
    net.receive(INSIDE, &ask)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.receive(OUTSIDE, &answer)
        .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
    // The other side is silent for more than the timeout each time.
    for (after, ifindex, out, frame) in [(200, OUTSIDE, INSIDE, &answer), (50, INSIDE, OUTSIDE, &ask)] {
        net.advance(after * SECOND);
        net.receive(ifindex, frame)
            .forwarded(out, Reason::Established, &[]);
        net.advance(200 * SECOND);
        assert_eq!(net.age(), 0);
    }
    net.advance(100 * SECOND + 1);
    assert_eq!(net.age(), 1);
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let mut net = outbound();
    let mut ask = Frame::new("10.1.0.2", "192.0.2.80").udp(5000, 53);
    ask.no_checksum = true;
    let sent = net
        .receive(INSIDE, &ask)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    assert_eq!(sent.seen.word(6), 0);
}

#[test]
fn an_echo_is_answered_and_only_its_own() {
    for (client, server, router) in FAMILIES {
        let mut net = outbound();
        let ping = Frame::new(client, server).echo(77, 1).payload(b"0123456789");
        let pong = Frame::new(server, client)
            .echo_reply(77, 1)
            .payload(b"0123456789");
        net.receive(OUTSIDE, &pong).dropped(Reason::IcmpNotRequest, &[]);
        net.receive(INSIDE, &ping)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS])
            .via(router);
        net.receive(OUTSIDE, &pong)
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED])
            .via(client);
        net.receive(INSIDE, &ping)
            .forwarded(OUTSIDE, Reason::Established, &[]);
        net.receive(OUTSIDE, &pong)
            .forwarded(INSIDE, Reason::Established, &[]);
        let other = Frame::new(server, client).echo_reply(78, 1);
        net.receive(OUTSIDE, &other).dropped(Reason::IcmpNotRequest, &[]);
        net.advance(60 * SECOND + 1);
        assert_eq!(net.age(), 1);
        net.receive(OUTSIDE, &pong).dropped(Reason::IcmpNotRequest, &[]);
    }
}

/// An echo that policy permitted is not a licence for other queries, nor for queries the other way.
#[test]
fn an_echo_session_carries_requests_one_way_and_replies_the_other() {
    for (client, server, _) in FAMILIES {
        let mut net = outbound();
        let ping = Frame::new(client, server).echo(77, 1);
        let pong = Frame::new(server, client).echo_reply(77, 1);
        for round in 0..2 {
            let (reason, others): (_, &[_]) = if round == 0 {
                (Reason::SessionCreated, &[MISS])
            } else {
                (Reason::Established, &[])
            };
            net.receive(INSIDE, &ping).forwarded(OUTSIDE, reason, others);
            // The other side pings back under the same identifier.
            let back = Frame::new(server, client).echo(77, 1);
            net.receive(OUTSIDE, &back).dropped(Reason::IcmpNotRequest, &[]);
            let unasked = Frame::new(client, server).echo_reply(77, 1);
            net.receive(INSIDE, &unasked).dropped(Reason::IcmpNotRequest, &[]);
            let others: &[_] = if round == 0 { &[ESTABLISHED] } else { &[] };
            net.receive(OUTSIDE, &pong)
                .forwarded(INSIDE, Reason::Established, others);
        }
    }
}

#[test]
fn an_echo_session_is_no_way_round_a_policy_about_types() {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE).service(1)]);
    net.icmp_service(1, ICMP, 8);
    let timestamp = Frame::new("10.1.0.2", "192.0.2.80").query(13, 77, 1);
    net.receive(INSIDE, &timestamp)
        .dropped(Reason::DefaultDeny, &[MISS]);
    let ping = Frame::new("10.1.0.2", "192.0.2.80").echo(77, 1);
    net.receive(INSIDE, &ping)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.receive(INSIDE, &timestamp)
        .dropped(Reason::IcmpNotRequest, &[]);
    // Redirects have no identifier, which looks like identifier 0.
    let ping = Frame::new("10.1.0.2", "192.0.2.80").echo(0, 1);
    net.receive(INSIDE, &ping)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
    let redirect = Frame::new("192.0.2.80", "10.1.0.2")
        .icmp(5, 1, [10, 1, 0, 3])
        .payload(&[0; 28]);
    net.receive(OUTSIDE, &redirect)
        .dropped(Reason::IcmpNotRequest, &[]);
}

#[test]
fn icmp_types_are_services() {
    for ((client, server, _), (protocol, kind)) in FAMILIES.into_iter().zip([(ICMP, 8), (ICMPV6, 128)]) {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE).service(1)]);
        net.receive(INSIDE, &Frame::new(client, server).echo(1, 1))
            .dropped(Reason::DefaultDeny, &[MISS]);
        net.icmp_service(1, protocol, kind);
        net.receive(INSIDE, &Frame::new(client, server).echo(1, 1))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    }
}

#[test]
fn a_protocol_without_ports_has_sessions_by_address() {
    for (client, server, router) in FAMILIES {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE).service(ANY)]);
        let there = Frame::new(client, server).protocol(47, b"generic routing encapsulation");
        let back = Frame::new(server, client).protocol(47, b"generic routing encapsulation");
        net.receive(OUTSIDE, &back).dropped(Reason::DefaultDeny, &[MISS]);
        net.receive(INSIDE, &there)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS])
            .via(router);
        net.receive(OUTSIDE, &back)
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
        net.receive(INSIDE, &there)
            .forwarded(OUTSIDE, Reason::Established, &[]);
        net.advance(600 * SECOND + 1);
        assert_eq!(net.age(), 1);
    }
}
