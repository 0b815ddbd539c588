//! The daemon under test: started as a user starts it, asked as a user asks it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use bulkhead_dataplane::netlink::BlackholeRule;
use bulkhead_testkit::{Namespace, Topology};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::CONFIGURATION;

/// Patience with what should take milliseconds; already more than a slow machine needs.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A daemon and its private directory. Dropping it kills it.
pub struct Daemon<'t> {
    namespace: &'t Namespace,
    how: How,
    process: Child,
    pub directory: tempfile::TempDir,
}

/// What a daemon is started with besides its files.
#[derive(Clone, Debug)]
struct How {
    /// Whether its configuration is a file.
    file: bool,
    /// `--pins` and what follows it.
    pins: Vec<String>,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    /// Whether `/sys` is a sysfs of the daemon's own network namespace.
    own_sysfs: bool,
    /// Whether it has the capabilities that the manifests give, and no other.
    four_capabilities: bool,
}

/// What `setpriv` is told: those four, and no way to others.
pub const FOUR_CAPABILITIES: [&str; 5] = [
    "--bounding-set",
    "-all,+net_admin,+net_raw,+bpf,+perfmon",
    "--inh-caps",
    "-all,+net_admin,+net_raw,+bpf,+perfmon",
    "--no-new-privs",
];

/// A daemon about to be started, with more than a configuration.
pub struct Launch {
    configuration: String,
    how: How,
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl Launch {
    pub fn new(configuration: &str) -> Self {
        Self {
            configuration: configuration.to_owned(),
            how: How {
                file: true,
                pins: owned(&["none"]),
                arguments: Vec::new(),
                variables: Vec::new(),
                own_sysfs: false,
                four_capabilities: false,
            },
        }
    }

    /// One that is told elsewhere where its configuration is.
    pub fn without_file() -> Self {
        let mut launch = Self::new("");
        launch.how.file = false;
        launch
    }

    pub fn pins(mut self, pins: &[&str]) -> Self {
        self.how.pins = owned(pins);
        self
    }

    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.how.arguments = owned(arguments);
        self
    }

    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.how.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn own_sysfs(mut self) -> Self {
        self.how.own_sysfs = true;
        self
    }

    pub fn only_four_capabilities(mut self) -> Self {
        self.how.four_capabilities = true;
        self
    }

    /// Starts it and waits until it enforces.
    pub fn start(self, topology: &Topology) -> Daemon<'_> {
        let mut daemon = self.begin(topology);
        daemon.await_ready();
        daemon
    }

    /// Starts it.
    pub fn begin(self, topology: &Topology) -> Daemon<'_> {
        self.begin_in(topology.firewall())
    }

    /// Starts it where there is no topology around.
    pub fn begin_in(self, namespace: &Namespace) -> Daemon<'_> {
        let directory = tempfile::tempdir().expect("a directory");
        Daemon::begin(namespace, &self.configuration, directory, self.how)
    }
}

impl<'t> Daemon<'t> {
    pub fn start(topology: &'t Topology) -> Self {
        Self::start_with(topology, CONFIGURATION)
    }

    pub fn start_with(topology: &'t Topology, configuration: &str) -> Self {
        Self::start_in(topology, configuration, tempfile::tempdir().expect("a directory"))
    }

    /// In a directory that its caller has prepared.
    pub fn start_in(topology: &'t Topology, configuration: &str, directory: tempfile::TempDir) -> Self {
        Self::start_as(topology, configuration, directory, &["none"])
    }

    /// `pins`: what is to follow `--pins`.
    pub fn start_pinned(topology: &'t Topology, configuration: &str, pins: &[&str]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        Self::start_as(topology, configuration, directory, pins)
    }

    fn start_as(
        topology: &'t Topology,
        configuration: &str,
        directory: tempfile::TempDir,
        pins: &[&str],
    ) -> Self {
        let how = How {
            file: true,
            pins: owned(pins),
            arguments: Vec::new(),
            variables: Vec::new(),
            own_sysfs: false,
            four_capabilities: false,
        };
        let mut daemon = Self::begin(topology.firewall(), configuration, directory, how);
        daemon.await_ready();
        daemon
    }

    fn begin(namespace: &'t Namespace, configuration: &str, directory: tempfile::TempDir, how: How) -> Self {
        fs::write(directory.path().join("firewall.yaml"), configuration).expect("a file");
        let process = spawn(namespace, &directory, &how);
        Self {
            namespace,
            how,
            process,
            directory,
        }
    }

    pub fn restart(&mut self) {
        self.begin_again();
        self.await_ready();
    }

    pub fn begin_again(&mut self) {
        self.process = spawn(self.namespace, &self.directory, &self.how);
    }

    /// Removes a file of the state directory.
    pub fn forget(&self, file: &str) {
        fs::remove_file(self.directory.path().join("state").join(file)).expect("a file");
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Whether the process that was started last has not ended.
    pub fn runs(&mut self) -> bool {
        self.process.try_wait().expect("a child").is_none()
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.process.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon goes on:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn await_ready(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        while !self.log().contains("enforcing") {
            if let Some(status) = self.process.try_wait().expect("a child") {
                panic!("the daemon ended with {status}:\n{}", self.log());
            }
            assert!(
                Instant::now() < deadline,
                "the daemon is not ready:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("run/bulkhead.sock")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).expect("a log")
    }

    pub fn await_log(&self, what: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.log().contains(what) {
            assert!(
                Instant::now() < deadline,
                "{what:?} is not in the log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn configure(&self, text: &str) {
        fs::write(self.directory.path().join("firewall.yaml"), text).expect("a file");
    }

    pub fn signal(&self, signal: Signal) {
        let process = Pid::from_raw(i32::try_from(self.process.id()).expect("a process number"));
        kill(process, signal).expect("a signal");
    }

    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.process.wait().expect("a child")
    }

    /// Runs the command line against this daemon.
    pub fn command(&self, arguments: &[&str]) -> Output {
        let socket = self.socket();
        Command::new(env!("CARGO_BIN_EXE_bulkhead"))
            .args(arguments)
            .args(["--socket", socket.to_str().expect("text")])
            .output()
            .expect("the binary runs")
    }

    #[track_caller]
    pub fn text(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{arguments:?}: {errors}\nthe daemon's log:\n{}",
            self.log()
        );
        String::from_utf8(output.stdout).expect("text")
    }

    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in\n{text}"))
    }

    pub fn blackhole_rules(&self) -> Vec<BlackholeRule> {
        self.namespace
            .netlink()
            .expect("netlink")
            .blackhole_rules()
            .expect("rules")
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(namespace: &Namespace, directory: &tempfile::TempDir, how: &How) -> Child {
    let log = File::create(directory.path().join("log")).expect("a log");
    const BINARY: &str = env!("CARGO_BIN_EXE_bulkhead");
    let mut command = if how.own_sysfs {
        let mut command = Command::new("unshare");
        let script = "mount -t sysfs sysfs /sys && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script, "sh", BINARY]);
        command
    } else if how.four_capabilities {
        let mut command = Command::new("setpriv");
        command.args(FOUR_CAPABILITIES).arg(BINARY);
        command
    } else {
        Command::new(BINARY)
    };
    command.arg("run");
    if how.file {
        command
            .arg("--config")
            .arg(directory.path().join("firewall.yaml"));
    }
    command
        .arg("--socket")
        .arg(directory.path().join("run/bulkhead.sock"))
        .arg("--state")
        .arg(directory.path().join("state"))
        .arg("--pins")
        .args(&how.pins)
        .args(&how.arguments)
        .envs(how.variables.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    // A child stays in the namespace of the thread that made it.
    namespace.run(|| command.spawn()).expect("the binary runs")
}
