//! Replicas in front of ingress controllers: real daemons side by side, as the chart starts them, with one ConfigMap and one API.
//!
//! What they are told is rendered from the chart's variation `ingress-protection`: the configuration, the account and its rights,
//! arguments and variables of the container. Only the size of the tables is another, for the machine's sake. What stays with the
//! test is the cluster's part: interfaces, pods' names, and the router that asks `/readyz` and follows the answer.

mod site;

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;

use bulkhead_kube_env::{self as kube_env, KubeEnv, Options, chart};
use bulkhead_testkit::{Client, Namespace, Stream, TcpConversation, TcpServer, privileged};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use self::site::{API, CONTROLLERS, NEWCOMER, PUBLISHED, Place, REGULAR, Site};
use crate::address;
use crate::daemon::{Daemon, Launch};
use crate::kubernetes::until;
use crate::probes::get_from;

const ACCOUNT: &str = "system:serviceaccount:bulkhead:edge-bulkhead";
const MAP: &str = "/api/v1/namespaces/bulkhead/configmaps/edge-bulkhead";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/bulkhead/deployments/edge-bulkhead";

/// What of the chart an API server without other people's kinds takes, and a firewall needs.
const TEMPLATES: [&str; 4] = [
    "templates/configuration.yaml",
    "templates/deployment.yaml",
    "templates/rbac.yaml",
    "templates/serviceaccount.yaml",
];

/// The API with what the chart makes in it.
struct Release<'s> {
    /// From where its owner asks.
    namespace: &'s Namespace,
    owner: kube_env::Client,
    env: KubeEnv,
    /// The container of the Deployment's pods.
    container: Value,
    kubeconfig: PathBuf,
}

impl<'s> Release<'s> {
    fn install(site: &'s Site) -> Self {
        let options = Options {
            address: API.into(),
            ..Options::default()
        };
        let start = || KubeEnv::with(options);
        let env = site.cluster.run(start).expect("an API server");
        let owner = env.client("admin").expect("a client");
        let namespace =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "bulkhead" } });
        let create = || owner.post("/api/v1/namespaces", &namespace)?.expect(201);
        site.cluster.run(create).expect("a namespace");

        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let values = root.join("deploy/helm/variations/ingress-protection.yaml");
        let mut more = vec!["--set", "launch.size=small"];
        for template in TEMPLATES {
            more.extend(["--show-only", template]);
        }
        let text = chart::template(env.parts(), &root, &values, &more).expect("manifests");
        let manifests = env.directory().join("edge.yaml");
        fs::write(&manifests, text).expect("a file");
        let mut kubectl = Command::new(&env.parts().kubectl);
        kubectl
            .args(["create", "--filename"])
            .arg(&manifests)
            .arg("--kubeconfig")
            .arg(env.kubeconfig_file("admin").expect("a kubeconfig"))
            .env("HOME", env.directory());
        let create = || chart::output(&mut kubectl);
        site.cluster.run(create).expect("the chart's objects");

        let token = site
            .cluster
            .run(|| env.service_account_token("bulkhead", "edge-bulkhead"));
        let kubeconfig = env.directory().join("kubeconfig-of-the-account");
        fs::write(&kubeconfig, env.kubeconfig(&token.expect("a token"))).expect("a file");
        let mut release = Self {
            namespace: &site.cluster,
            owner,
            env,
            container: Value::Null,
            kubeconfig,
        };
        let deployment = release.read(DEPLOYMENT);
        release.container = deployment["spec"]["template"]["spec"]["containers"][0].clone();
        release
    }

    fn read(&self, path: &str) -> Value {
        let read = || self.owner.get(path)?.expect(200);
        self.namespace.run(read).expect("an object")
    }

    /// Changes the document that all have.
    fn configure(&self, text: &str) {
        let data = json!({ "data": { "firewall.yaml": text } });
        let merge = || self.owner.merge(MAP, &data)?.expect(200);
        self.namespace.run(merge).expect("a change");
    }

    /// Starts a pod's container, as a kubelet would.
    fn start(&self, place: &'s Place, pod: &'static str) -> Replica<'s> {
        let words = self.container["args"].as_array().expect("arguments");
        let (run, words) = words.split_first().expect("arguments");
        assert_eq!(run, "run");
        let mut arguments: Vec<&str> = words.iter().map(|word| word.as_str().expect("text")).collect();
        arguments.extend(["--kubeconfig", self.kubeconfig.to_str().expect("text")]);
        let mut launch = Launch::without_file().arguments(&arguments);
        for variable in self.container["env"].as_array().expect("variables") {
            let field = &variable["valueFrom"]["fieldRef"]["fieldPath"];
            let value = match field.as_str() {
                Some("metadata.name" | "metadata.uid") => pod,
                Some("metadata.namespace") => "bulkhead",
                Some(other) => panic!("{other} of the pod is not known here"),
                None => variable["value"].as_str().expect("a value"),
            };
            launch = launch.variable(variable["name"].as_str().expect("a name"), value);
        }
        Replica {
            place,
            pod,
            daemon: launch.begin_in(&place.namespace),
        }
    }

    /// What a pod's firewall says on the ConfigMap, if it says something.
    fn status(&self, pod: &str) -> Option<Value> {
        let annotations = &self.read(MAP)["metadata"]["annotations"];
        let text = annotations[format!("status.bulkhead.dev/{pod}")].as_str()?;
        Some(serde_json::from_str(text).expect("an entry"))
    }

    /// Waits until the firewalls of these pods, and of no others, say that this revision of theirs is in force.
    fn await_applied(&self, pods: &[(&str, u64)]) {
        let applied = |pod: &str, revision: u64| {
            let status = self.status(pod).unwrap_or_default();
            let conditions = status["conditions"].as_array();
            status["revision"] == revision
                && conditions
                    .into_iter()
                    .flatten()
                    .any(|condition| condition["type"] == "Applied" && condition["status"] == "True")
        };
        until(&format!("{pods:?} have it in force, and nobody else"), || {
            let entries = self.read(MAP)["metadata"]["annotations"].clone();
            let entries = entries.as_object().into_iter().flatten();
            entries
                .filter(|(name, _)| name.starts_with("status.bulkhead.dev/"))
                .count()
                == pods.len()
                && pods.iter().all(|(pod, revision)| applied(pod, *revision))
        });
    }
}

struct Replica<'s> {
    place: &'s Place,
    pod: &'static str,
    daemon: Daemon<'s>,
}

impl Replica<'_> {
    /// What a kubelet or a router's health check hears.
    fn readiness(&self, site: &Site) -> (u16, String) {
        get_from(&site.cluster, &format!("{}:9360", self.place.cluster), "/readyz")
    }

    /// The ports from which a visitor has sessions here.
    fn sessions_of(&self, visitor: Ipv4Addr) -> BTreeSet<u64> {
        let shown = self
            .daemon
            .json(&["show", "sessions", "--source", &visitor.to_string()]);
        let sessions = shown["sessions"].as_array().expect("sessions");
        sessions
            .iter()
            .map(|session| address(&session["in"], "source").1)
            .collect()
    }
}

/// One visit: a connection that has carried something, and the place it went by.
fn visit(site: &Site, visitor: Ipv4Addr) -> (&Place, TcpConversation) {
    let client = Client::new(&site.visitors).source((visitor, 0).into());
    let mut conversation = client
        .tcp(PUBLISHED)
        .expect("a socket")
        .answered()
        .expect("a connection");
    carries(&mut conversation);
    let seen_as = conversation.seen_as().ip();
    let by = |place: &&Place| IpAddr::from(place.ingress) == seen_as;
    let place = site.places.iter().find(by);
    (place.expect("a replica's own address"), conversation)
}

/// Visits until each of these places has had some.
fn visit_each<'s>(site: &'s Site, visitor: Ipv4Addr, places: [&'s Place; 2]) -> [Vec<TcpConversation>; 2] {
    let mut by = [const { Vec::new() }; 2];
    for _ in 0..64 {
        let (place, conversation) = visit(site, visitor);
        let known = places.iter().position(|known| known.edge == place.edge);
        by[known.expect("a place that has a route")].push(conversation);
        if by.iter().all(|conversations| conversations.len() >= 4) {
            break;
        }
    }
    let counts = by.each_ref().map(Vec::len);
    assert!(counts.iter().all(|count| *count >= 4), "{counts:?}");
    by
}

#[track_caller]
fn carries(conversation: &mut TcpConversation) {
    let outcome = conversation.exchange(10_000, 10_000).expect("a socket");
    outcome.answered().expect("an exchange");
}

fn ports(conversations: &[TcpConversation]) -> BTreeSet<u64> {
    let ports = conversations.iter().map(|held| held.local().port().into());
    ports.collect()
}

#[test]
fn kube_agent_replicas_keep_their_sessions_and_one_that_drains_gives_way_to_the_others() {
    if !privileged() {
        return;
    }
    let site = Site::new("bhk-rep");
    let release = Release::install(&site);
    let _controllers = CONTROLLERS.map(|address| {
        TcpServer::start(&site.controllers, (address, PUBLISHED.port()).into()).expect("a server")
    });
    let [first, second, third] = site.places.each_ref();
    let mut leaving = release.start(first, "edge-bulkhead-a");
    let mut staying = release.start(second, "edge-bulkhead-b");
    leaving.daemon.await_ready();
    staying.daemon.await_ready();
    for replica in [&leaving, &staying] {
        let (status, text) = replica.readiness(&site);
        assert_eq!(status, 200, "{}: {text}", replica.pod);
    }
    // Each has an entry of its own, and neither writes over the other's.
    release.await_applied(&[(leaving.pod, 1), (staying.pod, 1)]);

    // By either there is an answer, though the replicas know nothing of each other and the controllers nothing of the visitors.
    site.route_to(&[first, second]);
    let [mut by_leaving, mut by_staying] = visit_each(&site, REGULAR, [first, second]);
    assert_eq!(leaving.sessions_of(REGULAR), ports(&by_leaving));
    assert_eq!(staying.sessions_of(REGULAR), ports(&by_staying));
    let unbroken = by_staying.pop().expect("a conversation");
    let unbroken = Stream::start(unbroken, 10_000).expect("a stream");

    // A change reaches both, and ends nothing.
    let text = release.read(MAP)["data"]["firewall.yaml"].clone();
    let text = text.as_str().expect("a document");
    let changed = text.replace("name: visit\n", "name: visitors\n");
    assert_ne!(changed, text);
    release.configure(&changed);
    release.await_applied(&[(leaving.pod, 2), (staying.pod, 2)]);
    by_leaving.iter_mut().for_each(carries);
    by_staying.iter_mut().for_each(carries);

    // Told to stop it says so to whoever asks, and forwards what it has and what still comes.
    leaving.daemon.signal(Signal::SIGTERM);
    leaving.daemon.await_log("draining");
    let (status, text) = leaving.readiness(&site);
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("[-]not-stopping: "), "{text}");
    assert_eq!(staying.readiness(&site).0, 200);
    by_leaving.iter_mut().for_each(carries);
    drop(visit_each(&site, REGULAR, [first, second]));

    // Its share of what is new goes to the other, while it still carries what it has.
    site.keep_for(REGULAR, &[first, second]);
    site.route_to(&[second]);
    for _ in 0..8 {
        let (place, _closed) = visit(&site, NEWCOMER);
        assert_eq!(place.edge, second.edge);
    }
    assert!(leaving.sessions_of(NEWCOMER).is_empty());
    by_leaving.iter_mut().for_each(carries);
    assert_eq!(leaving.readiness(&site).0, 503);

    // A second signal spares the rest of the drain. What it had ends with it, it takes its entry along, and the other goes on.
    assert!(
        leaving.daemon.end(Signal::SIGTERM).success(),
        "{}",
        leaving.daemon.log()
    );
    let held = by_leaving.last_mut().expect("a conversation");
    assert!(!held.exchange(1, 1).expect("a socket").is_answered());
    by_staying.iter_mut().for_each(carries);
    unbroken.advance(20).expect("a stream that goes on");
    assert_eq!(visit(&site, NEWCOMER).0.edge, second.edge);
    release.await_applied(&[(staying.pod, 2)]);

    // A new one begins with what the ConfigMap says by now, and has its share as soon as it is ready.
    let mut coming = release.start(third, "edge-bulkhead-c");
    coming.daemon.await_ready();
    assert_eq!(coming.readiness(&site).0, 200);
    assert!(coming.daemon.text(&["show", "policies"]).contains("visitors"));
    site.route_to(&[second, third]);
    let [_, by_coming] = visit_each(&site, NEWCOMER, [second, third]);
    assert_eq!(coming.sessions_of(NEWCOMER), ports(&by_coming));
    release.await_applied(&[(staying.pod, 2), (coming.pod, 1)]);
    let report = unbroken.report();
    assert!(report.broken.is_none(), "{report:?}");

    // None of it took more than the chart's role grants.
    let beyond = release.env.refused(ACCOUNT).expect("the audit log");
    assert!(beyond.is_empty(), "{beyond:#?}");
    assert!(!release.env.asked(ACCOUNT).expect("the audit log").is_empty());
}
