//! MultiNetworkPolicies with the pods and namespaces that they speak of: followed, compiled, handed to the firewall.
//!
//! Owns when: nothing is compiled before the three lists are whole, and changes that come together are compiled together. What
//! they come to is [`crate::mnp`]'s, what becomes of it the firewall's. While the API is away what was handed over last
//! holds. What is not understood in an object is said in the log and as an event of the object, once.
//!
//! Policies that the firewall refuses do not hold up pods: those that it accepted last are compiled with today's pods, and
//! the objects that have changed since are named. The disk has what was accepted, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Api;
use kube::core::DynamicObject;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource as _, ResourceExt as _};
use tokio::sync::Semaphore;
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
/// When what the firewall could not put in force is tried again, and what could not be written to the disk; each time later.
const AGAIN: Duration = Duration::from_secs(10);
/// The latest.
const LATEST: Duration = Duration::from_secs(160);
/// How many objects are named that may be at fault.
const NAMED: usize = 3;
/// Events that are on their way at once.
const TELLING: usize = 4;
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
    let mut follower = Follower::new(client, instance, agent);
    loop {
        let next = follower.next();
        tokio::select! {
            biased;
            () = stop.stop() => return follower.end(),
            Some(chunk) = policies.next() => for event in chunk {
                if let Some(event) = follower.heard(Watch::Policies, event) {
                    let new = |object, _: Option<&Arc<Known>>| Arc::new(Known::new(object));
                    let news = take(&mut follower.policies, event, key, new);
                    follower.changed |= news;
                    follower.due(news);
                }
            },
            Some(chunk) = pods.next() => for event in chunk {
                if let Some(event) = follower.heard(Watch::Pods, event) {
                    let new = |pod, before: Option<&Pod>| Pod::new(pod).remembering(before);
                    let news = take(&mut follower.pods, event, group::key, new);
                    follower.due(news);
                }
            },
            Some(chunk) = spaces.next() => for event in chunk {
                if let Some(event) = follower.heard(Watch::Namespaces, event) {
                    let labels = |space: Space, _: Option<&Labels>| space.metadata.labels.unwrap_or_default();
                    let news = take(&mut follower.namespaces, event, |space| space.name_any(), labels);
                    follower.due(news);
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

/// Takes over an event; whether anything is other than it was. Kubelets write the status of a pod all the time.
fn take<T, K: Ord, V: PartialEq + Clone>(
    listed: &mut Listed<K, V>,
    event: Event<T>,
    key: impl Fn(&T) -> K,
    value: impl FnOnce(T, Option<&V>) -> V,
) -> bool {
    let applied = match &event {
        Event::Apply(object) => {
            let key = key(object);
            Some((listed.known().get(&key).cloned(), key))
        }
        Event::Init | Event::InitApply(_) => {
            // Nothing counts of a list that is not whole.
            listed.apply(event, key, value);
            return false;
        }
        Event::Delete(_) | Event::InitDone => None,
    };
    listed.apply(event, key, value);
    applied.is_none_or(|(before, key)| before.as_ref() != listed.known().get(&key))
}

/// Policies by namespace and name.
type Policies = BTreeMap<(String, String), Arc<Known>>;

/// A policy, and what of its object is kept: what it is read from, and what an event is about.
#[derive(Debug, PartialEq)]
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
    policies: Listed<(String, String), Arc<Known>>,
    pods: Listed<(String, String), Pod>,
    namespaces: Listed<String, Labels>,
    /// Which watches have failed and have no new list yet.
    failed: [bool; 3],
    /// It was said that nobody knows.
    lost: bool,
    /// When what has changed is compiled.
    due: Option<Instant>,
    /// Some policy is other than in `current`.
    changed: bool,
    /// The policies that the API has.
    current: Arc<Policies>,
    /// Something was compiled: it is known what should be in force.
    compiled: bool,
    /// What the firewall has taken last, if nothing was refused since.
    handed: Option<Isolation>,
    /// The policies that it was compiled from, or what was before a restart.
    accepted: Option<Arc<Policies>>,
    /// The firewall has refused `current`, for this reason; it is not asked again until `retry`, or before another policy comes.
    refused: Option<String>,
    /// Why it refuses those before too, as it was told of.
    frozen: Option<String>,
    retry: Option<Instant>,
    /// How long the next refusal waits.
    again: Duration,
    /// When it is written to the disk.
    keep: Option<Instant>,
    /// The faults of each policy that were told of.
    said: BTreeMap<(String, String), Vec<String>>,
    telling: Arc<Semaphore>,
}

impl Follower {
    fn new(client: Client, instance: String, agent: Arc<dyn Agent>) -> Self {
        Self {
            client,
            instance,
            agent,
            policies: Listed::default(),
            pods: Listed::default(),
            namespaces: Listed::default(),
            failed: [false; 3],
            lost: false,
            due: None,
            changed: false,
            current: Arc::default(),
            compiled: false,
            handed: None,
            accepted: None,
            refused: None,
            frozen: None,
            retry: None,
            again: AGAIN,
            keep: None,
            said: BTreeMap::new(),
            telling: Arc::new(Semaphore::new(TELLING)),
        }
    }

    fn due(&mut self, news: bool) {
        if news {
            self.due.get_or_insert_with(|| Instant::now() + GATHER);
        }
    }

    fn is_whole(&self) -> bool {
        self.policies.is_whole() && self.pods.is_whole() && self.namespaces.is_whole()
    }

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
            if self.is_whole() {
                self.compile();
                self.tell();
            }
        }
        if !self.failed.contains(&true) && self.compiled {
            self.agent.policies_unknown(None);
            if std::mem::take(&mut self.lost) {
                tracing::info!("the network policies are known again");
            }
        }
        if is_due(self.retry) {
            self.retry = None;
            self.refused = None;
            self.compile();
        }
        if is_due(self.keep) {
            self.keep_now();
        }
    }

    /// Hands over what all policies come to; if that is refused, what the last ones do that were not.
    fn compile(&mut self) {
        self.compiled = true;
        if std::mem::take(&mut self.changed) {
            self.current = Arc::new(self.policies.known().clone());
            (self.refused, self.retry, self.again) = (None, None, AGAIN);
        }
        if self.refused.is_none() {
            match self.enforce(&self.current.clone()) {
                Ok(()) => {
                    (self.retry, self.again, self.frozen) = (None, AGAIN, None);
                    self.agent.policies_refused(None);
                    return;
                }
                Err(NotIsolated::NotYet) => return,
                Err(NotIsolated::Failed(error)) => self.refuse(error),
            }
        }
        self.fall_back();
    }

    /// Takes in that the policies that the API has cannot be enforced.
    fn refuse(&mut self, error: String) {
        self.retry = Some(Instant::now() + self.again);
        self.again = (self.again * 2).min(LATEST);
        if self.accepted.is_none() {
            let kept = self
                .agent
                .snapshot()
                .and_then(|bytes| Snapshot::objects(&bytes).ok());
            let objects = kept.map(|kept| {
                let known = kept
                    .into_iter()
                    .map(|object| (key(&object), Arc::new(Known::new(object))));
                Arc::new(known.collect::<Policies>())
            });
            self.accepted = objects;
        }
        let error = match self.suspects() {
            suspects if suspects.is_empty() => error,
            suspects => format!("{error}; new or changed since: {suspects}"),
        };
        tracing::error!(
            error,
            retry_seconds = self.again.as_secs() / 2,
            "the network policies cannot be enforced, the last ones that could stay in force"
        );
        self.agent.policies_refused(Some(&error));
        self.refused = Some(error);
    }

    /// The objects that are not as they were when the firewall took them.
    fn suspects(&self) -> String {
        let Some(accepted) = &self.accepted else {
            return String::new();
        };
        let others = self.current.iter().filter(|(key, known)| {
            let before = accepted.get(key);
            before.is_none_or(|before| before.policy != known.policy)
        });
        let mut names: Vec<String> = others
            .map(|((namespace, name), _)| format!("{namespace}/{name}"))
            .collect();
        let more = names.len().saturating_sub(NAMED);
        names.truncate(NAMED);
        match more {
            0 => names.join(", "),
            more => format!("{} and {more} more", names.join(", ")),
        }
    }

    /// The policies that were accepted last, with the pods there are now: one that comes is isolated, an address that goes to
    /// another pod takes no permits along.
    fn fall_back(&mut self) {
        let Some(accepted) = self.accepted.clone() else {
            return;
        };
        match self.enforce(&accepted) {
            Ok(()) => self.frozen = None,
            Err(NotIsolated::NotYet) => {}
            Err(NotIsolated::Failed(error)) => {
                if self.frozen.as_ref() != Some(&error) {
                    tracing::error!(error, "pods of the network policies in force cannot be followed");
                    let refused = self.refused.as_deref().unwrap_or_default();
                    let both = format!("{refused}; nor can the pods of those in force be followed: {error}");
                    self.agent.policies_refused(Some(&both));
                    self.frozen = Some(error);
                }
            }
        }
    }

    /// Compiles policies with the pods there are, and hands them over.
    fn enforce(&mut self, policies: &Arc<Policies>) -> Result<(), NotIsolated> {
        let world = World {
            policies: policies.values().map(|known| &known.policy).collect(),
            pods: self.pods.values().collect(),
            namespaces: self.namespaces.known(),
        };
        let isolation = world.isolate();
        if self.handed.as_ref() != Some(&isolation) {
            // What is refused half way is no more what it was.
            self.handed = None;
            self.agent.isolate(&isolation)?;
            self.handed = Some(isolation);
            self.keep_soon(KEEP);
        }
        let same = self
            .accepted
            .as_ref()
            .is_some_and(|accepted| Arc::ptr_eq(accepted, policies));
        if !same {
            self.accepted = Some(policies.clone());
            self.keep_soon(KEEP);
        }
        Ok(())
    }

    fn keep_soon(&mut self, wait: Duration) {
        self.keep.get_or_insert_with(|| Instant::now() + wait);
    }

    /// The firewall says that it has changed. That it could not do it is no news to itself: such a thing has its own time.
    fn hand_over_if_it_has_nothing(&mut self) {
        if self.compiled && self.handed.is_none() && self.retry.is_none() {
            self.compile();
        }
    }

    /// Writes what is in force, if that is not on the disk.
    fn keep_now(&mut self) {
        if self.keep.take().is_none() {
            return;
        }
        let (Some(accepted), true, None) = (&self.accepted, self.handed.is_some(), self.due) else {
            // The lists are not those of what is in force; when they are, it is written.
            return self.keep_soon(KEEP);
        };
        let policies = accepted.values().map(|known| &known.object);
        let snapshot = Snapshot::of(policies, self.pods.values(), self.namespaces.known());
        let kept = snapshot
            .bytes()
            .and_then(|bytes| self.agent.keep_snapshot(&bytes));
        if kept.is_err() {
            // The firewall says why.
            self.keep_soon(AGAIN);
        }
    }

    /// The last thing: what has just come is not lost.
    fn end(&mut self) {
        if self.due.take().is_some() && self.is_whole() {
            self.compile();
        }
        self.keep_now();
    }

    /// Says what is not understood, where it was not said yet.
    fn tell(&mut self) {
        let known = self.policies.known();
        self.said.retain(|key, _| known.contains_key(key));
        for (key, known) in known {
            let Known { object, policy } = &**known;
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
            let telling = self.telling.clone();
            // Whatever becomes of it, the log has it.
            tokio::spawn(async move {
                let Ok(_turn) = telling.acquire().await else {
                    return;
                };
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

#[cfg(test)]
mod tests;
