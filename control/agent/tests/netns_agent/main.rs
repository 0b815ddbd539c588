//! `bulkhead run` as a user starts it, in a namespace with real hosts around it, and its command line as a user
//! types it.

mod address_groups;
mod capabilities;
mod cluster;
mod commits;
mod contract;
mod daemon;
mod feeds;
mod kubernetes;
mod latency;
mod lifecycle;
mod load;
mod many_pods;
mod mounted;
mod network_policies;
mod object;
mod probes;
mod replicas;
mod restart;
mod screens;
mod sizes;
mod wire;

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use bulkhead_dataplane::link::has_tcx;
use bulkhead_testkit::{Client, Host, HostSpec, Outcome, TcpConversation, TcpServer, Topology, privileged};
use nix::sys::signal::Signal;
use serde_json::Value;

use daemon::{DEADLINE, Daemon};

/// The test servers' port.
const PORT: u16 = 7_000;

/// `servers` start nothing; `inside` may use the servers and goes out translated.
const CONFIGURATION: &str = "\
apiVersion: bulkhead.dev/v1alpha1
kind: Firewall
metadata: { name: test }
spec:
  interfaces: [{ name: net1, zone: inside }, { name: net2, zone: servers }, { name: net3, zone: outside }]
  zones: [{ name: inside, hostInbound: [ping] }, { name: servers }, { name: outside }]
  addresses: [{ name: farm, members: [10.77.1.0-10.77.1.9, \"fd77:1::/64\"] }]
  services: [{ name: test, tcp: 7000 }]
  policies:
    - { name: use-servers, from: inside, to: servers, destination: farm, service: test, action: permit, log: [create, close] }
    - { name: out, from: inside, to: outside, action: permit }
    - { name: servers-are-closed, from: servers, to: any, action: reject, log: deny }
  nat: { source: [{ name: hide, from: inside, to: outside, translate: interface }] }
  sessions: { max: 4096, halfOpen: 1024 }
";

fn topology(prefix: &str) -> Topology {
    let topology = Topology::builder(prefix)
        .host(HostSpec::new("inside"))
        .host(HostSpec::new("server"))
        .host(HostSpec::new("world").internet())
        // The kernel would forward everything if it were let: what is not forwarded, the firewall stopped.
        .kernel_forwarding(true)
        .build()
        .expect("a topology");
    topology.resolve_neighbours().expect("neighbours");
    topology
}

fn brief(host: &Host) -> Client<'_> {
    host.client().timeout(Duration::from_millis(400))
}

#[track_caller]
fn connect(host: &Host, to: SocketAddr) -> TcpConversation {
    host.client()
        .tcp(to)
        .expect("a socket")
        .answered()
        .unwrap_or_else(|error| panic!("{to}: {error}"))
}

fn address(direction: &Value, side: &str) -> (String, u64) {
    let address = direction[format!("{side}_address")]
        .as_str()
        .expect("an address")
        .to_owned();
    (
        address,
        direction[format!("{side}_port")].as_u64().expect("a port"),
    )
}

fn pair(address: SocketAddr) -> (String, u64) {
    (address.ip().to_string(), address.port().into())
}

#[test]
fn netns_agent_sessions_show_explain_observe_and_clear() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-agent");
    let (inside, server, world) = (
        topology.host("inside"),
        topology.host("server"),
        topology.host("world"),
    );
    let _servers: Vec<TcpServer> = [server, world]
        .into_iter()
        .flat_map(|host| host.addresses().map(|address| (host, address)))
        .map(|(host, address)| TcpServer::start(&host.namespace, (address, PORT).into()).expect("a server"))
        .collect();
    let daemon = Daemon::start(&topology);
    let mode = fs::metadata(daemon.socket())
        .expect("a socket")
        .permissions()
        .mode()
        & 0o7777;
    assert_eq!(mode, 0o600, "{mode:o}");

    // Every interface is guarded, and says how.
    let hook = if has_tcx() { "tcx" } else { "clsact" };
    let interfaces = daemon.json(&["show", "interfaces"]);
    for interface in interfaces["interfaces"].as_array().expect("interfaces") {
        assert_eq!(
            (&interface["attached"], &interface["fails_closed"]),
            (&true.into(), &true.into()),
            "{interface}"
        );
        assert_eq!(
            (&interface["hook"], &interface["kind"]),
            (&hook.into(), &"veth".into()),
            "{interface}"
        );
    }

    // What explain says is what happens.
    for (family, (to, out)) in server.addresses().into_iter().zip(world.addresses()).enumerate() {
        let source = inside.addresses()[family].to_string();
        let explain = |from: &str, source: &str, to: &str| {
            daemon.json(&[
                "explain", "--from", from, "--src", source, "--dst", to, "--tcp", "7000",
            ])
        };
        let permitted = explain("inside", &source, &to.to_string());
        assert_eq!(
            (&permitted["verdict"], &permitted["policy"]),
            (&"permit".into(), &"use-servers".into())
        );
        assert_eq!(
            permitted["destination_groups"],
            serde_json::json!(["farm"]),
            "{permitted}"
        );
        assert_eq!(permitted["services"], serde_json::json!(["test"]), "{permitted}");
        let mut conversation = connect(inside, (to, PORT).into());
        assert_eq!(conversation.seen_as(), conversation.local(), "not translated");
        conversation
            .exchange(100, 100_000)
            .expect("a socket")
            .answered()
            .expect("an exchange");

        let translated = explain("net1", &source, &out.to_string());
        assert_eq!(
            (&translated["verdict"], &translated["nat_rule"]),
            (&"permit".into(), &"hide".into())
        );
        let gateway = world.gateways()[family];
        assert_eq!(translated["translated_source"], gateway.to_string());
        let outward = connect(inside, (out, PORT).into());
        assert_eq!(outward.seen_as().ip(), gateway);

        let rejected = explain("servers", &to.to_string(), &source);
        assert_eq!(
            (&rejected["verdict"], &rejected["policy"]),
            (&"reject".into(), &"servers-are-closed".into())
        );
        let outcome = brief(server)
            .tcp((inside.addresses()[family], PORT).into())
            .expect("a socket")
            .map(drop);
        assert!(
            !outcome.is_answered() && outcome != Outcome::TimedOut,
            "{}",
            outcome.describe()
        );

        let denied = explain("outside", &out.to_string(), &to.to_string());
        assert_eq!(
            (&denied["verdict"], &denied["reason"]),
            (&"deny".into(), &"default_deny".into())
        );
        assert!(
            denied["hint"]
                .as_str()
                .is_some_and(|hint| hint.contains("no policy from outside to servers")),
            "{denied}"
        );

        // The session table shows both conversations, translation included.
        let protocol = if family == 0 { "ipv4" } else { "ipv6" };
        let sessions = daemon.json(&["show", "sessions", "--port", "7000", "--source", &source]);
        let sessions = sessions["sessions"].as_array().expect("sessions");
        let find = |conversation: &TcpConversation| {
            let local = pair(conversation.local());
            sessions
                .iter()
                .find(|session| address(&session["in"], "source") == local)
                .unwrap_or_else(|| panic!("no session from {local:?} in {sessions:#?}"))
        };
        let held = find(&conversation);
        assert_eq!(
            (&held["family"], &held["protocol"], &held["state"]),
            (&protocol.into(), &"tcp".into(), &"established".into())
        );
        assert_eq!(
            (&held["policy"], &held["nat_rule"]),
            (&"use-servers".into(), &Value::Null)
        );
        assert!(
            held["out"]["bytes"].as_u64().is_some_and(|bytes| bytes > 100_000),
            "{held}"
        );
        assert_eq!(address(&held["out"], "destination"), pair(conversation.local()));
        let hidden = find(&outward);
        assert_eq!(
            (&hidden["policy"], &hidden["nat_rule"], &hidden["translated"]),
            (&"out".into(), &"hide".into(), &true.into())
        );
        assert_eq!(address(&hidden["out"], "destination"), pair(outward.seen_as()));
        let (local, port) = (conversation.local(), conversation.local().port());
        let known = daemon.json(&[
            "explain",
            "--from",
            "net1",
            "--src",
            &source,
            "--dst",
            &to.to_string(),
            "--tcp",
            "7000",
            "--sport",
            &port.to_string(),
        ]);
        assert_eq!(known["existing_session"], held["id"], "{local}");

        // For people: three lines, and what was translated shows in the Out line.
        let table = daemon.text(&["show", "sessions", "--policy", "out", "--source", &source]);
        let expected = format!(
            "  Out: {out}/{PORT} --> {gateway}/{};tcp, If: net3, Pkts: ",
            outward.seen_as().port()
        );
        assert!(table.contains(&expected), "{expected:?} is not in\n{table}");
        assert!(table.ends_with("Total sessions: 1\n"), "{table}");

        // Cleared sessions are gone, and only those that were meant.
        let clear = [
            "clear",
            "sessions",
            "--policy",
            "use-servers",
            "--source",
            &source,
        ];
        assert_eq!(daemon.text(&clear), "1 session cleared\n");
        assert_eq!(
            daemon.json(&["show", "sessions", "--policy", "use-servers", "--source", &source])["total"],
            0
        );
        assert_eq!(
            daemon.json(&["show", "sessions", "--policy", "out", "--source", &source])["total"],
            1
        );
    }
    let refused = daemon.command(&["clear", "sessions"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--all"));
    let all = daemon.json(&["show", "sessions"])["total"]
        .as_u64()
        .expect("a number");
    assert!(all >= 2);
    assert_eq!(daemon.json(&["clear", "sessions", "--all"])["cleared"], all);

    observes_and_counts(&daemon, inside, server);
    let log = daemon.log();
    for line in [
        "session created",
        "session closed",
        "denied",
        "servers-are-closed",
    ] {
        assert!(log.contains(line), "{line:?} is not in the log:\n{log}");
    }
    assert!(
        !log.contains("policy=\"out\""),
        "that policy asks for no log:\n{log}"
    );
}

/// The same conversations, as events, hits and counters.
fn observes_and_counts(daemon: &Daemon<'_>, inside: &Host, server: &Host) {
    let flows = |arguments: &[&str]| -> Vec<Value> {
        let text = daemon.text(&[&["observe", "-o", "json"], arguments].concat());
        text.lines()
            .map(|line| serde_json::from_str(line).expect("one object per line"))
            .collect()
    };
    // Events take the way through a ring that is looked at every 20 ms.
    std::thread::sleep(Duration::from_millis(200));
    let created = flows(&["--last", "1000", "--type", "create", "--port", "7000"]);
    let policies: Vec<_> = created
        .iter()
        .map(|flow| flow["policy"].as_str().unwrap_or("none"))
        .collect();
    assert_eq!(
        policies.iter().filter(|policy| **policy == "use-servers").count(),
        2,
        "{policies:?}"
    );
    assert_eq!(
        policies.iter().filter(|policy| **policy == "out").count(),
        2,
        "{policies:?}"
    );
    assert!(created.iter().all(|flow| flow["verdict"] == "FORWARDED"));
    let dropped = flows(&[
        "--last",
        "1000",
        "--verdict",
        "DROPPED",
        "--from-ip",
        &server.v4.to_string(),
        "--to-ip",
        &inside.v4.to_string(),
    ]);
    assert!(!dropped.is_empty());
    for flow in &dropped {
        assert_eq!(
            (&flow["type"], &flow["reason"]),
            (&"deny".into(), &"policy_reject".into()),
            "{flow}"
        );
        assert_eq!(
            (&flow["from_zone"], &flow["to_zone"]),
            (&"servers".into(), &"inside".into()),
            "{flow}"
        );
    }
    assert_eq!(flows(&["--last", "1"]).len(), 1);
    assert_eq!(
        flows(&["--last", "2", "--type", "create"]),
        created[created.len() - 2..],
        "the last that match"
    );
    assert!(flows(&["--port", "9"]).is_empty());

    let policies = daemon.json(&["show", "policies"]);
    let hits = |number: usize| policies["policies"][number]["hits"].as_u64().expect("a number");
    assert_eq!((hits(0), hits(1)), (2, 2), "{policies}");
    assert!(hits(2) >= 2, "{policies}");
    assert_eq!(daemon.json(&["show", "nat"])["source"][0]["hits"], 2);
    let counters = daemon.json(&["show", "counters"]);
    let counters = counters["counters"].as_array().expect("counters");
    let value = |name: &str| {
        counters
            .iter()
            .find(|counter| counter["name"] == name)
            .map(|counter| &counter["value"])
    };
    assert_eq!(value("session_created"), Some(&4.into()), "{counters:?}");
    assert!(
        value("policy_reject").is_some() && value("no_route").is_none(),
        "{counters:?}"
    );
    assert!(daemon.text(&["show", "counters", "--all"]).contains("no_route"));
    assert!(daemon.text(&["show", "zones"]).contains("servers"));
    assert_eq!(
        daemon.json(&["show", "groups"])["groups"][0]["members"][0],
        "10.77.1.0-10.77.1.9"
    );
}

#[test]
fn netns_agent_follows_flows_as_they_come() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-watch");
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let listening = TcpServer::start(&server.namespace, server.v4_port(PORT)).expect("a server");
    let daemon = Daemon::start(&topology);
    let seen = File::create(daemon.directory.path().join("seen")).expect("a file");
    let mut watcher = Command::new(env!("CARGO_BIN_EXE_bulkhead"))
        .args(["observe", "-f", "-o", "json", "--type", "create", "--socket"])
        .arg(daemon.socket())
        .stdout(seen)
        .spawn()
        .expect("the binary runs");
    let deadline = Instant::now() + DEADLINE;
    let flows = || fs::read_to_string(daemon.directory.path().join("seen")).expect("a file");
    // It may not watch yet when the first connection opens.
    while flows().is_empty() {
        assert!(Instant::now() < deadline, "no flow was seen");
        drop(connect(inside, listening.address()));
        std::thread::sleep(Duration::from_millis(50));
    }
    let text = flows();
    let first: Value =
        serde_json::from_str(text.lines().next().expect("a line")).expect("one object per line");
    assert_eq!(
        (&first["type"], &first["policy"]),
        (&"create".into(), &"use-servers".into()),
        "{first}"
    );
    // The stream is cut, not ended, when the daemon stops: the watcher says so.
    let mut daemon = daemon;
    assert!(daemon.end(Signal::SIGTERM).success());
    let deadline = Instant::now() + DEADLINE;
    while watcher.try_wait().expect("a child").is_none() {
        if Instant::now() > deadline {
            watcher.kill().expect("a signal");
            panic!("the watcher did not notice that the daemon has gone");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(watcher.wait().expect("a child").code(), Some(1));
}
