//! Ageing: picks idle sessions from a dump, lets the control program decide.

use std::time::{Duration, Instant};

use bulkhead_abi::{ControlRequest, Flow, FlowKey4, FlowKey6, flow_flags};

use super::{Shared, TICK};
use crate::table::TableError;

/// Between two looks at the tables.
const INTERVAL: Duration = Duration::from_secs(2);

/// A reply flow is normally removed with its first direction; one that outlived it by this much is looked at itself.
const ORPHAN_NS: u64 = 60_000_000_000;

/// The thread.
pub(super) fn run(shared: &Shared) {
    let mut last = Instant::now();
    while !shared.stopping() {
        std::thread::sleep(TICK);
        if last.elapsed() < INTERVAL {
            continue;
        }
        last = Instant::now();
        if let Err(error) = pass(shared) {
            tracing::error!(%error, "ageing failed");
        }
    }
}

/// Monotonic time, ns: the clock of `bpf_ktime_get_coarse_ns`.
pub(super) fn now_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| {
        u64::try_from(Duration::from(now).as_nanos()).unwrap_or(u64::MAX)
    })
}

/// The request that expires (or clears) the session of an IPv4 key.
pub(super) fn request4(key: &FlowKey4, force: bool) -> ControlRequest {
    let mut words = [0; 10];
    words[0] = key.source_be;
    words[1] = key.destination_be;
    words[2] = u32::from(key.source_port) | u32::from(key.destination_port) << 16;
    words[3] = key.protocol;
    ControlRequest {
        operation: if force { 5 } else { 3 },
        argument: 0,
        key: words,
    }
}

/// The request that expires (or clears) the session of an IPv6 key.
pub(super) fn request6(key: &FlowKey6, force: bool) -> ControlRequest {
    let mut words = [0; 10];
    words[..4].copy_from_slice(&key.source_be);
    words[4..8].copy_from_slice(&key.destination_be);
    words[8] = u32::from(key.source_port) | u32::from(key.destination_port) << 16;
    words[9] = key.protocol;
    ControlRequest {
        operation: if force { 6 } else { 4 },
        argument: 0,
        key: words,
    }
}

/// One look at all tables.
fn pass(shared: &Shared) -> Result<(), TableError> {
    let generation = shared.generation.load(std::sync::atomic::Ordering::Acquire);
    let Some(settings) = shared.maps.settings.get(&(generation & 1))? else {
        return Ok(());
    };
    let now = now_ns();
    let idle = |flow: &Flow| {
        let timeout = settings
            .timeouts_ns
            .get(usize::from(flow.state))
            .copied()
            .unwrap_or(0);
        let grace = if flow.flags & flow_flags::REPLY == 0 {
            0
        } else {
            ORPHAN_NS
        };
        now.saturating_sub(flow.last_seen_ns) > timeout.saturating_add(grace)
    };
    let mut candidates = Vec::new();
    for table in [&shared.maps.flows4, &shared.maps.half_open4] {
        table.for_each(|key, flow| {
            if idle(flow) {
                candidates.push(request4(key, false));
            }
        })?;
    }
    for table in [&shared.maps.flows6, &shared.maps.half_open6] {
        table.for_each(|key, flow| {
            if idle(flow) {
                candidates.push(request6(key, false));
            }
        })?;
    }
    for request in candidates {
        if let Err(error) = shared.request(&request) {
            tracing::error!(%error, "a session could not be expired");
            break;
        }
    }
    Ok(())
}
