//! Whether long-lived threads make progress: each has a pulse, and whoever asks sees which one stands still.
//!
//! A thread beats at each turn of its loop, and rests where it waits for something that may never come. Whoever neither rests
//! nor has beaten for as long as a turn may take is stuck; whoever ended without being told to has panicked. Costs a thread
//! one store.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};
use std::time::{Duration, Instant};

/// Instead of a time: it rests.
const RESTS: u64 = u64::MAX;

/// A thread that stands still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// The thread's name.
    pub thread: String,
    /// Since when it has made no progress; `None`: it has ended.
    pub since: Option<Duration>,
}

#[derive(Debug)]
struct State {
    name: String,
    /// How long a turn may take.
    patience: Duration,
    /// Milliseconds since `born`, or [`RESTS`].
    last: AtomicU64,
    ended: AtomicBool,
    born: Instant,
}

impl State {
    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(RESTS - 1)
    }
}

/// A thread's own end. Dropped when the thread ends, however it ends.
#[derive(Debug)]
pub struct Pulse(Arc<State>);

impl Pulse {
    /// The thread makes progress.
    pub fn beat(&self) {
        self.0.last.store(self.0.now(), Ordering::Relaxed);
    }

    /// The thread waits for something that may never come, until it beats again.
    pub fn rest(&self) {
        self.0.last.store(RESTS, Ordering::Relaxed);
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
    }
}

/// The pulses of a process's threads.
#[derive(Clone, Debug, Default)]
pub struct Pulses(Arc<Mutex<Vec<Arc<State>>>>);

impl Pulses {
    /// Listens to one more thread, of which a turn may take so long.
    #[must_use]
    pub fn take(&self, name: &str, patience: Duration) -> Pulse {
        let state = Arc::new(State {
            name: name.to_owned(),
            patience,
            last: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            born: Instant::now(),
        });
        self.lock().push(state.clone());
        Pulse(state)
    }

    /// The threads that stand still.
    #[must_use]
    pub fn stuck(&self) -> Vec<Stuck> {
        let stuck = |state: &Arc<State>| {
            let since = if state.ended.load(Ordering::Acquire) {
                None
            } else {
                let last = state.last.load(Ordering::Relaxed);
                let silent = Duration::from_millis(state.now().saturating_sub(last));
                if last == RESTS || silent <= state.patience {
                    return None;
                }
                Some(silent)
            };
            Some(Stuck {
                thread: state.name.clone(),
                since,
            })
        };
        self.lock().iter().filter_map(stuck).collect()
    }

    /// How many threads there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// The threads are told to end.
    pub fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<State>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stands_still_is_named_and_who_rests_is_not() {
        let pulses = Pulses::default();
        let [busy, resting, ended] =
            ["busy", "resting", "ended"].map(|name| pulses.take(name, Duration::ZERO));
        resting.rest();
        drop(ended);
        std::thread::sleep(Duration::from_millis(20));
        let stuck = pulses.stuck();
        let names: Vec<_> = stuck.iter().map(|stuck| stuck.thread.as_str()).collect();
        assert_eq!(names, ["busy", "ended"]);
        assert!(stuck[0].since >= Some(Duration::from_millis(20)) && stuck[1].since.is_none());
        let patient = pulses.take("patient", Duration::from_secs(60));
        patient.beat();
        busy.rest();
        assert_eq!(pulses.stuck().len(), 1, "only the one that ended");
        pulses.forget();
        assert!(pulses.stuck().is_empty());
    }

    #[test]
    fn a_thread_that_panics_has_ended() {
        let pulses = Pulses::default();
        let pulse = pulses.take("panics", Duration::from_secs(60));
        let thread = std::thread::spawn(move || {
            pulse.beat();
            panic!("for the test");
        });
        assert!(thread.join().is_err());
        assert_eq!(
            pulses.stuck(),
            [Stuck {
                thread: "panics".to_owned(),
                since: None
            }]
        );
    }
}
