//! Every diagnostic, with its exact place and sentence. What a case lists is all there is: one diagnostic more or
//! less fails it.

mod common;

use bulkhead_config::{Severity, check_interfaces, parse};
use common::{Case, check, spec};

#[test]
fn text_that_is_not_a_document() {
    check(&[
        Case::raw(
            "empty",
            "",
            &[
                "1:1: the document is empty; begin with `apiVersion: bulkhead.dev/v1alpha1` and `kind: Firewall`",
            ],
        ),
        Case::raw(
            "only comments",
            "# nothing\n---\n",
            &[
                "1:1: the document is empty; begin with `apiVersion: bulkhead.dev/v1alpha1` and `kind: Firewall`",
            ],
        ),
        Case::raw(
            "a list",
            "- a\n",
            &[
                "1:1: the document must be a mapping of apiVersion, kind, metadata and spec; begin with `apiVersion: bulkhead.dev/v1alpha1` and `kind: Firewall`",
            ],
        ),
        Case::raw(
            "syntax",
            "kind: Firewall\nspec: {\n  zones: [}\n",
            &[
                "3:10: not valid YAML: mismatched bracket '[' closed by '}'; look at the indentation, quotes and brackets here and just above",
            ],
        ),
        Case::raw(
            "indentation",
            "kind: Firewall\nspec:\n  zones: []\n nat: {}\n",
            &["4:2: not valid YAML: "],
        ),
        Case::raw(
            "second document",
            &format!("{}---\nkind: Firewall\n", spec("  zones: []\n")),
            &["6:1: a second document begins here, only one is read; keep one firewall in one file"],
        ),
        Case::raw("unknown alias", "kind: *k\n", &["1:7: not valid YAML: "]),
        Case::raw(
            "tag",
            "kind: !secret Firewall\n",
            &["1:7: tag !secret has no meaning here; leave it out"],
        ),
        Case::raw(
            "complex key",
            "? [a, b]\n: c\n",
            &["1:3: a list or mapping cannot be a key; write `key: value` with a plain name as the key"],
        ),
    ]);
}

#[test]
fn another_kind_of_document() {
    check(&[
        Case::raw(
            "foreign",
            "apiVersion: apps/v1\nkind: Deployment\nspec:\n  replicas: 3\n",
            &[
                "1:13: apiVersion \"apps/v1\" is not supported; write `apiVersion: bulkhead.dev/v1alpha1`",
                "2:7: kind \"Deployment\" is not supported; write `kind: Firewall`",
            ],
        ),
        Case::raw(
            "version",
            "apiVersion: bulkhead.dev/v2\nkind: Firewall\nmetadata: { name: edge }\nspec:\n  zonse: []\n",
            &[
                "1:13: apiVersion \"bulkhead.dev/v2\" is not supported; write `apiVersion: bulkhead.dev/v1alpha1`",
                "5:3: unknown field \"zonse\"; did you mean \"zones\"?",
            ],
        ),
        Case::raw(
            "everything missing",
            "spec: {}\n",
            &[
                "1:1: the document lacks the field \"apiVersion\"; add `apiVersion: bulkhead.dev/v1alpha1`",
                "1:1: the document lacks the field \"kind\"; add `kind: Firewall`",
                "1:1: the document lacks the field \"metadata\"; add `metadata`",
            ],
        ),
        Case::raw(
            "no spec",
            "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: { name: -x }\n",
            &[
                "1:1: the document lacks the field \"spec\"; add `spec`",
                "3:19: \"-x\" cannot be the name of a firewall; a name has 1 to 63 letters, digits, `.`, `_` or `-` and begins with a letter or digit",
            ],
        ),
        Case::raw(
            "no name",
            "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: {}\nspec: {}\n",
            &["3:11: metadata lacks the field \"name\"; add `name`"],
        ),
        Case::raw(
            "every field mistyped",
            "apiVersio: bulkhead.dev/v1alpha1\nkinds: Firewall\nmetdata: { name: edge }\nspecs: {}\n",
            &[
                "1:1: unknown field \"apiVersio\"; did you mean \"apiVersion\"?",
                "2:1: unknown field \"kinds\"; did you mean \"kind\"?",
                "3:1: unknown field \"metdata\"; did you mean \"metadata\"?",
                "4:1: unknown field \"specs\"; did you mean \"spec\"?",
            ],
        ),
        Case::raw(
            "root field",
            "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: { name: edge }\nspecs: {}\nspec: {}\n",
            &["4:1: unknown field \"specs\"; did you mean \"spec\"?"],
        ),
    ]);
}

#[test]
fn shape() {
    check(&[
        Case::spec(
            "unknown field",
            "  zones:\n    - { name: web, hostInbond: [ping] }\n",
            &["6:20: unknown field \"hostInbond\"; did you mean \"hostInbound\"?"],
        ),
        Case::spec(
            "unknown field, nothing near",
            "  colour: red\n",
            &[
                "5:3: unknown field \"colour\"; the fields here are forwarding, wires, hook, interfaces, routes, zones, screens, addresses, services, policies, nat, tcp, size, sessions, algs",
            ],
        ),
        Case::spec(
            "merge key",
            "  zones:\n    - &z { name: web }\n    - { <<: *z, name: app }\n",
            &["7:9: unknown field \"<<\"; merge keys are not part of YAML 1.2: write the fields out"],
        ),
        Case::spec(
            "duplicate key",
            "  zones:\n    - name: web\n      name: app\n",
            &[
                "6:13: warning: zone \"web\" has no interface, so nothing enters or leaves it; put an interface into it with `zone: web`",
                "7:7: key \"name\" is written twice, first on line 6; keep one of them",
            ],
        ),
        Case::spec(
            "number for text",
            "  zones:\n    - name: 10\n",
            &["6:13: name must be text, not the number 10; write \"10\" in quotes"],
        ),
        Case::spec(
            "boolean for text",
            "  zones:\n    - name: true\n",
            &["6:13: name must be text, not the boolean true; write \"true\" in quotes"],
        ),
        Case::spec(
            "nothing for text",
            "  zones:\n    - name:\n",
            &["6:7: name must be text, not nothing; give name a value"],
        ),
        Case::spec(
            "text for a list",
            "  zones: web\n",
            &[
                "5:10: zones must be a list, not the text \"web\"; write `[a, b]`, or one line with `- ` for each entry",
            ],
        ),
        Case::spec(
            "text for a mapping",
            "  zones: [web]\n",
            &[
                "5:11: an entry of zones must be a mapping with a name, not the text \"web\"; write `{ field: value }`, or one line `field: value` for each",
            ],
        ),
        Case::spec(
            "list for a mapping",
            "  sessions: [1000, 100]\n",
            &[
                "5:13: sessions must be a mapping, not a list; write `{ field: value }`, or one line `field: value` for each",
            ],
        ),
        Case::spec(
            "mapping for one or many",
            "  policies:\n    - { name: p, from: { zone: web }, to: any, action: deny }\n",
            &[
                "6:24: from must be a single value or a list, not a mapping; write `[a, b]`, or one line with `- ` for each entry",
            ],
        ),
        Case::spec(
            "text for a number",
            "  sessions: { max: many }\n",
            &[
                "5:20: max must be a whole number from 0 to 4294967295, not the text \"many\"; write only the digits, without unit or quotes",
            ],
        ),
        Case::spec(
            "negative number",
            "  sessions: { max: -1 }\n",
            &[
                "5:20: max must be a whole number from 0 to 4294967295, not the number -1; write only the digits, without unit or quotes",
            ],
        ),
        Case::spec(
            "missing field",
            "  policies:\n    - { name: p, from: any, to: any }\n",
            &["6:7: spec.policies[0] lacks the field \"action\"; add `action`"],
        ),
        Case::spec(
            "variant",
            "  policies:\n    - { name: p, from: any, to: any, action: permitt }\n",
            &["6:46: \"permitt\" is not a value of action; did you mean \"permit\"?"],
        ),
        Case::spec(
            "variant, nothing near",
            "  hook: netfilter\n",
            &["5:9: \"netfilter\" is not a value of hook; it can be auto, tcx, xdp"],
        ),
        Case::spec(
            "list for a variant",
            "  hook: [xdp]\n",
            &["5:9: hook must be one of auto, tcx, xdp, not a list; write a single value"],
        ),
        Case::spec(
            "log event",
            "  policies:\n    - { name: p, from: any, to: any, action: deny, log: [deny, closed] }\n",
            &["6:64: \"closed\" is not a value of log; did you mean \"close\"?"],
        ),
        Case::spec(
            "many at once",
            "  zones:\n    - { name: web, colour: red, size: 5 }\n    - { name: [app] }\n    - 7\n  policies:\n    - { nme: p, from: nowhere, to: any, action: deny, log: {} }\n",
            &[
                "6:20: unknown field \"colour\"; the fields here are name, hostInbound, screen",
                "6:33: unknown field \"size\"; the fields here are name, hostInbound, screen",
                "7:15: name must be text, not a list; write a single value",
                "8:7: an entry of zones must be a mapping with a name, not the number 7; write `{ field: value }`, or one line `field: value` for each",
                "10:9: unknown field \"nme\"; did you mean \"name\"?",
                "10:60: log must be a single value or a list, not a mapping; write `[a, b]`, or one line with `- ` for each entry",
            ],
        ),
    ]);
}

#[test]
fn a_faulty_neighbour_does_not_hide_or_shift_a_fault_of_meaning() {
    let text = spec(
        "  zones: [{ name: web }, { name: app }]\n  interfaces:\n    - 5\n    - { name: net1, zone: wbe }\n  addresses:\n    - { name: a, members: [1, 10.0.0.300] }\n",
    );
    let refused = parse("f", &text).unwrap_err();
    let found: Vec<_> = refused
        .iter()
        .map(|found| (found.line, found.column, found.path.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (7, 7, "spec.interfaces[0]"),
            (8, 27, "spec.interfaces[1].zone"),
            (10, 28, "spec.addresses[0].members[0]"),
            (10, 31, "spec.addresses[0].members[1]"),
        ],
        "{refused}"
    );
}

#[test]
fn names() {
    let rule = "a name has 1 to 63 letters, digits, `.`, `_` or `-` and begins with a letter or digit";
    let long = "x".repeat(64);
    check(&[
        Case::spec(
            "bad names",
            &format!(
                "  services:\n    - {{ name: \"\", tcp: 1 }}\n    - {{ name: _a, tcp: 1 }}\n    - {{ name: a b, tcp: 1 }}\n    - {{ name: {long}, tcp: 1 }}\n    - {{ name: ä, tcp: 1 }}\n"
            ),
            &[
                &format!("6:15: \"\" cannot be the name of a service; {rule}"),
                &format!("7:15: \"_a\" cannot be the name of a service; {rule}"),
                &format!("8:15: \"a b\" cannot be the name of a service; {rule}"),
                &format!("9:15: \"{long}\" cannot be the name of a service; {rule}"),
                &format!("10:15: \"ä\" cannot be the name of a service; {rule}"),
            ],
        ),
        Case::spec(
            "reserved",
            "  addresses: [{ name: any, members: [] }, { name: self, members: [] }]\n  services: [{ name: all, tcp: 1 }]\n",
            &[
                "5:23: \"any\" is reserved and cannot be the name of an address group; choose another name",
                "5:51: \"self\" is reserved and cannot be the name of an address group; choose another name",
                "6:22: \"all\" is reserved and cannot be the name of a service; choose another name",
            ],
        ),
        Case::spec(
            "group like an address",
            "  addresses:\n    - { name: 10.4.0.1, members: [10.4.0.1] }\n",
            &[
                "6:15: address group \"10.4.0.1\" reads like an address; choose a name that cannot be mistaken",
            ],
        ),
        Case::spec(
            "long interface",
            "  zones: [{ name: web }]\n  interfaces: [{ name: abcdefghijklmnop, zone: web }]\n",
            &["6:24: interface name \"abcdefghijklmnop\" has 16 characters; the kernel allows at most 15"],
        ),
        Case::spec(
            "duplicates",
            "  interfaces:\n    - { name: net1, zone: web }\n    - { name: net1, zone: web }\n  zones:\n    - { name: web }\n    - { name: web }\n  addresses:\n    - { name: a, members: [] }\n    - { name: a, members: [] }\n  services:\n    - { name: s, tcp: 1 }\n    - { name: s, tcp: 2 }\n  policies:\n    - { name: p, from: web, to: any, action: deny }\n    - { name: p, from: any, to: web, action: deny }\n  nat:\n    source:\n      - { name: n, from: any, to: web, translate: off }\n      - { name: n, from: web, to: web, translate: off }\n",
            &[
                "7:15: interface \"net1\" is already defined on line 6; give one of them another name",
                "10:15: zone \"web\" is already defined on line 9; give one of them another name",
                "13:15: address group \"a\" is already defined on line 12; give one of them another name",
                "16:15: service \"s\" is already defined on line 15; give one of them another name",
                "19:15: policy \"p\" is already defined on line 18; give one of them another name",
                "23:17: source rule \"n\" is already defined on line 22; give one of them another name",
            ],
        ),
    ]);
}

#[test]
fn interfaces_and_zones() {
    let interfaces = |count: usize| -> String {
        (1..=count)
            .map(|number| format!("    - {{ name: net{number}, zone: web }}\n"))
            .collect()
    };
    let sixteen = format!("  zones: [{{ name: web }}]\n  interfaces:\n{}", interfaces(16));
    let seventeen = format!("  zones: [{{ name: web }}]\n  interfaces:\n{}", interfaces(17));
    let fifteen = format!("  zones: [{{ name: web }}]\n  interfaces:\n{}", interfaces(15));
    check(&[
        Case::spec("fifteen are fine", &fifteen, &[]),
        Case::spec(
            "a sixteenth",
            &sixteen,
            &[
                "22:15: interface \"net16\" is one too many: 16 are listed; one firewall guards at most 15 data interfaces",
            ],
        ),
        Case::spec(
            "a seventeenth",
            &seventeen,
            &[
                "22:15: interface \"net16\" is one too many: 17 are listed; one firewall guards at most 15 data interfaces",
            ],
        ),
        Case::spec(
            "missing zone",
            "  zones: [{ name: web }]\n  interfaces:\n    - { name: net1, zone: wbe }\n",
            &["7:27: interface \"net1\" names zone \"wbe\", which does not exist; did you mean \"web\"?"],
        ),
        Case::spec(
            "missing zone, nothing near",
            "  zones: [{ name: web }, { name: data }]\n  interfaces:\n    - { name: net1, zone: internet }\n",
            &[
                "7:27: interface \"net1\" names zone \"internet\", which does not exist; the zones are web, data",
            ],
        ),
        Case::spec(
            "no zones",
            "  interfaces:\n    - { name: net1, zone: web }\n",
            &["6:27: interface \"net1\" names zone \"web\", which does not exist; there are no zones yet"],
        ),
        Case::spec(
            "zone without interface",
            "  zones:\n    - { name: web }\n    - { name: app }\n  interfaces: [{ name: net1, zone: web }]\n",
            &[
                "7:15: warning: zone \"app\" has no interface, so nothing enters or leaves it; put an interface into it with `zone: app`",
            ],
        ),
        Case::spec(
            "addresses",
            "  zones: [{ name: web }]\n  interfaces:\n    - name: net1\n      zone: web\n      addresses: [10.2.0.1, 10.2.0.0/24, 10.2.0.1/33, \"fd00::1/64\", 10.2.0.1/24]\n    - { name: net2, zone: web, addresses: [10.2.0.1/25, 10.9.0.0/31] }\n",
            &[
                "9:19: 10.2.0.1 has no prefix length; write 10.2.0.1/24 with the length of its network",
                "9:29: 10.2.0.0/24 is the network, not an address in it; write the address the firewall itself is to have in it",
                "9:42: \"33\" is not a prefix length of IPv4; it can be 0 to 32",
                "10:44: address 10.2.0.1 is already on interface \"net1\"; give each interface its own",
            ],
        ),
        Case::spec(
            "hostInbound",
            "  interfaces: [{ name: net1, zone: web }]\n  zones:\n    - { name: web, hostInbound: [ping, shh, any, all] }\n",
            &[
                "7:40: zone \"web\" names service \"shh\", which does not exist; did you mean \"ssh\"?",
                "7:45: zone \"web\" names service \"any\", which does not exist; write `all`",
            ],
        ),
    ]);
}

#[test]
fn addresses() {
    check(&[
        Case::spec(
            "members",
            "  addresses:\n    - name: a\n      members:\n        - 10.4.0.300\n        - 10.4.0.0/33\n        - 2001:db8::/129\n        - 10.4.0.1/24\n        - 2001:db8::1/64\n        - 10.0.0.9-10.0.0.1\n        - 10.0.0.1-2001:db8::1\n        - www.example.org\n        - ::ffff:10.0.0.1\n        - 10.0.0.0/x\n        - \"\"\n        - 10.0.0.0/24\n",
            &[
                "8:11: \"10.4.0.300\" is not an IP address; write an address such as 10.4.1.7 or 2001:db8::7",
                "9:11: \"33\" is not a prefix length of IPv4; it can be 0 to 32",
                "10:11: \"129\" is not a prefix length of IPv6; it can be 0 to 128",
                "11:11: prefix 10.4.0.1/24 has host bits set; the network is 10.4.0.0/24; for the one address write 10.4.0.1",
                "12:11: prefix 2001:db8::1/64 has host bits set; the network is 2001:db8::/64; for the one address write 2001:db8::1",
                "13:11: range 10.0.0.9-10.0.0.1 runs backwards; write 10.0.0.1-10.0.0.9",
                "14:11: range 10.0.0.1-2001:db8::1 mixes IPv4 and IPv6; write one range for each family",
                "15:11: address group \"a\" names address group \"www.example.org\", which does not exist; names of hosts go under `dns`",
                "16:11: ::ffff:10.0.0.1 is an IPv4 address in IPv6 clothes, which no packet carries; write 10.0.0.1",
                "17:11: \"x\" is not a prefix length of IPv4; it can be 0 to 32",
                "18:11: \"\" is not an IP address; write the address itself; names are not looked up",
            ],
        ),
        Case::spec(
            "no members",
            "  addresses:\n    - { name: a }\n",
            &[
                "6:7: address group \"a\" has no members; write `members: [10.4.0.0/24]`, or `members: []` if it is to be empty",
            ],
        ),
        Case::spec(
            "members without a value",
            "  addresses:\n    - name: a\n      members:\n",
            &[
                "7:7: address group \"a\" has no members; write `members: [10.4.0.0/24]`, or `members: []` if it is to be empty",
            ],
        ),
    ]);
}

#[test]
fn services() {
    check(&[
        Case::spec(
            "ports",
            "  services:\n    - name: s\n      tcp: [0, 65536, 70000-70001, 9-1, https, x, -5]\n      udp: 0-5\n",
            &[
                "7:13: port 0 is not a port; ports are 1 to 65535",
                "7:16: port 65536 is not a port; ports are 1 to 65535",
                "7:23: port 70000 is not a port; ports are 1 to 65535",
                "7:36: port range 9-1 runs backwards; write 1-9",
                "7:41: \"https\" is a service, not a port; name `https` in a policy, or write the number",
                "7:48: \"x\" is not a port or a port range; write 443 or 1024-65535",
                "7:51: port -5 is not a port; ports are 1 to 65535",
                "8:12: port 0 is not a port; ports are 1 to 65535",
            ],
        ),
        Case::spec(
            "icmp and protocols",
            "  services:\n    - { name: s, icmp: [echo-requst, 256, 3/x], icmpv6: packet-too-bi, protocols: [grr, 300] }\n",
            &[
                "6:25: \"echo-requst\" is not an ICMP type; did you mean \"echo-request\"?",
                "6:38: \"256\" is not an ICMP type; it can be 0 to 255",
                "6:43: \"x\" is not an ICMP code; it can be 0 to 255",
                "6:57: \"packet-too-bi\" is not an ICMPv6 type; did you mean \"packet-too-big\"?",
                "6:84: \"grr\" is not an IP protocol; did you mean \"gre\"?",
                "6:89: \"300\" is not an IP protocol; it can be 0 to 255",
            ],
        ),
        Case::spec(
            "nothing",
            "  services: [{ name: s }, { name: t, tcp: [] }]\n",
            &[
                "5:22: service \"s\" matches nothing; give it tcp, udp, icmp, icmpv6 or protocols",
                "5:43: the list is empty; leave the field out",
            ],
        ),
    ]);
}

#[test]
fn policies_and_nat() {
    const ZONES: &str = "  interfaces: [{ name: net1, zone: web }, { name: net2, zone: app }]\n  zones: [{ name: web }, { name: app }]\n";
    check(&[
        Case::spec(
            "missing names",
            &format!(
                "{ZONES}  addresses: [{{ name: payments, members: [] }}]\n  policies:\n    - {{ name: web-to-app, from: wbe, to: [app, data], source: 10.0.0.300, destination: [payments, paymnts], service: [https, htpt], action: permit }}\n"
            ),
            &[
                "9:33: policy \"web-to-app\" names zone \"wbe\", which does not exist; did you mean \"web\"?",
                "9:48: policy \"web-to-app\" names zone \"data\", which does not exist; the zones are web, app",
                "9:63: \"10.0.0.300\" is not an IP address; write an address such as 10.4.1.7 or 2001:db8::7",
                "9:99: policy \"web-to-app\" names address group \"paymnts\", which does not exist; did you mean \"payments\"?",
                "9:126: policy \"web-to-app\" names service \"htpt\", which does not exist; did you mean \"http\"?",
            ],
        ),
        Case::spec(
            "nothing near",
            &format!(
                "{ZONES}  policies:\n    - {{ name: p, from: any, to: self, source: finance, service: mail, action: deny }}\n"
            ),
            &[
                "8:33: policy \"p\" names zone \"self\", which does not exist; what a zone may reach of the firewall itself is its hostInbound",
                "8:47: policy \"p\" names address group \"finance\", which does not exist; define it under spec.addresses, or write an address",
                "8:65: policy \"p\" names service \"mail\", which does not exist; define it under spec.services, or use all, bgp, dhcp, dns, http, https, ntp, ospf, ping, snmp, ssh, vrrp",
            ],
        ),
        Case::spec(
            "literals",
            &format!(
                "{ZONES}  policies:\n    - {{ name: p, from: any, to: any, source: [10.1.0.1/24, 10.0.0.2-10.0.0.1], action: deny }}\n"
            ),
            &[
                "8:47: prefix 10.1.0.1/24 has host bits set; the network is 10.1.0.0/24; for the one address write 10.1.0.1",
                "8:60: range 10.0.0.2-10.0.0.1 runs backwards; write 10.0.0.1-10.0.0.2",
            ],
        ),
        Case::spec(
            "empty",
            &format!(
                "{ZONES}  policies:\n    - {{ name: p, from: [], to: any, source: [], action: permit }}\n    - name: q\n      from: web\n      to: app\n      destination:\n      action: permit\n"
            ),
            &[
                "8:18: from of policy \"p\" is empty; write `from: any` if everything is meant",
                "8:37: source of policy \"p\" is empty; write `source: any` if everything is meant",
                "12:7: destination of policy \"q\" is empty; write `destination: any` if everything is meant",
            ],
        ),
        Case::spec(
            "any beside others",
            &format!(
                "{ZONES}  policies:\n    - {{ name: p, from: [web, any], to: app, service: [all, ssh], action: permit }}\n"
            ),
            &[
                "8:30: `any` stands beside other names in from of policy \"p\"; write `from: any` alone",
                "8:55: `all` stands beside other names in service of policy \"p\"; write `service: all` alone",
            ],
        ),
        Case::spec(
            "never matches",
            &format!(
                "{ZONES}  addresses: [{{ name: a, members: [] }}, {{ name: b, members: [] }}]\n  policies:\n    - {{ name: p, from: [web, app], to: any, source: [a, b], action: permit }}\n    - {{ name: q, from: [web], to: any, source: [a, b], action: permit }}\n    - {{ name: r, from: [app, web], to: any, source: [b, a], action: deny }}\n"
            ),
            &[
                "11:15: warning: policy \"r\" can never match: policy \"p\" on line 9 matches the same before it; remove one of them",
            ],
        ),
        Case::spec(
            "nat",
            &format!(
                "{ZONES}  nat:\n    source:\n      - {{ name: out, from: [app, wbe], to: internet, translate: interface }}\n      - {{ name: in, from: app, to: web, translate: pool }}\n"
            ),
            &[
                "9:34: source rule \"out\" names zone \"wbe\", which does not exist; did you mean \"web\"?",
                "9:44: source rule \"out\" names zone \"internet\", which does not exist; the zones are web, app",
                "10:52: source rule \"in\" translates to a pool but names none; define a pool under spec.nat.pools and name it with `pool`",
            ],
        ),
    ]);
}

#[test]
fn sessions() {
    check(&[
        Case::spec(
            "limits",
            "  sessions: { max: 0, halfOpen: 5 }\n",
            &["5:20: max cannot be 0; it can be 1 to 67108864"],
        ),
        Case::spec(
            "too many",
            "  sessions: { max: 100000000 }\n",
            &["5:20: max cannot be 100000000; it can be 1 to 67108864"],
        ),
        Case::spec(
            "timeouts",
            "  sessions:\n    timeouts: { tcpOpening: 240, tcpClosed: 5x, udpOneWay: 500ms, icmp: 8d, othr: 5s }\n",
            &[
                "6:29: duration 240 has no unit; write 240s for seconds",
                "6:45: \"5x\" is not a duration; write a number and a unit: 90s, 5m, 2h",
                "6:60: udpOneWay cannot be 500ms; it can be 1s to 7d",
                "6:73: icmp cannot be 8d; it can be 1s to 7d",
                "6:77: unknown field \"othr\"; did you mean \"other\"?",
            ],
        ),
    ]);
}

#[test]
fn hostile_text_is_refused_in_bounded_time() {
    let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x,x]\n");
    for level in b'b'..=b'k' {
        let (name, before) = (level as char, (level - 1) as char);
        let references = vec![format!("*{before}"); 10].join(",");
        bomb.push_str(&format!("{name}: &{name} [{references}]\n"));
    }
    let deep = format!("spec: {}{}\n", "[".repeat(100_000), "]".repeat(100_000));
    let deep_blocks: String = (0..200)
        .map(|level| format!("{}a:\n", " ".repeat(level)))
        .collect();
    let wide = format!("a: [{}]\n", "1,".repeat(8_100_000));
    let started = std::time::Instant::now();
    for (text, expected) in [
        (bomb, "unfold to more than 1000000 values"),
        (deep, "not valid YAML"),
        (deep_blocks, "nested more than 32 levels deep"),
        (wide, "more than 8000000 values"),
        ("a: &a [*a]\n".to_owned(), "stands inside the value it names"),
        (
            " ".repeat((64 << 20) + 1),
            "67108865 bytes, more than the 67108864 allowed",
        ),
    ] {
        let refused = parse("f", text).unwrap_err();
        assert!(refused.to_string().contains(expected), "{refused}");
        assert_eq!(refused.len(), 1, "{refused}");
    }
    assert!(started.elapsed().as_secs() < 60, "took {:?}", started.elapsed());
}

#[test]
fn text_that_is_not_utf_8_has_a_place() {
    let refused = parse("f", b"kind: Firewall\nmeta: \xc3\xa4\xff\n").unwrap_err();
    assert_eq!(
        refused.to_string(),
        "f:2:8: byte 0xff is not UTF-8; save the file as UTF-8"
    );
}

#[test]
fn an_interface_that_the_machine_does_not_have() {
    let text = spec(
        "  zones: [{ name: web }]\n  interfaces:\n    - { name: net1, zone: web }\n    - { name: eth7, zone: web }\n",
    );
    let config = parse("firewall.yaml", &text).unwrap().config;
    let present = ["lo", "net2", "eth0", "net1"].map(str::to_owned);
    let found = check_interfaces(&config, &present);
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].to_string(),
        "firewall.yaml:8:15: interface \"eth7\" does not exist on this machine; did you mean \"eth0\"?"
    );
    assert_eq!(
        (found[0].path.as_str(), found[0].severity),
        ("spec.interfaces[1].name", Severity::Error)
    );
    assert!(check_interfaces(&config, &["net1", "eth7"].map(str::to_owned)).is_empty());
}

#[test]
fn renders_with_the_line_and_a_caret() {
    let text = spec("  zones: [{ name: web }]\n  interfaces:\n    - { name: net1, zone: wbe }\n");
    assert_eq!(
        parse("firewall.yaml", &text).unwrap_err().render(&text),
        "error: interface \"net1\" names zone \"wbe\", which does not exist\n \
         --> firewall.yaml:7:27\n  |\n7 |     - { name: net1, zone: wbe }\n  |                           ^ did you mean \"web\"?"
    );
    let long = spec(&format!(
        "  zones: [{}{{ name: app, x: 1 }}]\n",
        "{ name: web }, ".repeat(40)
    ));
    let rendered = parse("f", &long)
        .unwrap_err()
        .iter()
        .next_back()
        .unwrap()
        .render(&long);
    let lines: Vec<&str> = rendered.lines().collect();
    let caret = lines[4].find('^').unwrap();
    assert_eq!(lines[3].chars().nth(caret), Some('x'), "{rendered}");
    assert!(lines[3].chars().count() < 110, "{rendered}");
}

#[test]
fn a_value_cannot_disturb_the_terminal() {
    let text = spec(&format!("  hook: \"\\e[2J\\n{}\"\n", "x".repeat(5000)));
    let refused = parse("f", &text).unwrap_err().to_string();
    assert!(refused.starts_with("f:5:9: \"\\u{1b}[2J\\nxxx"), "{refused}");
    assert!(
        !refused.contains(char::is_control) && refused.chars().count() < 500,
        "{refused}"
    );
    let shown = parse("f", text.replace("\\e", "\u{9b}"))
        .unwrap_err()
        .render(&text.replace("\\e", "\u{9b}"));
    assert!(
        shown
            .chars()
            .all(|character| character == '\n' || !character.is_control()),
        "{shown}"
    );
}
