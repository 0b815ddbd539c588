//! What an instance says about itself on the object that configures it, and what all of them together come to.
//!
//! Every instance owns one entry, by its own field manager, and touches no other's. The summary is a pure function of the
//! entries, written by one manager that all share: whoever sees a change writes the same. So replicas need no leader and
//! do not fight, and an instance that has nothing new to say writes nothing. An entry is renewed now and then; one that has
//! not been for a while is a dead instance's and does not count.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::agent::{InForce, Refusal};
use crate::condition::{Condition, time};

/// How often an unchanged entry is written again.
pub const RENEWED: SignedDuration = SignedDuration::from_mins(5);
/// When an entry is a dead instance's.
pub const EXPIRED: SignedDuration = SignedDuration::from_mins(15);

/// One instance's entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Its name: the pod's.
    pub name: String,
    /// `metadata.generation` of the object that it has judged; a ConfigMap has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// SHA-256 of the document in force.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// The revision in force.
    #[serde(default)]
    pub revision: u64,
    /// The generation of the data plane.
    #[serde(default)]
    pub generation: u32,
    /// `Ready`, `Applied`, `Degraded`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
    /// When this was last written.
    #[serde(default)]
    pub renewed: String,
}

/// What an instance knows of itself.
#[derive(Clone, Copy, Debug)]
pub struct Known<'k> {
    /// Its name.
    pub name: &'k str,
    /// What is in force.
    pub in_force: Option<&'k InForce>,
    /// SHA-256 of the object's document, if it has one.
    pub wanted: Option<&'k str>,
    /// Why that is not in force, if it was refused.
    pub refusal: Option<&'k Refusal>,
    /// `metadata.generation` of the object.
    pub observed_generation: Option<i64>,
}

impl Instance {
    /// The entry of an instance, after the one that it wrote before.
    pub fn new(known: &Known<'_>, before: Option<&Self>, now: Timestamp) -> Self {
        let nothing = InForce::default();
        let in_force = known.in_force.unwrap_or(&nothing);
        let conditions = before.map_or(&[][..], |before| &before.conditions);
        let condition = |kind, holds, reason: &str, message: &str| {
            Condition::new(kind, holds, reason, message, conditions, now)
        };
        let enforced = format!(
            "revision {} is generation {}",
            in_force.revision, in_force.generation
        );
        let applied = match (known.refusal, known.wanted) {
            // Whatever was refused before: somebody has put it in force.
            (_, Some(wanted)) if wanted == in_force.hash => {
                condition("Applied", true, "Committed", &enforced)
            }
            (Some(refusal), _) => condition("Applied", false, refusal.reason.name(), &refusal.message),
            (None, Some(_)) if known.in_force.is_none() => {
                condition("Applied", false, "Starting", "nothing is in force yet")
            }
            (None, Some(_)) => {
                let other = format!(
                    "revision {} by {} is in force instead",
                    in_force.revision, in_force.by
                );
                condition("Applied", false, "Superseded", &other)
            }
            (None, None) => condition("Applied", false, "NoDocument", "the object has no document"),
        };
        let problems = in_force.problems.join("; ");
        let ready = match (known.in_force, problems.is_empty()) {
            (None, _) => condition("Ready", false, "Starting", "nothing is in force yet"),
            (Some(_), true) => condition("Ready", true, "Enforcing", &enforced),
            (Some(_), false) => condition("Ready", false, "Impaired", &problems),
        };
        let degraded = match (applied.holds(), ready.holds()) {
            (true, true) => condition("Degraded", false, "AsConfigured", ""),
            (false, _) => condition("Degraded", true, &applied.reason, &applied.message),
            (true, false) => condition("Degraded", true, &ready.reason, &ready.message),
        };
        let mut entry = Self {
            name: known.name.to_owned(),
            observed_generation: known.observed_generation,
            hash: in_force.hash.clone(),
            revision: in_force.revision,
            generation: in_force.generation,
            conditions: vec![ready, applied, degraded],
            renewed: String::new(),
        };
        // The time of the last writing alone is no news, until it is old.
        entry.renewed = match before.filter(|before| before.age(now) < RENEWED) {
            Some(before) if entry.says_as(before) => before.renewed.clone(),
            _ => time(now),
        };
        entry
    }

    /// Whether it says the same, whenever.
    fn says_as(&self, other: &Self) -> bool {
        Self {
            renewed: other.renewed.clone(),
            ..self.clone()
        } == *other
    }

    /// Since when it has not been renewed; one whose time is not one is as old as can be.
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

    fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind == kind)
    }
}

/// `status` of a `Firewall`, without the entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The `metadata.generation` that every living instance has judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// SHA-256 of the document in force; empty if the instances differ.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
    /// How many instances have what the object says in force, of how many: `2/2`.
    #[serde(default)]
    pub applied: String,
    /// Whether all instances are; whether any is degraded.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

impl Summary {
    /// What the entries come to, after the summary before.
    pub fn of(instances: &[Instance], before: &Self, now: Timestamp) -> Self {
        let alive: Vec<&Instance> = instances
            .iter()
            .filter(|instance| !instance.is_expired(now))
            .collect();
        let holds = |instance: &Instance, kind: &str| instance.condition(kind).is_some_and(Condition::holds);
        let condition = |kind, wanted: bool| {
            // Whoever differs from what is wanted gives the reason; else the first, all being alike.
            let other = alive.iter().find(|instance| holds(instance, kind) != wanted);
            let status = if other.is_some() || alive.is_empty() {
                !wanted
            } else {
                wanted
            };
            let (reason, message) = match (other.or(alive.first()), other) {
                (None, _) => ("NoInstance", "no firewall has reported".to_owned()),
                (Some(instance), other) => {
                    let told = instance.condition(kind);
                    let reason = told.map_or("Unknown", |told| &told.reason);
                    let message = told.map_or("", |told| &told.message);
                    match other {
                        Some(_) => (reason, format!("{}: {message}", instance.name)),
                        // A revision's number is each instance's own.
                        None => (reason, String::new()),
                    }
                }
            };
            Condition::new(kind, status, reason, &message, &before.conditions, now)
        };
        let applied = alive.iter().filter(|instance| holds(instance, "Applied")).count();
        let first = alive.first().map_or("", |first| &first.hash);
        let alike = alive.iter().all(|instance| instance.hash == first);
        Self {
            observed_generation: alive
                .iter()
                .filter_map(|instance| instance.observed_generation)
                .min(),
            hash: if alike { first.to_owned() } else { String::new() },
            applied: format!("{applied}/{}", alive.len()),
            conditions: vec![
                condition("Ready", true),
                condition("Applied", true),
                condition("Degraded", false),
            ],
        }
    }
}

#[cfg(test)]
mod tests;
