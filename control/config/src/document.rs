//! The document as it is written: one type for each mapping of `firewall.yaml`.
//!
//! Owns names and nesting; the doc comments are the descriptions of the JSON Schema. Values that need
//! judgement (addresses, ports, names, durations) are kept as text here and judged in `resolve`, where every
//! fault gets its place. Refuses fields it does not know.

mod addresses;
mod nat;
mod routes;
mod screens;
mod sessions;
mod size;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::addresses::{AddressGroup, ClientCertificateEntry, FeedEntry, ListFormat, Pods};
pub use self::nat::{
    DestinationNat, DestinationTranslation, Nat, PersistentScope, PoolAlarmEntry, PoolEntry, SourceNat,
    StaticNat, Translation,
};
pub use self::routes::RouteEntry;
pub use self::screens::{
    IcmpScreens, IpScreens, ScanEntry, ScreenEntry, SessionLimitEntry, SynFloodEntry, TcpScreens, UdpScreens,
};
pub use self::sessions::{EarlyAgeingEntry, Midstream, Sessions, TcpEntry, TimeoutEntries, Window};
pub use self::size::{SizeEntry, SizeName, SizeNumbers};
use crate::one_or_many::{NumberOrText, OneOrMany};

/// One firewall: its interfaces, zones, address groups, services, policies and translations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a mapping")]
#[schemars(title = "Bulkhead firewall configuration")]
pub struct Document {
    /// Version of this format: `bulkhead.dev/v1alpha1`.
    #[schemars(extend("const" = crate::API_VERSION))]
    pub api_version: String,
    /// Always `Firewall`.
    #[schemars(extend("const" = crate::KIND))]
    pub kind: String,
    /// What this firewall is called.
    pub metadata: Metadata,
    /// What this firewall does.
    pub spec: Spec,
}

/// What the firewall is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping with a name"
)]
pub struct Metadata {
    /// Name of this firewall in logs, metrics and the director.
    #[schemars(regex(pattern = crate::schema::NAME))]
    pub name: String,
}

/// What the firewall does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    default,
    expecting = "a mapping"
)]
pub struct Spec {
    /// How packets cross the firewall. Default: `routed`.
    pub forwarding: Forwarding,
    /// Pairs of interfaces, with `forwarding: wire` only: every interface is an end of exactly one wire.
    pub wires: Vec<WireEntry>,
    /// Where the programs attach on interfaces that do not say so themselves. Default: `auto`.
    pub hook: Hook,
    /// The data interfaces, at most 15. The management interface is not listed and never touched.
    #[schemars(length(max = 15))]
    pub interfaces: Vec<InterfaceEntry>,
    /// Static routes for what is forwarded, with `forwarding: routed` only, beside those that the kernel has.
    pub routes: Vec<RouteEntry>,
    /// Names for one or more interfaces; policies speak of zones.
    pub zones: Vec<ZoneEntry>,
    /// Screen profiles: what is dropped whatever the policies say. A zone names the one it wants.
    pub screens: Vec<ScreenEntry>,
    /// Named sets of addresses.
    pub addresses: Vec<AddressGroup>,
    /// Named protocols and ports, besides the builtin ones.
    pub services: Vec<ServiceEntry>,
    /// Ordered rules from zone to zone: the first match wins, what nothing matches is denied.
    pub policies: Vec<PolicyEntry>,
    /// Address translation, with `forwarding: routed` only. The order is: static (inbound), destination, route, zones, policy, static (outbound), source.
    pub nat: Nat,
    /// How strictly TCP is followed.
    pub tcp: TcpEntry,
    /// How large the tables are made, at the start: `small`, `medium`, `large`, `xlarge`, or numbers. Default: `medium`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<SizeEntry>,
    /// Limits and timeouts of sessions.
    pub sessions: Sessions,
    /// Protocols whose further connections are found out by reading along. Default: none.
    pub algs: Vec<Alg>,
}

/// How packets cross the firewall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Forwarding {
    /// By the kernel's routing table.
    #[default]
    Routed,
    /// Two interfaces spliced at layer 2: no routes, no addresses of its own, no translation.
    Wire,
}

/// Two interfaces between which frames go to and fro.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping with a name and two interfaces"
)]
pub struct WireEntry {
    /// Name of the wire.
    #[schemars(regex(pattern = crate::schema::NAME))]
    pub name: String,
    /// Its two ends, by the names in `spec.interfaces`.
    #[schemars(length(min = 2, max = 2))]
    pub interfaces: Vec<String>,
    /// What becomes of ARP. Default: `pass`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arp: Option<Passage>,
    /// What becomes of frames that are neither IP nor ARP. Default: `drop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub non_ip: Option<Passage>,
}

/// Whether a frame that no policy can judge goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Passage {
    /// It goes through.
    Pass,
    /// It is dropped and counted.
    Drop,
}

/// A protocol whose messages name the address and port of a further connection. That one is then permitted and translated too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Alg {
    /// File transfer, active and passive, IPv4 and IPv6 (RFC 959, RFC 2428): control connections to TCP port 21.
    Ftp,
    /// Trivial file transfer (RFC 1350): requests to UDP port 69, answers from any port.
    Tftp,
}

/// Where the programs attach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// Whatever the preflight finds best for the interface, printed with the reason.
    #[default]
    Auto,
    /// TCX only: keeps the offloads of veth and macvlan.
    Tcx,
    /// XDP for established sessions and drops, TCX for the rest.
    Xdp,
}

/// One data interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping with a name and a zone"
)]
pub struct InterfaceEntry {
    /// Name of the interface in the kernel, such as `net1`.
    #[schemars(regex(pattern = crate::schema::NAME), length(max = 15))]
    pub name: String,
    /// The zone it belongs to.
    pub zone: String,
    /// Addresses to give it, as address/length (`10.2.0.1/24`). Without this field it keeps those it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Where the programs attach on this interface. Default: `spec.hook`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<Hook>,
}

/// One zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping with a name"
)]
pub struct ZoneEntry {
    /// Name of the zone; `any` and `self` are reserved.
    #[schemars(regex(pattern = crate::schema::NAME))]
    pub name: String,
    /// Services of the firewall itself that this zone may reach: names from `spec.services` or builtin ones (`ping`, `ssh`, `dns`, `all`, …). Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_inbound: Vec<String>,
    /// Screen profile: a name from `spec.screens`, or the builtin `default`. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub screen: Option<String>,
}

/// One named set of protocols and ports. A packet of any of the fields matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping with a name"
)]
pub struct ServiceEntry {
    /// Name of the service; `any`, `all` and `self` are reserved. A builtin name may be given a new meaning.
    #[schemars(regex(pattern = crate::schema::NAME))]
    pub name: String,
    /// TCP destination ports: numbers (443) and ranges (`1024-65535`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<OneOrMany<NumberOrText>>,
    /// UDP destination ports: numbers (53) and ranges (`1024-65535`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub udp: Option<OneOrMany<NumberOrText>>,
    /// ICMP types of IPv4: a name (`echo-request`), a number, `type/code`, or `any`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmp: Option<OneOrMany<NumberOrText>>,
    /// ICMPv6 types: a name (`echo-request`), a number, `type/code`, or `any`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icmpv6: Option<OneOrMany<NumberOrText>>,
    /// Whole IP protocols: a name (`gre`, `esp`, `sctp`) or a number from 0 to 255.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<OneOrMany<NumberOrText>>,
    /// How long a session of this service may be idle, as a duration (`8h`) from 1s to 7d. Default: what `spec.sessions.timeouts` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = crate::schema::DURATION))]
    pub timeout: Option<NumberOrText>,
}

/// One rule. The first rule that matches a new conversation decides about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping with name, from, to and action"
)]
pub struct PolicyEntry {
    /// Name of the policy in logs, counters and `explain`.
    #[schemars(regex(pattern = crate::schema::NAME))]
    pub name: String,
    /// Zones the conversation comes from, or `any`.
    pub from: OneOrMany<String>,
    /// Zones the conversation goes to, or `any`.
    pub to: OneOrMany<String>,
    /// Who starts it: address groups, addresses, prefixes or ranges. Default: any address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<OneOrMany<String>>,
    /// Whom it is for: address groups, addresses, prefixes or ranges. Default: any address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<OneOrMany<String>>,
    /// What it speaks: services by name, own or builtin. Default: any service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<OneOrMany<String>>,
    /// What happens to it.
    pub action: Action,
    /// When an event is written. Default: never; counters count always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<OneOrMany<LogEvent>>,
}

/// What a policy does with a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Let it through, replies included.
    Permit,
    /// Drop it silently.
    Deny,
    /// Drop it and tell the sender: a TCP reset, or ICMP administratively prohibited.
    Reject,
}

/// When a policy writes an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogEvent {
    /// When it denies or rejects.
    Deny,
    /// When a permitted session ends.
    Close,
    /// When a permitted session begins.
    Create,
}
