//! Source NAT: which address, and a port nobody else has towards that destination.
//!
//! Inserting the translated reply flow with "must not exist" *is* the reservation. Both session tables share one key
//! space: the flow goes into the half-open table first and the established one is looked at afterwards. A session moves
//! the other way round (inserted there, then removed here), so whoever holds the key is seen.

use bulkhead_abi::{Flow, FlowKey6, Interface, NatKey, Reason, protocol};

use crate::{Clock, Insert, Table, Tables};

/// Lowest port a changed port may become (RFC 4787 REQ-3, RFC 6056).
const LOWEST_PORT: u16 = 1024;

/// Tries at a random port before giving up. With 90 % of the ports taken, one session in 850 gives up.
const TRIES: u32 = 64;

/// Whether the zone pair is translated: the rule's index, and the address it translates to. Counts a hit if `hit`.
///
/// # Errors
/// [`Reason::NatNoAddress`] if it is, and the interface has no address of the family: sending the private source
/// out untranslated would be worse than not sending.
#[inline(always)]
pub(crate) fn source_address<E: Tables>(
    env: &E,
    key: &NatKey,
    family: u8,
    egress: &Interface,
    hit: bool,
) -> Result<Option<(u32, [u32; 4])>, Reason> {
    let Some(rule) = env.nat_rule(key, hit) else {
        return Ok(None);
    };
    if rule.translate == 0 {
        return Ok(None);
    }
    let address = if family == 4 {
        [egress.address4_be, 0, 0, 0]
    } else {
        egress.address6_be
    };
    if address == [0; 4] {
        Err(Reason::NatNoAddress)
    } else {
        Ok(Some((rule.rule, address)))
    }
}

/// Outcome of a reservation.
pub(crate) enum Reserved {
    /// The reply flow stands in the half-open table under this destination port.
    Port(u16),
    /// No port was free.
    Exhausted,
    /// The table is full.
    Full,
}

/// Inserts `reply` under `key`, trying other destination ports (which is what the translated source port is to the
/// reply) when `may_change`.
#[inline(always)]
pub(crate) fn reserve<E: Tables + Clock>(
    env: &E,
    family: u8,
    key: &mut FlowKey6,
    reply: &Flow,
    may_change: bool,
) -> Reserved {
    let wanted = key.destination_port;
    let query = matches!(reply.protocol, protocol::ICMP | protocol::ICMPV6);
    let tries = if may_change { TRIES } else { 1 };
    let mut outcome = Reserved::Exhausted;
    env.repeat(tries, |attempt| {
        if attempt > 0 {
            let span = u32::from(u16::MAX - LOWEST_PORT) + 1;
            let port = LOWEST_PORT + (env.random() % span) as u16;
            key.destination_port = port;
            if query {
                key.source_port = port;
            }
        }
        match env.insert_flow(Table::HalfOpen, family, key, reply) {
            Insert::Exists => false,
            Insert::Full => {
                outcome = Reserved::Full;
                true
            }
            Insert::Done => {
                if env.with_flow(Table::Established, family, key, |_| ()).is_some() {
                    env.remove_flow(Table::HalfOpen, family, key);
                    return false;
                }
                outcome = Reserved::Port(key.destination_port);
                true
            }
        }
    });
    if let Reserved::Port(port) = outcome
        && port != wanted
    {
        env.count(Reason::SLOT_NAT_PORTS_CHANGED);
    }
    outcome
}
