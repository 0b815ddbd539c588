//! `explain`: the verdict first, then what led to it.

use crate::report::{Explanation, Question};
use crate::words;

/// The verdict and its grounds, one to a line.
pub fn explanation(report: &Explanation) -> String {
    let mut lines: Vec<(&str, String)> = vec![
        ("conversation", conversation(&report.question)),
        (
            "verdict",
            format!("{} ({})", report.verdict.to_uppercase(), report.reason),
        ),
    ];
    let policy = report.policy.as_deref();
    lines.push(("policy", policy.unwrap_or("none matches").to_owned()));
    let to_zone = if report.to_zone.is_empty() {
        "nowhere"
    } else {
        &report.to_zone
    };
    lines.push(("zones", format!("{} -> {to_zone}", report.from_zone)));
    let way = match (&report.egress, report.gateway) {
        (Some(egress), Some(gateway)) => format!("{} -> {egress} via {gateway}", report.ingress),
        (Some(egress), None) => format!("{} -> {egress}", report.ingress),
        (None, _) if report.to_zone == "self" => format!("{} -> the firewall itself", report.ingress),
        (None, _) => format!("{} -> no way out", report.ingress),
    };
    lines.push(("route", way));
    lines.push(("source groups", names(&report.source_groups)));
    lines.push(("destination groups", names(&report.destination_groups)));
    lines.push(("services", names(&report.services)));
    lines.push(("translation", translation(report)));
    if let Some(session) = report.existing_session {
        lines.push((
            "session",
            format!("{session} is live: packets of it follow it, not a new decision"),
        ));
    }
    if let Some(reason) = &report.answer_dropped {
        lines.push(("answers", format!("DROPPED ({reason})")));
    }
    if let Some(hint) = &report.hint {
        lines.push(("hint", hint.clone()));
    }
    let width = lines.iter().map(|(label, _)| label.len()).max().unwrap_or(0);
    lines
        .iter()
        .map(|(label, text)| format!("{:<1$}  {text}\n", format!("{label}:"), width + 1))
        .collect()
}

/// What becomes of both ends, and by which rules.
fn translation(report: &Explanation) -> String {
    let destination = report
        .translated_destination
        .map(|address| match report.translated_destination_port {
            Some(port) if port != 0 => std::net::SocketAddr::new(address, port).to_string(),
            _ => address.to_string(),
        });
    let source = report.translated_source.map(|address| address.to_string());
    let mut parts = Vec::new();
    for (what, rule, becomes) in [
        ("destination", &report.destination_rule, destination),
        ("source", &report.nat_rule, source),
    ] {
        match (rule, becomes) {
            (Some(rule), Some(end)) => parts.push(format!("{what} becomes {end} ({rule})")),
            // By a mapping, which is of a source rule.
            (None, Some(end)) => parts.push(format!("{what} becomes {end} (persistent mapping)")),
            (Some(rule), None) => parts.push(format!("{what} stays ({rule})")),
            (None, None) => {}
        }
    }
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(", ")
    }
}

fn names(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

fn conversation(question: &Question) -> String {
    let protocol = words::protocol(question.protocol_number);
    let (source, destination) = (question.source, question.destination);
    match (question.icmp_type, question.icmp_code) {
        (Some(kind), code) => format!(
            "{source} -> {destination} {protocol} type {kind} code {}",
            code.unwrap_or(0)
        ),
        _ if words::has_ports(question.protocol_number) => {
            let from = if question.source_port == 0 {
                String::new()
            } else {
                format!(" port {}", question.source_port)
            };
            format!(
                "{source}{from} -> {destination} {protocol} port {}",
                question.destination_port
            )
        }
        _ => format!("{source} -> {destination} {protocol}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn question() -> Question {
        Question {
            from: "net3".into(),
            source: "10.10.3.20".parse().expect("an address"),
            destination: "203.0.113.80".parse().expect("an address"),
            protocol_number: 6,
            source_port: 0,
            destination_port: 443,
            icmp_type: None,
            icmp_code: None,
        }
    }

    #[test]
    fn a_denial_says_why() {
        let expected = "\
conversation:        10.10.3.20 -> 203.0.113.80 tcp port 443
verdict:             DENY (default_deny)
policy:              none matches
zones:               web -> internet
route:               net3 -> net5
source groups:       web-servers
destination groups:  none
services:            https
translation:         none
hint:                no policy
";
        assert_eq!(explanation(&fixture::explanation(&question())), expected);
    }

    #[test]
    fn a_permission_says_what_becomes_of_it() {
        let report = Explanation {
            question: Question {
                protocol_number: 1,
                icmp_type: Some(8),
                icmp_code: Some(0),
                ..question()
            },
            verdict: "permit".into(),
            reason: "session_created".into(),
            gateway: Some("203.0.113.254".parse().expect("an address")),
            policy: Some("out".into()),
            nat_rule: Some("hide-inside".into()),
            translated_source: Some("203.0.113.1".parse().expect("an address")),
            existing_session: Some(4_711),
            hint: None,
            ..fixture::explanation(&question())
        };
        let text = explanation(&report);
        for line in [
            "conversation:        10.10.3.20 -> 203.0.113.80 icmp type 8 code 0\n",
            "verdict:             PERMIT (session_created)\n",
            "policy:              out\n",
            "route:               net3 -> net5 via 203.0.113.254\n",
            "translation:         source becomes 203.0.113.1 (hide-inside)\n",
            "session:             4711 is live: packets of it follow it, not a new decision\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        assert!(!text.contains("hint:") && !text.contains("answers:"));
        let lost = Explanation {
            answer_dropped: Some("egress_not_guarded".into()),
            ..report
        };
        let text = explanation(&lost);
        assert!(
            text.contains("answers:             DROPPED (egress_not_guarded)\n"),
            "{text}"
        );
    }

    #[test]
    fn both_ends_may_be_translated() {
        let mut report = fixture::explanation(&question());
        let line = |report: &Explanation| {
            let text = explanation(report);
            let line = text.lines().find_map(|line| line.strip_prefix("translation:"));
            line.expect("a line about translation").trim().to_owned()
        };
        report.destination_rule = Some("www".into());
        report.nat_rule = Some("no-hiding".into());
        assert_eq!(line(&report), "destination stays (www), source stays (no-hiding)");
        report.translated_destination = Some("2001:db8::80".parse().expect("an address"));
        report.translated_destination_port = Some(8443);
        report.nat_rule = None;
        assert_eq!(line(&report), "destination becomes [2001:db8::80]:8443 (www)");
        report.destination_rule = None;
        report.translated_destination_port = Some(0);
        assert_eq!(
            line(&report),
            "destination becomes 2001:db8::80 (persistent mapping)"
        );
    }

    #[test]
    fn the_firewall_itself_is_a_destination_too() {
        let mut report = fixture::explanation(&question());
        report.egress = None;
        report.to_zone = "self".into();
        assert!(explanation(&report).contains("net3 -> the firewall itself\n"));
        report.to_zone = String::new();
        let text = explanation(&report);
        assert!(
            text.contains("web -> nowhere\n") && text.contains("net3 -> no way out\n"),
            "{text}"
        );
    }
}
