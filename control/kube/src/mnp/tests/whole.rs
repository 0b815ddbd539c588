//! The isolation around a document, and how large it becomes.

use std::collections::BTreeMap;

use bulkhead_config::{Action, Group, GroupId, IpPrefix, Member, Policy as Entry, Selector};
use serde_json::{Value, json};

use super::examples::{DB, JOB, STRANGER, TCP, WEB, app, cluster, ingress};
use super::{Cluster, Isolation, first, labels, packet, pod, policy, with_ports};

/// As the daemon puts them together.
fn whole(isolation: &Isolation, document: &[(Action, &str, &str)]) -> (Isolation, Vec<Entry>) {
    let mut all = isolation.clone();
    let mut group = |text: &str| {
        let (address, length) = text.split_once('/').expect("a network");
        let address = address.parse().expect("an address");
        let prefix = IpPrefix::around(address, length.parse().expect("a length")).expect("a network");
        let members = vec![Member::Prefix(prefix)];
        all.groups.push(Group {
            members,
            ..Group::default()
        });
        Selector::OneOf(vec![GroupId(all.groups.len() as u32 - 1)])
    };
    let document: Vec<Entry> = document
        .iter()
        .map(|&(action, source, destination)| Entry {
            name: "document".to_owned(),
            from: Selector::Any,
            to: Selector::Any,
            source: group(source),
            destination: group(destination),
            service: Selector::Any,
            action,
            log: Vec::new(),
            line: 1,
        })
        .collect();
    let entries = [isolation.denials.clone(), document, isolation.permits.clone()].concat();
    (all, entries)
}

#[test]
fn a_denial_of_either_side_wins_and_a_permit_needs_one_side() {
    let isolation = cluster(&[ingress(
        app("db"),
        json!([{ "from": [{ "podSelector": app("web") }, { "podSelector": app("job") }] }]),
    )])
    .isolate();
    let (all, entries) = whole(
        &isolation,
        &[
            // The job is in quarantine.
            (Action::Deny, "10.0.0.3/32", "0.0.0.0/0"),
            (Action::Permit, "0.0.0.0/0", "10.0.0.0/24"),
        ],
    );
    let asked = |source: &str, destination: &str| {
        let packet = packet(source, destination, TCP, 5_432);
        first(&all, &entries, &packet).map(|entry| (entry.action, entry.name.as_str()))
    };
    let permitted = Some((Action::Permit, "document"));
    assert_eq!(
        asked(JOB, DB),
        Some((Action::Deny, "document")),
        "the isolation permits, the document denies"
    );
    assert_eq!(
        asked(STRANGER, DB),
        Some((Action::Deny, "mnp/shop/one/ingress/isolation")),
        "the document permits, the isolation denies"
    );
    assert_eq!(asked(WEB, DB), permitted, "both permit");
    assert_eq!(asked(STRANGER, WEB), permitted, "the web server is not isolated");

    let (all, entries) = whole(&isolation, &[]);
    let asked =
        |source: &str, destination: &str| first(&all, &entries, &packet(source, destination, TCP, 5_432));
    assert_eq!(
        asked(JOB, DB).map(|entry| entry.action),
        Some(Action::Permit),
        "before the default deny"
    );
    assert_eq!(asked(STRANGER, WEB), None, "the default deny");
}

#[test]
fn ten_thousand_pods_are_as_many_policies_as_forty() {
    let spec = |number: usize| {
        json!({
            "podSelector": app(&format!("app-{number}")),
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                { "from": [{ "podSelector": app(&format!("app-{}", number + 1)) }], "ports": [{ "port": "http" }, { "port": 443 }] },
                { "from": [{ "namespaceSelector": {}, "podSelector": app("monitor") }], "ports": [{ "port": 9_090 }] },
            ],
            "egress": [{ "to": [{ "podSelector": app(&format!("app-{}", (number + 19) % 20)) }] }],
        })
    };
    let mut policies: Vec<Value> = (0..20)
        .map(|number| policy("shop", &format!("app-{number}"), "net/a", spec(number)))
        .collect();
    policies.push(policy("shop", "all", "net/a", json!({ "podSelector": {} })));
    let with = |replicas: usize| {
        let pods = (0..20).flat_map(|number| {
            (0..replicas).map(move |replica| {
                let name = format!("app-{number}-{replica}");
                let address = format!("10.{number}.{}.{}", replica / 250, replica % 250);
                let labels = [("app", &*format!("app-{number}")), ("pod", &*name)];
                with_ports(
                    pod("shop", &name, &labels, &[("net/a", &[&*address])]),
                    &[(TCP, "http", 8_080)],
                )
            })
        });
        let cluster = Cluster {
            policies: policies.clone(),
            pods: pods.collect(),
            namespaces: BTreeMap::from([("shop".to_owned(), labels(&[]))]),
        };
        cluster.isolate()
    };
    let (few, many) = (with(2), with(500));
    assert!(few.differs_in_members_only(&many));
    assert_eq!((few.pod_groups, many.pod_groups), (20, 20));
    let members = many.groups[..20]
        .iter()
        .map(|group| group.members.len())
        .sum::<usize>();
    assert_eq!(members, 10_000, "each address once");
    assert!(many.groups[20..].iter().all(|group| group.members.len() <= 2));
    let entries = many.denials.len() + many.permits.len();
    assert!(entries <= 20 * 6, "{entries} of 20 policies with three rules");
}
