//! What a document can say and the data plane does not enforce yet: refused, never half applied.
//!
//! Owns the list. Whoever teaches the data plane a feature removes its line here; `bulkhead check` does not ask, because
//! such a document is sound.

use bulkhead_config::{Config, Diagnostic, Severity, SourceTranslation, Tcp};

/// A field, and the line of its first use.
struct Feature {
    field: &'static str,
    used: fn(&Config) -> Option<u32>,
}

/// The document's line where the configuration keeps none.
const SOMEWHERE: u32 = 1;

const ABSENT: &[Feature] = &[
    Feature {
        field: "spec.zones[].screen",
        used: |config| first(&config.zones, |zone| zone.screen.map(|_| zone.line)),
    },
    Feature {
        field: "spec.services[].timeout",
        used: |config| first(&config.services, |service| service.timeout.map(|_| service.line)),
    },
    Feature {
        field: "spec.nat.source[].translate: pool",
        used: |config| {
            first(&config.source_nat, |rule| {
                matches!(rule.translate, SourceTranslation::Pool(_)).then_some(rule.line)
            })
        },
    },
    Feature {
        field: "spec.nat.source[].persistent",
        used: |config| first(&config.source_nat, |rule| rule.persistent.map(|_| rule.line)),
    },
    Feature {
        field: "spec.nat.source[].source, destination and service",
        used: |config| {
            first(&config.source_nat, |rule| {
                let addresses = !is_any(&rule.source) || !is_any(&rule.destination);
                (addresses || !is_any(&rule.service)).then_some(rule.line)
            })
        },
    },
    Feature {
        field: "spec.nat.destination",
        used: |config| first(&config.destination_nat, |rule| Some(rule.line)),
    },
    Feature {
        field: "spec.nat.static",
        used: |config| first(&config.static_nat, |rule| Some(rule.line)),
    },
    Feature {
        field: "spec.tcp",
        used: |config| (config.tcp != Tcp::default()).then_some(SOMEWHERE),
    },
    Feature {
        field: "spec.sessions.earlyAgeing",
        used: |config| config.sessions.early_ageing.map(|_| SOMEWHERE),
    },
];

fn first<T>(things: &[T], line: impl Fn(&T) -> Option<u32>) -> Option<u32> {
    things.iter().find_map(line)
}

fn is_any<T>(selector: &bulkhead_config::Selector<T>) -> bool {
    matches!(selector, bulkhead_config::Selector::Any)
}

/// One error for each feature that would not be enforced.
pub fn unsupported(config: &Config) -> Vec<Diagnostic> {
    ABSENT
        .iter()
        .filter_map(|feature| {
            let line = (feature.used)(config)?;
            Some(Diagnostic {
                severity: Severity::Error,
                file: config.file.clone(),
                line,
                column: 1,
                path: feature.field.to_owned(),
                message: format!("{} is not enforced by this version", feature.field),
                help: Some("leave it out".to_owned()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{ABSENT, unsupported};

    fn fields(text: &str) -> Vec<(String, u32)> {
        let config = bulkhead_config::parse("f.yaml", text)
            .expect("a sound configuration")
            .config;
        let found = unsupported(&config);
        found.into_iter().map(|found| (found.path, found.line)).collect()
    }

    #[test]
    fn what_is_enforced_is_not_refused() {
        for text in [
            include_str!("../../../deploy/examples/minimal.yaml"),
            include_str!("../../../deploy/examples/four-segments.yaml"),
        ] {
            assert_eq!(fields(text), []);
        }
    }

    #[test]
    fn what_is_not_enforced_is_refused_where_it_stands() {
        let text = include_str!("../../../deploy/examples/published-servers.yaml");
        let found = fields(text);
        let named: Vec<&str> = found.iter().map(|(field, _)| field.as_str()).collect();
        let absent: Vec<&str> = ABSENT.iter().map(|feature| feature.field).collect();
        assert_eq!(named, absent, "the example uses every feature");
        for (field, word) in [
            ("spec.zones[].screen", "screen: edge"),
            ("spec.nat.destination", "name: www, from: internet"),
            ("spec.nat.static", "name: mail, from: internet"),
        ] {
            let Some((_, line)) = found.iter().find(|(found, _)| found == field) else {
                continue;
            };
            let written = text.lines().nth(*line as usize - 1).expect("a line");
            assert!(written.contains(word), "{field} on line {line}: {written}");
        }
    }
}
