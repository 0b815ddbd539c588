//! The daemon's side of the socket: one thread listens, each connection has its own.
//!
//! Owns the socket's path through a lock file beside it, held as long as the daemon lives: two daemons cannot both
//! believe that a socket is stale, and a live one is never unlinked. The socket is mode 0600 from the moment it
//! has a name. Bounded in every direction: request length, connections at once, time for a line, time for a
//! reader that does not read.

mod connection;

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};

use crate::firewall::Firewall;
use crate::protocol::{Answer, Failure, FailureCode, write_answer};

/// Connections at once: people and a few scrapers, not a fleet.
const MAX_CONNECTIONS: usize = 32;

/// A path that is ours, before anything listens on it.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    lock: Flock<File>,
}

impl Claim {
    /// Makes sure that no other daemon serves this path.
    ///
    /// # Errors
    /// If one does, or if the path is taken by something that is not a socket.
    pub fn new(path: &Path) -> Result<Self> {
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(directory) = directory {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .with_context(|| format!("cannot make directory {}", directory.display()))?;
        }
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .with_context(|| format!("cannot open {}", lock_path.display()))?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => bail!(
                "another bulkhead serves {}; stop it first, or give this one its own --socket",
                path.display()
            ),
            Err((_, errno)) => {
                return Err(errno).with_context(|| format!("cannot lock {}", lock_path.display()));
            }
        };
        let claim = Self {
            path: path.to_owned(),
            lock,
        };
        claim.remove_stale()?;
        Ok(claim)
    }

    /// Whoever died without saying goodbye left a socket that nobody answers on. Whoever does answer, lock or not,
    /// keeps it.
    fn remove_stale(&self) -> Result<()> {
        let path = self.path.display();
        match UnixStream::connect(&self.path) {
            Ok(_) => {
                bail!("something else answers on {path}; stop it first, or give this one its own --socket")
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                use std::os::unix::fs::FileTypeExt as _;
                let kind = fs::symlink_metadata(&self.path)
                    .with_context(|| format!("cannot look at {path}"))?
                    .file_type();
                if !kind.is_socket() {
                    bail!("{path} exists and is not a socket; remove it, or choose another --socket");
                }
                fs::remove_file(&self.path).with_context(|| format!("cannot remove the stale socket {path}"))
            }
            Err(error) => Err(error).with_context(|| format!("cannot tell whether a daemon serves {path}")),
        }
    }

    /// Begins to listen and to answer.
    pub fn serve(self, firewall: Arc<dyn Firewall>) -> Result<Server> {
        let listener =
            listen_on(&self.path).with_context(|| format!("cannot listen on {}", self.path.display()))?;
        let (stop, stopped) = UnixStream::pair().context("cannot make a socket pair")?;
        let connections = Arc::new(Connections::default());
        let accept = {
            let connections = Arc::clone(&connections);
            thread::Builder::new()
                .name("bulkhead-socket".to_owned())
                .spawn(move || accept(&listener, &stopped, &firewall, &connections))
                .context("cannot start a thread")?
        };
        Ok(Server {
            claim: self,
            accept: Some(accept),
            stop,
            connections,
        })
    }
}

/// The mode is set on the socket before it gets a name: Linux gives it to the file (`unix_bind`), less the umask, so
/// there is no moment at which somebody else could connect.
fn listen_on(path: &Path) -> Result<UnixListener> {
    let fd = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&fd, Backlog::new(16)?)?;
    Ok(UnixListener::from(fd))
}

/// A server that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Server {
    claim: Claim,
    accept: Option<JoinHandle<()>>,
    stop: UnixStream,
    connections: Arc<Connections>,
}

impl Server {
    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.claim.path
    }
}

impl Drop for Server {
    /// Takes the name away first, so that nobody new comes; then ends every conversation and waits for their threads, so
    /// that nothing holds on to the firewall any more.
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.claim.path) {
            tracing::warn!(path = %self.claim.path.display(), %error, "cannot remove the socket");
        }
        // The listening thread holds the other end: this cannot fail while there is somebody to stop.
        let _ = self.stop.shutdown(Shutdown::Both);
        if self.accept.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that listens on the socket has panicked");
        }
        self.connections.end();
        // Only now may the next daemon have the path.
        tracing::debug!(lock = self.claim.lock.as_raw_fd(), "socket closed");
    }
}

fn accept(
    listener: &UnixListener,
    stopped: &UnixStream,
    firewall: &Arc<dyn Firewall>,
    connections: &Arc<Connections>,
) {
    loop {
        let mut waiting = [
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => {
                tracing::error!(%errno, "cannot wait for connections; the socket is no longer served");
                return;
            }
        }
        if waiting[1].any().unwrap_or(true) {
            return;
        }
        match listener.accept() {
            Ok((stream, _)) => {
                if let Err(error) = connections.begin(stream, firewall) {
                    tracing::warn!(%error, "cannot serve a connection");
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                // Out of descriptors, most likely: the connection stays in the backlog, so this must not spin.
                tracing::warn!(%error, "cannot accept a connection");
                thread::sleep(std::time::Duration::from_millis(100));
            }
        }
    }
}

/// The conversations in progress.
#[derive(Debug, Default)]
struct Connections {
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
struct Live {
    next: u64,
    streams: HashMap<u64, (UnixStream, Option<JoinHandle<()>>)>,
}

impl Connections {
    fn lock(&self) -> std::sync::MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>, stream: UnixStream, firewall: &Arc<dyn Firewall>) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        connection::set_timeouts(&stream)?;
        let mut live = self.lock();
        if live.streams.len() >= MAX_CONNECTIONS {
            let message =
                format!("{MAX_CONNECTIONS} connections are open, which is the most; close one and try again");
            let failure = Failure::new(FailureCode::Busy, message);
            return write_answer(&stream, &Answer::<()>::Error(&failure));
        }
        live.next += 1;
        let number = live.next;
        let handle = stream.try_clone()?;
        let (everyone, firewall) = (Arc::clone(self), Arc::clone(firewall));
        // The map is locked until the entry is there, so the thread finds it when it ends.
        let thread = thread::Builder::new()
            .name("bulkhead-client".to_owned())
            .spawn(move || {
                // The firewall goes before the entry does: whoever finds no entry knows that nobody holds it.
                let _entry = Entry { everyone, number };
                connection::serve(&stream, firewall);
            })?;
        live.streams.insert(number, (handle, Some(thread)));
        Ok(())
    }

    fn end(&self) {
        let threads: Vec<_> = {
            let mut live = self.lock();
            live.streams
                .values_mut()
                .filter_map(|(stream, thread)| {
                    // It may have closed by itself already.
                    let _ = stream.shutdown(Shutdown::Both);
                    thread.take()
                })
                .collect()
        };
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("the thread of a connection has panicked");
            }
        }
    }
}

/// A connection's place in the map, given back even by a panic.
struct Entry {
    everyone: Arc<Connections>,
    number: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.everyone.lock().streams.remove(&self.number);
    }
}

#[cfg(test)]
mod tests;
