//! What the README says of a run, made from the run's JSON and from nothing else: the table of promises, which run it
//! was, and how Bulkhead stands against the others' own best.
//!
//! It stands between two marks, the first of which names the JSON. A promise that the run did not judge is in the
//! table too, as not measured.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::standing::{self, RecordedRatio};
use crate::promises::{Definition, PROMISES, Target};

const BEGIN: &str = "<!-- promises:begin: ";
const BEGIN_ENDS: &str = " -->\n";
const END: &str = "<!-- promises:end -->";

/// What is needed of the JSON.
#[derive(Debug, Deserialize)]
struct Recorded {
    environment: RecordedEnvironment,
    method: RecordedMethod,
    promises: Vec<RecordedPromise>,
    ratios: Vec<RecordedRatio>,
}

/// Where it was measured.
#[derive(Debug, Deserialize)]
struct RecordedEnvironment {
    date: String,
    commit: String,
}

/// How it was measured.
#[derive(Debug, Deserialize)]
struct RecordedMethod {
    rounds: usize,
    seconds: f64,
    took_seconds: u64,
}

/// A promise as a run judged it.
#[derive(Debug, Deserialize)]
struct RecordedPromise {
    id: String,
    target: f64,
    measured: f64,
    spread: [f64; 2],
    met: bool,
}

/// All that the README says of a run.
pub fn section(json: &str) -> Result<String> {
    let recorded: Recorded = serde_json::from_str(json).context("not the JSON of a run")?;
    let (environment, method) = (&recorded.environment, &recorded.method);
    let day = environment.date.get(..10).unwrap_or(&environment.date);
    Ok(format!(
        "{}\nRun of {day} at commit `{}`: {} interleaved rounds of {} s, {} minutes in all.\n\n{}",
        table(&recorded),
        environment.commit,
        method.rounds,
        method.seconds,
        method.took_seconds.div_ceil(60),
        standing::text(&recorded.ratios)?
    ))
}

/// The table of promises.
fn table(recorded: &Recorded) -> String {
    let mut text =
        String::from("| what | against | target | measured (min – max) | reached |\n|---|---|---|---|---|\n");
    for definition in &PROMISES {
        let found = recorded
            .promises
            .iter()
            .find(|promise| promise.id == definition.id && promise.target == target(definition));
        let (measured, reached) = found.map_or_else(
            || ("not measured".to_owned(), "–"),
            |promise| {
                (
                    figure(definition.unit, promise),
                    if promise.met { "yes" } else { "no" },
                )
            },
        );
        let sign = match definition.target {
            Target::AtLeast(_) => "≥",
            Target::AtMost(_) => "≤",
        };
        let goal = match definition.unit {
            "ratio" => format!("{sign} {:?} ×", target(definition)),
            unit => format!("{sign} {} {unit}", target(definition)),
        };
        text += &format!(
            "| {} | {} | {goal} | {measured} | {reached} |\n",
            definition.what, definition.against
        );
    }
    text
}

const fn target(definition: &Definition) -> f64 {
    match definition.target {
        Target::AtLeast(target) | Target::AtMost(target) => target,
    }
}

fn figure(unit: &str, promise: &RecordedPromise) -> String {
    let [min, max] = promise.spread;
    let (sign, decimals) = match unit {
        "ratio" => ("×", 2),
        unit if promise.measured < 10.0 && unit == "ms" => (unit, 2),
        unit => (unit, 0),
    };
    format!(
        "{:.decimals$} {sign} ({min:.decimals$} – {max:.decimals$})",
        promise.measured
    )
}

/// What stands between the marks at present, and the name of the JSON it is made from.
fn marked(readme: &str) -> Result<(&str, &str)> {
    let (_, rest) = readme
        .split_once(BEGIN)
        .with_context(|| format!("no line begins with {BEGIN}"))?;
    let (json, rest) = rest
        .split_once(BEGIN_ENDS)
        .context("the first mark does not end")?;
    let (section, _) = rest
        .split_once(END)
        .with_context(|| format!("no line is {END}"))?;
    Ok((json, section))
}

/// Puts what `json`, a path inside the repository, says into the README.
pub fn update(repository: &Path, json: &str) -> Result<()> {
    let path = repository.join("README.md");
    let readme = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let recorded =
        fs::read_to_string(repository.join(json)).with_context(|| format!("cannot read {json}"))?;
    let (old_json, old_section) = marked(&readme)?;
    let old = format!("{BEGIN}{old_json}{BEGIN_ENDS}{old_section}{END}");
    let new = format!("{BEGIN}{json}{BEGIN_ENDS}{}{END}", section(&recorded)?);
    fs::write(&path, readme.replace(&old, &new)).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run's JSON with these promises.
    fn json(promises: &str) -> String {
        format!(
            r#"{{ "environment": {{ "date": "2026-01-02T03:04:05Z", "commit": "0123456789ab-dirty" }},
                "method": {{ "rounds": 3, "seconds": 0.5, "took_seconds": 601 }},
                "promises": [{promises}], "ratios": [] }}"#
        )
    }

    #[test]
    fn the_readme_says_what_its_json_says() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let readme = fs::read_to_string(repository.join("README.md")).expect("a README");
        let (json, present) = marked(&readme).expect("a marked section");
        let recorded = fs::read_to_string(repository.join(json)).expect("the JSON it names");
        assert_eq!(
            present,
            section(&recorded).expect("a section"),
            "run `cargo xtask bench --readme {json}`"
        );
    }

    #[test]
    fn every_promise_is_a_row_measured_or_not() {
        let json = json(
            r#"{ "id": "bulk_tcp_vs_kernel", "target": 1.0, "measured": 0.985, "spread": [0.9, 1.25], "met": false },
            { "id": "commit_10000_rules", "target": 500.0, "measured": 81.4, "spread": [80.0, 90.0], "met": true }"#,
        );
        let text = section(&json).expect("a section");
        let row = |start: &str| {
            text.lines()
                .find(|line| line.starts_with(start))
                .expect("a row")
                .to_owned()
        };
        for definition in &PROMISES {
            row(&format!("| {} | {} |", definition.what, definition.against));
        }
        let bulk = row("| bulk TCP over veth");
        assert!(
            bulk.ends_with("| ≥ 1.0 × | 0.98 × (0.90 – 1.25) | no |"),
            "{bulk}"
        );
        let commit = row("| commit of 10,000 rules");
        assert!(
            commit.ends_with("| ≤ 500 ms | 81 ms (80 – 90) | yes |"),
            "{commit}"
        );
        assert!(row("| resident memory").ends_with("| not measured | – |"));
    }

    #[test]
    fn the_run_is_named_with_its_commit_and_its_rounds() {
        let text = section(&json("")).expect("a section");
        assert!(
            text.contains(
                "\nRun of 2026-01-02 at commit `0123456789ab-dirty`: 3 interleaved rounds of 0.5 s, 11 minutes in all.\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_figure_for_another_target_is_not_this_promise_s() {
        let json = json(
            r#"{ "id": "bulk_tcp_vs_kernel", "target": 0.5, "measured": 0.9, "spread": [0.9, 0.9], "met": true }"#,
        );
        let recorded = serde_json::from_str(&json).expect("a run");
        assert_eq!(table(&recorded).matches("not measured").count(), PROMISES.len());
    }
}
