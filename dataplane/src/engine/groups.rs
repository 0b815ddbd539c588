//! Dynamic groups: their members, which change without a commit.
//!
//! A change writes the vectors of classes that come up, then the address entries that move, in an order in which every
//! address goes from its old class straight to its new one, then raises the judgement number: from the next packet on every
//! session is asked about again. Nothing else is touched, however many rules and members there are.

use std::net::IpAddr;

use super::{Engine, EngineError, Live, Shared, lock};
use crate::{
    bpf::KernelMaps,
    membership::{
        book::{Book, Done, Moves},
        nesting::Walk,
        side::{Bits, Moved},
        writes,
    },
    ruleset::Prefix,
    stage,
    table::TableError,
};

/// What a change of a dynamic group came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Members that were not there before.
    pub added: usize,
    /// Members that are not there any more.
    pub removed: usize,
}

/// Writes address entries to both halves, in order.
pub(super) fn follow(maps: &KernelMaps, moves: &Moves) -> Result<(), TableError> {
    stage::follow4(maps, &writes::change(&moves.v4))?;
    stage::follow6(maps, &writes::change(&moves.v6))
}

impl Engine {
    /// Replaces the members of a dynamic group; in force when it returns.
    ///
    /// # Errors
    /// If there is no such group, or its members do not fit; then nothing has changed.
    pub fn set_members(&self, group: &str, members: Vec<Prefix>) -> Result<Change, EngineError> {
        self.shared
            .change_members(group, |book| book.replace(group, &members))
    }

    /// Takes `remove` out of a dynamic group and adds `add`, which wins where both name a prefix; in force when it returns.
    ///
    /// # Errors
    /// As [`Engine::set_members`].
    pub fn update_members(
        &self,
        group: &str,
        add: &[Prefix],
        remove: &[Prefix],
    ) -> Result<Change, EngineError> {
        self.shared
            .change_members(group, |book| book.update(group, add, remove))
    }

    /// How many members a dynamic group has; `None`: there is no such group.
    #[must_use]
    pub fn member_count(&self, group: &str) -> Option<usize> {
        lock(&self.shared.live).book.count(group)
    }

    /// The first `limit` members of a dynamic group, in order; `None`: there is no such group.
    #[must_use]
    pub fn members(&self, group: &str, limit: usize) -> Option<Vec<Prefix>> {
        lock(&self.shared.live).book.members(group, limit)
    }
}

impl Shared {
    /// Makes a change in the book and has the tables follow. On an error all is as before.
    fn change_members(
        &self,
        group: &str,
        change: impl FnOnce(&mut Book) -> Option<Done>,
    ) -> Result<Change, EngineError> {
        let mut live = lock(&self.live);
        self.clear_up(&mut live)?;
        let Some(done) = change(&mut live.book) else {
            return Err(EngineError::NoSuchGroup(group.to_owned()));
        };
        let outcome = Change {
            added: done.added,
            removed: done.removed,
        };
        if done.moves.is_empty() {
            return Ok(outcome);
        }
        if let Err(error) = self.fits(&live.book, &done.moves) {
            // Nothing is written yet.
            live.book.undo(done, Some(group));
            return Err(error);
        }
        if let Err(error) = self.carry_out(&mut live, &done.moves) {
            // The first error is the one that matters. Some packets may have met the change: they are asked again.
            let turned = done.moves.turned();
            if follow(&self.maps, &turned).is_err() {
                self.take_back(&mut live, turned);
            }
            live.book.undo(done, Some(group));
            let _raised = self.judge_again(&live);
            return Err(error);
        }
        Ok(outcome)
    }

    fn carry_out(&self, live: &mut Live, moves: &Moves) -> Result<(), EngineError> {
        // Numbers of classes mean the same as long as the generation lives, so vectors that a failed change has written are
        // as good as any.
        let mut walk = Walk::default();
        for class in Book::new_classes(moves, &live.classes) {
            let groups = live.meaning.groups_of(live.book.lists_of(class), &mut walk);
            let vectors = live
                .compiled
                .naming
                .of_class(live.compiled.generation, class, &groups);
            // So that they go with their generation, written or not.
            if live.noted.insert(class) {
                live.compiled.vectors.extend_from_slice(&vectors);
            }
            stage::vectors(&self.maps, &vectors)?;
            live.classes.insert(class);
        }
        follow(&self.maps, moves)?;
        self.judge_again(live)
    }

    /// Raises the judgement number: every session is asked about again at its next packet.
    fn judge_again(&self, live: &Live) -> Result<(), EngineError> {
        self.judge(live.compiled.generation)
    }

    /// Brings the address tables to where `turned` leads, the way back of what was not carried out. What fails is noted: no
    /// change is made before it succeeds.
    pub(super) fn take_back(&self, live: &mut Live, turned: Moves) {
        // Nothing else is noted, since what was has been cleared up before the change.
        live.unsettled = Some(turned);
        if let Err(error) = self.settle(live) {
            tracing::error!(%error, "address tables are not what they were before a failed change; the next change tries again");
        }
    }

    /// Brings both halves of the entries that a commit or a failed change has left apart to what the book says.
    pub(super) fn settle(&self, live: &mut Live) -> Result<(), EngineError> {
        let Some(moves) = &live.unsettled else {
            return Ok(());
        };
        // One family is no reason to leave the other.
        let v4 = stage::follow4(&self.maps, &writes::settle(&moves.v4));
        let v6 = stage::follow6(&self.maps, &writes::settle(&moves.v6));
        // A packet that met an entry of a host while it was freed may have read another's: it is asked about again, also where
        // only some of the entries could be written.
        let asked = if moves.has_hosts() && live.compiled.generation != 0 {
            self.judge_again(live)
        } else {
            Ok(())
        };
        v4.and(v6)?;
        asked?;
        live.unsettled = None;
        Ok(())
    }

    /// Whether the address tables have room for what the book holds and, beside it, for what `moves` has led away from:
    /// entries come before others go.
    pub(super) fn fits(&self, book: &Book, moves: &Moves) -> Result<(), EngineError> {
        let (v4, v6) = book.sides();
        let (hosts4, prefixes4) = going(&moves.v4);
        let (hosts6, prefixes6) = going(&moves.v6);
        let most = self.sizes.addresses as usize;
        for (what, meanwhile, count, going) in [
            (
                "IPv4 hosts",
                "IPv4 hosts, before and after together,",
                v4.hosts(),
                hosts4,
            ),
            (
                "IPv4 prefixes",
                "IPv4 prefixes, before and after together,",
                v4.prefixes(),
                prefixes4,
            ),
            (
                "IPv6 hosts",
                "IPv6 hosts, before and after together,",
                v6.hosts(),
                hosts6,
            ),
            (
                "IPv6 prefixes",
                "IPv6 prefixes, before and after together,",
                v6.prefixes(),
                prefixes6,
            ),
        ] {
            if count > most {
                return Err(EngineError::TooMany { what, count, most });
            }
            if count + going > most {
                return Err(EngineError::TooMany {
                    what: meanwhile,
                    count: count + going,
                    most,
                });
            }
        }
        Ok(())
    }
}

/// How many entries of hosts and of real prefixes go.
fn going<A: Bits>(moved: &[Moved<A>]) -> (usize, usize) {
    let gone = || moved.iter().filter(|moved| moved.was && !moved.is);
    let hosts = gone().filter(|moved| moved.key.1 == A::WIDTH).count();
    (hosts, gone().count() - hosts)
}

impl Live {
    /// Names of the groups that have an address.
    pub(super) fn groups_with(&self, address: &IpAddr) -> Vec<String> {
        let lists = self.book.lists_of(self.book.class(address));
        let groups = self.meaning.groups_of(lists, &mut Walk::default());
        let named = groups
            .iter()
            .filter_map(|index| self.ruleset.groups.get(*index as usize));
        named.map(|group| group.name.clone()).collect()
    }
}
