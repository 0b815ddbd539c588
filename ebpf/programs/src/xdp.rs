//! The frame as XDP holds it: bytes, nothing else. A checksum the sender left to the hardware is completed here.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::generated::{
        bpf_csum_diff, bpf_xdp_adjust_meta, bpf_xdp_get_buff_len, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
    },
};
use bulkhead_abi::{FrameKind, Reason, SlowPathKind};
use bulkhead_packet::{HEADER_BYTES, HeaderBuffer, LEAD_BYTES, Repeat as _, checksum::fold};
use bulkhead_pipeline::{Checksum, Frame, Tables};
use core::ptr;

use crate::{
    maps,
    tables::{Kernel, between, opaque, screened_mark},
};

/// Bytes summed per step; `bpf_csum_diff` takes at most 512.
pub const CHUNK: usize = 512;

/// Steps: 9,216 bytes, the largest frame an interface with XDP can hold, and one for the odd end.
const CHUNKS: u32 = 19;

/// An XDP buffer.
pub struct XdpFrame {
    xdp: *mut xdp_md,
    bytes: u32,
}

impl XdpFrame {
    /// Wraps the context and copies the frame's first bytes into `headers`. `None` if it has no Ethernet header.
    #[inline(always)]
    pub fn load(xdp: *mut xdp_md, headers: &mut HeaderBuffer) -> Option<Self> {
        // SAFETY: the context is valid while the program runs.
        let bytes = unsafe { bpf_xdp_get_buff_len(xdp) } as u32;
        let mut length = bytes;
        if length > HEADER_BYTES as u32 {
            length = HEADER_BYTES as u32;
        }
        if length < 14 {
            return None;
        }
        // SAFETY: behind the lead the buffer has room for HEADER_BYTES bytes, and `length` is at most that.
        let result = unsafe {
            let to = headers.words.as_mut_ptr().cast::<u8>().add(LEAD_BYTES);
            bpf_xdp_load_bytes(xdp, 0, to.cast(), length)
        };
        headers.len = length;
        if result == 0 {
            Some(Self { xdp, bytes })
        } else {
            None
        }
    }
}

impl Frame for XdpFrame {
    #[inline(always)]
    fn bytes(&self) -> u32 {
        self.bytes
    }

    #[inline(always)]
    fn gso_segment_bytes(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn write_back(&mut self, headers: &mut HeaderBuffer, end: usize, checksum: &Checksum) -> bool {
        let mut end = end;
        if checksum.at != 0 {
            if !bulkhead_pipeline::apply_checksum(headers, checksum) {
                return false;
            }
            if end < checksum.at + 2 {
                end = checksum.at + 2;
            }
        }
        let Some(end) = between(end, 1, HEADER_BYTES) else {
            return false;
        };
        // SAFETY: `end` is at most the buffer's length.
        let result = unsafe {
            let from = headers.words.as_mut_ptr().cast::<u8>().add(LEAD_BYTES);
            bpf_xdp_store_bytes(self.xdp, 0, from.cast(), end as u32)
        };
        result == 0
    }

    #[inline(always)]
    fn complete_checksum(
        &mut self,
        headers: &mut HeaderBuffer,
        l4: usize,
        l4_bytes: u32,
        at: usize,
        pseudo: u16,
    ) -> bool {
        let Some(field) = headers.be16(at) else {
            return false;
        };
        // Zero is "none" for UDP, and no pseudo header sums to zero.
        if field.to_be() != pseudo || field == 0 {
            return true;
        }
        complete(self.xdp, headers, l4 as u32, l4_bytes, at as u32)
    }

    #[inline(always)]
    fn replace(&mut self, _: &mut HeaderBuffer, _: usize, _: usize, _: u16) -> bool {
        // XDP answers nobody: it does not know policy.
        false
    }

    #[inline(always)]
    fn send_copy(&mut self, _: u32) -> bool {
        false
    }

    #[inline(always)]
    fn screened(&self, _: u32) -> bool {
        // This is where it is done first.
        false
    }

    #[inline(always)]
    fn mark_screened(&mut self, ifindex: u32) -> bool {
        const BYTES: usize = size_of::<u32>();
        // SAFETY: the context is valid; a driver without metadata refuses.
        if unsafe { bpf_xdp_adjust_meta(self.xdp, -(BYTES as i32)) } != 0 {
            return false;
        }
        // SAFETY: the context is valid while the program runs.
        let (meta, data) = unsafe { ((*self.xdp).data_meta as usize, (*self.xdp).data as usize) };
        if meta + BYTES > data {
            return false;
        }
        // SAFETY: the bytes lie between the metadata's start and its end, as was just compared.
        unsafe { (meta as *mut u32).write_unaligned(screened_mark(ifindex)) };
        true
    }

    #[inline(always)]
    fn ask_slow_path(&mut self, _: SlowPathKind, _: u32, _: u32) -> bool {
        // XDP settles established sessions only; what needs an answer goes on to TCX.
        false
    }

    #[inline(always)]
    fn hand_over(&mut self, _: FrameKind, _: u32, _: u32) -> bool {
        // As above.
        false
    }
}

/// Sums the segment as it stands (the field holds the pseudo header's sum, so nothing needs adding) and stores the
/// finished checksum in the frame and in the buffer.
#[inline(never)]
fn complete(xdp: *mut xdp_md, headers: &mut HeaderBuffer, l4: u32, l4_bytes: u32, at: u32) -> bool {
    let Some(chunk) = maps::SUM_CHUNK.get_ptr_mut(0) else {
        return false;
    };
    let mut sum = 0u32;
    let mut done = 0u32;
    let mut complete = false;
    Kernel.repeat(CHUNKS, |_| {
        let rest = l4_bytes.wrapping_sub(done);
        if rest == 0 {
            complete = true;
            return true;
        }
        let Some(length) = between(rest.min(CHUNK as u32) as usize, 1, CHUNK) else {
            return true;
        };
        // SAFETY: a per-CPU entry of CHUNK bytes, and `length` is between 1 and CHUNK. Padding to a multiple of four is
        // zeroed before it is summed.
        unsafe {
            let last = opaque((length - 1) & !3) & (CHUNK - 4);
            ptr::write(chunk.cast::<u8>().add(last).cast::<u32>(), 0);
            if bpf_xdp_load_bytes(xdp, l4 + done, chunk.cast(), length as u32) != 0 {
                return true;
            }
            sum = bpf_csum_diff(ptr::null_mut(), 0, chunk.cast(), last as u32 + 4, sum) as u32;
        }
        done += length as u32;
        false
    });
    if !complete {
        return false;
    }
    let mut finished = !fold(sum);
    if finished == 0 {
        finished = 0xffff;
    }
    headers.set_be16(at as usize, u16::from_be(finished));
    let mut bytes = finished.to_ne_bytes();
    // SAFETY: two bytes of stack; the helper checks the offset.
    let stored = unsafe { bpf_xdp_store_bytes(xdp, at, bytes.as_mut_ptr().cast(), 2) };
    Kernel.count(Reason::SLOT_CHECKSUMS_REPAIRED);
    stored == 0
}
