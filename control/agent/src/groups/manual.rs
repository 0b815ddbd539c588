//! Members by hand: `bulkhead group add` and `remove`, with or without an end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use bulkhead_config::IpPrefix;
use bulkhead_feeds::Entry;
use bulkhead_feeds::hold::Members;

use super::{Groups, InForce, Source, State, Step, Tables, apply, milliseconds, saved};
use crate::firewall::Answered;
use crate::protocol::{Failure, FailureCode};
use crate::report::GroupChanged;

/// The most members by hand in one group: more than this is a feed (`file://`).
const MOST: usize = 100_000;

/// The members by hand of a group, each with its end.
#[derive(Default)]
pub(super) struct Manual {
    pub(super) entries: BTreeMap<IpPrefix, Option<SystemTime>>,
    pub(super) in_force: InForce,
}

impl Manual {
    pub(super) fn new(kept: Members) -> Self {
        let lasting = kept.current().iter().map(|prefix| (*prefix, None));
        let ending = kept.held().iter().map(|(prefix, until)| (*prefix, Some(*until)));
        Self {
            entries: lasting.chain(ending).collect(),
            in_force: InForce::default(),
        }
    }

    pub(super) fn members(&self) -> Vec<IpPrefix> {
        self.entries.keys().copied().collect()
    }

    pub(super) fn expiry(&self) -> Option<SystemTime> {
        self.entries.values().copied().flatten().min()
    }

    fn kept(&self) -> Members {
        let lasting = self.entries.iter().filter(|(_, until)| until.is_none());
        let ending = self
            .entries
            .iter()
            .filter_map(|(prefix, until)| Some((*prefix, (*until)?)));
        Members::new(lasting.map(|(prefix, _)| *prefix).collect(), ending.collect())
    }
}

fn refuse(message: impl std::fmt::Display) -> Failure {
    Failure::new(FailureCode::Refused, message)
}

/// Addresses as a person writes them.
fn parse(addresses: &[String]) -> Answered<Vec<IpPrefix>> {
    let mut prefixes = Vec::new();
    for text in addresses {
        let plain = !text.contains([',', '#', ';', ' ']);
        let entry = Entry::of_value(text).ok().filter(|_| plain);
        let entry = entry.ok_or_else(|| {
            refuse(format!(
                "\"{text}\" is not an address; write 10.4.1.7, 10.4.0.0/24 or 10.4.2.1-10.4.2.9"
            ))
        })?;
        for prefix in entry.prefixes() {
            if prefix.length == 0 {
                return Err(refuse(format!(
                    "\"{text}\" is every address; write a policy for that"
                )));
            }
            prefixes.push(prefix);
        }
    }
    prefixes.sort_unstable();
    prefixes.dedup();
    match prefixes.is_empty() {
        true => Err(refuse("name at least one address")),
        false => Ok(prefixes),
    }
}

impl Groups {
    /// Adds members by hand, for so long or for good. In force when it returns, and on the disk.
    pub fn add(
        &self,
        group: &str,
        addresses: &[String],
        lasting: Option<Duration>,
        tables: &dyn Tables,
    ) -> Answered<GroupChanged> {
        let prefixes = parse(addresses)?;
        let until = match lasting {
            None => None,
            Some(lasting) => {
                let until = SystemTime::now()
                    .checked_add(lasting)
                    .filter(|_| !lasting.is_zero());
                Some(until.ok_or_else(|| refuse("that time cannot be told; write one such as 1h"))?)
            }
        };
        self.change(group, tables, |manual| {
            // Whatever was said before about the same address, this is said now.
            manual.extend(prefixes.iter().map(|prefix| (*prefix, until)));
            match manual.len() > MOST {
                true => Err(refuse(format!(
                    "group \"{group}\" would have more than {MOST} members by hand; give it a feed with a file:// url"
                ))),
                false => Ok(()),
            }
        })
    }

    /// Removes members that were added by hand.
    pub fn remove(&self, group: &str, addresses: &[String], tables: &dyn Tables) -> Answered<GroupChanged> {
        let prefixes = parse(addresses)?;
        self.change(group, tables, |manual| {
            let absent = prefixes.iter().find(|prefix| manual.remove(prefix).is_none());
            match absent {
                None => Ok(()),
                Some(prefix) => Err(refuse(format!(
                    "{prefix} was not added to group \"{group}\" by hand; what the configuration or a feed says is left \
                     out with `except`"
                ))),
            }
        })
    }

    fn change(
        &self,
        group: &str,
        tables: &dyn Tables,
        change: impl FnOnce(&mut BTreeMap<IpPrefix, Option<SystemTime>>) -> Answered<()>,
    ) -> Answered<GroupChanged> {
        let began = Instant::now();
        let mut state = self.lock();
        let Some(manual) = state.manual.get_mut(group) else {
            let known: Vec<&str> = state.manual.keys().map(String::as_str).take(8).collect();
            let known = if known.is_empty() {
                "none".to_owned()
            } else {
                known.join(", ")
            };
            return Err(refuse(format!(
                "there is no address group \"{group}\"; the groups are {known}"
            )));
        };
        let mut entries = manual.entries.clone();
        change(&mut entries)?;
        let before = std::mem::replace(&mut manual.entries, entries);
        let step = Step::between(before.keys().copied().collect(), manual.members());
        let applied = apply(
            &step,
            &Source::Manual.hidden(group),
            &manual.in_force,
            || manual.members(),
            tables,
        );
        let change = match applied {
            Ok(change) => change,
            Err(error) => {
                manual.entries = before;
                return Err(Failure::new(
                    FailureCode::Failed,
                    format!("nothing was changed: {error}"),
                ));
            }
        };
        let milliseconds = milliseconds(began);
        let members = manual.entries.len();
        // Written while nobody else can change it, so that the disk never goes back.
        let kept = self.save(self.turn(), group, Source::Manual, &saved(manual.kept()));
        drop(state);
        // An end may be sooner than anything that was waited for.
        self.wake.notify_all();
        tracing::info!(
            group,
            added = change.added,
            removed = change.removed,
            members,
            milliseconds,
            "members by hand in force"
        );
        match kept {
            Ok(()) => Ok(GroupChanged {
                group: group.to_owned(),
                added: change.added,
                removed: change.removed,
                members,
                kept: self.directory.is_some(),
                milliseconds,
            }),
            Err(error) => {
                let message = format!("it is in force, but will not survive a restart: {error}");
                Err(Failure::new(FailureCode::Failed, message))
            }
        }
    }
}

impl State {
    pub(super) fn expire_manual(&mut self, groups: &Groups, tables: &dyn Tables, wall: SystemTime) {
        for (group, manual) in &mut self.manual {
            if manual.expiry().is_none_or(|end| end > wall) {
                continue;
            }
            let before = manual.members();
            manual
                .entries
                .retain(|_, until| until.is_none_or(|until| until > wall));
            let step = Step::between(before, manual.members());
            match apply(
                &step,
                &Source::Manual.hidden(group),
                &manual.in_force,
                || manual.members(),
                tables,
            ) {
                Ok(change) => tracing::info!(group, removed = change.removed, "members by hand have ended"),
                Err(error) => tracing::error!(group, error, "members are not in force"),
            }
            // A failure is in the log.
            let _ = groups.save(groups.turn(), group, Source::Manual, &saved(manual.kept()));
        }
    }
}
