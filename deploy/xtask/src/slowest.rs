//! Which tests took longest.
//!
//! Owns the time between one test's result and the next. Assumes that tests run one at a time and that a result is read when it is
//! printed; refuses nothing, for nobody is judged by it: it tells a maintainer where a tier's minutes went.

use std::time::Duration;

/// How many are named.
const NAMED: usize = 5;

/// Takes a run's output line by line, with the time since the run began.
#[derive(Debug, Default)]
pub struct Slowest {
    /// When the test that is running began.
    since: Duration,
    /// The slowest so far, slowest first.
    tests: Vec<(Duration, String)>,
}

impl Slowest {
    /// Takes one line, without its line end.
    pub fn line(&mut self, line: &str, now: Duration) {
        if line.starts_with("running ") {
            self.since = now;
        } else if let Some((name, "ok" | "FAILED")) = line
            .strip_prefix("test ")
            .and_then(|test| test.rsplit_once(" ... "))
        {
            let took = now.saturating_sub(self.since);
            let place = self.tests.partition_point(|(other, _)| *other >= took);
            self.tests.insert(place, (took, name.to_owned()));
            self.tests.truncate(NAMED);
            self.since = now;
        }
    }

    /// One line that names them, or nothing when no test ran.
    pub fn note(&self) -> Option<String> {
        let named: Vec<_> = self
            .tests
            .iter()
            .map(|(took, name)| format!("{name} {:.1} s", took.as_secs_f64()))
            .collect();
        (!named.is_empty()).then(|| format!("slowest: {}", named.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_to_the_test_that_ends() {
        let mut slowest = Slowest::default();
        let output = [
            (90.0, "   Compiling all of it"),
            (100.0, "running 3 tests"),
            (101.5, "test netns_a ... ok"),
            (102.0, "what a test prints"),
            (109.5, "test netns_b ... FAILED"),
            (109.5, "test netns_c ... ignored, takes an hour"),
            (109.6, "test result: FAILED. 1 passed; 1 failed"),
            (200.0, "running 1 test"),
            (203.0, "test netns_d ... ok"),
        ];
        for (seconds, line) in output {
            slowest.line(line, Duration::from_secs_f64(seconds));
        }
        assert_eq!(
            slowest.note().as_deref(),
            Some("slowest: netns_b 8.0 s, netns_d 3.0 s, netns_a 1.5 s")
        );
    }

    #[test]
    fn five_are_named() {
        let mut slowest = Slowest::default();
        assert_eq!(slowest.note(), None);
        for test in 1..9_u8 {
            slowest.line(
                &format!("test t{test} ... ok"),
                Duration::from_secs(u64::from(test).pow(2)),
            );
        }
        let names: Vec<_> = slowest.tests.iter().map(|(_, name)| name.as_str()).collect();
        assert_eq!(names, ["t8", "t7", "t6", "t5", "t4"]);
    }
}
