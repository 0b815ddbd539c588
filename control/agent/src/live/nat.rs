//! `show nat`, from what people wrote and what the data plane counted.

use bulkhead_config::{Config, PersistentScope, PoolId, SourceTranslation};
use bulkhead_dataplane::engine::{NatHits, PersistentMapping, PoolStatus};
use bulkhead_dataplane::ruleset::Filtering;

use super::{group_names, service_names, zone_names};
use crate::report::{DestinationRule, Mapping, Nat, Pool, SHOWN_MAPPINGS, SourceRule, StaticRule};
use crate::words;

/// What the data plane counted. Rules go by their place.
#[derive(Default)]
pub(super) struct Counted {
    /// Conversations by rule.
    pub hits: NatHits,
    /// Pools of source rules, by name.
    pub pools: Vec<PoolStatus>,
    /// Persistent mappings.
    pub mappings: Vec<PersistentMapping>,
}

/// The rules as they were written, with what was counted.
pub(super) fn nat(config: &Config, counted: &Counted) -> Nat {
    let hits = &counted.hits;
    let pool_name = |id: PoolId| config.pool(id).name.clone();
    let source = |(index, rule): (usize, &bulkhead_config::SourceRule)| {
        let (translate, pool) = match rule.translate {
            SourceTranslation::Interface => ("interface", None),
            SourceTranslation::Off => ("off", None),
            SourceTranslation::Pool(pool) => ("pool", Some(pool_name(pool))),
        };
        let persistent = |persistent: bulkhead_config::Persistent| {
            match persistent.scope {
                PersistentScope::AnyRemoteHost => "any-remote-host",
                PersistentScope::TargetHost => "target-host",
                PersistentScope::TargetHostPort => "target-host-port",
            }
            .to_owned()
        };
        SourceRule {
            number: index + 1,
            name: rule.name.clone(),
            from: zone_names(config, &rule.from),
            to: zone_names(config, &rule.to),
            source: group_names(config, &rule.source),
            destination: group_names(config, &rule.destination),
            service: service_names(config, &rule.service),
            translate: translate.to_owned(),
            pool,
            persistent: rule.persistent.map(persistent),
            persistent_timeout_seconds: rule.persistent.map(|persistent| persistent.timeout.as_secs()),
            hits: hits.source.get(index).copied().unwrap_or(0),
        }
    };
    let destination = |(index, rule): (usize, &bulkhead_config::DestinationRule)| DestinationRule {
        number: index + 1,
        name: rule.name.clone(),
        from: zone_names(config, &rule.from),
        source: group_names(config, &rule.source),
        destination: group_names(config, &rule.destination),
        service: service_names(config, &rule.service),
        translate: if rule.pool.is_some() { "pool" } else { "off" }.to_owned(),
        pool: rule.pool.map(pool_name),
        hits: hits.destination.get(index).copied().unwrap_or(0),
    };
    let statics = |(index, rule): (usize, &bulkhead_config::StaticRule)| {
        let (hits_inbound, hits_outbound) = hits.static_.get(index).copied().unwrap_or_default();
        StaticRule {
            name: rule.name.clone(),
            from: zone_names(config, &rule.from),
            prefix: rule.outside.to_string(),
            to: rule.inside.to_string(),
            npt: rule.npt,
            hits_inbound,
            hits_outbound,
        }
    };
    Nat {
        source: config.source_nat.iter().enumerate().map(source).collect(),
        destination: config
            .destination_nat
            .iter()
            .enumerate()
            .map(destination)
            .collect(),
        statics: config.static_nat.iter().enumerate().map(statics).collect(),
        pools: (0..)
            .map(PoolId)
            .zip(&config.pools)
            .map(|(id, pool)| self::pool(config, id, pool, &counted.pools))
            .collect(),
        mappings: counted
            .mappings
            .iter()
            .take(SHOWN_MAPPINGS)
            .map(mapping)
            .collect(),
        total_mappings: counted.mappings.len(),
    }
}

fn mapping(mapping: &PersistentMapping) -> Mapping {
    Mapping {
        protocol: words::protocol(mapping.protocol),
        inside: mapping.inside,
        outside: mapping.outside,
        rule: mapping.rule.clone(),
        persistent: match mapping.filtering {
            Filtering::AnyRemoteHost => "any-remote-host",
            Filtering::TargetHost => "target-host",
            Filtering::TargetHostPort => "target-host-port",
        }
        .to_owned(),
        idle_seconds: mapping.idle.as_secs_f64(),
        timeout_seconds: mapping.timeout.as_secs_f64(),
    }
}

fn pool(config: &Config, id: PoolId, pool: &bulkhead_config::Pool, counted: &[PoolStatus]) -> Pool {
    let counted = counted.iter().find(|counted| counted.name == pool.name);
    let source = config
        .source_nat
        .iter()
        .filter(|rule| rule.translate == SourceTranslation::Pool(id))
        .map(|rule| &rule.name);
    let destination = config
        .destination_nat
        .iter()
        .filter(|rule| rule.pool == Some(id))
        .map(|rule| &rule.name);
    Pool {
        name: pool.name.clone(),
        addresses: pool
            .ipv4
            .iter()
            .chain(&pool.ipv6)
            .map(ToString::to_string)
            .collect(),
        ports: pool.ports().map(|ports| ports.to_string()),
        port: pool.port(),
        paired: pool.paired(),
        alarm_raise: pool.alarm().map(|alarm| alarm.raise),
        alarm_clear: pool.alarm().map(|alarm| alarm.clear),
        rules: source.chain(destination).cloned().collect(),
        sessions: counted.map(|counted| counted.sessions),
        used_percent: counted.map(|counted| counted.percent),
        alarm: counted.is_some_and(|counted| counted.alarm),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rules_and_pools_are_listed() {
        let text = include_str!("../../../../deploy/examples/published-servers.yaml");
        let config = bulkhead_config::parse("published-servers.yaml", text)
            .expect("a sound example")
            .config;
        let counted = Counted {
            hits: NatHits {
                source: vec![3],
                destination: vec![5],
                static_: vec![(0, 0), (1, 2)],
            },
            pools: vec![PoolStatus {
                name: "outside".into(),
                addresses: 24,
                sessions: 90,
                percent: 81,
                alarm: true,
            }],
            mappings: vec![PersistentMapping {
                family: 4,
                protocol: 17,
                inside: "10.20.2.200:5060".parse().expect("an end"),
                outside: "198.51.100.1:5060".parse().expect("an end"),
                rule: Some("telephones".into()),
                filtering: Filtering::TargetHost,
                idle: Duration::from_millis(1_500),
                timeout: Duration::from_secs(300),
            }],
        };
        let report = nat(&config, &counted);
        let [telephones, staff] = &report.source[..] else {
            panic!("{:?}", report.source)
        };
        assert_eq!(
            (
                telephones.number,
                telephones.name.as_str(),
                telephones.hits,
                staff.hits
            ),
            (1, "telephones", 3, 0),
            "hits may be fewer while a generation changes"
        );
        assert_eq!(
            (telephones.source.as_slice(), telephones.service.as_slice()),
            (&["10.20.2.200".into()][..], &["sip".into()][..])
        );
        assert_eq!(
            (telephones.translate.as_str(), telephones.persistent.as_deref()),
            ("interface", Some("target-host"))
        );
        assert_eq!(telephones.persistent_timeout_seconds, Some(300));
        assert_eq!(
            (staff.translate.as_str(), staff.pool.as_deref(), &staff.persistent),
            ("pool", Some("outside"), &None)
        );
        let [www] = &report.destination[..] else {
            panic!("{:?}", report.destination)
        };
        assert_eq!(
            (www.destination.as_slice(), www.pool.as_deref()),
            (&["198.51.100.80".into()][..], Some("www"))
        );
        assert_eq!(
            (report.statics[1].to.as_str(), report.statics[1].npt),
            ("fd20::/48", true)
        );
        let [outside, servers] = &report.pools[..] else {
            panic!("{:?}", report.pools)
        };
        assert_eq!(outside.addresses, ["198.51.100.128-198.51.100.151"]);
        assert_eq!(
            (outside.ports.as_deref(), outside.port, outside.rules.as_slice()),
            (Some("1024-65535"), None, &["staff".into()][..])
        );
        assert_eq!((outside.alarm_raise, outside.alarm_clear), (Some(80), Some(70)));
        assert_eq!(
            (outside.sessions, outside.used_percent, outside.alarm),
            (Some(90), Some(81), true)
        );
        assert_eq!((servers.sessions, servers.alarm), (None, false));
        assert_eq!(www.hits, 5);
        assert_eq!(
            (report.statics[1].hits_inbound, report.statics[1].hits_outbound),
            (1, 2)
        );
        let [mapping] = &report.mappings[..] else {
            panic!("{:?}", report.mappings)
        };
        assert_eq!(
            (
                mapping.protocol.as_str(),
                mapping.persistent.as_str(),
                mapping.idle_seconds
            ),
            ("udp", "target-host", 1.5)
        );
        assert_eq!(
            (servers.ports.as_deref(), servers.port, servers.rules.as_slice()),
            (None, Some(8443), &["www".into()][..])
        );
    }
}
