//! Which tiers run, and what counts as a failure.

use super::*;
use crate::libtest::Counts;

const ROOT: Circumstances = Circumstances {
    ci: false,
    root: true,
    cargo_fuzz: true,
    skip_privileged: false,
};

fn all(now: Circumstances) -> Vec<Decision> {
    decide(Tier::AllDefault, now)
        .expect("accepted")
        .into_iter()
        .map(|(_, decision)| decision)
        .collect()
}

#[test]
fn root_runs_everything() {
    assert_eq!(all(ROOT), vec![Decision::Run; 6]);
}

#[test]
fn a_plain_user_fails_unless_the_privileged_tests_are_left_out_by_name() {
    let user = Circumstances { root: false, ..ROOT };
    for tier in [1, 2, 3, 4] {
        assert!(matches!(&all(user)[tier], Decision::Refuse(why) if why.contains("--skip-privileged")));
        let skipping = Circumstances {
            skip_privileged: true,
            ..user
        };
        assert!(matches!(&all(skipping)[tier], Decision::Skip(_)));
    }
}

#[test]
fn continuous_integration_skips_nothing() {
    let ci = Circumstances {
        ci: true,
        cargo_fuzz: false,
        ..ROOT
    };
    assert_eq!(all(ci), vec![Decision::Run; 6], "setup brings cargo-fuzz");
    let error = decide(
        Tier::AllDefault,
        Circumstances {
            skip_privileged: true,
            ..ci
        },
    )
    .expect_err("refused");
    assert!(error.to_string().contains("CI=true"), "{error}");
}

#[test]
fn without_cargo_fuzz_a_developer_is_told_and_an_explicit_fuzz_run_installs_it() {
    let now = Circumstances {
        cargo_fuzz: false,
        ..ROOT
    };
    assert!(matches!(&all(now)[5], Decision::Skip(why) if why.contains("setup --fuzz")));
    assert_eq!(
        decide(Tier::Fuzz, now).expect("accepted"),
        [(Tier::Fuzz, Decision::Run)]
    );
}

#[test]
fn one_tier_is_one_tier() {
    let user = Circumstances { root: false, ..ROOT };
    assert_eq!(
        decide(Tier::Unit, user).expect("accepted"),
        [(Tier::Unit, Decision::Run)]
    );
    assert_eq!(
        decide(Tier::Attack, ROOT).expect("accepted"),
        [(Tier::Attack, Decision::Run)]
    );
    for tier in [Tier::Privileged, Tier::Attack, Tier::Kube, Tier::Docker, Tier::Vm] {
        let contradiction = Circumstances {
            skip_privileged: true,
            ..ROOT
        };
        assert!(decide(tier, contradiction).is_err());
    }
}

#[test]
fn failing_to_compile_is_a_problem() {
    let report = tier_report(Tier::Unit.name(), &Summary::default(), false);
    assert_eq!(report.problems.len(), 1);
}

#[test]
fn a_failed_test_is_counted_once() {
    let counts = Counts {
        passed: 3,
        failed: 1,
        skipped: 0,
    };
    let summary = Summary {
        counts,
        failures: vec!["a::b".to_owned()],
        ..Summary::default()
    };
    let report = tier_report(Tier::Unit.name(), &summary, false);
    assert_eq!(report.counts, counts);
    assert_eq!(report.problems, [""; 0]);
    assert_eq!(report.notes, ["failed: a::b"]);
}

#[test]
fn skipped_tests_alone_are_no_run() {
    let counts = Counts {
        passed: 0,
        failed: 0,
        skipped: 4,
    };
    let report = require_tests(tier_report(
        Tier::Privileged.name(),
        &Summary {
            counts,
            ..Summary::default()
        },
        true,
    ));
    assert_eq!(report.problems, ["no test ran"]);
}

#[test]
fn a_failure_that_does_not_come_again_is_named_and_no_failure() {
    let failing = || {
        let summary = Summary {
            counts: Counts {
                passed: 7,
                failed: 1,
                skipped: 0,
            },
            failures: vec!["netns_late".to_owned()],
            ..Summary::default()
        };
        (tier_report("privileged", &summary, false), summary.failures)
    };
    let again = |passed, failed| TierReport {
        counts: Counts {
            passed,
            failed,
            skipped: 0,
        },
        ..TierReport::new("privileged")
    };
    let (report, failures) = failing();
    let steady = repeated(report, again(1, 0), &failures);
    assert_eq!((steady.counts.passed, steady.counts.failed), (8, 0));
    let text = report::render(&[steady]);
    assert!(
        text.contains("privileged: UNSTEADY: netns_late: failed, and"),
        "{text}"
    );
    // It failed again, or it did not run, or something else failed.
    for outcome in [again(0, 1), again(0, 0), again(2, 0)] {
        let (report, failures) = failing();
        let report = repeated(report, outcome, &failures);
        assert_eq!((report.counts.passed, report.counts.failed), (7, 1));
        let text = report::render(&[report]);
        assert!(
            text.contains("failed: netns_late") && !text.contains("UNSTEADY"),
            "{text}"
        );
    }
}
