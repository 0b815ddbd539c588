//! What a frame came to, to be asserted: each way to assert names every counter that moved.

use bulkhead_abi::{FrameKind, Reason};
use bulkhead_pipeline::{
    Action,
    host::{Counters, Handed, Outcome},
};

use crate::{
    frame::{Seen, ip},
    net::{mac, neighbour_mac},
    verify::verify,
};

/// What one frame came to, to be asserted. Each way to assert names every counter that moved.
#[must_use]
pub struct Step {
    pub outcome: Outcome,
    pub before: Vec<u8>,
}

/// Counters of a packet that asked policy for the first time, and the second.
pub const MISS: (&str, u64) = ("decision_cache_misses", 1);
pub const HIT: (&str, u64) = ("decision_cache_hits", 1);

impl Step {
    #[track_caller]
    fn counts(&self, reason: Reason, others: &[(&'static str, u64)]) {
        let mut expected: Counters = others.iter().copied().collect();
        *expected.entry(reason.name()).or_insert(0) += 1;
        assert_eq!(
            self.outcome.verdict.reason, reason,
            "reason; {:02x?}",
            self.outcome
        );
        assert_eq!(self.outcome.delta, expected, "counters; {:02x?}", self.outcome);
    }

    #[track_caller]
    fn unchanged(&self) {
        assert_eq!(
            self.outcome.bytes, self.before,
            "a packet that is not forwarded was changed"
        );
        assert_eq!(self.outcome.out_ifindex, 0);
    }

    /// Forwarded to a known neighbour, with right checksums and a lower hop limit; these counters moved besides the
    /// reason's.
    #[track_caller]
    pub fn forwarded(self, out: u32, reason: Reason, others: &[(&'static str, u64)]) -> Sent {
        self.counts(reason, others);
        let Outcome {
            verdict,
            bytes,
            out_ifindex,
            asked,
            handed,
            events,
            ..
        } = self.outcome;
        assert!(
            matches!(verdict.action, Action::Redirect | Action::RedirectPeer),
            "{verdict:?}"
        );
        assert_eq!(out_ifindex, out, "egress interface");
        assert_eq!(bytes[6..12], mac(out), "source MAC");
        assert!(asked.is_empty(), "{asked:?}");
        assert!(handed.is_empty(), "{handed:?}");
        verify(&bytes);
        let seen = Seen::read(&bytes);
        assert_eq!(seen.ttl, Seen::read(&self.before).ttl - 1, "hop limit");
        Sent { bytes, seen, events }
    }

    /// Sent out of the other end of its wire, not a byte changed.
    #[track_caller]
    pub fn crossed(self, out: u32, reason: Reason, others: &[(&'static str, u64)]) {
        self.counts(reason, others);
        assert_eq!(self.outcome.bytes, self.before, "a wire changes nothing");
        assert_eq!(self.outcome.verdict.action, Action::Redirect);
        assert_eq!(self.outcome.out_ifindex, out);
        assert!(self.outcome.asked.is_empty());
    }

    /// Forwarded, whatever its part in the datagram was counted as. Returns the frame.
    #[track_caller]
    pub fn forwarded_in_part(self, out: u32) -> Vec<u8> {
        let reason = self.outcome.verdict.reason;
        let others: Vec<_> = self
            .outcome
            .delta
            .iter()
            .map(|(name, by)| (*name, by - u64::from(*name == reason.name())))
            .filter(|(_, by)| *by != 0)
            .collect();
        assert!(
            matches!(
                reason,
                Reason::SessionCreated | Reason::HalfOpen | Reason::Established
            ),
            "{:02x?}",
            self.outcome
        );
        self.forwarded(out, reason, &others).bytes
    }

    /// Handed to the kernel unchanged.
    #[track_caller]
    pub fn handed_on(self, reason: Reason, others: &[(&'static str, u64)]) {
        self.counts(reason, others);
        self.unchanged();
        assert_eq!(self.outcome.verdict.action, Action::Pass);
        assert!(self.outcome.asked.is_empty());
    }

    /// Dropped; the slow path was not asked.
    #[track_caller]
    pub fn dropped(self, reason: Reason, others: &[(&'static str, u64)]) {
        assert!(self.outcome.asked.is_empty(), "{:?}", self.outcome.asked);
        let _outcome = self.dropped_and(reason, others);
    }

    /// Dropped, but after so many copies of what it had become were sent.
    #[track_caller]
    pub fn dropped_after_copies(self, reason: Reason, copies: usize) {
        self.counts(reason, &[]);
        assert_eq!(self.outcome.verdict.action, Action::Drop);
        assert_eq!(self.outcome.copies.len(), copies);
    }

    /// Dropped, perhaps with a request to the slow path.
    #[track_caller]
    pub fn dropped_and(self, reason: Reason, others: &[(&'static str, u64)]) -> Outcome {
        self.counts(reason, others);
        assert!(reason.is_drop());
        self.unchanged();
        assert_eq!(self.outcome.verdict.action, Action::Drop);
        self.outcome
    }

    /// Handed to user space, to wait there for the first fragment; not counted as having ended.
    #[track_caller]
    pub fn held(self) -> Handed {
        self.unchanged();
        assert_eq!(self.outcome.verdict.action, Action::Held, "{:02x?}", self.outcome);
        assert_eq!(self.outcome.delta, Counters::from([("fragments_held", 1)]));
        assert!(self.outcome.asked.is_empty());
        let [handed] = <[Handed; 1]>::try_from(self.outcome.handed).expect("one frame");
        assert_eq!((handed.kind, &handed.frame), (FrameKind::Fragment, &self.before));
        handed
    }

    /// Left to the next hook, and not counted here.
    #[track_caller]
    pub fn next_hook(self) {
        self.unchanged();
        assert_eq!(self.outcome.verdict.action, Action::NextHook);
        assert!(self.outcome.delta.is_empty(), "{:?}", self.outcome.delta);
    }
}

/// A forwarded frame.
pub struct Sent {
    pub bytes: Vec<u8>,
    pub seen: Seen,
    pub events: Vec<bulkhead_abi::Event>,
}

impl Sent {
    /// Asserts the addresses.
    #[track_caller]
    pub fn between(self, source: &str, destination: &str) -> Self {
        assert_eq!(
            (self.seen.source, self.seen.destination),
            (ip(source), ip(destination))
        );
        self
    }

    /// Asserts the next hop.
    #[track_caller]
    pub fn via(self, neighbour: &str) -> Self {
        assert_eq!(
            self.bytes[..6],
            neighbour_mac(ip(neighbour)),
            "next hop {neighbour}"
        );
        self
    }
}
