//! What the engine says of itself: interfaces, counters, hits.

use std::{collections::BTreeMap, sync::atomic::Ordering};

use bulkhead_abi::{Reason, RuleSet, STATIC_RULE};

use super::{Engine, EngineError, attach::Interface, lock};
use crate::{memory::TableMemory, netlink::Family, preflight::hook};

/// A data interface as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceStatus {
    /// Name.
    pub name: String,
    /// Kernel index while it exists.
    pub index: Option<u32>,
    /// Zone.
    pub zone: String,
    /// What drives it.
    pub kind: String,
    /// MAC address.
    pub mac: [u8; 6],
    /// MTU, bytes of layer 3.
    pub mtu: u32,
    /// Up and carrying.
    pub up: bool,
    /// Addresses with prefix lengths.
    pub addresses: Vec<String>,
    /// `tcx`, `xdp+tcx` or `none`; with `clsact` for `tcx` where the kernel has no TCX.
    pub hook: &'static str,
    /// Why that hook.
    pub reason: String,
    /// Whether the programs are attached.
    pub attached: bool,
    /// Whether the kernel is forbidden to forward from it, in both families.
    pub fails_closed: bool,
    /// Programs that somebody else took off or replaced and that were put back, since the engine started.
    pub restored: u64,
    /// What would lose packets or speed.
    pub warnings: Vec<String>,
}

/// Sessions that NAT rules decided about, each by the rule's index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatHits {
    /// Source rules.
    pub source: Vec<u64>,
    /// Destination rules.
    pub destination: Vec<u64>,
    /// Static rules: sessions from outside, and from inside.
    pub static_: Vec<(u64, u64)>,
}

/// What would lose packets or speed on an interface.
fn warnings(interface: &Interface) -> Vec<String> {
    let choice = interface.choice.as_ref();
    let mut warnings = choice.map(|choice| choice.warnings.clone()).unwrap_or_default();
    if let Some(trouble) = &interface.trouble {
        let meanwhile = if interface.attached() {
            "TCX alone forwards meanwhile"
        } else {
            "nothing is forwarded meanwhile"
        };
        warnings.push(format!(
            "a program was taken off or replaced by somebody else and cannot be put back; {meanwhile}: {trouble}"
        ));
    }
    if interface.restored != 0 {
        warnings.push(format!(
            "{} program(s) were taken off or replaced by somebody else and put back since the start: see who else attaches \
             programs here (`bpftool net`, `tc filter`)",
            interface.restored
        ));
    }
    warnings
}

impl Engine {
    /// All data interfaces.
    ///
    /// # Errors
    /// If the kernel's tables cannot be read.
    pub fn interfaces(&self) -> Result<Vec<InterfaceStatus>, EngineError> {
        let ruleset = self.ruleset();
        let interfaces = lock(&self.shared.interfaces);
        let mut fib = lock(&self.shared.fib);
        let links = fib.netlink.links()?;
        let addresses = fib.netlink.addresses()?;
        let rules = fib.netlink.blackhole_rules()?;
        let status = interfaces.iter().map(|interface| {
            let name = &interface.rule.name;
            let link = links.iter().find(|link| &link.name == name);
            let choice = interface.choice.as_ref();
            InterfaceStatus {
                name: name.clone(),
                index: link.map(|link| link.index),
                zone: ruleset
                    .zones
                    .get(interface.rule.zone)
                    .map(|zone| zone.name.clone())
                    .unwrap_or_default(),
                kind: link.map(|link| link.kind.to_string()).unwrap_or_default(),
                mac: link.map(|link| link.mac).unwrap_or_default(),
                mtu: link.map_or(0, |link| link.mtu),
                up: link.is_some_and(|link| link.running),
                addresses: addresses
                    .iter()
                    .filter(|address| link.is_some_and(|link| link.index == address.index))
                    .map(|address| format!("{}/{}", address.address, address.prefix_len))
                    .collect(),
                hook: if interface.attached() {
                    hook::name(interface.has_xdp(), choice.is_some_and(|choice| choice.clsact))
                } else {
                    "none"
                },
                reason: choice.map(|choice| choice.reason.clone()).unwrap_or_default(),
                attached: interface.attached(),
                fails_closed: Family::ALL.iter().all(|family| {
                    rules
                        .iter()
                        .any(|rule| rule.family == *family && &rule.interface == name)
                }),
                restored: interface.restored,
                warnings: warnings(interface),
            }
        });
        Ok(status.collect())
    }

    /// Every counter by name, zeros included: one per reason, and those that are not packets.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn counters(&self) -> Result<BTreeMap<String, u64>, EngineError> {
        let values = lock(&self.shared.object).counters()?;
        let value = |slot: u32| values.get(slot as usize).copied().unwrap_or(0);
        let reasons = Reason::ALL
            .iter()
            .map(|reason| (reason.name().to_owned(), value(*reason as u32)));
        let extra = Reason::EXTRA
            .iter()
            .map(|(slot, name)| ((*name).to_owned(), value(*slot)));
        let mut counters: BTreeMap<String, u64> = reasons.chain(extra).collect();
        counters.insert("observer_events_lost".to_owned(), self.shared.events.lost());
        // As of the last sweep.
        counters.insert("sessions_evicted".to_owned(), self.ageing().evicted);
        counters.insert("nat_pool_alarms".to_owned(), self.shared.pool_alarms());
        let restored = self.shared.restored.load(Ordering::Relaxed);
        counters.insert("programs_restored".to_owned(), restored);
        Ok(counters)
    }

    /// What each of the kernel's tables takes, by name. Counts entries: a question of a second with millions of them.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn memory(&self) -> Result<Vec<TableMemory>, EngineError> {
        Ok(lock(&self.shared.object).memory()?)
    }

    /// The counters that are not zero; empty if they cannot be read. For messages.
    #[must_use]
    pub fn nonzero_counters(&self) -> BTreeMap<String, u64> {
        self.counters()
            .unwrap_or_default()
            .into_iter()
            .filter(|(_, value)| *value != 0)
            .collect()
    }

    /// Times each configured policy decided, by its index.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub fn policy_hits(&self) -> Result<Vec<u64>, EngineError> {
        let live = lock(&self.shared.live);
        let mut hits = vec![0; live.ruleset.policies.len()];
        for (key, rule) in &live.compiled.rules {
            if let (Some(hits), Some(rule)) = (
                hits.get_mut(rule.policy as usize),
                self.shared.maps.rules.get(key)?,
            ) {
                *hits += rule.hits;
            }
        }
        Ok(hits)
    }

    /// Sessions each source NAT rule decided about, by its index.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub fn nat_hits(&self) -> Result<Vec<u64>, EngineError> {
        Ok(self.all_nat_hits()?.source)
    }

    /// Sessions each NAT rule decided about.
    ///
    /// # Errors
    /// If the table cannot be read.
    pub fn all_nat_hits(&self) -> Result<NatHits, EngineError> {
        let live = lock(&self.shared.live);
        let ruleset = &live.ruleset;
        let mut hits = NatHits {
            source: vec![0; ruleset.source_nat.len()],
            destination: vec![0; ruleset.destination_nat.len()],
            static_: vec![(0, 0); ruleset.static_nat.len()],
        };
        for (key, rule) in &live.compiled.nat_rules {
            let Some(now) = self.shared.maps.nat_rules.get(key)? else {
                continue;
            };
            let source = key.set == RuleSet::SourceNat as u32;
            let index = (rule.rule & !STATIC_RULE) as usize;
            let counter = if rule.rule & STATIC_RULE != 0 {
                let both = hits.static_.get_mut(index);
                both.map(|(inwards, outwards)| if source { outwards } else { inwards })
            } else if source {
                hits.source.get_mut(index)
            } else {
                hits.destination.get_mut(index)
            };
            if let Some(counter) = counter {
                *counter += now.hits;
            }
        }
        Ok(hits)
    }
}
