//! A SYN flood against real stacks: who connects meanwhile is proxied by cookies, who was connected notices nothing.

mod common;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bulkhead_abi::{RateState, Screen, ScreenKey};
use bulkhead_dataplane::{
    engine::Engine,
    ruleset::{HookMode, InterfaceRule, Prefix, Ruleset, Screen as Profile, Wire},
};
use bulkhead_testkit::{
    Frame, Host, HostSpec, HttpServer, Offloads, Outcome, RawPort, TcpConversation, TcpServer, Topology,
    patience, verify::pseudo_header_sum, verify_checksums,
};

/// A port whose server speaks first; on port 80 the client does.
const GREETING: u16 = 5001;
/// A permitted port without a server.
const CLOSED: u16 = 5002;
/// Table number of the zone `inside`.
const INSIDE: u8 = 1;
/// SYNs per family that one test sends at most.
const MOST_SYNS: u64 = 40_000;

/// The common rules and two more ports.
fn rules(hook: HookMode, nat: bool) -> Ruleset {
    let mut rules = common::ruleset(hook, nat);
    for (name, port) in [("greeting", GREETING), ("closed", CLOSED)] {
        rules.policies[1].service.push(rules.services.len());
        rules.services.push(common::tcp(name, port));
    }
    rules
}

fn key(address: IpAddr) -> ScreenKey {
    let mut address_be = [0; 4];
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    for (word, bytes) in address_be.iter_mut().zip(octets.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    ScreenKey {
        subject: ScreenKey::subject(Screen::SynFlood, INSIDE, if address.is_ipv4() { 4 } else { 6 }),
        address_be,
    }
}

/// Declares an address under attack, or no longer.
fn attack(engine: &Engine, address: IpAddr, on: bool) -> Result<()> {
    engine.with_object(|object| {
        if on {
            let state = RateState {
                until_ns: u64::MAX,
                ..RateState::default()
            };
            object.maps.screen_rates.set(&key(address), &state)?;
        } else {
            object.maps.screen_rates.remove(&key(address))?;
        }
        Ok(())
    })
}

/// SYNs from random strangers to both addresses of `victim`, until told to stop or at the most allowed.
fn flood(port: &RawPort, from: &Host, victim: &Host, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for number in 0..MOST_SYNS {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let [a, b, c, d, e, f, ..] = random.to_be_bytes();
        let sources: [(IpAddr, IpAddr); 2] = [
            (Ipv4Addr::new(100, a | 1, b, c).into(), victim.v4.into()),
            (
                Ipv6Addr::new(0x2001, 0xdb8, 0xbad, a.into(), b.into(), c.into(), d.into(), 1).into(),
                victim.v6.into(),
            ),
        ];
        for (source, destination) in sources {
            let syn = Frame::ip(source, destination)
                .macs(from.mac, from.firewall_mac)
                .tcp(u16::from_be_bytes([e | 4, f]), 80)
                .syn()
                .seq(random as u32)
                .build();
            port.send(&syn)?;
            sent.fetch_add(1, Ordering::Relaxed);
        }
        if number % 32 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}

/// Checks the checksums of all TCP frames that arrived on a port: finished ones are right, those left to be finished hold
/// the sum of their pseudo header.
fn inspect(port: &RawPort) -> Result<BTreeMap<bool, u64>> {
    let mut judged = BTreeMap::new();
    while let Some(seen) = port.receive(Duration::ZERO)? {
        let frame = &seen.frame;
        let (protocol, l4, addresses) = match frame.get(12..14) {
            Some([0x08, 0x00]) => (frame[23], 34, 26..34),
            Some([0x86, 0xdd]) => (frame[20], 54, 22..54),
            _ => continue,
        };
        if protocol != 6 {
            continue;
        }
        if seen.checksum_pending {
            let total = if l4 == 34 {
                usize::from(u16::from_be_bytes([frame[16], frame[17]])) - 20
            } else {
                usize::from(u16::from_be_bytes([frame[18], frame[19]]))
            };
            let middle = addresses.start + addresses.len() / 2;
            let (source, destination) = (&frame[addresses.start..middle], &frame[middle..addresses.end]);
            let pseudo = pseudo_header_sum(source, destination, 6, total as u32);
            let field = u16::from_be_bytes([frame[l4 + 16], frame[l4 + 17]]);
            ensure!(
                field == pseudo,
                "unfinished checksum {field:04x}, not {pseudo:04x}: {frame:02x?}"
            );
        } else {
            verify_checksums(frame).map_err(|error| anyhow::anyhow!("{error}: {frame:02x?}"))?;
        }
        *judged.entry(seen.checksum_pending).or_default() += 1;
    }
    Ok(judged)
}

struct Lab {
    lab: Topology,
    engine: Engine,
}

impl Lab {
    fn new(hook: HookMode, nat: bool, offloads: Offloads) -> Result<Self> {
        let host = |name| HostSpec::new(name).offloads(offloads);
        let lab = Topology::builder("bhc-")
            .host(host("inside"))
            .host(host("outside"))
            .host(host("stranger"))
            .build()?;
        let mut rules = rules(hook, nat);
        // A neighbour of `inside` in the same zone.
        rules.interfaces.push(InterfaceRule {
            name: "net3".into(),
            zone: 0,
            hook,
            ..InterfaceRule::default()
        });
        let engine = common::start(&lab, rules);
        Ok(Self { lab, engine })
    }

    /// Without the stranger.
    fn quiet(hook: HookMode, nat: bool) -> Self {
        let lab = common::topology(|host| host);
        let engine = common::start(&lab, rules(hook, nat));
        Self { lab, engine }
    }

    fn counter(&self, name: &str) -> Result<u64> {
        Ok(self.engine.counters()?[name])
    }

    /// A connection whose server speaks first.
    fn greeted(&self, server: IpAddr) -> Result<TcpConversation> {
        let client = self.lab.host("inside").client().timeout(Duration::from_secs(5));
        client
            .tcp(SocketAddr::new(server, GREETING))?
            .answered()
            .with_context(|| format!("{:#?}", self.engine.nonzero_counters()))
    }

    /// A request of a client that speaks first; how long it took.
    fn asked(&self, server: IpAddr, seen: IpAddr) -> Result<Duration> {
        let client = self.lab.host("inside").client().timeout(Duration::from_secs(5));
        let answer = client
            .http_get(SocketAddr::new(server, 80), "/")?
            .answered()
            .with_context(|| format!("{:#?}", self.engine.nonzero_counters()))?;
        assert_eq!((answer.body.as_str(), answer.seen_as.ip()), ("served", seen));
        Ok(answer.elapsed)
    }
}

fn exchange(conversation: &mut TcpConversation, up: u64, down: u64) -> Result<()> {
    conversation.exchange(up, down)?.answered().map(drop)
}

fn siege(hook: HookMode, nat: bool, offloads: Offloads) -> Result<()> {
    let lab = Lab::new(hook, nat, offloads)?;
    let (inside, outside, stranger) = (
        lab.lab.host("inside"),
        lab.lab.host("outside"),
        lab.lab.host("stranger"),
    );
    let seen = |server: IpAddr| -> IpAddr {
        match (server.is_ipv4(), nat) {
            (true, true) => outside.firewall_v4.into(),
            (true, false) => inside.v4.into(),
            (false, true) => outside.firewall_v6.into(),
            (false, false) => inside.v6.into(),
        }
    };
    let servers = outside.addresses();
    let mut listening = Vec::new();
    let mut serving = Vec::new();
    for server in servers {
        listening.push(TcpServer::start(&outside.namespace, (server, GREETING).into())?);
        serving.push(HttpServer::start(
            &outside.namespace,
            (server, 80).into(),
            "served",
        )?);
    }
    let at_client = RawPort::open(&inside.namespace, &inside.interface)?;
    let at_server = RawPort::open(&outside.namespace, &outside.interface)?;

    // Connected before: one per family.
    let mut before = Vec::new();
    for server in servers {
        before.push(lab.greeted(server)?);
    }
    assert_eq!(lab.counter("syn_cookie_sent")?, 0);
    for server in servers {
        attack(&lab.engine, server, true)?;
    }
    // In peace first: no retransmission may be needed, nor the timer of a closed window (200 ms).
    for server in servers {
        let fastest = (0..5)
            .map(|_| lab.asked(server, seen(server)))
            .collect::<Result<Vec<_>>>()?;
        let fastest = fastest.into_iter().min().context("five of them")?;
        assert!(fastest < patience(Duration::from_millis(150)), "{fastest:?}");
    }
    assert_eq!(
        lab.counter("syn_cookie_sent")?,
        lab.counter("syn_cookies_accepted")?
    );
    inspect(&at_client)?;
    inspect(&at_server)?;

    let port = RawPort::open(&stranger.namespace, &stranger.interface)?;
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut during = Vec::new();
    thread::scope(|scope| -> Result<()> {
        let flooding = scope.spawn(|| flood(&port, stranger, outside, &stop, &sent));
        let result = (|| {
            while sent.load(Ordering::Relaxed) < 5_000 {
                ensure!(!flooding.is_finished(), "the flood ended early");
                thread::sleep(Duration::from_millis(1));
            }
            for server in servers {
                lab.asked(server, seen(server))?;
                let mut conversation = lab.greeted(server)?;
                assert_eq!(conversation.seen_as().ip(), seen(server));
                exchange(&mut conversation, 300_000, 300_000)?;
                during.push(conversation);
            }
            for conversation in &mut before {
                exchange(conversation, 100_000, 100_000)?;
            }
            ensure!(
                !flooding.is_finished(),
                "the flood was over before the conversations were"
            );
            Ok(())
        })();
        stop.store(true, Ordering::Relaxed);
        flooding.join().expect("the flood does not panic")?;
        result
    })?;

    // No state for any stranger: their SYNs were answered, and that was all.
    let sent = sent.load(Ordering::Relaxed);
    let answered = lab.counter("syn_cookie_sent")?;
    assert!(answered >= sent, "{answered} answers to {sent} SYNs and our own");
    let half_open = lab.engine.with_object(|object| -> Result<usize> {
        Ok(object.maps.half_open4.keys()?.len() + object.maps.half_open6.keys()?.len())
    })?;
    assert!(half_open < 50, "{half_open} half-open flows");
    for (name, who) in [("client", &at_client), ("server", &at_server)] {
        let judged = inspect(who).with_context(|| format!("at the {name}"))?;
        assert!(judged.values().sum::<u64>() > 20, "{name}: {judged:?}");
    }

    // Peace again: new SYNs go through, the proxied connections stay what they are.
    for server in servers {
        attack(&lab.engine, server, false)?;
    }
    for server in servers {
        lab.asked(server, seen(server))?;
        before.push(lab.greeted(server)?);
    }
    assert_eq!(lab.counter("syn_cookie_sent")?, answered);
    for mut conversation in before.into_iter().chain(during) {
        exchange(&mut conversation, 50_000, 50_000)?;
        conversation.close()?;
    }
    for reason in [
        "rewrite_failed",
        "internal",
        "syn_cookie_impossible",
        "tcp_state_invalid",
    ] {
        assert_eq!(lab.counter(reason)?, 0, "{:#?}", lab.engine.nonzero_counters());
    }
    drop((listening, serving));
    Ok(())
}

#[test]
fn netns_a_flood_is_survived_over_tcx() -> Result<()> {
    siege(HookMode::Tcx, false, Offloads::Default)
}

#[test]
fn netns_a_flood_is_survived_over_tcx_with_source_nat() -> Result<()> {
    siege(HookMode::Tcx, true, Offloads::Default)
}

#[test]
fn netns_a_flood_is_survived_without_offloads() -> Result<()> {
    siege(HookMode::Tcx, true, Offloads::Off)
}

#[test]
fn netns_a_flood_is_survived_over_forced_xdp() -> Result<()> {
    siege(HookMode::Xdp, false, Offloads::Default)
}

#[test]
fn netns_a_flood_is_survived_over_forced_xdp_with_source_nat_without_offloads() -> Result<()> {
    siege(HookMode::Xdp, true, Offloads::Off)
}

/// The client is connected before the server is asked; it must still learn quickly that nobody listens.
#[test]
fn netns_a_closed_port_is_a_reset_not_silence() -> Result<()> {
    for (hook, nat) in [(HookMode::Tcx, false), (HookMode::Xdp, true)] {
        let lab = Lab::quiet(hook, nat);
        for server in lab.lab.host("outside").addresses() {
            attack(&lab.engine, server, true)?;
            let client = lab.lab.host("inside").client().timeout(Duration::from_secs(3));
            let outcome = client.tcp(SocketAddr::new(server, CLOSED))?;
            let told = match &outcome {
                Outcome::Refused => true,
                Outcome::Broken(what) => what.contains("reset"),
                _ => false,
            };
            assert!(told, "{outcome:?}: {:#?}", lab.engine.nonzero_counters());
        }
    }
    Ok(())
}

/// The first SYN to the server is lost. The client is connected as far as it knows and says nothing until it is greeted, so
/// it is the firewall that has to try again.
#[test]
fn netns_a_lost_syn_to_a_server_that_speaks_first_is_repeated() -> Result<()> {
    for nat in [false, true] {
        let lab = common::topology(|host| host);
        let mut rules = rules(HookMode::Auto, nat);
        rules.screens = vec![Profile {
            syn_flood_attack: Some(1_000_000),
            ..Profile::default()
        }];
        rules.zones[0].screen = Some(0);
        let engine = common::start(&lab, rules);
        let lab = Lab { lab, engine };
        let outside = lab.lab.host("outside");
        lab.lab.resolve_neighbours()?;
        for server in outside.addresses() {
            let _greeting = TcpServer::start(&outside.namespace, (server, GREETING).into())?;
            attack(&lab.engine, server, true)?;
            hears(outside, server, false)?;
            let before = lab.counter("session_created")?;
            thread::scope(|scope| -> Result<()> {
                let greeted = scope.spawn(|| lab.greeted(server));
                while lab.counter("session_created")? == before {
                    ensure!(!greeted.is_finished(), "{:#?}", lab.engine.nonzero_counters());
                    thread::sleep(Duration::from_millis(5));
                }
                thread::sleep(patience(Duration::from_millis(100)));
                assert!(!greeted.is_finished(), "greeted by a server that hears nothing");
                hears(outside, server, true)?;
                let mut conversation = greeted.join().expect("no panic")?;
                exchange(&mut conversation, 10_000, 10_000)?;
                conversation.close()
            })?;
        }
        let counters = lab.engine.nonzero_counters();
        assert!(counters["frames_injected"] >= 2, "{counters:#?}");
        assert_eq!(counters["syn_cookies_accepted"], 2, "{counters:#?}");
    }
    Ok(())
}

/// Has a host take, or drop without a word, what is sent to its address: what is not local is to be forwarded, and it
/// forwards nothing.
fn hears(host: &Host, address: IpAddr, hears: bool) -> Result<()> {
    let (family, change) = (
        if address.is_ipv4() { 4 } else { 6 },
        if hears { "add" } else { "del" },
    );
    let interface = &host.interface;
    let arguments = format!("-{family} route {change} local {address} dev {interface} table local");
    let status = host
        .namespace
        .run(|| Command::new("ip").args(arguments.split(' ')).status())?;
    ensure!(status.success(), "ip {arguments}");
    Ok(())
}

/// A TCP header as captured: flags, sequence and acknowledgement numbers, segment size.
#[derive(Debug)]
struct Seen {
    flags: u8,
    seq: u32,
    ack: u32,
    mss: Option<u16>,
}

/// The next frame of this connection, checked.
fn next(port: &RawPort, source_port: u16, destination_port: u16) -> Result<Option<Seen>> {
    let l4 = |frame: &[u8]| if frame[12] == 8 { 34 } else { 54 };
    let ports = [source_port.to_be_bytes(), destination_port.to_be_bytes()].concat();
    let found = port.receive_matching(Duration::from_millis(700), |seen| {
        let frame = &seen.frame;
        matches!(frame[12..14], [0x08, 0x00] | [0x86, 0xdd])
            && frame.len() >= l4(frame) + 20
            && frame[l4(frame)..l4(frame) + 4] == ports
    })?;
    let Some(found) = found else { return Ok(None) };
    verify_checksums(&found.frame).map_err(|error| anyhow::anyhow!("{error}: {found:02x?}"))?;
    let tcp = &found.frame[l4(&found.frame)..];
    let number = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
    ensure!(
        found.frame.len() >= 58,
        "a segment of {} bytes",
        found.frame.len()
    );
    let mss = (tcp[12] == 0x60 && tcp[20..22] == [2, 4]).then(|| u16::from_be_bytes([tcp[22], tcp[23]]));
    Ok(Some(Seen {
        flags: tcp[13],
        seq: number(4),
        ack: number(8),
        mss,
    }))
}

/// The kernel's helpers and the frames around them, packet by packet: segment sizes, lengths that grow and shrink, forged
/// acknowledgements.
#[test]
fn netns_a_cookie_remembers_the_segment_size_and_cannot_be_guessed() -> Result<()> {
    let lab = Lab::quiet(HookMode::Tcx, false);
    lab.lab.resolve_neighbours()?;
    let (inside, outside) = (lab.lab.host("inside"), lab.lab.host("outside"));
    let (client, server) = (
        RawPort::open(&inside.namespace, &inside.interface)?,
        RawPort::open(&outside.namespace, &outside.interface)?,
    );
    for address in outside.addresses() {
        attack(&lab.engine, address, true)?;
    }
    // Not the hosts' own addresses: their stacks have no part in this.
    let strangers: [(IpAddr, IpAddr); 2] = [
        ("10.77.0.99".parse()?, outside.v4.into()),
        ("fd77:0::99".parse()?, outside.v6.into()),
    ];
    let mut port = 20_000;
    for (stranger, address) in strangers {
        let sizes: [(Option<u16>, u16); 5] = if address.is_ipv4() {
            [
                (None, 536),
                (Some(600), 536),
                (Some(1300), 1300),
                (Some(1459), 1440),
                (Some(9000), 1460),
            ]
        } else {
            [
                (None, 1220),
                (Some(1300), 1220),
                (Some(1420), 1420),
                (Some(1440), 1440),
                (Some(9000), 1440),
            ]
        };
        for (offered, remembered) in sizes.into_iter().cycle().take(15) {
            let frame = |port: u16| {
                Frame::ip(stranger, address)
                    .macs(inside.mac, inside.firewall_mac)
                    .tcp(port, 80)
            };
            // Once more if the minute changed between cookie and proof.
            let mut opened = None;
            for _ in 0..2 {
                port += 1;
                let syn = frame(port).syn().seq(0xffff_ffff).payload(b"fast open");
                let syn = match offered {
                    None => syn.build(),
                    Some(mss) => {
                        let [high, low] = mss.to_be_bytes();
                        let options = [4, 2, 1, 3, 3, 7, 2, 4, high, low, 0, 0];
                        syn.tcp_header(|header| header.set_options_raw(&options).expect("12 bytes fit"))
                            .build()
                    }
                };
                client.send(&syn)?;
                let answer = next(&client, 80, port)?.context("no answer to a SYN")?;
                assert_eq!(
                    (answer.flags, answer.ack, answer.mss),
                    (0x12, 0, Some(remembered))
                );
                // (The neighbours of the acknowledgement are cookies for other segment sizes.)
                for (seq, ack) in [(1, answer.seq.wrapping_add(1)), (0, answer.seq.wrapping_add(9))] {
                    client.send(&frame(port).seq(seq).ack(ack).build())?;
                }
                let refused = lab.counter("syn_cookies_refused")?;
                assert_eq!(refused % 2, 0);
                let proof = frame(port).ack(answer.seq.wrapping_add(1));
                // Data, a bare acknowledgement, or the probe of a closed window, which comes from one below.
                let proof = match port % 3 {
                    0 => proof.seq(0).payload(b"odd"),
                    1 => proof.seq(0),
                    _ => proof.seq(0xffff_ffff),
                };
                client.send(&proof.build())?;
                let seen = next(&server, port, 80)?.context("no SYN to the server")?;
                assert_eq!((seen.flags, seen.seq, seen.ack), (0x02, 0xffff_ffff, 0));
                opened = seen.mss;
                if opened == Some(remembered) {
                    break;
                }
            }
            assert_eq!(opened, Some(remembered), "offered {offered:?} to {address}");
        }
    }
    let counters = lab.engine.nonzero_counters();
    let count = |name| counters.get(name).copied().unwrap_or(0);
    assert_eq!(
        count("syn_cookies_refused"),
        2 * count("syn_cookie_sent"),
        "{counters:#?}"
    );
    assert_eq!(
        count("syn_cookies_refused"),
        count("tcp_no_session"),
        "{counters:#?}"
    );
    assert_eq!(
        count("syn_cookies_accepted"),
        count("syn_cookie_sent"),
        "{counters:#?}"
    );
    Ok(())
}

/// A wire's ends answer for one another as well.
#[test]
fn netns_on_a_wire_the_server_is_answered_for() -> Result<()> {
    let lab = common::topology(|host| host);
    for (host, number) in [("inside", 1), ("outside", 2)] {
        let namespace = &lab.host(host).namespace;
        for arguments in [
            format!("addr add 10.99.0.{number}/24 dev eth0"),
            format!("-6 addr add fd99::{number}/64 dev eth0 nodad"),
        ] {
            let status = namespace.run(|| Command::new("ip").args(arguments.split(' ')).status())?;
            ensure!(status.success(), "ip {arguments}");
        }
    }
    let servers: [IpAddr; 2] = ["10.99.0.2".parse()?, "fd99::2".parse()?];
    let mut rules = rules(HookMode::Auto, false);
    rules.wires = vec![Wire {
        name: "w".into(),
        interfaces: [0, 1],
        arp: true,
        non_ip: false,
    }];
    let members = servers.map(|address| Prefix {
        address,
        length: if address.is_ipv4() { 32 } else { 128 },
    });
    rules.groups[0].members = members.to_vec();
    let engine = common::start(&lab, rules);
    let lab = Lab { lab, engine };
    for server in servers {
        attack(&lab.engine, server, true)?;
        let _greeting = TcpServer::start(&lab.lab.host("outside").namespace, (server, GREETING).into())?;
        let mut conversation = lab.greeted(server)?;
        exchange(&mut conversation, 300_000, 300_000)?;
        conversation.close()?;
    }
    assert_eq!(lab.counter("syn_cookie_sent")?, 2);
    assert_eq!(lab.counter("syn_cookies_accepted")?, 2);
    Ok(())
}
