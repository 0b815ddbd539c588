//! Pieces put together again are the packet that was cut, whatever its size, options and checksum. Headers are judged by
//! the test kit, reassembly is written here from RFC 791.

use super::*;

/// A UDP datagram of this many bytes behind the IP header.
fn datagram(bytes: usize, options: &[u8]) -> bulkhead_testkit::Frame {
    bulkhead_testkit::Frame::ip([10, 1, 0, 2], [192, 0, 2, 80])
        .ipv4(|header| {
            header.dont_fragment = false;
            header.identification = 0x1234;
        })
        .ipv4_options(options)
        .udp(5000, 53)
        .payload_bytes(bytes - 8)
}

fn word(frame: &[u8], at: usize) -> usize {
    usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]))
}

/// What the pieces hold, in order, after checking each one's header.
fn put_together(pieces: &[Vec<u8>], mtu: usize, first_offset: usize, more: bool) -> Vec<u8> {
    let mut body: Vec<u8> = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        bulkhead_testkit::verify_checksums(piece).expect("right header checksums");
        let (header, total) = (usize::from(piece[14] & 15) * 4, word(piece, 16));
        assert!(
            total <= mtu && piece.len() == 14 + total,
            "{total} bytes for an MTU of {mtu}"
        );
        assert_eq!(word(piece, 18), 0x1234, "identification");
        let (offset, follows) = (word(piece, 20) & 0x1fff, word(piece, 20) & 0x2000 != 0);
        assert_eq!(offset * 8, first_offset + body.len());
        assert_eq!(follows, more || number + 1 != pieces.len());
        assert!(!follows || (total - header) % 8 == 0);
        body.extend(&piece[14 + header..]);
    }
    body
}

#[test]
fn pieces_fit_and_make_the_packet_again() {
    for mtu in [68, 576, 1280, 1281, 1287, 1400, 1500, 9000] {
        for bytes in [mtu - 19, mtu, 2 * mtu - 40, 2 * mtu - 39, 9180] {
            if bytes < 16 {
                continue;
            }
            let whole = datagram(bytes, &[]).build();
            let pieces = cut(&whole, mtu as u32).expect("pieces");
            assert_eq!(put_together(&pieces, mtu, 0, false), whole[34..]);
            let least = bytes.div_ceil((mtu - 20) & !7);
            assert!(pieces.len() <= least, "{} pieces, {least} would do", pieces.len());
        }
    }
}

#[test]
fn only_copied_options_are_repeated() {
    // A router alert, copied; a timestamp, not copied; no operation.
    let options = [148, 4, 0, 0, 68, 8, 5, 0, 0, 0, 0, 0, 1, 1, 1, 1];
    let whole = datagram(3000, &options).build();
    let pieces = cut(&whole, 1280).expect("pieces");
    assert_eq!(put_together(&pieces, 1280, 0, false), whole[14 + 36..]);
    assert_eq!(pieces[0][34..50], options);
    for piece in &pieces[1..] {
        assert_eq!(piece[14] & 15, 6);
        assert_eq!(piece[34..38], [148, 4, 0, 0]);
    }
}

#[test]
fn a_fragment_is_cut_into_fragments_of_its_datagram() {
    let fragments = datagram(6000, &[]).build_fragments(1480, 0x1234);
    for (number, fragment) in fragments.iter().enumerate() {
        let more = number + 1 != fragments.len();
        let pieces = cut(fragment, 600).expect("pieces");
        assert!(!more || pieces.len() >= 3);
        assert_eq!(put_together(&pieces, 600, number * 1480, more), fragment[34..]);
    }
}

#[test]
fn a_checksum_left_to_the_hardware_is_finished() {
    for checksum in [
        bulkhead_testkit::Checksum::Partial,
        bulkhead_testkit::Checksum::Correct,
    ] {
        for bytes in [2000, 2001] {
            let right = datagram(bytes, &[]).build();
            let pieces = cut(&datagram(bytes, &[]).checksum(checksum).build(), 1280).expect("pieces");
            assert_eq!(put_together(&pieces, 1280, 0, false), right[34..]);
        }
    }
    // None stays none, and a wrong one is the receiver's to find.
    for checksum in [
        bulkhead_testkit::Checksum::Zero,
        bulkhead_testkit::Checksum::Wrong,
    ] {
        let frame = datagram(2000, &[]).checksum(checksum).build();
        let pieces = cut(&frame, 1280).expect("pieces");
        assert_eq!(put_together(&pieces, 1280, 0, false), frame[34..]);
    }
    // In a fragment the same two bytes are no sign of anything.
    let mut fragment = datagram(2000, &[])
        .checksum(bulkhead_testkit::Checksum::Partial)
        .build_fragments(1480, 1)
        .swap_remove(0);
    let before = fragment.clone();
    finish_checksum(&mut fragment);
    assert_eq!(fragment, before);
    // IPv6 and TCP, for whoever else puts frames back.
    let tcp = bulkhead_testkit::Frame::ip(
        "2001:db8::1".parse::<std::net::IpAddr>().expect("an address"),
        "2001:db8::2".parse::<std::net::IpAddr>().expect("an address"),
    )
    .tcp(1, 2)
    .syn()
    .payload_bytes(77);
    let mut frame = tcp.clone().checksum(bulkhead_testkit::Checksum::Partial).build();
    finish_checksum(&mut frame);
    assert_eq!(frame, tcp.build());
}

#[test]
fn what_cannot_be_cut_is_left() {
    let whole = datagram(2000, &[0; 40]).build();
    assert_eq!(cut(&whole, 67), None, "no room behind the header");
    assert!(cut(&whole, 68).is_some());
    for length in 0..60 {
        let _no_panic = cut(&whole[..length], 1280);
    }
    let v6 = bulkhead_testkit::Frame::ip(std::net::Ipv6Addr::LOCALHOST, std::net::Ipv6Addr::LOCALHOST);
    assert_eq!(cut(&v6.udp(1, 2).payload_bytes(2000).build(), 1280), None);
}
