//! From a change of the ConfigMap to the verdict that packets meet, with the real binary.

use std::time::{Duration, Instant};

use bulkhead_testkit::{TcpServer, privileged};
use serde_json::json;

use crate::cluster::Cluster;
use crate::daemon::{DEADLINE, Launch};
use crate::{CONFIGURATION, PORT, brief, topology};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MAP: &str = "/api/v1/namespaces/default/configmaps/edge";
/// How often the policy is turned around.
const TURNS: usize = 20;
/// What half of the changes must keep to.
const PROMISED: Duration = Duration::from_millis(100);

#[test]
fn kube_agent_enforces_a_change_of_its_config_map_within_a_tenth_of_a_second() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-fast");
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let listening = TcpServer::start(&server.namespace, server.v4_port(PORT)).expect("a server");
    let to = listening.address();
    let cluster = Cluster::start(topology.firewall());
    let closed = CONFIGURATION.replace("service: test, action: permit", "service: test, action: reject");
    assert_ne!(closed, CONFIGURATION);
    cluster.create(
        MAPS,
        &json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "edge" },
            "data": { "firewall.yaml": CONFIGURATION },
        }),
    );
    let kubeconfig = cluster.kubeconfig();
    let daemon = Launch::without_file()
        .variable("BULKHEAD_CONFIG_MAP", "default/edge")
        .arguments(&[
            "--kubeconfig",
            kubeconfig.to_str().expect("text"),
            "--instance=edge-0",
        ])
        .start(&topology);
    // Either way a packet is answered at once: by the server, or by a reset of the firewall.
    let reaches = || brief(inside).tcp(to).expect("a socket").map(drop).is_answered();
    assert!(reaches());
    let mut took = Vec::new();
    for turn in 0..TURNS {
        let (text, open) = match turn % 2 {
            0 => (&*closed, false),
            _ => (CONFIGURATION, true),
        };
        let began = Instant::now();
        cluster.merge(MAP, &json!({ "data": { "firewall.yaml": text } }));
        while reaches() != open {
            assert!(began.elapsed() < DEADLINE, "{}", daemon.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        took.push(began.elapsed());
        // The status of this change is not in the way of the next.
        std::thread::sleep(Duration::from_millis(100));
    }
    took.sort();
    println!(
        "from the change to the verdict: median {:?}, worst {:?} of {TURNS}",
        took[TURNS / 2],
        took[TURNS - 1]
    );
    assert!(took[TURNS / 2] <= PROMISED, "{took:?}");
}
