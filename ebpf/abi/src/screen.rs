//! Screens: what a zone refuses, or raises the alarm about, whatever policy says.
//!
//! Owns the screens' numbers, a zone's profile as the programs read it, and the state behind rates and scans. A screen's
//! number is its bit in [`ScreenProfile::enabled`] and its place among a zone's counters. Numbers are never reused. Limits of
//! sessions are screens to those who configure and count them; what they count is in [`crate::LimitRule`]'s tables.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::Reason;

macro_rules! screens {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $reason:ident;)*) => {
        /// A screen.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Screen {
            $($(#[$doc])* $variant = $number,)*
        }

        impl Screen {
            /// Every screen, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The reason of a packet that it drops.
            #[must_use]
            #[inline(always)]
            pub const fn reason(self) -> Reason {
                match self { $(Self::$variant => Reason::$reason,)* }
            }

            /// The reason of the screen with this number.
            #[must_use]
            #[inline(always)]
            pub const fn reason_of(number: u32) -> Option<Reason> {
                match number { $($number => Some(Reason::$reason),)* _ => None }
            }
        }

        $(const _: () = assert!($number < Screen::SLOTS);)*
    };
}

screens! {
    /// ICMP packets to one destination, per second.
    IcmpFlood = 0, ScreenIcmpFlood;
    /// Hosts pinged by one source within an interval.
    IcmpSweep = 1, ScreenIcmpSweep;
    /// Fragmented ICMP.
    IcmpFragment = 2, ScreenIcmpFragment;
    /// ICMP messages of more than 1,024 bytes.
    IcmpLarge = 3, ScreenIcmpLarge;
    /// Fragments that would reassemble to more than an IP packet can be.
    PingOfDeath = 4, ScreenPingOfDeath;
    /// IPv4 options that are malformed or unknown.
    IpBadOption = 5, ScreenIpBadOption;
    /// Any fragment.
    IpFragment = 6, ScreenIpFragment;
    /// Source route options, routing headers.
    IpSourceRoute = 7, ScreenIpSourceRoute;
    /// Record route option.
    IpRecordRoute = 8, ScreenIpRecordRoute;
    /// Timestamp option.
    IpTimestamp = 9, ScreenIpTimestamp;
    /// Security options (RFC 1108, and CIPSO).
    IpSecurity = 10, ScreenIpSecurity;
    /// Stream identifier option.
    IpStream = 11, ScreenIpStream;
    /// Sources whose way back does not lead into the zone they come from.
    IpSpoofing = 12, ScreenIpSpoofing;
    /// Overlapping fragments.
    Teardrop = 13, ScreenTeardrop;
    /// Protocol numbers from 143 on.
    UnknownProtocol = 14, ScreenUnknownProtocol;
    /// IPv6 extension headers other than AH, ESP and fragments.
    ExtensionHeaders = 15, ScreenExtensionHeaders;
    /// TCP from an address to itself.
    Land = 16, ScreenLand;
    /// TCP without flags.
    TcpNoFlags = 17, ScreenTcpNoFlags;
    /// TCP with SYN and FIN.
    TcpSynFin = 18, ScreenTcpSynFin;
    /// TCP with FIN and no ACK.
    TcpFinNoAck = 19, ScreenTcpFinNoAck;
    /// Urgent data to TCP port 139.
    Winnuke = 20, ScreenWinnuke;
    /// A SYN in a fragment.
    SynFragment = 21, ScreenSynFragment;
    /// TCP ports tried by one source within an interval.
    TcpPortScan = 22, ScreenTcpPortScan;
    /// Hosts tried by one source over TCP within an interval.
    TcpSweep = 23, ScreenTcpSweep;
    /// SYNs to one destination, per second, above which the firewall answers in its place.
    SynFlood = 24, ScreenSynFlood;
    /// SYNs to one destination, per second, above which an alarm is raised. Never drops.
    SynFloodAlarm = 25, ScreenSynFloodAlarm;
    /// SYNs from one source, per second.
    SynFloodSource = 26, ScreenSynFloodSource;
    /// SYNs to one destination, per second.
    SynFloodDestination = 27, ScreenSynFloodDestination;
    /// TCP sessions that one source holds open.
    SynAckAck = 28, SynAckAck;
    /// UDP packets to one destination, per second.
    UdpFlood = 29, ScreenUdpFlood;
    /// UDP ports tried by one source within an interval.
    UdpPortScan = 30, ScreenUdpPortScan;
    /// Hosts tried by one source over UDP within an interval.
    UdpSweep = 31, ScreenUdpSweep;
    /// Sessions of one source.
    SessionLimitSource = 32, SessionLimitSource;
    /// Sessions of one destination.
    SessionLimitDestination = 33, SessionLimitDestination;
}

impl Screen {
    /// Numbers there may be: bits of a word.
    pub const SLOTS: u32 = 64;

    /// Its bit in [`ScreenProfile::enabled`].
    #[must_use]
    #[inline(always)]
    pub const fn bit(self) -> u64 {
        1 << self as u8
    }

    /// The word used on the command line and as metric label: that of the reason without what all of them begin with.
    #[must_use]
    pub fn name(self) -> &'static str {
        let name = self.reason().name();
        name.strip_prefix("screen_").unwrap_or(name)
    }
}

/// Zone numbers that have a place in the screens' tables: 1 to [`MAX_ZONES`], and the firewall itself.
pub const ZONE_SLOTS: u32 = 64;
/// The most zones of one configuration.
pub const MAX_ZONES: usize = 62;

/// Bits of [`ScreenProfile::flags`].
pub mod screen_flags {
    /// Count and tell, but let pass what would pass without the screen.
    pub const ALARM_ONLY: u32 = 1;
}

/// A scan: so many targets tried by one source within an interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ScanLimit {
    /// Different targets; once so many were tried, the rest of the interval is refused. At most [`ScanLimit::MAX_TARGETS`].
    pub targets: u32,
    /// The interval, ns.
    pub interval_ns: u32,
}

impl ScanLimit {
    /// The most targets that can be told apart: half the bits of [`ScanState::seen`].
    pub const MAX_TARGETS: u32 = 128;
}

/// The screens of a zone. Entry [`ScreenProfile::index`] of its table; a zone without a profile has zeros there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ScreenProfile {
    /// Bit n: screen number n is on.
    pub enabled: u64,
    /// [`screen_flags`].
    pub flags: u32,
    /// Threshold of [`Screen::IcmpFlood`], packets per second. This and those that follow count only if the screen is on.
    pub icmp_flood: u32,
    /// Threshold of [`Screen::UdpFlood`], packets per second.
    pub udp_flood: u32,
    /// Threshold of [`Screen::SynFlood`], SYNs per second.
    pub syn_flood: u32,
    /// Threshold of [`Screen::SynFloodAlarm`], SYNs per second.
    pub syn_flood_alarm: u32,
    /// Threshold of [`Screen::SynFloodSource`], SYNs per second.
    pub syn_flood_source: u32,
    /// Threshold of [`Screen::SynFloodDestination`], SYNs per second.
    pub syn_flood_destination: u32,
    /// Zero.
    pub reserved: u32,
    /// Limit of [`Screen::IcmpSweep`].
    pub icmp_sweep: ScanLimit,
    /// Limit of [`Screen::TcpPortScan`].
    pub tcp_port_scan: ScanLimit,
    /// Limit of [`Screen::TcpSweep`].
    pub tcp_sweep: ScanLimit,
    /// Limit of [`Screen::UdpPortScan`].
    pub udp_port_scan: ScanLimit,
    /// Limit of [`Screen::UdpSweep`].
    pub udp_sweep: ScanLimit,
}

impl ScreenProfile {
    /// Entries of the table: two generations.
    pub const ENTRIES: u32 = 2 * ZONE_SLOTS;

    /// Where the profile of a zone stands.
    #[must_use]
    #[inline(always)]
    pub const fn index(generation: u32, zone: u8) -> u32 {
        (generation & 1) * ZONE_SLOTS + (zone as u32 & (ZONE_SLOTS - 1))
    }

    /// Whether a screen is on.
    #[must_use]
    #[inline(always)]
    pub const fn has(&self, screen: Screen) -> bool {
        self.enabled & screen.bit() != 0
    }
}

/// Key of the rates and of the scans: a screen, a zone, an address of either family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ScreenKey {
    /// `family << 16 | screen << 8 | zone`; see [`ScreenKey::subject`].
    pub subject: u32,
    /// Address, network order; IPv4 in word 0.
    pub address_be: [u32; 4],
}

impl ScreenKey {
    /// The `subject` field.
    #[must_use]
    #[inline(always)]
    pub const fn subject(screen: Screen, zone: u8, family: u8) -> u32 {
        (family as u32) << 16 | (screen as u32) << 8 | zone as u32
    }
}

/// Packets of one second.
///
/// Shared by all CPUs. `packets` is added to atomically; `began_ns` and `until_ns` are single stores. Two CPUs that begin
/// a second at once may each reset the count: packets counted in between, at most one per CPU, are then not. A recycled entry
/// makes one packet of one address count for another, and may put that other under attack for as long as an attack lasts: its
/// SYNs are then answered with cookies, which costs them time and nothing else. A second begins with a packet, not with the clock, so that any second
/// that is not one of these holds at most twice the threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RateState {
    /// When the second began, ns.
    pub began_ns: u64,
    /// Packets in it.
    pub packets: u64,
    /// SYN floods: the destination counts as under attack until then, ns; 0: it never was.
    pub until_ns: u64,
}

/// Targets that one source tried in the running interval.
///
/// Written without atomics: the worst that two CPUs can do to each other is one target seen and not remembered, or counted
/// twice. Two targets may share a bit; the second then is not counted. Which ones do changes with every interval, so that a
/// scanner cannot choose them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ScanState {
    /// When the interval began, ns of the precise clock.
    pub began_ns: u64,
    /// Targets told apart so far.
    pub targets: u32,
    /// Chooses the targets' bits; random in every interval.
    pub seed: u32,
    /// One bit per target.
    pub seen: [u64; 4],
}

/// What a zone's screen has seen, per CPU; entry [`ScreenCount::index`] of its table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ScreenCount {
    /// Packets dropped.
    pub dropped: u64,
    /// Packets that raised the alarm and went on.
    pub alarmed: u64,
}

impl ScreenCount {
    /// Entries of the table.
    pub const ENTRIES: u32 = ZONE_SLOTS * Screen::SLOTS;

    /// Where the counts of a zone's screen stand.
    #[must_use]
    #[inline(always)]
    pub const fn index(zone: u8, screen: u32) -> u32 {
        (zone as u32 & (ZONE_SLOTS - 1)) * Screen::SLOTS + (screen & (Screen::SLOTS - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_reasons_and_names_agree() {
        for (number, screen) in (0..).zip(Screen::ALL) {
            assert_eq!(*screen as u32, number);
            assert_eq!(Screen::reason_of(number), Some(screen.reason()));
            assert!(screen.reason().is_drop());
            // A reason's number tells its screen, but for the limits of sessions, whose names are the reasons' own.
            let reason = screen.reason();
            if reason.name() != screen.name() {
                assert_eq!(reason as u32, 160 + number);
                assert_eq!(reason.name().strip_prefix("screen_"), Some(screen.name()));
            }
        }
        assert_eq!(Screen::reason_of(Screen::ALL.len() as u32), None);
    }

    #[test]
    fn places_do_not_overlap() {
        let mut taken = [false; ScreenProfile::ENTRIES as usize];
        for (generation, zone) in [1, 2]
            .into_iter()
            .flat_map(|g| (0..64).map(move |zone| (g, zone)))
        {
            let place = &mut taken[ScreenProfile::index(generation, zone) as usize];
            assert!(!*place, "generation {generation}, zone {zone}");
            *place = true;
        }
        assert_eq!(ScreenCount::index(63, 63), ScreenCount::ENTRIES - 1);
        assert!(MAX_ZONES < ZONE_SLOTS as usize);
    }
}
