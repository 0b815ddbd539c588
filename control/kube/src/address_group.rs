//! Objects `AddressGroup`: members of the document's groups that refer to them (`addressGroup: NAMESPACE/NAME`).
//!
//! Owns what an object comes to: its members and the addresses of its pods, without its exceptions. Each object is followed by
//! itself, whatever number of groups refers to it. An object that is wrong changes nothing: what it said last stays. One that is
//! gone has no members, as a pod that is gone has no address: whoever may delete it may empty it as well. Nothing is said
//! before the object and its pods are known, and nothing is taken away while the API is.

mod report;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_config::{IpPrefix, ObjectGroup, PodSelection};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::Api;
use kube::core::DynamicObject;
use kube::runtime::watcher::{self, Event};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::report::Writer;
use self::status::{Entry, Known, Reported};
use crate::agent::Agent;
use crate::follow::describe;
use crate::group::{FoundPods, pods_of_group};
use crate::place::Network;
use crate::thread::Signals;
use crate::watch::watch;

/// How often a status is written at most, and looked at at least: pods may come and go faster than anybody reads.
const TURN: Duration = Duration::from_secs(1);
/// When the firewall is asked again to take what it could not.
const AGAIN: Duration = Duration::from_secs(10);
/// How long what was written is not written again, whatever the object says.
const INSIST: Duration = Duration::from_secs(60);

/// What an object comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectMembers {
    /// The fewest prefixes, ascending.
    pub prefixes: Vec<IpPrefix>,
    /// How many pods are in it.
    pub pods: usize,
    /// How many pods will be, and have no address yet.
    pub pending: usize,
}

/// Follows whatever objects the groups of the firewall refer to, until told to stop.
pub async fn follow_address_groups(
    client: Client,
    agent: Arc<dyn Agent>,
    instance: String,
    mut signals: Signals,
) {
    let stop = signals.clone();
    let mut followed = BTreeMap::new();
    let mut tasks = JoinSet::new();
    loop {
        let wanted: BTreeSet<String> = agent.address_groups().into_iter().collect();
        followed.retain(|name, leave: &mut tokio::sync::watch::Sender<bool>| {
            let stays = wanted.contains(name);
            if !stays {
                leave.send_replace(true);
            }
            stays
        });
        for name in wanted {
            followed.entry(name.clone()).or_insert_with(|| {
                let (leave, left) = tokio::sync::watch::channel(false);
                let task = follow(client.clone(), name, agent.clone(), instance.clone(), left);
                tasks.spawn(task);
                leave
            });
        }
        tokio::select! {
            biased;
            () = stop.stop() => break,
            () = signals.changed() => {}
            Some(_) = tasks.join_next() => {}
        }
    }
    for leave in followed.values() {
        leave.send_replace(true);
    }
    // Each takes its entry along.
    while tasks.join_next().await.is_some() {}
}

/// What comes of the pods of an object; never anything where it has none.
type PodsFound = BoxStream<'static, Result<FoundPods, String>>;

async fn follow(
    client: Client,
    name: String,
    agent: Arc<dyn Agent>,
    instance: String,
    mut left: tokio::sync::watch::Receiver<bool>,
) {
    let Ok(place) = name.parse::<Network>() else {
        // The document's parser has judged it.
        return;
    };
    let api: Api<DynamicObject> = Api::namespaced_with(
        client.clone(),
        &place.namespace,
        &crate::crd::address_group_resource(),
    );
    let config = watcher::Config::default().fields(&format!("metadata.name={}", place.name));
    let mut objects = pin!(watch(api.clone(), config));
    let mut pods: PodsFound = futures_util::stream::pending().boxed();
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut follower = Follower::new(name, agent, instance, Writer::new(api, place));
    loop {
        tokio::select! {
            biased;
            // An error: whoever would say so is gone.
            () = async { left.wait_for(|left| *left).await.map_or((), drop) } => return follower.leave().await,
            Some(event) = objects.next() => {
                let before = follower.selection.clone();
                follower.saw(event);
                if follower.selection != before {
                    pods = match follower.selection.clone() {
                        Some(selection) => pods_of_group(&client, selection).boxed(),
                        None => futures_util::stream::pending().boxed(),
                    };
                }
            }
            Some(found) = pods.next() => follower.saw_pods(found),
            _ = turns.tick() => follower.report().await,
        }
    }
}

struct Follower {
    /// As the document has it.
    name: String,
    agent: Arc<dyn Agent>,
    instance: String,
    writer: Writer,
    /// The object as it was seen last; `None`: there is none.
    object: Option<DynamicObject>,
    /// One was found in the list that is on its way.
    listed: bool,
    /// What it said last that was sound.
    sound: Option<ObjectGroup>,
    /// What is wrong with what it says now.
    wrong: Option<String>,
    selection: Option<PodSelection>,
    /// The pods of this very selection.
    pods: Option<FoundPods>,
    /// What the firewall was told last, and whether it could; `None`: something is not known since.
    told: Option<(ObjectMembers, Result<(), String>)>,
    /// What it could last.
    in_force: Option<ObjectMembers>,
    /// When the firewall is asked again.
    retry: Option<Instant>,
    /// The API does not answer.
    away: bool,
    written: Option<(Entry, Instant)>,
    summarized: Option<(status::Summary, Instant)>,
    unwritten: bool,
}

impl Follower {
    fn new(name: String, agent: Arc<dyn Agent>, instance: String, writer: Writer) -> Self {
        Self {
            name,
            agent,
            instance,
            writer,
            object: None,
            listed: false,
            sound: None,
            wrong: None,
            selection: None,
            pods: None,
            told: None,
            in_force: None,
            retry: None,
            away: false,
            written: None,
            summarized: None,
            unwritten: false,
        }
    }

    fn saw(&mut self, event: Result<Event<DynamicObject>, watcher::Error>) {
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                self.listed = true;
                self.judge(object);
            }
            Ok(Event::Init) => self.listed = false,
            Ok(Event::InitDone) if self.listed => {}
            Ok(Event::InitDone | Event::Delete(_)) => self.gone(),
            Err(error) => {
                self.away = true;
                self.unknown(&describe(&error));
            }
        }
    }

    fn judge(&mut self, object: DynamicObject) {
        self.away = false;
        let name = object.metadata.name.clone().unwrap_or_default();
        match ObjectGroup::parse(&name, &object.data["spec"]) {
            Ok(group) => {
                if self.selection != group.pods {
                    (self.selection, self.pods) = (group.pods.clone(), None);
                }
                self.wrong = None;
                self.sound = Some(group);
                self.object = Some(object);
                self.tell();
            }
            Err(wrong) => {
                if self.wrong.as_ref() != Some(&wrong) {
                    tracing::error!(
                        address_group = self.name,
                        problem = wrong,
                        "address group refused, its last members stay"
                    );
                }
                self.object = Some(object);
                self.unknown(&wrong);
                self.wrong = Some(wrong);
            }
        }
    }

    fn gone(&mut self) {
        self.away = false;
        // What comes under the same name is another object.
        (self.object, self.sound, self.wrong, self.in_force) = (None, None, None, None);
        (self.selection, self.pods, self.written, self.summarized) = (None, None, None, None);
        let nothing = ObjectMembers::default();
        // Whatever it is, the firewall has logged it; there is no object that could say so.
        let _ = self.agent.set_address_group(&self.name, &nothing);
        self.told = None;
        self.agent
            .address_group_unknown(&self.name, "the object does not exist");
    }

    fn saw_pods(&mut self, found: Result<FoundPods, String>) {
        match found {
            Ok(found) => {
                let unknown = found.unknown.clone();
                self.pods = Some(found);
                self.tell();
                if let Some(error) = unknown {
                    self.unknown(&format!("its pods are not known: {error}"));
                }
            }
            Err(error) => self.unknown(&format!("its pods are not known: {error}")),
        }
    }

    fn unknown(&mut self, error: &str) {
        self.agent.address_group_unknown(&self.name, error);
        // Whatever comes next is news.
        self.told = None;
    }

    /// Has the firewall take what is known, if that is everything. Pods come and go while what the object says now is wrong.
    fn tell(&mut self) {
        let Some(group) = &self.sound else { return };
        let nobody = FoundPods::default();
        let pods = match (&self.selection, &self.pods) {
            (None, _) => &nobody,
            (Some(_), Some(pods)) => pods,
            (Some(_), None) => return,
        };
        let members = ObjectMembers {
            prefixes: group.prefixes(pods.addresses.iter().copied()),
            pods: pods.pods,
            pending: pods.pending,
        };
        let same = self
            .told
            .as_ref()
            .is_some_and(|(told, in_force)| *told == members && in_force.is_ok());
        if !same {
            let in_force = self.agent.set_address_group(&self.name, &members);
            self.retry = in_force.is_err().then(|| Instant::now() + AGAIN);
            if in_force.is_ok() {
                self.in_force = Some(members.clone());
            }
            self.told = Some((members, in_force));
            if let Some(wrong) = &self.wrong {
                self.agent.address_group_unknown(&self.name, wrong);
            }
        }
    }

    /// Writes the instance's entry and the summary, as far as they are news.
    async fn report(&mut self) {
        if self.retry.is_some_and(|retry| retry <= Instant::now()) {
            self.tell();
        }
        let Some(object) = self.object.as_ref().filter(|_| !self.away) else {
            return;
        };
        let now = Timestamp::now();
        let reported = Reported::read(object);
        let known = Known {
            name: &self.instance,
            observed_generation: object.metadata.generation,
            wrong: self.wrong.as_deref(),
            told: self.told.as_ref().map(|(_, in_force)| in_force),
            in_force: self.in_force.as_ref(),
        };
        let before = self.written.as_ref().map(|(entry, _)| entry);
        let entry = Entry::new(&known, before.or(reported.entry(&self.instance)), now);
        let mut outcome = Ok(());
        if is_news(&entry, reported.entry(&self.instance), self.written.as_ref()) {
            outcome = self.writer.entry(&self.instance, Some(&entry)).await;
            self.written = outcome.is_ok().then(|| (entry.clone(), Instant::now()));
        }
        if outcome.is_ok() {
            let summary = status::Summary::of(&reported.with(&entry), &reported.summary, now);
            if is_news(&summary, Some(&reported.summary), self.summarized.as_ref()) {
                outcome = self.writer.summary(&summary).await;
                self.summarized = outcome.is_ok().then(|| (summary, Instant::now()));
            }
        }
        for dead in reported.entries.iter().filter(|entry| entry.is_expired(now)) {
            if dead.name != self.instance && outcome.is_ok() {
                outcome = self.writer.entry(&dead.name, None).await;
            }
        }
        let unwritten = outcome.is_err();
        if let (Err(error), false) = (outcome, std::mem::replace(&mut self.unwritten, unwritten)) {
            tracing::warn!(address_group = self.name, error, "cannot write the status");
        }
    }

    /// Takes the entry away, and says what the others come to.
    async fn leave(&self) {
        if self.written.is_none() || self.away {
            return;
        }
        let left = async {
            let Some(object) = self.writer.read().await? else {
                return Ok(());
            };
            let now = Timestamp::now();
            let reported = Reported::read(&object);
            let others = reported.others(&self.instance, now);
            match others.is_empty() {
                true => self.writer.last(&self.instance, &object).await?,
                false => self.writer.entry(&self.instance, None).await?,
            }
            let summary = status::Summary::of(&others, &reported.summary, now);
            self.writer.summary(&summary).await
        };
        if let Err(error) = left.await {
            tracing::warn!(
                address_group = self.name,
                error,
                "cannot take the status away, it goes after a while"
            );
        }
    }
}

/// Whether something is to be written: the object does not say it, and it was not written just now.
fn is_news<T: PartialEq>(wanted: &T, says: Option<&T>, written: Option<&(T, Instant)>) -> bool {
    let just_written = written.is_some_and(|(value, when)| value == wanted && when.elapsed() < INSIST);
    says != Some(wanted) && !just_written
}
