//! The last good list on disk, so that a group is not empty after a restart while its server is away.
//!
//! Owns the file: a line of JSON about the list, a line for each member, a last line that says it is whole. Written beside
//! itself, synced and renamed over the old one (and the directory synced), so that a crash leaves one or the other. Readable to its owner
//! alone. Assumes one writer of a path. A file that is damaged is refused, and the group begins empty: never with half a
//! list.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulkhead_config::IpPrefix;
use serde::{Deserialize, Serialize};

use crate::entry::Entry;
use crate::fetch::Stamp;
use crate::hold::Members;

/// The version of the file.
const VERSION: u32 = 1;
const LAST: &str = "end";
/// Longer than any file this writes: four million members.
const MAX_BYTES: u64 = 512 << 20;

/// A list and where it is from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// What identifies the source and how it is read; see [`fingerprint`]. Under another, `stamp` means nothing.
    pub source: String,
    /// Its version.
    pub stamp: Stamp,
    /// When it was fetched, or found unchanged.
    pub fetched: Option<SystemTime>,
    /// Who is in it.
    pub members: Members,
}

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    source: String,
    #[serde(default)]
    stamp: Stamp,
    fetched: Option<u64>,
    current: usize,
    held: usize,
}

/// A short name for texts that should not be written down, such as addresses with a key in them (FNV-1a, 64 bits).
pub fn fingerprint<'t>(texts: impl IntoIterator<Item = &'t str>) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for text in texts {
        for byte in text.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    format!("{hash:016x}")
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn time(seconds: u64) -> SystemTime {
    UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds))
        .unwrap_or(UNIX_EPOCH)
}

/// Writes a list.
///
/// # Errors
/// If the disk does not take it; the old one is still there then.
pub fn save(path: &Path, saved: &Saved) -> io::Result<()> {
    let head = Head {
        version: VERSION,
        source: saved.source.clone(),
        stamp: saved.stamp.clone(),
        fetched: saved.fetched.map(seconds),
        current: saved.members.current().len(),
        held: saved.members.held().len(),
    };
    replace(path, |out| {
        serde_json::to_writer(&mut *out, &head)?;
        writeln!(out)?;
        for prefix in saved.members.current() {
            writeln!(out, "{prefix}")?;
        }
        for (prefix, until) in saved.members.held() {
            writeln!(out, "{prefix} {}", seconds(*until))?;
        }
        writeln!(out, "{LAST}")
    })
}

/// Reads a list. `None`: there is none.
///
/// # Errors
/// If it cannot be read, or is damaged.
pub fn load(path: &Path) -> io::Result<Option<Saved>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut lines = BufReader::new(file.take(MAX_BYTES)).lines();
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, "the last good list is damaged");
    let head: Head = serde_json::from_str(&lines.next().ok_or_else(damaged)??).map_err(|_| damaged())?;
    if head.version != VERSION {
        return Err(damaged());
    }
    let prefix = |text: &str| match Entry::of_value(text) {
        Ok(Entry::Prefix(prefix)) => Ok(prefix),
        _ => Err(damaged()),
    };
    let (mut current, mut held): (Vec<IpPrefix>, Vec<_>) = (Vec::new(), Vec::new());
    for _ in 0..head.current {
        current.push(prefix(&lines.next().ok_or_else(damaged)??)?);
    }
    for _ in 0..head.held {
        let line = lines.next().ok_or_else(damaged)??;
        let (member, until) = line.split_once(' ').ok_or_else(damaged)?;
        held.push((prefix(member)?, time(until.parse().map_err(|_| damaged())?)));
    }
    if lines.next().ok_or_else(damaged)?? != LAST {
        return Err(damaged());
    }
    Ok(Some(Saved {
        source: head.source,
        stamp: head.stamp,
        fetched: head.fetched.map(time),
        members: Members::new(current, held),
    }))
}

/// Writes a file so that a crash at any instant leaves the old one or the new one.
///
/// # Errors
/// If the disk does not take it; the old one is still there then.
pub fn replace(path: &Path, write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    let mut out = BufWriter::with_capacity(64 * 1024, file);
    let written = write(&mut out)
        .and_then(|()| out.into_inner().map_err(io::IntoInnerError::into_error))
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved() -> Saved {
        let host = |last| IpPrefix::host(std::net::IpAddr::from([192, 0, 2, last]));
        Saved {
            source: fingerprint(["https://feeds.example/?key=secret"]),
            stamp: Stamp {
                etag: Some("\"7\"".to_owned()),
                last_modified: None,
            },
            fetched: Some(time(1_795_305_600)),
            members: Members::new(vec![host(1), host(2)], vec![(host(3), time(9))]),
        }
    }

    #[test]
    fn what_is_saved_is_loaded_and_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("groups/quarantine.feed");
        assert_eq!(load(&path).expect("no file"), None);
        save(&path, &saved()).expect("a file");
        assert_eq!(load(&path).expect("a file"), Some(saved()));
        let content = fs::read_to_string(&path).expect("a file");
        assert!(!content.contains("secret"), "{content}");
        let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
        assert_eq!(
            (mode(&path), mode(&directory.path().join("groups"))),
            (0o600, 0o700)
        );
        assert_eq!(
            fs::read_dir(directory.path().join("groups"))
                .expect("a directory")
                .count(),
            1
        );
    }

    #[test]
    fn half_a_file_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("list");
        save(&path, &saved()).expect("a file");
        let whole = fs::read(&path).expect("a file");
        for length in 0..whole.len() - 1 {
            fs::write(&path, &whole[..length]).expect("a file");
            let error = load(&path).expect_err("a refusal");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{length} bytes");
        }
    }
}
