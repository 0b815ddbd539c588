//! `bulkhead-bench`: Bulkhead side by side with what else would carry the packets.
//!
//! **Method.** Every contender gets a network of its own: a source, a firewall and a sink in three namespaces, joined by
//! veths. The source is an XDP program run with live frames (`BPF_PROG_TEST_RUN`), which writes a complete 60-byte UDP
//! packet with right checksums each time; the sink counts and drops at its first hook. All sessions are established in
//! both directions beforehand, by real sockets, and a sample of what arrives is checked byte for byte. Rounds are
//! interleaved; figures are medians, ratios are taken round by round. One CPU carries everything, and rates are per
//! second of its time. Bulk TCP is measured between real sockets at default offloads, on one CPU as well. The programs
//! alone are timed by test run.
//!
//! **Not measured.** Scaling over CPUs and queues; physical NICs; latency; new sessions per second against peers; large
//! rule sets and many sessions; IPv6. The source's frames are recycled from a few pages, so packet data is always in the
//! cache: differences between contenders are larger here than with a NIC's DMA, and so is every rate.
//!
//! **Loss.** Now and then a round loses frames in the source's own veth ring, when the receiving side is polled on another
//! CPU for a while. Seen with Bulkhead, whose counters then show as many packets as the sink's. It is reported, not hidden;
//! rates count what arrived.
//!
//! Needs root. Makes namespaces named `bht-bench-*` and removes them, on Ctrl-C too; changes nothing outside.

mod bulk_tcp;
mod bulkhead;
mod contender;
mod cpu;
mod environment;
mod frame;
mod frames;
mod lab;
mod object;
mod promises;
mod report;
mod statistics;
mod test_run;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bulkhead_testkit::Namespace;
use clap::Parser;
use nix::sys::signal::{SigSet, Signal};

use crate::bulk_tcp::BulkLab;
use crate::contender::Contender;
use crate::environment::Environment;
use crate::frames::FrameLab;
use crate::report::{Method, Report};

/// Measure Bulkhead side by side with nftables, the kernel's forwarding and bare redirect programs.
#[derive(Debug, Parser)]
#[command(name = "bulkhead-bench", version)]
struct Arguments {
    /// Short rounds: the whole run takes under five minutes and updates benches/results/quick.{json,md}.
    #[arg(long)]
    quick: bool,
    /// Rounds of each contender [default: 9, or 7 with --quick].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// Seconds per round [default: 2, or 0.5 with --quick].
    #[arg(long)]
    seconds: Option<f64>,
    /// Established sessions.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=20_000))]
    flows: u16,
    /// Only these contenders, separated by commas; the report then goes to results/local.
    #[arg(long, value_delimiter = ',', value_parser = contender)]
    only: Vec<Contender>,
    /// The CPU to measure on [default: the last one].
    #[arg(long)]
    cpu: Option<usize>,
    /// Where the JSON goes; the Markdown goes beside it.
    #[arg(long, value_name = "PATH")]
    json: Option<PathBuf>,
}

fn contender(id: &str) -> Result<Contender, String> {
    let names = || Contender::ALL.map(Contender::id).join(", ");
    Contender::from_id(id).ok_or_else(|| format!("no such contender, use some of: {}", names()))
}

impl Arguments {
    fn wants(&self, contender: Contender) -> bool {
        self.only.is_empty() || self.only.contains(&contender)
    }

    fn method(&self) -> Result<Method> {
        let (rounds, seconds) = if self.quick { (7, 0.5) } else { (9, 2.0) };
        let seconds = self.seconds.unwrap_or(seconds);
        ensure!(
            (0.01..=60.0).contains(&seconds),
            "--seconds {seconds}: use 0.01 to 60"
        );
        Ok(Method {
            rounds: self.rounds.map_or(rounds, usize::from),
            seconds,
            flows: self.flows,
            frame_bytes: frame::FRAME_BYTES,
            cpu: self.cpu.unwrap_or(cpu::count() - 1),
        })
    }

    /// Only a complete quick run with the usual settings may replace the recorded one.
    fn destination(&self) -> PathBuf {
        let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
        let usual =
            self.only.is_empty() && self.rounds.is_none() && self.seconds.is_none() && self.flows == 1_000;
        match &self.json {
            Some(path) => path.clone(),
            None if self.quick && usual => results.join("quick.json"),
            None => results.join("local/latest.json"),
        }
    }
}

/// Set by the first SIGINT or SIGTERM.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Turns signals into a flag, so that everything is dropped, and with it every namespace.
fn watch_signals() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
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
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benchmark makes network namespaces and loads BPF programs: run it as root"
    );
    let method = arguments.method()?;
    watch_signals()?;
    for name in Namespace::sweep(lab::PREFIX)? {
        eprintln!("removed {name}, left behind by a run that was killed");
    }
    let environment = Environment::look();
    let (frames, test_run) = established(&arguments, &method)?;
    let bulk = bulk(&arguments, &method)?;
    let report = Report::new(environment, method, frames, bulk, test_run);
    print!("\n{}\n{}", report.preface(), report.tables(false));
    write(&report, &arguments.destination())
}

type FrameResults = Vec<(Contender, Option<frames::Sample>, Vec<frames::Round>)>;

/// Established packets through every contender, then the programs alone.
fn established(arguments: &Arguments, method: &Method) -> Result<(FrameResults, Vec<test_run::Case>)> {
    let mut labs = Vec::new();
    for contender in Contender::ALL
        .into_iter()
        .filter(|&contender| arguments.wants(contender))
    {
        go_on()?;
        eprintln!("setting up {}", contender.description());
        labs.push((FrameLab::new(contender, method.flows, method.cpu)?, Vec::new()));
    }
    for round in 1..=method.rounds {
        eprintln!("established packets, round {round} of {}", method.rounds);
        for (lab, rounds) in &mut labs {
            go_on()?;
            rounds.push(lab.measure(Duration::from_secs_f64(method.seconds))?);
        }
    }
    let mut cases = Vec::new();
    if let Some((lab, _)) = labs
        .iter_mut()
        .find(|(lab, _)| lab.contender() == Contender::BulkheadXdp)
    {
        eprintln!("test runs");
        cases = test_run::measure(lab, method.cpu, method.flows)?;
    }
    let results = labs
        .into_iter()
        .map(|(lab, rounds)| (lab.contender(), lab.sample, rounds))
        .collect();
    Ok((results, cases))
}

/// Bulk TCP through those that carry it.
fn bulk(arguments: &Arguments, method: &Method) -> Result<Vec<(Contender, Vec<bulk_tcp::Round>)>> {
    let mut labs = Vec::new();
    for contender in Contender::BULK
        .into_iter()
        .filter(|&contender| arguments.wants(contender))
    {
        go_on()?;
        labs.push((BulkLab::new(contender, method.cpu)?, Vec::new()));
    }
    for round in 1..=method.rounds {
        if !labs.is_empty() {
            eprintln!("bulk TCP, round {round} of {}", method.rounds);
        }
        for (lab, rounds) in &mut labs {
            go_on()?;
            rounds.push(lab.measure(Duration::from_secs_f64(method.seconds))?);
        }
    }
    Ok(labs
        .into_iter()
        .map(|(lab, rounds)| (lab.contender(), rounds))
        .collect())
}

fn write(report: &Report, path: &Path) -> Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    }
    let json = serde_json::to_string_pretty(report)? + "\n";
    let markdown = format!(
        "# Quick benchmark\n\n{}\n{}",
        report.preface(),
        report.tables(true).trim_end()
    ) + "\n";
    for (path, text) in [(path.to_owned(), json), (path.with_extension("md"), markdown)] {
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
    fn only_the_usual_quick_run_is_recorded() {
        let destination = |arguments: &[&str]| {
            let arguments = std::iter::once(&"bulkhead-bench").chain(arguments);
            Arguments::try_parse_from(arguments)
                .expect("valid arguments")
                .destination()
        };
        assert!(destination(&["--quick"]).ends_with("results/quick.json"));
        assert!(
            destination(&["--quick", "--only", "kernel,bare-xdp"]).ends_with("results/local/latest.json")
        );
        assert!(destination(&["--quick", "--rounds", "3"]).ends_with("results/local/latest.json"));
        assert!(destination(&[]).ends_with("results/local/latest.json"));
        assert_eq!(
            destination(&["--quick", "--json", "/tmp/a.json"]),
            Path::new("/tmp/a.json")
        );
    }

    #[test]
    fn unknown_contenders_are_refused_with_the_known_ones() {
        let error =
            Arguments::try_parse_from(["bulkhead-bench", "--only", "ipfw"]).expect_err("no such contender");
        assert!(error.to_string().contains("nftables-masquerade"), "{error}");
    }
}
