//! The last document from the daemon's own source that is not in force: its file, or its object of the API.
//!
//! Owns one, the newest. It goes when a document from the same place is accepted, and not when somebody commits another over the
//! socket: what lies in the file is still not what is enforced.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::LiveFirewall;
use crate::report::RefusedDocument;
use crate::words;

/// What `history` says besides revisions.
#[derive(Debug, Default)]
pub struct LastRefused(Mutex<Option<RefusedDocument>>);

impl LastRefused {
    pub(super) fn get(&self) -> Option<RefusedDocument> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl LiveFirewall {
    /// Keeps that a document is not in force, and why: `reason` for programs, `message` for people. The same once more is no
    /// news.
    pub fn note_refused(&self, document: &str, reason: &str, message: &str) {
        let mut last = self
            .commits
            .refused
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let same = last.as_ref().is_some_and(|last| {
            (&*last.document, &*last.reason, &*last.message) == (document, reason, message)
        });
        if !same {
            *last = Some(RefusedDocument {
                document: document.to_owned(),
                time: words::timestamp(SystemTime::now()),
                reason: reason.to_owned(),
                message: message.to_owned(),
            });
        }
    }

    /// What was said last of a document that is not in force, if it is the one from there.
    pub fn last_refused(&self, document: &str) -> Option<RefusedDocument> {
        let last = self.commits.refused.get();
        last.filter(|last| last.document == document)
    }

    /// A document from there is in force. Whether the one before was refused.
    pub fn note_accepted(&self, document: &str) -> bool {
        let mut last = self
            .commits
            .refused
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let refused = last.take_if(|last| last.document == document);
        refused.is_some()
    }
}
