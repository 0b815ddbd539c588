//! Commits: what came of one, and those that are kept.

use bulkhead_config::Difference;
use bulkhead_revisions::{Revision, Source};
use serde::{Deserialize, Serialize};

use crate::words;

/// `commit`, `rollback`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Committed {
    /// The revision in force.
    pub revision: u64,
    /// Its generation.
    pub generation: u32,
    /// Whether anything was done; not if the same document is in force already.
    pub changed: bool,
    /// Whether it outlives the daemon.
    pub kept: bool,
    /// Until when it has to be confirmed.
    pub confirm_by: Option<String>,
    /// The revision that comes back otherwise.
    pub back_to: Option<u64>,
    /// How long it took.
    pub milliseconds: f64,
    /// What is allowed but probably not meant.
    pub warnings: Vec<String>,
}

/// `confirm`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confirmed {
    /// The revision that stays.
    pub revision: u64,
}

/// `history`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Whether they outlive the daemon.
    pub kept: bool,
    /// Newest first; the first one is in force.
    pub revisions: Vec<HistoryEntry>,
    /// The document in the daemon's own file or object, if that is not in force because it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedDocument>,
}

/// A document that is not in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefusedDocument {
    /// Where it is: a file's name, `configmap default/edge/firewall.yaml`.
    pub document: String,
    /// Since when it is known to be wrong.
    pub time: String,
    /// Why, for programs: `Invalid`, `AwaitingConfirmation`, `Failed`.
    pub reason: String,
    /// Why, for people: the first findings, a line each.
    pub message: String,
}

/// What is known of a revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Its number.
    pub revision: u64,
    /// What it is now.
    pub state: RevisionState,
    /// When it was committed.
    pub time: String,
    /// Who says they did it.
    pub author: String,
    /// Who the kernel says they are.
    pub user: String,
    /// `file`, `cli`, `rollback` or `confirm-timeout`.
    pub source: Source,
    /// Why.
    pub comment: String,
    /// The name of the document's file.
    pub file: String,
    /// The revision whose document this repeats.
    pub repeats: Option<u64>,
    /// Length of the document.
    pub size_bytes: u64,
    /// SHA-256 of the document, as `sha256sum` prints it.
    pub sha256: String,
    /// Until when it had to be confirmed.
    pub confirm_by: Option<String>,
    /// When it was.
    pub confirmed: Option<String>,
    /// By whom.
    pub confirmed_by: Option<String>,
}

/// What a revision is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevisionState {
    /// It is what is enforced.
    InForce,
    /// It is what is enforced, until nobody confirms it.
    AwaitsConfirmation,
    /// It was.
    Past,
    /// It was, until nobody confirmed it.
    NotConfirmed,
}

impl HistoryEntry {
    /// A revision; `current` if it is the one in force.
    pub fn new(revision: &Revision, current: bool) -> Self {
        let confirmation = revision.confirmation.as_ref();
        let time = |ms: u64| words::timestamp(words::time_of(ms));
        Self {
            revision: revision.number,
            state: match (current, revision.awaited()) {
                (true, None) => RevisionState::InForce,
                (true, Some(_)) => RevisionState::AwaitsConfirmation,
                (false, None) => RevisionState::Past,
                (false, Some(_)) => RevisionState::NotConfirmed,
            },
            time: time(revision.time_ms),
            author: revision.author.clone(),
            user: revision.user.clone(),
            source: revision.source,
            comment: revision.comment.clone(),
            file: revision.file.clone(),
            repeats: revision.repeats,
            size_bytes: revision.bytes,
            sha256: revision.sha256.clone(),
            confirm_by: confirmation.map(|confirmation| time(confirmation.deadline_ms)),
            confirmed: confirmation
                .and_then(|confirmation| confirmation.confirmed_ms)
                .map(time),
            confirmed_by: confirmation.and_then(|confirmation| confirmation.confirmed_by.clone()),
        }
    }
}

/// `show config`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShownConfig {
    /// Which revision it is.
    #[serde(flatten)]
    pub revision: HistoryEntry,
    /// The document as it was written.
    pub document: String,
}

/// `diff`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Differences {
    /// The older side: `revision 3`, or a file.
    pub old: String,
    /// The newer side.
    pub new: String,
    /// What differs, in the words of the configuration.
    pub differences: Vec<Difference>,
    /// What differs as text, in the unified format.
    pub text: String,
}
