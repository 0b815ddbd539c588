//! User space's hand on sessions: ageing and clearing, decided here so that the packet path is not raced.
//!
//! User space picks candidates from a dump that is old by the time it is read. Whether a session is really idle is looked
//! up again here, twice: when it is marked, and when it is collected, at the next sweep. Between the two every packet that
//! was on its way at the mark has arrived, and every packet since knows of the mark; see `life` and
//! `deploy/docs/decisions/0004-ageing.md`. One request is served at a time.

use bulkhead_abi::{
    FlowKey6, LimitKey, MappingKey, Reason,
    flow_generation::{DEAD, MARK, is_marked},
};

use crate::{Clock, Tables, Work, life, nat, session};

/// What a key of user space's stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    /// One direction without the other.
    Half,
    Session,
}

#[inline(always)]
fn find<E: Tables + Clock>(env: &E, work: &mut Work, family: u8, key: &FlowKey6) -> Found {
    let live = env.live();
    work.generation = live.generation;
    work.tables = live.tables;
    work.now_ns = env.now_ns();
    work.key = *key;
    work.packet.family = family;
    if !session::find(env, work) {
        Found::Nothing
    } else if session::find_partner(env, work) {
        Found::Session
    } else {
        Found::Half
    }
}

/// Whether the session has been idle for longer than it may be; and whether that is its own timeout rather than
/// `early_ms`.
#[inline(always)]
fn is_idle<E: Tables>(env: &E, work: &Work, early_ms: u32) -> (bool, bool) {
    let idle_ns = life::idle_ns(work);
    let over = idle_ns > life::timeout_ns(env, work);
    let early = early_ms != 0 && idle_ns > u64::from(early_ms) * 1_000_000;
    (over || early, over)
}

/// Ends the session that `key` belongs to, whatever the clock says.
#[inline(always)]
pub fn clear<E: Tables + Clock>(env: &E, work: &mut Work, family: u8, key: &FlowKey6) -> bool {
    close(env, work, family, key, Reason::SessionClosed)
}

/// The same for a reason of user space's.
#[inline(always)]
pub fn close<E: Tables + Clock>(
    env: &E,
    work: &mut Work,
    family: u8,
    key: &FlowKey6,
    reason: Reason,
) -> bool {
    let ended = match find(env, work, family, key) {
        Found::Nothing => false,
        Found::Half => life::end_half(env, work),
        Found::Session => life::end(env, work, reason),
    };
    if ended {
        env.count(Reason::SLOT_SESSIONS_EXPIRED);
    }
    ended
}

/// First phase: marks the session that `key` belongs to if it is idle for longer than it may be, or for longer than
/// `early_ms` if that is not 0. Half a session is removed at once: it carries nothing. Returns whether anything changed.
#[inline(always)]
pub fn mark<E: Tables + Clock>(env: &E, work: &mut Work, family: u8, key: &FlowKey6, early_ms: u32) -> bool {
    match find(env, work, family, key) {
        Found::Nothing => return false,
        Found::Half => {
            let ended = life::end_half(env, work);
            if ended {
                env.count(Reason::SLOT_SESSIONS_EXPIRED);
            }
            return ended;
        }
        Found::Session => {}
    }
    if life::is_dead(work) || !is_idle(env, work, early_ms).0 {
        return false;
    }
    let (own, other) = (work.found_generation, work.partner.generation);
    let id = work.flow.session_id;
    let (own_table, other_table) = (session::table_of(work), session::table(work.partner_half_open));
    // The first direction last: while it is not marked, nobody collects.
    let mut marked = false;
    for first in [false, true] {
        let it_is_own = first != life::is_reply(&work.flow);
        if !it_is_own && work.partner_half_open == 2 {
            // Nobody has answered: the first direction is all there is.
            continue;
        }
        let (table, key, before) = if it_is_own {
            (own_table, &work.key, own)
        } else {
            (other_table, &work.partner_key, other)
        };
        marked = env.swap_generation(table, family, key, id, before, before | MARK) == Some(before);
        if !marked {
            // A packet of a new generation, this very moment.
            break;
        }
    }
    marked
}

/// Second phase: ends the session that `key` belongs to if both its directions are marked and it is still idle. Returns whether it was ended.
#[inline(always)]
pub fn collect<E: Tables + Clock>(
    env: &E,
    work: &mut Work,
    family: u8,
    key: &FlowKey6,
    early_ms: u32,
) -> bool {
    if find(env, work, family, key) != Found::Session {
        return false;
    }
    let reply = life::is_reply(&work.flow);
    let (marked, other) = if reply {
        (work.partner.generation, work.found_generation)
    } else {
        (work.found_generation, work.partner.generation)
    };
    // A direction that is not marked may have the short way, where nobody looks at the other's mark.
    if !is_marked(marked) || !is_marked(other) {
        return false;
    }
    let (idle, over) = is_idle(env, work, early_ms);
    if !idle {
        return false;
    }
    let (half_open, first) = if reply {
        (work.partner_half_open, &work.partner_key)
    } else {
        (work.half_open, &work.key)
    };
    let id = work.flow.session_id;
    if env.swap_generation(session::table(half_open), family, first, id, marked, DEAD) != Some(marked) {
        // A packet came in time.
        return false;
    }
    let reason = if over {
        Reason::SessionClosed
    } else {
        env.count(Reason::SLOT_SESSIONS_AGED_EARLY);
        Reason::EarlyAged
    };
    life::clear_away(env, work, half_open, reason);
    env.count(Reason::SLOT_SESSIONS_EXPIRED);
    true
}

/// Removes what is left of a session that has been dead since the last sweep: whoever killed it was not the one to bury
/// it. Returns whether there was anything.
#[inline(always)]
pub fn bury<E: Tables + Clock>(env: &E, work: &mut Work, family: u8, key: &FlowKey6) -> bool {
    let found = find(env, work, family, key);
    if found == Found::Nothing || work.found_generation != DEAD {
        return false;
    }
    if found == Found::Session {
        if life::is_reply(&work.flow) {
            // Without its answers the first direction must not live on.
            let _ended = life::end(env, work, Reason::SessionClosed);
        } else {
            // Takes this very flow away too: once more, and it might be another session's by then.
            let half_open = work.half_open;
            life::clear_away(env, work, half_open, Reason::SessionClosed);
            env.count(Reason::SLOT_SESSIONS_EXPIRED);
            return true;
        }
    }
    env.remove_flow(session::table_of(work), family, key);
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

/// Corrects the count of sessions of an address.
#[inline(always)]
pub fn correct<E: Tables>(env: &E, key: &LimitKey, by: i64) -> i64 {
    env.count_session(key, by)
}
