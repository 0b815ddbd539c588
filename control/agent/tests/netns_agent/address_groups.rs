//! A group of the document whose members an object `AddressGroup` has, with traffic that shows them in force.

use std::time::{Duration, Instant};

use bulkhead_testkit::{TcpServer, privileged};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::cluster::Cluster;
use crate::daemon::{DEADLINE, Launch};
use crate::{CONFIGURATION, PORT, brief, topology};

const OBJECTS: &str = "/apis/bulkhead.dev/v1alpha1/namespaces/default/addressgroups";
const OBJECT: &str = "/apis/bulkhead.dev/v1alpha1/namespaces/default/addressgroups/partners";

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < DEADLINE, "it never came: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn kube_agent_enforces_an_address_group_without_a_commit() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-addr");
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let listening = TcpServer::start(&server.namespace, server.v4_port(PORT)).expect("a server");
    let to = listening.address();
    let mut cluster = Cluster::start(topology.firewall(), &["rbac.addressGroupNamespaces={default}"]);
    cluster.define();
    let configuration = CONFIGURATION
        .replace(
            "addresses: [",
            "addresses: [{ name: web, addressGroup: default/partners }, ",
        )
        .replace(
            "to: servers, destination",
            "to: servers, source: web, destination",
        );
    let kubeconfig = cluster.kubeconfig();
    let mut daemon = Launch::new(&configuration)
        .arguments(&[
            "--kubeconfig",
            kubeconfig.to_str().expect("text"),
            "--instance=edge-0",
        ])
        .start(&topology);
    let reaches = || brief(inside).tcp(to).expect("a socket").map(drop).is_answered();
    let source = |daemon: &crate::daemon::Daemon<'_>| {
        daemon.json(&["show", "groups"])["groups"][0]["sources"][0].clone()
    };
    until("the object is missed", || {
        source(&daemon)["last_error"] == "the object does not exist"
    });
    assert!(!reaches(), "nobody may");

    let object = json!({
        "apiVersion": "bulkhead.dev/v1alpha1", "kind": "AddressGroup", "metadata": { "name": "partners" },
        "spec": { "members": [inside.v4.to_string(), "2001:db8::/64"] },
    });
    cluster.create(OBJECTS, &object);
    until("the member may", reaches);
    let shown = source(&daemon);
    assert_eq!(
        (&shown["kind"], &shown["location"], &shown["prefixes"]),
        (&json!("addressgroup"), &json!("default/partners"), &json!(2)),
        "{shown}"
    );
    let text = daemon.text(&["show", "groups"]);
    assert!(text.contains("addressgroup default/partners"), "{text}");
    assert_eq!(
        daemon.json(&["history"])["revisions"][0]["revision"],
        1,
        "no commit"
    );
    until("the object says so", || {
        let status = &cluster.read(OBJECT)["status"];
        status["inForce"] == "1/1" && status["members"] == 2 && status["instances"][0]["name"] == "edge-0"
    });

    // Wrong: the last ones stay, and so they do while the API is away and over a restart.
    cluster.merge(OBJECT, &json!({ "spec": { "members": ["10.0.0.300"] } }));
    until("it is refused", || {
        source(&daemon)["last_error"]
            .as_str()
            .is_some_and(|error| error.contains("10.0.0.300"))
    });
    assert!(reaches());
    cluster.env.stop_apiserver();
    assert!(daemon.end(Signal::SIGTERM).success(), "{}", daemon.log());
    daemon.restart();
    assert!(reaches(), "the members are those of before:\n{}", daemon.log());
    cluster.start_again();

    // Edited, a member is out, with the sessions that it has opened; deleted, everybody is.
    cluster.merge(OBJECT, &json!({ "spec": { "members": [inside.v4.to_string()] } }));
    until("it is known again", || source(&daemon)["last_error"].is_null());
    let mut held = brief(inside)
        .tcp(to)
        .expect("a socket")
        .answered()
        .expect("a connection");
    cluster.merge(OBJECT, &json!({ "spec": { "except": [inside.v4.to_string()] } }));
    until("it may not any more", || !reaches());
    assert!(!held.exchange(100, 100).expect("a socket").is_answered());
    cluster.merge(OBJECT, &json!({ "spec": { "except": null } }));
    until("it may again", reaches);
    cluster.delete(OBJECT);
    until("nobody may", || !reaches());
    assert_eq!(source(&daemon)["prefixes"], 0);
    assert!(daemon.end(Signal::SIGTERM).success(), "{}", daemon.log());
}
