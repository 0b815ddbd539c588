//! What each program costs the verifier, against `verifier-budget.txt`: a change that makes the kernel walk a fifth more
//! (or less) instructions does not go unnoticed.
//!
//! The number is the kernel's `verified_insns`, which depends on its version too: the file has one section per
//! kernel series, and a series it does not know yet is measured against the section before it. The kernel refuses a
//! program at 1,000,000.

use std::collections::BTreeMap;

use bulkhead_dataplane::bpf::{Object, Sizes};
use bulkhead_testkit::privileged;

/// Of the recorded number, either way.
const TOLERANCE_PERCENT: u64 = 20;

const FILE: &str = "dataplane/tests/verifier-budget.txt";

/// Kernel series, such as 6.18.
type Series = (u32, u32);

/// `[6.18]` starts a section, `name count` is a line of it, `#` a comment.
fn budgets(text: &str) -> BTreeMap<Series, BTreeMap<String, u64>> {
    let mut sections: BTreeMap<Series, BTreeMap<String, u64>> = BTreeMap::new();
    let mut current = None;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let section = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
            .and_then(series);
        if let Some(series) = section {
            sections.entry(series).or_default();
            current = Some(series);
            continue;
        }
        let entry = line
            .split_once(' ')
            .and_then(|(name, count)| Some((name, count.trim().parse().ok()?)));
        match (entry, current) {
            (Some((name, count)), Some(series)) => {
                sections.entry(series).or_default().insert(name.to_owned(), count);
            }
            _ => panic!(
                "{FILE}:{}: neither `[series]` nor `program count`: {line}",
                number + 1
            ),
        }
    }
    sections
}

/// The first two numbers of a version.
fn series(version: &str) -> Option<Series> {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next()?, numbers.next()?) {
        (Ok(major), Ok(minor)) => Some((major, minor)),
        _ => None,
    }
}

/// What is wrong with a count, and what to do.
fn judge(program: &str, recorded: u64, measured: u64) -> Option<String> {
    let (least, most) = (
        recorded * (100 - TOLERANCE_PERCENT) / 100,
        recorded * (100 + TOLERANCE_PERCENT) / 100,
    );
    let what = if measured > most {
        "costs the verifier more: find out which change did it; if it is worth it"
    } else if measured < least {
        "costs the verifier less: make that the new measure"
    } else {
        return None;
    };
    Some(format!(
        "{program}: {measured} instructions verified, {recorded} recorded ({least} to {most} allowed). It {what}: write \
         `{program} {measured}` into {FILE}"
    ))
}

#[test]
fn prog_run_verified_instructions_stay_in_budget() {
    if !privileged() {
        return;
    }
    let sizes = Sizes {
        sessions: 1,
        half_open: 1,
        rules: 1,
        addresses: 1,
        routes: 1,
        neighbours: 1,
    };
    let mut object = Object::load(&sizes).expect("the kernel takes the object");
    let measured = object.verified_instructions().expect("the kernel counts");
    let release = nix::sys::utsname::uname()
        .expect("uname")
        .release()
        .to_string_lossy()
        .into_owned();
    let running = series(&release).unwrap_or_else(|| panic!("kernel release {release}"));
    let sections = budgets(include_str!("verifier-budget.txt"));
    let (known, budget) = sections
        .range(..=running)
        .next_back()
        .or_else(|| sections.first_key_value())
        .unwrap_or_else(|| panic!("{FILE} has no section"));
    println!(
        "kernel {release}, measured against section [{}.{}]: {measured:?}",
        known.0, known.1
    );
    let mut wrong = Vec::new();
    for (program, count) in &measured {
        match budget.get(*program) {
            Some(recorded) => wrong.extend(judge(program, *recorded, u64::from(*count))),
            None => wrong.push(format!(
                "{program}: not recorded: write `{program} {count}` into {FILE}"
            )),
        }
    }
    for program in budget
        .keys()
        .filter(|name| !measured.iter().any(|(program, _)| program == name))
    {
        wrong.push(format!("{program}: no such program: remove it from {FILE}"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_budget_fails_both_ways() {
    assert_eq!(judge("p", 100, 120), None);
    assert_eq!(judge("p", 100, 80), None);
    assert!(judge("p", 100, 121).is_some_and(|what| what.contains("more") && what.contains("`p 121`")));
    assert!(judge("p", 100, 79).is_some_and(|what| what.contains("less")));
    assert_eq!(series("6.18.44-custom"), Some((6, 18)));
}
