//! What is known of a revision besides its document.
//!
//! This is the format on disk: fields may be added with a default, none is renamed or given another meaning.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Where a revision came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The file that the daemon was started with.
    File,
    /// A person or a program, over the daemon's socket.
    Cli,
    /// A ConfigMap that the daemon follows.
    ConfigMap,
    /// A custom resource `Firewall` that the daemon follows.
    Firewall,
    /// The document of an earlier revision, asked for.
    Rollback,
    /// The document of the revision before, because nobody confirmed in time.
    ConfirmTimeout,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Cli => "cli",
            Self::ConfigMap => "config-map",
            Self::Firewall => "firewall",
            Self::Rollback => "rollback",
            Self::ConfirmTimeout => "confirm-timeout",
        })
    }
}

/// What somebody wants to become a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// When, in milliseconds since 1970.
    pub time_ms: u64,
    /// Who says they did it.
    pub author: String,
    /// Who the kernel says they are.
    pub user: String,
    /// Why.
    pub comment: String,
    /// From where.
    pub source: Source,
    /// The name of the document's file, for diagnostics.
    pub file: String,
    /// The revision whose document this repeats.
    pub repeats: Option<u64>,
    /// The digest of the daemon's own file when it was last taken.
    pub taken: Option<String>,
    /// How long it is in force unless confirmed, in milliseconds.
    pub confirm_within_ms: Option<u64>,
}

/// A revision: one committed document and its circumstances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number, from 1; none is given twice.
    pub number: u64,
    /// When it was committed, in milliseconds since 1970.
    pub time_ms: u64,
    /// Who says they did it.
    pub author: String,
    /// Who the kernel says they are.
    pub user: String,
    /// Why.
    #[serde(default)]
    pub comment: String,
    /// From where.
    pub source: Source,
    /// The name of the document's file, for diagnostics.
    pub file: String,
    /// The revision whose document this repeats.
    #[serde(default)]
    pub repeats: Option<u64>,
    /// The digest of the daemon's own file when it was last taken.
    #[serde(default)]
    pub taken: Option<String>,
    /// Length of the document.
    pub bytes: u64,
    /// SHA-256 of the document, in hexadecimal digits.
    pub sha256: String,
    /// Whether it had to be confirmed, and was.
    #[serde(default)]
    pub confirmation: Option<Confirmation>,
}

/// That a revision has to be confirmed, or the one before comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The revision whose document comes back otherwise.
    pub back_to: u64,
    /// How long there was for it.
    pub within_ms: u64,
    /// Until when, in milliseconds since 1970.
    pub deadline_ms: u64,
    /// When it was confirmed, in milliseconds since 1970; `None`: it was not, so far.
    #[serde(default)]
    pub confirmed_ms: Option<u64>,
    /// Who confirmed it.
    #[serde(default)]
    pub confirmed_by: Option<String>,
}

/// What a revision that is not confirmed yet waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// The revision in question.
    pub number: u64,
    /// The revision whose document comes back otherwise.
    pub back_to: u64,
    /// Until when, in milliseconds since 1970.
    pub deadline_ms: u64,
    /// How long there was for it.
    pub within_ms: u64,
}

impl Awaited {
    /// What is left at a time of the wall clock; 0: it is over. A clock that was set back grants no more than there was
    /// in the first place.
    pub fn left_ms(&self, now_ms: u64) -> u64 {
        self.deadline_ms.saturating_sub(now_ms).min(self.within_ms)
    }
}

impl Revision {
    /// What it waits for, if it was to be confirmed and is not.
    pub fn awaited(&self) -> Option<Awaited> {
        let confirmation = self.confirmation.as_ref()?;
        confirmation.confirmed_ms.is_none().then_some(Awaited {
            number: self.number,
            back_to: confirmation.back_to,
            deadline_ms: confirmation.deadline_ms,
            within_ms: confirmation.within_ms,
        })
    }
}

/// SHA-256 as `sha256sum` writes it.
pub fn digest(document: &[u8]) -> String {
    use fmt::Write as _;
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(document) {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_what_sha256sum_prints() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(
            digest(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_clock_that_was_set_back_grants_no_more_time() {
        let awaited = Awaited {
            number: 2,
            back_to: 1,
            deadline_ms: 1_000_000,
            within_ms: 300_000,
        };
        assert_eq!(awaited.left_ms(900_000), 100_000);
        assert_eq!(awaited.left_ms(0), 300_000);
        assert_eq!(awaited.left_ms(1_000_000), 0);
        assert_eq!(awaited.left_ms(2_000_000), 0);
    }
}
