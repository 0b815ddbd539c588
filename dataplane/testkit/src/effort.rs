//! How much a test does and how long it waits, on a machine slower than those that tests are written for.
//!
//! Owns the one number that says how much slower, [`slowness`]. What a test asserts does not depend on it: only amounts do
//! (random packets, rounds, bytes, seconds of load), by [`effort`], and times, by [`patience`]. Assumes that whoever
//! emulates a machine says so; nothing is measured, so that a machine which is slow by a fault still fails its tests.

use std::{
    ops::Div,
    sync::LazyLock,
    time::{Duration, Instant},
};

/// How many times slower than usual this machine is: 1 to 100. `cargo xtask vm-test` sets it where a machine is emulated.
pub const SLOWNESS_VARIABLE: &str = "BULKHEAD_SLOWNESS";

static SLOWNESS: LazyLock<u32> = LazyLock::new(|| {
    let Ok(text) = std::env::var(SLOWNESS_VARIABLE) else {
        return 1;
    };
    text.parse()
        .ok()
        .filter(|factor| (1..=100).contains(factor))
        .unwrap_or_else(|| panic!("{SLOWNESS_VARIABLE}={text}: a number from 1 to 100 is wanted"))
});

/// How many times slower than usual this machine is.
///
/// # Panics
/// If [`SLOWNESS_VARIABLE`] is set to something else than a number from 1 to 100.
#[must_use]
pub fn slowness() -> u32 {
    *SLOWNESS
}

/// A time to wait that is enough on a usual machine, as it is enough on this one. For what is awaited, for limits, and for how
/// long something is to stay away.
#[must_use]
pub fn patience(usual: Duration) -> Duration {
    usual * slowness()
}

/// When [`patience`] ends that begins now.
#[must_use]
pub fn deadline(usual: Duration) -> Instant {
    Instant::now() + patience(usual)
}

/// An amount of work that takes about as long on this machine as `usual` on a usual one. For amounts of which more only
/// finds more; what a test needs to find anything at all is not an amount in this sense.
#[must_use]
pub fn effort<N: Div<Output = N> + From<u8> + Ord>(usual: N) -> N {
    let slowness = u8::try_from(slowness()).unwrap_or(u8::MAX);
    (usual / N::from(slowness)).max(N::from(1))
}
