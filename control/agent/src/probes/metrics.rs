//! What a scrape reads: counters and what others have counted already. Nothing here walks sessions.
//!
//! Sessions are those of the last look of ageing, pools those of the last look at translations; the rest is read where it
//! stands, some system calls for each reason, rule and interface.

use std::fs;

use bulkhead_abi::Tally;
use bulkhead_dataplane::engine::EngineError;

use super::families::{
    BUILD, COMMITS, EVENTS_LOST, GENERATION, GROUP_PREFIXES, INTERFACE_ATTACHED, INTERFACE_INFO,
    INTERFACE_RECEIVED, INTERFACE_RECEIVED_BYTES, INTERFACE_RESTORED, INTERFACE_SENT, INTERFACE_SENT_BYTES,
    INTERFACE_UP, MOST, NAT_HITS, OCCURRENCES, PACKETS, POLICY_HITS, POOL_ALARM, POOL_SESSIONS, POOL_USED,
    Page, READY, RESIDENT, REVISION, SCREEN_ALARMED, SCREEN_DROPPED, SELF_TESTS, SESSIONS, SESSIONS_CREATED,
    SESSIONS_ENDED, SESSIONS_LIMIT, SOURCE_AGE, SOURCE_FAILING, TABLES_LIMIT,
};
use crate::firewall::{Answered, Firewall as _};
use crate::live::LiveFirewall;
use crate::protocol::{Failure, FailureCode};
use crate::report::{self, CounterKind};
use crate::translate;

/// All there is to tell; without a firewall only what the daemon knows of itself.
///
/// # Errors
/// If the kernel does not say.
pub fn page(firewall: Option<&LiveFirewall>, ready: bool) -> Answered<Page> {
    let mut page = Page::default();
    let abi = bulkhead_abi::ABI_VERSION.to_string();
    page.add(BUILD, [env!("CARGO_PKG_VERSION"), &abi], 1u64);
    page.add(READY, [], ready);
    page.add(RESIDENT, [], report::resident_bytes());
    if let Some(firewall) = firewall {
        commits(&mut page, firewall);
        packets(&mut page, firewall)?;
        sessions(&mut page, firewall)?;
        rules(&mut page, firewall)?;
        groups(&mut page, firewall)?;
        interfaces(&mut page, firewall)?;
    }
    Ok(page)
}

fn failed(error: &EngineError) -> Failure {
    Failure::new(FailureCode::Failed, error)
}

fn commits(page: &mut Page, firewall: &LiveFirewall) {
    let engine = firewall.engine();
    let tests = engine.self_tests();
    page.add(SELF_TESTS, ["passed"], tests.passed);
    page.add(SELF_TESTS, ["failed"], tests.failed);
    page.add(GENERATION, [], engine.generation());
    page.add(REVISION, [], firewall.revision_in_force());
    for (outcome, count) in firewall.outcomes() {
        page.add(COMMITS, [outcome], count);
    }
    page.add(TABLES_LIMIT, [], firewall.most_table_bytes());
}

fn packets(page: &mut Page, firewall: &LiveFirewall) -> Answered<()> {
    for counter in firewall.counters(true)?.counters {
        match (counter.kind, counter.name.as_str()) {
            (CounterKind::Passed, name) => page.add(PACKETS, ["passed", name], counter.value),
            (CounterKind::Dropped, name) => page.add(PACKETS, ["dropped", name], counter.value),
            (CounterKind::Other, "events_lost") => page.add(EVENTS_LOST, ["kernel"], counter.value),
            (CounterKind::Other, "observer_events_lost") => {
                page.add(EVENTS_LOST, ["observer"], counter.value);
            }
            (CounterKind::Other, name) => page.add(OCCURRENCES, [name], counter.value),
        }
    }
    for screen in firewall.engine().screens().map_err(|error| failed(&error))? {
        let labels = [screen.zone.as_str(), screen.screen];
        page.add(SCREEN_DROPPED, labels, screen.dropped);
        page.add(SCREEN_ALARMED, labels, screen.alarmed);
    }
    Ok(())
}

fn sessions(page: &mut Page, firewall: &LiveFirewall) -> Answered<()> {
    let engine = firewall.engine();
    let seen = engine.ageing();
    let [v4, v6] = seen.established;
    page.add(SESSIONS, ["ipv4", "established"], v4);
    page.add(SESSIONS, ["ipv6", "established"], v6);
    let half_open_v4 = seen.half_open.saturating_sub(seen.half_open_v6);
    page.add(SESSIONS, ["ipv4", "half_open"], half_open_v4);
    page.add(SESSIONS, ["ipv6", "half_open"], seen.half_open_v6);
    let sizes = engine.sizes();
    page.add(SESSIONS_LIMIT, ["established"], sizes.sessions);
    page.add(SESSIONS_LIMIT, ["half_open"], sizes.half_open);
    for (family, tally) in [(SESSIONS_CREATED, Tally::Created), (SESSIONS_ENDED, Tally::Ended)] {
        let tallied = engine.with_object(|object| object.tallied(tally));
        page.add(family, [], tallied.map_err(|error| failed(&error.into()))?);
    }
    Ok(())
}

fn rules(page: &mut Page, firewall: &LiveFirewall) -> Answered<()> {
    let engine = firewall.engine();
    let config = firewall.config();
    let hits = engine.policy_hits().map_err(|error| failed(&error))?;
    let isolation = firewall.isolations().in_force();
    let names = translate::isolation::in_order(&config, &isolation).map(|policy| policy.name.as_str());
    let mut named: Vec<(&str, u64)> = names.zip(hits).collect();
    // Those of the document first: of more than have samples of their own, the others are added up.
    let denials = isolation.denials.len().min(named.len());
    named.rotate_left(denials);
    page.add_named(POLICY_HITS, named.into_iter());
    let hits = engine.all_nat_hits().map_err(|error| failed(&error))?;
    let source = config.source_nat.iter().map(|rule| rule.name.as_str());
    let destination = config.destination_nat.iter().map(|rule| rule.name.as_str());
    let fixed = config.static_nat.iter().map(|rule| rule.name.as_str());
    let both = hits.static_.iter().map(|(inwards, outwards)| inwards + outwards);
    for (name, hits) in source.zip(hits.source.iter().copied()).take(MOST) {
        page.add(NAT_HITS, [name, "source"], hits);
    }
    for (name, hits) in destination.zip(hits.destination.iter().copied()).take(MOST) {
        page.add(NAT_HITS, [name, "destination"], hits);
    }
    for (name, hits) in fixed.zip(both).take(MOST) {
        page.add(NAT_HITS, [name, "static"], hits);
    }
    drop(config);
    for pool in engine.pools().iter().take(MOST) {
        page.add(POOL_SESSIONS, [&pool.name], pool.sessions);
        page.add(POOL_USED, [&pool.name], pool.percent as f64 / 100.0);
        page.add(POOL_ALARM, [&pool.name], pool.alarm);
    }
    Ok(())
}

fn groups(page: &mut Page, firewall: &LiveFirewall) -> Answered<()> {
    let report = firewall.groups(None, false)?;
    let named = report.groups.iter().filter(|group| !group.literal);
    for group in named.take(MOST) {
        page.add(GROUP_PREFIXES, [&group.name], group.prefixes);
        for source in &group.sources {
            let labels = [group.name.as_str(), source.kind.as_str()];
            if let Some(age) = source.age_seconds {
                page.add(SOURCE_AGE, labels, age);
            }
            let failing = source.last_error.is_some() || !source.in_force;
            page.add(SOURCE_FAILING, labels, failing);
        }
    }
    Ok(())
}

fn interfaces(page: &mut Page, firewall: &LiveFirewall) -> Answered<()> {
    // Of this thread's namespace.
    let counted = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    for interface in firewall.interfaces()?.interfaces {
        let name = interface.name.as_str();
        page.add(INTERFACE_INFO, [name, &interface.zone, &interface.hook], 1u64);
        page.add(INTERFACE_UP, [name], interface.up);
        page.add(INTERFACE_ATTACHED, [name], interface.attached);
        page.add(INTERFACE_RESTORED, [name], interface.programs_restored);
        if let Some([received_bytes, received, sent_bytes, sent]) = traffic(&counted, name) {
            page.add(INTERFACE_RECEIVED, [name], received);
            page.add(INTERFACE_RECEIVED_BYTES, [name], received_bytes);
            page.add(INTERFACE_SENT, [name], sent);
            page.add(INTERFACE_SENT_BYTES, [name], sent_bytes);
        }
    }
    Ok(())
}

/// What an interface has received and sent, of the kernel's table: bytes and packets of either.
fn traffic(table: &str, interface: &str) -> Option<[u64; 4]> {
    let line = table.lines().find_map(|line| {
        let (name, numbers) = line.split_once(':')?;
        (name.trim() == interface).then_some(numbers)
    })?;
    let numbers: Vec<u64> = line
        .split_ascii_whitespace()
        .map_while(|number| number.parse().ok())
        .collect();
    // Eight columns of what was received, eight of what was sent.
    Some([
        *numbers.first()?,
        *numbers.get(1)?,
        *numbers.get(8)?,
        *numbers.get(9)?,
    ])
}

#[cfg(test)]
mod tests {
    use super::traffic;

    #[test]
    fn the_kernels_table_is_read_by_name() {
        let table = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  net1: 1234567    8901    0    2    0     0          0         0  7654321    1098    0    0    0     0       0          0
";
        assert_eq!(traffic(table, "net1"), Some([1_234_567, 8_901, 7_654_321, 1_098]));
        assert_eq!(traffic(table, "net"), None);
        assert_eq!(traffic("", "net1"), None);
    }
}
