//! The BPF object: loading it with the configured sizes, attaching it, and its tables as typed maps.

use std::{
    collections::HashSet,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use aya::maps::{Map, MapData, MapType, PerCpuArray, RingBuf};
use bulkhead_abi as abi;
use zerocopy::IntoBytes as _;

use crate::{
    inject,
    link::{self, Hook, Link, LinkError},
    load::{self, Maps, Plan, Programs},
    memory::{Kind, Listed, TableMemory},
    pins::{Inheritance, Load, PinError, Pins},
    program::{self, Refusal},
    table::{TableError, TypedMap},
};
pub use crate::{link::has_tcx, program::TestRunOutcome};

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

/// How many entries the tables may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Established sessions per family.
    pub sessions: u32,
    /// Half-open and one-way sessions per family.
    pub half_open: u32,
    /// Rules, summed over two generations.
    pub rules: u32,
    /// Addresses and prefixes per family.
    pub addresses: u32,
    /// Routes per family.
    pub routes: u32,
    /// Neighbours.
    pub neighbours: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self::medium()
    }
}

impl Sizes {
    /// Words of rule vectors, summed over two generations: eight for each rule. One that names a source, a destination
    /// and a service of its own has nine; few do. A hash has a power of two of heads, which a few words more would double.
    pub(crate) const fn vectors(&self) -> u32 {
        let words = self.rules.saturating_mul(8);
        if words < 16_384 {
            return 16_384;
        }
        let heads = 1 << words.ilog2();
        if words - heads < heads / 64 { heads } else { words }
    }

    /// Timeouts of service classes, summed over two generations: as many as rules, each of which may name a service of its
    /// own.
    pub(crate) const fn service_timeouts(&self) -> u32 {
        if self.rules < 16_384 { 16_384 } else { self.rules }
    }

    /// A branch: 64 thousand sessions, 8 thousand rules, 32 thousand addresses.
    #[must_use]
    pub const fn small() -> Self {
        Self {
            sessions: 65_536,
            half_open: 16_384,
            rules: 16_384,
            addresses: 32_768,
            routes: 8_192,
            neighbours: 4_096,
        }
    }

    /// The default: 256 thousand sessions, 64 thousand rules, 256 thousand addresses.
    #[must_use]
    pub const fn medium() -> Self {
        Self {
            sessions: 262_144,
            half_open: 65_536,
            rules: 131_072,
            addresses: 262_144,
            routes: 65_536,
            neighbours: 16_384,
        }
    }

    /// A site: a million sessions, 128 thousand rules, a million addresses.
    #[must_use]
    pub const fn large() -> Self {
        Self {
            sessions: 1_048_576,
            half_open: 131_072,
            rules: 262_144,
            addresses: 1_048_576,
            routes: 262_144,
            neighbours: 65_536,
        }
    }

    /// All that the tables are made for: four million sessions, 256 thousand rules, two million addresses.
    #[must_use]
    pub const fn xlarge() -> Self {
        Self {
            sessions: 4_194_304,
            half_open: 262_144,
            rules: 524_288,
            addresses: 2_097_152,
            routes: 1_048_576,
            neighbours: 131_072,
        }
    }
}

/// Words of the rules that accept anything, of two generations of three rule sets: all there can be, were they full.
pub(crate) const ANY_VECTORS: u32 = 2 * 3 * (1 + abi::PAGES + abi::PAGES * abi::RULES_PER_PAGE / 64);
impl Sizes {
    /// Entries of a table of established flows: two per session.
    pub(crate) fn flows(&self) -> u32 {
        self.sessions.saturating_mul(2).max(2)
    }

    /// Entries of a table of half-open flows.
    pub(crate) fn half_open_flows(&self) -> u32 {
        self.half_open.saturating_mul(2).max(2)
    }
}

/// Addresses whose sessions are counted, of all zones with limits together.
pub const LIMITED_ADDRESSES: u32 = 65_536;

/// The object's tables, typed.
#[derive(Debug)]
pub struct KernelMaps {
    /// The live record.
    pub live: TypedMap<u32, abi::Live>,
    /// Settings by `generation & 1`.
    pub settings: TypedMap<u32, abi::Settings>,
    /// Established IPv4 flows.
    pub flows4: TypedMap<abi::FlowKey4, abi::Flow>,
    /// Established IPv6 flows.
    pub flows6: TypedMap<abi::FlowKey6, abi::Flow>,
    /// Half-open IPv4 flows.
    pub half_open4: TypedMap<abi::FlowKey4, abi::Flow>,
    /// Half-open IPv6 flows.
    pub half_open6: TypedMap<abi::FlowKey6, abi::Flow>,
    /// Interface to zone.
    pub zones: TypedMap<abi::ZoneKey, u32>,
    /// Exact IPv4 hosts.
    pub hosts4: TypedMap<abi::HostKey4, abi::AddressClass>,
    /// Exact IPv6 hosts.
    pub hosts6: TypedMap<abi::HostKey6, abi::AddressClass>,
    /// IPv4 prefixes.
    pub prefixes4: TypedMap<abi::PrefixKey4, abi::AddressClass>,
    /// IPv6 prefixes.
    pub prefixes6: TypedMap<abi::PrefixKey6, abi::AddressClass>,
    /// Services.
    pub services: TypedMap<abi::ServiceKey, u32>,
    /// Words of rule vectors.
    pub vectors: TypedMap<abi::VectorKey, u64>,
    /// Words of the rules that accept anything.
    pub any_vectors: TypedMap<abi::VectorKey, abi::AnyVectors>,
    /// Rules.
    pub rules: TypedMap<abi::PolicyKey, abi::PolicyRule>,
    /// Remembered decisions.
    pub decisions: TypedMap<abi::DecisionKey, abi::Decision>,
    /// Expected conversations.
    pub expected: TypedMap<abi::ExpectKey, abi::Expectation>,
    /// Interfaces.
    pub interfaces: TypedMap<u32, abi::Interface>,
    /// IPv4 routes.
    pub routes4: TypedMap<abi::Route4Key, abi::RouteEntry>,
    /// IPv6 routes.
    pub routes6: TypedMap<abi::Route6Key, abi::RouteEntry>,
    /// Neighbours.
    pub neighbours: TypedMap<abi::NeighbourKey, u64>,
    // Ageing and limits.
    /// Timeouts of services.
    pub service_timeouts: TypedMap<abi::TimeoutKey, u32>,
    /// Limits of sessions by zone.
    pub limit_rules: TypedMap<abi::LimitRuleKey, abi::LimitRule>,
    /// Sessions by address.
    pub limits: TypedMap<abi::LimitKey, abi::SessionCount>,
    // Screens.
    /// Screen profiles, by [`abi::ScreenProfile::index`].
    pub screens: TypedMap<u32, abi::ScreenProfile>,
    /// Rates that screens count.
    pub screen_rates: TypedMap<abi::ScreenKey, abi::RateState>,
    /// Scans that screens count.
    pub screen_scans: TypedMap<abi::ScreenKey, abi::ScanState>,

    // Address translation.
    /// NAT rules.
    pub nat_rules: TypedMap<abi::NatRuleKey, abi::NatRule>,
    /// Pools.
    pub pools: TypedMap<abi::PoolKey, abi::NatPool>,
    /// IPv4 prefixes that translation owns, to the zones in which.
    pub nat_addresses4: TypedMap<abi::NatAddressKey4, u64>,
    /// IPv6 prefixes that translation owns.
    pub nat_addresses6: TypedMap<abi::NatAddressKey6, u64>,
    /// Inside ends of persistent mappings.
    pub mapping_ends: TypedMap<abi::MappingKey, abi::MappingKey>,
    /// Persistent mappings by their outside ends.
    pub mappings: TypedMap<abi::MappingKey, abi::Mapping>,
    /// Remote ends that their insides have sent to.
    pub permits: TypedMap<abi::PermitKey, u64>,
    /// Datagrams in fragments.
    pub fragments: TypedMap<abi::FragmentKey, abi::Datagram>,
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

/// The program that hangs on a hook.
const fn program_of(hook: Hook) -> Program {
    match hook {
        Hook::Egress => Program::Egress,
        Hook::Ingress => Program::Ingress,
        Hook::Xdp => Program::Xdp,
    }
}

/// The marks of frames put back (low half) and of packets screened by XDP.
fn draw_marks() -> Result<u64, BpfError> {
    let [inject, screened] = [inject::draw_mark(), inject::draw_mark()];
    Ok(u64::from(inject.map_err(BpfError::Random)?) | u64::from(screened.map_err(BpfError::Random)?) << 32)
}

fn open<K, V>(maps: &Maps, name: &'static str) -> Result<TypedMap<K, V>, BpfError>
where
    K: zerocopy::IntoBytes + zerocopy::FromBytes + zerocopy::Immutable + Copy,
    V: zerocopy::IntoBytes + zerocopy::FromBytes + zerocopy::Immutable + Copy,
{
    let data = maps.get(name).ok_or(BpfError::Missing(name))?;
    let info = data.info().map_err(|source| BpfError::Map { name, source })?;
    Ok(TypedMap::open(
        name,
        data.fd().as_fd(),
        info.key_size() as usize,
        info.value_size() as usize,
    )?)
}

/// A descriptor of a table of the object.
fn table_fd(maps: &Maps, name: &'static str) -> Result<OwnedFd, BpfError> {
    let data = maps.get(name).ok_or(BpfError::Missing(name))?;
    data.fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| BpfError::Attach {
            operation: format!("duplicate the descriptor of {name}"),
            source: source.into(),
        })
}

/// Takes an array with a value per CPU out of the object.
fn per_cpu<V: aya::Pod>(maps: &mut Maps, name: &'static str) -> Result<PerCpuArray<MapData, V>, BpfError> {
    let map = maps.remove(name).ok_or(BpfError::Missing(name))?;
    PerCpuArray::try_from(Map::PerCpuArray(map)).map_err(|source| BpfError::Map { name, source })
}

/// Every map of the object that is not a table of programs.
fn list(maps: &Maps) -> Result<Vec<Listed>, BpfError> {
    let mut listed = Vec::new();
    for (name, data) in maps {
        let fail = |source| BpfError::Map { name: "info", source };
        let info = data.info().map_err(fail)?;
        let kind = match info.map_type().map_err(fail)? {
            MapType::Array | MapType::PerCpuArray => Kind::Fixed,
            MapType::Hash | MapType::LruHash => Kind::Hash,
            MapType::LpmTrie => Kind::Trie,
            MapType::RingBuf => Kind::Ring,
            _ => continue,
        };
        let fd = data.fd().as_fd().try_clone_to_owned();
        listed.push(Listed {
            name: name.to_owned(),
            kind,
            fd: fd.map_err(|source| TableError {
                map: "of the object",
                operation: "duplicate",
                source,
            })?,
            key_bytes: info.key_size() as usize,
            value_bytes: info.value_size() as usize,
            capacity: info.max_entries(),
        });
    }
    Ok(listed)
}

/// The sum over all CPUs.
fn sum(map: &PerCpuArray<MapData, u64>, name: &'static str, slot: u32) -> Result<u64, BpfError> {
    let values = map
        .get(&slot, 0)
        .map_err(|source| BpfError::Map { name, source })?;
    Ok(values.iter().sum())
}

/// Entries of the tables whose number is configured or chosen here.
fn entries(sizes: &Sizes) -> [(&'static str, u32); 27] {
    let (flows, half_open) = (sizes.flows(), sizes.half_open_flows());
    [
        ("FLOWS4", flows),
        ("FLOWS6", flows),
        ("HALF_OPEN4", half_open),
        ("HALF_OPEN6", half_open),
        ("HOSTS4", sizes.addresses.max(1)),
        ("HOSTS6", sizes.addresses.max(1)),
        // One more: before 6.13 a full trie refuses to replace entries.
        ("PREFIXES4", sizes.addresses.saturating_add(1)),
        ("PREFIXES6", sizes.addresses.saturating_add(1)),
        ("SERVICES", 1 << 20),
        ("VECTORS", sizes.vectors()),
        ("ANY_VECTORS", ANY_VECTORS),
        ("RULES", sizes.rules.max(1)),
        ("DECISIONS", 65_536),
        ("ROUTES4", sizes.routes.max(1)),
        ("ROUTES6", sizes.routes.max(1)),
        ("NEIGHBOURS", sizes.neighbours.max(1)),
        ("SERVICE_TIMEOUTS", sizes.service_timeouts()),
        ("LIMITS", LIMITED_ADDRESSES),
        // Screens: as many addresses at a time as are told apart.
        ("SCREEN_RATES", 32_768),
        ("SCREEN_SCANS", 16_384),
        // Address translation.
        ("NAT_RULES", 65_536),
        ("POOLS", 4_096),
        ("NAT_ADDRESSES4", 65_536),
        ("NAT_ADDRESSES6", 65_536),
        ("MAPPINGS_INSIDE", sizes.sessions.max(1)),
        ("MAPPINGS_OUTSIDE", sizes.sessions.max(1)),
        ("NAT_PERMITS", 65_536),
    ]
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
        let inheritance = pins.map(|pins| Inheritance::find(pins, sizes)).transpose()?;
        static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bulkhead-programs.o"));
        // Packets may be on their way under the marks of the load before.
        let marks = match inheritance.as_ref().and_then(Inheritance::marks) {
            Some(marks) => marks,
            None => draw_marks()?,
        };
        let (inject_mark, screened_mark) = (marks as u32, (marks >> 32) as u32);
        let plan = Plan {
            entries: &entries(sizes),
            constants: &[
                ("WIRED", u32::from(wired)),
                ("INJECT_MARK", inject_mark),
                ("SCREENED_MARK", screened_mark),
            ],
            adopted: inheritance.as_ref().map_or(&[], Inheritance::adopted),
        };
        let (mut tables, programs) = load::load(OBJECT, &plan)?;
        let listed = list(&tables)?;
        open::<u32, u64>(&tables, "MARKS")?.set(&0, &marks)?;
        let pinned = inheritance
            .map(|inheritance| inheritance.begin(|name| table_fd(&tables, name)))
            .transpose()?;
        let maps = KernelMaps {
            live: open(&tables, "LIVE")?,
            settings: open(&tables, "SETTINGS")?,
            flows4: open(&tables, "FLOWS4")?,
            flows6: open(&tables, "FLOWS6")?,
            half_open4: open(&tables, "HALF_OPEN4")?,
            half_open6: open(&tables, "HALF_OPEN6")?,
            zones: open(&tables, "ZONES")?,
            hosts4: open(&tables, "HOSTS4")?,
            hosts6: open(&tables, "HOSTS6")?,
            prefixes4: open(&tables, "PREFIXES4")?,
            prefixes6: open(&tables, "PREFIXES6")?,
            services: open(&tables, "SERVICES")?,
            vectors: open(&tables, "VECTORS")?,
            any_vectors: open(&tables, "ANY_VECTORS")?,
            rules: open(&tables, "RULES")?,
            decisions: open(&tables, "DECISIONS")?,
            expected: open(&tables, "EXPECTED")?,
            interfaces: open(&tables, "INTERFACES")?,
            routes4: open(&tables, "ROUTES4")?,
            routes6: open(&tables, "ROUTES6")?,
            neighbours: open(&tables, "NEIGHBOURS")?,
            service_timeouts: open(&tables, "SERVICE_TIMEOUTS")?,
            limit_rules: open(&tables, "LIMIT_RULES")?,
            limits: open(&tables, "LIMITS")?,
            screens: open(&tables, "SCREENS")?,
            screen_rates: open(&tables, "SCREEN_RATES")?,
            screen_scans: open(&tables, "SCREEN_SCANS")?,
            nat_rules: open(&tables, "NAT_RULES")?,
            pools: open(&tables, "POOLS")?,
            nat_addresses4: open(&tables, "NAT_ADDRESSES4")?,
            nat_addresses6: open(&tables, "NAT_ADDRESSES6")?,
            mapping_ends: open(&tables, "MAPPINGS_INSIDE")?,
            mappings: open(&tables, "MAPPINGS_OUTSIDE")?,
            permits: open(&tables, "NAT_PERMITS")?,
            fragments: open(&tables, "FRAGMENTS")?,
        };
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

    /// A program's descriptor.
    ///
    /// # Errors
    /// If it is not loaded.
    pub fn program_fd(&self, which: Program) -> Result<BorrowedFd<'_>, BpfError> {
        self.programs.get(which)
    }

    /// Guards an interface of this network namespace at a hook: with the program that a load before has left there and
    /// that goes on until [`Object::replace`], unless `anew`; or with this object's.
    ///
    /// # Errors
    /// Whatever the kernel says: see [`Link::attach`].
    pub fn attach(&mut self, hook: Hook, interface: &str, anew: bool) -> Result<Link, BpfError> {
        let which = program_of(hook);
        let fail = |source: LinkError| BpfError::Attach {
            operation: format!("attach {} to {interface}", which.name()),
            source,
        };
        let ifindex = nix::net::if_::if_nametoindex(interface)
            .map_err(|error| fail(std::io::Error::from(error).into()))?;
        if let Some(load) = &self.load {
            // First whatever may refuse: what is forgotten enforces no more.
            // Whose interface it is TCX's hooks have told before XDP's turn: XDP cannot be asked, see `Link::is_on`.
            if hook != Hook::Xdp {
                load.pins().others_guard(hook, ifindex, interface)?;
            }
            if !anew && let Some(link) = load.find_link(hook, ifindex)? {
                return Ok(link);
            }
            load.pins().forget_link(hook, ifindex)?;
        }
        if link::links_on(hook, ifindex).is_ok_and(|others| !others.is_empty()) {
            tracing::warn!(
                interface,
                hook = hook.word(),
                "other programs are attached: what they drop or redirect does not come here; those of another bulkhead are \
                 taken off by `bulkhead detach`"
            );
        }
        // Neighbours are answered from the first frame on, or they would wait a second before they ask again.
        self.join(Program::NEIGHBOUR)?;
        let program = self.programs.get(which)?;
        let mut link = Link::attach(hook, program, which.name(), ifindex).map_err(fail)?;
        if let Some(load) = &self.load {
            let path = load.pins().link_path(hook, ifindex);
            link.pin(&path, program).map_err(fail)?;
        }
        Ok(link)
    }

    /// Attaches the XDP program in native mode.
    ///
    /// # Errors
    /// As [`Object::attach`].
    pub fn attach_xdp(&mut self, interface: &str) -> Result<Link, BpfError> {
        self.attach(Hook::Xdp, interface, true)
    }

    /// Puts this object's program in the place of the one that a link runs.
    ///
    /// # Errors
    /// Whatever the kernel says; the other program stays.
    pub fn replace(&self, hook: Hook, link: &mut Link) -> Result<(), BpfError> {
        let which = program_of(hook);
        link.replace(self.programs.get(which)?, which.name())
            .map_err(|source| BpfError::Attach {
                operation: format!("replace the program of a link by {}", which.name()),
                source,
            })
    }

    /// The highest numbers that the loads before have put in force; zeros if there was none.
    #[must_use]
    pub fn inherited(&self) -> abi::Live {
        self.load.as_ref().map(Load::last).unwrap_or_default()
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

    /// Runs a program on `packet` without attaching it (`BPF_PROG_TEST_RUN`).
    ///
    /// `ifindex` is the interface the packet seems to come from (0: loopback), `repeat` how often it runs.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn test_run(
        &mut self,
        which: Program,
        packet: &[u8],
        ifindex: u32,
        repeat: u32,
    ) -> Result<TestRunOutcome, BpfError> {
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let xdp = [0, packet.len() as u32, 0, ifindex, 0, 0];
        // struct __sk_buff up to `ifindex`, the eleventh word; the kernel refuses other words than a few.
        let mut skb = [0; 11];
        skb[10] = ifindex;
        let context: &[u32] = match which {
            _ if ifindex == 0 => &[],
            Program::Xdp => &xdp,
            _ => &skb,
        };
        program::test_run(self.programs.get(which)?, packet, context, repeat).map_err(|source| {
            BpfError::Program {
                operation: format!("test run of {}", which.name()),
                source,
            }
        })
    }

    /// Sends a request to the control program; whether it did something.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn control(&mut self, request: &abi::ControlRequest) -> Result<bool, BpfError> {
        let mut packet = vec![0; bulkhead_packet::ETHERNET_BYTES];
        packet.extend_from_slice(request.as_bytes());
        Ok(self.test_run(Program::Control, &packet, 0, 1)?.code == 1)
    }

    /// The verifier's instruction count per program.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn verified_instructions(&mut self) -> Result<Vec<(&'static str, u32)>, BpfError> {
        let count = |which: Program| {
            let program = self.programs.get(which)?;
            let count = program::verified_instructions(program).map_err(|source| BpfError::Program {
                operation: format!("info of {}", which.name()),
                source,
            })?;
            Ok((which.name(), count))
        };
        Program::ALL.into_iter().map(count).collect()
    }
}
