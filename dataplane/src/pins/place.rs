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

/// The name of the instance whose directory is called so: [`instance_directory`] undone. What nobody has escaped is taken as
/// it is.
pub(super) fn instance_name(directory: &str) -> String {
    let mut name = Vec::new();
    let mut rest = directory.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after
            .split_at_checked(2)
            .filter(|_| byte == b'%')
            .and_then(|(digits, after)| {
                let digits = std::str::from_utf8(digits).ok()?;
                Some((u8::from_str_radix(digits, 16).ok()?, after))
            });
        let (byte, after) = escaped.unwrap_or((byte, after));
        name.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&name).into_owned()
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
    fn the_name_of_an_instance_is_found_again_by_its_directory() {
        for name in ["edge-1", "edge.1", "..", "a/b%", "%2e", "über"] {
            let directory = instance_directory(Path::new("/pins"), name);
            let directory = directory.file_name().and_then(|name| name.to_str());
            assert_eq!(instance_name(directory.expect("a name")), name);
        }
        assert_eq!(instance_name("100%"), "100%");
        assert_eq!(instance_name("%zz%2"), "%zz%2");
    }

    #[test]
    fn what_is_no_bpffs_is_none() {
        assert!(!is_within_bpffs(Path::new("/proc/no/such/directory")));
        assert!(matches!(place(Path::new("/proc/bulkhead")), Place::None(_)));
    }
}
