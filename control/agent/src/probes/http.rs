//! Probes and metrics over HTTP: hyper on blocking sockets of ours.
//!
//! Owns the listener and its bounds: so many conversations at once, so long for one, so much for its head; a request without
//! a body, an answer, the end. Listens on loopback or on an interface that no configuration may name, bound to the device, so
//! that nothing that comes in through a data interface reaches it, whatever `hostInbound` says. Refuses everything but GET and
//! HEAD of a few paths.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::rt::ReadBufCursor;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, listen, setsockopt, socket,
    sockopt,
};

use bulkhead_dataplane::netlink::{LinkKind, Netlink};

use super::{Subject, report};
use crate::launch::{Listen, ManagementInterface, links, management_interface};

/// Conversations at once.
const WORKERS: usize = 4;
/// Conversations that wait for one of them; more are closed at once.
const WAITING: usize = 32;
/// For a whole conversation, from the first byte to the last.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of a request's head; hyper takes no less.
const HEAD_BYTES: usize = 8_192;
/// Headers of a request.
const HEADERS: usize = 64;

/// Where to listen, and on which interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// On which addresses: one, or all of the interface.
    address: SocketAddr,
    /// The interface.
    pub interface: String,
}

/// Finds the interface to listen on: the one for management, or the one that has the address.
///
/// # Errors
/// If there is none.
pub fn place(wanted: Listen, management: &ManagementInterface) -> Result<Place> {
    let links = links().context("cannot ask the kernel for its interfaces")?;
    match wanted {
        Listen::Interface(port) => match management_interface(management, &links) {
            Some(interface) => Ok(Place {
                address: (Ipv6Addr::UNSPECIFIED, port).into(),
                interface,
            }),
            None => bail!("no interface is up that could be the one for management"),
        },
        Listen::Address(address) => {
            let ip = address.ip();
            let loopback = links.iter().find(|link| link.kind == LinkKind::Loopback);
            let addresses = Netlink::connect()
                .and_then(|mut netlink| netlink.addresses())
                .context("cannot ask the kernel for its addresses")?;
            let index = match loopback {
                Some(link) if ip.is_loopback() => Some(link.index),
                _ => addresses
                    .iter()
                    .find(|own| own.address == ip)
                    .map(|own| own.index),
            };
            let link = index.and_then(|index| links.iter().find(|link| link.index == index));
            match link {
                Some(link) => Ok(Place {
                    address,
                    interface: link.name.clone(),
                }),
                None => bail!(
                    "no interface has the address {ip} on which probes are to be served (--management, BULKHEAD_MANAGEMENT)"
                ),
            }
        }
    }
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    stop: UnixStream,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Begins to listen and to answer.
    ///
    /// # Errors
    /// If the address cannot be had.
    pub fn start(place: &Place, subject: Arc<dyn Subject>) -> Result<Self> {
        let listener = listener(place)
            .with_context(|| format!("cannot serve probes on {} of {}", place.address, place.interface))?;
        let address = listener.local_addr().context("a listener has an address")?;
        let (stop, stopped) = UnixStream::pair().context("cannot make a socket pair")?;
        let (sender, receiver) = bounded::<TcpStream>(WAITING);
        let mut threads = Vec::with_capacity(WORKERS + 1);
        let mut spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
            let thread = thread::Builder::new().name(name.to_owned()).spawn(body);
            thread
                .map(|thread| threads.push(thread))
                .context("cannot start a thread")
        };
        for _ in 0..WORKERS {
            let (receiver, subject): (Receiver<TcpStream>, _) = (receiver.clone(), Arc::clone(&subject));
            spawn(
                "bulkhead-http",
                Box::new(move || receiver.iter().for_each(|stream| serve(stream, &*subject))),
            )?;
        }
        spawn(
            "bulkhead-probes",
            Box::new(move || accept(&listener, &stopped, &sender)),
        )?;
        Ok(Self {
            address,
            stop,
            threads,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The listening thread holds the other end; with it goes the channel, and with that the workers.
        let _ = self.stop.shutdown(Shutdown::Both);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that serves probes has panicked");
            }
        }
    }
}

/// A listener that hears only what comes in through one interface.
fn listener(place: &Place) -> Result<TcpListener> {
    let open = |ip: IpAddr| -> nix::Result<OwnedFd> {
        let family = if ip.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let fd = socket(
            family,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            None,
        )?;
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        setsockopt(&fd, sockopt::BindToDevice, &OsString::from(&place.interface))?;
        match SocketAddr::new(ip, place.address.port()) {
            SocketAddr::V4(address) => bind(fd.as_raw_fd(), &SockaddrIn::from(address))?,
            SocketAddr::V6(address) => {
                setsockopt(&fd, sockopt::Ipv6V6Only, &!ip.is_unspecified())?;
                bind(fd.as_raw_fd(), &SockaddrIn6::from(address))?;
            }
        }
        listen(&fd, Backlog::new(WAITING as i32)?)?;
        Ok(fd)
    };
    let ip = place.address.ip();
    let opened = match open(ip) {
        // A kernel without IPv6.
        Err(nix::errno::Errno::EAFNOSUPPORT) if ip.is_unspecified() => open(Ipv4Addr::UNSPECIFIED.into()),
        opened => opened,
    };
    Ok(TcpListener::from(opened?))
}

fn accept(listener: &TcpListener, stopped: &UnixStream, workers: &Sender<TcpStream>) {
    loop {
        let mut waiting = [
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut waiting, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => {
                tracing::error!(%errno, "cannot wait for probes; they are no longer answered");
                return;
            }
        }
        if waiting[1].any().unwrap_or(true) {
            return;
        }
        match listener.accept() {
            Ok((stream, from)) => match workers.try_send(stream) {
                Ok(()) => {}
                // Closed by being dropped.
                Err(TrySendError::Full(_)) => {
                    tracing::debug!(%from, "too many probes at once, one is not answered")
                }
                Err(TrySendError::Disconnected(_)) => return,
            },
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => {
                // Out of descriptors, most likely: the connection stays in the backlog, so this must not spin.
                tracing::warn!(%error, "cannot accept a probe");
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// One conversation: a request, an answer.
fn serve(stream: TcpStream, subject: &dyn Subject) {
    let prepared = stream.set_nonblocking(false);
    let io = Blocking {
        stream,
        until: Instant::now() + PATIENCE,
    };
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(request.method(), request.uri().path(), subject);
        async move { response }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        // Else it reads on, to hear of an end, before it answers; our reads wait.
        .half_close(true)
        .max_headers(HEADERS)
        .max_buf_size(HEAD_BYTES)
        .header_read_timeout(None)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut context = Context::from_waker(Waker::noop());
    let until = Instant::now() + PATIENCE;
    // Our sockets never say "later"; hyper itself does, after so many turns, to let others have theirs.
    while let (true, Poll::Pending) = (prepared.is_ok(), connection.as_mut().poll(&mut context)) {
        if Instant::now() >= until {
            return;
        }
    }
}

/// The answer to a request.
fn answer(
    method: &Method,
    path: &str,
    subject: &dyn Subject,
) -> Result<Response<String>, hyper::http::Error> {
    const TEXT: &str = "text/plain; charset=utf-8";
    /// OpenMetrics 1.0.0.
    const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let plain = |status: StatusCode, body: String| {
        Response::builder()
            .status(status)
            .header(CONTENT_TYPE, TEXT)
            .header(CACHE_CONTROL, "no-store")
            .body(body)
    };
    let probe = |name: &str, checks: &[bulkhead_dataplane::engine::Check]| {
        let (well, text) = report(name, checks);
        let status = if well {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        plain(status, text)
    };
    if method != Method::GET && method != Method::HEAD {
        return Response::builder()
            .status(StatusCode::METHOD_NOT_ALLOWED)
            .header(CONTENT_TYPE, TEXT)
            .header(ALLOW, "GET, HEAD")
            .body("only GET and HEAD\n".to_owned());
    }
    match path {
        "/livez" => probe("livez", &subject.live()),
        "/readyz" => probe("readyz", &subject.ready()),
        "/metrics" => match subject.metrics() {
            Ok(text) => Response::builder().header(CONTENT_TYPE, METRICS).body(text),
            Err(why) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")),
        },
        _ => plain(
            StatusCode::NOT_FOUND,
            "there are /livez, /readyz and /metrics\n".to_owned(),
        ),
    }
}

/// A socket that blocks, until it is enough.
struct Blocking {
    stream: TcpStream,
    until: Instant,
}

impl Blocking {
    /// What is left of the conversation's time.
    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(io::ErrorKind::TimedOut.into()),
            false => Ok(left),
        }
    }

    fn read_some(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.left()?;
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(bytes)
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left()?;
        self.stream.set_write_timeout(Some(left))?;
        self.stream.write(bytes)
    }
}

impl hyper::rt::Read for Blocking {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        mut room: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut bytes = [0; 2_048];
        let most = room.remaining().min(bytes.len());
        Poll::Ready(
            self.read_some(&mut bytes[..most])
                .map(|read| room.put_slice(&bytes[..read])),
        )
    }
}

impl hyper::rt::Write for Blocking {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(self.write_some(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.shutdown(Shutdown::Write))
    }
}

#[cfg(test)]
mod tests;
