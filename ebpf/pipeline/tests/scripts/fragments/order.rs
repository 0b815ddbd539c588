//! Whole datagrams in fragments: any order, any protocol, both ways, through translation; and what is told of them.

use bulkhead_abi::Reason;

use super::{OUTER, cut, orders, outbound, reassemble, send};
use crate::{
    FAMILIES,
    frame::{ACK, FIN, Frame, SYN, Seen},
    net::{INSIDE, MISS, Net, OUTSIDE, SELF, ZONE_INSIDE, permit},
    verify::verify,
};

/// What a client asks, of each protocol with something to translate.
fn questions(client: &str, server: &str, port: u16) -> [Frame; 3] {
    let payload: Vec<u8> = (0..217u8).collect();
    [
        Frame::new(client, server).udp(port, 53).payload(&payload),
        Frame::new(client, server).echo(port, 1).payload(&payload),
        Frame::new(client, server).protocol(47, &payload),
    ]
}

#[test]
fn rfc4787_14_fragments_pass_in_any_order() {
    for ((client, server, _), outer) in FAMILIES.into_iter().zip(OUTER) {
        for translate in [false, true] {
            for count in 2..=5 {
                for (number, order) in orders(count).into_iter().enumerate() {
                    let mut net = outbound(translate);
                    let offsets: Vec<usize> = (0..count).map(|number| number * 40).collect();
                    for question in questions(client, server, 5000) {
                        let fragments = cut(&question, &offsets, 0x1_2345 + number as u32);
                        let (sent, held) = send(&mut net, INSIDE, OUTSIDE, &fragments, &order);
                        assert_eq!(held, order.iter().position(|first| *first == 0).unwrap());
                        let (whole, _) = reassemble(&sent);
                        let (seen, asked) = (Seen::read(&whole), Seen::read(&question.build()));
                        let source = if translate { outer } else { client };
                        assert_eq!(seen.source.to_string(), source);
                        assert_eq!(seen.destination, asked.destination);
                        assert_eq!(seen.ttl, 63);
                        assert_eq!(seen.segment[8..], asked.segment[8..], "the payload");
                        // All of it has been seen: nothing is remembered.
                        assert!(net.tables().fragments.entries().is_empty());
                    }
                }
            }
        }
    }
}

#[test]
fn answers_in_fragments_find_back_through_translation() {
    for ((client, server, _), outer) in FAMILIES.into_iter().zip(OUTER) {
        for order in orders(3) {
            let mut net = outbound(true);
            net.receive(INSIDE, &Frame::new(client, server).udp(5000, 53).payload(b"?"))
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
            let answer = Frame::new(server, outer).udp(53, 5000).payload(&[7; 200]);
            let (sent, _) = send(&mut net, OUTSIDE, INSIDE, &cut(&answer, &[0, 80, 160], 9), &order);
            let seen = Seen::read(&reassemble(&sent).0);
            assert_eq!(
                (seen.source.to_string(), seen.destination.to_string()),
                (server.into(), client.into())
            );
            assert_eq!(seen.segment[8..], [7; 200]);
            // Both sides have spoken, and whole packets go the short way.
            net.receive(INSIDE, &Frame::new(client, server).udp(5000, 53))
                .forwarded(OUTSIDE, Reason::Established, &[]);
        }
    }
}

#[test]
fn counters_tell_each_fragment_once() {
    let mut net = outbound(false);
    let fragments = cut(
        &Frame::new("10.1.0.2", "192.0.2.80").udp(1, 2).payload(&[1; 40]),
        &[0, 16, 32],
        1,
    );
    let late = net.receive_bytes(INSIDE, &fragments[2]).held();
    assert_eq!((late.ifindex, late.argument), (INSIDE, 0));
    net.receive_bytes(INSIDE, &fragments[0])
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.put_back(INSIDE, &late.frame)
        .forwarded(OUTSIDE, Reason::HalfOpen, &[("frames_injected", 1)]);
    net.receive_bytes(INSIDE, &fragments[1])
        .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
}

#[test]
fn rfc6864_fragments_that_share_an_address_have_different_identifications() {
    for ((client, server, _), other) in FAMILIES.into_iter().zip(["10.1.0.3", "2001:db8:1::3"]) {
        let mut net = outbound(true);
        let mut ids = std::collections::BTreeSet::new();
        // Two senders that use the same numbers at the same time, their fragments mixed.
        for id in [7, 7 + 0x1_0000, 8] {
            let [a, b] = [client, other].map(|sender| {
                cut(
                    &Frame::new(sender, server).udp(5000, 53).payload(&[1; 40]),
                    &[0, 16, 32],
                    id,
                )
            });
            let mut sent: [Vec<Vec<u8>>; 2] = Default::default();
            for number in 0..3 {
                for (sender, fragments) in [&a, &b].into_iter().enumerate() {
                    let (part, _) = send(&mut net, INSIDE, OUTSIDE, &fragments[number..=number], &[0]);
                    sent[sender].extend(part);
                }
            }
            for fragments in sent {
                assert!(
                    ids.insert(reassemble(&fragments).1),
                    "an identification twice: {ids:?}"
                );
            }
        }
        // Nobody else's: it stays.
        let mut net = outbound(false);
        let fragments = cut(
            &Frame::new(client, server).udp(5000, 53).payload(&[1; 40]),
            &[0, 16],
            77,
        );
        assert_eq!(
            reassemble(&send(&mut net, INSIDE, OUTSIDE, &fragments, &[0, 1]).0).1,
            77
        );
    }
}

#[test]
fn tcp_in_fragments_keeps_the_windows_edges() {
    for (client, server, _) in FAMILIES {
        let mut net = outbound(true);
        let own = OUTER[usize::from(client.contains(':'))];
        let from = |flags, seq, ack| Frame::new(client, server).tcp(40_000, 80, flags, seq, ack);
        let back = |flags, seq, ack| Frame::new(server, own).tcp(80, 40_000, flags, seq, ack);
        net.receive(INSIDE, &from(SYN, 1000, 0))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.receive(OUTSIDE, &back(SYN | ACK, 9000, 1001))
            .forwarded(INSIDE, Reason::HalfOpen, &[]);
        net.receive(INSIDE, &from(ACK, 1001, 9001)).forwarded(
            OUTSIDE,
            Reason::Established,
            &[("sessions_established", 1)],
        );
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let mut net = outbound(true);
            net.receive(INSIDE, &from(SYN, 1000, 0))
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
            net.receive(OUTSIDE, &back(SYN | ACK, 9000, 1001))
                .forwarded(INSIDE, Reason::HalfOpen, &[]);
            net.receive(INSIDE, &from(ACK, 1001, 9001)).forwarded(
                OUTSIDE,
                Reason::Established,
                &[("sessions_established", 1)],
            );
            let segment = from(ACK | FIN, 1001, 9001).payload(&[1; 120]);
            let (sent, _) = send(&mut net, INSIDE, OUTSIDE, &cut(&segment, &[0, 40, 80], 1), &order);
            reassemble(&sent);
            // 120 bytes and a FIN.
            let family = if client.contains(':') { 6 } else { 4 };
            let flows = net
                .tables()
                .flows(bulkhead_pipeline::Table::Established, family)
                .entries();
            let (_, flow) = flows
                .into_iter()
                .find(|(key, _)| key.source_port == 40_000)
                .unwrap();
            assert_eq!(flow.tcp_end, 1001 + 120 + 1, "{order:?}");
            net.receive(OUTSIDE, &back(ACK, 9001, 1122))
                .forwarded(INSIDE, Reason::Established, &[]);
        }
    }
}

#[test]
fn errors_about_fragments_find_their_session() {
    for ((client, server, _), outer) in FAMILIES.into_iter().zip(OUTER) {
        for (router, translate) in [("198.51.100.77", false), ("198.51.100.77", true)] {
            let router = if client.contains(':') {
                "2001:db8:2::77"
            } else {
                router
            };
            let own = if translate { outer } else { client };
            let mut net = outbound(translate);
            let fragments = cut(
                &Frame::new(client, server).udp(5000, 53).payload(&[1; 80]),
                &[0, 40],
                1,
            );
            let (sent, _) = send(&mut net, INSIDE, OUTSIDE, &fragments, &[0, 1]);
            let error = Frame::new(router, own).error(&sent[0], true);
            let told = net
                .receive(OUTSIDE, &error)
                .forwarded(INSIDE, Reason::RelatedIcmp, &[])
                .between(router, client);
            // It quotes the sender's own ports.
            let quoted = &told.seen.segment[8..];
            let ports = if client.contains(':') { 48 } else { 20 };
            assert_eq!(
                quoted[ports..ports + 4],
                [5000u16.to_be_bytes(), 53u16.to_be_bytes()].concat()
            );
            // A later fragment has none.
            net.receive(OUTSIDE, &Frame::new(router, own).error(&sent[1], true))
                .dropped(Reason::IcmpNoSession, &[]);
        }
    }
}

#[test]
fn atomic_fragments_are_whole_packets() {
    // RFC 6946: a fragment header that says "all of it".
    let (client, server, _) = FAMILIES[1];
    for translate in [false, true] {
        let mut net = outbound(translate);
        let atomic = |frame: Frame| frame.extension(44, &[0, 0, 0, 0, 0, 0, 0, 7]);
        let ask = atomic(Frame::new(client, server).udp(5000, 53).payload(b"?"));
        let own = if translate { OUTER[1] } else { client };
        for _ in 0..2 {
            let sent = net.receive(INSIDE, &ask).outcome;
            verify(&sent.bytes);
            // The identification says nothing where there is nothing to put together.
            assert_eq!(sent.bytes[58..62], [0, 0, 0, 7]);
        }
        let answer = atomic(Frame::new(server, own).udp(53, 5000).payload(b"!"));
        net.receive(OUTSIDE, &answer)
            .forwarded(INSIDE, Reason::Established, &[("sessions_established", 1)]);
        net.receive(OUTSIDE, &answer)
            .forwarded(INSIDE, Reason::Established, &[]);
        assert!(net.tables().fragments.entries().is_empty());
    }
}

#[test]
fn fragments_to_the_firewall_itself() {
    for (own, host) in [("10.1.0.1", "10.1.0.2"), ("2001:db8:1::1", "2001:db8:1::2")] {
        let mut net = Net::new(&[permit(ZONE_INSIDE, SELF)]);
        let fragments = cut(
            &Frame::new(host, own).echo(1, 1).payload(&[1; 120]),
            &[0, 40, 80],
            1,
        );
        let late = net.receive_bytes(INSIDE, &fragments[2]).held();
        net.receive_bytes(INSIDE, &fragments[0])
            .handed_on(Reason::ToHost, &[MISS]);
        net.receive_bytes(INSIDE, &fragments[1])
            .handed_on(Reason::ToHost, &[]);
        net.put_back(INSIDE, &late.frame)
            .handed_on(Reason::ToHost, &[("frames_injected", 1)]);
        // The answer, in fragments too, leaves; only its first is looked at.
        let mut answer = cut(
            &Frame::new(own, host).echo_reply(1, 1).payload(&[1; 120]),
            &[0, 40, 80],
            2,
        );
        for frame in &mut answer {
            let outcome = net.firewall.host_egress(INSIDE, frame, 0, false);
            assert_eq!(outcome.verdict.reason, Reason::FromHost);
        }
        assert_eq!(net.flows(), (2, 0));
    }
    // Multicast has no session.
    let mut net = Net::new(&[permit(ZONE_INSIDE, SELF)]);
    let group = Frame::new("10.1.0.2", "224.0.0.9")
        .udp(520, 520)
        .payload(&[1; 120]);
    let mut fragments = cut(&group, &[0, 40, 80], 1);
    for frame in &mut fragments {
        frame[..6].copy_from_slice(&[1, 0, 0x5e, 0, 0, 9]);
    }
    let late = net.receive_bytes(INSIDE, &fragments[2]).held();
    net.receive_bytes(INSIDE, &fragments[0])
        .handed_on(Reason::ToHost, &[MISS]);
    net.receive_bytes(INSIDE, &fragments[1])
        .handed_on(Reason::ToHost, &[]);
    net.put_back(INSIDE, &late.frame)
        .handed_on(Reason::ToHost, &[("frames_injected", 1)]);
}
