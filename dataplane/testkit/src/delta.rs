//! State-delta assertions: a step names the counters that move and by how much; every other stays still.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Named counters at one moment.
pub type Counters = BTreeMap<String, u64>;

/// What changed between two moments.
#[derive(Debug, Clone)]
pub struct CounterDelta {
    before: Counters,
    after: Counters,
    ignored: BTreeSet<String>,
}

impl CounterDelta {
    /// Compares two moments. A counter that is missing from one of them counts as 0 there.
    pub const fn between(before: Counters, after: Counters) -> Self {
        Self {
            before,
            after,
            ignored: BTreeSet::new(),
        }
    }

    /// Leaves these out of account: what others on the wire cause at their own time, such as neighbour
    /// discovery.
    #[must_use]
    pub fn ignoring(mut self, names: &[&str]) -> Self {
        self.ignored.extend(names.iter().map(|name| (*name).to_owned()));
        self
    }

    /// The counters that changed, with by how much.
    pub fn changes(&self) -> BTreeMap<&str, i128> {
        let names: BTreeSet<&String> = self.before.keys().chain(self.after.keys()).collect();
        let value = |of: &Counters, name: &String| i128::from(of.get(name).copied().unwrap_or(0));
        names
            .into_iter()
            .filter(|name| !self.ignored.contains(*name))
            .map(|name| {
                (
                    name.as_str(),
                    value(&self.after, name) - value(&self.before, name),
                )
            })
            .filter(|(_, by)| *by != 0)
            .collect()
    }

    /// Checks that exactly these changed, by exactly as much. The error prints every difference and then
    /// the whole state.
    pub fn check(&self, expected: &[(&str, u64)]) -> Result<(), String> {
        let changes = self.changes();
        let expected: BTreeMap<&str, i128> = expected
            .iter()
            .map(|(name, by)| (*name, i128::from(*by)))
            .filter(|(_, by)| *by != 0)
            .collect();
        if changes == expected {
            return Ok(());
        }
        let mut report = String::from("counters did not change as expected:\n");
        for name in changes.keys().chain(expected.keys()).collect::<BTreeSet<_>>() {
            let by = |of: &BTreeMap<&str, i128>| of.get(name).copied().unwrap_or(0);
            let (is, should) = (by(&changes), by(&expected));
            if is != should {
                let _infallible = writeln!(report, "  {name}: changed by {is:+}, expected {should:+}");
            }
        }
        report.push_str("as expected:\n");
        for (name, by) in changes
            .iter()
            .filter(|(name, by)| expected.get(*name) == Some(*by))
        {
            let _infallible = writeln!(report, "  {name}: {by:+}");
        }
        report.push_str("all counters that are not 0:\n");
        for (name, value) in self.after.iter().filter(|(_, value)| **value != 0) {
            let _infallible = writeln!(report, "  {name}: {value}");
        }
        Err(report)
    }

    /// Asserts that exactly these changed, by exactly as much.
    ///
    /// # Panics
    /// If not, with the whole state.
    #[track_caller]
    pub fn expect(&self, expected: &[(&str, u64)]) {
        if let Err(report) = self.check(expected) {
            panic!("{report}");
        }
    }
}

/// A test as a list of steps, each with the counters it moves.
///
/// ```
/// # use std::cell::Cell;
/// # use bulkhead_testkit::{Counters, Script};
/// let permitted = Cell::new(0);
/// let mut script = Script::new(|| Counters::from([("permitted".to_owned(), permitted.get())]));
/// script.step("nothing happens", &[], || ());
/// script.step("a packet is permitted", &[("permitted", 1)], || permitted.set(1));
/// ```
pub struct Script<R> {
    read: R,
    ignored: Vec<String>,
    last: Counters,
    steps: u32,
}

impl<R: FnMut() -> Counters> Script<R> {
    /// Begins with the state that `read` gives now.
    pub fn new(mut read: R) -> Self {
        let last = read();
        Self {
            read,
            ignored: Vec::new(),
            last,
            steps: 0,
        }
    }

    /// Leaves these counters out of account in every step.
    #[must_use]
    pub fn ignoring(mut self, names: &[&str]) -> Self {
        self.ignored.extend(names.iter().map(|name| (*name).to_owned()));
        self
    }

    /// Does something and asserts what it moved. What moved since the step before counts as moved by this
    /// one: nothing happens between steps unnoticed.
    ///
    /// # Panics
    /// If anything else moved, or by another amount.
    #[track_caller]
    pub fn step<T>(&mut self, what: &str, expected: &[(&str, u64)], action: impl FnOnce() -> T) -> T {
        self.steps += 1;
        let value = action();
        let now = (self.read)();
        let before = std::mem::replace(&mut self.last, now.clone());
        let ignored: Vec<&str> = self.ignored.iter().map(String::as_str).collect();
        if let Err(report) = CounterDelta::between(before, now)
            .ignoring(&ignored)
            .check(expected)
        {
            panic!("step {} ({what}): {report}", self.steps);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(pairs: &[(&str, u64)]) -> Counters {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), *value))
            .collect()
    }

    #[test]
    fn only_what_is_named_may_change() {
        let delta = CounterDelta::between(
            counters(&[("a", 1), ("b", 2)]),
            counters(&[("a", 4), ("b", 2), ("c", 1)]),
        );
        delta.expect(&[("a", 3), ("c", 1), ("b", 0)]);
        let report = delta.check(&[("a", 2), ("d", 1)]).expect_err("three differences");
        for line in [
            "a: changed by +3, expected +2",
            "c: changed by +1, expected +0",
            "d: changed by +0, expected +1",
        ] {
            assert!(report.contains(line), "{report}");
        }
        delta.ignoring(&["c"]).expect(&[("a", 3)]);
    }

    #[test]
    fn a_counter_that_shrinks_is_a_difference() {
        let delta = CounterDelta::between(counters(&[("a", 5)]), counters(&[("a", 4)]));
        assert!(delta.check(&[]).is_err());
    }

    #[test]
    #[should_panic(expected = "step 2 (silence)")]
    fn a_script_names_the_step_that_failed() {
        let value = std::cell::Cell::new(0);
        let mut script = Script::new(|| counters(&[("a", value.get())]));
        script.step("one more", &[("a", 1)], || value.set(1));
        script.step("silence", &[], || value.set(2));
    }
}
