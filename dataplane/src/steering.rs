//! Which CPUs handle the packets that an interface receives: receive packet steering (RPS), as sysfs sets it.
//!
//! Assumes nothing of which network namespace `/sys` belongs to: it is that of whoever mounted it, so an interface of the
//! same name may be another's. Refuses to touch one whose index and address are not the interface's.

use std::{fs, io, path::PathBuf};

use crate::netlink::Link;

/// Why packets cannot be steered.
#[derive(Debug, thiserror::Error)]
pub enum SteerError {
    /// No sysfs, or that of another network namespace.
    #[error("/sys does not show the interface; mount a sysfs of this network namespace there")]
    Elsewhere,
    /// A file cannot be written.
    #[error("cannot write {}: {source}; it takes a /sys that may be written to, or somebody on the node who sets it", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The interface's queues cannot be listed.
    #[error("cannot list {}: {source}", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A set of CPUs as the kernel's masks are written: groups of eight hexadecimal digits, the highest first.
#[must_use]
pub fn mask(cpus: &[usize]) -> String {
    let words = cpus.iter().max().map_or(1, |highest| highest / 32 + 1);
    let word = |word: usize| {
        let own = cpus.iter().filter(|cpu| **cpu / 32 == word);
        own.fold(0u32, |bits, cpu| bits | 1 << (cpu % 32))
    };
    let groups: Vec<String> = (0..words)
        .rev()
        .map(|number| format!("{:08x}", word(number)))
        .collect();
    groups.join(",")
}

/// Has packets that an interface receives handled on these CPUs, whatever queue they come in on. Stays when this process
/// ends.
///
/// # Errors
/// If sysfs is not there, not this namespace's, or cannot be written.
pub fn steer(link: &Link, cpus: &[usize]) -> Result<(), SteerError> {
    let directory = PathBuf::from("/sys/class/net").join(&link.name);
    let read = |file: &str| fs::read_to_string(directory.join(file)).unwrap_or_default();
    let [a, b, c, d, e, f] = link.mac;
    let address = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}");
    if read("ifindex").trim() != link.index.to_string() || read("address").trim() != address {
        return Err(SteerError::Elsewhere);
    }
    let path = directory.join("queues");
    let list = |source| SteerError::List {
        path: path.clone(),
        source,
    };
    for queue in fs::read_dir(&path).map_err(list)? {
        let queue = queue.map_err(list)?;
        if queue.file_name().to_string_lossy().starts_with("rx-") {
            let path = queue.path().join("rps_cpus");
            fs::write(&path, mask(cpus)).map_err(|source| SteerError::Write { path, source })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_written_as_the_kernel_reads_them() {
        for (cpus, text) in [
            (&[0][..], "00000001"),
            (&[0, 2], "00000005"),
            (&[31], "80000000"),
            (&[0, 32], "00000001,00000001"),
            (&[70, 1], "00000040,00000000,00000002"),
        ] {
            assert_eq!(mask(cpus), text, "{cpus:?}");
        }
    }
}
