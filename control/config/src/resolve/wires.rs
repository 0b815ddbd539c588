//! Wires: which two interfaces are joined, and what a firewall of wires cannot have.
//!
//! With `forwarding: wire` every interface is an end of exactly one wire, and nothing is written that needs an
//! address or a route of the firewall itself; with `forwarding: routed` there are no wires.

use super::{Checker, Names, instead, sorted};
use crate::config::{InterfaceId, Wire};
use crate::document::{Forwarding, Passage, Spec, WireEntry};
use crate::node::{Segment, steps};

impl Checker<'_, '_> {
    /// `interfaces` are their names; `complete` that none was set aside, so that one without a wire has none.
    pub(super) fn wires(&mut self, spec: &Spec, interfaces: &Names<'_>, complete: bool) -> Vec<Wire> {
        let section = steps!["spec", "wires"];
        self.names("wire", &section, &spec.wires);
        if spec.forwarding == Forwarding::Routed {
            if !spec.wires.is_empty() {
                let message = "there are wires, but forwarding is \"routed\"".to_owned();
                let help = "write `forwarding: wire`, or leave the wires out".to_owned();
                self.error_at_key(&section, (message, Some(help)));
            }
            return Vec::new();
        }
        self.nothing_routed(spec);
        let mut wire_of: Vec<Option<usize>> = vec![None; spec.interfaces.len()];
        let mut wires = Vec::with_capacity(spec.wires.len());
        for (index, entry) in spec.wires.iter().enumerate() {
            let ends = self.ends(index, entry, interfaces, &spec.wires, &mut wire_of);
            wires.push(Wire {
                name: entry.name.clone(),
                interfaces: ends,
                arp: entry.arp.unwrap_or(Passage::Pass),
                non_ip: entry.non_ip.unwrap_or(Passage::Drop),
                line: self.line(&section, index),
            });
        }
        for (index, interface) in spec.interfaces.iter().enumerate() {
            let second = interfaces.get(&*interface.name) != Some(&index);
            if wire_of[index].is_none() && complete && !second {
                let message = format!("interface \"{}\" is in no wire", interface.name);
                let help = "name it under `interfaces` of a wire in spec.wires".to_owned();
                self.error(
                    &steps!["spec", "interfaces", index, "name"],
                    (message, Some(help)),
                );
            }
        }
        wires
    }

    /// The two ends of a wire; whatever stands in for a faulty one is discarded with the whole configuration.
    fn ends(
        &mut self,
        index: usize,
        entry: &WireEntry,
        interfaces: &Names<'_>,
        wires: &[WireEntry],
        wire_of: &mut [Option<usize>],
    ) -> [InterfaceId; 2] {
        let name = &entry.name;
        let mut ends = [InterfaceId(0); 2];
        if entry.interfaces.len() != ends.len() {
            let message = format!("wire \"{name}\" names {} interfaces", entry.interfaces.len());
            let help = "a wire joins two: write `interfaces: [net1, net2]`".to_owned();
            self.error_at_key(
                &steps!["spec", "wires", index, "interfaces"],
                (message, Some(help)),
            );
        }
        for (place, interface) in entry.interfaces.iter().enumerate() {
            let path = steps!["spec", "wires", index, "interfaces", place];
            let Some(&number) = interfaces.get(&**interface) else {
                let message =
                    format!("wire \"{name}\" names interface \"{interface}\", which does not exist");
                let help = instead(interface, "interfaces", sorted(interfaces).into_iter());
                self.error(&path, (message, Some(help)));
                continue;
            };
            if let Some(other) = wire_of[number].replace(index) {
                let (message, help) = if other == index {
                    (
                        format!("wire \"{name}\" names interface \"{interface}\" twice"),
                        "name the interface at its other end",
                    )
                } else {
                    (
                        format!(
                            "interface \"{interface}\" is already in wire \"{}\"",
                            wires[other].name
                        ),
                        "each interface is an end of one wire",
                    )
                };
                self.error(&path, (message, Some(help.to_owned())));
            }
            if let Some(end) = ends.get_mut(place) {
                *end = InterfaceId(number as u32);
            }
        }
        ends
    }

    fn nothing_routed(&mut self, spec: &Spec) {
        for (index, interface) in spec.interfaces.iter().enumerate() {
            if !interface.addresses.is_empty() {
                let message = format!(
                    "interface \"{}\" has addresses, but forwarding is \"wire\"",
                    interface.name
                );
                let help = "leave them out: the firewall has no address on a wire".to_owned();
                self.error_at_key(
                    &steps!["spec", "interfaces", index, "addresses"],
                    (message, Some(help)),
                );
            }
        }
        for (index, zone) in spec.zones.iter().enumerate() {
            if !zone.host_inbound.is_empty() {
                let message = format!(
                    "hostInbound of zone \"{}\" has no effect, as forwarding is \"wire\"",
                    zone.name
                );
                let help = "leave it out: the firewall has no address on a wire".to_owned();
                self.warning(
                    &steps!["spec", "zones", index, "hostInbound"],
                    (message, Some(help)),
                );
            }
        }
        let nat = &spec.nat;
        for (field, empty) in [
            ("pools", nat.pools.is_empty()),
            ("source", nat.source.is_empty()),
            ("destination", nat.destination.is_empty()),
            ("static", nat.statics.is_empty()),
            ("answerNeighbours", nat.answer_neighbours.is_none()),
        ] {
            if !empty {
                let message = format!("nat has `{field}`, but forwarding is \"wire\"");
                let help = "leave it out: a wire changes no address".to_owned();
                self.error_at_key(&steps!["spec", "nat", field], (message, Some(help)));
            }
        }
        for (index, screen) in spec.screens.iter().enumerate() {
            if screen.ip.spoofing {
                let message = format!(
                    "screen \"{}\" has `spoofing`, but forwarding is \"wire\"",
                    screen.name
                );
                let help = "leave it out: a wire has no routes to compare with".to_owned();
                let path: [Segment; 5] = steps!["spec", "screens", index, "ip", "spoofing"];
                self.error_at_key(&path, (message, Some(help)));
            }
        }
    }
}
