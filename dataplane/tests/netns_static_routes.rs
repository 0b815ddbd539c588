//! Static routes: a firewall whose own way out is not its traffic's, as a pod's is.
//!
//! The firewall has an interface that is not guarded, with the default route. Visitors live behind a router on net1, on no network of the
//! firewall's. What they are answered leaves by net1 only if the configuration has a route there.

#[expect(dead_code, reason = "these tests have a topology of their own")]
mod common;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bulkhead_abi::Reason;
use bulkhead_dataplane::{
    engine::Explain,
    netlink::Route,
    ruleset::{HookMode, Ruleset, StaticRoute},
};
use bulkhead_testkit::{HostSpec, Topology, UdpServer, deadline, patience, privileged};

/// A visitor's addresses, of no network that the firewall knows.
const VISITOR: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 7)),
];

const fn anywhere(family: IpAddr) -> (IpAddr, u8) {
    match family {
        IpAddr::V4(_) => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        IpAddr::V6(_) => (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    }
}

/// With an interface `eth0` of the firewall's own, through which its default routes lead.
fn pod() -> Result<Topology> {
    let visited = VISITOR
        .into_iter()
        .fold(HostSpec::new("inside"), |host, address| {
            host.further_address(address, if address.is_ipv4() { 32 } else { 128 })
        });
    // It is in no zone: the firewall's own, as a pod's `eth0` is.
    let cluster = HostSpec::new("cluster").firewall_interface("eth0").internet();
    Topology::builder("bht-")
        .host(visited.host_gro())
        .host(HostSpec::new("outside").host_gro())
        .host(cluster)
        .build()
}

fn rules(hook: HookMode, routes: Vec<StaticRoute>) -> Ruleset {
    let mut rules = common::ruleset(hook, false);
    rules.interfaces[0].routes = routes;
    rules
}

/// Everything through the visitor's router.
fn through(lab: &Topology) -> Vec<StaticRoute> {
    let inside = lab.host("inside");
    [IpAddr::V4(inside.v4), IpAddr::V6(inside.v6)]
        .into_iter()
        .map(|via| StaticRoute {
            to: anywhere(via),
            via,
        })
        .collect()
}

/// Whether the visitor is answered, in both families; they agree.
fn answered(lab: &Topology) -> Result<bool> {
    let outside = lab.host("outside");
    let ports = [outside.v4_port(53), outside.v6_port(53)];
    let mut seen = Vec::new();
    for (port, visitor) in ports.into_iter().zip(VISITOR) {
        let client = lab
            .host("inside")
            .client()
            .timeout(patience(Duration::from_millis(500)));
        let outcome = client
            .source(SocketAddr::new(visitor, 0))
            .dns_query(port, "example.test")?;
        seen.push(outcome.answered().is_ok());
    }
    ensure!(seen[0] == seen[1], "IPv4 {}, IPv6 {}", seen[0], seen[1]);
    Ok(seen[0])
}

fn question(source: IpAddr, destination: IpAddr) -> Explain {
    Explain {
        ingress: "inside".into(),
        source,
        destination,
        protocol: 17,
        source_port: 40_000,
        destination_port: 53,
        icmp: None,
    }
}

fn own_routes(lab: &Topology) -> Result<Vec<Route>> {
    let mut routes = lab.firewall().netlink()?.routes()?;
    routes.retain(|route| route.own);
    Ok(routes)
}

fn visitors_are_answered(hook: HookMode) -> Result<()> {
    let lab = pod()?;
    let outside = lab.host("outside");
    let _servers = [
        UdpServer::start(&outside.namespace, outside.v4_port(53))?,
        UdpServer::start(&outside.namespace, outside.v6_port(53))?,
    ];
    let engine = common::start(&lab, rules(hook, Vec::new()));
    lab.resolve_neighbours()?;
    ensure!(!answered(&lab)?, "the answers left by eth0's router");
    for (visitor, server) in VISITOR
        .into_iter()
        .zip([IpAddr::V4(outside.v4), IpAddr::V6(outside.v6)])
    {
        let explained = engine.explain(&question(visitor, server))?;
        ensure!(
            (explained.verdict, explained.answer_dropped) == ("permit", Some(Reason::EgressNotGuarded)),
            "{explained:#?}"
        );
    }
    let lost = engine.counters()?["egress_not_guarded"];
    ensure!(lost >= 2, "{:#?}", engine.nonzero_counters());

    lab.firewall().run(|| engine.commit(rules(hook, through(&lab))))?;
    ensure!(answered(&lab)?, "{:#?}", engine.nonzero_counters());
    for (visitor, server) in VISITOR
        .into_iter()
        .zip([IpAddr::V4(outside.v4), IpAddr::V6(outside.v6)])
    {
        let explained = engine.explain(&question(visitor, server))?;
        ensure!(
            (explained.verdict, explained.answer_dropped) == ("permit", None),
            "{explained:#?}"
        );
    }
    let routes = own_routes(&lab)?;
    ensure!(routes.len() == 2, "{routes:#?}");
    // What the firewall sends itself goes as before.
    let eth0 = lab.firewall().netlink()?.link_by_name("eth0")?.index;
    let all = lab.firewall().netlink()?.routes()?;
    for family in VISITOR {
        let best = all
            .iter()
            .filter(|route| (route.destination, route.prefix_len) == anywhere(family))
            .min_by_key(|route| route.metric)
            .context("a default route")?;
        ensure!(!best.own && best.next_hops[0].oif == eth0, "{best:#?}");
    }

    // Without them again: gone from the kernel, and from what packets go by.
    lab.firewall().run(|| engine.commit(rules(hook, Vec::new())))?;
    ensure!(own_routes(&lab)?.is_empty());
    ensure!(!answered(&lab)?, "the route is gone");
    Ok(())
}

#[test]
fn netns_static_routes_lead_answers_where_no_route_of_the_pod_does_tcx() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    visitors_are_answered(HookMode::Tcx)
}

#[test]
fn netns_static_routes_lead_answers_where_no_route_of_the_pod_does_xdp() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    visitors_are_answered(HookMode::Xdp)
}

#[test]
fn netns_static_routes_are_set_again_and_those_of_others_stay() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = pod()?;
    let before: Vec<Route> = lab.firewall().netlink()?.routes()?;
    let engine = common::start(&lab, rules(HookMode::Auto, through(&lab)));
    lab.resolve_neighbours()?;
    let outside = lab.host("outside");
    let _servers = [
        UdpServer::start(&outside.namespace, outside.v4_port(53))?,
        UdpServer::start(&outside.namespace, outside.v6_port(53))?,
    ];
    ensure!(answered(&lab)?);
    let mut netlink = lab.firewall().netlink()?;
    // Taken away by hand, and by the kernel with a link that goes down.
    for (to, bits) in VISITOR.map(anywhere) {
        netlink.delete_own_route(to, bits)?;
    }
    until("the routes are set again", || Ok(own_routes(&lab)?.len() == 2))?;
    ensure!(answered(&lab)?);
    let net1 = netlink.link_by_name("net1")?.index;
    netlink.set_down(net1)?;
    until("the kernel took them away", || Ok(own_routes(&lab)?.is_empty()))?;
    netlink.set_up(net1)?;
    // IPv6 addresses go with a link that goes down; configured ones are not given here.
    netlink.add_address(net1, IpAddr::V6(lab.host("inside").firewall_v6), 64)?;
    until("the routes are back with the link", || {
        Ok(own_routes(&lab)?.len() == 2)
    })?;

    // A router that is on no link is refused, and what was in force stays.
    let mut wrong = through(&lab);
    wrong[0].via = IpAddr::from([203, 0, 113, 1]);
    let refused = lab.firewall().run(|| engine.commit(rules(HookMode::Auto, wrong)));
    let message = refused
        .err()
        .context("a router on no link was taken")?
        .to_string();
    ensure!(
        message.contains("route to 0.0.0.0/0 via 203.0.113.1") && message.contains("net1"),
        "{message}"
    );
    ensure!(own_routes(&lab)?.len() == 2, "a refused commit took routes along");
    until("answers after the refusal", || answered(&lab))?;

    drop(engine);
    let after = lab.firewall().netlink()?.routes()?;
    for route in before
        .iter()
        .filter(|route| route.next_hops.iter().all(|hop| hop.oif != net1))
    {
        ensure!(after.contains(route), "{route:#?} is gone");
    }
    Ok(())
}

fn until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let late = deadline(Duration::from_secs(5));
    while !holds()? {
        ensure!(Instant::now() < late, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
