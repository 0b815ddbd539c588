//! The firewall's side of this crate: what is asked of it, and what it is told.
//!
//! Owns the words that the two sides share. Knows neither the data plane nor the socket: the daemon implements [`Agent`]
//! with its commits and its groups, tests implement it with a list.

use bulkhead_config::PodSelection;

use crate::address_group::ObjectMembers;
use crate::group::FoundPods;
use crate::mnp::Isolation;

/// Where a document comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A key of a ConfigMap.
    ConfigMap,
    /// A custom resource `Firewall`.
    Firewall,
}

/// A document that is to be in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// As it is written.
    pub text: Vec<u8>,
    /// From where.
    pub origin: Origin,
    /// What to call it in diagnostics and in the history: `configmap default/edge/firewall.yaml`.
    pub name: String,
    /// SHA-256 of the text, in hexadecimal digits.
    pub hash: String,
}

/// Why a document is not in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is wrong: the same document will be wrong the next time.
    Invalid,
    /// Another revision waits to be confirmed.
    AwaitingConfirmation,
    /// It was in force, and somebody has committed another one since.
    Superseded,
    /// The data plane or the disk could not.
    Failed,
    /// A mounted file does not say yet what its object says, or it was not read yet.
    Pending,
    /// The firewall is not up yet. It says when it is ([`Kubernetes::changed`](crate::Kubernetes::changed)); nothing was judged
    /// until then but whether it could begin with this.
    Starting,
}

impl Reason {
    /// As conditions and events have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid",
            Self::AwaitingConfirmation => "AwaitingConfirmation",
            Self::Superseded => "Superseded",
            Self::Failed => "Failed",
            Self::Pending => "Pending",
            Self::Starting => "Starting",
        }
    }

    /// The reason of that name; [`Self::Failed`] where there is none.
    pub fn named(name: &str) -> Self {
        let known = [
            Self::Invalid,
            Self::AwaitingConfirmation,
            Self::Superseded,
            Self::Pending,
            Self::Starting,
        ];
        let found = known.into_iter().find(|reason| reason.name() == name);
        found.unwrap_or(Self::Failed)
    }

    /// Whether the same document may be accepted later.
    pub const fn may_pass(self) -> bool {
        matches!(self, Self::AwaitingConfirmation | Self::Failed)
    }
}

/// A document that was not put in force; what was in force still is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people: with line and column where a line is wrong.
    pub message: String,
}

/// The daemon's own configuration file: as it is now, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnFile {
    /// SHA-256 of what it says; `None`: it cannot be read.
    pub hash: Option<String>,
    /// Whether just that was in force already.
    pub taken: bool,
    /// Why it is not, if it was refused.
    pub refusal: Option<Refusal>,
}

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    /// The revision.
    pub revision: u64,
    /// The generation of the data plane.
    pub generation: u32,
    /// SHA-256 of the document.
    pub hash: String,
    /// Who committed it, and from where: `edge-7c9 (config-map)`.
    pub by: String,
    /// What is wrong with the running firewall, a sentence each: interfaces without a program, groups without an answer.
    pub problems: Vec<String>,
}

/// Why an isolation is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotIsolated {
    /// The firewall is not up yet; it says so when it is ([`Kubernetes::changed`](crate::Kubernetes::changed)).
    NotYet,
    /// It cannot: what was in force still is. It may pass later.
    Failed(String),
}

/// The running firewall. Called from the one thread of this crate; a call may take as long as a commit.
pub trait Agent: Send + Sync + 'static {
    /// The thread makes progress: called every few seconds, unless a call takes longer.
    fn beat(&self) {}

    /// Puts a document in force and keeps it as a revision, or changes nothing. One that is in force already is accepted.
    ///
    /// # Errors
    /// Why not.
    fn commit(&self, document: &Document) -> Result<(), Refusal>;

    /// What is in force; `None`: the firewall is not up yet.
    fn in_force(&self) -> Option<InForce>;

    /// The daemon's own file; `None`: it has none, or the firewall is not up yet.
    fn own_file(&self) -> Option<OwnFile> {
        None
    }

    /// The address groups that follow pods, by name.
    fn pod_groups(&self) -> Vec<(String, PodSelection)>;

    /// The pods of a group, as far as they are known ([`FoundPods::unknown`]). Whether their addresses are in force; if not, it is
    /// told again after a while.
    #[must_use]
    fn set_pods(&self, group: &str, selection: &PodSelection, found: &FoundPods) -> bool;

    /// Nobody can say which pods there are; those that were set last are the best that is known.
    fn pods_unknown(&self, group: &str, selection: &PodSelection, error: &str);

    /// Puts what the MultiNetworkPolicies come to in force, around the document's policies. What is in force already costs
    /// nothing.
    ///
    /// # Errors
    /// Why not.
    fn isolate(&self, isolation: &Isolation) -> Result<(), NotIsolated>;

    /// What the API asks for is not in force, and why; what was accepted last is, with the pods there are. `None`: it is.
    fn policies_refused(&self, error: Option<&str>);

    /// Keeps what the isolation in force was compiled from, for a start without the API ([`Snapshot`](crate::mnp::Snapshot)).
    ///
    /// # Errors
    /// If a start would not find it. It is tried again.
    fn keep_snapshot(&self, snapshot: &[u8]) -> Result<(), String>;

    /// What was kept last, if that was put in force at the start.
    fn snapshot(&self) -> Option<Vec<u8>>;

    /// Nobody can say which policies, pods or namespaces there are; what was in force last still is. `None`: it is known
    /// again.
    fn policies_unknown(&self, error: Option<&str>);

    /// The objects `AddressGroup` that address groups refer to, as namespace/name.
    fn address_groups(&self) -> Vec<String>;

    /// What an object comes to, for every group that refers to it.
    ///
    /// # Errors
    /// If that is not in force.
    fn set_address_group(&self, object: &str, members: &ObjectMembers) -> Result<(), String>;

    /// Nobody can say what an object comes to, and why; what was said last is the best that is known.
    fn address_group_unknown(&self, object: &str, error: &str);
}
