//! What is wrong with a conversation: what came of it, the source the server saw and the firewall's own account, each
//! against the expected matrix. Pure.

use std::net::IpAddr;

use serde::Serialize;

use super::conversations::{CameTo, Held};
use super::matrix::{Conversation, Fate};
use crate::report::Explanation;

/// What the firewall says about a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Said {
    pub(super) verdict: String,
    pub(super) reason: String,
    pub(super) policy: Option<String>,
    pub(super) nat_rule: Option<String>,
    pub(super) translated_source: Option<IpAddr>,
}

impl From<Explanation> for Said {
    fn from(explanation: Explanation) -> Self {
        Self {
            verdict: explanation.verdict,
            reason: explanation.reason,
            policy: explanation.policy,
            nat_rule: explanation.nat_rule,
            translated_source: explanation.translated_source,
        }
    }
}

/// A cell of the matrix.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cell {
    #[serde(flatten)]
    pub(super) conversation: Conversation,
    pub(super) expected: Fate,
    #[serde(flatten)]
    pub(super) held: Held,
    pub(super) firewall: Said,
    /// What is wrong; empty if nothing is.
    pub(super) faults: Vec<String>,
}

impl Cell {
    /// Judges a conversation.
    pub(super) fn new(conversation: Conversation, held: Held, firewall: Said) -> Self {
        Self {
            faults: faults(&conversation, &held.came_to, &firewall),
            expected: conversation.expected(),
            conversation,
            held,
            firewall,
        }
    }
}

fn faults(conversation: &Conversation, came_to: &CameTo, said: &Said) -> Vec<String> {
    let mut faults = Vec::new();
    let expected = conversation.expected();
    if !came_to.is(expected) {
        faults.push(format!("came to {} instead of {expected}", came_to.describe()));
    }
    if let CameTo::Reached {
        seen_as: Some(seen_as),
        ..
    } = came_to
        && seen_as.ip() != conversation.expected_source()
    {
        faults.push(format!(
            "the server saw the source {} instead of {}",
            seen_as.ip(),
            conversation.expected_source()
        ));
    }
    let verdict = match expected {
        Fate::Reached => "permit",
        Fate::Silence => "deny",
        Fate::Refused => "reject",
    };
    if said.verdict != verdict {
        faults.push(format!("the firewall says {} instead of {verdict}", said.verdict));
    }
    if expected == Fate::Reached {
        let translated = conversation
            .is_translated()
            .then(|| conversation.expected_source());
        if said.translated_source != translated {
            let word =
                |address: Option<IpAddr>| address.map_or("no translation".to_owned(), |a| a.to_string());
            faults.push(format!(
                "the firewall says the source becomes {} instead of {}",
                word(said.translated_source),
                word(translated)
            ));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::super::matrix::Protocol;
    use super::super::segments::{Family, Segment};
    use super::*;

    const OUT: Conversation = Conversation {
        from: Segment::Financial,
        to: Segment::Internet,
        family: Family::V4,
        protocol: Protocol::Http,
    };

    fn said(verdict: &str, translated_source: Option<&str>) -> Said {
        Said {
            verdict: verdict.to_owned(),
            reason: "session_created".to_owned(),
            policy: Some("out".to_owned()),
            nat_rule: None,
            translated_source: translated_source.map(|text| text.parse().expect("an address")),
        }
    }

    fn reached(seen_as: &str) -> CameTo {
        CameTo::Reached {
            seen_as: Some(seen_as.parse().expect("an address")),
            own: Some("10.10.1.20:40000".parse().expect("an address")),
        }
    }

    #[test]
    fn each_witness_is_heard() {
        let permit = said("permit", Some("203.0.113.1"));
        let good = reached("203.0.113.1:40000");
        assert_eq!(faults(&OUT, &good, &permit), [] as [String; 0]);
        assert_eq!(
            faults(&OUT, &CameTo::Silence, &permit),
            ["came to silence instead of an answer"]
        );
        assert_eq!(
            faults(&OUT, &reached("10.10.1.20:40000"), &permit),
            ["the server saw the source 10.10.1.20 instead of 203.0.113.1"]
        );
        assert_eq!(
            faults(&OUT, &good, &said("deny", Some("203.0.113.1"))),
            ["the firewall says deny instead of permit"]
        );
        assert_eq!(
            faults(&OUT, &good, &said("permit", None)),
            ["the firewall says the source becomes no translation instead of 203.0.113.1"]
        );
    }

    #[test]
    fn a_denial_that_got_through_and_a_refusal_that_stayed_silent_are_wrong() {
        let inward = Conversation {
            from: Segment::Internet,
            to: Segment::Financial,
            ..OUT
        };
        let came_to = reached("203.0.113.80:40000");
        assert_eq!(
            faults(&inward, &came_to, &said("deny", None)),
            ["came to an answer instead of silence"]
        );
        let web = Conversation {
            from: Segment::Web,
            ..OUT
        };
        assert_eq!(
            faults(&web, &CameTo::Silence, &said("reject", None)),
            ["came to silence instead of a refusal"]
        );
    }
}
