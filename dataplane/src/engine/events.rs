//! Events: from the ring buffer to names, to observers; and the thread that answers for the slow path.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use aya::maps::{MapData, RingBuf};
use bulkhead_abi::{Event, Reason, SlowPathRequest};
use crossbeam::channel::{Receiver, Sender as ChannelSender, TrySendError, bounded};
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use zerocopy::FromBytes as _;

use super::{Shared, TICK, ageing::now_ns, lock};
use crate::{
    address::address,
    pulse::Pulse,
    slow_path::{self, Sender},
};

pub use bulkhead_abi::EventKind;

/// Events kept for `observe --last`.
const RECENT: usize = 4096;

/// Events an observer may lag behind.
const BACKLOG: usize = 4096;

/// Something that happened to a conversation or a packet, with names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowEvent {
    /// When.
    pub time: SystemTime,
    /// What.
    pub kind: EventKind,
    /// Why.
    pub reason: Reason,
    /// Session number; 0 for a denial.
    pub session_id: u64,
    /// 4 or 6.
    pub family: u8,
    /// IP protocol.
    pub protocol: u8,
    /// Source before translation; ICMP: identifier as port.
    pub source: SocketAddr,
    /// Destination before translation.
    pub destination: SocketAddr,
    /// Source after translation, if it was translated.
    pub translated_source: Option<SocketAddr>,
    /// ICMP type and code of the (first) packet.
    pub icmp: Option<(u8, u8)>,
    /// Ingress interface.
    pub ingress: String,
    /// Egress interface.
    pub egress: Option<String>,
    /// Source zone.
    pub from_zone: String,
    /// Destination zone; empty if the packet did not come so far as to have one (screens).
    pub to_zone: String,
    /// Policy.
    pub policy: Option<String>,
    /// Source NAT rule.
    pub nat_rule: Option<String>,
    /// Destination after translation, if it was translated.
    pub translated_destination: Option<SocketAddr>,
    /// Destination NAT rule.
    pub destination_rule: Option<String>,
    /// Whether the policy asked for this event to be logged.
    pub log: bool,
    /// Whether the packet the event is about was dropped.
    pub dropped: bool,
    /// Packets of the first direction (close only).
    pub packets: u64,
    /// Bytes of the first direction (close only).
    pub bytes: u64,
    /// Packets of the reply direction (close only).
    pub reply_packets: u64,
    /// Bytes of the reply direction (close only).
    pub reply_bytes: u64,
    /// How long the session lived (close only).
    pub duration: Option<Duration>,
}

/// Who hears of events.
#[derive(Default)]
pub(super) struct Hub {
    recent: Mutex<VecDeque<FlowEvent>>,
    observers: Mutex<Vec<ChannelSender<FlowEvent>>>,
    lost: AtomicU64,
}

impl Hub {
    pub(super) fn subscribe(&self) -> Receiver<FlowEvent> {
        let (sender, receiver) = bounded(BACKLOG);
        lock(&self.observers).push(sender);
        receiver
    }

    pub(super) fn recent(&self, count: usize) -> Vec<FlowEvent> {
        let recent = lock(&self.recent);
        recent
            .iter()
            .skip(recent.len().saturating_sub(count))
            .cloned()
            .collect()
    }

    /// Events that observers were too slow for.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn publish(&self, event: FlowEvent) {
        lock(&self.observers).retain(|observer| match observer.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        });
        let mut recent = lock(&self.recent);
        if recent.len() == RECENT {
            recent.pop_front();
        }
        recent.push_back(event);
    }
}

/// The events thread. The programs do not wake it (that would cost each new session an interrupt); it looks often.
pub(super) fn run(shared: &Shared, mut ring: RingBuf<MapData>, pulse: &Pulse) {
    loop {
        pulse.beat();
        let stopping = shared.stopping();
        while let Some(item) = ring.next() {
            match Event::read_from_bytes(&item) {
                Ok(event) if shared.self_tests.is_own(&event) => {}
                Ok(event) => {
                    if let Some(event) = name(shared, &event) {
                        shared.events.publish(event);
                    }
                }
                Err(_) => tracing::error!(bytes = item.len(), "an event of unexpected size"),
            }
        }
        if stopping {
            return;
        }
        std::thread::sleep(TICK);
    }
}

/// Gives an event its names; `None` for numbers no version of the programs sends.
fn name(shared: &Shared, event: &Event) -> Option<FlowEvent> {
    let kind = match event.kind {
        1 => EventKind::Create,
        2 => EventKind::Close,
        3 => EventKind::Deny,
        4 => EventKind::Screen,
        _ => return None,
    };
    let names = shared.names_of(event.generation);
    let end = |words: &[u32; 4], port| SocketAddr::new(address(event.family, words), port);
    let source = end(&event.source_be, event.source_port);
    let translated = end(&event.new_source_be, event.new_source_port);
    let destination = end(&event.destination_be, event.destination_port);
    // The identifier of a query stands in both ports and goes with the source.
    let turned = end(
        &event.new_destination_be,
        if matches!(event.protocol, 1 | 58) {
            event.destination_port
        } else {
            event.new_destination_port
        },
    );
    let icmp = matches!(event.protocol, 1 | 58);
    let logs = names.logs(event.policy);
    let log = match kind {
        EventKind::Create => logs.create,
        EventKind::Close => logs.close,
        EventKind::Deny => logs.deny,
        EventKind::Screen => true,
    };
    let elapsed = |ns: u64| Duration::from_nanos(now_ns().saturating_sub(ns));
    Some(FlowEvent {
        time: SystemTime::now() - elapsed(event.time_ns),
        kind,
        reason: Reason::from_number(event.reason)?,
        session_id: event.session_id,
        family: event.family,
        protocol: event.protocol,
        source,
        destination,
        translated_source: (translated != source).then_some(translated),
        icmp: icmp.then_some(((event.icmp_type_code >> 8) as u8, event.icmp_type_code as u8)),
        ingress: match event.ingress_ifindex {
            0 => "self".to_owned(),
            index => shared.interface_name(index),
        },
        egress: (event.egress_ifindex != 0).then(|| shared.interface_name(event.egress_ifindex)),
        from_zone: names.zone(event.from_zone),
        to_zone: match kind {
            EventKind::Screen => String::new(),
            _ => names.zone(event.to_zone),
        },
        policy: names.policy(event.policy),
        nat_rule: names.source_rule(event.nat_rule),
        translated_destination: (turned != destination).then_some(turned),
        destination_rule: names.destination_rule(event.destination_rule),
        log,
        dropped: match kind {
            EventKind::Create | EventKind::Close => false,
            EventKind::Deny => true,
            EventKind::Screen => event.state != 0,
        },
        packets: event.packets,
        bytes: event.bytes,
        reply_packets: event.reply_packets,
        reply_bytes: event.reply_bytes,
        duration: (event.kind == EventKind::Close as u8)
            .then(|| Duration::from_nanos(event.time_ns.saturating_sub(event.created_ns))),
    })
}

/// The slow path's thread.
pub(super) fn answer(shared: &Shared, mut ring: RingBuf<MapData>, sender: &Sender, pulse: &Pulse) {
    while !shared.stopping() {
        pulse.beat();
        wait(&ring, LONGEST_WAIT);
        while let Some(item) = ring.next() {
            let Ok(request) = SlowPathRequest::read_from_bytes(&item) else {
                tracing::error!(bytes = item.len(), "a slow-path request of unexpected size");
                continue;
            };
            let (own4, own6) = own_addresses(shared, request.ifindex);
            if let Some(frame) = slow_path::answer(&request, own4, own6, shared.wired)
                && let Err(error) = sender.send(request.ifindex, &frame)
            {
                tracing::debug!(%error, "an answer could not be sent");
            }
        }
    }
}

/// How long to wait until the stop flag is looked at.
pub(super) const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// Waits for an entry of the ring, but not for long.
pub(super) fn wait(ring: &RingBuf<MapData>, timeout: Duration) {
    let fd = ring.as_raw_fd();
    // SAFETY: the descriptor belongs to `ring`, which is borrowed for as long as `fd` is used.
    #[expect(unsafe_code, reason = "the ring buffer offers only a raw descriptor")]
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    // An interrupted or timed-out wait is as good as any: the caller looks anyway.
    let _ready = ppoll(
        &mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)],
        Some(TimeSpec::from_duration(timeout)),
        None,
    );
}

/// This firewall's addresses on an interface.
fn own_addresses(shared: &Shared, ifindex: u32) -> (Option<IpAddr>, Option<IpAddr>) {
    let Ok(Some(interface)) = shared.maps.interfaces.get(&ifindex) else {
        return (None, None);
    };
    let v4 = (interface.address4_be != 0).then(|| address(4, &[interface.address4_be, 0, 0, 0]));
    let v6 = (interface.address6_be != [0; 4]).then(|| address(6, &interface.address6_be));
    (v4, v6)
}
