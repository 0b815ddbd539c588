//! How long a ruleset takes to become tables, by number of rules: each for one host and one port. No kernel is involved.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use bulkhead_dataplane::compile::compile;
use bulkhead_dataplane::ruleset::{
    Action, Group, InterfaceRule, Policy, Prefix, Ruleset, Service, ServiceMatch, Zone,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// TCP.
const TCP: u8 = 6;
/// The first destination; the next ones follow.
const FIRST: u32 = u32::from_be_bytes([10, 192, 0, 1]);
/// Services take turns, as they do in policies.
const SERVICES: u16 = 50;

fn ruleset(rules: u32) -> Ruleset {
    let zone = |name: &str| Zone {
        name: name.to_owned(),
        ..Zone::default()
    };
    let interface = |name: &str, zone| InterfaceRule {
        name: name.to_owned(),
        zone,
        ..InterfaceRule::default()
    };
    let host = |number| Prefix {
        address: IpAddr::V4(Ipv4Addr::from(FIRST + number)),
        length: 32,
    };
    Ruleset {
        zones: vec![zone("inside"), zone("outside")],
        interfaces: vec![interface("net1", 0), interface("net2", 1)],
        groups: (0..rules)
            .map(|number| Group {
                name: format!("host-{number}"),
                members: vec![host(number)],
                ..Group::default()
            })
            .collect(),
        services: (0..SERVICES)
            .map(|number| Service {
                name: format!("service-{number}"),
                matches: vec![ServiceMatch::Ports {
                    protocol: TCP,
                    first: 1_000 + number,
                    last: 1_000 + number,
                }],
                ..Service::default()
            })
            .collect(),
        policies: (0..rules)
            .map(|number| Policy {
                name: format!("rule-{number}"),
                from: vec![0],
                to: vec![1],
                destination: vec![number as usize],
                service: vec![number as usize % usize::from(SERVICES)],
                action: Action::Permit,
                ..Policy::default()
            })
            .collect(),
        ..Ruleset::default()
    }
}

fn compile_rules(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile");
    group.sample_size(10);
    for rules in [10, 1_000, 10_000, 100_000] {
        let ruleset = ruleset(rules);
        group.throughput(Throughput::Elements(u64::from(rules)));
        group.bench_with_input(
            BenchmarkId::from_parameter(rules),
            &ruleset,
            |bencher, ruleset| {
                bencher.iter(|| {
                    black_box(compile(ruleset, 1, &[Some(1), Some(2)]).expect("a ruleset that fits"))
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, compile_rules);
criterion_main!(benches);
