//! TCP sessions: who may open one, what ends one, when it is forgotten.

use bulkhead_abi::{EventKind, Reason, SessionState};
use bulkhead_pipeline::Table;

use crate::{
    FAMILIES,
    frame::{ACK, FIN, Frame, PSH, RST, SYN},
    net::{DMZ, INSIDE, INSIDE_TOO, MISS, Net, OUTSIDE, SECOND, ZONE_INSIDE, ZONE_OUTSIDE, mac, permit},
};

pub const ESTABLISHED: (&str, u64) = ("sessions_established", 1);

/// A client at sequence 1000 and a server at sequence 9000, ports 40000 and 80.
pub struct Pair {
    pub client: &'static str,
    pub server: &'static str,
    pub router: &'static str,
}

impl Pair {
    pub fn client(&self, flags: u8, seq: u32, ack: u32) -> Frame {
        Frame::new(self.client, self.server).tcp(40000, 80, flags, seq, ack)
    }

    pub fn server(&self, flags: u8, seq: u32, ack: u32) -> Frame {
        Frame::new(self.server, self.client).tcp(80, 40000, flags, seq, ack)
    }
}

pub fn pairs() -> [Pair; 2] {
    FAMILIES.map(|(client, server, router)| Pair {
        client,
        server,
        router,
    })
}

/// Three-way handshake; afterwards the client stands at 1001 and the server at 9001.
pub fn open(net: &mut Net, pair: &Pair) {
    let syn = net.receive(INSIDE, &pair.client(SYN, 1000, 0));
    let others: &[_] = if syn.outcome.delta.contains_key(MISS.0) {
        &[MISS]
    } else {
        &[("decision_cache_hits", 1)]
    };
    let sent = syn
        .forwarded(OUTSIDE, Reason::SessionCreated, others)
        .via(pair.router);
    assert_eq!(
        sent.events.last().map(|event| event.kind),
        Some(EventKind::Create as u8)
    );
    net.receive(OUTSIDE, &pair.server(SYN | ACK, 9000, 1001))
        .forwarded(INSIDE, Reason::HalfOpen, &[])
        .between(pair.server, pair.client)
        .via(pair.client);
    net.receive(INSIDE, &pair.client(ACK, 1001, 9001)).forwarded(
        OUTSIDE,
        Reason::Established,
        &[ESTABLISHED],
    );
    assert_eq!(net.flows().0 % 2, 0);
}

pub fn outbound() -> Net {
    Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)])
}

#[test]
fn a_handshake_and_data_both_ways_need_one_rule() {
    for pair in pairs() {
        let mut net = outbound();
        open(&mut net, &pair);
        assert_eq!(net.flows(), (2, 0));
        for turn in 0..3 {
            net.receive(INSIDE, &pair.client(ACK | PSH, 1001 + turn, 9001).payload(b"x"))
                .forwarded(OUTSIDE, Reason::Established, &[])
                .between(pair.client, pair.server)
                .via(pair.router);
            net.receive(OUTSIDE, &pair.server(ACK, 9001, 1002 + turn))
                .forwarded(INSIDE, Reason::Established, &[])
                .via(pair.client);
        }
        let family = if pair.client.contains(':') { 6 } else { 4 };
        let flows = net.tables().flows(Table::Established, family).entries();
        assert!(
            flows
                .iter()
                .all(|(_, flow)| flow.state == SessionState::TcpEstablished as u8),
            "{flows:?}"
        );
        // The first direction: SYN, ACK, three segments. The other: SYN+ACK, three acknowledgements.
        let mut packets: Vec<u64> = flows.iter().map(|(_, flow)| flow.packets).collect();
        packets.sort_unstable();
        assert_eq!(packets, [4, 5]);
    }
}

#[test]
fn only_a_syn_opens() {
    for pair in pairs() {
        let mut net = outbound();
        for flags in [ACK, SYN | ACK, RST, RST | ACK, FIN | ACK, PSH | ACK, PSH] {
            net.receive(INSIDE, &pair.client(flags, 1000, 1))
                .dropped(Reason::TcpNoSession, &[]);
        }
        assert_eq!(net.flows(), (0, 0));
    }
}

#[test]
fn the_other_direction_opens_nothing() {
    for pair in pairs() {
        let mut net = outbound();
        net.receive(OUTSIDE, &pair.server(SYN, 1, 0))
            .dropped(Reason::DefaultDeny, &[MISS]);
        net.receive(OUTSIDE, &pair.server(SYN | ACK, 1, 0))
            .dropped(Reason::TcpNoSession, &[]);
    }
}

#[test]
fn a_simultaneous_open_establishes() {
    let mut net = outbound();
    let pair = &pairs()[0];
    net.receive(INSIDE, &pair.client(SYN, 1000, 0))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.receive(OUTSIDE, &pair.server(SYN, 9000, 0))
        .forwarded(INSIDE, Reason::HalfOpen, &[]);
    net.receive(INSIDE, &pair.client(SYN | ACK, 1000, 9001))
        .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
    // Both SYNs are acknowledged: nothing else need come (RFC 9293, figure 8).
    net.receive(OUTSIDE, &pair.server(SYN | ACK, 9000, 1001))
        .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
    net.receive(INSIDE, &pair.client(ACK, 1001, 9001))
        .forwarded(OUTSIDE, Reason::Established, &[]);
}

#[test]
fn a_syn_is_repeated_and_answered_late() {
    let mut net = outbound();
    let pair = &pairs()[0];
    net.receive(INSIDE, &pair.client(SYN, 1000, 0))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.advance(SECOND);
    net.receive(INSIDE, &pair.client(SYN, 1000, 0))
        .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
    // Data before the answer, and an answer to another SYN.
    net.receive(INSIDE, &pair.client(ACK, 1001, 9001))
        .dropped(Reason::TcpStateInvalid, &[]);
    net.receive(OUTSIDE, &pair.server(SYN | ACK, 9000, 77))
        .dropped(Reason::TcpStateInvalid, &[]);
    net.receive(OUTSIDE, &pair.server(SYN | ACK, 9000, 1001))
        .forwarded(INSIDE, Reason::HalfOpen, &[]);
    assert_eq!(net.flows(), (0, 2));
}

#[test]
fn a_refused_connection_ends_at_once() {
    let mut net = outbound();
    let pair = &pairs()[0];
    net.receive(INSIDE, &pair.client(SYN, 1000, 0))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    // A reset that does not acknowledge the SYN proves nothing.
    net.receive(OUTSIDE, &pair.server(RST, 0, 0))
        .dropped(Reason::TcpResetOutOfWindow, &[]);
    net.receive(OUTSIDE, &pair.server(RST | ACK, 0, 999))
        .dropped(Reason::TcpResetOutOfWindow, &[]);
    net.receive(OUTSIDE, &pair.server(RST | ACK, 0, 1001))
        .forwarded(INSIDE, Reason::HalfOpen, &[]);
    net.receive(INSIDE, &pair.client(ACK, 1001, 1))
        .dropped(Reason::SessionClosed, &[]);
}

#[test]
fn a_reset_outside_the_window_is_dropped_and_the_session_lives() {
    for pair in pairs() {
        let mut net = outbound();
        open(&mut net, &pair);
        for seq in [0, 8999, 9001 + 8193, 0x8000_0000] {
            net.receive(OUTSIDE, &pair.server(RST, seq, 0))
                .dropped(Reason::TcpResetOutOfWindow, &[]);
        }
        net.receive(INSIDE, &pair.client(ACK, 1001, 9001))
            .forwarded(OUTSIDE, Reason::Established, &[]);
    }
}

#[test]
fn a_reset_inside_the_window_is_passed_on_and_the_session_lives() {
    for pair in pairs() {
        let mut net = outbound();
        open(&mut net, &pair);
        // Twice: the first must not make the second exact.
        for _ in 0..2 {
            net.receive(OUTSIDE, &pair.server(RST, 9001 + 5000, 0)).forwarded(
                INSIDE,
                Reason::Established,
                &[],
            );
        }
        net.receive(OUTSIDE, &pair.server(ACK, 9001, 1001))
            .forwarded(INSIDE, Reason::Established, &[]);
    }
}

#[test]
fn the_window_counts_with_its_scale() {
    let mut net = outbound();
    let pair = &pairs()[0];
    // MSS, NOP, window scale 7.
    let options = [2, 4, 5, 0xb4, 1, 3, 3, 7];
    net.receive(INSIDE, &pair.client(SYN, 1000, 0).tcp_options(&options))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    let options = [3, 3, 2, 0];
    net.receive(OUTSIDE, &pair.server(SYN | ACK, 9000, 1001).tcp_options(&options))
        .forwarded(INSIDE, Reason::HalfOpen, &[]);
    net.receive(INSIDE, &pair.client(ACK, 1001, 9001).window(1000))
        .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED]);
    net.receive(OUTSIDE, &pair.server(RST, 9001 + 1000 * 128 - 1, 0))
        .forwarded(INSIDE, Reason::Established, &[]);
    net.receive(OUTSIDE, &pair.server(RST, 9001 + 1000 * 128, 0))
        .dropped(Reason::TcpResetOutOfWindow, &[]);
}

#[test]
fn an_exact_reset_ends_the_session_from_either_side() {
    for pair in pairs() {
        for from_server in [true, false] {
            let mut net = outbound();
            open(&mut net, &pair);
            let reset = if from_server {
                net.receive(OUTSIDE, &pair.server(RST, 9001, 0))
                    .forwarded(INSIDE, Reason::Established, &[])
            } else {
                net.receive(INSIDE, &pair.client(RST | ACK, 1001, 9001))
                    .forwarded(OUTSIDE, Reason::Established, &[])
            };
            drop(reset);
            net.receive(INSIDE, &pair.client(ACK, 1001, 9001))
                .dropped(Reason::SessionClosed, &[]);
            net.receive(OUTSIDE, &pair.server(ACK, 9001, 1001))
                .dropped(Reason::SessionClosed, &[]);
            net.advance(10 * SECOND);
            assert_eq!(net.age(), 0);
            net.advance(1);
            assert_eq!(net.age(), 1);
            assert_eq!(net.flows(), (0, 0));
        }
    }
}

#[test]
fn a_reset_behind_unacknowledged_data_ends_the_session() {
    let mut net = outbound();
    let pair = &pairs()[0];
    open(&mut net, pair);
    net.receive(OUTSIDE, &pair.server(ACK, 9001, 1001).payload(&[7; 100]))
        .forwarded(INSIDE, Reason::Established, &[]);
    net.receive(OUTSIDE, &pair.server(RST, 9101, 0))
        .forwarded(INSIDE, Reason::Established, &[]);
    net.receive(INSIDE, &pair.client(ACK, 1001, 9101))
        .dropped(Reason::SessionClosed, &[]);
}

/// RFC 5961: knowing the addresses and ports must not be enough. The sequence number of a blind attacker's segment must
/// not become one that a reset may have.
#[test]
fn a_forged_segment_does_not_make_a_forged_reset_exact() {
    for pair in pairs() {
        let mut net = outbound();
        open(&mut net, &pair);
        let forged = 9001 + 0x1000_0000;
        net.receive(OUTSIDE, &pair.server(ACK, forged, 1001))
            .dropped(Reason::TcpOutOfWindow, &[]);
        net.receive(OUTSIDE, &pair.server(RST, forged, 0))
            .dropped(Reason::TcpResetOutOfWindow, &[]);
        net.receive(INSIDE, &pair.client(ACK, 1001, 9001))
            .forwarded(OUTSIDE, Reason::Established, &[]);
    }
}

#[test]
fn fins_close_and_age_out() {
    for pair in pairs() {
        let mut net = outbound();
        open(&mut net, &pair);
        net.receive(INSIDE, &pair.client(FIN | ACK, 1001, 9001))
            .forwarded(OUTSIDE, Reason::Established, &[]);
        net.receive(OUTSIDE, &pair.server(ACK, 9001, 1002))
            .forwarded(INSIDE, Reason::Established, &[]);
        // Half-closed: the server goes on sending.
        net.receive(OUTSIDE, &pair.server(ACK | PSH, 9001, 1002).payload(b"rest"))
            .forwarded(INSIDE, Reason::Established, &[]);
        net.receive(OUTSIDE, &pair.server(FIN | ACK, 9005, 1002))
            .forwarded(INSIDE, Reason::Established, &[]);
        net.receive(INSIDE, &pair.client(ACK, 1002, 9006))
            .forwarded(OUTSIDE, Reason::Established, &[]);
        net.advance(240 * SECOND);
        assert_eq!(net.age(), 0);
        net.advance(1);
        assert_eq!(net.age(), 1);
        assert_eq!(net.flows(), (0, 0));
        let events = net.tables().take_events();
        assert_eq!(events.len(), 1, "{events:?}");
        assert_eq!(
            (events[0].kind, events[0].packets, events[0].reply_packets),
            (EventKind::Close as u8, 4, 4)
        );
        assert_eq!(net.tables().counters()["sessions_expired"], 1);
    }
}

#[test]
fn the_same_ports_are_used_again_after_a_close() {
    for pair in pairs() {
        let mut net = outbound();
        open(&mut net, &pair);
        net.receive(INSIDE, &pair.client(FIN | ACK, 1001, 9001))
            .forwarded(OUTSIDE, Reason::Established, &[]);
        net.receive(OUTSIDE, &pair.server(FIN | ACK, 9001, 1002))
            .forwarded(INSIDE, Reason::Established, &[]);
        net.receive(INSIDE, &pair.client(ACK, 1002, 9002))
            .forwarded(OUTSIDE, Reason::Established, &[]);
        let sent = net.receive(INSIDE, &pair.client(SYN, 500_000, 0)).forwarded(
            OUTSIDE,
            Reason::SessionCreated,
            &[("decision_cache_hits", 1)],
        );
        let kinds: Vec<u8> = sent.events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, [EventKind::Close as u8, EventKind::Create as u8]);
        assert_eq!(net.flows(), (0, 2));
        net.receive(OUTSIDE, &pair.server(SYN | ACK, 700_000, 500_001))
            .forwarded(INSIDE, Reason::HalfOpen, &[]);
    }
}

#[test]
fn the_same_ports_are_used_again_after_a_reset() {
    let mut net = outbound();
    let pair = &pairs()[0];
    open(&mut net, pair);
    net.receive(OUTSIDE, &pair.server(RST, 9001, 0))
        .forwarded(INSIDE, Reason::Established, &[]);
    // Not by the server, which policy does not let open one.
    net.receive(OUTSIDE, &pair.server(SYN, 1, 0))
        .dropped(Reason::DefaultDeny, &[MISS]);
    open(&mut net, pair);
}

#[test]
fn a_syn_into_an_open_session_is_for_the_receiver_to_challenge() {
    let mut net = outbound();
    let pair = &pairs()[0];
    open(&mut net, pair);
    net.receive(INSIDE, &pair.client(SYN, 77, 0))
        .forwarded(OUTSIDE, Reason::Established, &[]);
    net.receive(OUTSIDE, &pair.server(ACK, 9001, 1001))
        .forwarded(INSIDE, Reason::Established, &[]);
    assert_eq!(net.flows(), (2, 0));
}

#[test]
fn an_idle_session_is_forgotten_by_the_packet_path_too() {
    for pair in pairs() {
        let mut net = outbound();
        open(&mut net, &pair);
        net.advance(7440 * SECOND);
        net.receive(OUTSIDE, &pair.server(ACK, 9001, 1001))
            .forwarded(INSIDE, Reason::Established, &[]);
        net.advance(7440 * SECOND + 1);
        net.receive(OUTSIDE, &pair.server(ACK, 9001, 1001))
            .dropped(Reason::TcpNoSession, &[]);
        assert_eq!(net.flows(), (0, 0));
    }
}

#[test]
fn half_open_sessions_age_out() {
    let mut net = outbound();
    let pair = &pairs()[0];
    net.receive(INSIDE, &pair.client(SYN, 1000, 0))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.advance(240 * SECOND);
    assert_eq!(net.age(), 0);
    net.advance(1);
    assert_eq!(net.age(), 1);
    assert_eq!(net.flows(), (0, 0));
}

#[test]
fn a_session_may_move_within_its_zone_and_not_out_of_it() {
    let mut net = outbound();
    let pair = &pairs()[0];
    open(&mut net, pair);
    net.receive(INSIDE_TOO, &pair.client(ACK, 1001, 9001))
        .forwarded(OUTSIDE, Reason::Established, &[]);
    net.receive(OUTSIDE, &pair.client(ACK, 1001, 9001))
        .dropped(Reason::WrongZone, &[]);
    net.receive(INSIDE, &pair.server(ACK, 9001, 1001))
        .dropped(Reason::WrongZone, &[]);
    // Also where the MAC address says nothing: the VLANs of one interface share theirs.
    let mut facts = net.tables().interfaces.get(&DMZ).unwrap();
    facts.mac = mac(INSIDE);
    net.tables().interfaces.set(&DMZ, &facts);
    net.receive(INSIDE, &pair.client(ACK, 1001, 9001))
        .forwarded(OUTSIDE, Reason::Established, &[]);
    let frame = pair.client(ACK, 1001, 9001).to(mac(INSIDE)).build();
    net.receive_bytes(DMZ, &frame).dropped(Reason::WrongZone, &[]);
}
