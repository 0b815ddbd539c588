//! Which groups have the addresses of a class.
//!
//! Groups nest and except one another, in a graph without cycles. Put into an order in which every group stands behind
//! those it names, one walk upwards from the lists an address is in decides about each group it meets once; what nothing
//! leads to is not looked at. The cost is that of the groups that an address might be in, however many there are.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::ruleset::Group;

/// Why groups cannot be put in order.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("group {0} is, through the groups it nests or excepts, part of itself; take one of them out")]
pub struct Cycle(pub String);

/// The groups of a ruleset in an order in which they can be decided.
#[derive(Clone, Debug, Default)]
pub struct Nesting {
    /// By group: the groups that nest it.
    around: Vec<Vec<u32>>,
    /// By group: the groups it excepts.
    except: Vec<Vec<u32>>,
    /// By group: its place in the order.
    rank: Vec<u32>,
    /// By place: the group.
    order: Vec<u32>,
}

/// What one walk needs, kept from walk to walk.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    /// By group: the walk that last met it, and whether it had the address.
    met: Vec<(u32, bool)>,
    turn: u32,
    waiting: BinaryHeap<Reverse<u32>>,
}

impl Nesting {
    /// Orders `groups`.
    ///
    /// # Errors
    /// If a group is part of itself. Indices out of range are ignored.
    pub fn of(groups: &[Group]) -> Result<Self, Cycle> {
        let count = groups.len();
        let known = |named: &[usize]| -> Vec<u32> {
            let inside = named.iter().filter(|index| **index < count);
            inside.map(|index| *index as u32).collect()
        };
        let mut around = vec![Vec::new(); count];
        // Groups that wait for this one, and how many each waits for.
        let mut behind: Vec<Vec<u32>> = vec![Vec::new(); count];
        let mut missing = vec![0_u32; count];
        let mut except = Vec::with_capacity(count);
        for (index, group) in (0_u32..).zip(groups) {
            for nested in known(&group.groups) {
                around[nested as usize].push(index);
                behind[nested as usize].push(index);
                missing[index as usize] += 1;
            }
            let excepted = known(&group.except_groups);
            for other in &excepted {
                behind[*other as usize].push(index);
                missing[index as usize] += 1;
            }
            except.push(excepted);
        }
        let mut order: Vec<u32> = (0..count as u32)
            .filter(|index| missing[*index as usize] == 0)
            .collect();
        let mut at = 0;
        while let Some(group) = order.get(at).copied() {
            at += 1;
            for waiting in &behind[group as usize] {
                let missing = &mut missing[*waiting as usize];
                *missing -= 1;
                if *missing == 0 {
                    order.push(*waiting);
                }
            }
        }
        if let Some(index) = missing.iter().position(|missing| *missing != 0) {
            return Err(Cycle(groups[index].name.clone()));
        }
        let mut rank = vec![0; count];
        for (place, group) in (0..).zip(&order) {
            rank[*group as usize] = place;
        }
        Ok(Self {
            around,
            except,
            rank,
            order,
        })
    }

    /// The groups, sorted, that have an address whose base lists are the members of `listed` and what `excepted` except.
    pub fn groups_with(
        &self,
        listed: impl IntoIterator<Item = u32>,
        excepted: &[u32],
        walk: &mut Walk,
    ) -> Vec<u32> {
        walk.met.resize(self.rank.len(), (0, false));
        walk.turn += 1;
        let turn = walk.turn;
        for group in listed {
            if let Some(rank) = self.rank.get(group as usize) {
                walk.waiting.push(Reverse(*rank));
            }
        }
        let mut with = Vec::new();
        while let Some(Reverse(place)) = walk.waiting.pop() {
            let group = self.order[place as usize];
            if walk.met[group as usize].0 == turn {
                continue;
            }
            // What it excepts stands before it in the order: it was met by now or is not going to be.
            let outside = excepted.contains(&group)
                || self.except[group as usize]
                    .iter()
                    .any(|other| walk.met[*other as usize] == (turn, true));
            walk.met[group as usize] = (turn, !outside);
            if outside {
                continue;
            }
            with.push(group);
            let around = &self.around[group as usize];
            walk.waiting
                .extend(around.iter().map(|outer| Reverse(self.rank[*outer as usize])));
        }
        with.sort_unstable();
        with
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, groups: &[usize], except_groups: &[usize]) -> Group {
        Group {
            name: name.to_owned(),
            groups: groups.to_vec(),
            except_groups: except_groups.to_vec(),
            ..Group::default()
        }
    }

    #[test]
    fn a_group_that_is_part_of_itself_is_named() {
        let groups = [
            group("a", &[1], &[]),
            group("b", &[], &[2]),
            group("c", &[0], &[]),
        ];
        assert_eq!(Nesting::of(&groups).unwrap_err(), Cycle("a".to_owned()));
        assert!(Nesting::of(&[group("self", &[0], &[])]).is_err());
    }

    #[test]
    fn exceptions_are_decided_before_what_they_are_taken_from() {
        // all = { good, bad } except bad; outer nests all; none excepts all.
        let groups = [
            group("outer", &[1], &[]),
            group("all", &[2, 3], &[3]),
            group("good", &[], &[]),
            group("bad", &[], &[]),
            group("none", &[2, 3], &[1]),
        ];
        let nesting = Nesting::of(&groups).unwrap();
        let mut walk = Walk::default();
        assert_eq!(nesting.groups_with([2], &[], &mut walk), [0, 1, 2]);
        assert_eq!(nesting.groups_with([3], &[], &mut walk), [3, 4]);
        assert_eq!(nesting.groups_with([2, 3], &[], &mut walk), [2, 3, 4]);
        assert_eq!(nesting.groups_with([2], &[1], &mut walk), [2, 4]);
        assert_eq!(nesting.groups_with([], &[], &mut walk), [0_u32; 0]);
    }
}
