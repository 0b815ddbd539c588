//! A daemon whose configuration and pods come from a real Kubernetes API, with traffic of both families that shows what is in
//! force: the same story for each kind of object that may have the configuration.
//!
//! The API server runs in the firewall's namespace, on loopback, as the daemon's only neighbour that is no data interface.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bulkhead_testkit::{Host, TcpServer, privileged};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::daemon::{DEADLINE, Launch};
use crate::object::Object;
use crate::probes::{LOOPBACK, get};
use crate::{CONFIGURATION, PORT, brief, topology};

const PODS: &str = "/api/v1/namespaces/default/pods";
const POD: &str = "/api/v1/namespaces/default/pods/web-0";
const INSTANCE: &str = "edge-0";

/// Who may use the servers is a matter of labels.
fn by_label() -> String {
    CONFIGURATION
        .replace(
            "addresses: [",
            "addresses: [{ name: web, pods: { selector: app=web, network: default/inside } }, ",
        )
        .replace(
            "to: servers, destination",
            "to: servers, source: web, destination",
        )
}

#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "it never came: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn reaches(host: &Host, to: SocketAddr) -> bool {
    brief(host).tcp(to).expect("a socket").map(drop).is_answered()
}

#[test]
fn kube_agent_enforces_what_a_config_map_says_and_whom_pods_make_it_mean() {
    if privileged() {
        enforces(Object::ConfigMap, "bhk-api");
    }
}

#[test]
fn kube_agent_enforces_what_a_firewall_resource_says_and_whom_pods_make_it_mean() {
    if privileged() {
        enforces(Object::Firewall, "bhk-fwr");
    }
}

fn enforces(object: Object, prefix: &str) {
    let topology = topology(prefix);
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let addresses = [server.v4_port(PORT), server.v6_port(PORT)];
    let _servers = addresses.map(|address| TcpServer::start(&server.namespace, address).expect("a server"));
    let all_may = || addresses.iter().all(|to| reaches(inside, *to));
    let none_may = || !addresses.iter().any(|to| reaches(inside, *to));
    let mut cluster = Cluster::start(topology.firewall(), &[object.source(), "rbac.podGroups=true"]);
    if object == Object::Firewall {
        cluster.define();
    }
    let kubeconfig = cluster.kubeconfig();

    // Nothing is touched before there is a document, and a start is not ended for want of one.
    let mut daemon = Launch::without_file()
        .variable(object.setting(), "default/edge")
        .variable("BULKHEAD_MANAGEMENT", LOOPBACK)
        .arguments(&[
            "--kubeconfig",
            kubeconfig.to_str().expect("text"),
            "--instance=edge-0",
            "--ports=3",
        ])
        .begin(&topology);
    daemon.await_log("a sound document is waited for");
    let (status, text) = get(&topology, "/readyz");
    assert_eq!(status, 503, "{text}");
    let kind = format!("{object:?}").to_lowercase();
    assert!(
        text.contains(&format!(
            "[-]started: waiting for a sound document in {kind} default/edge\n"
        )),
        "{text}"
    );
    assert_eq!(get(&topology, "/livez").0, 200);
    assert_eq!(daemon.blackhole_rules(), [], "nothing is touched");
    // A document is judged by the settings of the start, the first one too.
    let two_interfaces = by_label().replace(", { name: net3, zone: outside }]", "]");
    object.create(&cluster, &two_interfaces);
    let few = "2 data interfaces are named here, but 3 were asked for at the start";
    object.await_applied(&cluster, INSTANCE, ("False", "Invalid", few));
    assert_eq!(daemon.blackhole_rules(), [], "nothing is touched");

    object.set(&cluster, &by_label());
    daemon.await_ready();
    let entry = object.await_applied(&cluster, INSTANCE, ("True", "Committed", "revision 1 "));
    let newest = &daemon.json(&["history"])["revisions"][0];
    let source = match object {
        Object::ConfigMap => "config-map",
        Object::Firewall => "firewall",
    };
    assert_eq!(
        (&newest["revision"], &newest["source"]),
        (&json!(1), &json!(source))
    );
    assert_eq!(
        (&entry["hash"], &entry["revision"]),
        (&newest["sha256"], &json!(1))
    );
    assert_eq!(get(&topology, "/readyz").0, 200);
    let uid = object.read(&cluster)["metadata"]["uid"].clone();
    until("an event of the very object", || {
        let events = cluster.events(uid.as_str().expect("an id"));
        let note = "edge-0: revision 1 is in force";
        let mut told = events.iter().map(|event| (&event["reason"], &event["message"]));
        told.any(|told| told == (&json!("Committed"), &json!(note)))
    });
    if object == Object::Firewall {
        // What all instances together come to, of which this is one.
        until("the summary", || {
            let status = &object.read(&cluster)["status"];
            status["applied"] == "1/1" && status["hash"] == newest["sha256"]
        });
    }

    // No pod has the label yet; one that has it may, for as long as it has it, with the sessions that it has opened.
    assert!(none_may(), "nobody may");
    let ips = inside.addresses().map(|address| address.to_string());
    let network = json!([{ "name": "default/inside", "interface": "net1", "ips": ips }]);
    cluster.create(
        PODS,
        &json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web-0", "labels": { "app": "web" },
                "annotations": { "k8s.v1.cni.cncf.io/network-status": network.to_string() },
            },
            "spec": { "containers": [{ "name": "main", "image": "none" }] },
        }),
    );
    until("the pod may", all_may);
    let mut held = addresses.map(|to| {
        let opened = brief(inside).tcp(to).expect("a socket");
        opened.answered().expect("a connection")
    });
    cluster.merge(POD, &json!({ "metadata": { "labels": { "app": "batch" } } }));
    until("the pod may not any more", none_may);
    for conversation in &mut held {
        assert!(!conversation.exchange(100, 100).expect("a socket").is_answered());
    }
    cluster.merge(POD, &json!({ "metadata": { "labels": { "app": "web" } } }));
    until("the pod may again", all_may);

    // What is wrong changes nothing, and is told where its author looks.
    object.set(
        &cluster,
        &by_label().replace("net3, zone: outside", "net3, zone: nowhere"),
    );
    object.await_applied(&cluster, INSTANCE, ("False", "Invalid", "\"nowhere\""));
    assert_eq!(daemon.json(&["history"])["revisions"][0]["revision"], 1);
    assert!(all_may());
    object.set(&cluster, &by_label().replace("name: out,", "name: outward,"));
    object.await_applied(&cluster, INSTANCE, ("True", "Committed", "revision 2 "));
    assert!(daemon.text(&["show", "policies"]).contains("outward"));

    // The API goes away under a running daemon and comes back: what was in force stays, what is new then is taken by the same
    // process.
    cluster.env.stop_apiserver();
    assert!(all_may(), "{}", daemon.log());
    cluster.start_again();
    object.set(&cluster, &by_label().replace("name: out,", "name: abroad,"));
    object.await_applied(&cluster, INSTANCE, ("True", "Committed", "revision 3 "));
    assert!(daemon.text(&["show", "policies"]).contains("abroad"));
    assert!(daemon.runs(), "{}", daemon.log());

    // It takes along what it has said, and without the API it starts with what it had.
    assert!(daemon.end(Signal::SIGTERM).success(), "{}", daemon.log());
    let left = object.read(&cluster);
    assert_eq!(object.entry(&left, INSTANCE), Value::Null);
    if object == Object::Firewall {
        assert_eq!(left["status"]["applied"], "0/0", "{left:#}");
    }
    cluster.env.stop_apiserver();
    daemon.restart();
    assert_eq!(daemon.json(&["history"])["revisions"][0]["revision"], 3);
    assert!(all_may(), "the members are those of before:\n{}", daemon.log());

    // One that has not heard of the API since its start goes on asking for it.
    cluster.start_again();
    let denied = by_label().replace("service: test, action: permit", "service: test, action: deny");
    object.set(&cluster, &denied);
    object.await_applied(&cluster, INSTANCE, ("True", "Committed", "revision 4 "));
    assert!(none_may(), "{}", daemon.log());
    assert!(daemon.runs(), "{}", daemon.log());
}
