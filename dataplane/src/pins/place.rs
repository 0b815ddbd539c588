//! Where pins can be: a bpffs that is mounted, or that can be.

use std::{
    fmt::Write as _,
    io,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

/// Where the bpffs of a machine is, by convention.
pub const MOUNT_POINT: &str = "/sys/fs/bpf";

/// Whether a bpffs is mounted there.
#[must_use]
pub fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

/// Whether the path, or the nearest of its parents that exists, is in a bpffs.
pub(super) fn is_within_bpffs(path: &Path) -> bool {
    path.ancestors()
        .find(|parent| parent.exists())
        .is_some_and(is_bpffs)
}

/// Whether pins can be below a directory.
#[derive(Debug)]
pub enum Place {
    /// A bpffs is mounted.
    Mounted,
    /// It was not, and is now.
    MountedNow,
    /// There is none, and mounting one was refused.
    None(io::Error),
}

/// Sees to it that `root` is in a bpffs: mounts one at [`MOUNT_POINT`] if `root` is below it and nothing is mounted there.
#[must_use]
pub fn place(root: &Path) -> Place {
    if is_within_bpffs(root) {
        return Place::Mounted;
    }
    if !root.starts_with(MOUNT_POINT) {
        return Place::None(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{} is not in a bpffs", root.display()),
        ));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RELATIME;
    match mount(Some("bpf"), MOUNT_POINT, Some("bpf"), flags, Some("mode=700")) {
        Ok(()) => Place::MountedNow,
        Err(error) => Place::None(error.into()),
    }
}

/// The directory of an instance. bpffs allows no dots in names: what is neither letter, digit, `-` nor `_` is written as
/// `%` and two hexadecimal digits.
#[must_use]
pub fn instance_directory(root: &Path, name: &str) -> PathBuf {
    let mut escaped = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            escaped.push(char::from(byte));
        } else {
            let _infallible = write!(escaped, "%{byte:02x}");
        }
    }
    root.join(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_instances_stay_apart_and_have_no_dots() {
        let root = Path::new("/pins");
        let directory = |name| instance_directory(root, name);
        assert_eq!(directory("edge-1"), Path::new("/pins/edge-1"));
        assert_eq!(directory("edge.1"), Path::new("/pins/edge%2e1"));
        assert_eq!(directory(".."), Path::new("/pins/%2e%2e"));
        assert_eq!(directory("a/b%"), Path::new("/pins/a%2fb%25"));
    }

    #[test]
    fn what_is_no_bpffs_is_none() {
        assert!(!is_within_bpffs(Path::new("/proc/no/such/directory")));
        assert!(matches!(place(Path::new("/proc/bulkhead")), Place::None(_)));
    }
}
