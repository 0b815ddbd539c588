//! What somebody might make up: proofs that are none, numbers next to the right ones, resets.

use bulkhead_abi::{Reason, tcp_rules};

use super::{ACCEPTED, CLIENT, HIT, REFUSED, SERVER, Segment, bare, cases, challenged, mss_option, segment};
use crate::{
    frame::{ACK, FIN, Frame, RST, SYN},
    net::{INSIDE, MISS, OUTSIDE, SECOND},
};

#[test]
fn what_proves_no_cookie_opens_nothing() {
    for mut case in cases() {
        case.attack(SECOND);
        let expected = case.challenged();
        let next = CLIENT.wrapping_add(1);
        let other = if case.is_v4() { "10.1.0.3" } else { "2001:db8:1::3" };
        for frame in [
            // The next numbers are cookies too, for other segment sizes.
            case.to_server(ACK, next, expected.wrapping_add(8)),
            case.to_server(ACK, next.wrapping_add(5), expected),
            Frame::new(case.client, case.server).tcp(40001, 80, ACK, next, expected),
            Frame::new(case.client, case.server).tcp(40000, 81, ACK, next, expected),
            Frame::new(other, case.server).tcp(40000, 80, ACK, next, expected),
        ] {
            case.net
                .receive(INSIDE, &frame)
                .dropped(Reason::TcpNoSession, &[REFUSED]);
        }
        for flags in [SYN | ACK, RST | ACK, FIN | ACK] {
            let frame = case.to_server(flags, next, expected);
            case.net
                .receive(INSIDE, &frame)
                .dropped(Reason::TcpNoSession, &[]);
        }
        // Policy is asked again: a rule may have changed since.
        case.net.commit(&[]);
        case.net
            .receive(INSIDE, &case.proof(expected))
            .dropped(Reason::DefaultDeny, &[MISS, ACCEPTED]);
        assert_eq!(case.net.flows(), (0, 0));
    }
}

#[test]
fn a_cookie_is_good_for_a_minute_and_as_long_after_the_attack() {
    for mut case in cases() {
        // The clock stands at ten seconds: a cookie of the first minute lives until the end of the second.
        case.attack(50 * SECOND);
        let expected = case.challenged();
        case.net.advance(99 * SECOND);
        let ack = case.proof(expected);
        let sent =
            case.net
                .receive(INSIDE, &ack)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, ACCEPTED]);
        // Another minute: what the cookie remembers cannot be found out any more.
        assert_eq!(
            segment(&sent.seen).options,
            mss_option(if case.is_v4() { 536 } else { 1220 })
        );
    }
    for mut case in cases() {
        case.attack(SECOND);
        let expected = case.challenged();
        case.net.advance(59 * SECOND);
        let ack = case.proof(expected);
        case.net.receive(INSIDE, &ack).dropped(Reason::TcpNoSession, &[]);
    }
    for mut case in cases() {
        case.attack(300 * SECOND);
        let expected = case.challenged();
        case.net.advance(111 * SECOND);
        let ack = case.proof(expected);
        case.net
            .receive(INSIDE, &ack)
            .dropped(Reason::TcpNoSession, &[REFUSED]);
    }
}

#[test]
fn a_probe_is_told_from_an_acknowledgement_whatever_the_segment_size() {
    for mut case in cases() {
        case.attack(SECOND);
        let sizes: &[u16] = if case.is_v4() {
            &[536, 1300, 1440, 1460]
        } else {
            &[1220, 1420, 1440]
        };
        for (number, mss) in sizes.iter().enumerate() {
            for (port, below) in [(50_000, 0), (51_000, 1)] {
                let frame = |flags, seq, ack| {
                    let port = port + number as u16;
                    Frame::new(case.client, case.server).tcp(port, 80, flags, seq, ack)
                };
                let syn = frame(SYN, CLIENT, 0).tcp_options(&mss_option(*mss));
                let first = number == 0 && below == 0;
                let others = if first { [MISS] } else { [HIT] };
                let answer = segment(&challenged(case.net.receive(INSIDE, &syn), INSIDE, &others));
                let proof = frame(ACK, CLIENT.wrapping_add(1 - below), answer.seq.wrapping_add(1));
                let sent = case.net.receive(INSIDE, &proof).forwarded(
                    OUTSIDE,
                    Reason::SessionCreated,
                    &[HIT, ACCEPTED],
                );
                let expected = Segment {
                    options: mss_option(*mss),
                    ..bare(SYN, CLIENT, 0, 8192)
                };
                assert_eq!(segment(&sent.seen), expected, "{mss}, {below} below");
            }
        }
    }
}

/// Where connections may be picked up in mid-stream, a proof is still a proof, and what is none is picked up as it is.
#[test]
fn a_proof_is_not_taken_for_the_middle_of_a_connection() {
    for mut case in cases() {
        case.net
            .settings(|settings| settings.tcp_rules = tcp_rules::MIDSTREAM);
        case.attack(SECOND);
        let expected = case.challenged();
        case.admitted(expected);
        case.answered(expected);
        let other = Frame::new(case.client, case.server).tcp(40_001, 80, ACK, 1000, 9000);
        let sent =
            case.net
                .receive(INSIDE, &other)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, REFUSED]);
        assert_eq!(segment(&sent.seen), bare(ACK, 1000, 9000, 8192));
    }
}

#[test]
fn resets_of_an_open_connection_are_believed_by_the_numbers_of_their_receiver() {
    for mut case in cases() {
        let expected = case.open();
        let wrong = case.to_client(RST, expected, 0);
        case.net
            .receive(OUTSIDE, &wrong)
            .dropped(Reason::TcpResetOutOfWindow, &[]);
        let frame = case.to_client(RST, SERVER.wrapping_add(1), 0);
        let got = case.back(&frame, Reason::Established);
        assert_eq!((got.flags, got.seq), (RST, expected));
        let mut case = case;
        case.net.advance(20 * SECOND);
        let expected = case.open();
        let frame = case.to_server(RST | ACK, CLIENT.wrapping_add(1), expected);
        let got = case.out(&frame, Reason::Established);
        assert_eq!(
            (got.seq, got.ack),
            (CLIENT.wrapping_add(1), SERVER.wrapping_add(1))
        );
    }
}
