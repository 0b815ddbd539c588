//! The frame as TCX holds it: a socket buffer that knows how far its checksum has come.

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_RECOMPUTE_CSUM},
    helpers::generated::{
        bpf_clone_redirect, bpf_csum_update, bpf_l4_csum_replace, bpf_skb_change_tail, bpf_skb_load_bytes,
        bpf_skb_store_bytes,
    },
};
use bulkhead_abi::{
    FrameHeader, FrameKind, LARGE_FRAME_BYTES, SLOW_PATH_BYTES, SMALL_FRAME_BYTES, SlowPathKind,
    SlowPathRequest, vlan_tag,
};
use bulkhead_packet::{ETHERNET_BYTES, HEADER_BYTES, HeaderBuffer, LEAD_BYTES};
use bulkhead_pipeline::{Checksum, Frame};
use core::ptr;

use crate::{
    maps,
    tables::{between, screened_mark},
};

/// `BPF_F_PSEUDO_HDR`: the change concerns the pseudo header, which an unfinished checksum holds already.
const PSEUDO_HEADER: u64 = 1 << 4;
/// `BPF_F_MARK_MANGLED_0`: zero means "no checksum" and stays; a result of zero is sent as all ones.
const MANGLED_ZERO: u64 = 1 << 5;

/// A socket buffer.
pub struct SkbFrame {
    skb: *mut __sk_buff,
}

impl SkbFrame {
    /// Wraps the context and copies the frame's first bytes into `headers`. `None` if the kernel cannot read them.
    #[inline(always)]
    pub fn load(skb: *mut __sk_buff, headers: &mut HeaderBuffer) -> Option<Self> {
        let frame = Self { skb };
        let mut length = frame.bytes();
        if length > HEADER_BYTES as u32 {
            length = HEADER_BYTES as u32;
        }
        if length < 14 {
            return None;
        }
        // SAFETY: behind the lead the buffer has room for HEADER_BYTES bytes, and `length` is at most that.
        let result = unsafe {
            let to = headers.words.as_mut_ptr().cast::<u8>().add(LEAD_BYTES);
            bpf_skb_load_bytes(skb.cast(), 0, to.cast(), length)
        };
        headers.len = length;
        if result == 0 { Some(frame) } else { None }
    }

    /// The frame that an earlier stage loaded.
    #[inline(always)]
    pub fn again(skb: *mut __sk_buff) -> Self {
        Self { skb }
    }

    /// Whether the layer 4 checksum at `at` is left to be finished on the way out (`CHECKSUM_PARTIAL`). No field says so
    /// to a program, but a change of bytes the checksum covers leaves an unfinished one alone. `None`: it cannot be read.
    #[inline(always)]
    fn is_unfinished(&mut self, at: usize) -> Option<bool> {
        let (mut before, mut after) = (0u16, 0u16);
        // SAFETY: two bytes of stack each; the helpers check the offset. The field is put back as it was.
        unsafe {
            if bpf_skb_load_bytes(self.skb.cast(), at as u32, (&raw mut before).cast(), 2) != 0
                || bpf_l4_csum_replace(self.skb, at as u32, 0, 1, 0) != 0
                || bpf_skb_load_bytes(self.skb.cast(), at as u32, (&raw mut after).cast(), 2) != 0
                || bpf_skb_store_bytes(self.skb, at as u32, (&raw const before).cast(), 2, 0) != 0
            {
                return None;
            }
        }
        Some(before == after)
    }

    /// The VLAN tag that the device took off, as [`vlan_tag`] makes it; 0: none.
    #[inline(always)]
    pub fn vlan(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe {
            if (*self.skb).vlan_present == 0 {
                0
            } else {
                // The low half holds two bytes in network order.
                let ether_type = u16::from_be((*self.skb).vlan_proto as u16);
                vlan_tag(ether_type, (*self.skb).vlan_tci as u16)
            }
        }
    }

    /// Stores the frame's bytes `from..to` of the buffer.
    #[inline(always)]
    fn store(&mut self, headers: &HeaderBuffer, from: usize, to: usize, flags: u64) -> bool {
        let Some(from) = between(from, 0, HEADER_BYTES - 1) else {
            return false;
        };
        let Some(length) = between(to.wrapping_sub(from), 1, HEADER_BYTES) else {
            return false;
        };
        // SAFETY: the range starts inside the buffer, and `Work` continues for more than HEADER_BYTES behind it, which
        // is all the verifier asks; that it ends inside the buffer too is the pipeline's arithmetic (l4 + 18 at most).
        let result = unsafe {
            bpf_skb_store_bytes(
                self.skb,
                from as u32,
                headers.words.as_ptr().cast::<u8>().add(LEAD_BYTES + from).cast(),
                length as u32,
                flags,
            )
        };
        result == 0
    }
}

impl Frame for SkbFrame {
    #[inline(always)]
    fn bytes(&self) -> u32 {
        // SAFETY: the context is valid while the program runs.
        unsafe { (*self.skb).len }
    }

    #[inline(always)]
    fn gso_segment_bytes(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb).gso_size }
    }

    #[inline(always)]
    fn write_back(&mut self, headers: &mut HeaderBuffer, end: usize, checksum: &Checksum) -> bool {
        if checksum.at == 0 || checksum.at >= end {
            if !self.store(headers, 0, end, 0) {
                return false;
            }
        } else {
            // The checksum lies inside the range: store around it, the helper below changes it in place.
            if !self.store(headers, 0, checksum.at, 0) || !self.store(headers, checksum.at + 2, end, 0) {
                return false;
            }
        }
        if checksum.at != 0 {
            let flags = if checksum.udp { MANGLED_ZERO } else { 0 };
            // SAFETY: offsets are checked by the helper. Ports first: that change is skipped where the sum is unfinished.
            let data = unsafe {
                bpf_l4_csum_replace(self.skb, checksum.at as u32, 0, u64::from(checksum.data), flags)
            };
            if data != 0 {
                return false;
            }
            if checksum.pseudo != 0 {
                // SAFETY: as above.
                let pseudo = unsafe {
                    let flags = flags | PSEUDO_HEADER;
                    bpf_l4_csum_replace(self.skb, checksum.at as u32, 0, u64::from(checksum.pseudo), flags)
                };
                if pseudo != 0 {
                    return false;
                }
            }
        }
        let mut unbalanced = checksum.unbalanced;
        if checksum.ipv6 {
            // The helper took the pseudo header's change off the hardware's sum of the packet, which is right for IPv4,
            // whose header checksum moves the other way, and wrong here.
            unbalanced = bulkhead_packet::checksum::add(unbalanced, checksum.pseudo);
        }
        if unbalanced != 0 {
            // SAFETY: no preconditions; refused (and not needed) unless the hardware summed the whole packet.
            unsafe { bpf_csum_update(self.skb, unbalanced) };
        }
        true
    }

    #[inline(always)]
    fn complete_checksum(&mut self, _: &mut HeaderBuffer, _: usize, _: u32, _: usize, _: u16) -> bool {
        // The socket buffer carries the mark along.
        true
    }

    #[inline(always)]
    fn replace(&mut self, headers: &mut HeaderBuffer, end: usize, at: usize, pseudo: u16) -> bool {
        match self.is_unfinished(at) {
            Some(true) => headers.set_be16(at, u16::from_be(pseudo)),
            Some(false) => {}
            None => return false,
        }
        // SAFETY: the context is valid; the helper keeps the marks of an unfinished checksum, whose place does not change, and
        // refuses lengths that would cut it off.
        if unsafe { bpf_skb_change_tail(self.skb, end as u32, 0) } != 0 {
            return false;
        }
        // The stations are not part of what the hardware may have summed.
        self.store(headers, 0, ETHERNET_BYTES, 0)
            && self.store(headers, ETHERNET_BYTES, end, u64::from(BPF_F_RECOMPUTE_CSUM))
    }

    #[inline(always)]
    fn send_copy(&mut self, ifindex: u32) -> bool {
        // SAFETY: the context is valid and `mark` writable; see REDIRECTED_MARK.
        unsafe { (*self.skb).mark = crate::REDIRECTED_MARK };
        // SAFETY: an unknown interface loses the copy only.
        unsafe { bpf_clone_redirect(self.skb, ifindex, 0) == 0 }
    }

    #[inline(always)]
    fn screened(&self, ifindex: u32) -> bool {
        // SAFETY: the context is valid while the program runs.
        let (meta, data) = unsafe { ((*self.skb).data_meta as usize, (*self.skb).data as usize) };
        // SAFETY: the bytes lie between the metadata's start and its end, as is compared first.
        meta + size_of::<u32>() <= data
            && unsafe { (meta as *const u32).read_unaligned() } == screened_mark(ifindex)
    }

    #[inline(always)]
    fn mark_screened(&mut self, _: u32) -> bool {
        // Nobody comes after this program.
        false
    }

    #[inline(always)]
    fn ask_slow_path(&mut self, kind: SlowPathKind, ifindex: u32, mtu: u32) -> bool {
        let Some(mut entry) = maps::SLOW_PATH.reserve::<SlowPathRequest>(0) else {
            return false;
        };
        let request = entry.as_mut_ptr();
        let mut length = self.bytes();
        if length > SLOW_PATH_BYTES as u32 {
            length = SLOW_PATH_BYTES as u32;
        }
        if length < 14 {
            entry.discard(0);
            return false;
        }
        // SAFETY: the reservation is exactly one SlowPathRequest, exclusively ours until submitted; bytes of `packet`
        // beyond `length` stay as the ring buffer had them and are never read by user space.
        let result = unsafe {
            (&raw mut (*request).kind).write(kind as u32);
            (&raw mut (*request).ifindex).write(ifindex);
            (&raw mut (*request).mtu).write(mtu);
            (&raw mut (*request).length).write(length);
            (&raw mut (*request).vlan).write(self.vlan());
            bpf_skb_load_bytes(
                self.skb.cast(),
                0,
                ptr::from_mut(&mut (*request).packet).cast(),
                length,
            )
        };
        if result == 0 {
            entry.submit(0);
            true
        } else {
            entry.discard(0);
            false
        }
    }

    #[inline(always)]
    fn hand_over(&mut self, kind: FrameKind, ifindex: u32, argument: u32) -> bool {
        let header = FrameHeader {
            kind: kind as u32,
            ifindex,
            argument,
            length: self.bytes(),
            vlan: self.vlan(),
            segment: self.gso_segment_bytes(),
        };
        if header.length <= SMALL_FRAME_BYTES as u32 {
            copy_out::<SMALL_FRAME_BYTES>(self.skb, &header)
        } else {
            copy_out::<LARGE_FRAME_BYTES>(self.skb, &header)
        }
    }
}

/// An entry of the ring of frames.
#[repr(C)]
struct Entry<const N: usize> {
    header: FrameHeader,
    frame: [u8; N],
}

/// Copies the frame, of at most `N` bytes, into the ring. The kernel reserves only sizes known when it loads a program.
#[inline(never)]
fn copy_out<const N: usize>(skb: *mut __sk_buff, header: &FrameHeader) -> bool {
    let Some(length) = between(header.length as usize, 14, N) else {
        return false;
    };
    let Some(mut reserved) = maps::FRAMES.reserve::<Entry<N>>(0) else {
        return false;
    };
    let entry = reserved.as_mut_ptr();
    // SAFETY: the reservation is exactly one entry, exclusively ours until submitted, and `length` is at most what its
    // frame has room for; bytes behind it stay as the ring had them and are never read by user space.
    let result = unsafe {
        (&raw mut (*entry).header).write(*header);
        bpf_skb_load_bytes(skb.cast(), 0, (&raw mut (*entry).frame).cast(), length as u32)
    };
    if result == 0 {
        reserved.submit(0);
        true
    } else {
        reserved.discard(0);
        false
    }
}
