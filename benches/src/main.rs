//! `bulkhead-bench`: Bulkhead side by side with what else would carry the packets.
//!
//! **Method.** Every contender gets a network of its own: a source, a firewall and a sink in three namespaces, joined by
//! veths. The source is an XDP program run with live frames (`BPF_PROG_TEST_RUN`), which writes a complete 60-byte UDP
//! packet with right checksums each time; the sink counts and drops at its first hook. All sessions are established in
//! both directions beforehand, the sink sending back what it gets, and a sample of what arrives is checked byte for byte. Rounds are
//! interleaved; figures are medians, ratios are taken round by round. One CPU carries everything, and rates are per
//! second of its time. New sessions are frames of ever new flows, ended after each round. Bulk TCP and round trips are
//! measured between real sockets at default offloads, commits and group changes while a conversation goes on, the daemon
//! as users run it. The programs alone are timed by test run.
//!
//! **Void.** Every scenario holds the firewall's own counters against what arrived: frames forwarded, sessions opened,
//! connections tracked; strangers denied. If they disagree there is no figure, but an error.
//!
//! **Not measured.** Scaling over CPUs and queues; physical NICs; IPv6. The source's frames are recycled from a few
//! pages, so packet data is always in the cache: differences between contenders are larger here than with a NIC's DMA, and
//! so is every rate.
//!
//! **Loss.** Now and then a round loses frames in the source's own veth ring, when the receiving side is polled on another
//! CPU for a while. It is reported, not hidden; rates count what arrived.
//!
//! Needs root. Makes namespaces named `bht-bench-*` and removes them, on Ctrl-C too. Outside it changes the limits of
//! connection tracking while a run with a million sessions lasts, nothing else.

mod bulkhead;
mod conntrack;
mod contender;
mod cpu;
mod environment;
mod frame;
mod frames;
mod lab;
mod object;
mod plan;
mod policy;
mod popularity;
mod promises;
mod report;
mod scenario;
mod series;
mod statistics;
mod stream;
mod test_run;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bulkhead_testkit::Namespace;
use clap::Parser;
use nix::sys::signal::{SigSet, Signal};

use crate::contender::Contender;
use crate::environment::Environment;
use crate::plan::{Scenario, Settings};
use crate::report::{Method, Report, readme};
use crate::series::Results;

/// Measure Bulkhead side by side with nftables, iptables, the kernel's forwarding and bare redirect programs.
#[derive(Debug, Parser)]
#[command(name = "bulkhead-bench", version)]
struct Arguments {
    /// Fewer points: under five minutes; updates benches/results/quick.{json,md}. Without it the README's table follows, too
    #[arg(long)]
    quick: bool,
    /// Only these scenarios, separated by commas; the report then goes to results/local
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<Scenario>,
    /// Only these contenders, separated by commas; the report then goes to results/local
    #[arg(long, value_delimiter = ',', value_parser = contender)]
    only: Vec<Contender>,
    /// Rounds of each contender [default: 3]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// Seconds per round [default: 0.5]
    #[arg(long)]
    seconds: Option<f64>,
    /// Established sessions where the scenario does not say
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    flows: u32,
    /// The CPU to measure on [default: the last one]
    #[arg(long)]
    cpu: Option<usize>,
    /// Where the JSON goes; Markdown and plots go beside it
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
    /// Say what would run and how long it would take, and end
    #[arg(long)]
    plan: bool,
    /// Measure nothing: put a run's JSON, a path in the repository, into the README, as a full run does at its end
    #[arg(long, value_name = "JSON")]
    readme: Option<String>,
}

fn contender(id: &str) -> Result<Contender, String> {
    let names = || Contender::ALL.map(Contender::id).join(", ");
    Contender::from_id(id).ok_or_else(|| format!("no such contender, use some of: {}", names()))
}

/// Seconds per round.
const SECONDS: f64 = 0.5;
/// Rounds of each contender: a full run has many points, and is to end within a quarter of an hour.
const ROUNDS: u16 = 3;
/// Where a full run is recorded, below the repository: what the README's table is made from.
const RECORD: &str = "benches/results/full.json";

impl Arguments {
    fn settings(&self) -> Result<Settings> {
        let seconds = self.seconds.unwrap_or(SECONDS);
        ensure!(
            (0.01..=60.0).contains(&seconds),
            "--seconds {seconds}: use 0.01 to 60"
        );
        let wanted = |scenario: &Scenario| {
            if self.scenario.is_empty() {
                !self.quick || scenario.is_quick()
            } else {
                self.scenario.contains(scenario)
            }
        };
        Ok(Settings {
            quick: self.quick,
            rounds: self.rounds.unwrap_or(ROUNDS).into(),
            length: Duration::from_secs_f64(seconds),
            flows: self.flows,
            cpu: self.cpu.unwrap_or(cpu::count() - 1),
            scenarios: Scenario::ALL.into_iter().filter(wanted).collect(),
            only: self.only.clone(),
        })
    }

    /// Whether it is a complete run with the usual settings: only such a one may replace a recorded one.
    fn is_usual(&self) -> bool {
        self.scenario.is_empty()
            && self.only.is_empty()
            && self.rounds.is_none_or(|rounds| rounds == ROUNDS)
            && self.seconds.is_none_or(|seconds| seconds == SECONDS)
            && self.flows == 1_000
    }

    fn destination(&self) -> PathBuf {
        let results = repository().join("benches/results");
        match &self.json {
            Some(path) => path.clone(),
            None if self.is_usual() && self.quick => results.join("quick.json"),
            None if self.is_usual() => repository().join(RECORD),
            None => results.join("local/latest.json"),
        }
    }

    /// Whether the run is the one that the README tells of.
    fn is_record(&self) -> bool {
        self.is_usual() && !self.quick && self.json.is_none()
    }
}

/// The source tree.
fn repository() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Set by the first SIGINT or SIGTERM.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// What ends a run.
fn signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM].into_iter().collect()
}

/// Turns signals into a flag, so that everything is dropped, and with it every namespace.
fn watch_signals() -> Result<()> {
    let signals = signals();
    // Before the first other thread: all inherit it.
    signals.thread_block().context("cannot block signals")?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            while signals.wait().is_ok() {
                INTERRUPTED.store(true, Ordering::Relaxed);
            }
        })?;
    Ok(())
}

fn go_on() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted; everything that was made is removed");
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(json) = &arguments.readme {
        return readme::update(&repository(), json);
    }
    let settings = arguments.settings()?;
    eprint!("{}", budget(&settings));
    if arguments.plan {
        return Ok(());
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benchmark makes network namespaces and loads BPF programs: run it as root"
    );
    watch_signals()?;
    for name in Namespace::sweep(lab::PREFIX)? {
        eprintln!("removed {name}, left behind by a run that was killed");
    }
    let (environment, began) = (Environment::look(), Instant::now());
    let results = measure(&settings)?;
    let report = Report::new(environment, Method::of(&settings, began.elapsed()), results);
    print!("\n{}\n{}", report.preface(), report.terminal());
    write(&report, &arguments.destination())?;
    if arguments.is_record() {
        readme::update(&repository(), RECORD)?;
        eprintln!("put it into README.md");
    }
    Ok(())
}

/// What will run and how long it will take.
fn budget(settings: &Settings) -> String {
    let minutes = |time: Duration| {
        let seconds = time.as_secs();
        format!("{:>2} min {:02} s", seconds / 60, seconds % 60)
    };
    let mut sum = Duration::ZERO;
    let mut text = String::new();
    for &scenario in &settings.scenarios {
        let estimate = settings.estimate(scenario);
        sum += estimate;
        text += &format!("{:14} about {}\n", scenario.id(), minutes(estimate));
    }
    text + &format!(
        "{:14} about {}: {} rounds of {} s, interleaved\n",
        "all of it",
        minutes(sum),
        settings.rounds,
        settings.length.as_secs_f64()
    )
}

fn measure(settings: &Settings) -> Result<Results> {
    let mut results = Results::default();
    let _room = if settings.scenarios.contains(&Scenario::Sessions) {
        let room = conntrack::Room::make(CONNTRACK_ENTRIES)?;
        results.notes.extend(room.raised());
        Some(room)
    } else {
        None
    };
    for &scenario in &settings.scenarios {
        go_on()?;
        scenario::run(scenario, settings, &mut results)?;
    }
    Ok(results)
}

/// Room for a million connections and as many again.
const CONNTRACK_ENTRIES: u64 = 1 << 21;

fn write(report: &Report, path: &Path) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let stem = path
        .file_stem()
        .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let mut files = vec![(path.to_owned(), serde_json::to_string_pretty(report)? + "\n")];
    let mut plots = Vec::new();
    for (scenario, svg) in report.plots() {
        let name = format!("{stem}-{}.svg", scenario.id());
        files.push((path.with_file_name(&name), svg));
        plots.push((scenario, name));
    }
    let title = if report.method.quick {
        "Quick benchmark"
    } else {
        "Benchmark"
    };
    files.push((path.with_extension("md"), report.markdown(title, &plots)));
    for (path, text) in files {
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn only_usual_runs_are_recorded() {
        let parse = |arguments: &[&str]| {
            let arguments = std::iter::once(&"bulkhead-bench").chain(arguments);
            Arguments::try_parse_from(arguments).expect("valid arguments")
        };
        let destination = |arguments: &[&str]| parse(arguments).destination();
        assert!(destination(&["--quick"]).ends_with("results/quick.json"));
        assert!(
            destination(&["--quick", "--only", "kernel,bare-xdp"]).ends_with("results/local/latest.json")
        );
        assert!(destination(&["--quick", "--rounds", "5"]).ends_with("results/local/latest.json"));
        assert!(destination(&["--scenario", "rules"]).ends_with("results/local/latest.json"));
        assert!(destination(&[]).ends_with("results/full.json"));
        assert!(destination(&["--rounds", "3", "--seconds", "0.5"]).ends_with(RECORD));
        assert!(destination(&["--rounds", "7"]).ends_with("results/local/latest.json"));
        assert_eq!(
            destination(&["--quick", "--json", "/tmp/a.json"]),
            Path::new("/tmp/a.json")
        );
        let is_record = |arguments: &[&str]| parse(arguments).is_record();
        assert!(is_record(&[]) && is_record(&["--rounds", "3"]));
        assert!(!is_record(&["--quick"]) && !is_record(&["--json", "/tmp/a.json"]));
        assert!(!is_record(&["--rounds", "5"]) && !is_record(&["--only", "kernel"]));
    }

    #[test]
    fn the_budget_names_every_scenario_and_the_sum() {
        let arguments = Arguments::try_parse_from(["bulkhead-bench", "--quick"]).expect("valid arguments");
        let text = budget(&arguments.settings().expect("settings"));
        assert!(
            text.contains("established") && text.contains("all of it"),
            "{text}"
        );
        assert!(!text.contains("\nsessions"), "{text}");
        let arguments = Arguments::try_parse_from(["bulkhead-bench", "--scenario", "latency,daemon"]);
        let settings = arguments.expect("valid arguments").settings().expect("settings");
        assert_eq!(settings.scenarios, [Scenario::Latency, Scenario::Daemon]);
    }

    #[test]
    fn unknown_contenders_are_refused_with_the_known_ones() {
        let error =
            Arguments::try_parse_from(["bulkhead-bench", "--only", "ipfw"]).expect_err("no such contender");
        assert!(error.to_string().contains("nftables-masquerade"), "{error}");
    }
}
