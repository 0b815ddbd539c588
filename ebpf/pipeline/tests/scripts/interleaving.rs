//! Who wins when packets, ageing and `clear sessions` meet on one session: each interleaving of
//! `deploy/docs/decisions/0004-ageing.md` by hand, then random ones against what must hold after any.

use bulkhead_abi::{
    Event, EventKind, Flow, FlowKey6, LimitKey, LimitKind, LimitRule, Reason, Tally, flow_flags,
    flow_generation::{DEAD, is_marked},
};
use bulkhead_pipeline::{
    Action, Table, Work,
    control::{clear, collect, mark},
    host::{HostTables, ingress_elsewhere},
};
use proptest::prelude::*;
use std::collections::BTreeMap;

use crate::{
    FAMILIES,
    frame::{ACK, FIN, Frame, RST, SYN, ip},
    net::{HIT, INSIDE, MISS, Net, OUTSIDE, SECOND, ZONE_INSIDE, ZONE_OUTSIDE, mac, permit, words},
};

const ESTABLISHED: (&str, u64) = ("sessions_established", 1);

/// What counts as idle in these tests, ms.
const EARLY_MS: u32 = 20_000;

/// A session in full flow, idle for longer than [`EARLY_MS`] and for less than its timeout.
struct Scene {
    net: Net,
    family: u8,
    key: FlowKey6,
    there: Frame,
    back: Frame,
}

fn udp_scenes() -> impl Iterator<Item = Scene> {
    FAMILIES.into_iter().map(|(client, server, _)| {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        let there = Frame::new(client, server).udp(5000, 53);
        let back = Frame::new(server, client).udp(53, 5000);
        net.receive(INSIDE, &there)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.receive(OUTSIDE, &back)
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
        idle(net, there, back)
    })
}

fn tcp_scenes() -> impl Iterator<Item = Scene> {
    FAMILIES.into_iter().map(|(client, server, _)| {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        let there = |flags, seq, ack| Frame::new(client, server).tcp(40000, 80, flags, seq, ack);
        let back = |flags, seq, ack| Frame::new(server, client).tcp(80, 40000, flags, seq, ack);
        net.receive(INSIDE, &there(SYN, 1000, 0))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.receive(OUTSIDE, &back(SYN | ACK, 9000, 1001))
            .forwarded(INSIDE, Reason::HalfOpen, &[]);
        net.receive(INSIDE, &there(ACK, 1001, 9001))
            .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED]);
        idle(net, there(ACK, 1001, 9001), back(ACK, 9001, 1001))
    })
}

fn idle(mut net: Net, there: Frame, back: Frame) -> Scene {
    let (family, _, key, _) = net.only();
    net.advance(30 * SECOND);
    let _earlier = net.tables().take_events();
    Scene {
        net,
        family,
        key,
        there,
        back,
    }
}

impl Scene {
    fn mark(&mut self) {
        assert!(self.net.firewall.mark(self.family, &self.key, EARLY_MS));
    }

    fn collect(&mut self) -> bool {
        self.net.firewall.collect(self.family, &self.key, EARLY_MS)
    }

    /// A frame as it arrives on another CPU.
    fn elsewhere(&self, ifindex: u32, frame: &Frame, reason: Reason) -> impl FnOnce(&HostTables) + use<> {
        let bytes = frame.clone().to(mac(ifindex)).build();
        move |tables| {
            let (verdict, _) = ingress_elsewhere(tables, ifindex, &bytes);
            assert_eq!(verdict.reason, reason);
        }
    }

    /// The session lives in full flow, both ways.
    fn lives(&mut self) {
        for (ifindex, out, frame) in [
            (INSIDE, OUTSIDE, self.there.clone()),
            (OUTSIDE, INSIDE, self.back.clone()),
            (INSIDE, OUTSIDE, self.there.clone()),
        ] {
            self.net
                .receive(ifindex, &frame)
                .forwarded(out, Reason::Established, &[]);
        }
        assert!(!is_marked(self.net.only().3.generation));
        assert!(!self.net.tables().interruption_pending());
        check(self.net.tables());
    }

    fn is_over(&mut self, reasons: &[Reason]) {
        assert_eq!(self.net.flows(), (0, 0));
        let events = self.net.tables().take_events();
        let closed: Vec<u8> = closes(&events).map(|event| event.reason).collect();
        let expected: Vec<u8> = reasons.iter().map(|reason| *reason as u8).collect();
        assert_eq!(closed, expected);
        assert!(!self.net.tables().interruption_pending());
        check(self.net.tables());
    }
}

fn closes(events: &[Event]) -> impl Iterator<Item = &Event> {
    events.iter().filter(|event| event.kind == EventKind::Close as u8)
}

/// A packet that comes between the collector's look and its claim: it takes the mark away, in either direction.
#[test]
fn a_packet_before_the_claim_saves_the_session() {
    for mut scene in udp_scenes().chain(tcp_scenes()) {
        for ifindex in [INSIDE, OUTSIDE] {
            let frame = if ifindex == INSIDE {
                &scene.there
            } else {
                &scene.back
            };
            let packet = scene.elsewhere(ifindex, frame, Reason::Established);
            scene.mark();
            scene.net.tables().interrupt_swap(0, packet);
            assert!(!scene.collect());
            scene.lives();
            scene.net.advance(30 * SECOND);
        }
    }
}

/// A claim that comes between a packet's look and its hold: the packet finds no session any more.
#[test]
fn a_claim_before_the_hold_leaves_the_packet_without_session() {
    for mut scene in tcp_scenes() {
        scene.mark();
        let (family, key) = (scene.family, scene.key);
        scene.net.tables().interrupt_swap(0, move |tables| {
            assert!(collect(tables, &mut Work::default(), family, &key, EARLY_MS));
        });
        let there = scene.there.clone();
        let outcome = scene.net.receive(INSIDE, &there).outcome;
        assert_eq!(outcome.verdict.reason, Reason::TcpNoSession);
        assert_eq!(scene.net.flows(), (0, 0));
        assert_eq!(closes(&outcome.events).count(), 1);
        check(scene.net.tables());
    }
    for mut scene in udp_scenes() {
        scene.mark();
        let (family, key) = (scene.family, scene.key);
        scene.net.tables().interrupt_swap(0, move |tables| {
            assert!(collect(tables, &mut Work::default(), family, &key, EARLY_MS));
        });
        // Without a connection it begins another.
        let there = scene.there.clone();
        let outcome = scene.net.receive(INSIDE, &there).outcome;
        assert_eq!(outcome.verdict.reason, Reason::SessionCreated);
        assert_eq!(scene.net.flows(), (0, 2));
        check(scene.net.tables());
    }
    for mut scene in udp_scenes() {
        scene.mark();
        let (family, key) = (scene.family, scene.key);
        scene.net.tables().interrupt_swap(0, move |tables| {
            assert!(collect(tables, &mut Work::default(), family, &key, EARLY_MS));
        });
        // An answer begins nothing.
        let back = scene.back.clone();
        let outcome = scene.net.receive(OUTSIDE, &back).outcome;
        assert_eq!(outcome.verdict.reason, Reason::DefaultDeny);
        assert_eq!(scene.net.flows(), (0, 0));
    }
}

/// Marked between the packet's look and its hold, while the packet enters a new generation: the mark goes, the new
/// generation comes.
#[test]
fn a_mark_under_a_packet_is_taken_away() {
    for mut scene in udp_scenes().chain(tcp_scenes()) {
        scene.net.commit(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        let (family, key) = (scene.family, scene.key);
        scene.net.tables().interrupt_swap(0, move |tables| {
            assert!(mark(tables, &mut Work::default(), family, &key, EARLY_MS));
        });
        let there = scene.there.clone();
        scene
            .net
            .receive(INSIDE, &there)
            .forwarded(OUTSIDE, Reason::Established, &[MISS]);
        assert_eq!(scene.net.only().3.generation, 2);
        assert!(!scene.collect());
        let back = scene.back.clone();
        scene
            .net
            .receive(OUTSIDE, &back)
            .forwarded(INSIDE, Reason::Established, &[HIT]);
        scene.lives();
    }
}

/// Marked while a packet is on its way that has nothing to change: it does not see the mark, the collector sees the packet.
#[test]
fn a_mark_behind_a_packet_collects_nothing() {
    for mut scene in udp_scenes().chain(tcp_scenes()) {
        // The packet's way as far as its hold changes nothing; its effect is what is stored. So: marked first, stored then.
        scene.mark();
        let (table, now_ns) = (scene.net.only().1, 10 * SECOND + 30 * SECOND);
        let stored = scene
            .net
            .tables()
            .flows(table, scene.family)
            .with(&scene.key, |flow| flow.last_seen_ns = now_ns);
        assert!(stored.is_some());
        assert!(!scene.collect());
        scene.lives();
    }
}

/// While a mark is being set, one direction is judged by a new generation: then nothing is collected.
#[test]
fn a_mark_that_comes_too_late_is_none() {
    for swap in [0, 1] {
        for mut scene in udp_scenes() {
            scene.net.commit(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
            let ifindex = if swap == 0 { OUTSIDE } else { INSIDE };
            let frame = if swap == 0 { &scene.back } else { &scene.there };
            let packet = scene.elsewhere(ifindex, frame, Reason::Established);
            scene.net.tables().interrupt_swap(swap, packet);
            assert!(!scene.net.firewall.mark(scene.family, &scene.key, EARLY_MS));
            assert!(!scene.collect());
            let (there, back) = (scene.there.clone(), scene.back.clone());
            let _first = scene.net.receive(INSIDE, &there);
            let _second = scene.net.receive(OUTSIDE, &back);
            scene.lives();
        }
    }
}

/// A packet of the reply comes between the two marks and takes away its own, the only one there is yet. The reply has the
/// short way again, where nobody sees the first direction's: that alone is not enough to collect.
#[test]
fn half_a_mark_collects_nothing() {
    for mut scene in udp_scenes().chain(tcp_scenes()) {
        let packet = scene.elsewhere(OUTSIDE, &scene.back, Reason::Established);
        scene.net.tables().interrupt_swap(1, packet);
        scene.mark();
        assert!(is_marked(scene.net.only().3.generation));
        scene.net.advance(30 * SECOND);
        assert!(!scene.collect());
        scene.mark();
        assert!(scene.collect());
        scene.is_over(&[Reason::EarlyAged]);
    }
}

/// Two CPUs end the session at once, at every point of each other's way: it ends once.
#[test]
fn two_ends_are_one() {
    for swap in 0..4 {
        for mut scene in udp_scenes().chain(tcp_scenes()) {
            let (family, key) = (scene.family, scene.key);
            scene.net.tables().interrupt_swap(swap, move |tables| {
                let _ended = clear(tables, &mut Work::default(), family, &key);
            });
            // It looks into the half-open table first, then claims.
            assert_eq!(scene.net.firewall.expire(family, &key, true), swap > 1);
            scene.is_over(&[Reason::SessionClosed]);
        }
    }
}

/// While a session is removed, the same tuple begins anew on another CPU: the new session is whole, or is not begun.
#[test]
fn what_comes_after_a_session_is_not_removed_with_it() {
    for swap in 0..4 {
        for mut scene in udp_scenes() {
            let bytes = scene.there.clone().to(mac(INSIDE)).build();
            scene.net.tables().interrupt_swap(swap, move |tables| {
                let (verdict, _) = ingress_elsewhere(tables, INSIDE, &bytes);
                // Before the claim it is the old session's; when its remains are still there, it is refused.
                let fits = match verdict.reason {
                    Reason::Established => swap <= 1,
                    Reason::SessionClosed | Reason::NatPortsExhausted | Reason::SessionCreated => swap > 1,
                    _ => false,
                };
                assert!(fits, "{swap}: {verdict:?}");
            });
            assert!(scene.net.firewall.expire(scene.family, &scene.key, true));
            check(scene.net.tables());
            let there = scene.there.clone();
            let outcome = scene.net.receive(INSIDE, &there).outcome;
            assert!(!outcome.verdict.reason.is_drop(), "{:?}", outcome.verdict);
            check(scene.net.tables());
        }
    }
}

/// A session that is cleared while it moves to the established table is gone from both.
#[test]
fn a_session_cleared_while_it_moves_is_gone() {
    for insertion in 0..2 {
        for (client, server, _) in FAMILIES {
            let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
            let there = Frame::new(client, server).udp(5000, 53);
            let back = Frame::new(server, client).udp(53, 5000);
            net.receive(INSIDE, &there)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
            let (family, _, key, _) = net.only();
            net.tables().interrupt(insertion, move |tables| {
                assert!(clear(tables, &mut Work::default(), family, &key));
            });
            let outcome = net.receive(OUTSIDE, &back).outcome;
            assert_eq!(outcome.verdict.reason, Reason::DefaultDeny);
            assert_eq!(closes(&outcome.events).count(), 1);
            assert_eq!(net.flows(), (0, 0));
            check(net.tables());
        }
    }
}

/// Both copies are entered and nothing was taken out yet when the session is ended elsewhere: the exchange that would
/// take the first direction out of the half-open table finds nothing there, and the packet has no session.
#[test]
fn a_session_ended_right_before_the_exchange_that_moves_it_has_not_moved() {
    for (client, server, _) in FAMILIES {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        net.limit(
            ZONE_INSIDE,
            LimitRule {
                source: 3,
                ..LimitRule::default()
            },
        );
        let there = Frame::new(client, server).udp(5000, 53);
        let back = Frame::new(server, client).udp(53, 5000);
        net.receive(INSIDE, &there)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        let (family, _, key, _) = net.only();
        net.tables().interrupt_swap(0, move |tables| {
            for (table, entries) in [(Table::Established, 2), (Table::HalfOpen, 1)] {
                assert_eq!(
                    tables.flows(table, family).entries().len(),
                    entries,
                    "both copies stand"
                );
            }
            assert!(clear(tables, &mut Work::default(), family, &key));
        });
        let outcome = net.receive(OUTSIDE, &back).outcome;
        assert_eq!(outcome.verdict.reason, Reason::DefaultDeny);
        assert!(!outcome.delta.contains_key("sessions_established"));
        assert_eq!((closes(&outcome.events).count(), net.flows()), (1, (0, 0)));
        check(net.tables());
    }
}

/// The session is ended elsewhere between the two exchanges that take it out of the half-open table: it has moved, and
/// ends where it stands.
#[test]
fn a_session_ended_right_after_the_exchange_that_moves_it_has_moved() {
    for (client, server, _) in FAMILIES {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
        let there = Frame::new(client, server).udp(5000, 53);
        let back = Frame::new(server, client).udp(53, 5000);
        net.receive(INSIDE, &there)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        let (family, _, key, _) = net.only();
        net.tables().interrupt_swap(1, move |tables| {
            assert!(clear(tables, &mut Work::default(), family, &key));
        });
        let outcome = net.receive(OUTSIDE, &back).outcome;
        assert_eq!(outcome.verdict.reason, Reason::Established);
        assert_eq!((closes(&outcome.events).count(), net.flows()), (1, (0, 0)));
        check(net.tables());
    }
}

/// Two packets move the session at once: it is moved once, whole.
#[test]
fn a_session_moved_twice_moves_once() {
    for insertion in 0..2 {
        for (client, server, _) in FAMILIES {
            let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
            let there = Frame::new(client, server).udp(5000, 53);
            let back = Frame::new(server, client).udp(53, 5000);
            net.receive(INSIDE, &there)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
            let bytes = back.clone().to(mac(OUTSIDE)).build();
            net.tables().interrupt(insertion, move |tables| {
                let (verdict, _) = ingress_elsewhere(tables, OUTSIDE, &bytes);
                assert_eq!(verdict.reason, Reason::Established);
            });
            let outcome = net.receive(OUTSIDE, &back).outcome;
            assert_eq!(outcome.verdict.reason, Reason::Established);
            assert_eq!((outcome.delta["sessions_established"], net.flows()), (1, (2, 0)));
            check(net.tables());
            net.receive(INSIDE, &there)
                .forwarded(OUTSIDE, Reason::Established, &[]);
        }
    }
}

/// The other side sends at any point of the way of a first packet. From its entry on that is its answer, and the session is
/// told of and counted once, whoever had the last word.
#[test]
fn a_session_answered_while_it_is_entered_is_created_once() {
    for (client, server, _) in FAMILIES {
        let (mut look, mut answered) = (0, 0);
        loop {
            let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
            net.limit(
                ZONE_INSIDE,
                LimitRule {
                    source: 3,
                    destination: 3,
                    ..LimitRule::default()
                },
            );
            let bytes = Frame::new(server, client).udp(53, 5000).to(mac(OUTSIDE)).build();
            net.tables().interrupt_look(look, move |tables| {
                let _verdict = ingress_elsewhere(tables, OUTSIDE, &bytes);
            });
            let outcome = net
                .receive(INSIDE, &Frame::new(client, server).udp(5000, 53))
                .outcome;
            assert_eq!(outcome.verdict.reason, Reason::SessionCreated, "look {look}");
            let told = |event: &&Event| event.kind == EventKind::Create as u8;
            assert_eq!(outcome.events.iter().filter(told).count(), 1, "look {look}");
            check(net.tables());
            if net.tables().interruption_pending() {
                break;
            }
            answered += usize::from(net.flows() == (2, 0));
            look += 1;
        }
        assert!(answered != 0, "never in {look} looks");
    }
}

/// What holds whenever no CPU is in the middle of anything: sessions are whole and alive, those that were created and did
/// not end are there, and the counts per address are theirs.
fn check(tables: &HostTables) {
    let mut counted: BTreeMap<(u32, [u32; 4]), i64> = BTreeMap::new();
    let mut there = 0;
    let limited = |zone: u8| LimitRule::default() != limit_of(tables, zone);
    for family in [4, 6] {
        let mut sessions: BTreeMap<u64, Vec<(Table, FlowKey6, Flow)>> = BTreeMap::new();
        for table in [Table::Established, Table::HalfOpen] {
            for (key, flow) in tables.flows(table, family).entries() {
                assert_ne!(flow.generation, DEAD, "a dead flow was left behind");
                sessions
                    .entry(flow.session_id)
                    .or_default()
                    .push((table, key, flow));
            }
        }
        let mut whole = |key: &FlowKey6, first: &Flow| {
            there += 1;
            if limited(first.from_zone) {
                for (kind, address_be) in [
                    (LimitKind::Source, key.source_be),
                    (LimitKind::Destination, key.destination_be),
                ] {
                    *counted
                        .entry((LimitKey::scope(family, kind, first.from_zone), address_be))
                        .or_default() += 1;
                }
            }
        };
        for (id, flows) in sessions {
            if let [(Table::HalfOpen, key, flow)] = flows.as_slice()
                && flow.unanswered != 0
            {
                assert_eq!(flow.flags & flow_flags::REPLY, 0);
                whole(key, flow);
                continue;
            }
            let [(one_table, one_key, one), (other_table, other_key, other)] = flows.as_slice() else {
                panic!("session {id} has {} flows: {flows:?}", flows.len());
            };
            assert_eq!(one_table, other_table, "half of session {id} moved");
            assert_eq!((one.partner6(), other.partner6()), (*other_key, *one_key));
            let (key, first) = if one.flags & flow_flags::REPLY == 0 {
                (one_key, one)
            } else {
                (other_key, other)
            };
            assert_ne!((one.flags ^ other.flags) & flow_flags::REPLY, 0);
            assert_eq!((one.unanswered, other.unanswered), (0, 0));
            whole(key, first);
        }
    }
    let created = tables.tallied(Tally::Created);
    assert_eq!(created - tables.tallied(Tally::Ended), there);
    for (key, count) in tables.limits.entries() {
        let expected = counted.remove(&(key.scope, key.address_be)).unwrap_or(0);
        assert_eq!(count.sessions as i64, expected, "{key:?}");
    }
    assert!(counted.is_empty(), "not counted: {counted:?}");
}

fn limit_of(tables: &HostTables, zone: u8) -> LimitRule {
    bulkhead_pipeline::Tables::limit_rule(tables, bulkhead_pipeline::Tables::live(tables).tables, zone)
}

/// What happens on a CPU.
#[derive(Clone)]
enum Turn {
    Packet {
        ifindex: u32,
        bytes: Vec<u8>,
        what: String,
    },
    /// Something done to a session, by the number of its key among all.
    Mark(usize),
    Collect(usize),
    Clear(usize),
    Wait(u64),
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Packet { what, .. } => f.write_str(what),
            Self::Mark(number) => write!(f, "mark {number}"),
            Self::Collect(number) => write!(f, "collect {number}"),
            Self::Clear(number) => write!(f, "clear {number}"),
            Self::Wait(seconds) => write!(f, "wait {seconds} s"),
        }
    }
}

fn frame() -> impl Strategy<Value = Turn> {
    let flags = prop_oneof![
        4 => Just(SYN),
        3 => Just(SYN | ACK),
        6 => Just(ACK),
        2 => Just(FIN | ACK),
        1 => Just(RST)
    ];
    (0..2usize, any::<bool>(), 0..2u16, any::<bool>(), flags).prop_map(
        |(family, outbound, port, tcp, flags)| {
            let (client, server, _) = FAMILIES[family];
            let frame = match (outbound, tcp) {
                (true, true) => Frame::new(client, server).tcp(4000 + port, 80, flags, 1001, 9001),
                (false, true) => Frame::new(server, client).tcp(80, 4000 + port, flags, 9001, 1001),
                (true, false) => Frame::new(client, server).udp(5000 + port, 53),
                (false, false) => Frame::new(server, client).udp(53, 5000 + port),
            };
            let ifindex = if outbound { INSIDE } else { OUTSIDE };
            Turn::Packet {
                ifindex,
                what: format!(
                    "{} -> {} {:?}",
                    frame.source,
                    frame.destination,
                    tcp.then_some(flags)
                ),
                bytes: frame.to(mac(ifindex)).build(),
            }
        },
    )
}

/// What takes a moment: it may come in the middle of another.
fn moment() -> impl Strategy<Value = Turn> {
    prop_oneof![
        8 => frame(),
        3 => any::<usize>().prop_map(Turn::Mark),
        3 => any::<usize>().prop_map(Turn::Collect),
        1 => any::<usize>().prop_map(Turn::Clear),
    ]
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        8 => moment(),
        1 => prop_oneof![Just(1), Just(25), Just(300), Just(8000)].prop_map(Turn::Wait),
    ]
}

/// Takes a turn; whether it changed anything, for those that say so.
fn take(tables: &HostTables, turn: &Turn) {
    let any = |number: usize| {
        let mut keys: Vec<_> = [
            (Table::Established, 4),
            (Table::Established, 6),
            (Table::HalfOpen, 4),
            (Table::HalfOpen, 6),
        ]
        .into_iter()
        .flat_map(|(table, family)| {
            let entries = tables.flows(table, family).entries();
            entries.into_iter().map(move |(key, _)| (family, key))
        })
        .collect();
        keys.sort_by_key(|(family, key)| (*family, key.source_be, key.source_port, key.destination_port));
        (!keys.is_empty()).then(|| keys[number % keys.len()])
    };
    let mut work = Box::<Work>::default();
    match turn {
        Turn::Packet { ifindex, bytes, .. } => {
            let (verdict, _) = ingress_elsewhere(tables, *ifindex, bytes);
            assert_ne!(verdict.action, Action::Stage);
            assert_ne!(verdict.reason, Reason::Internal);
        }
        Turn::Mark(number) => {
            if let Some((family, key)) = any(*number) {
                let _marked = mark(tables, &mut work, family, &key, EARLY_MS);
            }
        }
        Turn::Collect(number) => {
            if let Some((family, key)) = any(*number) {
                let _ended = collect(tables, &mut work, family, &key, EARLY_MS);
            }
        }
        Turn::Clear(number) => {
            if let Some((family, key)) = any(*number) {
                let _ended = clear(tables, &mut work, family, &key);
            }
        }
        Turn::Wait(seconds) => tables.advance_ns(seconds * SECOND),
    }
}

/// When another CPU has its turn.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Insertion(u32),
    Swap(u32),
    Look(u32),
    Removal(u32),
}

impl Moment {
    fn interrupt(self, tables: &HostTables, f: impl FnOnce(&HostTables) + 'static) {
        match self {
            Self::Insertion(number) => tables.interrupt(number, f),
            Self::Swap(number) => tables.interrupt_swap(number, f),
            Self::Look(number) => tables.interrupt_look(number, f),
            Self::Removal(number) => tables.interrupt_removal(number, f),
        }
    }
}

fn point() -> impl Strategy<Value = Moment> {
    prop_oneof![
        (0..5u32).prop_map(Moment::Insertion),
        (0..5u32).prop_map(Moment::Swap),
        (0..16u32).prop_map(Moment::Look),
        (0..4u32).prop_map(Moment::Removal),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// One CPU's turn in the middle of another's, at any change of a generation, any insertion, look or removal, any number
    /// of times; sessions begin on one side, or on both.
    #[test]
    fn sessions_stay_whole(
        both_sides in any::<bool>(),
        turns in proptest::collection::vec(
            (turn(), proptest::option::of((point(), moment()))), 1..40,
        ),
    ) {
        let policies = [permit(ZONE_INSIDE, ZONE_OUTSIDE), permit(ZONE_OUTSIDE, ZONE_INSIDE)];
        let mut net = Net::new(if both_sides { &policies } else { &policies[..1] });
        for zone in [ZONE_INSIDE, ZONE_OUTSIDE] {
            net.limit(zone, LimitRule { source: 3, destination: 3, ..LimitRule::default() });
        }
        let mut created = 0;
        let mut closed = 0;
        for (turn, interruption) in turns {
            let tables = net.tables();
            // What waits for a moment that does not come, comes in another turn. Two CPUs, not three.
            if let Some((at, other)) = interruption && !tables.interruption_pending() {
                at.interrupt(tables, move |tables| take(tables, &other));
            }
            take(tables, &turn);
            check(tables);
            for event in tables.take_events() {
                created += u64::from(event.kind == EventKind::Create as u8);
                closed += u64::from(event.kind == EventKind::Close as u8);
            }
            prop_assert_eq!(created, tables.tallied(Tally::Created));
            prop_assert_eq!(closed, tables.tallied(Tally::Ended));
        }
    }
}

/// The address of a limit's key, so that a failing test can be read.
#[test]
fn counts_are_by_address() {
    let (client, server, _) = FAMILIES[0];
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    net.limit(
        ZONE_INSIDE,
        LimitRule {
            source: 3,
            destination: 3,
            ..LimitRule::default()
        },
    );
    net.receive(INSIDE, &Frame::new(client, server).udp(1, 53))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    let mut addresses: Vec<_> = net
        .tables()
        .limits
        .entries()
        .into_iter()
        .map(|(key, _)| key.address_be)
        .collect();
    addresses.sort_unstable();
    let mut expected = [words(ip(client)), words(ip(server))];
    expected.sort_unstable();
    assert_eq!(addresses, expected);
    check(net.tables());
}
