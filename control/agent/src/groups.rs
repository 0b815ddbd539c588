//! Address groups that change while the firewall runs: by feeds, by DNS, by pods, by objects of the Kubernetes API and by hand.
//!
//! Owns where members come from; the engine owns what is in force. Each source of a named group is a hidden dynamic group of the data
//! plane, `NAME/feed`, `NAME/dns`, `NAME/pods`, `NAME/addressgroup` and `NAME/manual`, nested in the static group `NAME`, so that `except` and nesting hold for
//! all of them alike. One thread keeps the time table; fetches and lookups run in threads of their own, since a server may
//! take its time. A change is in force first and on the disk second; a start takes what the disk has, so that a quarantine is not
//! empty while its server is away. Assumes that nobody else changes the hidden groups. Lock order: the configuration, then
//! this state, then the engine's own or what is written.

mod feeds;
mod manual;
mod names;
mod objects;
mod pods;
mod show;

use std::collections::BTreeMap;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime};

use bulkhead_config::{Config, IpPrefix};
use bulkhead_dataplane::pulse::Pulse;
use bulkhead_dataplane::ruleset::{Prefix, Ruleset};
use bulkhead_feeds::hold::{Members, Step};
use bulkhead_feeds::names::System;
use bulkhead_feeds::store::{self, Saved};

use self::feeds::FeedState;
use self::manual::Manual;
use self::names::NamesState;
use self::objects::ObjectState;
use self::pods::PodsState;

pub use self::show::redacted;

/// Below the state directory.
const DIRECTORY: &str = "groups";
/// Fetches and lookups at once.
const MOST_WORKERS: usize = 4;
/// How long what is known about a group outlives its configuration.
const FORGOTTEN: Duration = Duration::from_secs(30 * 86_400);
/// How often a file is told that its group is configured.
const REMINDED: Duration = Duration::from_secs(86_400);
/// How long the thread sleeps where nothing is due.
const IDLE: Duration = Duration::from_secs(60);

/// A source of members, and the last part of its hidden group's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A list.
    Feed,
    /// Names.
    Dns,
    /// Pods.
    Pods,
    /// An object `AddressGroup`.
    AddressGroup,
    /// By hand.
    Manual,
}

impl Source {
    const ALL: [Self; 5] = [
        Self::Feed,
        Self::Dns,
        Self::Pods,
        Self::AddressGroup,
        Self::Manual,
    ];

    /// As users see it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Feed => "feed",
            Self::Dns => "dns",
            Self::Pods => "pods",
            Self::AddressGroup => "addressgroup",
            Self::Manual => "manual",
        }
    }

    /// The hidden group of a named one. No name of a group has a slash in it.
    pub fn hidden(self, group: &str) -> String {
        format!("{group}/{}", self.name())
    }

    /// The sources of a group.
    pub fn of(group: &bulkhead_config::Group) -> impl Iterator<Item = Self> {
        let has = |source: &Self| match source {
            Self::Feed => group.feed.is_some(),
            Self::Dns => !group.dns.is_empty(),
            Self::Pods => group.pods.is_some(),
            Self::AddressGroup => group.address_group.is_some(),
            Self::Manual => true,
        };
        Self::ALL
            .into_iter()
            .filter(move |source| !group.literal && has(source))
    }
}

/// Whether a group of the data plane is one of ours, or of network policies; a literal such as `10.0.0.0/8` is not.
pub fn is_hidden(group: &str) -> bool {
    if group.starts_with("mnp/") {
        return true;
    }
    let last = group.rsplit_once('/').map(|(_, last)| last);
    Source::ALL.iter().any(|source| last == Some(source.name()))
}

/// The data plane's side: groups by their hidden names.
pub trait Tables: Send + Sync {
    /// Replaces the members.
    fn set_members(&self, group: &str, members: Vec<Prefix>) -> Result<(), String>;
    /// Adds and removes some.
    fn update_members(&self, group: &str, add: &[Prefix], remove: &[Prefix]) -> Result<(), String>;
}

/// What changed in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// How many were added.
    pub added: usize,
    /// How many were removed.
    pub removed: usize,
}

/// The sources of all groups.
pub struct Groups {
    /// Where the last good lists are; `None`: they end with the daemon.
    directory: Option<PathBuf>,
    system: System,
    state: Mutex<State>,
    /// Counts what is to be written, in the order of the state.
    turns: AtomicU64,
    /// The turn of what each file has; held while one is written.
    written: Mutex<BTreeMap<PathBuf, u64>>,
    /// Something is due earlier than was thought, or a worker is free.
    wake: Condvar,
    /// Whom to tell of another configuration.
    observer: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct State {
    feeds: BTreeMap<String, FeedState>,
    names: BTreeMap<String, NamesState>,
    pods: BTreeMap<String, PodsState>,
    objects: BTreeMap<String, ObjectState>,
    manual: BTreeMap<String, Manual>,
    /// Counts the sources that ever were, so that a worker knows its own.
    tickets: u64,
    workers: usize,
    /// The firewall runs: what follows is a commit.
    running: bool,
    /// A ruleset is on its way into the data plane.
    committing: bool,
    closing: bool,
}

/// What becomes of sources that a configuration does not have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    /// It may not come to be.
    Keep,
    /// It is in force.
    Forget,
}

impl Groups {
    /// Reads what was kept below the state directory for the groups of a configuration.
    pub fn load(state: Option<&Path>, config: &Config) -> Arc<Self> {
        let groups = Self {
            directory: state.map(|state| state.join(DIRECTORY)),
            system: System::default(),
            state: Mutex::default(),
            turns: AtomicU64::new(0),
            written: Mutex::default(),
            wake: Condvar::new(),
            observer: OnceLock::new(),
        };
        groups.lock().follow(&groups, config, Others::Forget);
        Arc::new(groups)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change of the state is complete before anything that may panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the hidden groups of a ruleset that is to be in force the members they begin with. The data plane takes them
    /// for groups that it does not have yet. [`Groups::follow`] must come next, whatever becomes of the ruleset.
    pub fn fill(&self, config: &Config, ruleset: &mut Ruleset) {
        let mut state = self.lock();
        state.follow(self, config, Others::Keep);
        state.committing = true;
        for group in ruleset.groups.iter_mut().filter(|group| group.dynamic) {
            if let Some((name, source)) = group.name.rsplit_once('/') {
                // A commit costs nothing for groups that go on as they are.
                group.members = state.unknown_members(name, source);
            }
        }
    }

    /// A ruleset was in force and is taken back: nobody knows what the data plane has until [`Groups::follow`].
    pub fn doubt(&self) {
        self.lock().in_force().for_each(|in_force| in_force.set(false));
    }

    /// The data plane has begun with what [`Groups::fill`] gave it.
    pub fn begun(&self) {
        let mut state = self.lock();
        state.committing = false;
        state.running = true;
        state.in_force().for_each(|in_force| in_force.set(true));
        self.touch(&state, SystemTime::now());
        self.forget_others(&state, SystemTime::now());
    }

    /// Follows a configuration that is in force now: sources that are new, changed and gone.
    pub fn follow(&self, config: &Config, tables: &dyn Tables) {
        let mut state = self.lock();
        state.follow(self, config, Others::Forget);
        state.committing = false;
        // Whatever the engine had from before, or was given at the commit: from here on it is what we know.
        state.synchronize(tables);
        drop(state);
        self.wake.notify_all();
        if let Some(observer) = self.observer.get() {
            observer();
        }
    }

    /// Has somebody told of every configuration from here on; the first one who asks.
    pub fn on_change(&self, observer: impl Fn() + Send + Sync + 'static) {
        let _ = self.observer.set(Box::new(observer));
    }

    /// Keeps the time table until [`Groups::close`]. Changes go to `tables` as long as it lives.
    pub fn keep(self: &Arc<Self>, tables: &Weak<dyn Tables>, pulse: &Pulse) {
        let mut state = self.lock();
        let mut reminded = Instant::now();
        while !state.closing {
            pulse.beat();
            let (now, wall) = (Instant::now(), SystemTime::now());
            if now.duration_since(reminded) >= REMINDED {
                self.touch(&state, wall);
                reminded = now;
            }
            let mut wait = IDLE;
            // During a commit nobody knows which groups there are; it wakes us at its end.
            if let Some(tables) = tables.upgrade().filter(|_| !state.committing) {
                state.synchronize(&*tables);
                state.expire_feeds(self, &*tables, wall);
                state.expire_names(&*tables, wall);
                state.expire_pods(self, &*tables, now);
                state.expire_manual(self, &*tables, wall);
                state.start_due(self, &tables, now);
                wait = state.next(now, wall).unwrap_or(IDLE);
            }
            let wait = wait.clamp(Duration::from_millis(1), IDLE);
            let waited = self.wake.wait_timeout(state, wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends [`Groups::keep`]; what is on its way is dropped when it arrives.
    pub fn close(&self) {
        self.lock().closing = true;
        self.wake.notify_all();
    }

    /// Where the last good members of a source are.
    fn path(&self, group: &str, source: Source) -> Option<PathBuf> {
        let directory = self.directory.as_ref()?;
        Some(directory.join(format!("{group}.{}", source.name())))
    }

    fn kept(&self, group: &str, source: Source) -> Saved {
        let Some(path) = self.path(group, source) else {
            return Saved::default();
        };
        match store::load(&path) {
            Ok(saved) => saved.unwrap_or_default(),
            Err(error) => {
                tracing::error!(group, source = source.name(), file = %path.display(), %error, "the group begins empty");
                Saved::default()
            }
        }
    }

    /// The place of a change among all; taken with the state locked, so that the disk never goes back to what was before it.
    fn turn(&self) -> u64 {
        self.turns.fetch_add(1, Ordering::Relaxed)
    }

    /// One after the other, and never what is older than the file. What is in force stays in force whatever the disk says;
    /// whoever reads the log must know.
    fn save(&self, turn: u64, group: &str, source: Source, saved: &Saved) -> Result<(), String> {
        let Some(path) = self.path(group, source) else {
            return Ok(());
        };
        // A turn is noted when its file is whole.
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.get(&path).is_some_and(|newer| *newer > turn) {
            return Ok(());
        }
        if let Err(error) = store::save(&path, saved) {
            let file = path.display();
            tracing::error!(group, source = source.name(), %file, %error, "members will not survive a restart");
            return Err(format!("cannot write {file}: {error}"));
        }
        written.insert(path, turn);
        Ok(())
    }

    /// Files of groups that are configured are as new as that, however long ago a member changed: see
    /// [`Groups::forget_others`].
    fn touch(&self, state: &State, now: SystemTime) {
        let sources = |group| Source::ALL.map(|source| self.path(group, source));
        for path in state.manual.keys().flat_map(|group| sources(group)).flatten() {
            // Many a source has none. One that cannot be written is named where that matters.
            if let Ok(file) = fs::File::options().write(true).open(path) {
                let _ = file.set_modified(now);
            }
        }
    }

    /// Removes the files of groups that have not been configured for a while. Not at once: a rollback may bring a group back,
    /// and its list is to be there then.
    fn forget_others(&self, state: &State, now: SystemTime) {
        let Some(files) = self
            .directory
            .as_ref()
            .and_then(|directory| fs::read_dir(directory).ok())
        else {
            return;
        };
        for entry in files.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Some((group, source)) = name.rsplit_once('.') else {
                continue;
            };
            let ours = Source::ALL.iter().any(|known| known.name() == source);
            let written = entry.metadata().and_then(|file| file.modified());
            let old =
                written.is_ok_and(|written| now.duration_since(written).is_ok_and(|age| age > FORGOTTEN));
            let path = entry.path();
            if ours && old && !state.manual.contains_key(group) && fs::remove_file(&path).is_ok() {
                tracing::info!(file = %path.display(), "members of a group that is gone were forgotten");
            }
        }
    }
}

fn named(config: &Config) -> impl Iterator<Item = &bulkhead_config::Group> {
    config.groups.iter().filter(|group| !group.literal)
}

impl State {
    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// Takes over the sources of a configuration; members stay where the source does.
    fn follow(&mut self, groups: &Groups, config: &Config, others: Others) {
        let (mut feeds, mut names, mut manual) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (mut pods, mut objects) = (BTreeMap::new(), BTreeMap::new());
        for group in named(config) {
            let name = &group.name;
            if let Some(feed) = &group.feed {
                let ticket = self.ticket();
                let before = self.feeds.remove(name);
                let saved = || groups.kept(name, Source::Feed);
                feeds.insert(name.clone(), FeedState::follow(before, feed, saved, ticket));
            }
            if !group.dns.is_empty() {
                let ticket = self.ticket();
                let before = self.names.remove(name);
                let saved = || groups.kept(name, Source::Dns);
                names.insert(
                    name.clone(),
                    NamesState::follow(before, &group.dns, saved, ticket),
                );
            }
            if let Some(selection) = &group.pods {
                let before = self.pods.remove(name);
                let saved = || groups.kept(name, Source::Pods);
                let state = PodsState::follow(before, selection, self.running, saved);
                pods.insert(name.clone(), state);
            }
            if let Some(object) = &group.address_group {
                let before = self.objects.remove(name);
                let saved = || groups.kept(name, Source::AddressGroup);
                objects.insert(name.clone(), ObjectState::follow(before, object, saved));
            }
            let entries = self.manual.remove(name);
            let entries = entries.unwrap_or_else(|| Manual::new(groups.kept(name, Source::Manual).members));
            manual.insert(name.clone(), entries);
        }
        if others == Others::Keep {
            feeds.append(&mut self.feeds);
            names.append(&mut self.names);
            pods.append(&mut self.pods);
            objects.append(&mut self.objects);
            manual.append(&mut self.manual);
        }
        (self.feeds, self.names, self.manual) = (feeds, names, manual);
        (self.pods, self.objects) = (pods, objects);
    }

    fn in_force(&self) -> impl Iterator<Item = &InForce> {
        let feeds = self.feeds.values().map(|feed| &feed.in_force);
        let names = self.names.values().map(|names| &names.in_force);
        let pods = self.pods.values().map(|pods| &pods.in_force);
        let objects = self.objects.values().map(|object| &object.in_force);
        feeds
            .chain(names)
            .chain(pods)
            .chain(objects)
            .chain(self.manual.values().map(|manual| &manual.in_force))
    }

    /// The members of a source that the data plane does not know, for it.
    fn unknown_members(&self, group: &str, source: &str) -> Vec<Prefix> {
        let unknown = |in_force: &InForce| !in_force.get();
        let members = match source {
            "feed" => {
                let feed = self.feeds.get(group).filter(|feed| unknown(&feed.in_force));
                feed.map(|feed| feed.members.all())
            }
            "dns" => {
                let names = self.names.get(group).filter(|names| unknown(&names.in_force));
                names.map(NamesState::members)
            }
            "pods" => {
                let pods = self.pods.get(group).filter(|pods| unknown(&pods.in_force));
                pods.map(|pods| pods.members.clone())
            }
            "addressgroup" => {
                let object = self.objects.get(group).filter(|object| unknown(&object.in_force));
                object.map(|object| object.members.clone())
            }
            _ => {
                let manual = self.manual.get(group).filter(|manual| unknown(&manual.in_force));
                manual.map(Manual::members)
            }
        };
        prefixes(&members.unwrap_or_default())
    }

    /// Gives the data plane all members of the sources that it may not have.
    fn synchronize(&mut self, tables: &dyn Tables) {
        let hidden = |group: &str, source: Source| source.hidden(group);
        let feeds = self.feeds.iter().filter(|(_, feed)| !feed.in_force.get());
        let names = self.names.iter().filter(|(_, names)| !names.in_force.get());
        let manual = self.manual.iter().filter(|(_, manual)| !manual.in_force.get());
        let pods = self.pods.iter().filter(|(_, pods)| !pods.in_force.get());
        let objects = self.objects.iter().filter(|(_, object)| !object.in_force.get());
        let all = feeds
            .map(|(group, feed)| (hidden(group, Source::Feed), feed.members.all(), &feed.in_force))
            .chain(names.map(|(group, names)| (hidden(group, Source::Dns), names.members(), &names.in_force)))
            .chain(
                pods.map(|(group, pods)| (hidden(group, Source::Pods), pods.members.clone(), &pods.in_force)),
            )
            .chain(objects.map(|(group, object)| {
                let hidden = hidden(group, Source::AddressGroup);
                (hidden, object.members.clone(), &object.in_force)
            }))
            .chain(
                manual.map(|(group, manual)| {
                    (hidden(group, Source::Manual), manual.members(), &manual.in_force)
                }),
            );
        for (group, members, in_force) in all {
            match tables.set_members(&group, prefixes(&members)) {
                Ok(()) => in_force.set(true),
                Err(error) => tracing::error!(group, error, "members are not in force"),
            }
        }
    }

    /// Starts what is due, as far as there are workers.
    fn start_due(&mut self, groups: &Arc<Groups>, tables: &Arc<dyn Tables>, now: Instant) {
        let tables = Arc::downgrade(tables);
        self.start_fetches(groups, &tables, now);
        self.start_lookups(groups, &tables, now);
    }

    /// How long until something is due.
    fn next(&self, now: Instant, wall: SystemTime) -> Option<Duration> {
        let free = self.workers < MOST_WORKERS;
        let fetches = self
            .feeds
            .values()
            .filter(|feed| free && !feed.running)
            .map(|feed| feed.next);
        let lookups = self.names.values().filter(|_| free).filter_map(NamesState::next);
        let pods = self.pods.values().filter_map(PodsState::expiry);
        let work = fetches
            .chain(lookups)
            .chain(pods)
            .map(|due| due.saturating_duration_since(now));
        let feeds = self.feeds.values().filter_map(FeedState::expiry);
        let names = self.names.values().filter_map(NamesState::expiry);
        let manual = self.manual.values().filter_map(Manual::expiry);
        let ends = feeds.chain(names).chain(manual);
        let ends = ends.map(|end| end.duration_since(wall).unwrap_or_default());
        work.chain(ends).min()
    }
}

/// Whether the data plane has what we know; set where it is told.
#[derive(Debug, Default)]
struct InForce(std::sync::atomic::AtomicBool);

impl InForce {
    fn get(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn set(&self, yes: bool) {
        self.0.store(yes, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Puts a step in force, or all of `members` where the data plane may have others.
fn apply(
    step: &Step,
    group: &str,
    in_force: &InForce,
    members: impl FnOnce() -> Vec<IpPrefix>,
    tables: &dyn Tables,
) -> Result<Change, String> {
    let applied = match in_force.get() {
        true if step.is_empty() => Ok(()),
        true => tables.update_members(group, &prefixes(&step.add), &prefixes(&step.remove)),
        false => tables.set_members(group, prefixes(&members())),
    };
    in_force.set(applied.is_ok());
    applied.map(|()| Change {
        added: step.add.len(),
        removed: step.remove.len(),
    })
}

fn prefix(prefix: IpPrefix) -> Prefix {
    Prefix {
        address: prefix.address,
        length: prefix.length,
    }
}

fn prefixes(members: &[IpPrefix]) -> Vec<Prefix> {
    members.iter().copied().map(prefix).collect()
}

/// Any number, for spreading times.
fn any() -> u64 {
    RandomState::new().hash_one(0)
}

fn saved(members: Members) -> Saved {
    Saved {
        members,
        ..Saved::default()
    }
}

fn milliseconds(since: Instant) -> f64 {
    (since.elapsed().as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests;
