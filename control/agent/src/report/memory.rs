//! What the firewall takes of the machine's memory.

use serde::{Deserialize, Serialize};

/// `show counters --memory`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Every table, the largest first.
    pub tables: Vec<TableMemory>,
    /// All tables together, now.
    pub tables_bytes: u64,
    /// The most that tables of the configured size can take.
    pub most_bytes: u64,
    /// What the daemon itself has in memory; 0 if the kernel does not say.
    pub daemon_bytes: u64,
}

/// What one table takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableMemory {
    /// Its name in the BPF object.
    pub name: String,
    /// Entries in it; arrays are always full.
    pub entries: u64,
    /// Entries it has room for; of a ring buffer, bytes.
    pub capacity: u64,
    /// Memory it takes now.
    pub bytes: u64,
}

impl From<bulkhead_dataplane::memory::TableMemory> for TableMemory {
    fn from(table: bulkhead_dataplane::memory::TableMemory) -> Self {
        Self {
            name: table.name,
            entries: table.entries,
            capacity: table.capacity,
            bytes: table.bytes,
        }
    }
}

/// What this process has in memory: `VmRSS` of proc_pid_status(5).
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0).saturating_mul(1_024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_has_some_memory() {
        let bytes = super::resident_bytes();
        assert!((1 << 20..1 << 40).contains(&bytes), "{bytes}");
    }
}
