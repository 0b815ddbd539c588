//! Source and destination rules of translation.
//!
//! Owns which pool a rule may name and what persistence needs.

use super::pools::Pools;
use super::quantities::PERSISTENT_TIMEOUTS;
use super::selectors::{Groups, Place, selected};
use super::services::Services;
use super::{Checker, Names, instead};
use crate::config::{
    DestinationRule, Persistent, Pool, PoolId, PoolUse, Selector, SourceRule, SourceTranslation,
};
use crate::document::{DestinationNat, DestinationTranslation, SourceNat, Translation};
use crate::node::steps;

/// The things that rules name.
pub(super) struct Objects<'o, 'd> {
    pub zones: &'o Names<'d>,
    pub groups: &'o mut Groups<'d>,
    pub services: &'o mut Services<'d>,
    pub pools: &'o Pools<'d>,
}

impl Checker<'_, '_> {
    pub(super) fn source_nat(
        &mut self,
        entries: &[SourceNat],
        objects: &mut Objects<'_, '_>,
    ) -> Vec<SourceRule> {
        let section = steps!["spec", "nat", "source"];
        self.names("source rule", &section, entries);
        let mut rules = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let at = Place {
                what: "source rule",
                name: &entry.name,
                section: &section,
                index,
                field: "name",
            };
            let line = self.line(&section, index);
            let wants_pool = entry.translate == Translation::Pool;
            let pool = self.pool_of_rule(entry.pool.as_deref(), wants_pool, at, objects.pools);
            if let Some(pool) = pool {
                self.pool_for_source(entry, objects.pools.get(pool), at);
            }
            let translate = match (entry.translate, pool) {
                (Translation::Interface, _) => SourceTranslation::Interface,
                (Translation::Pool, Some(pool)) => SourceTranslation::Pool(pool),
                // Without its pool it is faulty and will not come to be.
                (Translation::Off | Translation::Pool, _) => SourceTranslation::Off,
            };
            let groups = &mut *objects.groups;
            rules.push(SourceRule {
                name: entry.name.clone(),
                from: self.zone_selector(&entry.from, at.of("from"), objects.zones),
                to: self.zone_selector(&entry.to, at.of("to"), objects.zones),
                source: self.group_selector(entry.source.as_deref(), at.of("source"), groups, line),
                destination: self.group_selector(
                    entry.destination.as_deref(),
                    at.of("destination"),
                    groups,
                    line,
                ),
                service: self.service_selector(entry.service.as_deref(), at.of("service"), objects.services),
                translate,
                persistent: self.persistent(entry, at),
                line,
            });
        }
        self.twins(
            "source rule",
            &section,
            rules.iter().map(|rule| {
                let selected = selected(
                    &rule.from,
                    &rule.to,
                    &rule.source,
                    &rule.destination,
                    &rule.service,
                );
                (&*rule.name, rule.line, selected)
            }),
        );
        rules
    }

    pub(super) fn destination_nat(
        &mut self,
        entries: &[DestinationNat],
        objects: &mut Objects<'_, '_>,
    ) -> Vec<DestinationRule> {
        let section = steps!["spec", "nat", "destination"];
        self.names("destination rule", &section, entries);
        let mut rules = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let at = Place {
                what: "destination rule",
                name: &entry.name,
                section: &section,
                index,
                field: "name",
            };
            let line = self.line(&section, index);
            let wants_pool = entry.translate == DestinationTranslation::Pool;
            let pool = self.pool_of_rule(entry.pool.as_deref(), wants_pool, at, objects.pools);
            if let Some(PoolUse::Source { .. }) = pool.map(|pool| objects.pools.get(pool).usage) {
                let name = entry.pool.as_deref().unwrap_or_default();
                let message = format!(
                    "destination rule \"{}\" names pool \"{name}\", which is for source rules",
                    entry.name
                );
                let help = "name a pool without `ports`, `paired` and `alarm`".to_owned();
                self.error(&at.of("pool").path(), (message, Some(help)));
            }
            let groups = &mut *objects.groups;
            rules.push(DestinationRule {
                name: entry.name.clone(),
                from: self.zone_selector(&entry.from, at.of("from"), objects.zones),
                source: self.group_selector(entry.source.as_deref(), at.of("source"), groups, line),
                destination: self.group_selector(
                    entry.destination.as_deref(),
                    at.of("destination"),
                    groups,
                    line,
                ),
                service: self.service_selector(entry.service.as_deref(), at.of("service"), objects.services),
                pool,
                line,
            });
        }
        let anywhere = Selector::Any;
        self.twins(
            "destination rule",
            &section,
            rules.iter().map(|rule| {
                let selected = selected(
                    &rule.from,
                    &anywhere,
                    &rule.source,
                    &rule.destination,
                    &rule.service,
                );
                (&*rule.name, rule.line, selected)
            }),
        );
        rules
    }

    /// The pool of a rule; a name and `translate: pool` go together.
    fn pool_of_rule(
        &mut self,
        name: Option<&str>,
        wants_pool: bool,
        at: Place<'_>,
        pools: &Pools<'_>,
    ) -> Option<PoolId> {
        let (what, rule) = (at.what, at.name);
        let Some(name) = name else {
            if wants_pool {
                let message = format!("{what} \"{rule}\" translates to a pool but names none");
                let help = match pools.names().first() {
                    Some(first) => format!("add the name of a pool, such as `pool: {first}`"),
                    None => "define a pool under spec.nat.pools and name it with `pool`".to_owned(),
                };
                self.error(&at.of("translate").path(), (message, Some(help)));
            }
            return None;
        };
        if !wants_pool {
            let message = format!("{what} \"{rule}\" names pool \"{name}\" but does not translate to it");
            let help = "write `translate: pool`, or leave `pool` out".to_owned();
            self.error_at_key(&at.of("pool").path(), (message, Some(help)));
            return None;
        }
        let pool = pools.id(name);
        if pool.is_none() {
            let message = format!("{what} \"{rule}\" names pool \"{name}\", which does not exist");
            let help = instead(name, "pools", pools.names().into_iter());
            self.error(&at.of("pool").path(), (message, Some(help)));
        }
        pool
    }

    fn pool_for_source(&mut self, entry: &SourceNat, pool: &Pool, at: Place<'_>) {
        let (rule, name) = (&entry.name, &pool.name);
        match pool.usage {
            PoolUse::Destination(_) => {
                let message =
                    format!("source rule \"{rule}\" names pool \"{name}\", which is for destination rules");
                let help = "name a pool without `port`".to_owned();
                self.error(&at.of("pool").path(), (message, Some(help)));
            }
            PoolUse::Source { ports: None, .. } if entry.persistent.is_some() => {
                let message =
                    format!("source rule \"{rule}\" is persistent, but pool \"{name}\" has `ports: none`");
                let help = "a host keeps a port of its own: give the pool ports, or leave `persistent` out";
                self.error(&at.of("persistent").path(), (message, Some(help.to_owned())));
            }
            PoolUse::Either | PoolUse::Source { .. } => {}
        }
    }

    fn persistent(&mut self, entry: &SourceNat, at: Place<'_>) -> Option<Persistent> {
        let rule = &entry.name;
        if entry.persistent.is_some() && entry.translate == Translation::Off {
            let message = format!("source rule \"{rule}\" is persistent, but translates nothing");
            let help =
                "write `translate: interface` or `translate: pool`, or leave `persistent` out".to_owned();
            self.error(&at.of("persistent").path(), (message, Some(help)));
        }
        if entry.persistent.is_none() && entry.persistent_timeout.is_some() {
            let message = format!("source rule \"{rule}\" has a persistentTimeout, but is not persistent");
            let help = "add `persistent: any-remote-host`, target-host or target-host-port, or leave it out";
            self.error_at_key(
                &at.of("persistentTimeout").path(),
                (message, Some(help.to_owned())),
            );
        }
        let timeout = self.duration(
            &at.of("persistentTimeout").path(),
            entry.persistent_timeout.as_ref(),
            Persistent::DEFAULT_TIMEOUT,
            PERSISTENT_TIMEOUTS,
        );
        entry.persistent.map(|scope| Persistent { scope, timeout })
    }
}
