//! Screens that count: floods, SYN floods, scans and sweeps, and the way back to the source. Each at its threshold, just
//! below, as an alarm, in another zone, after its time, and on both hooks.

use bulkhead_abi::{
    LimitRule, Reason, ScanLimit, Screen, ScreenKey, ScreenProfile, flow_flags, limit_flags, screen_flags,
};
use bulkhead_pipeline::Table;

use crate::{
    FAMILIES,
    frame::{ACK, Frame, SYN},
    net::{
        ANY, DMZ, INSIDE, Net, OUTSIDE, SECOND, SELF, ZONE_DMZ, ZONE_INSIDE, ZONE_OUTSIDE, mac, permit, words,
    },
};

const MILLISECOND: u64 = 1_000_000;

fn profile(screens: &[Screen], change: impl FnOnce(&mut ScreenProfile)) -> ScreenProfile {
    let mut profile = ScreenProfile {
        enabled: screens.iter().fold(0, |all, screen| all | screen.bit()),
        ..ScreenProfile::default()
    };
    change(&mut profile);
    profile
}

fn alarm_only(profile: ScreenProfile) -> ScreenProfile {
    ScreenProfile {
        flags: screen_flags::ALARM_ONLY,
        ..profile
    }
}

/// Through which programs.
#[derive(Clone, Copy, Debug)]
enum Hook {
    Tcx,
    Both,
}

const HOOKS: [Hook; 2] = [Hook::Tcx, Hook::Both];

/// What becomes of the frame.
#[track_caller]
fn send(net: &mut Net, hook: Hook, ifindex: u32, frame: &Frame) -> Reason {
    let bytes = frame.clone().to(mac(ifindex)).build();
    let outcome = match hook {
        Hook::Tcx => net.firewall.ingress(ifindex, &bytes),
        Hook::Both => net.firewall.both_hooks(ifindex, &bytes),
    };
    outcome.verdict.reason
}

/// How many of these are not dropped, and why the others are.
fn passing(
    net: &mut Net,
    hook: Hook,
    ifindex: u32,
    frames: impl IntoIterator<Item = Frame>,
) -> (usize, Vec<Reason>) {
    let reasons = frames.into_iter().map(|frame| send(net, hook, ifindex, &frame));
    let (dropped, passed): (Vec<_>, Vec<_>) = reasons.partition(|reason| reason.is_drop());
    (passed.len(), dropped)
}

fn address(text: &str, last: u16) -> String {
    let (head, _) = text.rsplit_once([':', '.']).unwrap();
    if text.contains(':') {
        format!("{head}:{last:x}")
    } else {
        format!("{head}.{last}")
    }
}

/// ICMP, and UDP with a port per packet, so that each opens a conversation.
type Make = fn(&str, &str, u16) -> Frame;

const FLOODS: [(Screen, Make); 2] = [
    (Screen::IcmpFlood, |client, server, n| {
        Frame::new(client, server).echo(n, 1)
    }),
    (Screen::UdpFlood, |client, server, n| {
        Frame::new(client, server).udp(n, 53)
    }),
];

#[test]
fn a_flood_is_stopped_at_its_threshold_per_destination_and_second() {
    for ((screen, make), (client, server, _)) in FLOODS
        .into_iter()
        .flat_map(|flood| FAMILIES.map(|family| (flood, family)))
    {
        for hook in HOOKS {
            let mut net = Net::open();
            net.screens(
                ZONE_INSIDE,
                &profile(&[screen], |p| (p.icmp_flood, p.udp_flood) = (5, 5)),
            );
            let other = address(server, 81);
            let frames = |to: &str, from: u16| {
                let to = to.to_owned();
                (from..from + 7).map(move |n| make(client, &to, n))
            };
            // As many as the threshold pass, whoever sends them; those behind it do not.
            let outcome = passing(&mut net, hook, INSIDE, frames(server, 100));
            assert_eq!(outcome, (5, vec![screen.reason(); 2]), "{screen:?} {hook:?}");
            assert_eq!(net.take_screen_counts(), [(ZONE_INSIDE, screen, 2, 0)]);
            // Another destination has a count of its own; so has the next second.
            assert_eq!(passing(&mut net, hook, INSIDE, frames(&other, 200)).0, 5);
            net.advance(SECOND - 1);
            assert_eq!(passing(&mut net, hook, INSIDE, frames(server, 300)).0, 0);
            net.advance(1);
            assert_eq!(passing(&mut net, hook, INSIDE, frames(server, 400)).0, 5);
            // Another zone is not asked.
            let back = (1..9).map(|n| make(server, client, n));
            assert_eq!(passing(&mut net, hook, OUTSIDE, back).0, 8);
        }
    }
}

#[test]
fn a_flood_may_only_raise_the_alarm() {
    for (screen, make) in FLOODS {
        for hook in HOOKS {
            let mut net = Net::open();
            let profile = profile(&[screen], |p| (p.icmp_flood, p.udp_flood) = (5, 5));
            net.screens(ZONE_INSIDE, &alarm_only(profile));
            let frames = (1..8).map(|n| make("10.1.0.2", "192.0.2.80", n));
            assert_eq!(passing(&mut net, hook, INSIDE, frames), (7, vec![]));
            assert_eq!(net.take_screen_counts(), [(ZONE_INSIDE, screen, 0, 2)]);
        }
    }
}

/// Other protocols are not the flood's, and errors about sessions are ICMP too.
#[test]
fn a_flood_counts_its_protocol_alone() {
    let mut net = Net::open();
    let both = profile(&[Screen::IcmpFlood, Screen::UdpFlood], |p| {
        (p.icmp_flood, p.udp_flood) = (3, 3);
    });
    net.screens(ZONE_OUTSIDE, &both);
    let tcp = (1..9).map(|n| Frame::new("192.0.2.80", "10.1.0.2").tcp(n, 80, SYN, 1, 0));
    assert_eq!(passing(&mut net, Hook::Tcx, OUTSIDE, tcp).0, 8);
    let udp = (1..4).map(|n| Frame::new("192.0.2.80", "10.1.0.2").udp(n, 80));
    assert_eq!(passing(&mut net, Hook::Tcx, OUTSIDE, udp).0, 3);
    let sent = Frame::new("10.1.0.2", "192.0.2.80")
        .udp(1, 2)
        .to(mac(INSIDE))
        .build();
    let error = Frame::new("192.0.2.9", "10.1.0.2").error(&sent, false);
    let outcome = passing(&mut net, Hook::Tcx, OUTSIDE, vec![error; 5]);
    assert_eq!(
        outcome,
        (
            0,
            vec![Reason::IcmpNoSession; 3]
                .into_iter()
                .chain(vec![Reason::ScreenIcmpFlood; 2])
                .collect()
        )
    );
}

/// A conversation in full flow is counted packet by packet, each direction by the zone it comes from; without a flood screen
/// it takes the short way.
#[test]
fn established_sessions_are_counted_where_a_flood_screen_asks() {
    for ((client, server, _), hook) in FAMILIES
        .into_iter()
        .flat_map(|family| HOOKS.map(|hook| (family, hook)))
    {
        for (screen, ask, answer) in [
            (
                Screen::UdpFlood,
                Frame::new(client, server).udp(5000, 53),
                Frame::new(server, client).udp(53, 5000),
            ),
            (
                Screen::IcmpFlood,
                Frame::new(client, server).echo(7, 1),
                Frame::new(server, client).echo_reply(7, 1),
            ),
        ] {
            let mut net = Net::open();
            let flood = profile(&[screen], |p| (p.icmp_flood, p.udp_flood) = (4, 4));
            net.screens(ZONE_INSIDE, &flood);
            send(&mut net, hook, INSIDE, &ask);
            send(&mut net, hook, OUTSIDE, &answer);
            let counted = |net: &Net| {
                let family = if client.contains(':') { 6 } else { 4 };
                let flows = net.tables().flows(Table::Established, family).entries();
                assert_eq!(flows.len(), 2);
                let of = |reply: u8| {
                    let flow = flows
                        .iter()
                        .find(|(_, flow)| flow.flags & flow_flags::REPLY == reply);
                    flow.unwrap().1.flags & flow_flags::COUNTED != 0
                };
                (of(0), of(flow_flags::REPLY))
            };
            assert_eq!(counted(&net), (true, false));
            let outcome = passing(&mut net, hook, INSIDE, vec![ask.clone(); 5]);
            assert_eq!(outcome, (3, vec![screen.reason(); 2]));
            assert_eq!(passing(&mut net, hook, OUTSIDE, vec![answer.clone(); 9]).0, 9);
            // The screen moves to the other zone: so does the counting, with each direction's next packet.
            net.commit(&[permit(ANY, ANY), permit(ANY, SELF)]);
            net.screens(ZONE_OUTSIDE, &flood);
            send(&mut net, hook, INSIDE, &ask);
            send(&mut net, hook, OUTSIDE, &answer);
            assert_eq!(counted(&net), (false, true));
            assert_eq!(passing(&mut net, hook, INSIDE, vec![ask.clone(); 9]).0, 9);
            let outcome = passing(&mut net, hook, OUTSIDE, vec![answer.clone(); 5]);
            assert_eq!(outcome, (3, vec![screen.reason(); 2]));
        }
    }
}

/// An aggregate is as many packets as it will be on the wire.
#[test]
fn aggregates_count_as_their_segments() {
    let mut net = Net::open();
    net.screens(ZONE_INSIDE, &profile(&[Screen::UdpFlood], |p| p.udp_flood = 10));
    let aggregate = Frame::new("10.1.0.2", "192.0.2.80")
        .udp(5000, 53)
        .payload(&[0; 5500]);
    let bytes = aggregate.to(mac(INSIDE)).build();
    let mut reasons = (0..2).map(|_| net.firewall.ingress_gso(INSIDE, &bytes, 1000).verdict.reason);
    assert_eq!(reasons.next(), Some(Reason::SessionCreated));
    assert_eq!(reasons.next(), Some(Reason::ScreenUdpFlood));
}

/// What XDP has screened TCX does not count again; where the driver has no place for the note, TCX alone counts.
#[test]
fn nothing_is_counted_twice() {
    let mut net = Net::open();
    let flood = profile(&[Screen::UdpFlood], |p| p.udp_flood = 100);
    net.screens(ZONE_INSIDE, &flood);
    for n in 1..=3 {
        send(
            &mut net,
            Hook::Both,
            INSIDE,
            &Frame::new("10.1.0.2", "192.0.2.80").udp(n, 53),
        );
    }
    let key = ScreenKey {
        subject: ScreenKey::subject(Screen::UdpFlood, ZONE_INSIDE as u8, 4),
        address_be: words("192.0.2.80".parse().unwrap()),
    };
    let counted = |net: &Net| net.tables().screen_rates.get(&key).unwrap().packets;
    assert_eq!(counted(&net), 3);
    net.firewall.no_notes = true;
    send(
        &mut net,
        Hook::Both,
        INSIDE,
        &Frame::new("10.1.0.2", "192.0.2.80").udp(4, 53),
    );
    assert_eq!(counted(&net), 4);
}

fn syn(client: &str, server: &str, n: u16) -> Frame {
    Frame::new(client, server).tcp(n, 80, SYN, 1, 0)
}

#[test]
fn syns_are_limited_per_source() {
    for hook in HOOKS {
        let mut net = Net::open();
        let screen = Screen::SynFloodSource;
        net.screens(ZONE_INSIDE, &profile(&[screen], |p| p.syn_flood_source = 3));
        // To whomever they go.
        let frames = |client: &'static str| (1..6).map(move |n| syn(client, &address("192.0.2.80", n), n));
        assert_eq!(
            passing(&mut net, hook, INSIDE, frames("10.1.0.2")),
            (3, vec![screen.reason(); 2])
        );
        assert_eq!(passing(&mut net, hook, INSIDE, frames("10.1.0.3")).0, 3);
        assert_eq!(net.take_screen_counts(), [(ZONE_INSIDE, screen, 4, 0)]);
        // What is no SYN does not count.
        let rest = (1..9).map(|n| Frame::new("10.1.0.9", "192.0.2.80").tcp(n, 80, SYN | ACK, 1, 1));
        assert_eq!(
            passing(&mut net, hook, INSIDE, rest),
            (0, vec![Reason::TcpNoSession; 8])
        );
    }
}

#[test]
fn syns_are_limited_per_destination_and_raise_the_alarm_before() {
    for hook in HOOKS {
        let mut net = Net::open();
        let (alarm, most) = (Screen::SynFloodAlarm, Screen::SynFloodDestination);
        let profile = profile(&[alarm, most], |p| {
            (p.syn_flood_alarm, p.syn_flood_destination) = (2, 5)
        });
        net.screens(ZONE_INSIDE, &profile);
        let frames = |server: &'static str| (2..9).map(move |n| syn(&address("10.1.0.2", n), server, n));
        assert_eq!(
            passing(&mut net, hook, INSIDE, frames("192.0.2.80")),
            (5, vec![most.reason(); 2])
        );
        let counts = [(ZONE_INSIDE, alarm, 0, 3), (ZONE_INSIDE, most, 2, 0)];
        assert_eq!(net.take_screen_counts(), counts);
        assert_eq!(passing(&mut net, hook, INSIDE, frames("192.0.2.81")).0, 5);
    }
}

/// Above the attack threshold a SYN is one for the proxy; and the destination stays under attack for a minute after.
#[test]
fn a_flooded_destination_is_to_be_answered_for() {
    for (hook, (client, server, _)) in HOOKS
        .into_iter()
        .flat_map(|hook| FAMILIES.map(|family| (hook, family)))
    {
        let mut net = Net::open();
        let screen = Screen::SynFlood;
        net.screens(ZONE_INSIDE, &profile(&[screen], |p| p.syn_flood = 3));
        let key = ScreenKey {
            subject: ScreenKey::subject(
                screen,
                ZONE_INSIDE as u8,
                if client.contains(':') { 6 } else { 4 },
            ),
            address_be: words(server.parse().unwrap()),
        };
        let state = |net: &Net| net.tables().screen_rates.get(&key).unwrap();
        let outcome = passing(&mut net, hook, INSIDE, (1..4).map(|n| syn(client, server, n)));
        assert_eq!((outcome, state(&net).until_ns), ((3, vec![]), 0));
        for n in 4..6 {
            let reason = send(&mut net, hook, INSIDE, &syn(client, server, n));
            assert_eq!(reason, Reason::SynCookieSent);
        }
        assert_eq!(net.take_screen_counts(), [(ZONE_INSIDE, screen, 0, 2)]);
        assert_eq!(state(&net).until_ns, 70 * SECOND);
        // A conversation that has begun is not the proxy's, its repeated SYN goes on.
        assert_eq!(
            send(&mut net, hook, INSIDE, &syn(client, server, 1)),
            Reason::HalfOpen
        );
        net.advance(3 * SECOND);
        assert_eq!(
            send(&mut net, hook, INSIDE, &syn(client, server, 9)),
            Reason::SessionCreated
        );
        assert_eq!(state(&net).until_ns, 70 * SECOND);
    }
}

#[test]
fn syn_floods_may_only_raise_the_alarm() {
    for hook in HOOKS {
        let mut net = Net::open();
        let screens = [
            Screen::SynFlood,
            Screen::SynFloodSource,
            Screen::SynFloodDestination,
        ];
        let profile = profile(&screens, |p| {
            (p.syn_flood, p.syn_flood_source, p.syn_flood_destination) = (4, 4, 4);
        });
        net.screens(ZONE_INSIDE, &alarm_only(profile));
        let frames = (1..7).map(|n| syn("10.1.0.2", "192.0.2.80", n));
        assert_eq!(passing(&mut net, hook, INSIDE, frames), (6, vec![]));
        let counts = screens.map(|screen| (ZONE_INSIDE, screen, 0, 2));
        assert_eq!(net.take_screen_counts(), counts);
    }
}

const SCANS: [(Screen, Make); 5] = [
    (Screen::IcmpSweep, |client, server, n| {
        Frame::new(client, &address(server, n)).echo(n, 1)
    }),
    (Screen::TcpPortScan, |client, server, n| {
        Frame::new(client, server).tcp(999, n, SYN, 1, 0)
    }),
    (Screen::TcpSweep, |client, server, n| {
        syn(client, &address(server, n), 999)
    }),
    (Screen::UdpPortScan, |client, server, n| {
        Frame::new(client, server).udp(999, n)
    }),
    (Screen::UdpSweep, |client, server, n| {
        Frame::new(client, &address(server, n)).udp(999, 53)
    }),
];

fn scan_profile(screen: Screen, targets: u32) -> ScreenProfile {
    let limit = ScanLimit {
        targets,
        interval_ns: 5 * MILLISECOND as u32,
    };
    profile(&[screen], |p| {
        p.icmp_sweep = limit;
        p.tcp_port_scan = limit;
        p.tcp_sweep = limit;
        p.udp_port_scan = limit;
        p.udp_sweep = limit;
    })
}

#[test]
fn a_scan_is_stopped_for_the_rest_of_its_interval() {
    for ((screen, make), (client, server, _)) in SCANS
        .into_iter()
        .flat_map(|scan| FAMILIES.map(|family| (scan, family)))
    {
        for hook in HOOKS {
            let mut net = Net::open();
            // Bits are drawn anew per interval: these draw no two alike for the first targets.
            net.screens(ZONE_INSIDE, &scan_profile(screen, 3));
            net.tables().script_random([7; 3]);
            let frames = |client: &str, from: u16| {
                let client = client.to_owned();
                (from..from + 5).map(move |n| make(&client, server, n))
            };
            let outcome = passing(&mut net, hook, INSIDE, frames(client, 20));
            assert_eq!(outcome, (3, vec![screen.reason(); 2]), "{screen:?}");
            // Nothing new from this source, be it a target it had; others may.
            let again = passing(&mut net, hook, INSIDE, [make(client, server, 90)]);
            assert_eq!(again, (0, vec![screen.reason()]));
            assert_eq!(net.take_screen_counts(), [(ZONE_INSIDE, screen, 3, 0)]);
            let other = address(client, 3);
            assert_eq!(passing(&mut net, hook, INSIDE, [make(&other, server, 40)]).0, 1);
            // What belongs to a session goes on, and the source may speak again in the next interval.
            assert_eq!(passing(&mut net, hook, INSIDE, [make(client, server, 20)]).0, 1);
            net.advance(5 * MILLISECOND - 1);
            assert_eq!(passing(&mut net, hook, INSIDE, [make(client, server, 91)]).0, 0);
            net.advance(1);
            assert_eq!(passing(&mut net, hook, INSIDE, [make(client, server, 92)]).0, 1);
        }
    }
}

/// An interval knows nothing of the one before, and draws the targets' bits afresh.
#[test]
fn the_same_scan_again_is_stopped_again() {
    let mut net = Net::open();
    net.screens(ZONE_INSIDE, &scan_profile(Screen::UdpPortScan, 3));
    net.tables()
        .script_random([7, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 11]);
    let key = ScreenKey {
        subject: ScreenKey::subject(Screen::UdpPortScan, ZONE_INSIDE as u8, 4),
        address_be: words("10.1.0.2".parse().unwrap()),
    };
    for (turn, seed) in [7, 7, 11].into_iter().enumerate() {
        let frames = (20..26).map(|n| Frame::new("10.1.0.2", "192.0.2.80").udp(900 + turn as u16, n));
        assert_eq!(
            passing(&mut net, Hook::Tcx, INSIDE, frames).0,
            3,
            "interval {turn}"
        );
        assert_eq!(
            net.tables().screen_scans.get(&key).unwrap().seed,
            seed,
            "interval {turn}"
        );
        net.advance(5 * MILLISECOND);
    }
}

#[test]
fn the_same_target_again_is_no_scan() {
    for (screen, make) in SCANS {
        let mut net = Net::open();
        net.screens(ZONE_INSIDE, &scan_profile(screen, 3));
        // Never answered: each asks policy again.
        for turn in 0..20u16 {
            let frame = make("10.1.0.2", "192.0.2.80", 50 + turn % 2);
            let frame = match screen {
                Screen::IcmpSweep => Frame::new("10.1.0.2", &frame.destination.to_string()).echo(turn, 1),
                _ => {
                    let mut frame = frame;
                    frame.header[..2].copy_from_slice(&turn.to_be_bytes());
                    frame
                }
            };
            assert_eq!(send(&mut net, Hook::Tcx, INSIDE, &frame), Reason::SessionCreated);
        }
        assert!(net.take_screen_counts().is_empty());
    }
}

#[test]
fn a_scan_may_only_raise_the_alarm_and_is_another_zones_own() {
    for (screen, make) in SCANS {
        let mut net = Net::open();
        net.screens(ZONE_INSIDE, &alarm_only(scan_profile(screen, 3)));
        let frames = (50..60).map(|n| make("10.1.0.2", "192.0.2.80", n));
        assert_eq!(passing(&mut net, Hook::Tcx, INSIDE, frames).0, 10);
        let [(ZONE_INSIDE, counted, 0, alarmed)] = net.take_screen_counts()[..] else {
            panic!("{screen:?} counted something else");
        };
        assert!(counted == screen && alarmed >= 5, "{alarmed}");
        let frames = (50..60).map(|n| make("10.3.0.2", "192.0.2.80", n));
        assert_eq!(passing(&mut net, Hook::Tcx, DMZ, frames).0, 10);
    }
}

/// Targets share bits now and then, which lets a scan go on a little; it never stops one that is below its threshold.
#[test]
fn scans_are_told_within_a_few_targets_and_never_early() {
    for threshold in [2, 10, 40, 128] {
        let mut late = 0;
        for run in 0..20u32 {
            let mut net = Net::open();
            net.screens(ZONE_INSIDE, &scan_profile(Screen::UdpPortScan, threshold));
            net.tables().script_random([run.wrapping_mul(0x9e37_79b9)]);
            let first = (1..1000u16)
                .position(|n| {
                    let frame = Frame::new("10.1.0.2", "192.0.2.80").udp(999, n);
                    send(&mut net, Hook::Tcx, INSIDE, &frame).is_drop()
                })
                .expect("the scan is seen") as u32;
            assert!(first >= threshold, "{first} targets, {threshold} allowed");
            late += first - threshold;
        }
        // What a table of 256 bits makes of it: 178 targets set 128.
        assert!(
            late / 20 <= threshold * 45 / 100,
            "{threshold}: {late} in 20 runs"
        );
    }
}

#[test]
fn a_source_must_be_reached_through_the_zone_it_comes_from() {
    let spoofing = profile(&[Screen::IpSpoofing], |_| ());
    // Source, interface, whether the way back leads there.
    for (source, ifindex, zone, right) in [
        ("10.1.0.2", INSIDE, ZONE_INSIDE, true),
        // Another interface of the same zone.
        ("10.11.0.2", INSIDE, ZONE_INSIDE, true),
        ("10.3.0.2", INSIDE, ZONE_INSIDE, false),
        ("192.0.2.9", INSIDE, ZONE_INSIDE, false),
        ("192.0.2.9", OUTSIDE, ZONE_OUTSIDE, true),
        ("10.1.0.2", OUTSIDE, ZONE_OUTSIDE, false),
        // Through an interface that is in no zone, and where no packet is sent.
        ("10.4.0.2", OUTSIDE, ZONE_OUTSIDE, false),
        ("203.0.113.7", OUTSIDE, ZONE_OUTSIDE, false),
        ("2001:db8:1::2", INSIDE, ZONE_INSIDE, true),
        ("2001:db8:3::2", INSIDE, ZONE_INSIDE, false),
        ("2001:db8:3::2", DMZ, ZONE_DMZ, true),
    ] {
        let destination = match (source.contains(':'), ifindex) {
            (false, OUTSIDE) => "10.1.0.3",
            (false, _) => "192.0.2.80",
            (true, _) => "2001:db8:80::80",
        };
        for (alarm, hook) in [(false, Hook::Tcx), (true, Hook::Tcx), (false, Hook::Both)] {
            let mut net = Net::open();
            let profile = if alarm { alarm_only(spoofing) } else { spoofing };
            net.screens(zone, &profile);
            let reason = send(
                &mut net,
                hook,
                ifindex,
                &Frame::new(source, destination).udp(1, 2),
            );
            let (expected, counts) = match (right, alarm) {
                (true, _) => (Reason::SessionCreated, vec![]),
                (false, true) => (Reason::SessionCreated, vec![(zone, Screen::IpSpoofing, 0, 1)]),
                (false, false) => (Reason::ScreenIpSpoofing, vec![(zone, Screen::IpSpoofing, 1, 0)]),
            };
            assert_eq!(reason, expected, "{source} through {ifindex}");
            assert_eq!(net.take_screen_counts(), counts, "{source} through {ifindex}");
        }
    }
    // Who has no address yet is not spoofed.
    let mut net = Net::open();
    net.screens(ZONE_INSIDE, &spoofing);
    let discover = Frame::new("0.0.0.0", "255.255.255.255").udp(68, 67).to([0xff; 6]);
    let outcome = net.firewall.ingress(INSIDE, &discover.build());
    assert_eq!(outcome.verdict.reason, Reason::ToHost);
}

/// Limits of sessions are screens to who counts them: by zone, dropped or only told.
#[test]
fn limits_of_sessions_are_counted_among_the_zones_screens() {
    for (screen, rule) in [
        (
            Screen::SessionLimitSource,
            LimitRule {
                source: 2,
                ..LimitRule::default()
            },
        ),
        (
            Screen::SessionLimitDestination,
            LimitRule {
                destination: 2,
                ..LimitRule::default()
            },
        ),
        (
            Screen::SynAckAck,
            LimitRule {
                syn_ack_ack: 2,
                ..LimitRule::default()
            },
        ),
    ] {
        for alarm in [false, true] {
            let mut net = Net::open();
            let flags = if alarm { limit_flags::ALARM_ONLY } else { 0 };
            net.limit(ZONE_INSIDE, LimitRule { flags, ..rule });
            let frames = (1..6).map(|n| syn("10.1.0.2", "192.0.2.80", n));
            let (passed, dropped) = passing(&mut net, Hook::Both, INSIDE, frames);
            let (expected, counts) = if alarm {
                (5, (ZONE_INSIDE, screen, 0, 3))
            } else {
                (2, (ZONE_INSIDE, screen, 3, 0))
            };
            assert_eq!(passed, expected, "{screen:?}");
            assert!(dropped.iter().all(|reason| *reason == screen.reason()));
            assert_eq!(net.take_screen_counts(), [counts]);
        }
    }
}
