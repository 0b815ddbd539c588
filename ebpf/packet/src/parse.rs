//! The parser: one pass over the header buffer, one [`Packet`] or one [`Reason`].

use bulkhead_abi::{Reason, Screen, protocol};

use crate::{ETHERNET_BYTES, HeaderBuffer, Repeat, checksum};

/// Ethernet types (IEEE 802 numbers).
mod ethertype {
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const IPV6: u16 = 0x86dd;
    pub const VLAN: u16 = 0x8100;
    pub const QINQ: u16 = 0x88a8;
}

/// TCP flag bits (RFC 9293, section 3.1).
pub mod tcp_flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// Urgent.
    pub const URG: u8 = 0x20;
}

/// Bits of [`Packet::fragment`].
pub mod fragment_flags {
    /// Begins its datagram, and has the layer 4 header.
    pub const FIRST: u8 = 1;
    /// Does not begin it: its bytes are neither ports nor any other header.
    pub const LATER: u8 = 1 << 1;
    /// Does not end it.
    pub const MORE: u8 = 1 << 2;
}

/// What sort of frame it is, as far as the first decision needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Kind {
    /// An IP packet to be judged.
    #[default]
    Ip,
    /// ARP: the kernel's own business.
    Arp,
    /// Neighbour or multicast listener discovery on the link: the kernel's own business.
    NeighbourDiscovery,
}

/// What an ICMP message is to a firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpKind {
    /// Asks and expects an answer with the same identifier: opens a session.
    Request,
    /// Answers a request.
    Reply,
    /// Quotes the packet it is about.
    Error,
    /// Anything else.
    Other,
}

/// The facts of a packet. Holds only what was accepted: every offset lies inside the buffer's valid bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Packet {
    /// Source address, memory order; IPv4 in word 0.
    pub source_be: [u32; 4],
    /// Destination address.
    pub destination_be: [u32; 4],
    /// TCP sequence number.
    pub seq: u32,
    /// TCP acknowledgement number.
    pub ack: u32,
    /// Bytes of the layer 3 packet, from its header to its end (a GSO packet counts whole).
    pub l3_bytes: u32,
    /// Bytes after the TCP, UDP, UDP-Lite or SCTP header.
    pub payload_bytes: u32,
    /// Source port, host order; ICMP queries: identifier; 0 for protocols without ports.
    pub source_port: u16,
    /// Destination port, host order; ICMP queries: identifier.
    pub destination_port: u16,
    /// TCP window as sent.
    pub window: u16,
    /// Offset of the layer 3 header.
    pub l3: u16,
    /// Offset of the layer 4 header.
    pub l4: u16,
    /// ICMP `type << 8 | code`.
    pub icmp: u16,
    /// IPv4 flags and fragment offset.
    pub ipv4_fragment: u16,
    /// Where the fragment's bytes begin in the datagram; 0 for a first fragment and for a whole packet.
    pub fragment_offset: u16,
    /// Offset of the IPv6 fragment header; 0: none.
    pub fragment_header: u16,
    /// Identification of the datagram a fragment (atomic ones included) belongs to.
    pub fragment_id: u32,
    /// 4 or 6.
    pub family: u8,
    /// Protocol of the layer 4 header.
    pub protocol: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// TCP header length, bytes.
    pub tcp_header_bytes: u8,
    /// [`fragment_flags`]; 0: a whole packet, an IPv6 atomic fragment (RFC 6946) included.
    pub fragment: u8,
    /// What sort of frame.
    pub kind: Kind,
    /// What is out of the ordinary about it: the bits ([`Screen::bit`]) of the screens that would stop it for what it is.
    /// Zero for ordinary packets. Set as far as parsing came where it ended in an error.
    pub options: u64,
}

impl Packet {
    /// Whether IPv4 forbids fragmentation; IPv6 always does.
    #[inline(always)]
    #[must_use]
    pub fn dont_fragment(&self) -> bool {
        self.family == 6 || self.ipv4_fragment & 0x4000 != 0
    }

    /// Whether the packet is a fragment that does not begin its datagram.
    #[inline(always)]
    #[must_use]
    pub fn is_later_fragment(&self) -> bool {
        self.fragment & fragment_flags::LATER != 0
    }

    /// Bytes behind the headers that every fragment of a datagram repeats; all layer 4 bytes of a whole packet.
    #[inline(always)]
    #[must_use]
    pub fn fragment_bytes(&self) -> u32 {
        self.l3_bytes.saturating_sub(self.repeated_bytes())
    }

    /// Bytes of those headers.
    #[inline(always)]
    fn repeated_bytes(&self) -> u32 {
        let end = if self.fragment_header == 0 {
            self.l4
        } else {
            self.fragment_header + 8
        };
        u32::from(end) - u32::from(self.l3)
    }

    /// What policy is asked about: destination port, ICMP type and code, or 0.
    #[inline(always)]
    #[must_use]
    pub fn service_port(&self) -> u16 {
        match self.protocol {
            protocol if protocol::has_ports(protocol) => self.destination_port,
            protocol::ICMP | protocol::ICMPV6 => self.icmp,
            _ => 0,
        }
    }

    /// How the ICMP message (if it is one) is to be treated.
    #[inline(always)]
    #[must_use]
    pub fn icmp_kind(&self) -> IcmpKind {
        icmp_kind(self.protocol, (self.icmp >> 8) as u8)
    }
}

/// Classifies an ICMP type (RFC 792, 950, 4443).
#[inline(always)]
#[must_use]
pub fn icmp_kind(protocol: u8, icmp_type: u8) -> IcmpKind {
    match (protocol, icmp_type) {
        (protocol::ICMP, 8 | 13 | 15 | 17) | (protocol::ICMPV6, 128) => IcmpKind::Request,
        (protocol::ICMP, 0 | 14 | 16 | 18) | (protocol::ICMPV6, 129) => IcmpKind::Reply,
        // Redirects (5) and source quench (4) are never passed on: RFC 6633, RFC 1812 5.2.7.2.
        (protocol::ICMP, 3 | 11 | 12) | (protocol::ICMPV6, 1..=4) => IcmpKind::Error,
        _ => IcmpKind::Other,
    }
}

/// Parses the frame whose first bytes are in `headers`.
///
/// `frame_bytes` is the frame's whole length; `gso` says that it is an aggregate the kernel will segment, whose
/// length fields may describe one segment or be zero.
///
/// # Errors
/// The one reason why the frame cannot be judged.
#[inline(always)]
pub fn parse(
    looping: &impl Repeat,
    headers: &HeaderBuffer,
    frame_bytes: u32,
    gso: bool,
    packet: &mut Packet,
) -> Result<(), Reason> {
    *packet = Packet::default();
    let ether_type = headers.be16(12).ok_or(Reason::Truncated)?;
    packet.l3 = ETHERNET_BYTES as u16;
    match ether_type {
        ethertype::IPV4 => ipv4(looping, headers, frame_bytes, gso, packet)?,
        ethertype::IPV6 => ipv6(looping, headers, frame_bytes, gso, packet)?,
        ethertype::ARP => {
            packet.kind = Kind::Arp;
            return Ok(());
        }
        ethertype::VLAN | ethertype::QINQ => return Err(Reason::VlanTagged),
        _ => return Err(Reason::EtherTypeUnsupported),
    }
    if packet.fragment != 0 {
        packet.options |= Screen::IpFragment.bit();
        if matches!(
            (packet.family, packet.protocol),
            (4, protocol::ICMP) | (6, protocol::ICMPV6)
        ) {
            packet.options |= Screen::IcmpFragment.bit();
        }
        fragment(packet)?;
        if packet.is_later_fragment() {
            return Ok(());
        }
    }
    match packet.protocol {
        protocol::TCP => tcp(headers, packet),
        protocol::UDP => udp(headers, gso, packet),
        protocol::ICMP if packet.family == 4 => icmp(headers, packet),
        protocol::ICMPV6 if packet.family == 6 => icmp(headers, packet),
        protocol::SCTP | protocol::DCCP | protocol::UDP_LITE => other_ports(headers, packet),
        // ICMP of the other family is an unknown protocol; policy may still name it by number.
        number => {
            if number >= UNKNOWN_PROTOCOL {
                packet.options |= Screen::UnknownProtocol.bit();
            } else if matches!(number, 135 | 139 | 140) && packet.family == 6 {
                // Mobility, HIP, Shim6: extension headers to IANA, not followed here.
                packet.options |= Screen::ExtensionHeaders.bit();
            }
            Ok(())
        }
    }
}

/// The first protocol number that counts as unknown, here as elsewhere. IANA has assigned some from here on since, which
/// hardly anybody uses; 253 and 254 are for experiments, 255 is reserved.
const UNKNOWN_PROTOCOL: u8 = 143;

#[inline(always)]
fn ipv4(
    looping: &impl Repeat,
    headers: &HeaderBuffer,
    frame_bytes: u32,
    gso: bool,
    packet: &mut Packet,
) -> Result<(), Reason> {
    const L3: usize = ETHERNET_BYTES;
    let version_ihl = headers.byte(L3).ok_or(Reason::Truncated)?;
    // The last word of a minimal header: everything below it is there too.
    let destination = headers.word(L3 + 16).ok_or(Reason::Truncated)?;
    let header_bytes = usize::from(version_ihl & 0x0f) * 4;
    if version_ihl >> 4 != 4 || header_bytes < 20 {
        return Err(Reason::Ipv4HeaderInvalid);
    }
    let on_wire = frame_bytes.saturating_sub(L3 as u32);
    let mut total = u32::from(headers.be16(L3 + 2).ok_or(Reason::Truncated)?);
    if total == 0 && gso {
        total = on_wire;
    }
    if total > on_wire {
        return Err(Reason::Truncated);
    }
    if (total as usize) < header_bytes {
        return Err(Reason::Ipv4HeaderInvalid);
    }
    if !checksum::ipv4_header_valid(headers, L3, header_bytes / 4) {
        return Err(Reason::Ipv4ChecksumInvalid);
    }
    packet.family = 4;
    packet.l3_bytes = total;
    packet.ipv4_fragment = headers.be16(L3 + 6).ok_or(Reason::Truncated)?;
    packet.ttl = headers.byte(L3 + 8).ok_or(Reason::Truncated)?;
    packet.protocol = headers.byte(L3 + 9).ok_or(Reason::Truncated)?;
    packet.source_be[0] = headers.word(L3 + 12).ok_or(Reason::Truncated)?;
    packet.destination_be[0] = destination;
    packet.l4 = (L3 + header_bytes) as u16;
    if header_bytes > 20 {
        ipv4_options(looping, headers, packet);
        if packet.options & REFUSED != 0 {
            packet.options &= !REFUSED;
            return Err(Reason::SourceRoute);
        }
    }
    // More fragments, or an offset: RFC 791, section 3.1.
    if packet.ipv4_fragment & 0x3fff != 0 {
        packet.fragment_id = u32::from(headers.be16(L3 + 4).ok_or(Reason::Truncated)?);
        place(
            packet,
            packet.ipv4_fragment << 3,
            packet.ipv4_fragment & 0x2000 != 0,
        );
    }
    Ok(())
}

/// Notes that the packet is a fragment.
#[inline(always)]
fn place(packet: &mut Packet, offset: u16, more: bool) {
    packet.fragment_offset = offset;
    packet.fragment = if offset == 0 {
        fragment_flags::FIRST
    } else {
        fragment_flags::LATER
    };
    if more {
        packet.fragment |= fragment_flags::MORE;
    }
}

/// What holds of every fragment, and of first and later ones each.
///
/// # Errors
/// The reason why it can be no part of a datagram, or no part that may be forwarded.
#[inline(never)]
fn fragment(packet: &Packet) -> Result<(), Reason> {
    let bytes = packet.fragment_bytes();
    let offset = u32::from(packet.fragment_offset);
    if bytes == 0 || (packet.fragment & fragment_flags::MORE != 0 && bytes & 7 != 0) {
        return Err(Reason::FragmentInvalid);
    }
    // The reassembled packet has one length field of 16 bits, which counts the header of IPv4 too.
    let header = if packet.family == 4 {
        packet.repeated_bytes()
    } else {
        0
    };
    if header + offset + bytes > 0xffff {
        return Err(Reason::FragmentOversize);
    }
    let least = match packet.protocol {
        protocol::TCP => 20,
        protocol::UDP | protocol::ICMP | protocol::ICMPV6 => 8,
        _ => 0,
    };
    if packet.is_later_fragment() {
        // RFC 1858 and 3128: it would overwrite the header that was judged.
        return if packet.protocol == protocol::TCP && offset < 20 {
            Err(Reason::FragmentTiny)
        } else {
            Ok(())
        };
    }
    if l4_bytes(packet) < least {
        Err(Reason::FragmentTiny)
    } else {
        Ok(())
    }
}

/// Walks IPv4 options for loose or strict source route (RFC 791; to be dropped by RFC 7126, 4.3 and 4.4).
/// Set by [`ipv4_options`] besides the bits of screens: the packet goes nowhere. No screen has this bit.
const REFUSED: u64 = 1 << 63;
const _: () = assert!(Screen::ALL.len() < 63);

/// Walks IPv4 options. Notes in `packet.options` the screens that concern them, and [`REFUSED`] for loose or strict source
/// route (RFC 791; to be dropped by RFC 7126, 4.3 and 4.4) and for a list that cannot be walked to its end.
///
/// In the packet, not in a variable: the verifier would follow every combination of values that this loop's turns leave in one.
#[inline(never)]
fn ipv4_options(looping: &impl Repeat, headers: &HeaderBuffer, packet: &mut Packet) {
    let end = usize::from(packet.l4);
    let mut at = ETHERNET_BYTES + 20;
    // Forty bytes hold at most forty single-byte options.
    looping.repeat(40, |_| {
        if at >= end {
            return true;
        }
        let Some(option) = headers.byte(at) else {
            return true;
        };
        match option {
            0 => return true,
            1 => {
                at += 1;
                return false;
            }
            _ => packet.options |= option_screens(option),
        }
        let length = usize::from(headers.byte(at + 1).unwrap_or(0));
        at += length;
        // An option shorter than its own header would never end, one that leaves the header hides what is behind it: an
        // attempt to hide either way.
        if length < 2 || at > end {
            packet.options |= Screen::IpBadOption.bit() | REFUSED;
            return true;
        }
        packet.options & REFUSED != 0
    });
}

/// The screens that concern an option with a length.
#[inline(always)]
fn option_screens(option: u8) -> u64 {
    match option {
        131 | 137 => Screen::IpSourceRoute.bit() | REFUSED,
        7 => Screen::IpRecordRoute.bit(),
        68 => Screen::IpTimestamp.bit(),
        // Security and extended security (RFC 1108), CIPSO.
        130 | 133 | 134 => Screen::IpSecurity.bit(),
        136 => Screen::IpStream.bit(),
        // Router alert (RFC 2113) is as ordinary as an option can be.
        148 => 0,
        _ => Screen::IpBadOption.bit(),
    }
}

#[inline(always)]
fn ipv6(
    looping: &impl Repeat,
    headers: &HeaderBuffer,
    frame_bytes: u32,
    gso: bool,
    packet: &mut Packet,
) -> Result<(), Reason> {
    const L3: usize = ETHERNET_BYTES;
    packet.destination_be = headers.address6(L3 + 24).ok_or(Reason::Truncated)?;
    packet.source_be = headers.address6(L3 + 8).ok_or(Reason::Truncated)?;
    if headers.byte(L3).ok_or(Reason::Truncated)? >> 4 != 6 {
        return Err(Reason::Ipv6HeaderInvalid);
    }
    let on_wire = frame_bytes.saturating_sub(L3 as u32);
    let payload = u32::from(headers.be16(L3 + 4).ok_or(Reason::Truncated)?);
    // RFC 2675: zero announces a jumbogram, which only an aggregate inside this host can be.
    let total = if payload == 0 && gso {
        on_wire
    } else {
        payload + 40
    };
    if total > on_wire {
        return Err(Reason::Truncated);
    }
    packet.family = 6;
    packet.l3_bytes = total;
    packet.ttl = headers.byte(L3 + 7).ok_or(Reason::Truncated)?;
    let next = headers.byte(L3 + 6).ok_or(Reason::Truncated)?;
    packet.protocol = next;
    packet.l4 = (L3 + 40) as u16;
    // Most packets have no chain at all.
    match next {
        protocol::TCP | protocol::UDP | protocol::ICMPV6 => Ok(()),
        _ => {
            let end = (L3 as u32 + total) as usize;
            let mut chain = extension_chain(looping, headers, next, L3 + 40, end);
            if (chain >> 24) as u8 == CHAIN_FRAGMENT {
                packet.fragment_header = chain as u16;
                chain = behind_fragment_header(looping, headers, packet, end);
            }
            packet.protocol = (chain >> 16) as u8;
            packet.l4 = chain as u16;
            if usize::from(packet.l4) > end {
                // The chain goes on behind the packet's own end.
                return Err(Reason::Truncated);
            }
            match (chain >> 24) as u8 {
                CHAIN_ENDS => {
                    let plain = if packet.fragment_header == 0 {
                        L3 + 40
                    } else {
                        L3 + 48
                    };
                    if usize::from(packet.l4) != plain {
                        packet.options = Screen::ExtensionHeaders.bit();
                    }
                    Ok(())
                }
                CHAIN_ROUTING => {
                    packet.options = Screen::IpSourceRoute.bit() | Screen::ExtensionHeaders.bit();
                    Err(Reason::SourceRoute)
                }
                // RFC 7112: the first fragment has the whole chain.
                CHAIN_CUT if packet.fragment != 0 => Err(Reason::FragmentTiny),
                // A fragment of a fragment, which no sender makes, among them.
                _ => {
                    packet.options = Screen::ExtensionHeaders.bit();
                    Err(Reason::Ipv6ExtensionInvalid)
                }
            }
        }
    }
}

/// The chain ended in a header that policy is asked about.
const CHAIN_ENDS: u8 = 1;
/// The chain has a routing header.
const CHAIN_ROUTING: u8 = 2;
/// The chain goes on behind the packet's end.
const CHAIN_CUT: u8 = 3;
/// The chain has a fragment header.
const CHAIN_FRAGMENT: u8 = 4;

/// Follows the extension chain (RFC 8200, section 4) from `start` on as far as a fragment header. Returns
/// `outcome << 24 | protocol << 16 | offset`: one register, as a larger result would come back through the caller's stack.
#[inline(never)]
fn extension_chain(
    looping: &impl Repeat,
    headers: &HeaderBuffer,
    first: u8,
    start: usize,
    end: usize,
) -> u32 {
    let mut next = first;
    let mut at = start;
    let mut outcome = 0;
    // RFC 8200 names seven headers, destination options twice.
    looping.repeat(8, |turn| {
        match next {
            // Hop-by-hop options stand first or nowhere.
            0 if turn > 0 || start != ETHERNET_BYTES + 40 => return true,
            0 | 60 => {}
            43 => {
                outcome = u32::from(CHAIN_ROUTING) << 24;
                return true;
            }
            44 => {
                outcome = u32::from(CHAIN_FRAGMENT) << 24 | at as u32;
                return true;
            }
            // Everything else, AH and ESP and "no next header" included, is what policy is asked about.
            _ => {
                outcome = u32::from(CHAIN_ENDS) << 24 | u32::from(next) << 16 | at as u32;
                return true;
            }
        }
        if at + 8 > end {
            outcome = u32::from(CHAIN_CUT) << 24;
            return true;
        }
        let (Some(following), Some(length)) = (headers.byte(at), headers.byte(at + 1)) else {
            return true;
        };
        next = following;
        at += (usize::from(length) + 1) * 8;
        if at > end {
            outcome = u32::from(CHAIN_CUT) << 24;
        }
        at > end || at >= crate::HEADER_BYTES
    });
    outcome
}

/// Reads the fragment header (RFC 8200, section 4.5) at `packet.fragment_header`, and the chain behind it where there is
/// one: in a first fragment. Returns what [`extension_chain`] does.
#[inline(never)]
fn behind_fragment_header(
    looping: &impl Repeat,
    headers: &HeaderBuffer,
    packet: &mut Packet,
    end: usize,
) -> u32 {
    // Read back, so that the verifier does not follow each place the header may stand at on its own.
    let at = usize::from(packet.fragment_header);
    let cut = u32::from(CHAIN_CUT) << 24;
    // The last field of the header: those in front of it are there too.
    let Some(id) = headers.be32(at + 4) else {
        return cut;
    };
    let Some(field) = headers.be16(at + 2) else {
        return cut;
    };
    let Some(next) = headers.byte(at) else {
        return cut;
    };
    packet.fragment_id = id;
    let (offset, more) = (field & 0xfff8, field & 1 != 0);
    // Neither offset nor more: an atomic fragment, which is a whole packet (RFC 6946).
    if offset != 0 || more {
        place(packet, offset, more);
    }
    if offset != 0 {
        return u32::from(CHAIN_ENDS) << 24 | u32::from(next) << 16 | (at + 8) as u32;
    }
    extension_chain(looping, headers, next, at + 8, end)
}

/// Bytes of the packet from layer 4 on.
#[inline(always)]
fn l4_bytes(packet: &Packet) -> u32 {
    packet.l3_bytes.saturating_sub(u32::from(packet.l4 - packet.l3))
}

#[inline(always)]
fn tcp(headers: &HeaderBuffer, packet: &mut Packet) -> Result<(), Reason> {
    let l4 = usize::from(packet.l4);
    let available = l4_bytes(packet);
    if available < 20 {
        return Err(Reason::Truncated);
    }
    // The urgent pointer ends the fixed header: everything below it is there too.
    headers.be16(l4 + 18).ok_or(Reason::Truncated)?;
    let header_bytes = headers.byte(l4 + 12).ok_or(Reason::Truncated)? >> 4 << 2;
    if header_bytes < 20 {
        return Err(Reason::TcpHeaderInvalid);
    }
    if u32::from(header_bytes) > available {
        return Err(if packet.fragment == 0 {
            Reason::TcpHeaderInvalid
        } else {
            Reason::FragmentTiny
        });
    }
    let flags = headers.byte(l4 + 13).ok_or(Reason::Truncated)?;
    packet.source_port = headers.be16(l4).ok_or(Reason::Truncated)?;
    packet.destination_port = headers.be16(l4 + 2).ok_or(Reason::Truncated)?;
    packet.seq = headers.be32(l4 + 4).ok_or(Reason::Truncated)?;
    packet.ack = headers.be32(l4 + 8).ok_or(Reason::Truncated)?;
    packet.window = headers.be16(l4 + 14).ok_or(Reason::Truncated)?;
    packet.tcp_flags = flags;
    packet.tcp_header_bytes = header_bytes;
    packet.payload_bytes = available - u32::from(header_bytes);
    // Nearly every segment: an acknowledgement that neither begins nor ends anything.
    if flags & (tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST | tcp_flags::ACK | tcp_flags::URG)
        == tcp_flags::ACK
    {
        return Ok(());
    }
    packet.options |= tcp_screens(flags, packet.destination_port);
    let syn = flags & tcp_flags::SYN != 0;
    if syn && packet.fragment != 0 {
        packet.options |= Screen::SynFragment.bit();
    }
    let invalid = flags & 0x3f == 0
        || (syn && flags & (tcp_flags::FIN | tcp_flags::RST) != 0)
        || (flags & (tcp_flags::FIN | tcp_flags::ACK | tcp_flags::RST) == tcp_flags::FIN);
    if invalid {
        Err(Reason::TcpFlagsInvalid)
    } else {
        Ok(())
    }
}

/// The screens that concern TCP flags and port.
#[inline(always)]
fn tcp_screens(flags: u8, destination_port: u16) -> u64 {
    let mut screens = 0;
    if flags & 0x3f == 0 {
        screens |= Screen::TcpNoFlags.bit();
    }
    if flags & (tcp_flags::SYN | tcp_flags::FIN) == tcp_flags::SYN | tcp_flags::FIN {
        screens |= Screen::TcpSynFin.bit();
    }
    if flags & (tcp_flags::FIN | tcp_flags::ACK) == tcp_flags::FIN {
        screens |= Screen::TcpFinNoAck.bit();
    }
    // NetBIOS session service: what hung Windows 95.
    if flags & tcp_flags::URG != 0 && destination_port == 139 {
        screens |= Screen::Winnuke.bit();
    }
    screens
}

/// An ICMP message of more bytes than this is large.
const LARGE_ICMP_BYTES: u32 = 1024;

#[inline(always)]
fn udp(headers: &HeaderBuffer, gso: bool, packet: &mut Packet) -> Result<(), Reason> {
    let l4 = usize::from(packet.l4);
    let available = l4_bytes(packet);
    if available < 8 {
        return Err(Reason::Truncated);
    }
    headers.be16(l4 + 6).ok_or(Reason::Truncated)?;
    packet.source_port = headers.be16(l4).ok_or(Reason::Truncated)?;
    packet.destination_port = headers.be16(l4 + 2).ok_or(Reason::Truncated)?;
    let length = u32::from(headers.be16(l4 + 4).ok_or(Reason::Truncated)?);
    // A GSO aggregate may carry the length of one segment, a first fragment has that of the datagram; any other packet's
    // must be exact enough to trust.
    if length < 8 || (length > available && !gso && packet.fragment == 0) {
        return Err(Reason::UdpHeaderInvalid);
    }
    packet.payload_bytes = available - 8;
    Ok(())
}

/// SCTP (RFC 9260, 3.1), DCCP (RFC 4340, 5.1) and UDP-Lite (RFC 3828, 3.1): ports first.
#[inline(never)]
fn other_ports(headers: &HeaderBuffer, packet: &mut Packet) -> Result<(), Reason> {
    let l4 = usize::from(packet.l4);
    let available = l4_bytes(packet);
    let header_bytes = if packet.protocol == protocol::UDP_LITE {
        8
    } else {
        12
    };
    if available < header_bytes {
        return Err(Reason::Truncated);
    }
    headers.be16(l4 + 6).ok_or(Reason::Truncated)?;
    packet.source_port = headers.be16(l4).ok_or(Reason::Truncated)?;
    packet.destination_port = headers.be16(l4 + 2).ok_or(Reason::Truncated)?;
    packet.payload_bytes = available - header_bytes;
    if packet.protocol == protocol::UDP_LITE {
        // How much the checksum covers: all of it, or at least the header.
        let coverage = u32::from(headers.be16(l4 + 4).ok_or(Reason::Truncated)?);
        if coverage != 0 && (coverage < 8 || coverage > available) {
            return Err(Reason::UdpHeaderInvalid);
        }
    }
    Ok(())
}

#[inline(always)]
fn icmp(headers: &HeaderBuffer, packet: &mut Packet) -> Result<(), Reason> {
    let l4 = usize::from(packet.l4);
    if l4_bytes(packet) < 8 {
        return Err(Reason::Truncated);
    }
    headers.be16(l4 + 6).ok_or(Reason::Truncated)?;
    packet.icmp = headers.be16(l4).ok_or(Reason::Truncated)?;
    packet.payload_bytes = l4_bytes(packet) - 8;
    if l4_bytes(packet) > LARGE_ICMP_BYTES {
        packet.options |= Screen::IcmpLarge.bit();
    }
    match packet.icmp_kind() {
        IcmpKind::Request | IcmpKind::Reply => {
            let id = headers.be16(l4 + 4).ok_or(Reason::Truncated)?;
            packet.source_port = id;
            packet.destination_port = id;
        }
        IcmpKind::Error | IcmpKind::Other => {}
    }
    if packet.family == 6 {
        // Router and neighbour discovery (RFC 4861) and multicast listener discovery (RFC 2710, RFC 3810) live on
        // one link; the kernel checks their hop limit.
        let multicast_listener = matches!(packet.icmp >> 8, 130..=132 | 143) && packet.ttl == 1;
        // Not in fragments: RFC 6980.
        let discovery = matches!(packet.icmp >> 8, 133..=137) || multicast_listener;
        if discovery && packet.fragment == 0 {
            packet.kind = Kind::NeighbourDiscovery;
        }
    }
    Ok(())
}
