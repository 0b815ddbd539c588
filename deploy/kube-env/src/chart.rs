//! The Helm chart, rendered.
//!
//! Owns what is rendered from it and kept in the repository: a golden file for each of the documented variations, so that a change
//! of the chart shows in review as what it does to objects, and two plain manifests for people without helm. Written by
//! `cargo xtask manifests`; a test of the tier `kube` holds them equal. helm is the real one; it asks no cluster here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::Parts;

/// The release's name in everything that is rendered; its namespace is `bulkhead`.
pub const RELEASE: &str = "edge";

/// Its namespace.
pub const NAMESPACE: &str = "bulkhead";

/// The Kubernetes that golden files and manifests are for: the release whose schemas `tests/schemas.rs` holds them to.
const FOR_KUBERNETES: &str = "1.33";

/// The variations that are plain manifests, too.
const PLAIN: &[&str] = &["microsegmentation", "ingress-protection"];

/// Kinds that no cluster has by itself, and whose definitions they need.
const CUSTOM: &[(&str, &str)] = &[
    ("NetworkAttachmentDefinition", "Multus"),
    ("Firewall", "Bulkhead (crds/bulkhead.yaml)"),
    ("ServiceMonitor", "the Prometheus operator"),
];

/// Where definitions of custom resources are generated.
const DEFINITIONS: &str = "deploy/kubernetes/crds";

/// One documented set of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variation {
    /// Its file's name without extension.
    pub name: String,
    /// Its values.
    pub values: PathBuf,
}

/// A file of the repository that is rendered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Where it belongs, from the repository's root on.
    pub path: PathBuf,
    /// What belongs into it.
    pub text: String,
}

/// The chart below the repository's root.
pub fn chart(root: &Path) -> PathBuf {
    root.join("deploy/helm/bulkhead")
}

/// All variations, by name.
pub fn variations(root: &Path) -> Result<Vec<Variation>> {
    let directory = root.join("deploy/helm/variations");
    let mut variations = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let values = entry?.path();
        let Some(name) = values.file_stem().map(|stem| stem.to_string_lossy().into_owned()) else {
            continue;
        };
        variations.push(Variation { name, values });
    }
    variations.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(variations)
}

/// Every file that is rendered from the chart, and the chart's copy of each definition of a custom resource.
pub fn rendered(parts: &Parts, root: &Path) -> Result<Vec<Rendered>> {
    let mut files = definitions(root)?;
    for variation in variations(root)? {
        let render = |more: &[&str]| {
            let more = [&["--kube-version", FOR_KUBERNETES], more].concat();
            template(parts, root, &variation.values, &more)
        };
        files.push(Rendered {
            path: Path::new("deploy/helm/golden").join(format!("{}.yaml", variation.name)),
            text: render(&[])?,
        });
        if PLAIN.contains(&variation.name.as_str()) {
            files.push(Rendered {
                path: Path::new("deploy/kubernetes").join(format!("{}.yaml", variation.name)),
                text: plain(&variation.name, &render(&["--no-hooks"])?),
            });
        }
    }
    Ok(files)
}

/// helm installs definitions from the chart alone; they are generated beside the plain manifests (`bulkhead crds`).
fn definitions(root: &Path) -> Result<Vec<Rendered>> {
    let directory = root.join(DEFINITIONS);
    let entries = fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let entry = entry?;
        let text = fs::read_to_string(entry.path())
            .with_context(|| format!("cannot read {}", entry.path().display()))?;
        files.push(Rendered {
            path: Path::new("deploy/helm/bulkhead/crds").join(entry.file_name()),
            text,
        });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

/// What `helm template` says to these values; `more` are further arguments. A refusal is an error with helm's own words.
pub fn template(parts: &Parts, root: &Path, values: &Path, more: &[&str]) -> Result<String> {
    let mut helm = Command::new(&parts.helm);
    helm.args(["template", RELEASE])
        .arg(chart(root))
        .args(["--namespace", NAMESPACE, "--values"])
        .arg(values)
        .args(more);
    output(&mut helm)
}

/// The standard output of helm or kubectl, or an error with what it complained about.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("not UTF-8")
}

/// Without what only helm understands, and with the namespace, whose label lets the pods have their capabilities. Attachments come
/// before the pods that need them.
fn plain(name: &str, rendered: &str) -> String {
    let only_helm = ["# Source: ", "helm.sh/chart: ", "app.kubernetes.io/managed-by: "];
    let mut objects: Vec<String> = Vec::new();
    for line in rendered.lines() {
        if line == "---" || objects.is_empty() {
            objects.push(String::new());
        }
        if let Some(object) = objects.last_mut()
            && !only_helm.iter().any(|start| line.trim_start().starts_with(start))
        {
            object.push_str(line);
            object.push('\n');
        }
    }
    objects.sort_by_key(|object| !is_kind(object, "NetworkAttachmentDefinition"));
    let needed: Vec<_> = CUSTOM
        .iter()
        .filter(|(kind, _)| objects.iter().any(|object| is_kind(object, kind)))
        .map(|(_, whose)| *whose)
        .collect();
    let mut text = format!(
        "# Rendered from deploy/helm/variations/{name}.yaml by `cargo xtask manifests`: change that, not this.\n\
         # What to change in a copy before it is applied: README.md beside this.\n\
         # Custom resources that must be defined: those of {needed}.\n\
         apiVersion: v1\n\
         kind: Namespace\n\
         metadata:\n  \
           name: {NAMESPACE}\n  \
           labels:\n    \
             pod-security.kubernetes.io/enforce: privileged\n",
        needed = needed.join(" and of ")
    );
    text.extend(objects);
    text
}

/// Whether an object as text is of this kind.
fn is_kind(object: &str, kind: &str) -> bool {
    object
        .lines()
        .any(|line| line.strip_prefix("kind: ") == Some(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_manifest_does_not_claim_to_be_helms() {
        let rendered = "---\n# Source: bulkhead/templates/a.yaml\nmetadata:\n  labels:\n    helm.sh/chart: bulkhead-0.1.0\n    \
                        app.kubernetes.io/name: bulkhead\n    app.kubernetes.io/managed-by: Helm\n";
        let text = plain("minimal", rendered);
        assert!(
            text.ends_with("---\nmetadata:\n  labels:\n    app.kubernetes.io/name: bulkhead\n"),
            "{text}"
        );
        assert!(text.contains("variations/minimal.yaml"));
        assert!(!text.contains("Helm"), "{text}");
    }

    #[test]
    fn a_plain_manifest_says_what_it_needs_and_begins_with_attachments() {
        let rendered =
            "---\nkind: Deployment\n---\nkind: ServiceMonitor\n---\nkind: NetworkAttachmentDefinition\n";
        let text = plain("minimal", rendered);
        assert!(
            text.ends_with(
                "---\nkind: NetworkAttachmentDefinition\n---\nkind: Deployment\n---\nkind: ServiceMonitor\n"
            ),
            "{text}"
        );
        assert!(
            text.contains("those of Multus and of the Prometheus operator.\n"),
            "{text}"
        );
        assert!(!text.contains("crds/"), "{text}");
    }
}
