//! Fragments that overlap, are too small, lie beyond the end, never end or never began; and honest ones.

use anyhow::{Result, ensure};
use bulkhead_abi::Reason;
use bulkhead_testkit::{Account, KernelCounters, privileged};

use crate::{
    arena::{Arena, HALF_OPEN, Position, Siege},
    reasons::{self, Ends},
};

/// Lets the attacker send fragments to the server, both families, at most `rate` per second; how many.
fn send(arena: &Arena, attack: &str, count: u64, rate: u64) -> Result<u64> {
    let (attacker, outside) = (arena.attacker(), arena.outside());
    let mut sent = 0;
    for (from, to) in attacker.addresses().into_iter().zip(outside.addresses()) {
        let arguments = [
            ("from", from.to_string()),
            ("to", to.to_string()),
            ("port", "53".to_owned()),
            ("count", count.to_string()),
            ("rate", rate.to_string()),
        ];
        sent += arena.scapy(attacker, attack, &arguments)?;
    }
    Ok(sent)
}

/// Every frame of the attacker's that was not forwarded or delivered was dropped under a name, and what is remembered of
/// them is bounded: at most so many sessions, and no memory that was not there before.
fn ends(arena: &Arena, siege: Siege<'_>, sent: u64, ends: &Ends, most: usize) -> Result<Account> {
    let memory = map_bytes()?;
    let account = siege.lift(ends)?;
    ensure!(
        account.received["net3"] >= sent,
        "{} of {sent} frames arrived",
        account.received["net3"]
    );
    let list = arena.engine.sessions(&|_| true, 0)?;
    ensure!(
        list.total <= most,
        "{} sessions of nothing but fragments",
        list.total
    );
    ensure!(
        map_bytes()? <= memory + (1 << 20),
        "the tables grew from {memory} bytes to {}",
        map_bytes()?
    );
    Ok(account)
}

/// Memory of all BPF maps of this process, bytes.
fn map_bytes() -> Result<u64> {
    bulkhead_testkit::memory::own_map_bytes()
}

#[test]
fn attack_overlapping_tiny_teardrop_and_oversized_fragments() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let arena = Arena::new(Position::Stranger)?;
    // What arrives at the server: nothing that a policy did not see may be put together there.
    let siege = arena.besiege()?;
    siege.run();
    let before = KernelCounters::snapshot(&arena.outside().namespace)?;
    let sent = send(&arena, "bad_fragments", 60, 2000)?;
    let account = ends(&arena, siege, sent, &reasons::BAD_FRAGMENTS, 100)?;
    let dropped: u64 = Reason::ALL
        .iter()
        .filter(|reason| reason.is_drop())
        .map(|reason| account.of(reason.name()))
        .sum();
    // Of sixteen, at most the honest beginnings may pass.
    ensure!(
        dropped > sent / 2,
        "{dropped} of {sent} were dropped: {account:#?}"
    );
    // None of it became a datagram at the server: neither the overlapping ones nor the one for another port.
    let after = KernelCounters::snapshot(&arena.outside().namespace)?;
    for whole in [
        "IpReasmOKs",
        "Ip6ReasmOKs",
        "UdpInDatagrams",
        "Udp6InDatagrams",
        "UdpNoPorts",
        "Udp6NoPorts",
    ] {
        ensure!(
            after.since(&before, whole) == 0,
            "{whole}: {:#?}",
            after.delta(&before)
        );
    }
    Ok(())
}

#[test]
fn attack_flood_of_first_fragments() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let arena = Arena::new(Position::Stranger)?;
    let siege = arena.besiege()?;
    siege.run();
    let target = arena.outside().v4.to_string();
    // UDP with "more fragments" from anywhere, beside those of one source.
    arena.hping3(&[
        "-2", "-x", "-d", "64", "-p", "53", "-q", "-i", "u300", "-c", "5000", &target,
    ])?;
    let sent = 5000 + send(&arena, "first_fragments", 4000, 5000)?;
    // Each may open a session of its own: policy permits them. Of each family, twice as many as may be answered.
    let room = 4 * HALF_OPEN as usize;
    ends(&arena, siege, sent, &reasons::FIRST_FRAGMENTS, room)?;
    Ok(())
}

#[test]
fn attack_flood_of_later_fragments() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let arena = Arena::new(Position::Stranger)?;
    let siege = arena.besiege()?;
    siege.run();
    let target = arena.outside().v4.to_string();
    arena.hping3(&[
        "-2", "-x", "-g", "800", "-d", "64", "-p", "53", "-q", "-i", "u300", "-c", "5000", &target,
    ])?;
    let sent = 5000 + send(&arena, "later_fragments", 4000, 5000)?;
    ends(&arena, siege, sent, &reasons::LATER_FRAGMENTS, 100)?;
    Ok(())
}

#[test]
fn attack_fragments_in_every_order_and_twice() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let arena = Arena::new(Position::Stranger)?;
    let siege = arena.besiege()?;
    siege.run();
    let before = KernelCounters::snapshot(&arena.outside().namespace)?;
    let sent = send(&arena, "honest_fragments", 60, 400)?;
    ends(&arena, siege, sent, &reasons::HONEST_FRAGMENTS, 100)?;
    // In order and in reverse, a third each; of those that come twice at least the first pieces.
    let after = KernelCounters::snapshot(&arena.outside().namespace)?;
    for whole in ["IpReasmOKs", "Ip6ReasmOKs"] {
        ensure!(
            after.since(&before, whole) >= 40,
            "{whole}: {:#?}",
            after.delta(&before)
        );
    }
    Ok(())
}
