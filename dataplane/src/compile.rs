//! From a [`Ruleset`] to the entries of the policy tables: a pure function.
//!
//! Addresses become classes (one per distinct set of groups that actually occurs), services likewise; every rule sets
//! one bit per dimension and class that it accepts. Memory grows with the members and with the rules' references, never
//! with their product: what accepts anything stands once, in the "any" vector of its dimension. Policies and both sorts of
//! NAT rules are rule sets of one kind.

mod nat;
mod screens;
mod tcp;
pub(crate) mod timeouts;

pub(crate) use nat::addresses;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use bulkhead_abi::{
    Dimension, HostKey4, HostKey6, LimitRule, LimitRuleKey, MAX_ZONES, NatPool, NatRule, NatRuleKey,
    POOL_RANGES, PolicyAction, PolicyKey, PolicyRule, PoolKey, PrefixKey4, PrefixKey6, RULES_PER_PAGE,
    RulePage, RuleSet, ScanLimit, ScreenProfile, ServiceKey, Settings, TimeoutKey, VectorKey, WORDS_PER_PAGE,
    ZoneKey, log_flags,
};

use crate::{
    membership::nesting::{Cycle, Nesting, Walk},
    ruleset::{Action, Prefix, Ruleset, ServiceMatch},
};

/// Most rules of one generation, implicit ones included: 64 pages.
pub const MAX_RULES: usize = 64 * RULES_PER_PAGE as usize;

/// Most NAT rules of one generation, of which the tables hold two.
pub const MAX_NAT_RULES: usize = 32_768;
/// Most pools.
pub const MAX_POOLS: usize = 1_024;
/// Most prefixes per family that translation owns.
pub const MAX_NAT_ADDRESSES: usize = 32_768;

/// Why a ruleset does not fit the tables.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CompileError {
    /// Too many rules.
    #[error("{0} rules (hostInbound included) are more than the {MAX_RULES} that the tables hold")]
    TooManyRules(usize),
    /// Too many zones.
    #[error("{0} zones are more than the {MAX_ZONES} that the tables hold")]
    TooManyZones(usize),
    /// A group within itself.
    #[error(transparent)]
    Groups(#[from] Cycle),
    /// A scan that cannot be recognised.
    #[error(
        "screen {profile}: {screen} of {count} targets in {interval:?}: at most {max} targets can be told apart, in less \
         than 4.2 s",
        max = ScanLimit::MAX_TARGETS
    )]
    Scan {
        /// The screen profile's name.
        profile: String,
        /// The screen.
        screen: &'static str,
        /// Targets.
        count: u32,
        /// Time.
        interval: std::time::Duration,
    },
    /// Too many NAT rules.
    #[error("{0} NAT rules (static ones count twice) are more than the {MAX_NAT_RULES} that the tables hold")]
    TooManyNatRules(usize),
    /// Too many pools.
    #[error("{0} NAT pools are more than the {MAX_POOLS} that the tables hold")]
    TooManyPools(usize),
    /// Too many prefixes that translation owns.
    #[error(
        "NAT pools, static and destination rules have addresses in {0} prefixes of one family, more than the {MAX_NAT_ADDRESSES} that \
         the tables hold; give ranges that begin and end at powers of two"
    )]
    TooManyNatAddresses(usize),
    /// A pool in too many pieces.
    #[error(
        "pool {name}: {count} ranges of one address family are more than the {POOL_RANGES} that a pool holds"
    )]
    TooManyRanges {
        /// The pool's name.
        name: String,
        /// Its ranges of that family.
        count: usize,
    },
    /// A static rule whose prefixes do not fit each other.
    #[error("static NAT {name}: {reason}")]
    StaticNat {
        /// The rule's name.
        name: String,
        /// What does not fit.
        reason: &'static str,
    },
}

/// One generation's entries, table by table. The names are those of [`crate::bpf::KernelMaps`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompiledRuleset {
    /// The generation all keys carry.
    pub generation: u32,
    /// Settings of the generation.
    pub settings: Settings,
    /// Interface to zone.
    pub zones: Vec<(ZoneKey, u32)>,
    /// Exact IPv4 hosts.
    pub hosts4: Vec<(HostKey4, u32)>,
    /// Exact IPv6 hosts.
    pub hosts6: Vec<(HostKey6, u32)>,
    /// IPv4 prefixes.
    pub prefixes4: Vec<(PrefixKey4, u32)>,
    /// IPv6 prefixes.
    pub prefixes6: Vec<(PrefixKey6, u32)>,
    /// Services.
    pub services: Vec<(ServiceKey, u32)>,
    /// Pages in use per rule vector.
    pub vector_tops: Vec<(VectorKey, u64)>,
    /// Pages.
    pub vector_pages: Vec<(VectorKey, RulePage)>,
    /// Rules.
    pub rules: Vec<(PolicyKey, PolicyRule)>,
    /// NAT rules.
    pub nat_rules: Vec<(NatRuleKey, NatRule)>,
    /// Pools.
    pub pools: Vec<(PoolKey, NatPool)>,
    /// IPv4 prefixes that translation owns, to the zones in which.
    pub nat_addresses4: Vec<(PrefixKey4, u64)>,
    /// IPv6 prefixes that translation owns.
    pub nat_addresses6: Vec<(PrefixKey6, u64)>,
    // Screens.
    /// Screen profiles, by index.
    pub screens: Vec<(u32, ScreenProfile)>,
    // Ageing and limits.
    /// Timeouts of services, s.
    pub service_timeouts: Vec<(TimeoutKey, u32)>,
    /// Limits of sessions by zone.
    pub limit_rules: Vec<(LimitRuleKey, LimitRule)>,
}

/// Numbers the distinct sets of groups (or services) that occur. Class 0 is the empty set.
#[derive(Default)]
struct Classes {
    numbers: HashMap<Vec<u32>, u32>,
    /// For each group, the classes whose set has it.
    of_group: HashMap<u32, Vec<u32>>,
}

impl Classes {
    /// The class of a sorted set.
    fn number(&mut self, set: Vec<u32>) -> u32 {
        if set.is_empty() {
            return 0;
        }
        let next = self.numbers.len() as u32 + 1;
        match self.numbers.entry(set) {
            std::collections::hash_map::Entry::Occupied(entry) => *entry.get(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                for group in entry.key() {
                    self.of_group.entry(*group).or_default().push(next);
                }
                *entry.insert(next)
            }
        }
    }

    /// The classes that have any of `groups`.
    fn of(&self, groups: &[usize]) -> Vec<u32> {
        let mut classes: Vec<u32> = groups
            .iter()
            .filter_map(|group| self.of_group.get(&(*group as u32)))
            .flatten()
            .copied()
            .collect();
        classes.sort_unstable();
        classes.dedup();
        classes
    }
}

/// The classes of everything that rules name.
struct AllClasses {
    addresses: Classes,
    services: Classes,
}

/// What a rule accepts, by indices of the ruleset; an empty list means anything.
#[derive(Clone, Copy, Default)]
struct Accepts<'a> {
    from: &'a [usize],
    to: &'a [usize],
    source: &'a [usize],
    destination: &'a [usize],
    service: &'a [usize],
}

/// The rule vectors under construction.
#[derive(Default)]
struct Vectors {
    pages: BTreeMap<(u16, u32, u16), RulePage>,
}

impl Vectors {
    fn accept(&mut self, dimension: u16, class: u32, rule: u32) {
        let page = (rule / RULES_PER_PAGE) as u16;
        let within = rule % RULES_PER_PAGE;
        let (word, bit) = ((within / 64) as usize, within % 64);
        let entry = self.pages.entry((dimension, class, page)).or_insert(RulePage {
            summary: 0,
            words: [0; WORDS_PER_PAGE],
        });
        entry.words[word] |= 1 << bit;
        entry.summary |= 1 << word;
    }

    /// Accepts `classes`, or anything if `any`.
    fn accept_all(&mut self, dimension: u16, any: bool, classes: &[u32], rule: u32) {
        if any {
            self.accept(dimension, VectorKey::ANY, rule);
        } else {
            for class in classes {
                self.accept(dimension, *class, rule);
            }
        }
    }

    /// Enters rule number `rule` of a set.
    fn enter(&mut self, set: RuleSet, rule: u32, accepts: &Accepts<'_>, classes: &AllClasses) {
        let (addresses, services) = (&classes.addresses, &classes.services);
        for (dimension, named, accepted) in [
            (Dimension::FromZone, accepts.from, zone_numbers(accepts.from)),
            (Dimension::ToZone, accepts.to, zone_numbers(accepts.to)),
            (Dimension::Source, accepts.source, addresses.of(accepts.source)),
            (
                Dimension::Destination,
                accepts.destination,
                addresses.of(accepts.destination),
            ),
            (Dimension::Service, accepts.service, services.of(accepts.service)),
        ] {
            let dimension = VectorKey::dimension_of(set, dimension);
            self.accept_all(dimension, named.is_empty(), &accepted, rule);
        }
    }

    /// The pages and which of them are in use, as entries of a generation.
    fn finish(self, compiled: &mut CompiledRuleset) {
        let generation = compiled.generation;
        let key = |dimension, class, page| VectorKey {
            generation,
            class,
            dimension,
            page,
        };
        let mut tops: BTreeMap<(u16, u32), u64> = BTreeMap::new();
        for ((dimension, class, page), value) in self.pages {
            *tops.entry((dimension, class)).or_default() |= 1 << page;
            compiled.vector_pages.push((key(dimension, class, page), value));
        }
        for ((dimension, class), pages) in tops {
            compiled.vector_tops.push((key(dimension, class, 0), pages));
        }
    }
}

/// The table number of zone `index`.
fn zone_number(index: usize) -> u32 {
    index as u32 + 1
}

fn zone_numbers(zones: &[usize]) -> Vec<u32> {
    zones.iter().map(|zone| zone_number(*zone)).collect()
}

/// Compiles `ruleset` as `generation`. `interface_indices` gives the kernel's index of each of its interfaces, where it
/// exists.
///
/// # Errors
/// If it has more rules or zones than the tables hold.
pub fn compile(
    ruleset: &Ruleset,
    generation: u32,
    interface_indices: &[Option<u32>],
) -> Result<CompiledRuleset, CompileError> {
    let inbound = ruleset
        .zones
        .iter()
        .filter(|zone| !zone.host_inbound.is_empty())
        .count();
    let count = ruleset.policies.len() + inbound;
    if count > MAX_RULES {
        return Err(CompileError::TooManyRules(count));
    }
    let mut compiled = CompiledRuleset {
        generation,
        settings: settings(ruleset),
        screens: screens::compile(ruleset, generation)?,
        ..CompiledRuleset::default()
    };
    for (interface, index) in ruleset.interfaces.iter().zip(interface_indices) {
        if let Some(ifindex) = *index {
            compiled
                .zones
                .push((ZoneKey { generation, ifindex }, zone_number(interface.zone)));
        }
    }
    let classes = AllClasses {
        addresses: compile_addresses(ruleset, &mut compiled)?,
        services: compile_services(ruleset, &mut compiled),
    };
    let mut vectors = Vectors::default();
    compile_rules(ruleset, &classes, &mut vectors, &mut compiled);
    nat::compile(ruleset, &classes, &mut vectors, &mut compiled)?;
    vectors.finish(&mut compiled);
    timeouts::compile(ruleset, &classes.services, &mut compiled);
    Ok(compiled)
}

fn settings(ruleset: &Ruleset) -> Settings {
    let t = &ruleset.timeouts;
    let ns = |duration: std::time::Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Settings {
        // In the order of `SessionState`.
        timeouts_ns: [
            t.tcp_opening,
            t.tcp_opening,
            t.tcp_established,
            t.tcp_closing,
            t.tcp_closed,
            t.udp_one_way,
            t.udp_two_way,
            t.icmp,
            t.other,
            t.tcp_opening,
            t.tcp_closing,
            t.tcp_closing,
            t.tcp_opening,
            t.tcp_established,
        ]
        .map(ns),
        slow_path_rate: ruleset.answers_per_second,
        deny_event_rate: ruleset.deny_events_per_second,
        gateways: (u32::from(ruleset.gateways.ftp) * bulkhead_abi::gateways::FTP)
            | (u32::from(ruleset.gateways.tftp) * bulkhead_abi::gateways::TFTP),
        tcp_rules: tcp::rules(&ruleset.tcp),
        tcp_mss: tcp::largest_segment(&ruleset.tcp),
        reserved: 0,
        // What there is of translation is known when it is compiled.
        nat: 0,
    }
}

/// The first `length` of 128 bits.
fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

/// A prefix as (bits, length), left-aligned in 128 bits, so that both families sort and nest alike.
fn aligned(prefix: &Prefix) -> (u128, u8) {
    let bits = match prefix.address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => u128::from(address),
    };
    (bits & mask(prefix.length), prefix.length)
}

fn compile_addresses(ruleset: &Ruleset, compiled: &mut CompiledRuleset) -> Result<Classes, CompileError> {
    let nesting = Nesting::of(&ruleset.groups)?;
    let mut walk = Walk::default();
    let mut classes = Classes::default();
    let named = ruleset.groups.len() as u32;
    // By number: a group's members, what a group excepts, what static translation matches.
    let groups_with = |set: &[u32], walk: &mut Walk| {
        let first = set.partition_point(|list| *list < named);
        let (members, others) = set.split_at(first);
        let (except, fixed) = others.split_at(others.partition_point(|list| *list < 2 * named));
        let except: Vec<u32> = except.iter().map(|list| list - named).collect();
        let mut groups = nesting.groups_with(members.iter().copied(), &except, walk);
        groups.extend(fixed.iter().map(|list| list - named));
        groups
    };
    for v4 in [true, false] {
        // Distinct prefixes in the order of a walk through the trie: a prefix stands before what it covers.
        let mut members: BTreeMap<(u128, u8), Vec<u32>> = BTreeMap::new();
        let named = ruleset.groups.iter().map(|group| group.members.as_slice());
        let excepted = ruleset.groups.iter().map(|group| group.except.as_slice());
        let lists = named.chain(excepted).chain(nat::groups(ruleset));
        for (index, group) in lists.enumerate() {
            for prefix in group.iter().filter(|prefix| prefix.address.is_ipv4() == v4) {
                members.entry(aligned(prefix)).or_default().push(index as u32);
            }
        }
        // The prefixes around the current one, each with all groups it is in.
        let mut around: Vec<((u128, u8), Vec<u32>)> = Vec::new();
        for ((bits, length), own) in members {
            while let Some(((outer, outer_length), _)) = around.last() {
                if bits & mask(*outer_length) == *outer {
                    break;
                }
                around.pop();
            }
            let mut set = around.last().map(|(_, set)| set.clone()).unwrap_or_default();
            set.extend(own);
            set.sort_unstable();
            set.dedup();
            let class = classes.number(groups_with(&set, &mut walk));
            enter_prefix(compiled, v4, bits, length, class);
            around.push(((bits, length), set));
        }
    }
    Ok(classes)
}

fn enter_prefix(compiled: &mut CompiledRuleset, v4: bool, bits: u128, length: u8, class: u32) {
    let generation = compiled.generation;
    if v4 {
        let address_be = ((bits >> 96) as u32).to_be();
        if length == 32 {
            compiled.hosts4.push((
                HostKey4 {
                    generation,
                    address_be,
                },
                class,
            ));
        } else {
            compiled.prefixes4.push((
                PrefixKey4 {
                    bits: 32 + u32::from(length),
                    generation,
                    address_be,
                },
                class,
            ));
        }
    } else {
        let address_be = crate::address::words(IpAddr::V6(bits.into()));
        if length == 128 {
            compiled.hosts6.push((
                HostKey6 {
                    generation,
                    address_be,
                },
                class,
            ));
        } else {
            compiled.prefixes6.push((
                PrefixKey6 {
                    bits: 32 + u32::from(length),
                    generation,
                    address_be,
                },
                class,
            ));
        }
    }
}

fn compile_services(ruleset: &Ruleset, compiled: &mut CompiledRuleset) -> Classes {
    let mut classes = Classes::default();
    // Services that accept everything; then, per protocol, those that accept all of it and those that accept a range.
    let mut everything = Vec::new();
    let mut whole: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
    let mut ranges: BTreeMap<u8, Vec<(u16, u16, u32)>> = BTreeMap::new();
    for (index, service) in ruleset.services.iter().enumerate() {
        let index = index as u32;
        for service_match in &service.matches {
            match *service_match {
                ServiceMatch::Any => everything.push(index),
                ServiceMatch::Protocol(protocol) => whole.entry(protocol).or_default().push(index),
                ServiceMatch::Ports {
                    protocol,
                    first,
                    last,
                } => {
                    ranges.entry(protocol).or_default().push((first, last, index));
                }
                ServiceMatch::Icmp { protocol, kind, code } => {
                    let kind = u16::from(kind) << 8;
                    let (first, last) = match code {
                        Some(code) => (kind | u16::from(code), kind | u16::from(code)),
                        None => (kind, kind | 0xff),
                    };
                    ranges.entry(protocol).or_default().push((first, last, index));
                }
            }
        }
    }
    let generation = compiled.generation;
    let sorted = |mut set: Vec<u32>| {
        set.sort_unstable();
        set.dedup();
        set
    };
    let everything = sorted(everything);
    if !everything.is_empty() {
        let class = classes.number(everything.clone());
        let key = ServiceKey {
            bits: 40,
            generation,
            reserved: 0,
            protocol: 0,
            port_be: 0,
        };
        compiled.services.push((key, class));
    }
    let mut protocols: Vec<u8> = whole.keys().chain(ranges.keys()).copied().collect();
    protocols.sort_unstable();
    protocols.dedup();
    for protocol in protocols {
        let mut base = everything.clone();
        base.extend(whole.get(&protocol).into_iter().flatten());
        let base = sorted(base);
        let class = classes.number(base.clone());
        let key = ServiceKey {
            bits: 48,
            generation,
            reserved: 0,
            protocol,
            port_be: 0,
        };
        compiled.services.push((key, class));
        let ranges = ranges.get(&protocol).map(Vec::as_slice).unwrap_or_default();
        for (first, last, inside) in elementary(ranges) {
            let mut set = base.clone();
            set.extend(inside);
            let class = classes.number(sorted(set));
            for (port, length) in port_prefixes(first, last) {
                let key = ServiceKey {
                    bits: 48 + length,
                    generation,
                    reserved: 0,
                    protocol,
                    port_be: port.to_be(),
                };
                compiled.services.push((key, class));
            }
        }
    }
    classes
}

/// Splits overlapping ranges into disjoint ones, each with the services it is in. Ranges in none are left out.
fn elementary(ranges: &[(u16, u16, u32)]) -> Vec<(u16, u16, Vec<u32>)> {
    let mut edges: Vec<u32> = ranges
        .iter()
        .flat_map(|(first, last, _)| [u32::from(*first), u32::from(*last) + 1])
        .collect();
    edges.sort_unstable();
    edges.dedup();
    // What begins and ends at each edge, so that one sweep keeps the set of open ranges.
    let mut starts: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut ends: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (first, last, service) in ranges {
        starts.entry(u32::from(*first)).or_default().push(*service);
        ends.entry(u32::from(*last) + 1).or_default().push(*service);
    }
    let mut open: BTreeMap<u32, usize> = BTreeMap::new();
    let mut out = Vec::new();
    for pair in edges.windows(2) {
        for service in ends.get(&pair[0]).into_iter().flatten() {
            if let Some(count) = open.get_mut(service) {
                *count -= 1;
                if *count == 0 {
                    open.remove(service);
                }
            }
        }
        for service in starts.get(&pair[0]).into_iter().flatten() {
            *open.entry(*service).or_default() += 1;
        }
        if !open.is_empty() {
            out.push((
                pair[0] as u16,
                (pair[1] - 1) as u16,
                open.keys().copied().collect(),
            ));
        }
    }
    out
}

/// The fewest prefixes of a port number that cover an inclusive range: (port, significant bits).
fn port_prefixes(first: u16, last: u16) -> Vec<(u16, u32)> {
    let mut prefixes = Vec::new();
    let (mut at, end) = (u32::from(first), u32::from(last) + 1);
    while at < end {
        let aligned = if at == 0 { 16 } else { at.trailing_zeros() };
        let fits = 31 - (end - at).leading_zeros();
        let size = aligned.min(fits).min(16);
        prefixes.push((at as u16, 16 - size));
        at += 1 << size;
    }
    prefixes
}

fn compile_rules(
    ruleset: &Ruleset,
    classes: &AllClasses,
    vectors: &mut Vectors,
    compiled: &mut CompiledRuleset,
) {
    let generation = compiled.generation;
    for (index, policy) in ruleset.policies.iter().enumerate() {
        let rule = index as u32;
        let accepts = Accepts {
            from: &policy.from,
            to: &policy.to,
            source: &policy.source,
            destination: &policy.destination,
            service: &policy.service,
        };
        vectors.enter(RuleSet::Policy, rule, &accepts, classes);
        let action = match policy.action {
            Action::Permit => PolicyAction::Permit,
            Action::Deny => PolicyAction::Deny,
            Action::Reject => PolicyAction::Reject,
        };
        let asked = |on: bool, flag: u8| if on { flag } else { 0 };
        let log = asked(policy.log_create, log_flags::CREATE)
            | asked(policy.log_close, log_flags::CLOSE)
            | asked(policy.log_deny, log_flags::DENY);
        let value = PolicyRule {
            hits: 0,
            policy: rule,
            action: action as u8,
            log,
            names_destination: u8::from(!policy.destination.is_empty()),
            reserved: 0,
        };
        compiled.rules.push((PolicyKey { generation, rule }, value));
    }
    // hostInbound: implicit rules from each zone to the firewall itself, behind the configured ones, which never mean it.
    let inbound = ruleset
        .zones
        .iter()
        .enumerate()
        .filter(|(_, zone)| !zone.host_inbound.is_empty());
    for (rule, (index, zone)) in (ruleset.policies.len() as u32..).zip(inbound) {
        let dimension = |dimension| VectorKey::dimension_of(RuleSet::Policy, dimension);
        let own = u32::from(bulkhead_abi::ZONE_SELF);
        vectors.accept(dimension(Dimension::FromZone), zone_number(index), rule);
        vectors.accept(dimension(Dimension::ToZone), own, rule);
        vectors.accept(dimension(Dimension::Source), VectorKey::ANY, rule);
        vectors.accept(dimension(Dimension::Destination), VectorKey::ANY, rule);
        let services = classes.services.of(&zone.host_inbound);
        vectors.accept_all(dimension(Dimension::Service), false, &services, rule);
        let value = PolicyRule {
            policy: u32::MAX,
            action: PolicyAction::Permit as u8,
            ..PolicyRule::default()
        };
        compiled.rules.push((PolicyKey { generation, rule }, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_ranges_split_into_the_fewest_prefixes() {
        assert_eq!(port_prefixes(443, 443), [(443, 16)]);
        assert_eq!(port_prefixes(0, 65535), [(0, 0)]);
        assert_eq!(
            port_prefixes(1024, 65535),
            [(1024, 6), (2048, 5), (4096, 4), (8192, 3), (16384, 2), (32768, 1)]
        );
        for (first, last) in [(1, 1), (5, 77), (65535, 65535), (1023, 1025), (0, 1)] {
            let covered: usize = port_prefixes(first, last)
                .iter()
                .map(|(_, length)| 1 << (16 - length))
                .sum();
            assert_eq!(covered, usize::from(last - first) + 1);
        }
    }

    #[test]
    fn elementary_ranges_are_disjoint_and_complete() {
        let ranges = [(10, 20, 1), (15, 30, 2), (20, 20, 3), (40, 65535, 1)];
        let split = elementary(&ranges);
        for port in 0..=65535u16 {
            let want: Vec<u32> = {
                let mut set: Vec<u32> = ranges
                    .iter()
                    .filter(|r| (r.0..=r.1).contains(&port))
                    .map(|r| r.2)
                    .collect();
                set.sort_unstable();
                set
            };
            let got: Vec<&Vec<u32>> = split
                .iter()
                .filter(|r| (r.0..=r.1).contains(&port))
                .map(|r| &r.2)
                .collect();
            assert!(got.len() <= 1);
            assert_eq!(
                got.first().map(|set| set.to_vec()).unwrap_or_default(),
                want,
                "port {port}"
            );
        }
    }
}
