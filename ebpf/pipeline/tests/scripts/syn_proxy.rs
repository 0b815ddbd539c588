//! SYN cookies: a destination under attack, the whole handshake on both sides, and the numbers in between.

use bulkhead_abi::{RateState, Reason, Screen, ScreenKey, tcp_rules};
use bulkhead_pipeline::{Action, Clock as _, Table};

use crate::{
    FAMILIES,
    fragments::{pieces, reassemble},
    frame::{ACK, FIN, Frame, PSH, RST, SYN, Seen, ip},
    net::{
        DMZ, INSIDE, MISS, Net, OUTSIDE, SECOND, ZONE_DMZ, ZONE_INSIDE, ZONE_OUTSIDE, mac, neighbour_mac,
        permit, words,
    },
    step::{Sent, Step},
    translation::{Pool, destination},
    verify::{self, verify},
};

const ACCEPTED: (&str, u64) = ("syn_cookies_accepted", 1);
const REFUSED: (&str, u64) = ("syn_cookies_refused", 1);
const HIT: (&str, u64) = ("decision_cache_hits", 1);
const ESTABLISHED: (&str, u64) = ("sessions_established", 1);

/// What a Linux client offers: segment size, SACK, timestamps, window scale.
const OPTIONS: &[u8] = &[2, 4, 0x05, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];

/// First numbers of client and server, close to where they wrap.
const CLIENT: u32 = 0xffff_fffe;
const SERVER: u32 = 0xffff_fff0;

/// A TCP header read back.
#[derive(Debug, PartialEq, Eq)]
struct Segment {
    flags: u8,
    seq: u32,
    ack: u32,
    window: u16,
    options: Vec<u8>,
    payload: Vec<u8>,
}

fn segment(seen: &Seen) -> Segment {
    let bytes = &seen.segment;
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let header = usize::from(bytes[12] >> 4) * 4;
    Segment {
        flags: bytes[13],
        seq: word(4),
        ack: word(8),
        window: u16::from_be_bytes([bytes[14], bytes[15]]),
        options: bytes[20..header].to_vec(),
        payload: bytes[header..].to_vec(),
    }
}

/// A frame with nothing but a TCP header.
fn bare(flags: u8, seq: u32, ack: u32, window: u16) -> Segment {
    Segment {
        flags,
        seq,
        ack,
        window,
        options: vec![],
        payload: vec![],
    }
}

fn mss_option(mss: u16) -> Vec<u8> {
    [&[2, 4], &mss.to_be_bytes()[..]].concat()
}

struct Case {
    client: &'static str,
    server: &'static str,
    router: &'static str,
    /// The client as the server sees it.
    own: &'static str,
    net: Net,
}

impl Case {
    fn to_server(&self, flags: u8, seq: u32, ack: u32) -> Frame {
        Frame::new(self.client, self.server).tcp(40000, 80, flags, seq, ack)
    }

    fn to_client(&self, flags: u8, seq: u32, ack: u32) -> Frame {
        Frame::new(self.server, self.own).tcp(80, 40000, flags, seq, ack)
    }

    fn syn(&self) -> Frame {
        self.to_server(SYN, CLIENT, 0).tcp_options(OPTIONS)
    }

    fn is_v4(&self) -> bool {
        ip(self.client).is_ipv4()
    }

    /// The server is under attack for so long from now on.
    fn attack(&mut self, ns: u64) {
        let until_ns = self.net.tables().now_ns() + ns;
        guard(&self.net, ZONE_INSIDE, self.server, until_ns);
    }

    /// Sends the SYN; what the client is to acknowledge.
    fn challenged(&mut self) -> u32 {
        let syn = self.syn();
        let others: &[_] = if self.net.tables().counters().contains_key(MISS.0) {
            &[HIT]
        } else {
            &[MISS]
        };
        let seen = challenged(self.net.receive(INSIDE, &syn), INSIDE, others);
        segment(&seen).seq.wrapping_add(1)
    }

    /// The client's acknowledgement of `expected` becomes a SYN.
    fn admitted(&mut self, expected: u32) {
        let ack = self.to_server(ACK, CLIENT.wrapping_add(1), expected).window(5000);
        let sent = self
            .net
            .receive(INSIDE, &ack)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, ACCEPTED])
            .between(self.own, self.server)
            .via(self.router);
        let mss = if self.is_v4() { 1460 } else { 1440 };
        let expected = Segment {
            options: mss_option(mss),
            ..bare(SYN, CLIENT, 0, 5000)
        };
        assert_eq!(segment(&sent.seen), expected);
    }

    /// The server's SYN+ACK is answered and becomes the client's window.
    fn answered(&mut self, expected: u32) {
        let frame = self
            .to_client(SYN | ACK, SERVER, CLIENT.wrapping_add(1))
            .tcp_options(&mss_option(1460))
            .window(6000)
            .ttl(57);
        let step = self.net.receive(OUTSIDE, &frame);
        let [(ifindex, copy)] = &step.outcome.copies[..] else {
            panic!("{:?}", step.outcome)
        };
        verify(copy);
        assert_eq!(*ifindex, OUTSIDE);
        assert_eq!(
            (&copy[..6], &copy[6..12]),
            (&[2, 0, 0, 0, 9, 9][..], &mac(OUTSIDE)[..])
        );
        let seen = Seen::read(copy);
        assert_eq!((seen.source, seen.destination), (ip(self.own), ip(self.server)));
        assert_eq!(
            (seen.word(0), seen.word(2)),
            (frame_ports(&frame).1, frame_ports(&frame).0)
        );
        let acknowledgement = bare(ACK, CLIENT.wrapping_add(1), SERVER.wrapping_add(1), 5000);
        assert_eq!(segment(&seen), acknowledgement);
        let update = step
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED])
            .between(self.server, self.client)
            .via(self.client);
        assert_eq!(
            segment(&update.seen),
            bare(ACK, expected, CLIENT.wrapping_add(1), 6000)
        );
    }

    fn open(&mut self) -> u32 {
        self.attack(SECOND);
        let expected = self.challenged();
        self.admitted(expected);
        self.answered(expected);
        expected
    }

    /// A frame of the client, as the server gets it.
    #[track_caller]
    fn out(&mut self, frame: &Frame, reason: Reason) -> Segment {
        let sent = self.net.receive(INSIDE, frame).forwarded(OUTSIDE, reason, &[]);
        segment(&sent.between(self.own, self.server).seen)
    }

    /// A frame of the server, as the client gets it.
    #[track_caller]
    fn back(&mut self, frame: &Frame, reason: Reason) -> Segment {
        let sent = self.net.receive(OUTSIDE, frame).forwarded(INSIDE, reason, &[]);
        segment(&sent.between(self.server, self.client).seen)
    }
}

fn frame_ports(frame: &Frame) -> (u16, u16) {
    let at = |at| u16::from_be_bytes([frame.header[at], frame.header[at + 1]]);
    (at(0), at(2))
}

/// SYNs from `zone` to `address` are challenged until then, and acknowledgements looked at for 58 s more.
pub fn guard(net: &Net, zone: u32, address: &str, until_ns: u64) {
    let address = ip(address);
    let key = ScreenKey {
        subject: ScreenKey::subject(
            Screen::SynFlood,
            zone as u8,
            if address.is_ipv4() { 4 } else { 6 },
        ),
        address_be: words(address),
    };
    let state = RateState {
        until_ns: until_ns.saturating_add(58 * SECOND),
        ..RateState::default()
    };
    net.tables().screen_rates.set(&key, &state);
}

/// Both families, with and without translation.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for ((client, server, router), outside) in FAMILIES.into_iter().zip(["198.51.100.1", "2001:db8:2::1"]) {
        for translate in [false, true] {
            let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
            if translate {
                net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
            }
            cases.push(Case {
                client,
                server,
                router,
                own: if translate { outside } else { client },
                net,
            });
        }
    }
    cases
}

/// Asserts that the frame went back where it came from, as a SYN+ACK; what it says.
#[track_caller]
fn challenged(step: Step, ifindex: u32, others: &[(&'static str, u64)]) -> Seen {
    let Step { outcome, before } = step;
    assert_eq!(outcome.verdict.reason, Reason::SynCookieSent, "{outcome:02x?}");
    assert_eq!(
        (outcome.verdict.action, outcome.out_ifindex),
        (Action::Redirect, ifindex)
    );
    let mut counters = outcome.delta.clone();
    assert_eq!(counters.remove(Reason::SynCookieSent.name()), Some(1));
    assert_eq!(counters, others.iter().copied().collect());
    let frame = &outcome.bytes;
    verify(frame);
    assert_eq!((&frame[..6], &frame[6..12]), (&before[6..12], &before[..6]));
    let (seen, asked) = (Seen::read(frame), Seen::read(&before));
    assert_eq!((seen.source, seen.destination), (asked.destination, asked.source));
    assert_eq!((seen.word(0), seen.word(2)), (asked.word(2), asked.word(0)));
    assert_eq!(seen.ttl, 64);
    let (answer, syn) = (segment(&seen), segment(&asked));
    assert_eq!(
        (answer.flags, answer.ack, answer.window, answer.options.len()),
        (SYN | ACK, syn.seq.wrapping_add(1), 0, 4)
    );
    assert!(answer.payload.is_empty());
    seen
}

#[test]
fn a_syn_is_answered_without_state() {
    for mut case in cases() {
        case.attack(SECOND);
        let plain = case.to_server(SYN, 7, 0).ttl(2);
        let frames = [
            plain.clone(),
            plain.clone().tcp_options(&[2, 4, 2, 0]),
            plain.clone().tcp_options(OPTIONS),
            plain.clone().tcp_options(&[1; 40]),
            plain.clone().tcp_options(&[0; 4]).payload(b"fast open data"),
        ];
        for (number, frame) in frames.iter().enumerate() {
            let others = if number == 0 { [MISS] } else { [HIT] };
            let _seen = challenged(case.net.receive(INSIDE, frame), INSIDE, &others);
        }
        // As the shortest frame of a wire, padded.
        let mut padded = plain.to(mac(INSIDE)).build();
        padded.resize(padded.len().max(60), 0xee);
        let _seen = challenged(case.net.receive_bytes(INSIDE, &padded), INSIDE, &[HIT]);
        assert_eq!(case.net.flows(), (0, 0));
        assert!(case.net.tables().take_events().is_empty());
    }
}

#[test]
fn the_segment_size_is_the_clients_and_fits_the_way() {
    for mut case in cases() {
        case.attack(SECOND);
        let kernels: [u16; 4] = if case.is_v4() {
            [536, 1300, 1440, 1460]
        } else {
            [1220, 1420, 1440, 1440]
        };
        let offered: [u16; 4] = [536, 1300, 1440, 9000];
        let v6: [u16; 4] = [1300, 1425, 1440, 9000];
        for (number, mss) in (if case.is_v4() { offered } else { v6 }).into_iter().enumerate() {
            let port = 50000 + number as u16;
            let syn = Frame::new(case.client, case.server)
                .tcp(port, 80, SYN, 77, 0)
                .tcp_options(&mss_option(mss));
            let others = if number == 0 { [MISS] } else { [HIT] };
            let answer = segment(&challenged(case.net.receive(INSIDE, &syn), INSIDE, &others));
            assert_eq!(answer.options, mss_option(kernels[number]), "offered {mss}");
            let ack = Frame::new(case.client, case.server).tcp(port, 80, ACK, 78, answer.seq.wrapping_add(1));
            let sent =
                case.net
                    .receive(INSIDE, &ack)
                    .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, ACCEPTED]);
            assert_eq!(
                segment(&sent.seen).options,
                mss_option(kernels[number]),
                "offered {mss}"
            );
        }
    }
    // Towards a narrower link the client may not send what it may receive.
    for (client, server, mss) in [
        ("10.1.0.2", "10.3.0.2", 1360),
        ("2001:db8:1::2", "2001:db8:3::2", 1340),
    ] {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_DMZ)]);
        guard(&net, ZONE_INSIDE, server, u64::MAX);
        let syn = Frame::new(client, server)
            .tcp(1, 80, SYN, 77, 0)
            .tcp_options(OPTIONS);
        let answer = segment(&challenged(net.receive(INSIDE, &syn), INSIDE, &[MISS]));
        assert_eq!(answer.options, mss_option(mss));
        let ack = Frame::new(client, server).tcp(1, 80, ACK, 78, answer.seq.wrapping_add(1));
        let sent = net
            .receive(INSIDE, &ack)
            .forwarded(DMZ, Reason::SessionCreated, &[HIT, ACCEPTED]);
        let remembered = if mss == 1360 { 1460 } else { 1440 };
        assert_eq!(segment(&sent.seen).options, mss_option(remembered));
    }
}

#[test]
fn only_what_policy_permits_to_that_destination_from_that_zone_is_challenged() {
    for mut case in cases() {
        case.attack(SECOND);
        let (other, back) = if case.is_v4() {
            ("192.0.2.81", "10.1.0.2")
        } else {
            ("2001:db8:80::81", "2001:db8:1::2")
        };
        case.net
            .receive(INSIDE, &Frame::new(case.client, other).tcp(1, 80, SYN, 1, 0))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        guard(&case.net, ZONE_OUTSIDE, back, u64::MAX);
        case.net
            .receive(OUTSIDE, &Frame::new(other, back).tcp(1, 80, SYN, 1, 0))
            .dropped(Reason::DefaultDeny, &[MISS]);
        // Another zone's attack, and another protocol.
        guard(&case.net, ZONE_DMZ, case.server, u64::MAX);
        case.net
            .receive(INSIDE, &Frame::new(case.client, case.server).udp(1, 80))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
        case.challenged();
        // Over.
        case.net.advance(SECOND);
        let syn = case.syn();
        let sent = case
            .net
            .receive(INSIDE, &syn)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
        assert_eq!(segment(&sent.seen).options, OPTIONS);
    }
}

#[test]
fn a_connection_completes_and_carries_data_both_ways() {
    for mut case in cases() {
        let expected = case.open();
        assert_eq!(case.net.flows(), (2, 0));
        let (mut client, mut server, mut known) = (CLIENT.wrapping_add(1), SERVER.wrapping_add(1), expected);
        for length in [1, 2, 1000, 1400, 7] {
            let payload = vec![length as u8; length as usize];
            let frame = case.to_server(ACK | PSH, client, known).payload(&payload);
            let got = case.out(&frame, Reason::Established);
            assert_eq!((got.flags, got.seq, got.ack), (ACK | PSH, client, server));
            assert_eq!(got.payload, payload);
            client = client.wrapping_add(length);
            let frame = case.to_client(ACK, server, client).payload(&payload).window(999);
            let got = case.back(&frame, Reason::Established);
            assert_eq!(
                (got.flags, got.seq, got.ack, got.window),
                (ACK, known, client, 999)
            );
            assert_eq!(got.payload, payload);
            (server, known) = (server.wrapping_add(length), known.wrapping_add(length));
        }
        // It ends as it began: by numbers of both sides.
        let frame = case.to_server(FIN | ACK, client, known);
        let got = case.out(&frame, Reason::Established);
        assert_eq!((got.flags, got.seq, got.ack), (FIN | ACK, client, server));
        let frame = case.to_client(FIN | ACK, server, client.wrapping_add(1));
        let got = case.back(&frame, Reason::Established);
        assert_eq!(
            (got.flags, got.seq, got.ack),
            (FIN | ACK, known, client.wrapping_add(1))
        );
        let frame = case.to_server(ACK, client.wrapping_add(1), known.wrapping_add(1));
        let got = case.out(&frame, Reason::Established);
        assert_eq!(
            (got.flags, got.seq, got.ack),
            (ACK, client.wrapping_add(1), server.wrapping_add(1))
        );
        // The tuple may be used again (after a while: its numbers begin no higher), and is challenged again.
        case.net.advance(60 * SECOND);
        case.attack(SECOND);
        case.challenged();
        assert_eq!(case.net.flows(), (0, 0));
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
            .receive(INSIDE, &case_ack(&case, expected))
            .dropped(Reason::DefaultDeny, &[MISS, ACCEPTED]);
        assert_eq!(case.net.flows(), (0, 0));
    }
}

fn case_ack(case: &Case, expected: u32) -> Frame {
    case.to_server(ACK, CLIENT.wrapping_add(1), expected)
}

#[test]
fn a_cookie_is_good_for_a_minute_and_as_long_after_the_attack() {
    for mut case in cases() {
        // The clock stands at ten seconds: a cookie of the first minute lives until the end of the second.
        case.attack(50 * SECOND);
        let expected = case.challenged();
        case.net.advance(99 * SECOND);
        let ack = case_ack(&case, expected);
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
        let ack = case_ack(&case, expected);
        case.net.receive(INSIDE, &ack).dropped(Reason::TcpNoSession, &[]);
    }
    for mut case in cases() {
        case.attack(300 * SECOND);
        let expected = case.challenged();
        case.net.advance(111 * SECOND);
        let ack = case_ack(&case, expected);
        case.net
            .receive(INSIDE, &ack)
            .dropped(Reason::TcpNoSession, &[REFUSED]);
    }
}

#[test]
fn headers_that_a_cookie_does_not_cover_end_in_a_reason_of_their_own() {
    for mut case in cases() {
        case.attack(SECOND);
        let with = |frame: Frame| {
            if frame.is_v4() {
                frame.options(&[1, 1, 1, 0])
            } else {
                frame.extension(60, &[0, 0, 1, 4, 0, 0, 0, 0])
            }
        };
        let syn = with(case.syn());
        case.net
            .receive(INSIDE, &syn)
            .dropped(Reason::SynCookieImpossible, &[MISS]);
        // Though a header could be read where it would stand without them.
        let disguised = with(case.to_server(SYN, 0x5000_0000, 0x5000_0000));
        case.net
            .receive(INSIDE, &disguised)
            .dropped(Reason::SynCookieImpossible, &[HIT]);
        let expected = case.challenged();
        let ack = with(case_ack(&case, expected));
        case.net
            .receive(INSIDE, &ack)
            .dropped(Reason::TcpNoSession, &[REFUSED]);
        case.admitted(expected);
        case.answered(expected);
        // Afterwards they are as welcome as ever.
        let data = with(case_ack(&case, expected).payload(b"data"));
        let sent = case
            .net
            .receive(INSIDE, &data)
            .forwarded(OUTSIDE, Reason::Established, &[]);
        verify(&sent.bytes);
    }
}

#[test]
fn errors_quote_the_numbers_that_their_receiver_knows() {
    for mut case in cases() {
        let expected = case.open();
        let (router, inside) = if case.is_v4() {
            ("198.51.100.77", "10.1.0.3")
        } else {
            ("2001:db8:2::77", "2001:db8:1::3")
        };
        let client = case
            .to_server(ACK, CLIENT.wrapping_add(1), expected)
            .payload(b"to the server");
        let sent = case
            .net
            .receive(INSIDE, &client)
            .forwarded(OUTSIDE, Reason::Established, &[]);
        let error = Frame::new(router, case.own).error(&sent.bytes, true);
        let got = case
            .net
            .receive(OUTSIDE, &error)
            .forwarded(INSIDE, Reason::RelatedIcmp, &[]);
        quotes(&got, &client);
        // And the server, about what it sent.
        let end = CLIENT.wrapping_add(1 + 13);
        let server = case
            .to_client(ACK, SERVER.wrapping_add(1), end)
            .payload(b"odd to client");
        let sent = case
            .net
            .receive(OUTSIDE, &server)
            .forwarded(INSIDE, Reason::Established, &[]);
        let to = case.server;
        for length in [14 + if case.is_v4() { 20 } else { 40 } + 8, sent.bytes.len()] {
            let error = Frame::new(inside, to).error(&sent.bytes[..length], true);
            let got = case
                .net
                .receive(INSIDE, &error)
                .forwarded(OUTSIDE, Reason::RelatedIcmp, &[]);
            quotes(&got, &server);
        }
    }
}

/// Asserts that the ICMP error quotes the start of what was sent, but for hop limit and header checksum.
#[track_caller]
fn quotes(error: &Sent, original: &Frame) {
    let mut quoted = error.seen.segment[8..].to_vec();
    verify::check(&quoted, true).unwrap();
    let mut expected = original.build()[14..].to_vec();
    expected.truncate(quoted.len());
    let volatile: &[usize] = if original.is_v4() { &[8, 10, 11] } else { &[7] };
    for at in volatile {
        (expected[*at], quoted[*at]) = (0, 0);
    }
    assert_eq!(quoted, expected);
}

#[test]
fn the_firewalls_own_services_are_left_to_the_kernels_cookies() {
    for (client, own) in [("10.1.0.2", "10.1.0.1"), ("2001:db8:1::2", "2001:db8:1::1")] {
        let mut net = Net::new(&[permit(ZONE_INSIDE, 0)]);
        guard(&net, ZONE_INSIDE, own, u64::MAX);
        net.receive(INSIDE, &Frame::new(client, own).tcp(1, 22, SYN, 1, 0))
            .handed_on(Reason::ToHost, &[MISS]);
    }
}

#[test]
fn xdp_leaves_the_handshake_and_proxied_sessions_to_tcx() {
    for mut case in cases() {
        let expected = case.open();
        let syn = Frame::new(case.client, case.server).tcp(9, 80, SYN, 1, 0);
        case.net.receive_xdp(INSIDE, &syn).next_hook();
        let data = case_ack(&case, expected).payload(b"data");
        case.net.receive_xdp(INSIDE, &data).next_hook();
    }
}

/// On a wire both ends keep their stations and hop limits; only what the cookie needs is changed.
#[test]
fn on_a_wire_the_frames_keep_their_stations() {
    for (client, server, _) in FAMILIES {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        net.splice(0);
        net.firewall.set_vlan(7);
        guard(&net, ZONE_INSIDE, server, u64::MAX);
        let next = CLIENT.wrapping_add(1);
        let up = |flags, seq, ack| {
            let frame = Frame::new(client, server).tcp(40000, 80, flags, seq, ack);
            frame.to(neighbour_mac(ip(server)))
        };
        let down = |flags, seq, ack| {
            let mut frame = Frame::new(server, client).tcp(80, 40000, flags, seq, ack);
            frame.source_mac = neighbour_mac(ip(server));
            frame.to([2, 0, 0, 0, 9, 9])
        };
        let syn = up(SYN, CLIENT, 0).tcp_options(OPTIONS).build();
        let answer = segment(&challenged(net.receive_bytes(INSIDE, &syn), INSIDE, &[MISS]));
        let expected = answer.seq.wrapping_add(1);
        let ack = up(ACK, next, expected).build();
        let step = net.receive_bytes(INSIDE, &ack);
        let opened = crossed(&step, OUTSIDE, Reason::SessionCreated);
        assert_eq!((opened.flags, opened.seq, opened.ack), (SYN, CLIENT, 0));
        let step = net.receive_bytes(OUTSIDE, &down(SYN | ACK, SERVER, next).build());
        let (ifindex, copy) = &step.outcome.copies[0];
        assert_eq!(*ifindex, OUTSIDE);
        assert_eq!(
            (&copy[..6], &copy[6..12]),
            (&step.before[6..12], &step.before[..6])
        );
        verify(copy);
        assert_eq!(
            segment(&Seen::read(copy)),
            bare(ACK, next, SERVER.wrapping_add(1), 8192)
        );
        let update = crossed(&step, INSIDE, Reason::Established);
        assert_eq!(update, bare(ACK, expected, next, 8192));
        let step = net.receive_bytes(INSIDE, &up(ACK, next, expected).payload(b"data").build());
        let data = crossed(&step, OUTSIDE, Reason::Established);
        assert_eq!(
            (data.seq, data.ack, data.payload.len()),
            (next, SERVER.wrapping_add(1), 4)
        );
        let original = down(ACK, SERVER.wrapping_add(1), next.wrapping_add(4))
            .payload(b"more")
            .build();
        let step = net.receive_bytes(OUTSIDE, &original);
        assert_eq!(crossed(&step, INSIDE, Reason::Established).seq, expected);
        // In fragments only the first has numbers to change.
        let in_parts = down(ACK, SERVER.wrapping_add(5), next.wrapping_add(4)).payload(&[7; 100]);
        let parts: Vec<Vec<u8>> = pieces(&in_parts.build(), &[0, 48, 80], 9)
            .iter()
            .map(|part| {
                let outcome = net.receive_bytes(OUTSIDE, part).outcome;
                assert_eq!(outcome.verdict.reason, Reason::Established, "{outcome:02x?}");
                outcome.bytes
            })
            .collect();
        let (whole, _) = reassemble(&parts);
        let data = segment(&Seen::read(&whole));
        assert_eq!((data.seq, data.payload), (expected.wrapping_add(4), vec![7; 100]));
        // An error about that quotes what the server sent.
        let error = Frame::new(client, server).to(neighbour_mac(ip(server)));
        let error = error.error(&step.outcome.bytes, true).build();
        let step = net.receive_bytes(INSIDE, &error);
        assert_eq!(step.outcome.verdict.reason, Reason::RelatedIcmp);
        verify(&step.outcome.bytes);
        assert_eq!(Seen::read(&step.outcome.bytes).segment[8..], original[14..]);
    }
}

/// Asserts that the frame crossed the wire with its stations and hop limit; what it says.
#[track_caller]
fn crossed(step: &Step, out: u32, reason: Reason) -> Segment {
    let outcome = &step.outcome;
    assert_eq!(outcome.verdict.reason, reason, "{outcome:02x?}");
    assert_eq!(
        (outcome.verdict.action, outcome.out_ifindex),
        (Action::Redirect, out)
    );
    verify(&outcome.bytes);
    assert_eq!(outcome.bytes[..12], step.before[..12]);
    let (now, then) = (Seen::read(&outcome.bytes), Seen::read(&step.before));
    assert_eq!(
        (now.source, now.destination, now.ttl),
        (then.source, then.destination, then.ttl)
    );
    segment(&now)
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

#[test]
fn an_error_about_the_syn_quotes_a_syn() {
    for mut case in cases() {
        case.attack(SECOND);
        let expected = case.challenged();
        let ack = case_ack(&case, expected);
        let sent =
            case.net
                .receive(INSIDE, &ack)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, ACCEPTED]);
        let router = if case.is_v4() {
            "198.51.100.77"
        } else {
            "2001:db8:2::77"
        };
        let error = Frame::new(router, case.own).error(&sent.bytes, false);
        let got = case
            .net
            .receive(OUTSIDE, &error)
            .forwarded(INSIDE, Reason::RelatedIcmp, &[]);
        let quoted = got.seen.segment[8..].to_vec();
        verify::check(&quoted, true).unwrap();
        let header = if case.is_v4() { 20 } else { 40 };
        assert_eq!(
            quoted[header + 4..header + 12],
            [0xff, 0xff, 0xff, 0xfe, 0, 0, 0, 0]
        );
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
fn a_configured_segment_size_holds_for_both_handshakes() {
    for mut case in cases() {
        case.net.settings(|settings| settings.tcp_mss = 1000);
        case.attack(SECOND);
        let syn = case.syn();
        let answer = segment(&challenged(case.net.receive(INSIDE, &syn), INSIDE, &[MISS]));
        assert_eq!(answer.options, mss_option(1000));
        let ack = case_ack(&case, answer.seq.wrapping_add(1));
        let sent =
            case.net
                .receive(INSIDE, &ack)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, ACCEPTED]);
        assert_eq!(segment(&sent.seen).options, mss_option(1000));
    }
}

/// The client talks to the address it knows; the server sees its own.
#[test]
fn a_published_server_is_answered_for_under_the_address_that_is_attacked() {
    for (client, known, server) in [
        ("192.0.2.80", "198.51.100.9", "10.3.0.2"),
        ("2001:db8:80::80", "2001:db8:2::9", "2001:db8:3::2"),
    ] {
        let mut net = Net::new(&[permit(ZONE_OUTSIDE, ZONE_DMZ)]);
        net.address_class(4, known, if ip(known).is_ipv4() { 32 } else { 128 });
        net.pool(
            3,
            &Pool {
                port: 8080,
                ..Pool::of(&[(server, 1)])
            },
        );
        net.nat(destination(ZONE_OUTSIDE).to(4).pool(3));
        guard(&net, ZONE_OUTSIDE, known, u64::MAX);
        let up = |flags, seq, ack| Frame::new(client, known).tcp(40_000, 443, flags, seq, ack);
        let down = |flags, seq, ack| Frame::new(server, client).tcp(8080, 40_000, flags, seq, ack);
        let next = CLIENT.wrapping_add(1);
        let others = [MISS];
        let answer = net.receive(OUTSIDE, &up(SYN, CLIENT, 0).tcp_options(OPTIONS));
        let answer = segment(&challenged(answer, OUTSIDE, &others));
        let expected = answer.seq.wrapping_add(1);
        let others = [HIT, ACCEPTED];
        let opened = net
            .receive(OUTSIDE, &up(ACK, next, expected))
            .forwarded(DMZ, Reason::SessionCreated, &others)
            .between(client, server);
        assert_eq!((opened.seen.word(0), opened.seen.word(2)), (40_000, 8080));
        let step = net.receive(DMZ, &down(SYN | ACK, SERVER, next));
        let copy = &step.outcome.copies[0].1;
        verify(copy);
        let seen = Seen::read(copy);
        assert_eq!((seen.source, seen.destination), (ip(client), ip(server)));
        assert_eq!((seen.word(0), seen.word(2)), (40_000, 8080));
        let update = step
            .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED])
            .between(known, client);
        assert_eq!((update.seen.word(0), update.seen.word(2)), (443, 40_000));
        assert_eq!(segment(&update.seen), bare(ACK, expected, next, 8192));
        let data = net
            .receive(OUTSIDE, &up(ACK, next, expected).payload(b"odd"))
            .forwarded(DMZ, Reason::Established, &[])
            .between(client, server);
        let got = segment(&data.seen);
        assert_eq!((got.seq, got.ack), (next, SERVER.wrapping_add(1)));
        let data = net
            .receive(
                DMZ,
                &down(ACK, SERVER.wrapping_add(1), next.wrapping_add(3)).payload(b"odd"),
            )
            .forwarded(OUTSIDE, Reason::Established, &[])
            .between(known, client);
        assert_eq!(segment(&data.seen).seq, expected);
    }
}
