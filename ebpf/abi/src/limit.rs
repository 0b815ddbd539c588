//! Timeouts of services, and how many sessions one address may have.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Key of the service timeouts; the value is in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TimeoutKey {
    /// Configuration generation.
    pub generation: u32,
    /// Service class.
    pub service: u32,
}

/// Key of the session limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LimitRuleKey {
    /// Configuration generation.
    pub generation: u32,
    /// Zone that sessions come from.
    pub zone: u32,
}

/// Bits of [`LimitRule::flags`].
pub mod limit_flags {
    /// What is over a limit is counted and let pass.
    pub const ALARM_ONLY: u32 = 1;
}

/// How many sessions one address may have that come from a zone. 0: as many as it likes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LimitRule {
    /// As their source.
    pub source: u32,
    /// As their destination.
    pub destination: u32,
    /// As the source of TCP sessions.
    pub syn_ack_ack: u32,
    /// [`limit_flags`].
    pub flags: u32,
}

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum LimitKind {
    /// Sessions of one source.
    Source = 0,
    /// Sessions of one destination.
    Destination = 1,
    /// TCP sessions of one source.
    SynAckAck = 2,
}

impl LimitKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Source, Self::Destination, Self::SynAckAck];
}

impl LimitRule {
    /// The limit of a kind; 0: none.
    #[must_use]
    #[inline(always)]
    pub const fn of(&self, kind: LimitKind) -> u32 {
        match kind {
            LimitKind::Source => self.source,
            LimitKind::Destination => self.destination,
            LimitKind::SynAckAck => self.syn_ack_ack,
        }
    }
}

/// Key of the counts of sessions: an address as the session's first packet carried it, in its zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct LimitKey {
    /// Family, [`LimitKind`], and the zone the session came from; see [`LimitKey::scope`].
    pub scope: u32,
    /// Address, network order.
    pub address_be: [u32; 4],
}

impl LimitKey {
    /// The `scope` field.
    #[must_use]
    #[inline(always)]
    pub const fn scope(family: u8, kind: LimitKind, zone: u8) -> u32 {
        (family as u32) << 16 | (kind as u32) << 8 | zone as u32
    }
}

/// Value of the counts of sessions. Added to atomically by every CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SessionCount {
    /// Sessions there are, as far as was told: two's complement, because what was never added may be taken away.
    pub sessions: u64,
    /// How often one was taken away. User space tells by it what ended while it was looking.
    pub returned: u64,
}

/// What is counted of sessions besides packets. Index of a per-CPU array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Tally {
    /// Sessions entered into the tables.
    Created = 0,
    /// Sessions that ended by decision. Those that did neither end nor are there were evicted.
    Ended = 1,
}

impl Tally {
    /// Number of tallies.
    pub const COUNT: u32 = 2;
}
