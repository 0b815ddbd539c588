//! Early ageing: while the table of established sessions is nearly full, those that have been idle longest make room.
//!
//! From a fill of `high` per cent on, sessions idle for longer than `timeout` are candidates; the longest idle are ended
//! until the fill is below `low`. Per family, as the tables are. What is idle for less stays, however full the table is:
//! the firewall then refuses new sessions rather than to cut those in use.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use super::Target;
use crate::ruleset::EarlyAgeing;

/// Flows silent for less than a second take the short way, which knows of no marks.
const SHORTEST: Duration = Duration::from_secs(1);

/// One family's table.
#[derive(Default)]
struct Table {
    active: bool,
    sessions: usize,
    /// The longest idle of those seen, the shortest of them on top.
    candidates: BinaryHeap<Reverse<(u64, Target, bool)>>,
}

/// The state of early ageing.
#[derive(Default)]
pub(super) struct Early {
    rule: Option<EarlyAgeing>,
    capacity: usize,
    tables: [Table; 2],
}

impl Early {
    /// Takes over what is configured, for tables of so many sessions.
    pub(super) fn configure(&mut self, rule: Option<EarlyAgeing>, sessions: u32) {
        self.rule = rule;
        self.capacity = sessions as usize;
        if rule.is_none() {
            self.tables = Default::default();
        }
    }

    fn share(&self, per_cent: u8) -> usize {
        self.capacity * usize::from(per_cent.min(100)) / 100
    }

    /// The idle time that is enough, ms; 0: early ageing is off.
    pub(super) fn idle_ms(&self) -> u32 {
        let idle = self.rule.map(|rule| rule.timeout.max(SHORTEST).as_millis());
        idle.map_or(0, |idle| u32::try_from(idle).unwrap_or(u32::MAX))
    }

    /// The idle time that makes a session of this family a candidate now; ns.
    pub(super) fn idle_ns(&self, family: usize) -> u64 {
        if self.tables[family].active {
            u64::from(self.idle_ms()) * 1_000_000
        } else {
            u64::MAX
        }
    }

    /// Takes note of a session that is idle for long enough. Keeps no more than could be needed.
    pub(super) fn candidate(&mut self, family: usize, idle_ns: u64, target: Target, marked: bool) {
        let most = self.capacity - self.rule.map_or(self.capacity, |rule| self.share(rule.low)) + 1;
        let candidates = &mut self.tables[family].candidates;
        candidates.push(Reverse((idle_ns, target, marked)));
        if candidates.len() > most {
            candidates.pop();
        }
    }

    /// Which candidates make room, longest idle first, now that the whole table was seen: it holds `sessions`, of which
    /// `over` end anyway.
    pub(super) fn choose(&mut self, family: usize, sessions: usize, over: usize) -> Vec<(Target, bool)> {
        let Some(rule) = self.rule else {
            return Vec::new();
        };
        let (high, low) = (self.share(rule.high), self.share(rule.low));
        let table = &mut self.tables[family];
        let was_active = table.active;
        table.sessions = sessions;
        table.active = sessions >= low.max(1) && (was_active || sessions >= high);
        let needed = (sessions - over.min(sessions) + 1).saturating_sub(low);
        let mut chosen = std::mem::take(&mut table.candidates).into_sorted_vec();
        chosen.truncate(if table.active { needed } else { 0 });
        let chosen = chosen.into_iter();
        chosen
            .map(|Reverse((_, target, marked))| (target, marked))
            .collect()
    }

    /// Whether a table is so full that one should look again soon.
    pub(super) fn urgent(&self) -> bool {
        let low = self.rule.map_or(usize::MAX, |rule| self.share(rule.low));
        self.tables
            .iter()
            .any(|table| table.sessions > 0 && table.sessions >= low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn early(high: u8, low: u8) -> Early {
        let mut early = Early::default();
        let timeout = Duration::from_secs(20);
        early.configure(Some(EarlyAgeing { high, low, timeout }), 1000);
        early
    }

    fn target(number: u32) -> Target {
        Target {
            ipv6: false,
            words: [number; 10],
        }
    }

    #[test]
    fn it_begins_at_the_high_mark_and_ends_below_the_low_one() {
        let mut early = early(90, 80);
        let mut active = |sessions| {
            let _chosen = early.choose(0, sessions, 0);
            (early.idle_ns(0) != u64::MAX, early.urgent())
        };
        assert_eq!(active(799), (false, false));
        assert_eq!(active(899), (false, true));
        assert_eq!(active(900), (true, true));
        assert_eq!(active(800), (true, true));
        assert_eq!(active(799), (false, false));
        assert_eq!(active(899), (false, true));
        assert_eq!(early.idle_ns(1), u64::MAX, "the other family is not concerned");
    }

    #[test]
    fn the_longest_idle_go_and_no_more_than_needed() {
        let mut early = early(90, 80);
        let _chosen = early.choose(1, 950, 0);
        assert_eq!((early.idle_ns(1), early.idle_ms()), (20_000_000_000, 20_000));
        // In an order that says nothing, as a walk through a hash table sees them.
        for number in 0..500u32 {
            let idle = u64::from(number * 7919 % 500);
            early.candidate(1, 30_000_000_000 + idle, target(idle as u32), idle % 2 == 0);
        }
        // Ten end by their own timeout, so 141 more bring 950 below 800.
        let chosen = early.choose(1, 950, 10);
        let expected: Vec<_> = (359..500)
            .rev()
            .map(|idle| (target(idle), idle % 2 == 0))
            .collect();
        assert_eq!(chosen, expected);
        assert!(
            early.choose(1, 950, 0).is_empty(),
            "candidates are those of one walk"
        );
    }

    #[test]
    fn without_a_rule_nothing_is_early() {
        let mut early = early(1, 1);
        let _chosen = early.choose(0, 1000, 0);
        early.configure(None, 1000);
        assert_eq!(
            (early.idle_ns(0), early.idle_ms(), early.urgent()),
            (u64::MAX, 0, false)
        );
        assert!(early.choose(0, 1000, 0).is_empty());
    }
}
