//! Policy and translation as their documentation reads: the rules in order, the first that matches decides.
//!
//! Slow and obvious. The compiled tables are held against it by property tests, and `explain` uses it to name what
//! matched.

use std::net::IpAddr;

use crate::ruleset::{Prefix, Ruleset, ServiceMatch};

/// A packet as policy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuple {
    /// Source before translation.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Destination port, ICMP `type << 8 | code`, or 0.
    pub port: u16,
}

/// Whether `prefix` covers `address`.
#[must_use]
pub fn covers(prefix: &Prefix, address: &IpAddr) -> bool {
    match (prefix.address, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            prefix.length == 0
                || (u32::from(network) ^ u32::from(*address)) >> (32 - u32::from(prefix.length)) == 0
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            prefix.length == 0
                || (u128::from(network) ^ u128::from(*address)) >> (128 - u32::from(prefix.length)) == 0
        }
        _ => false,
    }
}

/// Whether group `index` has `address`: it or a group in it does, and nothing it excepts.
#[must_use]
pub fn in_group(ruleset: &Ruleset, index: usize, address: &IpAddr) -> bool {
    let group = &ruleset.groups[index];
    let listed = |prefixes: &[Prefix]| prefixes.iter().any(|prefix| covers(prefix, address));
    let any = |groups: &[usize]| groups.iter().any(|nested| in_group(ruleset, *nested, address));
    (listed(&group.members) || any(&group.groups)) && !listed(&group.except) && !any(&group.except_groups)
}

/// Whether service `index` has the protocol and port.
#[must_use]
pub fn in_service(ruleset: &Ruleset, index: usize, protocol: u8, port: u16) -> bool {
    ruleset.services[index]
        .matches
        .iter()
        .any(|service| match *service {
            ServiceMatch::Any => true,
            ServiceMatch::Protocol(own) => own == protocol,
            ServiceMatch::Ports {
                protocol: own,
                first,
                last,
            } => own == protocol && (first..=last).contains(&port),
            ServiceMatch::Icmp {
                protocol: own,
                kind,
                code,
            } => {
                own == protocol
                    && port >> 8 == u16::from(kind)
                    && code.is_none_or(|code| port & 0xff == u16::from(code))
            }
        })
}

/// Who says which groups an address is in.
pub trait Membership {
    /// Whether the group with this index has the address.
    fn has(&self, group: usize, address: &IpAddr) -> bool;
}

/// What the ruleset lists: the members that dynamic groups begin with.
impl Membership for Ruleset {
    fn has(&self, group: usize, address: &IpAddr) -> bool {
        in_group(self, group, address)
    }
}

/// What a rule of any kind names; an empty list means anything.
struct Named<'a> {
    from: &'a [usize],
    to: &'a [usize],
    source: &'a [usize],
    destination: &'a [usize],
    service: &'a [usize],
}

/// Whether a rule that names these matches a packet from zone `from` to zone `to`.
fn matches(
    ruleset: &Ruleset,
    members: &impl Membership,
    named: &Named<'_>,
    (from, to): (usize, usize),
    tuple: &Tuple,
) -> bool {
    let zone = |zones: &[usize], zone| zones.is_empty() || zones.contains(&zone);
    let group = |groups: &[usize], address| {
        groups.is_empty() || groups.iter().any(|group| members.has(*group, address))
    };
    let service = named.service.is_empty()
        || named
            .service
            .iter()
            .any(|service| in_service(ruleset, *service, tuple.protocol, tuple.port));
    // Groups last: theirs are the long lists.
    zone(named.from, from)
        && zone(named.to, to)
        && service
        && group(named.source, &tuple.source)
        && group(named.destination, &tuple.destination)
}

/// Index of the first policy that matches a packet from zone `from` to zone `to` (indices); `None`: denied by default.
#[must_use]
pub fn first_match(ruleset: &Ruleset, from: usize, to: usize, tuple: &Tuple) -> Option<usize> {
    first_match_among(ruleset, ruleset, from, to, tuple)
}

/// The same with members that somebody else knows: those that dynamic groups have by now.
#[must_use]
pub fn first_match_among(
    ruleset: &Ruleset,
    members: &impl Membership,
    from: usize,
    to: usize,
    tuple: &Tuple,
) -> Option<usize> {
    ruleset.policies.iter().position(|policy| {
        let named = Named {
            from: &policy.from,
            to: &policy.to,
            source: &policy.source,
            destination: &policy.destination,
            service: &policy.service,
        };
        matches(ruleset, members, &named, (from, to), tuple)
    })
}

/// A NAT rule by its place: among the static ones, which are asked first, or among the configured ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatMatch {
    /// A static rule.
    Static(usize),
    /// A source or destination rule.
    Rule(usize),
}

/// The first rule that says what becomes of the source of a packet from zone `from` to zone `to`.
#[must_use]
pub fn source_nat(ruleset: &Ruleset, from: usize, to: usize, tuple: &Tuple) -> Option<NatMatch> {
    let fixed = ruleset.static_nat.iter().position(|rule| {
        covers(&rule.inside, &tuple.source) && (rule.from.is_empty() || rule.from.contains(&to))
    });
    let configured = || {
        ruleset.source_nat.iter().position(|rule| {
            let named = Named {
                from: &rule.from,
                to: &rule.to,
                source: &rule.source,
                destination: &rule.destination,
                service: &rule.service,
            };
            matches(ruleset, ruleset, &named, (from, to), tuple)
        })
    };
    fixed
        .map(NatMatch::Static)
        .or_else(|| configured().map(NatMatch::Rule))
}

/// The first rule that says what becomes of the destination of a packet from zone `from`.
#[must_use]
pub fn destination_nat(ruleset: &Ruleset, from: usize, tuple: &Tuple) -> Option<NatMatch> {
    destination_nat_among(ruleset, ruleset, from, tuple)
}

/// The same with members that somebody else knows: those that dynamic groups have by now.
#[must_use]
pub fn destination_nat_among(
    ruleset: &Ruleset,
    members: &impl Membership,
    from: usize,
    tuple: &Tuple,
) -> Option<NatMatch> {
    let fixed = ruleset.static_nat.iter().position(|rule| {
        covers(&rule.outside, &tuple.destination) && (rule.from.is_empty() || rule.from.contains(&from))
    });
    let configured = || {
        ruleset.destination_nat.iter().position(|rule| {
            let named = Named {
                from: &rule.from,
                to: &[],
                source: &rule.source,
                destination: &rule.destination,
                service: &rule.service,
            };
            matches(ruleset, members, &named, (from, from), tuple)
        })
    };
    fixed
        .map(NatMatch::Static)
        .or_else(|| configured().map(NatMatch::Rule))
}

/// Whether zone `from` permits the packet to the firewall itself.
#[must_use]
pub fn host_inbound(ruleset: &Ruleset, from: usize, tuple: &Tuple) -> bool {
    ruleset.zones[from]
        .host_inbound
        .iter()
        .any(|service| in_service(ruleset, *service, tuple.protocol, tuple.port))
}
