//! Lists: fetched in time, kept when they cannot be.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bulkhead_config::{Feed, ListFormat};
use bulkhead_feeds::fetch::{FetchError, Fetched, Patience, Source as Place, Stamp, fetch};
use bulkhead_feeds::hold::Members;
use bulkhead_feeds::names::System;
use bulkhead_feeds::schedule::Schedule;
use bulkhead_feeds::store::{Saved, fingerprint};
use bulkhead_feeds::{Format, Rules};

use super::{
    Change, Groups, InForce, MOST_WORKERS, Source, State, Step, Tables, any, apply, milliseconds, redacted,
};

/// The most bytes of a list as it is sent: two million lines and their comments.
const MAX_BODY_BYTES: u64 = 128 << 20;
/// The most bytes of a list once it is unpacked.
const MAX_BYTES: u64 = 512 << 20;

/// How often at least the time of the last answer is written down, if there are any.
const RARELY: Duration = Duration::from_secs(3_600);

/// A feed and how it went so far.
pub(super) struct FeedState {
    pub(super) feed: Feed,
    pub(super) members: Arc<Members>,
    pub(super) in_force: InForce,
    stamp: Stamp,
    /// When the list was last fetched, or found unchanged.
    pub(super) fetched: Option<SystemTime>,
    /// When that was last tried.
    pub(super) tried: Option<SystemTime>,
    pub(super) error: Option<String>,
    pub(super) bad: u64,
    pub(super) examples: Vec<String>,
    pub(super) skipped: u64,
    schedule: Schedule,
    pub(super) next: Instant,
    pub(super) running: bool,
    /// When the disk was last written.
    written: Option<Instant>,
    ticket: u64,
}

/// What a worker brings home.
struct Brought {
    fetched: Result<Fetched, FetchError>,
    /// With a new list: the members by it, what leads there, and when the list was here.
    new: Option<(Members, Step, Instant)>,
}

impl FeedState {
    /// The same source goes on; another one begins with the members there are, until it has a list of its own.
    pub(super) fn follow(
        before: Option<Self>,
        feed: &Feed,
        saved: impl FnOnce() -> Saved,
        ticket: u64,
    ) -> Self {
        let identity = identity(feed);
        let mut state = match before {
            Some(before) if before.feed == *feed => return before,
            Some(before) => Self {
                stamp: if identity == self::identity(&before.feed) {
                    before.stamp
                } else {
                    Stamp::default()
                },
                error: None,
                ..before
            },
            None => {
                let saved = saved();
                Self {
                    feed: feed.clone(),
                    members: Arc::new(saved.members),
                    in_force: InForce::default(),
                    stamp: if saved.source == identity {
                        saved.stamp
                    } else {
                        Stamp::default()
                    },
                    fetched: saved.fetched,
                    tried: None,
                    error: None,
                    bad: 0,
                    examples: Vec::new(),
                    skipped: 0,
                    schedule: Schedule::new(feed.interval),
                    next: Instant::now(),
                    running: false,
                    written: None,
                    ticket,
                }
            }
        };
        if !feed.allow_default_route && state.members.all().iter().any(|prefix| prefix.length == 0) {
            Arc::make_mut(&mut state.members).retain(|prefix| prefix.length > 0);
            state.in_force.set(false);
        }
        state.feed = feed.clone();
        state.schedule = Schedule::new(feed.interval);
        state.next = Instant::now();
        // Whoever is on its way brings another list.
        state.running = false;
        state.ticket = ticket;
        state
    }

    /// When someone has to go, or everyone.
    pub(super) fn expiry(&self) -> Option<SystemTime> {
        let lapse = self.lapse();
        self.members.next_expiry().into_iter().chain(lapse).min()
    }

    /// When the list has outlived its server for long enough.
    fn lapse(&self) -> Option<SystemTime> {
        let failing = self.error.is_some() && !self.members.is_empty();
        self.fetched.filter(|_| failing)?.checked_add(self.feed.hold?)
    }

    /// Whether the disk should hear that the list was found unchanged: often enough for `hold`, and not at every fetch.
    fn is_worth_writing(&self) -> bool {
        let tenth = self.feed.hold.map_or(RARELY, |hold| RARELY.min(hold / 10));
        self.written.is_none_or(|written| written.elapsed() >= tenth)
    }

    fn saved(&self) -> Saved {
        Saved {
            source: identity(&self.feed),
            stamp: self.stamp.clone(),
            fetched: self.fetched,
            members: (*self.members).clone(),
        }
    }

    fn rules(&self) -> Rules {
        Rules {
            format: match self.feed.format {
                ListFormat::Auto => Format::Auto,
                ListFormat::Text => Format::Text,
                ListFormat::Json | ListFormat::Ndjson => Format::Json,
                ListFormat::Stix => Format::Stix,
                ListFormat::Tgz => Format::Tgz,
            },
            keys: self.feed.keys.clone(),
            max_entries: self.feed.max_entries as usize,
            max_bytes: MAX_BYTES,
            allow_default_route: self.feed.allow_default_route,
        }
    }

    fn place(&self) -> Place {
        let own = self.feed.client_certificate.as_ref();
        Place {
            url: self.feed.url.clone(),
            token_file: self.feed.token_file.clone(),
            ca_file: self.feed.ca_file.clone(),
            client_certificate: own.map(|own| (own.certificate_file.clone(), own.key_file.clone())),
            max_body_bytes: MAX_BODY_BYTES,
            patience: Patience::default(),
        }
    }
}

/// What a stamp belongs to: the list, and how it is read.
fn identity(feed: &Feed) -> String {
    let format = format!("{:?}", feed.format);
    let rules = format!("{} {}", feed.max_entries, feed.allow_default_route);
    let keys = feed.keys.iter().map(String::as_str);
    fingerprint([&*feed.url, &format, &rules].into_iter().chain(keys))
}

impl State {
    pub(super) fn start_fetches(&mut self, groups: &Arc<Groups>, tables: &Weak<dyn Tables>, now: Instant) {
        for (group, feed) in &mut self.feeds {
            if self.workers >= MOST_WORKERS {
                return;
            }
            if feed.running || feed.next > now {
                continue;
            }
            let job = Job {
                group: group.clone(),
                ticket: feed.ticket,
                place: feed.place(),
                stamp: feed.stamp.clone(),
                rules: feed.rules(),
                members: feed.members.clone(),
                hold: feed.feed.hold,
            };
            let (groups, tables) = (groups.clone(), tables.clone());
            let spawned = thread::Builder::new()
                .name("bulkhead-feed".to_owned())
                .spawn(move || groups.fetched(&job, job.run(&groups.system), &tables));
            match spawned {
                Ok(_) => {
                    feed.running = true;
                    self.workers += 1;
                }
                Err(error) => {
                    tracing::error!(group, %error, "cannot start a thread to fetch a feed");
                    feed.next = now + feed.schedule.next(false, any());
                }
            }
        }
    }

    pub(super) fn expire_feeds(&mut self, groups: &Groups, tables: &dyn Tables, wall: SystemTime) {
        for (group, feed) in &mut self.feeds {
            if feed.expiry().is_none_or(|end| end > wall) {
                continue;
            }
            let before = feed.members.clone();
            let members = Arc::make_mut(&mut feed.members);
            members.expire(wall);
            if feed.lapse().is_some_and(|end| end <= wall) {
                Arc::make_mut(&mut feed.members).clear();
                // Another list is due whatever its version.
                feed.stamp = Stamp::default();
                tracing::warn!(
                    group,
                    "the feed is away for longer than its hold, its members are let go"
                );
            }
            let step = Step::between(before.all(), feed.members.all());
            let all = || feed.members.all();
            match apply(&step, &Source::Feed.hidden(group), &feed.in_force, all, tables) {
                Ok(change) => tracing::info!(group, removed = change.removed, "held members were let go"),
                Err(error) => tracing::error!(group, error, "members are not in force"),
            }
            // A failure is in the log.
            let _ = groups.save(groups.turn(), group, Source::Feed, &feed.saved());
        }
    }
}

/// A fetch, with everything it needs.
struct Job {
    group: String,
    ticket: u64,
    place: Place,
    stamp: Stamp,
    rules: Rules,
    members: Arc<Members>,
    hold: Option<Duration>,
}

impl Job {
    fn run(&self, system: &System) -> Brought {
        let fetched = fetch(&self.place, &self.stamp, &self.rules, system, SystemTime::now());
        let received = Instant::now();
        let mut brought = Brought { fetched, new: None };
        if let Ok(Fetched::New(list, _)) = &mut brought.fetched {
            let mut members = (*self.members).clone();
            let step = members.replace(std::mem::take(&mut list.prefixes), self.hold, SystemTime::now());
            brought.new = Some((members, step, received));
        }
        brought
    }
}

impl Groups {
    /// Takes home what a worker brought, if it is still wanted.
    fn fetched(&self, job: &Job, brought: Brought, tables: &Weak<dyn Tables>) {
        let group = &*job.group;
        let mut state = self.lock();
        state.workers -= 1;
        self.wake.notify_all();
        let closing = state.closing;
        let feed = state
            .feeds
            .get_mut(group)
            .filter(|feed| feed.ticket == job.ticket);
        let (Some(feed), Some(tables), false) = (feed, tables.upgrade(), closing) else {
            return;
        };
        let url = redacted(&feed.feed.url);
        let wall = SystemTime::now();
        feed.running = false;
        feed.tried = Some(wall);
        let outcome = match (brought.fetched, brought.new) {
            (Ok(Fetched::New(list, stamp)), Some((members, step, received))) => {
                // Held members may have gone meanwhile.
                let step = match Arc::ptr_eq(&feed.members, &job.members) {
                    true => step,
                    false => Step::between(feed.members.all(), members.all()),
                };
                let all = || members.all();
                let applied = apply(&step, &Source::Feed.hidden(group), &feed.in_force, all, &*tables);
                feed.members = Arc::new(members);
                (feed.bad, feed.skipped) = (list.bad, list.skipped);
                feed.examples = list.examples.iter().map(ToString::to_string).collect();
                if let Some(first) = list.examples.first() {
                    let (bad, example) = (list.bad, first.to_string());
                    tracing::warn!(
                        group,
                        url,
                        bad,
                        example,
                        "the feed has bad entries, they are left out"
                    );
                }
                applied.map(|change| {
                    if feed.stamp != stamp || change != Change::default() {
                        feed.written = None;
                    }
                    feed.stamp = stamp;
                    tracing::info!(
                        group,
                        url,
                        added = change.added,
                        removed = change.removed,
                        members = feed.members.len(),
                        milliseconds = milliseconds(received),
                        "feed in force"
                    );
                })
            }
            (Ok(_), _) => {
                tracing::debug!(group, url, "the feed has not changed");
                Ok(())
            }
            (Err(error), _) => Err(error.to_string()),
        };
        let wait = feed.schedule.next(outcome.is_ok(), any());
        feed.next = Instant::now() + wait;
        match outcome {
            Ok(()) => {
                if feed.error.take().is_some() {
                    tracing::info!(group, url, "the feed is back");
                }
                feed.fetched = Some(wall);
                if feed.is_worth_writing() {
                    feed.written = Some(Instant::now());
                    let saved = feed.saved();
                    let turn = self.turn();
                    drop(state);
                    // In force first, on the disk second; a failure is in the log.
                    let _ = self.save(turn, group, Source::Feed, &saved);
                }
            }
            Err(error) => {
                let members = feed.members.len();
                let next_seconds = wait.as_secs();
                // The same again is no news.
                if feed.error.as_ref() == Some(&error) {
                    tracing::debug!(group, url, error, members, next_seconds, "the feed fails still");
                } else {
                    tracing::warn!(
                        group,
                        url,
                        error,
                        members,
                        next_seconds,
                        "the feed fails, the last good list stays"
                    );
                }
                feed.error = Some(error);
            }
        }
    }
}
