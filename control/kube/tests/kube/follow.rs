//! Objects of a real API server as the configuration: committed, refused, reported.

use std::time::{Duration, Instant};

use crate::common::{USER, columns, define, document, eventually, follow, kubectl, server, spec};
use crate::relay::Relay;
use anyhow::{Context as _, Result};
use bulkhead_kube::{ANNOTATION, Place};
use bulkhead_kube_env::Client;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const MAP: &str = "/api/v1/namespaces/default/configmaps/edge";
const FIREWALLS: &str = "/apis/bulkhead.dev/v1alpha1/namespaces/default/firewalls";
const FIREWALL: &str = "/apis/bulkhead.dev/v1alpha1/namespaces/default/firewalls/edge";

fn config_map(text: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "edge" }, "data": { "firewall.yaml": text } })
}

fn change(admin: &Client, text: &str) -> Result<()> {
    admin
        .merge(MAP, &json!({ "data": { "firewall.yaml": text } }))?
        .expect(200)?;
    Ok(())
}

/// What an instance says on the ConfigMap.
fn annotation(admin: &Client, instance: &str) -> Result<Option<Value>> {
    let map = admin.get(MAP)?.expect(200)?;
    let text = map["metadata"]["annotations"][format!("{ANNOTATION}{instance}")].as_str();
    Ok(text.map(serde_json::from_str).transpose()?)
}

/// The status and the reason of a condition.
fn condition(status: &Value, kind: &str) -> Option<(String, String, String)> {
    let conditions = status["conditions"].as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

/// Whether a line says this, however its words are aligned.
fn has_line(text: &str, words: &str) -> bool {
    text.lines()
        .any(|line| line.split_whitespace().eq(words.split_whitespace()))
}

fn is(status: &Value, kind: &str, holds: &str, reason: &str) -> bool {
    condition(status, kind).is_some_and(|(status, why, _)| status == holds && why == reason)
}

#[test]
fn kube_a_config_map_is_committed_and_a_bad_one_refused_with_a_status_and_an_event() -> Result<()> {
    let env = server()?;
    let admin = env.client("admin")?;
    admin.post(MAPS, &config_map(&document("one")))?.expect(201)?;
    let place = Place::config_map("default/edge").map_err(anyhow::Error::msg)?;
    let (kubernetes, firewall) = follow(env.kubeconfig_file(USER)?, place, "fw-0")?;
    let (first, _) = firewall.wait(1)?;
    assert_eq!(first.name, "configmap default/edge/firewall.yaml");
    assert_eq!(first.text, document("one").into_bytes());
    let status = eventually("the status says that it is in force", || {
        Ok(annotation(&admin, "fw-0")?.filter(|status| is(status, "Applied", "True", "Committed")))
    })?;
    assert_eq!(
        (&status["hash"], &status["revision"]),
        (&json!(first.hash), &json!(1))
    );
    assert!(is(&status, "Ready", "True", "Enforcing") && is(&status, "Degraded", "False", "AsConfigured"));

    // A change, and how long it takes to arrive.
    let mut took = Vec::new();
    for number in 2..7 {
        let began = Instant::now();
        change(&admin, &document(&format!("zone{number}")))?;
        took.push(firewall.wait(number)?.1.duration_since(began));
    }
    took.sort();
    println!(
        "from the change to the commit: median {:?}, worst {:?}",
        took[2], took[4]
    );
    assert!(took[2] < Duration::from_millis(100), "{took:?}");

    // A wrong one changes nothing, and everybody can see why.
    change(&admin, &document("zone6").replace("zone: zone6", "zone: zone7"))?;
    let refused = eventually("the status says that it is refused", || {
        Ok(annotation(&admin, "fw-0")?.filter(|status| is(status, "Applied", "False", "Invalid")))
    })?;
    let message = condition(&refused, "Applied")
        .map(|(_, _, message)| message)
        .unwrap_or_default();
    assert!(
        message.starts_with("configmap default/edge/firewall.yaml:6:") && message.contains("\"zone7\""),
        "{message}"
    );
    assert!(is(&refused, "Ready", "True", "Enforcing") && is(&refused, "Degraded", "True", "Invalid"));
    assert_eq!(firewall.commits().len(), 6);
    let warning = eventually("there is an event", || {
        let events = admin.get("/api/v1/namespaces/default/events")?.expect(200)?;
        let events = events["items"].as_array().cloned().unwrap_or_default();
        Ok(events.into_iter().find(|event| event["reason"] == "Invalid"))
    })?;
    assert_eq!(
        (
            &warning["type"],
            &warning["involvedObject"]["kind"],
            &warning["involvedObject"]["name"]
        ),
        (&json!("Warning"), &json!("ConfigMap"), &json!("edge"))
    );

    // The same wrong document is judged once, and its own status is no change.
    let refusals = firewall.refusals();
    std::thread::sleep(Duration::from_secs(6));
    let version = admin.get(MAP)?.expect(200)?["metadata"]["resourceVersion"].clone();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(
        admin.get(MAP)?.expect(200)?["metadata"]["resourceVersion"],
        version,
        "it writes although nothing changes"
    );
    assert_eq!(firewall.refusals(), refusals);

    change(&admin, &document("mended"))?;
    firewall.wait(7)?;
    assert!(kubernetes.stop(), "the thread ended well");
    assert_eq!(
        annotation(&admin, "fw-0")?,
        None,
        "who stops takes its status along"
    );
    Ok(())
}

#[test]
fn kube_two_instances_follow_a_firewall_and_do_not_fight() -> Result<()> {
    let env = server()?;
    let admin = env.client("admin")?;
    define(&admin)?;
    let firewall = json!({
        "apiVersion": "bulkhead.dev/v1alpha1", "kind": "Firewall", "metadata": { "name": "edge" }, "spec": spec("one"),
    });
    admin.post(FIREWALLS, &firewall)?.expect(201)?;
    let place = Place::firewall("default/edge").map_err(anyhow::Error::msg)?;
    let (one, first) = follow(env.kubeconfig_file(USER)?, place.clone(), "fw-0")?;
    let (other, second) = follow(env.kubeconfig_file(USER)?, place, "fw-1")?;
    let hash = first.wait(1)?.0.hash;
    assert_eq!(second.wait(1)?.0.hash, hash);
    let status = |wanted: &dyn Fn(&Value) -> bool| {
        let mut last = Value::Null;
        let found = eventually("the status is as wanted", || {
            last = admin.get(FIREWALL)?.expect(200)?["status"].clone();
            Ok(wanted(&last).then(|| last.clone()))
        });
        found.with_context(|| format!("{last:#}"))
    };
    let both = status(&|status| status["applied"] == "2/2" && is(status, "Ready", "True", "Enforcing"))?;
    assert_eq!(
        (&both["hash"], &both["observedGeneration"]),
        (&json!(hash), &json!(1))
    );
    assert_eq!(both["instances"].as_array().map(Vec::len), Some(2));
    // As whoever looks sees it.
    let shown = kubectl(&env, &["get", "firewalls"])?;
    let in_force = [
        ("NAME", "edge"),
        ("READY", "True"),
        ("APPLIED", "2/2"),
        ("DEGRADED", "False"),
        ("REASON", "AsConfigured"),
    ];
    assert_eq!(columns(&shown)?, in_force);
    eventually("what happened is told, too", || {
        let described = kubectl(&env, &["describe", "firewall", "edge"])?;
        let told = ["fw-0: revision 1 is in force", "fw-1: revision 1 is in force"];
        let shown = has_line(&described, "Applied: 2/2") && has_line(&described, &format!("Hash: {hash}"));
        Ok((shown && told.iter().all(|told| described.contains(told))).then_some(()))
    })?;

    // Nobody writes where nothing changes.
    std::thread::sleep(Duration::from_secs(6));
    let version = admin.get(FIREWALL)?.expect(200)?["metadata"]["resourceVersion"].clone();
    std::thread::sleep(Duration::from_secs(6));
    assert_eq!(
        admin.get(FIREWALL)?.expect(200)?["metadata"]["resourceVersion"],
        version,
        "somebody writes all the time"
    );

    // A field that does not exist is not lost on the way: the firewall refuses it.
    admin
        .merge(FIREWALL, &json!({ "spec": { "polices": [] } }))?
        .expect(200)?;
    let refused = status(&|status| status["applied"] == "0/2" && status["observedGeneration"] == 2)?;
    let message = condition(&refused, "Degraded")
        .map(|(_, _, message)| message)
        .unwrap_or_default();
    assert!(message.contains("polices"), "{refused}");
    assert_eq!(refused["hash"], json!(hash), "the last one stays in force");
    let shown = kubectl(&env, &["get", "fw", "edge"])?;
    let not_in_force = [
        ("NAME", "edge"),
        ("READY", "True"),
        ("APPLIED", "0/2"),
        ("DEGRADED", "True"),
        ("REASON", "Invalid"),
    ];
    assert_eq!(columns(&shown)?, not_in_force);
    // What the API server judges itself does not get that far.
    admin
        .merge(FIREWALL, &json!({ "spec": { "forwarding": "sideways" } }))?
        .expect(422)?;

    admin
        .merge(
            FIREWALL,
            &json!({ "spec": { "polices": null, "zones": [{ "name": "one" }, { "name": "two" }] } }),
        )?
        .expect(200)?;
    let mended = status(&|status| status["applied"] == "2/2" && status["observedGeneration"] == 3)?;
    assert!(is(&mended, "Degraded", "False", "AsConfigured"));
    assert_ne!(mended["hash"], json!(hash));

    assert!(one.stop(), "the thread ended well");
    let alone = status(&|status| status["applied"] == "1/1")?;
    assert_eq!(alone["instances"].as_array().map(Vec::len), Some(1));
    assert_eq!(alone["instances"][0]["name"], "fw-1");
    assert!(other.stop(), "the thread ended well");
    let nobody = status(&|status| status["applied"] == "0/0")?;
    assert!(is(&nobody, "Ready", "False", "NoInstance"), "{nobody:#}");
    assert_eq!(nobody["instances"], json!([]));
    Ok(())
}

#[test]
fn kube_the_api_server_goes_and_comes_back() -> Result<()> {
    let mut env = server()?;
    let admin = env.client("admin")?;
    admin.post(MAPS, &config_map(&document("one")))?.expect(201)?;
    let config = env.kubeconfig_file(USER)?;
    let place = || Place::config_map("default/edge").map_err(anyhow::Error::msg);
    let (kept, firewall) = follow(config.clone(), place()?, "fw-0")?;
    firewall.wait(1)?;
    env.stop_apiserver();
    // One that starts meanwhile waits for it.
    let (late, started) = follow(config, place()?, "fw-1")?;
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((firewall.commits().len(), started.commits().len()), (1, 0));
    env.start_apiserver()?;
    let began = Instant::now();
    change(&admin, &document("two"))?;
    assert_eq!(firewall.wait(2)?.0.text, document("two").into_bytes());
    eventually("the late one has it too", || {
        let last = started.commits().pop();
        Ok(last.filter(|(last, _)| last.text == document("two").into_bytes()))
    })?;
    println!("back after {:?}", began.elapsed());
    // What the watch had seen last is forgotten by the server.
    env.stop_apiserver();
    env.start_apiserver()?;
    env.compact()?;
    change(&admin, &document("three"))?;
    eventually("the change arrives over a new list", || {
        let last = firewall.commits().pop();
        Ok(last.filter(|(last, _)| last.text == document("three").into_bytes()))
    })?;
    assert!(kept.stop() && late.stop(), "the threads ended well");
    Ok(())
}

/// What somebody has applied from a backup, or has thought up: no name is too odd to be read, and none stays for ever.
#[test]
fn kube_entries_of_the_dead_go_whosever_they_are() -> Result<()> {
    let env = server()?;
    let admin = env.client("admin")?;
    define(&admin)?;
    let firewall = json!({
        "apiVersion": "bulkhead.dev/v1alpha1", "kind": "Firewall", "metadata": { "name": "edge" }, "spec": spec("one"),
    });
    admin.post(FIREWALLS, &firewall)?.expect(201)?;
    let odd = format!("a{}", "ä".repeat(60));
    let dead = json!({ "status": { "instances": [{ "name": odd }, { "name": "gone", "renewed": "2026-01-01T00:00:00Z" }] } });
    admin.merge(&format!("{FIREWALL}/status"), &dead)?.expect(200)?;
    let place = Place::firewall("default/edge").map_err(anyhow::Error::msg)?;
    let (kubernetes, recorder) = follow(env.kubeconfig_file(USER)?, place, "fw-0")?;
    recorder.wait(1)?;
    let names = eventually("nobody is left but the living", || {
        let status = admin.get(FIREWALL)?.expect(200)?["status"].clone();
        let names: Vec<String> = status["instances"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|entry| entry["name"].as_str().map(str::to_owned))
            .collect();
        Ok((names.len() == 1).then_some(names))
    })?;
    assert_eq!(names, ["fw-0"]);
    assert!(kubernetes.stop(), "the thread ended well");
    Ok(())
}

/// Cut off and let in again while nothing changes: the status is written again, though no object says that the API is back.
#[test]
fn kube_a_status_is_written_again_after_a_cut_in_which_nothing_changed() -> Result<()> {
    let env = server()?;
    let admin = env.client("admin")?;
    admin.post(MAPS, &config_map(&document("one")))?.expect(201)?;
    let relay = Relay::start(&env.url())?;
    let config = env.directory().join("kubeconfig-relayed");
    std::fs::write(
        &config,
        env.kubeconfig(&env.token(USER)?)
            .replace(&env.url(), &relay.url()),
    )?;
    let place = Place::config_map("default/edge").map_err(anyhow::Error::msg)?;
    let (kubernetes, recorder) = follow(config, place, "fw-0")?;
    recorder.wait(1)?;
    eventually("the status says that it is in force", || {
        Ok(annotation(&admin, "fw-0")?.filter(|status| is(status, "Applied", "True", "Committed")))
    })?;
    relay.close();
    // Long enough for a failure to be noticed.
    std::thread::sleep(Duration::from_secs(2));
    // The firewall itself has something to say: that counts only if it can say it.
    recorder.impair(Some("interface net1 has no program"));
    kubernetes.changed();
    std::thread::sleep(Duration::from_secs(1));
    relay.open();
    eventually("the status tells of it", || {
        Ok(annotation(&admin, "fw-0")?.filter(|status| is(status, "Ready", "False", "Impaired")))
    })?;
    assert!(kubernetes.stop(), "the thread ended well");
    Ok(())
}
