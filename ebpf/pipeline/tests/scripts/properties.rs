//! Properties over random packets: nothing panics, what is forwarded verifies, limits hold.

use bulkhead_abi::{Reason, SessionState};
use bulkhead_pipeline::{Action, Table, Work, take_token};
use proptest::prelude::*;

use crate::{
    frame::{Frame, SYN},
    net::{INSIDE, Net, OUTSIDE, ZONE_INSIDE, ZONE_OUTSIDE, mac, permit},
    verify,
};

const CLIENTS: [&str; 4] = ["10.1.0.2", "10.1.0.3", "2001:db8:1::2", "2001:db8:1::3"];
const SERVERS: [&str; 4] = ["192.0.2.80", "192.0.2.81", "2001:db8:80::80", "2001:db8:80::81"];

fn translating() -> Net {
    let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_OUTSIDE)]);
    net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
    net
}

/// Packets that open sessions: few hosts and ports, so that they collide.
fn opener() -> impl Strategy<Value = Frame> {
    let payload = proptest::collection::vec(any::<u8>(), 0..200);
    (
        any::<bool>(),
        0..2usize,
        0..2usize,
        0..3u16,
        0..4u8,
        payload,
        any::<u32>(),
        2..255u8,
    )
        .prop_map(|(v6, client, server, port, kind, payload, seq, ttl)| {
            let family = usize::from(v6) * 2;
            let frame = Frame::new(CLIENTS[family + client], SERVERS[family + server]);
            let frame = match kind {
                0 => frame.tcp(1000 + port, 80, SYN, seq, 0),
                1 => frame.udp(1000 + port, 53),
                2 => frame.echo(1000 + port, seq as u16),
                _ => frame.udp(1000 + port, 54),
            };
            frame.payload(&payload).ttl(ttl)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn translated_packets_verify(frames in proptest::collection::vec(opener(), 1..20)) {
        let mut net = translating();
        for frame in frames {
            let bytes = frame.clone().to(mac(INSIDE)).build();
            let outcome = net.firewall.ingress(INSIDE, &bytes);
            prop_assert!(!outcome.verdict.reason.is_drop(), "{:?}", outcome.verdict);
            prop_assert_eq!(verify::check(&outcome.bytes[14..], false), Ok(()));
            // An error about it finds its way back, its quote restored.
            let own = if frame.is_v4() { "198.51.100.1" } else { "2001:db8:2::1" };
            let router = if frame.is_v4() { "198.51.100.77" } else { "2001:db8:2::77" };
            let error = Frame::new(router, own).error(&outcome.bytes, true).to(mac(OUTSIDE)).build();
            let outcome = net.firewall.ingress(OUTSIDE, &error);
            prop_assert_eq!(outcome.verdict.reason, Reason::RelatedIcmp);
            prop_assert_eq!(verify::check(&outcome.bytes[14..], false), Ok(()));
            let quoted = &outcome.bytes[outcome.bytes.len() - (bytes.len() - 14)..];
            let l4 = if frame.is_v4() { 20 } else { 40 };
            prop_assert_eq!(&quoted[l4..], &bytes[14 + l4..]);
            prop_assert_eq!(&quoted[12..20], &bytes[26..34]);
        }
    }

    #[test]
    fn no_two_sessions_share_an_outside_tuple(frames in proptest::collection::vec(opener(), 1..60)) {
        let mut net = translating();
        let mut outside = std::collections::BTreeMap::new();
        for frame in frames {
            let outcome = net.firewall.ingress(INSIDE, &frame.clone().to(mac(INSIDE)).build());
            let l4 = if frame.is_v4() { 34 } else { 54 };
            let at = if frame.protocol == 1 || frame.protocol == 58 { l4 + 4..l4 + 6 } else { l4..l4 + 4 };
            let tuple = (outcome.bytes[if l4 == 34 { 26..34 } else { 22..54 }].to_vec(),
                frame.protocol, outcome.bytes[at].to_vec());
            let port = if frame.protocol == 1 || frame.protocol == 58 { 4 } else { 0 };
            let inside = (frame.source, frame.header[port..port + 2].to_vec());
            let holder = outside.entry(tuple).or_insert_with(|| inside.clone());
            prop_assert_eq!(&*holder, &inside);
        }
    }

    #[test]
    fn arbitrary_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300), gso in 0..3000u32) {
        let mut net = translating();
        for outcome in [
            net.firewall.ingress(INSIDE, &bytes),
            net.firewall.ingress_gso(INSIDE, &bytes, gso),
            net.firewall.established(INSIDE, &bytes),
            net.firewall.host_egress(OUTSIDE, &bytes, 0, false),
        ] {
            prop_assert!(outcome.bytes.len() == bytes.len());
            prop_assert!(outcome.delta.len() <= 4);
        }
    }

    /// Frames that are nearly right reach deeper than random bytes.
    #[test]
    fn bit_flips_do_no_harm(
        frame in opener(), flips in proptest::collection::vec((0..400usize, any::<u8>()), 0..4), cut in 0..400usize,
    ) {
        let mut net = translating();
        let _first = net.firewall.ingress(INSIDE, &frame.clone().to(mac(INSIDE)).build());
        let mut bytes = frame.to(mac(INSIDE)).build();
        for (at, value) in flips {
            let length = bytes.len();
            bytes[at % length] = value;
        }
        bytes.truncate(bytes.len().max(cut));
        let outcome = net.firewall.ingress(INSIDE, &bytes);
        prop_assert_eq!(outcome.bytes.len(), bytes.len());
        if outcome.verdict.action == Action::Drop {
            prop_assert_eq!(outcome.bytes, bytes);
        }
    }

    /// Nothing of a packet's scratch entry reaches the next packet.
    #[test]
    fn the_remains_of_other_packets_do_not_count(frames in proptest::collection::vec(opener(), 1..10)) {
        let (mut clean, mut dirty) = (translating(), translating());
        for frame in frames {
            for (ifindex, bytes) in [
                (INSIDE, frame.clone().to(mac(INSIDE)).build()),
                (OUTSIDE, frame.clone().to(mac(OUTSIDE)).build()),
            ] {
                clean.firewall.poison(Work::default());
                dirty.firewall.poison(poison());
                let (a, b) = (clean.firewall.ingress(ifindex, &bytes), dirty.firewall.ingress(ifindex, &bytes));
                prop_assert_eq!(a.verdict, b.verdict);
                prop_assert_eq!((a.bytes, a.out_ifindex, a.delta), (b.bytes, b.out_ifindex, b.delta));
                prop_assert_eq!(a.events, b.events);
            }
        }
    }

    #[test]
    fn sessions_come_in_pairs(frames in proptest::collection::vec((opener(), any::<bool>()), 1..40)) {
        let mut net = translating();
        for (frame, expire) in frames {
            let _outcome = net.firewall.ingress(INSIDE, &frame.clone().to(mac(INSIDE)).build());
            if expire {
                net.advance(20_000_000_000);
                net.age();
            }
            for family in [4, 6] {
                for (_, flow) in net.tables().flows(Table::HalfOpen, family).entries() {
                    prop_assert!(SessionState::from_number(flow.state).is_some());
                    let key = bulkhead_abi::FlowKey6 {
                        source_be: flow.new_destination_be,
                        destination_be: flow.new_source_be,
                        source_port: flow.new_destination_port,
                        destination_port: flow.new_source_port,
                        protocol: u32::from(flow.protocol),
                    };
                    let partner = net.tables().flows(Table::HalfOpen, family).get(&key);
                    prop_assert_eq!(partner.map(|partner| partner.session_id), Some(flow.session_id));
                }
            }
        }
    }

    /// Over any stretch of time, at most the bucket's depth and what flowed in meanwhile.
    #[test]
    fn the_token_bucket_never_exceeds_its_rate(
        rate in 0..5000u32, start_ns in any::<u32>(), steps in proptest::collection::vec(0..400_000_000u64, 1..300),
    ) {
        let mut state = 0;
        let mut now_ns = u64::from(start_ns) + 2_000_000_000;
        let mut taken_ns = Vec::new();
        for step in steps {
            // Asked in bursts: as often as it gives.
            for _ in 0..20 {
                if take_token(&mut state, rate, now_ns) {
                    taken_ns.push(now_ns);
                }
            }
            now_ns += step;
        }
        for first in 0..taken_ns.len() {
            for last in (first..taken_ns.len()).step_by(7) {
                let stretch_ms = (taken_ns[last] / 1_000_000) - (taken_ns[first] / 1_000_000);
                let most = u64::from(rate) + u64::from(rate) * stretch_ms / 1000 + 1;
                prop_assert!(((last - first + 1) as u64) <= most, "{} in {stretch_ms} ms at {rate}/s", last - first + 1);
            }
        }
    }

    /// However often it is asked in between: a fraction of a token is not lost each time.
    #[test]
    fn the_token_bucket_is_not_starved_by_asking(rate in 1..200u32, pause_ms in 1..20u64) {
        let mut state = 0;
        let mut now_ns = 5_000_000_000;
        while take_token(&mut state, rate, now_ns) {}
        let mut taken = 0;
        for _ in 0..(20_000 / pause_ms) {
            now_ns += pause_ms * 1_000_000;
            taken += u32::from(take_token(&mut state, rate, now_ns));
        }
        let most_askable = (20_000 / pause_ms) as u32;
        prop_assert!(taken >= (rate * 20).min(most_askable) / 2, "{taken} in 20 s at {rate}/s, asked every {pause_ms} ms");
    }

    /// And it does give: whoever waits long enough for one token gets it.
    #[test]
    fn the_token_bucket_refills(rate in 1..5000u32) {
        let mut state = 0;
        let mut now_ns = 5_000_000_000;
        while take_token(&mut state, rate, now_ns) {}
        now_ns += 1_001_000_000 / u64::from(rate) + 1_000_000;
        prop_assert!(take_token(&mut state, rate, now_ns));
    }
}

/// A scratch entry in which every field says something.
fn poison() -> Work {
    let mut work = Work::default();
    work.headers.words.fill(0xa5a5_a5a5);
    work.packet.source_be = [0xa5a5_a5a5; 4];
    work.packet.icmp = 0x0808;
    work.packet.tcp_flags = 0xff;
    work.flow.state = 4;
    work.flow.flags = 0xff;
    work.flow.hop = 2;
    work.flow.generation = 1;
    work.partner = work.flow;
    work.route.kind = 1;
    work.route.gateway_family = 6;
    work.ingress.mac = [0xa5; 6];
    work.egress.mtu = 1;
    work.event.session_id = 99;
    work.event.tcp_flags = 0xff;
    work.question.port = 99;
    work.walk.key.service = 99;
    work.now_ns = 1;
    work.out_ifindex = 99;
    work.generation = 99;
    work.tables = 98;
    work.policy = 99;
    work.half_open = 1;
    work.packet.options = u64::MAX;
    work.screens.enabled = u64::MAX;
    work.screens.icmp_flood = 1;
    work.screen_key.subject = 99;
    work.zone = 1;
    work.scan.targets = 99;
    work
}
