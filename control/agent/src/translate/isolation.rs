//! An isolation around the document: what MultiNetworkPolicies come to, in the data plane's words.
//!
//! Owns the order, in which a denial of either side wins and a permit of one is enough: denials of the isolation, policies of the
//! document, permits of the isolation. Groups and services of the document keep their places, those of the isolation follow them;
//! its policies move the document's by as many as there are denials, which whoever reads hits by place must know
//! ([`in_order`]).

use bulkhead_config::{Config, Policy};
use bulkhead_dataplane::ruleset;
use bulkhead_kube::mnp::{Isolation, Match, Service};

/// The policies of both as they are asked.
pub fn in_order<'p>(config: &'p Config, isolation: &'p Isolation) -> impl Iterator<Item = &'p Policy> {
    let denials = isolation.denials.iter();
    denials.chain(&config.policies).chain(&isolation.permits)
}

/// Puts an isolation around the policies of a ruleset.
pub fn around(ruleset: &mut ruleset::Ruleset, isolation: &Isolation) {
    let (groups, services) = (ruleset.groups.len(), ruleset.services.len());
    let entry = |policy: &Policy| {
        let mut entry = super::policy(policy);
        for group in entry.source.iter_mut().chain(&mut entry.destination) {
            *group += groups;
        }
        for service in &mut entry.service {
            *service += services;
        }
        entry
    };
    for (number, written) in isolation.groups.iter().enumerate() {
        let mut group = super::group(written);
        for nested in group.groups.iter_mut().chain(&mut group.except_groups) {
            *nested += groups;
        }
        // Their members change without a commit.
        group.dynamic = number < isolation.pod_groups;
        ruleset.groups.push(group);
    }
    ruleset.services.extend(isolation.services.iter().map(service));
    let permits = isolation.permits.iter().map(entry);
    ruleset.policies.extend(permits);
    ruleset.policies.splice(0..0, isolation.denials.iter().map(entry));
}

fn service(service: &Service) -> ruleset::Service {
    let matches = service.matches.iter().map(|one| match *one {
        Match::Ports {
            protocol,
            first,
            last,
        } => ruleset::ServiceMatch::Ports {
            protocol,
            first,
            last,
        },
        Match::Protocol(protocol) => ruleset::ServiceMatch::Protocol(protocol),
    });
    ruleset::Service {
        name: service.name.clone(),
        matches: matches.collect(),
        timeout: None,
    }
}

/// The members of the groups of pods, by the groups' names.
pub fn members(isolation: &Isolation) -> impl Iterator<Item = (&str, Vec<ruleset::Prefix>)> {
    let pods = isolation.groups[..isolation.pod_groups].iter();
    pods.map(|group| (group.name.as_str(), super::prefixes(&group.members)))
}

#[cfg(test)]
mod tests {
    use bulkhead_dataplane::ruleset::{Action, ServiceMatch};
    use bulkhead_kube::mnp::Snapshot;

    use super::*;

    /// A database that takes one port from one pod, and SCTP from nobody.
    pub const SNAPSHOT: &str = r#"{
        "version": 1,
        "policies": [{
            "metadata": {
                "namespace": "shop", "name": "db", "uid": "u",
                "annotations": { "k8s.v1.cni.cncf.io/policy-for": "net/a" }
            },
            "spec": {
                "podSelector": { "matchLabels": { "app": "db" } },
                "ingress": [{
                    "from": [{ "podSelector": { "matchLabels": { "app": "web" } } }],
                    "ports": [{ "port": "sql" }]
                }]
            }
        }],
        "pods": [
            { "namespace": "shop", "labels": { "app": "db" }, "attached": [["net", "a", ["10.0.0.2", "2001:db8::2"]]],
              "ports": [["sql", 6, 5432]] },
            { "namespace": "shop", "labels": { "app": "web" }, "attached": [["net", "a", ["10.0.0.1"]]], "ports": [] }
        ],
        "namespaces": { "shop": { "team": "x" } }
    }"#;

    const DOCUMENT: &str = "
apiVersion: bulkhead.dev/v1alpha1
kind: Firewall
metadata: { name: edge }
spec:
  interfaces: [{ name: net1, zone: app }]
  zones: [{ name: app, hostInbound: [ping] }]
  addresses: [{ name: finance, members: [10.4.0.0/24] }]
  policies: [{ name: one, from: app, to: app, source: finance, service: https, action: reject }]
";

    #[test]
    fn denials_come_before_the_document_and_permits_behind_it() {
        let config = bulkhead_config::parse("test.yaml", DOCUMENT)
            .expect("a document")
            .config;
        let isolation = Snapshot::isolation(SNAPSHOT.as_bytes()).expect("an isolation");
        let alone = super::super::ruleset(&config);
        let mut ruleset = alone.clone();
        around(&mut ruleset, &isolation);

        let names: Vec<&str> = ruleset
            .policies
            .iter()
            .map(|policy| policy.name.as_str())
            .collect();
        let of_both: Vec<&str> = in_order(&config, &isolation)
            .map(|policy| policy.name.as_str())
            .collect();
        assert_eq!(names, of_both, "hits are read by place");
        let document = names
            .iter()
            .position(|name| *name == "one")
            .expect("the document's");
        assert!(document > 0 && document + 1 < names.len(), "{names:?}");
        let (denials, rest) = ruleset.policies.split_at(document);
        let (own, permits) = rest.split_at(1);
        assert_eq!(
            own, alone.policies,
            "the document's policies mean what they meant"
        );
        assert!(denials.iter().all(|policy| policy.action == Action::Deny));
        assert!(permits.iter().all(|policy| policy.action == Action::Permit));
        assert_eq!(ruleset.groups[..alone.groups.len()], alone.groups);
        assert_eq!(ruleset.services[..alone.services.len()], alone.services);
        assert_eq!(ruleset.zones, alone.zones);

        // The one permit is from the web server to the database on its port.
        let [permit] = permits else { panic!("{permits:?}") };
        assert_eq!(permit.name, "mnp/shop/db/ingress[0]");
        let members = |groups: &[usize]| -> Vec<String> {
            let groups = groups.iter().map(|group| &ruleset.groups[*group]);
            let members = groups.flat_map(|group| &group.members);
            members.map(|member| member.address.to_string()).collect()
        };
        assert_eq!(members(&permit.source), ["10.0.0.1"]);
        assert_eq!(members(&permit.destination), ["10.0.0.2", "2001:db8::2"]);
        let [service] = permit.service[..] else {
            panic!("{permit:?}")
        };
        assert_eq!(
            ruleset.services[service].matches,
            [ServiceMatch::Ports {
                protocol: 6,
                first: 5432,
                last: 5432
            }]
        );
        for group in permit.source.iter().chain(&permit.destination) {
            assert!(ruleset.groups[*group].dynamic, "a pod more is no commit");
        }
        // Whom a denial is not about it leaves out by a group that names those of pods, wherever they stand.
        let nested = ruleset.groups[alone.groups.len()..].iter();
        let left_out: Vec<usize> = nested.flat_map(|group| group.except_groups.clone()).collect();
        assert!(left_out.contains(&permit.source[0]), "{left_out:?}");
        let sctp = ServiceMatch::Protocol(132);
        let denied = denials.iter().flat_map(|policy| &policy.service);
        assert!(
            denied
                .clone()
                .any(|service| ruleset.services[*service].matches.contains(&sctp)),
            "nobody permits it"
        );
    }
}
