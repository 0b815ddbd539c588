//! Pods: members that the Kubernetes API names, while it names them.
//!
//! A pod's address is a member from the moment it is known until the pod has ended or carries other labels. A pod that has no
//! address yet is pending: it is counted, and nothing is taken out for it. While the API does not answer, the last
//! members stay, over a restart too.

use std::time::SystemTime;

use bulkhead_config::{IpPrefix, PodSelection};
use bulkhead_feeds::hold::Members;
use bulkhead_feeds::store::Saved;
use bulkhead_kube::FoundPods;

use super::{Change, Groups, InForce, Source, Step, Tables, apply, saved};

/// The pods of a group.
pub(super) struct PodsState {
    pub(super) selection: PodSelection,
    /// Ascending, each once.
    pub(super) members: Vec<IpPrefix>,
    pub(super) in_force: InForce,
    /// How many pods are members, and how many will be.
    pub(super) pods: usize,
    pub(super) pending: usize,
    /// When the API has named them last.
    pub(super) known: Option<SystemTime>,
    /// Whether it would tell of a change now.
    pub(super) watched: bool,
    pub(super) error: Option<String>,
}

impl PodsState {
    /// The same pods go on; others begin with the members there are, until they are known.
    pub(super) fn follow(
        before: Option<Self>,
        selection: &PodSelection,
        saved: impl FnOnce() -> Saved,
    ) -> Self {
        match before {
            Some(before) if before.selection == *selection => before,
            Some(before) => Self {
                selection: selection.clone(),
                watched: false,
                error: None,
                ..before
            },
            None => {
                let saved = saved();
                Self {
                    selection: selection.clone(),
                    members: saved.members.all(),
                    in_force: InForce::default(),
                    pods: 0,
                    pending: 0,
                    known: saved.fetched,
                    watched: false,
                    error: None,
                }
            }
        }
    }

    /// Where the members are looked for, for people.
    pub(super) fn location(&self) -> String {
        let PodSelection {
            selector,
            namespaces,
            namespace_selector,
            network,
        } = &self.selection;
        let mut text = selector.clone();
        if !namespaces.is_empty() {
            text += &format!(" in {}", namespaces.join(", "));
        }
        if let Some(selector) = namespace_selector {
            text += &format!(" in namespaces {selector}");
        }
        if let Some(network) = network {
            text += &format!(" on {network}");
        }
        if self.pending > 0 {
            text += &format!(" ({} pending)", self.pending);
        }
        text
    }
}

impl Groups {
    /// Takes over the pods of a group, if it still follows them.
    pub fn set_pods(&self, group: &str, selection: &PodSelection, found: &FoundPods, tables: &dyn Tables) {
        let mut state = self.lock();
        let Some(pods) = state
            .pods
            .get_mut(group)
            .filter(|pods| pods.selection == *selection)
        else {
            return;
        };
        let mut members: Vec<IpPrefix> = found.addresses.iter().copied().map(IpPrefix::host).collect();
        members.sort_unstable();
        members.dedup();
        let step = Step::between(pods.members.clone(), members.clone());
        let all = || members.clone();
        let applied = apply(&step, &Source::Pods.hidden(group), &pods.in_force, all, tables);
        pods.members = members;
        (pods.pods, pods.pending) = (found.pods, found.pending);
        pods.known = Some(SystemTime::now());
        pods.watched = true;
        if pods.error.take().is_some() {
            tracing::info!(group, "the pods of the group are known again");
        }
        match applied {
            Ok(change) if change == Change::default() => return,
            Ok(change) => tracing::info!(
                group,
                added = change.added,
                removed = change.removed,
                pods = found.pods,
                pending = found.pending,
                "pods in force"
            ),
            Err(error) => tracing::error!(group, error, "members are not in force"),
        }
        let saved = Saved {
            fetched: pods.known,
            ..saved(Members::new(pods.members.clone(), Vec::new()))
        };
        let turn = self.turn();
        drop(state);
        // In force first, on the disk second; a failure is in the log.
        let _ = self.save(turn, group, Source::Pods, &saved);
    }

    /// Nobody says which pods there are; the last members stay.
    pub fn pods_unknown(&self, group: &str, selection: &PodSelection, error: &str) {
        let mut state = self.lock();
        let Some(pods) = state
            .pods
            .get_mut(group)
            .filter(|pods| pods.selection == *selection)
        else {
            return;
        };
        if pods.error.is_none() {
            let members = pods.members.len();
            tracing::warn!(
                group,
                error,
                members,
                "the pods of the group are not known, the last members stay"
            );
        }
        // As old as the moment in which the watch was lost.
        if std::mem::take(&mut pods.watched) {
            pods.known = Some(SystemTime::now());
        }
        pods.error = Some(error.to_owned());
    }

    /// The groups that follow pods, by name.
    pub fn pod_selections(&self) -> Vec<(String, PodSelection)> {
        let state = self.lock();
        let pods = state.pods.iter();
        pods.map(|(group, pods)| (group.clone(), pods.selection.clone()))
            .collect()
    }

    /// What is wrong with sources whose members may be old, a sentence each.
    pub fn stale(&self) -> Vec<String> {
        let state = self.lock();
        let pods = state.pods.iter().filter_map(|(group, pods)| {
            let error = pods.error.as_ref()?;
            Some(format!("the pods of group {group} are not known: {error}"))
        });
        let objects = state.objects.iter().filter_map(|(group, object)| {
            let (error, object) = (object.error.as_ref()?, &object.object);
            Some(format!(
                "the address group {object} of group {group} is not known: {error}"
            ))
        });
        pods.chain(objects).collect()
    }
}
