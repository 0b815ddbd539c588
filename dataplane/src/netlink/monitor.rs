//! What changes in the namespace while the firewall runs.
//!
//! Owns the subscription and the order of events. Assumes that the caller reads the tables *after*
//! connecting the monitor, so that no change falls between. Refuses to pretend: when the kernel had to drop
//! notifications the next event is [`Event::Overrun`], and everything has to be read again.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use netlink_packet_route::RouteNetlinkMessage;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use super::socket::Socket;
use super::{Error, Link, Neighbour, Result};
use std::net::IpAddr;

/// `RTNLGRP_*` of `linux/rtnetlink.h`: link, neigh, ipv4 ifaddr, ipv4 route, ipv4 rule, ipv6 ifaddr,
/// ipv6 route, ipv6 rule, nexthop.
const GROUPS: [u32; 9] = [1, 3, 5, 7, 8, 9, 11, 19, 32];
/// Added in Linux 5.3; older kernels have no nexthop objects to hear about.
const GROUP_NEXTHOP: u32 = 32;

const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;

/// Room for some ten thousand notifications; the default of 208 KiB overruns when a routing daemon starts.
const RECEIVE_BUFFER_BYTES: usize = 8 * 1024 * 1024;

/// Something changed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// An interface appeared or is now like this.
    LinkChanged(Link),
    /// An interface is gone, or moved to another namespace.
    LinkGone {
        /// Index it had.
        index: u32,
        /// Name it had.
        name: String,
    },
    /// A neighbour appeared or is now like this.
    NeighbourChanged(Neighbour),
    /// A neighbour entry is gone.
    NeighbourGone {
        /// Interface it was behind.
        index: u32,
        /// Address it had.
        address: IpAddr,
    },
    /// The routing tables differ from what they were; read [`Netlink::routes`](super::Netlink::routes).
    RoutesChanged,
    /// An address came or went; read [`Netlink::addresses`](super::Netlink::addresses).
    AddressesChanged,
    /// Routing-policy rules differ; check that the fail-closed ones are still there.
    RulesChanged,
    /// Notifications were lost: read everything again.
    Overrun,
}

/// A subscription to the changes in one network namespace.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    queue: VecDeque<Event>,
}

impl Monitor {
    /// Subscribes in the network namespace of the calling thread.
    pub fn connect() -> Result<Self> {
        let mut socket = Socket::open()?;
        // Forcing needs CAP_NET_ADMIN; the plain option is capped by net.core.rmem_max. Either is fine.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER_BYTES).is_err()
            && let Err(error) = setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER_BYTES)
        {
            tracing::debug!(%error, "netlink receive buffer stays at its default");
        }
        for group in GROUPS {
            match socket.join(group) {
                Err(error) if group == GROUP_NEXTHOP => {
                    tracing::debug!(%error, "no nexthop notifications in this kernel");
                }
                joined => joined?,
            }
        }
        Ok(Self {
            socket,
            queue: VecDeque::new(),
        })
    }

    /// The next event, or `None` if none came within `timeout`. `Duration::ZERO` never waits.
    ///
    /// Whoever polls the file descriptor calls this with `Duration::ZERO` until `None`: one datagram may
    /// hold several events.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<Event>> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Ok(Some(event));
            }
            match self.fill() {
                Ok(true) => continue,
                Ok(false) => {}
                Err(source) => return Err(failed(source)),
            }
            let wait = match deadline {
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    // Rounded up, so that the last millisecond is waited for and not spun through.
                    PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
                }
                None => PollTimeout::NONE,
            };
            match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], wait) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(failed(errno.into())),
            }
        }
    }

    /// Reads one datagram into the queue. `false`: there was none.
    fn fill(&mut self) -> io::Result<bool> {
        let Self { socket, queue } = self;
        match socket.notifications(|kind, notice| note(queue, event(kind, notice))) {
            Ok(found) => Ok(found.is_some()),
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                note(queue, Some(Event::Overrun));
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn failed(source: io::Error) -> Error {
    Error::Socket {
        operation: "wait for network changes".into(),
        source,
    }
}

fn event(kind: u16, notice: std::result::Result<RouteNetlinkMessage, String>) -> Option<Event> {
    use RouteNetlinkMessage as Message;
    Some(match notice {
        Ok(Message::NewLink(message)) => Event::LinkChanged(Link::from_message(message)?),
        Ok(Message::DelLink(message)) => {
            let link = Link::from_message(message)?;
            Event::LinkGone {
                index: link.index,
                name: link.name,
            }
        }
        Ok(Message::NewNeighbour(message)) => Event::NeighbourChanged(Neighbour::from_message(message)?),
        Ok(Message::DelNeighbour(message)) => {
            let neighbour = Neighbour::from_message(message)?;
            Event::NeighbourGone {
                index: neighbour.index,
                address: neighbour.address,
            }
        }
        Ok(Message::NewRoute(_) | Message::DelRoute(_)) => Event::RoutesChanged,
        Ok(Message::NewAddress(_) | Message::DelAddress(_)) => Event::AddressesChanged,
        Ok(Message::NewRule(_) | Message::DelRule(_)) => Event::RulesChanged,
        Ok(_) => return None,
        Err(_) if matches!(kind, RTM_NEWNEXTHOP | RTM_DELNEXTHOP) => Event::RoutesChanged,
        // Something changed that we cannot read: the tables can still be read as a whole.
        Err(reason) => {
            tracing::warn!(
                reason,
                "a netlink notification does not decode; reading everything again"
            );
            Event::Overrun
        }
    })
}

/// Queues an event. One that says "read it again" is worth no second place in the queue.
fn note(queue: &mut VecDeque<Event>, event: Option<Event>) {
    let Some(event) = event else { return };
    let repeated = match &event {
        Event::RoutesChanged | Event::AddressesChanged | Event::RulesChanged | Event::Overrun => {
            queue.contains(&event)
        }
        _ => false,
    };
    if !repeated {
        queue.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resync_events_are_queued_once() {
        let mut queue = VecDeque::new();
        let gone = Event::NeighbourGone {
            index: 1,
            address: IpAddr::from([10, 0, 0, 1]),
        };
        for event in [
            Event::RoutesChanged,
            gone.clone(),
            Event::RoutesChanged,
            gone.clone(),
        ] {
            note(&mut queue, Some(event));
        }
        assert_eq!(queue, [Event::RoutesChanged, gone.clone(), gone]);
    }

    #[test]
    fn what_does_not_decode_asks_for_a_resync() {
        assert_eq!(event(16, Err("short".into())), Some(Event::Overrun));
        assert_eq!(
            event(RTM_NEWNEXTHOP, Err("unknown".into())),
            Some(Event::RoutesChanged)
        );
    }
}
