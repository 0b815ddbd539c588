//! Sessions that nobody has answered: one entry until somebody does, and every right of a session all the same.

use bulkhead_abi::{
    Flow, Reason, Tally, flow_flags,
    flow_generation::{DEAD, is_marked},
};
use bulkhead_pipeline::{
    Insert, Table, Work,
    control::collect,
    host::{HostTables, ingress_elsewhere},
};

use crate::{
    FAMILIES,
    frame::{Frame, SYN},
    net::{INSIDE, MISS, Net, OUTSIDE, SECOND, ZONE_INSIDE, ZONE_OUTSIDE, mac, permit},
};

const ESTABLISHED: (&str, u64) = ("sessions_established", 1);

/// What counts as idle in these tests, ms.
const EARLY_MS: u32 = 20_000;

fn outbound() -> Net {
    Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)])
}

/// A firewall that has seen one question.
fn asked(ask: &Frame) -> Net {
    let mut net = outbound();
    net.receive(INSIDE, ask)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net
}

/// A question and its answer, of every protocol but TCP.
fn conversations(client: &str, server: &str) -> Vec<(Frame, Frame)> {
    let (there, back) = (|| Frame::new(client, server), || Frame::new(server, client));
    vec![
        (there().udp(5000, 53), back().udp(53, 5000)),
        (there().udp_lite(5000, 53, 8), back().udp_lite(53, 5000, 8)),
        (there().dccp(5000, 53), back().dccp(53, 5000)),
        (there().sctp(5000, 53), back().sctp(53, 5000)),
        (there().echo(77, 1), back().echo_reply(77, 1)),
        (
            there().protocol(47, b"no ports"),
            back().protocol(47, b"no ports"),
        ),
    ]
}

/// The only established flow of a direction.
fn established(tables: &HostTables, reply: bool) -> Flow {
    let flows = [4, 6].map(|family| tables.flows(Table::Established, family).entries());
    let mut flows = flows.into_iter().flatten().map(|(_, flow)| flow);
    flows
        .find(|flow| (flow.flags & flow_flags::REPLY != 0) == reply)
        .expect("both directions")
}

#[test]
fn the_answer_makes_two_entries_of_one() {
    for (client, server, _) in FAMILIES {
        for (ask, answer) in conversations(client, server) {
            let mut net = asked(&ask);
            net.receive(INSIDE, &ask)
                .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
            assert_eq!(net.flows(), (0, 1), "{ask:?}");
            net.receive(OUTSIDE, &answer)
                .forwarded(INSIDE, Reason::Established, &[ESTABLISHED])
                .between(server, client)
                .via(client);
            assert_eq!(net.flows(), (2, 0));
            let (first, reply) = (established(net.tables(), false), established(net.tables(), true));
            assert_eq!((first.unanswered, reply.unanswered), (0, 0));
            assert_eq!((first.packets, reply.packets), (2, 1));
            assert_eq!(first.session_id, reply.session_id);
            // As if it had stood there from the beginning.
            let station = mac(OUTSIDE);
            assert_eq!(reply.ingress_mac_high.to_ne_bytes(), station[..2]);
            assert_eq!(reply.ingress_mac_low.to_ne_bytes(), station[2..]);
            assert_eq!((reply.ingress_ifindex, reply.egress_ifindex), (OUTSIDE, INSIDE));
            assert_eq!((reply.from_zone, reply.to_zone), (first.to_zone, first.from_zone));
            for (ifindex, out, frame) in [(INSIDE, OUTSIDE, &ask), (OUTSIDE, INSIDE, &answer)] {
                net.receive(ifindex, frame)
                    .forwarded(out, Reason::Established, &[]);
            }
        }
    }
}

/// Where the reply's tuple has to be reserved, or a handshake follows, both entries are there from the beginning.
#[test]
fn what_is_translated_or_tcp_has_two_entries_at_once() {
    for (client, server, _) in FAMILIES {
        let net = asked(&Frame::new(client, server).tcp(40000, 80, SYN, 1000, 0));
        assert_eq!(net.flows(), (0, 2));
        let mut net = outbound();
        net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
        net.receive(INSIDE, &Frame::new(client, server).udp(5000, 53))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        assert_eq!(net.flows(), (0, 2));
    }
}

/// The first packets of both sides at once, neither of which sees the other's: one conversation comes of it.
#[test]
fn crossed_first_packets_end_as_one_session() {
    for (client, server, _) in FAMILIES {
        let mut net = Net::new(&[
            permit(ZONE_INSIDE, ZONE_OUTSIDE),
            permit(ZONE_OUTSIDE, ZONE_INSIDE),
        ]);
        let there = Frame::new(client, server).udp(5000, 53);
        let back = Frame::new(server, client).udp(53, 5000);
        let bytes = back.clone().to(mac(OUTSIDE)).build();
        net.tables().interrupt(0, move |tables| {
            let (verdict, _) = ingress_elsewhere(tables, OUTSIDE, &bytes);
            assert_eq!(verdict.reason, Reason::SessionCreated);
        });
        let outcome = net.receive(INSIDE, &there).outcome;
        assert_eq!(outcome.verdict.reason, Reason::SessionCreated);
        assert_eq!(net.flows(), (0, 2), "two unanswered sessions");
        // Neither is what an eviction has left of the other.
        net.advance(SECOND);
        let outcome = net.receive(INSIDE, &there).outcome;
        assert_eq!(outcome.verdict.reason, Reason::NatPortsExhausted);
        assert_eq!(net.flows(), (0, 1), "one gives way");
        let tally = |tally| net.tables().tallied(tally);
        assert_eq!((tally(Tally::Created), tally(Tally::Ended)), (2, 1));
        net.receive(INSIDE, &there)
            .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED]);
        net.receive(OUTSIDE, &back)
            .forwarded(INSIDE, Reason::Established, &[]);
        assert_eq!(net.flows(), (2, 0));
    }
}

#[test]
fn they_age_like_others() {
    for (client, server, _) in FAMILIES {
        for (ask, answer) in conversations(client, server) {
            let mut net = asked(&ask);
            let (family, _, key, _) = net.only();
            net.advance(25 * SECOND);
            assert!(!net.firewall.collect(family, &key, EARLY_MS), "not marked yet");
            assert!(net.firewall.mark(family, &key, EARLY_MS));
            assert!(is_marked(net.only().3.generation));
            net.receive(INSIDE, &ask)
                .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
            assert!(!net.firewall.collect(family, &key, EARLY_MS), "a packet came");
            net.advance(25 * SECOND);
            assert!(net.firewall.mark(family, &key, EARLY_MS));
            assert!(net.firewall.collect(family, &key, EARLY_MS));
            assert_eq!(net.flows(), (0, 0));
            let outcome = net.receive(OUTSIDE, &answer).outcome;
            assert!(outcome.verdict.reason.is_drop(), "{:?}", outcome.verdict);
        }
    }
}

/// An answer takes the mark away, too, and finds the session dead where it comes too late.
#[test]
fn an_answer_to_a_marked_session_saves_it_or_is_too_late() {
    for (client, server, _) in FAMILIES {
        let answer = Frame::new(server, client).udp(53, 5000);
        for late in [false, true] {
            let mut net = asked(&Frame::new(client, server).udp(5000, 53));
            let (family, _, key, _) = net.only();
            net.advance(25 * SECOND);
            assert!(net.firewall.mark(family, &key, EARLY_MS));
            if late {
                // Right before the answer takes the mark away.
                net.tables().interrupt_swap(0, move |tables| {
                    assert!(collect(tables, &mut Work::default(), family, &key, EARLY_MS));
                });
                let outcome = net.receive(OUTSIDE, &answer).outcome;
                assert_eq!(outcome.verdict.reason, Reason::DefaultDeny);
                assert_eq!(net.flows(), (0, 0));
            } else {
                net.receive(OUTSIDE, &answer)
                    .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
                assert!(!net.firewall.collect(family, &key, EARLY_MS));
                assert_eq!(net.flows(), (2, 0));
            }
        }
    }
}

/// Evicted between the answer's look and the move: the answer has no session.
#[test]
fn an_answer_to_a_session_that_is_pushed_out_under_it_is_denied() {
    for (client, server, _) in FAMILIES {
        for insertion in 0..2 {
            let mut net = asked(&Frame::new(client, server).udp(5000, 53));
            let (family, _, key, _) = net.only();
            net.tables().interrupt(insertion, move |tables| {
                assert!(tables.flows(Table::HalfOpen, family).remove(&key));
            });
            let outcome = net
                .receive(OUTSIDE, &Frame::new(server, client).udp(53, 5000))
                .outcome;
            assert_eq!(outcome.verdict.reason, Reason::DefaultDeny);
            assert_eq!(net.flows(), (0, 0));
        }
    }
}

/// Two answers at once: whatever the one has just looked at when the other moves the session, neither is lost; nor where the
/// other is not done yet, and the first direction is dead and still where it was.
#[test]
fn an_answer_finds_the_session_that_another_moves_under_it() {
    let scenes = FAMILIES
        .into_iter()
        .flat_map(|(client, server, _)| conversations(client, server));
    for ((ask, answer), done) in scenes.flat_map(|scene| [(scene.clone(), true), (scene, false)]) {
        let mut look = 0;
        loop {
            let mut net = asked(&ask);
            let (family, _, key, first) = net.only();
            let bytes = answer.clone().to(mac(OUTSIDE)).build();
            net.tables().interrupt_look(look, move |tables| {
                let (verdict, _) = ingress_elsewhere(tables, OUTSIDE, &bytes);
                assert_eq!(verdict.reason, Reason::Established);
                if !done {
                    let dead = Flow {
                        generation: DEAD,
                        ..first
                    };
                    assert_eq!(
                        tables.flows(Table::HalfOpen, family).insert(&key, &dead),
                        Insert::Done
                    );
                }
            });
            let outcome = net.receive(OUTSIDE, &answer).outcome;
            assert_eq!(
                (outcome.verdict.reason, outcome.out_ifindex),
                (Reason::Established, INSIDE),
                "look {look} of {answer:?}, done: {done}"
            );
            if net.tables().interruption_pending() {
                // The answer took fewer looks: it was met at every one.
                break;
            }
            let remains = net.tables().flows(Table::HalfOpen, family);
            assert_eq!(remains.remove(&key), !done);
            assert_eq!((net.flows(), net.tables().tallied(Tally::Created)), ((2, 0), 1));
            look += 1;
        }
        assert!(look > 6, "{look} looks");
    }
}

/// Answered while the table was full, it moves with the next packet of either side for which there is room, if its state tells
/// that it was answered (UDP, UDP-Lite, DCCP); else with the next answer.
#[test]
fn an_answer_that_found_the_table_full_is_remembered() {
    for (client, server, _) in FAMILIES {
        for (number, (ask, answer)) in conversations(client, server).into_iter().enumerate() {
            let remembered = number < 3;
            let mut net = Net::with_room(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)], 1, 100);
            net.receive(INSIDE, &Frame::new(client, server).udp(1, 53))
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
            net.receive(OUTSIDE, &Frame::new(server, client).udp(53, 1))
                .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
            let (family, _, full, _) = net.only();
            let outcome = net.receive(INSIDE, &ask).outcome;
            assert_eq!(outcome.verdict.reason, Reason::SessionCreated);
            for _ in 0..2 {
                net.receive(OUTSIDE, &answer)
                    .dropped(Reason::SessionTableFull, &[]);
                assert_eq!(net.flows(), (2, 1));
            }
            assert!(net.firewall.expire(family, &full, true));
            if remembered {
                net.receive(INSIDE, &ask)
                    .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED]);
            } else {
                net.receive(INSIDE, &ask)
                    .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
                net.receive(OUTSIDE, &answer)
                    .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
            }
            assert_eq!(net.flows(), (2, 0));
            for _ in 0..2 {
                net.receive(OUTSIDE, &answer)
                    .forwarded(INSIDE, Reason::Established, &[]);
            }
        }
    }
}

/// The configuration changes between question and answer.
#[test]
fn the_answer_is_judged_by_the_configuration_in_force() {
    for (client, server, _) in FAMILIES {
        let answer = Frame::new(server, client).udp(53, 5000);
        for permitted in [true, false] {
            let mut net = asked(&Frame::new(client, server).udp(5000, 53));
            let policies = [permit(ZONE_INSIDE, ZONE_OUTSIDE)];
            net.commit(if permitted { &policies } else { &[] });
            let outcome = net.receive(OUTSIDE, &answer).outcome;
            if permitted {
                assert_eq!(outcome.verdict.reason, Reason::Established);
                assert_eq!(established(net.tables(), true).generation, net.judgement());
                assert_eq!(net.flows(), (2, 0));
            } else {
                assert_eq!(outcome.verdict.reason, Reason::PolicyChanged);
                assert_eq!(net.flows(), (0, 0));
            }
        }
    }
}
