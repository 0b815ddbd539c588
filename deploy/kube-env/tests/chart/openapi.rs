//! Objects judged by the schemas of Kubernetes' OpenAPI document.
//!
//! Owns the judging. The schemas are those of k8s-openapi, which is generated from that document: what `autoscaling/v2` and
//! `policy/v1` look like, which the API server of these tests is too old to know. Refuses what the document does: a field that it
//! does not have, one that is missing, a value of another type. It does not list the values of an enumeration (`type: Pods`); those the
//! API server knows. A keyword of JSON Schema that is not understood here is an error, never an object that passes.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::{
    Resource,
    api::{
        apps::v1::Deployment,
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value};

/// Where the generator keeps what is referred to.
const DEFINITIONS: &str = "#/$defs/";

/// What says nothing about which values are right. Keys of lists and maps are for those who merge objects.
const SILENT: &[&str] = &[
    "description",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
];

/// The schemas of the kinds that the chart makes of Kubernetes' own.
pub struct Schemas {
    kinds: BTreeMap<(&'static str, &'static str), Value>,
    definitions: Map<String, Value>,
}

impl Schemas {
    /// All of them.
    pub fn of_kubernetes() -> Self {
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        let kinds = BTreeMap::from([
            kind::<ClusterRole>(&mut generator),
            kind::<ClusterRoleBinding>(&mut generator),
            kind::<ConfigMap>(&mut generator),
            kind::<Deployment>(&mut generator),
            kind::<HorizontalPodAutoscaler>(&mut generator),
            kind::<Namespace>(&mut generator),
            kind::<NetworkPolicy>(&mut generator),
            kind::<PersistentVolumeClaim>(&mut generator),
            kind::<Pod>(&mut generator),
            kind::<PodDisruptionBudget>(&mut generator),
            kind::<Role>(&mut generator),
            kind::<RoleBinding>(&mut generator),
            kind::<Service>(&mut generator),
            kind::<ServiceAccount>(&mut generator),
        ]);
        Self {
            kinds,
            definitions: generator.take_definitions(true),
        }
    }

    /// What is wrong with an object, each with its path; or an error where no schema judges it.
    pub fn faults(&self, object: &Value) -> Result<Vec<String>> {
        let text = |field: &str| {
            object[field]
                .as_str()
                .with_context(|| format!("no {field} in {object}"))
        };
        let (version, kind) = (text("apiVersion")?, text("kind")?);
        let schema = self
            .kinds
            .get(&(version, kind))
            .with_context(|| format!("no schema of {version} {kind}"))?;
        let mut faults = Vec::new();
        self.judge("", object, schema, &mut faults)?;
        Ok(faults)
    }

    fn judge(&self, path: &str, value: &Value, schema: &Value, faults: &mut Vec<String>) -> Result<()> {
        let schema = schema
            .as_object()
            .with_context(|| format!("{path}: the schema {schema}"))?;
        for (keyword, operand) in schema {
            match keyword.as_str() {
                "$ref" => self.judge(path, value, self.definition(operand)?, faults)?,
                "type" => {
                    if !is_of_type(value, operand)? {
                        faults.push(format!("{path}: {value} is not of type {operand}"));
                    }
                }
                "format" => {
                    if !has_format(value, operand)? {
                        faults.push(format!("{path}: {value} is not of format {operand}"));
                    }
                }
                "x-kubernetes-int-or-string" => {
                    if !value.is_i64() && !value.is_u64() && !value.is_string() {
                        faults.push(format!("{path}: {value} is neither integer nor string"));
                    }
                }
                "required" => {
                    let names = operand.as_array().into_iter().flatten().filter_map(Value::as_str);
                    let missing = names.filter(|name| value.is_object() && value.get(name).is_none());
                    faults.extend(missing.map(|name| format!("{path}.{name}: is missing")));
                }
                "properties" => self.fields(path, value, operand, schema, faults)?,
                // Beside `properties` it is judged with them.
                "additionalProperties" if schema.contains_key("properties") => {}
                "additionalProperties" => {
                    for (name, value) in value.as_object().into_iter().flatten() {
                        self.judge(&format!("{path}.{name}"), value, operand, faults)?;
                    }
                }
                "items" => {
                    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
                        self.judge(&format!("{path}[{index}]"), value, operand, faults)?;
                    }
                }
                silent if SILENT.contains(&silent) => {}
                other => bail!("{path}: the keyword {other} of a schema is not understood"),
            }
        }
        Ok(())
    }

    /// Fields by name; another one is a fault, unless the schema says what others are like.
    fn fields(
        &self,
        path: &str,
        value: &Value,
        properties: &Value,
        schema: &Map<String, Value>,
        faults: &mut Vec<String>,
    ) -> Result<()> {
        for (name, value) in value.as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            match properties
                .get(name)
                .or_else(|| schema.get("additionalProperties"))
            {
                Some(schema) => self.judge(&path, value, schema, faults)?,
                None => faults.push(format!("{path}: there is no such field")),
            }
        }
        Ok(())
    }

    fn definition(&self, reference: &Value) -> Result<&Value> {
        reference
            .as_str()
            .and_then(|reference| self.definitions.get(reference.strip_prefix(DEFINITIONS)?))
            .with_context(|| format!("{reference} leads nowhere"))
    }
}

/// A kind by its name, and its schema.
fn kind<T: Resource + JsonSchema>(generator: &mut SchemaGenerator) -> ((&'static str, &'static str), Value) {
    let schema = generator.subschema_for::<T>().to_value();
    ((T::API_VERSION, T::KIND), schema)
}

fn is_of_type(value: &Value, name: &Value) -> Result<bool> {
    Ok(match name.as_str() {
        Some("array") => value.is_array(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("object") => value.is_object(),
        Some("string") => value.is_string(),
        _ => bail!("the type {name} of a schema is not understood"),
    })
}

/// A value of another type is not of this format's business.
fn has_format(value: &Value, name: &Value) -> Result<bool> {
    let is_number_beyond = |fits: bool| value.is_number() && !fits;
    Ok(match name.as_str() {
        Some("int32") => {
            !is_number_beyond(value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()))
        }
        Some("int64") => !is_number_beyond(value.is_i64()),
        // Times and bytes: the chart writes none, and what is written all the same is not passed unseen.
        _ => bail!("the format {name} of a schema is not understood: {value}"),
    })
}
