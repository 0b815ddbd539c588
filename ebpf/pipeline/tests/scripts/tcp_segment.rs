//! The maximum segment size of SYN and SYN+ACK, lowered on the way.

use bulkhead_abi::{Reason, Settings};

use crate::{
    frame::{ACK, Frame, SYN},
    net::{DMZ, INSIDE, MISS, Net, OUTSIDE, ZONE_DMZ, ZONE_INSIDE, ZONE_OUTSIDE, permit},
};

/// Client, server outside, server in the DMZ (whose MTU is 1,400), the outside address, bytes of headers; per family.
const FAMILIES: [(&str, &str, &str, &str, u16); 2] = [
    ("10.1.0.2", "192.0.2.80", "10.3.0.2", "198.51.100.1", 40),
    (
        "2001:db8:1::2",
        "2001:db8:80::80",
        "2001:db8:3::2",
        "2001:db8:2::1",
        60,
    ),
];

fn net(most: u32) -> Net {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE), permit(ZONE_INSIDE, ZONE_DMZ)]);
    net.settings(|settings| settings.tcp_mss = most);
    net
}

/// Options with the segment size at an even and at an odd offset, first and last of the longest list there can be.
fn placed(mss: u16) -> Vec<Vec<u8>> {
    let [high, low] = mss.to_be_bytes();
    let mut last = vec![1; 36];
    last.extend([2, 4, high, low]);
    let mut last_odd = vec![1; 35];
    last_odd.extend([2, 4, high, low, 0]);
    vec![
        vec![2, 4, high, low],
        vec![1, 2, 4, high, low, 1, 1, 0],
        vec![3, 3, 7, 2, 4, high, low, 0],
        vec![4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 3, 3, 7, 2, 4, high, low, 0],
        last,
        last_odd,
    ]
}

/// What a frame announces, and its options without it.
fn announced(options: &[u8]) -> (Option<u16>, Vec<u8>) {
    let mut rest = options.to_vec();
    let mut at = 0;
    while at < options.len() && options[at] != 0 {
        if options[at] == 2 {
            rest[at + 2..at + 4].fill(0);
            return (Some(u16::from_be_bytes([options[at + 2], options[at + 3]])), rest);
        }
        at += if options[at] == 1 {
            1
        } else {
            usize::from(options[at + 1])
        };
    }
    (None, rest)
}

/// Checksums are verified in `forwarded`, wherever the option stands.
#[test]
fn a_larger_one_is_lowered_and_a_smaller_one_is_not_raised() {
    for (client, server, _, own, _) in FAMILIES {
        for translate in [false, true] {
            for (offered, most, expected) in [
                (1460, 1200, 1200),
                (1200, 1200, 1200),
                (536, 1200, 536),
                (0xffff, 0x100, 0x100),
            ] {
                for options in placed(offered) {
                    let mut net = net(most);
                    if translate {
                        net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
                    }
                    let syn = Frame::new(client, server)
                        .tcp(40_000, 80, SYN, 1000, 0)
                        .tcp_options(&options)
                        .payload(b"fast open");
                    let sent = net
                        .receive(INSIDE, &syn)
                        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
                    let of = |segment: &[u8]| announced(&segment[20..usize::from(segment[12] >> 4) * 4]);
                    let (mss, rest) = of(&sent.seen.segment);
                    assert_eq!((mss, rest), (Some(expected), announced(&options).1));
                    assert!(sent.seen.segment.ends_with(b"fast open"));
                    // Repeated, and answered.
                    let again = net
                        .receive(INSIDE, &syn)
                        .forwarded(OUTSIDE, Reason::HalfOpen, &[]);
                    assert_eq!(of(&again.seen.segment).0, Some(expected));
                    let to = if translate { own } else { client };
                    let answer = Frame::new(server, to)
                        .tcp(80, 40_000, SYN | ACK, 9000, 1001)
                        .tcp_options(&options);
                    let back = net
                        .receive(OUTSIDE, &answer)
                        .forwarded(INSIDE, Reason::HalfOpen, &[])
                        .between(server, client);
                    assert_eq!(of(&back.seen.segment).0, Some(expected));
                }
            }
        }
    }
}

#[test]
fn the_path_is_both_interfaces() {
    for (client, server, dmz, _, headers) in FAMILIES {
        for (to, egress, mtu) in [(server, OUTSIDE, 1500), (dmz, DMZ, 1400)] {
            let mut net = net(Settings::MSS_PATH);
            let options = [2, 4, 0x23, 0x28];
            let syn = Frame::new(client, to)
                .tcp(40_000, 80, SYN, 1000, 0)
                .tcp_options(&options);
            let sent = net
                .receive(INSIDE, &syn)
                .forwarded(egress, Reason::SessionCreated, &[MISS]);
            assert_eq!(announced(&sent.seen.segment[20..]).0, Some(mtu - headers));
            let answer = Frame::new(to, client)
                .tcp(80, 40_000, SYN | ACK, 9000, 1001)
                .tcp_options(&options);
            let back = net
                .receive(egress, &answer)
                .forwarded(INSIDE, Reason::HalfOpen, &[]);
            assert_eq!(announced(&back.seen.segment[20..]).0, Some(mtu - headers));
        }
    }
}

#[test]
fn without_the_option_or_the_setting_nothing_changes() {
    for (client, server, _, _, _) in FAMILIES {
        for (most, options) in [
            (Settings::MSS_KEEP, vec![2, 4, 0x23, 0x28]),
            (100, vec![]),
            (100, vec![1, 1, 1, 0]),
            (100, vec![3, 3, 7, 0]),
            // Malformed, and behind the end of the list.
            (100, vec![2, 3, 5, 0]),
            (100, vec![2, 6, 5, 0xb4]),
            (100, vec![0, 2, 4, 5, 0xb4, 0, 0, 0]),
        ] {
            let mut net = net(most);
            let syn = Frame::new(client, server)
                .tcp(40_000, 80, SYN, 1000, 0)
                .tcp_options(&options);
            let sent = net
                .receive(INSIDE, &syn)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
            assert_eq!(sent.seen.segment[20..], options);
        }
        // Nor in what is not a SYN.
        let mut net = net(100);
        let syn = Frame::new(client, server).tcp(40_001, 80, SYN, 1000, 0);
        net.receive(INSIDE, &syn)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        let answer = Frame::new(server, client).tcp(80, 40_001, SYN | ACK, 9000, 1001);
        net.receive(OUTSIDE, &answer)
            .forwarded(INSIDE, Reason::HalfOpen, &[]);
        let options = [2, 4, 0x23, 0x28];
        let ack = Frame::new(client, server)
            .tcp(40_001, 80, ACK, 1001, 9001)
            .tcp_options(&options);
        let sent =
            net.receive(INSIDE, &ack)
                .forwarded(OUTSIDE, Reason::Established, &[("sessions_established", 1)]);
        assert_eq!(sent.seen.segment[20..], options);
    }
}

/// The header buffer ends before the options of a packet with a long chain: what cannot be seen is left alone.
#[test]
fn an_option_out_of_sight_is_left_alone() {
    let (client, server, _, _, _) = FAMILIES[1];
    let mut net = net(100);
    let mut body = vec![0, 0, 1, 4, 0, 0, 0, 0];
    body.resize(112, 0);
    body[1] = 13;
    let options = [1, 1, 1, 1, 2, 4, 0x23, 0x28];
    let syn = Frame::new(client, server)
        .extension(60, &body)
        .tcp(40_000, 80, SYN, 1000, 0)
        .tcp_options(&options);
    let sent = net
        .receive(INSIDE, &syn)
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    assert!(sent.bytes.ends_with(&options));
}
