//! What the builder builds, judged by etherparse and by the independent verifier.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::SlicedPacket;

use super::*;
use crate::verify_checksums;

const V4: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
const V6: (Ipv6Addr, Ipv6Addr) = (
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1),
    Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2),
);

fn both() -> [Frame; 2] {
    [Frame::ip(V4.0, V4.1), Frame::ip(V6.0, V6.1)]
}

fn every_transport(base: &Frame) -> Vec<Frame> {
    let base = || base.clone();
    let inner = base().udp(1, 2).payload_bytes(20).build_packet();
    vec![
        base().tcp(1, 2).syn().payload_bytes(7),
        base().udp(1, 2).payload_bytes(33),
        base().echo_request(5, 6).payload_bytes(56),
        base().icmp_error(if base().is_v4() { 3 } else { 1 }, 1, [0; 4], &inner),
    ]
}

#[test]
fn frames_parse_and_their_checksums_are_right() {
    for base in both() {
        for frame in every_transport(&base) {
            let bytes = frame.clone().vlan(7).vlan(8).build();
            verify_checksums(&bytes).unwrap_or_else(|error| panic!("{frame:?}: {error}"));
            SlicedPacket::from_ethernet(&bytes).unwrap_or_else(|error| panic!("{frame:?}: {error}"));
        }
    }
}

#[test]
fn wrong_partial_and_missing_checksums_are_found_out() {
    for base in both() {
        for frame in every_transport(&base) {
            let wrong = frame.clone().checksum(Checksum::Wrong).build();
            assert!(verify_checksums(&wrong).is_err(), "{frame:?}");
        }
        for frame in &every_transport(&base)[..2] {
            let partial = frame.clone().checksum(Checksum::Partial).build();
            assert!(verify_checksums(&partial).is_err(), "{frame:?}");
        }
    }
    let [v4, v6] = both().map(|base| base.udp(1, 2).checksum(Checksum::Zero).build());
    verify_checksums(&v4).expect("UDP over IPv4 may do without");
    assert!(
        verify_checksums(&v6).is_err(),
        "UDP over IPv6 may not (RFC 8200 section 8.1)"
    );
}

#[test]
fn extension_headers_chain_and_options_count() {
    let frame = Frame::ip(V6.0, V6.1)
        .extension(0, &[5, 2, 0, 0])
        .extension(60, &[1; 9])
        .udp(1, 2)
        .build();
    verify_checksums(&frame).expect("checksums");
    let parsed = SlicedPacket::from_ethernet(&frame).expect("a packet");
    assert!(
        matches!(parsed.transport, Some(etherparse::TransportSlice::Udp(_))),
        "{parsed:?}"
    );
    let frame = Frame::ip(V4.0, V4.1)
        .ipv4_options(&[1, 1, 1, 0])
        .tcp(1, 2)
        .build();
    assert_eq!(frame[14], 0x46);
    verify_checksums(&frame).expect("checksums");
}

#[test]
fn fragments_put_together_are_the_packet() {
    for base in both() {
        let whole = base.clone().udp(1, 2).payload_bytes(100);
        let header = whole.clone().fragment(0, false, 0).network_header(0).len();
        let fragments = whole.build_fragments(48, 77);
        assert_eq!(fragments.len(), 3);
        let joined: Vec<u8> = fragments
            .iter()
            .flat_map(|frame| frame[14 + header..].to_vec())
            .collect();
        assert_eq!(joined, whole.transport_bytes());
        fragments
            .iter()
            .for_each(|frame| verify_checksums(frame).expect("checksums"));
    }
}
