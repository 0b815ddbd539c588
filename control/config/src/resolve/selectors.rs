//! The fields by which a rule selects: names become ids, literals become groups, twins are pointed out.
//!
//! An empty list is refused in every field of a rule: it would match nothing where its author may have meant
//! everything, or the other way round. `any` stands alone.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::services::Services;
use super::{Checker, Names, instead, sorted};
use crate::address::{Member, looks_like_address, parse_member};
use crate::config::{Group, GroupId, Selector, ServiceId, ZoneId};
use crate::node::{Kind, Segment, steps};

/// A field of a rule.
#[derive(Clone, Copy)]
pub(super) struct Place<'p> {
    pub what: &'static str,
    pub name: &'p str,
    pub section: &'p [Segment],
    pub index: usize,
    pub field: &'static str,
}

impl Place<'_> {
    /// Another field of the same rule.
    pub(super) fn of(self, field: &'static str) -> Self {
        Self { field, ..self }
    }

    pub(super) fn path(self) -> Vec<Segment> {
        [self.section, &steps![self.index, self.field]].concat()
    }

    fn entry(self, entry: usize) -> Vec<Segment> {
        [self.section, &steps![self.index, self.field, entry]].concat()
    }
}

/// What a rule selects, all fields together; `None` where a field is faulty, as then nobody knows.
pub(super) type Selected<'r> = Option<(
    &'r Selector<ZoneId>,
    &'r Selector<ZoneId>,
    &'r Selector<GroupId>,
    &'r Selector<GroupId>,
    &'r Selector<ServiceId>,
)>;

/// The five fields of a rule; a rule without `to` says [`Selector::Any`].
pub(super) fn selected<'r>(
    from: &'r Selector<ZoneId>,
    to: &'r Selector<ZoneId>,
    source: &'r Selector<GroupId>,
    destination: &'r Selector<GroupId>,
    service: &'r Selector<ServiceId>,
) -> Selected<'r> {
    let void = is_void(from) || is_void(to) || is_void(source) || is_void(destination) || is_void(service);
    (!void).then_some((from, to, source, destination, service))
}

impl Checker<'_, '_> {
    /// A rule that selects exactly what an earlier one selects never decides anything.
    pub(super) fn twins<'r>(
        &mut self,
        what: &str,
        section: &[Segment],
        rules: impl Iterator<Item = (&'r str, u32, Selected<'r>)>,
    ) {
        let mut first_of = HashMap::with_capacity(rules.size_hint().0);
        for (index, (name, line, selected)) in rules.enumerate() {
            let Some(selected) = selected else { continue };
            match first_of.entry(selected) {
                Entry::Vacant(vacant) => {
                    vacant.insert((name, line));
                }
                Entry::Occupied(occupied) => {
                    let (first, line) = occupied.get();
                    let message = format!(
                        "{what} \"{name}\" can never match: {what} \"{first}\" on line {line} matches the same before it"
                    );
                    let help = Some("remove one of them".to_owned());
                    self.warning(&[section, &steps![index, "name"]].concat(), (message, help));
                }
            }
        }
    }

    pub(super) fn zone_selector(
        &mut self,
        names: &[String],
        at: Place<'_>,
        zones: &Names<'_>,
    ) -> Selector<ZoneId> {
        self.selector(Some(names), at, &["any"], |checker, entry, name| {
            if let Some(&zone) = zones.get(name) {
                return Some(ZoneId(zone as u32));
            }
            let help = match name {
                "self" => "what a zone may reach of the firewall itself is its hostInbound".to_owned(),
                _ => instead(name, "zones", sorted(zones).into_iter()),
            };
            checker.absent(at, entry, "zone", name, help);
            None
        })
    }

    pub(super) fn service_selector(
        &mut self,
        names: Option<&[String]>,
        at: Place<'_>,
        services: &mut Services<'_>,
    ) -> Selector<ServiceId> {
        self.selector(names, at, &["any", "all"], |checker, entry, name| {
            let id = services.id(name);
            if id.is_none() {
                let help = services.instead(name);
                checker.absent(at, entry, "service", name, help);
            }
            id
        })
    }

    pub(super) fn group_selector(
        &mut self,
        names: Option<&[String]>,
        at: Place<'_>,
        groups: &mut Groups<'_>,
        line: u32,
    ) -> Selector<GroupId> {
        self.selector(names, at, &["any"], |checker, entry, name| {
            if let Some(&group) = groups.named.get(name) {
                return Some(GroupId(group as u32));
            }
            match parse_member(name) {
                Ok(member) => Some(groups.literal(member, line)),
                Err(refusal) if looks_like_address(name) => {
                    checker.error(&at.entry(entry), refusal);
                    None
                }
                Err(_) => {
                    let help = match crate::suggest::nearest(name, sorted(&groups.named)) {
                        Some(near) => format!("did you mean \"{near}\"?"),
                        None => "define it under spec.addresses, or write an address".to_owned(),
                    };
                    checker.absent(at, entry, "address group", name, help);
                    None
                }
            }
        })
    }

    fn absent(&mut self, at: Place<'_>, entry: usize, what: &str, name: &str, help: String) {
        let message = format!(
            "{} \"{}\" names {what} \"{name}\", which does not exist",
            at.what, at.name
        );
        self.error(&at.entry(entry), (message, Some(help)));
    }

    /// One field of a rule; a field that is not written selects everything.
    fn selector<T: Ord>(
        &mut self,
        names: Option<&[String]>,
        at: Place<'_>,
        everything: &[&str],
        mut resolve: impl FnMut(&mut Self, usize, &str) -> Option<T>,
    ) -> Selector<T> {
        let Some(names) = names else {
            if self.written_empty(at) {
                self.refuse_empty(at, everything[0]);
            }
            return Selector::Any;
        };
        if names.is_empty() {
            self.refuse_empty(at, everything[0]);
        }
        if let Some(entry) = names.iter().position(|name| everything.contains(&&**name)) {
            if names.len() > 1 {
                let word = &names[entry];
                let message = format!(
                    "`{word}` stands beside other names in {} of {} \"{}\"",
                    at.field, at.what, at.name
                );
                self.error(
                    &at.entry(entry),
                    (message, Some(format!("write `{}: {word}` alone", at.field))),
                );
            }
            return Selector::Any;
        }
        let mut ids: Vec<T> = (0..names.len())
            .filter_map(|entry| resolve(self, entry, &names[entry]))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        Selector::OneOf(ids)
    }

    /// `source:` with nothing behind it reads as absent, but may be a template that came out empty.
    fn written_empty(&self, at: Place<'_>) -> bool {
        let mut node = self.tree;
        for segment in at.section {
            match segment {
                Segment::Key(key) => match node.get(key) {
                    Some(entry) => node = &entry.value,
                    None => return false,
                },
                Segment::Index(_) => return false,
            }
        }
        let Kind::List(items) = &node.kind else {
            return false;
        };
        items.get(at.index).and_then(|item| item.get(at.field)).is_some()
    }

    fn refuse_empty(&mut self, at: Place<'_>, everything: &str) {
        let message = format!("{} of {} \"{}\" is empty", at.field, at.what, at.name);
        let help = format!("write `{}: {everything}` if everything is meant", at.field);
        self.error_at_key(&at.path(), (message, Some(help)));
    }
}

fn is_void<T>(selector: &Selector<T>) -> bool {
    matches!(selector, Selector::OneOf(ids) if ids.is_empty())
}

/// The address groups that can be named, and the table they end up in.
pub(super) struct Groups<'d> {
    named: Names<'d>,
    literals: HashMap<Member, GroupId>,
    table: Vec<Group>,
}

impl<'d> Groups<'d> {
    pub(super) fn new(named: Names<'d>, table: Vec<Group>) -> Self {
        Self {
            named,
            literals: HashMap::new(),
            table,
        }
    }

    /// The group of one address written in a rule; the same address is the same group.
    fn literal(&mut self, member: Member, line: u32) -> GroupId {
        *self.literals.entry(member).or_insert_with(|| {
            let id = GroupId(self.table.len() as u32);
            self.table.push(Group {
                name: member.to_string(),
                literal: true,
                members: vec![member],
                line,
                ..Group::default()
            });
            id
        })
    }

    pub(super) fn into_table(self) -> Vec<Group> {
        self.table
    }
}
