//! Diagnostics of address translation, each with its exact place and sentence, and what good rules become.

mod common;

use std::time::Duration;

use bulkhead_config::{
    Config, PersistentScope, PoolAlarm, PoolUse, Selector, SourceTranslation, ZoneId, parse,
};
use common::{Case, check, spec};

/// Two lines; what follows begins on line 7.
const ZONES: &str = "  interfaces: [{ name: net1, zone: inside }, { name: net2, zone: internet }]\n  zones: [{ name: inside }, { name: internet }]\n";

fn nat(name: &str, fields: &str, expected: &[&str]) -> Case {
    Case::spec(name, &format!("{ZONES}  nat:\n{fields}"), expected)
}

fn config(fields: &str) -> Config {
    let text = spec(&format!("{ZONES}{fields}"));
    parse("f", &text)
        .unwrap_or_else(|refused| panic!("{refused}"))
        .config
}

#[test]
fn pools() {
    let evens = |count: u32| {
        let addresses: Vec<String> = (0..count)
            .map(|number| format!("203.0.113.{}", 2 * number))
            .collect();
        format!(
            "    pools: [{{ name: p, addresses: [{}] }}]\n",
            addresses.join(", ")
        )
    };
    check(&[
        nat("eight ranges", &evens(8), &[]),
        nat(
            "nine ranges",
            &evens(9),
            &["8:24: pool \"p\" has 9 separate IPv4 ranges; it can have 8: use fewer and larger ones"],
        ),
        nat(
            "nine neighbours",
            "    pools: [{ name: p, addresses: [10.1.0.1, 10.1.0.2, 10.1.0.3, 10.1.0.4, 10.1.0.5, 10.1.0.6, 10.1.0.7, 10.1.0.8, 10.1.0.9] }]\n",
            &[],
        ),
        nat(
            "addresses",
            "    pools:\n      - { name: a, addresses: [10.1.0.1/24, 10.0.0.300, web, 127.0.0.1, 10.0.0.1] }\n      - { name: b, addresses: [] }\n      - { name: c }\n      - { name: d, addresses: [\"fe80::1\", 223.0.0.0-224.0.0.1] }\n",
            &[
                "9:32: prefix 10.1.0.1/24 has host bits set; the network is 10.1.0.0/24; for the one address write 10.1.0.1",
                "9:45: \"10.0.0.300\" is not an IP address; write an address such as 10.4.1.7 or 2001:db8::7",
                "9:57: \"web\" is not an IP address; write the address itself; names are not looked up",
                "9:62: pool \"a\" holds 127.0.0.1, which is loopback (RFC 1122); write addresses that hosts can have",
                "10:20: pool \"b\" has no addresses; write `addresses: [203.0.113.0/28]`",
                "11:9: spec.nat.pools[2] lacks the field \"addresses\"; add `addresses`",
                "12:32: pool \"d\" holds fe80::1, which is link-local (RFC 4291); write addresses that hosts can have",
                "12:43: pool \"d\" holds 224.0.0.0, which is multicast (RFC 5771); write addresses that hosts can have",
            ],
        ),
        nat(
            "ports",
            "    pools:\n      - { name: a, addresses: [10.1.0.1], ports: 0-100 }\n      - { name: b, addresses: [10.1.0.1], ports: 2000-1000 }\n      - { name: c, addresses: [10.1.0.1], ports: non }\n      - { name: d, addresses: [10.1.0.1], port: 0 }\n      - { name: e, addresses: [10.1.0.1], port: 70000 }\n      - { name: f, addresses: [10.1.0.1], port: http }\n      - { name: g, addresses: [10.1.0.1], prot: 80 }\n",
            &[
                "9:50: port 0 is not a port; write a range within 1-65535, such as 1024-65535, or none to keep every port",
                "10:50: port range 2000-1000 runs backwards; write a range within 1-65535, such as 1024-65535, or none to keep every port",
                "11:50: \"non\" is not a port or a port range; write a range within 1-65535, such as 1024-65535, or none to keep every port",
                "12:49: port 0 is not a port; ports are 1 to 65535; to keep the port, leave it out",
                "13:49: port must be a whole number from 0 to 65535, not the number 70000; write only the digits, without unit or quotes",
                "14:49: port must be a whole number from 0 to 65535, not the text \"http\"; write only the digits, without unit or quotes",
                "15:43: unknown field \"prot\"; did you mean \"port\"?",
            ],
        ),
        nat(
            "for both kinds of rules",
            "    pools:\n      - { name: a, addresses: [10.1.0.1], port: 80, ports: none }\n      - { name: b, addresses: [10.1.0.1], paired: false, port: 80 }\n      - { name: c, addresses: [10.1.0.1], port: 80, alarm: { raise: 80, clear: 70 } }\n",
            &[
                "9:43: pool \"a\" has both `port` and `ports`; `port` is for destination rules, `ports`, `paired` and `alarm` are for source rules: write two pools",
                "10:58: pool \"b\" has both `port` and `paired`; `port` is for destination rules, `ports`, `paired` and `alarm` are for source rules: write two pools",
                "11:43: pool \"c\" has both `port` and `alarm`; `port` is for destination rules, `ports`, `paired` and `alarm` are for source rules: write two pools",
            ],
        ),
        nat(
            "alarm",
            "    pools:\n      - { name: a, addresses: [10.1.0.1], alarm: { raise: 101, clear: 0 } }\n      - { name: b, addresses: [10.1.0.1], alarm: { raise: 70, clear: 70 } }\n      - { name: c, addresses: [10.1.0.1], alarm: { raise: 70 } }\n      - { name: d, addresses: [10.1.0.1], paired: yes }\n",
            &[
                "9:59: raise cannot be 101; it can be 1 to 100",
                "9:71: clear cannot be 0; it can be 1 to 100",
                "10:70: the alarm would be raised at 70 and cleared below 70 per cent at once; write a `clear` that is less than `raise`",
                "11:50: spec.nat.pools[2].alarm lacks the field \"clear\"; add `clear`",
                "12:51: paired must be true or false, not the text \"yes\"; write `true` without quotes, or `false`",
            ],
        ),
        nat(
            "names",
            "    pools:\n      - { name: a, addresses: [10.1.0.1] }\n      - { name: a, addresses: [10.1.0.2] }\n      - { name: any, addresses: [10.1.0.3] }\n",
            &[
                "10:17: pool \"a\" is already defined on line 9; give one of them another name",
                "11:17: \"any\" is reserved and cannot be the name of a pool; choose another name",
            ],
        ),
    ]);
}

/// Three lines; the rules begin on line 12.
const POOLS: &str = "    pools:\n      - { name: pub, addresses: [203.0.113.0/28], ports: none }\n      - { name: shared, addresses: [203.0.113.64/28] }\n      - { name: servers, addresses: [10.1.2.3], port: 8080 }\n";

#[test]
fn source_rules() {
    let source = |name: &str, rules: &str, expected: &[&str]| {
        nat(name, &format!("{POOLS}    source:\n{rules}"), expected)
    };
    check(&[
        source(
            "pools",
            "      - { name: a, from: inside, to: internet, translate: pool }\n      - { name: b, from: inside, to: any, translate: pool, pool: pbu }\n      - { name: c, from: any, to: internet, translate: pool, pool: servers }\n      - { name: d, from: internet, to: inside, translate: interface, pool: pub }\n",
            &[
                "13:59: source rule \"a\" translates to a pool but names none; add the name of a pool, such as `pool: pub`",
                "14:66: source rule \"b\" names pool \"pbu\", which does not exist; did you mean \"pub\"?",
                "15:68: source rule \"c\" names pool \"servers\", which is for destination rules; name a pool without `port`",
                "16:70: source rule \"d\" names pool \"pub\" but does not translate to it; write `translate: pool`, or leave `pool` out",
            ],
        ),
        source(
            "persistence",
            "      - { name: a, from: inside, to: internet, translate: pool, pool: pub, persistent: target-host }\n      - { name: b, from: inside, to: any, translate: off, persistent: target-host }\n      - { name: c, from: any, to: internet, translate: interface, persistentTimeout: 5m }\n      - { name: d, from: internet, to: inside, translate: interface, persistent: any-remote-hosts }\n      - { name: e, from: internet, to: any, translate: interface, persistent: target-host-port, persistentTimeout: 59s }\n      - { name: f, from: any, to: inside, translate: interface, persistent: target-host, persistentTimeout: 60500ms }\n      - { name: g, from: internet, to: internet, translate: interface, persistent: target-host, persistentTimeout: 300 }\n",
            &[
                "13:88: source rule \"a\" is persistent, but pool \"pub\" has `ports: none`; a host keeps a port of its own: give the pool ports, or leave `persistent` out",
                "14:71: source rule \"b\" is persistent, but translates nothing; write `translate: interface` or `translate: pool`, or leave `persistent` out",
                "15:67: source rule \"c\" has a persistentTimeout, but is not persistent; add `persistent: any-remote-host`, target-host or target-host-port, or leave it out",
                "16:82: \"any-remote-hosts\" is not a value of persistent; did you mean \"any-remote-host\"?",
                "17:116: persistentTimeout cannot be 59s; it can be 60s to 7200s, in whole seconds",
                "18:109: persistentTimeout cannot be 60500ms; it can be 60s to 7200s, in whole seconds",
                "19:116: duration 300 has no unit; write 300s for seconds",
            ],
        ),
        source(
            "selectors",
            "      - { name: a, from: insid, to: internet, source: [10.0.0.0/33, nobody], destination: [], service: [htps, any], translate: off }\n      - name: b\n        from: inside\n        to: internet\n        service:\n        translate: off\n",
            &[
                "13:26: source rule \"a\" names zone \"insid\", which does not exist; did you mean \"inside\"?",
                "13:56: \"33\" is not a prefix length of IPv4; it can be 0 to 32",
                "13:69: source rule \"a\" names address group \"nobody\", which does not exist; define it under spec.addresses, or write an address",
                "13:78: destination of source rule \"a\" is empty; write `destination: any` if everything is meant",
                "13:111: `any` stands beside other names in service of source rule \"a\"; write `service: any` alone",
                "17:9: service of source rule \"b\" is empty; write `service: any` if everything is meant",
            ],
        ),
        source(
            "never matches",
            "      - { name: a, from: inside, to: internet, service: https, translate: off }\n      - { name: b, from: inside, to: internet, translate: interface }\n      - { name: c, from: [inside], to: internet, service: any, translate: pool, pool: shared }\n",
            &[
                "15:17: warning: source rule \"c\" can never match: source rule \"b\" on line 14 matches the same before it; remove one of them",
            ],
        ),
        source(
            "shape",
            "      - { nam: a, from: inside, to: internet, translate: interfase }\n      - { name: b, from: inside }\n",
            &[
                "13:11: unknown field \"nam\"; did you mean \"name\"?",
                "13:58: \"interfase\" is not a value of translate; did you mean \"interface\"?",
                "14:9: spec.nat.source[1] lacks the field \"to\"; add `to`",
            ],
        ),
    ]);
}

#[test]
fn destination_rules() {
    check(&[
        nat(
            "pools",
            &format!(
                "{POOLS}    destination:\n      - {{ name: a, from: internet, destination: 203.0.113.9, translate: pool }}\n      - {{ name: b, from: internet, service: https, translate: pool, pool: serverz }}\n      - {{ name: c, from: internet, service: http, translate: pool, pool: pub }}\n      - {{ name: d, from: any, translate: off, pool: servers }}\n      - {{ name: e, from: inside, translate: interface }}\n      - {{ name: f, from: internet, to: inside, translate: off }}\n"
            ),
            &[
                "13:73: destination rule \"a\" translates to a pool but names none; add the name of a pool, such as `pool: pub`",
                "14:75: destination rule \"b\" names pool \"serverz\", which does not exist; did you mean \"servers\"?",
                "15:74: destination rule \"c\" names pool \"pub\", which is for source rules; name a pool without `ports`, `paired` and `alarm`",
                "16:47: destination rule \"d\" names pool \"servers\" but does not translate to it; write `translate: pool`, or leave `pool` out",
                "17:45: \"interface\" is not a value of translate; it can be pool, off",
                "18:36: unknown field \"to\"; the fields here are name, from, source, destination, service, translate, pool",
            ],
        ),
        nat(
            "a pool of nothing but addresses serves both kinds",
            &format!(
                "{POOLS}    source: [{{ name: a, from: inside, to: internet, translate: pool, pool: shared }}]\n    destination: [{{ name: a, from: internet, destination: 203.0.113.9, translate: pool, pool: shared }}]\n"
            ),
            &[],
        ),
        nat(
            "no pools, twins",
            "    destination:\n      - { name: a, from: internet, translate: pool, pool: p }\n      - { name: b, from: internet, source: 10.0.0.1, translate: off }\n      - { name: c, from: internet, source: 10.0.0.1, translate: off }\n",
            &[
                "9:59: destination rule \"a\" names pool \"p\", which does not exist; there are no pools yet",
                "11:17: warning: destination rule \"c\" can never match: destination rule \"b\" on line 10 matches the same before it; remove one of them",
            ],
        ),
    ]);
}

#[test]
fn static_rules() {
    let statics =
        |name: &str, rules: &str, expected: &[&str]| nat(name, &format!("    static:\n{rules}"), expected);
    check(&[
        statics(
            "pairs",
            "      - { name: a, from: internet, prefix: 203.0.113.64/28, to: 10.0.0.64/28 }\n      - { name: b, from: any, prefix: 203.0.113.1, to: 10.0.1.1/32 }\n      - { name: c, from: internet, prefix: \"2001:db8:1::/48\", to: \"fd00:1::/48\", npt: true }\n      - { name: d, from: internet, prefix: \"2001:db8:2:3::/64\", to: \"fd00:2:3:4::/64\", npt: true }\n      - { name: e, from: internet, prefix: \"2001:db8:3::/96\", to: \"fd00:3::/96\" }\n",
            &[],
        ),
        statics(
            "prefixes",
            "      - { name: a, from: internet, prefix: 203.0.113.65/28, to: 10.0.0.64/28 }\n      - { name: b, from: internet, prefix: 203.0.113.0-203.0.113.7, to: 10.0.0.1-10.0.0.6 }\n      - { name: c, from: internet, prefix: web, to: 224.0.0.1 }\n",
            &[
                "9:44: prefix 203.0.113.65/28 has host bits set; the network is 203.0.113.64/28; for the one address write 203.0.113.65",
                "10:44: range 203.0.113.0-203.0.113.7 is not a prefix; write 203.0.113.0/29",
                "10:73: range 10.0.0.1-10.0.0.6 is not a prefix; write 4 rules of a prefix each, the first 10.0.0.1/32",
                "11:44: \"web\" is not an IP address; write the address itself; names are not looked up",
                "11:53: static rule \"c\" holds 224.0.0.1, which is multicast (RFC 5771); write addresses that hosts can have",
            ],
        ),
        statics(
            "families and lengths",
            "      - { name: a, from: internet, prefix: 203.0.113.64/28, to: \"2001:db8::/124\" }\n      - { name: b, from: internet, prefix: 203.0.114.0/24, to: 10.0.0.0/25 }\n      - { name: c, from: internet, prefix: 203.0.115.0/24, to: 10.1.1.0/23 }\n      - { name: d, from: internet, prefix: 203.0.116.0/24, to: 10.2.2.64/26 }\n",
            &[
                "9:65: static rule \"a\" pairs 203.0.113.64/28 with 2001:db8::/124 of the other family; write two prefixes of one family: IPv4 is not translated to IPv6",
                "10:64: static rule \"b\" pairs 203.0.114.0/24 with 10.0.0.0/25 of another length; both must have the same: write 10.0.0.0/24, or a /25 there",
                "11:64: prefix 10.1.1.0/23 has host bits set; the network is 10.1.0.0/23; for the one address write 10.1.1.0",
                "12:64: static rule \"d\" pairs 203.0.116.0/24 with 10.2.2.64/26 of another length; both must have the same: write a /24 here",
            ],
        ),
        statics(
            "npt",
            "      - { name: a, from: internet, prefix: 203.0.113.64/28, to: 10.0.0.64/28, npt: true }\n      - { name: b, from: internet, prefix: \"2001:db8::/65\", to: \"fd00::/65\", npt: true }\n      - { name: c, from: internet, prefix: \"2001:db9::/48\", to: \"fd01::/56\", npt: true }\n",
            &[
                "9:79: static rule \"a\" has `npt`, but 203.0.113.64/28 is IPv4; leave `npt` out: only IPv6 prefixes are translated that way",
                "10:78: static rule \"b\" has `npt`, but 2001:db8::/65 is too long for it; write prefixes of at most 64 bits, or leave `npt` out",
                "11:65: static rule \"c\" pairs 2001:db9::/48 with fd01::/56 of another length; both must have the same: write fd01::/48, or a /56 there",
            ],
        ),
        statics(
            "overlaps",
            "      - { name: a, from: internet, prefix: 203.0.113.0/28, to: 10.0.0.0/28 }\n      - { name: b, from: inside, prefix: 203.0.113.8, to: 10.0.1.0 }\n      - { name: c, from: internet, prefix: 203.0.114.0/24, to: 10.0.0.0/24 }\n      - { name: d, from: internet, prefix: 10.0.1.0/31, to: 203.0.115.0/31 }\n      - { name: e, from: internet, prefix: 10.7.0.0/24, to: 10.7.0.0/24 }\n      - { name: f, from: internet, prefix: \"2001:db8::/32\", to: \"fd00::/32\" }\n",
            &[
                "10:42: 203.0.113.8/32 of static rule \"b\" overlaps 203.0.113.0/28 of static rule \"a\" on line 9; an address has one translation: write prefixes that lie apart",
                "11:64: 10.0.0.0/24 of static rule \"c\" overlaps 10.0.0.0/28 of static rule \"a\" on line 9; an address has one translation: write prefixes that lie apart",
                "12:44: 10.0.1.0/31 of static rule \"d\" overlaps 10.0.1.0/32 of static rule \"b\" on line 10; an address has one translation: write prefixes that lie apart",
                "13:61: static rule \"e\" translates 10.7.0.0/24 to 10.7.0.0/24, which overlaps it; an address has one translation: write prefixes that lie apart",
            ],
        ),
        statics(
            "shape",
            "      - { name: a, from: internet, prefx: 203.0.113.0, to: 10.0.0.0 }\n      - { name: a, from: internat, prefix: 203.0.113.0, to: 10.0.0.0, npt: 1 }\n      - { name: a, from: internet, prefix: 203.0.114.0, to: 10.0.1.0 }\n",
            &[
                "9:36: unknown field \"prefx\"; did you mean \"prefix\"?",
                "10:26: static rule \"a\" names zone \"internat\", which does not exist; did you mean \"internet\"?",
                "10:76: npt must be true or false, not the number 1; write `true` without quotes, or `false`",
                "11:17: static rule \"a\" is already defined on line 10; give one of them another name",
            ],
        ),
    ]);
}

#[test]
fn rules_become_what_they_say() {
    let config = config(
        "  addresses: [{ name: staff, members: [10.0.0.0/24] }]
  nat:
    pools:
      - { name: pub, addresses: [203.0.113.20-203.0.113.25, 203.0.113.0/28, 203.0.113.16/30, \"2001:db8::/120\"], ports: 2000-3000, paired: false, alarm: { raise: 80, clear: 70 } }
      - { name: servers, addresses: [10.1.2.3], port: 8080 }
      - { name: plain, addresses: [\"2001:db8:f::1\"] }
      - { name: same, addresses: [203.0.113.128/28], ports: none }
    source:
      - { name: a, from: inside, to: internet, source: [staff, 10.9.9.9], destination: 192.0.2.0/24, service: [https, dns], translate: pool, pool: pub, persistent: target-host }
      - { name: b, from: inside, to: internet, source: 10.8.0.0/16, translate: interface, persistent: any-remote-host, persistentTimeout: 2h }
      - { name: c, from: any, to: any, translate: off }
    destination:
      - { name: www, from: internet, source: any, destination: [203.0.113.9], service: https, translate: pool, pool: servers }
      - { name: keep, from: any, translate: off }
    static:
      - { name: s, from: internet, prefix: 203.0.113.64/28, to: 10.0.0.64/28 }
      - { name: n, from: any, prefix: \"2001:db8:1::/48\", to: \"fd00:1::/48\", npt: true }
",
    );
    let ranges: Vec<Vec<String>> = config
        .pools
        .iter()
        .map(|pool| {
            pool.ipv4
                .iter()
                .chain(&pool.ipv6)
                .map(ToString::to_string)
                .collect()
        })
        .collect();
    assert_eq!(
        ranges,
        [
            vec!["203.0.113.0-203.0.113.25", "2001:db8::-2001:db8::ff"],
            vec!["10.1.2.3"],
            vec!["2001:db8:f::1"],
            vec!["203.0.113.128-203.0.113.143"],
        ]
    );
    let [public, servers, plain, same] = &config.pools[..] else {
        panic!("{:?}", config.pools)
    };
    let ports = public.ports().map(|ports| (ports.first, ports.last));
    let alarm = Some(PoolAlarm { raise: 80, clear: 70 });
    assert_eq!(
        (ports, public.paired(), public.alarm(), public.port()),
        (Some((2000, 3000)), false, alarm, None)
    );
    assert_eq!(
        (servers.usage, servers.port()),
        (PoolUse::Destination(8080), Some(8080))
    );
    let ports = plain.ports().map(|ports| (ports.first, ports.last));
    assert_eq!(
        (plain.usage, ports, plain.paired(), plain.port()),
        (PoolUse::Either, Some((1024, 65_535)), true, None)
    );
    assert_eq!((same.ports(), same.paired(), same.line), (None, true, 13));

    let [a, b, c] = &config.source_nat[..] else {
        panic!("{:?}", config.source_nat)
    };
    let SourceTranslation::Pool(pool) = a.translate else {
        panic!("{a:?}")
    };
    assert_eq!((&*config.pool(pool).name, a.line), ("pub", 15));
    let persistent = a.persistent.unwrap();
    assert_eq!(
        (persistent.scope, persistent.timeout),
        (PersistentScope::TargetHost, Duration::from_secs(300))
    );
    let groups = |selector: &Selector<_>| match selector {
        Selector::Any => vec!["any".to_owned()],
        Selector::OneOf(ids) => ids.iter().map(|&id| config.group(id).name.clone()).collect(),
    };
    assert_eq!(groups(&a.source), ["staff", "10.9.9.9"]);
    assert_eq!(groups(&a.destination), ["192.0.2.0/24"]);
    let services: Vec<_> = config
        .service_matches(&a.service)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(services, ["tcp/443", "udp/53", "tcp/53"]);
    let persistent = b.persistent.unwrap();
    assert_eq!(
        (b.translate, persistent.scope, persistent.timeout),
        (
            SourceTranslation::Interface,
            PersistentScope::AnyRemoteHost,
            Duration::from_secs(7200)
        )
    );
    assert_eq!(
        (c.translate, c.persistent, &c.from, &c.destination),
        (SourceTranslation::Off, None, &Selector::Any, &Selector::Any)
    );

    let [www, keep] = &config.destination_nat[..] else {
        panic!("{:?}", config.destination_nat)
    };
    assert_eq!(www.from, Selector::OneOf(vec![ZoneId(1)]));
    assert_eq!(groups(&www.source), ["any"]);
    assert_eq!(groups(&www.destination), ["203.0.113.9"]);
    assert_eq!(www.pool.map(|pool| &*config.pool(pool).name), Some("servers"));
    assert_eq!((keep.pool, keep.line), (None, 20));

    let statics: Vec<_> = config
        .static_nat
        .iter()
        .map(|rule| (format!("{} {}", rule.outside, rule.inside), rule.npt, rule.line))
        .collect();
    assert_eq!(
        statics,
        [
            ("203.0.113.64/28 10.0.0.64/28".to_owned(), false, 22),
            ("2001:db8:1::/48 fd00:1::/48".to_owned(), true, 23)
        ]
    );
    assert_eq!(config.static_nat[1].from, Selector::Any);
}

#[test]
fn overlaps_among_many_static_rules_are_found_in_time() {
    const RULES: u32 = 20_000;
    let mut fields = String::from("  nat:\n    static:\n");
    for number in 0..RULES {
        let [.., high, low] = number.to_be_bytes();
        fields.push_str(&format!(
            "      - {{ name: s{number}, from: internet, prefix: 100.64.{high}.{low}, to: 10.0.{high}.{low} }}\n"
        ));
    }
    let began = std::time::Instant::now();
    let sound = config(&fields);
    assert_eq!(sound.static_nat.len(), RULES as usize);
    let twice = fields.replace("to: 10.0.7.7 ", "to: 100.64.0.9 ");
    let refused = parse("f", spec(&format!("{ZONES}{twice}"))).unwrap_err();
    let found: Vec<String> = refused.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "f:1808:64: 100.64.0.9/32 of static rule \"s1799\" overlaps 100.64.0.9/32 of static rule \"s9\" on line 18; an address has one translation: write prefixes that lie apart"
        ]
    );
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "took {:?}",
        began.elapsed()
    );
}
