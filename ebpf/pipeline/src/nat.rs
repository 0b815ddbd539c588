//! Address translation of a new session: under which destination it goes on, under which source, and that nobody else
//! has the outside tuple.
//!
//! Asked twice: [`destination`] before the route, because it decides where the packet goes, and [`source`] after policy.
//! Both put the packet to a rule set like policy. What they find stands in [`Translation`]; [`source::reserve`] makes it
//! true. A live session is asked about again by [`rematch`].
//!
//! Inserting the translated reply flow with "must not exist" *is* the reservation. Both session tables share one key
//! space: the flow goes into the half-open table first and the established one is looked at afterwards. A session moves
//! the other way round (inserted there, then removed here), so whoever holds the key is seen.

pub mod address;
mod destination;
mod mapping;
pub(crate) mod rematch;
mod source;

pub use destination::{destination, owned};
pub use source::source;

pub(crate) use mapping::expire;
pub(crate) use source::{Reserved, reserve, settled};

use bulkhead_abi::{
    Interface, Mapping, MappingKey, NatPool, NatRule, NatRuleKey, PermitKey, RuleSet, protocol,
};

use crate::{Tables, Work};

/// The translation of one packet's session, as far as it is known. In the scratch entry, like everything that is too
/// large for the stack.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Translation {
    /// Destination after translation, memory order.
    pub new_destination_be: [u32; 4],
    /// The source address being tried, memory order.
    pub address_be: [u32; 4],
    /// What this generation has of translation: `nat_flags`.
    flags: u64,
    /// Configured destination rule; `u32::MAX`: none.
    pub destination_rule: u32,
    /// Its number in the rule set; [`bulkhead_abi::Decision::NO_RULE`]: none matched.
    destination_number: u32,
    /// Configured source rule; `u32::MAX`: none.
    pub source_rule: u32,
    /// The destination was a mapping's outside end: the interface it is outside of. 0: it was none.
    pub outside_ifindex: u32,
    /// Addresses of the pool that may be tried after this one.
    addresses_left: u32,
    /// Which address of the pool is being tried.
    index: u32,
    /// Tries per address.
    tries: u32,
    /// Tries at this address so far.
    tried: u32,
    /// Ports that a changed one may be; 0: it may not change.
    span: u32,
    /// Where a walk through few ports began.
    start: u32,
    /// What a mapping by the source rule is to.
    identity: u32,
    /// Configured source rule that matched, also if it says "off"; `u32::MAX`: none.
    pub matched_source: u32,
    /// The same of destination rules.
    pub matched_destination: u32,
    /// The interface it goes out of, or would if it were not from one inside host to another.
    egress_ifindex: u32,
    /// Destination port after translation, host order.
    pub new_destination_port: u16,
    /// The source port being tried, host order.
    pub port: u16,
    /// The source port that is kept if it can be.
    wanted_port: u16,
    /// Lowest port that a changed one may be.
    first_port: u16,
    /// The wanted port is tried first.
    keep: bool,
    /// The source is what a persistent mapping says.
    mapped: bool,
    /// Source or destination change.
    pub translated: bool,
    /// The destination changed under RFC 6296: ports must not.
    npt: bool,
    /// The source address is one of a pool that has others.
    pub pooled: bool,
    /// Filtering of the mapping that the destination was.
    filtering: u8,
    /// Its number.
    number: u32,
    /// The rule being looked at.
    rule: NatRule,
    /// Its pool.
    pool: NatPool,
    /// Its interface.
    interface: Interface,
    /// The mapping being looked at.
    mapping: Mapping,
    /// Its inside end.
    inside: MappingKey,
    /// Its outside end.
    outside: MappingKey,
    /// The outside end that the packet was addressed to.
    entered: MappingKey,
    /// A remote end.
    permit: PermitKey,
}

impl Translation {
    /// Whether another source address or port may be tried if this one is taken.
    #[inline(always)]
    pub(crate) fn may_change(&self) -> bool {
        self.span != 0 || self.pooled
    }

    /// Whether neither this session is translated nor, by the configuration in force, any other.
    #[inline(always)]
    pub(crate) fn is_unheard_of(&self) -> bool {
        self.flags == 0 && !self.translated
    }
}

/// Whether sessions of a protocol are told apart by ports (or identifiers) that translation may change.
#[inline(always)]
pub(crate) fn has_ports(protocol: u8) -> bool {
    protocol::port_may_change(protocol)
}

/// Whether a protocol has a destination port of its own and takes part in persistent mappings.
#[inline(always)]
fn has_destination_port(protocol: u8) -> bool {
    matches!(protocol, protocol::TCP | protocol::UDP)
}

/// Translates as the expectation in `work` says: both ends and the destination port are given.
#[inline(always)]
pub(crate) fn as_expected(work: &mut Work) {
    leave_alone(work);
    let Work {
        translation: t,
        expected,
        packet,
        ..
    } = work;
    t.new_destination_be = expected.new_destination_be;
    t.new_destination_port = expected.new_destination_port;
    t.address_be = expected.new_source_be;
    t.translated = t.new_destination_be != packet.destination_be
        || t.new_destination_port != packet.destination_port
        || t.address_be != packet.source_be;
}

/// Leaves source and destination as they are.
#[inline(always)]
pub(crate) fn leave_alone(work: &mut Work) {
    let packet = &work.packet;
    let t = &mut work.translation;
    t.flags = 0;
    t.new_destination_be = packet.destination_be;
    t.new_destination_port = packet.destination_port;
    t.destination_rule = u32::MAX;
    t.matched_destination = u32::MAX;
    t.destination_number = bulkhead_abi::Decision::NO_RULE;
    t.outside_ifindex = 0;
    t.translated = false;
    t.npt = false;
    source::leave_alone(work);
}

/// Copies a rule of the generation in force; false if there is none.
#[inline(always)]
fn rule<E: Tables>(env: &E, tables: u32, set: RuleSet, rule: u32, hit: bool, to: &mut NatRule) -> bool {
    let key = NatRuleKey {
        generation: tables,
        set: set as u32,
        rule,
    };
    env.nat_rule(&key, hit, to)
}
