//! Who has an address of translation's: ARP and neighbour solicitations, answered and not.

use bulkhead_abi::{Live, NAT_ANSWERED, NatAddressKey4, NatAddressKey6, Reason, nat_flags};
use bulkhead_pipeline::Action;

use crate::{
    frame::{Frame, ip, octets},
    net::{
        ANY, DMZ, INSIDE, NO_ZONE, Net, OUTSIDE, ZONE_INSIDE, ZONE_OUTSIDE, mac, neighbour_mac, permit, words,
    },
    step::Step,
    verify::verify,
};

/// A host of the outside segment and, in that segment, an address of a pool's.
const HOST: &str = "198.51.100.9";
const POOL: &str = "198.51.100.20";
const HOST6: &str = "2001:db8:2::9";
const POOL6: &str = "2001:db8:2::20";

/// Everything permitted; translation owns the pools' addresses in zone `outside`.
fn net() -> Net {
    let mut net = Net::new(&[permit(ANY, ANY)]);
    net.owns(POOL, 32, ZONE_OUTSIDE);
    net.owns(POOL6, 128, ZONE_OUTSIDE);
    net.settings(|settings| settings.nat |= nat_flags::ANSWER);
    net
}

/// An ARP request as RFC 826 and RFC 5227 have it.
fn request(sender: &str, target: &str) -> Vec<u8> {
    let station = neighbour_mac(ip(HOST));
    [
        &[0xff; 6][..],
        &station,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &station,
        &octets(ip(sender)),
        &[0; 6],
        &octets(ip(target)),
    ]
    .concat()
}

/// The solicited-node group of an address (RFC 4291, 2.7.1), and its station (RFC 2464, 7).
fn group(target: &str) -> (String, [u8; 6]) {
    let o = octets(ip(target));
    let text = format!("ff02::1:ff{:02x}:{:02x}{:02x}", o[13], o[14], o[15]);
    (text, [0x33, 0x33, 0xff, o[13], o[14], o[15]])
}

/// A solicitation with these options; to the group of its target unless `to` says otherwise.
fn solicitation(source: &str, to: Option<&str>, target: &str, options: &[u8]) -> Frame {
    let (to_group, station) = group(target);
    let body = [&octets(ip(target))[..], options].concat();
    let frame = Frame::new(source, to.unwrap_or(&to_group));
    let frame = frame.icmp(135, 0, [0; 4]).payload(&body).ttl(255);
    frame.to(if to.is_some() { mac(OUTSIDE) } else { station })
}

fn station_option(kind: u8) -> Vec<u8> {
    [&[kind, 1][..], &neighbour_mac(ip(HOST6))].concat()
}

/// Sent back out of the outside interface, and counted as nothing else.
#[track_caller]
fn answered(step: Step) -> Vec<u8> {
    let outcome = step.outcome;
    assert_eq!(
        (
            outcome.verdict.action,
            outcome.verdict.reason,
            outcome.out_ifindex
        ),
        (Action::Redirect, Reason::NeighbourAnswered, OUTSIDE),
        "{outcome:02x?}"
    );
    let counted: Vec<_> = outcome.delta.into_iter().collect();
    assert_eq!(counted, [("neighbour_answered", 1)]);
    outcome.bytes
}

#[test]
fn rfc826_a_request_for_a_pool_address_is_answered() {
    let mut net = net();
    let own = mac(OUTSIDE);
    let host = neighbour_mac(ip(HOST));
    // To everybody; to this firewall, which a neighbour may do to see whether it is still there (RFC 1122, 2.3.2.1);
    // and a probe (RFC 5227), which nobody has sent yet.
    let mut unicast = request(HOST, POOL);
    unicast[..6].copy_from_slice(&own);
    let mut padded = request(HOST, POOL);
    padded.resize(60, 0);
    for (asked, sender) in [
        (request(HOST, POOL), HOST),
        (unicast, HOST),
        (padded, HOST),
        (request("0.0.0.0", POOL), "0.0.0.0"),
    ] {
        let answer = answered(net.receive_bytes(OUTSIDE, &asked));
        let expected = [
            &host[..],
            &own,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
            &own,
            &octets(ip(POOL)),
            &host,
            &octets(ip(sender)),
        ]
        .concat();
        assert_eq!(answer[..42], expected);
        assert_eq!(answer.len(), asked.len());
    }
}

#[test]
fn rfc826_other_requests_are_the_kernels() {
    let mut net = net();
    let changed = |at: usize, value: u8| {
        let mut frame = request(HOST, POOL);
        frame[at] = value;
        frame
    };
    let announcement = request(POOL, POOL);
    let own = request(HOST, "198.51.100.1");
    for (what, frame) in [
        ("an address nobody has", request(HOST, "198.51.100.21")),
        ("the firewall's own", own),
        ("an announcement", announcement),
        ("a reply", changed(21, 2)),
        ("reverse ARP", changed(21, 3)),
        ("other hardware", changed(15, 6)),
        ("another protocol", changed(16, 0x86)),
        ("addresses of other lengths", changed(18, 8)),
        ("a group that asks", changed(22, 0x03)),
        ("a frame from a group", changed(6, 0x03)),
        ("another station's frame", changed(0, 0x02)),
        ("from loopback", request("127.0.0.1", POOL)),
        ("from multicast", request("224.0.0.1", POOL)),
        ("cut off", request(HOST, POOL)[..41].to_vec()),
    ] {
        let outcome = net.receive_bytes(OUTSIDE, &frame).outcome;
        assert_eq!(
            (outcome.verdict.action, outcome.verdict.reason),
            (Action::Pass, Reason::Arp),
            "{what}"
        );
        assert_eq!(outcome.bytes, frame, "{what}");
    }
}

#[test]
fn rfc4861_a_solicitation_for_a_pool_address_is_answered() {
    let mut net = net();
    let option = station_option(1);
    for asked in [
        solicitation(HOST6, None, POOL6, &option),
        solicitation(HOST6, Some(POOL6), POOL6, &[]),
        solicitation("fe80::9", None, POOL6, &option),
        // A nonce (RFC 3971) behind the station: other options are stepped over.
        solicitation(
            HOST6,
            None,
            POOL6,
            &[&option[..], &[14, 1, 1, 2, 3, 4, 5, 6]].concat(),
        ),
    ] {
        let bytes = asked.build();
        let answer = answered(net.receive_bytes(OUTSIDE, &bytes));
        verify(&answer);
        assert_eq!(answer[..6], bytes[6..12], "to the station that asked");
        assert_eq!(answer[6..12], mac(OUTSIDE));
        assert_eq!(answer[14..22], [0x60, 0, 0, 0, 0, 32, 58, 255]);
        assert_eq!(answer[22..38], octets(ip(POOL6)));
        assert_eq!(answer[38..54], bytes[22..38], "to who asked");
        assert_eq!(answer[54..56], [136, 0]);
        assert_eq!(answer[58..62], [0xe0, 0, 0, 0], "router, solicited, override");
        assert_eq!(answer[62..78], octets(ip(POOL6)));
        assert_eq!(answer[78..], [&[2, 1][..], &mac(OUTSIDE)].concat());
    }
}

#[test]
fn rfc4862_5_4_a_duplicate_is_detected() {
    let mut net = net();
    for options in [&[][..], &[14, 1, 1, 2, 3, 4, 5, 6]] {
        let asked = solicitation("::", None, POOL6, options).build();
        let answer = answered(net.receive_bytes(OUTSIDE, &asked));
        verify(&answer);
        assert_eq!(answer[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(answer[38..54], octets(ip("ff02::1")), "to all nodes");
        assert_eq!(answer[58], 0xa0, "not solicited");
        assert_eq!(answer.len(), 86);
    }
}

#[test]
fn rfc4861_7_1_1_an_invalid_solicitation_is_not_answered() {
    let mut net = net();
    let option = station_option(1);
    let good = |options: &[u8]| solicitation(HOST6, None, POOL6, options);
    let mut wrong_sum = good(&option).build();
    wrong_sum[56] ^= 1;
    let mut wrong_code = good(&option);
    wrong_code = wrong_code
        .icmp(135, 1, [0; 4])
        .payload(&[&octets(ip(POOL6))[..], &option].concat());
    let long = [14, 1, 0, 0, 0, 0, 0, 0].repeat(15);
    for (what, frame) in [
        (
            "an address nobody has",
            solicitation(HOST6, None, "2001:db8:2::21", &option).build(),
        ),
        (
            "the firewall's own",
            solicitation(HOST6, None, "2001:db8:2::1", &option).build(),
        ),
        ("a group", solicitation(HOST6, None, "ff02::1", &option).build()),
        ("hop limit 254", good(&option).ttl(254).build()),
        ("checksum", wrong_sum),
        ("code", wrong_code.build()),
        (
            "an option without length",
            good(&[1, 0, 0, 0, 0, 0, 0, 0]).build(),
        ),
        (
            "an option beyond the end",
            good(&[14, 2, 0, 0, 0, 0, 0, 0]).build(),
        ),
        ("the longest option", good(&[14, 255, 0, 0, 0, 0, 0, 0]).build()),
        ("half an option", good(&[14, 1, 0, 0]).build()),
        (
            "a station of 14 bytes",
            good(&[1, 2].into_iter().chain([0; 14]).collect::<Vec<_>>()).build(),
        ),
        ("more than is looked at", good(&long).build()),
        (
            "a probe with a station",
            solicitation("::", None, POOL6, &option).build(),
        ),
        (
            "a probe to the address",
            solicitation("::", Some(POOL6), POOL6, &[]).build(),
        ),
        (
            "to another address",
            solicitation(HOST6, Some("2001:db8:2::1"), POOL6, &option).build(),
        ),
        (
            "to all nodes",
            solicitation(HOST6, Some("ff02::1"), POOL6, &option).build(),
        ),
        ("from itself", solicitation(POOL6, None, POOL6, &option).build()),
        ("from loopback", solicitation("::1", None, POOL6, &option).build()),
        (
            "behind an extension",
            good(&option).extension(60, &[0, 0, 1, 4, 0, 0, 0, 0]).build(),
        ),
        (
            "an advertisement",
            Frame::new(HOST6, "ff02::1")
                .icmp(136, 0, [0; 4])
                .payload(&octets(ip(POOL6)))
                .ttl(255)
                .to([0x33, 0x33, 0, 0, 0, 1])
                .build(),
        ),
    ] {
        let outcome = net.receive_bytes(OUTSIDE, &frame).outcome;
        assert_eq!(
            (outcome.verdict.action, outcome.verdict.reason),
            (Action::Pass, Reason::NeighbourDiscovery),
            "{what}"
        );
        assert_eq!(outcome.bytes, frame, "{what}");
    }
    // As many options as fit are stepped over.
    let fitting = good(&long[..14 * 8]).build();
    answered(net.receive_bytes(OUTSIDE, &fitting));
}

#[test]
fn only_on_the_link_and_in_the_zone_that_has_the_address() {
    let silent = |net: &mut Net, ifindex, target: &str| {
        let step = net.receive_bytes(ifindex, &request("0.0.0.0", target));
        step.handed_on(Reason::Arp, &[]);
    };
    let mut net = net();
    // Another zone; no zone; no translation owns it here.
    for ifindex in [INSIDE, DMZ, NO_ZONE] {
        silent(&mut net, ifindex, POOL);
    }
    // In the zone, but the routes say it is elsewhere, nowhere, or a gateway.
    net.owns("192.0.2.20", 32, ZONE_OUTSIDE);
    silent(&mut net, OUTSIDE, "192.0.2.20");
    net.owns("203.0.113.20", 32, ZONE_OUTSIDE);
    silent(&mut net, OUTSIDE, "203.0.113.20");
    net.owns("10.1.0.20", 32, ZONE_INSIDE);
    answered_on(&mut net, INSIDE, "10.1.0.20");
    silent(&mut net, OUTSIDE, "10.1.0.20");
    net.route("10.1.0.20", 32, DMZ);
    silent(&mut net, INSIDE, "10.1.0.20");
    // Not in a generation that is told to be silent, and not in none.
    net.settings(|settings| settings.nat &= !nat_flags::ANSWER);
    silent(&mut net, OUTSIDE, POOL);
    net.settings(|settings| settings.nat |= nat_flags::ANSWER);
    net.tables().live.set(Live::default());
    silent(&mut net, OUTSIDE, POOL);
}

#[track_caller]
fn answered_on(net: &mut Net, ifindex: u32, target: &str) {
    let outcome = net.receive_bytes(ifindex, &request("0.0.0.0", target)).outcome;
    assert_eq!(outcome.verdict.reason, Reason::NeighbourAnswered);
    assert_eq!(outcome.out_ifindex, ifindex);
}

#[test]
fn an_address_of_a_destination_rule_is_answered_for_unless_a_host_has_it() {
    let mut net = net();
    let (generation, zones) = (net.generation() | NAT_ANSWERED, 1 << ZONE_OUTSIDE);
    let (web, web6) = ("198.51.100.80", "2001:db8:2::80");
    let key = NatAddressKey4 {
        bits: 64,
        generation,
        address_be: words(ip(web))[0],
    };
    net.tables().nat_addresses4.set(&key, &zones);
    let key = NatAddressKey6 {
        bits: 160,
        generation,
        address_be: words(ip(web6)),
    };
    net.tables().nat_addresses6.set(&key, &zones);
    let solicited = solicitation(HOST6, None, web6, &station_option(1)).build();
    for _ in 0..2 {
        answered_on(&mut net, OUTSIDE, web);
        answered(net.receive_bytes(OUTSIDE, &solicited));
        net.neighbour(OUTSIDE, web);
        net.neighbour(OUTSIDE, web6);
        net.receive_bytes(OUTSIDE, &request(HOST, web))
            .handed_on(Reason::Arp, &[]);
        net.receive_bytes(OUTSIDE, &solicited)
            .handed_on(Reason::NeighbourDiscovery, &[]);
        net.forget_neighbour(OUTSIDE, web);
        net.forget_neighbour(OUTSIDE, web6);
    }
}

#[test]
fn xdp_leaves_the_question_and_a_wire_never_answers() {
    let asked = request(HOST, POOL);
    let solicited = solicitation(HOST6, None, POOL6, &station_option(1)).build();
    let mut routed = net();
    for frame in [&asked, &solicited] {
        let outcome = routed.firewall.both_hooks(OUTSIDE, frame);
        assert_eq!(outcome.verdict.reason, Reason::NeighbourAnswered);
    }
    let mut wired = net();
    wired.splice(0);
    for frame in [&asked, &solicited] {
        wired
            .receive_bytes(OUTSIDE, frame)
            .dropped(Reason::WireArpDenied, &[]);
    }
}
