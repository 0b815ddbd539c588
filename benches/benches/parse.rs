//! How long a configuration takes from YAML to names resolved and checked, by number of policies.

use std::fmt::Write as _;
use std::hint::black_box;
use std::net::Ipv4Addr;

use bulkhead_config::parse;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// The first destination; the next ones follow.
const FIRST: u32 = u32::from_be_bytes([10, 192, 0, 1]);

fn configuration(policies: u32) -> String {
    let mut text = String::from(
        "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: { name: bench }\nspec:\n  size: large\n  interfaces:\n    \
         - { name: net1, zone: inside }\n    - { name: net2, zone: outside }\n  zones: [{ name: inside }, { name: outside }]\n  \
         services: [{ name: web, tcp: [80, 443] }]\n  addresses:\n",
    );
    for number in 0..policies {
        let address = Ipv4Addr::from(FIRST + number);
        let _infallible = writeln!(text, "    - {{ name: host-{number}, members: [{address}] }}");
    }
    text += "  policies:\n";
    for number in 0..policies {
        let _infallible = writeln!(
            text,
            "    - {{ name: rule-{number}, from: inside, to: outside, destination: [host-{number}], service: [web], \
             action: permit }}"
        );
    }
    text
}

fn parse_policies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    group.sample_size(10);
    for policies in [10, 1_000, 10_000, 100_000] {
        let text = configuration(policies);
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(policies), &text, |bencher, text| {
            bencher.iter(|| {
                let parsed =
                    parse("bench.yaml", text).unwrap_or_else(|error| panic!("{}", error.render(text)));
                black_box(parsed)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, parse_policies);
criterion_main!(benches);
