//! From policies, pods and namespaces to the policies of a firewall that takes the first match.
//!
//! NetworkPolicy adds up, and both ends must permit. A first match that permits would ask neither the other end nor the
//! document, so nothing is permitted until everything that denies was asked: atoms that the same policies isolate are one
//! class, and a class denies, for each set of ports, everybody but whom its policies permit there. What no
//! denial matches was permitted by each end that is isolated, and goes on.
//!
//! The number of permits is that of rules (times the networks they are for, where they name pods; times the numbers a named port has). The
//! number of denials is that of classes, times the sets of ports a class tells apart. Neither grows with pods that are
//! like others.

use std::collections::{BTreeMap, BTreeSet};

use bulkhead_config::{Action, GroupId, Policy as Entry, Selector, ServiceId};

use super::atoms::{Atom, Atoms};
use super::groups::Tables;
use super::isolation::Isolation;
use super::policy::{Direction, Policy};
use super::ports::{Grant, Services, Span, refused};
use super::rule::{Peer, Port, Rule};
use super::selector::Labels;
use crate::place::Network;
use crate::pod::Pod;

/// Policies that the name of a denial spells out.
const SPELLED: usize = 3;

/// What the API says.
#[derive(Clone, Debug)]
pub struct World<'w> {
    /// The policies.
    pub policies: Vec<&'w Policy>,
    /// The pods of all namespaces. Those without an address, finished or pending, are nobody yet.
    pub pods: Vec<&'w Pod>,
    /// The labels of each namespace.
    pub namespaces: &'w BTreeMap<String, Labels>,
}

impl World<'_> {
    /// What all policies come to.
    #[must_use]
    pub fn isolate(&self) -> Isolation {
        let atoms = Atoms::of(self);
        let mut compiler = Compiler {
            world: self,
            tables: Tables::new(&atoms.all),
            atoms: &atoms,
            rules: BTreeMap::new(),
            names: BTreeMap::new(),
        };
        let (mut denials, mut permits) = (Vec::new(), Vec::new());
        for direction in Direction::BOTH {
            compiler.direction(direction, &mut denials, &mut permits);
        }
        Isolation {
            groups: compiler.tables.groups,
            pod_groups: atoms.all.len(),
            services: compiler.tables.services,
            denials,
            permits,
        }
    }
}

/// A rule on a network, as far as it is the same for every pod that it is about.
#[derive(Clone, Debug)]
struct Resolved {
    peers: Whom,
    /// Out of a pod: the names of ports are those of its peers.
    named: Vec<Grant>,
}

/// The peers of a rule.
#[derive(Clone, Copy, Debug)]
enum Whom {
    Anybody,
    Nobody,
    These(GroupId),
}

struct Compiler<'c, 'w> {
    world: &'c World<'w>,
    atoms: &'c Atoms<'w>,
    tables: Tables,
    /// By direction, policy, rule and network.
    rules: BTreeMap<(Direction, usize, usize, &'w Network), Resolved>,
    /// How often each name was asked for.
    names: BTreeMap<String, u32>,
}

impl<'w> Compiler<'_, 'w> {
    fn direction(&mut self, direction: Direction, denials: &mut Vec<Entry>, permits: &mut Vec<Entry>) {
        let mut classes: BTreeMap<(Vec<usize>, BTreeSet<Grant>), BTreeSet<GroupId>> = BTreeMap::new();
        let mut permitted: BTreeMap<(usize, usize, Grant), BTreeSet<GroupId>> = BTreeMap::new();
        let atoms = self.atoms;
        for (number, atom) in atoms.all.iter().enumerate() {
            let id = GroupId(number as u32);
            let mut isolating = Vec::new();
            let mut grants = BTreeSet::new();
            for &policy in &atom.subject_of {
                let Some(rules) = self.world.policies[policy].rules(direction) else {
                    continue;
                };
                isolating.push(policy);
                for (place, rule) in rules.iter().enumerate() {
                    for grant in self.grants(direction, policy, place, rule, atom) {
                        permitted
                            .entry((policy, place, grant.clone()))
                            .or_default()
                            .insert(id);
                        grants.insert(grant);
                    }
                }
            }
            if !isolating.is_empty() {
                classes.entry((isolating, grants)).or_default().insert(id);
            }
        }
        for ((isolating, grants), pods) in classes {
            for (peers, services) in refused(&grants) {
                let others = self.tables.all_but(peers);
                let service = self.tables.services(&services);
                let what = format!("{}/isolation", direction.name().to_lowercase());
                denials.push(self.entry(
                    direction,
                    Action::Deny,
                    (&isolating, &what),
                    &pods,
                    others,
                    service,
                ));
            }
        }
        for ((policy, place, grant), pods) in permitted {
            let peers = grant
                .peers
                .map_or(Selector::Any, |peers| Selector::OneOf(vec![peers]));
            let service = grant.ports.map_or(Selector::Any, |spans| {
                let others = false;
                self.tables.services(&Services { spans, others })
            });
            let what = format!("{}[{place}]", direction.name().to_lowercase());
            permits.push(self.entry(
                direction,
                Action::Permit,
                (&[policy], &what),
                &pods,
                peers,
                service,
            ));
        }
    }

    /// What a rule permits the pods of an atom.
    fn grants(
        &mut self,
        direction: Direction,
        policy: usize,
        place: usize,
        rule: &'w Rule,
        atom: &Atom<'w>,
    ) -> Vec<Grant> {
        let key = (direction, policy, place, atom.network);
        let resolved = match self.rules.get(&key) {
            Some(resolved) => resolved.clone(),
            None => {
                let resolved = self.resolve(direction, self.world.policies[policy], rule, atom.network);
                self.rules.entry(key).or_insert(resolved).clone()
            }
        };
        let mut grants = resolved.named;
        let peers = match resolved.peers {
            Whom::Anybody => None,
            Whom::These(peers) => Some(peers),
            Whom::Nobody => return grants,
        };
        let Some(ports) = &rule.ports else {
            grants.push(Grant { peers, ports: None });
            return grants;
        };
        let spans = ports.iter().flat_map(|port| match port {
            Port::Span(span) => vec![*span],
            Port::Named(protocol, name) if direction == Direction::Ingress => own(atom, *protocol, name),
            Port::Named(..) => Vec::new(),
        });
        let spans: BTreeSet<Span> = spans.collect();
        if !spans.is_empty() {
            let ports = Some(spans.into_iter().collect());
            grants.push(Grant { peers, ports });
        }
        grants
    }

    fn resolve(
        &mut self,
        direction: Direction,
        policy: &'w Policy,
        rule: &'w Rule,
        network: &Network,
    ) -> Resolved {
        let mut peers = rule.peers.as_ref().map(|_| BTreeSet::new());
        let mut blocks = Vec::new();
        for peer in rule.peers.iter().flatten() {
            if let Peer::Block(block) = peer {
                blocks.push(self.tables.block(block));
            }
        }
        let atoms = self.atoms;
        let there = move || {
            let all = atoms.all.iter().enumerate();
            all.filter(move |(_, atom)| atom.network == network)
                .map(|(number, atom)| (GroupId(number as u32), atom))
        };
        if let Some(peers) = &mut peers {
            peers.extend(&blocks);
            for (id, atom) in there() {
                let mut named = rule.peers.iter().flatten();
                if named.any(|peer| atoms.are(atom, policy, peer)) {
                    peers.insert(id);
                }
            }
        }
        let mut named = Vec::new();
        if direction == Direction::Egress {
            let mut numbered: BTreeMap<Span, BTreeSet<GroupId>> = BTreeMap::new();
            for port in rule.ports.iter().flatten() {
                let Port::Named(protocol, name) = port else {
                    continue;
                };
                for (id, atom) in there() {
                    for span in own(atom, *protocol, name) {
                        let targets = numbered.entry(span).or_default();
                        match &peers {
                            Some(peers) if !peers.contains(&id) => {
                                targets.extend(blocks.iter().map(|block| self.tables.both(id, *block)));
                            }
                            _ => _ = targets.insert(id),
                        }
                    }
                }
            }
            for (span, targets) in numbered {
                if let Some(targets) = self.tables.any_of(targets) {
                    named.push(Grant {
                        peers: Some(targets),
                        ports: Some(vec![span]),
                    });
                }
            }
        }
        let peers = match peers {
            None => Whom::Anybody,
            Some(peers) => self.tables.any_of(peers).map_or(Whom::Nobody, Whom::These),
        };
        Resolved { peers, named }
    }

    fn entry(
        &mut self,
        direction: Direction,
        action: Action,
        (policies, what): (&[usize], &str),
        pods: &BTreeSet<GroupId>,
        peers: Selector<GroupId>,
        service: Selector<ServiceId>,
    ) -> Entry {
        let pods = self.tables.any_of(pods.clone());
        let pods = Selector::OneOf(pods.into_iter().collect());
        let (source, destination) = match direction {
            Direction::Ingress => (peers, pods),
            Direction::Egress => (pods, peers),
        };
        Entry {
            name: self.name(policies, what),
            from: Selector::Any,
            to: Selector::Any,
            source,
            destination,
            service,
            action,
            log: Vec::new(),
            line: 0,
        }
    }

    /// `mnp/shop/db/ingress[0]`, `mnp/shop/db+shop/web/ingress/isolation`; with a number behind it from the second one on.
    fn name(&mut self, policies: &[usize], what: &str) -> String {
        let spelled = policies.iter().take(SPELLED).map(|&number| {
            let policy = self.world.policies[number];
            format!("{}/{}", policy.namespace, policy.name)
        });
        let mut name = spelled.collect::<Vec<_>>().join("+");
        if policies.len() > SPELLED {
            name += &format!("+{}-more", policies.len() - SPELLED);
        }
        name = format!("mnp/{name}/{what}");
        // No name that is asked for ends in a number, so no two are alike.
        let times = self.names.entry(name.clone()).or_default();
        *times += 1;
        match *times {
            1 => name,
            times => format!("{name}.{times}"),
        }
    }
}

/// The ports of an atom's pods that have a name.
fn own(atom: &Atom<'_>, protocol: u8, name: &str) -> Vec<Span> {
    let ports = atom
        .ports
        .iter()
        .filter(|(own, called, _)| *own == protocol && *called == name);
    ports
        .map(|&(protocol, _, port)| Span {
            protocol,
            first: port,
            last: port,
        })
        .collect()
}
