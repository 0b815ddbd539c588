//! The count of sessions per address, held against the tables.
//!
//! The programs count sessions as they come and go, where a zone limits them. What they are not told is what the half-open
//! table evicts, what was there before there was a limit, and what a commit moved to another zone. So a sweep counts for
//! itself and corrects the difference.
//!
//! It does so while sessions come and go. Of the counts read before and after the walk, and of how often each was lowered
//! meanwhile, follow two bounds that hold whatever happened during it:
//!
//! * Who was counted before the walk was seen by it, or was taken off meanwhile, or is no more without having been taken
//!   off. So `before - seen - taken off` is a count too high by at least that much.
//! * Who was seen by the walk is counted after it, or was taken off meanwhile, or was never counted. So `seen - taken off -
//!   after` is a count too low by at least that much.
//!
//! The first needs every session counted to be in the tables already when the walk begins: a grace period lies between.
//! A difference is corrected when it shows in two consecutive sweeps, by the lesser of the two.

use std::collections::{HashMap, HashSet};

use bulkhead_abi::{ControlRequest, Flow, FlowKey6, LimitKey, LimitKind, LimitRule, SessionCount, protocol};

use super::super::{Shared, grace};
use crate::{engine::EngineError, table::TableError};

type Counts = HashMap<LimitKey, SessionCount>;

/// What was found too high (negative) or too low (positive) at the last sweep.
#[derive(Default)]
pub(super) struct Drift(HashMap<LimitKey, i64>);

impl Drift {
    /// Whether there was anything: then the next sweep, which may correct it, should be soon.
    pub(super) fn is_some(&self) -> bool {
        !self.0.is_empty()
    }
}

/// One sweep's count.
pub(super) struct Census {
    rules: HashMap<u8, LimitRule>,
    before: Counts,
    seen: HashMap<LimitKey, i64>,
    /// Sessions seen half-open: one that is promoted during the walk is seen again.
    half_open: HashSet<u64>,
}

fn counts(shared: &Shared) -> Result<Counts, TableError> {
    let mut counts = Counts::new();
    shared.maps.limits.for_each(|key, count| {
        counts.insert(*key, *count);
    })?;
    Ok(counts)
}

impl Census {
    /// Begins, if any zone has limits.
    pub(super) fn begin(shared: &Shared, rules: HashMap<u8, LimitRule>) -> Result<Option<Self>, TableError> {
        if rules.is_empty() {
            return Ok(None);
        }
        let before = counts(shared)?;
        grace::period();
        Ok(Some(Self {
            rules,
            before,
            seen: HashMap::new(),
            half_open: HashSet::new(),
        }))
    }

    /// Sees the first direction of a session.
    pub(super) fn see(&mut self, family: u8, key: &FlowKey6, flow: &Flow, half_open: bool) {
        let Some(rule) = self.rules.get(&flow.from_zone) else {
            return;
        };
        if half_open {
            self.half_open.insert(flow.session_id);
        } else if self.half_open.contains(&flow.session_id) {
            return;
        }
        for kind in LimitKind::ALL {
            if rule.of(kind) == 0 || kind == LimitKind::SynAckAck && flow.protocol != protocol::TCP {
                continue;
            }
            let address_be = match kind {
                LimitKind::Destination => key.destination_be,
                LimitKind::Source | LimitKind::SynAckAck => key.source_be,
            };
            let scope = LimitKey::scope(family, kind, flow.from_zone);
            *self.seen.entry(LimitKey { scope, address_be }).or_default() += 1;
        }
    }

    /// Compares, and corrects what differed at the last sweep too. Returns how many counts were corrected.
    pub(super) fn end(self, shared: &Shared, last: &mut Drift) -> Result<usize, EngineError> {
        let after = counts(shared)?;
        let now = self.drift(&after);
        let mut corrected = 0;
        for (key, difference) in &now.0 {
            let by = match (*difference, last.0.get(key).copied().unwrap_or(0)) {
                (now, then) if now > 0 && then > 0 => now.min(then),
                (now, then) if now < 0 && then < 0 => now.max(then),
                _ => continue,
            };
            shared.request(&correction(key, by))?;
            corrected += 1;
        }
        *last = now;
        Ok(corrected)
    }

    /// By how much each count is too high or too low at least.
    fn drift(&self, after: &Counts) -> Drift {
        let mut drift = HashMap::new();
        let known: HashSet<&LimitKey> = self.before.keys().chain(self.seen.keys()).collect();
        for key in known {
            let seen = self.seen.get(key).copied().unwrap_or(0);
            let difference = match (self.before.get(key), after.get(key)) {
                (Some(before), Some(after)) if after.returned >= before.returned => {
                    let returned = i64::try_from(after.returned - before.returned).unwrap_or(i64::MAX);
                    let high = (before.sessions as i64)
                        .saturating_sub(seen)
                        .saturating_sub(returned);
                    let low = seen
                        .saturating_sub(returned)
                        .saturating_sub(after.sessions as i64);
                    if high > 0 { -high } else { low.max(0) }
                }
                // Forgotten, or never counted. Those that are far from their limit may stay so.
                (None, None) if seen * 2 >= i64::from(self.limit(key)) => seen,
                _ => 0,
            };
            if difference != 0 {
                drift.insert(*key, difference);
            }
        }
        Drift(drift)
    }

    fn limit(&self, key: &LimitKey) -> u32 {
        let kind = LimitKind::ALL
            .into_iter()
            .find(|kind| *kind as u32 == key.scope >> 8 & 0xff);
        let rule = self.rules.get(&(key.scope as u8));
        kind.zip(rule).map_or(u32::MAX, |(kind, rule)| rule.of(kind))
    }
}

fn correction(key: &LimitKey, by: i64) -> ControlRequest {
    let mut words = [0; 10];
    words[0] = key.scope;
    words[1..5].copy_from_slice(&key.address_be);
    let by = i32::try_from(by).unwrap_or(if by < 0 { i32::MIN } else { i32::MAX });
    ControlRequest {
        operation: 44,
        argument: by as u32,
        key: words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: LimitKey = LimitKey {
        scope: LimitKey::scope(4, LimitKind::Source, 1),
        address_be: [7, 0, 0, 0],
    };

    fn count(sessions: i64, returned: u64) -> Counts {
        let count = SessionCount {
            sessions: sessions as u64,
            returned,
        };
        HashMap::from([(KEY, count)])
    }

    fn drift(before: Counts, seen: u32, after: &Counts) -> i64 {
        let rule = LimitRule {
            source: 10,
            ..LimitRule::default()
        };
        let mut census = Census {
            rules: HashMap::from([(1, rule)]),
            before,
            seen: HashMap::new(),
            half_open: HashSet::new(),
        };
        let key = FlowKey6 {
            source_be: KEY.address_be,
            ..FlowKey6::default()
        };
        for session_id in 1..=seen {
            let flow = Flow {
                from_zone: 1,
                session_id: session_id.into(),
                ..Flow::default()
            };
            // Promoted during the walk: seen twice, one session.
            census.see(4, &key, &flow, true);
            census.see(4, &key, &flow, false);
        }
        census.drift(after).0.get(&KEY).copied().unwrap_or(0)
    }

    #[test]
    fn only_what_no_coming_and_going_explains_is_drift() {
        // At rest.
        assert_eq!(drift(count(5, 3), 5, &count(5, 3)), 0);
        // Four ended during the walk, before they were seen or after.
        assert_eq!(drift(count(9, 3), 5, &count(5, 7)), 0);
        assert_eq!(drift(count(9, 3), 9, &count(5, 7)), 0);
        // Four came, before they could be seen or after.
        assert_eq!(drift(count(5, 3), 9, &count(9, 3)), 0);
        assert_eq!(drift(count(5, 3), 5, &count(9, 3)), 0);
        // Both, four each.
        assert_eq!(drift(count(5, 3), 5, &count(5, 7)), 0);
        // Two were evicted; with two more ending it might be those, so nothing is certain.
        assert_eq!(drift(count(7, 3), 5, &count(7, 3)), -2);
        assert_eq!(drift(count(7, 3), 5, &count(5, 5)), 0);
        // Three never were counted.
        assert_eq!(drift(count(5, 3), 8, &count(5, 3)), 3);
        assert_eq!(drift(count(-1, 3), 0, &count(-1, 3)), 1);
    }

    #[test]
    fn what_was_forgotten_comes_back_where_it_is_near_its_limit() {
        assert_eq!(drift(Counts::new(), 5, &Counts::new()), 5);
        assert_eq!(drift(Counts::new(), 4, &Counts::new()), 0);
        // Evicted during the walk, or made again: the next sweep sees.
        assert_eq!(drift(count(9, 3), 9, &Counts::new()), 0);
        assert_eq!(drift(count(9, 3), 9, &count(1, 0)), 0);
    }

    #[test]
    fn a_correction_carries_the_key_and_a_signed_number() {
        let request = correction(&KEY, -3);
        assert_eq!((request.operation, request.argument as i32), (44, -3));
        assert_eq!(request.key[..5], [4 << 16 | 1, 7, 0, 0, 0]);
    }
}
