//! The firewall of the packet scripts and its network.
//!
//! | interface | zone | addresses | MTU |
//! |---|---|---|---|
//! | [`INSIDE`] | 1 | 10.1.0.1/24, 2001:db8:1::1/64 | 1500 |
//! | [`INSIDE_TOO`] | 1 | 10.11.0.1/24 | 1500 |
//! | [`OUTSIDE`] | 2 | 198.51.100.1/24, 2001:db8:2::1/64; default routes via .254 and ::fe | 1500 |
//! | [`DMZ`] | 3 | 10.3.0.1/24, 2001:db8:3::1/64 | 1400 |
//! | [`NO_ZONE`] | - | 10.4.0.1/24 | 1500 |

use std::net::IpAddr;

use bulkhead_abi::{
    AddressClass, Dimension, Flow, FlowKey6, Interface, LimitRule, LimitRuleKey, Live, NeighbourKey,
    PolicyAction, PolicyKey, PolicyRule, PrefixKey4, PrefixKey6, Route4Key, Route6Key, RouteEntry, RouteKind,
    RuleSet, Screen, ScreenCount, ScreenProfile, ServiceKey, SessionState, Settings, TimeoutKey, VectorKey,
    ZONE_SLOTS, ZoneKey, flow_flags, interface_flags,
};
use bulkhead_pipeline::{
    Table,
    host::{HostFirewall, HostTables},
};

use crate::frame::{self, Frame, ip};
pub use crate::step::{HIT, MISS, Step};

pub const INSIDE: u32 = 10;
pub const INSIDE_TOO: u32 = 11;
pub const OUTSIDE: u32 = 20;
pub const DMZ: u32 = 30;
pub const NO_ZONE: u32 = 40;
/// An interface of this host that the firewall does not guard.
pub const UNGUARDED: u32 = 50;

pub const ZONE_INSIDE: u32 = 1;
pub const ZONE_OUTSIDE: u32 = 2;
pub const ZONE_DMZ: u32 = 3;
pub const SELF: u32 = 0;
pub const ANY: u32 = VectorKey::ANY;
/// Above the judgement numbers, so that a number used for the other is not found.
const TABLES: u32 = 100;

pub const SECOND: u64 = 1_000_000_000;

/// MAC address of an interface of the firewall.
pub fn mac(ifindex: u32) -> [u8; 6] {
    [2, 0, 0, 0, 0, ifindex as u8]
}

/// MAC address of the neighbour at `address`.
pub fn neighbour_mac(address: IpAddr) -> [u8; 6] {
    let octets = frame::octets(address);
    let n = octets.len();
    [2, 1, octets[n - 4], octets[n - 3], octets[n - 2], octets[n - 1]]
}

pub fn words(address: IpAddr) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(frame::octets(address).chunks_exact(4)) {
        *word = u32::from_ne_bytes(bytes.try_into().unwrap());
    }
    words
}

/// A policy: zones, address classes (numbers given to [`Net::address_class`]), service class, what it does.
#[derive(Clone, Copy)]
pub struct Policy {
    pub from: u32,
    pub to: u32,
    pub source: u32,
    pub destination: u32,
    pub service: u32,
    pub action: PolicyAction,
}

pub const fn permit(from: u32, to: u32) -> Policy {
    Policy {
        from,
        to,
        source: ANY,
        destination: ANY,
        service: ANY,
        action: PolicyAction::Permit,
    }
}

pub const fn deny(from: u32, to: u32) -> Policy {
    Policy {
        action: PolicyAction::Deny,
        ..permit(from, to)
    }
}

pub const fn reject(from: u32, to: u32) -> Policy {
    Policy {
        action: PolicyAction::Reject,
        ..permit(from, to)
    }
}

impl Policy {
    pub const fn service(mut self, class: u32) -> Self {
        self.service = class;
        self
    }

    pub const fn source(mut self, class: u32) -> Self {
        self.source = class;
        self
    }

    pub const fn destination(mut self, class: u32) -> Self {
        self.destination = class;
        self
    }
}

/// The firewall under test.
pub struct Net {
    pub firewall: HostFirewall,
    generation: u32,
    policies: Vec<Policy>,
}

impl Net {
    /// With these policies as generation 1.
    pub fn new(policies: &[Policy]) -> Self {
        Self::with_room(policies, 1000, 1000)
    }

    /// Everything is permitted, to this host too.
    pub fn open() -> Self {
        Self::new(&[permit(ANY, ANY), permit(ANY, SELF)])
    }

    /// With room for so many established and half-open sessions per family.
    pub fn with_room(policies: &[Policy], sessions: usize, half_open: usize) -> Self {
        let tables = HostTables::new(sessions, half_open);
        for (ifindex, net4, net6, mtu, zone) in [
            (INSIDE, Some("10.1.0.1"), Some("2001:db8:1::1"), 1500, true),
            (INSIDE_TOO, Some("10.11.0.1"), None, 1500, true),
            (OUTSIDE, Some("198.51.100.1"), Some("2001:db8:2::1"), 1500, true),
            (DMZ, Some("10.3.0.1"), Some("2001:db8:3::1"), 1400, true),
            (NO_ZONE, Some("10.4.0.1"), None, 1500, true),
            (UNGUARDED, Some("10.5.0.1"), None, 1500, false),
        ] {
            let address4_be = net4.map_or(0, |address| words(ip(address))[0]);
            let address6_be = net6.map_or([0; 4], |address| words(ip(address)));
            let flags = if zone { interface_flags::DATA } else { 0 };
            let facts = Interface {
                mac: mac(ifindex),
                reserved: 0,
                mtu,
                flags,
                address4_be,
                address6_be,
                ..Interface::default()
            };
            tables.interfaces.set(&ifindex, &facts);
            if let Some(address) = net4 {
                route(&tables, address, 24, RouteKind::Unicast, ifindex, None);
                route(&tables, address, 32, RouteKind::Local, ifindex, None);
            }
            if let Some(address) = net6 {
                route(&tables, address, 64, RouteKind::Unicast, ifindex, None);
                route(&tables, address, 128, RouteKind::Local, ifindex, None);
            }
        }
        route(&tables, "127.0.0.0", 8, RouteKind::Local, 1, None);
        route(&tables, "::1", 128, RouteKind::Local, 1, None);
        route(
            &tables,
            "0.0.0.0",
            0,
            RouteKind::Unicast,
            OUTSIDE,
            Some("198.51.100.254"),
        );
        route(
            &tables,
            "::",
            0,
            RouteKind::Unicast,
            OUTSIDE,
            Some("2001:db8:2::fe"),
        );
        route(&tables, "203.0.113.0", 24, RouteKind::Reject, 0, None);
        let mut net = Self {
            firewall: HostFirewall::new(tables),
            generation: TABLES,
            policies: Vec::new(),
        };
        for (ifindex, address) in [
            (INSIDE, "10.1.0.2"),
            (INSIDE, "10.1.0.3"),
            (INSIDE, "2001:db8:1::2"),
            (INSIDE, "2001:db8:1::3"),
            (INSIDE_TOO, "10.11.0.2"),
            (OUTSIDE, "198.51.100.254"),
            (OUTSIDE, "2001:db8:2::fe"),
            (DMZ, "10.3.0.2"),
            (DMZ, "2001:db8:3::2"),
        ] {
            net.neighbour(ifindex, address);
        }
        net.commit(policies);
        net
    }

    pub fn tables(&self) -> &HostTables {
        &self.firewall.tables
    }

    pub fn neighbour(&mut self, ifindex: u32, address: &str) {
        let address = ip(address);
        let [a, b, c, d, e, f] = neighbour_mac(address);
        let mac = u64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        self.tables()
            .neighbours
            .set(&neighbour_key(ifindex, address), &mac);
    }

    /// Splices inside and outside; `flags` says what else than IP crosses.
    pub fn splice(&mut self, flags: u32) {
        let tables = self.tables();
        tables.set_wired(true);
        for (ifindex, wire_peer) in [(INSIDE, OUTSIDE), (OUTSIDE, INSIDE)] {
            let mut facts = tables.interfaces.get(&ifindex).unwrap();
            facts.wire_peer = wire_peer;
            facts.wire = 1;
            facts.flags |= flags;
            tables.interfaces.set(&ifindex, &facts);
        }
    }

    pub fn forget_neighbour(&mut self, ifindex: u32, address: &str) {
        assert!(
            self.tables()
                .neighbours
                .remove(&neighbour_key(ifindex, ip(address)))
        );
    }

    pub fn route(&mut self, prefix: &str, length: u32, ifindex: u32) {
        route(self.tables(), prefix, length, RouteKind::Unicast, ifindex, None);
    }

    /// Raises the epoch: routes or neighbours changed.
    pub fn new_epoch(&mut self) {
        let live = self.tables().live.get();
        self.tables().live.set(Live {
            fib_epoch: live.fib_epoch + 1,
            ..live
        });
    }

    /// Puts a new generation in force.
    pub fn commit(&mut self, policies: &[Policy]) {
        self.generation += 1;
        self.policies = policies.to_vec();
        let generation = self.generation;
        let tables = self.tables();
        let mut timeouts_ns = [0; SessionState::ALL.len()];
        for (state, seconds) in [
            (SessionState::TcpSynSent, 240),
            (SessionState::TcpSynReceived, 240),
            (SessionState::TcpEstablished, 7440),
            (SessionState::TcpClosing, 240),
            (SessionState::TcpClosed, 10),
            (SessionState::UdpOneWay, 30),
            (SessionState::UdpTwoWay, 300),
            (SessionState::Icmp, 60),
            (SessionState::Other, 600),
            (SessionState::TcpSynCrossed, 240),
            (SessionState::TcpLastAck, 240),
            (SessionState::TcpTimeWait, 240),
            (SessionState::TcpMidstream, 240),
            (SessionState::Dccp, 7440),
        ] {
            timeouts_ns[state as usize] = seconds * SECOND;
        }
        tables.settings.set(
            &(generation & 1),
            &Settings {
                timeouts_ns,
                slow_path_rate: 100,
                deny_event_rate: 100,
                ..Settings::default()
            },
        );
        for (ifindex, zone) in [
            (INSIDE, ZONE_INSIDE),
            (INSIDE_TOO, ZONE_INSIDE),
            (OUTSIDE, ZONE_OUTSIDE),
            (DMZ, ZONE_DMZ),
        ] {
            tables.zones.set(&ZoneKey { generation, ifindex }, &zone);
        }
        for zone in 0..ZONE_SLOTS {
            let index = ScreenProfile::index(generation, zone as u8);
            tables.screens.set(&index, &ScreenProfile::default());
        }
        for (rule, policy) in policies.iter().enumerate() {
            let value = PolicyRule {
                policy: rule as u32,
                action: policy.action as u8,
                names_destination: u8::from(policy.destination != ANY),
                ..PolicyRule::default()
            };
            tables.rules.set(
                &PolicyKey {
                    generation,
                    rule: rule as u32,
                },
                &value,
            );
            accept(tables, generation, RuleSet::Policy, rule, policy);
        }
        tables.live.set(Live {
            generation: generation - TABLES,
            tables: generation,
            ..tables.live.get()
        });
    }

    /// Settings of the generation in force.
    pub fn settings(&mut self, change: impl FnOnce(&mut Settings)) {
        let slot = self.generation & 1;
        let mut settings = self.tables().settings.get(&slot).unwrap();
        change(&mut settings);
        self.tables().settings.set(&slot, &settings);
    }

    /// What the keys of the tables in force carry.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The number that flows judged by now carry.
    pub fn judgement(&self) -> u32 {
        self.generation - TABLES
    }

    /// Gives a zone of the generation in force a screen profile.
    pub fn screens(&mut self, zone: u32, profile: &ScreenProfile) {
        let index = ScreenProfile::index(self.generation, zone as u8);
        self.tables().screens.set(&index, profile);
    }

    /// What the screens have counted since the last call: zone, screen, packets dropped, packets let pass.
    pub fn take_screen_counts(&mut self) -> Vec<(u32, Screen, u64, u64)> {
        let mut taken = Vec::new();
        for (index, count) in self.tables().screen_counts.entries() {
            self.tables().screen_counts.remove(&index);
            let (zone, screen) = (
                index / Screen::SLOTS,
                Screen::ALL[(index % Screen::SLOTS) as usize],
            );
            assert_eq!(ScreenCount::index(zone as u8, screen as u32), index);
            taken.push((zone, screen, count.dropped, count.alarmed));
        }
        taken.sort();
        taken
    }

    /// Names a service of the generation in force.
    pub fn service(&mut self, class: u32, protocol: u8, port: u16) {
        let generation = self.generation;
        let key = ServiceKey {
            bits: 64,
            generation,
            reserved: 0,
            protocol,
            port_be: port.to_be(),
        };
        self.tables().services.set(&key, &class);
    }

    /// Names an ICMP service: a type, whatever the code.
    pub fn icmp_service(&mut self, class: u32, protocol: u8, kind: u8) {
        let generation = self.generation;
        let port_be = (u16::from(kind) << 8).to_be();
        let key = ServiceKey {
            bits: 56,
            generation,
            reserved: 0,
            protocol,
            port_be,
        };
        self.tables().services.set(&key, &class);
    }

    /// Raises the judgement number beyond those of commits: group members changed.
    pub fn judge_again(&mut self) {
        let live = self.tables().live.get();
        self.tables().live.set(Live {
            generation: live.generation + 1_000_000,
            ..live
        });
    }

    /// Gives a prefix a class.
    pub fn address_class(&mut self, class: u32, prefix: &str, length: u32) {
        let (address, tables) = (ip(prefix), self.tables());
        let class = AddressClass::both(class);
        if address.is_ipv4() {
            let key = PrefixKey4 {
                bits: length,
                address_be: words(address)[0],
            };
            tables.prefixes4.set(&key, &class);
        } else {
            let key = PrefixKey6 {
                bits: length,
                address_be: words(address),
            };
            tables.prefixes6.set(&key, &class);
        }
    }

    pub fn advance(&mut self, ns: u64) {
        self.tables().advance_ns(ns);
    }

    /// A frame from the wire to the TCX program.
    pub fn receive(&mut self, ifindex: u32, frame: &Frame) -> Step {
        let bytes = frame.clone().to(mac(ifindex)).build();
        self.receive_bytes(ifindex, &bytes)
    }

    pub fn receive_bytes(&mut self, ifindex: u32, bytes: &[u8]) -> Step {
        Step {
            outcome: self.firewall.ingress(ifindex, bytes),
            before: bytes.to_vec(),
        }
    }

    /// A frame that user space puts back.
    pub fn put_back(&mut self, ifindex: u32, bytes: &[u8]) -> Step {
        Step {
            outcome: self.firewall.injected(ifindex, bytes),
            before: bytes.to_vec(),
        }
    }

    /// A frame from the wire to the XDP program.
    pub fn receive_xdp(&mut self, ifindex: u32, frame: &Frame) -> Step {
        let bytes = frame.clone().to(mac(ifindex)).build();
        Step {
            outcome: self.firewall.established(ifindex, &bytes),
            before: bytes,
        }
    }

    /// A frame from the wire to the XDP program and, if that leaves it, to the TCX program.
    pub fn receive_both(&mut self, ifindex: u32, frame: &Frame) -> Step {
        let bytes = frame.clone().to(mac(ifindex)).build();
        Step {
            outcome: self.firewall.both_hooks(ifindex, &bytes),
            before: bytes,
        }
    }

    /// A frame of the firewall's own, or one the kernel forwards, on its way out.
    pub fn leave(&mut self, ifindex: u32, frame: &Frame, mark: u32, from_outside: bool) -> Step {
        let bytes = frame.build();
        Step {
            outcome: self.firewall.host_egress(ifindex, &bytes, mark, from_outside),
            before: bytes,
        }
    }

    /// Flows in the tables: established and half-open, of both families.
    pub fn flows(&self) -> (usize, usize) {
        let count = |table| self.tables().flows(table, 4).len() + self.tables().flows(table, 6).len();
        (count(Table::Established), count(Table::HalfOpen))
    }

    /// Gives a service of the generation in force a timeout.
    pub fn service_timeout(&mut self, service: u32, seconds: u32) {
        let generation = self.generation;
        let key = TimeoutKey { generation, service };
        self.tables().service_timeouts.set(&key, &seconds);
    }

    /// Limits the sessions that come from a zone, in the generation in force.
    pub fn limit(&mut self, zone: u32, rule: LimitRule) {
        let generation = self.generation;
        self.tables()
            .limit_rules
            .set(&LimitRuleKey { generation, zone }, &rule);
    }

    /// Puts an interface into another zone, in the generation in force.
    pub fn move_interface(&mut self, ifindex: u32, zone: u32) {
        let generation = self.generation;
        self.tables().zones.set(&ZoneKey { generation, ifindex }, &zone);
    }

    /// Takes an interface out of its zone, in the generation in force.
    pub fn leave_zones(&mut self, ifindex: u32) {
        let generation = self.generation;
        assert!(self.tables().zones.remove(&ZoneKey { generation, ifindex }));
    }

    /// Key and flow of the only session's first direction, and the table it is in.
    pub fn only(&self) -> (u8, Table, FlowKey6, Flow) {
        let mut found = Vec::new();
        for family in [4, 6] {
            for table in [Table::Established, Table::HalfOpen] {
                for (key, flow) in self.tables().flows(table, family).entries() {
                    if flow.flags & flow_flags::REPLY == 0 {
                        found.push((family, table, key, flow));
                    }
                }
            }
        }
        assert_eq!(found.len(), 1, "sessions");
        found[0]
    }

    /// Ages every session, as user space does; how many ended.
    pub fn age(&mut self) -> usize {
        let mut ended = 0;
        for family in [4, 6] {
            for table in [Table::Established, Table::HalfOpen] {
                for (key, _) in self.tables().flows(table, family).entries() {
                    ended += usize::from(self.firewall.expire(family, &key, false));
                }
            }
        }
        ended
    }
}

/// Enters what a rule (of the first page) of a set accepts into the rule vectors.
pub fn accept(tables: &HostTables, generation: u32, set: RuleSet, rule: usize, matches: &Policy) {
    let (word, bit) = (rule as u32 / 64, 1_u64 << (rule % 64));
    let places = [
        (VectorKey::TOP, 1),
        (VectorKey::summary(0), 1 << word),
        (VectorKey::word(0, word), bit),
    ];
    for (dimension, class) in [
        (Dimension::FromZone, matches.from),
        (Dimension::ToZone, matches.to),
        (Dimension::Source, matches.source),
        (Dimension::Destination, matches.destination),
        (Dimension::Service, matches.service),
    ] {
        for (index, bits) in places {
            let mut key = VectorKey {
                generation,
                class,
                dimension: VectorKey::dimension_of(set, dimension),
                index,
            };
            if class == ANY {
                key.dimension = (set as u16) << 8;
                let mut any = tables.any_vectors.get(&key).unwrap_or_default();
                any.words[dimension as usize] |= bits;
                tables.any_vectors.set(&key, &any);
            } else {
                let word = tables.vectors.get(&key).unwrap_or(0);
                tables.vectors.set(&key, &(word | bits));
            }
        }
    }
}

fn neighbour_key(ifindex: u32, address: IpAddr) -> NeighbourKey {
    NeighbourKey {
        ifindex,
        family: if address.is_ipv4() { 4 } else { 6 },
        address_be: words(address),
    }
}

fn route(
    tables: &HostTables,
    prefix: &str,
    length: u32,
    kind: RouteKind,
    ifindex: u32,
    gateway: Option<&str>,
) {
    let gateway = gateway.map(ip);
    let entry = RouteEntry {
        kind: kind as u32,
        ifindex,
        gateway_family: gateway.map_or(0, |address| if address.is_ipv4() { 4 } else { 6 }),
        gateway_be: gateway.map_or([0; 4], words),
    };
    let address = ip(prefix);
    if address.is_ipv4() {
        tables.routes4.set(
            &Route4Key {
                bits: length,
                address_be: words(address)[0],
            },
            &entry,
        );
    } else {
        tables.routes6.set(
            &Route6Key {
                bits: length,
                address_be: words(address),
            },
            &entry,
        );
    }
}
