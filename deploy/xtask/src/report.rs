//! The table at the end of `cargo xtask test`, and the verdict.
//!
//! Owns how tiers add up: a tier's problem (nothing ran, a test binary crashed, a namespace was left behind) counts
//! as one failure, a tier that was skipped as one skip, so that the last line never looks better than the run was.

use std::{fmt::Write as _, process::ExitCode, time::Duration};

use crate::libtest::Counts;

/// What became of one tier.
#[derive(Debug)]
pub struct TierReport {
    /// Its name on the command line.
    pub tier: &'static str,
    /// Its tests.
    pub counts: Counts,
    /// How long it took, compilation included.
    pub took: Duration,
    /// What is wrong besides failed tests; each counts as a failure.
    pub problems: Vec<String>,
    /// Names of failed, skipped and slow tests.
    pub notes: Vec<String>,
    /// Why the whole tier did not run.
    pub skipped: Option<String>,
}

impl TierReport {
    /// A tier that has not run yet.
    pub fn new(tier: &'static str) -> Self {
        Self {
            tier,
            counts: Counts::default(),
            took: Duration::ZERO,
            problems: Vec::new(),
            notes: Vec::new(),
            skipped: None,
        }
    }

    fn totals(&self) -> Counts {
        let mut totals = self.counts;
        totals.failed += self.problems.len() as u64;
        totals.skipped += u64::from(self.skipped.is_some());
        totals
    }
}

/// Failure if anything failed.
pub fn verdict(tiers: &[TierReport]) -> ExitCode {
    if totals(tiers).failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The table; its last line is `N passed, N failed`, followed by `, N skipped` if there were any.
pub fn render(tiers: &[TierReport]) -> String {
    let mut text = String::from("\n");
    for tier in tiers {
        for note in &tier.notes {
            writeln!(text, "{}: {note}", tier.tier).expect("writing to a string");
        }
        for problem in &tier.problems {
            writeln!(text, "{}: PROBLEM: {problem}", tier.tier).expect("writing to a string");
        }
        if let Some(why) = &tier.skipped {
            writeln!(text, "{}: SKIPPED: {why}", tier.tier).expect("writing to a string");
        }
    }
    writeln!(
        text,
        "\n{:<11} {:>7} {:>7} {:>8} {:>8}",
        "tier", "passed", "failed", "skipped", "seconds"
    )
    .expect("writing to a string");
    for tier in tiers {
        let Counts {
            passed,
            failed,
            skipped,
        } = tier.totals();
        let took = tier.took.as_secs_f64();
        writeln!(
            text,
            "{:<11} {passed:>7} {failed:>7} {skipped:>8} {took:>8.1}",
            tier.tier
        )
        .expect("writing to a string");
    }
    let Counts {
        passed,
        failed,
        skipped,
    } = totals(tiers);
    write!(text, "\n{passed} passed, {failed} failed").expect("writing to a string");
    if skipped > 0 {
        write!(text, ", {skipped} skipped").expect("writing to a string");
    }
    text
}

fn totals(tiers: &[TierReport]) -> Counts {
    let mut sum = Counts::default();
    tiers.iter().for_each(|tier| sum += tier.totals());
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(tier: &'static str, passed: u64, failed: u64) -> TierReport {
        TierReport {
            counts: Counts {
                passed,
                failed,
                skipped: 0,
            },
            ..TierReport::new(tier)
        }
    }

    fn last_line(tiers: &[TierReport]) -> String {
        render(tiers).lines().last().expect("a last line").to_owned()
    }

    #[test]
    fn all_is_well() {
        let tiers = [tier("unit", 40, 0), tier("privileged", 12, 0)];
        assert_eq!(last_line(&tiers), "52 passed, 0 failed");
        assert_eq!(
            format!("{:?}", verdict(&tiers)),
            format!("{:?}", ExitCode::SUCCESS)
        );
    }

    #[test]
    fn a_problem_is_a_failure_even_when_every_test_passed() {
        let mut privileged = tier("privileged", 12, 0);
        privileged.problems.push("left behind: bht-web".to_owned());
        let tiers = [tier("unit", 40, 0), privileged];
        assert_eq!(last_line(&tiers), "52 passed, 1 failed");
        assert_eq!(
            format!("{:?}", verdict(&tiers)),
            format!("{:?}", ExitCode::FAILURE)
        );
        assert!(render(&tiers).contains("privileged: PROBLEM: left behind: bht-web"));
    }

    #[test]
    fn a_skipped_tier_shows_in_the_last_line() {
        let mut privileged = tier("privileged", 0, 0);
        privileged.skipped = Some("asked for".to_owned());
        let tiers = [tier("unit", 40, 1), privileged];
        assert_eq!(last_line(&tiers), "40 passed, 1 failed, 1 skipped");
        assert!(render(&tiers).contains("privileged: SKIPPED: asked for"));
    }
}
