//! Round-trip times of UDP, idle and while a stream of packets passes the same interfaces on another CPU.
//!
//! Client and echo are two sockets of one thread: a packet is handled in softirqs before the send returns, so what is
//! timed is the way there and back and not how soon a scheduler wakes whom. The load is offered at one rate to all:
//! whoever needs longer for a packet keeps the probe waiting longer. A probe that does not come back within
//! [`PATIENCE`] is lost, and said.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;

use crate::cpu;
use crate::go_on;
use crate::lab::{Lab, Purpose, SINK_PORT};
use crate::plan::{Scenario, Settings};
use crate::policy::Policy;
use crate::series::{Point, Results, Unit};

/// Where the echo listens.
const ECHO_PORT: u16 = 4_243;
/// How long a probe may take.
const PATIENCE: Duration = Duration::from_millis(100);
/// Packets of the load in a burst.
const BURST: u32 = 32;
/// From burst to burst: 100,000 packets per second.
const BURST_EVERY: Duration = Duration::from_micros(320);
/// Round trips before any is counted.
const WARM: u32 = 200;

/// The promised figures.
pub const IDLE_P99: &str = "idle, p99";
/// Under load.
pub const LOADED_P99: &str = "under load, p99";

/// What is said of a round: of the idle way, and of that under load.
const FIGURES: [[(&str, f64); 3]; 2] = [
    [("idle, p50", 0.5), (IDLE_P99, 0.99), ("idle, p99.9", 0.999)],
    [
        ("under load, p50", 0.5),
        (LOADED_P99, 0.99),
        ("under load, p99.9", 0.999),
    ],
];

/// Measures every contender.
pub fn run(settings: &Settings, results: &mut Results) -> Result<()> {
    let scenario = Scenario::Latency;
    let mut labs = Vec::new();
    for contender in settings.contenders(scenario) {
        go_on()?;
        labs.push(Lab::new(contender, Purpose::Sockets, Policy::Simple)?);
    }
    ensure!(
        cpu::count() > 1,
        "latency under load needs a CPU for the load and one for the probes"
    );
    let other = (0..cpu::count())
        .find(|cpu| *cpu != settings.cpu)
        .context("no other CPU")?;
    for (loaded, figures) in FIGURES.into_iter().enumerate() {
        let loaded = loaded == 1;
        let mut rounds = vec![[Vec::new(), Vec::new(), Vec::new()]; labs.len()];
        let mut lost = vec![(0, 0); labs.len()];
        for round in 1..=settings.rounds {
            let state = if loaded { "under load" } else { "idle" };
            eprintln!("  {state}, round {round} of {}", settings.rounds);
            for ((lab, rounds), lost) in labs.iter().zip(&mut rounds).zip(&mut lost) {
                go_on()?;
                let trips = probe(lab, settings.length, settings.cpu, loaded.then_some(other))
                    .with_context(|| format!("round trips through {}", lab.contender.id()))?;
                for (rounds, (_, quantile)) in rounds.iter_mut().zip(figures) {
                    rounds.push(trips.times.value_at_quantile(quantile) as f64 / 1e3);
                }
                *lost = (lost.0 + trips.lost, lost.1 + trips.times.len());
            }
        }
        for ((lab, rounds), (lost, came)) in labs.iter().zip(rounds).zip(lost) {
            for (rounds, (variant, _)) in rounds.into_iter().zip(figures) {
                let point = Point {
                    scenario,
                    contender: lab.contender,
                    variant,
                    at: 0,
                };
                let loss = lost as f64 / (lost + came).max(1) as f64;
                results.add_lossy(point, Unit::Microseconds, rounds, loss);
            }
        }
    }
    Ok(())
}

/// Round trips of a round.
struct Trips {
    /// Nanoseconds.
    times: Histogram<u64>,
    /// Probes that did not come back.
    lost: u64,
}

fn probe(lab: &Lab, length: Duration, cpu: usize, load_on: Option<usize>) -> Result<Trips> {
    let (source, sink) = (lab.source(), lab.sink());
    let echo = sink.namespace.run(|| UdpSocket::bind(sink.v4_port(ECHO_PORT)))?;
    echo.set_nonblocking(true)?;
    let client = source.namespace.run(|| UdpSocket::bind(source.v4_port(0)))?;
    client.connect(sink.v4_port(ECHO_PORT))?;
    client.set_nonblocking(true)?;
    // The load's destination: a socket that nobody reads, so that nothing is answered.
    let _deaf = sink.namespace.run(|| UdpSocket::bind(sink.v4_port(SINK_PORT)))?;
    let load = source.namespace.run(|| UdpSocket::bind(source.v4_port(0)))?;
    load.connect(sink.v4_port(SINK_PORT))?;
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let before = lab.bulkhead().map(|bulkhead| bulkhead.judged()).transpose()?;
    let trips = thread::scope(|scope| {
        let (load, stop, sent) = (&load, &stop, &sent);
        let loading = load_on.map(|cpu| scope.spawn(move || offer(load, cpu, stop, sent)));
        let probing = scope.spawn(|| {
            cpu::claim(cpu)?;
            round_trips(&client, &echo, length)
        });
        let trips = probing
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        stop.store(true, Ordering::Relaxed);
        if let Some(loading) = loading {
            loading
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        trips
    })?;
    let sent = sent.into_inner();
    if load_on.is_some() {
        let offered = sent as f64 / length.as_secs_f64();
        ensure!(
            offered > 50_000.0,
            "the load was {offered:.0} packets per second: the CPU it runs on is somebody else's"
        );
    }
    ensure!(!trips.times.is_empty(), "no probe came back");
    if let (Some(before), Some(bulkhead)) = (before, lab.bulkhead()) {
        let forwarded = bulkhead.judged()?.forwarded - before.forwarded;
        ensure!(
            forwarded >= 2 * trips.times.len(),
            "{} round trips and the firewall forwarded {forwarded} packets",
            trips.times.len()
        );
    }
    Ok(trips)
}

/// Sends bursts at a fixed rate until told to stop.
fn offer(socket: &UdpSocket, cpu: usize, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
    cpu::claim(cpu)?;
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..BURST {
            socket.send(&[0; 18]).context("the load cannot send")?;
        }
        sent.fetch_add(u64::from(BURST), Ordering::Relaxed);
        next += BURST_EVERY;
        while Instant::now() < next {
            std::hint::spin_loop();
        }
    }
    Ok(())
}

fn round_trips(client: &UdpSocket, echo: &UdpSocket, length: Duration) -> Result<Trips> {
    let mut trips = Trips {
        times: Histogram::new_with_bounds(1, 10_000_000_000, 3)?,
        lost: 0,
    };
    let start = Instant::now();
    let mut number = 0u32;
    while start.elapsed() < length {
        let began = Instant::now();
        client
            .send(&number.to_be_bytes())
            .context("a probe was refused")?;
        match round_trip(client, echo, number, began)? {
            _ if number < WARM => {}
            Some(time) => trips.times.saturating_record(time.as_nanos() as u64),
            None => trips.lost += 1,
        }
        number += 1;
    }
    Ok(trips)
}

/// Waits for this probe at the echo, sends it back, and waits for it at the client; late ones before it are dropped.
fn round_trip(client: &UdpSocket, echo: &UdpSocket, number: u32, began: Instant) -> Result<Option<Duration>> {
    let mut buffer = [0; 4];
    loop {
        if let Some((_, from)) = ready(echo.recv_from(&mut buffer))? {
            echo.send_to(&buffer, from).context("the echo cannot answer")?;
        }
        if ready(client.recv(&mut buffer))?.is_some() && u32::from_be_bytes(buffer) == number {
            return Ok(Some(began.elapsed()));
        }
        if began.elapsed() > PATIENCE {
            return Ok(None);
        }
        std::hint::spin_loop();
    }
}

/// What a socket that does not block has.
fn ready<T>(result: std::io::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context("a probe's socket"),
    }
}
