//! What the kernel's routes come to: one trie per family.
//!
//! Routes of the local and the main table become one: where both have the same prefix the local one wins, as the kernel's
//! rule order says; of several metrics the lowest; of several equal ones the first, as the kernel has it; of several next hops the
//! first. But a route of the configuration comes before all others of the main table to its network, and one that leaves by an
//! interface which is not guarded comes last: nothing is forwarded there, and a pod's own way out is not its traffic's. A gateway on its link has an entry of
//! its own, whatever prefix leads to it: it is somebody, so nobody else is to answer for its address. That entry says where
//! the kernel would send to it: where the route to its link leads, or, without one, where a route says that it is `onlink`.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use bulkhead_abi::{Route4Key, Route6Key, RouteEntry, RouteKind};

use crate::{
    address::{family, words},
    netlink,
};

/// The tries, as hashes.
#[derive(Debug, Default)]
pub(super) struct Routes {
    pub(super) v4: HashMap<Route4Key, RouteEntry>,
    pub(super) v6: HashMap<Route6Key, RouteEntry>,
}

impl Routes {
    /// Reduces the kernel's routes. `data`: the interfaces that packets are forwarded to.
    pub(super) fn of(mut kernel: Vec<netlink::Route>, data: &HashSet<u32>) -> Self {
        // The one to win stands last: local over main, then as the head says, then the lower metric, then the first.
        kernel.reverse();
        kernel.sort_by_key(|route| {
            (
                route.table == netlink::Table::Local,
                route.own,
                route.kind != netlink::RouteKind::Unicast || leaves_by(route, data),
                Reverse(route.metric),
            )
        });
        let mut routes = Self::default();
        for route in &kernel {
            routes.set(route.destination, route.prefix_len, entry(route));
        }
        routes.add_gateways(&kernel);
        routes
    }

    /// The route to an address, as the programs find it.
    pub(super) fn longest(&self, address: IpAddr) -> Option<RouteEntry> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        (0..=most).rev().find_map(|bits| self.get(address, bits))
    }

    /// The route to the prefix of this length that the address is in.
    fn get(&self, address: IpAddr, bits: u8) -> Option<RouteEntry> {
        match address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                self.v4.get(&key4((u32::from(address) & mask).into(), bits))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                self.v6.get(&key6((u128::from(address) & mask).into(), bits))
            }
        }
        .copied()
    }

    fn set(&mut self, prefix: IpAddr, bits: u8, entry: RouteEntry) {
        match prefix {
            IpAddr::V4(prefix) => drop(self.v4.insert(key4(prefix, bits), entry)),
            IpAddr::V6(prefix) => drop(self.v6.insert(key6(prefix, bits), entry)),
        }
    }

    /// Gives gateways routes of their own, but for those that have one. `kernel` has the routes to win last.
    ///
    /// One address may be the gateway of routes on several interfaces. A route that another of its prefix wins over leads
    /// nowhere, and says nothing about its gateway.
    fn add_gateways(&mut self, kernel: &[netlink::Route]) {
        let (mut onlink, mut connected) = (HashMap::new(), HashMap::new());
        let mut links: HashMap<IpAddr, Option<RouteEntry>> = HashMap::new();
        for route in kernel {
            let entry = entry(route);
            let Some((gateway, hop)) = gateway(route) else {
                continue;
            };
            if self.get(route.destination, route.prefix_len) != Some(entry) {
                continue;
            }
            let link = *links.entry(gateway).or_insert_with(|| self.longest(gateway));
            if link.is_some_and(|link| is_connected(&link) && link.ifindex == hop.oif) {
                connected.insert(gateway, entry);
            } else if hop.onlink {
                onlink.insert(gateway, entry);
            }
        }
        // What a route to the link says counts more than `onlink`.
        onlink.extend(connected);
        for (gateway, entry) in onlink {
            let bits = if gateway.is_ipv4() { 32 } else { 128 };
            if self.get(gateway, bits).is_none() {
                self.set(gateway, bits, entry);
            }
        }
    }
}

fn key4(prefix: std::net::Ipv4Addr, bits: u8) -> Route4Key {
    Route4Key {
        bits: bits.into(),
        address_be: u32::from(prefix).to_be(),
    }
}

fn key6(prefix: std::net::Ipv6Addr, bits: u8) -> Route6Key {
    Route6Key {
        bits: bits.into(),
        address_be: words(prefix.into()),
    }
}

/// The gateway that a route leads through. Link-local ones of IPv6 are on several links, and nobody's to translate to.
fn gateway(route: &netlink::Route) -> Option<(IpAddr, &netlink::NextHop)> {
    let hop = route.next_hops.first()?;
    let gateway = hop.gateway?;
    let local = matches!(gateway, IpAddr::V6(gateway) if gateway.is_unicast_link_local());
    (route.kind == netlink::RouteKind::Unicast && !local).then_some((gateway, hop))
}

fn leaves_by(route: &netlink::Route, interfaces: &HashSet<u32>) -> bool {
    let hop = route.next_hops.first();
    hop.is_some_and(|hop| interfaces.contains(&hop.oif))
}

/// Whether the route leads to a link, rather than through somebody.
fn is_connected(entry: &RouteEntry) -> bool {
    entry.kind == RouteKind::Unicast as u32 && entry.gateway_family == 0
}

fn entry(route: &netlink::Route) -> RouteEntry {
    let kind = match route.kind {
        netlink::RouteKind::Unicast => RouteKind::Unicast,
        netlink::RouteKind::Local => RouteKind::Local,
        netlink::RouteKind::Broadcast | netlink::RouteKind::Multicast | netlink::RouteKind::Anycast => {
            RouteKind::NotForwarded
        }
        netlink::RouteKind::Blackhole | netlink::RouteKind::Unreachable | netlink::RouteKind::Prohibit => {
            RouteKind::Reject
        }
    };
    let hop = route.next_hops.first();
    let gateway = hop.and_then(|hop| hop.gateway);
    RouteEntry {
        kind: kind as u32,
        ifindex: hop.map_or(0, |hop| hop.oif),
        gateway_family: gateway.map_or(0, |gateway| u32::from(family(&gateway))),
        gateway_be: gateway.map(words).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NET1: u32 = 11;
    const NET2: u32 = 12;

    /// `ip route add PREFIX [via GATEWAY] dev INTERFACE metric METRIC`, in the kernel's words.
    fn route(prefix: &str, gateway: Option<&str>, oif: u32, metric: u32) -> netlink::Route {
        let (address, length) = prefix.split_once('/').expect("a prefix");
        netlink::Route::unicast(
            address.parse().expect("an address"),
            length.parse().expect("a length"),
            gateway.map(|gateway| gateway.parse().expect("an address")),
            oif,
            metric,
        )
    }

    fn onlink(mut route: netlink::Route) -> netlink::Route {
        route.next_hops[0].onlink = true;
        route
    }

    /// Where packets to an address leave, and through whom; in whatever order the kernel lists its routes.
    fn leads(kernel: &[netlink::Route], address: &str) -> Option<(u32, bool)> {
        let address = address.parse().expect("an address");
        let of = |kernel: Vec<netlink::Route>| Routes::of(kernel, &HashSet::from([NET1, NET2]));
        let forwards = of(kernel.to_vec()).longest(address);
        let backwards = of(kernel.iter().rev().cloned().collect()).longest(address);
        assert_eq!(forwards, backwards, "the order decides");
        forwards.map(|entry| (entry.ifindex, entry.gateway_family != 0))
    }

    /// A pod's own way out is its own: what it forwards goes out where it guards.
    #[test]
    fn a_route_out_of_an_unguarded_interface_comes_last() {
        const ETH0: u32 = 2;
        for (default, gateway, own) in [
            ("0.0.0.0/0", "10.1.0.9", "172.16.0.1"),
            ("::/0", "2001:db8:1::9", "fd00::1"),
        ] {
            let address = if default.starts_with(':') {
                "2001:db8:77::1"
            } else {
                "198.51.100.7"
            };
            let mut kernel = links();
            kernel.push(route(default, Some(own), ETH0, 0));
            assert_eq!(
                leads(&kernel, address),
                Some((ETH0, true)),
                "and is dropped there"
            );
            kernel.push(route(default, Some(gateway), NET1, 9360));
            assert_eq!(leads(&kernel, address), Some((NET1, true)));
            // The narrower route is the kernel's choice, guarded or not.
            let narrow = if default.starts_with(':') {
                "2001:db8:77::/48"
            } else {
                "198.51.100.0/24"
            };
            kernel.push(route(narrow, Some(own), ETH0, 0));
            assert_eq!(leads(&kernel, address), Some((ETH0, true)));
        }
    }

    #[test]
    fn a_route_of_the_configuration_comes_first() {
        let mut kernel = links();
        kernel.push(route("0.0.0.0/0", Some("10.1.0.9"), NET1, 0));
        let mut own = route("0.0.0.0/0", Some("10.2.0.9"), NET2, 9360);
        own.own = true;
        kernel.push(own);
        assert_eq!(leads(&kernel, "198.51.100.7"), Some((NET2, true)));
    }

    /// `ip route prepend` puts a route before its equals, and the kernel takes the first.
    #[test]
    fn of_equal_routes_the_first_counts() {
        let mut kernel = links();
        kernel.push(route("0.0.0.0/0", Some("10.2.0.9"), NET2, 0));
        kernel.push(route("0.0.0.0/0", Some("10.1.0.9"), NET1, 0));
        let routes = Routes::of(kernel, &HashSet::from([NET1, NET2]));
        let found = routes.longest("198.51.100.7".parse().expect("an address"));
        assert_eq!(found.map(|entry| entry.ifindex), Some(NET2));
    }

    fn links() -> Vec<netlink::Route> {
        vec![
            route("10.1.0.0/24", None, NET1, 0),
            route("10.2.0.0/24", None, NET2, 0),
            route("2001:db8:1::/64", None, NET1, 256),
            route("2001:db8:2::/64", None, NET2, 256),
        ]
    }

    /// A default route that another one wins over has its gateway in a network that is on both links.
    #[test]
    fn a_gateway_is_where_the_route_to_its_link_leads() {
        for (default, gateway, network) in [
            ("0.0.0.0/0", "10.9.0.1", "10.9.0.0/24"),
            ("::/0", "2001:db8:9::1", "2001:db8:9::/64"),
        ] {
            for (own, other) in [(NET1, NET2), (NET2, NET1)] {
                let mut kernel = links();
                kernel.extend([
                    route(network, None, own, 100),
                    route(network, None, other, 200),
                    route(default, Some(gateway), own, 100),
                    route(default, Some(gateway), other, 200),
                ]);
                assert_eq!(leads(&kernel, gateway), Some((own, true)));
                // The better default route on the other link does not move the gateway there.
                kernel.push(route(default, Some(gateway), other, 50));
                kernel.push(route("10.77.0.0/16", Some(gateway), own, 0));
                assert_eq!(leads(&kernel, gateway), Some((own, true)), "{default}");
            }
        }
    }

    /// Routes to different prefixes name one gateway on two links, and both are in use.
    #[test]
    fn of_two_routes_that_are_in_use_the_one_on_the_gateways_link_counts() {
        let mut kernel = links();
        kernel.extend([
            route("192.0.2.0/24", Some("10.2.0.9"), NET1, 0),
            route("0.0.0.0/0", Some("10.2.0.9"), NET2, 500),
        ]);
        assert_eq!(leads(&kernel, "10.2.0.9"), Some((NET2, true)));
        // And none counts if only the other is there: the gateway is found like any neighbour of its link.
        kernel.pop();
        assert_eq!(leads(&kernel, "10.2.0.9"), Some((NET2, false)));
    }

    #[test]
    fn a_gateway_without_a_link_is_where_onlink_says() {
        let mut kernel = links();
        kernel.extend([
            onlink(route("0.0.0.0/0", Some("169.254.1.1"), NET2, 200)),
            onlink(route("0.0.0.0/0", Some("169.254.1.1"), NET1, 100)),
        ]);
        assert_eq!(leads(&kernel, "169.254.1.1"), Some((NET1, true)), "the winner's");
        // Without `onlink` the kernel would have refused it, and knows no way to it now.
        let mut kernel = links();
        kernel.push(route("192.0.2.0/24", Some("169.254.1.1"), NET1, 100));
        assert_eq!(leads(&kernel, "169.254.1.1"), None);
        // A route to its link counts more.
        let mut kernel = links();
        kernel.extend([
            route("192.0.2.0/24", Some("10.1.0.9"), NET1, 300),
            onlink(route("0.0.0.0/0", Some("10.1.0.9"), NET2, 100)),
        ]);
        assert_eq!(leads(&kernel, "10.1.0.9"), Some((NET1, true)));
    }

    #[test]
    fn a_gateway_with_a_route_of_its_own_keeps_it() {
        let mut kernel = links();
        kernel.extend([
            route("10.1.0.9/32", None, NET2, 0),
            route("0.0.0.0/0", Some("10.1.0.9"), NET1, 0),
        ]);
        assert_eq!(leads(&kernel, "10.1.0.9"), Some((NET2, false)));
    }

    #[test]
    fn link_local_gateways_have_no_entry() {
        let mut kernel = links();
        kernel.extend([
            route("fe80::/64", None, NET1, 256),
            route("::/0", Some("fe80::1"), NET1, 0),
        ]);
        assert_eq!(leads(&kernel, "fe80::1"), Some((NET1, false)));
    }
}
