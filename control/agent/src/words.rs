//! The words that people type and read: protocols, prefixes, durations, sizes, times.
//!
//! Owns both directions, so that what is printed can be typed again. Everything here is pure; times are UTC, which
//! two people reading one log in two places need not convert.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bulkhead_config::IpPrefix;

const PROTOCOLS: &[(&str, u8)] = &[
    ("icmp", 1),
    ("igmp", 2),
    ("tcp", 6),
    ("udp", 17),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("ospf", 89),
    ("vrrp", 112),
    ("sctp", 132),
];

/// The name of an IP protocol, or its number.
pub fn protocol(number: u8) -> String {
    PROTOCOLS
        .iter()
        .find(|(_, known)| *known == number)
        .map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

/// Reads a protocol by name or number.
pub fn parse_protocol(text: &str) -> Result<u8, String> {
    let named = PROTOCOLS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    if let Some((_, number)) = named {
        return Ok(*number);
    }
    text.parse().map_err(|_| {
        let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
        format!(
            "\"{text}\" is not an IP protocol; write a number from 0 to 255, or {}",
            names.join(", ")
        )
    })
}

/// Whether the two "ports" of a protocol's flows are ports.
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17)
}

/// Reads an address or a prefix. Host bits are dropped: `10.1.2.3/24` asks for its whole network.
pub fn parse_prefix(text: &str) -> Result<IpPrefix, String> {
    let wrong =
        || format!("\"{text}\" is not an address or prefix; write 10.4.1.7, 10.4.0.0/24 or 2001:db8::/64");
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let length = match length {
        Some(length) => length.parse().map_err(|_| wrong())?,
        None if address.is_ipv4() => 32,
        None => 128,
    };
    IpPrefix::around(address, length).ok_or_else(wrong)
}

/// Reads an ICMP type and, perhaps, a code: `8`, `3/4`, or `ping` for an echo request of either family.
pub fn parse_icmp(text: &str) -> Result<IcmpType, String> {
    if text == "ping" {
        return Ok(IcmpType::Echo);
    }
    let (kind, code) = text.split_once('/').unwrap_or((text, "0"));
    match (kind.parse(), code.parse()) {
        (Ok(kind), Ok(code)) => Ok(IcmpType::Number(kind, code)),
        _ => Err(format!(
            "\"{text}\" is not an ICMP type; write `ping`, a type such as 8, or type/code such as 3/4"
        )),
    }
}

/// An ICMP message as it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpType {
    /// Echo request, whose number depends on the family.
    Echo,
    /// Type and code.
    Number(u8, u8),
}

impl IcmpType {
    /// Type and code in the family of `address`.
    pub const fn in_family_of(self, address: IpAddr) -> (u8, u8) {
        match (self, address) {
            (Self::Echo, IpAddr::V4(_)) => (8, 0),
            (Self::Echo, IpAddr::V6(_)) => (128, 0),
            (Self::Number(kind, code), _) => (kind, code),
        }
    }
}

/// A duration in its two largest units.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

fn two(large: u64, large_unit: &str, small: u64, small_unit: &str) -> String {
    match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    }
}

/// Reads a duration with its unit: `90s`, `5m`, `2h`, `1d`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a duration; write a number and a unit: 90s, 5m, 2h, 1d");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(number.saturating_mul(seconds)))
}

/// A number of bytes, binary units, one decimal below ten.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1_024.0, 0);
    // What would be printed as 1024 belongs to the next unit.
    while value >= 1_023.5 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    // 9.95 would be printed as 10.0.
    let decimals = usize::from(value < 9.95);
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// One or many of something.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A MAC address.
pub fn mac(address: [u8; 6]) -> String {
    let mut text = String::with_capacity(17);
    for (index, byte) in address.iter().enumerate() {
        let separator = if index == 0 { "" } else { ":" };
        // Writing to a String does not fail.
        let _ = write!(text, "{separator}{byte:02x}");
    }
    text
}

/// The name of a user, or their number where nobody has named them.
pub fn user_name(user: nix::unistd::Uid) -> String {
    match nix::unistd::User::from_uid(user) {
        Ok(Some(known)) => known.name,
        _ if user.is_root() => "root".to_owned(),
        _ => format!("uid {user}"),
    }
}

/// A time of so many milliseconds since 1970.
pub fn time_of(milliseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(milliseconds)
}

/// RFC 3339 in UTC, to the microsecond: `2026-11-22T15:32:32.123456Z`. Times before 1970 are shown as 1970.
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days to a date in the proleptic Gregorian calendar, counted from 1 March so that the leap day comes last:
    // Howard Hinnant, "chrono-compatible low-level date algorithms", civil_from_days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        seconds / 3_600,
        seconds % 3_600 / 60,
        seconds % 60,
        since.subsec_micros()
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn protocols_are_read_as_they_are_printed() {
        for (text, number) in [("tcp", 6), ("ICMPv6", 58), ("132", 132), ("0", 0), ("255", 255)] {
            assert_eq!(parse_protocol(text), Ok(number));
            assert_eq!(parse_protocol(&protocol(number)), Ok(number));
        }
        assert_eq!((protocol(17).as_str(), protocol(250).as_str()), ("udp", "250"));
        assert!(
            parse_protocol("256")
                .unwrap_err()
                .contains("\"256\" is not an IP protocol")
        );
    }

    #[test]
    fn prefixes_drop_host_bits() {
        for (text, expected) in [
            ("10.1.2.3", "10.1.2.3/32"),
            ("10.1.2.3/24", "10.1.2.0/24"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::7", "2001:db8::7/128"),
            ("2001:db8::7/64", "2001:db8::/64"),
        ] {
            assert_eq!(parse_prefix(text).unwrap().to_string(), expected);
        }
        for text in [
            "",
            "10.1.2",
            "10.1.2.3/33",
            "10.1.2.3/",
            "web",
            "::/129",
            "10.0.0.0/-1",
        ] {
            assert!(parse_prefix(text).is_err(), "{text}");
        }
    }

    #[test]
    fn icmp_types_know_their_family() {
        let (v4, v6) = ("10.0.0.1".parse().unwrap(), "::1".parse().unwrap());
        let ping = parse_icmp("ping").unwrap();
        assert_eq!((ping.in_family_of(v4), ping.in_family_of(v6)), ((8, 0), (128, 0)));
        assert_eq!(parse_icmp("3/4").unwrap().in_family_of(v4), (3, 4));
        assert_eq!(parse_icmp("13").unwrap().in_family_of(v4), (13, 0));
        for text in ["", "256", "3/", "echo", "3/4/5"] {
            assert!(parse_icmp(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_have_two_units_at_most() {
        for (milliseconds, expected) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_999, "1 s"),
            (59_000, "59 s"),
            (60_000, "1 m"),
            (303_000, "5 m 3 s"),
            (7_440_000, "2 h 4 m"),
            (3_599_999, "59 m 59 s"),
            (86_400_000, "1 d"),
            (90_000_000, "1 d 1 h"),
        ] {
            assert_eq!(duration(Duration::from_millis(milliseconds)), expected);
        }
    }

    #[test]
    fn sizes_are_binary() {
        for (number, expected) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (10_188, "9.9 KiB"),
            (10_189, "10 KiB"),
            (1_048_063, "1023 KiB"),
            (1_048_064, "1.0 MiB"),
            (1_048_576, "1.0 MiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
    }

    #[test]
    fn times_are_utc() {
        for (seconds, micros, expected) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, 5, "2000-02-29T00:00:00.000005Z"),
            (1_709_251_199, 999_999, "2024-02-29T23:59:59.999999Z"),
            (1_795_361_552, 123_456, "2026-11-22T15:32:32.123456Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros);
            assert_eq!(timestamp(time), expected);
        }
    }

    #[test]
    fn macs_and_counts() {
        assert_eq!(mac([2, 0, 0xab, 0xff, 0, 1]), "02:00:ab:ff:00:01");
        assert_eq!(count(1, "session", "sessions"), "1 session");
        assert_eq!(count(0, "session", "sessions"), "0 sessions");
    }
}
