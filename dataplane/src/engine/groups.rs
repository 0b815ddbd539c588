//! Dynamic groups: their members, which change without a commit.

use super::{Engine, EngineError, lock};
use crate::ruleset::Prefix;

/// What a change of a dynamic group came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Members that were not there before.
    pub added: usize,
    /// Members that are not there any more.
    pub removed: usize,
}

/// The prefixes without bits beyond their lengths, each once, sorted.
pub(super) fn distinct(prefixes: &[Prefix]) -> Vec<Prefix> {
    let mut distinct: Vec<Prefix> = prefixes.iter().map(Prefix::canonical).collect();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

impl Engine {
    /// Replaces the members of a dynamic group; in force when it returns.
    ///
    /// # Errors
    /// If there is no such group, or it does not fit; then nothing has changed.
    pub fn set_members(&self, group: &str, members: Vec<Prefix>) -> Result<Change, EngineError> {
        self.change(group, |_| distinct(&members))
    }

    /// Takes `remove` out of a dynamic group and adds `add`; in force when it returns.
    ///
    /// # Errors
    /// As [`Engine::set_members`].
    pub fn update_members(
        &self,
        group: &str,
        add: &[Prefix],
        remove: &[Prefix],
    ) -> Result<Change, EngineError> {
        let remove = distinct(remove);
        self.change(group, |members| {
            let mut members = members.to_vec();
            members.retain(|member| remove.binary_search(member).is_err());
            members.extend(add);
            distinct(&members)
        })
    }

    fn change(
        &self,
        group: &str,
        next: impl FnOnce(&[Prefix]) -> Vec<Prefix>,
    ) -> Result<Change, EngineError> {
        let (ruleset, mut dynamic) = {
            let live = lock(&self.shared.live);
            ((*live.ruleset).clone(), live.dynamic.clone())
        };
        let Some(members) = dynamic.get_mut(group) else {
            return Err(EngineError::NoSuchGroup(group.to_owned()));
        };
        let next = next(members);
        let missing = |from: &[Prefix], others: &[Prefix]| {
            let missing = from.iter().filter(|member| others.binary_search(member).is_err());
            missing.count()
        };
        let change = Change {
            added: missing(&next, members),
            removed: missing(members, &next),
        };
        *members = next;
        self.shared.commit_with(ruleset, dynamic)?;
        Ok(change)
    }

    /// How many members a dynamic group has; `None`: there is no such group.
    #[must_use]
    pub fn member_count(&self, group: &str) -> Option<usize> {
        lock(&self.shared.live).dynamic.get(group).map(Vec::len)
    }

    /// The first `limit` members of a dynamic group, in order; `None`: there is no such group.
    #[must_use]
    pub fn members(&self, group: &str, limit: usize) -> Option<Vec<Prefix>> {
        let live = lock(&self.shared.live);
        let members = live.dynamic.get(group)?;
        Some(members.iter().take(limit).copied().collect())
    }
}
