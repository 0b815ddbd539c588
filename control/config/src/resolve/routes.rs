//! Static routes: to a network each, through a router on a data interface.
//!
//! Which interface that is may follow from its addresses; whether the router can be reached there is the kernel's to say, at the
//! commit.

use std::collections::HashMap;
use std::net::IpAddr;

use super::{Checker, Names, instead, sorted};
use crate::address::{IpPrefix, Member, Refusal, parse_address, parse_member};
use crate::config::{Interface, InterfaceId, Route};
use crate::document::{Forwarding, Spec};
use crate::node::{Segment, steps};

impl Checker<'_, '_> {
    /// `interfaces` are `None` if they are faulty: then nothing follows from their addresses.
    pub(super) fn routes(
        &mut self,
        spec: &Spec,
        names: &Names<'_>,
        interfaces: Option<&[Interface]>,
    ) -> Vec<Route> {
        if spec.forwarding == Forwarding::Wire {
            if !spec.routes.is_empty() {
                let message = "there are routes, but forwarding is \"wire\"".to_owned();
                let help = "leave them out: a wire has its other end and no routes".to_owned();
                self.error_at_key(&steps!["spec", "routes"], (message, Some(help)));
            }
            return Vec::new();
        }
        let mut routes = Vec::with_capacity(spec.routes.len());
        let mut known: HashMap<IpPrefix, u32> = HashMap::new();
        for (index, entry) in spec.routes.iter().enumerate() {
            let at = |field: &'static str| steps!["spec", "routes", index, field];
            let to = self.judged(&at("to"), network(&entry.to));
            let via = self.judged(&at("via"), router(&entry.via, spec));
            let named = entry.interface.as_deref();
            let interface = match named {
                Some(name) => self.judged(&at("interface"), by_name(name, names)),
                None => via
                    .zip(interfaces)
                    .and_then(|(via, interfaces)| self.judged(&at("via"), by_address(via, interfaces))),
            };
            let (Some(to), Some(via)) = (to, via) else {
                continue;
            };
            if to.address.is_ipv4() != via.is_ipv4() {
                let help = "the router's address is of the same family as the network".to_owned();
                self.error(&at("via"), (format!("{via} is no router for {to}"), Some(help)));
            }
            let line = self.position(&at("to")).0;
            if let Some(first) = known.get(&to) {
                let message = format!("a route to {to} is already on line {first}");
                let help = "a network has one; leave one of them out".to_owned();
                self.error(&at("to"), (message, Some(help)));
            }
            known.entry(to).or_insert(line);
            if let Some(interface) = interface {
                routes.push(Route {
                    to,
                    via,
                    interface,
                    line,
                });
            }
        }
        routes
    }

    fn judged<T>(&mut self, path: &[Segment], judged: Result<T, Refusal>) -> Option<T> {
        judged.map_err(|refusal| self.error(path, refusal)).ok()
    }
}

fn network(text: &str) -> Result<IpPrefix, Refusal> {
    match parse_member(text)? {
        Member::Prefix(prefix) => Ok(prefix),
        Member::Host(address) => Ok(IpPrefix::host(address)),
        Member::Range(_) => Err((
            format!("a route leads to a network, and {text} is a range"),
            Some("write one route for each network in it".to_owned()),
        )),
    }
}

fn router(text: &str, spec: &Spec) -> Result<IpAddr, Refusal> {
    let address = parse_address(text)?;
    let own = spec.interfaces.iter().find(|interface| {
        interface
            .addresses
            .iter()
            .filter_map(|own| own.split('/').next()?.parse::<IpAddr>().ok())
            .any(|own| own == address)
    });
    if let Some(own) = own {
        return Err((
            format!(
                "{address} is the firewall's own address, on interface \"{}\"",
                own.name
            ),
            Some("write the address of the router that it sends to".to_owned()),
        ));
    }
    match address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        true => Err((
            format!("{address} is no router's address"),
            Some("write the address that the router has on its link".to_owned()),
        )),
        false => Ok(address),
    }
}

fn by_name(name: &str, names: &Names<'_>) -> Result<InterfaceId, Refusal> {
    match names.get(name) {
        Some(&index) => Ok(InterfaceId(index as u32)),
        None => Err((
            format!("the route names interface \"{name}\", which does not exist"),
            Some(instead(name, "interfaces", sorted(names).into_iter())),
        )),
    }
}

fn by_address(via: IpAddr, interfaces: &[Interface]) -> Result<InterfaceId, Refusal> {
    let on_link = |interface: &Interface| {
        interface
            .addresses
            .iter()
            .any(|own| IpPrefix::around(own.address, own.length).is_some_and(|network| network.contains(via)))
    };
    let mut there = (0u32..)
        .zip(interfaces)
        .filter(|(_, interface)| on_link(interface));
    match (there.next(), there.next()) {
        (Some((index, _)), None) => Ok(InterfaceId(index)),
        (first, _) => {
            let which = if first.is_some() {
                "several interfaces have"
            } else {
                "no interface has"
            };
            Err((
                format!("{which} an address in a network of {via}, going by `addresses`"),
                Some("name the one that it is on: `interface: net1`".to_owned()),
            ))
        }
    }
}
