//! Groups and services as they come up, each once.
//!
//! Owns their names. Every address stands in one group of pods at most; all other groups nest those. So a pod that comes or goes
//! is one write, and what rules say of it is not written again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bulkhead_config::{Group, GroupId, IpPrefix, Member, Selector, ServiceId};

use super::atoms::Atom;
use super::isolation::{Match, Service};
use super::ports::{Services, Span, WITH_PORTS};
use super::rule::Block;

/// Parts of a service that its name spells out.
const SPELLED: usize = 4;

/// What a group is made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Recipe {
    Everybody,
    Block(Block),
    AnyOf(BTreeSet<GroupId>),
    AllBut(BTreeSet<GroupId>),
    Both(GroupId, GroupId),
}

/// The groups and services of an isolation.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub groups: Vec<Group>,
    pub services: Vec<Service>,
    made: BTreeMap<Recipe, GroupId>,
    known: BTreeMap<Vec<Match>, ServiceId>,
}

impl Tables {
    /// Begins with a group for each atom, in their order.
    pub fn new(atoms: &[Atom<'_>]) -> Self {
        let groups = atoms.iter().map(|atom| Group {
            name: atom.name.clone(),
            members: atom.addresses.iter().copied().map(Member::Host).collect(),
            ..Group::default()
        });
        Self {
            groups: groups.collect(),
            ..Self::default()
        }
    }

    pub fn block(&mut self, block: &Block) -> GroupId {
        self.made(Recipe::Block(block.clone()))
    }

    /// The union; `None`: of nothing.
    pub fn any_of(&mut self, groups: BTreeSet<GroupId>) -> Option<GroupId> {
        match groups.len() {
            0 => None,
            1 => groups.first().copied(),
            _ => Some(self.made(Recipe::AnyOf(groups))),
        }
    }

    /// The complement.
    pub fn all_but(&mut self, groups: BTreeSet<GroupId>) -> Selector<GroupId> {
        match groups.is_empty() {
            true => Selector::Any,
            false => Selector::OneOf(vec![self.made(Recipe::AllBut(groups))]),
        }
    }

    /// The intersection.
    pub fn both(&mut self, one: GroupId, other: GroupId) -> GroupId {
        self.made(Recipe::Both(one, other))
    }

    pub fn services(&mut self, services: &Services) -> Selector<ServiceId> {
        if services.is_everything() {
            return Selector::Any;
        }
        let mut ids = Vec::new();
        if !services.spans.is_empty() {
            ids.push(self.service(services.spans.iter().map(matching).collect(), None));
        }
        if services.others {
            let others = (0..=u8::MAX).filter(|protocol| !WITH_PORTS.contains(protocol));
            ids.push(self.service(
                others.map(Match::Protocol).collect(),
                Some("protocols without ports"),
            ));
        }
        ids.sort_unstable();
        Selector::OneOf(ids)
    }

    fn service(&mut self, matches: Vec<Match>, name: Option<&str>) -> ServiceId {
        if let Some(known) = self.known.get(&matches) {
            return *known;
        }
        let id = ServiceId(self.services.len() as u32);
        self.services.push(Service {
            name: name.map_or_else(|| spelled(&matches), str::to_owned),
            matches: matches.clone(),
        });
        self.known.insert(matches, id);
        id
    }

    fn made(&mut self, recipe: Recipe) -> GroupId {
        if let Some(made) = self.made.get(&recipe) {
            return *made;
        }
        let group = match &recipe {
            Recipe::Everybody => Group {
                members: everybody().map(Member::Prefix).collect(),
                ..Group::default()
            },
            Recipe::Block(block) => Group {
                members: vec![Member::Prefix(block.network)],
                except: block.except.iter().copied().map(Member::Prefix).collect(),
                ..Group::default()
            },
            Recipe::AnyOf(groups) => Group {
                groups: groups.iter().copied().collect(),
                ..Group::default()
            },
            // One list of all addresses for all complements, so that an address is not in as many lists as there are.
            Recipe::AllBut(groups) => Group {
                groups: vec![self.made(Recipe::Everybody)],
                except_groups: groups.iter().copied().collect(),
                ..Group::default()
            },
            Recipe::Both(one, other) => Group {
                groups: vec![*one],
                except_groups: vec![self.made(Recipe::AllBut(BTreeSet::from([*other])))],
                ..Group::default()
            },
        };
        let id = GroupId(self.groups.len() as u32);
        let name = match &recipe {
            Recipe::Everybody => "mnp/everybody".to_owned(),
            Recipe::Block(block) => format!("mnp/block-{}/{}", id.0, block.network),
            Recipe::AnyOf(_) => format!("mnp/any-{}", id.0),
            Recipe::AllBut(_) => format!("mnp/all-but-{}", id.0),
            Recipe::Both(..) => format!("mnp/both-{}", id.0),
        };
        self.groups.push(Group { name, ..group });
        self.made.insert(recipe, id);
        id
    }
}

fn everybody() -> impl Iterator<Item = IpPrefix> {
    let any = [IpAddr::from([0; 4]), IpAddr::from([0_u16; 8])];
    any.into_iter().filter_map(|address| IpPrefix::around(address, 0))
}

fn matching(span: &Span) -> Match {
    match *span {
        Span {
            protocol,
            first: 0,
            last: u16::MAX,
        } => Match::Protocol(protocol),
        Span {
            protocol,
            first,
            last,
        } => Match::Ports {
            protocol,
            first,
            last,
        },
    }
}

fn spelled(matches: &[Match]) -> String {
    let name = |protocol| match protocol {
        6 => "tcp",
        17 => "udp",
        _ => "sctp",
    };
    let spelled = matches.iter().take(SPELLED).map(|one| match *one {
        Match::Protocol(protocol) => name(protocol).to_owned(),
        Match::Ports {
            protocol,
            first,
            last,
        } if first == last => format!("{}/{first}", name(protocol)),
        Match::Ports {
            protocol,
            first,
            last,
        } => format!("{}/{first}-{last}", name(protocol)),
    });
    let mut text = spelled.collect::<Vec<_>>().join(" ");
    if matches.len() > SPELLED {
        text += &format!(" and {} more", matches.len() - SPELLED);
    }
    text
}
