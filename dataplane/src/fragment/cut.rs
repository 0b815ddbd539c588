//! Cutting an IPv4 packet that is larger than its way out (RFC 791, section 3.2; RFC 4787, REQ-13).
//!
//! Owns the arithmetic of offsets, lengths and options. Assumes a frame that the parser accepted. The identification
//! stays: the sender, who allowed fragments by leaving "don't fragment" off, made it one of its own. Refuses what cannot be cut
//! into pieces of that size.

use bulkhead_packet::{ETHERNET_BYTES, HeaderBuffer, Packet, PlainLoop, checksum, parse};
use etherparse::{IpFragOffset, Ipv4Header, Ipv4Options};

/// IP protocol numbers.
use bulkhead_abi::protocol;

/// Cuts `frame` into frames of at most `mtu` bytes of layer 3 each; `None` if that cannot be.
///
/// A checksum that the sender left to the hardware is finished first, because no hardware finishes it over several
/// frames. A fragment is cut into further fragments of its datagram.
#[must_use]
pub fn cut(frame: &[u8], mtu: u32) -> Option<Vec<Vec<u8>>> {
    let mut whole = frame.to_vec();
    finish_checksum(&mut whole);
    let (link, rest) = whole.split_at_checked(ETHERNET_BYTES)?;
    let (first, _) = Ipv4Header::from_slice(rest).ok()?;
    let body = rest.get(first.header_len()..usize::from(first.total_len))?;
    let mut later = first.clone();
    later.options = copied(&first.options);
    let mtu = mtu as usize;
    let (mut frames, mut done) = (Vec::new(), 0);
    while done < body.len() {
        let mut header = if done == 0 { first.clone() } else { later.clone() };
        let room = mtu.checked_sub(header.header_len())?;
        let left = body.len() - done;
        let length = if left <= room { left } else { room & !7 };
        if length == 0 {
            return None;
        }
        let offset = usize::from(first.fragment_offset.value()) + done / 8;
        header.fragment_offset = IpFragOffset::try_new(u16::try_from(offset).ok()?).ok()?;
        header.more_fragments = first.more_fragments || length < left;
        header.set_payload_len(length).ok()?;
        header.header_checksum = header.calc_header_checksum();
        let piece = &body[done..done + length];
        frames.push([link, &header.to_bytes(), piece].concat());
        done += length;
    }
    Some(frames)
}

/// The options that every fragment repeats: those with the copied flag (RFC 791, section 3.1).
fn copied(options: &Ipv4Options) -> Ipv4Options {
    let (mut kept, mut rest) = (Vec::new(), options.as_slice());
    while let [kind, tail @ ..] = rest {
        let length = match kind {
            0 => break,
            1 => 1,
            _ => match tail.first() {
                Some(length) if *length >= 2 => usize::from(*length),
                _ => break,
            },
        };
        let Some(option) = rest.get(..length) else { break };
        if kind & 0x80 != 0 {
            kept.extend(option);
        }
        rest = &rest[length..];
    }
    kept.resize(kept.len().next_multiple_of(4), 0);
    // No longer than the options it was taken from, which fit.
    Ipv4Options::try_from(kept.as_slice()).unwrap_or_default()
}

/// Finishes the TCP or UDP checksum of a whole packet if its field holds no more than the pseudo header's sum, which is
/// what a stack leaves to the hardware. A finished checksum that happens to be that number is computed again.
pub fn finish_checksum(frame: &mut [u8]) {
    let mut packet = Packet::default();
    let headers = HeaderBuffer::from_frame(frame);
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    if parse(&PlainLoop, &headers, length, false, &mut packet).is_err() || packet.fragment != 0 {
        return;
    }
    let l4 = usize::from(packet.l4);
    let at = match packet.protocol {
        protocol::TCP => l4 + 16,
        protocol::UDP => l4 + 6,
        _ => return,
    };
    let end = usize::from(packet.l3) + packet.l3_bytes as usize;
    let Some(segment) = frame.get(l4..end) else { return };
    let pseudo = checksum::pseudo_header(
        &packet.source_be,
        &packet.destination_be,
        packet.protocol,
        segment.len() as u32,
    );
    let field = u16::from_ne_bytes([frame[at], frame[at + 1]]);
    if field == 0 || field != checksum::fold(pseudo) {
        return;
    }
    // The field holds the pseudo header's sum, so the sum of the segment is that of both.
    let sum = segment
        .chunks(2)
        .map(|pair| u64::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    let finished = match !checksum::fold(checksum::fold64(sum)) {
        0 => 0xffff,
        finished => finished,
    };
    frame[at..at + 2].copy_from_slice(&finished.to_ne_bytes());
}

#[cfg(test)]
mod tests;
