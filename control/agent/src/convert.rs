//! From the engine's values to the shapes that are reported: total, and without a decision of its own.

use bulkhead_abi::Reason;
use bulkhead_dataplane::engine::{self, EventKind, FlowEvent, InterfaceStatus};

use crate::report::{
    Counter, CounterKind, Direction, Explanation, Flow, FlowKind, Interface, Question, Session, Verdict,
    seconds,
};
use crate::words;

fn family(number: u8) -> String {
    if number == 6 { "ipv6" } else { "ipv4" }.to_owned()
}

impl From<InterfaceStatus> for Interface {
    fn from(status: InterfaceStatus) -> Self {
        Self {
            name: status.name,
            index: status.index,
            zone: status.zone,
            kind: status.kind,
            mac: words::mac(status.mac),
            mtu_bytes: status.mtu,
            up: status.up,
            addresses: status.addresses,
            hook: status.hook.to_owned(),
            hook_reason: status.reason,
            attached: status.attached,
            fails_closed: status.fails_closed,
            programs_restored: status.restored,
            warnings: status.warnings,
        }
    }
}

impl From<&engine::Direction> for Direction {
    fn from(direction: &engine::Direction) -> Self {
        Self {
            source_address: direction.source.ip(),
            source_port: direction.source.port(),
            destination_address: direction.destination.ip(),
            destination_port: direction.destination.port(),
            interface: direction.interface.clone(),
            packets: direction.packets,
            bytes: direction.bytes,
        }
    }
}

impl From<&engine::Session> for Session {
    fn from(session: &engine::Session) -> Self {
        Self {
            id: session.id,
            family: family(session.family),
            protocol: words::protocol(session.protocol),
            protocol_number: session.protocol,
            state: session.state.name().to_owned(),
            established: session.established,
            policy: session.policy.clone(),
            nat_rule: session.nat_rule.clone(),
            destination_rule: session.destination_rule.clone(),
            translated: session.translated,
            from_zone: session.from_zone.clone(),
            to_zone: session.to_zone.clone(),
            age_seconds: seconds(session.age),
            idle_seconds: seconds(session.idle),
            timeout_seconds: seconds(session.timeout),
            expires_in_seconds: seconds(session.timeout.saturating_sub(session.idle)),
            original: (&session.original).into(),
            reply: (&session.reply).into(),
        }
    }
}

impl From<FlowEvent> for Flow {
    fn from(event: FlowEvent) -> Self {
        let (kind, verdict) = match event.kind {
            EventKind::Create => (FlowKind::Create, Verdict::Forwarded),
            EventKind::Close => (FlowKind::Close, Verdict::Forwarded),
            EventKind::Deny => (FlowKind::Deny, Verdict::Dropped),
            EventKind::Screen if event.dropped => (FlowKind::Screen, Verdict::Dropped),
            EventKind::Screen => (FlowKind::Screen, Verdict::Forwarded),
        };
        Self {
            time: words::timestamp(event.time),
            kind,
            verdict,
            reason: event.reason.name().to_owned(),
            session_id: (event.session_id != 0).then_some(event.session_id),
            family: family(event.family),
            protocol: words::protocol(event.protocol),
            protocol_number: event.protocol,
            source_address: event.source.ip(),
            source_port: event.source.port(),
            destination_address: event.destination.ip(),
            destination_port: event.destination.port(),
            translated_source_address: event.translated_source.map(|source| source.ip()),
            translated_source_port: event.translated_source.map(|source| source.port()),
            translated_destination_address: event.translated_destination.map(|to| to.ip()),
            translated_destination_port: event.translated_destination.map(|to| to.port()),
            icmp_type: event.icmp.map(|(kind, _)| kind),
            icmp_code: event.icmp.map(|(_, code)| code),
            ingress: event.ingress,
            egress: event.egress,
            from_zone: event.from_zone,
            to_zone: event.to_zone,
            policy: event.policy,
            nat_rule: event.nat_rule,
            destination_rule: event.destination_rule,
            packets: event.packets,
            bytes: event.bytes,
            reply_packets: event.reply_packets,
            reply_bytes: event.reply_bytes,
            duration_seconds: event.duration.map(seconds),
        }
    }
}

/// The engine's question.
pub fn question(question: &Question) -> engine::Explain {
    engine::Explain {
        ingress: question.from.clone(),
        source: question.source,
        destination: question.destination,
        protocol: question.protocol_number,
        source_port: question.source_port,
        destination_port: question.destination_port,
        icmp: question
            .icmp_type
            .map(|kind| (kind, question.icmp_code.unwrap_or(0))),
    }
}

/// The engine's answer, with its question and what would change it.
pub fn explanation(question: &Question, answer: engine::Explanation) -> Explanation {
    let mut explanation = Explanation {
        question: question.clone(),
        verdict: answer.verdict.to_owned(),
        reason: answer.reason.name().to_owned(),
        from_zone: answer.from_zone,
        to_zone: answer.to_zone,
        ingress: answer.ingress,
        egress: answer.egress,
        gateway: answer.gateway,
        policy: answer.policy,
        source_groups: shown_groups(answer.source_groups),
        destination_groups: shown_groups(answer.destination_groups),
        services: answer.services,
        nat_rule: answer.nat_rule,
        translated_source: answer.translated_source,
        destination_rule: answer.destination_rule,
        translated_destination: answer.translated_destination.map(|to| to.ip()),
        translated_destination_port: answer.translated_destination.map(|to| to.port()),
        existing_session: answer.existing_session,
        answer_dropped: answer.answer_dropped.map(|reason| reason.name().to_owned()),
        hint: None,
    };
    explanation.hint = match answer.answer_dropped {
        Some(reason) => crate::hint::way_back(reason, &explanation),
        None => crate::hint::hint(answer.reason, &explanation),
    };
    explanation
}

/// Those that a user knows.
fn shown_groups(mut groups: Vec<String>) -> Vec<String> {
    groups.retain(|group| !crate::groups::is_hidden(group));
    groups
}

/// A counter with what it counts.
pub fn counter(name: String, value: u64) -> Counter {
    let reason = Reason::ALL.iter().find(|reason| reason.name() == name);
    let (kind, unit) = match reason {
        Some(reason) if reason.is_drop() => (CounterKind::Dropped, "packets"),
        Some(_) => (CounterKind::Passed, "packets"),
        None => (CounterKind::Other, unit(&name)),
    };
    Counter {
        name,
        kind,
        value,
        unit: unit.to_owned(),
    }
}

/// What a counter that is no reason counts, by the words of its name.
fn unit(name: &str) -> &'static str {
    const UNITS: [(&str, &str); 12] = [
        ("events", "events"),
        ("slow_path", "answers"),
        ("checksums", "packets"),
        ("session", "sessions"),
        ("cookies", "packets"),
        ("mappings", "mappings"),
        ("nat_ports", "ports"),
        ("fragments", "packets"),
        ("frames", "packets"),
        ("decision_cache", "conversations"),
        ("programs", "programs"),
        ("", "times"),
    ];
    UNITS
        .iter()
        .find(|(word, _)| name.contains(word))
        .map_or("times", |(_, unit)| unit)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::fixture;

    #[test]
    fn sessions_report_what_they_have_left() {
        let sessions = fixture::reported_sessions();
        let tcp = &sessions[0];
        assert_eq!(
            (tcp.family.as_str(), tcp.protocol.as_str(), tcp.state.as_str()),
            ("ipv4", "tcp", "established")
        );
        assert_eq!((tcp.idle_seconds, tcp.expires_in_seconds), (2.25, 7_437.749));
        assert_eq!(
            (sessions[1].family.as_str(), sessions[1].expires_in_seconds),
            ("ipv6", 0.5)
        );
        assert_eq!(sessions[0].reply.destination_port, 60_001);
    }

    #[test]
    fn the_json_of_a_session_is_stable() {
        let json = serde_json::to_value(&fixture::reported_sessions()[1]).expect("JSON");
        let expected = serde_json::json!({
            "id": 4712, "family": "ipv6", "protocol": "udp", "protocol_number": 17, "state": "one-way",
            "established": false, "policy": "applications-to-databases", "nat_rule": null, "destination_rule": null,
            "translated": false,
            "from_zone": "applications", "to_zone": "data",
            "age_seconds": 61.5, "idle_seconds": 29.5, "timeout_seconds": 30.0, "expires_in_seconds": 0.5,
            "in": {
                "source_address": "2001:db8:10:2::10", "source_port": 40000,
                "destination_address": "2001:db8:10:4::20", "destination_port": 53,
                "interface": "net2", "packets": 1, "bytes": 94
            },
            "out": {
                "source_address": "2001:db8:10:4::20", "source_port": 53,
                "destination_address": "2001:db8:10:2::10", "destination_port": 40000,
                "interface": "net4", "packets": 0, "bytes": 0
            }
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn a_denial_has_no_session_and_a_translation_shows() {
        let end = |text: &str| text.parse::<SocketAddr>().expect("an address and a port");
        let event = FlowEvent {
            time: UNIX_EPOCH,
            kind: EventKind::Deny,
            reason: Reason::PolicyReject,
            session_id: 0,
            family: 4,
            protocol: 1,
            source: end("10.0.0.1:7"),
            destination: end("10.0.0.2:7"),
            translated_source: None,
            translated_destination: None,
            icmp: Some((8, 0)),
            ingress: "net1".into(),
            egress: None,
            from_zone: "a".into(),
            to_zone: "b".into(),
            policy: Some("no".into()),
            nat_rule: None,
            destination_rule: None,
            log: true,
            dropped: true,
            packets: 0,
            bytes: 0,
            reply_packets: 0,
            reply_bytes: 0,
            duration: None,
        };
        let denied = Flow::from(event.clone());
        assert_eq!(
            (denied.kind, denied.verdict, denied.session_id),
            (FlowKind::Deny, Verdict::Dropped, None)
        );
        assert_eq!(
            (denied.reason.as_str(), denied.icmp_type, denied.icmp_code),
            ("policy_reject", Some(8), Some(0))
        );
        let screened = |dropped| {
            Flow::from(FlowEvent {
                kind: EventKind::Screen,
                dropped,
                ..event.clone()
            })
        };
        for (dropped, verdict) in [(true, Verdict::Dropped), (false, Verdict::Forwarded)] {
            let flow = screened(dropped);
            assert_eq!((flow.kind, flow.verdict), (FlowKind::Screen, verdict));
        }
        let closed = Flow::from(FlowEvent {
            kind: EventKind::Close,
            session_id: 9,
            translated_source: Some(end("192.0.2.1:1024")),
            translated_destination: Some(end("10.0.0.9:8080")),
            duration: Some(Duration::from_micros(1_234_567)),
            ..event
        });
        assert_eq!((closed.verdict, closed.session_id), (Verdict::Forwarded, Some(9)));
        assert_eq!(closed.translated_source_address, Some(end("192.0.2.1:0").ip()));
        assert_eq!(
            (closed.translated_source_port, closed.duration_seconds),
            (Some(1_024), Some(1.234))
        );
        assert_eq!(
            (
                closed.translated_destination_address,
                closed.translated_destination_port
            ),
            (Some(end("10.0.0.9:0").ip()), Some(8_080))
        );
    }

    #[test]
    fn every_counter_has_kind_and_unit() {
        let kind = |name: &str| counter(name.to_owned(), 1).kind;
        assert_eq!(kind("established"), CounterKind::Passed);
        assert_eq!(kind("default_deny"), CounterKind::Dropped);
        for (_, name) in Reason::EXTRA {
            let counter = counter((*name).to_owned(), 1);
            assert_eq!(counter.kind, CounterKind::Other, "{name}");
            assert_ne!(counter.unit, "times", "{name} needs a unit");
        }
        assert_eq!(counter("observer_events_lost".into(), 1).unit, "events");
    }
}
