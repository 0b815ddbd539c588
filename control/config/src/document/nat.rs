//! Address translation as it is written: pools of addresses and the three kinds of rules.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::one_or_many::{NumberOrText, OneOrMany};

/// Address translation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    default,
    expecting = "a mapping of pools, source, destination, static and answerNeighbours"
)]
pub struct Nat {
    /// Named sets of addresses to translate to.
    pub pools: Vec<PoolEntry>,
    /// Ordered rules for the source address: the first match wins, what nothing matches keeps its address.
    pub source: Vec<SourceNat>,
    /// Ordered rules for the destination address, asked before route and policy: the first match wins, what nothing matches keeps its address.
    pub destination: Vec<DestinationNat>,
    /// Fixed pairs of prefixes, translated in both directions.
    #[serde(rename = "static")]
    pub statics: Vec<StaticNat>,
    /// Whether the firewall answers ARP and neighbour solicitations for addresses that only translation has: those of pools and static rules, and single addresses that destination rules name. Default: true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_neighbours: Option<bool>,
}

/// One set of addresses to translate to. With `port` it is for destination rules, with `ports`, `paired` or `alarm` for source rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping with a name and addresses"
)]
pub struct PoolEntry {
    /// Name of the pool.
    #[schemars(regex(pattern = crate::schema::NAME))]
    pub name: String,
    /// Addresses (`203.0.113.7`), prefixes (`203.0.113.0/28`) and ranges (`203.0.113.20-203.0.113.25`), of one or both families; neighbours merged, at most 8 ranges of each.
    #[schemars(length(min = 1))]
    pub addresses: Vec<String>,
    /// Source ports to translate to, within 1-65535, or `none` to keep every port. Default: `1024-65535`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = crate::schema::PORTS), extend("minimum" = 1, "maximum" = 65_535))]
    pub ports: Option<NumberOrText>,
    /// Destination port to translate to, 1 to 65535. Default: the port stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<u16>,
    /// Whether all sessions of one host get the same address. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paired: Option<bool>,
    /// When to tell that the pool is running out. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<PoolAlarmEntry>,
}

/// When to tell that a pool is running out, in per cent of what it can hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping of raise and clear"
)]
pub struct PoolAlarmEntry {
    /// The alarm is raised at this utilization, 1 to 100.
    #[schemars(range(min = 1, max = 100))]
    pub raise: u32,
    /// It is over below this utilization, less than `raise`.
    #[schemars(range(min = 1, max = 100))]
    pub clear: u32,
}

/// One source translation rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping with name, from, to and translate"
)]
pub struct SourceNat {
    /// Name of the rule.
    #[schemars(regex(pattern = crate::schema::NAME))]
    pub name: String,
    /// Zones the conversation comes from, or `any`.
    pub from: OneOrMany<String>,
    /// Zones the conversation goes to, or `any`.
    pub to: OneOrMany<String>,
    /// Who starts it: address groups, addresses, prefixes or ranges. Default: any address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<OneOrMany<String>>,
    /// Whom it is for, after destination translation: address groups, addresses, prefixes or ranges. Default: any address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<OneOrMany<String>>,
    /// What it speaks: services by name, own or builtin. Default: any service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<OneOrMany<String>>,
    /// What becomes of the source address.
    pub translate: Translation,
    /// The pool, with `translate: pool`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// Whether a host keeps its translated address and port towards everybody, and who may then reach it there. Default: neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent: Option<PersistentScope>,
    /// How long it keeps them after its last session, 60s to 7200s. Default: `300s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = crate::schema::DURATION))]
    pub persistent_timeout: Option<NumberOrText>,
}

/// What becomes of the source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Translation {
    /// It becomes the address of the interface the packet leaves through.
    Interface,
    /// It stays; later rules are not asked.
    Off,
    /// It becomes an address of the pool.
    Pool,
}

/// Who may reach a host at the address and port it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PersistentScope {
    /// Everybody.
    AnyRemoteHost,
    /// Hosts it has sent to.
    TargetHost,
    /// Hosts it has sent to, from the port it has sent to.
    TargetHostPort,
}

/// One destination translation rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping with name, from and translate"
)]
pub struct DestinationNat {
    /// Name of the rule.
    #[schemars(regex(pattern = crate::schema::NAME))]
    pub name: String,
    /// Zones the conversation comes from, or `any`.
    pub from: OneOrMany<String>,
    /// Who starts it: address groups, addresses, prefixes or ranges. Default: any address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<OneOrMany<String>>,
    /// Whom it is for, before translation: address groups, addresses, prefixes or ranges. Default: any address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<OneOrMany<String>>,
    /// What it speaks, before translation: services by name, own or builtin. Default: any service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<OneOrMany<String>>,
    /// What becomes of the destination address.
    pub translate: DestinationTranslation,
    /// The pool, with `translate: pool`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}

/// What becomes of the destination address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DestinationTranslation {
    /// It becomes an address of the pool, and the port the pool's, if it has one.
    Pool,
    /// It stays; later rules are not asked.
    Off,
}

/// Two prefixes of one length that stand for each other, address by address, in both directions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping with name, from, prefix and to"
)]
pub struct StaticNat {
    /// Name of the rule.
    #[schemars(regex(pattern = crate::schema::NAME))]
    pub name: String,
    /// Zones on whose side `prefix` is used, or `any`.
    pub from: OneOrMany<String>,
    /// The addresses as they are known there: a prefix, or a single address.
    pub prefix: String,
    /// The addresses the hosts really have: of the same family and length.
    pub to: String,
    /// Whether the checksum is kept by adapting the address (RFC 6296) instead of being corrected: for IPv6 prefixes of at most 64 bits. Default: false.
    #[serde(default)]
    pub npt: bool,
}
