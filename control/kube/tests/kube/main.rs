//! Against a real API server, with the permissions that this crate says it needs and no other.

mod common;
mod follow;
mod network_policies;
mod pods;
