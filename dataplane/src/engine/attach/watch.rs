//! Looks once a second whether the programs are where they were put, and puts back what others took off or replaced.
//!
//! Whoever may attach programs may take them off: a link by force (`BPF_LINK_DETACH`), a filter like any filter, `clsact`
//! with all filters on it; and the kernel tells nobody. Meanwhile the kernel gets the packets, and by the fail-closed rules
//! forwards none: the interface is dead, not open. Whoever has a link may also give it another program (`BPF_LINK_UPDATE`),
//! which may do anything until the next look. Refuses nothing: what cannot be put back is tried again at each look, told in
//! the log when the reason changes, and stands in `show interfaces`.
//!
//! Looks as well for what notifications should have told: whether each interface is there, and under which index.

use std::sync::atomic::Ordering;

use nix::net::if_::if_nametoindex;

use super::{Interface, reconcile, take_off};
use crate::{
    bpf::Object,
    engine::{EngineError, Shared, lock},
    link::{Hook, Standing},
};

/// Looks at all interfaces.
pub(super) fn look(shared: &Shared) -> Result<(), EngineError> {
    let mut interfaces = lock(&shared.interfaces);
    if shared.stopping() {
        // They may be detached already.
        return Ok(());
    }
    let mut moved = false;
    for interface in interfaces.iter_mut() {
        let index = if_nametoindex(interface.rule.name.as_str()).ok();
        if index != interface.index {
            moved = true;
        } else if let Some(index) = index {
            let restored = interface.restore(index, &mut lock(&shared.object));
            shared.restored.fetch_add(restored, Ordering::Relaxed);
        }
    }
    drop(interfaces);
    if moved { reconcile(shared) } else { Ok(()) }
}

impl Interface {
    /// Puts back what is not on the interface any more, which has this index, or runs another's program: how many programs.
    fn restore(&mut self, index: u32, object: &mut Object) -> u64 {
        let mut replaced = Vec::new();
        for (hook, standing) in self.changed(index) {
            tracing::error!(
                interface = self.rule.name,
                hook = hook.word(),
                replaced = standing == Standing::Replaced,
                "a program was taken off the interface, or replaced there, by somebody else"
            );
            if standing == Standing::Replaced {
                replaced.push(hook);
            } else {
                // Before another takes its place: a filter that is let go takes the one with its program away.
                drop(self.links.remove(&hook));
            }
        }
        let missing = self.missing();
        if missing.is_empty() && replaced.is_empty() {
            self.trouble = None;
            return 0;
        }
        let reclaimed = self.reclaim(&replaced, object);
        let attached = self.attach(object);
        // Found again where it is pinned, with the program it has there.
        let stale = self.links.iter().filter(|(_, link)| link.is_stale());
        let stale: Vec<Hook> = stale.map(|(hook, _)| *hook).collect();
        let renewed = self.reclaim(&stale, object);
        let attached = reclaimed.and(attached).and(renewed);
        let back = |hook: &&Hook| self.links.contains_key(hook);
        let restored = missing.iter().chain(&replaced).filter(back).count() as u64;
        self.restored += restored;
        match attached {
            Ok(()) => {
                self.trouble = None;
                tracing::warn!(
                    interface = self.rule.name,
                    programs = restored,
                    "programs that somebody else took off or replaced are back"
                );
            }
            Err(error) => {
                let error = error.to_string();
                if self.trouble.as_ref() != Some(&error) {
                    tracing::error!(
                        interface = self.rule.name,
                        error,
                        forwards = self.attached(),
                        "a program that somebody else took off or replaced cannot be put back, trying again"
                    );
                }
                self.trouble = Some(error);
            }
        }
        restored
    }

    /// Gives the links of these hooks this load's programs. One that cannot have it is taken off: dead, not open.
    ///
    /// # Errors
    /// The first reason why one cannot.
    fn reclaim(&mut self, hooks: &[Hook], object: &Object) -> Result<(), EngineError> {
        let mut outcome = Ok(());
        for hook in hooks {
            let Some(link) = self.links.get_mut(hook) else {
                continue;
            };
            if let Err(error) = object.replace(*hook, link) {
                outcome = outcome.and(Err(error.into()));
                self.links.remove(hook).into_iter().for_each(take_off);
            }
        }
        outcome
    }

    /// Hooks whose program somebody took off or replaced. Where that cannot be told the program counts as there.
    fn changed(&mut self, index: u32) -> Vec<(Hook, Standing)> {
        let mut changed = Vec::new();
        for (hook, link) in &mut self.links {
            match link.standing(*hook, index) {
                Ok(Standing::There) => {}
                Ok(standing) => changed.push((*hook, standing)),
                Err(error) => {
                    tracing::debug!(interface = self.rule.name, hook = hook.word(), %error, "cannot look at a program");
                }
            }
        }
        changed
    }

    /// Whether the interface is there with its programs on it, as of now and not of the last look.
    ///
    /// # Errors
    /// What is wrong.
    pub(in super::super) fn is_guarded(&mut self) -> Result<(), String> {
        let name = self.rule.name.clone();
        let Ok(index) = if_nametoindex(name.as_str()) else {
            return Err("the interface does not exist".to_owned());
        };
        if self.index != Some(index) {
            return Err("the interface is back and not guarded yet".to_owned());
        }
        let mut wrong = self.changed(index);
        wrong.extend(self.missing().into_iter().map(|hook| (hook, Standing::Gone)));
        let Some((hook, standing)) = wrong.first() else {
            return Ok(());
        };
        let what = match standing {
            Standing::Replaced => "was replaced by somebody else's",
            Standing::There | Standing::Gone => "is not attached",
        };
        let trouble = self.trouble.as_ref();
        let trouble = trouble.map(|trouble| format!(" and cannot be put back: {trouble}"));
        Err(format!(
            "its {} program {what}{}",
            hook.word(),
            trouble.unwrap_or_default()
        ))
    }

    /// Hooks that should have a program and have none.
    fn missing(&self) -> Vec<Hook> {
        let xdp = self.choice.as_ref().is_some_and(|choice| choice.xdp);
        let wanted = Hook::ALL.iter().filter(|hook| xdp || **hook != Hook::Xdp);
        wanted
            .filter(|hook| !self.links.contains_key(hook))
            .copied()
            .collect()
    }
}
