//! Policy tables: addresses and services become classes, classes select rule vectors, the lowest common bit wins.
//!
//! Every key carries the generation it belongs to, so a new configuration is staged beside the live one and the
//! switch is one store. The address tables alone do not: a million addresses stay where they are while generations come
//! and go, each with a class for either of two generations ([`AddressClass`]). Class 0 means "on no list" (or "no named
//! service").

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

/// Value of the address tables: the class of an address by `generation & 1`. The halves differ only while a commit is
/// under way, and a packet reads one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AddressClass {
    /// Classes of the even and of the odd generation.
    pub class: [u32; 2],
}

impl AddressClass {
    /// One class, whatever the generation.
    #[must_use]
    pub const fn both(class: u32) -> Self {
        Self { class: [class; 2] }
    }

    /// The class in a generation.
    #[must_use]
    #[inline(always)]
    pub const fn of(self, generation: u32) -> u32 {
        let [even, odd] = self.class;
        if generation & 1 == 0 { even } else { odd }
    }
}

/// Key of the exact IPv4 host table; the value is an [`AddressClass`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HostKey4 {
    /// Address, network order.
    pub address_be: u32,
}

/// Key of the exact IPv6 host table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct HostKey6 {
    /// Address, network order.
    pub address_be: [u32; 4],
}

/// Key of the IPv4 prefix trie; the value is an [`AddressClass`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PrefixKey4 {
    /// Significant bits of what follows: the prefix length.
    pub bits: u32,
    /// Address, network order.
    pub address_be: u32,
}

/// Key of the IPv6 prefix trie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PrefixKey6 {
    /// Significant bits of what follows: the prefix length.
    pub bits: u32,
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

/// Rules in one page of a rule vector.
pub const RULES_PER_PAGE: u32 = 4096;
/// Pages of a rule vector, one bit each in its top word.
pub const PAGES: u32 = 64;

/// Key of the rule vectors: which rules accept this class in this dimension, word by word.
///
/// A vector is a tree of words of three levels: the top has a bit for every page with a rule in it, a page's summary one
/// for every word of the page that is not zero, a word one for every rule. Words of zeros have no entry.
///
/// The rules that accept everything stand in a table of their own under the same keys, with [`VectorKey::ANY`] as class
/// and without a dimension: one entry has the words of all dimensions ([`AnyVectors`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct VectorKey {
    /// Configuration generation.
    pub generation: u32,
    /// Class (or zone number); [`VectorKey::ANY`] for the rules that accept everything in a dimension.
    pub class: u32,
    /// A [`Dimension`] in the low byte, a [`RuleSet`] in the high one.
    pub dimension: u16,
    /// Which word: [`VectorKey::TOP`], [`VectorKey::summary`] or [`VectorKey::word`].
    pub index: u16,
}

/// Words of the vectors of the rules that accept everything, by [`Dimension`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AnyVectors {
    /// One word per dimension.
    pub words: [u64; 5],
}

impl VectorKey {
    /// The class of rules that do not constrain a dimension.
    pub const ANY: u32 = u32::MAX;
    /// Index of the top word.
    pub const TOP: u16 = u16::MAX;

    /// Index of a page's summary.
    #[must_use]
    #[inline(always)]
    pub const fn summary(page: u32) -> u16 {
        0x8000 | page as u16
    }

    /// Index of a page's word: rules `page * 4096 + word * 64` and the 63 behind it.
    #[must_use]
    #[inline(always)]
    pub const fn word(page: u32, word: u32) -> u16 {
        (page << 6 | word) as u16
    }

    /// The `dimension` field of a rule set's dimension.
    #[must_use]
    #[inline(always)]
    pub const fn dimension_of(set: RuleSet, dimension: Dimension) -> u16 {
        (set as u16) << 8 | dimension as u16
    }
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
