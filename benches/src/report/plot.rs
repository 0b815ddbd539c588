//! A scenario's figures as SVG: medians over the axis, both logarithmic, whiskers from the smallest to the largest round;
//! bars where there is no axis.
//!
//! Written by hand: two axes, lines and a legend are two hundred lines, and no font, no rasteriser and no crate with a
//! hundred features is wanted for them. Colours are those of Okabe and Ito, which people with colour-blindness tell
//! apart; the background is white, so that it can be read wherever it is shown.

mod bars;

use std::fmt::Write as _;

use super::thousands;
use crate::plan::Scenario;
use crate::series::{Point, Results, Series, Unit};

const WIDTH: f64 = 820.0;
const LEFT: f64 = 70.0;
const PLOT_WIDTH: f64 = 420.0;
const TOP: f64 = 44.0;
const PLOT_HEIGHT: f64 = 260.0;
const HEIGHT: f64 = TOP + PLOT_HEIGHT + 56.0;
const COLOURS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999",
];

/// One line: a contender's points from left to right.
struct Line<'a> {
    name: String,
    series: Vec<&'a Series>,
}

/// A range of values as a logarithmic axis, from a power of ten to a power of ten.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    length: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, from: f64, length: f64) -> Option<Self> {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(|value| *value > 0.0) {
            (low, high) = (low.min(value.log10()), high.max(value.log10()));
        }
        if low > high {
            return None;
        }
        let (low, mut high) = (low.floor(), high.ceil());
        if high <= low {
            high = low + 1.0;
        }
        Some(Self {
            low,
            high,
            from,
            length,
        })
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value.max(f64::MIN_POSITIVE).log10() - self.low) / (self.high - self.low);
        self.from + share.clamp(0.0, 1.0) * self.length
    }

    fn powers(&self) -> impl Iterator<Item = f64> {
        (self.low as i32..=self.high as i32).map(|power| 10f64.powi(power))
    }
}

/// The plot of a scenario; `None` where there is an axis, but no line of two points on it, or nothing was measured.
#[must_use]
pub fn svg(scenario: Scenario, results: &Results) -> Option<String> {
    let Some(axis) = scenario.axis() else {
        return bars::svg(scenario, results);
    };
    // One unit per plot: that of the first figure.
    let unit = results.of(scenario).next()?.unit;
    let lines = lines(scenario, results, unit);
    if !lines.iter().any(|line| line.series.len() > 1) {
        return None;
    }
    let all = || lines.iter().flat_map(|line| &line.series);
    let x = Axis::over(all().map(|series| series.point.at as f64), LEFT, PLOT_WIDTH)?;
    let values = all().flat_map(|series| [series.summary.min, series.summary.max]);
    let y = Axis::over(values, TOP + PLOT_HEIGHT, -PLOT_HEIGHT)?;

    let mut text = head(scenario, unit, HEIGHT);
    grid(&mut text, &x, &y);
    let _infallible = writeln!(
        text,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{axis}</text>",
        LEFT + PLOT_WIDTH / 2.0,
        HEIGHT - 12.0
    );
    for (index, line) in lines.iter().enumerate() {
        draw(&mut text, index, line, &x, &y);
    }
    text += "</svg>\n";
    Some(text)
}

/// The beginning of a plot: its size, its background, what it is of.
fn head(scenario: Scenario, unit: Unit, height: f64) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"14\" font-weight=\"bold\">{}, {}</text>\n",
        escape(scenario.title()),
        unit.sign()
    )
}

fn lines(scenario: Scenario, results: &Results, unit: Unit) -> Vec<Line<'_>> {
    let mut lines: Vec<(Point, Line<'_>)> = Vec::new();
    for series in results.of(scenario).filter(|series| series.unit == unit) {
        let key = Point {
            at: 0,
            ..series.point
        };
        let index = lines.iter().position(|(known, _)| *known == key);
        let index = index.unwrap_or_else(|| {
            let name = name(&series.point);
            let series = Vec::new();
            lines.push((key, Line { name, series }));
            lines.len() - 1
        });
        lines[index].1.series.push(series);
    }
    for (_, line) in &mut lines {
        line.series.sort_by_key(|series| series.point.at);
    }
    lines.into_iter().map(|(_, line)| line).collect()
}

/// Whose figure it is and, where there are several, which.
fn name(point: &Point) -> String {
    match point.variant {
        "" => point.contender.id().to_owned(),
        variant => format!("{}, {variant}", point.contender.id()),
    }
}

fn grid(text: &mut String, x: &Axis, y: &Axis) {
    let (right, bottom) = (LEFT + PLOT_WIDTH, TOP + PLOT_HEIGHT);
    for value in y.powers() {
        let at = y.place(value);
        let _infallible = writeln!(
            text,
            "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#dddddd\"/>\n\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            at + 4.0,
            label(value)
        );
    }
    for value in x.powers() {
        let at = x.place(value);
        let _infallible = writeln!(
            text,
            "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\" stroke=\"#dddddd\"/>\n\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            label(value)
        );
    }
}

fn draw(text: &mut String, index: usize, line: &Line<'_>, x: &Axis, y: &Axis) {
    let colour = COLOURS[index % COLOURS.len()];
    // More lines than colours: the second turn is dashed.
    let dash = if index < COLOURS.len() {
        ""
    } else {
        " stroke-dasharray=\"5 3\""
    };
    let mut path = String::new();
    for series in &line.series {
        let summary = &series.summary;
        let (at, middle) = (x.place(series.point.at as f64), y.place(summary.median));
        let (low, high) = (y.place(summary.min), y.place(summary.max));
        let _infallible = write!(path, "{at:.1},{middle:.1} ");
        let _infallible = writeln!(
            text,
            "<line x1=\"{at:.1}\" y1=\"{low:.1}\" x2=\"{at:.1}\" y2=\"{high:.1}\" stroke=\"{colour}\"/>\n\
             <circle cx=\"{at:.1}\" cy=\"{middle:.1}\" r=\"3.5\" fill=\"{colour}\"/>"
        );
    }
    let _infallible = writeln!(
        text,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
        path.trim_end()
    );
    let (left, at) = (LEFT + PLOT_WIDTH + 16.0, TOP + 8.0 + 18.0 * index as f64);
    let _infallible = writeln!(
        text,
        "<line x1=\"{left}\" y1=\"{at}\" x2=\"{}\" y2=\"{at}\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>\n\
         <text x=\"{}\" y=\"{}\">{}</text>",
        left + 18.0,
        left + 24.0,
        at + 4.0,
        escape(&line.name)
    );
}

/// A power of ten, as people write it.
fn label(value: f64) -> String {
    if value >= 1.0 {
        thousands(value.round() as u64)
    } else {
        let digits = (-value.log10()).round().max(0.0) as usize;
        format!("{value:.digits$}")
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::Contender;

    fn results(points: &[u64]) -> Results {
        let mut results = Results::default();
        for contender in [Contender::BulkheadTcx, Contender::Nftables] {
            for &at in points {
                let point = Point {
                    scenario: Scenario::Rules,
                    contender,
                    variant: "<over> all",
                    at,
                };
                results.add(point, Unit::Mpps, vec![1.0, 0.5, 2.0]);
            }
        }
        results
    }

    #[test]
    fn every_contender_is_a_line_with_a_circle_for_each_point() {
        let text = svg(Scenario::Rules, &results(&[10, 1_000])).expect("a plot");
        assert_eq!(text.matches("<polyline").count(), 2, "{text}");
        assert_eq!(text.matches("<circle").count(), 4, "{text}");
        assert!(text.contains("nftables, &lt;over&gt; all"), "{text}");
        assert!(!text.contains("NaN"), "{text}");
    }

    #[test]
    fn without_a_second_point_on_the_axis_there_is_no_plot() {
        assert_eq!(svg(Scenario::Rules, &results(&[10])), None);
        assert_eq!(svg(Scenario::Rules, &Results::default()), None);
    }

    #[test]
    fn axes_go_from_power_to_power_and_grow_upwards() {
        let axis = Axis::over([30.0, 2_000.0].into_iter(), 300.0, -200.0).expect("an axis");
        assert_eq!((axis.low, axis.high), (1.0, 4.0));
        assert!((axis.place(10.0) - 300.0).abs() < 1e-9);
        assert!((axis.place(10_000.0) - 100.0).abs() < 1e-9);
        assert_eq!(label(1_000.0), "1,000");
        assert_eq!(label(0.01), "0.01");
    }
}
