//! Limits: full tables, floods of half-open sessions, hop limits and sizes.

use bulkhead_abi::{FlowKey6, Reason, SlowPathKind, flow_flags};
use bulkhead_pipeline::Table;

use crate::{
    FAMILIES,
    frame::{ACK, Frame, SYN},
    net::{DMZ, HIT, INSIDE, MISS, Net, OUTSIDE, SECOND, ZONE_DMZ, ZONE_INSIDE, ZONE_OUTSIDE, mac, permit},
};

const ESTABLISHED: (&str, u64) = ("sessions_established", 1);

#[test]
fn a_full_table_refuses_and_holds_what_it_has() {
    for (client, server, _) in FAMILIES {
        let mut net = Net::with_room(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)], 2, 100);
        for port in 1..=3 {
            let ask = Frame::new(client, server).udp(port, 53);
            let cache = if port == 1 { MISS } else { HIT };
            net.receive(INSIDE, &ask)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[cache]);
            let answer = Frame::new(server, client).udp(53, port);
            let step = net.receive(OUTSIDE, &answer);
            if port < 3 {
                step.forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
            } else {
                step.dropped(Reason::SessionTableFull, &[]);
            }
        }
        assert_eq!(net.flows(), (4, 1));
        for port in 1..=2 {
            let answer = Frame::new(server, client).udp(53, port);
            net.receive(OUTSIDE, &answer)
                .forwarded(INSIDE, Reason::Established, &[]);
        }
    }
}

#[test]
fn a_handshake_that_found_the_table_full_is_completed_when_there_is_room() {
    let (client, server) = ("10.1.0.2", "192.0.2.80");
    let mut net = Net::with_room(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)], 1, 100);
    net.receive(INSIDE, &Frame::new(client, server).udp(1, 53))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.receive(OUTSIDE, &Frame::new(server, client).udp(53, 1))
        .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
    net.receive(INSIDE, &Frame::new(client, server).tcp(4000, 80, SYN, 100, 0))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
    net.receive(
        OUTSIDE,
        &Frame::new(server, client).tcp(80, 4000, SYN | ACK, 500, 101),
    )
    .forwarded(INSIDE, Reason::HalfOpen, &[]);
    let ack = Frame::new(client, server).tcp(4000, 80, ACK, 101, 501);
    // Repeated as often as the client likes: it never becomes a session that a flood could evict.
    for _ in 0..3 {
        net.receive(INSIDE, &ack).dropped(Reason::SessionTableFull, &[]);
    }
    let (full, _) = net.tables().flows(Table::Established, 4).entries()[0];
    assert!(net.firewall.expire(4, &full, true));
    net.receive(INSIDE, &ack)
        .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED]);
    assert_eq!(net.flows(), (2, 0));
}

/// A flood pushes out half-open sessions, never established ones.
#[test]
fn a_flood_of_half_open_sessions_leaves_established_ones_alone() {
    for translate in [false, true] {
        let mut net = Net::with_room(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)], 10, 8);
        if translate {
            net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
        }
        let own = if translate { "198.51.100.1" } else { "10.1.0.2" };
        let ask = Frame::new("10.1.0.2", "192.0.2.80").udp(5000, 53);
        let answer = Frame::new("192.0.2.80", own).udp(53, 5000);
        net.receive(INSIDE, &ask)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.receive(OUTSIDE, &answer)
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
        for port in 1..200 {
            let syn = Frame::new("10.1.0.3", "192.0.2.80").tcp(port, 80, SYN, 1, 0);
            net.receive(INSIDE, &syn)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
        }
        assert_eq!(net.flows(), (2, 16));
        net.receive(OUTSIDE, &answer)
            .forwarded(INSIDE, Reason::Established, &[]);
        net.receive(INSIDE, &ask)
            .forwarded(OUTSIDE, Reason::Established, &[]);
    }
}

/// The reply half holds the port: when it is evicted, the other half must not go on using it.
#[test]
fn half_a_session_translates_nothing() {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
    let ask = |host| Frame::new(host, "192.0.2.80").udp(5000, 53);
    net.receive(INSIDE, &ask("10.1.0.2"))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    evict(&mut net, true);
    assert_eq!(net.flows(), (0, 1));
    // Another host takes the port that is free again.
    let sent = net
        .receive(INSIDE, &ask("10.1.0.3"))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
    assert_eq!(sent.seen.word(0), 5000);
    // The half that is left is no session: its packet opens another, on another port.
    let sent = net.receive(INSIDE, &ask("10.1.0.2")).forwarded(
        OUTSIDE,
        Reason::SessionCreated,
        &[HIT, ("nat_ports_changed", 1)],
    );
    assert_ne!(sent.seen.word(0), 5000);
    let answer = Frame::new("192.0.2.80", "198.51.100.1").udp(53, 5000);
    net.receive(OUTSIDE, &answer)
        .forwarded(INSIDE, Reason::Established, &[ESTABLISHED])
        .between("192.0.2.80", "10.1.0.3");
}

/// The other half alone must not translate replies either.
#[test]
fn a_reply_to_half_a_session_goes_nowhere() {
    for translate in [false, true] {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        if translate {
            net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
        }
        let ask = Frame::new("10.1.0.2", "192.0.2.80").udp(5000, 53);
        let own = if translate { "198.51.100.1" } else { "10.1.0.2" };
        let sent = net
            .receive(INSIDE, &ask)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        evict(&mut net, false);
        net.advance(2 * SECOND);
        let error = Frame::new("192.0.2.80", own).error(&sent.bytes, false);
        net.receive(OUTSIDE, &error).dropped(Reason::IcmpNoSession, &[]);
        let answer = Frame::new("192.0.2.80", own).udp(53, 5000);
        let step = net.receive(OUTSIDE, &answer);
        let reason = if translate {
            Reason::HostInboundDeny
        } else {
            Reason::DefaultDeny
        };
        step.dropped(reason, &[MISS]);
        assert_eq!(net.flows(), (0, 0));
    }
}

/// An orphaned reply flow must not stand in the way of the conversation it belonged to.
#[test]
fn an_orphaned_reply_flow_is_replaced_by_its_own_conversation() {
    for (client, server, _) in FAMILIES {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        let syn = Frame::new(client, server).tcp(40000, 80, SYN, 1000, 0);
        net.receive(INSIDE, &syn)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        evict(&mut net, false);
        assert_eq!(net.flows(), (0, 1));
        // Of the same clock tick, it may be another CPU's that is just entering the session.
        net.receive(INSIDE, &syn)
            .dropped(Reason::NatPortsExhausted, &[HIT]);
        net.advance(4_000_000);
        net.receive(INSIDE, &syn)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
        let answer = Frame::new(server, client).tcp(80, 40000, SYN | ACK, 9000, 1001);
        net.receive(OUTSIDE, &answer)
            .forwarded(INSIDE, Reason::HalfOpen, &[]);
    }
}

/// Removes one half of the only session: the reply's, or the original's.
fn evict(net: &mut Net, reply: bool) {
    let mut evicted = 0;
    for family in [4, 6] {
        let table = net.tables().flows(Table::HalfOpen, family);
        for (key, flow) in table.entries() {
            if (flow.flags & flow_flags::REPLY != 0) == reply {
                table.remove(&key);
                evicted += 1;
            }
        }
    }
    assert_eq!(evicted, 1);
}

#[test]
fn ageing_removes_what_is_left_of_a_session() {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    let syn = Frame::new("10.1.0.2", "192.0.2.80").tcp(40000, 80, SYN, 1000, 0);
    net.receive(INSIDE, &syn)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    evict(&mut net, false);
    assert_eq!(net.age(), 0, "the other half may be just being entered");
    net.advance(2 * SECOND);
    assert_eq!(net.age(), 1);
    assert_eq!(net.flows(), (0, 0));
    assert!(
        !net.firewall.expire(4, &FlowKey6::default(), true),
        "an unknown key"
    );
}

#[test]
fn clearing_does_not_look_at_the_clock() {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    let ask = Frame::new("10.1.0.2", "192.0.2.80").udp(5000, 53);
    net.receive(INSIDE, &ask)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    let (key, _) = net.tables().half_open4.entries()[0];
    assert!(net.firewall.expire(4, &key, true));
    assert_eq!(net.flows(), (0, 0));
}

#[test]
fn the_last_hop_is_told_to_the_sender() {
    for (client, server, _) in FAMILIES {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        for ttl in [0, 1] {
            let frame = Frame::new(client, server).udp(5000, 53).ttl(ttl);
            let cache = if ttl == 0 { MISS } else { HIT };
            let outcome = net
                .receive(INSIDE, &frame)
                .dropped_and(Reason::TtlExceeded, &[cache]);
            assert_eq!(outcome.asked.len(), 1);
            assert_eq!(
                (outcome.asked[0].kind, outcome.asked[0].ifindex),
                (SlowPathKind::TtlExceeded, INSIDE)
            );
        }
        assert_eq!(net.flows(), (0, 0), "a packet that goes nowhere opens nothing");
        net.receive(INSIDE, &Frame::new(client, server).udp(5000, 53).ttl(2))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
        let outcome = net
            .receive(INSIDE, &Frame::new(client, server).udp(5000, 53).ttl(1))
            .dropped_and(Reason::TtlExceeded, &[]);
        assert_eq!(outcome.asked[0].kind, SlowPathKind::TtlExceeded);
        // What policy denies gets no answer.
        let denied = Frame::new(server, client).udp(9, 9).ttl(1);
        net.receive(OUTSIDE, &denied)
            .dropped(Reason::DefaultDeny, &[MISS]);
    }
}

#[test]
fn what_does_not_fit_is_told_to_the_sender() {
    for (client, server, headers) in [
        ("10.1.0.2", "10.3.0.2", 28),
        ("2001:db8:1::2", "2001:db8:3::2", 48),
    ] {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_DMZ)]);
        let frame = |bytes: usize| {
            Frame::new(client, server)
                .udp(5000, 53)
                .payload(&vec![7; bytes - headers])
        };
        let outcome = net
            .receive(INSIDE, &frame(1401))
            .dropped_and(Reason::MtuExceeded, &[MISS]);
        let asked = &outcome.asked[0];
        assert_eq!(
            (asked.kind, asked.mtu, asked.ifindex),
            (SlowPathKind::MtuExceeded, 1400, INSIDE)
        );
        assert_eq!(asked.packet.len(), 1280);
        net.receive(INSIDE, &frame(1400))
            .forwarded(DMZ, Reason::SessionCreated, &[HIT]);
        let answer = Frame::new(server, client)
            .udp(53, 5000)
            .payload(&vec![7; 1500 - headers]);
        net.receive(DMZ, &answer)
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
        // Established sessions too.
        net.receive(INSIDE, &frame(1400))
            .forwarded(DMZ, Reason::Established, &[]);
        let outcome = net
            .receive(INSIDE, &frame(1401))
            .dropped_and(Reason::MtuExceeded, &[]);
        assert_eq!(outcome.asked[0].mtu, 1400);
    }
}

#[test]
fn an_aggregate_is_measured_by_its_segments() {
    for (client, server) in [("10.1.0.2", "10.3.0.2"), ("2001:db8:1::2", "2001:db8:3::2")] {
        let headers = if client.contains(':') { 60 } else { 40 };
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_DMZ)]);
        let there = |flags, seq, ack| Frame::new(client, server).tcp(40000, 80, flags, seq, ack);
        net.receive(INSIDE, &there(SYN, 1000, 0))
            .forwarded(DMZ, Reason::SessionCreated, &[MISS]);
        let answer = Frame::new(server, client).tcp(80, 40000, SYN | ACK, 9000, 1001);
        net.receive(DMZ, &answer).forwarded(INSIDE, Reason::HalfOpen, &[]);
        net.receive(INSIDE, &there(ACK, 1001, 9001))
            .forwarded(DMZ, Reason::Established, &[ESTABLISHED]);
        let bulk = there(ACK, 1001, 9001)
            .payload(&vec![5; 30_000])
            .to(mac(INSIDE))
            .build();
        let outcome = net.firewall.ingress_gso(INSIDE, &bulk, 1400 - headers);
        assert_eq!(outcome.verdict.reason, Reason::Established);
        assert_eq!((outcome.out_ifindex, outcome.delta.len()), (DMZ, 1));
        assert_eq!(outcome.bytes.len(), bulk.len(), "forwarded whole");
        let outcome = net.firewall.ingress_gso(INSIDE, &bulk, 1401 - headers);
        assert_eq!(outcome.verdict.reason, Reason::MtuExceeded);
        assert_eq!(outcome.asked.len(), 1);
        // Not an aggregate: too big.
        net.receive_bytes(INSIDE, &bulk)
            .dropped_and(Reason::MtuExceeded, &[]);
    }
}

#[test]
fn an_unknown_neighbour_is_left_to_the_kernel_and_looked_up_again() {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_DMZ)]);
    net.forget_neighbour(DMZ, "10.3.0.2");
    let frame = Frame::new("10.1.0.2", "10.3.0.2").udp(5000, 53);
    for reason in [Reason::SessionCreated, Reason::HalfOpen] {
        let outcome = net.receive(INSIDE, &frame).outcome;
        assert_eq!(
            outcome.verdict.action,
            bulkhead_pipeline::Action::RedirectNeighbour
        );
        assert_eq!((outcome.verdict.reason, outcome.out_ifindex), (reason, DMZ));
    }
    net.neighbour(DMZ, "10.3.0.2");
    net.receive(INSIDE, &frame)
        .forwarded(DMZ, Reason::HalfOpen, &[])
        .via("10.3.0.2");
}

#[test]
fn no_route_is_told_to_the_sender() {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    // A packet before it, of whose way out nothing may be left.
    net.receive(INSIDE, &Frame::new("10.1.0.2", "192.0.2.80").udp(1, 2))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    let outcome = net
        .receive(INSIDE, &Frame::new("10.1.0.2", "203.0.113.9").udp(1, 2))
        .dropped_and(Reason::NoRoute, &[]);
    assert_eq!(outcome.asked[0].kind, SlowPathKind::NoRoute);
    assert_eq!(outcome.events.len(), 1);
    assert_eq!(outcome.events[0].egress_ifindex, 0);
}

#[test]
fn nothing_leaves_through_an_interface_that_is_not_guarded() {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    net.receive(INSIDE, &Frame::new("10.1.0.2", "10.5.0.2").udp(1, 2))
        .dropped(Reason::EgressNotGuarded, &[]);
}
