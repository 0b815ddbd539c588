//! A small cluster as the API would have it, and two answers to whether a packet may pass: that of the compiled policies, first match, and
//! that of the specification ([`naive`]).

mod examples;
mod naive;
mod property;
mod reading;
mod whole;

use std::collections::BTreeMap;
use std::net::IpAddr;

use bulkhead_config::{Action, GroupId, Policy as Entry, Selector, ServiceId};
use serde_json::{Value, json};

use super::selector::Labels;
use super::{Isolation, Match, POLICY_FOR, Policy, World};
use crate::pod::{NamedPort, Pod};

/// What a packet meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// An end is isolated and does not permit it.
    Denied,
    /// An end is isolated, and every end that is permits it.
    Permitted,
    /// No end is isolated: no business of ours.
    Open,
}

/// A new conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    /// Destination port, or whatever stands in its place.
    port: u16,
}

/// What the API has. The policies are as they are written.
#[derive(Clone, Debug, Default)]
struct Cluster {
    policies: Vec<Value>,
    pods: Vec<Pod>,
    namespaces: BTreeMap<String, Labels>,
}

impl Cluster {
    fn read(&self) -> Vec<Policy> {
        self.policies.iter().map(read).collect()
    }

    fn isolate(&self) -> Isolation {
        let policies = self.read();
        let world = World {
            policies: policies.iter().collect(),
            pods: self.pods.iter().collect(),
            namespaces: &self.namespaces,
        };
        world.isolate()
    }
}

fn read(object: &Value) -> Policy {
    Policy::read(&serde_json::from_value(object.clone()).expect("an object of the API"))
}

/// An object with this `spec`.
fn policy(namespace: &str, name: &str, networks: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "k8s.cni.cncf.io/v1beta1", "kind": "MultiNetworkPolicy",
        "metadata": { "namespace": namespace, "name": name, "annotations": { POLICY_FOR: networks } },
        "spec": spec,
    })
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let owned = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    owned.collect()
}

fn pod(namespace: &str, name: &str, wears: &[(&str, &str)], attached: &[(&str, &[&str])]) -> Pod {
    let attached = attached.iter().map(|(network, addresses)| {
        let addresses = addresses
            .iter()
            .map(|address| address.parse().expect("an address"));
        (network.parse().expect("a network"), addresses.collect())
    });
    Pod {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: format!("{namespace}/{name}"),
        labels: labels(wears),
        attached: Some(attached.collect()),
        ..Pod::default()
    }
}

fn with_ports(pod: Pod, ports: &[(u8, &str, u16)]) -> Pod {
    let ports = ports.iter().map(|&(protocol, name, port)| NamedPort {
        name: name.to_owned(),
        protocol,
        port,
    });
    Pod {
        ports: ports.collect(),
        ..pod
    }
}

fn packet(source: &str, destination: &str, protocol: u8, port: u16) -> Packet {
    Packet {
        source: source.parse().expect("an address"),
        destination: destination.parse().expect("an address"),
        protocol,
        port,
    }
}

fn has(isolation: &Isolation, group: GroupId, address: IpAddr) -> bool {
    let group = &isolation.groups[group.0 as usize];
    let listed = |members: &[bulkhead_config::Member]| {
        members.iter().any(|member| {
            let range = member.range();
            range.first.is_ipv4() == address.is_ipv4() && range.first <= address && address <= range.last
        })
    };
    let any = |groups: &[GroupId]| groups.iter().any(|group| has(isolation, *group, address));
    (listed(&group.members) || any(&group.groups)) && !listed(&group.except) && !any(&group.except_groups)
}

fn serves(isolation: &Isolation, service: ServiceId, packet: &Packet) -> bool {
    isolation.services[service.0 as usize]
        .matches
        .iter()
        .any(|one| match *one {
            Match::Protocol(protocol) => protocol == packet.protocol,
            Match::Ports {
                protocol,
                first,
                last,
            } => protocol == packet.protocol && (first..=last).contains(&packet.port),
        })
}

fn any<T: PartialEq + Copy>(selector: &Selector<T>, is: impl Fn(T) -> bool) -> bool {
    match selector {
        Selector::Any => true,
        Selector::OneOf(ids) => ids.iter().any(|id| is(*id)),
    }
}

/// The first of the policies that matches, as the data plane takes it.
fn first<'e>(
    isolation: &Isolation,
    entries: impl IntoIterator<Item = &'e Entry>,
    packet: &Packet,
) -> Option<&'e Entry> {
    entries.into_iter().find(|entry| {
        any(&entry.source, |group| has(isolation, group, packet.source))
            && any(&entry.destination, |group| {
                has(isolation, group, packet.destination)
            })
            && any(&entry.service, |service| serves(isolation, service, packet))
    })
}

/// What the compiled policies say, with a document in between that says nothing.
fn compiled(isolation: &Isolation, packet: &Packet) -> Verdict {
    match first(
        isolation,
        isolation.denials.iter().chain(&isolation.permits),
        packet,
    ) {
        Some(entry) if entry.action == Action::Permit => Verdict::Permitted,
        Some(_) => Verdict::Denied,
        None => Verdict::Open,
    }
}
