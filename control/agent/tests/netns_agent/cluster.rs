//! A Kubernetes API in the firewall's namespace, and a firewall that may ask of it what a role grants and no more.
//!
//! Owns the rights of the daemon's user: those of [`PERMISSIONS`]. A call beyond them fails the test at its end, by the audit log
//! of the API server.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bulkhead_kube::crd;
use bulkhead_kube::rbac::PERMISSIONS;
use bulkhead_kube_env::{Answer, Client, KubeEnv, Options, User};
use bulkhead_testkit::Namespace;
use serde_json::{Value, json};

use crate::daemon::DEADLINE;

const USER: &str = "firewall";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1";

/// The API as a cluster's owner sees it.
pub struct Cluster<'n> {
    namespace: &'n Namespace,
    client: Client,
    pub env: KubeEnv,
}

impl<'n> Cluster<'n> {
    #[track_caller]
    pub fn start(namespace: &'n Namespace) -> Self {
        let options = Options {
            users: vec![User {
                name: USER.to_owned(),
                groups: Vec::new(),
            }],
            ..Options::default()
        };
        let env = namespace.run(|| KubeEnv::with(options)).expect("an API server");
        let cluster = Self {
            namespace,
            client: env.client("admin").expect("a client"),
            env,
        };
        let rules: Vec<Value> = PERMISSIONS
            .iter()
            .map(|permission| {
                let mut rule = json!({
                    "apiGroups": [permission.group],
                    "resources": [permission.resource],
                    "verbs": permission.verbs,
                });
                if permission.one_object {
                    rule["resourceNames"] = json!(["edge"]);
                }
                rule
            })
            .collect();
        cluster.create(
            &format!("{ROLES}/clusterroles"),
            &json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": { "name": "firewall" }, "rules": rules,
            }),
        );
        cluster.create(
            &format!("{ROLES}/clusterrolebindings"),
            &json!({
                "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                "metadata": { "name": "firewall" },
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "firewall" },
                "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER }],
            }),
        );
        cluster
    }

    /// Makes our own kinds known, as their definitions are in the repository, and waits until they are served.
    #[track_caller]
    pub fn define(&self) {
        for definition in [crd::firewall(), crd::address_group()] {
            self.create(
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
                &definition,
            );
            let plural = definition["spec"]["names"]["plural"].as_str().expect("a name");
            let path = format!("/apis/bulkhead.dev/v1alpha1/{plural}");
            let began = Instant::now();
            let served = || self.namespace.run(|| self.client.get(&path));
            while served().expect("an answer").status != 200 {
                assert!(began.elapsed() < DEADLINE, "{plural} are not served");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// What the daemon reaches the API with.
    #[track_caller]
    pub fn kubeconfig(&self) -> PathBuf {
        self.env.kubeconfig_file(USER).expect("a kubeconfig")
    }

    #[track_caller]
    fn ask(&self, status: u16, ask: impl FnOnce(&Client) -> anyhow::Result<Answer> + Send) -> Value {
        let answer = self.namespace.run(|| ask(&self.client));
        answer
            .and_then(|answer| answer.expect(status))
            .expect("an answer")
    }

    #[track_caller]
    pub fn create(&self, path: &str, object: &Value) -> Value {
        self.ask(201, |client| client.post(path, object))
    }

    #[track_caller]
    pub fn merge(&self, path: &str, change: &Value) -> Value {
        self.ask(200, |client| client.merge(path, change))
    }

    #[track_caller]
    pub fn delete(&self, path: &str) {
        self.ask(200, |client| client.delete(path));
    }

    #[track_caller]
    pub fn read(&self, path: &str) -> Value {
        self.ask(200, |client| client.get(path))
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let asked = self.env.asked(USER).expect("the audit log");
        assert!(!asked.is_empty(), "the daemon has asked for nothing");
        let beyond = self.env.refused(USER).expect("the audit log");
        assert!(beyond.is_empty(), "beyond what the role grants: {beyond:#?}");
    }
}
