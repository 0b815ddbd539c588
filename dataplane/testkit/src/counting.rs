//! A stream whose packets are counted one by one: numbered UDP datagrams to a server that sends each back.
//!
//! Where TCP repeats what was lost and nobody notices, here every datagram that does not arrive, or does not come back, is
//! missing at the end. Owns its sockets and threads. Assumes a path that loses nothing by itself: it sends a datagram and
//! rests, so that no buffer overflows.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;

use crate::effort::{self, patience};
use crate::namespace::Namespace;

/// Between two datagrams; more on a slow machine.
const PAUSE: Duration = Duration::from_micros(400);
/// How long a socket waits before it looks whether it is over.
const LOOK: Duration = Duration::from_millis(20);
/// Room for some thousand datagrams that nobody has read yet.
const BUFFER_BYTES: usize = 16 << 20;
/// How long the last datagrams may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a counting stream came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Datagrams sent.
    pub sent: u64,
    /// Those that reached the server.
    pub arrived: u64,
    /// Those that came back.
    pub returned: u64,
}

impl Count {
    /// Whether nothing is missing.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.sent == self.arrived && self.sent == self.returned
    }
}

#[derive(Debug, Default)]
struct Shared {
    sent: AtomicU64,
    arrived: AtomicU64,
    returned: AtomicU64,
    stop_sending: AtomicBool,
    stop: AtomicBool,
}

/// A running stream. Dropping it ends it.
#[derive(Debug)]
pub struct CountingStream {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    server: SocketAddr,
}

impl CountingStream {
    /// Starts a server at `to` and sends to it; returns when the first datagram has come back.
    pub fn start(client: &Namespace, server: &Namespace, to: SocketAddr) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let socket = |namespace: &Namespace, own: SocketAddr| -> Result<UdpSocket> {
            let socket = namespace.run(|| UdpSocket::bind(own)).context("cannot bind")?;
            socket.set_read_timeout(Some(LOOK))?;
            // A thread that does not run for a while must not lose any.
            setsockopt(&socket, RcvBufForce, &BUFFER_BYTES)?;
            Ok(socket)
        };
        let listening = socket(server, to)?;
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let sending = socket(client, any.parse()?)?;
        sending.connect(to).context("cannot connect")?;
        let receiving = sending.try_clone()?;
        let (echo, returns, sends) = (shared.clone(), shared.clone(), shared.clone());
        let stream = Self {
            server: to,
            threads: vec![
                thread::spawn(move || echo_back(&echo, &listening)),
                thread::spawn(move || count_returns(&returns, &receiving)),
                thread::spawn(move || send(&sends, &sending)),
            ],
            shared,
        };
        let deadline = effort::deadline(PATIENCE);
        while stream.count().returned == 0 {
            ensure!(
                Instant::now() < deadline,
                "nothing comes back from {to}: {:?}",
                stream.count()
            );
            thread::sleep(Duration::from_millis(1));
        }
        Ok(stream)
    }

    /// Where it goes.
    #[must_use]
    pub const fn server(&self) -> SocketAddr {
        self.server
    }

    /// What was counted so far.
    #[must_use]
    pub fn count(&self) -> Count {
        let of = |count: &AtomicU64| count.load(Ordering::Acquire);
        Count {
            returned: of(&self.shared.returned),
            arrived: of(&self.shared.arrived),
            sent: of(&self.shared.sent),
        }
    }

    /// Waits for so many more to come back; an error if they do not.
    pub fn advance(&self, datagrams: u64) -> Result<()> {
        let goal = self.count().returned + datagrams;
        let deadline = effort::deadline(PATIENCE);
        while self.count().returned < goal {
            ensure!(
                Instant::now() < deadline,
                "the stream to {} stands still: {:?}",
                self.server,
                self.count()
            );
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Stops sending, waits for what is on its way, and tells the count.
    #[must_use]
    pub fn finish(mut self) -> Count {
        self.shared.stop_sending.store(true, Ordering::Release);
        let sender = self.threads.pop();
        if let Some(sender) = sender {
            let _panicked = sender.join();
        }
        let deadline = effort::deadline(PATIENCE);
        while !self.count().is_whole() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        self.count()
    }
}

impl Drop for CountingStream {
    fn drop(&mut self) {
        self.shared.stop_sending.store(true, Ordering::Release);
        self.shared.stop.store(true, Ordering::Release);
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

fn send(shared: &Shared, socket: &UdpSocket) {
    let mut number = 0u64;
    while !shared.stop_sending.load(Ordering::Acquire) {
        // Before the datagram: its answer may be faster than this thread.
        shared.sent.fetch_add(1, Ordering::AcqRel);
        // One that cannot be sent is missing: it stays counted.
        let _missing = socket.send(&number.to_le_bytes());
        number += 1;
        thread::sleep(patience(PAUSE));
    }
}

fn echo_back(shared: &Shared, socket: &UdpSocket) {
    receive(shared, |buffer| {
        let (length, from) = socket.recv_from(buffer)?;
        shared.arrived.fetch_add(1, Ordering::AcqRel);
        socket.send_to(&buffer[..length], from).map(drop)
    });
}

fn count_returns(shared: &Shared, socket: &UdpSocket) {
    receive(shared, |buffer| {
        socket.recv(buffer)?;
        shared.returned.fetch_add(1, Ordering::AcqRel);
        Ok(())
    });
}

fn receive(shared: &Shared, mut one: impl FnMut(&mut [u8]) -> io::Result<()>) {
    let mut buffer = [0; 64];
    while !shared.stop.load(Ordering::Acquire) {
        // A timeout, or the error that an ICMP message has left: what is missing shows in the count.
        let _nothing = one(&mut buffer);
    }
}
