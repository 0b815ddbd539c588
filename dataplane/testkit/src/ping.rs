//! Echo requests through ping sockets, which report ICMP errors like any other socket.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::socket::{SockProtocol, SockType, setsockopt, sockopt};

use crate::digest::Content;
use crate::endpoint::{Client, failure, readable};
use crate::outcome::Outcome;

const HEADER_BYTES: usize = 8;

/// An echo request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingSpec {
    /// Bytes behind the ICMP header.
    pub payload_bytes: usize,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// The sequence number.
    pub sequence: u16,
}

impl Default for PingSpec {
    /// What `ping` sends.
    fn default() -> Self {
        Self {
            payload_bytes: 56,
            ttl: 64,
            sequence: 1,
        }
    }
}

/// An echo reply with the payload of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PingReply {
    /// The round trip.
    pub elapsed: Duration,
}

impl Client<'_> {
    /// Sends one echo request and waits for its reply.
    pub fn ping(&self, host: IpAddr) -> Result<Outcome<PingReply>> {
        self.ping_with(host, &PingSpec::default())
    }

    /// Sends the echo request described and waits for its reply.
    pub fn ping_with(&self, host: IpAddr, spec: &PingSpec) -> Result<Outcome<PingReply>> {
        let (protocol, request_type, reply_type) = match host {
            IpAddr::V4(_) => (SockProtocol::Icmp, 8, 0),
            IpAddr::V6(_) => (SockProtocol::IcmpV6, 128, 129),
        };
        let opened = self.open(
            SocketAddr::new(host, 0),
            SockType::Datagram,
            Some(protocol),
            |fd| {
                let ttl = i32::from(spec.ttl);
                match host {
                    IpAddr::V4(_) => setsockopt(fd, sockopt::Ipv4Ttl, &ttl),
                    IpAddr::V6(_) => setsockopt(fd, sockopt::Ipv6Ttl, &ttl),
                }
            },
        )?;
        let socket = match opened {
            Ok(fd) => UdpSocket::from(fd),
            Err(errno) => {
                return Ok(Outcome::Unreachable {
                    icmp: None,
                    errno: errno as i32,
                });
            }
        };
        // The kernel fills in identifier and checksum.
        let mut message = vec![0; HEADER_BYTES + spec.payload_bytes];
        message[0] = request_type;
        message[6..8].copy_from_slice(&spec.sequence.to_be_bytes());
        Content::new(u64::from(spec.sequence)).fill(&mut message[HEADER_BYTES..]);
        let began = Instant::now();
        let deadline = began + self.patience();
        if let Err(error) = socket.send(&message) {
            return Ok(failure(&socket, error.raw_os_error().map(Errno::from_raw)));
        }
        let mut buffer = vec![0; usize::from(u16::MAX)];
        loop {
            if let Err(outcome) = readable(&socket, deadline)? {
                return Ok(outcome);
            }
            let Ok(length) = socket.recv(&mut buffer) else {
                continue;
            };
            let reply = &buffer[..length];
            if reply.first() == Some(&reply_type) && reply.get(6..) == Some(&message[6..]) {
                return Ok(Outcome::Answered(PingReply {
                    elapsed: began.elapsed(),
                }));
            }
        }
    }
}
