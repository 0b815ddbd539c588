//! Ratios that nobody promised, and that are worth knowing all the same.
//!
//! Owns which: Bulkhead against the kernel's firewalls at their own best, which the README tells as it comes out, and the
//! others of the report.

use super::{C, Quantity, S, at, bulk, established, many_sessions, new_sessions, rules, sessions};
use crate::scenario::{commit, membership, packets};

const fn packets_of(contender: C, peer: C) -> Quantity {
    Quantity::Ratio(established(contender), established(peer))
}

/// Bulkhead's figure over that of the kernel's firewalls at their own best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Comparison {
    /// What of.
    pub what: &'static str,
    /// Whether it is a time: less is better.
    pub is_time: bool,
    /// Over nftables with a verdict map, or a set.
    pub nftables: Quantity,
    /// Over iptables with an ipset.
    pub iptables: Quantity,
}

const fn behind_rules(peer: C, count: u64) -> Quantity {
    Quantity::Ratio(
        rules(C::BulkheadTcx, packets::SPREAD, count),
        rules(peer, packets::SPREAD, count),
    )
}

const fn into_group(peer: C, count: u64) -> Quantity {
    Quantity::Ratio(
        at(S::Groups, C::BulkheadTcx, packets::SPREAD, count),
        at(S::Groups, peer, packets::SPREAD, count),
    )
}

const fn committing(peer: C, count: u64) -> Quantity {
    Quantity::Ratio(
        at(S::Commit, C::BulkheadTcx, commit::TIME, count),
        at(S::Commit, peer, commit::TIME, count),
    )
}

const fn adding(peer: C, count: u64) -> Quantity {
    Quantity::Ratio(
        at(S::Membership, C::BulkheadTcx, membership::ADD, count),
        at(S::Membership, peer, membership::ADD, count),
    )
}

/// Where nobody promised anything: linear rules are not what a careful administrator would write.
pub const OWN_BEST: [Comparison; 5] = [
    Comparison {
        what: "new sessions per second, 10,000 rules, traffic over all of them",
        is_time: false,
        nftables: behind_rules(C::NftablesVerdicts, 10_000),
        iptables: behind_rules(C::IptablesIpset, 10_000),
    },
    Comparison {
        what: "new sessions per second, 100,000 rules, traffic over all of them",
        is_time: false,
        nftables: behind_rules(C::NftablesVerdicts, 100_000),
        iptables: behind_rules(C::IptablesIpset, 100_000),
    },
    Comparison {
        what: "new sessions per second, to all of a group of 1,000,000",
        is_time: false,
        nftables: into_group(C::Nftables, 1_000_000),
        iptables: into_group(C::IptablesIpset, 1_000_000),
    },
    Comparison {
        what: "time to replace a policy of 10,000 rules",
        is_time: true,
        nftables: committing(C::NftablesVerdicts, 10_000),
        iptables: committing(C::IptablesIpset, 10_000),
    },
    Comparison {
        what: "time of one address into a group of 1,000,000, theirs with the start of their tool",
        is_time: true,
        nftables: adding(C::Nftables, 1_000_000),
        iptables: adding(C::IptablesIpset, 1_000_000),
    },
];

/// Against a program that asks for the way, as a router must.
pub const XDP_OVER_FIB: Quantity = packets_of(C::BulkheadXdp, C::BareXdpFib);
/// What memory alone costs.
pub const LOOKUP_OF_A_MILLION: Quantity = many_sessions(C::BareXdpLookup, packets::IN_TURN);
/// A million sessions, the worst case, by XDP.
pub const XDP_AT_A_MILLION: Quantity = at_a_million(C::BulkheadXdp);
/// The same by TCX.
pub const TCX_AT_A_MILLION: Quantity = at_a_million(C::BulkheadTcx);

const fn at_a_million(contender: C) -> Quantity {
    Quantity::Ratio(
        sessions(contender, packets::IN_TURN, 1_000_000),
        sessions(C::Nftables, packets::IN_TURN, 1_000_000),
    )
}

/// Ratios that nobody promised, besides those of [`OWN_BEST`].
const FURTHER: [Quantity; 21] = [
    packets_of(C::BulkheadXdp, C::Nftables),
    XDP_OVER_FIB,
    packets_of(C::BulkheadXdpNat, C::BareXdp),
    packets_of(C::BulkheadTcx, C::Nftables),
    packets_of(C::BulkheadTcx, C::BareTcx),
    packets_of(C::BulkheadTcx, C::Kernel),
    packets_of(C::BulkheadTcxNat, C::BareTcxPeer),
    Quantity::Ratio(
        new_sessions(C::BulkheadTcxNat),
        new_sessions(C::NftablesMasquerade),
    ),
    Quantity::Ratio(new_sessions(C::BulkheadTcx), new_sessions(C::IptablesIpset)),
    Quantity::Ratio(
        rules(C::BulkheadTcx, packets::LAST, 10_000),
        rules(C::Nftables, packets::LAST, 10_000),
    ),
    Quantity::Ratio(
        rules(C::BulkheadTcx, packets::LAST, 10),
        rules(C::BulkheadTcx, packets::LAST, 100_000),
    ),
    XDP_AT_A_MILLION,
    TCX_AT_A_MILLION,
    // What memory alone costs, and what it costs others.
    LOOKUP_OF_A_MILLION,
    many_sessions(C::BareXdpLookup, packets::ZIPF),
    many_sessions(C::Nftables, packets::IN_TURN),
    many_sessions(C::Nftables, packets::ZIPF),
    Quantity::Ratio(bulk(C::BulkheadTcxNat, 1), bulk(C::Kernel, 1)),
    Quantity::Ratio(bulk(C::NftablesMasquerade, 1), bulk(C::Kernel, 1)),
    Quantity::Ratio(bulk(C::BulkheadTcx, 1), bulk(C::BareTcxPeer, 1)),
    Quantity::Ratio(bulk(C::BulkheadXdp, 1), bulk(C::Kernel, 1)),
];

/// All ratios that are no promises.
pub fn all() -> impl Iterator<Item = Quantity> {
    let own_best = OWN_BEST
        .iter()
        .flat_map(|comparison| [comparison.nftables, comparison.iptables]);
    FURTHER.into_iter().chain(own_best)
}
