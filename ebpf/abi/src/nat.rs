//! Address translation: rules, pools, the addresses they own, persistent mappings.
//!
//! A NAT rule is found like a policy, by the rule vectors of its [`crate::RuleSet`]; what it does stands here. Static
//! translation needs no action of its own: it is one destination rule and one source rule in front of the configured
//! ones, whose [`NatRule::rule`] says so with [`STATIC_RULE`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bit of a rule's configured index, in rules, flows and events: the index is that of a static rule. An index that is
/// `u32::MAX` means no rule at all.
pub const STATIC_RULE: u32 = 1 << 31;

/// Ranges of addresses in one pool, per family.
pub const POOL_RANGES: usize = 8;

/// Bit of the generation in keys of the tables of addresses that translation owns. Such entries are of addresses that
/// destination rules name: neighbours that ask for them are answered, otherwise they belong to whom routes say.
pub const NAT_ANSWERED: u32 = 1 << 31;

/// Bits of [`crate::Settings::nat`]: what a generation has, so that new sessions pay for nothing else.
pub mod nat_flags {
    /// Source rules.
    pub const SOURCE: u64 = 1;
    /// Destination rules.
    pub const DESTINATION: u64 = 1 << 1;
    /// Persistent source rules.
    pub const PERSISTENT: u64 = 1 << 2;
    /// Addresses that translation owns.
    pub const ADDRESSES: u64 = 1 << 3;
    /// ARP and neighbour solicitations for addresses of translation's are answered.
    pub const ANSWER: u64 = 1 << 4;
}

/// Key of the table of NAT rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NatRuleKey {
    /// Configuration generation.
    pub generation: u32,
    /// A [`crate::RuleSet`]: source or destination.
    pub set: u32,
    /// Position of the rule in the compiled order.
    pub rule: u32,
}

/// What a NAT rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum NatAction {
    /// The address stays, and later rules are not asked.
    Off = 0,
    /// Source: the egress interface's address.
    Interface = 1,
    /// An address of a pool.
    Pool = 2,
    /// The network part changes, the host part stays.
    Prefix = 3,
    /// The network part changes, and a word behind it so that no checksum does (RFC 6296).
    Npt = 4,
}

/// Who may send to a persistent mapping from outside (RFC 4787, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum NatFiltering {
    /// The rule makes no persistent mappings.
    None = 0,
    /// Anybody.
    AnyRemoteHost = 1,
    /// Hosts that the inside has sent to.
    TargetHost = 2,
    /// Hosts and ports that the inside has sent to.
    TargetHostPort = 3,
}

/// Value of the table of NAT rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NatRule {
    /// Sessions the rule decided about; added to atomically.
    pub hits: u64,
    /// Index of the configured rule; with [`STATIC_RULE`], of the static one.
    pub rule: u32,
    /// Number of the pool ([`NatAction::Pool`]).
    pub pool: u32,
    /// What mappings by this rule have in common across generations: the pool's, not zero; 0: the egress interface's.
    pub identity: u32,
    /// How long a persistent mapping outlives its last session, s.
    pub timeout_s: u32,
    /// A [`NatAction`].
    pub action: u8,
    /// A [`NatFiltering`].
    pub filtering: u8,
    /// The word that [`NatAction::Npt`] adjusts: 3 up to a length of 48, else 4, the first of those that may be.
    pub word: u8,
    /// Zero.
    pub reserved: u8,
    /// [`NatAction::Npt`]: what is added to that word, in one's complement and memory order.
    pub adjustment: u16,
    /// Zero.
    pub reserved_too: u16,
    /// Network part of the addresses matched, as a mask in network order ([`NatAction::Prefix`], [`NatAction::Npt`]).
    pub mask_be: [u32; 4],
    /// The network part they get, network order.
    pub to_be: [u32; 4],
}

/// Key of the table of pools.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PoolKey {
    /// Configuration generation.
    pub generation: u32,
    /// Number of the pool.
    pub pool: u32,
    /// 4 or 6.
    pub family: u32,
}

/// Bits of [`NatPool::flags`].
pub mod pool_flags {
    /// All sessions of one inside address get one outside address (RFC 4787, REQ-2).
    pub const PAIRED: u32 = 1;
    /// Ports are not translated.
    pub const KEEP_PORTS: u32 = 1 << 1;
}

/// Value of the table of pools: the addresses of one family. A pool without any is not in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NatPool {
    /// Addresses in all ranges, at least one, at most 2^31 (the first ones of larger ranges are used).
    pub count: u32,
    /// [`pool_flags`].
    pub flags: u32,
    /// Lowest port a translated source port may be.
    pub first_port: u16,
    /// Highest.
    pub last_port: u16,
    /// Port that translated destinations get; 0: theirs.
    pub port: u16,
    /// Zero.
    pub reserved: u16,
    /// Addresses in the ranges before each; `u32::MAX` where there is no range.
    pub before: [u32; POOL_RANGES],
    /// First address of each range, network order.
    pub first_be: [[u32; 4]; POOL_RANGES],
}

/// One end of a persistent mapping: key of the two tables of mappings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MappingKey {
    /// Address, network order.
    pub address_be: [u32; 4],
    /// Port, host order.
    pub port: u16,
    /// IP protocol: TCP or UDP.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// Inside: what the mapping is to ([`NatRule::identity`], or [`MappingKey::INTERFACE`] and the interface's index).
    /// Outside: 0; in a [`PermitKey`] the mapping's number.
    pub identity: u32,
}

impl MappingKey {
    /// Bit of [`MappingKey::identity`]: the rest is the index of the interface whose address the mapping has.
    pub const INTERFACE: u32 = 1 << 31;
}

/// A persistent mapping, found by its outside end; by its inside end, the key of the outside one is found.
///
/// Written whole when it is made and when a new generation confirms it, from then on only `last_used_ns` is. A removed
/// mapping's memory may become another's under a reader, who therefore compares the end it asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Mapping {
    /// When a session last began with it, or ended as far as is known, ns.
    pub last_used_ns: u64,
    /// Inside address, network order.
    pub inside_be: [u32; 4],
    /// Outside address, network order.
    pub outside_be: [u32; 4],
    /// First destination it was used to: what a new generation's rules are asked about, network order.
    pub target_be: [u32; 4],
    /// Interface the inside sends from.
    pub inside_ifindex: u32,
    /// Interface it sent out of.
    pub outside_ifindex: u32,
    /// Generation whose rules last confirmed it.
    pub generation: u32,
    /// [`MappingKey::identity`] of the inside end.
    pub identity: u32,
    /// How long it outlives its last session, s.
    pub timeout_s: u32,
    /// Configured source NAT rule.
    pub rule: u32,
    /// Inside port.
    pub inside_port: u16,
    /// Outside port.
    pub outside_port: u16,
    /// Port of the first destination.
    pub target_port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// A random number, so that what was permitted to an earlier mapping with this outside end is not to this one.
    pub number: u32,
    /// A [`NatFiltering`].
    pub filtering: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

impl Mapping {
    /// The end that the inside knows.
    #[must_use]
    #[inline(always)]
    pub const fn inside(&self) -> MappingKey {
        MappingKey {
            address_be: self.inside_be,
            port: self.inside_port,
            protocol: self.protocol,
            family: self.family,
            identity: self.identity,
        }
    }

    /// The end that the outside knows.
    #[must_use]
    #[inline(always)]
    pub const fn outside(&self) -> MappingKey {
        MappingKey {
            address_be: self.outside_be,
            port: self.outside_port,
            protocol: self.protocol,
            family: self.family,
            identity: 0,
        }
    }
}

/// Key of the table of remote ends that a mapping's inside has sent to; the value is when, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PermitKey {
    /// The mapping's outside end.
    pub outside: MappingKey,
    /// Remote address, network order.
    pub remote_be: [u32; 4],
    /// Remote port; 0 where the filtering does not look at it.
    pub remote_port: u32,
}

const _: () = assert!(
    size_of::<NatRule>() == 64
        && size_of::<NatPool>() == 176
        && size_of::<Mapping>() == 96
        && size_of::<MappingKey>() == 24
);

/// Key of the trie of IPv4 prefixes that translation owns. `bits` counts the generation too: 32 + prefix length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NatAddressKey4 {
    /// Significant bits of what follows.
    pub bits: u32,
    /// Configuration generation.
    pub generation: u32,
    /// Address, network order.
    pub address_be: u32,
}

/// Key of the trie of IPv6 prefixes that translation owns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NatAddressKey6 {
    /// Significant bits of what follows.
    pub bits: u32,
    /// Configuration generation.
    pub generation: u32,
    /// Address, network order.
    pub address_be: [u32; 4],
}
