//! Sets of addresses as ranges: what a pool hands out.
//!
//! Owns the merging of neighbours and the list of addresses that no forwarded packet may carry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::address::{IpPrefix, IpRange, Member};

/// Why no forwarded packet may carry an address of these networks, as source or as destination.
const UNUSABLE: &[(IpAddr, u8, &str)] = &[
    (v4(0, 0), 8, "which names no host (RFC 1122)"),
    (v4(127, 0), 8, "which is loopback (RFC 1122)"),
    (v4(169, 254), 16, "which is link-local (RFC 3927)"),
    (v4(224, 0), 4, "which is multicast (RFC 5771)"),
    (v4(240, 0), 4, "which is reserved (RFC 1112)"),
    (v6(0), 128, "which names no host (RFC 4291)"),
    (
        IpAddr::V6(Ipv6Addr::LOCALHOST),
        128,
        "which is loopback (RFC 4291)",
    ),
    (
        IpAddr::V6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0)),
        96,
        "which is an IPv4 address in IPv6 clothes (RFC 4291)",
    ),
    (v6(0xfe80), 10, "which is link-local (RFC 4291)"),
    (v6(0xff00), 8, "which is multicast (RFC 4291)"),
];

const fn v4(first: u8, second: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(first, second, 0, 0))
}

const fn v6(first: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0))
}

/// The first address of `range` that no forwarded packet may carry, and why.
pub(crate) fn unusable(range: &IpRange) -> Option<(IpAddr, &'static str)> {
    UNUSABLE.iter().find_map(|&(address, length, why)| {
        let network = IpPrefix { address, length }.range();
        range
            .overlaps(&network)
            .then(|| (range.first.max(network.first), why))
    })
}

/// The members as the fewest ranges in ascending order, IPv4 and IPv6 apart.
pub(crate) fn merged(members: &[Member]) -> (Vec<IpRange>, Vec<IpRange>) {
    let mut ranges: Vec<IpRange> = members.iter().map(Member::range).collect();
    ranges.sort_unstable();
    let mut merged: Vec<IpRange> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.first <= last.last || follows(last.last, range.first) => {
                last.last = last.last.max(range.last);
            }
            _ => merged.push(range),
        }
    }
    merged.into_iter().partition(|range| range.first.is_ipv4())
}

/// What is in `members` and not in `except`, as the fewest ranges in ascending order, IPv4 before IPv6.
pub(crate) fn difference(members: &[Member], except: &[Member]) -> Vec<IpRange> {
    let ((ipv4, ipv6), (not_ipv4, not_ipv6)) = (merged(members), merged(except));
    let except: Vec<IpRange> = not_ipv4.into_iter().chain(not_ipv6).collect();
    let mut left = Vec::new();
    // Both ascend, so each exception is passed once, but for one that reaches into the next range.
    let mut next = 0;
    for range in ipv4.into_iter().chain(ipv6) {
        while except.get(next).is_some_and(|out| out.last < range.first) {
            next += 1;
        }
        let mut rest = Some(range);
        for out in except[next..].iter().take_while(|out| out.first <= range.last) {
            let Some(whole) = rest else { break };
            if let Some(last) = before(out.first).filter(|last| whole.first <= *last) {
                left.push(IpRange { last, ..whole });
            }
            rest = after(out.last)
                .filter(|first| *first <= whole.last)
                .map(|first| IpRange { first, ..whole });
        }
        left.extend(rest);
    }
    left
}

/// The address before one of the same family.
fn before(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => Some(Ipv4Addr::from_bits(address.to_bits().checked_sub(1)?).into()),
        IpAddr::V6(address) => Some(Ipv6Addr::from_bits(address.to_bits().checked_sub(1)?).into()),
    }
}

/// The address after one of the same family.
fn after(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => Some(Ipv4Addr::from_bits(address.to_bits().checked_add(1)?).into()),
        IpAddr::V6(address) => Some(Ipv6Addr::from_bits(address.to_bits().checked_add(1)?).into()),
    }
}

/// Whether `second` is the address after `first`.
fn follows(first: IpAddr, second: IpAddr) -> bool {
    after(first) == Some(second)
}

#[cfg(test)]
mod tests {
    use super::{difference, merged, unusable};
    use crate::address::{Member, parse_member};

    fn show(members: &str) -> String {
        let members: Vec<_> = members
            .split(' ')
            .map(|text| parse_member(text).unwrap())
            .collect();
        let (ipv4, ipv6) = merged(&members);
        ipv4.iter()
            .chain(&ipv6)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn neighbours_and_overlaps_become_one_range() {
        for (members, expected) in [
            ("10.0.0.1", "10.0.0.1"),
            (
                "10.0.0.4/30 10.0.0.0/30 10.0.0.8-10.0.0.9 10.0.0.11",
                "10.0.0.0-10.0.0.9 10.0.0.11",
            ),
            ("10.0.0.0/24 10.0.0.7 10.0.0.0/25", "10.0.0.0-10.0.0.255"),
            (
                "2001:db8::/128 10.0.0.1 2001:db8::1",
                "10.0.0.1 2001:db8::-2001:db8::1",
            ),
            ("255.255.255.255 ::", "255.255.255.255 ::"),
            (
                "10.0.0.0-10.0.0.9 10.0.0.3-10.0.0.4 10.0.0.10",
                "10.0.0.0-10.0.0.10",
            ),
        ] {
            assert_eq!(show(members), expected, "{members}");
        }
    }

    #[test]
    fn what_is_left_out_splits_shortens_and_removes() {
        let members = |text: &str| -> Vec<Member> {
            let words = text.split_whitespace();
            words.map(|word| parse_member(word).unwrap()).collect()
        };
        for (has, except, left) in [
            ("10.0.0.0-10.0.0.9", "", "10.0.0.0-10.0.0.9"),
            (
                "10.0.0.0-10.0.0.9",
                "10.0.0.3 10.0.0.5-10.0.0.6",
                "10.0.0.0-10.0.0.2 10.0.0.4 10.0.0.7-10.0.0.9",
            ),
            (
                "10.0.0.0-10.0.0.9",
                "10.0.0.0-10.0.0.3 10.0.0.9-10.0.0.20",
                "10.0.0.4-10.0.0.8",
            ),
            ("10.0.0.1 10.0.0.3 10.0.0.5", "10.0.0.0-10.0.0.4", "10.0.0.5"),
            ("10.0.0.1", "::/0", "10.0.0.1"),
            ("::1-::3 10.0.0.1", "0.0.0.0/0 ::2", "::1 ::3"),
            (
                "0.0.0.0/0 ::/0",
                "0.0.0.0 255.255.255.255",
                "0.0.0.1-255.255.255.254 ::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ),
            ("0.0.0.0/0", "0.0.0.0/0", ""),
        ] {
            let ranges = difference(&members(has), &members(except));
            let shown: Vec<String> = ranges.iter().map(ToString::to_string).collect();
            assert_eq!(shown.join(" "), left, "{has} without {except}");
        }
    }

    #[test]
    fn addresses_nobody_may_send_are_found_anywhere_in_a_range() {
        for (member, address) in [
            ("0.0.0.0/0", Some("0.0.0.0")),
            ("126.255.255.0-127.0.0.9", Some("127.0.0.0")),
            ("169.254.7.1", Some("169.254.7.1")),
            ("200.0.0.0-255.255.255.255", Some("224.0.0.0")),
            ("255.255.255.255", Some("255.255.255.255")),
            ("::1", Some("::1")),
            ("fe00::/7", Some("fe80::")),
            ("ff02::1", Some("ff02::1")),
            ("10.0.0.0/8", None),
            ("2001:db8::/32", None),
            ("::2-::5", None),
        ] {
            let range = parse_member(member).unwrap().range();
            let found = unusable(&range).map(|(address, _)| address.to_string());
            assert_eq!(found.as_deref(), address, "{member}");
        }
    }
}
