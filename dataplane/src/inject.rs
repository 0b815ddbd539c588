//! Frames put back into the data path.
//!
//! User space was handed a whole frame (`Frame::hand_over`, the ring `FRAMES`) and now lets it, or others in its
//! place, arrive once more: on the same interface, in front of the TCX program, which judges it like any other and
//! knows that it was put back (`Work::injected`).
//!
//! How: a packet socket sends the frame *out of* that interface under a mark that only this process and its programs
//! know, and the egress program turns such a frame round (`bpf_redirect` with `BPF_F_INGRESS`). It works on every
//! device, since it meets no driver, for every frame the interface's MTU allows. XDP does not see the frame again.
//! Live XDP frames of a test run would do the same for frames of up to a page only, at the price of a page pool each.
//!
//! Assumes that the programs are attached to the interface; a frame for one that is not attached leaves it as it is,
//! so callers inject only where a frame came from. Refuses frames longer than the MTU (the kernel: `EMSGSIZE`) and
//! never waits: a full socket buffer is an error.

use std::{
    fs::File,
    io::{self, Read as _},
    os::fd::AsRawFd as _,
};

use bulkhead_abi::vlan_bytes;
use nix::sys::socket::{MsgFlags, sendto};

use crate::slow_path::{link_address, packet_socket};

/// Ethernet addresses and type: less is no frame.
const ETHERNET_BYTES: usize = 14;

/// Ethernet addresses.
const STATIONS_BYTES: usize = 12;

/// A mark that nobody guesses; never zero, which is every packet's that has none.
///
/// # Errors
/// If the system's source of randomness cannot be read.
pub fn draw_mark() -> io::Result<u32> {
    let mut source = File::open("/dev/urandom")?;
    loop {
        let mut bytes = [0; 4];
        source.read_exact(&mut bytes)?;
        let mark = u32::from_ne_bytes(bytes);
        if mark != 0 && mark & 0xffff_0000 != bulkhead_abi::SLOW_PATH_MARK & 0xffff_0000 {
            return Ok(mark);
        }
    }
}

/// Puts frames back. One per thread that does.
#[derive(Debug)]
pub struct Injector {
    socket: std::os::fd::OwnedFd,
}

impl Injector {
    /// Opens a socket in the calling thread's network namespace. `mark` is that of the loaded object
    /// ([`crate::bpf::Object::inject_mark`]).
    ///
    /// # Errors
    /// Without CAP_NET_RAW, or without CAP_NET_ADMIN for the mark.
    pub fn open(mark: u32) -> io::Result<Self> {
        Ok(Self {
            socket: packet_socket(mark)?,
        })
    }

    /// Lets `frame`, from its Ethernet header on and with finished checksums, arrive on the interface `ifindex`.
    ///
    /// # Errors
    /// Whatever the kernel says: no such interface, the interface down, the frame longer than its MTU, no room.
    pub fn inject(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        if frame.len() < ETHERNET_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} bytes are no frame", frame.len()),
            ));
        }
        let to = link_address(ifindex, frame);
        sendto(self.socket.as_raw_fd(), frame, &to, MsgFlags::MSG_DONTWAIT)?;
        Ok(())
    }

    /// The same with the VLAN tag that the device had taken off (`FrameHeader::vlan`; 0: none).
    ///
    /// # Errors
    /// As [`Self::inject`].
    pub fn inject_tagged(&self, ifindex: u32, vlan: u32, frame: &[u8]) -> io::Result<()> {
        match frame.split_at_checked(STATIONS_BYTES) {
            Some((stations, rest)) if vlan != 0 => {
                let tagged = [stations, &vlan_bytes(vlan), rest].concat();
                self.inject(ifindex, &tagged)
            }
            _ => self.inject(ifindex, frame),
        }
    }
}
