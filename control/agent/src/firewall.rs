//! What the socket serves: the running firewall as its command line sees it.
//!
//! A seam, so that protocol, server and rendering are tested without a kernel. [`crate::live`] implements it over the
//! engine.

use std::time::Duration;

use crossbeam::channel::RecvTimeoutError;

use crate::filter::SessionFilter;
use crate::protocol::Failure;
use crate::report::{
    Cleared, Committed, Confirmed, Counters, Explanation, Flow, GroupChanged, Groups, History, Interfaces,
    Memory, Nat, Policies, Question, Screens, Sessions, ShownConfig, Zones,
};

/// What an answer comes to.
pub type Answered<T> = Result<T, Failure>;

/// Flows to come: waits for the next one, at most so long.
pub type Flows = Box<dyn Fn(Duration) -> Result<Flow, RecvTimeoutError> + Send>;

/// Who asks for a commit, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Who the kernel says they are.
    pub user: String,
    /// Who they say they are.
    pub author: Option<String>,
    /// Why.
    pub comment: String,
    /// The revision it was made against.
    pub onto: Option<u64>,
    /// How long it is in force unless confirmed.
    pub confirm_seconds: Option<u64>,
}

/// A running firewall.
pub trait Firewall: Send + Sync {
    /// The data interfaces.
    fn interfaces(&self) -> Answered<Interfaces>;
    /// The zones.
    fn zones(&self) -> Answered<Zones>;
    /// The policies and how often each decided.
    fn policies(&self) -> Answered<Policies>;
    /// The translation rules.
    fn nat(&self) -> Answered<Nat>;
    /// The zones' screens and what they stopped.
    fn screens(&self) -> Answered<Screens>;
    /// The address groups, or one of them; with all members of their sources or the first few.
    fn groups(&self, group: Option<&str>, members: bool) -> Answered<Groups>;
    /// Adds members by hand, for so long or for good.
    fn add_to_group(
        &self,
        group: &str,
        addresses: &[String],
        lasting: Option<Duration>,
    ) -> Answered<GroupChanged>;
    /// Removes members that were added by hand.
    fn remove_from_group(&self, group: &str, addresses: &[String]) -> Answered<GroupChanged>;
    /// The counters, zeros included if `all`.
    fn counters(&self, all: bool) -> Answered<Counters>;
    /// What the tables take.
    fn memory(&self) -> Answered<Memory>;
    /// Sessions that match, at most `limit`.
    fn sessions(&self, filter: &SessionFilter, limit: usize) -> Answered<Sessions>;
    /// Ends the sessions that match.
    fn clear_sessions(&self, filter: &SessionFilter) -> Answered<Cleared>;
    /// What would happen to a conversation.
    fn explain(&self, question: &Question) -> Answered<Explanation>;
    /// Puts a document in force.
    fn commit(&self, document: Vec<u8>, file: String, asked: Asked) -> Answered<Committed>;
    /// Makes the revision in force one that stays.
    fn confirm(&self, asked: &Asked) -> Answered<Confirmed>;
    /// Puts an earlier document in force again; the one before for `None`.
    fn roll_back(&self, revision: Option<u64>, asked: Asked) -> Answered<Committed>;
    /// The revisions that are kept.
    fn history(&self) -> Answered<History>;
    /// A document as it was written; that in force for `None`.
    fn shown_config(&self, revision: Option<u64>) -> Answered<ShownConfig>;
    /// Past flows, oldest first.
    fn recent_flows(&self) -> Vec<Flow>;
    /// Flows to come, from now on.
    fn subscribe(&self) -> Flows;
}
