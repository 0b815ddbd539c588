//! Where replicas stand, with the addresses of the chart's variation `ingress-protection`.
//!
//! Owns the namespaces and the three networks that join them, each a set of macvlans on one parent as in a cluster: `edge` with
//! the router, `ingress` with the controllers, and the cluster's own with the API server. The router divides by flow over equal
//! routes. The controllers know no way to the visitors: they can answer nobody but a replica.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bulkhead_dataplane::netlink::{MacvlanSpec, VethSpec};
use bulkhead_testkit::{Namespace, Tool, deadline};

/// Where visitors go.
pub const PUBLISHED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 80)), 80);
/// What they are sent to.
pub const CONTROLLERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 40, 0, 10), Ipv4Addr::new(10, 40, 0, 11)];
/// The API server's, on the cluster's network.
pub const API: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);
/// A visitor who is there all the time.
pub const REGULAR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// A visitor who comes when the routes have changed.
pub const NEWCOMER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 11);

const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const ROUTER_TO_VISITORS: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The router's table of the equal routes as they were.
const AS_BEFORE: &str = "100";

/// A place for a replica.
pub struct Place {
    pub namespace: Namespace,
    /// Its address on `edge`.
    pub edge: Ipv4Addr,
    /// Its address on `ingress`, which the controllers see.
    pub ingress: Ipv4Addr,
    /// Its address on the cluster's network.
    pub cluster: Ipv4Addr,
}

/// All of it; it goes when this is dropped.
pub struct Site {
    // Dropped in this order: interfaces must be gone before the parents they stand on.
    pub places: [Place; 3],
    pub visitors: Namespace,
    pub controllers: Namespace,
    pub cluster: Namespace,
    router: Namespace,
    switch: Namespace,
}

impl Site {
    pub fn new(prefix: &str) -> Self {
        let new = |role: &str| Namespace::new(&format!("{prefix}-{role}")).expect("a namespace");
        let place = |number: u8| Place {
            namespace: new("fw"),
            edge: Ipv4Addr::new(192, 0, 2, 10 + number),
            ingress: Ipv4Addr::new(10, 40, 0, 100 + number),
            cluster: Ipv4Addr::new(10, 244, 0, 10 + number),
        };
        let site = Self {
            places: [place(0), place(1), place(2)],
            visitors: new("visitors"),
            controllers: new("controllers"),
            cluster: new("cluster"),
            router: new("router"),
            switch: new("sw"),
        };
        let mut switch = site.switch.netlink().expect("netlink");
        for (parent, peer_name) in [
            ("edge", "edge-far"),
            ("ingress", "ingress-far"),
            ("pods", "pods-far"),
        ] {
            let cable = VethSpec {
                name: parent,
                peer_name,
                ..VethSpec::default()
            };
            let near = switch.create_veth(&cable).expect("a cable");
            let far = switch.link_by_name(peer_name).expect("its other end").index;
            // A parent without carrier carries nothing.
            switch.set_up(near).expect("an end that is up");
            switch.set_up(far).expect("an end that is up");
        }
        site.join("edge", &site.router, "edge", &[ROUTER]);
        site.join("ingress", &site.controllers, "net1", &CONTROLLERS);
        site.join("pods", &site.cluster, "eth0", &[API]);
        for place in &site.places {
            // In the order of Multus: the cluster's network first, and the default route is its.
            site.join("pods", &place.namespace, "eth0", &[place.cluster]);
            site.join("edge", &place.namespace, "net1", &[place.edge]);
            site.join("ingress", &place.namespace, "net2", &[place.ingress]);
            site.default_route(&place.namespace, API);
        }
        let cable = VethSpec {
            name: "eth0",
            peer_name: "visitors",
            peer_namespace: Some(site.router.fd()),
            ..VethSpec::default()
        };
        let mut visitors = site.visitors.netlink().expect("netlink");
        visitors.create_veth(&cable).expect("a cable");
        address(&site.visitors, "eth0", &[REGULAR, NEWCOMER]);
        address(&site.router, "visitors", &[ROUTER_TO_VISITORS]);
        site.default_route(&site.visitors, ROUTER_TO_VISITORS);
        site.router.set_kernel_forwarding(true).expect("a router");
        let by_flow = ("net/ipv4/fib_multipath_hash_policy", "1");
        site.router
            .set_sysctl(by_flow.0, by_flow.1)
            .expect("division by flow");
        site.await_carriers();
        site
    }

    /// The router sends visitors to these, with equal cost.
    pub fn route_to(&self, places: &[&Place]) {
        self.route("main", places);
    }

    /// What the router has sent this visitor's conversations to so far, it goes on sending them to: what a health check takes
    /// out gets nothing new, and keeps what it has.
    pub fn keep_for(&self, visitor: Ipv4Addr, places: &[&Place]) {
        self.route(AS_BEFORE, places);
        self.ip(&["rule", "add", "from", &visitor.to_string(), "lookup", AS_BEFORE]);
    }

    fn route(&self, table: &str, places: &[&Place]) {
        let published = PUBLISHED.ip().to_string();
        let routers: Vec<String> = places.iter().map(|place| place.edge.to_string()).collect();
        let hops = routers.iter().flat_map(|router| ["nexthop", "via", router]);
        let route: Vec<&str> = ["route", "replace", &published, "table", table]
            .into_iter()
            .chain(hops)
            .collect();
        self.ip(&route);
    }

    fn ip(&self, arguments: &[&str]) {
        let done = Tool::new("ip").args(arguments).run(&self.router);
        done.and_then(|output| output.success()).expect("a route");
    }

    fn default_route(&self, namespace: &Namespace, router: Ipv4Addr) {
        namespace
            .netlink()
            .expect("netlink")
            .add_route(Ipv4Addr::UNSPECIFIED.into(), 0, Some(router.into()), None)
            .expect("a route");
    }

    fn join(&self, parent: &str, namespace: &Namespace, name: &str, addresses: &[Ipv4Addr]) {
        let mut switch = self.switch.netlink().expect("netlink");
        let child = MacvlanSpec {
            name,
            parent: switch.link_by_name(parent).expect("a parent").index,
            namespace: Some(namespace.fd()),
        };
        switch.create_macvlan(&child).expect("an interface");
        address(namespace, name, addresses);
    }

    /// Waits until every interface carries packets.
    fn await_carriers(&self) {
        let deadline = deadline(Duration::from_secs(5));
        let places = self.places.iter().map(|place| &place.namespace);
        let others = [&self.visitors, &self.controllers, &self.cluster, &self.router];
        for namespace in places.chain(others) {
            let mut netlink = namespace.netlink().expect("netlink");
            let mut links = || netlink.links().expect("links");
            while let Some(link) = links().into_iter().find(|link| link.up && !link.running) {
                assert!(Instant::now() < deadline, "no carrier: {link:?}");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// Addresses of networks of 256, on an interface that comes up with them.
fn address(namespace: &Namespace, interface: &str, addresses: &[Ipv4Addr]) {
    let mut netlink = namespace.netlink().expect("netlink");
    let index = netlink.link_by_name(interface).expect("an interface").index;
    netlink.set_up(index).expect("an interface that is up");
    for address in addresses {
        let added = netlink.add_address(index, (*address).into(), 24);
        added.expect("an address");
    }
}
