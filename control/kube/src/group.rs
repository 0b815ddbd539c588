//! The pods of address groups: a watch for each group, narrowed by the server to the labels it asks for.
//!
//! Owns which pods there are; the firewall owns what becomes of their addresses. Says nothing before the first list is whole,
//! and nothing while a watch is away: what was said last holds until somebody knows better.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bulkhead_config::PodSelection;
use futures_util::stream::{BoxStream, ReadyChunks, SelectAll};
use futures_util::{Stream, StreamExt as _};
use kube::api::{Api, ApiResource, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource, ResourceExt};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use crate::agent::Agent;
use crate::follow::describe;
use crate::patience::Patience;
use crate::place::Network;
use crate::pod::{Addresses, ApiPod, Pod};
use crate::supervise::supervise;
use crate::thread::Signals;
use crate::watch::watch;

/// Changes that are told of together, so that a thousand pods are not a thousand steps.
const TOGETHER: usize = 512;
/// When what did not get in force is told again, at the latest.
const LONGEST: Duration = Duration::from_secs(15);

/// The pods of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundPods {
    /// Their addresses, ascending, each once.
    pub addresses: Vec<IpAddr>,
    /// How many pods these are of.
    pub pods: usize,
    /// How many pods will have addresses and have none yet.
    pub pending: usize,
    /// How many addresses were left out: more of one pod on one network than [`MOST_ADDRESSES`](crate::MOST_ADDRESSES).
    pub beyond: usize,
    /// Why there may be others by now; `None`: these are all.
    pub unknown: Option<String>,
}

/// Follows the pods of whatever groups the firewall has, until told to stop.
pub async fn follow_groups(client: Client, agent: Arc<dyn Agent>, mut signals: Signals) {
    let stop = signals.clone();
    let mut followed: BTreeMap<(String, PodSelection), AbortHandle> = BTreeMap::new();
    loop {
        let wanted: BTreeSet<(String, PodSelection)> = agent.pod_groups().into_iter().collect();
        followed.retain(|key, task| {
            let stays = wanted.contains(key);
            if !stays {
                task.abort();
            }
            stays
        });
        for key in wanted {
            followed.entry(key.clone()).or_insert_with(|| {
                let (client, begun, told) = (client.clone(), agent.clone(), agent.clone());
                let what = format!("following the pods of group {}", key.0);
                let failed = {
                    let (group, selection) = key.clone();
                    move |problem: &str| told.pods_unknown(&group, &selection, problem)
                };
                let begin = move || {
                    let (group, selection) = key.clone();
                    follow_group(client.clone(), group, selection, begun.clone())
                };
                tokio::spawn(supervise(what, signals.clone(), failed, begin)).abort_handle()
            });
        }
        tokio::select! {
            biased;
            () = stop.stop() => break,
            () = signals.changed() => {}
        }
    }
    followed.values().for_each(AbortHandle::abort);
}

/// What is known of something that is listed and then watched.
#[derive(Debug)]
pub struct Listed<K, V> {
    known: BTreeMap<K, V>,
    /// A list that is not whole yet.
    fresh: Option<BTreeMap<K, V>>,
    whole: bool,
    /// Why it may be another by now, from a failure until the next list is whole.
    failure: Option<String>,
}

impl<K, V> Default for Listed<K, V> {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            fresh: None,
            whole: false,
            failure: None,
        }
    }
}

impl<K: Ord, V> Listed<K, V> {
    /// Takes over an event. `value` is told of the value before.
    pub fn apply<T>(
        &mut self,
        event: Event<T>,
        key: impl Fn(&T) -> K,
        value: impl FnOnce(T, Option<&V>) -> V,
    ) {
        match event {
            Event::Apply(object) => {
                let key = key(&object);
                let value = value(object, self.known.get(&key));
                self.known.insert(key, value);
            }
            Event::Delete(object) => {
                self.known.remove(&key(&object));
            }
            Event::Init => self.fresh = Some(BTreeMap::new()),
            Event::InitApply(object) => {
                let key = key(&object);
                let value = value(object, self.known.get(&key));
                self.fresh.get_or_insert_default().insert(key, value);
            }
            Event::InitDone => {
                self.known = self.fresh.take().unwrap_or_default();
                self.whole = true;
                self.failure = None;
            }
        }
    }

    /// Takes over that the watch has failed: what is known stays, and may be old.
    pub fn fail(&mut self, failure: &watcher::Error) {
        self.failure = Some(describe(failure));
    }

    /// Why it may be another by now; `None`: it is not, or nothing is known.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Whether it was listed once.
    pub const fn is_whole(&self) -> bool {
        self.whole
    }

    /// What is known, by its keys.
    pub const fn known(&self) -> &BTreeMap<K, V> {
        &self.known
    }

    /// Everything, in order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.known.values()
    }
}

/// Events of one of several watches, by its number.
type Numbered<T> = (usize, Result<Event<T>, watcher::Error>);

fn numbered<T>(number: usize, api: Api<T>, config: watcher::Config) -> BoxStream<'static, Numbered<T>>
where
    T: Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    watch(api, config).map(move |event| (number, event)).boxed()
}

/// The API's pods, of which only what [`Pod`] keeps is decoded.
pub fn pods_of(client: &Client, namespace: Option<&str>) -> Api<ApiPod> {
    let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// A watch of pods that have not ended.
pub fn running() -> watcher::Config {
    watcher::Config::default().fields("status.phase!=Succeeded,status.phase!=Failed")
}

/// What tells pods apart while they exist.
pub fn key(pod: &ApiPod) -> (String, String) {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}

async fn follow_group(client: Client, group: String, selection: PodSelection, agent: Arc<dyn Agent>) {
    let mut pods = GroupPods::new(&client, selection.clone());
    let mut told = Told::new(group, selection, agent);
    loop {
        let retry = told.retry;
        tokio::select! {
            news = pods.next() => told.tell(news),
            () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => told.again(),
        }
    }
}

/// What a selection comes to, whenever it comes to something else, and whenever nobody knows.
pub fn pods_of_group(
    client: &Client,
    selection: PodSelection,
) -> impl Stream<Item = Result<FoundPods, String>> + Send + use<> {
    let pods = GroupPods::new(client, selection);
    futures_util::stream::unfold(pods, |mut pods| async move {
        let found = pods.next().await;
        Some((found, pods))
    })
}

/// The watches of a selection.
struct GroupPods {
    events: ReadyChunks<SelectAll<BoxStream<'static, Numbered<ApiPod>>>>,
    spaces: BoxStream<'static, Result<Event<Space>, watcher::Error>>,
    known: Known,
}

impl GroupPods {
    fn new(client: &Client, selection: PodSelection) -> Self {
        let watches = scopes(&selection).into_iter().enumerate().map(|(number, scope)| {
            numbered(
                number,
                pods_of(client, scope),
                running().labels(&selection.selector),
            )
        });
        Self {
            events: watches.collect::<SelectAll<_>>().ready_chunks(TOGETHER),
            spaces: namespaces_of(client, selection.namespace_selector.as_deref()),
            known: Known::new(&selection),
        }
    }

    /// What is known next: these pods, as far as they are known, or why nobody can say. Whoever stops waiting loses nothing.
    async fn next(&mut self) -> Result<FoundPods, String> {
        loop {
            tokio::select! {
                Some(chunk) = self.events.next() => self.known.heard(chunk),
                Some(event) = self.spaces.next() => self.known.heard_of_a_namespace(event),
            }
            if let Some(news) = self.known.news() {
                return news;
            }
        }
    }
}

/// The namespaces that a selection names; `None`: all.
fn scopes(selection: &PodSelection) -> Vec<Option<&str>> {
    match &selection.namespaces[..] {
        [] => vec![None],
        named => named.iter().map(|name| Some(&**name)).collect(),
    }
}

/// What the watches of a selection have said so far.
struct Known {
    network: Option<Network>,
    /// Whether any namespace will do.
    any: bool,
    /// Of each watch.
    pods: Vec<Listed<(String, String), Pod>>,
    /// Those that are asked for by their labels.
    namespaces: Listed<String, String>,
    /// The last news.
    told: Option<Result<FoundPods, String>>,
}

impl Known {
    fn new(selection: &PodSelection) -> Self {
        Self {
            network: selection.network.as_ref().and_then(|text| text.parse().ok()),
            any: selection.namespace_selector.is_none(),
            pods: scopes(selection).iter().map(|_| Listed::default()).collect(),
            namespaces: Listed::default(),
            told: None,
        }
    }

    /// Takes in what came together. What came with a failure counts as well: the API does not say it again.
    fn heard(&mut self, chunk: Vec<Numbered<ApiPod>>) {
        for (number, event) in chunk {
            let pods = &mut self.pods[number];
            match event {
                Ok(event) => pods.apply(event, key, |pod, before| Pod::new(pod).remembering(before)),
                Err(failure) => pods.fail(&failure),
            }
        }
    }

    fn heard_of_a_namespace(&mut self, event: Result<Event<Space>, watcher::Error>) {
        match event {
            Ok(event) => self
                .namespaces
                .apply(event, ResourceExt::name_any, |space, _| space.name_any()),
            Err(failure) => self.namespaces.fail(&failure),
        }
    }

    /// What it comes to, if that is not what it came to before.
    fn news(&mut self) -> Option<Result<FoundPods, String>> {
        let whole = self.pods.iter().all(Listed::is_whole) && (self.any || self.namespaces.is_whole());
        // One watch that is away is enough, whatever the others say.
        let failures = self.pods.iter().map(Listed::failure);
        let unknown = failures.chain([self.namespaces.failure()]).flatten().next();
        let unknown = unknown.map(str::to_owned);
        let news = match (whole, unknown) {
            (false, None) => return None,
            (false, Some(error)) => Err(error),
            (true, unknown) => {
                let within: BTreeSet<&String> = self.namespaces.values().collect();
                let selected = self
                    .pods
                    .iter()
                    .flat_map(Listed::values)
                    .filter(|pod| self.any || within.contains(&pod.namespace));
                Ok(FoundPods {
                    unknown,
                    ..found(selected, self.network.as_ref())
                })
            }
        };
        if self.told.as_ref() == Some(&news) {
            return None;
        }
        self.told = Some(news.clone());
        Some(news)
    }
}

/// What the firewall was told of the pods of a group.
struct Told {
    group: String,
    selection: PodSelection,
    agent: Arc<dyn Agent>,
    found: FoundPods,
    /// When what did not get in force is told again.
    retry: Option<Instant>,
    patience: Patience,
}

impl Told {
    fn new(group: String, selection: PodSelection, agent: Arc<dyn Agent>) -> Self {
        Self {
            group,
            selection,
            agent,
            found: FoundPods::default(),
            retry: None,
            patience: Patience::default(),
        }
    }

    fn tell(&mut self, news: Result<FoundPods, String>) {
        match news {
            Ok(found) => {
                self.found = found;
                self.again();
            }
            Err(error) => self.agent.pods_unknown(&self.group, &self.selection, &error),
        }
    }

    fn again(&mut self) {
        self.retry = match self.agent.set_pods(&self.group, &self.selection, &self.found) {
            true => {
                self.patience = Patience::default();
                None
            }
            false => Some(Instant::now() + self.patience.next().unwrap_or(LONGEST)),
        };
    }
}

/// A namespace, of which its labels are all that is asked for.
pub type Space = PartialObjectMeta<k8s_openapi::api::core::v1::Namespace>;

/// Namespaces by their labels; nothing where none are asked for.
fn namespaces_of(
    client: &Client,
    selector: Option<&str>,
) -> BoxStream<'static, Result<Event<Space>, watcher::Error>> {
    match selector {
        None => futures_util::stream::pending().boxed(),
        Some(selector) => {
            let api: Api<Space> = Api::all(client.clone());
            watch(api, watcher::Config::default().labels(selector)).boxed()
        }
    }
}

/// What pods amount to on a network.
pub fn found<'p>(pods: impl Iterator<Item = &'p Pod>, network: Option<&Network>) -> FoundPods {
    let mut found = FoundPods::default();
    for pod in pods {
        match pod.addresses(network) {
            Addresses::Known(addresses) => {
                found.addresses.extend(addresses);
                found.pods += 1;
                found.beyond += pod.beyond(network);
            }
            Addresses::Pending => found.pending += 1,
            Addresses::None => {}
        }
    }
    found.addresses.sort_unstable();
    found.addresses.dedup();
    found
}

#[cfg(test)]
mod tests;
