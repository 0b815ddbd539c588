//! Frames for tests: right in every field unless a test says otherwise.
//!
//! Owns lengths, next-header chains and checksums; a test sets what it is about and no more. Assumes
//! nothing about what the frame is for: [`Frame::ipv4`], [`Frame::tcp_header`] and the like open every
//! header for malformed packets. Refuses to build what has no meaning (an IPv4 source with an IPv6
//! destination) by panicking: that is a mistake in the test.

mod emit;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, TcpHeader, UdpHeader};

use crate::digest::Content;

/// What stands in the checksum fields behind the IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksum {
    /// The right checksum.
    #[default]
    Correct,
    /// The pseudo-header's sum alone, as a stack leaves it for the NIC to complete (`CHECKSUM_PARTIAL`).
    Partial,
    /// Zero: with UDP over IPv4, "not computed".
    Zero,
    /// Off by one.
    Wrong,
}

#[derive(Debug, Clone)]
enum Network {
    V4(Ipv4Header),
    V6(Ipv6Header),
}

#[derive(Debug, Clone)]
enum Transport {
    Tcp(TcpHeader),
    Udp(UdpHeader),
    /// ICMP or ICMPv6, by the family of the network header.
    Icmp {
        kind: u8,
        code: u8,
        rest: [u8; 4],
    },
    /// The payload as it is, under this protocol number.
    Raw(u8),
}

/// An Ethernet frame under construction.
#[derive(Debug, Clone)]
pub struct Frame {
    source_mac: [u8; 6],
    destination_mac: [u8; 6],
    vlans: Vec<u16>,
    ether_type: Option<u16>,
    network: Network,
    /// IPv6 extension headers: number, and body with room for the next header in its first byte.
    extensions: Vec<(u8, Vec<u8>)>,
    transport: Transport,
    payload: Vec<u8>,
    checksum: Checksum,
}

impl Frame {
    /// A packet between two addresses of one family; protocol 253 (for experiments) until told otherwise.
    ///
    /// # Panics
    /// If the families differ.
    pub fn ip(source: impl Into<IpAddr>, destination: impl Into<IpAddr>) -> Self {
        let network = match (source.into(), destination.into()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Network::V4(
                Ipv4Header::new(0, 64, IpNumber(253), source.octets(), destination.octets())
                    .expect("length 0 fits"),
            ),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Network::V6(Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: 0,
                next_header: IpNumber(253),
                hop_limit: 64,
                source: source.octets(),
                destination: destination.octets(),
            }),
            (source, destination) => panic!("no packet goes from {source} to {destination}"),
        };
        Self {
            source_mac: [2, 0, 0, 0, 0, 1],
            destination_mac: [2, 0, 0, 0, 0, 2],
            vlans: Vec::new(),
            ether_type: None,
            network,
            extensions: Vec::new(),
            transport: Transport::Raw(253),
            payload: Vec::new(),
            checksum: Checksum::Correct,
        }
    }

    /// Sets both MAC addresses.
    #[must_use]
    pub const fn macs(mut self, source: [u8; 6], destination: [u8; 6]) -> Self {
        (self.source_mac, self.destination_mac) = (source, destination);
        self
    }

    /// Adds an 802.1Q tag behind the ones there are.
    #[must_use]
    pub fn vlan(mut self, id: u16) -> Self {
        self.vlans.push(id);
        self
    }

    /// Claims another EtherType than that of the packet.
    #[must_use]
    pub const fn ether_type(mut self, ether_type: u16) -> Self {
        self.ether_type = Some(ether_type);
        self
    }

    /// Sets the time to live, or hop limit.
    #[must_use]
    pub fn ttl(mut self, ttl: u8) -> Self {
        match &mut self.network {
            Network::V4(header) => header.time_to_live = ttl,
            Network::V6(header) => header.hop_limit = ttl,
        }
        self
    }

    /// Changes the IPv4 header; length, protocol and checksum are set later all the same.
    ///
    /// # Panics
    /// If this is an IPv6 packet.
    #[must_use]
    pub fn ipv4(mut self, change: impl FnOnce(&mut Ipv4Header)) -> Self {
        match &mut self.network {
            Network::V4(header) => change(header),
            Network::V6(_) => panic!("this is an IPv6 packet"),
        }
        self
    }

    /// Changes the IPv6 header; length and next header are set later all the same.
    ///
    /// # Panics
    /// If this is an IPv4 packet.
    #[must_use]
    pub fn ipv6(mut self, change: impl FnOnce(&mut Ipv6Header)) -> Self {
        match &mut self.network {
            Network::V6(header) => change(header),
            Network::V4(_) => panic!("this is an IPv4 packet"),
        }
        self
    }

    /// Sets the IPv4 options: up to 40 bytes, a multiple of 4.
    ///
    /// # Panics
    /// If this is an IPv6 packet, or the length is impossible.
    #[must_use]
    pub fn ipv4_options(self, options: &[u8]) -> Self {
        self.ipv4(|header| header.options = options.try_into().expect("options of 0, 4, .. 40 bytes"))
    }

    /// Adds an IPv6 extension header with a length field (hop-by-hop 0, routing 43, destination 60, ...)
    /// and this content, padded with PadN to a multiple of eight.
    #[must_use]
    pub fn extension(mut self, number: u8, content: &[u8]) -> Self {
        let mut body = vec![0, 0];
        body.extend(content);
        match body.len().next_multiple_of(8) - body.len() {
            0 => {}
            1 => body.push(0),
            padding => {
                body.extend([1, (padding - 2) as u8]);
                body.resize(body.len() + padding - 2, 0);
            }
        }
        body[1] = u8::try_from(body.len() / 8 - 1).expect("an extension header of at most 2048 bytes");
        self.extensions.push((number, body));
        self
    }

    /// Makes it a fragment. `offset_bytes` is a multiple of 8. The payload of a later fragment is given
    /// with [`Self::protocol`] and [`Self::payload`]; [`Self::build_fragments`] cuts a whole packet.
    #[must_use]
    pub fn fragment(mut self, offset_bytes: u16, more: bool, identification: u32) -> Self {
        match &mut self.network {
            Network::V4(header) => {
                header.fragment_offset = IpFragOffset::try_new(offset_bytes / 8).expect("13 bits of offset");
                header.more_fragments = more;
                header.dont_fragment = false;
                header.identification = identification as u16;
            }
            Network::V6(_) => {
                let mut body = vec![0, 0];
                body.extend((offset_bytes | u16::from(more)).to_be_bytes());
                body.extend(identification.to_be_bytes());
                self.extensions
                    .push((IpNumber::IPV6_FRAGMENTATION_HEADER.0, body));
            }
        }
        self
    }

    /// Makes it TCP, with no flags set.
    #[must_use]
    pub fn tcp(mut self, source_port: u16, destination_port: u16) -> Self {
        self.transport = Transport::Tcp(TcpHeader::new(source_port, destination_port, 1000, 64240));
        self
    }

    /// Changes the TCP header; the checksum is set later all the same.
    ///
    /// # Panics
    /// If this is no TCP segment.
    #[must_use]
    pub fn tcp_header(mut self, change: impl FnOnce(&mut TcpHeader)) -> Self {
        match &mut self.transport {
            Transport::Tcp(header) => change(header),
            other => panic!("this is no TCP segment but {other:?}"),
        }
        self
    }

    /// Sets SYN.
    #[must_use]
    pub fn syn(self) -> Self {
        self.tcp_header(|header| header.syn = true)
    }

    /// Sets ACK and what it acknowledges.
    #[must_use]
    pub fn ack(self, number: u32) -> Self {
        self.tcp_header(|header| (header.ack, header.acknowledgment_number) = (true, number))
    }

    /// Sets FIN.
    #[must_use]
    pub fn fin(self) -> Self {
        self.tcp_header(|header| header.fin = true)
    }

    /// Sets RST.
    #[must_use]
    pub fn rst(self) -> Self {
        self.tcp_header(|header| header.rst = true)
    }

    /// Sets the sequence number.
    #[must_use]
    pub fn seq(self, number: u32) -> Self {
        self.tcp_header(|header| header.sequence_number = number)
    }

    /// Makes it UDP.
    #[must_use]
    pub fn udp(mut self, source_port: u16, destination_port: u16) -> Self {
        self.transport = Transport::Udp(UdpHeader {
            source_port,
            destination_port,
            length: 0,
            checksum: 0,
        });
        self
    }

    /// Makes it an echo request of the family.
    #[must_use]
    pub fn echo_request(self, identifier: u16, sequence: u16) -> Self {
        let kind = if self.is_v4() { 8 } else { 128 };
        self.icmp(kind, 0, echo(identifier, sequence))
    }

    /// Makes it an echo reply of the family.
    #[must_use]
    pub fn echo_reply(self, identifier: u16, sequence: u16) -> Self {
        let kind = if self.is_v4() { 0 } else { 129 };
        self.icmp(kind, 0, echo(identifier, sequence))
    }

    /// Makes it ICMP or ICMPv6, whatever the family asks for. `rest` is the second word of the header.
    #[must_use]
    pub fn icmp(mut self, kind: u8, code: u8, rest: [u8; 4]) -> Self {
        self.transport = Transport::Icmp { kind, code, rest };
        self
    }

    /// Makes it an ICMP error about `packet`, which begins with its IP header.
    #[must_use]
    pub fn icmp_error(self, kind: u8, code: u8, rest: [u8; 4], packet: &[u8]) -> Self {
        self.icmp(kind, code, rest).payload(packet)
    }

    /// Makes it another protocol, with the payload right behind the IP header.
    #[must_use]
    pub fn protocol(mut self, number: u8) -> Self {
        self.transport = Transport::Raw(number);
        self
    }

    /// Sets the payload.
    #[must_use]
    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// Sets a payload of this many bytes, the same ones every time.
    #[must_use]
    pub fn payload_bytes(mut self, length: usize) -> Self {
        self.payload = vec![0; length];
        Content::new(length as u64).fill(&mut self.payload);
        self
    }

    /// Chooses what stands in the transport checksum.
    #[must_use]
    pub const fn checksum(mut self, checksum: Checksum) -> Self {
        self.checksum = checksum;
        self
    }

    /// Whether it is an IPv4 packet.
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        matches!(self.network, Network::V4(_))
    }

    /// The frame.
    ///
    /// # Panics
    /// If it does not fit the length fields.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut frame = self.link_header();
        frame.extend(self.build_packet());
        frame
    }

    /// The packet without its link header.
    ///
    /// # Panics
    /// If it does not fit the length fields.
    #[must_use]
    pub fn build_packet(&self) -> Vec<u8> {
        let body = self.transport_bytes();
        let mut packet = self.network_header(body.len());
        packet.extend(body);
        packet
    }

    /// The frames of the packet in fragments of `bytes` (a multiple of 8) behind the IP header each.
    #[must_use]
    pub fn build_fragments(&self, bytes: usize, identification: u32) -> Vec<Vec<u8>> {
        let whole = self.transport_bytes();
        let last = whole.len().saturating_sub(1) / bytes;
        let pieces = whole.chunks(bytes).enumerate().map(|(number, piece)| {
            let offset = u16::try_from(number * bytes).expect("a packet of at most 65535 bytes");
            let fragment = self.clone().fragment(offset, number != last, identification);
            let mut frame = fragment.link_header();
            frame.extend(fragment.network_header(piece.len()));
            frame.extend(piece);
            frame
        });
        pieces.collect()
    }
}

const fn echo(identifier: u16, sequence: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (identifier.to_be_bytes(), sequence.to_be_bytes());
    [a, b, c, d]
}
