//! Persistent mappings: one outside end per inside end, ways back in, hairpin, and their end.

use bulkhead_abi::{Mapping, MappingKey, NatFiltering, Reason, RuleSet};

use crate::{
    frame::{ACK, Frame, SYN, Seen, UDP, ip},
    nat::{CHANGED, ESTABLISHED},
    net::{
        HIT, INSIDE, MISS, Net, OUTSIDE, SECOND, SELF, ZONE_DMZ, ZONE_INSIDE, ZONE_OUTSIDE, deny, permit,
        words,
    },
    translation::{Pool, source, towards, towards_port},
};

const MADE: (&str, u64) = ("nat_mappings_created", 1);
const USED: (&str, u64) = ("nat_mappings_used", 1);
const REMOVED: (&str, u64) = ("nat_mappings_removed", 1);

/// Two inside hosts, two servers, the pool's address, per family.
const FAMILIES: [[&str; 5]; 2] = [
    ["10.1.0.2", "10.1.0.3", "192.0.2.80", "192.0.2.81", "192.0.3.16"],
    [
        "2001:db8:1::2",
        "2001:db8:1::3",
        "2001:db8:80::80",
        "2001:db8:80::81",
        "2001:db8:f::10",
    ],
];

/// What the outside may do is policy's too.
const BOTH_WAYS: [crate::net::Policy; 3] = [
    permit(ZONE_INSIDE, ZONE_OUTSIDE),
    permit(ZONE_OUTSIDE, ZONE_INSIDE),
    permit(ZONE_INSIDE, ZONE_INSIDE),
];

/// A pool of one address in each family, with mappings of a filtering.
fn mapping(policies: &[crate::net::Policy], filtering: NatFiltering) -> Net {
    let mut net = Net::new(policies);
    rules(&mut net, filtering);
    net
}

fn rules(net: &mut Net, filtering: NatFiltering) {
    net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE).pool(1).persistent(filtering));
    for [.., own] in FAMILIES {
        net.pool(1, &Pool::of(&[(own, 1)]));
        net.owns(own, if own.contains(':') { 128 } else { 32 }, ZONE_OUTSIDE);
    }
}

fn outside(address: &str, port: u16) -> MappingKey {
    MappingKey {
        address_be: words(ip(address)),
        port,
        protocol: UDP,
        family: if address.contains(':') { 6 } else { 4 },
        identity: 0,
    }
}

fn found(net: &Net, key: &MappingKey) -> Mapping {
    net.tables().mappings.get(key).expect("a mapping")
}

/// RFC 4787, REQ-1 and RFC 5382, REQ-1: whatever the destination, an inside address and port have one outside address and
/// port, also where the port had to change.
#[test]
fn rfc4787_1_rfc5382_1_one_inside_end_has_one_outside_end() {
    for [host, other, server, elsewhere, own] in FAMILIES {
        let mut net = mapping(&BOTH_WAYS, NatFiltering::AnyRemoteHost);

        for tcp in [false, true] {
            let from = |host, to, port: u16| {
                let frame = Frame::new(host, to);
                if tcp {
                    frame.tcp(5000, port, SYN, 1, 0)
                } else {
                    frame.udp(5000, port)
                }
            };
            let cache = if tcp { HIT } else { MISS };
            let sent = net
                .receive(INSIDE, &from(host, server, 53))
                .forwarded(OUTSIDE, Reason::SessionCreated, &[cache, MADE, USED])
                .between(own, server);
            assert_eq!(sent.seen.word(0), 5000);
            // Another host with the same port: a port of its own, although towards these destinations 5000 were free.
            net.tables()
                .script_random([towards_port(5000), towards_port(6000)]);
            let sent = net
                .receive(INSIDE, &from(other, elsewhere, 99))
                .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, MADE, USED, CHANGED])
                .between(own, elsewhere);
            assert_eq!(sent.seen.word(0), 6000);
            for (host, mapped) in [(host, 5000), (other, 6000)] {
                for (to, port) in [(elsewhere, 54), (server, 54), (server, 55)] {
                    let sent = net
                        .receive(INSIDE, &from(host, to, port))
                        .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, USED])
                        .between(own, to);
                    assert_eq!(sent.seen.word(0), mapped);
                }
            }
        }
    }
}

/// Without `persistent`, mapping depends on the endpoint, and the port is kept wherever it is free.
#[test]
fn rfc4787_1_otherwise_the_port_is_kept_where_it_is_free() {
    for [host, other, server, elsewhere, own] in FAMILIES {
        let mut net = Net::new(&BOTH_WAYS);
        net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE).pool(1));
        net.pool(1, &Pool::of(&[(own, 1)]));

        net.receive(INSIDE, &Frame::new(host, server).udp(5000, 53))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.receive(INSIDE, &Frame::new(other, server).udp(5000, 53))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, CHANGED]);
        let sent = net
            .receive(INSIDE, &Frame::new(other, elsewhere).udp(5000, 53))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
        assert_eq!(sent.seen.word(0), 5000);
    }
}

/// Filtering as configured: who may send to a mapping that the inside has used towards one remote end.
#[test]
fn rfc4787_8_filtering_is_what_the_rule_says() {
    for (filtering, same_host_other_port, stranger) in [
        (NatFiltering::AnyRemoteHost, true, true),
        (NatFiltering::TargetHost, true, false),
        (NatFiltering::TargetHostPort, false, false),
    ] {
        for [host, _, server, elsewhere, own] in FAMILIES {
            let mut net = mapping(&BOTH_WAYS, filtering);
            net.receive(INSIDE, &Frame::new(host, server).udp(5000, 53))
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS, MADE, USED]);
            // The answer is the session's, whatever the filtering.
            net.receive(OUTSIDE, &Frame::new(server, own).udp(53, 5000))
                .forwarded(INSIDE, Reason::Established, &[ESTABLISHED])
                .between(server, host);
            for (from, admitted) in [(server, same_host_other_port), (elsewhere, stranger)] {
                let step = net.receive(OUTSIDE, &Frame::new(from, own).udp(99, 5000));
                if !admitted {
                    assert_eq!(step.outcome.verdict.reason, Reason::NatFiltered);
                    assert!(step.outcome.asked.is_empty());
                    continue;
                }
                assert_eq!(step.outcome.verdict.reason, Reason::SessionCreated);
                let seen = Seen::read(&step.outcome.bytes);
                assert_eq!((seen.source, seen.destination), (ip(from), ip(host)));
                assert_eq!((seen.word(0), seen.word(2)), (99, 5000));
                // Answered under the mapping, on the way the question came.
                net.receive(INSIDE, &Frame::new(host, from).udp(5000, 99))
                    .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED])
                    .between(own, from);
            }
        }
    }
}

#[test]
fn what_comes_in_by_a_mapping_is_policys_business() {
    let [host, _, server, elsewhere, own] = FAMILIES[0];
    for (last, reason) in [
        (None, Reason::DefaultDeny),
        (Some(deny(ZONE_OUTSIDE, ZONE_INSIDE)), Reason::PolicyDeny),
    ] {
        let mut policies = vec![permit(ZONE_INSIDE, ZONE_OUTSIDE)];
        policies.extend(last);
        let mut net = mapping(&policies, NatFiltering::AnyRemoteHost);
        let _made = net.receive(INSIDE, &Frame::new(host, server).udp(5000, 53));
        let outcome = net
            .receive(OUTSIDE, &Frame::new(elsewhere, own).udp(99, 5000))
            .outcome;
        assert_eq!(outcome.verdict.reason, reason);
        assert_eq!(
            outcome.events[0].new_destination_be,
            words(ip(host)),
            "asked about the inside"
        );
    }
}

/// A port that nobody mapped ends at the address; and TCP mappings are not UDP's.
#[test]
fn only_mapped_ports_lead_in() {
    let [host, _, server, elsewhere, own] = FAMILIES[0];
    let mut net = mapping(&BOTH_WAYS, NatFiltering::AnyRemoteHost);
    let _first = net.receive(INSIDE, &Frame::new(host, server).udp(5000, 53));
    for frame in [
        Frame::new(elsewhere, own).udp(99, 5001),
        Frame::new(elsewhere, own).tcp(99, 5000, SYN, 1, 0),
        Frame::new(elsewhere, own).echo(5000, 1),
        Frame::new(elsewhere, own).protocol(47, b"gre"),
    ] {
        net.receive(OUTSIDE, &frame).dropped(Reason::NatNoMapping, &[]);
    }
}

/// RFC 4787, REQ-9 and RFC 5382, REQ-8: one inside host reaches another by its outside address, and is seen under its own.
#[test]
fn rfc4787_9_rfc5382_8_hairpin() {
    for [host, other, server, _, own] in FAMILIES {
        for tcp in [false, true] {
            let mut net = mapping(&BOTH_WAYS, NatFiltering::AnyRemoteHost);
            let segment = |from, to, source: u16, destination: u16, flags, seq, ack| {
                let frame = Frame::new(from, to);
                if tcp {
                    frame.tcp(source, destination, flags, seq, ack)
                } else {
                    frame.udp(source, destination)
                }
            };
            // The one that listens has made itself known outside; its port had to change there.
            let known = 6000;
            let _taken = net.receive(INSIDE, &segment(other, server, 5000, 53, SYN, 1, 0));
            net.tables().script_random([1, towards_port(known)]);
            let sent = net
                .receive(INSIDE, &segment(host, server, 5000, 53, SYN, 1, 0))
                .outcome;
            assert_eq!(Seen::read(&sent.bytes).word(0), known);
            // The other has no mapping of this port yet: it gets one, as if it had gone out.
            let call = segment(other, own, 7000, known, SYN, 1000, 0);
            let step = net.receive(INSIDE, &call);
            let cache = ("decision_cache_misses", 1);
            let sent = step
                .forwarded(
                    INSIDE,
                    Reason::SessionCreated,
                    &[cache, MADE, ("nat_mappings_used", 2)],
                )
                .between(own, host);
            assert_eq!((sent.seen.word(0), sent.seen.word(2)), (7000, 5000));
            assert_eq!(sent.events[0].nat_rule, 7);
            let answer = segment(host, own, 5000, 7000, SYN | ACK, 9000, 1001);
            let reason = if tcp {
                Reason::HalfOpen
            } else {
                Reason::Established
            };
            let others: &[_] = if tcp { &[] } else { &[ESTABLISHED] };
            let sent = net
                .receive(INSIDE, &answer)
                .forwarded(INSIDE, reason, others)
                .between(own, other);
            assert_eq!((sent.seen.word(0), sent.seen.word(2)), (known, 7000));
            let third = segment(other, own, 7000, known, ACK, 1001, 9001);
            let others: &[_] = if tcp { &[ESTABLISHED] } else { &[] };
            net.receive(INSIDE, &third)
                .forwarded(INSIDE, Reason::Established, others)
                .between(own, host);
            // And it is the mapping that the outside sees as well.
            let out = segment(other, server, 7000, 80, SYN, 1, 0);
            let sent = net
                .receive(INSIDE, &out)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, USED])
                .between(own, server);
            assert_eq!(sent.seen.word(0), 7000);
        }
    }
}

/// Filtering does not know inside from outside: the caller is who it looks like. Who is refused has sent all the same, and
/// may be called back (RFC 5128, section 3.3): two hosts behind the same translation find each other as any two.
#[test]
fn a_hairpin_is_filtered_by_the_callers_outside_end() {
    for filtering in [NatFiltering::TargetHost, NatFiltering::TargetHostPort] {
        let [host, other, server, _, own] = FAMILIES[0];
        let mut net = mapping(&BOTH_WAYS, filtering);
        for (host, port) in [(host, 5000), (other, 7000)] {
            let sent = net
                .receive(INSIDE, &Frame::new(host, server).udp(port, 53))
                .outcome;
            assert_eq!(sent.verdict.reason, Reason::SessionCreated);
        }
        let call = Frame::new(other, own).udp(7000, 5000);
        assert_eq!(
            net.receive(INSIDE, &call).outcome.verdict.reason,
            Reason::NatFiltered
        );
        let calls_back = Frame::new(host, own).udp(5000, 7000);
        let sent = net.receive(INSIDE, &calls_back).outcome;
        assert_eq!(sent.verdict.reason, Reason::SessionCreated);
        let seen = Seen::read(&sent.bytes);
        assert_eq!((seen.source, seen.destination), (ip(own), ip(other)));
        net.receive(INSIDE, &call)
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED])
            .between(own, host);
    }
}

/// The rules are asked about what the caller wrote: the outside address, not who has it inside.
#[test]
fn a_hairpin_is_translated_by_the_rule_for_the_address_it_called() {
    let [host, other, server, _, own] = FAMILIES[0];
    let (inside_hosts, outside_addresses) = (5, 6);
    let mut net = Net::new(&BOTH_WAYS);
    net.address_class(inside_hosts, "10.1.0.0", 24);
    net.address_class(outside_addresses, own, 32);
    let out = || source(ZONE_INSIDE, ZONE_OUTSIDE).persistent(NatFiltering::AnyRemoteHost);
    net.nat(out().to(inside_hosts).pool(2));
    net.nat(out().to(outside_addresses).pool(3));
    net.nat(out().pool(1));
    for (pool, address) in [(1, own), (2, "192.0.3.18"), (3, "192.0.3.19")] {
        net.pool(pool, &Pool::of(&[(address, 1)]));
    }
    let _known = net.receive(INSIDE, &Frame::new(host, server).udp(5000, 53));
    let sent = net
        .receive(INSIDE, &Frame::new(other, own).udp(7000, 5000))
        .outcome;
    assert_eq!(Seen::read(&sent.bytes).source, ip("192.0.3.19"));
}

/// A mapped port is taken for everybody, also for sessions of rules that make no mappings.
#[test]
fn a_mapped_port_is_nobody_elses() {
    let [host, other, server, elsewhere, own] = FAMILIES[0];
    let special = 5;
    let mut net = Net::new(&BOTH_WAYS);
    net.address_class(special, host, 32);
    net.nat(
        source(ZONE_INSIDE, ZONE_OUTSIDE)
            .from(special)
            .pool(1)
            .persistent(NatFiltering::AnyRemoteHost),
    );
    net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE).pool(1));
    net.pool(1, &Pool::of(&[(own, 1)]));
    let _mapped = net.receive(INSIDE, &Frame::new(host, server).udp(5000, 53));
    net.tables()
        .script_random([towards_port(5000), towards_port(7000)]);
    let sent = net
        .receive(INSIDE, &Frame::new(other, elsewhere).udp(5000, 99))
        .outcome;
    assert_eq!(Seen::read(&sent.bytes).word(0), 7000);
    assert_eq!(sent.delta["nat_ports_changed"], 1);
    // TCP's ports are others.
    let sent = net
        .receive(INSIDE, &Frame::new(other, elsewhere).tcp(5000, 99, SYN, 1, 0))
        .outcome;
    assert_eq!(Seen::read(&sent.bytes).word(0), 5000);
}

/// A port that an ordinary session holds towards the same destination is not mapped either.
#[test]
fn a_mapping_does_not_take_a_sessions_answers() {
    let [host, other, server, _, own] = FAMILIES[0];
    let special = 5;
    let mut net = Net::new(&BOTH_WAYS);
    net.address_class(special, host, 32);
    net.nat(
        source(ZONE_INSIDE, ZONE_OUTSIDE)
            .from(special)
            .pool(1)
            .persistent(NatFiltering::AnyRemoteHost),
    );
    net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE).pool(1));
    net.pool(1, &Pool::of(&[(own, 1)]));
    let _first = net.receive(INSIDE, &Frame::new(other, server).udp(5000, 53));
    net.tables().script_random([1, towards_port(7000)]);
    let sent = net
        .receive(INSIDE, &Frame::new(host, server).udp(5000, 53))
        .outcome;
    assert_eq!(Seen::read(&sent.bytes).word(0), 7000);
    net.receive(OUTSIDE, &Frame::new(server, own).udp(53, 5000))
        .forwarded(INSIDE, Reason::Established, &[ESTABLISHED])
        .between(server, other);
    // Nor once it is established.
    assert!(net.firewall.expire_mapping(&outside(own, 7000), 0, true));
    net.advance(31 * SECOND);
    let third = "10.1.0.4";
    net.address_class(special, third, 32);
    net.tables().script_random([1, towards_port(7001)]);
    let sent = net
        .receive(INSIDE, &Frame::new(third, server).udp(5000, 53))
        .outcome;
    assert_eq!(Seen::read(&sent.bytes).word(0), 7001);
}

#[test]
fn mappings_of_the_interface_are_the_interfaces() {
    for [host, _, server, elsewhere, _] in FAMILIES {
        let own = if host.contains(':') {
            "2001:db8:2::1"
        } else {
            "198.51.100.1"
        };
        let mut net = Net::new(&BOTH_WAYS);
        net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE).persistent(NatFiltering::AnyRemoteHost));
        net.receive(INSIDE, &Frame::new(host, server).udp(5000, 53))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS, MADE, USED])
            .between(own, server);
        let sent = net
            .receive(OUTSIDE, &Frame::new(elsewhere, own).udp(99, 5000))
            .outcome;
        assert_eq!(Seen::read(&sent.bytes).destination, ip(host));
        // Other ports are still the firewall's own.
        let outcome = net
            .receive(OUTSIDE, &Frame::new(elsewhere, own).udp(99, 5001))
            .outcome;
        assert_eq!(outcome.verdict.reason, Reason::HostInboundDeny);
        // The interface gets another address: the mapping is to an address that is no longer given.
        let mut facts = net.tables().interfaces.get(&OUTSIDE).unwrap();
        if host.contains(':') {
            facts.address6_be = words(ip("2001:db8:2::7"));
        } else {
            facts.address4_be = words(ip("198.51.100.7"))[0];
        }
        net.tables().interfaces.set(&OUTSIDE, &facts);
        let sent = net
            .receive(INSIDE, &Frame::new(host, elsewhere).udp(5000, 53))
            .outcome;
        assert!(Seen::read(&sent.bytes).source.to_string().ends_with('7'));
    }
}

/// A mapping ends when it has not been used since user space looked; the control program looks again.
#[test]
fn a_mapping_that_was_used_since_stays() {
    let [host, _, server, elsewhere, own] = FAMILIES[0];
    let mut net = mapping(&BOTH_WAYS, NatFiltering::AnyRemoteHost);
    let _first = net.receive(INSIDE, &Frame::new(host, server).udp(5000, 53));
    let key = outside(own, 5000);
    let before = found(&net, &key).last_used_ns;
    assert_eq!(found(&net, &key).timeout_s, 300);
    net.advance(400 * SECOND);
    let _in = net.receive(OUTSIDE, &Frame::new(elsewhere, own).udp(99, 5000));
    assert!(
        found(&net, &key).last_used_ns > before,
        "sessions from outside count"
    );
    assert!(!net.firewall.expire_mapping(&key, before, false));
    let now = found(&net, &key).last_used_ns;
    assert!(net.firewall.expire_mapping(&key, now, false));
    assert!(!net.firewall.expire_mapping(&key, now, true), "it is gone");
    assert!(net.tables().mapping_ends.entries().is_empty());
    net.receive(OUTSIDE, &Frame::new(elsewhere, own).udp(98, 5000))
        .dropped(Reason::NatNoMapping, &[]);
    // By force, whenever it was used.
    let _again = net.receive(INSIDE, &Frame::new(host, elsewhere).udp(5000, 53));
    assert!(net.firewall.expire_mapping(&key, 0, true));
}

/// Whom the inside of an earlier mapping sent to is nobody to the next owner of its outside end.
#[test]
fn permissions_end_with_their_mapping() {
    let [host, other, server, elsewhere, own] = FAMILIES[0];
    let mut net = mapping(&BOTH_WAYS, NatFiltering::TargetHost);
    let _first = net.receive(INSIDE, &Frame::new(host, server).udp(5000, 53));
    assert!(net.firewall.expire_mapping(&outside(own, 5000), 0, true));
    net.advance(31 * SECOND);
    let sent = net
        .receive(INSIDE, &Frame::new(other, elsewhere).udp(5000, 53))
        .outcome;
    assert_eq!(Seen::read(&sent.bytes).word(0), 5000, "the same outside end");
    for (from, reason) in [(server, Reason::NatFiltered), (elsewhere, Reason::SessionCreated)] {
        let outcome = net.receive(OUTSIDE, &Frame::new(from, own).udp(99, 5000)).outcome;
        assert_eq!(outcome.verdict.reason, reason);
    }
}

/// A new generation with the same rules changes nothing for the outside, wherever the rule stands now.
#[test]
fn a_mapping_outlives_a_commit_that_would_make_it_again() {
    let [host, _, server, elsewhere, own] = FAMILIES[0];
    let mut net = mapping(&BOTH_WAYS, NatFiltering::AnyRemoteHost);
    let _first = net.receive(INSIDE, &Frame::new(host, server).udp(5000, 53));
    net.commit(&BOTH_WAYS);
    let nobody = 40;
    net.nat(source(ZONE_INSIDE, ZONE_OUTSIDE).from(nobody).index(2));
    rules(&mut net, NatFiltering::TargetHost);
    // The rule admits fewer now, and that counts at once; whom the inside had sent to is not known from before.
    for from in [elsewhere, server] {
        let outcome = net.receive(OUTSIDE, &Frame::new(from, own).udp(99, 5000)).outcome;
        assert_eq!(outcome.verdict.reason, Reason::NatFiltered);
    }
    let mapping = found(&net, &outside(own, 5000));
    assert_eq!(
        (mapping.generation, mapping.filtering),
        (2, NatFiltering::TargetHost as u8)
    );
    // From inside it is the same mapping, and makes the remote end known.
    net.advance(31 * SECOND);
    let sent = net
        .receive(INSIDE, &Frame::new(host, server).udp(5000, 54))
        .outcome;
    assert_eq!(Seen::read(&sent.bytes).word(0), 5000);
    let outcome = net
        .receive(OUTSIDE, &Frame::new(server, own).udp(99, 5000))
        .outcome;
    assert_eq!(outcome.verdict.reason, Reason::SessionCreated);
}

/// The same, and the inside speaks first.
#[test]
fn a_mapping_is_confirmed_from_inside_too() {
    let [host, _, server, elsewhere, own] = FAMILIES[0];
    let mut net = mapping(&BOTH_WAYS, NatFiltering::AnyRemoteHost);
    let _first = net.receive(INSIDE, &Frame::new(host, server).udp(5000, 53));
    net.commit(&BOTH_WAYS);
    rules(&mut net, NatFiltering::TargetHostPort);
    let sent = net
        .receive(INSIDE, &Frame::new(host, elsewhere).udp(5000, 54))
        .outcome;
    assert_eq!(Seen::read(&sent.bytes).word(0), 5000);
    let mapping = found(&net, &outside(own, 5000));
    assert_eq!(
        (mapping.generation, mapping.filtering, mapping.target_port),
        (2, NatFiltering::TargetHostPort as u8, 54)
    );
}

/// A new generation whose rules would not make it: the mapping ends the first time it is asked for, from either side.
#[test]
fn a_mapping_does_not_outlive_its_rule() {
    let [host, _, server, elsewhere, own] = FAMILIES[0];
    for from_inside in [false, true] {
        for change in 0..4 {
            let mut net = mapping(&BOTH_WAYS, NatFiltering::AnyRemoteHost);
            let _first = net.receive(INSIDE, &Frame::new(host, server).udp(5000, 53));
            net.commit(&BOTH_WAYS);
            let rule = source(ZONE_INSIDE, ZONE_OUTSIDE);
            let other = if change == 0 { "192.0.3.17" } else { own };
            net.owns(own, 32, ZONE_OUTSIDE);
            net.pool(1, &Pool::of(&[(other, 1)]));
            match change {
                // The pool has other addresses.
                0 => net.nat(rule.pool(1).persistent(NatFiltering::AnyRemoteHost)),
                // The rule translates without mapping; other rules map.
                1 => {
                    net.nat(rule.pool(1));
                    net.nat(source(ZONE_DMZ, ZONE_OUTSIDE).persistent(NatFiltering::AnyRemoteHost));
                }
                // The rule maps to another pool, which happens to have the address too.
                2 => {
                    net.pool(2, &Pool::of(&[(own, 1)]));
                    net.nat(rule.pool(2).persistent(NatFiltering::AnyRemoteHost));
                }
                // The rule maps to the interface.
                _ => net.nat(rule.persistent(NatFiltering::AnyRemoteHost)),
            }
            if from_inside {
                let sent = net
                    .receive(INSIDE, &Frame::new(host, elsewhere).udp(5000, 53))
                    .outcome;
                assert_eq!(sent.verdict.reason, Reason::SessionCreated);
                let source = Seen::read(&sent.bytes).source;
                let expected = [other, own, own, "198.51.100.1"][change];
                assert_eq!(source, ip(expected));
            }
            let outcome = net
                .receive(OUTSIDE, &Frame::new(elsewhere, own).udp(99, 5000))
                .outcome;
            assert_eq!(outcome.verdict.reason, Reason::NatNoMapping, "change {change}");
            assert_eq!(outcome.delta[REMOVED.0], 1);
            assert!(net.tables().mappings.get(&outside(own, 5000)).is_none());
        }
    }
}

/// Two CPUs with the first packets of one inside end: one mapping.
#[test]
fn the_loser_of_a_race_takes_the_winners_mapping() {
    let [host, _, server, elsewhere, own] = FAMILIES[0];
    let mut winner = mapping(&BOTH_WAYS, NatFiltering::AnyRemoteHost);
    winner.pool(
        1,
        &Pool {
            ports: Some((9000, 9000)),
            ..Pool::of(&[(own, 1)])
        },
    );
    let _made = winner.receive(INSIDE, &Frame::new(host, server).udp(5000, 53));
    let made = winner.tables().mappings.entries()[0];
    let end = winner.tables().mapping_ends.entries()[0];
    let mut net = mapping(&BOTH_WAYS, NatFiltering::AnyRemoteHost);
    net.tables().interrupt(0, move |tables| {
        tables.mappings.set(&made.0, &made.1);
        tables.mapping_ends.set(&end.0, &end.1);
    });
    let sent = net
        .receive(INSIDE, &Frame::new(host, elsewhere).udp(5000, 53))
        .outcome;
    assert_eq!(sent.verdict.reason, Reason::SessionCreated);
    assert_eq!(Seen::read(&sent.bytes).word(0), 9000, "the winner's");
    assert_eq!(
        net.tables().mappings.entries().len(),
        1,
        "the loser's is given back"
    );
}

/// Several addresses without pairing: a mapping is one, wherever it began.
#[test]
fn a_mapping_pins_the_address_of_an_unpaired_pool() {
    let [host, _, server, elsewhere, _] = FAMILIES[0];
    let mut net = Net::new(&BOTH_WAYS);
    net.nat(
        source(ZONE_INSIDE, ZONE_OUTSIDE)
            .pool(1)
            .persistent(NatFiltering::AnyRemoteHost),
    );
    let pool = Pool {
        paired: false,
        ..Pool::of(&[("192.0.3.16", 4)])
    };
    net.pool(1, &pool);
    net.tables().script_random([towards(2, 4)]);
    for to in [server, elsewhere, "192.0.2.82", "192.0.2.83"] {
        let sent = net.receive(INSIDE, &Frame::new(host, to).udp(5000, 53)).outcome;
        assert_eq!(Seen::read(&sent.bytes).source, ip("192.0.3.18"));
    }
    assert_eq!(net.nat_hits(RuleSet::SourceNat, 0), 4);
}

/// A rule for the firewall's own address on another side does not lead to mappings of this one.
#[test]
fn the_published_ports_of_rules_come_before_mappings() {
    let [host, _, server, elsewhere, own] = FAMILIES[0];
    let mut net = Net::new(&[
        permit(ZONE_INSIDE, ZONE_OUTSIDE),
        permit(ZONE_OUTSIDE, ZONE_DMZ),
        permit(ZONE_OUTSIDE, SELF),
    ]);
    rules(&mut net, NatFiltering::AnyRemoteHost);
    let _first = net.receive(INSIDE, &Frame::new(host, server).udp(5000, 53));
    net.nat(crate::translation::destination(ZONE_OUTSIDE).pool(3));
    net.pool(3, &Pool::of(&[("10.3.0.2", 1)]));
    let sent = net
        .receive(OUTSIDE, &Frame::new(elsewhere, own).udp(99, 5000))
        .outcome;
    assert_eq!(Seen::read(&sent.bytes).destination, ip("10.3.0.2"));
}
