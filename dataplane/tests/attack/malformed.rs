//! Frames that no honest stack sends: each ends in a reason of its own kind, and none gets through.

use anyhow::{Result, ensure};
use bulkhead_testkit::{Account, privileged};

use crate::{
    arena::{Arena, Position},
    reasons::{self, Ends},
};

/// Lets the attacker send one of the scripts' attacks with all addresses at hand.
fn send(attack: &str, count: u64, ends: &Ends) -> Result<(u64, Account)> {
    let arena = Arena::new(Position::Stranger)?;
    let siege = arena.besiege()?;
    siege.run();
    let (attacker, outside) = (arena.attacker(), arena.outside());
    let targets = outside
        .addresses()
        .into_iter()
        .chain(attacker.gateways())
        .chain(attacker.addresses())
        .map(|address| address.to_string());
    let arguments = [
        ("from4", attacker.v4.to_string()),
        ("from6", attacker.v6.to_string()),
        ("to4", outside.v4.to_string()),
        ("to6", outside.v6.to_string()),
        ("targets", targets.collect::<Vec<_>>().join(",")),
        ("count", count.to_string()),
    ];
    let sent = arena.scapy(attacker, attack, &arguments)?;
    let account = siege.lift(ends)?;
    ensure!(
        account.received["net3"] >= sent,
        "{} of {sent} frames arrived",
        account.received["net3"]
    );
    Ok((sent, account))
}

/// All of them ended in these reasons.
fn all_dropped(attack: &str, count: u64, ends: &Ends) -> Result<()> {
    let (sent, account) = send(attack, count, ends)?;
    let dropped = account.sum(ends.must) + account.sum(ends.may);
    ensure!(dropped == sent, "{dropped} of {sent} were dropped: {account:#?}");
    Ok(())
}

macro_rules! malformed {
    ($($(#[$doc:meta])* $name:ident: $attack:literal, $count:literal, $ends:ident;)*) => {$(
        $(#[$doc])*
        #[test]
        fn $name() -> Result<()> {
            if !privileged() {
                return Ok(());
            }
            all_dropped($attack, $count, &reasons::$ends)
        }
    )*};
}

malformed! {
    attack_land: "land", 20, LAND;
    attack_martians: "martians", 1, MARTIANS;
    attack_source_routes: "source_routes", 1, SOURCE_ROUTES;
    attack_vlan_tags: "vlans", 1, VLANS;
}

#[test]
fn attack_truncated_headers() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let (sent, account) = send("truncated", 1, &reasons::TRUNCATED)?;
    // Cuts behind the headers leave packets that are whole, as far as a firewall is concerned; told honestly, they pass.
    let passed = account.sum(&["session_created", "half_open"]);
    ensure!(
        account.of("truncated") > sent / 3 && passed < 20,
        "{sent} sent: {account:#?}"
    );
    Ok(())
}

#[test]
fn attack_garbage_frames() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    send("garbage", 1200, &reasons::GARBAGE)?;
    Ok(())
}
