//! The request and reply conversation of one netlink socket.
//!
//! Owns sequence numbers, multipart dumps, acknowledgements and the kernel's extended error texts. Assumes
//! one request in flight. Refuses datagrams that do not come from the kernel, and dumps marked as
//! interrupted (`NLM_F_DUMP_INTR`): they may lack entries that were there all the time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket as RawSocket, SocketAddr};

use super::error::{Error, Result};

/// The kernel never makes a dump datagram larger than 32 KiB; a single oversized message may exceed that.
const RECEIVE_BUFFER_BYTES: usize = 64 * 1024;
/// How often a dump is started again when the table changed under it.
const DUMP_ATTEMPTS: u32 = 8;
/// Length of `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// `NLMSGERR_ATTR_MSG`: the explanation in words.
const ATTR_MESSAGE: u16 = 1;

/// A bound NETLINK_ROUTE socket.
#[derive(Debug)]
pub(super) struct Socket {
    raw: RawSocket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What one datagram contributed to a conversation.
#[derive(Default)]
struct Progress {
    /// The acknowledgement or the end of the dump was in it.
    finished: bool,
    /// The table changed while the kernel walked it.
    interrupted: bool,
}

impl Socket {
    /// Opens and binds, with extended acknowledgements and strict checking where the kernel has them.
    pub(super) fn open() -> Result<Self> {
        let failed = |source| Error::Socket {
            operation: "open a netlink socket".into(),
            source,
        };
        let mut raw = RawSocket::new(NETLINK_ROUTE).map_err(failed)?;
        raw.bind_auto().map_err(failed)?;
        raw.set_cap_ack(true).map_err(failed)?;
        raw.set_ext_ack(true).map_err(failed)?;
        // Linux 4.20. Without it route dumps also carry cached exceptions, which are filtered by their flag.
        if let Err(error) = raw.set_netlink_get_strict_chk(true) {
            tracing::debug!(%error, "no strict netlink checking in this kernel");
        }
        Ok(Self {
            raw,
            sequence: 0,
            buffer: Vec::with_capacity(RECEIVE_BUFFER_BYTES),
        })
    }

    /// Subscribes to a multicast group (`RTNLGRP_*`).
    pub(super) fn join(&mut self, group: u32) -> Result<()> {
        self.raw.add_membership(group).map_err(|source| Error::Socket {
            operation: format!("join netlink group {group}"),
            source,
        })
    }

    /// Sends a request that changes something and waits for the kernel's verdict.
    pub(super) fn change(&mut self, operation: &str, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.send(operation, message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        while !self.receive(operation, |_| ())?.finished {}
        Ok(())
    }

    /// Asks for one object. The kernel answers with it, or with an error.
    pub(super) fn get(
        &mut self,
        operation: &str,
        message: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage> {
        let mut answer = None;
        self.send(operation, message, NLM_F_REQUEST | NLM_F_ACK)?;
        while !self
            .receive(operation, |message| answer = Some(message))?
            .finished
        {}
        answer.ok_or_else(|| Error::Protocol {
            operation: operation.into(),
            reason: "an acknowledgement without the object asked for".into(),
        })
    }

    /// Reads a whole table, consistently.
    pub(super) fn dump(
        &mut self,
        operation: &str,
        message: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut table = Vec::new();
            let mut interrupted = false;
            self.send(operation, message.clone(), NLM_F_REQUEST | NLM_F_DUMP)?;
            loop {
                let progress = self.receive(operation, |message| table.push(message))?;
                interrupted |= progress.interrupted;
                if progress.finished {
                    break;
                }
            }
            if !interrupted {
                return Ok(table);
            }
            tracing::debug!(operation, "the table changed while it was read; reading again");
        }
        Err(Error::Unstable {
            operation: operation.into(),
            attempts: DUMP_ATTEMPTS,
        })
    }

    fn send(&mut self, operation: &str, message: RouteNetlinkMessage, flags: u16) -> Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        let kernel = SocketAddr::new(0, 0);
        let sent = self
            .raw
            .send_to(&bytes, &kernel, 0)
            .map_err(|source| Error::Socket {
                operation: operation.into(),
                source,
            })?;
        debug_assert_eq!(sent, bytes.len(), "a netlink datagram is sent whole");
        Ok(())
    }

    /// Reads one datagram of the conversation and hands out the objects in it.
    fn receive(&mut self, operation: &str, mut object: impl FnMut(RouteNetlinkMessage)) -> Result<Progress> {
        self.fill(0).map_err(|source| Error::Socket {
            operation: operation.into(),
            source,
        })?;
        let mut progress = Progress::default();
        for frame in Frames(&self.buffer) {
            let frame = frame.map_err(|reason| Error::Protocol {
                operation: operation.into(),
                reason,
            })?;
            // An answer to a request that was given up (an interrupted conversation) is not ours.
            if frame.header.sequence_number() != self.sequence {
                continue;
            }
            let flags = frame.header.flags();
            progress.interrupted |= flags & NLM_F_DUMP_INTR != 0;
            match frame.decode() {
                Ok(NetlinkPayload::InnerMessage(message)) => object(message),
                Ok(NetlinkPayload::Done(done)) => {
                    refused(operation, done.code, || extended_message(&done.extended_ack))?;
                    progress.finished = true;
                }
                Ok(NetlinkPayload::Error(error)) => {
                    refused(operation, error.raw_code(), || {
                        acknowledgement_message(&error.header, flags)
                    })?;
                    progress.finished = true;
                }
                Ok(_) => {}
                Err(reason) => tracing::warn!(
                    operation,
                    reason,
                    "skipped a netlink message that does not decode"
                ),
            }
        }
        Ok(progress)
    }

    /// Receives one datagram from the kernel into the buffer.
    fn fill(&mut self, flags: libc::c_int) -> io::Result<()> {
        loop {
            self.buffer.clear();
            match self.raw.recv_from(&mut self.buffer, flags | libc::MSG_TRUNC) {
                Ok((_, sender)) if sender.port_number() != 0 => {
                    tracing::warn!(
                        port = sender.port_number(),
                        "ignored a netlink message not from the kernel"
                    );
                }
                Ok((length, _)) if length > self.buffer.len() => {
                    // Lost for good: the datagram is consumed. Make room for the caller's next attempt.
                    self.buffer.reserve(length);
                    return Err(io::Error::other(format!(
                        "a message of {length} bytes did not fit the buffer"
                    )));
                }
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads one datagram of notifications without waiting. `None`: nothing is there.
    pub(super) fn notifications(
        &mut self,
        mut notice: impl FnMut(u16, std::result::Result<RouteNetlinkMessage, String>),
    ) -> io::Result<Option<()>> {
        match self.fill(libc::MSG_DONTWAIT) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        for frame in Frames(&self.buffer) {
            let frame = frame.map_err(io::Error::other)?;
            let kind = frame.header.message_type();
            match frame.decode() {
                Ok(NetlinkPayload::InnerMessage(message)) => notice(kind, Ok(message)),
                Ok(_) => {}
                Err(reason) => notice(kind, Err(reason)),
            }
        }
        Ok(Some(()))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}

/// One message of a datagram, header checked.
struct Frame<'a> {
    header: NetlinkBuffer<&'a [u8]>,
    bytes: &'a [u8],
}

impl Frame<'_> {
    fn decode(&self) -> std::result::Result<NetlinkPayload<RouteNetlinkMessage>, String> {
        NetlinkMessage::deserialize(self.bytes)
            .map(|message| message.payload)
            .map_err(|error| format!("message type {}: {error}", self.header.message_type()))
    }
}

/// The messages of a datagram, each padded to four bytes.
struct Frames<'a>(&'a [u8]);

impl<'a> Iterator for Frames<'a> {
    type Item = std::result::Result<Frame<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.0;
        if bytes.is_empty() {
            return None;
        }
        let header = match NetlinkBuffer::new_checked(bytes) {
            Ok(header) => header,
            Err(error) => {
                self.0 = &[];
                return Some(Err(error.to_string()));
            }
        };
        let length = header.length() as usize;
        self.0 = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Ok(Frame {
            header,
            bytes: &bytes[..length],
        }))
    }
}

/// Turns a negative errno into an error. Zero and the positive counts some dumps end with are success.
fn refused(operation: &str, code: i32, message: impl FnOnce() -> Option<String>) -> Result<()> {
    if code >= 0 {
        return Ok(());
    }
    Err(Error::Kernel {
        operation: operation.into(),
        errno: -code,
        message: message(),
    })
}

/// The explanation behind an acknowledgement: the echoed request comes first, whole unless capped.
fn acknowledgement_message(payload: &[u8], flags: u16) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let echoed = if flags & NLM_F_CAPPED != 0 {
        HEADER_BYTES
    } else {
        let length: [u8; 4] = payload.get(..4)?.try_into().ok()?;
        (u32::from_ne_bytes(length) as usize).next_multiple_of(4)
    };
    extended_message(payload.get(echoed..)?)
}

fn extended_message(attributes: &[u8]) -> Option<String> {
    NlasIterator::new(attributes)
        .flatten()
        .find(|attribute| attribute.kind() == ATTR_MESSAGE)
        .map(|attribute| {
            let text = attribute.value();
            let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
            String::from_utf8_lossy(&text[..end]).into_owned()
        })
}
