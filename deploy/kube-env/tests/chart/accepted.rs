//! What the API server says to every object.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, ensure};
use bulkhead_kube_env::{
    KubeEnv,
    chart::{self, NAMESPACE},
};
use serde_json::{Value, json};

use crate::common::{define, kept, objects, path_of, pruned, root};

/// What the test below stands on: a field that is not kept is found, however deep; another way to write a number is not.
#[test]
fn a_field_that_is_dropped_is_found() {
    let sent = json!({"spec": {"ports": [{"name": "a", "prot": "TCP"}], "value": "100000", "list": [], "off": false}});
    let kept = json!({"spec": {"ports": [{"name": "a", "protocol": "TCP"}], "value": "100k", "more": 1}});
    assert_eq!(
        pruned(&sent, &kept),
        [r#".spec.ports[0].prot: "TCP" became null"#]
    );
    let fewer = json!({"spec": {"ports": [], "value": "100000"}});
    assert_eq!(pruned(&sent, &fewer).len(), 1);
}

/// Every object of every variation, rendered for this server and as it is kept in golden files and plain manifests, judged by the API
/// server against its own schemas; and nothing of it is dropped in silence.
#[test]
fn kube_chart_objects_are_accepted_by_the_api_server_and_their_documents_by_bulkhead() -> Result<()> {
    let root = root();
    let env = KubeEnv::start()?;
    let admin = env.client("admin")?;
    define(&env)?;
    for namespace in [NAMESPACE, "shop", "payments", "ingress-nginx"] {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        admin.post("/api/v1/namespaces", &object)?.expect(201)?;
    }
    let kubeconfig = env.kubeconfig_file("admin")?;
    let kubeconfig = kubeconfig.to_string_lossy();
    let mut texts = Vec::new();
    for sample in ["ingress-controllers.yaml", "segment-web.yaml"] {
        let text = fs::read_to_string(root.join("deploy/helm/samples").join(sample))?;
        texts.push((sample.to_owned(), text));
    }
    for variation in chart::variations(&root)? {
        // For the API groups of this very server.
        let more = ["--validate", "--kubeconfig", &kubeconfig];
        let text = chart::template(env.parts(), &root, &variation.values, &more)
            .with_context(|| format!("{} is refused", variation.name))?;
        texts.push((variation.name, text));
    }
    texts.extend(kept(&root)?);
    let (mut judged, mut documents) = (0, 0);
    let mut newer = BTreeSet::new();
    for (from, text) in texts {
        for object in objects(env.parts(), &text)? {
            let version = object["apiVersion"].as_str().unwrap_or_default();
            // What golden files have and this server does not: `schemas.rs` judges it.
            if ["autoscaling/v2", "policy/v1"].contains(&version) {
                newer.insert(version.to_owned());
                continue;
            }
            let name = format!("{from}: {} {}", object["kind"], object["metadata"]["name"]);
            let path = format!("{}?dryRun=All&force=true", path_of(&object)?);
            let answer = admin.apply(&path, "chart", &object)?;
            ensure!(matches!(answer.status, 200 | 201), "{name}: {:#}", answer.body);
            let dropped = pruned(&object, &answer.body);
            ensure!(
                dropped.is_empty(),
                "{name}: the API server does not know {dropped:?}"
            );
            judged += 1;
            // What an attachment says is text to the API server, and JSON to Multus.
            if let Some(config) = object["spec"]["config"].as_str() {
                let config: Value = serde_json::from_str(config).with_context(|| name.clone())?;
                ensure!(config["cniVersion"].is_string(), "{name}: {config}");
            }
            documents += read_document(&object).with_context(|| name)?;
        }
    }
    println!("{judged} objects judged, {documents} documents read");
    assert_eq!(newer.len(), 2, "{newer:?}: judged by this server, or by nobody");
    assert!(
        judged > 140 && documents >= 16,
        "{judged} objects, {documents} documents"
    );
    Ok(())
}

/// How many documents of Bulkhead are in the object; all must be accepted.
fn read_document(object: &Value) -> Result<usize> {
    let document = match object["kind"].as_str() {
        Some("Firewall") => json!({
            "apiVersion": object["apiVersion"], "kind": "Firewall",
            "metadata": {"name": object["metadata"]["name"]}, "spec": object["spec"],
        })
        .to_string(),
        Some("ConfigMap") => match object["data"]["firewall.yaml"].as_str() {
            Some(document) => document.to_owned(),
            None => return Ok(0),
        },
        _ => return Ok(0),
    };
    match bulkhead_config::parse("firewall.yaml", &document) {
        Ok(_) => Ok(1),
        Err(faults) => anyhow::bail!("bulkhead refuses the document: {faults}"),
    }
}
