//! SIGINT, SIGTERM and SIGHUP as something to ask for, so that every exit goes through the destructors.
//!
//! Installs handlers and hears of the signals on a thread of its own. Blocks nothing: processes started later inherit
//! the mask, and a firewall that cannot hear SIGTERM does not stop (handlers do not survive `execve`).

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::signal_name;

/// The wish of somebody outside that this should end.
#[derive(Clone, Debug, Default)]
pub(super) struct Stop(Arc<(Mutex<Option<i32>>, Condvar)>);

/// What cuts the demo short.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interrupted(pub(super) i32);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted by {}", signal_name(self.0).unwrap_or("a signal"))
    }
}

impl std::error::Error for Interrupted {}

impl Stop {
    /// Begins to listen.
    pub(super) fn install() -> Result<Self> {
        let mut signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot install signal handlers")?;
        let stop = Self::default();
        let shared = stop.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for signal in &mut signals {
                    shared.ask(signal);
                }
            })
            .context("cannot start a thread")?;
        Ok(stop)
    }

    /// Asks for the end. The first signal is the one that counts.
    fn ask(&self, signal: i32) {
        let (asked, changed) = &*self.0;
        asked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(signal);
        changed.notify_all();
    }

    /// An error if the end was asked for.
    pub(super) fn check(&self) -> Result<()> {
        self.pause(Duration::ZERO)
    }

    /// Sleeps, unless the end is asked for: that is an error.
    pub(super) fn pause(&self, duration: Duration) -> Result<()> {
        let (asked, changed) = &*self.0;
        let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        let (asked, _) = changed
            .wait_timeout_while(asked, duration, |asked| asked.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        match *asked {
            Some(signal) => Err(Interrupted(signal).into()),
            None => Ok(()),
        }
    }

    /// Waits until the end is asked for.
    pub(super) fn wait(&self) -> i32 {
        let (asked, changed) = &*self.0;
        let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(signal) = *asked {
                return signal;
            }
            asked = changed.wait(asked).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_counts_and_ends_every_pause() {
        let stop = Stop::default();
        stop.check().expect("nobody asked");
        stop.ask(SIGTERM);
        stop.ask(SIGINT);
        let error = stop.pause(Duration::from_secs(3600)).expect_err("asked");
        let Interrupted(signal) = error.downcast_ref().expect("an interruption");
        assert_eq!((*signal, stop.wait()), (SIGTERM, SIGTERM));
    }
}
