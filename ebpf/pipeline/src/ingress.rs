//! Entry of a frame, and the short way of an established session.

use bulkhead_abi::{Disposition, Flow, FlowKey6, Hop, Reason, SessionState, flow_flags, protocol};
use bulkhead_packet::{HeaderBuffer, IcmpKind, Kind, Packet, parse, tcp_flags};

use crate::{
    Action, Checksum, Clock, Frame, Stage, Table, Tables, Verdict, Work, answer, forward, fragment,
    neighbour, open, related, screens, session, tcp::window, wire,
};

/// Judges a frame that entered a data interface (TCX: the whole way).
///
/// `work.headers` holds the frame's first bytes, `work.ifindex` the interface it came in on.
#[inline(always)]
pub fn ingress<F: Frame, E: Tables + Clock>(frame: &mut F, env: &E, work: &mut Work) -> Verdict {
    if first_look(frame, env, work, false) {
        work.verdict
    } else {
        Verdict::go_on(work, Stage::Session)
    }
}

/// Goes on with a frame that [`ingress`] or an earlier stage did not settle.
#[inline(always)]
pub fn stage<F: Frame, E: Tables + Clock>(frame: &mut F, env: &E, work: &mut Work, stage: Stage) -> Verdict {
    let verdict = match stage {
        Stage::Session => known(frame, env, work),
        Stage::Open => open::open(frame, env, work),
        Stage::Admit => open::admit(frame, env, work),
        Stage::Related => related::related(frame, env, work),
        Stage::Neighbour => neighbour::settle(frame, env, work),
    };
    if work.packet.fragment != 0 && verdict.action != Action::Stage {
        fragment::settle(env, work, verdict);
        if verdict.reason == Reason::FragmentOverlap {
            return Verdict::drop(screens::refused(env, work, verdict.reason));
        }
    }
    verdict
}

/// The part that needs no skb: established sessions and drops of malformed packets (XDP).
#[inline(always)]
pub fn established<F: Frame, E: Tables + Clock>(frame: &mut F, env: &E, work: &mut Work) -> Verdict {
    if env.wired() {
        // A tag that the device took off would be lost here: wires are TCX's.
        return UNSETTLED;
    }
    if first_look(frame, env, work, true) {
        return work.verdict;
    }
    if work.verdict.reason != ELSEWHERE.reason
        && work.packet.kind == Kind::Ip
        && let Err(reason) = screens::early(frame, env, work)
    {
        if work.packet.fragment != 0 && !work.packet.is_later_fragment() {
            // The others must not wait in user space for a first that will not come.
            fragment::refuse(env, work, reason);
        }
        return Verdict::drop(reason);
    }
    UNSETTLED
}

/// What the first look leaves to others.
const UNSETTLED: Verdict = Verdict {
    action: Action::NextHook,
    reason: Reason::Established,
};

/// XDP: an ordinary packet of a session that leaves where no frame can be redirected to; the socket buffer takes the short
/// way.
const ELSEWHERE: Verdict = Verdict {
    action: Action::NextHook,
    reason: Reason::EstablishedXdp,
};

/// Parses, and settles what is the kernel's, what is malformed and what is an established session in full flow: whether
/// it did, with the answer in `work.verdict`.
///
/// A call of its own, so that its stack is given back before the long way needs all there is. It returns one bit, because
/// two bytes come back through the caller's stack, to which a register may then still point: the verifier refuses that.
#[inline(never)]
fn first_look<F: Frame, E: Tables + Clock>(frame: &mut F, env: &E, work: &mut Work, xdp: bool) -> bool {
    let verdict = look(frame, env, work, xdp);
    work.verdict = verdict;
    verdict.action != Action::NextHook
}

#[inline(always)]
fn look<F: Frame, E: Tables + Clock>(frame: &mut F, env: &E, work: &mut Work, xdp: bool) -> Verdict {
    work.context = 0;
    work.missed = 0;
    work.alone = 0;
    if env.wired()
        && let Err(reason) = wire::enter(env, work)
    {
        return Verdict::drop(reason);
    }
    let gso = frame.gso_segment_bytes() != 0;
    match parse(env, &work.headers, frame.bytes(), gso, &mut work.packet) {
        Ok(()) => {}
        Err(reason) => {
            let reason = screens::refused(env, work, reason);
            return if env.wired() {
                wire::refused(env, work, reason)
            } else {
                Verdict::drop(reason)
            };
        }
    }
    match work.packet.kind {
        Kind::Ip => short_way(frame, env, work, xdp),
        // Counted where it is handed to the kernel.
        _ if env.wired() => wire::discovery(env, work),
        _ if xdp => UNSETTLED,
        Kind::Arp | Kind::NeighbourDiscovery => Verdict::go_on(work, Stage::Neighbour),
    }
}

/// What the short way found, inside the flow's closure.
#[derive(PartialEq, Eq)]
enum Found {
    /// Anything out of the ordinary.
    Unusual,
    /// XDP: an ordinary packet that leaves where no frame can be redirected to.
    Elsewhere,
    Redirect,
    RedirectPeer,
}

/// One lookup, one rewrite, out. Unsettled: the flow is unknown, or anything about it is out of the ordinary.
#[inline(always)]
fn short_way<F: Frame, E: Tables + Clock>(frame: &mut F, env: &E, work: &mut Work, xdp: bool) -> Verdict {
    let live = env.live();
    work.generation = live.generation;
    work.tables = live.tables;
    work.fib_epoch = live.fib_epoch;
    work.now_ns = env.now_ns();
    let packet = &work.packet;
    work.key = FlowKey6 {
        source_be: packet.source_be,
        destination_be: packet.destination_be,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        protocol: u32::from(packet.protocol) | work.context,
    };
    if packet.fragment != 0 {
        return UNSETTLED;
    }
    let l3_bytes = forward::largest_bytes(frame, packet);
    let wired = env.wired();
    let bytes = frame.bytes();
    let mut checksum = Checksum::default();
    let mut end = 0;
    let Work {
        headers,
        packet,
        key,
        now_ns,
        generation,
        fib_epoch,
        ifindex,
        out_ifindex,
        ..
    } = work;
    let found = env.with_flow(Table::Established, packet.family, key, |flow| {
        let ready = flow.generation == *generation
            && flow.fib_epoch == *fib_epoch
            && flow.ingress_ifindex == *ifindex
            && flow.hop != Hop::Unresolved as u8
            && flow.disposition == Disposition::Forward as u8
            && flow.flags & flow_flags::LONG_WAY == 0
            && packet.options == 0
            && ordinary(flow, packet)
            && flow.mtu >= l3_bytes
            && (wired || packet.ttl > 1)
            && flow.is_lively(*now_ns)
            && (wired || station_is_ours(headers, flow));
        if !ready {
            return Found::Unusual;
        }
        if xdp && flow.flags & flow_flags::XDP_EGRESS == 0 {
            return Found::Elsewhere;
        }
        flow.last_seen_ns = *now_ns;
        flow.packets += 1;
        flow.bytes += u64::from(bytes);
        if packet.protocol == protocol::TCP {
            let end = packet.seq.wrapping_add(packet.payload_bytes);
            window::advance(flow, packet, end, flow.tcp_scale);
        }
        if !wired {
            end = forward::rewrite(headers, packet, flow, &mut checksum);
        }
        *out_ifindex = flow.egress_ifindex;
        if flow.hop == Hop::RedirectPeer as u8 {
            Found::RedirectPeer
        } else {
            Found::Redirect
        }
    });
    let peer = match found {
        Some(Found::Redirect) => false,
        Some(Found::RedirectPeer) => true,
        Some(Found::Elsewhere) => return ELSEWHERE,
        Some(Found::Unusual) => return UNSETTLED,
        None => {
            work.missed = 1;
            if !xdp {
                answer::look_ahead(env, work);
            }
            return UNSETTLED;
        }
    };
    if xdp && !forward::complete_checksum(frame, work) {
        return Verdict::drop(Reason::RewriteFailed);
    }
    if !wired && !frame.write_back(&mut work.headers, end, &checksum) {
        return Verdict::drop(Reason::RewriteFailed);
    }
    if xdp {
        return Verdict {
            action: Action::Redirect,
            reason: Reason::EstablishedXdp,
        };
    }
    let action = if peer {
        Action::RedirectPeer
    } else {
        Action::Redirect
    };
    Verdict {
        action,
        reason: Reason::Established,
    }
}

/// Layer 3 and 4 header bytes, what each segment of an aggregate repeats.
#[inline(always)]
pub(crate) fn header_bytes(packet: &Packet) -> u32 {
    let l4 = match packet.protocol {
        protocol::TCP => u32::from(packet.tcp_header_bytes),
        _ => 8,
    };
    u32::from(packet.l4) - u32::from(packet.l3) + l4
}

/// Whether packet and state are those of a conversation in full flow.
#[inline(always)]
fn ordinary(flow: &Flow, packet: &Packet) -> bool {
    match packet.protocol {
        protocol::TCP => {
            // Half-closed, the other direction may go on for hours.
            (flow.state == SessionState::TcpEstablished as u8 || flow.state == SessionState::TcpClosing as u8)
                && packet.tcp_flags & (tcp_flags::SYN | tcp_flags::FIN | tcp_flags::RST | tcp_flags::ACK)
                    == tcp_flags::ACK
                && window::certain(flow, packet)
        }
        protocol::UDP | protocol::UDP_LITE => flow.state == SessionState::UdpTwoWay as u8,
        protocol::ICMP | protocol::ICMPV6 => {
            flow.state == SessionState::Icmp as u8 && open::icmp_fits(packet, flow)
        }
        protocol::DCCP => flow.state == SessionState::Dccp as u8,
        _ => flow.state == SessionState::Other as u8,
    }
}

/// Whether the frame is addressed to the interface it came in on.
#[inline(always)]
fn station_is_ours(headers: &HeaderBuffer, flow: &Flow) -> bool {
    headers.station() == (flow.ingress_mac_high, flow.ingress_mac_low)
}

/// Everything that is not an established session in full flow: what belongs to a session ends here.
#[inline(always)]
fn known<F: Frame, E: Tables + Clock>(frame: &mut F, env: &E, work: &mut Work) -> Verdict {
    if work.generation == 0 || !env.interface(work.ifindex, &mut work.ingress) {
        return Verdict::drop(Reason::NotConfigured);
    }
    // What user space puts back was screened when it came.
    if work.injected == 0
        && let Err(reason) = screens::inspect(frame, env, work)
    {
        if work.packet.fragment != 0 {
            fragment::recall(env, work);
        }
        return Verdict::drop(reason);
    }
    if work.packet.fragment != 0
        && let Some(verdict) = fragment::look(frame, env, work)
    {
        return verdict;
    }
    if matches!(work.packet.protocol, protocol::ICMP | protocol::ICMPV6)
        && !work.packet.is_later_fragment()
        && work.packet.icmp_kind() == IcmpKind::Error
    {
        return Verdict::go_on(work, Stage::Related);
    }
    if session::find_missed(env, work) || work.alone == 0 && answer::find(env, work) {
        match session::proceed(frame, env, work) {
            session::Outcome::Verdict(verdict) => return verdict,
            session::Outcome::Gone => {}
        }
    }
    if work.packet.is_later_fragment() {
        return fragment::without_session(env, work);
    }
    Verdict::go_on(work, Stage::Open)
}
