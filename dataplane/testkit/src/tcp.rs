//! TCP conversations between real stacks: connections that can be held open, and bulk both ways.
//!
//! The server says who it sees as soon as a connection is open, so address translation shows without a
//! further word. Each exchange then carries generated content up and down, and both ends compare digests.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::poll::PollFlags;
use nix::sys::socket::{SockType, setsockopt, sockopt};

use crate::digest::{Content, Digest};
use crate::endpoint::{Client, failure, wait};
use crate::namespace::Namespace;
use crate::outcome::Outcome;
use crate::server::Server;

const CHUNK_BYTES: usize = 64 * 1024;
const GREETING: &str = "bulkhead sees ";

/// Answers exchanges until dropped.
#[derive(Debug)]
pub struct TcpServer(Server);

impl TcpServer {
    /// Listens in a namespace.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        Server::stream(namespace, address, serve).map(Self)
    }

    /// Where it listens; tells the port if 0 was asked for.
    pub const fn address(&self) -> SocketAddr {
        self.0.address()
    }
}

fn serve(mut stream: &TcpStream, peer: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(format!("{GREETING}{peer}\n").as_bytes())?;
    let mut header = [0; 24];
    loop {
        match stream.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let [upload, download, seed] = words(&header);
        let received = receive(&mut stream, upload)?;
        stream.write_all(&received.to_le_bytes())?;
        let sent = send(&mut stream, download, !seed)?;
        stream.write_all(&sent.to_le_bytes())?;
    }
}

fn words(header: &[u8; 24]) -> [u64; 3] {
    let (words, _) = header.as_chunks::<8>();
    std::array::from_fn(|index| u64::from_le_bytes(words[index]))
}

fn send(stream: &mut impl Write, bytes: u64, seed: u64) -> io::Result<u64> {
    let (mut content, mut digest) = (Content::new(seed), Digest::new());
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut left = bytes;
    while left > 0 {
        let piece = &mut chunk[..usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES))];
        content.fill(piece);
        digest.update(piece);
        stream.write_all(piece)?;
        left -= piece.len() as u64;
    }
    Ok(digest.finish())
}

fn receive(stream: &mut impl Read, bytes: u64) -> io::Result<u64> {
    let mut digest = Digest::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut left = bytes;
    while left > 0 {
        let room = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let length = stream.read(&mut chunk[..room])?;
        if length == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        digest.update(&chunk[..length]);
        left -= length as u64;
    }
    Ok(digest.finish())
}

/// What an exchange carried; the content arrived unchanged in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes to the server.
    pub uploaded_bytes: u64,
    /// Time until the server had confirmed them.
    pub upload_time: Duration,
    /// Bytes from the server.
    pub downloaded_bytes: u64,
    /// Time until they were here.
    pub download_time: Duration,
    /// Digest of what went up, as both ends computed it.
    pub upload_digest: u64,
    /// Digest of what came down, as both ends computed it.
    pub download_digest: u64,
}

/// An open connection to a [`TcpServer`].
#[derive(Debug)]
pub struct TcpConversation {
    stream: TcpStream,
    seen_as: SocketAddr,
    local: SocketAddr,
    connect_time: Duration,
    seed: u64,
}

impl Client<'_> {
    /// Connects to a [`TcpServer`].
    pub fn tcp(&self, server: SocketAddr) -> Result<Outcome<TcpConversation>> {
        let began = Instant::now();
        let stream = match self.connect(server)?.split() {
            Ok(stream) => stream,
            Err(outcome) => return Ok(outcome),
        };
        let connect_time = began.elapsed();
        let local = stream.local_addr().context("cannot read a socket's address")?;
        let greeting = match read_line(&stream) {
            Ok(line) => line,
            Err(error) => return Ok(broken("reading the greeting", &error)),
        };
        let Some(seen_as) = greeting.strip_prefix(GREETING).and_then(|peer| peer.parse().ok()) else {
            return Ok(Outcome::Broken(format!("the greeting was \"{greeting}\"")));
        };
        Ok(Outcome::Answered(TcpConversation {
            stream,
            seen_as,
            local,
            connect_time,
            seed: u64::from(local.port()),
        }))
    }

    /// Connects, exchanges this many bytes up and down, and closes.
    pub fn tcp_transfer(
        &self,
        server: SocketAddr,
        upload_bytes: u64,
        download_bytes: u64,
    ) -> Result<Outcome<(Transfer, TcpConversation)>> {
        match self.tcp(server)?.split() {
            Ok(mut conversation) => Ok(conversation
                .exchange(upload_bytes, download_bytes)?
                .map(|transfer| (transfer, conversation))),
            Err(outcome) => Ok(outcome),
        }
    }

    /// A blocking, connected stream with the client's patience as its timeouts.
    pub(crate) fn connect(&self, server: SocketAddr) -> Result<Outcome<TcpStream>> {
        let deadline = Instant::now() + self.patience();
        let opened = self.open(server, SockType::Stream, None, |fd| {
            setsockopt(fd, sockopt::TcpNoDelay, &true)
        })?;
        let fd = match opened {
            Ok(fd) => fd,
            Err(errno) => {
                return Ok(Outcome::Unreachable {
                    icmp: None,
                    errno: errno as i32,
                });
            }
        };
        match wait(&fd, PollFlags::POLLOUT, deadline).context("cannot wait for a connection")? {
            None => return Ok(Outcome::TimedOut),
            Some(events) if events.intersects(PollFlags::POLLERR | PollFlags::POLLHUP) => {
                return Ok(failure(&fd, None));
            }
            Some(_) => {}
        }
        let stream = TcpStream::from(fd);
        stream
            .set_nonblocking(false)
            .and_then(|()| stream.set_read_timeout(Some(self.patience())))
            .and_then(|()| stream.set_write_timeout(Some(self.patience())))
            .context("cannot set a socket's timeouts")?;
        Ok(Outcome::Answered(stream))
    }
}

impl TcpConversation {
    /// The client's address as the server saw it.
    pub const fn seen_as(&self) -> SocketAddr {
        self.seen_as
    }

    /// The client's own address.
    pub const fn local(&self) -> SocketAddr {
        self.local
    }

    /// How long the handshake took.
    pub const fn connect_time(&self) -> Duration {
        self.connect_time
    }

    /// From now on treats ICMP errors as most programs do: a connection that is open outlives them (RFC 1122,
    /// section 4.2.3.9). A client asks for them (`IP_RECVERR`), and would end with the first.
    pub fn outlive_errors(&self) -> Result<()> {
        let outcome = if self.local.is_ipv4() {
            setsockopt(&self.stream, sockopt::Ipv4RecvErr, &false)
        } else {
            setsockopt(&self.stream, sockopt::Ipv6RecvErr, &false)
        };
        outcome.context("cannot unset IP_RECVERR")
    }

    /// Carries this many bytes to the server and back, and compares digests.
    pub fn exchange(&mut self, upload_bytes: u64, download_bytes: u64) -> Result<Outcome<Transfer>> {
        self.seed = self.seed.wrapping_add(0x1_0000);
        match self.try_exchange(upload_bytes, download_bytes) {
            Ok(outcome) => Ok(outcome),
            Err(error) => Ok(broken("exchanging data", &error)),
        }
    }

    fn try_exchange(&mut self, upload_bytes: u64, download_bytes: u64) -> io::Result<Outcome<Transfer>> {
        let mut header = [0; 24];
        for (to, word) in header
            .chunks_mut(8)
            .zip([upload_bytes, download_bytes, self.seed])
        {
            to.copy_from_slice(&word.to_le_bytes());
        }
        let mut stream = &self.stream;
        let began = Instant::now();
        stream.write_all(&header)?;
        let upload_digest = send(&mut stream, upload_bytes, self.seed)?;
        let confirmed = read_word(&mut stream)?;
        let upload_time = began.elapsed();
        if confirmed != upload_digest {
            return Ok(Outcome::Broken(format!(
                "the server got other content than was sent: {confirmed:016x} instead of {upload_digest:016x}"
            )));
        }
        let began = Instant::now();
        let download_digest = receive(&mut stream, download_bytes)?;
        let download_time = began.elapsed();
        let promised = read_word(&mut stream)?;
        if promised != download_digest {
            return Ok(Outcome::Broken(format!(
                "the client got other content than was sent: {download_digest:016x} instead of {promised:016x}"
            )));
        }
        Ok(Outcome::Answered(Transfer {
            uploaded_bytes: upload_bytes,
            upload_time,
            downloaded_bytes: download_bytes,
            download_time,
            upload_digest,
            download_digest,
        }))
    }

    /// Closes in order. (Dropping closes too, but does not wait for the server's FIN.)
    pub fn close(self) -> Result<()> {
        let _reset_already = self.stream.shutdown(Shutdown::Write);
        let mut rest = Vec::new();
        (&self.stream)
            .read_to_end(&mut rest)
            .map(|_| ())
            .context("the server did not close its side")
    }

    /// Sends a reset.
    pub fn reset(self) -> Result<()> {
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&self.stream, sockopt::Linger, &linger).context("cannot set SO_LINGER")
    }
}

fn read_word(stream: &mut impl Read) -> io::Result<u64> {
    let mut word = [0; 8];
    stream.read_exact(&mut word)?;
    Ok(u64::from_le_bytes(word))
}

fn read_line(mut stream: &TcpStream) -> io::Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < 128 {
        stream.read_exact(&mut byte)?;
        if byte == [b'\n'] {
            break;
        }
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// What an error on an established connection means.
pub(crate) fn broken<T>(doing: &str, error: &io::Error) -> Outcome<T> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Outcome::TimedOut,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Outcome::Unreachable {
            icmp: None,
            errno: error.raw_os_error().unwrap_or(0),
        },
        _ => Outcome::Broken(format!("{doing}: {error}")),
    }
}
