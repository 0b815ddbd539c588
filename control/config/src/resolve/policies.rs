//! Policies: every field resolved, in the order of the document.

use super::selectors::{Groups, Place, selected};
use super::services::Services;
use super::{Checker, Names};
use crate::config::Policy;
use crate::document::PolicyEntry;
use crate::node::steps;

impl Checker<'_, '_> {
    pub(super) fn policies(
        &mut self,
        entries: &[PolicyEntry],
        zones: &Names<'_>,
        groups: &mut Groups<'_>,
        services: &mut Services<'_>,
    ) -> Vec<Policy> {
        let section = steps!["spec", "policies"];
        self.names("policy", &section, entries);
        let mut policies = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let at = Place {
                what: "policy",
                name: &entry.name,
                section: &section,
                index,
                field: "name",
            };
            let line = self.line(&section, index);
            let mut log = entry.log.as_ref().map_or_else(Vec::new, |log| log.to_vec());
            log.sort_unstable();
            log.dedup();
            policies.push(Policy {
                name: entry.name.clone(),
                from: self.zone_selector(&entry.from, at.of("from"), zones),
                to: self.zone_selector(&entry.to, at.of("to"), zones),
                source: self.group_selector(entry.source.as_deref(), at.of("source"), groups, line),
                destination: self.group_selector(
                    entry.destination.as_deref(),
                    at.of("destination"),
                    groups,
                    line,
                ),
                service: self.service_selector(entry.service.as_deref(), at.of("service"), services),
                action: entry.action,
                log,
                line,
            });
        }
        self.twins(
            "policy",
            &section,
            policies.iter().map(|policy| {
                let selected = selected(
                    &policy.from,
                    &policy.to,
                    &policy.source,
                    &policy.destination,
                    &policy.service,
                );
                (&*policy.name, policy.line, selected)
            }),
        );
        policies
    }
}
