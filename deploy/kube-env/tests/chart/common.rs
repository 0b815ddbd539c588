//! What tests of the chart need: the repository, the definitions of others, and rendered text as objects.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bulkhead_kube_env::{Client, KubeEnv, Parts, chart, definition, multi_network_policies};
use serde_json::{Value, json};

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Plural names of the kinds that the chart makes, and whether they live in namespaces.
const KINDS: &[(&str, &str, bool)] = &[
    ("ClusterRole", "clusterroles", false),
    ("ClusterRoleBinding", "clusterrolebindings", false),
    ("ConfigMap", "configmaps", true),
    ("Deployment", "deployments", true),
    ("Firewall", "firewalls", true),
    ("HorizontalPodAutoscaler", "horizontalpodautoscalers", true),
    (
        "NetworkAttachmentDefinition",
        "network-attachment-definitions",
        true,
    ),
    ("Namespace", "namespaces", false),
    ("NetworkPolicy", "networkpolicies", true),
    ("PersistentVolumeClaim", "persistentvolumeclaims", true),
    ("Pod", "pods", true),
    ("PodDisruptionBudget", "poddisruptionbudgets", true),
    ("Role", "roles", true),
    ("RoleBinding", "rolebindings", true),
    ("Service", "services", true),
    ("ServiceAccount", "serviceaccounts", true),
    ("ServiceMonitor", "servicemonitors", true),
];

/// Where the API has an object.
pub fn path_of(object: &Value) -> Result<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let kind = text(&object["kind"]).context("no kind")?;
    let version = text(&object["apiVersion"]).context("no apiVersion")?;
    let name = text(&object["metadata"]["name"]).context("no name")?;
    let (_, plural, namespaced) = KINDS
        .iter()
        .find(|(known, ..)| *known == kind)
        .with_context(|| format!("the chart makes a {kind}: add its plural"))?;
    let group = if version.contains('/') { "apis" } else { "api" };
    let namespace = match text(&object["metadata"]["namespace"]) {
        Some(namespace) => {
            ensure!(*namespaced, "{kind} {name} has a namespace");
            format!("namespaces/{namespace}/")
        }
        None => {
            ensure!(!*namespaced, "{kind} {name} has no namespace");
            String::new()
        }
    };
    Ok(format!("/{group}/{version}/{namespace}{plural}/{name}"))
}

/// Rendered text as objects, as kubectl reads it. A change of nothing is the one thing that it does with any kind and without a server.
pub fn objects(parts: &Parts, text: &str) -> Result<Vec<Value>> {
    let home = tempfile::tempdir().context("cannot make a directory")?;
    let file = home.path().join("rendered.yaml");
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let mut kubectl = Command::new(&parts.kubectl);
    kubectl
        .args([
            "patch",
            "--local",
            "--type=merge",
            "--patch={}",
            "--output=json",
            "--filename",
        ])
        .arg(&file)
        .env("HOME", home.path());
    let json = chart::output(&mut kubectl)?;
    let objects = serde_json::Deserializer::from_str(&json)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .context("kubectl does not print JSON")?;
    ensure!(!objects.is_empty(), "nothing is rendered");
    Ok(objects)
}

/// A file of values as helm reads it: what the only template of a chart without values of its own is given.
pub fn values(parts: &Parts, file: &Path) -> Result<Value> {
    let chart = tempfile::tempdir().context("cannot make a directory")?;
    let templates = chart.path().join("templates");
    fs::create_dir(&templates).context("cannot make a directory")?;
    fs::write(
        chart.path().join("Chart.yaml"),
        "apiVersion: v2\nname: values\nversion: 0.0.0\n",
    )?;
    fs::write(templates.join("values.json"), "{{ toJson .Values }}\n")?;
    let mut helm = Command::new(&parts.helm);
    helm.arg("template")
        .arg(chart.path())
        .arg("--values")
        .arg(file)
        .env("HOME", chart.path());
    let text = chart::output(&mut helm).with_context(|| file.display().to_string())?;
    // Behind the name of the template.
    let json = text
        .split_once('{')
        .map(|(_, rest)| format!("{{{rest}"))
        .context("no values")?;
    serde_json::from_str(&json).with_context(|| json)
}

/// Golden files and plain manifests: all that is rendered and kept, by its path.
pub fn kept(root: &Path) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for place in ["deploy/helm/golden", "deploy/kubernetes"] {
        let directory = root.join(place);
        for entry in directory
            .read_dir()
            .with_context(|| directory.display().to_string())?
        {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                let name = path.file_name().unwrap_or_default().display().to_string();
                files.push((format!("{place}/{name}"), text));
            }
        }
    }
    files.sort();
    Ok(files)
}

/// What is in `sent` and not in `kept`, by its path: fields that the API server does not know are dropped by it without a word.
pub fn pruned(sent: &Value, kept: &Value) -> Vec<String> {
    let mut missing = Vec::new();
    compare("", sent, kept, &mut missing);
    missing
}

fn compare(path: &str, sent: &Value, kept: &Value, missing: &mut Vec<String>) {
    match (sent, kept) {
        (Value::Object(sent), Value::Object(kept)) => {
            for (key, value) in sent {
                compare(
                    &format!("{path}.{key}"),
                    value,
                    kept.get(key).unwrap_or(&Value::Null),
                    missing,
                );
            }
        }
        (Value::Array(sent), Value::Array(kept)) if sent.len() == kept.len() => {
            for (index, (sent, kept)) in sent.iter().zip(kept).enumerate() {
                compare(&format!("{path}[{index}]"), sent, kept, missing);
            }
        }
        // Nothing, said in another way.
        (Value::Array(sent), Value::Null) if sent.is_empty() => {}
        (Value::Object(sent), Value::Null) if sent.is_empty() => {}
        (Value::Bool(false) | Value::Null, Value::Null) => {}
        _ if sent == kept || same_quantity(sent, kept) => {}
        _ => missing.push(format!("{path}: {sent} became {kept}")),
    }
}

/// `"100000"` is kept as `"100k"`.
fn same_quantity(one: &Value, other: &Value) -> bool {
    let number = |value: &Value| {
        let text = value
            .as_str()
            .map(str::to_owned)
            .or_else(|| value.as_u64().map(|n| n.to_string()))?;
        let (digits, factor) = match text.strip_suffix('k') {
            Some(digits) => (digits, 1_000),
            None => match text.strip_suffix('M') {
                Some(digits) => (digits, 1_000_000),
                None => (text.as_str(), 1),
            },
        };
        digits.parse::<u64>().ok().map(|digits| digits * factor)
    };
    number(one).is_some() && number(one) == number(other)
}

/// Kinds of Bulkhead, of Multus and of the Prometheus operator, which Kubernetes' OpenAPI document does not have.
pub const CUSTOM: [(&str, &str); 3] = [
    ("bulkhead.dev/v1alpha1", "Firewall"),
    ("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition"),
    ("monitoring.coreos.com/v1", "ServiceMonitor"),
];

/// Defines our own kinds as the chart does, and those of others; and waits until they are served.
///
/// Our own definition is the one that is shipped. Those of Multus and of the Prometheus operator are not the upstream files but
/// written here, from the documentation of the fields that the chart uses: that a field of a `ServiceMonitor` is called as the operator
/// calls it stands on this text alone.
pub fn define(env: &KubeEnv) -> Result<()> {
    let admin = env.client("admin")?;
    let mut kubectl = Command::new(&env.parts().kubectl);
    kubectl
        .args(["create", "--filename"])
        .arg(chart::chart(&root()).join("crds"))
        .arg("--kubeconfig")
        .arg(env.kubeconfig_file("admin")?)
        .env("HOME", env.directory());
    chart::output(&mut kubectl)?;
    served(&admin, "/apis/bulkhead.dev/v1alpha1/firewalls")?;
    let string = json!({"type": "string"});
    let labels = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let attachment = json!({"type": "object", "properties": {"config": string}});
    let monitor = json!({
        "type": "object",
        "properties": {
            "selector": {"type": "object", "properties": {"matchLabels": labels}},
            "endpoints": {"type": "array", "items": {"type": "object", "properties": {
                "port": string, "path": string, "interval": string,
            }}},
        },
    });
    let definitions = [
        (
            "k8s.cni.cncf.io",
            "v1",
            "NetworkAttachmentDefinition",
            "network-attachment-definitions",
            attachment,
        ),
        (
            "monitoring.coreos.com",
            "v1",
            "ServiceMonitor",
            "servicemonitors",
            monitor,
        ),
    ];
    for (group, version, kind, plural, spec) in definitions {
        admin.define(&definition(group, version, kind, plural, &spec))?;
    }
    admin.define(&multi_network_policies())?;
    Ok(())
}

fn served(admin: &Client, path: &str) -> Result<()> {
    let began = Instant::now();
    while admin.get(path)?.status != 200 {
        ensure!(began.elapsed() < Duration::from_secs(20), "{path} is not served");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
