//! The network namespaces that can be found: those of processes, and those with a name.
//!
//! Assumes a `/proc` that shows the processes concerned. What nobody is in and nothing names (a descriptor alone holds it)
//! is not found. Never changes the namespace of the calling thread: whoever wants to look elsewhere sends a thread.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::PathBuf,
};

use nix::sched::{CloneFlags, setns};

/// A network namespace that can be entered.
#[derive(Debug)]
pub struct Namespace {
    handle: File,
    /// Where it was found, for messages.
    pub path: PathBuf,
}

impl Namespace {
    /// All that can be found but the calling thread's own.
    #[must_use]
    pub fn others() -> Vec<Self> {
        let list = |directory: &str| fs::read_dir(directory).into_iter().flatten().flatten();
        let processes = list("/proc").map(|entry| entry.path().join("ns/net"));
        let named = list("/run/netns").map(|entry| entry.path());
        let mut seen = BTreeSet::new();
        seen.extend(number("/proc/thread-self/ns/net".into()));
        processes
            .chain(named)
            .filter_map(|path| {
                // Processes come and go.
                let fresh = number(path.clone()).is_some_and(|number| seen.insert(number));
                let handle = File::open(&path).ok().filter(|_| fresh)?;
                Some(Self { handle, path })
            })
            .collect()
    }

    /// Runs `body` in it, on a thread of its own.
    ///
    /// # Errors
    /// If it cannot be entered (`EPERM` without CAP_SYS_ADMIN).
    pub fn run<R: Send>(&self, body: impl FnOnce() -> R + Send) -> io::Result<R> {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(self.handle.as_fd(), CloneFlags::CLONE_NEWNET)?;
                Ok(body())
            });
            inside
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread in another network namespace panicked")))
        })
    }
}

/// What tells it from others: device and inode.
fn number(path: PathBuf) -> Option<(u64, u64)> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}
