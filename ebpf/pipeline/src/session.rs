//! A packet of a known session that is not simply established traffic: state changes, refreshed next hops,
//! re-judged policy, expiry, promotion from half-open to established.

use bulkhead_abi::{
    Disposition, EventKind, Flow, FlowKey6, Hop, PolicyAction, Reason, RouteKind, RuleSet, SessionState,
    ZONE_SELF, flow_flags,
    flow_generation::{self, DEAD},
    protocol,
};

use crate::{
    Clock, Frame, Insert, Question, Table, Tables, Verdict, Work, answer, decide, expect, forward,
    life::{self, Taken},
    nat, open, screens, syn_proxy,
    tcp::{self, Trace, segment, window},
};

/// What came of a known session.
pub(crate) enum Outcome {
    /// The packet is settled.
    Verdict(Verdict),
    /// The session is no more; the packet may open another.
    Gone,
}

/// The table of a number as [`read`] returns it.
#[inline(always)]
pub(crate) fn table(half_open: u32) -> Table {
    if half_open == 0 {
        Table::Established
    } else {
        Table::HalfOpen
    }
}

/// The table `work.flow` was found in.
#[inline(always)]
pub(crate) fn table_of(work: &Work) -> Table {
    table(work.half_open)
}

/// Key of the other direction.
#[inline(always)]
pub(crate) fn partner_key(flow: &Flow) -> FlowKey6 {
    FlowKey6 {
        source_be: flow.new_destination_be,
        destination_be: flow.new_source_be,
        source_port: flow.new_destination_port,
        destination_port: flow.new_source_port,
        protocol: flow.key_protocol(),
    }
}

/// Copies a flow out of whichever table holds it. 0: established, 1: half-open, 2: none.
///
/// A session moves from the half-open table to the established one, and is in the latter before it leaves the former:
/// what was missed in both, or is dead in the former, may be found in the latter now. `missed`: so many of these looks were
/// just taken, in vain.
#[inline(never)]
pub(crate) fn read<E: Tables>(env: &E, family: u8, key: &FlowKey6, to: &mut Flow, missed: u32) -> u32 {
    if missed == 0
        && env
            .with_flow(Table::Established, family, key, |flow| *to = *flow)
            .is_some()
    {
        return 0;
    }
    let mut found = 2;
    if missed < 2
        && env
            .with_flow(Table::HalfOpen, family, key, |flow| *to = *flow)
            .is_some()
    {
        if to.generation != DEAD {
            return 1;
        }
        found = 1;
    }
    if env
        .with_flow(Table::Established, family, key, |flow| *to = *flow)
        .is_some()
    {
        found = 0;
    }
    found
}

/// Looks the packet's tuple up in both tables; fills `work.flow` and `work.partner_key`.
#[inline(always)]
pub(crate) fn find<E: Tables>(env: &E, work: &mut Work) -> bool {
    work.missed = 0;
    find_missed(env, work)
}

/// [`find`] behind the short way, whose looks need not be taken again.
#[inline(always)]
pub(crate) fn find_missed<E: Tables>(env: &E, work: &mut Work) -> bool {
    work.half_open = read(env, work.packet.family, &work.key, &mut work.flow, work.missed);
    work.partner_key = partner_key(&work.flow);
    work.found_generation = work.flow.generation;
    work.flow.generation = flow_generation::unmarked(work.found_generation);
    work.half_open != 2
}

/// Reads the other direction of the session in `work.flow` into `work.partner`; whether there is one. Of an unanswered
/// session it is what an answer would find, and stands nowhere.
#[inline(always)]
pub(crate) fn find_partner<E: Tables>(env: &E, work: &mut Work) -> bool {
    work.partner_half_open = read(env, work.packet.family, &work.partner_key, &mut work.partner, 0);
    if work.partner_half_open == 2 {
        if work.flow.unanswered == 0 {
            return false;
        }
        answer::expected(env, work);
        return true;
    }
    if work.partner.session_id != work.flow.session_id {
        return false;
    }
    // What moves to the established table has been answered.
    work.flow.unanswered = 0;
    work.partner.unanswered = 0;
    true
}

/// Settles a packet of the session in `work.flow`.
#[inline(always)]
pub(crate) fn proceed<F: Frame, E: Tables + Clock>(frame: &mut F, env: &E, work: &mut Work) -> Outcome {
    let family = work.packet.family;
    if !env.wired() && !open::station_is_ours(work) {
        return Outcome::Verdict(Verdict::drop(Reason::NotForUs));
    }
    if work.flow.disposition == Disposition::FromHost as u8 {
        // Our own address as source, from outside.
        return Outcome::Verdict(Verdict::drop(Reason::SourceAddressInvalid));
    }
    let origin = if work.flow.ingress_ifindex == work.ifindex {
        Origin::Same
    } else {
        origin(env, work)
    };
    if origin == Origin::Other {
        return Outcome::Verdict(Verdict::drop(Reason::WrongZone));
    }
    if !find_partner(env, work) {
        // Half of the session was evicted.
        let _ended = life::end_half(env, work);
        return Outcome::Gone;
    }
    if life::is_dead(work) {
        return Outcome::Gone;
    }
    let Some(state) = SessionState::from_number(work.flow.state) else {
        return Outcome::Verdict(Verdict::drop(Reason::Internal));
    };
    if life::idle_ns(work) > life::timeout_ns(env, work) {
        let _ended = life::end(env, work, Reason::SessionClosed);
        return Outcome::Gone;
    }
    // A next hop that is not known yet may lead anywhere: the way is found and judged like after a change.
    let unresolved =
        work.flow.disposition == Disposition::Forward as u8 && work.flow.hop == Hop::Unresolved as u8;
    if (unresolved || work.flow.generation != work.generation || work.flow.fib_epoch != work.fib_epoch)
        && let Err(reason) = refresh(env, work)
    {
        if reason == Reason::SessionClosed || reason == Reason::PolicyChanged && origin == Origin::Same {
            let _ended = life::end(env, work, reason);
        }
        if reason == Reason::SessionClosed {
            return Outcome::Gone;
        }
        return Outcome::Verdict(Verdict::drop(reason));
    }
    // What user space puts back it has read, whole or cut to the egress interface's MTU.
    if work.flow.flags & flow_flags::GATEWAY != 0 && work.half_open == 0 && work.injected == 0 {
        if work.packet.fragment != 0 {
            // A gateway reads whole packets, and would not move a fragment's numbers. With the first the others end.
            return Outcome::Verdict(Verdict::drop(Reason::GatewayLost));
        }
        // What is no part of the conversation must not announce anything in its name. User space's shifts of the numbers are
        // well within the slack.
        let reset = work.packet.tcp_flags & bulkhead_packet::tcp_flags::RST != 0;
        if !reset && !window::fits(&work.packet, &mut work.flow, &work.partner) {
            return Outcome::Verdict(Verdict::drop(Reason::TcpOutOfWindow));
        }
        return Outcome::Verdict(expect::read_by_gateway(frame, env, work));
    }
    let judged = if work.flow.flags & flow_flags::PROXIED != 0 && !work.packet.is_later_fragment() {
        syn_proxy::step(frame, env, work, state)
    } else {
        step(env, work, state)
    };
    if let Err(reason) = judged {
        return Outcome::Verdict(Verdict::drop(reason));
    }
    if work.trace == Trace::Over {
        let _ended = life::end(env, work, Reason::SessionClosed);
        return Outcome::Gone;
    }
    let to_host = work.flow.disposition == Disposition::ToHost as u8;
    if !to_host && let Err(reason) = forward::fits(frame, env, work, work.flow.mtu) {
        return Outcome::Verdict(Verdict::drop(reason));
    }
    if !life::hold(env, work) {
        return ended_meanwhile(work);
    }
    store(env, work, frame.bytes());
    let mut reason = if work.half_open == 0 {
        Reason::Established
    } else {
        Reason::HalfOpen
    };
    if moves(work) {
        match promote(env, family, work) {
            Promotion::Done => reason = Reason::Established,
            Promotion::Full => return Outcome::Verdict(Verdict::drop(Reason::SessionTableFull)),
            Promotion::Gone => return ended_meanwhile(work),
        }
    }
    if to_host {
        return Outcome::Verdict(Verdict::pass(Reason::ToHost));
    }
    if let Err(reason) = segment::clamp(frame, env, work) {
        return Outcome::Verdict(Verdict::drop(reason));
    }
    Outcome::Verdict(forward::send(frame, env, work, reason))
}

/// Another CPU has ended the session under the packet. It may open another, unless it is no longer the sender's own.
#[inline(always)]
fn ended_meanwhile(work: &Work) -> Outcome {
    if work.flow.flags & flow_flags::PROXIED != 0 {
        Outcome::Verdict(Verdict::drop(Reason::SessionClosed))
    } else {
        Outcome::Gone
    }
}

/// Where a packet comes from, compared with where its flow came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Origin {
    /// From the same zone.
    Same,
    /// Nobody knows what became of the flow's interface: policy is asked as if it had come from here from the beginning, so
    /// that no zone gets what it may not have. Its no does not end the session, which may not be the packet's.
    Unknown,
    /// From another zone, or none.
    Other,
}

/// Where the packet comes from. Interfaces are made anew under other indices while flows are silent.
#[inline(never)]
pub(crate) fn origin<E: Tables>(env: &E, work: &Work) -> Origin {
    let flow = &work.flow;
    let now = env.zone(work.tables, work.ifindex);
    if now.is_none() {
        return Origin::Other;
    }
    let mut then = Some(flow.from_zone);
    if flow.generation != work.generation {
        let there = env.zone(work.tables, flow.ingress_ifindex);
        if there.is_some() {
            then = there;
        } else if !answers_own(flow) {
            return Origin::Unknown;
        }
        // Nobody judges the firewall's own connections. Zones keep their numbers unless a commit changes their order.
    }
    if now == then { Origin::Same } else { Origin::Other }
}

/// Whether these are answers to a connection of the firewall's own.
#[inline(always)]
fn answers_own(flow: &Flow) -> bool {
    life::is_reply(flow) && flow.disposition == Disposition::ToHost as u8
}

/// Whether the session is to stand in the established table and does not yet; also when that was full before.
#[inline(always)]
pub(crate) fn moves(work: &Work) -> bool {
    if work.half_open == 0 {
        return false;
    }
    match SessionState::from_number(work.next_state) {
        // Without connections, the first answer establishes. Where the state tells of it, the next packet of either side does
        // what an answer could not because the table was full.
        Some(SessionState::UdpTwoWay | SessionState::Dccp) => true,
        Some(SessionState::Icmp | SessionState::Other) => life::is_reply(&work.flow),
        Some(state) => state.is_open_tcp(),
        None => false,
    }
}

/// What any protocol's packet does to its session; see [`tcp::step`].
///
/// # Errors
/// The reason for which the packet is refused.
#[inline(always)]
pub(crate) fn step<E: Tables>(env: &E, work: &mut Work, state: SessionState) -> Result<(), Reason> {
    let proxied = work.flow.flags & flow_flags::PROXIED != 0;
    if work.packet.is_later_fragment() && (proxied || work.packet.protocol != protocol::TCP) {
        // What its datagram does to the session the first fragment did.
        work.trace = Trace::Life;
        work.next_state = state as u8;
        return Ok(());
    }
    if work.packet.protocol == protocol::TCP {
        return tcp::step(env, work, state);
    }
    if matches!(work.packet.protocol, protocol::ICMP | protocol::ICMPV6)
        && !open::icmp_fits(&work.packet, &work.flow)
    {
        return Err(Reason::IcmpNotRequest);
    }
    work.trace = Trace::Life;
    work.next_state = match state {
        SessionState::UdpOneWay if life::is_reply(&work.flow) => SessionState::UdpTwoWay as u8,
        SessionState::Other if work.packet.protocol == protocol::DCCP && life::is_reply(&work.flow) => {
            SessionState::Dccp as u8
        }
        state => state as u8,
    };
    Ok(())
}

/// Finds the way of this direction again.
///
/// # Errors
/// The reason why there is none.
#[inline(always)]
fn resolve<E: Tables>(env: &E, work: &mut Work) -> Result<(), Reason> {
    let family = work.packet.family;
    let destination_be = work.flow.new_destination_be;
    if forward::find_route(env, work, family, &destination_be)? != RouteKind::Unicast {
        return Err(Reason::NoRoute);
    }
    forward::fill_hop(env, work);
    Ok(())
}

/// Brings a flow up to the configuration and the routes in force.
///
/// Returns one byte: a larger result would come back through a pointer to the caller's stack, which the verifier
/// refuses to see in the return register.
///
/// # Errors
/// [`Reason::SessionClosed`] if the session cannot go on as it is, [`Reason::PolicyChanged`] if policy no longer permits
/// it, or why there is no way.
#[inline(never)]
pub(crate) fn refresh<E: Tables>(env: &E, work: &mut Work) -> Result<(), Reason> {
    let reply = work.flow.flags & flow_flags::REPLY != 0;
    let forwarded = work.flow.disposition == Disposition::Forward as u8;
    if forwarded {
        // Filling the hop sets the flow's own.
        let (before, epoch) = (work.flow.egress_ifindex, work.flow.fib_epoch);
        resolve(env, work)?;
        let unchanged = work.flow.generation == work.generation
            && epoch == work.fib_epoch
            && work.flow.egress_ifindex == before;
        if unchanged && env.zone(work.tables, work.out_ifindex) == Some(work.flow.to_zone) {
            // Only the next hop was missing, and it leads where policy was asked about.
            return Ok(());
        }
    }
    work.flow.ingress_ifindex = work.ifindex;
    let station = &work.ingress.mac;
    work.flow.ingress_mac_high = u16::from_ne_bytes([station[0], station[1]]);
    work.flow.ingress_mac_low = u32::from_ne_bytes([station[2], station[3], station[4], station[5]]);
    let own_connection = reply && work.partner.disposition == Disposition::FromHost as u8;
    if own_connection {
        let own = &work.partner;
        let service = env.service_class(work.tables, own.protocol, life::service_port(own));
        work.flow.timeout_s = env.service_timeout_s(work.tables, service);
    } else {
        judge(env, work, reply, forwarded)?;
    }
    let zone = work.flow.from_zone;
    if screens::counts(env, work.tables, zone, work.packet.protocol, &mut work.screens) {
        work.flow.flags |= flow_flags::COUNTED;
    } else {
        work.flow.flags &= !flow_flags::COUNTED;
    }
    work.flow.fib_epoch = work.fib_epoch;
    work.flow.generation = work.generation;
    Ok(())
}

/// Puts the session's first packet to the policy in force.
#[inline(always)]
fn judge<E: Tables>(env: &E, work: &mut Work, reply: bool, forwarded: bool) -> Result<(), Reason> {
    let (original, key) = if reply {
        (&work.partner, &work.partner_key)
    } else {
        (&work.flow, &work.key)
    };
    // What the reply leaves through must still be the zone the conversation came from.
    let from = if reply && forwarded {
        work.flow.egress_ifindex
    } else {
        original.ingress_ifindex
    };
    let to = if reply {
        work.flow.ingress_ifindex
    } else {
        original.egress_ifindex
    };
    // As it goes on after destination translation, like the first packet.
    let port = match original.protocol {
        protocol::ICMP | protocol::ICMPV6 => original.icmp_type_code as u16,
        protocol if protocol::has_ports(protocol) => original.new_destination_port,
        _ => 0,
    };
    work.question = Question {
        source_be: key.source_be,
        destination_be: original.new_destination_be,
        generation: work.tables,
        port,
        protocol: original.protocol,
        family: work.packet.family,
        from_zone: env.zone(work.tables, from).ok_or(Reason::PolicyChanged)?,
        to_zone: if forwarded {
            env.zone(work.tables, to).ok_or(Reason::PolicyChanged)?
        } else {
            ZONE_SELF
        },
        set: RuleSet::Policy,
    };
    let zones = (work.question.from_zone, work.question.to_zone);
    let announced = expect::was_announced(original);
    if announced {
        let (opener, listener) = (key.source_be, original.new_destination_be);
        let code = original.icmp_type_code;
        expect::ask_about_announcer(&mut work.question, code, &opener, &listener);
    }
    let rule = decide(env, &work.question, &mut work.walk);
    (work.question.from_zone, work.question.to_zone) = zones;
    match env.rule(work.tables, rule, false) {
        Some(rule) if rule.action == PolicyAction::Permit as u8 => {
            work.flow.policy = rule.policy;
            work.flow.timeout_s = env.service_timeout_s(work.tables, work.walk.key.service);
            let (from_zone, to_zone) = (work.question.from_zone, work.question.to_zone);
            (work.flow.from_zone, work.flow.to_zone) = if reply {
                (to_zone, from_zone)
            } else {
                (from_zone, to_zone)
            };
        }
        _ => return Err(Reason::PolicyChanged),
    }
    if announced {
        // Translated as the conversation that announced it.
        return Ok(());
    }
    nat::rematch::same(env, work, reply, forwarded)
}

/// Writes the packet's effects into both flows.
///
/// Field by field, because another CPU may be doing the same for the other direction: state and flags are single
/// bytes, and the later of two steps wins, which is also what the wire saw last. The session number is compared first:
/// a half-open entry recycled since it was read belongs to somebody else.
///
/// The generation is not among the fields: [`life::hold`] has entered it.
#[inline(always)]
pub(crate) fn store<E: Tables>(env: &E, work: &mut Work, bytes: u32) {
    let family = work.packet.family;
    let next = work.next_state;
    if work.packet.protocol == protocol::TCP && moves(work) {
        tcp::settle(&mut work.flow, &mut work.partner);
        work.trace = Trace::Both;
    }
    let trace = work.trace;
    let scale = window::scale_of(&work.flow, &work.partner);
    let lives = matches!(trace, Trace::Edges | Trace::Both | Trace::Life);
    if lives {
        work.flow.last_seen_ns = work.now_ns;
    }
    if matches!(trace, Trace::Edges | Trace::Both | Trace::Quiet) {
        window::follow(&mut work.flow, &work.packet, scale);
    }
    work.flow.packets += 1;
    work.flow.bytes += u64::from(bytes);
    work.flow.state = next;
    // Of the session, so of both its directions; the other's counts once its generation is this one.
    let silence = Flow::silence_of(life::timeout_ns(env, work));
    work.flow.silence = silence;
    work.partner.silence = silence;
    let own = &work.flow;
    let (packet, now_ns) = (&work.packet, work.now_ns);
    env.with_flow(table_of(work), family, &work.key, |flow| {
        if flow.session_id != own.session_id {
            return;
        }
        flow.packets += 1;
        flow.bytes += u64::from(bytes);
        if lives {
            flow.last_seen_ns = now_ns;
        }
        if matches!(trace, Trace::Edges | Trace::Quiet) {
            window::follow(flow, packet, scale);
            if window::after(own.tcp_limit, flow.tcp_limit) {
                flow.tcp_limit = own.tcp_limit;
            }
        } else if trace == Trace::Both {
            tcp::copy_edges(flow, own);
            flow.tcp_end = own.tcp_end;
        }
        flow.next_hop_mac = own.next_hop_mac;
        flow.egress_mac = own.egress_mac;
        flow.egress_ifindex = own.egress_ifindex;
        flow.ingress_ifindex = own.ingress_ifindex;
        flow.ingress_mac_low = own.ingress_mac_low;
        flow.ingress_mac_high = own.ingress_mac_high;
        flow.mtu = own.mtu;
        flow.hop = own.hop;
        flow.flags = own.flags;
        flow.policy = own.policy;
        flow.nat_rule = own.nat_rule;
        flow.destination_rule = own.destination_rule;
        flow.from_zone = own.from_zone;
        flow.to_zone = own.to_zone;
        flow.state = own.state;
        flow.silence = silence;
        flow.fib_epoch = own.fib_epoch;
        flow.timeout_s = own.timeout_s;
    });
    let both = trace == Trace::Both;
    if both || work.partner.state != next {
        work.partner.state = next;
        let partner = &work.partner;
        env.with_flow(table(work.partner_half_open), family, &work.partner_key, |flow| {
            if flow.session_id == partner.session_id {
                flow.state = next;
                flow.silence = silence;
                if both {
                    tcp::copy_edges(flow, partner);
                }
            }
        });
    }
}

/// What came of moving a session.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Promotion {
    /// It is in the established table, put there by this CPU or another.
    Done,
    /// There is no room, or one of its keys is another session's by now.
    Full,
    /// It was ended meanwhile.
    Gone,
}

/// Moves a session whose two sides have both spoken into the table that never evicts.
///
/// Another CPU may do the same at once: whoever enters the first direction completes the move, the copies differ by one
/// packet's counts. Another CPU may end the session at once ([`life::end`], [`life::clear_away`]): it makes the first
/// direction's half-open flow dead and then looks into the established table, here it is the other way round. Both sides
/// make that flow dead by an atomic exchange, which is a full barrier on every machine (a plain look here was not: its load
/// may be done before the insertion's stores are seen, x86 included). So either the exchange here comes first and the
/// session has moved, or it finds the flow dead or gone, and what was just entered is taken back by one of the two.
/// One who comes to end a session that is just moving finds it dead, too, and leaves it: it lives until the next one comes.
#[inline(never)]
pub(crate) fn promote<E: Tables>(env: &E, family: u8, work: &Work) -> Promotion {
    let id = work.flow.session_id;
    let (first, first_key, second, second_key) = if life::is_reply(&work.flow) {
        (&work.partner, &work.partner_key, &work.flow, &work.key)
    } else {
        (&work.flow, &work.key, &work.partner, &work.partner_key)
    };
    // The answers first: of an unanswered session they stand nowhere, and whoever meets the first direction's copy without
    // them would take it for half a session.
    let answers = place(env, family, second_key, second);
    if answers == Insert::Full {
        return Promotion::Full;
    }
    match place(env, family, first_key, first) {
        Insert::Done => {}
        Insert::Exists => return Promotion::Done,
        Insert::Full => {
            // Only what was put there now: an entry found there belongs to whoever was faster.
            if answers == Insert::Done {
                let _taken = life::take(env, 0, family, second_key, id);
            }
            return Promotion::Full;
        }
    }
    if life::take(env, 1, family, first_key, id) != Taken::Here {
        let _taken = life::take(env, 0, family, first_key, id);
        let _taken = life::take(env, 0, family, second_key, id);
        return Promotion::Gone;
    }
    env.count(Reason::SLOT_SESSIONS_ESTABLISHED);
    let _moved = life::take(env, 1, family, second_key, id);
    Promotion::Done
}

/// Inserts a flow into the established table. `Exists`: this very session is there already; a key that another session
/// holds counts as no room.
#[inline(always)]
fn place<E: Tables>(env: &E, family: u8, key: &FlowKey6, flow: &Flow) -> Insert {
    let outcome = env.insert_flow(Table::Established, family, key, flow);
    let ours = |found: &mut Flow| found.session_id == flow.session_id;
    if outcome == Insert::Exists && env.with_flow(Table::Established, family, key, ours) != Some(true) {
        return Insert::Full;
    }
    outcome
}

/// Fills `work.event` with the end of the session in `work.flow` and `work.partner`.
#[inline(always)]
pub(crate) fn describe_close(work: &mut Work, reply: bool, reason: Reason) {
    let (original, key, other) = if reply {
        (&work.partner, &work.partner_key, &work.flow)
    } else {
        (&work.flow, &work.key, &work.partner)
    };
    let event = &mut work.event;
    open::describe(event, EventKind::Close, reason, original, key, work.packet.family);
    event.time_ns = work.now_ns;
    event.packets = original.packets;
    event.bytes = original.bytes;
    event.reply_packets = other.packets;
    event.reply_bytes = other.bytes;
    event.created_ns = original.created_ns;
    event.state = original.state;
    event.generation = flow_generation::unmarked(original.generation);
}
