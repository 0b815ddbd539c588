//! Sequence numbers of a TCP direction whose payload changed its length on the way.
//!
//! Owns the arithmetic: behind the place of a change every number is off by what all changes so far added. The sender may
//! repeat what lies in front of the last change, so that one place and the offsets on both its sides are remembered, which
//! is what Linux does (net/netfilter/nf_conntrack_seqadj.c). A change in front of the last one is a repetition.

/// Whether `a` comes after `b` in sequence space (RFC 9293, 3.4).
const fn after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

/// The shift of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shift {
    /// Sequence number, as the sender counts, of the last changed line; `None`: nothing changed yet.
    at: Option<u32>,
    /// What is added up to there, and there.
    before: i32,
    /// What is added behind.
    after: i32,
}

impl Shift {
    /// Whether any number differs.
    pub const fn is_needed(&self) -> bool {
        self.before != 0 || self.after != 0
    }

    /// Notes that the line at sequence number `at` grew by `by` bytes. The same line again, repeated, changes nothing; one
    /// before it neither.
    pub fn note(&mut self, at: u32, by: i32) {
        match self.at {
            Some(last) if !after(at, last) => {}
            _ if by == 0 => {}
            _ => {
                self.at = Some(at);
                self.before = self.after;
                self.after += by;
            }
        }
    }

    /// The sender's number as the receiver must see it.
    pub fn forward(&self, seq: u32) -> u32 {
        let by = match self.at {
            Some(at) if after(seq, at) => self.after,
            _ => self.before,
        };
        seq.wrapping_add_signed(by)
    }

    /// The receiver's acknowledgement as the sender must see it.
    pub fn back(&self, ack: u32) -> u32 {
        let by = match self.at {
            Some(at) if after(ack.wrapping_add_signed(self.before.wrapping_neg()), at) => self.after,
            _ => self.before,
        };
        ack.wrapping_add_signed(by.wrapping_neg())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_front_keep_and_behind_move() {
        let mut shift = Shift::default();
        assert!(!shift.is_needed());
        assert_eq!((shift.forward(7), shift.back(7)), (7, 7));
        // A line of 20 bytes at 1000 becomes one of 23.
        shift.note(1000, 3);
        assert_eq!([900, 1000, 1020].map(|seq| shift.forward(seq)), [900, 1000, 1023]);
        assert_eq!([900, 1000, 1023].map(|ack| shift.back(ack)), [900, 1000, 1020]);
        // Repeated: the same.
        shift.note(1000, 3);
        assert_eq!(shift.forward(1020), 1023);
        // The next line shrinks.
        shift.note(1020, -5);
        assert_eq!([1020, 1040].map(|seq| shift.forward(seq)), [1023, 1038]);
        assert_eq!([1023, 1038].map(|ack| shift.back(ack)), [1020, 1040]);
        // One from before the last change, repeated late.
        shift.note(1000, 3);
        assert_eq!(shift.forward(1040), 1038);
    }

    #[test]
    fn numbers_wrap() {
        let mut shift = Shift::default();
        shift.note(u32::MAX - 4, 10);
        assert_eq!(shift.forward(u32::MAX - 4), u32::MAX - 4);
        assert_eq!(shift.forward(5), 15);
        assert_eq!(shift.back(15), 5);
    }
}
