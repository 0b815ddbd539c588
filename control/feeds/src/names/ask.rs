//! Asking the servers, one after the other, until one knows.

use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::message::{self, Answer, Kind};
use super::system::System;
use super::{Found, LookupError};

pub(super) fn ask(name: &str, kind: Kind, system: &System, deadline: Instant) -> Result<Found, LookupError> {
    let servers = system.servers();
    let mut refusal = None;
    let mut last = "no time left".to_owned();
    for _ in 0..servers.attempts {
        for &server in &servers.servers {
            let now = Instant::now();
            let until = deadline.min(now + servers.timeout);
            if until <= now {
                break;
            }
            // Each question has a number nobody can guess; the system chooses the port (RFC 5452, 9.2).
            let id = (RandomState::new().hash_one(now) & 0xffff) as u16;
            let query = message::query(id, name, kind).ok_or_else(|| LookupError::NoName(name.to_owned()))?;
            match exchange(&query, server, kind, until) {
                Ok(Answer::Addresses(addresses)) => {
                    return Ok(Found {
                        addresses,
                        negative: None,
                    });
                }
                Ok(Answer::None(negative)) => {
                    return Ok(Found {
                        addresses: Vec::new(),
                        negative,
                    });
                }
                Ok(Answer::Failed(code)) => refusal = Some(code),
                Ok(Answer::Truncated) => last = format!("{server} cuts its answer short"),
                Err(error) => last = format!("{server}: {error}"),
            }
        }
    }
    let name = name.to_owned();
    Err(match refusal {
        Some(code) => LookupError::Failed {
            name,
            code: match code {
                1 => "FORMERR".to_owned(),
                2 => "SERVFAIL".to_owned(),
                4 => "NOTIMP".to_owned(),
                5 => "REFUSED".to_owned(),
                code => format!("code {code}"),
            },
        },
        None => LookupError::Silence { name, last },
    })
}

fn exchange(query: &[u8], server: SocketAddr, kind: Kind, until: Instant) -> io::Result<Answer> {
    match over_udp(query, server, kind, until)? {
        Answer::Truncated => over_tcp(query, server, kind, until),
        answer => Ok(answer),
    }
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
        false => Ok(left),
    }
}

fn over_udp(query: &[u8], server: SocketAddr, kind: Kind, until: Instant) -> io::Result<Answer> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    // Connected: only this address and port can answer, and a closed port says so.
    socket.connect(server)?;
    socket.send(query)?;
    let mut buffer = [0; message::UDP_BYTES as usize + 1];
    loop {
        socket.set_read_timeout(Some(left(until)?))?;
        let length = match socket.recv(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            received => received?,
        };
        // Anything else is a guess of somebody, or late.
        if let Some(answer) = buffer
            .get(..length)
            .and_then(|message| message::answer(query, message, kind))
        {
            return Ok(answer);
        }
    }
}

fn over_tcp(query: &[u8], server: SocketAddr, kind: Kind, until: Instant) -> io::Result<Answer> {
    let mut stream = TcpStream::connect_timeout(&server, left(until)?)?;
    stream.set_write_timeout(Some(left(until)?))?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat())?;
    let mut read = |buffer: &mut [u8]| -> io::Result<()> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            stream.set_read_timeout(Some(left(until)?))?;
            match stream.read(rest)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                got => filled += got,
            }
        }
        Ok(())
    };
    let mut length = [0; 2];
    read(&mut length)?;
    let mut buffer = vec![0; u16::from_be_bytes(length).into()];
    read(&mut buffer)?;
    message::answer(query, &buffer, kind).ok_or_else(|| io::Error::other("its answer is malformed"))
}
