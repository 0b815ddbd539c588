//! A client, its server under attack, and the steps of the handshake, each asserted whole.

use bulkhead_abi::{RateState, Reason, Screen, ScreenKey};
use bulkhead_pipeline::{Action, Clock as _};

use crate::{
    FAMILIES,
    frame::{ACK, Frame, SYN, Seen, ip},
    net::{INSIDE, MISS, Net, OUTSIDE, SECOND, ZONE_INSIDE, ZONE_OUTSIDE, mac, permit, words},
    step::Step,
    verify::verify,
};

pub const ACCEPTED: (&str, u64) = ("syn_cookies_accepted", 1);
pub const REFUSED: (&str, u64) = ("syn_cookies_refused", 1);
pub const HIT: (&str, u64) = ("decision_cache_hits", 1);
pub const ESTABLISHED: (&str, u64) = ("sessions_established", 1);

/// What a Linux client offers: segment size, SACK, timestamps, window scale.
pub const OPTIONS: &[u8] = &[2, 4, 0x05, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7];

/// First numbers of client and server, close to where they wrap.
pub const CLIENT: u32 = 0xffff_fffe;
pub const SERVER: u32 = 0xffff_fff0;

/// A TCP header read back.
#[derive(Debug, PartialEq, Eq)]
pub struct Segment {
    pub flags: u8,
    pub seq: u32,
    pub ack: u32,
    pub window: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

pub fn segment(seen: &Seen) -> Segment {
    let bytes = &seen.segment;
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
    let header = usize::from(bytes[12] >> 4) * 4;
    Segment {
        flags: bytes[13],
        seq: word(4),
        ack: word(8),
        window: u16::from_be_bytes([bytes[14], bytes[15]]),
        options: bytes[20..header].to_vec(),
        payload: bytes[header..].to_vec(),
    }
}

/// A frame with nothing but a TCP header.
pub fn bare(flags: u8, seq: u32, ack: u32, window: u16) -> Segment {
    Segment {
        flags,
        seq,
        ack,
        window,
        options: vec![],
        payload: vec![],
    }
}

pub fn mss_option(mss: u16) -> Vec<u8> {
    [&[2, 4], &mss.to_be_bytes()[..]].concat()
}

pub struct Case {
    pub client: &'static str,
    pub server: &'static str,
    pub router: &'static str,
    /// The client as the server sees it.
    pub own: &'static str,
    pub net: Net,
}

impl Case {
    pub fn to_server(&self, flags: u8, seq: u32, ack: u32) -> Frame {
        Frame::new(self.client, self.server).tcp(40000, 80, flags, seq, ack)
    }

    pub fn to_client(&self, flags: u8, seq: u32, ack: u32) -> Frame {
        Frame::new(self.server, self.own).tcp(80, 40000, flags, seq, ack)
    }

    pub fn syn(&self) -> Frame {
        self.to_server(SYN, CLIENT, 0).tcp_options(OPTIONS)
    }

    /// The client's acknowledgement of the cookie.
    pub fn proof(&self, expected: u32) -> Frame {
        self.to_server(ACK, CLIENT.wrapping_add(1), expected)
    }

    pub fn is_v4(&self) -> bool {
        ip(self.client).is_ipv4()
    }

    /// The server is under attack for so long from now on.
    pub fn attack(&mut self, ns: u64) {
        let until_ns = self.net.tables().now_ns() + ns;
        guard(&self.net, ZONE_INSIDE, self.server, until_ns);
    }

    /// Sends the SYN; what the client is to acknowledge.
    pub fn challenged(&mut self) -> u32 {
        let syn = self.syn();
        let others: &[_] = if self.net.tables().counters().contains_key(MISS.0) {
            &[HIT]
        } else {
            &[MISS]
        };
        let seen = challenged(self.net.receive(INSIDE, &syn), INSIDE, others);
        segment(&seen).seq.wrapping_add(1)
    }

    /// The client's acknowledgement of `expected` becomes a SYN.
    pub fn admitted(&mut self, expected: u32) {
        let ack = self.to_server(ACK, CLIENT.wrapping_add(1), expected).window(5000);
        let sent = self
            .net
            .receive(INSIDE, &ack)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, ACCEPTED])
            .between(self.own, self.server)
            .via(self.router);
        let mss = if self.is_v4() { 1460 } else { 1440 };
        let expected = Segment {
            options: mss_option(mss),
            ..bare(SYN, CLIENT, 0, 5000)
        };
        assert_eq!(segment(&sent.seen), expected);
    }

    /// The server's SYN+ACK is answered and becomes the client's window.
    pub fn answered(&mut self, expected: u32) {
        let frame = self
            .to_client(SYN | ACK, SERVER, CLIENT.wrapping_add(1))
            .tcp_options(&mss_option(1460))
            .window(6000)
            .ttl(57);
        let step = self.net.receive(OUTSIDE, &frame);
        let [(ifindex, copy)] = &step.outcome.copies[..] else {
            panic!("{:?}", step.outcome)
        };
        verify(copy);
        assert_eq!(*ifindex, OUTSIDE);
        assert_eq!(
            (&copy[..6], &copy[6..12]),
            (&[2, 0, 0, 0, 9, 9][..], &mac(OUTSIDE)[..])
        );
        let seen = Seen::read(copy);
        assert_eq!((seen.source, seen.destination), (ip(self.own), ip(self.server)));
        assert_eq!(
            (seen.word(0), seen.word(2)),
            (frame_ports(&frame).1, frame_ports(&frame).0)
        );
        let acknowledgement = bare(ACK, CLIENT.wrapping_add(1), SERVER.wrapping_add(1), 5000);
        assert_eq!(segment(&seen), acknowledgement);
        let update = step
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED])
            .between(self.server, self.client)
            .via(self.client);
        assert_eq!(
            segment(&update.seen),
            bare(ACK, expected, CLIENT.wrapping_add(1), 6000)
        );
    }

    pub fn open(&mut self) -> u32 {
        self.attack(SECOND);
        let expected = self.challenged();
        self.admitted(expected);
        self.answered(expected);
        expected
    }

    /// A frame of the client, as the server gets it.
    #[track_caller]
    pub fn out(&mut self, frame: &Frame, reason: Reason) -> Segment {
        let sent = self.net.receive(INSIDE, frame).forwarded(OUTSIDE, reason, &[]);
        segment(&sent.between(self.own, self.server).seen)
    }

    /// A frame of the server, as the client gets it.
    #[track_caller]
    pub fn back(&mut self, frame: &Frame, reason: Reason) -> Segment {
        let sent = self.net.receive(OUTSIDE, frame).forwarded(INSIDE, reason, &[]);
        segment(&sent.between(self.server, self.client).seen)
    }
}

pub fn frame_ports(frame: &Frame) -> (u16, u16) {
    let at = |at| u16::from_be_bytes([frame.header[at], frame.header[at + 1]]);
    (at(0), at(2))
}

/// SYNs from `zone` to `address` are challenged until then, and acknowledgements looked at for 58 s more.
pub fn guard(net: &Net, zone: u32, address: &str, until_ns: u64) {
    let address = ip(address);
    let key = ScreenKey {
        subject: ScreenKey::subject(
            Screen::SynFlood,
            zone as u8,
            if address.is_ipv4() { 4 } else { 6 },
        ),
        address_be: words(address),
    };
    let state = RateState {
        until_ns: until_ns.saturating_add(58 * SECOND),
        ..RateState::default()
    };
    net.tables().screen_rates.set(&key, &state);
}

/// Both families, with and without translation.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for ((client, server, router), outside) in FAMILIES.into_iter().zip(["198.51.100.1", "2001:db8:2::1"]) {
        for translate in [false, true] {
            let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
            if translate {
                net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
            }
            cases.push(Case {
                client,
                server,
                router,
                own: if translate { outside } else { client },
                net,
            });
        }
    }
    cases
}

/// Asserts that the frame went back where it came from, as a SYN+ACK; what it says.
#[track_caller]
pub fn challenged(step: Step, ifindex: u32, others: &[(&'static str, u64)]) -> Seen {
    let Step { outcome, before } = step;
    assert_eq!(outcome.verdict.reason, Reason::SynCookieSent, "{outcome:02x?}");
    assert_eq!(
        (outcome.verdict.action, outcome.out_ifindex),
        (Action::Redirect, ifindex)
    );
    let mut counters = outcome.delta.clone();
    assert_eq!(counters.remove(Reason::SynCookieSent.name()), Some(1));
    assert_eq!(counters, others.iter().copied().collect());
    let frame = &outcome.bytes;
    verify(frame);
    assert_eq!((&frame[..6], &frame[6..12]), (&before[6..12], &before[..6]));
    let (seen, asked) = (Seen::read(frame), Seen::read(&before));
    assert_eq!((seen.source, seen.destination), (asked.destination, asked.source));
    assert_eq!((seen.word(0), seen.word(2)), (asked.word(2), asked.word(0)));
    assert_eq!(seen.ttl, 64);
    let (answer, syn) = (segment(&seen), segment(&asked));
    assert_eq!(
        (answer.flags, answer.ack, answer.window, answer.options.len()),
        (SYN | ACK, syn.seq.wrapping_add(1), 0, 4)
    );
    assert!(answer.payload.is_empty());
    seen
}
