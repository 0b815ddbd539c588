//! SYN cookies of the host's world: they stand in for the kernel's, whose secret nobody can read.
//!
//! The same shape (RFC 4987, section 3.6; net/ipv4/syncookies.c): hashes of tuple, minute and a secret, plus the client's
//! sequence number and the index of a segment size. Not for use on a network.

use super::std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bulkhead_packet::{ETHERNET_BYTES, HeaderBuffer};

const MINUTE_NS: u64 = 60_000_000_000;

/// Minutes that a cookie lives, that of its making included (`MAX_SYNCOOKIE_AGE`).
const MINUTES: u64 = 2;

/// Where the kernel's tables of segment sizes stand.
fn sizes(family: u8) -> [u16; 4] {
    if family == 4 {
        [536, 1300, 1440, 1460]
    } else {
        [1220, 1420, 1440, 8940]
    }
}

/// Offset of the TCP header and a hash of the tuple.
fn tuple(headers: &HeaderBuffer, family: u8) -> Option<(usize, DefaultHasher)> {
    let mut hasher = DefaultHasher::new();
    "a secret of this test's own".hash(&mut hasher);
    let l4 = if family == 4 {
        (
            headers.word(ETHERNET_BYTES + 12)?,
            headers.word(ETHERNET_BYTES + 16)?,
        )
            .hash(&mut hasher);
        ETHERNET_BYTES + 20
    } else {
        headers.address6(ETHERNET_BYTES + 8)?.hash(&mut hasher);
        headers.address6(ETHERNET_BYTES + 24)?.hash(&mut hasher);
        ETHERNET_BYTES + 40
    };
    headers.word(l4)?.hash(&mut hasher);
    Some((l4, hasher))
}

/// The cookie of a tuple, made in this minute for a client that began with `isn`: one sum, as in the kernel
/// (`secure_tcp_syn_cookie`), so that what passes there by mistake passes here too.
fn cookie(hasher: &DefaultHasher, isn: u32, minute: u64, index: u32) -> u32 {
    let mut with_minute = hasher.clone();
    minute.hash(&mut with_minute);
    let low = (with_minute.finish() as u32).wrapping_add(index) & 0x00ff_ffff;
    (hasher.finish() as u32)
        .wrapping_add(isn)
        .wrapping_add((minute as u32) << 24)
        .wrapping_add(low)
}

/// The cookie and the segment size that it remembers, as the kernel's helper returns them.
pub(super) fn make(headers: &HeaderBuffer, family: u8, tcp_bytes: u32, now_ns: u64) -> Option<u64> {
    let (l4, hasher) = tuple(headers, family)?;
    if u32::from(headers.byte(l4 + 12)? >> 4) * 4 != tcp_bytes || tcp_bytes < 20 {
        return None;
    }
    let offered = offered(headers, l4, tcp_bytes as usize).unwrap_or(sizes(family)[0]);
    let index = sizes(family)
        .iter()
        .rposition(|size| *size <= offered)
        .unwrap_or(0);
    let cookie = cookie(&hasher, headers.be32(l4 + 4)?, now_ns / MINUTE_NS, index as u32);
    Some(u64::from(sizes(family)[index]) << 32 | u64::from(cookie))
}

/// The segment size option of a SYN.
fn offered(headers: &HeaderBuffer, l4: usize, tcp_bytes: usize) -> Option<u16> {
    let mut at = l4 + 20;
    while at < l4 + tcp_bytes {
        match headers.byte(at)? {
            0 => return None,
            1 => at += 1,
            2 => return headers.be16(at + 2),
            _ => at += usize::from(headers.byte(at + 1)?).max(2),
        }
    }
    None
}

/// Whether an acknowledgement proves a cookie.
pub(super) fn proves(headers: &HeaderBuffer, family: u8, now_ns: u64) -> Option<bool> {
    let (l4, hasher) = tuple(headers, family)?;
    let isn = headers.be32(l4 + 4)?.wrapping_sub(1);
    let proof = headers.be32(l4 + 8)?.wrapping_sub(1);
    let now = now_ns / MINUTE_NS;
    let proven = |age| (0..4).any(|index| cookie(&hasher, isn, now.wrapping_sub(age), index) == proof);
    Some((0..MINUTES).any(proven))
}
