//! The network namespaces that can be found: those that a process or a thread is in, those with a name or another mount,
//! and those that a process holds by a descriptor.
//!
//! Assumes a `/proc` that shows the processes concerned. What is kept by a socket alone, or mounted where this process does
//! not see it, is not found. Never changes the namespace of the calling thread: whoever wants to look elsewhere sends a
//! thread.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
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
    /// All that can be found but the calling thread's own, each once; the costly places last, so that whoever finds what was
    /// looked for need not look there.
    pub fn others() -> impl Iterator<Item = Self> {
        let mut seen = BTreeSet::new();
        seen.extend(number("/proc/thread-self/ns/net".as_ref()));
        let processes = list("/proc".as_ref()).map(|process| process.join("ns/net"));
        let named = list("/run/netns".as_ref());
        let threads = list("/proc".as_ref())
            .flat_map(|process| list(&process.join("task")))
            .map(|thread| thread.join("ns/net"));
        processes
            .chain(named)
            .chain(mounted())
            .chain(threads)
            .chain(held())
            .filter_map(move |path| {
                // Processes come and go.
                let fresh = number(&path).is_some_and(|number| seen.insert(number));
                let handle = File::open(&path).ok().filter(|_| fresh)?;
                Some(Self { handle, path })
            })
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

/// What is in a directory that can be read.
fn list(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// Where namespaces are mounted, whatever the directory (Docker's is not the one of `ip netns`).
fn mounted() -> impl Iterator<Item = PathBuf> {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    mounts_in(&mounts).into_iter()
}

/// `615 30 0:4 net:[4026532281] /run/docker/netns/a1 rw shared:7 - nsfs nsfs rw`: what is mounted, and where.
fn mounts_in(mounts: &str) -> Vec<PathBuf> {
    let mount = |line: &str| {
        let mut fields = line.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        root.starts_with(IS_NETWORK).then(|| point.into())
    };
    mounts.lines().filter_map(mount).collect()
}

/// Descriptors of network namespaces. Their links alone are read: to look at what others lead to may wait for a server.
fn held() -> impl Iterator<Item = PathBuf> {
    list("/proc".as_ref())
        .flat_map(|process| list(&process.join("fd")))
        .filter(|descriptor| {
            let target = fs::read_link(descriptor).unwrap_or_default();
            target
                .to_str()
                .is_some_and(|target| target.starts_with(IS_NETWORK))
        })
}

/// What the kernel's name of a network namespace begins with.
const IS_NETWORK: &str = "net:[";

/// What tells it from others: device and inode.
fn number(path: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounted_namespaces_are_told_from_other_mounts() {
        let mounts = "22 27 0:20 / /sys rw,nosuid - sysfs sysfs rw\n\
                      615 30 0:4 net:[4026532281] /run/docker/netns/a1 rw shared:7 - nsfs nsfs rw\n\
                      616 30 0:4 mnt:[4026532282] /run/mnt rw - nsfs nsfs rw\n";
        assert_eq!(mounts_in(mounts), [PathBuf::from("/run/docker/netns/a1")]);
    }
}
