//! Commits, confirmations and rollbacks under load: no permitted packet is lost, no denied one passes.
//!
//! Datagrams are counted one by one, because nothing sends a lost one again: what was sent is what arrived and what came
//! back. Beside them conversations begin all the while, each from a port of its own and with a single datagram; a TCP stream
//! compares its content; and two kinds of packets that no revision permits knock, one denied by a policy and one by default.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bulkhead_testkit::{Host, KernelCounters, Stream, TcpServer, UdpServer, effort, patience, privileged};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use crate::daemon::Daemon;
use crate::probes::counter;
use crate::{CONFIGURATION, PORT, connect, topology};

/// Commits, confirmations and rollbacks together: rounds of one commit, one to be confirmed, its confirmation, a rollback.
const ROUNDS: usize = 50;
/// The counted datagrams' port.
const COUNTED: u16 = 7_001;
/// The port of conversations that begin.
const BEGUN: u16 = 7_003;
/// Between two of them.
const BEGIN: Duration = Duration::from_millis(3);
/// Where they come from, one after the other: below the ports that a kernel chooses by itself.
const SOURCES: Range<u16> = 10_000..32_000;
/// A port that no policy names.
const UNNAMED: u16 = 7_002;
/// Between two datagrams.
const PACE: Duration = Duration::from_micros(400);
/// Room for what a busy machine does not read in time: it is the firewall that must lose nothing.
const ROOM_BYTES: usize = 32 << 20;

/// The same permissions, with rules and groups in front that match nothing here.
fn variant(number: usize) -> String {
    let noise = number % 7;
    let groups: String = (0..noise)
        .map(|noise| format!(", {{ name: noise{noise}, members: [192.0.2.{noise}] }}"))
        .collect();
    let policies: String = (0..noise)
        .map(|noise| {
            format!(
                "    - {{ name: noise{noise}, from: any, to: any, source: noise{noise}, action: deny }}\n"
            )
        })
        .collect();
    let text = CONFIGURATION
        .replace("\"fd77:1::/64\"] }]", &format!("\"fd77:1::/64\"] }}{groups}]"))
        .replace("  policies:\n", &format!("  policies:\n{policies}"))
        .replace("tcp: 7000 }", "tcp: 7000, udp: [7001, 7003] }")
        .replace("max: 4096", "max: 65536")
        .replace("name: test }\nspec", &format!("name: load{number} }}\nspec"));
    assert!(
        text.contains("udp: [7001, 7003]")
            && text.contains("max: 65536")
            && text.contains(&format!("load{number}"))
    );
    text
}

fn socket(host: &Host, address: SocketAddr) -> UdpSocket {
    let socket = host.namespace.run(|| UdpSocket::bind(address)).expect("a socket");
    setsockopt(&socket, RcvBufForce, &ROOM_BYTES).expect("room");
    socket
        .set_read_timeout(Some(Duration::from_millis(100)))
        .expect("a timeout");
    socket
}

/// Begins conversations by IPv4 and IPv6 in turn until it is told to stop. Returns how many, and which of them had no answer.
fn begin(from: &Host, to: &Host, done: &AtomicBool) -> (u64, Vec<String>) {
    let mut begun = 0;
    let mut unanswered = Vec::new();
    for (family, source) in (0..2).cycle().zip(SOURCES.cycle()) {
        if done.load(Ordering::Acquire) {
            break;
        }
        let source = SocketAddr::new(from.addresses()[family], source);
        let to = SocketAddr::new(to.addresses()[family], BEGUN);
        let outcome = from.client().source(source).udp_probe(to, 64);
        let outcome = outcome.expect("a socket");
        begun += 1;
        if !outcome.is_answered() {
            unanswered.push(format!("{source} to {to}: {}", outcome.describe()));
        }
        thread::sleep(patience(BEGIN));
    }
    (begun, unanswered)
}

#[test]
fn netns_agent_commits_under_load_lose_nothing_and_let_nothing_through() {
    if !privileged() {
        return;
    }
    let rounds = effort(ROUNDS);
    let topology = topology("bhk-load");
    let (inside, server) = (topology.host("inside"), topology.host("server"));
    let daemon = Daemon::start_with(&topology, &variant(0));
    let documents: Vec<String> = (0..4 * rounds)
        .map(|number| {
            let path = daemon.directory.path().join(format!("{number}.yaml"));
            fs::write(&path, variant(number + 1)).expect("a file");
            path.to_str().expect("text").to_owned()
        })
        .collect();
    let listening = TcpServer::start(&server.namespace, server.v4_port(PORT)).expect("a server");
    let stream = Stream::start(connect(inside, listening.address()), 64 << 10).expect("a stream");

    let _answering = server
        .addresses()
        .map(|address| UdpServer::start(&server.namespace, (address, BEGUN).into()).expect("a server"));
    let echo = socket(server, server.v4_port(COUNTED));
    let counting = socket(inside, inside.v4_port(0));
    counting.connect(server.v4_port(COUNTED)).expect("an address");
    // From the servers nothing may begin; to the unnamed port nobody may send.
    let listeners = [
        socket(inside, inside.v4_port(COUNTED)),
        socket(inside, inside.v6_port(COUNTED)),
        socket(server, server.v4_port(UNNAMED)),
        socket(server, server.v6_port(UNNAMED)),
    ];
    let knockers = [
        (socket(server, server.v4_port(0)), inside.v4_port(COUNTED)),
        (socket(server, server.v6_port(0)), inside.v6_port(COUNTED)),
        (socket(inside, inside.v4_port(0)), server.v4_port(UNNAMED)),
        (socket(inside, inside.v6_port(0)), server.v6_port(UNNAMED)),
    ];
    // That they would arrive if somebody let them: one is sent within a namespace.
    for (listener, host) in listeners.iter().zip([inside, inside, server, server]) {
        let to = listener.local_addr().expect("an address");
        let near = socket(host, SocketAddr::new(to.ip(), 0));
        near.send_to(b"near", to).expect("a datagram");
        listener.recv(&mut [0; 8]).expect("a datagram");
    }

    let [sent, echoed, returned, knocked, passed] = [const { AtomicU64::new(0) }; 5];
    let (done, drained) = (AtomicBool::new(false), AtomicBool::new(false));
    let before = KernelCounters::snapshot(&inside.namespace).expect("counters");
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    let value = |counter: &AtomicU64| counter.load(Ordering::Acquire);
    let (took, begun, unanswered) = thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = 0_u64;
            while !done.load(Ordering::Acquire) {
                counting.send(&number.to_be_bytes()).expect("a datagram");
                number = count(&sent) + 1;
                thread::sleep(patience(PACE));
            }
        });
        scope.spawn(|| {
            let mut buffer = [0; 16];
            while !drained.load(Ordering::Acquire) {
                let Ok((length, from)) = echo.recv_from(&mut buffer) else {
                    continue;
                };
                count(&echoed);
                echo.send_to(&buffer[..length], from).expect("a datagram");
            }
        });
        scope.spawn(|| {
            let mut buffer = [0; 16];
            while !drained.load(Ordering::Acquire) {
                if counting.recv(&mut buffer).is_ok() {
                    count(&returned);
                }
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                for (knocker, to) in &knockers {
                    // The answer to one knock, an ICMP error, is reported at the next one.
                    if knocker.send_to(b"knock", to).is_ok() {
                        count(&knocked);
                    }
                }
                thread::sleep(patience(Duration::from_millis(2)));
            }
        });
        for listener in &listeners {
            let (drained, passed) = (&drained, &passed);
            scope.spawn(move || {
                while !drained.load(Ordering::Acquire) {
                    if listener.recv(&mut [0; 16]).is_ok() {
                        count(passed);
                    }
                }
            });
        }
        let beginning = scope.spawn(|| begin(inside, server, &done));
        let began = Instant::now();
        let operated = thread::scope(|scope| scope.spawn(|| operate(&daemon, &documents)).join());
        let took = began.elapsed();
        done.store(true, Ordering::Release);
        // What is under way arrives, or never will.
        let deadline = Instant::now() + patience(Duration::from_secs(10));
        while value(&returned) < value(&sent) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(patience(Duration::from_millis(200)));
        drained.store(true, Ordering::Release);
        operated.expect("every operation");
        let (begun, unanswered) = beginning.join().expect("every socket");
        (took, begun, unanswered)
    });
    let [sent, echoed, returned, knocked, passed] = [&sent, &echoed, &returned, &knocked, &passed].map(value);
    let report = stream.report();
    let after = KernelCounters::snapshot(&inside.namespace).expect("counters");
    println!(
        "{rounds} rounds of four operations in {took:?}: {sent} datagrams there, {echoed} arrived, {returned} came back; {begun} \
         conversations begun, {} without an answer; {knocked} knocks, {passed} passed; {report:?}, {} segments sent again",
        unanswered.len(),
        after.since(&before, "TcpRetransSegs")
    );
    let counters = daemon.text(&["show", "counters"]);
    assert_eq!((echoed, returned), (sent, sent), "{counters}");
    assert!(sent > effort(1_000_u64), "{sent} datagrams are no load");
    assert!(
        unanswered.is_empty(),
        "{} of {begun}: {unanswered:?}\n{counters}",
        unanswered.len()
    );
    assert!(begun > effort(500_u64), "{begun} conversations are no load");
    let created = counter(&daemon, "session_created");
    assert!(created >= begun, "{created} sessions for {begun} conversations");
    assert_eq!(passed, 0, "{counters}");
    assert!(knocked > effort(1_000_u64), "{knocked} knocks are no trial");
    assert!(report.broken.is_none() && report.exchanges > 100, "{report:?}");
    // It is one session from the first commit to the last.
    let session = daemon.json(&[
        "show",
        "sessions",
        "--protocol",
        "udp",
        "--port",
        "7001",
        "--policy",
        "use-servers",
    ]);
    assert_eq!(session["total"], 1, "{session}");
}

/// In turn: a commit, one to be confirmed, its confirmation, a rollback. All of them must succeed.
fn operate(daemon: &Daemon<'_>, documents: &[String]) {
    let generation = || {
        daemon.json(&["show", "interfaces"])["generation"]
            .as_u64()
            .expect("a number")
    };
    let before = generation();
    let told = documents.len();
    let mut documents = documents.iter();
    let mut next = || documents.next().expect("a document").as_str();
    for number in 0..told {
        match number % 4 {
            0 => daemon.text(&["commit", next()]),
            1 => daemon.text(&["commit", next(), "--confirm", "5m"]),
            2 => daemon.text(&["confirm"]),
            _ => daemon.text(&["rollback"]),
        };
    }
    let commits = told as u64 * 3 / 4;
    assert!(generation() >= before + commits);
    let history = daemon.json(&["history"]);
    let revisions = history["revisions"].as_array().expect("revisions");
    assert_eq!(revisions.len() as u64, 50.min(1 + commits));
    assert_eq!(revisions[0]["revision"], 1 + commits);
}
