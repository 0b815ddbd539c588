//! Static routes of the configuration, in the kernel's main table.
//!
//! Owns the routes that carry its number as their protocol, and touches no other. They stand behind routes to the same network that
//! somebody else set (a host, a CNI plug-in): what the firewall itself sends goes as before. What is forwarded goes by
//! the mirror of the routes, which prefers these. They stay when the daemon ends, like addresses.

use std::net::IpAddr;

use super::{EngineError, attach};
use crate::{
    netlink::{Netlink, Route},
    ruleset::{InterfaceRule, Ruleset, StaticRoute},
};

/// A route that is to be there.
#[derive(Debug)]
struct Wanted<'r> {
    interface: &'r str,
    index: u32,
    route: &'r StaticRoute,
}

impl Wanted<'_> {
    fn is(&self, there: &Route) -> bool {
        let hops: Vec<(u32, Option<IpAddr>)> =
            there.next_hops.iter().map(|hop| (hop.oif, hop.gateway)).collect();
        there.own
            && (there.destination, there.prefix_len) == self.route.to
            && hops == [(self.index, Some(self.route.via))]
    }

    fn set(&self, netlink: &mut Netlink) -> Result<(), EngineError> {
        let (to, length) = self.route.to;
        netlink
            .set_own_route(to, length, self.route.via, self.index)
            .map_err(|error| EngineError::Route {
                to: format!("{to}/{length}"),
                via: self.route.via,
                interface: self.interface.to_owned(),
                error: Box::new(error),
            })
    }
}

fn wanted<'r>(rules: impl Iterator<Item = (&'r InterfaceRule, Option<u32>)>) -> Vec<Wanted<'r>> {
    rules
        .filter_map(|(rule, index)| Some((rule, index?)))
        .flat_map(|(rule, index)| {
            rule.routes.iter().map(move |route| Wanted {
                interface: &rule.name,
                index,
                route,
            })
        })
        .collect()
}

/// Indices of the interfaces that have routes.
fn indexed<'r>(
    netlink: &mut Netlink,
    ruleset: &'r Ruleset,
) -> Result<Vec<(&'r InterfaceRule, Option<u32>)>, EngineError> {
    let routed = ruleset.interfaces.iter().filter(|rule| !rule.routes.is_empty());
    routed
        .map(|rule| Ok((rule, Some(netlink.link_by_name(&rule.name)?.index))))
        .collect()
}

/// Sets those of a ruleset that are not there. One to the same network gives way.
pub(super) fn set(netlink: &mut Netlink, ruleset: &Ruleset) -> Result<(), EngineError> {
    let rules = indexed(netlink, ruleset)?;
    let wanted = wanted(rules.into_iter());
    if wanted.is_empty() {
        return Ok(());
    }
    let there = netlink.routes()?;
    for route in wanted
        .iter()
        .filter(|wanted| !there.iter().any(|route| wanted.is(route)))
    {
        route.set(netlink)?;
    }
    Ok(())
}

/// Sets again what somebody took away, or the kernel with a link that went down. What cannot be set is told: the next change of
/// links or routes tries again.
pub(super) fn restore(netlink: &mut Netlink, interfaces: &[attach::Interface]) -> Result<(), EngineError> {
    let wanted = wanted(
        interfaces
            .iter()
            .map(|interface| (&interface.rule, interface.index)),
    );
    if wanted.is_empty() {
        return Ok(());
    }
    let there = netlink.routes()?;
    for route in wanted
        .iter()
        .filter(|wanted| !there.iter().any(|route| wanted.is(route)))
    {
        match route.set(netlink) {
            Ok(()) => {
                tracing::warn!(network = %route.route.to.0, bits = route.route.to.1, interface = route.interface, "a static route was gone and is set again")
            }
            Err(error) => tracing::warn!(%error, "a static route is gone and cannot be set yet"),
        }
    }
    Ok(())
}

/// Takes away those that a ruleset has not; whether there were any.
pub(super) fn retain(netlink: &mut Netlink, ruleset: &Ruleset) -> Result<bool, EngineError> {
    let rules = indexed(netlink, ruleset)?;
    let wanted = wanted(rules.into_iter());
    let mut gone = false;
    for route in netlink.routes()? {
        if !route.own || wanted.iter().any(|wanted| wanted.is(&route)) {
            continue;
        }
        match netlink.delete_own_route(route.destination, route.prefix_len) {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => gone = true,
        }
    }
    Ok(gone)
}
