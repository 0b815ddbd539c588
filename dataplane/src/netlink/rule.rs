//! Fail-closed routing-policy rules: `iif NAME blackhole` at preference 100, in both families.
//!
//! The local table stays at preference 0, so what is addressed to the firewall is still delivered; every
//! other packet that reaches the kernel's own forwarding path from a data interface is dropped there. Only
//! the data plane, which forwards around that path, carries it on. The rules outlive the process: whoever
//! removes them must have detached the interface from the firewall first.

use std::fmt;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};

use super::link::NAME_BYTES;
use super::{Error, Family, Netlink, Result};

/// Preference of our rules: after the local table (0), before the main table (32766).
pub const BLACKHOLE_PREFERENCE: u32 = 100;

/// A rule that drops whatever the kernel would forward from one interface.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlackholeRule {
    /// The family it holds for.
    pub family: Family,
    /// Ingress interface; by name, so the rule survives the interface.
    pub interface: String,
    /// Its place among the rules.
    pub preference: u32,
}

impl fmt::Display for BlackholeRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {}: iif {} blackhole",
            self.family, self.preference, self.interface
        )
    }
}

impl BlackholeRule {
    /// `None` unless the rule drops everything that came in through one interface: any further selector
    /// would let something past it.
    fn from_message(message: RuleMessage) -> Option<Self> {
        let family = Family::from_wire(message.header.family)?;
        let narrowed = message.header.dst_len != 0
            || message.header.src_len != 0
            || message.header.tos != 0
            || message.header.flags.contains(RuleFlags::Invert);
        if message.header.action != RuleAction::Blackhole || narrowed {
            return None;
        }
        let (mut interface, mut preference) = (None, 0);
        for attribute in message.attributes {
            match attribute {
                RuleAttribute::Iifname(name) => interface = Some(name),
                RuleAttribute::Priority(number) => preference = number,
                RuleAttribute::Table(_)
                | RuleAttribute::Protocol(_)
                | RuleAttribute::SuppressPrefixLen(u32::MAX)
                | RuleAttribute::SuppressIfGroup(u32::MAX) => {}
                _ => return None,
            }
        }
        Some(Self {
            family,
            interface: interface?,
            preference,
        })
    }

    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = self.family.wire();
        message.header.action = RuleAction::Blackhole;
        message
            .attributes
            .push(RuleAttribute::Iifname(self.interface.clone()));
        message.attributes.push(RuleAttribute::Priority(self.preference));
        message
    }
}

impl Netlink {
    /// Makes sure that the kernel forwards nothing from `interface`, in either family. Returns whether a
    /// rule had to be added. The interface need not exist yet.
    pub fn ensure_blackhole_rule(&mut self, interface: &str) -> Result<bool> {
        let operation = format!("add the fail-closed rule of {interface}");
        // The kernel truncates nothing, but a rule for a name that no interface can have guards nothing.
        if interface.is_empty() || interface.len() > NAME_BYTES {
            let reason = format!("an interface name has 1 to {NAME_BYTES} bytes");
            return Err(Error::Invalid { operation, reason });
        }
        let present = self.blackhole_rules()?;
        let mut added = false;
        for family in Family::ALL {
            let rule = BlackholeRule {
                family,
                interface: interface.into(),
                preference: BLACKHOLE_PREFERENCE,
            };
            if present.contains(&rule) {
                continue;
            }
            let request = RouteNetlinkMessage::NewRule(rule.message());
            match self.socket.change(&operation, request, NLM_F_CREATE | NLM_F_EXCL) {
                Ok(()) => added = true,
                // Someone else was quicker with the same rule.
                Err(error) if error.is_exists() => {}
                // A kernel without the family cannot forward it either.
                Err(error) if family == Family::V6 && error.is_unsupported_family() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(added)
    }

    /// Every rule of the kind [`Self::ensure_blackhole_rule`] makes, at whatever preference.
    pub fn blackhole_rules(&mut self) -> Result<Vec<BlackholeRule>> {
        let mut rules = Vec::new();
        for family in Family::ALL {
            let mut request = RuleMessage::default();
            request.header.family = family.wire();
            let operation = format!("list {family} rules");
            let answers = match self
                .socket
                .dump(&operation, &RouteNetlinkMessage::GetRule(request))
            {
                Err(error) if error.is_unsupported_family() => continue,
                answers => answers?,
            };
            rules.extend(answers.into_iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRule(message) => {
                    BlackholeRule::from_message(message).filter(|rule| rule.family == family)
                }
                _ => None,
            }));
        }
        Ok(rules)
    }

    /// Removes our rules of `interface` in both families. Returns whether there were any.
    ///
    /// The kernel may forward from the interface again once this returns.
    pub fn remove_blackhole_rule(&mut self, interface: &str) -> Result<bool> {
        let operation = format!("remove the fail-closed rule of {interface}");
        let mut removed = false;
        for rule in self.blackhole_rules()? {
            if rule.interface != interface || rule.preference != BLACKHOLE_PREFERENCE {
                continue;
            }
            match self
                .socket
                .change(&operation, RouteNetlinkMessage::DelRule(rule.message()), 0)
            {
                Ok(()) => removed = true,
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_with_a_further_selector_is_not_fail_closed() {
        let rule = BlackholeRule {
            family: Family::V4,
            interface: "net1".into(),
            preference: BLACKHOLE_PREFERENCE,
        };
        assert_eq!(BlackholeRule::from_message(rule.message()), Some(rule.clone()));
        let mut narrowed = rule.message();
        narrowed.attributes.push(RuleAttribute::FwMark(1));
        assert_eq!(BlackholeRule::from_message(narrowed), None);
        let mut inverted = rule.message();
        inverted.header.flags = RuleFlags::Invert;
        assert_eq!(BlackholeRule::from_message(inverted), None);
    }
}
