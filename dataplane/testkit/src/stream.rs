//! A conversation that never stops: exchange after exchange over one TCP connection, digests compared, on a thread of
//! its own, while something else happens to the network.
//!
//! Owns the connection and the thread. What it came to is a [`StreamReport`]: how much went over, the longest time
//! any exchange took (a stall shows here), and what broke it, if anything did.

use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::effort::patience;
use crate::outcome::Outcome;
use crate::tcp::TcpConversation;

/// Between two exchanges: the stream is to be there, not to fill the machine.
const PAUSE: Duration = Duration::from_millis(2);
/// How long anything may take that waits for the stream.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a stream carried so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamReport {
    /// Exchanges whose content arrived unchanged both ways.
    pub exchanges: u64,
    /// Bytes of content, both ways.
    pub bytes: u64,
    /// The longest time an exchange took, the one under way included.
    pub longest: Duration,
    /// What ended it.
    pub broken: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    report: StreamReport,
    began: Option<Instant>,
    pause: bool,
    stop: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running stream; dropping it closes the connection.
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    local: SocketAddr,
    seen_as: SocketAddr,
}

impl Stream {
    /// Exchanges `bytes` up and as many down over and over, like a program that has not asked for ICMP errors.
    pub fn start(conversation: TcpConversation, bytes: u64) -> Result<Self> {
        conversation.outlive_errors()?;
        let shared = Arc::new(Shared::default());
        let (local, seen_as) = (conversation.local(), conversation.seen_as());
        let carrier = Arc::clone(&shared);
        let thread = thread::spawn(move || carry(&carrier, conversation, bytes));
        Ok(Self {
            shared,
            thread: Some(thread),
            local,
            seen_as,
        })
    }

    /// The client's own address.
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// The client's address as the server sees it.
    pub const fn seen_as(&self) -> SocketAddr {
        self.seen_as
    }

    /// What it carried so far.
    pub fn report(&self) -> StreamReport {
        let state = self.shared.lock();
        let mut report = state.report.clone();
        if let Some(began) = state.began {
            report.longest = report.longest.max(began.elapsed());
        }
        report
    }

    /// Returns when no exchange is under way and none will begin.
    pub fn pause(&self) -> Result<()> {
        self.shared.lock().pause = true;
        self.await_state("rests", |state| {
            state.began.is_none() || state.report.broken.is_some()
        })
    }

    /// Goes on after [`Self::pause`].
    pub fn resume(&self) {
        self.shared.lock().pause = false;
        self.shared.changed.notify_all();
    }

    /// Returns when this many more exchanges were completed; an error if the stream breaks or stalls first.
    pub fn advance(&self, exchanges: u64) -> Result<()> {
        let goal = self.report().exchanges + exchanges;
        self.await_state("advances", |state| {
            state.report.exchanges >= goal || state.report.broken.is_some()
        })?;
        let report = self.report();
        ensure!(
            report.broken.is_none(),
            "the stream of {} broke: {report:?}",
            self.local
        );
        Ok(())
    }

    fn await_state(&self, what: &str, reached: impl Fn(&State) -> bool) -> Result<()> {
        let state = self.shared.lock();
        let (state, timeout) = self
            .shared
            .changed
            .wait_timeout_while(state, patience(PATIENCE), |state| !reached(state))
            .unwrap_or_else(PoisonError::into_inner);
        ensure!(
            !timeout.timed_out(),
            "waited {} s until the stream of {} {what}: {:?}",
            patience(PATIENCE).as_secs(),
            self.local,
            state.report
        );
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn carry(shared: &Shared, mut conversation: TcpConversation, bytes: u64) {
    loop {
        {
            let mut state = shared.lock();
            while state.pause && !state.stop {
                state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stop {
                break;
            }
            state.began = Some(Instant::now());
        }
        let outcome = conversation.exchange(bytes, bytes);
        let mut state = shared.lock();
        let took = state.began.take().map_or(Duration::ZERO, |began| began.elapsed());
        state.report.longest = state.report.longest.max(took);
        match outcome {
            Ok(Outcome::Answered(_)) => {
                state.report.exchanges += 1;
                state.report.bytes += 2 * bytes;
            }
            Ok(other) => state.report.broken = Some(other.describe()),
            Err(error) => state.report.broken = Some(format!("{error:#}")),
        }
        let broken = state.report.broken.is_some();
        drop(state);
        shared.changed.notify_all();
        if broken {
            break;
        }
        thread::sleep(PAUSE);
    }
    // In order, so that the session ends as a session should; a broken one cannot.
    let _closed = conversation.close();
}
