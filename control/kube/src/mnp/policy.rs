//! A MultiNetworkPolicy as far as it is understood.
//!
//! Owns the defaults (what is absent, what is empty) and what becomes of a part that is not understood:
//!
//! | not understood | then |
//! |---|---|
//! | a peer, a port, a rule, the rules of a direction | it permits nothing, the rest of the object stays in force |
//! | `podSelector` | every pod of the namespace is isolated |
//! | `policyTypes`, an unknown field of `spec` | both directions are isolated |
//! | a name in the annotation | its pods are isolated on every network |
//! | `spec` | every pod, in both directions |
//! | more rules, blocks or ports than one object may have | its pods are isolated, nothing is permitted |
//!
//! Below the first line nothing of the object is permitted any more: who knows whom it meant. So an object with a fault never
//! lets through what it would not have let through without. Without the annotation a policy is for no network, which is
//! what it says, and reported all the same.

use std::collections::BTreeSet;

use kube::core::{ApiResource, DynamicObject};
use serde_json::Value;

use super::part::{Fault, Part, Wrong};
use super::rule::{self, Peer, Rule};
use super::selector::Selector;
use crate::place::Network;

/// The annotation that says for which networks a policy is: `NAMESPACE/NAME` or `NAME`, separated by commas.
pub const POLICY_FOR: &str = "k8s.v1.cni.cncf.io/policy-for";

const EVERY_POD: &str = "every pod of the namespace is isolated, and nothing is permitted";
const BOTH_DIRECTIONS: &str = "ingress and egress are isolated, and nothing is permitted";
const EVERY_NETWORK: &str = "its pods are isolated on every network, and nothing is permitted";
const NOTHING: &str = "nothing is permitted";
const NO_NETWORK: &str = "it isolates nobody";

/// Rules that one object may have, in both directions together. The work of all grows with the square of those of one.
const MOST_RULES: usize = 256;
/// Blocks of addresses that one object may have, exceptions included.
const MOST_BLOCKS: usize = 2_048;
/// Ports that one object may have.
const MOST_PORTS: usize = 1_024;

/// Where the API has these policies.
pub fn resource() -> ApiResource {
    ApiResource {
        group: "k8s.cni.cncf.io".to_owned(),
        version: "v1beta1".to_owned(),
        api_version: "k8s.cni.cncf.io/v1beta1".to_owned(),
        kind: "MultiNetworkPolicy".to_owned(),
        plural: "multi-networkpolicies".to_owned(),
    }
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What of it is not understood.
    pub faults: Vec<Fault>,
    pub(super) networks: Networks,
    /// The pods of its namespace that it isolates.
    pub(super) subjects: Selector,
    /// What may come in; `None`: it does not isolate that direction.
    pub(super) ingress: Option<Vec<Rule>>,
    /// What may go out; `None`: it does not isolate that direction.
    pub(super) egress: Option<Vec<Rule>>,
}

/// The networks a policy is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Networks {
    These(BTreeSet<Network>),
    /// Nobody knows which.
    Every,
}

/// Into a pod, or out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    /// As `policyTypes` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::Egress => "Egress",
        }
    }
}

impl Networks {
    pub fn contains(&self, network: &Network) -> bool {
        match self {
            Self::These(networks) => networks.contains(network),
            Self::Every => true,
        }
    }
}

impl Policy {
    /// What an object says. Always a policy: what is not understood stands in [`Policy::faults`].
    pub fn read(object: &DynamicObject) -> Self {
        let metadata = &object.metadata;
        let namespace = metadata.namespace.clone().unwrap_or_default();
        let annotation = metadata.annotations.iter().find_map(|all| all.get(POLICY_FOR));
        let mut policy = Self {
            networks: Networks::Every,
            name: metadata.name.clone().unwrap_or_default(),
            namespace,
            faults: Vec::new(),
            subjects: Selector::default(),
            ingress: Some(Vec::new()),
            egress: Some(Vec::new()),
        };
        let named = policy.networks(annotation.map_or("", String::as_str));
        let spec = Part::new(object.data.get("spec").unwrap_or(&Value::Null), "spec");
        let specified = policy.spec(&spec);
        let bounded = policy.is_bounded();
        if !(named && specified && bounded) {
            for rules in [&mut policy.ingress, &mut policy.egress].into_iter().flatten() {
                rules.clear();
            }
        }
        policy
    }

    /// Whether it has no more parts than one object may have.
    fn is_bounded(&mut self) -> bool {
        let rules = || self.ingress.iter().chain(&self.egress).flatten();
        let blocks = rules()
            .flat_map(|rule| rule.peers.iter().flatten())
            .map(|peer| match peer {
                Peer::Block(block) => 1 + block.except.len(),
                Peer::Pods { .. } => 0,
            });
        let ports = rules().map(|rule| rule.ports.as_ref().map_or(0, Vec::len));
        let all = [
            ("rules", rules().count(), MOST_RULES),
            ("blocks of addresses", blocks.sum(), MOST_BLOCKS),
            ("ports", ports.sum(), MOST_PORTS),
        ];
        let beyond = all.into_iter().find(|(_, count, most)| count > most);
        if let Some((what, count, most)) = beyond {
            let what = format!("has {count} {what}, more than {most}; write several objects");
            self.faults.push(Wrong::new("spec", what).therefore(NOTHING));
        }
        beyond.is_none()
    }

    /// Reads the annotation; false: not understood.
    fn networks(&mut self, annotation: &str) -> bool {
        let at = format!("metadata.annotations[{POLICY_FOR}]");
        let mut networks = BTreeSet::new();
        let names = annotation.split(',').map(str::trim);
        for name in names.filter(|name| !name.is_empty()) {
            let whole = match name.contains('/') {
                true => name.to_owned(),
                false => format!("{}/{name}", self.namespace),
            };
            match whole.parse() {
                Ok(network) => _ = networks.insert(network),
                Err(what) => {
                    let what = format!("\"{name}\" names no network: {what}");
                    self.faults.push(Wrong::new(&at, what).therefore(EVERY_NETWORK));
                    return false;
                }
            }
        }
        if networks.is_empty() {
            let what = "names no network, write NAMESPACE/NAME of network attachments".to_owned();
            self.faults.push(Wrong::new(&at, what).therefore(NO_NETWORK));
        }
        self.networks = Networks::These(networks);
        true
    }

    /// Reads `spec`; false: whom it is about is not understood.
    fn spec(&mut self, spec: &Part<'_>) -> bool {
        let fields = spec.split(["podSelector", "policyTypes", "ingress", "egress"]);
        let ([subjects, types, ingress, egress], unknown) = match fields {
            Ok(fields) => fields,
            Err(wrong) => {
                self.faults.push(wrong.therefore(EVERY_POD));
                return false;
            }
        };
        let before = self.faults.len();
        match subjects.as_ref().map(Selector::read).transpose() {
            Ok(subjects) => self.subjects = subjects.unwrap_or_default(),
            Err(wrong) => self.faults.push(wrong.therefore(EVERY_POD)),
        }
        // As the API server defaults NetworkPolicy: an egress section that is empty does not count.
        let has_egress = egress
            .as_ref()
            .is_some_and(|part| part.list().map_or(true, |rules| !rules.is_empty()));
        let directions = match unknown {
            Some(wrong) => Err(wrong),
            None => directions(types.as_ref(), has_egress),
        };
        let isolated = directions.unwrap_or_else(|wrong| {
            self.faults.push(wrong.therefore(BOTH_DIRECTIONS));
            Direction::BOTH.to_vec()
        });
        let understood = self.faults.len() == before;
        let mut rules = |direction, part: Option<Part<'_>>, peers| {
            isolated
                .contains(&direction)
                .then(|| rule::rules(part.as_ref(), peers, &mut self.faults))
        };
        self.ingress = rules(Direction::Ingress, ingress, "from");
        self.egress = rules(Direction::Egress, egress, "to");
        understood
    }

    /// What it permits in a direction; `None`: it does not isolate that direction.
    pub(super) fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

fn directions(types: Option<&Part<'_>>, has_egress: bool) -> Result<Vec<Direction>, Wrong> {
    let listed = types.map(Part::list).transpose()?.unwrap_or_default();
    if listed.is_empty() {
        let all = &Direction::BOTH[..if has_egress { 2 } else { 1 }];
        return Ok(all.to_vec());
    }
    let one = |part: &Part<'_>| {
        let text = part.text()?;
        let known = Direction::BOTH
            .into_iter()
            .find(|direction| direction.name() == text);
        known.ok_or_else(|| part.wrong(format!("\"{text}\" is not Ingress or Egress")))
    };
    listed.iter().map(one).collect()
}
