//! Test content and its digest.
//!
//! Content is generated from a seed, so neither side stores it; the digest depends on every byte and its
//! place, and not on how the stream was cut into reads.

/// 64-bit FNV-1a over eight-byte words, with the length mixed in. Not for adversaries.
#[derive(Debug, Clone)]
pub(crate) struct Digest {
    state: u64,
    carry: [u8; 8],
    carried: usize,
    length: u64,
}

const PRIME: u64 = 0x0000_0100_0000_01b3;

impl Digest {
    pub(crate) const fn new() -> Self {
        Self {
            state: 0xcbf2_9ce4_8422_2325,
            carry: [0; 8],
            carried: 0,
            length: 0,
        }
    }

    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if self.carried != 0 {
            let take = bytes.len().min(8 - self.carried);
            self.carry[self.carried..self.carried + take].copy_from_slice(&bytes[..take]);
            self.carried += take;
            bytes = &bytes[take..];
            if self.carried < 8 {
                return;
            }
            self.word(u64::from_le_bytes(self.carry));
            self.carried = 0;
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        self.carry[..rest.len()].copy_from_slice(rest);
        self.carried = rest.len();
    }

    /// The high bits matter: multiplication alone never carries them down.
    const fn word(&mut self, word: u64) {
        self.state = (self.state ^ word).wrapping_mul(PRIME);
        self.state ^= self.state >> 32;
    }

    pub(crate) fn finish(mut self) -> u64 {
        self.carry[self.carried..].fill(0);
        self.word(u64::from_le_bytes(self.carry));
        self.word(self.length);
        self.state
    }
}

/// An endless stream of bytes that the seed determines (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Content {
    state: u64,
}

impl Content {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next bytes. The stream depends on the seed and on the lengths asked for.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = self.state;
            word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            word ^= word >> 31;
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(pieces: &[&[u8]]) -> u64 {
        let mut digest = Digest::new();
        pieces.iter().for_each(|piece| digest.update(piece));
        digest.finish()
    }

    #[test]
    fn the_digest_does_not_depend_on_how_the_stream_is_cut() {
        let mut content = [0; 61];
        Content::new(7).fill(&mut content);
        let whole = digest(&[&content]);
        for cut in 0..=content.len() {
            let (left, right) = content.split_at(cut);
            assert_eq!(digest(&[left, right]), whole, "cut at {cut}");
            assert_eq!(
                digest(&[&left[..cut / 2], &left[cut / 2..], right]),
                whole,
                "cut at {}, {cut}",
                cut / 2
            );
        }
    }

    #[test]
    fn the_digest_sees_every_bit_and_the_length() {
        let mut content = [0; 61];
        Content::new(7).fill(&mut content);
        let whole = digest(&[&content]);
        for bit in 0..content.len() * 8 {
            let mut changed = content;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(digest(&[&changed]), whole, "bit {bit}");
        }
        assert_ne!(digest(&[&[0; 8]]), digest(&[&[0; 9]]));
    }
}
