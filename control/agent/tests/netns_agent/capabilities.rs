//! The four capabilities that the manifests give, and no other: as root, but one that may not do what root may.

use std::fs;
use std::process::Command;

use bulkhead_testkit::{Bpffs, Outcome, TcpServer, privileged};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::daemon::{FOUR_CAPABILITIES, Launch};
use crate::kubernetes::until;
use crate::probes::{LOOPBACK, get};
use crate::{CONFIGURATION, PORT, brief, connect, topology};

/// The bits of the four (linux/capability.h).
const BITS: u64 = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;

/// What the kernel says of a process's capabilities.
fn capabilities(process: u32, set: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix(set));
    let digits = line.and_then(|line| line.strip_prefix(":\t")).expect("a set");
    u64::from_str_radix(digits, 16).expect("a number")
}

#[test]
fn netns_agent_runs_with_the_four_capabilities_that_doctor_names_and_no_other() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-caps");
    let bpffs = Bpffs::mount().expect("a bpffs");
    let pins = bpffs.path().join("bulkhead").display().to_string();
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let listening = TcpServer::start(&server.namespace, server.v4_port(PORT)).expect("a server");
    let listening6 = TcpServer::start(&server.namespace, server.v6_port(PORT)).expect("a server");
    let mut daemon = Launch::new(CONFIGURATION)
        .variable("BULKHEAD_MANAGEMENT", LOOPBACK)
        .pins(&[&pins])
        .only_four_capabilities()
        .start(&topology);
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(capabilities(daemon.id(), set), BITS, "{set}");
    }

    // It enforces, answers for itself and follows its file.
    let mut held = connect(inside, listening.address());
    drop(connect(inside, listening6.address()));
    let outcome = brief(server).tcp(inside.v4_port(PORT)).expect("a socket");
    assert!(
        matches!(outcome, Outcome::Refused),
        "a reset, over a packet socket"
    );
    let (status, text) = get(&topology, "/readyz");
    assert_eq!(status, 200, "{text}");
    daemon.configure(&CONFIGURATION.replace("service: test, action: permit", "service: test, action: deny"));
    daemon.signal(Signal::SIGHUP);
    daemon.await_log("configuration reloaded");
    assert!(!held.exchange(10, 10).expect("a socket").is_answered());
    daemon.configure(CONFIGURATION);
    daemon.signal(Signal::SIGHUP);
    until("it is permitted again", || {
        brief(inside)
            .tcp(listening.address())
            .expect("a socket")
            .map(drop)
            .is_answered()
    });
    assert_eq!(get(&topology, "/readyz").0, 200);

    // What it pinned it takes over, and takes off.
    let mut held = connect(inside, listening.address());
    assert!(daemon.end(Signal::SIGTERM).success(), "{}", daemon.log());
    daemon.restart();
    held.exchange(10, 10)
        .expect("a socket")
        .answered()
        .expect("taken over");

    // And `doctor`, run as it is, says that this is enough and what each is for.
    let mut command = Command::new("setpriv");
    command
        .args(FOUR_CAPABILITIES)
        .args([env!("CARGO_BIN_EXE_bulkhead"), "doctor", "-o", "json", "--config"])
        .arg(daemon.directory.path().join("firewall.yaml"));
    let output = topology
        .firewall()
        .run(|| command.output())
        .expect("the binary runs");
    let doctor: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(output.status.success() && doctor["ok"] == true, "{doctor}");
    let check = |name: &str| {
        let checks = doctor["checks"].as_array().expect("checks");
        let found = checks.iter().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {doctor}")).clone()
    };
    for name in ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON"] {
        let check = check(name);
        let found = check["found"].as_str().expect("text");
        assert!(
            check["status"] == "ok" && found.starts_with("in effect, for "),
            "{check}"
        );
    }
    assert_eq!(check("other_capabilities")["found"], "none in effect");
}
