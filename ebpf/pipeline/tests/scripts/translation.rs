//! Rules and pools of address translation for the packet scripts: what a configuration would compile to, by hand.

use std::net::IpAddr;

use bulkhead_abi::{
    NatAction, NatAddressKey4, NatAddressKey6, NatFiltering, NatPool, NatRule, NatRuleKey, POOL_RANGES,
    PoolKey, RuleSet, ZONE_SELF, nat_flags, pool_flags,
};

use crate::{
    frame::ip,
    net::{Net, Policy, accept, permit, words},
};

/// Configured index of the rule that [`Net::translate`] enters.
pub const RULE: u32 = 7;

/// A NAT rule: whom it is for, and what it does.
#[derive(Clone, Copy)]
pub struct Nat {
    set: RuleSet,
    matches: Policy,
    rule: NatRule,
}

/// A source rule from zone to zone that translates to the interface's address.
pub fn source(from: u32, to: u32) -> Nat {
    Nat {
        set: RuleSet::SourceNat,
        matches: permit(from, to),
        rule: NatRule {
            rule: RULE,
            action: NatAction::Interface as u8,
            timeout_s: 300,
            ..NatRule::default()
        },
    }
}

/// A destination rule for what comes from a zone, that does nothing.
pub fn destination(from: u32) -> Nat {
    let off = source(from, u32::from(ZONE_SELF)).off();
    Nat {
        set: RuleSet::DestinationNat,
        matches: Policy {
            to: crate::net::ANY,
            ..off.matches
        },
        ..off
    }
}

impl Nat {
    /// Only for these addresses of the outside: a class.
    pub fn to(mut self, class: u32) -> Self {
        self.matches.destination = class;
        self
    }

    /// Only from this class of addresses.
    pub fn from(mut self, class: u32) -> Self {
        self.matches.source = class;
        self
    }

    pub fn service(mut self, class: u32) -> Self {
        self.matches.service = class;
        self
    }

    /// The configured index.
    pub fn index(mut self, index: u32) -> Self {
        self.rule.rule = index;
        self
    }

    pub fn off(mut self) -> Self {
        self.rule.action = NatAction::Off as u8;
        self
    }

    pub fn pool(mut self, number: u32) -> Self {
        self.rule.action = NatAction::Pool as u8;
        self.rule.pool = number;
        self.rule.identity = number + 1000;
        self
    }

    pub fn persistent(mut self, filtering: NatFiltering) -> Self {
        self.rule.filtering = filtering as u8;
        self
    }

    /// The network part of the addresses becomes `to`'s.
    pub fn prefix(mut self, length: u32, to: &str) -> Self {
        self.rule.action = NatAction::Prefix as u8;
        self.rule.mask_be = mask(ip(to), length);
        self.rule.to_be = words(ip(to));
        self
    }

    /// As [`Nat::prefix`], after RFC 6296. `from` is the network part that changes.
    pub fn npt(mut self, from: &str, length: u32, to: &str) -> Self {
        self = self.prefix(length, to);
        self.rule.action = NatAction::Npt as u8;
        self.rule.word = if length <= 48 { 3 } else { 4 };
        let sum = |text: &str| {
            let words = octets(text)
                .chunks(2)
                .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
                .sum::<u32>();
            (words % 0xffff) as u16
        };
        // In big-endian numbers: what was there less what comes.
        let difference = (u32::from(sum(from)) + 0xffff - u32::from(sum(to))) % 0xffff;
        self.rule.adjustment = (difference as u16).to_be();
        self
    }
}

fn octets(text: &str) -> Vec<u8> {
    crate::frame::octets(ip(text))
}

fn mask(address: IpAddr, length: u32) -> [u32; 4] {
    let octets: Vec<u8> = (0..if address.is_ipv4() { 4 } else { 16 })
        .map(|at| !(0xff_u16 >> length.saturating_sub(at * 8).min(8)) as u8)
        .collect();
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(octets.chunks_exact(4)) {
        *word = u32::from_ne_bytes(bytes.try_into().unwrap());
    }
    words
}

/// A pool: ranges as first address and number of addresses, of one family.
pub struct Pool<'a> {
    pub ranges: &'a [(&'a str, u32)],
    pub ports: Option<(u16, u16)>,
    pub port: u16,
    pub paired: bool,
}

impl<'a> Pool<'a> {
    /// Paired, with the usual ports.
    pub const fn of(ranges: &'a [(&'a str, u32)]) -> Self {
        Self {
            ranges,
            ports: Some((1024, 65535)),
            port: 0,
            paired: true,
        }
    }

    /// For destinations: the port they get.
    pub const fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }
}

/// A random number that leads to `number` among those below `limit`.
pub fn towards(number: u32, limit: u32) -> u32 {
    let random = (u64::from(number) << 32).div_ceil(u64::from(limit));
    u32::try_from(random).expect("a number below the limit")
}

/// A random number that leads to a port from 1024 on.
pub fn towards_port(port: u16) -> u32 {
    towards(u32::from(port) - 1024, 64_512)
}

impl Net {
    /// Enters a rule behind those that are there.
    pub fn nat(&mut self, nat: Nat) {
        let generation = self.generation();
        let set = nat.set as u32;
        let number = (0..)
            .find(|rule| {
                let key = NatRuleKey {
                    generation,
                    set,
                    rule: *rule,
                };
                self.tables().nat_rules.get(&key).is_none()
            })
            .expect("a free number");
        let key = NatRuleKey {
            generation,
            set,
            rule: number,
        };
        self.tables().nat_rules.set(&key, &nat.rule);
        accept(self.tables(), generation, nat.set, number as usize, &nat.matches);
        self.settings(|settings| {
            settings.nat |= match nat.set {
                RuleSet::SourceNat => nat_flags::SOURCE,
                _ => nat_flags::DESTINATION,
            };
            if nat.rule.filtering != 0 {
                settings.nat |= nat_flags::PERSISTENT;
            }
        });
    }

    /// Sessions the rule with this number translated.
    pub fn nat_hits(&self, set: RuleSet, rule: u32) -> u64 {
        let key = NatRuleKey {
            generation: self.generation(),
            set: set as u32,
            rule,
        };
        self.tables().nat_rules.get(&key).map_or(0, |rule| rule.hits)
    }

    /// Translates sessions of a zone pair to the egress interface's address.
    pub fn translate(&mut self, from: u32, to: u32) {
        self.nat(source(from, to));
    }

    /// Enters a pool.
    pub fn pool(&mut self, number: u32, pool: &Pool<'_>) {
        let family = if ip(pool.ranges[0].0).is_ipv4() { 4 } else { 6 };
        let (first_port, last_port) = pool.ports.unwrap_or((0, 0));
        let mut value = NatPool {
            first_port,
            last_port,
            port: pool.port,
            before: [u32::MAX; POOL_RANGES],
            ..NatPool::default()
        };
        if pool.paired {
            value.flags |= pool_flags::PAIRED;
        }
        if pool.ports.is_none() {
            value.flags |= pool_flags::KEEP_PORTS;
        }
        for (i, (first, count)) in pool.ranges.iter().enumerate() {
            value.before[i] = value.count;
            value.first_be[i] = words(ip(first));
            value.count += count;
        }
        let key = PoolKey {
            generation: self.generation(),
            pool: number,
            family,
        };
        self.tables().pools.set(&key, &value);
    }

    /// Makes a prefix translation's own in a zone.
    pub fn owns(&mut self, prefix: &str, length: u32, zone: u32) {
        let generation = self.generation();
        let (address, zones) = (ip(prefix), 1 << zone);
        let bits = 32 + length;
        if address.is_ipv4() {
            let address_be = words(address)[0];
            let key = NatAddressKey4 {
                bits,
                generation,
                address_be,
            };
            self.tables().nat_addresses4.set(&key, &zones);
        } else {
            let key = NatAddressKey6 {
                bits,
                generation,
                address_be: words(address),
            };
            self.tables().nat_addresses6.set(&key, &zones);
        }
        self.settings(|settings| settings.nat |= nat_flags::ADDRESSES);
    }
}
