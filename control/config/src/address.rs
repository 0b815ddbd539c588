//! Addresses, prefixes and ranges: the members of groups.
//!
//! Owns their text. A [`Member`] that exists is sound: a prefix has no host bits, a range runs forwards within one
//! family. Refuses IPv4-mapped IPv6 addresses, which no packet carries as such.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is wrong with a piece of text, and what would be right.
pub(crate) type Refusal = (String, Option<String>);

/// A network: an address whose bits beyond `length` are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpPrefix {
    /// First address of the network.
    pub address: IpAddr,
    /// Leading bits that count: at most 32 or 128.
    pub length: u8,
}

/// All addresses from `first` to `last`, of one family, `first <= last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpRange {
    /// The lowest address.
    pub first: IpAddr,
    /// The highest address, included.
    pub last: IpAddr,
}

/// A member of an address group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Member {
    /// One address.
    Host(IpAddr),
    /// One network.
    Prefix(IpPrefix),
    /// A span of addresses.
    Range(IpRange),
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn from_bits(bits: u128, width: u8) -> IpAddr {
    if width == 32 {
        IpAddr::V4(Ipv4Addr::from_bits(bits as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(bits))
    }
}

fn host_mask(width: u8, length: u8) -> u128 {
    let host_bits = u32::from(width - length);
    1u128.checked_shl(host_bits).map_or(u128::MAX, |bit| bit - 1)
}

impl IpPrefix {
    /// The network of `length` bits around `address`; `None` if the family has fewer bits.
    pub fn around(address: IpAddr, length: u8) -> Option<Self> {
        let width = width(address);
        (length <= width).then(|| Self {
            address: from_bits(bits(address) & !host_mask(width, length), width),
            length,
        })
    }

    /// The network of one address.
    pub fn host(address: IpAddr) -> Self {
        Self {
            address,
            length: width(address),
        }
    }

    /// Whether `address` lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && Self::around(address, self.length) == Some(*self)
    }

    /// All its addresses.
    pub fn range(&self) -> IpRange {
        let width = width(self.address);
        IpRange {
            first: self.address,
            last: from_bits(bits(self.address) | host_mask(width, self.length), width),
        }
    }
}

impl Member {
    /// All its addresses.
    pub fn range(&self) -> IpRange {
        match *self {
            Self::Host(address) => IpRange {
                first: address,
                last: address,
            },
            Self::Prefix(prefix) => prefix.range(),
            Self::Range(range) => range,
        }
    }
}

impl IpRange {
    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        // Every IPv4 address is less than every IPv6 address, so ranges of two families never overlap.
        self.first <= other.last && other.first <= self.last
    }

    /// The fewest prefixes that together hold exactly this range, in ascending order: at most 62 for IPv4 and 254 for IPv6.
    pub fn prefixes(&self) -> Vec<IpPrefix> {
        let (width, last) = (width(self.first), bits(self.last));
        let (mut next, mut prefixes) = (bits(self.first), Vec::new());
        loop {
            let aligned = next.trailing_zeros().min(u32::from(width)) as u8;
            let fitting = (0..=aligned)
                .rev()
                .find(|&size| last - next >= host_mask(size, 0))
                .unwrap_or(0);
            prefixes.push(IpPrefix {
                address: from_bits(next, width),
                length: width - fitting,
            });
            match next.checked_add(host_mask(fitting, 0)) {
                Some(end) if end < last => next = end + 1,
                _ => return prefixes,
            }
        }
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(address) => address.fmt(f),
            Self::Prefix(prefix) => prefix.fmt(f),
            Self::Range(IpRange { first, last }) => write!(f, "{first}-{last}"),
        }
    }
}

/// Whether somebody who wrote this meant an address rather than the name of a group.
pub(crate) fn looks_like_address(text: &str) -> bool {
    let digits = |text: &str| text.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | '-'));
    text.contains(['/', ':']) || (text.contains('.') && digits(text))
}

pub(crate) fn parse_address(text: &str) -> Result<IpAddr, Refusal> {
    let Ok(address) = text.parse::<IpAddr>() else {
        let help = match text.contains(|c: char| c.is_ascii_digit()) {
            true => "write an address such as 10.4.1.7 or 2001:db8::7",
            false => "write the address itself; names are not looked up",
        };
        return Err((format!("\"{text}\" is not an IP address"), Some(help.to_owned())));
    };
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Err((
            format!("{address} is an IPv4 address in IPv6 clothes, which no packet carries"),
            Some(format!("write {}", v6.to_canonical())),
        )),
        _ => Ok(address),
    }
}

/// An address and a prefix length, as both were written.
pub(crate) fn parse_with_length(text: &str) -> Result<(IpAddr, u8), Refusal> {
    let Some((address, length)) = text.split_once('/') else {
        let address = parse_address(text)?;
        let help = format!(
            "write {address}/{} with the length of its network",
            if address.is_ipv4() { 24 } else { 64 }
        );
        return Err((format!("{address} has no prefix length"), Some(help)));
    };
    let address = parse_address(address)?;
    let (family, width) = if address.is_ipv4() {
        ("IPv4", 32)
    } else {
        ("IPv6", 128)
    };
    match length.parse::<u8>() {
        Ok(number) if number <= width && !length.starts_with('+') => Ok((address, number)),
        _ => Err((
            format!("\"{length}\" is not a prefix length of {family}"),
            Some(format!("it can be 0 to {width}")),
        )),
    }
}

pub(crate) fn parse_member(text: &str) -> Result<Member, Refusal> {
    if text.contains('/') {
        let (address, length) = parse_with_length(text)?;
        let prefix = IpPrefix::around(address, length).expect("the length was checked against the family");
        if prefix.address != address {
            let help = format!("the network is {prefix}; for the one address write {address}");
            return Err((format!("prefix {text} has host bits set"), Some(help)));
        }
        return Ok(Member::Prefix(prefix));
    }
    let Some((first, last)) = text.split_once('-') else {
        return parse_address(text).map(Member::Host);
    };
    let (first, last) = (parse_address(first.trim())?, parse_address(last.trim())?);
    if first.is_ipv4() != last.is_ipv4() {
        let help = "write one range for each family".to_owned();
        return Err((format!("range {first}-{last} mixes IPv4 and IPv6"), Some(help)));
    }
    if first > last {
        return Err((
            format!("range {first}-{last} runs backwards"),
            Some(format!("write {last}-{first}")),
        ));
    }
    Ok(Member::Range(IpRange { first, last }))
}

#[cfg(test)]
mod tests {
    use super::{IpPrefix, Member, parse_member};

    fn prefixes(text: &str) -> String {
        let Ok(Member::Range(range)) = parse_member(text) else {
            panic!("{text} is not a range")
        };
        range
            .prefixes()
            .iter()
            .map(IpPrefix::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn ranges_become_the_fewest_prefixes() {
        for (range, expected) in [
            ("10.0.0.0-10.0.0.255", "10.0.0.0/24"),
            (
                "10.0.0.1-10.0.0.6",
                "10.0.0.1/32 10.0.0.2/31 10.0.0.4/31 10.0.0.6/32",
            ),
            ("0.0.0.0-255.255.255.255", "0.0.0.0/0"),
            ("255.255.255.255-255.255.255.255", "255.255.255.255/32"),
            ("255.255.255.254-255.255.255.255", "255.255.255.254/31"),
            ("::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::/0"),
            (
                "2001:db8::fffe-2001:db8::1:1",
                "2001:db8::fffe/127 2001:db8::1:0/127",
            ),
        ] {
            assert_eq!(prefixes(range), expected, "{range}");
        }
        assert_eq!(prefixes("0.0.0.1-255.255.255.254").split(' ').count(), 62);
        let widest = prefixes("::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe");
        assert_eq!(widest.split(' ').count(), 254);
    }

    #[test]
    fn prefixes_of_a_range_are_disjoint_and_complete() {
        for (first, last) in [(0u32, 0), (3, 200), (255, 257), (1, 65_534), (77, 77_777)] {
            let text = format!(
                "{}-{}",
                std::net::Ipv4Addr::from_bits(first),
                std::net::Ipv4Addr::from_bits(last)
            );
            let Ok(Member::Range(range)) = parse_member(&text) else {
                panic!("{text} is not a range")
            };
            let sum: u64 = range
                .prefixes()
                .iter()
                .map(|prefix| 1u64 << (32 - prefix.length))
                .sum();
            assert_eq!(sum, u64::from(last - first) + 1, "{text}");
            for address in (first..=last).step_by(97).chain([first, last]) {
                let address = std::net::Ipv4Addr::from_bits(address).into();
                assert_eq!(
                    range
                        .prefixes()
                        .iter()
                        .filter(|prefix| prefix.contains(address))
                        .count(),
                    1
                );
            }
        }
    }
}
