//! The FTP gateway's engine room: control packets out of the packet path, through [`crate::gateway`], and back.
//!
//! Owns what is remembered of each control connection (the shifts of its sequence numbers), bounded in number; writes what
//! they announce into the table of expected conversations. A connection that is forgotten while it lives loses its shifts
//! and with them itself: the bound is far above what one firewall's clients hold open.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use bulkhead_abi::{
    ExpectKey, Expectation, Flow, FlowKey4, FlowKey6, FrameHeader, Reason, announced_by, flow_flags, protocol,
};
use bulkhead_packet::{HeaderBuffer, Packet, PlainLoop, parse};

use super::{
    Shared,
    ageing::{AnyKey as _, Operation, Target, now_ns},
};
use crate::{
    address::{address, family, words},
    gateway::{
        ftp::Listener,
        rewrite::{Control, Ends, Expected},
        segments::segments,
    },
    inject::Injector,
};

/// Control connections remembered.
const MOST_CONNECTIONS: usize = 16_384;
/// How long a silent one is.
const MEMORY: Duration = Duration::from_secs(3 * 3600);
/// Ports tried for an announced connection before the announcement goes on as it is.
const TRIES: u16 = 16;

/// All control connections.
#[derive(Default)]
pub(super) struct Gateway {
    connections: HashMap<u64, (Control, Instant)>,
    /// Where the search for a free port goes on.
    next_port: u16,
    /// Packets that could not be put back, and not reported yet.
    pub(super) lost: usize,
}

impl Gateway {
    /// Treats one packet and lets it go on.
    pub(super) fn handle(
        &mut self,
        shared: &Shared,
        injector: &Injector,
        header: &FrameHeader,
        frame: &[u8],
    ) {
        let treated = control_flow(shared, header.argument, frame).and_then(|packet| {
            let (session, ends) = (packet.session, &packet.ends);
            // What was rewritten before this daemon came, nobody knows any more.
            if packet.created_ns < shared.since_ns
                && ends.are_translated()
                && !self.connections.contains_key(&session)
            {
                // The packet goes on all the same, and is counted as one without a session.
                end_forgotten(shared, &packet);
                return None;
            }
            self.forget();
            let next_port = &mut self.next_port;
            let (control, last) = self
                .connections
                .entry(session)
                .or_insert_with(|| (Control::default(), Instant::now()));
            *last = Instant::now();
            control.treat(frame, ends, packet.from_client, |expected| {
                expect(shared, header.argument, expected, next_port)
            })
        });
        let frame = treated.as_deref().unwrap_or(frame);
        let Some(pieces) = segments(frame, mtu(shared, header.ifindex), header.segment as usize) else {
            tracing::debug!(
                ?header,
                bytes = frame.len(),
                "an FTP control packet that cannot be cut"
            );
            self.lost += 1;
            return;
        };
        for piece in pieces {
            if let Err(error) = injector.inject_tagged(header.ifindex, header.vlan, &piece) {
                tracing::debug!(%error, bytes = piece.len(), "an FTP control packet could not be put back");
                self.lost += 1;
            }
        }
    }

    /// Makes room, if there are too many.
    fn forget(&mut self) {
        if self.connections.len() < MOST_CONNECTIONS {
            return;
        }
        self.connections.retain(|_, (_, last)| last.elapsed() < MEMORY);
        if self.connections.len() >= MOST_CONNECTIONS
            && let Some(oldest) = self
                .connections
                .iter()
                .min_by_key(|(_, (_, last))| *last)
                .map(|(id, _)| *id)
        {
            self.connections.remove(&oldest);
        }
    }
}

/// What an interface takes, bytes of layer 3. The kernel refuses more.
fn mtu(shared: &Shared, ifindex: u32) -> usize {
    match shared.maps.interfaces.get(&ifindex) {
        Ok(facts) => facts.map_or(0, |facts| facts.mtu as usize),
        Err(error) => {
            tracing::error!(%error, ifindex, "the gateway could not read an interface's MTU");
            0
        }
    }
}

/// The IPv4 key in a key with room for either family.
const fn narrow(key: &FlowKey6) -> FlowKey4 {
    FlowKey4 {
        source_be: key.source_be[0],
        destination_be: key.destination_be[0],
        source_port: key.source_port,
        destination_port: key.destination_port,
        protocol: key.protocol,
    }
}

/// The established flow under a key.
fn flow(shared: &Shared, family: u8, key: &FlowKey6) -> Option<Flow> {
    let found = if family == 4 {
        shared.maps.flows4.get(&narrow(key))
    } else {
        shared.maps.flows6.get(key)
    };
    found.unwrap_or_else(|error| {
        tracing::error!(%error, "the gateway could not read a session");
        None
    })
}

/// A control packet's conversation.
struct ControlPacket {
    session: u64,
    created_ns: u64,
    ends: Ends,
    from_client: bool,
    /// What user space's requests name it by.
    target: Target,
}

/// Ends a conversation whose numbers were shifted by a daemon that is no more.
fn end_forgotten(shared: &Shared, packet: &ControlPacket) {
    let request = packet
        .target
        .request(Operation::Clear, Reason::GatewayForgotten as u32);
    match shared.request(&request) {
        Ok(_) => tracing::info!(
            session = packet.session,
            client = %packet.ends.client,
            server = %packet.ends.server,
            "an FTP control connection of before the restart was ended: what was rewritten in it is not known"
        ),
        Err(error) => tracing::error!(%error, "an FTP control connection could not be ended"),
    }
}

/// Session, ends and direction of a control packet.
fn control_flow(shared: &Shared, context: u32, frame: &[u8]) -> Option<ControlPacket> {
    let headers = HeaderBuffer::from_frame(frame);
    let mut packet = Packet::default();
    parse(
        &PlainLoop,
        &headers,
        u32::try_from(frame.len()).ok()?,
        false,
        &mut packet,
    )
    .ok()?;
    let key = FlowKey6 {
        source_be: packet.source_be,
        destination_be: packet.destination_be,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        protocol: u32::from(packet.protocol) | context,
    };
    let own = flow(shared, packet.family, &key)?;
    let from_client = own.flags & flow_flags::REPLY == 0;
    let (first_key, first) = if from_client {
        (key, own)
    } else {
        let partner_key = own.partner6();
        (partner_key, flow(shared, packet.family, &partner_key)?)
    };
    let end = |words: &[u32; 4]| -> IpAddr { address(packet.family, words) };
    let ends = Ends {
        client: end(&first_key.source_be),
        client_outside: end(&first.new_source_be),
        server: end(&first.new_destination_be),
        server_outside: end(&first_key.destination_be),
    };
    let target = if packet.family == 4 {
        narrow(&key).target()
    } else {
        key.target()
    };
    (first.session_id == own.session_id).then_some(ControlPacket {
        session: own.session_id,
        created_ns: own.created_ns,
        ends,
        from_client,
        target,
    })
}

/// Writes an expectation and returns the port that the listener is announced under: its own where addresses stay or where
/// nothing else is expected there, else another.
fn expect(shared: &Shared, context: u32, expected: &Expected, next_port: &mut u16) -> Option<u16> {
    let mut key = ExpectKey {
        source_be: words(expected.from),
        destination_be: words(expected.to),
        destination_port: expected.port,
        protocol: protocol::TCP,
        family: family(&expected.to),
        context,
    };
    let value = Expectation {
        created_ns: now_ns(),
        new_source_be: words(expected.seen_as),
        new_destination_be: words(expected.goes_to),
        new_destination_port: expected.port,
        announced_by: announced_by::FTP,
        from_server: u32::from(expected.listener == Listener::Client),
    };
    for _ in 0..TRIES {
        let taken = shared.maps.expected.get(&key).ok()?.is_some_and(|other| {
            // The same line repeated is no other's.
            let same = (other.new_destination_be, other.new_destination_port)
                == (value.new_destination_be, value.new_destination_port);
            let fresh = value.created_ns.saturating_sub(other.created_ns) < Expectation::LIFETIME_NS;
            !same && fresh
        });
        if !taken {
            shared.maps.expected.set(&key, &value).ok()?;
            return Some(key.destination_port);
        }
        if expected.to == expected.goes_to {
            // Nobody translates: the port cannot be another.
            return None;
        }
        *next_port = next_port.wrapping_add(1).max(1024);
        key.destination_port = *next_port;
    }
    None
}
