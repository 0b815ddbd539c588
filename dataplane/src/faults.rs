//! Writes to the kernel that fail when a test says so; not in what is released.
//!
//! One place stands for all: whatever changes a map, and each request to the control program, passes [`point`] first. A plan
//! is its thread's own, so the engine's threads and other tests notice nothing.

use std::{cell::RefCell, io};

/// Which of a thread's writes fail, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// This one alone.
    Once(u32),
    /// This one and the one so many later: the write, and one of its undo.
    Twice(u32, u32),
    /// This one and all behind it.
    From(u32),
}

impl Plan {
    fn fails(self, write: u32) -> bool {
        match self {
            Self::Once(n) => write == n,
            Self::Twice(n, later) => write == n || write == n + later,
            Self::From(n) => write >= n,
        }
    }
}

/// What became of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Writes there were.
    pub(crate) writes: u32,
    /// Writes that failed by it.
    pub(crate) failed: u32,
}

thread_local! {
    static PLAN: RefCell<Option<(Plan, Outcome)>> = const { RefCell::new(None) };
}

/// Runs `body` in which writes fail as planned.
pub(crate) fn with<R>(plan: Plan, body: impl FnOnce() -> R) -> (R, Outcome) {
    PLAN.with_borrow_mut(|current| *current = Some((plan, Outcome::default())));
    let result = body();
    let outcome = PLAN.with_borrow_mut(Option::take).map(|(_, outcome)| outcome);
    (result, outcome.unwrap_or_default())
}

/// A write to the kernel: an error if it is planned to fail.
pub(crate) fn point() -> io::Result<()> {
    PLAN.with_borrow_mut(|current| {
        let Some((plan, outcome)) = current else {
            return Ok(());
        };
        outcome.writes += 1;
        if plan.fails(outcome.writes) {
            outcome.failed += 1;
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        Ok(())
    })
}
