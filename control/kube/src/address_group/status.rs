//! What instances say of an `AddressGroup`, and what all of them come to.
//!
//! As on a `Firewall` ([`crate::status`]): an entry of each instance, a summary that is a pure function of the entries, and
//! nothing written that is no news.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::DynamicObject;
use serde::{Deserialize, Serialize};

use super::ObjectMembers;
use crate::condition::{Condition, time};
use crate::status::{EXPIRED, RENEWED};

/// One instance's entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its name: the pod's.
    pub name: String,
    /// `metadata.generation` of the object that it has judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many prefixes are in force.
    #[serde(default)]
    pub members: u64,
    /// How many pods these are of.
    #[serde(default)]
    pub pods: u64,
    /// How many pods have no address yet.
    #[serde(default)]
    pub pending: u64,
    /// `Ready`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// When this was last written.
    #[serde(default)]
    pub renewed: String,
}

/// What an instance knows.
#[derive(Clone, Copy, Debug)]
pub struct Known<'k> {
    /// Its name.
    pub name: &'k str,
    /// `metadata.generation` of the object.
    pub observed_generation: Option<i64>,
    /// What is wrong with the object.
    pub wrong: Option<&'k str>,
    /// Whether the firewall could take what it was told last; `None`: it was told nothing since something is not known.
    pub told: Option<&'k Result<(), String>>,
    /// What it has in force from this object; `None`: what it had at its start.
    pub in_force: Option<&'k ObjectMembers>,
}

impl Entry {
    /// The entry of an instance, after the one that it wrote before. The numbers are those in force.
    pub fn new(known: &Known<'_>, before: Option<&Self>, now: Timestamp) -> Self {
        let conditions = before.map_or(&[][..], |before| &before.conditions);
        let ready = |holds, reason: &str, message: &str| {
            Condition::new("Ready", holds, reason, message, conditions, now)
        };
        let condition = match (known.wrong, known.told) {
            (Some(wrong), _) => ready(false, "Invalid", wrong),
            (None, None) => ready(false, "Unknown", "its pods are not known"),
            (None, Some(Err(error))) => ready(false, "NotInForce", error),
            (None, Some(Ok(()))) => ready(true, "InForce", ""),
        };
        let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let mut entry = match known.in_force {
            Some(members) => Self {
                members: number(members.prefixes.len()),
                pods: number(members.pods),
                pending: number(members.pending),
                ..Self::default()
            },
            None => before.cloned().unwrap_or_default(),
        };
        entry.name = known.name.to_owned();
        entry.observed_generation = known.observed_generation;
        entry.conditions = vec![condition];
        entry.renewed = match before.filter(|before| before.age(now) < RENEWED) {
            Some(before) if entry.says_as(before) => before.renewed.clone(),
            _ => time(now),
        };
        entry
    }

    fn says_as(&self, other: &Self) -> bool {
        Self {
            renewed: other.renewed.clone(),
            ..self.clone()
        } == *other
    }

    fn age(&self, now: Timestamp) -> SignedDuration {
        match self.renewed.parse::<Timestamp>() {
            Ok(renewed) => now.duration_since(renewed),
            Err(_) => SignedDuration::MAX,
        }
    }

    /// Whether it is a dead instance's.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.age(now) > EXPIRED
    }

    fn is_ready(&self) -> bool {
        self.conditions.iter().any(Condition::holds)
    }
}

/// `status` of an `AddressGroup`, without the entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The `metadata.generation` that every living instance has judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many prefixes are in force, with the instance that has the fewest.
    #[serde(default)]
    pub members: u64,
    /// How many instances have them in force, of how many: `2/2`.
    #[serde(default)]
    pub in_force: String,
    /// Whether all instances have.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

impl Summary {
    /// What the entries come to, after the summary before.
    pub fn of(entries: &[Entry], before: &Self, now: Timestamp) -> Self {
        let alive: Vec<&Entry> = entries.iter().filter(|entry| !entry.is_expired(now)).collect();
        let other = alive.iter().find(|entry| !entry.is_ready());
        let (holds, reason, message) = match (other, alive.first()) {
            (_, None) => (false, "NoInstance", "no firewall has reported".to_owned()),
            (None, Some(_)) => (true, "InForce", String::new()),
            (Some(other), _) => {
                let told = other.conditions.first();
                let reason = told.map_or("Unknown", |told| &told.reason);
                let message = told.map_or("", |told| &told.message);
                (false, reason, format!("{}: {message}", other.name))
            }
        };
        Self {
            observed_generation: alive.iter().filter_map(|entry| entry.observed_generation).min(),
            members: alive.iter().map(|entry| entry.members).min().unwrap_or(0),
            in_force: format!(
                "{}/{}",
                alive.iter().filter(|entry| entry.is_ready()).count(),
                alive.len()
            ),
            conditions: vec![Condition::new(
                "Ready",
                holds,
                reason,
                &message,
                &before.conditions,
                now,
            )],
        }
    }
}

/// What an object says of the instances that follow it.
#[derive(Clone, Debug, Default)]
pub struct Reported {
    /// An entry of each.
    pub entries: Vec<Entry>,
    /// All together.
    pub summary: Summary,
}

impl Reported {
    /// Reads it from an object; what cannot be read is not there.
    pub fn read(object: &DynamicObject) -> Self {
        let status = &object.data["status"];
        let entries = status["instances"].as_array().into_iter().flatten();
        Self {
            entries: entries
                .filter_map(|entry| serde_json::from_value(entry.clone()).ok())
                .collect(),
            summary: serde_json::from_value(status.clone()).unwrap_or_default(),
        }
    }

    /// The entry of an instance.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// The living ones of the others, by name.
    pub fn others(&self, name: &str, now: Timestamp) -> Vec<Entry> {
        let others = self.entries.iter();
        let mut others: Vec<Entry> = others
            .filter(|entry| entry.name != name && !entry.is_expired(now))
            .cloned()
            .collect();
        others.sort_by(|one, other| one.name.cmp(&other.name));
        others
    }

    /// All, with another entry in place of an instance's own; by name, so that everybody comes to the same summary.
    pub fn with(&self, entry: &Entry) -> Vec<Entry> {
        let others = self.entries.iter().filter(|other| other.name != entry.name);
        let mut all: Vec<Entry> = others.chain([entry]).cloned().collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn known<'k>(
        wrong: Option<&'k str>,
        told: Option<&'k Result<(), String>>,
        in_force: Option<&'k ObjectMembers>,
    ) -> Known<'k> {
        Known {
            name: "fw-0",
            observed_generation: Some(3),
            wrong,
            told,
            in_force,
        }
    }

    fn members(number: usize) -> ObjectMembers {
        let host = |last| bulkhead_config::IpPrefix::host(std::net::Ipv4Addr::new(10, 0, 0, last).into());
        ObjectMembers {
            prefixes: (1..=number as u8).map(host).collect(),
            pods: 1,
            pending: 2,
        }
    }

    #[test]
    fn numbers_are_those_in_force_and_a_refusal_says_why() {
        let four = members(4);
        let known_good = known(None, Some(&Ok(())), Some(&four));
        let good = Entry::new(&known_good, None, at(0));
        assert_eq!((good.members, good.pods, good.pending), (4, 1, 2));
        assert!(good.is_ready());
        let refused = Entry::new(
            &known(Some("spec.members[0]: no"), None, Some(&four)),
            Some(&good),
            at(9),
        );
        assert_eq!((refused.members, refused.is_ready()), (4, false));
        let condition = &refused.conditions[0];
        assert_eq!(
            (condition.reason.as_str(), condition.message.as_str()),
            ("Invalid", "spec.members[0]: no")
        );
        // The time of the last writing is no news, until it is old.
        let same = Entry::new(&known_good, Some(&good), at(200));
        assert_eq!(same, good);
        let renewed = Entry::new(&known_good, Some(&good), at(400));
        assert_ne!(renewed.renewed, good.renewed);
        let failed = Err("no room".to_owned());
        let full = Entry::new(&known(None, Some(&failed), Some(&four)), Some(&good), at(9));
        assert_eq!((full.members, &*full.conditions[0].reason), (4, "NotInForce"));
    }

    #[test]
    fn a_summary_is_what_the_living_ones_come_to() {
        let four = members(4);
        let known_good = known(None, Some(&Ok(())), Some(&four));
        let one = Entry::new(&known_good, None, at(0));
        let mut other = Entry::new(&known(Some("no"), None, None), None, at(0));
        other.name = "fw-1".to_owned();
        let before = Summary::default();
        let both = Summary::of(&[one.clone(), other.clone()], &before, at(1));
        assert_eq!((both.in_force.as_str(), both.members), ("1/2", 0));
        assert_eq!(both.conditions[0].message, "fw-1: no");
        assert!(!both.conditions[0].holds());
        let alone = Summary::of(std::slice::from_ref(&one), &both, at(2));
        assert_eq!((alone.in_force.as_str(), alone.members), ("1/1", 4));
        assert!(alone.conditions[0].holds());
        let nobody = Summary::of(&[one, other], &alone, at(2_000));
        assert_eq!(
            (nobody.in_force.as_str(), &*nobody.conditions[0].reason),
            ("0/0", "NoInstance")
        );
    }
}
