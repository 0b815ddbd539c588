//! The ruleset of the differential test: something of everything.

use std::time::Duration;

use bulkhead_dataplane::ruleset::{
    Action as Act, DestinationNat, Filtering, Group, HookMode, InterfaceRule, MaximumSegment, Policy, Pool,
    Prefix, Ruleset, Screen, Service, ServiceMatch, SourceNat, SourceTranslation, StaticNat, Tcp, Zone,
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

/// First address and number of addresses of the pool that does not pair.
pub const UNPAIRED: [(&str, u32); 2] = [("10.3.0.64", 4), ("2001:db8:3::40", 4)];

/// With or without translation of every kind, and screens; `open` permits more than its opposite.
pub fn ruleset(nat: bool, screens: bool, open: bool) -> Ruleset {
    let screen_of = |index| screens.then_some(index);
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
        routes: Vec::new(),
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
    if nat {
        policies.push(Policy {
            name: "to-mappings".into(),
            from: vec![1],
            to: vec![0],
            action: Act::Permit,
            ..Policy::default()
        });
        policies.push(Policy {
            name: "inside".into(),
            from: vec![0],
            to: vec![0],
            action: Act::Permit,
            ..Policy::default()
        });
        policies.push(Policy {
            name: "from-servers".into(),
            from: vec![2],
            to: vec![1],
            action: Act::Permit,
            ..Policy::default()
        });
    }
    let mut services = vec![
        service("web", vec![ports(6, 80, 80), ports(6, 8000, 8007)]),
        service("dns", vec![ports(17, 53, 53)]),
        service("ping", vec![icmp(1, 8), icmp(58, 128)]),
        service("forbidden", vec![ports(6, 9999, 9999), ports(17, 9999, 9999)]),
        service(
            "gre",
            vec![
                ServiceMatch::Protocol(47),
                ServiceMatch::Protocol(33),
                ServiceMatch::Protocol(136),
                ports(132, 5000, 5000),
            ],
        ),
    ];
    // Another with each generation, so that a session's own follows.
    services[0].timeout = Some(Duration::from_secs(if open { 3600 } else { 1800 }));
    let mut ruleset = Ruleset {
        tcp: Tcp {
            liberal: !open,
            midstream: !open,
            maximum_segment: if nat {
                MaximumSegment::AtMost(1000)
            } else {
                MaximumSegment::Path
            },
        },
        zones: vec![
            Zone {
                name: "inside".into(),
                host_inbound: vec![0, 2],
                screen: screen_of(usize::from(open)).or(Some(0)),
            },
            Zone {
                name: "outside".into(),
                host_inbound: vec![2],
                screen: screen_of(0),
            },
            Zone {
                name: "dmz".into(),
                host_inbound: vec![],
                screen: screen_of(usize::from(open)),
            },
        ],
        interfaces: vec![interface(0), interface(1), interface(2)],
        groups: vec![
            Group {
                name: "servers".into(),
                members: vec![prefix("10.3.0.0", 29), prefix("2001:db8:3::", 64)],
                ..Group::default()
            },
            Group {
                name: "bad".into(),
                members: vec![prefix("10.1.0.4", 32), prefix("2001:db8:1::4", 128)],
                ..Group::default()
            },
        ],
        services,
        screens: if screens {
            vec![screen(false), screen(true)]
        } else {
            vec![Screen {
                // Some of the traffic gets there.
                session_limit_source: Some(14),
                session_limit_destination: Some(12),
                syn_ack_ack: Some(8),
                alarm_without_drop: !open,
                ..Screen::default()
            }]
        },
        policies,
        // Out of the way: the kernel counts tokens per CPU.
        answers_per_second: 1_000_000,
        deny_events_per_second: 1_000_000,
        ..Ruleset::default()
    };
    if nat {
        translate(&mut ruleset, open);
    }
    ruleset
}

/// Every kind of translation, each for some of the traffic. Which comes first is not the same for `open` and its opposite.
fn translate(ruleset: &mut Ruleset, open: bool) {
    let prefix = |address: &str, length| Prefix {
        address: address.parse().unwrap(),
        length,
    };
    let group = |name: &str, members| Group {
        name: name.into(),
        members,
        ..Group::default()
    };
    let hosts = |v4: &str, v6: &str| vec![prefix(v4, 32), prefix(v6, 128)];
    ruleset.groups.extend([
        group("anyone", hosts("10.1.0.9", "2001:db8:1::9")),
        group("targets", hosts("10.1.0.3", "2001:db8:1::3")),
        group("published", hosts("198.51.100.20", "2001:db8:2::20")),
        group("strangers", hosts("192.0.2.81", "2001:db8:80::81")),
    ]);
    let (anyone, targets, published, strangers) = (2, 3, 4, 5);
    let range = |(first, count): (&str, u32)| {
        let first: std::net::IpAddr = first.parse().unwrap();
        let last = match first {
            std::net::IpAddr::V4(first) => (u32::from(first) + count - 1).to_be_bytes().into(),
            std::net::IpAddr::V6(first) => (u128::from(first) + u128::from(count) - 1).to_be_bytes().into(),
        };
        (first, last)
    };
    let pool = |name: &str, ranges: &[(&str, u32)], paired| Pool {
        name: name.into(),
        ranges: ranges.iter().copied().map(range).collect(),
        ports: Some((1024, 65_535)),
        port: None,
        paired,
        alarm: None,
    };
    ruleset.pools = vec![
        pool(
            "paired",
            &[("192.0.3.16", 2), ("192.0.3.40", 1), ("2001:db8:f:f::fffe", 4)],
            true,
        ),
        pool("unpaired", &UNPAIRED, false),
        Pool {
            ports: None,
            port: Some(80),
            ..pool("servers", &[("10.3.0.2", 2), ("2001:db8:3::2", 2)], true)
        },
    ];
    let minutes = Duration::from_secs(300);
    let out = SourceNat {
        name: "out".into(),
        from: vec![0],
        to: vec![1],
        translation: SourceTranslation::Interface,
        ..SourceNat::default()
    };
    ruleset.source_nat = vec![
        SourceNat {
            name: "anyone".into(),
            source: vec![anyone],
            translation: SourceTranslation::Pool(0),
            persistent: Some((Filtering::AnyRemoteHost, minutes)),
            ..out.clone()
        },
        SourceNat {
            name: "targets".into(),
            source: vec![targets],
            persistent: Some((
                if open {
                    Filtering::TargetHost
                } else {
                    Filtering::TargetHostPort
                },
                minutes,
            )),
            ..out.clone()
        },
        SourceNat {
            name: "off".into(),
            service: vec![4],
            translation: SourceTranslation::Off,
            ..out.clone()
        },
        SourceNat {
            name: "pooled".into(),
            service: vec![0, 2],
            translation: SourceTranslation::Pool(0),
            ..out.clone()
        },
        SourceNat {
            name: "to-servers".into(),
            to: vec![2],
            translation: SourceTranslation::Pool(1),
            ..out.clone()
        },
        out,
    ];
    let known = DestinationNat {
        name: "published".into(),
        destination: vec![published],
        pool: Some(2),
        ..DestinationNat::default()
    };
    ruleset.destination_nat = vec![
        DestinationNat {
            name: "not-for-strangers".into(),
            source: vec![strangers],
            pool: None,
            ..known.clone()
        },
        known,
    ];
    let fixed = |name: &str, outside, inside, npt| StaticNat {
        name: name.into(),
        from: vec![1],
        outside,
        inside,
        npt,
    };
    ruleset.static_nat = vec![
        fixed(
            "static",
            prefix("198.51.100.32", 29),
            prefix("10.3.0.0", 29),
            false,
        ),
        fixed(
            "npt",
            prefix("2001:db8:f::", 64),
            prefix("2001:db8:3::", 64),
            true,
        ),
    ];
    if !open {
        // Another order of rules and pools, so that what refers to them must be looked up again.
        ruleset.source_nat.swap(0, 1);
        ruleset.pools.swap(0, 1);
        for rule in &mut ruleset.source_nat {
            rule.translation = match rule.translation {
                SourceTranslation::Pool(number) => SourceTranslation::Pool(1 - number),
                other => other,
            };
        }
    }
}
