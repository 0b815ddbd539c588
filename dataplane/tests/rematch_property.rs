//! Live sessions under random configurations: after a commit a session's packets pass, in either direction and whichever
//! comes first, if and only if the new rules, read in order, permit the session's first packet.
//!
//! The rules are compiled as for the kernel and run by the pipeline on the host; the oracle is `reference`, which shares no
//! code with either. Interfaces change zones with the configuration, groups change members.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bulkhead_abi::{
    Interface, Live, NeighbourKey, Reason, Route4Key, Route6Key, RouteEntry, interface_flags, protocol,
};
use bulkhead_dataplane::{
    address::words,
    compile::compile,
    reference::{self, Tuple},
    ruleset::{Action, Group, InterfaceRule, Policy, Prefix, Ruleset, Service, ServiceMatch, Zone},
};
use bulkhead_pipeline::host::{HostFirewall, HostTables};
use bulkhead_testkit::Frame;
use proptest::{collection::vec, prelude::*};

const ZONES: usize = 3;
const INTERFACES: u32 = 3;
const GROUPS: usize = 5;
const SERVICES: usize = 4;
const CLIENT_PORT: u16 = 40_000;

fn mac(ifindex: u32) -> [u8; 6] {
    [2, 0, 0, 0, 1, ifindex as u8]
}

/// A host behind an interface.
fn host(v6: bool, ifindex: u32, number: u8) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, ifindex as u16, 0, 0, 0, u16::from(number) + 1).into()
    } else {
        Ipv4Addr::new(10, 0, ifindex as u8, number + 1).into()
    }
}

/// Tables with the interfaces, a network behind each, and its hosts as neighbours.
fn network() -> HostTables {
    let tables = HostTables::new(1000, 1000);
    for ifindex in 1..=INTERFACES {
        let facts = Interface {
            mac: mac(ifindex),
            mtu: 1500,
            flags: interface_flags::DATA,
            ..Interface::default()
        };
        tables.interfaces.set(&ifindex, &facts);
        let entry = RouteEntry {
            ifindex,
            ..RouteEntry::default()
        };
        let key = Route4Key {
            bits: 24,
            address_be: words(host(false, ifindex, 0))[0],
        };
        tables.routes4.set(&key, &entry);
        let key = Route6Key {
            bits: 64,
            address_be: words(host(true, ifindex, 0)),
        };
        tables.routes6.set(&key, &entry);
        for number in 0..4 {
            for v6 in [false, true] {
                let key = NeighbourKey {
                    ifindex,
                    family: if v6 { 6 } else { 4 },
                    address_be: words(host(v6, ifindex, number)),
                };
                tables.neighbours.set(&key, &0x0605_0403_0202);
            }
        }
    }
    tables
}

fn commit(tables: &HostTables, ruleset: &Ruleset, generation: u32) {
    let indices: Vec<Option<u32>> = (1..=INTERFACES).map(Some).collect();
    let (compiled, addresses) = compile(ruleset, generation, &indices).expect("it fits");
    tables.settings.set(&(generation & 1), &compiled.settings);
    tables.zones.load(compiled.zones);
    tables.hosts4.clear();
    tables.hosts4.load(addresses.hosts4);
    tables.hosts6.clear();
    tables.hosts6.load(addresses.hosts6);
    tables.prefixes4.clear();
    tables.prefixes4.load(addresses.prefixes4);
    tables.prefixes6.clear();
    tables.prefixes6.load(addresses.prefixes6);
    tables.services.load(compiled.services);
    tables.vectors.load(compiled.vectors);
    tables.any_vectors.load(compiled.any_vectors);
    tables.rules.load(compiled.rules);
    tables.service_timeouts.load(compiled.service_timeouts);
    tables.live.set(Live {
        // Not the same as the tables' number, and rising faster.
        generation: generation * 10,
        tables: generation,
        fib_epoch: 1,
        reserved: 0,
    });
}

/// A conversation between hosts of two interfaces.
#[derive(Clone, Debug)]
struct Conversation {
    v6: bool,
    from: u32,
    to: u32,
    client: u8,
    server: u8,
    protocol: u8,
    port: u16,
    /// Both sides have spoken before the first commit.
    answered: bool,
    /// Who speaks first after each commit.
    reply_first: [bool; 2],
}

impl Conversation {
    fn source(&self) -> IpAddr {
        host(self.v6, self.from, self.client)
    }

    fn destination(&self) -> IpAddr {
        host(self.v6, self.to, self.server)
    }

    /// A frame of the conversation; `step` 0: the first, 1: the answer to it, 2: any later one.
    fn frame(&self, reply: bool, step: u8) -> (u32, Vec<u8>) {
        let (source, destination, ifindex) = if reply {
            (self.destination(), self.source(), self.to)
        } else {
            (self.source(), self.destination(), self.from)
        };
        let frame = Frame::ip(source, destination).macs([2, 9, 9, 9, 9, 9], mac(ifindex));
        let (source_port, destination_port) = if reply {
            (self.port, CLIENT_PORT)
        } else {
            (CLIENT_PORT, self.port)
        };
        let frame = match (self.protocol, reply, step) {
            (protocol::TCP, false, 0) => frame.tcp(source_port, destination_port).seq(1000).syn(),
            (protocol::TCP, true, 1) => frame.tcp(source_port, destination_port).seq(9000).ack(1001).syn(),
            (protocol::TCP, false, _) => frame.tcp(source_port, destination_port).seq(1001).ack(9001),
            (protocol::TCP, true, _) => frame.tcp(source_port, destination_port).seq(9001).ack(1001),
            (protocol::UDP, ..) => frame.udp(source_port, destination_port),
            (protocol::ICMP, false, _) => frame.echo_request(CLIENT_PORT, 1),
            (protocol::ICMP, true, _) => frame.echo_reply(CLIENT_PORT, 1),
            (number, ..) => frame.protocol(number).payload(&[7; 16]),
        };
        (ifindex, frame.build())
    }

    /// What policy is asked of it, or of its reply direction if that were a conversation.
    fn tuple(&self, reply: bool) -> Tuple {
        let (source, destination) = if reply {
            (self.destination(), self.source())
        } else {
            (self.source(), self.destination())
        };
        let (protocol, port) = match (self.protocol, self.v6, reply) {
            (protocol::TCP | protocol::UDP, _, false) => (self.protocol, self.port),
            (protocol::TCP | protocol::UDP, _, true) => (self.protocol, CLIENT_PORT),
            (protocol::ICMP, false, _) => (protocol::ICMP, 8 << 8),
            (protocol::ICMP, true, _) => (protocol::ICMPV6, 128 << 8),
            (number, ..) => (number, 0),
        };
        Tuple {
            source,
            destination,
            protocol,
            port,
        }
    }

    fn permitted(&self, ruleset: &Ruleset, reply: bool) -> bool {
        let (from, to) = if reply {
            (self.to, self.from)
        } else {
            (self.from, self.to)
        };
        let zone = |ifindex: u32| ruleset.interfaces[ifindex as usize - 1].zone;
        reference::first_match(ruleset, zone(from), zone(to), &self.tuple(reply))
            .is_some_and(|index| ruleset.policies[index].action == Action::Permit)
    }

    /// Whether a packet in the middle of it may begin another conversation.
    fn may_begin(&self, reply: bool) -> bool {
        match self.protocol {
            protocol::TCP => false,
            protocol::ICMP => !reply,
            _ => true,
        }
    }
}

fn conversation() -> impl Strategy<Value = Conversation> {
    let protocol = prop_oneof![
        4 => Just(protocol::TCP),
        3 => Just(protocol::UDP),
        1 => Just(protocol::ICMP),
        1 => Just(47)
    ];
    (
        any::<bool>(),
        1..=INTERFACES,
        1..INTERFACES,
        (0..4u8, 0..4u8),
        protocol,
        prop_oneof![Just(80u16), Just(53), Just(8080)],
        any::<bool>(),
        any::<[bool; 2]>(),
    )
        .prop_map(
            |(v6, from, further, (client, server), protocol, port, answered, reply_first)| Conversation {
                v6,
                from,
                // Another interface than the first.
                to: (from + further - 1) % INTERFACES + 1,
                client,
                server,
                protocol,
                port,
                answered,
                reply_first,
            },
        )
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (
        any::<bool>(),
        1..=INTERFACES,
        0..4u8,
        any::<prop::sample::Index>(),
    )
        .prop_map(|(v6, ifindex, number, pick)| {
            let lengths: &[u8] = if v6 {
                &[0, 48, 64, 127, 128]
            } else {
                &[0, 16, 24, 31, 32]
            };
            Prefix {
                address: host(v6, ifindex, number),
                length: lengths[pick.index(lengths.len())],
            }
        })
}

fn service_match() -> impl Strategy<Value = ServiceMatch> {
    let ports = |protocol, first, last| ServiceMatch::Ports {
        protocol,
        first,
        last,
    };
    let icmp = |protocol, kind| ServiceMatch::Icmp {
        protocol,
        kind,
        code: None,
    };
    prop_oneof![
        1 => Just(ServiceMatch::Any),
        2 => Just(ports(protocol::TCP, 80, 80)),
        2 => Just(ports(protocol::UDP, 1, 1023)),
        1 => Just(ports(protocol::TCP, CLIENT_PORT, CLIENT_PORT)),
        1 => Just(ServiceMatch::Protocol(protocol::TCP)),
        1 => Just(ServiceMatch::Protocol(47)),
        1 => Just(icmp(protocol::ICMP, 8)),
        1 => Just(icmp(protocol::ICMPV6, 128)),
    ]
}

/// Indices below `n`; empty means "any".
fn some_of(n: usize) -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![3 => Just(Vec::new()), 2 => vec(0..n, 1..3)]
}

fn ruleset() -> impl Strategy<Value = Ruleset> {
    let action = prop_oneof![3 => Just(Action::Permit), 2 => Just(Action::Deny), 1 => Just(Action::Reject)];
    let policy = (
        some_of(ZONES),
        some_of(ZONES),
        some_of(GROUPS),
        some_of(GROUPS),
        some_of(SERVICES),
        action,
    )
        .prop_map(|(from, to, source, destination, service, action)| Policy {
            from,
            to,
            source,
            destination,
            service,
            action,
            ..Policy::default()
        });
    (
        vec(0..ZONES, INTERFACES as usize),
        vec(vec(prefix(), 0..4), GROUPS),
        vec(vec(service_match(), 1..3), SERVICES),
        vec(policy, 0..8),
    )
        .prop_map(|(zones, groups, services, policies)| Ruleset {
            zones: vec![Zone::default(); ZONES],
            interfaces: zones
                .into_iter()
                .map(|zone| InterfaceRule {
                    zone,
                    ..InterfaceRule::default()
                })
                .collect(),
            groups: groups
                .into_iter()
                .map(|members| Group {
                    members,
                    ..Group::default()
                })
                .collect(),
            services: services
                .into_iter()
                .map(|matches| Service {
                    matches,
                    ..Service::default()
                })
                .collect(),
            policies,
            answers_per_second: 1000,
            deny_events_per_second: 1000,
            ..Ruleset::default()
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn a_session_lives_as_long_as_its_first_packet_would_be_permitted(
        mut before in ruleset(),
        commits in vec(ruleset(), 1..=2),
        conversations in vec(conversation(), 1..6),
    ) {
        // So that there are sessions at all, most of the time.
        before.policies.push(Policy { action: Action::Permit, ..Policy::default() });
        let mut firewall = HostFirewall::new(network());
        commit(&firewall.tables, &before, 1);
        let mut live = Vec::new();
        for conversation in &conversations {
            let (ifindex, frame) = conversation.frame(false, 0);
            let reason = firewall.ingress(ifindex, &frame).verdict.reason;
            // One that exists already belongs to an equal conversation, or is its answer.
            prop_assert!(reason.is_drop() || reason == Reason::SessionCreated || reason == Reason::HalfOpen
                || reason == Reason::Established, "{reason:?}");
            if reason != Reason::SessionCreated {
                continue;
            }
            if conversation.answered {
                for (reply, step) in [(true, 1), (false, 2)] {
                    let (ifindex, frame) = conversation.frame(reply, step);
                    let reason = firewall.ingress(ifindex, &frame).verdict.reason;
                    prop_assert!(!reason.is_drop(), "{reason:?}: {conversation:?}");
                }
            }
            live.push(conversation);
        }
        for (turn, ruleset) in commits.iter().enumerate() {
            commit(&firewall.tables, ruleset, turn as u32 + 2);
            let mut survivors = Vec::new();
            for conversation in live {
                let permitted = conversation.permitted(ruleset, false);
                let first = conversation.reply_first[turn];
                // What has not been answered yet: its answer is the next thing, or its repetition.
                let step = |reply| match (conversation.answered || conversation.protocol != protocol::TCP, reply) {
                    (true, _) => 2,
                    (false, false) => 0,
                    (false, true) => 1,
                };
                let (ifindex, frame) = conversation.frame(first, step(first));
                let reason = firewall.ingress(ifindex, &frame).verdict.reason;
                if permitted {
                    prop_assert!(matches!(reason, Reason::Established | Reason::HalfOpen),
                        "{reason:?}: {conversation:?}");
                } else {
                    prop_assert_eq!(reason, Reason::PolicyChanged, "{:?}", conversation);
                }
                // Then the other direction, and the first again.
                let mut begun = false;
                for reply in [!first, first] {
                    let (ifindex, frame) = conversation.frame(reply, step(reply));
                    let reason = firewall.ingress(ifindex, &frame).verdict.reason;
                    if permitted {
                        prop_assert!(matches!(reason, Reason::Established | Reason::HalfOpen),
                            "{reason:?}: {conversation:?}");
                    } else {
                        // No longer a session: at best the beginning of another, the other way round, or the answer to it.
                        begun |= conversation.may_begin(reply) && conversation.permitted(ruleset, reply);
                        prop_assert_eq!(!reason.is_drop(), begun, "{:?}: {:?}", reason, conversation);
                    }
                }
                if permitted {
                    survivors.push(conversation);
                }
            }
            live = survivors;
        }
    }
}
