//! Reads what `cargo test` prints on standard output.
//!
//! Owns the counts: passed, failed and skipped tests over all test binaries of one run. Assumes libtest's ordinary
//! (pretty) format. Refuses to believe a test binary that announced its tests and never reported a result: it
//! crashed, and none of what it ran counts as passed.
//!
//! A test that finds at run time that it cannot run says so by printing a line `SKIPPED: <why>`; run with
//! `--show-output` it is counted as skipped, not as passed.

use std::ops::AddAssign;

/// How tests ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ran to the end and found nothing wrong.
    pub passed: u64,
    /// Found something wrong.
    pub failed: u64,
    /// Did not run, or said that they could not.
    pub skipped: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// What a run of `cargo test` reported.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Over all test binaries.
    pub counts: Counts,
    /// The names of the tests that failed.
    pub failures: Vec<String>,
    /// `name: why` of the tests that were ignored or skipped themselves.
    pub skips: Vec<String>,
    /// Test binaries that began and never reported a result.
    pub crashed_binaries: u64,
}

/// Takes the output line by line.
#[derive(Debug, Default)]
pub struct Parser {
    summary: Summary,
    /// Between `running N tests` and `test result:`.
    running: bool,
    /// The test whose captured output is being listed.
    listed: Option<String>,
    /// Tests of this binary that said `SKIPPED:`; libtest counts them as passed.
    self_skipped: u64,
}

impl Parser {
    /// Takes one line, without its line end.
    pub fn line(&mut self, line: &str) {
        if let Some(count) = line.strip_prefix("running ") {
            if count.ends_with(" tests") || count.ends_with(" test") {
                self.close_crashed();
                self.running = true;
            }
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.result(result);
        } else if let Some(test) = line.strip_prefix("test ") {
            self.test(test);
        } else if let Some(name) = line
            .strip_prefix("---- ")
            .and_then(|l| l.strip_suffix(" stdout ----"))
        {
            self.listed = Some(name.to_owned());
        } else if let Some(why) = line.strip_prefix("SKIPPED: ")
            && let Some(name) = self.listed.take()
        {
            // `take`: one skip per test, however often it says so.
            self.summary.skips.push(format!("{name}: {why}"));
            self.self_skipped += 1;
        }
    }

    /// The end of the output.
    pub fn finish(mut self) -> Summary {
        self.close_crashed();
        self.summary
    }

    fn test(&mut self, test: &str) {
        let Some((name, outcome)) = test.rsplit_once(" ... ") else {
            return;
        };
        if outcome == "FAILED" {
            self.summary.failures.push(name.to_owned());
        } else if let Some(why) = outcome.strip_prefix("ignored") {
            self.summary.skips.push(format!("{name}: ignored{why}"));
        }
    }

    fn result(&mut self, result: &str) {
        let field = |name: &str| {
            result
                .split([';', '.'])
                .filter_map(|part| part.trim().strip_suffix(name))
                .find_map(|number| number.trim().parse::<u64>().ok())
                .unwrap_or(0)
        };
        let skipped_itself = self.self_skipped.min(field("passed"));
        self.summary.counts += Counts {
            passed: field("passed") - skipped_itself,
            failed: field("failed"),
            skipped: field("ignored") + skipped_itself,
        };
        self.running = false;
        self.self_skipped = 0;
        self.listed = None;
    }

    fn close_crashed(&mut self) {
        self.summary.crashed_binaries += u64::from(self.running);
        self.running = false;
        self.self_skipped = 0;
        self.listed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(output: &str) -> Summary {
        let mut parser = Parser::default();
        output.lines().for_each(|line| parser.line(line));
        parser.finish()
    }

    const TWO_BINARIES: &str = "
running 3 tests
test wire::short_header_is_refused ... ok
test slow ... ignored, takes an hour
test wire::total_length ... FAILED

failures:

---- wire::total_length stdout ----
thread 'wire::total_length' panicked at src/lib.rs:3:5:

failures:
    wire::total_length

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.01s


running 1 test
test src/lib.rs - parse (line 12) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.30s
";

    #[test]
    fn counts_add_up_over_binaries() {
        let summary = parse(TWO_BINARIES);
        assert_eq!(
            summary.counts,
            Counts {
                passed: 2,
                failed: 1,
                skipped: 1
            }
        );
        assert_eq!(summary.failures, ["wire::total_length"]);
        assert_eq!(summary.skips, ["slow: ignored, takes an hour"]);
        assert_eq!(summary.crashed_binaries, 0);
    }

    #[test]
    fn filtered_tests_count_nowhere() {
        let summary = parse(
            "running 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 9 filtered out; \
             finished in 0.00s\n",
        );
        assert_eq!(summary, Summary::default());
    }

    #[test]
    fn a_binary_without_a_result_crashed() {
        // The second binary dies on a signal in its first test; the third is well.
        let summary = parse(
            "running 2 tests\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.0s\n\
             running 5 tests\n\
             running 1 test\n\
             test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.0s\n\
             running 7 tests\n",
        );
        assert_eq!(summary.crashed_binaries, 2);
        assert_eq!(
            summary.counts,
            Counts {
                passed: 3,
                failed: 0,
                skipped: 0
            }
        );
    }

    #[test]
    fn a_test_that_skips_itself_is_not_passed() {
        let summary = parse(
            "running 2 tests\n\
             test netns_macvlan ... ok\n\
             test netns_veth ... ok\n\
             \n\
             successes:\n\
             \n\
             ---- netns_macvlan stdout ----\n\
             SKIPPED: this kernel has no macvlan\n\
             SKIPPED: said twice\n\
             \n\
             ---- netns_veth stdout ----\n\
             4 MiB both ways\n\
             \n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.0s\n",
        );
        assert_eq!(
            summary.counts,
            Counts {
                passed: 1,
                failed: 0,
                skipped: 1
            }
        );
        assert_eq!(summary.skips, ["netns_macvlan: this kernel has no macvlan"]);
    }

    #[test]
    fn what_tests_print_is_not_mistaken_for_results() {
        let summary = parse("running late\nSKIPPED: outside any test\ntest of nothing\n");
        assert_eq!(summary, Summary::default());
    }
}
