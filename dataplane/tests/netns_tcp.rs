//! Real stacks through strict window checks: bulk both ways at default offloads, closed windows, half-close, losses, ports
//! used again. Nothing that they say may be refused.
//!
//! This kernel need have no netem: losses are made by socket filters that throw received segments away at random.

mod common;

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bulkhead_dataplane::{
    engine::Engine,
    ruleset::{HookMode, MaximumSegment, Ruleset, Tcp},
};
use bulkhead_testkit::{TcpServer, Topology, effort, patience, privileged, xdp_reaches_hosts};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, connect, listen, setsockopt, socket,
    sockopt,
};

/// How long one conversation may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What one conversation carries where it is to be much.
const BULK_BYTES: usize = 64 << 20;

/// What a connection is asked to be.
#[derive(Clone, Copy, Default)]
struct Habits {
    /// Receive buffer, bytes; 0: the kernel's choice, which grows.
    buffer: usize,
    /// One received segment in so many is thrown away; 0: none.
    loss: u32,
    /// A pause after each read.
    pause: Duration,
}

/// Throws one in `loss` received segments away, by a classic filter (Documentation/networking/filter.rst).
#[expect(unsafe_code, reason = "no safe binding attaches a classic filter")]
fn lossy(stream: &TcpStream, loss: u32) -> Result<()> {
    if loss == 0 {
        return Ok(());
    }
    // SKF_AD_OFF + SKF_AD_RANDOM (include/uapi/linux/filter.h).
    const RANDOM: u32 = 0xffff_f000 + 56;
    let code = |code: u32, jt, jf, k| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let mut program = [
        code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, RANDOM),
        code(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, u32::MAX / loss),
        code(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        code(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the descriptor is open, and the option's value is a sock_fprog whose program outlives the call.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            size_of::<libc::sock_fprog>() as u32,
        )
    };
    ensure!(
        result == 0,
        "SO_ATTACH_FILTER: {}",
        std::io::Error::last_os_error()
    );
    Ok(())
}

/// A TCP socket with its receive buffer set before any window is announced, bound to `local`.
#[expect(
    unsafe_code,
    reason = "the standard library sets no option before a socket is connected"
)]
fn prepared(local: SocketAddr, habits: Habits, listening: bool) -> Result<std::os::fd::OwnedFd> {
    let family = if local.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    if habits.buffer != 0 {
        setsockopt(&fd, sockopt::RcvBuf, &habits.buffer)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(local))?;
    if listening {
        listen(&fd, Backlog::new(16)?)?;
    }
    // SAFETY: the descriptor was just made and is owned by nobody else.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd.into_raw_fd()) })
}

fn patient(stream: &TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(patience(PATIENCE)))?;
    stream.set_write_timeout(Some(patience(PATIENCE)))?;
    Ok(())
}

/// Bytes after which the content begins again: a prime, so that no buffer or segment size divides it.
const PERIOD: usize = 65_521;

/// Two periods of a stream's content.
fn content(seed: u8) -> Vec<u8> {
    let byte = |at: usize| (at as u32).wrapping_mul(0x9e37_79b1).to_be_bytes()[0] ^ seed;
    (0..2 * PERIOD).map(|at| byte(at % PERIOD)).collect()
}

fn speak(stream: &mut TcpStream, seed: u8, bytes: usize) -> Result<()> {
    let content = content(seed);
    let mut at = 0;
    while at < bytes {
        let from = at % PERIOD;
        let length = PERIOD.min(bytes - at);
        stream
            .write_all(&content[from..from + length])
            .with_context(|| format!("writing at {at}"))?;
        at += length;
    }
    Ok(())
}

/// Reads to the end; how much there was, all of it right.
fn hear(stream: &mut TcpStream, seed: u8, pause: Duration) -> Result<usize> {
    let content = content(seed);
    let mut at = 0;
    let mut chunk = vec![0; PERIOD];
    loop {
        let length = stream
            .read(&mut chunk)
            .with_context(|| format!("reading at {at}"))?;
        if length == 0 {
            return Ok(at);
        }
        let from = at % PERIOD;
        ensure!(
            chunk[..length] == content[from..from + length],
            "wrong content within {length} bytes at {at}"
        );
        at += length;
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
}

/// A conversation: `up` bytes by the client, then its FIN; only then `down` bytes by the server, and its FIN. With
/// `at_once` both speak together.
fn converse(
    lab: &Topology,
    server: IpAddr,
    port: u16,
    habits: Habits,
    [up, down]: [usize; 2],
    at_once: bool,
) -> Result<()> {
    let address = SocketAddr::new(server, 80);
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    let listener = outside
        .namespace
        .run(|| prepared(address, habits, true).map(TcpListener::from))?;
    let answering = outside.namespace.spawn(move || -> Result<usize> {
        let (mut stream, _) = listener.accept()?;
        patient(&stream)?;
        lossy(&stream, habits.loss)?;
        if !at_once {
            let heard = hear(&mut stream, 1, habits.pause)?;
            speak(&mut stream, 2, down)?;
            stream.shutdown(Shutdown::Write)?;
            return Ok(heard);
        }
        let mut writer = stream.try_clone()?;
        let writing = std::thread::spawn(move || -> Result<()> {
            speak(&mut writer, 2, down)?;
            writer.shutdown(Shutdown::Write)?;
            Ok(())
        });
        let heard = hear(&mut stream, 1, habits.pause)?;
        writing.join().expect("the writer lives")?;
        Ok(heard)
    })?;
    let any: SocketAddr = if server.is_ipv4() {
        SocketAddr::new(inside.v4.into(), port)
    } else {
        SocketAddr::new(inside.v6.into(), port)
    };
    let heard = inside.namespace.run(|| -> Result<usize> {
        let fd = prepared(any, habits, false)?;
        connect(fd.as_raw_fd(), &SockaddrStorage::from(address)).context("connecting")?;
        let mut stream = TcpStream::from(fd);
        patient(&stream)?;
        lossy(&stream, habits.loss)?;
        let mut reader = stream.try_clone()?;
        let reading = std::thread::spawn(move || hear(&mut reader, 2, habits.pause));
        speak(&mut stream, 1, up)?;
        stream.shutdown(Shutdown::Write)?;
        reading.join().expect("the reader lives")
    })?;
    let arrived = answering.join().expect("the server lives")?;
    ensure!(
        (arrived, heard) == (up, down),
        "{arrived} of {up} up, {heard} of {down} down"
    );
    Ok(())
}

/// Nothing was refused, and nothing was outside a window.
fn expect_no_refusals(engine: &Engine) -> Result<()> {
    let counters = engine.counters()?;
    for name in [
        "tcp_out_of_window",
        "tcp_state_invalid",
        "tcp_no_session",
        "tcp_reset_out_of_window",
        "tcp_syn_in_window",
        "session_closed",
        "tcp_header_invalid",
        "tcp_flags_invalid",
        "rewrite_failed",
    ] {
        let moved: Vec<_> = counters.iter().filter(|(_, count)| **count != 0).collect();
        ensure!(counters.get(name) == Some(&0), "{name} moved: {moved:?}");
    }
    Ok(())
}

fn addresses(lab: &Topology) -> [IpAddr; 2] {
    let outside = lab.host("outside");
    [outside.v4.into(), outside.v6.into()]
}

fn strict_conversations(hook: HookMode, nat: bool) -> Result<()> {
    // An XDP redirect into a veth needs GRO on its other end.
    let lab = common::topology(|host| {
        if hook == HookMode::Xdp {
            host.host_gro()
        } else {
            host
        }
    });
    let engine = common::start(&lab, common::ruleset(hook, nat));
    let usual = Habits::default();
    let small = Habits {
        buffer: 4096,
        pause: Duration::from_micros(200),
        ..usual
    };
    let bad = Habits { loss: 100, ..usual };
    let worse = Habits {
        loss: 20,
        buffer: 32 * 1024,
        ..usual
    };
    let bulk = effort(BULK_BYTES);
    for server in addresses(&lab) {
        for (what, habits, sizes, at_once) in [
            ("bulk up", usual, [bulk, 1000], false),
            ("half-closed, bulk down", usual, [1000, bulk], false),
            ("bulk both ways", usual, [bulk / 2; 2], true),
            ("small buffers", small, [200_000, 200_000], true),
            ("half-closed, small buffers", small, [1000, 200_000], false),
            ("losses", bad, [bulk / 8; 2], true),
            ("many losses", worse, [200_000, 200_000], true),
        ] {
            let began = Instant::now();
            converse(&lab, server, 0, habits, sizes, at_once)
                .with_context(|| format!("{what} with {server}: {:?}", engine.counters()))?;
            println!("{hook:?}, {server}, {what}: {:?}", began.elapsed());
            expect_no_refusals(&engine).with_context(|| format!("{what} with {server}"))?;
        }
    }
    let by_xdp = engine.counters()?["established_xdp"];
    ensure!(
        (by_xdp > 10_000) == (hook == HookMode::Xdp && xdp_reaches_hosts()?),
        "{by_xdp} packets by XDP"
    );
    engine.stop();
    Ok(())
}

#[test]
fn netns_strict_windows_over_tcx() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    strict_conversations(HookMode::Tcx, false)
}

#[test]
fn netns_strict_windows_over_tcx_with_source_nat() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    strict_conversations(HookMode::Tcx, true)
}

#[test]
fn netns_strict_windows_over_forced_xdp() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    strict_conversations(HookMode::Xdp, false)
}

/// The same ports again and again: the server closes first and keeps the time-wait state, the client goes on from the port it
/// had (RFC 6191).
#[test]
fn netns_ports_are_used_again() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    let lab = common::topology(|host| host);
    let engine = common::start(&lab, common::ruleset(HookMode::Tcx, false));
    let (inside, outside) = (lab.host("inside"), lab.host("outside"));
    for server in addresses(&lab) {
        let address = SocketAddr::new(server, 80);
        let listener = outside
            .namespace
            .run(|| prepared(address, Habits::default(), true).map(TcpListener::from))?;
        let serving = outside.namespace.spawn(move || -> Result<()> {
            for _ in 0..30 {
                let (mut stream, _) = listener.accept()?;
                patient(&stream)?;
                stream.write_all(b"done")?;
                stream.shutdown(Shutdown::Write)?;
                let _end = stream.read(&mut [0; 8])?;
            }
            Ok(())
        })?;
        let own: IpAddr = if server.is_ipv4() {
            inside.v4.into()
        } else {
            inside.v6.into()
        };
        inside.namespace.run(|| -> Result<()> {
            for turn in 0..30 {
                let fd = prepared(SocketAddr::new(own, 41_000), Habits::default(), false)?;
                connect(fd.as_raw_fd(), &SockaddrStorage::from(address))
                    .with_context(|| format!("turn {turn}"))?;
                let mut stream = TcpStream::from(fd);
                patient(&stream)?;
                let mut said = String::new();
                stream.read_to_string(&mut said)?;
                ensure!(said == "done");
            }
            Ok(())
        })?;
        serving.join().expect("the server lives")?;
        expect_no_refusals(&engine)?;
    }
    engine.stop();
    Ok(())
}

/// The kernel of either side is told a segment size that fits, and believes the checksum.
#[test]
fn netns_segment_sizes_are_lowered() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    for hook in [HookMode::Tcx, HookMode::Xdp] {
        for nat in [false, true] {
            let lab = common::topology(|host| host);
            let ruleset = Ruleset {
                tcp: Tcp {
                    maximum_segment: MaximumSegment::AtMost(900),
                    ..Tcp::default()
                },
                ..common::ruleset(hook, nat)
            };
            let engine = common::start(&lab, ruleset);
            let (inside, outside) = (lab.host("inside"), lab.host("outside"));
            for server in addresses(&lab) {
                let address = SocketAddr::new(server, 80);
                let listener = outside
                    .namespace
                    .run(|| prepared(address, Habits::default(), true).map(TcpListener::from))?;
                let accepting = outside.namespace.spawn(move || -> Result<u32> {
                    let (mut stream, _) = listener.accept()?;
                    patient(&stream)?;
                    let _heard = hear(&mut stream, 1, Duration::ZERO)?;
                    Ok(nix::sys::socket::getsockopt(&stream, sockopt::TcpMaxSeg)?)
                })?;
                let mine = inside.namespace.run(|| -> Result<u32> {
                    let mut stream = TcpStream::connect(address)?;
                    patient(&stream)?;
                    speak(&mut stream, 1, 100_000)?;
                    Ok(nix::sys::socket::getsockopt(&stream, sockopt::TcpMaxSeg)?)
                })?;
                let theirs = accepting.join().expect("the server lives")?;
                // Timestamps take twelve bytes of each segment.
                ensure!(
                    (880..=900).contains(&mine) && (880..=900).contains(&theirs),
                    "{mine} and {theirs}"
                );
            }
            expect_no_refusals(&engine)?;
            engine.stop();
        }
    }
    Ok(())
}

/// A connection that began before the firewall was there goes on if so configured, and not otherwise.
#[test]
fn netns_a_connection_is_picked_up() -> Result<()> {
    if !privileged() {
        return Ok(());
    }
    for midstream in [true, false] {
        let lab = common::topology(|host| host);
        let ruleset = Ruleset {
            tcp: Tcp {
                midstream,
                ..Tcp::default()
            },
            ..common::ruleset(HookMode::Tcx, false)
        };
        let first = common::start(&lab, ruleset.clone());
        let outside = lab.host("outside");
        let server = TcpServer::start(&outside.namespace, outside.v4_port(80))?;
        let client = lab.host("inside").client().timeout(Duration::from_secs(2));
        let mut conversation = client.tcp(server.address())?.answered()?;
        conversation.exchange(10_000, 10_000)?.answered()?;
        // All sessions are gone with the engine.
        first.stop();
        drop(first);
        let second = common::start(&lab, ruleset);
        let outcome = conversation.exchange(3 << 20, 3 << 20)?;
        if midstream {
            outcome.answered()?;
            let counters = second.counters()?;
            assert_eq!(counters["tcp_out_of_window"], 0);
        } else {
            assert!(outcome.answered().is_err());
            let counters = second.counters()?;
            assert!(counters["tcp_no_session"] > 0);
        }
        second.stop();
    }
    Ok(())
}
