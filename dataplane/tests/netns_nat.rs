//! Address translation between real stacks, over both hooks: pools, published servers, static prefixes, RFC 6296,
//! persistent mappings with hairpin, and what ends them.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use bulkhead_abi::Reason;
use bulkhead_dataplane::{
    engine::{Engine, Explain, Options},
    ruleset::{
        Action, DestinationNat, Filtering, Group, HookMode, InterfaceRule, Policy, Pool, Prefix, Ruleset,
        Service, ServiceMatch, SourceNat, SourceTranslation, StaticNat, Zone,
    },
};
use bulkhead_testkit::{
    Frame, Host, HostSpec, HttpServer, KernelCounters, Outcome, RawPort, TcpServer, Topology, UdpServer,
    patience, privileged, verify_checksums, xdp_reaches_hosts,
};

/// Addresses that nobody has but translation, per family.
const POOL: [&str; 2] = ["192.0.3.16", "2001:db8:f::16"];
const PUBLISHED: [&str; 2] = ["192.0.3.80", "2001:db8:f::80"];

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').expect("a prefix");
    Prefix {
        address: ip(address),
        length: length.parse().expect("a length"),
    }
}

fn full(address: IpAddr) -> Prefix {
    Prefix {
        length: if address.is_ipv4() { 32 } else { 128 },
        address,
    }
}

/// `inside` and `other` on one side, `outside` on the other.
fn lab(hook: HookMode) -> Result<Topology> {
    // A veth takes redirected XDP frames only if its peer has GRO on.
    let host = |name| match hook {
        HookMode::Xdp => HostSpec::new(name).host_gro(),
        HookMode::Auto | HookMode::Tcx => HostSpec::new(name),
    };
    Topology::builder("bhn-")
        .host(host("inside"))
        .host(host("outside"))
        .host(host("other"))
        .build()
}

/// Zones and interfaces; everything is permitted, so that only translation decides.
fn rules(hook: HookMode) -> Ruleset {
    let zone = |name: &str| Zone {
        name: name.into(),
        ..Zone::default()
    };
    let interface = |name: &str, zone| InterfaceRule {
        name: name.into(),
        zone,
        routes: Vec::new(),
        addresses: vec![],
        hook,
    };
    Ruleset {
        zones: vec![zone("inside"), zone("outside")],
        interfaces: vec![interface("net1", 0), interface("net2", 1), interface("net3", 0)],
        policies: vec![Policy {
            name: "all".into(),
            action: Action::Permit,
            ..Policy::default()
        }],
        answers_per_second: 100,
        deny_events_per_second: 100,
        ..Ruleset::default()
    }
}

fn pool(name: &str, addresses: &[IpAddr]) -> Pool {
    Pool {
        name: name.into(),
        ranges: addresses.iter().map(|address| (*address, *address)).collect(),
        ports: Some((1024, 65_535)),
        paired: true,
        ..Pool::default()
    }
}

/// From inside to outside by a pool of one address per family.
fn pooled(hook: HookMode) -> Ruleset {
    let mut rules = rules(hook);
    rules.pools = vec![pool("pub", &POOL.map(ip))];
    rules.source_nat = vec![SourceNat {
        name: "out".into(),
        from: vec![0],
        to: vec![1],
        translation: SourceTranslation::Pool(0),
        ..SourceNat::default()
    }];
    rules
}

fn start(lab: &Topology, rules: Ruleset) -> Engine {
    lab.firewall()
        .run(|| Engine::start(rules, &Options::default()))
        .expect("an engine")
}

fn address_of(host: &Host, v4: bool) -> IpAddr {
    if v4 {
        IpAddr::V4(host.v4)
    } else {
        IpAddr::V6(host.v6)
    }
}

fn hooks() -> impl Iterator<Item = HookMode> {
    [HookMode::Tcx, HookMode::Xdp]
        .into_iter()
        .filter(|_| privileged())
}

/// Waits until `done`, at most ten seconds on a usual machine.
fn eventually(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + patience(Duration::from_secs(10));
    while !done()? {
        if Instant::now() > deadline {
            bail!("{what}: not in time");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn netns_nat_source_pool() -> Result<()> {
    for hook in hooks() {
        let lab = lab(hook)?;
        let engine = start(&lab, pooled(hook));
        let outside = lab.host("outside");
        for own in POOL.map(ip) {
            let server = address_of(outside, own.is_ipv4());
            let _http = HttpServer::start(&outside.namespace, (server, 80).into(), "hello")?;
            let _dns = UdpServer::start(&outside.namespace, (server, 53).into())?;
            for host in ["inside", "other"] {
                let client = lab.host(host).client().timeout(Duration::from_millis(1500));
                let answer = client.http_get((server, 80).into(), "/")?.answered()?;
                assert_eq!((answer.body.as_str(), answer.seen_as.ip()), ("hello", own));
                let answer = client
                    .dns_query((server, 53).into(), "example.test")?
                    .answered()?;
                assert_eq!(answer.seen_as.ip(), own);
                client.ping(server)?.answered()?;
                // An error from the server's stack reaches the socket it is about.
                let outcome = client.dns_query((server, 54).into(), "example.test")?;
                assert!(
                    matches!(outcome, Outcome::Refused) || outcome.icmp().is_some(),
                    "{outcome:?}"
                );
            }
        }
        for own in POOL.map(ip) {
            let (near, far) = (
                address_of(lab.host("inside"), own.is_ipv4()),
                address_of(outside, own.is_ipv4()),
            );
            let question = |ingress: &str, source, destination| Explain {
                ingress: ingress.into(),
                source,
                destination,
                protocol: 17,
                source_port: 4000,
                destination_port: 53,
                icmp: None,
            };
            let explained = engine.explain(&question("inside", near, far))?;
            assert_eq!(explained.nat_rule.as_deref(), Some("out"));
            assert_eq!(explained.translated_source, Some(own));
            let explained = engine.explain(&question("outside", far, own))?;
            assert_eq!(
                (explained.verdict, explained.reason),
                ("deny", Reason::NatNoMapping)
            );
        }
        let pools = engine.pools();
        assert_eq!((pools[0].name.as_str(), pools[0].addresses), ("pub", 2));
        eventually("sessions of the pool", || Ok(engine.pools()[0].sessions >= 8))?;
        assert!(engine.nat_hits()?[0] >= 16);
    }
    Ok(())
}

/// RFC 5508, REQ-8: a client that gets no port is told at once, over TCP too.
#[test]
fn netns_nat_rfc5508_8_out_of_ports() -> Result<()> {
    for hook in hooks() {
        let lab = lab(hook)?;
        let mut rules = pooled(hook);
        rules.pools[0].ports = Some((2000, 2000));
        let engine = start(&lab, rules);
        let (inside, outside) = (lab.host("inside"), lab.host("outside"));
        let client = inside.client().timeout(Duration::from_millis(1500));
        for v4 in [true, false] {
            let server = address_of(outside, v4);
            let _tcp = TcpServer::start(&outside.namespace, (server, 80).into())?;
            let _udp = UdpServer::start(&outside.namespace, (server, 53).into())?;
            let held = client.tcp((server, 80).into())?.answered()?;
            client
                .dns_query((server, 53).into(), "example.test")?
                .answered()?;
            for outcome in [
                client.tcp((server, 80).into())?.map(|_| ()),
                client.dns_query((server, 53).into(), "example.test")?.map(|_| ()),
            ] {
                let error = outcome
                    .icmp()
                    .with_context(|| format!("no ICMP error: {outcome:?}"))?;
                let prohibited = if v4 { (3, 13) } else { (1, 1) };
                assert_eq!((error.kind, error.code), prohibited);
            }
            held.close()?;
        }
        assert!(engine.counters()?["nat_ports_exhausted"] >= 4);
    }
    Ok(())
}

/// A server inside under an outside address and another port.
fn published(lab: &Topology, hook: HookMode) -> Ruleset {
    let inside = lab.host("inside");
    let mut rules = rules(hook);
    rules.groups = vec![Group {
        name: "known".into(),
        members: PUBLISHED.map(ip).map(full).to_vec(),
        ..Group::default()
    }];
    rules.services = vec![Service {
        name: "web".into(),
        matches: vec![ServiceMatch::Ports {
            protocol: 6,
            first: 443,
            last: 443,
        }],
        ..Service::default()
    }];
    rules.pools = vec![Pool {
        ports: None,
        port: Some(8080),
        ..pool("servers", &inside.addresses())
    }];
    rules.destination_nat = vec![DestinationNat {
        name: "www".into(),
        from: vec![1],
        destination: vec![0],
        service: vec![0],
        pool: Some(0),
        ..DestinationNat::default()
    }];
    rules
}

#[test]
fn netns_nat_published_server() -> Result<()> {
    const BULK: u64 = 8 << 20;
    for hook in hooks() {
        let lab = lab(hook)?;
        let engine = start(&lab, published(&lab, hook));
        let (inside, outside) = (lab.host("inside"), lab.host("outside"));
        let before = [
            KernelCounters::snapshot(&inside.namespace)?,
            KernelCounters::snapshot(&outside.namespace)?,
        ];
        for known in PUBLISHED.map(ip) {
            let server = address_of(inside, known.is_ipv4());
            let _server = TcpServer::start(&inside.namespace, (server, 8080).into())?;
            let client = outside.client().timeout(Duration::from_millis(1500));
            let (transfer, _) = client.tcp_transfer((known, 443).into(), BULK, BULK)?.answered()?;
            assert_eq!((transfer.uploaded_bytes, transfer.downloaded_bytes), (BULK, BULK));
            assert_eq!(transfer_peer(&engine, known)?, (server, 8080).into());
        }
        for (host, before) in [inside, outside].into_iter().zip(&before) {
            let errors = KernelCounters::snapshot(&host.namespace)?.checksum_errors(before);
            assert!(
                errors.values().all(|count| *count == 0),
                "{}: {errors:?}",
                host.name
            );
        }
        assert_eq!(engine.all_nat_hits()?.destination, [2]);
        let counters = engine.counters()?;
        assert_eq!(
            counters["established_xdp"] > 0,
            hook == HookMode::Xdp && xdp_reaches_hosts()?
        );
        // What would happen, in the same words.
        for known in PUBLISHED.map(ip) {
            let explained = engine.explain(&Explain {
                ingress: "outside".into(),
                source: address_of(outside, known.is_ipv4()),
                destination: known,
                protocol: 6,
                source_port: 4000,
                destination_port: 443,
                icmp: None,
            })?;
            assert_eq!(
                (explained.verdict, explained.to_zone.as_str()),
                ("permit", "inside")
            );
            assert_eq!(explained.destination_rule.as_deref(), Some("www"));
            let server = address_of(inside, known.is_ipv4());
            assert_eq!(explained.translated_destination, Some((server, 8080).into()));
            assert_eq!(explained.nat_rule, None);
        }
    }
    Ok(())
}

/// Where the session to a published address really goes.
fn transfer_peer(engine: &Engine, known: IpAddr) -> Result<SocketAddr> {
    let sessions = engine.sessions(&|session| session.original.destination.ip() == known, 9)?;
    let session = sessions.sessions.first().context("a session")?;
    assert_eq!(session.destination_rule.as_deref(), Some("www"));
    Ok(session.reply.source)
}

/// Static prefixes, and RFC 6296 for IPv6: each host has its outside address in both directions, TCP with default
/// offloads included, whose checksums are not finished when they pass.
fn statically(npt: bool) -> Result<()> {
    for hook in hooks() {
        let lab = lab(hook)?;
        let mut rules = rules(hook);
        let rule = |name: &str, outside, inside, npt| StaticNat {
            name: name.into(),
            from: vec![1],
            outside: prefix(outside),
            inside: prefix(inside),
            npt,
        };
        rules.static_nat = vec![
            rule("four", "192.0.3.0/24", "10.77.0.0/24", false),
            rule("six", "2001:db8:f::/64", "fd77::/64", npt),
        ];
        let engine = start(&lab, rules);
        let (inside, outside) = (lab.host("inside"), lab.host("outside"));
        // Inside the sum of the prefix is 0xfd77, outside 0x2001 + 0x0db8 + 0xf: RFC 6296 makes up for the difference.
        let six = if npt {
            "2001:db8:f:0:cfaf::2"
        } else {
            "2001:db8:f::2"
        };
        let before = [
            KernelCounters::snapshot(&inside.namespace)?,
            KernelCounters::snapshot(&outside.namespace)?,
        ];
        for known in ["192.0.3.2", six].map(ip) {
            let v4 = known.is_ipv4();
            let (near, far) = (address_of(inside, v4), address_of(outside, v4));
            for (server_host, server, client_host, target, seen) in [
                (outside, far, inside, far, known),
                (inside, near, outside, known, far),
            ] {
                let _http = HttpServer::start(&server_host.namespace, (server, 80).into(), "hello")?;
                let _dns = UdpServer::start(&server_host.namespace, (server, 53).into())?;
                let _bulk = TcpServer::start(&server_host.namespace, (server, 81).into())?;
                let client = client_host.client().timeout(Duration::from_millis(1500));
                let answer = client
                    .http_get((target, 80).into(), "/")?
                    .answered()
                    .with_context(|| format!("{hook:?} to {target}: {:#?}", engine.nonzero_counters()))?;
                assert_eq!(answer.seen_as.ip(), seen);
                let answer = client
                    .dns_query((target, 53).into(), "example.test")?
                    .answered()?;
                assert_eq!(answer.seen_as.ip(), seen);
                client.ping(target)?.answered()?;
                let outcome = client.dns_query((target, 54).into(), "example.test")?;
                assert!(
                    matches!(outcome, Outcome::Refused) || outcome.icmp().is_some(),
                    "an error finds its way back: {outcome:?}"
                );
                client
                    .tcp_transfer((target, 81).into(), 4 << 20, 4 << 20)?
                    .answered()?;
            }
        }
        for (host, before) in [inside, outside].into_iter().zip(&before) {
            let errors = KernelCounters::snapshot(&host.namespace)?.checksum_errors(before);
            assert!(
                errors.values().all(|count| *count == 0),
                "{}: {errors:?}",
                host.name
            );
        }
        assert_eq!(
            engine.counters()?["established_xdp"] > 0,
            hook == HookMode::Xdp && xdp_reaches_hosts()?
        );
        let hits = engine.all_nat_hits()?.static_;
        assert!(
            hits.iter()
                .all(|(inwards, outwards)| *inwards >= 4 && *outwards >= 4),
            "{hits:?}"
        );
    }
    Ok(())
}

#[test]
fn netns_nat_static_prefixes() -> Result<()> {
    statically(false)
}

#[test]
fn netns_nat_rfc6296_prefixes() -> Result<()> {
    statically(true)
}

/// A socket of a host, with a short patience.
fn socket(host: &Host, address: IpAddr, port: u16) -> Result<UdpSocket> {
    let socket = host.namespace.run(|| UdpSocket::bind((address, port)))?;
    socket.set_read_timeout(Some(patience(Duration::from_millis(700))))?;
    Ok(socket)
}

/// What arrives, and from whom; `None` if nothing does.
fn receive(socket: &UdpSocket) -> Option<(String, SocketAddr)> {
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).ok()?;
    Some((String::from_utf8_lossy(&buffer[..length]).into_owned(), from))
}

fn persistent(hook: HookMode, filtering: Filtering, timeout: u64) -> Ruleset {
    let mut rules = pooled(hook);
    rules.source_nat[0].persistent = Some((filtering, Duration::from_secs(timeout)));
    rules
}

/// RFC 4787, REQ-1, REQ-8 and REQ-9: one outside end whatever the destination, filtering as configured, hairpin.
#[test]
fn netns_nat_rfc4787_mapping_filtering_and_hairpin() -> Result<()> {
    for (hook, filtering) in hooks().flat_map(|hook| {
        [Filtering::AnyRemoteHost, Filtering::TargetHostPort].map(|filtering| (hook, filtering))
    }) {
        let lab = lab(hook)?;
        let engine = start(&lab, persistent(hook, filtering, 300));
        let (inside, outside, other) = (lab.host("inside"), lab.host("outside"), lab.host("other"));
        let open = filtering == Filtering::AnyRemoteHost;
        for own in POOL.map(ip) {
            let v4 = own.is_ipv4();
            let local = socket(inside, address_of(inside, v4), 5000)?;
            let far = address_of(outside, v4);
            let (one, two) = (socket(outside, far, 6001)?, socket(outside, far, 6002)?);
            let known = SocketAddr::new(own, 5000);
            for (server, name) in [(&one, "one"), (&two, "two")] {
                local.send_to(name.as_bytes(), server.local_addr()?)?;
                assert_eq!(receive(server), Some((name.into(), known)));
            }
            // Both may answer, whatever the filtering; the third only where anybody may.
            for server in [&one, &two] {
                server.send_to(b"answer", known)?;
                assert_eq!(receive(&local), Some(("answer".into(), server.local_addr()?)));
            }
            let stranger = socket(outside, far, 6003)?;
            stranger.send_to(b"surprise", known)?;
            let arrived = receive(&local);
            if open {
                assert_eq!(arrived, Some(("surprise".into(), stranger.local_addr()?)));
                local.send_to(b"who is it", stranger.local_addr()?)?;
                assert_eq!(receive(&stranger), Some(("who is it".into(), known)));
            } else {
                assert_eq!(arrived, None);
            }
            // Another inside host, to the outside address: it is seen under its own outside end and answered there.
            let neighbour = socket(other, address_of(other, v4), 5000)?;
            neighbour.send_to(b"hairpin", known)?;
            match (open, receive(&local)) {
                (true, Some((text, from))) => {
                    assert_eq!((text.as_str(), from.ip()), ("hairpin", own));
                    assert_ne!(from.port(), 5000, "that end is taken");
                    local.send_to(b"back", from)?;
                    assert_eq!(receive(&neighbour), Some(("back".into(), known)));
                    neighbour.send_to(b"out", one.local_addr()?)?;
                    assert_eq!(
                        receive(&one),
                        Some(("out".into(), from)),
                        "the same to the outside"
                    );
                }
                (false, None) => {}
                (_, arrived) => panic!("{filtering:?}: {arrived:?}: {:#?}", engine.nonzero_counters()),
            }
        }
        // What would happen to a stranger, in the same words.
        for own in POOL.map(ip) {
            let v4 = own.is_ipv4();
            let explained = engine.explain(&Explain {
                ingress: "outside".into(),
                source: address_of(outside, v4),
                destination: own,
                protocol: 17,
                source_port: 6009,
                destination_port: 5000,
                icmp: None,
            })?;
            let reason = if open {
                Reason::SessionCreated
            } else {
                Reason::NatFiltered
            };
            assert_eq!(explained.reason, reason);
            assert_eq!(
                explained.translated_destination,
                Some((address_of(inside, v4), 5000).into())
            );
            assert_eq!(explained.destination_rule, None);
        }
        let mappings = engine.mappings()?;
        let inside_ends = mappings.iter().filter(|mapping| mapping.inside.port() == 5000);
        // Where the caller was refused, its own mapping was made all the same: as if it had gone out.
        assert_eq!(inside_ends.count(), 4, "{mappings:#?}");
        assert!(
            mappings
                .iter()
                .all(|mapping| mapping.rule.as_deref() == Some("out") && mapping.filtering == filtering)
        );
        assert_eq!(engine.counters()?["nat_filtered"] > 0, !open);
    }
    Ok(())
}

/// A mapping outlives its sessions by its timeout and no longer; while a session uses it, it stays.
#[test]
fn netns_nat_mappings_end_when_nobody_uses_them() -> Result<()> {
    for hook in hooks().take(1) {
        let lab = lab(hook)?;
        let engine = start(&lab, persistent(hook, Filtering::AnyRemoteHost, 1));
        let (inside, outside) = (lab.host("inside"), lab.host("outside"));
        let local = socket(inside, IpAddr::V4(inside.v4), 5000)?;
        let server = socket(outside, IpAddr::V4(outside.v4), 6001)?;
        local.send_to(b"hello", server.local_addr()?)?;
        assert!(receive(&server).is_some());
        std::thread::sleep(Duration::from_secs(5));
        assert_eq!(engine.mappings()?.len(), 1, "its session lives");
        assert_eq!(engine.clear_sessions(&|_| true)?, 1);
        assert_eq!(engine.mappings()?.len(), 1, "and for a while longer");
        eventually("the mapping's end", || Ok(engine.mappings()?.is_empty()))?;
        assert_eq!(engine.counters()?["nat_mappings_removed"], 1);
        server.send_to(b"late", (ip(POOL[0]), 5000))?;
        assert_eq!(receive(&local), None);
        eventually("a named reason", || Ok(engine.counters()?["nat_no_mapping"] == 1))?;
        // By hand, used or not.
        local.send_to(b"again", server.local_addr()?)?;
        assert!(receive(&server).is_some());
        assert_eq!(engine.clear_mappings()?, 1);
        assert!(engine.mappings()?.is_empty());
    }
    Ok(())
}

/// Commits do not disturb who would be translated as before, and stop who would not.
#[test]
fn netns_nat_commits_and_live_sessions() -> Result<()> {
    for hook in hooks() {
        let lab = lab(hook)?;
        let engine = start(&lab, pooled(hook));
        let (inside, outside) = (lab.host("inside"), lab.host("outside"));
        let client = inside.client().timeout(Duration::from_millis(1500));
        for v4 in [true, false] {
            let server = SocketAddr::new(address_of(outside, v4), 80);
            let _server = TcpServer::start(&outside.namespace, server)?;
            let mut live = client.tcp(server)?.answered()?;
            live.exchange(1000, 1000)?.answered()?;
            // More addresses, another name for the rule, another rule in front.
            let mut wider = pooled(hook);
            wider.pools[0].ranges = vec![
                (ip("192.0.3.0"), ip("192.0.3.31")),
                (ip("2001:db8:f::"), ip("2001:db8:f::ff")),
            ];
            wider.source_nat.insert(
                0,
                SourceNat {
                    name: "nobody".into(),
                    from: vec![1],
                    to: vec![1],
                    ..SourceNat::default()
                },
            );
            lab.firewall().run(|| engine.commit(wider))?;
            live.exchange(1000, 1000)?.answered()?;
            let sessions = engine.sessions(&|session| session.protocol == 6, 9)?;
            assert_eq!(sessions.sessions[0].nat_rule.as_deref(), Some("out"));
            // The address is gone from the pool.
            let mut elsewhere = pooled(hook);
            elsewhere.pools[0].ranges = vec![
                (ip("192.0.3.40"), ip("192.0.3.40")),
                (ip("2001:db8:f::40"), ip("2001:db8:f::40")),
            ];
            lab.firewall().run(|| engine.commit(elsewhere))?;
            let after = live.exchange(1000, 1000)?;
            assert!(!after.is_answered(), "{after:?}");
            lab.firewall().run(|| engine.commit(pooled(hook)))?;
        }
    }
    Ok(())
}

/// The alarm of a pool that fills up, and its end.
#[test]
fn netns_nat_pool_alarm() -> Result<()> {
    for hook in hooks().take(1) {
        let lab = lab(hook)?;
        let mut rules = pooled(hook);
        rules.pools[0].ranges.truncate(1);
        rules.pools[0].ports = Some((2000, 2009));
        rules.pools[0].alarm = Some((80, 50));
        let engine = start(&lab, rules);
        let (inside, outside) = (lab.host("inside"), lab.host("outside"));
        let local = socket(inside, IpAddr::V4(inside.v4), 5000)?;
        for port in 1..=8 {
            local.send_to(b"x", (outside.v4, 7000 + port))?;
        }
        eventually("the alarm", || Ok(engine.pools()[0].alarm))?;
        let pool = &engine.pools()[0];
        assert_eq!((pool.sessions, pool.percent), (8, 80));
        let few = |session: &bulkhead_dataplane::engine::Session| session.original.destination.port() <= 7003;
        assert_eq!(engine.clear_sessions(&few)?, 3);
        eventually("fewer sessions", || Ok(engine.pools()[0].sessions == 5))?;
        assert!(engine.pools()[0].alarm, "fifty per cent is not below fifty");
        engine.clear_sessions(&|_| true)?;
        eventually("the all-clear", || Ok(!engine.pools()[0].alarm))?;
        assert_eq!(engine.counters()?["nat_pool_alarms"], 1);
    }
    Ok(())
}

/// Every translated packet on the wire has right checksums, judged by code that is not the pipeline's: raw frames in,
/// captured frames out, and a UDP datagram without a checksum stays without (RFC 768).
#[test]
fn netns_nat_checksums_on_the_wire() -> Result<()> {
    for hook in hooks() {
        let lab = lab(hook)?;
        let mut rules = published(&lab, hook);
        rules.pools.push(pool("pub", &POOL.map(ip)));
        rules.source_nat = vec![SourceNat {
            name: "out".into(),
            from: vec![0],
            to: vec![1],
            translation: SourceTranslation::Pool(1),
            ..SourceNat::default()
        }];
        let _engine = start(&lab, rules);
        let (inside, outside) = (lab.host("inside"), lab.host("outside"));
        for known in [0, 1] {
            let (own, published) = (ip(POOL[known]), ip(PUBLISHED[known]));
            let v4 = own.is_ipv4();
            let (near, far) = (address_of(inside, v4), address_of(outside, v4));
            let there = RawPort::open(&outside.namespace, &outside.interface)?;
            let here = RawPort::open(&inside.namespace, &inside.interface)?;
            let out = |frame: Frame| frame.macs(inside.mac, inside.firewall_mac);
            let frames = [
                out(Frame::ip(near, far))
                    .tcp(4000, 80)
                    .tcp_header(|header| header.syn = true),
                out(Frame::ip(near, far)).udp(4000, 53).payload_bytes(33),
                out(Frame::ip(near, far)).echo_request(4000, 1).payload_bytes(33),
            ];
            for frame in frames {
                here.send(&frame.build())?;
                let sent = captured(&there, |frame| addresses(frame) == Some((own, far)))?;
                verify_checksums(&sent).map_err(anyhow::Error::msg)?;
            }
            let syn = Frame::ip(far, published)
                .macs(outside.mac, outside.firewall_mac)
                .tcp(4000, 443)
                .tcp_header(|header| header.syn = true);
            there.send(&syn.build())?;
            let sent = captured(&here, |frame| {
                addresses(frame) == Some((far, near)) && port(frame, v4) == 8080
            })?;
            verify_checksums(&sent).map_err(anyhow::Error::msg)?;
        }
        // Without a checksum, in IPv4 alone.
        let there = RawPort::open(&outside.namespace, &outside.interface)?;
        let here = RawPort::open(&inside.namespace, &inside.interface)?;
        let mut silent = Frame::ip(IpAddr::V4(inside.v4), IpAddr::V4(outside.v4))
            .macs(inside.mac, inside.firewall_mac)
            .udp(4001, 53)
            .payload_bytes(5)
            .build();
        silent[40..42].fill(0);
        here.send(&silent)?;
        let sent = captured(&there, |frame| {
            frame[23] == 17 && frame[36..38] == 53_u16.to_be_bytes()
        })?;
        assert_eq!(sent[40..42], [0, 0]);
        assert_eq!(addresses(&sent), Some((ip(POOL[0]), IpAddr::V4(outside.v4))));
    }
    Ok(())
}

/// The next frame that `wanted` says is one.
fn captured(port: &RawPort, wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
    let found = port.receive_matching(Duration::from_secs(2), |seen| {
        seen.frame.len() >= 42 && wanted(&seen.frame)
    })?;
    Ok(found.context("a frame")?.frame)
}

/// Destination port of a TCP or UDP packet without options.
fn port(frame: &[u8], v4: bool) -> u16 {
    let at = if v4 { 36 } else { 56 };
    frame
        .get(at..at + 2)
        .map_or(0, |port| u16::from_be_bytes([port[0], port[1]]))
}

/// Source and destination of an IP packet.
fn addresses(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    match frame.get(12..14)? {
        [0x08, 0x00] => {
            let word = |at: usize| <[u8; 4]>::try_from(frame.get(at..at + 4)?).ok();
            Some((word(26)?.into(), word(30)?.into()))
        }
        [0x86, 0xdd] => {
            let word = |at: usize| <[u8; 16]>::try_from(frame.get(at..at + 16)?).ok();
            Some((word(22)?.into(), word(38)?.into()))
        }
        _ => None,
    }
}
