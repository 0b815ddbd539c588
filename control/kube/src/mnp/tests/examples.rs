//! One example for each construct; each packet is asked of the specification too.

use serde_json::{Value, json};

use super::Verdict::{Denied, Open, Permitted};
use super::{Cluster, Isolation, Verdict, compiled, labels, naive, packet, pod, policy, with_ports};

pub(super) const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

pub(super) const WEB: &str = "10.0.0.1";
const WEB6: &str = "2001:db8::1";
pub(super) const DB: &str = "10.0.0.2";
const DB6: &str = "2001:db8::2";
pub(super) const JOB: &str = "10.0.0.3";
const AGENT: &str = "10.0.0.4";
pub(super) const STRANGER: &str = "198.51.100.1";

/// Two pods of a shop, one of its jobs, and one that monitors; the web server is on a second network too.
pub(super) fn cluster(policies: &[Value]) -> Cluster {
    let web = pod(
        "shop",
        "web",
        &[("app", "web")],
        &[("net/a", &[WEB, WEB6]), ("net/b", &["10.9.0.1"])],
    );
    let db = pod(
        "shop",
        "db",
        &[("app", "db"), ("tier", "1")],
        &[("net/a", &[DB, DB6])],
    );
    let agent = pod("ops", "agent", &[("app", "agent")], &[("net/a", &[AGENT])]);
    let namespaces = [
        ("shop", labels(&[("team", "shop")])),
        ("ops", labels(&[("team", "ops")])),
    ];
    Cluster {
        policies: policies.to_vec(),
        pods: vec![
            with_ports(web, &[(TCP, "http", 8_080), (UDP, "dns", 5_353)]),
            with_ports(db, &[(TCP, "sql", 5_432), (TCP, "http", 9_090)]),
            pod("shop", "job", &[("app", "job")], &[("net/a", &[JOB])]),
            agent,
        ],
        namespaces: namespaces
            .into_iter()
            .map(|(name, labels)| (name.to_owned(), labels))
            .collect(),
    }
}

pub(super) fn ingress(pods: Value, rules: Value) -> Value {
    policy(
        "shop",
        "one",
        "net/a",
        json!({ "podSelector": pods, "policyTypes": ["Ingress"], "ingress": rules }),
    )
}

fn egress(pods: Value, rules: Value) -> Value {
    policy(
        "shop",
        "one",
        "net/a",
        json!({ "podSelector": pods, "policyTypes": ["Egress"], "egress": rules }),
    )
}

pub(super) fn app(name: &str) -> Value {
    json!({ "matchLabels": { "app": name } })
}

fn check(policies: &[Value], expected: &[(&str, &str, u8, u16, Verdict)]) -> Isolation {
    let cluster = cluster(policies);
    for policy in cluster.read() {
        assert_eq!(policy.faults, []);
    }
    let isolation = cluster.isolate();
    for &(source, destination, protocol, port, verdict) in expected {
        let packet = packet(source, destination, protocol, port);
        assert_eq!(
            compiled(&isolation, &packet),
            verdict,
            "{packet:?} with {isolation:#?}"
        );
        assert_eq!(
            naive::verdict(&cluster, &packet),
            verdict,
            "{packet:?} by the specification"
        );
    }
    isolation
}

#[test]
fn without_policies_there_is_nothing() {
    assert_eq!(check(&[], &[(WEB, DB, TCP, 80, Open)]), Isolation::default());
}

#[test]
fn a_policy_without_rules_isolates() {
    let isolation = check(
        &[ingress(app("db"), json!([]))],
        &[
            (WEB, DB, TCP, 5_432, Denied),
            (WEB6, DB6, ICMPV6, 0x8000, Denied),
            (DB, WEB, TCP, 80, Open),
            (WEB, JOB, TCP, 80, Open),
        ],
    );
    assert_eq!((isolation.denials.len(), isolation.permits.len()), (1, 0));
    assert_eq!(isolation.denials[0].name, "mnp/shop/one/ingress/isolation");
}

#[test]
fn an_empty_rule_permits_everybody_everything() {
    let isolation = check(
        &[ingress(json!({}), json!([{}]))],
        &[
            (STRANGER, DB, ICMP, 0x800, Permitted),
            (STRANGER, AGENT, TCP, 80, Open),
        ],
    );
    assert_eq!((isolation.denials.len(), isolation.permits.len()), (0, 1));
    assert_eq!(isolation.permits[0].name, "mnp/shop/one/ingress[0]");
}

#[test]
fn pods_are_peers_in_the_policy_s_own_namespace() {
    check(
        &[ingress(
            app("db"),
            json!([{ "from": [{ "podSelector": app("web") }] }]),
        )],
        &[
            (WEB, DB, TCP, 80, Permitted),
            (WEB6, DB6, UDP, 0, Permitted),
            (JOB, DB, TCP, 80, Denied),
            (STRANGER, DB, TCP, 80, Denied),
            // The web server's address on another network is nobody's on this one.
            ("10.9.0.1", DB, TCP, 80, Denied),
        ],
    );
    check(
        &[ingress(
            app("db"),
            json!([{ "from": [{ "podSelector": app("agent") }] }]),
        )],
        &[(AGENT, DB, TCP, 80, Denied)],
    );
}

#[test]
fn namespaces_are_peers_alone_and_with_pods() {
    let ops = || json!({ "matchLabels": { "team": "ops" } });
    check(
        &[ingress(
            app("db"),
            json!([{ "from": [{ "namespaceSelector": ops() }] }]),
        )],
        &[(AGENT, DB, TCP, 80, Permitted), (WEB, DB, TCP, 80, Denied)],
    );
    check(
        &[ingress(
            app("db"),
            json!([{ "from": [{ "namespaceSelector": ops(), "podSelector": app("web") }] }]),
        )],
        &[(AGENT, DB, TCP, 80, Denied), (WEB, DB, TCP, 80, Denied)],
    );
    // Two entries are "or".
    check(
        &[ingress(
            app("db"),
            json!([{ "from": [{ "namespaceSelector": ops() }, { "podSelector": app("web") }] }]),
        )],
        &[
            (AGENT, DB, TCP, 80, Permitted),
            (WEB, DB, TCP, 80, Permitted),
            (JOB, DB, TCP, 80, Denied),
        ],
    );
    check(
        &[ingress(
            app("db"),
            json!([{ "from": [{ "namespaceSelector": {}, "podSelector": app("agent") }] }]),
        )],
        &[(AGENT, DB, TCP, 80, Permitted), (WEB, DB, TCP, 80, Denied)],
    );
}

#[test]
fn expressions_select_pods() {
    let absent = json!({ "matchExpressions": [{ "key": "tier", "operator": "DoesNotExist" }] });
    let not_job =
        json!({ "matchExpressions": [{ "key": "app", "operator": "NotIn", "values": ["job", "web"] }] });
    check(
        &[ingress(
            app("db"),
            json!([{ "from": [{ "podSelector": absent }] }]),
        )],
        &[
            (WEB, DB, TCP, 80, Permitted),
            (JOB, DB, TCP, 80, Permitted),
            (STRANGER, DB, TCP, 80, Denied),
        ],
    );
    check(
        &[ingress(not_job, json!([]))],
        &[(WEB, DB, TCP, 80, Denied), (DB, WEB, TCP, 80, Open)],
    );
}

#[test]
fn blocks_are_addresses_without_some() {
    let block = json!({ "ipBlock": { "cidr": "198.51.100.0/24", "except": ["198.51.100.64/26", "198.51.100.9/32"] } });
    let all6 = json!({ "ipBlock": { "cidr": "::/0", "except": ["2001:db8::/64"] } });
    check(
        &[ingress(app("db"), json!([{ "from": [block, all6] }]))],
        &[
            (STRANGER, DB, TCP, 80, Permitted),
            ("198.51.100.9", DB, TCP, 80, Denied),
            ("198.51.100.65", DB, TCP, 80, Denied),
            ("198.51.101.1", DB, TCP, 80, Denied),
            (WEB, DB, TCP, 80, Denied),
            ("2001:db9::1", DB6, TCP, 80, Permitted),
            (WEB6, DB6, TCP, 80, Denied),
        ],
    );
}

#[test]
fn ports_ranges_and_protocols_are_told_apart() {
    let ports = json!([{ "port": 80 }, { "port": 1_000, "endPort": 2_000 }, { "protocol": "UDP" }, { "protocol": "SCTP", "port": 36_412 }]);
    check(
        &[ingress(app("db"), json!([{ "ports": ports }]))],
        &[
            (STRANGER, DB, TCP, 80, Permitted),
            (STRANGER, DB, TCP, 0, Denied),
            (STRANGER, DB, TCP, 81, Denied),
            (STRANGER, DB, TCP, 999, Denied),
            (STRANGER, DB, TCP, 1_000, Permitted),
            (STRANGER, DB, TCP, 2_000, Permitted),
            (STRANGER, DB, TCP, 2_001, Denied),
            (STRANGER, DB, TCP, 65_535, Denied),
            (STRANGER, DB, UDP, 0, Permitted),
            (STRANGER, DB, SCTP, 36_412, Permitted),
            (STRANGER, DB, SCTP, 36_413, Denied),
            (STRANGER, DB, ICMP, 0x800, Denied),
        ],
    );
}

#[test]
fn what_different_policies_permit_adds_up_by_port() {
    let web = ingress(
        app("db"),
        json!([{ "from": [{ "podSelector": app("web") }], "ports": [{ "port": 5_432 }] }]),
    );
    let mut ops = ingress(
        json!({}),
        json!([{ "from": [{ "namespaceSelector": { "matchLabels": { "team": "ops" } } }], "ports": [{ "port": 9_090 }, { "port": 5_432 }] }]),
    );
    ops["metadata"]["name"] = json!("two");
    let isolation = check(
        &[web, ops],
        &[
            (WEB, DB, TCP, 5_432, Permitted),
            (WEB, DB, TCP, 9_090, Denied),
            (AGENT, DB, TCP, 5_432, Permitted),
            (AGENT, DB, TCP, 9_090, Permitted),
            (AGENT, DB, TCP, 80, Denied),
            (AGENT, WEB, TCP, 9_090, Permitted),
            (WEB, JOB, TCP, 9_090, Denied),
        ],
    );
    assert!(
        isolation
            .denials
            .iter()
            .any(|entry| entry.name == "mnp/shop/one+shop/two/ingress/isolation"),
        "a denial names who isolates: {:#?}",
        isolation.denials
    );
}

#[test]
fn names_of_ports_are_those_of_the_pod_that_is_connected_to() {
    check(
        &[ingress(json!({}), json!([{ "ports": [{ "port": "http" }] }]))],
        &[
            (STRANGER, WEB, TCP, 8_080, Permitted),
            (STRANGER, WEB, TCP, 9_090, Denied),
            (STRANGER, DB, TCP, 9_090, Permitted),
            (STRANGER, DB, TCP, 8_080, Denied),
            (STRANGER, JOB, TCP, 8_080, Denied),
        ],
    );
    check(
        &[egress(
            app("job"),
            json!([{ "ports": [{ "port": "http" }, { "port": "dns", "protocol": "UDP" }] }]),
        )],
        &[
            (JOB, WEB, TCP, 8_080, Permitted),
            (JOB, WEB, TCP, 9_090, Denied),
            (JOB, DB, TCP, 9_090, Permitted),
            (JOB, WEB, UDP, 5_353, Permitted),
            (JOB, WEB, TCP, 5_353, Denied),
            (JOB, STRANGER, TCP, 8_080, Denied),
            // Nobody has named a port there: that is another network.
            (JOB, "10.9.0.1", TCP, 8_080, Denied),
        ],
    );
    let block = json!({ "ipBlock": { "cidr": "10.0.0.0/31" } });
    check(
        &[egress(
            app("job"),
            json!([{ "to": [block], "ports": [{ "port": "http" }] }]),
        )],
        &[(JOB, WEB, TCP, 8_080, Permitted), (JOB, DB, TCP, 9_090, Denied)],
    );
}

#[test]
fn both_ends_must_permit() {
    let out = egress(
        app("web"),
        json!([{ "to": [{ "podSelector": app("db") }], "ports": [{ "port": 5_432 }] }]),
    );
    let mut into = ingress(app("db"), json!([{ "from": [{ "podSelector": app("web") }] }]));
    into["metadata"]["name"] = json!("two");
    check(
        &[out, into],
        &[
            (WEB, DB, TCP, 5_432, Permitted),
            (WEB, DB, TCP, 80, Denied),
            (JOB, DB, TCP, 5_432, Denied),
            (WEB, JOB, TCP, 5_432, Denied),
            (DB, WEB, TCP, 80, Open),
        ],
    );
}

#[test]
fn each_network_is_isolated_for_itself() {
    let both = policy(
        "shop",
        "one",
        "net/a,net/b",
        json!({ "podSelector": app("web"), "ingress": [{ "from": [{ "podSelector": {} }] }] }),
    );
    check(
        &[both],
        &[
            (DB, WEB, TCP, 80, Permitted),
            (DB, "10.9.0.1", TCP, 80, Denied),
            (WEB, DB, TCP, 80, Open),
        ],
    );
    let other = policy("shop", "one", "net/b", json!({ "podSelector": {} }));
    check(
        &[other],
        &[(WEB, DB, TCP, 80, Open), (STRANGER, "10.9.0.1", TCP, 80, Denied)],
    );
}

#[test]
fn an_address_that_two_pods_have_is_isolated_for_both() {
    let mut cluster = cluster(&[ingress(
        app("db"),
        json!([{ "from": [{ "podSelector": app("web") }] }]),
    )]);
    // The successor of the job has the database's old address, and the database is not gone yet.
    cluster
        .pods
        .push(pod("shop", "job-2", &[("app", "job")], &[("net/a", &[DB])]));
    let isolation = cluster.isolate();
    assert_eq!(compiled(&isolation, &packet(STRANGER, DB, TCP, 80)), Denied);
    cluster
        .pods
        .iter_mut()
        .find(|pod| pod.name == "db")
        .expect("the database")
        .finished = true;
    let isolation = cluster.isolate();
    assert_eq!(compiled(&isolation, &packet(STRANGER, DB, TCP, 80)), Open);
}

#[test]
fn a_name_of_a_port_is_not_lent_to_another_pod_with_the_same_address() {
    let agents = json!({ "namespaceSelector": { "matchLabels": { "team": "ops" } } });
    let mut cluster = cluster(&[egress(
        app("job"),
        json!([{ "to": [agents], "ports": [{ "port": "http" }] }]),
    )]);
    // The web server calls 8080 so, and may not be reached; the agent may, and has given no port a name.
    cluster
        .pods
        .push(pod("ops", "agent-2", &[("app", "agent")], &[("net/a", &[WEB])]));
    let packet = packet(JOB, WEB, TCP, 8_080);
    assert_eq!(compiled(&cluster.isolate(), &packet), Denied);
    assert_eq!(naive::verdict(&cluster, &packet), Denied);
}

#[test]
fn a_namespace_that_nobody_knows_is_only_in_all_namespaces() {
    let any = ingress(app("db"), json!([{ "from": [{ "namespaceSelector": {} }] }]));
    let without = json!({ "matchExpressions": [{ "key": "team", "operator": "DoesNotExist" }] });
    let unnamed = ingress(app("db"), json!([{ "from": [{ "namespaceSelector": without }] }]));
    for (policy, verdict) in [(any, Permitted), (unnamed, Denied)] {
        let mut cluster = cluster(&[policy]);
        cluster.namespaces.remove("ops");
        assert_eq!(compiled(&cluster.isolate(), &packet(AGENT, DB, TCP, 80)), verdict);
    }
}
