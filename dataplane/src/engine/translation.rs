//! What of address translation takes time: how full pools are, and which persistent mappings nobody uses any more. One
//! dump of the sessions answers both. Neighbours are told of new addresses besides.

use std::time::{Duration, Instant};

use bulkhead_abi::{Flow, FlowKey6, flow_flags, flow_generation};

use super::{Shared, TICK, ageing::AnyKey as _, mappings, neighbours::Announcer, pools};
use crate::{pulse::Pulse, table::TableError};

/// Between two looks at the tables.
const INTERVAL: Duration = Duration::from_secs(2);

/// The thread. The announcer has made its first pass.
pub(super) fn run(shared: &Shared, mut announcer: Announcer, pulse: &Pulse) {
    let mut last = Instant::now();
    while !shared.stopping() {
        pulse.beat();
        std::thread::sleep(TICK);
        if last.elapsed() < INTERVAL {
            continue;
        }
        last = Instant::now();
        announcer.pass(shared);
        if let Err(error) = pass(shared) {
            tracing::error!(%error, "a look at translated sessions failed");
        }
    }
}

/// One look.
fn pass(shared: &Shared) -> Result<(), TableError> {
    let mut mappings = mappings::Sweep::read(shared)?;
    let mut pools = pools::Count::new(shared);
    if mappings.is_empty() && pools.is_empty() {
        return Ok(());
    }
    let mut see = |family: u8, key: &FlowKey6, flow: &Flow| {
        if flow.flags & flow_flags::TRANSLATED != 0 && flow.generation != flow_generation::DEAD {
            mappings.see(family, key, flow);
            pools.see(flow);
        }
    };
    for table in [&shared.maps.flows4, &shared.maps.half_open4] {
        table.for_each(|key, flow| see(4, &key.wide(), flow))?;
    }
    for table in [&shared.maps.flows6, &shared.maps.half_open6] {
        table.for_each(|key, flow| see(6, key, flow))?;
    }
    pools.settle(shared);
    mappings.settle(shared);
    Ok(())
}
