//! The life of a session: how long it may be idle, and who ends it.
//!
//! Sessions are ended by packets (their time is over, policy changed, a new conversation begins) and by user space
//! (ageing, `clear sessions`), on any CPU and at once. Two rules keep them apart; the argument is in
//! `deploy/docs/decisions/0004-ageing.md`.
//!
//! * A flow is removed by whoever made its generation `DEAD`, and by nobody else. So no flow is removed that took the
//!   place of the one that was meant.
//! * A session that is aged is marked first and collected later. A packet that goes on takes the mark away, a collector
//!   makes the flow `DEAD`: one compare-and-exchange on the first direction's generation, which one of them wins.

use bulkhead_abi::{
    Flow, FlowKey6, Reason, Tally, flow_flags,
    flow_generation::{DEAD, is_marked, unmarked},
    idle_timeout_ns, protocol,
};

use crate::{Table, Tables, Work, answer, expect, limits, session};

/// A reply flow as young as this may be that of a session which is just being entered.
const ENTERING_NS: u64 = 1_000_000_000;

/// How long the session of `work.flow` and `work.partner` may be idle, by the configuration in force: where the flow was
/// permitted by an older one, its service is looked up again.
#[inline(never)]
pub(crate) fn timeout_ns<E: Tables>(env: &E, work: &Work) -> u64 {
    let flow = &work.flow;
    let service_s = if flow.generation == work.generation {
        flow.timeout_s
    } else {
        let original = if is_reply(flow) { &work.partner } else { flow };
        let service = env.service_class(work.tables, original.protocol, service_port(original));
        env.service_timeout_s(work.tables, service)
    };
    idle_timeout_ns(flow.state, service_s, env.timeout_ns(work.tables, flow.state))
}

/// What a session's service is looked up by besides its protocol, from its first direction's flow. An announced
/// conversation is of the service that announced it.
#[inline(always)]
pub(crate) fn service_port(original: &Flow) -> u16 {
    match original.protocol {
        _ if expect::was_announced(original) => original.icmp_type_code as u16,
        protocol if protocol::has_ports(protocol) => original.new_destination_port,
        protocol::ICMP | protocol::ICMPV6 => original.icmp_type_code as u16,
        _ => 0,
    }
}

/// Time since the last packet of either direction.
#[inline(always)]
pub(crate) fn idle_ns(work: &Work) -> u64 {
    work.now_ns
        .saturating_sub(work.flow.last_seen_ns.max(work.partner.last_seen_ns))
}

#[inline(always)]
pub(crate) fn is_reply(flow: &Flow) -> bool {
    flow.flags & flow_flags::REPLY != 0
}

/// Whether somebody has ended the session that was just read.
#[inline(always)]
pub(crate) fn is_dead(work: &Work) -> bool {
    work.flow.generation == DEAD || work.partner.generation == DEAD
}

/// Sees to it that the session is not collected under the packet, and enters the generation that judged it. False: it was
/// ended meanwhile.
///
/// Called before anything is stored. Without a mark and without a new generation there is nothing to change: whoever marks
/// the session from now on finds, when he comes to collect it, that it has carried this packet.
#[inline(never)]
pub(crate) fn hold<E: Tables>(env: &E, work: &mut Work) -> bool {
    let family = work.packet.family;
    let id = work.flow.session_id;
    let reply = is_reply(&work.flow);
    let marked = work.partner.generation;
    if reply && is_marked(marked) {
        work.partner.generation = unmarked(marked);
        let table = session::table(work.partner_half_open);
        let found = env.swap_generation(table, family, &work.partner_key, id, marked, unmarked(marked));
        if found.is_none_or(|found| found == DEAD) {
            return false;
        }
    }
    let (before, after) = (work.found_generation, work.flow.generation);
    // What stands nowhere yet is entered with its generation; whether the session still is shows then.
    if before == after || work.half_open == 2 {
        return true;
    }
    let table = session::table_of(work);
    let mut found = env.swap_generation(table, family, &work.key, id, before, after);
    if let Some(marked) = found
        && marked != before
        && is_marked(marked)
        && !reply
    {
        // Marked since it was read.
        found = env.swap_generation(table, family, &work.key, id, marked, after);
    }
    found.is_some_and(|found| found != DEAD)
}

/// Takes one flow of a session out of a table.
#[inline(never)]
pub(crate) fn take<E: Tables>(env: &E, half_open: u32, family: u8, key: &FlowKey6, id: u64) -> Taken {
    let table = session::table(half_open);
    match env.end_flow(table, family, key, id) {
        None => Taken::Absent,
        Some(false) => Taken::ByAnother,
        Some(true) => {
            env.remove_flow(table, family, key);
            Taken::Here
        }
    }
}

/// What came of taking a flow.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Taken {
    /// It is not there.
    Absent,
    /// Somebody else is about to remove it.
    ByAnother,
    /// It is gone, and this call removed it.
    Here,
}

/// Ends the session in `work` and says so, unless somebody else does. Returns whether it was ended here.
#[inline(never)]
pub(crate) fn end<E: Tables>(env: &E, work: &mut Work, reason: Reason) -> bool {
    let family = work.packet.family;
    let id = work.flow.session_id;
    let first = if is_reply(&work.flow) {
        &work.partner_key
    } else {
        &work.key
    };
    // The first direction decides, and where it stands in both tables, because the session is just moving to the
    // established one, its half-open flow. Both are dead before one is removed, and that one is removed first: whoever
    // misses it finds the other dead.
    match env.end_flow(Table::HalfOpen, family, first, id) {
        Some(true) => {
            let copied = env.end_flow(Table::Established, family, first, id);
            env.remove_flow(Table::HalfOpen, family, first);
            if copied == Some(true) {
                env.remove_flow(Table::Established, family, first);
            }
        }
        Some(false) => return false,
        None => {
            if take(env, 0, family, first, id) != Taken::Here {
                return false;
            }
        }
    }
    finish(env, work, reason);
    true
}

/// Removes the session in `work`, whose first direction the caller has made dead in this table, and says so.
#[inline(never)]
pub(crate) fn clear_away<E: Tables>(env: &E, work: &mut Work, half_open: u32, reason: Reason) {
    let first = if is_reply(&work.flow) {
        &work.partner_key
    } else {
        &work.key
    };
    let (family, id) = (work.packet.family, work.flow.session_id);
    env.remove_flow(session::table(half_open), family, first);
    let _copy = take(env, 1 - half_open, family, first, id);
    finish(env, work, reason);
}

/// The rest of the end, when the first direction's flow is gone: its answers, what it counted for, the event.
#[inline(never)]
fn finish<E: Tables>(env: &E, work: &mut Work, reason: Reason) {
    let (family, id) = (work.packet.family, work.flow.session_id);
    let reply = is_reply(&work.flow);
    let second = if reply { &work.key } else { &work.partner_key };
    let _half_open = take(env, 1, family, second, id);
    let _established = take(env, 0, family, second, id);
    limits::give_back(env, work);
    env.tally(Tally::Ended);
    session::describe_close(work, reply, reason);
    env.emit(&work.event);
}

/// Removes the flow in `work`, whose other half is gone: it must not live on with a port that is no longer reserved. A
/// young reply flow may be that of a session which another CPU is just entering, its first direction last, and stays. An
/// unanswered session is whole: another has its answers.
#[inline(never)]
pub(crate) fn end_half<E: Tables>(env: &E, work: &mut Work) -> bool {
    if work.flow.unanswered != 0 {
        answer::expected(env, work);
        return end(env, work, Reason::SessionClosed);
    }
    let reply = is_reply(&work.flow);
    if reply && work.now_ns.saturating_sub(work.flow.created_ns) < ENTERING_NS {
        return false;
    }
    let (family, id) = (work.packet.family, work.flow.session_id);
    let ended = take(env, work.half_open, family, &work.key, id) == Taken::Here;
    if ended && !reply {
        limits::give_back(env, work);
    }
    ended
}
