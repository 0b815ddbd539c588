//! The benchmark from end to end, as short as it can be: real labs of a few contenders, one short round each, and the files it
//! leaves.
//!
//! No rate is judged here. What is held is that frames pass every kind of carrier, that the tool's own checks agree with the
//! firewalls' counters (it ends with an error if they do not), and that the figures arrive where readers look for them.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use bulkhead_dataplane::bpf::has_tcx;
use bulkhead_testkit::effort::slowness;
use bulkhead_testkit::privilege::privileged;
use serde_json::Value;

const SCENARIOS: [&str; 3] = ["established", "new-sessions", "bulk-tcp"];
/// One of each kind of carrier.
const CONTENDERS: [&str; 5] = [
    "bare-xdp",
    "bare-tcx-peer",
    "bulkhead-xdp",
    "bulkhead-tcx",
    "nftables",
];

/// The rounds of a point that the run must have made.
fn series<'a>(report: &'a Value, scenario: &str, contender: &str) -> Result<&'a Value> {
    let all = report["series"].as_array().context("no list of series")?;
    all.iter()
        .find(|one| one["scenario"] == scenario && one["contender"] == contender)
        .with_context(|| format!("no figure of {contender} in {scenario}"))
}

#[test]
fn netns_the_benchmark_measures_judges_and_writes_its_report() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    if !has_tcx() || slowness() > 1 {
        println!("SKIPPED: the benchmark needs TCX, and a processor that is not emulated");
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let json = directory.path().join("run.json");
    let output = Command::new(env!("CARGO_BIN_EXE_bulkhead-bench"))
        .args(["--quick", "--rounds", "1", "--seconds", "0.05"])
        .args(["--scenario", &SCENARIOS.join(",")])
        .args(["--only", &CONTENDERS.join(",")])
        .arg("--json")
        .arg(&json)
        .output()?;
    ensure!(
        output.status.success(),
        "the benchmark failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );

    let report: Value = serde_json::from_str(&fs::read_to_string(&json)?)?;
    for contender in CONTENDERS {
        let round = &series(&report, "established", contender)?["frames"][0];
        let count = |name: &str| {
            round[name]
                .as_u64()
                .with_context(|| format!("no {name} in {round}"))
        };
        let (sent, received) = (count("sent")?, count("received")?);
        ensure!(
            received > 0 && received <= sent,
            "{contender}: {received} of {sent} frames arrived"
        );
    }
    for (scenario, contenders) in [
        (
            "new-sessions",
            ["bulkhead-xdp", "bulkhead-tcx", "nftables"].as_slice(),
        ),
        (
            "bulk-tcp",
            &["bare-tcx-peer", "bulkhead-xdp", "bulkhead-tcx", "nftables"],
        ),
    ] {
        for contender in contenders {
            let median = series(&report, scenario, contender)?["median"].as_f64();
            ensure!(
                median.is_some_and(|median| median > 0.0 && median.is_finite()),
                "{contender} in {scenario}: {median:?}"
            );
        }
    }
    let judged: Vec<&str> = report["promises"]
        .as_array()
        .context("no list of promises")?
        .iter()
        .filter_map(|promise| promise["id"].as_str())
        .collect();
    assert_eq!(
        judged,
        [
            "established_xdp_vs_bare_xdp",
            "established_tcx_vs_bare_redirect_peer",
            "new_sessions_vs_nftables"
        ],
        "judged is what the run has figures for, and nothing else"
    );
    ensure!(
        report["test_run"]
            .as_array()
            .is_some_and(|cases| cases.len() == 6),
        "no test runs of the programs: {}",
        report["test_run"]
    );

    let markdown = fs::read_to_string(json.with_extension("md"))?;
    for plot in ["run-established.svg", "run-new-sessions.svg"] {
        ensure!(markdown.contains(plot), "{plot} is not in the report");
        let svg = fs::read_to_string(directory.path().join(plot))?;
        ensure!(svg.contains(">bulkhead-tcx</text>"), "{plot} lacks a contender");
    }
    Ok(())
}
