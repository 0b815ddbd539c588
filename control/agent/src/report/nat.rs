//! `show nat`: the rules of translation and the pools they name.

use serde::{Deserialize, Serialize};

/// `show nat`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Nat {
    /// Source translation, in the order in which the rules are asked.
    pub source: Vec<SourceRule>,
    /// Destination translation, in the order in which the rules are asked.
    pub destination: Vec<DestinationRule>,
    /// Pairs of prefixes, in the order of the configuration.
    #[serde(rename = "static")]
    pub statics: Vec<StaticRule>,
    /// What rules translate to, in the order of the configuration.
    pub pools: Vec<Pool>,
}

/// A source translation rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceRule {
    /// Its place, from 1.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// Zones, or `any`.
    pub from: Vec<String>,
    /// Zones, or `any`.
    pub to: Vec<String>,
    /// Groups and literal addresses, or `any`.
    pub source: Vec<String>,
    /// Groups and literal addresses, or `any`.
    pub destination: Vec<String>,
    /// Services, or `any`.
    pub service: Vec<String>,
    /// `interface`, `pool` or `off`.
    pub translate: String,
    /// The pool's name.
    pub pool: Option<String>,
    /// `any-remote-host`, `target-host` or `target-host-port`.
    pub persistent: Option<String>,
    /// How long a host keeps its address and port after its last session.
    pub persistent_timeout_seconds: Option<u64>,
    /// Conversations it decided about.
    pub hits: u64,
}

/// A destination translation rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DestinationRule {
    /// Its place, from 1.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// Zones, or `any`.
    pub from: Vec<String>,
    /// Groups and literal addresses, or `any`.
    pub source: Vec<String>,
    /// Groups and literal addresses before translation, or `any`.
    pub destination: Vec<String>,
    /// Services before translation, or `any`.
    pub service: Vec<String>,
    /// `pool` or `off`.
    pub translate: String,
    /// The pool's name.
    pub pool: Option<String>,
}

/// Two prefixes that stand for each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StaticRule {
    /// Its name.
    pub name: String,
    /// Zones on whose side `prefix` is used, or `any`.
    pub from: Vec<String>,
    /// The addresses as they are known there.
    pub prefix: String,
    /// The addresses the hosts really have.
    pub to: String,
    /// Whether checksums are kept by adapting the address (RFC 6296).
    pub npt: bool,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Its addresses as ranges, neighbours merged.
    pub addresses: Vec<String>,
    /// Source ports that sessions get, such as `1024-65535`; nothing where ports stay.
    pub ports: Option<String>,
    /// The port that destination rules translate to.
    pub port: Option<u16>,
    /// Whether all sessions of one host get one address.
    pub paired: bool,
    /// Per cent of use at which the alarm is raised.
    pub alarm_raise: Option<u8>,
    /// Per cent of use below which it is over.
    pub alarm_clear: Option<u8>,
    /// Rules that name it.
    pub rules: Vec<String>,
}
