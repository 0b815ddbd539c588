//! `bulkhead run --print-contract`: what a start would use, and where each value came from.
//!
//! Looks at the configuration too: what it says of forwarding and size counts where nothing else does, and where it is overridden
//! that is shown. That is the file, if one is named that a start would take, and else the revision that was accepted last; the
//! Kubernetes API is not asked, which is said. Starts nothing, makes nothing and changes nothing.

use anyhow::{Context as _, Result};
use bulkhead_config::{Forwarding, SizeEntry};
use bulkhead_revisions::{Revision, digest};
use serde::Serialize;

use super::settings::Key;
use super::terms::{links, management_interface};
use super::{Addresses, Chosen, Launch, Origin};
use crate::configuration::{Configuration, Refused};
use crate::state;
use crate::table::{Align, Table};

/// The contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contract {
    /// Every setting.
    pub settings: Vec<Line>,
    /// Interfaces that have a part: those of the configuration, and the one for management.
    pub interfaces: Vec<Part>,
    /// What was said and means nothing, and what is doubtful about the configuration.
    pub warnings: Vec<String>,
}

/// A setting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Its name on the command line.
    pub setting: &'static str,
    /// Its variable.
    pub variable: &'static str,
    /// Its other variable.
    pub alias: Option<&'static str>,
    /// Its value; `null`: nothing was said, and there is no default.
    pub value: Option<String>,
    /// Where that came from.
    pub origin: Origin,
    /// What it wins over.
    pub overrides: Option<String>,
}

/// An interface with a part in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Its name.
    pub interface: String,
    /// `data` or `management`.
    pub role: &'static str,
    /// Whether it is there.
    pub present: bool,
}

impl Launch {
    /// What would be used.
    ///
    /// # Errors
    /// [`Refused`] if the configuration is.
    pub fn contract(&self) -> Result<Contract> {
        let mut settings: Vec<Line> = self.chosen.iter().map(line).collect();
        let mut warnings = self.warnings.clone();
        let links = links().context("cannot ask the kernel for its interfaces")?;
        let mut interfaces = Vec::new();
        let present = |name: &str| links.iter().any(|link| link.name == name);
        if let Some(name) = management_interface(&self.terms.management, &links) {
            interfaces.push(Part {
                present: present(&name),
                interface: name,
                role: "management",
            });
        }
        if let Some((configuration, origin)) = self.document(&mut warnings)? {
            let parsed = &configuration.parsed;
            warnings.extend(parsed.warnings.iter().map(ToString::to_string));
            interfaces.extend(parsed.config.interfaces.iter().map(|interface| Part {
                interface: interface.name.clone(),
                role: "data",
                present: present(&interface.name),
            }));
            let forwarding = parsed.written.forwarding.map(|f| f.name().to_owned());
            let size = parsed.written.size.map(|size| match size {
                SizeEntry::Name(name) => name.name().to_owned(),
                SizeEntry::Numbers(_) => "given in numbers".to_owned(),
            });
            decide(
                &mut settings,
                Key::Forwarding,
                &origin,
                forwarding,
                Forwarding::default().name(),
            );
            decide(
                &mut settings,
                Key::Size,
                &origin,
                size,
                bulkhead_config::SizeName::default().name(),
            );
            if self.terms.addresses == Addresses::Keep {
                let mut entries = parsed.document.spec.interfaces.iter();
                let given = entries.any(|interface| !interface.addresses.is_empty());
                if given && let Some(line) = find(&mut settings, Key::Addresses) {
                    line.overrides = Some(format!("addresses in {origin}"));
                }
            }
            if let Some(line) = find(&mut settings, Key::Ports).filter(|line| line.value.is_none()) {
                line.value = Some(parsed.config.interfaces.len().to_string());
                line.origin = origin;
            }
        }
        Ok(Contract {
            settings,
            interfaces,
            warnings,
        })
    }

    /// The configuration that a start would begin with, as far as that can be seen from here: the file, or else the revision that
    /// was accepted last. A file that has not changed since it was taken is not taken again, so that commits since then stay.
    fn document(&self, warnings: &mut Vec<String>) -> Result<Option<(Configuration, Origin)>> {
        let directory = state::revisions_directory(self.state.as_deref());
        let newest = bulkhead_revisions::newest(&directory).context("cannot look at the revisions")?;
        let directory = directory.display();
        if let Some(file) = &self.config {
            let content = digest(&Configuration::bytes(file)?);
            let was_taken =
                |revision: &Revision| revision.taken.as_ref() == Some(&content) && revision.sha256 != content;
            match &newest {
                Some((revision, _)) if was_taken(revision) => warnings.push(format!(
                    "{} has not changed since it was taken: a start goes on with revision {}, committed since",
                    file.display(),
                    revision.number
                )),
                _ => {
                    let configuration = Configuration::read(file, &self.terms)?.check_place(&self.terms)?;
                    return Ok(Some((configuration, Origin::File(file.display().to_string()))));
                }
            }
        }
        let unknown = "forwarding, size, ports and interfaces are known when there is a configuration";
        let unseen =
            |place| format!("{place} is not looked at here, only what was accepted from there before");
        let Some((revision, document)) = newest else {
            let nothing = format!("there is no revision in {directory}: {unknown}");
            warnings.push(match &self.object {
                Some(place) => format!("{}; {nothing}", unseen(place)),
                None => nothing,
            });
            return Ok(None);
        };
        warnings.extend(self.object.as_ref().map(unseen));
        let number = revision.number;
        if revision.awaited().is_some() {
            warnings.push(format!(
                "revision {number} awaits confirmation; without it the one before is in force again"
            ));
        }
        let judged = Configuration::of(&revision.file, &document, &self.terms)
            .and_then(|configuration| configuration.check_place(&self.terms));
        match judged {
            Ok(configuration) => {
                let origin = Origin::Revision(format!("revision {number} in {directory}"));
                Ok(Some((configuration, origin)))
            }
            // Such a start waits for another document.
            Err(error) if self.object.is_some() && error.is::<Refused>() => {
                warnings.push(format!(
                    "revision {number} in {directory} does not fit these settings and would not be used: {unknown}"
                ));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

fn line(chosen: &Chosen) -> Line {
    Line {
        setting: chosen.setting.name,
        variable: chosen.setting.variable,
        alias: chosen.setting.alias.map(|alias| alias.variable),
        value: chosen
            .value
            .as_ref()
            .map(|value| match chosen.setting.key.is_secret(value) {
                true => "(not shown)".to_owned(),
                false => value.clone(),
            }),
        origin: chosen.origin.clone(),
        overrides: None,
    }
}

fn find(settings: &mut [Line], key: Key) -> Option<&mut Line> {
    let row = super::SETTINGS.iter().position(|setting| setting.key == key)?;
    settings.get_mut(row)
}

/// What the document says of a setting counts where nobody else has said anything; else it is overridden.
fn decide(settings: &mut [Line], key: Key, document: &Origin, written: Option<String>, default: &str) {
    let Some(line) = find(settings, key) else {
        return;
    };
    match (&line.value, written) {
        (None, Some(written)) => {
            line.value = Some(written);
            line.origin = document.clone();
        }
        (None, None) => line.value = Some(default.to_owned()),
        (Some(used), Some(written)) if *used != written => {
            line.overrides = Some(format!("{written} in {document}"));
        }
        _ => {}
    }
}

/// For people.
pub fn render(contract: &Contract) -> String {
    let mut table = Table::new([
        ("SETTING", Align::Left),
        ("VALUE", Align::Left),
        ("FROM", Align::Left),
        ("OVERRIDES", Align::Left),
    ]);
    for line in &contract.settings {
        table.row([
            line.setting.to_owned(),
            line.value.clone().unwrap_or_default(),
            line.origin.to_string(),
            line.overrides.clone().unwrap_or_default(),
        ]);
    }
    let mut text = table.render();
    if !contract.interfaces.is_empty() {
        let mut table = Table::new([
            ("INTERFACE", Align::Left),
            ("ROLE", Align::Left),
            ("PRESENT", Align::Left),
        ]);
        for part in &contract.interfaces {
            let present = if part.present { "yes" } else { "no" };
            table.row([part.interface.clone(), part.role.to_owned(), present.to_owned()]);
        }
        text.push('\n');
        text.push_str(&table.render());
    }
    for warning in &contract.warnings {
        text.push_str("\nwarning: ");
        text.push_str(warning);
    }
    if !contract.warnings.is_empty() {
        text.push('\n');
    }
    text
}
