//! Policy as its documentation reads: the rules in order, the first that matches decides.
//!
//! Slow and obvious. The compiled tables are held against it by property tests, and `explain` uses it to name what
//! matched.

use std::net::IpAddr;

use crate::ruleset::{Policy, Prefix, Ruleset, ServiceMatch};

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

/// Whether group `index` has `address`.
#[must_use]
pub fn in_group(ruleset: &Ruleset, index: usize, address: &IpAddr) -> bool {
    ruleset.groups[index]
        .members
        .iter()
        .any(|prefix| covers(prefix, address))
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

fn matches(ruleset: &Ruleset, policy: &Policy, from: usize, to: usize, tuple: &Tuple) -> bool {
    let zone = |zones: &[usize], zone| zones.is_empty() || zones.contains(&zone);
    let group = |groups: &[usize], address| {
        groups.is_empty() || groups.iter().any(|group| in_group(ruleset, *group, address))
    };
    let service = policy.service.is_empty()
        || policy
            .service
            .iter()
            .any(|service| in_service(ruleset, *service, tuple.protocol, tuple.port));
    zone(&policy.from, from)
        && zone(&policy.to, to)
        && group(&policy.source, &tuple.source)
        && group(&policy.destination, &tuple.destination)
        && service
}

/// Index of the first policy that matches a packet from zone `from` to zone `to` (indices); `None`: denied by default.
#[must_use]
pub fn first_match(ruleset: &Ruleset, from: usize, to: usize, tuple: &Tuple) -> Option<usize> {
    ruleset
        .policies
        .iter()
        .position(|policy| matches(ruleset, policy, from, to, tuple))
}

/// Whether zone `from` permits the packet to the firewall itself.
#[must_use]
pub fn host_inbound(ruleset: &Ruleset, from: usize, tuple: &Tuple) -> bool {
    ruleset.zones[from]
        .host_inbound
        .iter()
        .any(|service| in_service(ruleset, *service, tuple.protocol, tuple.port))
}
