//! What would happen to a packet: the pipeline's own decision code over the live tables.

use std::net::IpAddr;

use bulkhead_abi::{
    Decision, DecisionKey, Event, Flow, FlowKey6, Interface, LimitKey, LimitRule, Live, NatKey, NatRule,
    NeighbourKey, PolicyAction, PolicyKey, PolicyRule, PrefixKey4, PrefixKey6, RateState, Reason, Route4Key,
    Route6Key, RouteEntry, RouteKind, RuleSet, ScanState, ScreenKey, ScreenProfile, ServiceKey, SynGuardKey,
    Tally, TimeoutKey, VectorKey, ZONE_SELF, ZoneKey, interface_flags, protocol,
};
use bulkhead_packet::{HeaderBuffer, PlainLoop, Repeat};
use bulkhead_pipeline::{Insert, Limiter, NO_COOKIE, Question, Table, Tables, Walk, decide};

use super::{Engine, EngineError, rule_name, zone_name};
use crate::{
    address::{address, family, words},
    bpf::KernelMaps,
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
    /// Groups the destination is in.
    pub destination_groups: Vec<String>,
    /// Services the packet belongs to.
    pub services: Vec<String>,
    /// The source NAT rule.
    pub nat_rule: Option<String>,
    /// Source address after translation.
    pub translated_source: Option<IpAddr>,
    /// Number of the session this packet would belong to already.
    pub existing_session: Option<u64>,
}

/// The live tables, read-only: what would change them does nothing.
struct ReadOnly<'a> {
    maps: &'a KernelMaps,
    wired: bool,
}

impl Repeat for ReadOnly<'_> {
    fn repeat(&self, times: u32, f: impl FnMut(u32) -> bool) {
        PlainLoop.repeat(times, f);
    }
}

/// An unreadable table counts as empty: the explanation then says "denied by default", as the packet would be.
fn present<V>(result: Result<Option<V>, crate::table::TableError>) -> Option<V> {
    result.unwrap_or_else(|error| {
        tracing::warn!(%error, "explain could not read a table");
        None
    })
}

impl Tables for ReadOnly<'_> {
    fn wired(&self) -> bool {
        self.wired
    }
    fn live(&self) -> Live {
        present(self.maps.live.get(&0)).unwrap_or_default()
    }
    fn timeout_ns(&self, _: u32, _: u8) -> u64 {
        u64::MAX
    }
    fn permitted(&self, _: u32, _: Limiter, _: u64) -> bool {
        false
    }
    fn zone(&self, generation: u32, ifindex: u32) -> Option<u8> {
        present(self.maps.zones.get(&ZoneKey { generation, ifindex }))
            .and_then(|zone| u8::try_from(zone).ok())
    }
    fn interface(&self, ifindex: u32, to: &mut Interface) -> bool {
        present(self.maps.interfaces.get(&ifindex))
            .map(|interface| *to = interface)
            .is_some()
    }
    fn address_class(&self, generation: u32, family: u8, a: &[u32; 4]) -> u32 {
        let found = if family == 4 {
            let address_be = a[0];
            present(self.maps.hosts4.get(&bulkhead_abi::HostKey4 {
                generation,
                address_be,
            }))
            .or_else(|| {
                present(self.maps.prefixes4.get(&PrefixKey4 {
                    bits: 64,
                    generation,
                    address_be,
                }))
            })
        } else {
            let address_be = *a;
            present(self.maps.hosts6.get(&bulkhead_abi::HostKey6 {
                generation,
                address_be,
            }))
            .or_else(|| {
                present(self.maps.prefixes6.get(&PrefixKey6 {
                    bits: 160,
                    generation,
                    address_be,
                }))
            })
        };
        found.unwrap_or(0)
    }
    fn service_class(&self, generation: u32, protocol: u8, port: u16) -> u32 {
        let key = ServiceKey {
            bits: 64,
            generation,
            reserved: 0,
            protocol,
            port_be: port.to_be(),
        };
        present(self.maps.services.get(&key)).unwrap_or(0)
    }
    fn vector_top(&self, key: &VectorKey) -> u64 {
        present(self.maps.vector_tops.get(key)).unwrap_or(0)
    }
    fn vector_summary(&self, key: &VectorKey) -> u64 {
        present(self.maps.vector_pages.get(key)).map_or(0, |page| page.summary)
    }
    fn vector_word(&self, key: &VectorKey, word: u32) -> u64 {
        present(self.maps.vector_pages.get(key)).map_or(0, |page| page.words[word as usize & 63])
    }
    fn rule(&self, generation: u32, rule: u32, _: bool) -> Option<PolicyRule> {
        present(self.maps.rules.get(&PolicyKey { generation, rule }))
    }
    fn cached_decision(&self, _: &DecisionKey) -> Option<Decision> {
        // Decided afresh, so that explain does not repeat what a stale cache would say.
        None
    }
    fn cache_decision(&self, _: &DecisionKey, _: Decision) {}
    fn nat_rule(&self, key: &NatKey, _: bool) -> Option<NatRule> {
        present(self.maps.nat_rules.get(key))
    }
    fn with_flow<R>(
        &self,
        table: Table,
        family: u8,
        key: &FlowKey6,
        f: impl FnOnce(&mut Flow) -> R,
    ) -> Option<R> {
        let key4 = bulkhead_abi::FlowKey4 {
            source_be: key.source_be[0],
            destination_be: key.destination_be[0],
            source_port: key.source_port,
            destination_port: key.destination_port,
            protocol: key.protocol,
        };
        let found = match (table, family) {
            (Table::Established, 4) => self.maps.flows4.get(&key4),
            (Table::Established, _) => self.maps.flows6.get(key),
            (Table::HalfOpen, 4) => self.maps.half_open4.get(&key4),
            (Table::HalfOpen, _) => self.maps.half_open6.get(key),
        };
        present(found).map(|mut copy| f(&mut copy))
    }
    fn insert_flow(&self, _: Table, _: u8, _: &FlowKey6, _: &Flow) -> Insert {
        Insert::Full
    }
    fn remove_flow(&self, _: Table, _: u8, _: &FlowKey6) {}
    fn route(&self, family: u8, address_be: &[u32; 4], to: &mut RouteEntry) -> bool {
        let found = if family == 4 {
            self.maps.routes4.get(&Route4Key {
                bits: 32,
                address_be: address_be[0],
            })
        } else {
            self.maps.routes6.get(&Route6Key {
                bits: 128,
                address_be: *address_be,
            })
        };
        present(found).map(|entry| *to = entry).is_some()
    }
    fn neighbour(&self, key: &NeighbourKey) -> Option<u64> {
        present(self.maps.neighbours.get(key))
    }
    fn tcp_rules(&self, _: u32) -> u32 {
        0
    }
    fn tcp_mss(&self, _: u32) -> u32 {
        0
    }
    fn count(&self, _: u32) {}
    fn gateways(&self, _: u32) -> u32 {
        0
    }
    fn take_expectation(&self, _: &bulkhead_abi::ExpectKey, _: &mut bulkhead_abi::Expectation) -> bool {
        false
    }
    fn expect(&self, _: &bulkhead_abi::ExpectKey, _: &bulkhead_abi::Expectation) {}
    fn emit(&self, _: &Event) {}
    fn swap_generation(&self, _: Table, _: u8, _: &FlowKey6, _: u64, _: u32, _: u32) -> Option<u32> {
        None
    }
    fn end_flow(&self, _: Table, _: u8, _: &FlowKey6, _: u64) -> Option<bool> {
        None
    }
    fn service_timeout_s(&self, generation: u32, service: u32) -> u32 {
        present(
            self.maps
                .service_timeouts
                .get(&TimeoutKey { generation, service }),
        )
        .unwrap_or(0)
    }
    fn limit_rule(&self, _: u32, _: u8) -> LimitRule {
        LimitRule::default()
    }
    fn count_session(&self, _: &LimitKey, _: i64) -> i64 {
        0
    }
    fn tally(&self, _: Tally) {}
    fn screens(&self, generation: u32, zone: u8, to: &mut ScreenProfile) -> bool {
        let index = ScreenProfile::index(generation, zone);
        present(self.maps.screens.get(&index))
            .filter(|profile| profile.enabled != 0)
            .map(|profile| *to = profile)
            .is_some()
    }
    fn count_screen(&self, _: u8, _: u32, _: bool) {}
    fn rate(&self, key: &ScreenKey, _: u64, _: u32, _: u32, _: u64) -> u64 {
        self.rate_state(key).map_or(0, |state| state.packets)
    }
    fn rate_state(&self, key: &ScreenKey) -> Option<RateState> {
        present(self.maps.screen_rates.get(key))
    }
    fn with_scan<R>(&self, key: &ScreenKey, _: &ScanState, f: impl FnOnce(&mut ScanState) -> R) -> Option<R> {
        present(self.maps.screen_scans.get(key)).map(|mut copy| f(&mut copy))
    }

    // SYN cookies
    fn syn_guard(&self, key: &SynGuardKey) -> u64 {
        present(self.maps.syn_guard.get(key)).unwrap_or(0)
    }
    fn set_syn_guard(&self, _: &SynGuardKey, _: u64) {}
    fn make_cookie(&self, _: &mut HeaderBuffer, _: u8, _: u32) -> u64 {
        NO_COOKIE
    }
    fn proves_cookie(&self, _: &mut HeaderBuffer, _: u8) -> bool {
        false
    }
}

impl Engine {
    /// Says what would happen to the first packet of a conversation, from the tables in force.
    ///
    /// # Errors
    /// If the interface or zone is unknown, or the addresses are of different families.
    pub fn explain(&self, question: &Explain) -> Result<Explanation, EngineError> {
        let ruleset = self.ruleset();
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
        let generation = env.live().generation;
        let from_zone = env.zone(generation, ifindex).unwrap_or(ZONE_SELF);
        let family = family(&question.source);
        let port = match (question.protocol, question.icmp) {
            (protocol, _) if protocol::has_ports(protocol) => question.destination_port,
            (_, Some((kind, code))) => u16::from(kind) << 8 | u16::from(code),
            _ => 0,
        };
        let mut explanation = Explanation {
            verdict: "deny",
            reason: Reason::NotConfigured,
            from_zone: zone_name(&ruleset, from_zone),
            to_zone: String::new(),
            ingress,
            egress: None,
            gateway: None,
            policy: None,
            source_groups: groups(&ruleset, &question.source),
            destination_groups: groups(&ruleset, &question.destination),
            services: (0..ruleset.services.len())
                .filter(|index| reference::in_service(&ruleset, *index, question.protocol, port))
                .map(|index| ruleset.services[index].name.clone())
                .collect(),
            nat_rule: None,
            translated_source: None,
            existing_session: self.existing(&env, question, family),
        };
        if generation == 0 {
            return Ok(explanation);
        }
        let mut route = RouteEntry::default();
        if env.wired() {
            let mut end = Interface::default();
            if !env.interface(ifindex, &mut end) || end.wire_peer == 0 {
                explanation.reason = Reason::WireBroken;
                return Ok(explanation);
            }
            route.ifindex = end.wire_peer;
        } else if !env.route(family, &words(question.destination), &mut route) {
            explanation.reason = Reason::NoRoute;
            return Ok(explanation);
        }
        let mut egress = Interface::default();
        let to_zone = if route.kind == RouteKind::Unicast as u32 {
            explanation.egress = Some(self.shared.interface_name(route.ifindex));
            explanation.gateway =
                (route.gateway_family != 0).then(|| address(route.gateway_family as u8, &route.gateway_be));
            let guarded =
                env.interface(route.ifindex, &mut egress) && egress.flags & interface_flags::DATA != 0;
            match env.zone(generation, route.ifindex).filter(|_| guarded) {
                Some(zone) => zone,
                None => {
                    explanation.reason = Reason::EgressNotGuarded;
                    return Ok(explanation);
                }
            }
        } else if route.kind == RouteKind::Reject as u32 {
            explanation.reason = Reason::NoRoute;
            return Ok(explanation);
        } else {
            ZONE_SELF
        };
        explanation.to_zone = zone_name(&ruleset, to_zone);
        let asked = Question {
            source_be: words(question.source),
            destination_be: words(question.destination),
            generation,
            port,
            protocol: question.protocol,
            family,
            from_zone,
            to_zone,
            set: RuleSet::Policy,
        };
        let number = decide(&env, &asked, &mut Walk::default());
        match env.rule(generation, number, false) {
            None => {
                explanation.reason = if to_zone == ZONE_SELF {
                    Reason::HostInboundDeny
                } else {
                    Reason::DefaultDeny
                };
            }
            Some(rule) => {
                explanation.policy = rule_name(&ruleset.policies, rule.policy, |policy| &policy.name);
                (explanation.verdict, explanation.reason) = match rule.action {
                    action if action == PolicyAction::Permit as u8 && to_zone == ZONE_SELF => {
                        ("permit", Reason::ToHost)
                    }
                    action if action == PolicyAction::Permit as u8 => ("permit", Reason::SessionCreated),
                    action if action == PolicyAction::Reject as u8 => ("reject", Reason::PolicyReject),
                    _ => ("deny", Reason::PolicyDeny),
                };
            }
        }
        if explanation.verdict == "permit" && to_zone != ZONE_SELF {
            let key = NatKey {
                generation,
                zones: u32::from(from_zone) << 16 | u32::from(to_zone),
            };
            if let Some(rule) = env.nat_rule(&key, false) {
                explanation.nat_rule = rule_name(&ruleset.source_nat, rule.rule, |rule| &rule.name);
                if rule.translate != 0 {
                    let own = if family == 4 {
                        [egress.address4_be, 0, 0, 0]
                    } else {
                        egress.address6_be
                    };
                    if own == [0; 4] {
                        explanation.verdict = "deny";
                        explanation.reason = Reason::NatNoAddress;
                    } else {
                        explanation.translated_source = Some(address(family, &own));
                    }
                }
            }
        }
        Ok(explanation)
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
        [Table::Established, Table::HalfOpen]
            .into_iter()
            .find_map(|table| env.with_flow(table, family, &key, |flow| flow.session_id))
    }
}

fn groups(ruleset: &Ruleset, address: &IpAddr) -> Vec<String> {
    (0..ruleset.groups.len())
        .filter(|index| reference::in_group(ruleset, *index, address))
        .map(|index| ruleset.groups[index].name.clone())
        .collect()
}
