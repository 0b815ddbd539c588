//! The loaded programs' screens, one packet at a time: who drops, what XDP leaves for TCX, what is told.

use std::time::Duration;

use bulkhead_abi::{
    ControlRequest, Event, EventKind, Interface, Reason, Route4Key, RouteEntry, RouteKind, Screen, ScreenKey,
    interface_flags,
};
use bulkhead_dataplane::{
    bpf::{Object, Program, Sizes},
    compile::compile,
    ruleset::{Action, HookMode, InterfaceRule, Policy, Ruleset, Scan, Screen as Profile, Zone},
    stage,
};
use bulkhead_testkit::{Frame, privileged};
use zerocopy::FromBytes as _;

/// Loopback, the interface that a test run assumes.
const IFINDEX: u32 = 1;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const TC_SHOT: u32 = 2;

/// A firewall with one interface, whose zone has this profile and may send everything anywhere.
fn loaded(profile: Profile) -> Object {
    let sizes = Sizes {
        sessions: 1024,
        half_open: 1024,
        rules: 64,
        addresses: 64,
        routes: 64,
        neighbours: 64,
    };
    let mut object = Object::load(&sizes).expect("the kernel takes the object");
    let ruleset = Ruleset {
        zones: vec![Zone {
            name: "edge".into(),
            screen: Some(0),
            ..Zone::default()
        }],
        interfaces: vec![InterfaceRule {
            name: "lo".into(),
            hook: HookMode::Auto,
            ..InterfaceRule::default()
        }],
        policies: vec![Policy {
            name: "all".into(),
            action: Action::Permit,
            ..Policy::default()
        }],
        screens: vec![profile],
        answers_per_second: 1000,
        deny_events_per_second: 1000,
        ..Ruleset::default()
    };
    let (compiled, addresses) = compile(&ruleset, 1, &[Some(IFINDEX)]).expect("a ruleset that fits");
    stage::stage(&object.maps, &compiled).expect("room in the tables");
    stage::addresses(&object.maps, &addresses).expect("room in the tables");
    let facts = Interface {
        mac: MAC,
        mtu: 1500,
        flags: interface_flags::DATA,
        ..Interface::default()
    };
    object.maps.interfaces.set(&IFINDEX, &facts).expect("room");
    let anywhere = RouteEntry {
        kind: RouteKind::Unicast as u32,
        ifindex: IFINDEX,
        ..RouteEntry::default()
    };
    let key = Route4Key {
        bits: 0,
        address_be: 0,
    };
    object.maps.routes4.set(&key, &anywhere).expect("room");
    let live = ControlRequest {
        operation: 1,
        argument: 1,
        key: [1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    };
    assert!(object.control(&live).expect("the control program runs"));
    object
}

fn udp(port: u16) -> Vec<u8> {
    let frame = Frame::ip([10, 0, 0, 2], [10, 0, 1, 9]);
    frame.macs([2, 9, 9, 9, 9, 9], MAC).udp(4000, port).build()
}

fn counter(object: &Object, reason: Reason) -> u64 {
    object.counters().expect("counters")[reason as usize]
}

fn dropped(object: &Object, screen: Screen) -> u64 {
    object.screen_count(1, screen as u32).expect("counts").dropped
}

/// XDP counts and drops by itself; what it passes on carries its note, which is not the same for two objects or interfaces.
#[test]
fn prog_run_xdp_settles_floods_and_notes_what_it_has_screened() {
    if !privileged() {
        return;
    }
    let profile = || Profile {
        udp_flood: Some(40),
        ..Profile::default()
    };
    let mut object = loaded(profile());
    let frame = udp(53);
    let mut notes = Vec::new();
    for turn in 0..60 {
        let outcome = object.test_run(Program::Xdp, &frame, 0, 1).expect("a run");
        assert_eq!(
            outcome.code,
            if turn < 40 { XDP_PASS } else { XDP_DROP },
            "{turn}"
        );
        assert_eq!(outcome.packet[4..], frame, "{turn}");
        notes.push(outcome.packet[..4].to_vec());
    }
    notes.dedup();
    assert_eq!(notes.len(), 1, "one object's note on one interface is one");
    assert_eq!(counter(&object, Reason::ScreenUdpFlood), 20);
    assert_eq!(dropped(&object, Screen::UdpFlood), 20);
    let key = ScreenKey {
        subject: ScreenKey::subject(Screen::UdpFlood, 1, 4),
        address_be: [u32::from_ne_bytes([10, 0, 1, 9]), 0, 0, 0],
    };
    let rate = object.maps.screen_rates.get(&key).expect("readable");
    assert_eq!(rate.map(|rate| rate.packets), Some(60));
    // A packet that came round XDP bears no note: TCX counts it, to the same rate.
    let outcome = object.test_run(Program::Ingress, &frame, 0, 1).expect("a run");
    assert_eq!(outcome.code, TC_SHOT);
    assert_eq!(dropped(&object, Screen::UdpFlood), 21);
    let mut other = loaded(profile());
    let outcome = other.test_run(Program::Xdp, &frame, 0, 1).expect("a run");
    assert_ne!(notes[0], outcome.packet[..4], "another object's note");
}

/// Where there is nothing to screen, XDP leaves nothing behind.
#[test]
fn prog_run_xdp_leaves_packets_alone_without_screens() {
    if !privileged() {
        return;
    }
    let mut object = loaded(Profile::default());
    let frame = udp(53);
    let outcome = object.test_run(Program::Xdp, &frame, 0, 1).expect("a run");
    assert_eq!((outcome.code, outcome.packet), (XDP_PASS, frame));
}

#[test]
fn prog_run_scans_are_seen_by_tcx_and_told() {
    if !privileged() {
        return;
    }
    let mut object = loaded(Profile {
        udp_port_scan: Some(Scan {
            count: 10,
            interval: Duration::from_secs(1),
        }),
        ..Profile::default()
    });
    let mut events = object.ring_buffer("EVENTS").expect("EVENTS");
    for port in 1..=30 {
        let xdp = object.test_run(Program::Xdp, &udp(port), 0, 1).expect("a run");
        assert_eq!(xdp.code, XDP_PASS, "a scan is a matter of conversations");
        object
            .test_run(Program::Ingress, &udp(port), 0, 1)
            .expect("a run");
    }
    let stopped = counter(&object, Reason::ScreenUdpPortScan);
    // Two ports may share a bit.
    assert!((16..=20).contains(&stopped), "{stopped} of 30");
    assert_eq!(dropped(&object, Screen::UdpPortScan), stopped);
    let mut told = 0;
    while let Some(item) = events.next() {
        let event = Event::read_from_bytes(&item).expect("an event's bytes");
        if event.kind == EventKind::Screen as u8 {
            assert_eq!(
                (event.reason, event.state, event.from_zone),
                (Reason::ScreenUdpPortScan as u8, 1, 1)
            );
            told += 1;
        }
    }
    assert_eq!(told, stopped);
}

/// What XDP drops of a datagram, TCX knows of: the others do not wait in user space for their first.
#[test]
fn prog_run_a_first_fragment_dropped_by_xdp_takes_the_rest_with_it() {
    if !privileged() {
        return;
    }
    let mut object = loaded(Profile {
        syn_fragment: true,
        ..Profile::default()
    });
    let fragments = Frame::ip([10, 0, 0, 2], [10, 0, 1, 9])
        .macs([2, 9, 9, 9, 9, 9], MAC)
        .tcp(4000, 80)
        .syn()
        .payload_bytes(100)
        .build_fragments(64, 7);
    let first = object.test_run(Program::Xdp, &fragments[0], 0, 1).expect("a run");
    assert_eq!(first.code, XDP_DROP);
    let later = object.test_run(Program::Xdp, &fragments[1], 0, 1).expect("a run");
    assert_eq!(later.code, XDP_PASS, "nothing is wrong with it by itself");
    let later = object
        .test_run(Program::Ingress, &fragments[1], 0, 1)
        .expect("a run");
    assert_eq!(later.code, TC_SHOT);
    assert_eq!(counter(&object, Reason::ScreenSynFragment), 2);
    let held = object.counters().expect("counters")[Reason::SLOT_FRAGMENTS_HELD as usize];
    assert_eq!(held, 0);
}
