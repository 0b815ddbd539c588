//! Screen profiles: from what a zone names to the entries the programs read by zone number.
//!
//! Every zone number of the generation gets an entry, zeros where the zone names no profile: the table's slot was another
//! generation's before.

use bulkhead_abi::{MAX_ZONES, ScanLimit, Screen, ScreenProfile, ZONE_SLOTS, screen_flags};

use super::{CompileError, zone_number};
use crate::ruleset::{self, Ruleset, Scan};

/// The profiles of `generation`, by index in their table.
///
/// # Errors
/// If there are more zones than places, or a scan counts more targets than can be told apart.
pub(super) fn compile(ruleset: &Ruleset, generation: u32) -> Result<Vec<(u32, ScreenProfile)>, CompileError> {
    if ruleset.zones.len() > MAX_ZONES {
        return Err(CompileError::TooManyZones(ruleset.zones.len()));
    }
    let mut profiles = [ScreenProfile::default(); ZONE_SLOTS as usize];
    for (index, zone) in ruleset.zones.iter().enumerate() {
        if let Some(screen) = zone.screen {
            profiles[zone_number(index) as usize] = profile(&ruleset.screens[screen])?;
        }
    }
    Ok((0..)
        .zip(profiles)
        .map(|(zone, profile)| (ScreenProfile::index(generation, zone), profile))
        .collect())
}

fn profile(from: &ruleset::Screen) -> Result<ScreenProfile, CompileError> {
    let mut to = ScreenProfile::default();
    if from.alarm_without_drop {
        to.flags |= screen_flags::ALARM_ONLY;
    }
    for (screen, on) in [
        (Screen::IcmpFragment, from.icmp_fragment),
        (Screen::IcmpLarge, from.icmp_large),
        (Screen::PingOfDeath, from.ping_of_death),
        (Screen::IpBadOption, from.ip_bad_option),
        (Screen::IpFragment, from.ip_fragment),
        (Screen::IpSourceRoute, from.ip_source_route),
        (Screen::IpRecordRoute, from.ip_record_route),
        (Screen::IpTimestamp, from.ip_timestamp),
        (Screen::IpSecurity, from.ip_security),
        (Screen::IpStream, from.ip_stream),
        (Screen::IpSpoofing, from.ip_spoofing),
        (Screen::Teardrop, from.teardrop),
        (Screen::UnknownProtocol, from.unknown_protocol),
        (Screen::ExtensionHeaders, from.extension_headers),
        (Screen::Land, from.land),
        (Screen::TcpNoFlags, from.tcp_no_flags),
        (Screen::TcpSynFin, from.tcp_syn_fin),
        (Screen::TcpFinNoAck, from.tcp_fin_no_ack),
        (Screen::Winnuke, from.winnuke),
        (Screen::SynFragment, from.syn_fragment),
        // Their limits are in a table of their own.
        (Screen::SynAckAck, from.syn_ack_ack.is_some()),
        (Screen::SessionLimitSource, from.session_limit_source.is_some()),
        (
            Screen::SessionLimitDestination,
            from.session_limit_destination.is_some(),
        ),
    ] {
        if on {
            to.enabled |= screen.bit();
        }
    }
    for (screen, threshold, at) in [
        (Screen::IcmpFlood, from.icmp_flood, &mut to.icmp_flood),
        (Screen::UdpFlood, from.udp_flood, &mut to.udp_flood),
        (Screen::SynFlood, from.syn_flood_attack, &mut to.syn_flood),
        (
            Screen::SynFloodAlarm,
            from.syn_flood_alarm,
            &mut to.syn_flood_alarm,
        ),
        (
            Screen::SynFloodSource,
            from.syn_flood_source,
            &mut to.syn_flood_source,
        ),
        (
            Screen::SynFloodDestination,
            from.syn_flood_destination,
            &mut to.syn_flood_destination,
        ),
    ] {
        if let Some(threshold) = threshold {
            to.enabled |= screen.bit();
            *at = threshold;
        }
    }
    for (screen, scan, at) in [
        (Screen::IcmpSweep, from.icmp_sweep, &mut to.icmp_sweep),
        (Screen::TcpPortScan, from.tcp_port_scan, &mut to.tcp_port_scan),
        (Screen::TcpSweep, from.tcp_sweep, &mut to.tcp_sweep),
        (Screen::UdpPortScan, from.udp_port_scan, &mut to.udp_port_scan),
        (Screen::UdpSweep, from.udp_sweep, &mut to.udp_sweep),
    ] {
        if let Some(scan) = scan {
            to.enabled |= screen.bit();
            *at = limit(&from.name, screen, scan)?;
        }
    }
    Ok(to)
}

fn limit(profile: &str, screen: Screen, scan: Scan) -> Result<ScanLimit, CompileError> {
    let interval_ns = u32::try_from(scan.interval.as_nanos()).ok();
    match interval_ns {
        Some(interval_ns) if scan.count <= ScanLimit::MAX_TARGETS => Ok(ScanLimit {
            targets: scan.count,
            interval_ns,
        }),
        _ => Err(CompileError::Scan {
            profile: profile.to_owned(),
            screen: screen.name(),
            count: scan.count,
            interval: scan.interval,
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ruleset::Zone;

    fn zone(screen: Option<usize>) -> Zone {
        Zone {
            screen,
            ..Zone::default()
        }
    }

    #[test]
    fn each_generation_fills_its_own_half_and_zones_without_a_profile_have_zeros() {
        let ruleset = Ruleset {
            zones: vec![zone(None), zone(Some(1))],
            screens: vec![
                ruleset::Screen::default(),
                ruleset::Screen {
                    alarm_without_drop: true,
                    land: true,
                    udp_flood: Some(7),
                    ..ruleset::Screen::default()
                },
            ],
            ..Ruleset::default()
        };
        for generation in [4, 5] {
            let entries = compile(&ruleset, generation).unwrap();
            let first = (generation & 1) * 64;
            assert!(entries.iter().map(|(index, _)| *index).eq(first..first + 64));
            let set = |(_, profile): &&(u32, ScreenProfile)| *profile != ScreenProfile::default();
            let set: Vec<_> = entries.iter().filter(set).collect();
            let wanted = ScreenProfile {
                enabled: Screen::Land.bit() | Screen::UdpFlood.bit(),
                flags: screen_flags::ALARM_ONLY,
                udp_flood: 7,
                ..ScreenProfile::default()
            };
            assert_eq!(set, [&(first + 2, wanted)]);
        }
    }

    /// A profile with everything on: no screen is forgotten, and no threshold lands in another's place.
    #[test]
    fn every_screen_can_be_on() {
        let scan = |count| {
            Some(Scan {
                count,
                interval: Duration::from_millis(u64::from(count)),
            })
        };
        let all = ruleset::Screen {
            name: String::new(),
            alarm_without_drop: false,
            icmp_flood: Some(1),
            icmp_sweep: scan(2),
            icmp_fragment: true,
            icmp_large: true,
            ping_of_death: true,
            ip_bad_option: true,
            ip_fragment: true,
            ip_source_route: true,
            ip_record_route: true,
            ip_timestamp: true,
            ip_security: true,
            ip_stream: true,
            ip_spoofing: true,
            teardrop: true,
            unknown_protocol: true,
            extension_headers: true,
            land: true,
            tcp_no_flags: true,
            tcp_syn_fin: true,
            tcp_fin_no_ack: true,
            winnuke: true,
            syn_fragment: true,
            tcp_port_scan: scan(3),
            tcp_sweep: scan(4),
            syn_flood_attack: Some(5),
            syn_flood_alarm: Some(6),
            syn_flood_source: Some(7),
            syn_flood_destination: Some(8),
            syn_ack_ack: Some(9),
            udp_flood: Some(10),
            udp_port_scan: scan(11),
            udp_sweep: scan(12),
            session_limit_source: Some(13),
            session_limit_destination: Some(14),
        };
        let limit = |targets| ScanLimit {
            targets,
            interval_ns: targets * 1_000_000,
        };
        let wanted = ScreenProfile {
            enabled: Screen::ALL.iter().fold(0, |all, screen| all | screen.bit()),
            flags: 0,
            icmp_flood: 1,
            udp_flood: 10,
            syn_flood: 5,
            syn_flood_alarm: 6,
            syn_flood_source: 7,
            syn_flood_destination: 8,
            reserved: 0,
            icmp_sweep: limit(2),
            tcp_port_scan: limit(3),
            tcp_sweep: limit(4),
            udp_port_scan: limit(11),
            udp_sweep: limit(12),
        };
        assert_eq!(profile(&all), Ok(wanted));
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let ruleset = |zones| Ruleset {
            zones: vec![zone(None); zones],
            ..Ruleset::default()
        };
        assert!(compile(&ruleset(62), 1).is_ok());
        let error = compile(&ruleset(63), 1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "63 zones are more than the 62 that the tables hold"
        );
        let scan = |count, interval| ruleset::Screen {
            name: "edge".into(),
            udp_sweep: Some(Scan { count, interval }),
            ..ruleset::Screen::default()
        };
        assert!(profile(&scan(128, Duration::from_secs(1))).is_ok());
        let error = profile(&scan(129, Duration::from_secs(1))).unwrap_err();
        assert_eq!(
            error.to_string(),
            "screen edge: udp_sweep of 129 targets in 1s: at most 128 targets can be told apart, in less than 4.2 s"
        );
        assert!(profile(&scan(10, Duration::from_secs(5))).is_err());
    }
}
