//! The first packet of a conversation: may it, from where to where, under which name, and into the tables.

use bulkhead_abi::{
    Disposition, Event, EventKind, Flow, FlowKey6, PolicyAction, Reason, RouteEntry, RouteKind, RuleSet,
    SessionState, SlowPathKind, Tally, ZONE_SELF, flow_flags, flow_generation, protocol, tcp_rules,
};
use bulkhead_packet::{IcmpKind, Packet};

use crate::{
    Clock, Frame, Insert, Limiter, Question, Stage, Table, Tables, Verdict, Work,
    addresses::{Reach, destination_reach, is_group, source_reach},
    answer, decide, expect, forward,
    life::{self, Taken},
    limits,
    nat::{self, Reserved},
    screens, syn_proxy, tcp, wire,
};

/// Settles a packet without a session.
#[inline(always)]
pub(crate) fn open<F: Frame, E: Tables + Clock>(frame: &mut F, env: &E, work: &mut Work) -> Verdict {
    let Some(from_zone) = env.zone(work.tables, work.ifindex) else {
        return Verdict::drop(Reason::NotConfigured);
    };
    work.policy = u32::MAX;
    work.out_ifindex = 0;
    work.proven = 0;
    let group_station = work.headers.byte(0).unwrap_or(0) & 1 != 0;
    let group_address = is_group(work.packet.family, &work.packet.destination_be);
    let wired = env.wired();
    let ours = station_is_ours(work) || group_station;
    if !wired && (!ours || group_station != group_address) {
        return Verdict::drop(Reason::NotForUs);
    }
    if !syn_proxy::proves(env, work, from_zone)
        && let Err(reason) = may_open(env, work)
    {
        return Verdict::drop(reason);
    }
    let family = work.packet.family;
    let destination_be = work.packet.destination_be;
    if !group_address && source_reach(family, &work.packet.source_be) == Reach::Nowhere {
        return Verdict::drop(Reason::SourceAddressInvalid);
    }
    if !group_address && destination_reach(family, &destination_be) == Reach::Nowhere {
        return Verdict::drop(Reason::DestinationAddressInvalid);
    }
    if work.packet.source_be == destination_be {
        // From a host to itself ("land"): no stack sends that over a wire, and its reply flow would be itself.
        return Verdict::drop(Reason::SourceAddressInvalid);
    }
    if let Err(reason) = screens::opening(env, work) {
        return Verdict::drop(reason);
    }
    let expected = expect::find(env, work);
    if expected {
        nat::as_expected(work);
    } else if let Err(reason) = nat::destination(env, work, from_zone) {
        return deny(env, work, reason, from_zone, ZONE_SELF);
    }
    let destination_be = work.translation.new_destination_be;
    let owned = nat::owned(env, work);
    let kind = if group_address && !wired {
        RouteKind::NotForwarded
    } else {
        match forward::find_route(env, work, family, &destination_be) {
            Ok(kind) => kind,
            Err(_) if belongs(owned, from_zone) => {
                return deny(env, work, Reason::NatNoMapping, from_zone, ZONE_SELF);
            }
            Err(reason) => {
                if reason == Reason::NoRoute {
                    forward::ask(frame, env, work, SlowPathKind::NoRoute, 0);
                }
                return deny(env, work, reason, from_zone, ZONE_SELF);
            }
        }
    };
    let to_zone = if kind == RouteKind::Unicast {
        // What stays on a link may cross a wire, which is part of it. Looked at afresh, as the destination may be one that was
        // put in the place of the packet's own.
        if !wired && destination_reach(family, &destination_be) != Reach::Routed {
            return Verdict::drop(Reason::DestinationAddressInvalid);
        }
        if !wired && source_reach(family, &work.packet.source_be) != Reach::Routed {
            return Verdict::drop(Reason::SourceAddressInvalid);
        }
        match env.zone(work.tables, work.out_ifindex) {
            Some(zone) => zone,
            None => return Verdict::drop(Reason::EgressNotGuarded),
        }
    } else if work.translation.translated {
        // The firewall's own answers do not come this way: nobody would translate them back.
        return deny(env, work, Reason::NatUnsupported, from_zone, ZONE_SELF);
    } else {
        ZONE_SELF
    };
    if kind == RouteKind::Unicast && (belongs(owned, from_zone) || belongs(owned, to_zone)) {
        // It would be sent where it came from, or to where nobody else has the address.
        return deny(env, work, Reason::NatNoMapping, from_zone, to_zone);
    }
    if !wired && !group_address && is_own_address(env, work) {
        return Verdict::drop(Reason::SourceAddressInvalid);
    }
    work.question = Question {
        source_be: work.packet.source_be,
        destination_be,
        generation: work.tables,
        port: match work.packet.protocol {
            number if protocol::has_ports(number) => work.translation.new_destination_port,
            _ => work.packet.service_port(),
        },
        protocol: work.packet.protocol,
        family,
        from_zone,
        to_zone,
        set: RuleSet::Policy,
    };
    if expected {
        let (code, source_be) = (expect::code(&work.expected), work.packet.source_be);
        expect::ask_about_announcer(&mut work.question, code, &source_be, &destination_be);
    }
    let number = decide(env, &work.question, &mut work.walk);
    (work.question.from_zone, work.question.to_zone) = (from_zone, to_zone);
    let Some(rule) = env.rule(work.tables, number, true) else {
        let reason = if to_zone == ZONE_SELF {
            Reason::HostInboundDeny
        } else {
            Reason::DefaultDeny
        };
        return deny(env, work, reason, from_zone, to_zone);
    };
    work.policy = rule.policy;
    if rule.action == PolicyAction::Reject as u8 {
        forward::ask(frame, env, work, SlowPathKind::Reject, 0);
        return deny(env, work, Reason::PolicyReject, from_zone, to_zone);
    }
    if rule.action != PolicyAction::Permit as u8 {
        return deny(env, work, Reason::PolicyDeny, from_zone, to_zone);
    }
    if kind == RouteKind::NotForwarded {
        // Broadcast and multicast to the firewall itself: no answer comes back to this address, hence no session.
        return Verdict::pass(Reason::ToHost);
    }
    if group_address {
        // Nobody answers from such an address, hence no session; each packet is judged.
        return if rule.names_destination == 0 {
            deny(env, work, Reason::DestinationAddressInvalid, from_zone, to_zone)
        } else {
            wire::cross(env, work, Reason::WireGroup)
        };
    }
    Verdict::go_on(work, Stage::Admit)
}

/// Creates the session that policy permits and sends its first packet on.
#[inline(always)]
pub(crate) fn admit<F: Frame, E: Tables + Clock>(frame: &mut F, env: &E, work: &mut Work) -> Verdict {
    let forwarded = work.question.to_zone != ZONE_SELF;
    let expected = work.packet.ack;
    if work.proven != 0 {
        if !forwarded {
            // The way has changed since; connections of this host are its kernel's, cookies included.
            return Verdict::drop(Reason::TcpNoSession);
        }
        if !syn_proxy::become_syn(frame, env, work) {
            return Verdict::drop(Reason::RewriteFailed);
        }
    } else if forwarded && let Some(verdict) = syn_proxy::challenge(frame, env, work) {
        return verdict;
    }
    if forwarded && let Err(reason) = forward::fits(frame, env, work, work.egress.mtu) {
        return Verdict::drop(reason);
    }
    if let Err(reason) = limits::charge(env, work) {
        return deny(env, work, reason, work.question.from_zone, work.question.to_zone);
    }
    // Now: a later question about translation leaves other classes behind.
    let timeout_s = env.service_timeout_s(work.tables, work.walk.key.service);
    let disposition = if forwarded {
        Disposition::Forward
    } else {
        Disposition::ToHost
    };
    prepare(env, work, disposition);
    work.flow.timeout_s = timeout_s;
    if work.proven != 0 {
        syn_proxy::mark(&mut work.flow, expected, work.packet.window);
    }
    if expect::is_expected(work) {
        expect::translate(work);
    } else if forwarded && let Err(reason) = nat::source(env, work) {
        return refuse(frame, env, work, reason);
    }
    if forwarded {
        forward::fill_hop(env, work);
        expect::mark_announcer(env, work);
    }
    work.flow.packets = 1;
    work.flow.bytes = u64::from(frame.bytes());
    let mut reason = Reason::SessionCreated;
    match enter(env, work) {
        Ok(true) => {
            nat::settled(env, work);
            announce(env, work, Reason::SessionCreated);
            expect::spend(env, work);
            expect::expect_transfer(env, work);
        }
        // The CPU that won the race has told, and counts the session.
        Ok(false) => {
            limits::revoke(env, work);
            reason = Reason::HalfOpen;
        }
        Err(reason) => return refuse(frame, env, work, reason),
    }
    if !forwarded {
        return Verdict::pass(Reason::ToHost);
    }
    if let Err(reason) = tcp::segment::clamp(frame, env, work) {
        return Verdict::drop(reason);
    }
    forward::send(frame, env, work, reason)
}

/// Drops the first packet of a session that policy permits, that was counted and that cannot be; a sender for whom
/// translation has no port left is told (RFC 5508, REQ-8).
#[inline(always)]
fn refuse<F: Frame, E: Tables>(frame: &mut F, env: &E, work: &mut Work, reason: Reason) -> Verdict {
    if reason == Reason::NatPortsExhausted && work.translation.translated {
        forward::ask(frame, env, work, SlowPathKind::Prohibited, 0);
    }
    limits::revoke(env, work);
    deny(env, work, reason, work.question.from_zone, work.question.to_zone)
}

/// Whether the zones of an address (one bit each) include a zone.
#[inline(always)]
pub(crate) fn belongs(zones: u64, zone: u8) -> bool {
    zones >> (zone & 63) & 1 != 0
}

/// Fills `work.flow` with the session's first direction as far as it is known before translation.
#[inline(always)]
pub(crate) fn prepare<E: Tables + Clock>(env: &E, work: &mut Work, disposition: Disposition) {
    let packet = &work.packet;
    let station = &work.ingress.mac;
    let counted = screens::counts(
        env,
        work.tables,
        work.question.from_zone,
        packet.protocol,
        &mut work.screens,
    );
    // Field by field into the scratch entry: a struct expression would be built on the stack first.
    work.flow = Flow::default();
    let flow = &mut work.flow;
    if counted {
        flow.flags = flow_flags::COUNTED;
    }
    flow.generation = work.generation;
    flow.fib_epoch = work.fib_epoch;
    flow.egress_ifindex = if disposition == Disposition::ToHost {
        0
    } else {
        work.out_ifindex
    };
    flow.ingress_ifindex = work.ifindex;
    flow.state = first_state(packet.protocol) as u8;
    flow.disposition = disposition as u8;
    flow.mtu = work.egress.mtu;
    flow.ingress_mac_high = u16::from_ne_bytes([station[0], station[1]]);
    flow.ingress_mac_low = u32::from_ne_bytes([station[2], station[3], station[4], station[5]]);
    flow.new_source_be = packet.source_be;
    flow.new_destination_be = work.translation.new_destination_be;
    flow.new_source_port = packet.source_port;
    flow.new_destination_port = work.translation.new_destination_port;
    flow.from_zone = work.question.from_zone;
    flow.to_zone = work.question.to_zone;
    flow.protocol = packet.protocol;
    flow.policy = work.policy;
    flow.nat_rule = u32::MAX;
    flow.destination_rule = u32::MAX;
    flow.context = work.context;
    flow.icmp_type_code = u32::from(packet.icmp);
    flow.session_id = env.session_id();
    flow.created_ns = work.now_ns;
    flow.last_seen_ns = work.now_ns;
    if packet.protocol == protocol::TCP {
        tcp::begin(env, &work.headers, packet, flow);
    }
}

/// Enters the session into the half-open table: both flows, the reply first because its key is the reservation, or the
/// first direction alone where nothing has to be reserved. `Ok(false)`: another CPU was faster, and `work.flow` is now that
/// session's.
///
/// # Errors
/// The reason why the session cannot be.
#[inline(never)]
pub(crate) fn enter<E: Tables + Clock>(env: &E, work: &mut Work) -> Result<bool, Reason> {
    let family = work.packet.family;
    work.partner_key = crate::session::partner_key(&work.flow);
    if answer::may_wait(work) {
        work.flow.unanswered = 1;
    } else {
        expect_answer(env, work);
        match nat::reserve(env, work) {
            Reserved::Done => {
                let t = &work.translation;
                if t.translated {
                    work.flow.new_source_be = t.address_be;
                    work.flow.new_source_port = t.port;
                    if matches!(work.flow.protocol, protocol::ICMP | protocol::ICMPV6) {
                        work.flow.new_destination_port = t.port;
                    }
                }
            }
            Reserved::Full => return Err(Reason::SessionTableFull),
            Reserved::Exhausted => {
                if work.translation.may_change() || !replace_orphan(env, work) {
                    return collided(env, work);
                }
            }
        }
    }
    let inserted = env.insert_flow(Table::HalfOpen, family, &work.key, &work.flow);
    if inserted == Insert::Done {
        let established = env.with_flow(Table::Established, family, &work.key, |flow| flow.session_id);
        if established.is_none_or(|id| id == work.flow.session_id) {
            // This very session may have been answered since: somebody sends the other way at the same time.
            return Ok(true);
        }
        // Another moved there since it was looked for: as in `nat::reserve`.
        env.remove_flow(Table::HalfOpen, family, &work.key);
    }
    if work.flow.unanswered == 0 {
        // Given back. Where the insertion failed, another CPU created the same session with another port.
        env.remove_flow(Table::HalfOpen, family, &work.partner_key);
    }
    if inserted == Insert::Full {
        return Err(Reason::SessionTableFull);
    }
    collided(env, work)
}

/// Fills `work.partner`, the flow of the answers to `work.flow`.
#[inline(always)]
fn expect_answer<E: Tables>(env: &E, work: &mut Work) {
    let flow = &mut work.flow;
    let partner = &mut work.partner;
    let station = &work.egress.mac;
    answer::turn(flow, &work.key, partner);
    if flow.disposition == Disposition::ToHost as u8 {
        partner.disposition = Disposition::FromHost as u8;
    } else if flow.disposition == Disposition::FromHost as u8 {
        partner.disposition = Disposition::ToHost as u8;
        partner.egress_ifindex = 0;
    }
    partner.ingress_mac_high = u16::from_ne_bytes([station[0], station[1]]);
    partner.ingress_mac_low = u32::from_ne_bytes([station[2], station[3], station[4], station[5]]);
    if screens::counts(env, work.tables, flow.to_zone, flow.protocol, &mut work.screens) {
        partner.flags |= flow_flags::COUNTED;
    }
    partner.mtu = work.ingress.mtu;
    partner.last_seen_ns = work.now_ns;
    if flow.protocol == protocol::TCP {
        tcp::expect(&work.packet, flow, partner);
    }
}

/// Another CPU was faster with the same first packet, or a different session holds the reply's tuple.
#[inline(always)]
fn collided<E: Tables>(env: &E, work: &mut Work) -> Result<bool, Reason> {
    if crate::session::read(env, work.packet.family, &work.key, &mut work.flow, 0) != 2 {
        return if work.flow.generation == flow_generation::DEAD {
            // It is being removed on another CPU.
            Err(Reason::SessionClosed)
        } else {
            Ok(false)
        };
    }
    Err(
        if work.translation.translated && !nat::has_ports(work.packet.protocol) {
            Reason::NatUnsupported
        } else {
            Reason::NatPortsExhausted
        },
    )
}

/// Puts the reply flow in the place of one that the same conversation left behind when its other half was evicted.
/// One of this very clock tick may belong to another CPU that is just entering the session, and stays. One that stands alone
/// because nobody has answered it yet is whole, and another session.
#[inline(never)]
fn replace_orphan<E: Tables>(env: &E, work: &Work) -> bool {
    let family = work.packet.family;
    let (key, now_ns) = (&work.key, work.now_ns);
    let orphan = env.with_flow(Table::HalfOpen, family, &work.partner_key, |flow| {
        let ours = flow.created_ns != now_ns
            && flow.unanswered == 0
            && flow.new_source_be == key.destination_be
            && flow.new_destination_be == key.source_be
            && flow.new_source_port == key.destination_port
            && flow.new_destination_port == key.source_port;
        if ours { flow.session_id } else { 0 }
    });
    let id = orphan.unwrap_or(0);
    if id == 0
        || env
            .with_flow(Table::HalfOpen, family, &work.key, |_| ())
            .is_some()
        || life::take(env, 1, family, &work.partner_key, id) != Taken::Here
    {
        return false;
    }
    env.insert_flow(Table::HalfOpen, family, &work.partner_key, &work.partner) == Insert::Done
}

/// State of a session after its first packet.
#[inline(always)]
fn first_state(protocol: u8) -> SessionState {
    match protocol {
        protocol::TCP => SessionState::TcpSynSent,
        protocol::UDP | protocol::UDP_LITE => SessionState::UdpOneWay,
        protocol::ICMP | protocol::ICMPV6 => SessionState::Icmp,
        _ => SessionState::Other,
    }
}

/// The type (`type << 8`) that answers an ICMP query: echo 8 is answered by 0, the others by the next number.
#[inline(always)]
pub(crate) fn reply_type(icmp_type_code: u32) -> u32 {
    let request = icmp_type_code & 0xff00;
    if request == 0x0800 {
        0
    } else {
        request.wrapping_add(0x100)
    }
}

/// Whether an ICMP message is of the type this flow carries: the question that policy permitted, or its answer. Other
/// messages may have the same tuple (an identifier, or zeros where there is none).
#[inline(always)]
pub(crate) fn icmp_fits(packet: &Packet, flow: &Flow) -> bool {
    (u32::from(packet.icmp) ^ flow.icmp_type_code) & 0xff00 == 0
}

/// Whether a packet may be the first of its conversation.
#[inline(always)]
pub(crate) fn may_open<E: Tables>(env: &E, work: &Work) -> Result<(), Reason> {
    let packet = &work.packet;
    match packet.protocol {
        protocol::TCP => {
            let midstream = env.tcp_rules(work.tables) & tcp_rules::MIDSTREAM != 0;
            if tcp::opens(packet) || midstream && tcp::is_midstream(packet) {
                Ok(())
            } else {
                Err(Reason::TcpNoSession)
            }
        }
        protocol::ICMP | protocol::ICMPV6 if packet.icmp_kind() != IcmpKind::Request => {
            Err(Reason::IcmpNotRequest)
        }
        _ => Ok(()),
    }
}

/// Whether the frame is addressed to the interface it came in on.
#[inline(always)]
pub(crate) fn station_is_ours(work: &Work) -> bool {
    let m = &work.ingress.mac;
    work.headers.station()
        == (
            u16::from_ne_bytes([m[0], m[1]]),
            u32::from_ne_bytes([m[2], m[3], m[4], m[5]]),
        )
}

/// Whether the packet's source is one that may be forwarded.
#[inline(always)]
pub(crate) fn may_be_source<E: Tables>(env: &E, work: &Work) -> Result<(), Reason> {
    let (family, source_be) = (work.packet.family, &work.packet.source_be);
    if source_reach(family, source_be) != Reach::Routed || is_own_address(env, work) {
        return Err(Reason::SourceAddressInvalid);
    }
    Ok(())
}

/// Whether the packet claims to come from one of our own addresses, or from a broadcast address.
#[inline(always)]
fn is_own_address<E: Tables>(env: &E, work: &Work) -> bool {
    let mut route = RouteEntry::default();
    env.route(work.packet.family, &work.packet.source_be, &mut route)
        && (route.kind == RouteKind::Local as u32 || route.kind == RouteKind::NotForwarded as u32)
}

/// Tells user space that `work.flow` is a new session.
#[inline(always)]
pub(crate) fn announce<E: Tables>(env: &E, work: &mut Work, reason: Reason) {
    let Work {
        event,
        flow,
        key,
        packet,
        ..
    } = work;
    describe(event, EventKind::Create, reason, flow, key, packet.family);
    event.time_ns = work.now_ns;
    event.generation = work.generation;
    env.emit(&work.event);
    env.tally(Tally::Created);
}

/// Fills an event with a session's identity.
#[inline(always)]
pub(crate) fn describe(
    event: &mut Event,
    kind: EventKind,
    reason: Reason,
    flow: &Flow,
    key: &FlowKey6,
    family: u8,
) {
    *event = Event::default();
    event.session_id = flow.session_id;
    event.source_be = key.source_be;
    event.destination_be = key.destination_be;
    event.new_source_be = flow.new_source_be;
    event.new_destination_be = flow.new_destination_be;
    event.source_port = key.source_port;
    event.destination_port = key.destination_port;
    event.new_source_port = flow.new_source_port;
    event.new_destination_port = flow.new_destination_port;
    event.ingress_ifindex = flow.ingress_ifindex;
    event.egress_ifindex = flow.egress_ifindex;
    event.policy = flow.policy;
    event.nat_rule = flow.nat_rule;
    event.destination_rule = flow.destination_rule;
    event.kind = kind as u8;
    event.reason = reason as u8;
    event.family = family;
    event.protocol = flow.protocol;
    event.from_zone = flow.from_zone;
    event.to_zone = flow.to_zone;
    if matches!(flow.protocol, protocol::ICMP | protocol::ICMPV6) {
        event.icmp_type_code = flow.icmp_type_code;
    }
}

/// Drops a packet and tells user space, within the rate limit.
#[inline(never)]
fn deny<E: Tables>(env: &E, work: &mut Work, reason: Reason, from_zone: u8, to_zone: u8) -> Verdict {
    if !env.permitted(work.tables, Limiter::DenyEvent, work.now_ns) {
        env.count(Reason::SLOT_EVENTS_SUPPRESSED);
        return Verdict::drop(reason);
    }
    describe_packet(work, EventKind::Deny, reason);
    let event = &mut work.event;
    event.egress_ifindex = work.out_ifindex;
    event.policy = work.policy;
    event.new_destination_be = work.translation.new_destination_be;
    event.new_destination_port = work.translation.new_destination_port;
    event.destination_rule = work.translation.destination_rule;
    event.from_zone = from_zone;
    event.to_zone = to_zone;
    env.emit(&work.event);
    Verdict::drop(reason)
}

/// Fills an event with a packet that is in no session.
#[inline(always)]
pub(crate) fn describe_packet(work: &mut Work, kind: EventKind, reason: Reason) {
    let packet = &work.packet;
    work.event = Event::default();
    let event = &mut work.event;
    event.time_ns = work.now_ns;
    event.source_be = packet.source_be;
    event.destination_be = packet.destination_be;
    event.new_source_be = packet.source_be;
    event.new_destination_be = packet.destination_be;
    event.source_port = packet.source_port;
    event.destination_port = packet.destination_port;
    event.icmp_type_code = u32::from(packet.icmp);
    event.new_source_port = packet.source_port;
    event.new_destination_port = packet.destination_port;
    event.ingress_ifindex = work.ifindex;
    event.policy = u32::MAX;
    event.nat_rule = u32::MAX;
    event.destination_rule = u32::MAX;
    event.generation = work.generation;
    event.kind = kind as u8;
    event.reason = reason as u8;
    event.family = packet.family;
    event.protocol = packet.protocol;
    event.tcp_flags = packet.tcp_flags;
}
