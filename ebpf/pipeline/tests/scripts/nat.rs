//! Address translation: here to the interface's address; what else there is has modules of its own.

mod destination;
mod persistent;
mod pools;
mod prefixes;
mod rematch;

use bulkhead_abi::{FlowKey6, Reason, SlowPathKind};
use bulkhead_pipeline::{Table, Tables};

use crate::{
    FAMILIES,
    frame::{ACK, Frame, SYN, TCP, UDP, octets},
    net::{DMZ, HIT, INSIDE, MISS, Net, OUTSIDE, ZONE_DMZ, ZONE_INSIDE, ZONE_OUTSIDE, permit, words},
    translation::towards_port,
    verify,
};

const ESTABLISHED: (&str, u64) = ("sessions_established", 1);
const CHANGED: (&str, u64) = ("nat_ports_changed", 1);

/// Another inside host, and the outside address, per family.
const OTHERS: [(&str, &str); 2] = [("10.1.0.3", "198.51.100.1"), ("2001:db8:1::3", "2001:db8:2::1")];

fn translating() -> Net {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE), permit(ZONE_INSIDE, ZONE_DMZ)]);
    net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
    net
}

fn families() -> impl Iterator<Item = (&'static str, &'static str, &'static str, &'static str)> {
    FAMILIES
        .into_iter()
        .zip(OTHERS)
        .map(|((client, server, _), (other, own))| (client, server, other, own))
}

#[test]
fn the_address_changes_and_the_port_is_kept() {
    for (client, server, _, own) in families() {
        let mut net = translating();
        let syn = Frame::new(client, server).tcp(40000, 80, SYN, 1000, 0);
        let sent = net
            .receive(INSIDE, &syn)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS])
            .between(own, server);
        assert_eq!((sent.seen.word(0), sent.seen.word(2)), (40000, 80));
        let event = sent.events[0];
        assert_eq!((event.nat_rule, event.new_source_port), (7, 40000));
        assert_eq!(event.new_source_be, words(own.parse().unwrap()));
        let answer = Frame::new(server, own).tcp(80, 40000, SYN | ACK, 9000, 1001);
        net.receive(OUTSIDE, &answer)
            .forwarded(INSIDE, Reason::HalfOpen, &[])
            .between(server, client)
            .via(client);
        let ack = Frame::new(client, server)
            .tcp(40000, 80, ACK, 1001, 9001)
            .payload(b"odd length");
        net.receive(INSIDE, &ack)
            .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED])
            .between(own, server);
        // The short way translates too.
        net.receive(INSIDE, &ack)
            .forwarded(OUTSIDE, Reason::Established, &[])
            .between(own, server);
        let data = Frame::new(server, own)
            .tcp(80, 40000, ACK, 9001, 1011)
            .payload(b"odd payload");
        net.receive(OUTSIDE, &data)
            .forwarded(INSIDE, Reason::Established, &[])
            .between(server, client);
        net.receive(OUTSIDE, &data)
            .forwarded(INSIDE, Reason::Established, &[])
            .between(server, client);
        // The private address itself is not reachable from outside, nor is the session under it.
        let direct = Frame::new(server, client).tcp(80, 40000, ACK, 9001, 1011);
        net.receive(OUTSIDE, &direct).dropped(Reason::TcpNoSession, &[]);
    }
}

#[test]
fn other_zone_pairs_are_left_alone() {
    let mut net = translating();
    let frame = Frame::new("10.1.0.2", "10.3.0.2").udp(5000, 53);
    net.receive(INSIDE, &frame)
        .forwarded(DMZ, Reason::SessionCreated, &[MISS])
        .between("10.1.0.2", "10.3.0.2");
}

#[test]
fn two_hosts_with_one_port_get_two() {
    for (client, server, other, own) in families() {
        let mut net = translating();
        let from = |host| Frame::new(host, server).udp(5000, 53).payload(b"q");
        net.receive(INSIDE, &from(client))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        let sent = net
            .receive(INSIDE, &from(other))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, CHANGED])
            .between(own, server);
        let port = sent.seen.word(0);
        assert!(port >= 1024 && port != 5000, "port {port}");
        let answer = |port| Frame::new(server, own).udp(53, port).payload(b"a");
        let first = net.receive(OUTSIDE, &answer(5000));
        let sent = first
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED])
            .between(server, client);
        assert_eq!(sent.seen.word(2), 5000);
        let second = net.receive(OUTSIDE, &answer(port));
        let sent = second
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED])
            .between(server, other);
        assert_eq!(sent.seen.word(2), 5000);
        // Towards another destination the port is free.
        let elsewhere = if client.contains(':') {
            "2001:db8:80::81"
        } else {
            "192.0.2.81"
        };
        let frame = Frame::new(other, elsewhere).udp(5000, 53);
        let sent = net
            .receive(INSIDE, &frame)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
        assert_eq!(sent.seen.word(0), 5000);
    }
}

/// The port of an established session is as taken as that of a half-open one.
#[test]
fn an_established_session_keeps_its_port() {
    let mut net = translating();
    let from = |host| Frame::new(host, "192.0.2.80").udp(5000, 53);
    net.receive(INSIDE, &from("10.1.0.2"))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    let answer = Frame::new("192.0.2.80", "198.51.100.1").udp(53, 5000);
    net.receive(OUTSIDE, &answer)
        .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
    // Random numbers that lead to the taken port first, then to a free one.
    net.tables()
        .script_random([towards_port(5000), towards_port(5000), towards_port(6000)]);
    let sent =
        net.receive(INSIDE, &from("10.1.0.3"))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, CHANGED]);
    assert_eq!(sent.seen.word(0), 6000);
    assert_eq!(net.flows(), (2, 2));
}

#[test]
fn without_a_free_port_the_session_is_refused() {
    let mut net = translating();
    let from = |host| Frame::new(host, "192.0.2.80").udp(5000, 53);
    net.receive(INSIDE, &from("10.1.0.2"))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.tables().script_random([towards_port(5000); 63]);
    let outcome = net
        .receive(INSIDE, &from("10.1.0.3"))
        .dropped_and(Reason::NatPortsExhausted, &[HIT]);
    assert_eq!(outcome.asked[0].kind, SlowPathKind::Prohibited);
    assert_eq!(net.flows(), (0, 2), "nothing is left behind");
    // The next try may find one.
    net.receive(INSIDE, &from("10.1.0.3"))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, CHANGED]);
}

#[test]
fn without_an_address_nothing_leaves_untranslated() {
    for (client, server, _, _) in families() {
        let mut net = translating();
        let mut facts = net.tables().interfaces.get(&OUTSIDE).unwrap();
        (facts.address4_be, facts.address6_be) = (0, [0; 4]);
        net.tables().interfaces.set(&OUTSIDE, &facts);
        net.receive(INSIDE, &Frame::new(client, server).udp(1, 2))
            .dropped(Reason::NatNoAddress, &[MISS]);
        assert_eq!(net.flows(), (0, 0));
    }
}

#[test]
fn identifiers_of_queries_are_translated() {
    for (client, server, other, own) in families() {
        let mut net = translating();
        let from = |host| Frame::new(host, server).echo(77, 1).payload(b"abc");
        let sent = net
            .receive(INSIDE, &from(client))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS])
            .between(own, server);
        assert_eq!(sent.seen.word(4), 77);
        let sent =
            net.receive(INSIDE, &from(other))
                .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, CHANGED]);
        let id = sent.seen.word(4);
        assert_ne!(id, 77);
        let reply = |id| Frame::new(server, own).echo_reply(id, 1).payload(b"abc");
        for (id, host) in [(id, other), (77, client)] {
            let sent = net
                .receive(OUTSIDE, &reply(id))
                .forwarded(INSIDE, Reason::Established, &[ESTABLISHED])
                .between(server, host);
            assert_eq!(sent.seen.word(4), 77);
        }
        for _ in 0..2 {
            let sent = net
                .receive(INSIDE, &from(other))
                .forwarded(OUTSIDE, Reason::Established, &[]);
            assert_eq!(sent.seen.word(4), id);
        }
    }
}

#[test]
fn a_protocol_without_ports_is_translated_once_per_destination() {
    let mut net = translating();
    let from = |host| Frame::new(host, "192.0.2.80").protocol(47, b"gre");
    net.receive(INSIDE, &from("10.1.0.2"))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS])
        .between("198.51.100.1", "192.0.2.80");
    net.receive(INSIDE, &from("10.1.0.3"))
        .dropped(Reason::NatUnsupported, &[HIT]);
    let back = Frame::new("192.0.2.80", "198.51.100.1").protocol(47, b"gre");
    net.receive(OUTSIDE, &back)
        .forwarded(INSIDE, Reason::Established, &[ESTABLISHED])
        .between("192.0.2.80", "10.1.0.2");
}

#[test]
fn udp_without_a_checksum_stays_without() {
    let mut net = translating();
    let mut ask = Frame::new("10.1.0.2", "192.0.2.80").udp(5000, 53).payload(b"q");
    ask.no_checksum = true;
    let sent = net
        .receive(INSIDE, &ask)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    assert_eq!(sent.seen.word(6), 0);
}

/// A checksum that comes out as zero is sent as all ones: zero means "none" (RFC 768), which IPv6 forbids (RFC 8200).
#[test]
fn a_udp_checksum_never_becomes_zero() {
    for (client, server, _, own) in families() {
        let mut net = translating();
        // A payload word that makes the sum of the translated datagram all ones.
        let probe = Frame::new(own, server).udp(5000, 53).payload(&[0, 0]).build();
        let segment = &probe[probe.len() - 10..];
        let (a, b) = (octets(own.parse().unwrap()), octets(server.parse().unwrap()));
        let sum = verify::ones_complement(
            verify::pseudo(&a, &b, UDP, 10),
            &[&segment[..6], &[0; 2]].concat(),
        );
        let payload = (!sum).to_be_bytes();
        let ask = Frame::new(client, server).udp(5000, 53).payload(&payload);
        for reason in [Reason::SessionCreated, Reason::HalfOpen] {
            let others: &[_] = if reason == Reason::SessionCreated {
                &[MISS]
            } else {
                &[]
            };
            let sent = net
                .receive(INSIDE, &ask)
                .forwarded(OUTSIDE, reason, others)
                .between(own, server);
            assert_eq!(sent.seen.word(6), 0xffff);
        }
    }
}

#[test]
fn options_and_extensions_are_skipped() {
    let mut net = translating();
    // Router alert (RFC 2113) and padding.
    let frame = Frame::new("10.1.0.2", "192.0.2.80")
        .options(&[148, 4, 0, 0])
        .tcp(40000, 80, SYN, 1, 0);
    let sent = net
        .receive(INSIDE, &frame)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    assert_eq!(sent.bytes[14], 0x46);
    assert_eq!(u16::from_be_bytes([sent.bytes[38], sent.bytes[39]]), 40000);
    // Hop-by-hop and destination options, each PadN.
    let frame = Frame::new("2001:db8:1::2", "2001:db8:80::80")
        .extension(0, &[0, 0, 1, 4, 0, 0, 0, 0])
        .extension(60, &[0, 0, 1, 4, 0, 0, 0, 0])
        .udp(5000, 53)
        .payload(b"x");
    let sent = net
        .receive(INSIDE, &frame)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
    assert_eq!(u16::from_be_bytes([sent.bytes[70], sent.bytes[71]]), 5000);
}

#[test]
fn a_session_whose_way_out_moved_gives_its_address_up() {
    let mut net = translating();
    let frame = Frame::new("10.1.0.2", "192.0.2.80").udp(5000, 53);
    net.receive(INSIDE, &frame)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.route("192.0.2.80", 32, DMZ);
    net.neighbour(DMZ, "192.0.2.80");
    net.new_epoch();
    // The old session ends, the packet opens another under the policy of the new zones, untranslated.
    let sent = net
        .receive(INSIDE, &frame)
        .forwarded(DMZ, Reason::SessionCreated, &[MISS, HIT]);
    assert_eq!(sent.events.len(), 2);
    sent.between("10.1.0.2", "192.0.2.80");
    assert_eq!(net.flows(), (0, 2));
}

/// Two CPUs with the first packet of one conversation: one session, one port, and both packets leave through it.
#[test]
fn the_loser_of_a_race_adopts_the_winners_session() {
    for same_port in [true, false] {
        let mut net = translating();
        let frame = Frame::new("10.1.0.2", "192.0.2.80").udp(5000, 53);
        // The winner runs to its end first, on tables of its own, so that its flows can be played back.
        let mut winner = translating();
        let port = if same_port { 5000 } else { 6000 };
        if !same_port {
            winner
                .receive(INSIDE, &Frame::new("10.1.0.3", "192.0.2.80").udp(5000, 53))
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
            winner.tables().script_random([towards_port(6000)]);
        }
        let _step = winner.receive(INSIDE, &frame);
        let flows: Vec<_> = winner.tables().half_open4.entries();
        let flows: Vec<_> = flows
            .into_iter()
            .filter(|(key, _)| key.source_be[0] != words("10.1.0.3".parse().unwrap())[0])
            .filter(|(key, _)| key.destination_port != 5000 || same_port)
            .collect();
        assert_eq!(flows.len(), 2, "{flows:?}");
        // Between the loser's two insertions (or before both, where it takes the same port).
        net.tables().interrupt(u32::from(!same_port), move |tables| {
            for (key, flow) in &flows {
                let inserted = tables.half_open4.insert(key, flow);
                assert_eq!(inserted, bulkhead_pipeline::Insert::Done);
            }
        });
        let step = net.receive(INSIDE, &frame);
        let others: &[_] = if same_port { &[MISS, CHANGED] } else { &[MISS] };
        let sent = step.forwarded(OUTSIDE, Reason::HalfOpen, others);
        assert_eq!(sent.seen.word(0), port);
        assert!(
            sent.events.is_empty(),
            "the winner has told of the session: {:?}",
            sent.events
        );
        assert_eq!(net.flows(), (0, 2), "the loser's port is given back");
    }
}

#[test]
fn every_translated_flow_finds_its_partner() {
    let mut net = translating();
    for host in ["10.1.0.2", "10.1.0.3"] {
        for frame in [
            Frame::new(host, "192.0.2.80").udp(5000, 53),
            Frame::new(host, "192.0.2.80").tcp(40000, 80, SYN, 1, 0),
            Frame::new(host, "192.0.2.80").echo(5000, 1),
        ] {
            let _step = net.receive(INSIDE, &frame);
        }
    }
    let flows = net.tables().half_open4.entries();
    assert_eq!(flows.len(), 12);
    for (key, flow) in flows {
        let partner = flow.partner4();
        let partner_key = FlowKey6 {
            source_be: [partner.source_be, 0, 0, 0],
            destination_be: [partner.destination_be, 0, 0, 0],
            source_port: partner.source_port,
            destination_port: partner.destination_port,
            protocol: partner.protocol,
        };
        let found = net
            .tables()
            .with_flow(Table::HalfOpen, 4, &partner_key, |partner| *partner);
        let found = found.unwrap_or_else(|| panic!("{key:?} has no partner"));
        assert_eq!(found.session_id, flow.session_id);
        assert_eq!(found.partner4().source_be, key.source_be[0]);
        assert!(matches!(flow.protocol, TCP | UDP | 1));
    }
}
