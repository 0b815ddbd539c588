//! The user space of one node's data plane: loads and attaches the BPF programs, compiles a [`ruleset::Ruleset`] into
//! tables, mirrors routes and neighbours, ages sessions, answers for rejected packets, tells what happened.
//!
//! Receives plain values, never YAML; talks to the kernel through `bpf(2)`, rtnetlink and packet sockets.

pub mod address;
pub mod bpf;
pub mod compile;
pub mod engine;
#[cfg(test)]
mod faults;
pub mod fib;
pub mod fragment;
pub mod gateway;
pub mod heap;
pub mod inject;
pub mod link;
pub mod membership;
pub mod memory;
pub mod netlink;
pub mod pins;
pub mod preflight;
pub mod pulse;
pub mod reference;
pub mod ruleset;
pub mod slow_path;
pub mod stage;
pub mod steering;
pub mod table;
