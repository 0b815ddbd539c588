//! What must hold of the parser whatever it is given: the fuzz target and the property tests share this file.
//!
//! Owns the statement of [`Packet`]'s promise, "every offset lies inside the buffer's valid bytes", and of [`Embedded`]'s.
//! Assumes nothing about the bytes.

use bulkhead_packet::{
    Embedded, HEADER_BYTES, HeaderBuffer, IcmpKind, Kind, Packet, PlainLoop, Reason, fragment_flags, parse,
    parse_embedded, syn_options,
};

const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

/// Parses `frame` as every hook would see it and checks what comes out.
pub fn check(frame: &[u8]) {
    let length = frame.len() as u32;
    let mut long = frame.to_vec();
    long.resize(frame.len().max(HEADER_BYTES), 0);
    // As it is; as an aggregate; as the start of a longer one (of which the buffer then holds all it can).
    for (frame, frame_bytes, gso) in [
        (frame, length, false),
        (frame, length, true),
        (&long, length + 64_000, true),
    ] {
        let headers = HeaderBuffer::from_frame(frame);
        let outcome = run(&headers, frame_bytes, gso, Packet::default());
        // What stands behind the frame's bytes, or stood in the packet before, is nothing to the parser.
        let mut dirty = headers;
        for at in headers.len as usize..HEADER_BYTES {
            dirty.set_byte(at, 0xa5);
        }
        let remains = Packet {
            ipv4_fragment: 0xffff,
            fragment: 0xff,
            fragment_offset: 0xffff,
            fragment_header: 0xffff,
            fragment_id: 0xffff_ffff,
            tcp_flags: 0xff,
            kind: Kind::Arp,
            ..Packet::default()
        };
        assert_eq!(
            outcome,
            run(&dirty, frame_bytes, gso, remains),
            "parsing is not a function of the frame"
        );
        match outcome {
            Ok(packet) => accepted(&headers, frame_bytes, gso, &packet),
            Err(reason) => refused(reason),
        }
    }
}

fn run(headers: &HeaderBuffer, frame_bytes: u32, gso: bool, mut packet: Packet) -> Result<Packet, Reason> {
    parse(&PlainLoop, headers, frame_bytes, gso, &mut packet).map(|()| packet)
}

/// The parser's own reasons, each of which drops.
fn refused(reason: Reason) {
    assert!(
        reason.is_drop() && matches!(reason as u8, 32..48 | 200 | 201 | 205),
        "{reason:?} is no reason of the parser"
    );
}

fn accepted(headers: &HeaderBuffer, frame_bytes: u32, gso: bool, packet: &Packet) {
    let valid = headers.len as usize;
    assert!(valid <= HEADER_BYTES);
    if packet.kind == Kind::Arp {
        return;
    }
    let (l3, l4) = (usize::from(packet.l3), usize::from(packet.l4));
    assert!(matches!(packet.family, 4 | 6));
    assert!(l3 == 14 && l4 >= l3 + if packet.family == 4 { 20 } else { 40 });
    assert!(l4 <= valid, "layer 4 at {l4} of {valid} valid bytes");
    assert!(
        packet.l3_bytes <= frame_bytes - 14,
        "{} bytes of layer 3 in {frame_bytes}",
        packet.l3_bytes
    );
    let l4_bytes = packet.l3_bytes as usize - (l4 - l3);
    if packet.fragment != 0 {
        fragment(packet, l4_bytes);
    }
    if packet.is_later_fragment() {
        assert_eq!(
            (packet.source_port, packet.destination_port, packet.icmp),
            (0, 0, 0)
        );
        return;
    }
    match packet.protocol {
        TCP => {
            let header = usize::from(packet.tcp_header_bytes);
            assert!((20..=60).contains(&header) && header <= l4_bytes && l4 + 20 <= valid);
            assert_eq!(packet.payload_bytes as usize, l4_bytes - header);
            assert_ne!(packet.tcp_flags & 0x3f, 0);
            let options = syn_options(&PlainLoop, headers, packet);
            assert!(options.scale().is_none_or(|scale| scale <= 14));
            assert!(
                options
                    .segment_at()
                    .is_none_or(|at| at >= l4 + 22 && at + 2 <= l4 + header)
            );
        }
        UDP => {
            assert!(l4_bytes >= 8 && l4 + 8 <= valid);
            assert_eq!(packet.payload_bytes as usize, l4_bytes - 8);
        }
        DCCP | SCTP | UDP_LITE => {
            let header = if packet.protocol == UDP_LITE { 8 } else { 12 };
            assert!(l4_bytes >= header && l4 + 8 <= valid);
            assert_eq!(packet.payload_bytes as usize, l4_bytes - header);
        }
        _ => assert_eq!(packet.tcp_header_bytes, 0),
    }
    if matches!(packet.protocol, TCP | UDP | DCCP | SCTP | UDP_LITE) {
        let port = |at: usize| u16::from_be_bytes([headers.to_bytes()[at], headers.to_bytes()[at + 1]]);
        assert_eq!(
            (packet.source_port, packet.destination_port),
            (port(l4), port(l4 + 2))
        );
    }
    if packet.family == 4 {
        assert_eq!(packet.ipv4_fragment & 0x3fff != 0, packet.fragment != 0);
        assert_eq!(packet.source_be[1..], [0; 3]);
        assert_eq!(packet.destination_be[1..], [0; 3]);
    }
    if !gso {
        assert!(frame_bytes as usize >= valid.min(l4 + l4_bytes));
    }
    if packet.icmp_kind() == IcmpKind::Error {
        assert!(l4 + 8 <= valid);
        quoted(headers, packet);
    }
}

/// What the pipeline's bookkeeping rests on.
fn fragment(packet: &Packet, l4_bytes: usize) {
    let (first, later, more) = (
        packet.fragment & fragment_flags::FIRST != 0,
        packet.is_later_fragment(),
        packet.fragment & fragment_flags::MORE != 0,
    );
    let (offset, bytes) = (u32::from(packet.fragment_offset), packet.fragment_bytes());
    assert!(first != later && first == (offset == 0) && (more || later));
    assert!(offset % 8 == 0 && bytes > 0 && (!more || bytes % 8 == 0));
    assert!(offset + bytes <= 0xffff, "{offset} + {bytes}");
    assert!(
        l4_bytes <= bytes as usize,
        "layer 4 begins before the fragment's bytes"
    );
    assert_eq!(packet.kind, Kind::Ip);
    assert_eq!(packet.fragment_header != 0, packet.family == 6);
    assert!(!later || packet.protocol != TCP || offset >= 20);
}

fn quoted(headers: &HeaderBuffer, packet: &Packet) {
    let mut embedded = Embedded::default();
    match parse_embedded(&PlainLoop, headers, packet, &mut embedded) {
        Ok(()) => {
            let (l3, l4, valid) = (
                usize::from(embedded.l3),
                usize::from(embedded.l4),
                headers.len as usize,
            );
            assert_eq!(l3, usize::from(packet.l4) + 8);
            assert!(l4 >= l3 + if packet.family == 4 { 20 } else { 40 });
            if matches!(embedded.protocol, TCP | UDP | DCCP | SCTP | UDP_LITE) {
                assert!(l4 + 8 <= valid, "ports quoted at {l4} of {valid} valid bytes");
            }
        }
        Err(reason) => assert!(
            matches!(
                reason,
                Reason::Truncated | Reason::IcmpNoSession | Reason::IcmpQuoteInvalid
            ),
            "{reason:?}"
        ),
    }
}
