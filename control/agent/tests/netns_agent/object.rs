//! The object of the API that has the configuration, whichever kind it is of: how a document gets into it, and what an instance
//! says on it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::{Cluster, NAME};
use crate::daemon::DEADLINE;

/// The object that has the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    ConfigMap,
    Firewall,
}

impl Object {
    /// The chart's word for it.
    pub const fn source(self) -> &'static str {
        match self {
            Self::ConfigMap => "configuration.source=configMap",
            Self::Firewall => "configuration.source=firewall",
        }
    }

    /// The daemon's setting for it.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::ConfigMap => "BULKHEAD_CONFIG_MAP",
            Self::Firewall => "BULKHEAD_FIREWALL_RESOURCE",
        }
    }

    const fn collection(self) -> &'static str {
        match self {
            Self::ConfigMap => "/api/v1/namespaces/default/configmaps",
            Self::Firewall => "/apis/bulkhead.dev/v1alpha1/namespaces/default/firewalls",
        }
    }

    fn path(self) -> String {
        format!("{}/{NAME}", self.collection())
    }

    /// What changes the object to this document.
    fn change(self, document: &str) -> Value {
        match self {
            Self::ConfigMap => json!({ "data": { "firewall.yaml": document } }),
            Self::Firewall => {
                let document: Value = serde_saphyr::from_str(document).expect("YAML");
                json!({ "spec": document["spec"] })
            }
        }
    }

    /// Makes it, with a document.
    #[track_caller]
    pub fn create(self, cluster: &Cluster<'_>, document: &str) {
        let mut object = self.change(document);
        let (version, kind) = match self {
            Self::ConfigMap => ("v1", "ConfigMap"),
            Self::Firewall => ("bulkhead.dev/v1alpha1", "Firewall"),
        };
        (object["apiVersion"], object["kind"]) = (json!(version), json!(kind));
        object["metadata"] = json!({ "name": NAME });
        cluster.create(self.collection(), &object);
    }

    /// Gives it another document.
    #[track_caller]
    pub fn set(self, cluster: &Cluster<'_>, document: &str) {
        cluster.merge(&self.path(), &self.change(document));
    }

    #[track_caller]
    pub fn read(self, cluster: &Cluster<'_>) -> Value {
        cluster.read(&self.path())
    }

    /// What an instance says on it; `null`: nothing.
    pub fn entry(self, object: &Value, instance: &str) -> Value {
        match self {
            Self::ConfigMap => {
                let annotation = format!("{}{instance}", bulkhead_kube::ANNOTATION);
                let text = object["metadata"]["annotations"][annotation].as_str();
                text.map_or(Value::Null, |text| serde_json::from_str(text).expect("an entry"))
            }
            Self::Firewall => {
                let entries = object["status"]["instances"].as_array();
                let mut entries = entries.into_iter().flatten();
                let own = entries.find(|entry| entry["name"] == instance);
                own.cloned().unwrap_or_default()
            }
        }
    }

    /// Waits until an instance says on it that the document is in force, or not and why; what it says then.
    #[track_caller]
    pub fn await_applied(self, cluster: &Cluster<'_>, instance: &str, applied: (&str, &str, &str)) -> Value {
        let (holds, reason, message) = applied;
        let began = Instant::now();
        loop {
            let object = self.read(cluster);
            let entry = self.entry(&object, instance);
            let conditions = entry["conditions"].as_array();
            let is_meant = |condition: &Value| {
                let said = condition["message"].as_str().unwrap_or_default();
                condition["type"] == "Applied"
                    && condition["status"] == holds
                    && condition["reason"] == reason
                    && said.contains(message)
            };
            if conditions.into_iter().flatten().any(is_meant) {
                return entry;
            }
            assert!(
                began.elapsed() < DEADLINE,
                "it never came: Applied is {holds}: {reason}: {message}\n{object:#}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
