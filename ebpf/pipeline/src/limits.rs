//! Limits of sessions: how many one source or one destination may have that come from a zone.
//!
//! A session is counted when it is admitted and taken off when it ends. What the half-open table evicts ends without a
//! word, and what began before a limit was configured was never counted: user space counts the tables now and then and
//! corrects what differs. Only zones with limits pay, and only at the beginning and at the end of a session.

use bulkhead_abi::{LimitKey, LimitKind, LimitRule, Reason, Screen, limit_flags, protocol};

use crate::{Tables, Work, life, screens};

/// Counts the session that `work` is about to open.
///
/// # Errors
/// The limit that is reached; then nothing is counted.
#[inline(never)]
pub(crate) fn charge<E: Tables>(env: &E, work: &mut Work) -> Result<(), Reason> {
    let zone = work.question.from_zone;
    let rule = env.limit_rule(work.tables, zone);
    if rule == LimitRule::default() {
        return Ok(());
    }
    let tcp = work.packet.protocol == protocol::TCP;
    let mut over = None;
    for kind in LimitKind::ALL {
        let limit = rule.of(kind);
        if limit == 0 || (kind == LimitKind::SynAckAck && !tcp) {
            continue;
        }
        fill_key(work, kind, zone, false);
        if env.count_session(&work.limit_key, 1) > i64::from(limit) && over.is_none() {
            over = Some(match kind {
                LimitKind::Source => Screen::SessionLimitSource,
                LimitKind::Destination => Screen::SessionLimitDestination,
                LimitKind::SynAckAck => Screen::SynAckAck,
            });
        }
    }
    let Some(screen) = over else {
        return Ok(());
    };
    if rule.flags & limit_flags::ALARM_ONLY != 0 {
        env.count(Reason::SLOT_SESSION_LIMIT_ALARMS);
        work.zone = u32::from(zone);
        screens::report(env, work, screen as u32, false);
        return Ok(());
    }
    // The denial is told by the caller.
    env.count_screen(zone, screen as u32, true);
    discharge(env, work, zone, tcp, false);
    Err(screen.reason())
}

/// Takes the session off that [`charge`] counted and that could not be opened after all.
#[inline(always)]
pub(crate) fn revoke<E: Tables>(env: &E, work: &mut Work) {
    let tcp = work.packet.protocol == protocol::TCP;
    discharge(env, work, work.question.from_zone, tcp, false);
}

/// Takes the session in `work.flow` and `work.partner` off, which has just ended.
#[inline(always)]
pub(crate) fn give_back<E: Tables>(env: &E, work: &mut Work) {
    let reply = life::is_reply(&work.flow);
    let original = if reply { &work.partner } else { &work.flow };
    let (zone, tcp) = (original.from_zone, original.protocol == protocol::TCP);
    discharge(env, work, zone, tcp, reply);
}

#[inline(never)]
fn discharge<E: Tables>(env: &E, work: &mut Work, zone: u8, tcp: bool, reply: bool) {
    let rule = env.limit_rule(work.tables, zone);
    for kind in LimitKind::ALL {
        if rule.of(kind) != 0 && (kind != LimitKind::SynAckAck || tcp) {
            fill_key(work, kind, zone, reply);
            let _left = env.count_session(&work.limit_key, -1);
        }
    }
}

/// The key under which the session counts. `reply`: `work.key` is its reply direction's.
#[inline(always)]
fn fill_key(work: &mut Work, kind: LimitKind, zone: u8, reply: bool) {
    let key = if reply { &work.partner_key } else { &work.key };
    work.limit_key.scope = LimitKey::scope(work.packet.family, kind, zone);
    work.limit_key.address_be = if kind == LimitKind::Destination {
        key.destination_be
    } else {
        key.source_be
    };
}
