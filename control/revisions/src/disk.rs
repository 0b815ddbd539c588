//! The file operations that the store is made of, each one a point at which a crash may come.
//!
//! [`Directory`] does them for real; [`Memory`] keeps everything until the process ends. Names are plain: no separators.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::StoreError;
use crate::file;
use crate::revision::Revision;

/// Files in one flat directory.
pub trait Disk: Send {
    /// Every name, in any order.
    fn names(&self) -> io::Result<Vec<String>>;
    /// The beginning of a file, at most `limit` bytes.
    fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>>;
    /// Makes a file, which must not exist, of these parts. It is safe only after [`Disk::sync`].
    fn write(&mut self, name: &str, parts: &[&[u8]]) -> io::Result<()>;
    /// Returns when the content of a file is on the disk.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Gives a file another name, in place of whatever had it. It is safe only after [`Disk::sync_names`].
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Returns when the names are on the disk.
    fn sync_names(&mut self) -> io::Result<()>;
    /// Removes a file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// A directory of the file system, locked as long as this lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// The directory itself, for `fsync`.
    handle: File,
    /// Held, never written.
    _lock: File,
}

impl Directory {
    /// Opens or makes a directory, with mode 0700: documents may hold secrets.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it open; [`StoreError::Io`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |operation| {
            move |source| StoreError::Io {
                operation,
                name: path.display().to_string(),
                source,
            }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed("make directory"))?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))
            .map_err(failed("write to"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(path.display().to_string())),
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        let handle = File::open(path).map_err(failed("open"))?;
        // Its own name, too, must outlive a crash. That of what stands above it is whoever made that's.
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let parent = File::open(parent).map_err(failed("open the parent of"))?;
            parent.sync_all().map_err(failed("sync the parent of"))?;
        }
        Ok(Self {
            path: path.to_owned(),
            handle,
            _lock: lock,
        })
    }

    /// Whether there is a directory with revisions, without making or locking one. One that cannot be read has none.
    pub fn holds_revisions(path: &Path) -> bool {
        let names = fs::read_dir(path).into_iter().flatten().flatten();
        names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .any(|name| file::number(&name).is_some())
    }
}

/// The newest revision of a directory that is whole, with its document; `None`: there is none. For whoever only wants to know:
/// makes, locks and removes nothing, and may look while a daemon writes there.
///
/// # Errors
/// [`StoreError::Io`] if the directory, or a file in it, is there and cannot be read.
pub fn newest(path: &Path) -> Result<Option<(Revision, Vec<u8>)>, StoreError> {
    let failed = |name: &Path| {
        let name = name.display().to_string();
        |source| StoreError::Io {
            operation: "read",
            name,
            source,
        }
    };
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(failed(path))?,
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed(path))?.file_name();
        numbers.extend(name.to_str().and_then(file::number));
    }
    numbers.sort_unstable();
    for number in numbers.into_iter().rev() {
        let path = path.join(file::name(number));
        let content = match fs::read(&path) {
            // The daemon keeps so many of them.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            content => content.map_err(failed(&path))?,
        };
        if let Ok(found) = file::whole(content, number) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

impl Disk for Directory {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // What is no text is none of ours.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        File::open(self.path.join(name))?
            .take(limit)
            .read_to_end(&mut content)?;
        Ok(content)
    }

    fn write(&mut self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.path.join(name))?;
        parts.iter().try_for_each(|part| file.write_all(part))
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        // Linux flushes the file's pages whichever descriptor they were written through.
        File::open(self.path.join(name))?.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }
}

/// Where nothing can be kept: everything is gone with the process.
#[derive(Debug, Default)]
pub struct Memory {
    files: BTreeMap<String, Vec<u8>>,
}

impl Disk for Memory {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.files.keys().cloned().collect())
    }

    fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let content = self.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        let end = usize::try_from(limit).map_or(content.len(), |limit| limit.min(content.len()));
        Ok(content[..end].to_vec())
    }

    fn write(&mut self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        if self.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.files.insert(name.to_owned(), parts.concat());
        Ok(())
    }

    fn sync(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let content = self.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        self.files.insert(to.to_owned(), content);
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.files
            .remove(name)
            .map(drop)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
