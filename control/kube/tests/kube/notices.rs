//! What is said about the firewall's own pod.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bulkhead_kube::{Kubernetes, Notice, OwnPod, Settings};
use serde_json::{Value, json};

use crate::common::{Recorder, USER, eventually, server};
use crate::pods::{create, path};

#[test]
fn kube_a_refused_file_is_an_event_of_the_pod_and_nothing_else_is_asked() -> Result<()> {
    let mut env = server()?;
    let admin = env.client("admin")?;
    create(&admin, "default", "edge-0", "edge", None)?;
    let uid = admin.get(&path("default", "edge-0"))?.expect(200)?["metadata"]["uid"].clone();
    let settings = Settings {
        place: None,
        mounted: None,
        kubeconfig: Some(env.kubeconfig_file(USER)?),
        instance: "edge-0".to_owned(),
        network_policies: false,
        pod: Some(OwnPod {
            namespace: "default".to_owned(),
            name: "edge-0".to_owned(),
            uid: uid.as_str().unwrap_or_default().to_owned(),
        }),
    };
    let kubernetes = Kubernetes::start(settings, Arc::new(Recorder::default()))?;
    let refused = |note: &str| Notice {
        bad: true,
        reason: "Invalid",
        note: note.to_owned(),
    };
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(env.asked(USER)?, [], "there is nothing to say");
    kubernetes.notice(refused("edge-0: firewall.yaml:7:3: first"));
    let event = |note: &str| {
        eventually(&format!("an event says {note}"), || {
            // As `kubectl describe` looks for them.
            let of_pod = format!(
                "/api/v1/namespaces/default/events?fieldSelector=involvedObject.uid={}",
                uid.as_str().unwrap_or_default()
            );
            let events = admin.get(&of_pod)?.expect(200)?;
            let events = events["items"].as_array().cloned().unwrap_or_default();
            Ok(events
                .into_iter()
                .find(|event| event["message"].as_str().is_some_and(|text| text.ends_with(note))))
        })
    };
    let first = event("first")?;
    assert_eq!(
        (&first["type"], &first["reason"], &first["involvedObject"]["kind"]),
        (&json!("Warning"), &json!("Invalid"), &json!("Pod"))
    );

    // What is said while the API is away is said when it is back, the last of it.
    env.stop_apiserver();
    kubernetes.notice(refused("second"));
    std::thread::sleep(Duration::from_millis(300));
    kubernetes.notice(refused("third"));
    env.start_apiserver()?;
    event("third")?;
    let asked: Vec<(String, String)> = env
        .asked(USER)?
        .into_iter()
        .map(|asked| (asked.verb, asked.resource))
        .collect();
    let only = ("create".to_owned(), "events".to_owned());
    assert!(asked.iter().all(|asked| *asked == only), "{asked:?}");
    assert!(kubernetes.stop(), "the thread ended well");
    let all = admin.get("/api/v1/namespaces/default/events")?.expect(200)?;
    let notes: Vec<&Value> = all["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|event| &event["message"])
        .collect();
    assert!(notes.len() <= 3, "{notes:?}");
    Ok(())
}
