//! The soak: a firewall between five hosts, random real traffic, random commits, floods; and afterwards the question
//! whether anything is left that nobody can explain.
//!
//! Owns a network of namespaces of its own (`bht-k-*`), which goes away with it. Assumes root. What must hold:
//!
//! - a conversation that every ruleset permits is never broken, one that none permits is never answered;
//! - every frame that entered stands under exactly one reason, and under none that nobody expects;
//! - when the traffic ends, the session tables empty by themselves;
//! - resident memory, map memory and descriptors are then what they were in the beginning.
#![forbid(unsafe_code)]

mod audit;
mod floods;
mod random;
mod report;
mod rules;
mod traffic;
mod world;

use std::{
    panic::resume_unwind,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bulkhead_testkit::{Ledger, patience};

pub use crate::{
    audit::Memory,
    floods::Floods,
    report::Report,
    rules::Commits,
    traffic::{Answered, Tally},
};
use crate::{random::Random, report::Findings, world::World};

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long traffic, commits and floods go on.
    pub duration: Duration,
    /// Where randomness begins: the same seed draws the same rulesets, conversations and floods, though not at the same
    /// moments.
    pub seed: u64,
}

/// How long the session tables may take to empty: the longest timeout of the rulesets, the grace of a reply whose first
/// direction was evicted, and some.
const PATIENCE: Duration = Duration::from_secs(150);
/// Traffic before anything is measured, so that heaps, caches and neighbours are there.
const WARM_UP: Duration = Duration::from_secs(3);

/// Runs the soak and judges it. `progress` hears what is going on.
///
/// # Errors
/// If the network cannot be set up or read. What the firewall did wrong is in the report and not an error.
pub fn run(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Report> {
    let world = World::new()?;
    let ledger = Ledger::open(world.firewall(), &world.engine)?;
    let mut random = Random::new(options.seed);

    progress("warming up");
    soak(&world, WARM_UP, &mut random)?;
    let rest = world.rest(patience(PATIENCE))?;
    ensure!(
        rest.left == 0,
        "{} flows are left {:?} after the warm-up ended, among them {:#?}",
        rest.left,
        rest.took,
        rest.sample
    );
    world.settle_rules()?;
    let before = Memory::take()?;
    let opened = ledger.balance(world.firewall(), &world.engine)?;

    progress("soaking");
    let began = Instant::now();
    let soaked = soak(&world, options.duration, &mut random)?;
    let took = began.elapsed();

    progress("waiting until the session tables are empty");
    let rest = world.rest(patience(PATIENCE))?;
    world.settle_rules()?;
    let closed = ledger.balance(world.firewall(), &world.engine)?;
    Ok(Report::judge(Findings {
        seed: options.seed,
        took,
        soaked,
        rest,
        account: closed.since(&opened),
        memory: (before, Memory::take()?),
    }))
}

/// What went on.
struct Soaked {
    tally: Tally,
    floods: Floods,
    commits: Commits,
}

/// Traffic, commits and floods for a while; returns when all of it has ended.
fn soak(world: &World, duration: Duration, random: &mut Random) -> Result<Soaked> {
    let stop = AtomicBool::new(false);
    let (first, second) = (random.fork(), random.fork());
    thread::scope(|scope| {
        let traffic = scope.spawn(|| traffic::run(world, &stop, first));
        let floods = scope.spawn(|| floods::run(world, &stop, second));
        let commits = rules::keep_changing(world, Instant::now() + duration, random);
        stop.store(true, Ordering::Release);
        let tally = traffic.join().unwrap_or_else(|panic| resume_unwind(panic));
        let floods = floods.join().unwrap_or_else(|panic| resume_unwind(panic));
        Ok(Soaked {
            tally: tally?,
            floods: floods?,
            commits: commits?,
        })
    })
}
