//! The firewall of the demo: this very binary as a user starts it, `bulkhead run`, in a namespace of its own.
//!
//! Owns the process and a private directory with its configuration, its socket and its log; both go with the value.
//! Speaks to it only over the socket, as the command line does. Refuses to call a firewall ready before it says that
//! every interface is guarded.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bulkhead_testkit::Namespace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::matrix::{Conversation, Protocol};
use super::segments::{CONFIGURATION, Family, PREFIX, Segment};
use super::stop::Stop;
use crate::client::Client;
use crate::protocol;
use crate::report::{Explanation, Interfaces, Question};

/// Where the private directories are made: on a file system that only root writes to.
pub(super) const RUNTIME: &str = "/run";
/// How long the firewall may take until it guards every interface.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it may take to stop when asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of the log is shown when it does not start.
const LOG_LINES: usize = 20;

/// A directory that only this user can read, removed on drop.
#[derive(Debug)]
pub(super) struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    /// Makes `/run/bulkhead-demo-PID`.
    pub(super) fn create() -> Result<Self> {
        let path = Path::new(RUNTIME).join(format!("{PREFIX}-{}", std::process::id()));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// A running firewall, stopped on drop.
#[derive(Debug)]
pub(super) struct Firewall {
    process: Child,
    /// How long it took from the start of the process until every interface was guarded.
    pub(super) started_in: Duration,
    // Dropped last: the process writes into it.
    directory: PrivateDirectory,
}

impl Firewall {
    /// Starts it in a namespace and waits until it guards every interface.
    pub(super) fn start(namespace: &Namespace, stop: &Stop) -> Result<Self> {
        let directory = PrivateDirectory::create()?;
        let configuration = directory.0.join("firewall.yaml");
        fs::write(&configuration, CONFIGURATION)
            .with_context(|| format!("cannot write {}", configuration.display()))?;
        let log_path = directory.0.join("firewall.log");
        let log = File::create(&log_path).with_context(|| format!("cannot make {}", log_path.display()))?;
        let errors = log.try_clone().context("cannot duplicate a file handle")?;
        let mut command = Command::new(own_binary()?);
        command
            .arg("run")
            .arg("--config")
            .arg(&configuration)
            .arg("--socket")
            .arg(directory.0.join("bulkhead.sock"))
            .arg("--state")
            .arg(directory.0.join("state"))
            // With the process everything goes.
            .args(["--pins", "none"])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Its last words, should it fail, are to be its own.
            .env_remove("RUST_BACKTRACE")
            // A Ctrl-C at the terminal is for the demo, which stops the firewall in its own time.
            .process_group(0);
        let began = Instant::now();
        // A process starts where the thread is that starts it.
        let process = namespace
            .run(|| command.spawn())
            .context("cannot start `bulkhead run`")?;
        let mut firewall = Self {
            process,
            started_in: Duration::ZERO,
            directory,
        };
        firewall.await_ready(began + START_TIMEOUT, stop)?;
        firewall.started_in = began.elapsed();
        Ok(firewall)
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.0.join("bulkhead.sock")
    }

    /// Its process.
    pub(super) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// Where its log is.
    pub(super) fn log_path(&self) -> PathBuf {
        self.directory.0.join("firewall.log")
    }

    /// What it wrote so far.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// A connection to it.
    pub(super) fn connect(&self) -> Result<Client> {
        Client::connect(&self.socket())
    }

    fn await_ready(&mut self, deadline: Instant, stop: &Stop) -> Result<()> {
        loop {
            stop.pause(Duration::from_millis(5))?;
            if let Some(status) = self.process.try_wait().context("cannot wait for the firewall")? {
                bail!(
                    "the firewall ended at once ({status}); it said:\n{}",
                    self.last_words()
                );
            }
            let state = match self.unguarded() {
                Ok(unguarded) if unguarded.is_empty() => return Ok(()),
                Ok(unguarded) => format!("it does not guard {}", unguarded.join(", ")),
                Err(error) => format!("{error:#}"),
            };
            ensure!(
                Instant::now() < deadline,
                "the firewall was not ready within {} s: {state}; it said:\n{}",
                START_TIMEOUT.as_secs(),
                self.last_words()
            );
        }
    }

    /// Interfaces that it does not guard yet.
    fn unguarded(&self) -> Result<Vec<&'static str>> {
        let known: Interfaces = self.connect()?.ask(&protocol::Command::ShowInterfaces {})?;
        let guarded = |name| {
            known
                .interfaces
                .iter()
                .any(|interface| interface.name == name && interface.attached)
        };
        Ok(Segment::ALL
            .map(Segment::interface)
            .into_iter()
            .filter(|name| !guarded(*name))
            .collect())
    }

    /// The end of its log.
    pub(super) fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        let process = Pid::from_raw(self.process.id().cast_signed());
        // It may have ended by itself; then there is nobody to ask, and `try_wait` says so.
        let _gone = kill(process, Signal::SIGTERM);
        let deadline = Instant::now() + STOP_TIMEOUT;
        while matches!(self.process.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                eprintln!(
                    "the firewall (process {process}) did not stop within {} s and is killed",
                    STOP_TIMEOUT.as_secs()
                );
                let _gone = self.process.kill();
                let _waited = self.process.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The binary that is running, to be run again.
pub(super) fn own_binary() -> Result<PathBuf> {
    std::env::current_exe().context("cannot find the path of the running binary")
}

/// What the firewall says would come of a conversation.
pub(super) fn explain(client: &mut Client, conversation: &Conversation) -> Result<Explanation> {
    let family = conversation.family;
    let echo = match (conversation.protocol, family) {
        (Protocol::Ping, Family::V4) => Some(8),
        (Protocol::Ping, Family::V6) => Some(128),
        _ => None,
    };
    let question = Question {
        from: conversation.from.interface().to_owned(),
        source: conversation.from.host(family),
        destination: conversation.to.host(family),
        protocol_number: conversation.protocol.number(family),
        source_port: 0,
        destination_port: conversation.protocol.port(),
        icmp_type: echo,
        icmp_code: echo.map(|_| 0),
    };
    client
        .ask(&protocol::Command::Explain { question })
        .with_context(|| format!("cannot have the firewall explain {conversation}"))
}
