//! What the project promises about speed, and what came of it.
//!
//! Owns the list: each promise names the figures it is judged by. A ratio is taken round by round; a cost has the packet
//! source's own time taken off first. A promise whose figures a run lacks is not judged by it.

mod ratios;

use serde::Serialize;

pub use self::ratios::{LOOKUP_OF_A_MILLION, OWN_BEST, TCX_AT_A_MILLION, XDP_AT_A_MILLION, XDP_OVER_FIB};
use crate::contender::Contender as C;
use crate::plan::Scenario as S;
use crate::scenario::{commit, daemon, latency, membership, packets};
use crate::series::{Point, Results};
use crate::statistics::Summary;

/// What is promised.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Target {
    /// Whether a figure reaches it.
    #[must_use]
    pub fn met(self, measured: f64) -> bool {
        match self {
            Self::AtLeast(target) => measured >= target,
            Self::AtMost(target) => measured <= target,
        }
    }
}

/// How a promise is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// The first over the second.
    Ratio(Point, Point),
    /// What a packet costs at the first over what it costs at the second; rates both, the source's own rate third.
    Cost(Point, Point, Point),
    /// The figure itself.
    Value(Point),
    /// The largest of all rounds, where one round is one too many.
    Most(Point),
}

/// A promise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Definition {
    /// Its name.
    pub id: &'static str,
    /// What of.
    pub what: &'static str,
    /// Against whom or what.
    pub against: &'static str,
    /// How much.
    pub target: Target,
    /// In what.
    pub unit: &'static str,
    /// From which figures.
    pub quantity: Quantity,
}

const fn at(scenario: S, contender: C, variant: &'static str, at: u64) -> Point {
    Point {
        scenario,
        contender,
        variant,
        at,
    }
}

const fn established(contender: C) -> Point {
    at(S::Established, contender, "", 0)
}

const fn sessions(contender: C, variant: &'static str, count: u64) -> Point {
    at(S::Sessions, contender, variant, count)
}

/// A million sessions against a thousand.
const fn many_sessions(contender: C, variant: &'static str) -> Quantity {
    Quantity::Cost(
        sessions(contender, variant, 1_000_000),
        sessions(contender, variant, 1_000),
        sessions(C::Source, variant, 1_000),
    )
}

const fn new_sessions(contender: C) -> Point {
    at(S::NewSessions, contender, "", 0)
}

const fn rules(contender: C, variant: &'static str, count: u64) -> Point {
    at(S::Rules, contender, variant, count)
}

const fn bulk(contender: C, streams: u64) -> Point {
    at(S::BulkTcp, contender, "", streams)
}

const fn figure(scenario: S, variant: &'static str, count: u64) -> Quantity {
    Quantity::Value(at(scenario, C::BulkheadTcx, variant, count))
}

const RATIO: &str = "ratio";

/// The promises, like against like: what translates is compared with what translates, what does not with what does not.
pub const PROMISES: [Definition; 23] = [
    Definition {
        id: "established_xdp_vs_nftables",
        what: "established 60-byte packets, XDP, source NAT",
        against: "nftables (conntrack + masquerade)",
        target: Target::AtLeast(3.0),
        unit: RATIO,
        quantity: Quantity::Ratio(established(C::BulkheadXdpNat), established(C::NftablesMasquerade)),
    },
    Definition {
        id: "established_xdp_vs_bare_xdp",
        what: "established 60-byte packets, XDP",
        against: "a bare XDP `bpf_redirect` that looks nothing up",
        target: Target::AtLeast(0.8),
        unit: RATIO,
        quantity: Quantity::Ratio(established(C::BulkheadXdp), established(C::BareXdp)),
    },
    Definition {
        id: "established_tcx_vs_nftables",
        what: "established 60-byte packets, TCX, source NAT",
        against: "nftables (conntrack + masquerade)",
        target: Target::AtLeast(1.8),
        unit: RATIO,
        quantity: Quantity::Ratio(established(C::BulkheadTcxNat), established(C::NftablesMasquerade)),
    },
    Definition {
        id: "established_tcx_vs_bare_redirect_peer",
        what: "established 60-byte packets, TCX",
        against: "a bare TCX `bpf_redirect_peer`",
        target: Target::AtLeast(0.85),
        unit: RATIO,
        quantity: Quantity::Ratio(established(C::BulkheadTcx), established(C::BareTcxPeer)),
    },
    Definition {
        id: "bulk_tcp_vs_kernel",
        what: "bulk TCP over veth, default offloads",
        against: "the kernel forwarding with no firewall",
        target: Target::AtLeast(1.0),
        unit: RATIO,
        quantity: Quantity::Ratio(bulk(C::BulkheadTcx, 1), bulk(C::Kernel, 1)),
    },
    Definition {
        id: "bulk_tcp_8_streams_vs_kernel",
        what: "bulk TCP over veth, default offloads, 8 streams",
        against: "the kernel forwarding with no firewall",
        target: Target::AtLeast(1.0),
        unit: RATIO,
        quantity: Quantity::Ratio(bulk(C::BulkheadTcx, 8), bulk(C::Kernel, 8)),
    },
    Definition {
        id: "new_sessions_vs_nftables",
        what: "new sessions per second",
        against: "nftables with 3 rules",
        target: Target::AtLeast(2.0),
        unit: RATIO,
        quantity: Quantity::Ratio(new_sessions(C::BulkheadTcx), new_sessions(C::Nftables)),
    },
    Definition {
        id: "new_sessions_vs_nftables_10000_rules",
        what: "new sessions per second, 10,000 rules, traffic over all of them",
        against: "nftables with the same rules, linear",
        target: Target::AtLeast(20.0),
        unit: RATIO,
        quantity: Quantity::Ratio(
            rules(C::BulkheadTcx, packets::SPREAD, 10_000),
            rules(C::Nftables, packets::SPREAD, 10_000),
        ),
    },
    Definition {
        id: "new_session_cost_100000_rules",
        what: "cost of a new session, 100,000 rules, traffic over all of them",
        against: "10 rules",
        target: Target::AtMost(1.5),
        unit: RATIO,
        quantity: Quantity::Cost(
            rules(C::BulkheadTcx, packets::SPREAD, 100_000),
            rules(C::BulkheadTcx, packets::SPREAD, 10),
            rules(C::Source, packets::SPREAD, 10),
        ),
    },
    Definition {
        id: "established_xdp_cost_1000000_sessions",
        what: "cost of an established packet, 1,000,000 sessions, each in turn (the worst case), XDP",
        against: "1,000 sessions",
        target: Target::AtMost(1.5),
        unit: RATIO,
        quantity: many_sessions(C::BulkheadXdp, packets::IN_TURN),
    },
    Definition {
        id: "established_xdp_cost_1000000_sessions_zipf",
        what: "cost of an established packet, 1,000,000 sessions by Zipf's law, XDP",
        against: "1,000 sessions",
        target: Target::AtMost(1.5),
        unit: RATIO,
        quantity: many_sessions(C::BulkheadXdp, packets::ZIPF),
    },
    Definition {
        id: "established_tcx_cost_1000000_sessions",
        what: "cost of an established packet, 1,000,000 sessions, each in turn (the worst case), TCX",
        against: "1,000 sessions",
        target: Target::AtMost(1.5),
        unit: RATIO,
        quantity: many_sessions(C::BulkheadTcx, packets::IN_TURN),
    },
    Definition {
        id: "established_tcx_cost_1000000_sessions_zipf",
        what: "cost of an established packet, 1,000,000 sessions by Zipf's law, TCX",
        against: "1,000 sessions",
        target: Target::AtMost(1.5),
        unit: RATIO,
        quantity: many_sessions(C::BulkheadTcx, packets::ZIPF),
    },
    Definition {
        id: "round_trip_p99_idle",
        what: "round trip, p99, idle",
        against: "nftables (conntrack)",
        target: Target::AtMost(1.0),
        unit: RATIO,
        quantity: Quantity::Ratio(
            at(S::Latency, C::BulkheadTcx, latency::IDLE_P99, 0),
            at(S::Latency, C::Nftables, latency::IDLE_P99, 0),
        ),
    },
    Definition {
        id: "round_trip_p99_loaded",
        what: "round trip, p99, under 100,000 packets per second",
        against: "nftables (conntrack)",
        target: Target::AtMost(1.0),
        unit: RATIO,
        quantity: Quantity::Ratio(
            at(S::Latency, C::BulkheadTcx, latency::LOADED_P99, 0),
            at(S::Latency, C::Nftables, latency::LOADED_P99, 0),
        ),
    },
    Definition {
        id: "one_address_into_1000000",
        what: "one address into a group of 1,000,000, in force",
        against: "",
        target: Target::AtMost(10.0),
        unit: "ms",
        quantity: figure(S::Membership, membership::ADD, 1_000_000),
    },
    Definition {
        id: "commit_10000_rules",
        what: "commit of 10,000 rules",
        against: "",
        target: Target::AtMost(500.0),
        unit: "ms",
        quantity: figure(S::Commit, commit::TIME, 10_000),
    },
    Definition {
        id: "commit_packets_lost",
        what: "packets of a permitted stream lost by commits of 10,000 rules",
        against: "",
        target: Target::AtMost(0.0),
        unit: "packets",
        quantity: Quantity::Most(at(S::Commit, C::BulkheadTcx, commit::LOST, 10_000)),
    },
    Definition {
        id: "start_to_enforcing",
        what: "start of the daemon to the first packet through",
        against: "",
        target: Target::AtMost(500.0),
        unit: "ms",
        quantity: figure(S::Daemon, daemon::START, 1),
    },
    Definition {
        id: "start_to_enforcing_10000_rules",
        what: "start of the daemon to the first packet through, 10,000 rules",
        against: "",
        target: Target::AtMost(500.0),
        unit: "ms",
        quantity: figure(S::Daemon, daemon::START, 10_000),
    },
    Definition {
        id: "daemon_resident",
        what: "resident memory of the daemon, 10,000 rules",
        against: "",
        target: Target::AtMost(50.0),
        unit: "MB",
        quantity: figure(S::Daemon, daemon::RESIDENT, 10_000),
    },
    Definition {
        id: "killed_packets_lost",
        what: "packets of an established session lost by SIGKILL and restart of the daemon",
        against: "",
        target: Target::AtMost(0.0),
        unit: "packets",
        quantity: Quantity::Most(at(S::Daemon, C::BulkheadTcx, daemon::KILLED, 1)),
    },
    Definition {
        id: "stopped_packets_lost",
        what: "packets of an established session lost by SIGTERM and restart of the daemon",
        against: "",
        target: Target::AtMost(0.0),
        unit: "packets",
        quantity: Quantity::Most(at(S::Daemon, C::BulkheadTcx, daemon::STOPPED, 1)),
    },
];

/// A promise and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Promise {
    /// Its name.
    pub id: &'static str,
    /// What is promised.
    pub target: f64,
    /// Whether the target is the least or the most.
    pub direction: &'static str,
    /// What was measured: the median of the rounds, or the largest.
    pub measured: f64,
    /// In what.
    pub unit: &'static str,
    /// Whether it is kept.
    pub met: bool,
    /// Smallest and largest round.
    pub spread: [f64; 2],
}

/// A ratio of two figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// Which.
    pub of: Point,
    /// Over which.
    pub over: Point,
    /// Of their figures, or of what a packet costs without the source's share.
    pub quantity: &'static str,
    /// The ratio.
    #[serde(flatten)]
    pub ratio: Summary,
}

impl Quantity {
    fn summary(self, results: &Results) -> Option<Summary> {
        let rounds = |point: &Point| Some(results.find(point)?.rounds.as_slice());
        match self {
            Self::Ratio(of, over) => Summary::of_ratios(rounds(&of)?, rounds(&over)?),
            Self::Cost(of, over, source) => {
                let source = rounds(&source)?;
                // Nanoseconds from Mpps, without the source's.
                let cost = |point: &Point| -> Option<Vec<f64>> {
                    let rates = rounds(point)?.iter().zip(source);
                    Some(rates.map(|(rate, source)| 1e3 / rate - 1e3 / source).collect())
                };
                Summary::of_ratios(&cost(&of)?, &cost(&over)?)
            }
            Self::Value(point) => Some(results.find(&point)?.summary),
            Self::Most(point) => {
                let Summary { min, max, .. } = results.find(&point)?.summary;
                Some(Summary {
                    median: max,
                    min,
                    max,
                })
            }
        }
    }
}

/// Judges the promises that a run has figures for.
#[must_use]
pub fn judge(results: &Results) -> (Vec<Promise>, Vec<Ratio>) {
    let promises = PROMISES.iter().filter_map(|definition| {
        let Summary { median, min, max } = definition.quantity.summary(results)?;
        let (target, direction) = match definition.target {
            Target::AtLeast(target) => (target, "at-least"),
            Target::AtMost(target) => (target, "at-most"),
        };
        Some(Promise {
            id: definition.id,
            target,
            direction,
            measured: median,
            unit: definition.unit,
            met: definition.target.met(median),
            spread: [min, max],
        })
    });
    let further = ratios::all().filter_map(|quantity| {
        let (of, over, name) = match quantity {
            Quantity::Ratio(of, over) => (of, over, "figures"),
            Quantity::Cost(of, over, _) => (of, over, "cost"),
            Quantity::Value(_) | Quantity::Most(_) => return None,
        };
        Some(Ratio {
            of,
            over,
            quantity: name,
            ratio: quantity.summary(results)?,
        })
    });
    (promises.collect(), further.collect())
}

#[cfg(test)]
mod tests;
