//! The measured packet: 60 bytes of UDP over IPv4, complete and correct, the same for every contender.
//!
//! Owns the template that the source program carries and the arithmetic it finishes each frame with; the tests hold
//! the two together. One flow is one source port.

use std::net::Ipv4Addr;

/// Bytes of a frame, without the frame check sequence.
pub const FRAME_BYTES: usize = 60;
/// Bytes the source program rewrites on every run.
pub const REWRITTEN_BYTES: usize = 48;
/// Hops the packet may take when it leaves the source.
pub const TTL: u8 = 64;

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const UDP: u8 = 17;
/// Where the source port lies.
const SOURCE_PORT: usize = ETHERNET_BYTES + IPV4_BYTES;
/// Where the UDP checksum lies.
const UDP_CHECKSUM: usize = SOURCE_PORT + 6;

/// What all flows have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameSpec {
    /// MAC address of the firewall's ingress interface.
    pub destination_mac: [u8; 6],
    /// MAC address of the source's interface.
    pub source_mac: [u8; 6],
    /// The source's address.
    pub source: Ipv4Addr,
    /// The sink's address.
    pub destination: Ipv4Addr,
    /// Source port of the first flow.
    pub first_port: u16,
    /// Number of flows.
    pub flows: u16,
    /// Destination port.
    pub destination_port: u16,
}

impl FrameSpec {
    /// A frame whose source port and UDP checksum are zero.
    #[must_use]
    pub fn template(&self) -> [u8; FRAME_BYTES] {
        let mut frame = [0; FRAME_BYTES];
        frame[..6].copy_from_slice(&self.destination_mac);
        frame[6..12].copy_from_slice(&self.source_mac);
        frame[12..14].copy_from_slice(&0x0800u16.to_be_bytes());
        let ip = &mut frame[ETHERNET_BYTES..SOURCE_PORT];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&((FRAME_BYTES - ETHERNET_BYTES) as u16).to_be_bytes());
        ip[6] = 0x40; // do not fragment
        ip[8] = TTL;
        ip[9] = UDP;
        ip[12..16].copy_from_slice(&self.source.octets());
        ip[16..20].copy_from_slice(&self.destination.octets());
        let checksum = !fold(sum(ip));
        ip[10..12].copy_from_slice(&checksum.to_ne_bytes());
        let udp = &mut frame[SOURCE_PORT..];
        let bytes = udp.len() as u16;
        udp[2..4].copy_from_slice(&self.destination_port.to_be_bytes());
        udp[4..6].copy_from_slice(&bytes.to_be_bytes());
        for (index, byte) in udp[8..].iter_mut().enumerate() {
            *byte = index as u8;
        }
        frame
    }

    /// The unfolded sum of the template's pseudo header and segment, over words as they lie in memory.
    #[must_use]
    pub fn partial_sum(&self) -> u32 {
        let template = self.template();
        let segment = &template[SOURCE_PORT..];
        sum(&self.source.octets())
            + sum(&self.destination.octets())
            + sum(&[0, UDP])
            + sum(&(segment.len() as u16).to_be_bytes())
            + sum(segment)
    }

    /// A flow's frame, finished as the source program does it.
    #[must_use]
    pub fn finished(&self, flow: u16) -> [u8; FRAME_BYTES] {
        let mut frame = self.template();
        let port = self.first_port + flow;
        frame[SOURCE_PORT..SOURCE_PORT + 2].copy_from_slice(&port.to_be_bytes());
        let checksum = match !fold(self.partial_sum() + u32::from(port.to_be())) {
            0 => 0xffff,
            checksum => checksum,
        };
        frame[UDP_CHECKSUM..UDP_CHECKSUM + 2].copy_from_slice(&checksum.to_ne_bytes());
        frame
    }

    /// The part of the template that the program carries, as the words it stores.
    #[must_use]
    pub fn words(&self) -> [u64; REWRITTEN_BYTES / 8] {
        let template = self.template();
        let (words, _) = template[..REWRITTEN_BYTES].as_chunks::<8>();
        std::array::from_fn(|index| u64::from_ne_bytes(words[index]))
    }
}

/// One's-complement sum of an even number of bytes, words in memory's order (RFC 1071, section 2 B).
fn sum(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<2>();
    debug_assert!(rest.is_empty());
    words
        .iter()
        .map(|word| u32::from(u16::from_ne_bytes(*word)))
        .sum()
}

const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: FrameSpec = FrameSpec {
        destination_mac: [2, 0, 0, 0, 0, 1],
        source_mac: [2, 0, 0, 0, 0, 2],
        source: Ipv4Addr::new(10, 77, 0, 2),
        destination: Ipv4Addr::new(10, 77, 1, 2),
        first_port: 20_000,
        flows: 10_000,
        destination_port: 4_242,
    };

    #[test]
    fn every_flow_has_right_checksums() {
        for flow in 0..SPEC.flows {
            let frame = SPEC.finished(flow);
            bulkhead_testkit::verify_checksums(&frame).unwrap_or_else(|error| panic!("flow {flow}: {error}"));
        }
    }

    #[test]
    fn a_checksum_that_comes_out_as_zero_is_sent_as_ones() {
        let frame = (0..=u16::MAX - SPEC.first_port)
            .map(|flow| SPEC.finished(flow))
            .find(|frame| frame[UDP_CHECKSUM..][..2] == [0xff, 0xff])
            .expect("a flow whose checksum is zero");
        bulkhead_testkit::verify_checksums(&frame).expect("right checksums");
    }

    #[test]
    fn flows_differ_in_port_and_checksum_only() {
        let (a, b) = (SPEC.finished(0), SPEC.finished(1));
        let differing: Vec<usize> = (0..FRAME_BYTES).filter(|&at| a[at] != b[at]).collect();
        assert!(
            differing.iter().all(|at| [34, 35, 40, 41].contains(at)),
            "{differing:?}"
        );
    }
}
