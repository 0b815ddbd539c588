//! The main and the local routing table, as the data plane mirrors them.
//!
//! Owns the reduction of a kernel route to what forwarding needs. Next hops the kernel would skip (`dead`)
//! are left out, and so is a unicast route that has none left: the kernel falls through to the next best
//! one, and so must the mirror. Routes that depend on more than the destination (type of service, source
//! prefix) are left out with a warning, because the mirror is keyed by destination alone.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags,
    RouteProtocol, RouteScope, RouteType, RouteVia,
};

use super::{Family, Netlink, Result};

/// Who set a route, in its `protocol` (rtnetlink(7)): the configuration of this firewall. A number that iproute2 names for nobody.
pub const OWN_PROTOCOL: u8 = 183;

/// The metric of such routes: high, so that those of others go first for what this host sends itself.
pub const OWN_METRIC: u32 = 9360;

const TABLE_MAIN: u32 = 254;
const TABLE_LOCAL: u32 = 255;

/// One of the two tables every namespace consults by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// What is delivered here: own, broadcast and multicast addresses. Consulted first.
    Local,
    /// What is forwarded.
    Main,
}

/// What becomes of a packet that matches a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// Sent on to a next hop.
    Unicast,
    /// Delivered here.
    Local,
    /// Delivered here, as a broadcast.
    Broadcast,
    /// Delivered to those who joined.
    Multicast,
    /// Delivered here, IPv6 subnet-router anycast.
    Anycast,
    /// Dropped silently.
    Blackhole,
    /// Answered with host unreachable.
    Unreachable,
    /// Answered with administratively prohibited.
    Prohibit,
}

impl RouteKind {
    fn from_wire(kind: RouteType) -> Option<Self> {
        Some(match kind {
            RouteType::Unicast => Self::Unicast,
            RouteType::Local => Self::Local,
            RouteType::Broadcast => Self::Broadcast,
            RouteType::Multicast => Self::Multicast,
            RouteType::Anycast => Self::Anycast,
            RouteType::BlackHole => Self::Blackhole,
            RouteType::Unreachable => Self::Unreachable,
            RouteType::Prohibit => Self::Prohibit,
            _ => return None,
        })
    }
}

/// Where a packet goes next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct NextHop {
    /// Egress interface index.
    pub oif: u32,
    /// The router to send to, possibly of the other family; `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The router is on the link although no route says so (`onlink`).
    pub onlink: bool,
    /// Share of the traffic among the next hops of one route, at least 1.
    pub weight: u16,
}

/// A route of the main or the local table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Route {
    /// Family of the destination.
    pub family: Family,
    /// Destination prefix, host bits zero.
    pub destination: IpAddr,
    /// Length of the prefix in bits; 0 is the default route.
    pub prefix_len: u8,
    /// The table it is in.
    pub table: Table,
    /// What becomes of a packet.
    pub kind: RouteKind,
    /// Usable next hops; at least one if `kind` is `Unicast`, possibly none otherwise.
    pub next_hops: Vec<NextHop>,
    /// The source address that the firewall's own packets take.
    pub prefer_source: Option<IpAddr>,
    /// Lower wins among routes to the same prefix.
    pub metric: u32,
    /// Whether it is one of [`set_own_route`](Netlink::set_own_route).
    pub own: bool,
}

impl Route {
    /// What the kernel would say of a route of the main table.
    #[cfg(test)]
    pub(crate) fn unicast(
        destination: IpAddr,
        prefix_len: u8,
        gateway: Option<IpAddr>,
        oif: u32,
        metric: u32,
    ) -> Self {
        let mut message = route_message(destination, prefix_len, gateway, Some(oif));
        message.attributes.push(RouteAttribute::Priority(metric));
        Self::from_message(message).expect("a route")
    }

    /// `None` for what the mirror does not hold; see the module's head.
    pub(super) fn from_message(message: RouteMessage) -> Option<Self> {
        let header = &message.header;
        let family = Family::from_wire(header.address_family)?;
        let kind = RouteKind::from_wire(header.kind)?;
        // Without strict checking a dump also lists what path MTU discovery and redirects cached.
        if header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        let mut route = Self {
            family,
            destination: family.unspecified(),
            prefix_len: header.destination_prefix_length,
            table: Table::Main,
            kind,
            next_hops: Vec::new(),
            prefer_source: None,
            metric: 0,
            own: header.protocol == RouteProtocol::Other(OWN_PROTOCOL),
        };
        let dead = header.flags.contains(RouteFlags::Dead);
        let qualified = header.tos != 0 || header.source_prefix_length != 0;
        let mut table = u32::from(header.table);
        let (mut oif, mut gateway, mut nexthop_object) = (None, None, None);
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => route.destination = ip(&address)?,
                RouteAttribute::PrefSource(address) => route.prefer_source = ip(&address),
                RouteAttribute::Priority(metric) => route.metric = metric,
                RouteAttribute::Table(number) => table = number,
                RouteAttribute::Oif(index) => oif = Some(index),
                RouteAttribute::Gateway(address) => gateway = ip(&address),
                RouteAttribute::Via(via) => gateway = via_ip(&via),
                RouteAttribute::MultiPath(hops) => {
                    route.next_hops.extend(hops.iter().filter_map(next_hop));
                }
                RouteAttribute::NhId(id) => nexthop_object = Some(id),
                _ => {}
            }
        }
        route.table = match table {
            TABLE_MAIN => Table::Main,
            TABLE_LOCAL => Table::Local,
            _ => return None,
        };
        if qualified {
            tracing::warn!(?route, "route ignored: it depends on more than the destination");
            return None;
        }
        if let (Some(oif), false) = (oif, dead) {
            route.next_hops.push(NextHop {
                oif,
                gateway,
                onlink: header.flags.contains(RouteFlags::Onlink),
                weight: 1,
            });
        }
        if kind == RouteKind::Unicast && route.next_hops.is_empty() {
            if let Some(id) = nexthop_object.filter(|_| !dead) {
                tracing::warn!(
                    ?route,
                    id,
                    "route ignored: the kernel did not spell out its nexthop object; set net.ipv4.nexthop_compat_mode=1"
                );
            }
            return None;
        }
        Some(route)
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn via_ip(via: &RouteVia) -> Option<IpAddr> {
    match via {
        RouteVia::Inet(v4) => Some((*v4).into()),
        RouteVia::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn next_hop(hop: &RouteNextHop) -> Option<NextHop> {
    if hop.flags.contains(RouteNextHopFlags::Dead) {
        return None;
    }
    let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(via) => via_ip(via),
        _ => None,
    });
    Some(NextHop {
        oif: hop.interface_index,
        gateway,
        onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
        weight: u16::from(hop.hops) + 1,
    })
}

impl Netlink {
    /// The main and local tables of both families.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in Family::ALL {
            // One dump for both tables: filtering by a table that a fresh namespace has not created yet is
            // refused with ENOENT.
            let mut request = RouteMessage::default();
            request.header.address_family = family.wire();
            let operation = format!("list {family} routes");
            let answers = match self
                .socket
                .dump(&operation, &RouteNetlinkMessage::GetRoute(request))
            {
                Err(error) if error.is_unsupported_family() => continue,
                answers => answers?,
            };
            routes.extend(answers.into_iter().filter_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(message) => Route::from_message(message),
                _ => None,
            }));
        }
        Ok(routes)
    }

    /// Adds a route to the main table: through `gateway`, out of `oif`, or both. A gateway of the other
    /// family (RFC 5549) needs `oif`.
    pub fn add_route(
        &mut self,
        destination: IpAddr,
        prefix_len: u8,
        gateway: Option<IpAddr>,
        oif: Option<u32>,
    ) -> Result<()> {
        self.socket.change(
            &describe("add", destination, prefix_len, gateway, oif),
            RouteNetlinkMessage::NewRoute(route_message(destination, prefix_len, gateway, oif)),
            NLM_F_CREATE | NLM_F_EXCL,
        )
    }

    /// Sets a route of the configuration, through a gateway of the same family; one that it set to the same network before gives way.
    pub fn set_own_route(
        &mut self,
        destination: IpAddr,
        prefix_len: u8,
        gateway: IpAddr,
        oif: u32,
    ) -> Result<()> {
        let mut request = route_message(destination, prefix_len, Some(gateway), Some(oif));
        request.header.protocol = RouteProtocol::Other(OWN_PROTOCOL);
        request.attributes.push(RouteAttribute::Priority(OWN_METRIC));
        self.socket.change(
            &describe("set", destination, prefix_len, Some(gateway), Some(oif)),
            RouteNetlinkMessage::NewRoute(request),
            NLM_F_CREATE | NLM_F_REPLACE,
        )
    }

    /// Removes the route of the configuration to a network.
    pub fn delete_own_route(&mut self, destination: IpAddr, prefix_len: u8) -> Result<()> {
        let mut request = route_message(destination, prefix_len, None, None);
        request.header.scope = RouteScope::NoWhere;
        request.header.protocol = RouteProtocol::Other(OWN_PROTOCOL);
        request.attributes.push(RouteAttribute::Priority(OWN_METRIC));
        self.socket.change(
            &describe("delete", destination, prefix_len, None, None),
            RouteNetlinkMessage::DelRoute(request),
            0,
        )
    }

    /// Removes a route from the main table.
    pub fn delete_route(
        &mut self,
        destination: IpAddr,
        prefix_len: u8,
        gateway: Option<IpAddr>,
        oif: Option<u32>,
    ) -> Result<()> {
        let mut request = route_message(destination, prefix_len, gateway, oif);
        // "Nowhere" matches any scope, "unspecified" any origin.
        request.header.scope = RouteScope::NoWhere;
        request.header.protocol = RouteProtocol::Unspec;
        self.socket.change(
            &describe("delete", destination, prefix_len, gateway, oif),
            RouteNetlinkMessage::DelRoute(request),
            0,
        )
    }
}

fn describe(
    verb: &str,
    destination: IpAddr,
    prefix_len: u8,
    gateway: Option<IpAddr>,
    oif: Option<u32>,
) -> String {
    let mut text = format!("{verb} route {destination}/{prefix_len}");
    if let Some(gateway) = gateway {
        text += &format!(" via {gateway}");
    }
    if let Some(oif) = oif {
        text += &format!(" out of interface index {oif}");
    }
    text
}

fn route_message(
    destination: IpAddr,
    prefix_len: u8,
    gateway: Option<IpAddr>,
    oif: Option<u32>,
) -> RouteMessage {
    let family = Family::of(&destination);
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family.wire(),
        destination_prefix_length: prefix_len,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: if gateway.is_none() && family == Family::V4 {
            RouteScope::Link
        } else {
            RouteScope::Universe
        },
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message
        .attributes
        .push(RouteAttribute::Destination(destination.into()));
    match gateway {
        Some(gateway) if Family::of(&gateway) == family => {
            message.attributes.push(RouteAttribute::Gateway(gateway.into()));
        }
        Some(IpAddr::V4(gateway)) => message
            .attributes
            .push(RouteAttribute::Via(RouteVia::Inet(gateway))),
        Some(IpAddr::V6(gateway)) => message
            .attributes
            .push(RouteAttribute::Via(RouteVia::Inet6(gateway))),
        None => {}
    }
    if let Some(oif) = oif {
        message.attributes.push(RouteAttribute::Oif(oif));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default_route() -> RouteMessage {
        route_message(
            IpAddr::from([0, 0, 0, 0]),
            0,
            Some(IpAddr::from([10, 0, 0, 1])),
            Some(7),
        )
    }

    #[test]
    fn a_route_without_usable_next_hops_is_no_route() {
        let mut message = default_route();
        assert!(Route::from_message(message.clone()).is_some());
        message.header.flags = RouteFlags::Dead;
        assert_eq!(Route::from_message(message), None);
    }

    #[test]
    fn dead_next_hops_are_left_out_and_weights_start_at_one() {
        let mut message = default_route();
        message
            .attributes
            .retain(|attribute| matches!(attribute, RouteAttribute::Destination(_)));
        let (mut alive, mut dead) = (RouteNextHop::default(), RouteNextHop::default());
        (alive.interface_index, alive.hops) = (3, 4);
        (dead.interface_index, dead.flags) = (4, RouteNextHopFlags::Dead);
        alive.attributes = vec![RouteAttribute::Gateway(IpAddr::from([10, 0, 3, 1]).into())];
        message
            .attributes
            .push(RouteAttribute::MultiPath(vec![alive, dead]));
        let route = Route::from_message(message).expect("a route");
        let gateway = Some(IpAddr::from([10, 0, 3, 1]));
        assert_eq!(
            route.next_hops,
            [NextHop {
                oif: 3,
                gateway,
                onlink: false,
                weight: 5
            }]
        );
    }

    #[test]
    fn routes_keyed_by_more_than_the_destination_are_left_out() {
        for change in [
            |header: &mut RouteHeader| header.tos = 8,
            |header: &mut RouteHeader| header.source_prefix_length = 64,
        ] {
            let mut message = default_route();
            change(&mut message.header);
            assert_eq!(Route::from_message(message), None);
        }
    }

    #[test]
    fn other_tables_are_left_out() {
        let mut message = default_route();
        message.attributes.push(RouteAttribute::Table(1000));
        assert_eq!(Route::from_message(message), None);
    }
}
