//! Traffic to and from the firewall itself.

use bulkhead_abi::{Reason, SLOW_PATH_MARK, SessionState};
use bulkhead_pipeline::{Action, Table};

use crate::{
    frame::{ACK, Frame, SYN, TCP},
    net::{ANY, HIT, INSIDE, MISS, Net, OUTSIDE, SECOND, SELF, ZONE_INSIDE, ZONE_OUTSIDE, deny, permit},
};

/// The firewall's inside address and a host there, its outside address and a server there, per family.
const OWN: [(&str, &str, &str, &str); 2] = [
    ("10.1.0.1", "10.1.0.2", "198.51.100.1", "192.0.2.80"),
    (
        "2001:db8:1::1",
        "2001:db8:1::2",
        "2001:db8:2::1",
        "2001:db8:80::80",
    ),
];

#[test]
fn host_inbound_is_denied_unless_permitted_and_any_is_not_self() {
    for (own, host, _, _) in OWN {
        let mut net = Net::new(&[permit(ANY, ANY)]);
        net.receive(INSIDE, &Frame::new(host, own).echo(1, 1))
            .dropped(Reason::HostInboundDeny, &[MISS]);
        let mut net = Net::new(&[permit(ZONE_INSIDE, SELF).service(1)]);
        net.service(1, TCP, 22);
        let ssh = |flags, seq, ack| Frame::new(host, own).tcp(40000, 22, flags, seq, ack);
        net.receive(INSIDE, &ssh(SYN, 1, 0))
            .handed_on(Reason::ToHost, &[MISS]);
        net.receive(INSIDE, &Frame::new(host, own).tcp(1, 23, SYN, 1, 0))
            .dropped(Reason::HostInboundDeny, &[MISS]);
        net.receive(
            OUTSIDE,
            &Frame::new("192.0.2.80", "198.51.100.1").tcp(1, 22, SYN, 1, 0),
        )
        .dropped(Reason::HostInboundDeny, &[MISS]);
        // The answers go out through the egress program, which moves the visitor's session on.
        let answer = Frame::new(own, host).tcp(22, 40000, SYN | ACK, 900, 2);
        net.leave(INSIDE, &answer, 0, false)
            .handed_on(Reason::FromHost, &[]);
        net.receive(INSIDE, &ssh(ACK, 2, 901))
            .handed_on(Reason::ToHost, &[("sessions_established", 1)]);
        assert_eq!(net.flows(), (2, 0));
        net.receive(INSIDE, &ssh(ACK, 2, 901).payload(b"ssh"))
            .handed_on(Reason::ToHost, &[]);
    }
}

#[test]
fn a_visitor_is_sent_away_when_policy_changes() {
    let mut net = Net::new(&[permit(ZONE_INSIDE, SELF)]);
    let dns = Frame::new("10.1.0.2", "10.1.0.1").udp(5000, 53);
    net.receive(INSIDE, &dns).handed_on(Reason::ToHost, &[MISS]);
    net.commit(&[]);
    net.receive(INSIDE, &dns).dropped(Reason::PolicyChanged, &[MISS]);
    net.receive(INSIDE, &dns).dropped(Reason::HostInboundDeny, &[HIT]);
}

#[test]
fn an_own_connection_is_answered_without_a_rule() {
    for (_, _, own, server) in OWN {
        let mut net = Net::new(&[]);
        let ask = |flags, seq, ack| Frame::new(own, server).tcp(40000, 443, flags, seq, ack);
        let answer = |flags, seq, ack| Frame::new(server, own).tcp(443, 40000, flags, seq, ack);
        net.receive(OUTSIDE, &answer(SYN, 1, 0))
            .dropped(Reason::HostInboundDeny, &[MISS]);
        net.leave(OUTSIDE, &ask(SYN, 1000, 0), 0, false)
            .handed_on(Reason::FromHost, &[]);
        net.receive(OUTSIDE, &answer(SYN | ACK, 9000, 1001))
            .handed_on(Reason::ToHost, &[]);
        net.leave(OUTSIDE, &ask(ACK, 1001, 9001), 0, false)
            .handed_on(Reason::FromHost, &[("sessions_established", 1)]);
        net.receive(OUTSIDE, &answer(ACK, 9001, 1001).payload(b"page"))
            .handed_on(Reason::ToHost, &[]);
        assert_eq!(net.flows(), (2, 0));
        let family = if own.contains(':') { 6 } else { 4 };
        for (_, flow) in net.tables().flows(Table::Established, family).entries() {
            assert_eq!(flow.state, SessionState::TcpEstablished as u8);
        }
        // A commit does not end the firewall's own connections, whatever it says.
        net.commit(&[deny(ANY, ANY)]);
        net.receive(OUTSIDE, &answer(ACK, 9005, 1001))
            .handed_on(Reason::ToHost, &[]);
        // Another server's packet is nobody's answer.
        let stranger = Frame::new(server, own).tcp(444, 40000, SYN | ACK, 1, 1001);
        net.receive(OUTSIDE, &stranger).dropped(Reason::TcpNoSession, &[]);
    }
}

#[test]
fn own_queries_are_answered() {
    for (_, _, own, server) in OWN {
        let mut net = Net::new(&[]);
        net.leave(OUTSIDE, &Frame::new(own, server).udp(5000, 53), 0, false)
            .handed_on(Reason::FromHost, &[]);
        net.receive(OUTSIDE, &Frame::new(server, own).udp(53, 5000))
            .handed_on(Reason::ToHost, &[("sessions_established", 1)]);
        net.leave(OUTSIDE, &Frame::new(own, server).echo(9, 1), 0, false)
            .handed_on(Reason::FromHost, &[]);
        net.receive(OUTSIDE, &Frame::new(server, own).echo_reply(9, 1))
            .handed_on(Reason::ToHost, &[("sessions_established", 1)]);
        net.receive(OUTSIDE, &Frame::new(server, own).echo(9, 1))
            .dropped(Reason::IcmpNotRequest, &[]);
        // An error about one of them, quoting what we sent.
        let quoted = Frame::new(own, server).udp(5000, 53).build();
        net.receive(OUTSIDE, &Frame::new(server, own).error(&quoted, false))
            .handed_on(Reason::ToHost, &[]);
        net.advance(400 * SECOND);
        assert_eq!(net.age(), 2);
    }
}

#[test]
fn our_own_address_from_outside_is_a_lie() {
    let mut net = Net::open();
    net.leave(
        OUTSIDE,
        &Frame::new("198.51.100.1", "192.0.2.80").udp(5000, 53),
        0,
        false,
    )
    .handed_on(Reason::FromHost, &[]);
    let mut spoofed = Frame::new("198.51.100.1", "192.0.2.80").udp(5000, 53);
    net.receive(OUTSIDE, &spoofed)
        .dropped(Reason::SourceAddressInvalid, &[]);
    spoofed.destination = "10.1.0.2".parse().unwrap();
    net.receive(OUTSIDE, &spoofed)
        .dropped(Reason::SourceAddressInvalid, &[]);
}

#[test]
fn what_the_kernel_forwards_behind_our_back_is_dropped() {
    for (_, host, _, server) in OWN {
        let mut net = Net::new(&[permit(ANY, ANY)]);
        let frame = Frame::new(server, host).udp(1, 2);
        net.leave(INSIDE, &frame, 0, true)
            .dropped(Reason::UnguardedIngress, &[]);
        net.leave(INSIDE, &frame, 1, true)
            .dropped(Reason::UnguardedIngress, &[]);
        assert_eq!(net.flows(), (0, 0));
    }
}

#[test]
fn answers_of_the_slow_path_go_out_and_leave_no_session() {
    let mut net = Net::new(&[]);
    let reset = Frame::new("192.0.2.80", "10.1.0.2").tcp(80, 40000, 4, 0, 0);
    net.leave(INSIDE, &reset, SLOW_PATH_MARK, false)
        .handed_on(Reason::SlowPathAnswer, &[]);
    assert_eq!(net.flows(), (0, 0));
}

#[test]
fn arp_and_discovery_are_the_kernels_own() {
    let mut net = Net::new(&[deny(ANY, ANY), deny(ANY, SELF)]);
    let mut arp = vec![0xff; 6];
    arp.extend([2, 0, 0, 0, 0, 9, 8, 6]);
    arp.resize(42, 0);
    net.receive_bytes(INSIDE, &arp).handed_on(Reason::Arp, &[]);
    assert_eq!(
        net.firewall.host_egress(INSIDE, &arp, 0, false).verdict.action,
        Action::Pass
    );
    for kind in 133..=136 {
        let frame = Frame::new("fe80::2", "ff02::1:ff00:1")
            .ttl(255)
            .icmp(kind, 0, [0; 4])
            .payload(&[0; 16]);
        let bytes = frame.to([0x33, 0x33, 0xff, 0, 0, 1]).build();
        net.receive_bytes(INSIDE, &bytes)
            .handed_on(Reason::NeighbourDiscovery, &[]);
    }
    // Multicast listener reports stay on the link: with another hop limit they are somebody's traffic.
    let report = Frame::new("fe80::2", "ff02::16").ttl(1).icmp(143, 0, [0; 4]);
    net.receive_bytes(INSIDE, &report.clone().to([0x33, 0x33, 0, 0, 0, 0x16]).build())
        .handed_on(Reason::NeighbourDiscovery, &[]);
    net.receive_bytes(INSIDE, &report.ttl(2).to([0x33, 0x33, 0, 0, 0, 0x16]).build())
        .dropped(Reason::IcmpNotRequest, &[]);
}

#[test]
fn what_the_kernel_forwards_is_stopped_whatever_it_calls_itself() {
    let mut net = Net::new(&[permit(ANY, ANY)]);
    // Discovery is the link's own business; from another link it is somebody's way round.
    for kind in 133..=137 {
        let frame = Frame::new("2001:db8::9", "2001:db8:1::2")
            .ttl(255)
            .icmp(kind, 0, [0; 4])
            .payload(&[0; 16]);
        net.leave(INSIDE, &frame, 0, true)
            .dropped(Reason::UnguardedIngress, &[]);
        net.leave(INSIDE, &frame, SLOW_PATH_MARK, true)
            .dropped(Reason::UnguardedIngress, &[]);
    }
}

#[test]
fn multicast_to_the_firewall_needs_host_inbound() {
    let vrrp = Frame::new("10.1.0.2", "224.0.0.18")
        .ttl(255)
        .protocol(112, &[0; 20])
        .to([1, 0, 0x5e, 0, 0, 18]);
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    net.receive_bytes(INSIDE, &vrrp.build())
        .dropped(Reason::HostInboundDeny, &[MISS]);
    let mut net = Net::new(&[permit(ZONE_INSIDE, SELF)]);
    net.receive_bytes(INSIDE, &vrrp.build())
        .handed_on(Reason::ToHost, &[MISS]);
    assert_eq!(net.flows(), (0, 0));
}
