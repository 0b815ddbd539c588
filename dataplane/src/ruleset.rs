//! What a data plane is told to enforce: plain values, indices instead of names, everything resolved.
//!
//! Assumes that its author checked it (indices in range, at most fifteen interfaces); [`crate::compile`] refuses what
//! would not fit into the tables.

use std::{net::IpAddr, time::Duration};

/// A complete configuration of the data plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// Zones; zone number `i + 1` in the tables is entry `i` (0 is the firewall itself).
    pub zones: Vec<Zone>,
    /// Data interfaces.
    pub interfaces: Vec<InterfaceRule>,
    /// Address groups.
    pub groups: Vec<Group>,
    /// Services.
    pub services: Vec<Service>,
    /// Policies; the first match wins, what nothing matches is denied.
    pub policies: Vec<Policy>,
    /// Source NAT; the first match wins, what nothing matches is left alone.
    pub source_nat: Vec<NatRule>,
    /// Idle timeouts.
    pub timeouts: Timeouts,
    /// Most answers (TCP resets, ICMP errors) per second and CPU.
    pub answers_per_second: u32,
    /// Most denial events per second and CPU.
    pub deny_events_per_second: u32,
}

/// A zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    /// Name, for people.
    pub name: String,
    /// Indices of services that hosts of this zone may use on the firewall itself.
    pub host_inbound: Vec<usize>,
}

/// How an interface is hooked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HookMode {
    /// The preflight chooses.
    #[default]
    Auto,
    /// TCX alone.
    Tcx,
    /// XDP and TCX; it is an error if XDP cannot be attached.
    Xdp,
}

/// A data interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceRule {
    /// Kernel name.
    pub name: String,
    /// Index of its zone.
    pub zone: usize,
    /// Addresses to add; those it has stay.
    pub addresses: Vec<(IpAddr, u8)>,
    /// How it is hooked.
    pub hook: HookMode,
}

/// An address group, as prefixes (a host is a prefix of full length).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Name, for people.
    pub name: String,
    /// Members.
    pub members: Vec<Prefix>,
}

/// An address prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// Address; bits beyond `length` are ignored.
    pub address: IpAddr,
    /// Prefix length, bits.
    pub length: u8,
}

/// A service: any of its matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Name, for people.
    pub name: String,
    /// Matches.
    pub matches: Vec<ServiceMatch>,
}

/// What a service matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceMatch {
    /// Everything.
    Any,
    /// A protocol and an inclusive range of destination ports (TCP, UDP).
    Ports {
        /// IP protocol.
        protocol: u8,
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
    /// An ICMP type, perhaps with a code.
    Icmp {
        /// 1 or 58.
        protocol: u8,
        /// Type.
        kind: u8,
        /// Code; `None`: every code.
        code: Option<u8>,
    },
    /// A whole protocol.
    Protocol(u8),
}

/// What a policy does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Forward.
    Permit,
    /// Drop in silence.
    #[default]
    Deny,
    /// Drop and tell the sender.
    Reject,
}

/// A policy. An empty list of zones, groups or services means "any".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Name, for people.
    pub name: String,
    /// Indices of source zones.
    pub from: Vec<usize>,
    /// Indices of destination zones; "any" does not include the firewall itself.
    pub to: Vec<usize>,
    /// Indices of source groups.
    pub source: Vec<usize>,
    /// Indices of destination groups.
    pub destination: Vec<usize>,
    /// Indices of services.
    pub service: Vec<usize>,
    /// What it does.
    pub action: Action,
    /// Event when a session is created.
    pub log_create: bool,
    /// Event when a session closes.
    pub log_close: bool,
    /// Event when a packet is denied.
    pub log_deny: bool,
}

/// A source NAT rule. An empty list of zones means "any".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatRule {
    /// Name, for people.
    pub name: String,
    /// Indices of source zones.
    pub from: Vec<usize>,
    /// Indices of destination zones.
    pub to: Vec<usize>,
    /// Translate to the egress interface's address (true), or explicitly not at all.
    pub translate: bool,
}

/// Idle timeouts by state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP before the handshake is complete.
    pub tcp_opening: Duration,
    /// TCP in full flow (RFC 5382 REQ-5: at least 2 h 4 min).
    pub tcp_established: Duration,
    /// TCP after a FIN.
    pub tcp_closing: Duration,
    /// TCP after a reset.
    pub tcp_closed: Duration,
    /// UDP, one side has spoken.
    pub udp_one_way: Duration,
    /// UDP, both have (RFC 4787 REQ-5: at least 2 min).
    pub udp_two_way: Duration,
    /// ICMP queries (RFC 5508 REQ-2: at least 60 s).
    pub icmp: Duration,
    /// Other protocols.
    pub other: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            tcp_opening: Duration::from_secs(240),
            tcp_established: Duration::from_secs(7_440),
            tcp_closing: Duration::from_secs(240),
            tcp_closed: Duration::from_secs(10),
            udp_one_way: Duration::from_secs(30),
            udp_two_way: Duration::from_secs(300),
            icmp: Duration::from_secs(60),
            other: Duration::from_secs(600),
        }
    }
}
