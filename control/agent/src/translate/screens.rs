//! Screen profiles.

use bulkhead_config::{Scan, Screen};
use bulkhead_dataplane::ruleset;

/// Every field of both sides is named, so that a screen added to one of them cannot be forgotten here.
pub(super) fn screen(screen: &Screen) -> ruleset::Screen {
    let bulkhead_config::IcmpScreen {
        flood: icmp_flood,
        sweep: icmp_sweep,
        fragment: icmp_fragment,
        large: icmp_large,
        ping_of_death,
    } = screen.icmp;
    let bulkhead_config::IpScreens {
        bad_option,
        fragment,
        source_route,
        record_route,
        timestamp,
        security,
        stream,
        spoofing,
        teardrop,
        unknown_protocol,
        extension_headers,
    } = screen.ip;
    let bulkhead_config::TcpScreen {
        land,
        no_flags,
        syn_fin,
        fin_no_ack,
        winnuke,
        syn_fragment,
        port_scan,
        sweep,
        syn_flood,
        syn_ack_ack,
    } = screen.tcp;
    ruleset::Screen {
        name: screen.name.clone(),
        alarm_without_drop: screen.alarm_without_drop,
        icmp_flood,
        icmp_sweep: icmp_sweep.map(scan),
        icmp_fragment,
        icmp_large,
        ping_of_death,
        ip_bad_option: bad_option,
        ip_fragment: fragment,
        ip_source_route: source_route,
        ip_record_route: record_route,
        ip_timestamp: timestamp,
        ip_security: security,
        ip_stream: stream,
        ip_spoofing: spoofing,
        teardrop,
        unknown_protocol,
        extension_headers,
        land,
        tcp_no_flags: no_flags,
        tcp_syn_fin: syn_fin,
        tcp_fin_no_ack: fin_no_ack,
        winnuke,
        syn_fragment,
        tcp_port_scan: port_scan.map(scan),
        tcp_sweep: sweep.map(scan),
        syn_flood_attack: syn_flood.map(|flood| flood.attack),
        syn_flood_alarm: syn_flood.map(|flood| flood.alarm),
        syn_flood_source: syn_flood.map(|flood| flood.source),
        syn_flood_destination: syn_flood.map(|flood| flood.destination),
        syn_ack_ack,
        udp_flood: screen.udp.flood,
        udp_port_scan: screen.udp.port_scan.map(scan),
        udp_sweep: screen.udp.sweep.map(scan),
        session_limit_source: screen.session_limit.source,
        session_limit_destination: screen.session_limit.destination,
    }
}

fn scan(scan: Scan) -> ruleset::Scan {
    ruleset::Scan {
        count: scan.count,
        interval: scan.interval,
    }
}
