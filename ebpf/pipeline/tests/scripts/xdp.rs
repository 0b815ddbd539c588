//! The XDP program: established sessions and malformed frames, nothing else, and no checksum left to the hardware.

use bulkhead_abi::{Reason, interface_flags};

use crate::{
    FAMILIES,
    frame::{Frame, UDP, octets},
    net::{INSIDE, MISS, Net, OUTSIDE, SECOND, ZONE_INSIDE, ZONE_OUTSIDE, mac, permit},
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
        net.advance(2 * SECOND);
        net.receive_xdp(INSIDE, &ask).next_hook();
        net.receive(INSIDE, &ask)
            .forwarded(OUTSIDE, Reason::Established, &[]);
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
