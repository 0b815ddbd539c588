//! The client side of conversations: sockets in a namespace, with deadlines, that report ICMP errors.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind,
    connect, getsockopt, recvmsg, setsockopt, socket, sockopt,
};

use crate::effort::patience;
use crate::namespace::Namespace;
use crate::outcome::{IcmpError, Outcome};

/// Origins of an entry on a socket's error queue (`SO_EE_ORIGIN_*`).
const ORIGIN_ICMP: u8 = 2;
const ORIGIN_ICMP6: u8 = 3;

/// Somebody in a namespace who starts conversations.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    namespace: &'a Namespace,
    source: Option<SocketAddr>,
    timeout: Duration,
}

impl<'a> Client<'a> {
    /// A client with any source address and two seconds of patience.
    pub const fn new(namespace: &'a Namespace) -> Self {
        Self {
            namespace,
            source: None,
            timeout: Duration::from_secs(2),
        }
    }

    /// Binds to this address and, unless 0, this port.
    #[must_use]
    pub const fn source(mut self, source: SocketAddr) -> Self {
        self.source = Some(source);
        self
    }

    /// How long to wait for each answer, on a usual machine.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub(crate) fn patience(&self) -> Duration {
        patience(self.timeout)
    }

    /// A non-blocking socket connected, or connecting, to `peer`, with ICMP errors queued.
    pub(crate) fn open(
        &self,
        peer: SocketAddr,
        kind: SockType,
        protocol: Option<SockProtocol>,
        prepare: impl FnOnce(&OwnedFd) -> nix::Result<()> + Send,
    ) -> Result<std::result::Result<OwnedFd, Errno>> {
        let source = self.source;
        self.namespace
            .run(move || {
                let family = if peer.is_ipv4() {
                    AddressFamily::Inet
                } else {
                    AddressFamily::Inet6
                };
                let fd = socket(
                    family,
                    kind,
                    SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                    protocol,
                )?;
                if peer.is_ipv4() {
                    setsockopt(&fd, sockopt::Ipv4RecvErr, &true)?;
                } else {
                    setsockopt(&fd, sockopt::Ipv6RecvErr, &true)?;
                }
                prepare(&fd)?;
                if let Some(source) = source {
                    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
                    bind(fd.as_raw_fd(), &SockaddrStorage::from(source))?;
                }
                Ok::<_, Errno>(match connect(fd.as_raw_fd(), &SockaddrStorage::from(peer)) {
                    Ok(()) | Err(Errno::EINPROGRESS) => Ok(fd),
                    Err(errno) => Err(errno),
                })
            })
            .with_context(|| format!("cannot open a socket to {peer} in {}", self.namespace.name()))
    }
}

/// Waits for the socket. `None`: the deadline passed.
pub(crate) fn wait(
    socket: &impl AsFd,
    events: PollFlags,
    deadline: Instant,
) -> io::Result<Option<PollFlags>> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let mut waited = [PollFd::new(socket.as_fd(), events)];
        match poll(&mut waited, timeout) {
            Ok(0) if left.is_zero() => return Ok(None),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(Some(waited[0].revents().unwrap_or(PollFlags::POLLERR))),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Waits until the socket is readable, or says what came instead.
pub(crate) fn readable<T>(
    socket: &impl AsFd,
    deadline: Instant,
) -> Result<std::result::Result<(), Outcome<T>>> {
    match wait(socket, PollFlags::POLLIN, deadline).context("cannot wait for a socket")? {
        None => Ok(Err(Outcome::TimedOut)),
        Some(events) if events.contains(PollFlags::POLLERR) => Ok(Err(failure(socket, None))),
        Some(_) => Ok(Ok(())),
    }
}

/// What a socket in error came to: its error queue first, which knows the ICMP type, then the errno.
pub(crate) fn failure<T>(socket: &impl AsFd, errno: Option<Errno>) -> Outcome<T> {
    let icmp = queued_error(socket);
    let pending = getsockopt(&socket.as_fd(), sockopt::SocketError).unwrap_or(0);
    let errno = match (errno, icmp) {
        (Some(errno), _) => errno as i32,
        (None, Some((_, errno))) => errno,
        (None, None) => pending,
    };
    match (icmp, Errno::from_raw(errno)) {
        (Some((icmp, _)), _) => Outcome::Unreachable {
            icmp: Some(icmp),
            errno,
        },
        (None, Errno::ECONNREFUSED | Errno::ECONNRESET) => Outcome::Refused,
        (None, Errno::ETIMEDOUT) => Outcome::TimedOut,
        (None, _) => Outcome::Unreachable { icmp: None, errno },
    }
}

/// The first ICMP error on the error queue, with the errno it maps to.
pub(crate) fn queued_error(socket: &impl AsFd) -> Option<(IcmpError, i32)> {
    let mut payload = [0; 2048];
    let mut pieces = [IoSliceMut::new(&mut payload)];
    let mut control = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6, libc::timeval);
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(socket.as_fd().as_raw_fd(), &mut pieces, Some(&mut control), flags)
            .ok()?;
    message.cmsgs().ok()?.find_map(|control| {
        let (error, from) = match control {
            ControlMessageOwned::Ipv4RecvErr(error, from) => (
                error,
                from.map(|from| IpAddr::from(from.sin_addr.s_addr.to_ne_bytes())),
            ),
            ControlMessageOwned::Ipv6RecvErr(error, from) => {
                (error, from.map(|from| IpAddr::from(from.sin6_addr.s6_addr)))
            }
            _ => return None,
        };
        if !matches!(error.ee_origin, ORIGIN_ICMP | ORIGIN_ICMP6) {
            return None;
        }
        let errno = error.ee_errno.cast_signed();
        let mtu = if errno == libc::EMSGSIZE { error.ee_info } else { 0 };
        Some((
            IcmpError {
                from,
                kind: error.ee_type,
                code: error.ee_code,
                mtu,
            },
            errno,
        ))
    })
}
