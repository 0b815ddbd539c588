//! The maximum segment size that a SYN announces, lowered to what fits the way.
//!
//! It says how much its sender can take (RFC 9293, 3.7.1), so less is always allowed and more never. Absent it stays
//! absent: the default is smaller than any MTU. Once per SYN, on the long way.

use bulkhead_abi::{Reason, Settings};
use bulkhead_packet::{checksum, syn_options, tcp_flags};

use crate::{Checksum, Frame, Tables, Work};

/// Lowers the option of a SYN in the packet, if it has one and is to be lowered. A store of its own, ahead of the packet's
/// rewriting: one SYN pays for it, and the ways through the rewriting stay as few as they were.
///
/// # Errors
/// [`Reason::RewriteFailed`] if the packet cannot be changed.
#[inline(always)]
pub(crate) fn clamp<F: Frame, E: Tables>(frame: &mut F, env: &E, work: &mut Work) -> Result<(), Reason> {
    if work.packet.tcp_flags & tcp_flags::SYN == 0 || env.wired() {
        return Ok(());
    }
    let lowered = lower(env, work);
    if lowered == 0 {
        return Ok(());
    }
    store(frame, work, lowered)
}

/// Stores the lowered option.
#[inline(never)]
fn store<F: Frame>(frame: &mut F, work: &mut Work, lowered: u32) -> Result<(), Reason> {
    let checksum = Checksum {
        at: usize::from(work.packet.l4) + 16,
        data: lowered & 0xff_ffff,
        ..Checksum::default()
    };
    if frame.write_back(&mut work.headers, (lowered >> 24) as usize + 2, &checksum) {
        Ok(())
    } else {
        Err(Reason::RewriteFailed)
    }
}

/// Rewrites the option. Returns its offset in the high byte and the change of the packet's sum below; 0: nothing changed.
#[inline(never)]
fn lower<E: Tables>(env: &E, work: &mut Work) -> u32 {
    let most = match env.tcp_mss(work.tables) {
        Settings::MSS_KEEP => return 0,
        Settings::MSS_PATH => {
            // Of both interfaces: data runs against the SYN's direction, and acknowledgements with it. The headers without
            // options, as RFC 9293, 3.7.1 has it.
            let header_bytes = if work.packet.family == 4 { 40 } else { 60 };
            let mtu = if work.ingress.mtu < work.flow.mtu {
                work.ingress.mtu
            } else {
                work.flow.mtu
            };
            mtu.saturating_sub(header_bytes)
        }
        most => most,
    };
    let Some(at) = syn_options(env, &work.headers, &work.packet).segment_at() else {
        return 0;
    };
    let (Some(high), Some(low)) = (work.headers.byte(at), work.headers.byte(at + 1)) else {
        return 0;
    };
    if u32::from(u16::from_be_bytes([high, low])) <= most {
        return 0;
    }
    let [new_high, new_low] = (most as u16).to_be_bytes();
    work.headers.set_byte(at, new_high);
    work.headers.set_byte(at + 1, new_low);
    // At an odd offset the two bytes belong to different words of the sum.
    let (before, after) = if at & 1 == 0 {
        ([high, low], [new_high, new_low])
    } else {
        ([low, high], [new_low, new_high])
    };
    let change = checksum::replace16(0, u16::from_ne_bytes(before), u16::from_ne_bytes(after));
    (at as u32) << 24 | change
}
