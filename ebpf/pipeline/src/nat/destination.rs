//! Under which destination a conversation goes on: a rule's pool or prefix, or the inside of a persistent mapping.

use bulkhead_abi::{Decision, NatAction, PoolKey, Reason, RuleSet, ZONE_SELF, nat_flags};

use super::{Translation, address, has_destination_port, leave_alone, mapping, rule};
use crate::{Tables, Work, decide};

/// Finds the destination of the new conversation in `work`, before its route: `work.translation` has it afterwards. Rules
/// are asked first; where one matches, mappings are not.
///
/// # Errors
/// The reason why it has none.
#[inline(never)]
pub fn destination<E: Tables>(env: &E, work: &mut Work, from_zone: u8) -> Result<(), Reason> {
    leave_alone(work);
    if env.wired() {
        return Ok(());
    }
    let flags = env.nat_flags(work.tables);
    work.translation.flags = flags;
    if flags & nat_flags::DESTINATION != 0 {
        let Work { question, packet, .. } = work;
        // Field by field: a struct expression would be built on the stack first.
        question.source_be = packet.source_be;
        question.destination_be = packet.destination_be;
        question.generation = work.tables;
        question.port = packet.service_port();
        question.protocol = packet.protocol;
        question.family = packet.family;
        question.from_zone = from_zone;
        question.to_zone = ZONE_SELF;
        question.set = RuleSet::DestinationNat;
        let number = decide(env, &work.question, &mut work.walk);
        let Work {
            translation: t,
            tables,
            ..
        } = work;
        if number != Decision::NO_RULE
            && rule(env, *tables, RuleSet::DestinationNat, number, false, &mut t.rule)
        {
            t.destination_number = number;
            t.matched_destination = t.rule.rule;
            return apply(env, work);
        }
    }
    if flags & nat_flags::PERSISTENT != 0 && has_destination_port(work.packet.protocol) {
        mapping::inbound(env, work);
    }
    Ok(())
}

/// Does what the rule says.
#[inline(always)]
fn apply<E: Tables>(env: &E, work: &mut Work) -> Result<(), Reason> {
    let Work {
        translation: t,
        packet,
        tables,
        ..
    } = work;
    if t.rule.action == NatAction::Pool as u8 {
        if !pool(env, *tables, packet.family, t) {
            return Err(Reason::NatNoAddress);
        }
        let index = address::below(address::mix(&packet.source_be), t.pool.count);
        address::pool_address(&t.pool, packet.family, index, &mut t.new_destination_be);
        if t.pool.port != 0 && has_destination_port(packet.protocol) {
            t.new_destination_port = t.pool.port;
        }
    } else if t.rule.action == NatAction::Prefix as u8 || t.rule.action == NatAction::Npt as u8 {
        address::prefix(&t.rule, &packet.destination_be, &mut t.new_destination_be)?;
        t.npt = t.rule.action == NatAction::Npt as u8;
    } else {
        return Ok(());
    }
    t.destination_rule = t.rule.rule;
    t.translated = true;
    Ok(())
}

/// Copies the pool of the rule at hand; false if it has no address of the family.
#[inline(always)]
pub(super) fn pool<E: Tables>(env: &E, tables: u32, family: u8, t: &mut Translation) -> bool {
    let key = PoolKey {
        generation: tables,
        pool: t.rule.pool,
        family: u32::from(family),
    };
    env.pool(&key, &mut t.pool) && t.pool.count != 0
}

/// The zones in which the packet's destination belongs to translation, although nothing has translated it: one bit each.
#[inline(always)]
#[must_use]
pub fn owned<E: Tables>(env: &E, work: &Work) -> u64 {
    let t = &work.translation;
    if t.translated || t.flags & nat_flags::ADDRESSES == 0 {
        return 0;
    }
    env.nat_address(work.tables, work.packet.family, &work.packet.destination_be)
}
