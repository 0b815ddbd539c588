//! Limits and timeouts of sessions.
//!
//! What is not written has the default of [`SessionLimits`]; a number or duration out of bounds is refused.

use std::time::Duration;

use super::Checker;
use crate::address::Refusal;
use crate::config::{SessionLimits, Timeouts};
use crate::document::Sessions;
use crate::node::steps;
use crate::one_or_many::NumberOrText;

/// 2^26: more would not fit into the memory of the machines this runs on.
const MAX_SESSIONS: u32 = 67_108_864;
const TIMEOUT_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(7 * 86_400));

impl Checker<'_, '_> {
    pub(super) fn sessions(&mut self, entry: &Sessions) -> SessionLimits {
        let mut number = |field: &'static str, written: Option<u32>, default| {
            let number = written.unwrap_or(default);
            if number == 0 || number > MAX_SESSIONS {
                let help = Some(format!("it can be 1 to {MAX_SESSIONS}"));
                self.error(
                    &steps!["spec", "sessions", field],
                    (format!("{field} cannot be {number}"), help),
                );
            }
            number
        };
        let max = number("max", entry.max, SessionLimits::DEFAULT_MAX);
        let half_open = number(
            "halfOpen",
            entry.half_open,
            SessionLimits::DEFAULT_HALF_OPEN.min(max.max(1)),
        );
        if half_open > max {
            let message = format!("halfOpen {half_open} is more than max {max}");
            let help = "half-open sessions count as sessions too: write at most max".to_owned();
            self.error(&steps!["spec", "sessions", "halfOpen"], (message, Some(help)));
        }
        let default = Timeouts::default();
        let entries = &entry.timeouts;
        let mut timeout = |field: &'static str, written: &Option<NumberOrText>, default: Duration| {
            let Some(written) = written else { return default };
            parse_timeout(&written.0).unwrap_or_else(|refusal| {
                self.error(&steps!["spec", "sessions", "timeouts", field], refusal);
                default
            })
        };
        let timeouts = Timeouts {
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
        };
        SessionLimits {
            max,
            half_open,
            timeouts,
        }
    }
}

fn parse_timeout(text: &str) -> Result<Duration, Refusal> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" if !number.is_empty() => {
            return Err((
                format!("duration {text} has no unit"),
                Some(format!("write {text}s for seconds")),
            ));
        }
        _ => 0,
    };
    let Some(number) = number.parse::<u64>().ok().filter(|_| milliseconds > 0) else {
        let help = "write a number and a unit: 90s, 5m, 2h".to_owned();
        return Err((format!("\"{text}\" is not a duration"), Some(help)));
    };
    let duration = Duration::from_millis(number.saturating_mul(milliseconds));
    if duration < TIMEOUT_BOUNDS.0 || duration > TIMEOUT_BOUNDS.1 {
        return Err((
            format!("a timeout of {text} is out of bounds"),
            Some("it can be 1s to 7d".to_owned()),
        ));
    }
    Ok(duration)
}
