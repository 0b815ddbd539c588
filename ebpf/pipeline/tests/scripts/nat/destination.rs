//! Destination translation: what the outside sees is not what stands inside, and policy is asked about what stands inside.

use std::collections::BTreeSet;

use bulkhead_abi::{Reason, RuleSet, interface_flags};

use crate::{
    frame::{ACK, FIN, Frame, RST, SYN, Seen, TCP, ip},
    nat::{CHANGED, ESTABLISHED},
    net::{
        DMZ, HIT, INSIDE, MISS, Net, OUTSIDE, SELF, ZONE_DMZ, ZONE_INSIDE, ZONE_OUTSIDE, deny, permit, words,
    },
    translation::{Pool, destination, source, towards_port},
};

/// A client outside, the address it knows, and the server in the DMZ, per family.
const FAMILIES: [(&str, &str, &str); 2] = [
    ("192.0.2.80", "198.51.100.9", "10.3.0.2"),
    ("2001:db8:80::80", "2001:db8:2::9", "2001:db8:3::2"),
];

const PUBLISHED: u32 = 4;
const WEB: u32 = 8;

/// The published address leads to the server's port 8080.
fn published(policies: &[crate::net::Policy]) -> Net {
    let mut net = Net::new(policies);
    for (_, known, server) in FAMILIES {
        net.address_class(PUBLISHED, known, if known.contains(':') { 128 } else { 32 });
        net.pool(3, &Pool::of(&[(server, 1)]).port(8080));
    }
    net.service(WEB, TCP, 443);
    net.nat(destination(ZONE_OUTSIDE).to(PUBLISHED).service(WEB).pool(3));
    net
}

#[test]
fn a_published_port_leads_to_the_server_and_back() {
    for (client, known, server) in FAMILIES {
        let mut net = published(&[permit(ZONE_OUTSIDE, ZONE_DMZ)]);
        let syn = Frame::new(client, known).tcp(40000, 443, SYN, 1000, 0);
        let sent = net
            .receive(OUTSIDE, &syn)
            .forwarded(DMZ, Reason::SessionCreated, &[MISS])
            .between(client, server);
        assert_eq!((sent.seen.word(0), sent.seen.word(2)), (40000, 8080));
        let event = sent.events[0];
        assert_eq!(event.new_destination_be, words(ip(server)));
        assert_eq!(
            (
                event.destination_port,
                event.new_destination_port,
                event.destination_rule
            ),
            (443, 8080, 7)
        );
        assert_eq!(event.nat_rule, u32::MAX, "the source stayed");
        let answer = Frame::new(server, client).tcp(8080, 40000, SYN | ACK, 9000, 1001);
        let sent = net
            .receive(DMZ, &answer)
            .forwarded(OUTSIDE, Reason::HalfOpen, &[])
            .between(known, client);
        assert_eq!((sent.seen.word(0), sent.seen.word(2)), (443, 40000));
        let ack = Frame::new(client, known)
            .tcp(40000, 443, ACK, 1001, 9001)
            .payload(b"GET");
        net.receive(OUTSIDE, &ack)
            .forwarded(DMZ, Reason::Established, &[ESTABLISHED])
            .between(client, server);
        // The short way, both directions.
        let sent = net
            .receive(OUTSIDE, &ack)
            .forwarded(DMZ, Reason::Established, &[])
            .between(client, server);
        assert_eq!(sent.seen.word(2), 8080);
        let data = Frame::new(server, client)
            .tcp(8080, 40000, ACK, 9001, 1004)
            .payload(b"odd");
        let sent = net
            .receive(DMZ, &data)
            .forwarded(OUTSIDE, Reason::Established, &[])
            .between(known, client);
        assert_eq!(sent.seen.word(0), 443);
        assert_eq!(net.nat_hits(RuleSet::DestinationNat, 0), 1);
        // What the server sends under another port is not an answer, and the server itself is not to be reached.
        let stray = Frame::new(server, client).tcp(8081, 40000, ACK, 9001, 1004);
        net.receive(DMZ, &stray).dropped(Reason::TcpNoSession, &[]);
        for last in [FIN | ACK, RST | ACK] {
            let end = Frame::new(client, known).tcp(40000, 443, last, 1004, 9004);
            net.receive(OUTSIDE, &end)
                .forwarded(DMZ, Reason::Established, &[])
                .between(client, server);
        }
    }
}

#[test]
fn established_sessions_are_settled_in_xdp() {
    for (client, known, server) in FAMILIES {
        let mut net = published(&[permit(ZONE_OUTSIDE, ZONE_DMZ)]);
        for ifindex in [OUTSIDE, DMZ] {
            let mut facts = net.tables().interfaces.get(&ifindex).unwrap();
            facts.flags |= interface_flags::XDP_TARGET;
            net.tables().interfaces.set(&ifindex, &facts);
        }
        let syn = Frame::new(client, known).tcp(40000, 443, SYN, 1000, 0);
        let answer = Frame::new(server, client).tcp(8080, 40000, SYN | ACK, 9000, 1001);
        let ack = Frame::new(client, known).tcp(40000, 443, ACK, 1001, 9001);
        for (ifindex, frame) in [(OUTSIDE, &syn), (DMZ, &answer), (OUTSIDE, &ack)] {
            assert!(!net.receive(ifindex, frame).outcome.verdict.reason.is_drop());
        }
        net.receive_xdp(OUTSIDE, &ack)
            .forwarded(DMZ, Reason::EstablishedXdp, &[])
            .between(client, server);
        // The answering direction learns its next hop on its second packet.
        let data = Frame::new(server, client).tcp(8080, 40000, ACK, 9001, 1001);
        net.receive(DMZ, &data)
            .forwarded(OUTSIDE, Reason::Established, &[]);
        net.receive_xdp(DMZ, &data)
            .forwarded(OUTSIDE, Reason::EstablishedXdp, &[])
            .between(known, client);
    }
}

/// Policy sees the server and its own port; what names the published address matches nothing.
#[test]
fn policy_is_asked_about_the_translated_destination() {
    let (client, known, server) = FAMILIES[0];
    let (real, inner) = (11, 12);
    for (named, port, permitted) in [(real, 8080, true), (PUBLISHED, 443, false)] {
        let mut net = published(&[permit(ZONE_OUTSIDE, ZONE_DMZ).destination(named).service(inner)]);
        net.address_class(real, server, 32);
        // A service of its own for the port in question: 443 is in two, the last one counts here.
        net.service(inner, TCP, port);
        if port == 443 {
            net.nat(destination(ZONE_OUTSIDE).to(PUBLISHED).service(inner).pool(3));
        }
        let syn = Frame::new(client, known).tcp(40000, 443, SYN, 1000, 0);
        let step = net.receive(OUTSIDE, &syn);
        if permitted {
            step.forwarded(DMZ, Reason::SessionCreated, &[MISS])
                .between(client, server);
        } else {
            let outcome = step.dropped_and(Reason::DefaultDeny, &[MISS]);
            assert_eq!(outcome.events[0].new_destination_be, words(ip(server)));
            assert_eq!(outcome.events[0].new_destination_port, 8080);
        }
    }
}

#[test]
fn other_ports_and_other_zones_are_left_alone() {
    let (client, known, _) = FAMILIES[0];
    let mut net = published(&[permit(ZONE_INSIDE, ZONE_OUTSIDE), permit(ZONE_OUTSIDE, ZONE_DMZ)]);
    // To another port of the published address: routed, to nobody here.
    let outcome = net
        .receive(OUTSIDE, &Frame::new(client, known).tcp(40000, 80, SYN, 1, 0))
        .outcome;
    assert_eq!(outcome.verdict.reason, Reason::DefaultDeny);
    let frame = Frame::new("10.1.0.2", known).tcp(40000, 443, SYN, 1, 0);
    let outcome = net.receive(INSIDE, &frame).outcome;
    assert_eq!(outcome.verdict.reason, Reason::SessionCreated);
    assert_eq!(Seen::read(&outcome.bytes).destination, ip(known));
}

#[test]
fn a_rule_that_says_off_ends_the_search() {
    let (client, known, server) = FAMILIES[0];
    let trusted = 6;
    let mut net = Net::new(&[permit(ZONE_OUTSIDE, ZONE_DMZ), permit(ZONE_OUTSIDE, SELF)]);
    net.address_class(PUBLISHED, known, 32);
    net.address_class(trusted, "192.0.2.90", 32);
    net.nat(destination(ZONE_OUTSIDE).from(trusted).index(0));
    net.nat(destination(ZONE_OUTSIDE).to(PUBLISHED).pool(3).index(1));
    net.pool(3, &Pool::of(&[(server, 1)]));
    let from = |host| Frame::new(host, known).udp(4000, 53);
    let sent = net.receive(OUTSIDE, &from(client)).outcome;
    assert_eq!(Seen::read(&sent.bytes).destination, ip(server));
    let left = net.receive(OUTSIDE, &from("192.0.2.90")).outcome;
    assert_eq!(
        left.verdict.reason,
        Reason::DefaultDeny,
        "left alone, and routed out again"
    );
    assert_eq!(left.events[0].destination_rule, u32::MAX);
}

/// Clients are spread over the servers of a pool, and each keeps its own.
#[test]
fn a_pool_of_servers_is_shared_by_client() {
    let known = FAMILIES[0].1;
    let mut net = Net::new(&[permit(ZONE_OUTSIDE, ZONE_DMZ)]);
    net.nat(destination(ZONE_OUTSIDE).pool(3));
    net.pool(3, &Pool::of(&[("10.3.0.2", 2), ("10.3.0.20", 2)]));
    let mut used = BTreeSet::new();
    for client in (1..60).map(|n| format!("192.0.2.{n}")) {
        let mut own = BTreeSet::new();
        for port in [1000, 2000] {
            let outcome = net
                .receive(OUTSIDE, &Frame::new(&client, known).udp(port, 53))
                .outcome;
            let seen = Seen::read(&outcome.bytes);
            assert_eq!(seen.word(2), 53, "the port stays where the pool has none");
            own.insert(seen.destination);
        }
        assert_eq!(own.len(), 1);
        used.extend(own);
    }
    assert_eq!(used.len(), 4);
}

/// Two outside addresses of one server, one client with one port: behind the translation they would be one connection, so
/// the second one's source port changes.
#[test]
fn conversations_that_become_one_are_told_apart() {
    let (client, _, server) = FAMILIES[0];
    let mut net = Net::new(&[permit(ZONE_OUTSIDE, ZONE_DMZ)]);
    net.nat(destination(ZONE_OUTSIDE).pool(3));
    net.pool(3, &Pool::of(&[(server, 1)]));

    let to = |known| Frame::new(client, known).udp(4000, 53);
    net.receive(OUTSIDE, &to("198.51.100.9"))
        .forwarded(DMZ, Reason::SessionCreated, &[MISS]);
    net.tables().script_random([towards_port(7000)]);
    let sent = net
        .receive(OUTSIDE, &to("198.51.100.10"))
        .forwarded(DMZ, Reason::SessionCreated, &[HIT, CHANGED])
        .between(client, server);
    assert_eq!(sent.seen.word(0), 7000);
    let answer = |port| Frame::new(server, client).udp(53, port);
    for (port, known) in [(4000, "198.51.100.9"), (7000, "198.51.100.10")] {
        let sent = net
            .receive(DMZ, &answer(port))
            .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED])
            .between(known, client);
        assert_eq!(sent.seen.word(2), 4000);
    }
}

#[test]
fn queries_and_other_protocols_change_their_address() {
    for (client, known, server) in FAMILIES {
        let mut net = Net::new(&[permit(ZONE_OUTSIDE, ZONE_DMZ)]);
        net.nat(destination(ZONE_OUTSIDE).pool(3));
        net.pool(3, &Pool::of(&[(server, 1)]).port(8080));

        let sent = net
            .receive(OUTSIDE, &Frame::new(client, known).echo(77, 1).payload(b"x"))
            .forwarded(DMZ, Reason::SessionCreated, &[MISS])
            .between(client, server);
        assert_eq!(sent.seen.word(4), 77, "a port is nothing to a query");
        let reply = Frame::new(server, client).echo_reply(77, 1).payload(b"x");
        net.receive(DMZ, &reply)
            .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED])
            .between(known, client);
        let frame = Frame::new(client, known).protocol(47, b"gre");
        net.receive(OUTSIDE, &frame)
            .forwarded(DMZ, Reason::SessionCreated, &[HIT])
            .between(client, server);
        let back = Frame::new(server, client).protocol(47, b"gre");
        net.receive(DMZ, &back)
            .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED])
            .between(known, client);
    }
}

/// The firewall itself behind a translated address would answer under its own: refused by name rather than half done.
#[test]
fn the_firewall_itself_is_not_behind_a_translation() {
    let (client, known, _) = FAMILIES[0];
    let mut net = Net::new(&[permit(ZONE_OUTSIDE, SELF)]);
    net.nat(destination(ZONE_OUTSIDE).pool(3));
    net.pool(3, &Pool::of(&[("10.1.0.1", 1)]));
    let frame = Frame::new(client, known).tcp(40000, 22, SYN, 1, 0);
    net.receive(OUTSIDE, &frame).dropped(Reason::NatUnsupported, &[]);
}

#[test]
fn a_translated_destination_must_be_one_that_packets_may_go_to() {
    let (client, known, _) = FAMILIES[0];
    for bad in ["169.254.1.1", "240.0.0.1"] {
        let mut net = Net::new(&[permit(ZONE_OUTSIDE, ZONE_DMZ), permit(ZONE_OUTSIDE, ZONE_OUTSIDE)]);
        net.nat(destination(ZONE_OUTSIDE).pool(3));
        net.pool(3, &Pool::of(&[(bad, 1)]));
        net.receive(OUTSIDE, &Frame::new(client, known).udp(1, 2))
            .dropped(Reason::DestinationAddressInvalid, &[]);
    }
    let mut net = Net::new(&[permit(ZONE_OUTSIDE, ZONE_DMZ)]);
    net.nat(destination(ZONE_OUTSIDE).pool(3));
    net.receive(OUTSIDE, &Frame::new(client, known).udp(1, 2))
        .dropped(Reason::NatNoAddress, &[]);
}

/// A client that is led back to itself would talk to itself.
#[test]
fn nobody_is_led_to_himself() {
    let mut net = Net::new(&[permit(ZONE_DMZ, ZONE_DMZ)]);
    net.nat(destination(ZONE_DMZ).pool(3));
    net.pool(3, &Pool::of(&[("10.3.0.2", 1)]));
    net.receive(DMZ, &Frame::new("10.3.0.2", "198.51.100.9").udp(1, 2))
        .dropped(Reason::SourceAddressInvalid, &[MISS]);
    assert_eq!(net.flows(), (0, 0));
}

/// Source and destination translated at once: a client of the inside to a published address, hidden behind the firewall.
#[test]
fn both_ends_may_be_translated() {
    for (client, known, server, own) in [
        ("10.1.0.2", "198.51.100.9", "10.3.0.2", "10.3.0.1"),
        ("2001:db8:1::2", "2001:db8:2::9", "2001:db8:3::2", "2001:db8:3::1"),
    ] {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_DMZ)]);
        net.nat(destination(ZONE_INSIDE).pool(3));
        net.pool(3, &Pool::of(&[(server, 1)]).port(8080));
        net.nat(source(ZONE_INSIDE, ZONE_DMZ));
        let ask = Frame::new(client, known).udp(5000, 53).payload(b"question");
        let sent = net
            .receive(INSIDE, &ask)
            .forwarded(DMZ, Reason::SessionCreated, &[MISS])
            .between(own, server);
        assert_eq!((sent.seen.word(0), sent.seen.word(2)), (5000, 8080));
        assert_eq!((sent.events[0].nat_rule, sent.events[0].destination_rule), (7, 7));
        let answer = Frame::new(server, own).udp(8080, 5000).payload(b"answer");
        let back = net
            .receive(DMZ, &answer)
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED])
            .between(known, client);
        assert_eq!((back.seen.word(0), back.seen.word(2)), (53, 5000));
        // An error about the answer, from the client, and one about the question, from the server.
        let error = Frame::new(client, known).error(&back.bytes, false);
        net.receive(INSIDE, &error)
            .forwarded(DMZ, Reason::RelatedIcmp, &[])
            .between(own, server);
        let error = Frame::new(server, own).error(&sent.bytes, false);
        net.receive(DMZ, &error)
            .forwarded(INSIDE, Reason::RelatedIcmp, &[])
            .between(known, client);
    }
}

/// RFC 5508, REQ-3 to REQ-5: an error from behind a translated destination is about what the client sent, comes from the
/// address it knows, and every checksum is right.
#[test]
fn rfc5508_3_4_5_errors_are_translated_inside_and_out() {
    for (client, known, server) in FAMILIES {
        for opener in [
            Frame::new(client, known)
                .tcp(40000, 443, SYN, 1000, 0)
                .payload(b"data"),
            Frame::new(client, known).udp(4000, 53).payload(b"odd"),
            Frame::new(client, known).echo(9, 1).payload(b"odd"),
        ] {
            let mut net = Net::new(&[permit(ZONE_OUTSIDE, ZONE_DMZ)]);
            net.nat(destination(ZONE_OUTSIDE).pool(3));
            net.pool(3, &Pool::of(&[(server, 1)]).port(8080));
            let sent = net
                .receive(OUTSIDE, &opener)
                .forwarded(DMZ, Reason::SessionCreated, &[MISS]);
            let router = if known.contains(':') {
                "2001:db8:3::77"
            } else {
                "10.3.0.77"
            };
            for from in [server, router] {
                let error = Frame::new(from, client).error(&sent.bytes, true);
                let back = net
                    .receive(DMZ, &error)
                    .forwarded(OUTSIDE, Reason::RelatedIcmp, &[])
                    .between(known, client);
                // What it quotes is what the client sent, but for the hop limit.
                let quoted = &back.seen.segment[8..];
                let original = opener.build();
                let l3 = if opener.is_v4() { 20 } else { 40 };
                assert_eq!(quoted[l3..], original[14 + l3..], "layer 4 as it was");
                let addresses = if opener.is_v4() { 12..20 } else { 8..40 };
                let there = addresses.start + 14..addresses.end + 14;
                assert_eq!(quoted[addresses], original[there]);
            }
            // About nothing: not passed on.
            let stray =
                Frame::new(server, client).error(&Frame::new(client, server).udp(9, 9).build(), false);
            net.receive(DMZ, &stray).dropped(Reason::IcmpNoSession, &[]);
        }
    }
}

/// RFC 792 quotes eight bytes of layer 4, and a short frame is padded: what stands behind the message is nobody's checksum.
#[test]
fn rfc5508_3_padding_behind_a_short_quote_stays_as_it_is() {
    for (client, known, server) in FAMILIES {
        let l3 = if known.contains(':') { 40 } else { 20 };
        for (quoted, reason) in [
            (8, Reason::RelatedIcmp),
            (17, Reason::RelatedIcmp),
            (7, Reason::Truncated),
        ] {
            let mut net = published(&[permit(ZONE_OUTSIDE, ZONE_DMZ)]);
            let syn = Frame::new(client, known).tcp(40000, 443, SYN, 1000, 0);
            let sent = net
                .receive(OUTSIDE, &syn)
                .forwarded(DMZ, Reason::SessionCreated, &[MISS]);
            let error = Frame::new(server, client).error(&sent.bytes[..14 + l3 + quoted], true);
            let mut bytes = error.to(crate::net::mac(DMZ)).build();
            bytes.extend([0; 20]);
            let step = net.receive_bytes(DMZ, &bytes);
            if reason.is_drop() {
                step.dropped(reason, &[]);
                continue;
            }
            let back = step.forwarded(OUTSIDE, reason, &[]).between(known, client);
            assert_eq!(back.bytes[back.bytes.len() - 20..], [0; 20], "padding");
            assert_eq!(
                back.seen.segment[8 + l3..][..4],
                [0x9c, 0x40, 0x01, 0xbb],
                "the client's ports"
            );
        }
    }
}

#[test]
fn a_denied_port_of_a_published_address_stays_closed() {
    let (client, known, _) = FAMILIES[0];
    let mut net = published(&[deny(ZONE_OUTSIDE, ZONE_DMZ)]);
    net.receive(OUTSIDE, &Frame::new(client, known).tcp(40000, 443, SYN, 1, 0))
        .dropped(Reason::PolicyDeny, &[MISS]);
    assert_eq!(net.nat_hits(RuleSet::DestinationNat, 0), 0, "no session, no HIT");
}
