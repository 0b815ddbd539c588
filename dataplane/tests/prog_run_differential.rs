//! The same random packets through the pipeline on the host and through the object in the kernel: the same verdict, the
//! same bytes, the same counters, events, slow-path requests and session tables.
//!
//! Owns the two worlds and keeps them in step: tables from one compiled ruleset, one clock, and where the kernel drew a
//! random port, the host draws the same. Not compared: session numbers, times, and what is left in fields that mean
//! nothing (the MTU of a flow that goes nowhere). Aggregates and unfinished checksums do not occur in test runs; the
//! `netns_*` tests have them.

#[path = "prog_run_differential/rules.rs"]
mod rules;
#[path = "prog_run_differential/traffic.rs"]
mod traffic;
#[path = "prog_run_differential/twins.rs"]
mod twins;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use bulkhead_abi::Reason;
use bulkhead_dataplane::{bpf::Program, netlink::VethSpec};
use bulkhead_pipeline::{Action, Table};
use bulkhead_testkit::{Frame, Namespace, effort, privileged};

use crate::{
    traffic::{Input, Random, Traffic, address, mac},
    twins::{Ageing, Twins, headers, sortable},
};

/// Packets per run. On a slow machine fewer, but as many as it takes to have seen everything that [`missing`] names.
const PACKETS: usize = 6_000;

/// The kernel's test runs refuse socket buffers without a whole network header; XDP takes them.
fn has_network_header(frame: &[u8]) -> bool {
    match frame[12..14] {
        [0x08, 0x00] => frame.len() >= 34,
        [0x86, 0xdd] => frame.len() >= 54,
        _ => true,
    }
}

/// What some packets of any long run end as.
const PLAIN: &[Reason] = &[
    Reason::Established,
    Reason::SessionCreated,
    Reason::HalfOpen,
    Reason::RelatedIcmp,
    Reason::Arp,
    Reason::NeighbourDiscovery,
    Reason::ToHost,
    Reason::FromHost,
    Reason::EstablishedXdp,
    Reason::Truncated,
    Reason::DefaultDeny,
    Reason::PolicyDeny,
    Reason::PolicyReject,
    Reason::HostInboundDeny,
    Reason::TcpNoSession,
    Reason::TcpResetOutOfWindow,
    Reason::TcpStateInvalid,
    Reason::IcmpNoSession,
    Reason::IcmpNotRequest,
    Reason::TtlExceeded,
    Reason::MtuExceeded,
    Reason::FragmentTiny,
    Reason::FragmentInvalid,
    Reason::FragmentOverlap,
    Reason::Fragmented,
    Reason::NotForUs,
    Reason::SessionLimitSource,
];

/// And where there are screens.
const SCREENED: &[Reason] = &[
    Reason::Established,
    Reason::SessionCreated,
    Reason::RelatedIcmp,
    Reason::ToHost,
    Reason::ScreenIcmpFlood,
    Reason::ScreenUdpFlood,
    Reason::ScreenSynFloodSource,
    Reason::ScreenSynFloodDestination,
    Reason::ScreenIcmpLarge,
    Reason::ScreenIpSpoofing,
    Reason::ScreenLand,
    Reason::ScreenTcpNoFlags,
    Reason::ScreenTcpSynFin,
];

/// And where there is source NAT.
const TRANSLATED: &[Reason] = &[Reason::NatNoMapping, Reason::NatFiltered, Reason::NatUnsupported];

/// What random traffic seldom does by itself: a stranger at a mapping, a way in by one, and a hairpin.
fn rehearse(twins: &mut Twins, seen: &mut BTreeMap<Reason, usize>) {
    let mut run = |number: usize, from: &str, to: &str, ports: (u16, u16), expected: Reason| {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        let frame = Frame::ip(ip(from), ip(to));
        let frame = frame.macs([2, 9, 9, 9, 9, 9], mac(number as u8));
        let outcome = twins.run(Program::Ingress, number, &frame.udp(ports.0, ports.1).build());
        assert_eq!(outcome.verdict.reason, expected, "{from} to {to}");
        *seen.entry(expected).or_default() += 1;
        headers(&outcome.bytes)
    };
    for (targets, anyone, other, server, stranger) in [
        ("10.1.0.3", "10.1.0.9", "10.1.0.2", "192.0.2.80", "192.0.2.81"),
        (
            "2001:db8:1::3",
            "2001:db8:1::9",
            "2001:db8:1::2",
            "2001:db8:80::80",
            "2001:db8:80::81",
        ),
    ] {
        for (host, reason) in [(targets, Reason::NatFiltered), (anyone, Reason::SessionCreated)] {
            let sent = run(0, host, server, (40_000, 53), Reason::SessionCreated).expect("a packet");
            let known = address(sent.family, sent.source_be).to_string();
            run(1, stranger, &known, (99, sent.source_port), reason);
            // In the host's own name, and under its own mapping.
            run(0, other, &known, (40_000, sent.source_port), reason);
            run(0, anyone, &known, (40_001, sent.source_port), reason);
        }
    }
}

/// A connection, and what somebody sends who knows its addresses and ports but not its numbers (RFC 5961, RFC 5927).
fn guess(twins: &mut Twins, seen: &mut BTreeMap<Reason, usize>) {
    const ISN: u32 = 0xffff_fff0;
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    for (client, server) in [("10.1.0.2", "192.0.2.81"), ("2001:db8:1::2", "2001:db8:80::81")] {
        let segment = |from: IpAddr, to: IpAddr, ports: (u16, u16), flags: u8, seq: u32, ack: u32| {
            Frame::ip(from, to)
                .tcp(ports.0, ports.1)
                .seq(seq)
                .tcp_header(|header| {
                    (header.fin, header.syn) = (flags & 1 != 0, flags & 2 != 0);
                    (header.rst, header.ack) = (flags & 4 != 0, flags & 16 != 0);
                    (header.acknowledgment_number, header.window_size) = (ack, 8192);
                })
        };
        let mut run = |number: usize, frame: &Frame, expected: Reason| {
            let frame = frame.clone().macs([2, 9, 9, 9, 9, 9], mac(number as u8));
            let outcome = twins.run(Program::Ingress, number, &frame.build());
            assert_eq!(outcome.verdict.reason, expected, "{client}: {frame:?}");
            *seen.entry(expected).or_default() += 1;
            outcome.bytes
        };
        let out = |flags, seq, ack| segment(ip(client), ip(server), (41_000, 80), flags, seq, ack);
        let sent = run(0, &out(2, ISN, 0), Reason::SessionCreated);
        let sent = headers(&sent).expect("a packet");
        let own = (address(sent.family, sent.source_be), sent.source_port);
        let back = |flags, seq, ack| segment(ip(server), own.0, (80, own.1), flags, seq, ack);
        let (first, limit) = (ISN.wrapping_add(1), 9001u32 + 8192);
        run(1, &back(0x12, 9000, first), Reason::HalfOpen);
        let seen_outside = run(0, &out(0x10, first, 9001), Reason::Established);
        for (frame, expected) in [
            (
                back(0x10, limit + 65_536, first).payload_bytes(1),
                Reason::TcpOutOfWindow,
            ),
            (
                back(0x10, 9001u32.wrapping_sub(65_538), first),
                Reason::TcpOutOfWindow,
            ),
            (
                back(0x10, 9001, first.wrapping_add(65_537)),
                Reason::TcpOutOfWindow,
            ),
            (back(0x11, 0x8000_0000, first), Reason::TcpOutOfWindow),
            (back(0x04, limit, 0), Reason::TcpResetOutOfWindow),
            (back(0x04, 9002, 0), Reason::Established),
            (back(0x02, 9002, 0), Reason::TcpSynInWindow),
            (back(0x02, limit, 0), Reason::Established),
            (back(0x10, limit, first).payload_bytes(1), Reason::Established),
        ] {
            run(1, &frame, expected);
        }
        let router = if sent.family == 4 {
            "198.51.100.77"
        } else {
            "2001:db8:2::77"
        };
        let kind = if sent.family == 4 { 3 } else { 1 };
        let mut quoted = seen_outside[14..].to_vec();
        let error = |quoted: &[u8]| Frame::ip(ip(router), own.0).icmp_error(kind, 1, [0; 4], quoted);
        run(1, &error(&quoted), Reason::RelatedIcmp);
        let seq = if sent.family == 4 { 24 } else { 44 };
        quoted[seq] ^= 0x40;
        run(1, &error(&quoted), Reason::IcmpQuoteOutOfWindow);
        run(0, &out(0x04, first, 0), Reason::Established);
        run(0, &out(0x10, first, 9001), Reason::SessionClosed);
    }
}

/// What random traffic may never do, depending on how many sessions it has just then: an acknowledgement before there is
/// anything to acknowledge, and one session too many of one source.
fn rehearse_plain(twins: &mut Twins, seen: &mut BTreeMap<Reason, usize>) {
    let mut run = |frame: Frame| {
        let frame = frame.macs([2, 9, 9, 9, 9, 9], mac(0)).build();
        let reason = twins.run(Program::Ingress, 0, &frame).verdict.reason;
        *seen.entry(reason).or_default() += 1;
        reason
    };
    let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
    let to = |server: &str| Frame::ip(ip("10.1.0.2"), ip(server));
    assert_eq!(
        run(to("192.0.2.80").tcp(41_000, 80).seq(1000).syn()),
        Reason::SessionCreated
    );
    assert_eq!(
        run(to("192.0.2.80").tcp(41_000, 80).seq(1001).ack(9001)),
        Reason::TcpStateInvalid
    );
    // Over several destinations, whose own limit is lower.
    let mut ports = 42_000..42_100;
    let limited = ports.any(|port| {
        let server = format!("192.0.2.{}", 100 + port % 4);
        run(to(&server).udp(port, 53)) == Reason::SessionLimitSource
    });
    assert!(limited, "a source may have as many sessions as it likes");
}

/// What traffic that was worth it has brought about, and this has not; screens keep much of it from coming far.
fn missing(
    twins: &Twins,
    seen: &BTreeMap<Reason, usize>,
    held: usize,
    nat: bool,
    screens: bool,
) -> Vec<String> {
    let mut missing = Vec::new();
    if !screens && held <= 50 {
        missing.push(format!(
            "more than {held} fragments that come before the first of their datagram"
        ));
    }
    let translated: &[Reason] = if nat && !screens { TRANSLATED } else { &[] };
    let expected = if screens { SCREENED } else { PLAIN };
    missing.extend(
        expected
            .iter()
            .chain(translated)
            .filter(|reason| !seen.contains_key(reason))
            .map(|reason| format!("a packet that ends as {}", reason.name())),
    );
    if nat && !screens {
        let counters = twins.host.tables.counters();
        let counted = |name: &str| counters.get(name).copied().unwrap_or(0);
        missing.extend(
            [
                "nat_mappings_created",
                "nat_mappings_used",
                "nat_mappings_removed",
            ]
            .into_iter()
            .filter(|name| counted(name) <= 10)
            .map(|name| format!("more than {} {name}", counted(name))),
        );
    }
    missing
}

/// Runs random traffic through both worlds.
fn differential(nat: bool, screens: bool, seed: u64) {
    let namespace = Namespace::new("bhdiff").expect("a network namespace");
    let mut netlink = namespace.netlink().expect("netlink");
    // A test run wants interfaces that exist: the two ends of one veth.
    let ends = VethSpec {
        name: "outside",
        peer_name: "dmz",
        peer_namespace: None,
        queues: 0,
        mtu: None,
    };
    let outside = netlink.create_veth(&ends).expect("a veth pair");
    namespace.run(|| {
        let dmz = nix::net::if_::if_nametoindex("dmz").expect("the veth's other end");
        // One CPU: tokens and session numbers are counted per CPU.
        let mut cpus = nix::sched::CpuSet::new();
        cpus.set(0).expect("CPU 0");
        nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &cpus).expect("CPU 0");
        let mut twins = Twins::new([1, outside, dmz], nat, screens);
        let mut random = Random::new(seed);
        let mut traffic = Traffic::default();
        traffic.translated = nat;
        let mut seen: BTreeMap<Reason, usize> = BTreeMap::new();
        let mut open = true;
        let mut held = 0;
        if nat && !screens {
            rehearse(&mut twins, &mut seen);
        }
        if !screens {
            guess(&mut twins, &mut seen);
            rehearse_plain(&mut twins, &mut seen);
        }
        for turn in 1..=PACKETS {
            // `missing` is not cheap.
            if turn > effort(PACKETS)
                && turn % 50 == 1
                && missing(&twins, &seen, held, nat, screens).is_empty()
            {
                println!("enough after {turn} packets");
                break;
            }
            let Input {
                number,
                egress,
                bytes,
            } = traffic.next(&mut random);
            if !has_network_header(&bytes) {
                let outcome = twins.run(Program::Xdp, 0, &bytes);
                *seen.entry(outcome.verdict.reason).or_default() += 1;
            } else if egress {
                let outcome = twins.run(Program::Egress, number, &bytes);
                *seen.entry(outcome.verdict.reason).or_default() += 1;
            } else {
                // As a frame meets them: XDP first where it can be run, then TCX if XDP has not settled it.
                let mut settled = false;
                if number == 0 {
                    let outcome = twins.run(Program::Xdp, number, &bytes);
                    settled = outcome.verdict.action != Action::NextHook;
                    if settled {
                        *seen.entry(outcome.verdict.reason).or_default() += 1;
                    }
                }
                if !settled || random.one_in(4) {
                    let outcome = twins.run(Program::Ingress, number, &bytes);
                    if outcome.verdict.action == Action::Held {
                        held += 1;
                    } else {
                        *seen.entry(outcome.verdict.reason).or_default() += 1;
                    }
                    traffic.learn(&outcome);
                }
            }
            if turn.is_multiple_of(97) {
                let known = random.one_in(2);
                twins.neighbour(2, "10.3.0.2", known);
                twins.neighbour(0, "2001:db8:1::3", known);
                twins.new_epoch();
            }
            if turn.is_multiple_of(401) {
                open = !open;
                twins.commit(open);
            }
            if turn.is_multiple_of(23) {
                let family = if random.one_in(2) { 4 } else { 6 };
                let table = if random.one_in(2) {
                    Table::Established
                } else {
                    Table::HalfOpen
                };
                let mut keys: Vec<_> = twins
                    .host
                    .tables
                    .flows(table, family)
                    .entries()
                    .into_iter()
                    .map(|(key, _)| key)
                    .collect();
                keys.sort_by_key(sortable);
                if !keys.is_empty() {
                    let key = keys[random.below(keys.len())];
                    // One ms, and a pause of some ticks of the clock: every session has been idle for that long.
                    let early_ms = u32::from(random.one_in(2));
                    if early_ms != 0 {
                        std::thread::sleep(Duration::from_millis(15));
                    }
                    let ageing = match random.below(4) {
                        0 => Ageing::Clear,
                        1 => Ageing::Collect(early_ms),
                        _ => Ageing::Mark(early_ms),
                    };
                    twins.age(family, &key, ageing);
                    if random.one_in(2) {
                        twins.age(family, &key, Ageing::Collect(early_ms));
                    }
                }
            }
            if turn.is_multiple_of(149) {
                let mut mappings: Vec<_> = twins.host.tables.mappings.entries();
                mappings.sort_by_key(|(key, _)| (key.address_be, key.port, key.protocol));
                if !mappings.is_empty() {
                    let (outside, _) = mappings[random.below(mappings.len())];
                    twins.expire_mapping(&outside);
                }
            }
            if turn.is_multiple_of(250) {
                twins.compare_flows();
                twins.compare_datagrams();
            }
        }
        twins.compare_screens();
        let flows = twins.compare_flows();
        println!("seed {seed}: {flows} flows at the end; packets by reason: {seen:?}");
        let missing = missing(&twins, &seen, held, nat, screens);
        assert!(missing.is_empty(), "there was not {}", missing.join(", nor "));
    });
}

fn seed(default: u64) -> u64 {
    match std::env::var("BULKHEAD_SEED") {
        Ok(seed) => seed.parse().expect("BULKHEAD_SEED is a number"),
        Err(_) => default,
    }
}

#[test]
fn prog_run_differential_without_nat() {
    if privileged() {
        differential(false, false, seed(1));
    }
}

#[test]
fn prog_run_differential_with_nat() {
    if privileged() {
        differential(true, false, seed(2));
    }
}

#[test]
fn prog_run_differential_with_screens() {
    if privileged() {
        differential(true, true, seed(3));
    }
}
