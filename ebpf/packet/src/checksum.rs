//! Internet checksum arithmetic (RFC 1071), full and incremental (RFC 1624).
//!
//! Sums are kept as unfolded `u32` accumulations of 16-bit words in *memory order*, like the kernel's `__wsum`:
//! one's-complement addition does not care about byte order as long as everyone keeps the same one.

use crate::HeaderBuffer;

/// Folds a sum into 16 bits.
#[inline(always)]
#[must_use]
pub fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// One's-complement addition of two unfolded sums.
#[inline(always)]
#[must_use]
pub fn add(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u32::from(carry)
}

/// The change of a sum when the 32-bit word `from` becomes `to` (both in memory order).
#[inline(always)]
#[must_use]
pub fn replace32(sum: u32, from: u32, to: u32) -> u32 {
    add(add(sum, !from), to)
}

/// The change of a sum when a 16-bit word in memory order changes.
#[inline(always)]
#[must_use]
pub fn replace16(sum: u32, from: u16, to: u16) -> u32 {
    add(add(sum, u32::from(!from)), u32::from(to))
}

/// Applies an accumulated change to a checksum field, both in memory order.
#[inline(always)]
#[must_use]
pub fn apply(field: u16, change: u32) -> u16 {
    !fold(add(u32::from(!field), change))
}

/// Whether the IPv4 header at `at` with `words` 32-bit words (5 to 15) sums to all ones, as a correct one does.
#[inline(always)]
#[must_use]
pub fn ipv4_header_valid(headers: &HeaderBuffer, at: usize, words: usize) -> bool {
    let mut sum = 0u64;
    let mut i = 0;
    while i < 5 {
        match headers.word(at + i * 4) {
            Some(word) => sum += u64::from(word),
            None => return false,
        }
        i += 1;
    }
    // Options are rare; without them the sum is done.
    if words > 5 {
        while i < 15 {
            if i < words {
                match headers.word(at + i * 4) {
                    Some(word) => sum += u64::from(word),
                    None => return false,
                }
            }
            i += 1;
        }
    }
    fold(fold64(sum)) == 0xffff
}

/// Folds a 64-bit accumulation of words into an unfolded 32-bit sum.
#[inline(always)]
#[must_use]
pub fn fold64(sum: u64) -> u32 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum as u32
}

/// Sum of a pseudo header: addresses, protocol and layer 4 length (RFC 793, RFC 8200 section 8.1).
#[inline(always)]
#[must_use]
pub fn pseudo_header(source_be: &[u32; 4], destination_be: &[u32; 4], protocol: u8, length: u32) -> u32 {
    let mut sum = u64::from(u32::from(protocol).to_be()) + u64::from(length.to_be());
    let mut i = 0;
    while i < 4 {
        sum += u64::from(source_be[i]) + u64::from(destination_be[i]);
        i += 1;
    }
    fold64(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc1624_example() {
        // RFC 1624, section 4: header word 0x5555 becomes 0x3285, checksum 0xDD2F becomes 0x0000.
        let change = replace16(0, 0x5555, 0x3285);
        assert_eq!(apply(0xdd2f, change), 0x0000);
    }

    #[test]
    fn fold_of_all_ones() {
        assert_eq!(fold(0xffff_ffff), 0xffff);
        assert_eq!(fold(0x0001_ffff), 1);
    }
}
