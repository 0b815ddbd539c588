//! The custom resources `Firewall` and `AddressGroup`: their definitions, generated from the types that the parser reads.
//!
//! Owns the way from JSON Schema to the structural schema that the API server takes: references are written out, variants
//! that differ in type become fields that the API server passes through, and unknown fields are kept everywhere. That is on
//! purpose: a field that the API server prunes in silence is a typing error that nobody sees, one that arrives is refused by the
//! firewall with its place. Refuses a keyword that it does not know, so that no rule is lost unnoticed.

use kube::core::ApiResource;
use serde_json::{Map, Value, json};

/// The API group.
pub const GROUP: &str = "bulkhead.dev";
/// The version of the API, which is the document's.
pub const VERSION: &str = "v1alpha1";

/// Where the API has firewalls.
pub(crate) fn firewall_resource() -> ApiResource {
    ApiResource {
        group: GROUP.to_owned(),
        version: VERSION.to_owned(),
        api_version: bulkhead_config::API_VERSION.to_owned(),
        kind: bulkhead_config::KIND.to_owned(),
        plural: "firewalls".to_owned(),
    }
}

/// Where the API has address groups.
pub(crate) fn address_group_resource() -> ApiResource {
    ApiResource {
        kind: "AddressGroup".to_owned(),
        plural: "addressgroups".to_owned(),
        ..firewall_resource()
    }
}

/// The definition of the custom resource `Firewall`.
///
/// # Panics
/// If the schema of the configuration has a keyword that has no place in a structural schema yet: a test finds it.
pub fn firewall() -> Value {
    let root = bulkhead_config::json_schema();
    let mut spec = structural(&root, &root["properties"]["spec"]);
    spec["description"] = root["$defs"]["Spec"]["description"].clone();
    definition(
        &firewall_resource(),
        "fw",
        &json!([
            column(
                "Ready",
                "string",
                ".status.conditions[?(@.type==\"Ready\")].status",
                "Whether every instance enforces"
            ),
            column(
                "Applied",
                "string",
                ".status.applied",
                "Instances that have this in force, of how many"
            ),
            column(
                "Degraded",
                "string",
                ".status.conditions[?(@.type==\"Degraded\")].status",
                "Whether an instance differs from what is wanted"
            ),
            column(
                "Reason",
                "string",
                ".status.conditions[?(@.type==\"Degraded\")].reason",
                "Why"
            ),
            column(
                "Age",
                "date",
                ".metadata.creationTimestamp",
                "Since when it exists"
            ),
        ]),
        &root["description"],
        &spec,
        &status(),
    )
}

/// The definition of the custom resource `AddressGroup`: one group of a document, without what is fetched
/// ([`bulkhead_config::ObjectGroup`]).
///
/// # Panics
/// As [`firewall`].
pub fn address_group() -> Value {
    let root = bulkhead_config::json_schema();
    let group = &root["$defs"]["AddressGroup"];
    let mut spec = structural(&root, group);
    spec["description"] =
        json!("The members of the group; `feed`, `dns` and other groups are for the document of a firewall.");
    if let Some(rules) = spec.as_object_mut() {
        rules.remove("required");
    }
    if let Some(fields) = spec["properties"].as_object_mut() {
        fields.retain(|name, _| bulkhead_config::ObjectGroup::FIELDS.contains(&&**name));
    }
    definition(
        &address_group_resource(),
        "ag",
        &json!([
            column(
                "Ready",
                "string",
                ".status.conditions[?(@.type==\"Ready\")].status",
                "Whether every firewall that follows it has it in force"
            ),
            column("Members", "integer", ".status.members", "Prefixes in force"),
            column(
                "Firewalls",
                "string",
                ".status.inForce",
                "Firewalls that have it in force, of how many that follow it"
            ),
            column(
                "Reason",
                "string",
                ".status.conditions[?(@.type==\"Ready\")].reason",
                "Why"
            ),
            column(
                "Age",
                "date",
                ".metadata.creationTimestamp",
                "Since when it exists"
            ),
        ]),
        &json!(
            "Members of an address group, for firewalls whose documents refer to it: `addressGroup: NAMESPACE/NAME`."
        ),
        &spec,
        &address_group_status(),
    )
}

fn definition(
    resource: &ApiResource,
    short: &str,
    columns: &Value,
    description: &Value,
    spec: &Value,
    status: &Value,
) -> Value {
    let ApiResource { kind, plural, .. } = resource;
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{GROUP}") },
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.to_lowercase(),
                "shortNames": [short],
            },
            "versions": [{
                "name": VERSION,
                "served": true,
                "storage": true,
                "subresources": { "status": {} },
                "additionalPrinterColumns": columns,
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "description": description,
                    "required": ["spec"],
                    "properties": {
                        "apiVersion": { "type": "string" },
                        "kind": { "type": "string" },
                        "metadata": { "type": "object" },
                        "spec": spec,
                        "status": status,
                    },
                } },
            }],
        },
    })
}

fn column(name: &str, kind: &str, path: &str, description: &str) -> Value {
    json!({ "name": name, "type": kind, "jsonPath": path, "description": description })
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn number(description: &str) -> Value {
    json!({ "type": "integer", "format": "int64", "description": description })
}

fn conditions(kinds: &str, description: &str) -> Value {
    json!({
        "type": "array",
        "description": description,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "lastTransitionTime"],
            "properties": {
                "type": text(kinds),
                "status": { "type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds." },
                "reason": text("Why, for programs."),
                "message": text("Why, for people."),
                "lastTransitionTime": { "type": "string", "format": "date-time", "description": "Since when." },
            },
        },
    })
}

/// An entry for each instance, with these fields besides those that every entry has.
fn instances(kinds: &str, fields: &Value) -> Value {
    let mut properties = json!({
        "name": text("Name of the instance: its pod's."),
        "observedGeneration": number("The generation of this object that it has judged."),
        "conditions": conditions(kinds, "What holds for this instance."),
        "renewed": { "type": "string", "format": "date-time", "description": "When this entry was last written." },
    });
    for (name, field) in fields.as_object().into_iter().flatten() {
        properties[name] = field.clone();
    }
    json!({
        "type": "array",
        "description": "An entry for each instance, which nobody else writes.",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
        "items": { "type": "object", "required": ["name"], "properties": properties },
    })
}

/// `status` of a `Firewall`: see [`crate::status`].
fn status() -> Value {
    const KINDS: &str = "`Ready`, `Applied` or `Degraded`.";
    json!({
        "type": "object",
        "description": "What the firewalls that follow this object say.",
        "properties": {
            "observedGeneration": number("The generation of this object that every instance has judged."),
            "hash": text("SHA-256 of the document in force; empty while instances differ."),
            "applied": text("How many instances have this object in force, of how many."),
            "conditions": conditions(KINDS, "What holds for all instances together."),
            "instances": instances(KINDS, &json!({
                "hash": text("SHA-256 of the document it has in force."),
                "revision": number("Its revision."),
                "generation": number("The generation of its data plane."),
            })),
        },
    })
}

/// `status` of an `AddressGroup`: see [`crate::address_group`].
fn address_group_status() -> Value {
    json!({
        "type": "object",
        "description": "What the firewalls that follow this object say.",
        "properties": {
            "observedGeneration": number("The generation of this object that every instance has judged."),
            "members": number("How many prefixes are in force, with the instance that has the fewest."),
            "inForce": text("How many instances have this object in force, of how many that follow it."),
            "conditions": conditions("`Ready`.", "What holds for all instances together."),
            "instances": instances("`Ready`.", &json!({
                "members": number("How many prefixes it has in force."),
                "pods": number("How many pods these are of."),
                "pending": number("How many pods have no address yet."),
            })),
        },
    })
}

/// A schema without references, of the keywords that a structural schema has.
fn structural(root: &Value, schema: &Value) -> Value {
    let Some(rules) = schema.as_object() else {
        // `true`: anything.
        return anything(None);
    };
    let description = rules.get("description");
    if let Some(reference) = rules.get("$ref").and_then(Value::as_str) {
        let name = reference.trim_start_matches("#/$defs/");
        let mut target = structural(root, &root["$defs"][name]);
        // What a field is for says more than what its type is.
        if let Some(description) = description {
            target["description"] = description.clone();
        }
        return target;
    }
    if let Some(alternatives) = rules
        .get("oneOf")
        .or_else(|| rules.get("anyOf"))
        .and_then(Value::as_array)
    {
        return variants(root, alternatives, description);
    }
    let mut result = Map::new();
    for (keyword, rule) in rules {
        match keyword.as_str() {
            "type" => kind(rule, &mut result),
            "properties" => {
                let fields = rule.as_object().into_iter().flatten();
                let fields = fields.map(|(name, rule)| (name.clone(), structural(root, rule)));
                result.insert("properties".to_owned(), Value::Object(fields.collect()));
            }
            "items" => {
                result.insert("items".to_owned(), structural(root, rule));
            }
            // Defaults are the firewall's: a document in force is the one that was written.
            "title" | "default" | "$schema" | "$defs" => {}
            // The numbers that API machinery knows; bounds are there besides.
            "format" if !["int32", "int64"].contains(&rule.as_str().unwrap_or_default()) => {}
            "additionalProperties" => {
                result.insert("x-kubernetes-preserve-unknown-fields".to_owned(), json!(true));
            }
            "const" => {
                result.insert("enum".to_owned(), json!([rule]));
                result.insert("type".to_owned(), json!("string"));
            }
            "description" | "required" | "enum" | "pattern" | "format" | "minimum" | "maximum"
            | "minItems" | "maxItems" | "minLength" | "maxLength" => {
                result.insert(keyword.clone(), rule.clone());
            }
            other => panic!("the keyword \"{other}\" has no place in a structural schema"),
        }
    }
    Value::Object(result)
}

/// `type`, where `null` besides another is a word of its own.
fn kind(rule: &Value, result: &mut Map<String, Value>) {
    let Some(kinds) = rule.as_array() else {
        result.insert("type".to_owned(), rule.clone());
        return;
    };
    let others: Vec<&Value> = kinds.iter().filter(|kind| **kind != "null").collect();
    if others.len() < kinds.len() {
        result.insert("nullable".to_owned(), json!(true));
    }
    match others[..] {
        [one] => {
            result.insert("type".to_owned(), one.clone());
        }
        _ if others.len() == kinds.len() && is_number_or_text(&others) => {
            result.insert("x-kubernetes-int-or-string".to_owned(), json!(true));
        }
        _ => {
            result.insert("x-kubernetes-preserve-unknown-fields".to_owned(), json!(true));
        }
    }
}

fn is_number_or_text(kinds: &[&Value]) -> bool {
    kinds.len() == 2
        && ["integer", "string"]
            .iter()
            .all(|kind| kinds.iter().any(|one| *one == kind))
}

/// One of several schemas. The API server cannot take variants of different types; it passes those through.
fn variants(root: &Value, alternatives: &[Value], description: Option<&Value>) -> Value {
    let (nulls, others): (Vec<&Value>, Vec<&Value>) = alternatives
        .iter()
        .partition(|alternative| alternative["type"] == "null");
    let constants: Option<Vec<&Value>> = others.iter().map(|other| other.get("const")).collect();
    let kinds: Vec<&Value> = others.iter().map(|other| &other["type"]).collect();
    let mut result = match (&others[..], constants) {
        ([one], _) => structural(root, one),
        (_, Some(constants)) => json!({ "type": "string", "enum": constants }),
        // Together with `nullable`, API servers make an OpenAPI model of it that they refuse themselves, and then
        // know no list of ours by its keys.
        _ if nulls.is_empty() && is_number_or_text(&kinds) => {
            json!({ "x-kubernetes-int-or-string": true })
        }
        _ => anything(None),
    };
    if !nulls.is_empty() {
        result["nullable"] = json!(true);
    }
    if let Some(description) = description {
        result["description"] = description.clone();
    }
    result
}

fn anything(description: Option<&Value>) -> Value {
    let mut result = json!({ "x-kubernetes-preserve-unknown-fields": true });
    if let Some(description) = description {
        result["description"] = description.clone();
    }
    result
}

/// All definitions, as `kubectl apply` takes them.
///
/// # Errors
/// If they cannot be written as YAML.
pub fn yaml() -> Result<String, String> {
    let mut text = "# Generated by `bulkhead crds`; a test holds it equal.\n".to_owned();
    for definition in [firewall(), address_group()] {
        text += "---\n";
        text += &serde_saphyr::to_string(&definition).map_err(|error| error.to_string())?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules of structural schemas that a generator can break (Kubernetes, "Specifying a structural schema").
    fn judge(schema: &Value, path: &str, fields: &mut usize) {
        let rules = schema
            .as_object()
            .unwrap_or_else(|| panic!("{path} is no schema"));
        let passes = rules.contains_key("x-kubernetes-preserve-unknown-fields");
        let either = rules.contains_key("x-kubernetes-int-or-string");
        assert!(
            rules.contains_key("type") || passes || either,
            "{path} has no type"
        );
        assert!(!(rules.contains_key("type") && either), "{path} has two types");
        assert!(
            !(rules.contains_key("nullable") && either),
            "{path} has no OpenAPI model"
        );
        for forbidden in [
            "$ref",
            "oneOf",
            "anyOf",
            "allOf",
            "additionalProperties",
            "const",
            "default",
            "$defs",
        ] {
            assert!(!rules.contains_key(forbidden), "{path} has {forbidden}");
        }
        if rules.get("type") == Some(&json!("array")) {
            judge(&schema["items"], &format!("{path}[]"), fields);
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            *fields += 1;
            judge(field, &format!("{path}.{name}"), fields);
        }
    }

    #[test]
    fn the_schema_is_structural_and_knows_every_field() {
        let definition = firewall();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut fields = 0;
        judge(schema, "", &mut fields);
        assert!(fields > 120, "{fields} fields");
        let spec = &schema["properties"]["spec"]["properties"];
        assert_eq!(spec["forwarding"]["enum"], json!(["routed", "wire"]));
        assert_eq!(spec["interfaces"]["items"]["required"], json!(["name", "zone"]));
        assert_eq!(
            spec["policies"]["items"]["properties"]["from"]["x-kubernetes-preserve-unknown-fields"], true,
            "a name or several"
        );
    }

    #[test]
    fn an_address_group_has_what_an_object_may_have() {
        let definition = address_group();
        let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        judge(schema, "", &mut 0);
        let spec = &schema["properties"]["spec"];
        let fields = spec["properties"]
            .as_object()
            .map(|fields| fields.keys().map(String::as_str).collect());
        assert_eq!(fields, Some(vec!["except", "members", "pods"]));
        assert_eq!(spec["properties"]["pods"]["required"], json!(["selector"]));
        assert_eq!(spec["required"], Value::Null);
        assert_eq!(
            spec["x-kubernetes-preserve-unknown-fields"], true,
            "a typing error arrives"
        );
    }

    #[test]
    fn typing_errors_reach_the_firewall() {
        fn keeps(schema: &Value, path: &str) {
            if schema.get("properties").is_some() {
                assert_eq!(schema["x-kubernetes-preserve-unknown-fields"], true, "{path}");
            }
            for (name, field) in schema["properties"].as_object().into_iter().flatten() {
                keeps(field, &format!("{path}.{name}"));
            }
            if let Some(items) = schema.get("items") {
                keeps(items, &format!("{path}[]"));
            }
        }
        let definition = firewall();
        keeps(
            &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"],
            "spec",
        );
    }

    #[test]
    fn the_copy_in_the_tree_is_the_one_that_is_generated() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../deploy/kubernetes/crds/bulkhead.yaml");
        let copy = std::fs::read_to_string(&path).unwrap_or_default();
        let generated = yaml().expect("YAML");
        assert!(
            copy == generated,
            "{} differs: `bulkhead crds > deploy/kubernetes/crds/bulkhead.yaml`",
            path.display()
        );
    }
}
