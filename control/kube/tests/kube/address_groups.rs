//! Objects `AddressGroup` of a real API server as members of groups, and what is said on them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bulkhead_kube_env::Client;
use serde_json::{Value, json};

use crate::common::{Recorder, USER, columns, define, eventually, kubectl, server, start};
use crate::pods::{create, network_status, path};

const OBJECTS: &str = "/apis/bulkhead.dev/v1alpha1/namespaces/default/addressgroups";
const OBJECT: &str = "/apis/bulkhead.dev/v1alpha1/namespaces/default/addressgroups/partners";
const NAME: &str = "default/partners";

fn object(spec: &Value) -> Value {
    json!({ "apiVersion": "bulkhead.dev/v1alpha1", "kind": "AddressGroup", "metadata": { "name": "partners" }, "spec": spec })
}

/// Waits until the object comes to these prefixes for a firewall, and is known.
fn expect(firewall: &Recorder, prefixes: &[&str]) -> Result<()> {
    let mut last = String::new();
    let found = eventually(&format!("it has {prefixes:?}"), || {
        let (members, unknown) = firewall.members(NAME);
        last = format!("{members:?}, {unknown:?}");
        let members = members.unwrap_or_default().prefixes;
        let shown: Vec<String> = members.iter().map(ToString::to_string).collect();
        Ok((shown == prefixes && unknown.is_none()).then_some(()))
    });
    found.with_context(|| last)
}

/// Waits until the object says of itself what is wanted.
fn status(admin: &Client, ready: &str, reason: &str, in_force: &str, members: u64) -> Result<Value> {
    let mut last = Value::Null;
    let found = eventually(
        &format!("Ready is {ready}: {reason}, {in_force}, {members}"),
        || {
            last = admin.get(OBJECT)?.expect(200)?["status"].clone();
            let condition = &last["conditions"][0];
            let said = condition["type"] == "Ready"
                && condition["status"] == ready
                && condition["reason"] == reason
                && last["inForce"] == in_force
                && last["members"] == members;
            Ok(said.then(|| last.clone()))
        },
    );
    found.with_context(|| format!("{last:#}"))
}

#[test]
fn kube_an_address_group_is_followed_from_its_creation_to_its_end() -> Result<()> {
    let mut env = server()?;
    let admin = env.client("admin")?;
    define(&admin)?;
    let firewall = Arc::new(Recorder::default());
    firewall.refer(&[NAME]);
    let kubernetes = start(env.kubeconfig_file(USER)?, None, "fw-0", &firewall)?;
    eventually("it is missed", || {
        let unknown = firewall.members(NAME).1;
        Ok(unknown.filter(|why| why == "the object does not exist"))
    })?;

    // Created, edited: in force at once.
    let spec = json!({ "members": ["192.0.2.0/30", "2001:db8::7"], "except": ["192.0.2.3"] });
    let began = Instant::now();
    admin.post(OBJECTS, &object(&spec))?.expect(201)?;
    expect(&firewall, &["192.0.2.0/31", "192.0.2.2/32", "2001:db8::7/128"])?;
    println!("created and in force within {:?}", began.elapsed());
    let said = status(&admin, "True", "InForce", "1/1", 3)?;
    assert_eq!(
        (&said["observedGeneration"], &said["instances"][0]["name"]),
        (&json!(1), &json!("fw-0"))
    );
    let mut took = Vec::new();
    for last in 1..10 {
        let address = format!("198.51.100.{last}");
        let change = json!({ "spec": { "members": [address], "except": null } });
        let began = Instant::now();
        admin.merge(OBJECT, &change)?.expect(200)?;
        expect(&firewall, &[&format!("{address}/32")])?;
        took.push(began.elapsed());
    }
    took.sort();
    println!(
        "changed and in force within {:?} (median), {:?} (worst)",
        took[4], took[8]
    );
    assert!(took[4] < Duration::from_millis(250), "{took:?}");
    status(&admin, "True", "InForce", "1/1", 1)?;

    // Pods of an object are followed as those of a document.
    create(
        &admin,
        "default",
        "pay-0",
        "pay",
        Some(&network_status(&["192.0.2.7"])),
    )?;
    create(&admin, "default", "pay-1", "pay", None)?;
    let pods = json!({ "selector": "app=pay", "network": "default/app-net" });
    let change = json!({ "spec": { "members": ["10.0.0.1"], "pods": pods } });
    admin.merge(OBJECT, &change)?.expect(200)?;
    expect(&firewall, &["10.0.0.1/32", "192.0.2.7/32"])?;
    let said = status(&admin, "True", "InForce", "1/1", 2)?;
    assert_eq!(
        (&said["instances"][0]["pods"], &said["instances"][0]["pending"]),
        (&json!(1), &json!(1))
    );
    let old = json!({ "metadata": { "labels": { "app": "old" } } });
    admin.merge(&path("default", "pay-0"), &old)?.expect(200)?;
    expect(&firewall, &["10.0.0.1/32"])?;

    // What is wrong changes nothing, and says so; what an object cannot hold is wrong.
    for (wrong, says) in [
        (json!({ "members": ["10.0.0.300"] }), "spec.members[0]: "),
        (
            json!({ "dns": ["www.example.org"] }),
            "spec.dns: an AddressGroup has ",
        ),
        (
            json!({ "dns": null, "membres": [] }),
            "spec.membres: unknown field",
        ),
    ] {
        admin.merge(OBJECT, &json!({ "spec": wrong }))?.expect(200)?;
        let why = eventually(&format!("{says} is told"), || {
            let (members, unknown) = firewall.members(NAME);
            assert_eq!(
                members.map(|members| members.prefixes.len()),
                Some(1),
                "the last ones stay"
            );
            Ok(unknown.filter(|why| why.contains(says)))
        })?;
        let said = eventually("the object says so", || {
            let said = status(&admin, "False", "Invalid", "0/1", 1)?;
            let message = said["conditions"][0]["message"].as_str().unwrap_or_default();
            Ok(message.contains(says).then(|| message.to_owned()))
        })?;
        assert!(said.starts_with("fw-0: spec."), "{said} and {why}");
    }
    // Its pods go on to come and go as it said last, or a pod that is gone would keep what it may.
    create(
        &admin,
        "default",
        "pay-2",
        "pay",
        Some(&network_status(&["192.0.2.9"])),
    )?;
    eventually("the new pod is a member of what is wrong", || {
        let (members, unknown) = firewall.members(NAME);
        let both = members.is_some_and(|members| members.prefixes.len() == 2);
        Ok((both && unknown.is_some()).then_some(()))
    })?;
    status(&admin, "False", "Invalid", "0/1", 2)?;
    let mended = json!({ "spec": { "membres": null, "members": ["10.0.0.2"], "pods": null } });
    admin.merge(OBJECT, &mended)?.expect(200)?;
    expect(&firewall, &["10.0.0.2/32"])?;
    status(&admin, "True", "InForce", "1/1", 1)?;

    // What the firewall has no room for says so, too.
    firewall.fill_up(Some("the address table is full"));
    admin
        .merge(OBJECT, &json!({ "spec": { "members": ["10.0.0.0/24"] } }))?
        .expect(200)?;
    status(&admin, "False", "NotInForce", "0/1", 1)?;
    firewall.fill_up(None);
    expect(&firewall, &["10.0.0.0/24"])?;
    status(&admin, "True", "InForce", "1/1", 1)?;

    // Nothing is written where nothing changes.
    std::thread::sleep(Duration::from_secs(2));
    let version = admin.get(OBJECT)?.expect(200)?["metadata"]["resourceVersion"].clone();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(
        admin.get(OBJECT)?.expect(200)?["metadata"]["resourceVersion"],
        version,
        "it writes although nothing changes"
    );

    // While the API is away the last ones stay; who changes the object then is heard afterwards.
    env.stop_apiserver();
    eventually("the loss is noticed", || Ok(firewall.members(NAME).1))?;
    env.start_apiserver()?;
    expect(&firewall, &["10.0.0.0/24"])?;

    // Gone is gone.
    admin.delete(OBJECT)?.expect(200)?;
    eventually("it has no members", || {
        let (members, unknown) = firewall.members(NAME);
        let none = members.is_some_and(|members| members.prefixes.is_empty());
        Ok((none && unknown.is_some()).then_some(()))
    })?;
    assert!(kubernetes.stop(), "the thread ended well");
    Ok(())
}

#[test]
fn kube_two_instances_of_an_address_group_do_not_fight_and_leave_nothing_behind() -> Result<()> {
    let env = server()?;
    let admin = env.client("admin")?;
    define(&admin)?;
    admin
        .post(OBJECTS, &object(&json!({ "members": ["192.0.2.1"] })))?
        .expect(201)?;
    let config = env.kubeconfig_file(USER)?;
    let instances: Vec<_> = ["fw-0", "fw-1"]
        .into_iter()
        .map(|name| {
            let firewall = Arc::new(Recorder::default());
            firewall.refer(&[NAME]);
            start(config.clone(), None, name, &firewall).map(|kubernetes| (kubernetes, firewall))
        })
        .collect::<Result<_>>()?;
    status(&admin, "True", "InForce", "2/2", 1)?;
    let shown = kubectl(&env, &["get", "ag"])?;
    let in_force = [
        ("NAME", "partners"),
        ("READY", "True"),
        ("MEMBERS", "1"),
        ("FIREWALLS", "2/2"),
        ("REASON", "InForce"),
    ];
    assert_eq!(columns(&shown)?, in_force);
    std::thread::sleep(Duration::from_secs(2));
    let version = admin.get(OBJECT)?.expect(200)?["metadata"]["resourceVersion"].clone();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(
        admin.get(OBJECT)?.expect(200)?["metadata"]["resourceVersion"],
        version,
        "somebody writes all the time"
    );
    // One whose document refers to it no more takes its entry along.
    instances[0].1.refer(&[]);
    instances[0].0.changed();
    let said = status(&admin, "True", "InForce", "1/1", 1)?;
    assert_eq!(said["instances"].as_array().map(Vec::len), Some(1));
    for (kubernetes, _) in &instances {
        assert!(kubernetes.stop(), "the thread ended well");
    }
    let nobody = status(&admin, "False", "NoInstance", "0/0", 0)?;
    assert_eq!(nobody["instances"], json!([]));
    Ok(())
}
