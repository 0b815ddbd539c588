//! When a list is fetched next.
//!
//! After a success the interval, after failures soon and then ever more patiently. Spread by a tenth either way, so that
//! a fleet that was started at once does not ask at once. Randomness is passed in.

use std::time::Duration;

/// The first wait after a failure, unless the interval is shorter.
const FIRST: Duration = Duration::from_secs(5);
/// The longest wait after failures, unless the interval is longer; no more than ten intervals either.
const LONGEST: Duration = Duration::from_secs(300);

/// How often, and how it went so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The time between fetches that work.
    pub interval: Duration,
    /// How many in a row have failed.
    pub failures: u32,
}

impl Schedule {
    /// A schedule that nothing has happened on.
    pub const fn new(interval: Duration) -> Self {
        Self {
            interval,
            failures: 0,
        }
    }

    /// How long to wait after a fetch; `random` is any number.
    pub fn next(&mut self, worked: bool, random: u64) -> Duration {
        if worked {
            self.failures = 0;
            return spread(self.interval, random);
        }
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let most = self.interval.max(LONGEST.min(self.interval * 10));
        spread((FIRST.min(self.interval) * (1 << doublings)).min(most), random)
    }
}

/// From nine tenths to eleven tenths.
fn spread(wait: Duration, random: u64) -> Duration {
    let thousandths = 900 + u32::try_from(random % 201).unwrap_or(100);
    wait * thousandths / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIDDLE: u64 = 100;

    #[test]
    fn failures_are_retried_soon_then_patiently() {
        let waits = |interval, times| {
            let mut schedule = Schedule::new(Duration::from_secs(interval));
            (0..times)
                .map(|_| schedule.next(false, MIDDLE).as_secs())
                .collect::<Vec<_>>()
        };
        assert_eq!(waits(30, 8), [5, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(waits(1, 6), [1, 2, 4, 8, 10, 10]);
        assert_eq!(waits(43_200, 15)[10..], [5_120, 10_240, 20_480, 40_960, 43_200]);
        assert_eq!(waits(604_800, 100)[99], 327_680);
        let mut schedule = Schedule::new(Duration::from_secs(30));
        schedule.next(false, MIDDLE);
        assert_eq!(schedule.next(true, MIDDLE), Duration::from_secs(30));
        assert_eq!(schedule.failures, 0);
    }

    #[test]
    fn waits_are_spread_by_a_tenth() {
        let wait = |random| spread(Duration::from_secs(100), random);
        assert_eq!(
            (wait(0).as_secs(), wait(200).as_secs(), wait(201).as_secs()),
            (90, 110, 90)
        );
    }
}
