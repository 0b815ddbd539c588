//! The resolved configuration: every name is a number, every text a value.
//!
//! Owned by whoever compiles it; nothing here refers back to the text, but what a person may ask about keeps its
//! name and its line. Sound by construction: an id is an index into the table of this very `Config`, lists keep the order of
//! the document, `OneOf` is never empty and holds no id twice, in ascending order.

mod groups;
mod nat;
mod screens;
mod sessions;
mod size;

use std::net::IpAddr;
use std::time::Duration;

pub use self::groups::{ClientCertificate, Feed, Group, PodSelection};
pub use self::nat::{
    DestinationRule, Persistent, Pool, PoolAlarm, PoolId, PoolUse, SourceRule, SourceTranslation, StaticRule,
};
pub use self::screens::{IcmpScreen, Scan, Screen, ScreenId, SessionLimit, SynFlood, TcpScreen, UdpScreen};
pub use self::sessions::{EarlyAgeing, Mss, SessionLimits, Tcp, Timeouts};
pub use self::size::{Excess, Extent, Size};
use crate::address::IpPrefix;
use crate::document::{Action, Alg, Forwarding, Hook, LogEvent, Passage};
use crate::service::ServiceMatch;

/// A firewall, ready to be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `metadata.name`.
    pub name: String,
    /// The file it was read from, for diagnostics.
    pub file: String,
    /// How packets cross it.
    pub forwarding: Forwarding,
    /// The data interfaces, by [`InterfaceId`], at most [`MAX_INTERFACES`](crate::MAX_INTERFACES).
    pub interfaces: Vec<Interface>,
    /// With [`Forwarding::Wire`] each interface is an end of exactly one of them; else there are none.
    pub wires: Vec<Wire>,
    /// Static routes, no two to one network.
    pub routes: Vec<Route>,
    /// The zones, by [`ZoneId`].
    pub zones: Vec<Zone>,
    /// The screen profiles, by [`ScreenId`]: first the document's own, then the builtin one if a zone uses it.
    pub screens: Vec<Screen>,
    /// The address groups, by [`GroupId`]: first the named ones, then one for each literal in a rule.
    pub groups: Vec<Group>,
    /// The services, by [`ServiceId`]: first the document's own, then the builtin ones it uses.
    pub services: Vec<Service>,
    /// The policies: first match wins, default deny.
    pub policies: Vec<Policy>,
    /// The pools of translation, by [`PoolId`].
    pub pools: Vec<Pool>,
    /// The source translation rules: first match wins, default none.
    pub source_nat: Vec<SourceRule>,
    /// The destination translation rules: first match wins, default none.
    pub destination_nat: Vec<DestinationRule>,
    /// The pairs of prefixes; no prefix of them overlaps another.
    pub static_nat: Vec<StaticRule>,
    /// Whether neighbours that ask for addresses which only translation has are answered.
    pub answer_neighbours: bool,
    /// How strictly TCP is followed.
    pub tcp: Tcp,
    /// How many of each thing there is room for; policies and groups fit.
    pub size: Size,
    /// How many of them it has.
    pub extent: Extent,
    /// Limits and timeouts.
    pub sessions: SessionLimits,
    /// The protocols that are read along, in ascending order and each once.
    pub algs: Vec<Alg>,
}

/// Index into [`Config::interfaces`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceId(pub u32);

/// Index into [`Config::zones`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ZoneId(pub u32);

/// Index into [`Config::groups`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u32);

/// Index into [`Config::services`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u32);

/// What a field of a rule selects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selector<T> {
    /// Everything, now and later.
    Any,
    /// Any of these.
    OneOf(Vec<T>),
}

impl<T: PartialEq> Selector<T> {
    /// Whether it selects `id`.
    pub fn selects(&self, id: &T) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(ids) => ids.contains(id),
        }
    }
}

/// One data interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Name in the kernel.
    pub name: String,
    /// Its zone.
    pub zone: ZoneId,
    /// Addresses to give it; empty to keep those it has.
    pub addresses: Vec<InterfaceAddress>,
    /// Where the programs attach, `spec.hook` applied.
    pub hook: Hook,
    /// Line of the name.
    pub line: u32,
    /// Column of the name.
    pub column: u32,
}

/// An address of the firewall itself and the length of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InterfaceAddress {
    /// The firewall's own address, host bits included.
    pub address: IpAddr,
    /// Prefix length of the network it lies in.
    pub length: u8,
}

/// Two interfaces between which frames go to and fro.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Its name.
    pub name: String,
    /// Its ends, which differ.
    pub interfaces: [InterfaceId; 2],
    /// What becomes of ARP.
    pub arp: Passage,
    /// What becomes of frames that are neither IP nor ARP.
    pub non_ip: Passage,
    /// Line of the name.
    pub line: u32,
}

/// A static route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The network.
    pub to: IpPrefix,
    /// The router, of the same family.
    pub via: IpAddr,
    /// The interface it is on.
    pub interface: InterfaceId,
    /// Line of the network.
    pub line: u32,
}

/// One zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// What it may reach of the firewall itself; empty for nothing.
    pub host_inbound: Vec<ServiceId>,
    /// Its screen profile.
    pub screen: Option<ScreenId>,
    /// Line of the name.
    pub line: u32,
}

/// One service, expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Whether it is a builtin one.
    pub builtin: bool,
    /// Any of these matches; never empty.
    pub matches: Vec<ServiceMatch>,
    /// How long its sessions may be idle instead of what [`Timeouts`] says: whole seconds, from 1 s to 7 days.
    pub timeout: Option<Duration>,
    /// Line of the name; 0 for a builtin one.
    pub line: u32,
}

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// Zones the conversation comes from.
    pub from: Selector<ZoneId>,
    /// Zones the conversation goes to.
    pub to: Selector<ZoneId>,
    /// Who starts it.
    pub source: Selector<GroupId>,
    /// Whom it is for.
    pub destination: Selector<GroupId>,
    /// What it speaks.
    pub service: Selector<ServiceId>,
    /// What happens to it.
    pub action: Action,
    /// When an event is written, in ascending order.
    pub log: Vec<LogEvent>,
    /// Line of the name.
    pub line: u32,
}

impl Config {
    /// The zone of an id of this configuration.
    pub fn zone(&self, id: ZoneId) -> &Zone {
        &self.zones[id.0 as usize]
    }

    /// The interface of an id of this configuration.
    pub fn interface(&self, id: InterfaceId) -> &Interface {
        &self.interfaces[id.0 as usize]
    }

    /// The screen profile of an id of this configuration.
    pub fn screen(&self, id: ScreenId) -> &Screen {
        &self.screens[id.0 as usize]
    }

    /// The pool of an id of this configuration.
    pub fn pool(&self, id: PoolId) -> &Pool {
        &self.pools[id.0 as usize]
    }

    /// The group of an id of this configuration.
    pub fn group(&self, id: GroupId) -> &Group {
        &self.groups[id.0 as usize]
    }

    /// The service of an id of this configuration.
    pub fn service(&self, id: ServiceId) -> &Service {
        &self.services[id.0 as usize]
    }

    /// What a selector of services matches, expanded: [`ServiceMatch::Any`] alone for any service.
    pub fn service_matches(&self, selector: &Selector<ServiceId>) -> Vec<ServiceMatch> {
        match selector {
            Selector::Any => vec![ServiceMatch::Any],
            Selector::OneOf(ids) => ids
                .iter()
                .flat_map(|&id| self.service(id).matches.iter().copied())
                .collect(),
        }
    }

    /// The interfaces of a zone.
    pub fn interfaces_of(&self, zone: ZoneId) -> impl Iterator<Item = &Interface> {
        self.interfaces
            .iter()
            .filter(move |interface| interface.zone == zone)
    }
}
