//! Names looked up at a server of our own, over UDP and TCP.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_feeds::names::{Found, LookupError, System, lookup};

const A: u16 = 1;
const AAAA: u16 = 28;

/// What is said to a question of a type: response code and records of that type; `None` for silence.
type Zone = dyn Fn(&str, u16) -> Option<(u16, Vec<(u32, Vec<u8>)>)> + Send + Sync;

/// The answer of RFC 1035, cut short over UDP where it is too long.
fn respond(query: &[u8], zone: &Zone, room: usize) -> Option<Vec<u8>> {
    let (mut name, mut at) = (String::new(), 12);
    while let length @ 1.. = usize::from(query[at]) {
        name += std::str::from_utf8(&query[at + 1..=at + length]).expect("ASCII");
        name.push('.');
        at += length + 1;
    }
    let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
    let (code, records) = zone(&name, kind)?;
    let mut message = query[..2].to_vec();
    for word in [0x8180 | code, 1, records.len() as u16, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    message.extend(&query[12..at + 5]);
    let question = message.len();
    for (ttl, data) in records {
        message.extend([0xc0, 12]);
        message.extend(kind.to_be_bytes());
        message.extend(1u16.to_be_bytes());
        message.extend(ttl.to_be_bytes());
        message.extend((data.len() as u16).to_be_bytes());
        message.extend(data);
    }
    if message.len() > room {
        message.truncate(question);
        message[2] |= 2;
        message[6..8].fill(0);
    }
    Some(message)
}

fn server(
    zone: impl Fn(&str, u16) -> Option<(u16, Vec<(u32, Vec<u8>)>)> + Send + Sync + 'static,
) -> SocketAddr {
    let zone: Arc<Zone> = Arc::new(zone);
    let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = tcp.local_addr().expect("an address");
    let udp = UdpSocket::bind(address).expect("the same port");
    let over_tcp = zone.clone();
    thread::spawn(move || {
        let mut buffer = [0; 2_000];
        while let Ok((length, from)) = udp.recv_from(&mut buffer) {
            // A guess of somebody else comes first, and does not count.
            let _ = udp.send_to(&[0; 40], from);
            if let Some(message) = respond(&buffer[..length], &*zone, 1_232) {
                let _ = udp.send_to(&message, from);
            }
        }
    });
    thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let mut length = [0; 2];
            stream.read_exact(&mut length).expect("a length");
            let mut query = vec![0; u16::from_be_bytes(length).into()];
            stream.read_exact(&mut query).expect("a question");
            if let Some(message) = respond(&query, &*over_tcp, usize::MAX) {
                let length = (message.len() as u16).to_be_bytes();
                stream
                    .write_all(&[&length, &*message].concat())
                    .expect("an answer");
            }
        }
    });
    address
}

struct Machine {
    _directory: tempfile::TempDir,
    system: System,
}

/// A machine that asks these servers, which all listen on the port of the first.
fn machine(resolv_conf: &str, port: u16) -> Machine {
    let directory = tempfile::tempdir().expect("a directory");
    let system = System {
        resolv_conf: directory.path().join("resolv.conf"),
        hosts: directory.path().join("hosts"),
        port,
    };
    std::fs::write(&system.resolv_conf, resolv_conf).expect("a file");
    std::fs::write(&system.hosts, "192.0.2.77 local.test\n").expect("a file");
    Machine {
        _directory: directory,
        system,
    }
}

fn ask(name: &str, machine: &Machine) -> Result<Found, LookupError> {
    lookup(name, &machine.system, Instant::now() + Duration::from_secs(5))
}

fn shown(found: &Found) -> String {
    let pairs = found.addresses.iter();
    let texts: Vec<String> = pairs
        .map(|(address, ttl)| format!("{address}={}", ttl.as_secs()))
        .collect();
    texts.join(" ")
}

#[test]
fn both_families_with_their_time() {
    let server = server(|name, kind| {
        assert_eq!(name, "www.test.");
        let v6 = "2001:db8::1".parse::<std::net::Ipv6Addr>().expect("an address");
        Some(match kind {
            A => (0, vec![(300, vec![192, 0, 2, 2]), (30, vec![192, 0, 2, 1])]),
            AAAA => (0, vec![(60, v6.octets().to_vec())]),
            _ => (4, vec![]),
        })
    });
    let machine = machine("nameserver 127.0.0.1\n", server.port());
    let found = ask("www.test", &machine).expect("addresses");
    assert_eq!(shown(&found), "192.0.2.1=30 192.0.2.2=300 2001:db8::1=60");
    assert_eq!(
        shown(&ask("local.test", &machine).expect("the file of hosts")),
        "192.0.2.77=60"
    );
}

#[test]
fn long_answers_come_over_tcp() {
    let server = server(|_, kind| {
        let records = (0..200).map(|last| (60, vec![10, 0, 0, last])).collect();
        Some((0, if kind == A { records } else { vec![] }))
    });
    let found = ask("many.test", &machine("nameserver 127.0.0.1\n", server.port())).expect("addresses");
    assert_eq!(found.addresses.len(), 200);
    assert_eq!(found.addresses[199].0, IpAddr::from([10, 0, 0, 199]));
}

#[test]
fn absence_is_an_answer_and_failure_is_none() {
    let server = server(|name, kind| match (name, kind) {
        ("gone.test.", _) => Some((3, vec![])),
        ("half.test.", A) => Some((0, vec![(60, vec![192, 0, 2, 1])])),
        ("mute.test.", _) => None,
        _ => Some((2, vec![])),
    });
    let machine = machine(
        "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
        server.port(),
    );
    assert!(
        ask("gone.test", &machine)
            .expect("an answer")
            .addresses
            .is_empty()
    );
    assert_eq!(
        shown(&ask("half.test", &machine).expect("one family")),
        "192.0.2.1=60"
    );
    assert_eq!(
        ask("ill.test", &machine).expect_err("a failure").to_string(),
        "the DNS server cannot resolve ill.test (SERVFAIL)"
    );
    let silence = ask("mute.test", &machine).expect_err("a failure");
    assert!(matches!(silence, LookupError::Silence { .. }), "{silence}");
    assert!(matches!(ask("a..b", &machine), Err(LookupError::NoName(_))));
}

#[test]
fn the_next_server_is_asked_where_one_does_not_answer() {
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let server = server(move |_, kind| {
        count.fetch_add(1, Ordering::Relaxed);
        Some((
            0,
            if kind == A {
                vec![(60, vec![192, 0, 2, 1])]
            } else {
                vec![]
            },
        ))
    });
    // Nobody listens on the first address, and it says so.
    let machine = machine("nameserver 127.0.0.9\nnameserver 127.0.0.1\n", server.port());
    let began = Instant::now();
    assert_eq!(
        shown(&ask("www.test", &machine).expect("addresses")),
        "192.0.2.1=60"
    );
    assert_eq!(asked.load(Ordering::Relaxed), 2, "one question for each family");
    assert!(began.elapsed() < Duration::from_secs(2));
}
