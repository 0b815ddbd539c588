//! The command line's side of the socket.
//!
//! Owns the sentences a person reads when there is no daemon to talk to. Assumes nothing about how fast an answer
//! comes, except that a daemon which says nothing for [`PATIENCE`] has a problem worth telling.

use std::io::{self, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::protocol::{Command, Failure, MAX_ANSWER_BYTES, VERSION, read_line, request_line};

/// How long the daemon may think.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    reader: BufReader<UnixStream>,
}

/// A line of an answer.
enum Line {
    Ok(Value),
    End,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// If no daemon listens there, with what to do about it.
    pub fn connect(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path).map_err(|error| nobody_there(path, &error))?;
        stream
            .set_read_timeout(Some(PATIENCE))
            .context("cannot set a socket's timeout")?;
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::new(stream),
        })
    }

    /// Asks, and waits for the answer.
    pub fn ask<T: DeserializeOwned>(&mut self, command: &Command) -> Result<T> {
        self.ask_with(command, &[])
    }

    /// Asks with bytes behind the request, and waits for the answer.
    pub fn ask_with<T: DeserializeOwned>(&mut self, command: &Command, bytes: &[u8]) -> Result<T> {
        self.send(command)?;
        self.write(bytes)?;
        match self.line()? {
            Line::Ok(report) => self.understand(report),
            Line::End => bail!(
                "the daemon on {} ended where an answer was due",
                self.path.display()
            ),
        }
    }

    /// Asks, and hands each part of the answer to `each` until the stream ends.
    pub fn stream<T: DeserializeOwned>(
        &mut self,
        command: &Command,
        mut each: impl FnMut(T) -> Result<()>,
    ) -> Result<()> {
        // There may be nothing to tell for hours.
        self.reader
            .get_ref()
            .set_read_timeout(None)
            .context("cannot set a socket's timeout")?;
        self.send(command)?;
        loop {
            match self.line()? {
                Line::Ok(part) => each(self.understand(part)?)?,
                Line::End => return Ok(()),
            }
        }
    }

    fn send(&mut self, command: &Command) -> Result<()> {
        let line = request_line(command).context("cannot write the request as JSON")?;
        self.write(line.as_bytes())
    }

    /// A daemon that refuses the connection says why and closes: its words matter more than the broken pipe.
    fn write(&self, bytes: &[u8]) -> Result<()> {
        match self.reader.get_ref().write_all(bytes) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(error).with_context(|| format!("cannot ask the daemon on {}", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    fn line(&mut self) -> Result<Line> {
        let path = self.path.display();
        let line = match read_line(&mut self.reader, MAX_ANSWER_BYTES) {
            Ok(Some(line)) => line,
            Ok(None) => bail!("the daemon on {path} closed the connection; its log says why"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                bail!(
                    "the daemon on {path} has not answered for {} s; its log may say why",
                    PATIENCE.as_secs()
                )
            }
            Err(error) => return Err(error).with_context(|| format!("cannot hear the daemon on {path}")),
        };
        let mut line: Value = serde_json::from_slice(&line)
            .with_context(|| format!("what answers on {path} is not a bulkhead"))?;
        if let Some(error) = line.get_mut("error") {
            let failure: Failure = serde_json::from_value(error.take())
                .with_context(|| format!("the daemon on {path} refused in words of another version"))?;
            return Err(failure.into());
        }
        let known = line.get("version").and_then(Value::as_u64) == Some(VERSION);
        let ended = line.get("end").is_some();
        match line.get_mut("ok").filter(|_| known) {
            Some(report) => Ok(Line::Ok(report.take())),
            None if known && ended => Ok(Line::End),
            None => bail!(
                "the daemon on {path} does not speak version {VERSION} of the protocol; use its own command line"
            ),
        }
    }

    fn understand<T: DeserializeOwned>(&self, report: Value) -> Result<T> {
        serde_json::from_value(report).with_context(|| {
            format!(
                "cannot understand the daemon on {}; is it another version?",
                self.path.display()
            )
        })
    }
}

fn nobody_there(path: &Path, error: &io::Error) -> anyhow::Error {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => anyhow!(
            "no daemon answers on {shown} ({error}); start one with `bulkhead run --config firewall.yaml`, or say \
             where it listens with --socket"
        ),
        io::ErrorKind::PermissionDenied => {
            anyhow!("cannot open {shown} ({error}); only the user that runs the daemon may, usually root")
        }
        _ => anyhow!("cannot connect to {shown}: {error}"),
    }
}
