use super::*;
use crate::plan::{Scenario, Settings};
use crate::series::Unit;

fn results(figures: &[(Point, &[f64])]) -> Results {
    let mut results = Results::default();
    for (point, rounds) in figures {
        results.add(*point, Unit::Mpps, rounds.to_vec());
    }
    results
}

fn promise(results: &Results, id: &str) -> Promise {
    let (promises, _) = judge(results);
    *promises
        .iter()
        .find(|promise| promise.id == id)
        .unwrap_or_else(|| panic!("{id} is not judged: {promises:?}"))
}

#[test]
fn a_promise_is_kept_at_its_target_and_broken_below() {
    let figures = |tcx: f64| {
        results(&[
            (bulk(C::BulkheadTcx, 1), &[tcx, 9.0, tcx]),
            (bulk(C::Kernel, 1), &[10.0, 10.0, 10.0]),
        ])
    };
    let kept = promise(&figures(10.0), "bulk_tcp_vs_kernel");
    assert_eq!((kept.measured, kept.met, kept.spread), (1.0, true, [0.9, 1.0]));
    assert_eq!(judge(&figures(10.0)).0.len(), 1, "only what ran is judged");
    assert!(!promise(&figures(9.9), "bulk_tcp_vs_kernel").met);
}

#[test]
fn a_limit_is_kept_at_its_target_and_broken_above() {
    let figures = |ms| {
        let commit = at(S::Commit, C::BulkheadTcx, commit::TIME, 10_000);
        results(&[(commit, &[ms, ms + 1.0])])
    };
    assert!(promise(&figures(499.5), "commit_10000_rules").met);
    assert!(!promise(&figures(499.6), "commit_10000_rules").met);
}

#[test]
fn one_round_that_loses_a_packet_breaks_the_promise_to_lose_none() {
    let figures = |rounds| {
        let lost = at(S::Commit, C::BulkheadTcx, commit::LOST, 10_000);
        results(&[(lost, rounds)])
    };
    assert!(promise(&figures(&[0.0, 0.0, 0.0]), "commit_packets_lost").met);
    let broken = promise(&figures(&[0.0, 0.0, 1.0]), "commit_packets_lost");
    assert_eq!(
        (broken.measured, broken.met, broken.spread),
        (1.0, false, [0.0, 1.0])
    );
}

#[test]
fn a_cost_has_the_source_s_own_time_taken_off() {
    // 100 ns and 150 ns with the source, whose share is 50 ns: the cost has doubled.
    let figures = results(&[
        (sessions(C::Source, packets::IN_TURN, 1_000), &[20.0]),
        (sessions(C::BulkheadXdp, packets::IN_TURN, 1_000), &[10.0]),
        (
            sessions(C::BulkheadXdp, packets::IN_TURN, 1_000_000),
            &[1e3 / 150.0],
        ),
    ]);
    let cost = promise(&figures, "established_xdp_cost_1000000_sessions");
    assert!((cost.measured - 2.0).abs() < 1e-9, "{cost:?}");
    assert!(!cost.met);
}

#[test]
fn like_is_compared_with_like_where_a_promise_names_nftables() {
    for definition in PROMISES {
        if let Quantity::Ratio(of, over) = definition.quantity
            && over.contender.tracks()
        {
            assert_eq!(
                of.contender.translates(),
                over.contender.translates(),
                "{}",
                definition.id
            );
        }
    }
}

/// The points that a full run makes.
fn made(point: &Point) -> bool {
    let settings = Settings {
        quick: false,
        rounds: 1,
        length: std::time::Duration::ZERO,
        flows: 1_000,
        cpu: 0,
        scenarios: Scenario::ALL.to_vec(),
        only: Vec::new(),
    };
    let variants: &[&str] = match point.scenario {
        Scenario::Sessions => &[packets::IN_TURN, packets::ZIPF],
        Scenario::Rules => &[packets::SPREAD, packets::LAST],
        Scenario::Groups => &[packets::SPREAD],
        Scenario::Latency => &[latency::IDLE_P99, latency::LOADED_P99],
        Scenario::Commit => &[commit::TIME, commit::LOST],
        Scenario::Membership => &[membership::ADD, membership::REMOVE],
        Scenario::Daemon => &[
            daemon::START,
            daemon::RESIDENT,
            daemon::TABLES,
            daemon::KILLED,
            daemon::STOPPED,
        ],
        _ => &[""],
    };
    settings
        .contenders(point.scenario)
        .any(|contender| contender == point.contender)
        && variants.contains(&point.variant)
        && (point.scenario == Scenario::Daemon
            || settings
                .points(point.scenario)
                .iter()
                .any(|at| u64::from(*at) == point.at))
}

#[test]
fn every_figure_that_is_judged_is_measured_by_a_full_run() {
    let promised = PROMISES.iter().map(|definition| definition.quantity);
    let judged = promised.chain(ratios::all()).flat_map(|quantity| match quantity {
        Quantity::Ratio(of, over) => vec![of, over],
        Quantity::Cost(of, over, source) => vec![of, over, source],
        Quantity::Value(point) | Quantity::Most(point) => vec![point],
    });
    for point in judged {
        assert!(made(&point), "{point:?}");
    }
}

#[test]
fn names_are_used_once() {
    for (index, definition) in PROMISES.iter().enumerate() {
        assert!(
            !PROMISES[..index].iter().any(|other| other.id == definition.id),
            "{}",
            definition.id
        );
    }
}
