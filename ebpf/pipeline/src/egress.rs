//! What the firewall itself sends through a data interface: its own connections get sessions, so that their answers
//! come back without a rule; answers to permitted visitors belong to the visitor's session.
//!
//! The firewall's own packets are never held back here. What the kernel forwards from an interface this firewall does
//! not guard is.

use bulkhead_abi::{Disposition, Reason, SLOW_PATH_MARK, SessionState, ZONE_SELF};
use bulkhead_packet::{Kind, parse};

use crate::{
    Clock, Frame, Question, Tables, Verdict, Work,
    addresses::is_group,
    life, nat, open,
    session::{self, step},
    tcp::Trace,
};

/// Judges a frame about to leave through the data interface `work.ifindex`.
///
/// `mark` is the packet's mark; `from_outside` says that it entered this host through an interface. What the ingress
/// program redirected was judged already and does not come here.
#[inline(always)]
pub fn host_egress<F: Frame, E: Tables + Clock>(
    frame: &mut F,
    env: &E,
    work: &mut Work,
    mark: u32,
    from_outside: bool,
) -> Verdict {
    if from_outside {
        // Whatever it is, discovery included: the kernel forwarded it from an interface that is not guarded.
        return Verdict::drop(Reason::UnguardedIngress);
    }
    if mark == SLOW_PATH_MARK {
        return Verdict::pass(Reason::SlowPathAnswer);
    }
    if parse(
        env,
        &work.headers,
        frame.bytes(),
        frame.gso_segment_bytes() != 0,
        &mut work.packet,
    )
    .is_err()
    {
        // Odd protocols; nothing to remember.
        return Verdict::pass(Reason::FromHost);
    }
    match work.packet.kind {
        Kind::Ip => {}
        Kind::Arp => return Verdict::pass(Reason::Arp),
        Kind::NeighbourDiscovery => return Verdict::pass(Reason::NeighbourDiscovery),
    }
    // A later fragment tells nothing that the first did not.
    if !work.packet.is_later_fragment() {
        remember(frame, env, work);
    }
    Verdict::pass(Reason::FromHost)
}

/// Creates or moves on the session of a packet of the firewall's own.
#[inline(never)]
fn remember<F: Frame, E: Tables + Clock>(frame: &mut F, env: &E, work: &mut Work) {
    let live = env.live();
    work.generation = live.generation;
    work.tables = live.tables;
    work.fib_epoch = live.fib_epoch;
    work.now_ns = env.now_ns();
    work.context = 0;
    if work.generation == 0 || !env.interface(work.ifindex, &mut work.egress) {
        return;
    }
    let packet = &work.packet;
    let family = packet.family;
    work.key = bulkhead_abi::FlowKey6 {
        source_be: packet.source_be,
        destination_be: packet.destination_be,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        protocol: u32::from(packet.protocol),
    };
    if session::find(env, work) {
        let complete = session::find_partner(env, work);
        let state = SessionState::from_number(work.flow.state);
        if complete && life::is_dead(work) {
            return;
        }
        if let Some(state) = state
            && complete
        {
            if step(env, work, state).is_err() {
                // The kernel knows its own connections best; nothing is learned from what does not fit.
                return;
            }
            if work.trace == Trace::Over {
                let _ended = life::end(env, work, Reason::SessionClosed);
                return create(frame, env, work);
            }
            if !life::is_reply(&work.flow) {
                // Nobody judges the firewall's own connections.
                work.flow.generation = work.generation;
            }
            if !life::hold(env, work) {
                return;
            }
            session::store(env, work, frame.bytes());
            if session::moves(work) {
                // A full table shows at the next packet from outside, which is then refused.
                let _promoted = session::promote(env, family, work);
            }
            return;
        }
        let _ended = life::end_half(env, work);
    }
    create(frame, env, work);
}

/// Creates the session of the firewall's own connection, if this packet opens one.
#[inline(never)]
fn create<F: Frame, E: Tables + Clock>(frame: &mut F, env: &E, work: &mut Work) {
    let packet = &work.packet;
    let Some(to_zone) = env.zone(work.tables, work.ifindex) else {
        return;
    };
    if open::may_open(env, work).is_err() || is_group(packet.family, &packet.destination_be) {
        return;
    }
    work.question = Question {
        from_zone: ZONE_SELF,
        to_zone,
        ..Question::default()
    };
    work.policy = u32::MAX;
    work.out_ifindex = work.ifindex;
    work.ifindex = 0;
    nat::leave_alone(work);
    open::prepare(env, work, Disposition::FromHost);
    let service = env.service_class(work.tables, work.packet.protocol, work.packet.service_port());
    work.flow.timeout_s = env.service_timeout_s(work.tables, service);
    work.flow.packets = 1;
    work.flow.bytes = u64::from(frame.bytes());
    if open::enter(env, work) == Ok(true) {
        open::announce(env, work, Reason::FromHost);
    }
}
