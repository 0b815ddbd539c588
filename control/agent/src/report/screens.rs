//! `show screens`: what each zone's screens stop, from how much on, and what they have stopped.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Verdict;

/// `show screens`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Screens {
    /// Zones in the order of the configuration; of each the screens that are on, and those that have counted.
    pub screens: Vec<Screen>,
}

/// A screen of a zone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Screen {
    /// The zone that packets come from.
    pub zone: String,
    /// The profile the zone has now.
    pub profile: Option<String>,
    /// The screen: the reason of what it drops, without `screen_`.
    pub screen: String,
    /// Whether it is on.
    pub enabled: bool,
    /// What it does: `drop`, `alarm`, or `cookie` (answers in the destination's place); `null` if it is off.
    pub action: Option<String>,
    /// What is more than this is too much; `null`: every packet of the kind is, or the screen is off.
    pub threshold: Option<u32>,
    /// What the threshold counts: `packets/s`, `hosts`, `ports` or `sessions`.
    pub threshold_unit: Option<String>,
    /// The time within which hosts and ports are counted.
    pub interval_seconds: Option<f64>,
    /// Packets dropped since the start.
    pub dropped: u64,
    /// Packets that raised the alarm, or were answered in their destination's place, since the start.
    pub alarmed: u64,
    /// The last event that is still remembered. Events are rate limited: a later packet may have told nothing.
    pub last_event: Option<ScreenEvent>,
}

/// An event of a screen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScreenEvent {
    /// When, in UTC (RFC 3339).
    pub time: String,
    /// Whether the packet went on.
    pub verdict: Verdict,
    /// Where it came from.
    pub source_address: IpAddr,
    /// Where to.
    pub destination_address: IpAddr,
}
