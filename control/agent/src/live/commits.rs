//! Commits of the running firewall: one after the other, each in force and on the disk before anybody is told.
//!
//! The order is: judge the document, bring it to the disk under no name yet, switch the engine, give it its name. A crash
//! before the switch leaves the old revision, which is in force; one between switch and name leaves the old revision, which
//! was in force, though what is pinned enforces the new one until the next start; one after it leaves the new one. Whoever is told `committed` finds it after any crash, and a document that the
//! engine refuses is never one that a restart would find. If the name cannot be given, the engine goes back.

mod refusal;
mod refused;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bulkhead_dataplane::{heap, pulse::Pulse};
use bulkhead_revisions::{Draft, Revision, Source, Store, StoreError, digest};

use self::refusal::conflict;
pub use self::refusal::{CommitError, log_error};
use self::refused::LastRefused;
use super::LiveFirewall;
use super::isolation::fits;
use super::tables::judge_name;
use crate::configuration::Configuration;
use crate::firewall::{Answered, Asked};
use crate::launch::Terms;
use crate::report::{Committed, Confirmed, History, HistoryEntry, ShownConfig};
use crate::words;

/// How soon a return that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The revisions of a running firewall.
#[derive(Debug)]
pub struct Commits {
    kept: Mutex<Kept>,
    /// Wakes whoever watches the deadline.
    changed: Condvar,
    /// They outlive the daemon.
    durable: bool,
    /// The daemon's own configuration file.
    file: Option<PathBuf>,
    /// What documents are judged by.
    terms: Terms,
    outcomes: Outcomes,
    refused: LastRefused,
}

/// What became of attempts to commit.
#[derive(Debug, Default)]
struct Outcomes {
    committed: AtomicU64,
    unchanged: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

impl Outcomes {
    fn count(&self, outcome: &Result<Committed, CommitError>) {
        let counter = match outcome {
            Ok(committed) if committed.changed => &self.committed,
            Ok(_) => &self.unchanged,
            Err(CommitError::Refused(_) | CommitError::Conflict(_) | CommitError::Impossible(_)) => {
                &self.refused
            }
            Err(_) => &self.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What is on the disk, locked while it changes.
#[derive(Debug)]
pub(super) struct Kept {
    store: Store,
    /// When the revision in force gives way unless it is confirmed.
    deadline: Option<Instant>,
    /// The digest of an API object's document that was in force already when the object came to say the same: no revision has
    /// it as taken.
    object: Option<String>,
    closing: bool,
}

impl Commits {
    /// The revisions, of which the current one is in force. A deadline that was set before a restart goes on by the wall
    /// clock.
    pub fn new(store: Store, durable: bool, file: Option<PathBuf>, terms: Terms) -> Self {
        let left = store.awaited().map(|awaited| awaited.left_ms(now_ms()));
        Self {
            kept: Mutex::new(Kept {
                deadline: left.map(|left| Instant::now() + Duration::from_millis(left)),
                store,
                object: None,
                closing: false,
            }),
            changed: Condvar::new(),
            durable,
            file,
            terms,
            outcomes: Outcomes::default(),
            refused: LastRefused::default(),
        }
    }

    /// One commit after the other.
    pub(super) fn lock(&self) -> MutexGuard<'_, Kept> {
        // The store is consistent between its calls, whoever panicked there.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A document that is to be in force.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// The document.
    pub document: Vec<u8>,
    /// Its file, for diagnostics and the history.
    pub file: String,
    /// Where it comes from.
    pub source: Source,
    /// The revision whose document it repeats.
    pub repeats: Option<u64>,
    /// Who asks, and how.
    pub asked: Asked,
}

/// Whether it is an object of the Kubernetes API.
const fn is_object(source: Source) -> bool {
    matches!(source, Source::ConfigMap | Source::Firewall)
}

impl LiveFirewall {
    /// Puts a document in force and keeps it as a revision, or changes nothing.
    ///
    /// # Errors
    /// Why not; the configuration is what it was.
    pub fn commit(&self, proposal: Proposal) -> Result<Committed, CommitError> {
        let outcome = self.commit_counted(proposal);
        self.commits.outcomes.count(&outcome);
        outcome
    }

    /// Attempts to commit since the daemon started, by what became of them.
    pub fn outcomes(&self) -> [(&'static str, u64); 4] {
        let Outcomes {
            committed,
            unchanged,
            refused,
            failed,
        } = &self.commits.outcomes;
        [
            ("committed", committed),
            ("unchanged", unchanged),
            ("refused", refused),
            ("failed", failed),
        ]
        .map(|(outcome, count)| (outcome, count.load(Ordering::Relaxed)))
    }

    /// The number of the revision in force; 0 if there is none.
    pub fn revision_in_force(&self) -> u64 {
        let kept = self.commits.lock();
        kept.store.current().map_or(0, |revision| revision.number)
    }

    fn commit_counted(&self, proposal: Proposal) -> Result<Committed, CommitError> {
        let began = Instant::now();
        // Judged before anybody is made to wait.
        let terms = &self.commits.terms;
        let configuration =
            Configuration::of(&proposal.file, &proposal.document, terms)?.check_interfaces(terms)?;
        let mut kept = self.commits.lock();
        let committed = self.commit_judged(&mut kept, proposal, configuration, began)?;
        self.commits.changed.notify_all();
        Ok(committed)
    }

    fn commit_judged(
        &self,
        kept: &mut Kept,
        proposal: Proposal,
        configuration: Configuration,
        began: Instant,
    ) -> Result<Committed, CommitError> {
        let asked = &proposal.asked;
        let digest = digest(&proposal.document);
        let mut warnings: Vec<String> = configuration
            .parsed
            .warnings
            .iter()
            .map(ToString::to_string)
            .collect();
        judge_name(self.pinned.as_deref(), &configuration.parsed.config)?;
        warnings.extend(self.tables.judge(&configuration.parsed.config)?);
        // What would be in force with it has room beside it.
        fits(
            &configuration.parsed.config,
            &self.isolations.in_force(),
            self.tables.size(),
        )
        .map_err(CommitError::Impossible)?;
        let mut committed = Committed {
            revision: 0,
            generation: self.engine.generation(),
            changed: false,
            kept: self.commits.durable,
            confirm_by: None,
            back_to: None,
            milliseconds: 0.0,
            warnings,
        };
        let current = kept.store.current();
        if let Some(current) = current {
            conflict(current, &proposal)?;
            // One that awaits confirmation ends its wait by another revision, whatever the document.
            if current.sha256 == digest && current.awaited().is_none() {
                committed.revision = current.number;
                committed.milliseconds = milliseconds(began);
                if is_object(proposal.source) {
                    kept.object = Some(digest);
                }
                return Ok(committed);
            }
        }
        let draft = Draft {
            time_ms: now_ms(),
            author: asked.author.clone().unwrap_or_else(|| asked.user.clone()),
            user: asked.user.clone(),
            comment: asked.comment.clone(),
            source: proposal.source,
            file: proposal.file,
            repeats: proposal.repeats,
            taken: self.taken(current, kept.object.as_ref(), &digest, proposal.source),
            confirm_within_ms: asked.confirm_seconds.map(|seconds| seconds.saturating_mul(1_000)),
        };
        let prepared = kept.store.prepare(draft, &proposal.document)?;
        let next = configuration.parsed.config;
        let mut config = self.config.write().unwrap_or_else(PoisonError::into_inner);
        committed.generation = match self.enforce(&next) {
            Ok(generation) => generation,
            Err(error) => {
                self.groups.follow(&config, self);
                kept.store.discard(prepared);
                return Err(error.into());
            }
        };
        let revision = match kept.store.publish(prepared) {
            Ok(revision) => revision,
            Err(error) => {
                // Whoever reads the log must know which of the two is in force.
                self.groups.doubt();
                let back = self.enforce(&config);
                self.groups.follow(&config, self);
                match back {
                    Ok(generation) => {
                        tracing::error!(%error, generation, "a commit could not be kept and was taken back");
                    }
                    Err(back) => {
                        tracing::error!(%error, %back, "a commit could not be kept and is in force until the restart");
                    }
                }
                return Err(error.into());
            }
        };
        self.groups.follow(&next, self);
        *config = next;
        drop(config);
        // From here on the revision has it.
        kept.object = None;
        let awaited = revision.awaited();
        committed.revision = revision.number;
        committed.changed = true;
        committed.confirm_by = awaited.map(|awaited| words::timestamp(words::time_of(awaited.deadline_ms)));
        committed.back_to = awaited.map(|awaited| awaited.back_to);
        committed.milliseconds = milliseconds(began);
        kept.deadline = awaited.map(|awaited| Instant::now() + Duration::from_millis(awaited.within_ms));
        log_committed(revision, &committed);
        Ok(committed)
    }

    /// The digest of the daemon's own file, if what it says now is in force now, was until now, or was taken before; else
    /// that of what was taken last. So a restart takes the file if, and only if, somebody changed it and nobody has
    /// committed it since. An object of the Kubernetes API is taken by its very commit.
    fn taken(
        &self,
        current: Option<&Revision>,
        object: Option<&String>,
        next: &str,
        source: Source,
    ) -> Option<String> {
        if is_object(source) {
            return Some(next.to_owned());
        }
        if let Some(object) = object {
            return Some(object.clone());
        }
        let before = current.and_then(|current| current.taken.clone());
        let now = self
            .commits
            .file
            .as_ref()
            .and_then(|file| Configuration::bytes(file).ok());
        match now.map(|content| digest(&content)) {
            Some(now) if now == next || current.is_some_and(|current| current.sha256 == now) => Some(now),
            _ => before,
        }
    }

    /// Makes the revision in force one that stays.
    ///
    /// # Errors
    /// If none waits for it, or the disk fails.
    pub fn confirm(&self, asked: &Asked) -> Result<Confirmed, CommitError> {
        let mut kept = self.commits.lock();
        let author = asked.author.as_ref().unwrap_or(&asked.user);
        let revision = kept.store.confirm(now_ms(), author)?.number;
        kept.deadline = None;
        drop(kept);
        self.commits.changed.notify_all();
        tracing::info!(revision, author, "revision confirmed");
        Ok(Confirmed { revision })
    }

    /// Puts an earlier document in force again, as a revision of its own: that of `number`, or the one before.
    ///
    /// # Errors
    /// Why not; the configuration is what it was.
    pub fn roll_back(&self, number: Option<u64>, mut asked: Asked) -> Result<Committed, CommitError> {
        let kept = self.commits.lock();
        let number = match number {
            Some(number) => number,
            None => {
                // Which that is depends on the one in force: another commit in between would make it another.
                asked.onto = asked.onto.or(kept.store.current().map(|current| current.number));
                let awaited = kept.store.awaited().map(|awaited| awaited.back_to);
                let previous = || kept.store.previous().map(|revision| revision.number);
                awaited.or_else(previous).ok_or_else(|| {
                    CommitError::Impossible("there is no revision before this one".to_owned())
                })?
            }
        };
        let file = kept.store.revision(number)?.file.clone();
        let document = kept.store.document(number)?;
        drop(kept);
        self.commit(Proposal {
            document,
            file,
            source: Source::Rollback,
            repeats: Some(number),
            asked,
        })
    }

    /// The daemon's own configuration file, if it has one.
    pub fn own_file(&self) -> Option<&Path> {
        self.commits.file.as_deref()
    }

    /// The revision in force.
    pub fn current_revision(&self) -> Option<Revision> {
        self.commits.lock().store.current().cloned()
    }

    /// All revisions that are kept.
    pub fn revisions(&self) -> History {
        let kept = self.commits.lock();
        let current = kept.store.current().map(|revision| revision.number);
        let revisions = kept.store.revisions().rev();
        History {
            kept: self.commits.durable,
            revisions: revisions
                .map(|revision| HistoryEntry::new(revision, Some(revision.number) == current))
                .collect(),
            refused: self.commits.refused.get(),
        }
    }

    /// A document as it was written; that in force for `None`.
    ///
    /// # Errors
    /// If there is none of that number, or it is damaged.
    pub fn shown(&self, number: Option<u64>) -> Answered<ShownConfig> {
        let kept = self.commits.lock();
        let current = kept.store.current().map(|revision| revision.number);
        let number = number.or(current).unwrap_or(0);
        let shown = |number| {
            let entry = HistoryEntry::new(kept.store.revision(number)?, Some(number) == current);
            let document = kept.store.document(number)?;
            Ok(ShownConfig {
                revision: entry,
                document: String::from_utf8_lossy(&document).into_owned(),
            })
        };
        shown(number).map_err(|error: StoreError| CommitError::from(error).into())
    }

    /// Brings back the revision before when nobody confirms in time; returns when [`Self::close`] is called.
    pub fn watch_deadline(&self, pulse: &Pulse) {
        loop {
            pulse.beat();
            // What the start or a commit has used for a moment goes back to the system; nobody waits for it here.
            heap::trim();
            let mut kept = self.commits.lock();
            if kept.closing {
                return;
            }
            let left = kept
                .deadline
                .map(|deadline| deadline.saturating_duration_since(Instant::now()));
            match left {
                None => {
                    pulse.rest();
                    drop(self.commits.changed.wait(kept));
                }
                Some(Duration::ZERO) => self.give_back(&mut kept),
                Some(left) => {
                    pulse.rest();
                    drop(self.commits.changed.wait_timeout(kept, left));
                }
            }
        }
    }

    /// Ends [`Self::watch_deadline`].
    pub fn close(&self) {
        self.commits.lock().closing = true;
        self.commits.changed.notify_all();
    }

    fn give_back(&self, kept: &mut Kept) {
        kept.deadline = None;
        let Some(awaited) = kept.store.awaited() else {
            return;
        };
        let user = words::user_name(nix::unistd::getuid());
        let returned = kept
            .store
            .revision(awaited.back_to)
            .map(|revision| revision.file.clone())
            .and_then(|file| Ok((file, kept.store.document(awaited.back_to)?)))
            .map_err(CommitError::from)
            .and_then(|(file, document)| {
                let terms = &self.commits.terms;
                let configuration = Configuration::of(&file, &document, terms)?.check_interfaces(terms)?;
                let proposal = Proposal {
                    document,
                    file,
                    source: Source::ConfirmTimeout,
                    repeats: Some(awaited.back_to),
                    asked: Asked {
                        user,
                        comment: format!("revision {} was not confirmed in time", awaited.number),
                        ..Asked::default()
                    },
                };
                self.commit_judged(kept, proposal, configuration, Instant::now())
            });
        if let Err(error) = returned {
            tracing::error!(
                revision = awaited.number,
                back_to = awaited.back_to,
                retry_seconds = RETRY.as_secs(),
                "a revision was not confirmed in time, and the one before cannot be brought back"
            );
            log_error(error);
            kept.deadline = Some(Instant::now() + RETRY);
        }
    }
}

/// Since then, rounded for people.
pub(super) fn milliseconds(began: Instant) -> f64 {
    (began.elapsed().as_secs_f64() * 1e6).round() / 1e3
}

fn log_committed(revision: &Revision, committed: &Committed) {
    tracing::info!(
        revision = revision.number,
        source = %revision.source,
        author = revision.author,
        comment = revision.comment,
        repeats = revision.repeats,
        confirm_by = committed.confirm_by,
        generation = committed.generation,
        milliseconds = committed.milliseconds,
        "committed"
    );
}
