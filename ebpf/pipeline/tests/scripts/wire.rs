//! Wire mode: what crosses, what does not, and that nothing of it is changed.

use bulkhead_abi::{Reason, interface_flags, vlan_tag};

use crate::{
    FAMILIES,
    fragments::pieces,
    frame::{ACK, FIN, Frame, RST, SYN},
    net::{
        ANY, DMZ, HIT, INSIDE, MISS, Net, OUTSIDE, ZONE_INSIDE, ZONE_OUTSIDE, mac, neighbour_mac, permit,
        reject,
    },
};

const ESTABLISHED: (&str, u64) = ("sessions_established", 1);

/// A frame between two hosts' stations, neither of which is the firewall's.
fn frame(source: &str, destination: &str) -> Frame {
    Frame::new(source, destination).to(neighbour_mac(crate::frame::ip(destination)))
}

fn spliced(flags: u32) -> Net {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    net.splice(flags);
    net
}

#[test]
fn a_connection_crosses_unchanged_and_only_the_permitted_way() {
    for (client, server, _) in FAMILIES {
        let mut net = spliced(0);
        let up = |flags, seq, ack| frame(client, server).tcp(40000, 80, flags, seq, ack).build();
        let down = |flags, seq, ack| frame(server, client).tcp(80, 40000, flags, seq, ack).build();
        net.receive_bytes(OUTSIDE, &down(SYN, 1, 0))
            .dropped(Reason::DefaultDeny, &[MISS]);
        net.receive_bytes(INSIDE, &up(SYN, 100, 0))
            .crossed(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.receive_bytes(OUTSIDE, &down(SYN | ACK, 500, 101))
            .crossed(INSIDE, Reason::HalfOpen, &[]);
        net.receive_bytes(INSIDE, &up(ACK, 101, 501))
            .crossed(OUTSIDE, Reason::Established, &[ESTABLISHED]);
        for _ in 0..2 {
            net.receive_bytes(INSIDE, &up(ACK, 101, 501))
                .crossed(OUTSIDE, Reason::Established, &[]);
            net.receive_bytes(OUTSIDE, &down(ACK, 501, 101))
                .crossed(INSIDE, Reason::Established, &[]);
        }
        net.receive_bytes(INSIDE, &up(FIN | ACK, 101, 501))
            .crossed(OUTSIDE, Reason::Established, &[]);
        net.receive_bytes(OUTSIDE, &down(RST, 77, 0))
            .dropped(Reason::TcpResetOutOfWindow, &[]);
    }
}

#[test]
fn the_hop_limit_is_not_the_wires() {
    let (client, server, _) = FAMILIES[0];
    let mut net = spliced(0);
    let bytes = frame(client, server).ttl(1).udp(5000, 53).build();
    net.receive_bytes(INSIDE, &bytes)
        .crossed(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.receive_bytes(INSIDE, &bytes)
        .crossed(OUTSIDE, Reason::HalfOpen, &[]);
}

#[test]
fn one_tuple_in_two_vlans_is_two_sessions() {
    let (client, server, _) = FAMILIES[0];
    let mut net = spliced(0);
    let query = frame(client, server).udp(5000, 53).build();
    let answer = frame(server, client).udp(53, 5000).build();
    net.firewall.set_vlan(7);
    net.receive_bytes(INSIDE, &query)
        .crossed(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.firewall.set_vlan(8);
    net.receive_bytes(OUTSIDE, &answer)
        .dropped(Reason::DefaultDeny, &[MISS]);
    net.firewall.set_vlan(7);
    net.receive_bytes(OUTSIDE, &answer)
        .crossed(INSIDE, Reason::Established, &[ESTABLISHED]);
    // The priority bits are not the network's number.
    net.firewall.set_vlan(0xe007);
    net.receive_bytes(OUTSIDE, &answer)
        .crossed(INSIDE, Reason::Established, &[]);
    // The same number in a service provider's tag (802.1ad) is another network.
    net.firewall.set_vlan(vlan_tag(0x88a8, 7));
    net.receive_bytes(OUTSIDE, &answer)
        .dropped(Reason::DefaultDeny, &[HIT]);
    net.firewall.set_vlan(vlan_tag(0x8100, 7));
    net.receive_bytes(OUTSIDE, &answer)
        .crossed(INSIDE, Reason::Established, &[]);
    assert_eq!(net.flows(), (2, 0));
}

#[test]
fn arp_and_others_cross_as_told() {
    let mut arp = vec![0xff; 6];
    arp.extend(mac(99));
    arp.extend([0x08, 0x06]);
    arp.extend([0; 28]);
    let mut other = arp.clone();
    other[12..14].copy_from_slice(&[0x88, 0x63]);
    let mut tagged = arp.clone();
    tagged[12..14].copy_from_slice(&[0x81, 0x00]);
    let mut net = spliced(0);
    net.receive_bytes(INSIDE, &arp)
        .dropped(Reason::WireArpDenied, &[]);
    net.receive_bytes(INSIDE, &other)
        .dropped(Reason::EtherTypeUnsupported, &[]);
    let mut net = spliced(interface_flags::WIRE_ARP | interface_flags::WIRE_NON_IP);
    net.receive_bytes(INSIDE, &arp)
        .crossed(OUTSIDE, Reason::WireArp, &[]);
    net.receive_bytes(OUTSIDE, &other)
        .crossed(INSIDE, Reason::WireNonIp, &[]);
    // A second tag could hide IP from policy.
    net.receive_bytes(INSIDE, &tagged)
        .dropped(Reason::VlanTagged, &[]);
    let truncated = &frame("10.1.0.2", "192.0.2.80").udp(1, 2).build()[..30];
    net.receive_bytes(INSIDE, truncated)
        .dropped(Reason::Truncated, &[]);
}

#[test]
fn groups_cross_only_where_a_policy_names_them() {
    for group in ["224.0.1.1", "255.255.255.255", "ff05::101"] {
        let source = if group.contains(':') {
            "2001:db8:1::2"
        } else {
            "10.1.0.2"
        };
        let bytes = frame(source, group).udp(5000, 5001).build();
        let mut net = spliced(0);
        net.receive_bytes(INSIDE, &bytes)
            .dropped(Reason::DestinationAddressInvalid, &[MISS]);
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE).destination(4)]);
        net.splice(0);
        net.address_class(4, group, if group.contains(':') { 128 } else { 32 } - 1);
        net.receive_bytes(INSIDE, &bytes)
            .crossed(OUTSIDE, Reason::WireGroup, &[MISS]);
        net.receive_bytes(INSIDE, &bytes)
            .crossed(OUTSIDE, Reason::WireGroup, &[HIT]);
        assert_eq!(net.flows(), (0, 0));
    }
}

/// Without a session to follow, the others go where the first went, in any order, and only over that wire.
#[test]
fn a_group_datagram_in_fragments_crosses_behind_its_first() {
    for group in ["224.0.1.1", "255.255.255.255", "ff05::101"] {
        let (source, bits) = if group.contains(':') {
            ("2001:db8:1::2", 128)
        } else {
            ("10.1.0.2", 32)
        };
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE).destination(4)]);
        net.splice(0);
        net.address_class(4, group, bits - 1);
        let whole = frame(source, group).udp(5000, 5001).payload(&[7; 60]).build();
        let [first, second, third] = pieces(&whole, &[0, 24, 48], 7).try_into().unwrap();
        let held = net.receive_bytes(INSIDE, &third).held();
        net.receive_bytes(INSIDE, &first)
            .crossed(OUTSIDE, Reason::WireGroup, &[MISS]);
        net.put_back(INSIDE, &held.frame)
            .crossed(OUTSIDE, Reason::WireGroup, &[("frames_injected", 1)]);
        net.receive_bytes(INSIDE, &second)
            .crossed(OUTSIDE, Reason::WireGroup, &[]);
        assert_eq!(net.flows(), (0, 0));
        // One that policy refuses takes the others with it.
        let back = frame(source, group).udp(5000, 5001).payload(&[7; 60]).build();
        let [first, later] = pieces(&back, &[0, 24], 8).try_into().unwrap();
        net.receive_bytes(OUTSIDE, &first)
            .dropped(Reason::DefaultDeny, &[MISS]);
        net.receive_bytes(OUTSIDE, &later)
            .dropped(Reason::DefaultDeny, &[]);
    }
}

#[test]
fn link_local_hosts_may_talk_across() {
    for (client, server) in [("169.254.0.2", "169.254.0.3"), ("fe80::2", "fe80::3")] {
        let mut net = spliced(0);
        net.receive_bytes(INSIDE, &frame(client, server).udp(5000, 53).build())
            .crossed(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.receive_bytes(INSIDE, &frame("127.0.0.1", "10.1.0.9").udp(5000, 53).build())
            .dropped(Reason::SourceAddressInvalid, &[]);
    }
}

#[test]
fn an_error_about_a_session_crosses_and_another_does_not() {
    let (client, server, router) = FAMILIES[0];
    let mut net = spliced(0);
    let query = frame(client, server).udp(5000, 53).build();
    net.receive_bytes(INSIDE, &query)
        .crossed(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.receive_bytes(OUTSIDE, &frame(router, client).error(&query, false).build())
        .crossed(INSIDE, Reason::RelatedIcmp, &[]);
    let other = frame(client, server).udp(5001, 53).build();
    net.receive_bytes(OUTSIDE, &frame(router, client).error(&other, false).build())
        .dropped(Reason::IcmpNoSession, &[]);
}

#[test]
fn nothing_of_a_wire_reaches_this_host_or_another_interface() {
    let mut net = spliced(0);
    // The firewall's own address and station.
    net.receive(OUTSIDE, &Frame::new("10.3.0.2", "198.51.100.1").udp(5, 6))
        .dropped(Reason::DefaultDeny, &[MISS]);
    net.receive(INSIDE, &Frame::new("10.1.0.2", "10.3.0.2").udp(5, 6))
        .crossed(OUTSIDE, Reason::SessionCreated, &[MISS]);
    // An interface that is no end of a wire.
    net.receive(DMZ, &Frame::new("10.3.0.2", "10.1.0.2").udp(5, 6))
        .dropped(Reason::NotConfigured, &[]);
    // XDP leaves everything to TCX.
    net.receive_xdp(INSIDE, &Frame::new("10.1.0.2", "10.3.0.2").udp(5, 6))
        .next_hook();
}

#[test]
fn a_rejected_packet_is_answered_with_its_tag() {
    let mut net = Net::new(&[reject(ANY, ANY)]);
    net.splice(0);
    let bytes = frame("10.1.0.2", "192.0.2.80").tcp(4000, 80, SYN, 1, 0).build();
    let outcome = net
        .receive_bytes(INSIDE, &bytes)
        .dropped_and(Reason::PolicyReject, &[MISS]);
    assert_eq!(outcome.asked.len(), 1);
}

#[test]
fn a_wire_with_one_end_is_broken() {
    let mut net = spliced(interface_flags::WIRE_ARP);
    net.tables().interfaces.remove(&OUTSIDE);
    net.receive_bytes(INSIDE, &frame("10.1.0.2", "192.0.2.80").udp(1, 2).build())
        .dropped(Reason::WireBroken, &[]);
}

#[test]
fn fragments_cross_unchanged_behind_the_first() {
    // A UDP datagram in two fragments, whose stations are not the firewall's.
    let whole = frame("10.1.0.2", "192.0.2.80")
        .udp(5000, 53)
        .payload(&[7; 40])
        .build();
    let fragment = |from: usize, to: usize, field: u16| {
        let mut bytes = [&whole[..34], &whole[34 + from..34 + to]].concat();
        bytes[16..18].copy_from_slice(&((20 + to - from) as u16).to_be_bytes());
        bytes[20..22].copy_from_slice(&field.to_be_bytes());
        bytes[24..26].fill(0);
        let sum = !crate::verify::ones_complement(0, &bytes[14..34]);
        bytes[24..26].copy_from_slice(&sum.to_be_bytes());
        bytes
    };
    let (first, later) = (fragment(0, 24, 0x2000), fragment(24, 48, 3));
    let mut net = spliced(0);
    net.firewall.set_vlan(7);
    let held = net.receive_bytes(INSIDE, &later).held();
    // The same datagram in another VLAN is another one.
    net.firewall.set_vlan(8);
    net.receive_bytes(INSIDE, &first)
        .crossed(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.firewall.set_vlan(7);
    net.receive_bytes(INSIDE, &first)
        .crossed(OUTSIDE, Reason::SessionCreated, &[HIT]);
    net.put_back(INSIDE, &held.frame)
        .crossed(OUTSIDE, Reason::HalfOpen, &[("frames_injected", 1)]);
}
