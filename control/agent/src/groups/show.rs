//! What `show groups` says about sources.

use std::time::{Instant, SystemTime};

use bulkhead_config::{Config, Group, GroupId, IpPrefix, Selector};

use super::{Groups, Source, State};
use crate::report::{self, GroupMember, GroupSource, seconds};
use crate::words;

/// Members of a source that are shown unless all are asked for.
const SHOWN: usize = 5;

/// An address without what may be a secret in it.
pub fn redacted(url: &str) -> String {
    match url.split_once('?') {
        Some((place, _)) => format!("{place}?…"),
        None => url.to_owned(),
    }
}

impl Groups {
    /// The groups of a configuration, or one of them, with all members or the first of each source.
    pub fn report(&self, config: &Config, only: Option<&str>, all: bool) -> report::Groups {
        let limit = if all { usize::MAX } else { SHOWN };
        let state = self.lock();
        let names = |selector: &Selector<GroupId>, id: GroupId| match selector {
            Selector::Any => false,
            Selector::OneOf(ids) => ids.contains(&id),
        };
        let group = |(number, group): (u32, &Group)| {
            let id = GroupId(number);
            let named = |ids: &[GroupId]| {
                ids.iter()
                    .map(|id| config.group(*id).name.clone())
                    .collect::<Vec<_>>()
            };
            let texts = |members: &[bulkhead_config::Member]| {
                members.iter().map(ToString::to_string).collect::<Vec<_>>()
            };
            let sources = match group.literal {
                true => Vec::new(),
                false => state.sources(group, limit),
            };
            let configured: usize = group
                .members
                .iter()
                .map(|member| member.range().prefixes().len())
                .sum();
            report::Group {
                name: group.name.clone(),
                literal: group.literal,
                members: [texts(&group.members), named(&group.groups)].concat(),
                except: [texts(&group.except), named(&group.except_groups)].concat(),
                prefixes: configured + sources.iter().map(|source| source.prefixes).sum::<usize>(),
                sources,
                policies: config
                    .policies
                    .iter()
                    .filter(|policy| names(&policy.source, id) || names(&policy.destination, id))
                    .map(|policy| policy.name.clone())
                    .collect(),
            }
        };
        let shown = (0..)
            .zip(&config.groups)
            .filter(|(_, group)| only.is_none_or(|only| only == group.name));
        report::Groups {
            groups: shown.map(group).collect(),
        }
    }
}

impl State {
    fn sources(&self, group: &Group, limit: usize) -> Vec<GroupSource> {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let age = |time: Option<SystemTime>| {
            time.map(|time| seconds(wall.duration_since(time).unwrap_or_default()))
        };
        let left = |until: SystemTime| seconds(until.duration_since(wall).unwrap_or_default());
        let wait = |due: Instant| seconds(due.saturating_duration_since(now));
        let member = |prefix: IpPrefix, until: Option<SystemTime>| GroupMember {
            prefix: shown(prefix),
            expires_in_seconds: until.map(left),
        };
        let mut sources = Vec::new();
        if let Some(state) = self.feeds.get(&group.name) {
            let current = state.members.current().iter().map(|prefix| member(*prefix, None));
            let held = state
                .members
                .held()
                .iter()
                .map(|(prefix, until)| member(*prefix, Some(*until)));
            sources.push(GroupSource {
                kind: Source::Feed.name().to_owned(),
                location: Some(redacted(&state.feed.url)),
                prefixes: state.members.len(),
                held: state.members.held().len(),
                pending: None,
                members: current.chain(held).take(limit).collect(),
                in_force: state.in_force.get(),
                age_seconds: age(state.fetched),
                last_fetch: state.tried.map(words::timestamp),
                last_error: state.error.clone(),
                next_in_seconds: (!state.running).then(|| wait(state.next)),
                bad_entries: state.bad,
                bad_examples: state.examples.clone(),
                skipped_entries: state.skipped,
            });
        }
        if let Some(state) = self.names.get(&group.name) {
            let all = state.members();
            let errors: Vec<&str> = state
                .names
                .values()
                .filter_map(|name| name.error.as_deref())
                .collect();
            let names: Vec<&str> = state.names.keys().map(String::as_str).collect();
            sources.push(GroupSource {
                kind: Source::Dns.name().to_owned(),
                location: Some(names.join(", ")),
                prefixes: all.len(),
                held: state.held(),
                pending: None,
                members: all
                    .into_iter()
                    .take(limit)
                    .map(|prefix| member(prefix, None))
                    .collect(),
                in_force: state.in_force.get(),
                age_seconds: age(state.fetched),
                last_fetch: state
                    .names
                    .values()
                    .filter_map(|name| name.tried)
                    .max()
                    .map(words::timestamp),
                last_error: (!errors.is_empty()).then(|| errors.join("; ")),
                next_in_seconds: state.next().map(wait),
                bad_entries: 0,
                bad_examples: Vec::new(),
                skipped_entries: 0,
            });
        }
        if let Some(state) = self.pods.get(&group.name) {
            sources.push(GroupSource {
                kind: Source::Pods.name().to_owned(),
                location: Some(state.location()),
                prefixes: state.members.len(),
                held: 0,
                pending: Some(state.pending),
                members: state
                    .members
                    .iter()
                    .take(limit)
                    .map(|prefix| member(*prefix, None))
                    .collect(),
                in_force: state.in_force.get(),
                age_seconds: match state.watched {
                    true => Some(0.0),
                    false => age(state.known),
                },
                last_fetch: state.known.map(words::timestamp),
                last_error: state.error.clone(),
                next_in_seconds: None,
                bad_entries: 0,
                bad_examples: Vec::new(),
                skipped_entries: 0,
            });
        }
        if let Some(state) = self.objects.get(&group.name) {
            sources.push(GroupSource {
                kind: Source::AddressGroup.name().to_owned(),
                location: Some(state.location()),
                prefixes: state.members.len(),
                held: 0,
                pending: Some(state.pending),
                members: state
                    .members
                    .iter()
                    .take(limit)
                    .map(|prefix| member(*prefix, None))
                    .collect(),
                in_force: state.in_force.get(),
                age_seconds: match state.watched {
                    true => Some(0.0),
                    false => age(state.known),
                },
                last_fetch: state.known.map(words::timestamp),
                last_error: state.error.clone(),
                next_in_seconds: None,
                bad_entries: 0,
                bad_examples: Vec::new(),
                skipped_entries: 0,
            });
        }
        if let Some(state) = self
            .manual
            .get(&group.name)
            .filter(|manual| !manual.entries.is_empty())
        {
            let entries = state
                .entries
                .iter()
                .map(|(prefix, until)| member(*prefix, *until));
            sources.push(GroupSource {
                kind: Source::Manual.name().to_owned(),
                location: None,
                prefixes: state.entries.len(),
                held: 0,
                pending: None,
                members: entries.take(limit).collect(),
                in_force: state.in_force.get(),
                age_seconds: None,
                last_fetch: None,
                last_error: None,
                next_in_seconds: None,
                bad_entries: 0,
                bad_examples: Vec::new(),
                skipped_entries: 0,
            });
        }
        sources
    }
}

/// A host without its length.
fn shown(prefix: IpPrefix) -> String {
    match prefix == IpPrefix::host(prefix.address) {
        true => prefix.address.to_string(),
        false => prefix.to_string(),
    }
}
