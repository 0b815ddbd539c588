//! Ten thousand pods: how long until a daemon knows them all, what they cost it, and that one of them still counts at once.
//!
//! The pods are written straight into the store of the API server; what is measured is the daemon's side.

use std::fs;
use std::time::{Duration, Instant};

use bulkhead_testkit::privileged;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::daemon::{DEADLINE, Daemon, Launch};
use crate::{CONFIGURATION, topology};

const PODS: usize = 10_000;
/// From the start of the process to all of them in force, with a debug build on a busy machine.
const KNOWN: Duration = Duration::from_secs(30);
/// What the process may take for them, resident.
const MOST_BYTES: u64 = 50_000_000;
/// From a label to its pod out of the group, median.
const OUT: Duration = Duration::from_secs(1);

fn address(number: usize) -> String {
    format!("10.200.{}.{}", number / 250, number % 250 + 1)
}

fn pod(number: usize) -> Value {
    let network = json!([{ "name": "default/inside", "interface": "net1", "ips": [address(number)] }]);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": format!("web-{number}"), "namespace": "default",
            "uid": format!("00000000-0000-4000-8000-{number:012}"), "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": { "app": "web" },
            "annotations": { "k8s.v1.cni.cncf.io/network-status": network.to_string() },
        },
        "spec": {
            "containers": [{ "name": "main", "image": "none", "ports": [{ "name": "http", "containerPort": 8080 }] }],
            "nodeName": "node-1",
        },
        "status": { "phase": "Running", "podIP": address(number), "podIPs": [{ "ip": address(number) }] },
    })
}

/// What is resident, and the most that ever was, in bytes.
fn resident(daemon: &Daemon<'_>) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.id())).expect("a process");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        number.expect("a number of kB") * 1_024
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// Waits until the group has so many members in force.
#[track_caller]
fn await_members(daemon: &Daemon<'_>, members: usize) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let shown = daemon.json(&["show", "groups", "web"]);
        let source = &shown["groups"][0]["sources"][0];
        if source["prefixes"] == members && source["in_force"] == true && source["last_error"].is_null() {
            return;
        }
        assert!(Instant::now() < deadline, "{source}\n{}", daemon.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn kube_agent_knows_ten_thousand_pods_and_each_of_them_counts() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-many");
    let cluster = Cluster::start(topology.firewall(), &["rbac.podGroups=true"]);
    let pods: Vec<Value> = (0..PODS).map(pod).collect();
    let began = Instant::now();
    topology
        .firewall()
        .run(|| cluster.env.store("pods", &pods))
        .expect("pods");
    println!("{PODS} pods stored within {:?}", began.elapsed());
    let configuration = CONFIGURATION.replace(
        "addresses: [",
        "size: medium\n  addresses: [{ name: web, pods: { selector: app=web, network: default/inside } }, ",
    );
    let kubeconfig = cluster.kubeconfig();
    let kubeconfig = kubeconfig.to_str().expect("text");
    let without = Launch::new(
        CONFIGURATION
            .replace("addresses: [", "size: medium\n  addresses: [")
            .as_str(),
    )
    .arguments(&["--kubeconfig", kubeconfig])
    .start(&topology);
    let (idle, _) = resident(&without);
    drop(without);

    let began = Instant::now();
    let daemon = Launch::new(&configuration)
        .arguments(&["--kubeconfig", kubeconfig])
        .start(&topology);
    let started = began.elapsed();
    await_members(&daemon, PODS);
    let known = began.elapsed();
    let (now, most) = resident(&daemon);
    println!(
        "enforcing after {started:?}, {PODS} pods in force after {known:?}; resident {} kB, at most {} kB, without pods {} kB",
        now / 1_024,
        most / 1_024,
        idle / 1_024
    );
    assert!(known < KNOWN, "{known:?}");
    assert!(
        most.saturating_sub(idle) < MOST_BYTES,
        "{} bytes",
        most.saturating_sub(idle)
    );

    let mut took = Vec::new();
    for number in 0..9 {
        let old = json!({ "metadata": { "labels": { "app": "old" } } });
        let path = format!("/api/v1/namespaces/default/pods/web-{number}");
        let began = Instant::now();
        cluster.merge(&path, &old);
        await_members(&daemon, PODS - number - 1);
        took.push(began.elapsed());
    }
    took.sort();
    println!("one of them out: median {:?}, worst {:?}", took[4], took[8]);
    assert!(took[4] < OUT, "{took:?}");
}
