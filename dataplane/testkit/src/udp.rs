//! UDP conversations: DNS-like questions, and probes of any size that come back whole.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::SockType;

use crate::digest::Content;
use crate::dns;
use crate::endpoint::{Client, failure, readable};
use crate::namespace::Namespace;
use crate::outcome::Outcome;
use crate::server::Server;

const PROBE: &[u8; 4] = b"BHK?";
const REPLY: &[u8; 4] = b"BHK!";
/// Mark and number of a probe.
const PROBE_HEADER_BYTES: usize = 12;
/// Longest `[address]:port` there is, with its length byte; what a reply adds to its probe.
const SEEN_BYTES: usize = 64;
/// The longest probe whose reply still fits a datagram.
pub const MAX_PROBE_BYTES: usize = 65_507 - SEEN_BYTES;

static PROBES: AtomicU64 = AtomicU64::new(1);

/// Answers DNS questions and probes until dropped.
#[derive(Debug)]
pub struct UdpServer(Server);

impl UdpServer {
    /// Listens in a namespace.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        Server::datagram(namespace, address, |request, peer| {
            let seen = peer.to_string();
            let Some(probe) = request.strip_prefix(PROBE) else {
                return dns::respond(request, &seen);
            };
            let mut reply = REPLY.to_vec();
            reply.push(u8::try_from(seen.len()).ok()?);
            reply.extend(seen.as_bytes());
            reply.extend(probe);
            Some(reply)
        })
        .map(Self)
    }

    /// Where it listens; tells the port if 0 was asked for.
    pub const fn address(&self) -> SocketAddr {
        self.0.address()
    }
}

/// An answer to a question or a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpAnswer {
    /// The client's address as the server saw it.
    pub seen_as: SocketAddr,
    /// The client's own address.
    pub local: SocketAddr,
    /// The round trip.
    pub elapsed: Duration,
}

/// A socket connected to one server.
#[derive(Debug)]
pub struct UdpConversation {
    socket: UdpSocket,
    local: SocketAddr,
    patience: Duration,
}

impl Client<'_> {
    /// A socket to a [`UdpServer`]. Nothing is sent yet; without a route there is no socket.
    pub fn udp(&self, server: SocketAddr) -> Result<Outcome<UdpConversation>> {
        let fd = match self.open(server, SockType::Datagram, None, |_| Ok(()))? {
            Ok(fd) => fd,
            Err(errno) => {
                return Ok(Outcome::Unreachable {
                    icmp: None,
                    errno: errno as i32,
                });
            }
        };
        let socket = UdpSocket::from(fd);
        let local = socket.local_addr().context("cannot read a socket's address")?;
        Ok(Outcome::Answered(UdpConversation {
            socket,
            local,
            patience: self.patience(),
        }))
    }

    /// Asks one DNS question, as a resolver does.
    pub fn dns_query(&self, server: SocketAddr, name: &str) -> Result<Outcome<UdpAnswer>> {
        match self.udp(server)?.split() {
            Ok(mut conversation) => conversation.ask(name),
            Err(outcome) => Ok(outcome),
        }
    }

    /// Sends one probe of this many bytes of UDP payload, from a new socket.
    pub fn udp_probe(&self, server: SocketAddr, bytes: usize) -> Result<Outcome<UdpAnswer>> {
        match self.udp(server)?.split() {
            Ok(mut conversation) => conversation.probe(bytes),
            Err(outcome) => Ok(outcome),
        }
    }
}

impl UdpConversation {
    /// The client's own address.
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// Asks one DNS question.
    pub fn ask(&mut self, name: &str) -> Result<Outcome<UdpAnswer>> {
        let id = (PROBES.fetch_add(1, Ordering::Relaxed) & 0xffff) as u16;
        let query = dns::query(id, name).with_context(|| format!("\"{name}\" is no domain name"))?;
        self.round_trip(&query, |reply| dns::text(id, reply))
    }

    /// Sends a probe of this many bytes of UDP payload; its reply is a little longer.
    pub fn probe(&mut self, bytes: usize) -> Result<Outcome<UdpAnswer>> {
        ensure!(
            (PROBE_HEADER_BYTES..=MAX_PROBE_BYTES).contains(&bytes),
            "a probe has {PROBE_HEADER_BYTES} to {MAX_PROBE_BYTES} bytes, not {bytes}"
        );
        let number = PROBES.fetch_add(1, Ordering::Relaxed);
        let mut probe = vec![0; bytes];
        probe[..4].copy_from_slice(PROBE);
        probe[4..PROBE_HEADER_BYTES].copy_from_slice(&number.to_le_bytes());
        Content::new(number).fill(&mut probe[PROBE_HEADER_BYTES..]);
        self.round_trip(&probe, |reply| {
            let (length, rest) = reply.strip_prefix(REPLY)?.split_first()?;
            let (seen, echo) = rest.split_at_checked(usize::from(*length))?;
            (echo == &probe[4..]).then(|| String::from_utf8_lossy(seen).into_owned())
        })
    }

    /// Sends, and waits for the reply that `accept` takes. Others are late replies to earlier requests.
    fn round_trip(
        &mut self,
        request: &[u8],
        accept: impl Fn(&[u8]) -> Option<String>,
    ) -> Result<Outcome<UdpAnswer>> {
        let began = Instant::now();
        let deadline = began + self.patience;
        if let Err(error) = self.socket.send(request) {
            return Ok(failure(
                &self.socket,
                error.raw_os_error().map(nix::errno::Errno::from_raw),
            ));
        }
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            if let Err(outcome) = readable(&self.socket, deadline)? {
                return Ok(outcome);
            }
            let Ok(length) = self.socket.recv(&mut buffer) else {
                continue;
            };
            if let Some(seen_as) = accept(&buffer[..length]) {
                let seen_as = seen_as
                    .parse()
                    .with_context(|| format!("\"{seen_as}\" is no socket address"))?;
                return Ok(Outcome::Answered(UdpAnswer {
                    seen_as,
                    local: self.local,
                    elapsed: began.elapsed(),
                }));
            }
        }
    }
}
