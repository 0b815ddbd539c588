//! The mirror of the kernel's routes, neighbours and interface facts.
//!
//! Owns what it wrote and writes only differences. What routes come to is in `routes`. Neighbours count while they are
//! usable; groups, which the kernel lists among them, do not, because nothing is forwarded to them. Every change of what a
//! flow may remember raises the FIB epoch, which makes each flow look its next hop up again at its next packet: with a
//! million of them that is a second of a CPU. A neighbour that is new is no such change: a flow that lacks one looks for it
//! at every packet.

mod routes;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use bulkhead_abi::{Interface, NeighbourKey, RouteEntry, interface_flags};

use self::routes::Routes;
use crate::{
    address::{family, words},
    bpf::KernelMaps,
    netlink::{self, AddressScope, LinkKind, Neighbour, NeighbourState, Netlink},
    table::{TableError, TypedMap},
};

/// Why the mirror could not follow.
#[derive(Debug, thiserror::Error)]
pub enum FibError {
    /// Reading the kernel's tables failed.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// Writing ours failed.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// A data interface as the mirror needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataInterface {
    /// Kernel index.
    pub index: u32,
    /// Whether redirected XDP frames arrive when sent into it.
    pub xdp_target: bool,
    /// The wire it is an end of.
    pub wire: Option<WireEnd>,
}

/// An end of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireEnd {
    /// Number of the wire, from 1.
    pub number: u32,
    /// Index of the other end; `None` while it does not exist.
    pub peer: Option<u32>,
    /// Whether ARP crosses.
    pub arp: bool,
    /// Whether what is neither IP nor ARP crosses.
    pub non_ip: bool,
}

/// What was written to the kernel's tables.
#[derive(Debug, Default)]
pub struct Mirror {
    routes: Routes,
    neighbours: HashMap<NeighbourKey, u64>,
    interfaces: HashMap<u32, Interface>,
    data: HashSet<u32>,
}

/// Brings `map` from `had` to `want`; whether anything changed. New entries first, so that no route is missing meanwhile.
fn replace<K, V>(
    map: &TypedMap<K, V>,
    had: &mut HashMap<K, V>,
    want: HashMap<K, V>,
) -> Result<bool, TableError>
where
    K: zerocopy::IntoBytes + zerocopy::FromBytes + zerocopy::Immutable + Copy + Eq + std::hash::Hash,
    V: zerocopy::IntoBytes + zerocopy::FromBytes + zerocopy::Immutable + Copy + PartialEq,
{
    let mut changed = false;
    for (key, value) in &want {
        if had.get(key) != Some(value) {
            map.set(key, value)?;
            // Entry by entry, so that after an error it is known what was written.
            had.insert(*key, *value);
            changed = true;
        }
    }
    let gone: Vec<K> = had
        .keys()
        .filter(|key| !want.contains_key(key))
        .copied()
        .collect();
    for key in gone {
        map.remove(&key)?;
        had.remove(&key);
        changed = true;
    }
    Ok(changed)
}

fn neighbour_entry(neighbour: &Neighbour) -> (NeighbourKey, Option<u64>) {
    let key = NeighbourKey {
        ifindex: neighbour.index,
        family: u32::from(family(&neighbour.address)),
        address_be: words(neighbour.address),
    };
    let mac = neighbour
        .mac
        .filter(|_| neighbour.usable() && !neighbour.address.is_multicast())
        .map(|mac| u64::from_le_bytes([mac[0], mac[1], mac[2], mac[3], mac[4], mac[5], 0, 0]));
    (key, mac)
}

/// Whether a flow may remember what is no longer so.
fn outdates(before: Option<u64>, after: Option<u64>) -> bool {
    before.is_some() && before != after
}

impl Mirror {
    /// Reads everything and writes what differs; whether anything did.
    ///
    /// # Errors
    /// If the kernel's tables cannot be read or ours not written.
    pub fn sync(
        &mut self,
        netlink: &mut Netlink,
        maps: &KernelMaps,
        data: &[DataInterface],
    ) -> Result<bool, FibError> {
        self.data = data.iter().map(|interface| interface.index).collect();
        let interfaces = read_interfaces(netlink, data)?;
        let mut changed = replace(&maps.interfaces, &mut self.interfaces, interfaces)?;
        let routes = Routes::of(netlink.routes()?, &self.data);
        changed |= replace(&maps.routes4, &mut self.routes.v4, routes.v4)?;
        changed |= replace(&maps.routes6, &mut self.routes.v6, routes.v6)?;
        let mut neighbours = HashMap::new();
        for neighbour in netlink
            .neighbours()?
            .iter()
            .filter(|n| self.data.contains(&n.index))
        {
            if let (key, Some(mac)) = neighbour_entry(neighbour) {
                neighbours.insert(key, mac);
            }
        }
        changed |= replace(&maps.neighbours, &mut self.neighbours, neighbours)?;
        Ok(changed)
    }

    /// The route to an address, as the programs find it.
    #[must_use]
    pub fn route(&self, address: IpAddr) -> Option<RouteEntry> {
        self.routes.longest(address)
    }

    /// A data interface, as the programs find it.
    #[must_use]
    pub fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.get(&index)
    }

    /// Follows one neighbour; whether flows may remember it otherwise. A stale one is probed: the kernel itself sends nothing to it any
    /// more, so nobody else would notice that it moved.
    ///
    /// # Errors
    /// If the table cannot be written or the probe not be asked for.
    pub fn neighbour(
        &mut self,
        netlink: &mut Netlink,
        maps: &KernelMaps,
        neighbour: &Neighbour,
    ) -> Result<bool, FibError> {
        if !self.data.contains(&neighbour.index) {
            return Ok(false);
        }
        let (key, mac) = neighbour_entry(neighbour);
        let changed = self.set_neighbour(maps, key, mac)?;
        if neighbour.state == NeighbourState::Stale
            && let Err(error) = netlink.probe_neighbour(neighbour.index, neighbour.address)
            && !error.is_not_found()
        {
            // The entry is good until the kernel says otherwise; the next change asks again.
            tracing::warn!(address = %neighbour.address, %error, "a stale neighbour could not be probed");
        }
        Ok(changed)
    }

    /// Follows the removal of a neighbour; whether flows may remember it.
    ///
    /// # Errors
    /// If the table cannot be written.
    pub fn neighbour_gone(
        &mut self,
        maps: &KernelMaps,
        index: u32,
        address: IpAddr,
    ) -> Result<bool, FibError> {
        let key = NeighbourKey {
            ifindex: index,
            family: u32::from(family(&address)),
            address_be: words(address),
        };
        self.set_neighbour(maps, key, None)
    }

    fn set_neighbour(
        &mut self,
        maps: &KernelMaps,
        key: NeighbourKey,
        mac: Option<u64>,
    ) -> Result<bool, FibError> {
        let before = self.neighbours.get(&key).copied();
        match mac {
            Some(mac) if before != Some(mac) => {
                maps.neighbours.set(&key, &mac)?;
                self.neighbours.insert(key, mac);
            }
            None if before.is_some() => {
                self.neighbours.remove(&key);
                maps.neighbours.remove(&key)?;
            }
            _ => {}
        }
        Ok(outdates(before, mac))
    }
}

fn read_interfaces(
    netlink: &mut Netlink,
    data: &[DataInterface],
) -> Result<HashMap<u32, Interface>, FibError> {
    let links = netlink.links()?;
    let addresses = netlink.addresses()?;
    let mut interfaces = HashMap::new();
    for own in data {
        let Some(link) = links.iter().find(|link| link.index == own.index) else {
            continue;
        };
        let mut flags = interface_flags::DATA;
        if link.kind == LinkKind::Veth && link.peer_netnsid.is_some() {
            flags |= interface_flags::PEER;
        }
        if own.xdp_target {
            flags |= interface_flags::XDP_TARGET;
        }
        if let Some(end) = own.wire {
            flags |= if end.arp { interface_flags::WIRE_ARP } else { 0 };
            flags |= if end.non_ip {
                interface_flags::WIRE_NON_IP
            } else {
                0
            };
        }
        let primary = |v4: bool| {
            addresses
                .iter()
                .find(|a| {
                    a.index == own.index
                        && a.address.is_ipv4() == v4
                        && a.usable
                        && !a.secondary
                        && a.scope == AddressScope::Universe
                })
                .map(|a| words(a.address))
                .unwrap_or_default()
        };
        interfaces.insert(
            own.index,
            Interface {
                mac: link.mac,
                reserved: 0,
                mtu: link.mtu,
                flags,
                address4_be: primary(true)[0],
                address6_be: primary(false),
                wire_peer: own.wire.and_then(|end| end.peer).unwrap_or(0),
                wire: own.wire.map_or(0, |end| end.number),
            },
        );
    }
    Ok(interfaces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_neighbour_outdates_no_flow_and_one_that_moved_or_left_does() {
        assert!(!outdates(None, Some(1)));
        assert!(!outdates(None, None));
        assert!(!outdates(Some(1), Some(1)));
        assert!(outdates(Some(1), Some(2)));
        assert!(outdates(Some(1), None));
    }

    #[test]
    fn groups_are_no_neighbours() {
        let entry = |address: &str| {
            let (_, mac) = neighbour_entry(&Neighbour {
                index: 1,
                address: address.parse().expect("an address"),
                mac: Some([1, 0, 0, 0, 0, 2]),
                state: NeighbourState::NoArp,
            });
            mac
        };
        assert_eq!(entry("10.0.0.2"), Some(0x0200_0000_0001));
        for group in ["224.0.0.22", "ff02::16", "ff02::1:ff00:2"] {
            assert_eq!(entry(group), None, "{group}");
        }
    }
}
