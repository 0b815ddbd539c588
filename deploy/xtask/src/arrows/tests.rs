//! The rules on workspaces that do not exist.

use serde_json::{Value, json};

use super::*;

/// The designed tree; each test adds one dependency to it.
const TREE: &[(&str, &str, &[&str])] = &[
    ("bulkhead-abi", "ebpf/abi", &["zerocopy"]),
    ("bulkhead-packet", "ebpf/packet", &[]),
    (
        "bulkhead-pipeline",
        "ebpf/pipeline",
        &["bulkhead-packet", "bulkhead-abi"],
    ),
    (
        "bulkhead-programs",
        "ebpf/programs",
        &["bulkhead-pipeline", "bulkhead-packet", "bulkhead-abi", "aya-ebpf"],
    ),
    ("bulkhead-ebpf-build", "ebpf/build", &["anyhow"]),
    (
        "bulkhead-dataplane",
        "dataplane",
        &["bulkhead-abi", "bulkhead-pipeline", "aya"],
    ),
    ("bulkhead-testkit", "dataplane/testkit", &["bulkhead-dataplane"]),
    ("bulkhead-config", "control/config", &["serde"]),
    ("bulkhead-revisions", "control/revisions", &["serde"]),
    ("bulkhead-feeds", "control/feeds", &["serde"]),
    ("bulkhead-kube", "control/kube", &["bulkhead-config", "kube"]),
    (
        "bulkhead-agent",
        "control/agent",
        &["bulkhead-config", "bulkhead-dataplane", "bulkhead-testkit"],
    ),
    ("bulkhead-rules", "shared/rules", &[]),
];

fn tree() -> Vec<Value> {
    TREE.iter()
        .map(|(name, dir, dependencies)| {
            let dependencies: Vec<_> =
                dependencies.iter().map(|name| json!({ "name": name, "kind": null })).collect();
            json!({ "name": name, "manifest_path": format!("/w/{dir}/Cargo.toml"), "dependencies": dependencies })
        })
        .collect()
}

fn judge(packages: &[Value]) -> Vec<String> {
    let json = json!({ "packages": packages, "target_directory": "/w/target", "workspace_root": "/w" });
    let metadata = Metadata::parse(&json.to_string()).expect("valid metadata");
    check(&metadata)
        .into_iter()
        .map(|v| format!("{}: {}", v.manifest, v.what))
        .collect()
}

/// The designed tree and, in it, new dependencies of the given kind.
fn with(kind: Option<&str>, added: &[(&str, &str)]) -> Vec<String> {
    let mut packages = tree();
    for (package, dependency) in added {
        let package = packages
            .iter_mut()
            .find(|p| p["name"] == *package)
            .expect("in the tree");
        package["dependencies"]
            .as_array_mut()
            .expect("a list")
            .push(json!({ "name": dependency, "kind": kind }));
    }
    judge(&packages)
}

#[test]
fn the_designed_tree_is_accepted() {
    assert_eq!(with(None, &[]), [""; 0]);
}

#[test]
fn leaves_depend_on_nothing_of_ours() {
    assert_eq!(
        with(None, &[("bulkhead-packet", "bulkhead-abi")]),
        [""; 0],
        "the parser's errors are reasons"
    );
    assert_eq!(with(None, &[("bulkhead-packet", "bulkhead-pipeline")]).len(), 1);
    assert_eq!(with(None, &[("bulkhead-abi", "bulkhead-packet")]).len(), 1);
    assert_eq!(
        with(None, &[("bulkhead-packet", "zerocopy")]),
        [""; 0],
        "crates from elsewhere are no arrows"
    );
}

#[test]
fn pipeline_and_programs_take_only_what_is_listed() {
    assert_eq!(with(None, &[("bulkhead-pipeline", "aya-ebpf")]).len(), 1);
    assert_eq!(with(None, &[("bulkhead-programs", "aya-log-ebpf")]).len(), 1);
    assert_eq!(
        with(Some("build"), &[("bulkhead-programs", "which")]).len(),
        1,
        "build scripts count"
    );
    assert_eq!(
        with(Some("dev"), &[("bulkhead-pipeline", "proptest")]),
        [""; 0],
        "test code does not"
    );
}

#[test]
fn the_control_plane_does_not_know_aya() {
    for dependency in ["aya", "aya-obj", "aya-ebpf"] {
        let found = with(Some("dev"), &[("bulkhead-agent", dependency)]);
        let expected = format!("control/agent/Cargo.toml: bulkhead-agent may not depend on {dependency}");
        assert!(found.contains(&expected), "{dependency}: {found:?}");
    }
    assert_eq!(
        with(None, &[("bulkhead-agent", "ayaya")]),
        [""; 0],
        "another crate's name"
    );
}

#[test]
fn configuration_knows_neither_the_cluster_nor_the_data_plane() {
    assert_eq!(with(None, &[("bulkhead-config", "kube-core")]).len(), 1);
    assert_eq!(
        with(
            None,
            &[
                ("bulkhead-config", "bulkhead-rules"),
                ("bulkhead-rules", "bulkhead-dataplane")
            ]
        )[0],
        "control/config/Cargo.toml: bulkhead-config may not reach dataplane/, but does: \
         bulkhead-config -> bulkhead-rules -> bulkhead-dataplane"
    );
}

#[test]
fn the_data_plane_does_not_know_the_control_plane() {
    let found = with(None, &[("bulkhead-testkit", "bulkhead-config")]);
    assert_eq!(
        found,
        [
            "dataplane/testkit/Cargo.toml: bulkhead-testkit may not reach control/, but does: \
          bulkhead-testkit -> bulkhead-config"
        ]
    );
}

#[test]
fn dev_dependencies_of_others_lead_nowhere() {
    // config's tests may use rules; what the tests of rules use is not compiled then.
    let mut packages = tree();
    let rules = packages
        .iter_mut()
        .find(|p| p["name"] == "bulkhead-rules")
        .expect("in the tree");
    rules["dependencies"] = json!([{ "name": "bulkhead-dataplane", "kind": "dev" }]);
    let config = packages
        .iter_mut()
        .find(|p| p["name"] == "bulkhead-config")
        .expect("in the tree");
    config["dependencies"] = json!([{ "name": "bulkhead-rules", "kind": "dev" }]);
    assert_eq!(judge(&packages), [""; 0]);
}

#[test]
fn a_rule_without_its_crate_is_reported() {
    let packages: Vec<_> = tree()
        .into_iter()
        .filter(|p| p["name"] != "bulkhead-packet")
        .collect();
    assert!(
        judge(&packages).contains(&"Cargo.toml: the rule about bulkhead-packet has no such crate".to_owned())
    );
}

#[test]
fn a_new_kernel_side_crate_needs_a_rule() {
    let mut packages = tree();
    packages.push(
        json!({ "name": "bulkhead-new", "manifest_path": "/w/ebpf/new/Cargo.toml", "dependencies": [] }),
    );
    assert_eq!(
        judge(&packages),
        ["ebpf/new/Cargo.toml: bulkhead-new has no rule"]
    );
}
