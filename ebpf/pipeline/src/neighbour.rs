//! Who has an address of translation's? This firewall has: ARP (RFC 826) and neighbour solicitations (RFC 4861) for such an
//! address are answered here, by turning the question round in place.
//!
//! Owns the answers for addresses that are on no interface: those of pools and static rules ("owned", see
//! [`crate::nat`]), and single addresses that destination rules name. Assumes that a question which is not answered is the
//! kernel's, as if this program were not there, so refuses nothing: whatever is odd about a question goes on unchanged.
//! An answer goes back to the station that asked and is never larger than a solicitation may be, so nobody else can be
//! flooded with answers.

use bulkhead_abi::{NAT_ANSWERED, NeighbourKey, Reason, RouteKind, nat_flags, protocol};
use bulkhead_packet::{ETHERNET_BYTES, HEADER_BYTES, Kind, Repeat, checksum};

use crate::{
    Action, Checksum, Frame, Tables, Verdict, Work,
    addresses::{Reach, destination_reach, source_reach},
    open::{belongs, station_is_ours},
};

/// Where the fields of ARP for IPv4 over Ethernet are (RFC 826). Not all of them lie on word boundaries.
mod arp {
    pub const HARDWARE: usize = 14;
    pub const PROTOCOL: usize = 16;
    pub const LENGTHS: usize = 18;
    pub const OPERATION: usize = 20;
    pub const SENDER_STATION: usize = 22;
    pub const SENDER: usize = 28;
    pub const TARGET_STATION: usize = 32;
    pub const TARGET: usize = 38;
    pub const END: usize = 42;
}

/// Offset of ICMPv6 behind a header without extensions; with them, a question is not answered.
const ICMP: usize = ETHERNET_BYTES + 40;
/// Bytes of a solicitation or an advertisement without options.
const FIXED_BYTES: u32 = 24;
/// An option with an Ethernet address.
const STATION_OPTION_BYTES: usize = 8;
/// The end of the advertisement: it has one option.
const ADVERTISEMENT_END: usize = ICMP + FIXED_BYTES as usize + STATION_OPTION_BYTES;
/// The longest solicitation that is looked at.
const MOST_BYTES: u32 = (HEADER_BYTES - ICMP) as u32;

/// Settles ARP and neighbour discovery that came in on a data interface.
#[inline(always)]
pub(crate) fn settle<F: Frame, E: Tables>(frame: &mut F, env: &E, work: &mut Work) -> Verdict {
    let arp = work.packet.kind == Kind::Arp;
    let others = if arp {
        Reason::Arp
    } else {
        Reason::NeighbourDiscovery
    };
    let live = env.live();
    work.generation = live.generation;
    work.tables = live.tables;
    if env.nat_flags(work.tables) & nat_flags::ANSWER == 0
        || !env.interface(work.ifindex, &mut work.ingress)
        || !(station_is_ours(work) || is_group_station(work, 0))
        || is_group_station(work, 6)
    {
        return Verdict::pass(others);
    }
    let asked = if arp { asked4(work) } else { asked6(env, work) };
    if !asked || !is_ours(env, work) {
        return Verdict::pass(others);
    }
    let answered = if arp {
        answer4(frame, work)
    } else {
        answer6(frame, work)
    };
    if !answered {
        return Verdict::drop(Reason::RewriteFailed);
    }
    work.out_ifindex = work.ifindex;
    Verdict {
        action: Action::Redirect,
        reason: Reason::NeighbourAnswered,
    }
}

/// Whether the station at `at` is a group's; no frame comes from one.
#[inline(always)]
fn is_group_station(work: &Work, at: usize) -> bool {
    work.headers.byte(at).unwrap_or(1) & 1 != 0
}

/// Whether the frame is an ARP request that somebody may send: `work.packet` has who asks (0.0.0.0: a probe, RFC 5227) as
/// its source and whom he asks for as its destination. An announcement, which asks for nobody, is none.
#[inline(never)]
fn asked4(work: &mut Work) -> bool {
    let Work { headers, packet, .. } = work;
    let (Some(target), Some(high), Some(low)) = (
        headers.word(arp::TARGET),
        headers.be16(arp::SENDER),
        headers.be16(arp::SENDER + 2),
    ) else {
        return false;
    };
    // Ethernet, IPv4, addresses of six and four bytes, request.
    if headers.be16(arp::HARDWARE) != Some(1)
        || headers.be16(arp::PROTOCOL) != Some(0x0800)
        || headers.be16(arp::LENGTHS) != Some(0x0604)
        || headers.be16(arp::OPERATION) != Some(1)
        || headers.byte(arp::SENDER_STATION).unwrap_or(1) & 1 != 0
    {
        return false;
    }
    packet.family = 4;
    packet.source_be[0] = (u32::from(high) << 16 | u32::from(low)).to_be();
    packet.destination_be[0] = target;
    packet.source_be[0] == 0 || may_ask(work)
}

/// Whether the packet is a neighbour solicitation as RFC 4861, 7.1.1 demands: the destination becomes whom it asks for.
#[inline(never)]
fn asked6<E: Tables>(env: &E, work: &mut Work) -> bool {
    let Work { headers, packet, .. } = work;
    let bytes = packet.l3_bytes.wrapping_sub(40);
    if packet.icmp != 135 << 8
        || usize::from(packet.l4) != ICMP
        || packet.ttl != 255
        || !(FIXED_BYTES..=MOST_BYTES).contains(&bytes)
        // Options are multiples of eight bytes.
        || bytes & 7 != 0
    {
        return false;
    }
    let Some(target) = headers.address6(ICMP + 8) else {
        return false;
    };
    let group = [
        0xff02_0000_u32.to_be(),
        0,
        1_u32.to_be(),
        (u32::from_be(target[3]) | 0xff00_0000).to_be(),
    ];
    let to_group = packet.destination_be == group;
    let probe = packet.source_be == [0; 4];
    if !(to_group || packet.destination_be == target && !probe) {
        return false;
    }
    if !is_intact(env, work, bytes) || !options_are_sane(env, work, bytes, probe) {
        return false;
    }
    work.packet.destination_be = target;
    probe || may_ask(work)
}

/// Whether who asks can be an address at all, and another than it asks for.
#[inline(always)]
fn may_ask(work: &Work) -> bool {
    let packet = &work.packet;
    packet.source_be != packet.destination_be
        && source_reach(packet.family, &packet.source_be) != Reach::Nowhere
}

/// Whether the checksum of an ICMPv6 message of `bytes` bytes, a multiple of four, is right.
#[inline(always)]
fn is_intact<E: Repeat>(env: &E, work: &mut Work, bytes: u32) -> bool {
    let Work { headers, packet, .. } = work;
    packet.seq = checksum::pseudo_header(&packet.source_be, &packet.destination_be, protocol::ICMPV6, bytes);
    env.repeat(MOST_BYTES / 4, |turn| {
        if turn * 4 >= bytes {
            return true;
        }
        let word = headers.word(ICMP + (turn & 0x3f) as usize * 4).unwrap_or(0);
        packet.seq = checksum::add(packet.seq, word);
        false
    });
    checksum::fold(packet.seq) == 0xffff
}

/// Whether the options end where the message does, none is empty, and a sender's station is an Ethernet address, of which
/// a probe has none.
#[inline(always)]
fn options_are_sane<E: Repeat>(env: &E, work: &mut Work, bytes: u32, probe: bool) -> bool {
    /// Source link-layer address.
    const STATION: u8 = 1;
    let Work { headers, packet, .. } = work;
    let end = ICMP as u32 + bytes;
    packet.seq = ICMP as u32 + FIXED_BYTES;
    env.repeat(MOST_BYTES / 8, |_| {
        let at = packet.seq & 0xff;
        if at >= end {
            return true;
        }
        let kind = headers.byte(at as usize).unwrap_or(0);
        let units = headers.byte(at as usize + 1).unwrap_or(0);
        if units == 0 || kind == STATION && (probe || units != 1) {
            packet.seq = 0;
            return true;
        }
        packet.seq = at + u32::from(units) * 8;
        packet.seq > end
    });
    packet.seq == end
}

/// Whether this firewall answers for `work.packet.destination_be`: an address of translation's in the zone of the
/// interface, on the interface's own link by route, and not the firewall's own, which the kernel answers for.
#[inline(never)]
fn is_ours<E: Tables>(env: &E, work: &mut Work) -> bool {
    let Work {
        packet,
        route,
        tables,
        ifindex,
        ..
    } = work;
    let (tables, ifindex, family) = (*tables, *ifindex, packet.family);
    let target = &packet.destination_be;
    let Some(zone) = env.zone(tables, ifindex) else {
        return false;
    };
    if destination_reach(family, target) != Reach::Routed
        || !env.route(family, target, route)
        || route.kind != RouteKind::Unicast as u32
        || route.ifindex != ifindex
        || route.gateway_family != 0
    {
        return false;
    }
    if belongs(env.nat_address(tables, family, target), zone) {
        return true;
    }
    if !belongs(env.nat_address(tables | NAT_ANSWERED, family, target), zone) {
        return false;
    }
    // A destination rule may name a host of this very link for the sake of others: if there is one, it answers itself.
    let key = NeighbourKey {
        ifindex,
        family: u32::from(family),
        address_be: *target,
    };
    env.neighbour(&key).is_none()
}

/// Makes the request the reply: RFC 826, "packet reception".
#[inline(never)]
fn answer4<F: Frame>(frame: &mut F, work: &mut Work) -> bool {
    let asker = asker(work);
    let Work {
        headers,
        packet,
        ingress,
        ..
    } = work;
    let own = &ingress.mac;
    headers.set_be16(arp::OPERATION, 2);
    // To whom the request says, inside; to where it came from, outside.
    let station = headers.word(arp::SENDER_STATION).unwrap_or(0).to_ne_bytes();
    let rest = headers.be16(arp::SENDER_STATION + 4).unwrap_or(0);
    headers.set_be16(arp::TARGET_STATION, u16::from_be_bytes([station[0], station[1]]));
    headers.set_be16(
        arp::TARGET_STATION + 2,
        u16::from_be_bytes([station[2], station[3]]),
    );
    headers.set_be16(arp::TARGET_STATION + 4, rest);
    headers.set_word(arp::TARGET, packet.source_be[0]);
    headers.set_word(
        arp::SENDER_STATION,
        u32::from_ne_bytes([own[0], own[1], own[2], own[3]]),
    );
    headers.set_be16(arp::SENDER_STATION + 4, u16::from_be_bytes([own[4], own[5]]));
    let target = u32::from_be(packet.destination_be[0]);
    headers.set_be16(arp::SENDER, (target >> 16) as u16);
    headers.set_be16(arp::SENDER + 2, target as u16);
    headers.set_stations(&asker, own);
    frame.write_back(headers, arp::END, &Checksum::default())
}

/// Makes the solicitation the advertisement: RFC 4861, 7.2.4, from the owner of the address and not from a proxy. A probe
/// (RFC 4862, 5.4) is answered to all nodes, as nobody could be told otherwise.
#[inline(never)]
fn answer6<F: Frame>(frame: &mut F, work: &mut Work) -> bool {
    const L3: usize = ETHERNET_BYTES;
    const BYTES: u32 = (ADVERTISEMENT_END - ICMP) as u32;
    /// `R`, `S` and `O` of the flags: this is a router, it was asked, and what it says counts.
    const ROUTER: u32 = 1 << 31;
    const SOLICITED: u32 = 1 << 30;
    const OVERRIDE: u32 = 1 << 29;
    const ALL_NODES_STATION: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
    let mut to_station = asker(work);
    let Work {
        headers,
        packet,
        ingress,
        ..
    } = work;
    let own = &ingress.mac;
    let mut flags = ROUTER | SOLICITED | OVERRIDE;
    if packet.source_be == [0; 4] {
        flags &= !SOLICITED;
        packet.source_be = [0xff02_0000_u32.to_be(), 0, 0, 1_u32.to_be()];
        to_station = ALL_NODES_STATION;
    }
    headers.len = ADVERTISEMENT_END as u32;
    headers.set_stations(&to_station, own);
    headers.set_word(L3, 0x6000_0000_u32.to_be());
    headers.set_be16(L3 + 4, BYTES as u16);
    headers.set_address6(L3 + 8, packet.destination_be);
    headers.set_address6(L3 + 24, packet.source_be);
    headers.set_be16(ICMP, 136 << 8);
    headers.set_be16(ICMP + 2, 0);
    headers.set_word(ICMP + 4, flags.to_be());
    // The target stays. Behind it the option: target link-layer address, eight bytes.
    headers.set_word(ICMP + 24, u32::from_ne_bytes([2, 1, own[0], own[1]]));
    headers.set_word(ICMP + 28, u32::from_ne_bytes([own[2], own[3], own[4], own[5]]));
    let pseudo = checksum::fold(checksum::pseudo_header(
        &packet.destination_be,
        &packet.source_be,
        protocol::ICMPV6,
        BYTES,
    ));
    let mut sum = u32::from(pseudo);
    let mut at = ICMP;
    while at < ADVERTISEMENT_END {
        sum = checksum::add(sum, headers.word(at).unwrap_or(0));
        at += 4;
    }
    headers.set_be16(ICMP + 2, u16::from_be(!checksum::fold(sum)));
    frame.replace(headers, ADVERTISEMENT_END, ICMP + 2, pseudo)
}

/// The station that the question came from.
#[inline(always)]
fn asker(work: &Work) -> [u8; 6] {
    let [a, b, c, d] = work.headers.word(6).unwrap_or(0).to_ne_bytes();
    let [e, f] = work.headers.be16(10).unwrap_or(0).to_be_bytes();
    [a, b, c, d, e, f]
}
