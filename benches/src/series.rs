//! What was measured: one series of rounds for each contender at each point of a scenario.

use serde::Serialize;

use crate::contender::Contender;
use crate::frames;
use crate::plan::Scenario;
use crate::statistics::Summary;
use crate::test_run;

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Unit {
    /// Millions of packets per second of CPU time.
    #[serde(rename = "Mpps")]
    Mpps,
    /// Gigabits of payload per second of CPU time.
    #[serde(rename = "Gbit/s")]
    Gbps,
    /// Microseconds.
    #[serde(rename = "us")]
    Microseconds,
    /// Milliseconds.
    #[serde(rename = "ms")]
    Milliseconds,
    /// Millions of bytes.
    #[serde(rename = "MB")]
    Megabytes,
    /// Packets.
    #[serde(rename = "packets")]
    Packets,
}

impl Unit {
    /// Its sign.
    #[must_use]
    pub const fn sign(self) -> &'static str {
        match self {
            Self::Mpps => "Mpps",
            Self::Gbps => "Gbit/s",
            Self::Microseconds => "µs",
            Self::Milliseconds => "ms",
            Self::Megabytes => "MB",
            Self::Packets => "packets",
        }
    }
}

/// Where a series stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Point {
    /// The question.
    pub scenario: Scenario,
    /// Who was asked.
    pub contender: Contender,
    /// Which kind of traffic or which figure, where a scenario has several; else empty.
    pub variant: &'static str,
    /// The place on the scenario's axis; 0 if it has none.
    pub at: u64,
}

/// All rounds of a point.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    /// Where.
    #[serde(flatten)]
    pub point: Point,
    /// Of what.
    pub unit: Unit,
    /// Median and ends.
    #[serde(flatten)]
    pub summary: Summary,
    /// The largest share of packets lost in a round; frames that the source could not send count.
    pub loss: f64,
    /// Every round.
    pub rounds: Vec<f64>,
    /// What was counted in each round, where frames were.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<frames::Round>,
}

/// Everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Results {
    /// In the order in which they were measured.
    pub series: Vec<Series>,
    /// Nanoseconds inside the programs.
    pub test_run: Vec<test_run::Case>,
    /// What a reader must know of this run.
    pub notes: Vec<String>,
}

impl Results {
    /// Adds a series; one without rounds is left out.
    pub fn add(&mut self, point: Point, unit: Unit, rounds: Vec<f64>) {
        self.add_lossy(point, unit, rounds, 0.0);
    }

    /// The same where packets were lost.
    pub fn add_lossy(&mut self, point: Point, unit: Unit, rounds: Vec<f64>, loss: f64) {
        let Some(summary) = Summary::of(rounds.iter().copied()) else {
            return;
        };
        self.series.push(Series {
            point,
            unit,
            summary,
            loss,
            rounds,
            frames: Vec::new(),
        });
    }

    /// Adds rounds of frames.
    pub fn add_frames(&mut self, point: Point, frames: Vec<frames::Round>) {
        let rounds: Vec<f64> = frames.iter().map(|round| round.mpps).collect();
        let loss = frames.iter().map(|round| round.loss).fold(0.0, f64::max);
        let lossy = frames.iter().filter(|round| round.loss > 0.0).count();
        if lossy > 0 {
            self.notes.push(format!(
                "{} at {} of {} {}: {lossy} of {} rounds lost frames in the source's ring, at most {:.2} %; rates count \
                 what arrived",
                point.contender.id(),
                point.at,
                point.scenario.id(),
                point.variant,
                frames.len(),
                loss * 100.0
            ));
        }
        let left: Vec<f64> = frames
            .iter()
            .map(|round| round.left_to_tcx)
            .filter(|left| *left > 0.0)
            .collect();
        if let Some(most) = left.iter().copied().reduce(f64::max) {
            self.notes.push(format!(
                "{} at {} of {} {}: in {} of {} rounds XDP left packets to TCX, at most {:.2} %",
                point.contender.id(),
                point.at,
                point.scenario.id(),
                point.variant,
                left.len(),
                frames.len(),
                most * 100.0
            ));
        }
        self.add_lossy(point, Unit::Mpps, rounds, loss);
        if let Some(series) = self.series.last_mut().filter(|series| series.point == point) {
            series.frames = frames;
        }
    }

    /// The series of a point.
    #[must_use]
    pub fn find(&self, point: &Point) -> Option<&Series> {
        self.series.iter().find(|series| series.point == *point)
    }

    /// All series of a scenario.
    pub fn of(&self, scenario: Scenario) -> impl Iterator<Item = &Series> {
        self.series
            .iter()
            .filter(move |series| series.point.scenario == scenario)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const POINT: Point = Point {
        scenario: Scenario::Established,
        contender: Contender::Kernel,
        variant: "",
        at: 0,
    };

    #[test]
    fn a_round_that_loses_frames_is_said_and_counts_what_arrived() {
        let second = Duration::from_secs(1);
        let mut results = Results::default();
        results.add_frames(
            POINT,
            vec![
                frames::Round::new(2_000_000, 2_000_000, second, second),
                frames::Round::new(2_000_000, 1_900_000, second, second),
            ],
        );
        let series = results.find(&POINT).expect("a series");
        assert!((series.loss - 0.05).abs() < 1e-9);
        assert_eq!(series.rounds, [2.0, 1.9]);
        assert_eq!(results.notes.len(), 1, "{:?}", results.notes);
        assert!(results.notes[0].contains("1 of 2 rounds"), "{:?}", results.notes);
    }

    #[test]
    fn what_has_no_rounds_is_no_series() {
        let mut results = Results::default();
        results.add_frames(POINT, Vec::new());
        results.add(POINT, Unit::Gbps, Vec::new());
        assert_eq!(results, Results::default());
    }
}
