//! `bulkhead check`: whether files would be accepted. Needs no daemon and no privileges, changes nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use bulkhead_config::{Diagnostic, Severity};

use crate::configuration::{Configuration, Refused};
use crate::launch::Terms;
use crate::report::{Checked, CheckedFile};

/// The outcome for people and for programs.
#[derive(Debug)]
pub struct Outcome {
    /// For programs.
    pub report: Checked,
    /// For people: what is wrong, each with its line and a caret.
    pub findings: String,
}

/// Checks every file; with `interfaces`, also that the data interfaces exist here.
///
/// # Errors
/// Only if the kernel does not say which interfaces there are.
pub fn check(files: &[PathBuf], interfaces: bool) -> Result<Outcome> {
    let mut outcome = Outcome {
        report: Checked {
            ok: true,
            files: Vec::new(),
        },
        findings: String::new(),
    };
    for path in files {
        match one(path, interfaces) {
            Ok(configuration) => {
                let warnings = &configuration.parsed.warnings;
                if !warnings.is_empty() {
                    outcome.findings += &format!("{}\n\n", warnings.render(&configuration.source));
                }
                outcome.report.files.push(CheckedFile {
                    file: path.display().to_string(),
                    ok: true,
                    diagnostics: warnings.iter().cloned().collect(),
                    defines: defines(&configuration),
                });
            }
            Err(error) => {
                let refused = error.downcast::<Refused>()?;
                outcome.findings += &format!("{refused}\n\n");
                outcome.report.ok = false;
                outcome.report.files.push(CheckedFile {
                    file: path.display().to_string(),
                    ok: false,
                    diagnostics: diagnostics(refused),
                    defines: BTreeMap::new(),
                });
            }
        }
    }
    Ok(outcome)
}

fn one(path: &Path, interfaces: bool) -> Result<Configuration> {
    let configuration = Configuration::read(path, &Terms::default())?;
    if interfaces {
        configuration.check_interfaces(&Terms::default())
    } else {
        Ok(configuration)
    }
}

/// A file that cannot be read has one finding, and no line to point at.
fn diagnostics(refused: Refused) -> Vec<Diagnostic> {
    match refused.unreadable {
        None => refused.diagnostics,
        Some(reason) => vec![Diagnostic {
            severity: Severity::Error,
            file: refused.file,
            line: 0,
            column: 0,
            path: String::new(),
            message: format!("cannot be read: {reason}"),
            help: None,
        }],
    }
}

fn defines(configuration: &Configuration) -> BTreeMap<String, usize> {
    let config = &configuration.parsed.config;
    [
        ("interfaces", config.interfaces.len()),
        ("zones", config.zones.len()),
        (
            "groups",
            config.groups.iter().filter(|group| !group.literal).count(),
        ),
        (
            "services",
            config.services.iter().filter(|service| !service.builtin).count(),
        ),
        ("policies", config.policies.len()),
        ("source_nat", config.source_nat.len()),
        ("destination_nat", config.destination_nat.len()),
        ("static_nat", config.static_nat.len()),
        ("pools", config.pools.len()),
        (
            "screens",
            config.screens.iter().filter(|screen| !screen.builtin).count(),
        ),
        ("wires", config.wires.len()),
        ("routes", config.routes.len()),
    ]
    .into_iter()
    .map(|(kind, number)| (kind.to_owned(), number))
    .collect()
}
