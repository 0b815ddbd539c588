//! Conversations that another one announced: whom they are open for, how they are translated, when they end.

use bulkhead_abi::{ExpectKey, Expectation, Reason, gateways};

use bulkhead_pipeline::Action;

use crate::{
    FAMILIES,
    frame::{ACK, Frame, SYN, TCP, UDP, ip},
    net::{
        ANY, HIT, INSIDE, MISS, Net, OUTSIDE, Policy, SECOND, Step, ZONE_INSIDE, ZONE_OUTSIDE, permit, words,
    },
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
    // The announcement is spent; the port is as closed as before.
    net.commit(&[TFTP]);
    net.service(1, TCP, 21);
    net.receive(OUTSIDE, &Frame::new(server, client).tcp(20, 40000, SYN, 100, 0))
        .dropped(Reason::DefaultDeny, &[MISS]);
}

#[test]
fn a_control_connection_is_read_by_user_space_and_goes_on_when_put_back() {
    for (client, server, _) in FAMILIES {
        let mut net = net(gateways::FTP);
        net.receive(INSIDE, &Frame::new(client, server).tcp(5000, 21, SYN, 100, 0))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.receive(
            OUTSIDE,
            &Frame::new(server, client).tcp(21, 5000, SYN | ACK, 500, 101),
        )
        .forwarded(INSIDE, Reason::HalfOpen, &[]);
        net.receive(INSIDE, &Frame::new(client, server).tcp(5000, 21, ACK, 101, 501))
            .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED]);
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

#[test]
fn a_guess_at_a_control_connection_is_not_read() {
    for (client, server, _) in FAMILIES {
        let mut net = net(gateways::FTP);
        net.receive(INSIDE, &Frame::new(client, server).tcp(5000, 21, SYN, 100, 0))
            .forwarded(OUTSIDE, Reason::SessionCreated, &[MISS]);
        net.receive(
            OUTSIDE,
            &Frame::new(server, client).tcp(21, 5000, SYN | ACK, 500, 101),
        )
        .forwarded(INSIDE, Reason::HalfOpen, &[]);
        net.receive(INSIDE, &Frame::new(client, server).tcp(5000, 21, ACK, 101, 501))
            .forwarded(OUTSIDE, Reason::Established, &[ESTABLISHED]);
        let guess = Frame::new(client, server).tcp(5000, 21, ACK, 1 << 30, 501);
        net.receive(INSIDE, &guess.payload(b"PORT 10,1,0,2,156,64\r\n"))
            .dropped(Reason::TcpOutOfWindow, &[]);
    }
}
