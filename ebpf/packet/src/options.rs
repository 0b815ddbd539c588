//! What a SYN says in its options: window scale and maximum segment size.

use crate::{HEADER_BYTES, HeaderBuffer, Packet, Repeat};

const _: () = assert!(HEADER_BYTES <= 0x100);

/// The options of a SYN that a firewall cares for. One register, as BPF functions return.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct SynOptions(u32);

impl SynOptions {
    const HAS_SCALE: u32 = 1 << 8;

    /// The window scale, at most 14 (RFC 7323, 2.3). `None`: not announced.
    #[must_use]
    #[inline(always)]
    pub const fn scale(self) -> Option<u8> {
        if self.0 & Self::HAS_SCALE != 0 {
            Some(self.0 as u8)
        } else {
            None
        }
    }

    /// Offset of the two bytes of the maximum segment size; it may be odd.
    #[must_use]
    #[inline(always)]
    pub const fn segment_at(self) -> Option<usize> {
        // Masked, though it lies inside the header buffer anyway: the verifier does not know.
        match self.0 >> 16 & 0xff {
            0 => None,
            at => Some(at as usize),
        }
    }
}

/// Reads the options of the TCP header of `packet` (RFC 9293, 3.1). What follows a malformed one is not read, as in Linux.
#[inline(never)]
#[must_use]
pub fn syn_options(looping: &impl Repeat, headers: &HeaderBuffer, packet: &Packet) -> SynOptions {
    let mut at = usize::from(packet.l4) + 20;
    let end = usize::from(packet.l4) + usize::from(packet.tcp_header_bytes);
    let mut found = 0;
    // Forty bytes of options, single-byte ones included.
    looping.repeat(40, |_| {
        if at >= end {
            return true;
        }
        let Some(option) = headers.byte(at) else {
            return true;
        };
        if option == 0 {
            return true;
        }
        if option == 1 {
            at += 1;
            return false;
        }
        let Some(length) = headers.byte(at + 1) else {
            return true;
        };
        let length = usize::from(length);
        if length < 2 || at + length > end {
            return true;
        }
        if option == 3 && length == 3 {
            let scale = headers.byte(at + 2).unwrap_or(0).min(14);
            found = found & 0xffff_0000 | SynOptions::HAS_SCALE | u32::from(scale);
        }
        if option == 2 && length == 4 {
            found = found & 0xffff | ((at + 2) as u32) << 16;
        }
        at += length;
        false
    });
    SynOptions(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PlainLoop;

    /// The options of a SYN with these, behind an IPv4 header.
    fn read(options: &[u8]) -> SynOptions {
        let mut frame = [0; 54].to_vec();
        frame.extend(options);
        let packet = Packet {
            l4: 34,
            tcp_header_bytes: 20 + options.len() as u8,
            ..Packet::default()
        };
        syn_options(&PlainLoop, &HeaderBuffer::from_frame(&frame), &packet)
    }

    #[test]
    fn both_are_found_wherever_they_stand() {
        let linux = read(&[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7]);
        assert_eq!((linux.scale(), linux.segment_at()), (Some(7), Some(56)));
        let odd = read(&[1, 3, 3, 14, 1, 1, 1, 2, 4, 2, 24, 0]);
        assert_eq!((odd.scale(), odd.segment_at()), (Some(14), Some(63)));
        assert_eq!(read(&[3, 3, 0, 0]).scale(), Some(0));
        assert_eq!(read(&[3, 3, 255, 0]).scale(), Some(14));
    }

    #[test]
    fn what_is_absent_or_malformed_is_not_there() {
        for options in [
            &[][..],
            &[0, 0, 0, 0],
            // Behind the end of the list.
            &[0, 3, 3, 7],
            // Lengths of nothing, of their own header's half, beyond the header, and wrong ones.
            &[8, 0, 3, 3],
            &[8, 1, 3, 3],
            &[2, 4, 5, 0xb4][..2],
            &[254, 9, 3, 3, 7, 0, 0, 0],
            &[3, 4, 7, 0],
            &[2, 3, 5, 0],
        ] {
            let options = read(options);
            assert_eq!((options.scale(), options.segment_at()), (None, None));
        }
    }
}
