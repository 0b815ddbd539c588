//! A mounted ConfigMap: who looks at the pod, at the ConfigMap, and who asks the firewall, hears what became of it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bulkhead_testkit::privileged;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::daemon::{DEADLINE, Daemon, Launch};
use crate::object::Object;
use crate::{CONFIGURATION, topology};

/// As the kubelet's atomic writer does it: a new directory, a new link beside the old one, one rename.
fn swap(volume: &Path, number: u32, content: &str) {
    let fresh = format!("..2026_{number}");
    fs::create_dir(volume.join(&fresh)).expect("a directory");
    fs::write(volume.join(&fresh).join("firewall.yaml"), content).expect("a file");
    symlink(&fresh, volume.join("..data_tmp")).expect("a link");
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).expect("a swap");
}

/// A volume as the kubelet mounts it, and the file in it.
fn mount(content: &str) -> (tempfile::TempDir, PathBuf) {
    let volume = tempfile::tempdir().expect("a directory");
    swap(volume.path(), 1, content);
    let file = volume.path().join("firewall.yaml");
    symlink("..data/firewall.yaml", &file).expect("a link");
    (volume, file)
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
    let (volume, file) = mount(CONFIGURATION);
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

#[test]
fn kube_agent_says_on_a_mounted_config_map_what_became_of_it_and_never_waits_for_that() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-said");
    let mut cluster = Cluster::start(topology.firewall(), &["configuration.source=mounted"]);
    let map = Object::ConfigMap;
    map.create(&cluster, CONFIGURATION);
    let (volume, file) = mount(CONFIGURATION);
    let kubeconfig = cluster.kubeconfig();
    let mut daemon = Launch::without_file()
        .variable("BULKHEAD_CONFIG", file.to_str().expect("text"))
        .variable("BULKHEAD_MOUNTED_CONFIG_MAP", "default/edge")
        .arguments(&[
            "--kubeconfig",
            kubeconfig.to_str().expect("text"),
            "--instance=edge-0",
        ])
        .start(&topology);
    let newest = |daemon: &Daemon<'_>| daemon.json(&["history"])["revisions"][0].clone();
    let said = |cluster: &Cluster<'_>, applied| map.await_applied(cluster, "edge-0", applied);
    let entry = said(&cluster, ("True", "Committed", "revision 1 "));
    let interfaces = daemon.json(&["show", "interfaces"]);
    assert_eq!(
        (&entry["hash"], &entry["revision"], &entry["generation"]),
        (&newest(&daemon)["sha256"], &json!(1), &interfaces["generation"])
    );
    let kinds = entry["conditions"].as_array().expect("conditions").iter();
    let kinds: Vec<&str> = kinds.filter_map(|kind| kind["type"].as_str()).collect();
    assert_eq!(kinds, ["Ready", "Applied", "Degraded"]);

    // The kubelet takes its time: what the object says is not in force, and that is no fault.
    let second = CONFIGURATION.replace("name: out,", "name: outward,");
    map.set(&cluster, &second);
    said(&cluster, ("False", "Pending", "the kubelet"));
    assert_eq!(newest(&daemon)["revision"], 1);
    swap(volume.path(), 2, &second);
    let entry = said(&cluster, ("True", "Committed", "revision 2 "));
    assert_eq!(entry["hash"], newest(&daemon)["sha256"]);

    // Refused, it says why where its author looks.
    let wrong = CONFIGURATION.replace("action: reject", "action: rejct");
    map.set(&cluster, &wrong);
    swap(volume.path(), 3, &wrong);
    let entry = said(&cluster, ("False", "Invalid", "rejct"));
    assert_eq!(entry["revision"], 2, "what was in force still is");
    let described = cluster.kubectl(&["describe", "configmap", "edge"]);
    for shown in ["status.bulkhead.dev/edge-0:", "\"reason\": \"Invalid\"", "rejct"] {
        assert!(described.contains(shown), "{shown} is not in {described}");
    }

    // Without the API the next one is in force all the same; the loss is told once, and made good afterwards.
    cluster.env.stop_apiserver();
    let third = CONFIGURATION.replace("name: out,", "name: third,");
    swap(volume.path(), 4, &third);
    until("it is in force", || {
        (newest(&daemon)["revision"] == 3).then_some(())
    });
    let lost = "cannot read the object that the configuration is mounted from; its status waits";
    daemon.await_log(lost);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(daemon.log().matches(lost).count(), 1, "{}", daemon.log());
    cluster.start_again();
    map.set(&cluster, &third);
    let entry = said(&cluster, ("True", "Committed", "revision 3 "));
    assert_eq!(entry["hash"], newest(&daemon)["sha256"]);

    // Nor does it need the right to do so.
    cluster.delete("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings/edge");
    let fourth = CONFIGURATION.replace("name: out,", "name: fourth,");
    swap(volume.path(), 5, &fourth);
    until("it is in force", || {
        (newest(&daemon)["revision"] == 4).then_some(())
    });
    until("the refusal is told", || {
        (daemon.log().matches(lost).count() == 2).then_some(())
    });
    assert!(daemon.log().contains("forbidden"), "{}", daemon.log());
    assert!(daemon.end(Signal::SIGTERM).success(), "{}", daemon.log());
}
