//! Whole frames that the packet path hands over: read here, given to whom they are for, put back by them.

use aya::maps::{MapData, RingBuf};
use bulkhead_abi::{FrameHeader, FrameKind};
use zerocopy::FromBytes as _;

use super::{Shared, events::wait, gateway::Gateway};
use crate::inject::Injector;

/// The thread's body.
pub(super) fn run(shared: &Shared, mut ring: RingBuf<MapData>, injector: &Injector) {
    let mut gateway = Gateway::default();
    while !shared.stopping() {
        wait(&ring);
        while let Some(item) = ring.next() {
            let Ok((header, rest)) = FrameHeader::read_from_prefix(&item) else {
                tracing::error!(bytes = item.len(), "a frame handed over without its header");
                continue;
            };
            let Some(frame) = rest.get(..header.length as usize) else {
                tracing::error!(header.length, "a frame handed over that is longer than its entry");
                continue;
            };
            match FrameKind::from_number(header.kind) {
                Some(FrameKind::Gateway) => gateway.handle(shared, injector, &header, frame),
                Some(FrameKind::Fragment | FrameKind::Oversize) | None => {
                    tracing::error!(header.kind, "a frame handed over for nobody");
                }
            }
        }
    }
}
