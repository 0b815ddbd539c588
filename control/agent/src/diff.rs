//! `bulkhead diff`: two configurations, compared in the words of the configuration and as text.
//!
//! Revisions come from the daemon, files from here; two files need no daemon. Both sides must be sound, or there would be
//! nothing to compare but text.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use bulkhead_config::{Difference, Document};
use similar::{Algorithm, TextDiff};

use crate::cli::Side;
use crate::client::Client;
use crate::configuration::Configuration;
use crate::launch::Terms;
use crate::protocol::Command;
use crate::report::{Differences, History, ShownConfig};

/// Lines around each difference.
const CONTEXT: usize = 3;
/// Two large documents with nothing in common: after this the text differs in larger pieces than it need.
const PATIENCE: Duration = Duration::from_secs(2);

/// One side, as it is compared.
struct Version {
    name: String,
    text: String,
    document: Document,
}

/// Compares. Without `second` the newer side is the revision in force, or a file that would become it; without `first` too
/// it is what the last commit changed.
///
/// # Errors
/// [`crate::configuration::Refused`] if one side is wrong; if the daemon does not answer.
pub fn differences(first: Option<Side>, second: Option<Side>, socket: &Path) -> Result<Differences> {
    let (old, new) = match (first, second) {
        (Some(first), Some(second)) => (version(Some(first), socket)?, version(Some(second), socket)?),
        (Some(file @ Side::File(_)), None) => (version(None, socket)?, version(Some(file), socket)?),
        (Some(revision), None) => (version(Some(revision), socket)?, version(None, socket)?),
        (None, _) => {
            let history: History = Client::connect(socket)?.ask(&Command::History {})?;
            let numbers = history
                .revisions
                .iter()
                .map(|entry| Side::Revision(entry.revision));
            let numbers: Vec<Side> = numbers.take(2).collect();
            let [new, old] = &numbers[..] else {
                anyhow::bail!("there is no revision before the one in force");
            };
            (
                version(Some(old.clone()), socket)?,
                version(Some(new.clone()), socket)?,
            )
        }
    };
    Ok(compare(old, new))
}

/// The revision in force for `None`.
fn version(side: Option<Side>, socket: &Path) -> Result<Version> {
    let (name, content) = match side {
        Some(Side::File(path)) => (path.display().to_string(), Configuration::bytes(&path)?),
        Some(Side::Revision(number)) => revision(Some(number), socket)?,
        None => revision(None, socket)?,
    };
    let configuration = Configuration::of(&name, &content, &Terms::default())?;
    Ok(Version {
        name,
        text: configuration.source,
        document: configuration.parsed.document,
    })
}

fn revision(number: Option<u64>, socket: &Path) -> Result<(String, Vec<u8>)> {
    let shown: ShownConfig = Client::connect(socket)?.ask(&Command::ShowConfig { revision: number })?;
    Ok((
        format!("revision {}", shown.revision.revision),
        shown.document.into_bytes(),
    ))
}

fn compare(old: Version, new: Version) -> Differences {
    let differences: Vec<Difference> = bulkhead_config::diff(&old.document, &new.document);
    let text = TextDiff::configure()
        .algorithm(Algorithm::Myers)
        .timeout(PATIENCE)
        .diff_lines(&old.text, &new.text)
        .unified_diff()
        .context_radius(CONTEXT)
        .header(&old.name, &new.name)
        .to_string();
    Differences {
        old: old.name,
        new: new.name,
        differences,
        text,
    }
}
