//! Pools and rules of address translation.

use bulkhead_config::{
    DestinationRule, PersistentScope, Pool, PortRange, SourceRule, SourceTranslation, StaticRule,
};
use bulkhead_dataplane::ruleset;

use super::{index, indices, prefix};

pub(super) fn pool(pool: &Pool) -> ruleset::Pool {
    ruleset::Pool {
        name: pool.name.clone(),
        ranges: pool
            .ipv4
            .iter()
            .chain(&pool.ipv6)
            .map(|range| (range.first, range.last))
            .collect(),
        ports: pool.ports().map(|PortRange { first, last }| (first, last)),
        port: pool.port(),
        paired: pool.paired(),
        alarm: pool.alarm().map(|alarm| (alarm.raise, alarm.clear)),
    }
}

pub(super) fn source(rule: &SourceRule) -> ruleset::SourceNat {
    ruleset::SourceNat {
        name: rule.name.clone(),
        from: indices(&rule.from),
        to: indices(&rule.to),
        source: indices(&rule.source),
        destination: indices(&rule.destination),
        service: indices(&rule.service),
        translation: match rule.translate {
            SourceTranslation::Interface => ruleset::SourceTranslation::Interface,
            SourceTranslation::Off => ruleset::SourceTranslation::Off,
            SourceTranslation::Pool(pool) => ruleset::SourceTranslation::Pool(index(&pool)),
        },
        persistent: rule.persistent.map(|persistent| {
            let filtering = match persistent.scope {
                PersistentScope::AnyRemoteHost => ruleset::Filtering::AnyRemoteHost,
                PersistentScope::TargetHost => ruleset::Filtering::TargetHost,
                PersistentScope::TargetHostPort => ruleset::Filtering::TargetHostPort,
            };
            (filtering, persistent.timeout)
        }),
    }
}

pub(super) fn destination(rule: &DestinationRule) -> ruleset::DestinationNat {
    ruleset::DestinationNat {
        name: rule.name.clone(),
        from: indices(&rule.from),
        source: indices(&rule.source),
        destination: indices(&rule.destination),
        service: indices(&rule.service),
        pool: rule.pool.as_ref().map(index),
    }
}

/// Static rules; `static` is a word of the language.
pub(super) fn fixed(rule: &StaticRule) -> ruleset::StaticNat {
    ruleset::StaticNat {
        name: rule.name.clone(),
        from: indices(&rule.from),
        outside: prefix(rule.outside),
        inside: prefix(rule.inside),
        npt: rule.npt,
    }
}
