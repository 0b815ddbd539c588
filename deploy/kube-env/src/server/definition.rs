//! Definitions of other projects' kinds, as far as tests use them, and how one becomes known to the API server.

use std::time::Instant;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::{Client, PATIENCE};

/// The definition of a namespaced kind with this schema of its `spec`.
#[must_use]
pub fn definition(group: &str, version: &str, kind: &str, plural: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}") },
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase() },
            "versions": [{ "name": version, "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                "type": "object", "properties": { "spec": spec },
            } } }],
        },
    })
}

/// That of MultiNetworkPolicy, which checks nothing.
#[must_use]
pub fn multi_network_policies() -> Value {
    let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    definition(
        "k8s.cni.cncf.io",
        "v1beta1",
        "MultiNetworkPolicy",
        "multi-networkpolicies",
        &anything,
    )
}

impl Client {
    /// Makes a kind known by its definition, and waits until it is served.
    pub fn define(&self, definition: &Value) -> Result<()> {
        self.post(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            definition,
        )?
        .expect(201)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let spec = &definition["spec"];
        let path = format!(
            "/apis/{}/{}/{}",
            text(&spec["group"]),
            text(&spec["versions"][0]["name"]),
            text(&spec["names"]["plural"])
        );
        let began = Instant::now();
        while self.get(&path)?.status != 200 {
            if began.elapsed() > PATIENCE {
                bail!("{path} is not served within {} s", PATIENCE.as_secs());
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Ok(())
    }
}
