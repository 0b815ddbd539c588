//! Watches that the server has forgotten: 410 Gone, a new list, and nothing lost.
//!
//! The expiry is the real one. The firewall is cut off by a [`Relay`] while objects come, change and go; then the API server
//! is restarted, so that it has no events in memory, over a store whose history is compacted.

use std::sync::Arc;

use anyhow::Result;
use bulkhead_kube::Place;
use serde_json::json;

use crate::common::{Recorder, Server, USER, document, eventually, server, start};
use crate::pods::{create, expect, namespace, network_status, path, selection};
use crate::relay::Relay;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MAP: &str = "/api/v1/namespaces/default/configmaps/edge";
const PODS: &str = "/api/v1/pods";

/// How often [`USER`] has listed a resource.
fn lists(env: &Server, resource: &str) -> Result<usize> {
    let asked = env.asked(USER)?;
    let lists = asked.iter().filter(|asked| asked.verb == "list");
    Ok(lists.filter(|asked| asked.resource == resource).count())
}

#[test]
fn kube_a_watch_that_expired_is_a_new_list_and_nothing_is_lost() -> Result<()> {
    let mut env = server()?;
    let admin = env.client("admin")?;
    namespace(&admin, "shop", "x")?;
    for number in 7..10 {
        let address = format!("192.0.2.{number}");
        create(
            &admin,
            "shop",
            &format!("pay-{number}"),
            "pay",
            Some(&network_status(&[&address])),
        )?;
    }
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "edge" },
        "data": { "firewall.yaml": document("one") },
    });
    admin.post(MAPS, &map)?.expect(201)?;
    let relay = Relay::start(&env.url())?;
    let config = env.directory().join("kubeconfig-relayed");
    let direct = env.kubeconfig(&env.token(USER)?);
    std::fs::write(&config, direct.replace(&env.url(), &relay.url()))?;
    let firewall = Arc::new(Recorder::default());
    firewall.select("pay", selection("app=pay", Some("team=x")));
    let place = Place::config_map("default/edge").map_err(anyhow::Error::msg)?;
    let kubernetes = start(config, Some(place), "fw-0", &firewall)?;
    firewall.wait(1)?;
    let before = expect(&firewall, "pay", &["192.0.2.7", "192.0.2.8", "192.0.2.9"], 0)?;

    // Cut off, it misses one of each: gone, relabelled, new, and another document.
    let seen = admin.get(PODS)?.expect(200)?["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    relay.close();
    eventually("the loss is noticed", || {
        Ok(firewall.found("pay").and_then(|found| found.unknown))
    })?;
    admin
        .delete(&format!("{}?gracePeriodSeconds=0", path("shop", "pay-8")))?
        .expect(200)?;
    let old = json!({ "metadata": { "labels": { "app": "old" } } });
    admin.merge(&path("shop", "pay-9"), &old)?.expect(200)?;
    create(
        &admin,
        "shop",
        "pay-10",
        "pay",
        Some(&network_status(&["192.0.2.10"])),
    )?;
    let change = json!({ "data": { "firewall.yaml": document("two") } });
    admin.merge(MAP, &change)?.expect(200)?;
    env.stop_apiserver();
    env.compact()?;
    env.start_apiserver()?;
    let told = admin.watch(PODS, &seen, 5)?.next();
    let told = told.ok_or_else(|| anyhow::anyhow!("the watch says nothing"))??;
    assert_eq!(
        (&told["type"], &told["object"]["code"]),
        (&json!("ERROR"), &json!(410)),
        "what was seen is forgotten: {told}"
    );
    let resources = ["pods", "namespaces", "configmaps"];
    let listed = resources.map(|resource| lists(&env, resource));
    assert_eq!(
        firewall.commits().len(),
        1,
        "what is in force stays in force meanwhile"
    );
    expect(&firewall, "pay", &["192.0.2.7", "192.0.2.8", "192.0.2.9"], 0)?;

    relay.open();
    let after = expect(&firewall, "pay", &["192.0.2.7", "192.0.2.10"], 0)?;
    assert_eq!(firewall.wait(2)?.0.text, document("two").into_bytes());
    for (resource, listed) in resources.into_iter().zip(listed) {
        let listed = listed?;
        eventually(&format!("{resource} are listed again"), || {
            Ok((lists(&env, resource)? > listed).then_some(()))
        })?;
    }
    // No step in between: neither an empty group nor one that is half of the list.
    let found = firewall.found("pay").unwrap_or_default();
    // Whether they are sure changes with the watches, which come back one after the other.
    let whole = [&before.addresses, &after.addresses];
    assert!(
        found.history.iter().all(|step| whole.contains(&&step.addresses)),
        "{:#?}",
        found.history
    );
    // And it is a watch again, not a list over and over.
    create(
        &admin,
        "shop",
        "pay-11",
        "pay",
        Some(&network_status(&["192.0.2.11"])),
    )?;
    let listed = lists(&env, "pods")?;
    expect(&firewall, "pay", &["192.0.2.7", "192.0.2.10", "192.0.2.11"], 0)?;
    assert_eq!(lists(&env, "pods")?, listed);
    assert!(kubernetes.stop(), "the thread ended well");
    Ok(())
}
