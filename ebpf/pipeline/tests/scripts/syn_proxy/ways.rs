//! The other ways a packet may take: errors about it, XDP, wires, translation of the server, the firewall itself; headers
//! that a cookie does not cover.

use bulkhead_abi::Reason;
use bulkhead_pipeline::Action;

use super::{
    ACCEPTED, CLIENT, ESTABLISHED, HIT, OPTIONS, REFUSED, SERVER, Segment, bare, cases, challenged, guard,
    segment,
};
use crate::{
    FAMILIES,
    fragments::{pieces, reassemble},
    frame::{ACK, Frame, SYN, Seen, ip},
    net::{
        DMZ, INSIDE, MISS, Net, OUTSIDE, SECOND, ZONE_DMZ, ZONE_INSIDE, ZONE_OUTSIDE, neighbour_mac, permit,
    },
    step::{Sent, Step},
    translation::{Pool, destination},
    verify::{self, verify},
};

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
        let ack = with(case.proof(expected));
        case.net
            .receive(INSIDE, &ack)
            .dropped(Reason::TcpNoSession, &[REFUSED]);
        case.admitted(expected);
        case.answered(expected);
        // Afterwards they are as welcome as ever.
        let data = with(case.proof(expected).payload(b"data"));
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
fn an_error_about_the_syn_quotes_a_syn() {
    for mut case in cases() {
        case.attack(SECOND);
        let expected = case.challenged();
        let ack = case.proof(expected);
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
        let data = case.proof(expected).payload(b"data");
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
