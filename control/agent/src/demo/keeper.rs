//! `--keep`: the demo goes on in the background when its report is read.
//!
//! Servers and the firewall belong to a process, so somebody has to stay. The process the user started becomes a mere
//! reader of exit status: it starts the same binary again, the keeper, which runs the demo with the same standard
//! output and hands its exit status over on a socket that is its standard input. From then on the keeper holds on to
//! nothing of the terminal, and ends on SIGTERM, which is what `bulkhead demo --clean` sends.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout};

use super::firewall::own_binary;
use super::stop::Stop;
use super::{DemoArgs, Status};

/// How often a wish to stop is looked for while the keeper works.
const GLANCE: Duration = Duration::from_millis(50);

/// Starts a keeper and waits until its report is out, or it has failed.
pub(super) fn start(args: &DemoArgs, stop: &Stop) -> Result<ExitCode> {
    let (mut ours, theirs) = UnixStream::pair().context("cannot make a socket pair")?;
    ours.set_read_timeout(Some(GLANCE))
        .context("cannot set a socket's timeout")?;
    let mut keeper = {
        let mut command = Command::new(own_binary()?);
        command.args(["demo", "--keep", "--keeper"]);
        command.args(args.json.then_some("--json"));
        command.args(args.verbose.then_some("--verbose"));
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        command.process_group(0);
        // Dropped here, and with it this side's handle of their end: without a keeper, reading ends.
        command.spawn().context("cannot start the keeper of the demo")?
    };
    let mut status = [0];
    let mut told = false;
    loop {
        match ours.read(&mut status) {
            Ok(0) => return ended(&mut keeper),
            Ok(_) => return Ok(ExitCode::from(status[0])),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if !told && stop.check().is_err() {
                    told = true;
                    kill(Pid::from_raw(keeper.id().cast_signed()), Signal::SIGTERM)
                        .context("cannot stop the keeper of the demo")?;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot hear the keeper of the demo"),
        }
    }
}

/// The status of a keeper that ended before its report was out.
fn ended(keeper: &mut Child) -> Result<ExitCode> {
    let status = keeper.wait().context("cannot wait for the keeper of the demo")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// In the keeper: hands the status over, lets go of the terminal and stays until asked to end.
pub(super) fn stay(status: Status, stop: &Stop) -> Result<()> {
    let starter = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .context("cannot duplicate a file handle")?;
    UnixStream::from(starter)
        .write_all(&[status as u8])
        .context("cannot hand over the exit status; was --keeper given by hand?")?;
    let nowhere = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
        .context("cannot open /dev/null")?;
    dup2_stdin(&nowhere)
        .and_then(|()| dup2_stdout(&nowhere))
        .and_then(|()| dup2_stderr(&nowhere))
        .context("cannot let go of the terminal")?;
    stop.wait();
    Ok(())
}
