//! The timeouts in force, as user space needs them: to guess which sessions are idle, and to say how long one may be.

use bulkhead_abi::{
    Flow, FlowKey6, Settings, announced, flow_flags, flow_generation::unmarked, idle_timeout_ns, protocol,
};

use super::super::{Shared, lock};
use crate::{compile::timeouts::seconds, reference, ruleset::Ruleset, table::TableError};
use std::{sync::Arc, time::Duration};

/// The timeouts of one generation.
pub(in super::super) struct Timeouts {
    /// The first judgement number of its commit.
    judged_from: u32,
    pub(in super::super) ruleset: Arc<Ruleset>,
    settings: Settings,
    /// Services with a timeout: index, s.
    services: Vec<(usize, u32)>,
}

impl Timeouts {
    /// Those of the generation in force.
    pub(in super::super) fn in_force(shared: &Shared) -> Result<Self, TableError> {
        let (generation, ruleset) = {
            let live = lock(&shared.live);
            (live.compiled.generation, live.ruleset.clone())
        };
        let judged_from = shared.judged_from();
        let settings = shared.maps.settings.get(&(generation & 1))?.unwrap_or_default();
        Ok(Self::of(judged_from, ruleset, settings))
    }

    fn of(judged_from: u32, ruleset: Arc<Ruleset>, settings: Settings) -> Self {
        let services = ruleset.services.iter().enumerate();
        let services = services
            .filter_map(|(index, service)| Some((index, seconds(service.timeout?))))
            .collect();
        Self {
            judged_from,
            ruleset,
            settings,
            services,
        }
    }

    /// How long the session of a flow may be idle, ns: what the programs would say at its next packet. For a reply flow of
    /// an older generation whose service depends on an ICMP code, or on who announced the session, it is a guess.
    pub(in super::super) fn of_flow(&self, key: &FlowKey6, flow: &Flow) -> u64 {
        let service_s = if unmarked(flow.generation) >= self.judged_from {
            flow.timeout_s
        } else {
            self.of_service(flow.protocol, service_port(key, flow))
        };
        let of_state_ns = self.settings.timeouts_ns.get(usize::from(flow.state));
        idle_timeout_ns(flow.state, service_s, of_state_ns.copied().unwrap_or(0))
    }

    fn of_service(&self, protocol: u8, port: u16) -> u32 {
        let contains = |index| reference::in_service(&self.ruleset, index, protocol, port);
        let found = self.services.iter().find(|(index, _)| contains(*index));
        found.map_or(0, |(_, seconds)| *seconds)
    }

    /// The shortest time in which a session that does not exist yet may be over.
    pub(super) fn shortest(&self) -> Duration {
        let states = self.settings.timeouts_ns.iter().copied();
        let services = self
            .services
            .iter()
            .map(|(_, seconds)| u64::from(*seconds) * 1_000_000_000);
        Duration::from_nanos(states.chain(services).min().unwrap_or(0))
    }
}

/// What the session's first packet was asked about.
fn service_port(key: &FlowKey6, flow: &Flow) -> u16 {
    let reply = flow.flags & flow_flags::REPLY != 0;
    match (flow.protocol, reply) {
        (protocol::TCP | protocol::UDP, false) if flow.icmp_type_code & announced::ANNOUNCED != 0 => {
            flow.icmp_type_code as u16
        }
        (number, false) if protocol::has_ports(number) => flow.new_destination_port,
        (number, true) if protocol::has_ports(number) => key.source_port,
        (protocol::ICMP | protocol::ICMPV6, false) => flow.icmp_type_code as u16,
        // The type that is answered by this one.
        (protocol::ICMP | protocol::ICMPV6, true) => match flow.icmp_type_code as u16 & 0xff00 {
            0 => 0x0800,
            kind => kind - 0x100,
        },
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use bulkhead_abi::SessionState;

    use super::*;
    use crate::ruleset::{Service, ServiceMatch};

    /// The same answer for both directions, whichever generation has judged them; only idle states follow the service.
    #[test]
    fn a_service_overrides_the_idle_states_only() {
        let ruleset = Ruleset {
            services: vec![Service {
                matches: vec![ServiceMatch::Ports {
                    protocol: 6,
                    first: 80,
                    last: 80,
                }],
                timeout: Some(Duration::from_secs(5)),
                ..Service::default()
            }],
            ..Ruleset::default()
        };
        let mut settings = Settings::default();
        for state in SessionState::ALL {
            settings.timeouts_ns[state as usize] = 100 + state as u64;
        }
        let timeouts = Timeouts::of(7, Arc::new(ruleset), settings);
        let key = FlowKey6 {
            source_port: 80,
            ..FlowKey6::default()
        };
        for state in SessionState::ALL {
            use SessionState::{Dccp, Icmp, Other, TcpEstablished, UdpOneWay, UdpTwoWay};
            let idle = matches!(
                state,
                TcpEstablished | UdpOneWay | UdpTwoWay | Icmp | Other | Dccp
            );
            for (generation, timeout_s) in [(7, 5), (6, 9999), (6, 0)] {
                for (flags, new_destination_port) in [(0, 80), (flow_flags::REPLY, 12_345)] {
                    let flow = Flow {
                        generation,
                        timeout_s,
                        protocol: 6,
                        state: state as u8,
                        flags,
                        new_destination_port,
                        ..Flow::default()
                    };
                    let expected = if idle { 5_000_000_000 } else { 100 + state as u64 };
                    assert_eq!(timeouts.of_flow(&key, &flow), expected, "{flow:?}");
                }
            }
        }
        assert_eq!(timeouts.shortest(), Duration::from_nanos(100));
    }
}
