//! A mounted ConfigMap that is refused: who looks at the pod, and who asks the firewall, hears of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use bulkhead_testkit::privileged;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::daemon::{DEADLINE, Launch};
use crate::{CONFIGURATION, topology};

/// As the kubelet's atomic writer does it: a new directory, a new link beside the old one, one rename.
fn swap(volume: &Path, number: u32, content: &str) {
    let fresh = format!("..2026_{number}");
    fs::create_dir(volume.join(&fresh)).expect("a directory");
    fs::write(volume.join(&fresh).join("firewall.yaml"), content).expect("a file");
    symlink(&fresh, volume.join("..data_tmp")).expect("a link");
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("a swap");
}

#[track_caller]
fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < DEADLINE, "it never came: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn kube_agent_tells_of_a_mounted_file_that_is_refused() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-file");
    let cluster = Cluster::start(topology.firewall(), &["configuration.source=mounted"]);
    let pod = cluster.create(
        "/api/v1/namespaces/default/pods",
        &json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "edge-0" },
            "spec": { "containers": [{ "name": "bulkhead", "image": "none" }] },
        }),
    );
    let uid = pod["metadata"]["uid"].as_str().expect("an id");
    let events = || cluster.events(uid);
    let event = |reason: &str, says: &str| {
        until(&format!("{reason}: {says}"), || {
            let said = |event: &&Value| {
                event["reason"] == reason && event["message"].as_str().is_some_and(|text| text.contains(says))
            };
            events().iter().find(said).cloned()
        })
    };
    let volume = tempfile::tempdir().expect("a directory");
    swap(volume.path(), 1, CONFIGURATION);
    let file = volume.path().join("firewall.yaml");
    symlink("..data/firewall.yaml", &file).expect("a link");
    let kubeconfig = cluster.kubeconfig();
    let mut daemon = Launch::without_file()
        .variable("BULKHEAD_CONFIG", file.to_str().expect("text"))
        .variable("POD_NAME", "edge-0")
        .variable("POD_NAMESPACE", "default")
        .variable("POD_UID", uid)
        .arguments(&["--kubeconfig", kubeconfig.to_str().expect("text")])
        .start(&topology);
    assert_eq!(daemon.json(&["history"])["refused"], Value::Null);
    assert!(!daemon.text(&["history"]).contains("not in force"));

    // Refused: the old one stays, the pod has an event, and the command line says which file and why.
    swap(
        volume.path(),
        2,
        &CONFIGURATION.replace("action: reject", "action: rejct"),
    );
    let warning = event("Invalid", "rejct");
    assert_eq!(
        (&warning["type"], &warning["involvedObject"]["kind"]),
        (&json!("Warning"), &json!("Pod"))
    );
    let history = daemon.json(&["history"]);
    assert_eq!(history["revisions"][0]["revision"], 1);
    let refused = &history["refused"];
    assert_eq!(
        (&refused["document"], &refused["reason"]),
        (&json!(file), &json!("Invalid"))
    );
    assert!(
        refused["message"]
            .as_str()
            .is_some_and(|text| text.contains("rejct")),
        "{refused}"
    );
    let text = daemon.text(&["history"]);
    assert!(
        text.contains(&format!("{} is not in force (Invalid, ", file.display())),
        "{text}"
    );

    // Another document over the socket does not mend the file, and neither does a restart.
    let other = volume.path().join("other.yaml");
    fs::write(&other, CONFIGURATION.replace("name: out,", "name: outward,")).expect("a file");
    daemon.text(&["commit", other.to_str().expect("text")]);
    assert_eq!(daemon.json(&["history"])["refused"]["document"], json!(file));
    assert!(daemon.end(Signal::SIGTERM).success(), "{}", daemon.log());
    let before = events().len();
    daemon.restart();
    assert_eq!(daemon.json(&["history"])["refused"]["document"], json!(file));
    until("an event of the restart", || {
        (events().len() > before).then_some(())
    });

    // Mended, nothing is said any more but that.
    swap(
        volume.path(),
        3,
        &CONFIGURATION.replace("name: out,", "name: mended,"),
    );
    event("Committed", "is in force");
    until("the refusal is forgotten", || {
        daemon.json(&["history"])["refused"].is_null().then_some(())
    });
    assert!(daemon.text(&["show", "policies"]).contains("mended"));
    assert!(daemon.end(Signal::SIGTERM).success(), "{}", daemon.log());
}
