//! Address translation: rules of both directions, pools, and the addresses that translation owns.
//!
//! A static rule becomes a destination rule and a source rule in front of the configured ones. What they match are groups
//! of their own, numbered behind the named ones: the outside prefix of static rule `i`, then its inside prefix.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use bulkhead_abi::{
    MappingKey, NAT_ANSWERED, NatAction, NatAddressKey4, NatAddressKey6, NatFiltering, NatPool, NatRule,
    NatRuleKey, POOL_RANGES, PoolKey, RuleSet, STATIC_RULE, nat_flags, pool_flags,
};

use super::{
    Accepts, CompileError, CompiledRuleset, MAX_NAT_ADDRESSES, MAX_NAT_RULES, MAX_POOLS, Naming, aligned,
    mask, zone_number,
};
use crate::{
    address::words,
    ruleset::{Filtering, Pool, Prefix, Ruleset, SourceTranslation, StaticNat},
};

/// Most addresses of one family in one pool.
const MOST_ADDRESSES: u32 = 1 << 31;

/// Most addresses of destination rules that neighbours are answered for.
const MOST_NAMED: usize = 1024;

/// Ports where a pool does not translate them.
const ANY_PORTS: (u16, u16) = (0, u16::MAX);

/// Adds everything of translation to `compiled`. Wires have none.
pub(super) fn compile(
    ruleset: &Ruleset,
    naming: &mut Naming,
    compiled: &mut CompiledRuleset,
) -> Result<(), CompileError> {
    if !ruleset.wires.is_empty() {
        return Ok(());
    }
    let rules = ruleset.source_nat.len() + ruleset.destination_nat.len() + 2 * ruleset.static_nat.len();
    if rules > MAX_NAT_RULES {
        return Err(CompileError::TooManyNatRules(rules));
    }
    if ruleset.pools.len() > MAX_POOLS {
        return Err(CompileError::TooManyPools(ruleset.pools.len()));
    }
    for (index, rule) in ruleset.static_nat.iter().enumerate() {
        check(rule)?;
        let groups = ruleset.groups.len() + 2 * index;
        let number = index as u32;
        let accepts = Accepts {
            from: &rule.from,
            destination: &[groups],
            ..Accepts::default()
        };
        naming.enter(RuleSet::DestinationNat, number, &accepts);
        let value = prefix_rule(rule, &rule.outside, &rule.inside, number);
        enter(compiled, RuleSet::DestinationNat, number, value);
        let accepts = Accepts {
            to: &rule.from,
            source: &[groups + 1],
            ..Accepts::default()
        };
        naming.enter(RuleSet::SourceNat, number, &accepts);
        let value = prefix_rule(rule, &rule.inside, &rule.outside, number);
        enter(compiled, RuleSet::SourceNat, number, value);
    }
    let first = ruleset.static_nat.len() as u32;
    destination_rules(ruleset, first, naming, compiled);
    source_rules(ruleset, first, naming, compiled);
    for (number, pool) in (0..).zip(&ruleset.pools) {
        for v4 in [true, false] {
            compile_pool(pool, number, v4, compiled)?;
        }
    }
    compile_addresses(ruleset, compiled);
    let prefixes = compiled.nat_addresses4.len().max(compiled.nat_addresses6.len());
    if prefixes > MAX_NAT_ADDRESSES {
        return Err(CompileError::TooManyNatAddresses(prefixes));
    }
    compiled.settings.nat = flags(compiled);
    if ruleset.silent_nat {
        compiled.settings.nat &= !nat_flags::ANSWER;
    }
    Ok(())
}

fn enter(compiled: &mut CompiledRuleset, set: RuleSet, rule: u32, value: NatRule) {
    let key = NatRuleKey {
        generation: compiled.generation,
        set: set as u32,
        rule,
    };
    compiled.nat_rules.push((key, value));
}

/// What there is, so that packets ask for nothing else.
fn flags(compiled: &CompiledRuleset) -> u64 {
    let mut flags = 0;
    for (key, rule) in &compiled.nat_rules {
        flags |= if key.set == RuleSet::SourceNat as u32 {
            nat_flags::SOURCE
        } else {
            nat_flags::DESTINATION
        };
        if rule.filtering != NatFiltering::None as u8 {
            flags |= nat_flags::PERSISTENT;
        }
    }
    if !compiled.nat_addresses4.is_empty() || !compiled.nat_addresses6.is_empty() {
        flags |= nat_flags::ADDRESSES | nat_flags::ANSWER;
    }
    flags
}

fn destination_rules(ruleset: &Ruleset, first: u32, naming: &mut Naming, compiled: &mut CompiledRuleset) {
    for (index, rule) in (0..).zip(&ruleset.destination_nat) {
        let accepts = Accepts {
            from: &rule.from,
            to: &[],
            source: &rule.source,
            destination: &rule.destination,
            service: &rule.service,
        };
        naming.enter(RuleSet::DestinationNat, first + index, &accepts);
        let value = NatRule {
            rule: index,
            pool: rule.pool.map_or(0, |pool| pool as u32),
            action: rule.pool.map_or(NatAction::Off, |_| NatAction::Pool) as u8,
            ..NatRule::default()
        };
        enter(compiled, RuleSet::DestinationNat, first + index, value);
    }
}

fn source_rules(ruleset: &Ruleset, first: u32, naming: &mut Naming, compiled: &mut CompiledRuleset) {
    let identities = identities(&ruleset.pools);
    for (index, rule) in (0..).zip(&ruleset.source_nat) {
        let accepts = Accepts {
            from: &rule.from,
            to: &rule.to,
            source: &rule.source,
            destination: &rule.destination,
            service: &rule.service,
        };
        naming.enter(RuleSet::SourceNat, first + index, &accepts);
        let mut value = NatRule {
            rule: index,
            ..NatRule::default()
        };
        match rule.translation {
            SourceTranslation::Off => value.action = NatAction::Off as u8,
            SourceTranslation::Interface => value.action = NatAction::Interface as u8,
            SourceTranslation::Pool(pool) => {
                value.action = NatAction::Pool as u8;
                value.pool = pool as u32;
                value.identity = identities.get(pool).copied().unwrap_or(0);
            }
        }
        if let (Some((filtering, timeout)), true) =
            (&rule.persistent, rule.translation != SourceTranslation::Off)
        {
            value.filtering = match filtering {
                Filtering::AnyRemoteHost => NatFiltering::AnyRemoteHost,
                Filtering::TargetHost => NatFiltering::TargetHost,
                Filtering::TargetHostPort => NatFiltering::TargetHostPort,
            } as u8;
            value.timeout_s = u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX);
        }
        enter(compiled, RuleSet::SourceNat, first + index, value);
    }
}

/// A number per pool that stays the same as long as its name does (FNV-1a), whatever its place in the configuration.
fn identities(pools: &[Pool]) -> Vec<u32> {
    let mut taken = Vec::new();
    for pool in pools {
        let hash = pool.name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        let mut identity = (hash & !MappingKey::INTERFACE).max(1);
        while taken.contains(&identity) {
            identity = (identity + 1) & !MappingKey::INTERFACE;
            identity = identity.max(1);
        }
        taken.push(identity);
    }
    taken
}

/// One direction of a static rule.
fn prefix_rule(rule: &StaticNat, from: &Prefix, to: &Prefix, index: u32) -> NatRule {
    let v4 = from.address.is_ipv4();
    let (to_bits, length) = aligned(to);
    let (from_bits, _) = aligned(from);
    let mut value = NatRule {
        rule: STATIC_RULE | index,
        action: NatAction::Prefix as u8,
        mask_be: table_words(mask(length), v4),
        to_be: table_words(to_bits, v4),
        ..NatRule::default()
    };
    if rule.npt {
        value.action = NatAction::Npt as u8;
        value.word = if length <= 48 { 3 } else { 4 };
        // RFC 6296, section 3.1: what leaves the sum less what enters it, so that adding it changes nothing.
        let difference = u32::from(sum(from_bits)) + u32::from(!sum(to_bits));
        let folded = (difference & 0xffff) + (difference >> 16);
        value.adjustment = (folded as u16).to_be();
    }
    value
}

/// One's-complement sum of the words of an address.
fn sum(bits: u128) -> u16 {
    let mut sum: u32 = (0..8).map(|word| u32::from((bits >> (word * 16)) as u16)).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Left-aligned bits as the tables hold an address.
fn table_words(bits: u128, v4: bool) -> [u32; 4] {
    if v4 {
        [((bits >> 96) as u32).to_be(), 0, 0, 0]
    } else {
        words(IpAddr::V6(bits.into()))
    }
}

/// Whether a static rule's prefixes fit each other.
fn check(rule: &StaticNat) -> Result<(), CompileError> {
    let fail = |reason| CompileError::StaticNat {
        name: rule.name.clone(),
        reason,
    };
    if rule.outside.address.is_ipv4() != rule.inside.address.is_ipv4() {
        return Err(fail(
            "one prefix is IPv4 and the other IPv6; give both of one family",
        ));
    }
    if rule.outside.length != rule.inside.length {
        return Err(fail("the prefixes differ in length; give both the same"));
    }
    if rule.npt && rule.outside.address.is_ipv4() {
        return Err(fail("RFC 6296 is for IPv6; leave `npt` out"));
    }
    if rule.npt && rule.outside.length > 64 {
        return Err(fail(
            "RFC 6296 needs the last 64 bits of an address to itself; give prefixes of at most 64 bits, or leave `npt` out",
        ));
    }
    Ok(())
}

/// The addresses of one family in a pool.
fn compile_pool(
    pool: &Pool,
    number: u32,
    v4: bool,
    compiled: &mut CompiledRuleset,
) -> Result<(), CompileError> {
    let ranges: Vec<_> = pool
        .ranges
        .iter()
        .filter(|(first, _)| first.is_ipv4() == v4)
        .collect();
    if ranges.is_empty() {
        return Ok(());
    }
    if ranges.len() > POOL_RANGES {
        return Err(CompileError::TooManyRanges {
            name: pool.name.clone(),
            count: ranges.len(),
        });
    }
    let (first_port, last_port) = pool.ports.unwrap_or(ANY_PORTS);
    let mut value = NatPool {
        first_port,
        last_port,
        port: pool.port.unwrap_or(0),
        before: [u32::MAX; POOL_RANGES],
        ..NatPool::default()
    };
    if pool.paired {
        value.flags |= pool_flags::PAIRED;
    }
    if pool.ports.is_none() {
        value.flags |= pool_flags::KEEP_PORTS;
    }
    let mut used = 0;
    for (first, last) in ranges {
        let size = u32::try_from(addresses(first, last)).unwrap_or(u32::MAX);
        let size = size.min(MOST_ADDRESSES - value.count);
        if size == 0 {
            continue;
        }
        value.before[used] = value.count;
        value.first_be[used] = words(*first);
        value.count += size;
        used += 1;
    }
    if value.count != 0 {
        let key = PoolKey {
            generation: compiled.generation,
            pool: number,
            family: if v4 { 4 } else { 6 },
        };
        compiled.pools.push((key, value));
    }
    Ok(())
}

/// Addresses from `first` to `last`, none if they are the wrong way round.
pub(crate) fn addresses(first: &IpAddr, last: &IpAddr) -> u128 {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            (u128::from(u32::from(*last)) + 1).saturating_sub(u128::from(u32::from(*first)))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => u128::from(*last)
            .checked_sub(u128::from(*first))
            .map_or(0, |size| size.saturating_add(1)),
        _ => 0,
    }
}

/// The fewest prefixes that cover a range, as left-aligned bits and length.
fn prefixes(first: &IpAddr, last: &IpAddr) -> Vec<(u128, u8)> {
    let (width, mut at, end) = match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            (32, u128::from(u32::from(*first)), u128::from(u32::from(*last)))
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => (128, u128::from(*first), u128::from(*last)),
        _ => return Vec::new(),
    };
    let mut prefixes = Vec::new();
    while at <= end {
        // The largest block that begins here and does not end beyond.
        let aligned = if at == 0 {
            width
        } else {
            at.trailing_zeros().min(width)
        };
        let rest = end - at;
        let fits = rest.checked_add(1).map_or(width, |size| size.ilog2().min(width));
        let size = aligned.min(fits);
        prefixes.push((at.checked_shl(128 - width).unwrap_or(0), (width - size) as u8));
        match 1_u128.checked_shl(size).and_then(|size| at.checked_add(size)) {
            Some(next) => at = next,
            None => break,
        }
    }
    prefixes
}

/// The prefixes that translation owns, each with its zones and those of the prefixes around it.
fn compile_addresses(ruleset: &Ruleset, compiled: &mut CompiledRuleset) {
    let every = (0..ruleset.zones.len()).fold(0, |zones, index| zones | bit(index));
    let zones = |named: &[usize]| match named {
        [] => every,
        named => named.iter().fold(0, |zones, index| zones | bit(*index)),
    };
    let mut owned: BTreeMap<(bool, u128, u8), u64> = BTreeMap::new();
    for rule in &ruleset.static_nat {
        let (bits, length) = aligned(&rule.outside);
        let v4 = rule.outside.address.is_ipv4();
        *owned.entry((v4, bits, length)).or_default() |= zones(&rule.from);
    }
    for rule in &ruleset.source_nat {
        let SourceTranslation::Pool(pool) = rule.translation else {
            continue;
        };
        for (first, last) in ruleset.pools.get(pool).into_iter().flat_map(|pool| &pool.ranges) {
            for (bits, length) in prefixes(first, last) {
                *owned.entry((first.is_ipv4(), bits, length)).or_default() |= zones(&rule.to);
            }
        }
    }
    let generation = compiled.generation;
    let mut around: Vec<((bool, u128, u8), u64)> = Vec::new();
    for ((v4, bits, length), own) in owned {
        while let Some(((outer_v4, outer, outer_length), _)) = around.last() {
            if *outer_v4 == v4 && bits & mask(*outer_length) == *outer {
                break;
            }
            around.pop();
        }
        let zones = own | around.last().map_or(0, |(_, zones)| *zones);
        enter_address(compiled, generation, v4, bits, length, zones);
        around.push(((v4, bits, length), zones));
    }
    for ((v4, bits), zones) in named(ruleset, &zones) {
        let (length, entered) = if v4 {
            (32, compiled.nat_addresses4.len())
        } else {
            (128, compiled.nat_addresses6.len())
        };
        // Nobody is refused a configuration because of these.
        if entered < MAX_NAT_ADDRESSES {
            enter_address(compiled, generation | NAT_ANSWERED, v4, bits, length, zones);
        }
    }
}

/// The single addresses that destination rules name, with their zones: at most [`MOST_NAMED`].
///
/// A prefix usually says whose traffic a rule takes, not whose addresses are free; so do groups that except something, and
/// those that change without a commit. They are left to routes.
fn named(ruleset: &Ruleset, zones: &impl Fn(&[usize]) -> u64) -> BTreeMap<(bool, u128), u64> {
    let mut named = BTreeMap::new();
    for rule in ruleset.destination_nat.iter().filter(|rule| rule.pool.is_some()) {
        let mut waiting = rule.destination.clone();
        let mut seen = BTreeSet::new();
        while let Some(index) = waiting.pop() {
            let Some(group) = ruleset.groups.get(index).filter(|_| seen.insert(index)) else {
                continue;
            };
            if group.dynamic || !group.except.is_empty() || !group.except_groups.is_empty() {
                continue;
            }
            waiting.extend(&group.groups);
            for member in &group.members {
                let v4 = member.address.is_ipv4();
                let (bits, length) = aligned(member);
                if length != if v4 { 32 } else { 128 } {
                    continue;
                }
                if named.len() == MOST_NAMED && !named.contains_key(&(v4, bits)) {
                    return named;
                }
                *named.entry((v4, bits)).or_default() |= zones(&rule.from);
            }
        }
    }
    named
}

fn enter_address(
    compiled: &mut CompiledRuleset,
    generation: u32,
    v4: bool,
    bits: u128,
    length: u8,
    zones: u64,
) {
    let trie_bits = 32 + u32::from(length);
    if v4 {
        let key = NatAddressKey4 {
            bits: trie_bits,
            generation,
            address_be: table_words(bits, true)[0],
        };
        compiled.nat_addresses4.push((key, zones));
    } else {
        let key = NatAddressKey6 {
            bits: trie_bits,
            generation,
            address_be: table_words(bits, false),
        };
        compiled.nat_addresses6.push((key, zones));
    }
}

/// The bit of a zone given by index.
fn bit(index: usize) -> u64 {
    1 << zone_number(index)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ruleset::{DestinationNat, Group, SourceNat, Wire, Zone};

    /// Without the addresses.
    fn compile(
        ruleset: &Ruleset,
        generation: u32,
        indices: &[Option<u32>],
    ) -> Result<CompiledRuleset, CompileError> {
        crate::compile::compile(ruleset, generation, indices).map(|(compiled, _)| compiled)
    }

    fn prefix(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').expect("a prefix");
        Prefix {
            address: address.parse().expect("an address"),
            length: length.parse().expect("a length"),
        }
    }

    fn range(first: &str, last: &str) -> (IpAddr, IpAddr) {
        (
            first.parse().expect("an address"),
            last.parse().expect("an address"),
        )
    }

    fn zones(count: usize) -> Vec<Zone> {
        vec![Zone::default(); count]
    }

    #[test]
    fn a_range_is_covered_by_the_fewest_prefixes() {
        let covering = |first: &str, last: &str| {
            let (first, last) = range(first, last);
            let text = |(bits, length): &(u128, u8)| match first {
                IpAddr::V4(_) => format!("{}/{length}", std::net::Ipv4Addr::from((bits >> 96) as u32)),
                IpAddr::V6(_) => format!("{}/{length}", std::net::Ipv6Addr::from(*bits)),
            };
            prefixes(&first, &last).iter().map(text).collect::<Vec<_>>()
        };
        assert_eq!(covering("10.0.0.1", "10.0.0.1"), ["10.0.0.1/32"]);
        assert_eq!(covering("0.0.0.0", "255.255.255.255"), ["0.0.0.0/0"]);
        assert_eq!(
            covering("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
            ["::/0"]
        );
        assert_eq!(
            covering("10.0.0.5", "10.0.0.17"),
            ["10.0.0.5/32", "10.0.0.6/31", "10.0.0.8/29", "10.0.0.16/31"]
        );
        assert_eq!(
            covering("2001:db8::ffff", "2001:db8::1:0"),
            ["2001:db8::ffff/128", "2001:db8::1:0/128"]
        );
        assert_eq!(
            covering("255.255.255.254", "255.255.255.255"),
            ["255.255.255.254/31"]
        );
        assert!(covering("10.0.0.2", "10.0.0.1").is_empty());
    }

    #[test]
    fn static_rules_stand_in_front_and_say_so() {
        let ruleset = Ruleset {
            zones: zones(2),
            static_nat: vec![StaticNat {
                name: "s".into(),
                from: vec![1],
                outside: prefix("203.0.113.64/28"),
                inside: prefix("10.0.0.64/28"),
                npt: false,
            }],
            source_nat: vec![SourceNat {
                translation: SourceTranslation::Interface,
                persistent: Some((Filtering::TargetHost, Duration::from_secs(300))),
                ..SourceNat::default()
            }],
            destination_nat: vec![DestinationNat::default()],
            ..Ruleset::default()
        };
        let compiled = compile(&ruleset, 3, &[]).expect("it fits");
        let rules: Vec<_> = compiled
            .nat_rules
            .iter()
            .map(|(key, rule)| (key.set, key.rule, rule.rule, rule.action))
            .collect();
        let (source, destination) = (RuleSet::SourceNat as u32, RuleSet::DestinationNat as u32);
        assert_eq!(
            rules,
            [
                (destination, 0, STATIC_RULE, NatAction::Prefix as u8),
                (source, 0, STATIC_RULE, NatAction::Prefix as u8),
                (destination, 1, 0, NatAction::Off as u8),
                (source, 1, 0, NatAction::Interface as u8),
            ]
        );
        let configured = compiled.nat_rules[3].1;
        assert_eq!(
            (configured.filtering, configured.timeout_s),
            (NatFiltering::TargetHost as u8, 300)
        );
        assert_eq!(
            compiled.settings.nat,
            nat_flags::SOURCE
                | nat_flags::DESTINATION
                | nat_flags::PERSISTENT
                | nat_flags::ADDRESSES
                | nat_flags::ANSWER
        );
        let silent = Ruleset {
            silent_nat: true,
            ..ruleset.clone()
        };
        let silent = compile(&silent, 3, &[]).expect("it fits").settings.nat;
        assert_eq!(silent, compiled.settings.nat & !nat_flags::ANSWER);
        assert_eq!(compiled.nat_addresses4.len(), 1);
        assert_eq!(
            compiled.nat_addresses4[0].1,
            1 << 2,
            "the zone outside, numbered from 1"
        );
        let wired = Ruleset {
            wires: vec![Wire::default()],
            ..ruleset
        };
        assert_eq!(compile(&wired, 3, &[]).expect("it fits").settings.nat, 0);
    }

    /// The adjustment of RFC 6296's example, both ways.
    #[test]
    fn the_adjustment_balances_the_prefixes() {
        let rule = StaticNat {
            name: "n".into(),
            from: vec![],
            outside: prefix("2001:db8:1::/48"),
            inside: prefix("fd01:203:405::/48"),
            npt: true,
        };
        let out = prefix_rule(&rule, &rule.inside, &rule.outside, 0);
        let back = prefix_rule(&rule, &rule.outside, &rule.inside, 0);
        assert_eq!(out.adjustment, 0xd54f_u16.to_be());
        assert_eq!(back.adjustment, !0xd54f_u16.to_be());
        assert_eq!((out.word, out.action), (3, NatAction::Npt as u8));
    }

    #[test]
    fn nested_prefixes_belong_to_the_zones_around_them_too() {
        let pool = |first: &str, last: &str| Pool {
            ranges: vec![range(first, last)],
            ..Pool::default()
        };
        let rule = |pool, zone| SourceNat {
            to: vec![zone],
            translation: SourceTranslation::Pool(pool),
            ..SourceNat::default()
        };
        let ruleset = Ruleset {
            zones: zones(3),
            pools: vec![
                pool("203.0.113.0", "203.0.113.255"),
                pool("203.0.113.16", "203.0.113.17"),
                pool("203.0.114.0", "203.0.114.0"),
            ],
            source_nat: vec![rule(0, 0), rule(1, 1), rule(2, 2)],
            ..Ruleset::default()
        };
        let compiled = compile(&ruleset, 1, &[]).expect("it fits");
        let owned: Vec<_> = compiled
            .nat_addresses4
            .iter()
            .map(|(key, zones)| (key.bits - 32, *zones))
            .collect();
        assert_eq!(owned, [(24, 0b0010), (31, 0b0110), (32, 0b1000)]);
    }

    #[test]
    fn single_addresses_of_destination_rules_are_answered_for_and_not_owned() {
        let rule = |pool, destination: &[usize], zone| DestinationNat {
            from: vec![zone],
            destination: destination.to_vec(),
            pool,
            ..DestinationNat::default()
        };
        let group = |members: &[&str]| Group {
            members: members.iter().map(|text| prefix(text)).collect(),
            ..Group::default()
        };
        let ruleset = Ruleset {
            zones: zones(3),
            groups: vec![
                group(&["203.0.113.7/32", "2001:db8::7/128", "203.0.113.0/24"]),
                group(&["203.0.113.8/32"]),
                Group {
                    groups: vec![0],
                    ..Group::default()
                },
                Group {
                    dynamic: true,
                    ..group(&["203.0.113.9/32"])
                },
                Group {
                    except: vec![prefix("203.0.113.11/32")],
                    ..group(&["203.0.113.10/32", "203.0.113.11/32"])
                },
            ],
            pools: vec![Pool::default()],
            destination_nat: vec![
                rule(Some(0), &[0], 0),
                rule(Some(0), &[2, 3, 4], 2),
                rule(Some(0), &[], 1),
                rule(None, &[1], 1),
            ],
            ..Ruleset::default()
        };
        let compiled = compile(&ruleset, 5, &[]).expect("it fits");
        let (key4, zones4) = compiled.nat_addresses4[0];
        let (key6, zones6) = compiled.nat_addresses6[0];
        assert_eq!(
            (compiled.nat_addresses4.len(), compiled.nat_addresses6.len()),
            (1, 1)
        );
        assert_eq!(
            (key4.bits, key4.generation, zones4),
            (64, 5 | NAT_ANSWERED, 0b1010)
        );
        assert_eq!(
            (key6.bits, key6.generation, zones6),
            (160, 5 | NAT_ANSWERED, 0b1010)
        );
    }

    #[test]
    fn a_long_list_of_published_addresses_is_cut_and_not_refused() {
        let members = (0..100_000_u32).map(|number| Prefix {
            address: IpAddr::V4((0x0a00_0000 + number).into()),
            length: 32,
        });
        let ruleset = Ruleset {
            zones: zones(1),
            groups: vec![Group {
                members: members.collect(),
                ..Group::default()
            }],
            pools: vec![Pool::default()],
            destination_nat: vec![DestinationNat {
                destination: vec![0],
                pool: Some(0),
                ..DestinationNat::default()
            }],
            ..Ruleset::default()
        };
        let zones = |_: &[usize]| 2;
        let named = named(&ruleset, &zones);
        assert_eq!(named.len(), MOST_NAMED);
        assert!(named.values().all(|zones| *zones == 2));
    }

    #[test]
    fn a_pool_that_does_not_fit_is_refused_and_a_vast_one_cut() {
        let nine: Vec<_> = (0..9)
            .map(|n| range(&format!("10.0.{n}.1"), &format!("10.0.{n}.1")))
            .collect();
        let pool = |ranges| Ruleset {
            pools: vec![Pool {
                name: "p".into(),
                ranges,
                ..Pool::default()
            }],
            ..Ruleset::default()
        };
        let error = compile(&pool(nine), 1, &[]).expect_err("nine ranges");
        assert_eq!(
            error.to_string(),
            "pool p: 9 ranges of one address family are more than the 8 that a pool holds"
        );
        let vast = range("2001:db8::", "2001:db8::ffff:ffff:ffff:ffff");
        let compiled = compile(&pool(vec![vast, vast]), 1, &[]).expect("it fits");
        let (key, value) = compiled.pools[0];
        assert_eq!((key.family, value.count), (6, MOST_ADDRESSES));
        assert_eq!(value.before[..2], [0, u32::MAX]);
    }

    #[test]
    fn more_than_the_tables_hold_is_refused_in_words() {
        let refused = |ruleset: &Ruleset| compile(ruleset, 1, &[]).err().map(|error| error.to_string());
        let mut ruleset = Ruleset {
            zones: zones(1),
            source_nat: vec![SourceNat::default(); MAX_NAT_RULES],
            ..Ruleset::default()
        };
        assert_eq!(refused(&ruleset), None);
        ruleset.destination_nat.push(DestinationNat::default());
        assert_eq!(
            refused(&ruleset).as_deref(),
            Some("32769 NAT rules (static ones count twice) are more than the 32768 that the tables hold")
        );
        let pool = |ranges: &[(IpAddr, IpAddr)]| Pool {
            ranges: ranges.to_vec(),
            ..Pool::default()
        };
        let many = Ruleset {
            pools: vec![pool(&[]); MAX_POOLS + 1],
            ..Ruleset::default()
        };
        assert_eq!(
            refused(&many),
            Some("1025 NAT pools are more than the 1024 that the tables hold".into())
        );
        // Ranges that begin and end at odd addresses take the most prefixes.
        let odd = |pool: u16, range: u16| {
            let end = |last: u16| std::net::Ipv6Addr::new(0x2001, pool, range, 0, 0, 0, 0, last);
            let first = end(1);
            let last = std::net::Ipv6Addr::new(0x2001, pool, range, 0x7fff, 0xffff, 0xffff, 0xffff, 0xfffe);
            (IpAddr::V6(first), IpAddr::V6(last))
        };
        let pools: Vec<Pool> = (0..300)
            .map(|number| pool(&[odd(number, 0), odd(number, 1)]))
            .collect();
        let rule = |pool| SourceNat {
            translation: SourceTranslation::Pool(pool),
            ..SourceNat::default()
        };
        let shredded = Ruleset {
            zones: zones(1),
            source_nat: (0..pools.len()).map(rule).collect(),
            pools,
            ..Ruleset::default()
        };
        let message = refused(&shredded).expect("too many prefixes");
        assert!(message.contains("powers of two"), "{message}");
    }

    #[test]
    fn static_prefixes_that_do_not_fit_each_other_are_refused() {
        let refused = |outside: &str, inside: &str, npt| {
            let rule = StaticNat {
                name: "s".into(),
                from: vec![],
                outside: prefix(outside),
                inside: prefix(inside),
                npt,
            };
            let ruleset = Ruleset {
                static_nat: vec![rule],
                ..Ruleset::default()
            };
            compile(&ruleset, 1, &[]).err().map(|error| error.to_string())
        };
        assert_eq!(refused("203.0.113.0/24", "10.0.0.0/24", false), None);
        assert_eq!(refused("2001:db8::/64", "fd00::/64", true), None);
        for (outside, inside, npt, what) in [
            ("203.0.113.0/24", "fd00::/24", false, "family"),
            ("203.0.113.0/24", "10.0.0.0/25", false, "length"),
            ("203.0.113.0/24", "10.0.0.0/24", true, "leave `npt` out"),
            ("2001:db8::/65", "fd00::/65", true, "at most 64"),
        ] {
            let message = refused(outside, inside, npt).expect(what);
            assert!(
                message.starts_with("static NAT s: ") && message.contains(what),
                "{message}"
            );
        }
    }

    #[test]
    fn pools_keep_their_identity_when_they_move() {
        let pool = |name: &str| Pool {
            name: name.into(),
            ..Pool::default()
        };
        let one = identities(&[pool("a"), pool("b")]);
        let other = identities(&[pool("b"), pool("c"), pool("a")]);
        assert_eq!((one[0], one[1]), (other[2], other[0]));
        assert!(one.iter().all(|id| *id != 0 && id & MappingKey::INTERFACE == 0));
    }
}
