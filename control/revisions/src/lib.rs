//! The committed configurations of one firewall: numbered, attributed, and there after a crash.
//!
//! Owns the files below one directory: each revision is one file, a line of JSON that says what it is and then the
//! document as it was written. The revision with the highest number is the current one; there is no other pointer, so
//! the one rename that gives a revision its name is the commit. Assumes one writer, which [`Directory`] makes sure of by a
//! lock, and a file system that keeps what `fsync` confirmed. Knows no configuration format: a document is bytes.
//!
//! Writing has two halves around whatever the caller does with the document: [`Store::prepare`] brings all of it to the
//! disk under a temporary name, which is where a full disk shows; [`Store::publish`] renames it. A crash before the
//! rename has reached the disk leaves the old revision, one after it the new one.
#![forbid(unsafe_code)]

mod disk;
mod file;
mod revision;
mod store;

pub use disk::{Directory, Disk, Memory, newest};
pub use revision::{Awaited, Confirmation, Draft, Revision, Source, digest};
pub use store::{Damaged, Prepared, Store};

use std::io;

/// Revisions that are kept unless told otherwise.
pub const DEFAULT_KEPT: usize = 50;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process writes here.
    #[error("another bulkhead keeps its revisions in {0}; give this one its own --state")]
    Locked(String),
    /// The file system.
    #[error("cannot {operation} {name}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// With what.
        name: String,
        /// The system's answer.
        source: io::Error,
    },
    /// No such revision.
    #[error("there is no revision {number}; {kept}")]
    Unknown {
        /// What was asked for.
        number: u64,
        /// Which there are, as a sentence.
        kept: String,
    },
    /// A revision's file is not what was written.
    #[error("revision {number} is damaged: {what}")]
    Damaged {
        /// Its number.
        number: u64,
        /// What is wrong with it.
        what: String,
    },
    /// Nothing waits to be confirmed.
    #[error("nothing awaits confirmation")]
    NothingAwaited,
}
