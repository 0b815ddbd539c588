//! How long to wait before the API is asked again: longer after each failure, and never all instances at once.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use kube::runtime::utils::Backoff;

/// The first wait.
const LEAST: Duration = Duration::from_millis(250);
/// The longest, before it is spread.
const MOST: Duration = Duration::from_secs(15);

/// Waits that double from a quarter of a second to a quarter of a minute, each spread by half of it to both sides.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    failures: u32,
}

impl Patience {
    /// The wait after one more failure; `random` spreads it.
    fn after(&mut self, random: u64) -> Duration {
        let wait = LEAST.saturating_mul(1 << self.failures.min(10)).min(MOST);
        self.failures = self.failures.saturating_add(1);
        let spread = random % (wait.as_millis().max(1) as u64);
        wait / 2 + Duration::from_millis(spread)
    }
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.after(RandomState::new().hash_one(self.failures)))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_a_limit_and_are_spread() {
        let mut patience = Patience::default();
        let least: Vec<u128> = (0..9).map(|_| patience.after(0).as_millis()).collect();
        assert_eq!(least, [125, 250, 500, 1_000, 2_000, 4_000, 7_500, 7_500, 7_500]);
        for _ in 0..100 {
            let wait = patience.next().expect("there is always a next time");
            assert!((7_500..22_500).contains(&wait.as_millis()), "{wait:?}");
        }
        patience.failures = u32::MAX;
        assert!(patience.after(u64::MAX) < MOST * 2);
        patience.reset();
        assert!(patience.after(u64::MAX) < LEAST * 2);
    }
}
