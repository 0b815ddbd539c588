//! Fragments: in any order, through policy and translation, each by the ports of the first; and what is no fragment of
//! anything that may pass. User space's part, to hold what comes too early, is played here.

use bulkhead_abi::{FrameKind, Reason, datagram_flags};
use bulkhead_pipeline::Action;

use crate::{
    FAMILIES,
    frame::{ACK, FIN, Frame, SYN, Seen, TCP, UDP},
    net::{
        ANY, DMZ, HIT, INSIDE, MISS, Net, OUTSIDE, SECOND, SELF, ZONE_DMZ, ZONE_INSIDE, ZONE_OUTSIDE, deny,
        mac, permit, reject,
    },
    verify::{ones_complement, verify},
};

/// The firewall's outside address, per family.
const OUTER: [&str; 2] = ["198.51.100.1", "2001:db8:2::1"];

fn outbound(translate: bool) -> Net {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    if translate {
        net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
    }
    net
}

/// Cuts a packet without options or extensions into fragments that begin at these offsets, the first of which is 0.
pub fn cut(frame: &Frame, offsets: &[usize], id: u32) -> Vec<Vec<u8>> {
    let whole = frame.clone().to(mac(INSIDE)).build();
    let v4 = frame.is_v4();
    let header = if v4 { 34 } else { 54 };
    let body = &whole[header..];
    let pieces = offsets.iter().enumerate().map(|(number, from)| {
        let to = offsets.get(number + 1).copied().unwrap_or(body.len());
        let more = number + 1 != offsets.len();
        fragment(&whole[..header], &body[*from..to], *from as u16, more, id)
    });
    pieces.collect()
}

/// One fragment: the frame's headers, its bytes, where they stand.
fn fragment(headers: &[u8], bytes: &[u8], offset: u16, more: bool, id: u32) -> Vec<u8> {
    let mut frame = headers.to_vec();
    if headers[12] == 8 {
        frame[16..18].copy_from_slice(&((20 + bytes.len()) as u16).to_be_bytes());
        frame[18..20].copy_from_slice(&(id as u16).to_be_bytes());
        frame[20..22].copy_from_slice(&((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
        frame[24..26].fill(0);
        let sum = !ones_complement(0, &frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        frame[18..20].copy_from_slice(&((8 + bytes.len()) as u16).to_be_bytes());
        let next = std::mem::replace(&mut frame[20], 44);
        frame.extend([next, 0]);
        frame.extend((offset | u16::from(more)).to_be_bytes());
        frame.extend(id.to_be_bytes());
    }
    frame.extend(bytes);
    frame
}

/// Identification, offset, whether more follow, and the bytes of a fragment.
fn read(frame: &[u8]) -> (u32, usize, bool, &[u8]) {
    let word = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    if frame[12] == 8 {
        let (field, end) = (word(20), 14 + usize::from(word(16)));
        let offset = usize::from(field & 0x1fff) * 8;
        (word(18).into(), offset, field & 0x2000 != 0, &frame[34..end])
    } else {
        assert_eq!(frame[20], 44, "a fragment header");
        let field = word(56);
        let id = u32::from(word(58)) << 16 | u32::from(word(60));
        (id, usize::from(field & 0xfff8), field & 1 != 0, &frame[62..])
    }
}

/// Puts a datagram together as its receiver does: all of one identification, without gaps or overlaps. Returns the whole
/// frame, whose checksums are verified, and the identification.
#[track_caller]
fn reassemble(fragments: &[Vec<u8>]) -> (Vec<u8>, u32) {
    let mut pieces: Vec<_> = fragments.iter().map(|frame| read(frame)).collect();
    pieces.sort_by_key(|(_, offset, ..)| *offset);
    let id = pieces[0].0;
    let mut body: Vec<u8> = Vec::new();
    let last = pieces.len() - 1;
    for (number, (its, offset, more, bytes)) in pieces.into_iter().enumerate() {
        assert_eq!((its, offset, more), (id, body.len(), number != last));
        body.extend(bytes);
    }
    let mut whole;
    if fragments[0][12] == 8 {
        whole = fragments[0][..34].to_vec();
        whole[16..18].copy_from_slice(&((20 + body.len()) as u16).to_be_bytes());
        whole[20..22].fill(0);
        whole[24..26].fill(0);
        let sum = !ones_complement(0, &whole[14..34]);
        whole[24..26].copy_from_slice(&sum.to_be_bytes());
    } else {
        whole = fragments[0][..54].to_vec();
        whole[18..20].copy_from_slice(&(body.len() as u16).to_be_bytes());
        whole[20] = fragments[0][54];
    }
    whole.extend(body);
    verify(&whole);
    (whole, id)
}

/// Sends fragments in this order, holding and putting back what comes before the first, as user space does. Returns what
/// was forwarded to `out`, and how many were held.
#[track_caller]
fn send(net: &mut Net, from: u32, out: u32, fragments: &[Vec<u8>], order: &[usize]) -> (Vec<Vec<u8>>, usize) {
    let (mut sent, mut waiting, mut held) = (Vec::new(), Vec::new(), 0);
    for number in order {
        let mut frame = fragments[*number].clone();
        frame[..6].copy_from_slice(&mac(from));
        let step = net.receive_bytes(from, &frame);
        if step.outcome.verdict.action == Action::Held {
            assert!(sent.is_empty(), "held though the first went by");
            waiting.push(step.held().frame);
            held += 1;
            continue;
        }
        sent.push(step.forwarded_in_part(out));
        for frame in std::mem::take(&mut waiting) {
            sent.push(net.put_back(from, &frame).forwarded_in_part(out));
        }
    }
    assert!(waiting.is_empty(), "the first never came");
    (sent, held)
}

/// Every order of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for shorter in orders(count - 1) {
        for at in 0..count {
            let mut order = shorter.clone();
            order.insert(at, count - 1);
            all.push(order);
        }
    }
    all
}

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
fn overlaps_end_the_datagram() {
    for (client, server, _) in FAMILIES {
        let question = Frame::new(client, server).udp(5000, 53).payload(&[1; 120]);
        let fragments = cut(&question, &[0, 40, 80], 1);
        let headers = question.clone().to(mac(INSIDE)).build();
        let headers = &headers[..if question.is_v4() { 34 } else { 54 }];
        let part = |offset, length, more| fragment(headers, &vec![2; length], offset, more, 1);
        for (name, overlapping) in [
            ("a copy", fragments[1].clone()),
            ("into the first", part(32, 16, true)),
            ("inside the first", part(16, 8, true)),
            ("around what was seen", part(24, 80, true)),
            ("into what was seen", part(72, 16, true)),
            ("an end before what was seen", part(48, 8, false)),
            ("an end where more was seen", part(24, 56, false)),
        ] {
            let mut net = outbound(true);
            send(&mut net, INSIDE, OUTSIDE, &fragments, &[0, 1]);
            println!("{name}");
            net.receive_bytes(INSIDE, &overlapping)
                .dropped(Reason::FragmentOverlap, &[]);
            // The rest shares its fate, the first again too.
            net.receive_bytes(INSIDE, &fragments[2])
                .dropped(Reason::FragmentOverlap, &[]);
            net.receive_bytes(INSIDE, &fragments[0])
                .dropped(Reason::FragmentOverlap, &[]);
        }
        // With the end known: behind it, and another end.
        for late in [part(88, 8, false), part(128, 8, true), part(128, 8, false)] {
            let mut net = outbound(true);
            send(&mut net, INSIDE, OUTSIDE, &fragments, &[0, 2]);
            net.receive_bytes(INSIDE, &late)
                .dropped(Reason::FragmentOverlap, &[]);
        }
        // A second first.
        let mut net = outbound(true);
        send(&mut net, INSIDE, OUTSIDE, &fragments, &[0]);
        net.receive_bytes(INSIDE, &fragments[0])
            .dropped(Reason::FragmentOverlap, &[]);
        net.receive_bytes(INSIDE, &fragments[1])
            .dropped(Reason::FragmentOverlap, &[]);
    }
}

#[test]
fn more_than_eight_gaps_end_the_datagram() {
    for (client, server, _) in FAMILIES {
        let question = Frame::new(client, server).udp(5000, 53).payload(&[1; 232]);
        let offsets: Vec<usize> = (0..30).map(|number| number * 8).collect();
        let fragments = cut(&question, &offsets, 1);
        // The first and seven others with gaps between them are eight stretches.
        let mut net = outbound(false);
        let scattered: Vec<usize> = (0..8).map(|number| number * 2).collect();
        send(&mut net, INSIDE, OUTSIDE, &fragments, &scattered);
        net.receive_bytes(INSIDE, &fragments[16])
            .dropped(Reason::FragmentLimit, &[]);
        net.receive_bytes(INSIDE, &fragments[1])
            .dropped(Reason::FragmentLimit, &[]);
        // One of the gaps closed first, and there is room again; from either side, and between two stretches.
        for closing in [1, 15] {
            let mut net = outbound(false);
            send(&mut net, INSIDE, OUTSIDE, &fragments, &scattered);
            send(&mut net, INSIDE, OUTSIDE, &fragments, &[0; 0]);
            net.receive_bytes(INSIDE, &fragments[closing])
                .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
            let room = net.receive_bytes(INSIDE, &fragments[17]);
            if closing == 1 {
                room.forwarded(OUTSIDE, Reason::HalfOpen, &[]);
            } else {
                room.dropped(Reason::FragmentLimit, &[]);
            }
        }
    }
}

#[test]
fn what_is_not_completed_is_not_used_for_ever() {
    let question = Frame::new("10.1.0.2", "192.0.2.80")
        .udp(5000, 53)
        .payload(&[1; 120]);
    let fragments = cut(&question, &[0, 40, 80], 1);
    let mut net = outbound(false);
    send(&mut net, INSIDE, OUTSIDE, &fragments, &[0]);
    net.advance(30 * SECOND - 1);
    net.receive_bytes(INSIDE, &fragments[1])
        .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
    net.advance(1);
    net.receive_bytes(INSIDE, &fragments[2]).held();
    // An identification used again begins anew, once the other datagram's fragments have stopped coming.
    let mut net = outbound(false);
    send(&mut net, INSIDE, OUTSIDE, &fragments, &[0, 1]);
    net.advance(2 * SECOND);
    let (sent, _) = send(&mut net, INSIDE, OUTSIDE, &fragments, &[0, 2, 1]);
    reassemble(&sent);
    assert!(net.tables().fragments.entries().is_empty());
}

#[test]
fn the_rest_of_a_refused_datagram_shares_its_reason() {
    for (client, server, _) in FAMILIES {
        for (policy, reason, counter) in [
            (None, Reason::DefaultDeny, MISS),
            (Some(deny(ZONE_INSIDE, ZONE_OUTSIDE)), Reason::PolicyDeny, MISS),
            (
                Some(reject(ZONE_INSIDE, ZONE_OUTSIDE)),
                Reason::PolicyReject,
                MISS,
            ),
        ] {
            let mut net = Net::new(&policy.into_iter().collect::<Vec<_>>());
            let question = Frame::new(client, server).udp(5000, 53).payload(&[1; 120]);
            let fragments = cut(&question, &[0, 40, 80], 1);
            let late = net.receive_bytes(INSIDE, &fragments[2]).held();
            let outcome = net
                .receive_bytes(INSIDE, &fragments[0])
                .dropped_and(reason, &[counter]);
            assert_eq!(outcome.asked.len(), usize::from(reason == Reason::PolicyReject));
            // No second answer, no waiting, no event.
            net.receive_bytes(INSIDE, &fragments[1]).dropped(reason, &[]);
            net.put_back(INSIDE, &late.frame)
                .dropped(reason, &[("frames_injected", 1)]);
        }
    }
}

#[test]
fn a_forged_first_fragment_does_not_speak_for_the_datagram() {
    // Of the client's zone, and refused: the real one is judged by itself.
    let question = Frame::new("10.1.0.2", "192.0.2.80")
        .udp(5000, 53)
        .payload(&[1; 80]);
    let fragments = cut(&question, &[0, 40], 1);
    let forged = cut(&question.clone().udp(5000, 54), &[0, 40], 1);
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE).service(1)]);
    net.service(1, UDP, 53);
    net.receive_bytes(INSIDE, &forged[0])
        .dropped(Reason::DefaultDeny, &[MISS]);
    send(&mut net, INSIDE, OUTSIDE, &fragments, &[0, 1]);
    // Of another zone: neither a refused one nor a copy ends anything.
    let mut net = outbound(false);
    let elsewhere = |frame: &[u8]| {
        let mut frame = frame.to_vec();
        frame[..6].copy_from_slice(&mac(DMZ));
        frame
    };
    net.receive_bytes(DMZ, &elsewhere(&fragments[0]))
        .dropped(Reason::DefaultDeny, &[MISS]);
    net.receive_bytes(INSIDE, &fragments[0])
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.receive_bytes(DMZ, &elsewhere(&fragments[0]))
        .dropped(Reason::WrongZone, &[]);
    net.receive_bytes(DMZ, &elsewhere(&fragments[1]))
        .dropped(Reason::WrongZone, &[]);
    net.receive_bytes(INSIDE, &fragments[1])
        .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
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
fn fragments_never_take_the_short_way_nor_xdp() {
    for (client, server, _) in FAMILIES {
        let mut net = outbound(false);
        net.receive(INSIDE, &Frame::new(client, server).udp(5000, 53))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.receive(OUTSIDE, &Frame::new(server, client).udp(53, 5000))
            .forwarded(INSIDE, Reason::Established, &[("sessions_established", 1)]);
        let fragments = cut(
            &Frame::new(client, server).udp(5000, 53).payload(&[1; 40]),
            &[0, 16],
            1,
        );
        for frame in &fragments {
            let outcome = net.firewall.established(INSIDE, frame);
            assert_eq!(outcome.verdict.action, Action::NextHook);
            assert!(outcome.delta.is_empty());
        }
        // A later fragment whose first bytes read as the ports of another session is not taken for it.
        let mut forged = fragments[1].clone();
        let at = if client.contains(':') { 62 } else { 34 };
        forged[at..at + 4].copy_from_slice(&[5000u16.to_be_bytes(), 53u16.to_be_bytes()].concat());
        net.receive_bytes(INSIDE, &forged).held();
    }
}

#[test]
fn fragments_of_a_session_that_ended_or_may_no_longer_be_go_nowhere() {
    for (client, server, _) in FAMILIES {
        let question = Frame::new(client, server).udp(5000, 53).payload(&[1; 120]);
        let fragments = cut(&question, &[0, 40, 80], 1);
        let mut net = outbound(true);
        send(&mut net, INSIDE, OUTSIDE, &fragments, &[0]);
        net.commit(&[]);
        net.receive_bytes(INSIDE, &fragments[1])
            .dropped(Reason::PolicyChanged, &[MISS]);
        net.receive_bytes(INSIDE, &fragments[2])
            .dropped(Reason::FragmentNoSession, &[]);
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

#[test]
fn frames_for_others_and_from_nowhere_do_not_wait() {
    let fragments = cut(
        &Frame::new("10.1.0.2", "192.0.2.80").udp(1, 2).payload(&[1; 40]),
        &[0, 16],
        1,
    );
    let mut net = outbound(false);
    let mut other = fragments[1].clone();
    other[5] ^= 0x40;
    net.receive_bytes(INSIDE, &other).dropped(Reason::NotForUs, &[]);
    // Nor does a first fragment for somebody else speak for the datagram.
    let mut other = fragments[0].clone();
    other[5] ^= 0x40;
    net.receive_bytes(INSIDE, &other).dropped(Reason::NotForUs, &[]);
    net.receive_bytes(INSIDE, &fragments[1]).held();
    let mut nowhere = fragments[1].clone();
    nowhere[..6].copy_from_slice(&mac(crate::net::NO_ZONE));
    net.receive_bytes(crate::net::NO_ZONE, &nowhere)
        .dropped(Reason::NotConfigured, &[]);
    // One that waited and finds its entry gone does not wait again.
    net.put_back(INSIDE, &fragments[1])
        .dropped(Reason::FragmentLimit, &[("frames_injected", 1)]);
}

#[test]
fn a_flood_of_later_fragments_is_held_back_before_user_space() {
    let mut net = outbound(false);
    let question = Frame::new("10.1.0.2", "192.0.2.80").udp(1, 2).payload(&[1; 40]);
    let rate = bulkhead_pipeline::HAND_OVER_RATE;
    for id in 0..rate {
        net.receive_bytes(INSIDE, &cut(&question, &[0, 16], id)[1]).held();
    }
    let late = cut(&question, &[0, 16], rate).swap_remove(1);
    net.receive_bytes(INSIDE, &late)
        .dropped(Reason::FragmentLimit, &[]);
    net.advance(SECOND / 100);
    net.receive_bytes(INSIDE, &late).held();
    assert!(net.tables().fragments.entries().is_empty());
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

/// The frame without "don't fragment".
fn fragmentable(frame: &Frame) -> Vec<u8> {
    let mut bytes = frame.clone().to(mac(INSIDE)).build();
    bytes[20] = 0;
    bytes[24..26].fill(0);
    let sum = !ones_complement(0, &bytes[14..34]);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    bytes
}

#[test]
fn rfc4787_13_who_does_not_forbid_it_is_fragmented_for() {
    let mut net = Net::new(&[permit(ANY, ANY)]);
    // The dmz's MTU is 1400.
    let large = Frame::new("10.1.0.2", "10.3.0.2")
        .udp(5000, 53)
        .payload(&[1; 1400]);
    let bytes = fragmentable(&large);
    let step = net.receive_bytes(INSIDE, &bytes);
    assert_eq!(step.outcome.verdict.reason, Reason::Fragmented);
    assert_eq!(step.outcome.verdict.action, Action::Drop);
    assert_eq!(step.outcome.delta, [("fragmented", 1), MISS].into());
    let [handed] = &step.outcome.handed[..] else {
        panic!("{:?}", step.outcome.handed)
    };
    assert_eq!(
        (handed.kind, handed.ifindex, handed.argument, &handed.frame),
        (FrameKind::Oversize, INSIDE, 1400, &bytes)
    );
    assert_eq!(net.flows(), (0, 0), "its fragments open the session");
    // What user space makes of it: fragments that fit.
    let pieces = cut(&large, &[0, 1376], 0x1234);
    for (piece, reason, others) in [
        (
            &pieces[0],
            Reason::SessionCreated,
            &[HIT, ("frames_injected", 1)][..],
        ),
        (&pieces[1], Reason::HalfOpen, &[("frames_injected", 1)]),
    ] {
        net.put_back(INSIDE, piece).forwarded(DMZ, reason, others);
    }
    // A fragment that is itself too large: its pieces are fragments of its datagram.
    let parts = cut(&large.clone().payload(&[1; 2800]), &[0, 1400], 5);
    for (number, bytes) in parts.iter().enumerate() {
        let outcome = net.receive_bytes(INSIDE, bytes).outcome;
        assert_eq!(
            outcome.verdict.reason,
            if number == 0 {
                Reason::Fragmented
            } else {
                Reason::Internal
            }
        );
        if number == 0 {
            assert!(
                net.tables().fragments.entries().is_empty(),
                "nothing of it went by"
            );
        } else {
            // Too early: the first is in user space.
            assert_eq!(outcome.verdict.action, Action::Held);
        }
    }
    let again = cut(&large.clone().payload(&[1; 2800]), &[0, 1376, 1400], 5);
    for number in [0, 1] {
        net.put_back(INSIDE, &again[number])
            .forwarded(DMZ, Reason::HalfOpen, &[("frames_injected", 1)]);
    }
    let outcome = net.put_back(INSIDE, &parts[1]).outcome;
    assert_eq!(outcome.verdict.reason, Reason::Fragmented);
    assert_eq!(outcome.handed.len(), 1);
    let rest = cut(&large.payload(&[1; 2800]), &[0, 1376, 1400, 2776], 5);
    for number in [2, 3] {
        net.put_back(INSIDE, &rest[number])
            .forwarded(DMZ, Reason::HalfOpen, &[("frames_injected", 1)]);
    }
    assert!(net.tables().fragments.entries().is_empty(), "complete");
}

#[test]
fn rfc4787_13_who_forbids_it_is_told() {
    for (client, server) in [("10.1.0.2", "10.3.0.2"), ("2001:db8:1::2", "2001:db8:3::2")] {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_DMZ)]);
        let large = Frame::new(client, server).udp(5000, 53).payload(&[1; 1400]);
        let outcome = net
            .receive(INSIDE, &large)
            .dropped_and(Reason::MtuExceeded, &[MISS]);
        assert_eq!(outcome.asked.len(), 1);
        assert!(outcome.handed.is_empty());
    }
    // An aggregate is no packet that could be cut.
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_DMZ)]);
    let bytes = fragmentable(
        &Frame::new("10.1.0.2", "10.3.0.2")
            .tcp(1, 80, SYN, 1, 0)
            .payload(&[1; 2920]),
    );
    let outcome = net.firewall.ingress_gso(INSIDE, &bytes, 1460);
    assert_eq!(outcome.verdict.reason, Reason::MtuExceeded);
    assert!(outcome.handed.is_empty());
}

#[test]
fn poisoned_and_foreign_entries_keep_their_own_key() {
    // Same addresses and identification, another protocol: another datagram (IPv4). IPv6 has one number per pair.
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE).service(1)]);
    net.service(1, UDP, 53);
    let udp = cut(
        &Frame::new("10.1.0.2", "192.0.2.80")
            .udp(5000, 53)
            .payload(&[1; 80]),
        &[0, 40],
        1,
    );
    let tcp = cut(
        &Frame::new("10.1.0.2", "192.0.2.80")
            .tcp(5000, 80, SYN, 1, 0)
            .payload(&[1; 80]),
        &[0, 40],
        1,
    );
    net.receive_bytes(INSIDE, &tcp[0])
        .dropped(Reason::DefaultDeny, &[MISS]);
    net.receive_bytes(INSIDE, &udp[0])
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.receive_bytes(INSIDE, &tcp[1])
        .dropped(Reason::DefaultDeny, &[]);
    let entries = net.tables().fragments.entries();
    let poisoned = entries
        .iter()
        .filter(|(_, datagram)| datagram.flags & datagram_flags::POISONED != 0);
    assert_eq!(
        poisoned.map(|(key, _)| key.protocol).collect::<Vec<_>>(),
        [u32::from(TCP)]
    );
    net.receive_bytes(INSIDE, &udp[1])
        .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
}
