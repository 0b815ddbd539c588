//! `cargo xtask test`: runs the tiers and adds them up.
//!
//! Owns which test belongs to which tier. A test whose name contains `netns_` or `prog_run_` needs the kernel and
//! root and belongs to the tier `privileged`; one whose name contains `attack_` needs the tools of an attacker besides
//! and belongs to `attack`; one whose name contains `kube_` needs the Kubernetes API server and belongs to `kube`, whatever else
//! its name contains; one whose name contains `e2e_docker_` starts the container image and belongs to `docker`; every other one
//! belongs to `unit`; none belongs to two. Refuses to call a run good in which the privileged tests, the attacks or the
//! containers did not run, unless that was asked for by name, and never in continuous integration.

use std::{
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};

use crate::{
    ahead::Ahead,
    apiserver::KUBE_NAMES,
    fuzz, image,
    libtest::{Parser, Summary},
    netns,
    process::{self, Stream, Workspace},
    report::{self, TierReport},
    setup::{self, Want},
    skips,
    slowest::Slowest,
    vm,
};

/// Names of tests that need the kernel and root.
pub const PRIVILEGED_NAMES: [&str; 2] = ["netns_", "prog_run_"];

/// Names of tests that need an attacker's tools as well.
const ATTACK_NAMES: [&str; 1] = ["attack_"];

/// Names of tests that start the container image under a Docker daemon of their own.
const DOCKER_NAMES: [&str; 1] = ["e2e_docker_"];

/// The command line of `cargo xtask test`.
#[derive(Args)]
pub struct Options {
    /// Which tier to run
    #[arg(long, value_enum, default_value_t = Tier::AllDefault)]
    tier: Tier,
    /// Everything: the tiers of all-default, and the privileged tests on other kernels
    #[arg(long, conflicts_with = "tier")]
    all: bool,
    /// Leave out, loudly, what needs root: the tiers privileged, attack and kube; refused when CI=true
    #[arg(long)]
    skip_privileged: bool,
    /// How long to run each fuzz target
    #[arg(long, default_value_t = 30)]
    fuzz_seconds: u32,
}

/// A tier, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Tier {
    /// No privileges needed
    Unit,
    /// netns_* and prog_run_*: loaded programs and network namespaces; needs root
    Privileged,
    /// attack_*: hping3, nmap and scapy through the real firewall; needs root
    Attack,
    /// kube_*: against a real Kubernetes API server, some with traffic in network namespaces; needs root
    Kube,
    /// e2e_docker_*: the container image under Docker, real traffic between containers; needs root
    Docker,
    /// The parser, for a bounded time, from the stored corpus
    Fuzz,
    /// The privileged tests on other kernels, emulated: hours
    Vm,
    /// unit, privileged, attack, kube, docker and, where cargo-fuzz is installed or CI=true, fuzz
    AllDefault,
}

/// What is to be done with one tier.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    Run,
    /// Left out, without making the run a failure.
    Skip(String),
    /// Cannot run, and the run is a failure.
    Refuse(String),
}

/// What the decision depends on.
#[derive(Clone, Copy, Debug)]
struct Circumstances {
    ci: bool,
    root: bool,
    cargo_fuzz: bool,
    skip_privileged: bool,
}

/// Runs what was asked for and prints the table.
pub fn run(ws: &Workspace, options: &Options) -> Result<ExitCode> {
    let circumstances = Circumstances {
        ci: process::is_ci(),
        root: process::is_root()?,
        cargo_fuzz: setup::has_cargo_fuzz(),
        skip_privileged: options.skip_privileged,
    };
    let mut decisions = decide(options.tier, circumstances)?;
    if options.all {
        decisions.push((Tier::Vm, Decision::Run));
    }
    let runs = |tier| {
        decisions
            .iter()
            .any(|(t, decision)| *t == tier && *decision == Decision::Run)
    };
    setup::ensure(
        ws,
        Want {
            network: [Tier::Privileged, Tier::Attack, Tier::Kube, Tier::Docker]
                .into_iter()
                .any(runs),
            attack: runs(Tier::Attack),
            fuzz: runs(Tier::Fuzz),
            vm: runs(Tier::Vm),
            kube: runs(Tier::Kube),
            docker: runs(Tier::Docker),
        },
    )?;

    // Needed by one tier, which comes late.
    let mut image = if runs(Tier::Docker) {
        Some(image::begin_verified(ws)?)
    } else {
        None
    };
    let mut reports = Vec::new();
    for (tier, decision) in decisions {
        let made = match decision {
            Decision::Run => match tier {
                Tier::Privileged => kernel(ws, tier, &PRIVILEGED_NAMES).map(|report| vec![report]),
                Tier::Attack => kernel(ws, tier, &ATTACK_NAMES).map(|report| vec![report]),
                Tier::Kube => kernel(ws, tier, &KUBE_NAMES).map(|report| vec![report]),
                Tier::Docker => docker(ws, image.take()).map(|report| vec![report]),
                Tier::Fuzz => fuzz::tier(ws, options.fuzz_seconds).map(|report| vec![report]),
                Tier::Vm => vm::tiers(ws, &vm::Options::everything()),
                Tier::Unit | Tier::AllDefault => unit(ws).map(|report| vec![report]),
            }
            // The other tiers still run, and the table is printed.
            .unwrap_or_else(|error| {
                vec![TierReport {
                    problems: vec![format!("{error:#}")],
                    ..TierReport::new(tier.name())
                }]
            }),
            Decision::Skip(why) => vec![TierReport {
                skipped: Some(why),
                ..TierReport::new(tier.name())
            }],
            Decision::Refuse(why) => vec![TierReport {
                problems: vec![why],
                ..TierReport::new(tier.name())
            }],
        };
        reports.extend(made);
    }
    println!("{}", report::render(&reports));
    Ok(report::verdict(&reports))
}

impl Tier {
    fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Privileged => "privileged",
            Self::Attack => "attack",
            Self::Kube => "kube",
            Self::Docker => "docker",
            Self::Fuzz => "fuzz",
            Self::Vm => "vm",
            Self::AllDefault => "all-default",
        }
    }
}

fn decide(tier: Tier, now: Circumstances) -> Result<Vec<(Tier, Decision)>> {
    if now.skip_privileged && now.ci {
        bail!("--skip-privileged is refused when CI=true: run as root instead");
    }
    if now.skip_privileged && !matches!(tier, Tier::Unit | Tier::AllDefault) {
        bail!("--skip-privileged makes no sense with --tier {}", tier.name());
    }
    // These tiers need the same: root.
    let privileged = if now.skip_privileged {
        Decision::Skip("these tests did NOT run (--skip-privileged)".to_owned())
    } else if now.root {
        Decision::Run
    } else {
        Decision::Refuse(
            "needs root: run `sudo -E env PATH=\"$PATH\" cargo xtask test`, or pass --skip-privileged"
                .to_owned(),
        )
    };
    // Setup installs cargo-fuzz where fuzzing was asked for; a plain `test` on a developer's machine does not.
    let fuzz = if now.cargo_fuzz || now.ci || tier == Tier::Fuzz {
        Decision::Run
    } else {
        Decision::Skip("cargo-fuzz is not installed: run `cargo xtask setup --fuzz`".to_owned())
    };
    Ok(match tier {
        Tier::Unit => vec![(Tier::Unit, Decision::Run)],
        Tier::Privileged | Tier::Attack | Tier::Kube | Tier::Docker => vec![(tier, privileged)],
        Tier::Fuzz => vec![(Tier::Fuzz, fuzz)],
        Tier::Vm => vec![(Tier::Vm, Decision::Run)],
        Tier::AllDefault => {
            vec![
                (Tier::Unit, Decision::Run),
                (Tier::Privileged, privileged.clone()),
                (Tier::Attack, privileged.clone()),
                (Tier::Kube, privileged.clone()),
                (Tier::Docker, privileged),
                (Tier::Fuzz, fuzz),
            ]
        }
    })
}

fn unit(ws: &Workspace) -> Result<TierReport> {
    let names = PRIVILEGED_NAMES
        .iter()
        .chain(&ATTACK_NAMES)
        .chain(&KUBE_NAMES)
        .chain(&DOCKER_NAMES);
    let mut options = vec!["--color=never"];
    options.extend(names.flat_map(|name| ["--skip", name]));
    cargo_test_twice(|| ws.cargo(), Tier::Unit, &options, &[]).map(require_tests)
}

/// A tier's report with what came of its failures when they were run again.
fn repeated(mut report: TierReport, again: TierReport, failures: &[String]) -> TierReport {
    report.took += again.took;
    // Every one of them passed, and nothing else is wrong.
    let steady = again.counts.failed == 0
        && again.counts.skipped == 0
        && again.problems.is_empty()
        && again.counts.passed == failures.len() as u64;
    if !steady {
        report.notes.push("failed again when run alone".to_owned());
        return report;
    }
    report.counts.failed -= again.counts.passed;
    report.counts.passed += again.counts.passed;
    report.notes = report
        .notes
        .into_iter()
        .map(|note| match note.strip_prefix(FAILED) {
            Some(name) => format!("UNSTEADY: {name}: failed, and passed when run again alone"),
            None => note,
        })
        .collect();
    report
}

/// How many tests of a tier may pass only when they are repeated. More is no accident of the machine's.
const MOST_UNSTEADY: usize = 2;

fn kernel(ws: &Workspace, tier: Tier, names: &[&str]) -> Result<TierReport> {
    one_by_one(|| ws.cargo(), tier, names)
}

/// The image that two builds agree about, and what starts it.
fn docker(ws: &Workspace, building: Option<Ahead>) -> Result<TierReport> {
    let began = Instant::now();
    let said = building.map(Ahead::finish).transpose()?;
    // Cargo knows that it is built.
    let (image, digest) = image::make(ws)?;
    if said.is_some_and(|said| !said.contains(&digest)) {
        bail!("the sources changed while the tests ran: {digest} is not the image that was built twice");
    }
    let hold = image::build_static(ws, &image::Program::HOLD)?;
    let cargo = || {
        let mut cargo = ws.cargo();
        cargo
            .env("BULKHEAD_IMAGE", &image)
            .env("BULKHEAD_E2E_HOLD", &hold);
        cargo
    };
    let mut report = one_by_one(cargo, Tier::Docker, &DOCKER_NAMES)?;
    report.took = began.elapsed();
    Ok(report)
}

/// One test at a time: they measure, and they share the machine's kernel.
fn one_by_one(cargo: impl Fn() -> Command, tier: Tier, names: &[&str]) -> Result<TierReport> {
    let before = netns::ours()?;
    let mut options = vec!["--color=never", "--test-threads=1", "--show-output"];
    if tier != Tier::Kube {
        options.extend(KUBE_NAMES.iter().flat_map(|name| ["--skip", name]));
    }
    let mut report = cargo_test_twice(cargo, tier, &options, names)?;
    let left: Vec<_> = netns::ours()?.difference(&before).cloned().collect();
    if !left.is_empty() {
        report.problems.push(format!(
            "tests left network namespaces behind: {}",
            left.join(", ")
        ));
    }
    Ok(require_tests(report))
}

/// Runs tests, and a few that fail once more, alone: they depend on when packets arrive and threads run, on machines that others
/// use too. One that passes then is no failure, but is named, and its first output stands above.
fn cargo_test_twice(
    cargo: impl Fn() -> Command,
    tier: Tier,
    options: &[&str],
    names: &[&str],
) -> Result<TierReport> {
    let (report, failures) = cargo_test(cargo(), tier, options, names.iter().copied())?;
    if !(1..=MOST_UNSTEADY).contains(&failures.len()) || !report.problems.is_empty() {
        return Ok(report);
    }
    println!("\nonce more, alone: {}\n", failures.join(", "));
    let options = [options, &["--exact"]].concat();
    let (again, _) = cargo_test(cargo(), tier, &options, failures.iter().map(String::as_str))?;
    Ok(repeated(report, again, &failures))
}

/// Runs tests; also returns the names of those that failed.
fn cargo_test<'a>(
    mut cargo: Command,
    tier: Tier,
    options: &[&str],
    filter: impl IntoIterator<Item = &'a str>,
) -> Result<(TierReport, Vec<String>)> {
    let began = Instant::now();
    let mut parser = Parser::default();
    let mut slowest = Slowest::default();
    // Without `--workspace`: the default members; `ebpf/programs` compiles only for BPF.
    cargo
        .args(["test", "--no-fail-fast", "--"])
        .args(options)
        .args(filter);
    let status = process::follow(&mut cargo, Stream::Out, |line| {
        parser.line(line);
        slowest.line(line, began.elapsed());
    })?;
    let summary = parser.finish();
    let mut report = tier_report(tier.name(), &summary, status.success());
    if tier != Tier::Unit {
        report
            .problems
            .extend(skips::of_the_host(&summary, process::is_ci()));
    }
    report.took = began.elapsed();
    // Unit tests run side by side: nobody knows how long one took.
    if tier != Tier::Unit {
        report.notes.extend(slowest.note());
    }
    Ok((report, summary.failures))
}

/// What a note about a failed test begins with.
const FAILED: &str = "failed: ";

/// What the test binaries of a tier reported. `success`: nothing else says that the run failed.
pub fn tier_report(tier: &'static str, summary: &Summary, success: bool) -> TierReport {
    let mut report = TierReport {
        counts: summary.counts,
        ..TierReport::new(tier)
    };
    report
        .notes
        .extend(summary.failures.iter().map(|name| format!("{FAILED}{name}")));
    report
        .notes
        .extend(summary.skips.iter().map(|skip| format!("skipped: {skip}")));
    if summary.crashed_binaries > 0 {
        report.problems.push(format!(
            "test binaries that crashed before their result: {}",
            summary.crashed_binaries
        ));
    }
    if !success && summary.counts.failed == 0 && report.problems.is_empty() {
        report
            .problems
            .push("`cargo test` failed without a failed test: see its messages above".to_owned());
    }
    report
}

/// A tier in which no test ran proves nothing.
fn require_tests(mut report: TierReport) -> TierReport {
    if report.counts.passed + report.counts.failed == 0 {
        report.problems.push("no test ran".to_owned());
    }
    report
}

#[cfg(test)]
mod tests;
