//! The power fails after each single file operation, and the disk has kept as little as it may.
//!
//! The model grants what POSIX grants and nothing more: content that was not synced may be gone, cut or zeros; of the
//! changes to names since the last sync of the directory any subset may have happened, and a rename is two of them. Every
//! subset is tried at every operation.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use bulkhead_revisions::{Disk, Draft, Revision, Source, Store, StoreError};

const KEPT: usize = 2;

#[derive(Clone, Debug, Default)]
struct Inode {
    content: Vec<u8>,
    synced: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Link(String, usize),
    Unlink(String),
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name.clone(), *inode);
            }
            Self::Unlink(name) => {
                names.remove(name);
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
struct World {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    changes: Vec<Change>,
    /// Operations done so far.
    operations: usize,
    /// After so many of them the power is gone.
    power: Option<usize>,
    /// This one fails, once.
    fails: Option<usize>,
}

/// How content that was not synced comes back.
#[derive(Clone, Copy, Debug)]
enum Lost {
    Everything,
    Half,
    Zeros,
    Nothing,
}

impl World {
    fn operate(&mut self) -> io::Result<()> {
        if self.power.is_some_and(|power| self.operations >= power) {
            return Err(io::Error::other("the power is gone"));
        }
        self.operations += 1;
        if self.fails == Some(self.operations) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Every disk that may be found after the power has failed now.
    fn after(&self) -> impl Iterator<Item = Self> + '_ {
        let losses = [Lost::Everything, Lost::Half, Lost::Zeros, Lost::Nothing];
        let subsets = 0..1_u32 << self.changes.len();
        subsets.flat_map(move |subset| losses.map(|lost| self.outcome(subset, lost)))
    }

    fn outcome(&self, subset: u32, lost: Lost) -> Self {
        let mut names = self.synced_names.clone();
        for (index, change) in self.changes.iter().enumerate() {
            if subset & 1 << index != 0 {
                change.apply(&mut names);
            }
        }
        let mut inodes = self.inodes.clone();
        for inode in inodes.iter_mut().filter(|inode| !inode.synced) {
            match lost {
                Lost::Everything => inode.content.clear(),
                Lost::Half => inode.content.truncate(inode.content.len() / 2),
                Lost::Zeros => inode.content.fill(0),
                Lost::Nothing => {}
            }
            inode.synced = true;
        }
        Self {
            inodes,
            names: names.clone(),
            synced_names: names,
            ..Self::default()
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Model(Arc<Mutex<World>>);

impl Model {
    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("no panic while it was held")
    }
}

impl Disk for Model {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.world().names.keys().cloned().collect())
    }

    fn read(&self, name: &str, limit: u64) -> io::Result<Vec<u8>> {
        let world = self.world();
        let content = &world.inodes[world.find(name)?].content;
        let end = usize::try_from(limit).map_or(content.len(), |limit| limit.min(content.len()));
        Ok(content[..end].to_vec())
    }

    fn write(&mut self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let mut world = self.world();
        if world.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = world.inodes.len();
        world.inodes.push(Inode::default());
        // Making the file and each part are points of their own.
        world.operate()?;
        world.change(Change::Link(name.to_owned(), inode));
        for part in parts {
            world.operate()?;
            world.inodes[inode].content.extend_from_slice(part);
        }
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        world.operate()?;
        let inode = world.find(name)?;
        world.inodes[inode].synced = true;
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        world.operate()?;
        let inode = world.find(from)?;
        world.change(Change::Link(to.to_owned(), inode));
        world.change(Change::Unlink(from.to_owned()));
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        let mut world = self.world();
        world.operate()?;
        world.synced_names = world.names.clone();
        world.changes.clear();
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        world.find(name)?;
        world.operate()?;
        world.change(Change::Unlink(name.to_owned()));
        Ok(())
    }
}

/// What revision `number` must contain, if its writer got so far.
fn document(number: u64) -> String {
    format!("# revision {number}\n").repeat(number as usize)
}

fn draft(number: u64) -> Draft {
    Draft {
        time_ms: number * 1_000,
        author: "anna".into(),
        user: "root".into(),
        comment: format!("the {number}th"),
        source: Source::Cli,
        file: "firewall.yaml".into(),
        repeats: None,
        taken: None,
        // Every second one has to be confirmed.
        confirm_within_ms: number.is_multiple_of(2).then_some(60_000),
    }
}

/// What the writer was told, last.
#[derive(Clone, Debug, Default, PartialEq)]
struct Told {
    number: u64,
    awaited: bool,
}

fn told(revision: &Revision) -> Told {
    Told {
        number: revision.number,
        awaited: revision.awaited().is_some(),
    }
}

/// Commits and confirms over one restart; calls `heard` with what it was told each time. Stops at the first error if
/// `stubborn` is not set.
fn write(disk: &Model, stubborn: bool, mut heard: impl FnMut(Told)) -> Result<(), StoreError> {
    for _ in 0..2 {
        let (mut store, damaged) = match Store::open(disk.clone(), KEPT) {
            Err(_) if stubborn => Store::open(disk.clone(), KEPT)?,
            other => other?,
        };
        assert_eq!(damaged, []);
        for _ in 0..3 {
            let number = store.current().map_or(1, |revision| revision.number + 1);
            let step = match store.prepare(draft(number), document(number).as_bytes()) {
                Ok(prepared) if prepared.revision().number == number => {
                    store.publish(prepared).map(told).map(&mut heard)
                }
                // A number is spent by a failure; the content goes by the number that it will have.
                Ok(prepared) => {
                    let number = prepared.revision().number;
                    store.discard(prepared);
                    let prepared = store.prepare(draft(number), document(number).as_bytes())?;
                    store.publish(prepared).map(told).map(&mut heard)
                }
                Err(error) => Err(error),
            };
            let step = step.and_then(|()| match store.awaited() {
                Some(_) => store.confirm(99_000, "anna").map(told).map(&mut heard),
                None => Ok(()),
            });
            if !stubborn {
                step?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_cut_after_any_operation_leaves_the_old_or_the_new_revision() {
    let whole = Model::default();
    write(&whole, false, |_| {}).expect("a disk that works");
    let operations = whole.world().operations;
    assert!(operations > 30, "{operations}");
    let (mut worlds, mut old, mut new) = (0, 0, 0);
    for cut in 0..=operations {
        let disk = Model::default();
        disk.world().power = Some(cut);
        let mut last = Told::default();
        let outcome = write(&disk, false, |told| last = told);
        assert_eq!(outcome.is_err(), cut < operations, "cut after {cut}");
        let cut_short = disk.world().clone();
        for world in cut_short.after() {
            worlds += 1;
            let found = Model(Arc::new(Mutex::new(world.clone())));
            let (mut store, damaged) = Store::open(found.clone(), KEPT)
                .unwrap_or_else(|error| panic!("cut after {cut}: {error}\n{world:#?}"));
            let context = || format!("cut after {cut}, told {last:?}\n{world:#?}");
            assert_eq!(damaged, [], "{}", context());
            let current = store.current().map(told).unwrap_or_default();
            let next = match last.awaited {
                // It was being confirmed.
                true => Told {
                    awaited: false,
                    ..last
                },
                false => Told {
                    number: last.number + 1,
                    awaited: last.number % 2 == 1 && last.number > 0,
                },
            };
            if current == last {
                old += 1;
            } else {
                assert_eq!(current, next, "{}", context());
                new += 1;
            }
            for revision in store.revisions() {
                let number = revision.number;
                let content = store.document(number).unwrap_or_else(|_| panic!("{}", context()));
                assert_eq!(content, document(number).as_bytes(), "{}", context());
                assert_eq!(revision.comment, format!("the {number}th"));
            }
            // What there is to come back to is there.
            if current.number > 1 {
                assert_eq!(
                    store.previous().map(|revision| revision.number),
                    Some(current.number - 1),
                    "{}",
                    context()
                );
            }
            // And it goes on.
            let number = current.number + 1;
            let prepared = store
                .prepare(draft(number), document(number).as_bytes())
                .unwrap_or_else(|error| panic!("{error}: {}", context()));
            assert_eq!(store.publish(prepared).expect("a disk").number, number);
            drop(store);
            let (store, _) = Store::open(found, KEPT).expect("a store");
            assert_eq!(store.current().map(|revision| revision.number), Some(number));
        }
    }
    println!("{operations} operations, {worlds} disks: {old} old, {new} new");
    assert!(old > 100 && new > 10, "{old} old and {new} new");
}

#[test]
fn an_operation_that_fails_leaves_the_old_revision_and_the_next_one_works() {
    let whole = Model::default();
    write(&whole, false, |_| {}).expect("a disk that works");
    let operations = whole.world().operations;
    for fails in 1..=operations {
        let disk = Model::default();
        disk.world().fails = Some(fails);
        let mut last = Told::default();
        write(&disk, true, |told| last = told).unwrap_or_else(|error| panic!("{fails}: {error}"));
        let (store, damaged) = Store::open(disk, KEPT).expect("a store");
        assert_eq!(damaged, [], "{fails}");
        let current = store.current().map(told).expect("a revision");
        assert_eq!(
            current.number, last.number,
            "{fails}: what was told is what is found"
        );
        assert!(
            last.number >= 5,
            "{fails}: one of six commits failed at most, not {last:?}"
        );
        assert_eq!(
            store.document(current.number).expect("a document"),
            document(current.number).as_bytes(),
            "{fails}"
        );
    }
}
