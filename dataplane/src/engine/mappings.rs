//! Persistent mappings: proposes the end of those that no session uses, and shows them.
//!
//! The packet path notes when a session begins with a mapping and nothing after that. How long its sessions live is
//! found here, and written back now and then, so that the time after the last of them is counted from their end. The
//! control program looks again before it removes anything.
//!
//! A host that tries one source port after the other makes a mapping with each. Where that fills the table, mappings that
//! no session uses end sooner, so that others may still be made.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use bulkhead_abi::{ControlRequest, Flow, FlowKey6, Mapping, MappingKey, NatFiltering};

use super::{Engine, EngineError, Shared, ageing::now_ns};
use crate::{address::address, ruleset::Filtering, table::TableError};

/// Of the table, in per cent, from which on idle mappings are hurried, and how long they may be idle then.
const CROWDED_PERCENT: usize = 80;
const CROWDED_IDLE_NS: u64 = 10_000_000_000;

/// A mapping, and the last packet of the sessions that use it; 0: none does.
struct Found {
    mapping: Mapping,
    last_seen_ns: u64,
}

/// One look at the mappings and at the sessions that use them.
pub(super) struct Sweep {
    mappings: HashMap<MappingKey, Found>,
}

impl Sweep {
    /// Reads all mappings.
    pub(super) fn read(shared: &Shared) -> Result<Self, TableError> {
        let mut mappings = HashMap::new();
        shared.maps.mappings.for_each(|key, mapping| {
            let found = Found {
                mapping: *mapping,
                last_seen_ns: 0,
            };
            mappings.insert(*key, found);
        })?;
        Ok(Self { mappings })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.mappings.is_empty()
    }

    /// Takes note of a translated flow: a mapping's outside end is the source it gets or the destination it has,
    /// whichever side began.
    pub(super) fn see(&mut self, family: u8, key: &FlowKey6, flow: &Flow) {
        for (address_be, port) in [
            (flow.new_source_be, flow.new_source_port),
            (key.destination_be, key.destination_port),
        ] {
            let outside = MappingKey {
                address_be,
                port,
                protocol: flow.protocol,
                family,
                identity: 0,
            };
            if let Some(found) = self.mappings.get_mut(&outside) {
                found.last_seen_ns = found.last_seen_ns.max(flow.last_seen_ns).max(1);
            }
        }
    }

    /// Writes back when the used ones were used, and proposes the end of the others.
    pub(super) fn settle(&self, shared: &Shared) {
        let now_ns = now_ns();
        let room = shared.sizes.sessions.max(1) as usize;
        let most_idle_ns = if self.mappings.len() > room * CROWDED_PERCENT / 100 {
            CROWDED_IDLE_NS
        } else {
            u64::MAX
        };
        for (key, found) in &self.mappings {
            let Some(request) = proposal(key, found, now_ns, most_idle_ns) else {
                continue;
            };
            if let Err(error) = shared.request(&request) {
                tracing::error!(%error, "a persistent mapping could not be looked after");
                return;
            }
        }
    }
}

/// What to ask the control program about a mapping, which may be idle for its own timeout, but not longer than
/// `most_idle_ns`.
fn proposal(key: &MappingKey, found: &Found, now_ns: u64, most_idle_ns: u64) -> Option<ControlRequest> {
    let Found {
        mapping,
        last_seen_ns,
    } = found;
    let timeout_ns = u64::from(mapping.timeout_s) * 1_000_000_000;
    if *last_seen_ns != 0 {
        // Not at each look: a quarter of the time it may be idle is near enough.
        let worth_it = *last_seen_ns > mapping.last_used_ns.saturating_add(timeout_ns / 4);
        return worth_it.then(|| request(21, key, *last_seen_ns));
    }
    let idle_ns = now_ns.saturating_sub(mapping.last_used_ns);
    (idle_ns > timeout_ns.min(most_idle_ns)).then(|| request(20, key, mapping.last_used_ns))
}

/// A request about the mapping with an outside end.
fn request(operation: u32, key: &MappingKey, time_ns: u64) -> ControlRequest {
    let mut words = [0; 10];
    words[..4].copy_from_slice(&key.address_be);
    words[4] = u32::from(key.port) | u32::from(key.protocol) << 16 | u32::from(key.family) << 24;
    words[5] = key.identity;
    (words[6], words[7]) = (time_ns as u32, (time_ns >> 32) as u32);
    ControlRequest {
        operation,
        argument: 0,
        key: words,
    }
}

/// A persistent mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistentMapping {
    /// 4 or 6.
    pub family: u8,
    /// IP protocol.
    pub protocol: u8,
    /// Address and port inside.
    pub inside: SocketAddr,
    /// Address and port outside.
    pub outside: SocketAddr,
    /// The source NAT rule that made it.
    pub rule: Option<String>,
    /// Who may send to it.
    pub filtering: Filtering,
    /// Since a session was last seen to use it, as far as was noted.
    pub idle: Duration,
    /// How long it may be idle.
    pub timeout: Duration,
}

impl Engine {
    /// All persistent mappings, in no order.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub fn mappings(&self) -> Result<Vec<PersistentMapping>, EngineError> {
        let now_ns = now_ns();
        let mut mappings = Vec::new();
        self.shared.maps.mappings.for_each(|_, mapping| {
            let end = |words: &[u32; 4], port| SocketAddr::new(address(mapping.family, words), port);
            mappings.push(PersistentMapping {
                family: mapping.family,
                protocol: mapping.protocol,
                inside: end(&mapping.inside_be, mapping.inside_port),
                outside: end(&mapping.outside_be, mapping.outside_port),
                rule: self.shared.names_of(mapping.generation).source_rule(mapping.rule),
                filtering: match mapping.filtering {
                    kind if kind == NatFiltering::TargetHost as u8 => Filtering::TargetHost,
                    kind if kind == NatFiltering::TargetHostPort as u8 => Filtering::TargetHostPort,
                    _ => Filtering::AnyRemoteHost,
                },
                idle: Duration::from_nanos(now_ns.saturating_sub(mapping.last_used_ns)),
                timeout: Duration::from_secs(u64::from(mapping.timeout_s)),
            });
        })?;
        Ok(mappings)
    }

    /// Removes all persistent mappings, in use or not; how many there were. Sessions go on as they are.
    ///
    /// # Errors
    /// If the table cannot be read or the control program not be asked.
    pub fn clear_mappings(&self) -> Result<usize, EngineError> {
        let mut requests = Vec::new();
        self.shared
            .maps
            .mappings
            .for_each(|key, _| requests.push(request(22, key, 0)))?;
        let mut gone = 0;
        for request in &requests {
            gone += usize::from(self.shared.request(request)?);
        }
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn found(last_used_s: u64, last_seen_s: u64) -> Found {
        Found {
            mapping: Mapping {
                last_used_ns: last_used_s * SECOND,
                timeout_s: 100,
                ..Mapping::default()
            },
            last_seen_ns: last_seen_s * SECOND,
        }
    }

    #[test]
    fn idle_mappings_are_proposed_and_used_ones_kept_fresh() {
        let key = MappingKey {
            port: 0x1234,
            protocol: 17,
            family: 4,
            ..MappingKey::default()
        };
        let asked = |found: &Found, now_s: u64| proposal(&key, found, now_s * SECOND, u64::MAX);
        assert_eq!(asked(&found(1000, 0), 1100), None, "not idle for longer yet");
        let end = asked(&found(1000, 0), 1101).expect("an end");
        assert_eq!((end.operation, end.key[4]), (20, 0x0411_1234));
        assert_eq!(
            u64::from(end.key[6]) | u64::from(end.key[7]) << 32,
            1000 * SECOND,
            "unless it was used since"
        );
        // Where the table is full, sooner.
        let crowded = |now_s: u64| proposal(&key, &found(1000, 0), now_s * SECOND, 10 * SECOND);
        assert_eq!(crowded(1010), None);
        assert_eq!(crowded(1011).map(|end| end.operation), Some(20));
        // However long ago it was noted: a session is there.
        assert_eq!(asked(&found(1000, 1020), 9000), None);
        let note = asked(&found(1000, 1026), 9000).expect("a note");
        assert_eq!(note.operation, 21);
        assert_eq!(
            u64::from(note.key[6]) | u64::from(note.key[7]) << 32,
            1026 * SECOND
        );
    }

    #[test]
    fn a_mapping_is_used_by_sessions_of_both_sides_and_directions() {
        let outside = MappingKey {
            address_be: [7, 0, 0, 0],
            port: 5000,
            protocol: 17,
            family: 4,
            identity: 0,
        };
        let flow = |new_source, port, last_seen_ns| Flow {
            new_source_be: [new_source, 0, 0, 0],
            new_source_port: port,
            protocol: 17,
            last_seen_ns,
            ..Flow::default()
        };
        let key = |destination, port| FlowKey6 {
            destination_be: [destination, 0, 0, 0],
            destination_port: port,
            ..FlowKey6::default()
        };
        for (key, flow, seen) in [
            (key(9, 53), flow(7, 5000, 11), 11),
            (key(7, 5000), flow(9, 53, 12), 12),
            (key(7, 5001), flow(7, 5002, 13), 0),
        ] {
            let mut sweep = Sweep {
                mappings: HashMap::from([(outside, found(1, 0))]),
            };
            sweep.see(4, &key, &flow);
            assert_eq!(sweep.mappings[&outside].last_seen_ns, seen);
            sweep.see(6, &key, &flow);
            assert_eq!(sweep.mappings[&outside].last_seen_ns, seen, "of the same family");
        }
    }
}
