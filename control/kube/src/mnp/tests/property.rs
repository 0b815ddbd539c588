//! Random clusters: the compiled policies against the specification; replicas; objects with something broken in them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bulkhead_config::Action;
use kube::core::DynamicObject;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};

use super::{Cluster, Packet, Verdict, compiled, labels, naive, policy, read, with_ports};
use crate::mnp::Snapshot;
use crate::mnp::selector::Labels;
use crate::pod::Pod;

const NAMESPACES: [&str; 3] = ["a", "b", "c"];
const NETWORKS: [&str; 2] = ["a/red", "b/blue"];
const PORTS: [u16; 12] = [0, 1, 52, 53, 54, 79, 80, 81, 1_000, 8_080, 65_534, 65_535];
const PROTOCOLS: [u8; 7] = [6, 6, 17, 132, 1, 58, 33];

/// Few addresses, so that two pods share one now and then, even between networks.
fn address(network: usize) -> impl Strategy<Value = IpAddr> {
    let v4 = (0..12_u8).prop_map(move |host| match host {
        0 => IpAddr::V4(Ipv4Addr::new(10, 0, 9, 9)),
        host => IpAddr::V4(Ipv4Addr::new(10, 0, network as u8, host)),
    });
    let v6 = (1..8_u16)
        .prop_map(move |host| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, network as u16, 0, 0, 0, host)));
    prop_oneof![v4, v6]
}

fn wears() -> impl Strategy<Value = Labels> {
    (
        option::of(select(vec!["web", "db"])),
        option::of(select(vec!["1", "2"])),
    )
        .prop_map(|(app, tier)| {
            let app = app.map(|app| ("app", app));
            let tier = tier.map(|tier| ("tier", tier));
            labels(&app.into_iter().chain(tier).collect::<Vec<_>>())
        })
}

fn pod() -> impl Strategy<Value = Pod> {
    let attached = (vec(address(0), 0..3), vec(address(1), 0..3));
    let ports = vec(
        (
            select(vec![6, 17, 132]),
            select(vec!["http", "dns"]),
            select(vec![53, 80, 8_080]),
        ),
        0..3,
    );
    (select(NAMESPACES.to_vec()), wears(), attached, ports, 0..10).prop_map(
        |(namespace, labels, (red, blue), ports, finished)| {
            let networks = NETWORKS.map(|name| name.parse().expect("a network"));
            let attached = networks.into_iter().zip([red, blue]);
            let pod = Pod {
                namespace: namespace.to_owned(),
                labels,
                attached: Some(attached.collect()),
                finished: finished == 0,
                ..Pod::default()
            };
            with_ports(pod, &ports)
        },
    )
}

fn selector() -> impl Strategy<Value = Value> {
    let expression = prop_oneof![
        (
            select(vec!["In", "NotIn"]),
            vec(select(vec!["web", "db", "1"]), 1..3)
        )
            .prop_map(|(operator, values)| json!({ "key": "app", "operator": operator, "values": values })),
        (
            select(vec!["app", "tier"]),
            select(vec!["Exists", "DoesNotExist"])
        )
            .prop_map(|(key, operator)| json!({ "key": key, "operator": operator })),
    ];
    let equal = prop_oneof![
        Just(json!({ "app": "web" })),
        Just(json!({ "app": "db" })),
        Just(json!({ "app": "web", "tier": "1" })),
        Just(json!({ "tier": "2" })),
    ];
    prop_oneof![
        3 => Just(json!({})),
        4 => equal.prop_map(|equal| json!({ "matchLabels": equal })),
        2 => expression.prop_map(|one| json!({ "matchExpressions": [one] })),
    ]
}

fn block() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({ "cidr": "10.0.0.0/16" })),
        Just(json!({ "cidr": "10.0.0.0/16", "except": ["10.0.1.0/24", "10.0.0.4/30"] })),
        Just(json!({ "cidr": "10.0.0.5/29" })),
        Just(json!({ "cidr": "0.0.0.0/0", "except": ["10.0.0.1/32"] })),
        Just(json!({ "cidr": "::/0" })),
        Just(json!({ "cidr": "2001:db8::/32", "except": ["2001:db8:0:1::/64"] })),
        Just(json!({ "cidr": "192.0.2.0/24" })),
    ]
}

fn peer() -> impl Strategy<Value = Value> {
    let space = prop_oneof![
        Just(json!({})),
        Just(json!({ "matchLabels": { "team": "x" } })),
        Just(json!({ "matchExpressions": [{ "key": "team", "operator": "DoesNotExist" }] })),
    ];
    prop_oneof![
        block().prop_map(|block| json!({ "ipBlock": block })),
        selector().prop_map(|pods| json!({ "podSelector": pods })),
        space
            .clone()
            .prop_map(|space| json!({ "namespaceSelector": space })),
        (space, selector())
            .prop_map(|(space, pods)| json!({ "namespaceSelector": space, "podSelector": pods })),
    ]
}

fn port() -> impl Strategy<Value = Value> {
    let protocol = option::of(select(vec!["TCP", "UDP", "SCTP"]));
    let which = prop_oneof![
        1 => Just(json!({})),
        3 => select(vec![1, 53, 80, 65_535]).prop_map(|port| json!({ "port": port })),
        2 => select(vec![(1, 53), (53, 80), (80, 80), (81, 65_535), (1, 65_535)])
            .prop_map(|(first, last)| json!({ "port": first, "endPort": last })),
        3 => select(vec!["http", "dns", "nobody"]).prop_map(|name| json!({ "port": name })),
    ];
    (protocol, which).prop_map(|(protocol, mut which)| {
        if let Some(protocol) = protocol {
            which["protocol"] = json!(protocol);
        }
        which
    })
}

/// A list that may be absent or empty.
fn list(one: impl Strategy<Value = Value>) -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        2 => Just(None),
        1 => Just(Some(json!([]))),
        5 => vec(one, 1..3).prop_map(|all| Some(json!(all))),
    ]
}

fn mapping(fields: impl IntoIterator<Item = (&'static str, Option<Value>)>) -> Value {
    let written = fields
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(Map::from_iter(written))
}

fn rule(peers: &'static str) -> impl Strategy<Value = Value> {
    (list(peer()), list(port())).prop_map(move |(who, ports)| mapping([(peers, who), ("ports", ports)]))
}

fn spec() -> impl Strategy<Value = Value> {
    let types = prop_oneof![
        Just(None),
        Just(Some(json!(["Ingress"]))),
        Just(Some(json!(["Egress"]))),
        Just(Some(json!(["Ingress", "Egress"]))),
    ];
    (selector(), types, list(rule("from")), list(rule("to"))).prop_map(|(pods, types, ingress, egress)| {
        mapping([
            ("podSelector", Some(pods)),
            ("policyTypes", types),
            ("ingress", ingress),
            ("egress", egress),
        ])
    })
}

fn cluster() -> impl Strategy<Value = Cluster> {
    let networks = select(vec!["a/red", "a/red, b/blue", "b/blue", "red", "blue,a/red"]);
    let policies = vec((select(NAMESPACES.to_vec()), networks, spec()), 0..6);
    let spaces = vec(option::of(select(vec!["x", "y"])), NAMESPACES.len());
    (policies, vec(pod(), 0..9), spaces).prop_map(|(policies, pods, spaces)| Cluster {
        policies: policies
            .into_iter()
            .enumerate()
            .map(|(number, (namespace, networks, spec))| {
                policy(namespace, &format!("p{number}"), networks, spec)
            })
            .collect(),
        pods,
        namespaces: NAMESPACES
            .iter()
            .zip(spaces)
            .map(|(name, team)| {
                let team = team.map(|team| ("team", team));
                ((*name).to_owned(), labels(&team.into_iter().collect::<Vec<_>>()))
            })
            .collect(),
    })
}

/// Picks for a packet: source, destination, protocol, port.
type Picks = (Index, Index, Index, Index);

fn picks() -> impl Strategy<Value = Vec<Picks>> {
    vec(any::<Picks>(), 150)
}

/// Packets between pods, and between them and others.
fn packets(cluster: &Cluster, picks: &[Picks]) -> Vec<Packet> {
    let others = [
        "10.0.0.1",
        "10.0.1.2",
        "10.0.7.7",
        "192.0.2.9",
        "203.0.113.1",
        "2001:db8::1",
        "2001:db9::1",
    ];
    let mut addresses: Vec<IpAddr> = others
        .iter()
        .map(|text| text.parse().expect("an address"))
        .collect();
    let attached = cluster.pods.iter().flat_map(|pod| pod.attached.iter().flatten());
    for address in attached.flat_map(|(_, addresses)| addresses) {
        // More often than strangers.
        addresses.extend([*address; 3]);
    }
    let packet = |(source, destination, protocol, port): &Picks| Packet {
        source: *source.get(&addresses),
        destination: *destination.get(&addresses),
        protocol: *protocol.get(&PROTOCOLS),
        port: *port.get(&PORTS),
    };
    picks.iter().map(packet).collect()
}

/// A value somewhere below, by its number in a walk; it is changed.
fn change(value: &mut Value, number: &mut usize, with: &mut dyn FnMut(&mut Value)) {
    if *number == 0 {
        with(value);
    }
    *number = number.wrapping_sub(1);
    match value {
        Value::Object(fields) => fields.values_mut().for_each(|value| change(value, number, with)),
        Value::Array(items) => items.iter_mut().for_each(|value| change(value, number, with)),
        _ => {}
    }
}

/// Writes something else into one place of a policy's `spec`, or gives one of its fields another name.
fn spoil(object: &mut Value, place: Index, how: usize) {
    let mut places = 0;
    count(&object["spec"], &mut places);
    let mut number = place.index(places);
    change(
        &mut object["spec"],
        &mut number,
        &mut |value| match (how, &mut *value) {
            (0, _) => *value = json!(-7),
            (1, _) => *value = json!("10.0.0.0/99"),
            (2, _) => *value = json!(["In"]),
            (3, _) => *value = json!({ "podSelectro": {} }),
            (_, Value::Object(fields)) => {
                if let Some((name, value)) = fields.clone().into_iter().next() {
                    fields.remove(&name);
                    fields.insert(format!("{name}s"), value);
                }
            }
            _ => *value = json!(70_000),
        },
    );
}

fn count(value: &Value, places: &mut usize) {
    *places += 1;
    match value {
        Value::Object(fields) => fields.values().for_each(|value| count(value, places)),
        Value::Array(items) => items.iter().for_each(|value| count(value, places)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, max_global_rejects: 8_192, ..ProptestConfig::default() })]

    #[test]
    fn the_compiled_policies_say_what_the_specification_says(cluster in cluster(), picks in picks()) {
        for policy in cluster.read() {
            prop_assert_eq!(&policy.faults, &[], "{:?}", policy);
        }
        let isolation = cluster.isolate();
        prop_assert!(isolation.denials.iter().all(|entry| entry.action == Action::Deny));
        prop_assert!(isolation.permits.iter().all(|entry| entry.action == Action::Permit));
        let names: BTreeSet<&str> = isolation.groups.iter().map(|group| &*group.name).collect();
        prop_assert_eq!(names.len(), isolation.groups.len(), "each group has a name of its own");
        for packet in packets(&cluster, &picks) {
            prop_assert_eq!(
                compiled(&isolation, &packet),
                naive::verdict(&cluster, &packet),
                "{:?} with {:#?}",
                packet,
                isolation
            );
        }
    }

    #[test]
    fn replicas_are_members_and_nothing_else(cluster in cluster()) {
        let mut larger = cluster.clone();
        let replicas = cluster.pods.iter().enumerate().map(|(number, pod)| {
            let mut replica = pod.clone();
            replica.uid = format!("replica {number}");
            for (number_of_network, addresses) in replica.attached.iter_mut().flatten().map(|(_, all)| all).enumerate() {
                for (place, address) in addresses.iter_mut().enumerate() {
                    *address = IpAddr::V4(Ipv4Addr::new(172, number as u8, number_of_network as u8, place as u8));
                }
            }
            // What no policy asks for does not count, as the label that each pod of a stateful set has.
            replica.labels.insert("index".to_owned(), number.to_string());
            replica
        });
        larger.pods.extend(replicas);
        let (before, after) = (cluster.isolate(), larger.isolate());
        prop_assert!(before.differs_in_members_only(&after), "{:#?} and {:#?}", before, after);
        let members = |isolation: &super::Isolation| -> usize {
            isolation.groups[..isolation.pod_groups].iter().map(|group| group.members.len()).sum()
        };
        prop_assert!(before.pod_groups == 0 || members(&after) > members(&before));
    }

    #[test]
    fn a_snapshot_comes_to_what_it_was_taken_of(cluster in cluster()) {
        let policies: Vec<DynamicObject> = cluster.policies.iter()
            .map(|policy| serde_json::from_value(policy.clone()).expect("an object"))
            .collect();
        let snapshot = Snapshot::of(policies.iter(), cluster.pods.iter(), &cluster.namespaces);
        let bytes = snapshot.bytes().expect("bytes");
        prop_assert_eq!(Snapshot::isolation(&bytes), Ok(cluster.isolate()));
        prop_assert!(Snapshot::isolation(&bytes[..bytes.len() - 1]).is_err(), "damaged");
    }

    #[test]
    fn what_is_not_understood_lets_nothing_more_through(
        cluster in cluster(),
        spoilt in (any::<Index>(), any::<Index>(), 0..6_usize),
        picks in picks(),
    ) {
        prop_assume!(!cluster.policies.is_empty());
        let mut broken = cluster.clone();
        let which = spoilt.0.index(broken.policies.len());
        spoil(&mut broken.policies[which], spoilt.1, spoilt.2);
        // What is valid all the same means something else, and no fault is told of.
        prop_assume!(!read(&broken.policies[which]).faults.is_empty());
        let (before, after) = (cluster.isolate(), broken.isolate());
        for packet in packets(&cluster, &picks) {
            let (before, after) = (compiled(&before, &packet), compiled(&after, &packet));
            prop_assert!(
                after == before || after == Verdict::Denied,
                "{packet:?} was {before:?} and is {after:?} with {:#}",
                broken.policies[which]
            );
        }
    }
}

#[test]
fn the_clusters_are_such_that_every_verdict_occurs() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeMap::new();
    let (mut with_faults, mut spoilt) = (0, 0);
    for round in 0..200 {
        let cluster = cluster().new_tree(&mut runner).expect("a cluster").current();
        let picks = picks().new_tree(&mut runner).expect("picks").current();
        for packet in packets(&cluster, &picks) {
            *seen.entry(naive::verdict(&cluster, &packet)).or_insert(0) += 1;
        }
        let place = any::<Index>().new_tree(&mut runner).expect("a place").current();
        for mut object in cluster.policies {
            spoil(&mut object, place, round % 6);
            spoilt += 1;
            with_faults += usize::from(!read(&object).faults.is_empty());
        }
    }
    let all: usize = seen.values().sum();
    for verdict in [Verdict::Denied, Verdict::Permitted, Verdict::Open] {
        let share = seen.get(&verdict).copied().unwrap_or(0) * 100 / all;
        assert!(share >= 3, "{verdict:?} is {share} of 100: {seen:?}");
    }
    assert!(
        with_faults * 3 > spoilt,
        "{with_faults} of {spoilt} are not understood"
    );
}
