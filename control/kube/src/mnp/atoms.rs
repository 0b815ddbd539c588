//! Pods that no policy can tell apart, as one.
//!
//! An atom is all pods on one network of which every selector in every policy for that network says the same, and whose ports
//! that some policy names have the same numbers. The replicas of a deployment are one atom, and so are those of a
//! stateful set although each has a label of its own. Everything after this works on atoms: a pod more or less is
//! a member more or less.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use sha2::{Digest as _, Sha256};

use super::compile::World;
use super::policy::{Direction, Policy};
use super::rule::{Peer, Port, Rule};
use super::selector::{Labels, Selector};
use crate::place::Network;
use crate::pod::{Addresses, Pod};

/// Bytes of the digest in a name. Whoever writes policies must not be able to give two atoms one name.
const DIGEST_BYTES: usize = 16;

/// Protocol, name and number of a port.
pub(super) type Named<'w> = (u8, &'w str, u16);

/// Pods that are alike.
#[derive(Debug)]
pub(super) struct Atom<'w> {
    pub name: String,
    pub network: &'w Network,
    /// The policies that select them, by number.
    pub subject_of: Vec<usize>,
    /// The peers of policies that they are, by number.
    pub peer_of: BTreeSet<usize>,
    /// Those of their ports that policies name.
    pub ports: BTreeSet<Named<'w>>,
    pub addresses: BTreeSet<IpAddr>,
}

/// A peer that is pods, wherever it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Term<'w> {
    /// The policy's, where the peer names no namespaces.
    namespace: Option<&'w str>,
    namespaces: Option<&'w Selector>,
    pods: &'w Selector,
}

impl<'w> Term<'w> {
    fn of(policy: &'w Policy, peer: &'w Peer) -> Option<Self> {
        match peer {
            Peer::Block(_) => None,
            Peer::Pods { namespaces, pods } => Some(Self {
                namespace: namespaces.is_none().then_some(&*policy.namespace),
                namespaces: namespaces.as_ref(),
                pods,
            }),
        }
    }

    /// Whether a pod is one; `labels` are its namespace's, if they are known.
    fn is(&self, pod: &Pod, labels: Option<&Labels>) -> bool {
        let within = match (self.namespace, self.namespaces) {
            (Some(namespace), _) => pod.namespace == namespace,
            (None, Some(selector)) => match labels {
                Some(labels) => selector.selects(labels),
                None => selector.is_everything(),
            },
            (None, None) => true,
        };
        within && self.pods.selects(&pod.labels)
    }
}

/// What matters on a network.
#[derive(Debug, Default)]
struct Scope<'w> {
    policies: BTreeSet<usize>,
    terms: BTreeSet<usize>,
    names: BTreeSet<(u8, &'w str)>,
}

/// What selectors say of pods with certain labels.
#[derive(Debug, Default)]
struct Judged {
    subject_of: Vec<usize>,
    peer_of: Vec<usize>,
}

/// All atoms, and which peers are which.
#[derive(Debug)]
pub(super) struct Atoms<'w> {
    pub all: Vec<Atom<'w>>,
    terms: BTreeMap<Term<'w>, usize>,
}

/// What tells atoms apart.
type Signature<'w> = (&'w Network, Vec<usize>, BTreeSet<usize>, BTreeSet<Named<'w>>);

impl<'w> Atoms<'w> {
    pub fn of(world: &World<'w>) -> Self {
        let mut terms = BTreeMap::new();
        for (policy, _, rule) in rules(world) {
            for term in rule
                .peers
                .iter()
                .flatten()
                .filter_map(|peer| Term::of(policy, peer))
            {
                let number = terms.len();
                terms.entry(term).or_insert(number);
            }
        }
        let mut scopes: BTreeMap<&Network, Scope<'w>> = BTreeMap::new();
        let mut known: BTreeMap<(&str, &Labels), Judged> = BTreeMap::new();
        let mut atoms: BTreeMap<Signature<'w>, BTreeSet<IpAddr>> = BTreeMap::new();
        for &pod in &world.pods {
            for network in pod.attached.iter().flat_map(BTreeMap::keys) {
                let Addresses::Known(addresses) = pod.addresses(Some(network)) else {
                    continue;
                };
                let scope = scopes
                    .entry(network)
                    .or_insert_with(|| scope(world, network, &terms));
                let judged = known
                    .entry((pod.namespace.as_str(), &pod.labels))
                    .or_insert_with(|| judge(world, pod, &terms));
                let within = |numbers: &BTreeSet<usize>, all: &[usize]| -> Vec<usize> {
                    let all = all.iter().copied();
                    all.filter(|number| numbers.contains(number)).collect()
                };
                let subject_of = within(&scope.policies, &judged.subject_of);
                let peer_of = BTreeSet::from_iter(within(&scope.terms, &judged.peer_of));
                let ports = pod
                    .ports
                    .iter()
                    .map(|port| (port.protocol, &*port.name, port.port));
                let ports: BTreeSet<Named<'w>> = ports
                    .filter(|(protocol, name, _)| scope.names.contains(&(*protocol, *name)))
                    .collect();
                if !(subject_of.is_empty() && peer_of.is_empty() && ports.is_empty()) {
                    let signature = (network, subject_of, peer_of, ports);
                    atoms.entry(signature).or_default().extend(addresses);
                }
            }
        }
        let by_number: BTreeMap<usize, &Term<'_>> =
            terms.iter().map(|(term, number)| (*number, term)).collect();
        let mut all: Vec<Atom<'w>> = atoms
            .into_iter()
            .map(|(signature, addresses)| {
                let name = name(world, &signature, &by_number);
                let (network, subject_of, peer_of, ports) = signature;
                Atom {
                    name,
                    network,
                    subject_of,
                    peer_of,
                    ports,
                    addresses,
                }
            })
            .collect();
        all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Self { all, terms }
    }

    /// Whether an atom's pods are a peer of a policy. Of blocks nobody knows: these are addresses.
    pub fn are(&self, atom: &Atom<'w>, policy: &'w Policy, peer: &'w Peer) -> bool {
        let number = Term::of(policy, peer).and_then(|term| self.terms.get(&term));
        number.is_some_and(|number| atom.peer_of.contains(number))
    }
}

/// All rules, with their policies and directions.
fn rules<'w>(world: &World<'w>) -> impl Iterator<Item = (&'w Policy, Direction, &'w Rule)> {
    world.policies.iter().flat_map(|&policy| {
        Direction::BOTH.into_iter().flat_map(move |direction| {
            let rules = policy.rules(direction).into_iter().flatten();
            rules.map(move |rule| (policy, direction, rule))
        })
    })
}

fn scope<'w>(world: &World<'w>, network: &Network, terms: &BTreeMap<Term<'w>, usize>) -> Scope<'w> {
    let mut scope = Scope::default();
    let policies = world.policies.iter().enumerate();
    scope.policies = policies
        .filter(|(_, policy)| policy.networks.contains(network))
        .map(|(number, _)| number)
        .collect();
    for (policy, _, rule) in rules(world).filter(|(policy, _, _)| policy.networks.contains(network)) {
        let peers = rule
            .peers
            .iter()
            .flatten()
            .filter_map(|peer| Term::of(policy, peer));
        scope.terms.extend(peers.filter_map(|term| terms.get(&term)));
        scope
            .names
            .extend(rule.ports.iter().flatten().filter_map(|port| match port {
                Port::Named(protocol, name) => Some((*protocol, &**name)),
                Port::Span(_) => None,
            }));
    }
    scope
}

fn judge(world: &World<'_>, pod: &Pod, terms: &BTreeMap<Term<'_>, usize>) -> Judged {
    let labels = world.namespaces.get(&pod.namespace);
    let policies = world.policies.iter().enumerate();
    Judged {
        subject_of: policies
            .filter(|(_, policy)| policy.namespace == pod.namespace && policy.subjects.selects(&pod.labels))
            .map(|(number, _)| number)
            .collect(),
        peer_of: terms
            .iter()
            .filter(|(term, _)| term.is(pod, labels))
            .map(|(_, number)| *number)
            .collect(),
    }
}

/// A name that depends on what policies say and not on how they or the pods are numbered.
fn name(
    world: &World<'_>,
    (network, subject_of, peer_of, ports): &Signature<'_>,
    terms: &BTreeMap<usize, &Term<'_>>,
) -> String {
    let subjects = subject_of.iter().map(|&number| {
        let policy = world.policies[number];
        (&policy.namespace, &policy.name)
    });
    let peers: BTreeSet<&&Term<'_>> = peer_of.iter().filter_map(|number| terms.get(number)).collect();
    let text = format!("{:?}", (network, BTreeSet::from_iter(subjects), peers, ports));
    let mut name = format!("mnp/pods/{network}/");
    for byte in &Sha256::digest(text)[..DIGEST_BYTES] {
        // Text takes any text.
        let _ = write!(name, "{byte:02x}");
    }
    name
}
