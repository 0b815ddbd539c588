//! An independent judge of checksums, written from the RFCs and sharing nothing with the data plane.
//!
//! Checks the IPv4 header (RFC 791), TCP (RFC 9293), UDP (RFC 768, RFC 8200 section 8.1), ICMP (RFC 792)
//! and ICMPv6 (RFC 4443), and the IPv4 header inside an ICMP error. A fragment's transport checksum covers
//! the whole packet and is not judged; nor is what the packet was cut off before.

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Checks every checksum of an Ethernet frame, tagged or not. What is not IP passes.
pub fn verify_checksums(frame: &[u8]) -> Result<(), String> {
    let mut at = 12;
    loop {
        let ether_type = word(frame, at).ok_or("shorter than an Ethernet header")?;
        at += 2;
        match ether_type {
            0x8100 | 0x88a8 => at += 2,
            0x0800 => return verify_ipv4(&frame[at..]),
            0x86dd => return verify_ipv6(&frame[at..]),
            _ => return Ok(()),
        }
    }
}

/// Checks every checksum of an IP packet.
pub fn verify_packet(packet: &[u8]) -> Result<(), String> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => verify_ipv4(packet),
        Some(6) => verify_ipv6(packet),
        _ => Err("neither IPv4 nor IPv6".into()),
    }
}

fn verify_ipv4(packet: &[u8]) -> Result<(), String> {
    let header = ipv4_header(packet)?;
    let total = usize::from(word(packet, 2).ok_or("shorter than an IPv4 header")?);
    let packet = packet
        .get(..total)
        .ok_or_else(|| format!("{} of {total} bytes of IPv4", packet.len()))?;
    let body = packet
        .get(header..)
        .ok_or_else(|| format!("total length {total} under header length {header}"))?;
    if word(packet, 6).unwrap_or(0) & 0x3fff != 0 {
        return Ok(());
    }
    transport(packet[9], body, &packet[12..16], &packet[16..20])
}

/// Checks an IPv4 header and returns its length.
fn ipv4_header(packet: &[u8]) -> Result<usize, String> {
    let first = *packet.first().ok_or("an empty packet")?;
    let length = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || length < 20 {
        return Err(format!("no IPv4 header begins with {first:#04x}"));
    }
    let header = packet
        .get(..length)
        .ok_or_else(|| format!("{} of {length} bytes of IPv4 header", packet.len()))?;
    match fold(sum(header)) {
        0xffff => Ok(length),
        other => Err(format!("ipv4 header checksum is off by {:#06x}", !other)),
    }
}

fn verify_ipv6(packet: &[u8]) -> Result<(), String> {
    let header = packet.get(..40).ok_or("shorter than an IPv6 header")?;
    let length = usize::from(word(packet, 4).ok_or("shorter than an IPv6 header")?);
    let mut body = packet
        .get(40..40 + length)
        .ok_or_else(|| format!("less than {length} bytes of IPv6 payload"))?;
    let source = &header[8..24];
    let mut destination = header[24..40].to_vec();
    let mut next = header[6];
    loop {
        let (first, second) = match body {
            [first, second, ..] => (*first, usize::from(*second)),
            _ => (0, 0),
        };
        let length = match next {
            0 | 60 | 135 | 139 | 140 => (second + 1) * 8,
            43 => {
                // With segments left, the pseudo-header has the last one's address (RFC 8200, section 8.1).
                let (kind, left) = (body.get(2).copied(), body.get(3).copied().map_or(0, usize::from));
                if left > 0 && kind == Some(2) {
                    destination = body.get(8..24).ok_or("a routing header cut short")?.to_vec();
                }
                (second + 1) * 8
            }
            51 => (second + 2) * 4,
            44 => {
                if word(body, 2).ok_or("a fragment header cut short")? & 0xfff9 != 0 {
                    return Ok(());
                }
                8
            }
            59 => return Ok(()),
            _ => return transport(next, body, source, &destination),
        };
        body = body
            .get(length..)
            .ok_or_else(|| format!("extension header {next} cut short"))?;
        next = first;
    }
}

fn transport(protocol: u8, body: &[u8], source: &[u8], destination: &[u8]) -> Result<(), String> {
    let v6 = source.len() == 16;
    let (name, covered) = match (protocol, v6) {
        (TCP, _) => ("tcp", body),
        (UDP, _) => {
            let length = usize::from(word(body, 4).ok_or("a UDP header cut short")?);
            match (word(body, 6), v6) {
                (Some(0), false) => return Ok(()),
                (Some(0), true) => return Err("udp over ipv6 without a checksum".into()),
                _ => {}
            }
            (
                "udp",
                body.get(..length)
                    .ok_or_else(|| format!("{} of {length} bytes of UDP", body.len()))?,
            )
        }
        (ICMP, false) => {
            if matches!(body.first(), Some(3 | 4 | 5 | 11 | 12)) {
                ipv4_header(body.get(8..).unwrap_or(&[]))
                    .map_err(|error| format!("inside the ICMP error: {error}"))?;
            }
            return match fold(sum(body)) {
                0xffff => Ok(()),
                other => Err(format!("icmp checksum is off by {:#06x}", !other)),
            };
        }
        (ICMPV6, true) => ("icmpv6", body),
        _ => return Ok(()),
    };
    let length = u32::try_from(covered.len()).map_err(|_| "longer than 4 GiB")?;
    let pseudo = pseudo_header_sum(source, destination, protocol, length);
    match fold(sum(covered) + u64::from(pseudo)) {
        0xffff => Ok(()),
        _ if word(covered, if protocol == TCP { 16 } else { 6 }) == Some(pseudo) => Err(format!(
            "{name} checksum is only the pseudo-header's sum (left for the NIC to complete)"
        )),
        other => Err(format!("{name} checksum is off by {:#06x}", !other)),
    }
}

/// The folded sum of a pseudo-header, not complemented: what a stack leaves in the checksum field for the
/// NIC to complete.
pub fn pseudo_header_sum(source: &[u8], destination: &[u8], protocol: u8, length: u32) -> u16 {
    fold(sum(source) + sum(destination) + u64::from(protocol) + sum(&length.to_be_bytes()))
}

/// RFC 1071: the sum of 16-bit words, an odd byte at the end counting as the high half of one.
fn sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)))
        .sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worked example of RFC 1071, section 3.
    #[test]
    fn the_sum_is_that_of_the_rfc() {
        assert_eq!(
            fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])),
            0xddf2
        );
        assert_eq!(fold(sum(&[0x12])), 0x1200);
    }

    /// An IPv4 header that is printed in many a textbook, with its right checksum b861.
    #[test]
    fn a_known_header_is_right_and_any_flipped_bit_is_not() {
        let mut header = [
            0x45, 0x00, 0x00, 0x14, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00, 0x01,
            0xc0, 0xa8, 0x00, 0xc7,
        ];
        // The textbook's total length of 0x73 made that of the header alone, and the checksum with it.
        header[10..12].copy_from_slice(&(0xb861_u16 + 0x73 - 0x14).to_be_bytes());
        assert_eq!(ipv4_header(&header), Ok(20));
        for bit in 0..header.len() * 8 {
            let mut changed = header;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(ipv4_header(&changed).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn no_length_of_a_cut_off_frame_panics() {
        let frame = crate::Frame::ip([10, 0, 0, 1], [10, 0, 0, 2])
            .tcp(1, 2)
            .payload_bytes(9)
            .build();
        for length in 0..frame.len() {
            assert!(verify_checksums(&frame[..length]).is_err(), "{length} bytes");
        }
    }
}
