//! Static translation, prefix to prefix in both directions, and RFC 6296.

use bulkhead_abi::{Reason, STATIC_RULE};

use crate::{
    frame::{ACK, Frame, SYN, Seen, ip},
    nat::ESTABLISHED,
    net::{INSIDE, MISS, Net, OUTSIDE, ZONE_INSIDE, ZONE_OUTSIDE, permit},
    translation::{Nat, destination, source},
};

const OUTER: u32 = 4;
const INNER: u32 = 5;

/// A static rule for both directions, as a configuration compiles to.
fn statically(outer: &str, inner: &str, length: u32, zone: u32, npt: bool) -> Net {
    let mut net = Net::new(&[
        permit(ZONE_INSIDE, ZONE_OUTSIDE),
        permit(ZONE_OUTSIDE, ZONE_INSIDE),
        permit(ZONE_INSIDE, ZONE_INSIDE),
    ]);
    net.address_class(OUTER, outer, length);
    net.address_class(INNER, inner, length);
    let change = |nat: Nat, from: &str, to: &str| {
        if npt {
            nat.npt(from, length, to).index(STATIC_RULE)
        } else {
            nat.prefix(length, to).index(STATIC_RULE)
        }
    };
    net.nat(change(destination(zone).to(OUTER), outer, inner));
    net.nat(change(source(crate::net::ANY, zone).from(INNER), inner, outer));
    net
}

/// Outer prefix, inner prefix, length, an inside host, its outside address, a server.
const STATIC: [(&str, &str, u32, &str, &str, &str); 2] = [
    (
        "203.0.113.0",
        "10.1.0.0",
        24,
        "10.1.0.2",
        "203.0.113.2",
        "192.0.2.80",
    ),
    (
        "2001:db8:f::",
        "2001:db8:1::",
        64,
        "2001:db8:1::2",
        "2001:db8:f::2",
        "2001:db8:80::80",
    ),
];

#[test]
fn a_host_is_known_by_its_place_in_the_other_prefix() {
    for (outer, inner, length, host, known, server) in STATIC {
        let mut net = statically(outer, inner, length, ZONE_OUTSIDE, false);
        // From inside.
        let syn = Frame::new(host, server).tcp(40000, 80, SYN, 1000, 0);
        let sent = net
            .receive(INSIDE, &syn)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS])
            .between(known, server);
        assert_eq!(sent.seen.word(0), 40000);
        assert_eq!(sent.events[0].nat_rule, STATIC_RULE);
        let answer = Frame::new(server, known).tcp(80, 40000, SYN | ACK, 9000, 1001);
        net.receive(OUTSIDE, &answer)
            .forwarded(INSIDE, Reason::HalfOpen, &[])
            .between(server, host);
        // From outside.
        let syn = Frame::new(server, known).tcp(50000, 22, SYN, 1000, 0);
        let sent = net.receive(OUTSIDE, &syn).outcome;
        assert_eq!(sent.verdict.reason, Reason::SessionCreated);
        let seen = Seen::read(&sent.bytes);
        assert_eq!((seen.source, seen.destination), (ip(server), ip(host)));
        assert_eq!((seen.word(0), seen.word(2)), (50000, 22));
        assert_eq!(sent.events[0].destination_rule, STATIC_RULE);
        assert_eq!(sent.events[0].nat_rule, u32::MAX);
        let answer = Frame::new(host, server).tcp(22, 50000, SYN | ACK, 9000, 1001);
        net.receive(INSIDE, &answer)
            .forwarded(OUTSIDE, Reason::HalfOpen, &[])
            .between(known, server);
        // Errors about both.
        let error = Frame::new(host, server).error(&sent.bytes, true);
        net.receive(INSIDE, &error)
            .forwarded(OUTSIDE, Reason::RelatedIcmp, &[])
            .between(known, server);
    }
}

/// Two inside hosts by their outside addresses: both are translated, so that answers come back through here.
#[test]
fn static_addresses_work_from_inside_too() {
    for (outer, inner, length, host, known, _) in STATIC {
        let (other, other_known) = if length == 24 {
            ("10.1.0.3", "203.0.113.3")
        } else {
            ("2001:db8:1::3", "2001:db8:f::3")
        };
        let mut net = statically(outer, inner, length, crate::net::ANY, false);
        let ask = Frame::new(host, other_known).udp(5000, 53);
        net.receive(INSIDE, &ask)
            .forwarded(INSIDE, Reason::SessionCreated, &[MISS])
            .between(known, other);
        let answer = Frame::new(other, known).udp(53, 5000);
        net.receive(INSIDE, &answer)
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED])
            .between(other_known, host);
    }
}

/// Every octet from layer 4 on, ports and checksum included.
fn layer4(frame: &[u8]) -> &[u8] {
    &frame[54..]
}

/// RFC 6296: the network part changes, one word with it, and nothing of layer 4.
#[test]
fn rfc6296_nothing_of_layer_4_changes() {
    for (outer, inner, length, host, known) in [
        // The RFC's example.
        (
            "2001:db8:1::",
            "fd01:203:405::",
            48,
            "fd01:203:405:1::1234",
            "2001:db8:1:d550::1234",
        ),
        // A longer prefix: the word behind it.
        (
            "2001:db8:f:1::",
            "2001:db8:1:0::",
            64,
            "2001:db8:1::2",
            // The words that change sum up to 1 inside and to 0x10 outside: the next word makes up for 15.
            "2001:db8:f:1:fff0::2",
        ),
    ] {
        let server = "2001:db8:80::80";
        let mut net = statically(outer, inner, length, ZONE_OUTSIDE, true);
        net.route(inner, length, INSIDE);
        net.neighbour(INSIDE, host);
        for frame in [
            Frame::new(host, server).tcp(40000, 80, SYN, 1000, 0),
            Frame::new(host, server).udp(5000, 53).payload(b"odd"),
            Frame::new(host, server).echo(7, 1).payload(b"odd"),
            Frame::new(host, server).protocol(132, b"0123456789abcdef"),
        ] {
            let before = frame.clone().to(crate::net::mac(INSIDE)).build();
            let outcome = net.receive(INSIDE, &frame).outcome;
            assert_eq!(outcome.verdict.reason, Reason::SessionCreated);
            crate::verify::verify(&outcome.bytes);
            let seen = Seen::read(&outcome.bytes);
            assert_eq!((seen.source, seen.destination), (ip(known), ip(server)));
            assert_eq!(layer4(&outcome.bytes), layer4(&before));
            let error = Frame::new("2001:db8:80::77", known).error(&outcome.bytes, true);
            let back = net
                .receive(OUTSIDE, &error)
                .forwarded(INSIDE, Reason::RelatedIcmp, &[])
                .between("2001:db8:80::77", host);
            assert_eq!(&back.seen.segment[48..], layer4(&before), "as quoted, too");
        }
        let from_outside = Frame::new(server, known).udp(4000, 53).payload(b"x");
        let before = from_outside.clone().to(crate::net::mac(OUTSIDE)).build();
        let outcome = net.receive(OUTSIDE, &from_outside).outcome;
        assert_eq!(Seen::read(&outcome.bytes).destination, ip(host));
        assert_eq!(layer4(&outcome.bytes), layer4(&before));
        let answer = Frame::new(host, server).udp(53, 4000).payload(b"y");
        net.receive(INSIDE, &answer)
            .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED])
            .between(known, server);
    }
}

/// RFC 6296, section 3.4: the subnet of ones only cannot be told from that of zeros, hence has no translation.
#[test]
fn rfc6296_the_subnet_of_ones_is_refused() {
    let mut net = statically("2001:db8:1::", "fd01:203:405::", 48, ZONE_OUTSIDE, true);
    let frame = Frame::new("fd01:203:405:ffff::1", "2001:db8:80::80").udp(1, 2);
    net.receive(INSIDE, &frame)
        .dropped(Reason::NatUnsupported, &[MISS]);
    let frame = Frame::new("2001:db8:80::80", "2001:db8:1:ffff::1").udp(1, 2);
    let outcome = net.receive(OUTSIDE, &frame).outcome;
    assert_eq!(outcome.verdict.reason, Reason::NatUnsupported);
    assert_eq!(net.flows(), (0, 0));
}

/// Ports stay under RFC 6296 whatever happens: a conversation that would need another is refused.
#[test]
fn rfc6296_ports_are_never_translated() {
    let (host, known, client) = ("fd01:203:405:1::1234", "2001:db8:1:d550::1234", "2001:db8:80::80");
    let mut net = statically("2001:db8:1::", "fd01:203:405::", 48, ZONE_OUTSIDE, true);
    net.route("fd01:203:405::", 48, INSIDE);
    net.neighbour(INSIDE, host);
    let direct = Frame::new(client, host).udp(4000, 53);
    assert_eq!(
        net.receive(OUTSIDE, &direct).outcome.verdict.reason,
        Reason::SessionCreated
    );
    let outcome = net
        .receive(OUTSIDE, &Frame::new(client, known).udp(4000, 53))
        .outcome;
    assert_eq!(outcome.verdict.reason, Reason::NatPortsExhausted);
}
