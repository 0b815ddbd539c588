//! What the project promises about speed, and the other ratios worth knowing.

use serde::Serialize;

use crate::contender::Contender;
use crate::statistics::Summary;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Established 60-byte packets per second.
    EstablishedPackets,
    /// Bulk TCP, bits per second.
    BulkTcp,
}

/// Two contenders side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Of what.
    pub measure: Measure,
    /// Who is judged.
    pub contender: Contender,
    /// Against whom.
    pub peer: Contender,
}

const fn packets(contender: Contender, peer: Contender) -> Pair {
    Pair {
        measure: Measure::EstablishedPackets,
        contender,
        peer,
    }
}

const fn bulk(contender: Contender, peer: Contender) -> Pair {
    Pair {
        measure: Measure::BulkTcp,
        contender,
        peer,
    }
}

/// The promises: a name, the ratio that is promised, who against whom. Like against like: what translates is compared
/// with what translates, what does not with what does not.
pub const PROMISES: [(&str, f64, Pair); 5] = [
    (
        "established_xdp_vs_nftables",
        3.0,
        packets(Contender::BulkheadXdpNat, Contender::NftablesMasquerade),
    ),
    (
        "established_xdp_vs_bare_xdp",
        0.8,
        packets(Contender::BulkheadXdp, Contender::BareXdp),
    ),
    (
        "established_tcx_vs_nftables",
        1.8,
        packets(Contender::BulkheadTcxNat, Contender::NftablesMasquerade),
    ),
    (
        "established_tcx_vs_bare_redirect_peer",
        0.85,
        packets(Contender::BulkheadTcx, Contender::BareTcxPeer),
    ),
    (
        "bulk_tcp_vs_kernel",
        1.0,
        bulk(Contender::BulkheadTcx, Contender::Kernel),
    ),
];

/// Ratios that nobody promised.
pub const FURTHER: [Pair; 9] = [
    packets(Contender::BulkheadXdp, Contender::Nftables),
    packets(Contender::BulkheadXdp, Contender::BareXdpFib),
    packets(Contender::BulkheadXdpNat, Contender::BareXdp),
    packets(Contender::BulkheadTcx, Contender::Nftables),
    packets(Contender::BulkheadTcx, Contender::BareTcx),
    packets(Contender::BulkheadTcx, Contender::Kernel),
    packets(Contender::BulkheadTcxNat, Contender::BareTcxPeer),
    bulk(Contender::BulkheadTcxNat, Contender::Kernel),
    bulk(Contender::NftablesMasquerade, Contender::Kernel),
];

/// A promise and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Promise {
    /// Its name.
    pub id: &'static str,
    /// The least that is promised.
    pub target: f64,
    /// What was measured: the median of the rounds' ratios.
    pub measured: f64,
    /// Always `ratio` here.
    pub unit: &'static str,
    /// Whether it is kept.
    pub met: bool,
    /// Smallest and largest ratio of a round.
    pub spread: [f64; 2],
    /// Of what.
    pub measure: Measure,
    /// Who is judged.
    pub contender: Contender,
    /// Against whom.
    pub peer: Contender,
}

/// A ratio of two contenders.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// Of what.
    pub measure: Measure,
    /// Who is judged.
    pub contender: Contender,
    /// Against whom.
    pub peer: Contender,
    /// The ratio.
    #[serde(flatten)]
    pub ratio: Summary,
}

/// Judges the promises that `rounds` has figures for: the rounds of a contender, or nothing if it did not run.
pub fn judge(rounds: impl Fn(Measure, Contender) -> Option<Vec<f64>>) -> (Vec<Promise>, Vec<Ratio>) {
    let ratio = |pair: Pair| {
        Summary::of_ratios(
            &rounds(pair.measure, pair.contender)?,
            &rounds(pair.measure, pair.peer)?,
        )
    };
    let promises = PROMISES.into_iter().filter_map(|(id, target, pair)| {
        let ratio = ratio(pair)?;
        Some(Promise {
            id,
            target,
            measured: ratio.median,
            unit: "ratio",
            met: ratio.median >= target,
            spread: [ratio.min, ratio.max],
            measure: pair.measure,
            contender: pair.contender,
            peer: pair.peer,
        })
    });
    let further = FURTHER.into_iter().filter_map(|pair| {
        Some(Ratio {
            measure: pair.measure,
            contender: pair.contender,
            peer: pair.peer,
            ratio: ratio(pair)?,
        })
    });
    (promises.collect(), further.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_kept_at_its_target_and_broken_below() {
        let figures = |tcx: f64| {
            move |measure, contender| {
                (measure == Measure::BulkTcp).then_some(match contender {
                    Contender::BulkheadTcx => vec![tcx, 9.0, tcx],
                    _ => vec![10.0, 10.0, 10.0],
                })
            }
        };
        let (promises, _) = judge(figures(10.0));
        assert_eq!(promises.len(), 1, "only what ran is judged: {promises:?}");
        assert_eq!(
            (promises[0].id, promises[0].measured, promises[0].met),
            ("bulk_tcp_vs_kernel", 1.0, true)
        );
        assert_eq!(promises[0].spread, [0.9, 1.0]);
        let (promises, _) = judge(figures(9.9));
        assert!(!promises[0].met, "{promises:?}");
    }

    #[test]
    fn like_is_compared_with_like_where_a_promise_names_nftables() {
        for (id, _, pair) in PROMISES {
            assert_eq!(pair.contender.translates(), pair.peer.translates(), "{id}");
        }
    }

    #[test]
    fn every_bulk_pair_runs() {
        let pairs = PROMISES.iter().map(|(_, _, pair)| *pair).chain(FURTHER);
        for pair in pairs.filter(|pair| pair.measure == Measure::BulkTcp) {
            assert!(
                Contender::BULK.contains(&pair.contender) && Contender::BULK.contains(&pair.peer),
                "{pair:?}"
            );
        }
    }
}
