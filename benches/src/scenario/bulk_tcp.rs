//! Bulk TCP at default offloads: one or several streams between sockets, the segments as large as the stack likes them.
//!
//! Sender, firewall and receiver share one CPU: with two, the figure depends on how the scheduler wakes the one after
//! the other, and varies by a factor of two. Measured at the receiver, after the stream has got going; the rate is per
//! second of CPU time, which the streams use up.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::contender::Carrier;
use crate::cpu::{self, Meter, Scope};
use crate::go_on;
use crate::lab::{Lab, Purpose};
use crate::plan::{Scenario, Settings};
use crate::policy::Policy;
use crate::series::{Point, Results, Unit};

/// The receiver's port.
const PORT: u16 = 5_201;
/// Bytes per system call.
const CHUNK_BYTES: usize = 256 * 1024;
/// Rounds are no shorter: what is compared differs by a few percent.
const SHORTEST: Duration = Duration::from_secs(1);
/// Time for slow start.
const RAMP: Duration = Duration::from_millis(200);

/// Measures every contender with every number of streams.
pub fn run(settings: &Settings, results: &mut Results) -> Result<()> {
    let scenario = Scenario::BulkTcp;
    let mut labs = Vec::new();
    for contender in settings.contenders(scenario) {
        go_on()?;
        labs.push(Lab::new(contender, Purpose::Sockets, Policy::Simple)?);
    }
    for streams in settings.points(scenario) {
        let mut rounds = vec![Vec::new(); labs.len()];
        for round in 1..=settings.rounds {
            eprintln!("  {streams} streams, round {round} of {}", settings.rounds);
            for (lab, rounds) in labs.iter().zip(&mut rounds) {
                go_on()?;
                let length = settings.length.max(SHORTEST);
                let gbps = transfer(lab, streams as usize, length, settings.cpu)
                    .with_context(|| format!("bulk TCP through {}", lab.contender.id()))?;
                rounds.push(gbps);
            }
        }
        for (lab, rounds) in labs.iter().zip(rounds) {
            let point = Point {
                scenario,
                contender: lab.contender,
                variant: "",
                at: u64::from(streams),
            };
            results.add(point, Unit::Gbps, rounds);
        }
    }
    Ok(())
}

/// Sends over new connections for about `length`; gigabits per second of CPU time.
fn transfer(lab: &Lab, streams: usize, length: Duration, cpu: usize) -> Result<f64> {
    let (source, sink) = (lab.source(), lab.sink());
    let address = sink.v4_port(PORT);
    let listener = sink
        .namespace
        .run(|| TcpListener::bind(address))
        .context("cannot listen")?;
    let mut pairs = Vec::new();
    for _ in 0..streams {
        let sender = source
            .namespace
            .run(|| TcpStream::connect_timeout(&address, Duration::from_secs(2)))
            .with_context(|| format!("cannot connect to {address}"))?;
        pairs.push((sender, listener.accept().context("cannot accept")?.0));
    }
    let judged = || lab.bulkhead().map(|bulkhead| bulkhead.judged()).transpose();
    let before = judged()?;
    let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
    let (gbps, sent) = thread::scope(|scope| {
        let (mut senders, mut receivers) = (Vec::new(), Vec::new());
        for (sender, receiver) in pairs {
            let (stop, received) = (&stop, &received);
            receivers.push(scope.spawn(move || {
                cpu::claim(cpu)?;
                receive(receiver, received)
            }));
            senders.push(scope.spawn(move || {
                cpu::claim(cpu)?;
                send(sender, stop)
            }));
        }
        thread::sleep(RAMP);
        let (start, meter) = (Instant::now(), Meter::start(Scope::Process, cpu)?);
        let before = received.load(Ordering::Relaxed);
        thread::sleep(length);
        let bytes = received.load(Ordering::Relaxed) - before;
        let (wall, busy) = (start.elapsed(), meter.elapsed()?);
        stop.store(true, Ordering::Relaxed);
        ensure!(bytes > 0, "no byte arrived within {wall:?}");
        let mut sent = 0;
        for sender in senders {
            sent += sender
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        for receiver in receivers {
            receiver
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        anyhow::Ok((bytes as f64 * 8.0 / busy.as_secs_f64() / 1e9, sent))
    })?;
    let arrived = received.into_inner();
    ensure!(arrived == sent, "{sent} bytes were sent, {arrived} arrived");
    if let (Some(before), Some(after)) = (before, judged()?) {
        let packets = after.forwarded - before.forwarded;
        // A segment is at most 64 KiB, so that many packets passed the firewall at least.
        ensure!(
            packets >= sent >> 16,
            "{sent} bytes arrived and the firewall forwarded {packets} packets"
        );
        let in_xdp = after.in_xdp - before.in_xdp;
        // An interface that cannot receive redirects leaves its direction to TCX, and the figure would be of both.
        ensure!(
            in_xdp > packets / 10 * 9
                || !matches!(lab.contender.carrier(), Carrier::Bulkhead { xdp: true, .. }),
            "XDP settled {in_xdp} of {packets} packets"
        );
    }
    Ok(gbps)
}

fn send(mut stream: TcpStream, stop: &AtomicBool) -> Result<u64> {
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    let chunk = vec![0x5a; CHUNK_BYTES];
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        sent += stream.write(&chunk).context("the sender is stuck")? as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(sent)
}

fn receive(mut stream: TcpStream, received: &AtomicU64) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match stream.read(&mut chunk).context("the receiver hears nothing")? {
            0 => return Ok(()),
            bytes => received.fetch_add(bytes as u64, Ordering::Relaxed),
        };
    }
}
