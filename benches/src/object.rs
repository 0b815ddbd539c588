//! The harness's BPF object: one instance per contender, its globals filled in for that contender's topology.
//!
//! Owns loading, attaching and the sink's counters. Interfaces are looked up in the network namespace of the calling
//! thread, so the caller runs these methods inside the right one.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues};
use aya::programs::{Program, SchedClassifier, TcAttachType, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunAttrs, TestRunOptions};

use crate::frame::{FRAME_BYTES, FrameSpec, SHAPES, Size};
use crate::popularity::{self, DRAWS, Order};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bulkhead-bench-programs.o"));

/// Frames per batch of a live test run. More would overrun the 256 slots of a veth's receive ring.
const BATCH: u32 = 64;
/// Draws in one value of the source's table of them.
const CHUNK: usize = 1_024;

/// Key and value of the bare lookup's table, as large as those of a flow of Bulkhead's.
type BareKey = [u64; 2];
type BareValue = [u64; 22];

/// What the programs are told when they are loaded.
#[derive(Debug, Clone, Copy)]
pub struct Globals {
    /// The packet.
    pub frame: FrameSpec,
    /// Interface the source sends out of, in its namespace.
    pub source_ifindex: u32,
    /// Interface the bare redirects send out of, in the firewall's namespace.
    pub bare_ifindex: u32,
    /// Destination, then source MAC address of what they send.
    pub bare_macs: [[u8; 6]; 2],
    /// Room in the bare lookup's table; 0 where nothing is looked up.
    pub bare_entries: u32,
    /// Whether flows are to be drawn by popularity, too.
    pub draws: bool,
}

/// What the sink does with measured packets; until it is told, it lets them pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SinkMode {
    /// Count and drop them at the first hook.
    Count = 1,
    /// Show them to packet sockets, then count and drop them.
    Sample = 2,
    /// Count them and send them back.
    Reflect = 3,
}

/// What the source sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Flows; [`Self::FRESH`]: each packet is of another.
    pub flows: u32,
    /// In which order they are taken.
    pub order: Order,
    /// Destinations, all of them in turn but not in order, and begun anew with the flows.
    pub targets: u32,
    /// Number of the first destination.
    pub first_target: u32,
    /// How large the packets are.
    pub size: Size,
}

impl Traffic {
    /// More flows than any round sends packets: source addresses are from a /10.
    pub const FRESH: u32 = 1 << 30;

    /// How far it is from a target to the next: about the golden section of all of them and prime to their number, so that
    /// a short round, too, is spread over all of them.
    #[must_use]
    pub fn stride(&self) -> u32 {
        section(self.targets)
    }

    /// Sessions that are established beforehand.
    #[must_use]
    pub const fn established(&self) -> u32 {
        if self.flows == Self::FRESH { 0 } else { self.flows }
    }
}

/// About the golden section of a number, and prime to it; 0 of 1.
#[must_use]
pub fn section(of: u32) -> u32 {
    let section = (f64::from(of) * 0.618) as u32;
    (1..=section)
        .rev()
        .find(|stride| gcd(*stride, of) == 1)
        .unwrap_or(0)
}

const fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// What was counted since the object was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Packets that reached the sink.
    pub sink: u64,
    /// Answers that came back to the source.
    pub returned: u64,
}

/// The loaded object. Dropping it detaches its programs.
pub struct Object {
    ebpf: Ebpf,
    mode: Array<MapData, u32>,
    counts: PerCpuArray<MapData, u64>,
    traffic: Array<MapData, [u32; 6]>,
    order: Array<MapData, [u32; CHUNK]>,
    /// How many flows `order` was drawn from; 0: none yet.
    drawn: u32,
    table: HashMap<MapData, BareKey, BareValue>,
    shapes: Array<MapData, [u32; 4]>,
    next: PerCpuArray<MapData, [u32; 3]>,
    spec: FrameSpec,
    /// What the source starts from: a frame of the longest shape.
    frame: Vec<u8>,
}

impl Object {
    /// Loads the object; programs follow when they are attached or run.
    pub fn load(globals: &Globals) -> Result<Self> {
        let frame = &globals.frame;
        let words = frame.words();
        let first_port = u32::from(frame.first_port);
        let (first_address, first_target) = (u32::from(frame.first_source), u32::from(frame.first_target));
        let port = u32::from(frame.destination_port);
        let macs = globals.bare_macs.concat();
        let mut ebpf = EbpfLoader::new()
            .override_global("SOURCE_IFINDEX", &globals.source_ifindex, true)
            .override_global("SOURCE_FRAME", words.as_slice(), true)
            .override_global("SOURCE_FIRST_PORT", &first_port, true)
            .override_global("SOURCE_FIRST_ADDRESS", &first_address, true)
            .override_global("SOURCE_FIRST_TARGET", &first_target, true)
            .override_global("SINK_PORT", &port, true)
            .override_global("BARE_IFINDEX", &globals.bare_ifindex, true)
            .override_global("BARE_MACS", macs.as_slice(), true)
            .map_max_entries(
                "SOURCE_ORDER",
                if globals.draws { (DRAWS / CHUNK) as u32 } else { 1 },
            )
            .map_max_entries("BARE_TABLE", globals.bare_entries.max(1))
            .load(OBJECT)
            .context("cannot load the benchmark's BPF object")?;
        let mut map = |name: &str| {
            ebpf.take_map(name)
                .with_context(|| format!("the object has no {name}"))
        };
        Ok(Self {
            mode: Array::try_from(map("SINK_MODE")?)?,
            counts: PerCpuArray::try_from(map("SINK_COUNTS")?)?,
            traffic: Array::try_from(map("SOURCE_TRAFFIC")?)?,
            order: Array::try_from(map("SOURCE_ORDER")?)?,
            drawn: 0,
            table: HashMap::try_from(map("BARE_TABLE")?)?,
            shapes: Array::try_from(map("SOURCE_SHAPES")?)?,
            next: PerCpuArray::try_from(map("SOURCE_NEXT")?)?,
            ebpf,
            spec: *frame,
            frame: Vec::new(),
        })
    }

    /// Says what the source sends from now on, beginning with the first flow.
    pub fn set_traffic(&mut self, traffic: &Traffic) -> Result<()> {
        let turns = traffic.size.turns();
        ensure!(turns.len() <= SHAPES, "{} shapes are too many", turns.len());
        for (slot, bytes) in turns.iter().enumerate() {
            self.shapes.set(slot as u32, self.spec.shape(*bytes), 0)?;
        }
        let words = [
            traffic.flows,
            traffic.targets,
            traffic.first_target,
            turns.len() as u32,
            traffic.stride(),
            match traffic.order {
                Order::InTurn => 0,
                Order::Zipf => DRAWS as u32,
            },
        ];
        if traffic.order == Order::Zipf && self.drawn != traffic.flows {
            let draws = popularity::zipf(traffic.flows);
            let (chunks, _) = draws.as_chunks::<CHUNK>();
            for (index, chunk) in chunks.iter().enumerate() {
                self.order
                    .set(index as u32, chunk, 0)
                    .context("cannot give the source its draws")?;
            }
            self.drawn = traffic.flows;
        }
        self.traffic.set(0, words, 0)?;
        self.restart()?;
        let longest = turns.into_iter().max().unwrap_or(crate::frame::FRAME_BYTES);
        self.frame = self.spec.finished(longest, 0, traffic.first_target);
        Ok(())
    }

    /// Begins again with the first flow.
    pub fn restart(&mut self) -> Result<()> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let none = PerCpuValues::try_from(vec![[0; 3]; cpus])?;
        self.next
            .set(0, none, 0)
            .context("cannot set the source's next flow")
    }

    /// Fills the bare lookup's table with both directions of so many flows, as a firewall's that has seen them.
    pub fn fill_table(&mut self, flows: u32) -> Result<()> {
        for flow in 0..flows {
            let frame = self.spec.finished(FRAME_BYTES, flow, 0);
            let mut tuple = [0; 16];
            tuple[..12].copy_from_slice(&frame[26..38]);
            tuple[12] = frame[23];
            for tuple in [tuple, turned(&tuple)] {
                let (words, _) = tuple.as_chunks::<8>();
                let key = [u64::from_ne_bytes(words[0]), u64::from_ne_bytes(words[1])];
                self.table
                    .insert(key, [0; 22], 0)
                    .with_context(|| format!("no room for flow {flow} of {flows}"))?;
            }
        }
        Ok(())
    }

    fn xdp(&mut self, name: &str) -> Result<&mut Xdp> {
        let program = self
            .ebpf
            .program_mut(name)
            .with_context(|| format!("the object has no {name}"))?;
        Ok(program.try_into()?)
    }

    /// Attaches an XDP program in native mode.
    pub fn attach_xdp(&mut self, name: &str, interface: &str) -> Result<()> {
        let program = self.xdp(name)?;
        program.load().with_context(|| format!("cannot load {name}"))?;
        program
            .attach(interface, XdpMode::Driver)
            .with_context(|| format!("cannot attach {name} to {interface}"))?;
        Ok(())
    }

    /// Attaches a TCX program to an interface's ingress.
    pub fn attach_tcx(&mut self, name: &str, interface: &str) -> Result<()> {
        let program = self
            .ebpf
            .program_mut(name)
            .with_context(|| format!("the object has no {name}"))?;
        let program: &mut SchedClassifier = program.try_into()?;
        program.load().with_context(|| format!("cannot load {name}"))?;
        program
            .attach(interface, TcAttachType::Ingress)
            .with_context(|| format!("cannot attach {name} to {interface}"))?;
        Ok(())
    }

    /// Makes the packet source ready.
    pub fn load_source(&mut self) -> Result<()> {
        self.xdp("bench_source")?
            .load()
            .context("cannot load bench_source")
    }

    /// Sends `packets` frames out of the source's interface, as fast as the path takes them. Returns the kernel's mean
    /// time per frame, which leaves out the call's own set-up (some 20 ms: it waits for RCU).
    pub fn send(&mut self, packets: u32) -> Result<Duration> {
        let frame = std::mem::take(&mut self.frame);
        let options = TestRunOptions {
            data_in: Some(&frame),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        let result = self.xdp("bench_source")?.test_run(options);
        self.frame = frame;
        Ok(result.context("the packet source failed")?.duration)
    }

    /// Runs one of the empty programs once, in nanoseconds.
    pub fn test_run(&mut self, name: &str, frame: &[u8]) -> Result<u64> {
        let options = TestRunOptions {
            data_in: Some(frame),
            ..TestRunOptions::new()
        };
        let program = self
            .ebpf
            .program_mut(name)
            .with_context(|| format!("the object has no {name}"))?;
        let result = match program {
            Program::Xdp(program) => {
                if program.fd().is_err() {
                    program.load()?;
                }
                program.test_run(options)
            }
            Program::SchedClassifier(program) => {
                if program.fd().is_err() {
                    program.load()?;
                }
                program.test_run(options)
            }
            _ => bail!("{name} cannot be run"),
        };
        let duration = result.with_context(|| format!("test run of {name}"))?.duration;
        Ok(u64::try_from(duration.as_nanos())?)
    }

    /// Tells the sink what to do.
    pub fn set_sink_mode(&mut self, mode: SinkMode) -> Result<()> {
        self.mode
            .set(0, mode as u32, 0)
            .context("cannot set the sink's mode")
    }

    /// What was counted so far.
    pub fn counts(&self) -> Result<Counts> {
        let slot = |slot| -> Result<u64> {
            let values = self
                .counts
                .get(&slot, 0)
                .context("cannot read the sink's counters")?;
            ensure!(values.iter().len() > 0, "the sink's counter {slot} has no CPU");
            Ok(values.iter().sum())
        };
        Ok(Counts {
            sink: slot(0)? + slot(1)?,
            returned: slot(2)? + slot(3)?,
        })
    }
}

/// The tuple of the other direction: addresses, ports, protocol.
fn turned(tuple: &[u8; 16]) -> [u8; 16] {
    let mut turned = *tuple;
    turned[..8].rotate_left(4);
    turned[8..12].rotate_left(2);
    turned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turned_tuple_has_both_ends_the_other_way_round() {
        let tuple = *b"ssssddddppqq1...";
        assert_eq!(&turned(&tuple), b"ddddssssqqpp1...");
    }

    #[test]
    fn strides_reach_every_target_and_are_far_from_the_first() {
        for targets in [2, 10, 61, 1_000, 10_000, 100_000, 1_000_000] {
            let traffic = Traffic {
                flows: 1,
                order: Order::InTurn,
                targets,
                first_target: 0,
                size: Size::Bytes(60),
            };
            let stride = traffic.stride();
            assert_eq!(gcd(stride, targets), 1, "{targets}");
            assert!(stride < targets && stride >= targets / 3, "{targets}: {stride}");
        }
        let one = Traffic {
            flows: 1,
            order: Order::InTurn,
            targets: 1,
            first_target: 0,
            size: Size::Bytes(60),
        };
        assert_eq!(one.stride(), 0);
    }
}
