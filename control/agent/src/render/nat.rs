//! `show nat` for people: one table for each kind of rule that is configured, one of pools and one of mappings.

use super::{list, yes};
use crate::report::{DestinationRule, Nat, Pool, SourceRule, StaticRule};
use crate::table::{
    Align::{Left, Right},
    Table,
};
use crate::words;

/// `show nat`
pub fn nat(report: &Nat) -> String {
    let tables = [
        ("Source", source(&report.source)),
        ("Destination", destination(&report.destination)),
        ("Static", statics(&report.statics)),
        ("Pools", pools(&report.pools)),
        ("Mappings", mappings(report)),
    ];
    let shown: Vec<_> = tables
        .into_iter()
        .filter_map(|(title, table)| table.map(|table| (title, table)))
        .collect();
    match &shown[..] {
        [] => "no translation is configured\n".to_owned(),
        // A single table needs no title.
        [(_, table)] => table.clone(),
        several => {
            let titled: Vec<String> = several
                .iter()
                .map(|(title, table)| format!("{title}:\n{table}"))
                .collect();
            titled.join("\n")
        }
    }
}

fn source(rules: &[SourceRule]) -> Option<String> {
    let mut table = Table::new([
        ("#", Right),
        ("RULE", Left),
        ("FROM", Left),
        ("TO", Left),
        ("SOURCE", Left),
        ("DESTINATION", Left),
        ("SERVICE", Left),
        ("TRANSLATE", Left),
        ("PERSISTENT", Left),
        ("HITS (sessions)", Right),
    ]);
    for rule in rules {
        let persistent = match (&rule.persistent, rule.persistent_timeout_seconds) {
            (Some(scope), Some(seconds)) => {
                let timeout = words::duration(std::time::Duration::from_secs(seconds));
                format!("{scope}, {timeout}")
            }
            (Some(scope), None) => scope.clone(),
            (None, _) => String::new(),
        };
        table.row([
            rule.number.to_string(),
            rule.name.clone(),
            list(&rule.from),
            list(&rule.to),
            list(&rule.source),
            list(&rule.destination),
            list(&rule.service),
            translate(&rule.translate, rule.pool.as_deref()),
            persistent,
            rule.hits.to_string(),
        ]);
    }
    (!rules.is_empty()).then(|| table.render())
}

fn destination(rules: &[DestinationRule]) -> Option<String> {
    let mut table = Table::new([
        ("#", Right),
        ("RULE", Left),
        ("FROM", Left),
        ("SOURCE", Left),
        ("DESTINATION", Left),
        ("SERVICE", Left),
        ("TRANSLATE", Left),
        ("HITS (sessions)", Right),
    ]);
    for rule in rules {
        table.row([
            rule.number.to_string(),
            rule.name.clone(),
            list(&rule.from),
            list(&rule.source),
            list(&rule.destination),
            list(&rule.service),
            translate(&rule.translate, rule.pool.as_deref()),
            rule.hits.to_string(),
        ]);
    }
    (!rules.is_empty()).then(|| table.render())
}

fn translate(translate: &str, pool: Option<&str>) -> String {
    match pool {
        Some(pool) => format!("{translate} {pool}"),
        None => translate.to_owned(),
    }
}

fn statics(rules: &[StaticRule]) -> Option<String> {
    let mut table = Table::new([
        ("RULE", Left),
        ("FROM", Left),
        ("PREFIX", Left),
        ("TO", Left),
        ("NPT", Left),
        ("IN (sessions)", Right),
        ("OUT (sessions)", Right),
    ]);
    for rule in rules {
        table.row([
            rule.name.clone(),
            list(&rule.from),
            rule.prefix.clone(),
            rule.to.clone(),
            yes(rule.npt).to_owned(),
            rule.hits_inbound.to_string(),
            rule.hits_outbound.to_string(),
        ]);
    }
    (!rules.is_empty()).then(|| table.render())
}

fn pools(pools: &[Pool]) -> Option<String> {
    let mut table = Table::new([
        ("POOL", Left),
        ("ADDRESSES", Left),
        ("PORTS", Left),
        ("PAIRED", Left),
        ("SESSIONS", Right),
        ("USED (%)", Right),
        ("ALARM", Left),
        ("RULES", Left),
    ]);
    let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
    for pool in pools {
        let ports = match (pool.port, &pool.ports) {
            (Some(port), _) => format!("to {port}"),
            (None, Some(ports)) => ports.clone(),
            (None, None) => "stay".to_owned(),
        };
        let alarm = match (pool.alarm_raise, pool.alarm_clear) {
            (Some(_), Some(clear)) if pool.alarm => format!("RAISED until below {clear} %"),
            (Some(raise), Some(clear)) => format!("from {raise} % until below {clear} %"),
            _ => String::new(),
        };
        table.row([
            pool.name.clone(),
            list(&pool.addresses),
            ports,
            yes(pool.paired).to_owned(),
            number(pool.sessions),
            number(pool.used_percent),
            alarm,
            list(&pool.rules),
        ]);
    }
    (!pools.is_empty()).then(|| table.render())
}

fn mappings(report: &Nat) -> Option<String> {
    let mut table = Table::new([
        ("PROTOCOL", Left),
        ("INSIDE", Left),
        ("OUTSIDE", Left),
        ("RULE", Left),
        ("PERSISTENT", Left),
        ("IDLE", Right),
        ("TIMEOUT", Right),
    ]);
    let duration = |seconds: f64| words::duration(std::time::Duration::from_secs_f64(seconds.max(0.0)));
    for mapping in &report.mappings {
        table.row([
            mapping.protocol.clone(),
            mapping.inside.to_string(),
            mapping.outside.to_string(),
            mapping.rule.clone().unwrap_or_default(),
            mapping.persistent.clone(),
            duration(mapping.idle_seconds),
            duration(mapping.timeout_seconds),
        ]);
    }
    let mut text = table.render();
    if report.mappings.len() < report.total_mappings {
        text += &format!("{} of {} shown\n", report.mappings.len(), report.total_mappings);
    }
    (!report.mappings.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::nat;
    use crate::report::{DestinationRule, Mapping, Nat, Pool, SourceRule, StaticRule};

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn nothing_is_said_in_words() {
        assert_eq!(nat(&Nat::default()), "no translation is configured\n");
    }

    #[test]
    fn every_kind_has_its_table() {
        let report = Nat {
            source: vec![SourceRule {
                number: 1,
                name: "staff".into(),
                from: texts(&["staff"]),
                to: texts(&["internet"]),
                source: texts(&["10.20.2.0/24"]),
                destination: texts(&["any"]),
                service: texts(&["any"]),
                translate: "pool".into(),
                pool: Some("outside".into()),
                persistent: Some("target-host".into()),
                persistent_timeout_seconds: Some(300),
                hits: 7,
            }],
            destination: vec![DestinationRule {
                number: 1,
                name: "www".into(),
                from: texts(&["internet"]),
                source: texts(&["any"]),
                destination: texts(&["198.51.100.80"]),
                service: texts(&["https"]),
                translate: "pool".into(),
                pool: Some("www".into()),
                hits: 8,
            }],
            statics: vec![StaticRule {
                name: "prefix".into(),
                from: texts(&["internet"]),
                prefix: "2001:db8::/48".into(),
                to: "fd20::/48".into(),
                npt: true,
                hits_inbound: 1,
                hits_outbound: 22,
            }],
            pools: vec![
                Pool {
                    name: "outside".into(),
                    addresses: texts(&["198.51.100.128-198.51.100.151"]),
                    ports: Some("1024-65535".into()),
                    port: None,
                    paired: true,
                    alarm_raise: Some(80),
                    alarm_clear: Some(70),
                    rules: texts(&["staff"]),
                    sessions: Some(1_300_000),
                    used_percent: Some(84),
                    alarm: true,
                },
                Pool {
                    name: "www".into(),
                    addresses: texts(&["10.20.1.80"]),
                    ports: None,
                    port: Some(8443),
                    paired: true,
                    alarm_raise: None,
                    alarm_clear: None,
                    rules: texts(&["www"]),
                    sessions: None,
                    used_percent: None,
                    alarm: false,
                },
            ],
            mappings: vec![Mapping {
                protocol: "udp".into(),
                inside: "10.20.2.9:5060".parse().expect("an end"),
                outside: "198.51.100.128:5060".parse().expect("an end"),
                rule: Some("staff".into()),
                persistent: "target-host".into(),
                idle_seconds: 12.0,
                timeout_seconds: 300.0,
            }],
            total_mappings: 2,
        };
        let expected = "\
Source:
#  RULE   FROM   TO        SOURCE        DESTINATION  SERVICE  TRANSLATE     PERSISTENT        HITS (sessions)
1  staff  staff  internet  10.20.2.0/24  any          any      pool outside  target-host, 5 m                7

Destination:
#  RULE  FROM      SOURCE  DESTINATION    SERVICE  TRANSLATE  HITS (sessions)
1  www   internet  any     198.51.100.80  https    pool www                 8

Static:
RULE    FROM      PREFIX         TO         NPT  IN (sessions)  OUT (sessions)
prefix  internet  2001:db8::/48  fd20::/48  yes              1              22

Pools:
POOL     ADDRESSES                      PORTS       PAIRED  SESSIONS  USED (%)  ALARM                    RULES
outside  198.51.100.128-198.51.100.151  1024-65535  yes      1300000        84  RAISED until below 70 %  staff
www      10.20.1.80                     to 8443     yes            -         -  -                        www

Mappings:
PROTOCOL  INSIDE          OUTSIDE              RULE   PERSISTENT   IDLE  TIMEOUT
udp       10.20.2.9:5060  198.51.100.128:5060  staff  target-host  12 s      5 m
1 of 2 shown
";
        assert_eq!(nat(&report), expected);
    }
}
