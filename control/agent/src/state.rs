//! Where the daemon keeps what must outlive it: `revisions/` of the configuration, and whatever else has a directory of its
//! own below the same roof.
//!
//! Without `--state` the roof is [`DEFAULT`]; where that cannot be made or written (a container with a read-only root), the
//! daemon runs all the same, says so, and forgets with its end. Not if revisions are there: those are what was last in force. A
//! directory that was named must be there.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bulkhead_revisions::{Directory, Memory, Store, StoreError};

/// Where state is kept unless told otherwise.
pub const DEFAULT: &str = "/var/lib/bulkhead";
/// Below it: the revisions.
const REVISIONS: &str = "revisions";
/// Revisions in memory, where they compete with everything else for it.
const KEPT_IN_MEMORY: usize = 5;

/// Makes the state directory. `None`: there is none, and the log says why.
///
/// # Errors
/// If it was named and cannot be made.
pub fn directory(named: Option<&Path>) -> Result<Option<PathBuf>> {
    let path = named.unwrap_or(Path::new(DEFAULT));
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    match (made, named) {
        (Ok(()), _) => Ok(Some(path.to_owned())),
        (Err(error), None) => {
            nothing_kept(path, &error);
            Ok(None)
        }
        (Err(error), Some(_)) => {
            Err(error).with_context(|| format!("cannot make the state directory {}", path.display()))
        }
    }
}

/// Whether there are revisions, for whoever may not make anything yet.
pub fn has_revisions(named: Option<&Path>) -> bool {
    Directory::holds_revisions(&revisions_directory(named))
}

/// Where a start finds its revisions, for whoever only wants to look.
pub fn revisions_directory(named: Option<&Path>) -> PathBuf {
    named.unwrap_or(Path::new(DEFAULT)).join(REVISIONS)
}

fn nothing_kept(path: &Path, error: &dyn std::fmt::Display) {
    tracing::warn!(
        directory = %path.display(),
        %error,
        "no state directory, commits last until the daemon ends; name a directory with --state"
    );
}

/// The revisions, and whether they outlive the daemon.
///
/// # Errors
/// If another daemon keeps its revisions there; if the directory was `named`, or has revisions, and cannot be used.
pub fn revisions(directory: Option<&Path>, named: bool, kept: usize) -> Result<(Store, bool)> {
    if let Some(directory) = directory {
        match Directory::open(&directory.join(REVISIONS)) {
            Ok(disk) => {
                let (store, damaged) = Store::open(disk, kept).context("cannot open the revisions")?;
                for found in damaged {
                    tracing::error!(
                        revision = found.number,
                        problem = found.what,
                        "a revision is damaged and left out"
                    );
                }
                return Ok((store, true));
            }
            // Whoever has committed before does not mean the file of --config, which is older.
            Err(error @ StoreError::Io { .. }) if !named && has_revisions(Some(directory)) => {
                return Err(error).with_context(|| {
                    format!(
                        "{} has revisions and cannot be used any more; make it writable, or name another directory with \
                         --state to begin anew with the file of --config",
                        directory.display()
                    )
                });
            }
            Err(error @ StoreError::Io { .. }) if !named => nothing_kept(directory, &error),
            Err(error) => return Err(error.into()),
        }
    }
    let (store, _) = Store::open(Memory::default(), kept.min(KEPT_IN_MEMORY))?;
    Ok((store, false))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_directory_that_was_named_must_be_there() {
        let roof = tempfile::tempdir().expect("a directory");
        let path = roof.path().join("deep/state");
        let made = directory(Some(&path))
            .expect("a directory")
            .expect("it was named");
        assert_eq!(made, path);
        assert!(!has_revisions(Some(&path)));
        let (store, durable) = revisions(Some(&made), true, 10).expect("a store");
        assert!(durable && store.current().is_none());
        assert!(
            revisions(Some(&made), true, 10).is_err(),
            "one daemon per directory"
        );

        let file = roof.path().join("file");
        fs::write(&file, "").expect("a file");
        let error = directory(Some(&file.join("below"))).expect_err("a file is no directory");
        assert!(
            error.to_string().contains("cannot make the state directory"),
            "{error}"
        );
        assert!(revisions(Some(&file), true, 10).is_err());
    }

    #[test]
    fn without_one_revisions_last_as_long_as_the_daemon() {
        let (_, durable) = revisions(None, false, 50).expect("memory");
        assert!(!durable);
        // The default, where it cannot be used.
        let roof = tempfile::tempdir().expect("a directory");
        let file = roof.path().join("file");
        fs::write(&file, "").expect("a file");
        let (_, durable) = revisions(Some(&file), false, 50).expect("memory");
        assert!(!durable);
    }

    #[test]
    fn revisions_that_cannot_be_opened_are_not_passed_over() {
        let roof = tempfile::tempdir().expect("a directory");
        let kept = roof.path().join(REVISIONS);
        // Nobody can open this for writing, not even root.
        fs::create_dir_all(kept.join("lock")).expect("a directory");
        revisions(Some(roof.path()), false, 50).expect("memory, since nothing is lost");
        fs::write(kept.join("00000007.revision"), "").expect("a file");
        assert!(has_revisions(Some(roof.path())));
        let error = revisions(Some(roof.path()), false, 50).expect_err("a refusal");
        assert!(
            error
                .to_string()
                .contains("has revisions and cannot be used any more"),
            "{error:#}"
        );
    }
}
