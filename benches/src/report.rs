//! The outcome of a run: JSON for programs, a table for the terminal, the same as Markdown.

use std::fmt::Write as _;

use serde::Serialize;

use crate::contender::Contender;
use crate::environment::Environment;
use crate::frames::{Round as FrameRound, Sample};
use crate::promises::{self, Measure, Promise, Ratio};
use crate::statistics::Summary;
use crate::{bulk_tcp, test_run};

/// How it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Method {
    /// Rounds of each contender.
    pub rounds: usize,
    /// Seconds per round.
    pub seconds: f64,
    /// Established sessions.
    pub flows: u16,
    /// Bytes per packet.
    pub frame_bytes: usize,
    /// The CPU that carried source, firewall and sink.
    pub cpu: usize,
}

/// Established packets through one contender.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Frames {
    /// Who.
    pub id: Contender,
    /// What that is.
    pub description: &'static str,
    /// Millions of packets per second of CPU time.
    pub mpps: Summary,
    /// Nanoseconds per packet, source and sink included.
    pub ns: Summary,
    /// The largest share lost in a round.
    pub loss: f64,
    /// What the check of arriving packets showed.
    pub sample: Option<Sample>,
    /// All rounds.
    pub rounds: Vec<FrameRound>,
}

/// Bulk TCP through one contender.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bulk {
    /// Who.
    pub id: Contender,
    /// What that is.
    pub description: &'static str,
    /// Gigabits of payload per second of CPU time.
    pub gbps: Summary,
    /// All rounds.
    pub rounds: Vec<bulk_tcp::Round>,
}

/// Everything.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Where.
    pub environment: Environment,
    /// How.
    pub method: Method,
    /// Kept or not.
    pub promises: Vec<Promise>,
    /// Further ratios.
    pub ratios: Vec<Ratio>,
    /// Established packets.
    pub established: Vec<Frames>,
    /// Bulk TCP.
    pub bulk_tcp: Vec<Bulk>,
    /// Nanoseconds inside the programs.
    pub test_run: Vec<test_run::Case>,
}

impl Report {
    /// Summarises the rounds. A contender without rounds is left out.
    #[must_use]
    pub fn new(
        environment: Environment,
        method: Method,
        frames: Vec<(Contender, Option<Sample>, Vec<FrameRound>)>,
        bulk: Vec<(Contender, Vec<bulk_tcp::Round>)>,
        test_run: Vec<test_run::Case>,
    ) -> Self {
        let established: Vec<Frames> = frames
            .into_iter()
            .filter_map(|(id, sample, rounds)| {
                Some(Frames {
                    id,
                    description: id.description(),
                    mpps: Summary::of(rounds.iter().map(|round| round.mpps))?,
                    ns: Summary::of(rounds.iter().map(|round| round.ns))?,
                    loss: rounds.iter().map(|round| round.loss).fold(0.0, f64::max),
                    sample,
                    rounds,
                })
            })
            .collect();
        let bulk_tcp: Vec<Bulk> = bulk
            .into_iter()
            .filter_map(|(id, rounds)| {
                let gbps = Summary::of(rounds.iter().map(|round| round.gbps))?;
                Some(Bulk {
                    id,
                    description: id.description(),
                    gbps,
                    rounds,
                })
            })
            .collect();
        let (promises, ratios) = promises::judge(|measure, contender| match measure {
            Measure::EstablishedPackets => established
                .iter()
                .find(|frames| frames.id == contender)
                .map(|frames| frames.rounds.iter().map(|round| round.mpps).collect()),
            Measure::BulkTcp => bulk_tcp
                .iter()
                .find(|bulk| bulk.id == contender)
                .map(|bulk| bulk.rounds.iter().map(|round| round.gbps).collect()),
        });
        Self {
            environment,
            method,
            promises,
            ratios,
            established,
            bulk_tcp,
            test_run,
        }
    }

    /// All tables, as Markdown or as the terminal likes them.
    #[must_use]
    pub fn tables(&self, markdown: bool) -> String {
        let mut text = String::new();
        for table in [
            self.promise_table(),
            self.established_table(),
            self.bulk_table(),
            self.test_run_table(),
        ] {
            if table.rows.is_empty() {
                continue;
            }
            text += &if markdown {
                table.markdown()
            } else {
                table.terminal()
            };
            text.push('\n');
        }
        text
    }

    /// What a reader must know beside the tables.
    #[must_use]
    pub fn preface(&self) -> String {
        let (environment, method) = (&self.environment, &self.method);
        format!(
            "{} on {} ({} CPUs), Linux {}, commit {}.\nMedians (smallest - largest) of {} interleaved rounds of {} s; \
             {} sessions, {}-byte frames; source, firewall and sink share one CPU, rates are per second of its time.\n",
            environment.date,
            environment.cpu,
            environment.cpus,
            environment.kernel,
            environment.commit,
            method.rounds,
            method.seconds,
            method.flows,
            method.frame_bytes
        )
    }

    fn promise_table(&self) -> Table {
        let mut table = Table::new("Promises", &["promise", "target", "measured", "kept"]);
        for promise in &self.promises {
            let [min, max] = promise.spread;
            table.row([
                format!(
                    "{}: {} / {}",
                    promise.id,
                    promise.contender.id(),
                    promise.peer.id()
                ),
                format!(">= {:.2}", promise.target),
                spread(
                    &Summary {
                        median: promise.measured,
                        min,
                        max,
                    },
                    2,
                ),
                if promise.met { "yes" } else { "NO" }.to_owned(),
            ]);
        }
        for ratio in &self.ratios {
            let (contender, peer) = (ratio.contender.id(), ratio.peer.id());
            let measure = if ratio.measure == Measure::BulkTcp {
                "bulk TCP: "
            } else {
                ""
            };
            table.row([
                format!("{measure}{contender} / {peer}"),
                String::new(),
                spread(&ratio.ratio, 2),
                String::new(),
            ]);
        }
        table
    }

    fn established_table(&self) -> Table {
        let mut table = Table::new(
            "Established 60-byte UDP",
            &[
                "contender",
                "Mpps",
                "ns per packet, source and sink included",
                "lost",
            ],
        );
        for frames in &self.established {
            table.row([
                frames.description.to_owned(),
                spread(&frames.mpps, 2),
                spread(&frames.ns, 0),
                format!("{:.2} %", frames.loss * 100.0),
            ]);
        }
        table
    }

    fn bulk_table(&self) -> Table {
        let mut table = Table::new("Bulk TCP, one stream, default offloads", &["contender", "Gbit/s"]);
        for bulk in &self.bulk_tcp {
            table.row([bulk.description.to_owned(), spread(&bulk.gbps, 1)]);
        }
        table
    }

    fn test_run_table(&self) -> Table {
        let mut table = Table::new(
            "Inside the programs (test run)",
            &["program", "packet", "ns per packet"],
        );
        for case in &self.test_run {
            table.row([
                case.program.to_owned(),
                format!("{}: {}", case.case, case.description),
                format!("{:.0}", case.ns),
            ]);
        }
        table
    }
}

/// Median and ends with so many decimals.
fn spread(summary: &Summary, decimals: usize) -> String {
    format!(
        "{:.decimals$} ({:.decimals$} - {:.decimals$})",
        summary.median, summary.min, summary.max
    )
}

/// Rows of text under a title.
struct Table {
    title: &'static str,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(title: &'static str, head: &[&str]) -> Self {
        Self {
            title,
            head: head.iter().map(|&cell| cell.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    fn row<const N: usize>(&mut self, cells: [String; N]) {
        debug_assert_eq!(N, self.head.len());
        self.rows.push(cells.into());
    }

    fn markdown(&self) -> String {
        let mut text = format!("## {}\n\n", self.title);
        let rule = vec!["---".to_owned(); self.head.len()];
        for row in [&self.head, &rule].into_iter().chain(&self.rows) {
            let _infallible = writeln!(text, "| {} |", row.join(" | "));
        }
        text
    }

    fn terminal(&self) -> String {
        let rows: Vec<&Vec<String>> = std::iter::once(&self.head).chain(&self.rows).collect();
        let widths: Vec<usize> = (0..self.head.len())
            .map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0))
            .collect();
        let mut text = format!("{}\n", self.title);
        for row in rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _infallible = write!(line, "  {cell:width$}");
            }
            let _infallible = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

#[cfg(test)]
mod tests;
