//! A program that ends when its handle is dropped, and when this process ends in any other way.
//!
//! Owns the process and its log. Between it and us stands a shell that holds the reading end of a pipe: when our end closes,
//! because the handle is dropped or because we were killed, the shell kills its child by its id. Neither a panic nor
//! SIGKILL leaves a server behind.

use std::{
    fmt,
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context as _, Result};

/// How much of a log an error shows.
const TAIL_BYTES: usize = 3000;

/// Starts its arguments and waits for them; kills them when standard input ends. A background job of a shell has no standard
/// input of its own, so that the pipe goes around it as descriptor 3.
const SHELL: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
child=$!
{ read -r _ <&3; kill -KILL "$child"; } 2>/dev/null &
guard=$!
exec 3<&-
wait "$child"
status=$?
kill -KILL "$guard"
exit "$status"
"#;

pub(super) struct Supervised {
    name: &'static str,
    shell: Child,
    log: PathBuf,
}

impl Supervised {
    /// Starts `command`; what it prints goes to `NAME.log` in `directory`, after what is there.
    pub(super) fn start(name: &'static str, command: &Command, directory: &Path) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let shell = Command::new("/bin/sh")
            .args(["-c", SHELL, name])
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(directory)
            // Ctrl-C at a terminal is for us; what we do about it ends the program.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name, shell, log })
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// How it ended, if it did.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.shell
            .try_wait()
            .with_context(|| format!("cannot ask after {}", self.name))
    }

    /// The end of its log, with a heading.
    pub(super) fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let tail = String::from_utf8_lossy(&log[log.len().saturating_sub(TAIL_BYTES)..]).into_owned();
        format!("--- the end of {}:\n{tail}\n", self.log.display())
    }
}

impl fmt::Debug for Supervised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} under process {}", self.name, self.shell.id())
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // Closing the pipe ends the program; the shell ends after it.
        drop(self.shell.stdin.take());
        if let Err(error) = self.shell.wait() {
            eprintln!("kube-env: cannot wait for {}: {error}", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn eventually(mut holds: impl FnMut() -> bool) -> bool {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(10) {
            if holds() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    fn id(directory: &Path) -> Option<u32> {
        let log = fs::read_to_string(directory.join("program.log")).ok()?;
        log.lines().next()?.parse().ok()
    }

    #[test]
    fn a_dropped_program_is_gone() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo $$; exec sleep 600"]);
        let program = Supervised::start("program", &command, directory.path()).expect("started");
        assert!(
            eventually(|| id(directory.path()).is_some()),
            "{program:?} says its id"
        );
        let proc = PathBuf::from(format!("/proc/{}", id(directory.path()).expect("said")));
        assert!(proc.exists());
        drop(program);
        assert!(!proc.exists(), "killed, and waited for by its shell");
    }

    #[test]
    fn a_program_that_ends_by_itself_is_noticed_with_its_status_and_its_words() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "echo no such flag; exit 3"]);
        let mut program = Supervised::start("program", &command, directory.path()).expect("started");
        let mut how = None;
        assert!(eventually(|| {
            how = program.ended().expect("asked");
            how.is_some()
        }));
        assert_eq!(how.and_then(|status| status.code()), Some(3));
        assert!(program.log_tail().contains("no such flag"));
    }
}
