//! Policy tables: addresses and services become classes, classes select rule vectors, the lowest common bit wins.
//!
//! Every key carries the generation it belongs to, so a new configuration is staged beside the live one and the
//! switch is one store. Class 0 means "in no group" (or "no named service").

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Key of the zone table: interface to zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ZoneKey {
    /// Configuration generation.
    pub generation: u32,
    /// Interface index.
    pub ifindex: u32,
}

/// Key of the exact IPv4 host table; the value is the address class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HostKey4 {
    /// Configuration generation.
    pub generation: u32,
    /// Address, network order.
    pub address_be: u32,
}

/// Key of the exact IPv6 host table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HostKey6 {
    /// Configuration generation.
    pub generation: u32,
    /// Address, network order.
    pub address_be: [u32; 4],
}

/// Key of the IPv4 prefix trie. `bits` counts the generation too: 32 + prefix length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PrefixKey4 {
    /// Significant bits of what follows.
    pub bits: u32,
    /// Configuration generation.
    pub generation: u32,
    /// Address, network order.
    pub address_be: u32,
}

/// Key of the IPv6 prefix trie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PrefixKey6 {
    /// Significant bits of what follows.
    pub bits: u32,
    /// Configuration generation.
    pub generation: u32,
    /// Address, network order.
    pub address_be: [u32; 4],
}

/// Key of the service trie: protocol and destination port (or ICMP type and code) to service class. Port ranges
/// are split into prefixes of the port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ServiceKey {
    /// Significant bits of what follows: 48 for "any port", up to 64.
    pub bits: u32,
    /// Configuration generation.
    pub generation: u32,
    /// Zero.
    pub reserved: u8,
    /// IP protocol.
    pub protocol: u8,
    /// Destination port, or ICMP `type << 8 | code`, network order; 0 for protocols without ports.
    pub port_be: u16,
}

/// What a list of rules decides. All are matched alike, by zones, addresses and service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RuleSet {
    /// Whether a conversation may be.
    #[default]
    Policy = 0,
    /// Under which destination a conversation goes on; asked before the route, so its rules name no destination zone.
    DestinationNat = 1,
    /// Under which source.
    SourceNat = 2,
}

/// A dimension of the rule vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Dimension {
    /// Source zone.
    FromZone = 0,
    /// Destination zone.
    ToZone = 1,
    /// Source address class.
    Source = 2,
    /// Destination address class.
    Destination = 3,
    /// Service class.
    Service = 4,
}

impl Dimension {
    /// All dimensions.
    pub const ALL: [Self; 5] = [
        Self::FromZone,
        Self::ToZone,
        Self::Source,
        Self::Destination,
        Self::Service,
    ];
}

/// Rules in one [`RulePage`].
pub const RULES_PER_PAGE: u32 = 4096;
/// 64-bit words in one [`RulePage`].
pub const WORDS_PER_PAGE: usize = 64;

/// Key of the rule vectors: which rules accept this class in this dimension.
///
/// The table of page summaries uses the same key with `page` 0: its value is one bit per page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VectorKey {
    /// Configuration generation.
    pub generation: u32,
    /// Class (or zone number); [`VectorKey::ANY`] for the rules that accept everything in this dimension.
    pub class: u32,
    /// A [`Dimension`] in the low byte, a [`RuleSet`] in the high one.
    pub dimension: u16,
    /// Page number.
    pub page: u16,
}

impl VectorKey {
    /// The class of rules that do not constrain a dimension.
    pub const ANY: u32 = u32::MAX;

    /// The `dimension` field of a rule set's dimension.
    #[must_use]
    #[inline(always)]
    pub const fn dimension_of(set: RuleSet, dimension: Dimension) -> u16 {
        (set as u16) << 8 | dimension as u16
    }
}

/// 4,096 rules of one class in one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RulePage {
    /// Bit `i` is set when `words[i]` is not zero.
    pub summary: u64,
    /// Bit `b` of word `w` stands for rule `page * 4096 + w * 64 + b`.
    pub words: [u64; WORDS_PER_PAGE],
}

/// Key of the rule table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PolicyKey {
    /// Configuration generation.
    pub generation: u32,
    /// Position of the rule in the compiled order.
    pub rule: u32,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PolicyAction {
    /// Dropped in silence.
    Deny = 0,
    /// Forwarded.
    Permit = 1,
    /// Dropped, and the sender is told.
    Reject = 2,
}

/// Bits of [`PolicyRule::log`].
pub mod log_flags {
    /// An event when a session is created.
    pub const CREATE: u8 = 1;
    /// An event when it closes.
    pub const CLOSE: u8 = 1 << 1;
    /// An event when a packet is denied or rejected.
    pub const DENY: u8 = 1 << 2;
}

/// Value of the rule table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PolicyRule {
    /// Times this rule decided; added to atomically.
    pub hits: u64,
    /// Index of the configured policy, for people; `u32::MAX` for an implicit rule (`hostInbound`).
    pub policy: u32,
    /// A [`PolicyAction`].
    pub action: u8,
    /// [`log_flags`].
    pub log: u8,
    /// 1: it names its destinations, which multicast and broadcast must be to cross a wire.
    pub names_destination: u8,
    /// Zero.
    pub reserved: u8,
}

/// Key of the decision cache in front of the rule vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct DecisionKey {
    /// Configuration generation.
    pub generation: u32,
    /// `set << 28 | from << 16 | to`, with the number of a [`RuleSet`].
    pub zones: u32,
    /// Source address class.
    pub source: u32,
    /// Destination address class.
    pub destination: u32,
    /// Service class.
    pub service: u32,
}

/// Value of the decision cache: the rule, and a tag of the key it was computed for.
///
/// The cache is an LRU hash, whose nodes the kernel recycles without a grace period: a reader may hold the
/// value while another CPU turns it into that of another key. Rule and tag are one eight-byte store, and a tag
/// that does not fit the reader's key means "not cached".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Decision(pub u64);

impl Decision {
    /// Rule number meaning that no rule matched.
    pub const NO_RULE: u32 = (1 << 20) - 1;

    /// Packs a rule number (below [`Decision::NO_RULE`], or that) and the key's tag.
    #[must_use]
    #[inline(always)]
    pub fn new(key: &DecisionKey, rule: u32) -> Self {
        Self(Self::tag(key) << 20 | u64::from(rule & 0xf_ffff))
    }

    /// The rule number, if this decision was made for `key`.
    #[must_use]
    #[inline(always)]
    pub fn rule(self, key: &DecisionKey) -> Option<u32> {
        if self.0 >> 20 == Self::tag(key) {
            Some((self.0 & 0xf_ffff) as u32)
        } else {
            None
        }
    }

    /// 44 bits that mix the whole key (multiply-xor; constants from splitmix64).
    #[inline(always)]
    fn tag(key: &DecisionKey) -> u64 {
        let mut h =
            (u64::from(key.generation) << 32 | u64::from(key.zones)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        h = (h ^ (h >> 30) ^ (u64::from(key.source) << 32 | u64::from(key.destination)))
            .wrapping_mul(0xbf58_476d_1ce4_e5b9);
        h = (h ^ (h >> 27) ^ u64::from(key.service)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (h ^ (h >> 31)) >> 20
    }
}
