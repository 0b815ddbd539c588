//! The object on its way into the kernel: its maps made, its programs linked against them and verified.
//!
//! Owns the order. Programs are verified on threads of their own, the ones that are attached first before the others:
//! the verifier takes most of a start's time, one program on one CPU. Meanwhile the caller compiles, writes tables and
//! attaches; [`Programs::get`] waits for the one that is asked for. XDP is verified when somebody asks, since most interfaces
//! run TCX alone. Assumes that the object is the one built with this crate, or another build's of the same ABI. Refuses to go
//! on with an object that lacks one of its programs.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    io,
    num::NonZero,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use aya::maps::MapData;
use aya_obj::EbpfSectionKind;

use super::{
    BpfError, Program,
    program::{self, Code, Refusal},
};

/// The object's maps by name.
pub(crate) type Maps = BTreeMap<String, MapData>;

/// What is said at the load.
pub(crate) struct Plan<'a> {
    /// Entries of maps.
    pub(crate) entries: &'a [(&'static str, u32)],
    /// Constants of the programs.
    pub(crate) constants: &'a [(&'static str, u32)],
    /// Pinned maps to be used in place of new ones.
    pub(crate) adopted: &'a [(&'static str, PathBuf)],
}

/// Makes the maps and begins to verify the programs.
///
/// # Errors
/// If the object is not what this build expects, or the kernel refuses a map. What it says about a program, whoever needs
/// the program hears.
pub(crate) fn load(object: &[u8], plan: &Plan<'_>) -> Result<(Maps, Programs), BpfError> {
    let mut object = aya_obj::Object::parse(object)?;
    let constants: Vec<_> = plan
        .constants
        .iter()
        .map(|(name, value)| (*name, value.to_ne_bytes()))
        .collect();
    object.patch_map_data(
        constants
            .iter()
            .map(|(name, bytes)| (*name, (bytes.as_slice(), true)))
            .collect(),
    )?;
    let types = match aya::features().btf() {
        Some(features) => object
            .fixup_and_sanitize_btf(features)?
            .map(aya_obj::btf::Btf::to_bytes),
        None => None,
    };
    let types = types.map(|types| program::load_types(&types)).transpose();
    let types = types.map_err(BpfError::Types)?.map(Arc::new);

    let mut definitions: Vec<(String, aya_obj::Map)> = object.maps.drain().collect();
    for (name, definition) in &mut definitions {
        let configured = plan.entries.iter().find(|(own, _)| own == name);
        if let Some((_, entries)) = configured {
            definition.set_max_entries(*entries);
        }
    }
    // The largest first, so that no CPU is left alone with one of them.
    let bytes =
        |map: &aya_obj::Map| u64::from(map.max_entries()) * u64::from(map.key_size() + map.value_size());
    definitions.sort_by_cached_key(|(_, definition)| Reverse(bytes(definition)));
    let maps = make(&definitions, plan.adopted, types.as_deref())?;

    let sections = object.functions.keys().map(|(section, _)| *section).collect();
    let tables = definitions.iter().filter_map(|(name, definition)| {
        let fd = maps.get(name)?.fd().as_fd().as_raw_fd();
        Some((name.as_str(), fd, definition))
    });
    object.relocate_maps(tables, &sections)?;
    object.relocate_calls(&sections)?;
    let mut codes = HashMap::new();
    for which in Program::ALL {
        let missing = || BpfError::Missing(which.name());
        let program = object.programs.get(which.name()).ok_or_else(missing)?;
        let function = object
            .functions
            .remove(&program.function_key())
            .ok_or_else(missing)?;
        codes.insert(which, Code::new(which.name(), program, function, types.clone()));
    }
    Ok((maps, Programs::begin(codes)))
}

/// Makes or adopts the maps, on all CPUs: what the kernel reserves for the larger ones it fills with zeros first.
fn make(
    definitions: &[(String, aya_obj::Map)],
    adopted: &[(&'static str, PathBuf)],
    types: Option<&OwnedFd>,
) -> Result<Maps, BpfError> {
    let one = |name: &String, definition: &aya_obj::Map| {
        let map = match adopted.iter().find(|(own, _)| own == name) {
            Some((_, path)) => MapData::from_pin(path),
            None => MapData::create(definition.clone(), name, types.map(OwnedFd::as_fd)),
        };
        let map = map.map_err(|source| BpfError::Create {
            name: name.clone(),
            source,
        })?;
        initialize(definition, &map).map_err(|source| BpfError::Initialize {
            name: name.clone(),
            source,
        })?;
        Ok((name.clone(), map))
    };
    let begun = AtomicUsize::new(0);
    let work = || {
        let next = || definitions.get(begun.fetch_add(1, Ordering::AcqRel));
        let made = std::iter::from_fn(|| next().map(|(name, definition)| one(name, definition)));
        made.collect::<Result<Vec<_>, BpfError>>()
    };
    thread::scope(|scope| {
        let spawn = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..threads()).filter_map(spawn).collect();
        let mut made = work()?;
        for other in others {
            made.extend(other.join().unwrap_or(Err(BpfError::Panicked))?);
        }
        Ok(made.into_iter().collect())
    })
}

/// How many threads load.
fn threads() -> usize {
    thread::available_parallelism()
        .map_or(1, NonZero::get)
        .min(MOST_THREADS)
}

/// Gives a map of constants or variables its content.
fn initialize(definition: &aya_obj::Map, map: &MapData) -> io::Result<()> {
    if definition.data().is_empty() {
        return Ok(());
    }
    program::fill(map.fd().as_fd(), definition.data())?;
    if definition.section_kind() == EbpfSectionKind::Rodata {
        // Known to be constant, it tells the verifier which branches there are.
        program::freeze(map.fd().as_fd())?;
    }
    Ok(())
}

/// The order in which programs are verified without being asked for: what is attached first, while the others are verified;
/// then those that take longest, so that no CPU is left alone with one of them; last what packets can be judged without.
const ORDER: [Program; 8] = [
    Program::Egress,
    Program::Ingress,
    Program::Neighbour,
    Program::Admit,
    Program::Session,
    Program::Open,
    Program::Control,
    Program::Related,
];

/// Most threads that make maps and verify programs.
const MOST_THREADS: usize = 4;

/// The programs of a load. Dropping it waits for those that are being verified.
pub(crate) struct Programs {
    slots: Arc<Slots>,
    threads: Vec<JoinHandle<()>>,
}

struct Slots {
    slots: HashMap<Program, Slot>,
    /// Of [`ORDER`], how many somebody has begun with.
    begun: AtomicUsize,
    stop: AtomicBool,
}

struct Slot {
    /// Gone once it is verified.
    code: Mutex<Option<Code>>,
    program: OnceLock<Result<OwnedFd, Refusal>>,
}

impl Slots {
    /// A program, by the verdict of whoever begins with it; others wait.
    fn get(&self, which: Program) -> Result<BorrowedFd<'_>, BpfError> {
        let slot = self.slots.get(&which).ok_or(BpfError::Missing(which.name()))?;
        let verify = || {
            let code = slot.code.lock().unwrap_or_else(PoisonError::into_inner).take();
            match code {
                Some(code) => code.load(),
                // Whoever began with it has panicked.
                None => Err(Refusal::unknown()),
            }
        };
        match slot.program.get_or_init(verify) {
            Ok(program) => Ok(program.as_fd()),
            Err(refusal) => Err(BpfError::Program {
                operation: format!("load {}", which.name()),
                source: io::Error::other(refusal.clone()),
            }),
        }
    }

    /// Verifies programs until none is left.
    fn verify(&self) {
        while !self.stop.load(Ordering::Acquire) {
            let Some(which) = ORDER.get(self.begun.fetch_add(1, Ordering::AcqRel)) else {
                return;
            };
            // Told to whoever asks for it.
            let _verdict = self.get(*which);
        }
    }
}

impl Programs {
    fn begin(codes: HashMap<Program, Code>) -> Self {
        let slot = |(which, code)| {
            let slot = Slot {
                code: Mutex::new(Some(code)),
                program: OnceLock::new(),
            };
            (which, slot)
        };
        let slots = Arc::new(Slots {
            slots: codes.into_iter().map(slot).collect(),
            begun: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let spawn = |_| {
            let slots = slots.clone();
            let thread = thread::Builder::new().name("bulkhead-verify".to_owned());
            // Where no thread can be had, whoever needs a program verifies it.
            thread.spawn(move || slots.verify()).ok()
        };
        Self {
            threads: (0..threads()).filter_map(spawn).collect(),
            slots,
        }
    }

    /// A program; waits for the verifier if it must.
    ///
    /// # Errors
    /// If the kernel refused it.
    pub(crate) fn get(&self, which: Program) -> Result<BorrowedFd<'_>, BpfError> {
        self.slots.get(which)
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        self.slots.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that verifies programs had panicked");
            }
        }
    }
}
