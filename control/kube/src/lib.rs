//! Bulkhead's Kubernetes side: configuration from objects of the API, what became of it written back, and the addresses of
//! pods.
//!
//! Owns everything that knows Kubernetes. Knows the configuration ([`bulkhead_config`]) and not the data plane: the running firewall
//! is an [`Agent`]. Async stays in here, in one thread ([`Kubernetes`]). Nothing that the API does or does not do
//! takes a configuration out of force: while it is away, the last one stays.
#![forbid(unsafe_code)]

mod address_group;
mod agent;
mod condition;
pub mod crd;
mod document;
mod follow;
mod group;
pub mod mnp;
pub mod mounted;
mod mounted_status;
mod network_policies;
mod notice;
mod patience;
mod place;
mod pod;
pub mod rbac;
mod report;
mod reporter;
mod status;
mod supervise;
mod thread;
mod watch;

pub use address_group::ObjectMembers;
pub use agent::{Agent, Document, InForce, NotIsolated, Origin, OwnFile, Reason, Refusal};
pub use condition::Condition;
pub use group::FoundPods;
pub use notice::{Notice, OwnPod};
pub use place::{DEFAULT_KEY, Network, Place};
pub use pod::{MOST_ADDRESSES, NETWORK_STATUS};
pub use report::ANNOTATION;
pub use status::{Instance, Summary};
pub use thread::{Kubernetes, Settings};
