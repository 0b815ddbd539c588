//! Random traffic that makes sense often enough: openers, answers to what was forwarded, errors about it, traffic of and
//! to the firewall, and all of that bent out of shape.

use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use bulkhead_abi::SlowPathKind;
use bulkhead_packet::{HeaderBuffer, Kind, Packet, PlainLoop, parse};
use bulkhead_pipeline::{Action, host::Outcome};
use bulkhead_testkit::Frame;

/// MAC address of the firewall's interface `number`.
pub const fn mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, number + 1]
}

/// An address as the tables hold it.
pub fn words(address: IpAddr) -> [u32; 4] {
    let mut words = [0; 4];
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    for (word, bytes) in words.iter_mut().zip(octets.chunks_exact(4)) {
        *word = u32::from_ne_bytes(bytes.try_into().unwrap());
    }
    words
}

/// An address that the tables hold.
pub fn address(family: u8, words: [u32; 4]) -> IpAddr {
    let mut octets = [0; 16];
    for (bytes, word) in octets.chunks_exact_mut(4).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    match family {
        4 => Ipv4Addr::from([octets[0], octets[1], octets[2], octets[3]]).into(),
        _ => Ipv6Addr::from(octets).into(),
    }
}

/// The kind of a request, by number.
pub fn slow_path_kind(number: u32) -> SlowPathKind {
    let kinds = [
        SlowPathKind::Reject,
        SlowPathKind::TtlExceeded,
        SlowPathKind::MtuExceeded,
        SlowPathKind::NoRoute,
        SlowPathKind::Prohibited,
    ];
    kinds
        .into_iter()
        .find(|kind| *kind as u32 == number)
        .unwrap_or_else(|| panic!("slow path kind {number}"))
}

/// splitmix64: small, and the same everywhere.
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// A frame, the interface (0 inside, 1 outside, 2 dmz) it enters, or leaves if `egress`.
pub struct Input {
    pub number: usize,
    pub egress: bool,
    pub bytes: Vec<u8>,
}

/// Remembers what was forwarded and delivered, to answer it.
#[derive(Default)]
pub struct Traffic {
    forwarded: VecDeque<(usize, Vec<u8>)>,
    delivered: VecDeque<(usize, Vec<u8>)>,
    /// Fragments still to be sent.
    fragments: VecDeque<(usize, Vec<u8>)>,
    /// Some of it goes to addresses that translation answers for.
    pub translated: bool,
}

const INSIDE: [[&str; 4]; 2] = [
    ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.9"],
    ["2001:db8:1::2", "2001:db8:1::3", "2001:db8:1::4", "2001:db8:1::9"],
];
const OUTSIDE: [[&str; 4]; 2] = [
    ["192.0.2.80", "192.0.2.81", "198.51.100.7", "203.0.113.5"],
    [
        "2001:db8:80::80",
        "2001:db8:80::81",
        "2001:db8:2::7",
        "2001:db8:80::82",
    ],
];
const DMZ: [[&str; 4]; 2] = [
    ["10.3.0.2", "10.3.0.3", "10.3.0.9", "10.3.0.2"],
    ["2001:db8:3::2", "2001:db8:3::3", "2001:db8:3::9", "2001:db8:3::2"],
];
const OWN: [[&str; 3]; 2] = [
    ["10.1.0.1", "198.51.100.1", "10.3.0.1"],
    ["2001:db8:1::1", "2001:db8:2::1", "2001:db8:3::1"],
];
/// What translation answers for: published, static, and addresses of pools.
const TRANSLATED: [[&str; 8]; 2] = [
    [
        "198.51.100.20",
        "198.51.100.34",
        "198.51.100.33",
        "192.0.3.16",
        "192.0.3.17",
        "192.0.3.40",
        "198.51.100.1",
        "198.51.100.1",
    ],
    [
        "2001:db8:2::20",
        // 2001:db8:3::2 and ::3 under RFC 6296.
        "2001:db8:f:0:fff4::2",
        "2001:db8:f:0:fff4::3",
        "2001:db8:f:f::fffe",
        "2001:db8:f:f::ffff",
        "2001:db8:f:f::1:1",
        "2001:db8:2::1",
        "2001:db8:2::1",
    ],
];
const STRANGE: [[&str; 6]; 2] = [
    [
        "127.0.0.1",
        "0.0.0.0",
        "224.0.0.5",
        "255.255.255.255",
        "169.254.1.1",
        "240.1.1.1",
    ],
    ["::1", "::", "ff02::5", "fe80::7", "::ffff:10.1.0.2", "ff05::2"],
];

impl Traffic {
    /// The next frame.
    pub fn next(&mut self, random: &mut Random) -> Input {
        // Whole packets come between the fragments of a datagram, and others' fragments.
        if !self.fragments.is_empty() && !random.one_in(3) {
            let at = if random.one_in(3) {
                random.below(self.fragments.len())
            } else {
                0
            };
            let (number, bytes) = self.fragments.remove(at).expect("inside the queue");
            return Input {
                number,
                egress: false,
                bytes,
            };
        }
        let mut input = match random.below(100) {
            0..6 if self.translated => Self::to_translated(random),
            0..30 => self.opener(random),
            30..70 => self.answer(random),
            70..80 => self.error(random),
            80..85 => Self::to_host(random),
            85..92 => self.own(random),
            92..96 => Self::strange(random),
            _ => Self::link(random),
        };
        if random.one_in(8) {
            bend(random, &mut input.bytes);
        }
        input
    }

    /// Queues the fragments of a packet, now and then with one missing, twice, or not where it belongs.
    fn cut(&mut self, random: &mut Random, number: usize, frame: &Frame) {
        let bytes = random.pick(&[8, 16, 64, 256, 1232, 1400]);
        let id = random.pick(&[1, 2, 3, 0x1_0001]);
        let mut fragments = frame
            .clone()
            .macs([2, 9, 9, 9, 9, 9], mac(number as u8))
            .build_fragments(bytes, id);
        fragments.truncate(20);
        if random.one_in(6) && !fragments.is_empty() {
            fragments.remove(random.below(fragments.len()));
        }
        if random.one_in(6) && !fragments.is_empty() {
            fragments.push(random_of_slice(random, &fragments).clone());
        }
        if random.one_in(6) && !fragments.is_empty() {
            let at = random.below(fragments.len());
            bend(random, &mut fragments[at]);
        }
        self.fragments
            .extend(fragments.into_iter().map(|frame| (number, frame)));
    }

    /// Takes note of what went out, and what was let in.
    pub fn learn(&mut self, outcome: &Outcome) {
        match outcome.verdict.action {
            Action::Redirect | Action::RedirectPeer | Action::RedirectNeighbour => {
                // The source MAC says which interface it left through.
                let number = usize::from(outcome.bytes[11]).saturating_sub(1).min(2);
                self.forwarded.push_back((number, outcome.bytes.clone()));
            }
            Action::Pass => self.delivered.push_back((0, outcome.bytes.clone())),
            Action::Drop | Action::NextHook | Action::Stage | Action::Held => {}
        }
        forget_oldest(&mut self.forwarded, 24);
        forget_oldest(&mut self.delivered, 8);
    }

    fn opener(&mut self, random: &mut Random) -> Input {
        let number = random.pick(&[0, 0, 0, 1, 2]);
        let family = random.below(2);
        let zones = [&INSIDE, &OUTSIDE, &DMZ];
        let to = random.pick(&[1, 1, 2, 0]);
        let frame = Frame::ip(
            parsed(random.pick(&zones[number][family])),
            parsed(random.pick(&zones[to][family])),
        );
        let frame = transport(random, frame, None);
        if random.one_in(8) {
            self.cut(random, number, &frame);
        }
        input(number, frame)
    }

    /// To an address that translation answers for, from any side; often to a port that an inside host uses.
    fn to_translated(random: &mut Random) -> Input {
        let number = random.pick(&[1, 1, 1, 0, 2]);
        let family = random.below(2);
        let zones = [&INSIDE, &OUTSIDE, &DMZ];
        let frame = Frame::ip(
            parsed(random.pick(&zones[number][family])),
            parsed(random.pick(&TRANSLATED[family])),
        );
        if random.one_in(2) {
            let (source, destination) = (random.pick(&[53, 80, 40_000]), random.pick(&[40_000, 40_001]));
            return input(
                number,
                frame.udp(source, destination).payload_bytes(random.below(9)),
            );
        }
        input(number, transport(random, frame, None))
    }

    fn to_host(random: &mut Random) -> Input {
        let number = random.below(3);
        let family = random.below(2);
        let zones = [&INSIDE, &OUTSIDE, &DMZ];
        let own = OWN[family][if random.one_in(4) { random.below(3) } else { number }];
        let frame = Frame::ip(parsed(random.pick(&zones[number][family])), parsed(own));
        input(number, transport(random, frame, None))
    }

    /// A frame of the firewall's own: an opener, or an answer to what it was sent.
    fn own(&self, random: &mut Random) -> Input {
        if let Some((_, frame)) = random_of(random, &self.delivered)
            && let Some(packet) = parsed_packet(frame)
            && packet.kind == Kind::Ip
            && !random.one_in(3)
        {
            let destination = address(packet.family, packet.source_be);
            let number = if INSIDE.iter().flatten().any(|host| parsed(host) == destination) {
                0
            } else {
                1
            };
            return Input {
                egress: true,
                ..input(number, turned(random, &packet))
            };
        }
        let family = random.below(2);
        let frame = Frame::ip(parsed(OWN[family][1]), parsed(random.pick(&OUTSIDE[family])));
        Input {
            egress: true,
            ..input(1, transport(random, frame, None))
        }
    }

    /// The answer to something forwarded, or the same direction again.
    fn answer(&mut self, random: &mut Random) -> Input {
        let Some((number, frame)) = random_of(random, &self.forwarded) else {
            return self.opener(random);
        };
        match parsed_packet(frame) {
            Some(packet) => {
                let (number, frame) = (*number, turned(random, &packet));
                if random.one_in(8) {
                    self.cut(random, number, &frame);
                }
                input(number, frame)
            }
            None => self.opener(random),
        }
    }

    fn error(&mut self, random: &mut Random) -> Input {
        let Some((number, frame)) = random_of(random, &self.forwarded) else {
            return self.opener(random);
        };
        let Some(packet) = parsed_packet(frame) else {
            return self.opener(random);
        };
        let v4 = packet.family == 4;
        let router = match (random.one_in(2), v4) {
            (true, true) => parsed("198.51.100.77"),
            (true, false) => parsed("2001:db8:2::77"),
            (false, _) => address(packet.family, packet.destination_be),
        };
        let (kind, code) = if v4 {
            random.pick(&[(3, 1), (3, 3), (3, 4), (11, 0), (12, 0), (5, 1)])
        } else {
            random.pick(&[(1, 4), (2, 0), (3, 0), (4, 1), (137, 0)])
        };
        let quoted = &frame[14..];
        let length = if random.one_in(3) {
            random.below(quoted.len() + 1)
        } else {
            quoted.len().min(512)
        };
        let error = Frame::ip(router, address(packet.family, packet.source_be));
        input(
            *number,
            error.icmp_error(kind, code, [0, 0, 5, 0], &quoted[..length]),
        )
    }

    fn strange(random: &mut Random) -> Input {
        let family = random.below(2);
        let strange = parsed(random.pick(&STRANGE[family]));
        let normal = parsed(random.pick(&INSIDE[family]));
        let frame = if random.one_in(2) {
            Frame::ip(strange, normal)
        } else {
            Frame::ip(normal, strange)
        };
        let mut input = input(random.below(3), transport(random, frame, None));
        if random.one_in(2) {
            input.bytes[0] |= 1;
        }
        input
    }

    /// ARP, discovery and what is no IP at all.
    fn link(random: &mut Random) -> Input {
        let number = random.below(3);
        let base = Frame::ip(parsed("fe80::2"), parsed("ff02::1:ff00:1")).ttl(random.pick(&[255, 1]));
        let kind = random.pick(&[133, 134, 135, 136, 137, 143, 131, 138]);
        let frame = match random.below(4) {
            0 => Frame::ip(parsed("10.1.0.2"), parsed("10.1.0.1")).ether_type(0x0806),
            1 => Frame::ip(parsed("10.1.0.2"), parsed("10.1.0.1"))
                .ether_type(0x88cc)
                .udp(1, 2),
            2 => Frame::ip(parsed("10.1.0.2"), parsed("192.0.2.80"))
                .vlan(5)
                .udp(1, 2),
            _ => base.icmp(kind, 0, [0; 4]).payload(&[0; 16]),
        };
        let mut input = input(number, frame);
        input.bytes[..6].copy_from_slice(&[0x33, 0x33, 0xff, 0, 0, 1]);
        input
    }
}

/// Keeps the newest.
fn forget_oldest<T>(queue: &mut VecDeque<T>, kept: usize) {
    while queue.len() > kept {
        queue.pop_front();
    }
}

fn parsed(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn parsed_packet(frame: &[u8]) -> Option<Packet> {
    let mut packet = Packet::default();
    parse(
        &PlainLoop,
        &HeaderBuffer::from_frame(frame),
        frame.len() as u32,
        false,
        &mut packet,
    )
    .ok()?;
    Some(packet)
}

fn random_of_slice<'a, T>(random: &mut Random, from: &'a [T]) -> &'a T {
    &from[random.below(from.len())]
}

fn random_of<'a, T>(random: &mut Random, from: &'a VecDeque<T>) -> Option<&'a T> {
    if from.is_empty() {
        None
    } else {
        from.get(random.below(from.len()))
    }
}

fn input(number: usize, frame: Frame) -> Input {
    Input {
        number,
        egress: false,
        bytes: frame.macs([2, 9, 9, 9, 9, 9], mac(number as u8)).build(),
    }
}

/// A packet of the other direction.
fn turned(random: &mut Random, packet: &Packet) -> Frame {
    let frame = Frame::ip(
        address(packet.family, packet.destination_be),
        address(packet.family, packet.source_be),
    );
    transport(random, frame, Some(packet))
}

/// Gives `frame` a transport: of its own choice, or what fits `before`, which travelled the other way.
fn transport(random: &mut Random, frame: Frame, before: Option<&Packet>) -> Frame {
    let length = random.pick(&[0, 0, 1, 7, 64, 300, 1290, 1473]);
    let frame = if frame.is_v4() && random.one_in(2) {
        frame.ipv4(|header| header.dont_fragment = false)
    } else {
        frame
    };
    let frame = if random.one_in(20) {
        frame.ttl(random.pick(&[0, 1, 2]))
    } else {
        frame
    };
    if let Some(before) = before {
        let (source, destination) = (before.destination_port, before.source_port);
        return match before.protocol {
            6 => {
                let end = before
                    .seq
                    .wrapping_add(before.payload_bytes)
                    .wrapping_add(u32::from(before.tcp_flags & 2 != 0))
                    .wrapping_add(u32::from(before.tcp_flags & 1 != 0));
                let opens = before.tcp_flags & 0x12 == 2;
                let flags = if opens {
                    random.pick(&[0x12, 0x12, 0x12, 0x14])
                } else {
                    random.pick(&[0x10, 0x10, 0x10, 0x18, 0x18, 0x11, 0x04, 0x14, 0x02, 0x12])
                };
                let seq = if before.ack == 0 { 9000 } else { before.ack };
                // Now and then about an edge of what the other side's windows allow, or anywhere.
                let seq = match random.below(12) {
                    0 => seq.wrapping_add(random.next() as u32),
                    1 => seq.wrapping_add(random.pick(&[1, 8191, 8192, 65_535, 65_536, 73_728, 73_729])),
                    2 => seq.wrapping_sub(random.pick(&[1, 2, 65_535, 65_536, 65_537, 70_000])),
                    _ => seq,
                };
                let end = match random.below(12) {
                    0 => end.wrapping_add(random.next() as u32),
                    1 => end.wrapping_add(random.pick(&[1, 8192, 65_536, 73_728])),
                    2 => end.wrapping_sub(random.pick(&[1, 65_535, 65_536, 65_537])),
                    _ => end,
                };
                let frame = tcp(random, frame, source, destination, flags, seq, end);
                frame.payload_bytes(if flags & 2 != 0 { 0 } else { length })
            }
            17 => frame.udp(source, destination).payload_bytes(length),
            1 | 58 => match before.icmp >> 8 {
                8 | 128 => frame.echo_reply(before.source_port, 1).payload_bytes(length),
                13 => frame.icmp(14, 0, id(before.source_port)).payload_bytes(12),
                _ => frame.echo_request(before.source_port, 2).payload_bytes(length),
            },
            number @ (33 | 132 | 136) => with_ports(random, frame, number, source, destination),
            number => frame.protocol(number).payload_bytes(length),
        };
    }
    let source = random.pick(&[40_000, 40_001, 1023]);
    match random.below(12) {
        0..5 => {
            let flags = random.pick(&[0x02, 0x02, 0x02, 0x02, 0x10, 0x04, 0x11, 0x12, 0x03, 0x00]);
            let port = random.pick(&[80, 80, 80, 8003, 8008, 22, 9999]);
            let seq = random.pick(&[1000, 1001, 0xffff_fff0]);
            tcp(
                random,
                frame,
                source,
                port,
                flags,
                seq,
                if flags & 0x10 != 0 { 9001 } else { 0 },
            )
        }
        5..9 => frame
            .udp(source, random.pick(&[53, 53, 9999, 123]))
            .payload_bytes(length),
        9 => frame
            .echo_request(random.pick(&[0, 7, 8]), 1)
            .payload_bytes(length),
        10 => frame
            .icmp(random.pick(&[13, 0, 129, 5, 139]), 0, id(7))
            .payload_bytes(12),
        _ => match random.pick(&[47, 47, 50, 59, 33, 132, 132, 136]) {
            number @ (33 | 132 | 136) => {
                let port = random.pick(&[5000, 5000, 5001]);
                with_ports(random, frame, number, source, port)
            }
            number => frame.protocol(number).payload_bytes(length),
        },
    }
}

/// DCCP, SCTP or UDP-Lite, as far as the ports and a field behind them; cut short at times. Nobody looks at the rest, nor at
/// the checksum before it changes.
fn with_ports(random: &mut Random, frame: Frame, number: u8, source: u16, destination: u16) -> Frame {
    let mut bytes = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    bytes.extend(random.pick(&[[0, 0], [0, 8], [0, 20], [0, 7], [1, 0]]));
    bytes.extend(random.pick(&[[0, 0], [0x12, 0x34], [0xff, 0xff]]));
    bytes.resize(random.pick(&[20, 20, 20, 12, 11, 8]), 0xa5);
    frame.protocol(number).payload(&bytes)
}

fn id(identifier: u16) -> [u8; 4] {
    let [a, b] = identifier.to_be_bytes();
    [a, b, 0, 1]
}

fn tcp(
    random: &mut Random,
    frame: Frame,
    source: u16,
    destination: u16,
    flags: u8,
    seq: u32,
    ack: u32,
) -> Frame {
    let scale = (seq % 15) as u8;
    let options: &[u8] = match random.below(6) {
        0 => &[],
        // The segment size at an odd offset, and a malformed one.
        1 => &[1, 2, 4, 5, 0xb4, 3, 3, scale],
        2 => &[2, 3, 5, 0xb4],
        // Maximum segment size, no operation, window scale.
        _ => &[2, 4, 5, 0xb4, 1, 3, 3, scale],
    };
    let window = random.pick(&[8192, 8192, 8192, 0, 100, 65_535]);
    frame.tcp(source, destination).seq(seq).tcp_header(|header| {
        header.fin = flags & 1 != 0;
        header.syn = flags & 2 != 0;
        header.rst = flags & 4 != 0;
        header.psh = flags & 8 != 0;
        header.ack = flags & 16 != 0;
        header.acknowledgment_number = ack;
        header.window_size = window;
        if header.syn {
            header.set_options_raw(options).expect("a few bytes of options");
        }
    })
}

/// Bends a frame out of shape: bytes changed, cut off, another station; half of the time with a right IPv4 checksum.
fn bend(random: &mut Random, bytes: &mut Vec<u8>) {
    match random.below(6) {
        0 => bytes.truncate(14 + random.below(bytes.len() - 13)),
        1 => bytes[5] ^= 0x40,
        2 => bytes.resize(bytes.len() + random.below(40), 0),
        // Flags and offset of IPv4: a fragment.
        3 if bytes[12..14] == [8, 0] && bytes.len() > 34 => bytes[20] = 0x20,
        _ => {
            for _ in 0..=random.below(3) {
                let at = 12 + random.below((bytes.len() - 12).min(70));
                bytes[at] = random.next() as u8;
            }
        }
    }
    if random.one_in(2) || bytes.len() < 34 || bytes[12..14] != [8, 0] {
        return;
    }
    let end = 14 + usize::from(bytes[14] & 15) * 4;
    if (34..=bytes.len()).contains(&end) {
        bytes[24..26].fill(0);
        let mut sum: u32 = bytes[14..end]
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]))
            .sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        bytes[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    }
}
