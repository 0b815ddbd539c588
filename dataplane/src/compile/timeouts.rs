//! Timeouts of services and limits of sessions.
//!
//! A service class is a set of services; the first of them in configured order that has a timeout gives it to the class.

use std::time::Duration;

use bulkhead_abi::{LimitRule, LimitRuleKey, TimeoutKey, limit_flags};

use super::{Classes, CompiledRuleset, zone_number};
use crate::ruleset::Ruleset;

/// Whole seconds, at least one: less than that is not looked at.
pub(crate) fn seconds(timeout: Duration) -> u32 {
    let up = u64::from(timeout.subsec_nanos() != 0);
    u32::try_from((timeout.as_secs() + up).max(1)).unwrap_or(u32::MAX)
}

pub(super) fn compile(ruleset: &Ruleset, services: &Classes, compiled: &mut CompiledRuleset) {
    let generation = compiled.generation;
    // A set is sorted, and the order of services is that of the configuration.
    let timeout = |set: &[u32]| {
        set.iter()
            .find_map(|service| ruleset.services.get(*service as usize)?.timeout)
    };
    let timeouts = services.numbers.iter().filter_map(|(set, service)| {
        let key = TimeoutKey {
            generation,
            service: *service,
        };
        timeout(set).map(|timeout| (key, seconds(timeout)))
    });
    compiled.service_timeouts = timeouts.collect();
    for (index, zone) in ruleset.zones.iter().enumerate() {
        let Some(screen) = zone.screen.and_then(|screen| ruleset.screens.get(screen)) else {
            continue;
        };
        let rule = LimitRule {
            source: screen.session_limit_source.unwrap_or(0),
            destination: screen.session_limit_destination.unwrap_or(0),
            syn_ack_ack: screen.syn_ack_ack.unwrap_or(0),
            flags: if screen.alarm_without_drop {
                limit_flags::ALARM_ONLY
            } else {
                0
            },
        };
        if (rule.source, rule.destination, rule.syn_ack_ack) != (0, 0, 0) {
            let key = LimitRuleKey {
                generation,
                zone: zone_number(index),
            };
            compiled.limit_rules.push((key, rule));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        compile::compile,
        ruleset::{Screen, Service, ServiceMatch, Zone},
    };

    fn service(first: u16, last: u16, timeout_s: Option<u64>) -> Service {
        Service {
            matches: vec![ServiceMatch::Ports {
                protocol: 6,
                first,
                last,
            }],
            timeout: timeout_s.map(Duration::from_secs),
            ..Service::default()
        }
    }

    /// The timeout of a TCP port, as the programs find it.
    fn of_port(ruleset: &Ruleset, port: u16) -> Option<u32> {
        let (compiled, _) = compile(ruleset, 5, &[]).expect("it fits");
        let mut matching: Vec<_> = compiled
            .services
            .iter()
            .filter(|(key, _)| {
                let bits = key.bits.saturating_sub(48);
                let mask = if bits == 0 { 0 } else { u16::MAX << (16 - bits) };
                (key.bits < 48 || key.protocol == 6) && (u16::from_be(key.port_be) ^ port) & mask == 0
            })
            .collect();
        matching.sort_by_key(|(key, _)| key.bits);
        let (_, class) = matching.last()?;
        let found = compiled
            .service_timeouts
            .iter()
            .find(|(key, _)| key.generation == 5 && key.service == *class);
        found.map(|(_, seconds)| *seconds)
    }

    #[test]
    fn the_first_service_with_a_timeout_gives_it() {
        let ruleset = Ruleset {
            services: vec![
                service(80, 80, None),
                service(80, 90, Some(7)),
                service(80, 85, Some(3)),
                service(95, 95, Some(9)),
            ],
            ..Ruleset::default()
        };
        for (port, timeout) in [
            (79, None),
            (80, Some(7)),
            (85, Some(7)),
            (90, Some(7)),
            (91, None),
            (95, Some(9)),
        ] {
            assert_eq!(of_port(&ruleset, port), timeout, "port {port}");
        }
    }

    #[test]
    fn a_fraction_of_a_second_counts_as_a_whole_one() {
        let spans = [0, 1, 1_000, 1_001, 86_400_000].map(Duration::from_millis);
        assert_eq!(spans.map(seconds), [1, 1, 1, 2, 86_400]);
    }

    #[test]
    fn only_zones_whose_screen_limits_have_rules() {
        let zone = |screen| Zone {
            screen,
            ..Zone::default()
        };
        let ruleset = Ruleset {
            zones: vec![zone(None), zone(Some(0)), zone(Some(1)), zone(Some(2))],
            screens: vec![
                Screen::default(),
                Screen {
                    session_limit_source: Some(4),
                    ..Screen::default()
                },
                Screen {
                    alarm_without_drop: true,
                    session_limit_destination: Some(5),
                    syn_ack_ack: Some(6),
                    ..Screen::default()
                },
            ],
            ..Ruleset::default()
        };
        let rules = compile(&ruleset, 5, &[]).expect("it fits").0.limit_rules;
        let key = |zone| LimitRuleKey { generation: 5, zone };
        let rule = |source, destination, syn_ack_ack, flags| LimitRule {
            source,
            destination,
            syn_ack_ack,
            flags,
        };
        assert_eq!(
            rules,
            [
                (key(3), rule(4, 0, 0, 0)),
                (key(4), rule(0, 5, 6, limit_flags::ALARM_ONLY)),
            ]
        );
    }
}
