//! What is written back to the API: entries, summaries, annotations, events.
//!
//! All by server-side apply, each part by the field manager that owns it: an instance's entry by the instance's, the summary by one
//! that all share. Applied without a part, that part goes, so an instance that stops takes its entry with it, and any
//! other may take a dead one's. Nothing is written that the object says already.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::core::DynamicObject;
use kube::{Client, Resource as _};
use serde_json::{Value, json};

use crate::agent::Origin;
use crate::condition::shortened;
use crate::place::Place;
use crate::status::{Instance, Summary};

/// The field manager that all instances share.
pub const EVERYBODY: &str = "bulkhead";
/// The prefix of the annotations of a ConfigMap; the instance's name follows.
pub const ANNOTATION: &str = "status.bulkhead.dev/";
/// The longest that a write may take.
const LONGEST: Duration = Duration::from_secs(10);

/// Why nothing was written.
pub type Unwritten = String;

/// The field manager of an instance.
pub fn manager(instance: &str) -> String {
    // The API takes 128 bytes.
    format!("bulkhead/{}", &instance[..instance.floor_char_boundary(110)])
}

/// What an object says of the instances that follow it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reported {
    /// An entry of each.
    pub instances: Vec<Instance>,
    /// All together; of a `Firewall` alone.
    pub summary: Summary,
}

impl Reported {
    /// Reads it from an object; what cannot be read is not there.
    pub fn read(place: &Place, object: &DynamicObject) -> Self {
        match place.origin {
            Origin::ConfigMap => {
                let annotations = object.metadata.annotations.iter().flatten();
                let entries = annotations.filter(|(key, _)| key.starts_with(ANNOTATION));
                Self {
                    instances: entries
                        .filter_map(|(_, entry)| serde_json::from_str(entry).ok())
                        .collect(),
                    summary: Summary::default(),
                }
            }
            Origin::Firewall => {
                let status = &object.data["status"];
                let entries = status["instances"].as_array().into_iter().flatten();
                Self {
                    instances: entries
                        .filter_map(|entry| serde_json::from_value(entry.clone()).ok())
                        .collect(),
                    summary: serde_json::from_value(status.clone()).unwrap_or_default(),
                }
            }
        }
    }

    /// The entry of an instance.
    pub fn entry(&self, name: &str) -> Option<&Instance> {
        self.instances.iter().find(|instance| instance.name == name)
    }

    /// With another entry in place of an instance's own.
    pub fn with(&self, entry: &Instance) -> Vec<Instance> {
        let others = self.instances.iter().filter(|other| other.name != entry.name);
        let mut all: Vec<Instance> = others.chain([entry]).cloned().collect();
        // Whatever the order in which the API has them: everybody comes to the same summary.
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }
}

/// A pen for one object.
#[derive(Clone)]
pub struct Writer {
    place: Place,
    api: Api<DynamicObject>,
    client: Client,
    instance: String,
    /// Whether the object may be read by its name, and not be listed.
    by_name: bool,
}

impl Writer {
    /// For an object, in the name of an instance.
    pub fn new(client: Client, place: &Place, instance: &str) -> Self {
        Self {
            api: Api::namespaced_with(client.clone(), &place.namespace, &place.resource()),
            place: place.clone(),
            client,
            instance: instance.to_owned(),
            by_name: false,
        }
    }

    /// One that may get the object, and neither list nor watch.
    pub fn by_name(client: Client, place: &Place, instance: &str) -> Self {
        Self {
            by_name: true,
            ..Self::new(client, place, instance)
        }
    }

    /// The object, for a watch.
    pub fn api(&self) -> Api<DynamicObject> {
        self.api.clone()
    }

    /// The object as it is now; `None`: there is none.
    ///
    /// # Errors
    /// If the API does not say.
    pub async fn read(&self) -> Result<Option<DynamicObject>, Unwritten> {
        if self.by_name {
            return within(self.api.get_opt(&self.place.name)).await;
        }
        // A list of one: what a watch needs is permitted, and nothing else is asked for.
        let one = ListParams::default().fields(&format!("metadata.name={}", self.place.name));
        let list = within(self.api.list(&one)).await?;
        Ok(list.items.into_iter().next())
    }

    /// Writes the instance's own entry; `None` takes it away.
    ///
    /// # Errors
    /// If the API does not take it.
    pub async fn entry(&self, entry: Option<&Instance>) -> Result<(), Unwritten> {
        self.entry_of(&self.instance, entry).await
    }

    /// Takes the last entry away. Applied without its last part a list is null for some API servers, and refused; so the list is
    /// written empty, unless the object has changed meanwhile.
    ///
    /// # Errors
    /// If the API does not take it.
    pub async fn last(&self, object: &DynamicObject) -> Result<(), Unwritten> {
        if self.place.origin == Origin::ConfigMap {
            return self.entry(None).await;
        }
        let version = &object.metadata.resource_version;
        let empty = json!({ "metadata": { "resourceVersion": version }, "status": { "instances": [] } });
        let patch = Patch::Merge(&empty);
        let how = PatchParams {
            field_manager: Some(manager(&self.instance)),
            ..PatchParams::default()
        };
        within(self.api.patch_status(&self.place.name, &how, &patch))
            .await
            .map(drop)
    }

    /// Takes the entry of a dead instance away.
    ///
    /// # Errors
    /// If the API does not take it.
    pub async fn bury(&self, instance: &str) -> Result<(), Unwritten> {
        self.entry_of(instance, None).await
    }

    /// Takes the entry of an instance away, whosever it is, unless the object has changed since.
    ///
    /// # Errors
    /// If the API does not take it.
    pub async fn remove(&self, object: &DynamicObject, instance: &str) -> Result<(), Unwritten> {
        let mut fields = json!({ "metadata": { "resourceVersion": object.metadata.resource_version } });
        let how = PatchParams {
            field_manager: Some(manager(&self.instance)),
            ..PatchParams::default()
        };
        let removed = match self.place.origin {
            Origin::ConfigMap => {
                fields["metadata"]["annotations"] = json!({ annotation(instance): null });
                within(self.api.patch(&self.place.name, &how, &Patch::Merge(&fields))).await
            }
            Origin::Firewall => {
                let entries = object.data["status"]["instances"]
                    .as_array()
                    .into_iter()
                    .flatten();
                let others: Vec<&Value> = entries.filter(|entry| entry["name"] != instance).collect();
                fields["status"] = json!({ "instances": others });
                within(
                    self.api
                        .patch_status(&self.place.name, &how, &Patch::Merge(&fields)),
                )
                .await
            }
        };
        removed.map(drop)
    }

    async fn entry_of(&self, instance: &str, entry: Option<&Instance>) -> Result<(), Unwritten> {
        match self.place.origin {
            Origin::ConfigMap => {
                let annotations = match entry {
                    Some(entry) => {
                        // `kubectl describe` cuts each line of an annotation after 138 bytes.
                        let text = serde_json::to_string_pretty(entry).map_err(|error| error.to_string())?;
                        json!({ annotation(instance): text })
                    }
                    None => json!({}),
                };
                self.apply(
                    &manager(instance),
                    json!({ "metadata": { "annotations": annotations } }),
                    false,
                )
                .await
            }
            Origin::Firewall => {
                let status = match entry {
                    Some(entry) => json!({ "instances": [entry] }),
                    None => json!({}),
                };
                self.apply(&manager(instance), json!({ "status": status }), true)
                    .await
            }
        }
    }

    /// Writes the summary.
    ///
    /// # Errors
    /// If the API does not take it.
    pub async fn summary(&self, summary: &Summary) -> Result<(), Unwritten> {
        self.apply(EVERYBODY, json!({ "status": summary }), true).await
    }

    async fn apply(&self, manager: &str, mut fields: Value, status: bool) -> Result<(), Unwritten> {
        let resource = self.place.resource();
        fields["apiVersion"] = json!(resource.api_version);
        fields["kind"] = json!(resource.kind);
        fields["metadata"]["name"] = json!(self.place.name);
        let (how, what) = (PatchParams::apply(manager).force(), Patch::Apply(&fields));
        match status {
            true => within(self.api.patch_status(&self.place.name, &how, &what)).await?,
            false => within(self.api.patch(&self.place.name, &how, &what)).await?,
        };
        Ok(())
    }

    /// Writes an event about the object.
    ///
    /// # Errors
    /// If the API does not take it.
    pub async fn event(
        &self,
        object: &DynamicObject,
        bad: bool,
        reason: &str,
        note: &str,
    ) -> Result<(), Unwritten> {
        let about = object.object_ref(&self.place.resource());
        let what = What {
            bad,
            action: "Commit",
            reason,
            note,
        };
        publish(&self.client, &self.instance, about, what).await
    }
}

/// What the API server said; the whole answer is for programs.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => crate::follow::describe(other),
    }
}

/// The annotation of an instance: what follows the slash may have 63 bytes.
fn annotation(instance: &str) -> String {
    let name = match instance.len() {
        0..=63 => instance.to_owned(),
        _ => {
            let hash = crate::document::digest(instance.as_bytes());
            format!(
                "{}-{}",
                &instance[..instance.floor_char_boundary(46)],
                &hash[..16]
            )
        }
    };
    format!("{ANNOTATION}{name}")
}

/// What an event says.
#[derive(Clone, Copy, Debug)]
pub struct What<'w> {
    /// Somebody should look.
    pub bad: bool,
    /// What was done, for programs.
    pub action: &'w str,
    /// What came of it, for programs.
    pub reason: &'w str,
    /// The same for people.
    pub note: &'w str,
}

/// Writes an event about something.
///
/// # Errors
/// If the API does not take it.
pub async fn publish(
    client: &Client,
    instance: &str,
    about: ObjectReference,
    what: What<'_>,
) -> Result<(), Unwritten> {
    let now = Timestamp::now();
    let name = about.name.as_deref().unwrap_or("bulkhead");
    let namespace = about.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let event = Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", now.as_nanosecond())),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        },
        action: Some(what.action.to_owned()),
        event_time: Some(MicroTime(now)),
        note: Some(shortened(what.note)),
        reason: Some(what.reason.to_owned()),
        regarding: Some(about),
        reporting_controller: Some("bulkhead.dev/bulkhead".to_owned()),
        reporting_instance: Some(instance.to_owned()),
        type_: Some(if what.bad { "Warning" } else { "Normal" }.to_owned()),
        ..Event::default()
    };
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    within(api.create(&PostParams::default(), &event)).await.map(drop)
}

/// Waits for an answer, but not for ever.
///
/// # Errors
/// What the API says, or that it says nothing.
pub async fn within<T>(answer: impl Future<Output = kube::Result<T>>) -> Result<T, Unwritten> {
    match tokio::time::timeout(LONGEST, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(said(&error)),
        Err(_) => Err(format!("no answer within {} s", LONGEST.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Instance {
        Instance {
            name: name.to_owned(),
            hash: "h".to_owned(),
            ..Instance::default()
        }
    }

    #[test]
    fn entries_are_read_where_they_are_written() {
        let text = serde_json::to_string(&entry("a")).expect("JSON");
        let map: DynamicObject = serde_json::from_value(json!({
            "metadata": { "name": "m", "annotations": { annotation("a"): text, "status.bulkhead.dev/b": "{", "other": "{}" } },
        }))
        .expect("an object");
        let place = Place::config_map("edge/m").expect("a place");
        assert_eq!(Reported::read(&place, &map).instances, [entry("a")]);
        let firewall: DynamicObject = serde_json::from_value(json!({
            "metadata": { "name": "m" },
            "status": { "applied": "1/2", "instances": [entry("b"), { "hash": 5 }, entry("a")] },
        }))
        .expect("an object");
        let place = Place::firewall("edge/m").expect("a place");
        let reported = Reported::read(&place, &firewall);
        assert_eq!(
            (reported.instances.len(), reported.summary.applied.as_str()),
            (2, "1/2")
        );
        let names: Vec<String> = reported
            .with(&entry("a"))
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        assert_eq!(names, ["a", "b"]);
        assert!(reported.entry("b").is_some() && reported.entry("c").is_none());
    }

    #[test]
    fn names_are_as_long_as_the_api_takes_and_stay_apart() {
        let (one, other) = ("a".repeat(200), format!("{}b", "a".repeat(199)));
        assert!(annotation(&one).len() <= ANNOTATION.len() + 63);
        assert_ne!(annotation(&one), annotation(&other));
        assert_eq!(annotation("pod-1"), "status.bulkhead.dev/pod-1");
        assert!(manager(&one).len() <= 128);
        // Names of dead instances come from the object, and whoever may write there writes what he likes.
        let odd = format!("a{}", "ä".repeat(60));
        assert_eq!(manager(&odd), format!("bulkhead/a{}", "ä".repeat(54)));
        assert!(annotation(&odd).starts_with(&format!("{ANNOTATION}a{}-", "ä".repeat(22))));
    }
}
