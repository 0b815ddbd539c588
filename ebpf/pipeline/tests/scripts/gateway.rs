//! Conversations that another one announced: whom they are open for, how they are translated, when they end.

use bulkhead_abi::{
    ExpectKey, Expectation, Flow, FlowKey6, LimitKey, LimitKind, LimitRule, Reason, gateways,
};
use bulkhead_pipeline::{Action, Insert, Table, control::correct};

use crate::{
    FAMILIES,
    fragments::pieces,
    frame::{ACK, Frame, SYN, Seen, TCP, UDP, ip},
    net::{
        ANY, HIT, INSIDE, MISS, Net, OUTSIDE, Policy, SECOND, Step, ZONE_INSIDE, ZONE_OUTSIDE, mac, permit,
        words,
    },
    syn_proxy::guard,
};

const ESTABLISHED: (&str, u64) = ("sessions_established", 1);

const TFTP: Policy = permit(ZONE_INSIDE, ZONE_OUTSIDE).service(1);

fn net(which: u32) -> Net {
    let mut net = Net::new(&[TFTP]);
    net.service(1, UDP, 69);
    net.service(1, TCP, 21);
    net.settings(|settings| settings.gateways = which);
    net
}

#[test]
fn a_tftp_server_answers_from_another_port() {
    for (client, server, _) in FAMILIES {
        let mut net = net(gateways::TFTP);
        net.receive(INSIDE, &Frame::new(client, server).udp(5000, 69))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        let data = Frame::new(server, client).udp(3333, 5000);
        // From outside, where nothing is permitted: policy is asked about the request.
        net.receive(OUTSIDE, &data)
            .forwarded(INSIDE, Reason::SessionCreated, &[HIT])
            .between(server, client);
        net.receive(INSIDE, &Frame::new(client, server).udp(5000, 3333))
            .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED]);
        net.receive(OUTSIDE, &data)
            .forwarded(INSIDE, Reason::Established, &[]);
        // One answer to one request.
        net.receive(OUTSIDE, &Frame::new(server, client).udp(3334, 5000))
            .dropped(Reason::DefaultDeny, &[MISS]);
    }
}

#[test]
fn a_tftp_answer_finds_its_client_through_translation() {
    for (client, server, _) in FAMILIES {
        let outside = if client.contains(':') {
            "2001:db8:2::1"
        } else {
            "198.51.100.1"
        };
        let mut net = net(gateways::TFTP);
        net.translate(ZONE_INSIDE, ZONE_OUTSIDE);
        net.receive(INSIDE, &Frame::new(client, server).udp(5000, 69))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS])
            .between(outside, server);
        net.receive(OUTSIDE, &Frame::new(server, outside).udp(3333, 5000))
            .forwarded(INSIDE, Reason::SessionCreated, &[HIT])
            .between(server, client);
        net.receive(INSIDE, &Frame::new(client, server).udp(5000, 3333))
            .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED])
            .between(outside, server);
    }
}

#[test]
fn without_the_gateway_nothing_is_expected() {
    let (client, server, _) = FAMILIES[0];
    let mut net = net(gateways::FTP);
    net.receive(INSIDE, &Frame::new(client, server).udp(5000, 69))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.receive(OUTSIDE, &Frame::new(server, client).udp(3333, 5000))
        .dropped(Reason::DefaultDeny, &[MISS]);
}

#[test]
fn an_answer_after_a_minute_is_too_late() {
    let (client, server, _) = FAMILIES[0];
    let mut net = net(gateways::TFTP);
    net.receive(INSIDE, &Frame::new(client, server).udp(5000, 69))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.advance(61 * SECOND);
    net.receive(OUTSIDE, &Frame::new(server, client).udp(3333, 5000))
        .dropped(Reason::DefaultDeny, &[MISS]);
}

/// What user space writes for an active transfer: the server connects to `outside:port`, which is `client:port`.
fn active(net: &Net, server: &str, outside: &str, client: &str, port: u16) {
    let key = ExpectKey {
        source_be: words(ip(server)),
        destination_be: words(ip(outside)),
        destination_port: port,
        protocol: TCP,
        family: if server.contains(':') { 6 } else { 4 },
        context: 0,
    };
    let expectation = Expectation {
        created_ns: 10 * SECOND,
        new_source_be: words(ip(server)),
        new_destination_be: words(ip(client)),
        new_destination_port: 40000,
        announced_by: 21,
        from_server: 1,
    };
    net.tables().expected.set(&key, &expectation);
}

#[test]
fn an_active_transfer_lives_as_long_as_its_control_connection_would_be_permitted() {
    for (client, server, _) in FAMILIES {
        let outside = if client.contains(':') {
            "2001:db8:2::1"
        } else {
            "198.51.100.1"
        };
        let mut net = net(gateways::FTP);
        active(&net, server, outside, client, 40001);
        net.receive(OUTSIDE, &Frame::new(server, outside).tcp(20, 40001, SYN, 100, 0))
            .forwarded(INSIDE, Reason::SessionCreated, &[MISS])
            .between(server, client);
        net.receive(
            INSIDE,
            &Frame::new(client, server).tcp(40000, 20, SYN | ACK, 500, 101),
        )
        .forwarded(OUTSIDE, Reason::HalfOpen, &[])
        .between(outside, server);
        let data = Frame::new(server, outside).tcp(20, 40001, ACK, 101, 501);
        net.receive(OUTSIDE, &data)
            .forwarded(INSIDE, Reason::Established, &[ESTABLISHED]);
        // Another configuration that permits the control connection: the transfer notices nothing, in either direction.
        net.commit(&[permit(ANY, ZONE_OUTSIDE)]);
        net.receive(OUTSIDE, &data)
            .forwarded(INSIDE, Reason::Established, &[MISS]);
        net.commit(&[permit(ZONE_INSIDE, ANY)]);
        let ack = Frame::new(client, server).tcp(40000, 20, ACK, 501, 101);
        net.receive(INSIDE, &ack)
            .forwarded(OUTSIDE, Reason::Established, &[MISS]);
        // One that does not.
        net.commit(&[permit(ZONE_OUTSIDE, ZONE_INSIDE)]);
        net.receive(OUTSIDE, &data)
            .dropped(Reason::PolicyChanged, &[MISS]);
        net.receive(INSIDE, &ack).dropped(Reason::TcpNoSession, &[]);
    }
}

#[test]
fn an_announced_conversation_needs_its_announcer_permitted() {
    let (client, server, _) = FAMILIES[0];
    let mut net = net(gateways::FTP);
    active(&net, server, client, client, 40000);
    net.commit(&[permit(ZONE_INSIDE, ZONE_OUTSIDE).service(2)]);
    net.settings(|settings| settings.gateways = gateways::FTP);
    net.receive(OUTSIDE, &Frame::new(server, client).tcp(20, 40000, SYN, 100, 0))
        .dropped(Reason::DefaultDeny, &[MISS]);
    // Nothing came of it: the client repeats its SYN, and policy is asked again.
    net.commit(&[TFTP]);
    net.service(1, TCP, 21);
    net.settings(|settings| settings.gateways = gateways::FTP);
    net.receive(OUTSIDE, &Frame::new(server, client).tcp(20, 40000, SYN, 100, 0))
        .forwarded(INSIDE, Reason::SessionCreated, &[MISS]);
    is_spent(&mut net, server, client);
}

/// The announcement of [`active`] has opened its one conversation: another port is as closed as before.
fn is_spent(net: &mut Net, server: &str, client: &str) {
    assert!(net.tables().expected.entries().is_empty());
    let other = Frame::new(server, client).tcp(21, 40000, SYN, 100, 0);
    let outcome = net.receive(OUTSIDE, &other).outcome;
    assert_eq!(outcome.verdict.reason, Reason::DefaultDeny);
}

/// The server's SYN that [`active`] announced, without translation.
fn announced(server: &str, client: &str) -> Frame {
    Frame::new(server, client).tcp(20, 40000, SYN, 100, 0)
}

#[test]
fn a_conversation_over_a_limit_stays_expected() {
    for (client, server, _) in FAMILIES {
        let mut net = net(gateways::FTP);
        active(&net, server, client, client, 40000);
        let limit = LimitRule {
            source: 1,
            ..LimitRule::default()
        };
        net.limit(ZONE_OUTSIDE, limit);
        let key = LimitKey {
            scope: LimitKey::scope(
                if client.contains(':') { 6 } else { 4 },
                LimitKind::Source,
                ZONE_OUTSIDE as u8,
            ),
            address_be: words(ip(server)),
        };
        correct(net.tables(), &key, 1);
        net.receive(OUTSIDE, &announced(server, client))
            .dropped(Reason::SessionLimitSource, &[MISS]);
        correct(net.tables(), &key, -1);
        net.receive(OUTSIDE, &announced(server, client))
            .forwarded(INSIDE, Reason::SessionCreated, &[HIT]);
        is_spent(&mut net, server, client);
    }
}

#[test]
fn a_conversation_that_could_not_be_entered_stays_expected() {
    for (client, server, _) in FAMILIES {
        let mut net = net(gateways::FTP);
        active(&net, server, client, client, 40000);
        // Another session holds the key of the answers.
        let family = if client.contains(':') { 6 } else { 4 };
        let other = Flow {
            session_id: 77,
            ..Flow::default()
        };
        let taken = FlowKey6 {
            source_be: words(ip(client)),
            destination_be: words(ip(server)),
            source_port: 40000,
            destination_port: 20,
            protocol: u32::from(TCP),
        };
        let table = net.tables().flows(Table::HalfOpen, family);
        assert_eq!(table.insert(&taken, &other), Insert::Done);
        let outcome = net.receive(OUTSIDE, &announced(server, client)).outcome;
        assert_eq!(outcome.verdict.reason, Reason::NatPortsExhausted);
        net.tables().flows(Table::HalfOpen, family).remove(&taken);
        net.receive(OUTSIDE, &announced(server, client))
            .forwarded(INSIDE, Reason::SessionCreated, &[HIT]);
        is_spent(&mut net, server, client);
    }
}

/// The same client announces the same port again while the conversation of before is being entered: that is another one.
#[test]
fn what_is_announced_anew_meanwhile_stays_expected() {
    for (client, server, _) in FAMILIES {
        let mut net = net(gateways::FTP);
        active(&net, server, client, client, 40000);
        // After the announcement is found, before it is spent.
        net.tables().interrupt(1, |tables| {
            let (key, first) = tables.expected.entries()[0];
            let anew = Expectation {
                created_ns: first.created_ns + 1,
                ..first
            };
            tables.expected.set(&key, &anew);
        });
        net.receive(OUTSIDE, &announced(server, client))
            .forwarded(INSIDE, Reason::SessionCreated, &[MISS]);
        assert!(!net.tables().interruption_pending());
        // Another port of the server's: another conversation, which has its announcement.
        let second = Frame::new(server, client).tcp(21, 40000, SYN, 100, 0);
        net.receive(OUTSIDE, &second)
            .forwarded(INSIDE, Reason::SessionCreated, &[HIT]);
        assert!(net.tables().expected.entries().is_empty());
    }
}

#[test]
fn a_challenged_conversation_stays_expected() {
    for (client, server, _) in FAMILIES {
        let mut net = net(gateways::FTP);
        active(&net, server, client, client, 40000);
        guard(&net, ZONE_OUTSIDE, client, 20 * SECOND);
        let outcome = net.receive(OUTSIDE, &announced(server, client)).outcome;
        assert_eq!(outcome.verdict.reason, Reason::SynCookieSent);
        let seen = Seen::read(&outcome.bytes);
        let cookie = u32::from(seen.word(4)) << 16 | u32::from(seen.word(6));
        let proof = Frame::new(server, client).tcp(20, 40000, ACK, 101, cookie.wrapping_add(1));
        let outcome = net.receive(OUTSIDE, &proof).outcome;
        assert_eq!(outcome.verdict.reason, Reason::SessionCreated, "{outcome:02x?}");
        assert!(net.tables().expected.entries().is_empty());
    }
}

#[test]
fn a_request_that_is_cut_opens_what_was_expected_when_its_pieces_come() {
    let (client, server, _) = FAMILIES[0];
    let mut net = net(gateways::FTP);
    active(&net, server, client, client, 40000);
    let mut facts = net.tables().interfaces.get(&INSIDE).unwrap();
    facts.mtu = 576;
    net.tables().interfaces.set(&INSIDE, &facts);
    // A SYN with data (RFC 7413), free to be fragmented.
    let syn = announced(server, client)
        .payload(&[7; 1000])
        .to(mac(OUTSIDE))
        .build();
    let whole = pieces(&syn, &[0], 7).remove(0);
    let outcome = net.receive_bytes(OUTSIDE, &whole).outcome;
    assert_eq!(outcome.verdict.reason, Reason::Fragmented);
    for piece in pieces(&syn, &[0, 520], 7) {
        net.put_back(OUTSIDE, &piece).forwarded_in_part(INSIDE);
    }
    is_spent(&mut net, server, client);
}

#[test]
fn a_control_connection_is_read_by_user_space_and_goes_on_when_put_back() {
    for (client, server, _) in FAMILIES {
        let mut net = net(gateways::FTP);
        control(&mut net, client, server);
        let line = Frame::new(client, server)
            .tcp(5000, 21, ACK, 101, 501)
            .payload(b"NOOP\r\n");
        let held = net.receive(INSIDE, &line).outcome;
        assert_eq!((held.verdict.action, held.handed.len()), (Action::Held, 1));
        assert!(held.delta.is_empty(), "counted where it ends: {:?}", held.delta);
        let bytes = held.handed[0].frame.clone();
        Step {
            outcome: net.firewall.injected(INSIDE, &bytes),
            before: bytes,
        }
        .forwarded(OUTSIDE, Reason::Established, &[("frames_injected", 1)]);
        // Numbers that user space moved are not the packet path's to check; XDP leaves the session alone.
        net.receive_xdp(INSIDE, &line).next_hook();
    }
}

/// The handshake of a control connection.
fn control(net: &mut Net, client: &str, server: &str) {
    net.receive(INSIDE, &Frame::new(client, server).tcp(5000, 21, SYN, 100, 0))
        .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
    net.receive(
        OUTSIDE,
        &Frame::new(server, client).tcp(21, 5000, SYN | ACK, 500, 101),
    )
    .forwarded(INSIDE, Reason::HalfOpen, &[]);
    net.receive(INSIDE, &Frame::new(client, server).tcp(5000, 21, ACK, 101, 501))
        .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED]);
}

/// The numbers of a fragment would not be moved, and what it announces not be read.
#[test]
fn a_control_packet_in_fragments_is_lost() {
    for (client, server, _) in FAMILIES {
        let mut net = net(gateways::FTP);
        control(&mut net, client, server);
        let line = Frame::new(client, server)
            .tcp(5000, 21, ACK, 101, 501)
            .payload(&[b'x'; 60])
            .to(mac(INSIDE))
            .build();
        for fragment in pieces(&line, &[0, 32, 64], 9) {
            net.receive_bytes(INSIDE, &fragment)
                .dropped(Reason::GatewayLost, &[]);
        }
        // In the wrong order too: what waited falls with the first.
        let [first, later] = pieces(&line, &[0, 32], 10).try_into().unwrap();
        let held = net.receive_bytes(INSIDE, &later).held();
        net.receive_bytes(INSIDE, &first)
            .dropped(Reason::GatewayLost, &[]);
        net.put_back(INSIDE, &held.frame)
            .dropped(Reason::GatewayLost, &[("frames_injected", 1)]);
        // What user space has read and cut goes on.
        for piece in pieces(&line, &[0, 32], 11) {
            net.put_back(INSIDE, &piece).forwarded_in_part(OUTSIDE);
        }
    }
}

#[test]
fn a_guess_at_a_control_connection_is_not_read() {
    for (client, server, _) in FAMILIES {
        let mut net = net(gateways::FTP);
        control(&mut net, client, server);
        let guess = Frame::new(client, server).tcp(5000, 21, ACK, 1 << 30, 501);
        net.receive(INSIDE, &guess.payload(b"PORT 10,1,0,2,156,64\r\n"))
            .dropped(Reason::TcpOutOfWindow, &[]);
    }
}
