//! Policy for live sessions: whatever a new configuration changes, and whichever packet comes first, a session that it would
//! not permit carries nothing more, and one that it permits notices nothing.

use bulkhead_abi::{EventKind, Reason, interface_flags};
use bulkhead_pipeline::Table;

use crate::{
    FAMILIES,
    frame::{ACK, Frame, RST, SYN, TCP, UDP},
    net::{
        ANY, DMZ, HIT, INSIDE, INSIDE_TOO, MISS, Net, OUTSIDE, SECOND, SELF, ZONE_DMZ, ZONE_INSIDE,
        ZONE_OUTSIDE, deny, permit, reject,
    },
};

const ESTABLISHED: (&str, u64) = ("sessions_established", 1);
const NEITHER: [(&str, u64); 0] = [];

fn there(client: &str, server: &str, flags: u8, seq: u32, ack: u32) -> Frame {
    Frame::new(client, server).tcp(40000, 80, flags, seq, ack)
}

fn back(server: &str, client: &str, flags: u8, seq: u32, ack: u32) -> Frame {
    Frame::new(server, client).tcp(80, 40000, flags, seq, ack)
}

/// A connection from inside to outside, and its next packet in each direction.
fn connection(net: &mut Net, client: &str, server: &str) -> [(u32, u32, Frame); 2] {
    net.receive(INSIDE, &there(client, server, SYN, 1000, 0))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.receive(OUTSIDE, &back(server, client, SYN | ACK, 9000, 1001))
        .forwarded(INSIDE, Reason::HalfOpen, &NEITHER);
    net.receive(INSIDE, &there(client, server, ACK, 1001, 9001))
        .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED]);
    [
        (INSIDE, OUTSIDE, there(client, server, ACK, 1001, 9001)),
        (OUTSIDE, INSIDE, back(server, client, ACK, 9001, 1001)),
    ]
}

/// Runs `change` on a firewall with a live connection, once for each direction that may speak first, in each family, with
/// the XDP program in front or without; then `outcome` says what the first packet must meet.
fn each(change: impl Fn(&mut Net), outcome: impl Fn(&mut Net, usize, &[(u32, u32, Frame); 2])) {
    for (client, server, _) in FAMILIES {
        for first in [0, 1] {
            for xdp in [false, true] {
                let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
                for ifindex in [INSIDE, OUTSIDE, DMZ] {
                    let mut facts = net.tables().interfaces.get(&ifindex).unwrap();
                    facts.flags |= interface_flags::XDP_TARGET;
                    net.tables().interfaces.set(&ifindex, &facts);
                }
                let frames = connection(&mut net, client, server);
                if xdp {
                    // In full flow in XDP, both ways, until the change; after it, not one more there.
                    for (ifindex, out, frame) in &frames {
                        let _sent = net.receive(*ifindex, frame);
                        net.receive_xdp(*ifindex, frame)
                            .forwarded(*out, Reason::EstablishedXdp, &NEITHER);
                    }
                }
                change(&mut net);
                if xdp {
                    for (ifindex, _, frame) in &frames {
                        net.receive_xdp(*ifindex, frame).next_hook();
                    }
                }
                let _earlier = net.tables().take_events();
                outcome(&mut net, first, &frames);
            }
        }
    }
}

/// The first packet ends it, the second finds nothing, nothing is left.
fn is_cut(net: &mut Net, first: usize, frames: &[(u32, u32, Frame); 2]) {
    let (ifindex, _, frame) = &frames[first];
    let step = net.receive(*ifindex, frame);
    let closed: Vec<_> = step
        .outcome
        .events
        .iter()
        .filter(|event| event.kind == EventKind::Close as u8)
        .map(|event| event.reason)
        .collect();
    assert_eq!(closed, [Reason::PolicyChanged as u8]);
    step.dropped(Reason::PolicyChanged, &[MISS]);
    for (ifindex, _, frame) in [&frames[1 - first], &frames[first]] {
        let outcome = net.receive(*ifindex, frame).outcome;
        assert_eq!(outcome.verdict.reason, Reason::TcpNoSession);
    }
    assert_eq!(net.flows(), (0, 0));
}

/// Both directions go on, each asking policy once.
fn goes_on(net: &mut Net, first: usize, frames: &[(u32, u32, Frame); 2]) {
    for (turn, which) in [first, 1 - first, first, 1 - first].into_iter().enumerate() {
        let (ifindex, out, frame) = &frames[which];
        let others: &[_] = match turn {
            0 => &[MISS],
            1 => &[HIT],
            _ => &NEITHER,
        };
        net.receive(*ifindex, frame)
            .forwarded(*out, Reason::Established, others);
    }
    assert!(net.tables().take_events().is_empty());
}

#[test]
fn denied_by_the_new_rules() {
    for rules in [
        vec![],
        vec![deny(ZONE_INSIDE, ZONE_OUTSIDE), permit(ANY, ANY)],
        vec![reject(ANY, ANY), permit(ANY, ANY)],
        // What permits only the other way round permits a conversation of the other way round.
        vec![permit(ZONE_OUTSIDE, ZONE_INSIDE)],
        vec![permit(ZONE_INSIDE, ZONE_DMZ), permit(ZONE_INSIDE, SELF)],
    ] {
        each(|net| net.commit(&rules), is_cut);
    }
}

#[test]
fn permitted_by_another_rule() {
    for rules in [
        vec![permit(ANY, ANY)],
        vec![deny(ZONE_OUTSIDE, ZONE_INSIDE), permit(ZONE_INSIDE, ANY)],
        vec![deny(ZONE_DMZ, ANY), permit(ANY, ZONE_OUTSIDE)],
    ] {
        each(|net| net.commit(&rules), goes_on);
    }
}

#[test]
fn the_group_of_either_end_changes() {
    for end in ["10.1.0.2", "2001:db8:1::2", "192.0.2.80", "2001:db8:80::80"] {
        let source = end.contains(":1:") || end.starts_with("10.");
        let concerned = |net: &Net| {
            let (family, ..) = net.only();
            (family == 6) == end.contains(':')
        };
        let change = |net: &mut Net| {
            let quarantine = if source {
                deny(ANY, ANY).source(66)
            } else {
                deny(ANY, ANY).destination(66)
            };
            net.commit(&[quarantine, permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
            net.address_class(66, end, if end.contains(':') { 128 } else { 32 });
        };
        each(change, |net, first, frames| {
            if concerned(net) {
                is_cut(net, first, frames);
            } else {
                goes_on(net, first, frames);
            }
        });
    }
}

#[test]
fn the_service_is_taken_away() {
    let change = |port| {
        move |net: &mut Net| {
            net.commit(&[permit(ZONE_INSIDE, ZONE_OUTSIDE).service(5)]);
            net.service(5, TCP, port);
        }
    };
    each(change(80), goes_on);
    // The client's port, which is the reply's destination, is nobody's service.
    each(change(40000), is_cut);
    each(change(81), is_cut);
}

/// The interface keeps its sessions only where the new zone may do what the old one did.
#[test]
fn an_interface_changes_its_zone() {
    for (ifindex, zone) in [(INSIDE, ZONE_DMZ), (OUTSIDE, ZONE_DMZ)] {
        for permitted in [false, true] {
            let change = |net: &mut Net| {
                let mut rules = vec![permit(ZONE_INSIDE, ZONE_OUTSIDE)];
                if permitted {
                    rules.extend([permit(ZONE_DMZ, ZONE_OUTSIDE), permit(ZONE_INSIDE, ZONE_DMZ)]);
                }
                net.commit(&rules);
                net.move_interface(ifindex, zone);
            };
            if permitted {
                each(change, goes_on);
            } else {
                each(change, is_cut);
            }
        }
    }
}

/// An interface that is in no zone any more: what arrives there ends there, what would leave there is cut.
#[test]
fn an_interface_leaves_all_zones() {
    for gone in [INSIDE, OUTSIDE] {
        each(
            |net| {
                net.commit(&[permit(ANY, ANY)]);
                net.leave_zones(gone);
            },
            |net, first, frames| {
                let (ifindex, _, frame) = &frames[first];
                let outcome = net.receive(*ifindex, frame).outcome;
                assert_eq!(outcome.verdict.reason, Reason::PolicyChanged);
                let (ifindex, _, frame) = &frames[1 - first];
                assert!(net.receive(*ifindex, frame).outcome.verdict.reason.is_drop());
                assert_eq!(net.flows(), (0, 0));
            },
        );
    }
}

#[test]
fn translation_begins() {
    each(
        |net| {
            net.commit(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
            net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
        },
        |net, first, frames| {
            let (ifindex, _, frame) = &frames[first];
            // Not as it was: it must begin anew, which a segment in its middle cannot.
            net.receive(*ifindex, frame)
                .dropped(Reason::TcpNoSession, &[MISS]);
            assert_eq!(net.flows(), (0, 0));
        },
    );
}

#[test]
fn translation_ends() {
    for (first, own) in [(0, "198.51.100.1"), (1, "198.51.100.1")] {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
        let ask = Frame::new("10.1.0.2", "192.0.2.80").udp(5000, 53);
        let answer = Frame::new("192.0.2.80", own).udp(53, 5000);
        net.receive(INSIDE, &ask)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.receive(OUTSIDE, &answer)
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
        net.commit(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        if first == 0 {
            net.receive(INSIDE, &ask)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS, HIT2])
                .between("10.1.0.2", "192.0.2.80");
        } else {
            // To the firewall's own address, as the answer of nobody's conversation.
            net.receive(OUTSIDE, &answer)
                .dropped(Reason::HostInboundDeny, &[("decision_cache_misses", 2)]);
            assert_eq!(net.flows(), (0, 0));
        }
    }
}

/// A hit of the decision that was just made.
const HIT2: (&str, u64) = ("decision_cache_hits", 1);

#[test]
fn half_open_sessions_either_way() {
    for (client, server, _) in FAMILIES {
        for first in [0, 1] {
            let frames = [
                (INSIDE, there(client, server, SYN, 1000, 0)),
                (OUTSIDE, back(server, client, SYN | ACK, 9000, 1001)),
            ];
            // Denied.
            let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
            net.receive(INSIDE, &frames[0].1)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
            net.commit(&[permit(ZONE_OUTSIDE, ZONE_INSIDE)]);
            net.receive(frames[first].0, &frames[first].1)
                .dropped(Reason::PolicyChanged, &[MISS]);
            assert_eq!(net.flows(), (0, 0));
            // Permitted.
            let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
            net.receive(INSIDE, &frames[0].1)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
            net.commit(&[permit(ANY, ANY)]);
            let out = if first == 0 { OUTSIDE } else { INSIDE };
            net.receive(frames[first].0, &frames[first].1)
                .forwarded(out, Reason::HalfOpen, &[MISS]);
            assert_eq!(net.flows(), (0, 2));
        }
    }
}

/// A visitor of the firewall itself, by `hostInbound`.
#[test]
fn a_visitor_goes_on_or_is_sent_away() {
    for (own, host) in [("10.1.0.1", "10.1.0.2"), ("2001:db8:1::1", "2001:db8:1::2")] {
        for permitted in [false, true] {
            let mut net = Net::new(&[permit(ZONE_INSIDE, SELF)]);
            let ask = Frame::new(host, own).udp(5000, 53);
            net.receive(INSIDE, &ask).handed_on(Reason::ToHost, &[MISS]);
            net.leave(INSIDE, &Frame::new(own, host).udp(53, 5000), 0, false)
                .handed_on(Reason::FromHost, &[ESTABLISHED]);
            let rule = if permitted {
                permit(ZONE_INSIDE, SELF).service(5)
            } else {
                permit(ANY, ANY)
            };
            net.commit(&[rule]);
            net.service(5, UDP, 53);
            // The answer is the firewall's own word, which nobody judges; it does not make the question permitted.
            net.leave(INSIDE, &Frame::new(own, host).udp(53, 5000), 0, false)
                .handed_on(Reason::FromHost, &NEITHER);
            if permitted {
                net.receive(INSIDE, &ask).handed_on(Reason::ToHost, &[MISS]);
                net.receive(INSIDE, &ask).handed_on(Reason::ToHost, &NEITHER);
            } else {
                net.receive(INSIDE, &ask).dropped(Reason::PolicyChanged, &[MISS]);
                assert_eq!(net.flows(), (0, 0));
            }
        }
    }
}

/// The firewall's own connections need no rule, before a commit or after.
#[test]
fn an_own_connection_goes_on() {
    for (own, server) in [
        ("198.51.100.1", "192.0.2.80"),
        ("2001:db8:2::1", "2001:db8:80::80"),
    ] {
        let mut net = Net::new(&[]);
        let (ask, answer) = (
            Frame::new(own, server).udp(5000, 53),
            Frame::new(server, own).udp(53, 5000),
        );
        net.leave(OUTSIDE, &ask, 0, false)
            .handed_on(Reason::FromHost, &NEITHER);
        for turn in 0..3 {
            let others: &[_] = if turn == 0 { &[ESTABLISHED] } else { &NEITHER };
            net.receive(OUTSIDE, &answer).handed_on(Reason::ToHost, others);
            net.commit(&[deny(ANY, ANY)]);
            net.leave(OUTSIDE, &ask, 0, false)
                .handed_on(Reason::FromHost, &NEITHER);
        }
        assert_eq!(net.flows(), (2, 0));
    }
}

/// An error is judged like a packet of its session, and decides nothing for it.
#[test]
fn an_error_before_the_first_packet_is_judged_and_changes_nothing() {
    for (client, server, router) in FAMILIES {
        for permitted in [false, true] {
            let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
            let frames = connection(&mut net, client, server);
            let sent = net
                .receive(INSIDE, &frames[0].2)
                .forwarded(OUTSIDE, Reason::Established, &NEITHER);
            let rule = if permitted {
                permit(ANY, ANY)
            } else {
                permit(ZONE_OUTSIDE, ZONE_INSIDE)
            };
            net.commit(&[rule]);
            let error = Frame::new(router, client).error(&sent.bytes, true);
            for turn in 0..2 {
                let cache = if turn == 0 { MISS } else { HIT };
                let step = net.receive(OUTSIDE, &error);
                if permitted {
                    let _sent = step.forwarded(INSIDE, Reason::RelatedIcmp, &[cache]);
                } else {
                    step.dropped(Reason::PolicyChanged, &[cache]);
                }
            }
            let (_, table, _, flow) = net.only();
            assert_eq!((table, flow.generation), (Table::Established, 1));
            let step = net.receive(INSIDE, &frames[0].2);
            if permitted {
                let _sent = step.forwarded(OUTSIDE, Reason::Established, &[HIT]);
            } else {
                step.dropped(Reason::PolicyChanged, &[HIT]);
            }
        }
    }
}

/// Errors about a session that is idle beyond its time are errors about nothing.
#[test]
fn an_error_about_an_expired_session_is_dropped() {
    let (client, server, router) = FAMILIES[0];
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    let frames = connection(&mut net, client, server);
    let sent = net
        .receive(INSIDE, &frames[0].2)
        .forwarded(OUTSIDE, Reason::Established, &NEITHER);
    net.advance(7441 * SECOND);
    net.receive(OUTSIDE, &Frame::new(router, client).error(&sent.bytes, true))
        .dropped(Reason::IcmpNoSession, &NEITHER);
}

/// A reset after the commit ends what it may, and is itself judged.
#[test]
fn a_reset_is_judged_too() {
    for (client, server, _) in FAMILIES {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        let _frames = connection(&mut net, client, server);
        net.commit(&[]);
        net.receive(OUTSIDE, &back(server, client, RST, 9001, 0))
            .dropped(Reason::PolicyChanged, &[MISS]);
    }
}

/// Commits may come faster than packets: what was permitted in between does not count.
#[test]
fn only_the_configuration_in_force_counts() {
    each(
        |net| {
            net.commit(&[]);
            net.commit(&[deny(ANY, ANY)]);
            net.commit(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        },
        goes_on,
    );
    each(
        |net| {
            net.commit(&[permit(ANY, ANY)]);
            net.commit(&[]);
        },
        is_cut,
    );
}

/// The client's packets arrive on another interface of its zone after the commit.
#[test]
fn the_way_changes_with_the_configuration() {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    let (client, server, _) = FAMILIES[0];
    let frames = connection(&mut net, client, server);
    net.commit(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    net.receive(INSIDE_TOO, &frames[0].2)
        .forwarded(OUTSIDE, Reason::Established, &[MISS]);
    // In no zone, or in another: not this conversation's.
    net.receive(DMZ, &frames[0].2)
        .dropped(Reason::WrongZone, &NEITHER);
    net.commit(&[permit(ANY, ANY)]);
    net.receive(DMZ, &frames[0].2)
        .dropped(Reason::WrongZone, &NEITHER);
}

/// Another interface of the same name and zone takes the place of one that went away, under another index: what was `ifindex`
/// is `INSIDE_TOO` now, for packets and for routes.
fn make_anew(net: &mut Net, client: &str) {
    net.leave_zones(INSIDE);
    let facts = net.tables().interfaces.get(&INSIDE).unwrap();
    let facts = bulkhead_abi::Interface {
        mac: crate::net::mac(INSIDE_TOO),
        ..facts
    };
    net.tables().interfaces.set(&INSIDE_TOO, &facts);
    let length = if client.contains(':') { 128 } else { 32 };
    net.route(client, length, INSIDE_TOO);
    net.neighbour(INSIDE_TOO, client);
    net.new_epoch();
}

/// A session that says nothing while its interface is made anew and the members of a group change goes on where policy lets
/// it, whoever speaks first, and is nobody else's.
#[test]
fn an_interface_is_made_anew_under_a_silent_session() {
    for (client, server, _) in FAMILIES {
        for (change, first) in [(false, 0), (false, 1), (true, 0), (true, 1)] {
            let mut net = Net::new(&[permit(ZONE_INSIDE, ANY)]);
            let [mut there, back] = connection(&mut net, client, server);
            make_anew(&mut net, client);
            if change {
                net.commit(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
                net.leave_zones(INSIDE);
            } else {
                net.judge_again();
            }
            // Nobody else's: neither of a zone that may not, nor of none.
            for stranger in [DMZ, crate::net::NO_ZONE] {
                let outcome = net.receive(stranger, &there.2).outcome;
                assert!(outcome.verdict.reason.is_drop(), "{outcome:?}");
                assert_eq!(net.flows(), (2, 0), "a stranger has ended it");
            }
            there.0 = INSIDE_TOO;
            let frames = [there, (back.0, INSIDE_TOO, back.2)];
            for which in [first, 1 - first, first, 1 - first] {
                let (ifindex, out, frame) = &frames[which];
                let outcome = net.receive(*ifindex, frame).outcome;
                assert_eq!(
                    outcome.verdict.reason,
                    Reason::Established,
                    "{which}: {outcome:?}"
                );
                assert_eq!(outcome.out_ifindex, *out);
            }
        }
    }
}

/// Errors about a conversation that speaks one way only find their way, too: nobody else tells its sender of a smaller MTU.
#[test]
fn an_interface_is_made_anew_under_a_conversation_of_one_side() {
    for (client, server, router) in FAMILIES {
        for change in [false, true] {
            let mut net = Net::new(&[permit(ZONE_INSIDE, ANY)]);
            let sent = net
                .receive(INSIDE, &Frame::new(client, server).udp(5000, 53))
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
            make_anew(&mut net, client);
            if change {
                net.judge_again();
            }
            let others: &[_] = if change { &[HIT] } else { &NEITHER };
            net.receive(OUTSIDE, &Frame::new(router, client).error(&sent.bytes, true))
                .forwarded(INSIDE_TOO, Reason::RelatedIcmp, others);
        }
    }
}

/// The same for a connection of the firewall's own, which nobody judges: from another zone its answers do not come.
#[test]
fn an_interface_is_made_anew_under_a_silent_connection_of_the_firewalls_own() {
    for (own, host) in [("10.1.0.1", "10.1.0.2"), ("2001:db8:1::1", "2001:db8:1::2")] {
        let mut net = Net::new(&[permit(ANY, ANY)]);
        net.leave(INSIDE, &Frame::new(own, host).udp(5000, 53), 0, false)
            .handed_on(Reason::FromHost, &NEITHER);
        make_anew(&mut net, host);
        net.judge_again();
        let answer = Frame::new(host, own).udp(53, 5000);
        for stranger in [DMZ, OUTSIDE] {
            net.receive(stranger, &answer)
                .dropped(Reason::WrongZone, &NEITHER);
        }
        net.receive(INSIDE_TOO, &answer)
            .handed_on(Reason::ToHost, &[ESTABLISHED]);
    }
}

/// An address comes into a group without a commit, and leaves it again.
#[test]
fn a_change_of_members_is_obeyed_at_the_next_packet() {
    for (client, server, _) in FAMILIES {
        for first in [0, 1] {
            let mut net = Net::new(&[
                deny(ZONE_INSIDE, ANY).source(9),
                permit(ZONE_INSIDE, ZONE_OUTSIDE),
            ]);
            let frames = connection(&mut net, client, server);
            let length = if client.contains(':') { 128 } else { 32 };
            // Somebody else: this session is asked about again, once, and goes on.
            net.address_class(9, server, length);
            net.judge_again();
            for (ifindex, out, frame) in [&frames[first], &frames[1 - first]] {
                let outcome = net.receive(*ifindex, frame).outcome;
                assert_eq!(
                    (outcome.verdict.reason, outcome.out_ifindex),
                    (Reason::Established, *out)
                );
            }
            let judged = net.tables().live.get().generation;
            for (_, flow) in net
                .tables()
                .flows(Table::Established, if length == 32 { 4 } else { 6 })
                .entries()
            {
                assert_eq!(flow.generation, judged);
            }
            // The client.
            net.address_class(9, client, length);
            let (ifindex, _, frame) = &frames[first];
            let outcome = net.receive(*ifindex, frame).outcome;
            assert_eq!(outcome.verdict.reason, Reason::Established, "not in force yet");
            net.judge_again();
            let outcome = net.receive(*ifindex, frame).outcome;
            assert_eq!(outcome.verdict.reason, Reason::PolicyChanged);
            assert_eq!(net.flows(), (0, 0));
            let syn = there(client, server, SYN, 5000, 0);
            let outcome = net.receive(INSIDE, &syn).outcome;
            assert_eq!(outcome.verdict.reason, Reason::PolicyDeny);
            // And out of it.
            net.address_class(0, client, length);
            net.judge_again();
            let outcome = net.receive(INSIDE, &syn).outcome;
            assert_eq!(outcome.verdict.reason, Reason::SessionCreated);
        }
    }
}
