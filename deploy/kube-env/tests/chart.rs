//! The Helm chart: rendered by the real helm, judged and installed by the real API server, its documents read by Bulkhead itself.

mod common;

use std::{collections::BTreeSet, fs, process::Command};

use anyhow::{Context as _, Result, ensure};
use bulkhead_kube::rbac::{Need, permissions};
use bulkhead_kube_env::{
    KubeEnv, Parts,
    chart::{self, NAMESPACE, RELEASE, Variation},
};
use serde_json::{Value, json};

use self::common::{define, objects, path_of, pruned, root};

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
        (
            &[
                "--set-json",
                r#"configuration.spec.addresses=[{"name": "a", "pods": {"selector": "app"}}]"#,
            ],
            &["rbac.podGroups"],
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
    ];
    chart::template(&parts, &root, &minimal, &[]).context("minimal as it is")?;
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

/// What the test below stands on: a field that is not kept is found, however deep; another way to write a number is not.
#[test]
fn a_field_that_is_dropped_is_found() {
    let sent = json!({"spec": {"ports": [{"name": "a", "prot": "TCP"}], "value": "100000", "list": [], "off": false}});
    let kept = json!({"spec": {"ports": [{"name": "a", "protocol": "TCP"}], "value": "100k", "more": 1}});
    assert_eq!(
        pruned(&sent, &kept),
        [r#".spec.ports[0].prot: "TCP" became null"#]
    );
    let fewer = json!({"spec": {"ports": [], "value": "100000"}});
    assert_eq!(pruned(&sent, &fewer).len(), 1);
}

/// Every object of every variation, judged by the API server against its own schemas; and nothing of it is dropped in silence.
#[test]
fn kube_chart_objects_are_accepted_by_the_api_server_and_their_documents_by_bulkhead() -> Result<()> {
    let root = root();
    let env = KubeEnv::start()?;
    let admin = env.client("admin")?;
    define(&env)?;
    for namespace in [NAMESPACE, "shop", "payments", "ingress-nginx"] {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        admin.post("/api/v1/namespaces", &object)?.expect(201)?;
    }
    let kubeconfig = env.kubeconfig_file("admin")?;
    let kubeconfig = kubeconfig.to_string_lossy();
    let mut texts = Vec::new();
    for sample in ["ingress-controllers.yaml", "segment-web.yaml"] {
        let text = fs::read_to_string(root.join("deploy/helm/samples").join(sample))?;
        texts.push((sample.to_owned(), text));
    }
    for variation in chart::variations(&root)? {
        // For the API groups of this very server.
        let more = ["--validate", "--kubeconfig", &kubeconfig];
        let text = chart::template(env.parts(), &root, &variation.values, &more)
            .with_context(|| format!("{} is refused", variation.name))?;
        texts.push((variation.name, text));
    }
    let (mut judged, mut documents) = (0, 0);
    for (from, text) in texts {
        for object in objects(&env, &text)? {
            let name = format!("{from}: {} {}", object["kind"], object["metadata"]["name"]);
            let path = format!("{}?dryRun=All&force=true", path_of(&object)?);
            let answer = admin.apply(&path, "chart", &object)?;
            ensure!(matches!(answer.status, 200 | 201), "{name}: {:#}", answer.body);
            let dropped = pruned(&object, &answer.body);
            ensure!(
                dropped.is_empty(),
                "{name}: the API server does not know {dropped:?}"
            );
            judged += 1;
            // What an attachment says is text to the API server, and JSON to Multus.
            if let Some(config) = object["spec"]["config"].as_str() {
                let config: Value = serde_json::from_str(config).with_context(|| name.clone())?;
                ensure!(config["cniVersion"].is_string(), "{name}: {config}");
            }
            documents += read_document(&object).with_context(|| name)?;
        }
    }
    println!("{judged} objects judged, {documents} documents read");
    assert!(
        judged > 60 && documents >= 6,
        "{judged} objects, {documents} documents"
    );
    Ok(())
}

/// How many documents of Bulkhead are in the object; all must be accepted.
fn read_document(object: &Value) -> Result<usize> {
    let document = match object["kind"].as_str() {
        Some("Firewall") => json!({
            "apiVersion": object["apiVersion"], "kind": "Firewall",
            "metadata": {"name": object["metadata"]["name"]}, "spec": object["spec"],
        })
        .to_string(),
        Some("ConfigMap") => match object["data"]["firewall.yaml"].as_str() {
            Some(document) => document.to_owned(),
            None => return Ok(0),
        },
        _ => return Ok(0),
    };
    match bulkhead_config::parse("firewall.yaml", &document) {
        Ok(_) => Ok(1),
        Err(faults) => anyhow::bail!("bulkhead refuses the document: {faults}"),
    }
}

/// Installed, changed and taken off by helm; and what the firewall's account may do in between.
#[test]
fn kube_chart_installs_upgrades_and_uninstalls_with_the_rights_it_needs_and_no_more() -> Result<()> {
    let root = root();
    let env = KubeEnv::start()?;
    let admin = env.client("admin")?;
    define(&env)?;
    let kubeconfig = env.kubeconfig_file("admin")?;
    let values = |name: &str| Variation {
        name: name.to_owned(),
        values: root.join(format!("deploy/helm/variations/{name}.yaml")),
    };
    let helm = |arguments: &[&str]| {
        let mut helm = Command::new(&env.parts().helm);
        helm.args(arguments)
            .args(["--namespace", NAMESPACE, "--kubeconfig"])
            .arg(&kubeconfig)
            // Its own files, beside the environment's.
            .env("HOME", env.directory());
        chart::output(&mut helm)
    };
    let chart_path = chart::chart(&root);
    let chart_path = chart_path.to_string_lossy();
    let upgrade = |variation: &Variation, more: &[&str]| {
        let values = variation.values.to_string_lossy();
        let start = [
            "upgrade",
            "--install",
            RELEASE,
            &chart_path,
            "--create-namespace",
            "--values",
            &values,
        ];
        helm(&[&start, more].concat())
    };

    let notes = upgrade(&values("ingress-protection"), &[])?;
    assert!(
        notes.contains("guards 2 networks in the mode ingress: net1, net2"),
        "{notes}"
    );
    let deployment = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/edge-bulkhead");
    let made = admin.get(&deployment)?.expect(200)?;
    let pod = &made["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(
        container["args"],
        json!(["run", "--config-map=bulkhead/edge-bulkhead/firewall.yaml"])
    );
    let security = &container["securityContext"];
    assert_eq!(security["privileged"], false);
    assert_eq!(security["readOnlyRootFilesystem"], true);
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    assert_eq!(
        security["capabilities"]["add"],
        json!(["BPF", "NET_ADMIN", "NET_RAW", "PERFMON"])
    );

    let firewall = env.client_with_token(&env.service_account_token(NAMESPACE, "edge-bulkhead")?)?;
    let maps = format!("/api/v1/namespaces/{NAMESPACE}/configmaps");
    let own = format!("{maps}/edge-bulkhead");
    // Not by its path: it is found and followed by its name alone.
    firewall
        .get(&format!("{maps}?fieldSelector=metadata.name%3Dedge-bulkhead"))?
        .expect(200)?;
    let status = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "edge-bulkhead", "annotations": {"bulkhead.dev/status": "{}"}},
    });
    firewall.apply(&own, "edge-0", &status)?.expect(200)?;
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "edge.1"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal", "reason": "Applied", "action": "Commit",
        "reportingController": "bulkhead.dev/firewall", "reportingInstance": "edge-0",
        "regarding": {"kind": "ConfigMap", "namespace": NAMESPACE, "name": "edge-bulkhead", "apiVersion": "v1"},
    });
    let events = format!("/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events");
    firewall.post(&events, &event)?.expect(201)?;
    for beyond in [
        maps.as_str(),
        &own,
        &format!("{maps}/edge-bulkhead-dashboard"),
        &format!("/api/v1/namespaces/{NAMESPACE}/secrets"),
        &format!("/api/v1/namespaces/{NAMESPACE}/pods"),
        "/api/v1/pods",
        "/api/v1/namespaces",
        "/api/v1/nodes",
        &events,
    ] {
        firewall
            .get(beyond)?
            .expect(403)
            .with_context(|| format!("may read {beyond}"))?;
    }
    firewall
        .delete(&own)?
        .expect(403)
        .context("may delete its configuration")?;

    upgrade(&values("ingress-protection"), &["--set", "launch.size=xlarge"])?;
    let changed = admin.get(&deployment)?.expect(200)?.to_string();
    assert!(changed.contains("xlarge"), "{changed}");
    helm(&["uninstall", RELEASE])?;
    assert_eq!(admin.get(&deployment)?.status, 404);

    // The other end of the rights: everything that groups of pods need, of the whole cluster, and still nothing else. And a
    // configuration that is only mounted is followed nowhere.
    upgrade(&values("existing-configuration"), &[])?;
    let firewall = env.client_with_token(&env.service_account_token(NAMESPACE, "tenants")?)?;
    for path in ["/api/v1/pods", "/api/v1/namespaces"] {
        firewall.get(path)?.expect(200).with_context(|| path.to_owned())?;
    }
    for path in [
        "/api/v1/secrets",
        "/api/v1/nodes",
        "/api/v1/configmaps",
        "/apis/apps/v1/deployments",
    ] {
        firewall
            .get(path)?
            .expect(403)
            .with_context(|| format!("may read {path}"))?;
    }
    helm(&["uninstall", RELEASE])?;
    // And what teams' own policies take, in force with the setting that asks for it.
    upgrade(&values("multi-network-policies"), &[])?;
    let setting = json!({ "name": "BULKHEAD_NETWORK_POLICIES", "value": "on" });
    let made = admin.get(&deployment)?.expect(200)?;
    let variables = &made["spec"]["template"]["spec"]["containers"][0]["env"];
    assert!(
        variables.as_array().is_some_and(|all| all.contains(&setting)),
        "{variables}"
    );
    let firewall = env.client_with_token(&env.service_account_token(NAMESPACE, "edge-bulkhead")?)?;
    let policies = "/apis/k8s.cni.cncf.io/v1beta1/multi-networkpolicies";
    for path in ["/api/v1/pods", "/api/v1/namespaces", policies] {
        firewall.get(path)?.expect(200).with_context(|| path.to_owned())?;
    }
    let elsewhere = "/apis/events.k8s.io/v1/namespaces/default/events";
    let mut event = event;
    event["regarding"]["namespace"] = json!("default");
    firewall.post(elsewhere, &event)?.expect(201)?;
    for path in ["/api/v1/secrets", "/api/v1/configmaps", elsewhere] {
        firewall
            .get(path)?
            .expect(403)
            .with_context(|| format!("may read {path}"))?;
    }
    helm(&["uninstall", RELEASE])?;
    upgrade(&values("minimal"), &[])?;
    let firewall = env.client_with_token(&env.service_account_token(NAMESPACE, "edge-bulkhead")?)?;
    // A mounted configuration may be read by its name, for its status, and is not found or followed.
    firewall.get(&own)?.expect(200)?;
    firewall.apply(&own, "edge-0", &status)?.expect(200)?;
    firewall.get(&maps)?.expect(403)?;
    let mut another = event;
    another["metadata"]["name"] = json!("edge.2");
    firewall.post(&events, &another)?.expect(201)?;
    upgrade(&values("minimal"), &["--set", "rbac.events=false"])?;
    another["metadata"]["name"] = json!("edge.3");
    firewall.post(&events, &another)?.expect(403)?;
    upgrade(&values("minimal"), &["--set", "rbac.status=false"])?;
    firewall.get(&own)?.expect(403)?;
    Ok(())
}

/// A right as a role has it: where, the API group, the resource, the verbs, and whether it is about one object alone.
type Right = (String, String, String, BTreeSet<String>, bool);

/// What the roles among these objects grant; `*` is the cluster.
fn granted(objects: &[Value]) -> Result<BTreeSet<Right>> {
    let texts = |value: &Value| -> BTreeSet<String> {
        let items = value.as_array().into_iter().flatten();
        items
            .filter_map(|item| item.as_str().map(str::to_owned))
            .collect()
    };
    let mut rights = BTreeSet::new();
    for object in objects {
        let place = match object["kind"].as_str() {
            Some("Role") => object["metadata"]["namespace"].as_str().context("no namespace")?,
            Some("ClusterRole") => "*",
            _ => continue,
        };
        for rule in object["rules"].as_array().context("no rules")? {
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    let verbs = texts(&rule["verbs"]);
                    let names = texts(&rule["resourceNames"]);
                    ensure!(names.len() <= 1, "more than one object: {rule}");
                    ensure!(
                        rights.insert((
                            place.to_owned(),
                            group.clone(),
                            resource,
                            verbs,
                            !names.is_empty()
                        )),
                        "granted twice: {rule}"
                    );
                }
            }
        }
    }
    Ok(rights)
}

/// The chart and the code say the same of what is asked of the API, whatever the configuration's source is and whatever its
/// groups follow: nothing is missing, and nothing is granted that nobody asks for.
#[test]
fn kube_chart_grants_what_the_code_asks_for_and_nothing_else() -> Result<()> {
    let root = root();
    let env = KubeEnv::start()?;
    let minimal = root.join("deploy/helm/variations/minimal.yaml");
    let rendered = |set: &str| {
        let show = ["--show-only", "templates/rbac.yaml", "--set", set];
        chart::template(env.parts(), &root, &minimal, &show)
    };
    let sources = [
        ("mounted", &[Need::Mounted, Need::MountedStatus][..]),
        ("configMap", &[Need::ConfigMap]),
        ("firewall", &[Need::Firewall]),
    ];
    let groups: [(&str, &[Need], &[&str]); 9] = [
        ("rbac.podGroups=false", &[], &[]),
        ("rbac.events=false", &[], &[]),
        ("rbac.status=false", &[], &[]),
        ("rbac.status=false,rbac.events=false", &[], &[]),
        (
            "rbac.podGroups=true",
            &[Need::Pods, Need::NamespaceSelector],
            &["*"],
        ),
        (
            "rbac.addressGroupNamespaces={shop,payments}",
            &[Need::AddressGroups],
            &["shop", "payments"],
        ),
        // Their names are in the configuration, so namespaces are not asked for.
        (
            "rbac.podGroups=true,rbac.podGroupNamespaces={shop,payments}",
            &[Need::Pods],
            &["shop", "payments"],
        ),
        ("multiNetworkPolicies=true", &[Need::NetworkPolicies], &["*"]),
        // They take more than the groups do.
        (
            "multiNetworkPolicies=true,rbac.podGroups=true,rbac.podGroupNamespaces={shop}",
            &[Need::NetworkPolicies],
            &["*"],
        ),
    ];
    for (source, of_source) in sources {
        for (set, of_groups, places) in groups {
            let set = format!("configuration.source={source},{set}");
            let right = |place: &str, permission: &bulkhead_kube::rbac::Permission| -> Right {
                let verbs = permission.verbs.iter().map(|verb| (*verb).to_owned()).collect();
                (
                    place.to_owned(),
                    permission.group.to_owned(),
                    permission.resource.to_owned(),
                    verbs,
                    permission.one_object,
                )
            };
            // Whoever follows an object has a status and events; of a mounted file either is a matter of choice.
            let unsaid = |value: &str, need: Need, of: &Need| set.contains(value) && *of == need;
            let said = |of: &&Need| {
                !unsaid("rbac.events=false", Need::Mounted, of)
                    && !unsaid("rbac.status=false", Need::MountedStatus, of)
            };
            let of_source: Vec<Need> = of_source.iter().filter(said).copied().collect();
            let mut asked: BTreeSet<Right> = permissions(&of_source)
                .map(|permission| right(NAMESPACE, permission))
                .collect();
            for place in places {
                asked.extend(permissions(of_groups).map(|permission| right(place, permission)));
            }
            if asked.is_empty() {
                // helm's way to say that nothing is rendered.
                let Err(error) = rendered(&set) else {
                    panic!("{set}: rights that nobody asks for");
                };
                let said = format!("{error:#}");
                ensure!(said.contains("could not find template"), "{said}");
                continue;
            }
            let objects = objects(&env, &rendered(&set)?)?;
            assert_eq!(granted(&objects)?, asked, "{set}");
            let bindings = objects.iter().filter(|object| {
                object["kind"]
                    .as_str()
                    .is_some_and(|kind| kind.ends_with("Binding"))
            });
            assert_eq!(bindings.count() * 2, objects.len(), "{set}: each role is bound");
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

/// The dashboard and what the number of replicas follows speak of metrics that there are; and the chart's dashboard is the one that
/// is kept for everybody.
#[test]
fn kube_chart_dashboard_and_samples_name_metrics_that_there_are() -> Result<()> {
    let root = root();
    let read = |path: &str| fs::read_to_string(root.join(path)).with_context(|| path.to_owned());
    let metrics = read("deploy/docs/metrics.md")?;
    let mut expressions = Vec::new();
    let dashboard: Value = serde_json::from_str(&read("deploy/dashboards/bulkhead.json")?)?;
    for panel in dashboard["panels"].as_array().context("no panels")? {
        let place = &panel["gridPos"];
        let (x, w) = (place["x"].as_u64(), place["w"].as_u64());
        ensure!(
            x.zip(w).is_some_and(|(x, w)| x + w <= 24),
            "off the grid: {panel}"
        );
        let targets = panel["targets"].as_array().context("a panel without targets")?;
        expressions.extend(
            targets
                .iter()
                .filter_map(|target| target["expr"].as_str().map(str::to_owned)),
        );
    }
    let adapter = read("deploy/helm/samples/prometheus-adapter.yaml")?;
    expressions.extend(
        adapter
            .lines()
            .filter(|line| line.contains("seriesQuery:"))
            .map(str::to_owned),
    );
    ensure!(expressions.len() > 20, "{expressions:?}");
    for expression in &expressions {
        let words = expression.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let names: Vec<_> = words.filter(|word| word.starts_with("bulkhead_")).collect();
        ensure!(!names.is_empty(), "no metric in {expression}");
        for name in names {
            ensure!(
                metrics.contains(&format!("| `{name}` |")),
                "{name} is no metric: {expression}"
            );
        }
    }
    let golden = read("deploy/helm/golden/ingress-protection.yaml")?;
    for expression in expressions
        .iter()
        .filter(|expression| !expression.contains("seriesQuery"))
    {
        let quoted = Value::from(expression.as_str()).to_string();
        ensure!(
            golden.contains(&quoted),
            "the chart carries another dashboard: {expression}"
        );
    }
    Ok(())
}
