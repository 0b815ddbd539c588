//! The book of group members against the obvious: random commits and changes of members, nested groups, exceptions, prefixes
//! around hosts, both families. After every single table write a lookup under the live generation gives what it gave before
//! the change at hand or what it gives behind it, and after the last one what the configuration says.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use bulkhead_abi::{AddressClass, HostKey4, HostKey6, PrefixKey4, PrefixKey6};
use bulkhead_dataplane::{
    address::words,
    membership::{
        book::{Book, Done, Moves},
        meaning::Meaning,
        nesting::Walk,
        writes::{self, Write},
    },
    reference,
    ruleset::{Group, Prefix, Ruleset, StaticNat},
};
use bulkhead_pipeline::{Tables as _, host::HostTables};
use proptest::{collection::vec, prelude::*, sample::Index};

const GROUPS: usize = 5;

/// Few addresses, so that prefixes nest and lists overlap.
fn address() -> impl Strategy<Value = IpAddr> {
    let v4 = (0u8..2, 0u8..8).prop_map(|(a, b)| IpAddr::V4(Ipv4Addr::new(10, 0, a, b)));
    let v6 = (0u16..2, 0u16..4).prop_map(|(a, b)| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, a, 0, 0, 0, 0, b)));
    prop_oneof![3 => v4, 1 => v6]
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (address(), any::<Index>()).prop_map(|(address, pick)| {
        let lengths: &[u8] = if address.is_ipv4() {
            &[0, 8, 23, 24, 29, 30, 31, 32, 32, 32]
        } else {
            &[0, 32, 48, 126, 127, 128, 128]
        };
        let length = lengths[pick.index(lengths.len())];
        Prefix { address, length }
    })
}

/// Every address that could make a difference, and two that are in nothing but the widest prefixes.
fn world() -> Vec<IpAddr> {
    let v4 = (0..2).flat_map(|a| (0..9).map(move |b| IpAddr::V4(Ipv4Addr::new(10, 0, a, b))));
    let v6 =
        (0..2).flat_map(|a| (0..5).map(move |b| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, a, 0, 0, 0, 0, b))));
    let others = [
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    v4.chain(v6).chain(others).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Ruleset),
    /// A commit that is staged and then does not happen.
    Abandoned(Ruleset),
    Update {
        group: Index,
        add: Vec<Prefix>,
        remove: Vec<Prefix>,
    },
    Replace {
        group: Index,
        members: Vec<Prefix>,
    },
    /// A change that is written to some part and taken back.
    Failed {
        group: Index,
        add: Vec<Prefix>,
        remove: Vec<Prefix>,
        at: Index,
    },
}

fn ruleset() -> impl Strategy<Value = Ruleset> {
    let before = || prop_oneof![3 => Just(Vec::new()), 1 => vec(any::<Index>(), 1..3)];
    let except = prop_oneof![2 => Just(Vec::new()), 1 => vec(prefix(), 1..3)];
    let group = (
        vec(prefix(), 0..5),
        before(),
        except,
        before(),
        any::<bool>(),
        0..8u8,
    );
    let fixed = (prefix(), prefix());
    (vec(group, GROUPS), vec(fixed, 0..2)).prop_map(|(groups, fixed)| Ruleset {
        groups: groups
            .into_iter()
            .enumerate()
            .map(
                |(index, (members, nested, except, except_groups, dynamic, name))| {
                    let earlier = |named: Vec<Index>| match index {
                        0 => Vec::new(),
                        count => named.iter().map(|pick| pick.index(count)).collect(),
                    };
                    Group {
                        // Names come and go from commit to commit.
                        name: format!("{}{index}", if name == 0 { "other" } else { "group" }),
                        members,
                        groups: earlier(nested),
                        except,
                        except_groups: earlier(except_groups),
                        dynamic,
                    }
                },
            )
            .collect(),
        static_nat: fixed
            .into_iter()
            .map(|(outside, inside)| StaticNat {
                name: String::new(),
                from: Vec::new(),
                outside,
                inside,
                npt: false,
            })
            .collect(),
        ..Ruleset::default()
    })
}

fn step() -> impl Strategy<Value = Step> {
    let some = || vec(prefix(), 0..4);
    prop_oneof![
        2 => ruleset().prop_map(Step::Commit),
        1 => ruleset().prop_map(Step::Abandoned),
        5 => (any::<Index>(), some(), some()).prop_map(|(group, add, remove)| Step::Update { group, add, remove }),
        2 => (any::<Index>(), vec(prefix(), 0..6)).prop_map(|(group, members)| Step::Replace { group, members }),
        1 => (any::<Index>(), some(), some(), any::<Index>())
            .prop_map(|(group, add, remove, at)| Step::Failed { group, add, remove, at }),
    ]
}

/// The firewall: tables, the book that describes them, and what is configured as plain lists.
struct World {
    tables: HostTables,
    book: Book,
    meaning: Meaning,
    ruleset: Ruleset,
    generation: u32,
    /// Members of dynamic groups, as somebody would keep them by hand.
    dynamic: HashMap<String, Vec<Prefix>>,
    addresses: Vec<IpAddr>,
}

fn distinct(prefixes: &[Prefix]) -> Vec<Prefix> {
    let mut prefixes: Vec<Prefix> = prefixes.iter().map(Prefix::canonical).collect();
    prefixes.sort();
    prefixes.dedup();
    prefixes
}

impl World {
    fn class(&self, generation: u32, address: &IpAddr) -> u32 {
        let family = if address.is_ipv4() { 4 } else { 6 };
        self.tables.address_class(generation, family, &words(*address))
    }

    fn classes(&self) -> Vec<u32> {
        self.addresses
            .iter()
            .map(|address| self.class(self.generation, address))
            .collect()
    }

    fn write4(&self, write: &Write<u32>) {
        let (bits, length) = write.key;
        let address_be = bits.to_be();
        let (host, prefix) = (
            HostKey4 { address_be },
            PrefixKey4 {
                bits: length.into(),
                address_be,
            },
        );
        match (length, write.value) {
            (32, Some(value)) => self.tables.hosts4.set(&host, &value),
            (32, None) => drop(self.tables.hosts4.remove(&host)),
            (_, Some(value)) => self.tables.prefixes4.set(&prefix, &value),
            (_, None) => drop(self.tables.prefixes4.remove(&prefix)),
        }
    }

    fn write6(&self, write: &Write<u128>) {
        let (bits, length) = write.key;
        let address_be = words(IpAddr::V6(bits.into()));
        let (host, prefix) = (
            HostKey6 { address_be },
            PrefixKey6 {
                bits: length.into(),
                address_be,
            },
        );
        match (length, write.value) {
            (128, Some(value)) => self.tables.hosts6.set(&host, &value),
            (128, None) => drop(self.tables.hosts6.remove(&host)),
            (_, Some(value)) => self.tables.prefixes6.set(&prefix, &value),
            (_, None) => drop(self.tables.prefixes6.remove(&prefix)),
        }
    }

    /// Writes one by one, at most `most`; after each every address has its class of before or of behind the change.
    fn follow(
        &self,
        v4: &[Write<u32>],
        v6: &[Write<u128>],
        after: &[u32],
        most: usize,
    ) -> Result<(), TestCaseError> {
        let before = self.classes();
        let check = |what: &dyn std::fmt::Debug| -> Result<(), TestCaseError> {
            for (((address, now), before), after) in
                self.addresses.iter().zip(self.classes()).zip(&before).zip(after)
            {
                prop_assert!(
                    now == *before || now == *after,
                    "{address}: {now}, not {before} nor {after}, at {what:?}"
                );
            }
            Ok(())
        };
        for write in v4.iter().take(most) {
            self.write4(write);
            check(write)?;
        }
        for write in v6.iter().take(most.saturating_sub(v4.len())) {
            self.write6(write);
            check(write)?;
        }
        Ok(())
    }

    fn wanted(&self) -> Vec<u32> {
        self.addresses
            .iter()
            .map(|address| self.book.class(address))
            .collect()
    }

    fn change(&self, moves: &Moves, most: usize) -> Result<(), TestCaseError> {
        self.follow(
            &writes::change(&moves.v4),
            &writes::change(&moves.v6),
            &self.wanted(),
            most,
        )
    }

    /// Stages a commit; nothing of it is seen.
    fn stage(&self, moves: &Moves) -> Result<(), TestCaseError> {
        let unchanged = self.classes();
        let v4 = writes::stage(&moves.v4, self.generation);
        let v6 = writes::stage(&moves.v6, self.generation);
        self.follow(&v4, &v6, &unchanged, usize::MAX)?;
        prop_assert_eq!(self.classes(), unchanged);
        Ok(())
    }

    fn commit(&mut self, ruleset: &Ruleset, happens: bool) -> Result<(), TestCaseError> {
        let unchanged = self.classes();
        let (done, meaning) = self.book.commit(&self.ruleset, ruleset).expect("no cycles");
        self.stage(&done.moves)?;
        if !happens {
            let turned = done.moves.turned();
            let (v4, v6) = (writes::settle(&turned.v4), writes::settle(&turned.v6));
            self.follow(&v4, &v6, &unchanged, usize::MAX)?;
            self.book.undo(done, None);
            return Ok(());
        }
        self.generation += 1;
        prop_assert_eq!(self.classes(), self.wanted(), "switched");
        let v4 = writes::settle(&done.moves.v4);
        let v6 = writes::settle(&done.moves.v6);
        self.follow(&v4, &v6, &self.classes(), usize::MAX)?;
        self.meaning = meaning;
        self.dynamic.retain(|name, _| {
            ruleset
                .groups
                .iter()
                .any(|group| group.dynamic && group.name == *name)
        });
        for group in ruleset.groups.iter().filter(|group| group.dynamic) {
            let members = || distinct(&group.members);
            self.dynamic.entry(group.name.clone()).or_insert_with(members);
        }
        self.ruleset = ruleset.clone();
        // A commit of the same again moves nothing.
        let (again, _) = self.book.commit(&self.ruleset, &self.ruleset).expect("no cycles");
        prop_assert!(again.moves.is_empty() && again.added + again.removed == 0);
        Ok(())
    }

    fn dynamic_group(&self, pick: Index) -> String {
        self.ruleset.groups[pick.index(GROUPS)].name.clone()
    }

    fn changed(
        &mut self,
        group: &str,
        members: Vec<Prefix>,
        done: Option<Done>,
    ) -> Result<(), TestCaseError> {
        let Some(had) = self.dynamic.get(group) else {
            prop_assert!(done.is_none(), "{group} is not dynamic");
            return Ok(());
        };
        let done = done.expect("a dynamic group");
        let missing =
            |of: &[Prefix], from: &[Prefix]| of.iter().filter(|member| !from.contains(member)).count();
        prop_assert_eq!(
            (done.added, done.removed),
            (missing(&members, had), missing(had, &members))
        );
        self.change(&done.moves, usize::MAX)?;
        self.dynamic.insert(group.to_owned(), members);
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        let updated = |members: &[Prefix], add: &[Prefix], remove: &[Prefix]| {
            let remove = distinct(remove);
            let mut members = members.to_vec();
            members.retain(|member| !remove.contains(member));
            members.extend(add);
            distinct(&members)
        };
        match step {
            Step::Commit(ruleset) => self.commit(ruleset, true)?,
            Step::Abandoned(ruleset) => self.commit(ruleset, false)?,
            Step::Update { group, add, remove } => {
                let group = self.dynamic_group(*group);
                let members = self
                    .dynamic
                    .get(&group)
                    .map(|had| updated(had, add, remove))
                    .unwrap_or_default();
                let done = self.book.update(&group, add, remove);
                self.changed(&group, members, done)?;
            }
            Step::Replace { group, members } => {
                let group = self.dynamic_group(*group);
                let done = self.book.replace(&group, members);
                self.changed(&group, distinct(members), done)?;
            }
            Step::Failed {
                group,
                add,
                remove,
                at,
            } => {
                let group = self.dynamic_group(*group);
                let unchanged = self.classes();
                if let Some(done) = self.book.update(&group, add, remove) {
                    let writes = done.moves.v4.len() + done.moves.v6.len();
                    self.change(&done.moves, at.index(writes + 1))?;
                    let turned = done.moves.turned();
                    let (v4, v6) = (writes::change(&turned.v4), writes::change(&turned.v6));
                    self.follow(&v4, &v6, &unchanged, usize::MAX)?;
                    self.book.undo(done, Some(&group));
                }
            }
        }
        self.is_right()
    }

    /// The tables say what the configuration does, and no more than it needs.
    fn is_right(&self) -> Result<(), TestCaseError> {
        let mut plain = self.ruleset.clone();
        for group in &mut plain.groups {
            if group.dynamic {
                group.members = self.dynamic[&group.name].clone();
            }
        }
        for (name, members) in &self.dynamic {
            prop_assert_eq!(self.book.count(name), Some(members.len()));
            let listed = self.book.members(name, usize::MAX);
            prop_assert_eq!(listed.as_ref(), Some(members));
        }
        for address in &self.addresses {
            let class = self.class(self.generation, address);
            // At rest both halves are the same.
            prop_assert_eq!(class, self.class(self.generation + 1, address));
            prop_assert_eq!(class, self.book.class(address));
            let groups = self
                .meaning
                .groups_of(self.book.lists_of(class), &mut Walk::default());
            let named = (0..GROUPS).filter(|index| reference::in_group(&plain, *index, address));
            let fixed = plain
                .static_nat
                .iter()
                .flat_map(|rule| [&rule.outside, &rule.inside]);
            let fixed = fixed
                .enumerate()
                .filter(|(_, prefix)| reference::covers(prefix, address));
            let want: Vec<u32> = named
                .chain(fixed.map(|(index, _)| GROUPS + index))
                .map(|index| index as u32)
                .collect();
            prop_assert_eq!(groups, want, "{}", address);
        }
        let (v4, v6) = self.book.sides();
        let mut entries = self.tables.hosts4.entries().len() + self.tables.prefixes4.entries().len();
        entries += self.tables.hosts6.entries().len() + self.tables.prefixes6.entries().len();
        prop_assert_eq!(entries, v4.hosts() + v4.prefixes() + v6.hosts() + v6.prefixes());
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn every_write_leaves_the_old_class_or_the_new(first in ruleset(), steps in vec(step(), 1..12)) {
        let mut world = World {
            tables: HostTables::new(1, 1),
            book: Book::default(),
            meaning: Meaning::default(),
            ruleset: Ruleset::default(),
            generation: 1,
            dynamic: HashMap::new(),
            addresses: world(),
        };
        world.commit(&first, true)?;
        world.is_right()?;
        for step in &steps {
            world.step(step)?;
        }
    }
}

#[test]
fn both_halves_of_a_class_are_told_apart() {
    let class = AddressClass { class: [3, 5] };
    assert_eq!((class.of(6), class.of(7)), (3, 5));
    assert_eq!(AddressClass::both(4).of(0), AddressClass::both(4).of(1));
}
