//! The pods of address groups: a watch for each group, narrowed by the server to the labels it asks for.
//!
//! Owns which pods there are; the firewall owns what becomes of their addresses. Says nothing before the first list is whole,
//! and nothing while a watch is away: what was said last holds until somebody knows better.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use bulkhead_config::PodSelection;
use futures_util::stream::{BoxStream, ReadyChunks, SelectAll};
use futures_util::{Stream, StreamExt as _};
use kube::api::{Api, ApiResource, PartialObjectMeta};
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource, ResourceExt};
use tokio::task::AbortHandle;

use crate::agent::Agent;
use crate::follow::describe;
use crate::place::Network;
use crate::pod::{Addresses, ApiPod, Pod};
use crate::thread::Signals;
use crate::watch::watch;

/// Changes that are told of together, so that a thousand pods are not a thousand steps.
const TOGETHER: usize = 512;

/// The pods of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundPods {
    /// Their addresses, ascending, each once.
    pub addresses: Vec<IpAddr>,
    /// How many pods these are of.
    pub pods: usize,
    /// How many pods will have addresses and have none yet.
    pub pending: usize,
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
                let (group, selection) = key;
                let task = follow_group(client.clone(), group, selection, agent.clone());
                tokio::spawn(task).abort_handle()
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
}

impl<K, V> Default for Listed<K, V> {
    fn default() -> Self {
        Self {
            known: BTreeMap::new(),
            fresh: None,
            whole: false,
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
            }
        }
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
    loop {
        match pods.next().await {
            Ok(found) => agent.set_pods(&group, &selection, &found),
            Err(error) => agent.pods_unknown(&group, &selection, &error),
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

/// The watches of a selection, and what they have said so far.
struct GroupPods {
    network: Option<Network>,
    /// Whether any namespace will do.
    any: bool,
    events: ReadyChunks<SelectAll<BoxStream<'static, Numbered<ApiPod>>>>,
    spaces: BoxStream<'static, Result<Event<Space>, watcher::Error>>,
    /// Of each watch.
    pods: Vec<Listed<(String, String), Pod>>,
    namespaces: Listed<String, String>,
    told: Option<FoundPods>,
}

impl GroupPods {
    fn new(client: &Client, selection: PodSelection) -> Self {
        let scopes: Vec<Option<&str>> = match &selection.namespaces[..] {
            [] => vec![None],
            named => named.iter().map(|name| Some(&**name)).collect(),
        };
        let watches = scopes.iter().enumerate().map(|(number, scope)| {
            numbered(
                number,
                pods_of(client, *scope),
                running().labels(&selection.selector),
            )
        });
        Self {
            network: selection.network.as_ref().and_then(|text| text.parse().ok()),
            any: selection.namespace_selector.is_none(),
            events: watches.collect::<SelectAll<_>>().ready_chunks(TOGETHER),
            spaces: namespaces_of(client, selection.namespace_selector.as_deref()),
            pods: scopes.iter().map(|_| Listed::default()).collect(),
            namespaces: Listed::default(),
            told: None,
        }
    }

    /// What is known next: these pods, all of them, or why nobody can say. Whoever stops waiting loses nothing.
    async fn next(&mut self) -> Result<FoundPods, String> {
        loop {
            let mut error = None;
            tokio::select! {
                Some(chunk) = self.events.next() => for (number, event) in chunk {
                    match event {
                        Ok(event) => self.pods[number]
                            .apply(event, key, |pod, before| Pod::new(pod).remembering(before)),
                        Err(failure) => error = Some(failure),
                    }
                },
                Some(event) = self.spaces.next() => match event {
                    Ok(event) => self.namespaces.apply(event, ResourceExt::name_any, |space, _| space.name_any()),
                    Err(failure) => error = Some(failure),
                },
            }
            if let Some(error) = error {
                // Whatever comes next is news.
                self.told = None;
                return Err(describe(&error));
            }
            if !self.pods.iter().all(Listed::is_whole) || !(self.any || self.namespaces.is_whole()) {
                continue;
            }
            let within: BTreeSet<&String> = self.namespaces.values().collect();
            let selected = self
                .pods
                .iter()
                .flat_map(Listed::values)
                .filter(|pod| self.any || within.contains(&pod.namespace));
            let found = found(selected, self.network.as_ref());
            if self.told.as_ref() != Some(&found) {
                self.told = Some(found.clone());
                return Ok(found);
            }
        }
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
            }
            Addresses::Pending => found.pending += 1,
            Addresses::None => {}
        }
    }
    found.addresses.sort_unstable();
    found.addresses.dedup();
    found
}
