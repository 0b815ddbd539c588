//! The measured packet: UDP over IPv4, complete and correct, the same for every contender.
//!
//! Owns the template that the source program carries and the arithmetic it finishes each frame with; the tests hold
//! the two together. A flow is a source port and, beyond [`PORTS`] of them, a further source address; a target is a
//! destination address.

use std::net::Ipv4Addr;

/// Bytes of the smallest frame, without the frame check sequence.
pub const FRAME_BYTES: usize = 60;
/// Bytes the source program rewrites on every run.
pub const REWRITTEN_BYTES: usize = 48;
/// Hops the packet may take when it leaves the source.
pub const TTL: u8 = 64;
/// Source ports of one source address.
pub const PORTS: u32 = 1 << 14;
/// The source program's shapes at most.
pub const SHAPES: usize = 12;

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
    /// Source address of the first flows.
    pub first_source: Ipv4Addr,
    /// Destination address of target 0.
    pub first_target: Ipv4Addr,
    /// Source port of the first flow.
    pub first_port: u16,
    /// Destination port.
    pub destination_port: u16,
}

/// What the source program must know of frames of one size: an entry of its table of shapes.
pub type Shape = [u32; 4];

impl FrameSpec {
    /// A frame whose addresses, lengths, source port and checksums are zero.
    #[must_use]
    pub fn template(&self, bytes: usize) -> Vec<u8> {
        let mut frame = vec![0; bytes];
        frame[..6].copy_from_slice(&self.destination_mac);
        frame[6..12].copy_from_slice(&self.source_mac);
        frame[12..14].copy_from_slice(&0x0800u16.to_be_bytes());
        let ip = &mut frame[ETHERNET_BYTES..SOURCE_PORT];
        ip[0] = 0x45;
        ip[6] = 0x40; // do not fragment
        ip[8] = TTL;
        ip[9] = UDP;
        let udp = &mut frame[SOURCE_PORT..];
        udp[2..4].copy_from_slice(&self.destination_port.to_be_bytes());
        for (index, byte) in udp[8..].iter_mut().enumerate() {
            *byte = index as u8;
        }
        frame
    }

    /// What the source program needs for frames of `bytes`, an even number.
    #[must_use]
    pub fn shape(&self, bytes: usize) -> Shape {
        let template = self.template(bytes);
        let (total, segment) = lengths(bytes);
        let word = u32::from(u16::from_ne_bytes(total)) | u32::from(u16::from_ne_bytes(segment)) << 16;
        let ip_sum = sum(&template[ETHERNET_BYTES..SOURCE_PORT]) + sum(&total);
        // The length counts twice: in the pseudo header and in the header.
        let segment_sum = sum(&[0, UDP]) + 2 * sum(&segment) + sum(&template[SOURCE_PORT..]);
        [
            bytes as u32,
            word,
            u32::from(fold(ip_sum)),
            u32::from(fold(segment_sum)),
        ]
    }

    /// A flow's frame, finished as the source program does it.
    #[must_use]
    pub fn finished(&self, bytes: usize, flow: u32, target: u32) -> Vec<u8> {
        let mut frame = self.template(bytes);
        let [_, _, ip_sum, segment_sum] = self.shape(bytes);
        let (total, segment) = lengths(bytes);
        let source = (u32::from(self.first_source) + flow / PORTS).to_be_bytes();
        let destination = (u32::from(self.first_target) + target).to_be_bytes();
        let port = (self.first_port + (flow % PORTS) as u16).to_be_bytes();
        let addresses = sum(&source) + sum(&destination);
        let checksum = match !fold(segment_sum + addresses + sum(&port)) {
            0 => 0xffff,
            checksum => checksum,
        };
        frame[16..18].copy_from_slice(&total);
        frame[24..26].copy_from_slice(&(!fold(ip_sum + addresses)).to_ne_bytes());
        frame[26..30].copy_from_slice(&source);
        frame[30..34].copy_from_slice(&destination);
        frame[34..36].copy_from_slice(&port);
        frame[38..40].copy_from_slice(&segment);
        frame[UDP_CHECKSUM..UDP_CHECKSUM + 2].copy_from_slice(&checksum.to_ne_bytes());
        frame
    }

    /// The part of the template that the program carries, as the words it stores.
    #[must_use]
    pub fn words(&self) -> [u64; REWRITTEN_BYTES / 8] {
        let template = self.template(FRAME_BYTES);
        let (words, _) = template[..REWRITTEN_BYTES].as_chunks::<8>();
        std::array::from_fn(|index| u64::from_ne_bytes(words[index]))
    }
}

/// IPv4 total length and UDP length, network byte order.
const fn lengths(bytes: usize) -> ([u8; 2], [u8; 2]) {
    (
        ((bytes - ETHERNET_BYTES) as u16).to_be_bytes(),
        ((bytes - SOURCE_PORT) as u16).to_be_bytes(),
    )
}

/// How large packets are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Size {
    /// All of so many bytes; even.
    Bytes(u16),
    /// Seven of 60, four of 590, one of 1,514: the simple Internet mix of router tests.
    Mixed,
}

impl Size {
    /// The sizes that packets take in turn.
    #[must_use]
    pub fn turns(self) -> Vec<usize> {
        match self {
            Self::Bytes(bytes) => vec![usize::from(bytes)],
            // The small ones between the large ones, not in a row.
            Self::Mixed => [60, 590, 60, 60, 590, 60, 1_514, 60, 590, 60, 60, 590]
                .into_iter()
                .collect(),
        }
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
        first_source: Ipv4Addr::new(10, 128, 0, 1),
        first_target: Ipv4Addr::new(10, 192, 0, 1),
        first_port: 20_000,
        destination_port: 4_242,
    };

    #[test]
    fn every_flow_has_right_checksums_at_every_size() {
        for bytes in [FRAME_BYTES, 590, 1_514] {
            for flow in (0..PORTS * 5).step_by(97) {
                let frame = SPEC.finished(bytes, flow, flow % 61);
                bulkhead_testkit::verify_checksums(&frame)
                    .unwrap_or_else(|error| panic!("{bytes} bytes, flow {flow}: {error}"));
            }
        }
    }

    #[test]
    fn a_checksum_that_comes_out_as_zero_is_sent_as_ones() {
        let frame = (0..=u32::from(u16::MAX))
            .map(|target| SPEC.finished(FRAME_BYTES, 0, target))
            .find(|frame| frame[UDP_CHECKSUM..][..2] == [0xff, 0xff])
            .expect("a flow whose checksum is zero");
        bulkhead_testkit::verify_checksums(&frame).expect("right checksums");
    }

    #[test]
    fn flows_differ_in_port_and_checksum_only_until_the_ports_are_used_up() {
        let differing = |a: u32, b: u32| -> Vec<usize> {
            let (a, b) = (SPEC.finished(60, a, 0), SPEC.finished(60, b, 0));
            (0..FRAME_BYTES).filter(|&at| a[at] != b[at]).collect()
        };
        assert_eq!(differing(0, 1), [35, 41]);
        // The next address; the IPv4 checksum with it.
        assert_eq!(differing(0, PORTS), [25, 29, 41]);
    }

    #[test]
    fn the_mix_is_seven_to_four_to_one_and_fits_the_table() {
        let turns = Size::Mixed.turns();
        let count = |bytes| turns.iter().filter(|turn| **turn == bytes).count();
        assert_eq!((count(60), count(590), count(1_514)), (7, 4, 1));
        assert_eq!(turns.len(), SHAPES);
    }
}
