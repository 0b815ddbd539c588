//! Frames from nothing, byte by byte from the RFCs: shares no code with the parser they are fed to.
//!
//! Right in every field unless a test says otherwise; [`Frame::build`] fills in lengths and checksums, and what a test
//! wants wrong it changes in the bytes afterwards.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;
pub const DCCP: u8 = 33;
pub const SCTP: u8 = 132;
pub const UDP_LITE: u8 = 136;

/// A frame under construction.
#[derive(Clone, Debug)]
pub struct Frame {
    pub destination_mac: [u8; 6],
    pub source_mac: [u8; 6],
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    /// IPv4 options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers: number and whole body, next header in its first byte.
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub protocol: u8,
    /// Layer 4 header, its checksum zero.
    pub header: Vec<u8>,
    pub payload: Vec<u8>,
    /// Leave the UDP checksum out.
    pub no_checksum: bool,
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

impl Frame {
    pub fn new(source: &str, destination: &str) -> Self {
        Self {
            destination_mac: [0; 6],
            source_mac: [2, 0, 0, 0, 9, 9],
            source: ip(source),
            destination: ip(destination),
            ttl: 64,
            options: Vec::new(),
            extensions: Vec::new(),
            protocol: 253,
            header: Vec::new(),
            payload: Vec::new(),
            no_checksum: false,
        }
    }

    pub fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }

    pub fn to(mut self, mac: [u8; 6]) -> Self {
        self.destination_mac = mac;
        self
    }

    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    pub fn tcp(mut self, source: u16, destination: u16, flags: u8, seq: u32, ack: u32) -> Self {
        self.protocol = TCP;
        self.header = [&source.to_be_bytes()[..], &destination.to_be_bytes()].concat();
        self.header.extend(seq.to_be_bytes());
        self.header.extend(ack.to_be_bytes());
        self.header.extend([0x50, flags, 0x20, 0x00, 0, 0, 0, 0]);
        self
    }

    /// Appends TCP options, a multiple of four bytes.
    pub fn tcp_options(mut self, options: &[u8]) -> Self {
        self.header.extend(options);
        self.header[12] = ((self.header.len() / 4) as u8) << 4;
        self
    }

    pub fn window(mut self, window: u16) -> Self {
        self.header[14..16].copy_from_slice(&window.to_be_bytes());
        self
    }

    pub fn udp(mut self, source: u16, destination: u16) -> Self {
        self.protocol = UDP;
        self.header = [source.to_be_bytes(), destination.to_be_bytes(), [0; 2], [0; 2]].concat();
        self
    }

    /// SCTP with a checksum that is not one: nobody here computes it.
    pub fn sctp(mut self, source: u16, destination: u16) -> Self {
        self.protocol = SCTP;
        self.header = [source.to_be_bytes(), destination.to_be_bytes()].concat();
        self.header
            .extend([0x11, 0x22, 0x33, 0x44, 0xc0, 0xff, 0xee, 0x00]);
        self
    }

    /// A DCCP request (RFC 4340, 5.1) with long sequence numbers, its checksum over everything.
    pub fn dccp(mut self, source: u16, destination: u16) -> Self {
        self.protocol = DCCP;
        self.header = [source.to_be_bytes(), destination.to_be_bytes()].concat();
        self.header
            .extend([5, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
        self
    }

    /// UDP-Lite whose checksum covers so many bytes; 0: all.
    pub fn udp_lite(mut self, source: u16, destination: u16, coverage: u16) -> Self {
        self.protocol = UDP_LITE;
        self.header = [source, destination, coverage, 0].map(u16::to_be_bytes).concat();
        self
    }

    pub fn icmp(mut self, kind: u8, code: u8, rest: [u8; 4]) -> Self {
        self.protocol = if self.is_v4() { ICMP } else { ICMPV6 };
        self.header = vec![kind, code, 0, 0];
        self.header.extend(rest);
        self
    }

    pub fn echo(self, id: u16, sequence: u16) -> Self {
        let kind = if self.is_v4() { 8 } else { 128 };
        self.query(kind, id, sequence)
    }

    pub fn echo_reply(self, id: u16, sequence: u16) -> Self {
        let kind = if self.is_v4() { 0 } else { 129 };
        self.query(kind, id, sequence)
    }

    pub fn query(self, kind: u8, id: u16, sequence: u16) -> Self {
        let ([a, b], [c, d]) = (id.to_be_bytes(), sequence.to_be_bytes());
        self.icmp(kind, 0, [a, b, c, d])
    }

    /// An ICMP error quoting `frame` (its Ethernet header is left out): port unreachable, or with `too_big` what asks
    /// for smaller packets.
    pub fn error(self, quoted: &[u8], too_big: bool) -> Self {
        let (kind, code) = match (self.is_v4(), too_big) {
            (true, false) => (3, 3),
            (true, true) => (3, 4),
            (false, false) => (1, 4),
            (false, true) => (2, 0),
        };
        self.icmp(kind, code, [0, 0, 5, 0]).payload(&quoted[14..])
    }

    pub fn protocol(mut self, number: u8, payload: &[u8]) -> Self {
        self.protocol = number;
        self.header.clear();
        self.payload(payload)
    }

    pub fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    pub fn extension(mut self, number: u8, body: &[u8]) -> Self {
        assert!(
            body.len().is_multiple_of(8),
            "{} bytes of extension header",
            body.len()
        );
        self.extensions.push((number, body.to_vec()));
        self
    }

    /// Built with so many bytes of zeros for payload, without a layer 4 checksum: for what only looks at headers.
    pub fn lengthened(&self, payload_bytes: u32) -> Vec<u8> {
        let mut frame = self.build();
        let payload_bytes = payload_bytes as usize;
        let at = if self.is_v4() { 16 } else { 18 };
        let length = usize::from(u16::from_be_bytes([frame[at], frame[at + 1]])) + payload_bytes;
        let length = u16::try_from(length).expect("a length that fits").to_be_bytes();
        frame[at..at + 2].copy_from_slice(&length);
        if self.is_v4() {
            frame[24..26].fill(0);
            let sum = !crate::verify::ones_complement(0, &frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        frame.resize(frame.len() + payload_bytes, 0);
        frame
    }

    pub fn build(&self) -> Vec<u8> {
        let mut segment = [&self.header[..], &self.payload].concat();
        if self.protocol == UDP {
            let length = segment.len() as u16;
            segment[4..6].copy_from_slice(&length.to_be_bytes());
        }
        let (source, destination) = (octets(self.source), octets(self.destination));
        let at = match self.protocol {
            TCP => Some(16),
            UDP if !self.no_checksum => Some(6),
            DCCP | UDP_LITE => Some(6),
            ICMP if self.is_v4() => Some(2),
            ICMPV6 if !self.is_v4() => Some(2),
            _ => None,
        };
        if let Some(at) = at {
            let pseudo = match self.protocol {
                ICMP => 0,
                number => crate::verify::pseudo(&source, &destination, number, segment.len()),
            };
            let covered = match (self.protocol, u16::from_be_bytes([segment[4], segment[5]])) {
                (UDP_LITE, length @ 1..) => &segment[..usize::from(length)],
                _ => &segment[..],
            };
            let sum = !crate::verify::ones_complement(pseudo, covered);
            let sum = if sum == 0 && matches!(self.protocol, UDP | UDP_LITE) {
                0xffff
            } else {
                sum
            };
            segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        let mut frame = [self.destination_mac, self.source_mac].concat();
        if self.is_v4() {
            frame.extend([8, 0]);
            let header_bytes = 20 + self.options.len();
            let mut header = vec![0x40 | (header_bytes / 4) as u8, 0];
            header.extend(((header_bytes + segment.len()) as u16).to_be_bytes());
            header.extend([0x12, 0x34, 0x40, 0, self.ttl, self.protocol, 0, 0]);
            header.extend(&source);
            header.extend(&destination);
            header.extend(&self.options);
            let sum = !crate::verify::ones_complement(0, &header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend(header);
        } else {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            let chain: usize = self.extensions.iter().map(|(_, body)| body.len()).sum();
            frame.extend(((chain + segment.len()) as u16).to_be_bytes());
            let numbers: Vec<u8> = self
                .extensions
                .iter()
                .map(|(number, _)| *number)
                .chain([self.protocol])
                .collect();
            frame.extend([numbers[0], self.ttl]);
            frame.extend(&source);
            frame.extend(&destination);
            for ((_, body), next) in self.extensions.iter().zip(&numbers[1..]) {
                frame.push(*next);
                frame.extend(&body[1..]);
            }
        }
        frame.extend(segment);
        frame
    }
}

pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Layer 3 facts of a frame without options or extensions, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    /// Layer 4 on.
    pub segment: Vec<u8>,
}

impl Seen {
    pub fn read(frame: &[u8]) -> Self {
        if frame[12] == 8 {
            let header = usize::from(frame[14] & 15) * 4;
            let total = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
            Self {
                source: Ipv4Addr::from(<[u8; 4]>::try_from(&frame[26..30]).unwrap()).into(),
                destination: Ipv4Addr::from(<[u8; 4]>::try_from(&frame[30..34]).unwrap()).into(),
                ttl: frame[22],
                segment: frame[14 + header..14 + total].to_vec(),
            }
        } else {
            Self {
                source: Ipv6Addr::from(<[u8; 16]>::try_from(&frame[22..38]).unwrap()).into(),
                destination: Ipv6Addr::from(<[u8; 16]>::try_from(&frame[38..54]).unwrap()).into(),
                ttl: frame[21],
                segment: frame[54..].to_vec(),
            }
        }
    }

    /// The 16-bit number at an offset of layer 4.
    pub fn word(&self, at: usize) -> u16 {
        u16::from_be_bytes([self.segment[at], self.segment[at + 1]])
    }
}
