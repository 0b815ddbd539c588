//! Double entry: every frame that entered a data interface stands under exactly one reason.
//!
//! One side of the ledger is the kernel's count of frames received on the data interfaces, the other the sum of the
//! firewall's reasons. ARP and discovery are counted when they leave as well; a [`Tap`] per interface counts those
//! beside the program, and they are taken off again. A fragment that waits in user space has no reason until it is put
//! back or given up, so that is waited for. Assumes that no packet is cut on its way (its pieces are counted as well), and that received frames reach the program one by one: veth
//! or macvlan without XDP, where nothing aggregates them first. Refuses to compare while anything still moves.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bulkhead_abi::Reason;
use bulkhead_dataplane::engine::Engine;

use crate::delta::Counters;
use crate::effort::{self, patience};
use crate::namespace::Namespace;
use crate::tap::Tap;

/// How long nothing may move before a moment counts as quiet: longer than a delayed acknowledgement (40 ms).
const QUIET: Duration = Duration::from_millis(120);
/// How much longer when fragments were handed to user space: as they wait there for their first (2 s), and some.
const AFTER_FRAGMENTS: Duration = Duration::from_millis(2400);
/// How long to wait for a quiet moment.
const PATIENCE: Duration = Duration::from_secs(20);

/// Reasons that only a frame about to leave can have; no frame that entered is counted there.
const LEAVING: &[Reason] = &[Reason::FromHost, Reason::SlowPathAnswer, Reason::UnguardedIngress];

/// The open books of one firewall.
#[derive(Debug)]
pub struct Ledger {
    firewall: String,
    interfaces: Vec<String>,
    taps: Vec<Tap>,
    /// Fragments handed to user space until the last balance.
    held: AtomicU64,
}

/// Both sides of the ledger at a quiet moment.
#[derive(Debug, Clone, Default)]
pub struct Balance {
    /// Frames received, by data interface.
    pub received: Counters,
    /// Discovery frames of the firewall's own that left.
    pub own_discovery: u64,
    /// The engine's counters, reasons and others.
    pub counters: Counters,
}

/// What happened between two balances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Frames received, by data interface.
    pub received: Counters,
    /// Reasons of frames that entered, those that moved.
    pub reasons: Counters,
    /// Everything else the engine counts, what moved of it.
    pub others: Counters,
}

impl Ledger {
    /// Opens the books: interfaces are those the engine guards.
    pub fn open(firewall: &Namespace, engine: &Engine) -> Result<Self> {
        let ruleset = engine.ruleset();
        let interfaces: Vec<String> = ruleset.interfaces.iter().map(|rule| rule.name.clone()).collect();
        let taps = interfaces
            .iter()
            .map(|interface| Tap::open(firewall, interface))
            .collect::<Result<_>>()?;
        Ok(Self {
            firewall: firewall.name().to_owned(),
            interfaces,
            taps,
            held: AtomicU64::new(held(&engine.counters()?)),
        })
    }

    /// Both sides, once nothing has moved for a while.
    pub fn balance(&self, firewall: &Namespace, engine: &Engine) -> Result<Balance> {
        let deadline = effort::deadline(PATIENCE);
        let mut last = self.look(firewall, engine)?;
        let mut since = Instant::now();
        let quiet = |balance: &Balance| {
            if held(&balance.counters) == self.held.load(Ordering::Relaxed) {
                patience(QUIET)
            } else {
                patience(QUIET) + AFTER_FRAGMENTS
            }
        };
        while since.elapsed() < quiet(&last) {
            if Instant::now() > deadline {
                bail!(
                    "{} was not quiet for {} s: {last:?}",
                    self.firewall,
                    patience(PATIENCE).as_secs()
                );
            }
            thread::sleep(Duration::from_millis(20));
            let now = self.look(firewall, engine)?;
            if now.received != last.received || now.counters != last.counters {
                since = Instant::now();
            }
            last = now;
        }
        self.held.store(held(&last.counters), Ordering::Relaxed);
        Ok(last)
    }

    fn look(&self, firewall: &Namespace, engine: &Engine) -> Result<Balance> {
        let mut own_discovery = 0;
        for tap in &self.taps {
            own_discovery += tap.count()?;
        }
        Ok(Balance {
            received: received(firewall, &self.interfaces)?,
            own_discovery,
            counters: engine.counters()?,
        })
    }
}

impl Balance {
    /// What happened since `before`.
    pub fn since(&self, before: &Self) -> Account {
        let delta = |now: &Counters, then: &Counters| -> Counters {
            let moved = now.iter().map(|(name, value)| {
                let then = then.get(name).copied().unwrap_or(0);
                (name.clone(), value.wrapping_sub(then))
            });
            moved.filter(|(_, by)| *by != 0).collect()
        };
        let counters = delta(&self.counters, &before.counters);
        let entering = |name: &str| {
            Reason::ALL
                .iter()
                .any(|reason| reason.name() == name && !LEAVING.contains(reason))
        };
        let (mut reasons, others): (Counters, Counters) =
            counters.into_iter().partition(|(name, _)| entering(name));
        // What left is taken off where it was counted: ARP first, the rest is neighbour discovery. Which of the two it
        // was does not matter to the sum.
        let mut left = self.own_discovery.wrapping_sub(before.own_discovery);
        for name in [Reason::Arp.name(), Reason::NeighbourDiscovery.name()] {
            if let Some(count) = reasons.get_mut(name) {
                let taken = left.min(*count);
                *count -= taken;
                left -= taken;
            }
        }
        reasons.retain(|_, count| *count != 0);
        let mut account = Account {
            received: delta(&self.received, &before.received),
            reasons,
            others,
        };
        if left != 0 {
            // Frames of our own that no reason counted: they stand as received, so that the books do not balance.
            account
                .received
                .insert("own discovery, uncounted".to_owned(), left);
        }
        account
    }
}

impl Account {
    /// Frames that entered.
    pub fn frames(&self) -> u64 {
        self.received.values().sum()
    }

    /// Frames that stand under a reason.
    pub fn counted(&self) -> u64 {
        self.reasons.values().sum()
    }

    /// How much a reason or another counter moved.
    pub fn of(&self, name: &str) -> u64 {
        self.reasons
            .get(name)
            .or_else(|| self.others.get(name))
            .copied()
            .unwrap_or(0)
    }

    /// The sum of some reasons.
    pub fn sum(&self, names: &[&str]) -> u64 {
        names.iter().map(|name| self.of(name)).sum()
    }

    /// Checks that as many frames are counted as entered, and that nothing went wrong inside.
    pub fn check(&self) -> Result<(), String> {
        let mut report = String::new();
        if self.frames() != self.counted() {
            let _infallible = writeln!(
                report,
                "{} frames entered, {} stand under a reason",
                self.frames(),
                self.counted()
            );
        }
        for defect in [Reason::Internal, Reason::RewriteFailed] {
            if self.of(defect.name()) != 0 {
                let _infallible = writeln!(report, "{}: {}", defect.name(), self.of(defect.name()));
            }
        }
        if report.is_empty() {
            return Ok(());
        }
        let _infallible = write!(report, "{self:#?}");
        Err(report)
    }

    /// Asserts [`Self::check`].
    ///
    /// # Panics
    /// If the books do not balance, with both sides.
    #[track_caller]
    pub fn balanced(&self) {
        if let Err(report) = self.check() {
            panic!("{report}");
        }
    }
}

/// Fragments that were handed to user space so far.
fn held(counters: &Counters) -> u64 {
    let slot = |(number, _): &&(u32, &str)| *number == Reason::SLOT_FRAGMENTS_HELD;
    let name = Reason::EXTRA.iter().find(slot).map(|(_, name)| *name);
    name.and_then(|name| counters.get(name)).copied().unwrap_or(0)
}

/// Frames received on interfaces of a namespace, as the kernel counts them.
fn received(namespace: &Namespace, interfaces: &[String]) -> Result<Counters> {
    // Not /proc/net: that is the main thread's namespace.
    let path = "/proc/thread-self/net/dev";
    let text = namespace
        .run(|| fs::read_to_string(path))
        .with_context(|| format!("cannot read {path} in {}", namespace.name()))?;
    let counts = received_packets(&text);
    interfaces
        .iter()
        .map(|interface| {
            let count = counts.get(interface.as_str()).copied();
            let count = count.with_context(|| format!("{interface} is not in {path}"))?;
            Ok((interface.clone(), count))
        })
        .collect()
}

/// `  net1: BYTES PACKETS ...`
fn received_packets(text: &str) -> BTreeMap<&str, u64> {
    text.lines()
        .filter_map(|line| {
            let (name, counts) = line.split_once(':')?;
            let packets = counts.split_whitespace().nth(1)?.parse().ok()?;
            Some((name.trim(), packets))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balance(received: u64, own_discovery: u64, counters: &[(&str, u64)]) -> Balance {
        Balance {
            received: Counters::from([("net1".to_owned(), received)]),
            own_discovery,
            counters: counters
                .iter()
                .map(|(name, value)| ((*name).to_owned(), *value))
                .collect(),
        }
    }

    #[test]
    fn received_frames_are_the_second_column() {
        let text = "Inter-|   Receive                            \n face |bytes    packets errs\n\
                    \x20 net1:  107448    1069    0    0    0     0          0         0   107448    1069\n";
        assert_eq!(received_packets(text)["net1"], 1069);
    }

    #[test]
    fn what_leaves_is_not_what_entered() {
        let before = balance(10, 1, &[("established", 7)]);
        let after = balance(
            15,
            3,
            &[
                ("established", 9),
                ("arp", 3),
                ("default_deny", 2),
                ("from_host", 4),
                ("slow_path_answer", 1),
                ("events_lost", 1),
            ],
        );
        let account = after.since(&before);
        account.balanced();
        assert_eq!(account.frames(), 5);
        assert_eq!(account.of("arp"), 1, "two of three were our own");
        assert_eq!(account.of("events_lost"), 1);
    }

    #[test]
    fn a_frame_too_many_or_too_few_is_found() {
        let before = balance(10, 0, &[]);
        assert!(
            balance(12, 0, &[("established", 1)])
                .since(&before)
                .check()
                .is_err()
        );
        assert!(
            balance(12, 0, &[("established", 3)])
                .since(&before)
                .check()
                .is_err()
        );
        assert!(
            balance(12, 1, &[("established", 2)])
                .since(&before)
                .check()
                .is_err()
        );
        assert!(
            balance(12, 0, &[("established", 2)])
                .since(&before)
                .check()
                .is_ok()
        );
    }

    #[test]
    fn a_defect_is_no_reason() {
        let account = balance(1, 0, &[("internal", 1)]).since(&balance(0, 0, &[]));
        assert!(account.check().is_err());
    }
}
