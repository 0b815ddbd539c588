//! Against a real API server, with the permissions that this crate says it needs and no other.

mod address_groups;
mod common;
mod expiry;
mod follow;
mod network_policies;
mod notices;
mod pods;
mod reconnect;
mod relay;
