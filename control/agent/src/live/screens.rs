//! `show screens`, from what people wrote, what the data plane counted and the events it remembers.

use bulkhead_abi::Screen as Number;
use bulkhead_config::{Config, Scan, Screen as Profile};
use bulkhead_dataplane::engine::ScreenStatus;

use crate::report::{Flow, Screen, ScreenEvent, Screens};

/// Joins the three. `recent` is in the order of time.
pub(super) fn screens(config: &Config, counted: &[ScreenStatus], recent: &[Flow]) -> Screens {
    let screen = |counted: &ScreenStatus| {
        let profile = config
            .zones
            .iter()
            .find(|zone| zone.name == counted.zone)
            .and_then(|zone| zone.screen)
            .map(|id| config.screen(id));
        let number = Number::ALL.iter().find(|number| number.name() == counted.screen);
        let on = profile.zip(number).filter(|_| counted.enabled);
        let limit = on.and_then(|(profile, number)| limit(profile, *number));
        Screen {
            zone: counted.zone.clone(),
            profile: profile.map(|profile| profile.name.clone()),
            screen: counted.screen.to_owned(),
            enabled: counted.enabled,
            action: on.map(|(profile, number)| action(profile, *number).to_owned()),
            threshold: limit.as_ref().map(|limit| limit.most),
            threshold_unit: limit.as_ref().map(|limit| limit.unit.to_owned()),
            interval_seconds: limit.and_then(|limit| limit.interval_seconds),
            dropped: counted.dropped,
            alarmed: counted.alarmed,
            last_event: number.and_then(|number| last_event(&counted.zone, *number, recent)),
        }
    };
    Screens {
        screens: counted.iter().map(screen).collect(),
    }
}

fn action(profile: &Profile, number: Number) -> &'static str {
    match number {
        _ if profile.alarm_without_drop => "alarm",
        Number::SynFloodAlarm => "alarm",
        Number::SynFlood => "cookie",
        _ => "drop",
    }
}

fn last_event(zone: &str, number: Number, recent: &[Flow]) -> Option<ScreenEvent> {
    let reason = number.reason().name();
    // Of any kind: a session that a limit refuses is told as a denial.
    let event = recent
        .iter()
        .rev()
        .find(|flow| flow.reason == reason && flow.from_zone == zone)?;
    Some(ScreenEvent {
        time: event.time.clone(),
        verdict: event.verdict,
        source_address: event.source_address,
        destination_address: event.destination_address,
    })
}

/// From how much on a screen acts.
struct Limit {
    most: u32,
    unit: &'static str,
    interval_seconds: Option<f64>,
}

/// Screens without one act on every packet of their kind. Each number is named, so that none is forgotten.
fn limit(profile: &Profile, number: Number) -> Option<Limit> {
    let plain = |unit, most: Option<u32>| {
        most.map(|most| Limit {
            most,
            unit,
            interval_seconds: None,
        })
    };
    let scan = |unit, scan: Option<Scan>| {
        scan.map(|scan| Limit {
            most: scan.count,
            unit,
            interval_seconds: Some(scan.interval.as_secs_f64()),
        })
    };
    let (icmp, tcp, udp, flood) = (&profile.icmp, &profile.tcp, &profile.udp, profile.tcp.syn_flood);
    match number {
        Number::IcmpFlood => plain("packets/s", icmp.flood),
        Number::UdpFlood => plain("packets/s", udp.flood),
        Number::SynFlood => plain("packets/s", flood.map(|flood| flood.attack)),
        Number::SynFloodAlarm => plain("packets/s", flood.map(|flood| flood.alarm)),
        Number::SynFloodSource => plain("packets/s", flood.map(|flood| flood.source)),
        Number::SynFloodDestination => plain("packets/s", flood.map(|flood| flood.destination)),
        Number::IcmpSweep => scan("hosts", icmp.sweep),
        Number::TcpSweep => scan("hosts", tcp.sweep),
        Number::UdpSweep => scan("hosts", udp.sweep),
        Number::TcpPortScan => scan("ports", tcp.port_scan),
        Number::UdpPortScan => scan("ports", udp.port_scan),
        Number::SynAckAck => plain("sessions", tcp.syn_ack_ack),
        Number::SessionLimitSource => plain("sessions", profile.session_limit.source),
        Number::SessionLimitDestination => plain("sessions", profile.session_limit.destination),
        Number::IcmpFragment
        | Number::IcmpLarge
        | Number::PingOfDeath
        | Number::IpBadOption
        | Number::IpFragment
        | Number::IpSourceRoute
        | Number::IpRecordRoute
        | Number::IpTimestamp
        | Number::IpSecurity
        | Number::IpStream
        | Number::IpSpoofing
        | Number::Teardrop
        | Number::UnknownProtocol
        | Number::ExtensionHeaders
        | Number::Land
        | Number::TcpNoFlags
        | Number::TcpSynFin
        | Number::TcpFinNoAck
        | Number::Winnuke
        | Number::SynFragment => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::report::{FlowKind, Verdict};

    #[test]
    fn thresholds_counts_and_events_are_joined() {
        let text = include_str!("../../../../deploy/examples/published-servers.yaml");
        let mut config = bulkhead_config::parse("published-servers.yaml", text)
            .expect("a sound example")
            .config;
        let counted = |zone: &str, number: Number, enabled| ScreenStatus {
            zone: zone.into(),
            screen: number.name(),
            enabled,
            dropped: 7,
            alarmed: 2,
        };
        let status = [
            counted("internet", Number::IcmpFlood, true),
            counted("internet", Number::SynFlood, true),
            counted("internet", Number::SynFloodAlarm, true),
            counted("internet", Number::TcpPortScan, true),
            counted("internet", Number::SessionLimitSource, true),
            counted("internet", Number::Land, true),
            counted("servers", Number::IcmpFlood, false),
        ];
        let event = |from_zone: &str, time: &str| Flow {
            kind: FlowKind::Screen,
            verdict: Verdict::Dropped,
            reason: Number::IcmpFlood.reason().name().into(),
            from_zone: from_zone.into(),
            time: time.into(),
            ..fixture::flows()[1].clone()
        };
        let recent = [
            event("internet", "1"),
            event("internet", "2"),
            event("staff", "3"),
        ];
        let report = screens(&config, &status, &recent).screens;
        let limits: Vec<_> = report
            .iter()
            .map(|screen| {
                (
                    screen.action.as_deref(),
                    screen.threshold,
                    screen.threshold_unit.as_deref(),
                    screen.interval_seconds,
                )
            })
            .collect();
        assert_eq!(
            limits,
            [
                (Some("drop"), Some(1000), Some("packets/s"), None),
                (Some("cookie"), Some(200), Some("packets/s"), None),
                (Some("alarm"), Some(512), Some("packets/s"), None),
                (Some("drop"), Some(10), Some("ports"), Some(0.005)),
                (Some("drop"), Some(256), Some("sessions"), None),
                (Some("drop"), None, None, None),
                (None, None, None, None),
            ]
        );
        let last = report[0].last_event.as_ref().expect("an event");
        assert_eq!((last.time.as_str(), last.verdict), ("2", Verdict::Dropped));
        assert!(report[1..].iter().all(|screen| screen.last_event.is_none()));
        assert_eq!(
            (report[0].profile.as_deref(), report[0].dropped, report[0].alarmed),
            (Some("edge"), 7, 2)
        );
        assert_eq!(
            (report[6].profile.as_deref(), report[6].enabled),
            (Some("default"), false)
        );
        for profile in &mut config.screens {
            profile.alarm_without_drop = true;
        }
        let report = screens(&config, &status, &[]).screens;
        assert!(
            report[..6]
                .iter()
                .all(|one| one.action.as_deref() == Some("alarm"))
        );
    }
}
