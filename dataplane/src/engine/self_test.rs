//! Whether packets are judged as the configuration says: packets of our own, run through the programs over the live tables,
//! and held against the configuration itself, not against what was compiled from it; who is in a group is asked of the address
//! book, of which the tables are made.
//!
//! Owns those packets. They are run (`BPF_PROG_TEST_RUN`), never sent, and end where no state is made: on each interface one
//! that the parser refuses, and in each family a datagram (in UDP-Lite, RFC 3828, which no screen counts) to a multicast
//! group of the documentation's, which is for the firewall itself and so a matter of `hostInbound`, or on a wire of policy;
//! where there are routes besides, in each family one between two zones that the configuration denies (`crossing`). Their
//! verdict must be the expected one, counted under the expected reason. What they were counted as is taken back at once on
//! whatever CPU, so that counters show users' packets alone; what they tell is known by a source port drawn at the start and
//! goes no further than the events thread. Only a denial that was not expected stays counted. On a wire a policy that matches
//! would count a hit, so there such packets are left out, and a TCP segment of no connection is tried besides. The decision
//! that is remembered for one is forgotten first, so that it meets the tables themselves; where a live packet brings it back
//! in the same instant, it serves that test, and a miss is taken off that was not counted.
//!
//! What a packet cannot try without a trace, above all what is permitted, is asked of the same tables from here (`policy`).
//! Not tried at all: translation, screens, limits, timeouts, neighbours, the XDP programs, and tables' entries that none of
//! these few questions leads to.

mod crossing;
mod policy;

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use bulkhead_abi::{ControlRequest, Event, EventKind, Reason, ZONE_SELF, protocol};
use bulkhead_pipeline::{Question, Walk, decide};
use etherparse::{IpNumber, PacketBuilder};

use super::{Engine, EngineError, Live, attach::Interface, explain::ReadOnly, lock};
use crate::{
    address::address,
    bpf::{Object, Program},
    fib::Mirror,
    inject,
    reference::{self, Tuple},
};

/// Discard (RFC 863).
const PORT: u16 = 9;
/// The group of tests, of MCAST-TEST-NET (RFC 5771, section 9.2).
const GROUP_V4: Ipv4Addr = Ipv4Addr::new(233, 252, 0, 77);
/// A group of the documentation prefix (RFC 3306), on this link.
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff32, 0x40, 0x2001, 0xdb8, 0, 0, 0, 0x77);
/// A link-local source: it is on every link, and goes nowhere.
const SOURCE_V4: Ipv4Addr = Ipv4Addr::new(169, 254, 77, 77);
/// The same.
const SOURCE_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x77);
/// Locally administered.
const STATION: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
/// What whoever sees one is told.
const PAYLOAD: &[u8] = b"bulkhead self-test";
/// The control program's operation that takes back one packet of a reason.
const TAKE_BACK: u32 = 31;

/// `TC_ACT_OK` and `TC_ACT_SHOT` (include/uapi/linux/pkt_cls.h).
const OK: u32 = 0;
const SHOT: u32 = 2;

/// What was looked at, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub name: String,
    /// What is wrong.
    pub wrong: Option<String>,
}

impl Check {
    fn of(name: impl Into<String>, outcome: Result<(), String>) -> Self {
        Self {
            name: name.into(),
            wrong: outcome.err(),
        }
    }
}

/// How often this data plane was tested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SelfTests {
    /// Times that every packet met its verdict.
    pub passed: u64,
    /// Times that one did not.
    pub failed: u64,
}

/// What is known of self-tests.
pub(super) struct Ledger {
    /// The source port of their packets.
    port: u16,
    /// The ends of packets between zones, while their events may come.
    ends: Mutex<HashSet<(IpAddr, IpAddr)>>,
    passed: AtomicU64,
    failed: AtomicU64,
}

impl Ledger {
    pub(super) fn new() -> Self {
        // Without randomness a fixed one: whoever sends just this datagram is denied all the same, and not told of.
        let port = inject::draw_mark().map_or(0x77, |mark| mark as u16);
        Self {
            port: port.max(1),
            ends: Mutex::default(),
            passed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Whether an event is about a packet of a self-test.
    pub(super) fn is_own(&self, event: &Event) -> bool {
        let denied = u32::from(event.kind) == EventKind::Deny as u32;
        if !denied || event.source_port != self.port || event.destination_port != PORT {
            return false;
        }
        let ends = (
            address(event.family, &event.source_be),
            address(event.family, &event.destination_be),
        );
        let group = matches!(
            ends,
            (IpAddr::V4(SOURCE_V4), IpAddr::V4(GROUP_V4)) | (IpAddr::V6(SOURCE_V6), IpAddr::V6(GROUP_V6))
        );
        event.protocol == protocol::UDP_LITE && (group || lock(&self.ends).contains(&ends))
    }

    /// Notes the ends of a packet between zones, before it is run.
    fn note(&self, ends: (IpAddr, IpAddr)) {
        /// More than the pairs of all interfaces: addresses have changed.
        const MOST: usize = 1024;
        let mut noted = lock(&self.ends);
        if noted.len() >= MOST {
            noted.clear();
        }
        noted.insert(ends);
    }

    /// How often there was a test before this one.
    fn turn(&self) -> u64 {
        let passed = self.passed.load(Ordering::Relaxed);
        passed.wrapping_add(self.failed.load(Ordering::Relaxed))
    }
}

/// A packet and what must become of it.
struct Trial {
    name: &'static str,
    frame: Vec<u8>,
    code: u32,
    reason: Reason,
    /// What it asks of policy, if it comes so far.
    question: Option<Question>,
}

impl Engine {
    /// Everything that must hold for packets to be judged by the configuration in force: its generation is live, each
    /// interface is there with its programs on it, packets of our own meet their verdicts, and the tables answer as the
    /// configuration does. What it looks at is bounded, whatever the configuration's size; waits for a commit under way.
    #[must_use]
    pub fn readiness(&self) -> Vec<Check> {
        let shared = &self.shared;
        let mut interfaces = lock(&shared.interfaces);
        let live = lock(&shared.live);
        let fib = lock(&shared.fib);
        let mut object = lock(&shared.object);
        let mut checks = vec![Check::of("generation", self.is_live())];
        for interface in interfaces.iter_mut() {
            checks.push(Check::of(
                format!("interface/{}", interface.rule.name),
                interface.is_guarded(),
            ));
        }
        let ready = checks.iter().all(|check| check.wrong.is_none());
        let tested = if ready {
            let tested = self.test(&interfaces, &live, &fib.mirror, &mut object);
            let count = if tested.is_ok() {
                &shared.self_tests.passed
            } else {
                &shared.self_tests.failed
            };
            count.fetch_add(1, Ordering::Relaxed);
            tested
        } else {
            Err("not tried: the data plane is not complete".to_owned())
        };
        checks.push(Check::of("self-test", tested));
        checks
    }

    /// How often [`Engine::readiness`] has tested.
    #[must_use]
    pub fn self_tests(&self) -> SelfTests {
        SelfTests {
            passed: self.shared.self_tests.passed.load(Ordering::Relaxed),
            failed: self.shared.self_tests.failed.load(Ordering::Relaxed),
        }
    }

    /// Threads of the engine that make no progress.
    #[must_use]
    pub fn stuck(&self) -> Vec<crate::pulse::Stuck> {
        self.shared.pulses.stuck()
    }

    /// Whether the programs judge by the generation that was committed last.
    fn is_live(&self) -> Result<(), String> {
        let generation = self.generation();
        let live = self.shared.maps.live.get(&0).map_err(|error| error.to_string())?;
        match live.unwrap_or_default().tables {
            0 => Err("no generation is live".to_owned()),
            tables if tables != generation => Err(format!("generation {tables} is live, not {generation}")),
            _ => Ok(()),
        }
    }

    fn test(
        &self,
        interfaces: &[Interface],
        live: &Live,
        mirror: &Mirror,
        object: &mut Object,
    ) -> Result<(), String> {
        let ledger = &self.shared.self_tests;
        let (port, turn) = (ledger.port, ledger.turn());
        let env = ReadOnly {
            maps: &self.shared.maps,
            wired: self.shared.wired,
        };
        for (position, interface) in interfaces.iter().enumerate() {
            let Some(index) = interface.index else { continue };
            let name = &interface.rule.name;
            for trial in trials(live, position, port) {
                run(&env, object, &trial, index)
                    .map_err(|wrong| format!("{} on {name}: {wrong}", trial.name))?;
            }
        }
        policy::ask(&env, live, turn)?;
        for v4 in [true, false] {
            if env.wired {
                // Policy has been met on each interface.
                continue;
            }
            let Some(crossing) = crossing::crossing(live, interfaces, mirror, v4, port, turn) else {
                continue;
            };
            ledger.note(crossing.ends);
            run(&env, object, &crossing.trial, crossing.index).map_err(|wrong| {
                let (from, to) = crossing.ends;
                format!("{}, from {from} to {to}: {wrong}", crossing.trial.name)
            })?;
        }
        Ok(())
    }
}

/// Runs a packet, and takes back what it was counted as.
fn run(env: &ReadOnly<'_>, object: &mut Object, trial: &Trial, index: u32) -> Result<(), String> {
    let slot = trial.reason as u32;
    let text = |error: EngineError| error.to_string();
    if let Some(question) = &trial.question {
        let mut walk = Walk::default();
        let _rule = decide(env, question, &mut walk);
        env.maps
            .decisions
            .remove(&walk.key)
            .map_err(|error| error.to_string())?;
    }
    let before = object.counter(slot).map_err(EngineError::from).map_err(text)?;
    let outcome = object
        .test_run(Program::Ingress, &trial.frame, index, 1)
        .map_err(EngineError::from)
        .map_err(text)?;
    let after = object.counter(slot).map_err(EngineError::from).map_err(text)?;
    let reason = trial.reason.name();
    if after == before {
        return Err(format!(
            "it must end as {reason} and did not (action {})",
            outcome.code
        ));
    }
    take_back(object, slot, reason)?;
    if trial.question.is_some() {
        take_back(
            object,
            Reason::SLOT_DECISION_CACHE_MISSES,
            "decision_cache_misses",
        )?;
    }
    if outcome.code != trial.code {
        return Err(format!(
            "it must end with action {} ({reason}), not {}",
            trial.code, outcome.code
        ));
    }
    Ok(())
}

/// Takes one packet off a counter.
fn take_back(object: &mut Object, slot: u32, name: &str) -> Result<(), String> {
    let request = ControlRequest {
        operation: TAKE_BACK,
        argument: slot,
        ..ControlRequest::default()
    };
    match object.control(&request) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("what it was counted as ({name}) could not be taken back")),
        Err(error) => Err(EngineError::from(error).to_string()),
    }
}

/// The packets for an interface, by its place.
fn trials(live: &Live, position: usize, port: u16) -> Vec<Trial> {
    let ruleset = &live.ruleset;
    let Some(rule) = ruleset.interfaces.get(position) else {
        return Vec::new();
    };
    let wired = ruleset.wires.iter().find_map(|wire| match wire.interfaces {
        [one, other] if one == position => Some(other),
        [other, one] if one == position => Some(other),
        _ => None,
    });
    let mut trials = vec![Trial {
        name: "a malformed packet",
        frame: malformed(port),
        code: SHOT,
        reason: Reason::Ipv4HeaderInvalid,
        question: None,
    }];
    if wired.is_some() && !ruleset.tcp.midstream {
        trials.push(Trial {
            name: "a segment of no connection",
            frame: segment(port),
            code: SHOT,
            reason: Reason::TcpNoSession,
            question: None,
        });
    }
    let ends: [(&str, IpAddr, IpAddr); 2] = [
        ("an IPv4 datagram", SOURCE_V4.into(), GROUP_V4.into()),
        ("an IPv6 datagram", SOURCE_V6.into(), GROUP_V6.into()),
    ];
    for (name, source, destination) in ends {
        let tuple = Tuple {
            source,
            destination,
            protocol: protocol::UDP_LITE,
            port: PORT,
        };
        let peer = wired.and_then(|peer| ruleset.interfaces.get(peer));
        let expected = match peer {
            Some(peer) => match policy::expected(live, rule.zone, peer.zone, &tuple) {
                None => Some((SHOT, Reason::DefaultDeny)),
                Some(_) => None,
            },
            // A rule about destinations may turn it elsewhere.
            None if is_turned_elsewhere(live, rule.zone, &tuple) => None,
            None if reference::host_inbound(ruleset, rule.zone, &tuple) => Some((OK, Reason::ToHost)),
            None => Some((SHOT, Reason::HostInboundDeny)),
        };
        let to_zone = peer.map_or(ZONE_SELF, |peer| policy::zone_number(peer.zone));
        let from_zone = policy::zone_number(rule.zone);
        if let Some((code, reason)) = expected {
            trials.push(Trial {
                name,
                frame: datagram(source, destination, port),
                code,
                reason,
                question: Some(policy::question(
                    live.compiled.generation,
                    from_zone,
                    to_zone,
                    &tuple,
                )),
            });
        }
    }
    trials
}

/// Whether a rule about destinations translates a packet, with the members that groups have by now.
fn is_turned_elsewhere(live: &Live, from: usize, tuple: &Tuple) -> bool {
    let ends = policy::Ends::of(live, tuple);
    reference::destination_nat_among(&live.ruleset, &ends, from, tuple).is_some()
}

/// A datagram to a group, from a source on the link.
fn datagram(source: IpAddr, destination: IpAddr, port: u16) -> Vec<u8> {
    let station = match destination {
        IpAddr::V4(destination) => {
            let [_, b, c, d] = destination.octets();
            // RFC 1112, section 6.4.
            [0x01, 0x00, 0x5e, b & 0x7f, c, d]
        }
        IpAddr::V6(destination) => {
            let [.., a, b, c, d] = destination.octets();
            // RFC 2464, section 7.
            [0x33, 0x33, a, b, c, d]
        }
    };
    udp_lite(station, (source, destination), 1, port)
}

/// A datagram of UDP-Lite. Its checksum covers its header and is not right: nobody receives it.
fn udp_lite(station: [u8; 6], ends: (IpAddr, IpAddr), hops: u8, port: u16) -> Vec<u8> {
    const HEADER_BYTES: u16 = 8;
    let mut datagram = Vec::new();
    for field in [port, PORT, HEADER_BYTES, 0x77] {
        datagram.extend_from_slice(&field.to_be_bytes());
    }
    datagram.extend_from_slice(PAYLOAD);
    let link = PacketBuilder::ethernet2(STATION, station);
    let builder = match ends {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            link.ipv4(source.octets(), destination.octets(), hops)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            link.ipv6(source.octets(), destination.octets(), hops)
        }
        _ => return Vec::new(),
    };
    let mut frame = Vec::with_capacity(builder.size(datagram.len()));
    // Writing to a vector cannot fail, and the packet is short.
    let _infallible = builder.write(&mut frame, IpNumber(protocol::UDP_LITE), &datagram);
    frame
}

/// An IPv4 packet whose header says that it is shorter than a header is.
fn malformed(port: u16) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(STATION, STATION).ipv4(SOURCE_V4.octets(), GROUP_V4.octets(), 1);
    let builder = builder.udp(port, PORT);
    let mut frame = Vec::with_capacity(builder.size(PAYLOAD.len()));
    // Writing to a vector cannot fail, and the packet is short.
    let _infallible = builder.write(&mut frame, PAYLOAD);
    if let Some(version_and_length) = frame.get_mut(14) {
        *version_and_length = 0x44;
    }
    frame
}

/// An acknowledgement of nothing.
fn segment(port: u16) -> Vec<u8> {
    let (source, destination) = ([192, 0, 2, 77], [198, 51, 100, 77]);
    let builder = PacketBuilder::ethernet2(STATION, STATION).ipv4(source, destination, 64);
    let builder = builder.tcp(port, PORT, 1, 0).ack(1);
    let mut frame = Vec::with_capacity(builder.size(0));
    // Writing to a vector cannot fail, and the packet is short.
    let _infallible = builder.write(&mut frame, &[]);
    frame
}
