//! The kernel's own counters in a namespace, under the names that `nstat` prints.

use std::fs;

use anyhow::{Context as _, Result};

use crate::delta::Counters;
use crate::namespace::Namespace;

/// What `/proc/net/{snmp,netstat,snmp6}` said at one moment: `TcpInCsumErrors`, `UdpInErrors`,
/// `IpForwDatagrams`, `TcpExtTCPTimeouts`, `Ip6InReceives`, ...
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KernelCounters(Counters);

impl KernelCounters {
    /// Reads the counters of a namespace.
    pub fn snapshot(namespace: &Namespace) -> Result<Self> {
        let read = |file: &str| {
            // Not /proc/net: that is the main thread's namespace.
            let path = format!("/proc/thread-self/net/{file}");
            fs::read_to_string(&path).with_context(|| format!("cannot read {path} in {}", namespace.name()))
        };
        let (snmp, netstat, snmp6) = namespace.run(|| (read("snmp"), read("netstat"), read("snmp6")));
        let mut counters = Counters::new();
        paired(&snmp?, &mut counters);
        paired(&netstat?, &mut counters);
        // A kernel without IPv6 has no such file.
        listed(&snmp6.unwrap_or_default(), &mut counters);
        Ok(Self(counters))
    }

    /// The value of a counter; 0 for one that this kernel does not have.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// How much a counter has grown since `before`.
    pub fn since(&self, before: &Self, name: &str) -> u64 {
        self.get(name).wrapping_sub(before.get(name))
    }

    /// All counters that have grown since `before`, with how much.
    pub fn delta(&self, before: &Self) -> Counters {
        let grown = self
            .0
            .iter()
            .map(|(name, value)| (name.clone(), value.wrapping_sub(before.get(name))));
        grown.filter(|(_, by)| *by != 0).collect()
    }

    /// Those of the checksum errors that have grown since `before`, any protocol, any family.
    pub fn checksum_errors(&self, before: &Self) -> Counters {
        let mut delta = self.delta(before);
        delta.retain(|name, _| name.ends_with("CsumErrors"));
        delta
    }
}

/// `Tcp: A B` over `Tcp: 1 2`.
fn paired(text: &str, counters: &mut Counters) {
    let lines: Vec<&str> = text.lines().collect();
    for pair in lines.chunks_exact(2) {
        let (Some((prefix, names)), Some((_, values))) = (pair[0].split_once(": "), pair[1].split_once(": "))
        else {
            continue;
        };
        for (name, value) in names.split_whitespace().zip(values.split_whitespace()) {
            // MaxConn is -1 where there is no limit: not a counter.
            if let Ok(value) = value.parse() {
                counters.insert(format!("{prefix}{name}"), value);
            }
        }
    }
}

/// `Name value`.
fn listed(text: &str, counters: &mut Counters) {
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(Ok(value))) = (words.next(), words.next().map(str::parse)) {
            counters.insert(name.to_owned(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_file_formats_are_read() {
        let mut counters = Counters::new();
        paired(
            "Tcp: MaxConn InCsumErrors\nTcp: -1 3\nUdp: InErrors\nUdp: 4\n",
            &mut counters,
        );
        listed("Ip6InReceives                   \t59\n", &mut counters);
        let expected = [("TcpInCsumErrors", 3), ("UdpInErrors", 4), ("Ip6InReceives", 59)];
        assert_eq!(
            counters,
            expected.map(|(name, value)| (name.to_owned(), value)).into()
        );
    }
}
