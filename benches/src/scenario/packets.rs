//! Frames through every contender: established sessions, sizes, new sessions behind rules and groups.
//!
//! The labs of a scenario all exist at once, so that a round of every point of every contender runs within a minute.

use anyhow::Result;

use crate::contender::Contender;
use crate::frame::Size;
use crate::frames::{FrameLab, Round};
use crate::go_on;
use crate::object::Traffic;
use crate::plan::{Scenario, Settings};
use crate::policy::Policy;
use crate::popularity::Order;
use crate::series::{Point, Results};
use crate::test_run;

/// A lab, and what is sent through it at each of its points.
struct Entry {
    lab: FrameLab,
    points: Vec<(Point, Traffic, Vec<Round>)>,
}

/// The size of all packets but those of [`Scenario::Sizes`].
const SMALL: Size = Size::Bytes(60);
/// Traffic that is spread over the rules or members.
pub const SPREAD: &str = "spread over all";
/// Traffic to the last rule.
pub const LAST: &str = "all to the last";
/// Sessions taken in turn, the worst case.
pub const IN_TURN: &str = "each in turn";
/// Sessions taken by their popularity.
pub const ZIPF: &str = "by Zipf's law";

const fn established_traffic(flows: u32) -> Traffic {
    Traffic {
        flows,
        order: Order::InTurn,
        targets: 1,
        first_target: 0,
        size: SMALL,
    }
}

const fn point(scenario: Scenario, contender: Contender, variant: &'static str, at: u64) -> Point {
    Point {
        scenario,
        contender,
        variant,
        at,
    }
}

/// Makes a lab; `at` says for what, for those who watch.
fn lab(
    settings: &Settings,
    contender: Contender,
    policy: Policy,
    traffic: Traffic,
    at: u64,
) -> Result<FrameLab> {
    go_on()?;
    if at == 0 {
        eprintln!("  setting up {}", contender.description());
    } else {
        eprintln!("  setting up {}, {at}", contender.description());
    }
    FrameLab::new(contender, policy, traffic, settings.cpu)
}

/// Runs the rounds, interleaved, and adds them.
fn measure(settings: &Settings, entries: &mut [Entry], results: &mut Results) -> Result<()> {
    for round in 1..=settings.rounds {
        eprintln!("  round {round} of {}", settings.rounds);
        for Entry { lab, points } in &mut *entries {
            let several = points.len() > 1;
            for (_, traffic, rounds) in points {
                go_on()?;
                if several {
                    lab.set_traffic(*traffic)?;
                }
                rounds.push(lab.measure(settings.length)?);
            }
        }
    }
    for (point, _, rounds) in entries.iter_mut().flat_map(|entry| entry.points.drain(..)) {
        results.add_frames(point, rounds);
    }
    Ok(())
}

/// Every contender at one point; then the programs alone.
pub fn established(settings: &Settings, results: &mut Results) -> Result<()> {
    let scenario = Scenario::Established;
    let traffic = established_traffic(settings.flows);
    let mut entries = Vec::new();
    for contender in settings.contenders(scenario) {
        entries.push(Entry {
            lab: lab(settings, contender, Policy::Simple, traffic, 0)?,
            points: vec![(point(scenario, contender, "", 0), traffic, Vec::new())],
        });
    }
    measure(settings, &mut entries, results)?;
    let xdp = entries
        .iter_mut()
        .find(|entry| entry.lab.contender() == Contender::BulkheadXdp);
    if let Some(Entry { lab, .. }) = xdp {
        eprintln!("  test runs");
        results.test_run = test_run::measure(lab, settings.cpu, settings.flows)?;
    }
    Ok(())
}

/// By number of sessions, taken in turn and by popularity. The source alone is measured once: it does the same for a
/// thousand flows and for a million.
pub fn sessions(settings: &Settings, results: &mut Results) -> Result<()> {
    let scenario = Scenario::Sessions;
    let mut entries = Vec::new();
    for contender in settings.contenders(scenario) {
        for flows in settings.points(scenario) {
            if contender == Contender::Source && flows != 1_000 {
                continue;
            }
            let traffic = |order| Traffic {
                order,
                ..established_traffic(flows)
            };
            let at = u64::from(flows);
            let points = [(IN_TURN, Order::InTurn), (ZIPF, Order::Zipf)].map(|(variant, order)| {
                (
                    point(scenario, contender, variant, at),
                    traffic(order),
                    Vec::new(),
                )
            });
            entries.push(Entry {
                lab: lab(settings, contender, Policy::Simple, traffic(Order::Zipf), at)?,
                points: points.into(),
            });
        }
    }
    measure(settings, &mut entries, results)
}

/// By size of frame. The labs are made, and what arrives is looked at, with the mix.
pub fn sizes(settings: &Settings, results: &mut Results) -> Result<()> {
    let scenario = Scenario::Sizes;
    let traffic = |size| Traffic {
        size,
        ..established_traffic(settings.flows)
    };
    let mut entries = Vec::new();
    for contender in settings.contenders(scenario) {
        let points = Settings::SIZES.into_iter().map(|size| {
            let (variant, at) = match size {
                Size::Bytes(bytes) => ("", u64::from(bytes)),
                Size::Mixed => ("mixed: 7 x 60, 4 x 590, 1 x 1,514", MIXED_MEAN),
            };
            (point(scenario, contender, variant, at), traffic(size), Vec::new())
        });
        entries.push(Entry {
            lab: lab(settings, contender, Policy::Simple, traffic(Size::Mixed), 0)?,
            points: points.collect(),
        });
    }
    measure(settings, &mut entries, results)
}

/// The mean size of the mix, bytes.
const MIXED_MEAN: u64 = (7 * 60 + 4 * 590 + 1_514) / 12;

/// Destinations of new sessions: of one alone, masquerade would run out of ports within a round. Prime, so that every
/// destination sees all source ports.
const DESTINATIONS: u32 = 61;

/// New sessions through the simple policy.
pub fn new_sessions(settings: &Settings, results: &mut Results) -> Result<()> {
    let scenario = Scenario::NewSessions;
    let traffic = Traffic {
        targets: DESTINATIONS,
        ..established_traffic(Traffic::FRESH)
    };
    let mut entries = Vec::new();
    for contender in settings.contenders(scenario) {
        entries.push(Entry {
            lab: lab(settings, contender, Policy::Simple, traffic, 0)?,
            points: vec![(point(scenario, contender, "", 0), traffic, Vec::new())],
        });
    }
    measure(settings, &mut entries, results)
}

/// New sessions behind many rules: over all of them, and all for the last.
pub fn rules(settings: &Settings, results: &mut Results) -> Result<()> {
    by_policy(settings, Scenario::Rules, Policy::Rules, &[SPREAD, LAST], results)
}

/// New sessions to all members of a group.
pub fn groups(settings: &Settings, results: &mut Results) -> Result<()> {
    by_policy(settings, Scenario::Groups, Policy::Group, &[SPREAD], results)
}

fn by_policy(
    settings: &Settings,
    scenario: Scenario,
    policy: fn(u32) -> Policy,
    variants: &[&'static str],
    results: &mut Results,
) -> Result<()> {
    let mut entries = Vec::new();
    let counts = settings.points(scenario);
    for contender in settings.contenders(scenario) {
        for &count in &counts {
            if contender == Contender::Source && Some(&count) != counts.first() {
                continue;
            }
            let at = u64::from(count);
            let traffic = |variant| Traffic {
                targets: if variant == LAST { 1 } else { count },
                first_target: if variant == LAST { count - 1 } else { 0 },
                ..established_traffic(Traffic::FRESH)
            };
            let points = variants.iter().map(|&variant| {
                (
                    point(scenario, contender, variant, at),
                    traffic(variant),
                    Vec::new(),
                )
            });
            entries.push(Entry {
                lab: lab(settings, contender, policy(count), traffic(SPREAD), at)?,
                points: points.collect(),
            });
        }
    }
    measure(settings, &mut entries, results)
}
