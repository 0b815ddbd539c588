//! Limits and timeouts of sessions, and how strictly their TCP is followed.
//!
//! What is not written has the default of the size, of [`Timeouts`] and of [`Tcp`]; a number or duration out of bounds is refused.

use std::time::Duration;

use super::Checker;
use super::quantities::TIMEOUTS;
use crate::config::{EarlyAgeing, Mss, SessionLimits, Tcp, Timeouts};
use crate::document::{EarlyAgeingEntry, Sessions, SizeName, TcpEntry, TimeoutEntries};
use crate::node::steps;
use crate::one_or_many::NumberOrText;
use crate::suggest::nearest;
use crate::toggle::Toggle;

/// 2^26: more would not fit into the memory of the machines this runs on.
pub(super) const MAX_SESSIONS: u32 = 67_108_864;
/// Below 88 Linux itself sends no segments (`TCP_MIN_MSS`); 65,495 is what fits into an IPv4 packet.
const MSS_BOUNDS: (u16, u16) = (88, 65_495);

impl Checker<'_, '_> {
    /// `size` gives what is not written.
    pub(super) fn sessions(&mut self, entry: &Sessions, size: SizeName) -> SessionLimits {
        let at = |field: &'static str| steps!["spec", "sessions", field];
        let bounds = (1, MAX_SESSIONS);
        let max = self.number(&at("max"), entry.max, size.sessions(), bounds);
        let half_open = self.number(
            &at("halfOpen"),
            entry.half_open,
            size.half_open().min(max),
            bounds,
        );
        if half_open > max {
            let message = format!("halfOpen {half_open} is more than max {max}");
            let help = "half-open sessions count as sessions too: write at most max".to_owned();
            self.error(&at("halfOpen"), (message, Some(help)));
        }
        SessionLimits {
            max,
            half_open,
            timeouts: self.timeouts(&entry.timeouts),
            early_ageing: Toggle::when_on(entry.early_ageing.as_ref()).map(|entry| self.early_ageing(&entry)),
        }
    }

    fn timeouts(&mut self, entries: &TimeoutEntries) -> Timeouts {
        let default = Timeouts::default();
        let mut timeout = |field: &'static str, written: &Option<NumberOrText>, default: Duration| {
            let path = steps!["spec", "sessions", "timeouts", field];
            self.duration(&path, written.as_ref(), default, TIMEOUTS)
        };
        Timeouts {
            tcp_opening: timeout("tcpOpening", &entries.tcp_opening, default.tcp_opening),
            tcp_established: timeout(
                "tcpEstablished",
                &entries.tcp_established,
                default.tcp_established,
            ),
            tcp_closing: timeout("tcpClosing", &entries.tcp_closing, default.tcp_closing),
            tcp_closed: timeout("tcpClosed", &entries.tcp_closed, default.tcp_closed),
            udp_one_way: timeout("udpOneWay", &entries.udp_one_way, default.udp_one_way),
            udp_two_way: timeout("udpTwoWay", &entries.udp_two_way, default.udp_two_way),
            icmp: timeout("icmp", &entries.icmp, default.icmp),
            other: timeout("other", &entries.other, default.other),
        }
    }

    fn early_ageing(&mut self, entry: &EarlyAgeingEntry) -> EarlyAgeing {
        let at = |field: &'static str| steps!["spec", "sessions", "earlyAgeing", field];
        let default = EarlyAgeing::default();
        let high = self.per_cent(&at("high"), entry.high, default.high);
        let low = self.per_cent(&at("low"), entry.low, default.low);
        if low >= high {
            let message = format!("early ageing would begin at {high} and end at {low} per cent");
            let field = if entry.low.is_some() { "low" } else { "high" };
            let help = "write a `low` that is less than `high`".to_owned();
            self.error(&at(field), (message, Some(help)));
        }
        EarlyAgeing {
            high,
            low,
            timeout: self.duration(&at("timeout"), entry.timeout.as_ref(), default.timeout, TIMEOUTS),
        }
    }

    pub(super) fn tcp(&mut self, entry: &TcpEntry) -> Tcp {
        let mss = match entry.mss.as_ref().map(|written| &*written.0) {
            None | Some("none") => Mss::None,
            Some("path") => Mss::Path,
            Some(text) => match text.parse::<u16>() {
                Ok(bytes) if (MSS_BOUNDS.0..=MSS_BOUNDS.1).contains(&bytes) => Mss::Bytes(bytes),
                _ => {
                    let help = match nearest(text, ["none", "path"]) {
                        Some(near) => format!("did you mean \"{near}\"?"),
                        None => format!("it can be {} to {}, none or path", MSS_BOUNDS.0, MSS_BOUNDS.1),
                    };
                    let message = format!("\"{text}\" is not a segment size");
                    self.error(&steps!["spec", "tcp", "mss"], (message, Some(help)));
                    Mss::None
                }
            },
        };
        Tcp {
            window: entry.window.unwrap_or_default(),
            midstream: entry.midstream.unwrap_or_default(),
            mss,
        }
    }
}
