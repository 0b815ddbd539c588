//! Memory of this process and of the BPF maps it holds, as the kernel counts both.

use std::fs;

use anyhow::{Context as _, Result};

/// Memory of every BPF map this process has a descriptor of, bytes; a map held twice counts once.
///
/// The kernel keeps the figure up to date for maps that allocate entries as they come (`map_mem_usage`, since 6.4).
pub fn own_map_bytes() -> Result<u64> {
    let mut maps = std::collections::BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fdinfo").context("cannot list /proc/self/fdinfo")? {
        let path = entry.context("cannot list /proc/self/fdinfo")?.path();
        // A descriptor that was closed meanwhile holds nothing.
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        if let (Some(id), Some(bytes)) = (field(&text, "map_id:"), field(&text, "memlock:")) {
            maps.insert(id, bytes);
        }
    }
    Ok(maps.values().sum())
}

/// Resident memory of this process, bytes.
pub fn resident_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let kibibytes = field(&text, "VmRSS:").context("/proc/self/status has no VmRSS")?;
    Ok(kibibytes * 1024)
}

/// The number behind a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let text = "pos:\t0\nmap_type:\t1\nmemlock:\t4096\nmap_id:\t17\nVmRSS:\t  12 kB\n";
        assert_eq!(field(text, "memlock:"), Some(4096));
        assert_eq!(field(text, "map_id:"), Some(17));
        assert_eq!(field(text, "VmRSS:"), Some(12));
        assert_eq!(field(text, "frozen:"), None);
    }

    #[test]
    fn this_process_is_resident() {
        assert!(resident_bytes().expect("a process has memory") > 100_000);
    }
}
