//! How full source pools are, and the alarm when one is too full.
//!
//! A session is counted against the pool of the rule that translated it. The measure is addresses times ports, although
//! sessions to different destinations may share a port: what it warns of is the busiest destination.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bulkhead_abi::{Flow, STATIC_RULE, flow_flags, flow_generation};

use super::{Engine, Shared, lock, names::Names};
use crate::{
    compile::addresses,
    ruleset::{Pool, Ruleset, SourceTranslation},
};

/// Ports of an address where the pool does not translate them: those that clients use.
const CLIENT_PORTS: u128 = 65_535 - 1024 + 1;

/// A source pool as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolStatus {
    /// Name.
    pub name: String,
    /// Addresses of both families.
    pub addresses: u128,
    /// Sessions that have one of them.
    pub sessions: u64,
    /// Sessions in per cent of addresses times ports; beyond 100 where many destinations share ports.
    pub percent: u64,
    /// Whether the alarm is raised.
    pub alarm: bool,
}

/// What the last look found, by the pool's name.
#[derive(Default)]
pub(super) struct Watch {
    pools: BTreeMap<String, Watched>,
    /// Alarms raised so far.
    raised: u64,
}

#[derive(Clone, Copy, Default)]
struct Watched {
    sessions: u64,
    alarm: bool,
}

/// One look at the sessions.
pub(super) struct Count<'a> {
    shared: &'a Shared,
    live: Arc<Ruleset>,
    /// Names of the configurations that flows were judged by.
    names: HashMap<u32, Arc<Names>>,
    sessions: BTreeMap<String, u64>,
}

/// The pools that source rules use.
fn used(ruleset: &Ruleset) -> impl Iterator<Item = &Pool> {
    ruleset.pools.iter().enumerate().filter_map(|(index, pool)| {
        let uses = |rule: &crate::ruleset::SourceNat| rule.translation == SourceTranslation::Pool(index);
        ruleset.source_nat.iter().any(uses).then_some(pool)
    })
}

impl<'a> Count<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            live: lock(&shared.live).ruleset.clone(),
            names: HashMap::new(),
            sessions: BTreeMap::new(),
        }
    }

    /// Whether there is nothing to count against.
    pub(super) fn is_empty(&self) -> bool {
        used(&self.live).next().is_none()
    }

    /// Takes note of a translated flow.
    pub(super) fn see(&mut self, flow: &Flow) {
        if flow.flags & flow_flags::REPLY != 0 || flow.nat_rule & STATIC_RULE != 0 {
            return;
        }
        let generation = flow_generation::unmarked(flow.generation);
        let names = self
            .names
            .entry(generation)
            .or_insert_with(|| self.shared.names_of(generation));
        if let Some(pool) = names.source_pool(flow.nat_rule) {
            *self.sessions.entry(pool.to_owned()).or_default() += 1;
        }
    }

    /// Remembers the counts; raises and clears alarms.
    pub(super) fn settle(self, shared: &Shared) {
        let mut watch = lock(&shared.pools);
        let before = std::mem::take(&mut watch.pools);
        for pool in used(&self.live) {
            let sessions = self.sessions.get(&pool.name).copied().unwrap_or(0);
            let percent = percent(pool, sessions);
            let was = before.get(&pool.name).is_some_and(|watched| watched.alarm);
            let alarm = alarm(pool.alarm, was, percent);
            if alarm && !was {
                watch.raised += 1;
                tracing::warn!(pool = pool.name, sessions, percent, "a NAT pool is filling up");
            } else if was && !alarm {
                tracing::info!(pool = pool.name, sessions, percent, "a NAT pool has room again");
            }
            watch.pools.insert(pool.name.clone(), Watched { sessions, alarm });
        }
    }
}

/// Whether the alarm stands, given whether it did: between the two marks it stays as it is.
fn alarm(marks: Option<(u8, u8)>, was: bool, percent: u64) -> bool {
    match marks {
        Some((raise, clear)) => percent >= u64::from(raise) || (was && percent >= u64::from(clear)),
        None => false,
    }
}

/// Addresses of a pool.
fn size(pool: &Pool) -> u128 {
    pool.ranges.iter().fold(0, |size: u128, (first, last)| {
        size.saturating_add(addresses(first, last))
    })
}

fn percent(pool: &Pool, sessions: u64) -> u64 {
    let ports = pool.ports.map_or(CLIENT_PORTS, |(first, last)| {
        u128::from(last.saturating_sub(first)) + 1
    });
    let room = size(pool).saturating_mul(ports).max(1);
    u64::try_from(u128::from(sessions) * 100 / room).unwrap_or(u64::MAX)
}

impl Engine {
    /// The pools that source rules use, as they stood at the last look (every two seconds).
    #[must_use]
    pub fn pools(&self) -> Vec<PoolStatus> {
        let ruleset = self.ruleset();
        let watch = lock(&self.shared.pools);
        let status = |pool: &Pool| {
            let watched = watch.pools.get(&pool.name).copied().unwrap_or_default();
            PoolStatus {
                name: pool.name.clone(),
                addresses: size(pool),
                sessions: watched.sessions,
                percent: percent(pool, watched.sessions),
                alarm: watched.alarm,
            }
        };
        used(&ruleset).map(status).collect()
    }
}

impl Shared {
    /// Pool alarms raised so far.
    pub(super) fn pool_alarms(&self) -> u64 {
        lock(&self.pools).raised
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_stays_between_its_marks() {
        let marks = Some((80, 70));
        let mut stands = false;
        let mut seen = Vec::new();
        for percent in [0, 79, 80, 75, 70, 69, 75, 79, 100, 70, 0] {
            stands = alarm(marks, stands, percent);
            seen.push(stands);
        }
        assert_eq!(
            seen,
            [
                false, false, true, true, true, false, false, false, true, true, false
            ]
        );
        assert!(!alarm(None, true, 100));
    }

    #[test]
    fn a_pool_is_as_large_as_its_addresses_times_its_ports() {
        let range = |first: &str, last: &str| (first.parse().unwrap(), last.parse().unwrap());
        let pool = Pool {
            ranges: vec![
                range("203.0.113.1", "203.0.113.3"),
                range("2001:db8::", "2001:db8::"),
            ],
            ports: Some((1000, 1099)),
            ..Pool::default()
        };
        assert_eq!(size(&pool), 4);
        assert_eq!(
            [0, 3, 4, 399, 400, 1000].map(|n| percent(&pool, n)),
            [0, 0, 1, 99, 100, 250]
        );
        let kept = Pool { ports: None, ..pool };
        assert_eq!(percent(&kept, 4 * 64_512), 100);
    }
}
