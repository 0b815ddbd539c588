//! A packet between two zones that have routes: one that the configuration denies.
//!
//! Owns the choice of it, in each family one a turn: from a neighbour's address on one interface to a neighbour's on another,
//! as the mirror of the kernel's routes has them. It goes the whole way of a
//! new conversation up to policy and ends there by default: no session, no hit of a policy, no answer to anybody. Assumes that
//! mirror and tables agree, which the lock on the mirror says.
//!
//! Refuses what could leave a trace or end otherwise: a packet that a policy decides about (a permit makes a session; each
//! counts a hit, and a rejection is answered), addresses that translation knows, those that are not forwarded whatever
//! policy says. Where nothing is left, because some policy matches everything between all zones, there is no such packet,
//! and the questions in `policy` are all that is tried of policy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bulkhead_abi::{Reason, RouteKind, protocol};

use super::{
    PORT, SHOT, Trial,
    policy::{self, Ends},
    udp_lite,
};
use crate::{
    address::address,
    engine::{Live, attach::Interface},
    fib::Mirror,
    reference::{self, Membership as _, Tuple},
    ruleset::Ruleset,
};

/// Pairs of interfaces that a turn looks at.
const PAIRS: usize = 32;

/// A neighbour that there may be, on an interface.
struct End {
    address: IpAddr,
    zone: usize,
    index: u32,
    mac: [u8; 6],
}

/// The packet for this turn, the interface it comes in on, and its two ends.
pub(super) struct Crossing {
    pub(super) trial: Trial,
    pub(super) index: u32,
    pub(super) ends: (IpAddr, IpAddr),
}

/// One packet of a family, or none that is sound. `turn` goes round the pairs of interfaces.
pub(super) fn crossing(
    live: &Live,
    interfaces: &[Interface],
    mirror: &Mirror,
    v4: bool,
    port: u16,
    turn: u64,
) -> Option<Crossing> {
    let ends: Vec<End> = interfaces
        .iter()
        .filter_map(|interface| end(interface, mirror, v4))
        .filter(|end| !is_translated(&live.ruleset, &end.address))
        .collect();
    let count = ends.len() * ends.len();
    let pairs = (0..count).map(|step| (turn as usize).wrapping_add(step) % count);
    let pairs = pairs.filter_map(|pair| Some((ends.get(pair / ends.len())?, ends.get(pair % ends.len())?)));
    let pairs = pairs.filter(|(from, to)| from.zone != to.zone);
    let denied = pairs.take(policy::share(live, PAIRS)).find(|(from, to)| {
        let tuple = tuple(from, to);
        let ends = Ends::of(live, &tuple);
        !is_destination_of_translation(&live.ruleset, &ends, &tuple)
            && reference::destination_nat_among(&live.ruleset, &ends, from.zone, &tuple).is_none()
            && reference::first_match_among(&live.ruleset, &ends, from.zone, to.zone, &tuple).is_none()
    });
    let (from, to) = denied?;
    let question = policy::question(
        live.compiled.generation,
        policy::zone_number(from.zone),
        policy::zone_number(to.zone),
        &tuple(from, to),
    );
    Some(Crossing {
        trial: Trial {
            name: if v4 {
                "an IPv4 packet between zones"
            } else {
                "an IPv6 packet between zones"
            },
            frame: udp_lite(from.mac, (from.address, to.address), 64, port),
            code: SHOT,
            reason: Reason::DefaultDeny,
            question: Some(question),
        },
        index: from.index,
        ends: (from.address, to.address),
    })
}

fn tuple(from: &End, to: &End) -> Tuple {
    Tuple {
        source: from.address,
        destination: to.address,
        protocol: protocol::UDP_LITE,
        port: PORT,
    }
}

/// An address beside the interface's own that its link's route leads to. Nobody need have it.
fn end(interface: &Interface, mirror: &Mirror, v4: bool) -> Option<End> {
    let index = interface.index?;
    let facts = mirror.interface(index)?;
    let own = if v4 {
        address(4, &[facts.address4_be, 0, 0, 0])
    } else {
        address(6, &facts.address6_be)
    };
    // In the smallest networks there is one other; in others the first may be the network's, or ours as well.
    let address = (1..4).map(|step| beside(own, step)).find(|address| {
        is_forwarded(address)
            && mirror.route(*address).is_some_and(|route| {
                route.kind == RouteKind::Unicast as u32 && route.ifindex == index && route.gateway_family == 0
            })
    })?;
    Some(End {
        address,
        zone: interface.rule.zone,
        index,
        mac: facts.mac,
    })
}

/// Another address of the same network: the last two bits are others.
fn beside(address: IpAddr, step: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address) ^ u32::from(step)).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) ^ u128::from(step)).into(),
    }
}

/// Addresses without doubt such as are forwarded, be they source or destination: the pipeline refuses some that are on no list
/// here, and takes some that are.
fn is_forwarded(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let octets = address.octets();
            !matches!(octets, [0 | 127 | 224.., ..] | [169, 254, ..] | [192, 0, 0, _])
        }
        // Global addresses but for protocol assignments (2001::/23), and unique local ones.
        IpAddr::V6(address) => match address.segments() {
            [0x2001, second, ..] => second >= 0x200,
            [first, ..] => first >> 13 == 1 || first >> 9 == 0xfc00 >> 9,
        },
    }
}

/// Whether translation may know an address: what belongs to it does not go where routes lead.
fn is_translated(ruleset: &Ruleset, address: &IpAddr) -> bool {
    let pools = ruleset.pools.iter().flat_map(|pool| &pool.ranges);
    let mut fixed = ruleset
        .static_nat
        .iter()
        .flat_map(|rule| [&rule.outside, &rule.inside]);
    pools
        .into_iter()
        .any(|(first, last)| (first..=last).contains(&address))
        || fixed.any(|prefix| reference::covers(prefix, address))
}

/// Whether a rule of translation names one of a packet's addresses as a destination, with the members that groups have by now.
fn is_destination_of_translation(ruleset: &Ruleset, ends: &Ends, tuple: &Tuple) -> bool {
    let mut groups = ruleset.destination_nat.iter().flat_map(|rule| &rule.destination);
    groups.any(|group| ends.has(*group, &tuple.source) || ends.has(*group, &tuple.destination))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_is_what_is_forwarded() {
        for (text, forwarded) in [
            ("10.77.0.2", true),
            ("192.0.2.1", true),
            ("0.0.0.1", false),
            ("127.0.0.1", false),
            ("169.254.1.1", false),
            ("192.0.0.8", false),
            ("224.0.0.1", false),
            ("255.255.255.254", false),
            ("2001:db8::1", true),
            ("2001:2::1", false),
            ("fd77::2", true),
            ("fe80::2", false),
            ("::2", false),
            ("ff02::1", false),
            ("100::1", false),
        ] {
            assert_eq!(
                is_forwarded(&text.parse().expect("an address")),
                forwarded,
                "{text}"
            );
        }
    }

    #[test]
    fn beside_an_address_is_its_network() {
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert_eq!(beside(address("10.0.0.1"), 1), address("10.0.0.0"));
        assert_eq!(beside(address("10.0.0.1"), 2), address("10.0.0.3"));
        assert_eq!(beside(address("fd77::1"), 3), address("fd77::2"));
    }
}
