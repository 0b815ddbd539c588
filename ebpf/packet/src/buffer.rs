//! The buffer of header bytes that parser and pipeline work on.

/// Bytes of a frame that are looked at: Ethernet, the longest IPv4 header, an ICMP error and the whole header it
/// quotes fit, and so do IPv6 chains of a dozen options. Longer chains are refused by name.
pub const HEADER_BYTES: usize = 192;

/// Bytes in front of the frame. They put the layer 3 header of an untagged frame, and with it every header behind it
/// (all lengths are multiples of four), on a word boundary, as `NET_IP_ALIGN` does in the kernel.
pub const LEAD_BYTES: usize = 2;

const WORDS: usize = 50;

/// A copy of the first bytes of a frame, held as words: a 32-bit field is one load instead of four.
///
/// Offsets count from the frame's first byte. 32-bit fields lie at offsets of the form 4n + 2 and 16-bit fields at even
/// ones, as those of all headers do; other offsets read as absent.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct HeaderBuffer {
    /// Two bytes of zero, the frame's bytes, and room to the end.
    pub words: [u32; WORDS],
    /// How many bytes came from the frame.
    pub len: u32,
    /// Zero.
    pub reserved: u32,
}

impl Default for HeaderBuffer {
    fn default() -> Self {
        Self {
            words: [0; WORDS],
            len: 0,
            reserved: 0,
        }
    }
}

/// Index of the word that holds the byte at `at`, and how far that byte must be shifted down (on the value as if it
/// were little-endian).
#[inline(always)]
const fn place(at: usize) -> (usize, u32) {
    ((at + LEAD_BYTES) >> 2, ((at + LEAD_BYTES) as u32 & 3) * 8)
}

impl HeaderBuffer {
    /// A buffer holding the start of `frame`.
    #[must_use]
    pub fn from_frame(frame: &[u8]) -> Self {
        let mut buffer = Self {
            len: frame.len().min(HEADER_BYTES) as u32,
            ..Self::default()
        };
        for (at, byte) in frame.iter().take(HEADER_BYTES).enumerate() {
            buffer.set_byte(at, *byte);
        }
        buffer
    }

    /// The bytes of the buffer, those beyond the frame's included.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        core::array::from_fn(|at| {
            let (word, shift) = place(at);
            (self.words[word].to_le() >> shift) as u8
        })
    }

    /// Whether the frame has `bytes` bytes from `at` on. `len` is at most [`HEADER_BYTES`]; the verifier does not know, so
    /// each access checks its index too.
    #[inline(always)]
    fn has(&self, at: usize, bytes: usize) -> bool {
        at + bytes <= self.len as usize
    }

    /// The byte at `at`, if the frame has it.
    #[inline(always)]
    #[must_use]
    pub fn byte(&self, at: usize) -> Option<u8> {
        let (word, shift) = place(at);
        if self.has(at, 1) && word < WORDS {
            Some((self.words[word].to_le() >> shift) as u8)
        } else {
            None
        }
    }

    /// The 16-bit big-endian number at the even offset `at`, as host order.
    #[inline(always)]
    #[must_use]
    pub fn be16(&self, at: usize) -> Option<u16> {
        let (word, shift) = place(at);
        if self.has(at, 2) && at & 1 == 0 && word < WORDS {
            Some(((self.words[word].to_le() >> shift) as u16).swap_bytes())
        } else {
            None
        }
    }

    /// The four bytes at `at` (4n + 2) in memory order.
    #[inline(always)]
    #[must_use]
    pub fn word(&self, at: usize) -> Option<u32> {
        let (word, shift) = place(at);
        if self.has(at, 4) && shift == 0 && word < WORDS {
            Some(self.words[word])
        } else {
            None
        }
    }

    /// The 32-bit big-endian number at `at` (4n + 2), as host order.
    #[inline(always)]
    #[must_use]
    pub fn be32(&self, at: usize) -> Option<u32> {
        self.word(at).map(u32::from_be)
    }

    /// The IPv6 address at `at` (4n + 2) in memory order.
    #[inline(always)]
    #[must_use]
    pub fn address6(&self, at: usize) -> Option<[u32; 4]> {
        if !self.has(at, 16) {
            return None;
        }
        Some([
            self.word(at)?,
            self.word(at + 4)?,
            self.word(at + 8)?,
            self.word(at + 12)?,
        ])
    }

    /// Overwrites one byte; outside the buffer nothing happens.
    #[inline(always)]
    pub fn set_byte(&mut self, at: usize, value: u8) {
        let (word, shift) = place(at);
        if at < HEADER_BYTES && word < WORDS {
            let old = self.words[word].to_le() & !(0xff << shift);
            self.words[word] = u32::from_le(old | u32::from(value) << shift);
        }
    }

    /// Overwrites the 16-bit number at the even offset `at`, given in host order.
    #[inline(always)]
    pub fn set_be16(&mut self, at: usize, value: u16) {
        let (word, shift) = place(at);
        if at < HEADER_BYTES - 1 && at & 1 == 0 && word < WORDS {
            let old = self.words[word].to_le() & !(0xffff << shift);
            self.words[word] = u32::from_le(old | u32::from(value.swap_bytes()) << shift);
        }
    }

    /// Overwrites the four bytes at `at` (4n + 2), given in memory order.
    #[inline(always)]
    pub fn set_word(&mut self, at: usize, value: u32) {
        let (word, shift) = place(at);
        if at < HEADER_BYTES - 3 && shift == 0 && word < WORDS {
            self.words[word] = value;
        }
    }

    /// Overwrites the IPv6 address at `at` (4n + 2), given in memory order.
    #[inline(always)]
    pub fn set_address6(&mut self, at: usize, value: [u32; 4]) {
        self.set_word(at, value[0]);
        self.set_word(at + 4, value[1]);
        self.set_word(at + 8, value[2]);
        self.set_word(at + 12, value[3]);
    }

    /// The frame's destination station: its first two bytes (low half, memory order) and its last four.
    #[inline(always)]
    #[must_use]
    pub fn station(&self) -> (u16, u32) {
        (u16::from_le((self.words[0].to_le() >> 16) as u16), self.words[1])
    }

    /// Sends the frame back to where it came from.
    #[inline(always)]
    pub fn swap_stations(&mut self) {
        let [_, _, a, b] = self.words[0].to_ne_bytes();
        let [c, d, e, f] = self.words[1].to_ne_bytes();
        let [g, h, i, j] = self.words[2].to_ne_bytes();
        let [k, l, ..] = self.words[3].to_ne_bytes();
        self.set_stations(&[g, h, i, j, k, l], &[a, b, c, d, e, f]);
    }

    /// Overwrites both stations.
    #[inline(always)]
    pub fn set_stations(&mut self, destination: &[u8; 6], source: &[u8; 6]) {
        let (d, s) = (destination, source);
        self.words[0] = u32::from_ne_bytes([0, 0, d[0], d[1]]);
        self.words[1] = u32::from_ne_bytes([d[2], d[3], d[4], d[5]]);
        self.words[2] = u32::from_ne_bytes([s[0], s[1], s[2], s[3]]);
        let ether_type = self.words[3].to_ne_bytes();
        self.words[3] = u32::from_ne_bytes([s[4], s[5], ether_type[2], ether_type[3]]);
    }
}
