//! The daemon as a process: its configuration, its start until it enforces, what it holds, its end.
//!
//! It runs in the firewall's namespace on a directory of its own; dropping it kills it.

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

use crate::lab::{Lab, SINK_PORT};
use crate::policy::target;

/// How long a start may take before it is given up.
pub const START_TIMEOUT: Duration = Duration::from_secs(120);

/// The daemon's program.
pub fn program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let program = own.with_file_name("bulkhead");
    ensure!(
        program.is_file(),
        "{} does not exist; `cargo xtask bench` builds it",
        program.display()
    );
    Ok(program)
}

/// What every configuration begins with.
fn beginning(size: &str) -> String {
    format!(
        "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: {{ name: bench }}\nspec:\n  size: {size}\n  interfaces:\n    \
         - {{ name: net1, zone: source, hook: tcx }}\n    - {{ name: net2, zone: sink, hook: tcx }}\n  zones: [{{ name: \
         source }}, {{ name: sink }}]\n  services: [{{ name: measured, udp: [{SINK_PORT}] }}]\n  addresses:\n"
    )
}

/// A configuration of so many rules, each for one destination.
pub fn of_rules(rules: u32) -> String {
    // The default size has room for 65,536.
    let size = if rules > 65_536 { "large" } else { "medium" };
    let mut text = beginning(size);
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

/// A configuration of one rule, for the destinations that a file lists; a million of them, for which `medium` is too small.
pub fn of_list(list: &Path) -> String {
    beginning("large")
        + &format!(
            "    - {{ name: listed, feed: {{ url: \"file://{}\" }} }}\n  policies:\n    - {{ name: listed, from: source, to: sink, \
             destination: [listed], service: [measured], action: permit }}\n",
            list.display()
        )
}

/// Bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Of the process.
    pub resident: u64,
    /// Of its tables in the kernel.
    pub tables: u64,
}

/// A running daemon.
pub struct Daemon {
    child: Child,
    directory: tempfile::TempDir,
}

impl Daemon {
    /// Starts it in the firewall's namespace; it enforces when this returns.
    pub fn start(lab: &Lab, program: &Path, pins: &Bpffs, configuration: &str) -> Result<Self> {
        let directory = tempfile::tempdir().context("cannot make a directory for the daemon")?;
        let path = |name: &str| directory.path().join(name);
        fs::write(path("firewall.yaml"), configuration)?;
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
    pub fn memory(&self) -> Result<Memory> {
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
    pub fn end(mut self, signal: Signal) -> Result<()> {
        let process = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(process, signal).with_context(|| format!("cannot send {signal}"))?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it as an administrator would.
    pub fn stop(self) -> Result<()> {
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
        let text = of_rules(3);
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
