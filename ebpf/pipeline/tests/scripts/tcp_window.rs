//! Which segments can be a connection's: strict and liberal, blind guesses (RFC 5961), probes, picked up in mid-stream.

use bulkhead_abi::{Flow, Reason, SessionState, flow_flags, tcp_rules};
use bulkhead_pipeline::Table;

use crate::{
    frame::{ACK, FIN, Frame, PSH, RST, SYN},
    net::{HIT, INSIDE, MISS, Net, OUTSIDE, SECOND, ZONE_INSIDE, ZONE_OUTSIDE, permit},
    tcp::{ESTABLISHED, Pair, open, outbound, pairs},
};

/// What a segment may lie beyond the edges: one aggregate.
const SLACK: u32 = 65_536;
/// The window that frames of these tests advertise.
const WINDOW: u32 = 0x2000;

fn flows(net: &Net, pair: &Pair) -> Vec<Flow> {
    let family = if pair.client.contains(':') { 6 } else { 4 };
    let mut flows: Vec<Flow> = [Table::Established, Table::HalfOpen]
        .map(|table| net.tables().flows(table, family).entries())
        .concat()
        .into_iter()
        .map(|(_, flow)| flow)
        .collect();
    flows.sort_by_key(|flow| flow.flags & flow_flags::REPLY);
    flows
}

/// The flows but for what counts packets.
fn uncounted(net: &Net, pair: &Pair) -> Vec<Flow> {
    let bare = |flow: Flow| Flow {
        packets: 0,
        bytes: 0,
        ..flow
    };
    flows(net, pair).into_iter().map(bare).collect()
}

fn with_rules(rules: u32) -> Net {
    let mut net = outbound();
    net.settings(|settings| settings.tcp_rules = rules);
    net
}

/// A segment of the server that a guess might be.
struct Guess {
    what: &'static str,
    frame: Frame,
    strict: Reason,
    liberal: Reason,
}

/// The server stands at 9001, the client at 1001, both with a window of 8 KB.
fn guesses(pair: &Pair) -> Vec<Guess> {
    let guess = |what, frame, strict, liberal| Guess {
        what,
        frame,
        strict,
        liberal,
    };
    let (outside, passes) = (Reason::TcpOutOfWindow, Reason::Established);
    let reset = Reason::TcpResetOutOfWindow;
    let data = |seq, ack| pair.server(ACK | PSH, seq, ack).payload(b"forged");
    let fin = |seq, ack| pair.server(FIN | ACK, seq, ack);
    let limit = 9001 + WINDOW;
    vec![
        guess(
            "data beyond the window",
            data(limit + SLACK - 5, 1001),
            outside,
            passes,
        ),
        guess("data far away", data(0x8000_0000, 1001), outside, passes),
        guess(
            "data long past",
            data(9001u32.wrapping_sub(SLACK + 8), 1001),
            outside,
            passes,
        ),
        guess(
            "of what was never sent",
            data(9001, 1001 + WINDOW + SLACK),
            outside,
            passes,
        ),
        guess(
            "of long ago",
            data(9001, 1001u32.wrapping_sub(SLACK + 1)),
            outside,
            passes,
        ),
        guess("of anything", data(9001, 0x8000_0000), outside, passes),
        guess("FIN beyond the window", fin(limit + SLACK, 1001), outside, passes),
        guess(
            "FIN with a wrong acknowledgement",
            fin(9001, 0x8000_0000),
            outside,
            passes,
        ),
        guess(
            "reset behind the window",
            pair.server(RST, limit, 0),
            reset,
            reset,
        ),
        guess("reset before it", pair.server(RST, 9000, 0), reset, reset),
        guess(
            "reset with acknowledgement",
            pair.server(RST | ACK, 0x8000_0000, 1001),
            reset,
            reset,
        ),
        guess(
            "reset to be challenged",
            pair.server(RST, 9002, 0),
            passes,
            passes,
        ),
        guess("the last one", pair.server(RST, limit - 1, 0), passes, passes),
        guess("SYN to be challenged", pair.server(SYN, limit, 0), passes, passes),
        guess("SYN before the window", pair.server(SYN, 9000, 0), passes, passes),
        guess(
            "SYN in the window",
            pair.server(SYN, 9001, 0),
            Reason::TcpSynInWindow,
            passes,
        ),
        guess(
            "SYN at its end",
            pair.server(SYN, limit - 1, 0),
            Reason::TcpSynInWindow,
            passes,
        ),
        guess(
            "SYN+ACK of nobody",
            pair.server(SYN | ACK, 0x8000_0000, 1001),
            outside,
            passes,
        ),
    ]
}

/// RFC 5961, sections 3 to 5: who knows addresses and ports but no numbers changes nothing, whatever he sends, and
/// liberal or not.
#[test]
fn rfc5961_blind_segments_leave_no_trace() {
    for pair in pairs() {
        for rules in [0, tcp_rules::LIBERAL] {
            for guess in guesses(&pair) {
                let mut net = with_rules(rules);
                open(&mut net, &pair);
                let before = uncounted(&net, &pair);
                net.advance(SECOND / 2);
                let step = net.receive(OUTSIDE, &guess.frame);
                let reason = if rules == 0 { guess.strict } else { guess.liberal };
                assert_eq!(
                    step.outcome.verdict.reason, reason,
                    "{}, rules {rules}",
                    guess.what
                );
                let mut after = uncounted(&net, &pair);
                if rules != 0 && guess.strict == Reason::TcpOutOfWindow && !guess.what.starts_with("SYN") {
                    // Tolerated, it keeps the session alive: that is what liberal means. Nothing else.
                    assert_ne!(after, before, "{}", guess.what);
                    after[1].last_seen_ns = before[1].last_seen_ns;
                }
                assert_eq!(after, before, "{}, rules {rules}", guess.what);
                // And the connection goes on.
                net.receive(INSIDE, &pair.client(ACK | PSH, 1001, 9001).payload(b"x"))
                    .forwarded(OUTSIDE, Reason::Established, &[]);
                net.receive(OUTSIDE, &pair.server(ACK, 9001, 1002)).forwarded(
                    INSIDE,
                    Reason::Established,
                    &[],
                );
            }
        }
    }
}

/// What lies at the edges and is sent in good faith.
#[test]
fn segments_at_the_edges_pass() {
    for pair in pairs() {
        let limit = 9001 + WINDOW;
        let cases = [
            (
                "a window full",
                pair.server(ACK, limit - 1000, 1001).payload(&[1; 1000]),
            ),
            (
                "a probe of a closed window",
                pair.server(ACK, limit, 1001).payload(b"p"),
            ),
            ("a bare FIN behind it", pair.server(FIN | ACK, limit, 1001)),
            ("a keep-alive", pair.server(ACK, 9000, 1001)),
            (
                "a keep-alive with a byte",
                pair.server(ACK, 9000, 1001).payload(b"k"),
            ),
            ("a repeated SYN+ACK", pair.server(SYN | ACK, 9000, 1001)),
        ];
        for (what, frame) in cases {
            let mut net = outbound();
            open(&mut net, &pair);
            let outcome = net.receive(OUTSIDE, &frame).outcome;
            assert_eq!(outcome.verdict.reason, Reason::Established, "{what}");
        }
    }
}

/// RFC 9293, 3.8.6: a window that was offered may be used though it was taken back, and segments overtake one another.
#[test]
fn an_offer_stands_when_the_window_shrinks() {
    for pair in pairs() {
        let mut net = outbound();
        open(&mut net, &pair);
        net.receive(INSIDE, &pair.client(ACK, 1001, 9001).window(60_000))
            .forwarded(OUTSIDE, Reason::Established, &[]);
        net.receive(INSIDE, &pair.client(ACK, 1001, 9001).window(0))
            .forwarded(OUTSIDE, Reason::Established, &[]);
        net.receive(
            OUTSIDE,
            &pair.server(ACK, 9001 + 59_000, 1001).payload(&[1; 1000]),
        )
        .forwarded(INSIDE, Reason::Established, &[]);
        let beyond = pair.server(ACK, 9001 + 60_000 + SLACK, 1001).payload(b"x");
        net.receive(OUTSIDE, &beyond).dropped(Reason::TcpOutOfWindow, &[]);
    }
}

/// RFC 7323, 2.2: no scaling unless both SYNs announce it, and never in a SYN.
#[test]
fn rfc7323_windows_scale_only_if_both_sides_do() {
    let option = [1, 3, 3, 7];
    for (client, server, scaled) in [(true, true, true), (true, false, false), (false, true, false)] {
        for pair in pairs() {
            let mut net = outbound();
            let with = |frame: Frame, scale: bool| if scale { frame.tcp_options(&option) } else { frame };
            let syn = with(pair.client(SYN, 1000, 0).window(60_000), client);
            net.receive(INSIDE, &syn)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
            let answer = with(pair.server(SYN | ACK, 9000, 1001).window(60_000), server);
            net.receive(OUTSIDE, &answer)
                .forwarded(INSIDE, Reason::HalfOpen, &[]);
            // Not by the window of the SYN, even with a scale.
            let early = pair.server(ACK, 9001 + 60_000 + SLACK, 1001).payload(b"x");
            net.receive(OUTSIDE, &early).dropped(Reason::TcpOutOfWindow, &[]);
            net.receive(INSIDE, &pair.client(ACK, 1001, 9001).window(10_000))
                .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED]);
            let far = pair.server(ACK, 9001 + 1_000_000, 1001).payload(b"x");
            let outcome = net.receive(OUTSIDE, &far).outcome;
            let expected = if scaled {
                Reason::Established
            } else {
                Reason::TcpOutOfWindow
            };
            assert_eq!(outcome.verdict.reason, expected);
            let farther = pair.server(ACK, 9001 + 1_280_000 + SLACK, 1001).payload(b"x");
            net.receive(OUTSIDE, &farther)
                .dropped(Reason::TcpOutOfWindow, &[]);
        }
    }
}

/// An aggregate counts whole.
#[test]
fn aggregates_move_the_edges_by_all_they_carry() {
    let pair = &pairs()[0];
    let mut net = outbound();
    let option = [1, 3, 3, 7];
    net.receive(INSIDE, &pair.client(SYN, 1000, 0).tcp_options(&option))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.receive(OUTSIDE, &pair.server(SYN | ACK, 9000, 1001).tcp_options(&option))
        .forwarded(INSIDE, Reason::HalfOpen, &[]);
    net.receive(INSIDE, &pair.client(ACK, 1001, 9001)).forwarded(
        OUTSIDE,
        Reason::Established,
        &[ESTABLISHED],
    );
    let mut seq = 9001;
    for _ in 0..15 {
        let frame = pair
            .server(ACK, seq, 1001)
            .to(crate::net::mac(OUTSIDE))
            .lengthened(64_000);
        let outcome = net.firewall.ingress_gso(OUTSIDE, &frame, 1400);
        assert_eq!(outcome.verdict.reason, Reason::Established);
        seq += 64_000;
    }
    assert_eq!(flows(&net, pair)[1].tcp_end, seq);
    net.receive(INSIDE, &pair.client(ACK, 1001, seq))
        .forwarded(OUTSIDE, Reason::Established, &[]);
}

/// About once per window the other flow is looked up; all else is settled by one lookup, where XDP could do it too.
#[test]
fn bulk_data_takes_the_long_way_once_per_window() {
    let pair = &pairs()[0];
    let mut net = outbound();
    for ifindex in [INSIDE, OUTSIDE] {
        let mut facts = net.tables().interfaces.get(&ifindex).unwrap();
        facts.flags |= bulkhead_abi::interface_flags::XDP_TARGET;
        net.tables().interfaces.set(&ifindex, &facts);
    }
    open(&mut net, pair);
    // Until both directions know their next hop.
    net.receive(OUTSIDE, &pair.server(ACK, 9001, 1001).window(60_000))
        .forwarded(INSIDE, Reason::Established, &[]);
    let (mut seq, mut long) = (1001u32, 0);
    for turn in 0..400 {
        let data = pair.client(ACK, seq, 9001).payload(&[1; 1000]);
        let step = net.receive_xdp(INSIDE, &data);
        if step.outcome.verdict.reason == Reason::EstablishedXdp {
            step.forwarded(OUTSIDE, Reason::EstablishedXdp, &[]);
        } else {
            step.next_hook();
            long += 1;
            net.receive(INSIDE, &data)
                .forwarded(OUTSIDE, Reason::Established, &[]);
        }
        seq += 1000;
        if turn % 2 == 1 {
            let ack = pair.server(ACK, 9001, seq).window(60_000);
            net.receive_xdp(OUTSIDE, &ack)
                .forwarded(INSIDE, Reason::EstablishedXdp, &[]);
        }
    }
    assert!(
        (5..=8).contains(&long),
        "{long} of 400, of a window of 60 segments"
    );
}

#[test]
fn midstream_is_denied_unless_configured() {
    for pair in pairs() {
        let mut net = outbound();
        net.receive(INSIDE, &pair.client(ACK, 1001, 9001))
            .dropped(Reason::TcpNoSession, &[]);
        let mut net = with_rules(tcp_rules::MIDSTREAM);
        for flags in [SYN | ACK, RST, RST | ACK, FIN | ACK, PSH] {
            net.receive(INSIDE, &pair.client(flags, 1000, 1))
                .dropped(Reason::TcpNoSession, &[]);
        }
        // As for any first packet, policy decides.
        net.receive(OUTSIDE, &pair.server(ACK, 9001, 1001))
            .dropped(Reason::DefaultDeny, &[MISS]);
        assert_eq!(net.flows(), (0, 0));
    }
}

#[test]
fn a_connection_is_picked_up_in_mid_stream() {
    for pair in pairs() {
        let mut net = with_rules(tcp_rules::MIDSTREAM);
        net.receive(
            INSIDE,
            &pair.client(ACK | PSH, 50_000, 0x7000_0000).payload(b"data"),
        )
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        let states = |net: &Net| -> Vec<u8> { flows(net, &pair).iter().map(|flow| flow.state).collect() };
        assert_eq!(states(&net), [SessionState::TcpMidstream as u8; 2]);
        // Until it is answered, it is as half-open as after a SYN.
        net.receive(
            INSIDE,
            &pair.client(ACK | PSH, 50_004, 0x7000_0000).payload(b"more"),
        )
        .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
        assert_eq!(net.flows(), (0, 2));
        net.receive(OUTSIDE, &pair.server(ACK, 0x7000_0000, 50_008).window(500))
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
        assert_eq!(states(&net), [SessionState::TcpEstablished as u8; 2]);
        // The scale is not known: what may be far inside a scaled window passes.
        net.receive(
            OUTSIDE,
            &pair.server(ACK, 0x7000_0000 + 5_000_000, 50_008).payload(b"x"),
        )
        .forwarded(INSIDE, Reason::Established, &[]);
        // It closes like any other.
        net.receive(INSIDE, &pair.client(FIN | ACK, 50_008, 0x7000_0000 + 5_000_001))
            .forwarded(OUTSIDE, Reason::Established, &[]);
        net.receive(OUTSIDE, &pair.server(FIN | ACK, 0x7000_0000 + 5_000_001, 50_009))
            .forwarded(INSIDE, Reason::Established, &[]);
        net.receive(INSIDE, &pair.client(ACK, 50_009, 0x7000_0000 + 5_000_002))
            .forwarded(OUTSIDE, Reason::Established, &[]);
        assert_eq!(states(&net), [SessionState::TcpTimeWait as u8; 2]);
    }
}

#[test]
fn what_was_picked_up_ends_by_reset_or_by_silence_and_gives_way_to_a_syn() {
    for pair in pairs() {
        let pick_up = || {
            let mut net = with_rules(tcp_rules::MIDSTREAM);
            net.receive(INSIDE, &pair.client(ACK, 50_000, 70_000)).forwarded(
                OUTSIDE,
                Reason::SessionCreated,
                &[MISS],
            );
            net
        };
        let mut net = pick_up();
        net.advance(240 * SECOND + 1);
        assert_eq!(net.age(), 1);
        let mut net = pick_up();
        net.receive(OUTSIDE, &pair.server(RST, 70_000, 0))
            .forwarded(INSIDE, Reason::HalfOpen, &[]);
        assert_eq!(flows(&net, &pair)[0].state, SessionState::TcpClosed as u8);
        let mut net = pick_up();
        net.receive(INSIDE, &pair.client(SYN, 1000, 0))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
        assert_eq!(flows(&net, &pair)[0].state, SessionState::TcpSynSent as u8);
    }
}

/// Liberal also when it was not from the beginning.
#[test]
fn liberal_lets_pass_and_strict_does_not_from_one_commit_to_the_next() {
    let pair = &pairs()[0];
    let mut net = outbound();
    open(&mut net, pair);
    let odd = pair.server(ACK, 0x4000_0000, 1001).payload(b"odd");
    net.receive(OUTSIDE, &odd).dropped(Reason::TcpOutOfWindow, &[]);
    net.commit(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    net.settings(|settings| settings.tcp_rules = tcp_rules::LIBERAL);
    net.receive(OUTSIDE, &odd)
        .forwarded(INSIDE, Reason::Established, &[MISS]);
    net.commit(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    let outcome = net.receive(OUTSIDE, &odd).outcome;
    assert_eq!(outcome.verdict.reason, Reason::TcpOutOfWindow);
}
