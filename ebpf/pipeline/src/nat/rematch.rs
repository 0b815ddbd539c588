//! Whether a live session would be translated today as it was when it began. Of several addresses that a rule may give,
//! any counts as the same: who is permitted notices nothing of a change elsewhere.

use bulkhead_abi::{
    Decision, NatAction, Reason, RuleSet, ZONE_SELF, flow_flags, nat_flags, pool_flags, protocol,
};

use super::{address, destination::pool, has_destination_port, mapping, rule, source::own_address};
use crate::{Tables, Work, decide};

/// Puts the session in `work` to both rule sets. `reply`: `work.flow` is its answering direction. `work.question` is what
/// policy was asked about it; `forwarded` says that it goes to another interface.
///
/// # Errors
/// [`Reason::SessionClosed`] if it would be translated otherwise.
#[inline(always)]
pub(crate) fn same<E: Tables>(env: &E, work: &mut Work, reply: bool, forwarded: bool) -> Result<(), Reason> {
    if env.wired() {
        return Ok(());
    }
    let flags = env.nat_flags(work.tables);
    work.translation.flags = flags;
    let same = if flags & (nat_flags::SOURCE | nat_flags::DESTINATION) == 0 {
        (work.flow.flags | work.partner.flags) & flow_flags::TRANSLATED == 0
    } else {
        let (from_zone, to_zone) = (work.question.from_zone, work.question.to_zone);
        work.translation.source_rule = u32::MAX;
        work.translation.destination_rule = u32::MAX;
        let same = same_destination(env, work, reply, from_zone)
            && (!forwarded || same_source(env, work, reply, from_zone, to_zone));
        // The same rules may have other places now.
        work.flow.nat_rule = work.translation.source_rule;
        work.flow.destination_rule = work.translation.destination_rule;
        same
    };
    if same { Ok(()) } else { Err(Reason::SessionClosed) }
}

/// Puts the question in `work` to a rule set. The rule that matches stands in `work.translation` then.
#[inline(always)]
fn asked<E: Tables>(env: &E, work: &mut Work, set: RuleSet) -> bool {
    let Work {
        translation: t,
        question,
        walk,
        tables,
        ..
    } = work;
    question.set = set;
    let number = decide(env, question, walk);
    number != Decision::NO_RULE && rule(env, *tables, set, number, false, &mut t.rule)
}

/// Whether the session's destination is what its tuple would be given before the route.
#[inline(never)]
fn same_destination<E: Tables>(env: &E, work: &mut Work, reply: bool, from_zone: u8) -> bool {
    let (original, key) = if reply {
        (&work.partner, &work.partner_key)
    } else {
        (&work.flow, &work.key)
    };
    let t = &mut work.translation;
    t.outside_ifindex = 0;
    t.entered.address_be = key.destination_be;
    t.entered.port = key.destination_port;
    t.entered.protocol = original.protocol;
    t.entered.family = work.packet.family;
    t.entered.identity = 0;
    t.new_destination_be = original.new_destination_be;
    t.new_destination_port = original.new_destination_port;
    if !has_destination_port(original.protocol) {
        // What stands in its place is the identifier of a query, which goes with the source.
        t.new_destination_port = key.destination_port;
    }
    work.question.destination_be = key.destination_be;
    work.question.port = match original.protocol {
        protocol::ICMP | protocol::ICMPV6 => original.icmp_type_code as u16,
        _ => key.destination_port,
    };
    work.question.from_zone = from_zone;
    work.question.to_zone = ZONE_SELF;
    let found = t.flags & nat_flags::DESTINATION != 0 && asked(env, work, RuleSet::DestinationNat);
    let Work {
        translation: t,
        packet,
        tables,
        ..
    } = work;
    let family = packet.family;
    let same_port = t.new_destination_port == t.entered.port;
    let unchanged = same_port && t.new_destination_be == t.entered.address_be;
    if !found {
        return unchanged || mapping::reaches(env, work);
    }
    if t.rule.action == NatAction::Off as u8 {
        return unchanged;
    }
    t.destination_rule = t.rule.rule;
    if t.rule.action == NatAction::Pool as u8 {
        return pool(env, *tables, family, t)
            && address::pool_has(&t.pool, family, &t.new_destination_be)
            && if t.pool.port != 0 && has_destination_port(packet.protocol) {
                t.new_destination_port == t.pool.port
            } else {
                same_port
            };
    }
    same_port
        && address::prefix(&t.rule, &t.entered.address_be, &mut t.address_be).is_ok()
        && t.address_be == t.new_destination_be
}

/// Whether the session's source is one that its tuple may be given on its way out.
#[inline(never)]
fn same_source<E: Tables>(env: &E, work: &mut Work, reply: bool, from_zone: u8, to_zone: u8) -> bool {
    let t = &mut work.translation;
    let outside = if t.outside_ifindex == 0 {
        None
    } else {
        env.zone(work.tables, t.outside_ifindex)
    };
    match outside {
        // As when it began: see `source::asked`.
        Some(outside) if outside != from_zone => {
            if !env.interface(t.outside_ifindex, &mut t.interface) {
                return false;
            }
            work.question.to_zone = outside;
        }
        _ => {
            work.question.to_zone = to_zone;
            work.question.destination_be = t.new_destination_be;
            if has_destination_port(t.entered.protocol) {
                work.question.port = t.new_destination_port;
            }
            // The conversation's way out: where this packet came from, if it is the answer.
            if reply {
                t.interface = work.ingress;
            } else {
                t.interface = work.egress;
            }
        }
    }
    let found = t.flags & nat_flags::SOURCE != 0 && asked(env, work, RuleSet::SourceNat);
    let (original, key) = if reply {
        (&work.partner, &work.partner_key)
    } else {
        (&work.flow, &work.key)
    };
    let t = &mut work.translation;
    let family = work.packet.family;
    if !found || t.rule.action == NatAction::Off as u8 {
        return original.new_source_be == key.source_be;
    }
    t.source_rule = t.rule.rule;
    if t.rule.action == NatAction::Interface as u8 {
        return original.new_source_be == own_address(t, family);
    }
    if t.rule.action == NatAction::Pool as u8 {
        return pool(env, work.tables, family, t)
            && address::pool_has(&t.pool, family, &original.new_source_be)
            && (t.pool.flags & pool_flags::KEEP_PORTS == 0 || original.new_source_port == key.source_port);
    }
    address::prefix(&t.rule, &key.source_be, &mut t.address_be).is_ok()
        && t.address_be == original.new_source_be
}
