//! Screens in front of the same attacks: most of a flood or a scan ends in the screen, and nobody else notices.

use std::time::Duration;

use anyhow::{Result, ensure};
use bulkhead_dataplane::ruleset::{HookMode, Scan, Screen};
use bulkhead_testkit::{Account, Tool, privileged};

use crate::{
    arena::{Arena, Position},
    reasons,
};

/// Packets of each flood, 2,000 per second.
const PACKETS: u64 = 4000;
/// What the screens let through, per second.
const THRESHOLD: u32 = 200;

/// A stranger's attack against a screened zone.
fn screened(screen: Screen, attack: impl FnOnce(&Arena) -> Result<()>) -> Result<Account> {
    let arena = Arena::with(Position::Stranger, HookMode::Auto, |rules| {
        rules.zones[2].screen = Some(rules.screens.len());
        rules.screens.push(screen);
    })?;
    let siege = arena.besiege()?;
    siege.run();
    attack(&arena)?;
    siege.lift(&reasons::SCREENED)
}

/// A flood by hping3 of which most must end under one reason.
fn flood(screen: Screen, kind: &[&str], reason: &str) -> Result<()> {
    let account = screened(screen, |arena| {
        let (count, target) = (PACKETS.to_string(), arena.outside().v4.to_string());
        let mut arguments = vec!["-q", "-i", "u500", "-c", &count];
        arguments.extend(kind);
        arguments.push(&target);
        arena.hping3(&arguments).map(drop)
    })?;
    ensure!(account.received["net3"] >= PACKETS, "{account:#?}");
    // At least two seconds of it, and the threshold's share of each second passed.
    ensure!(
        account.of(reason) > PACKETS / 2 && account.of("session_created") > 0,
        "{reason}: {account:#?}"
    );
    Ok(())
}

#[test]
fn attack_icmp_flood_ends_in_its_screen() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let screen = Screen {
        icmp_flood: Some(THRESHOLD),
        ..Screen::default()
    };
    flood(screen, &["-1"], "screen_icmp_flood")
}

#[test]
fn attack_udp_flood_ends_in_its_screen() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let screen = Screen {
        udp_flood: Some(THRESHOLD),
        ..Screen::default()
    };
    flood(screen, &["-2", "-p", "53", "-d", "20"], "screen_udp_flood")
}

#[test]
fn attack_one_source_holds_no_more_sessions_than_it_may() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let screen = Screen {
        session_limit_source: Some(100),
        ..Screen::default()
    };
    flood(screen, &["-2", "-p", "53", "-d", "20"], "session_limit_source")
}

#[test]
fn attack_nmap_scan_ends_in_its_screen() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let screen = Screen {
        tcp_port_scan: Some(Scan {
            count: 10,
            interval: Duration::from_secs(1),
        }),
        ..Screen::default()
    };
    let account = screened(screen, |arena| {
        let target = arena.outside().v4.to_string();
        Tool::new("nmap")
            .args([
                "-n",
                "-Pn",
                "-T4",
                "--max-retries",
                "1",
                "-sS",
                "-p",
                "1-400",
                &target,
            ])
            .run(&arena.attacker().namespace)?
            .success()
            .map(drop)
    })?;
    ensure!(
        account.of("screen_tcp_port_scan") > 200 && account.of("default_deny") < 200,
        "{account:#?}"
    );
    Ok(())
}
