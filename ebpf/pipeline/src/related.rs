//! ICMP errors about a session's packets: found by what they quote, translated inside and out (RFC 5508, section 4).
//!
//! An error never opens, refreshes or ends a session.

use bulkhead_abi::{Disposition, Flow, FlowKey6, Reason, RouteKind, flow_flags, protocol, tcp_rules};
use bulkhead_packet::{Embedded, HeaderBuffer, checksum, parse_embedded};

use crate::{
    Checksum, Clock, Frame, Tables, Verdict, Work, answer, forward, life, open, session, syn_proxy,
    tcp::window, wire,
};

/// Settles an ICMP error.
#[inline(always)]
pub(crate) fn related<F: Frame, E: Tables + Clock>(frame: &mut F, env: &E, work: &mut Work) -> Verdict {
    let Work {
        headers,
        packet,
        embedded,
        ..
    } = work;
    // What stands behind the message is padding of the link layer: nothing there is quoted, and nothing is changed.
    let message_end = u32::from(packet.l3) + packet.l3_bytes;
    if headers.len > message_end {
        headers.len = message_end;
    }
    if let Err(reason) = parse_embedded(env, headers, packet, embedded) {
        return Verdict::drop(reason);
    }
    if !env.wired() && !open::station_is_ours(work) {
        return Verdict::drop(Reason::NotForUs);
    }
    // The quoted packet as it left us, turned round, is the key of the flow that travels like this error.
    work.key = FlowKey6 {
        source_be: work.embedded.destination_be,
        destination_be: work.embedded.source_be,
        source_port: work.embedded.destination_port,
        destination_port: work.embedded.source_port,
        protocol: u32::from(work.embedded.protocol) | work.context,
    };
    if !(session::find(env, work) || answer::find(env, work))
        || work.packet.destination_be != work.key.destination_be
        || work.flow.disposition == Disposition::FromHost as u8
    {
        return Verdict::drop(Reason::IcmpNoSession);
    }
    // Half of a session is none: its translation may be somebody else's by now.
    if !session::find_partner(env, work)
        || life::is_dead(work)
        || life::idle_ns(work) > life::timeout_ns(env, work)
    {
        return Verdict::drop(Reason::IcmpNoSession);
    }
    if !was_sent(env, work) {
        return Verdict::drop(Reason::IcmpQuoteOutOfWindow);
    }
    if session::origin(env, work) == session::Origin::Other {
        return Verdict::drop(Reason::WrongZone);
    }
    if work.flow.generation != work.generation
        && let Err(reason) = session::refresh(env, work)
    {
        // The first word since the configuration changed, and the session would not go on. Its own packets will end it.
        return Verdict::drop(reason);
    }
    if env.wired() {
        if work.flow.flags & flow_flags::PROXIED != 0 && !syn_proxy::renumber_error(frame, work) {
            return Verdict::drop(Reason::RewriteFailed);
        }
        return wire::cross(env, work, Reason::RelatedIcmp);
    }
    if work.flow.disposition == Disposition::ToHost as u8 {
        return Verdict::pass(Reason::ToHost);
    }
    let family = work.packet.family;
    let destination_be = work.flow.new_destination_be;
    match forward::find_route(env, work, family, &destination_be) {
        Ok(RouteKind::Unicast) => {}
        Ok(_) => return Verdict::drop(Reason::NoRoute),
        Err(reason) => return Verdict::drop(reason),
    }
    if work.packet.ttl <= 1 {
        // No error about an error (RFC 1122, 3.2.2).
        return Verdict::drop(Reason::TtlExceeded);
    }
    if let Err(reason) = open::may_be_source(env, work) {
        return Verdict::drop(reason);
    }
    // The way may have changed since the session's own packets took it; where they would be judged again, an error is not
    // worth it. The flow is judged by now, and where it may go is noted in it: the interface itself may have been made anew.
    if env.zone(work.tables, work.out_ifindex) != Some(work.flow.to_zone) {
        return Verdict::drop(Reason::WrongZone);
    }
    forward::fill_hop(env, work);
    let source_be = work.flow.new_source_be;
    if source_be == work.key.source_be {
        // This side's addresses are not translated: the router that reports keeps its own.
        work.flow.new_source_be = work.packet.source_be;
    }
    let Work {
        headers,
        packet,
        embedded,
        flow,
        ..
    } = work;
    let (pseudo, unbalanced) = forward::rewrite_network(headers, packet, flow);
    let mut checksum = Checksum {
        unbalanced,
        ..Checksum::default()
    };
    let mut end = usize::from(packet.l4);
    if flow.flags & (flow_flags::TRANSLATED | flow_flags::PROXIED) != 0 {
        checksum.at = end + 2;
        checksum.ipv6 = family == 6;
        checksum.pseudo = if family == 6 { pseudo } else { 0 };
        if flow.flags & flow_flags::TRANSLATED != 0 {
            checksum.data = rewrite_quoted(headers, embedded, family, &source_be, flow);
        }
        if flow.flags & flow_flags::PROXIED != 0 {
            let data = syn_proxy::renumber_quoted(headers, usize::from(embedded.l4), flow);
            checksum.data = checksum::add(checksum.data, data);
        }
        end = usize::from(embedded.l4) + 18;
        if end > headers.len as usize {
            end = headers.len as usize;
        }
    }
    forward::leave(frame, work, end, &checksum, Reason::RelatedIcmp)
}

/// Whether the quoted TCP segment may lately have been sent: to know addresses and ports must not be enough to tell an
/// endpoint to give up or to send small packets (RFC 5927, 4.1).
#[inline(always)]
fn was_sent<E: Tables>(env: &E, work: &Work) -> bool {
    const UNCHECKED: u8 = flow_flags::LIBERAL | flow_flags::PROXIED;
    work.embedded.protocol != protocol::TCP
        || work.partner.flags & UNCHECKED != 0
        || env.tcp_rules(work.tables) & tcp_rules::LIBERAL != 0
        || window::sent_lately(work.embedded.seq, &work.partner, &work.flow)
}

/// Writes the original tuple into the quoted packet. It travelled the other way: its source is our destination.
/// Returns the change of the ICMP message's sum.
#[inline(always)]
fn rewrite_quoted(
    headers: &mut HeaderBuffer,
    embedded: &Embedded,
    family: u8,
    new_source_be: &[u32; 4],
    flow: &Flow,
) -> u32 {
    let new_destination_be = &flow.new_destination_be;
    let (new_source_port, new_destination_port) = (flow.new_source_port, flow.new_destination_port);
    // Masked: offsets are below 256, which the verifier of Linux 6.1 forgets when it spills them.
    let (l3, l4) = (usize::from(embedded.l3) & 0xff, usize::from(embedded.l4) & 0xff);
    let mut addresses = 0;
    let mut i = 0;
    while i < 4 {
        addresses = checksum::replace32(addresses, embedded.source_be[i], new_destination_be[i]);
        addresses = checksum::replace32(addresses, embedded.destination_be[i], new_source_be[i]);
        i += 1;
    }
    let mut data = addresses;
    if family == 4 {
        headers.set_word(l3 + 12, new_destination_be[0]);
        headers.set_word(l3 + 16, new_source_be[0]);
        data = checksum::add(data, change_field(headers, l3 + 10, addresses, false));
    } else {
        headers.set_address6(l3 + 8, *new_destination_be);
        headers.set_address6(l3 + 24, *new_source_be);
    }
    let Some((checksum_at, ports_at)) = forward::l4_fields(embedded.protocol) else {
        return data;
    };
    let mut ports = checksum::replace16(0, embedded.source_port.to_be(), new_destination_port.to_be());
    headers.set_be16(l4 + ports_at, new_destination_port);
    if ports_at == 0 {
        ports = checksum::replace16(ports, embedded.destination_port.to_be(), new_source_port.to_be());
        headers.set_be16(l4 + 2, new_source_port);
    }
    data = checksum::add(data, ports);
    let covered = if embedded.protocol == protocol::ICMP {
        ports
    } else {
        checksum::add(addresses, ports)
    };
    // The quoted checksum, where it is quoted at all; a UDP checksum of zero means none.
    match headers.be16(l4 + checksum_at) {
        Some(0) if forward::zero_is_none(embedded.protocol) => data,
        Some(_) => checksum::add(
            data,
            change_field(
                headers,
                l4 + checksum_at,
                covered,
                forward::zero_is_none(embedded.protocol),
            ),
        ),
        None => data,
    }
}

/// Applies a change to the checksum field at `at`; returns what that does to a sum over the field.
#[inline(always)]
pub(crate) fn change_field(headers: &mut HeaderBuffer, at: usize, change: u32, udp: bool) -> u32 {
    let Some(field) = headers.be16(at) else {
        return 0;
    };
    let before = field.to_be();
    let mut after = checksum::apply(before, change);
    if udp && after == 0 {
        // Zero would mean that there is none (RFC 768).
        after = 0xffff;
    }
    headers.set_be16(at, u16::from_be(after));
    checksum::replace16(0, before, after)
}
