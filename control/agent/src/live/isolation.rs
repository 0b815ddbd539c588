//! The isolation in force beside the configuration: what MultiNetworkPolicies come to.
//!
//! Owns how one follows another. Members of its groups change like those of any dynamic group, without a commit. Other
//! policies are a generation with the same document: no revision, since the document did not change, and a rollback must not
//! bring old pods back. A commit of a document takes the isolation along as it is.
//!
//! Fails closed. An address that goes from one group to another is added there before it is removed here, and before a commit of
//! which that is part: in between it is isolated for both. Before anybody knows which policies there are, after a start without
//! the API and without a snapshot, everything is denied ([`unknown`]); so it is if the data plane refuses what the
//! snapshot comes to. What does not fit changes nothing. It has a share of the tables, so that a document of up to half
//! their size always finds room, whatever the policies of others are.
//! Lock order: the revisions, then the configuration, then the isolation.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bulkhead_config::{Action, Config, Extent, Policy, Selector, Size};
use bulkhead_dataplane::engine::EngineError;
use bulkhead_dataplane::ruleset::Prefix;
use bulkhead_feeds::store;
use bulkhead_kube::mnp::{Isolation, Snapshot};

use super::LiveFirewall;
use super::commits::milliseconds;
use crate::translate;

/// Below the state directory: what the policies were compiled from.
const FILE: &str = "network-policies.json";
/// The denial of everything, while nobody knows what is isolated. No policy of an object has such a name: those have two slashes.
pub const UNKNOWN: &str = "mnp/unknown";

/// Of the tables, what an isolation may fill: one in so many.
const SHARE: u32 = 2;
/// Of the words of rule vectors, what a generation with a new isolation may fill, in eighths: a configuration that comes
/// next to it must find room for its own.
const EIGHTHS: usize = 3;

/// The isolation of a firewall, and where it outlives the daemon.
#[derive(Debug)]
pub struct Isolations {
    /// `None`: MultiNetworkPolicies are not enforced.
    followed: Option<Followed>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Followed {
    /// `None`: it ends with the daemon.
    file: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct State {
    isolation: Arc<Isolation>,
    /// The data plane has these members, as far as we know.
    settled: bool,
    /// What stands in the way of the one that should be in force.
    refused: Option<String>,
    /// Why a start would not find it.
    unkept: Option<String>,
    /// The start had one of the disk.
    began: bool,
    /// Why nobody can say which policies there are.
    unknown: Option<String>,
}

/// Denies everything: what is isolated is not known.
fn unknown() -> Isolation {
    Isolation {
        denials: vec![Policy {
            name: UNKNOWN.to_owned(),
            from: Selector::Any,
            to: Selector::Any,
            source: Selector::Any,
            destination: Selector::Any,
            service: Selector::Any,
            action: Action::Deny,
            log: Vec::new(),
            line: 0,
        }],
        ..Isolation::default()
    }
}

impl Isolations {
    /// Where there are none: nothing is read, and nothing of what was is kept, so that it is not old when they are enforced again.
    pub fn none(state: Option<&Path>) -> Self {
        if let Some(file) = state.map(|state| state.join(FILE))
            && let Err(error) = fs::remove_file(&file)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(file = %file.display(), %error, "network policies of an earlier start cannot be removed");
        }
        Self {
            followed: None,
            state: Mutex::default(),
        }
    }

    /// What the last snapshot below the state directory comes to; without one, a denial of everything. `config` is what it
    /// will be put around.
    pub fn load(state: Option<&Path>, config: &Config) -> Self {
        let file = state.map(|state| state.join(FILE));
        let kept = file.as_ref().and_then(|file| match fs::read(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            read => {
                let isolation = read
                    .map_err(|error| error.to_string())
                    .and_then(|bytes| Snapshot::isolation(&bytes))
                    .and_then(|isolation| {
                        fits(config, &isolation, &config.size)?;
                        Ok(isolation)
                    });
                isolation
                    .inspect_err(|error| {
                        tracing::error!(file = %file.display(), error, "the last network policies cannot be used");
                    })
                    .ok()
            }
        });
        let began = kept.is_some();
        if !began {
            tracing::warn!(
                "no network policies are known yet: everything is denied until the API says which there are"
            );
        }
        Self {
            followed: Some(Followed { file }),
            state: Mutex::new(State {
                isolation: Arc::new(kept.unwrap_or_else(unknown)),
                // The data plane begins with it.
                settled: true,
                began,
                ..State::default()
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change of the state is complete before anything that may panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The isolation in force.
    pub fn in_force(&self) -> Arc<Isolation> {
        self.lock().isolation.clone()
    }

    /// In place of what was kept, which a start was refused for, the denial of everything. False: it was nothing of
    /// the kind.
    pub fn give_up(&self) -> bool {
        let mut state = self.lock();
        let kept = std::mem::take(&mut state.began);
        if kept {
            state.isolation = Arc::new(unknown());
            state.unknown = Some("those of the last run were refused at the start".to_owned());
        }
        kept
    }

    /// Why everything is denied, if it is for want of knowledge.
    pub fn waits(&self) -> Option<String> {
        let state = self.lock();
        let denied = state.isolation.denials.first()?;
        (denied.name == UNKNOWN).then(|| {
            let why = state.refused.as_deref().or(state.unknown.as_deref());
            let why = why.unwrap_or("the API has not said yet");
            format!("everything is denied until the MultiNetworkPolicies are known: {why}")
        })
    }

    /// Whether MultiNetworkPolicies are enforced.
    pub const fn are_followed(&self) -> bool {
        self.followed.is_some()
    }

    /// What is wrong, a sentence each.
    pub fn problems(&self) -> Vec<String> {
        let state = self.lock();
        let refused = state.refused.as_ref();
        let refused = refused.map(|error| format!("the MultiNetworkPolicies cannot be enforced: {error}"));
        let unknown = state.unknown.as_ref();
        let unknown = unknown.map(|error| format!("the MultiNetworkPolicies are not known: {error}"));
        let unkept = state.unkept.as_ref();
        let unkept =
            unkept.map(|error| format!("the MultiNetworkPolicies would not survive a restart: {error}"));
        refused.into_iter().chain(unknown).chain(unkept).collect()
    }

    /// Nobody can say which policies there are; `None`: it is known again.
    pub fn unknown(&self, error: Option<&str>) {
        self.lock().unknown = error.map(str::to_owned);
    }

    /// What should be in force is not, and why; `None`: it is.
    pub fn refused(&self, error: Option<&str>) {
        self.lock().refused = error.map(str::to_owned);
    }

    fn file(&self) -> Option<&Path> {
        self.followed.as_ref()?.file.as_deref()
    }

    /// Keeps what the isolation in force was compiled from; that is in force whatever the disk says.
    ///
    /// # Errors
    /// If it is not on the disk.
    pub fn keep(&self, snapshot: &[u8]) -> Result<(), String> {
        let Some(file) = self.file() else { return Ok(()) };
        let kept = store::replace(file, |out| out.write_all(snapshot));
        let kept = kept.map_err(|error| format!("{}: {error}", file.display()));
        let mut state = self.lock();
        if let Err(error) = &kept
            && state.unkept.is_none()
        {
            tracing::error!(
                error,
                "network policies will not survive a restart; it is tried again"
            );
        }
        state.unkept = kept.as_ref().err().cloned();
        kept
    }

    /// What the start has found on the disk and put in force.
    pub fn snapshot(&self) -> Option<Vec<u8>> {
        let file = self.file().filter(|_| self.lock().began)?;
        fs::read(file).ok()
    }
}

/// What an isolation has of what tables are made for, in addition to that of a document.
fn extent(isolation: &Isolation) -> Extent {
    let members = || {
        isolation
            .groups
            .iter()
            .flat_map(|group| group.members.iter().chain(&group.except))
    };
    let v4 = members().filter(|member| member.range().first.is_ipv4()).count();
    Extent {
        policies: isolation.denials.len() + isolation.permits.len(),
        addresses_v4: v4,
        addresses_v6: members().count() - v4,
        inbound: 0,
    }
}

/// Whether an isolation keeps to its share, so that documents have theirs.
fn keeps_to_its_share(isolation: &Isolation, size: &Size) -> Result<(), String> {
    let share = Size {
        policies: size.policies / SHARE,
        addresses: size.addresses / SHARE,
        ..*size
    };
    match extent(isolation).excess(&share).first() {
        None => Ok(()),
        Some(excess) => Err(format!(
            "{} {} of MultiNetworkPolicies are more than their share of the tables, which is {}; raise spec.size.{} and \
             start the daemon again",
            excess.number, excess.what, excess.room, excess.field
        )),
    }
}

/// Whether both have room together. An address that both name counts twice. A document of up to half of the size never
/// fails for the isolation's sake.
pub(super) fn fits(config: &Config, isolation: &Isolation, size: &Size) -> Result<(), String> {
    let own = extent(isolation);
    let both = Extent {
        policies: config.extent.policies + own.policies,
        addresses_v4: config.extent.addresses_v4 + own.addresses_v4,
        addresses_v6: config.extent.addresses_v6 + own.addresses_v6,
        inbound: config.extent.inbound,
    };
    match both.excess(size).first() {
        None => Ok(()),
        Some(excess) => Err(format!(
            "{} {} of the document and of MultiNetworkPolicies together do not fit the tables, which were made for {}; raise \
             spec.size.{} and start the daemon again",
            excess.number, excess.what, excess.room, excess.field
        )),
    }
}

/// Members of groups that both isolations have.
#[derive(Debug, Default, PartialEq, Eq)]
struct Steps {
    add: Vec<(String, Vec<Prefix>)>,
    remove: Vec<(String, Vec<Prefix>)>,
}

impl Steps {
    fn between(before: &Isolation, next: &Isolation) -> Self {
        let was: BTreeMap<&str, BTreeSet<Prefix>> = translate::isolation::members(before)
            .map(|(group, members)| (group, members.into_iter().collect()))
            .collect();
        let mut steps = Self::default();
        for (group, members) in translate::isolation::members(next) {
            let Some(was) = was.get(group) else { continue };
            let is: BTreeSet<Prefix> = members.into_iter().collect();
            let (add, remove): (Vec<_>, Vec<_>) = (
                is.difference(was).copied().collect(),
                was.difference(&is).copied().collect(),
            );
            for (all, step) in [(&mut steps.add, add), (&mut steps.remove, remove)] {
                if !step.is_empty() {
                    all.push((group.to_owned(), step));
                }
            }
        }
        steps
    }

    /// All members of the groups that both have.
    fn all(before: &Isolation, next: &Isolation) -> Vec<(String, Vec<Prefix>)> {
        let both: BTreeSet<&str> = translate::isolation::members(before)
            .map(|(group, _)| group)
            .collect();
        translate::isolation::members(next)
            .filter(|(group, _)| both.contains(group))
            .map(|(group, members)| (group.to_owned(), members))
            .collect()
    }

    fn count(steps: &[(String, Vec<Prefix>)]) -> usize {
        steps.iter().map(|(_, members)| members.len()).sum()
    }
}

impl LiveFirewall {
    /// The isolation, and what is known of it.
    pub const fn isolations(&self) -> &Isolations {
        &self.isolations
    }

    /// Puts an isolation in force. The one that is in force already costs nothing.
    ///
    /// # Errors
    /// Why not; the one before is in force.
    pub fn isolate(&self, next: &Isolation) -> Result<(), String> {
        // One commit after the other.
        let kept = self.commits.lock();
        let before = self.isolations.in_force();
        let settled = self.isolations.lock().settled;
        let began = Instant::now();
        let outcome = match *before == *next && settled {
            true => Ok(()),
            false => self.follow_isolation(&before, next, settled, began),
        };
        drop(kept);
        outcome
    }

    fn follow_isolation(
        &self,
        before: &Isolation,
        next: &Isolation,
        settled: bool,
        began: Instant,
    ) -> Result<(), String> {
        keeps_to_its_share(next, self.tables.size())?;
        fits(&self.config(), next, self.tables.size())?;
        let steps = Steps::between(before, next);
        // Whatever fails from here on, nobody knows which members the data plane has.
        self.isolations.lock().settled = false;
        let add = match settled {
            true => steps.add.clone(),
            // Nobody knows it now: before anything is removed, everything is added.
            false => Steps::all(before, next),
        };
        self.change(&add, |group, members| {
            self.engine.update_members(group, members, &[])
        })?;
        let same_policies = before.differs_in_members_only(next);
        if !same_policies {
            self.commit_isolation(next)?;
        }
        self.change(&steps.remove, |group, members| {
            self.engine.update_members(group, &[], members)
        })?;
        if !settled {
            let all: Vec<_> = translate::isolation::members(next)
                .map(|(group, members)| (group.to_owned(), members))
                .collect();
            self.change(&all, |group, members| {
                self.engine.set_members(group, members.to_vec())
            })?;
        }
        let mut state = self.isolations.lock();
        state.isolation = Arc::new(next.clone());
        state.settled = true;
        drop(state);
        let (denials, permits) = (next.denials.len(), next.permits.len());
        let (added, removed) = (Steps::count(&steps.add), Steps::count(&steps.remove));
        let generation = self.engine.generation();
        let milliseconds = milliseconds(began);
        match same_policies {
            true => tracing::info!(added, removed, milliseconds, "pods of network policies in force"),
            false => tracing::info!(
                denials,
                permits,
                pod_groups = next.pod_groups,
                generation,
                milliseconds,
                "network policies in force"
            ),
        }
        Ok(())
    }

    /// A generation of the configuration in force with another isolation around it.
    fn commit_isolation(&self, next: &Isolation) -> Result<(), String> {
        // Whoever reads names and hits reads those of one generation.
        let config = self.config.write().unwrap_or_else(PoisonError::into_inner);
        let committed = self.enforce_around(&config, next, Some(EIGHTHS));
        if committed.is_ok() {
            self.isolations.lock().isolation = Arc::new(next.clone());
        }
        // Whatever became of it: the sources of groups must know.
        self.groups.follow(&config, self);
        committed.map(drop).map_err(|error| error.to_string())
    }

    fn change<T>(
        &self,
        steps: &[(String, Vec<Prefix>)],
        one: impl Fn(&str, &[Prefix]) -> Result<T, EngineError>,
    ) -> Result<(), String> {
        for (group, members) in steps {
            one(group, members).map_err(|error| format!("members of {group}: {error}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let text = "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: { name: x }\nspec:\n  size: { policies: 4 }\n  \
                    interfaces: [{ name: net1, zone: a }]\n  zones: [{ name: a }]\n  policies:\n    - { name: p, from: a, to: a, \
                    action: deny }\n";
        match bulkhead_config::parse("x.yaml", text) {
            Ok(parsed) => parsed.config,
            Err(refused) => panic!("{refused}"),
        }
    }

    /// A policy that isolates every pod, and the pods with their labels and addresses.
    fn snapshot(pods: &[(&str, &str)]) -> Vec<u8> {
        let pods: Vec<String> = pods
            .iter()
            .map(|(app, address)| {
                format!(
                    r#"{{ "namespace": "shop", "labels": {{ "app": "{app}" }}, "attached": [["net", "a", ["{address}"]]], "ports": [] }}"#
                )
            })
            .collect();
        format!(
            r#"{{ "version": 1, "namespaces": {{}}, "pods": [{}], "policies": [{{
                "metadata": {{ "namespace": "shop", "name": "all", "annotations": {{ "k8s.v1.cni.cncf.io/policy-for": "net/a" }} }},
                "spec": {{ "podSelector": {{}}, "ingress": [{{ "from": [{{ "podSelector": {{ "matchLabels": {{ "app": "web" }} }} }}] }}] }}
            }}] }}"#,
            pods.join(", ")
        )
        .into_bytes()
    }

    fn isolation(pods: &[(&str, &str)]) -> Isolation {
        Snapshot::isolation(&snapshot(pods)).expect("an isolation")
    }

    #[test]
    fn a_start_has_the_last_policies_or_denies_everything() {
        let roof = tempfile::tempdir().expect("a directory");
        let state = Some(roof.path());
        let first = Isolations::load(state, &config());
        assert_eq!(*first.in_force(), unknown());
        assert!(
            first
                .waits()
                .is_some_and(|why| why.contains("the API has not said yet"))
        );
        first.unknown(Some("connection refused"));
        assert!(
            first
                .waits()
                .is_some_and(|why| why.contains("connection refused"))
        );
        assert_eq!(first.problems().len(), 1);

        let pods = [("web", "10.0.0.1"), ("db", "10.0.0.2")];
        first.keep(&snapshot(&pods)).expect("it is kept");
        assert_eq!(first.snapshot(), None, "it did not begin with it");
        let next = Isolations::load(state, &config());
        assert_eq!(*next.in_force(), isolation(&pods));
        assert_eq!((next.waits(), next.problems()), (None, Vec::new()));
        assert_eq!(next.snapshot(), Some(snapshot(&pods)));
        // What the data plane refuses at a start is no reason to end: everything is denied, and it says why.
        assert!(next.give_up());
        assert_eq!(*next.in_force(), unknown());
        assert!(
            next.waits()
                .is_some_and(|why| why.contains("refused at the start"))
        );
        assert_eq!(next.snapshot(), None);
        assert!(!next.give_up(), "once");
        assert!(!first.give_up(), "there was none");

        let file = roof.path().join(FILE);
        fs::write(&file, &snapshot(&pods)[..100]).expect("a file");
        assert!(Isolations::load(state, &config()).waits().is_some(), "half of it");
        first.keep(&snapshot(&pods)).expect("it is kept");
        let small = Config {
            size: bulkhead_config::Size {
                policies: 1,
                ..config().size
            },
            ..config()
        };
        assert!(
            Isolations::load(state, &small).waits().is_some(),
            "there is no room"
        );

        let none = Isolations::none(state);
        assert!(!file.exists(), "it would be old when it is asked for again");
        assert_eq!((none.waits(), none.are_followed()), (None, false));
        assert_eq!(*none.in_force(), Isolation::default());
        assert!(
            Isolations::load(None, &config()).waits().is_some(),
            "nothing outlives it"
        );
    }

    #[test]
    fn who_goes_from_one_group_to_another_is_added_there_and_removed_here() {
        let before = isolation(&[("web", "10.0.0.1"), ("web", "10.0.0.3"), ("db", "10.0.0.2")]);
        let after = isolation(&[("web", "10.0.0.1"), ("db", "10.0.0.3"), ("db", "10.0.0.2")]);
        assert!(before.differs_in_members_only(&after));
        let steps = Steps::between(&before, &after);
        let ([added], [removed]) = (&steps.add[..], &steps.remove[..]) else {
            panic!("{steps:?}")
        };
        assert_ne!(added.0, removed.0);
        assert_eq!(added.1, removed.1);
        assert_eq!(added.1[0].address.to_string(), "10.0.0.3");
        assert_eq!(Steps::between(&before, &before), Steps::default());
        // Groups that come with a commit come with their members.
        assert_eq!(Steps::between(&Isolation::default(), &after), Steps::default());
    }

    #[test]
    fn what_cannot_be_kept_is_a_problem_until_it_is() {
        let roof = tempfile::tempdir().expect("a directory");
        let file = roof.path().join("state");
        let isolations = Isolations::load(Some(&file), &config());
        fs::write(&file, b"").expect("a file");
        isolations.keep(b"{}").expect_err("no directory");
        let problems = isolations.problems();
        assert!(
            problems.len() == 1 && problems[0].contains("would not survive a restart"),
            "{problems:?}"
        );
        fs::remove_file(&file).expect("it is there");
        isolations.keep(b"{}").expect("it is kept");
        assert_eq!(isolations.problems(), Vec::<String>::new());
        isolations.refused(Some("no room"));
        assert!(isolations.problems()[0].contains("no room"));
        isolations.refused(None);
        assert_eq!(isolations.problems(), Vec::<String>::new());
    }

    #[test]
    fn an_isolation_leaves_half_to_the_document() {
        let isolation = isolation(&[("web", "10.0.0.1"), ("db", "10.0.0.2")]);
        let own = isolation.denials.len() + isolation.permits.len();
        let room = |policies: usize, addresses: u32| Size {
            policies: policies as u32,
            addresses,
            ..config().size
        };
        keeps_to_its_share(&isolation, &room(2 * own, 6)).expect("its share");
        let error = keeps_to_its_share(&isolation, &room(2 * own - 1, 6)).expect_err("more");
        assert!(error.contains("raise spec.size.policies"), "{error}");
        let error = keeps_to_its_share(&isolation, &room(2 * own, 5)).expect_err("more");
        assert!(error.contains("raise spec.size.addresses"), "{error}");
    }

    #[test]
    fn after_a_failure_everything_is_added_before_anything_is_removed() {
        let before = isolation(&[("web", "10.0.0.1"), ("db", "10.0.0.2")]);
        let after = isolation(&[("web", "10.0.0.1"), ("db", "10.0.0.3")]);
        let all = Steps::all(&before, &after);
        let count = Steps::count(&all);
        assert_eq!((all.len(), count), (2, 2), "those that stay too: {all:?}");
        assert_eq!(Steps::all(&Isolation::default(), &after), Vec::new());
    }

    #[test]
    fn what_does_not_fit_says_what_would() {
        let isolation = isolation(&[("web", "10.0.0.1"), ("db", "10.0.0.2")]);
        let own = isolation.denials.len() + isolation.permits.len();
        let room = |policies: usize, addresses: u32| Size {
            policies: policies as u32,
            addresses,
            ..config().size
        };
        fits(&config(), &isolation, &room(own + 1, 100)).expect("room for both");
        let error = fits(&config(), &isolation, &room(own, 100)).expect_err("no room");
        assert!(
            error.contains(&format!("{} policies", own + 1)) && error.contains("raise spec.size.policies"),
            "{error}"
        );
        let error = fits(&config(), &isolation, &room(own + 1, 2)).expect_err("no room");
        assert!(error.contains("raise spec.size.addresses"), "{error}");
    }
}
