//! From a [`Ruleset`] to the entries of the policy tables: a pure function.
//!
//! Addresses have classes, which the book of [`crate::membership`] keeps from generation to generation; services get theirs
//! here, one per distinct set of services that occurs. Every rule sets one bit per dimension and class that it accepts.
//! Memory grows with the members and with the rules' references, never with their product: what accepts anything stands
//! once, in the "any" vectors. Policies and both sorts of NAT rules are rule sets of one kind.

mod nat;
mod screens;
mod tcp;
pub(crate) mod timeouts;
mod vectors;

pub(crate) use nat::addresses;
pub use vectors::Naming;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use bulkhead_abi::{
    AddressClass, AnyVectors, Dimension, HostKey4, HostKey6, LimitRule, LimitRuleKey, MAX_ZONES,
    NatAddressKey4, NatAddressKey6, NatPool, NatRule, NatRuleKey, PAGES, POOL_RANGES, PolicyAction,
    PolicyKey, PolicyRule, PoolKey, PrefixKey4, PrefixKey6, RULES_PER_PAGE, RuleSet, ScanLimit,
    ScreenProfile, ServiceKey, Settings, TimeoutKey, VectorKey, ZoneKey, log_flags,
};
use vectors::Accepts;

use crate::{
    membership::{book::Book, nesting::Cycle},
    ruleset::{Action, Prefix, Ruleset, ServiceMatch},
};

/// Most rules of one generation, implicit ones included: 64 pages.
pub const MAX_RULES: usize = (PAGES * RULES_PER_PAGE) as usize;

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
    #[error(
        "{0} rules (one for each zone with hostInbound included) are more than the {MAX_RULES} that tables of any size hold; \
         leave out {over} of the policies, or divide them among firewalls",
        over = .0 - MAX_RULES
    )]
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
    /// Services.
    pub services: Vec<(ServiceKey, u32)>,
    /// Words of rule vectors.
    pub vectors: Vec<(VectorKey, u64)>,
    /// Words of the rules that accept anything.
    pub any_vectors: Vec<(VectorKey, AnyVectors)>,
    /// Which rules name what, for classes that come up later.
    pub naming: Naming,
    /// Rules.
    pub rules: Vec<(PolicyKey, PolicyRule)>,
    /// NAT rules.
    pub nat_rules: Vec<(NatRuleKey, NatRule)>,
    /// Pools.
    pub pools: Vec<(PoolKey, NatPool)>,
    /// IPv4 prefixes that translation owns, to the zones in which.
    pub nat_addresses4: Vec<(NatAddressKey4, u64)>,
    /// IPv6 prefixes that translation owns.
    pub nat_addresses6: Vec<(NatAddressKey6, u64)>,
    // Screens.
    /// Screen profiles, by index.
    pub screens: Vec<(u32, ScreenProfile)>,
    // Ageing and limits.
    /// Timeouts of services, s.
    pub service_timeouts: Vec<(TimeoutKey, u32)>,
    /// Limits of sessions by zone.
    pub limit_rules: Vec<(LimitRuleKey, LimitRule)>,
}

/// The entries of the address tables, which belong to no generation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AddressTables {
    /// Exact IPv4 hosts.
    pub hosts4: Vec<(HostKey4, AddressClass)>,
    /// Exact IPv6 hosts.
    pub hosts6: Vec<(HostKey6, AddressClass)>,
    /// IPv4 prefixes.
    pub prefixes4: Vec<(PrefixKey4, AddressClass)>,
    /// IPv6 prefixes.
    pub prefixes6: Vec<(PrefixKey6, AddressClass)>,
}

impl AddressTables {
    /// All entries of a book.
    #[must_use]
    pub fn of(book: &Book) -> Self {
        let mut tables = Self::default();
        let (v4, v6) = book.sides();
        for ((bits, length), class) in v4.classes() {
            let (address_be, class) = (bits.to_be(), AddressClass::both(class));
            if length == 32 {
                tables.hosts4.push((HostKey4 { address_be }, class));
            } else {
                let bits = u32::from(length);
                tables.prefixes4.push((PrefixKey4 { bits, address_be }, class));
            }
        }
        for ((bits, length), class) in v6.classes() {
            let (address_be, class) = (
                crate::address::words(IpAddr::V6(bits.into())),
                AddressClass::both(class),
            );
            if length == 128 {
                tables.hosts6.push((HostKey6 { address_be }, class));
            } else {
                let bits = u32::from(length);
                tables.prefixes6.push((PrefixKey6 { bits, address_be }, class));
            }
        }
        tables
    }
}

/// Numbers the distinct sets of services that occur. Class 0 is the empty set.
#[derive(Default)]
struct Classes {
    numbers: HashMap<Vec<u32>, u32>,
}

impl Classes {
    /// The class of a sorted set.
    fn number(&mut self, set: Vec<u32>) -> u32 {
        if set.is_empty() {
            return 0;
        }
        let next = self.numbers.len() as u32 + 1;
        *self.numbers.entry(set).or_insert(next)
    }

    /// The classes, each with its set.
    fn sets(&self) -> Vec<(u32, Vec<u32>)> {
        let sets = self.numbers.iter().map(|(set, number)| (*number, set.clone()));
        sets.collect()
    }
}

/// The table number of zone `index`.
fn zone_number(index: usize) -> u32 {
    index as u32 + 1
}

/// Compiles `ruleset` as `generation`. `interface_indices` gives the kernel's index of each of its interfaces, where it
/// exists; `classes` the address classes there are, each with the groups it is of ([`Book::classes`]).
///
/// # Errors
/// If it has more rules or zones than the tables hold.
pub fn compile_with(
    ruleset: &Ruleset,
    generation: u32,
    interface_indices: &[Option<u32>],
    classes: &[(u32, Vec<u32>)],
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
    let services = compile_services(ruleset, &mut compiled);
    let mut naming = Naming::default();
    compile_rules(ruleset, &mut naming, &mut compiled);
    nat::compile(ruleset, &mut naming, &mut compiled)?;
    compiled.vectors = naming.vectors(generation, classes, &services.sets());
    compiled.any_vectors = naming.any_vectors(generation);
    compiled.naming = naming;
    timeouts::compile(ruleset, &services, &mut compiled);
    Ok(compiled)
}

/// Compiles `ruleset` on its own, with the members that its dynamic groups begin with.
///
/// # Errors
/// As [`compile_with`]; if a group is part of itself.
pub fn compile(
    ruleset: &Ruleset,
    generation: u32,
    interface_indices: &[Option<u32>],
) -> Result<(CompiledRuleset, AddressTables), CompileError> {
    let mut book = Book::default();
    let (_, meaning) = book.commit(&Ruleset::default(), ruleset)?;
    let compiled = compile_with(ruleset, generation, interface_indices, &book.classes(&meaning))?;
    Ok((compiled, AddressTables::of(&book)))
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

fn compile_rules(ruleset: &Ruleset, naming: &mut Naming, compiled: &mut CompiledRuleset) {
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
        naming.enter(RuleSet::Policy, rule, &accepts);
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
        let own = u32::from(bulkhead_abi::ZONE_SELF);
        naming.accept(RuleSet::Policy, Dimension::FromZone, zone_number(index), rule);
        naming.accept(RuleSet::Policy, Dimension::ToZone, own, rule);
        naming.accept_any(RuleSet::Policy, Dimension::Source, rule);
        naming.accept_any(RuleSet::Policy, Dimension::Destination, rule);
        for service in &zone.host_inbound {
            naming.accept(RuleSet::Policy, Dimension::Service, *service as u32, rule);
        }
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
