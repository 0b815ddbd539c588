//! Source translation to pools: pairing, ports, exhaustion, and the order of the rules.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_abi::{Reason, RuleSet, SlowPathKind};

use crate::{
    frame::{ACK, Frame, SYN, Seen, TCP, ip},
    nat::{CHANGED, ESTABLISHED},
    net::{DMZ, HIT, INSIDE, MISS, Net, OUTSIDE, SECOND, SELF, ZONE_DMZ, ZONE_INSIDE, ZONE_OUTSIDE, permit},
    translation::{Pool, source, towards},
};

const POOL4: [(&str, u32); 2] = [("203.0.113.16", 3), ("203.0.113.40", 1)];
const POOL6: [(&str, u32); 2] = [("2001:db8:f::fffe", 3), ("2001:db8:f:1::", 1)];

/// From inside to outside by a pool of each family, the policy permitting everything.
fn pooled(change: impl Fn(&mut Pool<'_>)) -> Net {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE).pool(1));
    for ranges in [&POOL4, &POOL6] {
        let mut pool = Pool::of(ranges);
        change(&mut pool);
        net.pool(1, &pool);
    }
    net
}

fn addresses(v4: bool) -> BTreeSet<std::net::IpAddr> {
    let texts: &[&str] = if v4 {
        &["203.0.113.16", "203.0.113.17", "203.0.113.18", "203.0.113.40"]
    } else {
        &[
            "2001:db8:f::fffe",
            "2001:db8:f::ffff",
            "2001:db8:f::1:0",
            "2001:db8:f:1::",
        ]
    };
    texts.iter().map(|text| ip(text)).collect()
}

/// Inside hosts and a server, per family.
fn hosts(v4: bool) -> (Vec<String>, &'static str) {
    if v4 {
        ((2..40).map(|n| format!("10.1.0.{n}")).collect(), "192.0.2.80")
    } else {
        (
            (2..40).map(|n| format!("2001:db8:1::{n:x}")).collect(),
            "2001:db8:80::80",
        )
    }
}

/// RFC 4787, REQ-2: all sessions of an inside address have one outside address, and the hosts together use the pool.
#[test]
fn rfc4787_2_a_host_keeps_one_address_of_the_pool() {
    for v4 in [true, false] {
        let (hosts, server) = hosts(v4);
        let mut net = pooled(|_| {});
        let mut used = BTreeSet::new();
        let mut first = true;
        for (host, to) in hosts.iter().zip(53..) {
            let mut own = BTreeSet::new();
            for port in [1024, 5000, 65535] {
                let cache = if first { MISS } else { HIT };
                first = false;
                let frame = Frame::new(host, server).udp(port, to);
                let sent = net
                    .receive(INSIDE, &frame)
                    .forwarded(OUTSIDE, Reason::SessionCreated, &[cache]);
                assert_eq!(sent.seen.word(0), port, "the port was free");
                own.insert(sent.seen.source);
            }
            assert_eq!(own.len(), 1, "{host} has {own:?}");
            used.extend(own);
        }
        assert_eq!(used, addresses(v4));
    }
}

/// RFC 7857, section 4: a new session of a host whose address has no port left is dropped, not given another address.
#[test]
fn rfc7857_4_a_paired_host_gets_no_second_address() {
    for v4 in [true, false] {
        let (hosts, server) = hosts(v4);
        let mut net = pooled(|pool| pool.ports = Some((2000, 2001)));
        let from = |port| Frame::new(&hosts[0], server).udp(port, 53);
        let first = net.receive(INSIDE, &from(2000)).outcome;
        let second = net.receive(INSIDE, &from(2001)).outcome;
        assert_eq!(first.verdict.reason, second.verdict.reason);
        let outcome = net
            .receive(INSIDE, &from(2002))
            .dropped_and(Reason::NatPortsExhausted, &[HIT]);
        assert_eq!(outcome.asked[0].kind, SlowPathKind::Prohibited);
        // Another destination is another matter.
        let other = Frame::new(&hosts[0], server).udp(2002, 54);
        net.receive(INSIDE, &other)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, CHANGED]);
    }
}

#[test]
fn without_pairing_the_next_address_is_taken() {
    for v4 in [true, false] {
        let (hosts, server) = hosts(v4);
        let mut net = pooled(|pool| {
            pool.paired = false;
            pool.ports = Some((2000, 2001));
        });
        let mut tuples = BTreeSet::new();
        for n in 0..8 {
            // All begin at the third address and go round.
            net.tables().script_random([towards(2, 4)]);
            let frame = Frame::new(&hosts[0], server).udp(3000 + n, 53);
            let outcome = net.receive(INSIDE, &frame).outcome;
            assert_eq!(outcome.verdict.reason, Reason::SessionCreated);
            let seen = Seen::read(&outcome.bytes);
            tuples.insert((seen.source, seen.word(0)));
        }
        assert_eq!(tuples.len(), 8);
        let used: BTreeSet<_> = tuples.iter().map(|(address, _)| *address).collect();
        assert_eq!(used, addresses(v4));
        let outcome = net
            .receive(INSIDE, &Frame::new(&hosts[0], server).udp(4000, 53))
            .dropped_and(Reason::NatPortsExhausted, &[HIT]);
        assert_eq!(outcome.asked.len(), 1);
        assert_eq!(net.flows(), (0, 16), "nothing is left behind");
    }
}

/// RFC 4787, REQ-3 and RFC 5382, REQ-7: the outside tuple towards a destination is one session's.
#[test]
fn rfc4787_3_rfc5382_7_no_two_sessions_share_port_and_destination() {
    for v4 in [true, false] {
        let (hosts, server) = hosts(v4);
        let mut net = pooled(|pool| pool.ports = Some((3000, 3009)));
        let mut held = BTreeMap::new();
        let mut refused = 0;
        for host in &hosts {
            for port in [3000, 3005, 4000] {
                for frame in [
                    Frame::new(host, server).udp(port, 53),
                    Frame::new(host, server).tcp(port, 53, SYN, 1, 0),
                ] {
                    let protocol = frame.protocol;
                    let outcome = net.receive(INSIDE, &frame).outcome;
                    if outcome.verdict.reason == Reason::NatPortsExhausted {
                        refused += 1;
                        continue;
                    }
                    let seen = Seen::read(&outcome.bytes);
                    assert!((3000..=3009).contains(&seen.word(0)), "port {}", seen.word(0));
                    let tuple = (protocol, seen.source, seen.word(0));
                    let before = held.insert(tuple, (host.clone(), port));
                    assert_eq!(before, None, "{tuple:?} twice");
                }
            }
        }
        // 38 hosts with three ports each, on four addresses with ten: every port is used before anybody is refused.
        assert_eq!((held.len(), refused), (2 * 4 * 10, 2 * (38 * 3 - 40)));
    }
}

/// RFC 4787, REQ-3 a, and RFC 7857, section 9: a port from 1024 on stays there, also where the pool has lower ones.
#[test]
fn rfc4787_3a_rfc7857_9_high_ports_stay_high() {
    let mut net = pooled(|pool| pool.ports = Some((500, 65535)));
    for (n, host) in (0..).zip(hosts(true).0) {
        let frame = Frame::new(&host, "192.0.2.80").udp(1024, 53);
        let outcome = net.receive(INSIDE, &frame).outcome;
        let port = Seen::read(&outcome.bytes).word(0);
        assert!(port >= 1024, "session {n} got {port}");
    }
    // Were it a matter of chance alone, this number would lead to the pool's lowest port.
    net.tables().script_random([0]);
    let frame = Frame::new("10.1.0.50", "192.0.2.80").udp(1024, 53);
    let sent = [net.receive(INSIDE, &frame), {
        net.tables().script_random([0]);
        net.receive(INSIDE, &Frame::new("10.1.0.50", "192.0.2.80").udp(1025, 53))
    }];
    for step in sent {
        assert!(Seen::read(&step.outcome.bytes).word(0) >= 1024);
    }
    // A low one is kept while it is free, and stays inside the pool.
    let from = |host| Frame::new(host, "192.0.2.90").udp(600, 53);
    let outcome = net.receive(INSIDE, &from("10.1.0.2")).outcome;
    assert_eq!(Seen::read(&outcome.bytes).word(0), 600);
    let outcome = net
        .receive(INSIDE, &Frame::new("10.1.0.2", "192.0.2.90").udp(100, 53))
        .outcome;
    assert!(Seen::read(&outcome.bytes).word(0) >= 500);
}

/// RFC 6056: where a port must change, nobody can tell which it becomes.
#[test]
fn rfc6056_changed_ports_are_random() {
    let mut net = pooled(|pool| {
        pool.ranges = if pool.ranges[0].0.contains(':') {
            &POOL6[1..]
        } else {
            &POOL4[1..]
        }
    });
    let mut ports = Vec::new();
    for n in 0..=200 {
        let host = format!("10.1.0.{}", n + 2);
        let frame = Frame::new(&host, "192.0.2.80").udp(5000, 53);
        let outcome = net.receive(INSIDE, &frame).outcome;
        ports.push(Seen::read(&outcome.bytes).word(0));
    }
    assert_eq!(ports.remove(0), 5000, "the first keeps its own");
    let steps: BTreeSet<_> = ports
        .windows(2)
        .map(|pair| pair[1].wrapping_sub(pair[0]))
        .collect();
    assert!(steps.len() > 190, "{} different steps", steps.len());
    for eighth in 0..8_u32 {
        let (from, to) = (1024 + eighth * 8064, 1024 + (eighth + 1) * 8064);
        let inside = ports
            .iter()
            .filter(|port| (from..to).contains(&u32::from(**port)))
            .count();
        assert!((10..=45).contains(&inside), "{inside} of 200 from {from} to {to}");
    }
}

/// Of a few ports all are tried, wherever chance begins.
#[test]
fn the_last_of_a_few_ports_is_found() {
    let mut net = pooled(|pool| pool.ports = Some((2000, 2063)));
    for port in 2000..2063 {
        let frame = Frame::new("10.1.0.2", "192.0.2.80").udp(port, 53);
        net.receive(INSIDE, &frame).forwarded(
            OUTSIDE,
            Reason::SessionCreated,
            &[if port == 2000 { MISS } else { HIT }],
        );
    }
    net.tables().script_random([0; 64]);
    let sent = net
        .receive(INSIDE, &Frame::new("10.1.0.2", "192.0.2.80").udp(5000, 53))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, CHANGED]);
    assert_eq!(sent.seen.word(0), 2063);
}

#[test]
fn ports_that_are_not_translated_are_kept_or_refused() {
    for paired in [true, false] {
        let mut net = pooled(|pool| {
            pool.ports = None;
            pool.paired = paired;
        });
        let from = |host| Frame::new(host, "192.0.2.80").udp(77, 53);
        // Four hosts with one port: unpaired, each takes another address; paired, those that share one are refused.
        let mut outcomes = Vec::new();
        for host in ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"] {
            let outcome = net.receive(INSIDE, &from(host)).outcome;
            if outcome.verdict.reason == Reason::SessionCreated {
                let seen = Seen::read(&outcome.bytes);
                assert_eq!(seen.word(0), 77);
                outcomes.push(seen.source);
            } else {
                assert_eq!(outcome.verdict.reason, Reason::NatPortsExhausted);
            }
        }
        let distinct: BTreeSet<_> = outcomes.iter().collect();
        assert_eq!(distinct.len(), outcomes.len());
        if !paired {
            assert_eq!(outcomes.len(), 4, "every address once");
        }
    }
}

/// RFC 5508, REQ-8: out of ports the sender is told, by ICMP over TCP too, and it is counted.
#[test]
fn rfc5508_8_exhaustion_is_told_and_counted() {
    for v4 in [true, false] {
        let (hosts, server) = hosts(v4);
        let mut net = pooled(|pool| pool.ports = Some((2000, 2000)));
        for frame in [
            Frame::new(&hosts[0], server).tcp(2000, 80, SYN, 1, 0),
            Frame::new(&hosts[0], server).echo(2000, 1),
            Frame::new(&hosts[0], server).udp(2000, 80),
        ] {
            let first = net.receive(INSIDE, &frame).outcome;
            assert_eq!(first.verdict.reason, Reason::SessionCreated);
        }
        for frame in [
            Frame::new(&hosts[0], server).tcp(2001, 80, SYN, 1, 0),
            Frame::new(&hosts[0], server).echo(2001, 1),
            Frame::new(&hosts[0], server).udp(2001, 80),
        ] {
            let outcome = net.receive(INSIDE, &frame).outcome;
            assert_eq!(outcome.verdict.reason, Reason::NatPortsExhausted);
            assert_eq!(outcome.delta["nat_ports_exhausted"], 1);
            assert_eq!(outcome.asked.len(), 1);
            assert_eq!(
                (outcome.asked[0].kind, outcome.asked[0].ifindex),
                (SlowPathKind::Prohibited, INSIDE)
            );
        }
    }
}

#[test]
fn a_pool_without_addresses_of_the_family_sends_nothing() {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE).pool(1));
    net.pool(1, &Pool::of(&POOL4));
    let frame = Frame::new("2001:db8:1::2", "2001:db8:80::80").udp(1, 2);
    net.receive(INSIDE, &frame).dropped(Reason::NatNoAddress, &[MISS]);
    assert_eq!(net.flows(), (0, 0));
}

/// RFC 5508, REQ-1: the identifier of a query is translated like a port, and back in the answer.
#[test]
fn rfc5508_1_identifiers_are_translated() {
    for v4 in [true, false] {
        let (hosts, server) = hosts(v4);
        let mut net = pooled(|_| {});
        let ask = Frame::new(&hosts[0], server).echo(77, 1).payload(b"abc");
        let outcome = net.receive(INSIDE, &ask).outcome;
        let seen = Seen::read(&outcome.bytes);
        // 77 is not one of the pool's.
        let (own, id) = (seen.source.to_string(), seen.word(4));
        assert!(id >= 1024, "{id}");
        let answer = Frame::new(server, &own).echo_reply(id, 1).payload(b"abc");
        let sent = net
            .receive(OUTSIDE, &answer)
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED])
            .between(server, &hosts[0]);
        assert_eq!(sent.seen.word(4), 77);
    }
}

/// Protocols without ports: one session per remote host and outside address; an unpaired pool has more than one of those.
#[test]
fn protocols_without_ports_share_a_pool_by_address() {
    let mut net = pooled(|pool| pool.paired = false);

    let mut used = BTreeSet::new();
    for (n, host) in ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5"]
        .iter()
        .enumerate()
    {
        net.tables().script_random([0]);
        let frame = Frame::new(host, "192.0.2.80").protocol(47, b"gre");
        let cache = if n == 0 { MISS } else { HIT };
        let sent = net
            .receive(INSIDE, &frame)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[cache]);
        used.insert(sent.seen.source);
    }
    assert_eq!(used, addresses(true));
    let frame = Frame::new("10.1.0.6", "192.0.2.80").protocol(47, b"gre");
    net.receive(INSIDE, &frame)
        .dropped(Reason::NatUnsupported, &[HIT]);
}

#[test]
fn the_first_rule_that_matches_counts_whatever_it_looks_at() {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE), permit(ZONE_INSIDE, ZONE_DMZ)]);
    let (partner, special, web) = (5, 6, 9);
    net.address_class(partner, "192.0.2.90", 32);
    net.address_class(special, "10.1.0.3", 32);
    net.service(web, TCP, 80);
    net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE).to(partner).off().index(0));
    net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE).from(special).pool(1).index(1));
    net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE).service(web).pool(2).index(2));
    net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE).index(3));
    net.pool(1, &Pool::of(&[("203.0.113.1", 1)]));
    net.pool(2, &Pool::of(&[("203.0.113.2", 1)]));
    for (frame, own, rule) in [
        (
            Frame::new("10.1.0.3", "192.0.2.90").udp(1, 2),
            "10.1.0.3",
            u32::MAX,
        ),
        (
            Frame::new("10.1.0.3", "192.0.2.80").tcp(1, 80, SYN, 1, 0),
            "203.0.113.1",
            1,
        ),
        (
            Frame::new("10.1.0.2", "192.0.2.80").tcp(1, 80, SYN, 1, 0),
            "203.0.113.2",
            2,
        ),
        (Frame::new("10.1.0.2", "192.0.2.80").udp(1, 80), "198.51.100.1", 3),
    ] {
        let outcome = net.receive(INSIDE, &frame).outcome;
        let seen = Seen::read(&outcome.bytes);
        assert_eq!(seen.source, ip(own));
        assert_eq!(outcome.events[0].nat_rule, rule);
    }
    let hits: Vec<u64> = (0..4)
        .map(|rule| net.nat_hits(RuleSet::SourceNat, rule))
        .collect();
    assert_eq!(hits, [1, 1, 1, 1]);
    let frame = Frame::new("10.1.0.2", "10.3.0.2").udp(1, 2);
    let outcome = net.receive(INSIDE, &frame).outcome;
    assert_eq!(Seen::read(&outcome.bytes).source, ip("10.1.0.2"));
}

/// An address of a pool that no session wants is nobody's: not sent back where it came from, and not out again.
#[test]
fn what_nobody_asked_for_ends_at_the_pool() {
    let everything = [
        permit(ZONE_INSIDE, ZONE_OUTSIDE),
        permit(ZONE_OUTSIDE, ZONE_OUTSIDE),
        permit(ZONE_DMZ, ZONE_OUTSIDE),
        permit(ZONE_OUTSIDE, SELF),
    ];
    for (prefix, address, stranger, insider, dmz) in [
        (
            "203.0.113.16",
            "203.0.113.17",
            "192.0.2.80",
            "10.1.0.2",
            "10.3.0.2",
        ),
        ("192.0.3.16", "192.0.3.17", "192.0.2.80", "10.1.0.2", "10.3.0.2"),
        (
            "2001:db8:f::10",
            "2001:db8:f::11",
            "2001:db8:80::80",
            "2001:db8:1::2",
            "2001:db8:3::2",
        ),
    ] {
        let mut net = Net::new(&everything);
        net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE).pool(1));
        net.pool(1, &Pool::of(&[(prefix, 4)]));
        net.owns(prefix, if prefix.contains(':') { 126 } else { 30 }, ZONE_OUTSIDE);
        for (ifindex, from) in [(OUTSIDE, stranger), (INSIDE, insider), (DMZ, dmz)] {
            // The first of them has no route either, which the outside is not told.
            if prefix == "203.0.113.16" && ifindex != OUTSIDE {
                continue;
            }
            for frame in [
                Frame::new(from, address).udp(53, 5000),
                Frame::new(from, address).tcp(80, 5000, SYN, 1, 0),
                Frame::new(from, address).echo(1, 1),
            ] {
                let outcome = net
                    .receive(ifindex, &frame)
                    .dropped_and(Reason::NatNoMapping, &[]);
                assert!(outcome.asked.is_empty());
                assert_eq!(outcome.events.len(), 1, "and it can be seen");
            }
        }
        let outside = Frame::new(
            stranger,
            if prefix.contains(':') {
                "2001:db8:f::20"
            } else {
                "192.0.3.20"
            },
        );
        let outcome = net.receive(OUTSIDE, &outside.udp(1, 2)).outcome;
        assert_ne!(
            outcome.verdict.reason,
            Reason::NatNoMapping,
            "only the pool's own"
        );
    }
}

/// RFC 5382, REQ-4: an unsolicited SYN to a translated address gets no answer within six seconds, nor ever: the inside may
/// be about to open the same connection from its side.
#[test]
fn rfc5382_4_an_unsolicited_syn_is_met_with_silence() {
    for (own, pooled) in [("198.51.100.1", false), ("192.0.3.16", true)] {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        let rule = source(ZONE_INSIDE, ZONE_OUTSIDE);
        net.nat(if pooled { rule.pool(1) } else { rule });
        net.pool(1, &Pool::of(&[("192.0.3.16", 1)]));
        net.owns("192.0.3.16", 32, ZONE_OUTSIDE);
        let syn = Frame::new("192.0.2.80", own).tcp(80, 40000, SYN, 9000, 0);
        for _ in 0..4 {
            let outcome = net.receive(OUTSIDE, &syn).outcome;
            assert!(outcome.verdict.reason.is_drop());
            assert!(outcome.asked.is_empty(), "nothing is answered");
            net.advance(2 * SECOND);
        }
        // Simultaneous open: now the inside sends its own, keeps its port, and the other side's SYN is let in.
        let open = Frame::new("10.1.0.2", "192.0.2.80").tcp(40000, 80, SYN, 1000, 0);
        let sent = net.receive(INSIDE, &open).outcome;
        assert_eq!(sent.verdict.reason, Reason::SessionCreated);
        net.receive(OUTSIDE, &syn)
            .forwarded(INSIDE, Reason::HalfOpen, &[])
            .between("192.0.2.80", "10.1.0.2");
        let both = Frame::new("10.1.0.2", "192.0.2.80").tcp(40000, 80, SYN | ACK, 1000, 9001);
        net.receive(INSIDE, &both)
            .forwarded(OUTSIDE, Reason::HalfOpen, &[])
            .between(own, "192.0.2.80");
    }
}

/// RFC 4787, REQ-11: hundreds of other sessions, most of which had to change their port, make no difference to how the next
/// one is treated, nor to those that were there before.
#[test]
fn rfc4787_11_load_and_collisions_change_nothing() {
    let mut net = pooled(|_| {});
    let ask = Frame::new("10.1.0.2", "192.0.2.80").udp(5000, 53);
    let first = net.receive(INSIDE, &ask).outcome;
    let own = Seen::read(&first.bytes).source;
    for n in 0..900_u32 {
        let host = format!("10.1.{}.{}", n / 250, 3 + n % 250);
        let frame = Frame::new(&host, "192.0.2.80").udp(5000, 53);
        let outcome = net.receive(INSIDE, &frame).outcome;
        assert_eq!(outcome.verdict.reason, Reason::SessionCreated, "{n}");
    }
    let again = net
        .receive(INSIDE, &ask)
        .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
    assert_eq!((again.seen.source, again.seen.word(0)), (own, 5000));
    // Where there is no collision the port is kept and the address is the host's, as ever.
    let elsewhere = Frame::new("10.1.0.2", "192.0.2.81").udp(5000, 53);
    let sent = net
        .receive(INSIDE, &elsewhere)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
    assert_eq!((sent.seen.source, sent.seen.word(0)), (own, 5000));
    let other = Frame::new("10.1.0.2", "192.0.2.80").udp(5001, 53);
    let sent = net
        .receive(INSIDE, &other)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
    assert_eq!((sent.seen.source, sent.seen.word(0)), (own, 5001));
}
