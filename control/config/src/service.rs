//! Services: protocols, ports and ICMP types, and the ones every firewall knows.
//!
//! Owns their names and text. A [`PortRange`] that exists runs forwards and has no port 0. Protocol numbers are
//! IANA's, ICMP types those of RFC 792 and RFC 4443.

use std::fmt;

use crate::address::Refusal;
use crate::suggest::nearest;

/// Ports from `first` to `last`, both included; `1 <= first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

/// Which ICMP messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IcmpMatch {
    /// The type; `None` for every one.
    pub kind: Option<u8>,
    /// The code; `None` for every one.
    pub code: Option<u8>,
}

/// One alternative of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceMatch {
    /// Everything.
    Any,
    /// TCP to these ports.
    Tcp(PortRange),
    /// UDP to these ports.
    Udp(PortRange),
    /// ICMP of IPv4.
    Icmp(IcmpMatch),
    /// ICMPv6.
    Icmpv6(IcmpMatch),
    /// A whole IP protocol, by number.
    Protocol(u8),
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl fmt::Display for IcmpMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kind, self.code) {
            (None, _) => f.write_str("any"),
            (Some(kind), None) => kind.fmt(f),
            (Some(kind), Some(code)) => write!(f, "{kind}/{code}"),
        }
    }
}

impl fmt::Display for ServiceMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Tcp(ports) => write!(f, "tcp/{ports}"),
            Self::Udp(ports) => write!(f, "udp/{ports}"),
            Self::Icmp(icmp) => write!(f, "icmp/{icmp}"),
            Self::Icmpv6(icmp) => write!(f, "icmpv6/{icmp}"),
            Self::Protocol(number) => write!(f, "protocol/{number}"),
        }
    }
}

const fn tcp(port: u16) -> ServiceMatch {
    ServiceMatch::Tcp(PortRange {
        first: port,
        last: port,
    })
}

const fn udp(port: u16) -> ServiceMatch {
    ServiceMatch::Udp(PortRange {
        first: port,
        last: port,
    })
}

const fn message(kind: u8) -> IcmpMatch {
    IcmpMatch {
        kind: Some(kind),
        code: None,
    }
}

const BUILTIN: &[(&str, &[ServiceMatch])] = &[
    ("all", &[ServiceMatch::Any]),
    ("bgp", &[tcp(179)]),
    ("dhcp", &[udp(67), udp(68), udp(546), udp(547)]),
    ("dns", &[udp(53), tcp(53)]),
    ("http", &[tcp(80)]),
    ("https", &[tcp(443)]),
    ("ntp", &[udp(123)]),
    ("ospf", &[ServiceMatch::Protocol(89)]),
    (
        "ping",
        &[ServiceMatch::Icmp(message(8)), ServiceMatch::Icmpv6(message(128))],
    ),
    ("snmp", &[udp(161)]),
    ("ssh", &[tcp(22)]),
    ("vrrp", &[ServiceMatch::Protocol(112)]),
];

/// What a builtin service matches; `None` for a name that is not builtin.
pub fn builtin_service(name: &str) -> Option<&'static [ServiceMatch]> {
    BUILTIN
        .iter()
        .find(|(builtin, _)| *builtin == name)
        .map(|(_, matches)| *matches)
}

/// The names of the builtin services, in alphabetical order.
pub fn builtin_names() -> impl Iterator<Item = &'static str> {
    BUILTIN.iter().map(|(name, _)| *name)
}

/// The names of protocols that `protocols` knows, by number.
pub(crate) fn protocol_names() -> impl Iterator<Item = &'static str> {
    PROTOCOLS.iter().map(|(name, _)| *name)
}

/// The names of types that `icmp` knows, by number.
pub(crate) fn icmp_type_names() -> impl Iterator<Item = &'static str> {
    ICMP_TYPES.iter().map(|(name, _)| *name)
}

/// The names of types that `icmpv6` knows, by number.
pub(crate) fn icmpv6_type_names() -> impl Iterator<Item = &'static str> {
    ICMPV6_TYPES.iter().map(|(name, _)| *name)
}

const PROTOCOLS: &[(&str, u8)] = &[
    ("icmp", 1),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", 6),
    ("udp", 17),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("sctp", 132),
    ("udplite", 136),
];

const ICMP_TYPES: &[(&str, u8)] = &[
    ("echo-reply", 0),
    ("unreachable", 3),
    ("redirect", 5),
    ("echo-request", 8),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp-request", 13),
    ("timestamp-reply", 14),
];

const ICMPV6_TYPES: &[(&str, u8)] = &[
    ("unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("router-solicitation", 133),
    ("router-advertisement", 134),
    ("neighbour-solicitation", 135),
    ("neighbour-advertisement", 136),
    ("redirect", 137),
];

/// The version of ICMP, which decides what a type's name means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum IcmpFamily {
    V4,
    V6,
}

fn refuse<T>(message: String, help: impl Into<String>) -> Result<T, Refusal> {
    Err((message, Some(help.into())))
}

fn parse_port(text: &str) -> Result<u16, Refusal> {
    let number = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty();
    match text.parse::<u16>() {
        Ok(0) => refuse("port 0 is not a port".to_owned(), "ports are 1 to 65535"),
        Ok(port) if number => Ok(port),
        _ if number
            || text
                .strip_prefix('-')
                .is_some_and(|rest| rest.parse::<u64>().is_ok()) =>
        {
            refuse(format!("port {text} is not a port"), "ports are 1 to 65535")
        }
        _ => match builtin_service(text) {
            Some(_) => refuse(
                format!("\"{text}\" is a service, not a port"),
                format!("name `{text}` in a policy, or write the number"),
            ),
            None => refuse(
                format!("\"{text}\" is not a port or a port range"),
                "write 443 or 1024-65535",
            ),
        },
    }
}

pub(crate) fn parse_ports(text: &str) -> Result<PortRange, Refusal> {
    let (first, last) = match text.split_once('-').filter(|(first, _)| !first.is_empty()) {
        Some((first, last)) => (parse_port(first.trim())?, parse_port(last.trim())?),
        None => parse_port(text).map(|port| (port, port))?,
    };
    if first > last {
        return refuse(
            format!("port range {first}-{last} runs backwards"),
            format!("write {last}-{first}"),
        );
    }
    Ok(PortRange { first, last })
}

pub(crate) fn parse_protocol(text: &str) -> Result<u8, Refusal> {
    named_or_number(text, PROTOCOLS, "an IP protocol")
}

pub(crate) fn parse_icmp(text: &str, family: IcmpFamily) -> Result<IcmpMatch, Refusal> {
    let (names, what) = match family {
        IcmpFamily::V4 => (ICMP_TYPES, "an ICMP type"),
        IcmpFamily::V6 => (ICMPV6_TYPES, "an ICMPv6 type"),
    };
    if text == "any" {
        return Ok(IcmpMatch {
            kind: None,
            code: None,
        });
    }
    let (kind, code) = match text.split_once('/') {
        Some((kind, code)) => (kind, Some(named_or_number(code, &[], "an ICMP code")?)),
        None => (text, None),
    };
    Ok(IcmpMatch {
        kind: Some(named_or_number(kind, names, what)?),
        code,
    })
}

fn named_or_number(text: &str, names: &[(&'static str, u8)], what: &str) -> Result<u8, Refusal> {
    if let Some((_, number)) = names.iter().find(|(name, _)| *name == text) {
        return Ok(*number);
    }
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if let (Ok(number), true) = (text.parse::<u8>(), digits) {
        return Ok(number);
    }
    let known = || names.iter().map(|(name, _)| *name);
    let help = match nearest(text, known()) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None if names.is_empty() || (digits && !text.is_empty()) => "it can be 0 to 255".to_owned(),
        None => format!("it can be 0 to 255 or {}", known().collect::<Vec<_>>().join(", ")),
    };
    refuse(format!("\"{text}\" is not {what}"), help)
}

#[cfg(test)]
mod tests {
    use super::{BUILTIN, IcmpFamily, builtin_names, parse_icmp, parse_ports, parse_protocol};

    #[test]
    fn reads_ports() {
        for (text, expected) in [
            ("443", "443"),
            ("1024-65535", "1024-65535"),
            ("1", "1"),
            ("53-53", "53"),
        ] {
            assert_eq!(parse_ports(text).unwrap().to_string(), expected);
        }
        for text in [
            "0", "65536", "0-9", "9-1", "", "-", "-5", "5-", "+5", "a", "https", "1-2-3", "1.5",
        ] {
            parse_ports(text).expect_err(text);
        }
    }

    #[test]
    fn reads_icmp_and_protocols() {
        for (text, family, expected) in [
            ("echo-request", IcmpFamily::V4, "8"),
            ("echo-request", IcmpFamily::V6, "128"),
            ("unreachable/4", IcmpFamily::V4, "3/4"),
            ("3/13", IcmpFamily::V4, "3/13"),
            ("any", IcmpFamily::V6, "any"),
        ] {
            assert_eq!(parse_icmp(text, family).unwrap().to_string(), expected);
        }
        for text in ["256", "3/", "/3", "3/256", "", "+3", "packet-too-big"] {
            assert!(parse_icmp(text, IcmpFamily::V4).is_err(), "{text}");
        }
        assert_eq!(parse_protocol("sctp"), Ok(132));
        assert_eq!(parse_protocol("0"), Ok(0));
        assert_eq!(
            parse_protocol("grr").unwrap_err().1.unwrap(),
            "did you mean \"gre\"?"
        );
    }

    #[test]
    fn builtin_services_are_sorted() {
        assert!(builtin_names().is_sorted());
        assert!(BUILTIN.iter().all(|(_, matches)| !matches.is_empty()));
    }
}
