//! Reloading, dying, starting again, starting twice: what a daemon owes when things go wrong.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use bulkhead_dataplane::link::has_tcx;
use bulkhead_testkit::{Outcome, TcpConversation, TcpServer, privileged};
use nix::sys::signal::Signal;

use crate::daemon::{DEADLINE, Daemon};
use crate::{CONFIGURATION, PORT, brief, connect, topology};

#[test]
fn netns_agent_reload_changes_what_is_permitted_and_a_bad_file_changes_nothing() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-hup");
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let listening = TcpServer::start(&server.namespace, server.v4_port(PORT)).expect("a server");
    let daemon = Daemon::start(&topology);
    let mut held = connect(inside, listening.address());
    let generation = || {
        daemon.json(&["show", "interfaces"])["generation"]
            .as_u64()
            .expect("a number")
    };
    assert_eq!(generation(), 1);

    // Wrong: refused, with the place, and what is open stays open.
    daemon.configure(&CONFIGURATION.replace("destination: farm", "destination: fram"));
    daemon.signal(Signal::SIGHUP);
    daemon.await_log("reload refused");
    let log = daemon.log();
    assert!(
        log.contains("configuration refused") && log.contains("did you mean \\\"farm\\\"?"),
        "{log}"
    );
    assert_eq!(generation(), 1);
    held.exchange(10, 10)
        .expect("a socket")
        .answered()
        .expect("an exchange");
    drop(connect(inside, listening.address()));

    // An interface that does not exist: the same.
    daemon.configure(&CONFIGURATION.replace("name: net3", "name: net33"));
    daemon.signal(Signal::SIGHUP);
    daemon.await_log("net33");
    assert_eq!(generation(), 1);

    // Good, and without the permission: new conversations are denied, and the open one carries nothing more.
    daemon.configure(&CONFIGURATION.replace("service: test, action: permit", "service: test, action: deny"));
    daemon.signal(Signal::SIGHUP);
    daemon.await_log("configuration reloaded");
    assert_eq!(generation(), 2);
    assert_eq!(
        brief(inside)
            .tcp(listening.address())
            .expect("a socket")
            .map(drop),
        Outcome::TimedOut
    );
    let outcome = held.exchange(10, 10).expect("a socket");
    assert!(
        !outcome.is_answered(),
        "a live session is judged by the policy in force"
    );
    assert_eq!(
        daemon.json(&["show", "policies"])["policies"][0]["action"],
        "deny"
    );

    // And back.
    daemon.configure(CONFIGURATION);
    daemon.signal(Signal::SIGHUP);
    let deadline = Instant::now() + DEADLINE;
    while generation() != 3 {
        assert!(Instant::now() < deadline, "{}", daemon.log());
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(connect(inside, listening.address()));
}

#[test]
fn netns_agent_killed_or_stopped_forwards_nothing_and_starts_again() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-kill");
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let servers: Vec<TcpServer> = server
        .addresses()
        .map(|address| TcpServer::start(&server.namespace, (address, PORT).into()).expect("a server"))
        .into();
    // Without a firewall this kernel forwards: the test would otherwise prove nothing.
    servers
        .iter()
        .for_each(|listening| drop(connect(inside, listening.address())));

    let mut daemon = Daemon::start(&topology);
    let rules = daemon.blackhole_rules();
    assert_eq!(rules.len(), 6, "one per interface and family: {rules:?}");
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let mut held: Vec<TcpConversation> = servers
            .iter()
            .map(|listening| connect(inside, listening.address()))
            .collect();
        let status = daemon.end(signal);
        assert_eq!(
            status.code(),
            (signal == Signal::SIGTERM).then_some(0),
            "{status}\n{}",
            daemon.log()
        );
        assert_eq!(
            daemon.socket().exists(),
            signal == Signal::SIGKILL,
            "a stopped daemon takes its socket along"
        );
        assert_eq!(daemon.blackhole_rules(), rules);
        for (listening, held) in servers.iter().zip(&mut held) {
            let outcome = brief(inside)
                .tcp(listening.address())
                .expect("a socket")
                .map(drop);
            assert_eq!(outcome, Outcome::TimedOut, "nothing new is forwarded");
            // A link ends with its process. A filter is the interface's and stays, and its program alone carries what needs no other.
            let stays = signal == Signal::SIGKILL && !has_tcx();
            assert_eq!(
                held.exchange(1, 1).expect("a socket").is_answered(),
                stays,
                "nothing old is forwarded, but by filters that were left behind"
            );
        }
        let output = daemon.command(&["show", "sessions"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("no daemon answers on"));
        daemon.restart();
        servers
            .iter()
            .for_each(|listening| drop(connect(inside, listening.address())));
        assert_eq!(daemon.blackhole_rules(), rules, "not doubled");
    }
}

#[test]
fn netns_agent_second_daemon_and_missing_interface_change_nothing() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-twice");
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let listening = TcpServer::start(&server.namespace, server.v4_port(PORT)).expect("a server");

    // Before any daemon: an interface is missing, and nothing is touched.
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("firewall.yaml");
    fs::write(&path, CONFIGURATION.replace("name: net3", "name: net33")).expect("a file");
    let run = |socket: PathBuf| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
        command
            .arg("run")
            .arg("--config")
            .arg(&path)
            .args(["--pins", "none"])
            .arg("--socket")
            .arg(socket)
            .arg("--state")
            .arg(directory.path().join("state"));
        topology
            .firewall()
            .run(|| command.output())
            .expect("the binary runs")
    };
    let output = run(directory.path().join("bulkhead.sock"));
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("firewall.yaml:5:") && text.contains("interface \"net33\" does not exist"),
        "{text}"
    );
    assert!(text.contains("did you mean"), "{text}");
    let mut netlink = topology.firewall().netlink().expect("netlink");
    assert_eq!(netlink.blackhole_rules().expect("rules"), []);
    drop(connect(inside, listening.address()));

    // Beside a live daemon: refused, and the live one neither notices nor loses its socket.
    let daemon = Daemon::start(&topology);
    let mut held = connect(inside, listening.address());
    fs::write(&path, CONFIGURATION).expect("a file");
    let output = run(daemon.socket());
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("another bulkhead serves"), "{text}");
    held.exchange(10, 10)
        .expect("a socket")
        .answered()
        .expect("an exchange");
    assert_eq!(
        daemon.json(&["show", "sessions", "--policy", "use-servers"])["total"],
        1
    );
}
