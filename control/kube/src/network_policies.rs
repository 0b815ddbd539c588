//! MultiNetworkPolicies with the pods and namespaces that they speak of: followed, compiled, handed to the firewall.
//!
//! Owns when: nothing is compiled before the three lists are whole, and changes that come together are compiled together. What
//! they come to is [`crate::mnp`]'s, what becomes of it the firewall's. While the API is away what was handed over last
//! holds. What is not understood in an object is said in the log and as an event of the object, once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Api;
use kube::core::DynamicObject;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource as _, ResourceExt as _};
use tokio::time::{Instant, sleep_until};

use crate::agent::{Agent, NotIsolated};
use crate::follow::describe;
use crate::group::{self, Listed, Space, pods_of, running};
use crate::mnp::{Isolation, Labels, POLICY_FOR, Policy, Snapshot, World, resource};
use crate::pod::Pod;
use crate::report::{What, publish};
use crate::thread::Signals;
use crate::watch::watch;

/// Changes that are taken in together.
const TOGETHER: usize = 512;
/// How long a change waits for others: a pod that is relabelled is compiled once, and in time.
const GATHER: Duration = Duration::from_millis(20);
/// When what the firewall could not put in force is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// How often the disk is written at most.
const KEEP: Duration = Duration::from_secs(1);
/// Nothing is due.
const IDLE: Duration = Duration::from_secs(3_600);

/// What is followed.
#[derive(Clone, Copy, Debug)]
enum Watch {
    Policies,
    Pods,
    Namespaces,
}

/// Follows policies, pods and namespaces until told to stop.
pub async fn follow_network_policies(
    client: Client,
    instance: String,
    agent: Arc<dyn Agent>,
    mut signals: Signals,
) {
    let stop = signals.clone();
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource());
    let spaces: Api<Space> = Api::all(client.clone());
    let mut policies = watch(api, watcher::Config::default())
        .ready_chunks(TOGETHER)
        .boxed();
    let mut pods = watch(pods_of(&client, None), running())
        .ready_chunks(TOGETHER)
        .boxed();
    let mut spaces = watch(spaces, watcher::Config::default())
        .ready_chunks(TOGETHER)
        .boxed();
    let mut follower = Follower {
        client,
        instance,
        agent,
        policies: Listed::default(),
        pods: Listed::default(),
        namespaces: Listed::default(),
        failed: [false; 3],
        lost: false,
        due: None,
        wanted: None,
        handed: false,
        retry: None,
        keep: None,
        said: BTreeMap::new(),
        refused: String::new(),
    };
    loop {
        let next = follower.next();
        tokio::select! {
            biased;
            () = stop.stop() => return follower.keep_now(),
            Some(chunk) = policies.next() => for event in chunk {
                if let Some(event) = follower.heard(Watch::Policies, event) {
                    follower.policies.apply(event, key, |object, _| Known::new(object));
                }
            },
            Some(chunk) = pods.next() => for event in chunk {
                if let Some(event) = follower.heard(Watch::Pods, event) {
                    let new = |pod, before: Option<&Pod>| Pod::new(pod).remembering(before);
                    follower.pods.apply(event, group::key, new);
                }
            },
            Some(chunk) = spaces.next() => for event in chunk {
                if let Some(event) = follower.heard(Watch::Namespaces, event) {
                    let labels = |space: Space, _: Option<&Labels>| space.metadata.labels.unwrap_or_default();
                    follower.namespaces.apply(event, |space| space.name_any(), labels);
                }
            },
            // The firewall is up, or has another configuration.
            () = signals.changed() => follower.hand_over_if_it_has_nothing(),
            () = sleep_until(next) => {}
        }
        follower.turn();
    }
}

fn key(object: &DynamicObject) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// A policy, and what of its object is kept: what it is read from, and what an event is about.
#[derive(Debug)]
struct Known {
    object: DynamicObject,
    policy: Policy,
}

impl Known {
    fn new(object: DynamicObject) -> Self {
        let DynamicObject { metadata, data, .. } = object;
        let mut annotations = metadata.annotations.unwrap_or_default();
        annotations.retain(|key, _| key == POLICY_FOR);
        let object = DynamicObject {
            types: None,
            metadata: ObjectMeta {
                namespace: metadata.namespace,
                name: metadata.name,
                uid: metadata.uid,
                annotations: Some(annotations),
                ..ObjectMeta::default()
            },
            data: serde_json::json!({ "spec": data["spec"] }),
        };
        Self {
            policy: Policy::read(&object),
            object,
        }
    }
}

struct Follower {
    client: Client,
    instance: String,
    agent: Arc<dyn Agent>,
    policies: Listed<(String, String), Known>,
    pods: Listed<(String, String), Pod>,
    namespaces: Listed<String, Labels>,
    /// Which watches have failed and have no new list yet.
    failed: [bool; 3],
    /// It was said that nobody knows.
    lost: bool,
    /// When what has changed is compiled.
    due: Option<Instant>,
    /// What is to be in force; `None`: nobody knows yet.
    wanted: Option<Isolation>,
    /// The firewall has taken it.
    handed: bool,
    retry: Option<Instant>,
    /// When it is written to the disk.
    keep: Option<Instant>,
    /// The faults of each policy that were told of.
    said: BTreeMap<(String, String), Vec<String>>,
    /// Why the firewall has refused it, as it was told of.
    refused: String,
}

impl Follower {
    /// When something is due without anything happening.
    fn next(&self) -> Instant {
        let all = self.due.into_iter().chain(self.retry).chain(self.keep);
        let idle = Instant::now() + IDLE;
        all.min().unwrap_or(idle)
    }

    /// Takes in that a watch goes on, with an event, or does not.
    fn heard<T>(&mut self, watch: Watch, event: Result<Event<T>, watcher::Error>) -> Option<Event<T>> {
        match event {
            Ok(event) => {
                // What failed begins with a new list; that it is asked for proves nothing.
                if matches!(event, Event::InitDone) {
                    self.failed[watch as usize] = false;
                }
                self.due.get_or_insert_with(|| Instant::now() + GATHER);
                Some(event)
            }
            Err(error) => {
                let error = explained(watch, &error);
                match std::mem::replace(&mut self.lost, true) {
                    false => tracing::warn!(
                        error,
                        "the network policies are not known, the last ones stay in force"
                    ),
                    true => tracing::debug!(error, "the network policies are not known still"),
                }
                self.failed[watch as usize] = true;
                self.agent.policies_unknown(Some(&error));
                None
            }
        }
    }

    fn turn(&mut self) {
        let now = Instant::now();
        let is_due = |when: Option<Instant>| when.is_some_and(|when| when <= now);
        if is_due(self.due) {
            self.due = None;
            let whole = self.policies.is_whole() && self.pods.is_whole() && self.namespaces.is_whole();
            if whole {
                self.compile();
                self.tell();
            }
        }
        if !self.failed.contains(&true) && self.wanted.is_some() {
            self.agent.policies_unknown(None);
            if std::mem::take(&mut self.lost) {
                tracing::info!("the network policies are known again");
            }
        }
        if is_due(self.retry) {
            self.hand_over();
        }
        if is_due(self.keep) {
            self.keep_now();
        }
    }

    fn compile(&mut self) {
        let world = World {
            policies: self.policies.values().map(|known| &known.policy).collect(),
            pods: self.pods.values().collect(),
            namespaces: self.namespaces.known(),
        };
        let isolation = world.isolate();
        if self.wanted.as_ref() != Some(&isolation) {
            self.wanted = Some(isolation);
            self.hand_over();
            self.keep.get_or_insert_with(|| Instant::now() + KEEP);
        }
    }

    /// The firewall says that it has changed. That it could not do it is no news to itself: such a thing has its own time.
    fn hand_over_if_it_has_nothing(&mut self) {
        if !self.handed && self.retry.is_none() {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        let Some(isolation) = &self.wanted else { return };
        self.retry = None;
        let outcome = self.agent.isolate(isolation);
        self.handed = outcome.is_ok();
        match outcome {
            Ok(()) => self.refused.clear(),
            Err(NotIsolated::NotYet) => {}
            Err(NotIsolated::Failed(error)) => {
                self.retry = Some(Instant::now() + AGAIN);
                if self.refused != error {
                    tracing::error!(
                        error,
                        retry_seconds = AGAIN.as_secs(),
                        "the network policies cannot be enforced, the last ones stay in force"
                    );
                    self.refused = error;
                }
            }
        }
    }

    /// Writes what was compiled last, if that is not on the disk.
    fn keep_now(&mut self) {
        if self.keep.take().is_none() {
            return;
        }
        let policies = self.policies.values().map(|known| &known.object);
        let snapshot = Snapshot::of(policies, self.pods.values(), self.namespaces.known());
        match snapshot.bytes() {
            Ok(bytes) => self.agent.keep_snapshot(&bytes),
            Err(error) => tracing::error!(error, "network policies will not survive a restart"),
        }
    }

    /// Says what is not understood, where it was not said yet.
    fn tell(&mut self) {
        let known = self.policies.known();
        self.said.retain(|key, _| known.contains_key(key));
        for (key, Known { object, policy }) in known {
            let faults: Vec<String> = policy.faults.iter().map(ToString::to_string).collect();
            let before = self.said.insert(key.clone(), faults.clone()).unwrap_or_default();
            if faults.is_empty() || faults == before {
                continue;
            }
            let name = format!("{}/{}", policy.namespace, policy.name);
            for problem in &faults {
                tracing::warn!(policy = name, problem, "a network policy is not understood");
            }
            let (client, instance) = (self.client.clone(), self.instance.clone());
            let about = object.object_ref(&resource());
            let note = format!("{instance}: {}", faults.join("\n"));
            // Whatever becomes of it, the log has it.
            tokio::spawn(async move {
                let what = What {
                    bad: true,
                    action: "Enforce",
                    reason: "NotUnderstood",
                    note: &note,
                };
                if let Err(error) = publish(&client, &instance, about, what).await {
                    tracing::warn!(policy = name, error, "cannot write an event");
                }
            });
        }
    }
}

/// What a failure means, where that is not what it says.
fn explained(watch: Watch, error: &watcher::Error) -> String {
    match (watch, error) {
        (Watch::Policies, watcher::Error::InitialListFailed(kube::Error::Api(status)))
            if status.code == 404 =>
        {
            "the API does not know multi-networkpolicies of k8s.cni.cncf.io/v1beta1; install their definition"
                .to_owned()
        }
        _ => describe(error),
    }
}
