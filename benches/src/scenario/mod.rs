//! The scenarios: each makes its labs, interleaves their rounds and adds what it measured to the results.

mod bulk_tcp;
pub mod commit;
pub mod daemon;
pub mod latency;
pub mod membership;
pub mod packets;

use anyhow::{Context as _, Result};

use crate::plan::{Scenario, Settings};
use crate::series::Results;

/// Measures one scenario.
pub fn run(scenario: Scenario, settings: &Settings, results: &mut Results) -> Result<()> {
    if settings.contenders(scenario).next().is_none() {
        return Ok(());
    }
    eprintln!("{}", scenario.title());
    match scenario {
        Scenario::Established => packets::established(settings, results),
        Scenario::Sessions => packets::sessions(settings, results),
        Scenario::Sizes => packets::sizes(settings, results),
        Scenario::NewSessions => packets::new_sessions(settings, results),
        Scenario::Rules => packets::rules(settings, results),
        Scenario::Groups => packets::groups(settings, results),
        Scenario::BulkTcp => bulk_tcp::run(settings, results),
        Scenario::Latency => latency::run(settings, results),
        Scenario::Commit => commit::run(settings, results),
        Scenario::Membership => membership::run(settings, results),
        Scenario::Daemon => daemon::run(settings, results),
    }
    .with_context(|| format!("scenario {}", scenario.id()))
}
