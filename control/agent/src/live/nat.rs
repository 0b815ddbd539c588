//! `show nat`, from what people wrote and what the data plane counted.

use bulkhead_config::{Config, PersistentScope, PoolId, SourceTranslation};

use super::{group_names, service_names, zone_names};
use crate::report::{DestinationRule, Nat, Pool, SourceRule, StaticRule};

/// `hits` goes by the place of the source rule.
pub(super) fn nat(config: &Config, hits: &[u64]) -> Nat {
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
            hits: hits.get(index).copied().unwrap_or(0),
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
    };
    let statics = |rule: &bulkhead_config::StaticRule| StaticRule {
        name: rule.name.clone(),
        from: zone_names(config, &rule.from),
        prefix: rule.outside.to_string(),
        to: rule.inside.to_string(),
        npt: rule.npt,
    };
    Nat {
        source: config.source_nat.iter().enumerate().map(source).collect(),
        destination: config
            .destination_nat
            .iter()
            .enumerate()
            .map(destination)
            .collect(),
        statics: config.static_nat.iter().map(statics).collect(),
        pools: (0..)
            .map(PoolId)
            .zip(&config.pools)
            .map(|(id, pool)| self::pool(config, id, pool))
            .collect(),
    }
}

fn pool(config: &Config, id: PoolId, pool: &bulkhead_config::Pool) -> Pool {
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
    }
}

#[cfg(test)]
mod tests {
    use super::nat;

    #[test]
    fn rules_and_pools_are_listed() {
        let text = include_str!("../../../../deploy/examples/published-servers.yaml");
        let config = bulkhead_config::parse("published-servers.yaml", text)
            .expect("a sound example")
            .config;
        let report = nat(&config, &[3]);
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
            (servers.ports.as_deref(), servers.port, servers.rules.as_slice()),
            (None, Some(8443), &["www".into()][..])
        );
    }
}
