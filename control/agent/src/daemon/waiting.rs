//! A start that waits: for interfaces that the configuration names and that are not there yet; and a stop that takes its time.
//!
//! Networks are attached to a container one after the other, some after it has started. Until all are there nothing is
//! touched and nothing is enforced; which are missing is said at once, whenever that changes, and every ten seconds. A link that
//! appears is heard of by netlink. A signal to stop ends the wait.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bulkhead_dataplane::netlink::{Event, Monitor};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::Signals;

use crate::configuration::Refused;
use crate::launch::Terms;
use crate::probes::Probes;

/// How often it is said again what is missing.
const SAID_AGAIN: Duration = Duration::from_secs(10);
/// How often signals are looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Attempts something until no interface is missing for it. `None`: a signal came first.
///
/// # Errors
/// Whatever else is wrong; a missing interface too, if it is not to be waited for.
pub fn patiently<T>(
    terms: &Terms,
    signals: &mut Signals,
    probes: &Probes,
    mut attempt: impl FnMut() -> Result<T>,
) -> Result<Option<T>> {
    if !terms.wait {
        return attempt().map(Some);
    }
    // Subscribed before anything is looked at, so that no link comes in between.
    let mut monitor = Monitor::connect().context("cannot hear of new interfaces")?;
    let mut said: Option<(Vec<String>, Instant)> = None;
    loop {
        let missing = match attempt() {
            Ok(done) => return Ok(Some(done)),
            Err(error) => match error.downcast_ref::<Refused>() {
                Some(refused) if !refused.missing.is_empty() => refused.missing.clone(),
                _ => return Err(error),
            },
        };
        let known = said
            .as_ref()
            .is_some_and(|(before, when)| *before == missing && when.elapsed() < SAID_AGAIN);
        if !known {
            let names = missing.join(", ");
            tracing::warn!(
                missing = names,
                "waiting for data interfaces; nothing is enforced until all are there"
            );
            probes.waiting(format!("waiting for data interfaces: {names}"));
            said = Some((missing, Instant::now()));
        }
        let next = said
            .as_ref()
            .map_or_else(Instant::now, |(_, when)| *when + SAID_AGAIN);
        if !until_link(&mut monitor, signals, next)? {
            return Ok(None);
        }
    }
}

/// Waits for a link that comes or goes, or until then. False: for a signal to stop.
fn until_link(monitor: &mut Monitor, signals: &mut Signals, until: Instant) -> Result<bool> {
    while Instant::now() < until {
        if signals.pending().any(|signal| signal != SIGHUP) {
            return Ok(false);
        }
        let event = monitor.next(LOOK).context("cannot hear of new interfaces")?;
        if matches!(
            event,
            Some(Event::LinkChanged(_) | Event::LinkGone { .. } | Event::Overrun)
        ) {
            return Ok(true);
        }
    }
    Ok(true)
}

/// Goes on for a while before a stop, not ready any more, so that whoever sends traffic here learns to send it elsewhere. New
/// conversations are forwarded as before: some come from those who have not learnt yet. Another signal ends it.
pub fn drain(time: Duration, signals: &mut Signals, probes: &Probes) {
    probes.draining();
    if time.is_zero() {
        return;
    }
    tracing::info!(
        seconds = time.as_secs(),
        "draining: not ready any more, forwarding as before"
    );
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        for signal in signals.pending() {
            if signal != SIGHUP {
                tracing::info!("draining ends early: told to stop again");
                return;
            }
            tracing::warn!("the configuration is not read again: the daemon is stopping");
        }
        std::thread::sleep(left.min(LOOK));
    }
}
