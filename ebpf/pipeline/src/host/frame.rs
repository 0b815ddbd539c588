//! A frame as bytes, behaving as a hook's frame does.

use super::std::vec::Vec;

use bulkhead_abi::{FrameKind, LARGE_FRAME_BYTES, SLOW_PATH_BYTES, SlowPathKind};
use bulkhead_packet::{HeaderBuffer, checksum};

use crate::{Checksum, Frame, apply_checksum};

/// Whose frame it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hook {
    /// A socket buffer, whose checksums are finished here.
    #[default]
    Tcx,
    /// An XDP buffer: a checksum the sender left to the hardware is completed, and the slow path cannot be asked.
    Xdp,
}

/// A request to the slow path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What for.
    pub kind: SlowPathKind,
    /// The interface the packet came in on.
    pub ifindex: u32,
    /// The MTU to report.
    pub mtu: u32,
    /// The packet, cut off as the kernel would.
    pub packet: Vec<u8>,
}

/// A frame handed to user space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    /// What for.
    pub kind: FrameKind,
    /// The interface it came in on.
    pub ifindex: u32,
    /// What the kind says.
    pub argument: u32,
    /// The whole frame.
    pub frame: Vec<u8>,
}

/// A frame.
#[derive(Clone, Debug, Default)]
pub struct HostFrame {
    /// Its bytes, from the Ethernet header on.
    pub bytes: Vec<u8>,
    /// Payload bytes of one segment if it is an aggregate, else 0.
    pub gso_segment_bytes: u32,
    /// Whose it is.
    pub hook: Hook,
    /// What the slow path was asked.
    pub asked: Vec<Asked>,
    /// What user space was handed.
    pub handed: Vec<Handed>,
    /// Copies sent meanwhile: the interface, and the frame as it was.
    pub copies: Vec<(u32, Vec<u8>)>,
    /// The interface on which XDP noted that it screened the packet.
    pub screened: Option<u32>,
    /// There is no place for such a note.
    pub no_notes: bool,
}

impl HostFrame {
    /// A frame of a hook.
    #[must_use]
    pub fn new(hook: Hook, bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.to_vec(),
            hook,
            ..Self::default()
        }
    }
}

impl Frame for HostFrame {
    fn bytes(&self) -> u32 {
        self.bytes.len() as u32
    }

    fn gso_segment_bytes(&self) -> u32 {
        self.gso_segment_bytes
    }

    fn write_back(&mut self, headers: &mut HeaderBuffer, end: usize, checksum: &Checksum) -> bool {
        let mut end = end;
        if checksum.at != 0 {
            // Both hooks change the field wherever it stands; what surrounds it is stored only up to `end`.
            if !apply_checksum(headers, checksum) {
                return false;
            }
            end = end.max(checksum.at + 2);
        }
        match (self.bytes.get_mut(..end), headers.to_bytes().get(..end)) {
            (Some(to), Some(from)) => to.copy_from_slice(from),
            _ => return false,
        }
        true
    }

    fn complete_checksum(
        &mut self,
        headers: &mut HeaderBuffer,
        l4: usize,
        l4_bytes: u32,
        at: usize,
        pseudo: u16,
    ) -> bool {
        if self.hook == Hook::Tcx {
            return true;
        }
        let Some(field) = headers.be16(at) else {
            return false;
        };
        if field.to_be() != pseudo || field == 0 {
            return true;
        }
        let Some(segment) = self.bytes.get(l4..l4 + l4_bytes as usize) else {
            return false;
        };
        let mut sum = 0;
        for pair in segment.chunks(2) {
            sum += u64::from(u16::from_ne_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
        let finished = match !checksum::fold(checksum::fold64(sum)) {
            0 => 0xffff,
            sum => sum,
        };
        headers.set_be16(at, u16::from_be(finished));
        self.bytes[at..at + 2].copy_from_slice(&finished.to_ne_bytes());
        true
    }

    fn replace(&mut self, headers: &mut HeaderBuffer, end: usize, _: usize, _: u16) -> bool {
        let Some(from) = headers.to_bytes().get(..end).map(<[u8]>::to_vec) else {
            return false;
        };
        self.bytes = from;
        self.gso_segment_bytes = 0;
        self.hook == Hook::Tcx
    }

    fn send_copy(&mut self, ifindex: u32) -> bool {
        self.copies.push((ifindex, self.bytes.clone()));
        self.hook == Hook::Tcx
    }

    fn screened(&self, ifindex: u32) -> bool {
        self.hook == Hook::Tcx && self.screened == Some(ifindex)
    }

    fn mark_screened(&mut self, ifindex: u32) -> bool {
        if self.hook == Hook::Tcx || self.no_notes {
            return false;
        }
        self.screened = Some(ifindex);
        true
    }

    fn ask_slow_path(&mut self, kind: SlowPathKind, ifindex: u32, mtu: u32) -> bool {
        if self.hook == Hook::Xdp {
            return false;
        }
        let length = self.bytes.len().min(SLOW_PATH_BYTES);
        self.asked.push(Asked {
            kind,
            ifindex,
            mtu,
            packet: self.bytes[..length].to_vec(),
        });
        true
    }

    fn hand_over(&mut self, kind: FrameKind, ifindex: u32, argument: u32) -> bool {
        if self.hook == Hook::Xdp || self.bytes.len() > LARGE_FRAME_BYTES {
            return false;
        }
        self.handed.push(Handed {
            kind,
            ifindex,
            argument,
            frame: self.bytes.clone(),
        });
        true
    }
}
