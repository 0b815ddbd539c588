//! A conversation that goes on while something is done to the firewall: packets at a fixed pace, every one counted.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;

use crate::lab::{Lab, SINK_PORT};

/// From packet to packet: 5,000 per second.
const PACE: Duration = Duration::from_micros(200);
/// How long the last packets may be on their way, and how long one that must arrive may take.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long is waited for a packet that must not arrive.
const SUSPICION: Duration = Duration::from_millis(20);

/// What a receiver can be behind: some seconds.
const BUFFER_BYTES: usize = 32 << 20;

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivered {
    /// Packets sent.
    pub sent: u64,
    /// Packets that arrived.
    pub received: u64,
    /// When the first arrived.
    pub first: Option<Instant>,
}

impl Delivered {
    /// Packets that did not arrive.
    #[must_use]
    pub const fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }
}

/// A stream that is being sent.
pub struct Stream {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<u64>>,
    receiver: JoinHandle<Result<(u64, Option<Instant>)>>,
}

impl Stream {
    /// Begins to send from the source to an address of the sink, which must own it.
    pub fn start(lab: &Lab, target: Ipv4Addr) -> Result<Self> {
        let (from, to) = sockets(lab, target)?;
        to.set_read_timeout(Some(PATIENCE))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (sending, receiving) = (stop.clone(), stop.clone());
        let sender = thread::spawn(move || {
            let mut sent = 0;
            let mut next = Instant::now();
            while !sending.load(Ordering::Acquire) {
                // Refused while nothing is there that forwards: lost all the same.
                let _lost_if_refused = from.send(&[0; 18]);
                sent += 1;
                next += PACE;
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
            Ok(sent)
        });
        let receiver = thread::spawn(move || {
            let (mut received, mut first) = (0, None);
            let mut buffer = [0; 64];
            loop {
                match to.recv(&mut buffer) {
                    Ok(_) => {
                        received += 1;
                        first.get_or_insert_with(Instant::now);
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                        if receiving.load(Ordering::Acquire) {
                            return Ok((received, first));
                        }
                    }
                    Err(error) => return Err(error).context("the stream's receiver"),
                }
            }
        });
        Ok(Self {
            stop,
            sender,
            receiver,
        })
    }

    /// Ends it and says what became of it.
    pub fn finish(self) -> Result<Delivered> {
        self.stop.store(true, Ordering::Release);
        let join = "a thread of the stream panicked";
        let sent = self.sender.join().ok().context(join)??;
        let (received, first) = self.receiver.join().ok().context(join)??;
        ensure!(
            received <= sent,
            "{sent} packets were sent and {received} arrived"
        );
        Ok(Delivered {
            sent,
            received,
            first,
        })
    }
}

/// A conversation of single packets.
pub struct Probe {
    from: UdpSocket,
    to: UdpSocket,
}

impl Probe {
    /// A new one, to an address of the sink.
    pub fn new(lab: &Lab, target: Ipv4Addr) -> Result<Self> {
        let (from, to) = sockets(lab, target)?;
        Ok(Self { from, to })
    }

    /// One packet must arrive.
    pub fn must_pass(&self) -> Result<()> {
        ensure!(
            self.passes(PATIENCE)?,
            "a packet that is permitted did not arrive"
        );
        Ok(())
    }

    /// One packet must not arrive.
    pub fn must_not_pass(&self) -> Result<()> {
        ensure!(!self.passes(SUSPICION)?, "a packet that is not permitted arrived");
        Ok(())
    }

    fn passes(&self, patience: Duration) -> Result<bool> {
        self.to.set_read_timeout(Some(patience))?;
        // A reject would be an error here; it does not pass either.
        if self.from.send(&[1; 18]).is_err() {
            return Ok(false);
        }
        match self.to.recv(&mut [0; 64]) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error).context("a probe's receiver"),
        }
    }
}

fn sockets(lab: &Lab, target: Ipv4Addr) -> Result<(UdpSocket, UdpSocket)> {
    let address = SocketAddr::from((target, SINK_PORT));
    let (source, sink) = (lab.source(), lab.sink());
    let to = sink
        .namespace
        .run(|| UdpSocket::bind(address))
        .with_context(|| format!("cannot bind {address}"))?;
    // A receiver that has to wait for its CPU must not lose what the firewall forwarded.
    setsockopt(&to, RcvBufForce, &BUFFER_BYTES).context("cannot enlarge a receive buffer")?;
    let from = source.namespace.run(|| UdpSocket::bind(source.v4_port(0)))?;
    from.connect(address)?;
    Ok((from, to))
}
