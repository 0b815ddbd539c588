//! Fragments in user space: those that wait for the first of their datagram, and those that are made here.
//!
//! Plain values and time as a parameter; the engine's thread `bulkhead-frames` moves frames in and out.

pub mod cut;
pub mod hold;
