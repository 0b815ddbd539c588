//! An engine in a process of its own, which can be killed: this very test binary, started again.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bulkhead_dataplane::{
    engine::{Engine, Options},
    ruleset::HookMode,
};

use super::{Lab, SIZES, builds, builds::Build, common};

/// Where the child pins; not set: this is no child.
const PINS: &str = "BULKHEAD_TEST_PINS";
/// The hook and whether there is NAT, as the child is to configure.
const RULES: &str = "BULKHEAD_TEST_RULES";
/// Set: the child loads the object of another build.
const OTHER_BUILD: &str = "BULKHEAD_TEST_OTHER_BUILD";
/// What the child says when it enforces.
const ENFORCING: &str = "enforcing";

/// A running child. Dropping it kills it.
pub struct Daemon(Child);

impl Daemon {
    /// Starts it in the firewall's namespace.
    pub fn spawn(lab: &Lab, hook: HookMode, nat: bool) -> Result<Self> {
        Self::spawn_build(lab, hook, nat, Build::This)
    }

    fn spawn_build(lab: &Lab, hook: HookMode, nat: bool, build: Build) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args([
                "--exact",
                "child::netns_restart_child",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(PINS, lab.pins())
            .env(RULES, format!("{hook:?} {nat}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if build == Build::Other {
            command.env(OTHER_BUILD, "1");
        }
        // A child stays in the namespace of the thread that made it.
        Ok(Self(lab.topology.firewall().run(|| command.spawn())?))
    }

    /// Starts it and waits until it enforces.
    pub fn start(lab: &Lab, hook: HookMode, nat: bool) -> Result<Self> {
        Self::start_build(lab, hook, nat, Build::This)
    }

    /// The same with the object of a build.
    pub fn start_build(lab: &Lab, hook: HookMode, nat: bool, build: Build) -> Result<Self> {
        let mut daemon = Self::spawn_build(lab, hook, nat, build)?;
        let output = daemon.0.stdout.take().context("its output")?;
        let said = BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .any(|line| line.contains(ENFORCING));
        ensure!(said, "the child ended: {:?}", daemon.0.wait());
        Ok(daemon)
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.0.id()
    }

    /// SIGKILL, whatever it is at.
    pub fn kill(&mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended = self.kill();
    }
}

/// The child's part; nothing when the tests are run.
#[test]
fn netns_restart_child() -> Result<()> {
    let Ok(pins) = std::env::var(PINS) else {
        return Ok(());
    };
    let rules = std::env::var(RULES)?;
    let hook = if rules.starts_with("Xdp") {
        HookMode::Xdp
    } else {
        HookMode::Auto
    };
    let options = Options {
        sizes: SIZES,
        pins: Some(pins.into()),
        object: std::env::var_os(OTHER_BUILD).map(|_| builds::other().into()),
        ..Options::default()
    };
    let _engine = Engine::start(common::ruleset(hook, rules.ends_with("true")), &options)?;
    println!("{ENFORCING}");
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}
