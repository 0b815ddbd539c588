//! The engine between real namespaces: conversations permitted, denied, rejected and translated.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use bulkhead_dataplane::{
    engine::{Engine, Options},
    ruleset::{
        Action, Group, HookMode, InterfaceRule, NatRule, Policy, Prefix, Ruleset, Service, ServiceMatch, Zone,
    },
};
use bulkhead_testkit::{Client, HostSpec, HttpServer, Outcome, Topology, UdpServer, privileged};

const TCP: u8 = 6;
const UDP: u8 = 17;

fn tcp(name: &str, port: u16) -> Service {
    Service { name: name.into(), matches: vec![ServiceMatch::Ports { protocol: TCP, first: port, last: port }] }
}

/// Zones `inside` (net1) and `outside` (net2): inside may open http, dns and ping to outside; 9999 is rejected.
fn ruleset(hook: HookMode, nat: bool) -> Ruleset {
    Ruleset {
        zones: vec![
            Zone { name: "inside".into(), host_inbound: vec![2] },
            Zone { name: "outside".into(), host_inbound: vec![] },
        ],
        interfaces: vec![
            InterfaceRule { name: "net1".into(), zone: 0, addresses: vec![], hook },
            InterfaceRule { name: "net2".into(), zone: 1, addresses: vec![], hook },
        ],
        groups: vec![Group {
            name: "servers".into(),
            members: vec![
                Prefix { address: "10.77.1.0".parse().unwrap(), length: 24 },
                Prefix { address: "fd77:1::".parse().unwrap(), length: 64 },
            ],
        }],
        services: vec![
            tcp("http", 80),
            Service {
                name: "dns".into(),
                matches: vec![ServiceMatch::Ports { protocol: UDP, first: 53, last: 53 }],
            },
            Service {
                name: "ping".into(),
                matches: vec![
                    ServiceMatch::Icmp { protocol: 1, kind: 8, code: None },
                    ServiceMatch::Icmp { protocol: 58, kind: 128, code: None },
                ],
            },
            tcp("forbidden", 9999),
        ],
        policies: vec![
            Policy { name: "no".into(), service: vec![3], action: Action::Reject, ..Policy::default() },
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
            vec![NatRule { name: "masquerade".into(), from: vec![0], to: vec![1], translate: true }]
        } else {
            vec![]
        },
        answers_per_second: 100,
        deny_events_per_second: 100,
        ..Ruleset::default()
    }
}

fn topology() -> Result<Topology> {
    Topology::builder("bht-").host(HostSpec::new("inside")).host(HostSpec::new("outside")).build()
}

fn conversations(hook: HookMode, nat: bool) -> Result<()> {
    let lab = topology()?;
    let engine = lab.firewall().run(|| Engine::start(ruleset(hook, nat), &Options::default()))?;
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let client = inside.client().timeout(Duration::from_millis(1500));
    let back = outside.client().timeout(Duration::from_millis(500));
    for (server, seen, own) in [
        (IpAddr::V4(outside.v4), IpAddr::V4(if nat { outside.firewall_v4 } else { inside.v4 }), outside.v4_port(80)),
        (IpAddr::V6(outside.v6), IpAddr::V6(if nat { outside.firewall_v6 } else { inside.v6 }), outside.v6_port(80)),
    ] {
        let _http = HttpServer::start(&outside.namespace, own, "hello")?;
        let _dns = UdpServer::start(&outside.namespace, (server, 53).into())?;
        let answer = client.http_get((server, 80).into(), "/")?;
        let answer = answer.answered().unwrap_or_else(|e| panic!("{e}: {:#?}", engine.counters()));
        assert_eq!(answer.body, "hello");
        assert_eq!(answer.seen_as.ip(), seen, "source as the server saw it");
        let answer = client.dns_query((server, 53).into(), "example.test")?.answered()?;
        assert_eq!(answer.seen_as.ip(), seen);
        let (up, _) = client.tcp_transfer((server, 80).into(), 0, 0).map(|_| ((), ()))?;
        let () = up;
        client.ping(server)?.answered()?;
        // Rejected: told at once.
        assert!(matches!(client.tcp((server, 9999).into())?, Outcome::Refused), "reset");
        // Not in any policy: silence.
        assert!(matches!(client.tcp((server, 81).into())?, Outcome::TimedOut), "default deny");
        // The other way round nothing is permitted.
        let inside_address = if server.is_ipv4() { IpAddr::V4(inside.v4) } else { IpAddr::V6(inside.v6) };
        assert!(matches!(back.ping(inside_address)?, Outcome::TimedOut));
        // hostInbound: inside may ping the firewall, outside may not.
        let (own, other) = if server.is_ipv4() {
            (IpAddr::V4(inside.firewall_v4), IpAddr::V4(outside.firewall_v4))
        } else {
            (IpAddr::V6(inside.firewall_v6), IpAddr::V6(outside.firewall_v6))
        };
        client.ping(own)?.answered()?;
        assert!(matches!(back.ping(other)?, Outcome::TimedOut));
        // The firewall's own connections are answered without a rule.
        Client::new(lab.firewall()).ping(server)?.answered()?;
        Client::new(lab.firewall()).http_get((server, 80).into(), "/")?.answered()?;
    }
    let sessions = engine.sessions(&|_| true, 100)?;
    assert!(sessions.total >= 4, "{sessions:#?}");
    engine.stop();
    Ok(())
}

#[test]
fn netns_conversations_over_tcx() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    conversations(HookMode::Tcx, false)
}

#[test]
fn netns_conversations_over_tcx_with_source_nat() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    conversations(HookMode::Tcx, true)
}
