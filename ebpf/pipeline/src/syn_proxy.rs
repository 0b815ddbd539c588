//! SYN cookies: while a destination is under attack, a SYN to it that policy permits costs no state.
//!
//! Owns the handshake with both sides and the numbers in between. Three steps, each one packet:
//! 1. `challenge`: the SYN becomes a SYN+ACK whose sequence number is a cookie (RFC 4987, section 3.6) and goes back the
//!    way it came. Its window is zero: a client that has nothing it may send loses nothing while the server is asked.
//! 2. `proves`, `become_syn`: the acknowledgement that proves the cookie opens a session like a SYN would, and becomes
//!    one. Its options were never kept: no window scale, SACK or timestamps, so there are none to translate later.
//! 3. `step`: the server's SYN+ACK is acknowledged in the client's place and becomes the window update that lets the
//!    client speak. From then on the session is an ordinary one whose sequence numbers differ by [`Flow::tcp_delta`].
//!
//! Numbers in the flows, hence all checks of TCP, are those the *server* sees: the client's acknowledgements are
//! translated when they come in, the server's sequence numbers when they leave.
//!
//! Assumes that the caller knows whether policy permits. Refuses IPv4 options and IPv6 extension headers during the
//! handshake: the kernel makes cookies over plain headers.

use bulkhead_abi::{Flow, Reason, Screen, ScreenKey, SessionState, Settings, flow_flags, protocol};
use bulkhead_packet::{ETHERNET_BYTES, HeaderBuffer, Packet, SynOptions, checksum, tcp_flags};

use crate::{
    Action, Checksum, Frame, NO_COOKIE, Tables, Verdict, Work, related,
    session::{self, table_of},
    tcp::{self, Step},
};

/// How long a destination counts as under attack after the last second in which too many SYNs came. Acknowledgements that
/// may prove a cookie are looked at that long.
pub(crate) const ATTACK_NS: u64 = 60_000_000_000;

/// How long SYNs are still challenged after that second.
const LINGER_NS: u64 = 2_000_000_000;

/// Hop limit of what this module sends in somebody's place.
const OWN_TTL: u8 = 64;

/// TCP header with no option but the segment size.
const SYN_BYTES: u8 = 24;

/// Flags that say what a segment is.
const CONTROL: u8 = tcp_flags::SYN | tcp_flags::ACK | tcp_flags::RST | tcp_flags::FIN;

/// Whether the packet's destination is under attack from a zone, and would be `ahead_ns` from now.
#[inline(always)]
fn under_attack<E: Tables>(env: &E, work: &Work, zone: u8, ahead_ns: u64) -> bool {
    let key = ScreenKey {
        subject: ScreenKey::subject(Screen::SynFlood, zone, work.packet.family),
        address_be: work.packet.destination_be,
    };
    match env.rate_state(&key) {
        Some(state) => work.now_ns + ahead_ns < state.until_ns,
        None => false,
    }
}

/// Bytes of layers 3 and 4 in front of the options.
#[inline(always)]
fn plain_header_bytes(family: u8) -> u32 {
    if family == 4 { 40 } else { 60 }
}

/// Where the TCP header of a plain packet begins. (Two constants: the verifier could make nothing of the packet's own
/// field, of which the compiler knows that it is one of them.)
#[inline(always)]
fn tcp_at(family: u8) -> usize {
    if family == 4 {
        ETHERNET_BYTES + 20
    } else {
        ETHERNET_BYTES + 40
    }
}

/// Whether nothing stands between the layer 3 header and TCP.
#[inline(always)]
fn is_plain(packet: &Packet) -> bool {
    usize::from(packet.l4) == tcp_at(packet.family) && packet.fragment == 0
}

/// The largest segment that `mss` and an MTU allow.
#[inline(always)]
fn segment_bytes(mss: u32, mtu: u32, family: u8) -> u32 {
    mss.min(mtu.saturating_sub(plain_header_bytes(family)))
}

/// Answers a permitted SYN with a cookie if its destination is under attack.
#[inline(always)]
pub(crate) fn challenge<F: Frame, E: Tables>(frame: &mut F, env: &E, work: &mut Work) -> Option<Verdict> {
    let is_syn = work.packet.protocol == protocol::TCP && work.packet.tcp_flags & CONTROL == tcp_flags::SYN;
    if is_syn && under_attack(env, work, work.question.from_zone, ATTACK_NS - LINGER_NS) {
        Some(answer_syn(frame, env, work))
    } else {
        None
    }
}

#[inline(never)]
fn answer_syn<F: Frame, E: Tables>(frame: &mut F, env: &E, work: &mut Work) -> Verdict {
    let family = work.packet.family;
    if !is_plain(&work.packet) {
        return Verdict::drop(Reason::SynCookieImpossible);
    }
    let tcp_bytes = u32::from(work.packet.tcp_header_bytes);
    work.headers
        .set_word(tcp_at(family) + 4, disguised(work.packet.seq).to_be());
    let made = env.make_cookie(&mut work.headers, family, tcp_bytes);
    if made == NO_COOKIE {
        return Verdict::drop(Reason::SynCookieImpossible);
    }
    // What the client may send; what it can receive is in the cookie.
    let mut mss = segment_bytes((made >> 32) as u32, work.egress.mtu.min(work.ingress.mtu), family);
    match env.tcp_mss(work.tables) {
        Settings::MSS_KEEP | Settings::MSS_PATH => {}
        most if most < mss && !env.wired() => mss = most,
        _ => {}
    }
    let packet = &mut work.packet;
    turn_round(packet);
    packet.ack = packet.seq.wrapping_add(1);
    packet.seq = made as u32;
    packet.tcp_flags = tcp_flags::SYN | tcp_flags::ACK;
    packet.window = 0;
    packet.ttl = OWN_TTL;
    work.headers.swap_stations();
    work.out_ifindex = work.ifindex;
    if !write(frame, work, mss) {
        return Verdict::drop(Reason::RewriteFailed);
    }
    Verdict {
        action: Action::Redirect,
        reason: Reason::SynCookieSent,
    }
}

/// Whether a packet without a session, not a SYN, is an acknowledgement that proves a cookie. Marks it so in `work`, and
/// corrects the sequence number of a window probe, which is one too low (RFC 9293, 3.8.6.1): the first sign of life of
/// a client whose acknowledgement was lost.
#[inline(always)]
pub(crate) fn proves<E: Tables>(env: &E, work: &mut Work, from_zone: u8) -> bool {
    let is_ack = work.packet.protocol == protocol::TCP && work.packet.tcp_flags & CONTROL == tcp_flags::ACK;
    is_ack && under_attack(env, work, from_zone, 0) && check(env, work)
}

#[inline(never)]
fn check<E: Tables>(env: &E, work: &mut Work) -> bool {
    let mut proven = false;
    if is_plain(&work.packet) {
        let seq = work.packet.seq;
        proven = holds(env, work, seq.wrapping_sub(1));
        if !proven && work.packet.payload_bytes <= 1 {
            work.packet.seq = seq.wrapping_add(1);
            proven = holds(env, work, seq);
        }
        if !proven {
            // It may still be a segment from the middle of a connection.
            work.packet.seq = seq;
            let at = tcp_at(work.packet.family) + 4;
            work.headers.set_word(at, seq.to_be());
        }
    }
    if proven {
        work.proven = 1;
        env.count(Reason::SLOT_SYN_COOKIES_ACCEPTED);
    } else {
        env.count(Reason::SLOT_SYN_COOKIES_REFUSED);
    }
    proven
}

/// Whether the packet's acknowledgement is that of a cookie for a client that began with `isn`.
#[inline(always)]
fn holds<E: Tables>(env: &E, work: &mut Work, isn: u32) -> bool {
    let family = work.packet.family;
    // The helper takes the one off that a client's sequence number has moved on by.
    work.headers
        .set_word(tcp_at(family) + 4, disguised(isn).wrapping_add(1).to_be());
    env.proves_cookie(&mut work.headers, family)
}

/// The number a cookie is made over instead of the client's initial sequence number. In the kernel's cookies that and the
/// index of the segment size are terms of one sum, so that a neighbour of the number would pass with another size. Times
/// an odd number, which loses nothing, neighbours are far apart.
#[inline(always)]
fn disguised(isn: u32) -> u32 {
    isn.wrapping_mul(0x9e37_79b1)
}

/// Makes the acknowledgement that proved a cookie the SYN it stands for, as its client would have sent it to a server
/// without options. `work.flow` is not touched. False: the frame could not be changed.
#[inline(never)]
pub(crate) fn become_syn<F: Frame, E: Tables>(frame: &mut F, env: &E, work: &mut Work) -> bool {
    let cookie = work.packet.ack.wrapping_sub(1);
    work.packet.seq = work.packet.seq.wrapping_sub(1);
    work.packet.ack = 0;
    work.packet.tcp_flags = tcp_flags::SYN;
    let family = work.packet.family;
    // Every segment size a cookie can remember gives another cookie (net/ipv4/syncookies.c, net/ipv6/syncookies.c:
    // `msstab`). None fits if the minute has changed since; then the client may be told nothing larger than what every
    // host accepts (RFC 9293, 3.7.1).
    let mut mss = if family == 4 { 536 } else { 1220 };
    compose(work, mss);
    let (seq_at, option_at) = (tcp_at(family) + 4, tcp_at(family) + 20);
    work.headers.set_word(seq_at, disguised(work.packet.seq).to_be());
    let mut i = 0;
    while i < 4 {
        let candidate = match (family, i) {
            (4, 0) => 536,
            (4, 1) => 1300,
            (4, 2) => 1440,
            (4, _) => 1460,
            (_, 0) => 1220,
            (_, 1) => 1420,
            (_, 2) => 1440,
            (_, _) => 8940,
        };
        work.headers.set_word(option_at, mss_option(candidate));
        let made = env.make_cookie(&mut work.headers, family, u32::from(SYN_BYTES));
        if made != NO_COOKIE && made as u32 == cookie {
            mss = candidate;
        }
        i += 1;
    }
    let mss = segment_bytes(mss, work.ingress.mtu, family);
    write(frame, work, mss)
}

/// The flow of a session that a cookie opens. The client expects `expected` next and has room for `window` bytes.
#[inline(always)]
pub(crate) fn mark(flow: &mut Flow, expected: u32, window: u16) {
    flow.flags |= flow_flags::PROXIED;
    flow.tcp_window = window;
    flow.tcp_delta = 0u32.wrapping_sub(expected);
}

/// The step of a packet of a proxied session. May change the packet, and send another.
#[inline(always)]
pub(crate) fn step<F: Frame, E: Tables>(
    frame: &mut F,
    env: &E,
    work: &mut Work,
    state: SessionState,
) -> Result<(), Reason> {
    let flags = work.packet.tcp_flags & CONTROL;
    let waiting = state == SessionState::TcpSynSent;
    if work.flow.flags & flow_flags::REPLY == 0 {
        if waiting && flags & tcp_flags::RST == 0 {
            repeat(frame, env, work, flags)?;
            return Step::Stay.write(work, state);
        }
        if waiting {
            // A client that believes to be connected gives up; one that is still opening would answer a challenge, which it
            // never sees.
            return if work.packet.seq == work.flow.tcp_end {
                Step::Become(SessionState::TcpClosed).write(work, state)
            } else {
                Err(Reason::TcpResetOutOfWindow)
            };
        }
        work.packet.ack = work.packet.ack.wrapping_add(work.flow.tcp_delta);
        return session::step(env, work, state);
    }
    if waiting && flags == tcp_flags::ACK && work.packet.ack != work.partner.tcp_end {
        return if refuse(frame, work) {
            Err(Reason::SynProxyReset)
        } else {
            Err(Reason::RewriteFailed)
        };
    }
    let open = state.is_open_tcp();
    if flags == tcp_flags::SYN | tcp_flags::ACK && (waiting || open) {
        let ours = if waiting {
            work.packet.ack == work.partner.tcp_end
        } else {
            // A server that repeats its SYN+ACK has sent nothing else yet.
            work.packet.seq.wrapping_add(1) == work.flow.tcp_end
        };
        if !ours {
            return Err(Reason::TcpStateInvalid);
        }
        // The client's window: that of the SYN, later what it has offered since.
        let window = if waiting {
            u32::from(work.partner.tcp_window)
        } else {
            work.partner.tcp_offer.wrapping_sub(work.partner.tcp_ack)
        };
        if !acknowledge(frame, work, window.min(u32::from(u16::MAX))) {
            return Err(Reason::RewriteFailed);
        }
        if open {
            return session::step(env, work, state);
        }
        learn(env, work);
        tcp::answer(
            &work.packet,
            &mut work.flow,
            &mut work.partner,
            SynOptions::default(),
        );
        return Step::Become(SessionState::TcpEstablished).write(work, state);
    }
    if waiting && flags & tcp_flags::RST == 0 {
        return Err(Reason::TcpStateInvalid);
    }
    session::step(env, work, state)
}

/// A client's packet before the server has answered: whatever acknowledges our SYN+ACK repeats the SYN, which may have
/// been lost. For a client that says nothing because its server is to speak first, user space puts such a packet back
/// (not on wires, whose stations it does not know).
#[inline(always)]
fn repeat<F: Frame, E: Tables>(frame: &mut F, env: &E, work: &mut Work, flags: u8) -> Result<(), Reason> {
    let expected = 0u32.wrapping_sub(work.flow.tcp_delta);
    if flags != tcp_flags::ACK || work.packet.ack != expected || !is_plain(&work.packet) {
        return Err(Reason::SynProxyWaiting);
    }
    work.packet.seq = work.flow.tcp_end;
    if become_syn(frame, env, work) {
        Ok(())
    } else {
        Err(Reason::RewriteFailed)
    }
}

/// Learns where the server's numbers begin: `work.packet` has the first one behind its SYN.
#[inline(never)]
fn learn<E: Tables>(env: &E, work: &mut Work) {
    let delta = work.flow.tcp_delta.wrapping_sub(work.packet.seq);
    work.flow.tcp_delta = delta;
    work.partner.tcp_delta = 0u32.wrapping_sub(delta);
    let (family, session_id) = (work.packet.family, work.flow.session_id);
    env.with_flow(table_of(work), family, &work.key, |flow| {
        if flow.session_id == session_id {
            flow.tcp_delta = delta;
        }
    });
    let table = session::table(work.partner_half_open);
    env.with_flow(table, family, &work.partner_key, |flow| {
        if flow.session_id == session_id {
            flow.tcp_delta = 0u32.wrapping_sub(delta);
        }
    });
}

/// Acknowledges the server's SYN+ACK in the client's place, whose window is `offered`, and makes it the update of the client's
/// window.
#[inline(never)]
fn acknowledge<F: Frame>(frame: &mut F, work: &mut Work, offered: u32) -> bool {
    if !is_plain(&work.packet) {
        return false;
    }
    let packet = &mut work.packet;
    let (window, ttl) = (packet.window, packet.ttl);
    let (seq, ack) = (packet.seq.wrapping_add(1), packet.ack);
    turn_round(packet);
    packet.seq = ack;
    packet.ack = seq;
    packet.tcp_flags = tcp_flags::ACK;
    packet.window = offered as u16;
    packet.ttl = OWN_TTL;
    work.headers.swap_stations();
    if !write(frame, work, 0) || !frame.send_copy(work.ifindex) {
        return false;
    }
    let packet = &mut work.packet;
    turn_round(packet);
    packet.seq = seq;
    packet.ack = ack;
    packet.window = window;
    packet.ttl = ttl;
    work.headers.swap_stations();
    write(frame, work, 0)
}

/// Tells a server that answers the SYN with something else to forget what it remembers (RFC 9293, 3.10.7.3). The client
/// cannot, as it believes to be connected; its next packet repeats the SYN.
#[inline(never)]
fn refuse<F: Frame>(frame: &mut F, work: &mut Work) -> bool {
    if !is_plain(&work.packet) {
        return false;
    }
    let packet = &mut work.packet;
    turn_round(packet);
    packet.seq = packet.ack;
    packet.ack = 0;
    packet.tcp_flags = tcp_flags::RST;
    packet.window = 0;
    packet.ttl = OWN_TTL;
    work.headers.swap_stations();
    write(frame, work, 0) && frame.send_copy(work.ifindex)
}

/// Writes the number that differs between the two sides into a packet of a proxied session: the server's sequence
/// number as the client knows it, or the client's acknowledgement as the server does. Returns how many bytes of the
/// buffer have changed; before, it was `end`, no further than the ports.
#[inline(always)]
pub(crate) fn renumber(
    headers: &mut HeaderBuffer,
    packet: &Packet,
    flow: &Flow,
    checksum: &mut Checksum,
    end: usize,
) -> usize {
    if packet.is_later_fragment() {
        // No numbers are here.
        return end;
    }
    let l4 = usize::from(packet.l4);
    let (at, number) = if flow.flags & flow_flags::REPLY != 0 {
        (l4 + 4, packet.seq.wrapping_add(flow.tcp_delta))
    } else if packet.tcp_flags & tcp_flags::ACK != 0 {
        (l4 + 8, packet.ack)
    } else {
        return end;
    };
    let Some(before) = headers.word(at) else {
        return end;
    };
    headers.set_word(at, number.to_be());
    checksum.data = checksum::replace32(checksum.data, before, number.to_be());
    checksum.at = l4 + 16;
    checksum.ipv6 = packet.family == 6;
    at + 4
}

/// As [`renumber`], in the frame at once: on a wire nothing else changes.
#[inline(never)]
pub(crate) fn renumber_only<F: Frame>(frame: &mut F, work: &mut Work) -> bool {
    let mut checksum = Checksum::default();
    let Work {
        headers,
        packet,
        flow,
        ..
    } = work;
    let end = renumber(headers, packet, flow, &mut checksum, 0);
    end == 0 || frame.write_back(headers, end, &checksum)
}

/// As [`renumber_quoted`], in the frame at once.
#[inline(never)]
pub(crate) fn renumber_error<F: Frame>(frame: &mut F, work: &mut Work) -> bool {
    let Work {
        headers,
        packet,
        embedded,
        flow,
        ..
    } = work;
    let checksum = Checksum {
        at: usize::from(packet.l4) + 2,
        data: renumber_quoted(headers, usize::from(embedded.l4), flow),
        ipv6: packet.family == 6,
        ..Checksum::default()
    };
    let end = (usize::from(embedded.l4) + 18).min(headers.len as usize);
    frame.write_back(headers, end, &checksum)
}

/// Turns the numbers of the TCP header that an ICMP error quotes, at `l4`, back into what its sender sent: without, the
/// sender would take the error for a forged one (RFC 5927, section 4). `flow` travels like the error. Returns the change
/// of the ICMP message's sum.
#[inline(always)]
pub(crate) fn renumber_quoted(headers: &mut HeaderBuffer, l4: usize, flow: &Flow) -> u32 {
    // The quoted packet went the other way: the server's sequence number, or the client's acknowledgement.
    let at = if flow.flags & flow_flags::REPLY == 0 {
        l4 + 4
    } else if headers.byte(l4 + 13).unwrap_or(0) & tcp_flags::ACK != 0 {
        l4 + 8
    } else {
        return 0;
    };
    let Some(before) = headers.be32(at) else {
        return 0;
    };
    let number = before.wrapping_add(flow.tcp_delta);
    headers.set_word(at, number.to_be());
    let change = checksum::replace32(0, before.to_be(), number.to_be());
    checksum::add(change, related::change_field(headers, l4 + 16, change, false))
}

/// Source becomes destination.
#[inline(always)]
fn turn_round(packet: &mut Packet) {
    core::mem::swap(&mut packet.source_be, &mut packet.destination_be);
    core::mem::swap(&mut packet.source_port, &mut packet.destination_port);
}

/// The option that announces a segment size, memory order (RFC 9293, 3.2).
#[inline(always)]
fn mss_option(mss: u32) -> u32 {
    (0x0204_0000 | mss & 0xffff).to_be()
}

/// Makes the frame the segment that `work.packet` describes.
#[inline(always)]
fn write<F: Frame>(frame: &mut F, work: &mut Work, mss: u32) -> bool {
    let pseudo = compose(work, mss);
    let l4 = tcp_at(work.packet.family);
    let end = l4 + if mss == 0 { 20 } else { usize::from(SYN_BYTES) };
    frame.replace(&mut work.headers, end, l4 + 16, pseudo as u16)
}

/// Writes the segment that `work.packet` describes into the header buffer: no payload, no option but the segment size
/// (0: none). All lengths and checksums, there and in `work.packet`, are those of that segment. Returns the folded sum
/// of its pseudo header.
#[inline(never)]
fn compose(work: &mut Work, mss: u32) -> u32 {
    const L3: usize = ETHERNET_BYTES;
    let Work { headers, packet, .. } = work;
    let tcp_bytes = if mss == 0 { 20 } else { SYN_BYTES };
    packet.tcp_header_bytes = tcp_bytes;
    packet.payload_bytes = 0;
    packet.l3_bytes = plain_header_bytes(packet.family) - 20 + u32::from(tcp_bytes);
    let l4 = tcp_at(packet.family);
    headers.len = (l4 + usize::from(tcp_bytes)) as u32;
    if packet.family == 4 {
        headers.set_be16(L3 + 2, packet.l3_bytes as u16);
        headers.set_byte(L3 + 8, packet.ttl);
        headers.set_be16(L3 + 10, 0);
        headers.set_word(L3 + 12, packet.source_be[0]);
        headers.set_word(L3 + 16, packet.destination_be[0]);
        let sum = sum_words(headers, L3, 5);
        headers.set_be16(L3 + 10, u16::from_be(!checksum::fold(sum)));
    } else {
        headers.set_be16(L3 + 4, u16::from(tcp_bytes));
        headers.set_byte(L3 + 7, packet.ttl);
        headers.set_address6(L3 + 8, packet.source_be);
        headers.set_address6(L3 + 24, packet.destination_be);
    }
    headers.set_be16(l4, packet.source_port);
    headers.set_be16(l4 + 2, packet.destination_port);
    headers.set_word(l4 + 4, packet.seq.to_be());
    headers.set_word(l4 + 8, packet.ack.to_be());
    headers.set_byte(l4 + 12, tcp_bytes << 2);
    headers.set_byte(l4 + 13, packet.tcp_flags);
    headers.set_be16(l4 + 14, packet.window);
    headers.set_word(l4 + 16, 0);
    if mss != 0 {
        headers.set_word(l4 + 20, mss_option(mss));
    }
    let words = if mss == 0 { 5 } else { 6 };
    let pseudo = checksum::pseudo_header(
        &packet.source_be,
        &packet.destination_be,
        protocol::TCP,
        u32::from(tcp_bytes),
    );
    let sum = checksum::add(pseudo, sum_words(headers, l4, words));
    headers.set_be16(l4 + 16, u16::from_be(!checksum::fold(sum)));
    u32::from(checksum::fold(pseudo))
}

/// Sum of 5 or 6 words of the buffer.
#[inline(always)]
fn sum_words(headers: &HeaderBuffer, at: usize, words: usize) -> u32 {
    let mut sum = 0u64;
    let mut i = 0;
    while i < 6 {
        if i < words {
            sum += u64::from(headers.word(at + i * 4).unwrap_or(0));
        }
        i += 1;
    }
    checksum::fold64(sum)
}
