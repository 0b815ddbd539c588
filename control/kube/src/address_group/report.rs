//! What is written on an `AddressGroup`: its status alone, by server-side apply, each part by the field manager that owns it.

use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::core::DynamicObject;
use serde_json::{Value, json};

use super::status::{Entry, Summary};
use crate::place::Network;
use crate::report::{EVERYBODY, Unwritten, manager, within};

/// A pen for one object.
pub struct Writer {
    api: Api<DynamicObject>,
    place: Network,
}

impl Writer {
    /// For the object of this name.
    pub const fn new(api: Api<DynamicObject>, place: Network) -> Self {
        Self { api, place }
    }

    /// The object as it is now; `None`: there is none.
    pub async fn read(&self) -> Result<Option<DynamicObject>, Unwritten> {
        // A list of one: what a watch needs is permitted, and nothing else is asked for.
        let one = ListParams::default().fields(&format!("metadata.name={}", self.place.name));
        let list = within(self.api.list(&one)).await?;
        Ok(list.items.into_iter().next())
    }

    /// Writes an instance's entry; `None` takes it away.
    pub async fn entry(&self, instance: &str, entry: Option<&Entry>) -> Result<(), Unwritten> {
        let status = match entry {
            Some(entry) => json!({ "instances": [entry] }),
            None => json!({}),
        };
        self.apply(&manager(instance), status).await
    }

    /// Takes the last entry away. Applied without its last part a list is null for some API servers, and refused; so the list is
    /// written empty, unless the object has changed meanwhile.
    pub async fn last(&self, instance: &str, object: &DynamicObject) -> Result<(), Unwritten> {
        let version = &object.metadata.resource_version;
        let empty = json!({ "metadata": { "resourceVersion": version }, "status": { "instances": [] } });
        let how = PatchParams {
            field_manager: Some(manager(instance)),
            ..PatchParams::default()
        };
        within(
            self.api
                .patch_status(&self.place.name, &how, &Patch::Merge(&empty)),
        )
        .await
        .map(drop)
    }

    /// Writes the summary.
    pub async fn summary(&self, summary: &Summary) -> Result<(), Unwritten> {
        self.apply(EVERYBODY, json!(summary)).await
    }

    async fn apply(&self, manager: &str, status: Value) -> Result<(), Unwritten> {
        let resource = crate::crd::address_group_resource();
        let fields = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": { "name": self.place.name },
            "status": status,
        });
        let (how, what) = (PatchParams::apply(manager).force(), Patch::Apply(&fields));
        within(self.api.patch_status(&self.place.name, &how, &what))
            .await
            .map(drop)
    }
}
