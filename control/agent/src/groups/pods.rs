//! Pods: members that the Kubernetes API names, while it names them.
//!
//! A pod's address is a member from the moment it is known until the pod has ended or carries other labels. A pod that has no
//! address yet is pending: it is counted, and nothing is taken out for it. While the API does not answer, the last
//! members stay, over a restart too; but those of another selection do not.

use std::time::{Duration, Instant, SystemTime};

use bulkhead_config::{IpPrefix, PodSelection};
use bulkhead_feeds::hold::Members;
use bulkhead_feeds::store::Saved;
use bulkhead_kube::{FoundPods, MOST_ADDRESSES};

use super::{Change, Groups, InForce, Source, State, Step, Tables, apply, prefixes, saved};

/// How long members stay that were found for another question than the one that is asked now: long enough for the answer, so
/// that nobody is cut off for a moment because a selector was edited.
const HELD: Duration = Duration::from_secs(5);

/// The pods of a group.
pub(super) struct PodsState {
    pub(super) selection: PodSelection,
    /// Ascending, each once.
    pub(super) members: Vec<IpPrefix>,
    /// Whose members these are, while they are not those of `selection`; and until when.
    held: Option<(PodSelection, Instant)>,
    pub(super) in_force: InForce,
    /// What the data plane had when it refused a change.
    placed: Vec<IpPrefix>,
    /// Why it did.
    refused: Option<String>,
    /// How many pods are members, and how many will be.
    pub(super) pods: usize,
    pub(super) pending: usize,
    /// How many addresses of pods with too many do not count.
    beyond: usize,
    /// When the API has named them last.
    pub(super) known: Option<SystemTime>,
    /// Whether it would tell of a change now.
    pub(super) watched: bool,
    pub(super) error: Option<String>,
}

impl PodsState {
    /// The same pods go on. Another selection has the members of the one before until its own are known, but not for long; if it
    /// does not come to be, they are those of the one before as ever. What was kept counts for the selection that it was kept of;
    /// and for a group that is new in a `running` firewall not for long either: its addresses may be other pods' by now.
    pub(super) fn follow(
        before: Option<Self>,
        selection: &PodSelection,
        running: bool,
        saved: impl FnOnce() -> Saved,
    ) -> Self {
        let until = || Instant::now() + HELD;
        let Some(before) = before else {
            let saved = Some(saved()).filter(|saved| saved.source == identity(selection));
            let saved = saved.unwrap_or_default();
            let members = saved.members.all();
            return Self {
                selection: selection.clone(),
                held: (running && !members.is_empty()).then(|| (selection.clone(), until())),
                members,
                in_force: InForce::default(),
                placed: Vec::new(),
                refused: None,
                pods: 0,
                pending: 0,
                beyond: 0,
                known: saved.fetched,
                watched: false,
                error: None,
            };
        };
        if before.selection == *selection {
            return before;
        }
        let (of, until) = match before.held {
            Some(held) => held,
            None => (before.selection, until()),
        };
        Self {
            held: (of != *selection).then_some((of, until)),
            selection: selection.clone(),
            watched: false,
            ..before
        }
    }

    /// When members end that are another selection's.
    pub(super) fn expiry(&self) -> Option<Instant> {
        self.held.as_ref().map(|(_, until)| *until)
    }

    /// Where the members are looked for, for people.
    pub(super) fn location(&self) -> String {
        let mut text = identity(&self.selection);
        if self.pending > 0 {
            text += &format!(" ({} pending)", self.pending);
        }
        text
    }
}

/// Which pods a selection asks for, for people; and what members are kept under.
fn identity(selection: &PodSelection) -> String {
    let PodSelection {
        selector,
        namespaces,
        namespace_selector,
        network,
    } = selection;
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
    text
}

impl PodsState {
    /// Puts members in force. If the data plane cannot take all, those that are none any more are taken out all the same:
    /// what comes must not keep in what goes. `None`: these are not in force.
    fn put_in_force(&mut self, group: &str, members: Vec<IpPrefix>, tables: &dyn Tables) -> Option<Change> {
        let hidden = Source::Pods.hidden(group);
        let before = std::mem::replace(&mut self.members, members);
        if self.in_force.get() {
            self.placed.clone_from(&before);
        }
        let step = Step::between(before, self.members.clone());
        let all = || self.members.clone();
        let error = match apply(&step, &hidden, &self.in_force, all, tables) {
            Ok(change) => {
                if self.refused.take().is_some() {
                    tracing::info!(group, "the pods of the group are in force again");
                }
                self.placed = Vec::new();
                return Some(change);
            }
            Err(error) => error,
        };
        let fewer = self.placed.len();
        self.placed
            .retain(|member| self.members.binary_search(member).is_ok());
        let (out, left) = (fewer - self.placed.len(), self.placed.len());
        // As many as there are already, or fewer, find room.
        let removed = match out {
            0 => Ok(()),
            _ => tables.set_members(&hidden, prefixes(&self.placed)),
        };
        if let Err(error) = &removed {
            tracing::error!(group, error, "members that are none any more are in force still");
        }
        if self.refused.as_ref() != Some(&error) {
            tracing::error!(
                group,
                error,
                wanted = self.members.len(),
                in_force = left,
                "members are not in force; it is tried again"
            );
            self.refused = Some(error);
        }
        None
    }

    /// Nobody says which pods there are; the last members stay.
    fn lose(&mut self, group: &str, error: &str) {
        if self.error.is_none() {
            tracing::warn!(
                group,
                error,
                members = self.members.len(),
                "the pods of the group are not known, the last members stay"
            );
        }
        // As old as the moment in which the watch was lost.
        if std::mem::take(&mut self.watched) {
            self.known = Some(SystemTime::now());
        }
        self.error = Some(error.to_owned());
    }
}

impl State {
    /// Takes out members that were another selection's, if nobody has said in time which ones are this one's.
    pub(super) fn expire_pods(&mut self, groups: &Groups, tables: &dyn Tables, now: Instant) {
        for (group, pods) in &mut self.pods {
            if pods.expiry().is_none_or(|until| until > now) {
                continue;
            }
            pods.held = None;
            let members = pods.members.len();
            tracing::warn!(
                group,
                members,
                "nobody says which pods the group has now; members of before are taken out"
            );
            pods.put_in_force(group, Vec::new(), tables);
            let unknown = || "nobody has said yet which pods there are".to_owned();
            pods.error.get_or_insert_with(unknown);
            // A restart does not bring them back; a failure is in the log.
            let _ = groups.save(groups.turn(), group, Source::Pods, &saved(Members::default()));
        }
    }
}

impl Groups {
    /// Takes over the pods of a group, if it still follows them. Whether their addresses are in force: if the data plane cannot
    /// take those that came, those that left are out all the same.
    pub fn set_pods(
        &self,
        group: &str,
        selection: &PodSelection,
        found: &FoundPods,
        tables: &dyn Tables,
    ) -> bool {
        let mut state = self.lock();
        let Some(pods) = state
            .pods
            .get_mut(group)
            .filter(|pods| pods.selection == *selection)
        else {
            return false;
        };
        let mut members: Vec<IpPrefix> = found.addresses.iter().copied().map(IpPrefix::host).collect();
        members.sort_unstable();
        members.dedup();
        let news = pods.members != members || pods.held.is_some();
        let applied = pods.put_in_force(group, members, tables);
        pods.held = None;
        (pods.pods, pods.pending) = (found.pods, found.pending);
        if found.beyond > std::mem::replace(&mut pods.beyond, found.beyond) {
            tracing::warn!(
                group,
                addresses = found.beyond,
                most = MOST_ADDRESSES,
                "pods have more addresses on one network than count"
            );
        }
        match &found.unknown {
            None => {
                pods.known = Some(SystemTime::now());
                pods.watched = true;
                if pods.error.take().is_some() {
                    tracing::info!(group, "the pods of the group are known again");
                }
            }
            Some(error) => pods.lose(group, error),
        }
        if let Some(change) = applied.filter(|change| *change != Change::default()) {
            tracing::info!(
                group,
                added = change.added,
                removed = change.removed,
                pods = found.pods,
                pending = found.pending,
                "pods in force"
            );
        }
        if news {
            let saved = Saved {
                source: identity(selection),
                fetched: pods.known,
                ..saved(Members::new(pods.members.clone(), Vec::new()))
            };
            let turn = self.turn();
            drop(state);
            // In force first, on the disk second; a failure is in the log.
            let _ = self.save(turn, group, Source::Pods, &saved);
        }
        applied.is_some()
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
        pods.lose(group, error);
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
            if let Some(error) = &pods.error {
                return Some(format!("the pods of group {group} are not known: {error}"));
            }
            let refused = pods.refused.as_ref().filter(|_| !pods.in_force.get())?;
            Some(format!("the pods of group {group} are not in force: {refused}"))
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
