//! Programs of others, run in a namespace: hping3, nmap, Python with scapy.
//!
//! Owns the process it starts: one that outlives its patience is killed by its number and is an error. Assumes
//! nothing about exit codes, which these tools use for their own purposes (hping3: 1 when nobody answered).

use std::ffi::OsStr;
use std::io::{Read, Write as _};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::effort::{self, patience};
use crate::namespace::Namespace;

/// A program about to be started.
#[derive(Debug)]
pub struct Tool {
    name: String,
    command: Command,
    input: Vec<u8>,
    patience: Duration,
}

/// What a program said, and how it ended.
#[derive(Debug, Clone)]
pub struct ToolOutput {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// Exit code; `None`: ended by a signal.
    pub code: Option<i32>,
}

impl Tool {
    /// A program by name or path, with a minute of patience.
    pub fn new(program: &str) -> Self {
        let mut command = Command::new(program);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self {
            name: program.to_owned(),
            command,
            input: Vec::new(),
            patience: Duration::from_secs(60),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// What it reads from standard input.
    #[must_use]
    pub fn input(mut self, input: &str) -> Self {
        self.input = input.as_bytes().to_vec();
        self
    }

    /// How long it may run, on a usual machine.
    #[must_use]
    pub const fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Runs it in a namespace until it ends. A process started on a thread in a namespace is in that namespace.
    pub fn run(mut self, namespace: &Namespace) -> Result<ToolOutput> {
        self.command.stdin(if self.input.is_empty() {
            Stdio::null()
        } else {
            Stdio::piped()
        });
        let command = &mut self.command;
        let mut child = namespace.run(move || command.spawn()).with_context(|| {
            format!(
                "cannot start {}; `cargo xtask setup` installs what the tests start",
                self.name
            )
        })?;
        let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
        if let Some(mut stdin) = child.stdin.take() {
            // Short inputs, which a pipe holds: this does not wait for a program that reads nothing.
            stdin
                .write_all(&self.input)
                .with_context(|| format!("cannot write to {}", self.name))?;
        }
        let code = self.wait(&mut child)?;
        let text = |thread: JoinHandle<Vec<u8>>| {
            let bytes = thread.join().unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        Ok(ToolOutput {
            stdout: text(stdout),
            stderr: text(stderr),
            code,
        })
    }

    fn wait(&self, child: &mut Child) -> Result<Option<i32>> {
        let deadline = effort::deadline(self.patience);
        loop {
            let ended = child
                .try_wait()
                .with_context(|| format!("cannot wait for {}", self.name))?;
            if let Some(status) = ended {
                return Ok(status.code());
            }
            if Instant::now() > deadline {
                let _ended_meanwhile = child.kill();
                let _reaped = child.wait();
                bail!(
                    "{} ran for more than {} s",
                    self.name,
                    patience(self.patience).as_secs()
                );
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl ToolOutput {
    /// Itself if the program ended with 0; an error that says what it said.
    pub fn success(self) -> Result<Self> {
        if self.code == Some(0) {
            return Ok(self);
        }
        bail!("exit code {:?}:\n{}\n{}", self.code, self.stdout, self.stderr)
    }
}

/// Reads a pipe to its end on a thread of its own, so that no program waits for its reader.
fn collect(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read until then is all there is.
            let _ended = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}
