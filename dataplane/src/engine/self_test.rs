//! Whether packets are judged as the configuration says: packets of our own, run through the programs over the live tables,
//! and held against the configuration itself, not against what was compiled from it.
//!
//! Owns those packets. They are run (`BPF_PROG_TEST_RUN`), never sent, and end where no state is made: one that the parser
//! refuses, and in each family a datagram to a multicast group of the documentation's, which is for the firewall itself and
//! so a matter of `hostInbound`, or on a wire of policy. Their verdict must be the expected one, counted under the
//! expected reason. What they were counted as is taken back at once on whatever CPU, so that counters show users' packets
//! alone; what they tell is known by a source port drawn at the start and goes no further than the events thread. Only a denial
//! that was not expected stays counted. On a wire a policy that matches would count a hit, so there such packets are left out,
//! and a TCP segment of no connection is tried besides.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU64, Ordering},
};

use bulkhead_abi::{ControlRequest, Event, Reason};
use etherparse::PacketBuilder;

use super::{Engine, EngineError, Live, attach::Interface, lock};
use crate::{
    address::address,
    bpf::{Object, Program},
    inject,
    reference::{self, Tuple},
    ruleset::Ruleset,
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
    passed: AtomicU64,
    failed: AtomicU64,
}

impl Ledger {
    pub(super) fn new() -> Self {
        // Without randomness a fixed one: whoever sends just this datagram is denied all the same, and not told of.
        let port = inject::draw_mark().map_or(0x77, |mark| mark as u16);
        Self {
            port: port.max(1),
            passed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    /// Whether an event is about a packet of a self-test.
    pub(super) fn is_own(&self, event: &Event) -> bool {
        event.source_port == self.port
            && event.destination_port == PORT
            && matches!(
                (
                    address(event.family, &event.source_be),
                    address(event.family, &event.destination_be)
                ),
                (IpAddr::V4(SOURCE_V4), IpAddr::V4(GROUP_V4)) | (IpAddr::V6(SOURCE_V6), IpAddr::V6(GROUP_V6))
            )
    }
}

/// A packet and what must become of it.
struct Trial {
    name: &'static str,
    frame: Vec<u8>,
    code: u32,
    reason: Reason,
}

impl Engine {
    /// Everything that must hold for packets to be judged by the configuration in force: its generation is live, each
    /// interface is there with its programs on it, and packets of our own meet their verdicts. Costs some microseconds for
    /// each interface; waits for a commit under way.
    #[must_use]
    pub fn readiness(&self) -> Vec<Check> {
        let shared = &self.shared;
        let mut interfaces = lock(&shared.interfaces);
        let live = lock(&shared.live);
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
            let tested = self.test(&interfaces, &live, &mut object);
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

    fn test(&self, interfaces: &[Interface], live: &Live, object: &mut Object) -> Result<(), String> {
        for (position, interface) in interfaces.iter().enumerate() {
            let Some(index) = interface.index else { continue };
            let name = &interface.rule.name;
            for trial in trials(&live.ruleset, position, self.shared.self_tests.port) {
                run(object, &trial, index).map_err(|wrong| format!("{} on {name}: {wrong}", trial.name))?;
            }
        }
        Ok(())
    }
}

/// Runs a packet, and takes back what it was counted as.
fn run(object: &mut Object, trial: &Trial, index: u32) -> Result<(), String> {
    let slot = trial.reason as u32;
    let text = |error: EngineError| error.to_string();
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
    let request = ControlRequest {
        operation: TAKE_BACK,
        argument: slot,
        ..ControlRequest::default()
    };
    let taken = object
        .control(&request)
        .map_err(EngineError::from)
        .map_err(text)?;
    if !taken {
        return Err(format!(
            "what it was counted as ({reason}) could not be taken back"
        ));
    }
    if outcome.code != trial.code {
        return Err(format!(
            "it must end with action {} ({reason}), not {}",
            trial.code, outcome.code
        ));
    }
    Ok(())
}

/// The packets for an interface, by its place.
fn trials(ruleset: &Ruleset, position: usize, port: u16) -> Vec<Trial> {
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
    }];
    if wired.is_some() && !ruleset.tcp.midstream {
        trials.push(Trial {
            name: "a segment of no connection",
            frame: segment(port),
            code: SHOT,
            reason: Reason::TcpNoSession,
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
            protocol: 17,
            port: PORT,
        };
        let expected = match wired.and_then(|peer| ruleset.interfaces.get(peer)) {
            Some(peer) => match reference::first_match(ruleset, rule.zone, peer.zone, &tuple) {
                None => Some((SHOT, Reason::DefaultDeny)),
                Some(_) => None,
            },
            // A rule about destinations may turn it elsewhere.
            None if reference::destination_nat(ruleset, rule.zone, &tuple).is_some() => None,
            None if reference::host_inbound(ruleset, rule.zone, &tuple) => Some((OK, Reason::ToHost)),
            None => Some((SHOT, Reason::HostInboundDeny)),
        };
        if let Some((code, reason)) = expected {
            trials.push(Trial {
                name,
                frame: datagram(source, destination, port),
                code,
                reason,
            });
        }
    }
    trials
}

/// A datagram to a group, from a source on the link.
fn datagram(source: IpAddr, destination: IpAddr, port: u16) -> Vec<u8> {
    let group = |octets: [u8; 4]| [0x33, 0x33, octets[0], octets[1], octets[2], octets[3]];
    let builder = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let [_, b, c, d] = destination.octets();
            // RFC 1112, section 6.4.
            let station = [0x01, 0x00, 0x5e, b & 0x7f, c, d];
            PacketBuilder::ethernet2(STATION, station).ipv4(source.octets(), destination.octets(), 1)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let [.., a, b, c, d] = destination.octets();
            // RFC 2464, section 7.
            PacketBuilder::ethernet2(STATION, group([a, b, c, d])).ipv6(
                source.octets(),
                destination.octets(),
                1,
            )
        }
        _ => return Vec::new(),
    };
    written(builder.udp(port, PORT))
}

/// An IPv4 packet whose header says that it is shorter than a header is.
fn malformed(port: u16) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(STATION, STATION).ipv4(SOURCE_V4.octets(), GROUP_V4.octets(), 1);
    let mut frame = written(builder.udp(port, PORT));
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

fn written(builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>) -> Vec<u8> {
    const PAYLOAD: &[u8] = b"bulkhead self-test";
    let mut frame = Vec::with_capacity(builder.size(PAYLOAD.len()));
    // Writing to a vector cannot fail, and the packet is short.
    let _infallible = builder.write(&mut frame, PAYLOAD);
    frame
}
