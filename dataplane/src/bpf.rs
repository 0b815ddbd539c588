//! The BPF object: loading it with the configured sizes, attaching it, and its tables as typed maps.

use std::{
    collections::HashSet,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

use aya::{
    Ebpf, EbpfLoader, TestRun as _, TestRunOptions,
    maps::{Map, MapData, PerCpuArray, ProgramArray, RingBuf},
    programs::{SchedClassifier, Xdp},
};
use bulkhead_abi as abi;
use zerocopy::IntoBytes as _;

pub use crate::link::has_tcx;
use crate::{
    inject,
    link::{self, Hook, Link, LinkError},
    memory::{Kind, Listed, TableMemory},
    pins::{Inheritance, Load, PinError, Pins},
    table::{TableError, TypedMap},
};

/// Why the object could not be loaded, attached or asked.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The kernel refused the object or one of its maps.
    #[error("cannot load the BPF object: {0}")]
    Load(#[from] aya::EbpfError),
    /// The kernel refused a program, an attachment or a test run.
    #[error("{operation}: {source}")]
    Program {
        /// What was tried.
        operation: String,
        /// The kernel's answer.
        source: aya::programs::ProgramError,
    },
    /// The embedded object lacks something this build expects.
    #[error("the embedded object has no {0}")]
    Missing(&'static str),
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
    Link {
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
    /// and a service of its own has nine; few do.
    pub(crate) const fn vectors(&self) -> u32 {
        let words = self.rules.saturating_mul(8);
        if words < 16_384 { 16_384 } else { words }
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
    ebpf: Ebpf,
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
    _stages: ProgramArray<MapData>,
    /// What is pinned of it, if anything is.
    load: Option<Load>,
}

/// A program of the object that packets (or test runs) enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// The stages by their index in the object's table of programs (`bulkhead_pipeline::Stage`).
    const STAGES: [(u32, Self); 5] = [
        (0, Self::Session),
        (1, Self::Open),
        (2, Self::Admit),
        (3, Self::Related),
        (4, Self::Neighbour),
    ];

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

/// What a test run returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRunOutcome {
    /// The program's return code.
    pub code: u32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// Mean time of one run.
    pub duration: std::time::Duration,
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

fn program<'a, P>(ebpf: &'a mut Ebpf, which: Program) -> Result<&'a mut P, BpfError>
where
    &'a mut P: TryFrom<&'a mut aya::programs::Program, Error = aya::programs::ProgramError>,
{
    ebpf.program_mut(which.name())
        .ok_or(BpfError::Missing(which.name()))?
        .try_into()
        .map_err(|source| BpfError::Program {
            operation: format!("program {}", which.name()),
            source,
        })
}

fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::ProgramArray(data) => Some(data),
        _ => None,
    }
}

fn open<K, V>(ebpf: &Ebpf, name: &'static str) -> Result<TypedMap<K, V>, BpfError>
where
    K: zerocopy::IntoBytes + zerocopy::FromBytes + zerocopy::Immutable + Copy,
    V: zerocopy::IntoBytes + zerocopy::FromBytes + zerocopy::Immutable + Copy,
{
    let data = ebpf.map(name).and_then(data).ok_or(BpfError::Missing(name))?;
    let info = data.info().map_err(|source| BpfError::Map { name, source })?;
    Ok(TypedMap::open(
        name,
        data.fd().as_fd(),
        info.key_size() as usize,
        info.value_size() as usize,
    )?)
}

/// A program's descriptor.
fn program_fd(ebpf: &Ebpf, which: Program) -> Result<BorrowedFd<'_>, BpfError> {
    let program = ebpf
        .program(which.name())
        .ok_or(BpfError::Missing(which.name()))?;
    match program.fd() {
        Ok(fd) => Ok(fd.as_fd()),
        Err(source) => Err(BpfError::Program {
            operation: format!("program {}", which.name()),
            source,
        }),
    }
}

/// A descriptor of a table of the object.
fn table_fd(ebpf: &Ebpf, name: &'static str) -> Result<OwnedFd, BpfError> {
    let data = ebpf.map(name).and_then(data).ok_or(BpfError::Missing(name))?;
    data.fd()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|source| BpfError::Link {
            operation: format!("duplicate the descriptor of {name}"),
            source: source.into(),
        })
}

/// Takes an array with a value per CPU out of the object.
fn per_cpu<V: aya::Pod>(ebpf: &mut Ebpf, name: &'static str) -> Result<PerCpuArray<MapData, V>, BpfError> {
    let map = ebpf.take_map(name).ok_or(BpfError::Missing(name))?;
    PerCpuArray::try_from(map).map_err(|source| BpfError::Map { name, source })
}

/// Every map of the object that is not a table of programs.
fn list(ebpf: &Ebpf) -> Result<Vec<Listed>, BpfError> {
    let mut listed = Vec::new();
    for (name, map) in ebpf.maps() {
        let (kind, data) = match map {
            Map::Array(data) | Map::PerCpuArray(data) => (Kind::Fixed, data),
            Map::HashMap(data) | Map::LruHashMap(data) => (Kind::Hash, data),
            Map::LpmTrie(data) => (Kind::Trie, data),
            Map::RingBuf(data) => (Kind::Ring, data),
            _ => continue,
        };
        let info = data
            .info()
            .map_err(|source| BpfError::Map { name: "info", source })?;
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
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(listed)
}

/// The sum over all CPUs.
fn sum(map: &PerCpuArray<MapData, u64>, name: &'static str, slot: u32) -> Result<u64, BpfError> {
    let values = map
        .get(&slot, 0)
        .map_err(|source| BpfError::Map { name, source })?;
    Ok(values.iter().sum())
}

/// Enters the programs of the stages into the table that the ingress program jumps through.
fn join_stages(ebpf: &mut Ebpf) -> Result<ProgramArray<MapData>, BpfError> {
    let fail = |source| BpfError::Map {
        name: "STAGES",
        source,
    };
    let map = ebpf.take_map("STAGES").ok_or(BpfError::Missing("STAGES"))?;
    let mut stages = ProgramArray::try_from(map).map_err(fail)?;
    for (index, which) in Program::STAGES {
        let fd = program::<SchedClassifier>(ebpf, which)?
            .fd()
            .map_err(|source| BpfError::Program {
                operation: format!("program {}", which.name()),
                source,
            })?
            .try_clone()
            .map_err(|source| fail(source.into()))?;
        stages.set(index, &fd, 0).map_err(fail)?;
    }
    Ok(stages)
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
        Self::load_as(sizes, wired, None)
    }

    /// Loads the embedded object as the heir of what is pinned, and pins what it adds. Programs of the load before run on
    /// where they are: [`Object::attach`] finds them, [`Object::replace`] puts the new ones in their place.
    ///
    /// # Errors
    /// As [`Object::load`], and if something cannot be pinned. Nothing has changed then.
    pub fn load_pinned(sizes: &Sizes, wired: bool, pins: Pins) -> Result<Self, BpfError> {
        Self::load_as(sizes, wired, Some(Inheritance::find(pins, sizes)?))
    }

    fn load_as(sizes: &Sizes, wired: bool, inheritance: Option<Inheritance>) -> Result<Self, BpfError> {
        static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bulkhead-programs.o"));
        let (flows, half_open) = (sizes.flows(), sizes.half_open_flows());
        let mut loader = EbpfLoader::new();
        let wired = u32::from(wired);
        loader.override_global("WIRED", &wired, true);
        for (map, entries) in [
            ("FLOWS4", flows),
            ("FLOWS6", flows),
            ("HALF_OPEN4", half_open),
            ("HALF_OPEN6", half_open),
            ("HOSTS4", sizes.addresses),
            ("HOSTS6", sizes.addresses),
            // One more: before 6.13 a full trie refuses to replace entries.
            ("PREFIXES4", sizes.addresses.saturating_add(1)),
            ("PREFIXES6", sizes.addresses.saturating_add(1)),
            ("SERVICES", 1 << 20),
            ("VECTORS", sizes.vectors()),
            ("ANY_VECTORS", ANY_VECTORS),
            ("RULES", sizes.rules),
            ("DECISIONS", 65_536),
            ("ROUTES4", sizes.routes),
            ("ROUTES6", sizes.routes),
            ("NEIGHBOURS", sizes.neighbours),
            ("SERVICE_TIMEOUTS", 1 << 20),
            ("LIMITS", LIMITED_ADDRESSES),
            // Screens: as many addresses at a time as are told apart.
            ("SCREEN_RATES", 32_768),
            ("SCREEN_SCANS", 16_384),
            // Address translation.
            ("NAT_RULES", 65_536),
            ("POOLS", 4_096),
            ("NAT_ADDRESSES4", 65_536),
            ("NAT_ADDRESSES6", 65_536),
            ("MAPPINGS_INSIDE", sizes.sessions),
            ("MAPPINGS_OUTSIDE", sizes.sessions),
            ("NAT_PERMITS", 65_536),
        ] {
            loader.map_max_entries(map, entries.max(1));
        }
        for (name, path) in inheritance.iter().flat_map(Inheritance::adopted) {
            loader.map_pin_path(name, path);
        }
        // Packets may be on their way under the marks of the load before.
        let marks = match inheritance.as_ref().and_then(Inheritance::marks) {
            Some(marks) => marks,
            None => draw_marks()?,
        };
        let (inject_mark, screened_mark) = (marks as u32, (marks >> 32) as u32);
        loader.override_global("INJECT_MARK", &inject_mark, true);
        loader.override_global("SCREENED_MARK", &screened_mark, true);
        let mut ebpf = loader.load(OBJECT)?;
        let listed = list(&ebpf)?;
        open::<u32, u64>(&ebpf, "MARKS")?.set(&0, &marks)?;
        let load = |which: Program, result: Result<(), aya::programs::ProgramError>| {
            result.map_err(|source| BpfError::Program {
                operation: format!("load {}", which.name()),
                source,
            })
        };
        for which in Program::ALL {
            if which != Program::Xdp {
                load(which, program::<SchedClassifier>(&mut ebpf, which)?.load())?;
            }
        }
        let pinned = inheritance
            .map(|inheritance| inheritance.begin(|name| table_fd(&ebpf, name)))
            .transpose()?;
        let stages = join_stages(&mut ebpf)?;
        load(Program::Xdp, program::<Xdp>(&mut ebpf, Program::Xdp)?.load())?;
        let maps = KernelMaps {
            live: open(&ebpf, "LIVE")?,
            settings: open(&ebpf, "SETTINGS")?,
            flows4: open(&ebpf, "FLOWS4")?,
            flows6: open(&ebpf, "FLOWS6")?,
            half_open4: open(&ebpf, "HALF_OPEN4")?,
            half_open6: open(&ebpf, "HALF_OPEN6")?,
            zones: open(&ebpf, "ZONES")?,
            hosts4: open(&ebpf, "HOSTS4")?,
            hosts6: open(&ebpf, "HOSTS6")?,
            prefixes4: open(&ebpf, "PREFIXES4")?,
            prefixes6: open(&ebpf, "PREFIXES6")?,
            services: open(&ebpf, "SERVICES")?,
            vectors: open(&ebpf, "VECTORS")?,
            any_vectors: open(&ebpf, "ANY_VECTORS")?,
            rules: open(&ebpf, "RULES")?,
            decisions: open(&ebpf, "DECISIONS")?,
            expected: open(&ebpf, "EXPECTED")?,
            interfaces: open(&ebpf, "INTERFACES")?,
            routes4: open(&ebpf, "ROUTES4")?,
            routes6: open(&ebpf, "ROUTES6")?,
            neighbours: open(&ebpf, "NEIGHBOURS")?,
            service_timeouts: open(&ebpf, "SERVICE_TIMEOUTS")?,
            limit_rules: open(&ebpf, "LIMIT_RULES")?,
            limits: open(&ebpf, "LIMITS")?,
            screens: open(&ebpf, "SCREENS")?,
            screen_rates: open(&ebpf, "SCREEN_RATES")?,
            screen_scans: open(&ebpf, "SCREEN_SCANS")?,
            nat_rules: open(&ebpf, "NAT_RULES")?,
            pools: open(&ebpf, "POOLS")?,
            nat_addresses4: open(&ebpf, "NAT_ADDRESSES4")?,
            nat_addresses6: open(&ebpf, "NAT_ADDRESSES6")?,
            mapping_ends: open(&ebpf, "MAPPINGS_INSIDE")?,
            mappings: open(&ebpf, "MAPPINGS_OUTSIDE")?,
            permits: open(&ebpf, "NAT_PERMITS")?,
            fragments: open(&ebpf, "FRAGMENTS")?,
        };
        let counters = per_cpu(&mut ebpf, "COUNTERS")?;
        let tallies = per_cpu(&mut ebpf, "TALLIES")?;
        let screen_counts = per_cpu(&mut ebpf, "SCREEN_COUNTS")?;
        Ok(Self {
            ebpf,
            maps: Arc::new(maps),
            counters,
            inject_mark,
            tallies,
            listed,
            screen_counts,
            _stages: stages,
            load: pinned,
        })
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
        let map = self.ebpf.take_map(name).ok_or(BpfError::Missing(name))?;
        RingBuf::try_from(map).map_err(|source| BpfError::Map { name, source })
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
        program_fd(&self.ebpf, which)
    }

    /// Guards an interface of this network namespace at a hook: with the program that a load before has left there and
    /// that goes on until [`Object::replace`], unless `anew`; or with this object's.
    ///
    /// # Errors
    /// Whatever the kernel says: see [`Link::attach`].
    pub fn attach(&mut self, hook: Hook, interface: &str, anew: bool) -> Result<Link, BpfError> {
        let which = program_of(hook);
        let fail = |source: LinkError| BpfError::Link {
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
        let program = program_fd(&self.ebpf, which)?;
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
        link.replace(program_fd(&self.ebpf, which)?, which.name())
            .map_err(|source| BpfError::Link {
                operation: format!("replace the program of a link by {}", which.name()),
                source,
            })
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
        let fail = |source| BpfError::Program {
            operation: format!("test run of {}", which.name()),
            source,
        };
        let mut out = vec![0; packet.len() + 256];
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        options.data_out = Some(&mut out);
        options.repeat = repeat;
        let xdp_context;
        let skb_context;
        if ifindex != 0 {
            if which == Program::Xdp {
                // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
                xdp_context = [0u32, packet.len() as u32, 0, ifindex, 0, 0];
                options.ctx_in = Some(xdp_context.as_bytes());
            } else {
                // struct __sk_buff up to `ifindex`, the eleventh word; the kernel refuses other words than a few.
                let mut words = [0u32; 11];
                words[10] = ifindex;
                skb_context = words;
                options.ctx_in = Some(skb_context.as_bytes());
            }
        }
        let result = if which == Program::Xdp {
            program::<Xdp>(&mut self.ebpf, which)?.test_run(options)
        } else {
            program::<SchedClassifier>(&mut self.ebpf, which)?.test_run(options)
        }
        .map_err(fail)?;
        out.truncate(result.data_size_out as usize);
        Ok(TestRunOutcome {
            code: result.return_value,
            packet: out,
            duration: result.duration,
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
        let mut counts = Vec::new();
        for which in Program::ALL {
            let fail = |source| BpfError::Program {
                operation: format!("info of {}", which.name()),
                source,
            };
            let info = if which == Program::Xdp {
                program::<Xdp>(&mut self.ebpf, which)?.info().map_err(fail)?
            } else {
                program::<SchedClassifier>(&mut self.ebpf, which)?
                    .info()
                    .map_err(fail)?
            };
            counts.push((which.name(), info.verified_instruction_count().unwrap_or(0)));
        }
        Ok(counts)
    }
}
