//! Medians, spreads and ratios of rounds.
//!
//! Rounds are interleaved: round N of every contender ran within seconds of each other. So a ratio is taken round by
//! round, and the median is taken of the ratios: what slows the whole machine down for a while cancels out.

use serde::Serialize;

/// The middle and the ends of some rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// The middle value; of an even number, the mean of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// Summarises values; `None` if there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self { median, min, max })
    }

    /// Summarises the ratio of two contenders, round by round. A round that one of them lacks does not count.
    #[must_use]
    pub fn of_ratios(values: &[f64], peers: &[f64]) -> Option<Self> {
        Self::of(
            values
                .iter()
                .zip(peers)
                .filter(|(_, peer)| **peer > 0.0)
                .map(|(value, peer)| value / peer),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(median: f64, min: f64, max: f64) -> Option<Summary> {
        Some(Summary { median, min, max })
    }

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_two() {
        assert_eq!(Summary::of([3.0, 1.0, 2.0]), summary(2.0, 1.0, 3.0));
        assert_eq!(Summary::of([4.0, 1.0, 2.0, 3.0]), summary(2.5, 1.0, 4.0));
        assert_eq!(Summary::of([7.0]), summary(7.0, 7.0, 7.0));
        assert_eq!(Summary::of([]), None);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The machine ran at half speed in round two: the ratio does not notice, that of the medians would.
        assert_eq!(
            Summary::of_ratios(&[4.0, 2.0, 4.4], &[2.0, 1.0, 2.0]),
            summary(2.0, 2.0, 2.2)
        );
    }

    #[test]
    fn rounds_without_a_peer_do_not_count() {
        assert_eq!(
            Summary::of_ratios(&[4.0, 2.0, 9.0], &[2.0, 0.0]),
            summary(2.0, 2.0, 2.0)
        );
        assert_eq!(Summary::of_ratios(&[4.0], &[]), None);
    }
}
