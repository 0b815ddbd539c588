//! A Docker daemon of the test's own: its directories, its socket, its network namespace.
//!
//! Owns the daemon, every container and network in it, and ends them all, also when a test panics. Assumes root and Debian's
//! `docker.io`. Touches no other daemon: neither its socket nor its images, and no packet filter; MacVLAN parents and bridges
//! are made in a network namespace that goes with the value.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bulkhead_testkit::Namespace;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Patience with what should take seconds at most.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The image whose containers only hold a network.
pub const HOLD: &str = "hold";

/// A running daemon.
pub struct Engine {
    directory: TempDir,
    namespace: Namespace,
    daemon: Child,
}

impl Engine {
    /// Starts a daemon, and loads the firewall's image and the one that holds networks.
    pub fn start() -> Result<Self> {
        let image = given("BULKHEAD_IMAGE")?;
        let hold = given("BULKHEAD_E2E_HOLD")?;
        let directory = TempDir::with_prefix("bulkhead-docker-").context("cannot make a directory")?;
        let namespace = Namespace::new("bht-docker")?;
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("client")).context("cannot make a directory")?;
        // Not the machine's, which may say anything.
        fs::write(at("daemon.json"), "{}").context("cannot write the daemon's configuration")?;
        let log = File::create(at("log")).context("cannot make a log")?;
        let mut command = Command::new("dockerd");
        for (option, name) in [
            ("--config-file", "daemon.json"),
            ("--data-root", "data"),
            ("--exec-root", "exec"),
            ("--pidfile", "pid"),
        ] {
            command.arg(option).arg(at(name));
        }
        command
            .arg(format!("--host=unix://{}", at("docker.sock").display()))
            // No packet filter, no bridge, no forwarding: what passes between containers, the firewall has passed on.
            .args([
                "--iptables=false",
                "--ip-forward=false",
                "--ip-masq=false",
                "--bridge=none",
            ])
            .args(["--userland-proxy=false", "--log-level=warn"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("cannot share the log")?)
            .stderr(log);
        let daemon = namespace
            .run(|| command.spawn())
            .context("cannot start dockerd; `cargo xtask setup` installs it")?;
        let engine = Self {
            directory,
            namespace,
            daemon,
        };
        engine.await_ready()?;
        engine.docker(&["load", "--quiet", "--input", &image])?;
        engine.import(&hold)?;
        Ok(engine)
    }

    fn await_ready(&self) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while !self.try_docker(&["version"])?.status.success() {
            ensure!(
                Instant::now() < deadline && self.is_running(),
                "dockerd does not answer:\n{}",
                fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn is_running(&self) -> bool {
        let state = fs::read_to_string(format!("/proc/{}/stat", self.daemon.id())).unwrap_or_default();
        // Behind the name, which is in brackets; Z is one that nobody has waited for.
        state
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    /// Makes an image of one static program.
    fn import(&self, program: &str) -> Result<()> {
        let root = self.directory.path().join("hold");
        fs::create_dir(&root).context("cannot make a directory")?;
        fs::copy(program, root.join("hold")).with_context(|| format!("cannot copy {program}"))?;
        let archive = self.directory.path().join("hold.tar");
        let packed = Command::new("tar")
            .arg("-C")
            .arg(&root)
            .arg("-cf")
            .arg(&archive)
            .arg("hold")
            .status();
        ensure!(packed.context("cannot run tar")?.success(), "tar failed");
        let archive = archive.display().to_string();
        self.docker(&["import", "--change", "ENTRYPOINT [\"/hold\"]", &archive, HOLD])?;
        Ok(())
    }

    /// A program with this daemon as its Docker.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        for name in [
            "DOCKER_CONTEXT",
            "DOCKER_TLS_VERIFY",
            "COMPOSE_FILE",
            "COMPOSE_PROJECT_NAME",
        ] {
            command.env_remove(name);
        }
        command
            .env(
                "DOCKER_HOST",
                format!("unix://{}", self.directory.path().join("docker.sock").display()),
            )
            .env("DOCKER_CONFIG", self.directory.path().join("client"))
            .stdin(Stdio::null());
        command
    }

    /// What `docker` says, whatever it is.
    pub fn try_docker(&self, arguments: &[&str]) -> Result<Output> {
        self.command("docker")
            .args(arguments)
            .output()
            .context("cannot run docker")
    }

    /// What `docker` prints; it must succeed.
    pub fn docker(&self, arguments: &[&str]) -> Result<String> {
        let output = self.try_docker(arguments)?;
        if !output.status.success() {
            bail!(
                "docker {}: {}{}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// The daemon's version.
    pub fn version(&self) -> Result<String> {
        self.docker(&["version", "--format", "{{.Server.Version}}"])
    }

    /// An interface that can be the parent of a MacVLAN network: a cable with nobody at its other end.
    pub fn parent(&self, name: &str) -> Result<()> {
        let far = format!("{name}-far");
        for arguments in [
            ["link", "add", name, "type", "veth", "peer", "name", &far].as_slice(),
            &["link", "set", name, "up"],
            &["link", "set", &far, "up"],
        ] {
            let done = self.namespace.run(|| Command::new("ip").args(arguments).status());
            ensure!(
                done.context("cannot run ip")?.success(),
                "ip {} failed",
                arguments.join(" ")
            );
        }
        Ok(())
    }

    /// Starts a container that holds these addresses on a network, and returns its network namespace.
    pub fn hold(&self, name: &str, network: &str, addresses: &[&str]) -> Result<Namespace> {
        let mut run = vec![
            "run",
            "--detach",
            "--name",
            name,
            "--network",
            network,
            "--cap-drop",
            "ALL",
        ];
        for address in addresses {
            run.extend([if address.contains(':') { "--ip6" } else { "--ip" }, address]);
        }
        run.push(HOLD);
        self.docker(&run)?;
        self.namespace_of(name)
    }

    /// A running container's first process.
    pub fn process_of(&self, name: &str) -> Result<u32> {
        let process = self.docker(&["inspect", "--format", "{{.State.Pid}}", name])?;
        let process = process
            .parse()
            .with_context(|| format!("{name}: process {process:?}"))?;
        ensure!(process != 0, "{name} does not run:\n{}", self.log_of(name));
        Ok(process)
    }

    /// A running container's network namespace.
    pub fn namespace_of(&self, name: &str) -> Result<Namespace> {
        Namespace::of_process(self.process_of(name)?)
    }

    /// What a container has written.
    pub fn log_of(&self, name: &str) -> String {
        self.try_docker(&["logs", name]).map_or_else(
            |error| error.to_string(),
            |output| String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    }

    fn end(&mut self) -> Result<()> {
        let containers = self.docker(&["ps", "--all", "--quiet"])?;
        let mut remove = vec!["rm", "--force", "--volumes"];
        remove.extend(containers.lines());
        if remove.len() > 3 {
            self.docker(&remove)?;
        }
        let process = Pid::from_raw(i32::try_from(self.daemon.id()).context("no process number")?);
        kill(process, Signal::SIGTERM).context("cannot end dockerd")?;
        let deadline = Instant::now() + DEADLINE;
        while self
            .daemon
            .try_wait()
            .context("cannot wait for dockerd")?
            .is_none()
        {
            ensure!(Instant::now() < deadline, "dockerd does not end");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
            let _gone = self.daemon.kill();
            let _gone = self.daemon.wait();
        }
        for mount in mounts_below(self.directory.path()) {
            let _gone = umount2(&mount, MntFlags::MNT_DETACH);
        }
    }
}

/// Deepest first.
fn mounts_below(directory: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .map(PathBuf::from);
    let mut below: Vec<_> = points.filter(|point| point.starts_with(directory)).collect();
    below.sort();
    below.reverse();
    below
}

/// A file that `cargo xtask test --tier docker` has built.
pub fn given(variable: &str) -> Result<String> {
    std::env::var(variable).with_context(|| {
        format!(
            "{variable} is not set: `cargo xtask test --tier docker` builds the image and says where it is"
        )
    })
}
