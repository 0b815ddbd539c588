//! What outlives the daemon, in a bpffs: an instance's directory, who may use it, what is in it.
//!
//! ```text
//! INSTANCE/links/IFINDEX_HOOK   a program on an interface (see [`crate::link`]); with _next what is to take its place
//! INSTANCE/vVERSION/TABLE       a table of sessions and what belongs to them, of one version of the ABI
//! INSTANCE/vVERSION/TABLE_next  the same, of a start that has not come to its end
//! INSTANCE/vVERSION/TABLE_before_N  the same, of another size, while programs may be about that use it
//! INSTANCE/vVERSION/load-N/     what the programs of one load need and the next has to know: STAGES, LIVE
//! ```
//!
//! Owns the directory: one process at a time holds its lock, from [`Pins::open`] until it ends. Assumes that nobody else
//! removes files in it. Refuses a directory that is in no bpffs, that others may write in, or that another process holds. Why it is as it is, and what
//! becomes of a packet meanwhile: `deploy/docs/decisions/0010-pins.md`.

mod detach;
mod load;
mod place;
mod tables;

use std::{
    collections::HashSet,
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use bulkhead_abi::ABI_VERSION;
use nix::{
    fcntl::{Flock, FlockArg, OFlag},
    unistd::geteuid,
};

pub use self::detach::{Detached, detach};
pub(crate) use self::load::{Inheritance, Load};
pub use self::place::{MOUNT_POINT, Place, instance_directory, is_bpffs, place};
use crate::link::{Hook, Link};

/// Why pins could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// Another process holds the directory.
    #[error(
        "{directory} is held by {}: one daemon at a time; `metadata.name` tells instances apart",
        match .process { Some(process) => format!("process {process}"), None => "another process".to_owned() },
        directory = .directory.display()
    )]
    Held {
        /// The instance's directory.
        directory: PathBuf,
        /// The process, if this one may know.
        process: Option<u32>,
    },
    /// Another instance's programs are on the interface.
    #[error(
        "{interface} is guarded by instance {instance}, whose programs would come first: `bulkhead detach {instance}` takes \
         them off"
    )]
    Guarded {
        /// The interface.
        interface: String,
        /// The other instance.
        instance: String,
    },
    /// The directory is in no bpffs.
    #[error("{directory} is not in a bpffs: `mount -t bpf -o mode=700 bpf {MOUNT_POINT}`, or run with `--pins none`", directory = .0.display())]
    NotBpffs(PathBuf),
    /// Others than who runs this may write in the directory.
    #[error(
        "{directory} belongs to user {owner} and has mode {mode:o}, so that others could change what is enforced: see what \
         is in it, then `chown {user} {directory}` and `chmod 700 {directory}`, or mount the bpffs with `-o mode=700`",
        directory = .directory.display()
    )]
    Exposed {
        /// The directory.
        directory: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Its permissions.
        mode: u32,
        /// Who runs this.
        user: u32,
    },
    /// The numbers that a load before has put in force cannot be told.
    #[error(
        "cannot read {path}, the numbers that sessions were judged under: {source}; `bulkhead detach` ends the sessions and \
         lets a start begin anew",
        path = .path.display()
    )]
    Numbers {
        /// The table.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Programs could not be taken off.
    #[error(
        "{programs} program(s) are taken off, {} are not, and keep their tables: {}; mend that and do it again",
        .errors.len(),
        .errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    )]
    Stay {
        /// Those that are off.
        programs: usize,
        /// Why the others are not.
        errors: Vec<PinError>,
    },
    /// The system refused.
    #[error("{operation} {path}: {source}", path = .path.display())]
    System {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl PinError {
    fn system(operation: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::System {
            operation,
            path: path.to_owned(),
            source: source.into(),
        }
    }
}

/// An instance's directory, held.
#[derive(Debug)]
pub struct Pins {
    directory: PathBuf,
    _lock: Flock<File>,
}

/// What another version of the ABI has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// Its directory.
    pub directory: PathBuf,
    /// Sessions in its tables.
    pub sessions: u64,
}

impl Pins {
    /// Makes the instance's directory if it is not there, and takes its lock.
    ///
    /// # Errors
    /// [`PinError::NotBpffs`], [`PinError::Exposed`], [`PinError::Held`], or what the system says.
    pub fn open(directory: &Path) -> Result<Self, PinError> {
        if !place::is_within_bpffs(directory) {
            return Err(PinError::NotBpffs(directory.to_owned()));
        }
        if let Some(root) = directory.parent() {
            make(root)?;
        }
        let pins = Self {
            _lock: lock(make(directory)?, directory)?,
            directory: directory.to_owned(),
        };
        make(&pins.links())?;
        make(&pins.version())?;
        Ok(pins)
    }

    /// The instance's directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn links(&self) -> PathBuf {
        self.directory.join("links")
    }

    fn version(&self) -> PathBuf {
        self.directory.join(format!("v{ABI_VERSION}"))
    }

    /// Where the link of a hook is pinned.
    pub(crate) fn link_path(&self, hook: Hook, ifindex: u32) -> PathBuf {
        self.directory.join(link_name(hook, ifindex))
    }

    /// The pinned link of a hook, if it is really on the interface with this index in this network namespace.
    ///
    /// # Errors
    /// If that cannot be told: what is there may be what guards the interface.
    pub(crate) fn find_link(&self, hook: Hook, ifindex: u32) -> Result<Option<Link>, PinError> {
        let path = self.link_path(hook, ifindex);
        match find_on(&path, hook, ifindex)? {
            Some(link) => Ok(Some(link)),
            None => {
                if path.exists() {
                    tracing::warn!(pin = %path.display(), "a pinned program is not on this interface any more");
                }
                Ok(None)
            }
        }
    }

    /// Takes off what is pinned for a hook, wherever it is.
    ///
    /// # Errors
    /// If there is something and it stays.
    pub(crate) fn forget_link(&self, hook: Hook, ifindex: u32) -> Result<(), PinError> {
        let path = self.link_path(hook, ifindex);
        if path.exists() { take_off(&path) } else { Ok(()) }
    }

    /// Refuses an interface that another instance guards, alive or not: its programs would be asked first, and what they
    /// settle never comes here.
    ///
    /// # Errors
    /// [`PinError::Guarded`], or if it cannot be told.
    pub(crate) fn others_guard(&self, hook: Hook, ifindex: u32, interface: &str) -> Result<(), PinError> {
        let root = self.directory.parent().unwrap_or(&self.directory);
        for other in entries(root)? {
            let path = other.join(link_name(hook, ifindex));
            if other != self.directory && other.is_dir() && find_on(&path, hook, ifindex)?.is_some() {
                return Err(PinError::Guarded {
                    interface: interface.to_owned(),
                    instance: name_of(&other).unwrap_or_default(),
                });
            }
        }
        Ok(())
    }

    /// Takes programs off whose links are not among `wanted`: how many, and the first error. One that stays is no reason
    /// for the others to.
    pub(crate) fn sweep_links(&self, wanted: &HashSet<PathBuf>) -> (usize, Result<(), PinError>) {
        let (mut gone, mut result) = (0, Ok(()));
        let paths = match entries(&self.links()) {
            Ok(paths) => paths,
            Err(error) => return (0, Err(error)),
        };
        for path in paths.iter().filter(|path| !wanted.contains(*path)) {
            match take_off(path) {
                Ok(()) => gone += 1,
                Err(error) => result = result.and(Err(error)),
            }
        }
        (gone, result)
    }

    /// What other versions of the ABI have left.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(crate) fn foreign(&self) -> Result<Vec<Foreign>, PinError> {
        let own = self.version();
        let version = |path: &PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str())?;
            name.strip_prefix('v')?.parse::<u32>().ok()
        };
        let others = entries(&self.directory)?
            .into_iter()
            .filter(|path| *path != own && version(path).is_some());
        Ok(others
            .map(|directory| Foreign {
                sessions: tables::count_sessions(&directory),
                directory,
            })
            .collect())
    }
}

/// The names of the instances below `root`.
///
/// # Errors
/// If the directory cannot be read; that there is none is no error.
pub fn instances(root: &Path) -> Result<Vec<String>, PinError> {
    Ok(entries(root)?
        .iter()
        .filter(|path| path.is_dir())
        .filter_map(|path| name_of(path))
        .collect())
}

/// The name of the instance whose directory it is.
fn name_of(directory: &Path) -> Option<String> {
    Some(place::instance_name(directory.file_name()?.to_str()?))
}

/// Makes a directory that only its owner may look into: who finds the tables finds the marks of frames put back. One that
/// is there must be of who runs this and nobody else's to write in: a bpffs mounted by hand is everybody's (mode 1777), and
/// who pins a program of theirs under a name of ours has it adopted.
fn make(directory: &Path) -> Result<File, PinError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| PinError::system("cannot make", directory, error))?;
    let fail = |error| PinError::system("cannot open", directory, error);
    // What is looked at is what is held: no link to elsewhere.
    let file = File::options()
        .read(true)
        .custom_flags((OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits())
        .open(directory)
        .map_err(fail)?;
    let found = file.metadata().map_err(fail)?;
    let (owner, mode, user) = (found.uid(), found.mode() & 0o7777, geteuid().as_raw());
    if owner != user || mode & 0o022 != 0 {
        return Err(PinError::Exposed {
            directory: directory.to_owned(),
            owner,
            mode,
            user,
        });
    }
    Ok(file)
}

fn lock(file: File, directory: &Path) -> Result<Flock<File>, PinError> {
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(file, error)| {
        if error == nix::errno::Errno::EWOULDBLOCK {
            PinError::Held {
                directory: directory.to_owned(),
                process: holder(&file),
            }
        } else {
            PinError::system("cannot lock", directory, error)
        }
    })
}

/// The process that holds the lock of a file, from `/proc/locks`.
fn holder(file: &File) -> Option<u32> {
    let inode = file.metadata().ok()?.ino();
    let device = file.metadata().ok()?.dev();
    let file = format!(
        "{:02x}:{:02x}:{inode}",
        nix::sys::stat::major(device),
        nix::sys::stat::minor(device)
    );
    holder_in(&fs::read_to_string("/proc/locks").ok()?, &file)
}

/// `1: FLOCK  ADVISORY  WRITE 1234 00:1c:5678 0 EOF`; a line with an arrow is of somebody who waits.
fn holder_in(locks: &str, file: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (kind, _, _, process) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        (kind == "FLOCK" && fields.next()? == file)
            .then(|| process.parse().ok())
            .flatten()
    })
}

/// The paths in a directory, none if there is no such directory. In order: a link comes before what is to be pinned in its
/// place, which tells whose filter it is.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, PinError> {
    let fail = |error| PinError::system("cannot read", directory, error);
    match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(fail(error)),
        Ok(entries) => {
            let paths = entries.map(|entry| entry.map(|entry| entry.path()));
            let mut paths = paths.collect::<io::Result<Vec<_>>>().map_err(fail)?;
            paths.sort();
            Ok(paths)
        }
    }
}

/// The file of a hook's link below an instance's directory. By index: bpffs allows no dot in a name, and names of interfaces
/// have them.
fn link_name(hook: Hook, ifindex: u32) -> String {
    format!("links/{ifindex}_{}", hook.word())
}

/// The hook and the interface that a link's file is named after.
fn hook_of(link: &Path) -> Option<(Hook, u32)> {
    let (ifindex, word) = link.file_name()?.to_str()?.split_once('_')?;
    let hook = Hook::ALL.into_iter().find(|hook| hook.word() == word)?;
    Some((hook, ifindex.parse().ok()?))
}

/// What is pinned there for a hook, if it is on the interface with this index in this network namespace.
fn find_on(path: &Path, hook: Hook, ifindex: u32) -> Result<Option<Link>, PinError> {
    let there =
        Link::find(path, hook, ifindex).and_then(|mut link| Ok(link.is_on(hook, ifindex)?.then_some(link)));
    match there {
        Err(error) if error.is_not_found() => Ok(None),
        there => there.map_err(|error| PinError::system("cannot look at", path, io::Error::other(error))),
    }
}

/// Takes the program of a pinned link off its interface, in whatever network namespace.
fn take_off(path: &Path) -> Result<(), PinError> {
    let Some((hook, ifindex)) = hook_of(path) else {
        // Nothing that any version has pinned here.
        return remove(path);
    };
    match Link::find_anywhere(path, hook, ifindex).and_then(Link::detach) {
        Ok(()) => Ok(()),
        // A filter that is gone, with its interface perhaps.
        Err(error) if error.is_not_found() => remove(path),
        Err(error) => Err(PinError::system("cannot take off", path, io::Error::other(error))),
    }
}

/// Removes a file or a directory with everything in it.
fn remove(path: &Path) -> Result<(), PinError> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(PinError::system("cannot remove", path, error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_directory_that_others_may_write_in_is_refused() {
        let root = std::env::temp_dir().join(format!("bh-pins-{}", std::process::id()));
        let (ours, link) = (root.join("ours"), root.join("link"));
        make(&ours).expect("made");
        let may = |mode| fs::set_permissions(&ours, fs::Permissions::from_mode(mode)).expect("chmod");
        may(0o755);
        make(&ours).expect("others may look");
        for mode in [0o720, 0o702, 0o1777] {
            may(mode);
            let error = make(&ours).expect_err("others may write").to_string();
            assert!(
                error.contains(&format!("mode {mode:o}")) && error.contains("`chmod 700 "),
                "{error}"
            );
        }
        may(0o700);
        std::os::unix::fs::symlink(&ours, &link).expect("a link");
        assert!(matches!(make(&link), Err(PinError::System { .. })));
        fs::remove_dir_all(&root).expect("removed");
    }

    #[test]
    fn instances_are_listed_by_their_names() {
        let root = std::env::temp_dir().join(format!("bh-instances-{}", std::process::id()));
        make(&instance_directory(&root, "edge.1")).expect("made");
        assert_eq!(instances(&root).expect("a list"), ["edge.1"]);
        fs::remove_dir_all(&root).expect("removed");
    }

    #[test]
    fn who_holds_a_lock_is_found() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 00:1c:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 4242 00:1c:77 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 5 00:1c:77 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 9 00:1c:778 0 EOF\n";
        assert_eq!(holder_in(locks, "00:1c:77"), Some(4242));
        assert_eq!(holder_in(locks, "00:1c:7"), None);
    }
}
