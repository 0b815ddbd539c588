//! Bars: the plot of a scenario that has no axis, one bar for each contender and figure, from zero, whiskers from the
//! smallest to the largest round.
//!
//! Bulkhead's bars have a colour of their own, so that they are found. Of round trips the 99th percentiles are drawn, which
//! are promised: with the 99.9th beside them nothing could be told of the others.

use std::fmt::Write as _;

use super::{COLOURS, WIDTH, escape, head, name};
use crate::plan::Scenario;
use crate::scenario::latency;
use crate::series::{Results, Series};

const TOP: f64 = 40.0;
/// From bar to bar.
const STEP: f64 = 22.0;
const BAR_HEIGHT: f64 = 14.0;
/// Where bars begin; their names stand left of it.
const LEFT: f64 = 250.0;
/// The longest bar with its whisker; its figure stands right of it.
const LONGEST: f64 = 420.0;
const OTHERS: &str = "#999999";

/// The plot; `None` where nothing was measured.
pub fn svg(scenario: Scenario, results: &Results) -> Option<String> {
    let drawn =
        |series: &&Series| ["", latency::IDLE_P99, latency::LOADED_P99].contains(&series.point.variant);
    let all: Vec<&Series> = results.of(scenario).filter(drawn).collect();
    let first = all.first()?;
    let most = all.iter().map(|series| series.summary.max).fold(0.0, f64::max);
    let scale = LONGEST / most.max(f64::MIN_POSITIVE);
    let mut text = head(scenario, first.unit, TOP + STEP * all.len() as f64 + 12.0);
    for (index, series) in all.iter().enumerate() {
        let summary = &series.summary;
        let top = TOP + STEP * index as f64;
        let middle = top + BAR_HEIGHT / 2.0;
        let [low, median, high] =
            [summary.min, summary.median, summary.max].map(|value| (value.max(0.0) * scale).min(WIDTH));
        let colour = if series.point.contender.id().starts_with("bulkhead") {
            COLOURS[0]
        } else {
            OTHERS
        };
        let _infallible = writeln!(
            text,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LEFT}\" y=\"{top:.1}\" width=\"{median:.1}\" height=\"{BAR_HEIGHT}\" fill=\"{colour}\"/>\n\
             <line x1=\"{:.1}\" y1=\"{middle:.1}\" x2=\"{:.1}\" y2=\"{middle:.1}\" stroke=\"black\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{:.2}</text>",
            LEFT - 8.0,
            middle + 4.0,
            escape(&name(&series.point)),
            LEFT + low,
            LEFT + high,
            LEFT + high + 8.0,
            middle + 4.0,
            summary.median
        );
    }
    text += "</svg>\n";
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::Contender;
    use crate::series::{Point, Unit};

    fn results(figures: &[(Contender, &'static str, &[f64])]) -> Results {
        let mut results = Results::default();
        for (contender, variant, rounds) in figures {
            let point = Point {
                scenario: Scenario::Latency,
                contender: *contender,
                variant,
                at: 0,
            };
            results.add(point, Unit::Microseconds, rounds.to_vec());
        }
        results
    }

    #[test]
    fn bars_are_as_long_as_their_medians_and_whiskers_reach_the_ends() {
        let text = svg(
            Scenario::Latency,
            &results(&[
                (Contender::BulkheadTcx, latency::IDLE_P99, &[1.0, 2.0, 3.0]),
                (Contender::Nftables, latency::IDLE_P99, &[4.0, 4.0, 4.0]),
            ]),
        )
        .expect("a plot");
        assert!(
            text.contains("width=\"210.0\" height=\"14\" fill=\"#0072b2\""),
            "{text}"
        );
        assert!(
            text.contains("width=\"420.0\" height=\"14\" fill=\"#999999\""),
            "{text}"
        );
        assert!(text.contains("x1=\"355.0\" y1=\"47.0\" x2=\"565.0\""), "{text}");
        assert!(text.contains(">bulkhead-tcx, idle, p99</text>"), "{text}");
    }

    #[test]
    fn the_last_percentiles_are_left_to_the_table_and_nothing_is_no_plot() {
        let figures = results(&[
            (Contender::Kernel, "idle, p99.9", &[40.0]),
            (Contender::Kernel, latency::LOADED_P99, &[0.0]),
        ]);
        let text = svg(Scenario::Latency, &figures).expect("a plot");
        assert_eq!(text.matches("fill=\"#999999\"").count(), 1, "{text}");
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        assert_eq!(svg(Scenario::Latency, &results(&[])), None);
    }
}
