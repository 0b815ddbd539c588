//! What is lost, or answered otherwise than hoped for: repeated, given up, refused.

use bulkhead_abi::Reason;
use bulkhead_pipeline::{Action, Table};

use super::{ACCEPTED, CLIENT, Case, ESTABLISHED, HIT, SERVER, bare, cases, mss_option, segment};
use crate::{
    FAMILIES,
    frame::{ACK, FIN, Frame, PSH, RST, SYN, Seen, ip},
    net::{INSIDE, MISS, Net, OUTSIDE, SECOND, ZONE_INSIDE, ZONE_OUTSIDE, permit},
    verify::verify,
};

#[test]
fn whatever_is_lost_is_repeated() {
    for mut case in cases() {
        case.attack(SECOND);
        let expected = case.challenged();
        case.admitted(expected);
        // The SYN was lost: a repeated acknowledgement, a window probe and data each repeat it.
        let next = CLIENT.wrapping_add(1);
        for frame in [
            case.to_server(ACK, next, expected),
            case.to_server(ACK, CLIENT, expected),
            case.to_server(ACK | PSH, next, expected).payload(b"too early"),
        ] {
            let got = case.out(&frame, Reason::HalfOpen);
            assert_eq!((got.flags, got.seq, got.ack), (SYN, CLIENT, 0));
            assert!(got.payload.is_empty() && got.options.len() == 4);
        }
        // Anything else waits.
        for frame in [
            case.syn(),
            case.to_server(FIN | ACK, next, expected),
            case.to_server(ACK, next, expected.wrapping_add(1)),
        ] {
            case.net
                .receive(INSIDE, &frame)
                .dropped(Reason::SynProxyWaiting, &[]);
        }
        case.answered(expected);
        // Our acknowledgement was lost: the server repeats its SYN+ACK, and is answered again.
        let again = case
            .to_client(SYN | ACK, SERVER, next)
            .tcp_options(&mss_option(1460))
            .window(6000);
        let step = case.net.receive(OUTSIDE, &again);
        assert_eq!(
            segment(&Seen::read(&step.outcome.copies[0].1)),
            bare(ACK, next, SERVER.wrapping_add(1), 5000)
        );
        let update = step.forwarded(INSIDE, Reason::Established, &[]);
        assert_eq!(segment(&update.seen), bare(ACK, expected, next, 6000));
        let other = case.to_client(SYN | ACK, SERVER.wrapping_add(100), next);
        case.net
            .receive(OUTSIDE, &other)
            .dropped(Reason::TcpStateInvalid, &[]);
        assert_eq!(case.net.flows(), (2, 0));
    }
}

#[test]
fn a_clients_lost_acknowledgement_is_made_good_by_a_probe_or_data() {
    for mut case in cases() {
        case.attack(SECOND);
        let expected = case.challenged();
        let probe = case.to_server(ACK, CLIENT, expected);
        let sent =
            case.net
                .receive(INSIDE, &probe)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, ACCEPTED]);
        assert_eq!(segment(&sent.seen).seq, CLIENT);
        case.answered_to(8192, expected);
    }
    for mut case in cases() {
        case.attack(SECOND);
        let expected = case.challenged();
        let data = case
            .to_server(ACK, CLIENT.wrapping_add(1), expected)
            .payload(&[9; 1201]);
        let sent =
            case.net
                .receive(INSIDE, &data)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, ACCEPTED]);
        let got = segment(&sent.seen);
        assert_eq!((got.flags, got.seq, got.payload.len()), (SYN, CLIENT, 0));
        case.answered_to(8192, expected);
    }
}

impl Case {
    /// The server's SYN+ACK to a client whose window was `window`.
    fn answered_to(&mut self, window: u16, expected: u32) {
        let frame = self.to_client(SYN | ACK, SERVER, CLIENT.wrapping_add(1));
        let step = self.net.receive(OUTSIDE, &frame);
        assert_eq!(segment(&Seen::read(&step.outcome.copies[0].1)).window, window);
        let update = step.forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
        assert_eq!(segment(&update.seen).seq, expected);
    }
}

#[test]
fn a_client_may_give_up_before_the_server_answers() {
    for mut case in cases() {
        case.attack(SECOND);
        let expected = case.challenged();
        case.admitted(expected);
        let next = CLIENT.wrapping_add(1);
        let reset = case.to_server(RST, next, 0);
        assert_eq!(case.out(&reset, Reason::HalfOpen), bare(RST, next, 0, 8192));
        let late = case.to_client(SYN | ACK, SERVER, next);
        case.net
            .receive(OUTSIDE, &late)
            .dropped(Reason::SessionClosed, &[]);
    }
}

#[test]
fn a_full_table_is_tried_again_with_the_numbers_learnt() {
    for (client, server, router) in FAMILIES {
        let mut net = Net::with_room(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)], 1, 1000);
        let family = if ip(client).is_ipv4() { 4 } else { 6 };
        let ask = Frame::new(client, server).udp(5000, 53);
        net.receive(INSIDE, &ask)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        let answer = Frame::new(server, client).udp(53, 5000);
        net.receive(OUTSIDE, &answer)
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
        let mut case = Case {
            client,
            server,
            router,
            own: client,
            net,
        };
        case.attack(SECOND);
        let expected = case.challenged();
        case.admitted(expected);
        let next = CLIENT.wrapping_add(1);
        let syn_ack = case.to_client(SYN | ACK, SERVER, next);
        case.net
            .receive(OUTSIDE, &syn_ack)
            .dropped_after_copies(Reason::SessionTableFull, 1);
        let entries = case.net.tables().flows(Table::Established, family).entries();
        assert!(case.net.firewall.expire(family, &entries[0].0, true));
        let probe = case.to_server(ACK, CLIENT, expected);
        let sent = case
            .net
            .receive(INSIDE, &probe)
            .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED]);
        assert_eq!(
            segment(&sent.seen),
            bare(ACK, CLIENT, SERVER.wrapping_add(1), 8192)
        );
        let window = case.to_client(ACK, SERVER.wrapping_add(1), next);
        assert_eq!(case.back(&window, Reason::Established).seq, expected);
    }
}

#[test]
fn a_refusal_reaches_the_client_as_one_it_believes() {
    for mut case in cases() {
        case.attack(SECOND);
        let expected = case.challenged();
        case.admitted(expected);
        // Not the answer to our SYN.
        let forged = case.to_client(RST | ACK, 0, CLIENT.wrapping_add(2));
        case.net
            .receive(OUTSIDE, &forged)
            .dropped(Reason::TcpResetOutOfWindow, &[]);
        let refusal = case.to_client(RST | ACK, 0, CLIENT.wrapping_add(1)).window(0);
        let got = case.back(&refusal, Reason::HalfOpen);
        assert_eq!(got, bare(RST | ACK, expected, CLIENT.wrapping_add(1), 0));
        let late = case.to_server(ACK, CLIENT.wrapping_add(1), expected);
        case.net
            .receive(INSIDE, &late)
            .dropped(Reason::SessionClosed, &[]);
    }
}

#[test]
fn a_server_with_an_older_connection_is_told_to_forget_it() {
    for mut case in cases() {
        case.attack(SECOND);
        let expected = case.challenged();
        case.admitted(expected);
        let stale = case.to_client(ACK, 4_000_000, 3_000_000);
        let step = case.net.receive(OUTSIDE, &stale);
        assert_eq!(
            step.outcome.verdict,
            bulkhead_pipeline::Verdict {
                action: Action::Drop,
                reason: Reason::SynProxyReset,
            }
        );
        let [(ifindex, copy)] = &step.outcome.copies[..] else {
            panic!("{:?}", step.outcome)
        };
        verify(copy);
        let seen = Seen::read(copy);
        assert_eq!((*ifindex, seen.destination), (OUTSIDE, ip(case.server)));
        assert_eq!(segment(&seen), bare(RST, 3_000_000, 0, 0));
        // The client's next packet repeats the SYN.
        let again = case.to_server(ACK, CLIENT.wrapping_add(1), expected);
        assert_eq!(case.out(&again, Reason::HalfOpen).flags, SYN);
        case.answered_to(5000, expected);
    }
}

#[test]
fn a_server_answers_with_a_syn_or_not_at_all() {
    for mut case in cases() {
        case.attack(SECOND);
        let expected = case.challenged();
        case.admitted(expected);
        let next = CLIENT.wrapping_add(1);
        for frame in [
            case.to_client(ACK, SERVER, next),
            case.to_client(SYN, SERVER, 0),
            case.to_client(SYN | ACK, SERVER, next.wrapping_add(1)),
            case.to_client(FIN | ACK, SERVER, next),
        ] {
            case.net
                .receive(OUTSIDE, &frame)
                .dropped(Reason::TcpStateInvalid, &[]);
        }
        case.answered(expected);
    }
}
