//! Probes: whether the daemon lives, whether it is ready, and its metrics, for whoever runs it.
//!
//! Owns what is asked; [`http`] owns how. Live: every thread that has a [`Pulse`] makes progress. Ready: nothing is being waited for, no
//! stop is under way, the configuration's generation is live, every interface is there with its programs on it, and packets of
//! our own meet their verdicts ([`Engine::readiness`]). Each is asked of the kernel when somebody asks, not remembered.

pub mod families;
pub mod http;
mod metrics;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bulkhead_dataplane::engine::Check;
use bulkhead_dataplane::pulse::{Pulse, Pulses, Stuck};

use crate::live::LiveFirewall;

/// How long a turn of one of the daemon's own threads may take; a fetch of a list is another thread's.
const TURN: Duration = Duration::from_secs(180);

/// What probes can ask.
pub trait Subject: Send + Sync {
    /// What makes it live.
    fn live(&self) -> Vec<Check>;
    /// What makes it ready.
    fn ready(&self) -> Vec<Check>;
    /// All metrics as OpenMetrics text.
    ///
    /// # Errors
    /// Why there are none now.
    fn metrics(&self) -> Result<String, String>;
}

/// How far the daemon is.
enum Stage {
    /// It does not enforce anything yet, because of this.
    Starting(String),
    /// It does.
    Enforcing(Weak<LiveFirewall>),
}

/// The daemon as probes see it.
pub struct Probes {
    stage: Mutex<Stage>,
    draining: AtomicBool,
    /// The daemon's threads but for those of the engine.
    pulses: Pulses,
}

impl Default for Probes {
    fn default() -> Self {
        Self {
            stage: Mutex::new(Stage::Starting("the start has just begun".to_owned())),
            draining: AtomicBool::new(false),
            pulses: Pulses::default(),
        }
    }
}

impl Probes {
    /// Listens to a thread of the daemon.
    pub fn pulse(&self, name: &str) -> Pulse {
        self.pulses.take(name, TURN)
    }

    /// The start waits for something.
    pub fn waiting(&self, why: String) {
        *self.stage() = Stage::Starting(why);
    }

    /// It enforces.
    pub fn enforcing(&self, firewall: &Arc<LiveFirewall>) {
        *self.stage() = Stage::Enforcing(Arc::downgrade(firewall));
    }

    /// A stop is under way: not ready any more.
    pub fn draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// The threads are told to end.
    pub fn closing(&self) {
        self.pulses.forget();
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn firewall(&self) -> Result<Arc<LiveFirewall>, String> {
        match &*self.stage() {
            Stage::Starting(why) => Err(why.clone()),
            Stage::Enforcing(firewall) => firewall
                .upgrade()
                .ok_or_else(|| "the daemon is stopping".to_owned()),
        }
    }
}

fn check(name: &str, wrong: Option<String>) -> Check {
    Check {
        name: name.to_owned(),
        wrong,
    }
}

/// Which threads stand still, in a sentence.
fn standing_still(stuck: &[Stuck]) -> Option<String> {
    let one = |stuck: &Stuck| match stuck.since {
        Some(since) => format!("{} has made no progress for {} s", stuck.thread, since.as_secs()),
        None => format!("{} has ended", stuck.thread),
    };
    let all: Vec<String> = stuck.iter().map(one).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

impl Subject for Probes {
    fn live(&self) -> Vec<Check> {
        let mut stuck = self.pulses.stuck();
        if let Ok(firewall) = self.firewall() {
            stuck.extend(firewall.engine().stuck());
        }
        vec![check("threads", standing_still(&stuck))]
    }

    fn ready(&self) -> Vec<Check> {
        let draining = self
            .draining
            .load(Ordering::Acquire)
            .then(|| "the daemon was told to stop".to_owned());
        let mut checks = vec![check("not-stopping", draining)];
        match self.firewall() {
            Ok(firewall) => {
                checks.push(check("started", None));
                checks.extend(firewall.engine().readiness());
                let isolations = firewall.isolations();
                if isolations.are_followed() {
                    checks.push(check("network-policies", isolations.waits()));
                }
            }
            Err(why) => checks.push(check("started", Some(why))),
        }
        checks
    }

    fn metrics(&self) -> Result<String, String> {
        let ready = self.ready().iter().all(|check| check.wrong.is_none());
        let firewall = self.firewall().ok();
        let page = metrics::page(firewall.as_deref(), ready).map_err(|failure| failure.to_string())?;
        page.text()
            .map_err(|_| "the metrics cannot be written".to_owned())
    }
}

/// The answer to a probe, as Kubernetes' own API server words it: whether all is well, and a line for each check.
pub fn report(name: &str, checks: &[Check]) -> (bool, String) {
    let mut text = String::new();
    for Check { name, wrong } in checks {
        // Writing to a string cannot fail.
        let _infallible = match wrong {
            None => writeln!(text, "[+]{name} ok"),
            Some(why) => writeln!(text, "[-]{name}: {}", why.replace('\n', "; ")),
        };
    }
    let well = checks.iter().all(|check| check.wrong.is_none());
    let outcome = if well { "passed" } else { "failed" };
    let _infallible = writeln!(text, "{name} check {outcome}");
    (well, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_has_just_begun_lives_and_is_not_ready() {
        let probes = Probes::default();
        assert_eq!(
            report("livez", &probes.live()),
            (true, "[+]threads ok\nlivez check passed\n".to_owned())
        );
        probes.waiting("interface net3 does not exist".to_owned());
        let (well, text) = report("readyz", &probes.ready());
        assert!(!well);
        assert_eq!(
            text,
            "[+]not-stopping ok\n[-]started: interface net3 does not exist\nreadyz check failed\n"
        );
        probes.draining();
        assert!(
            report("readyz", &probes.ready())
                .1
                .starts_with("[-]not-stopping: the daemon was told to stop\n")
        );
        let text = probes.metrics().expect("metrics");
        assert!(
            text.contains("bulkhead_ready 0.0\n") && text.ends_with("# EOF\n"),
            "{text}"
        );
    }

    #[test]
    fn a_thread_that_has_ended_is_named() {
        let probes = Probes::default();
        drop(probes.pulse("bulkhead-groups"));
        let (well, text) = report("livez", &probes.live());
        assert!(
            !well && text.contains("[-]threads: bulkhead-groups has ended\n"),
            "{text}"
        );
        probes.closing();
        assert!(report("livez", &probes.live()).0);
    }
}
