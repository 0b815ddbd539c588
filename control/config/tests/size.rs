//! What fits into which size, and what is said when it does not.

mod common;

use bulkhead_config::{Config, Size, SizeName, parse};
use common::{Case, check, spec};

fn config(fields: &str) -> Config {
    parse("f", spec(fields))
        .unwrap_or_else(|refused| panic!("{refused}"))
        .config
}

const ZONES: &str = "  zones: [{ name: a }]\n  interfaces: [{ name: net1, zone: a }]\n";

/// So many policies, one per line.
fn policies(number: usize) -> String {
    let lines: String = (0..number)
        .map(|number| {
            let [.., high, low] = number.to_be_bytes();
            format!("    - {{ name: p{number}, from: a, to: a, source: 10.0.{high}.{low}, action: deny }}\n")
        })
        .collect();
    format!("{ZONES}  policies:\n{lines}")
}

/// A group of so many addresses.
fn addresses(name: &str, first: u32, number: u32) -> String {
    let members: Vec<String> = (first..first + number)
        .map(|address| std::net::Ipv4Addr::from(0x0a00_0000 + 2 * address).to_string())
        .collect();
    format!("{{ name: {name}, members: [{}] }}", members.join(", "))
}

#[test]
fn sizes_have_names_and_numbers() {
    let written = config("");
    assert_eq!(written.size, Size::default());
    assert_eq!(
        (written.sessions.max, written.sessions.half_open),
        (262_144, 65_536)
    );
    let small = config("  size: small\n");
    assert_eq!(
        (small.size.policies, small.size.addresses, small.sessions.max),
        (8_192, 32_768, 65_536)
    );
    let own = config("  size: { base: large, policies: 100 }\n  sessions: { max: 5000 }\n");
    let expected = Size {
        policies: 100,
        ..SizeName::Large.size()
    };
    assert_eq!(own.size, expected);
    assert_eq!(
        (own.sessions.max, own.sessions.half_open),
        (5_000, 5_000),
        "what is written counts"
    );
    assert!(SizeName::ALL.is_sorted_by(|small, large| {
        let (one, other) = (small.size(), large.size());
        one.policies < other.policies
            && one.addresses < other.addresses
            && one.routes < other.routes
            && one.neighbours < other.neighbours
            && small.sessions() < large.sessions()
            && small.half_open() < large.half_open()
    }));
}

#[test]
fn sizes_that_are_none() {
    check(&[
        Case::spec(
            "name",
            "  size: larg\n",
            &["5:9: \"larg\" is not a value of size; did you mean \"large\"?"],
        ),
        Case::spec(
            "shape",
            "  size: [large]\n",
            &[
                "5:9: size must be a size by name, or a mapping of base, policies, addresses, routes and neighbours, not a list; write a single value",
            ],
        ),
        Case::spec(
            "numbers",
            "  size: { base: huge, policies: 0, adresses: 5, neighbours: 131073 }\n",
            &[
                "5:17: \"huge\" is not a value of base; it can be small, medium, large, xlarge",
                "5:33: policies cannot be 0; it can be 1 to 262144",
                "5:36: unknown field \"adresses\"; did you mean \"addresses\"?",
                "5:61: neighbours cannot be 131073; it can be 1 to 131072",
            ],
        ),
        Case::spec(
            "bounds",
            "  size: { policies: 0, neighbours: 131073 }\n",
            &[
                "5:21: policies cannot be 0; it can be 1 to 262144",
                "5:36: neighbours cannot be 131073; it can be 1 to 131072",
            ],
        ),
    ]);
}

#[test]
fn what_does_not_fit_is_named_with_the_size_that_has_room() {
    let named = format!("  size: small\n{}", policies(8_193));
    let numbers = format!("  size: {{ policies: 2 }}\n{}", policies(3));
    let fits = format!("  size: {{ policies: 3 }}\n{}", policies(3));
    let groups = format!(
        "  size: small\n  addresses:\n    - {{ name: few, members: [10.9.0.0/16] }}\n    - {}\n",
        addresses("many", 0, 32_768)
    );
    check(&[
        Case::spec(
            "named",
            &named,
            &[
                "8201:7: 8193 policies do not fit size small, which has room for 8192; write `size: medium`, which has room",
            ],
        ),
        Case::spec(
            "numbers",
            &numbers,
            &["11:7: 3 policies do not fit the size, which has room for 2; raise spec.size.policies to 3"],
        ),
        Case::spec("fits", &fits, &[]),
        Case::spec(
            "groups",
            &groups,
            &[
                "8:7: 32769 IPv4 addresses do not fit size small, which has room for 32768; write `size: medium`, which has room",
            ],
        ),
    ]);
}

#[test]
fn an_address_in_two_groups_counts_once() {
    let text = format!(
        "  size: small\n  addresses: [{}, {}, {{ name: six, members: [\"fd00::/64\", \"fd00::1\"] }}]\n",
        addresses("one", 0, 20_000),
        addresses("two", 7_233, 20_000)
    );
    let extent = config(&text).extent;
    assert_eq!((extent.addresses_v4, extent.addresses_v6), (27_233, 2));
}

/// Each zone with `hostInbound` is a rule of its own, and the largest size has as many policies as there can be rules.
#[test]
fn zones_with_host_inbound_count_among_the_rules_of_the_largest_size() {
    for (policies, inbound, expected) in [
        (262_144, 0, 0),
        (262_143, 1, 0),
        (262_144, 1, 1),
        (262_100, 50, 6),
    ] {
        let extent = bulkhead_config::Extent {
            policies,
            inbound,
            ..bulkhead_config::Extent::default()
        };
        assert_eq!(extent.rules_too_many(), expected, "{policies} and {inbound}");
    }
    let lines: String = (0..262_144)
        .map(|number| format!("    - {{ name: p{number}, from: a, to: a, action: deny }}\n"))
        .collect();
    let document = format!(
        "  size: xlarge\n  interfaces: [{{ name: net1, zone: a }}]\n  zones: [{{ name: a, hostInbound: [ping] }}]\n  \
         policies:\n{lines}"
    );
    let Err(refused) = parse("f", spec(&document)) else {
        panic!("accepted");
    };
    let refused = refused.to_string();
    let lines: Vec<&str> = refused.lines().filter(|line| line.contains("rules")).collect();
    let place = lines.first().and_then(|line| line.split_once(' '));
    let (place, said) = place.unwrap_or_else(|| panic!("{}", &refused[..refused.len().min(1_000)]));
    assert_eq!(place, "f:262152:7:");
    assert_eq!(
        said,
        "262145 rules (262144 policies, and one for each zone with hostInbound) are more than the 262144 that a firewall of \
         any size has room for; leave out 1 of the policies, or divide them among firewalls"
    );
}

#[test]
fn the_largest_size_has_an_end() {
    let extent = bulkhead_config::Extent {
        policies: 262_145,
        ..bulkhead_config::Extent::default()
    };
    assert_eq!(extent.smallest(), None);
    let extent = bulkhead_config::Extent {
        policies: 262_144,
        addresses_v6: 2_097_152,
        ..bulkhead_config::Extent::default()
    };
    assert_eq!(extent.smallest(), Some(SizeName::Xlarge));
}
