//! Whole frames from the programs: later fragments wait for their first, packets too large are cut, and what comes of
//! either goes back onto the interface it came from. What gateways read is theirs.
//!
//! Each frame that ends here is counted by the programs' own counters, through the control program: the reasons account
//! for every packet that came in.

use std::{sync::atomic::Ordering, time::Duration};

use aya::maps::{MapData, RingBuf};
use bulkhead_abi::{
    ControlRequest, FRAGMENT_LIFETIME_NS, FragmentKey, FrameHeader, FrameKind, LARGE_FRAME_BYTES, Reason,
    ZoneKey,
};
use bulkhead_packet::{HeaderBuffer, Packet, PlainLoop, parse};
use zerocopy::FromBytes as _;

use super::{
    Shared,
    ageing::now_ns,
    events::{LONGEST_WAIT, wait},
    gateway::Gateway,
};
use crate::{
    fragment::{
        cut::cut,
        hold::{Fragment, Hold},
    },
    inject::Injector,
    pulse::Pulse,
};

/// The control program's operation that counts frames dropped here.
const COUNT_DROPPED: u32 = 30;

/// The thread.
pub(super) fn run(shared: &Shared, mut ring: RingBuf<MapData>, injector: &Injector, pulse: &Pulse) {
    let mut frames = Frames {
        shared,
        injector,
        gateway: Gateway::default(),
        hold: Hold::default(),
        over_limit: 0,
        timed_out: 0,
    };
    while !shared.stopping() {
        pulse.beat();
        let idle = frames.hold.idle_ns(now_ns()).map(Duration::from_nanos);
        wait(&ring, idle.unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT));
        while let Some(item) = ring.next() {
            frames.take(&item);
        }
        frames.look();
        frames.report();
    }
    // What still waits has nobody to wait with.
    frames.timed_out += frames.hold.expire(u64::MAX);
    frames.report();
}

/// What the thread has in hand.
struct Frames<'a> {
    shared: &'a Shared,
    injector: &'a Injector,
    gateway: Gateway,
    hold: Hold,
    /// Fragments dropped for want of room and not reported yet.
    over_limit: usize,
    /// Fragments whose first did not come, and not reported yet.
    timed_out: usize,
}

impl Frames<'_> {
    /// Takes one entry of the ring.
    fn take(&mut self, item: &[u8]) {
        let Ok((header, rest)) = FrameHeader::read_from_prefix(item) else {
            tracing::error!(bytes = item.len(), "a frame of unexpected size");
            return;
        };
        let Some(frame) = rest.get(..header.length as usize) else {
            tracing::error!(?header, bytes = item.len(), "a frame longer than its entry");
            return;
        };
        debug_assert!(frame.len() <= LARGE_FRAME_BYTES);
        match FrameKind::from_number(header.kind) {
            Some(FrameKind::Fragment) => self.fragment(&header, frame),
            Some(FrameKind::Oversize) => self.oversize(&header, frame),
            Some(FrameKind::Gateway) => self.gateway.handle(self.shared, self.injector, &header, frame),
            None => tracing::error!(?header, "a frame for nobody here"),
        }
    }

    /// A later fragment. The first may have come since.
    fn fragment(&mut self, header: &FrameHeader, frame: &[u8]) {
        let generation = self.shared.generation.load(Ordering::Acquire);
        let zone = self.shared.maps.zones.get(&ZoneKey {
            generation,
            ifindex: header.ifindex,
        });
        // Of no zone any more, or of another than when it came: its first is not found, and it waits in vain.
        let zone = zone.ok().flatten().unwrap_or(0);
        let Some(key) = fragment_key(frame, header.argument, zone as u8) else {
            // The program parsed it: cannot be.
            tracing::error!(?header, "a fragment that is none");
            self.over_limit += 1;
            return;
        };
        let fragment = Fragment {
            ifindex: header.ifindex,
            vlan: header.vlan,
            frame: frame.to_vec(),
        };
        let now = now_ns();
        self.over_limit += self.hold.add(key, fragment, now);
        if self.first_was_seen(&key, now) {
            self.release(&key);
        }
    }

    /// A packet to be cut.
    fn oversize(&mut self, header: &FrameHeader, frame: &[u8]) {
        let Some(pieces) = cut(frame, header.argument) else {
            tracing::debug!(?header, "a packet that cannot be cut");
            self.over_limit += 1;
            return;
        };
        for piece in pieces {
            self.put_back(header.ifindex, header.vlan, &piece);
        }
    }

    /// Looks for the datagrams that are waited for, and ends waits that are over.
    fn look(&mut self) {
        let now = now_ns();
        for key in self.hold.due(now) {
            if self.first_was_seen(&key, now) {
                self.release(&key);
            }
        }
        self.timed_out += self.hold.expire(now);
    }

    fn first_was_seen(&self, key: &FragmentKey, now_ns: u64) -> bool {
        match self.shared.maps.fragments.get(key) {
            Ok(datagram) => datagram
                .is_some_and(|datagram| now_ns.saturating_sub(datagram.created_ns) < FRAGMENT_LIFETIME_NS),
            Err(error) => {
                tracing::error!(%error, "the table of datagrams cannot be read");
                false
            }
        }
    }

    fn release(&mut self, key: &FragmentKey) {
        for fragment in self.hold.release(key) {
            self.put_back(fragment.ifindex, fragment.vlan, &fragment.frame);
        }
    }

    fn put_back(&mut self, ifindex: u32, vlan: u32, frame: &[u8]) {
        if let Err(error) = self.injector.inject_tagged(ifindex, vlan, frame) {
            tracing::debug!(%error, ifindex, bytes = frame.len(), "a frame could not be put back");
            self.over_limit += 1;
        }
    }

    /// Has the programs count what ended here.
    fn report(&mut self) {
        for (count, reason) in [
            (&mut self.over_limit, Reason::FragmentLimit),
            (&mut self.timed_out, Reason::FragmentTimeout),
            (&mut self.gateway.lost, Reason::GatewayLost),
        ] {
            if *count == 0 {
                continue;
            }
            let mut request = ControlRequest {
                operation: COUNT_DROPPED,
                argument: reason as u32,
                ..ControlRequest::default()
            };
            request.key[0] = u32::try_from(*count).unwrap_or(u32::MAX);
            match self.shared.request(&request) {
                Ok(true) => *count = 0,
                // Counted with the next ones.
                Ok(false) => tracing::error!(?request, "the programs did not count"),
                Err(error) => tracing::error!(%error, "dropped frames could not be counted"),
            }
        }
    }
}

/// The key of a fragment's datagram, as the programs make it.
fn fragment_key(frame: &[u8], context: u32, zone: u8) -> Option<FragmentKey> {
    let mut packet = Packet::default();
    let length = u32::try_from(frame.len()).ok()?;
    parse(
        &PlainLoop,
        &HeaderBuffer::from_frame(frame),
        length,
        false,
        &mut packet,
    )
    .ok()?;
    packet
        .is_later_fragment()
        .then(|| bulkhead_pipeline::fragment_key(&packet, context, zone))
}
