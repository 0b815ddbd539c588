//! Runs the fuzz targets of `ebpf/packet/fuzz` with cargo-fuzz.
//!
//! Built with the workspace's stable compiler and `--sanitizer none`: what is fuzzed is safe Rust, so what there is
//! to find are panics and overflows, and cargo-fuzz's instrumentation needs neither nightly nor `rust-src` then. (With
//! a nightly, also one without `rust-src`, `cargo +nightly fuzz run <target>` adds AddressSanitizer at a fifth of the
//! speed.) New inputs go below the target directory; the stored corpus is read and never written.

use std::{fs, path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result};

use crate::{
    metadata::Metadata,
    process::{self, Stream, Workspace},
    report::{self, TierReport},
};

/// The fuzz crate, a workspace of its own.
pub fn dir(ws: &Workspace) -> PathBuf {
    ws.root.join("ebpf/packet/fuzz")
}

/// `cargo xtask fuzz`.
pub fn run(ws: &Workspace, seconds: u32) -> Result<ExitCode> {
    let tiers = [tier(ws, seconds)?];
    println!("{}", report::render(&tiers));
    Ok(report::verdict(&tiers))
}

/// Runs every target for `seconds`; each that finds nothing counts as one passed test.
pub fn tier(ws: &Workspace, seconds: u32) -> Result<TierReport> {
    let began = Instant::now();
    let mut report = TierReport::new("fuzz");
    let targets = targets(ws)?;
    if targets.is_empty() {
        report
            .problems
            .push(format!("{} has no fuzz target", dir(ws).display()));
    }
    let target_directory = Metadata::load(ws)?.target_directory;
    for target in &targets {
        let stored = dir(ws).join("corpus").join(target);
        if !fs::read_dir(&stored).is_ok_and(|mut inputs| inputs.next().is_some()) {
            report.problems.push(format!(
                "{target}: the stored corpus {} is empty",
                stored.display()
            ));
            continue;
        }
        let found = target_directory.join("fuzz-corpus").join(target);
        fs::create_dir_all(&found).with_context(|| format!("cannot create {}", found.display()))?;
        let mut cargo = ws.cargo();
        cargo
            .args(["fuzz", "run", "--sanitizer", "none", "--fuzz-dir"])
            .arg(dir(ws))
            .arg("--target-dir")
            .arg(target_directory.join("fuzz"))
            .arg(target)
            .args([found, stored])
            .args([
                "--",
                &format!("-max_total_time={seconds}"),
                "-print_final_stats=1",
            ])
            // An input that takes ten seconds has found an endless loop; libFuzzer's own limit is 20 minutes.
            .arg("-timeout=10");
        let mut runs = 0;
        let status = process::follow(&mut cargo, Stream::Err, |line| runs = runs.max(executed(line)))?;
        if !status.success() {
            report.counts.failed += 1;
            report.notes.push(format!(
                "{target}: failed ({status}), input in ebpf/packet/fuzz/artifacts/{target}"
            ));
        } else if runs == 0 {
            report
                .problems
                .push(format!("{target}: ended well but reported no executed input"));
        } else {
            report.counts.passed += 1;
            report
                .notes
                .push(format!("{target}: {runs} inputs in {seconds} s, nothing found"));
        }
    }
    report.took = began.elapsed();
    Ok(report)
}

fn targets(ws: &Workspace) -> Result<Vec<String>> {
    let list = process::output(ws.cargo().args(["fuzz", "list", "--fuzz-dir"]).arg(dir(ws)))?;
    Ok(list
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}

/// The number of executed inputs in libFuzzer's final statistics, 0 in any other line.
fn executed(line: &str) -> u64 {
    line.strip_prefix("stat::number_of_executed_units:")
        .and_then(|n| n.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executed_inputs_are_read_from_the_final_statistics() {
        assert_eq!(executed("stat::number_of_executed_units: 12624866"), 12_624_866);
        assert_eq!(executed("#8388608	pulse  cov: 6 ft: 7 corp: 1/1b"), 0);
        assert_eq!(executed("stat::peak_rss_mb:              27"), 0);
    }
}
