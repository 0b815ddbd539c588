//! Screen profiles, resolved: every default filled in, `None` and `false` for what is off.

use std::time::Duration;

use crate::document::IpScreens;

/// Index into [`Config::screens`](super::Config::screens).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ScreenId(pub u32);

/// One screen profile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Screen {
    /// Its name.
    pub name: String,
    /// Whether it is the builtin one.
    pub builtin: bool,
    /// Whether what it finds is only counted and reported.
    pub alarm_without_drop: bool,
    /// ICMP and ICMPv6.
    pub icmp: IcmpScreen,
    /// IPv4 and IPv6 themselves.
    pub ip: IpScreens,
    /// TCP.
    pub tcp: TcpScreen,
    /// UDP.
    pub udp: UdpScreen,
    /// Sessions of one address.
    pub session_limit: SessionLimit,
    /// Line of the name; 0 for the builtin one.
    pub line: u32,
}

/// What is suspicious in ICMP and ICMPv6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IcmpScreen {
    /// Most packets a second to one destination.
    pub flood: Option<u32>,
    /// Echo requests of one source to many addresses.
    pub sweep: Option<Scan>,
    /// Fragments.
    pub fragment: bool,
    /// Messages of more than 1024 bytes.
    pub large: bool,
    /// Fragments that together would be longer than a packet can be.
    pub ping_of_death: bool,
}

/// What is suspicious in TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpScreen {
    /// The same address at both ends.
    pub land: bool,
    /// Segments without any flag.
    pub no_flags: bool,
    /// SYN and FIN together.
    pub syn_fin: bool,
    /// FIN without ACK.
    pub fin_no_ack: bool,
    /// Urgent data to port 139.
    pub winnuke: bool,
    /// SYN segments in fragments.
    pub syn_fragment: bool,
    /// One source that tries many ports of one destination.
    pub port_scan: Option<Scan>,
    /// One source that tries many addresses.
    pub sweep: Option<Scan>,
    /// Floods of SYN segments.
    pub syn_flood: Option<SynFlood>,
    /// Most TCP connections that one source has open at once.
    pub syn_ack_ack: Option<u32>,
}

/// What is suspicious in UDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpScreen {
    /// Most packets a second to one destination.
    pub flood: Option<u32>,
    /// One source that tries many ports of one destination.
    pub port_scan: Option<Scan>,
    /// One source that tries many addresses.
    pub sweep: Option<Scan>,
}

/// How many, how quickly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scan {
    /// So many different ones: 2 to 128.
    pub count: u32,
    /// Within this time: whole milliseconds, 1 ms to 1 s.
    pub interval: Duration,
}

impl Default for Scan {
    fn default() -> Self {
        Self {
            count: 10,
            interval: Duration::from_millis(5),
        }
    }
}

/// From how many SYN segments a second on it is a flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SynFlood {
    /// To one destination: new connections are answered with SYN cookies.
    pub attack: u32,
    /// To one destination: it is reported.
    pub alarm: u32,
    /// From one source: what is more is dropped.
    pub source: u32,
    /// To one destination, all ports together: what is more is dropped.
    pub destination: u32,
}

impl Default for SynFlood {
    fn default() -> Self {
        Self {
            attack: 200,
            alarm: 512,
            source: 4_000,
            destination: 2_048,
        }
    }
}

/// How many sessions one address may have at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionLimit {
    /// Most sessions that one source has opened.
    pub source: Option<u32>,
    /// Most sessions to one destination.
    pub destination: Option<u32>,
}

impl Screen {
    /// The name of the builtin profile.
    pub const BUILTIN: &str = "default";
    /// ICMP or UDP packets a second, where a flood screen says `true`.
    pub const DEFAULT_FLOOD: u32 = 1_000;
    /// Connections, where `synAckAck` says `true`.
    pub const DEFAULT_SYN_ACK_ACK: u32 = 512;
    /// Sessions, where a session limit says `true`.
    pub const DEFAULT_SESSION_LIMIT: u32 = 128;

    /// The profile `default`: packets that no honest sender sends, and protection against floods of SYN segments. What
    /// honest senders do too, such as fragments or many connections, it leaves alone.
    pub fn builtin() -> Self {
        Self {
            name: Self::BUILTIN.to_owned(),
            builtin: true,
            icmp: IcmpScreen {
                ping_of_death: true,
                ..IcmpScreen::default()
            },
            ip: IpScreens {
                bad_option: true,
                source_route: true,
                teardrop: true,
                ..IpScreens::default()
            },
            tcp: TcpScreen {
                land: true,
                no_flags: true,
                syn_fin: true,
                fin_no_ack: true,
                winnuke: true,
                syn_fragment: true,
                syn_flood: Some(SynFlood::default()),
                ..TcpScreen::default()
            },
            ..Self::default()
        }
    }
}
