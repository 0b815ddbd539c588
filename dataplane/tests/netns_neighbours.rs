//! Addresses of translation's that lie on a segment and on no interface, as the neighbours there see them: real stacks
//! that have no route to them, over both hooks and both families.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use bulkhead_dataplane::{
    engine::{Engine, Options},
    ruleset::{
        Action, DestinationNat, Group, HookMode, InterfaceRule, Policy, Pool, Prefix, Ruleset, Service,
        ServiceMatch, SourceNat, SourceTranslation, StaticNat, Zone,
    },
};
use bulkhead_testkit::{
    Attachment, Host, HostSpec, HttpServer, RawPort, Tool, Topology, patience, privileged, verify_checksums,
};

/// On the segment of `outside`, per family: the pool's, the static rule's, the published one, nobody's.
const POOL: [&str; 2] = ["10.77.1.20", "fd77:1::20"];
const FIXED: [&str; 2] = ["10.77.1.30", "fd77:1::30"];
const PUBLISHED: [&str; 2] = ["10.77.1.80", "fd77:1::80"];
const NOBODY: [&str; 2] = ["10.77.1.99", "fd77:1::99"];

/// How long an answer is waited for that must come, and one that must not.
const fn wait(expected: bool) -> Duration {
    Duration::from_millis(if expected { 5000 } else { 300 })
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn full(address: IpAddr) -> Prefix {
    Prefix {
        length: if address.is_ipv4() { 32 } else { 128 },
        address,
    }
}

fn address_of(host: &Host, v4: bool) -> IpAddr {
    host.addresses()[usize::from(!v4)]
}

/// `outside` knows no route to anybody: what it reaches beyond the firewall it reaches by asking its neighbours.
fn lab(hook: HookMode, attachment: Attachment) -> Result<Topology> {
    let host = |name| match hook {
        // A veth takes redirected XDP frames only if its peer has GRO on.
        HookMode::Xdp => HostSpec::new(name).host_gro(),
        HookMode::Auto | HookMode::Tcx => HostSpec::new(name).attachment(attachment),
    };
    Topology::builder("bhar-")
        .host(host("inside"))
        .host(host("outside").internet())
        .host(host("fixed"))
        .build()
}

/// Everything is permitted; sources leave as the pool's address, `fixed` has an outside address of its own, `inside` serves
/// HTTP under another.
fn rules(lab: &Topology, hook: HookMode) -> Ruleset {
    let inside = lab.host("inside");
    let zone = |name: &str| Zone {
        name: name.into(),
        ..Zone::default()
    };
    let interface = |host: &str, zone| InterfaceRule {
        name: lab.host(host).firewall_interface.clone(),
        zone,
        routes: Vec::new(),
        addresses: vec![],
        hook,
    };
    let pool = |name: &str, addresses: &[IpAddr]| Pool {
        name: name.into(),
        ranges: addresses.iter().map(|address| (*address, *address)).collect(),
        ports: Some((1024, 65_535)),
        paired: true,
        ..Pool::default()
    };
    let servers: Vec<IpAddr> = inside.addresses().to_vec();
    let mut destination_pool = pool("servers", &servers);
    destination_pool.ports = None;
    let fixed = |name: &str, outside: IpAddr, inside: IpAddr| StaticNat {
        name: name.into(),
        from: vec![1],
        outside: full(outside),
        inside: full(inside),
        npt: false,
    };
    Ruleset {
        zones: vec![zone("inside"), zone("outside")],
        interfaces: vec![
            interface("inside", 0),
            interface("outside", 1),
            interface("fixed", 0),
        ],
        groups: vec![Group {
            name: "published".into(),
            members: PUBLISHED.map(ip).map(full).to_vec(),
            ..Group::default()
        }],
        services: vec![Service {
            name: "web".into(),
            matches: vec![ServiceMatch::Ports {
                protocol: 6,
                first: 80,
                last: 80,
            }],
            ..Service::default()
        }],
        policies: vec![Policy {
            name: "all".into(),
            action: Action::Permit,
            ..Policy::default()
        }],
        pools: vec![pool("pub", &POOL.map(ip)), destination_pool],
        source_nat: vec![SourceNat {
            name: "out".into(),
            from: vec![0],
            to: vec![1],
            translation: SourceTranslation::Pool(0),
            ..SourceNat::default()
        }],
        destination_nat: vec![DestinationNat {
            name: "www".into(),
            from: vec![1],
            destination: vec![0],
            service: vec![0],
            pool: Some(1),
            ..DestinationNat::default()
        }],
        static_nat: vec![
            fixed("four", ip(FIXED[0]), address_of(lab.host("fixed"), true)),
            fixed("six", ip(FIXED[1]), address_of(lab.host("fixed"), false)),
        ],
        answers_per_second: 100,
        deny_events_per_second: 100,
        ..Ruleset::default()
    }
}

fn start(lab: &Topology, rules: Ruleset) -> Engine {
    lab.firewall()
        .run(|| Engine::start(rules, &Options::default()))
        .expect("an engine")
}

/// What a host's stack has learned of a neighbour.
fn learned(host: &Host, address: IpAddr) -> Result<Option<[u8; 6]>> {
    let mut netlink = host.namespace.netlink()?;
    let index = netlink.link_by_name(&host.interface)?.index;
    Ok(netlink
        .neighbour(index, address)?
        .filter(|neighbour| neighbour.usable())
        .and_then(|neighbour| neighbour.mac))
}

fn labs() -> impl Iterator<Item = (HookMode, Attachment)> {
    [
        (HookMode::Tcx, Attachment::Veth),
        (HookMode::Xdp, Attachment::Veth),
        (HookMode::Tcx, Attachment::Macvlan),
    ]
    .into_iter()
    .filter(|_| privileged())
}

#[test]
fn netns_addresses_of_translation_are_reached_from_their_segment_without_a_route() -> Result<()> {
    for (hook, attachment) in labs() {
        let lab = lab(hook, attachment)?;
        let engine = start(&lab, rules(&lab, hook));
        let (inside, outside) = (lab.host("inside"), lab.host("outside"));
        for v4 in [true, false] {
            let at = usize::from(!v4);
            let what = || {
                format!(
                    "{hook:?}, {attachment:?}, IPv4: {v4}: {:#?}",
                    engine.nonzero_counters()
                )
            };
            // Answers to the pool's address come back only if somebody says whose it is.
            let server = address_of(outside, v4);
            let _http = HttpServer::start(&outside.namespace, (server, 80).into(), "hello")?;
            let client = inside.client().timeout(Duration::from_millis(2500));
            let answer = client
                .http_get((server, 80).into(), "/")?
                .answered()
                .with_context(what)?;
            assert_eq!(answer.seen_as.ip(), ip(POOL[at]));
            client.ping(server)?.answered().with_context(what)?;
            // From the segment to the static address, and to the published one.
            let _http = HttpServer::start(&inside.namespace, (address_of(inside, v4), 80).into(), "inside")?;
            let client = outside.client().timeout(Duration::from_millis(2500));
            client.ping(ip(FIXED[at]))?.answered().with_context(what)?;
            let answer = client
                .http_get((ip(PUBLISHED[at]), 80).into(), "/")?
                .answered()
                .with_context(what)?;
            assert_eq!(answer.body, "inside");
            for address in [POOL[at], FIXED[at], PUBLISHED[at]] {
                assert_eq!(
                    learned(outside, ip(address))?,
                    Some(outside.firewall_mac),
                    "{address}"
                );
            }
            // Nobody's address stays nobody's, and the inside segment is told nothing about the outside's.
            let outcome = client.ping(ip(NOBODY[at]))?;
            assert!(!outcome.is_answered(), "{outcome:?}");
            assert_eq!(learned(outside, ip(NOBODY[at]))?, None);
        }
        assert!(engine.counters()?["neighbour_answered"] >= 6);
    }
    Ok(())
}

/// RFC 4862, 5.4, by a real stack; RFC 5227, 2.1.1, by hand.
#[test]
fn netns_a_duplicate_address_is_detected() -> Result<()> {
    for (hook, attachment) in labs() {
        let lab = lab(hook, attachment)?;
        let _engine = start(&lab, rules(&lab, hook));
        let outside = lab.host("outside");
        let interface = &outside.interface;
        outside
            .namespace
            .set_sysctl(&format!("net/ipv6/conf/{interface}/accept_dad"), "1")?;
        outside
            .namespace
            .set_sysctl(&format!("net/ipv6/conf/{interface}/dad_transmits"), "1")?;
        for address in [POOL[1], NOBODY[1]] {
            Tool::new("ip")
                .args(["-6", "address", "add", &format!("{address}/64"), "dev", interface])
                .run(&outside.namespace)?
                .success()?;
        }
        let deadline = Instant::now() + patience(Duration::from_secs(10));
        loop {
            let shown = Tool::new("ip")
                .args(["-6", "-o", "address", "show", "dev", interface])
                .run(&outside.namespace)?
                .success()?
                .stdout;
            let line = |address: &str| {
                shown
                    .lines()
                    .find(|line| line.contains(&format!("{address}/64")))
                    .unwrap_or_default()
                    .to_owned()
            };
            let (taken, free) = (line(POOL[1]), line(NOBODY[1]));
            if !taken.contains("tentative") || taken.contains("dadfailed") {
                ensure!(taken.contains("dadfailed"), "not detected: {shown}");
                if !free.contains("tentative") {
                    ensure!(!free.contains("dadfailed"), "{shown}");
                    break;
                }
            }
            if Instant::now() > deadline {
                bail!("no decision in time: {shown}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let port = RawPort::open(&outside.namespace, interface)?;
        for (address, expected) in [(POOL[0], true), (NOBODY[0], false), (PUBLISHED[0], true)] {
            let answer = ask(&port, Ipv4Addr::UNSPECIFIED, address, expected)?;
            assert_eq!(answer.is_some(), expected, "{address}");
            if let Some(answer) = answer {
                assert_eq!(answer[..6], port.mac());
                assert_eq!(answer[6..12], outside.firewall_mac);
                assert_eq!(answer[22..28], outside.firewall_mac);
            }
        }
    }
    Ok(())
}

/// Sends an ARP request and returns the reply about its target, if one comes.
fn ask(port: &RawPort, sender: Ipv4Addr, target: &str, expected: bool) -> Result<Option<Vec<u8>>> {
    let IpAddr::V4(target) = ip(target) else {
        bail!("{target} is not IPv4")
    };
    let mac = port.mac();
    let frame = [
        &[0xff; 6][..],
        &mac,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &mac,
        &sender.octets(),
        &[0; 6],
        &target.octets(),
    ]
    .concat();
    port.drain()?;
    port.send(&frame)?;
    let is_reply = |captured: &bulkhead_testkit::raw_port::Captured| {
        let frame = &captured.frame;
        frame.len() >= 42
            && frame[12..14] == [8, 6]
            && frame[20..22] == [0, 2]
            && frame[28..32] == target.octets()
    };
    let reply = port.receive_matching(wait(expected), is_reply)?;
    Ok(reply.map(|captured| captured.frame))
}

/// A solicitation with these options behind the target; its checksum is right.
fn solicitation(host: &Host, target: &str, hop_limit: u8, options: &[u8]) -> Result<Vec<u8>> {
    let IpAddr::V6(target) = ip(target) else {
        bail!("{target} is not IPv6")
    };
    let t = target.octets();
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(t[13]),
        u16::from_be_bytes([t[14], t[15]]),
    );
    let station = [0x33, 0x33, 0xff, t[13], t[14], t[15]];
    let body = [&t[..], options].concat();
    let mut frame = Vec::new();
    etherparse::PacketBuilder::ethernet2(host.mac, station)
        .ipv6(host.v6.octets(), group.octets(), hop_limit)
        .icmpv6_raw(135, 0, [0; 4])
        .write(&mut frame, &body)?;
    Ok(frame)
}

/// What is odd about a question leaves it unanswered, and hurts nobody.
#[test]
fn netns_hostile_questions_are_not_answered() -> Result<()> {
    for (hook, attachment) in labs() {
        let lab = lab(hook, attachment)?;
        let engine = start(&lab, rules(&lab, hook));
        let outside = lab.host("outside");
        let port = RawPort::open(&outside.namespace, &outside.interface)?;
        let advertised = |expected| -> Result<bool> {
            let target = ip(POOL[1]);
            let captured = port.receive_matching(wait(expected), |captured| {
                let frame = &captured.frame;
                frame.len() >= 86
                    && frame[12..14] == [0x86, 0xdd]
                    && frame[20] == 58
                    && frame[54] == 136
                    && frame[58] & 0x40 != 0
                    && IpAddr::V6(Ipv6Addr::from(
                        <[u8; 16]>::try_from(&frame[62..78]).expect("sixteen bytes"),
                    )) == target
            })?;
            if let Some(captured) = &captured {
                verify_checksums(&captured.frame).map_err(anyhow::Error::msg)?;
                assert_eq!(captured.frame[21], 255, "hop limit");
            }
            Ok(captured.is_some())
        };
        let station = [&[1, 1][..], &outside.mac].concat();
        let nonce = [14, 1, 1, 2, 3, 4, 5, 6];
        let many = nonce.repeat(14);
        for (what, hop_limit, options, expected) in [
            ("in good faith", 255, &station[..], true),
            ("with a nonce", 255, &[&station[..], &nonce].concat(), true),
            ("as many options as are looked at", 255, &many, true),
            ("more", 255, &nonce.repeat(15), false),
            ("from afar", 64, &station, false),
            ("an option without length", 255, &[1, 0, 0, 0, 0, 0, 0, 0], false),
            (
                "an option beyond the end",
                255,
                &[14, 31, 0, 0, 0, 0, 0, 0],
                false,
            ),
            ("half an option", 255, &[14, 1, 0, 0], false),
        ] {
            port.drain()?;
            port.send(&solicitation(outside, POOL[1], hop_limit, options)?)?;
            assert_eq!(
                advertised(expected)?,
                expected,
                "{what}, {hook:?}, {attachment:?}: {:#?}",
                engine.nonzero_counters()
            );
        }
        let mut forged = solicitation(outside, POOL[1], 255, &station)?;
        forged[56] ^= 0x55;
        port.send(&forged)?;
        assert!(!advertised(false)?, "a wrong checksum");
        // A pool that covers a gateway does not make the firewall answer in its name.
        let mut rules = rules(&lab, hook);
        rules.pools[0].ranges = vec![(ip("10.77.1.0"), ip("10.77.1.63"))];
        lab.firewall().run(|| engine.commit(rules))?;
        let own = "10.77.1.1";
        let kernel = ask(&port, outside.v4, own, true)?.context("the firewall's own address")?;
        assert_eq!(kernel[22..28], outside.firewall_mac);
        let stranger = Ipv4Addr::new(10, 77, 1, 9);
        assert!(ask(&port, stranger, "10.77.1.40", true)?.is_some());
        assert!(ask(&port, stranger, &outside.v4.to_string(), false)?.is_none());
    }
    Ok(())
}

#[test]
fn netns_silent_translation_is_silent() -> Result<()> {
    for (hook, attachment) in labs() {
        let lab = lab(hook, attachment)?;
        let mut silent = rules(&lab, hook);
        silent.silent_nat = true;
        let engine = start(&lab, silent);
        let outside = lab.host("outside");
        let client = outside.client().timeout(Duration::from_millis(600));
        for address in FIXED.map(ip) {
            let outcome = client.ping(address)?;
            assert!(!outcome.is_answered(), "{outcome:?}");
        }
        assert_eq!(engine.counters()?["neighbour_answered"], 0);
        lab.firewall().run(|| engine.commit(rules(&lab, hook)))?;
        let client = outside.client().timeout(Duration::from_millis(2500));
        for address in FIXED.map(ip) {
            client.ping(address)?.answered()?;
        }
    }
    Ok(())
}

/// RFC 5227, 2.3 and RFC 4861, 7.2.6: whoever knew another station at an address learns of this one unasked, after the start and
/// after a commit; nobody is told what was told before, or what a destination rule names.
#[test]
fn netns_new_addresses_are_announced() -> Result<()> {
    for (hook, attachment) in labs() {
        let lab = lab(hook, attachment)?;
        let outside = lab.host("outside");
        let port = RawPort::open(&outside.namespace, &outside.interface)?;
        let told = |expected: &[&str]| -> Result<()> {
            let mut missing: Vec<IpAddr> = expected.iter().map(|text| ip(text)).collect();
            let deadline = Instant::now() + Duration::from_secs(10);
            while !missing.is_empty() {
                let left = deadline.saturating_duration_since(Instant::now());
                let captured = port
                    .receive_matching(left, |captured| announced(&captured.frame).is_some())?
                    .with_context(|| format!("not announced: {missing:?}, {hook:?}"))?;
                let address = announced(&captured.frame).context("an announcement")?;
                assert_eq!(captured.frame[6..12], outside.firewall_mac);
                ensure!(expected.iter().any(|text| ip(text) == address), "{address}");
                missing.retain(|one| *one != address);
            }
            Ok(())
        };
        let first = rules(&lab, hook);
        let engine = start(&lab, first.clone());
        told(&[POOL[0], POOL[1], FIXED[0], FIXED[1]])?;
        let mut next = first;
        let further = ["10.77.1.21", "fd77:1::21"];
        next.pools[0]
            .ranges
            .extend(further.map(|text| (ip(text), ip(text))));
        // The second time that each is told.
        std::thread::sleep(Duration::from_secs(5));
        port.drain()?;
        lab.firewall().run(|| engine.commit(next))?;
        told(&further)?;
    }
    Ok(())
}

/// The address that a frame announces.
fn announced(frame: &[u8]) -> Option<IpAddr> {
    let request = frame.get(12..14)? == [8, 6] && frame.get(20..22)? == [0, 1];
    if request && frame.get(28..32)? == frame.get(38..42)? {
        return Some(IpAddr::from(<[u8; 4]>::try_from(&frame[28..32]).ok()?));
    }
    let advertisement = frame.get(12..14)? == [0x86, 0xdd] && *frame.get(54)? == 136;
    if advertisement && frame.get(58..62)? == [0xa0, 0, 0, 0] {
        assert_eq!(verify_checksums(frame), Ok(()));
        return Some(IpAddr::from(<[u8; 16]>::try_from(&frame[62..78]).ok()?));
    }
    None
}
