//! How far an address reaches, whatever routes and policy say.
//!
//! Owns the reading of IANA's special-purpose address registries (RFC 6890 and its updates) and of RFC 1812 (5.3.7), 3927 and
//! 4291: a source or destination that they do not let two routers pass on is not passed on. Whether it may be spoken to by the
//! firewall itself is a question of its own. Documentation prefixes are let through on purpose: laboratories use them, and who
//! does not want them names them in a policy.

/// How far an address reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Reach {
    /// Nowhere: not even to the firewall itself over a wire.
    Nowhere,
    /// The link: the firewall itself may have to do with it, it is never forwarded.
    Link,
    /// As far as routes lead.
    Routed,
}

/// How far a packet from `address_be` may go. Multicast is nobody's source.
#[inline(always)]
#[must_use]
pub(crate) fn source_reach(family: u8, address_be: &[u32; 4]) -> Reach {
    if family == 4 {
        let address = u32::from_be(address_be[0]);
        match v4(address) {
            // 192.0.0.8 is what a router without an IPv4 address reports errors from (RFC 7600).
            Reach::Nowhere if address == 0xc000_0008 => Reach::Link,
            reach => reach,
        }
    } else if address_be[0] == u32::from_be(0x0100_0000) && address_be[1] == 0 {
        // 100::/64 is where traffic is sent to be discarded (RFC 6666); nobody lives there.
        Reach::Nowhere
    } else {
        v6(address_be)
    }
}

/// How far a packet to `address_be` may go. Multicast and limited broadcast reach nowhere here: they are a matter of the link
/// ([`is_group`]), and looked at before.
#[inline(always)]
#[must_use]
pub(crate) fn destination_reach(family: u8, address_be: &[u32; 4]) -> Reach {
    if family == 4 {
        v4(u32::from_be(address_be[0]))
    } else {
        v6(address_be)
    }
}

/// Multicast or limited broadcast.
#[inline(always)]
#[must_use]
pub(crate) fn is_group(family: u8, address_be: &[u32; 4]) -> bool {
    let first = address_be[0].to_ne_bytes()[0];
    if family == 4 {
        first & 0xf0 == 224 || address_be[0] == u32::MAX
    } else {
        first == 0xff
    }
}

#[inline(always)]
fn v4(address: u32) -> Reach {
    let first = address >> 24;
    // "This network", loopback; multicast, reserved, limited broadcast.
    if first == 0 || first == 127 || first >= 224 {
        return Reach::Nowhere;
    }
    // 192.0.0.0/24, protocol assignments: only 192.0.0.0/29 (RFC 7335), .9 (RFC 7723) and .10 (RFC 8155) were given out to be
    // forwarded.
    if address >> 8 == 0x00c0_0000 && !matches!(address & 0xff, 0..=7 | 9 | 10) {
        return Reach::Nowhere;
    }
    if address >> 16 == 0xa9fe {
        return Reach::Link;
    }
    Reach::Routed
}

#[inline(always)]
fn v6(address_be: &[u32; 4]) -> Reach {
    let (a, b) = (u32::from_be(address_be[0]), u32::from_be(address_be[1]));
    if a >> 24 == 0xff {
        return Reach::Nowhere;
    }
    if a >> 22 == 0xfe80 >> 6 {
        return Reach::Link;
    }
    // Unspecified, loopback and IPv4-compatible (::/96), IPv4-mapped (::ffff:0:0/96).
    if a == 0 && b == 0 && matches!(u32::from_be(address_be[2]), 0 | 0xffff) {
        return Reach::Nowhere;
    }
    // 100:0:0:1::/64 is a dummy (RFC 9780).
    if a == 0x0100_0000 && b == 1 {
        return Reach::Nowhere;
    }
    // 2001::/23, protocol assignments: nothing but what was given out of it.
    if a >> 9 == 0x2001_0000 >> 9 && !assigned(a, b, address_be) {
        return Reach::Nowhere;
    }
    Reach::Routed
}

/// What was given out of 2001::/23 to be forwarded. `a` and `b` are the address's first words.
#[inline(never)]
fn assigned(a: u32, b: u32, address_be: &[u32; 4]) -> bool {
    match a & 0xffff {
        // Teredo (RFC 4380), AMT (RFC 7450).
        0 | 3 => true,
        // 2001:1::1, ::2 and ::3: PCP, TURN and SRP anycast (RFC 7723, 8155, 9665).
        1 => b == 0 && address_be[2] == 0 && matches!(u32::from_be(address_be[3]), 1..=3),
        // 2001:2::/48, benchmarking (RFC 5180).
        2 => b >> 16 == 0,
        // 2001:4:112::/48, AS112 (RFC 7535).
        4 => b >> 16 == 0x112,
        // ORCHIDv2 (RFC 7343), DRIP (RFC 9374).
        0x20..=0x3f => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use core::net::IpAddr;
    use std::{vec, vec::Vec};

    use super::*;

    use Reach::{Link, Nowhere, Routed};

    fn words(address: IpAddr) -> (u8, [u32; 4]) {
        match address {
            IpAddr::V4(address) => (4, [u32::from_ne_bytes(address.octets()), 0, 0, 0]),
            IpAddr::V6(address) => {
                let octets = address.octets();
                let word = |i: usize| {
                    u32::from_ne_bytes([
                        octets[4 * i],
                        octets[4 * i + 1],
                        octets[4 * i + 2],
                        octets[4 * i + 3],
                    ])
                };
                (6, [word(0), word(1), word(2), word(3)])
            }
        }
    }

    /// First, second, middle and last addresses of a prefix.
    fn ends(prefix: &str) -> Vec<IpAddr> {
        let (address, length) = prefix.split_once('/').unwrap();
        let length: u32 = length.parse().unwrap();
        match address.parse().unwrap() {
            IpAddr::V4(first) => {
                let (first, size) = (u64::from(u32::from(first)), 1u64 << (32 - length));
                let at = |offset: u64| IpAddr::V4((((first + offset) & 0xffff_ffff) as u32).into());
                vec![at(0), at(1 % size), at(size / 2), at(size - 1)]
            }
            IpAddr::V6(first) => {
                let first = u128::from(first);
                let last = if length == 0 {
                    u128::MAX
                } else {
                    first | (u128::MAX >> (length - 1) >> 1)
                };
                let at = |address: u128| IpAddr::V6(address.into());
                vec![
                    at(first),
                    at(last.min(first + 1)),
                    at(first + (last - first) / 2),
                    at(last),
                ]
            }
        }
    }

    /// Every row of the IPv4 and IPv6 special-purpose registries (RFC 6890, with those that came since) and of the multicast
    /// and deprecated ranges beside them: prefix, reach as source, as destination.
    const ROWS: &[(&str, Reach, Reach)] = &[
        // "This host on this network", RFC 1122: a source only before one has an address.
        ("0.0.0.0/8", Nowhere, Nowhere),
        ("10.0.0.0/8", Routed, Routed),
        ("100.64.0.0/10", Routed, Routed),
        ("127.0.0.0/8", Nowhere, Nowhere),
        ("169.254.0.0/16", Link, Link),
        ("172.16.0.0/12", Routed, Routed),
        // IETF protocol assignments, and what was given out of them.
        ("192.0.0.0/29", Routed, Routed),
        ("192.0.0.8/32", Link, Nowhere),
        ("192.0.0.9/32", Routed, Routed),
        ("192.0.0.10/32", Routed, Routed),
        ("192.0.0.11/32", Nowhere, Nowhere),
        ("192.0.0.12/30", Nowhere, Nowhere),
        ("192.0.0.128/25", Nowhere, Nowhere),
        ("192.0.0.170/32", Nowhere, Nowhere),
        ("192.0.0.171/32", Nowhere, Nowhere),
        // Documentation: forwarded on purpose.
        ("192.0.2.0/24", Routed, Routed),
        ("198.51.100.0/24", Routed, Routed),
        ("203.0.113.0/24", Routed, Routed),
        ("192.31.196.0/24", Routed, Routed),
        ("192.52.193.0/24", Routed, Routed),
        ("192.88.99.0/24", Routed, Routed),
        ("192.168.0.0/16", Routed, Routed),
        ("192.175.48.0/24", Routed, Routed),
        ("198.18.0.0/15", Routed, Routed),
        // Multicast (RFC 5771); destinations are told apart by `is_group`.
        ("224.0.0.0/4", Nowhere, Nowhere),
        ("240.0.0.0/4", Nowhere, Nowhere),
        ("255.255.255.255/32", Nowhere, Nowhere),
        // The neighbours of those above.
        ("1.0.0.0/8", Routed, Routed),
        ("126.0.0.0/8", Routed, Routed),
        ("128.0.0.0/8", Routed, Routed),
        ("169.253.0.0/16", Routed, Routed),
        ("169.255.0.0/16", Routed, Routed),
        ("191.255.255.0/24", Routed, Routed),
        ("192.0.1.0/24", Routed, Routed),
        ("223.0.0.0/8", Routed, Routed),
        ("::1/128", Nowhere, Nowhere),
        ("::/128", Nowhere, Nowhere),
        // IPv4-compatible (RFC 4291, 2.5.5.1, deprecated) and IPv4-mapped.
        ("::/96", Nowhere, Nowhere),
        ("::ffff:0:0/96", Nowhere, Nowhere),
        ("64:ff9b::/96", Routed, Routed),
        ("64:ff9b:1::/48", Routed, Routed),
        // Discard-only: a destination, and by the registry a source too, which nobody has.
        ("100::/64", Nowhere, Routed),
        ("100:0:0:1::/64", Nowhere, Nowhere),
        ("100:0:0:2::/64", Routed, Routed),
        // IETF protocol assignments, and what was given out of them.
        ("2001::/32", Routed, Routed),
        ("2001:1::/128", Nowhere, Nowhere),
        ("2001:1::1/128", Routed, Routed),
        ("2001:1::2/128", Routed, Routed),
        ("2001:1::3/128", Routed, Routed),
        ("2001:1::4/126", Nowhere, Nowhere),
        ("2001:1:8000::/33", Nowhere, Nowhere),
        ("2001:2::/48", Routed, Routed),
        ("2001:2:1::/48", Nowhere, Nowhere),
        ("2001:3::/32", Routed, Routed),
        ("2001:4:112::/48", Routed, Routed),
        ("2001:4:113::/48", Nowhere, Nowhere),
        ("2001:5::/32", Nowhere, Nowhere),
        // ORCHID, given back in 2014.
        ("2001:10::/28", Nowhere, Nowhere),
        ("2001:20::/28", Routed, Routed),
        ("2001:30::/28", Routed, Routed),
        ("2001:40::/26", Nowhere, Nowhere),
        ("2001:1ff::/32", Nowhere, Nowhere),
        ("2001:200::/23", Routed, Routed),
        ("2000::/16", Routed, Routed),
        // Documentation: forwarded on purpose.
        ("2001:db8::/32", Routed, Routed),
        ("3fff::/20", Routed, Routed),
        ("2002::/16", Routed, Routed),
        ("2620:4f:8000::/48", Routed, Routed),
        // SRv6 segment identifiers (RFC 9602).
        ("5f00::/16", Routed, Routed),
        ("fc00::/7", Routed, Routed),
        ("fe80::/10", Link, Link),
        // Site-local, deprecated: as any other unicast prefix (RFC 3879, 4).
        ("fec0::/10", Routed, Routed),
        ("fe00::/9", Routed, Routed),
        ("ff00::/8", Nowhere, Nowhere),
    ];

    #[test]
    fn rfc6890_rows() {
        for (prefix, source, destination) in ROWS {
            for address in ends(prefix) {
                let (family, words) = words(address);
                assert_eq!(
                    (source_reach(family, &words), destination_reach(family, &words)),
                    (*source, *destination),
                    "{address} of {prefix}"
                );
            }
        }
    }

    #[test]
    fn groups_are_multicast_and_limited_broadcast() {
        for (prefix, group) in [
            ("224.0.0.0/4", true),
            ("255.255.255.255/32", true),
            ("240.0.0.0/5", false),
            ("223.0.0.0/8", false),
            ("ff00::/8", true),
            ("fe80::/10", false),
        ] {
            for address in ends(prefix) {
                let (family, words) = words(address);
                assert_eq!(is_group(family, &words), group, "{address} of {prefix}");
            }
        }
    }
}
