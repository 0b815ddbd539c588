//! The firewall between two Docker networks, set up by the very commands of `deploy/docker/README.md`.
//!
//! Owns the place of the configuration, the bpffs and the containers' addresses. What a user's machine has and the test's has
//! not is put in by [`Lab::adapted`], and nothing else: parents that exist, a bpffs of the test's own, and capabilities that
//! this Docker knows.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bulkhead_testkit::{Bpffs, Client, Namespace, Outcome, TcpConversation};
use serde_json::Value;
use tempfile::TempDir;

use crate::engine::{DEADLINE, Engine};

/// The firewall's container.
pub const FIREWALL: &str = "bulkhead";
/// Its own addresses on `external`.
pub const OUTSIDE: [&str; 2] = ["198.51.100.2", "2001:db8:51::2"];
/// The gateway of `internal`, which is the firewall.
pub const GATEWAY: [&str; 2] = ["10.77.0.1", "2001:db8:77::1"];
/// Somebody in the world.
pub const SERVER: [&str; 2] = ["198.51.100.10", "2001:db8:51::10"];
/// Somebody behind the firewall.
pub const CLIENT: [&str; 2] = ["10.77.0.10", "2001:db8:77::10"];

/// A daemon, two networks, a firewall, perhaps more.
pub struct Lab {
    pub engine: Engine,
    /// With `firewall.yaml`, as it is shipped, and `compose.yaml`.
    pub configuration: TempDir,
    bpffs: Bpffs,
}

impl Lab {
    /// A daemon with parents for two networks, and no network yet.
    pub fn new() -> Self {
        let build = || -> Result<Self> {
            let lab = Self {
                engine: Engine::start()?,
                configuration: TempDir::with_prefix("bulkhead-etc-")?,
                bpffs: Bpffs::mount()?,
            };
            for file in ["firewall.yaml", "compose.yaml"] {
                let text = lab.adapted(&shipped(file)?)?;
                fs::write(lab.configuration.path().join(file), text)?;
            }
            for parent in ["outside0", "inside0"] {
                lab.engine.parent(parent)?;
            }
            Ok(lab)
        };
        build().unwrap_or_else(|error| panic!("no lab: {error:#}"))
    }

    /// The MacVLAN networks and the firewall.
    pub fn macvlan() -> Self {
        let lab = Self::new();
        lab.run_block("MacVLAN networks");
        lab.run_block("The firewall");
        lab.await_enforcing();
        lab
    }

    /// Runs the first block of commands below a heading of the README.
    pub fn run_block(&self, heading: &str) {
        self.run_block_with(heading, |script| script);
    }

    /// The same, changed as the README says.
    pub fn run_block_with(&self, heading: &str, change: impl FnOnce(String) -> String) {
        let run = || -> Result<()> {
            let readme = shipped("README.md")?;
            let block = readme
                .split_once(&format!("## {heading}\n"))
                .and_then(|(_, rest)| rest.split_once("```sh\n")?.1.split_once("```"))
                .with_context(|| format!("the README has no commands below {heading:?}"))?
                .0;
            let script = change(self.adapted(block)?);
            let mut shell = self.engine.command("sh");
            let output = shell
                .args(["-euc", &script])
                .current_dir(self.configuration.path())
                .output()?;
            ensure!(
                output.status.success(),
                "{script}\n{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            Ok(())
        };
        run().unwrap_or_else(|error| panic!("{heading}: {error:#}"));
    }

    /// What this machine has in place of a user's.
    fn adapted(&self, text: &str) -> Result<String> {
        let bpffs = format!("{}:/sys/fs/bpf", self.bpffs.path().display());
        let mut text = text
            .replace("outside=eth1 inside=eth2", "outside=outside0 inside=inside0")
            .replace("/sys/fs/bpf:/sys/fs/bpf", &bpffs);
        let version = self.engine.version()?;
        let major: u32 = version.split('.').next().unwrap_or_default().parse().unwrap_or(0);
        if major < 23 {
            text = text
                .replace("--cap-add BPF --cap-add PERFMON", "--cap-add SYS_ADMIN")
                .replace("BPF, PERFMON]", "SYS_ADMIN]");
        }
        Ok(text)
    }

    /// Waits until the firewall says that it enforces.
    pub fn await_enforcing(&self) {
        let deadline = Instant::now() + DEADLINE;
        while self.show(&["show", "interfaces"]).is_err() {
            assert!(
                Instant::now() < deadline,
                "the firewall does not enforce:\n{}",
                self.engine.log_of(FIREWALL)
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What a command of the firewall's says, as JSON.
    pub fn show(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = vec!["exec", FIREWALL, "bulkhead"];
        command.extend(arguments);
        command.extend(["--output", "json"]);
        let text = self.engine.docker(&command)?;
        serde_json::from_str(&text).with_context(|| format!("{arguments:?}: no JSON: {text}"))
    }

    /// A container in the world and one behind the firewall.
    pub fn hosts(&self) -> [Namespace; 2] {
        let hold = |name, network, addresses: &[&str]| {
            let host = self.engine.hold(name, network, addresses);
            host.unwrap_or_else(|error| panic!("{name}: {error:#}"))
        };
        let hosts = [
            hold("server", "external", &SERVER),
            hold("client", "internal", &CLIENT),
        ];
        let firewall = self
            .engine
            .namespace_of(FIREWALL)
            .unwrap_or_else(|error| panic!("{error:#}"));
        for host in hosts.iter().chain([&firewall]) {
            await_addresses(host).unwrap_or_else(|error| panic!("{}: {error:#}", host.name()));
        }
        hosts
    }
}

/// Addresses of IPv6 are of no use before duplicates were looked for.
fn await_addresses(host: &Namespace) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    while fs_in(host, "/proc/thread-self/net/if_inet6")?
        .lines()
        .any(|line| {
            // Flags: IFA_F_TENTATIVE.
            let flags = line.split_whitespace().nth(4).unwrap_or_default();
            u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & 0x40 != 0)
        })
    {
        ensure!(Instant::now() < deadline, "an address stays tentative");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn fs_in(host: &Namespace, path: &str) -> Result<String> {
    host.run(|| fs::read_to_string(path))
        .with_context(|| format!("cannot read {path}"))
}

/// A file of `deploy/docker`.
pub fn shipped(name: &str) -> Result<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../docker")
        .join(name);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// An address of text.
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no address"))
}

/// A conversation that must begin.
#[track_caller]
pub fn connect(client: &Namespace, to: &str, port: u16) -> TcpConversation {
    let to = SocketAddr::new(ip(to), port);
    // Patient: TCP asks again ever more seldom while a firewall is away.
    let outcome = Client::new(client).timeout(DEADLINE).tcp(to);
    outcome
        .and_then(Outcome::answered)
        .unwrap_or_else(|error| panic!("{} to {to}: {error:#}", client.name()))
}

/// A conversation that must not.
#[track_caller]
pub fn refused(client: &Namespace, to: &str, port: u16) {
    let to = SocketAddr::new(ip(to), port);
    let outcome = Client::new(client)
        .timeout(Duration::from_millis(700))
        .tcp(to)
        .expect("a socket");
    assert!(
        matches!(outcome, Outcome::TimedOut),
        "{} to {to}: {}",
        client.name(),
        outcome.describe()
    );
}

/// Runs `ip` in a namespace.
pub fn ip_in(host: &Namespace, arguments: &[&str]) -> Result<()> {
    let status = host.run(|| std::process::Command::new("ip").args(arguments).status());
    if !status.context("cannot run ip")?.success() {
        bail!("ip {} failed in {}", arguments.join(" "), host.name());
    }
    Ok(())
}

/// A line of `/proc/PROCESS/status`.
pub fn status_of(process: u32, field: &str) -> Result<String> {
    let path = Path::new("/proc").join(process.to_string()).join("status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(line
        .with_context(|| format!("{}: no {field}", path.display()))?
        .trim()
        .to_owned())
}
