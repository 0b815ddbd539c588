//! Which sessions, which flows: what a person narrows a listing down by, as it travels and as it is applied.
//!
//! Every field is a condition that must hold; an absent one holds for all. Applied by the daemon, so that a million
//! sessions do not travel to find one.

use std::net::IpAddr;
use std::str::FromStr;

use bulkhead_config::IpPrefix;
use bulkhead_dataplane::engine::Session;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::report::{Flow, FlowKind, Verdict};
use crate::words;

/// A prefix that travels as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix(pub IpPrefix);

impl FromStr for Prefix {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        words::parse_prefix(text).map(Self)
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl Prefix {
    fn holds(prefix: Option<Self>, address: IpAddr) -> bool {
        prefix.is_none_or(|prefix| prefix.0.contains(address))
    }
}

fn is<T: PartialEq>(wanted: Option<&T>, found: &T) -> bool {
    wanted.is_none_or(|wanted| wanted == found)
}

fn is_one_of<T: PartialEq>(wanted: Option<&T>, found: &[&T]) -> bool {
    wanted.is_none_or(|wanted| found.contains(&wanted))
}

/// Which sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionFilter {
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Where the conversation started.
    pub source: Option<Prefix>,
    /// Whom it was for.
    pub destination: Option<Prefix>,
    /// Either port of either direction.
    pub port: Option<u16>,
    /// Either interface.
    pub interface: Option<String>,
    /// Either zone.
    pub zone: Option<String>,
    /// The policy that permits it.
    pub policy: Option<String>,
}

impl SessionFilter {
    /// Whether it narrows nothing down.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a session meets every condition.
    pub fn matches(&self, session: &Session) -> bool {
        let (first, reply) = (&session.original, &session.reply);
        let ends = [first.source, first.destination, reply.source, reply.destination];
        is(self.protocol.as_ref(), &session.protocol)
            && Prefix::holds(self.source, first.source.ip())
            && Prefix::holds(self.destination, first.destination.ip())
            && self
                .port
                .is_none_or(|port| ends.iter().any(|end| end.port() == port))
            && is_one_of(self.interface.as_ref(), &[&first.interface, &reply.interface])
            && is_one_of(self.zone.as_ref(), &[&session.from_zone, &session.to_zone])
            && (self.policy.is_none() || self.policy == session.policy)
    }
}

/// Which flows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlowFilter {
    /// What became of it.
    pub verdict: Option<Verdict>,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: Option<FlowKind>,
    /// Who started it.
    pub from_ip: Option<Prefix>,
    /// Whom it is for.
    pub to_ip: Option<Prefix>,
    /// Either side.
    pub ip: Option<Prefix>,
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Either port.
    pub port: Option<u16>,
}

impl FlowFilter {
    /// Whether a flow meets every condition.
    pub fn matches(&self, flow: &Flow) -> bool {
        let (source, destination) = (flow.source_address, flow.destination_address);
        let ports = words::has_ports(flow.protocol_number);
        is(self.verdict.as_ref(), &flow.verdict)
            && is(self.kind.as_ref(), &flow.kind)
            && Prefix::holds(self.from_ip, source)
            && Prefix::holds(self.to_ip, destination)
            && (Prefix::holds(self.ip, source) || Prefix::holds(self.ip, destination))
            && is(self.protocol.as_ref(), &flow.protocol_number)
            && (self.port.is_none()
                || ports && is_one_of(self.port.as_ref(), &[&flow.source_port, &flow.destination_port]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn sessions(change: impl FnOnce(&mut SessionFilter)) -> Vec<u64> {
        let mut filter = SessionFilter::default();
        change(&mut filter);
        fixture::sessions()
            .into_iter()
            .filter(|session| filter.matches(session))
            .map(|session| session.id)
            .collect()
    }

    fn prefix(text: &str) -> Option<Prefix> {
        Some(text.parse().expect("a prefix"))
    }

    #[test]
    fn every_condition_narrows_sessions_down() {
        assert_eq!(sessions(|_| ()), [4711, 4712, 4713]);
        assert_eq!(sessions(|f| f.protocol = Some(6)), [4711]);
        assert_eq!(sessions(|f| f.source = prefix("10.10.2.0/24")), [4711, 4713]);
        assert_eq!(sessions(|f| f.destination = prefix("2001:db8:10:4::/64")), [4712]);
        assert_eq!(
            sessions(|f| f.destination = prefix("10.10.2.0/24")),
            [] as [u64; 0]
        );
        assert_eq!(sessions(|f| f.port = Some(53)), [4712]);
        assert_eq!(
            sessions(|f| f.port = Some(60_001)),
            [4711],
            "the translated port counts"
        );
        assert_eq!(sessions(|f| f.interface = Some("net4".into())), [4712]);
        assert_eq!(sessions(|f| f.zone = Some("internet".into())), [4711, 4713]);
        assert_eq!(sessions(|f| f.policy = Some("out".into())), [4711, 4713]);
        let both = sessions(|f| {
            f.policy = Some("out".into());
            f.protocol = Some(1);
        });
        assert_eq!(both, [4713]);
    }

    #[test]
    fn every_condition_narrows_flows_down() {
        let flows = fixture::flows();
        let matching = |change: &dyn Fn(&mut FlowFilter)| {
            let mut filter = FlowFilter::default();
            change(&mut filter);
            flows
                .iter()
                .filter(|flow| filter.matches(flow))
                .map(|flow| flow.kind)
                .collect::<Vec<_>>()
        };
        use FlowKind::{Close, Create, Deny};
        assert_eq!(matching(&|_| ()), [Create, Deny, Close]);
        assert_eq!(matching(&|f| f.verdict = Some(Verdict::Dropped)), [Deny]);
        assert_eq!(
            matching(&|f| f.verdict = Some(Verdict::Forwarded)),
            [Create, Close]
        );
        assert_eq!(matching(&|f| f.kind = Some(Close)), [Close]);
        assert_eq!(matching(&|f| f.from_ip = prefix("10.10.3.0/24")), [Deny]);
        assert_eq!(matching(&|f| f.to_ip = prefix("203.0.113.80")), [Create, Close]);
        assert_eq!(matching(&|f| f.ip = prefix("10.10.1.10")), [Deny]);
        assert_eq!(matching(&|f| f.protocol = Some(1)), [Deny]);
        assert_eq!(matching(&|f| f.port = Some(443)), [Create, Close]);
        assert_eq!(
            matching(&|f| f.port = Some(77)),
            [] as [FlowKind; 0],
            "an ICMP identifier is no port"
        );
    }

    #[test]
    fn an_empty_filter_knows_that_it_is() {
        assert!(SessionFilter::default().is_empty());
        let named = SessionFilter {
            zone: Some(String::new()),
            ..SessionFilter::default()
        };
        assert!(!named.is_empty());
    }
}
