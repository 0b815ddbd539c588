//! What would happen to a packet: the pipeline's own decision code over the live tables.

mod tables;

use std::net::{IpAddr, SocketAddr};

use bulkhead_abi::{
    Flow, FlowKey6, Interface, PolicyAction, Reason, RouteEntry, RouteKind, RuleSet, ZONE_SELF,
    interface_flags, protocol,
};
use bulkhead_packet::Packet;
use bulkhead_pipeline::{Question, Table, Tables as _, Work, decide, nat};

pub(super) use self::tables::ReadOnly;
use super::{Engine, EngineError, lock, names::Names};
use crate::{
    address::{address, family, words},
    reference,
    ruleset::Ruleset,
};

/// The packet asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explain {
    /// Interface it comes in on, or a zone (its first interface then).
    pub ingress: String,
    /// Source.
    pub source: IpAddr,
    /// Destination.
    pub destination: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// Source port; ICMP: identifier.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// ICMP type and code.
    pub icmp: Option<(u8, u8)>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// `permit`, `deny` or `reject`.
    pub verdict: &'static str,
    /// The reason that would be counted.
    pub reason: Reason,
    /// Source zone.
    pub from_zone: String,
    /// Destination zone; `self`: the firewall itself.
    pub to_zone: String,
    /// Ingress interface.
    pub ingress: String,
    /// Egress interface.
    pub egress: Option<String>,
    /// Next hop, if it is a router.
    pub gateway: Option<IpAddr>,
    /// The policy that decides.
    pub policy: Option<String>,
    /// Groups the source is in.
    pub source_groups: Vec<String>,
    /// Groups the destination, as policy sees it, is in.
    pub destination_groups: Vec<String>,
    /// Services the packet belongs to.
    pub services: Vec<String>,
    /// The source NAT rule, also one that says "off".
    pub nat_rule: Option<String>,
    /// Source address after translation; of a pool that does not pair addresses, one of them.
    pub translated_source: Option<IpAddr>,
    /// The destination NAT rule, also one that says "off"; `None` if the destination is a persistent mapping.
    pub destination_rule: Option<String>,
    /// Destination after translation; the port is 0 where the protocol has none.
    pub translated_destination: Option<SocketAddr>,
    /// Number of the session this packet would belong to already.
    pub existing_session: Option<u64>,
    /// Why answers would be dropped, though the conversation is permitted.
    pub answer_dropped: Option<Reason>,
}

impl Engine {
    /// Names of the groups that have an address.
    fn groups_with(&self, address: &IpAddr) -> Vec<String> {
        lock(&self.shared.live).groups_with(address)
    }

    /// Says what would happen to the first packet of a conversation, from the tables in force.
    ///
    /// # Errors
    /// If the interface or zone is unknown, or the addresses are of different families.
    pub fn explain(&self, question: &Explain) -> Result<Explanation, EngineError> {
        let ruleset = self.ruleset();
        let names = Names::of(&ruleset);
        if question.source.is_ipv4() != question.destination.is_ipv4() {
            return Err(EngineError::Question(
                "source and destination are of different families".to_owned(),
            ));
        }
        let (ingress, ifindex) = self.ingress(&ruleset, &question.ingress)?;
        let env = ReadOnly {
            maps: &self.shared.maps,
            wired: self.shared.wired,
        };
        let mut work = Box::<Work>::default();
        let live = env.live();
        work.generation = live.generation;
        work.tables = live.tables;
        work.ifindex = ifindex;
        work.packet = packet(question);
        let from_zone = env.zone(work.tables, ifindex).unwrap_or(ZONE_SELF);
        let mut explanation = Explanation {
            verdict: "deny",
            reason: Reason::NotConfigured,
            from_zone: names.zone(from_zone),
            to_zone: String::new(),
            ingress,
            egress: None,
            gateway: None,
            policy: None,
            source_groups: self.groups_with(&question.source),
            destination_groups: self.groups_with(&question.destination),
            services: Vec::new(),
            nat_rule: None,
            translated_source: None,
            destination_rule: None,
            translated_destination: None,
            existing_session: self.existing(&env, question, work.packet.family),
            answer_dropped: None,
        };
        if work.generation != 0
            && let Err(reason) = self.follow(&env, (&ruleset, &names), from_zone, &mut work, &mut explanation)
        {
            explanation.verdict = if reason == Reason::PolicyReject {
                "reject"
            } else {
                "deny"
            };
            explanation.reason = reason;
        }
        Ok(explanation)
    }

    /// The packet's way, as the pipeline goes it: destination, route, policy, source.
    fn follow(
        &self,
        env: &ReadOnly<'_>,
        (ruleset, names): (&Ruleset, &Names),
        from_zone: u8,
        work: &mut Work,
        explanation: &mut Explanation,
    ) -> Result<(), Reason> {
        let family = work.packet.family;
        nat::destination(env, work, from_zone)?;
        let t = work.translation;
        let destination = address(family, &t.new_destination_be);
        let transport = matches!(work.packet.protocol, protocol::TCP | protocol::UDP);
        let port = if transport {
            t.new_destination_port
        } else {
            work.packet.service_port()
        };
        explanation.destination_rule = names.destination_rule(t.matched_destination);
        if t.translated {
            let port = if transport { port } else { 0 };
            explanation.translated_destination = Some((destination, port).into());
            explanation.destination_groups = self.groups_with(&destination);
        }
        explanation.services = (0..ruleset.services.len())
            .filter(|index| reference::in_service(ruleset, *index, work.packet.protocol, port))
            .map(|index| ruleset.services[index].name.clone())
            .collect();
        let to_zone = self.way_out(env, from_zone, work, explanation)?;
        explanation.to_zone = names.zone(to_zone);
        if t.translated && to_zone == ZONE_SELF {
            return Err(Reason::NatUnsupported);
        }
        work.question = Question {
            source_be: work.packet.source_be,
            destination_be: t.new_destination_be,
            generation: work.tables,
            port,
            protocol: work.packet.protocol,
            family,
            from_zone,
            to_zone,
            set: RuleSet::Policy,
        };
        let number = decide(env, &work.question, &mut work.walk);
        let rule = env
            .rule(work.tables, number, false)
            .ok_or(if to_zone == ZONE_SELF {
                Reason::HostInboundDeny
            } else {
                Reason::DefaultDeny
            })?;
        explanation.policy = names.policy(rule.policy);
        if rule.action == PolicyAction::Reject as u8 {
            return Err(Reason::PolicyReject);
        }
        if rule.action != PolicyAction::Permit as u8 {
            return Err(Reason::PolicyDeny);
        }
        explanation.verdict = "permit";
        explanation.reason = Reason::ToHost;
        if to_zone != ZONE_SELF {
            explanation.reason = Reason::SessionCreated;
            let translated = nat::source(env, work);
            let t = &work.translation;
            explanation.nat_rule = names.source_rule(t.matched_source);
            translated?;
            if t.source_rule != u32::MAX {
                explanation.translated_source = Some(address(family, &t.address_be));
            }
            explanation.answer_dropped = way_back(env, work, from_zone);
        }
        Ok(())
    }

    /// Zone and interface that the route leads to.
    fn way_out(
        &self,
        env: &ReadOnly<'_>,
        from_zone: u8,
        work: &mut Work,
        explanation: &mut Explanation,
    ) -> Result<u8, Reason> {
        let owned = nat::owned(env, work);
        let belongs = |zone: u8| owned >> (zone & 63) & 1 != 0;
        let destination_be = work.translation.new_destination_be;
        let mut route = RouteEntry::default();
        if env.wired() {
            let mut end = Interface::default();
            if !env.interface(work.ifindex, &mut end) || end.wire_peer == 0 {
                return Err(Reason::WireBroken);
            }
            route.ifindex = end.wire_peer;
        } else if !env.route(work.packet.family, &destination_be, &mut route)
            || route.kind == RouteKind::Reject as u32
        {
            return Err(if belongs(from_zone) {
                Reason::NatNoMapping
            } else {
                Reason::NoRoute
            });
        }
        if route.kind != RouteKind::Unicast as u32 {
            return Ok(ZONE_SELF);
        }
        work.out_ifindex = route.ifindex;
        explanation.egress = Some(self.shared.interface_name(route.ifindex));
        explanation.gateway =
            (route.gateway_family != 0).then(|| address(route.gateway_family as u8, &route.gateway_be));
        let guarded =
            env.interface(route.ifindex, &mut work.egress) && work.egress.flags & interface_flags::DATA != 0;
        let to_zone = env.zone(work.tables, route.ifindex).filter(|_| guarded);
        let to_zone = to_zone.ok_or(Reason::EgressNotGuarded)?;
        if belongs(from_zone) || belongs(to_zone) {
            return Err(Reason::NatNoMapping);
        }
        Ok(to_zone)
    }

    /// The interface meant by an interface or zone name.
    fn ingress(&self, ruleset: &Ruleset, name: &str) -> Result<(String, u32), EngineError> {
        let zone = ruleset.zones.iter().position(|zone| zone.name == name);
        let interfaces = super::lock(&self.shared.interfaces);
        let found = interfaces
            .iter()
            .find(|interface| interface.rule.name == name)
            .or_else(|| {
                interfaces
                    .iter()
                    .find(|interface| zone == Some(interface.rule.zone))
            });
        match found.and_then(|interface| Some((interface.rule.name.clone(), interface.index?))) {
            Some(found) => Ok(found),
            None => {
                let mut known: Vec<&str> = interfaces.iter().map(|i| i.rule.name.as_str()).collect();
                known.extend(ruleset.zones.iter().map(|zone| zone.name.as_str()));
                Err(EngineError::Question(format!(
                    "{name} is neither a data interface nor a zone; there are: {}",
                    known.join(", ")
                )))
            }
        }
    }

    fn existing(&self, env: &ReadOnly<'_>, question: &Explain, family: u8) -> Option<u64> {
        let key = FlowKey6 {
            source_be: words(question.source),
            destination_be: words(question.destination),
            source_port: question.source_port,
            destination_port: if question.icmp.is_some() {
                question.source_port
            } else {
                question.destination_port
            },
            protocol: u32::from(question.protocol),
        };
        let found = [Table::Established, Table::HalfOpen]
            .into_iter()
            .find_map(|table| env.with_flow(table, family, &key, |flow| flow.session_id));
        // Nobody has answered yet: there is an entry of the other direction alone.
        found.or_else(|| {
            let turned = FlowKey6 {
                source_be: key.destination_be,
                destination_be: key.source_be,
                source_port: key.destination_port,
                destination_port: key.source_port,
                protocol: key.protocol,
            };
            let alone = |flow: &mut Flow| (flow.unanswered != 0).then_some(flow.session_id);
            env.with_flow(Table::HalfOpen, family, &turned, alone).flatten()
        })
    }
}

/// Why nothing would get back to the source: answers leave by its own zone, or not at all.
fn way_back(env: &ReadOnly<'_>, work: &Work, from_zone: u8) -> Option<Reason> {
    if env.wired() {
        return None;
    }
    let mut route = RouteEntry::default();
    if !env.route(work.packet.family, &work.packet.source_be, &mut route)
        || route.kind != RouteKind::Unicast as u32
    {
        return Some(Reason::NoRoute);
    }
    let mut egress = Interface::default();
    let guarded = env.interface(route.ifindex, &mut egress) && egress.flags & interface_flags::DATA != 0;
    match env.zone(work.tables, route.ifindex).filter(|_| guarded) {
        None => Some(Reason::EgressNotGuarded),
        Some(zone) if zone != from_zone => Some(Reason::PolicyChanged),
        Some(_) => None,
    }
}

/// The packet asked about, as far as decisions look at it.
fn packet(question: &Explain) -> Packet {
    let identifier = question.icmp.is_some();
    Packet {
        source_be: words(question.source),
        destination_be: words(question.destination),
        source_port: question.source_port,
        destination_port: if identifier {
            question.source_port
        } else {
            question.destination_port
        },
        icmp: question
            .icmp
            .map_or(0, |(kind, code)| u16::from(kind) << 8 | u16::from(code)),
        family: family(&question.source),
        protocol: question.protocol,
        ..Packet::default()
    }
}
