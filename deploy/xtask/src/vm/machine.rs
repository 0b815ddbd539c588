//! One boot of a test machine, from power on to power off, and what came of it.
//!
//! Owns the child process: it ends when the machine powers off, when the kernel panics, or when its time is up. What the
//! tests print goes to a file; shown are a line per test and the output of those that failed. Refuses to take silence for
//! success: every test of the plan has to begin and to end, and the machine has to say that it is done.

mod reader;

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, LineWriter, Read, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use self::reader::Reader;
use super::plan::Plan;
use crate::{libtest::Summary, process};

/// Everything that can be emulated, but for what makes the kernel copy memory by one instruction per string: emulated, it goes
/// byte by byte, and loading the programs takes twice as long. Five levels of page tables only cost.
const PROCESSOR: &str = "max,-erms,-fsrm,-la57";

/// What an emulated machine is told about itself, [`Boot::slowness`]; tests read it by the testkit's `effort`.
const SLOWNESS_VARIABLE: &str = "BULKHEAD_SLOWNESS";

/// How long a test may take, in seconds; `init.sh` reads it.
const TEST_SECONDS_VARIABLE: &str = "BULKHEAD_TEST_SECONDS";

/// What is to be booted.
pub struct Boot<'a> {
    /// What lines that are shown begin with, for several machines may run at once.
    pub name: &'a str,
    /// The kernel's image.
    pub kernel: &'a Path,
    /// The initial file system.
    pub initrd: &'a Path,
    /// Where the first serial line goes: kernel messages, standard error of the tests.
    pub console: &'a Path,
    /// Where the second one goes: what the tests print.
    pub log: &'a Path,
    /// How qemu is to make the processor.
    pub accel: &'a [&'a str],
    /// Memory.
    pub memory_mib: u64,
    /// How many times slower than usual the machine is: tests do less and have more patience.
    pub slowness: u32,
    /// When a test is ended.
    pub test_limit: Duration,
    /// When it is over.
    pub timeout: Duration,
}

/// What a machine reported.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The tests.
    pub summary: Summary,
    /// What is wrong besides failed tests.
    pub problems: Vec<String>,
}

/// Boots, and waits for the end.
pub fn run(boot: &Boot<'_>, plan: &Plan) -> Result<Outcome> {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .args(boot.accel)
        .args(["-cpu", PROCESSOR, "-smp", "1"])
        .args(["-m", &boot.memory_mib.to_string()])
        .arg("-serial")
        .arg(format!("file:{}", boot.console.display()))
        .args(["-serial", "stdio", "-kernel"])
        .arg(boot.kernel)
        .arg("-initrd")
        .arg(boot.initrd)
        .args(["-append", &command_line(boot)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    process::echo(&command);
    let unwritable = || format!("cannot write {}", boot.log.display());
    let mut log = LineWriter::new(File::create(boot.log).with_context(unwritable)?);
    let began = Instant::now();
    let mut child = command
        .spawn()
        .context("cannot run `qemu-system-x86_64`: run `cargo xtask setup --vm`")?;
    let lines = read_lines(child.stdout.take().context("child without stdout")?);
    let mut reader = Reader::new(plan, boot.test_limit);
    let mut late = false;
    loop {
        match lines.recv_timeout(boot.timeout.saturating_sub(began.elapsed())) {
            Ok(line) => {
                writeln!(log, "{line}").with_context(unwritable)?;
                if let Some(progress) = reader.line(&line) {
                    println!("{}: {progress}", boot.name);
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                late = true;
                break;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    if late {
        // It may have ended in this very moment.
        let _ended = child.kill();
    }
    child.wait().context("cannot wait for `qemu-system-x86_64`")?;
    log.flush().with_context(unwritable)?;
    let mut outcome = reader.finish();
    if late {
        let seconds = boot.timeout.as_secs();
        outcome.problems.insert(
            0,
            format!("the machine was not done after {seconds} s and was ended"),
        );
    }
    if !outcome.problems.is_empty() {
        print_end(boot);
    }
    Ok(outcome)
}

/// The kernel's parameters. A panic ends the machine at once. Mitigations cost an emulated processor more than a real one and
/// change nothing of what is tested, nor does clearing memory twice. Programs are always at the same addresses, for the emulator keeps
/// what it has translated by address: with others for each process, it was seen at three quarters of its time outside translated code,
/// mostly translating, in a test that starts the command line all the time. What the kernel does not know and has an equals sign
/// becomes init's environment.
fn command_line(boot: &Boot<'_>) -> String {
    format!(
        "console=ttyS0 panic=-1 mitigations=off init_on_alloc=0 norandmaps \
         {SLOWNESS_VARIABLE}={} {TEST_SECONDS_VARIABLE}={}",
        boot.slowness,
        boot.test_limit.as_secs()
    )
}

/// Reads lines in a thread of their own, so that waiting for one can end.
fn read_lines(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut bytes = Vec::new();
        while reader
            .read_until(b'\n', &mut bytes)
            .is_ok_and(|length| length > 0)
        {
            let line = String::from_utf8_lossy(&bytes);
            if sender
                .send(line.trim_end_matches(['\n', '\r']).to_owned())
                .is_err()
            {
                return;
            }
            bytes.clear();
        }
    });
    lines
}

/// The last of what the kernel said.
fn print_end(boot: &Boot<'_>) {
    let bytes = fs::read(boot.console).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let mut shown = format!("{}: the console, {}, ends in:", boot.name, boot.console.display());
    for line in lines.iter().skip(lines.len().saturating_sub(40)) {
        shown.push_str("\n  ");
        shown.push_str(line.trim_end());
    }
    println!("{shown}");
}
