//! The user space of one node's data plane: loads and attaches the BPF programs, compiles a [`ruleset::Ruleset`] into
//! tables, mirrors routes and neighbours, ages sessions, answers for rejected packets, tells what happened.
//!
//! Receives plain values, never YAML; talks to the kernel through `bpf(2)`, rtnetlink and packet sockets.

pub mod bpf;
pub mod netlink;
pub mod table;
