//! What the policies were compiled from, as bytes: for a start that does not reach the API.
//!
//! Owns the format. Keeps the objects as they were written and compiles them again, so that another version of the firewall, whose
//! groups may have other names, makes its own of them. Refuses what is damaged or of another format: half of it would isolate half of
//! the pods.

use std::collections::BTreeMap;
use std::net::IpAddr;

use kube::core::DynamicObject;
use serde::{Deserialize, Serialize};

use super::compile::World;
use super::isolation::Isolation;
use super::policy::Policy;
use super::selector::Labels;
use crate::place::Network;
use crate::pod::{NamedPort, Pod};

/// The version of the format.
const VERSION: u32 = 1;

/// Policies, pods and namespaces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    version: u32,
    policies: Vec<DynamicObject>,
    pods: Vec<KeptPod>,
    namespaces: BTreeMap<String, Labels>,
}

/// Of a pod that runs and is attached to some network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeptPod {
    namespace: String,
    labels: Labels,
    /// Namespace and name of each network, as somebody else wrote them.
    attached: Vec<(String, String, Vec<IpAddr>)>,
    ports: Vec<(String, u8, u16)>,
}

impl KeptPod {
    fn of(pod: &Pod) -> Option<Self> {
        let attached: Vec<_> = pod
            .attached
            .iter()
            .flatten()
            .map(|(network, addresses)| (network.namespace.clone(), network.name.clone(), addresses.clone()))
            .collect();
        let ports = pod.ports.iter();
        (!attached.is_empty() && !pod.finished && !pod.unplaced).then(|| Self {
            namespace: pod.namespace.clone(),
            labels: pod.labels.clone(),
            attached,
            ports: ports
                .map(|port| (port.name.clone(), port.protocol, port.port))
                .collect(),
        })
    }

    fn pod(self) -> Pod {
        let attached = self
            .attached
            .into_iter()
            .map(|(namespace, name, addresses)| (Network { namespace, name }, addresses));
        let ports = self
            .ports
            .into_iter()
            .map(|(name, protocol, port)| NamedPort { name, protocol, port });
        Pod {
            namespace: self.namespace,
            labels: self.labels,
            attached: Some(attached.collect()),
            ports: ports.collect(),
            ..Pod::default()
        }
    }
}

impl Snapshot {
    /// Of what the API has said. Without policies nothing else counts, and nothing else is kept.
    pub(crate) fn of<'a>(
        policies: impl Iterator<Item = &'a DynamicObject>,
        pods: impl Iterator<Item = &'a Pod>,
        namespaces: &BTreeMap<String, Labels>,
    ) -> Self {
        let policies: Vec<DynamicObject> = policies.cloned().collect();
        let any = !policies.is_empty();
        let namespaces = namespaces.iter().filter(|_| any);
        Self {
            version: VERSION,
            policies,
            pods: pods.filter(|_| any).filter_map(KeptPod::of).collect(),
            namespaces: namespaces
                .map(|(name, labels)| (name.clone(), labels.clone()))
                .collect(),
        }
    }

    /// As bytes.
    ///
    /// # Errors
    /// If there is no memory for them.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }

    /// The objects of the policies.
    pub(crate) fn objects(bytes: &[u8]) -> Result<Vec<DynamicObject>, String> {
        Ok(Self::read(bytes)?.policies)
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let kept: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match kept.version {
            VERSION => Ok(kept),
            other => Err(format!("its format is {other} and not {VERSION}")),
        }
    }

    /// What bytes come to that [`Agent::keep_snapshot`](crate::Agent::keep_snapshot) was given.
    ///
    /// # Errors
    /// If they are damaged, or of another format.
    pub fn isolation(bytes: &[u8]) -> Result<Isolation, String> {
        let kept = Self::read(bytes)?;
        let pods: Vec<Pod> = kept.pods.into_iter().map(KeptPod::pod).collect();
        let policies: Vec<Policy> = kept.policies.iter().map(Policy::read).collect();
        let world = World {
            policies: policies.iter().collect(),
            pods: pods.iter().collect(),
            namespaces: &kept.namespaces,
        };
        Ok(world.isolate())
    }
}
