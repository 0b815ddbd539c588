//! From a checked configuration to what the data plane enforces: a pure function, total because a [`Config`] is sound.
//!
//! Owns the correspondence of the two vocabularies: ids become indices, `any` the empty list, ranges prefixes. Keeps
//! the order and number of zones, groups, services, policies and rules, so that an index means the same on both
//! sides and the data plane's hit counts can be read against the configuration.

use bulkhead_config::{
    Action, Config, Group, GroupId, Hook, IcmpMatch, IpPrefix, LogEvent, Member, PortRange, Selector,
    ServiceId, ServiceMatch, Timeouts, Translation, ZoneId,
};
use bulkhead_dataplane::bpf::Sizes;
use bulkhead_dataplane::ruleset;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

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
                screen: None,
            })
            .collect(),
        interfaces: interfaces(config),
        groups: config.groups.iter().map(group).collect(),
        services: config
            .services
            .iter()
            .map(|service| ruleset::Service {
                name: service.name.clone(),
                matches: service.matches.iter().map(service_match).collect(),
                timeout: None,
            })
            .collect(),
        policies: config.policies.iter().map(policy).collect(),
        source_nat: config
            .source_nat
            .iter()
            .map(|rule| ruleset::SourceNat {
                name: rule.name.clone(),
                from: indices(&rule.from),
                to: indices(&rule.to),
                translation: match rule.translate {
                    Translation::Interface => ruleset::SourceTranslation::Interface,
                    Translation::Off => ruleset::SourceTranslation::Off,
                },
                ..ruleset::SourceNat::default()
            })
            .collect(),
        timeouts: timeouts(&config.sessions.timeouts),
        answers_per_second: ANSWERS_PER_SECOND,
        deny_events_per_second: DENY_EVENTS_PER_SECOND,
        ..ruleset::Ruleset::default()
    }
}

/// The interfaces alone: what a preflight looks at.
pub fn interfaces(config: &Config) -> Vec<ruleset::InterfaceRule> {
    config
        .interfaces
        .iter()
        .map(|interface| ruleset::InterfaceRule {
            name: interface.name.clone(),
            zone: index(&interface.zone),
            addresses: interface
                .addresses
                .iter()
                .map(|given| (given.address, given.length))
                .collect(),
            hook: match interface.hook {
                Hook::Auto => ruleset::HookMode::Auto,
                Hook::Tcx => ruleset::HookMode::Tcx,
                Hook::Xdp => ruleset::HookMode::Xdp,
            },
        })
        .collect()
}

/// How large the tables are made. They cannot grow later: a changed limit takes a restart.
pub fn sizes(config: &Config) -> Sizes {
    Sizes {
        sessions: config.sessions.max,
        half_open: config.sessions.half_open,
        ..Sizes::default()
    }
}

/// An id that is an index into a table of the configuration.
trait Id {
    fn number(&self) -> u32;
}

impl Id for ZoneId {
    fn number(&self) -> u32 {
        self.0
    }
}

impl Id for GroupId {
    fn number(&self) -> u32 {
        self.0
    }
}

impl Id for ServiceId {
    fn number(&self) -> u32 {
        self.0
    }
}

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

fn group(group: &Group) -> ruleset::Group {
    let prefix = |prefix: IpPrefix| ruleset::Prefix {
        address: prefix.address,
        length: prefix.length,
    };
    let mut members = Vec::with_capacity(group.members.len());
    for member in &group.members {
        match *member {
            Member::Host(address) => members.push(ruleset::Prefix {
                address,
                length: if address.is_ipv4() { 32 } else { 128 },
            }),
            Member::Prefix(network) => members.push(prefix(network)),
            Member::Range(range) => members.extend(range.prefixes().into_iter().map(prefix)),
        }
    }
    ruleset::Group {
        name: group.name.clone(),
        members,
    }
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
mod tests {
    use std::time::Duration;

    use bulkhead_dataplane::ruleset::{Action, HookMode, Policy, ServiceMatch, SourceNat, SourceTranslation};

    use super::{ruleset, sizes};

    const DOCUMENT: &str = "
apiVersion: bulkhead.dev/v1alpha1
kind: Firewall
metadata: { name: edge }
spec:
  hook: tcx
  interfaces:
    - { name: net1, zone: app, addresses: [10.2.0.1/24, \"2001:db8::1/64\"] }
    - { name: net2, zone: web, hook: xdp }
  zones: [{ name: web, hostInbound: [ping] }, { name: app }]
  addresses:
    - { name: finance, members: [10.4.1.7, 10.4.0.0/24, 10.0.0.1-10.0.0.6, \"2001:db8:4::7\"] }
    - { name: nobody, members: [] }
  services:
    - { name: mixed, tcp: [443, 8000-8999], udp: 53, icmp: [3/4, any], icmpv6: any, protocols: gre }
  policies:
    - { name: one, from: app, to: [web, app], source: finance, destination: [nobody, 10.9.9.9], service: [mixed, https], action: permit, log: [create, close] }
    - { name: two, from: any, to: any, action: reject, log: deny }
    - { name: three, from: web, to: any, action: deny }
  nat: { source: [{ name: keep, from: web, to: app, translate: off }, { name: hide, from: any, to: web, translate: interface }] }
  sessions: { max: 1000, halfOpen: 100, timeouts: { tcpClosed: 3s, udpTwoWay: 2m } }
";

    fn translated() -> (bulkhead_config::Config, bulkhead_dataplane::ruleset::Ruleset) {
        let parsed = bulkhead_config::parse("test.yaml", DOCUMENT).expect("a sound configuration");
        let ruleset = ruleset(&parsed.config);
        (parsed.config, ruleset)
    }

    #[test]
    fn interfaces_carry_zone_index_addresses_and_hook() {
        let (_, ruleset) = translated();
        let [net1, net2] = &ruleset.interfaces[..] else {
            panic!("{:?}", ruleset.interfaces)
        };
        assert_eq!(
            (net1.name.as_str(), net1.zone, net1.hook),
            ("net1", 1, HookMode::Tcx)
        );
        let addresses: Vec<_> = net1
            .addresses
            .iter()
            .map(|(address, length)| format!("{address}/{length}"))
            .collect();
        assert_eq!(addresses, ["10.2.0.1/24", "2001:db8::1/64"]);
        assert_eq!(
            (net2.name.as_str(), net2.zone, net2.hook),
            ("net2", 0, HookMode::Xdp)
        );
        assert!(net2.addresses.is_empty(), "it keeps those it has");
        let ping = &ruleset.services[ruleset.zones[0].host_inbound[0]];
        assert_eq!(
            (ruleset.zones[0].name.as_str(), ping.name.as_str()),
            ("web", "ping")
        );
        assert!(ruleset.zones[1].host_inbound.is_empty());
    }

    #[test]
    fn members_become_prefixes() {
        let (_, ruleset) = translated();
        let shown = |index: usize| {
            let members = ruleset.groups[index].members.iter();
            let members: Vec<_> = members
                .map(|member| format!("{}/{}", member.address, member.length))
                .collect();
            (ruleset.groups[index].name.clone(), members.join(" "))
        };
        let expected =
            "10.4.1.7/32 10.4.0.0/24 10.0.0.1/32 10.0.0.2/31 10.0.0.4/31 10.0.0.6/32 2001:db8:4::7/128";
        assert_eq!(shown(0), ("finance".into(), expected.into()));
        assert_eq!(shown(1), ("nobody".into(), String::new()));
        assert_eq!(shown(2), ("10.9.9.9".into(), "10.9.9.9/32".into()));
    }

    #[test]
    fn services_keep_every_alternative() {
        let (_, ruleset) = translated();
        let ports = |protocol, first, last| ServiceMatch::Ports {
            protocol,
            first,
            last,
        };
        assert_eq!(ruleset.services[0].name, "mixed");
        let mut matches = ruleset.services[0].matches.clone();
        let expected = [
            ports(6, 443, 443),
            ports(6, 8000, 8999),
            ports(17, 53, 53),
            ServiceMatch::Icmp {
                protocol: 1,
                kind: 3,
                code: Some(4),
            },
            ServiceMatch::Protocol(1),
            ServiceMatch::Protocol(58),
            ServiceMatch::Protocol(47),
        ];
        for wanted in expected {
            let found = matches.iter().position(|found| *found == wanted);
            matches.remove(found.unwrap_or_else(|| panic!("{wanted:?} is not among {matches:?}")));
        }
        assert_eq!(matches, []);
    }

    #[test]
    fn rules_speak_of_the_same_indices() {
        let (config, ruleset) = translated();
        let one = &ruleset.policies[0];
        let mut to = one.to.clone();
        to.sort_unstable();
        assert_eq!(
            (&one.from[..], &to[..], &one.source[..]),
            (&[1][..], &[0, 1][..], &[0][..])
        );
        assert_eq!(one.destination, [1, 2]);
        let services: Vec<_> = one
            .service
            .iter()
            .map(|&index| ruleset.services[index].name.as_str())
            .collect();
        assert_eq!(services, ["mixed", "https"]);
        assert_eq!(one.action, Action::Permit);
        assert_eq!((one.log_create, one.log_close, one.log_deny), (true, true, false));
        assert_eq!(
            ruleset.policies[1],
            Policy {
                name: "two".into(),
                action: Action::Reject,
                log_deny: true,
                ..Policy::default()
            },
            "any is the empty list"
        );
        assert_eq!(ruleset.policies[2].action, Action::Deny);
        assert_eq!(
            ruleset.source_nat,
            [
                SourceNat {
                    name: "keep".into(),
                    from: vec![0],
                    to: vec![1],
                    ..SourceNat::default()
                },
                SourceNat {
                    name: "hide".into(),
                    from: vec![],
                    to: vec![0],
                    translation: SourceTranslation::Interface,
                    ..SourceNat::default()
                },
            ]
        );
        for (left, right) in config.policies.iter().zip(&ruleset.policies) {
            assert_eq!(left.name, right.name);
        }
    }

    #[test]
    fn limits_and_timeouts_are_handed_on() {
        let (config, ruleset) = translated();
        assert_eq!((sizes(&config).sessions, sizes(&config).half_open), (1000, 100));
        assert_eq!(ruleset.timeouts.tcp_closed, Duration::from_secs(3));
        assert_eq!(ruleset.timeouts.udp_two_way, Duration::from_secs(120));
        assert_eq!(ruleset.timeouts.tcp_established, Duration::from_secs(7_440));
        assert!(
            ruleset.answers_per_second > 0 && ruleset.deny_events_per_second > 0,
            "0 would silence it"
        );
    }
}
