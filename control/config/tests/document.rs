//! What a good document becomes, that it survives being written out again, and that size does not hurt.

use std::time::{Duration, Instant};

use bulkhead_config::{
    Action, Config, Document, Hook, LogEvent, Selector, SessionLimits, SourceTranslation, ZoneId, parse,
};

const FULL: &str = r#"
apiVersion: bulkhead.dev/v1alpha1
kind: Firewall
metadata: { name: edge }
spec:
  forwarding: routed
  hook: tcx
  interfaces:
    - { name: net1, zone: web }
    - { name: net2, zone: app, addresses: [10.2.0.1/24, "fd00::1/64"], hook: xdp }
  zones:
    - { name: web, hostInbound: [ping, ssh, all], screen: default }
    - { name: app, hostInbound: [https] }
  addresses:
    - { name: finance, members: [10.4.0.0/24, 10.4.1.7, "2001:db8::/64", 10.5.0.1-10.5.0.9] }
    - { name: nobody, members: [] }
  services:
    - { name: https, tcp: [443, 8443] }
    - { name: mixed, udp: 1024-65535, icmp: [unreachable, 3/4], icmpv6: 128, protocols: [gre, 89] }
  policies:
    - { name: first, from: any, to: [app, web, app], source: [finance, 10.9.9.9, 10.9.9.9], action: deny, log: [deny, deny] }
    - { name: second, from: web, to: app, destination: "10.9.9.9", service: [mixed, dns, https], action: permit, log: [close, create] }
    - { name: third, from: app, to: web, service: all, action: reject }
  nat:
    source:
      - { name: keep, from: [app], to: web, translate: off }
      - { name: out, from: any, to: web, source: [finance, 10.9.9.9], service: dns, translate: pool, pool: pub, persistent: target-host, persistentTimeout: 90s }
      - { name: rest, from: any, to: any, translate: interface }
    pools:
      - { name: pub, addresses: [203.0.113.0/28, "2001:db8:9::/120"], ports: 2000-3000, paired: true, alarm: { raise: 80, clear: 70 } }
      - { name: servers, addresses: [10.1.2.3], port: 8080 }
      - { name: same, addresses: [203.0.113.32], ports: none }
    answerNeighbours: false
    destination:
      - { name: www, from: web, destination: 203.0.113.64, service: https, translate: pool, pool: servers }
      - { name: keep, from: any, source: 10.0.0.1, translate: off }
    static:
      - { name: s, from: any, prefix: 203.0.113.128/28, to: 10.0.0.64/28 }
      - { name: n, from: web, prefix: "2001:db8:1::/48", to: "fd00:1::/48", npt: true }
  screens:
    - name: edge
      icmp: { flood: 5, sweep: true }
      tcp: { land: true, portScan: { count: 20, interval: 10ms }, synFlood: { attack: 100 }, synAckAck: false }
      sessionLimit: { source: 10 }
  tcp: { window: liberal, mss: 1360 }
  algs: [tftp, ftp]
  sessions: { max: 1000, timeouts: { tcpEstablished: 2h, udpOneWay: 1500ms }, earlyAgeing: { high: 95 } }
"#;

fn config(text: &str) -> Config {
    parse("firewall.yaml", text)
        .unwrap_or_else(|refused| panic!("{refused}"))
        .config
}

#[test]
fn everything_is_resolved() {
    let config = config(FULL);
    assert_eq!(config.name, "edge");
    let interfaces: Vec<_> = config
        .interfaces
        .iter()
        .map(|found| (&*found.name, found.zone, found.hook, found.line))
        .collect();
    assert_eq!(
        interfaces,
        [
            ("net1", ZoneId(0), Hook::Tcx, 9),
            ("net2", ZoneId(1), Hook::Xdp, 10)
        ]
    );
    assert_eq!(config.interfaces[1].addresses[0].length, 24);
    assert_eq!(config.interfaces[1].addresses[1].address.to_string(), "fd00::1");
    assert_eq!(config.interfaces_of(ZoneId(1)).count(), 1);

    let groups: Vec<_> = config
        .groups
        .iter()
        .map(|group| (&*group.name, group.literal, group.members.len()))
        .collect();
    assert_eq!(
        groups,
        [
            ("finance", false, 4),
            ("nobody", false, 0),
            ("10.9.9.9", true, 1),
            ("203.0.113.64", true, 1),
            ("10.0.0.1", true, 1)
        ]
    );
    let members: Vec<_> = config.groups[0].members.iter().map(ToString::to_string).collect();
    assert_eq!(
        members,
        ["10.4.0.0/24", "10.4.1.7", "2001:db8::/64", "10.5.0.1-10.5.0.9"]
    );

    let services: Vec<_> = config
        .services
        .iter()
        .map(|service| (&*service.name, service.builtin))
        .collect();
    assert_eq!(
        services,
        [
            ("https", false),
            ("mixed", false),
            ("ping", true),
            ("ssh", true),
            ("all", true),
            ("dns", true)
        ]
    );
    let inbound: Vec<_> = config.zones[1]
        .host_inbound
        .iter()
        .map(|&id| config.service(id))
        .collect();
    assert_eq!(
        (inbound.len(), inbound[0].matches.len()),
        (1, 2),
        "the document's own https, not the builtin one"
    );
    let screen = config.zones[0].screen.map(|screen| &*config.screen(screen).name);
    assert_eq!((screen, config.zones[1].screen), (Some("default"), None));

    let [first, second, third] = &config.policies[..] else {
        panic!("three policies")
    };
    assert_eq!(first.from, Selector::Any);
    assert_eq!(first.to, Selector::OneOf(vec![ZoneId(0), ZoneId(1)]));
    let Selector::OneOf(source) = &first.source else {
        panic!("sources were named")
    };
    assert_eq!(
        source
            .iter()
            .map(|&id| &*config.group(id).name)
            .collect::<Vec<_>>(),
        ["finance", "10.9.9.9"]
    );
    assert_eq!(
        (first.destination.clone(), first.service.clone()),
        (Selector::Any, Selector::Any)
    );
    assert_eq!(
        (first.action, &first.log[..], first.line),
        (Action::Deny, &[LogEvent::Deny][..], 21)
    );
    assert_eq!(second.log, [LogEvent::Close, LogEvent::Create]);
    let expanded: Vec<_> = config
        .service_matches(&second.service)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        expanded,
        [
            "tcp/443",
            "tcp/8443",
            "udp/1024-65535",
            "icmp/3",
            "icmp/3/4",
            "icmpv6/128",
            "protocol/47",
            "protocol/89",
            "udp/53",
            "tcp/53"
        ]
    );
    assert!(Selector::OneOf(vec![ZoneId(0)]).selects(&ZoneId(0)) && !second.from.selects(&ZoneId(1)));
    assert_eq!(
        (third.service.clone(), third.action),
        (Selector::Any, Action::Reject)
    );

    assert_eq!(
        config.source_nat.iter().map(|rule| rule.line).collect::<Vec<_>>(),
        [26, 27, 28]
    );
    assert_eq!(config.source_nat[0].translate, SourceTranslation::Off);
    assert!(!config.answer_neighbours);
    assert_eq!(
        (config.source_nat[1].from.clone(), config.source_nat[1].to.clone()),
        (Selector::Any, Selector::OneOf(vec![ZoneId(0)]))
    );
    assert_eq!((config.sessions.max, config.sessions.half_open), (1000, 1000));
    assert_eq!(
        config.sessions.timeouts.tcp_established,
        Duration::from_secs(7200)
    );
    assert_eq!(config.sessions.timeouts.udp_one_way, Duration::from_millis(1500));
}

#[test]
fn defaults() {
    let config = config(
        "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: { name: edge }\nspec:\n  policies:\n  nat:\n",
    );
    assert_eq!(config.sessions, SessionLimits::default());
    assert_eq!(
        (config.sessions.max, config.sessions.half_open),
        (262_144, 65_536)
    );
    let timeouts = config.sessions.timeouts;
    let seconds = [
        timeouts.tcp_opening,
        timeouts.tcp_established,
        timeouts.tcp_closing,
        timeouts.tcp_closed,
        timeouts.udp_one_way,
        timeouts.udp_two_way,
        timeouts.icmp,
        timeouts.other,
    ]
    .map(|timeout| timeout.as_secs());
    assert_eq!(seconds, [240, 7_440, 240, 10, 30, 300, 60, 600]);
}

#[test]
fn a_document_survives_being_written_and_read() {
    let read = parse("f", FULL).unwrap();
    let json = serde_json::to_string_pretty(&read.document).unwrap();
    let again = parse("f", &json).unwrap_or_else(|refused| panic!("{refused}\n{json}"));
    assert_eq!(again.document, read.document);
    let without_lines = |mut config: Config| {
        config
            .interfaces
            .iter_mut()
            .for_each(|found| (found.line, found.column) = (0, 0));
        config.zones.iter_mut().for_each(|found| found.line = 0);
        config.groups.iter_mut().for_each(|found| found.line = 0);
        config.services.iter_mut().for_each(|found| found.line = 0);
        config.policies.iter_mut().for_each(|found| found.line = 0);
        config.source_nat.iter_mut().for_each(|found| found.line = 0);
        config.destination_nat.iter_mut().for_each(|found| found.line = 0);
        config.static_nat.iter_mut().for_each(|found| found.line = 0);
        config.pools.iter_mut().for_each(|found| found.line = 0);
        config.screens.iter_mut().for_each(|found| found.line = 0);
        config
    };
    assert_eq!(without_lines(again.config), without_lines(read.config));
    let by_json: Document = serde_json::from_str(&json).unwrap();
    assert_eq!(by_json, read.document);
}

#[test]
fn aliases_and_tags_of_yaml_are_understood() {
    let config = config(
        "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: { name: !!str 10 }\nspec:\n  interfaces: [{ name: net1, zone: a }]\n  zones: [{ name: a, hostInbound: &in [ping] }, { name: b, hostInbound: *in }]\n",
    );
    assert_eq!(config.name, "10");
    assert_eq!(config.zones[0].host_inbound, config.zones[1].host_inbound);
}

#[test]
fn a_hundred_thousand_policies() {
    const POLICIES: usize = 100_000;
    let mut text = String::from(
        "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: { name: large }\nspec:\n  size: large\n  interfaces: [{ name: net1, zone: web }, { name: net2, zone: app }]\n  zones: [{ name: web }, { name: app }]\n  policies:\n",
    );
    for number in 0..POLICIES {
        let [.., high, middle, low] = (number as u32).to_be_bytes();
        text.push_str(&format!(
            "    - {{ name: p{number}, from: web, to: app, source: 10.{high}.{middle}.{low}, destination: [192.0.2.0/24], service: [https], action: permit, log: [close] }}\n"
        ));
    }
    let started = Instant::now();
    let parsed = parse("large.yaml", &text).unwrap();
    let took = started.elapsed();
    println!("{POLICIES} policies, {} MiB: {took:?}", text.len() >> 20);
    assert_eq!(parsed.config.policies.len(), POLICIES);
    assert_eq!(parsed.config.policies[POLICIES - 1].line as usize, 8 + POLICIES);
    assert_eq!(parsed.config.groups.len(), POLICIES + 1);
    assert!(parsed.warnings.is_empty());
    assert!(took < Duration::from_secs(20), "took {took:?}");

    // Faults in every one of them must not be worse than linear either.
    let started = Instant::now();
    let refused = parse(
        "large.yaml",
        text.replace("from: web", "from: wbe").replace("log:", "lgo:"),
    )
    .unwrap_err();
    println!("{} diagnostics: {:?}", refused.len(), started.elapsed());
    assert_eq!(refused.len(), 2 * POLICIES);
    assert!(
        started.elapsed() < Duration::from_secs(40),
        "took {:?}",
        started.elapsed()
    );
}
