//! Just enough HTTP/1.1 for a policy that speaks of web tiers; `curl` understands the server.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::endpoint::Client;
use crate::namespace::Namespace;
use crate::outcome::Outcome;
use crate::server::Server;
use crate::tcp::broken;

/// Neither side reads a longer head.
const HEAD_BYTES: usize = 8 * 1024;
/// Nor a longer body.
const BODY_BYTES: u64 = 1024 * 1024;
const SEEN_HEADER: &str = "x-seen-as";

/// Answers every GET until dropped.
#[derive(Debug)]
pub struct HttpServer(Server);

impl HttpServer {
    /// Listens in a namespace and answers with `body`.
    pub fn start(namespace: &Namespace, address: SocketAddr, body: impl Into<String>) -> Result<Self> {
        let body = body.into();
        Server::stream(namespace, address, move |stream, peer| serve(stream, peer, &body)).map(Self)
    }

    /// Where it listens; tells the port if 0 was asked for.
    pub const fn address(&self) -> SocketAddr {
        self.0.address()
    }
}

fn serve(mut stream: &TcpStream, peer: SocketAddr, body: &str) -> io::Result<()> {
    let (head, _) = read_head(&mut stream)?;
    let (status, body) = match head.split_whitespace().next() {
        Some("GET") => ("200 OK", body),
        _ => ("405 Method Not Allowed", "only GET is answered here\n"),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n{SEEN_HEADER}: {peer}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

/// An HTTP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
    /// The client's address as the server saw it.
    pub seen_as: SocketAddr,
    /// The client's own address.
    pub local: SocketAddr,
    /// From the first SYN to the last byte.
    pub elapsed: Duration,
}

impl Client<'_> {
    /// Asks a [`HttpServer`] for a path.
    pub fn http_get(&self, server: SocketAddr, path: &str) -> Result<Outcome<HttpResponse>> {
        let began = Instant::now();
        let mut stream = match self.connect(server)?.split() {
            Ok(stream) => stream,
            Err(outcome) => return Ok(outcome),
        };
        match fetch(&mut stream, server, path, began) {
            Ok(Some(response)) => Ok(Outcome::Answered(response)),
            Ok(None) => Ok(Outcome::Broken("the server's answer is not HTTP".into())),
            Err(error) => Ok(broken("reading the response", &error)),
        }
    }
}

fn fetch(
    stream: &mut TcpStream,
    server: SocketAddr,
    path: &str,
    began: Instant,
) -> io::Result<Option<HttpResponse>> {
    let local = stream.local_addr()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n"
    )?;
    let (head, mut body) = read_head(stream)?;
    stream.take(BODY_BYTES).read_to_end(&mut body)?;
    Ok(parse(&head, body, local, began.elapsed()))
}

fn parse(head: &str, body: Vec<u8>, local: SocketAddr, elapsed: Duration) -> Option<HttpResponse> {
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    let header = |name: &str| {
        head.lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
    };
    let length: usize = header("content-length")?.1.parse().ok()?;
    let seen_as = header(SEEN_HEADER)?.1.parse().ok()?;
    let body = String::from_utf8(body).ok().filter(|body| body.len() == length)?;
    Some(HttpResponse {
        status,
        body,
        seen_as,
        local,
        elapsed,
    })
}

/// Reads up to the empty line. Returns the head and what of the body came with it.
fn read_head(stream: &mut impl Read) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let body = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), body));
        }
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&chunk[..length]);
        if bytes.len() > HEAD_BYTES {
            return Err(io::Error::other(format!(
                "a head of more than {HEAD_BYTES} bytes"
            )));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_off_body_is_no_response() {
        let local = SocketAddr::from(([10, 0, 0, 1], 40000));
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Seen-As: 10.0.0.9:7\r\n\r\n";
        let whole = parse(head, b"hello".to_vec(), local, Duration::ZERO).expect("a response");
        assert_eq!(
            (whole.status, whole.seen_as.to_string().as_str()),
            (200, "10.0.0.9:7")
        );
        assert_eq!(parse(head, b"hell".to_vec(), local, Duration::ZERO), None);
    }
}
