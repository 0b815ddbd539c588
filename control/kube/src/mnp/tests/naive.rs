//! NetworkPolicy as its specification reads, sentence by sentence, over the objects as they are written.
//!
//! Slow, and knows nothing of the types it is held against: it shares no line with the reader or the compiler. Assumes
//! objects that are right.

use std::net::IpAddr;

use serde_json::Value;

use super::{Cluster, Packet, Verdict};
use crate::mnp::selector::Labels;
use crate::place::Network;
use crate::pod::Pod;

/// "By default, a pod is non-isolated for egress [ingress]; all outbound [inbound] connections are allowed. A pod is isolated
/// if there is any NetworkPolicy that both selects the pod and has Egress [Ingress] in its policyTypes. … For a connection from
/// a source pod to a destination pod to be allowed, both the egress policy on the source pod and the ingress policy on
/// the destination pod need to allow the connection."
pub(super) fn verdict(cluster: &Cluster, packet: &Packet) -> Verdict {
    let mut isolated = false;
    for egress in [true, false] {
        let (own, other) = match egress {
            true => (packet.source, packet.destination),
            false => (packet.destination, packet.source),
        };
        for (pod, network) in ends(cluster, own) {
            let applying = cluster
                .policies
                .iter()
                .filter(|policy| applies(policy, egress, pod, network));
            let applying: Vec<&Value> = applying.collect();
            isolated |= !applying.is_empty();
            // "The policies are additive: what is allowed is the union of what they allow."
            let permits = |policy: &&Value| {
                let rules = list(&policy["spec"][if egress { "egress" } else { "ingress" }]);
                rules
                    .iter()
                    .any(|rule| permits(cluster, policy, rule, egress, (pod, network), other, packet))
            };
            if !applying.is_empty() && !applying.iter().any(permits) {
                return Verdict::Denied;
            }
        }
    }
    if isolated {
        Verdict::Permitted
    } else {
        Verdict::Open
    }
}

/// The pods that have an address, and on which network.
fn ends(cluster: &Cluster, address: IpAddr) -> impl Iterator<Item = (&Pod, &Network)> {
    let running = cluster.pods.iter().filter(|pod| !pod.finished);
    running.flat_map(move |pod| {
        let attached = pod.attached.iter().flatten();
        let with = attached.filter(move |(_, addresses)| addresses.contains(&address));
        with.map(move |(network, _)| (pod, network))
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn namespace(policy: &Value) -> &str {
    text(&policy["metadata"]["namespace"])
}

fn applies(policy: &Value, egress: bool, pod: &Pod, network: &Network) -> bool {
    let annotation = text(&policy["metadata"]["annotations"]["k8s.v1.cni.cncf.io/policy-for"]);
    let named = annotation
        .split(',')
        .map(str::trim)
        .any(|name| match name.split_once('/') {
            Some(whole) => whole == (&*network.namespace, &*network.name),
            None => name == network.name && namespace(policy) == network.namespace,
        });
    let spec = &policy["spec"];
    let types = list(&spec["policyTypes"]);
    // "If this field is not specified, it will default based on the existence of ingress or egress rules; policies that contain
    // an egress section are assumed to affect egress, and all policies (whether or not they contain an ingress section)
    // are assumed to affect ingress."
    let typed = match (types.is_empty(), egress) {
        (true, false) => true,
        (true, true) => !list(&spec["egress"]).is_empty(),
        (false, _) => types
            .iter()
            .any(|one| one == if egress { "Egress" } else { "Ingress" }),
    };
    named && typed && pod.namespace == namespace(policy) && selects(&spec["podSelector"], &pod.labels)
}

fn selects(selector: &Value, labels: &Labels) -> bool {
    let wanted = selector["matchLabels"].as_object();
    let equal = wanted
        .into_iter()
        .flatten()
        .all(|(key, value)| labels.get(key).map(String::as_str) == value.as_str());
    equal
        && list(&selector["matchExpressions"]).iter().all(|one| {
            let value = labels.get(text(&one["key"]));
            let listed = value.is_some_and(|value| list(&one["values"]).iter().any(|one| one == value));
            match text(&one["operator"]) {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                other => panic!("operator {other}"),
            }
        })
}

/// "Traffic is allowed that matches both ports and from [to]." Where the other end's address is that of several pods, one of
/// them must match both: a port's name is not lent to whoever has the same address.
fn permits(
    cluster: &Cluster,
    policy: &Value,
    rule: &Value,
    egress: bool,
    (pod, network): (&Pod, &Network),
    other: IpAddr,
    packet: &Packet,
) -> bool {
    let peers = list(&rule[if egress { "to" } else { "from" }]);
    let ports = list(&rule["ports"]);
    let there = ends(cluster, other).filter(|(_, there)| *there == network);
    // The address alone, and each pod that has it.
    let mut candidates = std::iter::once(None).chain(there.map(|(pod, _)| Some(pod)));
    candidates.any(|candidate| {
        // "If this field is empty or missing, this rule matches all sources." "… matches all ports."
        let peered = peers.is_empty()
            || peers
                .iter()
                .any(|peer| is_peer(cluster, policy, peer, candidate, other));
        let destination = if egress { candidate } else { Some(pod) };
        let ported = ports.is_empty() || ports.iter().any(|port| is_port(port, destination, packet));
        peered && ported
    })
}

fn is_peer(cluster: &Cluster, policy: &Value, peer: &Value, candidate: Option<&Pod>, other: IpAddr) -> bool {
    if let Some(block) = peer.get("ipBlock") {
        return within(other, text(&block["cidr"]))
            && !list(&block["except"])
                .iter()
                .any(|except| within(other, text(except)));
    }
    candidate.is_some_and(|pod| {
        // "If only podSelector is set: pods in the policy's own namespace. If only namespaceSelector: all pods in these
        // namespaces. If both: the pods matching podSelector in the namespaces matching namespaceSelector."
        let space = match peer.get("namespaceSelector") {
            None => pod.namespace == namespace(policy),
            Some(selector) => selects(selector, &cluster.namespaces[&pod.namespace]),
        };
        let labelled = peer
            .get("podSelector")
            .is_none_or(|selector| selects(selector, &pod.labels));
        space && labelled
    })
}

fn is_port(port: &Value, destination: Option<&Pod>, packet: &Packet) -> bool {
    let protocol = match port["protocol"].as_str() {
        None | Some("TCP") => 6,
        Some("UDP") => 17,
        Some("SCTP") => 132,
        Some(other) => panic!("protocol {other}"),
    };
    protocol == packet.protocol
        && match &port["port"] {
            Value::Null => true,
            Value::String(name) => destination.is_some_and(|pod| {
                let mut named = pod.ports.iter();
                named.any(|own| own.name == *name && own.protocol == protocol && own.port == packet.port)
            }),
            number => {
                let first = number.as_u64().expect("a number");
                let last = port["endPort"].as_u64().unwrap_or(first);
                (first..=last).contains(&u64::from(packet.port))
            }
        }
}

/// Bit by bit from the front.
fn within(address: IpAddr, network: &str) -> bool {
    let (base, length) = network.split_once('/').expect("a network");
    let (base, length): (IpAddr, usize) = (
        base.parse().expect("an address"),
        length.parse().expect("a length"),
    );
    let bits = |address: IpAddr| -> Vec<bool> {
        let bytes = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let bits = bytes
            .into_iter()
            .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1 == 1));
        bits.collect()
    };
    base.is_ipv4() == address.is_ipv4() && bits(base)[..length] == bits(address)[..length]
}
