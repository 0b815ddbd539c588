//! Addresses as the tables hold them: memory-order words, IPv4 in word 0.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address as table words.
#[must_use]
pub fn words(address: IpAddr) -> [u32; 4] {
    match address {
        IpAddr::V4(address) => [u32::from_ne_bytes(address.octets()), 0, 0, 0],
        IpAddr::V6(address) => {
            let o = address.octets();
            [0, 4, 8, 12].map(|i| u32::from_ne_bytes([o[i], o[i + 1], o[i + 2], o[i + 3]]))
        }
    }
}

/// The address in table words.
#[must_use]
pub fn address(family: u8, words: &[u32; 4]) -> IpAddr {
    if family == 4 {
        IpAddr::V4(Ipv4Addr::from(words[0].to_ne_bytes()))
    } else {
        let mut octets = [0; 16];
        for (chunk, word) in octets.chunks_exact_mut(4).zip(words) {
            chunk.copy_from_slice(&word.to_ne_bytes());
        }
        IpAddr::V6(Ipv6Addr::from(octets))
    }
}

/// 4 or 6.
#[must_use]
pub fn family(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}
