//! One load's share of an instance's directory: what it finds there, what it puts there, when it counts.
//!
//! Until [`Load::keep`] nothing has changed for whoever starts next: what this load has pinned so far goes when it is
//! dropped, and the programs of the load before run on. From then on the next start takes over from this one, whether it
//! came to its end or was killed: its programs may be on some interfaces already.

use std::{
    collections::HashSet,
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use aya::maps::MapData;
use bulkhead_abi as abi;

use super::{
    PinError, Pins, entries, make, remove,
    tables::{self, Carried, Fit, Shape},
};
use crate::{
    bpf::{BpfError, KernelMaps, Sizes},
    link::{self, Hook, Link},
    table::TypedMap,
};

/// What a load finds.
pub(crate) struct Inheritance {
    pins: Pins,
    shapes: Vec<Shape>,
    /// Tables that are used as they are.
    adopted: Vec<(&'static str, PathBuf)>,
    /// Tables whose entries are carried over.
    resized: Vec<(&'static str, MapData)>,
    /// Pinned under a name that is needed.
    taken: HashSet<&'static str>,
    last: abi::Live,
    marks: Option<u64>,
    /// No program is pinned, of whatever version.
    fresh: bool,
}

impl Inheritance {
    /// Looks at what is pinned, and says what cannot be taken over; nothing has been changed then.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub(crate) fn find(pins: Pins, sizes: &Sizes) -> Result<Self, PinError> {
        let version = pins.version();
        for path in entries(&version)? {
            // Of a start that did not come to its end.
            if path.to_string_lossy().ends_with(NEXT) {
                remove(&path)?;
            }
        }
        let mut before = before(&version)?;
        for foreign in pins.foreign()? {
            tracing::warn!(
                directory = %foreign.directory.display(),
                sessions = foreign.sessions,
                version = abi::ABI_VERSION,
                "the tables of another version cannot be taken over: their sessions end when this version is in force"
            );
        }
        let shapes = tables::shapes(sizes);
        let mut found = Self {
            adopted: Vec::new(),
            resized: Vec::new(),
            taken: HashSet::new(),
            last: last(&version)?,
            marks: None,
            fresh: entries(&pins.links())?.is_empty(),
            shapes,
            pins,
        };
        let mut different = Vec::new();
        for shape in &found.shapes {
            let path = version.join(shape.name);
            before.give_back(shape.name, &path)?;
            let Ok(map) = MapData::from_pin(&path) else {
                continue;
            };
            found.taken.insert(shape.name);
            match map.info().map_or(Fit::Different, |info| shape.fit(&info)) {
                Fit::Exact => found.adopted.push((shape.name, path)),
                Fit::Resized => found.resized.push((shape.name, map)),
                Fit::Different => different.push(shape.name),
            }
            // Programs of before may have gone on with it until now.
            found.resized.extend(before.readable(shape));
        }
        if !different.is_empty() {
            tracing::warn!(
                tables = different.join(" "),
                sessions = tables::count_sessions(&version),
                "tables of another layout cannot be taken over: their sessions end when this load is in force"
            );
            found.adopted.clear();
            found.resized.clear();
        }
        for (name, _) in &found.resized {
            tracing::info!(
                table = name,
                "a table changes its size, or was about to: its entries are carried over"
            );
        }
        found.marks = found.read_marks();
        Ok(found)
    }

    fn read_marks(&self) -> Option<u64> {
        let (_, path) = self.adopted.iter().find(|(name, _)| *name == MARKS)?;
        let map = MapData::from_pin(path).ok()?;
        let marks: TypedMap<u32, u64> = TypedMap::open(MARKS, map.fd().as_fd(), 4, 8).ok()?;
        marks.get(&0).ok()?.filter(|marks| *marks != 0)
    }

    /// The tables to be used in place of new ones.
    pub(crate) fn adopted(&self) -> &[(&'static str, PathBuf)] {
        &self.adopted
    }

    /// The marks that the load before gave to packets: those on their way are to be known again.
    pub(crate) const fn marks(&self) -> Option<u64> {
        self.marks
    }

    /// Pins what the next start has to find. `table` gives a descriptor of a table by its name.
    ///
    /// # Errors
    /// If something cannot be pinned; what was is gone then.
    pub(crate) fn begin(
        self,
        table: impl Fn(&'static str) -> Result<OwnedFd, BpfError>,
    ) -> Result<Load, BpfError> {
        let version = self.pins.version();
        let number = loads(&version)?
            .iter()
            .filter_map(|load| number(load))
            .max()
            .unwrap_or(0)
            + 1;
        let mut load = Load {
            directory: version.join(format!("{LOAD}{number}")),
            pins: self.pins,
            created: Vec::new(),
            replacing: Vec::new(),
            resized: self.resized,
            last: self.last,
            fresh: self.fresh,
            kept: false,
            finished: false,
        };
        make(&load.directory)?;
        for name in ["STAGES", "LIVE"] {
            load.pin(load.directory.join(name), &table(name)?)?;
        }
        for shape in self.shapes {
            let name = shape.name;
            if self.adopted.iter().any(|(adopted, _)| *adopted == name) {
                continue;
            }
            if self.taken.contains(name) {
                load.replacing.push(name);
                load.pin(version.join(format!("{name}{NEXT}")), &table(name)?)?;
            } else {
                load.pin(version.join(name), &table(name)?)?;
            }
        }
        Ok(load)
    }
}

/// What is in the name of a table of a load that is not kept yet.
const NEXT: &str = "_next";
/// What is in the name of a table whose place another of another size has taken, before the number of the load that did it:
/// as long as programs may be about that use it.
const BEFORE: &str = "_before_";

/// Tables whose place others have taken, in a take-over that did not come to its end: by their names without the number, the
/// oldest first.
struct Before(Vec<(String, u64, PathBuf)>);

fn before(version: &Path) -> Result<Before, PinError> {
    let mut found: Vec<_> = entries(version)?.into_iter().filter_map(is_before).collect();
    found.sort();
    Ok(Before(found))
}

fn is_before(path: PathBuf) -> Option<(String, u64, PathBuf)> {
    let (name, load) = path.file_name()?.to_str()?.rsplit_once(BEFORE)?;
    Some((name.to_owned(), load.parse().ok()?, path))
}

impl Before {
    /// A take-over that was killed between two renamings has left the place empty: the table goes back to it.
    fn give_back(&mut self, name: &str, place: &Path) -> Result<(), PinError> {
        let last = self.0.iter().rposition(|(own, ..)| own == name);
        match last {
            Some(last) if !place.exists() => {
                let (_, _, from) = self.0.remove(last);
                fs::rename(&from, place).map_err(|error| PinError::system("cannot rename", &from, error))
            }
            _ => Ok(()),
        }
    }

    /// Those of a table's name that can be read as such.
    fn readable(&self, shape: &Shape) -> Vec<(&'static str, MapData)> {
        let own = self.0.iter().filter(|(own, ..)| own == shape.name);
        own.filter_map(|(_, _, path)| {
            let map = MapData::from_pin(path).ok()?;
            let fits = map.info().is_ok_and(|info| shape.fit(&info) != Fit::Different);
            fits.then_some((shape.name, map))
        })
        .collect()
    }
}
/// What the names of loads begin with.
const LOAD: &str = "load-";
/// The table of marks.
const MARKS: &str = "MARKS";

/// The directories of loads.
fn loads(version: &Path) -> Result<Vec<PathBuf>, PinError> {
    let mut loads = entries(version)?;
    loads.retain(|path| number(path).is_some());
    Ok(loads)
}

fn number(load: &Path) -> Option<u64> {
    load.file_name()?.to_str()?.strip_prefix(LOAD)?.parse().ok()
}

/// The highest numbers that any load has put in force: nothing that is remembered bears a higher one.
///
/// # Errors
/// If a load's numbers are there and cannot be read: flows that it has judged would bear numbers to come, and pass for
/// judged by what is configured then.
fn last(version: &Path) -> Result<abi::Live, PinError> {
    let mut last = abi::Live::default();
    for load in loads(version)? {
        let path = load.join("LIVE");
        let fail = |error: io::Error| PinError::Numbers {
            path: path.clone(),
            source: error,
        };
        // Of a start that was killed before it could put anything in force, or of a load that was half removed.
        if !path.try_exists().map_err(fail)? {
            continue;
        }
        let live = read_live(&path).map_err(|error| fail(io::Error::other(error)))?;
        last.generation = last.generation.max(live.generation);
        last.tables = last.tables.max(live.tables);
        last.fib_epoch = last.fib_epoch.max(live.fib_epoch);
    }
    Ok(last)
}

fn read_live(path: &Path) -> Result<abi::Live, BpfError> {
    let fail = |source| BpfError::Map { name: "LIVE", source };
    let map = MapData::from_pin(path).map_err(fail)?;
    let info = map.info().map_err(fail)?;
    let (key_bytes, value_bytes) = (info.key_size() as usize, info.value_size() as usize);
    let live: TypedMap<u32, abi::Live> = TypedMap::open("LIVE", map.fd().as_fd(), key_bytes, value_bytes)?;
    live.get(&0)?.ok_or(BpfError::Missing("LIVE"))
}

/// What a load has in the directory.
#[derive(Debug)]
pub(crate) struct Load {
    pins: Pins,
    directory: PathBuf,
    created: Vec<PathBuf>,
    /// Tables pinned beside one of their name.
    replacing: Vec<&'static str>,
    /// Tables of the load before, of another size.
    resized: Vec<(&'static str, MapData)>,
    last: abi::Live,
    fresh: bool,
    kept: bool,
    finished: bool,
}

impl Load {
    fn pin(&mut self, path: PathBuf, table: &OwnedFd) -> Result<(), PinError> {
        link::pin(table.as_fd(), &path).map_err(|error| PinError::system("cannot pin", &path, error))?;
        self.created.push(path);
        Ok(())
    }

    /// The instance's directory.
    pub(crate) const fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The link that a load before has left on a hook. What is pinned after the start is this load's.
    ///
    /// # Errors
    /// As [`Pins::find_link`].
    pub(crate) fn find_link(&self, hook: Hook, ifindex: u32) -> Result<Option<Link>, PinError> {
        if self.finished {
            return Ok(None);
        }
        self.pins.find_link(hook, ifindex)
    }

    /// Whether no program was pinned before, of whatever version.
    pub(crate) const fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// The highest numbers that the loads before have put in force.
    pub(crate) const fn last(&self) -> abi::Live {
        self.last
    }

    /// Carries the entries of tables of another size over. To be called before the programs are replaced, and once more
    /// when they are, for what came in between.
    ///
    /// # Errors
    /// If a table cannot be read or written; one that is full is no error.
    pub(crate) fn carry_over(&self, maps: &KernelMaps) -> Result<(), BpfError> {
        for (name, old) in &self.resized {
            match tables::carry_over(name, old, maps)? {
                Some(Carried { entries, dropped: 0 }) => {
                    tracing::info!(table = name, entries, "entries carried over");
                }
                Some(Carried { entries, dropped }) => tracing::warn!(
                    table = name,
                    entries,
                    dropped,
                    "entries carried over; the others found no room"
                ),
                None => tracing::info!(table = name, "a table begins anew"),
            }
        }
        Ok(())
    }

    /// Makes this the load that the next start takes over from.
    ///
    /// # Errors
    /// If a table cannot take the place of the one before.
    pub(crate) fn keep(&mut self) -> Result<(), PinError> {
        // Before a table moves: what was moved must not go with this value.
        self.kept = true;
        let version = self.pins.version();
        let load = number(&self.directory).unwrap_or_default();
        for name in self.replacing.drain(..) {
            let place = version.join(name);
            // Programs on interfaces go on with it until each is replaced. Should this process end before, the next start
            // finds what they have entered.
            let steps = [
                (place.clone(), version.join(format!("{name}{BEFORE}{load}"))),
                (version.join(format!("{name}{NEXT}")), place),
            ];
            for (from, to) in steps {
                fs::rename(&from, &to).map_err(|error| PinError::system("cannot rename", &from, error))?;
            }
        }
        Ok(())
    }

    /// Takes away what only the loads before needed. No packet may be in a program that this load has replaced any more:
    /// without its table of stages a program that is not over drops its packet. `wait` returns when none is in those that
    /// are taken off here either.
    ///
    /// # Errors
    /// The first thing that could not be taken off or removed; the others are, and the next start tries again. Programs that
    /// stay keep their tables.
    pub(crate) fn finish(&mut self, links: &HashSet<PathBuf>, wait: impl FnOnce()) -> Result<(), PinError> {
        self.finished = true;
        let (gone, swept) = self.pins.sweep_links(links);
        if gone != 0 {
            tracing::info!(
                programs = gone,
                "programs taken off interfaces that are not configured any more"
            );
            wait();
        }
        self.resized.clear();
        swept?;
        let mut over = loads(&self.pins.version())?;
        over.retain(|load| *load != self.directory);
        over.extend(self.pins.foreign()?.into_iter().map(|foreign| foreign.directory));
        over.extend(
            before(&self.pins.version())?
                .0
                .into_iter()
                .map(|(_, _, path)| path),
        );
        let removed = over.iter().map(|directory| remove(directory));
        removed.fold(Ok(()), Result::and)
    }

    /// Takes everything away, the directory included.
    ///
    /// # Errors
    /// The first file that could not be removed.
    pub(crate) fn remove_all(&mut self) -> Result<(), PinError> {
        self.kept = true;
        remove(self.pins.directory())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        for path in self.created.drain(..) {
            let _best_effort = fs::remove_file(path);
        }
        let _best_effort: io::Result<()> = fs::remove_dir(&self.directory);
    }
}
