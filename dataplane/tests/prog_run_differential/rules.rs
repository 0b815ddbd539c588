//! The ruleset of the differential test: something of everything.

use std::time::Duration;

use bulkhead_dataplane::ruleset::{
    Action as Act, Group, HookMode, InterfaceRule, Policy, Prefix, Ruleset, Screen, Service, ServiceMatch,
    SourceNat, SourceTranslation, Zone,
};

/// Every screen but those of scans, which go by a clock that the two worlds do not share; and thresholds low enough to be met
/// within the seconds that the packets take.
fn screen(alarm_without_drop: bool) -> Screen {
    Screen {
        alarm_without_drop,
        icmp_flood: Some(12),
        icmp_fragment: true,
        icmp_large: true,
        ip_bad_option: true,
        ip_source_route: true,
        ip_record_route: true,
        ip_timestamp: true,
        ip_security: true,
        ip_stream: true,
        ip_spoofing: true,
        unknown_protocol: true,
        extension_headers: true,
        land: true,
        tcp_no_flags: true,
        tcp_syn_fin: true,
        tcp_fin_no_ack: true,
        winnuke: true,
        syn_fragment: true,
        // Of cookies each world makes its own.
        syn_flood_attack: alarm_without_drop.then_some(1),
        syn_flood_alarm: Some(1),
        syn_flood_source: Some(4),
        syn_flood_destination: Some(2),
        udp_flood: Some(12),
        ..Screen::default()
    }
}

/// With or without source NAT from inside to outside and screens; `open` permits more than its opposite.
pub fn ruleset(nat: bool, screens: bool, open: bool) -> Ruleset {
    let ports = |protocol, first, last| ServiceMatch::Ports {
        protocol,
        first,
        last,
    };
    let service = |name: &str, matches: Vec<ServiceMatch>| Service {
        name: name.into(),
        matches,
        ..Service::default()
    };
    let prefix = |address: &str, length| Prefix {
        address: address.parse().unwrap(),
        length,
    };
    let interface = |zone| InterfaceRule {
        name: format!("if{zone}"),
        zone,
        addresses: vec![],
        hook: HookMode::Auto,
    };
    let icmp = |protocol, kind| ServiceMatch::Icmp {
        protocol,
        kind,
        code: None,
    };
    let mut policies = vec![
        Policy {
            name: "reject".into(),
            service: vec![3],
            action: Act::Reject,
            log_deny: true,
            ..Policy::default()
        },
        Policy {
            name: "bad".into(),
            source: vec![1],
            action: Act::Deny,
            ..Policy::default()
        },
        Policy {
            name: "out".into(),
            from: vec![0],
            to: vec![1],
            service: vec![0, 1, 2, 4],
            action: Act::Permit,
            log_close: true,
            ..Policy::default()
        },
        Policy {
            name: "servers".into(),
            to: vec![2],
            destination: vec![0],
            service: vec![0, 2],
            action: Act::Permit,
            ..Policy::default()
        },
    ];
    if open {
        policies.push(Policy {
            name: "all".into(),
            from: vec![0],
            action: Act::Permit,
            ..Policy::default()
        });
    }
    let mut services = vec![
        service("web", vec![ports(6, 80, 80), ports(6, 8000, 8007)]),
        service("dns", vec![ports(17, 53, 53)]),
        service("ping", vec![icmp(1, 8), icmp(58, 128)]),
        service("forbidden", vec![ports(6, 9999, 9999), ports(17, 9999, 9999)]),
        service("gre", vec![ServiceMatch::Protocol(47)]),
    ];
    // Another with each generation, so that a session's own follows.
    services[0].timeout = Some(Duration::from_secs(if open { 3600 } else { 1800 }));
    Ruleset {
        zones: vec![
            Zone {
                name: "inside".into(),
                host_inbound: vec![0, 2],
                screen: Some(0),
            },
            Zone {
                name: "outside".into(),
                host_inbound: vec![2],
                screen: screens.then_some(usize::from(open)),
            },
            Zone {
                name: "dmz".into(),
                host_inbound: vec![],
                ..Zone::default()
            },
        ],
        interfaces: vec![interface(0), interface(1), interface(2)],
        groups: vec![
            Group {
                name: "servers".into(),
                members: vec![prefix("10.3.0.0", 29), prefix("2001:db8:3::", 64)],
            },
            Group {
                name: "bad".into(),
                members: vec![prefix("10.1.0.4", 32), prefix("2001:db8:1::4", 128)],
            },
        ],
        services,
        screens: vec![
            Screen {
                // Some of the traffic gets there.
                session_limit_source: Some(30),
                session_limit_destination: Some(20),
                syn_ack_ack: Some(12),
                alarm_without_drop: !open,
                ..if screens { screen(false) } else { Screen::default() }
            },
            screen(true),
        ],
        policies,
        source_nat: if nat {
            vec![SourceNat {
                name: "out".into(),
                from: vec![0],
                to: vec![1],
                translation: SourceTranslation::Interface,
                ..SourceNat::default()
            }]
        } else {
            vec![]
        },
        // Out of the way: the kernel counts tokens per CPU.
        answers_per_second: 1_000_000,
        deny_events_per_second: 1_000_000,
        ..Ruleset::default()
    }
}
