//! Conditions as the API's conventions have them: a type, whether it holds, why, and since when.
//!
//! The time changes when the status does and at no other time, so that an unchanged firewall writes nothing.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The longest message, in bytes: an object stays small whatever a document says.
const LONGEST: usize = 1_000;

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Ready`, `Applied` or `Degraded`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, in one word for programs.
    pub reason: String,
    /// Why, for people; left out where there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Since when the status is this.
    pub last_transition_time: String,
}

impl Condition {
    /// A condition that begins now, unless it is the status of one of `before`.
    pub fn new(
        kind: &str,
        holds: bool,
        reason: &str,
        message: &str,
        before: &[Self],
        now: Timestamp,
    ) -> Self {
        let status = if holds { "True" } else { "False" };
        let since = before
            .iter()
            .find(|before| before.kind == kind && before.status == status);
        Self {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: shortened(message),
            last_transition_time: since.map_or_else(|| time(now), |since| since.last_transition_time.clone()),
        }
    }

    /// Whether it holds.
    pub fn holds(&self) -> bool {
        self.status == "True"
    }
}

/// Whole seconds, as the API writes them.
pub fn time(now: Timestamp) -> String {
    // A time before the year 1 or after 9999 is no clock's.
    Timestamp::from_second(now.as_second()).map_or_else(|_| now.to_string(), |whole| whole.to_string())
}

/// The beginning of a message that is too long.
pub fn shortened(message: &str) -> String {
    if message.len() <= LONGEST {
        return message.to_owned();
    }
    let mut end = LONGEST - '…'.len_utf8();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn the_time_changes_with_the_status_alone() {
        let first = Condition::new("Ready", true, "Enforcing", "", &[], at(0));
        assert_eq!(first.last_transition_time, "1970-01-01T00:00:00Z");
        let same = Condition::new(
            "Ready",
            true,
            "Other",
            "text",
            std::slice::from_ref(&first),
            at(60),
        );
        assert_eq!(same.last_transition_time, first.last_transition_time);
        let other = Condition::new(
            "Ready",
            false,
            "Other",
            "text",
            std::slice::from_ref(&first),
            at(60),
        );
        assert_eq!(other.last_transition_time, "1970-01-01T00:01:00Z");
        let stranger = Condition::new("Applied", true, "Other", "", &[first], at(60));
        assert_eq!(stranger.last_transition_time, "1970-01-01T00:01:00Z");
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let long = "ä".repeat(LONGEST);
        let cut = shortened(&long);
        assert!(cut.len() <= LONGEST && cut.ends_with('…'), "{}", cut.len());
        assert_eq!(shortened("short"), "short");
    }
}
