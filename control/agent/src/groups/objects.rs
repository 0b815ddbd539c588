//! Objects `AddressGroup`: members that the Kubernetes API has, put together by [`bulkhead_kube`].
//!
//! Several groups may refer to one object; each has a copy of its own. While the API does not answer, or the object is wrong, the
//! last members stay, over a restart too.

use std::time::SystemTime;

use bulkhead_config::IpPrefix;
use bulkhead_feeds::hold::Members;
use bulkhead_feeds::store::Saved;
use bulkhead_kube::ObjectMembers;

use super::{Change, Groups, InForce, Source, Step, Tables, apply, saved};

/// The object of a group.
pub(super) struct ObjectState {
    /// Its namespace and name.
    pub(super) object: String,
    /// Ascending, each once.
    pub(super) members: Vec<IpPrefix>,
    pub(super) in_force: InForce,
    /// How many pods will be members.
    pub(super) pending: usize,
    /// When the API has said so last.
    pub(super) known: Option<SystemTime>,
    /// Whether it would tell of a change now.
    pub(super) watched: bool,
    pub(super) error: Option<String>,
}

impl ObjectState {
    /// The same object goes on; another begins with the members there are, until it is known.
    pub(super) fn follow(before: Option<Self>, object: &str, saved: impl FnOnce() -> Saved) -> Self {
        match before {
            Some(before) if before.object == object => before,
            Some(before) => Self {
                object: object.to_owned(),
                watched: false,
                error: None,
                ..before
            },
            None => {
                let saved = saved();
                Self {
                    object: object.to_owned(),
                    members: saved.members.all(),
                    in_force: InForce::default(),
                    pending: 0,
                    known: saved.fetched,
                    watched: false,
                    error: None,
                }
            }
        }
    }

    /// Where the members come from, for people.
    pub(super) fn location(&self) -> String {
        match self.pending {
            0 => self.object.clone(),
            pending => format!("{} ({pending} pending)", self.object),
        }
    }
}

impl Groups {
    /// Takes over what an object comes to, for every group that refers to it.
    ///
    /// # Errors
    /// If that is not in force.
    pub fn set_address_group(
        &self,
        object: &str,
        found: &ObjectMembers,
        tables: &dyn Tables,
    ) -> Result<(), String> {
        let mut state = self.lock();
        let (mut files, mut errors) = (Vec::new(), Vec::new());
        for (group, of_object) in state.objects.iter_mut().filter(|(_, of)| of.object == object) {
            let members = &found.prefixes;
            let step = Step::between(of_object.members.clone(), members.clone());
            let hidden = Source::AddressGroup.hidden(group);
            let applied = apply(&step, &hidden, &of_object.in_force, || members.clone(), tables);
            of_object.members.clone_from(members);
            of_object.pending = found.pending;
            (of_object.known, of_object.watched) = (Some(SystemTime::now()), true);
            if of_object.error.take().is_some() {
                tracing::info!(
                    group,
                    address_group = object,
                    "the object of the group is known again"
                );
            }
            match applied {
                Ok(change) if change == Change::default() => continue,
                Ok(change) => tracing::info!(
                    group,
                    address_group = object,
                    added = change.added,
                    removed = change.removed,
                    "address group in force"
                ),
                Err(error) => {
                    tracing::error!(group, address_group = object, error, "members are not in force");
                    errors.push(format!("group {group}: {error}"));
                }
            }
            let saved = Saved {
                fetched: of_object.known,
                ..saved(Members::new(members.clone(), Vec::new()))
            };
            files.push((group.clone(), saved));
        }
        let files: Vec<_> = files.into_iter().map(|file| (self.turn(), file)).collect();
        drop(state);
        for (turn, (group, saved)) in files {
            // In force first, on the disk second; a failure is in the log.
            let _ = self.save(turn, &group, Source::AddressGroup, &saved);
        }
        match errors.is_empty() {
            true => Ok(()),
            false => Err(errors.join("; ")),
        }
    }

    /// Nobody says what an object comes to; the last members stay.
    pub fn address_group_unknown(&self, object: &str, error: &str) {
        let mut state = self.lock();
        for (group, of_object) in state.objects.iter_mut().filter(|(_, of)| of.object == object) {
            if of_object.error.as_deref() != Some(error) {
                let members = of_object.members.len();
                tracing::warn!(
                    group,
                    address_group = object,
                    error,
                    members,
                    "the object of the group is not known, the last members stay"
                );
            }
            // As old as the moment in which it was lost.
            if std::mem::take(&mut of_object.watched) {
                of_object.known = Some(SystemTime::now());
            }
            of_object.error = Some(error.to_owned());
        }
    }

    /// The objects that groups refer to, each once.
    pub fn address_groups(&self) -> Vec<String> {
        let state = self.lock();
        let mut objects: Vec<String> = state.objects.values().map(|of| of.object.clone()).collect();
        objects.sort_unstable();
        objects.dedup();
        objects
    }
}
