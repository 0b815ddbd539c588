//! How large the firewall is made, and whether what was written fits.

use std::collections::HashSet;
use std::net::IpAddr;

use super::Checker;
use crate::address::Member;
use crate::config::{Config, Extent, Group, Size};
use crate::document::{SizeEntry, SizeName, Spec};
use crate::node::steps;

impl Checker<'_, '_> {
    /// The size, and the name whose sessions count where none are written.
    pub(super) fn size(&mut self, entry: Option<SizeEntry>) -> (SizeName, Size) {
        let numbers = match entry {
            None => return (SizeName::default(), Size::default()),
            Some(SizeEntry::Name(name)) => return (name, name.size()),
            Some(SizeEntry::Numbers(numbers)) => numbers,
        };
        let base = numbers.base.unwrap_or_default();
        let (default, most) = (base.size(), SizeName::Xlarge.size());
        let mut number = |field: &'static str, written, default, most| {
            self.number(&steps!["spec", "size", field], written, default, (1, most))
        };
        let size = Size {
            policies: number("policies", numbers.policies, default.policies, most.policies),
            addresses: number("addresses", numbers.addresses, default.addresses, most.addresses),
            routes: number("routes", numbers.routes, default.routes, most.routes),
            neighbours: number(
                "neighbours",
                numbers.neighbours,
                default.neighbours,
                most.neighbours,
            ),
        };
        (base, size)
    }

    /// One error for each thing that there is too much of, at the first one that has no room.
    pub(super) fn fits(&mut self, spec: &Spec, config: &Config) {
        let extent = config.extent;
        for excess in extent.excess(&config.size) {
            let size = match spec.size {
                None => "size medium, the default".to_owned(),
                Some(SizeEntry::Name(name)) => format!("size {}", name.name()),
                Some(SizeEntry::Numbers(_)) => "the size".to_owned(),
            };
            let (number, room, what) = (excess.number, excess.room, excess.what);
            let message = format!("{number} {what} do not fit {size}, which has room for {room}");
            let help = match (extent.smallest(), spec.size) {
                (None, _) => {
                    "no size has room for so many: write larger prefixes, or divide them among firewalls"
                        .to_owned()
                }
                (Some(_), Some(SizeEntry::Numbers(_))) => {
                    format!("raise spec.size.{} to {number}", excess.field)
                }
                (Some(name), _) => format!("write `size: {}`, which has room", name.name()),
            };
            let path = match excess.field {
                "policies" => steps!["spec", "policies", excess.room as usize].to_vec(),
                // The largest group, where a remedy is most likely to be found; literals in rules have none.
                _ => match largest(&config.groups, spec.addresses.len()) {
                    Some(group) => steps!["spec", "addresses", group].to_vec(),
                    None => steps!["spec"].to_vec(),
                },
            };
            self.error(&path, (message, Some(help)));
        }
        let (most, excess) = (Extent::MOST_RULES, extent.rules_too_many());
        // With more policies than that alone it has been said.
        if excess != 0 && extent.policies <= most {
            let policies = extent.policies;
            let message = format!(
                "{} rules ({policies} policies, and one for each zone with hostInbound) are more than the {most} that a \
                 firewall of any size has room for",
                most + excess
            );
            let help = format!("leave out {excess} of the policies, or divide them among firewalls");
            self.error(
                &steps!["spec", "policies", policies - excess],
                (message, Some(help)),
            );
        }
    }
}

/// Of the named groups, which come first.
fn largest(groups: &[Group], named: usize) -> Option<usize> {
    let named = groups.iter().take(named).enumerate();
    named
        .max_by_key(|(_, group)| group.members.len())
        .map(|(index, _)| index)
}

/// What a configuration has of what its size bounds.
pub(super) fn extent(config: &Config) -> Extent {
    let mut distinct = HashSet::new();
    let groups = config.groups.iter();
    for member in groups.flat_map(|group| group.members.iter().chain(&group.except)) {
        match *member {
            Member::Host(IpAddr::V4(address)) => distinct.insert((IpAddr::V4(address), 32)),
            Member::Host(address) => distinct.insert((address, 128)),
            Member::Prefix(prefix) => distinct.insert((prefix.address, prefix.length)),
            Member::Range(range) => {
                distinct.extend(
                    range
                        .prefixes()
                        .into_iter()
                        .map(|prefix| (prefix.address, prefix.length)),
                );
                true
            }
        };
    }
    let addresses_v4 = distinct.iter().filter(|(address, _)| address.is_ipv4()).count();
    Extent {
        policies: config.policies.len(),
        addresses_v4,
        addresses_v6: distinct.len() - addresses_v4,
        inbound: config
            .zones
            .iter()
            .filter(|zone| !zone.host_inbound.is_empty())
            .count(),
    }
}
