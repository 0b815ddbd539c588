//! Cutting a TCP segment that no interface takes whole: an aggregate of several, as the kernel's receive offload and the
//! sender's own make them, or one that a rewritten line made longer.
//!
//! Owns the arithmetic of sequence numbers, flags and lengths, as the kernel's `tcp_gso_segment` does it. Assumes nothing of
//! the frame. Refuses what is no plain TCP segment, or damaged: whoever receives that is to find out.

use bulkhead_packet::{ETHERNET_BYTES, tcp_flags};

use super::rewrite::{finish, is_whole, put16, put32, segment};

/// Congestion window reduced (RFC 9293, 3.1): said once, at the front.
const CWR: u8 = 0x80;

/// Cuts `frame` into frames of at most `mtu` bytes of layer 3 each and, unless that is 0, of at most `payload` bytes of
/// payload; one that fits comes back as it is. `None` if it cannot be cut.
#[must_use]
pub fn segments(frame: &[u8], mtu: usize, payload: usize) -> Option<Vec<Vec<u8>>> {
    if payload == 0 && frame.len() <= ETHERNET_BYTES + mtu {
        return Some(vec![frame.to_vec()]);
    }
    let packet = segment(frame)?;
    let (l3, l4) = (usize::from(packet.l3), usize::from(packet.l4));
    let data = l4 + usize::from(packet.tcp_header_bytes);
    let room = mtu.checked_sub(data - l3)?;
    let most = if payload == 0 { room } else { room.min(payload) };
    let bytes = frame.get(data..data + packet.payload_bytes as usize)?;
    if bytes.len() <= most {
        return Some(vec![frame.to_vec()]);
    }
    if most == 0 || !is_whole(frame, &packet) {
        return None;
    }
    let last = (bytes.len() - 1) / most;
    let piece = |(number, part): (usize, &[u8])| {
        let mut piece = [&frame[..data], part].concat();
        put32(
            &mut piece,
            l4 + 4,
            packet.seq.wrapping_add((number * most) as u32),
        );
        if number != 0 {
            piece[l4 + 13] &= !CWR;
        }
        if number != last {
            piece[l4 + 13] &= !(tcp_flags::FIN | tcp_flags::PSH);
        }
        if packet.family == 4 {
            // Those that may be fragmented further must not share an identification (RFC 6864, section 4).
            let id = u16::from_be_bytes([frame[l3 + 4], frame[l3 + 5]]);
            put16(&mut piece, l3 + 4, id.wrapping_add(number as u16));
        }
        finish(&mut piece, &packet)?;
        Some(piece)
    };
    bytes.chunks(most).enumerate().map(piece).collect()
}

#[cfg(test)]
mod tests {
    use bulkhead_testkit::{Checksum, Frame, verify_checksums};
    use etherparse::{PacketHeaders, TransportHeader};

    use super::*;

    const SEQ: u32 = 0xffff_ff00;

    /// A segment with these bytes of payload, of either family, that ends a connection.
    fn frames(bytes: usize) -> [Frame; 2] {
        let families = [
            Frame::ip([10, 1, 0, 2], [192, 0, 2, 80]),
            Frame::ip([0xfd00, 0, 0, 0, 0, 0, 0, 1], [0xfd00, 0, 0, 0, 0, 0, 0, 2]),
        ];
        families.map(|frame| {
            frame
                .tcp(4000, 21)
                .seq(SEQ)
                .ack(7)
                .tcp_header(|tcp| (tcp.psh, tcp.fin, tcp.cwr) = (true, true, true))
                .payload_bytes(bytes)
        })
    }

    #[test]
    fn the_pieces_are_the_segment_again() {
        for (mtu, payload, bytes) in [
            (1500, 0, 5000),
            (1500, 1000, 5000),
            (1500, 1448, 2896),
            (1280, 9000, 1241),
        ] {
            for frame in frames(bytes)
                .into_iter()
                .flat_map(|frame| [frame.clone(), frame.checksum(Checksum::Partial)])
            {
                let whole = frame.build();
                let pieces = segments(&whole, mtu, payload).expect("pieces");
                let (mut next, mut body, mut ids) = (SEQ, Vec::new(), Vec::new());
                for (number, piece) in pieces.iter().enumerate() {
                    verify_checksums(piece).expect("right checksums");
                    assert!(piece.len() <= ETHERNET_BYTES + mtu);
                    let headers = PacketHeaders::from_ethernet_slice(piece).expect("a packet");
                    let Some(TransportHeader::Tcp(tcp)) = headers.transport else {
                        panic!("no TCP");
                    };
                    let content = headers.payload.slice();
                    assert!(payload == 0 || content.len() <= payload);
                    assert_eq!((tcp.sequence_number, tcp.acknowledgment_number), (next, 7));
                    let (first, last) = (number == 0, number + 1 == pieces.len());
                    assert_eq!((tcp.cwr, tcp.psh, tcp.fin, tcp.ack), (first, last, last, true));
                    next = next.wrapping_add(content.len() as u32);
                    body.extend_from_slice(content);
                    ids.push([piece[18], piece[19]]);
                }
                assert!(whole.ends_with(&body) && body.len() == bytes);
                assert!(pieces.len() > 1);
                ids.dedup();
                assert!(whole[12] != 8 || ids.len() == pieces.len(), "{ids:?}");
            }
        }
    }

    #[test]
    fn what_fits_stays_as_it_is_and_what_is_damaged_is_not_cut() {
        for frame in frames(1000) {
            let whole = frame.build();
            for (mtu, payload) in [(1500, 0), (1500, 1000), (1500, 1448)] {
                assert_eq!(segments(&whole, mtu, payload), Some(vec![whole.clone()]));
            }
            assert_eq!(segments(&whole, 20, 0), None);
            let wrong = frame.checksum(Checksum::Wrong).build();
            assert_eq!(segments(&wrong, 600, 0), None);
            // Whole, it goes on: its receiver will find out.
            assert_eq!(segments(&wrong, 1500, 0), Some(vec![wrong.clone()]));
        }
        let udp = Frame::ip([10, 1, 0, 2], [192, 0, 2, 80])
            .udp(1, 2)
            .payload_bytes(900);
        assert_eq!(segments(&udp.build(), 600, 0), None);
    }
}
