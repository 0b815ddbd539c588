//! A daemon that pins: stopped, killed, started again, taken off.

use std::process::Command;

use bulkhead_testkit::{Bpffs, CountingStream, Outcome, TcpServer, Topology, privileged};
use nix::sys::signal::Signal;

use crate::daemon::Daemon;
use crate::{CONFIGURATION, PORT, brief, connect, topology};

/// The configuration with a UDP service beside the TCP one.
fn configuration() -> String {
    CONFIGURATION.replace("tcp: 7000 }]", "tcp: 7000, udp: 7001 }]")
}

/// Where the daemon pins.
fn pins(bpffs: &Bpffs) -> String {
    bpffs.path().join("bulkhead").display().to_string()
}

/// Streams to the servers and, translated, to the world, in both families.
fn counting(topology: &Topology) -> Vec<CountingStream> {
    let inside = topology.host("inside");
    ["server", "world"]
        .map(|name| topology.host(name))
        .into_iter()
        .flat_map(|host| host.addresses().map(|address| (host, (address, 7001).into())))
        .map(|(host, to)| CountingStream::start(&inside.namespace, &host.namespace, to).expect("a stream"))
        .collect()
}

#[track_caller]
fn detach(topology: &Topology, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    command.arg("detach").args(arguments);
    let output = topology
        .firewall()
        .run(|| command.output())
        .expect("the binary runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).expect("text"))
}

#[test]
fn netns_agent_pinned_stopped_or_killed_goes_on_and_is_taken_over() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-pin");
    let bpffs = Bpffs::mount().expect("a bpffs");
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let listening = TcpServer::start(&server.namespace, server.v4_port(PORT)).expect("a server");
    let mut daemon = Daemon::start_pinned(&topology, &configuration(), &[&pins(&bpffs)]);
    let streams = counting(&topology);
    let mut held = connect(inside, listening.address());
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGKILL] {
        let status = daemon.end(signal);
        assert_eq!(
            status.code(),
            (signal == Signal::SIGTERM).then_some(0),
            "{status}\n{}",
            daemon.log()
        );
        if signal == Signal::SIGTERM {
            assert!(
                daemon.log().contains("what is enforced goes on"),
                "{}",
                daemon.log()
            );
        }
        held.exchange(10, 10)
            .expect("a socket")
            .answered()
            .expect("what is old goes on");
        drop(connect(inside, listening.address()));
        let outcome = brief(server)
            .tcp(inside.v4_port(PORT))
            .expect("a socket")
            .map(drop);
        assert!(!outcome.is_answered(), "what is denied stays denied");
        streams
            .iter()
            .for_each(|stream| stream.advance(50).expect("it goes on"));
        daemon.restart();
        held.exchange(10, 10)
            .expect("a socket")
            .answered()
            .expect("taken over");
        let sessions = daemon.json(&["show", "sessions", "--policy", "use-servers"]);
        assert!(sessions["total"].as_u64() >= Some(1), "{sessions}");
    }
    for stream in streams {
        let to = stream.server();
        let count = stream.finish();
        assert!(count.is_whole(), "{to}: {count:?}");
    }

    // Nobody takes off what a daemon holds.
    let (status, said) = detach(&topology, &["--pins", &pins(&bpffs)]);
    assert!(status == Some(1) && said.contains("is held by process"), "{said}");

    // Taken off, and closed until somebody opens.
    daemon.end(Signal::SIGTERM);
    let (status, said) = detach(&topology, &["--pins", &pins(&bpffs)]);
    assert!(
        status == Some(0)
            && said.starts_with("test: 6 programs taken off")
            && said.contains("net1, net2, net3"),
        "{said}"
    );
    let outcome = brief(inside)
        .tcp(listening.address())
        .expect("a socket")
        .map(drop);
    assert_eq!(outcome, Outcome::TimedOut, "fails closed");
    assert_eq!(daemon.blackhole_rules().len(), 6);
    let (status, said) = detach(&topology, &["--pins", &pins(&bpffs), "--open"]);
    assert!(
        status == Some(0) && said.contains("removed the fail-closed rules of net1, net2, net3"),
        "{said}"
    );
    assert_eq!(daemon.blackhole_rules(), []);
    // The kernel of this topology forwards if it is let.
    drop(connect(inside, listening.address()));
}

/// A rolling update over another version of the tables: whoever reads the log knows before the switch what it costs.
#[test]
fn netns_agent_says_which_sessions_another_version_will_drop_before_it_does() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-pinv");
    let bpffs = Bpffs::mount().expect("a bpffs");
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let listening = TcpServer::start(&server.namespace, server.v4_port(PORT)).expect("a server");
    let listening6 = TcpServer::start(&server.namespace, server.v6_port(PORT)).expect("a server");
    let mut daemon = Daemon::start_pinned(&topology, CONFIGURATION, &[&pins(&bpffs)]);
    let mut held = [
        connect(inside, listening.address()),
        connect(inside, listening.address()),
        connect(inside, listening6.address()),
    ];
    let sessions = daemon.json(&["show", "sessions"])["total"].as_u64();
    assert_eq!(sessions, Some(3));
    assert!(daemon.end(Signal::SIGTERM).success(), "{}", daemon.log());
    // What a version after this one would have left.
    let instance = bpffs.path().join("bulkhead/test");
    let own = instance.join(format!("v{}", bulkhead_abi::ABI_VERSION));
    let other = instance.join(format!("v{}", bulkhead_abi::ABI_VERSION + 1));
    std::fs::rename(&own, &other).expect("pinned tables");
    daemon.restart();
    let log = daemon.log();
    let at = |what: &str| {
        let found = log.lines().position(|line| line.contains(what));
        found.unwrap_or_else(|| panic!("{what:?} is not in the log:\n{log}"))
    };
    let told = at(
        "the tables of another version cannot be taken over: their sessions end when this version is in force",
    );
    let line = log.lines().nth(told).expect("the line");
    assert!(
        line.contains("WARN") && line.contains("sessions=3") && line.contains(&other.display().to_string()),
        "{line}"
    );
    assert!(told < at("enforcing"), "{log}");
    // And so it is: gone, and what is new is permitted.
    assert!(!other.exists() && own.exists());
    for held in &mut held {
        assert!(!held.exchange(10, 10).expect("a socket").is_answered());
    }
    drop(connect(inside, listening.address()));

    // Tables of this version that are laid out otherwise: the same, with their names.
    let held = connect(inside, listening6.address());
    let sessions = daemon.json(&["show", "sessions"])["total"]
        .as_u64()
        .expect("a number");
    assert!(daemon.end(Signal::SIGTERM).success(), "{}", daemon.log());
    std::fs::rename(own.join("LIMITS"), own.join("MAPPINGS_INSIDE")).expect("pinned tables");
    daemon.restart();
    let log = daemon.log();
    let at = |what: &str| log.lines().position(|line| line.contains(what));
    let told =
        at("tables of another layout cannot be taken over: their sessions end when this load is in force");
    assert!(told.is_some() && told < at("enforcing"), "{log}");
    let line = told.and_then(|told| log.lines().nth(told)).expect("the line");
    assert!(
        line.contains("WARN")
            && line.contains("MAPPINGS_INSIDE")
            && line.contains(&format!("sessions={sessions}")),
        "{sessions}: {line}"
    );
    drop(held);
    drop(connect(inside, listening.address()));
}

#[test]
fn netns_agent_on_exit_detach_takes_everything_off() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-pinx");
    let bpffs = Bpffs::mount().expect("a bpffs");
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let listening = TcpServer::start(&server.namespace, server.v4_port(PORT)).expect("a server");
    let mut daemon = Daemon::start_pinned(&topology, CONFIGURATION, &[&pins(&bpffs), "--on-exit", "detach"]);
    drop(connect(inside, listening.address()));
    // A second one of this name is told who is first.
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    command
        .arg("run")
        .arg("--config")
        .arg(daemon.directory.path().join("firewall.yaml"))
        .arg("--socket")
        .arg(daemon.directory.path().join("run/second.sock"))
        .args(["--pins", &pins(&bpffs)]);
    let output = topology
        .firewall()
        .run(|| command.output())
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.code() == Some(1) && said.contains("is held by process"),
        "{said}"
    );
    drop(connect(inside, listening.address()));

    daemon.end(Signal::SIGTERM);
    assert!(!bpffs.path().join("bulkhead/test").exists(), "{}", daemon.log());
    let outcome = brief(inside)
        .tcp(listening.address())
        .expect("a socket")
        .map(drop);
    assert_eq!(outcome, Outcome::TimedOut, "fails closed");
}
