//! One boot of a test machine, from power on to power off, and what came of it.
//!
//! Owns the child process: it ends when the machine powers off, when the kernel panics, or when its time is up. Refuses to
//! take silence for success: every test binary of the plan has to begin and to end, and the machine has to say that it is
//! done.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::plan::Plan;
use crate::{
    libtest::{Parser, Summary},
    process,
};

/// Everything that can be emulated, but for what makes the kernel copy memory by one instruction per string: emulated, it goes
/// byte by byte, and loading the programs takes twice as long. Five levels of page tables only cost.
const PROCESSOR: &str = "max,-erms,-fsrm,-la57";

/// What is to be booted.
pub struct Boot<'a> {
    /// The kernel's image.
    pub kernel: &'a Path,
    /// The initial file system.
    pub initrd: &'a Path,
    /// Where the first serial line goes: kernel messages, standard error of the tests.
    pub console: &'a Path,
    /// `tcg` or `kvm`.
    pub accel: &'a str,
    /// Memory.
    pub memory_mib: u64,
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
        .args(["-accel", boot.accel, "-cpu", PROCESSOR, "-smp", "1"])
        .args(["-m", &boot.memory_mib.to_string()])
        .arg("-serial")
        .arg(format!("file:{}", boot.console.display()))
        .args(["-serial", "stdio", "-kernel"])
        .arg(boot.kernel)
        .arg("-initrd")
        .arg(boot.initrd)
        .args(["-append", &command_line(boot.accel)])
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    process::echo(&command);
    let began = Instant::now();
    let mut child = command
        .spawn()
        .context("cannot run `qemu-system-x86_64`: run `cargo xtask setup --vm`")?;
    let lines = read_lines(child.stdout.take().context("child without stdout")?);
    let mut reader = Reader::new(plan);
    let mut late = false;
    loop {
        match lines.recv_timeout(boot.timeout.saturating_sub(began.elapsed())) {
            Ok(line) => {
                println!("{line}");
                reader.line(&line);
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
    let mut outcome = reader.finish();
    if late {
        let seconds = boot.timeout.as_secs();
        outcome.problems.insert(
            0,
            format!("the machine was not done after {seconds} s and was ended"),
        );
    }
    if !outcome.problems.is_empty() {
        print_end(boot.console);
    }
    Ok(outcome)
}

/// The kernel's parameters. A panic ends the machine at once. Mitigations cost an emulated processor more than a real one and
/// change nothing of what is tested. What the kernel does not know and has an equals sign becomes init's environment: clients of
/// the testkit have more patience (its `SLOWNESS_VARIABLE`).
fn command_line(accel: &str) -> String {
    let slowness = if accel == "tcg" { 4 } else { 1 };
    format!("console=ttyS0 panic=-1 mitigations=off BULKHEAD_SLOWNESS={slowness}")
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
fn print_end(console: &Path) {
    let bytes = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    println!("the machine's console, {}, ends in:", console.display());
    for line in lines.iter().skip(lines.len().saturating_sub(40)) {
        println!("  {}", line.trim_end());
    }
}

/// Reads what `init.sh` and the tests print.
struct Reader<'a> {
    plan: &'a Plan,
    parser: Parser,
    ended: Vec<Option<i32>>,
    done: bool,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            parser: Parser::default(),
            ended: vec![None; plan.binaries.len()],
            done: false,
            problems: Vec::new(),
        }
    }

    fn line(&mut self, line: &str) {
        let Some(said) = line.strip_prefix("vm: ") else {
            self.parser.line(line);
            return;
        };
        let mut words = said.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some("end"), Some(number), Some(status)) => {
                let ended = number
                    .parse::<usize>()
                    .ok()
                    .and_then(|number| self.ended.get_mut(number));
                if let (Some(ended), Ok(status)) = (ended, status.parse()) {
                    *ended = Some(status);
                }
            }
            (Some("done"), ..) => self.done = true,
            (Some("module"), ..) => self.problems.push(said.to_owned()),
            _ => {}
        }
    }

    fn finish(self) -> Outcome {
        let summary = self.parser.finish();
        let mut problems = self.problems;
        for (binary, ended) in self.plan.binaries.iter().zip(&self.ended) {
            let name = binary.executable.file_name().unwrap_or_default().display();
            match ended {
                // 101 is libtest's own for tests that failed.
                Some(0 | 101) => {}
                Some(status) => problems.push(format!("{name} ended with status {status}")),
                None => problems.push(format!("{name} did not come to its end")),
            }
        }
        if !self.done {
            problems.push("the machine died before all tests had run".to_owned());
        }
        let counts = summary.counts;
        let ran = counts.passed + counts.failed + counts.skipped;
        if ran != self.plan.tests() {
            problems.push(format!(
                "{ran} tests reported a result, {} were to",
                self.plan.tests()
            ));
        }
        if !summary.failures.is_empty() && counts.failed == 0 {
            problems.push(format!(
                "failed without a result: {}",
                summary.failures.join(", ")
            ));
        }
        Outcome { summary, problems }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::vm::plan::Binary;

    fn plan() -> Plan {
        let binary = |name: &str, tests| Binary {
            executable: PathBuf::from(name),
            directory: PathBuf::new(),
            arguments: Vec::new(),
            tests,
        };
        Plan {
            binaries: vec![binary("/t/netns_nat", 1), binary("/t/netns_tcp", 2)],
            ..Plan::default()
        }
    }

    fn read(output: &str) -> Outcome {
        let plan = plan();
        let mut reader = Reader::new(&plan);
        output.lines().for_each(|line| reader.line(line));
        reader.finish()
    }

    const FIRST: &str = "vm: kernel 6.1\nvm: begin 0\nrunning 1 test\ntest netns_nat ... ok\ntest result: ok. 1 passed; 0 failed; \
                         0 ignored; 0 measured; 0 filtered out; finished in 0.01s\nvm: end 0 0\n";

    #[test]
    fn a_whole_run_is_believed() {
        let second = "vm: begin 1\nrunning 2 tests\ntest a ... ok\ntest b ... FAILED\ntest result: FAILED. 1 passed; 1 failed; \
                      0 ignored; 0 measured; 0 filtered out; finished in 0.01s\nvm: end 1 101\nvm: done\n";
        let outcome = read(&format!("{FIRST}{second}"));
        assert_eq!(outcome.problems, Vec::<String>::new());
        assert_eq!(
            (outcome.summary.counts.passed, outcome.summary.counts.failed),
            (2, 1)
        );
    }

    #[test]
    fn a_machine_that_dies_is_not_believed() {
        let outcome = read(&format!("{FIRST}vm: begin 1\nrunning 2 tests\ntest a ... ok\n"));
        assert_eq!(
            outcome.problems,
            [
                "netns_tcp did not come to its end",
                "the machine died before all tests had run",
                "1 tests reported a result, 3 were to",
            ]
        );
        assert_eq!(outcome.summary.crashed_binaries, 1);
        assert!(!read("").problems.is_empty());
    }

    #[test]
    fn a_module_that_does_not_load_and_a_crash_are_problems() {
        let outcome = read(&format!(
            "vm: module veth does not load\n{FIRST}vm: begin 1\nvm: end 1 139\nvm: done\n"
        ));
        assert_eq!(
            outcome.problems,
            [
                "module veth does not load",
                "netns_tcp ended with status 139",
                "1 tests reported a result, 3 were to",
            ]
        );
    }
}
