//! Malformed frames and addresses out of place: each ends in its named reason, and in no other counter.

use bulkhead_abi::Reason;
use bulkhead_pipeline::Action;

use crate::{
    FAMILIES,
    frame::{ACK, FIN, Frame, PSH, RST, SYN},
    net::{INSIDE, MISS, Net, OUTSIDE, mac},
    verify,
};

fn v4() -> Frame {
    Frame::new("10.1.0.2", "192.0.2.80").to(mac(INSIDE))
}

fn v6() -> Frame {
    Frame::new("2001:db8:1::2", "2001:db8:80::80").to(mac(INSIDE))
}

/// Changes bytes and makes the IPv4 header checksum right again.
fn changed(frame: &Frame, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = frame.build();
    change(&mut bytes);
    if bytes[12..14] == [8, 0] {
        let end = (14 + usize::from(bytes[14] & 15) * 4).min(bytes.len());
        if end >= 26 {
            bytes[24..26].fill(0);
            let sum = !verify::ones_complement(0, &bytes[14..end]);
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        }
    }
    bytes
}

#[track_caller]
fn refuses(bytes: &[u8], reason: Reason) {
    let mut net = Net::open();
    net.receive_bytes(INSIDE, bytes).dropped(reason, &[]);
    assert_eq!(net.flows(), (0, 0));
    // XDP drops it for the same reason, if the header alone says so.
    let outcome = net.firewall.established(INSIDE, bytes);
    assert_eq!(outcome.verdict.reason, reason);
}

#[test]
fn frames_cut_off_anywhere_in_their_headers_are_truncated() {
    for frame in [
        v4().tcp(1, 2, SYN, 1, 0),
        v4().udp(1, 2),
        v4().echo(1, 1),
        v6().tcp(1, 2, SYN, 1, 0),
        v6().udp(1, 2),
        v6().echo(1, 1),
        v4().options(&[148, 4, 0, 0]).udp(1, 2),
    ] {
        let bytes = frame.build();
        for length in 0..bytes.len() {
            refuses(&bytes[..length], Reason::Truncated);
        }
    }
}

#[test]
fn link_layer() {
    refuses(
        &changed(&v4().udp(1, 2), |b| b[12..14].copy_from_slice(&[0x88, 0xcc])),
        Reason::EtherTypeUnsupported,
    );
    refuses(
        &changed(&v4().udp(1, 2), |b| b[12..14].copy_from_slice(&[0x05, 0xdc])),
        Reason::EtherTypeUnsupported,
    );
    for tag in [[0x81, 0x00], [0x88, 0xa8]] {
        let mut bytes = v4().udp(1, 2).build();
        bytes.splice(12..12, [tag[0], tag[1], 0, 5]);
        refuses(&bytes, Reason::VlanTagged);
    }
}

#[test]
fn ipv4_headers() {
    let udp = v4().udp(1, 2).payload(b"12345678");
    for first in [0x55, 0x65, 0x05, 0x40, 0x44] {
        refuses(&changed(&udp, |b| b[14] = first), Reason::Ipv4HeaderInvalid);
    }
    // A header length beyond the packet, a total length below the header, beyond the frame.
    refuses(
        &changed(&v4().protocol(253, b""), |b| b[14] = 0x4f),
        Reason::Ipv4HeaderInvalid,
    );
    refuses(
        &changed(&udp, |b| b[16..18].copy_from_slice(&[0, 19])),
        Reason::Ipv4HeaderInvalid,
    );
    refuses(
        &changed(&udp, |b| b[16..18].copy_from_slice(&[0, 0])),
        Reason::Ipv4HeaderInvalid,
    );
    refuses(&changed(&udp, |b| b[17] += 1), Reason::Truncated);
    let mut bytes = udp.build();
    bytes[24] ^= 1;
    refuses(&bytes, Reason::Ipv4ChecksumInvalid);
    let mut bytes = v4().options(&[148, 4, 0, 0]).udp(1, 2).build();
    bytes[36] ^= 1;
    refuses(&bytes, Reason::Ipv4ChecksumInvalid);
    for options in [
        &[131, 7, 4, 1, 1, 1, 1, 0][..],
        &[137, 7, 4, 1, 1, 1, 1, 0],
        &[1, 1, 1, 131],
        &[148, 4, 0, 0, 137, 3, 4, 0],
        // Options that never end.
        &[7, 0, 0, 0],
        &[7, 1, 0, 0],
    ] {
        refuses(&v4().options(options).udp(1, 2).build(), Reason::SourceRoute);
    }
}

/// Bytes of a fragment, of either family: the protocol, where it stands, whether more follow, what it holds.
fn fragment(v4_or_v6: &Frame, protocol: u8, offset: u16, more: bool, body: &[u8]) -> Vec<u8> {
    let flags = offset | u16::from(more);
    if v4_or_v6.is_v4() {
        let frame = v4_or_v6.clone().protocol(253, body);
        let field = (offset / 8) | (u16::from(more) << 13);
        return changed(&frame, |b| {
            b[20..22].copy_from_slice(&field.to_be_bytes());
            b[23] = protocol;
        });
    }
    let [high, low] = flags.to_be_bytes();
    let frame = v4_or_v6.clone().extension(44, &[0, 0, high, low, 0, 0, 0, 7]);
    changed(&frame.protocol(253, body), |b| b[54] = protocol)
}

#[test]
fn fragments() {
    let tcp = [0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0x80, SYN, 0x20, 0, 0, 0, 0, 0];
    let udp = [0, 1, 0, 2, 0, 200, 0, 0];
    for (frame, icmp) in [(v4(), 1), (v6(), 58)] {
        // RFC 1858 and 7112: the first holds the whole header, TCP options included.
        for cut in [8, 16] {
            refuses(&fragment(&frame, 6, 0, true, &tcp[..cut]), Reason::FragmentTiny);
        }
        refuses(
            &fragment(&frame, 6, 0, true, &[&tcp[..], &[1; 4]].concat()),
            Reason::FragmentTiny,
        );
        // RFC 3128: none begins inside it.
        for offset in [8, 16] {
            refuses(
                &fragment(&frame, 6, offset, false, &[0; 64]),
                Reason::FragmentTiny,
            );
            refuses(&fragment(&frame, 6, offset, true, &[0; 64]), Reason::FragmentTiny);
        }
        for body in [&[][..], &udp[..7], &[0; 9], &[0; 20]] {
            refuses(&fragment(&frame, 17, 0, true, body), Reason::FragmentInvalid);
            refuses(&fragment(&frame, 17, 1480, true, body), Reason::FragmentInvalid);
        }
        refuses(&fragment(&frame, 17, 1480, false, &[]), Reason::FragmentInvalid);
        // "Ping of death": the last byte a datagram can have, and one more. IPv4 counts its header.
        let room = if frame.is_v4() { 65_515 } else { 65_535 };
        let last = room / 8 * 8;
        let mut net = Net::open();
        let least = fragment(&frame, icmp, last, false, &vec![0; usize::from(room - last)]);
        let step = net.receive_bytes(INSIDE, &least);
        assert_eq!(step.outcome.verdict.action, Action::Held, "{:?}", step.outcome);
        refuses(
            &fragment(&frame, icmp, last, false, &vec![0; usize::from(room - last) + 1]),
            Reason::FragmentOversize,
        );
    }
    // The chain goes on behind a first fragment's end.
    for cut in [0, 8] {
        let mut chain = v6()
            .extension(44, &[0, 0, 0, 1, 0, 0, 0, 7])
            .extension(60, &[0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            .udp(1, 2)
            .build();
        chain.truncate(54 + 8 + cut);
        chain[18..20].copy_from_slice(&(8 + cut as u16).to_be_bytes());
        refuses(&chain, Reason::FragmentTiny);
    }
}

#[test]
fn harmless_options_pass() {
    // End of list hides what stands behind it; NOPs to the brim; record route.
    for options in [&[0, 131, 7, 4][..], &[1; 40], &[7, 7, 4, 0, 0, 0, 0, 0]] {
        let mut net = Net::open();
        net.receive_bytes(INSIDE, &v4().options(options).udp(1, 2).build())
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    }
}

#[test]
fn ethernet_padding_is_no_payload() {
    let mut net = Net::open();
    let mut bytes = v4().udp(1, 2).build();
    bytes.resize(60, 0);
    net.receive_bytes(INSIDE, &bytes)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
}

#[test]
fn ipv6_headers() {
    let udp = v6().udp(1, 2).payload(b"12345678");
    for first in [0x00, 0x40, 0x50, 0x70] {
        refuses(&changed(&udp, |b| b[14] = first), Reason::Ipv6HeaderInvalid);
    }
    refuses(&changed(&udp, |b| b[19] += 1), Reason::Truncated);
    refuses(
        &changed(&udp, |b| b[18..20].copy_from_slice(&[0, 0])),
        Reason::Truncated,
    );
    let pad = [0, 0, 1, 4, 0, 0, 0, 0];
    // A fragment of a fragment.
    refuses(
        &v6()
            .extension(44, &[0, 0, 0, 1, 0, 0, 0, 7])
            .extension(44, &[0, 0, 0, 1, 0, 0, 0, 7])
            .udp(1, 2)
            .build(),
        Reason::Ipv6ExtensionInvalid,
    );
    refuses(
        &v6().extension(43, &[0, 0, 0, 0, 0, 0, 0, 0]).udp(1, 2).build(),
        Reason::SourceRoute,
    );
    refuses(
        &v6()
            .extension(0, &pad)
            .extension(43, &[0, 0, 4, 0, 0, 0, 0, 0])
            .udp(1, 2)
            .build(),
        Reason::SourceRoute,
    );
    refuses(
        &v6().extension(60, &pad).extension(0, &pad).udp(1, 2).build(),
        Reason::Ipv6ExtensionInvalid,
    );
    refuses(
        &v6().extension(0, &pad).extension(0, &pad).udp(1, 2).build(),
        Reason::Ipv6ExtensionInvalid,
    );
    // A length beyond the packet, a chain without end.
    refuses(
        &v6().extension(60, &[0, 9, 1, 4, 0, 0, 0, 0]).udp(1, 2).build(),
        Reason::Ipv6ExtensionInvalid,
    );
    let mut endless = v6().udp(1, 2);
    for _ in 0..8 {
        endless = endless.extension(60, &pad);
    }
    refuses(&endless.build(), Reason::Ipv6ExtensionInvalid);
    let mut long = vec![0; 256];
    long[1] = 31;
    refuses(
        &v6().extension(60, &long).udp(1, 2).build(),
        Reason::Ipv6ExtensionInvalid,
    );
}

#[test]
fn an_extension_chain_is_followed() {
    let pad = [0, 0, 1, 4, 0, 0, 0, 0];
    let frame = v6()
        .extension(0, &pad)
        .extension(60, &pad)
        .extension(60, &pad)
        .tcp(1, 2, SYN, 1, 0);
    Net::open()
        .receive_bytes(INSIDE, &frame.build())
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
}

#[test]
fn tcp_headers() {
    for base in [v4(), v6()] {
        let tcp = |flags| base.clone().tcp(1, 2, flags, 1, 0);
        let l4 = if base.is_v4() { 34 } else { 54 };
        for offset in [0, 4, 6, 15] {
            refuses(
                &changed(&tcp(SYN), |b| b[l4 + 12] = offset << 4),
                Reason::TcpHeaderInvalid,
            );
        }
        for flags in [
            0,
            FIN,
            SYN | FIN,
            SYN | RST,
            FIN | PSH,
            SYN | FIN | ACK,
            SYN | RST | ACK,
            FIN | PSH | 0x20,
        ] {
            refuses(&tcp(flags).build(), Reason::TcpFlagsInvalid);
        }
    }
}

#[test]
fn udp_headers() {
    for base in [v4(), v6()] {
        let udp = base.clone().udp(1, 2).payload(b"abc");
        let l4 = if base.is_v4() { 34 } else { 54 };
        for length in [0, 7, 12, 0xffff_u16] {
            let bytes = changed(&udp, |b| b[l4 + 4..l4 + 6].copy_from_slice(&length.to_be_bytes()));
            refuses(&bytes, Reason::UdpHeaderInvalid);
        }
    }
}

#[test]
fn icmp_that_asks_nothing_opens_nothing() {
    for kind in [0, 4, 5, 6, 9, 10, 14, 16, 18, 30, 40] {
        let mut net = Net::open();
        net.receive(INSIDE, &v4().icmp(kind, 0, [0; 4]))
            .dropped(Reason::IcmpNotRequest, &[]);
    }
    for kind in [100, 129, 138, 139, 150, 200] {
        let mut net = Net::open();
        net.receive(INSIDE, &v6().icmp(kind, 0, [0; 4]))
            .dropped(Reason::IcmpNotRequest, &[]);
    }
}

/// ICMP of the other family is a protocol like any other, not something to be looked into.
#[test]
fn icmp_of_the_other_family_is_not_read() {
    let mut net = Net::open();
    net.receive(INSIDE, &v4().protocol(58, &[133, 0, 0, 0, 0, 0, 0, 0]))
        .dropped(Reason::IcmpNotRequest, &[]);
}

#[test]
fn sources_out_of_place() {
    for source in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
    ] {
        let frame = Frame::new(source, "192.0.2.80").udp(1, 2);
        Net::open()
            .receive(INSIDE, &frame)
            .dropped(Reason::SourceAddressInvalid, &[]);
    }
    for source in ["::", "::1", "ff02::1", "::ffff:10.1.0.2", "fe80::2"] {
        let frame = Frame::new(source, "2001:db8:80::80").udp(1, 2);
        Net::open()
            .receive(INSIDE, &frame)
            .dropped(Reason::SourceAddressInvalid, &[]);
    }
    // Link-local and our own, through another interface.
    for source in ["169.254.1.1", "10.1.0.1", "198.51.100.1"] {
        let frame = Frame::new(source, "192.0.2.80").udp(1, 2);
        Net::open()
            .receive(INSIDE, &frame)
            .dropped(Reason::SourceAddressInvalid, &[]);
    }
    // From a host, or the firewall, to itself.
    for host in [
        "10.1.0.1",
        "10.1.0.2",
        "192.0.2.80",
        "2001:db8:1::1",
        "2001:db8:80::80",
    ] {
        for destination_port in [80, 81] {
            let frame = Frame::new(host, host).tcp(80, destination_port, SYN, 1, 0);
            Net::open()
                .receive(INSIDE, &frame)
                .dropped(Reason::SourceAddressInvalid, &[]);
        }
        Net::open()
            .receive(INSIDE, &Frame::new(host, host).echo(7, 1))
            .dropped(Reason::SourceAddressInvalid, &[]);
    }
}

#[test]
fn destinations_out_of_place() {
    for destination in ["0.0.0.0", "127.0.0.1", "240.0.0.1", "169.254.1.1"] {
        let frame = Frame::new("10.1.0.2", destination).udp(1, 2);
        Net::open()
            .receive(INSIDE, &frame)
            .dropped(Reason::DestinationAddressInvalid, &[]);
    }
    for destination in ["::", "::1", "::ffff:192.0.2.80", "fe80::9"] {
        let frame = Frame::new("2001:db8:1::2", destination).udp(1, 2);
        Net::open()
            .receive(INSIDE, &frame)
            .dropped(Reason::DestinationAddressInvalid, &[]);
    }
}

#[test]
fn frames_for_other_stations() {
    for (client, server, _) in FAMILIES {
        let frame = Frame::new(client, server).udp(1, 2);
        for mac in [
            [2, 0, 0, 0, 0, 99],
            [0xff; 6],
            [1, 0, 0x5e, 0, 0, 1],
            mac(OUTSIDE),
        ] {
            let bytes = frame.clone().to(mac).build();
            Net::open()
                .receive_bytes(INSIDE, &bytes)
                .dropped(Reason::NotForUs, &[]);
        }
        // Also in the middle of a conversation, and in errors about it.
        let mut net = Net::open();
        let sent = net
            .receive(INSIDE, &frame)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        let stranger = frame.clone().to([2, 0, 0, 0, 0, 99]).build();
        net.receive_bytes(INSIDE, &stranger)
            .dropped(Reason::NotForUs, &[]);
        let error = Frame::new(server, client)
            .error(&sent.bytes, false)
            .to([2, 0, 0, 0, 0, 99])
            .build();
        net.receive_bytes(OUTSIDE, &error).dropped(Reason::NotForUs, &[]);
        let answer = Frame::new(server, client).udp(2, 1);
        net.receive(OUTSIDE, &answer)
            .forwarded(INSIDE, Reason::Established, &[("sessions_established", 1)]);
        net.receive_bytes(INSIDE, &stranger)
            .dropped(Reason::NotForUs, &[]);
    }
    // A group address to a station of its own.
    let bytes = Frame::new("10.1.0.2", "224.0.0.5")
        .udp(1, 2)
        .to(mac(INSIDE))
        .build();
    Net::open()
        .receive_bytes(INSIDE, &bytes)
        .dropped(Reason::NotForUs, &[]);
}
