//! MultiNetworkPolicy (`k8s.cni.cncf.io/v1beta1`): NetworkPolicy for the networks that an annotation names, as groups and policies
//! of a firewall.
//!
//! Owns the pure half: what an object says ([`Policy::read`]), and what all of them come to with the pods and
//! namespaces there are ([`World::isolate`]). Watches nothing and enforces nothing. It is called by the task of this crate's thread
//! that follows these objects, which hands the [`Isolation`] to the daemon; the daemon puts it around the
//! document's policies, in the order of `deploy/docs/decisions/0013-multi-network-policy.md`:
//!
//! ```text
//! denials of the isolation        a pod that is isolated, and nobody permits it
//! policies of the document        as they are written
//! permits of the isolation        at least one end is isolated, and every end that is permits it
//! default deny
//! ```
//!
//! The semantics are NetworkPolicy's. A pod on a network is isolated in a direction when some policy for that network and direction
//! selects it, and then takes in that direction what any of these policies permits and nothing else. Both ends must
//! permit. Peers are seen with their addresses on the same network. An address that two pods or two networks
//! share is isolated for each of them, and each must permit.
//!
//! Fails closed: what is not understood permits nothing, and isolates whatever it may have meant ([`Fault`]).

mod atoms;
mod compile;
mod groups;
mod isolation;
mod part;
mod policy;
mod ports;
mod rule;
mod selector;
mod snapshot;

#[cfg(test)]
mod tests;

pub use compile::World;
pub use isolation::{Isolation, Match, Service};
pub use part::Fault;
pub use policy::{POLICY_FOR, Policy, resource};
pub use selector::Labels;
pub use snapshot::Snapshot;
