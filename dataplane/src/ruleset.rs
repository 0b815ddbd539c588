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
    /// Address pools that the NAT rules name.
    pub pools: Vec<Pool>,
    /// Source NAT; the first match wins, what nothing matches is left alone.
    pub source_nat: Vec<SourceNat>,
    /// Destination NAT; the first match wins, what nothing matches is left alone.
    pub destination_nat: Vec<DestinationNat>,
    /// Static NAT, both ways; before the two lists above.
    pub static_nat: Vec<StaticNat>,
    /// Neighbours that ask for addresses of translation's on their link get no answer: others do that, or routes lead here.
    pub silent_nat: bool,
    /// Screen profiles that zones name.
    pub screens: Vec<Screen>,
    /// Pairs of interfaces spliced at layer 2; empty: the interfaces route.
    pub wires: Vec<Wire>,
    /// How TCP is watched.
    pub tcp: Tcp,
    /// Application level gateways in use.
    pub gateways: Gateways,
    /// When and how sessions are aged early; `None`: never.
    pub early_ageing: Option<EarlyAgeing>,
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
    /// Index of its screen profile.
    pub screen: Option<usize>,
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
    /// Static routes out of it; nobody else's are touched.
    pub routes: Vec<StaticRoute>,
    /// How it is hooked.
    pub hook: HookMode,
}

/// A static route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRoute {
    /// The network: an address without host bits, and its length.
    pub to: (IpAddr, u8),
    /// The router, of the same family, on the interface.
    pub via: IpAddr,
}

/// An address group, as prefixes (a host is a prefix of full length). It has the addresses of `members` and of `groups`
/// without those of `except` and of `except_groups`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Name, for people; a dynamic group is changed by it.
    pub name: String,
    /// Members of its own.
    pub members: Vec<Prefix>,
    /// Indices of groups whose addresses it has too.
    pub groups: Vec<usize>,
    /// What it has not, whatever else says so.
    pub except: Vec<Prefix>,
    /// Indices of groups whose addresses it has not.
    pub except_groups: Vec<usize>,
    /// Its members change without a commit: `members` are those it begins with if the data plane has no dynamic group of
    /// this name yet, and afterwards it keeps its own.
    pub dynamic: bool,
}

/// An address prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// Address; bits beyond `length` are ignored.
    pub address: IpAddr,
    /// Prefix length, bits.
    pub length: u8,
}

impl Prefix {
    /// The same prefix with zeros beyond its length, which is no longer than the address.
    #[must_use]
    pub fn canonical(&self) -> Self {
        let (address, length) = match self.address {
            IpAddr::V4(address) => {
                let length = self.length.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                (IpAddr::V4((u32::from(address) & mask).into()), length)
            }
            IpAddr::V6(address) => {
                let length = self.length.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                (IpAddr::V6((u128::from(address) & mask).into()), length)
            }
        };
        Self { address, length }
    }
}

/// A service: any of its matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Name, for people.
    pub name: String,
    /// Matches.
    pub matches: Vec<ServiceMatch>,
    /// Idle timeout of its sessions, whole seconds; `None`: that of their state.
    pub timeout: Option<Duration>,
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

/// Addresses to translate to. At most eight ranges per family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Name, for people.
    pub name: String,
    /// Inclusive ranges; both ends of one family.
    pub ranges: Vec<(IpAddr, IpAddr)>,
    /// Ports that a translated port may become, inclusive; `None`: ports stay as they are.
    pub ports: Option<(u16, u16)>,
    /// Destination pools: the port connections go to.
    pub port: Option<u16>,
    /// Whether all sessions of one inside address get one outside address (RFC 4787 REQ-2).
    pub paired: bool,
    /// Use in per cent at which the alarm is raised and cleared.
    pub alarm: Option<(u8, u8)>,
}

/// What becomes of a source address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SourceTranslation {
    /// It stays, and later rules are not asked.
    #[default]
    Off,
    /// The egress interface's address.
    Interface,
    /// An address of the pool with this index.
    Pool(usize),
}

/// Who may send to a persistent mapping from outside (RFC 4787, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    /// Anybody: endpoint-independent filtering.
    AnyRemoteHost,
    /// Hosts that the inside has sent to: address-dependent filtering.
    TargetHost,
    /// Hosts and ports that the inside has sent to: address- and port-dependent filtering.
    TargetHostPort,
}

/// A source NAT rule. An empty list means "any".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceNat {
    /// Name, for people.
    pub name: String,
    /// Indices of source zones.
    pub from: Vec<usize>,
    /// Indices of destination zones.
    pub to: Vec<usize>,
    /// Indices of source groups.
    pub source: Vec<usize>,
    /// Indices of destination groups.
    pub destination: Vec<usize>,
    /// Indices of services.
    pub service: Vec<usize>,
    /// What becomes of the source.
    pub translation: SourceTranslation,
    /// Endpoint-independent mapping, who may use it from outside, and how long it outlives its last session.
    pub persistent: Option<(Filtering, Duration)>,
}

/// A destination NAT rule. An empty list means "any".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DestinationNat {
    /// Name, for people.
    pub name: String,
    /// Indices of source zones.
    pub from: Vec<usize>,
    /// Indices of source groups.
    pub source: Vec<usize>,
    /// Indices of destination groups.
    pub destination: Vec<usize>,
    /// Indices of services.
    pub service: Vec<usize>,
    /// Index of the pool the destination becomes one of; `None`: it stays, and later rules are not asked.
    pub pool: Option<usize>,
}

/// A static NAT rule: two prefixes of one length, address by address, in both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticNat {
    /// Name, for people.
    pub name: String,
    /// Indices of the zones outside; empty: any.
    pub from: Vec<usize>,
    /// What the outside sees.
    pub outside: Prefix,
    /// What the inside has.
    pub inside: Prefix,
    /// Whether the host part changes so that checksums need not (NPTv6, RFC 6296).
    pub npt: bool,
}

/// A rate of scans: so many different targets within a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Targets.
    pub count: u32,
    /// Time.
    pub interval: Duration,
}

/// A screen profile. Rates are per second; `None` and `false`: not screened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Screen {
    /// Name, for people.
    pub name: String,
    /// Count and tell, but let pass.
    pub alarm_without_drop: bool,
    /// ICMP packets per destination.
    pub icmp_flood: Option<u32>,
    /// Hosts pinged by one source.
    pub icmp_sweep: Option<Scan>,
    /// Fragmented ICMP.
    pub icmp_fragment: bool,
    /// ICMP of more than 1,024 bytes.
    pub icmp_large: bool,
    /// Fragments that would reassemble to more than an IP packet can be.
    pub ping_of_death: bool,
    /// IPv4 options that are malformed or unknown.
    pub ip_bad_option: bool,
    /// Any fragment.
    pub ip_fragment: bool,
    /// Source route options, routing headers.
    pub ip_source_route: bool,
    /// Record route option.
    pub ip_record_route: bool,
    /// Timestamp option.
    pub ip_timestamp: bool,
    /// Security option.
    pub ip_security: bool,
    /// Stream option.
    pub ip_stream: bool,
    /// Sources whose way back does not lead into the zone they come from.
    pub ip_spoofing: bool,
    /// Overlapping fragments.
    pub teardrop: bool,
    /// Protocol numbers nobody has been assigned.
    pub unknown_protocol: bool,
    /// IPv6 extension headers.
    pub extension_headers: bool,
    /// TCP from an address to itself.
    pub land: bool,
    /// TCP without flags.
    pub tcp_no_flags: bool,
    /// TCP with SYN and FIN.
    pub tcp_syn_fin: bool,
    /// TCP with FIN and no ACK.
    pub tcp_fin_no_ack: bool,
    /// Urgent data to port 139.
    pub winnuke: bool,
    /// Fragmented SYN.
    pub syn_fragment: bool,
    /// TCP ports tried by one source.
    pub tcp_port_scan: Option<Scan>,
    /// Hosts tried by one source over TCP.
    pub tcp_sweep: Option<Scan>,
    /// SYNs per destination from which on the firewall answers in its place.
    pub syn_flood_attack: Option<u32>,
    /// SYNs per destination from which on an alarm is raised.
    pub syn_flood_alarm: Option<u32>,
    /// SYNs from one source.
    pub syn_flood_source: Option<u32>,
    /// SYNs to one destination in any case.
    pub syn_flood_destination: Option<u32>,
    /// TCP sessions that one source may hold open.
    pub syn_ack_ack: Option<u32>,
    /// UDP packets per destination.
    pub udp_flood: Option<u32>,
    /// UDP ports tried by one source.
    pub udp_port_scan: Option<Scan>,
    /// Hosts tried by one source over UDP.
    pub udp_sweep: Option<Scan>,
    /// Sessions of one source.
    pub session_limit_source: Option<u32>,
    /// Sessions of one destination.
    pub session_limit_destination: Option<u32>,
}

/// Two interfaces spliced at layer 2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// Name, for people.
    pub name: String,
    /// Indices of its two interfaces.
    pub interfaces: [usize; 2],
    /// Whether ARP crosses.
    pub arp: bool,
    /// Whether what is neither IP nor ARP crosses.
    pub non_ip: bool,
}

/// How TCP's maximum segment size is treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaximumSegment {
    /// As the ends agree.
    #[default]
    Keep,
    /// No larger than the MTU of both interfaces allows.
    Path,
    /// No larger than this, bytes.
    AtMost(u16),
}

/// How TCP is watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tcp {
    /// Let segments outside the window pass.
    pub liberal: bool,
    /// Let a session begin with a segment that is not a SYN.
    pub midstream: bool,
    /// Maximum segment size.
    pub maximum_segment: MaximumSegment,
}

/// Application level gateways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gateways {
    /// FTP on TCP port 21.
    pub ftp: bool,
    /// TFTP on UDP port 69.
    pub tftp: bool,
}

/// Early ageing: from a fill of `high` per cent down to `low`, sessions idle for longer than `timeout` are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EarlyAgeing {
    /// Where it begins, per cent of the table.
    pub high: u8,
    /// Where it ends.
    pub low: u8,
    /// Idle time that counts meanwhile.
    pub timeout: Duration,
}

/// Idle timeouts by state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP before the handshake is complete.
    pub tcp_opening: Duration,
    /// TCP in full flow (RFC 5382 REQ-5: at least 2 h 4 min), and DCCP that was answered (RFC 5597 REQ-5: the same).
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
    /// Other protocols, and DCCP before it is answered (RFC 5597 REQ-5: at least 4 min).
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
