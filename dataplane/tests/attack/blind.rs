//! Attacks on an established connection by somebody who knows its addresses and ports, and even where its sequence
//! numbers are, but may not be believed (RFC 5961, RFC 5927).

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bulkhead_dataplane::{engine::Session, ruleset::HookMode};
use bulkhead_testkit::{Host, privileged};

use crate::{
    arena::{Arena, Position},
    reasons::{self, Ends},
};

/// Guesses over the whole sequence space: one in every 4 MiB.
const GUESSES: u64 = 1024;

/// Lets `from` pretend to be the client at `client`, as the server (or the firewall) knows it.
fn forge(
    arena: &Arena,
    from: &Host,
    attack: &str,
    (client, server): (SocketAddr, SocketAddr),
    (seq, ack): (u32, u32),
) -> Result<u64> {
    let arguments = [
        ("from", client.ip().to_string()),
        ("to", server.ip().to_string()),
        ("sport", client.port().to_string()),
        ("dport", server.port().to_string()),
        ("seq", seq.to_string()),
        ("ack", ack.to_string()),
        ("count", GUESSES.to_string()),
    ];
    arena.scapy(from, attack, &arguments)
}

/// From all places: the client's own wire towards the server, and a third host in the zone of either side.
fn blind(position: Position, hook: HookMode, attack: &str, ends: &Ends) -> Result<()> {
    let arena = Arena::with(position, hook, |_| {})?;
    let siege = arena.besiege()?;
    let (inside, attacker) = (arena.inside(), arena.attacker());
    for (stream, session) in siege.streams.iter().zip(siege.sessions()) {
        let server = session.original.destination;
        // The connections are at rest here, so the numbers are exact; both run while the guesses go on.
        let numbers = siege.numbers(stream)?;
        siege.run();
        if position == Position::Neighbour {
            // A neighbour of the client, on its own wire.
            let (seq, ack) = (numbers.client_next, numbers.server_next);
            forge(&arena, inside, attack, (stream.local(), server), (seq, ack))?;
        }
        stream.pause()?;
        let numbers = siege.numbers(stream)?;
        siege.run();
        // Somebody in the server's place, towards the client as the world sees it.
        let (seq, ack) = (numbers.server_next, numbers.client_next);
        forge(&arena, attacker, attack, (server, stream.seen_as()), (seq, ack))?;
        stream.advance(2)?;
        stream.pause()?;
    }
    siege.lift(ends)?;
    Ok(())
}

macro_rules! blind {
    ($($name:ident: $position:ident, $hook:ident, $attack:literal, $ends:ident;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            if !privileged() {
                return Ok(());
            }
            blind(Position::$position, HookMode::$hook, $attack, &reasons::$ends)
        }
    )*};
}

blind! {
    attack_blind_resets_from_a_neighbour: Neighbour, Auto, "blind_reset", BLIND_RESET;
    attack_blind_resets_from_a_neighbour_over_forced_xdp: Neighbour, Xdp, "blind_reset", BLIND_RESET;
    attack_blind_resets_from_another_zone: Stranger, Auto, "blind_reset", WRONG_ZONE;
    attack_blind_syns_from_a_neighbour: Neighbour, Auto, "blind_syn", BLIND_SEGMENT;
    attack_blind_syns_from_another_zone: Stranger, Auto, "blind_syn", WRONG_ZONE;
    attack_blind_data_from_a_neighbour: Neighbour, Auto, "blind_data", BLIND_SEGMENT;
    attack_blind_data_from_another_zone: Stranger, Auto, "blind_data", WRONG_ZONE;
    attack_forged_fins_from_a_neighbour: Neighbour, Auto, "blind_fin", BLIND_SEGMENT;
    attack_forged_fins_from_another_zone: Stranger, Auto, "blind_fin", WRONG_ZONE;
}

/// ICMP errors must neither end nor refresh a session (RFC 4787 REQ-12, RFC 7857 section 4): the connections rest
/// meanwhile, so that nothing else refreshes them.
fn forged_errors(position: Position, ends: &Ends) -> Result<()> {
    let arena = Arena::new(position)?;
    let siege = arena.besiege()?;
    let attacker = arena.attacker();
    for (stream, session) in siege.streams.iter().zip(siege.sessions()) {
        let numbers = siege.numbers(stream)?;
        let idle = |session: Session| (session.idle, Instant::now());
        let (before, then) = idle(arena.session_of(stream.local())?);
        let victim = stream.seen_as();
        let own = if victim.is_ipv4() {
            attacker.v4.to_string()
        } else {
            attacker.v6.to_string()
        };
        let arguments = [
            ("from", victim.ip().to_string()),
            ("to", session.original.destination.ip().to_string()),
            ("sport", victim.port().to_string()),
            ("dport", session.original.destination.port().to_string()),
            ("seq", numbers.client_next.to_string()),
            ("attacker", own),
        ];
        let sent = arena.scapy(attacker, "icmp_errors", &arguments)?;
        ensure!(sent > 200, "only {sent} errors were sent");
        let (after, now) = idle(arena.session_of(stream.local())?);
        // The kernel's coarse clock lags by up to a tick of 4 to 10 ms.
        ensure!(
            after + Duration::from_millis(20) >= before + (now - then),
            "refreshed: idle for {before:?}, and {after:?} when {:?} had passed",
            now - then
        );
    }
    let account = siege.lift(ends)?;
    if position == Position::Neighbour {
        // Those with the right tuple and a number that is on its way are passed on: who can guess that much could as
        // well have been a router. The client's stack judges them once more (RFC 5927).
        ensure!(account.of("related_icmp") > 0, "{account:#?}");
    }
    Ok(())
}

#[test]
fn attack_forged_icmp_errors_from_a_neighbour() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    forged_errors(Position::Neighbour, &reasons::ICMP_ERROR)
}

#[test]
fn attack_forged_icmp_errors_from_another_zone() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    forged_errors(Position::Stranger, &reasons::STRANGERS_ICMP_ERROR)
}
