//! Whether the live policy tables say what the configuration says: questions put to both.
//!
//! Owns the questions: of each turn a few policies, the next ones at the next turn, and of each a packet that the policy
//! is about (its zones, an address of its groups, its service). The answer of the tables is the pipeline's own decision
//! over the kernel's live maps, read entry by entry, with nothing counted and nothing remembered; so it tells of permits too,
//! which no packet could try without leaving a session. The answer of the configuration is the first rule that matches,
//! with the members that its groups have by now. Assumes the lock on what is live. Nothing is asked of translation,
//! screens, timeouts and limits: those tables are not looked at here.

use std::net::IpAddr;

use bulkhead_abi::{PolicyAction, RuleSet, protocol};
use bulkhead_pipeline::{Question, Tables as _, Walk, decide};

use super::PORT;
use crate::{
    address::{family, words},
    engine::{Live, explain::ReadOnly},
    membership::nesting,
    reference::{self, Membership, Tuple},
    ruleset::{Action, Policy, Ruleset, ServiceMatch},
};

/// Policies of a turn: some thirty system calls each.
const POLICIES: usize = 8;
/// Rules that a turn holds packets against, one after the other: milliseconds, while locks are held that changes wait for.
const RULES: usize = 200_000;
/// Addresses that are looked at for one that a group has in a family, nested groups included.
const ADDRESSES: usize = 1024;
/// What stands for "any address" (RFC 5737, RFC 3849).
const ANYBODY: [[IpAddr; 2]; 2] = [
    [
        IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 77)),
        IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 77)),
    ],
    [
        IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x77)),
        IpAddr::V6(std::net::Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x77)),
    ],
];

/// The groups that the two ends of a packet are in, as the book has them.
pub(super) struct Ends {
    source: IpAddr,
    of_source: Vec<u32>,
    of_destination: Vec<u32>,
}

impl Ends {
    pub(super) fn of(live: &Live, tuple: &Tuple) -> Self {
        let mut walk = nesting::Walk::default();
        let mut groups = |address: &IpAddr| {
            let lists = live.book.lists_of(live.book.class(address));
            live.meaning.groups_of(lists, &mut walk)
        };
        Self {
            source: tuple.source,
            of_source: groups(&tuple.source),
            of_destination: groups(&tuple.destination),
        }
    }
}

impl Membership for Ends {
    fn has(&self, group: usize, address: &IpAddr) -> bool {
        let groups = if *address == self.source {
            &self.of_source
        } else {
            &self.of_destination
        };
        u32::try_from(group).is_ok_and(|group| groups.contains(&group))
    }
}

/// How many packets a turn may hold against the configuration's policies, at most `most`.
pub(super) fn share(live: &Live, most: usize) -> usize {
    (RULES / live.ruleset.policies.len().max(1)).clamp(1, most)
}

/// What the configuration says of a packet between two zones (indices).
pub(super) fn expected(live: &Live, from: usize, to: usize, tuple: &Tuple) -> Option<usize> {
    reference::first_match_among(&live.ruleset, &Ends::of(live, tuple), from, to, tuple)
}

/// The question that a packet between two zones (their numbers in the tables) puts to policy.
pub(super) fn question(tables: u32, from_zone: u8, to_zone: u8, tuple: &Tuple) -> Question {
    Question {
        source_be: words(tuple.source),
        destination_be: words(tuple.destination),
        generation: tables,
        port: tuple.port,
        protocol: tuple.protocol,
        family: family(&tuple.source),
        from_zone,
        to_zone,
        set: RuleSet::Policy,
    }
}

/// The number that a zone (index) has in the tables.
pub(super) fn zone_number(zone: usize) -> u8 {
    // There are at most `MAX_ZONES`, far fewer than 255.
    u8::try_from(zone + 1).unwrap_or(u8::MAX)
}

/// Asks about the policies of this turn.
///
/// # Errors
/// The first answer of the tables that is not the configuration's.
pub(super) fn ask(env: &ReadOnly<'_>, live: &Live, turn: u64) -> Result<(), String> {
    let policies = &live.ruleset.policies;
    let count = policies.len().min(share(live, POLICIES));
    for step in 0..count {
        let asked = (turn as usize).wrapping_mul(count).wrapping_add(step);
        let (round, at) = (asked / policies.len(), asked % policies.len());
        // The other family when it is this policy's turn again.
        let v4_first = (round + at).is_multiple_of(2);
        let (from, to, tuple) = about(live, &policies[at], v4_first);
        compare(env, live, from, to, &tuple).map_err(|wrong| {
            let zone = |zone: usize| live.ruleset.zones.get(zone).map_or("", |zone| zone.name.as_str());
            format!(
                "a packet from {} in {} to {} in {}, protocol {} port {}: {wrong}",
                tuple.source,
                zone(from),
                tuple.destination,
                zone(to),
                tuple.protocol,
                tuple.port
            )
        })?;
    }
    Ok(())
}

/// Puts one packet to both.
fn compare(env: &ReadOnly<'_>, live: &Live, from: usize, to: usize, tuple: &Tuple) -> Result<(), String> {
    let tables = live.compiled.generation;
    let asked = question(tables, zone_number(from), zone_number(to), tuple);
    let number = decide(env, &asked, &mut Walk::default());
    let found = env.rule(tables, number, false);
    let expected = expected(live, from, to, tuple);
    let policies = &live.ruleset.policies;
    let name = |index: Option<usize>| match index.and_then(|index| policies.get(index)) {
        Some(policy) => format!("policy {}", policy.name),
        None => "no policy, which denies".to_owned(),
    };
    let decided = found.map(|rule| rule.policy as usize);
    if decided != expected {
        return Err(format!(
            "{} is to decide, and by the tables {} does",
            name(expected),
            name(decided)
        ));
    }
    if let (Some(rule), Some(policy)) = (found, expected.and_then(|index| policies.get(index))) {
        let action = match policy.action {
            Action::Permit => PolicyAction::Permit,
            Action::Deny => PolicyAction::Deny,
            Action::Reject => PolicyAction::Reject,
        };
        if rule.action != action as u8 {
            return Err(format!(
                "policy {} is to {:?}, and the tables have action {}",
                policy.name, policy.action, rule.action
            ));
        }
    }
    Ok(())
}

/// A packet that the policy is about: its first zones, an address of its groups where one is of a family that both have, of one
/// family rather than the other, its first service. Another policy may decide about it all the same.
fn about(live: &Live, policy: &Policy, v4_first: bool) -> (usize, usize, Tuple) {
    let from = policy.from.first().copied().unwrap_or(0);
    let other = (0..live.ruleset.zones.len())
        .find(|zone| *zone != from)
        .unwrap_or(from);
    let to = policy.to.first().copied().unwrap_or(other);
    let member = |groups: &[usize], v4: bool| {
        let mut left = ADDRESSES;
        groups
            .iter()
            .find_map(|group| member(live, *group, v4, &mut left))
    };
    let ends = |v4: bool| {
        let [source, destination] = ANYBODY[usize::from(!v4)];
        let named = |groups: &[usize], anybody| match groups {
            [] => Some(anybody),
            groups => member(groups, v4),
        };
        Some((
            named(&policy.source, source)?,
            named(&policy.destination, destination)?,
        ))
    };
    // Groups may be empty, or of one family.
    let [source, destination] = ANYBODY[usize::from(!v4_first)];
    let (source, destination) = ends(v4_first)
        .or_else(|| ends(!v4_first))
        .unwrap_or((source, destination));
    let (protocol, port) = service(&live.ruleset, policy);
    let tuple = Tuple {
        source,
        destination,
        protocol,
        port,
    };
    (from, to, tuple)
}

/// An address that a group, or one within it, names in a family; found among the first that stand there, of which `left` may still
/// be looked at.
fn member(live: &Live, group: usize, v4: bool, left: &mut usize) -> Option<IpAddr> {
    let group = live.ruleset.groups.get(group)?;
    let visits = (*left).min(ADDRESSES / 4);
    *left = left.checked_sub(visits).filter(|_| visits > 0)?;
    let listed = match live.book.sample(&group.name, v4, visits) {
        // A dynamic group: the ruleset has what it began with.
        Some(member) => member.map(|member| member.address),
        None => {
            let addresses = group.members.iter().map(|member| member.address);
            addresses.take(visits).find(|address| address.is_ipv4() == v4)
        }
    };
    let nested = |left: &mut usize| {
        group
            .groups
            .iter()
            .find_map(|nested| member(live, *nested, v4, left))
    };
    listed.or_else(|| nested(left))
}

/// Protocol and port of the first service that the policy names.
fn service(ruleset: &Ruleset, policy: &Policy) -> (u8, u16) {
    let named = policy
        .service
        .iter()
        .filter_map(|index| ruleset.services.get(*index));
    let first = named.flat_map(|service| service.matches.first()).next();
    match first {
        None | Some(ServiceMatch::Any) => (protocol::UDP_LITE, PORT),
        Some(ServiceMatch::Protocol(protocol)) => (*protocol, 0),
        Some(ServiceMatch::Ports { protocol, first, .. }) => (*protocol, *first),
        Some(ServiceMatch::Icmp { protocol, kind, code }) => {
            (*protocol, u16::from(*kind) << 8 | u16::from(code.unwrap_or(0)))
        }
    }
}
