//! The BPF object: loaded with the configured sizes, its tables as typed maps, its programs to be attached.
//!
//! Owns what is loaded and, if it is pinned, what the next load finds. Everything else about it is in its parts: [`load`],
//! [`program`] (the calls), `sizes`, `maps`, `attach`.

mod attach;
mod load;
mod maps;
mod program;
mod sizes;

use std::{collections::HashSet, os::fd::AsRawFd as _, path::PathBuf, sync::Arc};

use aya::maps::{Map, MapData, PerCpuArray, RingBuf};
use bulkhead_abi as abi;

pub(crate) use self::sizes::ANY_VECTORS;
use self::{
    load::{Maps, Plan, Programs},
    maps::{list, open, per_cpu, sum, table_fd},
};
pub use self::{
    maps::KernelMaps,
    program::{Refusal, TestRunOutcome},
    sizes::{LIMITED_ADDRESSES, Sizes},
};
pub use crate::link::has_tcx;
use crate::{
    inject,
    link::LinkError,
    memory::{Listed, TableMemory},
    pins::{Inheritance, Load, PinError, Pins},
    table::{TableError, TypedMap},
};

/// Why the object could not be loaded, attached or asked.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The embedded object cannot be read.
    #[error("cannot read the embedded object: {0}")]
    Parse(#[from] aya_obj::ParseError),
    /// Its type information does not fit its maps and programs.
    #[error("the type information of the embedded object: {0}")]
    Btf(#[from] aya_obj::btf::BtfError),
    /// Its programs cannot be linked.
    #[error("cannot link the embedded object: {0}")]
    Link(#[from] aya_obj::relocation::EbpfRelocationError),
    /// The kernel refused its type information.
    #[error("cannot load the type information of the embedded object: {0}")]
    Types(Refusal),
    /// The kernel refused one of its maps.
    #[error("cannot make map {name}: {source}")]
    Create {
        /// The map's name.
        name: String,
        /// The kernel's answer.
        source: aya::maps::MapError,
    },
    /// A map's content was refused.
    #[error("cannot write the content of map {name}: {source}")]
    Initialize {
        /// The map's name.
        name: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The kernel refused a program, or to run it or tell of it.
    #[error("{operation}: {source}")]
    Program {
        /// What was tried.
        operation: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The embedded object lacks something this build expects.
    #[error("the embedded object has no {0}")]
    Missing(&'static str),
    /// A thread that made maps has panicked.
    #[error("a thread that made maps has panicked")]
    Panicked,
    /// A map could not be opened.
    #[error("cannot open map {name}: {source}")]
    Map {
        /// The map's name.
        name: &'static str,
        /// What the loader says.
        source: aya::maps::MapError,
    },
    /// The kernel refused an attachment.
    #[error("{operation}: {source}")]
    Attach {
        /// What was tried.
        operation: String,
        /// The kernel's answer.
        source: LinkError,
    },
    /// What outlives the daemon could not be found or kept.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// The system has no random numbers.
    #[error("cannot read /dev/urandom, where the mark of frames put back is drawn from: {0}")]
    Random(std::io::Error),
    /// A map operation failed.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// The loaded object.
pub struct Object {
    /// Its maps, but for those that somebody has taken out.
    tables: Maps,
    programs: Programs,
    /// Its tables.
    pub maps: Arc<KernelMaps>,
    counters: PerCpuArray<MapData, u64>,
    inject_mark: u32,
    tallies: PerCpuArray<MapData, u64>,
    /// Every map, whoever took it out.
    listed: Vec<Listed>,
    /// Values are [`abi::ScreenCount`], as the words they are made of.
    screen_counts: PerCpuArray<MapData, [u64; 2]>,
    /// The kernel empties a table of programs when user space lets go of it.
    stages: TypedMap<u32, u32>,
    /// All stages are in it, but perhaps that of ICMP errors.
    joined: bool,
    /// What is pinned of it, if anything is.
    load: Option<Load>,
}

/// A program of the object that packets (or test runs) enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// XDP.
    Xdp,
    /// TCX ingress.
    Ingress,
    /// Stage of the ingress program: known sessions.
    Session,
    /// Stage of the ingress program: first packets.
    Open,
    /// Stage of the ingress program: new sessions.
    Admit,
    /// Stage of the ingress program: ICMP errors.
    Related,
    /// ARP and neighbour discovery (tail call).
    Neighbour,
    /// TCX egress.
    Egress,
    /// Control.
    Control,
}

impl Program {
    /// All programs.
    pub const ALL: [Self; 9] = [
        Self::Xdp,
        Self::Ingress,
        Self::Session,
        Self::Open,
        Self::Admit,
        Self::Related,
        Self::Neighbour,
        Self::Egress,
        Self::Control,
    ];

    /// The stage that answers neighbours, by its index.
    const NEIGHBOUR: (u32, Self) = (4, Self::Neighbour);

    /// The stages by their index in the object's table of programs (`bulkhead_pipeline::Stage`), but for that of ICMP errors.
    const STAGES: [(u32, Self); 4] = [
        (0, Self::Session),
        (1, Self::Open),
        (2, Self::Admit),
        Self::NEIGHBOUR,
    ];

    /// The stage of ICMP errors, by its index.
    const RELATED: (u32, Self) = (3, Self::Related);

    /// Its name in the object.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xdp => "bulkhead_xdp",
            Self::Ingress => "bulkhead_ingress",
            Self::Session => "bulkhead_session",
            Self::Open => "bulkhead_open",
            Self::Admit => "bulkhead_admit",
            Self::Related => "bulkhead_related",
            Self::Neighbour => "bulkhead_neighbour",
            Self::Egress => "bulkhead_egress",
            Self::Control => "bulkhead_control",
        }
    }
}

/// The object that this build embeds.
#[must_use]
pub fn embedded() -> &'static [u8] {
    static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bulkhead-programs.o"));
    OBJECT
}

/// The marks of frames put back (low half) and of packets screened by XDP.
fn draw_marks() -> Result<u64, BpfError> {
    let [inject, screened] = [inject::draw_mark(), inject::draw_mark()];
    Ok(u64::from(inject.map_err(BpfError::Random)?) | u64::from(screened.map_err(BpfError::Random)?) << 32)
}

impl Object {
    /// Loads the embedded object into the kernel; nothing is attached yet.
    ///
    /// # Errors
    /// If the kernel refuses a map or a program; the verifier's log is part of the error.
    pub fn load(sizes: &Sizes) -> Result<Self, BpfError> {
        Self::load_for(sizes, false)
    }

    /// Loads the embedded object for routed mode or, if `wired`, for wire mode: the programs differ by what the verifier
    /// leaves out.
    ///
    /// # Errors
    /// As [`Object::load`].
    pub fn load_for(sizes: &Sizes, wired: bool) -> Result<Self, BpfError> {
        let mut object = Self::begin(sizes, wired, None)?;
        object.complete()?;
        Ok(object)
    }

    /// Makes the tables and begins to verify the programs; [`Object::complete`] waits for them, and before it no packet
    /// gets further than their first stage, which drops it.
    ///
    /// With `pins`, as the heir of what is pinned there, and what is added is pinned. Programs of the load before run on
    /// where they are: [`Object::attach`] finds them, [`Object::replace`] puts the new ones in their place.
    ///
    /// # Errors
    /// If the kernel refuses a map, or something cannot be pinned. Nothing has changed then.
    pub fn begin(sizes: &Sizes, wired: bool, pins: Option<Pins>) -> Result<Self, BpfError> {
        Self::begin_with(embedded(), sizes, wired, pins)
    }

    /// [`Object::begin`] with the object of another build of this `ABI_VERSION` in place of the embedded one. That it is of this
    /// version is the caller's word: an object does not say.
    ///
    /// # Errors
    /// As [`Object::begin`], and if it is no object with these programs.
    pub fn begin_with(
        object: &[u8],
        sizes: &Sizes,
        wired: bool,
        pins: Option<Pins>,
    ) -> Result<Self, BpfError> {
        let inheritance = pins.map(|pins| Inheritance::find(pins, sizes)).transpose()?;
        // Packets may be on their way under the marks of the load before.
        let marks = match inheritance.as_ref().and_then(Inheritance::marks) {
            Some(marks) => marks,
            None => draw_marks()?,
        };
        let (inject_mark, screened_mark) = (marks as u32, (marks >> 32) as u32);
        let plan = Plan {
            entries: &sizes::entries(sizes),
            constants: &[
                ("WIRED", u32::from(wired)),
                ("INJECT_MARK", inject_mark),
                ("SCREENED_MARK", screened_mark),
            ],
            adopted: inheritance.as_ref().map_or(&[], Inheritance::adopted),
        };
        let (mut tables, programs) = load::load(object, &plan)?;
        let listed = list(&tables)?;
        open::<u32, u64>(&tables, "MARKS")?.set(&0, &marks)?;
        let pinned = inheritance
            .map(|inheritance| inheritance.begin(|name| table_fd(&tables, name)))
            .transpose()?;
        let maps = KernelMaps::open(&tables)?;
        let counters = per_cpu(&mut tables, "COUNTERS")?;
        let tallies = per_cpu(&mut tables, "TALLIES")?;
        let screen_counts = per_cpu(&mut tables, "SCREEN_COUNTS")?;
        Ok(Self {
            stages: open(&tables, "STAGES")?,
            joined: false,
            tables,
            programs,
            maps: Arc::new(maps),
            counters,
            inject_mark,
            tallies,
            listed,
            screen_counts,
            load: pinned,
        })
    }

    /// Waits until the programs are verified that packets need to be judged, and joins their stages. To be called before
    /// anything is put in force; again, it does nothing.
    ///
    /// # Errors
    /// If the kernel refuses a program; the verifier's log is part of the error.
    pub fn ready(&mut self) -> Result<(), BpfError> {
        if self.joined {
            return Ok(());
        }
        for which in [Program::Egress, Program::Ingress, Program::Control] {
            self.programs.get(which)?;
        }
        for which in Program::STAGES {
            self.join(which)?;
        }
        self.joined = true;
        Ok(())
    }

    /// Waits for the rest: ICMP errors, which are dropped until then. Where nothing was in force before, there are no
    /// sessions yet that they could be about. XDP is not among it: it is verified for the first interface that runs it.
    ///
    /// # Errors
    /// As [`Object::ready`].
    pub fn complete(&mut self) -> Result<(), BpfError> {
        self.ready()?;
        self.join(Program::RELATED)
    }

    /// Enters the program of a stage into the table that the ingress program jumps through.
    fn join(&self, (index, which): (u32, Program)) -> Result<(), BpfError> {
        let program = self.programs.get(which)?.as_raw_fd() as u32;
        Ok(self.stages.set(&index, &program)?)
    }

    /// What each map takes, by name.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn memory(&self) -> Result<Vec<TableMemory>, BpfError> {
        self.listed
            .iter()
            .map(|map| map.memory().map_err(BpfError::from))
            .collect()
    }

    /// The mark under which frames are put back; see [`crate::inject`].
    #[must_use]
    pub const fn inject_mark(&self) -> u32 {
        self.inject_mark
    }

    /// Takes a ring buffer out of the object, once.
    ///
    /// # Errors
    /// If it was taken before.
    pub fn ring_buffer(&mut self, name: &'static str) -> Result<RingBuf<MapData>, BpfError> {
        let map = self.tables.remove(name).ok_or(BpfError::Missing(name))?;
        RingBuf::try_from(Map::RingBuf(map)).map_err(|source| BpfError::Map { name, source })
    }

    /// All counters, summed over CPUs, by slot.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn counters(&self) -> Result<Vec<u64>, BpfError> {
        (0..abi::Reason::SLOTS)
            .map(|slot| sum(&self.counters, "COUNTERS", slot))
            .collect()
    }

    /// One counter, summed over CPUs.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn counter(&self, slot: u32) -> Result<u64, BpfError> {
        sum(&self.counters, "COUNTERS", slot)
    }

    /// What was tallied, summed over CPUs.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn tallied(&self, tally: abi::Tally) -> Result<u64, BpfError> {
        sum(&self.tallies, "TALLIES", tally as u32)
    }

    /// What a zone's screen (by their numbers) has seen, summed over CPUs.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn screen_count(&self, zone: u8, screen: u32) -> Result<abi::ScreenCount, BpfError> {
        let index = abi::ScreenCount::index(zone, screen);
        let values = self
            .screen_counts
            .get(&index, 0)
            .map_err(|source| BpfError::Map {
                name: "SCREEN_COUNTS",
                source,
            })?;
        let mut sum = abi::ScreenCount::default();
        for [dropped, alarmed] in values.iter() {
            sum.dropped += dropped;
            sum.alarmed += alarmed;
        }
        Ok(sum)
    }

    /// The highest numbers that the loads before have put in force; zeros if there was none.
    #[must_use]
    pub fn inherited(&self) -> abi::Live {
        self.load.as_ref().map(Load::last).unwrap_or_default()
    }

    /// Whether no program was there before: what a start has attached then must not stay if it fails.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.load.as_ref().is_none_or(Load::is_fresh)
    }

    /// To be called before the first program of a load before is replaced: from now on the next start takes over from this
    /// load.
    ///
    /// # Errors
    /// If a table cannot be read, written or pinned.
    pub fn keep(&mut self) -> Result<(), BpfError> {
        if let Some(load) = &mut self.load {
            load.carry_over(&self.maps)?;
            load.keep()?;
        }
        Ok(())
    }

    /// To be called when no packet is in a program of a load before any more: takes away what only those needed. `links`
    /// are the pins of the links in use; `wait` returns when no packet is in a program any more that was taken off before it
    /// was called.
    ///
    /// # Errors
    /// The first of what went wrong; everything else is done all the same.
    pub fn finish(&mut self, links: &HashSet<PathBuf>, wait: impl FnOnce()) -> Result<(), BpfError> {
        if let Some(load) = &mut self.load {
            let carried = load.carry_over(&self.maps);
            let finished = load.finish(links, wait);
            carried?;
            finished?;
        }
        Ok(())
    }

    /// Whether it goes on without this process.
    #[must_use]
    pub const fn is_pinned(&self) -> bool {
        self.load.is_some()
    }

    /// The instance's directory, if anything is pinned.
    #[must_use]
    pub fn pinned_at(&self) -> Option<PathBuf> {
        let load = self.load.as_ref()?;
        Some(load.pins().directory().to_owned())
    }

    /// Removes everything that is pinned; links must be detached before.
    ///
    /// # Errors
    /// If a file cannot be removed.
    pub fn unpin(&mut self) -> Result<(), BpfError> {
        match self.load.take() {
            Some(mut load) => Ok(load.remove_all()?),
            None => Ok(()),
        }
    }
}
