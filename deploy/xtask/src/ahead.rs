//! A command that runs beside the tests, on what processor time they leave.
//!
//! Owns a child of the lowest scheduling class (`SCHED_IDLE`, sched(7)) and where its output goes: into a file, and onto the screen
//! when it is asked for. Assumes that the command needs nothing that the tests change. It stays in our process group, where a
//! terminal's Ctrl-C ends both.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// The child. Dropped before its end, it is ended; what it has started itself ends by itself.
pub struct Ahead {
    what: String,
    child: Child,
    log: PathBuf,
}

impl Ahead {
    /// Starts `command`, which prints into the file `log`.
    pub fn start(command: &Command, log: PathBuf) -> Result<Self> {
        let mut idle = Command::new("chrt");
        idle.args(["--idle", "0"])
            .arg(command.get_program())
            .args(command.get_args());
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = file.try_clone().context("cannot open the log twice")?;
        idle.stdin(Stdio::null()).stdout(file).stderr(errors);
        let what = process::typed(command);
        println!("$ {what} &  # idle priority, into {}", log.display());
        let child = idle.spawn().context("cannot run `chrt` (Debian: util-linux)")?;
        Ok(Self { what, child, log })
    }

    /// Waits for its end, and prints and returns what it printed. An error unless it succeeded.
    pub fn finish(mut self) -> Result<String> {
        let status = self.child.wait()?;
        let said = fs::read(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        let said = String::from_utf8_lossy(&said).into_owned();
        println!("$ {}\n{said}", self.what);
        if !status.success() {
            bail!("`{}` failed: {status}; its output stands above", self.what);
        }
        Ok(said)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // Only of a child that has not been waited for; both fail where it has.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(script: &str) -> (tempfile::TempDir, Ahead) {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let ahead = Ahead::start(&command, directory.path().join("log")).expect("started");
        (directory, ahead)
    }

    #[test]
    fn it_runs_in_the_idle_class_and_its_failure_is_an_error() {
        let (directory, ahead) = start("chrt --pid $$; exit 3");
        let error = ahead.finish().expect_err("status 3").to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        let said = fs::read_to_string(directory.path().join("log")).expect("a log");
        assert!(said.contains("SCHED_IDLE"), "{said}");
    }

    #[test]
    fn dropped_it_ends() {
        let (_directory, ahead) = start("exec sleep 600");
        let process = PathBuf::from(format!("/proc/{}", ahead.child.id()));
        assert!(process.exists());
        drop(ahead);
        assert!(!process.exists());
    }
}
