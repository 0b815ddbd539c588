//! Names: looked up again when their time is over, kept when nobody can say.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bulkhead_config::IpPrefix;
use bulkhead_feeds::hold::Members;
use bulkhead_feeds::names::{Found, LookupError, lookup};
use bulkhead_feeds::schedule::Schedule;
use bulkhead_feeds::store::Saved;

use super::{Groups, InForce, MOST_WORKERS, Source, State, Step, Tables, any, apply, milliseconds, saved};

/// However short a record's time: every server can be asked this often.
const LEAST: Duration = Duration::from_secs(5);
/// However long: a name may move.
const MOST: Duration = Duration::from_secs(3_600);
/// How long an address stays that left the answer: servers tell some of many in turn, and sessions to the others go on.
const LINGER: Duration = Duration::from_secs(300);
/// The longest lookup.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long an answer is good for: as its shortest-lived record, or what was said of there being none, within bounds. Of an answer
/// that says nothing (from the hosts file) it is a minute.
fn again(found: &Found) -> Duration {
    let times = found.addresses.iter().map(|(_, time)| *time);
    times
        .chain(found.negative)
        .min()
        .unwrap_or(LEAST * 12)
        .clamp(LEAST, MOST)
}

/// The names of a group.
pub(super) struct NamesState {
    pub(super) names: BTreeMap<String, NameState>,
    /// What the disk had, until every name has been looked up.
    kept: Members,
    pub(super) in_force: InForce,
    pub(super) fetched: Option<SystemTime>,
    ticket: u64,
}

/// A name.
pub(super) struct NameState {
    pub(super) members: Members,
    pub(super) tried: Option<SystemTime>,
    pub(super) error: Option<String>,
    answered: bool,
    failures: u32,
    next: Instant,
    running: bool,
}

impl NamesState {
    pub(super) fn follow(
        before: Option<Self>,
        names: &[String],
        saved: impl FnOnce() -> Saved,
        ticket: u64,
    ) -> Self {
        let mut before = before.unwrap_or_else(|| {
            let saved = saved();
            Self {
                names: BTreeMap::new(),
                kept: saved.members,
                in_force: InForce::default(),
                fetched: saved.fetched,
                ticket,
            }
        });
        let same =
            before.names.len() == names.len() && names.iter().all(|name| before.names.contains_key(name));
        if same {
            return before;
        }
        let mut followed = BTreeMap::new();
        for name in names {
            let state = before.names.remove(name).unwrap_or_else(|| NameState {
                members: Members::default(),
                tried: None,
                error: None,
                answered: false,
                failures: 0,
                next: Instant::now(),
                running: false,
            });
            followed.insert(
                name.clone(),
                NameState {
                    running: false,
                    ..state
                },
            );
        }
        // Members of names that are gone leave; see `State::synchronize`.
        before.in_force.set(false);
        Self {
            names: followed,
            ticket,
            ..before
        }
    }

    /// Everyone, each once.
    pub(super) fn members(&self) -> Vec<IpPrefix> {
        let names = self.names.values().map(|name| &name.members);
        let mut all: Vec<IpPrefix> = names.chain([&self.kept]).flat_map(Members::all).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    pub(super) fn held(&self) -> usize {
        self.names.values().map(|name| name.members.held().len()).sum()
    }

    /// When a lookup is due.
    pub(super) fn next(&self) -> Option<Instant> {
        let idle = self.names.values().filter(|name| !name.running);
        idle.map(|name| name.next).min()
    }

    pub(super) fn expiry(&self) -> Option<SystemTime> {
        self.names
            .values()
            .filter_map(|name| name.members.next_expiry())
            .min()
    }
}

impl State {
    pub(super) fn start_lookups(&mut self, groups: &Arc<Groups>, tables: &Weak<dyn Tables>, now: Instant) {
        for (group, names) in &mut self.names {
            for (name, state) in &mut names.names {
                if self.workers >= MOST_WORKERS {
                    return;
                }
                if state.running || state.next > now {
                    continue;
                }
                let (groups, tables) = (groups.clone(), tables.clone());
                let (group, name, ticket) = (group.clone(), name.clone(), names.ticket);
                let spawned = thread::Builder::new()
                    .name("bulkhead-dns".to_owned())
                    .spawn(move || {
                        let found = lookup(&name, &groups.system, Instant::now() + PATIENCE);
                        groups.looked_up(&group, &name, ticket, found, &tables);
                    });
                match spawned {
                    Ok(_) => {
                        state.running = true;
                        self.workers += 1;
                    }
                    Err(error) => {
                        tracing::error!(%error, "cannot start a thread to look a name up");
                        state.next = now + LEAST;
                    }
                }
            }
        }
    }

    pub(super) fn expire_names(&mut self, tables: &dyn Tables, wall: SystemTime) {
        for (group, names) in &mut self.names {
            if names.expiry().is_none_or(|end| end > wall) {
                continue;
            }
            let before = names.members();
            for name in names.names.values_mut() {
                name.members.expire(wall);
            }
            let step = Step::between(before, names.members());
            let all = || names.members();
            if let Err(error) = apply(&step, &Source::Dns.hidden(group), &names.in_force, all, tables) {
                tracing::error!(group, error, "members are not in force");
            }
        }
    }
}

impl Groups {
    fn looked_up(
        &self,
        group: &str,
        name: &str,
        ticket: u64,
        found: Result<Found, LookupError>,
        tables: &Weak<dyn Tables>,
    ) {
        let received = Instant::now();
        let mut state = self.lock();
        state.workers -= 1;
        self.wake.notify_all();
        let closing = state.closing;
        let names = state.names.get_mut(group).filter(|names| names.ticket == ticket);
        let (Some(names), Some(tables), false) = (names, tables.upgrade(), closing) else {
            return;
        };
        let before = names.members();
        let Some(own) = names.names.get_mut(name) else {
            return;
        };
        let wall = SystemTime::now();
        own.running = false;
        own.tried = Some(wall);
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                let error = error.to_string();
                if own.error.as_ref() != Some(&error) {
                    tracing::warn!(
                        group,
                        name,
                        error,
                        "a name cannot be looked up, its last addresses stay"
                    );
                }
                own.error = Some(error);
                let mut schedule = Schedule {
                    interval: LEAST * 12,
                    failures: own.failures,
                };
                own.next = Instant::now() + schedule.next(false, any());
                own.failures = schedule.failures;
                return;
            }
        };
        (own.error, own.failures, own.answered) = (None, 0, true);
        own.next = Instant::now() + again(&found);
        let addresses = found
            .addresses
            .into_iter()
            .map(|(address, _)| IpPrefix::host(address));
        let mut addresses: Vec<IpPrefix> = addresses.collect();
        addresses.sort_unstable();
        own.members.replace(addresses, Some(LINGER), wall);
        if names.names.values().all(|name| name.answered) {
            names.kept.clear();
        }
        names.fetched = Some(wall);
        let after = names.members();
        let step = Step::between(before, after.clone());
        match apply(
            &step,
            &Source::Dns.hidden(group),
            &names.in_force,
            || after.clone(),
            &*tables,
        ) {
            Ok(change) if change == super::Change::default() => return,
            Ok(change) => tracing::info!(
                group,
                name,
                added = change.added,
                removed = change.removed,
                milliseconds = milliseconds(received),
                "addresses of a name in force"
            ),
            Err(error) => tracing::error!(group, name, error, "members are not in force"),
        }
        let saved = Saved {
            fetched: Some(wall),
            ..saved(Members::new(after, Vec::new()))
        };
        let turn = self.turn();
        drop(state);
        // A failure is in the log.
        let _ = self.save(turn, group, Source::Dns, &saved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer of records that live so long, and of a family without any for so long.
    fn answer(records: &[u64], negative: Option<u64>) -> Found {
        let address = |seconds: &u64| {
            (
                "192.0.2.1".parse().expect("an address"),
                Duration::from_secs(*seconds),
            )
        };
        Found {
            addresses: records.iter().map(address).collect(),
            negative: negative.map(Duration::from_secs),
        }
    }

    #[test]
    fn an_answer_is_good_for_as_long_as_it_says_within_bounds() {
        const DAY: u64 = 86_400;
        for (records, negative, seconds) in [
            (&[0][..], None, 5),
            (&[1], None, 5),
            (&[5], None, 5),
            (&[6], None, 6),
            (&[300], None, 300),
            (&[3_600], None, 3_600),
            (&[DAY], None, 3_600),
            // The shortest-lived one.
            (&[300, 40, 3_000], None, 40),
            (&[DAY, 1], None, 5),
            // There is none: of both families, or of one.
            (&[], Some(900), 900),
            (&[], Some(0), 5),
            (&[], Some(DAY), 3_600),
            (&[300], Some(60), 60),
            (&[60], Some(300), 60),
            // The hosts file.
            (&[], None, 60),
        ] {
            assert_eq!(
                again(&answer(records, negative)),
                Duration::from_secs(seconds),
                "{records:?} {negative:?}"
            );
        }
    }
}
