//! Looks once a second whether the programs are where they were put, and puts back what others took off.
//!
//! Whoever may attach programs may take them off: a link by force (`BPF_LINK_DETACH`), a filter like any filter, `clsact`
//! with all filters on it; and the kernel tells nobody. Meanwhile the kernel gets the packets, and by the fail-closed rules
//! forwards none: the interface is dead, not open. Refuses nothing: what cannot be put back is tried again at each look,
//! told in the log when the reason changes, and stands in `show interfaces`.
//!
//! Looks as well for what notifications should have told: whether each interface is there, and under which index.

use std::sync::atomic::Ordering;

use nix::net::if_::if_nametoindex;

use super::{Interface, reconcile};
use crate::{
    bpf::Object,
    engine::{EngineError, Shared, lock},
    link::Hook,
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
    /// Puts back what is not on the interface any more, which has this index: how many programs.
    fn restore(&mut self, index: u32, object: &mut Object) -> u64 {
        for hook in self.lost(index) {
            tracing::error!(
                interface = self.rule.name,
                hook = hook.word(),
                "a program was taken off the interface by somebody else"
            );
            // Before another takes its place: a filter that is let go takes the one with its program away.
            drop(self.links.remove(&hook));
        }
        let missing = self.missing();
        if missing.is_empty() {
            self.trouble = None;
            return 0;
        }
        let attached = self.attach(object);
        let back = |hook: &&Hook| self.links.contains_key(hook);
        let restored = missing.iter().filter(back).count() as u64;
        self.restored += restored;
        match attached {
            Ok(()) => {
                self.trouble = None;
                tracing::warn!(
                    interface = self.rule.name,
                    programs = restored,
                    "programs that somebody else took off are back"
                );
            }
            Err(error) => {
                let error = error.to_string();
                if self.trouble.as_ref() != Some(&error) {
                    tracing::error!(
                        interface = self.rule.name,
                        error,
                        forwards = self.attached(),
                        "a program that somebody else took off cannot be put back, trying again"
                    );
                }
                self.trouble = Some(error);
            }
        }
        restored
    }

    /// Hooks whose program somebody took off. Where that cannot be told the program counts as there.
    fn lost(&mut self, index: u32) -> Vec<Hook> {
        let mut lost = Vec::new();
        for (hook, link) in &mut self.links {
            match link.is_on(*hook, index) {
                Ok(true) => {}
                Ok(false) => lost.push(*hook),
                Err(error) => {
                    tracing::debug!(interface = self.rule.name, hook = hook.word(), %error, "cannot look at a program");
                }
            }
        }
        lost
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
        let mut gone = self.lost(index);
        gone.extend(self.missing());
        match (gone.first(), &self.trouble) {
            (None, _) => Ok(()),
            (Some(hook), None) => Err(format!("its {} program is not attached", hook.word())),
            (Some(hook), Some(trouble)) => Err(format!(
                "its {} program is not attached and cannot be put back: {trouble}",
                hook.word()
            )),
        }
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
