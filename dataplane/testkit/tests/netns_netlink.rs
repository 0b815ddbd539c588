//! The netlink client against the kernel and against `ip`.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::process::Command;
use std::time::{Duration, Instant};

use bulkhead_dataplane::netlink::ethtool::Offload;
use bulkhead_dataplane::netlink::{
    BLACKHOLE_PREFERENCE, Event, Family, LinkKind, Monitor, Neighbour, NeighbourState, Netlink, NextHop,
    Route, RouteKind, Table, VethSpec,
};
use bulkhead_testkit::{Attachment, HostSpec, Namespace, Topology, privileged};
use nix::sys::socket::{setsockopt, sockopt};

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Runs a command in a namespace and returns what it printed.
fn shell(namespace: &Namespace, command: &str) -> String {
    let output = namespace
        .run(|| Command::new("sh").args(["-c", command]).output())
        .expect("sh is there");
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// A namespace with a veth `a` (10.9.0.1/24, fd09::1/64) to `b`, both up.
fn cable(name: &str) -> (Namespace, Netlink, u32) {
    let namespace = Namespace::new(&format!("bhk-{name}")).expect("a namespace");
    let mut netlink = namespace.netlink().expect("netlink");
    let cable = VethSpec {
        name: "a",
        peer_name: "b",
        ..VethSpec::default()
    };
    let index = netlink.create_veth(&cable).expect("a veth");
    let peer = netlink.link_by_name("b").expect("the peer").index;
    netlink.set_up(index).expect("up");
    netlink.set_up(peer).expect("up");
    netlink
        .add_address(index, address("10.9.0.1"), 24)
        .expect("an address");
    netlink
        .add_address(index, address("fd09::1"), 64)
        .expect("an address");
    (namespace, netlink, index)
}

#[test]
fn netns_blackhole_rules_are_what_ip_rule_makes() {
    if !privileged() {
        return;
    }
    let (ours, mut netlink, _) = cable("rule");
    let (theirs, _other, _) = cable("rule");
    assert!(netlink.ensure_blackhole_rule("a").expect("a rule"), "added");
    assert!(
        !netlink.ensure_blackhole_rule("a").expect("a rule"),
        "already there"
    );
    assert!(
        netlink
            .ensure_blackhole_rule("later")
            .expect("a rule for an interface to come")
    );
    for family in ["-4", "-6"] {
        for interface in ["a", "later"] {
            shell(
                &theirs,
                &format!("ip {family} rule add pref 100 iif {interface} blackhole"),
            );
        }
        let show = format!("ip {family} -d rule show");
        assert_eq!(shell(&ours, &show), shell(&theirs, &show));
    }
    let rules = netlink.blackhole_rules().expect("rules");
    let expected = [
        (Family::V4, "a"),
        (Family::V4, "later"),
        (Family::V6, "a"),
        (Family::V6, "later"),
    ];
    let found: Vec<_> = rules
        .iter()
        .map(|rule| (rule.family, rule.interface.as_str()))
        .collect();
    assert_eq!(found, expected);
    assert!(rules.iter().all(|rule| rule.preference == BLACKHOLE_PREFERENCE));

    // One family's rule lost: the next check puts it back.
    shell(&ours, "ip -6 rule del pref 100 iif a");
    assert!(
        netlink.ensure_blackhole_rule("a").expect("a rule"),
        "one was missing"
    );
    // A rule that spares marked packets is no fail-closed rule, and does not count as one.
    shell(&ours, "ip rule add pref 100 iif c fwmark 1 blackhole");
    assert!(netlink.ensure_blackhole_rule("c").expect("a rule"));

    assert!(netlink.remove_blackhole_rule("a").expect("removed"));
    assert!(!netlink.remove_blackhole_rule("a").expect("nothing to remove"));
    let left = shell(&ours, "ip rule; ip -6 rule");
    assert!(!left.contains("iif a ") && left.contains("iif later"), "{left}");
}

fn route<'a>(routes: &'a [Route], prefix: &str) -> &'a Route {
    let (destination, length) = prefix.split_once('/').expect("a prefix");
    let key = (address(destination), length.parse().expect("a length"));
    let found = routes
        .iter()
        .find(|route| (route.destination, route.prefix_len) == key);
    found.unwrap_or_else(|| panic!("no route to {prefix} among {routes:#?}"))
}

fn hops(route: &Route) -> Vec<(u32, Option<String>, u16)> {
    let hop = |hop: &NextHop| {
        (
            hop.oif,
            hop.gateway.map(|gateway| gateway.to_string()),
            hop.weight,
        )
    };
    route.next_hops.iter().map(hop).collect()
}

#[test]
fn netns_routes_of_every_shape_are_read() {
    if !privileged() {
        return;
    }
    let (namespace, mut netlink, index) = cable("route");
    let via = |gateway: &str| Some(address(gateway));
    netlink
        .add_route(address("10.0.0.0"), 8, via("10.9.0.2"), None)
        .expect("a route");
    netlink
        .add_route(address("11.0.0.0"), 8, via("fd09::2"), Some(index))
        .expect("a route (RFC 5549)");
    netlink
        .add_route(address("::"), 0, via("fd09::2"), None)
        .expect("a route");
    netlink
        .add_route(address("192.0.2.0"), 24, None, Some(index))
        .expect("an on-link route");
    shell(
        &namespace,
        "ip route add 12.0.0.0/8 metric 7 src 10.9.0.1 nexthop via 10.9.0.3 weight 2 nexthop via 10.9.0.4
         ip -6 route add fd12::/32 nexthop via fd09::3 nexthop via fd09::4
         ip nexthop add id 5 via 10.9.0.5 dev a; ip route add 13.0.0.0/8 nhid 5
         ip route add blackhole 14.0.0.0/8; ip -6 route add prohibit fd14::/32; ip route add unreachable 15.0.0.0/8
         ip route add 16.0.0.0/8 via 10.9.0.2 table 1000; ip route add 17.0.0.0/8 tos 0x10 via 10.9.0.2",
    );
    let routes = netlink.routes().expect("routes");
    let one = |gateway: Option<&str>| vec![(index, gateway.map(str::to_owned), 1)];
    assert_eq!(hops(route(&routes, "10.0.0.0/8")), one(Some("10.9.0.2")));
    assert_eq!(hops(route(&routes, "11.0.0.0/8")), one(Some("fd09::2")));
    assert_eq!(hops(route(&routes, "::/0")), one(Some("fd09::2")));
    assert_eq!(hops(route(&routes, "192.0.2.0/24")), one(None));
    let multipath = route(&routes, "12.0.0.0/8");
    assert_eq!(
        (multipath.metric, multipath.prefer_source),
        (7, Some(address("10.9.0.1")))
    );
    assert_eq!(
        hops(multipath),
        [
            (index, Some("10.9.0.3".to_owned()), 2),
            (index, Some("10.9.0.4".to_owned()), 1)
        ]
    );
    assert_eq!(route(&routes, "fd12::/32").next_hops.len(), 2);
    assert_eq!(
        hops(route(&routes, "13.0.0.0/8")),
        one(Some("10.9.0.5")),
        "a nexthop object, spelt out"
    );
    assert_eq!(route(&routes, "14.0.0.0/8").kind, RouteKind::Blackhole);
    assert_eq!(route(&routes, "15.0.0.0/8").kind, RouteKind::Unreachable);
    assert_eq!(route(&routes, "fd14::/32").kind, RouteKind::Prohibit);
    for (own, kind) in [
        ("10.9.0.1/32", RouteKind::Local),
        ("10.9.0.255/32", RouteKind::Broadcast),
        ("fd09::1/128", RouteKind::Local),
        ("ff00::/8", RouteKind::Multicast),
    ] {
        assert_eq!(
            (route(&routes, own).table, route(&routes, own).kind),
            (Table::Local, kind),
            "{own}"
        );
    }
    let absent = |prefix: &str| routes.iter().all(|route| route.destination != address(prefix));
    assert!(
        absent("16.0.0.0") && absent("17.0.0.0"),
        "another table, another key"
    );

    netlink
        .delete_route(address("10.0.0.0"), 8, via("10.9.0.2"), None)
        .expect("deleted");
    let error = netlink
        .delete_route(address("10.0.0.0"), 8, via("10.9.0.2"), None)
        .expect_err("gone");
    assert!(error.is_not_found(), "{error}");
    let error = netlink
        .add_route(address("18.0.0.0"), 8, via("203.0.113.1"), None)
        .expect_err("no such gateway");
    let text = error.to_string();
    assert!(
        text.contains("add route 18.0.0.0/8 via 203.0.113.1") && text.contains("gateway"),
        "{text}"
    );
}

#[test]
fn netns_links_tell_what_the_hooks_depend_on() {
    if !privileged() {
        return;
    }
    let topology = Topology::builder("bhk-link")
        .host(HostSpec::new("one").queues(2).mtu(9000))
        .host(HostSpec::new("two").attachment(Attachment::Macvlan))
        .build()
        .expect("a topology");
    let mut netlink = topology.firewall().netlink().expect("netlink");
    let links = netlink.links().expect("links");
    let link = |name: &str| {
        links
            .iter()
            .find(|link| link.name == name)
            .unwrap_or_else(|| panic!("no {name}"))
    };
    assert_eq!(link("lo").kind, LinkKind::Loopback);
    let veth = link("net1");
    assert_eq!(
        (&veth.kind, veth.mtu, veth.rx_queues, veth.tx_queues),
        (&LinkKind::Veth, 9000, 2, 2)
    );
    assert!(veth.up && veth.running && veth.peer_index.is_some());
    assert!(veth.peer_netnsid.is_some(), "the peer is in the host's namespace");
    assert_eq!(link("net2").kind, LinkKind::Macvlan);
    assert_eq!(veth.mac, topology.host("one").firewall_mac);
    assert_eq!(
        netlink.link_by_index(veth.index).expect("an answer").as_ref(),
        Some(veth)
    );
    assert_eq!(netlink.link_by_index(9999).expect("an answer"), None);
    for absent in ["net9", "", "a-name-that-is-far-too-long"] {
        let error = netlink.link_by_name(absent).expect_err("no such interface");
        assert!(
            error.is_not_found() && error.to_string().contains(&format!("\"{absent}\"")),
            "{error}"
        );
    }

    let addresses = netlink.addresses().expect("addresses");
    for own in ["10.77.0.1", "fd77::1"] {
        let found = addresses
            .iter()
            .find(|candidate| candidate.address == address(own))
            .expect("an address");
        assert!(found.usable && found.index == veth.index, "{found:?}");
    }

    let ethtool = topology.firewall().ethtool().expect("ethtool");
    assert_eq!(ethtool.driver("net1").expect("a driver"), "veth");
    assert_eq!(ethtool.driver("net2").expect("a driver"), "macvlan");
    let channels = ethtool
        .channels("net1")
        .expect("an answer")
        .expect("veth has channels");
    assert_eq!((channels.receiving(), channels.transmitting()), (2, 2));
    assert_eq!(ethtool.channels("net2").expect("an answer"), None);
    for (offload, by_default) in [(Offload::Tso, true), (Offload::Tx, true), (Offload::Gro, false)] {
        assert_eq!(
            ethtool.offload("net1", offload).expect("an answer"),
            by_default,
            "{offload}"
        );
        ethtool
            .set_offload("net1", offload, !by_default)
            .expect("switched");
        assert_eq!(
            ethtool.offload("net1", offload).expect("an answer"),
            !by_default,
            "{offload}"
        );
    }
    assert!(
        ethtool
            .driver("net9")
            .expect_err("no such interface")
            .is_not_found()
    );
}

/// Takes events until one is wanted.
fn await_event(monitor: &mut Monitor, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
    let mut seen = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Some(event) = monitor
        .next(deadline.saturating_duration_since(Instant::now()))
        .expect("events")
    {
        if wanted(&event) {
            return event;
        }
        seen.push(event);
    }
    panic!("no event: {what}; these came: {seen:#?}");
}

#[test]
fn netns_monitor_sees_what_changes() {
    if !privileged() {
        return;
    }
    let (namespace, mut netlink, index) = cable("mon");
    let mut monitor = namespace.run(Monitor::connect).expect("a monitor");
    let nothing_yet = Instant::now();
    while monitor
        .next(Duration::from_millis(300))
        .expect("events")
        .is_some()
    {}
    assert!(
        nothing_yet.elapsed() >= Duration::from_millis(300),
        "waited for the timeout"
    );

    let mac = [2, 0, 0, 0, 0, 9];
    netlink
        .add_neighbour(index, address("10.9.0.9"), mac)
        .expect("a neighbour");
    let event = await_event(&mut monitor, "neighbour", |event| {
        matches!(event, Event::NeighbourChanged(_))
    });
    let Event::NeighbourChanged(neighbour) = event else {
        unreachable!("checked")
    };
    assert_eq!(
        (neighbour.address, neighbour.mac, neighbour.usable()),
        (address("10.9.0.9"), Some(mac), true)
    );
    assert_eq!(neighbour.state, NeighbourState::Permanent);
    netlink
        .delete_neighbour(index, address("10.9.0.9"))
        .expect("deleted");
    let gone = Event::NeighbourGone {
        index,
        address: address("10.9.0.9"),
    };
    await_event(&mut monitor, "neighbour gone", |event| *event == gone);

    for family in ["10.0.0.0", "fd10::"] {
        let gateway = if family.contains(':') {
            "fd09::2"
        } else {
            "10.9.0.2"
        };
        netlink
            .add_route(address(family), 32, Some(address(gateway)), None)
            .expect("a route");
        await_event(&mut monitor, family, |event| *event == Event::RoutesChanged);
    }
    netlink
        .add_address(index, address("10.9.0.77"), 24)
        .expect("an address");
    await_event(&mut monitor, "address", |event| *event == Event::AddressesChanged);
    netlink.ensure_blackhole_rule("a").expect("a rule");
    await_event(&mut monitor, "rule", |event| *event == Event::RulesChanged);

    netlink.set_mtu(index, 1400).expect("an mtu");
    await_event(
        &mut monitor,
        "mtu",
        |event| matches!(event, Event::LinkChanged(link) if link.mtu == 1400),
    );
    // A bridge port leaving its bridge is announced as a deletion, by the bridge. The interface stays.
    let bridge = netlink.create_bridge("br").expect("a bridge");
    netlink.set_master(index, Some(bridge)).expect("a port");
    netlink.set_master(index, None).expect("no port");
    netlink.delete_link(bridge).expect("deleted");
    let is_gone = |event: &Event| matches!(event, Event::LinkGone { .. });
    let event = await_event(&mut monitor, "bridge gone", is_gone);
    assert_eq!(
        event,
        Event::LinkGone {
            index: bridge,
            name: "br".into()
        },
        "not the port"
    );
    netlink.delete_link(index).expect("deleted");
    await_event(&mut monitor, "link gone", |event| {
        *event
            == Event::LinkGone {
                index,
                name: "a".into(),
            }
    });
}

#[test]
fn netns_monitor_admits_an_overrun() {
    if !privileged() {
        return;
    }
    let (namespace, mut netlink, index) = cable("over");
    let mut monitor = namespace.run(Monitor::connect).expect("a monitor");
    setsockopt(&monitor.as_fd(), sockopt::RcvBuf, &4096).expect("a small buffer");
    for host in 1..250 {
        netlink
            .add_neighbour(index, IpAddr::from([10, 9, 0, host]), [2, 0, 0, 0, 0, host])
            .expect("a neighbour");
    }
    await_event(&mut monitor, "overrun", |event| *event == Event::Overrun);
    // It goes on working.
    while monitor.next(Duration::ZERO).expect("events").is_some() {}
    netlink.set_mtu(index, 1300).expect("an mtu");
    await_event(
        &mut monitor,
        "mtu",
        |event| matches!(event, Event::LinkChanged(link) if link.mtu == 1300),
    );
}

/// Waits until a neighbour is as wanted, and returns it.
fn await_neighbour(
    netlink: &mut Netlink,
    index: u32,
    who: IpAddr,
    wanted: impl Fn(&Neighbour) -> bool,
) -> Neighbour {
    let deadline = Instant::now() + Duration::from_secs(8);
    loop {
        let neighbour = netlink.neighbour(index, who).expect("an answer");
        if let Some(neighbour) = neighbour.clone().filter(&wanted) {
            return neighbour;
        }
        assert!(Instant::now() < deadline, "{who} is {neighbour:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn netns_probing_resolves_the_unknown_and_confirms_the_stale() {
    if !privileged() {
        return;
    }
    let topology = Topology::builder("bhk-ntf")
        .host(HostSpec::new("h"))
        .build()
        .expect("a topology");
    let host = topology.host("h");
    let firewall = topology.firewall();
    let mut netlink = firewall.netlink().expect("netlink");
    for family in ["ipv4", "ipv6"] {
        let key = format!(
            "net/{family}/neigh/{}/delay_first_probe_time",
            host.firewall_interface
        );
        firewall.set_sysctl(&key, "1").expect("a shorter wait");
    }
    let index = host.firewall_index;
    for who in host.addresses() {
        assert_eq!(
            netlink.neighbour(index, who).expect("an answer"),
            None,
            "unknown so far"
        );
        netlink.probe_neighbour(index, who).expect("probed");
        let found = await_neighbour(&mut netlink, index, who, Neighbour::usable);
        assert_eq!(
            (found.mac, found.state),
            (Some(host.mac), NeighbourState::Reachable)
        );
        assert!(
            netlink
                .neighbours()
                .expect("neighbours")
                .iter()
                .any(|known| known.address == who)
        );

        let interface = &host.firewall_interface;
        shell(
            firewall,
            &format!("ip neigh change {who} dev {interface} nud stale"),
        );
        let stale = await_neighbour(&mut netlink, index, who, |known| {
            known.state == NeighbourState::Stale
        });
        assert!(stale.usable(), "stale is still good for sending");
        netlink.probe_neighbour(index, who).expect("probed");
        let used = netlink
            .neighbour(index, who)
            .expect("an answer")
            .expect("an entry");
        assert_ne!(used.state, NeighbourState::Stale, "in use from now on");
        await_neighbour(&mut netlink, index, who, |known| {
            known.state == NeighbourState::Reachable
        });
    }
    // Nobody there: the entry fails, and is never usable.
    let nobody = address("10.77.0.99");
    netlink.probe_neighbour(index, nobody).expect("probed");
    let failed = await_neighbour(&mut netlink, index, nobody, |known| {
        known.state == NeighbourState::Failed
    });
    assert!(!failed.usable());
}
