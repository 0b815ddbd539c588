//! Interfaces: fail-closed rules, addresses, hooks, and following what becomes of them.

use std::time::{Duration, Instant};

use aya::programs::xdp::XdpLink;

use super::{EngineError, Shared, lock};
use crate::{
    bpf::{Attachment, Object},
    fib::DataInterface,
    netlink::{Event, Monitor, Netlink, ethtool::Ethtool},
    preflight::{HookChoice, InterfaceFacts, hook},
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
    /// The programs on it. `xdp` is kept apart because TCX goes on first.
    attachment: Option<Attachment>,
    xdp: Option<XdpLink>,
}

impl Interface {
    pub(super) fn attached(&self) -> bool {
        self.attachment.is_some()
    }

    pub(super) fn has_xdp(&self) -> bool {
        self.xdp.is_some()
    }

    /// As the mirror needs it, while it exists.
    pub(super) fn data(&self) -> Option<DataInterface> {
        let xdp_target = self.choice.as_ref().is_some_and(|choice| choice.xdp_target);
        self.index.map(|index| DataInterface { index, xdp_target })
    }

    /// Takes the programs off; XDP first, so that no frame is settled that TCX could not take over.
    pub(super) fn detach(&mut self) {
        self.xdp = None;
        self.attachment = None;
    }

    fn attach(&mut self, object: &mut Object) -> Result<(), EngineError> {
        if self.attachment.is_none() {
            self.attachment = Some(object.attach_tcx(&self.rule.name)?);
        }
        let wants_xdp = self.choice.as_ref().is_some_and(|choice| choice.xdp);
        if !wants_xdp {
            self.xdp = None;
        } else if self.xdp.is_none() {
            match object.attach_xdp(&self.rule.name) {
                Ok(link) => self.xdp = Some(link),
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

/// The interfaces of a ruleset with their hooks chosen; nothing is attached.
pub(super) fn plan(netlink: &mut Netlink, ruleset: &Ruleset) -> Result<Vec<Interface>, EngineError> {
    let ethtool = Ethtool::open()?;
    let mut planned = Vec::new();
    for rule in &ruleset.interfaces {
        let link = netlink.link_by_name(&rule.name)?;
        let facts = InterfaceFacts::gather(&link, netlink, &ethtool);
        let choice = hook::choose(rule.hook, &facts).map_err(|reason| EngineError::Hook {
            interface: rule.name.clone(),
            reason,
        })?;
        planned.push(Interface {
            rule: rule.clone(),
            index: Some(link.index),
            choice: Some(choice),
            attachment: None,
            xdp: None,
        });
    }
    Ok(planned)
}

/// Hands the attachments of `old` over to `next` where the interface is the same, attaches what is missing and detaches
/// what is no longer configured (whose fail-closed rule stays).
///
/// An attachment taken over is never interrupted. On an error the old interfaces have their attachments back.
pub(super) fn adopt(
    old: &mut [Interface],
    next: &mut [Interface],
    object: &mut Object,
) -> Result<(), EngineError> {
    for interface in next.iter_mut() {
        if let Some(before) = old.iter_mut().find(|before| before.index == interface.index) {
            interface.attachment = before.attachment.take();
            interface.xdp = before.xdp.take();
        }
    }
    let result = next.iter_mut().try_for_each(|interface| interface.attach(object));
    if result.is_err() {
        for interface in next.iter_mut() {
            if let Some(before) = old.iter_mut().find(|before| before.index == interface.index) {
                before.attachment = interface.attachment.take();
                before.xdp = interface.xdp.take();
            }
        }
    }
    result
}

/// How often it is looked whether frames redirected by XDP still arrive.
const TARGET_INTERVAL: Duration = Duration::from_secs(1);

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
pub(super) fn follow(shared: &Shared, mut monitor: Monitor) {
    let mut looked = Instant::now();
    while !shared.stopping() {
        if looked.elapsed() > TARGET_INTERVAL {
            looked = Instant::now();
            if let Err(error) = recheck_targets(shared) {
                tracing::error!(%error, "could not see whether redirected frames still arrive");
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
            tracing::error!(%error, "could not follow a change of the network configuration");
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
        // Routes, addresses, links, rules, lost notifications: look at everything.
        _ => reconcile(shared),
    }
}

/// Brings rules, attachments and mirror to what the kernel has now.
fn reconcile(shared: &Shared) -> Result<(), EngineError> {
    let mut interfaces = lock(&shared.interfaces);
    let live = lock(&shared.live);
    let mut fib = lock(&shared.fib);
    let links = fib.netlink.links()?;
    let generation = shared.generation.load(std::sync::atomic::Ordering::Acquire);
    for interface in interfaces.iter_mut() {
        if fib.netlink.ensure_blackhole_rule(&interface.rule.name)? {
            tracing::warn!(
                interface = interface.rule.name,
                "the fail-closed rule was gone and is back"
            );
        }
        let index = links
            .iter()
            .find(|link| link.name == interface.rule.name)
            .map(|link| link.index);
        if index == interface.index {
            continue;
        }
        if let Some(gone) = interface.index {
            tracing::warn!(interface = interface.rule.name, "interface is gone");
            shared.maps.zones.remove(&bulkhead_abi::ZoneKey {
                generation,
                ifindex: gone,
            })?;
            interface.detach();
        }
        interface.index = None;
        if let Some(ifindex) = index {
            let ruleset = Ruleset {
                interfaces: vec![interface.rule.clone()],
                ..Ruleset::default()
            };
            add_addresses(&mut fib.netlink, &ruleset)?;
            let mut planned = plan(&mut fib.netlink, &ruleset)?;
            if let Some(mut back) = planned.pop() {
                back.attach(&mut lock(&shared.object))?;
                *interface = back;
            }
            let zone = live
                .ruleset
                .interfaces
                .iter()
                .find(|rule| rule.name == interface.rule.name);
            if let Some(rule) = zone {
                let zone = rule.zone as u32 + 1;
                shared
                    .maps
                    .zones
                    .set(&bulkhead_abi::ZoneKey { generation, ifindex }, &zone)?;
            }
            tracing::info!(interface = interface.rule.name, "interface is back and guarded");
        }
    }
    shared.sync(&interfaces, &mut fib)
}
