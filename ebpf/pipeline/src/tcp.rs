//! TCP connections: which packets a connection's state allows, and what they do to it.
//!
//! The state machine of RFC 9293 seen from the middle, simultaneous open and half-close included. Nothing that could be
//! sent blindly changes a state (RFC 5961): a handshake advances by acknowledgements of the very SYN that was seen, a FIN
//! counts inside the window, a reset where the receiver or the sender stands. What an endpoint has to challenge is passed to
//! it and changes nothing here.
//!
//! `window` holds the edges of both sides and judges sequence numbers.

pub(crate) mod segment;
pub(crate) mod window;

use bulkhead_abi::{Flow, Reason, SessionState, flow_flags, tcp_rules};
use bulkhead_packet::{HeaderBuffer, Packet, SynOptions, syn_options, tcp_flags};

use self::window::{SLACK, after, end_of, fits, in_receive_window};
use crate::{Tables, Work};

/// After both FINs a lower sequence number than before begins a new connection only when so much time has passed: the
/// kernel's own TCP_TIMEWAIT_LEN. Sooner it may be an old duplicate (RFC 9293, 3.6.1; RFC 6191).
const TIME_WAIT_NS: u64 = 60_000_000_000;

/// What a packet does to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing but the edges.
    Stay,
    /// The state changes.
    Become(SessionState),
    /// A SYN from which the edges of both directions are taken anew; the state changes.
    Begin(SessionState),
    /// Nothing new: the edges move, but it does not keep the session alive.
    Repeat,
    /// Goes on and counts, but proves nothing: neither edges nor state nor the time it was last seen change.
    Watch,
    /// Goes on though it is outside the window, as configured: keeps the session alive and does nothing else.
    Tolerate,
    /// The old conversation is over and this SYN starts another.
    Restart,
    /// Not allowed in this state.
    Refuse(Reason),
}

/// What a packet leaves behind in its session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Trace {
    /// It is counted, keeps the session alive and moves its direction's edges.
    #[default]
    Edges = 0,
    /// The same, and both directions' edges are taken from the copies in `Work`.
    Both = 1,
    /// It is counted and keeps the session alive.
    Life = 2,
    /// It is counted and moves its direction's edges.
    Quiet = 3,
    /// It is counted.
    Count = 4,
    /// The session is over and the packet begins another.
    Over = 5,
}

impl Step {
    /// Writes the step from `state` to `work.trace` and `work.next_state`.
    ///
    /// # Errors
    /// The reason for which the packet is refused.
    #[inline(always)]
    pub(crate) fn write(self, work: &mut Work, state: SessionState) -> Result<(), Reason> {
        let (trace, next) = match self {
            Self::Stay => (Trace::Edges, state),
            Self::Become(next) => (Trace::Edges, next),
            Self::Begin(next) => (Trace::Both, next),
            Self::Tolerate => (Trace::Life, state),
            Self::Repeat => (Trace::Quiet, state),
            Self::Watch => (Trace::Count, state),
            Self::Restart => (Trace::Over, state),
            Self::Refuse(reason) => return Err(reason),
        };
        work.trace = trace;
        work.next_state = next as u8;
        Ok(())
    }
}

/// Whether this is the SYN of one who opens a connection.
#[inline(always)]
pub(crate) fn opens(packet: &Packet) -> bool {
    packet.tcp_flags & (tcp_flags::SYN | tcp_flags::ACK | tcp_flags::RST | tcp_flags::FIN) == tcp_flags::SYN
}

/// Whether this could be the middle of a connection.
#[inline(always)]
pub(crate) fn is_midstream(packet: &Packet) -> bool {
    packet.tcp_flags & (tcp_flags::SYN | tcp_flags::ACK | tcp_flags::RST | tcp_flags::FIN) == tcp_flags::ACK
}

/// What a SYN says of its scale.
#[inline(always)]
fn announced(options: SynOptions) -> u8 {
    match options.scale() {
        Some(scale) => scale,
        None => Flow::NO_SCALE,
    }
}

/// Edges of the first direction after its first packet.
#[inline(always)]
pub(crate) fn begin<E: Tables>(env: &E, headers: &HeaderBuffer, packet: &Packet, flow: &mut Flow) {
    flow.tcp_end = end_of(packet);
    flow.tcp_limit = flow.tcp_end;
    flow.tcp_window = packet.window;
    if packet.tcp_flags & tcp_flags::SYN != 0 {
        flow.tcp_scale = announced(syn_options(env, headers, packet));
        return;
    }
    // Picked up in mid-stream: its scale is not known, nor whether it has one.
    flow.state = SessionState::TcpMidstream as u8;
    flow.flags |= flow_flags::LIBERAL;
    flow.tcp_scale = window::LARGEST_SCALE;
    flow.tcp_ack = packet.ack;
    flow.tcp_offer = packet
        .ack
        .wrapping_add(u32::from(packet.window) << window::LARGEST_SCALE);
}

/// Edges of the other direction before its first packet, and what follows from them for the first.
#[inline(always)]
pub(crate) fn expect(packet: &Packet, flow: &mut Flow, partner: &mut Flow) {
    partner.tcp_ack = packet.seq;
    if flow.state != SessionState::TcpMidstream as u8 {
        return;
    }
    partner.tcp_scale = window::LARGEST_SCALE;
    partner.tcp_end = packet.ack;
    partner.tcp_limit = flow.tcp_offer;
    partner.tcp_offer = flow
        .tcp_end
        .wrapping_add(u32::from(u16::MAX) << window::LARGEST_SCALE);
    flow.tcp_limit = partner.tcp_offer;
}

/// Takes the edges of both directions from the answer to a SYN: a SYN+ACK, a SYN that crossed it, or in a proxied session
/// what a SYN+ACK was made.
#[inline(never)]
pub(crate) fn answer(packet: &Packet, own: &mut Flow, partner: &mut Flow, options: SynOptions) {
    own.tcp_scale = announced(options);
    own.tcp_end = end_of(packet);
    own.tcp_window = 0;
    let acknowledged = if packet.tcp_flags & tcp_flags::ACK != 0 {
        own.tcp_ack = packet.ack;
        packet.ack
    } else {
        own.tcp_ack.wrapping_add(1)
    };
    // No SYN's window is scaled.
    own.tcp_offer = acknowledged.wrapping_add(u32::from(packet.window));
    partner.tcp_limit = own.tcp_offer;
    partner.tcp_ack = packet.seq;
    let syn = u32::from(packet.tcp_flags & tcp_flags::SYN != 0);
    partner.tcp_offer = packet
        .seq
        .wrapping_add(syn)
        .wrapping_add(u32::from(partner.tcp_window));
    own.tcp_limit = partner.tcp_offer;
}

/// Copies what one side's SYN says of both directions: all edges but the end of what was sent.
#[inline(always)]
pub(crate) fn copy_edges(to: &mut Flow, from: &Flow) {
    to.tcp_ack = from.tcp_ack;
    to.tcp_offer = from.tcp_offer;
    to.tcp_limit = from.tcp_limit;
    to.tcp_window = from.tcp_window;
    to.tcp_scale = from.tcp_scale;
}

/// Forgets what counted during the handshake only.
#[inline(always)]
pub(crate) fn settle(own: &mut Flow, partner: &mut Flow) {
    if (own.tcp_scale | partner.tcp_scale) & Flow::NO_SCALE != 0 {
        own.tcp_scale = 0;
        partner.tcp_scale = 0;
    }
    // The window of a SYN is not scaled as those to come are.
    let first = if own.flags & flow_flags::REPLY == 0 {
        own
    } else {
        partner
    };
    if first.tcp_scale != 0 {
        first.tcp_window = 0;
    }
}

/// Whether the packet acknowledges the other side's SYN, and perhaps data behind it, but nothing that was not sent.
#[inline(always)]
fn acknowledges_syn(packet: &Packet, own: &Flow, partner: &Flow) -> bool {
    let sent = partner.tcp_end;
    let beyond = packet.ack.wrapping_sub(own.tcp_ack).wrapping_sub(1);
    packet.tcp_flags & tcp_flags::ACK != 0 && (packet.ack == sent || beyond < sent.wrapping_sub(own.tcp_ack))
}

/// The step a TCP packet takes in the session of `work.flow` and `work.partner`, whose copies get the new edges.
///
/// Goes to `work`: the verifier knows nothing of what is in there, so it does not follow each way to a step on its own.
///
/// # Errors
/// The reason for which the packet is refused.
#[inline(never)]
pub(crate) fn step<E: Tables>(env: &E, work: &mut Work, state: SessionState) -> Result<(), Reason> {
    judge(env, work, state).write(work, state)
}

#[inline(always)]
fn judge<E: Tables>(env: &E, work: &mut Work, state: SessionState) -> Step {
    let Work {
        headers,
        packet,
        flow: own,
        partner,
        tables,
        now_ns,
        ..
    } = work;
    if packet.tcp_flags & tcp_flags::RST != 0 {
        return reset(packet, own, partner, state);
    }
    let liberal = own.flags & flow_flags::LIBERAL != 0 || env.tcp_rules(*tables) & tcp_rules::LIBERAL != 0;
    if packet.is_later_fragment() {
        // What its datagram does to the state the first fragment did; here the segment goes on.
        return if window::fits(packet, own, partner) {
            Step::Stay
        } else if liberal {
            Step::Tolerate
        } else {
            Step::Refuse(Reason::TcpOutOfWindow)
        };
    }
    match state {
        SessionState::TcpMidstream => picked_up(packet, own, partner),
        SessionState::TcpSynSent | SessionState::TcpSynCrossed | SessionState::TcpSynReceived => {
            let options = if packet.tcp_flags & tcp_flags::SYN != 0 {
                syn_options(env, headers, packet)
            } else {
                SynOptions::default()
            };
            handshake(packet, own, partner, state, options, liberal)
        }
        SessionState::TcpClosed => {
            if opens(packet) {
                Step::Restart
            } else {
                Step::Refuse(Reason::SessionClosed)
            }
        }
        state if state.is_open_tcp() => {
            if packet.tcp_flags & tcp_flags::SYN != 0 {
                let seen_ns = own.last_seen_ns.max(partner.last_seen_ns);
                let waited = now_ns.saturating_sub(seen_ns) >= TIME_WAIT_NS;
                late_syn(packet, own, partner, state, liberal, waited)
            } else {
                open_connection(packet, own, partner, state, liberal)
            }
        }
        _ => Step::Refuse(Reason::TcpStateInvalid),
    }
}

/// A packet before the handshake is complete.
#[inline(always)]
fn handshake(
    packet: &Packet,
    own: &mut Flow,
    partner: &mut Flow,
    state: SessionState,
    options: SynOptions,
    liberal: bool,
) -> Step {
    let reply = own.flags & flow_flags::REPLY != 0;
    let syn = packet.tcp_flags & tcp_flags::SYN != 0;
    let ack = packet.tcp_flags & tcp_flags::ACK != 0;
    let proven = acknowledges_syn(packet, own, partner);
    // Its initial sequence number is the one the other side knows, and has not yet acknowledged.
    let repeated = packet.seq == partner.tcp_ack;
    let invalid = Step::Refuse(Reason::TcpStateInvalid);
    match (state, reply) {
        (SessionState::TcpSynSent, false) => {
            if !opens(packet) {
                return invalid;
            }
            if repeated {
                return Step::Stay;
            }
            // Given up and tried again (or the host was restarted): the old one must not be answered any more.
            own.tcp_scale = announced(options);
            own.tcp_end = end_of(packet);
            own.tcp_limit = own.tcp_end;
            own.tcp_window = packet.window;
            partner.tcp_ack = packet.seq;
            Step::Begin(SessionState::TcpSynSent)
        }
        (SessionState::TcpSynSent, true) => {
            if syn && (!ack || proven) {
                answer(packet, own, partner, options);
                return Step::Begin(if ack {
                    SessionState::TcpSynReceived
                } else {
                    SessionState::TcpSynCrossed
                });
            }
            if is_midstream(packet) && packet.payload_bytes == 0 {
                // A peer that still has an older connection answers a SYN with a challenge; the client resets it.
                return Step::Watch;
            }
            invalid
        }
        (_, _) if opens(packet) => {
            if repeated && state == SessionState::TcpSynCrossed {
                Step::Stay
            } else {
                // Repeated, or for the endpoint to challenge (RFC 5961, 4.2; RFC 9293, 3.10.7.4).
                Step::Watch
            }
        }
        (_, false) => {
            if !proven {
                return invalid;
            }
            if syn {
                // The SYN+ACK of a simultaneous open.
                return match state {
                    SessionState::TcpSynReceived => Step::Become(SessionState::TcpEstablished),
                    _ => Step::Stay,
                };
            }
            if state == SessionState::TcpSynReceived {
                complete(packet, own, partner, liberal)
            } else if packet.payload_bytes == 0 {
                // To a crossing SYN that was repeated (RFC 9293, 3.10.7.4: not acceptable, acknowledged).
                Step::Stay
            } else {
                invalid
            }
        }
        (_, true) if syn => {
            let again = state == SessionState::TcpSynReceived && packet.ack == own.tcp_ack;
            if !proven && !again {
                return invalid;
            }
            // The other side has acknowledged this SYN: a simultaneous open is complete.
            let acknowledged = packet.seq.wrapping_add(1) == partner.tcp_ack;
            match (acknowledged && state == SessionState::TcpSynCrossed, repeated) {
                (true, _) => Step::Become(SessionState::TcpEstablished),
                (false, true) => Step::Become(SessionState::TcpSynReceived),
                // Another initial sequence number, and it knows our SYN: servers that keep no state (SYN cookies) may
                // answer so, and one that answers in earnest comes behind a forged SYN.
                (false, false) => {
                    answer(packet, own, partner, options);
                    Step::Begin(SessionState::TcpSynReceived)
                }
            }
        }
        // Data right behind a SYN+ACK (TCP fast open, RFC 7413), or the end of a simultaneous open.
        (SessionState::TcpSynReceived, true) if ack => {
            if fits(packet, own, partner) {
                own.flags |= fin_flag(packet);
                Step::Stay
            } else {
                Step::Refuse(Reason::TcpOutOfWindow)
            }
        }
        // The end of a simultaneous open, unless the first side has acknowledged nothing yet: in an open connection its
        // SYN, sent again, could not be told from one that somebody guessed.
        (_, true) if proven && own.tcp_end == partner.tcp_ack => complete(packet, own, partner, liberal),
        (_, true) if proven => {
            if fits(packet, own, partner) || liberal {
                own.flags |= fin_flag(packet);
                Step::Become(SessionState::TcpSynReceived)
            } else {
                Step::Refuse(Reason::TcpOutOfWindow)
            }
        }
        _ => invalid,
    }
}

/// The packet that completes a handshake: what it acknowledges was checked, its place in the sequence was not.
#[inline(always)]
fn complete(packet: &Packet, own: &mut Flow, partner: &Flow, liberal: bool) -> Step {
    if !fits(packet, own, partner) && !liberal {
        return Step::Refuse(Reason::TcpOutOfWindow);
    }
    own.flags |= fin_flag(packet);
    Step::Become(open_state(packet, own, partner))
}

/// [`flow_flags::FIN_SENT`], if it did.
#[inline(always)]
fn fin_flag(packet: &Packet) -> u8 {
    if packet.tcp_flags & tcp_flags::FIN != 0 {
        flow_flags::FIN_SENT
    } else {
        0
    }
}

/// A session that began with a segment which was not a SYN, before the other side was seen.
#[inline(always)]
fn picked_up(packet: &Packet, own: &mut Flow, partner: &Flow) -> Step {
    if opens(packet) {
        return Step::Restart;
    }
    if packet.tcp_flags & (tcp_flags::SYN | tcp_flags::ACK) != tcp_flags::ACK {
        return Step::Refuse(Reason::TcpStateInvalid);
    }
    if !fits(packet, own, partner) {
        return Step::Refuse(Reason::TcpOutOfWindow);
    }
    if own.flags & flow_flags::REPLY == 0 {
        return Step::Stay;
    }
    own.flags |= fin_flag(packet);
    Step::Become(open_state(packet, own, partner))
}

/// A SYN in a connection that is open or has been.
#[inline(always)]
fn late_syn(
    packet: &Packet,
    own: &mut Flow,
    partner: &Flow,
    state: SessionState,
    liberal: bool,
    waited: bool,
) -> Step {
    if packet.tcp_flags & tcp_flags::ACK != 0 {
        // The handshake's own, repeated because its acknowledgement was lost.
        return if fits(packet, own, partner) {
            Step::Repeat
        } else if liberal {
            Step::Watch
        } else {
            Step::Refuse(Reason::TcpOutOfWindow)
        };
    }
    if matches!(state, SessionState::TcpLastAck | SessionState::TcpTimeWait) {
        // The same ports are used again. A lower number may be an old duplicate: the endpoint answers that, if it still
        // knows the connection (RFC 9293, 3.10.7.4).
        return if waited || after(packet.seq, own.tcp_end) {
            Step::Restart
        } else {
            Step::Watch
        };
    }
    // RFC 5961, 4.2: the endpoint challenges it, and one that was restarted proves by a reset that the connection is no more.
    // Stacks older than that end the connection if the SYN is in their window (RFC 793, page 71); nobody else sends such.
    if !liberal && in_receive_window(packet.seq, partner) {
        Step::Refuse(Reason::TcpSynInWindow)
    } else {
        Step::Watch
    }
}

/// A segment of an open connection.
#[inline(always)]
fn open_connection(
    packet: &Packet,
    own: &mut Flow,
    partner: &Flow,
    state: SessionState,
    liberal: bool,
) -> Step {
    if packet.tcp_flags & tcp_flags::ACK == 0 {
        return Step::Refuse(Reason::TcpStateInvalid);
    }
    // Nothing is sent behind a FIN: one in front of what was sent is an old segment that somebody gave the flag.
    let belated = packet.tcp_flags & tcp_flags::FIN != 0 && after(own.tcp_end, end_of(packet));
    if belated || !fits(packet, own, partner) {
        return if liberal {
            Step::Tolerate
        } else {
            Step::Refuse(Reason::TcpOutOfWindow)
        };
    }
    let repeated = fin_flag(packet) & own.flags != 0;
    own.flags |= fin_flag(packet);
    let next = open_state(packet, own, partner);
    if next != state && state != SessionState::TcpTimeWait {
        Step::Become(next)
    } else if repeated || state == SessionState::TcpTimeWait {
        // Sent again and again it must not hold the session (RFC 7857, section 7).
        Step::Repeat
    } else {
        Step::Stay
    }
}

/// State of an open connection after this packet of `own`, whose flags hold the packet's FIN already.
#[inline(always)]
fn open_state(packet: &Packet, own: &Flow, partner: &Flow) -> SessionState {
    if (own.flags | partner.flags) & flow_flags::FIN_SENT == 0 {
        return SessionState::TcpEstablished;
    }
    if own.flags & partner.flags & flow_flags::FIN_SENT == 0 {
        return SessionState::TcpClosing;
    }
    let unacknowledged = after(partner.tcp_end, packet.ack) && after(partner.tcp_end, own.tcp_ack)
        || after(own.tcp_end, partner.tcp_ack)
        || after(end_of(packet), partner.tcp_ack);
    if unacknowledged {
        SessionState::TcpLastAck
    } else {
        SessionState::TcpTimeWait
    }
}

/// A reset: believed where the receiver or the sender stands (RFC 5961, 3.2, seen from the middle), passed on inside the
/// window for the receiver to challenge, refused elsewhere, liberal or not.
#[inline(always)]
fn reset(packet: &Packet, own: &Flow, partner: &Flow, state: SessionState) -> Step {
    let refused = Step::Refuse(Reason::TcpResetOutOfWindow);
    if state == SessionState::TcpSynSent {
        if own.flags & flow_flags::REPLY == 0 {
            // The client's answer to a challenge by a server with an older connection (RFC 9293, 3.5.2): it goes on trying.
            return Step::Watch;
        }
        // No sequence of this side is known: the acknowledgement proves it (RFC 9293, 3.10.7.3).
        return if acknowledges_syn(packet, own, partner) {
            Step::Become(SessionState::TcpClosed)
        } else {
            refused
        };
    }
    let window = partner.tcp_offer.wrapping_sub(partner.tcp_ack);
    let ahead = packet.seq.wrapping_sub(partner.tcp_ack);
    if own.flags & flow_flags::LIBERAL != 0 {
        // The two sides may count differently, or were not both heard from the beginning.
        let near = ahead.wrapping_add(SLACK) <= window.wrapping_add(2 * SLACK);
        return if near && packet.seq == own.tcp_end && state != SessionState::TcpClosed {
            Step::Become(SessionState::TcpClosed)
        } else {
            Step::Watch
        };
    }
    // The sender stands where its last segment ended, if that is not beyond what the receiver would take, a probe of its
    // closed window and a FIN included.
    let exact = ahead == 0 || (packet.seq == own.tcp_end && ahead <= window.wrapping_add(2));
    if !exact && ahead >= window {
        refused
    } else if exact && state != SessionState::TcpClosed {
        Step::Become(SessionState::TcpClosed)
    } else {
        Step::Watch
    }
}
