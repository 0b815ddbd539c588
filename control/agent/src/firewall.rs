//! What the socket serves: the running firewall as its command line sees it.
//!
//! A seam, so that protocol, server and rendering are tested without a kernel. [`crate::live`] implements it over the
//! engine.

use std::time::Duration;

use crossbeam::channel::RecvTimeoutError;

use crate::filter::SessionFilter;
use crate::protocol::Failure;
use crate::report::{
    Cleared, Counters, Explanation, Flow, Groups, Interfaces, Nat, Policies, Question, Screens, Sessions,
    Zones,
};

/// What an answer comes to.
pub type Answered<T> = Result<T, Failure>;

/// Flows to come: waits for the next one, at most so long.
pub type Flows = Box<dyn Fn(Duration) -> Result<Flow, RecvTimeoutError> + Send>;

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
    /// The address groups.
    fn groups(&self) -> Answered<Groups>;
    /// The counters, zeros included if `all`.
    fn counters(&self, all: bool) -> Answered<Counters>;
    /// Sessions that match, at most `limit`.
    fn sessions(&self, filter: &SessionFilter, limit: usize) -> Answered<Sessions>;
    /// Ends the sessions that match.
    fn clear_sessions(&self, filter: &SessionFilter) -> Answered<Cleared>;
    /// What would happen to a conversation.
    fn explain(&self, question: &Question) -> Answered<Explanation>;
    /// Past flows, oldest first.
    fn recent_flows(&self) -> Vec<Flow>;
    /// Flows to come, from now on.
    fn subscribe(&self) -> Flows;
}
