//! MultiNetworkPolicies of a real Kubernetes API around a document, with traffic that shows what is in force.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use bulkhead_testkit::{Host, HostSpec, TcpServer, Topology, privileged};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::daemon::{Daemon, Launch};
use crate::kubernetes::{reaches, until};
use crate::probes::{LOOPBACK, get};
use crate::{CONFIGURATION, PORT, brief};

const PODS: &str = "/api/v1/namespaces/default/pods";
const WEB: &str = "/api/v1/namespaces/default/pods/web-0";
const POLICIES: &str = "/apis/k8s.cni.cncf.io/v1beta1/namespaces/default/multi-networkpolicies";
const POLICY: &str = "/apis/k8s.cni.cncf.io/v1beta1/namespaces/default/multi-networkpolicies/db";

const DENIAL: &str = "mnp/default/db/ingress/isolation";

fn pod(name: &str, app: &str, host: &Host) -> Value {
    let network = json!([{ "name": "default/app", "interface": "net1", "ips": [host.v4.to_string(), host.v6.to_string()] }]);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "labels": { "app": app },
            "annotations": { "k8s.v1.cni.cncf.io/network-status": network.to_string() },
        },
        "spec": { "containers": [{ "name": "main", "image": "none" }] },
    })
}

/// A policy of that name with that `spec`.
fn policy(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "k8s.cni.cncf.io/v1beta1", "kind": "MultiNetworkPolicy",
        "metadata": { "name": name, "annotations": { "k8s.v1.cni.cncf.io/policy-for": "app" } },
        "spec": spec["spec"],
    })
}

/// What the database takes.
fn rules(rules: &Value) -> Value {
    json!({ "spec": {
        "podSelector": { "matchLabels": { "app": "db" } }, "policyTypes": ["Ingress"], "ingress": rules,
    } })
}

/// Hits by the names of policies, in the order in which they are asked.
fn hits(daemon: &Daemon<'_>) -> Vec<(String, u64)> {
    let shown = daemon.json(&["show", "policies"]);
    let policies = shown["policies"].as_array().expect("policies");
    policies
        .iter()
        .map(|policy| {
            let name = policy["name"].as_str().expect("a name");
            (name.to_owned(), policy["hits"].as_u64().expect("hits"))
        })
        .collect()
}

fn hits_of(daemon: &Daemon<'_>, name: &str) -> u64 {
    let hits = hits(daemon);
    let found = hits.iter().find(|(policy, _)| policy == name);
    found.unwrap_or_else(|| panic!("no {name} in {hits:?}")).1
}

/// The policy that would decide.
fn decider(daemon: &Daemon<'_>, zone: &str, source: IpAddr, destination: IpAddr) -> Value {
    let (source, destination, port) = (source.to_string(), destination.to_string(), PORT.to_string());
    let question = [
        "explain",
        "--from",
        zone,
        "--src",
        &source,
        "--dst",
        &destination,
        "--tcp",
        &port,
    ];
    daemon.json(&question)["policy"].clone()
}

fn generation(daemon: &Daemon<'_>) -> u64 {
    daemon.json(&["show", "interfaces"])["generation"]
        .as_u64()
        .expect("a generation")
}

/// Three hosts of which each has a route to the others.
fn segments(prefix: &str) -> Topology {
    let names = ["inside", "server", "world"].into_iter();
    let hosts = names.fold(Topology::builder(prefix), |builder, name| {
        builder.host(HostSpec::new(name))
    });
    let topology = hosts.kernel_forwarding(true).build().expect("a topology");
    topology.resolve_neighbours().expect("neighbours");
    topology
}

#[test]
fn kube_agent_puts_network_policies_around_the_document_and_keeps_them_without_the_api() {
    if !privileged() {
        return;
    }
    let topology = segments("bhk-mnp");
    let (inside, server, world) = (
        topology.host("inside"),
        topology.host("server"),
        topology.host("world"),
    );
    let addresses = [server.v4_port(PORT), server.v6_port(PORT)];
    let _servers = addresses.map(|address| TcpServer::start(&server.namespace, address).expect("a server"));
    let [to, to6] = addresses;
    let mut cluster = Cluster::start(topology.firewall(), &["multiNetworkPolicies=true"]);
    cluster.define_network_policies();
    let kubeconfig = cluster.kubeconfig();
    cluster.create(PODS, &pod("db-0", "db", server));
    cluster.create(PODS, &pod("web-0", "web", inside));

    let mut daemon = Launch::new(CONFIGURATION)
        .variable("BULKHEAD_NETWORK_POLICIES", "on")
        .variable("BULKHEAD_MANAGEMENT", LOOPBACK)
        .arguments(&[
            "--kubeconfig",
            kubeconfig.to_str().expect("text"),
            "--instance=edge-0",
        ])
        .start(&topology);
    until("the document alone decides", || {
        reaches(inside, to) && reaches(inside, to6)
    });
    assert_eq!(get(&topology, "/readyz").0, 200);
    let mut held = brief(inside)
        .tcp(to)
        .expect("a socket")
        .answered()
        .expect("a connection");

    // An isolation stops what the document permits, live sessions too; and both families.
    cluster.create(POLICIES, &policy("db", &rules(&json!([]))));
    until("the database is isolated", || !reaches(inside, to));
    assert!(!reaches(inside, to6));
    assert!(!held.exchange(100, 100).expect("a socket").is_answered());
    // It is named where it decides, and nothing is attributed to another.
    let shown = hits(&daemon);
    assert_eq!(shown[0].0, DENIAL, "{shown:?}");
    assert!(
        shown[0].1 > 0 && shown[1..].iter().all(|(_, hits)| *hits == 0),
        "{shown:?}"
    );
    assert_eq!(
        decider(&daemon, "inside", inside.v4.into(), server.v4.into()),
        DENIAL
    );
    let (_, metrics) = get(&topology, "/metrics");
    assert!(
        metrics.contains(&format!("bulkhead_policy_hits_total{{policy=\"{DENIAL}\"}} "))
            && metrics.contains("bulkhead_policy_hits_total{policy=\"use-servers\"} 0\n"),
        "{metrics}"
    );
    assert_eq!(
        daemon.json(&["history"])["revisions"]
            .as_array()
            .expect("revisions")
            .len(),
        1,
        "the document did not change"
    );

    // What it permits passes where the document permits it too, and the document has it on its counters.
    cluster.merge(
        POLICY,
        &rules(&json!([{ "from": [{ "podSelector": { "matchLabels": { "app": "web" } } }] }])),
    );
    until("the web server may", || {
        reaches(inside, to) && reaches(inside, to6)
    });
    assert_eq!(
        decider(&daemon, "inside", inside.v4.into(), server.v4.into()),
        "use-servers"
    );
    assert!(hits_of(&daemon, "use-servers") > 0);
    assert_eq!(hits_of(&daemon, "mnp/default/db/ingress[0]"), 0);

    // A label is no commit where the policies tell alike pods apart already.
    cluster.create(PODS, &pod("web-1", "web", world));
    until("the second web server may", || reaches(world, to));
    let before = generation(&daemon);
    let mut held = brief(inside)
        .tcp(to)
        .expect("a socket")
        .answered()
        .expect("a connection");
    cluster.merge(WEB, &json!({ "metadata": { "labels": { "app": "batch" } } }));
    until("it may not any more", || !reaches(inside, to));
    assert!(!held.exchange(100, 100).expect("a socket").is_answered());
    assert!(reaches(world, to), "the other one may");
    cluster.merge(WEB, &json!({ "metadata": { "labels": { "app": "web" } } }));
    until("it may again", || reaches(inside, to));
    assert_eq!(generation(&daemon), before, "members change without a commit");

    // What the document says nothing of is permitted by the isolation alone.
    assert_eq!(
        decider(&daemon, "outside", world.v4.into(), server.v4.into()),
        "mnp/default/db/ingress[0]"
    );
    assert!(hits_of(&daemon, "mnp/default/db/ingress[0]") > 0);
    // And what the document denies stays denied: a commit takes the isolation along.
    let quarantine = CONFIGURATION.replace(
        "    - { name: use-servers",
        "    - { name: quarantine, from: inside, to: servers, action: deny }\n    - { name: use-servers",
    );
    daemon.configure(&quarantine);
    daemon.signal(Signal::SIGHUP);
    until("the document's denial wins", || !reaches(inside, to));
    assert_eq!(
        decider(&daemon, "inside", inside.v4.into(), server.v4.into()),
        "quarantine"
    );
    assert!(reaches(world, to));
    daemon.configure(CONFIGURATION);
    daemon.signal(Signal::SIGHUP);
    until("it may again", || reaches(inside, to));
    cluster.merge(WEB, &json!({ "metadata": { "labels": { "app": "batch" } } }));
    until("it may not", || !reaches(inside, to));

    // Without the API what was in force stays, over a restart and a crash too.
    cluster.env.stop_apiserver();
    assert!(reaches(world, to) && !reaches(inside, to));
    assert!(daemon.end(Signal::SIGTERM).success(), "{}", daemon.log());
    daemon.restart();
    assert!(reaches(world, to), "{}", daemon.log());
    assert!(!reaches(inside, to), "{}", daemon.log());
    assert_eq!(hits(&daemon)[0].0, DENIAL);
    assert_eq!(get(&topology, "/readyz").0, 200);
    assert!(!daemon.end(Signal::SIGKILL).success());
    daemon.restart();
    assert!(reaches(world, to) && !reaches(inside, to), "{}", daemon.log());

    // Where nobody knows what is isolated, everything is, and the instance is not ready; until the API says.
    assert!(daemon.end(Signal::SIGTERM).success(), "{}", daemon.log());
    daemon.forget("network-policies.json");
    daemon.restart();
    assert!(!reaches(world, to) && !reaches(inside, to), "{}", daemon.log());
    let (status, text) = get(&topology, "/readyz");
    assert!(
        status == 503 && text.contains("[-]network-policies: everything is denied until"),
        "{text}"
    );
    cluster.start_again();
    until("the API has said", || reaches(world, to) && !reaches(inside, to));
    assert_eq!(get(&topology, "/readyz").0, 200);
}

/// What a pod sends, by address and port: in a block and not in it, in it and excepted, in a range of ports and beside it.
#[test]
fn kube_agent_enforces_egress_to_blocks_with_exceptions_and_ranges_of_ports() {
    const ISOLATION: &str = "mnp/default/web/egress/isolation";
    const WEB_POLICY: &str = "/apis/k8s.cni.cncf.io/v1beta1/namespaces/default/multi-networkpolicies/web";
    if !privileged() {
        return;
    }
    let topology = segments("bhk-egr");
    let (inside, server, world) = (
        topology.host("inside"),
        topology.host("server"),
        topology.host("world"),
    );
    // The world is permitted every port by the document, the server one.
    let reached: Vec<SocketAddr> = (PORT - 1..=PORT + 2)
        .flat_map(|port| [world.v4_port(port), world.v6_port(port)])
        .collect();
    let on_world = reached
        .iter()
        .map(|address| TcpServer::start(&world.namespace, *address));
    let _on_world: Vec<TcpServer> = on_world.map(|started| started.expect("a server")).collect();
    let in_segment = [server.v4_port(PORT), server.v6_port(PORT)];
    let _in_segment =
        in_segment.map(|address| TcpServer::start(&server.namespace, address).expect("a server"));
    // Networks by the third number of their addresses, as the topology gives them.
    let (segment, outside) = (["10.77.1.0/24", "fd77:1::/64"], ["10.77.2.0/24", "fd77:2::/64"]);
    let all = ["10.77.0.0/16", "fd77::/16"];
    assert!(
        server.v4.to_string().starts_with("10.77.1.") && world.v6.to_string().starts_with("fd77:2::"),
        "{} {}",
        server.v4,
        world.v6
    );
    let cluster = Cluster::start(topology.firewall(), &["multiNetworkPolicies=true"]);
    cluster.define_network_policies();
    let kubeconfig = cluster.kubeconfig();
    cluster.create(PODS, &pod("web-0", "web", inside));
    let daemon = Launch::new(CONFIGURATION)
        .arguments(&[
            "--network-policies=on",
            "--kubeconfig",
            kubeconfig.to_str().expect("text"),
        ])
        .start(&topology);
    until("the document alone decides", || {
        reached.iter().chain(&in_segment).all(|to| reaches(inside, *to))
    });

    // An egress rule for both families, and the ports from 7000 to 7001.
    let egress = |blocks: [Value; 2]| {
        let to: Vec<Value> = blocks
            .into_iter()
            .map(|block| json!({ "ipBlock": block }))
            .collect();
        json!({ "spec": {
            "podSelector": { "matchLabels": { "app": "web" } }, "policyTypes": ["Egress"],
            "egress": [{ "to": to, "ports": [{ "protocol": "TCP", "port": PORT, "endPort": PORT + 1 }] }],
        } })
    };
    let plain = |cidr: [&str; 2]| cidr.map(|cidr| json!({ "cidr": cidr }));
    cluster.create(POLICIES, &policy("web", &egress(plain(outside))));
    until("the server is beyond the block", || {
        !reaches(inside, in_segment[0])
    });
    assert!(!reaches(inside, in_segment[1]));
    for to in &reached {
        let within = (PORT..=PORT + 1).contains(&to.port());
        assert_eq!(reaches(inside, *to), within, "{to}");
    }
    assert!(hits_of(&daemon, ISOLATION) > 0);
    // All of it but what is excepted.
    let excepting = [0, 1].map(|family| json!({ "cidr": all[family], "except": [outside[family]] }));
    cluster.merge(WEB_POLICY, &egress(excepting));
    until("the world is excepted", || !reaches(inside, reached[2]));
    for to in &reached {
        assert!(!reaches(inside, *to), "{to}");
    }
    for to in in_segment {
        assert!(reaches(inside, to), "{to} is in the block and not excepted");
    }
    // Without the exception it is the same block; with the other one it is the other way round.
    cluster.merge(WEB_POLICY, &egress(plain(all)));
    until("nothing is excepted", || {
        reaches(inside, reached[2]) && reaches(inside, reached[3])
    });
    let excepting = [0, 1].map(|family| json!({ "cidr": all[family], "except": [segment[family]] }));
    cluster.merge(WEB_POLICY, &egress(excepting));
    until("the server is excepted", || !reaches(inside, in_segment[0]));
    assert!(!reaches(inside, in_segment[1]));
    assert!(reaches(inside, reached[2]) && reaches(inside, reached[3]));
}

/// Ends the sender, whatever becomes of the test.
struct Stopping<'s>(&'s AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A pod that goes from one set of alike pods to another is never in neither, whether that is a step of members or takes a commit.
#[test]
fn kube_agent_lets_nothing_through_while_an_isolated_pod_changes_its_labels() {
    const CHANGES: usize = 40;
    /// That many packets are sent around each of them, however slow the machine is: fewer would not notice.
    const PACKETS: u64 = 150;
    if !privileged() {
        return;
    }
    let topology = segments("bhk-flip");
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let cluster = Cluster::start(topology.firewall(), &["multiNetworkPolicies=true"]);
    cluster.define_network_policies();
    let kubeconfig = cluster.kubeconfig();
    // Each color is isolated by a policy of its own, and takes nothing.
    for color in ["red", "blue"] {
        let spec = json!({ "spec": { "podSelector": { "matchLabels": { "app": color } }, "policyTypes": ["Ingress"] } });
        cluster.create(POLICIES, &policy(color, &spec));
    }
    cluster.create(PODS, &pod("web-0", "red", server));
    let configuration = CONFIGURATION
        .replace("tcp: 7000 }", "tcp: 7000, udp: 7000 }")
        .replace("  sessions:", "  size: { policies: 7 }\n  sessions:");
    let daemon = Launch::new(&configuration)
        .arguments(&[
            "--network-policies=on",
            "--kubeconfig",
            kubeconfig.to_str().expect("text"),
        ])
        .start(&topology);
    daemon.await_log("network policies in force");

    let listening = || UdpSocket::bind(server.v4_port(PORT));
    let listening = server.namespace.run(listening).expect("a socket");
    listening.set_nonblocking(true).expect("a socket");
    let sending = || UdpSocket::bind((inside.v4, 0));
    let sending = inside.namespace.run(sending).expect("a socket");
    let stop = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    let arrived = || {
        let mut buffer = [0; 64];
        std::iter::from_fn(|| listening.recv(&mut buffer).ok()).count()
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // What the sender's own queue drops is not sent.
                if sending.send_to(b"hello", server.v4_port(PORT)).is_ok() {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                thread::sleep(Duration::from_micros(50));
            }
        });
        let stopping = Stopping(&stop);
        // With others of either color it is a step of members, alone it takes a commit: groups come and go.
        let mut steps = 0;
        for others in [false, true] {
            if others {
                for (name, color) in [("other-0", "red"), ("other-1", "blue")] {
                    cluster.create(PODS, &pod(name, color, topology.host("world")));
                }
                thread::sleep(Duration::from_millis(500));
            }
            let before = generation(&daemon);
            for change in 0..CHANGES / 2 {
                let color = ["blue", "red"][change % 2];
                let enough = sent.load(Ordering::Relaxed) + PACKETS;
                cluster.merge(WEB, &json!({ "metadata": { "labels": { "app": color } } }));
                thread::sleep(Duration::from_millis(60));
                until("packets are sent", || sent.load(Ordering::Relaxed) >= enough);
            }
            thread::sleep(Duration::from_millis(300));
            let commits = generation(&daemon) - before;
            assert_eq!(commits == 0, others, "{commits} commits:\n{}", daemon.log());
            steps += daemon.log().matches("pods of network policies in force").count();
        }
        assert!(
            steps >= CHANGES / 4,
            "{steps} steps of members:\n{}",
            daemon.log()
        );
        let sent = sent.load(Ordering::Relaxed);
        assert_eq!(arrived(), 0, "of {sent} packets to a pod that is isolated");

        // That is not for want of a way: one that is not isolated takes them.
        cluster.merge(WEB, &json!({ "metadata": { "labels": { "app": "green" } } }));
        until("packets arrive", || arrived() > 0);
        drop(stopping);
    });

    // An isolation has half of the tables, and a larger document what is left: what does not fit changes no policy.
    let shown = hits(&daemon).len();
    let ports: Vec<Value> = (1..9)
        .map(|port| json!({ "ports": [{ "port": port }] }))
        .collect();
    let large = json!({ "spec": { "podSelector": {}, "policyTypes": ["Ingress"], "ingress": ports } });
    cluster.create(POLICIES, &policy("large", &large));
    daemon.await_log("are more than their share of the tables, which is 3; raise spec.size.policies");
    assert_eq!(hits(&daemon).len(), shown);
    let more: String = (0..4)
        .map(|number| format!("    - {{ name: more-{number}, from: inside, to: outside, action: deny }}\n"))
        .collect();
    daemon.configure(&configuration.replace("  nat:", &format!("{more}  nat:")));
    daemon.signal(Signal::SIGHUP);
    daemon.await_log("reload refused");
    assert_eq!(hits(&daemon).len(), shown);
}
