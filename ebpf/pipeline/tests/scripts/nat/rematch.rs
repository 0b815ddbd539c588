//! Live sessions after a commit: who would be translated as before notices nothing, who would not ends.

use bulkhead_abi::{NatFiltering, Reason};

use crate::{
    frame::{ACK, Frame, SYN},
    net::{DMZ, INSIDE, Net, OUTSIDE, Policy, ZONE_DMZ, ZONE_INSIDE, ZONE_OUTSIDE, permit},
    translation::{Nat, Pool, destination, source},
};

const POLICIES: [Policy; 3] = [
    permit(ZONE_INSIDE, ZONE_OUTSIDE),
    permit(ZONE_OUTSIDE, ZONE_DMZ),
    permit(ZONE_OUTSIDE, ZONE_INSIDE),
];

const CLIENT: &str = "10.1.0.2";
const SERVER: &str = "192.0.2.80";
const PUBLISHED: &str = "198.51.100.9";
const REAL: &str = "10.3.0.2";

/// A TCP session in full flow; its two directions as they arrive.
fn establish(net: &mut Net, there: (u32, &Frame), back: (u32, &Frame)) {
    for (ifindex, frame, flags, seq, ack) in [
        (there.0, there.1, SYN, 1000, 0),
        (back.0, back.1, SYN | ACK, 9000, 1001),
        (there.0, there.1, ACK, 1001, 9001),
        (back.0, back.1, ACK, 9001, 1001),
    ] {
        let mut frame = frame.clone();
        let ports = [0, 2].map(|at| u16::from_be_bytes([frame.header[at], frame.header[at + 1]]));
        frame = frame.tcp(ports[0], ports[1], flags, seq, ack);
        let reason = net.receive(ifindex, &frame).outcome.verdict.reason;
        assert!(!reason.is_drop(), "{reason:?}");
    }
    assert_eq!(net.flows(), (2, 0));
}

fn segments(from: &str, to: &str, ports: (u16, u16), seen: (&str, &str), back: (u16, u16)) -> (Frame, Frame) {
    (
        Frame::new(from, to).tcp(ports.0, ports.1, ACK, 1001, 9001),
        Frame::new(seen.0, seen.1).tcp(back.0, back.1, ACK, 9001, 1001),
    )
}

/// What a commit does to a session: both directions, each asked first.
fn judged(
    begin: &dyn Fn(&mut Net),
    then: &dyn Fn(&mut Net),
    there: (u32, &Frame),
    back: (u32, &Frame),
) -> [bool; 2] {
    [false, true].map(|reply_first| {
        let mut net = Net::new(&POLICIES);
        begin(&mut net);
        establish(&mut net, there, back);
        net.commit(&POLICIES);
        then(&mut net);
        let (ifindex, frame) = if reply_first { back } else { there };
        let outcome = net.receive(ifindex, frame).outcome;
        let lives = outcome.verdict.reason == Reason::Established;
        if lives {
            let (ifindex, frame) = if reply_first { there } else { back };
            let other = net.receive(ifindex, frame).outcome;
            assert_eq!(other.verdict.reason, Reason::Established);
        } else {
            assert_eq!(outcome.verdict.reason, Reason::TcpNoSession);
            assert_eq!(net.flows(), (0, 0));
        }
        lives
    })
}

/// A source pool before and after; whether the session lives.
#[track_caller]
fn source_pool(after: &dyn Fn(&mut Net), lives: bool) {
    let own = "192.0.3.16";
    let (there, back) = segments(CLIENT, SERVER, (5000, 80), (SERVER, own), (80, 5000));
    let begin = |net: &mut Net| {
        net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE).pool(1));
        net.pool(1, &Pool::of(&[(own, 1)]));
    };
    let judged = judged(&begin, after, (INSIDE, &there), (OUTSIDE, &back));
    assert_eq!(judged, [lives; 2]);
}

fn with_pool(rule: Nat, pool: &Pool<'_>) -> impl Fn(&mut Net) {
    move |net| {
        net.nat(rule);
        net.pool(1, pool);
    }
}

#[test]
fn an_address_that_is_still_in_the_pool_is_the_same_translation() {
    let rule = source(ZONE_INSIDE, ZONE_OUTSIDE).pool(1);
    let larger = Pool::of(&[("192.0.3.0", 16), ("192.0.3.16", 16)]);
    source_pool(&with_pool(rule, &larger), true);
    // In another place, without pairing, with other ports, under another number.
    let unpaired = Pool {
        paired: false,
        ports: Some((1024, 2000)),
        ..Pool::of(&[("192.0.3.16", 1)])
    };
    source_pool(&with_pool(rule.index(3), &unpaired), true);
    // Ports are kept now, and this session's was.
    let kept = Pool {
        ports: None,
        ..Pool::of(&[("192.0.3.16", 1)])
    };
    source_pool(&with_pool(rule, &kept), true);
}

/// Where ports are kept now, a session whose port had changed is not what it would be today.
#[test]
fn a_changed_port_does_not_outlive_the_change_of_ports() {
    let own = "192.0.3.16";
    let (there, back) = segments(CLIENT, SERVER, (5000, 80), (SERVER, own), (80, 9000));
    let pooled = |ports| {
        move |net: &mut Net| {
            net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE).pool(1));
            let mut pool = Pool::of(&[("192.0.3.16", 1)]);
            pool.ports = ports;
            net.pool(1, &pool);
        }
    };
    for (after, lives) in [(Some((9000, 9001)), true), (None, false)] {
        let judged = judged(
            &pooled(Some((9000, 9000))),
            &pooled(after),
            (INSIDE, &there),
            (OUTSIDE, &back),
        );
        assert_eq!(judged, [lives; 2]);
    }
}

#[test]
fn an_address_that_left_the_pool_ends_the_session() {
    let rule = source(ZONE_INSIDE, ZONE_OUTSIDE).pool(1);
    source_pool(&with_pool(rule, &Pool::of(&[("192.0.3.17", 9)])), false);
    source_pool(&|net| net.nat(rule), false);
    // Another rule, none, off, the interface.
    source_pool(&|_| {}, false);
    source_pool(&|net| net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE)), false);
    source_pool(&|net| net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE).off()), false);
    let other = source(ZONE_DMZ, ZONE_OUTSIDE).pool(1);
    source_pool(&with_pool(other, &Pool::of(&[("192.0.3.16", 1)])), false);
}

#[test]
fn the_rule_a_session_names_is_that_of_the_generation_it_lives_in() {
    let own = "192.0.3.16";
    let mut net = Net::new(&POLICIES);
    net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE).pool(1).index(5));
    net.pool(1, &Pool::of(&[(own, 1)]));
    let (there, back) = segments(CLIENT, SERVER, (5000, 80), (SERVER, own), (80, 5000));
    establish(&mut net, (INSIDE, &there), (OUTSIDE, &back));
    net.commit(&POLICIES);
    net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE).pool(1).index(9));
    net.pool(1, &Pool::of(&[(own, 1)]));
    for (ifindex, frame) in [(INSIDE, &there), (OUTSIDE, &back)] {
        assert_eq!(
            net.receive(ifindex, frame).outcome.verdict.reason,
            Reason::Established
        );
    }
    for (_, flow) in net.tables().flows4.entries() {
        assert_eq!((flow.generation, flow.nat_rule), (2, 9));
    }
}

#[track_caller]
fn published(after: &dyn Fn(&mut Net), lives: bool) {
    let (there, back) = segments(SERVER, PUBLISHED, (40000, 443), (REAL, SERVER), (8080, 40000));
    let begin = |net: &mut Net| {
        net.nat(destination(ZONE_OUTSIDE).pool(3));
        net.pool(3, &Pool::of(&[(REAL, 1)]).port(8080));
    };
    let judged = judged(&begin, after, (OUTSIDE, &there), (DMZ, &back));
    assert_eq!(judged, [lives; 2]);
}

#[test]
fn a_published_session_lives_as_long_as_its_server_is_one() {
    let rule = destination(ZONE_OUTSIDE).pool(3);
    let servers = |ranges: &'static [(&'static str, u32)], port| {
        move |net: &mut Net| {
            net.nat(rule);
            net.pool(3, &Pool::of(ranges).port(port));
        }
    };
    published(&servers(&[("10.3.0.2", 1)], 8080), true);
    published(&servers(&[("10.3.0.1", 64)], 8080), true);
    published(&servers(&[("10.3.0.3", 1)], 8080), false);
    published(&servers(&[("10.3.0.2", 1)], 8081), false);
    published(&servers(&[("10.3.0.2", 1)], 0), false);
    published(&|_| {}, false);
    published(&|net| net.nat(destination(ZONE_OUTSIDE)), false);
    published(&|net| net.nat(destination(ZONE_INSIDE).pool(3)), false);
}

/// A session that was not translated, and would be now.
#[test]
fn a_session_that_would_be_led_elsewhere_ends() {
    let (there, back) = segments(SERVER, REAL, (40000, 8080), (REAL, SERVER), (8080, 40000));
    let led = |net: &mut Net| {
        net.nat(destination(ZONE_OUTSIDE).pool(3));
        net.pool(3, &Pool::of(&[("10.3.0.9", 1)]));
    };
    let lives = judged(&|_| {}, &led, (OUTSIDE, &there), (DMZ, &back));
    assert_eq!(lives, [false; 2]);
    let to_itself = |net: &mut Net| {
        net.nat(destination(ZONE_OUTSIDE).pool(3));
        net.pool(3, &Pool::of(&[(REAL, 1)]));
    };
    let lives = judged(&|_| {}, &to_itself, (OUTSIDE, &there), (DMZ, &back));
    assert_eq!(lives, [true; 2], "what it would become is what it is");
}

#[test]
fn a_static_session_lives_as_long_as_its_prefix() {
    let known = "203.0.113.2";
    let (there, back) = segments(CLIENT, SERVER, (5000, 80), (SERVER, known), (80, 5000));
    let statically = |outer: &'static str| {
        move |net: &mut Net| {
            net.address_class(5, "10.1.0.0", 24);
            net.nat(source(crate::net::ANY, ZONE_OUTSIDE).from(5).prefix(24, outer));
        }
    };
    for (after, lives) in [("203.0.113.0", true), ("203.0.114.0", false)] {
        let judged = judged(
            &statically("203.0.113.0"),
            &statically(after),
            (INSIDE, &there),
            (OUTSIDE, &back),
        );
        assert_eq!(judged, [lives; 2], "{after}");
    }
}

#[test]
fn a_static_session_from_outside_does_too() {
    let known = "203.0.113.2";
    let (there, back) = segments(SERVER, known, (40000, 22), (CLIENT, SERVER), (22, 40000));
    let statically = |inner: &'static str| {
        move |net: &mut Net| {
            net.address_class(4, "203.0.113.0", 24);
            net.nat(destination(ZONE_OUTSIDE).to(4).prefix(24, inner));
        }
    };
    for (after, lives) in [("10.1.0.0", true), ("10.11.0.0", false)] {
        let judged = judged(
            &statically("10.1.0.0"),
            &statically(after),
            (OUTSIDE, &there),
            (INSIDE, &back),
        );
        assert_eq!(judged, [lives; 2], "{after}");
    }
}

/// A conversation of two inside hosts by an outside address is judged as it was made: as if it went out and came back.
#[test]
fn a_hairpin_lives_on() {
    let (own, other) = ("192.0.3.16", "10.1.0.3");
    let policies = [
        permit(ZONE_INSIDE, ZONE_OUTSIDE),
        permit(ZONE_INSIDE, ZONE_INSIDE),
    ];
    let persistent = |net: &mut Net| {
        net.nat(
            source(ZONE_INSIDE, ZONE_OUTSIDE)
                .pool(1)
                .persistent(NatFiltering::AnyRemoteHost),
        );
        net.pool(1, &Pool::of(&[(own, 1)]));
    };
    let mut net = Net::new(&policies);
    persistent(&mut net);
    let known = Frame::new(CLIENT, SERVER).udp(5000, 53);
    let call = Frame::new(other, own).udp(7000, 5000);
    let answer = Frame::new(CLIENT, own).udp(5000, 7000);
    for frame in [&known, &call, &answer] {
        let reason = net.receive(INSIDE, frame).outcome.verdict.reason;
        assert!(!reason.is_drop(), "{reason:?}");
    }
    for frame in [[&call, &answer], [&answer, &call]].concat() {
        net.commit(&policies);
        persistent(&mut net);
        net.receive(INSIDE, frame)
            .forwarded(INSIDE, Reason::Established, &[crate::net::MISS]);
    }
    net.commit(&policies);
    net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE).pool(1));
    net.pool(1, &Pool::of(&[(own, 1)]));
    let reason = net.receive(INSIDE, &call).outcome.verdict.reason;
    assert!(reason.is_drop(), "{reason:?}");
}

/// A session that came in by a mapping ends with what made the mapping.
#[test]
fn a_session_by_a_mapping_lives_as_long_as_the_mapping() {
    let (own, stranger) = ("192.0.3.16", "192.0.2.99");
    let persistent = |net: &mut Net| {
        net.nat(
            source(ZONE_INSIDE, ZONE_OUTSIDE)
                .pool(1)
                .persistent(NatFiltering::AnyRemoteHost),
        );
        net.pool(1, &Pool::of(&[(own, 1)]));
    };
    let begin = |net: &mut Net| {
        persistent(net);
        let opener = Frame::new(CLIENT, SERVER).tcp(5000, 80, SYN, 1, 0);
        let made = net.receive(INSIDE, &opener).outcome;
        assert_eq!(made.verdict.reason, Reason::SessionCreated);
        let flows = net.tables().half_open4.entries();
        for (key, _) in flows {
            net.tables().half_open4.remove(&key);
        }
    };
    let plain = |net: &mut Net| {
        net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE).pool(1));
        net.pool(1, &Pool::of(&[(own, 1)]));
    };
    // Mappings there are, but not for this host.
    let others = |net: &mut Net| {
        plain(net);
        net.nat(source(ZONE_DMZ, ZONE_OUTSIDE).persistent(NatFiltering::AnyRemoteHost));
    };
    // Meanwhile the outside end has become that of another port of the host.
    let another = |net: &mut Net| {
        persistent(net);
        let (outside, mut mapping) = net.tables().mappings.entries()[0];
        mapping.inside_port = 5001;
        mapping.generation = net.judgement();
        net.tables().mappings.set(&outside, &mapping);
    };
    let (there, back) = segments(stranger, own, (99, 5000), (CLIENT, stranger), (5000, 99));
    for (after, lives) in [
        (&persistent as &dyn Fn(&mut Net), true),
        (&plain, false),
        (&others, false),
        (&another, false),
    ] {
        let judged = judged(&begin, after, (OUTSIDE, &there), (INSIDE, &back));
        assert_eq!(judged, [lives; 2]);
    }
}
