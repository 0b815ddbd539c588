//! User space's hand on sessions: ageing and clearing, decided here so that the packet path is not raced.
//!
//! User space picks candidates from a dump that is old by the time it is read; whether a session is really idle is
//! looked up again in the kernel, right before it is removed. What remains is the window between that look and the
//! removal: a packet in it finds its session gone and, after an idle time of minutes, must open a new one.

use bulkhead_abi::{FlowKey6, MappingKey, Reason};

use crate::{Clock, Tables, Work, nat, session};

/// Ends the session that `key` belongs to if it is idle for longer than its state allows, or in any case if `force`.
/// Returns whether it ended.
#[inline(always)]
pub fn expire<E: Tables + Clock>(env: &E, work: &mut Work, family: u8, key: &FlowKey6, force: bool) -> bool {
    work.generation = env.live().generation;
    work.now_ns = env.now_ns();
    work.key = *key;
    work.packet.family = family;
    if !session::find(env, work) {
        return false;
    }
    let partner_table = session::read(env, family, &work.partner_key, &mut work.partner);
    let complete = partner_table != 2 && work.partner.session_id == work.flow.session_id;
    let mut last_seen_ns = work.flow.last_seen_ns;
    if complete {
        last_seen_ns = last_seen_ns.max(work.partner.last_seen_ns);
    }
    let idle_ns = work.now_ns.saturating_sub(last_seen_ns);
    if !force && complete && idle_ns <= env.timeout_ns(work.generation, work.flow.state) {
        return false;
    }
    if complete {
        session::close(env, work, Reason::SessionClosed);
    } else {
        env.remove_flow(session::table_of(work), family, key);
    }
    env.count(Reason::SLOT_SESSIONS_EXPIRED);
    true
}

/// Removes the persistent mapping with this outside end unless it was used after `used_ns`, or in any case if `force`.
/// Returns whether it is gone.
#[inline(always)]
pub fn expire_mapping<E: Tables>(
    env: &E,
    work: &mut Work,
    outside: &MappingKey,
    used_ns: u64,
    force: bool,
) -> bool {
    nat::expire(env, work, outside, used_ns, force)
}
