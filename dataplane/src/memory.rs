//! What the kernel's tables take: entries, capacity and bytes of each map of the object, as the kernel accounts for them.
//!
//! Bytes are those of `memlock` in `/proc/self/fdinfo` (kernel/bpf/syscall.c, `bpf_map_show_fdinfo`), which counts the
//! entries that are there (6.4 and later) or those there may be (before). Entries are counted, thousands per call:
//! a question for people, not for the packet path.

use std::{
    fs,
    os::fd::{AsRawFd as _, OwnedFd},
};

use crate::table::{self, TableError};

/// What one table takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableMemory {
    /// The map's name in the BPF object.
    pub name: String,
    /// Entries in it; arrays are always full.
    pub entries: u64,
    /// Entries it has room for; of a ring buffer, bytes.
    pub capacity: u64,
    /// Memory it takes now.
    pub bytes: u64,
}

/// How the entries of a map are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All are there from the beginning.
    Fixed,
    /// In thousands per call.
    Hash,
    /// Key by key.
    Trie,
    /// A stream: no entries.
    Ring,
}

/// A map of the object, for looking at from outside.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) fd: OwnedFd,
    pub(crate) key_bytes: usize,
    pub(crate) value_bytes: usize,
    pub(crate) capacity: u32,
}

impl Listed {
    /// What it takes now.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub(crate) fn memory(&self) -> Result<TableMemory, TableError> {
        let entries = match self.kind {
            Kind::Fixed => u64::from(self.capacity),
            Kind::Hash => table::count_batched(&self.fd, self.key_bytes, self.value_bytes)?,
            Kind::Trie => table::count_keys(&self.fd, self.key_bytes)?,
            Kind::Ring => 0,
        };
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.fd.as_raw_fd()));
        Ok(TableMemory {
            name: self.name.clone(),
            entries,
            capacity: u64::from(self.capacity),
            bytes: info.ok().and_then(|info| memlock(&info)).unwrap_or(0),
        })
    }
}

/// The `memlock` line of a map's fdinfo, bytes.
fn memlock(info: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix("memlock:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::memlock;

    #[test]
    fn memory_is_what_fdinfo_says() {
        let info =
            "pos:\t0\nflags:\t02000002\nmap_type:\t1\nmax_entries:\t1024\nmemlock:\t98304\nfrozen:\t0\n";
        assert_eq!(memlock(info), Some(98_304));
        assert_eq!(memlock("pos:\t0\n"), None);
    }
}
