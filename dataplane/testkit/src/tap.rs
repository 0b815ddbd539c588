//! Counts a host's own address resolution on one interface, beside and not through the firewall's program.
//!
//! Owns an AF_PACKET socket with a filter that takes what leaves the interface and is ARP, neighbour discovery
//! or multicast listener discovery. Nothing is ever read from the socket: the kernel counts what the filter took,
//! whether the queue had room or not (packet(7), `PACKET_STATISTICS`). Assumes Ethernet framing.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::namespace::Namespace;
use crate::raw_port::bind;

/// `PACKET_STATISTICS` of packet(7).
const PACKET_STATISTICS: libc::c_int = 6;

/// A counter of discovery frames that leave an interface.
#[derive(Debug)]
pub struct Tap {
    socket: OwnedFd,
    interface: String,
    /// Reading the kernel's counter resets it.
    counted: AtomicU64,
}

impl Tap {
    /// Begins to count on an interface of a namespace.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        let link = namespace.netlink()?.link_by_name(interface)?;
        // No protocol until it is filtered and bound, or other frames would be counted meanwhile.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = namespace
            .run(|| socket(AddressFamily::Packet, SockType::Raw, flags, None))
            .with_context(|| format!("cannot open a packet socket in {}", namespace.name()))?;
        attach(&socket, &discovery_filter()).context("cannot set SO_ATTACH_FILTER")?;
        let index = i32::try_from(link.index).context("an interface index beyond 2^31")?;
        bind(&socket, index)
            .with_context(|| format!("cannot bind to {interface} in {}", namespace.name()))?;
        Ok(Self {
            socket,
            interface: interface.to_owned(),
            counted: AtomicU64::new(0),
        })
    }

    /// Frames since the tap was opened.
    pub fn count(&self) -> Result<u64> {
        let new = statistics(&self.socket)
            .with_context(|| format!("cannot read the packet statistics of {}", self.interface))?;
        Ok(self.counted.fetch_add(new, Ordering::Relaxed) + new)
    }
}

/// Classic BPF opcodes (linux/bpf_common.h).
mod op {
    pub(super) const LOAD_WORD: u16 = 0x20;
    pub(super) const LOAD_HALF: u16 = 0x28;
    pub(super) const LOAD_BYTE: u16 = 0x30;
    pub(super) const JUMP: u16 = 0x05;
    pub(super) const JUMP_EQUAL: u16 = 0x15;
    pub(super) const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
    pub(super) const RETURN: u16 = 0x06;
}

/// `SKF_AD_OFF + SKF_AD_PKTTYPE`: what the kernel knows of the packet's direction.
const PACKET_TYPE: u32 = 0xffff_f000 + 4;
/// Offset of the IPv6 next header in the frame, and of the first byte behind that header.
const NEXT_HEADER: u32 = 14 + 6;
const BEHIND_IPV6: u32 = 14 + 40;
/// Behind the hop-by-hop options of a multicast listener report: eight bytes (RFC 3810, section 5).
const BEHIND_HOP_BY_HOP: u32 = BEHIND_IPV6 + 8;
/// Where the filter ends: the frame is taken, or left.
const TAKE: u8 = 16;
const LEAVE: u8 = 17;

/// Takes what leaves and is discovery: ARP, ICMPv6 types 130 to 137 and 143.
fn discovery_filter() -> [libc::sock_filter; 18] {
    let load = |code, at| instruction(code, 0, 0, at);
    // A jump counts the instructions it leaps over; `here` is the number of its own.
    let either = |code, here: u8, value, then: u8, otherwise: u8| {
        instruction(code, then - here - 1, otherwise - here - 1, value)
    };
    let equal = |here, value, then, otherwise| either(op::JUMP_EQUAL, here, value, then, otherwise);
    let at_least =
        |here, value, then, otherwise| either(op::JUMP_GREATER_OR_EQUAL, here, value, then, otherwise);
    [
        load(op::LOAD_WORD, PACKET_TYPE),
        equal(1, u32::from(libc::PACKET_OUTGOING), 2, LEAVE),
        load(op::LOAD_HALF, 12),
        equal(3, 0x0806, TAKE, 4),
        equal(4, 0x86dd, 5, LEAVE),
        load(op::LOAD_BYTE, NEXT_HEADER),
        equal(6, 58, 12, 7),
        equal(7, 0, 8, LEAVE),
        load(op::LOAD_BYTE, BEHIND_IPV6),
        equal(9, 58, 10, LEAVE),
        load(op::LOAD_BYTE, BEHIND_HOP_BY_HOP),
        instruction(op::JUMP, 0, 0, 1),
        load(op::LOAD_BYTE, BEHIND_IPV6),
        equal(13, 143, TAKE, 14),
        at_least(14, 130, 15, LEAVE),
        at_least(15, 138, LEAVE, TAKE),
        load(op::RETURN, 1),
        load(op::RETURN, 0),
    ]
}

const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

#[expect(unsafe_code, reason = "no safe binding attaches a socket filter")]
fn attach(socket: &OwnedFd, filter: &[libc::sock_filter]) -> nix::Result<()> {
    let program = libc::sock_fprog {
        len: filter.len() as libc::c_ushort,
        // The kernel copies the instructions and writes nothing through this pointer.
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the pointer and length describe `program`, whose own pointer and length describe `filter`; both
    // outlive the call.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of_val(&program) as libc::socklen_t,
        )
    };
    Errno::result(outcome).map(drop)
}

#[expect(unsafe_code, reason = "no safe binding reads AF_PACKET statistics")]
fn statistics(socket: &OwnedFd) -> nix::Result<u64> {
    let mut statistics = libc::tpacket_stats {
        tp_packets: 0,
        tp_drops: 0,
    };
    let mut length = size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: the pointer and length describe `statistics`, which outlives the call and is plain numbers.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    Errno::result(outcome)?;
    // `tp_packets` counts what the queue had no room for too (net/packet/af_packet.c, packet_getsockopt).
    Ok(u64::from(statistics.tp_packets))
}
