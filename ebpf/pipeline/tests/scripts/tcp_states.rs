//! The state machine of a TCP connection as the middle sees it, and how long each state is remembered.

use bulkhead_abi::{EventKind, Flow, Reason, SessionState, flow_flags};
use bulkhead_pipeline::Table;

use crate::{
    frame::{ACK, FIN, Frame, PSH, RST, SYN},
    net::{HIT, INSIDE, MISS, Net, OUTSIDE, SECOND, ZONE_INSIDE, ZONE_OUTSIDE, permit},
    tcp::{ESTABLISHED, Pair, open, outbound, pairs},
};

/// The session's flows, the first direction first.
fn flows(net: &Net, pair: &Pair) -> Vec<Flow> {
    let family = if pair.client.contains(':') { 6 } else { 4 };
    let tables = [Table::Established, Table::HalfOpen];
    let entries = tables.map(|table| net.tables().flows(table, family).entries());
    let mut flows: Vec<Flow> = entries.concat().into_iter().map(|(_, flow)| flow).collect();
    flows.sort_by_key(|flow| flow.flags & flow_flags::REPLY);
    flows
}

#[track_caller]
fn expect_state(net: &Net, pair: &Pair, state: SessionState) {
    let states: Vec<_> = flows(net, pair)
        .iter()
        .map(|flow| SessionState::from_number(flow.state).unwrap())
        .collect();
    assert_eq!(states, [state; 2]);
}

fn inside(net: &mut Net, frame: &Frame) {
    net.receive(INSIDE, frame)
        .forwarded(OUTSIDE, Reason::Established, &[]);
}

fn outside(net: &mut Net, frame: &Frame) {
    net.receive(OUTSIDE, frame)
        .forwarded(INSIDE, Reason::Established, &[]);
}

/// Both FINs, the first one acknowledged with the second.
fn finish(net: &mut Net, pair: &Pair) {
    inside(net, &pair.client(FIN | ACK, 1001, 9001));
    outside(net, &pair.server(FIN | ACK, 9001, 1002));
    inside(net, &pair.client(ACK, 1002, 9002));
    expect_state(net, pair, SessionState::TcpTimeWait);
}

#[test]
fn each_fin_and_its_acknowledgement_count() {
    for pair in pairs() {
        let mut net = outbound();
        open(&mut net, &pair);
        expect_state(&net, &pair, SessionState::TcpEstablished);
        inside(&mut net, &pair.client(FIN | ACK, 1001, 9001));
        expect_state(&net, &pair, SessionState::TcpClosing);
        outside(&mut net, &pair.server(ACK, 9001, 1002));
        expect_state(&net, &pair, SessionState::TcpClosing);
        outside(&mut net, &pair.server(FIN | ACK, 9001, 1002));
        expect_state(&net, &pair, SessionState::TcpLastAck);
        // Not the acknowledgement of the FIN.
        inside(&mut net, &pair.client(ACK, 1002, 9001));
        expect_state(&net, &pair, SessionState::TcpLastAck);
        inside(&mut net, &pair.client(ACK, 1002, 9002));
        expect_state(&net, &pair, SessionState::TcpTimeWait);
    }
}

#[test]
fn fins_may_cross() {
    let pair = &pairs()[0];
    let mut net = outbound();
    open(&mut net, pair);
    inside(&mut net, &pair.client(FIN | ACK, 1001, 9001));
    outside(&mut net, &pair.server(FIN | ACK, 9001, 1001));
    expect_state(&net, pair, SessionState::TcpLastAck);
    outside(&mut net, &pair.server(ACK, 9002, 1002));
    expect_state(&net, pair, SessionState::TcpLastAck);
    inside(&mut net, &pair.client(ACK, 1002, 9002));
    expect_state(&net, pair, SessionState::TcpTimeWait);
}

/// RFC 5382 REQ-5: the transitory timeout after a FIN is at least four minutes; a half-closed connection is not over, and
/// its data goes the short way.
#[test]
fn rfc5382_5_a_half_closed_connection_lives_as_long_as_data_flows() {
    for pair in pairs() {
        let mut net = outbound();
        for ifindex in [INSIDE, OUTSIDE] {
            let mut facts = net.tables().interfaces.get(&ifindex).unwrap();
            facts.flags |= bulkhead_abi::interface_flags::XDP_TARGET;
            net.tables().interfaces.set(&ifindex, &facts);
        }
        open(&mut net, &pair);
        inside(&mut net, &pair.client(FIN | ACK, 1001, 9001));
        let mut seq = 9001u32;
        for _ in 0..50 {
            net.advance(239 * SECOND);
            outside(&mut net, &pair.server(ACK | PSH, seq, 1002).payload(&[7; 1000]));
            seq += 1000;
            let ack = pair.client(ACK, 1002, seq);
            inside(&mut net, &ack);
        }
        // Soon after another packet: settled where only established traffic is.
        let data = pair.server(ACK | PSH, seq, 1002).payload(b"more");
        net.receive_xdp(OUTSIDE, &data)
            .forwarded(INSIDE, Reason::EstablishedXdp, &[]);
        outside(&mut net, &pair.server(FIN | ACK, seq + 4, 1002));
        inside(&mut net, &pair.client(ACK, 1002, seq + 5));
        expect_state(&net, &pair, SessionState::TcpTimeWait);
        net.advance(240 * SECOND);
        assert_eq!(net.age(), 0);
        net.advance(1);
        assert_eq!(net.age(), 1);
    }
}

/// RFC 5382 REQ-2a, RFC 9293 figure 8: through a translating firewall too, and in each order of what crosses.
#[test]
fn rfc5382_2a_a_simultaneous_open_through_nat() {
    for (pair, own) in pairs().iter().zip(["198.51.100.1", "2001:db8:2::1"]) {
        for order in 0..3 {
            let mut net = outbound();
            net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
            let server = |flags, seq, ack| Frame::new(pair.server, own).tcp(80, 40000, flags, seq, ack);
            net.receive(INSIDE, &pair.client(SYN, 1000, 0))
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS])
                .between(own, pair.server);
            net.receive(OUTSIDE, &server(SYN, 9000, 0))
                .forwarded(INSIDE, Reason::HalfOpen, &[])
                .between(pair.server, pair.client);
            expect_state(&net, pair, SessionState::TcpSynCrossed);
            let (mine, theirs) = (pair.client(SYN | ACK, 1000, 9001), server(SYN | ACK, 9000, 1001));
            match order {
                0 => {
                    net.receive(INSIDE, &mine)
                        .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
                    net.receive(OUTSIDE, &theirs)
                        .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
                }
                1 => {
                    net.receive(OUTSIDE, &theirs)
                        .forwarded(INSIDE, Reason::HalfOpen, &[]);
                    expect_state(&net, pair, SessionState::TcpSynReceived);
                    net.receive(INSIDE, &mine)
                        .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED]);
                }
                // The other side's SYN+ACK was lost on the way here; it is connected, and goes on.
                _ => {
                    net.receive(INSIDE, &mine)
                        .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
                    net.receive(OUTSIDE, &server(ACK | PSH, 9001, 1001).payload(b"first"))
                        .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
                }
            }
            expect_state(&net, pair, SessionState::TcpEstablished);
            inside(&mut net, &pair.client(ACK | PSH, 1001, 9001).payload(b"data"));
            outside(&mut net, &server(ACK, 9001, 1005));
        }
    }
}

/// A side that has acknowledged the other's SYN may have to repeat its own: the connection is open, and a SYN in its window
/// a guess, only when both are acknowledged.
#[test]
fn a_crossed_open_is_complete_when_both_syns_are_acknowledged() {
    for pair in pairs() {
        let mut net = outbound();
        net.receive(INSIDE, &pair.client(SYN, 1000, 0))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.receive(OUTSIDE, &pair.server(SYN, 9000, 0))
            .forwarded(INSIDE, Reason::HalfOpen, &[]);
        // What answers a repeated SYN (RFC 9293, 3.10.7.4).
        net.receive(OUTSIDE, &pair.server(ACK, 9001, 1001))
            .forwarded(INSIDE, Reason::HalfOpen, &[]);
        expect_state(&net, &pair, SessionState::TcpSynReceived);
        net.receive(OUTSIDE, &pair.server(SYN, 9000, 0))
            .forwarded(INSIDE, Reason::HalfOpen, &[]);
        net.receive(INSIDE, &pair.client(ACK, 1001, 9001)).forwarded(
            OUTSIDE,
            Reason::Established,
            &[ESTABLISHED],
        );
        expect_state(&net, &pair, SessionState::TcpEstablished);
        // One byte, not acknowledged: a SYN right before it is a guess.
        outside(&mut net, &pair.server(ACK | PSH, 9001, 1001).payload(b"x"));
        net.receive(OUTSIDE, &pair.server(SYN, 9001, 0))
            .dropped(Reason::TcpSynInWindow, &[]);
    }
}

/// A SYN in the server's name proves nothing: it must not decide whose numbers count.
#[test]
fn a_forged_crossing_syn_does_not_keep_the_server_out() {
    let pair = &pairs()[0];
    let mut net = outbound();
    net.receive(INSIDE, &pair.client(SYN, 1000, 0))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.receive(OUTSIDE, &pair.server(SYN, 0x7777_0000, 0))
        .forwarded(INSIDE, Reason::HalfOpen, &[]);
    net.receive(OUTSIDE, &pair.server(SYN | ACK, 9000, 1001))
        .forwarded(INSIDE, Reason::HalfOpen, &[]);
    net.receive(INSIDE, &pair.client(ACK, 1001, 9001)).forwarded(
        OUTSIDE,
        Reason::Established,
        &[ESTABLISHED],
    );
    outside(&mut net, &pair.server(ACK, 9001, 1001).payload(&[1; 1000]));
}

/// What completes a handshake acknowledges the very SYN that was seen, from either side.
#[test]
fn rfc5961_a_handshake_is_not_completed_by_guesses() {
    for pair in pairs() {
        let mut net = outbound();
        net.receive(INSIDE, &pair.client(SYN, 1000, 0))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        for ack in [0, 1000, 1002, 0x8000_0000] {
            net.receive(OUTSIDE, &pair.server(SYN | ACK, 9000, ack))
                .dropped(Reason::TcpStateInvalid, &[]);
            net.receive(OUTSIDE, &pair.server(RST | ACK, 0, ack))
                .dropped(Reason::TcpResetOutOfWindow, &[]);
        }
        expect_state(&net, &pair, SessionState::TcpSynSent);
        net.receive(OUTSIDE, &pair.server(SYN | ACK, 9000, 1001))
            .forwarded(INSIDE, Reason::HalfOpen, &[]);
        for ack in [0, 9000, 9002, 0x8000_0000] {
            net.receive(INSIDE, &pair.client(ACK, 1001, ack))
                .dropped(Reason::TcpStateInvalid, &[]);
        }
        for seq in [0x4000_0000, 0xf000_0000] {
            net.receive(INSIDE, &pair.client(ACK, seq, 9001))
                .dropped(Reason::TcpOutOfWindow, &[]);
        }
        expect_state(&net, &pair, SessionState::TcpSynReceived);
        // The first data may bring the acknowledgement.
        net.receive(INSIDE, &pair.client(ACK | PSH, 1001, 9001).payload(b"GET"))
            .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED]);
    }
}

/// The acknowledgement was lost, and the FIN brings it.
#[test]
fn a_fin_may_complete_the_handshake() {
    let pair = &pairs()[0];
    let mut net = outbound();
    net.receive(INSIDE, &pair.client(SYN, 1000, 0))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.receive(OUTSIDE, &pair.server(SYN | ACK, 9000, 1001))
        .forwarded(INSIDE, Reason::HalfOpen, &[]);
    net.receive(INSIDE, &pair.client(FIN | ACK, 1001, 9001))
        .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED]);
    expect_state(&net, pair, SessionState::TcpClosing);
    assert_eq!(net.flows(), (2, 0));
    outside(&mut net, &pair.server(FIN | ACK, 9001, 1002));
    inside(&mut net, &pair.client(ACK, 1002, 9002));
    expect_state(&net, pair, SessionState::TcpTimeWait);
}

/// RFC 7413: data in the SYN, taken or not, and data of the server before the client's acknowledgement.
#[test]
fn fast_open_passes() {
    for pair in pairs() {
        for acknowledged in [1001, 1006] {
            let mut net = outbound();
            net.receive(INSIDE, &pair.client(SYN, 1000, 0).payload(b"early"))
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
            // Repeated without, as Linux does.
            net.receive(INSIDE, &pair.client(SYN, 1000, 0))
                .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
            net.receive(OUTSIDE, &pair.server(SYN | ACK, 9000, acknowledged))
                .forwarded(INSIDE, Reason::HalfOpen, &[]);
            net.receive(
                OUTSIDE,
                &pair.server(ACK | PSH, 9001, acknowledged).payload(&[1; 1400]),
            )
            .forwarded(INSIDE, Reason::HalfOpen, &[]);
            net.receive(OUTSIDE, &pair.server(FIN | ACK, 10_401, acknowledged))
                .forwarded(INSIDE, Reason::HalfOpen, &[]);
            net.receive(INSIDE, &pair.client(ACK, 1006, 10_401)).forwarded(
                OUTSIDE,
                Reason::Established,
                &[ESTABLISHED],
            );
            expect_state(&net, &pair, SessionState::TcpClosing);
        }
    }
}

/// A host that was restarted, or gave up, tries again from the same port.
#[test]
fn a_client_may_begin_anew_before_it_is_answered() {
    for pair in pairs() {
        let mut net = outbound();
        net.receive(INSIDE, &pair.client(SYN, 1000, 0))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.receive(INSIDE, &pair.client(SYN, 77_000, 0))
            .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
        net.receive(OUTSIDE, &pair.server(SYN | ACK, 9000, 1001))
            .dropped(Reason::TcpStateInvalid, &[]);
        net.receive(OUTSIDE, &pair.server(SYN | ACK, 9500, 77_001))
            .forwarded(INSIDE, Reason::HalfOpen, &[]);
        // A server without memory (SYN cookies) answers the repeated SYN with another number; the last one counts.
        net.receive(OUTSIDE, &pair.server(SYN | ACK, 9000, 77_001))
            .forwarded(INSIDE, Reason::HalfOpen, &[]);
        net.receive(INSIDE, &pair.client(ACK, 77_001, 9501))
            .dropped(Reason::TcpStateInvalid, &[]);
        net.receive(INSIDE, &pair.client(ACK, 77_001, 9001)).forwarded(
            OUTSIDE,
            Reason::Established,
            &[ESTABLISHED],
        );
    }
}

/// RFC 9293, 3.5.2: a peer with an older connection answers a SYN with what it expects there, is told to forget it, and
/// answers the repeated SYN.
#[test]
fn rfc9293_a_half_open_connection_is_recovered() {
    for pair in pairs() {
        let mut net = outbound();
        net.receive(INSIDE, &pair.client(SYN, 1000, 0))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        let before = flows(&net, &pair);
        net.receive(OUTSIDE, &pair.server(ACK, 0x5000_0000, 0x6000_0000))
            .forwarded(INSIDE, Reason::HalfOpen, &[]);
        net.receive(INSIDE, &pair.client(RST, 0x6000_0000, 0))
            .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
        for (now, before) in flows(&net, &pair).iter().zip(&before) {
            assert_eq!(
                (now.state, now.tcp_end, now.tcp_ack),
                (before.state, before.tcp_end, before.tcp_ack)
            );
        }
        net.advance(SECOND);
        net.receive(INSIDE, &pair.client(SYN, 1000, 0))
            .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
        net.receive(OUTSIDE, &pair.server(SYN | ACK, 9000, 1001))
            .forwarded(INSIDE, Reason::HalfOpen, &[]);
    }
}

/// The same from within the table: the client was restarted and takes the port it had.
#[test]
fn a_restarted_client_gets_its_port_back() {
    for pair in pairs() {
        let mut net = outbound();
        open(&mut net, &pair);
        inside(&mut net, &pair.client(SYN, 0x7000_0000, 0));
        // The server challenges, the client resets, the SYN is repeated.
        outside(&mut net, &pair.server(ACK, 9001, 1001));
        inside(&mut net, &pair.client(RST, 1001, 0));
        expect_state(&net, &pair, SessionState::TcpClosed);
        net.receive(INSIDE, &pair.client(SYN, 0x7000_0000, 0)).forwarded(
            OUTSIDE,
            Reason::SessionCreated,
            &[HIT],
        );
        expect_state(&net, &pair, SessionState::TcpSynSent);
    }
}

/// RFC 9293, 3.6.1 and RFC 6191: numbers that go on begin a new connection at once, others after a while.
#[test]
fn ports_in_time_wait_are_used_again() {
    for pair in pairs() {
        let mut net = outbound();
        open(&mut net, &pair);
        finish(&mut net, &pair);
        // An old duplicate is for the endpoint to answer, if it is there; nothing changes.
        inside(&mut net, &pair.client(SYN, 1000, 0));
        expect_state(&net, &pair, SessionState::TcpTimeWait);
        let step = net.receive(INSIDE, &pair.client(SYN, 1003, 0));
        let sent = step.forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
        let kinds: Vec<u8> = sent.events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [EventKind::Close as u8, EventKind::Create as u8]);

        let mut net = outbound();
        open(&mut net, &pair);
        finish(&mut net, &pair);
        net.advance(60 * SECOND - 1);
        inside(&mut net, &pair.client(SYN, 7, 0));
        net.advance(1);
        net.receive(INSIDE, &pair.client(SYN, 7, 0))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
    }
}

/// The other side may open the next connection, if policy lets it.
#[test]
fn the_server_may_reuse_the_ports_where_policy_permits() {
    for pair in pairs() {
        let mut net = Net::new(&[
            permit(ZONE_INSIDE, ZONE_OUTSIDE),
            permit(ZONE_OUTSIDE, ZONE_INSIDE),
        ]);
        open(&mut net, &pair);
        finish(&mut net, &pair);
        net.receive(OUTSIDE, &pair.server(SYN, 9003, 0))
            .forwarded(INSIDE, Reason::SessionCreated, &[MISS]);
        let first = flows(&net, &pair)[0];
        assert_eq!(
            (first.ingress_ifindex, first.state),
            (OUTSIDE, SessionState::TcpSynSent as u8)
        );
        // And where it does not, the old one is over and nothing is begun.
        let mut net = outbound();
        open(&mut net, &pair);
        finish(&mut net, &pair);
        net.receive(OUTSIDE, &pair.server(SYN, 9003, 0))
            .dropped(Reason::DefaultDeny, &[MISS]);
        assert_eq!(net.flows(), (0, 0));
    }
}

/// When each flow was last seen.
fn seen(net: &Net, pair: &Pair) -> Vec<u64> {
    flows(net, pair).iter().map(|flow| flow.last_seen_ns).collect()
}

/// RFC 7857, section 7: a FIN or reset that changes nothing, and what is refused, does not keep a session.
#[test]
fn rfc7857_7_what_proves_nothing_refreshes_nothing() {
    for pair in pairs() {
        let mut net = outbound();
        open(&mut net, &pair);
        let before = seen(&net, &pair);
        net.advance(100 * SECOND);
        for frame in [
            pair.server(ACK, 0x9000_0000, 1001),
            pair.server(ACK, 9001, 0x9000_0000),
            pair.server(FIN | ACK, 0x9000_0000, 1001),
            pair.server(PSH, 9001, 1001),
            pair.server(RST, 0x9000_0000, 0),
            pair.server(SYN, 9010, 0),
        ] {
            let outcome = net.receive(OUTSIDE, &frame).outcome;
            assert!(outcome.verdict.reason.is_drop(), "{:?}", outcome.verdict);
        }
        // For the endpoint to challenge.
        outside(&mut net, &pair.server(RST, 9010, 0));
        outside(&mut net, &pair.server(SYN, 0x9000_0000, 0));
        assert_eq!(seen(&net, &pair), before);
        // A FIN counts once.
        outside(&mut net, &pair.server(FIN | ACK, 9001, 1001));
        let after = seen(&net, &pair);
        assert!(after > before);
        for _ in 0..3 {
            net.advance(70 * SECOND);
            outside(&mut net, &pair.server(FIN | ACK, 9001, 1001));
        }
        assert_eq!(seen(&net, &pair), after);
        net.advance(30 * SECOND + 1);
        assert_eq!(net.age(), 1);
    }
}

/// RFC 7857, 2.2: a reset that is believed leaves the state for a while, translation included; what repeats it passes and
/// does not prolong that.
#[test]
fn rfc7857_2_2_a_reset_is_remembered_for_a_while() {
    for pair in pairs() {
        let mut net = outbound();
        open(&mut net, &pair);
        outside(&mut net, &pair.server(RST | ACK, 9001, 1001));
        expect_state(&net, &pair, SessionState::TcpClosed);
        net.advance(9 * SECOND);
        outside(&mut net, &pair.server(RST | ACK, 9001, 1001));
        net.receive(OUTSIDE, &pair.server(RST, 0x9000_0000, 0))
            .dropped(Reason::TcpResetOutOfWindow, &[]);
        net.receive(INSIDE, &pair.client(ACK, 1001, 9001))
            .dropped(Reason::SessionClosed, &[]);
        net.advance(SECOND + 1);
        assert_eq!(net.age(), 1);
    }
}

#[test]
fn each_state_has_its_timeout() {
    for (state, seconds) in [
        (SessionState::TcpSynSent, 240),
        (SessionState::TcpSynCrossed, 240),
        (SessionState::TcpSynReceived, 240),
        (SessionState::TcpEstablished, 7440),
        (SessionState::TcpClosing, 240),
        (SessionState::TcpLastAck, 240),
        (SessionState::TcpTimeWait, 240),
        (SessionState::TcpClosed, 10),
    ] {
        let pair = &pairs()[0];
        let mut net = outbound();
        net.receive(INSIDE, &pair.client(SYN, 1000, 0))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        for (reached, ifindex, frame) in [
            (SessionState::TcpSynCrossed, OUTSIDE, pair.server(SYN, 9000, 0)),
            (
                SessionState::TcpSynReceived,
                OUTSIDE,
                pair.server(SYN | ACK, 9000, 1001),
            ),
            (SessionState::TcpEstablished, INSIDE, pair.client(ACK, 1001, 9001)),
            (
                SessionState::TcpClosing,
                INSIDE,
                pair.client(FIN | ACK, 1001, 9001),
            ),
            (
                SessionState::TcpLastAck,
                OUTSIDE,
                pair.server(FIN | ACK, 9001, 1001),
            ),
            (SessionState::TcpTimeWait, OUTSIDE, pair.server(ACK, 9002, 1002)),
            (SessionState::TcpClosed, INSIDE, pair.client(RST, 1002, 0)),
        ] {
            if flows(&net, pair)[0].state == state as u8 {
                break;
            }
            // What a state needs besides.
            if reached == SessionState::TcpTimeWait {
                let _sent = net.receive(INSIDE, &pair.client(ACK, 1002, 9002));
            }
            let outcome = net.receive(ifindex, &frame).outcome;
            assert!(
                !outcome.verdict.reason.is_drop(),
                "{reached:?}: {:?}",
                outcome.verdict
            );
            expect_state(&net, pair, reached);
        }
        expect_state(&net, pair, state);
        net.advance(seconds * SECOND);
        assert_eq!(net.age(), 0, "{state:?}");
        net.advance(1);
        assert_eq!(net.age(), 1, "{state:?}");
    }
}
