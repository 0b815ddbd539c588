//! From a [`Frame`] to bytes: lengths, next-header chains and checksums.

use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type, IpNumber,
    SingleVlanHeader, UdpHeader, VlanId,
};

use super::{Checksum, Frame, Network, Transport};
use crate::verify;

impl Frame {
    pub(super) fn link_header(&self) -> Vec<u8> {
        let inner = self.ether_type.map_or(
            if self.is_v4() {
                EtherType::IPV4
            } else {
                EtherType::IPV6
            },
            EtherType,
        );
        let outer = if self.vlans.is_empty() {
            inner
        } else {
            EtherType::VLAN_TAGGED_FRAME
        };
        let ethernet = Ethernet2Header {
            source: self.source_mac,
            destination: self.destination_mac,
            ether_type: outer,
        };
        let mut bytes = ethernet.to_bytes().to_vec();
        for (number, id) in self.vlans.iter().enumerate() {
            let tag = SingleVlanHeader {
                vlan_id: VlanId::try_new(*id).expect("a VLAN id of 12 bits"),
                ether_type: if number + 1 == self.vlans.len() {
                    inner
                } else {
                    EtherType::VLAN_TAGGED_FRAME
                },
                ..SingleVlanHeader::default()
            };
            bytes.extend(tag.to_bytes());
        }
        bytes
    }

    pub(super) fn protocol_number(&self) -> u8 {
        match (&self.transport, self.is_v4()) {
            (Transport::Tcp(_), _) => IpNumber::TCP.0,
            (Transport::Udp(_), _) => IpNumber::UDP.0,
            (Transport::Icmp { .. }, true) => IpNumber::ICMP.0,
            (Transport::Icmp { .. }, false) => IpNumber::IPV6_ICMP.0,
            (Transport::Raw(number), _) => *number,
        }
    }

    pub(super) fn network_header(&self, body_bytes: usize) -> Vec<u8> {
        match &self.network {
            Network::V4(header) => {
                let mut header = header.clone();
                header.protocol = IpNumber(self.protocol_number());
                header
                    .set_payload_len(body_bytes)
                    .expect("an IPv4 packet of at most 65535 bytes");
                header.header_checksum = header.calc_header_checksum();
                header.to_bytes().to_vec()
            }
            Network::V6(header) => {
                let mut header = header.clone();
                let extensions: usize = self.extensions.iter().map(|(_, body)| body.len()).sum();
                header.payload_length =
                    u16::try_from(extensions + body_bytes).expect("an IPv6 payload of at most 65535 bytes");
                // Each header names the one behind it, the last one the transport.
                let mut names = self
                    .extensions
                    .iter()
                    .map(|(number, _)| *number)
                    .chain([self.protocol_number()]);
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
    pub(super) fn transport_bytes(&self) -> Vec<u8> {
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
                let length =
                    u16::try_from(8 + self.payload.len()).expect("a datagram of at most 65535 bytes");
                let mut header = UdpHeader {
                    length,
                    ..header.clone()
                };
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

    pub(super) fn icmp_header(&self, kind: u8, code: u8, rest: [u8; 4]) -> Vec<u8> {
        match &self.network {
            Network::V4(_) => {
                let message = Icmpv4Type::Unknown {
                    type_u8: kind,
                    code_u8: code,
                    bytes5to8: rest,
                };
                Icmpv4Header::with_checksum(message, &self.payload)
                    .to_bytes()
                    .to_vec()
            }
            Network::V6(ip) => {
                let message = Icmpv6Type::Unknown {
                    type_u8: kind,
                    code_u8: code,
                    bytes5to8: rest,
                };
                Icmpv6Header::with_checksum(message, ip.source, ip.destination, &self.payload)
                    .expect("a message of at most 65535 bytes")
                    .to_bytes()
                    .to_vec()
            }
        }
    }
}
