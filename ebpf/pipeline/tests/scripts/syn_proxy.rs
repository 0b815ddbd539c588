//! SYN cookies: a destination under attack, the whole handshake on both sides, and the numbers in between.

mod case;
mod forgery;
mod loss;
mod ways;

use bulkhead_abi::Reason;

pub use self::case::guard;
use self::case::{
    ACCEPTED, CLIENT, Case, ESTABLISHED, HIT, OPTIONS, REFUSED, SERVER, Segment, bare, cases, challenged,
    mss_option, segment,
};
use crate::{
    frame::{ACK, FIN, Frame, PSH, SYN},
    net::{DMZ, INSIDE, MISS, Net, OUTSIDE, SECOND, ZONE_DMZ, ZONE_INSIDE, ZONE_OUTSIDE, mac, permit},
};

#[test]
fn a_syn_is_answered_without_state() {
    for mut case in cases() {
        case.attack(SECOND);
        let plain = case.to_server(SYN, 7, 0).ttl(2);
        let frames = [
            plain.clone(),
            plain.clone().tcp_options(&[2, 4, 2, 0]),
            plain.clone().tcp_options(OPTIONS),
            plain.clone().tcp_options(&[1; 40]),
            plain.clone().tcp_options(&[0; 4]).payload(b"fast open data"),
        ];
        for (number, frame) in frames.iter().enumerate() {
            let others = if number == 0 { [MISS] } else { [HIT] };
            let _seen = challenged(case.net.receive(INSIDE, frame), INSIDE, &others);
        }
        // As the shortest frame of a wire, padded.
        let mut padded = plain.to(mac(INSIDE)).build();
        padded.resize(padded.len().max(60), 0xee);
        let _seen = challenged(case.net.receive_bytes(INSIDE, &padded), INSIDE, &[HIT]);
        assert_eq!(case.net.flows(), (0, 0));
        assert!(case.net.tables().take_events().is_empty());
    }
}

#[test]
fn the_segment_size_is_the_clients_and_fits_the_way() {
    for mut case in cases() {
        case.attack(SECOND);
        let kernels: [u16; 4] = if case.is_v4() {
            [536, 1300, 1440, 1460]
        } else {
            [1220, 1420, 1440, 1440]
        };
        let offered: [u16; 4] = [536, 1300, 1440, 9000];
        let v6: [u16; 4] = [1300, 1425, 1440, 9000];
        for (number, mss) in (if case.is_v4() { offered } else { v6 }).into_iter().enumerate() {
            let port = 50000 + number as u16;
            let syn = Frame::new(case.client, case.server)
                .tcp(port, 80, SYN, 77, 0)
                .tcp_options(&mss_option(mss));
            let others = if number == 0 { [MISS] } else { [HIT] };
            let answer = segment(&challenged(case.net.receive(INSIDE, &syn), INSIDE, &others));
            assert_eq!(answer.options, mss_option(kernels[number]), "offered {mss}");
            let ack = Frame::new(case.client, case.server).tcp(port, 80, ACK, 78, answer.seq.wrapping_add(1));
            let sent =
                case.net
                    .receive(INSIDE, &ack)
                    .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, ACCEPTED]);
            assert_eq!(
                segment(&sent.seen).options,
                mss_option(kernels[number]),
                "offered {mss}"
            );
        }
    }
    // Towards a narrower link the client may not send what it may receive.
    for (client, server, mss) in [
        ("10.1.0.2", "10.3.0.2", 1360),
        ("2001:db8:1::2", "2001:db8:3::2", 1340),
    ] {
        let mut net = Net::new(&[permit(ZONE_INSIDE, ZONE_DMZ)]);
        guard(&net, ZONE_INSIDE, server, u64::MAX);
        let syn = Frame::new(client, server)
            .tcp(1, 80, SYN, 77, 0)
            .tcp_options(OPTIONS);
        let answer = segment(&challenged(net.receive(INSIDE, &syn), INSIDE, &[MISS]));
        assert_eq!(answer.options, mss_option(mss));
        let ack = Frame::new(client, server).tcp(1, 80, ACK, 78, answer.seq.wrapping_add(1));
        let sent = net
            .receive(INSIDE, &ack)
            .forwarded(DMZ, Reason::SessionCreated, &[HIT, ACCEPTED]);
        let remembered = if mss == 1360 { 1460 } else { 1440 };
        assert_eq!(segment(&sent.seen).options, mss_option(remembered));
    }
}

#[test]
fn only_what_policy_permits_to_that_destination_from_that_zone_is_challenged() {
    for mut case in cases() {
        case.attack(SECOND);
        let (other, back) = if case.is_v4() {
            ("192.0.2.81", "10.1.0.2")
        } else {
            ("2001:db8:80::81", "2001:db8:1::2")
        };
        case.net
            .receive(INSIDE, &Frame::new(case.client, other).tcp(1, 80, SYN, 1, 0))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        guard(&case.net, ZONE_OUTSIDE, back, u64::MAX);
        case.net
            .receive(OUTSIDE, &Frame::new(other, back).tcp(1, 80, SYN, 1, 0))
            .dropped(Reason::DefaultDeny, &[MISS]);
        // Another zone's attack, and another protocol.
        guard(&case.net, ZONE_DMZ, case.server, u64::MAX);
        case.net
            .receive(INSIDE, &Frame::new(case.client, case.server).udp(1, 80))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
        case.challenged();
        // Over.
        case.net.advance(SECOND);
        let syn = case.syn();
        let sent = case
            .net
            .receive(INSIDE, &syn)
            .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT]);
        assert_eq!(segment(&sent.seen).options, OPTIONS);
    }
}

#[test]
fn a_connection_completes_and_carries_data_both_ways() {
    for mut case in cases() {
        let expected = case.open();
        assert_eq!(case.net.flows(), (2, 0));
        let (mut client, mut server, mut known) = (CLIENT.wrapping_add(1), SERVER.wrapping_add(1), expected);
        for length in [1, 2, 1000, 1400, 7] {
            let payload = vec![length as u8; length as usize];
            let frame = case.to_server(ACK | PSH, client, known).payload(&payload);
            let got = case.out(&frame, Reason::Established);
            assert_eq!((got.flags, got.seq, got.ack), (ACK | PSH, client, server));
            assert_eq!(got.payload, payload);
            client = client.wrapping_add(length);
            let frame = case.to_client(ACK, server, client).payload(&payload).window(999);
            let got = case.back(&frame, Reason::Established);
            assert_eq!(
                (got.flags, got.seq, got.ack, got.window),
                (ACK, known, client, 999)
            );
            assert_eq!(got.payload, payload);
            (server, known) = (server.wrapping_add(length), known.wrapping_add(length));
        }
        // It ends as it began: by numbers of both sides.
        let frame = case.to_server(FIN | ACK, client, known);
        let got = case.out(&frame, Reason::Established);
        assert_eq!((got.flags, got.seq, got.ack), (FIN | ACK, client, server));
        let frame = case.to_client(FIN | ACK, server, client.wrapping_add(1));
        let got = case.back(&frame, Reason::Established);
        assert_eq!(
            (got.flags, got.seq, got.ack),
            (FIN | ACK, known, client.wrapping_add(1))
        );
        let frame = case.to_server(ACK, client.wrapping_add(1), known.wrapping_add(1));
        let got = case.out(&frame, Reason::Established);
        assert_eq!(
            (got.flags, got.seq, got.ack),
            (ACK, client.wrapping_add(1), server.wrapping_add(1))
        );
        // The tuple may be used again (after a while: its numbers begin no higher), and is challenged again.
        case.net.advance(60 * SECOND);
        case.attack(SECOND);
        case.challenged();
        assert_eq!(case.net.flows(), (0, 0));
    }
}

#[test]
fn a_configured_segment_size_holds_for_both_handshakes() {
    for mut case in cases() {
        case.net.settings(|settings| settings.tcp_mss = 1000);
        case.attack(SECOND);
        let syn = case.syn();
        let answer = segment(&challenged(case.net.receive(INSIDE, &syn), INSIDE, &[MISS]));
        assert_eq!(answer.options, mss_option(1000));
        let ack = case.proof(answer.seq.wrapping_add(1));
        let sent =
            case.net
                .receive(INSIDE, &ack)
                .forwarded(OUTSIDE, Reason::SessionCreated, &[HIT, ACCEPTED]);
        assert_eq!(segment(&sent.seen).options, mss_option(1000));
    }
}
