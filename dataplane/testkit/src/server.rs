//! Servers that stop when their handle is dropped.
//!
//! Owns the accepting thread and a pipe that ends its wait. Connections are cut, their threads joined, so
//! that nothing keeps a namespace alive behind the test's back.

use std::collections::HashMap;
use std::io::{self, PipeWriter};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::namespace::Namespace;

/// How long a server waits for a silent client before it hangs up.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    /// Dropping it ends the wait of the thread.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Accepts connections, each served on its own thread.
    pub(crate) fn stream(
        namespace: &Namespace,
        address: SocketAddr,
        serve: impl Fn(&TcpStream, SocketAddr) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = namespace
            .run(|| TcpListener::bind(address))
            .with_context(|| format!("cannot listen on tcp {address} in {}", namespace.name()))?;
        let address = listener
            .local_addr()
            .context("cannot read a listener's address")?;
        listener
            .set_nonblocking(true)
            .context("cannot make a listener non-blocking")?;
        let (reader, stop) = io::pipe().context("cannot make a pipe")?;
        let serve = Arc::new(serve);
        let thread = namespace.spawn(move || {
            let open: Arc<Mutex<HashMap<u64, TcpStream>>> = Arc::default();
            let mut threads = Vec::new();
            for id in 0_u64.. {
                if !readable(&listener, &reader) {
                    break;
                }
                let Ok((stream, peer)) = listener.accept() else {
                    continue;
                };
                let Ok(handle) = stream.try_clone() else { continue };
                lock(&open).insert(id, handle);
                let (serve, open) = (Arc::clone(&serve), Arc::clone(&open));
                threads.push(thread::spawn(move || {
                    let prepared = stream
                        .set_nonblocking(false)
                        .and_then(|()| stream.set_read_timeout(Some(PATIENCE)))
                        .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
                    // A client that hangs up is the client's business; it sees what it came to.
                    let _ended = prepared.and_then(|()| serve(&stream, peer));
                    // The connection closes when its last handle does.
                    lock(&open).remove(&id);
                }));
                threads.retain(|thread| !thread.is_finished());
            }
            for stream in lock(&open).values() {
                let _closed_already = stream.shutdown(Shutdown::Both);
            }
            for thread in threads {
                let _panicked = thread.join();
            }
        })?;
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Answers datagrams, one after the other.
    pub(crate) fn datagram(
        namespace: &Namespace,
        address: SocketAddr,
        mut answer: impl FnMut(&[u8], SocketAddr) -> Option<Vec<u8>> + Send + 'static,
    ) -> Result<Self> {
        let socket = namespace
            .run(|| UdpSocket::bind(address))
            .with_context(|| format!("cannot listen on udp {address} in {}", namespace.name()))?;
        let address = socket.local_addr().context("cannot read a socket's address")?;
        socket
            .set_nonblocking(true)
            .context("cannot make a socket non-blocking")?;
        let (reader, stop) = io::pipe().context("cannot make a pipe")?;
        let thread = namespace.spawn(move || {
            let mut buffer = vec![0; usize::from(u16::MAX)];
            while readable(&socket, &reader) {
                let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                if let Some(reply) = answer(&buffer[..length], peer) {
                    // A reply that cannot be sent is a reply that does not arrive.
                    let _sent = socket.send_to(&reply, peer);
                }
            }
        })?;
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Waits until there is something to accept or read. `false`: time to stop.
fn readable(socket: &impl AsFd, stop: &impl AsFd) -> bool {
    let mut waited = [
        PollFd::new(socket.as_fd(), PollFlags::POLLIN),
        PollFd::new(stop.as_fd(), PollFlags::POLLIN),
    ];
    loop {
        match poll(&mut waited, PollTimeout::NONE) {
            Ok(_) => return !waited[1].any().unwrap_or(true),
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
