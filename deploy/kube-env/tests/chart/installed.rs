//! The chart in a cluster, as far as there is one without nodes.

use std::process::Command;

use anyhow::{Context as _, Result};
use bulkhead_kube_env::{
    KubeEnv,
    chart::{self, NAMESPACE, RELEASE, Variation},
};
use serde_json::json;

use crate::common::{define, root};

/// Installed, changed and taken off by helm; and what the firewall's account may do in between.
#[test]
fn kube_chart_installs_upgrades_and_uninstalls_with_the_rights_it_needs_and_no_more() -> Result<()> {
    let root = root();
    let env = KubeEnv::start()?;
    let admin = env.client("admin")?;
    define(&env)?;
    let kubeconfig = env.kubeconfig_file("admin")?;
    let values = |name: &str| Variation {
        name: name.to_owned(),
        values: root.join(format!("deploy/helm/variations/{name}.yaml")),
    };
    let helm = |arguments: &[&str]| {
        let mut helm = Command::new(&env.parts().helm);
        helm.args(arguments)
            .args(["--namespace", NAMESPACE, "--kubeconfig"])
            .arg(&kubeconfig)
            // Its own files, beside the environment's.
            .env("HOME", env.directory());
        chart::output(&mut helm)
    };
    let chart_path = chart::chart(&root);
    let chart_path = chart_path.to_string_lossy();
    let upgrade = |variation: &Variation, more: &[&str]| {
        let values = variation.values.to_string_lossy();
        let start = [
            "upgrade",
            "--install",
            RELEASE,
            &chart_path,
            "--create-namespace",
            "--values",
            &values,
        ];
        helm(&[&start, more].concat())
    };

    let notes = upgrade(&values("ingress-protection"), &[])?;
    assert!(
        notes.contains("guards 2 networks in the mode ingress: net1, net2"),
        "{notes}"
    );
    assert!(
        notes.contains("the metrics bulkhead_sessions and bulkhead_interface_received_bytes_per_second,"),
        "{notes}"
    );
    let deployment = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/edge-bulkhead");
    let made = admin.get(&deployment)?.expect(200)?;
    let pod = &made["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(
        container["args"],
        json!(["run", "--config-map=bulkhead/edge-bulkhead/firewall.yaml"])
    );
    let security = &container["securityContext"];
    assert_eq!(security["privileged"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(
        security["capabilities"]["add"],
        json!(["BPF", "NET_ADMIN", "NET_RAW", "PERFMON"])
    );

    let firewall = env.client_with_token(&env.service_account_token(NAMESPACE, "edge-bulkhead")?)?;
    let maps = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let own = format!("{maps}/edge-bulkhead");
    // Not by its path: it is found and followed by its name alone.
    firewall
        .get(&format!("{maps}?fieldSelector=metadata.name%3Dedge-bulkhead"))?
        .expect(200)?;
    let status = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "edge-bulkhead", "annotations": {"bulkhead.dev/status": "{}"}},
    });
    firewall.apply(&own, "edge-0", &status)?.expect(200)?;
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "edge.1"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal", "reason": "Applied", "action": "Commit",
        "reportingController": "bulkhead.dev/firewall", "reportingInstance": "edge-0",
        "regarding": {"kind": "ConfigMap", "namespace": NAMESPACE, "name": "edge-bulkhead", "apiVersion": "v1"},
    });
    let events = format!("/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events");
    firewall.post(&events, &event)?.expect(201)?;
    for beyond in [
        maps.as_str(),
        &own,
        &format!("{maps}/edge-bulkhead-dashboard"),
        &format!("/api/v1/namespaces/{NAMESPACE}/secrets"),
        &format!("/api/v1/namespaces/{NAMESPACE}/pods"),
        "/api/v1/pods",
        "/api/v1/namespaces",
        "/api/v1/nodes",
        &events,
    ] {
        firewall
            .get(beyond)?
            .expect(403)
            .with_context(|| format!("may read {beyond}"))?;
    }
    firewall
        .delete(&own)?
        .expect(403)
        .context("may delete its configuration")?;

    let less = "launch.size=xlarge,autoscaling.throughputBytesPerSecond=0";
    let notes = upgrade(&values("ingress-protection"), &["--set", less])?;
    assert!(notes.contains("the metric bulkhead_sessions, which"), "{notes}");
    let changed = admin.get(&deployment)?.expect(200)?.to_string();
    assert!(changed.contains("xlarge"), "{changed}");
    helm(&["uninstall", RELEASE])?;
    assert_eq!(admin.get(&deployment)?.status, 404);

    // The other end of the rights: everything that groups of pods need, of the whole cluster, and still nothing else. And a
    // configuration that is only mounted is followed nowhere.
    upgrade(&values("existing-configuration"), &[])?;
    let firewall = env.client_with_token(&env.service_account_token(NAMESPACE, "tenants")?)?;
    for path in ["/api/v1/pods", "/api/v1/namespaces"] {
        firewall.get(path)?.expect(200).with_context(|| path.to_owned())?;
    }
    for path in [
        "/api/v1/secrets",
        "/api/v1/nodes",
        "/api/v1/configmaps",
        "/apis/apps/v1/deployments",
    ] {
        firewall
            .get(path)?
            .expect(403)
            .with_context(|| format!("may read {path}"))?;
    }
    helm(&["uninstall", RELEASE])?;
    // And what teams' own policies take, in force with the setting that asks for it.
    upgrade(&values("multi-network-policies"), &[])?;
    let setting = json!({ "name": "BULKHEAD_NETWORK_POLICIES", "value": "on" });
    let made = admin.get(&deployment)?.expect(200)?;
    let variables = &made["spec"]["template"]["spec"]["containers"][0]["env"];
    assert!(
        variables.as_array().is_some_and(|all| all.contains(&setting)),
        "{variables}"
    );
    let firewall = env.client_with_token(&env.service_account_token(NAMESPACE, "edge-bulkhead")?)?;
    let policies = "/apis/k8s.cni.cncf.io/v1beta1/multi-networkpolicies";
    for path in ["/api/v1/pods", "/api/v1/namespaces", policies] {
        firewall.get(path)?.expect(200).with_context(|| path.to_owned())?;
    }
    let elsewhere = "/apis/events.k8s.io/v1/namespaces/default/events";
    let mut event = event;
    event["regarding"]["namespace"] = json!("default");
    firewall.post(elsewhere, &event)?.expect(201)?;
    for path in ["/api/v1/secrets", "/api/v1/configmaps", elsewhere] {
        firewall
            .get(path)?
            .expect(403)
            .with_context(|| format!("may read {path}"))?;
    }
    helm(&["uninstall", RELEASE])?;
    upgrade(&values("minimal"), &[])?;
    let firewall = env.client_with_token(&env.service_account_token(NAMESPACE, "edge-bulkhead")?)?;
    // A mounted configuration may be read by its name, for its status, and is not found or followed.
    firewall.get(&own)?.expect(200)?;
    firewall.apply(&own, "edge-0", &status)?.expect(200)?;
    firewall.get(&maps)?.expect(403)?;
    let mut another = event;
    another["metadata"]["name"] = json!("edge.2");
    firewall.post(&events, &another)?.expect(201)?;
    upgrade(&values("minimal"), &["--set", "rbac.events=false"])?;
    another["metadata"]["name"] = json!("edge.3");
    firewall.post(&events, &another)?.expect(403)?;
    upgrade(&values("minimal"), &["--set", "rbac.status=false"])?;
    firewall.get(&own)?.expect(403)?;
    Ok(())
}
