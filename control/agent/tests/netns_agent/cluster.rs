//! A Kubernetes API in the firewall's namespace, and a firewall that may ask of it what the chart's roles grant and no more.
//!
//! Owns the rights of the daemon: it comes as the service account that the chart makes, with the roles that the chart renders for
//! the values a test names. A call beyond them fails the test at its end, by the audit log of the API server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bulkhead_kube::crd;
use bulkhead_kube_env::{Answer, Client, KubeEnv, chart, multi_network_policies};
use bulkhead_testkit::Namespace;
use serde_json::Value;

use crate::daemon::DEADLINE;

/// What the chart calls everything, and so the object that has the configuration.
pub const NAME: &str = "edge";
/// As whom the API server knows the daemon.
const ACCOUNT: &str = "system:serviceaccount:default:edge";

/// The API as a cluster's owner sees it.
pub struct Cluster<'n> {
    namespace: &'n Namespace,
    client: Client,
    pub env: KubeEnv,
}

impl<'n> Cluster<'n> {
    /// `values`: of the chart, such as `configuration.source=configMap`; they decide what the daemon may do.
    #[track_caller]
    pub fn start(namespace: &'n Namespace, values: &[&str]) -> Self {
        let env = namespace.run(KubeEnv::start).expect("an API server");
        let cluster = Self {
            namespace,
            client: env.client("admin").expect("a client"),
            env,
        };
        cluster.grant(values);
        cluster
    }

    /// Makes the account and the roles, as an installation of the chart in the namespace `default` would.
    #[track_caller]
    fn grant(&self, values: &[&str]) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let minimal = root.join("deploy/helm/variations/minimal.yaml");
        let name = format!("fullnameOverride={NAME}");
        let mut more = vec!["--namespace", "default", "--set", &name];
        for template in ["templates/serviceaccount.yaml", "templates/rbac.yaml"] {
            more.extend(["--show-only", template]);
        }
        for value in values {
            more.extend(["--set", value]);
        }
        let rendered = chart::template(self.env.parts(), &root, &minimal, &more).expect("the chart's roles");
        let file = self.env.directory().join("rights.yaml");
        fs::write(&file, rendered).expect("a file");
        self.kubectl(&["create", "--filename", file.to_str().expect("text")]);
    }

    /// What kubectl prints, asked by the cluster's owner.
    #[track_caller]
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let kubeconfig = self.env.kubeconfig_file("admin").expect("a kubeconfig");
        let mut kubectl = Command::new(&self.env.parts().kubectl);
        kubectl
            .args(arguments)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .env("HOME", self.env.directory());
        self.namespace
            .run(|| chart::output(&mut kubectl))
            .expect("kubectl")
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

    /// The same of MultiNetworkPolicy.
    #[track_caller]
    pub fn define_network_policies(&self) {
        let define = || self.client.define(&multi_network_policies());
        self.namespace.run(define).expect("a definition");
    }

    /// What the daemon reaches the API with: a token of its account, as a pod would have it.
    #[track_caller]
    pub fn kubeconfig(&self) -> PathBuf {
        let token = || self.env.service_account_token("default", NAME);
        let token = self.namespace.run(token).expect("a token");
        let file = self.env.directory().join("kubeconfig-of-the-daemon");
        fs::write(&file, self.env.kubeconfig(&token)).expect("a file");
        file
    }

    #[track_caller]
    fn ask(&self, status: u16, ask: impl FnOnce(&Client) -> anyhow::Result<Answer> + Send) -> Value {
        let answer = self.namespace.run(|| ask(&self.client));
        answer
            .and_then(|answer| answer.expect(status))
            .expect("an answer")
    }

    /// A pod is on a node and runs, too: no kubelet is here to do it.
    #[track_caller]
    pub fn create(&self, path: &str, object: &Value) -> Value {
        let created = self.ask(201, |client| client.post(path, object));
        if object["kind"] == "Pod" {
            let name = object["metadata"]["name"].as_str().expect("a name");
            let ran = self.namespace.run(|| self.client.run_pod("default", name));
            ran.expect("a pod that runs");
        }
        created
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

    /// The events about an object, by its id, as `kubectl describe` looks for them.
    #[track_caller]
    pub fn events(&self, uid: &str) -> Vec<Value> {
        let path = format!("/api/v1/namespaces/default/events?fieldSelector=involvedObject.uid={uid}");
        self.read(&path)["items"].as_array().cloned().unwrap_or_default()
    }

    /// Starts the API server again.
    #[track_caller]
    pub fn start_again(&mut self) {
        let env = &mut self.env;
        self.namespace
            .run(|| env.start_apiserver())
            .expect("the API server again");
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let asked = self.env.asked(ACCOUNT).expect("the audit log");
        assert!(!asked.is_empty(), "the daemon has asked for nothing");
        let beyond = self.env.refused(ACCOUNT).expect("the audit log");
        assert!(beyond.is_empty(), "beyond what the chart grants: {beyond:#?}");
    }
}
