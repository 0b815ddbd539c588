//! Conversations that another one announced: FTP's and TFTP's data.
//!
//! User space reads FTP's control connections and writes what they announce into the table of expectations; TFTP needs no
//! reading, its request itself says where the answer goes. A packet that fulfils an expectation opens a session if policy
//! permits the conversation that announced it, then and after every change of the configuration, and is translated as that
//! one is.

use bulkhead_abi::{
    ExpectKey, Expectation, Flow, FlowKey6, FrameKind, Reason, announced, announced_by, flow_flags, gateways,
    protocol,
};

use crate::{Frame, Limiter, Question, Tables, Verdict, Work};

/// Copies the expectation that the packet fulfils into `work.expected`, whose `announced_by` is 0 without one. It stays
/// expected until its session is entered ([`spend`]): a packet that is challenged, cut, over a limit or refused comes again.
#[inline(never)]
pub(crate) fn find<E: Tables>(env: &E, work: &mut Work) -> bool {
    work.expected = Expectation::default();
    if env.gateways(work.tables) == 0 || !matches!(work.packet.protocol, protocol::TCP | protocol::UDP) {
        return false;
    }
    work.expect_key = ExpectKey {
        source_be: work.packet.source_be,
        destination_be: work.packet.destination_be,
        destination_port: work.packet.destination_port,
        protocol: work.packet.protocol,
        family: work.packet.family,
        context: work.context,
    };
    if !env.expectation(&work.expect_key, &mut work.expected) {
        return false;
    }
    if work.now_ns.saturating_sub(work.expected.created_ns) > Expectation::LIFETIME_NS {
        env.remove_expectation(&work.expect_key, work.expected.created_ns);
        work.expected.announced_by = 0;
        return false;
    }
    true
}

/// Forgets what the packet fulfilled, now that its session was entered: one announcement, one conversation. Two packets on
/// two CPUs at once may both find it; both are what was announced, to the same port of the same host. What was announced
/// under the same key since it was found stays.
#[inline(always)]
pub(crate) fn spend<E: Tables>(env: &E, work: &Work) {
    if is_expected(work) {
        env.remove_expectation(&work.expect_key, work.expected.created_ns);
    }
}

/// Whether the packet being judged fulfils an expectation.
#[inline(always)]
pub(crate) fn is_expected(work: &Work) -> bool {
    work.expected.announced_by != 0
}

/// What a flow keeps of an expectation; see [`announced`].
#[inline(always)]
pub(crate) fn code(expected: &Expectation) -> u32 {
    let from_server = if expected.from_server == 0 {
        0
    } else {
        announced::FROM_SERVER
    };
    announced::ANNOUNCED | from_server | u32::from(expected.announced_by)
}

/// Writes the expectation's translation into `work.flow`.
#[inline(always)]
pub(crate) fn translate(work: &mut Work) {
    let Work {
        flow,
        expected,
        translation,
        ..
    } = work;
    flow.new_source_be = expected.new_source_be;
    flow.new_destination_be = expected.new_destination_be;
    flow.new_destination_port = expected.new_destination_port;
    flow.icmp_type_code = code(expected);
    if translation.translated {
        flow.flags |= flow_flags::TRANSLATED;
    }
}

/// Whether a flow's conversation was announced by another.
#[inline(always)]
pub(crate) fn was_announced(flow: &Flow) -> bool {
    matches!(flow.protocol, protocol::TCP | protocol::UDP) && flow.icmp_type_code & announced::ANNOUNCED != 0
}

/// Turns the question about an announced conversation into the one about the conversation that announced it. `opener` and
/// `listener` are the addresses of the two sides, as policy sees them; the question's zones are those of the announced one.
#[inline(always)]
pub(crate) fn ask_about_announcer(
    question: &mut Question,
    code: u32,
    opener: &[u32; 4],
    listener: &[u32; 4],
) {
    question.port = code as u16;
    if code & announced::FROM_SERVER == 0 {
        question.source_be = *opener;
        question.destination_be = *listener;
    } else {
        question.source_be = *listener;
        question.destination_be = *opener;
        (question.from_zone, question.to_zone) = (question.to_zone, question.from_zone);
    }
}

/// Marks the new session in `work.flow` if it is one that announces others. Before it is entered.
#[inline(always)]
pub(crate) fn mark_announcer<E: Tables>(env: &E, work: &mut Work) {
    let flow = &mut work.flow;
    if flow.protocol == protocol::TCP
        && flow.new_destination_port == announced_by::FTP
        && env.gateways(work.tables) & gateways::FTP != 0
    {
        // User space moves sequence numbers, so the two sides do not count alike.
        flow.flags |= flow_flags::GATEWAY | flow_flags::LIBERAL;
    }
}

/// Hands a packet of an announcing session to user space, which reads it and puts it back, perhaps rewritten. Nothing of the
/// session moves until then.
#[inline(always)]
pub(crate) fn read_by_gateway<F: Frame, E: Tables>(frame: &mut F, env: &E, work: &Work) -> Verdict {
    let handed = env.permitted(work.tables, Limiter::HandOver, work.now_ns)
        && frame.hand_over(FrameKind::Gateway, work.ifindex, work.context);
    if handed {
        Verdict::held()
    } else {
        Verdict::drop(Reason::GatewayLost)
    }
}

/// Expects the answer to a TFTP request from any port of the server (RFC 1350, section 4). After the session was entered.
#[inline(always)]
pub(crate) fn expect_transfer<E: Tables>(env: &E, work: &mut Work) {
    let Work {
        flow,
        key,
        expected,
        expect_key,
        now_ns,
        packet,
        ..
    } = work;
    if flow.protocol != protocol::UDP
        || flow.new_destination_port != announced_by::TFTP
        || env.gateways(work.tables) & gateways::TFTP == 0
    {
        return;
    }
    let FlowKey6 {
        source_be,
        destination_be,
        source_port,
        ..
    } = *key;
    *expect_key = ExpectKey {
        source_be: flow.new_destination_be,
        destination_be: flow.new_source_be,
        destination_port: flow.new_source_port,
        protocol: protocol::UDP,
        family: packet.family,
        context: flow.context,
    };
    *expected = Expectation {
        created_ns: *now_ns,
        new_source_be: destination_be,
        new_destination_be: source_be,
        new_destination_port: source_port,
        announced_by: announced_by::TFTP,
        from_server: 1,
    };
    env.expect(expect_key, expected);
    expected.announced_by = 0;
}
