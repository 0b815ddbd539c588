//! A pod, as far as a firewall cares: its labels, whether it runs, its ports, and its addresses on each network.
//!
//! Owns the reading of `k8s.v1.cni.cncf.io/network-status`, of which every field is optional. Of what the API sends only this
//! is kept: ten thousand pods are a few megabytes. Refuses nothing: what cannot be read is as if it were not there
//! yet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kube::core::Object;
use serde::Deserialize;

use crate::place::Network;

/// The annotation in which the CNI plug-in says which addresses a pod has on which network.
pub const NETWORK_STATUS: &str = "k8s.v1.cni.cncf.io/network-status";
/// Its name before it was standardised.
const NETWORKS_STATUS: &str = "k8s.v1.cni.cncf.io/networks-status";
/// The annotation that asks for networks.
const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";

/// The most addresses of one pod on one network that count. Whoever may annotate a pod could fill the tables of everybody else.
pub const MOST_ADDRESSES: usize = 16;

/// A pod as the API sends it, without what is not read.
pub type ApiPod = Object<PodSpec, PodStatus>;

/// Of `spec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodSpec {
    node_name: Option<String>,
    #[serde(default)]
    host_network: bool,
    #[serde(default)]
    containers: Vec<Container>,
}

#[derive(Clone, Debug, Deserialize)]
struct Container {
    #[serde(default)]
    ports: Vec<ContainerPort>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    name: Option<String>,
    #[serde(default)]
    container_port: u16,
    protocol: Option<String>,
}

/// Of `status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    phase: Option<String>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(default, rename = "podIPs")]
    pod_ips: Vec<PodIp>,
}

#[derive(Clone, Debug, Deserialize)]
struct PodIp {
    #[serde(default)]
    ip: String,
}

/// One entry of the annotation.
#[derive(Debug, Deserialize)]
struct Attachment {
    #[serde(default)]
    name: String,
    #[serde(default)]
    ips: Vec<String>,
}

/// What is known of the addresses of a pod on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// These, at least one.
    Known(Vec<IpAddr>),
    /// It will have some, and nobody says which yet.
    Pending,
    /// It is not attached, or runs no more.
    None,
}

/// A port that a pod has named.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedPort {
    /// Its name.
    pub name: String,
    /// The number of its protocol.
    pub protocol: u8,
    /// Its number.
    pub port: u16,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What tells it from another of the same name.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// It has ended, well or not: its addresses are or will be another's.
    pub finished: bool,
    /// It is on no node yet, or no kubelet has said its address: what is written about it is its author's word alone.
    pub unplaced: bool,
    /// Its own addresses are the node's.
    pub host_network: bool,
    /// Its own addresses; the node's are not.
    pub own: Vec<IpAddr>,
    /// Its addresses by network; `None`: nobody has said yet.
    pub attached: Option<BTreeMap<Network, Vec<IpAddr>>>,
    /// It asks for networks beside its own.
    pub asks: bool,
    /// The ports that have a name.
    pub ports: Vec<NamedPort>,
}

impl Pod {
    /// What is kept of what the API sends.
    pub fn new(pod: ApiPod) -> Self {
        let status = pod.status.unwrap_or_default();
        let namespace = pod.metadata.namespace.unwrap_or_default();
        let mut annotations = pod.metadata.annotations.unwrap_or_default();
        let told = annotations
            .remove(NETWORK_STATUS)
            .or_else(|| annotations.remove(NETWORKS_STATUS));
        let listed = status.pod_ips.into_iter().map(|one| one.ip);
        let mut own: Vec<IpAddr> = listed
            .chain(status.pod_ip)
            .filter_map(|address| address.parse().ok())
            .collect();
        own.sort_unstable();
        own.dedup();
        let unplaced = pod.spec.node_name.is_none_or(|node| node.is_empty()) || own.is_empty();
        if pod.spec.host_network {
            own.clear();
        }
        let ports = pod
            .spec
            .containers
            .into_iter()
            .flat_map(|container| container.ports);
        Self {
            attached: told.and_then(|told| attachments(&told, &namespace)),
            asks: annotations
                .get(NETWORKS)
                .is_some_and(|asked| !asked.trim().is_empty()),
            namespace,
            name: pod.metadata.name.unwrap_or_default(),
            uid: pod.metadata.uid.unwrap_or_default(),
            labels: pod.metadata.labels.unwrap_or_default(),
            unplaced,
            host_network: pod.spec.host_network,
            finished: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
            own,
            ports: ports
                .filter_map(|port| {
                    Some(NamedPort {
                        name: port.name?,
                        protocol: protocol(port.protocol.as_deref())?,
                        port: port.container_port,
                    })
                })
                .collect(),
        }
    }

    /// Its addresses on a network; `None`: the pods' own.
    pub fn addresses(&self, network: Option<&Network>) -> Addresses {
        if self.finished {
            return Addresses::None;
        }
        let Some(network) = network else {
            return match (self.own.is_empty() || self.unplaced, self.host_network) {
                (_, true) => Addresses::None,
                (true, false) => Addresses::Pending,
                (false, false) => Addresses::Known(first(&self.own)),
            };
        };
        match &self.attached {
            Some(attached) => match attached.get(network) {
                Some(_) if self.unplaced => Addresses::Pending,
                Some(addresses) if !addresses.is_empty() => Addresses::Known(first(addresses)),
                // Named without an address: layer 2, or not yet. Not named at all: not attached.
                Some(_) => Addresses::Pending,
                None => Addresses::None,
            },
            None if self.asks => Addresses::Pending,
            None => Addresses::None,
        }
    }

    /// How many of its addresses on a network are more than count.
    pub fn beyond(&self, network: Option<&Network>) -> usize {
        let addresses = match network {
            Some(network) => self.attached.as_ref().and_then(|attached| attached.get(network)),
            None => Some(&self.own),
        };
        addresses.map_or(0, |addresses| addresses.len().saturating_sub(MOST_ADDRESSES))
    }

    /// Takes over what is known of the same pod from before, where less is known now: an annotation that is away for a
    /// moment takes no address out of a group. Another pod of the same name has another `uid`.
    pub fn remembering(mut self, before: Option<&Self>) -> Self {
        if let Some(before) = before.filter(|before| before.uid == self.uid && !self.finished) {
            if self.attached.is_none() {
                self.attached = before.attached.clone();
            }
            if self.own.is_empty() {
                self.own = before.own.clone();
            }
            self.unplaced &= before.unplaced;
        }
        self
    }
}

/// Those of a pod's addresses that count.
fn first(addresses: &[IpAddr]) -> Vec<IpAddr> {
    addresses.iter().take(MOST_ADDRESSES).copied().collect()
}

/// The number of a protocol that has ports; TCP where none is named.
pub fn protocol(name: Option<&str>) -> Option<u8> {
    match name {
        None | Some("" | "TCP") => Some(6),
        Some("UDP") => Some(17),
        Some("SCTP") => Some(132),
        Some(_) => None,
    }
}

/// The addresses of each network; `None`: this is not what the annotation should be.
fn attachments(told: &str, own_namespace: &str) -> Option<BTreeMap<Network, Vec<IpAddr>>> {
    let entries: Vec<Attachment> = serde_json::from_str(told).ok()?;
    let mut attached: BTreeMap<Network, Vec<IpAddr>> = BTreeMap::new();
    for entry in entries {
        // The default network may go by a name without a namespace; an attachment without one is in the pod's own.
        let (namespace, name) = entry.name.split_once('/').unwrap_or((own_namespace, &entry.name));
        let network = Network {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        // Plug-ins are told to leave the length out, and some do not.
        let addresses = entry.ips.iter().filter_map(|address| {
            let address = address
                .split_once('/')
                .map_or(address.as_str(), |(address, _)| address);
            address.parse::<IpAddr>().ok()
        });
        attached.entry(network).or_default().extend(addresses);
    }
    for addresses in attached.values_mut() {
        addresses.sort_unstable();
        addresses.dedup();
    }
    Some(attached)
}

#[cfg(test)]
pub mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A pod as the API has it.
    pub fn pod(value: Value) -> Pod {
        Pod::new(serde_json::from_value(value).expect("a pod"))
    }

    fn attached(status: &str) -> Pod {
        pod(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web-0", "namespace": "shop", "uid": "u1", "labels": { "app": "web" },
                "annotations": { NETWORKS: "app-net", NETWORK_STATUS: status, "other": "x" },
            },
            "spec": { "nodeName": "node-1", "containers": [
                { "name": "a", "image": "b", "ports": [{ "name": "http", "containerPort": 8080 }, { "containerPort": 9 }] },
                { "name": "c", "ports": [{ "name": "dns", "containerPort": 53, "protocol": "UDP" }] },
            ] },
            "status": { "phase": "Running", "podIP": "10.244.0.9", "podIPs": [{ "ip": "10.244.0.9" }, { "ip": "fd00::9" }] },
        }))
    }

    const STATUS: &str = r#"[
        { "name": "cbr0", "interface": "eth0", "ips": ["10.244.0.9", "fd00::9"], "mac": "aa:bb", "default": true, "dns": {} },
        { "name": "default/app-net", "interface": "net1", "ips": ["192.0.2.7", "2001:db8::7/64"], "mtu": 1400, "gateway": ["192.0.2.1"] },
        { "name": "app-net", "interface": "net2", "ips": ["198.51.100.7"] },
        { "name": "default/layer2", "interface": "net3" }
    ]"#;

    fn network(text: &str) -> Network {
        text.parse().expect("a network")
    }

    fn known(addresses: &[&str]) -> Addresses {
        Addresses::Known(
            addresses
                .iter()
                .map(|text| text.parse().expect("an address"))
                .collect(),
        )
    }

    #[test]
    fn both_families_of_each_network_are_found() {
        let pod = attached(STATUS);
        assert_eq!(pod.addresses(None), known(&["10.244.0.9", "fd00::9"]));
        let app = network("default/app-net");
        assert_eq!(pod.addresses(Some(&app)), known(&["192.0.2.7", "2001:db8::7"]));
        let own = network("shop/app-net");
        assert_eq!(
            pod.addresses(Some(&own)),
            known(&["198.51.100.7"]),
            "without a namespace it is the pod's"
        );
        assert_eq!(pod.addresses(Some(&network("default/other"))), Addresses::None);
        assert_eq!(
            pod.addresses(Some(&network("default/layer2"))),
            Addresses::Pending
        );
        assert_eq!(
            pod.ports,
            [
                NamedPort {
                    name: "http".to_owned(),
                    protocol: 6,
                    port: 8080
                },
                NamedPort {
                    name: "dns".to_owned(),
                    protocol: 17,
                    port: 53
                },
            ]
        );
    }

    #[test]
    fn what_a_pods_author_writes_counts_only_when_a_kubelet_runs_it() {
        let app = network("default/app-net");
        let forged = |spec: Value, status: Value| {
            let annotations = json!({ NETWORK_STATUS: STATUS });
            let metadata = json!({ "name": "a", "namespace": "b", "uid": "u1", "annotations": annotations });
            pod(json!({ "metadata": metadata, "spec": spec, "status": status }))
        };
        // A pod that no node takes, and one that its author has put on a node himself.
        for spec in [
            json!({}),
            json!({ "nodeName": "" }),
            json!({ "nodeName": "node-1" }),
        ] {
            let pod = forged(spec, json!({ "phase": "Pending" }));
            assert_eq!(pod.addresses(Some(&app)), Addresses::Pending);
        }
        let addressed = forged(json!({}), json!({ "podIP": "10.0.0.1" }));
        assert_eq!(addressed.addresses(Some(&app)), Addresses::Pending);
        assert_eq!(addressed.addresses(None), Addresses::Pending);
        let running = forged(json!({ "nodeName": "node-1" }), json!({ "podIP": "10.0.0.1" }));
        assert_eq!(
            running.addresses(Some(&app)),
            known(&["192.0.2.7", "2001:db8::7"])
        );
        // Once it runs, a status without an address takes nothing away.
        let silent = forged(json!({ "nodeName": "node-1" }), json!({}));
        assert_eq!(
            silent.remembering(Some(&running)).addresses(Some(&app)),
            known(&["192.0.2.7", "2001:db8::7"])
        );
    }

    #[test]
    fn one_pod_cannot_fill_the_tables() {
        let all: Vec<String> = (0..1_000).map(|number| format!("2001:db8::{number:x}")).collect();
        let pod = attached(&json!([{ "name": "default/app-net", "ips": all }]).to_string());
        let app = network("default/app-net");
        let Addresses::Known(addresses) = pod.addresses(Some(&app)) else {
            panic!("it has addresses");
        };
        assert_eq!(addresses.len(), MOST_ADDRESSES);
        assert_eq!(pod.beyond(Some(&app)), 1_000 - MOST_ADDRESSES);
        assert_eq!(pod.beyond(None), 0);
    }

    #[test]
    fn who_has_no_addresses_yet_is_pending_and_who_has_ended_is_none() {
        let app = network("default/app-net");
        let young = pod(json!({
            "metadata": { "name": "a", "namespace": "shop", "annotations": { NETWORKS: "app-net" } },
            "spec": {}, "status": { "phase": "Pending" },
        }));
        assert_eq!(
            (young.addresses(Some(&app)), young.addresses(None)),
            (Addresses::Pending, Addresses::Pending)
        );
        let alone = pod(json!({ "metadata": { "name": "a" }, "spec": {} }));
        assert_eq!(
            alone.addresses(Some(&app)),
            Addresses::None,
            "it asks for no network"
        );
        for phase in ["Succeeded", "Failed"] {
            let mut value = attached(STATUS);
            value.finished = true;
            assert_eq!(value.addresses(Some(&app)), Addresses::None, "{phase}");
            let ended =
                pod(json!({ "metadata": {}, "spec": {}, "status": { "phase": phase, "podIP": "10.0.0.1" } }));
            assert_eq!(ended.addresses(None), Addresses::None);
        }
        let host = pod(
            json!({ "metadata": {}, "spec": { "hostNetwork": true }, "status": { "podIP": "192.0.2.250" } }),
        );
        assert_eq!(
            host.addresses(None),
            Addresses::None,
            "the node's address is not the pod's"
        );
    }

    #[test]
    fn an_annotation_that_is_broken_for_a_moment_takes_nothing_away() {
        let app = network("default/app-net");
        let good = attached(STATUS);
        for broken in ["", "{", "{}", "[{\"name\":5}]"] {
            let pod = attached(broken);
            assert_eq!(pod.addresses(Some(&app)), Addresses::Pending, "{broken}");
            let pod = pod.remembering(Some(&good));
            assert_eq!(
                pod.addresses(Some(&app)),
                known(&["192.0.2.7", "2001:db8::7"]),
                "{broken}"
            );
        }
        let other = Pod {
            uid: "u2".to_owned(),
            ..attached("")
        };
        assert_eq!(
            other.remembering(Some(&good)).addresses(Some(&app)),
            Addresses::Pending,
            "another pod"
        );
        let ended = Pod {
            finished: true,
            ..attached("")
        };
        assert_eq!(
            ended.remembering(Some(&good)).addresses(Some(&app)),
            Addresses::None
        );
        // One that says that the network is gone is believed.
        assert_eq!(
            attached("[]").remembering(Some(&good)).addresses(Some(&app)),
            Addresses::None
        );
    }
}
