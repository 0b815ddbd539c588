//! The ruleset and the topology that the privileged tests share: `inside` (net1) may open http, dns, bulk TCP and ping
//! towards the servers of `outside` (net2), port 9999 is rejected everywhere, everything else is denied by default.

use bulkhead_dataplane::{
    engine::{Engine, Options},
    ruleset::{
        Action, Group, HookMode, InterfaceRule, Policy, Prefix, Ruleset, Service, ServiceMatch, SourceNat,
        SourceTranslation, Zone,
    },
};
use bulkhead_testkit::{HostSpec, Topology};

/// A TCP service of one port.
pub fn tcp(name: &str, port: u16) -> Service {
    Service {
        name: name.into(),
        matches: vec![ServiceMatch::Ports {
            protocol: 6,
            first: port,
            last: port,
        }],
        ..Service::default()
    }
}

/// A UDP service of one port.
pub fn udp(name: &str, port: u16) -> Service {
    Service {
        name: name.into(),
        matches: vec![ServiceMatch::Ports {
            protocol: 17,
            first: port,
            last: port,
        }],
        ..Service::default()
    }
}

/// The common ruleset.
pub fn ruleset(hook: HookMode, nat: bool) -> Ruleset {
    let prefix = |address: &str, length| Prefix {
        address: address.parse().expect("an address"),
        length,
    };
    Ruleset {
        zones: vec![
            Zone {
                name: "inside".into(),
                host_inbound: vec![2],
                ..Zone::default()
            },
            Zone {
                name: "outside".into(),
                host_inbound: vec![],
                ..Zone::default()
            },
        ],
        interfaces: vec![
            InterfaceRule {
                name: "net1".into(),
                zone: 0,
                routes: Vec::new(),
                addresses: vec![],
                hook,
            },
            InterfaceRule {
                name: "net2".into(),
                zone: 1,
                routes: Vec::new(),
                addresses: vec![],
                hook,
            },
        ],
        groups: vec![Group {
            name: "servers".into(),
            members: vec![prefix("10.77.1.0", 24), prefix("fd77:1::", 64)],
            ..Group::default()
        }],
        services: vec![
            tcp("http", 80),
            udp("dns", 53),
            Service {
                name: "ping".into(),
                matches: vec![
                    ServiceMatch::Icmp {
                        protocol: 1,
                        kind: 8,
                        code: None,
                    },
                    ServiceMatch::Icmp {
                        protocol: 58,
                        kind: 128,
                        code: None,
                    },
                ],
                ..Service::default()
            },
            tcp("forbidden", 9999),
        ],
        policies: vec![
            Policy {
                name: "no".into(),
                service: vec![3],
                action: Action::Reject,
                ..Policy::default()
            },
            Policy {
                name: "out".into(),
                from: vec![0],
                to: vec![1],
                destination: vec![0],
                service: vec![0, 1, 2],
                action: Action::Permit,
                ..Policy::default()
            },
        ],
        source_nat: if nat {
            vec![SourceNat {
                name: "masquerade".into(),
                from: vec![0],
                to: vec![1],
                translation: SourceTranslation::Interface,
                ..SourceNat::default()
            }]
        } else {
            vec![]
        },
        answers_per_second: 100,
        deny_events_per_second: 100,
        ..Ruleset::default()
    }
}

/// `inside` and `outside` on either side of a firewall, after `shape` had its way with both.
pub fn topology(shape: impl Fn(HostSpec) -> HostSpec) -> Topology {
    Topology::builder("bht-")
        .host(shape(HostSpec::new("inside")))
        .host(shape(HostSpec::new("outside")))
        .build()
        .expect("a topology")
}

/// Starts an engine in the firewall's namespace.
pub fn start(lab: &Topology, ruleset: Ruleset) -> Engine {
    lab.firewall()
        .run(|| Engine::start(ruleset, &Options::default()))
        .expect("an engine")
}
