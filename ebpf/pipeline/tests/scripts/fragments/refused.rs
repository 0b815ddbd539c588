//! Fragments that go nowhere: overlaps, gaps, what is too old, what was refused, forged or flooded.

use bulkhead_abi::{Reason, Screen, ScreenProfile, datagram_flags};
use bulkhead_pipeline::Action;

use super::{cut, fragment, outbound, reassemble, send};
use crate::{
    FAMILIES,
    frame::{Frame, SYN, TCP, UDP},
    net::{
        DMZ, INSIDE, MISS, NO_ZONE, Net, OUTSIDE, SECOND, ZONE_INSIDE, ZONE_OUTSIDE, deny, mac, permit,
        reject,
    },
};

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

/// Only the first shows what the screen is for; the others neither wait nor take places of those that may.
#[test]
fn the_rest_of_a_datagram_whose_first_a_screen_dropped_falls_with_it() {
    for (client, server, _) in FAMILIES {
        let syn = Frame::new(client, server)
            .tcp(40000, 80, SYN, 1, 0)
            .payload(&[1; 60]);
        let refused = Reason::ScreenSynFragment;
        for xdp in [false, true] {
            let mut net = outbound(false);
            net.screens(
                ZONE_INSIDE,
                &ScreenProfile {
                    enabled: Screen::SynFragment.bit(),
                    ..ScreenProfile::default()
                },
            );
            let mut reason = |bytes: &[u8]| {
                let outcome = if xdp {
                    net.firewall.both_hooks(INSIDE, bytes)
                } else {
                    net.firewall.ingress(INSIDE, bytes)
                };
                (outcome.verdict.action != Action::Held).then_some(outcome.verdict.reason)
            };
            let [first, later] = cut(&syn, &[0, 32], 7).try_into().unwrap();
            assert_eq!((reason(&first), reason(&later)), (Some(refused), Some(refused)));
            // One that waited finds out when it is put back.
            let [first, later] = cut(&syn, &[0, 32], 8).try_into().unwrap();
            assert_eq!((reason(&later), reason(&first)), (None, Some(refused)));
            net.put_back(INSIDE, &later)
                .dropped(refused, &[("frames_injected", 1)]);
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
    nowhere[..6].copy_from_slice(&mac(NO_ZONE));
    net.receive_bytes(NO_ZONE, &nowhere)
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
