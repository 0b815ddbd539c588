//! SYNs of proxied sessions that a server has not answered: the one that opened such a session was this firewall's own, so
//! nobody repeats it when it is lost and the client, connected as far as it knows, waits for the server to speak first.
//!
//! Owns when, and the packet that asks for it: the acknowledgement with which the client proved its cookie, put back on the
//! interface it came from. The programs make a SYN of it as of one that the client repeats itself (`syn_proxy::repeat`), so
//! routes, policy and translation are those in force. Nothing is remembered here: every SYN that left is a packet of the
//! session's first direction, so the flow itself says how many there were and when the last one was (RFC 6298: one second,
//! then twice as long each time). What a client repeats counts too.
//!
//! Assumes nothing: of a session that was answered meanwhile the packet is an old acknowledgement; of one that is gone it is
//! what the client could send as well. Refuses wires: the stations of a frame that crosses one are not known here.

use std::net::IpAddr;

use bulkhead_abi::{Flow, FlowKey6, SessionState, flow_flags, flow_generation::DEAD};
use etherparse::PacketBuilder;

use crate::{address::address, inject::Injector};

/// SYNs of one session, the first one included: the last leaves half a minute after it.
const MOST: u64 = 6;
/// Before the second one, ns.
const FIRST_NS: u64 = 1_000_000_000;
/// Packets put back in one sweep; the others are due at the next one.
const AT_ONCE: usize = 1024;
/// Source station of these frames; the receiver of the SYN sees its interface's.
const NOBODY: [u8; 6] = [2, 0, 0, 0, 0, 0];

/// The packets due in one sweep.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    due: Vec<(u32, Vec<u8>)>,
    waiting: bool,
}

impl Repeats {
    /// Looks at a half-open flow.
    pub(super) fn see(&mut self, family: u8, key: &FlowKey6, flow: &Flow, now_ns: u64) {
        let Some(after_ns) = patience_ns(flow) else {
            return;
        };
        self.waiting = true;
        if now_ns.saturating_sub(flow.last_seen_ns) >= after_ns
            && self.due.len() < AT_ONCE
            && let Some(frame) = acknowledgement(family, key, flow)
        {
            self.due.push((flow.ingress_ifindex, frame));
        }
    }

    /// Puts the packets back. Returns whether any session waits for its server.
    pub(super) fn send(self, injector: &Injector) -> bool {
        for (ifindex, frame) in &self.due {
            if let Err(error) = injector.inject(*ifindex, frame) {
                // Due again at the next sweep.
                tracing::debug!(%error, ifindex, "a SYN could not be repeated");
            }
        }
        self.waiting
    }
}

/// How long after the last SYN the next one is due; `None` if none will be.
fn patience_ns(flow: &Flow) -> Option<u64> {
    let waits = flow.flags & (flow_flags::PROXIED | flow_flags::REPLY) == flow_flags::PROXIED
        && flow.state == SessionState::TcpSynSent as u8
        && flow.generation != DEAD;
    (waits && (1..MOST).contains(&flow.packets)).then(|| FIRST_NS << (flow.packets - 1))
}

/// The client's acknowledgement of the SYN+ACK it was given, as a frame to its interface.
fn acknowledgement(family: u8, key: &FlowKey6, flow: &Flow) -> Option<Vec<u8>> {
    let ([a, b], [c, d, e, f]) = (
        flow.ingress_mac_high.to_ne_bytes(),
        flow.ingress_mac_low.to_ne_bytes(),
    );
    let link = PacketBuilder::ethernet2(NOBODY, [a, b, c, d, e, f]);
    let source = address(family, &key.source_be);
    let network = match (source, address(family, &key.destination_be)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => link.ipv6(from.octets(), to.octets(), 64),
        _ => return None,
    };
    // Before the server has answered its numbers are taken to begin at 0, so the difference is what the client expects.
    let expected = 0u32.wrapping_sub(flow.tcp_delta);
    let segment = network
        .tcp(
            key.source_port,
            key.destination_port,
            flow.tcp_end,
            flow.tcp_window,
        )
        .ack(expected);
    let mut frame = Vec::new();
    segment.write(&mut frame, &[]).ok()?;
    Some(frame)
}

#[cfg(test)]
mod tests {
    use bulkhead_testkit::verify_checksums;
    use etherparse::{PacketHeaders, TransportHeader};

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn waiting() -> Flow {
        Flow {
            packets: 1,
            last_seen_ns: 5 * SECOND,
            generation: 3,
            ingress_ifindex: 7,
            state: SessionState::TcpSynSent as u8,
            flags: flow_flags::PROXIED,
            tcp_end: 1001,
            tcp_window: 500,
            tcp_delta: 0u32.wrapping_sub(0xdead_beef),
            ingress_mac_high: u16::from_ne_bytes([2, 1]),
            ingress_mac_low: u32::from_ne_bytes([2, 3, 4, 5]),
            ..Flow::default()
        }
    }

    fn key() -> FlowKey6 {
        FlowKey6 {
            source_be: [u32::from_ne_bytes([10, 1, 0, 2]), 0, 0, 0],
            destination_be: [u32::from_ne_bytes([192, 0, 2, 80]), 0, 0, 0],
            source_port: 4000,
            destination_port: 21,
            protocol: 6,
        }
    }

    /// When it is repeated, seconds after the first one, if nobody ever answers.
    #[test]
    fn a_syn_is_repeated_a_few_times_with_growing_patience() {
        let (mut flow, mut repeated) = (waiting(), Vec::new());
        for seconds in 0..200 {
            let mut repeats = Repeats::default();
            let now_ns = (5 + seconds) * SECOND;
            repeats.see(4, &key(), &flow, now_ns);
            if !repeats.due.is_empty() {
                repeated.push(seconds);
                (flow.packets, flow.last_seen_ns) = (flow.packets + 1, now_ns);
            }
        }
        assert_eq!(repeated, [1, 3, 7, 15, 31]);
    }

    #[test]
    fn only_what_waits_for_its_server_is_repeated() {
        let others = [
            Flow {
                flags: 0,
                ..waiting()
            },
            Flow {
                flags: flow_flags::PROXIED | flow_flags::REPLY,
                ..waiting()
            },
            Flow {
                state: SessionState::TcpEstablished as u8,
                ..waiting()
            },
            Flow {
                generation: DEAD,
                ..waiting()
            },
            Flow {
                packets: 6,
                ..waiting()
            },
        ];
        for flow in others {
            let mut repeats = Repeats::default();
            repeats.see(4, &key(), &flow, 1000 * SECOND);
            assert!(repeats.due.is_empty() && !repeats.waiting, "{flow:?}");
        }
    }

    #[test]
    fn the_packet_is_the_clients_acknowledgement() {
        let six = FlowKey6 {
            source_be: [u32::from_ne_bytes([0xfd, 0, 0, 0]), 0, 0, 1],
            destination_be: [u32::from_ne_bytes([0xfd, 0, 0, 0]), 0, 0, 2],
            ..key()
        };
        for (family, key) in [(4, key()), (6, six)] {
            let mut repeats = Repeats::default();
            repeats.see(family, &key, &waiting(), 6 * SECOND);
            let [(7, frame)] = repeats.due.as_slice() else {
                panic!("{repeats:?}");
            };
            verify_checksums(frame).expect("right checksums");
            assert_eq!(frame[..6], [2, 1, 2, 3, 4, 5]);
            let headers = PacketHeaders::from_ethernet_slice(frame).expect("a packet");
            let Some(TransportHeader::Tcp(tcp)) = headers.transport else {
                panic!("no TCP");
            };
            assert_eq!((tcp.source_port, tcp.destination_port), (4000, 21));
            assert_eq!(
                (tcp.sequence_number, tcp.acknowledgment_number, tcp.window_size),
                (1001, 0xdead_beef, 500)
            );
            assert!(tcp.ack && !tcp.syn && !tcp.rst && !tcp.fin);
        }
    }
}
