//! Replacing a whole policy while a permitted conversation goes on: how long it takes, and what it loses.
//!
//! Every commit adds or removes the last rule of many, which a probe confirms at once. Bulkhead is given its ruleset as
//! its daemon would (reading YAML is measured by `cargo bench`); the kernel's firewalls are given the input of `nft -f`
//! or `ipset restore`, whose reading is theirs.

use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::contender::{Carrier, Contender};
use crate::go_on;
use crate::lab::{Lab, Purpose};
use crate::plan::{Scenario, Settings};
use crate::policy::{Policy, target};
use crate::series::{Point, Results, Unit};
use crate::stream::{Probe, Stream};

/// Time of a commit.
pub const TIME: &str = "";
/// Packets lost in it.
pub const LOST: &str = "lost of a permitted stream";

struct Entry {
    lab: Lab,
    rules: u32,
    times: Vec<f64>,
    lost: Vec<f64>,
}

/// Measures every contender with every number of rules.
pub fn run(settings: &Settings, results: &mut Results) -> Result<()> {
    let scenario = Scenario::Commit;
    let mut entries = Vec::new();
    for rules in settings.points(scenario) {
        for contender in settings.contenders(scenario) {
            go_on()?;
            eprintln!("  setting up {}, {rules}", contender.description());
            let lab = Lab::new(contender, Purpose::Sockets, Policy::Rules(rules))?;
            lab.own_targets()?;
            entries.push(Entry {
                lab,
                rules,
                times: Vec::new(),
                lost: Vec::new(),
            });
        }
    }
    for round in 1..=settings.rounds {
        eprintln!("  round {round} of {}", settings.rounds);
        for entry in &mut entries {
            go_on()?;
            one(entry).with_context(|| {
                let contender = entry.lab.contender.id();
                format!("commit of {} rules, {contender}", entry.rules)
            })?;
        }
    }
    for entry in entries {
        let point = |variant| Point {
            scenario,
            contender: entry.lab.contender,
            variant,
            at: u64::from(entry.rules),
        };
        results.add(point(TIME), Unit::Milliseconds, entry.times);
        results.add(point(LOST), Unit::Packets, entry.lost);
    }
    Ok(())
}

/// One rule fewer, then as many as before; both are timed.
fn one(entry: &mut Entry) -> Result<()> {
    let last = target(entry.rules - 1);
    let stream = Stream::start(&entry.lab, target(0))?;
    Probe::new(&entry.lab, last)?.must_pass()?;
    let fewer = time(&entry.lab, Policy::Rules(entry.rules - 1))?;
    Probe::new(&entry.lab, last)?.must_not_pass()?;
    let again = time(&entry.lab, Policy::Rules(entry.rules))?;
    Probe::new(&entry.lab, last)?.must_pass()?;
    let delivered = stream.finish()?;
    entry.times.push(f64::midpoint(fewer, again));
    entry.lost.push(delivered.lost() as f64);
    Ok(())
}

/// Commits a policy; milliseconds.
fn time(lab: &Lab, policy: Policy) -> Result<f64> {
    if let Some(bulkhead) = lab.bulkhead() {
        let ruleset = bulkhead.ruleset(policy);
        let start = Instant::now();
        lab.firewall().run(|| bulkhead.engine().commit(ruleset))?;
        return Ok(start.elapsed().as_secs_f64() * 1e3);
    }
    let Carrier::Kernel(Some(rules)) = lab.contender.carrier() else {
        anyhow::bail!("{} has no policy", Contender::id(lab.contender));
    };
    let input = lab.input(rules, policy, true);
    let start = Instant::now();
    lab.enter_rules(rules, &input)?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}
