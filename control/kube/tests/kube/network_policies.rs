//! MultiNetworkPolicies of a real API server, compiled and handed over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bulkhead_config::Member;
use bulkhead_kube::mnp::{Isolation, POLICY_FOR, Snapshot};
use bulkhead_kube::{NETWORK_STATUS, NotIsolated};
use bulkhead_kube_env::{Client, multi_network_policies};
use serde_json::{Value, json};

use crate::common::{Recorder, USER, eventually, server, start_with};

const POLICIES: &str = "/apis/k8s.cni.cncf.io/v1beta1/namespaces/default/multi-networkpolicies";

fn policy(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "k8s.cni.cncf.io/v1beta1", "kind": "MultiNetworkPolicy",
        "metadata": { "name": name, "annotations": { POLICY_FOR: "app-net" } },
        "spec": spec,
    })
}

/// Takes what web servers send, and nothing else.
fn database() -> Value {
    policy(
        "db",
        &json!({
            "podSelector": { "matchLabels": { "app": "db" } },
            "policyTypes": ["Ingress"],
            "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "app": "web" } } }] }],
        }),
    )
}

fn create(admin: &Client, name: &str, app: &str, address: &str) -> Result<()> {
    let status = json!([{ "name": "default/app-net", "interface": "net1", "ips": [address] }]);
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": app }, "annotations": { NETWORK_STATUS: status.to_string() } },
        "spec": { "containers": [{ "name": "main", "image": "none" }] },
    });
    admin.post("/api/v1/namespaces/default/pods", &pod)?.expect(201)?;
    admin.run_pod("default", name)
}

fn relabel(admin: &Client, name: &str, app: &str) -> Result<()> {
    let labels = json!({ "metadata": { "labels": { "app": app } } });
    admin
        .merge(&format!("/api/v1/namespaces/default/pods/{name}"), &labels)?
        .expect(200)?;
    Ok(())
}

/// The addresses that the permits of an isolation are from, each once and in order.
fn permitted(isolation: &Isolation) -> Vec<String> {
    let mut sources = Vec::new();
    for permit in &isolation.permits {
        if let bulkhead_config::Selector::OneOf(groups) = &permit.source {
            for group in groups {
                for member in &isolation.groups[group.0 as usize].members {
                    if let Member::Host(address) = member {
                        sources.push(address.to_string());
                    }
                }
            }
        }
    }
    sources.sort();
    sources.dedup();
    sources
}

fn last(firewall: &Recorder) -> Option<Isolation> {
    firewall.isolations().pop()
}

#[test]
fn kube_network_policies_follow_their_objects_pods_and_namespaces() -> Result<()> {
    let mut env = server()?;
    let admin = env.client("admin")?;
    create(&admin, "db-0", "db", "192.0.2.2")?;
    create(&admin, "web-0", "web", "192.0.2.1")?;
    let firewall = Arc::new(Recorder::default());
    firewall.refuse(Some(NotIsolated::NotYet));
    let kubernetes = start_with(env.kubeconfig_file(USER)?, None, "fw-0", true, &firewall)?;

    // A cluster that does not know the kind has said nothing, and it says so.
    let why = eventually("the definition is missed", || Ok(firewall.policies_unknown()))?;
    assert!(why.contains("install their definition"), "{why}");
    assert_eq!(firewall.isolations(), []);
    admin.define(&multi_network_policies())?;
    eventually("it is known that there are none", || {
        Ok(firewall.policies_unknown().is_none().then_some(()))
    })?;
    assert_eq!(firewall.isolations(), [], "the firewall is not up yet");
    firewall.refuse(None);
    kubernetes.changed();
    let first = eventually("it is handed over", || Ok(last(&firewall)))?;
    assert_eq!(first, Isolation::default());

    let began = Instant::now();
    admin.post(POLICIES, &database())?.expect(201)?;
    let isolated = eventually("the database is isolated", || {
        Ok(last(&firewall).filter(|last| !last.denials.is_empty()))
    })?;
    println!("a policy handed over within {:?}", began.elapsed());
    assert_eq!(isolated.denials[0].name, "mnp/default/db/ingress/isolation");
    assert_eq!(isolated.permits[0].name, "mnp/default/db/ingress[0]");
    assert_eq!(permitted(&isolated), ["192.0.2.1"]);

    // Replicas are members.
    create(&admin, "web-1", "web", "192.0.2.3")?;
    let more = eventually("the replica may", || {
        Ok(last(&firewall).filter(|last| permitted(last) == ["192.0.2.1", "192.0.2.3"]))
    })?;
    assert!(isolated.differs_in_members_only(&more));
    let began = Instant::now();
    relabel(&admin, "web-0", "batch")?;
    eventually("who has another label may not", || {
        Ok(last(&firewall).filter(|last| permitted(last) == ["192.0.2.3"]))
    })?;
    println!("a pod relabelled and handed over within {:?}", began.elapsed());

    // What is not understood is told where its author looks, and lets nobody through.
    let mut broken = database();
    broken["spec"]["ingress"][0]["form"] = broken["spec"]["ingress"][0]["from"].take();
    let change = json!({ "spec": broken["spec"] });
    admin.merge(&format!("{POLICIES}/db"), &change)?.expect(200)?;
    eventually("nobody may", || {
        Ok(last(&firewall).filter(|last| last.permits.is_empty() && !last.denials.is_empty()))
    })?;
    let note = eventually("an event says so", || {
        let events = admin
            .get("/apis/events.k8s.io/v1/namespaces/default/events")?
            .expect(200)?;
        let events = events["items"].as_array().cloned().unwrap_or_default();
        let about = events.iter().find(|event| {
            event["regarding"]["kind"] == "MultiNetworkPolicy"
                && event["regarding"]["name"] == "db"
                && event["reason"] == "NotUnderstood"
        });
        Ok(about.map(|event| event["note"].to_string()))
    })?;
    assert!(
        note.contains("form") && note.contains("this rule permits nothing"),
        "{note}"
    );

    // What the firewall refuses is named and tried again; what it has is kept for a start without the API.
    firewall.refuse(Some(NotIsolated::Failed("no room".to_owned())));
    let change = json!({ "spec": { "ingress": database()["spec"]["ingress"] } });
    admin.merge(&format!("{POLICIES}/db"), &change)?.expect(200)?;
    let why = eventually("the object is named", || Ok(firewall.policies_refused()))?;
    assert!(
        why.starts_with("no room; new or changed since: default/db"),
        "{why}"
    );
    std::thread::sleep(Duration::from_millis(1_500));
    let count = firewall.isolations().len();
    firewall.refuse(None);
    kubernetes.changed();
    let again = eventually("it is tried again", || {
        Ok((firewall.isolations().len() > count)
            .then(|| last(&firewall))
            .flatten())
    })?;
    assert_eq!(permitted(&again), ["192.0.2.3"]);
    assert_eq!(firewall.policies_refused(), None);
    eventually("it is kept", || {
        let kept = firewall.snapshot().map(|kept| Snapshot::isolation(&kept));
        Ok((kept == Some(Ok(again.clone()))).then_some(()))
    })?;

    // Without the API the last ones stay, and afterwards the next ones come.
    env.stop_apiserver();
    eventually("the loss is noticed", || Ok(firewall.policies_unknown()))?;
    assert_eq!(last(&firewall), Some(again));
    env.start_apiserver()?;
    admin.delete(&format!("{POLICIES}/db"))?.expect(200)?;
    eventually("nobody is isolated", || {
        Ok(last(&firewall).filter(|last| *last == Isolation::default()))
    })?;
    eventually("they are known again", || {
        Ok(firewall.policies_unknown().is_none().then_some(()))
    })?;

    // A kind that is gone is not known at each try, however well the other watches go on.
    admin
        .delete(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/multi-networkpolicies.k8s.cni.cncf.io",
        )?
        .expect(200)?;
    eventually("the definition is missed again", || {
        Ok(firewall
            .policies_unknown()
            .filter(|why| why.contains("install their definition")))
    })?;
    let known = firewall.policies_known();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(firewall.policies_known(), known, "a try is taken for success");
    assert!(kubernetes.stop(), "the thread ended well");
    let kept = firewall.snapshot().expect("it is kept");
    assert_eq!(
        Snapshot::isolation(&kept),
        Ok(Isolation::default()),
        "before it stops"
    );
    Ok(())
}
