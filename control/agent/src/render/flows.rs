//! `observe`: one line per flow, in the columns and with the words of Hubble's.
//!
//! Lines appear as flows do, so the columns have fixed widths and a longer value pushes what follows to the right.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};

use crate::report::{Flow, FlowKind, Verdict};
use crate::words;

/// The line above the first flow.
pub fn flow_header() -> String {
    columns("TIMESTAMP", "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY")
}

fn columns(time: &str, source: &str, destination: &str, kind: &str, verdict: &str, summary: &str) -> String {
    let line = format!("{time:<27}  {source:<36}  {destination:<36}  {kind:<6}  {verdict:<9}  {summary}");
    format!("{}\n", line.trim_end())
}

/// One flow.
pub fn flow(flow: &Flow) -> String {
    let source = end(flow, flow.source_address, flow.source_port, &flow.from_zone);
    let destination = end(
        flow,
        flow.destination_address,
        flow.destination_port,
        &flow.to_zone,
    );
    let kind = match flow.kind {
        FlowKind::Create => "create",
        FlowKind::Close => "close",
        FlowKind::Deny => "deny",
        FlowKind::Screen => "screen",
    };
    columns(
        &flow.time,
        &source,
        &destination,
        kind,
        verdict(flow.verdict),
        &summary(flow),
    )
}

const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Forwarded => "FORWARDED",
        Verdict::Dropped => "DROPPED",
    }
}

fn end(flow: &Flow, address: IpAddr, port: u16, zone: &str) -> String {
    let end = match words::has_ports(flow.protocol_number) {
        true => SocketAddr::new(address, port).to_string(),
        false => address.to_string(),
    };
    match zone {
        "" => end,
        zone => format!("{end} ({zone})"),
    }
}

fn summary(flow: &Flow) -> String {
    let mut parts = vec![match (flow.icmp_type, flow.icmp_code) {
        (Some(kind), Some(code)) => format!("{} type {kind} code {code}", flow.protocol),
        _ => flow.protocol.clone(),
    }];
    match (flow.kind, &flow.policy) {
        (FlowKind::Deny, Some(policy)) => parts.push(format!("{} by {policy}", flow.reason)),
        (FlowKind::Deny | FlowKind::Screen, None) => parts.push(flow.reason.clone()),
        (_, policy) => parts.push(format!("policy {}", policy.as_deref().unwrap_or("self"))),
    }
    for (what, address, port) in [
        (
            "source",
            flow.translated_source_address,
            flow.translated_source_port,
        ),
        (
            "destination",
            flow.translated_destination_address,
            flow.translated_destination_port,
        ),
    ] {
        if let (Some(address), Some(port)) = (address, port) {
            let end = match words::has_ports(flow.protocol_number) {
                true => SocketAddr::new(address, port).to_string(),
                false => address.to_string(),
            };
            parts.push(format!("{what} becomes {end}"));
        }
    }
    if flow.kind == FlowKind::Close {
        parts.push(format!(
            "{} ({}) out, {} ({}) back",
            words::count(flow.packets, "packet", "packets"),
            words::bytes(flow.bytes),
            words::count(flow.reply_packets, "packet", "packets"),
            words::bytes(flow.reply_bytes),
        ));
        if let Some(lived) = flow.duration_seconds {
            parts.push(words::duration(Duration::from_secs_f64(lived.max(0.0))));
        }
    }
    parts.join(", ")
}

/// A flow as Hubble's `-o jsonpb` writes one, as far as the fields mean the same here.
pub fn flow_jsonpb(flow: &Flow, node: &str) -> Value {
    let mut ip = json!({
        "source": flow.source_address,
        "destination": flow.destination_address,
        "ipVersion": if flow.family == "ipv6" { "IPv6" } else { "IPv4" },
    });
    if let Some(translated) = flow.translated_source_address {
        ip["source_xlated"] = json!(translated);
    }
    let l4 = match flow.protocol_number {
        6 => json!({ "TCP": { "source_port": flow.source_port, "destination_port": flow.destination_port } }),
        17 => {
            json!({ "UDP": { "source_port": flow.source_port, "destination_port": flow.destination_port } })
        }
        1 => json!({ "ICMPv4": { "type": flow.icmp_type, "code": flow.icmp_code } }),
        58 => json!({ "ICMPv6": { "type": flow.icmp_type, "code": flow.icmp_code } }),
        132 => {
            json!({ "SCTP": { "source_port": flow.source_port, "destination_port": flow.destination_port } })
        }
        _ => Value::Null,
    };
    let mut inner = json!({
        "time": flow.time,
        "verdict": verdict(flow.verdict),
        "IP": ip,
        "source": { "labels": [format!("zone={}", flow.from_zone)] },
        "destination": { "labels": [format!("zone={}", flow.to_zone)] },
        "Type": "L3_L4",
        "node_name": node,
        "interface": { "name": flow.ingress },
        "Summary": summary(flow),
    });
    if !l4.is_null() {
        inner["l4"] = l4;
    }
    if flow.verdict == Verdict::Dropped {
        inner["drop_reason_desc"] = json!(flow.reason.to_uppercase());
    }
    if let Some(policy) = &flow.policy {
        let field = if flow.verdict == Verdict::Dropped {
            "ingress_denied_by"
        } else {
            "ingress_allowed_by"
        };
        inner[field] = json!([{ "name": policy }]);
    }
    json!({ "flow": inner, "node_name": node, "time": flow.time })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn flows_stand_below_their_header() {
        let lines: Vec<String> = fixture::flows().iter().map(flow).collect();
        let text = flow_header() + &lines.concat();
        let expected = "\
TIMESTAMP                    SOURCE                                DESTINATION                           TYPE    VERDICT    SUMMARY
2026-11-22T15:32:32.123456Z  10.10.2.10:43210 (applications)       203.0.113.80:443 (internet)           create  FORWARDED  tcp, policy out, source becomes 203.0.113.1:60001
2026-11-22T15:32:33.000001Z  10.10.3.20 (web)                      10.10.1.10 (financial)                deny    DROPPED    icmp type 8 code 0, default_deny
2026-11-22T15:33:35.500000Z  10.10.2.10:43210 (applications)       203.0.113.80:443 (internet)           close   FORWARDED  tcp, policy out, source becomes 203.0.113.1:60001, 12 packets (1.4 KiB) out, 9 packets (51 KiB) back, 1 m 3 s
";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_denial_names_its_policy() {
        let mut denied = fixture::flows().remove(1);
        denied.policy = Some("financial-is-closed".into());
        denied.reason = "policy_deny".into();
        assert!(flow(&denied).ends_with("icmp type 8 code 0, policy_deny by financial-is-closed\n"));
    }

    #[test]
    fn jsonpb_has_hubbles_names() {
        let flows = fixture::flows();
        let created = flow_jsonpb(&flows[0], "edge");
        assert_eq!(created["flow"]["verdict"], "FORWARDED");
        assert_eq!(created["flow"]["IP"]["source_xlated"], "203.0.113.1");
        assert_eq!(created["flow"]["l4"]["TCP"]["destination_port"], 443);
        assert_eq!(created["flow"]["ingress_allowed_by"][0]["name"], "out");
        assert_eq!(
            (&created["node_name"], &created["time"]),
            (&json!("edge"), &created["flow"]["time"])
        );
        let denied = flow_jsonpb(&flows[1], "edge");
        assert_eq!(denied["flow"]["drop_reason_desc"], "DEFAULT_DENY");
        assert_eq!(
            denied["flow"]["l4"],
            json!({ "ICMPv4": { "type": 8, "code": 0 } })
        );
        assert_eq!(denied["flow"].get("ingress_denied_by"), None);
    }
}
