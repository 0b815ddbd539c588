//! What is rendered from the chart for newer clusters, judged by the schemas of Kubernetes' OpenAPI document.
//!
//! Owns what the API server of the other tests cannot say: it serves neither `autoscaling/v2` nor `policy/v1`, which golden files and plain
//! manifests have. Definitions of custom resources are not in that document; objects of theirs are judged by the API server, in
//! `accepted.rs`, from these same files.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use bulkhead_kube_env::Parts;
use serde_json::{Value, json};

use crate::{
    common::{CUSTOM, kept, objects, root},
    openapi::Schemas,
};

fn autoscaler() -> Value {
    json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "edge", "labels": {"a": "b"}},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "edge"},
            "minReplicas": 2, "maxReplicas": 8,
            "metrics": [{"type": "Pods", "pods": {
                "metric": {"name": "bulkhead_sessions"}, "target": {"type": "AverageValue", "averageValue": "100k"},
            }}],
        },
    })
}

fn budget() -> Value {
    json!({
        "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "edge"},
        "spec": {"maxUnavailable": "34%", "selector": {"matchLabels": {"app": "edge"}}},
    })
}

/// What the test below stands on: each kind of error that can be planted is found, however deep, and nothing else is.
#[test]
fn an_error_that_is_planted_is_found() -> Result<()> {
    let schemas = Schemas::of_kubernetes();
    for sound in [autoscaler(), budget()] {
        assert_eq!(schemas.faults(&sound)?, [""; 0], "{sound}");
    }
    let cases: [(Value, &str, Value, &str); 10] = [
        (
            autoscaler(),
            "/spec/maxReplica",
            json!(8),
            ".spec.maxReplica: there is no such field",
        ),
        (
            autoscaler(),
            "/spec/maxReplicas",
            Value::Null,
            ".spec.maxReplicas: is missing",
        ),
        (
            autoscaler(),
            "/spec/minReplicas",
            json!("2"),
            r#".spec.minReplicas: "2" is not of type "integer""#,
        ),
        (
            autoscaler(),
            "/spec/minReplicas",
            json!(4_294_967_296_u64),
            r#".spec.minReplicas: 4294967296 is not of format "int32""#,
        ),
        (
            autoscaler(),
            "/spec/metrics",
            json!({}),
            r#".spec.metrics: {} is not of type "array""#,
        ),
        (
            autoscaler(),
            "/spec/metrics/0/pods/target/averageValu",
            json!("1"),
            ".spec.metrics[0].pods.target.averageValu: there is no such field",
        ),
        (
            autoscaler(),
            "/spec/metrics/0/pods/metric/name",
            Value::Null,
            ".spec.metrics[0].pods.metric.name: is missing",
        ),
        (
            autoscaler(),
            "/metadata/labels/a",
            json!(true),
            r#".metadata.labels.a: true is not of type "string""#,
        ),
        // That of autoscaling/v1.
        (
            autoscaler(),
            "/spec/targetCPUUtilizationPercentage",
            json!(80),
            ".spec.targetCPUUtilizationPercentage: there is no such field",
        ),
        (
            budget(),
            "/spec/maxUnavailable",
            json!(1.5),
            ".spec.maxUnavailable: 1.5 is neither integer nor string",
        ),
    ];
    for (mut object, pointer, value, fault) in cases {
        let (parent, name) = pointer.rsplit_once('/').context("a path")?;
        let parent = object
            .pointer_mut(parent)
            .and_then(Value::as_object_mut)
            .context("an object")?;
        if value.is_null() {
            parent.remove(name).context("nothing to leave out")?;
        } else {
            parent.insert(name.to_owned(), value);
        }
        assert_eq!(schemas.faults(&object)?, [fault], "{pointer}");
    }
    let mut older = autoscaler();
    older["apiVersion"] = "autoscaling/v2beta2".into();
    assert!(
        schemas.faults(&older).is_err(),
        "judged by the schema of another version"
    );
    Ok(())
}

#[test]
fn kube_chart_golden_files_and_manifests_are_what_the_openapi_schemas_say() -> Result<()> {
    let parts = Parts::cached()?;
    let schemas = Schemas::of_kubernetes();
    let (mut judged, mut custom) = (0, 0);
    let mut versions = BTreeSet::new();
    for (file, text) in kept(&root())? {
        for object in objects(&parts, &text).with_context(|| file.clone())? {
            let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
            let (version, kind) = (text("apiVersion"), text("kind"));
            if CUSTOM.contains(&(version.as_str(), kind.as_str())) {
                custom += 1;
                continue;
            }
            let name = format!("{file}: {kind} {}", object["metadata"]["name"]);
            let faults = schemas.faults(&object).with_context(|| name.clone())?;
            assert_eq!(faults, [""; 0], "{name}");
            judged += 1;
            versions.insert(version);
        }
    }
    println!("{judged} objects judged, {custom} of custom resources not");
    // What nothing else judges is among them.
    for version in ["autoscaling/v2", "policy/v1"] {
        assert!(
            versions.contains(version),
            "no object of {version} in {versions:?}"
        );
    }
    assert!(judged > 80, "{judged} objects");
    Ok(())
}
