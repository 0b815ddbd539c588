//! Wire mode: two interfaces spliced at layer 2. Policies, sessions and screens as in routed mode; no routing, no
//! translation, not a byte of a frame changed, VLAN tags carried through.
//!
//! Owns what differs on the way in and on the way out; the rest of the pipeline asks [`Tables::wired`] where it must. One
//! tuple may be on several wires and in several VLANs at once without being one conversation, so both are part of the
//! flow's key. Nothing that enters a wire reaches this host's own stack.

use bulkhead_abi::{Hop, Reason, RouteKind, interface_flags, is_service_tag};

use crate::{Action, Frame, Tables, Verdict, Work};

/// Fills `work.ingress` and `work.context` of a frame that came in on an end of a wire.
///
/// # Errors
/// [`Reason::NotConfigured`] if the interface is not one.
#[inline(always)]
pub(crate) fn enter<E: Tables>(env: &E, work: &mut Work) -> Result<(), Reason> {
    if !env.interface(work.ifindex, &mut work.ingress) || work.ingress.wire_peer == 0 {
        return Err(Reason::NotConfigured);
    }
    let service = u32::from(is_service_tag(work.vlan)) << 28;
    work.context = service | (work.ingress.wire & 0xff) << 20 | (work.vlan & 0xfff) << 8;
    Ok(())
}

/// Settles a frame that the parser refused: malformed IP ends here, and so does what may hide IP from the parser (a
/// second VLAN tag); what is not IP crosses if the wire is told so.
#[inline(always)]
pub(crate) fn refused<E: Tables>(env: &E, work: &mut Work, reason: Reason) -> Verdict {
    let crosses = work.ingress.flags & interface_flags::WIRE_NON_IP != 0;
    if reason == Reason::EtherTypeUnsupported && crosses {
        cross(env, work, Reason::WireNonIp)
    } else {
        Verdict::drop(reason)
    }
}

/// Settles ARP and neighbour discovery.
#[inline(always)]
pub(crate) fn discovery<E: Tables>(env: &E, work: &mut Work) -> Verdict {
    if work.ingress.flags & interface_flags::WIRE_ARP != 0 {
        cross(env, work, Reason::WireArp)
    } else {
        Verdict::drop(Reason::WireArpDenied)
    }
}

/// The other end as the way out: fills `work.out_ifindex` and `work.egress`.
///
/// # Errors
/// [`Reason::WireBroken`] if it is not there.
#[inline(always)]
pub(crate) fn other_end<E: Tables>(env: &E, work: &mut Work) -> Result<RouteKind, Reason> {
    work.out_ifindex = work.ingress.wire_peer;
    if !env.interface(work.out_ifindex, &mut work.egress) || work.egress.flags & interface_flags::DATA == 0 {
        return Err(Reason::WireBroken);
    }
    Ok(RouteKind::Unicast)
}

/// Fills the hop of `work.flow`: the other end, unchanged.
#[inline(always)]
pub(crate) fn fill_hop(work: &mut Work) {
    let flow = &mut work.flow;
    flow.egress_ifindex = work.out_ifindex;
    flow.mtu = work.egress.mtu;
    flow.fib_epoch = work.fib_epoch;
    flow.hop = Hop::Redirect as u8;
}

/// Whether the packet fits through the other end. Nobody is told: a wire has no address to speak from, and both its ends
/// should have one MTU.
#[inline(always)]
pub(crate) fn fits<F: Frame>(frame: &F, work: &Work, mtu: u32) -> Result<(), Reason> {
    if crate::forward::largest_bytes(frame, &work.packet) > mtu {
        Err(Reason::MtuExceeded)
    } else {
        Ok(())
    }
}

/// Sends the frame, as it is, out of the other end.
#[inline(always)]
pub(crate) fn cross<E: Tables>(env: &E, work: &mut Work, reason: Reason) -> Verdict {
    match other_end(env, work) {
        Ok(_) => Verdict {
            action: Action::Redirect,
            reason,
        },
        Err(reason) => Verdict::drop(reason),
    }
}
