//! Screens: what a zone refuses before, and whatever, policy says.
//!
//! Owns the look at a packet that is out of the ordinary, the rates and the scans, and who is told. Three places call it:
//! [`early`] (XDP) and [`inspect`] (TCX, what XDP has not seen) for what a packet is and for floods, [`opening`] for what only
//! the first packet of a conversation can be. Assumes that [`Packet::options`](bulkhead_packet::Packet::options) is zero for
//! ordinary packets: those of established sessions are not looked at here at all, unless a flood screen wants them counted.
//! A screen never opens what is dropped without it: alarm without drop means "without drop by the screen".

use bulkhead_abi::{
    EventKind, Reason, RouteEntry, RouteKind, ScanLimit, ScanState, Screen, ScreenKey, ScreenProfile,
    protocol, screen_flags,
};
use bulkhead_packet::tcp_flags;

use crate::{
    Clock, Frame, Limiter, Tables, Work,
    addresses::{Reach, source_reach},
    open,
    policy::lowest,
    syn_proxy::ATTACK_NS,
};

/// Reads the profile of the zone that the packet came from. False: there is nothing to screen.
#[inline(always)]
fn load<E: Tables>(env: &E, work: &mut Work) -> bool {
    match env.zone(work.tables, work.ifindex) {
        Some(zone) => {
            work.zone = u32::from(zone);
            env.screens(work.tables, zone, &mut work.screens)
        }
        None => false,
    }
}

/// XDP: screens a packet that has no short way. Without a place to note that it did, it leaves the packet to TCX.
///
/// # Errors
/// The reason to drop the packet.
#[inline(always)]
pub(crate) fn early<F: Frame, E: Tables + Clock>(
    frame: &mut F,
    env: &E,
    work: &mut Work,
) -> Result<(), Reason> {
    if !load(env, work) || !frame.mark_screened(work.ifindex) {
        return Ok(());
    }
    look(env, work, 1)
}

/// TCX: screens a packet that XDP has not.
///
/// # Errors
/// The reason to drop the packet.
#[inline(always)]
pub(crate) fn inspect<F: Frame, E: Tables + Clock>(
    frame: &F,
    env: &E,
    work: &mut Work,
) -> Result<(), Reason> {
    if frame.screened(work.ifindex) || !load(env, work) {
        return Ok(());
    }
    // What the kernel aggregated counts as what was on the wire.
    let segment = frame.gso_segment_bytes();
    let packets = if segment == 0 {
        1
    } else {
        work.packet.payload_bytes.div_ceil(segment)
    };
    look(env, work, packets)
}

/// What the packet is, and how many of its kind there are.
#[inline(never)]
fn look<E: Tables + Clock>(env: &E, work: &mut Work, packets: u32) -> Result<(), Reason> {
    let packet = &mut work.packet;
    if packet.protocol == protocol::TCP
        && packet.source_be == packet.destination_be
        && work.screens.has(Screen::Land)
    {
        // No stack sends that over a wire: without the screen it ends where conversations are opened.
        packet.options |= Screen::Land.bit();
        let reason = refused(env, work, Reason::SourceAddressInvalid);
        if reason != Reason::SourceAddressInvalid {
            return Err(reason);
        }
        work.packet.options &= !Screen::Land.bit();
    }
    let hits = work.packet.options & work.screens.enabled;
    if hits != 0 {
        caught(env, work, lowest(hits))?;
    }
    match work.packet.protocol {
        protocol::ICMP | protocol::ICMPV6 if work.screens.has(Screen::IcmpFlood) => {
            let threshold = work.screens.icmp_flood;
            flood(env, work, Screen::IcmpFlood, threshold, packets)
        }
        protocol::UDP if work.screens.has(Screen::UdpFlood) => {
            let threshold = work.screens.udp_flood;
            flood(env, work, Screen::UdpFlood, threshold, packets)
        }
        protocol::TCP if opens(work) => syn_flood(env, work),
        _ => Ok(()),
    }
}

/// Whether the packet is the first of a TCP connection.
#[inline(always)]
fn opens(work: &Work) -> bool {
    let flags = tcp_flags::SYN | tcp_flags::ACK | tcp_flags::RST | tcp_flags::FIN;
    work.packet.protocol == protocol::TCP && work.packet.tcp_flags & flags == tcp_flags::SYN
}

/// Sets the key of a screen and the packet's source or destination.
#[inline(always)]
fn set_key(work: &mut Work, screen: Screen, source: bool) {
    work.screen_key.subject = ScreenKey::subject(screen, work.zone as u8, work.packet.family);
    work.screen_key.address_be = if source {
        work.packet.source_be
    } else {
        work.packet.destination_be
    };
}

/// Packets to one destination.
#[inline(always)]
fn flood<E: Tables + Clock>(
    env: &E,
    work: &mut Work,
    screen: Screen,
    threshold: u32,
    packets: u32,
) -> Result<(), Reason> {
    set_key(work, screen, false);
    if env.rate(&work.screen_key, work.now_ns, packets, u32::MAX, 0) > u64::from(threshold) {
        return caught(env, work, screen as u32);
    }
    Ok(())
}

/// SYNs from one source and to one destination. What comes above the attack threshold goes on: the rate tells `syn_proxy`
/// whose SYNs to answer, if policy permits them at all.
#[inline(always)]
fn syn_flood<E: Tables + Clock>(env: &E, work: &mut Work) -> Result<(), Reason> {
    const OF_DESTINATION: u64 =
        Screen::SynFlood.bit() | Screen::SynFloodAlarm.bit() | Screen::SynFloodDestination.bit();
    if work.screens.has(Screen::SynFloodSource) {
        set_key(work, Screen::SynFloodSource, true);
        let rate = env.rate(&work.screen_key, work.now_ns, 1, u32::MAX, 0);
        if rate > u64::from(work.screens.syn_flood_source) {
            caught(env, work, Screen::SynFloodSource as u32)?;
        }
    }
    if work.screens.enabled & OF_DESTINATION == 0 {
        return Ok(());
    }
    set_key(work, Screen::SynFlood, false);
    let attacked = work.screens.has(Screen::SynFlood);
    let attack = if attacked && work.screens.flags & screen_flags::ALARM_ONLY == 0 {
        work.screens.syn_flood
    } else {
        u32::MAX
    };
    let rate = env.rate(&work.screen_key, work.now_ns, 1, attack, work.now_ns + ATTACK_NS);
    if work.screens.has(Screen::SynFloodDestination) && rate > u64::from(work.screens.syn_flood_destination) {
        caught(env, work, Screen::SynFloodDestination as u32)?;
    }
    if attacked && rate > u64::from(work.screens.syn_flood) {
        report(env, work, Screen::SynFlood as u32, false);
    }
    if work.screens.has(Screen::SynFloodAlarm) && rate > u64::from(work.screens.syn_flood_alarm) {
        report(env, work, Screen::SynFloodAlarm as u32, false);
    }
    Ok(())
}

/// What only the first packet of a conversation can be: spoofed (where there are routes, unlike on a wire), a scan.
///
/// # Errors
/// The reason to drop the packet.
#[inline(never)]
pub(crate) fn opening<E: Tables + Clock>(env: &E, work: &mut Work) -> Result<(), Reason> {
    if !load(env, work) {
        return Ok(());
    }
    if !env.wired() && work.screens.has(Screen::IpSpoofing) && spoofed(env, work) {
        caught(env, work, Screen::IpSpoofing as u32)?;
    }
    match work.packet.protocol {
        protocol::ICMP | protocol::ICMPV6 => {
            let limit = work.screens.icmp_sweep;
            sweep(env, work, Screen::IcmpSweep, limit)
        }
        protocol::TCP => {
            let (ports, hosts) = (work.screens.tcp_port_scan, work.screens.tcp_sweep);
            port_scan(env, work, Screen::TcpPortScan, ports)?;
            sweep(env, work, Screen::TcpSweep, hosts)
        }
        protocol::UDP => {
            let (ports, hosts) = (work.screens.udp_port_scan, work.screens.udp_sweep);
            port_scan(env, work, Screen::UdpPortScan, ports)?;
            sweep(env, work, Screen::UdpSweep, hosts)
        }
        _ => Ok(()),
    }
}

/// Whether the way back to the source leads into another zone than the packet's, or nowhere (RFC 3704, 2.2, by zone).
#[inline(always)]
fn spoofed<E: Tables>(env: &E, work: &mut Work) -> bool {
    // A host without an address yet, and the addresses of a link, which are on every link: such packets go no further.
    if source_reach(work.packet.family, &work.packet.source_be) != Reach::Routed {
        return false;
    }
    // The packet's own route is looked up later.
    work.route = RouteEntry::default();
    if !env.route(work.packet.family, &work.packet.source_be, &mut work.route)
        || work.route.kind != RouteKind::Unicast as u32
    {
        return true;
    }
    match env.zone(work.tables, work.route.ifindex) {
        Some(zone) => u32::from(zone) != work.zone,
        None => true,
    }
}

#[inline(always)]
fn port_scan<E: Tables + Clock>(
    env: &E,
    work: &mut Work,
    screen: Screen,
    limit: ScanLimit,
) -> Result<(), Reason> {
    if !work.screens.has(screen) {
        return Ok(());
    }
    let port = u32::from(work.packet.destination_port);
    scan(env, work, screen, limit, port)
}

#[inline(always)]
fn sweep<E: Tables + Clock>(
    env: &E,
    work: &mut Work,
    screen: Screen,
    limit: ScanLimit,
) -> Result<(), Reason> {
    if !work.screens.has(screen) {
        return Ok(());
    }
    let mut host = 0;
    for word in work.packet.destination_be {
        host = mix(host, word);
    }
    scan(env, work, screen, limit, host)
}

/// A step of a hash whose high bits depend on all of its input's (constant from splitmix64, as 32 bits).
#[inline(always)]
fn mix(hash: u32, word: u32) -> u32 {
    let mixed = (hash ^ word).wrapping_mul(0x9e37_79b1);
    mixed ^ mixed >> 15
}

/// Adds a target to those its source has tried, and refuses it if there were as many as allowed before.
#[inline(never)]
fn scan<E: Tables + Clock>(
    env: &E,
    work: &mut Work,
    screen: Screen,
    limit: ScanLimit,
    target: u32,
) -> Result<(), Reason> {
    set_key(work, screen, true);
    let now_ns = env.precise_ns();
    work.scan = ScanState::default();
    work.scan.began_ns = now_ns;
    work.scan.seed = env.random();
    let fresh = &work.scan;
    let tried = env.with_scan(&work.screen_key, fresh, |state| {
        if now_ns.saturating_sub(state.began_ns) >= u64::from(limit.interval_ns) {
            state.began_ns = now_ns;
            state.targets = 0;
            state.seed = fresh.seed;
            state.seen = [0; 4];
        }
        tried(state, target, limit.targets)
    });
    match tried {
        Some(before) if before >= limit.targets => caught(env, work, screen as u32),
        // A scan that cannot be noted, because the table is being fought over, goes on.
        _ => Ok(()),
    }
}

/// Notes a target unless there are `enough`; returns how many there were before.
#[inline(always)]
fn tried(state: &mut ScanState, target: u32, enough: u32) -> u32 {
    let before = state.targets;
    if before >= enough {
        return before;
    }
    let place = mix(mix(state.seed, target), state.seed) >> 24;
    let bit = 1u64 << (place & 63);
    if let Some(word) = state.seen.get_mut((place >> 6) as usize)
        && *word & bit == 0
    {
        *word |= bit;
        state.targets = before + 1;
    }
    before
}

/// Whether a flood screen of the zone wants every packet of such a conversation counted, those of established sessions too.
#[inline(always)]
pub(crate) fn counts<E: Tables>(
    env: &E,
    tables: u32,
    zone: u8,
    number: u8,
    profile: &mut ScreenProfile,
) -> bool {
    let screen = match number {
        protocol::ICMP | protocol::ICMPV6 => Screen::IcmpFlood,
        protocol::UDP => Screen::UdpFlood,
        _ => return false,
    };
    env.screens(tables, zone, profile) && profile.has(screen)
}

/// A screen has something on the packet: counts and tells.
///
/// # Errors
/// Its reason, unless it is only to raise the alarm.
#[inline(never)]
fn caught<E: Tables>(env: &E, work: &mut Work, screen: u32) -> Result<(), Reason> {
    let drop = work.screens.flags & screen_flags::ALARM_ONLY == 0;
    report(env, work, screen, drop);
    match Screen::reason_of(screen) {
        Some(reason) if drop => Err(reason),
        _ => Ok(()),
    }
}

/// Counts a packet of the screen (by number) of the zone `work.zone` and tells user space, within the rate limit.
#[inline(never)]
pub(crate) fn report<E: Tables>(env: &E, work: &mut Work, screen: u32, dropped: bool) {
    env.count_screen(work.zone as u8, screen, dropped);
    if !env.permitted(work.tables, Limiter::ScreenEvent, work.now_ns) {
        env.count(Reason::SLOT_EVENTS_SUPPRESSED);
        return;
    }
    let reason = Screen::reason_of(screen).unwrap_or(Reason::Internal);
    open::describe_packet(work, EventKind::Screen, reason);
    work.event.from_zone = work.zone as u8;
    work.event.state = u8::from(dropped);
    env.emit(&work.event);
}

/// The screens that concern a packet dropped for `reason`: the one for exactly that, and those among the packet's `options`
/// that go with it.
#[inline(always)]
fn screens_of(reason: Reason, options: u64) -> (u64, u64) {
    const FRAGMENT: u64 = Screen::IcmpFragment.bit() | Screen::IpFragment.bit() | Screen::SynFragment.bit();
    const ROUTE: u64 =
        Screen::IpBadOption.bit() | Screen::IpSourceRoute.bit() | Screen::ExtensionHeaders.bit();
    const FLAGS: u64 = Screen::TcpNoFlags.bit() | Screen::TcpSynFin.bit() | Screen::TcpFinNoAck.bit();
    match reason {
        Reason::SourceRoute => (0, options & ROUTE),
        Reason::TcpFlagsInvalid => (0, options & FLAGS),
        Reason::Ipv6ExtensionInvalid => (0, options & Screen::ExtensionHeaders.bit()),
        Reason::SourceAddressInvalid => (0, options & Screen::Land.bit()),
        Reason::FragmentOverlap => (Screen::Teardrop.bit(), options & FRAGMENT),
        Reason::FragmentOversize => (Screen::PingOfDeath.bit(), options & FRAGMENT),
        Reason::FragmentTiny | Reason::FragmentInvalid => (0, options & FRAGMENT),
        _ => (0, 0),
    }
}

/// What a packet that is dropped in any case for `reason` is dropped for: the screen's reason where the zone has a screen for
/// such packets, which then counts and tells; else, and where screens only raise alarms, `reason` itself.
#[inline(never)]
pub(crate) fn refused<E: Tables + Clock>(env: &E, work: &mut Work, reason: Reason) -> Reason {
    let (exactly, among) = screens_of(reason, work.packet.options);
    if exactly | among == 0 {
        return reason;
    }
    // Parsing may have ended before these were looked at.
    let live = env.live();
    (work.generation, work.tables) = (live.generation, live.tables);
    work.now_ns = env.now_ns();
    if !load(env, work) {
        return reason;
    }
    let enabled = work.screens.enabled;
    let hits = if exactly & enabled != 0 {
        exactly
    } else {
        among & enabled
    };
    if hits == 0 {
        return reason;
    }
    let screen = lowest(hits);
    report(env, work, screen, true);
    match Screen::reason_of(screen) {
        Some(own) if work.screens.flags & screen_flags::ALARM_ONLY == 0 => own,
        _ => reason,
    }
}
