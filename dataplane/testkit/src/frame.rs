//! Frames for tests: right in every field unless a test says otherwise.
//!
//! Owns lengths, next-header chains and checksums; a test sets what it is about and no more. Assumes
//! nothing about what the frame is for: [`Frame::ipv4`], [`Frame::tcp_header`] and the like open every
//! header for malformed packets. Refuses to build what has no meaning (an IPv4 source with an IPv6
//! destination) by panicking: that is a mistake in the test.

use std::net::IpAddr;

use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpFragOffset, IpNumber,
    Ipv4Header, Ipv6FlowLabel, Ipv6Header, SingleVlanHeader, TcpHeader, UdpHeader, VlanId,
};

use crate::digest::Content;
use crate::verify;

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
    Icmp { kind: u8, code: u8, rest: [u8; 4] },
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
                Ipv4Header::new(0, 64, IpNumber(253), source.octets(), destination.octets()).expect("length 0 fits"),
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
                self.extensions.push((IpNumber::IPV6_FRAGMENTATION_HEADER.0, body));
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
        self.transport = Transport::Udp(UdpHeader { source_port, destination_port, length: 0, checksum: 0 });
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

    const fn is_v4(&self) -> bool {
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

    fn link_header(&self) -> Vec<u8> {
        let inner = self.ether_type.map_or(
            if self.is_v4() { EtherType::IPV4 } else { EtherType::IPV6 },
            EtherType,
        );
        let outer = if self.vlans.is_empty() { inner } else { EtherType::VLAN_TAGGED_FRAME };
        let ethernet =
            Ethernet2Header { source: self.source_mac, destination: self.destination_mac, ether_type: outer };
        let mut bytes = ethernet.to_bytes().to_vec();
        for (number, id) in self.vlans.iter().enumerate() {
            let tag = SingleVlanHeader {
                vlan_id: VlanId::try_new(*id).expect("a VLAN id of 12 bits"),
                ether_type: if number + 1 == self.vlans.len() { inner } else { EtherType::VLAN_TAGGED_FRAME },
                ..SingleVlanHeader::default()
            };
            bytes.extend(tag.to_bytes());
        }
        bytes
    }

    fn protocol_number(&self) -> u8 {
        match (&self.transport, self.is_v4()) {
            (Transport::Tcp(_), _) => IpNumber::TCP.0,
            (Transport::Udp(_), _) => IpNumber::UDP.0,
            (Transport::Icmp { .. }, true) => IpNumber::ICMP.0,
            (Transport::Icmp { .. }, false) => IpNumber::IPV6_ICMP.0,
            (Transport::Raw(number), _) => *number,
        }
    }

    fn network_header(&self, body_bytes: usize) -> Vec<u8> {
        match &self.network {
            Network::V4(header) => {
                let mut header = header.clone();
                header.protocol = IpNumber(self.protocol_number());
                header.set_payload_len(body_bytes).expect("an IPv4 packet of at most 65535 bytes");
                header.header_checksum = header.calc_header_checksum();
                header.to_bytes().to_vec()
            }
            Network::V6(header) => {
                let mut header = header.clone();
                let extensions: usize = self.extensions.iter().map(|(_, body)| body.len()).sum();
                header.payload_length =
                    u16::try_from(extensions + body_bytes).expect("an IPv6 payload of at most 65535 bytes");
                // Each header names the one behind it, the last one the transport.
                let mut names = self.extensions.iter().map(|(number, _)| *number).chain([self.protocol_number()]);
                header.next_header = IpNumber(names.next().expect("at least the transport"));
                let mut bytes = header.to_bytes().to_vec();
                for ((_, body), next) in self.extensions.iter().zip(names) {
                    bytes.push(next);
                    bytes.extend(&body[1..]);
                }
                bytes
            }
        }
    }

    /// Transport header and payload, with the checksum asked for.
    fn transport_bytes(&self) -> Vec<u8> {
        let (mut bytes, at) = match &self.transport {
            Transport::Tcp(header) => {
                let mut header = header.clone();
                header.checksum = match &self.network {
                    Network::V4(ip) => header.calc_checksum_ipv4(ip, &self.payload),
                    Network::V6(ip) => header.calc_checksum_ipv6(ip, &self.payload),
                }
                .expect("a TCP segment of at most 65535 bytes");
                (header.to_bytes().to_vec(), 16)
            }
            Transport::Udp(header) => {
                let length = u16::try_from(8 + self.payload.len()).expect("a datagram of at most 65535 bytes");
                let mut header = UdpHeader { length, ..header.clone() };
                header.checksum = match &self.network {
                    Network::V4(ip) => header.calc_checksum_ipv4(ip, &self.payload),
                    Network::V6(ip) => header.calc_checksum_ipv6(ip, &self.payload),
                }
                .expect("a datagram of at most 65535 bytes");
                (header.to_bytes().to_vec(), 6)
            }
            Transport::Icmp { kind, code, rest } => (self.icmp_header(*kind, *code, *rest), 2),
            Transport::Raw(_) => return self.payload.clone(),
        };
        bytes.extend(&self.payload);
        let correct = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let field = match self.checksum {
            Checksum::Correct => correct,
            Checksum::Zero => 0,
            // 0 and 0xffff are the same number to the checksum, so adding one to 0xffff may be no change.
            Checksum::Wrong if correct >= 0xfffe => 1,
            Checksum::Wrong => correct + 1,
            Checksum::Partial => {
                let length = u32::try_from(bytes.len()).expect("at most 65535 bytes");
                match &self.network {
                    // ICMP over IPv4 has no pseudo-header to sum.
                    Network::V4(_) if matches!(self.transport, Transport::Icmp { .. }) => correct,
                    Network::V4(ip) => {
                        verify::pseudo_header_sum(&ip.source, &ip.destination, self.protocol_number(), length)
                    }
                    Network::V6(ip) => {
                        verify::pseudo_header_sum(&ip.source, &ip.destination, self.protocol_number(), length)
                    }
                }
            }
        };
        bytes[at..at + 2].copy_from_slice(&field.to_be_bytes());
        bytes
    }

    fn icmp_header(&self, kind: u8, code: u8, rest: [u8; 4]) -> Vec<u8> {
        match &self.network {
            Network::V4(_) => {
                let message = Icmpv4Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest };
                Icmpv4Header::with_checksum(message, &self.payload).to_bytes().to_vec()
            }
            Network::V6(ip) => {
                let message = Icmpv6Type::Unknown { type_u8: kind, code_u8: code, bytes5to8: rest };
                Icmpv6Header::with_checksum(message, ip.source, ip.destination, &self.payload)
                    .expect("a message of at most 65535 bytes")
                    .to_bytes()
                    .to_vec()
            }
        }
    }
}

const fn echo(identifier: u16, sequence: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (identifier.to_be_bytes(), sequence.to_be_bytes());
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use etherparse::SlicedPacket;

    use super::*;
    use crate::verify_checksums;

    const V4: (Ipv4Addr, Ipv4Addr) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
    const V6: (Ipv6Addr, Ipv6Addr) =
        (Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1), Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2));

    fn both() -> [Frame; 2] {
        [Frame::ip(V4.0, V4.1), Frame::ip(V6.0, V6.1)]
    }

    fn every_transport(base: &Frame) -> Vec<Frame> {
        let base = || base.clone();
        let inner = base().udp(1, 2).payload_bytes(20).build_packet();
        vec![
            base().tcp(1, 2).syn().payload_bytes(7),
            base().udp(1, 2).payload_bytes(33),
            base().echo_request(5, 6).payload_bytes(56),
            base().icmp_error(if base().is_v4() { 3 } else { 1 }, 1, [0; 4], &inner),
        ]
    }

    #[test]
    fn frames_parse_and_their_checksums_are_right() {
        for base in both() {
            for frame in every_transport(&base) {
                let bytes = frame.clone().vlan(7).vlan(8).build();
                verify_checksums(&bytes).unwrap_or_else(|error| panic!("{frame:?}: {error}"));
                SlicedPacket::from_ethernet(&bytes).unwrap_or_else(|error| panic!("{frame:?}: {error}"));
            }
        }
    }

    #[test]
    fn wrong_partial_and_missing_checksums_are_found_out() {
        for base in both() {
            for frame in every_transport(&base) {
                let wrong = frame.clone().checksum(Checksum::Wrong).build();
                assert!(verify_checksums(&wrong).is_err(), "{frame:?}");
            }
            for frame in &every_transport(&base)[..2] {
                let partial = frame.clone().checksum(Checksum::Partial).build();
                assert!(verify_checksums(&partial).is_err(), "{frame:?}");
            }
        }
        let [v4, v6] = both().map(|base| base.udp(1, 2).checksum(Checksum::Zero).build());
        verify_checksums(&v4).expect("UDP over IPv4 may do without");
        assert!(verify_checksums(&v6).is_err(), "UDP over IPv6 may not (RFC 8200 section 8.1)");
    }

    #[test]
    fn extension_headers_chain_and_options_count() {
        let frame = Frame::ip(V6.0, V6.1).extension(0, &[5, 2, 0, 0]).extension(60, &[1; 9]).udp(1, 2).build();
        verify_checksums(&frame).expect("checksums");
        let parsed = SlicedPacket::from_ethernet(&frame).expect("a packet");
        assert!(matches!(parsed.transport, Some(etherparse::TransportSlice::Udp(_))), "{parsed:?}");
        let frame = Frame::ip(V4.0, V4.1).ipv4_options(&[1, 1, 1, 0]).tcp(1, 2).build();
        assert_eq!(frame[14], 0x46);
        verify_checksums(&frame).expect("checksums");
    }

    #[test]
    fn fragments_put_together_are_the_packet() {
        for base in both() {
            let whole = base.clone().udp(1, 2).payload_bytes(100);
            let header = whole.clone().fragment(0, false, 0).network_header(0).len();
            let fragments = whole.build_fragments(48, 77);
            assert_eq!(fragments.len(), 3);
            let joined: Vec<u8> = fragments.iter().flat_map(|frame| frame[14 + header..].to_vec()).collect();
            assert_eq!(joined, whole.transport_bytes());
            fragments.iter().for_each(|frame| verify_checksums(frame).expect("checksums"));
        }
    }
}
