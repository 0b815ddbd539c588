//! The outcome of a run: JSON for programs, tables for the terminal, the same as Markdown with plots beside it.

pub mod plot;
pub mod readme;
mod standing;
mod table;

use serde::Serialize;

use self::table::Table;
use crate::environment::Environment;
use crate::plan::{Scenario, Settings};
use crate::promises::{self, PROMISES, Promise, Ratio, Target};
use crate::series::{Point, Results, Series};
use crate::statistics::Summary;

/// How it was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Method {
    /// Rounds of each contender.
    pub rounds: usize,
    /// Seconds per round.
    pub seconds: f64,
    /// Established sessions, where the scenario does not say otherwise.
    pub flows: u32,
    /// The CPU that carried source, firewall and sink.
    pub cpu: usize,
    /// Whether it was the quick run.
    pub quick: bool,
    /// What was measured.
    pub scenarios: Vec<Scenario>,
    /// How long all of it took, seconds.
    pub took_seconds: u64,
}

impl Method {
    /// Of a run that has ended.
    #[must_use]
    pub fn of(settings: &Settings, took: std::time::Duration) -> Self {
        Self {
            rounds: settings.rounds,
            seconds: settings.length.as_secs_f64(),
            flows: settings.flows,
            cpu: settings.cpu,
            quick: settings.quick,
            scenarios: settings.scenarios.clone(),
            took_seconds: took.as_secs(),
        }
    }
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
    /// What was measured.
    #[serde(flatten)]
    pub results: Results,
}

/// What a reader may look for in vain, and why.
const LEFT_OUT: [&str; 5] = [
    "IPv6, physical NICs, more than one CPU or queue.",
    "Bulkhead on XDP by rules and by groups: XDP leaves the first packet of a session to TCX, so it would be TCX's figure less the \
     way there, as under \"every packet a new session\".",
    "A bare XDP redirect between sockets: it hands over checksums that the sender left to its interface unfinished, and \
     no socket takes such packets. Bulkhead on XDP finishes them.",
    "The bare redirects by rules, groups, commits and members: they have none.",
    "Commits and members as the daemon is told of them, over its socket or from a feed: timed is the data plane, as the others' \
     tools are without whoever calls them.",
];

impl Report {
    /// Judges the results.
    #[must_use]
    pub fn new(environment: Environment, method: Method, results: Results) -> Self {
        let (promises, ratios) = promises::judge(&results);
        Self {
            environment,
            method,
            promises,
            ratios,
            results,
        }
    }

    /// What a reader must know beside the tables.
    #[must_use]
    pub fn preface(&self) -> String {
        let (environment, method) = (&self.environment, &self.method);
        format!(
            "{} on {} ({} CPUs), Linux {}, {}, {}, commit {}.\nMedians (smallest - largest) of {} interleaved rounds of {} \
             s; source, firewall and sink share one CPU, rates are per second of its time. The run took {} min {} s.\n",
            environment.date,
            environment.cpu,
            environment.cpus,
            environment.kernel,
            environment.nftables,
            environment.ipset,
            environment.commit,
            method.rounds,
            method.seconds,
            method.took_seconds / 60,
            method.took_seconds % 60
        )
    }

    /// All tables for the terminal.
    #[must_use]
    pub fn terminal(&self) -> String {
        let mut text = String::new();
        for (_, table) in self.tables() {
            text += &table.terminal();
            text.push('\n');
        }
        text + &self.notes()
    }

    /// All of it as Markdown; `plots` has the names of the plots' files.
    #[must_use]
    pub fn markdown(&self, title: &str, plots: &[(Scenario, String)]) -> String {
        let mut text = format!("# {title}\n\n{}\n", self.preface());
        for (scenario, table) in self.tables() {
            text += &table.markdown();
            for (_, file) in plots.iter().filter(|(of, _)| Some(*of) == scenario) {
                text += &format!("\n![{}]({file})\n", table.title);
            }
            text.push('\n');
        }
        text += &self.notes();
        text + &format!("\n## Not measured\n\n* {}\n", LEFT_OUT.join("\n* "))
    }

    /// A plot for each scenario: lines over its axis where it has several points there, bars where it has none.
    #[must_use]
    pub fn plots(&self) -> Vec<(Scenario, String)> {
        Scenario::ALL
            .into_iter()
            .filter_map(|scenario| Some((scenario, plot::svg(scenario, &self.results)?)))
            .collect()
    }

    fn notes(&self) -> String {
        if self.results.notes.is_empty() {
            return String::new();
        }
        format!("## Notes\n\n* {}\n", self.results.notes.join("\n* "))
    }

    fn tables(&self) -> Vec<(Option<Scenario>, Table)> {
        let mut tables = vec![(None, self.promise_table()), (None, self.ratio_table())];
        for scenario in Scenario::ALL {
            tables.push((Some(scenario), scenario_table(scenario, &self.results)));
            if scenario == Scenario::Established {
                tables.push((None, self.test_run_table()));
            }
        }
        tables.retain(|(_, table)| !table.rows.is_empty());
        tables
    }

    fn promise_table(&self) -> Table {
        let mut table = Table::new("Promises", &["promise", "target", "measured", "kept"]);
        for definition in &PROMISES {
            let Some(promise) = self.promises.iter().find(|promise| promise.id == definition.id) else {
                continue;
            };
            let [min, max] = promise.spread;
            let (sign, target) = match definition.target {
                Target::AtLeast(target) => (">=", target),
                Target::AtMost(target) => ("<=", target),
            };
            let against = match definition.against {
                "" => String::new(),
                against => format!(", against {against}"),
            };
            table.row([
                format!("{}{against}", definition.what),
                format!("{sign} {target} {}", unit_word(promise.unit))
                    .trim_end()
                    .to_owned(),
                spread(&Summary {
                    median: promise.measured,
                    min,
                    max,
                }),
                if promise.met { "yes" } else { "NO" }.to_owned(),
            ]);
        }
        table
    }

    fn ratio_table(&self) -> Table {
        let mut table = Table::new("Further ratios", &["figure", "over", "of", "ratio"]);
        for ratio in &self.ratios {
            table.row([
                name(&ratio.of),
                name(&ratio.over),
                ratio.quantity.to_owned(),
                spread(&ratio.ratio),
            ]);
        }
        table
    }

    fn test_run_table(&self) -> Table {
        let mut table = Table::new(
            "Inside the programs (test run)",
            &["program", "packet", "ns per packet"],
        );
        for case in &self.results.test_run {
            table.row([
                case.program.to_owned(),
                format!("{}: {}", case.case, case.description),
                format!("{:.0}", case.ns),
            ]);
        }
        table
    }
}

/// A ratio needs no word.
fn unit_word(unit: &str) -> &str {
    if unit == "ratio" { "" } else { unit }
}

/// A point in words.
fn name(point: &Point) -> String {
    let mut text = format!("{}: {}", point.scenario.id(), point.contender.id());
    if let (Some(axis), true) = (point.scenario.axis(), point.at > 0) {
        text += &format!(", {} {axis}", thousands(point.at));
    }
    if !point.variant.is_empty() {
        text += &format!(", {}", point.variant);
    }
    text
}

/// One row for each contender and variant, one column for each point of the axis.
fn scenario_table(scenario: Scenario, results: &Results) -> Table {
    let series: Vec<&Series> = results.of(scenario).collect();
    let mut columns: Vec<u64> = series.iter().map(|series| series.point.at).collect();
    columns.sort_unstable();
    columns.dedup();
    let mut head = vec!["contender".to_owned(), "unit".to_owned()];
    for at in &columns {
        head.push(match scenario.axis() {
            Some(axis) => format!("{} {axis}", thousands(*at)),
            None => "measured".to_owned(),
        });
    }
    if scenario == Scenario::Established {
        head.push("ns per packet".to_owned());
    }
    head.push("lost at most".to_owned());
    let mut table = Table::with_head(scenario.title(), head);
    let mut rows: Vec<(Point, &Series)> = Vec::new();
    for one in &series {
        let row = Point { at: 0, ..one.point };
        if !rows.iter().any(|(known, _)| *known == row) {
            rows.push((row, one));
        }
    }
    for (row, first) in rows {
        let of_row = |at: u64| results.find(&Point { at, ..row });
        let mut cells = vec![row.contender.description().to_owned()];
        if !row.variant.is_empty() {
            cells[0] += &format!(": {}", row.variant);
        }
        cells.push(first.unit.sign().to_owned());
        for at in &columns {
            cells.push(of_row(*at).map_or_else(String::new, |series| spread(&series.summary)));
        }
        if scenario == Scenario::Established {
            cells.push(format!("{:.0}", 1e3 / first.summary.median));
        }
        let loss = columns
            .iter()
            .filter_map(|at| of_row(*at))
            .map(|series| series.loss)
            .fold(0.0, f64::max);
        cells.push(format!("{:.2} %", loss * 100.0));
        table.push(cells);
    }
    table
}

/// Median and ends with as many decimals as the median deserves.
pub fn spread(summary: &Summary) -> String {
    let decimals = decimals(summary.median);
    format!(
        "{:.decimals$} ({:.decimals$} - {:.decimals$})",
        summary.median, summary.min, summary.max
    )
}

/// Three digits that count, as far as there are decimals to leave out.
fn decimals(value: f64) -> usize {
    match value.abs() {
        v if v == 0.0 || v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 0.1 => 2,
        _ => 4,
    }
}

/// A number with its thousands set apart.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests;
