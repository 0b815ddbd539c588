//! Interfaces: fail-closed rules, addresses, hooks, and following what becomes of them.

mod watch;

use std::{
    collections::{BTreeMap, HashSet},
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{EngineError, Fib, Live, Shared, lock, static_routes};
use crate::{
    bpf::Object,
    fib::{DataInterface, WireEnd},
    link::{Hook, Link},
    netlink::{Event, Monitor, Netlink, ethtool::Ethtool},
    preflight::{HookChoice, InterfaceFacts, hook},
    pulse::Pulse,
    ruleset::{HookMode, InterfaceRule, Ruleset},
};

/// A data interface as it stands.
pub(super) struct Interface {
    /// What was configured.
    pub(super) rule: InterfaceRule,
    /// Its kernel index while it exists.
    pub(super) index: Option<u32>,
    /// The hook chosen for it.
    pub(super) choice: Option<HookChoice>,
    /// The wire it is an end of.
    wire: Option<Wire>,
    /// The programs on it. It is guarded by those of TCX; XDP goes on after them and off before them.
    links: BTreeMap<Hook, Link>,
    /// Programs that somebody else took off or replaced and that are back, since the engine started.
    pub(super) restored: u64,
    /// Why a program that was taken off is not back.
    pub(super) trouble: Option<String>,
}

/// An end of a wire, by the other end's name: indices come and go.
#[derive(Clone)]
struct Wire {
    number: u32,
    peer: String,
    arp: bool,
    non_ip: bool,
}

/// The end of a wire that the interface with this position in the ruleset is.
fn wire_of(ruleset: &Ruleset, interface: usize) -> Option<Wire> {
    ruleset.wires.iter().enumerate().find_map(|(number, wire)| {
        let [a, b] = wire.interfaces;
        let peer = if interface == a {
            b
        } else if interface == b {
            a
        } else {
            return None;
        };
        Some(Wire {
            number: number as u32 + 1,
            peer: ruleset.interfaces.get(peer)?.name.clone(),
            arp: wire.arp,
            non_ip: wire.non_ip,
        })
    })
}

/// The interfaces that exist, as the mirror needs them.
pub(super) fn data(interfaces: &[Interface]) -> Vec<DataInterface> {
    let index_of = |name: &str| {
        let own = interfaces.iter().find(|interface| interface.rule.name == name);
        own.and_then(|interface| interface.index)
    };
    let end = |wire: &Wire| WireEnd {
        number: wire.number,
        peer: index_of(&wire.peer),
        arp: wire.arp,
        non_ip: wire.non_ip,
    };
    let one = |interface: &Interface| {
        let xdp_target = interface.choice.as_ref().is_some_and(|choice| choice.xdp_target);
        Some(DataInterface {
            index: interface.index?,
            xdp_target,
            wire: interface.wire.as_ref().map(end),
        })
    };
    interfaces.iter().filter_map(one).collect()
}

/// Takes a program off its interface. What cannot be taken off stays and enforces; the interface may be gone with it.
fn take_off(link: Link) {
    if let Err(error) = link.detach() {
        tracing::debug!(%error, "a program could not be taken off its interface");
    }
}

impl Interface {
    pub(super) fn attached(&self) -> bool {
        [Hook::Egress, Hook::Ingress]
            .iter()
            .all(|hook| self.links.contains_key(hook))
    }

    pub(super) fn has_xdp(&self) -> bool {
        self.links.contains_key(&Hook::Xdp)
    }

    /// Takes the programs off; XDP first, so that no frame is settled that TCX could not take over.
    pub(super) fn detach(&mut self) {
        while let Some((_, link)) = self.links.pop_last() {
            take_off(link);
        }
    }

    /// Undoes an attachment of a start that failed: what was there before it goes on.
    pub(super) fn abandon(&mut self) {
        while let Some((_, link)) = self.links.pop_last() {
            if !link.was_found() {
                take_off(link);
            }
        }
    }

    /// What a configuration hands over to the next one that has the interface.
    fn hand_over(&mut self, to: &mut Self) {
        to.links = std::mem::take(&mut self.links);
        to.restored = self.restored;
        to.trouble = self.trouble.take();
    }

    fn attach(&mut self, object: &mut Object) -> Result<(), EngineError> {
        // Egress first: from the first packet on the firewall's own connections are remembered.
        for hook in [Hook::Egress, Hook::Ingress] {
            if !self.links.contains_key(&hook) {
                let link = object.attach(hook, &self.rule.name, false)?;
                self.links.insert(hook, link);
            }
        }
        let wants_xdp = self.choice.as_ref().is_some_and(|choice| choice.xdp);
        if !wants_xdp {
            self.links.remove(&Hook::Xdp).into_iter().for_each(take_off);
        } else if !self.has_xdp() {
            // Whether a pinned XDP link is on this interface is known by those of TCX.
            let anew = !self.links.values().all(Link::was_found);
            match object.attach(Hook::Xdp, &self.rule.name, anew) {
                Ok(link) => drop(self.links.insert(Hook::Xdp, link)),
                // What was only chosen for speed is no reason to stand still; what was asked for is.
                Err(error) if self.rule.hook == HookMode::Auto => {
                    tracing::warn!(interface = self.rule.name, %error, "XDP refused, TCX alone");
                    if let Some(choice) = &mut self.choice {
                        choice.xdp = false;
                        choice.reason = format!("TCX alone: XDP was refused: {error}");
                    }
                }
                Err(error) => {
                    return Err(EngineError::Hook {
                        interface: self.rule.name.clone(),
                        reason: format!("{error}; `hook: tcx` works everywhere"),
                    });
                }
            }
        }
        Ok(())
    }
}

/// Refuses what cannot be: too many interfaces, or one that does not exist.
pub(super) fn check(netlink: &mut Netlink, ruleset: &Ruleset) -> Result<(), EngineError> {
    if ruleset.interfaces.len() > bulkhead_abi::MAX_DATA_INTERFACES {
        return Err(EngineError::TooManyInterfaces(ruleset.interfaces.len()));
    }
    let links = netlink.links()?;
    for interface in &ruleset.interfaces {
        if !links.iter().any(|link| link.name == interface.name) {
            return Err(EngineError::NoSuchInterface(interface.name.clone()));
        }
    }
    Ok(())
}

/// Forbids the kernel to forward from any data interface.
pub(super) fn fail_closed(netlink: &mut Netlink, ruleset: &Ruleset) -> Result<(), EngineError> {
    for interface in &ruleset.interfaces {
        netlink.ensure_blackhole_rule(&interface.name)?;
    }
    Ok(())
}

/// Brings the interfaces up and gives them their configured addresses; those they have stay.
pub(super) fn add_addresses(netlink: &mut Netlink, ruleset: &Ruleset) -> Result<(), EngineError> {
    for interface in &ruleset.interfaces {
        let link = netlink.link_by_name(&interface.name)?;
        if !link.up {
            netlink.set_up(link.index)?;
        }
        if !ruleset.wires.is_empty() {
            netlink.set_promiscuous(link.index)?;
        }
        let present = netlink.addresses()?;
        for (address, length) in &interface.addresses {
            let there = present
                .iter()
                .any(|own| own.index == link.index && own.address == *address && own.prefix_len == *length);
            if !there {
                netlink.add_address(link.index, *address, *length)?;
            }
        }
    }
    Ok(())
}

/// Wires run on TCX: a VLAN tag that a device takes off the frame is seen there and nowhere else.
fn wire_mode(configured: HookMode) -> Result<HookMode, String> {
    match configured {
        HookMode::Xdp => Err(
            "an end of a wire cannot run XDP, which does not see VLAN tags that the device takes \
             off; leave `hook` out or say `tcx`"
                .to_owned(),
        ),
        HookMode::Auto | HookMode::Tcx => Ok(HookMode::Tcx),
    }
}

/// The interfaces of a ruleset with their hooks chosen; nothing is attached.
pub(super) fn plan(netlink: &mut Netlink, ruleset: &Ruleset) -> Result<Vec<Interface>, EngineError> {
    let ethtool = Ethtool::open()?;
    let mut planned = Vec::new();
    for (position, rule) in ruleset.interfaces.iter().enumerate() {
        let wire = wire_of(ruleset, position);
        let link = netlink.link_by_name(&rule.name)?;
        let facts = InterfaceFacts::gather(&link, netlink, &ethtool);
        let refuse = |reason| EngineError::Hook {
            interface: rule.name.clone(),
            reason,
        };
        let mode = if wire.is_some() {
            wire_mode(rule.hook).map_err(refuse)?
        } else {
            rule.hook
        };
        let choice = hook::choose(mode, &facts).map_err(refuse)?;
        planned.push(Interface {
            rule: rule.clone(),
            index: Some(link.index),
            choice: Some(choice),
            wire,
            links: BTreeMap::new(),
            restored: 0,
            trouble: None,
        });
    }
    Ok(planned)
}

/// Hands the attachments of `old` over to `next` where the interface is the same, attaches what is missing and detaches
/// what is no longer configured (whose fail-closed rule stays).
///
/// An attachment taken over is never interrupted. On an error the old interfaces have their attachments back, but for XDP
/// where the new configuration no longer wanted it: they run on by TCX alone.
pub(super) fn adopt(
    old: &mut [Interface],
    next: &mut [Interface],
    object: &mut Object,
) -> Result<(), EngineError> {
    for interface in next.iter_mut() {
        if let Some(before) = old.iter_mut().find(|before| before.index == interface.index) {
            before.hand_over(interface);
        }
    }
    let result = next.iter_mut().try_for_each(|interface| interface.attach(object));
    if result.is_err() {
        give_back(old, next);
    }
    result
}

/// Undoes [`adopt`]: `old` have their programs again.
pub(super) fn give_back(old: &mut [Interface], next: &mut [Interface]) {
    for interface in next.iter_mut() {
        if let Some(before) = old.iter_mut().find(|before| before.index == interface.index) {
            interface.hand_over(before);
        } else {
            interface.abandon();
        }
    }
}

/// Puts this load's programs in the place of those that were found on the interfaces.
///
/// To be called when what this load's programs look up is complete: an interface is guarded by the old programs or by the
/// new ones at each instant, and both judge by a configuration. Hook by hook, so that whatever a new ingress program
/// redirects meets an egress program that knows the interface it came from. Whether there were any.
pub(super) fn renew(interfaces: &mut [Interface], object: &Object) -> Result<bool, EngineError> {
    let mut any = false;
    for hook in Hook::ALL {
        for interface in interfaces.iter_mut() {
            if let Some(link) = interface.links.get_mut(&hook).filter(|link| link.is_stale()) {
                object.replace(hook, link)?;
                any = true;
            }
        }
    }
    Ok(any)
}

/// Where the links in use are pinned.
pub(super) fn pins(interfaces: &[Interface]) -> HashSet<PathBuf> {
    let links = interfaces.iter().flat_map(|interface| interface.links.values());
    links
        .filter_map(|link| link.pinned_at().map(PathBuf::from))
        .collect()
}

/// How often it is looked at what nobody tells.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Whether redirected frames arrive in a veth is decided by its other end, which may change its mind at any time and
/// tells nobody in this namespace. Packets go by TCX from the moment it is seen.
fn recheck_targets(shared: &Shared) -> Result<(), EngineError> {
    let mut interfaces = lock(&shared.interfaces);
    if !interfaces.iter().any(Interface::has_xdp) {
        return Ok(());
    }
    let mut fib = lock(&shared.fib);
    let ethtool = Ethtool::open()?;
    let mut changed = false;
    for interface in interfaces
        .iter_mut()
        .filter(|interface| interface.index.is_some())
    {
        let link = fib.netlink.link_by_name(&interface.rule.name)?;
        let facts = InterfaceFacts::gather(&link, &mut fib.netlink, &ethtool);
        let (Ok(now), Some(choice)) = (hook::choose(interface.rule.hook, &facts), &mut interface.choice)
        else {
            continue;
        };
        if now.xdp_target != choice.xdp_target {
            tracing::warn!(
                interface = interface.rule.name,
                xdp_target = now.xdp_target,
                "XDP target changed"
            );
            choice.xdp_target = now.xdp_target;
            choice.warnings = now.warnings;
            changed = true;
        }
    }
    if changed {
        shared.sync(&interfaces, &mut fib)
    } else {
        Ok(())
    }
}

/// The monitor's thread: keeps mirror, rules and attachments in step with the kernel.
pub(super) fn follow(shared: &Shared, mut monitor: Monitor, pulse: &Pulse) {
    let mut looked = Instant::now();
    // Something could not be followed: everything is looked at again until it can.
    let mut dirty = false;
    while !shared.stopping() {
        pulse.beat();
        if dirty {
            std::thread::sleep(Duration::from_millis(100));
            dirty = reconcile(shared).is_err();
        }
        if looked.elapsed() >= LOOK_INTERVAL {
            looked = Instant::now();
            if let Err(error) = watch::look(shared) {
                tracing::error!(%error, "could not follow an interface that changed unnoticed, trying again");
                dirty = true;
            }
            if let Err(error) = recheck_targets(shared) {
                tracing::error!(%error, "could not see whether redirected frames still arrive");
            }
            if let Err(error) = shared.tidy() {
                tracing::error!(%error, "what a change has left could not be removed, trying again");
            }
        }
        let event = match monitor.next(Duration::from_millis(100)) {
            Ok(Some(event)) => event,
            Ok(None) => continue,
            Err(error) => {
                tracing::error!(%error, "the netlink monitor failed, reading everything again");
                std::thread::sleep(Duration::from_millis(100));
                Event::Overrun
            }
        };
        if let Err(error) = settle(shared, event) {
            tracing::error!(%error, "could not follow a change of the network configuration, trying again");
            dirty = true;
        }
    }
}

fn settle(shared: &Shared, event: Event) -> Result<(), EngineError> {
    match event {
        Event::NeighbourChanged(neighbour) => {
            let mut fib = lock(&shared.fib);
            let fib = &mut *fib;
            if fib.mirror.neighbour(&mut fib.netlink, &shared.maps, &neighbour)? {
                shared.raise_epoch(fib)?;
            }
            Ok(())
        }
        Event::NeighbourGone { index, address } => {
            let mut fib = lock(&shared.fib);
            if fib.mirror.neighbour_gone(&shared.maps, index, address)? {
                shared.raise_epoch(&mut fib)?;
            }
            Ok(())
        }
        Event::LinkGone { index, .. } => {
            // It may be back under the same index before this is read; its programs are not.
            for interface in lock(&shared.interfaces)
                .iter_mut()
                .filter(|i| i.index == Some(index))
            {
                interface.detach();
                interface.index = None;
            }
            reconcile(shared)
        }
        // Routes, addresses, links, rules, lost notifications: look at everything.
        _ => reconcile(shared),
    }
}

/// Brings rules, attachments and mirror to what the kernel has now. One interface's trouble does not keep the others from
/// being guarded; the first is returned.
fn reconcile(shared: &Shared) -> Result<(), EngineError> {
    let mut interfaces = lock(&shared.interfaces);
    if shared.stopping() {
        // They may be detached already.
        return Ok(());
    }
    let mut live = lock(&shared.live);
    let mut fib = lock(&shared.fib);
    let links = fib.netlink.links()?;
    let mut first = Ok(());
    for interface in interfaces.iter_mut() {
        let index = links
            .iter()
            .find(|link| link.name == interface.rule.name)
            .map(|link| link.index);
        let result = follow_interface(shared, &mut live, &mut fib, interface, index);
        if let Err(error) = &result {
            tracing::error!(interface = interface.rule.name, %error, "interface could not be followed");
        }
        first = first.and(result);
    }
    let restored = static_routes::restore(&mut fib.netlink, &interfaces);
    first.and(restored).and(shared.sync(&interfaces, &mut fib))
}

/// Follows one interface to its present index: gone, back, or as it was.
fn follow_interface(
    shared: &Shared,
    live: &mut Live,
    fib: &mut Fib,
    interface: &mut Interface,
    index: Option<u32>,
) -> Result<(), EngineError> {
    let name = interface.rule.name.clone();
    if fib.netlink.ensure_blackhole_rule(&name)? {
        tracing::warn!(interface = name, "the fail-closed rule was gone and is back");
    }
    if index == interface.index && (index.is_none() || interface.attached()) {
        return Ok(());
    }
    let generation = live.compiled.generation;
    if let Some(gone) = interface.index.filter(|gone| index != Some(*gone)) {
        tracing::warn!(interface = name, "interface is gone");
        let key = bulkhead_abi::ZoneKey {
            generation,
            ifindex: gone,
        };
        shared.maps.zones.remove(&key)?;
        live.compiled.zones.retain(|(own, _)| *own != key);
    }
    interface.detach();
    interface.index = None;
    let Some(ifindex) = index else {
        return Ok(());
    };
    let wired = interface.wire.is_some();
    let ruleset = Ruleset {
        interfaces: vec![InterfaceRule {
            // What a wire runs on was found out when it was planned.
            hook: if wired { HookMode::Tcx } else { interface.rule.hook },
            ..interface.rule.clone()
        }],
        ..Ruleset::default()
    };
    let mut planned = plan(&mut fib.netlink, &ruleset)?;
    if let Some(mut back) = planned.pop() {
        // A copy: should the rest fail, the next attempt needs it again.
        back.wire.clone_from(&interface.wire);
        if wired {
            fib.netlink.set_promiscuous(ifindex)?;
        }
        back.restored = interface.restored;
        if let Err(error) = back.attach(&mut lock(&shared.object)) {
            back.detach();
            return Err(error);
        }
        *interface = back;
    }
    add_addresses(&mut fib.netlink, &ruleset)?;
    shared.tune(&mut fib.netlink, &ruleset)?;
    let zone = live
        .ruleset
        .interfaces
        .iter()
        .find(|rule| rule.name == name)
        .map(|rule| rule.zone);
    if let Some(zone) = zone {
        let entry = (bulkhead_abi::ZoneKey { generation, ifindex }, zone as u32 + 1);
        shared.maps.zones.set(&entry.0, &entry.1)?;
        // So that it goes with its generation.
        live.compiled.zones.retain(|(own, _)| *own != entry.0);
        live.compiled.zones.push(entry);
    }
    tracing::info!(interface = name, "interface is back and guarded");
    Ok(())
}
