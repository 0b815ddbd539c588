//! The daemon as users run it: from its start to the first packet through, its memory, its death and what that costs.
//!
//! Runs the `bulkhead` that lies beside this program, which `cargo xtask bench` builds. A conversation is sent all the
//! while; its packets say when the firewall enforces and what is lost.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bulkhead_testkit::Bpffs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::contender::Contender;
use crate::go_on;
use crate::lab::{Lab, Purpose, SINK_PORT};
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

/// How long a start may take before it is given up.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a daemon settles before its memory is read, and how long it stays dead.
const SETTLE: Duration = Duration::from_millis(500);

/// Everything about the daemon.
pub fn run(settings: &Settings, results: &mut Results) -> Result<()> {
    let program = program()?;
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
        let daemon = Daemon::start(&lab, program, &pins, rules)?;
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

/// An established session through the end of one daemon and the start of the next; packets lost.
fn restart(program: &Path, signal: Signal) -> Result<f64> {
    go_on()?;
    let (lab, pins) = (lab()?, Bpffs::mount()?);
    let daemon = Daemon::start(&lab, program, &pins, 1)?;
    Probe::new(&lab, target(2))?.must_not_pass()?;
    let stream = Stream::start(&lab, target(0))?;
    std::thread::sleep(SETTLE);
    daemon.end(signal)?;
    std::thread::sleep(SETTLE);
    Probe::new(&lab, target(2))?.must_not_pass()?;
    let daemon = Daemon::start(&lab, program, &pins, 1)?;
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

/// The daemon's program.
fn program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let program = own.with_file_name("bulkhead");
    ensure!(
        program.is_file(),
        "{} does not exist; `cargo xtask bench` builds it",
        program.display()
    );
    Ok(program)
}

/// A configuration of so many rules, each for one destination.
fn configuration(rules: u32) -> String {
    // The default size has room for 65,536.
    let size = if rules > 65_536 { "large" } else { "medium" };
    let mut text = format!(
        "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: {{ name: bench }}\nspec:\n  size: {size}\n  interfaces:\n    \
         - {{ name: net1, zone: source, hook: tcx }}\n    - {{ name: net2, zone: sink, hook: tcx }}\n  zones: [{{ name: \
         source }}, {{ name: sink }}]\n  services: [{{ name: measured, udp: [{SINK_PORT}] }}]\n  addresses:\n"
    );
    for number in 0..rules {
        let _infallible = writeln!(
            text,
            "    - {{ name: host-{number}, members: [{}] }}",
            target(number)
        );
    }
    text += "  policies:\n";
    for number in 0..rules {
        let _infallible = writeln!(
            text,
            "    - {{ name: rule-{number}, from: source, to: sink, destination: [host-{number}], service: [measured], \
             action: permit }}"
        );
    }
    text
}

/// Bytes.
struct Memory {
    resident: u64,
    tables: u64,
}

/// A running daemon. Dropping it kills it.
struct Daemon {
    child: Child,
    directory: tempfile::TempDir,
}

impl Daemon {
    /// Starts it in the firewall's namespace; it enforces when this returns.
    fn start(lab: &Lab, program: &Path, pins: &Bpffs, rules: u32) -> Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory for the daemon")?;
        let path = |name: &str| directory.path().join(name);
        fs::write(path("firewall.yaml"), configuration(rules))?;
        let ready = UnixDatagram::bind(path("notify")).context("cannot listen for the daemon")?;
        ready.set_read_timeout(Some(START_TIMEOUT))?;
        let log = fs::File::create(path("log"))?;
        let child = lab
            .firewall()
            .run(|| {
                // This program's threads block these signals, and a child inherits that; the daemon waits for them.
                crate::signals().thread_unblock()?;
                Command::new(program)
                    .arg("run")
                    .arg("--config")
                    .arg(path("firewall.yaml"))
                    .arg("--socket")
                    .arg(path("socket"))
                    .arg("--state")
                    .arg(path("state"))
                    .arg("--pins")
                    .arg(pins.path())
                    .env("NOTIFY_SOCKET", path("notify"))
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(log)
                    .spawn()
            })
            .with_context(|| format!("cannot run {}", program.display()))?;
        let mut daemon = Self { child, directory };
        daemon.await_ready(&ready)?;
        Ok(daemon)
    }

    fn await_ready(&mut self, ready: &UnixDatagram) -> Result<()> {
        ready.set_read_timeout(Some(Duration::from_millis(20)))?;
        let deadline = Instant::now() + START_TIMEOUT;
        let mut message = [0; 128];
        loop {
            if let Ok(bytes) = ready.recv(&mut message)
                && message[..bytes].starts_with(b"READY=1")
            {
                return Ok(());
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
                bail!("the daemon does not enforce: {}", log.trim());
            }
        }
    }

    /// What the kernel says it holds.
    fn memory(&self) -> Result<Memory> {
        let process = PathBuf::from(format!("/proc/{}", self.child.id()));
        let status = fs::read_to_string(process.join("status"))?;
        let kibibytes = field(&status, "VmRSS:").context("the daemon has no VmRSS")?;
        let mut maps = std::collections::BTreeMap::new();
        for entry in fs::read_dir(process.join("fdinfo"))? {
            // A descriptor that was closed meanwhile holds nothing.
            let Ok(text) = fs::read_to_string(entry?.path()) else {
                continue;
            };
            if let (Some(id), Some(bytes)) = (field(&text, "map_id:"), field(&text, "memlock:")) {
                maps.insert(id, bytes);
            }
        }
        ensure!(!maps.is_empty(), "the daemon holds no tables");
        Ok(Memory {
            resident: kibibytes * 1024,
            tables: maps.values().sum(),
        })
    }

    /// Ends it with a signal and waits.
    fn end(mut self, signal: Signal) -> Result<()> {
        let process = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(process, signal).with_context(|| format!("cannot send {signal}"))?;
        self.child.wait()?;
        Ok(())
    }

    fn stop(self) -> Result<()> {
        self.end(Signal::SIGTERM)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already waited for, or an error is on its way.
        let _gone = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_names_every_rule_once() {
        let text = configuration(3);
        for number in 0..3 {
            assert_eq!(
                text.matches(&format!("name: rule-{number},")).count(),
                1,
                "{text}"
            );
            assert_eq!(
                text.matches(&format!("[{}]", target(number))).count(),
                1,
                "{text}"
            );
        }
    }

    #[test]
    fn fields_are_found_by_name() {
        assert_eq!(field("VmPeak:\t 9 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12));
        assert_eq!(field("VmPeak:\t 9 kB\n", "VmRSS:"), None);
    }
}
