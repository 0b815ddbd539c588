//! What is handed over and what is kept while a firewall refuses. Its lists are filled by hand, the API is nowhere.

use std::sync::{Mutex, PoisonError};

use bulkhead_config::{Member, PodSelection};
use serde_json::{Value, json};

use super::*;
use crate::address_group::ObjectMembers;
use crate::agent::{Document, InForce, Refusal};
use crate::group::FoundPods;

/// A firewall that has room for so many policies.
struct Small {
    room: usize,
    told: Mutex<Told>,
}

#[derive(Clone, Default)]
struct Told {
    up: bool,
    asked: usize,
    in_force: Option<Isolation>,
    refused: Option<String>,
    kept: Option<Vec<u8>>,
    full: bool,
}

impl Small {
    fn lock(&self) -> std::sync::MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> Told {
        self.lock().clone()
    }
}

impl Agent for Small {
    fn commit(&self, _: &Document) -> Result<(), Refusal> {
        Ok(())
    }

    fn in_force(&self) -> Option<InForce> {
        None
    }

    fn pod_groups(&self) -> Vec<(String, PodSelection)> {
        Vec::new()
    }

    fn set_pods(&self, _: &str, _: &PodSelection, _: &FoundPods) -> bool {
        true
    }

    fn pods_unknown(&self, _: &str, _: &PodSelection, _: &str) {}

    fn isolate(&self, isolation: &Isolation) -> Result<(), NotIsolated> {
        let mut told = self.lock();
        if !told.up {
            return Err(NotIsolated::NotYet);
        }
        told.asked += 1;
        if isolation.denials.len() > self.room {
            return Err(NotIsolated::Failed("no room".to_owned()));
        }
        told.in_force = Some(isolation.clone());
        Ok(())
    }

    fn policies_refused(&self, error: Option<&str>) {
        self.lock().refused = error.map(str::to_owned);
    }

    fn keep_snapshot(&self, snapshot: &[u8]) -> Result<(), String> {
        let mut told = self.lock();
        if told.full {
            return Err("no space".to_owned());
        }
        told.kept = Some(snapshot.to_vec());
        Ok(())
    }

    fn snapshot(&self) -> Option<Vec<u8>> {
        self.lock().kept.clone()
    }

    fn policies_unknown(&self, _: Option<&str>) {}

    fn address_groups(&self) -> Vec<String> {
        Vec::new()
    }

    fn set_address_group(&self, _: &str, _: &ObjectMembers) -> Result<(), String> {
        Ok(())
    }

    fn address_group_unknown(&self, _: &str, _: &str) {}
}

fn firewall(room: usize) -> Arc<Small> {
    let told = Told {
        up: true,
        ..Told::default()
    };
    Arc::new(Small {
        room,
        told: Mutex::new(told),
    })
}

/// The lists are whole, and empty.
fn follower(firewall: &Arc<Small>) -> Follower {
    let nowhere = kube::Config::new("http://127.0.0.1:1".parse().expect("an address"));
    let client = Client::try_from(nowhere).expect("a client");
    let mut follower = Follower::new(client, "fw-0".to_owned(), firewall.clone());
    follower.pods.apply(Event::<Pod>::InitDone, own_key, |pod, _| pod);
    let known = |object, _: Option<&Arc<Known>>| Arc::new(Known::new(object));
    follower.policies.apply(Event::InitDone, key, known);
    let labels = |_: Space, _: Option<&Labels>| Labels::default();
    follower
        .namespaces
        .apply(Event::InitDone, |space| space.name_any(), labels);
    follower
}

fn own_key(pod: &Pod) -> (String, String) {
    (pod.namespace.clone(), pod.name.clone())
}

/// Isolates the pods of an app, which take each of these ports from somebody else.
fn object(name: &str, app: &str, ports: u16) -> DynamicObject {
    let rules: Vec<Value> = (0..ports)
        .map(|port| {
            json!({
                "ports": [{ "port": 8_000 + port }],
                "from": [{ "ipBlock": { "cidr": format!("10.9.{port}.0/24") } }],
            })
        })
        .collect();
    let object = json!({
        "apiVersion": "k8s.cni.cncf.io/v1beta1", "kind": "MultiNetworkPolicy",
        "metadata": { "namespace": "shop", "name": name, "annotations": { POLICY_FOR: "net/a" } },
        "spec": { "podSelector": { "matchLabels": { "app": app } }, "ingress": rules },
    });
    serde_json::from_value(object).expect("an object of the API")
}

fn write(follower: &mut Follower, object: DynamicObject) {
    let known = |object, _: Option<&Arc<Known>>| Arc::new(Known::new(object));
    follower.changed |= take(&mut follower.policies, Event::Apply(object), key, known);
    follower.compile();
}

fn pod(name: &str, app: &str, address: &str) -> Pod {
    let network = "net/a".parse().expect("a network");
    let address = address.parse().expect("an address");
    Pod {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        labels: [("app".to_owned(), app.to_owned())].into(),
        attached: Some([(network, vec![address])].into()),
        ..Pod::default()
    }
}

fn run(follower: &mut Follower, pod: Pod) {
    assert!(take(&mut follower.pods, Event::Apply(pod), own_key, |pod, _| pod));
    follower.compile();
}

/// The addresses that are in some group.
fn members(isolation: Option<&Isolation>) -> Vec<String> {
    let groups = isolation
        .iter()
        .flat_map(|isolation| &isolation.groups[..isolation.pod_groups]);
    let mut members: Vec<String> = groups
        .flat_map(|group| &group.members)
        .filter_map(|member| match member {
            Member::Host(address) => Some(address.to_string()),
            _ => None,
        })
        .collect();
    members.sort();
    members
}

#[tokio::test]
async fn a_refused_object_is_named_and_holds_up_no_pod_and_is_not_kept() {
    let firewall = firewall(3);
    let mut follower = follower(&firewall);
    run(&mut follower, pod("db-0", "db", "10.0.0.1"));
    write(&mut follower, object("db", "db", 0));
    assert_eq!(members(firewall.told().in_force.as_ref()), ["10.0.0.1"]);
    follower.keep_now();
    let kept = firewall.told().kept.expect("it is kept");

    write(&mut follower, object("large", "db", 9));
    let told = firewall.told();
    assert_eq!(
        told.refused.as_deref(),
        Some("no room; new or changed since: shop/large")
    );
    // A pod that comes meanwhile is isolated as the others are, and what is refused is not asked again for each.
    let before = told.asked;
    run(&mut follower, pod("db-1", "db", "10.0.0.2"));
    let told = firewall.told();
    assert_eq!(told.asked, before + 1, "the last policies alone");
    assert_eq!(members(told.in_force.as_ref()), ["10.0.0.1", "10.0.0.2"]);
    assert!(told.refused.is_some());
    // The disk has the pod that came, and not the object.
    follower.keep_now();
    let again = firewall.told().kept.expect("it is kept");
    assert_ne!(again, kept);
    assert_eq!(Snapshot::isolation(&again).ok(), told.in_force);

    // One that fits is taken, and nothing is refused any more.
    write(&mut follower, object("large", "db", 1));
    let told = firewall.told();
    assert_eq!((told.refused, follower.retry), (None, None));
    follower.keep_now();
    let kept = firewall.told().kept.expect("it is kept");
    assert_eq!(Snapshot::isolation(&kept).ok(), told.in_force);
}

#[tokio::test]
async fn after_a_restart_the_policies_that_were_kept_follow_the_pods_if_others_are_refused() {
    let firewall = firewall(3);
    let mut before = follower(&firewall);
    write(&mut before, object("db", "db", 0));
    run(&mut before, pod("db-0", "db", "10.0.0.1"));
    before.keep_now();

    let mut after = follower(&firewall);
    run(&mut after, pod("db-1", "db", "10.0.0.7"));
    // Both come with the first list.
    let known = |object, _: Option<&Arc<Known>>| Arc::new(Known::new(object));
    take(
        &mut after.policies,
        Event::Apply(object("db", "db", 0)),
        key,
        known,
    );
    after.accepted = None;
    write(&mut after, object("large", "db", 9));
    let told = firewall.told();
    assert_eq!(members(told.in_force.as_ref()), ["10.0.0.7"]);
    assert!(told.refused.is_some_and(|why| why.ends_with(": shop/large")));
}

#[tokio::test]
async fn what_came_before_the_firewall_is_kept_and_what_the_disk_refuses_is_tried_again() {
    let firewall = firewall(3);
    firewall.lock().up = false;
    let mut follower = follower(&firewall);
    run(&mut follower, pod("db-0", "db", "10.0.0.1"));
    write(&mut follower, object("db", "db", 0));
    follower.keep_now();
    assert_eq!((firewall.told().kept, follower.keep), (None, None));

    firewall.lock().up = true;
    follower.hand_over_if_it_has_nothing();
    firewall.lock().full = true;
    follower.keep_now();
    assert!(follower.keep.is_some(), "it is tried again");
    assert_eq!(firewall.told().kept, None);
    firewall.lock().full = false;
    follower.keep_now();
    assert_eq!(follower.keep, None);
    let told = firewall.told();
    let kept = told.kept.expect("it is kept");
    assert_eq!(Snapshot::isolation(&kept).ok(), told.in_force);
}

#[tokio::test]
async fn an_event_that_changes_nothing_is_none() {
    let firewall = firewall(3);
    let mut follower = follower(&firewall);
    write(&mut follower, object("db", "db", 0));
    let known = |object, _: Option<&Arc<Known>>| Arc::new(Known::new(object));
    let mut same = object("db", "db", 0);
    same.metadata.resource_version = Some("8".to_owned());
    assert!(!take(&mut follower.policies, Event::Apply(same), key, known));
    let other = object("db", "db", 1);
    assert!(take(&mut follower.policies, Event::Apply(other), key, known));
}

#[tokio::test]
async fn a_watch_that_asks_again_is_no_success() {
    let mut follower = follower(&firewall(3));
    let failed = || Err::<Event<Pod>, _>(watcher::Error::NoResourceVersion);
    assert!(follower.heard(Watch::Pods, failed()).is_none());
    assert!(follower.heard(Watch::Pods, Ok(Event::<Pod>::Init)).is_some());
    assert_eq!((follower.failed, follower.lost), ([false, true, false], true));
    assert!(follower.heard(Watch::Pods, Ok(Event::<Pod>::InitDone)).is_some());
    assert_eq!(follower.failed, [false; 3]);
}
