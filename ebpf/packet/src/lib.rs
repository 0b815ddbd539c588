//! Header views and the parser: from the first bytes of a frame to the facts the pipeline judges.
//!
//! Owns the reading of Ethernet, IPv4 with options, IPv6 with its extension chain, TCP, UDP, ICMP and ICMPv6,
//! and of the ports of SCTP, DCCP and UDP-Lite.
//! Assumes nothing about the bytes; refuses, with one named [`Reason`], whatever the next stage could not trust.
//! The headers are a copy of the frame's first bytes in a buffer of constant size, so one bounds check per
//! field satisfies both the Rust compiler and the kernel's verifier, and the same code runs in host tests.
#![no_std]
#![forbid(unsafe_code)]

mod buffer;
pub mod checksum;
mod embedded;
mod options;
mod parse;
mod repeat;

pub use buffer::{HEADER_BYTES, HeaderBuffer, LEAD_BYTES};
pub use bulkhead_abi::Reason;
pub use embedded::{Embedded, parse_embedded};
pub use options::{SynOptions, syn_options};
pub use parse::{IcmpKind, Kind, Packet, fragment_flags, icmp_kind, parse, tcp_flags};
pub use repeat::{PlainLoop, Repeat};

/// Length of an Ethernet header without tags, bytes.
pub const ETHERNET_BYTES: usize = 14;
