//! The daemon as users run it: from its start to the first packet through, its memory, its death and what that costs.
//!
//! Runs the `bulkhead` that lies beside this program, which `cargo xtask bench` builds. A conversation is sent all the
//! while; its packets say when the firewall enforces and what is lost.

mod process;

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bulkhead_testkit::Bpffs;
use nix::sys::signal::Signal;

use self::process::{Daemon, START_TIMEOUT};
use crate::contender::Contender;
use crate::go_on;
use crate::lab::{Lab, Purpose};
use crate::plan::{Scenario, Settings};
use crate::policy::{Policy, target};
use crate::series::{Point, Results, Unit};
use crate::stream::{Probe, Stream};

/// From starting the process to the first packet through.
pub const START: &str = "start to the first packet";
/// Resident memory of the process.
pub const RESIDENT: &str = "resident memory";
/// Memory of its tables in the kernel.
pub const TABLES: &str = "tables in the kernel";
/// Packets of an established session lost by a killed daemon and the start of the next.
pub const KILLED: &str = "packets lost by SIGKILL and restart";
/// The same after SIGTERM.
pub const STOPPED: &str = "packets lost by SIGTERM and restart";

/// The first start with a group from a file: until a packet to a member passes.
pub const LISTED_START: &str = "group in a file: first packet";
/// Resident memory of the process then.
pub const LISTED_RESIDENT: &str = "group in a file: resident memory";
/// Memory of its tables then.
pub const LISTED_TABLES: &str = "group in a file: tables in the kernel";

/// How long a daemon settles before its memory is read, and how long it stays dead.
const SETTLE: Duration = Duration::from_millis(500);

/// Everything about the daemon.
pub fn run(settings: &Settings, results: &mut Results) -> Result<()> {
    let program = process::program()?;
    let rules: &[u32] = if settings.quick {
        &[1, 10_000]
    } else {
        &[1, 1_000, 10_000, 100_000]
    };
    for &count in rules {
        go_on()?;
        let rounds = if count > 10_000 { 1 } else { settings.rounds.min(5) };
        eprintln!("  start with {count} rules, {rounds} rounds");
        starts(&program, count, rounds, results).with_context(|| format!("the daemon with {count} rules"))?;
    }
    if !settings.quick {
        go_on()?;
        let (members, rounds) = (Settings::LISTED, settings.rounds.min(3));
        eprintln!("  start with {members} members in a file, {rounds} rounds");
        listed(&program, members, rounds, results)
            .with_context(|| format!("the daemon with {members} members in a file"))?;
    }
    go_on()?;
    let rounds = settings.rounds.min(3);
    eprintln!("  death and restart, {rounds} rounds");
    for (variant, signal) in [(KILLED, Signal::SIGKILL), (STOPPED, Signal::SIGTERM)] {
        let lost: Result<Vec<f64>> = (0..rounds).map(|_| restart(&program, signal)).collect();
        results.add(point(variant, 1), Unit::Packets, lost.context(variant)?);
    }
    Ok(())
}

const fn point(variant: &'static str, at: u64) -> Point {
    Point {
        scenario: Scenario::Daemon,
        contender: Contender::BulkheadTcx,
        variant,
        at,
    }
}

/// Starts it anew each round.
fn starts(program: &Path, rules: u32, rounds: usize, results: &mut Results) -> Result<()> {
    let (mut start, mut resident, mut tables) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        go_on()?;
        let (lab, pins) = (lab()?, Bpffs::mount()?);
        let stream = Stream::start(&lab, target(0))?;
        let began = Instant::now();
        let daemon = Daemon::start(&lab, program, &pins, &process::of_rules(rules))?;
        std::thread::sleep(SETTLE);
        let denied = Probe::new(&lab, target(rules))?;
        denied.must_not_pass()?;
        let memory = daemon.memory()?;
        let first = stream.finish()?.first.context("no packet passed")?;
        start.push(first.duration_since(began).as_secs_f64() * 1e3);
        resident.push(memory.resident as f64 / 1e6);
        tables.push(memory.tables as f64 / 1e6);
        daemon.stop()?;
    }
    let at = u64::from(rules);
    results.add(point(START, at), Unit::Milliseconds, start);
    results.add(point(RESIDENT, at), Unit::Megabytes, resident);
    results.add(point(TABLES, at), Unit::Megabytes, tables);
    Ok(())
}

/// Starts it each round with a list that it has never seen.
fn listed(program: &Path, members: u32, rounds: usize, results: &mut Results) -> Result<()> {
    let directory = tempfile::tempdir().context("cannot make a directory for the list")?;
    let list = directory.path().join("members.txt");
    let mut text = String::new();
    for number in 0..members {
        let _infallible = writeln!(text, "{}", target(number));
    }
    fs::write(&list, text).with_context(|| format!("cannot write {}", list.display()))?;
    let (mut start, mut resident, mut tables) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        go_on()?;
        let (lab, pins) = (lab()?, Bpffs::mount()?);
        let stream = Stream::start(&lab, target(0))?;
        let began = Instant::now();
        let daemon = Daemon::start(&lab, program, &pins, &process::of_list(&list))?;
        let last = Probe::new(&lab, target(members - 1))?;
        // It is ready with an empty group, and reads the list then.
        while last.must_pass().is_err() {
            go_on()?;
            ensure!(
                began.elapsed() < START_TIMEOUT,
                "the last member is not permitted after {START_TIMEOUT:?}"
            );
        }
        std::thread::sleep(SETTLE);
        Probe::new(&lab, target(members))?.must_not_pass()?;
        let memory = daemon.memory()?;
        let first = stream.finish()?.first.context("no packet passed")?;
        start.push(first.duration_since(began).as_secs_f64() * 1e3);
        resident.push(memory.resident as f64 / 1e6);
        tables.push(memory.tables as f64 / 1e6);
        daemon.stop()?;
    }
    let at = u64::from(members);
    results.add(point(LISTED_START, at), Unit::Milliseconds, start);
    results.add(point(LISTED_RESIDENT, at), Unit::Megabytes, resident);
    results.add(point(LISTED_TABLES, at), Unit::Megabytes, tables);
    Ok(())
}

/// An established session through the end of one daemon and the start of the next; packets lost.
fn restart(program: &Path, signal: Signal) -> Result<f64> {
    go_on()?;
    let (lab, pins) = (lab()?, Bpffs::mount()?);
    let daemon = Daemon::start(&lab, program, &pins, &process::of_rules(1))?;
    Probe::new(&lab, target(2))?.must_not_pass()?;
    let stream = Stream::start(&lab, target(0))?;
    std::thread::sleep(SETTLE);
    daemon.end(signal)?;
    std::thread::sleep(SETTLE);
    Probe::new(&lab, target(2))?.must_not_pass()?;
    let daemon = Daemon::start(&lab, program, &pins, &process::of_rules(1))?;
    std::thread::sleep(SETTLE);
    Probe::new(&lab, target(2))?.must_not_pass()?;
    let delivered = stream.finish()?;
    ensure!(delivered.received > 0, "nothing of the stream arrived");
    daemon.stop()?;
    Ok(delivered.lost() as f64)
}

/// A network for the daemon, which is not there yet.
fn lab() -> Result<Lab> {
    let lab = Lab::bare(Contender::BulkheadTcx, Purpose::Sockets, Policy::Simple)?;
    lab.own_targets()?;
    Ok(lab)
}
