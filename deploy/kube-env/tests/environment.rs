//! The environment itself, by what the tests that stand on it rely on.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use bulkhead_kube_env::{Client, KubeEnv, Options, User};
use serde_json::{Value, json};

const WIDGETS: &str = "/apis/test.bulkhead.dev/v1/namespaces/default/widgets";

fn widget_definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.test.bulkhead.dev"},
        "spec": {
            "group": "test.bulkhead.dev",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"size": {"type": "integer", "minimum": 1}}},
                    "status": {"type": "object", "properties": {"seen": {"type": "integer"}}},
                }}},
            }],
        },
    })
}

fn widget(size: i64) -> Value {
    json!({
        "apiVersion": "test.bulkhead.dev/v1", "kind": "Widget",
        "metadata": {"name": "one"}, "spec": {"size": size},
    })
}

/// A defined type is served a moment after its definition was taken.
fn define_widgets(admin: &Client) -> Result<()> {
    admin
        .post(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            &widget_definition(),
        )?
        .expect(201)?;
    let began = Instant::now();
    while admin.get(WIDGETS)?.status != 200 {
        anyhow::ensure!(
            began.elapsed() < Duration::from_secs(20),
            "widgets are not served"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn config_map(name: &str, text: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": text}})
}

#[test]
fn kube_env_defines_types_applies_on_the_server_and_watches() -> Result<()> {
    let began = Instant::now();
    let env = KubeEnv::start()?;
    println!("ready after {:.1} s", began.elapsed().as_secs_f64());
    let admin = env.client("admin")?;
    let version = admin.get("/version")?.expect(200)?;
    assert_eq!(version["gitVersion"], "v1.20.2");
    define_widgets(&admin)?;

    let one = format!("{WIDGETS}/one");
    let made = admin.apply(&one, "first", &widget(1))?.expect(201)?;
    let revision = made["metadata"]["resourceVersion"]
        .as_str()
        .expect("a revision")
        .to_owned();

    let conflict = admin.apply(&one, "second", &widget(2))?.expect(409)?;
    let message = conflict["message"].as_str().unwrap_or_default();
    assert!(
        message.contains("first") && message.contains(".spec.size"),
        "{message}"
    );
    admin.apply(&one, "first", &widget(3))?.expect(200)?;
    let refused = admin.apply(&one, "first", &widget(0))?.expect(422)?;
    assert!(
        refused["message"]
            .as_str()
            .is_some_and(|m| m.contains("spec.size")),
        "{refused}"
    );
    // The status is a resource of its own.
    admin
        .merge(&format!("{one}/status"), &json!({"status": {"seen": 3}}))?
        .expect(200)?;
    admin.delete(&one)?.expect(200)?;

    let events: Vec<_> = admin
        .watch(WIDGETS, &revision, 1)?
        .map(|event| {
            let event = event?;
            let (size, seen) = (
                &event["object"]["spec"]["size"],
                &event["object"]["status"]["seen"],
            );
            Ok((event["type"].clone(), size.clone(), seen.clone()))
        })
        .collect::<Result<_>>()?;
    assert_eq!(
        events,
        [
            (json!("MODIFIED"), json!(3), Value::Null),
            (json!("MODIFIED"), json!(3), json!(3)),
            (json!("DELETED"), json!(3), json!(3)),
        ]
    );
    Ok(())
}

#[test]
fn kube_env_refuses_what_no_role_allows() -> Result<()> {
    let env = KubeEnv::with(Options {
        users: vec![User {
            name: "reader".to_owned(),
            groups: vec!["readers".to_owned()],
        }],
        // Its certificate is for wherever it listens.
        address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)),
    })?;
    assert!(env.url().starts_with("https://127.0.0.2:"), "{}", env.url());
    let admin = env.client("admin")?;
    let maps = "/api/v1/namespaces/default/configmaps";
    admin.post(maps, &config_map("boot", "a"))?.expect(201)?;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "firewall"}});
    admin
        .post("/api/v1/namespaces/default/serviceaccounts", &account)?
        .expect(201)?;

    let reader = env.client("reader")?;
    let firewall = env.client_with_token(&env.service_account_token("default", "firewall")?)?;
    for client in [&reader, &firewall] {
        let refused = client.get(maps)?.expect(403)?;
        assert_eq!(refused["reason"], "Forbidden", "{refused}");
    }
    assert_eq!(env.client_with_token("made-up")?.get(maps)?.status, 401);
    assert!(env.client("nobody").is_err());

    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "read"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "read"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "read"},
        "subjects": [
            {"kind": "Group", "name": "readers", "apiGroup": "rbac.authorization.k8s.io"},
            {"kind": "ServiceAccount", "name": "firewall", "namespace": "default"},
        ],
    });
    admin.post(&format!("{roles}/roles"), &role)?.expect(201)?;
    admin
        .post(&format!("{roles}/rolebindings"), &binding)?
        .expect(201)?;
    for client in [&reader, &firewall] {
        // The authorizer hears of roles by a watch of its own.
        let began = Instant::now();
        while client.get(maps)?.status != 200 {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "the role takes no effect"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(client.delete(&format!("{maps}/boot"))?.status, 403);
        assert_eq!(
            client.get("/api/v1/namespaces/kube-system/configmaps")?.status,
            403
        );
    }
    Ok(())
}

#[test]
fn kube_env_keeps_its_state_while_the_api_server_is_gone_and_expires_watches() -> Result<()> {
    let mut env = KubeEnv::start()?;
    let admin = env.client("admin")?;
    let maps = "/api/v1/namespaces/default/configmaps";
    let made = admin.post(maps, &config_map("boot", "a"))?.expect(201)?;
    let revision = made["metadata"]["resourceVersion"]
        .as_str()
        .expect("a revision")
        .to_owned();
    admin
        .merge(&format!("{maps}/boot"), &json!({"data": {"text": "b"}}))?
        .expect(200)?;

    let url = env.url();
    env.stop_apiserver();
    assert!(admin.get(maps).is_err(), "nobody answers");
    let compacted = env.compact()?;
    assert!(compacted > revision.parse()?, "{compacted} is after {revision}");
    env.start_apiserver()?;
    assert_eq!(env.url(), url, "same place, same certificate");

    // A new client: the old one's pooled connections are not what is looked at here.
    let admin = env.client("admin")?;
    let boot = admin.get(&format!("{maps}/boot"))?.expect(200)?;
    assert_eq!(boot["data"]["text"], "b");
    let first = admin.watch(maps, &revision, 2)?.next().expect("an event")?;
    assert_eq!(
        (&first["type"], &first["object"]["code"]),
        (&json!("ERROR"), &json!(410)),
        "{first}"
    );
    Ok(())
}

/// An environment in a process of its own, what it prints, and its directory.
fn in_a_process() -> Result<(Child, BufReader<ChildStdout>, PathBuf)> {
    let mut process = Command::new(env!("CARGO_BIN_EXE_bulkhead-kube-env"))
        .stdout(Stdio::piped())
        .spawn()?;
    let mut output = BufReader::new(process.stdout.take().context("no output")?);
    let mut line = String::new();
    while output.read_line(&mut line)? > 0 {
        if let Some(kubeconfig) = line.strip_prefix("kubeconfig:") {
            let directory = Path::new(kubeconfig.trim()).parent().context("no directory")?;
            let directory = directory.to_path_buf();
            return Ok((process, output, directory));
        }
        line.clear();
    }
    let status = process.wait()?;
    anyhow::bail!("ended before it was ready: {status}")
}

/// How many processes have the directory in their command lines.
fn processes_of(directory: &Path) -> Result<usize> {
    let directory = directory.to_str().context("not UTF-8")?;
    let entries = fs::read_dir("/proc")?.flatten();
    // A process may be gone before it is looked at.
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    Ok(lines
        .filter(|line| String::from_utf8_lossy(line).contains(directory))
        .count())
}

fn none_left(directory: &Path) -> Result<bool> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        if processes_of(directory)? == 0 {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(false)
}

#[test]
fn kube_env_leaves_no_server_behind_however_its_process_ends() -> Result<()> {
    let (mut process, _output, directory) = in_a_process()?;
    assert!(processes_of(&directory)? >= 2, "etcd and the API server run");
    let told = Command::new("kill")
        .args(["-TERM", &process.id().to_string()])
        .status()?;
    assert!(told.success() && process.wait()?.success());
    assert!(none_left(&directory)?, "SIGTERM leaves servers behind");
    assert!(!directory.exists(), "SIGTERM leaves files behind");

    let (mut process, _output, directory) = in_a_process()?;
    assert!(processes_of(&directory)? >= 2, "etcd and the API server run");
    process.kill()?;
    process.wait()?;
    assert!(none_left(&directory)?, "SIGKILL leaves servers behind");
    // Nobody was there to do it.
    fs::remove_dir_all(&directory)?;
    Ok(())
}
