//! The compiled rule sets against the obvious ones: random rulesets, random packets, the same first match.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bulkhead_abi::{Decision, NatRule, NatRuleKey, RuleSet, STATIC_RULE, ZONE_SELF};
use bulkhead_dataplane::{
    address::words,
    compile::{AddressTables, CompiledRuleset, compile},
    reference::{self, NatMatch, Tuple},
    ruleset::{
        DestinationNat, Group, Policy, Prefix, Ruleset, Service, ServiceMatch, SourceNat, SourceTranslation,
        StaticNat, Zone,
    },
};
use bulkhead_pipeline::{Question, Tables as _, Walk, decide, host::HostTables};
use proptest::{collection::vec, prelude::*};

/// Fills host tables with one generation.
fn load(compiled: &CompiledRuleset, addresses: &AddressTables) -> HostTables {
    let tables = HostTables::new(16, 16);
    tables
        .settings
        .set(&(compiled.generation & 1), &compiled.settings);
    tables.zones.load(compiled.zones.iter().copied());
    tables.hosts4.load(addresses.hosts4.iter().copied());
    tables.hosts6.load(addresses.hosts6.iter().copied());
    tables.prefixes4.load(addresses.prefixes4.iter().copied());
    tables.prefixes6.load(addresses.prefixes6.iter().copied());
    tables.services.load(compiled.services.iter().copied());
    tables.vectors.load(compiled.vectors.iter().copied());
    tables.any_vectors.load(compiled.any_vectors.iter().copied());
    tables.rules.load(compiled.rules.iter().copied());
    tables.nat_rules.load(compiled.nat_rules.iter().copied());
    tables
}

/// Addresses from a small world, so that prefixes nest and packets hit.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (0u8..2, 0u8..4, prop_oneof![0u8..8, any::<u8>()])
        .prop_map(|(a, b, c)| IpAddr::V4(Ipv4Addr::new(10, a, b, c)));
    let v6 = (0u16..2, 0u16..3, 0u16..6)
        .prop_map(|(a, b, c)| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, a, b, 0, 0, 0, c)));
    prop_oneof![v4, v6]
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (address(), any::<prop::sample::Index>()).prop_map(|(address, pick)| {
        let lengths: &[u8] = if address.is_ipv4() {
            &[0, 8, 15, 24, 29, 31, 32]
        } else {
            &[0, 32, 48, 64, 126, 128]
        };
        Prefix {
            address,
            length: lengths[pick.index(lengths.len())],
        }
    })
}

fn service_match() -> impl Strategy<Value = ServiceMatch> {
    let port = prop_oneof![
        Just(0u16),
        Just(1),
        78u16..84,
        Just(1023),
        Just(1024),
        Just(65535),
        any::<u16>()
    ];
    let protocol = prop_oneof![Just(6u8), Just(17u8)];
    prop_oneof![
        1 => Just(ServiceMatch::Any),
        6 => (protocol, port.clone(), port).prop_map(|(protocol, a, b)| ServiceMatch::Ports {
            protocol,
            first: a.min(b),
            last: a.max(b),
        }),
        2 => (prop_oneof![Just(1u8), Just(58u8)], 0u8..12, prop::option::of(0u8..3))
            .prop_map(|(protocol, kind, code)| ServiceMatch::Icmp { protocol, kind, code }),
        1 => prop_oneof![Just(6u8), Just(1), Just(47), any::<u8>()].prop_map(ServiceMatch::Protocol),
    ]
}

/// Indices below `n`; empty means "any".
fn some_of(n: usize) -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![2 => Just(Vec::new()), 3 => vec(0..n, 1..4)]
}

const ZONES: usize = 4;
const GROUPS: usize = 8;
const SERVICES: usize = 6;

/// Groups that nest and except groups before them.
fn groups() -> impl Strategy<Value = Vec<Group>> {
    let named = || prop_oneof![3 => Just(Vec::new()), 1 => vec(any::<prop::sample::Index>(), 1..3)];
    let except = prop_oneof![3 => Just(Vec::new()), 1 => vec(prefix(), 1..3)];
    vec((vec(prefix(), 0..6), named(), except, named()), GROUPS).prop_map(|groups| {
        let group = |(index, (members, nested, except, except_groups)): (usize, (_, Vec<_>, _, Vec<_>))| {
            let before = |named: Vec<prop::sample::Index>| match index {
                0 => Vec::new(),
                count => named.iter().map(|pick| pick.index(count)).collect(),
            };
            Group {
                name: format!("g{index}"),
                members,
                groups: before(nested),
                except,
                except_groups: before(except_groups),
                dynamic: false,
            }
        };
        groups.into_iter().enumerate().map(group).collect()
    })
}

fn ruleset(policies: std::ops::Range<usize>) -> impl Strategy<Value = Ruleset> {
    let policy = (
        some_of(ZONES),
        some_of(ZONES),
        some_of(GROUPS),
        some_of(GROUPS),
        some_of(SERVICES),
    )
        .prop_map(|(from, to, source, destination, service)| Policy {
            from,
            to,
            source,
            destination,
            service,
            ..Policy::default()
        });
    (
        vec(vec(0..SERVICES, 0..3), ZONES),
        groups(),
        vec(vec(service_match(), 1..4), SERVICES),
        vec(policy, policies),
    )
        .prop_map(|(inbound, groups, services, policies)| Ruleset {
            zones: inbound
                .into_iter()
                .map(|host_inbound| Zone {
                    name: String::new(),
                    host_inbound,
                    ..Zone::default()
                })
                .collect(),
            groups,
            services: services
                .into_iter()
                .map(|matches| Service {
                    name: String::new(),
                    matches,
                    ..Service::default()
                })
                .collect(),
            policies,
            ..Ruleset::default()
        })
}

fn tuple() -> impl Strategy<Value = Tuple> {
    let port = prop_oneof![
        Just(0u16),
        Just(1),
        78u16..84,
        Just(1024),
        Just(65535),
        0u16..3000,
        any::<u16>()
    ];
    let protocol = prop_oneof![Just(6u8), Just(17), Just(1), Just(58), Just(47), any::<u8>()];
    (address(), address(), protocol, port).prop_filter_map(
        "one family",
        |(source, destination, protocol, port)| {
            let port = if matches!(protocol, 6 | 17 | 1 | 58) {
                port
            } else {
                0
            };
            (source.is_ipv4() == destination.is_ipv4()).then_some(Tuple {
                source,
                destination,
                protocol,
                port,
            })
        },
    )
}

fn decided(tables: &HostTables, generation: u32, from: usize, to: u8, tuple: &Tuple) -> u32 {
    asked(tables, RuleSet::Policy, generation, from, to, tuple)
}

fn asked(tables: &HostTables, set: RuleSet, generation: u32, from: usize, to: u8, tuple: &Tuple) -> u32 {
    let question = Question {
        source_be: words(tuple.source),
        destination_be: words(tuple.destination),
        generation,
        port: tuple.port,
        protocol: tuple.protocol,
        family: if tuple.source.is_ipv4() { 4 } else { 6 },
        from_zone: from as u8 + 1,
        to_zone: to,
        set,
    };
    decide(tables, &question, &mut Walk::default())
}

fn check(ruleset: &Ruleset, tuples: &[Tuple]) -> Result<(), TestCaseError> {
    let generation = 7;
    let (compiled, addresses) = compile(ruleset, generation, &[]).expect("it fits");
    let tables = load(&compiled, &addresses);
    for tuple in tuples {
        for from in 0..ZONES {
            for to in 0..ZONES {
                let want = reference::first_match(ruleset, from, to, tuple);
                let want = want.map_or(Decision::NO_RULE, |index| index as u32);
                // Once by the vectors, once by the cache in front of them.
                for _ in 0..2 {
                    let got = decided(&tables, generation, from, to as u8 + 1, tuple);
                    prop_assert_eq!(got, want, "from {} to {}: {:?}", from, to, tuple);
                }
            }
            let permitted = decided(&tables, generation, from, ZONE_SELF, tuple) != Decision::NO_RULE;
            prop_assert_eq!(
                permitted,
                reference::host_inbound(ruleset, from, tuple),
                "self from {}: {:?}",
                from,
                tuple
            );
        }
    }
    Ok(())
}

/// NAT rules beside policies: what one set decides is nothing to the others.
fn translating() -> impl Strategy<Value = Ruleset> {
    let rule = || {
        (
            some_of(ZONES),
            some_of(ZONES),
            some_of(GROUPS),
            some_of(GROUPS),
            some_of(SERVICES),
        )
    };
    let fixed = (some_of(ZONES), address(), address(), any::<prop::sample::Index>()).prop_filter_map(
        "one family",
        |(from, outside, inside, pick)| {
            let lengths: &[u8] = if outside.is_ipv4() {
                &[16, 24, 30, 32]
            } else {
                &[48, 64, 127, 128]
            };
            let length = lengths[pick.index(lengths.len())];
            let prefix = |address| Prefix { address, length };
            (outside.is_ipv4() == inside.is_ipv4()).then_some(StaticNat {
                name: String::new(),
                from,
                outside: prefix(outside),
                inside: prefix(inside),
                npt: false,
            })
        },
    );
    (
        ruleset(0..4),
        vec(rule(), 0..20),
        vec(rule(), 0..20),
        vec(fixed, 0..4),
    )
        .prop_map(|(ruleset, source, destination, static_nat)| {
            let source_rule = |(from, to, source, destination, service)| SourceNat {
                from,
                to,
                source,
                destination,
                service,
                translation: SourceTranslation::Interface,
                ..SourceNat::default()
            };
            let destination_rule = |(from, _, source, destination, service)| DestinationNat {
                from,
                source,
                destination,
                service,
                ..DestinationNat::default()
            };
            Ruleset {
                source_nat: source.into_iter().map(source_rule).collect(),
                destination_nat: destination.into_iter().map(destination_rule).collect(),
                static_nat,
                ..ruleset
            }
        })
}

/// The rule that a set's number stands for, as the flow will name it.
fn named(tables: &HostTables, set: RuleSet, generation: u32, number: u32) -> Option<NatMatch> {
    let key = NatRuleKey {
        generation,
        set: set as u32,
        rule: number,
    };
    let mut rule = NatRule::default();
    tables.nat_rule(&key, false, &mut rule).then(|| {
        let index = (rule.rule & !STATIC_RULE) as usize;
        if rule.rule & STATIC_RULE != 0 {
            NatMatch::Static(index)
        } else {
            NatMatch::Rule(index)
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn compiled_translation_is_the_first_match(ruleset in translating(), tuples in vec(tuple(), 1..20)) {
        let generation = 7;
        let (compiled, addresses) = compile(&ruleset, generation, &[]).expect("it fits");
        let tables = load(&compiled, &addresses);
        for tuple in &tuples {
            for from in 0..ZONES {
                let want = reference::destination_nat(&ruleset, from, tuple);
                let number = asked(&tables, RuleSet::DestinationNat, generation, from, ZONE_SELF, tuple);
                let got = named(&tables, RuleSet::DestinationNat, generation, number);
                prop_assert_eq!(got, want, "destination from {}: {:?}", from, tuple);
                for to in 0..ZONES {
                    let want = reference::source_nat(&ruleset, from, to, tuple);
                    let number = asked(&tables, RuleSet::SourceNat, generation, from, to as u8 + 1, tuple);
                    let got = named(&tables, RuleSet::SourceNat, generation, number);
                    prop_assert_eq!(got, want, "source from {} to {}: {:?}", from, to, tuple);
                }
            }
        }
        check(&ruleset, &tuples)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn compiled_policy_is_the_first_match(ruleset in ruleset(0..40), tuples in vec(tuple(), 1..20)) {
        check(&ruleset, &tuples)?;
    }
}

proptest! {
    // Several pages of rules.
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]

    #[test]
    fn compiled_policy_of_many_pages_is_the_first_match(
        few in ruleset(40..60),
        tuples in vec(tuple(), 1..8),
        at in 0usize..9000,
    ) {
        // Nine thousand rules that match nothing (a protocol nobody sends), the others from `at` on.
        let mut many = few.clone();
        many.services.push(Service { name: String::new(), matches: vec![ServiceMatch::Protocol(254)], ..Service::default() });
        let nothing = Policy { service: vec![SERVICES], ..Policy::default() };
        many.policies = vec![nothing; 9000];
        many.policies.splice(at..at, few.policies);
        let tuples: Vec<Tuple> = tuples.into_iter().filter(|tuple| tuple.protocol != 254).collect();
        check(&many, &tuples)?;
    }
}
