//! What all policies come to: groups, services and two lists of policies, in the words of the document's model.
//!
//! Groups and policies are the configuration's own types, their ids indices into this very isolation. A service is not, since a
//! denial must name what the document's services cannot: ports of SCTP, and port 0, through which a complement
//! would leak otherwise. The data plane matches both. The names of groups and policies have a slash in
//! them, which no name in a document has.

use bulkhead_config::{Group, Policy};

/// What MultiNetworkPolicies come to. Nothing at all where there are none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Isolation {
    /// The groups, by their ids. The first [`Isolation::pod_groups`] of them are disjoint sets of pods, which have members and
    /// nothing else; the others do not change when those members do.
    pub groups: Vec<Group>,
    /// How many groups have pods as their members. Their names stay while the policies do.
    pub pod_groups: usize,
    /// The services, by their ids.
    pub services: Vec<Service>,
    /// What isolated pods do not take: before anything that permits.
    pub denials: Vec<Policy>,
    /// What is permitted of what is left: after everything that denies.
    pub permits: Vec<Policy>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// For people.
    pub name: String,
    /// Any of these; never empty.
    pub matches: Vec<Match>,
}

/// One alternative of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// Destination ports of TCP, UDP or SCTP.
    Ports {
        /// The protocol.
        protocol: u8,
        /// The lowest port, perhaps 0.
        first: u16,
        /// The highest port.
        last: u16,
    },
    /// A whole protocol.
    Protocol(u8),
}

impl Isolation {
    /// Whether the other one differs in the members of pod groups at most: then these are set, and nothing is compiled.
    #[must_use]
    pub fn differs_in_members_only(&self, other: &Self) -> bool {
        let names = |one: &Self| -> Vec<String> {
            let pods = one.groups[..one.pod_groups].iter();
            pods.map(|group| group.name.clone()).collect()
        };
        names(self) == names(other)
            && self.groups[self.pod_groups..] == other.groups[other.pod_groups..]
            && self.services == other.services
            && self.denials == other.denials
            && self.permits == other.permits
    }
}
