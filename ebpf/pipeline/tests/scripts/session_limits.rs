//! Limits of sessions: per source, per destination, TCP per source; counted exactly whichever way a session ends.

use bulkhead_abi::{EventKind, LimitKey, LimitKind, LimitRule, Reason, limit_flags};
use bulkhead_pipeline::{
    Table,
    control::{clear, correct},
};

use crate::{
    FAMILIES,
    frame::{ACK, FIN, Frame, RST, SYN, ip},
    net::{
        DMZ, HIT, INSIDE, MISS, Net, OUTSIDE, SECOND, SELF, ZONE_DMZ, ZONE_INSIDE, ZONE_OUTSIDE, permit,
        words,
    },
};

const ESTABLISHED: (&str, u64) = ("sessions_established", 1);

const fn rule(source: u32, destination: u32, syn_ack_ack: u32) -> LimitRule {
    LimitRule {
        source,
        destination,
        syn_ack_ack,
        flags: 0,
    }
}

fn limited(rule: LimitRule) -> Net {
    let mut net = Net::new(&[
        permit(ZONE_INSIDE, ZONE_OUTSIDE),
        permit(ZONE_DMZ, ZONE_OUTSIDE),
        permit(ZONE_INSIDE, SELF),
    ]);
    net.limit(ZONE_INSIDE, rule);
    net
}

/// Sessions counted of an address that come from the inside.
fn counted(net: &Net, kind: LimitKind, address: &str) -> i64 {
    let key = LimitKey {
        scope: LimitKey::scope(family(address), kind, ZONE_INSIDE as u8),
        address_be: words(ip(address)),
    };
    net.tables().limits.get(&key).unwrap_or_default().sessions as i64
}

fn family(address: &str) -> u8 {
    if address.contains(':') { 6 } else { 4 }
}

/// Another address of the same family.
fn another(address: &str) -> String {
    let (rest, last) = address.split_at(address.len() - 1);
    format!("{rest}{}", last.parse::<u8>().unwrap() + 1)
}

#[test]
fn a_source_has_so_many_sessions_and_no_more() {
    for (client, server, _) in FAMILIES {
        let mut net = limited(rule(3, 0, 0));
        for port in 1..=3 {
            let cache = if port == 1 { MISS } else { HIT };
            net.receive(INSIDE, &Frame::new(client, server).udp(port, 53))
                .forwarded(OUTSIDE, Reason::SessionCreated, &[cache]);
        }
        let step = net.receive(INSIDE, &Frame::new(client, server).udp(4, 53));
        let event = step.outcome.events[0];
        assert_eq!(
            (event.kind, event.reason),
            (EventKind::Deny as u8, Reason::SessionLimitSource as u8)
        );
        step.dropped(Reason::SessionLimitSource, &[HIT]);
        assert_eq!(net.flows(), (0, 3));
        assert_eq!(
            counted(&net, LimitKind::Source, client),
            3,
            "a refused one does not count"
        );
        // Those it has go on, others come, and so does it when one has ended.
        net.receive(INSIDE, &Frame::new(client, server).udp(3, 53))
            .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
        net.receive(INSIDE, &Frame::new(&another(client), server).udp(4, 53))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
        net.advance(31 * SECOND);
        assert_eq!(net.age(), 4);
        net.receive(INSIDE, &Frame::new(client, server).udp(4, 53))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
        assert_eq!(counted(&net, LimitKind::Source, client), 1);
    }
}

#[test]
fn a_destination_has_so_many_sessions_whoever_asks() {
    for (client, server, _) in FAMILIES {
        let mut net = limited(rule(0, 2, 0));
        for (number, source) in [client, &another(client), client].into_iter().enumerate() {
            let frame = Frame::new(source, server).udp(number as u16 + 1, 53);
            let step = net.receive(INSIDE, &frame);
            match number {
                2 => step.dropped(Reason::SessionLimitDestination, &[HIT]),
                _ => {
                    let cache = if number == 0 { MISS } else { HIT };
                    let _sent = step.forwarded(OUTSIDE, Reason::SessionCreated, &[cache]);
                }
            }
        }
        net.receive(INSIDE, &Frame::new(client, &another(server)).udp(9, 53))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
    }
}

#[test]
fn tcp_sessions_of_a_source_count_by_themselves() {
    for (client, server, _) in FAMILIES {
        let mut net = limited(rule(0, 0, 1));
        let syn = |port| Frame::new(client, server).tcp(port, 80, SYN, 1, 0);
        net.receive(INSIDE, &syn(1))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.receive(INSIDE, &syn(2)).dropped(Reason::SynAckAck, &[HIT]);
        for port in 1..5 {
            net.receive(INSIDE, &Frame::new(client, server).udp(port, 53))
                .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
        }
        assert_eq!(counted(&net, LimitKind::SynAckAck, client), 1);
    }
}

#[test]
fn the_first_limit_reached_says_so_and_none_is_counted() {
    let (client, server, _) = FAMILIES[0];
    let mut net = limited(rule(1, 1, 1));
    let syn = |port| Frame::new(client, server).tcp(port, 80, SYN, 1, 0);
    net.receive(INSIDE, &syn(1))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.receive(INSIDE, &syn(2))
        .dropped(Reason::SessionLimitSource, &[HIT]);
    for (kind, address) in [
        (LimitKind::Source, client),
        (LimitKind::Destination, server),
        (LimitKind::SynAckAck, client),
    ] {
        assert_eq!(counted(&net, kind, address), 1, "{kind:?}");
    }
}

#[test]
fn an_alarm_counts_and_lets_pass() {
    let (client, server, _) = FAMILIES[0];
    let mut net = limited(LimitRule {
        flags: limit_flags::ALARM_ONLY,
        ..rule(1, 0, 0)
    });
    for port in 1..4 {
        let cache = if port == 1 { MISS } else { HIT };
        let alarm = ("session_limit_alarms", 1);
        let others: &[_] = if port == 1 { &[cache] } else { &[cache, alarm] };
        net.receive(INSIDE, &Frame::new(client, server).udp(port, 53))
            .forwarded(OUTSIDE, Reason::SessionCreated, others);
    }
    assert_eq!(counted(&net, LimitKind::Source, client), 3);
}

#[test]
fn zones_without_limits_count_nothing() {
    let mut net = limited(rule(1, 1, 1));
    for port in 1..4 {
        let cache = if port == 1 { MISS } else { HIT };
        net.receive(DMZ, &Frame::new("10.3.0.2", "192.0.2.80").udp(port, 53))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[cache]);
    }
    assert!(net.tables().limits.entries().is_empty());
}

#[test]
fn visitors_of_the_firewall_itself_count_too() {
    let mut net = limited(rule(1, 0, 0));
    let ask = |port| Frame::new("10.1.0.2", "10.1.0.1").udp(port, 53);
    net.receive(INSIDE, &ask(1)).handed_on(Reason::ToHost, &[MISS]);
    net.receive(INSIDE, &ask(2))
        .dropped(Reason::SessionLimitSource, &[HIT]);
}

/// Whatever the end, from whichever side.
#[test]
fn every_end_gives_back() {
    let ends: [fn(&mut Net, &Frame, &Frame); 5] = [
        // Expired, met by a packet.
        |net, _, back| {
            net.advance(7441 * SECOND);
            net.receive(OUTSIDE, back).dropped(Reason::TcpNoSession, &[]);
        },
        // Expired, met by ageing.
        |net, _, _| {
            net.advance(7441 * SECOND);
            assert_eq!(net.age(), 1);
        },
        // Denied by a new configuration, in both directions.
        |net, there, _| {
            net.commit(&[]);
            net.limit(ZONE_INSIDE, rule(1, 1, 1));
            net.receive(INSIDE, there).dropped(Reason::PolicyChanged, &[MISS]);
        },
        |net, _, back| {
            net.commit(&[]);
            net.limit(ZONE_INSIDE, rule(1, 1, 1));
            net.receive(OUTSIDE, back).dropped(Reason::PolicyChanged, &[MISS]);
        },
        // Cleared.
        |net, _, _| {
            let (family, _, key, _) = net.only();
            assert!(net.firewall.expire(family, &key, true));
        },
    ];
    for (client, server, _) in FAMILIES {
        for end in ends {
            let mut net = limited(rule(1, 1, 1));
            let there = |flags, seq, ack| Frame::new(client, server).tcp(40000, 80, flags, seq, ack);
            let back = |flags, seq, ack| Frame::new(server, client).tcp(80, 40000, flags, seq, ack);
            net.receive(INSIDE, &there(SYN, 1000, 0))
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
            net.receive(OUTSIDE, &back(SYN | ACK, 9000, 1001))
                .forwarded(INSIDE, Reason::HalfOpen, &[]);
            net.receive(INSIDE, &there(ACK, 1001, 9001)).forwarded(
                OUTSIDE,
                Reason::Established,
                &[ESTABLISHED],
            );
            end(&mut net, &there(ACK, 1001, 9001), &back(ACK, 9001, 1001));
            assert_eq!(net.flows(), (0, 0));
            for (_, count) in net.tables().limits.entries() {
                assert_eq!((count.sessions, count.returned), (0, 1));
            }
            assert_eq!(net.tables().limits.entries().len(), 3);
        }
    }
}

#[test]
fn a_connection_that_begins_anew_counts_once() {
    for (client, server, _) in FAMILIES {
        let mut net = limited(rule(1, 1, 1));
        let there = |flags, seq, ack| Frame::new(client, server).tcp(40000, 80, flags, seq, ack);
        let back = |flags, seq, ack| Frame::new(server, client).tcp(80, 40000, flags, seq, ack);
        net.receive(INSIDE, &there(SYN, 1000, 0))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.receive(OUTSIDE, &back(SYN | ACK, 9000, 1001))
            .forwarded(INSIDE, Reason::HalfOpen, &[]);
        net.receive(INSIDE, &there(FIN | ACK, 1001, 9001)).forwarded(
            OUTSIDE,
            Reason::Established,
            &[ESTABLISHED],
        );
        net.receive(OUTSIDE, &back(RST, 9001, 0))
            .forwarded(INSIDE, Reason::Established, &[]);
        // The same tuple again: the old session ends and the new one is not over the limit.
        net.receive(INSIDE, &there(SYN, 77_000, 0))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
        assert_eq!(counted(&net, LimitKind::Source, client), 1);
    }
}

#[test]
fn a_session_that_could_not_be_opened_does_not_count() {
    let (client, server, _) = FAMILIES[0];
    // No address to translate to.
    let mut net = limited(rule(1, 1, 1));
    net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
    let mut facts = net.tables().interfaces.get(&OUTSIDE).unwrap();
    facts.address4_be = 0;
    net.tables().interfaces.set(&OUTSIDE, &facts);
    net.receive(INSIDE, &Frame::new(client, server).udp(1, 53))
        .dropped(Reason::NatNoAddress, &[MISS]);
    assert_eq!(counted(&net, LimitKind::Source, client), 0);
    // No way to tell two conversations apart behind one address.
    let mut net = limited(rule(9, 9, 9));
    net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
    net.receive(INSIDE, &Frame::new(client, server).protocol(47, &[0; 8]))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.receive(INSIDE, &Frame::new("10.1.0.3", server).protocol(47, &[0; 8]))
        .dropped(Reason::NatUnsupported, &[HIT]);
    assert_eq!(counted(&net, LimitKind::Source, "10.1.0.3"), 0);
    assert_eq!(counted(&net, LimitKind::Destination, server), 1);
}

/// What is found half is given back when it was the half that counts.
#[test]
fn half_a_session_gives_back() {
    let (client, server, _) = FAMILIES[0];
    let mut net = limited(rule(1, 0, 0));
    let ask = Frame::new(client, server).tcp(4000, 80, SYN, 1000, 0);
    net.receive(INSIDE, &ask)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    let (_, _, key, flow) = net.only();
    let partner = flow.partner6();
    assert!(net.tables().flows(Table::HalfOpen, 4).remove(&partner));
    net.receive(INSIDE, &ask)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
    assert_eq!(counted(&net, LimitKind::Source, client), 1);
    // Evicted whole: nobody is told, until user space corrects the count.
    assert!(net.tables().flows(Table::HalfOpen, 4).remove(&key));
    assert!(net.tables().flows(Table::HalfOpen, 4).remove(&partner));
    net.receive(INSIDE, &ask)
        .dropped(Reason::SessionLimitSource, &[HIT]);
    let key = LimitKey {
        scope: LimitKey::scope(4, LimitKind::Source, ZONE_INSIDE as u8),
        address_be: words(ip(client)),
    };
    assert_eq!(correct(net.tables(), &key, -1), 0);
    net.receive(INSIDE, &ask)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
}

/// A session that began before there were limits was not counted; its end is, until user space corrects that.
#[test]
fn what_was_never_counted_may_leave_less_than_nothing() {
    let (client, server, _) = FAMILIES[0];
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    net.receive(INSIDE, &Frame::new(client, server).udp(1, 53))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.limit(ZONE_INSIDE, rule(1, 0, 0));
    let (family, _, key, _) = net.only();
    let mut work = Box::default();
    assert!(clear(net.tables(), &mut work, family, &key));
    assert_eq!(counted(&net, LimitKind::Source, client), -1);
    for port in 2..=3 {
        net.receive(INSIDE, &Frame::new(client, server).udp(port, 53))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
    }
    net.receive(INSIDE, &Frame::new(client, server).udp(4, 53))
        .dropped(Reason::SessionLimitSource, &[HIT]);
}

/// 10.1.0.2 and a01:2:: are the same bytes, and two hosts.
#[test]
fn the_families_count_apart() {
    let mut net = limited(rule(1, 0, 0));
    net.receive(INSIDE, &Frame::new("10.1.0.2", "192.0.2.80").udp(1, 53))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.receive(INSIDE, &Frame::new("a01:2::", "2001:db8:80::80").udp(1, 53))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
    assert_eq!(net.tables().limits.entries().len(), 2);
}
