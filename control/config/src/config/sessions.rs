//! Sessions, resolved: how many, how long, and how strictly their TCP is followed.

use std::time::Duration;

use crate::document::{Midstream, SizeName, Window};

/// How many sessions, and how long they may be idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Sessions at once.
    pub max: u32,
    /// Half-open sessions at once; at most `max`.
    pub half_open: u32,
    /// Idle times.
    pub timeouts: Timeouts,
    /// Shorter ones while the table is nearly full.
    pub early_ageing: Option<EarlyAgeing>,
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self {
            max: SizeName::default().sessions(),
            half_open: SizeName::default().half_open(),
            timeouts: Timeouts::default(),
            early_ageing: None,
        }
    }
}

/// How long a session may be idle: whole milliseconds, from 1 s to 7 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP before both sides have agreed.
    pub tcp_opening: Duration,
    /// TCP in use, and DCCP that was answered.
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
    /// Every other protocol, and DCCP before it is answered.
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

/// Shorter idle times while the table is nearly full; `1 <= low < high <= 100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EarlyAgeing {
    /// Per cent of [`SessionLimits::max`] at which it begins.
    pub high: u8,
    /// Per cent at which it ends.
    pub low: u8,
    /// The longest idle time meanwhile, 1 s to 7 days.
    pub timeout: Duration,
}

impl Default for EarlyAgeing {
    fn default() -> Self {
        Self {
            high: 90,
            low: 80,
            timeout: Duration::from_secs(20),
        }
    }
}

/// How strictly TCP is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// What a segment outside the window may do.
    pub window: Window,
    /// What becomes of a connection whose beginning was not seen.
    pub midstream: Midstream,
    /// Upper bound of the segment size that a SYN may announce.
    pub mss: Mss,
}

/// Upper bound of the segment size that a SYN may announce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mss {
    /// There is none.
    #[default]
    None,
    /// What the interfaces on the way can carry.
    Path,
    /// So many bytes, 88 to 65495.
    Bytes(u16),
}
