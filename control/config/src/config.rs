//! The resolved configuration: every name is a number, every text a value.
//!
//! Owned by whoever compiles it; nothing here refers back to the text, but what a person may ask about keeps its
//! name and its line. Sound by construction: an id is an index into the table of this very `Config`, lists keep the order of
//! the document, `OneOf` is never empty and holds no id twice, in ascending order.

use std::net::IpAddr;
use std::time::Duration;

use crate::address::Member;
use crate::document::{Action, Hook, LogEvent, Translation};
use crate::service::ServiceMatch;

/// A firewall, ready to be compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `metadata.name`.
    pub name: String,
    /// The file it was read from, for diagnostics.
    pub file: String,
    /// The data interfaces, at most [`MAX_INTERFACES`](crate::MAX_INTERFACES).
    pub interfaces: Vec<Interface>,
    /// The zones, by [`ZoneId`].
    pub zones: Vec<Zone>,
    /// The address groups, by [`GroupId`]: first the named ones, then one for each literal in a policy.
    pub groups: Vec<Group>,
    /// The services, by [`ServiceId`]: first the document's own, then the builtin ones it uses.
    pub services: Vec<Service>,
    /// The policies: first match wins, default deny.
    pub policies: Vec<Policy>,
    /// The source translation rules: first match wins, default none.
    pub source_nat: Vec<NatRule>,
    /// Limits and timeouts.
    pub sessions: SessionLimits,
}

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

/// One zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// What it may reach of the firewall itself; empty for nothing.
    pub host_inbound: Vec<ServiceId>,
    /// Whether `screen: default` was written.
    pub screen: bool,
    /// Line of the name.
    pub line: u32,
}

/// One set of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name; for a literal, the literal in its canonical form.
    pub name: String,
    /// Whether it stands for an address written in a policy.
    pub literal: bool,
    /// Its members in the order of the document; may be empty.
    pub members: Vec<Member>,
    /// Line of the name, or of the first use of a literal.
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

/// One source translation rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatRule {
    /// Its name.
    pub name: String,
    /// Zones the conversation comes from.
    pub from: Selector<ZoneId>,
    /// Zones the conversation goes to.
    pub to: Selector<ZoneId>,
    /// What becomes of the source address.
    pub translate: Translation,
    /// Line of the name.
    pub line: u32,
}

/// How many sessions, and how long they may be idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Sessions at once.
    pub max: u32,
    /// Half-open sessions at once; at most `max`.
    pub half_open: u32,
    /// Idle times.
    pub timeouts: Timeouts,
}

impl SessionLimits {
    /// Sessions at once, unless the document says otherwise.
    pub const DEFAULT_MAX: u32 = 262_144;
    /// Half-open sessions at once, unless the document says otherwise or `max` is less.
    pub const DEFAULT_HALF_OPEN: u32 = 65_536;
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            max: Self::DEFAULT_MAX,
            half_open: Self::DEFAULT_HALF_OPEN,
            timeouts: Timeouts::default(),
        }
    }
}

/// How long a session may be idle: whole milliseconds, from 1 s to 7 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP before both sides have agreed.
    pub tcp_opening: Duration,
    /// TCP in use.
    pub tcp_established: Duration,
    /// TCP of which one side has said goodbye.
    pub tcp_closing: Duration,
    /// TCP after both goodbyes or a reset.
    pub tcp_closed: Duration,
    /// UDP without an answer so far.
    pub udp_one_way: Duration,
    /// UDP in both directions.
    pub udp_two_way: Duration,
    /// ICMP queries.
    pub icmp: Duration,
    /// Every other protocol.
    pub other: Duration,
}

impl Default for Timeouts {
    /// RFC 5382 REQ-5, RFC 4787 REQ-5, RFC 5508 REQ-2, or more where those ask for a minimum.
    fn default() -> Self {
        Self {
            tcp_opening: Duration::from_secs(240),
            tcp_established: Duration::from_secs(7_440),
            tcp_closing: Duration::from_secs(240),
            tcp_closed: Duration::from_secs(10),
            udp_one_way: Duration::from_secs(30),
            udp_two_way: Duration::from_secs(300),
            icmp: Duration::from_secs(60),
            other: Duration::from_secs(600),
        }
    }
}

impl Config {
    /// The zone of an id of this configuration.
    pub fn zone(&self, id: ZoneId) -> &Zone {
        &self.zones[id.0 as usize]
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
