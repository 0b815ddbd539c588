//! A way out narrower than the packet (RFC 4787, REQ-13).

use bulkhead_abi::{FrameKind, Reason};
use bulkhead_pipeline::Action;

use super::cut;
use crate::{
    frame::{Frame, SYN},
    net::{ANY, DMZ, HIT, INSIDE, MISS, Net, ZONE_DMZ, ZONE_INSIDE, mac, permit},
    verify::ones_complement,
};

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
