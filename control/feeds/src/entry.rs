//! One entry of a list: an address, a network or a range, and whatever a vendor writes behind it.
//!
//! Owns the styles that are in use: PAN-OS external lists, Spamhaus DROP (`1.10.16.0/20 ; SBL256894`), FireHOL,
//! Fortinet (`172.200.1.4/16`, host bits and all) and Juniper's feed files. An entry is the first word of its line, or
//! `first - last`; a comment begins with `#`, `;` or `//`, and anything behind the entry is one too. IPv4-mapped IPv6
//! addresses are taken for the IPv4 addresses that packets carry. Refuses names: a list of addresses resolves nothing.

use std::fmt;
use std::net::IpAddr;

use bulkhead_config::{IpPrefix, IpRange};

/// What an entry covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// An address or a network.
    Prefix(IpPrefix),
    /// All addresses from one to another of the same family.
    Range(IpRange),
}

/// Why something is no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It begins with no address.
    NoAddress,
    /// What follows `/` is no prefix length of the family.
    PrefixLength,
    /// A range from one family into the other.
    TwoFamilies,
    /// A range whose last address is the lower one.
    Backwards,
    /// It is longer than a line may be.
    TooLong,
    /// It is not text.
    NoText,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAddress => "is not an address",
            Self::PrefixLength => "has a prefix length that its family does not have",
            Self::TwoFamilies => "mixes IPv4 and IPv6",
            Self::Backwards => "runs backwards",
            Self::TooLong => "is too long",
            Self::NoText => "is not text",
        })
    }
}

impl Entry {
    /// The fewest prefixes that hold exactly this.
    pub fn prefixes(self) -> Vec<IpPrefix> {
        match self {
            Self::Prefix(prefix) => vec![prefix],
            Self::Range(range) => range.prefixes(),
        }
    }

    /// Reads a line of a list; `None` for an empty one and for a comment.
    pub fn of_line(line: &str) -> Option<Result<Self, Fault>> {
        let line = line.trim_start_matches('\u{feff}').trim();
        let (word, rest) = split(line);
        (!word.is_empty() || !is_comment(line)).then(|| Self::of_words(word, rest))
    }

    /// Reads a value that holds nothing but an entry.
    pub fn of_value(value: &str) -> Result<Self, Fault> {
        let (word, rest) = split(value.trim());
        Self::of_words(word, rest)
    }

    fn of_words(word: &str, rest: &str) -> Result<Self, Fault> {
        if word.contains('/') {
            return network(word).map(Self::Prefix);
        }
        if let Some((first, last)) = word.split_once('-') {
            let last = if last.is_empty() { split(rest).0 } else { last };
            return range(address(first)?, address(last)?);
        }
        let first = address(word)?;
        // `10.0.0.1 - 10.0.0.9` is a range, `10.0.0.1 - seen twice` is not.
        if let Some(rest) = rest.strip_prefix('-')
            && let Ok(last) = address(split(rest.trim_start()).0)
        {
            return range(first, last);
        }
        Ok(Self::Prefix(IpPrefix::host(first)))
    }
}

fn is_comment(line: &str) -> bool {
    line.is_empty() || line.starts_with(['#', ';']) || line.starts_with("//")
}

/// The first word, which ends at white space, `,` or a comment, and what follows it.
fn split(text: &str) -> (&str, &str) {
    let sign = text.find(|c: char| c.is_whitespace() || matches!(c, '#' | ';' | ','));
    let end = [sign, text.find("//")].into_iter().flatten().min();
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    (word, rest.trim_start())
}

fn address(text: &str) -> Result<IpAddr, Fault> {
    let address: IpAddr = text.parse().map_err(|_| Fault::NoAddress)?;
    Ok(address.to_canonical())
}

fn network(text: &str) -> Result<IpPrefix, Fault> {
    let (address, length) = text.split_once('/').ok_or(Fault::NoAddress)?;
    let address: IpAddr = address.parse().map_err(|_| Fault::NoAddress)?;
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let length: u8 = length
        .parse()
        .ok()
        .filter(|_| digits)
        .ok_or(Fault::PrefixLength)?;
    let prefix = IpPrefix::around(address, length).ok_or(Fault::PrefixLength)?;
    let canonical = address.to_canonical();
    if canonical == address {
        return Ok(prefix);
    }
    // Mapped: the first 96 bits say so, and a shorter prefix would cover more than mapped addresses.
    let length = length.checked_sub(96).ok_or(Fault::PrefixLength)?;
    IpPrefix::around(canonical, length).ok_or(Fault::PrefixLength)
}

fn range(first: IpAddr, last: IpAddr) -> Result<Entry, Fault> {
    if first.is_ipv4() != last.is_ipv4() {
        return Err(Fault::TwoFamilies);
    }
    match first <= last {
        true => Ok(Entry::Range(IpRange { first, last })),
        false => Err(Fault::Backwards),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> String {
        match Entry::of_line(line) {
            None => "nothing".to_owned(),
            Some(Err(fault)) => fault.to_string(),
            Some(Ok(entry)) => {
                let prefixes: Vec<_> = entry.prefixes().iter().map(ToString::to_string).collect();
                prefixes.join(" ")
            }
        }
    }

    #[test]
    fn every_style_in_use() {
        for (line, expected) in [
            ("192.0.2.7", "192.0.2.7/32"),
            ("  192.0.2.7\t", "192.0.2.7/32"),
            ("\u{feff}192.0.2.7", "192.0.2.7/32"),
            ("192.0.2.0/24 # the lab", "192.0.2.0/24"),
            ("1.10.16.0/20 ; SBL256894", "1.10.16.0/20"),
            ("1.10.16.0/20;SBL256894", "1.10.16.0/20"),
            ("192.0.2.7//note", "192.0.2.7/32"),
            ("192.0.2.7 // note", "192.0.2.7/32"),
            ("192.0.2.0/24//note", "192.0.2.0/24"),
            ("192.0.2.7 a word, and more", "192.0.2.7/32"),
            ("192.0.2.7,botnet,2026-01-01", "192.0.2.7/32"),
            ("172.200.1.4/16", "172.200.0.0/16"),
            ("10.0.0.0-10.0.0.7", "10.0.0.0/29"),
            ("10.0.0.0 - 10.0.0.7 # spaces", "10.0.0.0/29"),
            ("10.0.0.0- 10.0.0.7", "10.0.0.0/29"),
            ("10.0.0.0 -10.0.0.7", "10.0.0.0/29"),
            ("10.0.0.1 - seen twice", "10.0.0.1/32"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("2001:db8::-2001:db8::3", "2001:db8::/126"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
            ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("", "nothing"),
            ("   ", "nothing"),
            ("# comment", "nothing"),
            ("; comment", "nothing"),
            ("// comment", "nothing"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(read(line), expected, "{line:?}");
        }
    }

    #[test]
    fn what_is_no_entry_says_why() {
        for (line, expected) in [
            ("example.com", "is not an address"),
            ("<html>", "is not an address"),
            (", 10.0.0.1", "is not an address"),
            ("10.0.0.256", "is not an address"),
            ("10.0.0.0/33", "has a prefix length that its family does not have"),
            ("10.0.0.0/+8", "has a prefix length that its family does not have"),
            ("10.0.0.0/", "has a prefix length that its family does not have"),
            (
                "10.0.0.0/255.0.0.0",
                "has a prefix length that its family does not have",
            ),
            (
                "::ffff:10.0.0.0/64",
                "has a prefix length that its family does not have",
            ),
            ("10.0.0.9-10.0.0.1", "runs backwards"),
            ("10.0.0.9-2001:db8::1", "mixes IPv4 and IPv6"),
            ("10.0.0.9-", "is not an address"),
        ] {
            assert_eq!(read(line), expected, "{line:?}");
        }
    }
}
