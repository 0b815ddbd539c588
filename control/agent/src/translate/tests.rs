//! Both vocabularies side by side: one document, and what the data plane is told.

use std::net::IpAddr;
use std::time::Duration;

use bulkhead_dataplane::ruleset::{
    Action, DestinationNat, EarlyAgeing, Filtering, HookMode, MaximumSegment, Policy, Pool, Prefix, Ruleset,
    Scan, Screen, ServiceMatch, SourceNat, SourceTranslation, StaticNat, StaticRoute, Tcp, Wire,
};

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

/// Everything that only a routed firewall has; `wires` below has the rest.
const TRANSLATION: &str = "
apiVersion: bulkhead.dev/v1alpha1
kind: Firewall
metadata: { name: edge }
spec:
  interfaces: [{ name: net1, zone: inside }, { name: net2, zone: outside, addresses: [192.0.2.10/24] }]
  routes: [{ to: 0.0.0.0/0, via: 192.0.2.1 }, { to: \"2001:db8::/32\", via: \"fe80::1\", interface: net1 }]
  zones: [{ name: inside, screen: default }, { name: outside, screen: edge }]
  addresses: [{ name: staff, members: [10.0.0.0/24] }]
  services: [{ name: db, tcp: 5432, timeout: 8h }]
  nat:
    pools:
      - { name: servers, addresses: [10.1.2.3, \"2001:db8::3\"], port: 8080 }
      - { name: pub, addresses: [203.0.113.0/28, 203.0.113.16], ports: 2000-3000, paired: false, alarm: { raise: 80, clear: 70 } }
      - { name: same, addresses: [203.0.113.32], ports: none }
      - { name: plain, addresses: [203.0.113.48] }
    source:
      - { name: a, from: inside, to: outside, source: staff, destination: 192.0.2.1, service: db, translate: pool, pool: pub, persistent: target-host-port, persistentTimeout: 60s }
      - { name: b, from: inside, to: any, translate: interface, persistent: any-remote-host }
      - { name: c, from: any, to: any, source: 10.9.0.0/16, translate: interface, persistent: target-host }
      - { name: d, from: any, to: outside, translate: off }
    destination:
      - { name: www, from: outside, source: staff, destination: 192.0.2.1, service: db, translate: pool, pool: servers }
      - { name: keep, from: any, translate: off }
    static: [{ name: s, from: outside, prefix: 203.0.113.64/28, to: 10.0.0.64/28 }, { name: n, from: any, prefix: \"2001:db8:1::/48\", to: \"fd00:1::/48\", npt: true }]
  screens:
    - name: edge
      alarmWithoutDrop: true
      icmp: { flood: 11, sweep: { count: 12, interval: 13ms } }
      tcp: { portScan: { count: 14, interval: 15ms }, sweep: { count: 16, interval: 17ms }, synFlood: { attack: 18, alarm: 19, source: 20, destination: 21 }, synAckAck: 22 }
      udp: { flood: 23, portScan: { count: 24, interval: 25ms }, sweep: { count: 26, interval: 27ms } }
      sessionLimit: { source: 28, destination: 29 }
  tcp: { window: liberal, midstream: permit, mss: 1360 }
  sessions: { earlyAgeing: { high: 95, low: 85, timeout: 10s } }
  algs: [tftp]
";

fn told(document: &str) -> Ruleset {
    let parsed = bulkhead_config::parse("test.yaml", document).expect("a sound configuration");
    ruleset(&parsed.config)
}

#[test]
fn pools_keep_their_place_and_say_whose_they_are() {
    let ruleset = told(TRANSLATION);
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    assert_eq!(
        ruleset.pools,
        [
            Pool {
                name: "servers".into(),
                ranges: vec![
                    (address("10.1.2.3"), address("10.1.2.3")),
                    (address("2001:db8::3"), address("2001:db8::3")),
                ],
                ports: None,
                port: Some(8080),
                paired: true,
                alarm: None,
            },
            Pool {
                name: "pub".into(),
                ranges: vec![(address("203.0.113.0"), address("203.0.113.16"))],
                ports: Some((2000, 3000)),
                port: None,
                paired: false,
                alarm: Some((80, 70)),
            },
            Pool {
                name: "same".into(),
                ranges: vec![(address("203.0.113.32"), address("203.0.113.32"))],
                ports: None,
                port: None,
                paired: true,
                alarm: None,
            },
            Pool {
                name: "plain".into(),
                ranges: vec![(address("203.0.113.48"), address("203.0.113.48"))],
                ports: Some((1024, 65_535)),
                port: None,
                paired: true,
                alarm: None,
            },
        ]
    );
}

#[test]
fn translation_rules_speak_of_the_same_indices() {
    let ruleset = told(TRANSLATION);
    // Groups: staff, then the literals in the order of their first use, then what staff is given by hand.
    let groups: Vec<_> = ruleset.groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(groups, ["staff", "192.0.2.1", "10.9.0.0/16", "staff/manual"]);
    let seconds = Duration::from_secs;
    assert_eq!(
        ruleset.source_nat,
        [
            SourceNat {
                name: "a".into(),
                from: vec![0],
                to: vec![1],
                source: vec![0],
                destination: vec![1],
                service: vec![0],
                translation: SourceTranslation::Pool(1),
                persistent: Some((Filtering::TargetHostPort, seconds(60))),
            },
            SourceNat {
                name: "b".into(),
                from: vec![0],
                translation: SourceTranslation::Interface,
                persistent: Some((Filtering::AnyRemoteHost, seconds(300))),
                ..SourceNat::default()
            },
            SourceNat {
                name: "c".into(),
                source: vec![2],
                translation: SourceTranslation::Interface,
                persistent: Some((Filtering::TargetHost, seconds(300))),
                ..SourceNat::default()
            },
            SourceNat {
                name: "d".into(),
                to: vec![1],
                ..SourceNat::default()
            },
        ]
    );
    assert_eq!(
        ruleset.destination_nat,
        [
            DestinationNat {
                name: "www".into(),
                from: vec![1],
                source: vec![0],
                destination: vec![1],
                service: vec![0],
                pool: Some(0),
            },
            DestinationNat {
                name: "keep".into(),
                ..DestinationNat::default()
            },
        ]
    );
    let prefix = |address: &str, length| Prefix {
        address: address.parse().expect("an address"),
        length,
    };
    assert_eq!(
        ruleset.static_nat,
        [
            StaticNat {
                name: "s".into(),
                from: vec![1],
                outside: prefix("203.0.113.64", 28),
                inside: prefix("10.0.0.64", 28),
                npt: false,
            },
            StaticNat {
                name: "n".into(),
                from: vec![],
                outside: prefix("2001:db8:1::", 48),
                inside: prefix("fd00:1::", 48),
                npt: true,
            },
        ]
    );
}

#[test]
fn screens_tcp_ageing_and_gateways_are_handed_on() {
    let ruleset = told(TRANSLATION);
    assert_eq!(
        ruleset.zones.iter().map(|zone| zone.screen).collect::<Vec<_>>(),
        [Some(1), Some(0)]
    );
    let scan = |count, milliseconds| {
        Some(Scan {
            count,
            interval: Duration::from_millis(milliseconds),
        })
    };
    let edge = Screen {
        name: "edge".into(),
        alarm_without_drop: true,
        icmp_flood: Some(11),
        icmp_sweep: scan(12, 13),
        tcp_port_scan: scan(14, 15),
        tcp_sweep: scan(16, 17),
        syn_flood_attack: Some(18),
        syn_flood_alarm: Some(19),
        syn_flood_source: Some(20),
        syn_flood_destination: Some(21),
        syn_ack_ack: Some(22),
        udp_flood: Some(23),
        udp_port_scan: scan(24, 25),
        udp_sweep: scan(26, 27),
        session_limit_source: Some(28),
        session_limit_destination: Some(29),
        ..Screen::default()
    };
    assert_eq!(ruleset.screens[0], edge);
    assert_eq!(
        (ruleset.screens[1].name.as_str(), ruleset.screens[1].land),
        ("default", true)
    );
    assert_eq!(
        ruleset.tcp,
        Tcp {
            liberal: true,
            midstream: true,
            maximum_segment: MaximumSegment::AtMost(1360),
        }
    );
    assert_eq!(
        ruleset.early_ageing,
        Some(EarlyAgeing {
            high: 95,
            low: 85,
            timeout: Duration::from_secs(10),
        })
    );
    assert_eq!((ruleset.gateways.ftp, ruleset.gateways.tftp), (false, true));
    assert_eq!(ruleset.services[0].timeout, Some(Duration::from_secs(8 * 3600)));
    assert!(ruleset.wires.is_empty(), "it routes");
}

#[test]
fn one_screen_is_one_screen() {
    let on = |screen: &str| {
        let text = format!(
            "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: {{ name: x }}\nspec: {{ screens: [{{ name: s, {screen} }}] }}\n"
        );
        told(&text).screens.remove(0)
    };
    type Field = fn(&mut Screen) -> &mut bool;
    let screens: [(&str, Field); 20] = [
        ("icmp: { fragment: true }", |screen| &mut screen.icmp_fragment),
        ("icmp: { large: true }", |screen| &mut screen.icmp_large),
        ("icmp: { pingOfDeath: true }", |screen| &mut screen.ping_of_death),
        ("ip: { badOption: true }", |screen| &mut screen.ip_bad_option),
        ("ip: { fragment: true }", |screen| &mut screen.ip_fragment),
        ("ip: { sourceRoute: true }", |screen| &mut screen.ip_source_route),
        ("ip: { recordRoute: true }", |screen| &mut screen.ip_record_route),
        ("ip: { timestamp: true }", |screen| &mut screen.ip_timestamp),
        ("ip: { security: true }", |screen| &mut screen.ip_security),
        ("ip: { stream: true }", |screen| &mut screen.ip_stream),
        ("ip: { spoofing: true }", |screen| &mut screen.ip_spoofing),
        ("ip: { teardrop: true }", |screen| &mut screen.teardrop),
        ("ip: { unknownProtocol: true }", |screen| {
            &mut screen.unknown_protocol
        }),
        ("ip: { extensionHeaders: true }", |screen| {
            &mut screen.extension_headers
        }),
        ("tcp: { land: true }", |screen| &mut screen.land),
        ("tcp: { noFlags: true }", |screen| &mut screen.tcp_no_flags),
        ("tcp: { synFin: true }", |screen| &mut screen.tcp_syn_fin),
        ("tcp: { finNoAck: true }", |screen| &mut screen.tcp_fin_no_ack),
        ("tcp: { winnuke: true }", |screen| &mut screen.winnuke),
        ("tcp: { synFragment: true }", |screen| &mut screen.syn_fragment),
    ];
    for (written, field) in screens {
        let mut screen = on(written);
        assert!(*field(&mut screen), "{written}");
        *field(&mut screen) = false;
        screen.name.clear();
        assert_eq!(screen, Screen::default(), "{written} and nothing else");
    }
}

#[test]
fn routes_are_with_the_interface_that_they_leave_by() {
    let ruleset = told(TRANSLATION);
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let routes = |number: usize| &*ruleset.interfaces[number].routes;
    assert_eq!(
        routes(0),
        [StaticRoute {
            to: (address("2001:db8::"), 32),
            via: address("fe80::1")
        }]
    );
    assert_eq!(
        routes(1),
        [StaticRoute {
            to: (address("0.0.0.0"), 0),
            via: address("192.0.2.1")
        }]
    );
}

#[test]
fn wires_join_interfaces_by_their_index() {
    let ruleset = told(
        "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: { name: x }\nspec:\n  forwarding: wire\n  \
         zones: [{ name: a }]\n  tcp: { mss: path }\n  \
         interfaces: [{ name: net1, zone: a }, { name: net2, zone: a }, { name: net3, zone: a }, { name: net4, zone: a }]\n  \
         wires: [{ name: one, interfaces: [net3, net1] }, { name: two, interfaces: [net2, net4], arp: drop, nonIp: pass }]\n",
    );
    assert_eq!(
        ruleset.wires,
        [
            Wire {
                name: "one".into(),
                interfaces: [2, 0],
                arp: true,
                non_ip: false,
            },
            Wire {
                name: "two".into(),
                interfaces: [1, 3],
                arp: false,
                non_ip: true,
            },
        ]
    );
    assert_eq!(ruleset.tcp.maximum_segment, MaximumSegment::Path);
}

#[test]
fn groups_nest_each_other_and_their_sources() {
    let text = "
apiVersion: bulkhead.dev/v1alpha1
kind: Firewall
metadata: { name: x }
spec:
  addresses:
    - { name: all, members: [10.0.0.0/8, listed], except: [10.9.0.0/16, spared] }
    - { name: listed, feed: { url: \"file:///list\" }, dns: [www.example.org] }
    - { name: spared, members: [], pods: { selector: app=spared } }
";
    let parsed = bulkhead_config::parse("test.yaml", text).expect("a sound configuration");
    let ruleset = ruleset(&parsed.config);
    let names: Vec<_> = ruleset.groups.iter().map(|group| group.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "all",
            "listed",
            "spared",
            "all/manual",
            "listed/feed",
            "listed/dns",
            "listed/manual",
            "spared/pods",
            "spared/manual"
        ]
    );
    let dynamic: Vec<_> = ruleset.groups.iter().map(|group| group.dynamic).collect();
    assert_eq!(dynamic, [false, false, false, true, true, true, true, true, true]);
    let [all, listed, ..] = &ruleset.groups[..] else {
        panic!("{names:?}")
    };
    assert_eq!(
        (all.groups.as_slice(), all.except_groups.as_slice()),
        (&[1, 3][..], &[2][..])
    );
    assert_eq!((all.members.len(), all.except.len()), (1, 1));
    assert_eq!(listed.groups, [4, 5, 6]);
}
