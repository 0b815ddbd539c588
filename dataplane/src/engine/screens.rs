//! What the zones' screens saw.
//!
//! The programs count by zone number. Numbers move when zones come and go, so what was counted under a number is put to the
//! zone's name before another zone gets it: totals are those since the start, by name.

use std::collections::BTreeMap;

use bulkhead_abi::{Screen, ScreenCount};

use super::{Engine, EngineError, Shared, lock};
use crate::{
    bpf::{BpfError, Object},
    ruleset::Ruleset,
};

/// What a screen of a zone saw since the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScreenStatus {
    /// The zone that the packets came from.
    pub zone: String,
    /// The screen.
    pub screen: &'static str,
    /// Whether it is on.
    pub enabled: bool,
    /// Packets dropped, or answered in their destination's place.
    pub dropped: u64,
    /// Packets that raised the alarm and went on.
    pub alarmed: u64,
}

/// Counts by zone number, in the order of [`Screen::ALL`].
type Counts = Vec<Vec<ScreenCount>>;

/// What was counted under the numbers that zones had before.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// By name.
    earlier: BTreeMap<String, Vec<ScreenCount>>,
    /// What the programs' counters stood at when that was written, by zone number.
    base: Counts,
}

impl Totals {
    /// What each zone of `names` has by now, if the programs' counters stand at `counts`.
    fn of(&self, names: &[String], counts: &Counts) -> Vec<Vec<ScreenCount>> {
        let none = vec![ScreenCount::default(); Screen::ALL.len()];
        let zones = names.iter().zip(counts).enumerate();
        zones
            .map(|(number, (name, counts))| {
                let earlier = self.earlier.get(name).unwrap_or(&none);
                let base = self.base.get(number).unwrap_or(&none);
                let counts = counts.iter().zip(earlier).zip(base);
                counts
                    .map(|((now, earlier), base)| ScreenCount {
                        dropped: now.dropped - base.dropped + earlier.dropped,
                        alarmed: now.alarmed - base.alarmed + earlier.alarmed,
                    })
                    .collect()
            })
            .collect()
    }

    /// Puts what was counted to the names that the numbers have.
    fn settle(&mut self, names: &[String], counts: Counts) {
        let totals = self.of(names, &counts);
        self.earlier.extend(names.iter().cloned().zip(totals));
        self.base = counts;
    }
}

fn names(ruleset: &Ruleset) -> Vec<String> {
    ruleset.zones.iter().map(|zone| zone.name.clone()).collect()
}

/// The programs' counters of the first `zones` zones.
fn counts(object: &Object, zones: usize) -> Result<Counts, BpfError> {
    (1..)
        .take(zones)
        .map(|zone| {
            let screens = Screen::ALL.iter();
            screens
                .map(|screen| object.screen_count(zone, *screen as u32))
                .collect()
        })
        .collect()
}

impl Shared {
    /// Before zone numbers mean what they mean in `next`: what was counted belongs to the zones of `last`.
    pub(super) fn settle_screens(&self, last: &Ruleset, next: &Ruleset) -> Result<(), EngineError> {
        let last = names(last);
        if last == names(next) {
            return Ok(());
        }
        let object = lock(&self.object);
        let mut totals = lock(&self.screens);
        totals.settle(&last, counts(&object, bulkhead_abi::MAX_ZONES)?);
        Ok(())
    }
}

impl Engine {
    /// What the screens saw: of each zone those that are on, and those that have counted.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn screens(&self) -> Result<Vec<ScreenStatus>, EngineError> {
        let live = lock(&self.shared.live);
        let object = lock(&self.shared.object);
        let totals = lock(&self.shared.screens);
        let names = names(&live.ruleset);
        let counts = totals.of(&names, &counts(&object, names.len())?);
        let profiles = &live.compiled.screens;
        let mut status = Vec::new();
        for ((zone, counts), (_, profile)) in names.iter().zip(counts).zip(profiles.iter().skip(1)) {
            for (screen, count) in Screen::ALL.iter().zip(counts) {
                let enabled = profile.has(*screen);
                if enabled || count != ScreenCount::default() {
                    status.push(ScreenStatus {
                        zone: zone.clone(),
                        screen: screen.name(),
                        enabled,
                        dropped: count.dropped,
                        alarmed: count.alarmed,
                    });
                }
            }
        }
        Ok(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_stay_with_the_zones_name() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let counts = |dropped: &[u64]| -> Counts {
            let count = |dropped: &u64| {
                let mut screens = vec![ScreenCount::default(); Screen::ALL.len()];
                screens[3].dropped = *dropped;
                screens[4].alarmed = *dropped * 2;
                screens
            };
            dropped.iter().map(count).collect()
        };
        let mut totals = Totals::default();
        assert_eq!(totals.of(&names(&["a", "b"]), &counts(&[5, 7])), counts(&[5, 7]));
        // `b` moves to the first number, `c` comes.
        totals.settle(&names(&["a", "b"]), counts(&[5, 7, 0]));
        assert_eq!(
            totals.of(&names(&["b", "c"]), &counts(&[5, 7, 0])),
            counts(&[7, 0])
        );
        assert_eq!(
            totals.of(&names(&["b", "c"]), &counts(&[6, 9, 0])),
            counts(&[8, 2])
        );
        // `a` is back behind them.
        totals.settle(&names(&["b", "c"]), counts(&[6, 9, 0]));
        let now = totals.of(&names(&["c", "b", "a"]), &counts(&[7, 10, 1]));
        assert_eq!(now, counts(&[3, 9, 6]));
    }
}
