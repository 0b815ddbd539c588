//! `show nat`: the rules of translation, the pools they name and how full they are, the mappings they made.

use std::net::SocketAddr;

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
    /// Addresses and ports that inside hosts keep (`persistent`), at most [`SHOWN_MAPPINGS`] of them.
    pub mappings: Vec<Mapping>,
    /// How many there are.
    pub total_mappings: usize,
}

/// Mappings that one answer names.
pub const SHOWN_MAPPINGS: usize = 1000;

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
    /// Conversations it decided about.
    pub hits: u64,
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
    /// Conversations from outside.
    pub hits_inbound: u64,
    /// Conversations from inside.
    pub hits_outbound: u64,
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
    /// Sessions with an address of it; nothing where no source rule names it.
    pub sessions: Option<u64>,
    /// The same in per cent of its addresses times ports.
    pub used_percent: Option<u64>,
    /// Whether the alarm is raised.
    pub alarm: bool,
}

/// An address and port that an inside host keeps, whatever it talks to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mapping {
    /// Name of the protocol.
    pub protocol: String,
    /// Who has it.
    pub inside: SocketAddr,
    /// What the outside sees.
    pub outside: SocketAddr,
    /// The source rule that made it.
    pub rule: Option<String>,
    /// Who may send to it: `any-remote-host`, `target-host` or `target-host-port`.
    pub persistent: String,
    /// Since a session was last seen to use it.
    pub idle_seconds: f64,
    /// How long it outlives its last session.
    pub timeout_seconds: f64,
}
