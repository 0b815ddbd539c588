//! Where the two sides of a connection stand, and which segments can be theirs.
//!
//! After Guido van Rooij, "Real stateful TCP packet filtering in IP Filter" (2001), as in the kernel's
//! nf_conntrack_proto_tcp.c, but so that an ordinary segment is judged by its own direction's flow alone:
//!
//! - A side's segments end at or before what the other side offered last. That is `tcp_limit`, copied over from the
//!   other flow's `tcp_offer` when a segment goes beyond it, about once per window.
//! - They end no further back than data that may still be unacknowledged.
//! - They acknowledge nothing beyond what this side itself has ever offered (`tcp_offer`): more cannot have come.
//! - They acknowledge nothing so old that the other side would challenge it (RFC 5961, 5.2).
//!
//! Generous by [`SLACK`] where two CPUs may race on one flow's edges: an edge then lags by what one packet moved it, at
//! most an aggregate of 64 KB, until the next packet of that side. The same allowance lets probes of a closed window pass
//! (RFC 9293, 3.8.6.1), and a bare FIN behind it.

use bulkhead_abi::Flow;
use bulkhead_packet::{Packet, tcp_flags};

/// How far beyond the edges a segment may lie, bytes.
pub(crate) const SLACK: u32 = 1 << 16;

/// The largest window scale (RFC 7323, 2.3), assumed where the handshake was not seen.
pub(super) const LARGEST_SCALE: u8 = 14;

/// Whether `a` comes after `b` in sequence space (RFC 9293, 3.4).
#[inline(always)]
pub(crate) fn after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

/// Whether `number` lies between `low` and `high`, both included. `high` must not come before `low`.
#[inline(always)]
fn within(number: u32, low: u32, high: u32) -> bool {
    number.wrapping_sub(low) <= high.wrapping_sub(low)
}

/// A window in bytes.
#[inline(always)]
fn bytes(window: u16, scale: u8) -> u32 {
    u32::from(window) << (scale & 15)
}

/// The sequence number after this packet: SYN and FIN count one each.
#[inline(always)]
pub(crate) fn end_of(packet: &Packet) -> u32 {
    let flags = packet.tcp_flags;
    packet
        .seq
        .wrapping_add(packet.payload_bytes)
        .wrapping_add(u32::from(flags & tcp_flags::SYN != 0))
        .wrapping_add(u32::from(flags & tcp_flags::FIN != 0))
}

/// Whether an acknowledging segment without SYN, FIN or RST is its connection's, as far as its own flow can say. What it
/// cannot say, [`fits`] does.
#[inline(always)]
pub(crate) fn certain(flow: &Flow, packet: &Packet) -> bool {
    let end = packet.seq.wrapping_add(packet.payload_bytes);
    within(end, flow.tcp_end.wrapping_sub(SLACK), flow.tcp_limit)
        && within(packet.ack, flow.tcp_ack.wrapping_sub(SLACK), flow.tcp_offer)
}

/// Moves the edges on by an acknowledging segment that ends at `end`.
#[inline(always)]
pub(crate) fn advance(flow: &mut Flow, packet: &Packet, end: u32, scale: u8) {
    if after(end, flow.tcp_end) {
        flow.tcp_end = end;
    }
    if after(packet.ack, flow.tcp_ack) {
        flow.tcp_ack = packet.ack;
    }
    // The highest offer counts, not the last: what was offered once may be used whatever a later segment says (RFC 9293,
    // 3.8.6), and segments overtake one another.
    let offer = packet.ack.wrapping_add(bytes(packet.window, scale));
    if after(offer, flow.tcp_offer) {
        flow.tcp_offer = offer;
    }
    if packet.window > flow.tcp_window && packet.tcp_flags & tcp_flags::SYN == 0 {
        flow.tcp_window = packet.window;
    }
}

/// Moves the edges on by any segment but a reset, whose numbers prove nothing.
#[inline(always)]
pub(crate) fn follow(flow: &mut Flow, packet: &Packet, scale: u8) {
    if packet.tcp_flags & tcp_flags::RST != 0 {
        return;
    }
    let end = end_of(packet);
    if packet.tcp_flags & tcp_flags::ACK != 0 {
        // The window of a SYN is never scaled (RFC 7323, 2.2).
        let scale = if packet.tcp_flags & tcp_flags::SYN != 0 {
            0
        } else {
            scale
        };
        advance(flow, packet, end, scale);
    } else if after(end, flow.tcp_end) {
        flow.tcp_end = end;
    }
}

/// Shift of `own`'s windows; during the handshake too, when a side may yet turn out not to scale.
#[inline(always)]
pub(crate) fn scale_of(own: &Flow, partner: &Flow) -> u8 {
    if (own.tcp_scale | partner.tcp_scale) & Flow::NO_SCALE == 0 {
        own.tcp_scale
    } else {
        0
    }
}

/// How far back the receiver of windows up to this one may have to reach.
#[inline(always)]
fn reach(window: u16, scale: u8) -> u32 {
    let reach = bytes(window, scale);
    if reach < SLACK { SLACK } else { reach }
}

/// Whether a segment can be its connection's, both flows considered. Raises `own`'s limit to what the other side offers
/// by now.
#[inline(never)]
pub(crate) fn fits(packet: &Packet, own: &mut Flow, partner: &Flow) -> bool {
    if after(partner.tcp_offer, own.tcp_limit) {
        own.tcp_limit = partner.tcp_offer;
    }
    // Repeated is what the other side has not acknowledged, at most its largest window; a keep-alive is one before (RFC 9293,
    // 3.8.4). Where a segment ends decides: the front of a repeated one may have been acknowledged meanwhile.
    let back = reach(partner.tcp_window, scale_of(partner, own));
    let low = own.tcp_end.wrapping_sub(back).wrapping_sub(1);
    if !within(end_of(packet), low, own.tcp_limit.wrapping_add(SLACK)) {
        return false;
    }
    if packet.tcp_flags & tcp_flags::ACK == 0 {
        return true;
    }
    // An edge that a forged segment moved beyond what there is to acknowledge is not one.
    let acknowledged = if after(own.tcp_ack, partner.tcp_end) {
        partner.tcp_end
    } else {
        own.tcp_ack
    };
    let low = acknowledged.wrapping_sub(reach(own.tcp_window, scale_of(own, partner)));
    within(packet.ack, low, partner.tcp_end.wrapping_add(SLACK))
}

/// Whether a sequence number is at or beyond what the other side acknowledged, and within its offer.
#[inline(always)]
pub(super) fn in_receive_window(seq: u32, partner: &Flow) -> bool {
    seq.wrapping_sub(partner.tcp_ack) < partner.tcp_offer.wrapping_sub(partner.tcp_ack)
}

/// Whether the side of `own` may lately have sent a segment that begins at `seq`.
#[inline(always)]
pub(crate) fn sent_lately(seq: u32, own: &Flow, partner: &Flow) -> bool {
    let back = reach(partner.tcp_window, scale_of(partner, own));
    within(seq, own.tcp_end.wrapping_sub(back).wrapping_sub(1), own.tcp_end)
}
