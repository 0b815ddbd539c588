//! Screens as they are written: what is suspicious enough to be dropped whatever the policies say.
//!
//! Everything is off unless it is written. A threshold counts within one second unless it says otherwise.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::one_or_many::NumberOrText;
use crate::toggle::{Detail, Toggle};

/// One screen profile. What is not written is off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a mapping with a name"
)]
pub struct ScreenEntry {
    /// Name of the profile. `default` replaces the builtin profile of that name.
    #[schemars(regex(pattern = crate::schema::NAME))]
    pub name: String,
    /// Whether what it finds is only counted and reported, not dropped. Default: false.
    #[serde(default)]
    pub alarm_without_drop: bool,
    /// ICMP and ICMPv6.
    #[serde(default)]
    pub icmp: IcmpScreens,
    /// IPv4 and IPv6 themselves.
    #[serde(default)]
    pub ip: IpScreens,
    /// TCP segments and connections.
    #[serde(default)]
    pub tcp: TcpScreens,
    /// UDP datagrams.
    #[serde(default)]
    pub udp: UdpScreens,
    /// How many sessions one address may have at once.
    #[serde(default)]
    pub session_limit: SessionLimitEntry,
}

/// What is suspicious in ICMP and ICMPv6.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    default,
    expecting = "a mapping"
)]
pub struct IcmpScreens {
    /// Most packets a second to one destination, 1 to 1000000; `true` for 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = 1_000_000))]
    pub flood: Option<Toggle<u32>>,
    /// One source that asks many addresses for an echo: so many within the interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Toggle<ScanEntry>>,
    /// Fragments of ICMP. Default: false.
    pub fragment: bool,
    /// Messages of more than 1024 bytes. Default: false.
    pub large: bool,
    /// Fragments that together would be longer than a packet can be. Default: false.
    pub ping_of_death: bool,
}

/// What is suspicious in IPv4 and IPv6 themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    default,
    expecting = "a mapping"
)]
pub struct IpScreens {
    /// IPv4 options of wrong form or length, or with a number that no other screen names (but router alert). Default: false.
    pub bad_option: bool,
    /// Fragments of any protocol. Default: false.
    pub fragment: bool,
    /// Loose or strict source route (IPv4), routing headers (IPv6). Default: false.
    pub source_route: bool,
    /// The option record route. Default: false.
    pub record_route: bool,
    /// The option timestamp. Default: false.
    pub timestamp: bool,
    /// The option security. Default: false.
    pub security: bool,
    /// The option stream id. Default: false.
    pub stream: bool,
    /// Sources whose route leads elsewhere; not with `forwarding: wire`. Default: false.
    pub spoofing: bool,
    /// Fragments that overlap. Default: false.
    pub teardrop: bool,
    /// Protocol numbers from 143 on. Default: false.
    pub unknown_protocol: bool,
    /// IPv6 packets with hop-by-hop, destination, routing, mobility, HIP or Shim6 headers. Default: false.
    pub extension_headers: bool,
}

/// What is suspicious in TCP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    default,
    expecting = "a mapping"
)]
pub struct TcpScreens {
    /// The same address at both ends. Default: false.
    pub land: bool,
    /// Segments without any flag. Default: false.
    pub no_flags: bool,
    /// SYN and FIN together. Default: false.
    pub syn_fin: bool,
    /// FIN without ACK. Default: false.
    pub fin_no_ack: bool,
    /// Urgent data to port 139. Default: false.
    pub winnuke: bool,
    /// SYN segments in fragments. Default: false.
    pub syn_fragment: bool,
    /// One source that tries many ports of one destination: so many within the interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_scan: Option<Toggle<ScanEntry>>,
    /// One source that tries many addresses: so many within the interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Toggle<ScanEntry>>,
    /// Protection against floods of SYN segments; `true` for the defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syn_flood: Option<Toggle<SynFloodEntry>>,
    /// Most TCP connections that one source has open at once, 1 to 1000000; `true` for 512.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = 1_000_000))]
    pub syn_ack_ack: Option<Toggle<u32>>,
}

/// What is suspicious in UDP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    default,
    expecting = "a mapping"
)]
pub struct UdpScreens {
    /// Most packets a second to one destination, 1 to 1000000; `true` for 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = 1_000_000))]
    pub flood: Option<Toggle<u32>>,
    /// One source that tries many ports of one destination: so many within the interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_scan: Option<Toggle<ScanEntry>>,
    /// One source that tries many addresses: so many within the interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sweep: Option<Toggle<ScanEntry>>,
}

/// How many, how quickly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    default,
    expecting = "a mapping of count and interval"
)]
pub struct ScanEntry {
    /// So many different ones are a scan, 2 to 128. Default: 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 128))]
    pub count: Option<u32>,
    /// Within this time, from 1ms to 1s. Default: `5ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = crate::schema::DURATION))]
    pub interval: Option<NumberOrText>,
}

impl Detail for ScanEntry {
    const EXPECTED: &str = "true, false or a mapping of count and interval";
}

/// From how many SYN segments a second on it is a flood.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    default,
    expecting = "a mapping of attack, alarm, source and destination"
)]
pub struct SynFloodEntry {
    /// To one destination: from here on new connections are answered with SYN cookies, 1 to 1000000. Default: 200.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub attack: Option<u32>,
    /// To one destination: from here on it is reported, 1 to 1000000. Default: 512.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub alarm: Option<u32>,
    /// From one source: what is more is dropped, 1 to 1000000. Default: 4000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub source: Option<u32>,
    /// To one destination, all ports together: what is more is dropped, 1 to 1000000. Default: 2048.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub destination: Option<u32>,
}

impl Detail for SynFloodEntry {
    const EXPECTED: &str = "true, false or a mapping of attack, alarm, source and destination";
}

/// How many sessions one address may have at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    default,
    expecting = "a mapping of source and destination"
)]
pub struct SessionLimitEntry {
    /// Most sessions that one source has opened; `true` for 128. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = 67_108_864))]
    pub source: Option<Toggle<u32>>,
    /// Most sessions to one destination; `true` for 128. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 1, "maximum" = 67_108_864))]
    pub destination: Option<Toggle<u32>>,
}
