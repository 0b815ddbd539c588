//! The packet an ICMP error quotes (RFC 792, RFC 4443, section 3): enough of it to find its session.

use bulkhead_abi::{Reason, protocol};

use crate::{HeaderBuffer, IcmpKind, Packet, icmp_kind};

/// Number of the IPv6 fragment header.
const IPV6_FRAGMENT: u8 = 44;

/// The tuple of the quoted packet, as its sender sent it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Embedded {
    /// Source address, memory order.
    pub source_be: [u32; 4],
    /// Destination address, memory order.
    pub destination_be: [u32; 4],
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
/// [`Reason::Truncated`] if less is quoted, [`Reason::IcmpNoSession`] for what can belong to no session: another
/// family, a later fragment, an ICMP message that is not a query (RFC 1122, 3.2.2: no errors about errors).
#[inline(always)]
pub fn parse_embedded(headers: &HeaderBuffer, outer: &Packet, inner: &mut Embedded) -> Result<(), Reason> {
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
        l3 + header_bytes
    } else {
        if version >> 4 != 6 {
            return Err(Reason::IcmpNoSession);
        }
        inner.protocol = headers.byte(l3 + 6).ok_or(Reason::Truncated)?;
        inner.source_be = headers.address6(l3 + 8).ok_or(Reason::Truncated)?;
        inner.destination_be = headers.address6(l3 + 24).ok_or(Reason::Truncated)?;
        if inner.protocol == IPV6_FRAGMENT {
            // As above; ids of IPv6 are quoted as they left us, and nobody looks at them.
            if headers.be16(l3 + 42).ok_or(Reason::Truncated)? & 0xfff8 != 0 {
                return Err(Reason::IcmpNoSession);
            }
            inner.protocol = headers.byte(l3 + 40).ok_or(Reason::Truncated)?;
            l3 + 48
        } else {
            l3 + 40
        }
    };
    inner.l4 = l4 as u16;
    match inner.protocol {
        protocol::TCP | protocol::UDP => {
            inner.source_port = headers.be16(l4).ok_or(Reason::Truncated)?;
            inner.destination_port = headers.be16(l4 + 2).ok_or(Reason::Truncated)?;
            headers.be16(l4 + 6).ok_or(Reason::Truncated)?;
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
