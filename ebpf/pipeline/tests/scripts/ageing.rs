//! How long sessions live: the timeouts of each state, of services, what refreshes them and what does not.
//!
//! Tests named `rfcNNNN_N_…` hold the clause (of RFC 5382, 5508, 7857 and 4787: the requirement or section) of that number.

use bulkhead_abi::{Reason, SessionState, flow_generation::is_marked};
use bulkhead_pipeline::Table;

use crate::{
    FAMILIES,
    frame::{ACK, FIN, Frame, RST, SYN, TCP, UDP},
    net::{HIT, INSIDE, MISS, Net, OUTSIDE, SECOND, ZONE_INSIDE, ZONE_OUTSIDE, permit},
};

const ESTABLISHED: (&str, u64) = ("sessions_established", 1);
const OWN: [&str; 2] = ["198.51.100.1", "2001:db8:2::1"];

/// A firewall that translates, and the inside's client, the server and the outside address.
fn translating() -> impl Iterator<Item = (Net, &'static str, &'static str, &'static str)> {
    FAMILIES.into_iter().zip(OWN).map(|((client, server, _), own)| {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
        (net, client, server, own)
    })
}

/// A UDP conversation in which both sides have spoken; its frames.
fn conversation(net: &mut Net, client: &str, server: &str, own: &str) -> (Frame, Frame) {
    let ask = Frame::new(client, server).udp(5000, 53);
    let answer = Frame::new(server, own).udp(53, 5000);
    net.receive(INSIDE, &ask)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.receive(OUTSIDE, &answer)
        .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
    (ask, answer)
}

fn there(client: &str, server: &str, flags: u8, seq: u32, ack: u32) -> Frame {
    Frame::new(client, server).tcp(40000, 80, flags, seq, ack)
}

fn back(server: &str, own: &str, flags: u8, seq: u32, ack: u32) -> Frame {
    Frame::new(server, own).tcp(80, 40000, flags, seq, ack)
}

/// A TCP connection after its handshake.
fn connection(net: &mut Net, client: &str, server: &str, own: &str) {
    net.receive(INSIDE, &there(client, server, SYN, 1000, 0))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.receive(OUTSIDE, &back(server, own, SYN | ACK, 9000, 1001))
        .forwarded(INSIDE, Reason::HalfOpen, &[]);
    net.receive(INSIDE, &there(client, server, ACK, 1001, 9001))
        .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED]);
}

/// What comes back to a port nobody listens on any more.
fn unasked(net: &mut Net, frame: &Frame) {
    let outcome = net.receive(OUTSIDE, frame).outcome;
    let expected = if frame.protocol == TCP {
        Reason::TcpNoSession
    } else {
        Reason::HostInboundDeny
    };
    assert_eq!(outcome.verdict.reason, expected);
}

#[test]
fn rfc4787_5_a_udp_mapping_outlives_five_minutes() {
    for (mut net, client, server, own) in translating() {
        let (_, answer) = conversation(&mut net, client, server, own);
        for _ in 0..3 {
            net.advance(300 * SECOND);
            net.receive(OUTSIDE, &answer)
                .forwarded(INSIDE, Reason::Established, &[]);
        }
        net.advance(300 * SECOND + 1);
        unasked(&mut net, &answer);
        assert_eq!(net.flows(), (0, 0));
    }
}

#[test]
fn rfc4787_6_outbound_traffic_alone_refreshes() {
    for (mut net, client, server, own) in translating() {
        let (ask, answer) = conversation(&mut net, client, server, own);
        for _ in 0..5 {
            net.advance(290 * SECOND);
            net.receive(INSIDE, &ask)
                .forwarded(OUTSIDE, Reason::Established, &[]);
            assert_eq!(net.age(), 0);
        }
        net.advance(290 * SECOND);
        net.receive(OUTSIDE, &answer)
            .forwarded(INSIDE, Reason::Established, &[]);
    }
}

#[test]
fn rfc4787_5_an_unanswered_mapping_is_refreshed_too() {
    for (mut net, client, server, _) in translating() {
        let ask = Frame::new(client, server).udp(5000, 53);
        net.receive(INSIDE, &ask)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        for _ in 0..3 {
            net.advance(30 * SECOND);
            net.receive(INSIDE, &ask)
                .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
        }
        net.advance(30 * SECOND + 1);
        net.receive(INSIDE, &ask)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
    }
}

#[test]
fn rfc5382_5_an_idle_connection_outlives_two_hours_and_four_minutes() {
    for (mut net, client, server, own) in translating() {
        connection(&mut net, client, server, own);
        net.advance(7440 * SECOND);
        assert_eq!(net.age(), 0);
        net.receive(OUTSIDE, &back(server, own, ACK, 9001, 1001))
            .forwarded(INSIDE, Reason::Established, &[]);
        net.advance(7440 * SECOND + 1);
        unasked(&mut net, &back(server, own, ACK, 9001, 1001));
        assert_eq!(net.flows(), (0, 0));
    }
}

#[test]
fn rfc5382_5_opening_and_closing_take_four_minutes() {
    for (mut net, client, server, own) in translating() {
        let answer = back(server, own, SYN | ACK, 9000, 1001);
        net.receive(INSIDE, &there(client, server, SYN, 1000, 0))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.advance(240 * SECOND);
        net.receive(OUTSIDE, &answer)
            .forwarded(INSIDE, Reason::HalfOpen, &[]);
        net.advance(240 * SECOND);
        net.receive(INSIDE, &there(client, server, ACK, 1001, 9001))
            .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED]);
        // Longer than a farewell may take: the first word of it begins its time, it does not end it.
        net.advance(1000 * SECOND);
        net.receive(INSIDE, &there(client, server, FIN | ACK, 1001, 9001))
            .forwarded(OUTSIDE, Reason::Established, &[]);
        assert_eq!(net.age(), 0);
        net.advance(240 * SECOND);
        net.receive(OUTSIDE, &back(server, own, FIN | ACK, 9001, 1002))
            .forwarded(INSIDE, Reason::Established, &[]);
        net.advance(240 * SECOND);
        assert_eq!(net.age(), 0, "no longer than the second farewell");
    }
}

#[test]
fn rfc7857_2_a_reset_keeps_the_state_a_while() {
    for (mut net, client, server, own) in translating() {
        connection(&mut net, client, server, own);
        net.receive(OUTSIDE, &back(server, own, RST, 9001, 0))
            .forwarded(INSIDE, Reason::Established, &[]);
        net.advance(10 * SECOND);
        assert_eq!(net.age(), 0);
        assert_eq!(net.only().3.state, SessionState::TcpClosed as u8);
        net.advance(1);
        assert_eq!((net.age(), net.flows()), (1, (0, 0)));
    }
}

#[test]
fn rfc5508_2_an_icmp_query_outlives_a_minute() {
    for (mut net, client, server, own) in translating() {
        let answer = Frame::new(server, own).echo_reply(7, 1);
        net.receive(INSIDE, &Frame::new(client, server).echo(7, 1))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.advance(60 * SECOND);
        net.receive(OUTSIDE, &answer)
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
        net.advance(60 * SECOND + 1);
        net.receive(OUTSIDE, &answer).dropped(Reason::IcmpNotRequest, &[]);
    }
}

/// Whatever the outside tries, the mapping ends when the inside has been silent for its time.
#[test]
fn rfc7857_7_blocked_packets_errors_resets_and_repeated_farewells_do_not_refresh() {
    for (mut net, client, server, own) in translating() {
        connection(&mut net, client, server, own);
        let (_, _, _, before) = net.only();
        let sent = net
            .receive(INSIDE, &there(client, server, ACK, 1001, 9001))
            .forwarded(OUTSIDE, Reason::Established, &[]);
        let other_host = if own.contains(':') {
            "2001:db8:80::81"
        } else {
            "192.0.2.81"
        };
        for turn in 0..74 {
            net.advance(100 * SECOND);
            let cache = if turn == 0 { MISS } else { HIT };
            // From another host: blocked.
            net.receive(OUTSIDE, &Frame::new(other_host, own).udp(53, 40000))
                .dropped(Reason::HostInboundDeny, &[cache]);
            // Errors about the connection: passed on.
            net.receive(OUTSIDE, &Frame::new(other_host, own).error(&sent.bytes, false))
                .forwarded(INSIDE, Reason::RelatedIcmp, &[]);
            // Resets outside the window, and inside it where nobody stands: dropped, and left to the client to challenge.
            net.receive(OUTSIDE, &back(server, own, RST, 9001 + 1_000_000, 0))
                .dropped(Reason::TcpResetOutOfWindow, &[]);
            net.receive(OUTSIDE, &back(server, own, RST, 9001 + 500, 0))
                .forwarded(INSIDE, Reason::Established, &[]);
            assert_eq!(net.age(), 0);
        }
        let (_, _, _, after) = net.only();
        assert_eq!(after.last_seen_ns, before.last_seen_ns);
        net.advance(41 * SECOND);
        assert_eq!((net.age(), net.flows()), (1, (0, 0)));
    }
}

#[test]
fn rfc7857_7_a_repeated_farewell_from_outside_does_not_refresh() {
    for (mut net, client, server, own) in translating() {
        connection(&mut net, client, server, own);
        let fin = back(server, own, FIN | ACK, 9001, 1001);
        for _ in 0..3 {
            net.receive(OUTSIDE, &fin)
                .forwarded(INSIDE, Reason::Established, &[]);
            net.advance(80 * SECOND);
        }
        // What the inside still says does.
        net.receive(INSIDE, &there(client, server, ACK, 1001, 9002))
            .forwarded(OUTSIDE, Reason::Established, &[]);
        net.advance(240 * SECOND);
        net.receive(OUTSIDE, &fin)
            .forwarded(INSIDE, Reason::Established, &[]);
        net.advance(1);
        assert_eq!((net.age(), net.flows()), (1, (0, 0)));
    }
}

#[test]
fn what_this_host_cannot_send_on_does_not_refresh() {
    for (mut net, client, server, own) in translating() {
        let (ask, _) = conversation(&mut net, client, server, own);
        for _ in 0..3 {
            net.advance(100 * SECOND);
            let _asked = net
                .receive(INSIDE, &ask.clone().ttl(1))
                .dropped_and(Reason::TtlExceeded, &[]);
        }
        net.advance(1);
        assert_eq!((net.age(), net.flows()), (1, (0, 0)));
    }
}

/// A firewall with a service of 20 s on port 53 and one of 50,000 s on port 80, both protocols.
fn with_services() -> Net {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    name_services(&mut net, 20);
    net
}

fn name_services(net: &mut Net, dns_s: u32) {
    for (class, protocol, port) in [(1, UDP, 53), (2, TCP, 80), (3, TCP, 81)] {
        net.service(class, protocol, port);
    }
    net.service_timeout(1, dns_s);
    net.service_timeout(2, 50_000);
}

#[test]
fn a_service_overrides_the_timeout_of_an_idle_session() {
    for (client, server, _) in FAMILIES {
        let mut net = with_services();
        let (ask, answer) = conversation(&mut net, client, server, client);
        assert_eq!(net.only().3.timeout_s, 20);
        net.advance(20 * SECOND);
        net.receive(OUTSIDE, &answer)
            .forwarded(INSIDE, Reason::Established, &[]);
        net.advance(20 * SECOND + 1);
        net.receive(INSIDE, &ask)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
        // One-way, too.
        net.advance(20 * SECOND + 1);
        assert_eq!((net.age(), net.flows()), (1, (0, 0)));
    }
}

#[test]
fn a_service_does_not_override_handshakes_and_farewells() {
    for (client, server, _) in FAMILIES {
        let mut net = with_services();
        net.receive(INSIDE, &there(client, server, SYN, 1000, 0))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.advance(240 * SECOND + 1);
        assert_eq!(net.age(), 1);
        net.receive(INSIDE, &there(client, server, SYN, 1000, 0))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
        net.receive(OUTSIDE, &back(server, client, SYN | ACK, 9000, 1001))
            .forwarded(INSIDE, Reason::HalfOpen, &[]);
        net.receive(INSIDE, &there(client, server, ACK, 1001, 9001))
            .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED]);
        net.advance(50_000 * SECOND);
        net.receive(OUTSIDE, &back(server, client, ACK, 9001, 1001))
            .forwarded(INSIDE, Reason::Established, &[]);
        net.receive(OUTSIDE, &back(server, client, FIN | ACK, 9001, 1001))
            .forwarded(INSIDE, Reason::Established, &[]);
        net.advance(240 * SECOND + 1);
        assert_eq!(net.age(), 1);
    }
}

/// Whoever asks first after a commit, and also if nobody does.
#[test]
fn a_sessions_timeout_follows_the_configuration() {
    for (client, server, _) in FAMILIES {
        for (first, dns_s, lives) in [
            ("inside", 100, true),
            ("outside", 100, true),
            ("nobody", 100, true),
            ("inside", 5, false),
            ("outside", 5, false),
            ("nobody", 5, false),
        ] {
            let mut net = with_services();
            let (ask, answer) = conversation(&mut net, client, server, client);
            net.commit(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
            name_services(&mut net, dns_s);
            // Within the old timeout, and beyond the new one if it is the shorter.
            net.advance(15 * SECOND);
            let aged = net.age();
            if first == "nobody" || !lives {
                assert_eq!(aged, usize::from(!lives), "{first}");
                continue;
            }
            if first == "inside" {
                net.receive(INSIDE, &ask)
                    .forwarded(OUTSIDE, Reason::Established, &[MISS]);
            } else {
                net.receive(OUTSIDE, &answer)
                    .forwarded(INSIDE, Reason::Established, &[MISS]);
            }
            net.advance(100 * SECOND);
            assert_eq!(net.age(), 0);
            let (ifindex, out, frame) = if first == "inside" {
                (OUTSIDE, INSIDE, &answer)
            } else {
                (INSIDE, OUTSIDE, &ask)
            };
            net.receive(ifindex, frame)
                .forwarded(out, Reason::Established, &[HIT]);
            net.advance(100 * SECOND + 1);
            assert_eq!(net.age(), 1);
        }
    }
}

#[test]
fn the_firewalls_own_connections_have_service_timeouts_too() {
    let mut net = with_services();
    let (own, server) = ("198.51.100.1", "192.0.2.80");
    net.leave(OUTSIDE, &Frame::new(own, server).udp(5000, 53), 0, false)
        .handed_on(Reason::FromHost, &[]);
    net.receive(OUTSIDE, &Frame::new(server, own).udp(53, 5000))
        .handed_on(Reason::ToHost, &[ESTABLISHED]);
    net.advance(20 * SECOND);
    assert_eq!(net.age(), 0);
    net.advance(1);
    assert_eq!((net.age(), net.flows()), (1, (0, 0)));
}

/// Early: idle for longer than what is asked for now, though not for its own time.
#[test]
fn early_ageing_takes_the_idle_and_leaves_the_others() {
    for (client, server, _) in FAMILIES {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        let (ask, _) = conversation(&mut net, client, server, client);
        let (family, _, key, _) = net.only();
        net.advance(20 * SECOND);
        assert!(!net.firewall.mark(family, &key, 20_000), "not longer than that");
        net.advance(1);
        assert!(net.firewall.mark(family, &key, 20_000));
        assert!(is_marked(net.only().3.generation));
        // A packet in time: it lives, and with it its mark is gone.
        net.receive(INSIDE, &ask)
            .forwarded(OUTSIDE, Reason::Established, &[]);
        assert!(!net.firewall.collect(family, &key, 20_000));
        net.advance(20 * SECOND + 1);
        assert!(!net.firewall.collect(family, &key, 20_000), "not marked");
        assert!(net.firewall.mark(family, &key, 20_000));
        let _earlier = net.tables().take_events();
        assert!(net.firewall.collect(family, &key, 20_000));
        let events = net.tables().take_events();
        assert_eq!(events.len(), 1);
        assert_eq!(
            (events[0].reason, events[0].generation),
            (Reason::EarlyAged as u8, 1)
        );
        assert_eq!(net.tables().counters()["sessions_aged_early"], 1);
        assert_eq!(net.flows(), (0, 0));
    }
}

#[test]
fn a_marked_session_says_which_generation_permitted_it() {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    let (client, server, _) = FAMILIES[0];
    conversation(&mut net, client, server, client);
    net.commit(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    net.advance(301 * SECOND);
    assert_eq!(net.age(), 1);
    let events = net.tables().take_events();
    assert_eq!(
        (events[0].reason, events[0].generation),
        (Reason::SessionClosed as u8, 1)
    );
}

/// Whoever killed a flow and never came to bury it.
#[test]
fn the_dead_are_buried() {
    for reply in [false, true] {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        let (client, server, _) = FAMILIES[0];
        let (ask, _) = conversation(&mut net, client, server, client);
        let (family, _, mut key, flow) = net.only();
        assert!(!net.firewall.bury(family, &key), "alive");
        if reply {
            let (partner, _) = net.tables().flows4.entries()[0];
            let (other, _) = net.tables().flows4.entries()[1];
            key = if partner == key { other } else { partner };
        }
        let ended = bulkhead_pipeline::Tables::end_flow(
            net.tables(),
            Table::Established,
            family,
            &key,
            flow.session_id,
        );
        assert_eq!(ended, Some(true));
        if !reply {
            net.receive(INSIDE, &ask).dropped(Reason::SessionClosed, &[HIT]);
        }
        assert!(net.firewall.bury(family, &key));
        assert!(!net.firewall.bury(family, &key));
        net.receive(INSIDE, &ask)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
    }
}
