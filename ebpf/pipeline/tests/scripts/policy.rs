//! Verdicts of policy, and what a new generation does to live sessions.

use bulkhead_abi::{EventKind, Reason, SlowPathKind};
use bulkhead_pipeline::Table;

use crate::{
    FAMILIES,
    frame::{ACK, Frame, SYN, TCP, UDP},
    net::{
        ANY, DMZ, HIT, INSIDE, MISS, NO_ZONE, Net, OUTSIDE, SECOND, ZONE_DMZ, ZONE_INSIDE, ZONE_OUTSIDE,
        deny, permit, reject,
    },
};

fn syn(source: &str, destination: &str, port: u16) -> Frame {
    Frame::new(source, destination).tcp(40000, port, SYN, 1000, 0)
}

#[test]
fn what_no_policy_names_is_denied_and_told() {
    for (client, server, _) in FAMILIES {
        let mut net = Net::new(&[]);
        let step = net.receive(INSIDE, &syn(client, server, 80));
        let events = step.outcome.events.clone();
        step.dropped(Reason::DefaultDeny, &[MISS]);
        assert_eq!(events.len(), 1);
        let event = events[0];
        assert_eq!(
            (
                event.kind,
                event.reason,
                event.policy,
                event.from_zone,
                event.to_zone
            ),
            (EventKind::Deny as u8, Reason::DefaultDeny as u8, u32::MAX, 1, 2)
        );
        assert_eq!((event.ingress_ifindex, event.egress_ifindex), (INSIDE, OUTSIDE));
        assert_eq!(
            (event.source_port, event.destination_port, event.tcp_flags),
            (40000, 80, SYN)
        );
        net.receive(INSIDE, &syn(client, server, 80))
            .dropped(Reason::DefaultDeny, &[HIT]);
        assert_eq!(net.flows(), (0, 0));
    }
}

#[test]
fn the_first_match_wins() {
    let mut net = Net::new(&[
        deny(ZONE_INSIDE, ANY).source(9),
        permit(ZONE_INSIDE, ZONE_OUTSIDE).service(1),
        deny(ANY, ANY).service(2),
        permit(ANY, ZONE_DMZ).destination(5),
    ]);
    net.service(1, TCP, 80);
    net.service(2, UDP, 53);
    net.address_class(9, "10.1.0.3", 32);
    net.address_class(5, "10.3.0.0", 28);
    net.receive(INSIDE, &syn("10.1.0.2", "192.0.2.80", 80)).forwarded(
        OUTSIDE,
        Reason::SessionCreated,
        &[MISS],
    );
    net.receive(INSIDE, &syn("10.1.0.2", "192.0.2.80", 81))
        .dropped(Reason::DefaultDeny, &[MISS]);
    net.receive(INSIDE, &syn("10.1.0.3", "192.0.2.80", 80))
        .dropped(Reason::PolicyDeny, &[MISS]);
    let dns = Frame::new("10.1.0.2", "10.3.0.2").udp(1, 53);
    net.receive(INSIDE, &dns).dropped(Reason::PolicyDeny, &[MISS]);
    let other = Frame::new("10.1.0.2", "10.3.0.2").udp(1, 54);
    net.receive(INSIDE, &other)
        .forwarded(DMZ, Reason::SessionCreated, &[MISS]);
    let far = Frame::new("10.1.0.2", "10.3.0.16").udp(1, 54);
    net.receive(INSIDE, &far).dropped(Reason::DefaultDeny, &[MISS]);
    // Hits: one per packet that asked, by the rule that answered.
    let hits: Vec<u64> = (0..4)
        .map(|rule| {
            net.tables()
                .rules
                .get(&bulkhead_abi::PolicyKey {
                    generation: net.generation(),
                    rule,
                })
                .unwrap()
                .hits
        })
        .collect();
    assert_eq!(hits, [1, 1, 1, 1]);
}

#[test]
fn a_denial_names_its_policy() {
    let mut net = Net::new(&[permit(ZONE_DMZ, ZONE_OUTSIDE), deny(ZONE_INSIDE, ZONE_OUTSIDE)]);
    let step = net.receive(INSIDE, &syn("10.1.0.2", "192.0.2.80", 80));
    assert_eq!(step.outcome.events[0].policy, 1);
    step.dropped(Reason::PolicyDeny, &[MISS]);
}

#[test]
fn a_rejection_asks_the_slow_path_once_per_packet_and_not_too_often() {
    for (client, server, _) in FAMILIES {
        let mut net = Net::new(&[reject(ZONE_INSIDE, ZONE_OUTSIDE)]);
        net.settings(|settings| settings.slow_path_rate = 3);
        for turn in 0..5 {
            let frame = syn(client, server, 80);
            let step = net.receive(INSIDE, &frame);
            let (cache, limit): (_, &[_]) = (
                if turn == 0 { MISS } else { HIT },
                if turn < 3 {
                    &[]
                } else {
                    &[("slow_path_suppressed", 1)]
                },
            );
            let others = [&[cache], limit].concat();
            let outcome = step.dropped_and(Reason::PolicyReject, &others);
            if turn < 3 {
                assert_eq!(outcome.asked.len(), 1);
                let asked = &outcome.asked[0];
                assert_eq!((asked.kind, asked.ifindex), (SlowPathKind::Reject, INSIDE));
                assert_eq!(asked.packet, outcome.bytes, "the packet as it arrived");
            } else {
                assert!(outcome.asked.is_empty());
            }
        }
        net.advance(SECOND);
        let outcome = net
            .receive(INSIDE, &syn(client, server, 80))
            .dropped_and(Reason::PolicyReject, &[HIT]);
        assert_eq!(outcome.asked.len(), 1);
    }
}

#[test]
fn denial_events_are_rate_limited_and_denials_are_not() {
    let mut net = Net::new(&[]);
    net.settings(|settings| settings.deny_event_rate = 2);
    net.receive(INSIDE, &syn("10.1.0.2", "192.0.2.80", 80))
        .dropped(Reason::DefaultDeny, &[MISS]);
    net.receive(INSIDE, &syn("10.1.0.2", "192.0.2.80", 80))
        .dropped(Reason::DefaultDeny, &[HIT]);
    let step = net.receive(INSIDE, &syn("10.1.0.2", "192.0.2.80", 80));
    assert!(step.outcome.events.is_empty());
    step.dropped(Reason::DefaultDeny, &[HIT, ("events_suppressed", 1)]);
}

#[test]
fn an_interface_without_a_zone_forwards_nothing_either_way() {
    let mut net = Net::new(&[permit(ANY, ANY)]);
    net.receive(NO_ZONE, &syn("10.4.0.2", "192.0.2.80", 80))
        .dropped(Reason::NotConfigured, &[]);
    net.receive(INSIDE, &syn("10.1.0.2", "10.4.0.2", 80))
        .dropped(Reason::EgressNotGuarded, &[]);
}

#[test]
fn without_a_configuration_nothing_passes() {
    let mut net = Net::new(&[permit(ANY, ANY)]);
    net.tables().live.set(bulkhead_abi::Live::default());
    net.receive(INSIDE, &syn("10.1.0.2", "192.0.2.80", 80))
        .dropped(Reason::NotConfigured, &[]);
    net.receive(OUTSIDE, &Frame::new("192.0.2.80", "198.51.100.1").echo(1, 1))
        .dropped(Reason::NotConfigured, &[]);
}

/// A TCP session in full flow from inside to outside.
fn established(net: &mut Net, client: &str, server: &str) {
    net.receive(INSIDE, &syn(client, server, 80))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    let answer = Frame::new(server, client).tcp(80, 40000, SYN | ACK, 9000, 1001);
    net.receive(OUTSIDE, &answer)
        .forwarded(INSIDE, Reason::HalfOpen, &[]);
    let ack = Frame::new(client, server).tcp(40000, 80, ACK, 1001, 9001);
    net.receive(INSIDE, &ack)
        .forwarded(OUTSIDE, Reason::Established, &[("sessions_established", 1)]);
}

#[test]
fn a_session_ends_when_it_would_be_translated_otherwise_today() {
    for reply_first in [false, true] {
        let (client, server) = ("10.1.0.2", "192.0.2.80");
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        established(&mut net, client, server);
        net.commit(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
        let there = Frame::new(client, server).tcp(40000, 80, ACK, 1001, 9001);
        let back = Frame::new(server, client).tcp(80, 40000, ACK, 9001, 1001);
        let (ifindex, frame) = if reply_first {
            (OUTSIDE, &back)
        } else {
            (INSIDE, &there)
        };
        // The private source must not go on leaving untranslated.
        net.receive(ifindex, frame).dropped(Reason::TcpNoSession, &[MISS]);
        assert_eq!(net.flows(), (0, 0));
    }
}

#[test]
fn a_session_that_a_new_generation_denies_carries_no_further_packet_either_way() {
    for (client, server, _) in FAMILIES {
        for reply_first in [false, true] {
            let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
            established(&mut net, client, server);
            net.commit(&[deny(ZONE_INSIDE, ZONE_OUTSIDE), permit(ZONE_OUTSIDE, ZONE_INSIDE)]);
            let there = Frame::new(client, server).tcp(40000, 80, ACK, 1001, 9001);
            let back = Frame::new(server, client).tcp(80, 40000, ACK, 9001, 1001);
            let (first, second) = if reply_first {
                (&back, &there)
            } else {
                (&there, &back)
            };
            let (one, other) = if reply_first {
                (OUTSIDE, INSIDE)
            } else {
                (INSIDE, OUTSIDE)
            };
            let step = net.receive(one, first);
            assert_eq!(step.outcome.events.len(), 1);
            assert_eq!(step.outcome.events[0].reason, Reason::PolicyChanged as u8);
            step.dropped(Reason::PolicyChanged, &[MISS]);
            net.receive(other, second).dropped(Reason::TcpNoSession, &[]);
            assert_eq!(net.flows(), (0, 0));
        }
    }
}

#[test]
fn a_session_that_a_new_generation_permits_goes_on() {
    for (client, server, _) in FAMILIES {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        established(&mut net, client, server);
        net.commit(&[deny(ZONE_DMZ, ANY), permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        let there = Frame::new(client, server).tcp(40000, 80, ACK, 1001, 9001);
        let back = Frame::new(server, client).tcp(80, 40000, ACK, 9001, 1001);
        // Each direction asks once, the second finds the decision.
        net.receive(OUTSIDE, &back)
            .forwarded(INSIDE, Reason::Established, &[MISS]);
        net.receive(INSIDE, &there)
            .forwarded(OUTSIDE, Reason::Established, &[HIT]);
        net.receive(OUTSIDE, &back)
            .forwarded(INSIDE, Reason::Established, &[]);
        net.receive(INSIDE, &there)
            .forwarded(OUTSIDE, Reason::Established, &[]);
        let family = if client.contains(':') { 6 } else { 4 };
        for (_, flow) in net.tables().flows(Table::Established, family).entries() {
            assert_eq!((flow.generation, flow.policy), (2, 1));
        }
    }
}

#[test]
fn half_open_sessions_are_judged_again_too() {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    net.receive(INSIDE, &syn("10.1.0.2", "192.0.2.80", 80)).forwarded(
        OUTSIDE,
        Reason::SessionCreated,
        &[MISS],
    );
    net.commit(&[]);
    let answer = Frame::new("192.0.2.80", "10.1.0.2").tcp(80, 40000, SYN | ACK, 9000, 1001);
    net.receive(OUTSIDE, &answer)
        .dropped(Reason::PolicyChanged, &[MISS]);
    assert_eq!(net.flows(), (0, 0));
}

#[test]
fn a_change_of_class_is_a_change_of_policy() {
    let mut net = Net::new(&[deny(ANY, ANY).source(66), permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    established(&mut net, "10.1.0.2", "192.0.2.80");
    net.commit(&[deny(ANY, ANY).source(66), permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    net.address_class(66, "10.1.0.2", 32);
    let back = Frame::new("192.0.2.80", "10.1.0.2").tcp(80, 40000, ACK, 9001, 1001);
    net.receive(OUTSIDE, &back)
        .dropped(Reason::PolicyChanged, &[MISS]);
}

#[test]
fn new_routes_are_followed_by_live_sessions() {
    for (client, server, router) in FAMILIES {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE), permit(ZONE_INSIDE, ZONE_DMZ)]);
        established(&mut net, client, server);
        let there = Frame::new(client, server).tcp(40000, 80, ACK, 1001, 9001);
        net.receive(INSIDE, &there)
            .forwarded(OUTSIDE, Reason::Established, &[])
            .via(router);
        let (length, dmz) = if client.contains(':') {
            (128, "2001:db8:80::80")
        } else {
            (32, "192.0.2.80")
        };
        net.route(server, length, DMZ);
        net.neighbour(DMZ, dmz);
        // Nothing moves before the epoch says so; then policy is asked about the new zones.
        net.receive(INSIDE, &there)
            .forwarded(OUTSIDE, Reason::Established, &[]);
        net.new_epoch();
        net.receive(INSIDE, &there)
            .forwarded(DMZ, Reason::Established, &[MISS])
            .via(dmz);
        net.receive(INSIDE, &there)
            .forwarded(DMZ, Reason::Established, &[])
            .via(dmz);
    }
}

#[test]
fn a_new_route_into_a_denied_zone_ends_the_session() {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    established(&mut net, "10.1.0.2", "192.0.2.80");
    net.route("192.0.2.80", 32, DMZ);
    net.new_epoch();
    let there = Frame::new("10.1.0.2", "192.0.2.80").tcp(40000, 80, ACK, 1001, 9001);
    net.receive(INSIDE, &there)
        .dropped(Reason::PolicyChanged, &[MISS]);
    assert_eq!(net.flows(), (0, 0));
}
