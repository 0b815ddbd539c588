//! Fragments: each gets the ports of its datagram's first fragment and goes the way of that session; none is put together.
//!
//! The first fragment is judged like any packet; what it said is then remembered ([`settle`]), or that nothing of its
//! datagram goes on. A later one finds that ([`look`]) or, if it came too early, waits in user space and comes back. Each
//! part of a datagram goes by once: what overlaps ends the datagram (RFC 5722; exact copies too, which cannot be told
//! from the rest of what was seen, so a network that duplicates fragments loses their datagrams).
//!
//! Every first fragment holds the whole layer 4 header (the parser), so no header passes that was not judged.
//!
//! Races: fragments of one datagram on several CPUs at once read the same entry and the last one writes it: what the
//! others noted is lost, so an overlap with it is not seen here but at the receiver, which must refuse it too. An entry
//! evicted while it is copied may be another datagram's by then: the fragment is treated as one of another session of
//! these two addresses, or of none.

use bulkhead_abi::{
    Datagram, FRAGMENT_LIFETIME_NS, FragmentKey, FrameKind, Reason, datagram_flags, flow_flags, protocol,
};
use bulkhead_packet::{ETHERNET_BYTES, HeaderBuffer, Packet, Repeat, checksum, fragment_flags, tcp_flags};

use crate::{Action, Checksum, Clock, Frame, Limiter, Tables, Verdict, Work, open, wire};

/// A first fragment whose identification was last seen this long ago begins another datagram, which an incomplete one
/// (a fragment of it was lost) must not hold up: 16 bits of identification come round quickly (RFC 4963). Fragments of
/// one datagram are sent back to back.
const REUSE_NS: u64 = 2_000_000_000;

/// No place in the list of ranges.
const NONE: u32 = u32::MAX;

/// The key of a fragment's datagram. `context` is what the keys of its flows hold above the protocol, `zone` that of the
/// interface it came in on.
#[inline(always)]
#[must_use]
pub fn fragment_key(packet: &Packet, context: u32, zone: u8) -> FragmentKey {
    let number = if packet.family == 4 {
        u32::from(packet.protocol)
    } else {
        0
    };
    FragmentKey {
        source_be: packet.source_be,
        destination_be: packet.destination_be,
        id: packet.fragment_id,
        protocol: number | context,
        family: u16::from(packet.family),
        zone: u16::from(zone),
    }
}

/// What the pipeline does with a fragment before its session is looked for. `None`: go on; a later fragment has its ports.
#[inline(never)]
pub(crate) fn look<F: Frame, E: Tables + Clock>(frame: &mut F, env: &E, work: &mut Work) -> Option<Verdict> {
    let Some(zone) = env.zone(work.tables, work.ifindex) else {
        return Some(Verdict::drop(Reason::NotConfigured));
    };
    work.fragment_key = fragment_key(&work.packet, work.context, zone);
    let known = env.datagram(&work.fragment_key, &mut work.datagram)
        && work.now_ns.wrapping_sub(work.datagram.created_ns) < FRAGMENT_LIFETIME_NS;
    if !work.packet.is_later_fragment() {
        return begin(env, work, known);
    }
    if !known {
        return Some(wait(frame, env, work));
    }
    if work.datagram.flags & datagram_flags::POISONED != 0 {
        return Some(Verdict::drop(fate(work.datagram.reason)));
    }
    if let Err(reason) = note(env, &work.packet, &mut work.datagram) {
        poison(env, work, reason);
        return Some(Verdict::drop(reason));
    }
    let Work {
        packet,
        datagram,
        key,
        ..
    } = work;
    packet.protocol = datagram.protocol;
    packet.source_port = datagram.source_port;
    packet.destination_port = datagram.destination_port;
    key.source_port = datagram.source_port;
    key.destination_port = datagram.destination_port;
    key.protocol = u32::from(datagram.protocol) | work.context;
    if packet.protocol == protocol::TCP {
        // More of the segment that the first fragment began: without flags it only moves the sender's edge on.
        packet.seq = datagram.tcp_base.wrapping_add(u32::from(packet.fragment_offset));
        packet.payload_bytes = packet.fragment_bytes();
    }
    None
}

/// Fills `work` with the datagram of a fragment that is dropped before it was looked at, so that [`settle`] ends the right one.
#[inline(never)]
pub(crate) fn recall<E: Tables>(env: &E, work: &mut Work) {
    let zone = env.zone(work.tables, work.ifindex).unwrap_or(0);
    work.fragment_key = fragment_key(&work.packet, work.context, zone);
    if !env.datagram(&work.fragment_key, &mut work.datagram) {
        work.datagram = Datagram::default();
    }
}

/// Ends the datagram of a first fragment that was dropped before it was looked at, where no [`settle`] follows.
#[inline(never)]
pub(crate) fn refuse<E: Tables>(env: &E, work: &mut Work, reason: Reason) {
    recall(env, work);
    poison(env, work, reason);
}

/// A first fragment. It is judged by itself, except in a datagram that went by already or ended for what its fragments
/// are: one that was refused may have been a forged one.
#[inline(always)]
fn begin<E: Tables + Clock>(env: &E, work: &mut Work, known: bool) -> Option<Verdict> {
    if known && work.now_ns.wrapping_sub(work.datagram.last_ns) < REUSE_NS {
        if work.datagram.flags & datagram_flags::POISONED == 0 {
            return Some(Verdict::drop(Reason::FragmentOverlap));
        }
        let reason = fate(work.datagram.reason);
        if matches!(reason, Reason::FragmentOverlap | Reason::FragmentLimit) {
            return Some(Verdict::drop(reason));
        }
    }
    work.datagram = Datagram::default();
    work.datagram.created_ns = work.now_ns;
    work.datagram.new_id = env.datagram_id();
    None
}

/// A later fragment of which the first has not been seen: user space keeps it until then.
#[inline(always)]
fn wait<F: Frame, E: Tables>(frame: &mut F, env: &E, work: &Work) -> Verdict {
    let group_station = work.headers.byte(0).unwrap_or(0) & 1 != 0;
    if !env.wired() && !open::station_is_ours(work) && !group_station {
        return Verdict::drop(Reason::NotForUs);
    }
    // One that waited already comes back when there is an entry; that was evicted since.
    if work.injected != 0
        || !env.permitted(work.tables, Limiter::HandOver, work.now_ns)
        || !frame.hand_over(FrameKind::Fragment, work.ifindex, work.context)
    {
        return Verdict::drop(Reason::FragmentLimit);
    }
    env.count(Reason::SLOT_FRAGMENTS_HELD);
    Verdict::held()
}

/// A later fragment that no session takes.
#[inline(always)]
pub(crate) fn without_session<E: Tables>(env: &E, work: &mut Work) -> Verdict {
    if work.datagram.flags & datagram_flags::TO_HOST != 0 {
        Verdict::pass(Reason::ToHost)
    } else if env.wired() && work.datagram.flags & datagram_flags::CROSSES != 0 {
        wire::cross(env, work, Reason::WireGroup)
    } else {
        Verdict::drop(Reason::FragmentNoSession)
    }
}

/// Remembers what became of a fragment: of a first one what the others need, of a later one that it went by.
#[inline(never)]
pub(crate) fn settle<E: Tables>(env: &E, work: &mut Work, verdict: Verdict) {
    if verdict.action == Action::Held {
        // It comes back.
        return;
    }
    let went_on = verdict.action != Action::Drop;
    if work.packet.is_later_fragment() {
        if !went_on {
            return;
        }
    } else if went_on {
        remember(work, verdict);
        // Nothing is there yet that it could collide with.
        let _noted = note(env, &work.packet, &mut work.datagram);
    } else {
        match verdict.reason {
            // Its pieces come as fragments of this datagram; the others concern this interface, not the datagram.
            Reason::Fragmented | Reason::NotForUs | Reason::NotConfigured => {}
            reason => poison(env, work, reason),
        }
        return;
    }
    if work.datagram.flags & datagram_flags::COMPLETE != 0 {
        // The identification is free for another datagram.
        env.remove_datagram(&work.fragment_key);
        return;
    }
    work.datagram.last_ns = work.now_ns;
    env.set_datagram(&work.fragment_key, &work.datagram);
}

/// What later fragments need of the first.
#[inline(always)]
fn remember(work: &mut Work, verdict: Verdict) {
    let Work { packet, datagram, .. } = work;
    datagram.protocol = packet.protocol;
    datagram.source_port = packet.source_port;
    datagram.destination_port = packet.destination_port;
    if verdict.action == Action::Pass {
        datagram.flags |= datagram_flags::TO_HOST;
    }
    if verdict.reason == Reason::WireGroup {
        datagram.flags |= datagram_flags::CROSSES;
    }
    if packet.protocol == protocol::TCP {
        let counted = u32::from(packet.tcp_flags & tcp_flags::SYN != 0)
            + u32::from(packet.tcp_flags & tcp_flags::FIN != 0);
        let headers = packet.fragment_bytes() - packet.payload_bytes;
        datagram.tcp_base = packet.seq.wrapping_add(counted).wrapping_sub(headers);
    }
}

/// Lets nothing more of the datagram go on, for this reason.
#[inline(always)]
fn poison<E: Tables>(env: &E, work: &mut Work, reason: Reason) {
    work.datagram.created_ns = work.now_ns;
    work.datagram.last_ns = work.now_ns;
    work.datagram.flags |= datagram_flags::POISONED;
    work.datagram.reason = reason as u8;
    env.set_datagram(&work.fragment_key, &work.datagram);
}

/// The reason that ended a datagram.
#[inline(always)]
fn fate(reason: u8) -> Reason {
    Reason::from_number(reason).unwrap_or(Reason::Internal)
}

/// Notes that the fragment's bytes go by.
///
/// # Errors
/// [`Reason::FragmentOverlap`] if some did already, or the datagram has another end; [`Reason::FragmentLimit`] if it has
/// too many gaps.
#[inline(never)]
fn note(looping: &impl Repeat, packet: &Packet, datagram: &mut Datagram) -> Result<(), Reason> {
    let first = u32::from(packet.fragment_offset);
    let behind = first + packet.fragment_bytes();
    let ends = packet.fragment & fragment_flags::MORE == 0;
    let end = datagram.end;
    let mut overlaps = end != 0 && (behind > end || (ends && behind != end));
    let (mut before, mut after, mut free) = (NONE, NONE, NONE);
    let ranges = &datagram.ranges;
    looping.repeat(ranges.len() as u32, |at| {
        let range = ranges[at as usize & 7];
        let (from, to) = (range >> 16, range & 0xffff);
        if to == 0 {
            free = at;
            return false;
        }
        overlaps |= (from < behind && first < to) || (ends && to > behind);
        if to == first {
            before = at;
        }
        if from == behind {
            after = at;
        }
        false
    });
    if overlaps {
        return Err(Reason::FragmentOverlap);
    }
    let ranges = &mut datagram.ranges;
    let (mut from, mut to, mut place) = (first, behind, free);
    if after != NONE {
        to = ranges[after as usize & 7] & 0xffff;
        ranges[after as usize & 7] = 0;
        place = after;
    }
    if before != NONE {
        from = ranges[before as usize & 7] >> 16;
        ranges[before as usize & 7] = 0;
        place = before;
    }
    if place == NONE {
        return Err(Reason::FragmentLimit);
    }
    ranges[place as usize & 7] = from << 16 | to;
    if ends {
        datagram.end = behind;
    }
    if from == 0 && to == datagram.end {
        datagram.flags |= datagram_flags::COMPLETE;
    }
    Ok(())
}

/// Gives a fragment the identification of its datagram on the other side: those of several senders that share a
/// translated address must not meet there (RFC 6864, section 5.3).
#[inline(always)]
pub(crate) fn stamp(
    headers: &mut HeaderBuffer,
    packet: &Packet,
    datagram: &Datagram,
    checksum: &mut Checksum,
) {
    if packet.family == 4 {
        let id = datagram.new_id as u16;
        let before = headers.be16(ETHERNET_BYTES + 4).unwrap_or(0);
        let change = checksum::replace16(0, before.to_be(), id.to_be());
        headers.set_be16(ETHERNET_BYTES + 4, id);
        let field = headers.be16(ETHERNET_BYTES + 10).unwrap_or(0).to_be();
        headers.set_be16(ETHERNET_BYTES + 10, u16::from_be(checksum::apply(field, change)));
    } else {
        // The header lies inside the buffer, far below 256; the verifier is told so.
        let at = usize::from(packet.fragment_header & 0xff) + 4;
        let before = headers.word(at).unwrap_or(0);
        let id = datagram.new_id.to_be();
        headers.set_word(at, id);
        checksum.unbalanced = checksum::replace32(checksum.unbalanced, before, id);
    }
}

/// Whether [`stamp`] is due: only translated flows share addresses.
#[inline(always)]
pub(crate) fn is_translated(flags: u8) -> bool {
    flags & flow_flags::TRANSLATED != 0
}
