//! Under which source a conversation goes on, and the reservation of an outside tuple that nobody else has.
//!
//! The wanted port is kept where it is free and allowed (RFC 4787, REQ-3); else random ones are tried (RFC 6056), of a
//! few all of them. A pool that does not pair addresses goes on with its next one. All of that is bounded.

use bulkhead_abi::{
    Decision, MappingKey, NatAction, NatFiltering, Reason, RuleSet, flow_flags, nat_flags, pool_flags,
    protocol,
};

use super::{Translation, address, destination::pool, has_destination_port, has_ports, mapping, rule};
use crate::{Clock, Insert, Table, Tables, Work, decide, policy::decide_again};

/// A port from here on stays at or above it (RFC 4787, REQ-3 a).
const LOWEST_PORT: u16 = 1024;

/// Tries at one address before giving up on it. With 90 % of its ports taken, one session in 850 gives up.
const TRIES: u32 = 64;

/// Tries in all.
pub(super) const ALL_TRIES: u32 = 2 * TRIES;

/// The source stays as it is.
#[inline(always)]
pub(super) fn leave_alone(work: &mut Work) {
    let packet = &work.packet;
    let t = &mut work.translation;
    t.source_rule = u32::MAX;
    t.matched_source = u32::MAX;
    t.address_be = packet.source_be;
    t.port = packet.source_port;
    t.wanted_port = packet.source_port;
    t.keep = true;
    t.mapped = false;
    t.pooled = false;
    t.addresses_left = 0;
    t.index = 0;
    t.tried = 0;
    t.span = 0;
    t.tries = 1;
}

/// The port may become one of `first..=last`, if the protocol has any.
#[inline(always)]
fn may_become(t: &mut Translation, protocol: u8, first: u16, last: u16) {
    if !has_ports(protocol) {
        return;
    }
    let stays_high = t.wanted_port >= LOWEST_PORT && last >= LOWEST_PORT && first < LOWEST_PORT;
    t.first_port = if stays_high { LOWEST_PORT } else { first };
    t.span = u32::from(last.saturating_sub(t.first_port)) + 1;
    let all = t.span + u32::from(t.keep);
    t.tries = if all < TRIES { all } else { TRIES };
}

/// Finds the source of the new conversation in `work`, which policy permits, and enters it into `work.flow`. The port is
/// the one that is tried first.
///
/// # Errors
/// The reason why it has none.
#[inline(never)]
pub fn source<E: Tables + Clock>(env: &E, work: &mut Work) -> Result<(), Reason> {
    if env.wired() || work.translation.flags == 0 {
        return Ok(());
    }
    let t = &mut work.translation;
    if t.translated && !t.npt {
        // Behind the translated destination this may look like another conversation of the same client.
        may_become(t, work.packet.protocol, LOWEST_PORT, u16::MAX);
    }
    if t.flags & nat_flags::SOURCE != 0 && asked(env, work) {
        apply(env, work)?;
    }
    let t = &mut work.translation;
    if t.mapped {
        // Also if it goes no further than the filtering of another inside host, who may be about to do the same.
        mapping::sent(env, t, &work.packet, work.now_ns);
    }
    if t.outside_ifindex != 0 && !mapping::may_enter(env, t) {
        return Err(Reason::NatFiltered);
    }
    if !t.translated {
        return Ok(());
    }
    if t.address_be == t.new_destination_be {
        // It would answer itself.
        return Err(Reason::SourceAddressInvalid);
    }
    let flow = &mut work.flow;
    flow.new_source_be = t.address_be;
    flow.new_source_port = t.port;
    flow.nat_rule = t.source_rule;
    flow.destination_rule = t.destination_rule;
    flow.flags |= flow_flags::TRANSLATED;
    Ok(())
}

/// Asks the rule set; the rule that matches stands in `work.translation` then.
#[inline(always)]
fn asked<E: Tables>(env: &E, work: &mut Work) -> bool {
    let Work {
        translation: t,
        question,
        walk,
        packet,
        tables,
        out_ifindex,
        ..
    } = work;
    t.egress_ifindex = *out_ifindex;
    let outside = if t.outside_ifindex == 0 {
        None
    } else {
        env.zone(*tables, t.outside_ifindex)
    };
    let number = match outside {
        Some(outside) if outside != question.from_zone => {
            // From one inside host to another by its outside address ("hairpin"): translated as if it had gone out, so that
            // the answer comes back this way (RFC 4787, REQ-9; RFC 5382, REQ-8).
            let inside = question.to_zone;
            t.egress_ifindex = t.outside_ifindex;
            question.destination_be = packet.destination_be;
            question.port = packet.service_port();
            question.to_zone = outside;
            question.set = RuleSet::SourceNat;
            let number = decide(env, question, walk);
            question.to_zone = inside;
            number
        }
        // Policy was asked about this very tuple.
        _ => decide_again(
            env,
            walk,
            RuleSet::SourceNat,
            question.from_zone,
            question.to_zone,
        ),
    };
    number != Decision::NO_RULE && rule(env, *tables, RuleSet::SourceNat, number, true, &mut t.rule)
}

/// Does what the rule says.
#[inline(always)]
fn apply<E: Tables + Clock>(env: &E, work: &mut Work) -> Result<(), Reason> {
    let Work {
        translation: t,
        packet,
        tables,
        egress,
        out_ifindex,
        ..
    } = work;
    let family = packet.family;
    t.matched_source = t.rule.rule;
    if t.rule.action == NatAction::Off as u8 {
        return Ok(());
    }
    t.source_rule = t.rule.rule;
    t.translated = true;
    if t.rule.action == NatAction::Prefix as u8 || t.rule.action == NatAction::Npt as u8 {
        if t.rule.action == NatAction::Npt as u8 {
            t.span = 0;
            t.tries = 1;
        }
        return address::prefix(&t.rule, &packet.source_be, &mut t.address_be);
    }
    if t.rule.action == NatAction::Interface as u8 {
        t.identity = MappingKey::INTERFACE | t.egress_ifindex;
        if t.egress_ifindex == *out_ifindex {
            t.interface = *egress;
        } else if !env.interface(t.egress_ifindex, &mut t.interface) {
            return Err(Reason::NatNoAddress);
        }
        t.address_be = own_address(t, family);
        // Sending the private source out untranslated would be worse than not sending.
        if t.address_be == [0; 4] {
            return Err(Reason::NatNoAddress);
        }
        may_become(t, packet.protocol, LOWEST_PORT, u16::MAX);
    } else {
        t.identity = t.rule.identity;
        if !pool(env, *tables, family, t) {
            return Err(Reason::NatNoAddress);
        }
        let number = if t.pool.flags & pool_flags::PAIRED != 0 {
            address::mix(&packet.source_be)
        } else {
            t.addresses_left = t.pool.count - 1;
            env.random()
        };
        t.pooled = t.addresses_left != 0;
        t.index = address::below(number, t.pool.count);
        address::pool_address(&t.pool, family, t.index, &mut t.address_be);
        if t.pool.flags & pool_flags::KEEP_PORTS != 0 {
            t.span = 0;
            t.tries = 1;
        } else if has_ports(packet.protocol) {
            t.keep = t.wanted_port >= t.pool.first_port && t.wanted_port <= t.pool.last_port;
            let (first, last) = (t.pool.first_port, t.pool.last_port);
            may_become(t, packet.protocol, first, last);
        }
    }
    if t.rule.filtering != NatFiltering::None as u8 && has_destination_port(packet.protocol) {
        return mapping::outbound(env, work);
    }
    Ok(())
}

/// The address of the interface in `t`.
#[inline(always)]
pub(super) fn own_address(t: &Translation, family: u8) -> [u32; 4] {
    if family == 4 {
        [t.interface.address4_be, 0, 0, 0]
    } else {
        t.interface.address6_be
    }
}

/// Puts the next address and port to be tried into `t`; false: there is none left.
#[inline(always)]
pub(super) fn next<E: Clock>(env: &E, family: u8, t: &mut Translation) -> bool {
    if t.tried == t.tries {
        if t.addresses_left == 0 {
            return false;
        }
        t.addresses_left -= 1;
        t.index += 1;
        if t.index >= t.pool.count {
            t.index = 0;
        }
        address::pool_address(&t.pool, family, t.index, &mut t.address_be);
        t.tried = 0;
    }
    let turn = t.tried;
    t.tried += 1;
    if t.keep && turn == 0 {
        t.port = t.wanted_port;
        return true;
    }
    let turn = turn.wrapping_sub(u32::from(t.keep));
    let offset = if t.span > TRIES {
        address::below(env.random(), t.span)
    } else {
        // So few that all of them can be tried, from a random one on.
        if turn == 0 {
            t.start = address::below(env.random(), t.span);
        }
        let offset = t.start.wrapping_add(turn);
        if offset >= t.span {
            offset.wrapping_sub(t.span)
        } else {
            offset
        }
    };
    t.port = t.first_port.wrapping_add(offset as u16);
    true
}

/// Outcome of a reservation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reserved {
    /// The reply flow stands in the half-open table, under the address and port in `work.translation`.
    Done,
    /// No address and port was free.
    Exhausted,
    /// The table is full.
    Full,
}

/// Inserts the reply flow `work.partner` under `work.partner_key`, whose destination (the translated source) becomes
/// the first address and port that are free.
#[inline(always)]
pub(crate) fn reserve<E: Tables + Clock>(env: &E, work: &mut Work) -> Reserved {
    let Work {
        translation: t,
        partner_key: key,
        partner: reply,
        packet,
        ..
    } = work;
    let (family, number) = (packet.family, packet.protocol);
    let query = matches!(number, protocol::ICMP | protocol::ICMPV6);
    // A port that a mapping has is nobody else's, whatever the destination. A mapping that another CPU makes between this
    // look and the insertion may get the same one; towards this one destination its session is then refused by name.
    let guarded = t.flags & nat_flags::PERSISTENT != 0 && !t.mapped && has_destination_port(number);
    let mut outcome = Reserved::Exhausted;
    env.repeat(ALL_TRIES, |_| {
        if !next(env, family, t) {
            return true;
        }
        key.destination_be = t.address_be;
        key.destination_port = t.port;
        if query {
            key.source_port = t.port;
        }
        if guarded {
            t.outside.address_be = t.address_be;
            t.outside.port = t.port;
            t.outside.protocol = number;
            t.outside.family = family;
            t.outside.identity = 0;
            if env.mapping(&t.outside, &mut t.mapping) {
                return false;
            }
        }
        match env.insert_flow(Table::HalfOpen, family, key, reply) {
            Insert::Exists => false,
            Insert::Full => {
                outcome = Reserved::Full;
                true
            }
            Insert::Done => {
                if env.with_flow(Table::Established, family, key, |_| ()).is_some() {
                    env.remove_flow(Table::HalfOpen, family, key);
                    return false;
                }
                outcome = Reserved::Done;
                true
            }
        }
    });
    if outcome == Reserved::Done && t.port != t.wanted_port {
        env.count(Reason::SLOT_NAT_PORTS_CHANGED);
    }
    outcome
}

/// Notes what a session that has just been created used.
#[inline(always)]
pub(crate) fn settled<E: Tables>(env: &E, work: &mut Work) {
    let Work {
        translation: t,
        tables,
        now_ns,
        ..
    } = work;
    if t.flags == 0 {
        return;
    }
    if t.destination_number != Decision::NO_RULE {
        // Only for the hit: what the rule says was done long ago.
        rule(
            env,
            *tables,
            RuleSet::DestinationNat,
            t.destination_number,
            true,
            &mut t.rule,
        );
    }
    if t.outside_ifindex != 0 {
        env.use_mapping(&t.entered, *now_ns);
        env.count(Reason::SLOT_NAT_MAPPINGS_USED);
    }
    if t.mapped {
        env.use_mapping(&t.outside, *now_ns);
        env.count(Reason::SLOT_NAT_MAPPINGS_USED);
    }
}
