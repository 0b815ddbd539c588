//! How an object is understood, what is said where it is not, and what becomes of it then.

use serde_json::{Value, json};

use super::{Policy, policy, read};
use crate::mnp::policy::Networks;
use crate::mnp::ports::Span;
use crate::mnp::rule::{Peer, Port};
use crate::mnp::{POLICY_FOR, resource};

fn of(spec: Value) -> Policy {
    read(&policy("shop", "db", "app-net", spec))
}

/// The only fault.
fn fault(policy: &Policy) -> String {
    assert_eq!(policy.faults.len(), 1, "{:?}", policy.faults);
    policy.faults[0].to_string()
}

/// Whether it isolates these directions, with no rule in them.
fn permits_nothing(policy: &Policy) -> (bool, bool) {
    let rules = [&policy.ingress, &policy.egress];
    let all = rules.into_iter().flatten().flatten();
    let mut granting = all.filter(|rule| {
        let nobody = rule.peers.as_ref().is_some_and(Vec::is_empty);
        !(nobody || rule.ports.as_ref().is_some_and(Vec::is_empty))
    });
    assert_eq!(granting.next(), None);
    (policy.ingress.is_some(), policy.egress.is_some())
}

#[test]
fn the_directions_are_those_that_network_policy_defaults_to() {
    let rule = || json!([{}]);
    for (spec, expected) in [
        (json!({ "podSelector": {} }), (true, false)),
        (json!({ "podSelector": {}, "policyTypes": [] }), (true, false)),
        (
            json!({ "podSelector": {}, "policyTypes": null, "egress": null }),
            (true, false),
        ),
        (json!({ "egress": rule() }), (true, true)),
        (json!({ "egress": [] }), (true, false)),
        (json!({ "policyTypes": ["Egress"] }), (false, true)),
        (
            json!({ "policyTypes": ["Egress"], "ingress": rule() }),
            (false, true),
        ),
        (
            json!({ "policyTypes": ["Ingress"], "egress": rule() }),
            (true, false),
        ),
        (json!({ "policyTypes": ["Ingress", "Egress"] }), (true, true)),
    ] {
        let policy = of(spec.clone());
        assert_eq!(policy.faults, [], "{spec}");
        assert_eq!(
            (policy.ingress.is_some(), policy.egress.is_some()),
            expected,
            "{spec}"
        );
    }
}

#[test]
fn absent_and_empty_lists_are_everybody_and_everything() {
    for rule in [
        json!({}),
        json!({ "from": [], "ports": [] }),
        json!({ "from": null }),
    ] {
        let policy = of(json!({ "ingress": [rule.clone()] }));
        let rules = policy.ingress.expect("ingress");
        assert_eq!((&rules[0].peers, &rules[0].ports), (&None, &None), "{rule}");
    }
    assert_eq!(
        of(json!({ "ingress": [] })).ingress,
        Some(Vec::new()),
        "no rule is nobody"
    );
}

#[test]
fn networks_are_those_of_the_policy_s_namespace_unless_they_say_so() {
    for (annotation, expected) in [
        ("app-net", vec!["shop/app-net"]),
        ("default/app-net, db-net,", vec!["default/app-net", "shop/db-net"]),
    ] {
        let read = read(&policy("shop", "db", annotation, json!({})));
        let expected = expected.iter().map(|name| name.parse().expect("a network"));
        assert_eq!(read.networks, Networks::These(expected.collect()), "{annotation}");
        assert_eq!(read.faults, []);
    }
    for annotation in ["", " , "] {
        let read = read(&policy("shop", "db", annotation, json!({})));
        assert_eq!(read.networks, Networks::These([].into()), "{annotation}");
        assert_eq!(
            fault(&read),
            format!(
                "metadata.annotations[{POLICY_FOR}]: names no network, write NAMESPACE/NAME of network attachments: \
                 it isolates nobody"
            )
        );
    }
    let read = read(&policy(
        "shop",
        "db",
        "app-net, a/b/c",
        json!({ "ingress": [{}] }),
    ));
    assert_eq!(read.networks, Networks::Every);
    assert_eq!(permits_nothing(&read), (true, false));
    assert!(
        fault(&read).contains("\"a/b/c\" names no network"),
        "{}",
        fault(&read)
    );
}

#[test]
fn ports_are_numbers_ranges_and_names() {
    let span = |protocol, first, last| {
        Port::Span(Span {
            protocol,
            first,
            last,
        })
    };
    for (port, expected) in [
        (json!({}), span(6, 0, 65_535)),
        (json!({ "protocol": "UDP" }), span(17, 0, 65_535)),
        (
            json!({ "protocol": "SCTP", "port": 5_000 }),
            span(132, 5_000, 5_000),
        ),
        (json!({ "port": 80, "endPort": 90 }), span(6, 80, 90)),
        (json!({ "port": "443" }), span(6, 443, 443)),
        (
            json!({ "protocol": "UDP", "port": "dns" }),
            Port::Named(17, "dns".to_owned()),
        ),
    ] {
        let policy = of(json!({ "ingress": [{ "ports": [port.clone()] }] }));
        assert_eq!(policy.faults, [], "{port}");
        let rules = policy.ingress.expect("ingress");
        assert_eq!(rules[0].ports, Some(vec![expected]), "{port}");
    }
}

#[test]
fn a_port_that_is_not_understood_permits_nothing_and_says_why() {
    for (port, expected) in [
        (
            json!({ "protocol": "ICMP" }),
            "protocol: \"ICMP\" is not TCP, UDP or SCTP",
        ),
        (
            json!({ "protocol": 6 }),
            "protocol: 6 is not text, put it in quotes",
        ),
        (json!({ "port": 0 }), "port: 0 is not a port, write 1 to 65535"),
        (
            json!({ "port": 70_000 }),
            "port: 70000 is not a port, write 1 to 65535",
        ),
        (
            json!({ "port": "-1" }),
            "port: \"-1\" is not a port, write 1 to 65535",
        ),
        (
            json!({ "port": true }),
            "port: true is not a port, write 1 to 65535",
        ),
        (json!({ "endPort": 90 }), "endPort: stands without port"),
        (
            json!({ "port": 90, "endPort": 80 }),
            "endPort: 80 is less than port 90",
        ),
        (
            json!({ "port": "http", "endPort": 80 }),
            "endPort: stands beside the name \"http\", write numbers",
        ),
    ] {
        let policy = of(json!({ "ingress": [{ "ports": [port.clone()] }] }));
        assert_eq!(permits_nothing(&policy), (true, false), "{port}");
        assert_eq!(
            fault(&policy),
            format!("spec.ingress[0].ports[0].{expected}: this port permits nothing")
        );
    }
    let policy = of(json!({ "ingress": [{ "ports": [{ "port": 0 }, { "port": 80 }] }] }));
    let rules = policy.ingress.as_ref().expect("ingress");
    assert_eq!(
        rules[0].ports.as_ref().map(Vec::len),
        Some(1),
        "the other one stays"
    );
}

#[test]
fn a_peer_that_is_not_understood_is_nobody_and_says_why() {
    for (peer, expected) in [
        (
            json!({}),
            ": names nobody, write ipBlock, namespaceSelector or podSelector",
        ),
        (
            json!({ "podSelectr": {} }),
            ": field \"podSelectr\" is not known, write one of ipBlock, namespaceSelector, podSelector",
        ),
        (json!("everybody"), ": \"everybody\" is not a mapping"),
        (
            json!({ "ipBlock": {} }),
            ".ipBlock: has no cidr, write one such as 10.4.0.0/16",
        ),
        (
            json!({ "ipBlock": { "cidr": "10.0.0.0/8" }, "podSelector": {} }),
            ": has ipBlock beside a selector, write two peers",
        ),
        (
            json!({ "ipBlock": { "cidr": "10.0.0.0/33" } }),
            ".ipBlock.cidr: \"10.0.0.0/33\" is not a network, write one such as 10.4.0.0/16",
        ),
        (
            json!({ "ipBlock": { "cidr": "::ffff:10.0.0.0/104" } }),
            ".ipBlock.cidr: \"::ffff:10.0.0.0/104\" is not a network, write one such as 10.4.0.0/16",
        ),
        (
            json!({ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.1.0.0"] } }),
            ".ipBlock.except[0]: \"10.1.0.0\" is not a network, write one such as 10.4.0.0/16",
        ),
        (
            json!({ "podSelector": { "matchLabels": { "tier": 1 } } }),
            ".podSelector.matchLabels.tier: 1 is not text, put it in quotes",
        ),
        (
            json!({ "podSelector": { "matchExpressions": [{ "key": "app", "operator": "Is" }] } }),
            ".podSelector.matchExpressions[0].operator: \"Is\" is not In, NotIn, Exists or DoesNotExist",
        ),
        (
            json!({ "podSelector": { "matchExpressions": [{ "key": "app", "operator": "NotIn" }] } }),
            ".podSelector.matchExpressions[0]: NotIn has no values, list at least one",
        ),
    ] {
        let policy = of(json!({ "policyTypes": ["Egress"], "egress": [{ "to": [peer.clone()] }] }));
        assert_eq!(permits_nothing(&policy), (false, true), "{peer}");
        assert_eq!(
            fault(&policy),
            format!("spec.egress[0].to[0]{expected}: this peer is nobody")
        );
    }
    // Bits behind the length do not count, as the API server has it.
    let policy = of(json!({ "ingress": [{ "from": [{ "ipBlock": { "cidr": "10.0.7.9/16" } }] }] }));
    let rules = policy.ingress.expect("ingress");
    let Some([Peer::Block(block)]) = rules[0].peers.as_deref() else {
        panic!("{rules:?}")
    };
    assert_eq!(block.network.to_string(), "10.0.0.0/16");
}

#[test]
fn what_cannot_be_told_from_more_isolates_all_of_it() {
    let rules = json!([{}]);
    for (spec, expected) in [
        (
            json!(null),
            "spec: null is not a mapping: every pod of the namespace is isolated, and nothing is permitted",
        ),
        (
            json!({ "podSelector": { "matchLabel": {} }, "policyTypes": ["Ingress", "Egress"], "ingress": rules }),
            "spec.podSelector: field \"matchLabel\" is not known, write one of matchLabels, matchExpressions: every pod of \
             the namespace is isolated, and nothing is permitted",
        ),
        (
            json!({ "egres": rules, "ingress": rules }),
            "spec: field \"egres\" is not known, write one of podSelector, policyTypes, ingress, egress: ingress and egress \
             are isolated, and nothing is permitted",
        ),
        (
            json!({ "policyTypes": ["ingress"], "ingress": rules }),
            "spec.policyTypes[0]: \"ingress\" is not Ingress or Egress: ingress and egress are isolated, and nothing is \
             permitted",
        ),
        (
            json!({ "policyTypes": "Ingress", "ingress": rules }),
            "spec.policyTypes: \"Ingress\" is not a list: ingress and egress are isolated, and nothing is permitted",
        ),
    ] {
        let policy = of(spec.clone());
        assert_eq!(fault(&policy), expected);
        assert_eq!(permits_nothing(&policy), (true, true), "{spec}");
        assert!(policy.subjects.is_everything(), "{spec}");
    }
    let policy = of(json!({ "ingress": { "from": [] } }));
    assert_eq!(permits_nothing(&policy), (true, false));
    assert_eq!(
        fault(&policy),
        "spec.ingress: {\"from\":[]} is not a list: nothing is permitted in this direction"
    );
    let policy = of(json!({ "ingress": [{ "form": [{ "podSelector": {} }] }] }));
    assert_eq!(
        permits_nothing(&policy),
        (true, false),
        "misspelt, it would be everybody"
    );
    assert_eq!(
        fault(&policy),
        "spec.ingress[0]: field \"form\" is not known, write one of from, ports: this rule permits nothing"
    );
}

#[test]
fn an_object_without_anything_is_a_policy_with_faults() {
    let read = read(&json!({ "metadata": { "name": "x", "namespace": "shop" } }));
    assert_eq!(
        (read.name.as_str(), read.namespace.as_str(), read.faults.len()),
        ("x", "shop", 2)
    );
    assert_eq!(permits_nothing(&read), (true, true));
    let resource = resource();
    assert_eq!(
        (resource.api_version.as_str(), resource.plural.as_str()),
        ("k8s.cni.cncf.io/v1beta1", "multi-networkpolicies")
    );
}

#[test]
fn an_object_with_more_parts_than_one_may_have_isolates_and_permits_nothing() {
    let rules = |count: usize| json!({ "podSelector": {}, "ingress": vec![json!({}); count] });
    assert_eq!(of(rules(256)).faults, []);
    let blocks = |count: usize| {
        let blocks = vec![json!({ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"] } }); count];
        json!({ "podSelector": {}, "egress": [{ "to": blocks }], "policyTypes": ["Egress"] })
    };
    assert_eq!(of(blocks(1_024)).faults, []);
    let ports = |count: usize| json!({ "podSelector": {}, "ingress": [{ "ports": vec![json!({ "port": 1 }); count] }] });
    assert_eq!(of(ports(1_024)).faults, []);
    for (spec, what, isolated) in [
        (rules(257), "has 257 rules, more than 256", (true, false)),
        (
            blocks(1_025),
            "has 2050 blocks of addresses, more than 2048",
            (false, true),
        ),
        (ports(1_025), "has 1025 ports, more than 1024", (true, false)),
    ] {
        let policy = of(spec);
        let fault = fault(&policy);
        assert!(fault.starts_with("spec: ") && fault.contains(what), "{fault}");
        assert_eq!(permits_nothing(&policy), isolated);
    }
}
