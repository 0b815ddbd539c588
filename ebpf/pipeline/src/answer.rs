//! Sessions that nobody has answered: one entry where others have two.
//!
//! Most of what a new session costs is memory that no cache holds: the entries it is written to. A conversation whose first
//! packet is its only one (a probe, a flood, a message to a collector) never needs the other direction's. So where nothing
//! is translated the first direction stands alone in the half-open table ([`Flow::unanswered`]), and this module owns what is
//! said of the other direction until it speaks: everything about it follows from the first ([`find`], [`expected`]). Its
//! first packet moves the session to the established table, with two entries like any other.
//!
//! Assumes that no translation is configured: then the only conversation with the reply's tuple is this one's, and nothing
//! has to be reserved. Refuses TCP, whose answer stays half-open until the handshake is complete and moves edges of both
//! directions meanwhile; what is announced by another conversation; and the firewall's own connections.
//!
//! Races: both sides may send their first packets at once, on two CPUs, and neither sees the other's. Then there are two
//! unanswered sessions. The next packet of either finds the other where its answers should be, and ends its own like half a
//! session ([`session::find_partner`]); it opens no other, because somebody sends the other way, and is dropped. The one
//! behind it is the answer. A conversation that was there when translation was configured may lose its reply's tuple to a
//! translated one, and ends like that too.

use bulkhead_abi::{
    Disposition, Flow, FlowKey6, ScreenProfile, SessionState, flow_flags, flow_generation, protocol,
};

use crate::{Table, Tables, Work, expect, open, screens::counts, session};

/// Whether the new session in `work.flow` needs no entry for its answers yet.
#[inline(always)]
pub(crate) fn may_wait(work: &Work) -> bool {
    work.alone != 0
        && work.translation.is_unheard_of()
        && work.flow.protocol != protocol::TCP
        && work.flow.disposition == Disposition::Forward as u8
        && !expect::is_expected(work)
}

/// Looks into the half-open table for a packet that is in no established session, either way: what is missed is noted in
/// `work.missed` and `work.alone`.
///
/// Right behind the look that missed, because each waits for memory and does not need the other's result, so the processor
/// waits for all of them at once; a tail call later it would wait for one after the other.
#[inline(always)]
pub(crate) fn look_ahead<E: Tables>(env: &E, work: &mut Work) {
    let family = work.packet.family;
    if env
        .with_flow(Table::HalfOpen, family, &work.key, |_| ())
        .is_some()
    {
        return;
    }
    work.missed = 2;
    if !is_tcp(work) {
        turn_key(&work.key, &mut work.partner_key);
        let found = env.with_flow(Table::HalfOpen, family, &work.partner_key, |_| ());
        work.alone = u32::from(found.is_none());
    }
}

#[inline(always)]
fn is_tcp(work: &Work) -> bool {
    work.key.protocol & 0xff == u32::from(protocol::TCP)
}

/// The key of the first direction to which this is the other, where nothing is translated.
#[inline(always)]
fn turn_key(key: &FlowKey6, turned: &mut FlowKey6) {
    turned.source_be = key.destination_be;
    turned.destination_be = key.source_be;
    turned.source_port = key.destination_port;
    turned.destination_port = key.source_port;
    turned.protocol = key.protocol;
}

/// Whether the packet, whose tuple is in no table, answers an unanswered session. Its flow is made in `work.flow` then, and
/// stands nowhere (`work.half_open` is 2): what goes on with it moves the session, which enters it. Where another answer has
/// just moved the session (its first direction is gone, or dead, since it was looked for) the flow that one entered is found.
#[inline(never)]
pub(crate) fn find<E: Tables>(env: &E, work: &mut Work) -> bool {
    if is_tcp(work) {
        return false;
    }
    let Work {
        key,
        partner_key: first_key,
        partner: first,
        flow,
        packet,
        ingress,
        ifindex,
        tables,
        screens,
        found_generation,
        alone,
        ..
    } = work;
    turn_key(key, first_key);
    let there = env
        .with_flow(Table::HalfOpen, packet.family, first_key, |flow| *first = *flow)
        .is_some();
    *alone = u32::from(!there);
    if !there || first.generation == flow_generation::DEAD {
        work.missed = 2;
        return session::find_missed(env, work);
    }
    if first.unanswered == 0 {
        return false;
    }
    turn(first, first_key, flow);
    flow.generation = flow_generation::unmarked(first.generation);
    *found_generation = flow.generation;
    let station = if flow.ingress_ifindex == *ifindex {
        ingress.mac
    } else {
        // Unknown here; without it the flow never takes the short way.
        [0; 6]
    };
    settle(env, *tables, flow, station, screens);
    true
}

/// Makes in `work.partner` what an answer to the unanswered session in `work.flow` would find.
#[inline(never)]
pub(crate) fn expected<E: Tables>(env: &E, work: &mut Work) {
    turn(&work.flow, &work.key, &mut work.partner);
    // Marked with the first direction, of which it is a part.
    work.partner.generation = work.found_generation;
    work.flow.unanswered = 0;
    // Answered when the table was full, or in this very moment on another CPU: the session is to be moved as a whole.
    let answered =
        work.flow.state == SessionState::UdpTwoWay as u8 || work.flow.state == SessionState::Dccp as u8;
    if answered && env.interface(work.flow.egress_ifindex, &mut work.egress) {
        let station = work.egress.mac;
        settle(env, work.tables, &mut work.partner, station, &mut work.screens);
    }
}

/// What a reply's flow has from its interface and its zone.
#[inline(always)]
fn settle<E: Tables>(env: &E, tables: u32, reply: &mut Flow, station: [u8; 6], screens: &mut ScreenProfile) {
    let [a, b, c, d, e, f] = station;
    reply.ingress_mac_high = u16::from_ne_bytes([a, b]);
    reply.ingress_mac_low = u32::from_ne_bytes([c, d, e, f]);
    if counts(env, tables, reply.from_zone, reply.protocol, screens) {
        reply.flags |= flow_flags::COUNTED;
    }
}

/// The flow of the other direction, as far as it follows from the first one's. Its next hop is where the first packet came
/// from, found when its own first packet comes.
#[inline(always)]
pub(crate) fn turn(first: &Flow, key: &FlowKey6, reply: &mut Flow) {
    // Field by field into the scratch entry: a struct expression would be built on the stack first.
    *reply = Flow::default();
    reply.fib_epoch = first.fib_epoch;
    reply.generation = first.generation;
    reply.egress_ifindex = first.ingress_ifindex;
    reply.ingress_ifindex = first.egress_ifindex;
    reply.state = first.state;
    reply.flags = first.flags & !flow_flags::COUNTED | flow_flags::REPLY;
    reply.disposition = Disposition::Forward as u8;
    reply.last_seen_ns = first.created_ns;
    reply.new_source_be = key.destination_be;
    reply.new_destination_be = key.source_be;
    reply.new_source_port = key.destination_port;
    reply.new_destination_port = key.source_port;
    reply.from_zone = first.to_zone;
    reply.to_zone = first.from_zone;
    reply.protocol = first.protocol;
    reply.policy = first.policy;
    reply.nat_rule = first.nat_rule;
    reply.destination_rule = first.destination_rule;
    reply.context = first.context;
    reply.timeout_s = first.timeout_s;
    reply.tcp_delta = 0u32.wrapping_sub(first.tcp_delta);
    reply.icmp_type_code = open::reply_type(first.icmp_type_code);
    reply.session_id = first.session_id;
    reply.created_ns = first.created_ns;
}
