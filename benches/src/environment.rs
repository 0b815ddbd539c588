//! What the figures were measured on and with.

use std::fs;
use std::process::Command;

use serde::Serialize;

/// The machine, the kernel, the tools, the commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Environment {
    /// UTC, RFC 3339.
    pub date: String,
    /// Commit of the source tree, `-dirty` if it had changes.
    pub commit: String,
    /// Kernel release.
    pub kernel: String,
    /// Processor model.
    pub cpu: String,
    /// Processors that may be used.
    pub cpus: usize,
    /// How the kernel answers Spectre v2: indirect calls are what a network stack is made of.
    pub spectre_v2: String,
    /// Load average over a minute when the run began; others on the machine are noise.
    pub load: String,
    /// `nft --version`.
    pub nftables: String,
    /// First line of `ipset --version`.
    pub ipset: String,
    /// Version of this program.
    pub bulkhead: &'static str,
}

impl Environment {
    /// Looks around. What cannot be told is told as "unknown".
    #[must_use]
    pub fn look() -> Self {
        let directory = env!("CARGO_MANIFEST_DIR");
        Self {
            date: output("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
            commit: output(
                "git",
                &["-C", directory, "describe", "--always", "--dirty", "--abbrev=12"],
            ),
            kernel: file("/proc/sys/kernel/osrelease"),
            cpu: model(&file("/proc/cpuinfo")),
            cpus: crate::cpu::count(),
            spectre_v2: file("/sys/devices/system/cpu/vulnerabilities/spectre_v2"),
            load: file("/proc/loadavg")
                .split(' ')
                .next()
                .unwrap_or("unknown")
                .to_owned(),
            nftables: output("nft", &["--version"]),
            ipset: output("ipset", &["--version"])
                .lines()
                .next()
                .unwrap_or("unknown")
                .to_owned(),
            bulkhead: env!("CARGO_PKG_VERSION"),
        }
    }
}

fn file(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn output(program: &str, arguments: &[&str]) -> String {
    Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success())
        .map_or_else(
            || "unknown".to_owned(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        )
}

fn model(cpuinfo: &str) -> String {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == "model name")
        .map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_model_is_found_or_unknown() {
        assert_eq!(
            model("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nflags\t: fpu\n"),
            "Some CPU @ 3 GHz"
        );
        assert_eq!(model("processor\t: 0\n"), "unknown");
    }
}
