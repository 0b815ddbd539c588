//! The slow path: answers that need a packet of their own (TCP resets, ICMP errors).
//!
//! Receives the packet as it arrived, already rate limited by the program; writes the answer and sends it back out of
//! the interface the packet came from, to the station it came from. Refuses to answer what must not be answered:
//! ICMP errors, resets, group addresses (RFC 1122 3.2.2, RFC 1812 4.3.2.7, RFC 4443 2.4 (e)).

use std::{
    io,
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use bulkhead_abi::{SLOW_PATH_MARK, SlowPathKind, SlowPathRequest, protocol, vlan_bytes};
use bulkhead_packet::{HeaderBuffer, IcmpKind, Kind, Packet, PlainLoop, parse, tcp_flags};
use etherparse::{
    Icmpv4Type, Icmpv6Type, PacketBuilder,
    icmpv4::{DestUnreachableHeader, TimeExceededCode},
    icmpv6,
};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, sendto, setsockopt, socket, sockopt,
};

use crate::address::address;

/// Bytes of the offending packet an ICMPv4 error quotes: the whole error stays within 576 (RFC 1812, 4.3.2.3).
const QUOTE_V4: usize = 576 - 20 - 8;
/// The same for ICMPv6, within 1,280 (RFC 4443, 2.4 (c)).
const QUOTE_V6: usize = 1280 - 40 - 8;
/// Hop limit of answers.
const TTL: u8 = 64;

/// A packet socket that sends whole frames.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
}

impl Sender {
    /// Opens the socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or without CAP_NET_ADMIN for the mark.
    pub fn open() -> io::Result<Self> {
        Ok(Self {
            socket: packet_socket(SLOW_PATH_MARK)?,
        })
    }

    /// Sends `frame` out of interface `ifindex`.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let to = link_address(ifindex, frame);
        sendto(self.socket.as_raw_fd(), frame, &to, MsgFlags::empty())?;
        Ok(())
    }
}

/// A packet socket that receives nothing and sends whole frames under a mark.
pub(crate) fn packet_socket(mark: u32) -> io::Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None::<SockProtocol>,
    )?;
    setsockopt(&socket, sockopt::Mark, &mark)?;
    Ok(socket)
}

/// The address of a packet socket: what the frame says itself. The frame has an Ethernet header.
pub(crate) fn link_address(ifindex: u32, frame: &[u8]) -> LinkAddr {
    let mut address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: u16::from_ne_bytes([frame[12], frame[13]]),
        sll_ifindex: ifindex as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: [0; 8],
    };
    address.sll_addr[..6].copy_from_slice(&frame[..6]);
    from_sockaddr(&address)
}

#[expect(
    unsafe_code,
    reason = "nix offers no safe constructor of a link-layer address"
)]
fn from_sockaddr(address: &libc::sockaddr_ll) -> LinkAddr {
    use nix::sys::socket::SockaddrLike as _;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the pointer is to a complete sockaddr_ll of the length given, with the family that LinkAddr expects.
    let converted = unsafe { LinkAddr::from_raw(std::ptr::from_ref(address).cast(), Some(length)) };
    match converted {
        Some(address) => address,
        None => unreachable!("a sockaddr_ll of full length with AF_PACKET is a link address"),
    }
}

/// Writes the answer to a request; `None`: there must be none. `own4` and `own6` are this firewall's addresses on the
/// interface. A wire (`wired`) has none and speaks in the destination's name, as it does when it resets a connection; its
/// answers carry the packet's VLAN tag.
#[must_use]
pub fn answer(
    request: &SlowPathRequest,
    own4: Option<IpAddr>,
    own6: Option<IpAddr>,
    wired: bool,
) -> Option<Vec<u8>> {
    let mut frame = answer_untagged(request, own4, own6, wired)?;
    if request.vlan != 0 {
        // The tag stands behind the stations.
        frame.splice(12..12, vlan_bytes(request.vlan));
    }
    Some(frame)
}

fn answer_untagged(
    request: &SlowPathRequest,
    own4: Option<IpAddr>,
    own6: Option<IpAddr>,
    wired: bool,
) -> Option<Vec<u8>> {
    let length = (request.length as usize).min(request.packet.len());
    let frame = &request.packet[..length];
    let headers = HeaderBuffer::from_frame(frame);
    let mut packet = Packet::default();
    // The copy may be shorter than the frame: lengths were checked when it was parsed the first time.
    parse(&PlainLoop, &headers, u32::MAX, true, &mut packet).ok()?;
    if packet.kind != Kind::Ip || frame[0] & 1 != 0 {
        return None;
    }
    // RFC 1122, 3.2.2: not about a fragment that is not the first. IPv6 has no such rule, but no reset without ports.
    if packet.is_later_fragment() && (packet.family == 4 || packet.protocol == protocol::TCP) {
        return None;
    }
    let source = address(packet.family, &packet.source_be);
    let destination = address(packet.family, &packet.destination_be);
    if source.is_multicast() || source.is_unspecified() || destination.is_multicast() {
        return None;
    }
    let kind = [
        SlowPathKind::Reject,
        SlowPathKind::TtlExceeded,
        SlowPathKind::MtuExceeded,
        SlowPathKind::NoRoute,
        SlowPathKind::Prohibited,
    ]
    .into_iter()
    .find(|kind| *kind as u32 == request.kind)?;
    if kind == SlowPathKind::Reject && packet.protocol == protocol::TCP {
        return reset(frame, &packet, source, destination);
    }
    if matches!(packet.protocol, protocol::ICMP | protocol::ICMPV6)
        && matches!(packet.icmp_kind(), IcmpKind::Error | IcmpKind::Other)
    {
        return None;
    }
    let (own4, own6) = if wired {
        (
            Some(destination).filter(IpAddr::is_ipv4),
            Some(destination).filter(IpAddr::is_ipv6),
        )
    } else {
        (own4, own6)
    };
    icmp_error(kind, request.mtu, frame, &packet, source, own4, own6)
}

/// The frame's stations, turned round.
fn stations(frame: &[u8]) -> ([u8; 6], [u8; 6]) {
    let mut source = [0; 6];
    let mut destination = [0; 6];
    source.copy_from_slice(&frame[0..6]);
    destination.copy_from_slice(&frame[6..12]);
    (source, destination)
}

/// A reset as the closed port would send it (RFC 9293, 3.10.7.1).
fn reset(frame: &[u8], packet: &Packet, source: IpAddr, destination: IpAddr) -> Option<Vec<u8>> {
    if packet.tcp_flags & tcp_flags::RST != 0 {
        return None;
    }
    let (our_mac, their_mac) = stations(frame);
    let builder = PacketBuilder::ethernet2(our_mac, their_mac);
    let builder = match (destination, source) {
        (IpAddr::V4(from), IpAddr::V4(to)) => builder.ipv4(from.octets(), to.octets(), TTL),
        (IpAddr::V6(from), IpAddr::V6(to)) => builder.ipv6(from.octets(), to.octets(), TTL),
        _ => return None,
    };
    let builder = if packet.tcp_flags & tcp_flags::ACK != 0 {
        builder
            .tcp(packet.destination_port, packet.source_port, packet.ack, 0)
            .rst()
    } else {
        let flags = u32::from(packet.tcp_flags & tcp_flags::SYN != 0)
            + u32::from(packet.tcp_flags & tcp_flags::FIN != 0);
        let end = packet.seq.wrapping_add(packet.payload_bytes).wrapping_add(flags);
        builder
            .tcp(packet.destination_port, packet.source_port, 0, 0)
            .rst()
            .ack(end)
    };
    let mut out = Vec::with_capacity(builder.size(0));
    builder.write(&mut out, &[]).ok()?;
    Some(out)
}

fn icmp_error(
    kind: SlowPathKind,
    mtu: u32,
    frame: &[u8],
    packet: &Packet,
    to: IpAddr,
    own4: Option<IpAddr>,
    own6: Option<IpAddr>,
) -> Option<Vec<u8>> {
    let (our_mac, their_mac) = stations(frame);
    let builder = PacketBuilder::ethernet2(our_mac, their_mac);
    let quoted = &frame[usize::from(packet.l3)..];
    let quoted = &quoted[..quoted.len().min(packet.l3_bytes as usize)];
    let mut out = Vec::new();
    match (to, if packet.family == 4 { own4 } else { own6 }) {
        (IpAddr::V4(to), Some(IpAddr::V4(from))) => {
            let quoted = &quoted[..quoted.len().min(QUOTE_V4)];
            let message = match kind {
                SlowPathKind::Reject | SlowPathKind::Prohibited => {
                    Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FilterProhibited)
                }
                SlowPathKind::TtlExceeded => Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit),
                SlowPathKind::MtuExceeded => {
                    let next_hop_mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
                    Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
                        next_hop_mtu,
                    })
                }
                SlowPathKind::NoRoute => Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Network),
            };
            builder
                .ipv4(from.octets(), to.octets(), TTL)
                .icmpv4(message)
                .write(&mut out, quoted)
                .ok()?;
        }
        (IpAddr::V6(to), Some(IpAddr::V6(from))) => {
            let quoted = &quoted[..quoted.len().min(QUOTE_V6)];
            let message = match kind {
                SlowPathKind::Reject | SlowPathKind::Prohibited => {
                    Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Prohibited)
                }
                SlowPathKind::TtlExceeded => {
                    Icmpv6Type::TimeExceeded(icmpv6::TimeExceededCode::HopLimitExceeded)
                }
                SlowPathKind::MtuExceeded => Icmpv6Type::PacketTooBig { mtu },
                SlowPathKind::NoRoute => {
                    Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::NoRoute)
                }
            };
            builder
                .ipv6(from.octets(), to.octets(), TTL)
                .icmpv6(message)
                .write(&mut out, quoted)
                .ok()?;
        }
        // Without an address of the family there is nobody the error could come from.
        _ => return None,
    }
    Some(out)
}
