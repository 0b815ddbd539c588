//! Conversations, captured frames and counters between real stacks.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bulkhead_testkit::ping::PingSpec;
use bulkhead_testkit::raw_port::Captured;
use bulkhead_testkit::udp::MAX_PROBE_BYTES;
use bulkhead_testkit::{
    Checksum, Client, Frame, Host, HostSpec, HttpServer, KernelCounters, Offloads, Outcome, RawPort,
    TcpServer, Topology, UdpServer, privileged, verify_checksums,
};

fn topology(prefix: &str) -> Topology {
    Topology::builder(prefix)
        .host(HostSpec::new("left"))
        .host(HostSpec::new("right"))
        .kernel_forwarding(true)
        .build()
        .expect("a topology")
}

fn brief(host: &Host) -> Client<'_> {
    host.client().timeout(Duration::from_millis(300))
}

#[test]
fn netns_every_protocol_gets_its_answer() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-talk");
    let (left, right) = (topology.host("left"), topology.host("right"));
    for (address, source) in right.addresses().into_iter().zip(left.addresses()) {
        let http = HttpServer::start(&right.namespace, (address, 80).into(), "hello\n").expect("a server");
        let dns = UdpServer::start(&right.namespace, (address, 53).into()).expect("a server");
        let from = SocketAddr::new(source, 40_123);
        let response = left
            .client()
            .source(from)
            .http_get(http.address(), "/")
            .expect("a socket");
        let response = response.answered().expect("a response");
        assert_eq!((response.status, response.body.as_str()), (200, "hello\n"));
        assert_eq!((response.seen_as, response.local), (from, from));

        let answer = left
            .client()
            .source(from)
            .dns_query(dns.address(), "db.bulkhead.test")
            .expect("a socket");
        assert_eq!(answer.answered().expect("an answer").seen_as, from);
        // Whole, in fragments, and as large as a datagram gets.
        for bytes in [12, 1400, 4000, MAX_PROBE_BYTES] {
            let answer = left.client().udp_probe(dns.address(), bytes).expect("a socket");
            answer
                .answered()
                .unwrap_or_else(|error| panic!("{bytes} bytes to {address}: {error}"));
        }
        for payload_bytes in [0, 56, 1400, 4000] {
            let spec = PingSpec {
                payload_bytes,
                ..PingSpec::default()
            };
            let reply = left.client().ping_with(address, &spec).expect("a socket");
            reply
                .answered()
                .unwrap_or_else(|error| panic!("{payload_bytes} bytes to {address}: {error}"));
        }
    }
}

#[test]
fn netns_a_held_connection_goes_on_and_a_stopped_server_ends_it() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-held");
    let (left, right) = (topology.host("left"), topology.host("right"));
    let server = TcpServer::start(&right.namespace, right.v4_port(0)).expect("a server");
    let mut held = left
        .client()
        .tcp(server.address())
        .expect("a socket")
        .answered()
        .expect("a connection");
    for _ in 0..3 {
        held.exchange(100, 100_000)
            .expect("a socket")
            .answered()
            .expect("an exchange");
    }
    let mut netlink = topology.firewall().netlink().expect("netlink");
    netlink
        .ensure_blackhole_rule(&left.firewall_interface)
        .expect("a rule");
    assert_eq!(
        held.exchange(1, 1).expect("a socket"),
        Outcome::TimedOut,
        "cut in the middle"
    );
    netlink
        .remove_blackhole_rule(&left.firewall_interface)
        .expect("removed");

    let mut other = left
        .client()
        .tcp(server.address())
        .expect("a socket")
        .answered()
        .expect("a connection");
    let address = server.address();
    drop(server);
    let outcome = other.exchange(1, 1).expect("a socket");
    assert!(matches!(outcome, Outcome::Broken(_)), "{}", outcome.describe());
    assert_eq!(
        left.client().tcp(address).expect("a socket").map(drop),
        Outcome::Refused
    );
}

#[test]
fn netns_refusals_are_told_apart() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-deny");
    let (left, right) = (topology.host("left"), topology.host("right"));
    let unreachable = |outcome: Outcome<()>| {
        let icmp = outcome
            .icmp()
            .unwrap_or_else(|| panic!("no ICMP error but {}", outcome.describe()));
        (icmp.from, icmp.kind, icmp.code)
    };
    for (address, gateway) in right.addresses().into_iter().zip(left.gateways()) {
        let v4 = address.is_ipv4();
        let closed = SocketAddr::new(address, 9);
        assert_eq!(
            left.client().tcp(closed).expect("a socket").map(drop),
            Outcome::Refused,
            "{closed}"
        );
        let outcome = left.client().udp_probe(closed, 100).expect("a socket").map(drop);
        let expected = if v4 {
            (Some(address), 3, 3)
        } else {
            (Some(address), 1, 4)
        };
        assert_eq!(unreachable(outcome), expected, "port unreachable");

        let spec = PingSpec {
            ttl: 1,
            ..PingSpec::default()
        };
        let outcome = left
            .client()
            .ping_with(address, &spec)
            .expect("a socket")
            .map(drop);
        let expected = if v4 {
            (Some(gateway), 11, 0)
        } else {
            (Some(gateway), 3, 0)
        };
        assert_eq!(unreachable(outcome), expected, "time exceeded");
    }
    let nobody = SocketAddr::new([10, 77, 1, 99].into(), 80);
    let outcome = brief(left).udp_probe(nobody, 100).expect("a socket").map(drop);
    assert_eq!(outcome, Outcome::TimedOut, "nobody answers yet");
}

#[test]
fn netns_a_prohibition_reaches_every_kind_of_socket() {
    if !privileged() {
        return;
    }
    // A topology of its own: the kernel allows a peer few such errors in a row, whatever icmp_ratelimit says; older ones one a
    // second where that is 0, because their two limits share a count (ip_error and inet_peer_xrlim_allow).
    let second = Duration::from_millis(1100);
    let topology = topology("bhk-proh");
    let left = topology.host("left");
    let prohibited: [(IpAddr, &str, u8, u8); 2] = [
        ([203, 0, 113, 1].into(), "-4", 3, 13),
        ("2001:db8::1".parse().expect("an address"), "-6", 1, 1),
    ];
    for (address, family, kind, code) in prohibited {
        let status = topology.firewall().run(|| {
            std::process::Command::new("ip")
                .args([family, "route", "add", "prohibit", "default"])
                .status()
        });
        assert!(status.expect("ip").success());
        let port = SocketAddr::new(address, 80);
        for what in ["tcp", "udp", "icmp"] {
            let client = left.client();
            let outcome = match what {
                "tcp" => client.tcp(port).expect("a socket").map(drop),
                "udp" => client.udp_probe(port, 100).expect("a socket").map(drop),
                _ => client.ping(address).expect("a socket").map(drop),
            };
            let icmp = outcome
                .icmp()
                .unwrap_or_else(|| panic!("{what} to {address}: {}", outcome.describe()));
            assert_eq!((icmp.kind, icmp.code), (kind, code), "{what} to {address}");
            assert!(
                matches!(outcome, Outcome::Unreachable { errno, .. } if errno != 0),
                "{outcome:?}"
            );
            std::thread::sleep(second);
        }
    }
}

#[test]
fn netns_too_big_carries_the_mtu() {
    if !privileged() {
        return;
    }
    let topology = Topology::builder("bhk-mtu")
        .host(HostSpec::new("left").mtu(9000))
        .host(HostSpec::new("right").mtu(1400))
        .kernel_forwarding(true)
        .build()
        .expect("a topology");
    let (left, right) = (topology.host("left"), topology.host("right"));
    for (address, expected) in right.addresses().into_iter().zip([(3, 4), (2, 0)]) {
        let spec = PingSpec {
            payload_bytes: 3000,
            ..PingSpec::default()
        };
        let outcome = left.client().ping_with(address, &spec).expect("a socket");
        let icmp = outcome
            .icmp()
            .unwrap_or_else(|| panic!("{address}: {}", outcome.describe()));
        assert_eq!(((icmp.kind, icmp.code), icmp.mtu), (expected, 1400));
        // The stack has learned; TCP and the next ping fit.
        left.client()
            .ping_with(address, &spec)
            .expect("a socket")
            .answered()
            .expect("a reply in fragments");
        let server = TcpServer::start(&right.namespace, (address, 0).into()).expect("a server");
        let outcome = left
            .client()
            .tcp_transfer(server.address(), 1 << 20, 1 << 20)
            .expect("a socket");
        outcome.answered().expect("a transfer");
    }
}

#[test]
fn netns_injected_frames_are_judged_by_the_stack() {
    if !privileged() {
        return;
    }
    let topology = Topology::builder("bhk-inj")
        .host(HostSpec::new("left").offloads(Offloads::Off))
        .host(HostSpec::new("right").offloads(Offloads::Off))
        .kernel_forwarding(true)
        .build()
        .expect("a topology");
    topology.resolve_neighbours().expect("neighbours");
    let (left, right) = (topology.host("left"), topology.host("right"));
    let port = RawPort::open(&left.namespace, &left.interface).expect("a raw port");
    for (source, destination) in left.addresses().into_iter().zip(right.addresses()) {
        let frame = |checksum| {
            let frame = Frame::ip(source, destination)
                .macs(left.mac, left.firewall_mac)
                .tcp(41_000, 9)
                .syn();
            frame.checksum(checksum).build()
        };
        let before = KernelCounters::snapshot(&right.namespace).expect("counters");
        port.drain().expect("drained");
        port.send(&frame(Checksum::Correct)).expect("sent");
        let is_reset =
            |captured: &Captured| verify_checksums(&captured.frame).is_ok() && has_reset(&captured.frame);
        let reset = port
            .receive_matching(Duration::from_secs(2), is_reset)
            .expect("a socket");
        let reset = reset.unwrap_or_else(|| panic!("no reset from {destination}"));
        assert!(!reset.checksum_pending, "offloads are off");
        let middle = KernelCounters::snapshot(&right.namespace).expect("counters");
        assert_eq!(
            (
                middle.since(&before, "TcpOutRsts"),
                middle.since(&before, "TcpInCsumErrors")
            ),
            (1, 0)
        );

        port.send(&frame(Checksum::Wrong)).expect("sent");
        let outcome = port
            .receive_matching(Duration::from_millis(300), is_reset)
            .expect("a socket");
        assert_eq!(outcome, None, "a wrong checksum deserves no answer");
        let after = KernelCounters::snapshot(&right.namespace).expect("counters");
        assert_eq!(
            (
                after.since(&middle, "TcpOutRsts"),
                after.since(&middle, "TcpInCsumErrors")
            ),
            (0, 1)
        );
        assert_eq!(after.checksum_errors(&middle).len(), 1);
    }
}

/// Whether a frame without options or extension headers is a TCP reset.
fn has_reset(frame: &[u8]) -> bool {
    let (protocol, header) = if frame[12..14] == [0x86, 0xdd] {
        (frame[20], 54)
    } else {
        (frame[23], 34)
    };
    protocol == 6 && frame[header + 13] & 0x04 != 0
}

#[test]
fn netns_captures_tell_pending_checksums_and_keep_vlan_tags() {
    if !privileged() {
        return;
    }
    let topology = topology("bhk-cap");
    let (left, right) = (topology.host("left"), topology.host("right"));
    topology.resolve_neighbours().expect("neighbours");
    let port = RawPort::open(&right.namespace, &right.interface).expect("a raw port");
    let outcome = brief(left).udp_probe(right.v4_port(9), 100).expect("a socket");
    assert!(!outcome.is_answered());
    let is_udp = |captured: &Captured| captured.frame.get(23) == Some(&17);
    let probe = port
        .receive_matching(Duration::from_secs(2), is_udp)
        .expect("a socket")
        .expect("the probe");
    assert!(probe.checksum_pending, "default offloads leave it to the NIC");
    let complaint = verify_checksums(&probe.frame).expect_err("a partial checksum");
    assert!(complaint.contains("only the pseudo-header's sum"), "{complaint}");

    let sender = RawPort::open(topology.firewall(), &right.firewall_interface).expect("a raw port");
    let tagged = Frame::ip(left.v4, right.v4)
        .macs(sender.mac(), port.mac())
        .vlan(7)
        .udp(1, 2)
        .build();
    sender.send(&tagged).expect("sent");
    let captured = port.receive_matching(Duration::from_secs(2), |captured| captured.frame == tagged);
    assert!(
        captured.expect("a socket").is_some(),
        "the tag is back in its place"
    );
}
