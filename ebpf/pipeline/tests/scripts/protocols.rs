//! Protocols with ports that are neither TCP nor UDP: SCTP (RFC 9260), DCCP (RFC 4340), UDP-Lite (RFC 3828).

use bulkhead_abi::Reason;

use crate::{
    FAMILIES,
    frame::{DCCP, Frame, SCTP, UDP_LITE},
    net::{HIT, INSIDE, MISS, Net, OUTSIDE, SECOND, ZONE_INSIDE, ZONE_OUTSIDE, mac, permit},
    verify,
};

const ESTABLISHED: (&str, u64) = ("sessions_established", 1);
const CHANGED: (&str, u64) = ("nat_ports_changed", 1);

/// Another inside host, and the outside address, per family.
const OTHERS: [(&str, &str); 2] = [("10.1.0.3", "198.51.100.1"), ("2001:db8:1::3", "2001:db8:2::1")];

/// A frame of each protocol, with an odd payload.
fn frames(from: &str, to: &str, source: u16, destination: u16) -> [Frame; 5] {
    let frame = || Frame::new(from, to).payload(b"three words");
    [
        frame().sctp(source, destination),
        frame().dccp(source, destination),
        frame().udp_lite(source, destination, 0),
        frame().udp_lite(source, destination, 8),
        frame().udp_lite(source, destination, 13),
    ]
}

#[test]
fn sessions_are_by_ports() {
    for (client, server, _) in FAMILIES {
        let there = frames(client, server, 40_000, 5_000);
        let other = frames(client, server, 40_001, 5_000);
        let back = frames(server, client, 5_000, 40_000);
        let wrong = frames(server, client, 5_001, 40_000);
        for (((there, other), back), wrong) in there.iter().zip(&other).zip(&back).zip(&wrong) {
            let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
            net.receive(INSIDE, there)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
            net.receive(OUTSIDE, wrong).dropped(Reason::DefaultDeny, &[MISS]);
            net.receive(OUTSIDE, back)
                .forwarded(INSIDE, Reason::Established, &[ESTABLISHED])
                .between(server, client);
            net.receive(INSIDE, there)
                .forwarded(OUTSIDE, Reason::Established, &[]);
            net.receive(INSIDE, other)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
            assert_eq!(net.flows(), (2, 1));
        }
    }
}

#[test]
fn policy_knows_their_ports() {
    for (client, server, _) in FAMILIES {
        for (protocol, number) in [(SCTP, 0), (DCCP, 1), (UDP_LITE, 2)] {
            let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE).service(1)]);
            net.service(1, protocol, 5_000);
            net.receive(INSIDE, &frames(client, server, 1, 5_001)[number])
                .dropped(Reason::DefaultDeny, &[MISS]);
            net.receive(INSIDE, &frames(client, server, 1, 5_000)[number])
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
            // The same port of another protocol is another service.
            net.receive(INSIDE, &Frame::new(client, server).udp(1, 5_000))
                .dropped(Reason::DefaultDeny, &[HIT]);
        }
    }
}

/// RFC 5597 REQ-5: two hours and four minutes once it was answered, four minutes before; the others keep their ten.
#[test]
fn rfc5597_5_answered_dccp_lives_as_long_as_tcp() {
    for (client, server, _) in FAMILIES {
        for (number, answered_s) in [(0, 600), (1, 7440)] {
            let there = &frames(client, server, 40_000, 5_000)[number];
            let back = &frames(server, client, 5_000, 40_000)[number];
            let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
            net.receive(INSIDE, there)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
            net.advance(600 * SECOND);
            assert_eq!(net.age(), 0);
            net.receive(OUTSIDE, back)
                .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
            net.advance(answered_s * SECOND);
            assert_eq!(net.age(), 0);
            net.receive(INSIDE, there)
                .forwarded(OUTSIDE, Reason::Established, &[]);
            net.advance(answered_s * SECOND + 1);
            assert_eq!(net.age(), 1);
        }
    }
}

/// Checksums of translated packets are verified in `forwarded`.
#[test]
fn dccp_and_udp_lite_are_translated_like_udp() {
    for ((client, server, _), (other, own)) in FAMILIES.into_iter().zip(OTHERS) {
        for number in 1..5 {
            let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
            net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
            net.receive(INSIDE, &frames(client, server, 40_000, 5_000)[number])
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS])
                .between(own, server);
            // The port is taken, so the other host gets another.
            let sent = net
                .receive(INSIDE, &frames(other, server, 40_000, 5_000)[number])
                .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, CHANGED])
                .between(own, server);
            let port = sent.seen.word(0);
            assert!(port >= 1024 && port != 40_000, "{port}");
            assert_eq!(sent.seen.word(2), 5_000);
            let back = net
                .receive(OUTSIDE, &frames(server, own, 5_000, port)[number])
                .forwarded(INSIDE, Reason::Established, &[ESTABLISHED])
                .between(server, other);
            assert_eq!((back.seen.word(0), back.seen.word(2)), (5_000, 40_000));
            net.receive(INSIDE, &frames(other, server, 40_000, 5_000)[number])
                .forwarded(OUTSIDE, Reason::Established, &[])
                .between(own, server);
        }
    }
}

/// Its checksum is a CRC over the ports too: they stay, and two hosts with the same ones cannot both go out.
#[test]
fn sctp_keeps_its_ports_behind_one_address() {
    for ((client, server, _), (other, own)) in FAMILIES.into_iter().zip(OTHERS) {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
        let there = Frame::new(client, server).sctp(40_000, 5_000).payload(b"init");
        let sent = net
            .receive(INSIDE, &there)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS])
            .between(own, server);
        assert_eq!(
            sent.seen.segment,
            there.header.iter().chain(b"init").copied().collect::<Vec<_>>()
        );
        net.receive(INSIDE, &Frame::new(other, server).sctp(40_000, 5_000))
            .dropped(Reason::NatUnsupported, &[HIT]);
        net.receive(INSIDE, &Frame::new(other, server).sctp(40_001, 5_000))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT])
            .between(own, server);
        net.receive(OUTSIDE, &Frame::new(server, own).sctp(5_000, 40_000))
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED])
            .between(server, client);
    }
}

/// A redirected XDP frame has lost the mark that its CRC is still to be computed.
#[test]
fn sctp_is_left_to_tcx() {
    let (client, server, _) = FAMILIES[0];
    for (number, settled) in [(0, false), (1, true), (2, true)] {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        for ifindex in [INSIDE, OUTSIDE] {
            let mut facts = net.tables().interfaces.get(&ifindex).unwrap();
            facts.flags |= bulkhead_abi::interface_flags::XDP_TARGET;
            net.tables().interfaces.set(&ifindex, &facts);
        }
        let there = &frames(client, server, 40_000, 5_000)[number];
        net.receive(INSIDE, there)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.receive(OUTSIDE, &frames(server, client, 5_000, 40_000)[number])
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
        let step = net.receive_xdp(INSIDE, there);
        if settled {
            step.forwarded(OUTSIDE, Reason::EstablishedXdp, &[]);
        } else {
            step.next_hook();
        }
    }
}

/// An aggregate of SCTP says `GSO_BY_FRAGS` instead of a size: its packets fit the sender's path.
#[test]
fn an_aggregate_of_sctp_is_not_measured() {
    let (client, server, _) = FAMILIES[0];
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    let frame = Frame::new(client, server).sctp(40_000, 5_000).to(mac(INSIDE));
    let outcome = net
        .firewall
        .ingress_gso(INSIDE, &frame.lengthened(20_000), 0xffff);
    assert_eq!(outcome.verdict.reason, Reason::SessionCreated);
}

#[test]
fn malformed_headers_are_refused() {
    let (client, server, _) = FAMILIES[0];
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    for coverage in [1, 7, 20] {
        let frame = Frame::new(client, server)
            .udp_lite(1, 2, 8)
            .payload(b"three words");
        let mut bytes = frame.to(mac(INSIDE)).build();
        bytes[39] = coverage;
        net.receive_bytes(INSIDE, &bytes)
            .dropped(Reason::UdpHeaderInvalid, &[]);
    }
    for (protocol, least) in [(SCTP, 12), (DCCP, 12), (UDP_LITE, 8)] {
        let frame = Frame::new(client, server).protocol(253, &[0; 12][..least - 1]);
        let mut bytes = frame.to(mac(INSIDE)).build();
        bytes[23] = protocol;
        bytes[24..26].fill(0);
        let sum = !verify::ones_complement(0, &bytes[14..34]);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        net.receive_bytes(INSIDE, &bytes).dropped(Reason::Truncated, &[]);
    }
}
