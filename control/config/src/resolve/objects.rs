//! Interfaces and zones: the things that rules speak of.
//!
//! Every list that comes out has one entry for each entry of the document, faulty or not, so that the indices of
//! the names stay right.

use std::collections::HashMap;

use super::screens::Screens;
use super::services::Services;
use super::{Checker, MAX_INTERFACES, Names, instead, sorted};
use crate::address::{Refusal, parse_with_length};
use crate::config::{Interface, InterfaceAddress, Zone, ZoneId};
use crate::document::{Spec, ZoneEntry};
use crate::node::steps;

/// The kernel's IFNAMSIZ, less the terminating zero.
const MAX_INTERFACE_NAME: usize = 15;

impl Checker<'_, '_> {
    /// `None` if an interface is in no known zone, so that zones may only look empty.
    pub(super) fn interfaces(&mut self, spec: &Spec, zones: &Names<'_>) -> Option<Vec<Interface>> {
        let (mut interfaces, mut all_placed) = (Vec::new(), true);
        let mut taken: HashMap<std::net::IpAddr, usize> = HashMap::new();
        for (index, entry) in spec.interfaces.iter().enumerate() {
            let name = &entry.name;
            let at = |field: &'static str| steps!["spec", "interfaces", index, field];
            if index == MAX_INTERFACES {
                let count = spec.interfaces.len();
                let message = format!("interface \"{name}\" is one too many: {count} are listed");
                let help = format!("one firewall guards at most {MAX_INTERFACES} data interfaces");
                self.error(&at("name"), (message, Some(help)));
            }
            if name.len() > MAX_INTERFACE_NAME {
                let message = format!("interface name \"{name}\" has {} characters", name.len());
                let help = format!("the kernel allows at most {MAX_INTERFACE_NAME}");
                self.error(&at("name"), (message, Some(help)));
            }
            let zone = zones.get(&*entry.zone).map(|&zone| ZoneId(zone as u32));
            if zone.is_none() {
                all_placed = false;
                let message = format!(
                    "interface \"{name}\" names zone \"{}\", which does not exist",
                    entry.zone
                );
                let help = instead(&entry.zone, "zones", sorted(zones).into_iter());
                self.error(&at("zone"), (message, Some(help)));
            }
            let mut addresses = Vec::new();
            for (place, text) in entry.addresses.iter().enumerate() {
                let at = steps!["spec", "interfaces", index, "addresses", place];
                match interface_address(text) {
                    Err(refusal) => self.error(&at, refusal),
                    Ok(address) => {
                        if let Some(&other) = taken.get(&address.address) {
                            let other = &spec.interfaces[other].name;
                            let message =
                                format!("address {} is already on interface \"{other}\"", address.address);
                            self.error(&at, (message, Some("give each interface its own".to_owned())));
                        }
                        taken.insert(address.address, index);
                        addresses.push(address);
                    }
                }
            }
            let (line, column) = self.position(&at("name"));
            let hook = entry.hook.unwrap_or(spec.hook);
            let zone = zone.unwrap_or(ZoneId(0));
            interfaces.push(Interface {
                name: name.clone(),
                zone,
                addresses,
                hook,
                line,
                column,
            });
        }
        all_placed.then_some(interfaces)
    }

    pub(super) fn zones(
        &mut self,
        entries: &[ZoneEntry],
        services: &mut Services<'_>,
        screens: &mut Screens<'_>,
    ) -> Vec<Zone> {
        let mut zones = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let name = &entry.name;
            let mut host_inbound = Vec::new();
            for (place, service) in entry.host_inbound.iter().enumerate() {
                match services.id(service) {
                    Some(id) if host_inbound.contains(&id) => {}
                    Some(id) => host_inbound.push(id),
                    None => {
                        let message =
                            format!("zone \"{name}\" names service \"{service}\", which does not exist");
                        let help = match &**service {
                            "any" => "write `all`".to_owned(),
                            _ => services.instead(service),
                        };
                        self.error(
                            &steps!["spec", "zones", index, "hostInbound", place],
                            (message, Some(help)),
                        );
                    }
                }
            }
            let screen = entry.screen.as_deref().and_then(|screen| {
                let id = screens.id(screen);
                if id.is_none() {
                    let message = format!("zone \"{name}\" names screen \"{screen}\", which does not exist");
                    let help = screens.instead(screen);
                    self.error(&steps!["spec", "zones", index, "screen"], (message, Some(help)));
                }
                id
            });
            let line = self.line(&steps!["spec", "zones"], index);
            zones.push(Zone {
                name: name.clone(),
                host_inbound,
                screen,
                line,
            });
        }
        zones
    }

    pub(super) fn zones_without_interface(
        &mut self,
        zones: &[Zone],
        names: &Names<'_>,
        interfaces: &[Interface],
    ) {
        for (index, zone) in zones.iter().enumerate() {
            let second = names.get(&*zone.name) != Some(&index);
            let empty = !interfaces
                .iter()
                .any(|interface| interface.zone.0 as usize == index);
            if empty && !second {
                let message = format!(
                    "zone \"{}\" has no interface, so nothing enters or leaves it",
                    zone.name
                );
                let help = Some(format!("put an interface into it with `zone: {}`", zone.name));
                self.warning(&steps!["spec", "zones", index, "name"], (message, help));
            }
        }
    }
}

fn interface_address(text: &str) -> Result<InterfaceAddress, Refusal> {
    let (address, length) = parse_with_length(text)?;
    let prefix = crate::IpPrefix::around(address, length).expect("the length was checked against the family");
    let widest = if address.is_ipv4() { 31 } else { 127 };
    if prefix.address == address && length < widest {
        let help = "write the address the firewall itself is to have in it".to_owned();
        return Err((format!("{text} is the network, not an address in it"), Some(help)));
    }
    Ok(InterfaceAddress { address, length })
}
