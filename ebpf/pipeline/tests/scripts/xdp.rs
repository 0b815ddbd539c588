//! The XDP program: established sessions and malformed frames, nothing else, and no checksum left to the hardware.

use bulkhead_abi::{Reason, interface_flags};

use crate::{
    FAMILIES,
    frame::{ACK, FIN, Frame, SYN, UDP, octets},
    net::{HIT, INSIDE, MISS, Net, OUTSIDE, SECOND, ZONE_INSIDE, ZONE_OUTSIDE, mac, permit},
    verify,
};

const ESTABLISHED: (&str, u64) = ("sessions_established", 1);

/// A network whose interfaces may all be redirected to.
fn net(translate: bool) -> Net {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    for ifindex in [INSIDE, OUTSIDE] {
        let mut facts = net.tables().interfaces.get(&ifindex).unwrap();
        facts.flags |= interface_flags::XDP_TARGET;
        net.tables().interfaces.set(&ifindex, &facts);
    }
    if translate {
        net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
    }
    net
}

/// A UDP session in full flow; its two frames.
fn established(net: &mut Net, client: &str, server: &str, own: &str) -> (Frame, Frame) {
    let ask = Frame::new(client, server).udp(5000, 53).payload(b"question");
    let answer = Frame::new(server, own).udp(53, 5000).payload(b"odd answer!");
    net.receive_xdp(INSIDE, &ask).next_hook();
    net.receive(INSIDE, &ask)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.receive_xdp(OUTSIDE, &answer).next_hook();
    net.receive(OUTSIDE, &answer)
        .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
    (ask, answer)
}

#[test]
fn established_sessions_are_forwarded_and_translated() {
    for ((client, server, router), outside) in FAMILIES.into_iter().zip(["198.51.100.1", "2001:db8:2::1"]) {
        for translate in [false, true] {
            let own = if translate { outside } else { client };
            let mut net = net(translate);
            let (ask, answer) = established(&mut net, client, server, own);
            net.receive_xdp(INSIDE, &ask)
                .forwarded(OUTSIDE, Reason::EstablishedXdp, &[])
                .between(own, server)
                .via(router);
            net.receive_xdp(OUTSIDE, &answer)
                .forwarded(INSIDE, Reason::EstablishedXdp, &[])
                .between(server, client)
                .via(client);
        }
    }
}

/// A sender's stack leaves the pseudo header's sum for the hardware to complete; a redirected frame meets none.
#[test]
fn unfinished_checksums_are_completed() {
    for ((client, server, _), outside) in FAMILIES.into_iter().zip(["198.51.100.1", "2001:db8:2::1"]) {
        for translate in [false, true] {
            let own = if translate { outside } else { client };
            let mut net = net(translate);
            let (ask, _) = established(&mut net, client, server, own);
            for length in [0, 1, 2, 63, 64, 511, 512, 513, 1400] {
                let frame = ask.clone().payload(&vec![0xa5; length]).to(mac(INSIDE));
                let mut bytes = frame.build();
                let at = bytes.len() - length - 8 + 6;
                let (a, b) = (octets(frame.source), octets(frame.destination));
                let pseudo = verify::ones_complement(verify::pseudo(&a, &b, UDP, 8 + length), &[]);
                bytes[at..at + 2].copy_from_slice(&pseudo.to_be_bytes());
                let outcome = net.firewall.established(INSIDE, &bytes);
                assert_eq!(outcome.verdict.reason, Reason::EstablishedXdp);
                verify::verify(&outcome.bytes);
            }
        }
    }
}

#[test]
fn everything_unusual_goes_on() {
    for (client, server, _) in FAMILIES {
        let mut net = net(false);
        let (ask, _) = established(&mut net, client, server, client);
        net.receive_xdp(INSIDE, &ask.clone().ttl(1)).next_hook();
        net.receive_xdp(OUTSIDE, &ask).next_hook();
        net.receive_xdp(INSIDE, &ask.clone().payload(&[0; 1480]))
            .next_hook();
        net.receive_xdp(INSIDE, &ask)
            .forwarded(OUTSIDE, Reason::EstablishedXdp, &[]);
        net.new_epoch();
        net.receive_xdp(INSIDE, &ask).next_hook();
        net.commit(&[]);
        net.receive_xdp(INSIDE, &ask).next_hook();
        net.receive(INSIDE, &ask).dropped(Reason::PolicyChanged, &[MISS]);
        let mut arp = vec![0xff; 6];
        arp.extend([2, 0, 0, 0, 0, 9, 8, 6]);
        arp.resize(42, 0);
        assert!(net.firewall.established(INSIDE, &arp).delta.is_empty());
    }
}

/// An interface that cannot receive redirected frames would lose them.
#[test]
fn frames_for_interfaces_without_xdp_go_on() {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    let (ask, _) = established(&mut net, "10.1.0.2", "192.0.2.80", "10.1.0.2");
    net.receive_xdp(INSIDE, &ask).next_hook();
}

/// XDP looks at one direction and has no settings. It settles what that alone shows to be in time, and no packet more.
#[test]
fn a_session_is_settled_early_until_its_time_is_over() {
    // The network's timeout of UDP, and what is lost by counting in units of 2^20 ns.
    const TIMEOUT: u64 = 300 * SECOND;
    const UNIT: u64 = 1 << 20;
    for (client, server, _) in FAMILIES {
        for silent in [SECOND, 60 * SECOND, TIMEOUT - UNIT] {
            let mut net = net(false);
            let (ask, answer) = established(&mut net, client, server, client);
            net.receive(INSIDE, &ask)
                .forwarded(OUTSIDE, Reason::Established, &[]);
            net.advance(silent);
            for (ifindex, out, frame) in [(OUTSIDE, INSIDE, &answer), (INSIDE, OUTSIDE, &ask)] {
                net.receive_xdp(ifindex, frame)
                    .forwarded(out, Reason::EstablishedXdp, &[]);
            }
            // The other direction speaks on: in time, and the long way knows.
            for _ in 0..2 {
                net.advance(TIMEOUT - UNIT);
                net.receive_xdp(OUTSIDE, &answer)
                    .forwarded(INSIDE, Reason::EstablishedXdp, &[]);
            }
            net.receive_xdp(INSIDE, &ask).next_hook();
            net.receive(INSIDE, &ask)
                .forwarded(OUTSIDE, Reason::Established, &[]);
            // Now its time is over for both.
            net.advance(TIMEOUT + 1);
            for (ifindex, frame) in [(INSIDE, &ask), (OUTSIDE, &answer)] {
                net.receive_xdp(ifindex, frame).next_hook();
            }
            net.receive(OUTSIDE, &answer)
                .dropped(Reason::DefaultDeny, &[MISS]);
        }
    }
}

/// A service's timeout, a shorter one after a commit, and a state's: the figure in the flow follows all three.
#[test]
fn what_a_session_may_be_silent_follows_service_configuration_and_state() {
    for (client, server, _) in FAMILIES {
        let mut net = net(false);
        net.service(1, UDP, 53);
        net.service_timeout(1, 20);
        let (ask, answer) = established(&mut net, client, server, client);
        net.receive(INSIDE, &ask)
            .forwarded(OUTSIDE, Reason::Established, &[]);
        net.advance(19 * SECOND);
        net.receive_xdp(INSIDE, &ask)
            .forwarded(OUTSIDE, Reason::EstablishedXdp, &[]);
        net.commit(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        net.service(1, UDP, 53);
        net.service_timeout(1, 5);
        for (ifindex, out, frame, cache) in [(INSIDE, OUTSIDE, &ask, MISS), (OUTSIDE, INSIDE, &answer, HIT)] {
            net.receive_xdp(ifindex, frame).next_hook();
            net.receive(ifindex, frame)
                .forwarded(out, Reason::Established, &[cache]);
        }
        net.advance(4 * SECOND);
        net.receive_xdp(INSIDE, &ask)
            .forwarded(OUTSIDE, Reason::EstablishedXdp, &[]);
        net.advance(5 * SECOND + 1);
        net.receive_xdp(INSIDE, &ask).next_hook();
        net.receive_xdp(OUTSIDE, &answer).next_hook();
        assert_eq!(net.age(), 1);
    }
    for (client, server, _) in FAMILIES {
        let mut net = net(false);
        let there = |flags, seq, ack| Frame::new(client, server).tcp(40000, 80, flags, seq, ack);
        let back = |flags, seq, ack| Frame::new(server, client).tcp(80, 40000, flags, seq, ack);
        net.receive(INSIDE, &there(SYN, 1000, 0))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.receive(OUTSIDE, &back(SYN | ACK, 9000, 1001))
            .forwarded(INSIDE, Reason::HalfOpen, &[]);
        net.receive(INSIDE, &there(ACK, 1001, 9001))
            .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED]);
        net.receive(OUTSIDE, &back(ACK, 9001, 1001))
            .forwarded(INSIDE, Reason::Established, &[]);
        net.advance(7000 * SECOND);
        for (ifindex, out, frame) in [
            (INSIDE, OUTSIDE, there(ACK, 1001, 9001)),
            (OUTSIDE, INSIDE, back(ACK, 9001, 1001)),
        ] {
            net.receive_xdp(ifindex, &frame)
                .forwarded(out, Reason::EstablishedXdp, &[]);
        }
        // The client's farewell: four minutes, for the server too, whose own packets have said nothing of it.
        net.receive(INSIDE, &there(FIN | ACK, 1001, 9001))
            .forwarded(OUTSIDE, Reason::Established, &[]);
        net.advance(239 * SECOND);
        net.receive_xdp(OUTSIDE, &back(ACK, 9001, 1002))
            .forwarded(INSIDE, Reason::EstablishedXdp, &[]);
        net.advance(240 * SECOND + 1);
        net.receive_xdp(OUTSIDE, &back(ACK, 9001, 1002)).next_hook();
        assert_eq!((net.age(), net.flows()), (1, (0, 0)));
    }
}
