//! Screens of what a packet is: one row per shape, held against a zone with the screen, with every other one, with an alarm
//! instead, and against a zone without; on both hooks.

use bulkhead_abi::{Event, EventKind, Reason, Screen, ScreenProfile, screen_flags};
use bulkhead_pipeline::{Action, host::Outcome};
use proptest::prelude::*;

use crate::{
    fragments::cut,
    frame::{ACK, FIN, Frame, PSH, RST, SYN},
    net::{INSIDE, Net, OUTSIDE, ZONE_INSIDE, ZONE_OUTSIDE, mac},
    verify,
};

const URG: u8 = 0x20;

/// Every screen, with thresholds that nothing here reaches.
fn all() -> ScreenProfile {
    let scan = bulkhead_abi::ScanLimit {
        targets: 100,
        interval_ns: 1,
    };
    ScreenProfile {
        enabled: Screen::ALL.iter().fold(0, |all, screen| all | screen.bit()),
        flags: 0,
        icmp_flood: 1000,
        udp_flood: 1000,
        syn_flood: 1000,
        syn_flood_alarm: 1000,
        syn_flood_source: 1000,
        syn_flood_destination: 1000,
        reserved: 0,
        icmp_sweep: scan,
        tcp_port_scan: scan,
        tcp_sweep: scan,
        udp_port_scan: scan,
        udp_sweep: scan,
    }
}

fn only(screen: Screen) -> ScreenProfile {
    ScreenProfile {
        enabled: screen.bit(),
        ..all()
    }
}

fn v4() -> Frame {
    Frame::new("10.1.0.2", "192.0.2.80")
}

fn v6() -> Frame {
    Frame::new("2001:db8:1::2", "2001:db8:80::80")
}

fn bytes(frame: &Frame) -> Vec<u8> {
    frame.clone().to(mac(INSIDE)).build()
}

/// The first fragment of a datagram, and the one behind it.
fn fragments(frame: &Frame) -> [Vec<u8>; 2] {
    let pieces = cut(&frame.clone().payload(&[0; 64]), &[0, 48], 7);
    pieces.try_into().expect("two fragments")
}

/// A last fragment as far behind as an offset can be, of more bytes than fit.
fn oversize(frame: &Frame) -> Vec<u8> {
    let [_, mut last] = fragments(&frame.clone());
    let at = if last[12] == 8 { 20 } else { 56 };
    let field: u16 = if last[12] == 8 { 0x1fff } else { 0xfff8 };
    last[at..at + 2].copy_from_slice(&field.to_be_bytes());
    if last[12] == 8 {
        last[24..26].fill(0);
        let sum = !verify::ones_complement(0, &last[14..34]);
        last[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    last
}

/// What becomes of the packet without any screen: forwarded, kept until another comes, or dropped for the reason that goes
/// with it always.
enum Otherwise {
    Passes,
    Waits,
    Drops(Reason),
}

use Otherwise::{Drops, Passes, Waits};

/// Shapes: what, the frame, the screen, and what happens without it.
fn rows() -> Vec<(&'static str, Vec<u8>, Screen, Otherwise)> {
    let hop = [0, 0, 1, 4, 0, 0, 0, 0];
    let udp = |options: &[u8]| bytes(&v4().options(options).udp(1, 2));
    let tcp = |flags| bytes(&v4().tcp(1, 2, flags, 1, 0));
    let tcp6 = |flags| bytes(&v6().tcp(1, 2, flags, 1, 0));
    let routing = [0, 0, 0, 0, 0, 0, 0, 0];
    let land = |address: &str| bytes(&Frame::new(address, address).tcp(80, 80, SYN, 1, 0));
    let no_flags = || Drops(Reason::TcpFlagsInvalid);
    vec![
        (
            "large ICMP",
            bytes(&v4().echo(1, 1).payload(&[0; 1017])),
            Screen::IcmpLarge,
            Passes,
        ),
        (
            "large ICMPv6",
            bytes(&v6().echo(1, 1).payload(&[0; 1017])),
            Screen::IcmpLarge,
            Passes,
        ),
        (
            "record route",
            udp(&[7, 7, 4, 0, 0, 0, 0, 0]),
            Screen::IpRecordRoute,
            Passes,
        ),
        (
            "timestamp",
            udp(&[1, 68, 4, 5, 0, 0, 0, 0]),
            Screen::IpTimestamp,
            Passes,
        ),
        (
            "security",
            udp(&[130, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            Screen::IpSecurity,
            Passes,
        ),
        (
            "extended security",
            udp(&[133, 4, 0, 0]),
            Screen::IpSecurity,
            Passes,
        ),
        (
            "CIPSO",
            udp(&[134, 8, 0, 0, 0, 1, 0, 0]),
            Screen::IpSecurity,
            Passes,
        ),
        ("stream", udp(&[136, 4, 0, 1]), Screen::IpStream, Passes),
        ("unknown option", udp(&[94, 4, 0, 0]), Screen::IpBadOption, Passes),
        (
            "option without an end",
            udp(&[7, 1, 0, 0]),
            Screen::IpBadOption,
            Drops(Reason::SourceRoute),
        ),
        (
            "option beyond the header",
            udp(&[7, 9, 4, 0, 0, 0, 0, 0]),
            Screen::IpBadOption,
            Drops(Reason::SourceRoute),
        ),
        (
            "option cut off",
            udp(&[1, 1, 1, 7]),
            Screen::IpBadOption,
            Drops(Reason::SourceRoute),
        ),
        (
            "loose source route",
            udp(&[131, 7, 4, 1, 1, 1, 1, 0]),
            Screen::IpSourceRoute,
            Drops(Reason::SourceRoute),
        ),
        (
            "strict source route",
            udp(&[137, 7, 4, 1, 1, 1, 1, 0]),
            Screen::IpSourceRoute,
            Drops(Reason::SourceRoute),
        ),
        (
            "routing header",
            bytes(&v6().extension(43, &routing).udp(1, 2)),
            Screen::IpSourceRoute,
            Drops(Reason::SourceRoute),
        ),
        (
            "protocol 143",
            bytes(&v4().protocol(143, b"x")),
            Screen::UnknownProtocol,
            Passes,
        ),
        (
            "protocol 255",
            bytes(&v6().protocol(255, b"x")),
            Screen::UnknownProtocol,
            Passes,
        ),
        (
            "hop-by-hop options",
            bytes(&v6().extension(0, &hop).udp(1, 2)),
            Screen::ExtensionHeaders,
            Passes,
        ),
        (
            "destination options",
            bytes(&v6().extension(60, &hop).udp(1, 2)),
            Screen::ExtensionHeaders,
            Passes,
        ),
        (
            "mobility header",
            bytes(&v6().protocol(135, &hop)),
            Screen::ExtensionHeaders,
            Passes,
        ),
        (
            "hop-by-hop options twice",
            bytes(&v6().extension(0, &hop).extension(0, &hop).udp(1, 2)),
            Screen::ExtensionHeaders,
            Drops(Reason::Ipv6ExtensionInvalid),
        ),
        (
            "land",
            land("10.1.0.2"),
            Screen::Land,
            Drops(Reason::SourceAddressInvalid),
        ),
        (
            "land, IPv6",
            land("2001:db8:1::2"),
            Screen::Land,
            Drops(Reason::SourceAddressInvalid),
        ),
        ("no flags", tcp(0), Screen::TcpNoFlags, no_flags()),
        ("no flags, IPv6", tcp6(0), Screen::TcpNoFlags, no_flags()),
        ("SYN and FIN", tcp(SYN | FIN | ACK), Screen::TcpSynFin, no_flags()),
        (
            "SYN and FIN, IPv6",
            tcp6(SYN | FIN | ACK),
            Screen::TcpSynFin,
            no_flags(),
        ),
        ("FIN alone", tcp(FIN), Screen::TcpFinNoAck, no_flags()),
        (
            "FIN, PSH and URG",
            tcp6(FIN | PSH | URG),
            Screen::TcpFinNoAck,
            no_flags(),
        ),
        (
            "FIN and RST",
            tcp(FIN | RST),
            Screen::TcpFinNoAck,
            Drops(Reason::TcpNoSession),
        ),
        (
            "urgent data to NetBIOS",
            bytes(&v4().tcp(1, 139, SYN | URG, 1, 0)),
            Screen::Winnuke,
            Passes,
        ),
        (
            "oversized fragment",
            oversize(&v4().udp(1, 2)),
            Screen::PingOfDeath,
            Drops(Reason::FragmentOversize),
        ),
        (
            "oversized fragment, IPv6",
            oversize(&v6().udp(1, 2)),
            Screen::PingOfDeath,
            Drops(Reason::FragmentOversize),
        ),
        (
            "oversized ICMP",
            oversize(&v4().echo(1, 1)),
            Screen::PingOfDeath,
            Drops(Reason::FragmentOversize),
        ),
        (
            "tiny fragment",
            cut(&v4().tcp(1, 2, SYN, 1, 0), &[0, 8], 7).remove(0),
            Screen::IpFragment,
            Drops(Reason::FragmentTiny),
        ),
        (
            "first fragment",
            fragments(&v4().udp(1, 2))[0].clone(),
            Screen::IpFragment,
            Passes,
        ),
        (
            "later fragment",
            fragments(&v4().udp(1, 2))[1].clone(),
            Screen::IpFragment,
            Waits,
        ),
        (
            "first ICMP fragment",
            fragments(&v4().echo(1, 1))[0].clone(),
            Screen::IcmpFragment,
            Passes,
        ),
        (
            "later ICMP fragment",
            fragments(&v4().echo(1, 1))[1].clone(),
            Screen::IcmpFragment,
            Waits,
        ),
        (
            "SYN fragment",
            fragments(&v4().tcp(1, 2, SYN, 1, 0))[0].clone(),
            Screen::SynFragment,
            Passes,
        ),
        (
            "first fragment, IPv6",
            fragments(&v6().udp(1, 2))[0].clone(),
            Screen::IpFragment,
            Passes,
        ),
        (
            "later fragment, IPv6",
            fragments(&v6().udp(1, 2))[1].clone(),
            Screen::IpFragment,
            Waits,
        ),
        (
            "first ICMP fragment, IPv6",
            fragments(&v6().echo(1, 1))[0].clone(),
            Screen::IcmpFragment,
            Passes,
        ),
        (
            "later ICMP fragment, IPv6",
            fragments(&v6().echo(1, 1))[1].clone(),
            Screen::IcmpFragment,
            Waits,
        ),
        (
            "SYN fragment, IPv6",
            fragments(&v6().tcp(1, 2, SYN, 1, 0))[0].clone(),
            Screen::SynFragment,
            Passes,
        ),
    ]
}

/// The screens' events among others.
fn screen_events(outcome: &Outcome) -> Vec<Event> {
    let mut events = outcome.events.clone();
    events.retain(|event| event.kind == EventKind::Screen as u8);
    events
}

#[track_caller]
fn otherwise(what: &str, outcome: &Outcome, expected: &Otherwise) {
    match expected {
        Passes => assert_eq!(outcome.verdict.reason, Reason::SessionCreated, "{what}"),
        Waits => assert_eq!(outcome.verdict.action, Action::Held, "{what}"),
        Drops(reason) => assert_eq!(outcome.verdict.reason, *reason, "{what}"),
    }
}

#[test]
fn without_a_screen_or_with_another_zones_nothing_changes() {
    for (what, bytes, _, expected) in rows() {
        let mut net = Net::open();
        otherwise(what, &net.firewall.both_hooks(INSIDE, &bytes), &expected);
        let mut net = Net::open();
        net.screens(ZONE_OUTSIDE, &all());
        let outcome = net.firewall.both_hooks(INSIDE, &bytes);
        otherwise(what, &outcome, &expected);
        assert!(screen_events(&outcome).is_empty(), "{what}");
        assert!(net.take_screen_counts().is_empty(), "{what}");
    }
}

#[test]
fn each_shape_is_dropped_by_its_screen_on_either_hook_and_told() {
    for (what, bytes, screen, _) in rows() {
        for xdp in [false, true] {
            let mut net = Net::open();
            net.screens(ZONE_INSIDE, &only(screen));
            let outcome = if xdp {
                net.firewall.established(INSIDE, &bytes)
            } else {
                net.firewall.ingress(INSIDE, &bytes)
            };
            assert_eq!(
                (outcome.verdict.action, outcome.verdict.reason),
                (Action::Drop, screen.reason()),
                "{what}"
            );
            assert_eq!(outcome.delta, [(screen.reason().name(), 1)].into(), "{what}");
            assert_eq!(net.take_screen_counts(), [(ZONE_INSIDE, screen, 1, 0)], "{what}");
            let [event] = outcome.events[..] else {
                panic!("{what}: {:?}", outcome.events);
            };
            assert_eq!(
                (event.kind, event.reason, event.state, event.from_zone),
                (
                    EventKind::Screen as u8,
                    screen.reason() as u8,
                    1,
                    ZONE_INSIDE as u8
                ),
                "{what}"
            );
            assert_eq!(
                (event.ingress_ifindex, event.policy),
                (INSIDE, u32::MAX),
                "{what}"
            );
            let family = if bytes[12] == 8 { 4 } else { 6 };
            assert_eq!(event.family, family, "{what}");
            assert_ne!(event.source_be, [0; 4], "{what}");
            assert_ne!(event.destination_be, [0; 4], "{what}");
            assert_eq!(net.flows(), (0, 0), "{what}");
        }
    }
}

#[test]
fn every_other_screen_lets_it_be() {
    for (what, bytes, screen, expected) in rows() {
        let mut others = all();
        // What is a fragment of something is a fragment, and a routing header is an extension header.
        others.enabled &= !(screen.bit() | Screen::IpFragment.bit());
        if screen == Screen::PingOfDeath {
            others.enabled &= !Screen::IcmpFragment.bit();
        }
        if screen == Screen::IpFragment {
            others.enabled &= !Screen::SynFragment.bit();
        }
        if screen == Screen::IpSourceRoute {
            others.enabled &= !Screen::ExtensionHeaders.bit();
        }
        let mut net = Net::open();
        net.screens(ZONE_INSIDE, &others);
        otherwise(what, &net.firewall.both_hooks(INSIDE, &bytes), &expected);
        assert!(net.take_screen_counts().is_empty(), "{what}");
    }
}

#[test]
fn alarm_without_drop_counts_and_tells_and_opens_nothing() {
    for (what, bytes, screen, expected) in rows() {
        let mut net = Net::open();
        net.screens(
            ZONE_INSIDE,
            &ScreenProfile {
                flags: screen_flags::ALARM_ONLY,
                ..only(screen)
            },
        );
        let outcome = net.firewall.both_hooks(INSIDE, &bytes);
        otherwise(what, &outcome, &expected);
        // What never passes did not pass: the packet was dropped, though not by the screen.
        let passed =
            u64::from(matches!(expected, Passes | Waits) || outcome.verdict.reason == Reason::TcpNoSession);
        assert_eq!(
            net.take_screen_counts(),
            [(ZONE_INSIDE, screen, 1 - passed, passed)],
            "{what}"
        );
        let told = screen_events(&outcome);
        assert_eq!(told.len(), 1, "{what}");
        assert_eq!(
            (told[0].reason, u64::from(told[0].state)),
            (screen.reason() as u8, 1 - passed),
            "{what}"
        );
    }
}

/// Just below, beside, or nearly.
#[test]
fn ordinary_neighbours_of_the_shapes_pass() {
    for frame in [
        v4().echo(1, 1).payload(&[0; 1016]),
        v6().echo(1, 1).payload(&[0; 1016]),
        v4().options(&[148, 4, 0, 0]).udp(1, 2),
        v4().options(&[1, 1, 1, 0]).udp(1, 2),
        // End of list hides what stands behind it.
        v4().options(&[0, 131, 7, 4]).udp(1, 2),
        v4().protocol(142, b"x"),
        v6().protocol(142, b"x"),
        v6().protocol(59, b""),
        v6().protocol(50, b"12345678"),
        v6().protocol(51, b"12345678"),
        // Not IPv6's extension headers in IPv4.
        v4().protocol(135, b"12345678"),
        v4().tcp(139, 80, SYN | URG, 1, 0),
        v4().tcp(1, 139, SYN, 1, 0),
        v4().tcp(80, 80, SYN, 1, 0),
        v4().udp(1, 139),
    ] {
        let mut net = Net::open();
        net.screens(ZONE_INSIDE, &all());
        let outcome = net.firewall.both_hooks(INSIDE, &bytes(&frame));
        assert_eq!(outcome.verdict.reason, Reason::SessionCreated, "{frame:?}");
        assert!(net.take_screen_counts().is_empty(), "{frame:?}");
    }
}

/// The short way is for packets without anything unusual, the others are looked at each time.
#[test]
fn an_established_session_does_not_carry_the_unusual_past_the_screen() {
    let mut net = Net::open();
    // Without a flood screen, which would have every packet take the long way.
    net.screens(ZONE_INSIDE, &only(Screen::IpRecordRoute));
    let ask = v4().udp(5000, 53);
    let answer = Frame::new("192.0.2.80", "10.1.0.2").udp(53, 5000);
    for (ifindex, frame) in [(INSIDE, &ask), (OUTSIDE, &answer), (INSIDE, &ask)] {
        let outcome = net
            .firewall
            .both_hooks(ifindex, &frame.clone().to(mac(ifindex)).build());
        assert!(!outcome.verdict.reason.is_drop());
    }
    let odd = ask.options(&[7, 7, 4, 0, 0, 0, 0, 0]);
    for xdp in [false, true] {
        let outcome = if xdp {
            net.firewall.established(INSIDE, &bytes(&odd))
        } else {
            net.firewall.ingress(INSIDE, &bytes(&odd))
        };
        assert_eq!(outcome.verdict.reason, Reason::ScreenIpRecordRoute);
    }
    // From the zone without screens it goes on.
    let odd = answer.options(&[7, 7, 4, 0, 0, 0, 0, 0]);
    net.receive_both(OUTSIDE, &odd)
        .forwarded(INSIDE, Reason::Established, &[]);
}

/// Overlaps are seen by what other fragments left behind, and end the datagram whatever the screen says.
#[test]
fn overlapping_fragments_are_a_teardrop() {
    for (family, frame) in [(4, v4().udp(1, 2)), (6, v6().udp(1, 2))] {
        let whole = frame.payload(&[7; 100]);
        let first = cut(&whole, &[0, 48], 7).remove(0);
        // Begins inside the first one.
        let overlapping = cut(&whole, &[0, 40], 7).remove(1);
        let rest = cut(&whole, &[0, 48], 7).remove(1);
        let profile = only(Screen::Teardrop);
        let alarm = ScreenProfile {
            flags: screen_flags::ALARM_ONLY,
            ..profile
        };
        for (profile, reason, dropped) in [
            (ScreenProfile::default(), Reason::FragmentOverlap, 0),
            (alarm, Reason::FragmentOverlap, 1),
            (profile, Reason::ScreenTeardrop, 1),
        ] {
            let mut net = Net::open();
            net.screens(ZONE_INSIDE, &profile);
            let outcome = net.firewall.both_hooks(INSIDE, &first);
            assert_eq!(outcome.verdict.reason, Reason::SessionCreated);
            // The overlap, what is left of the datagram, and its first fragment again.
            for (number, piece) in (1..).zip([&overlapping, &rest, &first]) {
                let outcome = net.firewall.both_hooks(INSIDE, piece);
                assert_eq!(outcome.verdict.reason, reason, "IPv{family}, fragment {number}");
                assert_eq!(screen_events(&outcome).len(), dropped as usize);
            }
            let counts = match dropped {
                0 => vec![],
                _ => vec![(ZONE_INSIDE, Screen::Teardrop, 3, 0)],
            };
            assert_eq!(net.take_screen_counts(), counts, "IPv{family}");
        }
    }
}

/// Nothing of a datagram goes on whose first fragment a screen has dropped; another's does.
#[test]
fn the_rest_of_a_screened_datagram_does_not_go_on() {
    for frame in [v4().tcp(1, 2, SYN, 1, 0), v6().tcp(1, 2, SYN, 1, 0)] {
        let [first, rest] = fragments(&frame);
        let mut net = Net::open();
        net.screens(ZONE_INSIDE, &only(Screen::SynFragment));
        let other = if frame.is_v4() { v4() } else { v6() }
            .udp(1, 2)
            .payload(&[0; 64]);
        let other = cut(&other, &[0, 48], 8);
        let outcome = net.firewall.ingress(INSIDE, &other[0]);
        assert_eq!(outcome.verdict.reason, Reason::SessionCreated);
        for piece in [first, rest] {
            let outcome = net.firewall.ingress(INSIDE, &piece);
            assert_eq!(outcome.verdict.reason, Reason::ScreenSynFragment);
        }
        let outcome = net.firewall.ingress(INSIDE, &other[1]);
        assert_eq!(outcome.verdict.action, Action::Redirect);
        assert_eq!(net.flows(), (0, 1));
    }
}

/// Neighbour discovery is the kernel's business, listener reports with their hop-by-hop options included.
#[test]
fn discovery_is_not_screened() {
    let mut net = Net::open();
    net.screens(ZONE_INSIDE, &all());
    let alert = [0, 0, 5, 2, 0, 0, 1, 0];
    let report = Frame::new("fe80::2", "ff02::16")
        .extension(0, &alert)
        .icmp(143, 0, [0; 4])
        .ttl(1)
        .to([0x33, 0x33, 0, 0, 0, 0x16]);
    let outcome = net.firewall.both_hooks(INSIDE, &report.build());
    assert_eq!(outcome.verdict.reason, Reason::NeighbourDiscovery);
}

/// What one CPU may tell in a second is bounded; counts are not.
#[test]
fn events_are_limited_and_counts_are_not() {
    let mut net = Net::open();
    net.settings(|settings| settings.deny_event_rate = 3);
    net.screens(ZONE_INSIDE, &only(Screen::TcpNoFlags));
    let bytes = bytes(&v4().tcp(1, 2, 0, 1, 0));
    let told: usize = (0..10)
        .map(|_| net.firewall.established(INSIDE, &bytes).events.len())
        .sum();
    assert_eq!(told, 3);
    assert_eq!(
        net.take_screen_counts(),
        [(ZONE_INSIDE, Screen::TcpNoFlags, 10, 0)]
    );
    assert_eq!(net.tables().counters().get("events_suppressed"), Some(&7));
    // Denials have a limit of their own.
    let denied = Frame::new("10.4.0.2", "192.0.2.80")
        .tcp(1, 2, SYN, 1, 0)
        .to(mac(OUTSIDE));
    net.commit(&[]);
    assert_eq!(net.firewall.ingress(OUTSIDE, &denied.build()).events.len(), 1);
}

/// Frames with one shape or several, flipped bytes, either family.
fn odd_frame() -> impl Strategy<Value = Vec<u8>> {
    let rows: Vec<Vec<u8>> = rows().into_iter().map(|(_, bytes, ..)| bytes).collect();
    let flips = proptest::collection::vec((14..120usize, any::<u8>()), 0..3);
    (proptest::sample::select(rows), flips).prop_map(|(mut bytes, flips)| {
        for (at, value) in flips {
            let at = at.min(bytes.len() - 1);
            bytes[at] = value;
        }
        if bytes[12..14] == [8, 0] {
            let end = (14 + usize::from(bytes[14] & 15) * 4).clamp(34, bytes.len());
            bytes[24..26].fill(0);
            let sum = !verify::ones_complement(0, &bytes[14..end]);
            bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// Without a profile no screen drops anything, and with one that only raises alarms nothing comes to another end.
    #[test]
    fn screens_without_drop_change_no_verdict(frames in proptest::collection::vec(odd_frame(), 1..8)) {
        let (mut plain, mut alarmed) = (Net::open(), Net::open());
        let profile = ScreenProfile { flags: screen_flags::ALARM_ONLY, ..all() };
        alarmed.screens(ZONE_INSIDE, &profile);
        for bytes in frames {
            let (a, b) = (plain.firewall.both_hooks(INSIDE, &bytes), alarmed.firewall.both_hooks(INSIDE, &bytes));
            prop_assert!(!(160..=193).contains(&(a.verdict.reason as u8)));
            prop_assert_eq!(a.verdict, b.verdict);
            prop_assert_eq!((a.bytes, a.out_ifindex), (b.bytes, b.out_ifindex));
        }
        prop_assert!(plain.take_screen_counts().is_empty());
    }
}
