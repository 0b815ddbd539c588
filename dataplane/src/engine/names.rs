//! What a configuration's numbers are called: all that is kept of those that were in force before.
//!
//! Flows, events and mappings say zones and rules by their numbers, which mean what they meant when the flow was judged.
//! Owns the words for them, in a tenth of what the rules themselves take: a daemon remembers several configurations.

use bulkhead_abi::{STATIC_RULE, ZONE_SELF};

use crate::ruleset::{Ruleset, SourceTranslation};

/// What is said of numbers that the daemon before gave, until the session's next packet is judged by this one.
const BEFORE_RESTART: &str = "before restart";

/// Names of one sort, by their number.
#[derive(Debug, Default)]
struct Words {
    text: Box<str>,
    /// Where each ends in `text`.
    ends: Box<[usize]>,
}

impl Words {
    fn of<'a>(names: impl Iterator<Item = &'a String>) -> Self {
        let mut text = String::new();
        let add = |name: &String| {
            text += name;
            text.len()
        };
        let ends = names.map(add).collect();
        Self {
            ends,
            text: text.into(),
        }
    }

    fn get(&self, number: usize) -> Option<&str> {
        let end = *self.ends.get(number)?;
        let before = number.checked_sub(1);
        let begin = before.and_then(|before| self.ends.get(before)).copied();
        self.text.get(begin.unwrap_or(0)..end)
    }

    /// `None` for `u32::MAX`: none of them.
    fn name(&self, number: u32) -> Option<String> {
        (number != u32::MAX).then(|| match self.get(number as usize) {
            Some(name) => name.to_owned(),
            // Of a list without names.
            None if self.ends.is_empty() => BEFORE_RESTART.to_owned(),
            None => format!("#{number}"),
        })
    }
}

/// What a policy tells the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Logs {
    /// Sessions that begin.
    pub(super) create: bool,
    /// Sessions that end.
    pub(super) close: bool,
    /// Packets that are denied.
    pub(super) deny: bool,
}

/// The names of one configuration.
#[derive(Debug, Default)]
pub(super) struct Names {
    zones: Words,
    policies: Words,
    logs: Box<[Logs]>,
    source_nat: Words,
    /// Pools of the source rules.
    source_pools: Box<[Option<String>]>,
    destination_nat: Words,
    static_nat: Words,
}

impl Names {
    /// Those of a ruleset.
    pub(super) fn of(ruleset: &Ruleset) -> Self {
        let pool = |translation| match translation {
            SourceTranslation::Pool(pool) => ruleset.pools.get(pool).map(|pool| pool.name.clone()),
            SourceTranslation::Off | SourceTranslation::Interface => None,
        };
        let policies = || ruleset.policies.iter();
        Self {
            zones: Words::of(ruleset.zones.iter().map(|zone| &zone.name)),
            policies: Words::of(policies().map(|policy| &policy.name)),
            logs: policies()
                .map(|policy| Logs {
                    create: policy.log_create,
                    close: policy.log_close,
                    deny: policy.log_deny,
                })
                .collect(),
            source_nat: Words::of(ruleset.source_nat.iter().map(|rule| &rule.name)),
            source_pools: ruleset
                .source_nat
                .iter()
                .map(|rule| pool(rule.translation))
                .collect(),
            destination_nat: Words::of(ruleset.destination_nat.iter().map(|rule| &rule.name)),
            static_nat: Words::of(ruleset.static_nat.iter().map(|rule| &rule.name)),
        }
    }

    /// Name of a zone's number.
    pub(super) fn zone(&self, zone: u8) -> String {
        match usize::from(zone).checked_sub(1) {
            _ if zone == ZONE_SELF => "self".to_owned(),
            _ if self.zones.ends.is_empty() => BEFORE_RESTART.to_owned(),
            index => index
                .and_then(|index| self.zones.get(index))
                .map_or_else(|| format!("#{zone}"), str::to_owned),
        }
    }

    /// Name of a policy's index; `None` for `u32::MAX`.
    pub(super) fn policy(&self, index: u32) -> Option<String> {
        self.policies.name(index)
    }

    /// What the policy with this index tells the log.
    pub(super) fn logs(&self, index: u32) -> Logs {
        self.logs.get(index as usize).copied().unwrap_or_default()
    }

    /// Name of a source NAT rule's index, static ones included; `None` for `u32::MAX`.
    pub(super) fn source_rule(&self, index: u32) -> Option<String> {
        self.nat_rule(&self.source_nat, index)
    }

    /// Name of a destination NAT rule's index, static ones included; `None` for `u32::MAX`.
    pub(super) fn destination_rule(&self, index: u32) -> Option<String> {
        self.nat_rule(&self.destination_nat, index)
    }

    fn nat_rule(&self, own: &Words, index: u32) -> Option<String> {
        match index & STATIC_RULE {
            0 => own.name(index),
            _ if index == u32::MAX => None,
            _ => self.static_nat.name(index & !STATIC_RULE),
        }
    }

    /// The pool that the source NAT rule with this index translates to.
    pub(super) fn source_pool(&self, index: u32) -> Option<&str> {
        self.source_pools.get(index as usize)?.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::{Policy, Pool, SourceNat, StaticNat, Zone};

    fn named<T>(names: &[&str], one: impl Fn(String) -> T) -> Vec<T> {
        names.iter().map(|name| one((*name).to_owned())).collect()
    }

    #[test]
    fn numbers_are_called_what_they_were_called_when_given() {
        let prefix = |text: &str| crate::ruleset::Prefix {
            address: text.parse().expect("an address"),
            length: 32,
        };
        let ruleset = Ruleset {
            zones: named(&["in", "", "außen"], |name| Zone {
                name,
                ..Zone::default()
            }),
            policies: named(&["a", "bc"], |name| Policy {
                log_deny: name == "bc",
                name,
                ..Policy::default()
            }),
            pools: named(&["pool"], |name| Pool {
                name,
                ..Pool::default()
            }),
            source_nat: vec![
                SourceNat {
                    name: "off".to_owned(),
                    ..SourceNat::default()
                },
                SourceNat {
                    name: "out".to_owned(),
                    translation: SourceTranslation::Pool(0),
                    ..SourceNat::default()
                },
            ],
            static_nat: vec![StaticNat {
                name: "fixed".to_owned(),
                from: Vec::new(),
                outside: prefix("192.0.2.1"),
                inside: prefix("10.0.0.1"),
                npt: false,
            }],
            ..Ruleset::default()
        };
        let names = Names::of(&ruleset);
        let zones: Vec<String> = (0..5).map(|zone| names.zone(zone)).collect();
        assert_eq!(zones, ["self", "in", "", "außen", "#4"]);
        let policies = [0, 1, 2, u32::MAX].map(|index| names.policy(index));
        assert_eq!(
            policies.each_ref().map(Option::as_deref),
            [Some("a"), Some("bc"), Some("#2"), None]
        );
        assert!(names.logs(1).deny && !names.logs(0).deny && !names.logs(7).deny);
        assert_eq!(names.source_rule(1).as_deref(), Some("out"));
        assert_eq!(names.source_rule(STATIC_RULE).as_deref(), Some("fixed"));
        assert_eq!(names.destination_rule(STATIC_RULE).as_deref(), Some("fixed"));
        assert_eq!(names.destination_rule(u32::MAX), None);
        assert_eq!((names.source_pool(0), names.source_pool(1)), (None, Some("pool")));
    }

    #[test]
    fn what_the_daemon_before_gave_has_no_names() {
        let names = Names::default();
        assert_eq!(names.zone(0), "self");
        assert_eq!(names.zone(3), BEFORE_RESTART);
        assert_eq!(names.policy(3).as_deref(), Some(BEFORE_RESTART));
        assert_eq!(
            names.source_rule(STATIC_RULE | 1).as_deref(),
            Some(BEFORE_RESTART)
        );
        assert_eq!(names.policy(u32::MAX), None);
        assert_eq!(names.source_pool(0), None);
    }
}
