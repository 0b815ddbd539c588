//! Static routes: each fault with its exact place and sentence, and what good ones become.

mod common;

use bulkhead_config::{InterfaceId, parse};
use common::{Case, check, spec};

/// Two lines; what follows begins on line 7.
const NETWORKS: &str = "  interfaces: [{ name: net1, zone: a, addresses: [192.0.2.10/24, \"2001:db8:1::10/64\"] }, { name: net2, zone: b, addresses: [10.2.0.1/24] }]\n  zones: [{ name: a }, { name: b }]\n";

fn routes(name: &str, fields: &str, expected: &[&str]) -> Case {
    Case::spec(name, &format!("{NETWORKS}  routes:\n{fields}"), expected)
}

#[test]
fn routes_lead_through_a_router_on_one_interface() {
    check(&[
        routes(
            "sound",
            "    - { to: 0.0.0.0/0, via: 192.0.2.1 }\n    - { to: \"::/0\", via: \"fe80::1\", interface: net1 }\n    - { to: 198.51.100.7, via: 10.2.0.9 }\n",
            &[],
        ),
        routes(
            "networks",
            "    - { to: 10.0.0.0/33, via: 192.0.2.1 }\n    - { to: 10.0.0.1/8, via: 192.0.2.1 }\n    - { to: 10.0.0.1-10.0.0.9, via: 192.0.2.1 }\n    - { to: everywhere, via: 192.0.2.1 }\n    - { to: 10.0.0.0/8, via: 192.0.2.1 }\n    - { to: 10.0.0.0/8, via: 10.2.0.9 }\n",
            &[
                "8:13: \"33\" is not a prefix length of IPv4; it can be 0 to 32",
                "9:13: prefix 10.0.0.1/8 has host bits set; the network is 10.0.0.0/8; for the one address write 10.0.0.1",
                "10:13: a route leads to a network, and 10.0.0.1-10.0.0.9 is a range; write one route for each network in it",
                "11:13: \"everywhere\" is not an IP address; write the address itself; names are not looked up",
                "13:13: a route to 10.0.0.0/8 is already on line 12; a network has one; leave one of them out",
            ],
        ),
        routes(
            "routers",
            "    - { to: 10.0.0.0/8, via: gateway }\n    - { to: 10.1.0.0/16, via: 192.0.2.10 }\n    - { to: 10.2.0.0/16, via: 0.0.0.0, interface: net1 }\n    - { to: 10.3.0.0/16, via: \"2001:db8:1::1\" }\n    - { to: 10.4.0.0/16 }\n",
            &[
                "8:30: \"gateway\" is not an IP address; write the address itself; names are not looked up",
                "9:31: 192.0.2.10 is the firewall's own address, on interface \"net1\"; write the address of the router that it sends to",
                "10:31: 0.0.0.0 is no router's address; write the address that the router has on its link",
                "11:31: 2001:db8:1::1 is no router for 10.3.0.0/16; the router's address is of the same family as the network",
                "12:7: spec.routes[4] lacks the field \"via\"; add `via`",
            ],
        ),
        routes(
            "interfaces",
            "    - { to: 10.0.0.0/8, via: 172.16.0.1 }\n    - { to: \"::/0\", via: \"fe80::1\" }\n    - { to: 10.1.0.0/16, via: 192.0.2.1, interface: net3 }\n    - { to: 10.2.0.0/16, via: 192.0.2.1, metric: 5 }\n",
            &[
                "8:30: no interface has an address in a network of 172.16.0.1, going by `addresses`; name the one that it is on: `interface: net1`",
                "9:26: no interface has an address in a network of fe80::1, going by `addresses`; name the one that it is on: `interface: net1`",
                "10:53: the route names interface \"net3\", which does not exist; did you mean \"net1\"?",
                "11:42: unknown field \"metric\"; the fields here are to, via, interface",
            ],
        ),
        Case::spec(
            "two networks alike",
            "  interfaces: [{ name: net1, zone: a, addresses: [10.0.0.1/24] }, { name: net2, zone: a, addresses: [10.0.0.2/24] }]\n  zones: [{ name: a }]\n  routes: [{ to: 0.0.0.0/0, via: 10.0.0.9 }]\n",
            &[
                "7:34: several interfaces have an address in a network of 10.0.0.9, going by `addresses`; name the one that it is on: `interface: net1`",
            ],
        ),
        Case::spec(
            "wire",
            "  forwarding: wire\n  interfaces: [{ name: net1, zone: a }, { name: net2, zone: a }]\n  zones: [{ name: a }]\n  wires: [{ name: w, interfaces: [net1, net2] }]\n  routes: [{ to: 0.0.0.0/0, via: 10.0.0.9 }]\n",
            &[
                "9:3: there are routes, but forwarding is \"wire\"; leave them out: a wire has its other end and no routes",
            ],
        ),
    ]);
}

#[test]
fn the_interface_follows_from_its_addresses() {
    let parsed = parse(
        "f",
        spec(&format!(
            "{NETWORKS}  routes: [{{ to: 0.0.0.0/0, via: 10.2.0.9 }}, {{ to: 198.51.100.7, via: 203.0.113.1, interface: net1 }}]\n"
        )),
    )
    .unwrap_or_else(|refused| panic!("{refused}"));
    let routes: Vec<_> = parsed
        .config
        .routes
        .iter()
        .map(|route| {
            (
                route.to.to_string(),
                route.via.to_string(),
                route.interface,
                route.line,
            )
        })
        .collect();
    assert_eq!(
        routes,
        [
            ("0.0.0.0/0".to_owned(), "10.2.0.9".to_owned(), InterfaceId(1), 7),
            (
                "198.51.100.7/32".to_owned(),
                "203.0.113.1".to_owned(),
                InterfaceId(0),
                7
            ),
        ]
    );
}
