//! Forwarding: where the packet goes, and the bytes it goes with.

use bulkhead_abi::{
    Flow, FrameKind, Hop, NeighbourKey, Reason, RouteEntry, RouteKind, SlowPathKind, flow_flags,
    interface_flags, protocol,
};
use bulkhead_packet::{HeaderBuffer, Packet, checksum};

use crate::{Action, Checksum, Frame, Limiter, Tables, Verdict, Work, fragment, syn_proxy, wire};

/// Whether a checksum of zero says that there is none, and one that comes to zero is sent as all ones (RFC 768; RFC 3828,
/// 3.1, where there always is one).
#[inline(always)]
pub(crate) fn zero_is_none(protocol: u8) -> bool {
    matches!(protocol, protocol::UDP | protocol::UDP_LITE)
}

/// Offset of the layer 4 checksum within its header, and of the first port or identifier; `None` where the protocol
/// has no checksum that could be changed.
#[inline(always)]
pub(crate) fn l4_fields(protocol: u8) -> Option<(usize, usize)> {
    match protocol {
        protocol::TCP => Some((16, 0)),
        protocol::UDP | protocol::UDP_LITE | protocol::DCCP => Some((6, 0)),
        protocol::ICMP | protocol::ICMPV6 => Some((2, 4)),
        _ => None,
    }
}

/// Writes MAC addresses, hop limit and the translation of `flow` into the header buffer. Returns how many bytes of
/// the buffer changed; the change of the layer 4 checksum goes to `checksum`.
#[inline(always)]
pub(crate) fn rewrite(
    headers: &mut HeaderBuffer,
    packet: &Packet,
    flow: &Flow,
    checksum: &mut Checksum,
) -> usize {
    let (pseudo, unbalanced) = rewrite_network(headers, packet, flow);
    checksum.unbalanced = unbalanced;
    // Masked, though it lies inside the header buffer anyway: the verifier does not know.
    let l4 = usize::from(packet.l4) & 0xff;
    if flow.flags & flow_flags::TRANSLATED == 0 {
        return l4;
    }
    let Some((checksum_at, ports_at)) = l4_fields(packet.protocol) else {
        return l4;
    };
    let mut data = checksum::replace16(0, packet.source_port.to_be(), flow.new_source_port.to_be());
    headers.set_be16(l4 + ports_at, flow.new_source_port);
    let mut end = l4 + ports_at + 2;
    if ports_at == 0 {
        data = checksum::replace16(
            data,
            packet.destination_port.to_be(),
            flow.new_destination_port.to_be(),
        );
        headers.set_be16(l4 + 2, flow.new_destination_port);
        end += 2;
    }
    *checksum = Checksum {
        at: l4 + checksum_at,
        // ICMP for IPv4 covers no pseudo header (RFC 792).
        pseudo: if packet.protocol == protocol::ICMP {
            0
        } else {
            pseudo
        },
        data,
        udp: zero_is_none(packet.protocol),
        ipv6: packet.family == 6,
        unbalanced,
    };
    end
}

/// The part of [`rewrite`] up to layer 3. Returns the change of the pseudo header, and the change of bytes that no
/// checksum balances.
#[inline(always)]
pub(crate) fn rewrite_network(headers: &mut HeaderBuffer, packet: &Packet, flow: &Flow) -> (u32, u32) {
    headers.set_stations(&flow.next_hop_mac, &flow.egress_mac);
    let l3 = bulkhead_packet::ETHERNET_BYTES;
    let translated = flow.flags & flow_flags::TRANSLATED != 0;
    let (mut pseudo, mut unbalanced) = (0, 0);
    if packet.family == 4 {
        // RFC 1624 on the word that holds TTL and protocol.
        let before = u16::from_ne_bytes([packet.ttl, packet.protocol]);
        let after = u16::from_ne_bytes([packet.ttl.wrapping_sub(1), packet.protocol]);
        let mut change = checksum::replace16(0, before, after);
        headers.set_byte(l3 + 8, packet.ttl.wrapping_sub(1));
        if translated {
            pseudo = checksum::replace32(pseudo, packet.source_be[0], flow.new_source_be[0]);
            pseudo = checksum::replace32(pseudo, packet.destination_be[0], flow.new_destination_be[0]);
            headers.set_word(l3 + 12, flow.new_source_be[0]);
            headers.set_word(l3 + 16, flow.new_destination_be[0]);
            change = checksum::add(change, pseudo);
        }
        let field = headers.be16(l3 + 10).unwrap_or(0).to_be();
        headers.set_be16(l3 + 10, u16::from_be(checksum::apply(field, change)));
    } else {
        let next_header = headers.byte(l3 + 6).unwrap_or(0);
        let before = u16::from_ne_bytes([next_header, packet.ttl]);
        unbalanced = checksum::replace16(
            0,
            before,
            u16::from_ne_bytes([next_header, packet.ttl.wrapping_sub(1)]),
        );
        headers.set_byte(l3 + 7, packet.ttl.wrapping_sub(1));
        if translated {
            let mut i = 0;
            while i < 4 {
                pseudo = checksum::replace32(pseudo, packet.source_be[i], flow.new_source_be[i]);
                pseudo = checksum::replace32(pseudo, packet.destination_be[i], flow.new_destination_be[i]);
                i += 1;
            }
            headers.set_address6(l3 + 8, flow.new_source_be);
            headers.set_address6(l3 + 24, flow.new_destination_be);
        }
    }
    (pseudo, unbalanced)
}

/// Completes the packet's own checksum where the hook loses the mark that the hardware or a veth would (XDP).
#[inline(always)]
pub(crate) fn complete_checksum<F: Frame>(frame: &mut F, work: &mut Work) -> bool {
    let packet = &work.packet;
    let at = match packet.protocol {
        protocol::TCP => 16,
        protocol::UDP => 6,
        _ => return true,
    };
    let l4 = usize::from(packet.l4);
    let l4_bytes = packet.l3_bytes.saturating_sub(u32::from(packet.l4 - packet.l3));
    // The sum of the tuple as it arrived; the header buffer may hold the translated one already.
    let pseudo = checksum::pseudo_header(
        &packet.source_be,
        &packet.destination_be,
        packet.protocol,
        l4_bytes,
    );
    frame.complete_checksum(&mut work.headers, l4, l4_bytes, l4 + at, checksum::fold(pseudo))
}

/// Looks the destination up in the mirrored routes and, if it leads out, fills `work.route`, `work.egress` and
/// `work.out_ifindex`.
///
/// # Errors
/// The reason why the packet cannot go there.
#[inline(always)]
pub(crate) fn find_route<E: Tables>(
    env: &E,
    work: &mut Work,
    family: u8,
    destination_be: &[u32; 4],
) -> Result<RouteKind, Reason> {
    if env.wired() {
        return wire::other_end(env, work);
    }
    work.route = RouteEntry::default();
    if !env.route(family, destination_be, &mut work.route) {
        return Err(Reason::NoRoute);
    }
    if work.route.kind == RouteKind::Local as u32 {
        return Ok(RouteKind::Local);
    }
    if work.route.kind == RouteKind::NotForwarded as u32 {
        return Ok(RouteKind::NotForwarded);
    }
    if work.route.kind != RouteKind::Unicast as u32 {
        return Err(Reason::NoRoute);
    }
    work.out_ifindex = work.route.ifindex;
    if !env.interface(work.out_ifindex, &mut work.egress) || work.egress.flags & interface_flags::DATA == 0 {
        return Err(Reason::EgressNotGuarded);
    }
    Ok(RouteKind::Unicast)
}

/// Fills the hop of `work.flow` from `work.route` and `work.egress`: interface, MTU, MAC addresses if the neighbour is
/// known.
#[inline(always)]
pub(crate) fn fill_hop<E: Tables>(env: &E, work: &mut Work) {
    if env.wired() {
        wire::fill_hop(work);
        return;
    }
    let flow = &mut work.flow;
    flow.egress_ifindex = work.out_ifindex;
    flow.mtu = work.egress.mtu;
    flow.egress_mac = work.egress.mac;
    flow.fib_epoch = work.fib_epoch;
    flow.hop = Hop::Unresolved as u8;
    // A redirected XDP frame loses the mark that the hardware is to compute its CRC, and SCTP's is not computed here.
    if work.egress.flags & interface_flags::XDP_TARGET != 0 && flow.protocol != protocol::SCTP {
        flow.flags |= flow_flags::XDP_EGRESS;
    } else {
        flow.flags &= !flow_flags::XDP_EGRESS;
    }
    let mut key = NeighbourKey {
        ifindex: work.out_ifindex,
        family: u32::from(work.packet.family),
        address_be: flow.new_destination_be,
    };
    if work.route.gateway_family != 0 {
        key.family = work.route.gateway_family;
        key.address_be = work.route.gateway_be;
    }
    if let Some(mac) = env.neighbour(&key) {
        let [a, b, c, d, e, f, _, _] = mac.to_le_bytes();
        flow.next_hop_mac = [a, b, c, d, e, f];
        // `bpf_redirect_peer` is defined from one device to another's peer; what turns round on its interface is
        // sent out of it.
        let peer = work.egress.flags & interface_flags::PEER != 0 && work.out_ifindex != work.ifindex;
        flow.hop = if peer {
            Hop::RedirectPeer as u8
        } else {
            Hop::Redirect as u8
        };
    }
}

/// Bytes of layer 3 of the largest packet that leaves: the packet's, or one segment's of an aggregate.
#[inline(always)]
pub(crate) fn largest_bytes<F: Frame>(frame: &F, packet: &Packet) -> u32 {
    /// Not all segments have one size: SCTP's chunks, bundled to what fits the path (`GSO_BY_FRAGS`,
    /// include/linux/skbuff.h). How large they are is not to be seen from here.
    const BY_FRAGMENTS: u32 = 0xffff;
    match frame.gso_segment_bytes() {
        0 => packet.l3_bytes,
        BY_FRAGMENTS => 0,
        segment => segment + crate::ingress::header_bytes(packet),
    }
}

/// Whether the packet fits, hop limit and MTU; otherwise the slow path tells the sender.
#[inline(always)]
pub(crate) fn fits<F: Frame, E: Tables>(frame: &mut F, env: &E, work: &Work, mtu: u32) -> Result<(), Reason> {
    if env.wired() {
        return wire::fits(frame, work, mtu);
    }
    if work.packet.ttl <= 1 {
        ask(frame, env, work, SlowPathKind::TtlExceeded, 0);
        return Err(Reason::TtlExceeded);
    }
    if largest_bytes(frame, &work.packet) > mtu {
        if frame.gso_segment_bytes() == 0 && !work.packet.dont_fragment() {
            // RFC 1812, 4.2.2.7 and RFC 4787, REQ-13: who does not forbid it is fragmented for.
            let handed = env.permitted(work.tables, Limiter::HandOver, work.now_ns)
                && frame.hand_over(FrameKind::Oversize, work.ifindex, mtu);
            return Err(if handed {
                Reason::Fragmented
            } else {
                Reason::FragmentLimit
            });
        }
        ask(frame, env, work, SlowPathKind::MtuExceeded, mtu);
        return Err(Reason::MtuExceeded);
    }
    Ok(())
}

/// Asks the slow path for an answer to the sender, within the rate limit.
#[inline(always)]
pub(crate) fn ask<F: Frame, E: Tables>(frame: &mut F, env: &E, work: &Work, kind: SlowPathKind, mtu: u32) {
    if !env.permitted(work.tables, Limiter::SlowPath, work.now_ns) {
        env.count(Reason::SLOT_SLOW_PATH_SUPPRESSED);
    } else if !frame.ask_slow_path(kind, work.ifindex, mtu) {
        env.count(Reason::SLOT_SLOW_PATH_LOST);
    }
}

/// Sends the packet along `work.flow`, whose hop was just filled.
#[inline(always)]
pub(crate) fn send<F: Frame, E: Tables>(frame: &mut F, env: &E, work: &mut Work, reason: Reason) -> Verdict {
    if env.wired() {
        if work.flow.flags & flow_flags::PROXIED != 0 && !syn_proxy::renumber_only(frame, work) {
            return Verdict::drop(Reason::RewriteFailed);
        }
        return wire::cross(env, work, reason);
    }
    let mut checksum = Checksum::default();
    let Work {
        headers,
        packet,
        flow,
        datagram,
        ..
    } = work;
    let mut end = if packet.is_later_fragment() {
        // Nothing of layer 4 is here: its checksum covers the datagram and was changed in the first fragment.
        let (_, unbalanced) = rewrite_network(headers, packet, flow);
        checksum.unbalanced = unbalanced;
        usize::from(packet.l4)
    } else {
        rewrite(headers, packet, flow, &mut checksum)
    };
    if packet.fragment != 0 && fragment::is_translated(flow.flags) {
        fragment::stamp(headers, packet, datagram, &mut checksum);
    }
    if flow.flags & flow_flags::PROXIED != 0 {
        end = syn_proxy::renumber(headers, packet, flow, &mut checksum, end);
    }
    leave(frame, work, end, &checksum, reason)
}

/// Stores the rewritten headers and picks the redirect that `work.flow`'s hop asks for.
#[inline(always)]
pub(crate) fn leave<F: Frame>(
    frame: &mut F,
    work: &mut Work,
    end: usize,
    checksum: &Checksum,
    reason: Reason,
) -> Verdict {
    work.out_ifindex = work.flow.egress_ifindex;
    if !frame.write_back(&mut work.headers, end, checksum) {
        return Verdict::drop(Reason::RewriteFailed);
    }
    let action = if work.flow.hop == Hop::Redirect as u8 {
        Action::Redirect
    } else if work.flow.hop == Hop::RedirectPeer as u8 {
        Action::RedirectPeer
    } else {
        Action::RedirectNeighbour
    };
    Verdict { action, reason }
}
