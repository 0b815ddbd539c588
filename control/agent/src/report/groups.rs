//! `show groups`, `group add` and `group remove`.

use serde::{Deserialize, Serialize};

/// `show groups`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Groups {
    /// Named groups in the order of the configuration, then the literal addresses of rules.
    pub groups: Vec<Group>,
}

/// An address group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Its name; of a literal, the literal.
    pub name: String,
    /// Whether it stands for an address written in a rule.
    pub literal: bool,
    /// Its members as configured, names of groups last.
    pub members: Vec<String>,
    /// What it has not, as configured.
    pub except: Vec<String>,
    /// Prefixes of its own, configured and from its sources; those of groups in it are counted there.
    pub prefixes: usize,
    /// Where else its members come from; that of members by hand only while there are any.
    pub sources: Vec<GroupSource>,
    /// Policies that name it.
    pub policies: Vec<String>,
}

/// Where members come from while the firewall runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupSource {
    /// `feed`, `dns`, `pods`, `addressgroup` or `manual`.
    pub kind: String,
    /// Its address without the query, its names, what selects its pods, or its object.
    pub location: Option<String>,
    /// How many prefixes it has.
    pub prefixes: usize,
    /// How many of them left the list and stay for now.
    pub held: usize,
    /// How many pods will have addresses and have none yet; of pods and objects alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<usize>,
    /// Its members: the first few unless all were asked for.
    pub members: Vec<GroupMember>,
    /// Whether the data plane has all of them.
    pub in_force: bool,
    /// Since when the list is known to be this; `null` for members by hand, and before the first answer.
    pub age_seconds: Option<f64>,
    /// When it was last asked for.
    pub last_fetch: Option<String>,
    /// Why that failed; `null` if it worked.
    pub last_error: Option<String>,
    /// When it is asked for next; `null` while it is being asked.
    pub next_in_seconds: Option<f64>,
    /// Entries of the list that are none, and were left out.
    pub bad_entries: u64,
    /// The first of them.
    pub bad_examples: Vec<String>,
    /// Statements of the list that are not about addresses, or not valid now.
    pub skipped_entries: u64,
}

/// A member from a source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupMember {
    /// An address or a prefix.
    pub prefix: String,
    /// When it ends, if it does.
    pub expires_in_seconds: Option<f64>,
}

/// `group add`, `group remove`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupChanged {
    /// The group.
    pub group: String,
    /// Prefixes that were not members by hand before.
    pub added: usize,
    /// Prefixes that no longer are.
    pub removed: usize,
    /// How many there are now.
    pub members: usize,
    /// Whether they outlive the daemon.
    pub kept: bool,
    /// From the request to the change being in force.
    pub milliseconds: f64,
}
