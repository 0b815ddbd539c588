//! Sessions as they are written: how many, how long, and how strictly their TCP is followed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::one_or_many::NumberOrText;
use crate::toggle::{Detail, Toggle};

/// Limits and timeouts of sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    default,
    expecting = "a mapping"
)]
pub struct Sessions {
    /// How many sessions there may be at once. Default: that of `size`, 262144 for `medium`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 67_108_864))]
    pub max: Option<u32>,
    /// How many of them may be half-open, so that a flood cannot push out established ones. Default: that of `size`, 65536 for `medium`, or `max` if that is less.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 67_108_864))]
    pub half_open: Option<u32>,
    /// How long a session may be idle, as durations such as `90s`, `5m`, `2h`.
    pub timeouts: TimeoutEntries,
    /// Shorter idle times while the table is nearly full; `true` for the defaults. Default: off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub early_ageing: Option<Toggle<EarlyAgeingEntry>>,
}

/// Shorter idle times while the table is nearly full: on at `high`, off again at `low`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    default,
    expecting = "a mapping of high, low and timeout"
)]
pub struct EarlyAgeingEntry {
    /// Per cent of `max` at which it begins. Default: 90.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub high: Option<u32>,
    /// Per cent of `max` at which it ends, less than `high`. Default: 80.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub low: Option<u32>,
    /// The longest idle time meanwhile, from 1s to 7d. Default: `20s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = crate::schema::DURATION))]
    pub timeout: Option<NumberOrText>,
}

impl Detail for EarlyAgeingEntry {
    const EXPECTED: &str = "true, false or a mapping of high, low and timeout";
}

/// How strictly TCP is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    default,
    expecting = "a mapping of window, midstream and mss"
)]
pub struct TcpEntry {
    /// What a segment outside the window may do. Default: `strict`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// What becomes of a connection whose beginning was not seen. Default: `deny`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub midstream: Option<Midstream>,
    /// Upper bound of the segment size that a SYN may announce: `none`, `path` (what the two interfaces can carry) or bytes from 88 to 65495. Default: `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = crate::schema::MSS), extend("minimum" = 88, "maximum" = 65_495))]
    pub mss: Option<NumberOrText>,
}

/// What a TCP segment outside the window may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    /// Nothing: it is dropped (RFC 5961).
    #[default]
    Strict,
    /// Pass, but change nothing about the session: for paths on which only one direction is seen.
    Liberal,
}

/// What becomes of a TCP connection whose beginning was not seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Midstream {
    /// Its segments are dropped.
    #[default]
    Deny,
    /// It becomes a session if a policy permits it.
    Permit,
}

/// How long a session may be idle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    default,
    expecting = "a mapping of durations"
)]
pub struct TimeoutEntries {
    /// TCP before both sides have agreed. Default: `240s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = crate::schema::DURATION))]
    pub tcp_opening: Option<NumberOrText>,
    /// TCP in use, and DCCP that was answered. Default: `7440s` (2 h 4 min, RFC 5382).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = crate::schema::DURATION))]
    pub tcp_established: Option<NumberOrText>,
    /// TCP of which one side has said goodbye. Default: `240s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = crate::schema::DURATION))]
    pub tcp_closing: Option<NumberOrText>,
    /// TCP after both goodbyes or a reset. Default: `10s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = crate::schema::DURATION))]
    pub tcp_closed: Option<NumberOrText>,
    /// UDP without an answer so far. Default: `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = crate::schema::DURATION))]
    pub udp_one_way: Option<NumberOrText>,
    /// UDP in both directions. Default: `300s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = crate::schema::DURATION))]
    pub udp_two_way: Option<NumberOrText>,
    /// ICMP queries. Default: `60s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = crate::schema::DURATION))]
    pub icmp: Option<NumberOrText>,
    /// Every other protocol. Default: `600s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = crate::schema::DURATION))]
    pub other: Option<NumberOrText>,
}
