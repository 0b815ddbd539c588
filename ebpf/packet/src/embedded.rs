//! The packet an ICMP error quotes (RFC 792, RFC 4443, section 3): enough of it to find its session.

use bulkhead_abi::{Reason, protocol};

use crate::{HEADER_BYTES, HeaderBuffer, IcmpKind, Packet, Repeat, checksum, icmp_kind};

/// The tuple of the quoted packet, as its sender sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Embedded {
    /// Source address, memory order.
    pub source_be: [u32; 4],
    /// Destination address, memory order.
    pub destination_be: [u32; 4],
    /// TCP: sequence number.
    pub seq: u32,
    /// Source port, host order; ICMP queries: identifier.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Offset of the quoted layer 3 header.
    pub l3: u16,
    /// Offset of the quoted layer 4 header.
    pub l4: u16,
    /// Protocol.
    pub protocol: u8,
}

/// Parses what the ICMP error `outer` quotes. Of layer 4 only the first eight bytes need to be there (RFC 792).
///
/// # Errors
/// [`Reason::Truncated`] if less is quoted, [`Reason::IcmpQuoteInvalid`] for an IPv4 header whose checksum is wrong (RFC
/// 5508, REQ-3a), [`Reason::IcmpNoSession`] for what can belong to no session: another family, a later fragment, a chain of
/// extension headers that is never forwarded, an ICMP message that is not a query (RFC 1122, 3.2.2: no errors about
/// errors).
#[inline(always)]
pub fn parse_embedded(
    looping: &impl Repeat,
    headers: &HeaderBuffer,
    outer: &Packet,
    inner: &mut Embedded,
) -> Result<(), Reason> {
    *inner = Embedded::default();
    let l3 = usize::from(outer.l4) + 8;
    inner.l3 = l3 as u16;
    let version = headers.byte(l3).ok_or(Reason::Truncated)?;
    let l4 = if outer.family == 4 {
        let header_bytes = usize::from(version & 0x0f) * 4;
        if version >> 4 != 4 || header_bytes < 20 {
            return Err(Reason::IcmpNoSession);
        }
        // A quoted later fragment has no ports.
        if headers.be16(l3 + 6).ok_or(Reason::Truncated)? & 0x1fff != 0 {
            return Err(Reason::IcmpNoSession);
        }
        inner.protocol = headers.byte(l3 + 9).ok_or(Reason::Truncated)?;
        inner.source_be[0] = headers.word(l3 + 12).ok_or(Reason::Truncated)?;
        inner.destination_be[0] = headers.word(l3 + 16).ok_or(Reason::Truncated)?;
        if !quoted_header_valid(headers, l3, header_bytes / 4) {
            return Err(Reason::IcmpQuoteInvalid);
        }
        l3 + header_bytes
    } else {
        if version >> 4 != 6 {
            return Err(Reason::IcmpNoSession);
        }
        inner.protocol = headers.byte(l3 + 6).ok_or(Reason::Truncated)?;
        inner.source_be = headers.address6(l3 + 8).ok_or(Reason::Truncated)?;
        inner.destination_be = headers.address6(l3 + 24).ok_or(Reason::Truncated)?;
        if matches!(inner.protocol, 0 | 43 | 44 | 60) {
            let chain = quoted_chain(looping, headers, inner.protocol, l3 + 40);
            if chain == 0 {
                return Err(Reason::IcmpNoSession);
            }
            inner.protocol = (chain >> 16) as u8;
            usize::from(chain as u16)
        } else {
            l3 + 40
        }
    };
    inner.l4 = l4 as u16;
    match inner.protocol {
        number if protocol::has_ports(number) => {
            inner.source_port = headers.be16(l4).ok_or(Reason::Truncated)?;
            inner.destination_port = headers.be16(l4 + 2).ok_or(Reason::Truncated)?;
            let second = headers.be32(l4 + 4).ok_or(Reason::Truncated)?;
            if number == protocol::TCP {
                inner.seq = second;
            }
        }
        protocol::ICMP | protocol::ICMPV6 => {
            let icmp_type = headers.byte(l4).ok_or(Reason::Truncated)?;
            match icmp_kind(inner.protocol, icmp_type) {
                IcmpKind::Request | IcmpKind::Reply => {
                    let id = headers.be16(l4 + 4).ok_or(Reason::Truncated)?;
                    inner.source_port = id;
                    inner.destination_port = id;
                }
                IcmpKind::Error | IcmpKind::Other => return Err(Reason::IcmpNoSession),
            }
        }
        _ => {}
    }
    Ok(())
}

/// Whether a quoted IPv4 header is as it was sent.
#[inline(never)]
fn quoted_header_valid(headers: &HeaderBuffer, l3: usize, words: usize) -> bool {
    checksum::ipv4_header_valid(headers, l3, words)
}

/// Follows a quoted chain of extension headers as far as one that was forwarded can go. Returns `protocol << 16 | offset`
/// of what is behind it; 0: none that was forwarded, or not all of it is quoted.
#[inline(never)]
fn quoted_chain(looping: &impl Repeat, headers: &HeaderBuffer, first: u8, start: usize) -> u32 {
    let mut next = first;
    let mut at = start;
    let mut found = 0;
    // As many as the parser follows, and the fragment header.
    looping.repeat(9, |_| {
        match next {
            0 | 60 => {}
            44 => {
                // A later fragment has no ports (RFC 8200, 4.5); an identification is nobody's business here.
                match headers.be16(at + 2) {
                    Some(field) if field & 0xfff8 == 0 => {}
                    _ => return true,
                }
            }
            // Source routed: never forwarded.
            43 => return true,
            _ => {
                found = u32::from(next) << 16 | at as u32;
                return true;
            }
        }
        let (Some(following), Some(length)) = (headers.byte(at), headers.byte(at + 1)) else {
            return true;
        };
        // A fragment header's second byte is reserved (RFC 8200, 4.5): it is always eight bytes long.
        let length = if next == 44 { 0 } else { usize::from(length) };
        next = following;
        at += (length + 1) * 8;
        at >= HEADER_BYTES
    });
    found
}
