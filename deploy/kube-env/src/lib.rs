//! A real Kubernetes API server for tests: kube-apiserver and etcd on loopback, and helm and kubectl to go with them.
//!
//! Owns which parts there are and where they are kept ([`Parts`]; `cargo xtask kube-env` builds them), what is rendered from the
//! chart ([`chart`]), and, with the feature `server`, starting and ending an environment ([`KubeEnv`]). There are no nodes and no controllers: nothing schedules a pod, counts
//! replicas or finishes deleting a namespace; what a test needs of that it writes itself, as those would. Refuses to run without
//! the parts: a missing one is an error that names the command which builds them, never a skipped test.
#![forbid(unsafe_code)]

pub mod chart;
mod parts;
#[cfg(feature = "server")]
mod server;

pub use parts::{GO_VERSION, KUBERNETES_VERSION, Parts, REQUIREMENTS, cache_directory};
#[cfg(feature = "server")]
pub use server::{Answer, Asked, Client, KubeEnv, Options, User, Watch, definition, multi_network_policies};
