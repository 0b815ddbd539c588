//! An independent judge of checksums, written from RFC 791, 792, 768, 9293, 4443, 8200, 3828 and 4340. It also looks into
//! ICMP errors: the quoted packet must be the very one that was sent, its checksums right if it is quoted whole.

/// Sum of the pseudo header, not folded.
pub fn pseudo(source: &[u8], destination: &[u8], protocol: u8, length: usize) -> u64 {
    let words = |bytes: &[u8]| -> u64 {
        bytes
            .chunks(2)
            .map(|w| u64::from(w[0]) << 8 | u64::from(w[1]))
            .sum()
    };
    words(source) + words(destination) + u64::from(protocol) + length as u64
}

/// The one's-complement sum of 16-bit words, `start` added, an odd byte being the high half of its word.
pub fn ones_complement(start: u64, bytes: &[u8]) -> u16 {
    let mut sum = start;
    for word in bytes.chunks(2) {
        sum += u64::from(word[0]) << 8 | u64::from(word.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Checks every checksum of an Ethernet frame, and those in what an ICMP error quotes.
#[track_caller]
pub fn verify(frame: &[u8]) {
    if let Err(what) = check(&frame[14..], false) {
        panic!("{what} in {frame:02x?}");
    }
}

/// Checks a packet. `quoted`: it may be cut off, and then its layer 4 checksum says nothing.
pub fn check(packet: &[u8], quoted: bool) -> Result<(), String> {
    let (protocol, source, destination, segment, whole);
    if packet[0] >> 4 == 4 {
        let header = usize::from(packet[0] & 15) * 4;
        if ones_complement(0, &packet[..header]) != 0xffff {
            return Err(format!("wrong IPv4 header checksum (quoted: {quoted})"));
        }
        let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
        whole = total <= packet.len();
        protocol = packet[9];
        (source, destination) = (&packet[12..16], &packet[16..20]);
        // A fragment: the layer 4 checksum is that of the whole.
        if u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0 {
            return Ok(());
        }
        segment = &packet[header..total.min(packet.len())];
    } else {
        let total = 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]]));
        whole = total <= packet.len();
        (source, destination) = (&packet[8..24], &packet[24..40]);
        let (mut next, mut at) = (packet[6], 40);
        while matches!(next, 0 | 44 | 60) {
            let header = next;
            next = packet[at];
            if header == 44 {
                if u16::from_be_bytes([packet[at + 2], packet[at + 3]]) & 0xfff9 != 0 {
                    return Ok(());
                }
                at += 8;
            } else {
                at += (usize::from(packet[at + 1]) + 1) * 8;
            }
        }
        protocol = next;
        segment = &packet[at..total.min(packet.len())];
    }
    if !whole {
        return if quoted {
            Ok(())
        } else {
            Err("a frame cut short".into())
        };
    }
    let v6 = source.len() == 16;
    let start = match (protocol, v6) {
        (6 | 17 | 33 | 136, _) | (58, true) => pseudo(source, destination, protocol, segment.len()),
        (1, false) => 0,
        _ => return Ok(()),
    };
    if protocol == 17 && segment[6..8] == [0, 0] {
        return if v6 {
            Err("a UDP checksum of zero over IPv6 (RFC 8200, 8.1)".into())
        } else {
            Ok(())
        };
    }
    // UDP-Lite's checksum covers what its third field says, but always the whole pseudo header.
    let covered = match (protocol, u16::from_be_bytes([segment[4], segment[5]])) {
        (136, length @ 1..) => &segment[..usize::from(length)],
        _ => segment,
    };
    if protocol == 136 && segment[6..8] == [0, 0] {
        return Err("a UDP-Lite checksum of zero (RFC 3828, 3.1)".into());
    }
    if ones_complement(start, covered) != 0xffff {
        return Err(format!(
            "wrong checksum of protocol {protocol} (quoted: {quoted})"
        ));
    }
    let error = match (protocol, segment[0]) {
        (1, 3 | 11 | 12) => true,
        (58, kind) => (1..=4).contains(&kind),
        _ => false,
    };
    if error && !quoted {
        check(&segment[8..], true)
    } else {
        Ok(())
    }
}
