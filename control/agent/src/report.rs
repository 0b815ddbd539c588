//! What the daemon answers: the shapes behind `-o json` and `-o yaml`.
//!
//! Stable: fields may be added, none is renamed, removed or given another meaning within one protocol version. Names
//! are snake_case and carry their unit (`_bytes`, `_seconds`) where a number has one; a packet or conversation count is
//! a plain number. An absent thing is `null`, never missing and never an empty text. `any` is written as `["any"]`.
//! Addresses are text, ports numbers; of ICMP queries both "ports" are the identifier, of other protocols 0.

mod groups;
mod memory;
mod nat;
mod revisions;
mod screens;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use self::groups::{Group, GroupChanged, GroupMember, GroupSource, Groups};
#[cfg(test)]
pub use self::memory::TableMemory;
pub use self::memory::{Memory, resident_bytes};
pub use self::nat::{DestinationRule, Mapping, Nat, Pool, SHOWN_MAPPINGS, SourceRule, StaticRule};
pub use self::revisions::{
    Committed, Confirmed, Differences, History, HistoryEntry, RefusedDocument, RevisionState, ShownConfig,
};
pub use self::screens::{Screen, ScreenEvent, Screens};

/// `show interfaces`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interfaces {
    /// Generation of the configuration in force.
    pub generation: u32,
    /// In the order of the configuration.
    pub interfaces: Vec<Interface>,
}

/// A data interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interface {
    /// Name in the kernel.
    pub name: String,
    /// Index in the kernel; `null` while the interface is gone.
    pub index: Option<u32>,
    /// Its zone.
    pub zone: String,
    /// What drives it: `veth`, `macvlan`, `physical`, …
    pub kind: String,
    /// Its MAC address.
    pub mac: String,
    /// Largest layer-3 packet.
    pub mtu_bytes: u32,
    /// Administratively up.
    pub up: bool,
    /// Its addresses with their prefix lengths.
    pub addresses: Vec<String>,
    /// `tcx`, `xdp+tcx` or `none`; with `clsact` for `tcx` where the kernel has no TCX.
    pub hook: String,
    /// Why that hook.
    pub hook_reason: String,
    /// Whether the programs are attached.
    pub attached: bool,
    /// Whether the kernel itself would forward nothing that comes in here, were the programs gone.
    pub fails_closed: bool,
    /// Programs that somebody else took off or replaced and that were put back, since the daemon started.
    pub programs_restored: u64,
    /// What would hurt, and what to do.
    pub warnings: Vec<String>,
}

/// `show zones`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Zones {
    /// In the order of the configuration.
    pub zones: Vec<Zone>,
}

/// A zone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// Its interfaces.
    pub interfaces: Vec<String>,
    /// Services of the firewall itself that it may reach.
    pub host_inbound: Vec<String>,
    /// Its screen profile.
    pub screen: Option<String>,
    /// Policies that name it as `from`, `any` included.
    pub policies_from: usize,
    /// Policies that name it as `to`, `any` included.
    pub policies_to: usize,
}

/// `show policies`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policies {
    /// In the order in which they are asked: the first match wins.
    pub policies: Vec<Policy>,
    /// Packets that no policy matched, denied by default.
    pub default_denied: u64,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
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
    /// `permit`, `deny` or `reject`.
    pub action: String,
    /// Which events are logged: `create`, `close`, `deny`.
    pub log: Vec<String>,
    /// Conversations it decided about; of denying policies, packets.
    pub hits: u64,
}

/// `show counters`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Each packet that enters a data interface is in exactly one of those whose kind is `passed` or `dropped`.
    pub counters: Vec<Counter>,
}

/// A counter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counter {
    /// The reason's name, the same in events, `explain` and metrics.
    pub name: String,
    /// `passed`, `dropped`, or `other` for what is no packet's end.
    pub kind: CounterKind,
    /// Since the daemon started.
    pub value: u64,
    /// What is counted: `packets`, `sessions`, …
    pub unit: String,
}

/// What a counter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CounterKind {
    /// Packets that went on.
    Passed,
    /// Packets that ended here.
    Dropped,
    /// Anything else.
    Other,
}

/// `show sessions`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sessions {
    /// Those that match, up to the limit, in no order.
    pub sessions: Vec<Session>,
    /// How many match.
    pub total: usize,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Its number, never used again.
    pub id: u64,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Name of its protocol, or the number.
    pub protocol: String,
    /// IP protocol number.
    pub protocol_number: u8,
    /// `syn-sent`, `established`, `closing`, `two-way`, …
    pub state: String,
    /// Whether it lives in the table that a flood of half-open sessions cannot reach.
    pub established: bool,
    /// The policy that permits it; `null` for the firewall's own conversations.
    pub policy: Option<String>,
    /// The rule that translates its source; `null` if none does.
    pub nat_rule: Option<String>,
    /// The destination translation rule.
    pub destination_rule: Option<String>,
    /// Whether addresses or ports change.
    pub translated: bool,
    /// Zone it comes from.
    pub from_zone: String,
    /// Zone it goes to.
    pub to_zone: String,
    /// Since it was created.
    pub age_seconds: f64,
    /// Since its last packet.
    pub idle_seconds: f64,
    /// How long it may be idle in this state.
    pub timeout_seconds: f64,
    /// What it has left without a further packet.
    pub expires_in_seconds: f64,
    /// The direction of its first packet.
    #[serde(rename = "in")]
    pub original: Direction,
    /// The direction of the replies: translation shows in its destination.
    #[serde(rename = "out")]
    pub reply: Direction,
}

/// One direction of a session, as its packets arrive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Direction {
    /// Where they come from.
    pub source_address: IpAddr,
    /// Port, or ICMP identifier.
    pub source_port: u16,
    /// Where they are sent to.
    pub destination_address: IpAddr,
    /// Port, or ICMP identifier.
    pub destination_port: u16,
    /// Interface they arrive on.
    pub interface: String,
    /// Packets carried.
    pub packets: u64,
    /// Bytes carried, layer 2 included.
    pub bytes: u64,
}

/// `clear sessions`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cleared {
    /// How many sessions were ended.
    pub cleared: usize,
}

/// `explain`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// What was asked.
    pub question: Question,
    /// `permit`, `deny` or `reject`.
    pub verdict: String,
    /// The reason's name, as in `show counters`.
    pub reason: String,
    /// Zone it would come from.
    pub from_zone: String,
    /// Zone it would go to; `self` for the firewall itself.
    pub to_zone: String,
    /// Interface it would come in on.
    pub ingress: String,
    /// Interface it would leave through.
    pub egress: Option<String>,
    /// The next hop, if that is not the destination itself.
    pub gateway: Option<IpAddr>,
    /// The policy that decides.
    pub policy: Option<String>,
    /// Groups that hold the source.
    pub source_groups: Vec<String>,
    /// Groups that hold the destination.
    pub destination_groups: Vec<String>,
    /// Services that match.
    pub services: Vec<String>,
    /// The source translation rule that applies.
    pub nat_rule: Option<String>,
    /// The source address it would leave with.
    pub translated_source: Option<IpAddr>,
    /// The destination translation rule that applies.
    pub destination_rule: Option<String>,
    /// The address it would go to; policy is asked about that one.
    pub translated_destination: Option<IpAddr>,
    /// The port it would go to; 0 for protocols without ports.
    pub translated_destination_port: Option<u16>,
    /// A live session of exactly this tuple.
    pub existing_session: Option<u64>,
    /// The reason for which answers would be dropped, though the conversation is permitted: there is no way back.
    pub answer_dropped: Option<String>,
    /// What would change the verdict.
    pub hint: Option<String>,
}

/// A conversation to explain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Interface or zone it comes from.
    pub from: String,
    /// Who starts it.
    pub source: IpAddr,
    /// Whom it is for.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol_number: u8,
    /// Source port; 0 if that does not matter.
    pub source_port: u16,
    /// Destination port; 0 for protocols without ports.
    pub destination_port: u16,
    /// ICMP type; `null` for other protocols.
    pub icmp_type: Option<u8>,
    /// ICMP code; `null` for other protocols.
    pub icmp_code: Option<u8>,
}

/// `observe`: one event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// RFC 3339, UTC.
    pub time: String,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: FlowKind,
    /// What became of the packet or conversation.
    pub verdict: Verdict,
    /// The reason's name, as in `show counters`.
    pub reason: String,
    /// The session; `null` for a denial, which has none.
    pub session_id: Option<u64>,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Name of the protocol, or the number.
    pub protocol: String,
    /// IP protocol number.
    pub protocol_number: u8,
    /// Who started it.
    pub source_address: IpAddr,
    /// Port, or ICMP identifier.
    pub source_port: u16,
    /// Whom it is for.
    pub destination_address: IpAddr,
    /// Port, or ICMP identifier.
    pub destination_port: u16,
    /// Source address after translation; `null` if it stays.
    pub translated_source_address: Option<IpAddr>,
    /// Source port after translation; `null` if nothing is translated.
    pub translated_source_port: Option<u16>,
    /// Destination address after translation; `null` if it stays.
    pub translated_destination_address: Option<IpAddr>,
    /// Destination port after translation; `null` if nothing is translated.
    pub translated_destination_port: Option<u16>,
    /// ICMP type; `null` for other protocols.
    pub icmp_type: Option<u8>,
    /// ICMP code; `null` for other protocols.
    pub icmp_code: Option<u8>,
    /// Interface it came in on.
    pub ingress: String,
    /// Interface it leaves through.
    pub egress: Option<String>,
    /// Zone it comes from.
    pub from_zone: String,
    /// Zone it goes to; empty where that was not looked at (`screen` only).
    pub to_zone: String,
    /// The policy that decided; `null` for the default denial.
    pub policy: Option<String>,
    /// The source translation rule.
    pub nat_rule: Option<String>,
    /// The destination translation rule.
    pub destination_rule: Option<String>,
    /// Packets from the first side (`close` only, otherwise 0).
    pub packets: u64,
    /// Bytes from the first side (`close` only, otherwise 0).
    pub bytes: u64,
    /// Packets from the other side (`close` only, otherwise 0).
    pub reply_packets: u64,
    /// Bytes from the other side (`close` only, otherwise 0).
    pub reply_bytes: u64,
    /// How long the session lived (`close` only).
    pub duration_seconds: Option<f64>,
}

/// What an event says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum FlowKind {
    /// A session was created.
    Create,
    /// A session ended.
    Close,
    /// A packet was denied or rejected.
    #[value(alias = "drop")]
    Deny,
    /// A screen dropped a packet or raised the alarm about it.
    Screen,
}

/// What became of it, in Hubble's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// It went on.
    #[value(name = "FORWARDED", alias = "forwarded")]
    Forwarded,
    /// It ended here.
    #[value(name = "DROPPED", alias = "dropped")]
    Dropped,
}

/// `doctor`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Doctor {
    /// Whether nothing failed; warnings do not count.
    pub ok: bool,
    /// The kernel's release.
    pub kernel: String,
    /// What the machine as a whole can do.
    pub checks: Vec<Check>,
    /// What each data interface can do.
    pub interfaces: Vec<InterfaceChecks>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it will do.
    pub status: CheckStatus,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// Whether something will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckStatus {
    /// It will.
    Ok,
    /// It will, but not well.
    Warn,
    /// It will not.
    Fail,
}

/// What was found about one data interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InterfaceChecks {
    /// Its name.
    pub name: String,
    /// `fail` without a hook, `warn` with warnings.
    pub status: CheckStatus,
    /// What drives it: `veth`, `macvlan`, `physical`, …; `null` if it does not exist.
    pub kind: Option<String>,
    /// The driver's name, where it has one.
    pub driver: Option<String>,
    /// Largest layer-3 packet.
    pub mtu_bytes: Option<u32>,
    /// Receive queues in use.
    pub rx_queues: Option<u32>,
    /// Transmit queues in use.
    pub tx_queues: Option<u32>,
    /// The hook it would get: `tcx` or `xdp+tcx`, with `clsact` for `tcx` where the kernel has no TCX; `null` if none.
    pub hook: Option<String>,
    /// Why that hook, or why none.
    pub hook_reason: String,
    /// What would cost packets or speed, and what to do about it.
    pub warnings: Vec<String>,
}

/// `check`
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Checked {
    /// Whether every file is sound.
    pub ok: bool,
    /// One entry for each file, in the order given.
    pub files: Vec<CheckedFile>,
}

/// One file that was checked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckedFile {
    /// As it was named.
    pub file: String,
    /// Whether it would be accepted.
    pub ok: bool,
    /// Errors and warnings by line.
    pub diagnostics: Vec<bulkhead_config::Diagnostic>,
    /// How many things of each kind it defines; empty if it is not sound.
    pub defines: BTreeMap<String, usize>,
}

/// Seconds to the millisecond: what people can use, without the noise of a clock's nanoseconds.
pub fn seconds(duration: std::time::Duration) -> f64 {
    duration.as_millis() as f64 / 1_000.0
}
