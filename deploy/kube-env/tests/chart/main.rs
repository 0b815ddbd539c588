//! The Helm chart: rendered by the real helm, judged and installed by the real API server, its documents read by Bulkhead itself.
//!
//! Here is what is rendered and what is refused; the rest by subject in the modules.

mod accepted;
mod common;
mod installed;
mod openapi;
mod rights;
mod samples;
mod schemas;

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, ensure};
use bulkhead_kube_env::{Parts, chart};
use serde_json::json;

use self::common::root;

#[test]
fn kube_chart_renders_what_is_in_the_golden_files_and_manifests() -> Result<()> {
    let root = root();
    let files = chart::rendered(&Parts::cached()?, &root)?;
    for file in &files {
        let path = root.join(&file.path);
        let kept = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        for (number, (kept, rendered)) in kept.lines().zip(file.text.lines()).enumerate() {
            assert_eq!(
                kept,
                rendered,
                "{}:{}: run `cargo xtask manifests` and review what changes",
                file.path.display(),
                number + 1
            );
        }
        assert_eq!(kept.len(), file.text.len(), "{}", file.path.display());
    }
    let golden = fs::read_dir(root.join("deploy/helm/golden"))?.count();
    assert_eq!(
        golden,
        chart::variations(&root)?.len(),
        "golden files without a variation"
    );
    Ok(())
}

/// What is wrong with values is said in their own words, before anything is rendered.
#[test]
fn kube_chart_refuses_values_that_cannot_work() -> Result<()> {
    let (parts, root) = (Parts::cached()?, root());
    let minimal = root.join("deploy/helm/variations/minimal.yaml");
    let sixteen: Vec<_> = (1..=16)
        .map(|number| json!({"interface": format!("net{number}"), "attachment": "a"}))
        .collect();
    let sixteen = format!("networks={}", json!(sixteen));
    let pods = r#"configuration.spec.addresses=[{"name": "a", "pods": {"selector": "app"}}]"#;
    let elsewhere = r#"configuration.spec.addresses=[{"name": "a", "pods": {"selector": "app", "namespaces": ["shop", "payments"]}}]"#;
    let of_shop = "rbac.podGroups=true,rbac.podGroupNamespaces={shop}";
    let of_both = "rbac.podGroups=true,rbac.podGroupNamespaces={shop,payments}";
    let object = r#"configuration.spec.addresses=[{"name": "a", "addressGroup": "shop/partners"}]"#;
    let wires = r#"configuration.spec.wires=[{"name": "w", "interfaces": ["net1", "net2"]}]"#;
    let cases: &[(&[&str], &[&str])] = &[
        (&["--set", "launch.onMising=wait"], &["launch", "onMising"]),
        (&["--set", "mode=ingres"], &["mode"]),
        (&["--set-json", &sixteen], &["networks", "15"]),
        (&["--set-json", "networks=[]"], &["networks"]),
        (
            &["--set-json", r#"networks=[{"interface": "net1"}]"#],
            &["networks.0"],
        ),
        (
            &[
                "--set-json",
                r#"networks=[{"interface": "net1", "attachment": "a", "create": {"cniVersion": "1", "type": "bridge"}}]"#,
            ],
            &["networks.0"],
        ),
        (&["--set", "image.digest=sha256:12"], &["image.digest"]),
        (&["--set", "management.port=80"], &["management.port"]),
        (&["--set", "launch.drain=soon"], &["launch.drain"]),
        (&["--set", "networks[1].interface=net1"], &["net1", "twice"]),
        (
            &["--set", "networks[1].interface=net9"],
            &["net2", "no interface of `networks`", "net9"],
        ),
        (
            &[
                "--set-json",
                r#"networks[2]={"interface": "net3", "attachment": "a"}"#,
            ],
            &["net3 is no interface of configuration.spec.interfaces (net1, net2)"],
        ),
        (
            &["--set", "configuration.existing=other"],
            &["`spec` or `existing`", "not both"],
        ),
        (&["--set-json", "configuration.spec=null"], &["give `spec`"]),
        (
            &["--set", "mode=ingress,state.persistence.enabled=true"],
            &["replicas cannot share"],
        ),
        (
            &[
                "--set",
                "mode=ingress,autoscaling.sessions=0,autoscaling.throughputBytesPerSecond=0",
            ],
            &["autoscaling", "target"],
        ),
        (
            &[
                "--set",
                "mode=ingress,replicas=2,autoscaling.enabled=false,networks[0].mac=02:00:00:00:00:01",
            ],
            &["every replica", "IPAM"],
        ),
        (&["--set-json", pods], &["rbac.podGroups"]),
        (
            &["--set", of_shop, "--set-json", pods],
            &["a follows pods of the whole cluster", "`namespaces`"],
        ),
        (
            &["--set", of_shop, "--set-json", elsewhere],
            &["a follows pods of payments", "rbac.podGroupNamespaces"],
        ),
        (
            &["--set-json", object],
            &[
                "AddressGroup shop/partners",
                "add shop to rbac.addressGroupNamespaces",
            ],
        ),
        (
            &[
                "--set-json",
                object,
                "--set",
                "rbac.addressGroupNamespaces={payments}",
            ],
            &["add shop to rbac.addressGroupNamespaces"],
        ),
        (
            &["--set-json", r#"rbac.podGroupNamespaces=["a"]"#],
            &["nothing without rbac.podGroups"],
        ),
        (
            &["--set", "podDisruptionBudget.maxUnavailable=0"],
            &["maxUnavailable"],
        ),
        (
            &["--set", "podDisruptionBudget.maxUnavailable=0%"],
            &["maxUnavailable"],
        ),
        (
            &["--set", "launch.drain=1m"],
            &["launch.drain", "terminationGracePeriodSeconds"],
        ),
        (
            &[
                "--set",
                "mode=ingress,autoscaling.enabled=true,autoscaling.minReplicas=9,autoscaling.maxReplicas=3",
            ],
            &["minReplicas 9", "maxReplicas 3"],
        ),
        (
            &["--set-json", "networkPolicy.apiServerPorts=[]"],
            &["apiServerPorts"],
        ),
        (
            &["--set", "multiNetworkPolicies=true", "--set-json", wires],
            &["multiNetworkPolicies", "`wires`", "refuses"],
        ),
    ];
    // What is next to them, and can work: rights that come another way, and rights that somebody else gives.
    let sound: &[&[&str]] = &[
        &[],
        &["--set", "multiNetworkPolicies=true", "--set-json", pods],
        &["--set", "rbac.podGroups=true", "--set-json", pods],
        &["--set", of_both, "--set-json", elsewhere],
        &["--set", "rbac.create=false", "--set-json", pods],
        &["--set", "rbac.create=false", "--set-json", object],
        &[
            "--set",
            "rbac.addressGroupNamespaces={payments,shop}",
            "--set-json",
            object,
        ],
        &["--set-json", wires],
    ];
    for set in sound {
        chart::template(&parts, &root, &minimal, set).with_context(|| format!("{set:?}"))?;
    }
    for (set, words) in cases {
        let Err(error) = chart::template(&parts, &root, &minimal, set) else {
            panic!("{set:?} is accepted");
        };
        let said = format!("{error:#}");
        for word in *words {
            assert!(said.contains(word), "{set:?}: {word:?} is not in: {said}");
        }
    }
    Ok(())
}

/// Every setting that the chart gives is one of the launch contract's, and so is every argument.
#[test]
fn kube_chart_settings_are_those_of_the_launch_contract() -> Result<()> {
    let root = root();
    let contract = fs::read_to_string(root.join("deploy/docs/launch.md"))?;
    let mut given = BTreeSet::new();
    let mut arguments = BTreeSet::new();
    for variation in chart::variations(&root)? {
        let golden = root.join(format!("deploy/helm/golden/{}.yaml", variation.name));
        let golden = fs::read_to_string(golden)?;
        arguments.extend(golden.lines().filter_map(|line| {
            let (argument, _) = line.trim().strip_prefix("- --")?.split_once('=')?;
            Some(argument.to_owned())
        }));
        let names = golden
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- name: "));
        given.extend(
            names
                .filter(|name| name.starts_with("BULKHEAD_"))
                .map(str::to_owned),
        );
    }
    for name in &given {
        ensure!(
            contract.contains(&format!("| `{name}` |")),
            "{name} is no setting"
        );
    }
    for argument in &arguments {
        ensure!(
            contract.contains(&format!("| `--{argument}` |")),
            "--{argument} is no argument"
        );
    }
    ensure!(
        arguments.contains("config-map") && arguments.contains("firewall-resource"),
        "{arguments:?}"
    );
    // All of `launch`, and what the chart decides.
    assert_eq!(given.len(), 18, "{given:?}");
    Ok(())
}
