//! What the base lists mean for the groups of one ruleset.

use std::collections::HashMap;

use super::nesting::{Cycle, Nesting, Walk};
use crate::ruleset::Group;

/// What a list is to a group, by the group's index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its members.
    Members(u32),
    /// What it excepts.
    Except(u32),
    /// All of it: what a static translation matches, numbered behind the groups.
    Fixed(u32),
}

/// What every list is to which group, and how groups nest.
#[derive(Clone, Debug, Default)]
pub struct Meaning {
    nesting: Nesting,
    roles: HashMap<u32, Vec<Role>>,
}

impl Meaning {
    /// That of a ruleset's groups, whose lists are still to be named.
    ///
    /// # Errors
    /// If a group is part of itself.
    pub fn of(groups: &[Group]) -> Result<Self, Cycle> {
        Ok(Self {
            nesting: Nesting::of(groups)?,
            roles: HashMap::new(),
        })
    }

    /// Says what a list is.
    pub(super) fn name(&mut self, list: u32, role: Role) {
        self.roles.entry(list).or_default().push(role);
    }

    /// The groups, and what of static translations, that have the addresses on exactly these lists; sorted.
    pub fn groups_of(&self, lists: &[u32], walk: &mut Walk) -> Vec<u32> {
        let roles = || lists.iter().filter_map(|list| self.roles.get(list)).flatten();
        let listed = roles().filter_map(|role| match role {
            Role::Members(group) => Some(*group),
            Role::Except(_) | Role::Fixed(_) => None,
        });
        let excepted: Vec<u32> = roles()
            .filter_map(|role| match role {
                Role::Except(group) => Some(*group),
                Role::Members(_) | Role::Fixed(_) => None,
            })
            .collect();
        let mut groups = self.nesting.groups_with(listed, &excepted, walk);
        groups.extend(roles().filter_map(|role| match role {
            Role::Fixed(group) => Some(*group),
            Role::Members(_) | Role::Except(_) => None,
        }));
        groups.sort_unstable();
        groups.dedup();
        groups
    }
}
