//! Many instances that lose the API server at the same moment: they come back spread over time, and each comes back.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use bulkhead_kube::Place;
use serde_json::json;

use crate::common::{Recorder, USER, document, eventually, server, start};
use crate::pods::{create, expect, network_status, selection};
use crate::relay::Relay;

/// Instances; each has a watch of its configuration and one of pods.
const INSTANCES: usize = 16;
/// How long the API is away: long enough for waits of several seconds.
const AWAY: Duration = Duration::from_secs(8);
/// What counts as the same moment.
const MOMENT: Duration = Duration::from_millis(250);

/// The most arrivals within one moment.
fn most_at_once(arrivals: &[Instant]) -> usize {
    let within = |from: &Instant| {
        arrivals
            .iter()
            .filter(|arrival| (*from..*from + MOMENT).contains(*arrival))
            .count()
    };
    arrivals.iter().map(within).max().unwrap_or_default()
}

/// In how many moments somebody arrived.
fn moments(since: Instant, arrivals: &[Instant]) -> usize {
    let moment = |arrival: &Instant| arrival.duration_since(since).as_millis() / MOMENT.as_millis();
    let moments: HashSet<u128> = arrivals.iter().map(moment).collect();
    moments.len()
}

#[test]
fn kube_instances_that_lost_the_api_do_not_come_back_all_at_once() -> Result<()> {
    let env = server()?;
    let admin = env.client("admin")?;
    create(
        &admin,
        "default",
        "pay-0",
        "pay",
        Some(&network_status(&["192.0.2.7"])),
    )?;
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "edge" },
        "data": { "firewall.yaml": document("one") },
    });
    admin
        .post("/api/v1/namespaces/default/configmaps", &map)?
        .expect(201)?;
    let relay = Relay::start(&env.url())?;
    let config = env.directory().join("kubeconfig-relayed");
    let direct = env.kubeconfig(&env.token(USER)?);
    std::fs::write(&config, direct.replace(&env.url(), &relay.url()))?;
    let mut instances = Vec::new();
    for number in 0..INSTANCES {
        let firewall = Arc::new(Recorder::default());
        firewall.select("pay", selection("app=pay", None));
        let place = Place::config_map("default/edge").map_err(anyhow::Error::msg)?;
        let name = format!("fw-{number}");
        let kubernetes = start(config.clone(), Some(place), &name, &firewall)?;
        instances.push((kubernetes, firewall));
    }
    for (_, firewall) in &instances {
        firewall.wait(1)?;
        expect(firewall, "pay", &["192.0.2.7"], 0)?;
    }

    let (closed, before) = (Instant::now(), relay.arrivals().len());
    relay.close();
    std::thread::sleep(AWAY);
    let meanwhile = relay.arrivals().split_off(before);
    // A quarter of a second, doubled each time, less a half by chance: some eight tries of each watch, and a write at most.
    let tries = meanwhile.len() as f64 / INSTANCES as f64;
    println!(
        "{tries:.1} tries of each instance in {AWAY:?}, {} at once",
        most_at_once(&meanwhile)
    );
    assert!((2.0..24.0).contains(&tries), "{tries}");
    let late: Vec<Instant> = meanwhile
        .into_iter()
        .filter(|arrival| arrival.duration_since(closed) > AWAY / 2)
        .collect();
    assert!(late.len() >= INSTANCES / 2, "nobody tries any more");
    // Waits of two and four seconds, each spread by half: they fall into 13 of the 16 moments, into 8 at the least of thousands of
    // runs. Spread by a tenth it were 6.
    let spread = moments(closed, &late);
    println!("{} late tries in {spread} moments", late.len());
    assert!(
        spread >= 8 && most_at_once(&late) <= late.len() / 2,
        "they try at the same moments: {spread} of 16"
    );

    let (opened, before) = (Instant::now(), relay.arrivals().len());
    relay.open();
    let change = json!({ "data": { "firewall.yaml": document("two") } });
    admin
        .merge("/api/v1/namespaces/default/configmaps/edge", &change)?
        .expect(200)?;
    for (_, firewall) in &instances {
        firewall.wait(2)?;
        eventually("its pods are known again", || {
            Ok(firewall
                .found("pay")
                .filter(|found| found.unknown.is_none())
                .map(drop))
        })?;
    }
    let back = relay.arrivals().split_off(before);
    println!(
        "all back after {:?}, {} of {} arrivals at once",
        opened.elapsed(),
        most_at_once(&back),
        back.len()
    );
    // Waits of four and eight seconds: 14 moments and more if each is spread by half, 12 at the most by a tenth.
    let spread = moments(opened, &back);
    println!("back in {spread} moments");
    assert!(
        spread >= 13 && most_at_once(&back) <= back.len() / 3,
        "they come back at the same moments: {spread}, {} of {} at once",
        most_at_once(&back),
        back.len()
    );
    for (kubernetes, _) in &instances {
        assert!(kubernetes.stop(), "the thread ended well");
    }
    Ok(())
}

/// What the other tests rely on: the end of a [`Server`](crate::common::Server) is a failure if anything was refused.
#[test]
fn kube_a_call_beyond_the_role_fails_its_test() -> Result<()> {
    let env = server()?;
    env.client(USER)?.get("/api/v1/pods")?.expect(200)?;
    env.client(USER)?.get("/api/v1/secrets")?.expect(403)?;
    let asked = env.asked(USER)?;
    let found: Vec<(&str, u64)> = asked.iter().map(|asked| (&*asked.resource, asked.code)).collect();
    assert_eq!(found, [("pods", 200), ("secrets", 403)]);
    assert!(catch_unwind(AssertUnwindSafe(|| drop(env))).is_err());
    Ok(())
}
