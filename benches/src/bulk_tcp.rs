//! Bulk TCP at default offloads: one stream between two sockets, the segments as large as the stack likes them.
//!
//! Sender, firewall and receiver share one CPU: with two, the figure depends on how the scheduler wakes the one after
//! the other, and varies by a factor of two. Measured at the receiver, after the stream has got going; the rate is per
//! second of CPU time, which the stream uses up.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use crate::contender::Contender;
use crate::cpu::{self, Meter, Scope};
use crate::lab::{Lab, Purpose};

/// The receiver's port.
const PORT: u16 = 5_201;
/// Bytes per system call.
const CHUNK_BYTES: usize = 256 * 1024;
/// Rounds are no shorter: what is compared differs by a few percent.
const SHORTEST: Duration = Duration::from_secs(1);
/// Time for slow start.
const RAMP: Duration = Duration::from_millis(200);

/// One measured round.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Round {
    /// Payload bytes that arrived.
    pub bytes: u64,
    /// Length of the round.
    pub wall_seconds: f64,
    /// CPU time of this process and of the kernel's softirq thread.
    pub cpu_seconds: f64,
    /// Gigabits of payload per second of CPU time.
    pub gbps: f64,
}

/// A contender ready for rounds.
pub struct BulkLab {
    lab: Lab,
    cpu: usize,
}

impl BulkLab {
    /// Makes the network.
    pub fn new(contender: Contender, cpu: usize) -> Result<Self> {
        Ok(Self {
            lab: Lab::new(contender, Purpose::Sockets)?,
            cpu,
        })
    }

    /// Who is in the lab.
    pub const fn contender(&self) -> Contender {
        self.lab.contender
    }

    /// Sends over a new connection for about `length` and counts.
    pub fn measure(&self, length: Duration) -> Result<Round> {
        let length = length.max(SHORTEST);
        self.stream(length)
            .with_context(|| format!("bulk TCP through {}", self.lab.contender.id()))
    }

    fn stream(&self, length: Duration) -> Result<Round> {
        let (source, sink) = (self.lab.source(), self.lab.sink());
        let address = sink.v4_port(PORT);
        let listener = sink
            .namespace
            .run(|| TcpListener::bind(address))
            .context("cannot listen")?;
        let sender = source
            .namespace
            .run(|| TcpStream::connect_timeout(&address, Duration::from_secs(2)))
            .with_context(|| format!("cannot connect to {address}"))?;
        let (receiver, _) = listener.accept().context("cannot accept")?;
        let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
        let (round, sent) = thread::scope(|scope| {
            let receiving = scope.spawn(|| {
                cpu::claim(self.cpu)?;
                receive(receiver, &received)
            });
            let sending = scope.spawn(|| {
                cpu::claim(self.cpu)?;
                send(sender, &stop)
            });
            thread::sleep(RAMP);
            let (start, meter) = (Instant::now(), Meter::start(Scope::Process, self.cpu)?);
            let before = received.load(Ordering::Relaxed);
            thread::sleep(length);
            let bytes = received.load(Ordering::Relaxed) - before;
            let (wall, busy) = (start.elapsed(), meter.elapsed()?);
            stop.store(true, Ordering::Relaxed);
            let sent = sending
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            receiving
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            let (wall_seconds, cpu_seconds) = (wall.as_secs_f64(), busy.as_secs_f64());
            let gbps = bytes as f64 * 8.0 / cpu_seconds / 1e9;
            anyhow::Ok((
                Round {
                    bytes,
                    wall_seconds,
                    cpu_seconds,
                    gbps,
                },
                sent,
            ))
        })?;
        let arrived = received.into_inner();
        ensure!(arrived == sent, "{sent} bytes were sent, {arrived} arrived");
        Ok(round)
    }
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
