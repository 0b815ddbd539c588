//! TCP state: what a packet does to a session, and whether a reset is to be believed.
//!
//! Each direction keeps its own edges (highest sequence sent, highest acknowledgement, window), so that an ordinary
//! packet touches one flow; only SYN, FIN and RST look at the partner.

use bulkhead_abi::{Flow, Reason, SessionState, flow_flags};
use bulkhead_packet::{Packet, tcp_flags};

/// Whether `a` comes after `b` in sequence space (RFC 9293, section 3.4).
#[inline(always)]
fn after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

/// The sequence number after this packet: SYN and FIN count one each.
#[inline(always)]
pub(crate) fn end_of(packet: &Packet) -> u32 {
    let flags = packet.tcp_flags;
    packet
        .seq
        .wrapping_add(packet.payload_bytes)
        .wrapping_add(u32::from(flags & tcp_flags::SYN != 0))
        .wrapping_add(u32::from(flags & tcp_flags::FIN != 0))
}

/// Moves this direction's edges on.
#[inline(always)]
pub(crate) fn track(flow: &mut Flow, packet: &Packet) {
    // A reset's numbers prove nothing yet; letting them move the edges would let a forged one open the window.
    if packet.tcp_flags & tcp_flags::RST != 0 {
        return;
    }
    let end = end_of(packet);
    if flow.tcp_end == 0 || after(end, flow.tcp_end) {
        flow.tcp_end = end;
    }
    if packet.tcp_flags & tcp_flags::ACK != 0 {
        if flow.tcp_ack == 0 || after(packet.ack, flow.tcp_ack) {
            flow.tcp_ack = packet.ack;
        }
        flow.tcp_window = packet.window;
    }
}

/// How far a reset is to be believed (RFC 5961, section 3.2, seen from the middle).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    /// Exactly where the receiver or the sender stands: ends the session.
    Exact,
    /// Inside the window: passed on, the receiver will challenge it; the session lives.
    InWindow,
    /// Outside: dropped.
    OutOfWindow,
}

/// Judges a reset of the direction `own`, whose receiver is the sender of `partner`.
#[inline(always)]
pub(crate) fn judge_reset(packet: &Packet, own: &Flow, partner: &Flow, state: SessionState) -> Reset {
    let seq = packet.seq;
    if state == SessionState::TcpSynSent && own.tcp_end == 0 {
        // The answer to a SYN: no sequence of this side is known, the acknowledgement proves it (RFC 9293, 3.10.7.3).
        let proven = packet.tcp_flags & tcp_flags::ACK != 0 && packet.ack == partner.tcp_end;
        return if proven { Reset::Exact } else { Reset::OutOfWindow };
    }
    let window = (u32::from(partner.tcp_window) << (partner.tcp_scale & 15)).max(1);
    let ahead = seq.wrapping_sub(partner.tcp_ack);
    // Where the sender stands counts only within reach of what the receiver acknowledged: anybody who knows the tuple
    // can move the sender's edge with a forged segment, and would then forge the reset to fit it.
    let near = partner.tcp_ack == 0 || ahead <= window;
    if (partner.tcp_ack != 0 && ahead == 0) || (own.tcp_end != 0 && seq == own.tcp_end && near) {
        return Reset::Exact;
    }
    if partner.tcp_ack != 0 && ahead < window {
        Reset::InWindow
    } else {
        Reset::OutOfWindow
    }
}

/// What a packet does to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing but the edges.
    Stay,
    /// The state changes.
    Become(SessionState),
    /// The handshake is complete.
    Establish,
    /// The old conversation is over and this SYN starts another.
    Restart,
    /// Not allowed in this state.
    Refuse(Reason),
}

/// The step a TCP packet of direction `own` takes. `partner` is the other direction.
pub(crate) fn step(packet: &Packet, own: &Flow, partner: &Flow, state: SessionState) -> Step {
    let flags = packet.tcp_flags;
    let reply = own.flags & flow_flags::REPLY != 0;
    let syn = flags & tcp_flags::SYN != 0;
    let ack = flags & tcp_flags::ACK != 0;
    if flags & tcp_flags::RST != 0 {
        if state == SessionState::TcpClosed {
            return Step::Stay;
        }
        return match judge_reset(packet, own, partner, state) {
            Reset::Exact => Step::Become(SessionState::TcpClosed),
            Reset::InWindow => Step::Stay,
            Reset::OutOfWindow => Step::Refuse(Reason::TcpResetOutOfWindow),
        };
    }
    let opens = syn && !ack;
    match state {
        SessionState::TcpSynSent if reply => {
            if syn && (!ack || packet.ack == partner.tcp_end) {
                // SYN+ACK, or the SYN of a simultaneous open (RFC 9293, 3.5).
                Step::Become(SessionState::TcpSynReceived)
            } else if ack && !syn && packet.payload_bytes == 0 {
                // A peer that still has an older connection answers a SYN with a challenge; the client resets it.
                Step::Stay
            } else {
                Step::Refuse(Reason::TcpStateInvalid)
            }
        }
        SessionState::TcpSynSent => {
            if opens {
                Step::Stay
            } else {
                Step::Refuse(Reason::TcpStateInvalid)
            }
        }
        SessionState::TcpSynReceived => {
            if syn {
                // Repeated SYN or SYN+ACK, or the SYN+ACK of a simultaneous open.
                Step::Stay
            } else if ack && (!reply || own.tcp_end != 0) {
                // The SYN+ACK acknowledged, or a part of what a server sent right behind it (TCP fast open).
                if partner.tcp_end.wrapping_sub(packet.ack) <= u32::from(u16::MAX) {
                    if reply { Step::Stay } else { Step::Establish }
                } else {
                    Step::Refuse(Reason::TcpStateInvalid)
                }
            } else {
                Step::Refuse(Reason::TcpStateInvalid)
            }
        }
        SessionState::TcpEstablished | SessionState::TcpClosing => {
            let both_closed = own.flags & partner.flags & flow_flags::FIN_SENT != 0;
            if opens {
                // An open connection challenges the SYN itself (RFC 5961, 4.2); a finished one may be reused.
                if both_closed && !reply {
                    Step::Restart
                } else {
                    Step::Stay
                }
            } else if flags & tcp_flags::FIN != 0 {
                Step::Become(SessionState::TcpClosing)
            } else if ack {
                Step::Stay
            } else {
                Step::Refuse(Reason::TcpStateInvalid)
            }
        }
        SessionState::TcpClosed => {
            if opens && !reply {
                Step::Restart
            } else {
                Step::Refuse(Reason::SessionClosed)
            }
        }
        _ => Step::Refuse(Reason::TcpStateInvalid),
    }
}
