//! Events of watches against a firewall that takes members or does not.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::address_group::ObjectMembers;
use crate::agent::{Document, InForce, NotIsolated, Refusal};
use crate::mnp::Isolation;

/// What was told, in order.
#[derive(Default)]
struct Firewall {
    told: Mutex<Vec<FoundPods>>,
    unknown: Mutex<Vec<String>>,
    full: AtomicBool,
}

impl Agent for Firewall {
    fn commit(&self, _document: &Document) -> Result<(), Refusal> {
        Ok(())
    }

    fn in_force(&self) -> Option<InForce> {
        None
    }

    fn pod_groups(&self) -> Vec<(String, PodSelection)> {
        Vec::new()
    }

    fn set_pods(&self, _group: &str, _selection: &PodSelection, found: &FoundPods) -> bool {
        self.told.lock().expect("pods").push(found.clone());
        !self.full.load(Ordering::Relaxed)
    }

    fn pods_unknown(&self, _group: &str, _selection: &PodSelection, error: &str) {
        self.unknown.lock().expect("errors").push(error.to_owned());
    }

    fn isolate(&self, _isolation: &Isolation) -> Result<(), NotIsolated> {
        Ok(())
    }

    fn keep_snapshot(&self, _snapshot: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn snapshot(&self) -> Option<Vec<u8>> {
        None
    }

    fn policies_refused(&self, _error: Option<&str>) {}

    fn policies_unknown(&self, _error: Option<&str>) {}

    fn address_groups(&self) -> Vec<String> {
        Vec::new()
    }

    fn set_address_group(&self, _object: &str, _members: &ObjectMembers) -> Result<(), String> {
        Ok(())
    }

    fn address_group_unknown(&self, _object: &str, _error: &str) {}
}

impl Firewall {
    /// How many addresses were told last, whether they are sure, and how often anything was.
    fn last(&self) -> (usize, bool, usize) {
        let told = self.told.lock().expect("pods");
        let last = told.last().cloned().unwrap_or_default();
        (last.addresses.len(), last.unknown.is_none(), told.len())
    }
}

/// What is known, and what is told of it.
struct Members {
    known: Known,
    told: Told,
}

impl Members {
    fn heard(&mut self, chunk: Vec<Numbered<ApiPod>>) {
        self.known.heard(chunk);
    }

    fn heard_of_a_namespace(&mut self, event: Result<Event<Space>, watcher::Error>) {
        self.known.heard_of_a_namespace(event);
    }

    fn tell(&mut self) {
        if let Some(news) = self.known.news() {
            self.told.tell(news);
        }
    }
}

fn members(firewall: &Arc<Firewall>, namespaces: &[&str], namespace_selector: Option<&str>) -> Members {
    let selection = PodSelection {
        selector: "app=web".to_owned(),
        namespaces: namespaces.iter().map(|&name| name.to_owned()).collect(),
        namespace_selector: namespace_selector.map(str::to_owned),
        network: None,
    };
    Members {
        known: Known::new(&selection),
        told: Told::new("web".to_owned(), selection, firewall.clone()),
    }
}

fn read<T: serde::de::DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).expect("an object")
}

fn pod(namespace: &str, number: u8) -> ApiPod {
    read(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("web-{number}"), "namespace": namespace, "uid": format!("u{number}") },
        "spec": { "nodeName": "node-1" },
        "status": { "phase": "Running", "podIP": format!("10.0.0.{number}") },
    }))
}

fn space(name: &str) -> Space {
    read(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } }))
}

/// The chunk of a list.
fn listed(watch: usize, namespace: &str, numbers: &[u8]) -> Vec<Numbered<ApiPod>> {
    let pods = numbers
        .iter()
        .map(|number| Event::InitApply(pod(namespace, *number)));
    [Event::Init]
        .into_iter()
        .chain(pods)
        .chain([Event::InitDone])
        .map(|event| (watch, Ok(event)))
        .collect()
}

const fn failure() -> watcher::Error {
    watcher::Error::NoResourceVersion
}

#[test]
fn what_comes_in_one_chunk_with_a_failure_is_in_force() {
    let firewall = Arc::new(Firewall::default());
    let mut members = members(&firewall, &[], None);
    members.heard(listed(0, "shop", &[1, 2]));
    members.tell();
    assert_eq!(firewall.last(), (2, true, 1));
    members.heard(vec![(0, Ok(Event::Delete(pod("shop", 1)))), (0, Err(failure()))]);
    members.tell();
    assert_eq!(firewall.last(), (1, false, 2), "out, and it may be old");
    members.heard(vec![(0, Ok(Event::Init))]);
    members.tell();
    assert_eq!(
        firewall.last(),
        (1, false, 2),
        "a list that is only asked for proves nothing"
    );
    members.heard(listed(0, "shop", &[2]));
    members.tell();
    assert_eq!(firewall.last(), (1, true, 3));
}

#[test]
fn a_watch_that_is_well_does_not_speak_for_one_that_is_not() {
    let firewall = Arc::new(Firewall::default());
    let mut several = members(&firewall, &["shop", "lab"], None);
    several.heard(listed(0, "shop", &[1]));
    several.tell();
    assert_eq!(firewall.last().2, 0, "nothing before all lists are whole");
    several.heard(vec![(1, Err(failure()))]);
    several.tell();
    assert_eq!(firewall.unknown.lock().expect("errors").len(), 1);
    several.heard(listed(1, "lab", &[2]));
    several.tell();
    assert_eq!(firewall.last(), (2, true, 1));
    several.heard(vec![(1, Err(failure())), (0, Ok(Event::Delete(pod("shop", 1))))]);
    several.tell();
    assert_eq!(firewall.last(), (1, false, 2));
    several.heard(vec![(0, Ok(Event::Apply(pod("shop", 3))))]);
    several.tell();
    assert_eq!(firewall.last(), (2, false, 3), "the other one is still away");

    let firewall = Arc::new(Firewall::default());
    let mut by_label = members(&firewall, &[], Some("team=x"));
    by_label.heard(listed(0, "shop", &[1]));
    for event in [Event::Init, Event::InitApply(space("shop")), Event::InitDone] {
        by_label.heard_of_a_namespace(Ok(event));
    }
    by_label.tell();
    assert_eq!(firewall.last(), (1, true, 1));
    by_label.heard_of_a_namespace(Err(failure()));
    by_label.tell();
    by_label.heard(vec![(0, Ok(Event::Apply(pod("shop", 2))))]);
    by_label.tell();
    assert_eq!(firewall.last(), (2, false, 3), "namespaces are not known");
}

#[test]
fn what_does_not_get_in_force_is_told_again() {
    let firewall = Arc::new(Firewall::default());
    let mut members = members(&firewall, &[], None);
    firewall.full.store(true, Ordering::Relaxed);
    members.heard(listed(0, "shop", &[1]));
    members.tell();
    assert!(members.told.retry.is_some());
    members.tell();
    assert_eq!(firewall.last().2, 1, "not at once");
    members.told.again();
    assert_eq!(firewall.last().2, 2);
    members.heard(vec![(0, Ok(Event::Delete(pod("shop", 1))))]);
    members.tell();
    assert_eq!(firewall.last(), (0, true, 3), "other members do not wait");
    firewall.full.store(false, Ordering::Relaxed);
    members.told.again();
    assert_eq!((firewall.last().2, members.told.retry), (4, None));
    members.tell();
    assert_eq!(firewall.last().2, 4, "it is in force");
}
