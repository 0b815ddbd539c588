//! Why there is no commit, for whoever asked and for the log.

use bulkhead_dataplane::engine::EngineError;
use bulkhead_revisions::{Revision, Source, StoreError};

use super::Proposal;
use crate::configuration::Refused;
use crate::protocol::{Failure, FailureCode};
use crate::{log, words};

/// Why there was no commit.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The document is wrong.
    #[error(transparent)]
    Refused(Refused),
    /// It was made against another revision, or another waits to be confirmed.
    #[error("{0}")]
    Conflict(String),
    /// It cannot be done while this daemon runs, or at all.
    #[error("{0}")]
    Impossible(String),
    /// The data plane refused it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Anything else.
    #[error("{0:#}")]
    Other(anyhow::Error),
}

impl From<anyhow::Error> for CommitError {
    fn from(error: anyhow::Error) -> Self {
        error
            .downcast::<Refused>()
            .map_or_else(Self::Other, Self::Refused)
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        let code = match &error {
            CommitError::Refused(_) => FailureCode::ConfigurationRefused,
            CommitError::Conflict(_) => FailureCode::Conflict,
            CommitError::Impossible(_)
            | CommitError::Store(StoreError::Unknown { .. } | StoreError::NothingAwaited) => {
                FailureCode::Refused
            }
            CommitError::Engine(EngineError::Question(_)) => FailureCode::Refused,
            _ => FailureCode::Failed,
        };
        let message = match error {
            CommitError::Engine(_) => format!("{error}; the configuration stays as it was"),
            error => error.to_string(),
        };
        Self::new(code, message)
    }
}

/// Whether a commit may follow this revision.
pub(super) fn conflict(current: &Revision, proposal: &Proposal) -> Result<(), CommitError> {
    let number = current.number;
    if let Some(onto) = proposal.asked.onto.filter(|onto| *onto != number) {
        return Err(CommitError::Conflict(format!(
            "this was made against revision {onto}, and revision {number} by {} is in force; look at `bulkhead diff {onto}` \
             and commit again --onto {number}",
            current.author
        )));
    }
    match (current.awaited(), proposal.source) {
        (Some(awaited), Source::File | Source::Cli | Source::ConfigMap | Source::Firewall) => {
            Err(CommitError::Conflict(format!(
                "revision {number} by {} awaits confirmation until {}; `bulkhead confirm` keeps it, `bulkhead rollback` \
             returns to revision {}",
                current.author,
                words::timestamp(words::time_of(awaited.deadline_ms)),
                awaited.back_to
            )))
        }
        _ => Ok(()),
    }
}

/// Logs why there was no commit.
pub fn log_error(error: CommitError) {
    log::refusal(&match error {
        CommitError::Refused(refused) => refused.into(),
        CommitError::Other(error) => error,
        error => anyhow::Error::new(error),
    });
}
