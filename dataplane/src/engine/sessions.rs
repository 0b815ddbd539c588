//! Sessions as people see them: both flows of each, with names.

use std::{net::SocketAddr, time::Duration};

use bulkhead_abi::{Flow, FlowKey6, SessionState, flow_flags, flow_generation};

use super::{
    Engine, EngineError, Shared,
    ageing::{AnyKey as _, Operation, Timeouts, now_ns},
};
use crate::{address::address, table::TableError};

/// One direction of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Direction {
    /// Source as the packet arrives; ICMP: identifier as port.
    pub source: SocketAddr,
    /// Destination as the packet arrives.
    pub destination: SocketAddr,
    /// Interface it arrives on; `self` for the firewall's own packets.
    pub interface: String,
    /// Packets carried.
    pub packets: u64,
    /// Bytes carried, layer 2 included.
    pub bytes: u64,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its number.
    pub id: u64,
    /// 4 or 6.
    pub family: u8,
    /// IP protocol.
    pub protocol: u8,
    /// Where it stands.
    pub state: SessionState,
    /// Both sides have spoken.
    pub established: bool,
    /// The direction of its first packet.
    pub original: Direction,
    /// The direction of the answers; translation shows here.
    pub reply: Direction,
    /// Whether addresses or ports change on the way.
    pub translated: bool,
    /// The policy that permits it; `None`: the firewall's own, or `hostInbound`.
    pub policy: Option<String>,
    /// The source NAT rule.
    pub nat_rule: Option<String>,
    /// The destination NAT rule.
    pub destination_rule: Option<String>,
    /// Zone it comes from.
    pub from_zone: String,
    /// Zone it goes to.
    pub to_zone: String,
    /// Since its first packet.
    pub age: Duration,
    /// Since its last packet, either direction.
    pub idle: Duration,
    /// How long it may be idle in its state.
    pub timeout: Duration,
}

/// A choice of sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionList {
    /// Those that passed the filter, up to the limit.
    pub sessions: Vec<Session>,
    /// How many passed the filter.
    pub total: usize,
}

/// Everything needed to name one flow.
struct View<'a> {
    shared: &'a Shared,
    timeouts: Timeouts,
    now_ns: u64,
}

/// A session and the request that ends it.
type Visit<'v> = &'v mut dyn FnMut(Session, bulkhead_abi::ControlRequest);

impl View<'_> {
    fn interface(&self, index: u32) -> String {
        if index == 0 {
            "self".to_owned()
        } else {
            self.shared.interface_name(index)
        }
    }

    fn session(
        &self,
        family: u8,
        key: &FlowKey6,
        flow: &Flow,
        reply: Option<&Flow>,
        established: bool,
    ) -> Session {
        let names = self.shared.names_of(flow_generation::unmarked(flow.generation));
        let end = |words: &[u32; 4], port| SocketAddr::new(address(family, words), port);
        let last_seen_ns = reply.map_or(0, |reply| reply.last_seen_ns).max(flow.last_seen_ns);
        Session {
            id: flow.session_id,
            family,
            protocol: flow.protocol,
            state: SessionState::from_number(flow.state).unwrap_or(SessionState::Other),
            established,
            original: Direction {
                source: end(&key.source_be, key.source_port),
                destination: end(&key.destination_be, key.destination_port),
                interface: self.interface(flow.ingress_ifindex),
                packets: flow.packets,
                bytes: flow.bytes,
            },
            reply: Direction {
                source: end(&flow.new_destination_be, flow.new_destination_port),
                destination: end(&flow.new_source_be, flow.new_source_port),
                interface: self.interface(flow.egress_ifindex),
                packets: reply.map_or(0, |reply| reply.packets),
                bytes: reply.map_or(0, |reply| reply.bytes),
            },
            translated: flow.flags & flow_flags::TRANSLATED != 0,
            policy: names.policy(flow.policy),
            nat_rule: names.source_rule(flow.nat_rule),
            destination_rule: names.destination_rule(flow.destination_rule),
            from_zone: names.zone(flow.from_zone),
            to_zone: names.zone(flow.to_zone),
            age: Duration::from_nanos(self.now_ns.saturating_sub(flow.created_ns)),
            idle: Duration::from_nanos(self.now_ns.saturating_sub(last_seen_ns)),
            timeout: Duration::from_nanos(self.timeouts.of_flow(key, flow)),
        }
    }
}

/// A session is shown by its first direction, while it lives.
fn to_be_shown(flow: &Flow) -> bool {
    flow.flags & flow_flags::REPLY == 0 && flow.generation != flow_generation::DEAD
}

/// The flow under the key of a session's answers, if it is the session's own. Two first packets that cross leave two sessions
/// nobody has answered, each under the key of the other's answers.
fn own(first: &Flow, found: Option<Flow>) -> Option<Flow> {
    found.filter(|found| found.session_id == first.session_id)
}

/// Visits every session once, by its original direction.
fn for_each(shared: &Shared, visit: Visit<'_>) -> Result<(), TableError> {
    let view = View {
        shared,
        timeouts: Timeouts::in_force(shared)?,
        now_ns: now_ns(),
    };
    let maps = &shared.maps;
    for (table, established) in [(&maps.flows4, true), (&maps.half_open4, false)] {
        let mut failed = None;
        table.for_each(|key, flow| {
            if to_be_shown(flow) && failed.is_none() {
                match table.get(&flow.partner4()) {
                    Ok(found) => {
                        let reply = own(flow, found);
                        let session = view.session(4, &key.wide(), flow, reply.as_ref(), established);
                        visit(session, key.target().request(Operation::Clear, 0));
                    }
                    Err(error) => failed = Some(error),
                }
            }
        })?;
        failed.map_or(Ok(()), Err)?;
    }
    for (table, established) in [(&maps.flows6, true), (&maps.half_open6, false)] {
        let mut failed = None;
        table.for_each(|key, flow| {
            if to_be_shown(flow) && failed.is_none() {
                match table.get(&flow.partner6()) {
                    Ok(found) => visit(
                        view.session(6, key, flow, own(flow, found).as_ref(), established),
                        key.target().request(Operation::Clear, 0),
                    ),
                    Err(error) => failed = Some(error),
                }
            }
        })?;
        failed.map_or(Ok(()), Err)?;
    }
    Ok(())
}

impl Engine {
    /// The sessions that pass `filter`, at most `limit` of them, and how many there are.
    ///
    /// # Errors
    /// If a table cannot be read.
    pub fn sessions(
        &self,
        filter: &dyn Fn(&Session) -> bool,
        limit: usize,
    ) -> Result<SessionList, EngineError> {
        let mut list = SessionList::default();
        for_each(&self.shared, &mut |session, _| {
            if filter(&session) {
                list.total += 1;
                if list.sessions.len() < limit {
                    list.sessions.push(session);
                }
            }
        })?;
        Ok(list)
    }

    /// Ends the sessions that pass `filter`; how many ended.
    ///
    /// # Errors
    /// If a table cannot be read or the control program not be asked.
    pub fn clear_sessions(&self, filter: &dyn Fn(&Session) -> bool) -> Result<usize, EngineError> {
        let mut requests = Vec::new();
        for_each(&self.shared, &mut |session, request| {
            if filter(&session) {
                requests.push(request);
            }
        })?;
        let mut ended = 0;
        for request in &requests {
            ended += usize::from(self.shared.request(request)?);
        }
        Ok(ended)
    }
}
