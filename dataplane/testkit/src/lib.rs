//! Real networks in miniature: namespaces, topologies, conversations between real sockets, packets to
//! inject, counters to compare.
//!
//! Used by the privileged tests and by `bulkhead demo`. Owns what it makes: every namespace, server and
//! socket goes away with the value that stands for it, also when a test panics. Assumes root. Touches
//! nothing outside its own namespaces.
//!
//! Set-up errors are `anyhow::Error`s, reported and never matched on. What a *conversation* came to is not
//! an error but an [`Outcome`], because a test asks for denials as often as for answers.

#![deny(unsafe_code)]

pub mod bpffs;
pub mod counters;
pub mod counting;
pub mod delta;
pub mod dns;
pub mod effort;
pub mod frame;
pub mod http;
pub mod ledger;
pub mod memory;
pub mod namespace;
pub mod outcome;
pub mod ping;
pub mod privilege;
pub mod raw_port;
pub mod stream;
pub mod tap;
pub mod tcp;
pub mod tool;
pub mod topology;
pub mod udp;
pub mod verify;

mod digest;
mod endpoint;
mod server;

pub use self::bpffs::Bpffs;
pub use self::counters::KernelCounters;
pub use self::counting::{Count, CountingStream};
pub use self::delta::{CounterDelta, Counters, Script};
pub use self::effort::{deadline, effort, patience, slowness};
pub use self::endpoint::Client;
pub use self::frame::{Checksum, Frame};
pub use self::http::HttpServer;
pub use self::ledger::{Account, Balance, Ledger};
pub use self::namespace::Namespace;
pub use self::outcome::{IcmpError, Outcome};
pub use self::privilege::privileged;
pub use self::raw_port::RawPort;
pub use self::stream::{Stream, StreamReport};
pub use self::tap::Tap;
pub use self::tcp::{TcpConversation, TcpServer};
pub use self::tool::{Tool, ToolOutput};
pub use self::topology::{Attachment, Host, HostSpec, Offloads, Topology, xdp_reaches_hosts};
pub use self::udp::{UdpConversation, UdpServer};
pub use self::verify::verify_checksums;
