//! What a test machine says, line by line: `init.sh` which test begins and ends, and when; libtest what came of it.
//!
//! Owns which tests of the plan have reported. Assumes one test at a time. A test that ended otherwise than libtest ends one,
//! on a signal or because its time was up, is a failed test.

use std::time::Duration;

use super::Outcome;
use crate::{
    libtest::{Parser, Summary},
    vm::plan::Plan,
};

/// As a shell reports a process that was ended by SIGKILL.
const KILLED: i32 = 128 + 9;

/// What libtest ends with: all well, or tests failed.
const REPORTED: [i32; 2] = [0, 101];

/// Takes the lines.
pub struct Reader<'a> {
    plan: &'a Plan,
    limit: Duration,
    /// The running test: its number, when it began, and what it printed.
    running: Option<(usize, u64, Vec<String>)>,
    summary: Summary,
    ended: usize,
    done: bool,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    /// `limit`: when the machine ends a test.
    pub fn new(plan: &'a Plan, limit: Duration) -> Self {
        Self {
            plan,
            limit,
            running: None,
            summary: Summary::default(),
            ended: 0,
            done: false,
            problems: Vec::new(),
        }
    }

    /// Takes one line, and returns what a person wants to see of it.
    pub fn line(&mut self, line: &str) -> Option<String> {
        let Some(said) = line.strip_prefix("vm: ") else {
            if let Some((_, _, output)) = &mut self.running {
                output.push(line.to_owned());
            }
            return None;
        };
        let words: Vec<_> = said.split(' ').collect();
        match words[..] {
            ["begin", number, uptime] => {
                self.running = Some((number.parse().ok()?, uptime.parse().ok()?, Vec::new()));
                None
            }
            ["end", _, status, uptime] => self.end(status.parse().ok()?, uptime.parse().ok()?),
            ["done"] => {
                self.done = true;
                None
            }
            ["module", ..] => {
                self.problems.push(said.to_owned());
                None
            }
            _ => Some(said.to_owned()),
        }
    }

    /// A test's process has ended.
    fn end(&mut self, status: i32, uptime: u64) -> Option<String> {
        let (number, began, output) = self.running.take()?;
        let (binary, test) = self.plan.tests().nth(number)?;
        let seconds = uptime.saturating_sub(began);
        self.ended += 1;
        let mut parser = Parser::default();
        output.iter().for_each(|line| parser.line(line));
        let mut summary = parser.finish();
        let file = binary.executable.file_name().unwrap_or_default().display();
        if !REPORTED.contains(&status) {
            let why = if status == KILLED && seconds >= self.limit.as_secs() {
                format!("not done after {seconds} s and ended")
            } else {
                format!("{file} ended with status {status}")
            };
            // Whatever it had reported before: this is its result.
            summary = Summary::default();
            summary.counts.failed = 1;
            summary.failures.push(format!("{test}: {why}"));
        }
        let counts = summary.counts;
        if counts.passed + counts.failed + counts.skipped != 1 {
            self.problems.push(format!("{file} did not run {test}"));
        }
        let outcome = match counts {
            _ if counts.failed > 0 => "FAILED",
            _ if counts.skipped > 0 => "skipped",
            _ => "ok",
        };
        let (place, all) = (number + 1, self.plan.tests().count());
        let mut shown = format!("{place}/{all} {test} ... {outcome}, {seconds} s");
        if counts.failed > 0 {
            for line in &output {
                shown.push_str("\n  ");
                shown.push_str(line);
            }
        }
        self.summary.counts += counts;
        self.summary.failures.extend(summary.failures);
        self.summary.skips.extend(summary.skips);
        Some(shown)
    }

    /// The machine is off.
    pub fn finish(self) -> Outcome {
        let mut problems = self.problems;
        if let Some((number, ..)) = self.running
            && let Some((_, test)) = self.plan.tests().nth(number)
        {
            problems.push(format!("the machine ended in {test}"));
        }
        if !self.done {
            problems.push("the machine died before all tests had run".to_owned());
        }
        let tests = self.plan.tests().count();
        if self.ended != tests {
            problems.push(format!("{} tests reported a result, {tests} were to", self.ended));
        }
        Outcome {
            summary: self.summary,
            problems,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::vm::plan::Binary;

    fn plan() -> Plan {
        let binary = |name: &str, tests: &[&str]| Binary {
            executable: PathBuf::from(name),
            directory: PathBuf::new(),
            tests: tests.iter().map(|name| (*name).to_owned()).collect(),
        };
        Plan {
            binaries: vec![
                binary("/t/netns_nat", &["a"]),
                binary("/t/netns_tcp", &["b", "c"]),
            ],
            ..Plan::default()
        }
    }

    fn read(output: &str) -> (Vec<String>, Outcome) {
        let plan = plan();
        let mut reader = Reader::new(&plan, Duration::from_secs(60));
        let shown = output.lines().filter_map(|line| reader.line(line)).collect();
        (shown, reader.finish())
    }

    fn one(test: &str, outcome: &str) -> String {
        let (passed, failed) = if outcome == "ok" { (1, 0) } else { (0, 1) };
        format!(
            "running 1 test\ntest {test} ... {outcome}\ntest result: {outcome}. {passed} passed; {failed} failed; 0 ignored; \
             0 measured; 3 filtered out; finished in 0.01s\n"
        )
    }

    #[test]
    fn a_whole_run_is_believed() {
        let (a, b, c) = (one("a", "ok"), one("b", "FAILED"), one("c", "ok"));
        let (shown, outcome) = read(&format!(
            "vm: kernel 6.1\nvm: begin 0 4\n{a}vm: end 0 0 7\nvm: begin 1 7\n{b}vm: end 1 101 8\nvm: begin 2 8\n{c}vm: end 2 0 9\n\
             vm: done\n"
        ));
        assert_eq!(outcome.problems, Vec::<String>::new());
        assert_eq!(
            (outcome.summary.counts.passed, outcome.summary.counts.failed),
            (2, 1)
        );
        assert_eq!(outcome.summary.failures, ["b"]);
        assert_eq!(shown[..2], ["kernel 6.1", "1/3 a ... ok, 3 s"]);
        assert!(
            shown[2].starts_with("2/3 b ... FAILED, 1 s\n  running 1 test\n"),
            "what a failed test printed is shown: {}",
            shown[2]
        );
    }

    #[test]
    fn a_machine_that_dies_is_not_believed() {
        let a = one("a", "ok");
        let (_, outcome) = read(&format!(
            "vm: begin 0 4\n{a}vm: end 0 0 7\nvm: begin 1 7\nrunning 1 test\n"
        ));
        assert_eq!(
            outcome.problems,
            [
                "the machine ended in b",
                "the machine died before all tests had run",
                "1 tests reported a result, 3 were to",
            ]
        );
        assert!(!read("").1.problems.is_empty());
    }

    #[test]
    fn a_hang_and_a_crash_are_failed_tests_with_names() {
        let b = one("b", "ok");
        let (_, outcome) = read(&format!(
            "vm: begin 0 4\nrunning 1 test\ntest a ... \nvm: end 0 137 64\nvm: begin 1 64\n{b}vm: end 1 139 65\nvm: begin 2 65\n\
             vm: end 2 0 66\nvm: done\n"
        ));
        assert_eq!(
            outcome.summary.failures,
            [
                "a: not done after 60 s and ended",
                "b: netns_tcp ended with status 139"
            ]
        );
        assert_eq!(
            (outcome.summary.counts.passed, outcome.summary.counts.failed),
            (0, 2)
        );
        // And one that says nothing has not passed.
        assert_eq!(outcome.problems, ["netns_tcp did not run c"]);
    }

    #[test]
    fn a_module_that_does_not_load_is_a_problem() {
        let (_, outcome) = read("vm: module veth does not load\n");
        assert_eq!(outcome.problems[0], "module veth does not load");
    }
}
