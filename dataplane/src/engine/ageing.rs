//! Ageing: finds idle sessions in the tables, lets the control program decide.
//!
//! Owns the sweep: a walk over all flows in batches, requests as it goes, never more in memory than a batch and a word per
//! idle flow. Assumes nothing of what it reads: the tables change under the walk, so every request is judged again in the
//! kernel. A session is marked at one sweep and collected at a later one, with a grace period in between; the argument is
//! in `deploy/docs/decisions/0004-ageing.md`.
//!
//! The period follows what there is to do (the next session that can be over), what the last sweep cost (at most five
//! per cent of a CPU) and, where early ageing is configured, how full the table is.

mod census;
mod early;
mod repeat;
mod view;

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use bulkhead_abi::{
    ControlRequest, Flow, FlowKey4, FlowKey6, Tally, flow_flags,
    flow_generation::{DEAD, is_marked},
};
use nix::time::{ClockId, clock_gettime};

use self::{census::Census, early::Early, repeat::Repeats};
use super::{Engine, EngineError, Shared, TICK, grace, lock};
use crate::{inject::Injector, pulse::Pulse, table::TypedMap};

pub(super) use view::Timeouts;

/// Between two sweeps at least.
const SHORTEST: Duration = Duration::from_secs(1);
/// Between two sweeps when nothing can be over sooner: sessions change their state, and their timeout with it.
const LONGEST: Duration = Duration::from_secs(10);
/// The same where the sweep keeps an eye on more: how full the table is, how many sessions an address has, whether a server
/// answers that is asked for a client.
const LONGEST_WATCHING: Duration = Duration::from_secs(2);
/// Between two sweeps when the table is filling up and early ageing is to empty it.
const URGENT: Duration = Duration::from_millis(250);
/// One part in so many of a CPU is what sweeps may take; when it is urgent, [`URGENT_SHARE`].
const SHARE: u32 = 20;
const URGENT_SHARE: u32 = 4;
/// However long a sweep takes, there is another one after this long.
const ANYWAY: Duration = Duration::from_secs(60);

/// Requests in one go; then others may have the CPU and the control program.
const BATCH: usize = 1024;
/// Pause between them.
const PAUSE: Duration = Duration::from_micros(200);

/// A half-open reply flow is normally removed with its first direction; one that outlived it by this much is looked at
/// itself.
const ORPHAN_NS: u64 = 60_000_000_000;
/// Established sessions are looked at when both directions are idle. Each so many sweeps one is enough, in case there is
/// no other.
const THOROUGH: u64 = 16;

/// What the last sweep found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgeingReport {
    /// Sweeps so far.
    pub sweeps: u64,
    /// Established sessions, IPv4 and IPv6.
    pub established: [usize; 2],
    /// Half-open sessions of both families.
    pub half_open: usize,
    /// Of them, those of IPv6.
    pub half_open_v6: usize,
    /// Sessions marked.
    pub marked: usize,
    /// Sessions ended.
    pub ended: usize,
    /// Counts of sessions per address that were corrected.
    pub corrected: usize,
    /// Half-open sessions that others have pushed out since the start.
    pub evicted: u64,
    /// Time of this thread, of which the kernel's part is most.
    pub cpu_time: Duration,
}

/// The thread.
pub(super) fn run(shared: &Shared, injector: &Injector, pulse: &Pulse) {
    let mut ager = Ager::default();
    let mut due = Instant::now() + SHORTEST;
    while !shared.stopping() {
        pulse.beat();
        std::thread::sleep(TICK);
        if Instant::now() < due {
            continue;
        }
        due = Instant::now()
            + match ager.sweep(shared, injector) {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::error!(%error, "ageing failed");
                    LONGEST
                }
            };
    }
}

/// Monotonic time, ns: the clock of `bpf_ktime_get_coarse_ns`.
pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| {
        u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX)
    })
}

fn cpu_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Operations of the control program, those of IPv4; those of IPv6 are the next numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Operation {
    Clear = 5,
    Mark = 40,
    Collect = 42,
}

/// The family and the words of a key, as requests carry them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    ipv6: bool,
    words: [u32; 10],
}

impl Target {
    pub(super) fn request(&self, operation: Operation, argument: u32) -> ControlRequest {
        ControlRequest {
            operation: operation as u32 + u32::from(self.ipv6),
            argument,
            key: self.words,
        }
    }

    /// Removal of what is left of a dead session.
    fn bury(&self) -> ControlRequest {
        ControlRequest {
            operation: 45,
            argument: if self.ipv6 { 6 } else { 4 },
            key: self.words,
        }
    }
}

/// A flow key of either family.
pub(super) trait AnyKey {
    /// 4 or 6.
    fn family(&self) -> u8;
    /// The key with room for either family.
    fn wide(&self) -> FlowKey6;
    /// The key for a request.
    fn target(&self) -> Target;
}

impl AnyKey for FlowKey4 {
    fn family(&self) -> u8 {
        4
    }

    fn wide(&self) -> FlowKey6 {
        FlowKey6 {
            source_be: [self.source_be, 0, 0, 0],
            destination_be: [self.destination_be, 0, 0, 0],
            source_port: self.source_port,
            destination_port: self.destination_port,
            protocol: self.protocol,
        }
    }

    fn target(&self) -> Target {
        let mut words = [0; 10];
        words[0] = self.source_be;
        words[1] = self.destination_be;
        words[2] = u32::from(self.source_port) | u32::from(self.destination_port) << 16;
        words[3] = self.protocol;
        Target { ipv6: false, words }
    }
}

impl AnyKey for FlowKey6 {
    fn family(&self) -> u8 {
        6
    }

    fn wide(&self) -> FlowKey6 {
        *self
    }

    fn target(&self) -> Target {
        let mut words = [0; 10];
        words[..4].copy_from_slice(&self.source_be);
        words[4..8].copy_from_slice(&self.destination_be);
        words[8] = u32::from(self.source_port) | u32::from(self.destination_port) << 16;
        words[9] = self.protocol;
        Target { ipv6: true, words }
    }
}

/// What one sweep remembers for the next.
#[derive(Default)]
struct Ager {
    report: AgeingReport,
    early: Early,
    drift: census::Drift,
    /// Sessions that were dead already.
    dead: HashSet<u64>,
}

impl Ager {
    /// One look at all tables; how long to wait for the next.
    fn sweep(&mut self, shared: &Shared, injector: &Injector) -> Result<Duration, EngineError> {
        let began = cpu_time();
        if self.report.marked != 0 {
            grace::period();
        }
        let timeouts = Timeouts::in_force(shared)?;
        let created = lock(&shared.object).tallied(Tally::Created)?;
        let mut sweep = Sweep {
            shared,
            census: Census::begin(shared, limits(shared))?,
            now_ns: now_ns(),
            thorough: self.report.sweeps.is_multiple_of(THOROUGH),
            soonest_ns: u64::MAX,
            report: AgeingReport {
                sweeps: self.report.sweeps + 1,
                evicted: self.report.evicted,
                ..AgeingReport::default()
            },
            due: Vec::with_capacity(BATCH),
            dead: Vec::new(),
            repeats: timeouts.ruleset.wires.is_empty().then(Repeats::default),
            timeouts,
        };
        self.early
            .configure(sweep.timeouts.ruleset.early_ageing, shared.sizes.sessions);
        let maps = &shared.maps;
        // Half-open first: a session moves from here to there, and must not be missed.
        sweep.half_open(&maps.half_open4)?;
        sweep.half_open(&maps.half_open6)?;
        sweep.established(&maps.flows4, &mut self.early, 0)?;
        sweep.established(&maps.flows6, &mut self.early, 1)?;
        sweep.bury(&mut self.dead)?;
        let Sweep {
            census,
            mut report,
            timeouts,
            soonest_ns,
            repeats,
            ..
        } = sweep;
        let waiting = repeats.is_some_and(|repeats| repeats.send(injector));
        let proxies = timeouts
            .ruleset
            .screens
            .iter()
            .any(|screen| screen.syn_flood_attack.is_some());
        let watching = census.is_some() || self.early.idle_ms() != 0 || proxies;
        match census {
            Some(census) => report.corrected = census.end(shared, &mut self.drift)?,
            None => self.drift = census::Drift::default(),
        }
        let ended = lock(&shared.object).tallied(Tally::Ended)?;
        let there = (report.established[0] + report.established[1] + report.half_open) as u64;
        report.evicted = report
            .evicted
            .max(created.saturating_sub(ended).saturating_sub(there));
        report.cpu_time = cpu_time().saturating_sub(began);
        self.report = report;
        *lock(&shared.ageing) = report;
        if self.early.urgent() {
            return Ok(URGENT.max(report.cpu_time * URGENT_SHARE));
        }
        let longest = if report.marked != 0 || self.drift.is_some() || waiting {
            SHORTEST
        } else if watching {
            LONGEST_WATCHING
        } else {
            LONGEST
        };
        let soonest = Duration::from_nanos(soonest_ns).min(timeouts.shortest());
        let pause = soonest.clamp(SHORTEST, longest);
        Ok(pause.max(report.cpu_time * SHARE).min(ANYWAY))
    }
}

fn limits(shared: &Shared) -> HashMap<u8, bulkhead_abi::LimitRule> {
    let live = lock(&shared.live);
    let rules = live.compiled.limit_rules.iter();
    rules.map(|(key, rule)| (key.zone as u8, *rule)).collect()
}

/// One sweep under way.
struct Sweep<'a> {
    shared: &'a Shared,
    timeouts: Timeouts,
    census: Option<Census>,
    now_ns: u64,
    thorough: bool,
    /// The least time after which a session that was seen can be over.
    soonest_ns: u64,
    report: AgeingReport,
    /// Sessions to be asked about, and whether they are marked.
    due: Vec<(Target, bool)>,
    dead: Vec<(u64, Target)>,
    /// SYNs to be repeated.
    repeats: Option<Repeats>,
}

impl Sweep<'_> {
    /// What every flow is seen for; its idle time and timeout, unless it is dead.
    fn see(&mut self, key: &impl AnyKey, flow: &Flow, half_open: bool) -> Option<(u64, u64)> {
        if flow.generation == DEAD {
            self.dead.push((flow.session_id, key.target()));
            return None;
        }
        let wide = key.wide();
        if flow.flags & flow_flags::REPLY == 0
            && let Some(census) = &mut self.census
        {
            census.see(key.family(), &wide, flow, half_open);
        }
        let idle_ns = self.now_ns.saturating_sub(flow.last_seen_ns);
        let timeout_ns = self.timeouts.of_flow(&wide, flow);
        // A direction that is over is no reason to hurry: either both are, or the session lives by the other.
        if idle_ns < timeout_ns {
            self.soonest_ns = self.soonest_ns.min(timeout_ns - idle_ns);
        }
        Some((idle_ns, timeout_ns))
    }

    fn half_open<K>(&mut self, table: &TypedMap<K, Flow>) -> Result<(), EngineError>
    where
        K: AnyKey + zerocopy::IntoBytes + zerocopy::FromBytes + zerocopy::Immutable + Copy,
    {
        let mut outcome = Ok(());
        table.for_each(|key, flow| {
            if outcome.is_err() {
                return;
            }
            let reply = flow.flags & flow_flags::REPLY != 0;
            self.report.half_open += usize::from(!reply);
            self.report.half_open_v6 += usize::from(!reply && key.family() == 6);
            if let Some(repeats) = &mut self.repeats {
                repeats.see(key.family(), &key.wide(), flow, self.now_ns);
            }
            let Some((idle_ns, timeout_ns)) = self.see(key, flow, true) else {
                return;
            };
            let grace_ns = if reply { ORPHAN_NS } else { 0 };
            if idle_ns > timeout_ns.saturating_add(grace_ns) {
                outcome = self.propose(key.target(), is_marked(flow.generation));
            }
        })?;
        outcome?;
        self.ask()
    }

    fn established<K>(
        &mut self,
        table: &TypedMap<K, Flow>,
        early: &mut Early,
        family: usize,
    ) -> Result<(), EngineError>
    where
        K: AnyKey + zerocopy::IntoBytes + zerocopy::FromBytes + zerocopy::Immutable + Copy,
    {
        let mut outcome = Ok(());
        let mut sessions = 0;
        let mut over = 0;
        // Idle time of sessions of which one direction was found idle.
        let mut halves: HashMap<u64, u64> = HashMap::new();
        let early_ns = early.idle_ns(family);
        table.for_each(|key, flow| {
            if outcome.is_err() {
                return;
            }
            sessions += usize::from(flow.flags & flow_flags::REPLY == 0);
            let Some((idle_ns, timeout_ns)) = self.see(key, flow, false) else {
                return;
            };
            if idle_ns <= timeout_ns.min(early_ns) {
                return;
            }
            let marked = is_marked(flow.generation);
            let idle_ns = match halves.remove(&flow.session_id) {
                Some(other_ns) => idle_ns.min(other_ns),
                None if self.thorough && idle_ns > timeout_ns.saturating_add(ORPHAN_NS) => idle_ns,
                None => {
                    halves.insert(flow.session_id, idle_ns);
                    return;
                }
            };
            if idle_ns > timeout_ns {
                over += 1;
                outcome = self.propose(key.target(), marked);
            } else {
                early.candidate(family, idle_ns, key.target(), marked);
            }
        })?;
        outcome?;
        self.ask()?;
        self.report.established[family] = sessions;
        for (target, marked) in early.choose(family, sessions, over) {
            self.age(&target, marked, early.idle_ms())?;
        }
        Ok(())
    }

    fn propose(&mut self, target: Target, marked: bool) -> Result<(), EngineError> {
        self.due.push((target, marked));
        if self.due.len() < BATCH {
            return Ok(());
        }
        self.ask()?;
        std::thread::sleep(PAUSE);
        Ok(())
    }

    fn ask(&mut self) -> Result<(), EngineError> {
        let mut due = std::mem::take(&mut self.due);
        let outcome = due
            .drain(..)
            .try_for_each(|(target, marked)| self.age(&target, marked, 0));
        self.due = due;
        outcome
    }

    /// Collects a session that is marked, marks one that is not. `early_ms`: the idle time that is enough; 0: its own.
    fn age(&mut self, target: &Target, marked: bool, early_ms: u32) -> Result<(), EngineError> {
        let shared = self.shared;
        let ask = |operation| shared.request(&target.request(operation, early_ms));
        if marked && ask(Operation::Collect)? {
            self.report.ended += 1;
        } else {
            // Marked or not: the mark may have been only one direction's.
            self.report.marked += usize::from(ask(Operation::Mark)?);
        }
        Ok(())
    }

    /// Buries what was dead at the last sweep already.
    fn bury(&mut self, last: &mut HashSet<u64>) -> Result<(), EngineError> {
        for (_, target) in self.dead.iter().filter(|(id, _)| last.contains(id)) {
            self.shared.request(&target.bury())?;
        }
        *last = self.dead.iter().map(|(id, _)| *id).collect();
        Ok(())
    }
}

impl Engine {
    /// What the last sweep for idle sessions found and did.
    #[must_use]
    pub fn ageing(&self) -> AgeingReport {
        *lock(&self.shared.ageing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_requests() {
        let key = FlowKey4 {
            source_be: 1,
            destination_be: 2,
            source_port: 3,
            destination_port: 4,
            protocol: 6,
        };
        let request = key.target().request(Operation::Mark, 7);
        assert_eq!((request.operation, request.argument), (40, 7));
        assert_eq!(request.key[..5], [1, 2, 4 << 16 | 3, 6, 0]);
        let key = FlowKey6 {
            source_be: [1; 4],
            destination_be: [2; 4],
            ..key.wide()
        };
        let request = key.target().request(Operation::Collect, 0);
        assert_eq!(request.operation, 43);
        assert_eq!(request.key, [1, 1, 1, 1, 2, 2, 2, 2, 4 << 16 | 3, 6]);
        assert_eq!(
            (key.target().bury().operation, key.target().bury().argument),
            (45, 6)
        );
    }

    #[test]
    fn a_grace_period_ends() {
        let began = Instant::now();
        grace::period();
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
