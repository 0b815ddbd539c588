//! A daemon whose configuration and pods come from a real Kubernetes API, with traffic that shows what is in force.
//!
//! The API server runs in the firewall's namespace, on loopback, as the daemon's only neighbour that is no data interface.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bulkhead_kube_env::{Client, KubeEnv};
use bulkhead_testkit::{Host, Namespace, TcpServer, privileged};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::daemon::{DEADLINE, Launch};
use crate::probes::{LOOPBACK, get};
use crate::{CONFIGURATION, PORT, brief, topology};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MAP: &str = "/api/v1/namespaces/default/configmaps/edge";
const PODS: &str = "/api/v1/namespaces/default/pods";
const POD: &str = "/api/v1/namespaces/default/pods/web-0";

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

/// The API as a cluster's owner sees it, from the firewall's namespace.
pub struct Owner<'n> {
    pub namespace: &'n Namespace,
    pub client: Client,
}

impl Owner<'_> {
    #[track_caller]
    pub fn create(&self, path: &str, object: &Value) {
        let answer = self.namespace.run(|| self.client.post(path, object));
        answer
            .and_then(|answer| answer.expect(201))
            .expect("a new object");
        if object["kind"] == "Pod" {
            // No kubelet is here to do it.
            let name = object["metadata"]["name"].as_str().expect("a name");
            let ran = self.namespace.run(|| self.client.run_pod("default", name));
            ran.expect("a pod that runs");
        }
    }

    #[track_caller]
    pub fn merge(&self, path: &str, change: &Value) {
        let answer = self.namespace.run(|| self.client.merge(path, change));
        answer.and_then(|answer| answer.expect(200)).expect("a change");
    }

    fn document(&self, text: &str) {
        self.merge(MAP, &json!({ "data": { "firewall.yaml": text } }));
    }

    /// What the instance says on the ConfigMap; `null`: nothing.
    #[track_caller]
    fn status(&self) -> Value {
        let answer = self.namespace.run(|| self.client.get(MAP));
        let map = answer
            .and_then(|answer| answer.expect(200))
            .expect("the ConfigMap");
        match map["metadata"]["annotations"]["status.bulkhead.dev/edge-0"].as_str() {
            Some(text) => serde_json::from_str(text).expect("an entry"),
            None => Value::Null,
        }
    }

    /// Waits until the document on the ConfigMap is told to be in force, or not and why.
    #[track_caller]
    fn await_applied(&self, holds: &str, reason: &str, message: &str) {
        until(&format!("Applied is {holds}: {reason}: {message}"), || {
            let status = self.status();
            let conditions = status["conditions"].as_array();
            conditions.into_iter().flatten().any(|condition| {
                let said = condition["message"].as_str().unwrap_or_default();
                condition["type"] == "Applied"
                    && condition["status"] == holds
                    && condition["reason"] == reason
                    && said.contains(message)
            })
        });
    }
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
    if !privileged() {
        return;
    }
    let topology = topology("bhk-api");
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let listening = TcpServer::start(&server.namespace, server.v4_port(PORT)).expect("a server");
    let to = listening.address();
    let namespace = topology.firewall();
    let mut env = namespace.run(KubeEnv::start).expect("an API server");
    let kubeconfig = env.kubeconfig_file("admin").expect("a kubeconfig");
    let owner = Owner {
        namespace,
        client: env.client("admin").expect("a client"),
    };

    // Nothing is touched before there is a document, and a start is not ended for want of one.
    let mut daemon = Launch::without_file()
        .variable("BULKHEAD_CONFIG_MAP", "default/edge")
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
    assert!(
        text.contains("[-]started: waiting for a sound document in configmap default/edge\n"),
        "{text}"
    );
    assert_eq!(get(&topology, "/livez").0, 200);
    assert_eq!(daemon.blackhole_rules(), [], "nothing is touched");
    // A document is judged by the settings of the start, the first one too.
    let two_interfaces = by_label().replace(", { name: net3, zone: outside }]", "]");
    owner.create(
        MAPS,
        &json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "edge" },
            "data": { "firewall.yaml": two_interfaces },
        }),
    );
    owner.await_applied(
        "False",
        "Invalid",
        "2 data interfaces are named here, but 3 were asked for at the start",
    );
    assert_eq!(daemon.blackhole_rules(), [], "nothing is touched");

    owner.document(&by_label());
    daemon.await_ready();
    owner.await_applied("True", "Committed", "");
    let newest = &daemon.json(&["history"])["revisions"][0];
    assert_eq!(
        (&newest["revision"], &newest["source"]),
        (&1.into(), &"config-map".into())
    );
    assert_eq!(get(&topology, "/readyz").0, 200);

    // No pod has the label yet; one that has it may, for as long as it has it, with the sessions that it has opened.
    assert!(!reaches(inside, to), "nobody may");
    let network = json!([{ "name": "default/inside", "interface": "net1", "ips": [inside.v4.to_string()] }]);
    owner.create(
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
    until("the pod may", || reaches(inside, to));
    let mut held = brief(inside)
        .tcp(to)
        .expect("a socket")
        .answered()
        .expect("a connection");
    owner.merge(POD, &json!({ "metadata": { "labels": { "app": "batch" } } }));
    until("the pod may not any more", || !reaches(inside, to));
    assert!(!held.exchange(100, 100).expect("a socket").is_answered());
    owner.merge(POD, &json!({ "metadata": { "labels": { "app": "web" } } }));
    until("the pod may again", || reaches(inside, to));

    // What is wrong changes nothing, and is told where its author looks.
    owner.document(&by_label().replace("action: reject", "action: rejct"));
    owner.await_applied("False", "Invalid", "rejct");
    assert_eq!(daemon.json(&["history"])["revisions"][0]["revision"], 1);
    assert!(reaches(inside, to));
    owner.document(&by_label().replace("name: out,", "name: outward,"));
    owner.await_applied("True", "Committed", "revision 2");
    assert!(daemon.text(&["show", "policies"]).contains("outward"));

    // The API goes away under a running daemon and comes back: what was in force stays, what is new then is taken by the same
    // process.
    env.stop_apiserver();
    assert!(reaches(inside, to), "{}", daemon.log());
    namespace
        .run(|| env.start_apiserver())
        .expect("the API server again");
    owner.document(&by_label().replace("name: out,", "name: abroad,"));
    owner.await_applied("True", "Committed", "revision 3");
    assert!(daemon.text(&["show", "policies"]).contains("abroad"));
    assert!(daemon.runs(), "{}", daemon.log());

    // It takes along what it has said, and without the API it starts with what it had.
    assert!(daemon.end(Signal::SIGTERM).success(), "{}", daemon.log());
    assert_eq!(owner.status(), Value::Null);
    env.stop_apiserver();
    daemon.restart();
    assert_eq!(daemon.json(&["history"])["revisions"][0]["revision"], 3);
    assert!(
        reaches(inside, to),
        "the members are those of before:\n{}",
        daemon.log()
    );

    // One that has not heard of the API since its start goes on asking for it.
    namespace
        .run(|| env.start_apiserver())
        .expect("the API server again");
    owner.document(&by_label().replace("service: test, action: permit", "service: test, action: deny"));
    owner.await_applied("True", "Committed", "revision 4");
    assert!(!reaches(inside, to), "{}", daemon.log());
    assert!(daemon.runs(), "{}", daemon.log());
}
