//! ICMP errors about sessions: translated inside and out, all checksums right, never opening or ending anything.

use bulkhead_abi::Reason;
use bulkhead_pipeline::Table;

use crate::{
    FAMILIES,
    frame::{ACK, Frame, SYN, Seen, TCP},
    net::{ANY, DMZ, INSIDE, MISS, Net, OUTSIDE, SECOND, ZONE_DMZ, ZONE_INSIDE, ZONE_OUTSIDE, permit},
    verify,
};

fn outbound(translate: bool) -> Net {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    if translate {
        net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
    }
    net
}

/// Addresses per family: client, server, the firewall outside, an outside router, an inside router.
fn families() -> [(
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
); 2] {
    let [(client4, server4, _), (client6, server6, _)] = FAMILIES;
    [
        (client4, server4, "198.51.100.1", "198.51.100.77", "10.1.0.3"),
        (
            client6,
            server6,
            "2001:db8:2::1",
            "2001:db8:2::77",
            "2001:db8:1::3",
        ),
    ]
}

/// First packets of sessions of every protocol, with even and odd payloads.
fn openers(client: &str, server: &str) -> Vec<Frame> {
    let mut frames = vec![
        Frame::new(client, server)
            .tcp(40000, 80, SYN, 1000, 0)
            .tcp_options(&[2, 4, 5, 0xb4]),
        Frame::new(client, server).udp(5000, 53).payload(b"even"),
        Frame::new(client, server).udp(5001, 53).payload(b"odd"),
        Frame::new(client, server).echo(77, 1).payload(b"01234567"),
        Frame::new(client, server).protocol(47, b"no ports at all"),
    ];
    if !client.contains(':') {
        frames.push(
            Frame::new(client, server)
                .options(&[148, 4, 0, 0])
                .udp(5002, 53)
                .payload(b"options"),
        );
        let mut silent = Frame::new(client, server).udp(5003, 53).payload(b"no checksum");
        silent.no_checksum = true;
        frames.push(silent);
    }
    frames
}

#[test]
fn an_error_from_outside_reaches_the_sender_as_if_about_what_it_sent() {
    for (client, server, own, router, _) in families() {
        for translate in [false, true] {
            for opener in openers(client, server) {
                let mut net = outbound(translate);
                let sent = net
                    .receive(INSIDE, &opener)
                    .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
                let to = if translate { own } else { client };
                for from in [router, server] {
                    let error = Frame::new(from, to).error(&sent.bytes, true);
                    let back = net
                        .receive(OUTSIDE, &error)
                        .forwarded(INSIDE, Reason::RelatedIcmp, &[])
                        .between(from, client)
                        .via(client);
                    expect_quoted(&back.seen, &opener);
                }
                // The same, quoting as little as RFC 792 asks for.
                let quoted_l4 = sent.bytes.len() - Seen::read(&sent.bytes).segment.len();
                let short = Frame::new(router, to).error(&sent.bytes[..quoted_l4 + 8], false);
                net.receive(OUTSIDE, &short)
                    .forwarded(INSIDE, Reason::RelatedIcmp, &[])
                    .between(router, client);
                let entries = if translate || opener.protocol == TCP { 2 } else { 1 };
                assert_eq!(net.flows(), (0, entries));
            }
        }
    }
}

/// Asserts that the error quotes the packet as `original` was sent, but for the hop limit and the header checksum.
#[track_caller]
fn expect_quoted(error: &Seen, original: &Frame) {
    let quoted = &error.segment[8..];
    verify::check(quoted, true).unwrap();
    let sent = original.build();
    let mut expected = sent[14..].to_vec();
    let mut quoted = quoted.to_vec();
    let volatile: &[usize] = if original.is_v4() { &[8, 10, 11] } else { &[7] };
    for at in volatile {
        (expected[*at], quoted[*at]) = (0, 0);
    }
    assert_eq!(quoted, expected, "the quoted packet");
}

#[test]
fn an_error_from_inside_leaves_with_the_translated_address() {
    for (client, server, own, _, inside_router) in families() {
        for translate in [false, true] {
            let mut net = outbound(translate);
            let ask = Frame::new(client, server).udp(5000, 53).payload(b"question");
            net.receive(INSIDE, &ask)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
            let to = if translate { own } else { client };
            let answer = Frame::new(server, to).udp(53, 5000).payload(b"answer");
            let delivered = net
                .receive(OUTSIDE, &answer)
                .forwarded(INSIDE, Reason::Established, &[("sessions_established", 1)])
                .between(server, client);
            for from in [client, inside_router] {
                let error = Frame::new(from, server).error(&delivered.bytes, false);
                // A router's own address is as private as the host's.
                let seen_from = if translate { own } else { from };
                let out = net
                    .receive(INSIDE, &error)
                    .forwarded(OUTSIDE, Reason::RelatedIcmp, &[])
                    .between(seen_from, server);
                expect_quoted(&out.seen, &answer);
            }
            assert_eq!(net.flows(), (2, 0));
        }
    }
}

#[test]
fn an_error_about_nothing_is_dropped() {
    for (client, server, own, router, _) in families() {
        for translate in [false, true] {
            let mut net = outbound(translate);
            let opener = Frame::new(client, server).udp(5000, 53);
            let sent = net
                .receive(INSIDE, &opener)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
            let to = if translate { own } else { client };
            for quoted in [
                Frame::new(to, server).udp(5001, 53).build(),
                Frame::new(to, server).tcp(5000, 53, ACK, 1, 1).build(),
                // Errors about errors, and about messages that are neither question nor answer.
                Frame::new(to, server).error(&sent.bytes, false).build(),
                Frame::new(to, server)
                    .icmp(if own.contains(':') { 150 } else { 9 }, 0, [0; 4])
                    .build(),
            ] {
                let error = Frame::new(router, to).error(&quoted, false);
                net.receive(OUTSIDE, &error).dropped(Reason::IcmpNoSession, &[]);
            }
            // Sent to somebody else than the quoted packet's sender.
            let elsewhere = if own.contains(':') {
                "2001:db8:1::3"
            } else {
                "10.1.0.3"
            };
            let error = Frame::new(router, elsewhere).error(&sent.bytes, false);
            net.receive(OUTSIDE, &error).dropped(Reason::IcmpNoSession, &[]);
            // Cut off within the quoted header, or before its ports.
            let l4 = if own.contains(':') { 40 } else { 20 };
            for length in [0, 1, l4 - 1, l4, l4 + 3, l4 + 7] {
                let error = Frame::new(router, to).error(&sent.bytes[..14 + length], false);
                net.receive(OUTSIDE, &error).dropped(Reason::Truncated, &[]);
            }
            // From a zone the session does not touch.
            let error = Frame::new(router, to).error(&sent.bytes, false);
            net.receive(DMZ, &error).dropped(Reason::WrongZone, &[]);
            net.receive(OUTSIDE, &error.clone().ttl(1))
                .dropped(Reason::TtlExceeded, &[]);
            net.receive(OUTSIDE, &error)
                .forwarded(INSIDE, Reason::RelatedIcmp, &[]);
        }
    }
}

/// RFC 4787 REQ-12, RFC 5508 REQ-6: an error neither refreshes nor ends.
#[test]
fn an_error_neither_refreshes_nor_ends_a_session() {
    let mut net = outbound(true);
    let opener = Frame::new("10.1.0.2", "192.0.2.80").udp(5000, 53);
    let sent = net
        .receive(INSIDE, &opener)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.advance(29 * SECOND);
    let error = Frame::new("198.51.100.77", "198.51.100.1").error(&sent.bytes, false);
    net.receive(OUTSIDE, &error)
        .forwarded(INSIDE, Reason::RelatedIcmp, &[]);
    assert_eq!(net.flows(), (0, 2));
    net.advance(SECOND + 1);
    assert_eq!(net.age(), 1);
    net.receive(OUTSIDE, &error).dropped(Reason::IcmpNoSession, &[]);
}

/// Changes flags and fragment offset of an IPv4 frame, header checksum included.
fn refragment(frame: &mut [u8], field: [u8; 2]) {
    frame[20..22].copy_from_slice(&field);
    frame[24..26].fill(0);
    let sum = !verify::ones_complement(0, &frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
}

/// A fragment that is quoted has ports only if it is the first.
#[test]
fn a_quoted_later_fragment_belongs_to_nothing() {
    let mut net = outbound(false);
    // Quoted in part: the whole would have a checksum over what another fragment holds.
    let opener = Frame::new("10.1.0.2", "192.0.2.80")
        .udp(5000, 53)
        .payload(b"0123456789");
    let sent = net
        .receive(INSIDE, &opener)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    let mut quoted = sent.bytes[..42].to_vec();
    refragment(&mut quoted, [0, 1]);
    let error = Frame::new("198.51.100.77", "10.1.0.2").error(&quoted, false);
    net.receive(OUTSIDE, &error).dropped(Reason::IcmpNoSession, &[]);
    refragment(&mut quoted, [0x20, 0]);
    let error = Frame::new("198.51.100.77", "10.1.0.2").error(&quoted, false);
    net.receive(OUTSIDE, &error)
        .forwarded(INSIDE, Reason::RelatedIcmp, &[]);
}

#[test]
fn a_session_that_policy_ended_has_no_errors() {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ANY)]);
    let opener = Frame::new("10.1.0.2", "10.3.0.2").udp(5000, 53);
    let sent = net
        .receive(INSIDE, &opener)
        .forwarded(DMZ, Reason::SessionCreated, &[MISS]);
    net.commit(&[permit(ZONE_DMZ, ZONE_INSIDE)]);
    let error = Frame::new("10.3.0.2", "10.1.0.2").error(&sent.bytes, false);
    net.receive(DMZ, &error).dropped(Reason::PolicyChanged, &[MISS]);
}

/// RFC 5508 REQ-3a: a quoted header whose checksum is wrong is not what was sent.
#[test]
fn rfc5508_3a_a_quoted_ipv4_header_must_be_whole() {
    let mut net = outbound(true);
    let opener = Frame::new("10.1.0.2", "192.0.2.80").udp(5000, 53);
    let sent = net
        .receive(INSIDE, &opener)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    let mut damaged = sent.bytes.clone();
    damaged[14 + 1] ^= 1;
    let error = Frame::new("198.51.100.77", "198.51.100.1").error(&damaged, false);
    net.receive(OUTSIDE, &error)
        .dropped(Reason::IcmpQuoteInvalid, &[]);
}

/// RFC 5508 REQ-3b and REQ-5: IPv4 options in the quote are stepped over, and those of the error itself.
#[test]
fn rfc5508_5_options_outside_and_inside_are_stepped_over() {
    for length in [4usize, 12, 40] {
        let mut options = vec![148, 4, 0, 0];
        options.resize(length, 1);
        let mut net = outbound(true);
        let opener = Frame::new("10.1.0.2", "192.0.2.80")
            .options(&options)
            .udp(5000, 53)
            .payload(b"options");
        let sent = net
            .receive(INSIDE, &opener)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        let error = Frame::new("198.51.100.77", "198.51.100.1")
            .options(&options)
            .error(&sent.bytes, true);
        let back = net
            .receive(OUTSIDE, &error)
            .forwarded(INSIDE, Reason::RelatedIcmp, &[])
            .between("198.51.100.77", "10.1.0.2");
        expect_quoted(&back.seen, &opener);
    }
}

/// A chain of extension headers in front of what is quoted: hop-by-hop, destination options, fragment (the first).
#[test]
fn quoted_extension_headers_are_stepped_over() {
    let (client, server) = ("2001:db8:1::2", "2001:db8:80::80");
    let padding = [0, 0, 1, 4, 0, 0, 0, 0];
    for translate in [false, true] {
        for chain in [&[0][..], &[60], &[0, 60], &[60, 60], &[0, 60, 60]] {
            let mut net = outbound(translate);
            let mut opener = Frame::new(client, server)
                .udp(5000, 53)
                .payload(b"behind options");
            for number in chain {
                opener = opener.extension(*number, &padding);
            }
            let sent = net
                .receive(INSIDE, &opener)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
            let to = if translate { "2001:db8:2::1" } else { client };
            let error = Frame::new("2001:db8:2::77", to).error(&sent.bytes, true);
            let back = net
                .receive(OUTSIDE, &error)
                .forwarded(INSIDE, Reason::RelatedIcmp, &[])
                .between("2001:db8:2::77", client);
            expect_quoted(&back.seen, &opener);
        }
    }
}

/// The quoted packet may have been fragmented on its way: the first fragment has the ports, the others have none.
#[test]
fn quoted_fragment_headers_are_stepped_over() {
    let (client, server, router) = ("2001:db8:1::2", "2001:db8:80::80", "2001:db8:2::77");
    let mut net = outbound(false);
    let opener = Frame::new(client, server).udp(5000, 53).payload(b"01234567");
    net.receive(INSIDE, &opener)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    // Reserved bits are to be ignored (RFC 8200, 4.5); the second byte is one of them, not a length.
    for (field, belongs) in [
        ([0, 0], true),
        ([0, 1], true),
        ([0, 6], true),
        ([0, 8], false),
        ([0xff, 0xf9], false),
    ] {
        let fragment = opener
            .clone()
            .extension(44, &[0, 0xff, field[0], field[1], 0, 0, 0, 9])
            .build();
        // Quoted in part: the checksum is over what other fragments hold.
        let error = Frame::new(router, client).error(&fragment[..14 + 40 + 8 + 8], true);
        let step = net.receive(OUTSIDE, &error);
        if belongs {
            step.forwarded(INSIDE, Reason::RelatedIcmp, &[]);
        } else {
            step.dropped(Reason::IcmpNoSession, &[]);
        }
    }
    // Chains that were never forwarded, or are cut off.
    for chain in [
        vec![(43, vec![0; 8])],
        vec![(60, vec![0, 200, 0, 0, 0, 0, 0, 0])],
        vec![(60, vec![0; 8]); 10],
    ] {
        let mut quoted = opener.clone();
        for (number, body) in &chain {
            quoted = quoted.extension(*number, body);
        }
        let error = Frame::new(router, client).error(&quoted.build(), true);
        net.receive(OUTSIDE, &error).dropped(Reason::IcmpNoSession, &[]);
    }
    let cut = opener.clone().extension(60, &[0; 8]).build();
    for length in [40, 41, 47, 48, 55] {
        let error = Frame::new(router, client).error(&cut[..14 + length], true);
        let outcome = net.receive(OUTSIDE, &error).outcome;
        assert!(
            matches!(outcome.verdict.reason, Reason::IcmpNoSession | Reason::Truncated),
            "{length}: {:?}",
            outcome.verdict
        );
    }
}

/// RFC 5927, 4.1: an error about a segment that was never sent, or is long acknowledged, is a guess.
#[test]
fn rfc5927_4_an_error_about_a_segment_that_was_not_sent_is_dropped() {
    for (client, server, own, router, inside_router) in families() {
        for translate in [false, true] {
            let mut net = outbound(translate);
            let to = if translate { own } else { client };
            let out = |flags, seq, ack| Frame::new(client, server).tcp(40000, 80, flags, seq, ack);
            let seen = |seq| Frame::new(to, server).tcp(40000, 80, ACK, seq, 9001).build();
            net.receive(INSIDE, &out(SYN, 1000, 0))
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
            // A port that nobody listens on.
            let error = |quoted: &[u8]| Frame::new(router, to).error(quoted, true);
            let refused = error(&Frame::new(to, server).tcp(40000, 80, SYN, 1000, 0).build());
            net.receive(OUTSIDE, &refused)
                .forwarded(INSIDE, Reason::RelatedIcmp, &[]);
            let guessed = error(&Frame::new(to, server).tcp(40000, 80, SYN, 5000, 0).build());
            net.receive(OUTSIDE, &guessed)
                .dropped(Reason::IcmpQuoteOutOfWindow, &[]);
            net.receive(
                OUTSIDE,
                &Frame::new(server, to).tcp(80, 40000, SYN | ACK, 9000, 1001),
            )
            .forwarded(INSIDE, Reason::HalfOpen, &[]);
            net.receive(INSIDE, &out(ACK, 1001, 9001)).forwarded(
                OUTSIDE,
                Reason::Established,
                &[("sessions_established", 1)],
            );
            net.receive(INSIDE, &out(ACK, 1001, 9001).payload(&[1; 1000]))
                .forwarded(OUTSIDE, Reason::Established, &[]);
            for (seq, belongs) in [
                (1001, true),
                (2000, true),
                (2001, true),
                (2002, false),
                (0x8000_0000, false),
                (2001u32.wrapping_sub(65_537), true),
                (2001u32.wrapping_sub(65_538), false),
            ] {
                let step = net.receive(OUTSIDE, &error(&seen(seq)));
                if belongs {
                    step.forwarded(INSIDE, Reason::RelatedIcmp, &[]);
                } else {
                    step.dropped(Reason::IcmpQuoteOutOfWindow, &[]);
                }
            }
            // The same about the answers.
            for (seq, reason) in [(9000, Reason::RelatedIcmp), (9002, Reason::IcmpQuoteOutOfWindow)] {
                let quoted = Frame::new(server, client).tcp(80, 40000, ACK, seq, 1001).build();
                let error = Frame::new(inside_router, server).error(&quoted, true);
                let outcome = net.receive(INSIDE, &error).outcome;
                assert_eq!(outcome.verdict.reason, reason);
            }
            // Who tolerates anything tolerates this.
            net.settings(|settings| settings.tcp_rules = bulkhead_abi::tcp_rules::LIBERAL);
            net.receive(OUTSIDE, &error(&seen(0x8000_0000)))
                .forwarded(INSIDE, Reason::RelatedIcmp, &[]);
        }
    }
}

/// RFC 4787 REQ-12, RFC 5508 REQ-6: whatever an error says of a connection, believed or not, nothing about it changes.
#[test]
fn rfc5508_6_errors_leave_no_trace_in_a_connection() {
    for (client, server, own, router, _) in families() {
        let mut net = outbound(true);
        net.receive(INSIDE, &Frame::new(client, server).tcp(40000, 80, SYN, 1000, 0))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.receive(
            OUTSIDE,
            &Frame::new(server, own).tcp(80, 40000, SYN | ACK, 9000, 1001),
        )
        .forwarded(INSIDE, Reason::HalfOpen, &[]);
        let ack = Frame::new(client, server).tcp(40000, 80, ACK, 1001, 9001);
        net.receive(INSIDE, &ack)
            .forwarded(OUTSIDE, Reason::Established, &[("sessions_established", 1)]);
        let family = if client.contains(':') { 6 } else { 4 };
        let entries = |net: &Net| net.tables().flows(Table::Established, family).entries();
        let before = entries(&net);
        net.advance(SECOND);
        let quoted = Frame::new(own, server).tcp(40000, 80, ACK, 1001, 9001).build();
        let kinds: &[(u8, u8)] = if family == 4 {
            &[(3, 1), (3, 3), (3, 4), (3, 13), (11, 0), (12, 0)]
        } else {
            &[(1, 0), (1, 4), (2, 0), (3, 0), (4, 1)]
        };
        for (kind, code) in kinds {
            let error = Frame::new(router, own)
                .icmp(*kind, *code, [0, 0, 5, 0])
                .payload(&quoted[14..]);
            let sent = net
                .receive(OUTSIDE, &error)
                .forwarded(INSIDE, Reason::RelatedIcmp, &[])
                .between(router, client);
            // RFC 5508 REQ-4: type and code are kept.
            assert_eq!(sent.seen.segment[..2], [*kind, *code]);
        }
        assert_eq!(entries(&net), before);
    }
}

/// The protocols whose ports are quoted like UDP's.
#[test]
fn errors_about_other_protocols_find_their_sessions_by_ports() {
    for (client, server, own, router, _) in families() {
        for translate in [false, true] {
            for number in 0..3 {
                let frame = |from, to, a, b| {
                    let frame = Frame::new(from, to);
                    match number {
                        0 => frame.sctp(a, b),
                        1 => frame.dccp(a, b),
                        _ => frame.udp_lite(a, b, 8),
                    }
                };
                let mut net = outbound(translate);
                let opener = frame(client, server, 40_000, 5_000);
                let sent = net
                    .receive(INSIDE, &opener)
                    .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
                let to = if translate { own } else { client };
                let error = Frame::new(router, to).error(&sent.bytes, false);
                let back = net
                    .receive(OUTSIDE, &error)
                    .forwarded(INSIDE, Reason::RelatedIcmp, &[])
                    .between(router, client);
                expect_quoted(&back.seen, &opener);
                let other = frame(to, server, 40_001, 5_000).build();
                net.receive(OUTSIDE, &Frame::new(router, to).error(&other, false))
                    .dropped(Reason::IcmpNoSession, &[]);
            }
        }
    }
}
