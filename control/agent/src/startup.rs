//! Which configuration the daemon begins with: its file, what the Kubernetes API has, or the revision that was committed last.
//!
//! The file is the source of truth at the first start. Later the last committed revision is used, unless the file has
//! changed since it was last taken: whoever edits the file and restarts means it, and whoever committed something else
//! over the socket does not lose it to a reboot. A changed file that is refused changes nothing, as at a reload. A revision
//! whose confirmation is overdue gives way to the one before.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use bulkhead_revisions::{Awaited, Draft, Revision, Source, Store, digest};

use crate::configuration::{Configuration, Refused};
use crate::launch::Terms;
use crate::log;

/// What to begin with.
#[derive(Debug)]
pub struct Beginning {
    /// The configuration.
    pub configuration: Configuration,
    /// What becomes a revision of its own as soon as it is in force; `None`: it is the current one.
    pub draft: Option<Draft>,
    /// Why this one, for the log.
    pub reason: String,
}

/// What a first start begins with, judged already.
#[derive(Debug)]
pub struct First {
    /// The configuration.
    pub configuration: Configuration,
    /// Where it came from.
    pub source: Source,
}

/// Why the last committed revision is nothing to begin with any more: this start judges it otherwise than the one that
/// committed it. `None`: it is sound, or there is none, or the disk does not say.
pub fn unusable(store: &Store, terms: &Terms) -> Option<anyhow::Error> {
    let current = store.current()?;
    let error = document(store, current, terms).err()?;
    error.is::<Refused>().then_some(error)
}

/// Whether a start whose documents come from the Kubernetes API has to wait for one: nothing was committed yet, or what was is
/// refused. A revision whose interfaces are missing is no reason, if they are to be waited for.
pub fn needs_a_document(store: &Store, terms: &Terms) -> bool {
    match unusable(store, terms) {
        None => store.current().is_none(),
        Some(error) if terms.wait && is_missing(&error) => false,
        Some(error) => {
            log::refusal(&error);
            tracing::error!("the last committed revision is refused, another document is waited for");
            true
        }
    }
}

/// Decides. `first` is what to begin with if there is no revision, or none that is sound; `terms` is what documents are judged by, `user` who runs
/// the daemon, `now_ms` the wall clock.
///
/// # Errors
/// [`Refused`] if there is nothing sound to begin with.
pub fn choose(
    file: Option<&Path>,
    first: Option<First>,
    store: &Store,
    terms: &Terms,
    user: &str,
    now_ms: u64,
) -> Result<Beginning> {
    let (current, first) = match (store.current(), first) {
        (Some(_), Some(first)) => return Ok(taken(first, user, now_ms, "the last revision is refused")),
        (current, first) => (current, first),
    };
    let Some(current) = current else {
        let first = match (first, file) {
            (Some(first), _) => first,
            (None, Some(file)) => First {
                configuration: Configuration::read(file, terms)?.check_interfaces(terms)?,
                source: Source::File,
            },
            (None, None) => bail!(
                "nothing was committed yet; name a configuration with --config, or in Kubernetes with --config-map or \
                 --firewall-resource"
            ),
        };
        return Ok(taken(first, user, now_ms, "this is the first start"));
    };
    let unchanged = match file {
        None => "no file was named".to_owned(),
        Some(file) => match changed(file, current, terms) {
            Ok(None) => format!("{} has not changed since it was taken", file.display()),
            Ok(Some(configuration)) => {
                let first = First {
                    configuration: *configuration,
                    source: Source::File,
                };
                return Ok(taken(
                    first,
                    user,
                    now_ms,
                    "the file has changed since it was taken",
                ));
            }
            // It is waited for; the revision before it is no answer to interfaces that are not there yet.
            Err(error) if terms.wait && is_missing(&error) => return Err(error),
            Err(error) => {
                log::refusal(&error);
                match error.downcast_ref::<Refused>() {
                    Some(_) => format!("{} is refused", file.display()),
                    None => return Err(error),
                }
            }
        },
    };
    if let Some(awaited) = store.awaited().filter(|awaited| awaited.left_ms(now_ms) == 0) {
        match give_back(store, current, awaited, terms, user, now_ms) {
            Ok(beginning) => return Ok(beginning),
            // The deadline stands, so the running daemon tries again.
            Err(error) => log::refusal(&error),
        }
    }
    last(store, terms, &unchanged)
}

/// Whether the only fault is that interfaces do not exist.
pub fn is_missing(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<Refused>()
        .is_some_and(|refused| !refused.missing.is_empty())
}

/// The last committed revision, whatever its deadline: the running daemon sees to that.
///
/// # Errors
/// If there is none, or it is not sound any more.
pub fn last(store: &Store, terms: &Terms, reason: &str) -> Result<Beginning> {
    let current = store.current().context("nothing was committed yet")?;
    Ok(Beginning {
        configuration: document(store, current, terms)?,
        draft: None,
        reason: reason.to_owned(),
    })
}

/// What is wrong with the file of a start that went on with the last revision for that.
pub fn refused(file: &Path, current: &Revision, terms: &Terms) -> Option<Refused> {
    changed(file, current, terms).err()?.downcast().ok()
}

/// The file, if it is another than the one that was taken last.
fn changed(file: &Path, current: &Revision, terms: &Terms) -> Result<Option<Box<Configuration>>> {
    let content = Configuration::bytes(file)?;
    let digest = digest(&content);
    if current.taken.as_ref() == Some(&digest) || current.sha256 == digest {
        return Ok(None);
    }
    let name = file.display().to_string();
    let configuration = Configuration::of(&name, &content, terms)?.check_interfaces(terms)?;
    Ok(Some(Box::new(configuration)))
}

fn taken(first: First, user: &str, now_ms: u64, reason: &str) -> Beginning {
    let First {
        configuration,
        source,
    } = first;
    let draft = Draft {
        time_ms: now_ms,
        author: user.to_owned(),
        user: user.to_owned(),
        comment: String::new(),
        source,
        file: configuration.parsed.config.file.clone(),
        repeats: None,
        taken: Some(digest(configuration.source.as_bytes())),
        confirm_within_ms: None,
    };
    Beginning {
        configuration,
        draft: Some(draft),
        reason: reason.to_owned(),
    }
}

fn give_back(
    store: &Store,
    current: &Revision,
    awaited: Awaited,
    terms: &Terms,
    user: &str,
    now_ms: u64,
) -> Result<Beginning> {
    let back_to = store.revision(awaited.back_to)?;
    let draft = Draft {
        time_ms: now_ms,
        author: user.to_owned(),
        user: user.to_owned(),
        comment: format!("revision {} was not confirmed in time", awaited.number),
        source: Source::ConfirmTimeout,
        file: back_to.file.clone(),
        repeats: Some(awaited.back_to),
        taken: current.taken.clone(),
        confirm_within_ms: None,
    };
    Ok(Beginning {
        configuration: document(store, back_to, terms)?,
        reason: draft.comment.clone(),
        draft: Some(draft),
    })
}

/// A revision's document, judged anew: the machine may have changed, and so may what this version accepts.
fn document(store: &Store, revision: &Revision, terms: &Terms) -> Result<Configuration> {
    let number = revision.number;
    let content = store
        .document(number)
        .with_context(|| format!("cannot read revision {number}"))?;
    let name = format!("revision {number} ({})", revision.file);
    Configuration::of(&name, &content, terms)?.check_interfaces(terms)
}

#[cfg(test)]
mod tests;
