//! Arithmetic of translated addresses: numbers to addresses of a pool and back, network parts, RFC 6296.

use bulkhead_abi::{NatAction, NatPool, NatRule, POOL_RANGES, Reason};

/// A number below `limit` from 32 random bits, without a division.
#[inline(always)]
#[must_use]
pub fn below(random: u32, limit: u32) -> u32 {
    ((u64::from(random) * u64::from(limit)) >> 32) as u32
}

/// 32 bits that depend on every bit of an address: what pairs an inside address with one of a pool.
#[inline(always)]
#[must_use]
pub fn mix(address_be: &[u32; 4]) -> u32 {
    // Multiply and fold, with splitmix64's constant.
    let mut hash = 0u64;
    let mut i = 0;
    while i < 4 {
        hash = (hash ^ u64::from(address_be[i])).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 32;
        i += 1;
    }
    hash as u32
}

/// The low half of an address of a family as a number: what counts within a range.
#[inline(always)]
fn low(address_be: &[u32; 4], v4: bool) -> u64 {
    if v4 {
        u64::from(u32::from_be(address_be[0]))
    } else {
        u64::from(u32::from_be(address_be[2])) << 32 | u64::from(u32::from_be(address_be[3]))
    }
}

/// The high half: nothing for IPv4.
#[inline(always)]
fn high(address_be: &[u32; 4], v4: bool) -> u64 {
    if v4 {
        0
    } else {
        u64::from(u32::from_be(address_be[0])) << 32 | u64::from(u32::from_be(address_be[1]))
    }
}

/// Address number `index` of a pool, which is below its count.
#[inline(never)]
pub fn pool_address(pool: &NatPool, family: u8, index: u32, to: &mut [u32; 4]) {
    let v4 = family == 4;
    // Ranges that begin at or before the index, without the first; those that are not there begin at the end of all numbers.
    let mut range = 0;
    let mut i = 1;
    while i < POOL_RANGES {
        range += usize::from(index >= pool.before[i]);
        i += 1;
    }
    // As a mask rather than a check: the verifier must see a bound.
    let range = range & (POOL_RANGES - 1);
    let offset = u64::from(index.wrapping_sub(pool.before[range]));
    let first = &pool.first_be[range];
    let (from, upper) = (low(first, v4), high(first, v4));
    let number = from.wrapping_add(offset);
    if v4 {
        *to = [(number as u32).to_be(), 0, 0, 0];
    } else {
        let upper = upper.wrapping_add(u64::from(number < from));
        *to = [
            ((upper >> 32) as u32).to_be(),
            (upper as u32).to_be(),
            ((number >> 32) as u32).to_be(),
            (number as u32).to_be(),
        ];
    }
}

/// Whether a pool has an address.
#[inline(never)]
#[must_use]
pub fn pool_has(pool: &NatPool, family: u8, address_be: &[u32; 4]) -> bool {
    let v4 = family == 4;
    let (number, upper) = (low(address_be, v4), high(address_be, v4));
    let mut found = false;
    let mut i = 0;
    while i < POOL_RANGES {
        let before = pool.before[i];
        let next = if i + 1 < POOL_RANGES {
            pool.before[i + 1]
        } else {
            u32::MAX
        };
        let end = if next < pool.count { next } else { pool.count };
        let first = &pool.first_be[i];
        let offset = number.wrapping_sub(low(first, v4));
        let borrow = u64::from(number < low(first, v4));
        let above = upper.wrapping_sub(high(first, v4)).wrapping_sub(borrow);
        found |= before < pool.count && above == 0 && offset < u64::from(end.wrapping_sub(before));
        i += 1;
    }
    found
}

/// Writes what a rule with prefixes makes of an address it matched.
///
/// # Errors
/// [`Reason::NatUnsupported`] where RFC 6296 has no mapping: the subnet 0xffff of a site, or an interface identifier of
/// ones only.
#[inline(never)]
pub fn prefix(rule: &NatRule, address_be: &[u32; 4], to: &mut [u32; 4]) -> Result<(), Reason> {
    let mut i = 0;
    while i < 4 {
        to[i] = address_be[i] & !rule.mask_be[i] | rule.to_be[i];
        i += 1;
    }
    if rule.action != NatAction::Npt as u8 {
        return Ok(());
    }
    // The first word from the rule's on that is not all ones, which is zero's other name: section 3.4 for a site's prefix,
    // whose only candidate is word 3, section 3.5 for longer ones.
    let adjusted = if rule.word == 3 {
        adjust(&mut to[1], 16, rule.adjustment)
    } else {
        adjust(&mut to[2], 0, rule.adjustment)
            || adjust(&mut to[2], 16, rule.adjustment)
            || adjust(&mut to[3], 0, rule.adjustment)
            || adjust(&mut to[3], 16, rule.adjustment)
    };
    if adjusted {
        Ok(())
    } else {
        Err(Reason::NatUnsupported)
    }
}

/// Adds `adjustment` to one 16-bit word in one's complement; false if the word cannot be adjusted.
#[inline(always)]
fn adjust(half: &mut u32, shift: u32, adjustment: u16) -> bool {
    let word = (half.to_le() >> shift) & 0xffff;
    if word == 0xffff {
        return false;
    }
    let sum = word + u32::from(adjustment);
    let mut sum = (sum & 0xffff) + (sum >> 16);
    if sum == 0xffff {
        sum = 0;
    }
    *half = u32::from_le(half.to_le() & !(0xffff << shift) | sum << shift);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(address: [u8; 4]) -> [u32; 4] {
        [u32::from_ne_bytes(address), 0, 0, 0]
    }

    fn v6(text: &str) -> [u32; 4] {
        let octets = text.parse::<core::net::Ipv6Addr>().unwrap().octets();
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(octets.chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().unwrap());
        }
        words
    }

    fn pool(ranges: &[([u32; 4], u32)]) -> NatPool {
        let mut pool = NatPool {
            before: [u32::MAX; POOL_RANGES],
            ..NatPool::default()
        };
        for (i, (first, size)) in ranges.iter().enumerate() {
            pool.before[i] = pool.count;
            pool.first_be[i] = *first;
            pool.count += size;
        }
        pool
    }

    #[test]
    fn every_number_is_an_address_of_the_pool_and_its_neighbours_are_not() {
        let pool = pool(&[
            (v4([203, 0, 113, 254]), 4),
            (v4([10, 0, 0, 1]), 1),
            (v4([255, 255, 255, 254]), 2),
        ]);
        let mut seen = [[0; 4]; 7];
        for (index, address) in (0..).zip(&mut seen) {
            pool_address(&pool, 4, index, address);
            assert!(pool_has(&pool, 4, address));
        }
        let expected = [
            v4([203, 0, 113, 254]),
            v4([203, 0, 113, 255]),
            v4([203, 0, 114, 0]),
            v4([203, 0, 114, 1]),
            v4([10, 0, 0, 1]),
            v4([255, 255, 255, 254]),
            v4([255, 255, 255, 255]),
        ];
        assert_eq!(seen, expected);
        for outside in [
            [203, 0, 113, 253],
            [203, 0, 114, 2],
            [10, 0, 0, 0],
            [10, 0, 0, 2],
            [255, 255, 255, 253],
            [0, 0, 0, 0],
        ] {
            assert!(!pool_has(&pool, 4, &v4(outside)), "{outside:?}");
        }
    }

    #[test]
    fn ranges_of_ipv6_carry_into_the_upper_half() {
        let pool = pool(&[(v6("2001:db8::ffff:ffff:ffff:fffe"), 4); POOL_RANGES]);
        let mut address = [0; 4];
        for (index, expected) in [
            (0, "2001:db8::ffff:ffff:ffff:fffe"),
            (2, "2001:db8:0:1::"),
            (3, "2001:db8:0:1::1"),
            (31, "2001:db8:0:1::1"),
        ] {
            pool_address(&pool, 6, index, &mut address);
            assert_eq!(address, v6(expected), "{index}");
            assert!(pool_has(&pool, 6, &address));
        }
        for outside in [
            "2001:db8:0:1::2",
            "2001:db8::ffff:ffff:ffff:fffd",
            "2001:db7::ffff:ffff:ffff:ffff",
            "2001:db9:0:1::",
        ] {
            assert!(!pool_has(&pool, 6, &v6(outside)), "{outside}");
        }
    }

    #[test]
    fn numbers_are_spread_over_the_whole_range() {
        assert_eq!((below(0, 10), below(u32::MAX, 10), below(1 << 31, 10)), (0, 9, 5));
        assert_eq!(below(u32::MAX, 0), 0);
        let mut hit = [false; 16];
        for host in 0..64 {
            hit[below(mix(&v4([10, 1, 0, host])), 16) as usize] = true;
        }
        assert_eq!(hit, [true; 16], "neighbouring hosts use the whole pool");
    }

    /// RFC 6296's example: FD01:0203:0405::/48 becomes 2001:0DB8:0001::/48, with 0xD54F as the adjustment.
    #[test]
    fn the_example_of_rfc6296() {
        let mask = v6("ffff:ffff:ffff::");
        let adjustment = u16::from_ne_bytes([0xd5, 0x4f]);
        let outwards = NatRule {
            action: NatAction::Npt as u8,
            word: 3,
            adjustment,
            mask_be: mask,
            to_be: v6("2001:db8:1::"),
            ..NatRule::default()
        };
        let mut address = [0; 4];
        assert_eq!(
            prefix(&outwards, &v6("fd01:203:405:1::1234"), &mut address),
            Ok(())
        );
        assert_eq!(address, v6("2001:db8:1:d550::1234"));
        let inwards = NatRule {
            adjustment: !adjustment,
            to_be: v6("fd01:203:405::"),
            ..outwards
        };
        let outside = address;
        assert_eq!(prefix(&inwards, &outside, &mut address), Ok(()));
        assert_eq!(address, v6("fd01:203:405:1::1234"));
        // The subnet of ones cannot be told from that of zeros.
        let ones = v6("fd01:203:405:ffff::1234");
        assert_eq!(
            prefix(&outwards, &ones, &mut address),
            Err(Reason::NatUnsupported)
        );
    }

    #[test]
    fn long_prefixes_adjust_the_first_word_that_is_not_all_ones() {
        let rule = NatRule {
            action: NatAction::Npt as u8,
            word: 4,
            adjustment: u16::from_ne_bytes([0, 5]),
            mask_be: v6("ffff:ffff:ffff:ffff::"),
            to_be: v6("2001:db8:1:2::"),
            ..NatRule::default()
        };
        let mut address = [0; 4];
        for (from, to) in [
            ("fd00::1:2:3:4", "2001:db8:1:2:6:2:3:4"),
            ("fd00::ffff:2:3:4", "2001:db8:1:2:ffff:7:3:4"),
            ("fd00::ffff:ffff:3:4", "2001:db8:1:2:ffff:ffff:8:4"),
            ("fd00::ffff:ffff:ffff:4", "2001:db8:1:2:ffff:ffff:ffff:9"),
            // A sum of ones only is written as zero.
            ("fd00::fffa:2:3:4", "2001:db8:1:2:0:2:3:4"),
            ("fd00::fffe:2:3:4", "2001:db8:1:2:4:2:3:4"),
        ] {
            assert_eq!(prefix(&rule, &v6(from), &mut address), Ok(()));
            assert_eq!(address, v6(to), "{from}");
        }
        let ones = v6("fd00::ffff:ffff:ffff:ffff");
        assert_eq!(prefix(&rule, &ones, &mut address), Err(Reason::NatUnsupported));
    }
}
