//! The buffer of header bytes that parser and pipeline work on.

/// Bytes of a frame that are looked at: Ethernet, the longest IPv4 header, an ICMP error and the whole header it
/// quotes fit, and so do IPv6 chains of a dozen options. Longer chains are refused by name.
pub const HEADER_BYTES: usize = 192;

/// A copy of the first bytes of a frame. The two bytes in front put the layer 3 header of an untagged frame on a
/// word boundary, as `NET_IP_ALIGN` does in the kernel.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct HeaderBuffer {
    /// Zero.
    pub lead: [u8; 2],
    /// The frame from its first byte on.
    pub bytes: [u8; HEADER_BYTES],
    /// How many of `bytes` came from the frame.
    pub len: u16,
    /// Zero.
    pub tail: [u8; 4],
}

impl Default for HeaderBuffer {
    fn default() -> Self {
        Self { lead: [0; 2], bytes: [0; HEADER_BYTES], len: 0, tail: [0; 4] }
    }
}

impl HeaderBuffer {
    /// A buffer holding the start of `frame`.
    #[must_use]
    pub fn from_frame(frame: &[u8]) -> Self {
        let mut buffer = Self::default();
        for (to, from) in buffer.bytes.iter_mut().zip(frame) {
            *to = *from;
        }
        buffer.len = frame.len().min(HEADER_BYTES) as u16;
        buffer
    }

    /// The byte at `at`, if the frame has it.
    #[inline(always)]
    #[must_use]
    pub fn byte(&self, at: usize) -> Option<u8> {
        if at >= HEADER_BYTES || at >= usize::from(self.len) { None } else { Some(self.bytes[at]) }
    }

    /// The 16-bit big-endian number at `at`, as host order.
    #[inline(always)]
    #[must_use]
    pub fn be16(&self, at: usize) -> Option<u16> {
        if at >= HEADER_BYTES - 1 || at + 1 >= usize::from(self.len) {
            return None;
        }
        Some(u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]))
    }

    /// The four bytes at `at` in memory order.
    #[inline(always)]
    #[must_use]
    pub fn word(&self, at: usize) -> Option<u32> {
        if at >= HEADER_BYTES - 3 || at + 3 >= usize::from(self.len) {
            return None;
        }
        let b = &self.bytes;
        Some(u32::from_ne_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]))
    }

    /// The 32-bit big-endian number at `at`, as host order.
    #[inline(always)]
    #[must_use]
    pub fn be32(&self, at: usize) -> Option<u32> {
        self.word(at).map(u32::from_be)
    }

    /// The IPv6 address at `at` in memory order.
    #[inline(always)]
    #[must_use]
    pub fn address6(&self, at: usize) -> Option<[u32; 4]> {
        if at >= HEADER_BYTES - 15 || at + 15 >= usize::from(self.len) {
            return None;
        }
        Some([self.word(at)?, self.word(at + 4)?, self.word(at + 8)?, self.word(at + 12)?])
    }

    /// Overwrites one byte; outside the buffer nothing happens.
    #[inline(always)]
    pub fn set_byte(&mut self, at: usize, value: u8) {
        if at < HEADER_BYTES {
            self.bytes[at] = value;
        }
    }

    /// Overwrites a 16-bit number, given in host order.
    #[inline(always)]
    pub fn set_be16(&mut self, at: usize, value: u16) {
        if at < HEADER_BYTES - 1 {
            let [a, b] = value.to_be_bytes();
            self.bytes[at] = a;
            self.bytes[at + 1] = b;
        }
    }

    /// Overwrites four bytes given in memory order.
    #[inline(always)]
    pub fn set_word(&mut self, at: usize, value: u32) {
        if at < HEADER_BYTES - 3 {
            let [a, b, c, d] = value.to_ne_bytes();
            self.bytes[at] = a;
            self.bytes[at + 1] = b;
            self.bytes[at + 2] = c;
            self.bytes[at + 3] = d;
        }
    }

    /// Overwrites an IPv6 address given in memory order.
    #[inline(always)]
    pub fn set_address6(&mut self, at: usize, value: [u32; 4]) {
        self.set_word(at, value[0]);
        self.set_word(at + 4, value[1]);
        self.set_word(at + 8, value[2]);
        self.set_word(at + 12, value[3]);
    }
}
