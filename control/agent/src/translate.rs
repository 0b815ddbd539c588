//! From a checked configuration to what the data plane enforces: a pure function, total because a [`Config`] is sound.
//!
//! Owns the correspondence of the two vocabularies: ids become indices, `any` the empty list, the ranges of groups
//! prefixes. Keeps the order and number of zones, named groups, services, policies, pools, screens and rules, so that an index
//! means the same on both sides and the data plane's hit counts can be read against the configuration.

pub mod isolation;
mod nat;
mod screens;

use bulkhead_config::{
    Action, Alg, Config, Group, GroupId, Hook, IcmpMatch, InterfaceId, IpPrefix, LogEvent, Member, Midstream,
    Mss, Passage, PoolId, PortRange, ScreenId, Selector, ServiceId, ServiceMatch, Size, Timeouts, Window,
    Wire, ZoneId,
};
use bulkhead_dataplane::bpf::Sizes;
use bulkhead_dataplane::ruleset;

use crate::groups::Source;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Rules besides the policies: one for each zone that may reach the firewall itself, and zone numbers have eight bits.
const HOST_INBOUND_RULES: u32 = 256;
/// Answers (TCP resets, ICMP errors) per second and CPU: what Linux allows itself, `icmp_msgs_per_sec`.
const ANSWERS_PER_SECOND: u32 = 1_000;
/// Denial events per second and CPU: more than a person can read, less than a flood can cost.
const DENY_EVENTS_PER_SECOND: u32 = 1_000;

/// What the data plane is to enforce.
pub fn ruleset(config: &Config) -> ruleset::Ruleset {
    ruleset::Ruleset {
        zones: config
            .zones
            .iter()
            .map(|zone| ruleset::Zone {
                name: zone.name.clone(),
                host_inbound: zone.host_inbound.iter().map(index).collect(),
                screen: zone.screen.as_ref().map(index),
            })
            .collect(),
        interfaces: interfaces(config),
        groups: groups(config),
        services: config
            .services
            .iter()
            .map(|service| ruleset::Service {
                name: service.name.clone(),
                matches: service.matches.iter().map(service_match).collect(),
                timeout: service.timeout,
            })
            .collect(),
        policies: config.policies.iter().map(policy).collect(),
        pools: config.pools.iter().map(nat::pool).collect(),
        source_nat: config.source_nat.iter().map(nat::source).collect(),
        destination_nat: config.destination_nat.iter().map(nat::destination).collect(),
        static_nat: config.static_nat.iter().map(nat::fixed).collect(),
        silent_nat: !config.answer_neighbours,
        screens: config.screens.iter().map(screens::screen).collect(),
        wires: config.wires.iter().map(wire).collect(),
        tcp: tcp(&config.tcp),
        gateways: ruleset::Gateways {
            ftp: config.algs.contains(&Alg::Ftp),
            tftp: config.algs.contains(&Alg::Tftp),
        },
        early_ageing: config.sessions.early_ageing.map(|early| ruleset::EarlyAgeing {
            high: early.high,
            low: early.low,
            timeout: early.timeout,
        }),
        timeouts: timeouts(&config.sessions.timeouts),
        answers_per_second: ANSWERS_PER_SECOND,
        deny_events_per_second: DENY_EVENTS_PER_SECOND,
    }
}

/// The interfaces alone: what a preflight looks at.
pub fn interfaces(config: &Config) -> Vec<ruleset::InterfaceRule> {
    config
        .interfaces
        .iter()
        .enumerate()
        .map(|(number, interface)| ruleset::InterfaceRule {
            name: interface.name.clone(),
            zone: index(&interface.zone),
            addresses: interface
                .addresses
                .iter()
                .map(|given| (given.address, given.length))
                .collect(),
            routes: config
                .routes
                .iter()
                .filter(|route| index(&route.interface) == number)
                .map(|route| ruleset::StaticRoute {
                    to: (route.to.address, route.to.length),
                    via: route.via,
                })
                .collect(),
            hook: match interface.hook {
                Hook::Auto => ruleset::HookMode::Auto,
                Hook::Tcx => ruleset::HookMode::Tcx,
                Hook::Xdp => ruleset::HookMode::Xdp,
            },
        })
        .collect()
}

/// How large the tables are made. They cannot grow later: another size takes a restart.
pub fn sizes(config: &Config) -> Sizes {
    table_sizes(&config.size, config.sessions.max, config.sessions.half_open)
}

/// The same, from the numbers alone.
pub const fn table_sizes(size: &Size, sessions: u32, half_open: u32) -> Sizes {
    Sizes {
        sessions,
        half_open,
        // While a commit is staged both generations are there.
        rules: size.policies.saturating_add(HOST_INBOUND_RULES).saturating_mul(2),
        addresses: size.addresses,
        routes: size.routes,
        neighbours: size.neighbours,
    }
}

/// An id that is an index into a table of the configuration.
trait Id {
    fn number(&self) -> u32;
}

macro_rules! ids {
    ($($id:ty),*) => { $(
        impl Id for $id {
            fn number(&self) -> u32 {
                self.0
            }
        }
    )* };
}

ids!(InterfaceId, ZoneId, ScreenId, GroupId, ServiceId, PoolId);

fn index(id: &impl Id) -> usize {
    id.number() as usize
}

/// `OneOf` is never empty in a [`Config`], so the empty list is free to mean `any`.
fn indices<T: Id>(selector: &Selector<T>) -> Vec<usize> {
    match selector {
        Selector::Any => Vec::new(),
        Selector::OneOf(ids) => ids.iter().map(index).collect(),
    }
}

fn prefix(prefix: IpPrefix) -> ruleset::Prefix {
    ruleset::Prefix {
        address: prefix.address,
        length: prefix.length,
    }
}

/// The named groups and literals in the order of the configuration, then the hidden groups of their sources, which begin
/// empty here; see [`crate::groups`].
fn groups(config: &Config) -> Vec<ruleset::Group> {
    let mut groups: Vec<ruleset::Group> = config.groups.iter().map(group).collect();
    for (number, written) in config.groups.iter().enumerate() {
        for source in Source::of(written) {
            let hidden = groups.len();
            groups[number].groups.push(hidden);
            groups.push(ruleset::Group {
                name: source.hidden(&written.name),
                dynamic: true,
                ..ruleset::Group::default()
            });
        }
    }
    groups
}

fn group(group: &Group) -> ruleset::Group {
    ruleset::Group {
        name: group.name.clone(),
        members: prefixes(&group.members),
        groups: group.groups.iter().map(index).collect(),
        except: prefixes(&group.except),
        except_groups: group.except_groups.iter().map(index).collect(),
        dynamic: false,
    }
}

fn prefixes(members: &[Member]) -> Vec<ruleset::Prefix> {
    let mut prefixes = Vec::with_capacity(members.len());
    for member in members {
        match *member {
            Member::Host(address) => prefixes.push(prefix(IpPrefix::host(address))),
            Member::Prefix(network) => prefixes.push(prefix(network)),
            Member::Range(range) => prefixes.extend(range.prefixes().into_iter().map(prefix)),
        }
    }
    prefixes
}

fn service_match(wanted: &ServiceMatch) -> ruleset::ServiceMatch {
    let ports = |protocol, PortRange { first, last }| ruleset::ServiceMatch::Ports {
        protocol,
        first,
        last,
    };
    let icmp = |protocol, IcmpMatch { kind, code }| match kind {
        Some(kind) => ruleset::ServiceMatch::Icmp { protocol, kind, code },
        None => ruleset::ServiceMatch::Protocol(protocol),
    };
    match *wanted {
        ServiceMatch::Any => ruleset::ServiceMatch::Any,
        ServiceMatch::Tcp(range) => ports(TCP, range),
        ServiceMatch::Udp(range) => ports(UDP, range),
        ServiceMatch::Icmp(message) => icmp(ICMP, message),
        ServiceMatch::Icmpv6(message) => icmp(ICMPV6, message),
        ServiceMatch::Protocol(number) => ruleset::ServiceMatch::Protocol(number),
    }
}

fn policy(policy: &bulkhead_config::Policy) -> ruleset::Policy {
    ruleset::Policy {
        name: policy.name.clone(),
        from: indices(&policy.from),
        to: indices(&policy.to),
        source: indices(&policy.source),
        destination: indices(&policy.destination),
        service: indices(&policy.service),
        action: match policy.action {
            Action::Permit => ruleset::Action::Permit,
            Action::Deny => ruleset::Action::Deny,
            Action::Reject => ruleset::Action::Reject,
        },
        log_create: policy.log.contains(&LogEvent::Create),
        log_close: policy.log.contains(&LogEvent::Close),
        log_deny: policy.log.contains(&LogEvent::Deny),
    }
}

fn wire(wire: &Wire) -> ruleset::Wire {
    ruleset::Wire {
        name: wire.name.clone(),
        interfaces: wire.interfaces.each_ref().map(index),
        arp: wire.arp == Passage::Pass,
        non_ip: wire.non_ip == Passage::Pass,
    }
}

fn tcp(tcp: &bulkhead_config::Tcp) -> ruleset::Tcp {
    ruleset::Tcp {
        liberal: tcp.window == Window::Liberal,
        midstream: tcp.midstream == Midstream::Permit,
        maximum_segment: match tcp.mss {
            Mss::None => ruleset::MaximumSegment::Keep,
            Mss::Path => ruleset::MaximumSegment::Path,
            Mss::Bytes(bytes) => ruleset::MaximumSegment::AtMost(bytes),
        },
    }
}

fn timeouts(timeouts: &Timeouts) -> ruleset::Timeouts {
    ruleset::Timeouts {
        tcp_opening: timeouts.tcp_opening,
        tcp_established: timeouts.tcp_established,
        tcp_closing: timeouts.tcp_closing,
        tcp_closed: timeouts.tcp_closed,
        udp_one_way: timeouts.udp_one_way,
        udp_two_way: timeouts.udp_two_way,
        icmp: timeouts.icmp,
        other: timeouts.other,
    }
}

#[cfg(test)]
mod tests;
