//! Frames in and out of an interface, past every stack: an AF_PACKET socket.
//!
//! Owns the `unsafe` of this crate: `bind` and two `setsockopt`s that have no safe binding. What it sends
//! leaves the interface as if the host had sent it; what it receives is what arrived there, not what the
//! host itself sent.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, SockaddrStorage, recvmsg, send, socket,
};

use crate::effort;
use crate::endpoint::wait;
use crate::namespace::Namespace;

const PACKET_AUXDATA: libc::c_int = 8;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
const TP_STATUS_CSUMNOTREADY: u32 = 1 << 3;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;

/// A GSO packet with its link header.
const BUFFER_BYTES: usize = 70 * 1024;

/// A frame that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    /// The frame, with its VLAN tag put back where the kernel had taken it off.
    pub frame: Vec<u8>,
    /// Whether the transport checksum is still to be completed (`CHECKSUM_PARTIAL`): the packet never left
    /// the machine, and [`verify_checksums`](crate::verify_checksums) has nothing to judge yet.
    pub checksum_pending: bool,
}

/// A socket on one interface.
#[derive(Debug)]
pub struct RawPort {
    socket: OwnedFd,
    mac: [u8; 6],
    interface: String,
}

impl RawPort {
    /// Opens an interface of a namespace.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        let link = namespace.netlink()?.link_by_name(interface)?;
        // No protocol until it is bound, or frames of other interfaces would be queued meanwhile.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = namespace
            .run(|| socket(AddressFamily::Packet, SockType::Raw, flags, None))
            .with_context(|| format!("cannot open a packet socket in {}", namespace.name()))?;
        set_option(&socket, PACKET_AUXDATA).context("cannot set PACKET_AUXDATA")?;
        set_option(&socket, PACKET_IGNORE_OUTGOING).context("cannot set PACKET_IGNORE_OUTGOING")?;
        let index = i32::try_from(link.index).context("an interface index beyond 2^31")?;
        bind(&socket, index)
            .with_context(|| format!("cannot bind to {interface} in {}", namespace.name()))?;
        Ok(Self {
            socket,
            mac: link.mac,
            interface: interface.to_owned(),
        })
    }

    /// The interface's MAC address.
    pub const fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Sends a frame, link header included.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let sent = send(self.socket.as_raw_fd(), frame, MsgFlags::empty())
            .with_context(|| format!("cannot send {} bytes out of {}", frame.len(), self.interface))?;
        ensure!(
            sent == frame.len(),
            "sent {sent} of {} bytes out of {}",
            frame.len(),
            self.interface
        );
        Ok(())
    }

    /// The next frame, or `None` if none came within `timeout`, on a usual machine.
    pub fn receive(&self, timeout: Duration) -> Result<Option<Captured>> {
        self.receive_until(effort::deadline(timeout))
    }

    fn receive_until(&self, deadline: Instant) -> Result<Option<Captured>> {
        loop {
            if let Some(captured) = self.take()? {
                return Ok(Some(captured));
            }
            let waited =
                wait(&self.socket, PollFlags::POLLIN, deadline).context("cannot wait for a frame")?;
            if waited.is_none() {
                return Ok(None);
            }
        }
    }

    /// The next frame that `wanted` accepts; others are dropped.
    pub fn receive_matching(
        &self,
        timeout: Duration,
        wanted: impl Fn(&Captured) -> bool,
    ) -> Result<Option<Captured>> {
        let deadline = effort::deadline(timeout);
        loop {
            match self.receive_until(deadline)? {
                Some(captured) if !wanted(&captured) => {}
                other => return Ok(other),
            }
        }
    }

    /// Drops what has arrived so far. Returns how many frames that were.
    pub fn drain(&self) -> Result<usize> {
        let mut dropped = 0;
        while self.take()?.is_some() {
            dropped += 1;
        }
        Ok(dropped)
    }

    fn take(&self) -> Result<Option<Captured>> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut pieces = [IoSliceMut::new(&mut buffer)];
        let mut control = nix::cmsg_space!([u8; 32]);
        let received = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut pieces,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        );
        let message = match received {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => {
                return Err(errno).with_context(|| format!("cannot receive from {}", self.interface));
            }
        };
        let length = message.bytes;
        let auxiliary = message.cmsgs().ok().and_then(|mut controls| {
            controls.find_map(|control| match control {
                ControlMessageOwned::Unknown(unknown) => Auxiliary::parse(&unknown.data_bytes),
                _ => None,
            })
        });
        buffer.truncate(length);
        let auxiliary = auxiliary.context("a captured frame came without auxiliary data")?;
        if let Some(tag) = auxiliary.tag
            && buffer.len() >= 12
        {
            buffer.splice(12..12, tag);
        }
        Ok(Some(Captured {
            frame: buffer,
            checksum_pending: auxiliary.checksum_pending,
        }))
    }
}

impl AsFd for RawPort {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What matters of `struct tpacket_auxdata`.
struct Auxiliary {
    checksum_pending: bool,
    /// The tag that was taken off: protocol and control information, as on the wire.
    tag: Option<[u8; 4]>,
}

impl Auxiliary {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let status = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
        let (control, protocol) = (half(16)?, half(18)?);
        let protocol = if status & TP_STATUS_VLAN_TPID_VALID != 0 {
            protocol
        } else {
            0x8100
        };
        let ([a, b], [c, d]) = (protocol.to_be_bytes(), control.to_be_bytes());
        Some(Self {
            checksum_pending: status & TP_STATUS_CSUMNOTREADY != 0,
            tag: (status & TP_STATUS_VLAN_VALID != 0).then_some([a, b, c, d]),
        })
    }
}

#[expect(unsafe_code, reason = "no safe binding sets AF_PACKET options")]
fn set_option(socket: &OwnedFd, option: libc::c_int) -> nix::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and length describe `on`, which outlives the call.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    Errno::result(outcome).map(drop)
}

#[expect(unsafe_code, reason = "no safe binding makes a link-layer address")]
pub(crate) fn bind(socket: &OwnedFd, index: i32) -> nix::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::c_ushort,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: the pointer and length describe `address`, which outlives the call, and its family says
    // AF_PACKET, the family of a `sockaddr_ll`.
    let outcome = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as libc::socklen_t,
        )
    };
    Errno::result(outcome).map(drop)
}
