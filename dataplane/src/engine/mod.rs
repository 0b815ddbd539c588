//! The running data plane of one network namespace.
//!
//! Owns the loaded programs, their attachments, the live generation, the mirror of the kernel's routes, and six threads
//! (netlink monitor, session ageing, translation, events, slow path, frames put back). Assumes that it is started in the
//! namespace of its interfaces and that nobody else attaches programs to them. Fails closed: the routing-policy rules that
//! forbid the kernel to forward from a data interface are set before anything else and stay when the engine goes.

mod ageing;
mod attach;
#[cfg(test)]
mod commit_faults;
mod events;
mod explain;
mod frames;
mod gateway;
mod grace;
mod groups;
mod mappings;
mod names;
mod neighbours;
mod pools;
mod screens;
mod sessions;
mod static_routes;
mod status;
mod translation;

mod self_test;

pub use groups::Change;
pub use mappings::PersistentMapping;
pub use pools::PoolStatus;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use bulkhead_abi::ControlRequest;
use crossbeam::channel::Receiver;

pub use ageing::AgeingReport;
pub use events::{EventKind, FlowEvent};
pub use explain::{Explain, Explanation};
pub use screens::ScreenStatus;
pub use self_test::{Check, SelfTests};
pub use sessions::{Direction, Session, SessionList};
pub use status::{InterfaceStatus, NatHits};

use self::names::Names;
use crate::{
    bpf::{BpfError, KernelMaps, Object, Sizes, embedded},
    compile::{CompileError, CompiledRuleset, compile_with},
    fib::{FibError, Mirror},
    inject::Injector,
    membership::{
        book::{Book, Moves},
        meaning::Meaning,
        writes,
    },
    netlink::{self, Family, Monitor, Netlink},
    pins::{PinError, Pins},
    pulse::{Pulse, Pulses},
    ruleset::Ruleset,
    slow_path::Sender,
    stage, steering,
    table::TableError,
};

/// Why the engine could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A data interface does not exist in this namespace.
    #[error("interface {0} does not exist")]
    NoSuchInterface(String),
    /// The kernel refuses a static route.
    #[error(
        "route to {to} via {via}: the kernel refuses it on interface {interface} ({error}); the router must be in a network of the interface"
    )]
    Route {
        /// The network.
        to: String,
        /// The router.
        via: std::net::IpAddr,
        /// The interface.
        interface: String,
        /// What the kernel said. Boxed: every result carries room for the largest error.
        error: Box<netlink::Error>,
    },
    /// An interface cannot be hooked as configured.
    #[error("interface {interface}: {reason}")]
    Hook {
        /// The interface.
        interface: String,
        /// Why not, and what would help.
        reason: String,
    },
    /// More data interfaces than one instance guards.
    #[error("{0} data interfaces are more than the {max} that one instance guards", max = bulkhead_abi::MAX_DATA_INTERFACES)]
    TooManyInterfaces(usize),
    /// The kernel's side of the programs and maps.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// A table operation.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The ruleset does not fit.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// Reading or writing the kernel's network configuration.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// More than the tables were made for.
    #[error("{count} {what} are more than the {most} that the tables hold; configure a larger `size`")]
    TooMany {
        /// Of which sort.
        what: &'static str,
        /// How many there would be.
        count: usize,
        /// How many fit.
        most: usize,
    },
    /// There is no dynamic group of that name.
    #[error("there is no dynamic address group {0}; configure one, or change a static group by a commit")]
    NoSuchGroup(String),
    /// What outlives the daemon.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// The route mirror.
    #[error(transparent)]
    Fib(#[from] FibError),
    /// A socket, a thread.
    #[error("{operation}: {source}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A question that cannot be answered.
    #[error("{0}")]
    Question(String),
}

/// How the engine is set up; everything that cannot change while it runs.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Table sizes.
    pub sizes: Sizes,
    /// The instance's directory in a bpffs ([`crate::pins::instance_directory`]): what is enforced outlives the process,
    /// and the next one takes it over. `None`: the programs go with the engine.
    pub pins: Option<std::path::PathBuf>,
    /// How long neighbours of data interfaces count as reachable; see [`Netlink::set_reachable_time`].
    pub neighbours: NeighbourTimes,
    /// The CPUs that handle what data interfaces receive; empty: as it is. See [`crate::steering`].
    pub cpus: Vec<usize>,
    /// The programs, as the object of another build of this `ABI_VERSION`; `None`: the one embedded here
    /// ([`crate::bpf::embedded`]).
    pub object: Option<Arc<Vec<u8>>>,
}

/// How long neighbours count as reachable. `None`: as the kernel has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighbourTimes {
    /// IPv4's.
    pub v4: Option<Duration>,
    /// IPv6's.
    pub v6: Option<Duration>,
}

/// What is in force.
struct Live {
    ruleset: Arc<Ruleset>,
    compiled: CompiledRuleset,
    /// The generation before, while it is not removed.
    previous: Option<CompiledRuleset>,
    /// Where addresses go whose entries are not yet what the book says in both halves: the moves of the last commit, or the
    /// way back of a change that failed.
    unsettled: Option<Moves>,
    /// Who is on which list.
    book: Book,
    /// What the lists mean for the ruleset.
    meaning: Meaning,
    /// The address classes whose vectors the generation has.
    classes: HashSet<u32>,
    /// The address classes that came since the commit and whose vectors `compiled` lists, written or not.
    noted: HashSet<u32>,
}

/// The route mirror and its socket.
struct Fib {
    netlink: Netlink,
    mirror: Mirror,
    epoch: u32,
}

/// State shared with the engine's threads. Locks are taken in the order of the fields.
struct Shared {
    interfaces: Mutex<Vec<attach::Interface>>,
    live: Mutex<Live>,
    fib: Mutex<Fib>,
    object: Mutex<Object>,
    screens: Mutex<screens::Totals>,
    maps: Arc<KernelMaps>,
    /// Names of the last commits by the judgement number each began with, for what events and flows refer to.
    history: RwLock<BTreeMap<u32, Arc<Names>>>,
    /// Interface names by index.
    names: RwLock<HashMap<u32, String>>,
    events: events::Hub,
    /// How full NAT pools are.
    pools: Mutex<pools::Watch>,
    generation: AtomicU32,
    /// The judgement number in force. Written under the lock on `live`.
    judgement: AtomicU32,
    /// The last generation that was tried; numbers of failed ones are not used again.
    tried: AtomicU32,
    /// The last judgement number that a daemon before this one put in force.
    inherited: u32,
    /// When this engine began to start: by then a daemon before it was gone.
    since_ns: u64,
    /// The programs were loaded for wire mode.
    wired: bool,
    stop: AtomicBool,
    /// Programs that somebody else took off their interfaces, or replaced there, and that are back.
    restored: AtomicU64,
    /// What the tables were made for.
    sizes: Sizes,
    /// What the last sweep came to.
    ageing: Mutex<AgeingReport>,
    neighbour_times: NeighbourTimes,
    /// The CPUs for what data interfaces receive.
    cpus: Vec<usize>,
    /// The threads' progress.
    pulses: Pulses,
    self_tests: self_test::Ledger,
}

/// Generations whose names are remembered.
const HISTORY: usize = 8;
/// A table, in eighths.
const WHOLE: usize = 8;

/// A lock whose holder panicked protects plain values that are complete between statements: use them.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The running data plane. Dropping it detaches the programs and leaves the fail-closed rules; if they are pinned they go
/// on.
pub struct Engine {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// What is pinned goes on when this is dropped: the start came to its end, or something was there before it.
    stays: AtomicBool,
}

/// A data plane whose programs are being verified. Dropping it leaves the fail-closed rules, and what was there before.
pub struct Starting {
    engine: Engine,
    ruleset: Arc<Ruleset>,
    monitor: Monitor,
    events: RingBuf<MapData>,
    slow_path: RingBuf<MapData>,
    frames: RingBuf<MapData>,
    sender: Sender,
    injector: Injector,
    repeater: Injector,
    announcer: neighbours::Announcer,
}

impl Starting {
    /// The second part of [`Engine::start`]: attaches, switches, takes over, follows.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn enforce(self) -> Result<Engine, EngineError> {
        let Self {
            engine,
            ruleset,
            monitor,
            events,
            slow_path,
            frames,
            sender,
            injector,
            repeater,
            mut announcer,
        } = self;
        engine.shared.commit(ruleset, WHOLE)?;
        lock(&engine.shared.object).complete()?;
        engine.shared.take_over()?;
        // Here and not by its thread: whoever is told that the start is over may ask, and must be heard.
        announcer.pass(&engine.shared);
        engine.spawn("bulkhead-netlink", move |shared, pulse| {
            attach::follow(shared, monitor, pulse)
        })?;
        engine.spawn("bulkhead-ageing", move |shared, pulse| {
            ageing::run(shared, &repeater, pulse)
        })?;
        engine.spawn("bulkhead-nat", move |shared, pulse| {
            translation::run(shared, announcer, pulse)
        })?;
        engine.spawn("bulkhead-events", move |shared, pulse| {
            events::run(shared, events, pulse)
        })?;
        engine.spawn("bulkhead-answers", move |shared, pulse| {
            events::answer(shared, slow_path, &sender, pulse)
        })?;
        engine.spawn("bulkhead-frames", move |shared, pulse| {
            frames::run(shared, frames, &injector, pulse)
        })?;
        engine.stays.store(true, Ordering::Release);
        Ok(engine)
    }
}

impl Engine {
    /// Starts in the calling thread's network namespace and enforces `ruleset` when it returns.
    ///
    /// Order: fail-closed rules, tables, programs (which deny everything without a generation, and are verified while the rest
    /// is prepared), addresses, mirror, switch. Where a daemon before this one has left its programs they go on until the
    /// switch, and are replaced after it.
    ///
    /// # Errors
    /// The first thing that failed. Nothing is forwarded then: the programs are gone, the rules stay. Programs that were
    /// there before go on, or this engine's in their place.
    pub fn start(ruleset: Ruleset, options: &Options) -> Result<Self, EngineError> {
        Self::begin(ruleset, options)?.enforce()
    }

    /// The first part of [`Engine::start`]: the fail-closed rules are there, the tables are made, the programs are being
    /// verified. Nothing else has changed. Whoever has something to do before the switch does it now.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub fn begin(ruleset: Ruleset, options: &Options) -> Result<Starting, EngineError> {
        let mut netlink = Netlink::connect()?;
        // Subscribed before anything is read, so that no change falls between.
        let monitor = Monitor::connect()?;
        attach::check(&mut netlink, &ruleset)?;
        attach::fail_closed(&mut netlink, &ruleset)?;
        let sender = Sender::open().map_err(|source| EngineError::System {
            operation: "open a packet socket for answers (needs CAP_NET_RAW)",
            source,
        })?;
        let wired = !ruleset.wires.is_empty();
        let pins = options.pins.as_deref().map(Pins::open).transpose()?;
        let bytes = options
            .object
            .as_ref()
            .map_or(embedded(), |bytes| bytes.as_slice());
        let mut object = Object::begin_with(bytes, &options.sizes, wired, pins)?;
        let (inherited, fresh, since_ns) = (object.inherited(), object.is_fresh(), ageing::now_ns());
        let events = object.ring_buffer("EVENTS")?;
        let slow_path = object.ring_buffer("SLOW_PATH")?;
        let frames = object.ring_buffer("FRAMES")?;
        let open_injector = |object: &Object| {
            Injector::open(object.inject_mark()).map_err(|source| EngineError::System {
                operation: "open a packet socket for frames put back (needs CAP_NET_RAW and CAP_NET_ADMIN)",
                source,
            })
        };
        let (injector, repeater) = (open_injector(&object)?, open_injector(&object)?);
        let announcer = neighbours::Announcer::open().map_err(|source| EngineError::System {
            operation: "open packet sockets for announcements (needs CAP_NET_RAW and CAP_NET_ADMIN)",
            source,
        })?;
        let maps = object.maps.clone();
        let ruleset = Arc::new(ruleset);
        let shared = Arc::new(Shared {
            interfaces: Mutex::new(Vec::new()),
            live: Mutex::new(Live {
                ruleset: ruleset.clone(),
                compiled: CompiledRuleset::default(),
                previous: None,
                unsettled: None,
                book: Book::default(),
                meaning: Meaning::default(),
                classes: HashSet::new(),
                noted: HashSet::new(),
            }),
            fib: Mutex::new(Fib {
                netlink,
                mirror: Mirror::default(),
                epoch: inherited.fib_epoch,
            }),
            object: Mutex::new(object),
            screens: Mutex::default(),
            maps,
            history: RwLock::new(BTreeMap::new()),
            names: RwLock::new(HashMap::new()),
            events: events::Hub::default(),
            pools: Mutex::default(),
            generation: AtomicU32::new(0),
            judgement: AtomicU32::new(inherited.generation),
            tried: AtomicU32::new(inherited.tables),
            inherited: inherited.generation,
            since_ns,
            wired,
            stop: AtomicBool::new(false),
            restored: AtomicU64::new(0),
            sizes: options.sizes,
            ageing: Mutex::new(AgeingReport::default()),
            neighbour_times: options.neighbours,
            cpus: options.cpus.clone(),
            pulses: Pulses::default(),
            self_tests: self_test::Ledger::new(),
        });
        let engine = Self {
            shared,
            threads: Mutex::new(Vec::new()),
            stays: AtomicBool::new(!fresh),
        };
        Ok(Starting {
            engine,
            ruleset,
            monitor,
            events,
            slow_path,
            frames,
            sender,
            injector,
            repeater,
            announcer,
        })
    }

    fn spawn(
        &self,
        name: &str,
        body: impl FnOnce(&Shared, &Pulse) + Send + 'static,
    ) -> Result<(), EngineError> {
        #[cfg(test)]
        crate::faults::point().map_err(|source| EngineError::System {
            operation: "start a thread",
            source,
        })?;
        let shared = self.shared.clone();
        let pulse = shared.pulses.take(name, TURN);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || body(&shared, &pulse))
            .map_err(|source| EngineError::System {
                operation: "start a thread",
                source,
            })?;
        lock(&self.threads).push(thread);
        Ok(())
    }

    /// Replaces the configuration: stages the new generation beside the live one and switches with one store. To be
    /// called from a thread in the engine's network namespace.
    ///
    /// # Errors
    /// The first thing that failed; the old generation stays in force.
    pub fn commit(&self, ruleset: Ruleset) -> Result<u32, EngineError> {
        self.shared.commit(Arc::new(ruleset), WHOLE)
    }

    /// The same for a ruleset that must leave room beside it: its rule vectors fill at most so many eighths of their table, in
    /// which two generations must fit at times.
    ///
    /// # Errors
    /// As [`Engine::commit`].
    pub fn commit_within(&self, ruleset: Ruleset, eighths: usize) -> Result<u32, EngineError> {
        self.shared.commit(Arc::new(ruleset), eighths)
    }

    /// The configuration in force.
    #[must_use]
    pub fn ruleset(&self) -> Arc<Ruleset> {
        lock(&self.shared.live).ruleset.clone()
    }

    /// The generation in force.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// A stream of what happens from now on. Bounded: a reader that falls behind loses events, which are counted as
    /// `observer_events_lost`.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<FlowEvent> {
        self.shared.events.subscribe()
    }

    /// The last `count` events, oldest first.
    #[must_use]
    pub fn recent_events(&self, count: usize) -> Vec<FlowEvent> {
        self.shared.events.recent(count)
    }

    /// Runs `f` on the loaded object, for measurements and tests.
    pub fn with_object<R>(&self, f: impl FnOnce(&mut Object) -> R) -> R {
        f(&mut lock(&self.shared.object))
    }

    /// Detaches every program, removes what is pinned and leaves the fail-closed rules: without pins, what a crash would do.
    /// Nothing is followed any more: the next change of the network would bring the programs back.
    pub fn detach(&self) {
        self.shared.stop.store(true, Ordering::Release);
        for interface in lock(&self.shared.interfaces).iter_mut() {
            interface.detach();
        }
        if let Err(error) = lock(&self.shared.object).unpin() {
            tracing::error!(%error, "something pinned could not be removed");
        }
    }

    /// Stops the threads and detaches the programs. The fail-closed rules stay.
    pub fn stop(&self) {
        self.rest();
        self.detach();
    }

    /// Stops the threads. Programs that are pinned go on as they are, with the configuration and the routes that they have
    /// now, until another engine takes over; others are detached.
    pub fn leave(&self) {
        self.rest();
        if !self.is_pinned() {
            self.detach();
        }
    }

    /// What the tables were made for.
    #[must_use]
    pub fn sizes(&self) -> &Sizes {
        &self.shared.sizes
    }

    /// Whether what is enforced goes on without this process.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        lock(&self.shared.object).is_pinned()
    }

    /// Where it is pinned.
    #[must_use]
    pub fn pinned_at(&self) -> Option<std::path::PathBuf> {
        lock(&self.shared.object).pinned_at()
    }

    fn rest(&self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.pulses.forget();
        for thread in lock(&self.threads).drain(..) {
            if thread.join().is_err() {
                tracing::error!("a data plane thread had panicked");
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.stays.load(Ordering::Acquire) {
            self.leave();
        } else {
            // A start that failed.
            self.stop();
        }
    }
}

impl Shared {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Puts this load's programs in the place of those that a daemon before has left, and takes away what only those needed.
    fn take_over(&self) -> Result<(), EngineError> {
        let mut interfaces = lock(&self.interfaces);
        let mut object = lock(&self.object);
        if !object.is_pinned() {
            return Ok(());
        }
        if let Err(error) = object.keep() {
            interfaces.iter_mut().for_each(attach::Interface::abandon);
            return Err(error.into());
        }
        if attach::renew(&mut interfaces, &object)? {
            // Packets that the programs before are busy with need their tables.
            grace::period();
        }
        if let Err(error) = object.finish(&attach::pins(&interfaces), grace::period) {
            tracing::error!(%error, "what the daemon before has left could not be removed; the next start tries again");
        }
        Ok(())
    }

    /// Stages, switches, and remembers.
    fn commit(&self, ruleset: Arc<Ruleset>, eighths: usize) -> Result<u32, EngineError> {
        if ruleset.wires.is_empty() == self.wired {
            return Err(EngineError::Question(
                "routed and wire mode are different programs: restart to change `forwarding`".to_owned(),
            ));
        }
        let mut interfaces = lock(&self.interfaces);
        let mut live = lock(&self.live);
        let mut fib = lock(&self.fib);
        attach::check(&mut fib.netlink, &ruleset)?;
        attach::fail_closed(&mut fib.netlink, &ruleset)?;
        let mut next = attach::plan(&mut fib.netlink, &ruleset)?;
        let indices: Vec<Option<u32>> = next.iter().map(|interface| interface.index).collect();
        let generation = self.next_generation();
        let live = &mut *live;
        self.clear_up(live)?;
        let (book, before) = (&mut live.book, &live.ruleset);
        let (done, meaning) = book.commit(before, &ruleset).map_err(CompileError::from)?;
        let staged = self.fits(book, &done.moves).and_then(|()| {
            let classes = book.classes(&meaning);
            let compiled = compile_with(&ruleset, generation, &indices, &classes)?;
            self.has_room(&compiled, live.compiled.vectors.len(), eighths)?;
            Ok((compiled, classes))
        });
        let (compiled, classes) = match staged {
            Ok(staged) => staged,
            Err(error) => {
                book.undo(done, None);
                return Err(error);
            }
        };
        let switched = stage::stage(&self.maps, &compiled)
            .and_then(|()| self.stage_addresses(&done.moves))
            .map_err(EngineError::from)
            .and_then(|()| self.settle_screens(&live.ruleset, &ruleset))
            .and_then(|()| self.switch(&mut interfaces, &mut next, &mut fib, &ruleset, generation));
        if let Err(error) = switched {
            // Nothing of it may be found by a later generation; its number is spent. The first error is the one that matters.
            // First its names for the next judgement number, which is then another's.
            self.forget();
            self.take_back(live, done.moves.turned());
            let removed = stage::remove(&self.maps, &compiled);
            // At a start the routes may be those of a daemon before, whose programs go on.
            if self.generation.load(Ordering::Acquire) != 0 {
                let _restored = static_routes::restore(&mut fib.netlink, &interfaces);
                let _retained = static_routes::retain(&mut fib.netlink, &live.ruleset);
            }
            let _mirrored = self.sync(&interfaces, &mut fib);
            live.book.undo(done, None);
            if let Err(left) = removed {
                tracing::error!(error = %left, "entries of a failed commit are left; they are removed at the next look");
                // There is none: it was cleared up above.
                live.previous = Some(compiled);
            }
            return Err(error);
        }
        // What is no longer configured loses its programs; its fail-closed rule stays.
        interfaces.iter_mut().for_each(attach::Interface::detach);
        *interfaces = next;
        let first = self.generation.swap(generation, Ordering::AcqRel) == 0;
        let over = std::mem::replace(&mut live.compiled, compiled);
        live.ruleset = ruleset;
        live.meaning = meaning;
        live.classes = classes.into_iter().map(|(class, _)| class).collect();
        live.noted.clear();
        let retained = static_routes::retain(&mut fib.netlink, &live.ruleset);
        if let Err(error) = retained.and_then(|gone| {
            if gone {
                self.sync(&interfaces, &mut fib)
            } else {
                Ok(())
            }
        }) {
            tracing::warn!(%error, "static routes of the configuration before are left; the next one tries again");
        }
        if !first {
            live.previous = Some(over);
            live.unsettled = Some(done.moves);
            grace::period();
            if let Err(error) = self.clear_up(live) {
                tracing::warn!(%error, "the generation before is not all removed; the next change tries again");
            }
        }
        Ok(generation)
    }

    /// Whether the tables have room for a generation beside the live one, which has so many words of vectors; and whether
    /// it keeps to so many eighths of the words.
    fn has_room(&self, compiled: &CompiledRuleset, live: usize, eighths: usize) -> Result<(), EngineError> {
        let (rules, words) = (self.sizes.rules as usize / 2, self.sizes.vectors() as usize);
        for (what, count, most) in [
            ("rules", compiled.rules.len(), rules),
            (
                "words of rule vectors, of this and the next configuration,",
                compiled.vectors.len() + live,
                words,
            ),
            (
                "words of rule vectors, which must leave room for other configurations,",
                compiled.vectors.len(),
                words * eighths / WHOLE,
            ),
            (
                "sets of services with a timeout",
                compiled.service_timeouts.len(),
                self.sizes.service_timeouts() as usize / 2,
            ),
        ] {
            if count > most {
                return Err(EngineError::TooMany { what, count, most });
            }
        }
        Ok(())
    }

    /// Writes what addresses will be in the next generation beside what they are.
    fn stage_addresses(&self, moves: &Moves) -> Result<(), TableError> {
        let live = self.generation.load(Ordering::Acquire);
        if live == 0 {
            // Nobody looks yet.
            return groups::follow(&self.maps, moves);
        }
        stage::follow4(&self.maps, &writes::stage(&moves.v4, live))?;
        stage::follow6(&self.maps, &writes::stage(&moves.v6, live))
    }

    /// Removes the generation before and what addresses were in it. No packet is judged by it any more.
    fn clear_up(&self, live: &mut Live) -> Result<(), EngineError> {
        if self.live.is_poisoned() {
            return Err(EngineError::Question(
                "a change before this one broke off half-way, so the tables may not be what the book says: restart the data plane"
                    .to_owned(),
            ));
        }
        self.settle(live)?;
        if let Some(previous) = &live.previous {
            stage::remove(&self.maps, previous)?;
            live.previous = None;
        }
        Ok(())
    }

    /// Does what a change could not: another try, for as long as there is something left.
    fn tidy(&self) -> Result<(), EngineError> {
        let mut live = lock(&self.live);
        if live.previous.is_some() || live.unsettled.is_some() {
            self.clear_up(&mut live)?;
        }
        Ok(())
    }

    /// Makes packets be judged anew, by the tables of `generation`.
    fn judge(&self, generation: u32) -> Result<(), EngineError> {
        let judgement = self.judgement.load(Ordering::Acquire) + 1;
        if judgement >= bulkhead_abi::flow_generation::MARK {
            return Err(EngineError::Question(
                "2147483647 changes are as many as sessions can tell apart, those of restarts included: stop the daemon, \
                 `bulkhead detach` (which ends the sessions), then start it"
                    .to_owned(),
            ));
        }
        let mut request = ControlRequest {
            operation: 1,
            argument: judgement,
            ..ControlRequest::default()
        };
        request.key[0] = generation;
        if !self.request(&request)? {
            return Err(EngineError::Question(
                "the programs did not switch generations".to_owned(),
            ));
        }
        self.judgement.store(judgement, Ordering::Release);
        Ok(())
    }

    /// A number no generation had, whose settings slot is not the live one's.
    fn next_generation(&self) -> u32 {
        let live = self.generation.load(Ordering::Acquire);
        let mut next = self.tried.load(Ordering::Acquire) + 1;
        if live != 0 && next & 1 == live & 1 {
            next += 1;
        }
        self.tried.store(next, Ordering::Release);
        next
    }

    /// Attaches, mirrors and switches to a staged generation. On an error `interfaces` have their attachments back.
    ///
    /// The programs must be there before the interfaces come up and before the kernel's view of them is mirrored, and both
    /// before the switch: an interface that is attached and in no zone denies.
    fn switch(
        &self,
        interfaces: &mut [attach::Interface],
        next: &mut [attach::Interface],
        fib: &mut Fib,
        ruleset: &Ruleset,
        generation: u32,
    ) -> Result<(), EngineError> {
        attach::adopt(interfaces, next, &mut lock(&self.object))?;
        let result = attach::add_addresses(&mut fib.netlink, ruleset)
            .and_then(|()| static_routes::set(&mut fib.netlink, ruleset))
            .and_then(|()| self.tune(&mut fib.netlink, ruleset))
            .and_then(|()| self.sync(next, fib))
            .and_then(|()| {
                // At the start the verifier has been at work until now.
                lock(&self.object).ready()?;
                self.remember(ruleset);
                self.judge(generation)
            });
        if result.is_err() {
            attach::give_back(interfaces, next);
        }
        result
    }

    /// Tells the kernel how long neighbours of data interfaces are to count as reachable, and on which CPUs to handle what
    /// they receive. The latter it may refuse: that costs speed, and is said.
    fn tune(&self, netlink: &mut Netlink, ruleset: &Ruleset) -> Result<(), EngineError> {
        let NeighbourTimes { v4, v6 } = self.neighbour_times;
        if !self.cpus.is_empty() {
            for interface in &ruleset.interfaces {
                let link = netlink.link_by_name(&interface.name)?;
                if let Err(error) = steering::steer(&link, &self.cpus) {
                    tracing::warn!(interface = interface.name, %error, "packets cannot be steered to the data CPUs");
                }
            }
        }
        for (family, time) in [(Family::V4, v4), (Family::V6, v6)] {
            let Some(time) = time else { continue };
            for interface in &ruleset.interfaces {
                let index = netlink.link_by_name(&interface.name)?.index;
                netlink.set_reachable_time(index, family, time)?;
            }
        }
        Ok(())
    }

    /// Keeps the names that the next judgement number begins with, for what its events and flows refer to.
    fn remember(&self, ruleset: &Ruleset) {
        let names = Arc::new(Names::of(ruleset));
        let mut history = self.history.write().unwrap_or_else(PoisonError::into_inner);
        history.insert(self.judgement.load(Ordering::Acquire) + 1, names);
        while history.len() > HISTORY {
            history.pop_first();
        }
    }

    /// Mirrors routes, neighbours and interfaces, and raises the FIB epoch if anything differs.
    fn sync(&self, interfaces: &[attach::Interface], fib: &mut Fib) -> Result<(), EngineError> {
        let data = attach::data(interfaces);
        let synced = fib.mirror.sync(&mut fib.netlink, &self.maps, &data);
        // After an error too: a part may have been written.
        if !matches!(synced, Ok(false)) {
            self.raise_epoch(fib)?;
        }
        synced?;
        *self.names.write().unwrap_or_else(PoisonError::into_inner) = fib
            .netlink
            .links()?
            .into_iter()
            .map(|link| (link.index, link.name))
            .collect();
        Ok(())
    }

    fn raise_epoch(&self, fib: &mut Fib) -> Result<(), EngineError> {
        fib.epoch = fib.epoch.wrapping_add(1);
        self.request(&ControlRequest {
            operation: 2,
            argument: fib.epoch,
            ..ControlRequest::default()
        })?;
        Ok(())
    }

    /// Asks the control program; whether it did something.
    fn request(&self, request: &ControlRequest) -> Result<bool, EngineError> {
        #[cfg(test)]
        crate::faults::point().map_err(|source| EngineError::System {
            operation: "ask the control program",
            source,
        })?;
        Ok(lock(&self.object).control(request)?)
    }

    /// Forgets the names of a commit that did not happen.
    fn forget(&self) {
        let mut history = self.history.write().unwrap_or_else(PoisonError::into_inner);
        history.remove(&(self.judgement.load(Ordering::Acquire) + 1));
    }

    /// The names that a judgement number belongs to; of one that is forgotten, the oldest that are not. Of a number that the
    /// daemon before gave there are none: the rules' numbers that go with it would name others.
    fn names_of(&self, judgement: u32) -> Arc<Names> {
        if judgement != 0 && judgement <= self.inherited {
            return Arc::default();
        }
        let history = self.history.read().unwrap_or_else(PoisonError::into_inner);
        let found = history.range(..=judgement).next_back();
        match found.or_else(|| history.first_key_value()) {
            Some((_, names)) => names.clone(),
            None => Arc::default(),
        }
    }

    /// The judgement number that the commit in force began with.
    fn judged_from(&self) -> u32 {
        let history = self.history.read().unwrap_or_else(PoisonError::into_inner);
        history.last_key_value().map_or(0, |(judgement, _)| *judgement)
    }

    fn interface_name(&self, index: u32) -> String {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.get(&index).cloned().unwrap_or_else(|| format!("#{index}"))
    }
}

/// How long a turn of a thread's loop may take: a sweep of millions of sessions, a commit that it waits for.
const TURN: Duration = Duration::from_secs(60);

/// How long threads sleep between looks at the stop flag.
const TICK: Duration = Duration::from_millis(20);
