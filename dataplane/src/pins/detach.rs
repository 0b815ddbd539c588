//! Undoing everything: what a person needs when no daemon is to run any more.

use std::path::Path;

use super::{PinError, Pins, entries, place, remove, tables, take_off};

/// What was undone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detached {
    /// Programs taken off interfaces.
    pub programs: usize,
    /// Sessions that ended with their tables.
    pub sessions: u64,
}

/// Takes an instance's programs off their interfaces, in whatever network namespace, and removes its tables. Links first:
/// no program is to run without its tables. One that stays is no reason for the others to. `None` if there is no such
/// instance.
///
/// # Errors
/// [`PinError::Held`] by a daemon that runs; [`PinError::NotBpffs`]; [`PinError::Stay`] with all that stay; what the system
/// says.
pub fn detach(directory: &Path) -> Result<Option<Detached>, PinError> {
    if !place::is_within_bpffs(directory) {
        return Err(PinError::NotBpffs(directory.to_owned()));
    }
    if !directory.exists() {
        return Ok(None);
    }
    let pins = Pins::open(directory)?;
    let mut detached = Detached {
        sessions: tables::count_sessions(&pins.version()),
        ..Detached::default()
    };
    for foreign in pins.foreign()? {
        detached.sessions += foreign.sessions;
    }
    let mut errors = Vec::new();
    for link in entries(&pins.links())? {
        match take_off(&link) {
            Ok(()) => detached.programs += 1,
            Err(error) => errors.push(error),
        }
    }
    if !errors.is_empty() {
        let programs = detached.programs;
        return Err(PinError::Stay { programs, errors });
    }
    remove(pins.directory())?;
    Ok(Some(detached))
}
