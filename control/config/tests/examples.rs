//! What is shipped as an example works, and says of itself what is true.

use std::path::Path;

use bulkhead_config::{Config, Member, Selector, ServiceMatch, ZoneId, parse};

fn examples() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples");
    let mut examples: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).unwrap())
        })
        .collect();
    examples.sort();
    examples
}

fn example(name: &str) -> Config {
    let (_, text) = examples().into_iter().find(|(found, _)| found == name).unwrap();
    parse(name, text).unwrap().config
}

#[test]
fn every_example_parses_without_a_warning() {
    let examples = examples();
    assert!(examples.len() >= 4);
    for (name, text) in examples {
        match parse(&name, &text) {
            Ok(parsed) => assert!(parsed.warnings.is_empty(), "{}", parsed.warnings),
            Err(refused) => panic!("{}", refused.render(&text)),
        }
    }
}

#[test]
fn the_minimal_example_has_ten_lines() {
    let (_, text) = examples()
        .into_iter()
        .find(|(name, _)| name == "minimal.yaml")
        .unwrap();
    assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 10);
}

/// Whether the first policy that matches a TCP connection to `port` permits it; every address is in play.
fn permits(config: &Config, from: &str, to: &str, destination: &str, port: u16) -> bool {
    let zone = |name: &str| ZoneId(config.zones.iter().position(|zone| zone.name == name).unwrap() as u32);
    let destination: std::net::IpAddr = destination.parse().unwrap();
    let has = |member: &Member| match member {
        Member::Host(host) => *host == destination,
        Member::Prefix(prefix) => prefix.contains(destination),
        Member::Range(range) => range.prefixes().iter().any(|prefix| prefix.contains(destination)),
    };
    let speaks = |alternative: &ServiceMatch| match alternative {
        ServiceMatch::Any => true,
        ServiceMatch::Tcp(ports) => (ports.first..=ports.last).contains(&port),
        _ => false,
    };
    let decides = config.policies.iter().find(|policy| {
        policy.from.selects(&zone(from))
            && policy.to.selects(&zone(to))
            && match &policy.destination {
                Selector::Any => true,
                Selector::OneOf(groups) => groups.iter().any(|&id| config.group(id).members.iter().any(has)),
            }
            && config.service_matches(&policy.service).iter().any(speaks)
    });
    decides.is_some_and(|policy| policy.action == bulkhead_config::Action::Permit)
}

#[test]
fn four_segments_keep_their_promises() {
    let config = example("four-segments.yaml");
    let hosts = [
        ("financial", "10.10.1.20"),
        ("applications", "10.10.2.20"),
        ("web", "10.10.3.20"),
        ("data", "10.10.4.20"),
        ("internet", "203.0.113.80"),
    ];
    let mut reached = Vec::new();
    for (from, _) in hosts {
        for (to, address) in hosts.iter().filter(|(to, _)| *to != from) {
            for port in [80, 5432] {
                if permits(&config, from, to, address, port) {
                    reached.push(format!("{from} -> {to} {port}"));
                }
            }
        }
    }
    assert_eq!(
        reached,
        [
            "financial -> applications 80",
            "financial -> web 80",
            "financial -> internet 80",
            "applications -> web 80",
            "applications -> data 5432",
            "applications -> internet 80",
            "internet -> web 80",
        ]
    );
    let [nat] = &config.source_nat[..] else {
        panic!("one rule")
    };
    assert_eq!(nat.from, Selector::OneOf(vec![ZoneId(0), ZoneId(1)]));
    assert_eq!(nat.to, Selector::OneOf(vec![ZoneId(4)]));
    for interface in &config.interfaces {
        assert!(
            interface
                .addresses
                .iter()
                .any(|address| address.address.is_ipv4())
        );
        assert!(
            interface
                .addresses
                .iter()
                .any(|address| address.address.is_ipv6())
        );
    }
}

#[test]
fn policies_of_the_published_servers_speak_of_translated_addresses() {
    let config = example("published-servers.yaml");
    let www = config
        .destination_nat
        .iter()
        .find(|rule| rule.name == "www")
        .unwrap();
    let pool = config.pool(www.pool.unwrap());
    let (server, port) = (pool.ipv4[0].first.to_string(), pool.port().unwrap());
    assert!(permits(&config, "internet", "servers", &server, port));
    assert!(!permits(&config, "internet", "servers", "198.51.100.80", 443));
    let mail = &config.static_nat[0];
    assert!(permits(
        &config,
        "internet",
        "servers",
        &mail.inside.address.to_string(),
        25
    ));
    assert!(!permits(
        &config,
        "internet",
        "servers",
        &mail.outside.address.to_string(),
        25
    ));
    let defaults = config.zones.iter().filter(|zone| {
        zone.screen
            .is_some_and(|screen| config.screen(screen) == &bulkhead_config::Screen::builtin())
    });
    assert_eq!(defaults.count(), 2);
}
