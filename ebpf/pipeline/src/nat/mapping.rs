//! Persistent mappings: one outside address and port for an inside address and port, whatever the destination
//! (endpoint-independent mapping, RFC 4787, REQ-1), and the way back in for those that its filtering admits.
//!
//! Inserting the mapping under its outside end with "must not exist" reserves it; the way from the inside end to it is
//! inserted afterwards, and whoever loses that race takes the winner's. A mapping made by an older generation is put to
//! the rules again before it is used: from inside by the rule that matches, from outside by asking about the
//! conversation that made it.

use bulkhead_abi::{Decision, MappingKey, NatAction, NatFiltering, Reason, RuleSet, nat_flags};
use bulkhead_packet::Packet;

use super::{
    Translation, address,
    destination::pool,
    has_destination_port, rule,
    source::{ALL_TRIES, next, own_address},
};
use crate::{Clock, Insert, Table, Tables, Work, decide};

/// Takes the mapping of the packet's source, or makes one: `work.translation` has its address and port afterwards.
///
/// # Errors
/// [`Reason::NatPortsExhausted`] or [`Reason::NatMappingsFull`].
#[inline(never)]
pub(super) fn outbound<E: Tables + Clock>(env: &E, work: &mut Work) -> Result<(), Reason> {
    let Work {
        translation: t,
        packet,
        generation,
        now_ns,
        ifindex,
        ..
    } = work;
    t.inside.address_be = packet.source_be;
    t.inside.port = packet.source_port;
    t.inside.protocol = packet.protocol;
    t.inside.family = packet.family;
    t.inside.identity = t.identity;
    if !taken(env, t, packet.family) {
        env.remove_mapping_end(&t.inside);
        t.mapping.last_used_ns = *now_ns;
        t.mapping.inside_be = packet.source_be;
        t.mapping.inside_port = packet.source_port;
        t.mapping.protocol = packet.protocol;
        t.mapping.family = packet.family;
        t.mapping.identity = t.identity;
        t.mapping.inside_ifindex = *ifindex;
        t.mapping.outside_ifindex = t.egress_ifindex;
        t.mapping.number = env.random();
        t.mapping.reserved = [0; 3];
        confirm(t, packet, *generation);
        make(env, work)?;
    } else if t.mapping.generation != *generation {
        confirm(t, packet, *generation);
        env.replace_mapping(&t.outside, &t.mapping);
    }
    let t = &mut work.translation;
    t.address_be = t.outside.address_be;
    t.port = t.outside.port;
    t.wanted_port = t.port;
    t.mapped = true;
    t.keep = true;
    t.pooled = false;
    t.addresses_left = 0;
    t.tried = 0;
    t.span = 0;
    t.tries = 1;
    Ok(())
}

/// Enters into the mapping at hand what the rule at hand says, and the conversation that shows it.
#[inline(always)]
fn confirm(t: &mut Translation, packet: &Packet, generation: u32) {
    t.mapping.generation = generation;
    t.mapping.filtering = t.rule.filtering;
    t.mapping.timeout_s = t.rule.timeout_s;
    t.mapping.rule = t.rule.rule;
    t.mapping.target_be = packet.destination_be;
    t.mapping.target_port = packet.destination_port;
}

/// Whether there is a mapping of the inside end at hand, to an address that the rule at hand still gives.
#[inline(always)]
fn taken<E: Tables>(env: &E, t: &mut Translation, family: u8) -> bool {
    env.mapping_end(&t.inside, &mut t.outside)
        && env.mapping(&t.outside, &mut t.mapping)
        && t.mapping.inside() == t.inside
        && gives(t, family, &t.outside.address_be)
}

/// Whether the rule at hand translates to an address, its pool or interface being in `t`.
#[inline(always)]
fn gives(t: &Translation, family: u8, address_be: &[u32; 4]) -> bool {
    if t.rule.action == NatAction::Interface as u8 {
        *address_be == own_address(t, family)
    } else {
        address::pool_has(&t.pool, family, address_be)
    }
}

/// Makes a mapping with the first free address and port.
#[inline(always)]
fn make<E: Tables + Clock>(env: &E, work: &mut Work) -> Result<(), Reason> {
    let Work {
        translation: t,
        packet,
        partner_key: reply,
        ..
    } = work;
    let family = packet.family;
    // The answers to this conversation must not be somebody else's.
    reply.source_be = t.new_destination_be;
    reply.source_port = t.new_destination_port;
    reply.protocol = u32::from(packet.protocol);
    let mut outcome = Err(Reason::NatPortsExhausted);
    env.repeat(ALL_TRIES, |_| {
        if !next(env, family, t) {
            return true;
        }
        reply.destination_be = t.address_be;
        reply.destination_port = t.port;
        if env.with_flow(Table::HalfOpen, family, reply, |_| ()).is_some()
            || env.with_flow(Table::Established, family, reply, |_| ()).is_some()
        {
            return false;
        }
        t.mapping.outside_be = t.address_be;
        t.mapping.outside_port = t.port;
        t.outside = t.mapping.outside();
        match env.insert_mapping(&t.outside, &t.mapping) {
            Insert::Exists => false,
            Insert::Full => {
                outcome = Err(Reason::NatMappingsFull);
                true
            }
            Insert::Done => {
                outcome = Ok(());
                true
            }
        }
    });
    outcome?;
    match env.insert_mapping_end(&t.inside, &t.outside) {
        Insert::Done => {
            env.count(Reason::SLOT_NAT_MAPPINGS_CREATED);
            if t.port != t.wanted_port {
                env.count(Reason::SLOT_NAT_PORTS_CHANGED);
            }
            Ok(())
        }
        outcome => {
            env.remove_mapping(&t.outside);
            // Another CPU has made one for the same inside end.
            if outcome == Insert::Exists && taken(env, t, family) {
                return Ok(());
            }
            Err(Reason::NatMappingsFull)
        }
    }
}

/// Notes that the mapping at hand has been used to send to the packet's destination, which may send back from now on.
#[inline(always)]
pub(super) fn sent<E: Tables>(env: &E, t: &mut Translation, packet: &Packet, now_ns: u64) {
    let port = if t.outside_ifindex != 0 {
        // What the inside wrote is what the other inside host looks like from here.
        t.permit.remote_be = packet.destination_be;
        packet.destination_port
    } else {
        t.permit.remote_be = t.new_destination_be;
        t.new_destination_port
    };
    if t.mapping.filtering == NatFiltering::TargetHost as u8 {
        t.permit.remote_port = 0;
    } else if t.mapping.filtering == NatFiltering::TargetHostPort as u8 {
        t.permit.remote_port = u32::from(port);
    } else {
        return;
    }
    t.permit.outside = t.outside;
    t.permit.outside.identity = t.mapping.number;
    env.permit(&t.permit, now_ns);
}

/// Makes the inside of a mapping the destination of a packet that is addressed to its outside end.
#[inline(never)]
pub(super) fn inbound<E: Tables>(env: &E, work: &mut Work) {
    let Work {
        translation: t,
        packet,
        ..
    } = work;
    t.entered.address_be = packet.destination_be;
    t.entered.port = packet.destination_port;
    t.entered.protocol = packet.protocol;
    t.entered.family = packet.family;
    t.entered.identity = 0;
    if !env.mapping(&t.entered, &mut t.mapping) || t.mapping.outside() != t.entered {
        return;
    }
    if t.mapping.generation != work.generation && !still(env, work) {
        let t = &mut work.translation;
        t.outside = t.entered;
        remove(env, t);
        return;
    }
    let t = &mut work.translation;
    t.new_destination_be = t.mapping.inside_be;
    t.new_destination_port = t.mapping.inside_port;
    t.filtering = t.mapping.filtering;
    t.number = t.mapping.number;
    t.outside_ifindex = t.mapping.outside_ifindex;
    t.translated = true;
}

/// Whether a live session from `entered` to the destination in `work.translation` goes through a mapping that still is.
#[inline(always)]
pub(super) fn reaches<E: Tables>(env: &E, work: &mut Work) -> bool {
    let t = &mut work.translation;
    if t.flags & nat_flags::PERSISTENT == 0
        || !has_destination_port(t.entered.protocol)
        || !env.mapping(&t.entered, &mut t.mapping)
        || t.mapping.outside() != t.entered
        || t.mapping.inside_be != t.new_destination_be
        || t.mapping.inside_port != t.new_destination_port
    {
        return false;
    }
    t.outside_ifindex = t.mapping.outside_ifindex;
    work.translation.mapping.generation == work.generation || still(env, work)
}

/// Whether the generation in force would make the mapping at hand for the conversation that made it; if so, it is the
/// mapping's generation from now on.
#[inline(always)]
fn still<E: Tables>(env: &E, work: &mut Work) -> bool {
    let Work {
        translation: t,
        question,
        walk,
        generation,
        tables,
        ..
    } = work;
    let (Some(from_zone), Some(to_zone)) = (
        env.zone(*tables, t.mapping.inside_ifindex),
        env.zone(*tables, t.mapping.outside_ifindex),
    ) else {
        return false;
    };
    let family = t.mapping.family;
    question.source_be = t.mapping.inside_be;
    question.destination_be = t.mapping.target_be;
    question.generation = *tables;
    question.port = t.mapping.target_port;
    question.protocol = t.mapping.protocol;
    question.family = family;
    question.from_zone = from_zone;
    question.to_zone = to_zone;
    question.set = RuleSet::SourceNat;
    let number = decide(env, question, walk);
    if number == Decision::NO_RULE
        || !rule(env, *tables, RuleSet::SourceNat, number, false, &mut t.rule)
        || t.rule.filtering == NatFiltering::None as u8
    {
        return false;
    }
    let identity = if t.rule.action == NatAction::Interface as u8 {
        if !env.interface(t.mapping.outside_ifindex, &mut t.interface) {
            return false;
        }
        MappingKey::INTERFACE | t.mapping.outside_ifindex
    } else {
        if !pool(env, *tables, family, t) {
            return false;
        }
        t.rule.identity
    };
    if identity != t.mapping.identity || !gives(t, family, &t.mapping.outside_be) {
        return false;
    }
    t.mapping.generation = *generation;
    t.mapping.filtering = t.rule.filtering;
    t.mapping.timeout_s = t.rule.timeout_s;
    t.mapping.rule = t.rule.rule;
    env.replace_mapping(&t.entered, &t.mapping);
    true
}

/// Whether the filtering of the mapping that the packet was addressed to admits its sender, who is known by the
/// translated source: another inside host looks like that from outside too.
#[inline(always)]
pub(super) fn may_enter<E: Tables>(env: &E, t: &mut Translation) -> bool {
    if t.filtering == NatFiltering::AnyRemoteHost as u8 {
        return true;
    }
    t.permit.outside = t.entered;
    t.permit.outside.identity = t.number;
    t.permit.remote_be = t.address_be;
    t.permit.remote_port = if t.filtering == NatFiltering::TargetHostPort as u8 {
        u32::from(t.port)
    } else {
        0
    };
    env.is_permitted(&t.permit)
}

/// Removes the mapping at hand from both tables.
#[inline(always)]
fn remove<E: Tables>(env: &E, t: &mut Translation) {
    t.inside = t.mapping.inside();
    env.remove_mapping(&t.outside);
    env.remove_mapping_end(&t.inside);
    env.count(Reason::SLOT_NAT_MAPPINGS_REMOVED);
}

/// Removes the mapping with the outside end in `work` if nobody has used it after `used_ns`, or in any case if `force`.
/// Returns whether it is gone.
#[inline(always)]
pub(crate) fn expire<E: Tables>(
    env: &E,
    work: &mut Work,
    outside: &MappingKey,
    used_ns: u64,
    force: bool,
) -> bool {
    let t = &mut work.translation;
    t.outside = *outside;
    if !env.mapping(&t.outside, &mut t.mapping)
        || t.mapping.outside() != t.outside
        || (t.mapping.last_used_ns > used_ns && !force)
    {
        return false;
    }
    remove(env, t);
    true
}
