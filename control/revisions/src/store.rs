//! The store: which revisions there are, how one more is made, how one is confirmed.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use crate::StoreError;
use crate::disk::Disk;
use crate::file;
use crate::revision::{Awaited, Confirmation, Draft, Revision, digest};

/// The committed configurations of one firewall.
pub struct Store {
    disk: Box<dyn Disk>,
    kept: usize,
    revisions: BTreeMap<u64, Revision>,
    /// No number is given twice, not even that of a damaged file.
    next: u64,
}

/// A file that has the name of a revision and is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The number it would have.
    pub number: u64,
    /// What is wrong with it.
    pub what: String,
}

/// A revision that is on the disk and has no name yet.
#[derive(Debug)]
#[must_use = "a prepared revision is published or discarded"]
pub struct Prepared {
    revision: Revision,
}

impl Prepared {
    /// What it will be.
    pub const fn revision(&self) -> &Revision {
        &self.revision
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("kept", &self.kept)
            .field("revisions", &self.revisions.len())
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

fn failed(operation: &'static str, name: &str) -> impl FnOnce(io::Error) -> StoreError {
    let name = name.to_owned();
    move |source| StoreError::Io {
        operation,
        name,
        source,
    }
}

impl Store {
    /// Opens a store, of which `kept` revisions are kept (at least two: one to come back to). What is left of a commit
    /// that a crash cut short is removed. Files that are damaged are left where they are and named; if the newest is one
    /// of them, the newest that is whole counts.
    ///
    /// # Errors
    /// If the disk cannot be read.
    pub fn open(disk: impl Disk + 'static, kept: usize) -> Result<(Self, Vec<Damaged>), StoreError> {
        let mut store = Self {
            disk: Box::new(disk),
            kept: kept.max(2),
            revisions: BTreeMap::new(),
            next: 1,
        };
        let names = store.disk.names().map_err(failed("list", "the revisions"))?;
        if names.iter().any(|name| name == file::TEMPORARY) {
            store
                .disk
                .remove(file::TEMPORARY)
                .map_err(failed("remove", file::TEMPORARY))?;
        }
        let mut damaged = Vec::new();
        for number in names.iter().filter_map(|name| file::number(name)) {
            store.next = store.next.max(number.saturating_add(1));
            let content = store.disk.read(&file::name(number), file::header_limit());
            let content = content.map_err(failed("read", &file::name(number)))?;
            match file::header(&content, number) {
                Ok((revision, _)) => {
                    store.revisions.insert(number, revision);
                }
                Err(what) => damaged.push(Damaged { number, what }),
            }
        }
        // The others are looked at when they are asked for.
        while let Some(number) = store.current().map(|revision| revision.number) {
            match store.document(number) {
                Ok(_) => break,
                Err(StoreError::Damaged { number, what }) => {
                    store.revisions.remove(&number);
                    damaged.push(Damaged { number, what });
                }
                Err(error) => return Err(error),
            }
        }
        damaged.sort_by_key(|found| found.number);
        Ok((store, damaged))
    }

    /// The revision that was committed last.
    pub fn current(&self) -> Option<&Revision> {
        self.revisions.values().next_back()
    }

    /// The one before it.
    pub fn previous(&self) -> Option<&Revision> {
        self.revisions.values().nth_back(1)
    }

    /// What the current revision waits for.
    pub fn awaited(&self) -> Option<Awaited> {
        self.current()?.awaited()
    }

    /// All that are kept, oldest first.
    pub fn revisions(&self) -> impl DoubleEndedIterator<Item = &Revision> {
        self.revisions.values()
    }

    /// One of them.
    ///
    /// # Errors
    /// [`StoreError::Unknown`]
    pub fn revision(&self, number: u64) -> Result<&Revision, StoreError> {
        self.revisions.get(&number).ok_or_else(|| {
            let mut numbers = self.revisions.keys();
            let kept = match (numbers.next(), numbers.next_back()) {
                (None, _) => "nothing was committed yet".to_owned(),
                (Some(only), None) => format!("there is only revision {only}"),
                (Some(first), Some(last)) => format!("those from {first} to {last} are kept"),
            };
            StoreError::Unknown { number, kept }
        })
    }

    /// The document of a revision, as it was written.
    ///
    /// # Errors
    /// [`StoreError::Unknown`]; [`StoreError::Damaged`] if it is not what was written; [`StoreError::Io`].
    pub fn document(&self, number: u64) -> Result<Vec<u8>, StoreError> {
        self.revision(number)?;
        let name = file::name(number);
        let content = self.disk.read(&name, u64::MAX).map_err(failed("read", &name))?;
        match file::whole(content, number) {
            Ok((_, document)) => Ok(document),
            Err(what) => Err(StoreError::Damaged { number, what }),
        }
    }

    /// Brings a document to the disk, under a name that makes it no revision yet.
    ///
    /// # Errors
    /// [`StoreError::Io`]; nothing has changed then.
    pub fn prepare(&mut self, draft: Draft, document: &[u8]) -> Result<Prepared, StoreError> {
        // A revision that nobody has confirmed is none to come back to.
        let back_to = self.current().map(|current| {
            let awaited = current.awaited();
            awaited.map_or(current.number, |awaited| awaited.back_to)
        });
        let revision = Revision {
            number: self.next,
            time_ms: draft.time_ms,
            author: draft.author,
            user: draft.user,
            comment: draft.comment,
            source: draft.source,
            file: draft.file,
            repeats: draft.repeats,
            taken: draft.taken,
            bytes: document.len() as u64,
            sha256: digest(document),
            // The very first revision has nothing to come back to.
            confirmation: draft
                .confirm_within_ms
                .zip(back_to)
                .map(|(within_ms, back_to)| Confirmation {
                    back_to,
                    within_ms,
                    deadline_ms: draft.time_ms.saturating_add(within_ms),
                    confirmed_ms: None,
                    confirmed_by: None,
                }),
        };
        self.write_temporary(&revision, document)?;
        Ok(Prepared { revision })
    }

    /// Makes a prepared revision the current one. When this returns, it is so after a crash too.
    ///
    /// # Errors
    /// [`StoreError::Io`]; the current revision is the one it was, unless removing the new one fails too, which a disk
    /// that loses names may do: then only a restart tells.
    pub fn publish(&mut self, prepared: Prepared) -> Result<&Revision, StoreError> {
        let Prepared { revision } = prepared;
        let number = revision.number;
        let name = file::name(number);
        self.disk
            .rename(file::TEMPORARY, &name)
            .map_err(failed("rename", &name))?;
        if let Err(error) = self.disk.sync_names() {
            // The name is there, and may or may not be there after a crash: take it away again.
            let _ = self.disk.remove(&name);
            let _ = self.disk.sync_names();
            self.next += 1;
            return Err(failed("sync the name of", &name)(error));
        }
        self.next = number + 1;
        self.prune(revision.awaited().map(|awaited| awaited.back_to));
        Ok(self.revisions.entry(number).or_insert(revision))
    }

    /// Gives up a prepared revision.
    pub fn discard(&mut self, prepared: Prepared) {
        drop(prepared);
        // If it stays, the next one to be prepared or the next start removes it.
        let _ = self.disk.remove(file::TEMPORARY);
    }

    /// Notes that the current revision has been confirmed. When this returns, it is so after a crash too.
    ///
    /// # Errors
    /// [`StoreError::NothingAwaited`]; [`StoreError::Io`], and [`StoreError::Damaged`] if its document is lost: it is
    /// still to be confirmed then.
    pub fn confirm(&mut self, time_ms: u64, author: &str) -> Result<&Revision, StoreError> {
        let current = self.current().filter(|revision| revision.awaited().is_some());
        let mut revision = current.cloned().ok_or(StoreError::NothingAwaited)?;
        if let Some(confirmation) = &mut revision.confirmation {
            confirmation.confirmed_ms = Some(time_ms);
            confirmation.confirmed_by = Some(author.to_owned());
        }
        let number = revision.number;
        let name = file::name(number);
        let document = self.document(number)?;
        self.write_temporary(&revision, &document)?;
        self.disk
            .rename(file::TEMPORARY, &name)
            .map_err(failed("rename", &name))?;
        self.disk
            .sync_names()
            .map_err(failed("sync the name of", &name))?;
        self.revisions.insert(number, revision);
        self.revision(number)
    }

    fn write_temporary(&mut self, revision: &Revision, document: &[u8]) -> Result<(), StoreError> {
        let line = file::first_line(revision)
            .map_err(io::Error::from)
            .map_err(failed("write", file::TEMPORARY))?;
        // Removed and made anew, never truncated: after a crash between the two halves of a rename it may be a second
        // name of a revision.
        match self.disk.remove(file::TEMPORARY) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", file::TEMPORARY)(error));
            }
            _ => {}
        }
        let written = self
            .disk
            .write(file::TEMPORARY, &[&line, document])
            .map_err(failed("write", file::TEMPORARY))
            .and_then(|()| {
                self.disk
                    .sync(file::TEMPORARY)
                    .map_err(failed("sync", file::TEMPORARY))
            });
        if written.is_err() {
            // A full disk should not stay full because of half a document.
            let _ = self.disk.remove(file::TEMPORARY);
        }
        written
    }

    /// Removes what is more than is kept, counting the one to come, but not the one that may come back. What cannot be removed
    /// now is found and removed after the next start.
    fn prune(&mut self, back_to: Option<u64>) {
        while self.revisions.len() + 1 > self.kept {
            let mut numbers = self.revisions.keys().copied();
            let Some(number) = numbers.find(|number| Some(*number) != back_to) else {
                return;
            };
            self.revisions.remove(&number);
            let _ = self.disk.remove(&file::name(number));
        }
    }
}
