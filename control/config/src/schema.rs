//! The JSON Schema of the document, for editors, the API server and `bulkhead schema`.
//!
//! Derived from the very types the parser reads, so the two cannot drift; it judges shape, not meaning: that a
//! group exists or a range runs forwards only the parser can say.

use schemars::generate::SchemaSettings;

use crate::document::Document;

/// What a name looks like.
pub(crate) const NAME: &str = "^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$";
/// What a duration looks like.
pub(crate) const DURATION: &str = "^[0-9]+(ms|s|m|h|d)$";
/// What the ports of a pool look like, unless they are a number.
pub(crate) const PORTS: &str = "^(none|[0-9]+-[0-9]+)$";
/// What a segment size looks like, unless it is a number.
pub(crate) const MSS: &str = "^(none|path)$";

/// The schema, draft 2020-12.
pub fn json_schema() -> serde_json::Value {
    SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<Document>()
        .to_value()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::json_schema;
    use crate::diagnostic::Diagnostics;
    use crate::fault::{Omitted, value};

    /// Judges the keywords this schema uses, and panics at any other, so that it cannot silently accept.
    fn accepts(root: &Value, schema: &Value, instance: &Value) -> bool {
        let is = |kind: &str| match kind {
            "integer" => instance.is_u64() || instance.is_i64(),
            "string" => instance.is_string(),
            "array" => instance.is_array(),
            "object" => instance.is_object(),
            "null" => instance.is_null(),
            "boolean" => instance.is_boolean(),
            other => panic!("type {other}"),
        };
        schema
            .as_object()
            .unwrap()
            .iter()
            .all(|(keyword, rule)| match keyword.as_str() {
                "$schema" | "$defs" | "title" | "description" | "default" | "format" | "properties" => true,
                "$ref" => {
                    let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                    accepts(root, &root["$defs"][name], instance)
                }
                "type" => match rule {
                    Value::Array(kinds) => kinds.iter().any(|kind| is(kind.as_str().unwrap())),
                    kind => is(kind.as_str().unwrap()),
                },
                "required" => rule
                    .as_array()
                    .unwrap()
                    .iter()
                    .all(|field| instance.get(field.as_str().unwrap()).is_some()),
                "additionalProperties" => {
                    assert_eq!(rule, false);
                    instance.as_object().is_none_or(|fields| {
                        fields.iter().all(|(name, value)| {
                            schema["properties"]
                                .get(name)
                                .is_some_and(|rule| accepts(root, rule, value))
                        })
                    })
                }
                "items" => instance
                    .as_array()
                    .is_none_or(|items| items.iter().all(|item| accepts(root, rule, item))),
                "anyOf" => rule
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|rule| accepts(root, rule, instance)),
                "oneOf" => {
                    rule.as_array()
                        .unwrap()
                        .iter()
                        .filter(|rule| accepts(root, rule, instance))
                        .count()
                        == 1
                }
                "const" => rule == instance,
                "enum" => rule.as_array().unwrap().contains(instance),
                "minItems" => instance
                    .as_array()
                    .is_none_or(|items| items.len() as u64 >= rule.as_u64().unwrap()),
                "maxItems" => instance
                    .as_array()
                    .is_none_or(|items| items.len() as u64 <= rule.as_u64().unwrap()),
                "maxLength" => instance
                    .as_str()
                    .is_none_or(|text| text.len() as u64 <= rule.as_u64().unwrap()),
                "minimum" => instance
                    .as_i64()
                    .is_none_or(|number| number >= rule.as_i64().unwrap()),
                "maximum" => instance
                    .as_i64()
                    .is_none_or(|number| number <= rule.as_i64().unwrap()),
                "pattern" => match (rule.as_str().unwrap(), instance.as_str()) {
                    (_, None) => true,
                    (super::NAME, Some(text)) => crate::resolve::is_name(text),
                    (super::DURATION, Some(text)) => {
                        let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
                        unit.len() < text.len() && ["ms", "s", "m", "h", "d"].contains(&unit)
                    }
                    (super::PORTS, Some(text)) => {
                        let digits =
                            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                        text == "none"
                            || text
                                .split_once('-')
                                .is_some_and(|(first, last)| digits(first) && digits(last))
                    }
                    (super::MSS, Some(text)) => ["none", "path"].contains(&text),
                    (other, _) => panic!("pattern {other}"),
                },
                other => panic!("keyword {other} is not judged here"),
            })
    }

    fn accepts_yaml(text: &str) -> bool {
        let schema = json_schema();
        let mut diagnostics = Diagnostics::new("f");
        let tree = crate::yaml::tree(text, &mut diagnostics).unwrap();
        accepts(
            &schema,
            &schema,
            &value::<Value>(&tree, &Omitted::default()).unwrap(),
        )
    }

    #[test]
    fn accepts_every_example() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples");
        let mut judged = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                assert!(
                    accepts_yaml(&std::fs::read_to_string(&path).unwrap()),
                    "{}",
                    path.display()
                );
                judged += 1;
            }
        }
        assert!(judged >= 4);
    }

    #[test]
    fn refuses_what_the_parser_refuses_for_its_shape() {
        let document = |spec: &str| {
            format!(
                "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: {{ name: edge }}\nspec: {{ {spec} }}\n"
            )
        };
        assert!(accepts_yaml(&document("")));
        assert!(accepts_yaml(&document(
            "services: [{ name: a, tcp: [1, 2-3], icmp: echo-request }]"
        )));
        assert!(accepts_yaml(&document(
            "sessions: { max: 5, timeouts: { icmp: 5s }, earlyAgeing: true }"
        )));
        for mss in ["none", "path", "88", "65495"] {
            assert!(
                accepts_yaml(&document(&format!("tcp: {{ mss: {mss} }}"))),
                "{mss}"
            );
        }
        for ports in ["none", "1-2", "80"] {
            let pool = format!("nat: {{ pools: [{{ name: p, addresses: [10.0.0.1], ports: {ports} }}] }}");
            assert!(accepts_yaml(&document(&pool)), "{ports}");
        }
        for screen in [
            "flood: true",
            "flood: 5",
            "sweep: true",
            "sweep: { count: 5 }",
            "large: false",
        ] {
            let screen = format!("screens: [{{ name: s, icmp: {{ {screen} }} }}]");
            assert!(accepts_yaml(&document(&screen)), "{screen}");
        }
        for (spec, why) in [
            ("zonse: []", "unknown field"),
            ("zones: [{ name: 10 }]", "number for text"),
            ("zones: [{ name: -a }]", "bad name"),
            ("zones: web", "text for a list"),
            ("hook: netfilter", "unknown value"),
            ("policies: [{ name: p, from: any, to: any }]", "missing field"),
            (
                "policies: [{ name: p, from: [], to: any, action: deny }]",
                "empty list",
            ),
            ("sessions: { max: 0 }", "out of bounds"),
            ("sessions: [5]", "list for a mapping"),
            ("tcp: { mss: 87 }", "out of bounds"),
            ("tcp: { mss: patch }", "unknown value"),
            ("wires: [{ name: w, interfaces: [a] }]", "one end"),
            ("nat: { pools: [{ name: p, addresses: [] }] }", "no addresses"),
            (
                "nat: { pools: [{ name: p, addresses: [10.0.0.1], ports: some }] }",
                "neither none nor ports",
            ),
            (
                "nat: { pools: [{ name: p, addresses: [10.0.0.1], port: 0 }] }",
                "no port",
            ),
            (
                "nat: { static: [{ name: s, from: any, prefix: 10.0.0.1 }] }",
                "missing field",
            ),
            ("screens: [{ name: s, icmp: { flood: 0 } }]", "out of bounds"),
            (
                "screens: [{ name: s, icmp: { flood: much } }]",
                "text for a number",
            ),
            (
                "screens: [{ name: s, icmp: { sweep: { cnt: 5 } } }]",
                "unknown field",
            ),
            (
                "screens: [{ name: s, icmp: { sweep: { count: 1 } } }]",
                "out of bounds",
            ),
            (
                "screens: [{ name: s, icmp: { large: yes } }]",
                "text for a boolean",
            ),
            ("algs: [sip]", "unknown value"),
            ("sessions: { timeouts: { icmp: 240 } }", "duration without unit"),
        ] {
            let text = document(spec);
            assert!(!accepts_yaml(&text), "the schema accepts {spec}: {why}");
            assert!(
                crate::parse("f", &text).is_err(),
                "the parser accepts {spec}: {why}"
            );
        }
        assert!(!accepts_yaml(
            "apiVersion: bulkhead.dev/v2\nkind: Firewall\nmetadata: { name: edge }\nspec: {}\n"
        ));
    }

    #[test]
    fn every_field_is_described_and_no_other_is_allowed() {
        let schema = json_schema();
        assert_eq!(schema["title"], "Bulkhead firewall configuration");
        assert_eq!(schema["properties"]["kind"]["const"], json!("Firewall"));
        let mut types = schema["$defs"].as_object().unwrap().clone();
        types.insert("Document".to_owned(), schema.clone());
        let mut fields = 0;
        for (name, kind) in &types {
            assert!(kind["description"].is_string(), "{name} has no description");
            let Some(properties) = kind["properties"].as_object() else {
                continue;
            };
            assert_eq!(kind["additionalProperties"], false, "{name}");
            for (field, rule) in properties {
                fields += 1;
                assert!(
                    rule["description"].as_str().is_some_and(|text| text.len() > 10),
                    "{name}.{field}"
                );
            }
        }
        assert!(fields > 120, "{fields} fields");
    }
}
