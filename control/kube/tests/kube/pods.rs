//! Pods of a real API server as members of address groups.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bulkhead_config::PodSelection;
use bulkhead_kube::{FoundPods, NETWORK_STATUS};
use bulkhead_kube_env::Client;
use serde_json::{Value, json};

use crate::common::{Recorder, USER, eventually, server, start};

const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";

/// Pods by label on one network.
pub fn selection(selector: &str, namespace_selector: Option<&str>) -> PodSelection {
    PodSelection {
        selector: selector.to_owned(),
        namespaces: Vec::new(),
        namespace_selector: namespace_selector.map(str::to_owned),
        network: Some("default/app-net".to_owned()),
    }
}

/// Where the API has a pod.
pub fn path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}")
}

/// What the CNI plug-in writes.
pub fn network_status(addresses: &[&str]) -> String {
    json!([
        { "name": "cbr0", "interface": "eth0", "ips": ["10.244.0.9"], "default": true },
        { "name": "default/app-net", "interface": "net1", "ips": addresses },
    ])
    .to_string()
}

/// A pod; `status`: its addresses, as the CNI plug-in writes them.
pub fn create(admin: &Client, namespace: &str, name: &str, app: &str, status: Option<&str>) -> Result<()> {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": app }, "annotations": { NETWORKS: "default/app-net" } },
        "spec": { "containers": [{ "name": "main", "image": "none" }] },
    });
    if let Some(status) = status {
        pod["metadata"]["annotations"][NETWORK_STATUS] = json!(status);
    }
    admin
        .post(&format!("/api/v1/namespaces/{namespace}/pods"), &pod)?
        .expect(201)?;
    // Before that nothing of what its author has written counts.
    admin.run_pod(namespace, name)
}

/// A namespace with one label.
pub fn namespace(admin: &Client, name: &str, team: &str) -> Result<()> {
    let space = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": { "team": team } } });
    admin.post("/api/v1/namespaces", &space)?.expect(201)?;
    Ok(())
}

/// Waits until a group has these addresses and so many pending pods.
pub fn expect(firewall: &Recorder, group: &str, addresses: &[&str], pending: usize) -> Result<FoundPods> {
    let mut wanted: Vec<std::net::IpAddr> = addresses
        .iter()
        .map(|text| text.parse())
        .collect::<Result<_, _>>()?;
    wanted.sort_unstable();
    let what = format!("{group} has {addresses:?} and {pending} pending");
    eventually(&what, || {
        let found = firewall.found(group).map(|found| found.pods);
        Ok(found.filter(|found| found.addresses == wanted && found.pending == pending))
    })
}

#[test]
fn kube_pods_come_and_go_with_their_labels_and_pending_ones_take_nothing_away() -> Result<()> {
    let mut env = server()?;
    let admin = env.client("admin")?;
    namespace(&admin, "shop", "x")?;
    namespace(&admin, "lab", "y")?;
    create(
        &admin,
        "shop",
        "pay-0",
        "pay",
        Some(&network_status(&["192.0.2.7", "2001:db8::7"])),
    )?;
    create(
        &admin,
        "lab",
        "pay-1",
        "pay",
        Some(&network_status(&["192.0.2.8"])),
    )?;
    create(
        &admin,
        "shop",
        "web-0",
        "web",
        Some(&network_status(&["192.0.2.9"])),
    )?;
    let firewall = Arc::new(Recorder::default());
    firewall.select("pay", selection("app=pay", None));
    firewall.select("shop", selection("app in (pay,web)", Some("team=x")));
    let kubernetes = start(env.kubeconfig_file(USER)?, None, "fw-0", &firewall)?;
    expect(&firewall, "pay", &["192.0.2.7", "2001:db8::7", "192.0.2.8"], 0)?;
    expect(&firewall, "shop", &["192.0.2.7", "2001:db8::7", "192.0.2.9"], 0)?;

    // One that has no address yet is counted, and nobody leaves for it.
    create(&admin, "shop", "pay-2", "pay", None)?;
    expect(&firewall, "pay", &["192.0.2.7", "2001:db8::7", "192.0.2.8"], 1)?;
    let annotated =
        json!({ "metadata": { "annotations": { NETWORK_STATUS: network_status(&["192.0.2.10"]) } } });
    admin.merge(&path("shop", "pay-2"), &annotated)?.expect(200)?;
    expect(
        &firewall,
        "pay",
        &["192.0.2.7", "2001:db8::7", "192.0.2.8", "192.0.2.10"],
        0,
    )?;
    let broken = json!({ "metadata": { "annotations": { NETWORK_STATUS: "{" } } });
    admin.merge(&path("shop", "pay-2"), &broken)?.expect(200)?;
    std::thread::sleep(Duration::from_millis(500));
    expect(
        &firewall,
        "pay",
        &["192.0.2.7", "2001:db8::7", "192.0.2.8", "192.0.2.10"],
        0,
    )?;

    // Relabelled, ended, deleted: out at once.
    let began = Instant::now();
    admin
        .merge(
            &path("shop", "pay-0"),
            &json!({ "metadata": { "labels": { "app": "old" } } }),
        )?
        .expect(200)?;
    expect(&firewall, "pay", &["192.0.2.8", "192.0.2.10"], 0)?;
    println!("relabelled and out within {:?}", began.elapsed());
    admin
        .merge(
            &format!("{}/status", path("lab", "pay-1")),
            &json!({ "status": { "phase": "Succeeded" } }),
        )?
        .expect(200)?;
    expect(&firewall, "pay", &["192.0.2.10"], 0)?;
    admin
        .merge(
            "/api/v1/namespaces/shop",
            &json!({ "metadata": { "labels": { "team": "z" } } }),
        )?
        .expect(200)?;
    expect(&firewall, "shop", &[], 0)?;

    // While the API is away the last ones stay, and are said to be old.
    env.stop_apiserver();
    eventually("the loss is noticed", || {
        Ok(firewall.found("pay").and_then(|found| found.unknown))
    })?;
    expect(&firewall, "pay", &["192.0.2.10"], 0)?;
    env.start_apiserver()?;
    admin
        .merge(
            &path("shop", "pay-0"),
            &json!({ "metadata": { "labels": { "app": "pay" } } }),
        )?
        .expect(200)?;
    expect(&firewall, "pay", &["192.0.2.7", "2001:db8::7", "192.0.2.10"], 0)?;
    assert!(firewall.found("pay").is_some_and(|found| found.unknown.is_none()));
    assert!(kubernetes.stop(), "the thread ended well");
    Ok(())
}

#[test]
fn kube_a_thousand_pods_are_a_few_steps() -> Result<()> {
    const PODS: usize = 1_000;
    let env = server()?;
    let admin = env.client("admin")?;
    for number in 0..PODS {
        let address = format!("192.0.{}.{}", number / 250, number % 250 + 1);
        create(
            &admin,
            "default",
            &format!("web-{number}"),
            "web",
            Some(&network_status(&[&address])),
        )?;
    }
    let firewall = Arc::new(Recorder::default());
    firewall.select("web", selection("app=web", None));
    let began = Instant::now();
    let kubernetes = start(env.kubeconfig_file(USER)?, None, "fw-0", &firewall)?;
    let whole = eventually("all pods are known", || {
        Ok(firewall.found("web").filter(|found| found.pods.pods == PODS))
    })?;
    println!("{PODS} pods known after {:?}", began.elapsed());
    assert_eq!(whole.times, 1, "nothing is said before the list is whole");
    let mut took = Vec::new();
    for number in 0..9 {
        let began = Instant::now();
        let labels: Value = json!({ "metadata": { "labels": { "app": "old" } } });
        admin
            .merge(&path("default", &format!("web-{number}")), &labels)?
            .expect(200)?;
        eventually("it is out", || {
            Ok(firewall
                .found("web")
                .filter(|found| found.pods.pods == PODS - number - 1))
        })?;
        took.push(began.elapsed());
    }
    took.sort();
    println!("one of them out: median {:?}, worst {:?}", took[4], took[8]);
    assert!(took[4] < Duration::from_millis(250), "{took:?}");
    assert!(kubernetes.stop(), "the thread ended well");
    Ok(())
}

#[test]
fn kube_members_from_before_are_said_to_be_old_until_the_api_is_found() -> Result<()> {
    let env = server()?;
    let admin = env.client("admin")?;
    create(
        &admin,
        "default",
        "pay-0",
        "pay",
        Some(&network_status(&["192.0.2.7"])),
    )?;
    let directory = tempfile::tempdir()?;
    let config = directory.path().join("kubeconfig");
    let firewall = Arc::new(Recorder::default());
    firewall.select("pay", selection("app=pay", None));
    let kubernetes = start(config.clone(), None, "fw-0", &firewall)?;
    let why = eventually("the loss is told", || {
        Ok(firewall.found("pay").and_then(|found| found.unknown))
    })?;
    assert!(why.contains("kubeconfig"), "{why}");
    std::fs::copy(env.kubeconfig_file(USER)?, &config)?;
    expect(&firewall, "pay", &["192.0.2.7"], 0)?;
    assert!(kubernetes.stop(), "the thread ended well");
    Ok(())
}
