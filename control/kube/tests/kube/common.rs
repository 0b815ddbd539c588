//! A firewall that is a list, and an API server that is a real one. Each test binary uses its own part.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bulkhead_config::PodSelection;
use bulkhead_kube::mnp::Isolation;
use bulkhead_kube::rbac::{PERMISSIONS, Permission};
use bulkhead_kube::{
    Agent, Document, FoundPods, InForce, Kubernetes, NotIsolated, ObjectMembers, Place, Reason, Refusal,
    Settings, crd,
};
use bulkhead_kube_env::{Client, KubeEnv, Options, User, chart};
use serde_json::{Value, json};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// The user that has the permissions of a firewall and no other.
pub const USER: &str = "firewall";

/// What is asked for in the namespace of the object that has the configuration.
const NAMESPACED: [&str; 4] = ["configmaps", "firewalls", "firewalls/status", "events"];

/// Judges documents as the daemon does and remembers what it took.
#[derive(Debug, Default)]
pub struct Recorder {
    inner: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    commits: Vec<(Document, Instant)>,
    refusals: usize,
    selections: Vec<(String, PodSelection)>,
    objects: Vec<String>,
    /// What objects come to, and why that may be old.
    members: BTreeMap<String, (Option<ObjectMembers>, Option<String>)>,
    /// Why members are not taken.
    full: Option<String>,
    found: BTreeMap<String, Found>,
    isolations: Vec<Isolation>,
    /// What the next isolations meet.
    refuse: Option<NotIsolated>,
    snapshot: Option<Vec<u8>>,
    policies_unknown: Option<String>,
    /// What is wrong with it.
    impaired: Option<String>,
    policies_refused: Option<String>,
    /// How often it was said that the policies are known.
    policies_known: usize,
}

/// What was said of the pods of a group.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The last pods.
    pub pods: FoundPods,
    /// How often there were others.
    pub times: usize,
    /// All of them in their order, the last one too.
    pub history: Vec<FoundPods>,
    /// Why they may be others by now.
    pub unknown: Option<String>,
}

impl Recorder {
    /// The documents that were taken, and when.
    pub fn commits(&self) -> Vec<(Document, Instant)> {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .commits
            .clone()
    }

    /// Follows the pods of a group.
    pub fn select(&self, group: &str, selection: PodSelection) {
        let mut recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.selections.push((group.to_owned(), selection));
    }

    /// Follows objects `AddressGroup`.
    pub fn refer(&self, objects: &[&str]) {
        let mut recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.objects = objects.iter().map(|object| (*object).to_owned()).collect();
    }

    /// What an object comes to, and why that may be old.
    pub fn members(&self, object: &str) -> (Option<ObjectMembers>, Option<String>) {
        let recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.members.get(object).cloned().unwrap_or_default()
    }

    /// Takes no members of objects from here on, or takes them again.
    pub fn fill_up(&self, why: Option<&str>) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).full = why.map(str::to_owned);
    }

    /// What was said of a group; `None`: nothing.
    pub fn found(&self, group: &str) -> Option<Found> {
        let recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.found.get(group).cloned()
    }

    /// The isolations that were put in force.
    pub fn isolations(&self) -> Vec<Isolation> {
        let recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.isolations.clone()
    }

    /// What isolations meet from here on.
    pub fn refuse(&self, with: Option<NotIsolated>) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).refuse = with;
    }

    /// What was kept of the policies for another start.
    pub fn snapshot(&self) -> Option<Vec<u8>> {
        let recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.snapshot.clone()
    }

    /// Why nobody can say which policies there are.
    pub fn policies_unknown(&self) -> Option<String> {
        let recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.policies_unknown.clone()
    }

    /// Something is wrong with it from here on, or nothing.
    pub fn impair(&self, problem: Option<&str>) {
        let mut recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.impaired = problem.map(str::to_owned);
    }

    /// Why what the API asks for is not in force.
    pub fn policies_refused(&self) -> Option<String> {
        let recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.policies_refused.clone()
    }

    /// How often it was said that the policies are known.
    pub fn policies_known(&self) -> usize {
        let recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.policies_known
    }

    /// How many documents were refused.
    pub fn refusals(&self) -> usize {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).refusals
    }

    /// Waits until so many documents were taken; the last one and its time.
    pub fn wait(&self, number: usize) -> Result<(Document, Instant)> {
        eventually("documents are taken", || {
            let commits = self.commits();
            Ok((commits.len() >= number).then(|| commits[number - 1].clone()))
        })
    }
}

impl Agent for Recorder {
    fn commit(&self, document: &Document) -> Result<(), Refusal> {
        let mut recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(diagnostics) = bulkhead_config::parse(&document.name, &document.text) {
            recorded.refusals += 1;
            return Err(Refusal {
                reason: Reason::Invalid,
                message: diagnostics.to_string(),
            });
        }
        if recorded
            .commits
            .last()
            .is_none_or(|(last, _)| last.hash != document.hash)
        {
            recorded.commits.push((document.clone(), Instant::now()));
        }
        Ok(())
    }

    fn in_force(&self) -> Option<InForce> {
        let recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, _) = recorded.commits.last()?;
        Some(InForce {
            revision: recorded.commits.len() as u64,
            generation: recorded.commits.len() as u32 + 10,
            hash: last.hash.clone(),
            by: "test".to_owned(),
            problems: recorded.impaired.iter().cloned().collect(),
        })
    }

    fn pod_groups(&self) -> Vec<(String, PodSelection)> {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .selections
            .clone()
    }

    fn set_pods(&self, group: &str, _selection: &PodSelection, found: &FoundPods) -> bool {
        let mut recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = recorded.found.entry(group.to_owned()).or_default();
        (entry.pods, entry.unknown) = (found.clone(), found.unknown.clone());
        entry.times += 1;
        entry.history.push(found.clone());
        true
    }

    fn pods_unknown(&self, group: &str, _selection: &PodSelection, error: &str) {
        let mut recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.found.entry(group.to_owned()).or_default().unknown = Some(error.to_owned());
    }

    fn isolate(&self, isolation: &Isolation) -> Result<(), NotIsolated> {
        let mut recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match &recorded.refuse {
            Some(refusal) => Err(refusal.clone()),
            None => {
                recorded.isolations.push(isolation.clone());
                Ok(())
            }
        }
    }

    fn policies_refused(&self, error: Option<&str>) {
        let mut recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.policies_refused = error.map(str::to_owned);
    }

    fn keep_snapshot(&self, snapshot: &[u8]) -> Result<(), String> {
        let mut recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.snapshot = Some(snapshot.to_vec());
        Ok(())
    }

    fn snapshot(&self) -> Option<Vec<u8>> {
        Self::snapshot(self)
    }

    fn policies_unknown(&self, error: Option<&str>) {
        let mut recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.policies_unknown = error.map(str::to_owned);
        recorded.policies_known += usize::from(error.is_none());
    }

    fn address_groups(&self) -> Vec<String> {
        let recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.objects.clone()
    }

    fn set_address_group(&self, object: &str, members: &ObjectMembers) -> Result<(), String> {
        let mut recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &recorded.full {
            return Err(why.clone());
        }
        let said = (Some(members.clone()), None);
        recorded.members.insert(object.to_owned(), said);
        Ok(())
    }

    fn address_group_unknown(&self, object: &str, error: &str) {
        let mut recorded = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.members.entry(object.to_owned()).or_default().1 = Some(error.to_owned());
    }
}

/// An API server whose end is the end of a test: [`USER`] must have asked for nothing that a role does not grant.
#[derive(Debug)]
pub struct Server(KubeEnv);

impl std::ops::Deref for Server {
    type Target = KubeEnv;

    fn deref(&self) -> &KubeEnv {
        &self.0
    }
}

impl std::ops::DerefMut for Server {
    fn deref_mut(&mut self) -> &mut KubeEnv {
        &mut self.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let asked = self.0.asked(USER).expect("the audit log");
        assert!(!asked.is_empty(), "nothing was asked at all");
        let beyond = self.0.refused(USER).expect("the audit log");
        assert!(beyond.is_empty(), "beyond what the role grants: {beyond:#?}");
    }
}

/// An API server with [`USER`], who may do what [`PERMISSIONS`] says, to objects named `edge` where a role names one.
pub fn server() -> Result<Server> {
    let env = KubeEnv::with(Options {
        users: vec![User {
            name: USER.to_owned(),
            groups: Vec::new(),
        }],
        ..Options::default()
    })?;
    let admin = env.client("admin")?;
    // As the chart has it: what the one object is about in its namespace alone, the rest in all.
    let (own, all): (Vec<&Permission>, Vec<&Permission>) = PERMISSIONS
        .iter()
        .partition(|permission| NAMESPACED.contains(&permission.resource));
    for (kind, collection, permissions) in [
        ("Role", "namespaces/default/role", own),
        ("ClusterRole", "clusterrole", all),
    ] {
        let rules: Vec<Value> = permissions
            .into_iter()
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
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
            "metadata": { "name": "firewall" }, "rules": rules,
        });
        let path = format!("/apis/rbac.authorization.k8s.io/v1/{collection}");
        admin.post(&format!("{path}s"), &role)?.expect(201)?;
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"),
            "metadata": { "name": "firewall" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "firewall" },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER }],
        });
        admin.post(&format!("{path}bindings"), &binding)?.expect(201)?;
    }
    Ok(Server(env))
}

/// Makes the custom resources known, and waits until they are served.
pub fn define(admin: &Client) -> Result<()> {
    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    for definition in [crd::firewall(), crd::address_group()] {
        let plural = definition["spec"]["names"]["plural"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        admin.post(DEFINITIONS, &definition)?.expect(201)?;
        eventually("the API server takes the definition", || {
            let path = format!("{DEFINITIONS}/{plural}.bulkhead.dev");
            let definition = admin.get(&path)?.expect(200)?;
            let conditions = definition["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            if let Some(wrong) = conditions
                .iter()
                .find(|condition| condition["type"] == "NonStructuralSchema" && condition["status"] == "True")
            {
                bail!("the schema is not structural: {wrong}");
            }
            let path = format!("/apis/bulkhead.dev/v1alpha1/namespaces/default/{plural}");
            Ok((admin.get(&path)?.status == 200).then_some(()))
        })?;
    }
    Ok(())
}

/// An instance that follows an object with the permissions of [`USER`].
pub fn follow(config: PathBuf, place: Place, name: &str) -> Result<(Kubernetes, Arc<Recorder>)> {
    let recorder = Arc::new(Recorder::default());
    Ok((start(config, Some(place), name, &recorder)?, recorder))
}

/// The same for a firewall that is there already.
pub fn start(
    config: PathBuf,
    place: Option<Place>,
    name: &str,
    recorder: &Arc<Recorder>,
) -> Result<Kubernetes> {
    start_with(config, place, name, false, recorder)
}

/// One that may follow network policies too.
pub fn start_with(
    config: PathBuf,
    place: Option<Place>,
    name: &str,
    network_policies: bool,
    recorder: &Arc<Recorder>,
) -> Result<Kubernetes> {
    // The second time there is one.
    let _ = tracing_subscriber::fmt().with_test_writer().try_init();
    let settings = Settings {
        place,
        mounted: None,
        kubeconfig: Some(config),
        instance: name.to_owned(),
        network_policies,
        pod: None,
    };
    Ok(Kubernetes::start(settings, recorder.clone())?)
}

/// What kubectl prints to the cluster's owner.
pub fn kubectl(env: &KubeEnv, arguments: &[&str]) -> Result<String> {
    let mut kubectl = Command::new(&env.parts().kubectl);
    kubectl
        .args(arguments)
        .arg("--kubeconfig")
        .arg(env.kubeconfig_file("admin")?)
        .env("HOME", env.directory());
    chart::output(&mut kubectl)
}

/// The one line of a table of `kubectl get` by its columns, without the age, which every table ends with.
pub fn columns(table: &str) -> Result<Vec<(&str, &str)>> {
    let mut lines = table.lines().map(|line| line.split_whitespace());
    let (Some(head), Some(line), None) = (lines.next(), lines.next(), lines.next()) else {
        bail!("not a table of one line:\n{table}");
    };
    let mut columns: Vec<(&str, &str)> = head.zip(line).collect();
    match columns.pop() {
        Some(("AGE", _)) => Ok(columns),
        other => bail!("the last column is {other:?}:\n{table}"),
    }
}

/// Asks until there is an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().with_context(|| what.to_owned())? {
            return Ok(answer);
        }
        if began.elapsed() > PATIENCE {
            bail!("not within {} s: {what}", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A sound document whose zones tell it from others.
pub fn document(zone: &str) -> String {
    format!(
        "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: {{ name: edge }}\nspec:\n  zones: [{{ name: {zone} }}]\n  interfaces: [{{ name: net1, zone: {zone} }}]\n"
    )
}

/// The same as `spec` of a custom resource.
pub fn spec(zone: &str) -> Value {
    json!({ "zones": [{ "name": zone }], "interfaces": [{ "name": "net1", "zone": zone }] })
}
