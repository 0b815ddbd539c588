//! Policies and translation rules: names become ids, literals become groups, twins are pointed out.
//!
//! An empty list is refused in every field of a rule: it would match nothing where its author may have meant
//! everything, or the other way round. `any` stands alone.

use std::collections::HashMap;

use super::services::Services;
use super::{Checker, Names, instead, sorted};
use crate::address::{Member, looks_like_address, parse_member};
use crate::config::{Group, GroupId, NatRule, Policy, Selector, ServiceId, ZoneId};
use crate::document::{PolicyEntry, SourceNat};
use crate::node::{Kind, Segment, steps};

/// A field of a rule.
#[derive(Clone, Copy)]
struct Place<'p> {
    what: &'static str,
    name: &'p str,
    section: &'p [Segment],
    index: usize,
    field: &'static str,
}

impl Place<'_> {
    fn path(self) -> Vec<Segment> {
        [self.section, &steps![self.index, self.field]].concat()
    }

    fn entry(self, entry: usize) -> Vec<Segment> {
        [self.section, &steps![self.index, self.field, entry]].concat()
    }
}

impl Checker<'_, '_> {
    pub(super) fn policies(
        &mut self,
        entries: &[PolicyEntry],
        zones: &Names<'_>,
        groups: &mut Groups<'_>,
        services: &mut Services<'_>,
    ) -> Vec<Policy> {
        let section = steps!["spec", "policies"];
        self.names("policy", &section, entries.iter().map(|entry| &*entry.name));
        let mut policies = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let at = |field| Place {
                what: "policy",
                name: &entry.name,
                section: &section,
                index,
                field,
            };
            let line = self.line(&section, index);
            let mut log = entry.log.as_ref().map_or_else(Vec::new, |log| log.to_vec());
            log.sort_unstable();
            log.dedup();
            policies.push(Policy {
                name: entry.name.clone(),
                from: self.zone_selector(&entry.from, at("from"), zones),
                to: self.zone_selector(&entry.to, at("to"), zones),
                source: self.group_selector(entry.source.as_deref(), at("source"), groups, line),
                destination: self.group_selector(
                    entry.destination.as_deref(),
                    at("destination"),
                    groups,
                    line,
                ),
                service: self.service_selector(entry.service.as_deref(), at("service"), services),
                action: entry.action,
                log,
                line,
            });
        }
        self.twins(&policies);
        policies
    }

    pub(super) fn source_nat(&mut self, entries: &[SourceNat], zones: &Names<'_>) -> Vec<NatRule> {
        let section = steps!["spec", "nat", "source"];
        self.names("nat rule", &section, entries.iter().map(|entry| &*entry.name));
        let mut rules = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let at = |field| Place {
                what: "nat rule",
                name: &entry.name,
                section: &section,
                index,
                field,
            };
            rules.push(NatRule {
                name: entry.name.clone(),
                from: self.zone_selector(&entry.from, at("from"), zones),
                to: self.zone_selector(&entry.to, at("to"), zones),
                translate: entry.translate,
                line: self.line(&section, index),
            });
        }
        rules
    }

    /// A policy that selects exactly what an earlier one selects never decides anything.
    fn twins(&mut self, policies: &[Policy]) {
        let mut first_of = HashMap::with_capacity(policies.len());
        for (index, policy) in policies.iter().enumerate() {
            let selects = (
                &policy.from,
                &policy.to,
                &policy.source,
                &policy.destination,
                &policy.service,
            );
            let zones_known = !is_void(&policy.from) && !is_void(&policy.to);
            let addresses_known = !is_void(&policy.source) && !is_void(&policy.destination);
            // What a faulty field selects is unknown; its error is there already.
            if !(zones_known && addresses_known && !is_void(&policy.service)) {
                continue;
            }
            if let Some(&first) = first_of.get(&selects) {
                let first: &Policy = &policies[first];
                let message = format!(
                    "policy \"{}\" can never match: policy \"{}\" on line {} matches the same before it",
                    policy.name, first.name, first.line
                );
                let help = Some("remove one of them".to_owned());
                self.warning(&steps!["spec", "policies", index, "name"], (message, help));
            } else {
                first_of.insert(selects, index);
            }
        }
    }

    fn zone_selector(&mut self, names: &[String], at: Place<'_>, zones: &Names<'_>) -> Selector<ZoneId> {
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

    fn service_selector(
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

    fn group_selector(
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

    /// The group of one address written in a policy; the same address is the same group.
    fn literal(&mut self, member: Member, line: u32) -> GroupId {
        *self.literals.entry(member).or_insert_with(|| {
            let id = GroupId(self.table.len() as u32);
            self.table.push(Group {
                name: member.to_string(),
                literal: true,
                members: vec![member],
                line,
            });
            id
        })
    }

    pub(super) fn into_table(self) -> Vec<Group> {
        self.table
    }
}
