//! `bulkhead run --print-contract`: what a start would use, and where each value came from.
//!
//! Looks at the configuration file too, if one is named: what it says of forwarding and size counts where nothing else
//! does, and where it is overridden that is shown. Starts nothing and changes nothing.

use std::path::Path;

use anyhow::{Context as _, Result};
use bulkhead_config::{Forwarding, SizeEntry};
use serde::Serialize;

use super::settings::Key;
use super::terms::{links, management_interface};
use super::{Addresses, Chosen, Launch, Origin};
use crate::configuration::Configuration;
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
    /// [`Refused`](crate::configuration::Refused) if the configuration file is.
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
        if let Some(file) = &self.config {
            let configuration = Configuration::read(file, &self.terms)?;
            let configuration = configuration.check_place(&self.terms)?;
            let parsed = &configuration.parsed;
            warnings.extend(parsed.warnings.iter().map(ToString::to_string));
            interfaces.extend(parsed.config.interfaces.iter().map(|interface| Part {
                interface: interface.name.clone(),
                role: "data",
                present: present(&interface.name),
            }));
            // As it is written, without what wins over it.
            let written = Configuration::read(file, &super::Terms::default()).ok();
            let written = written.as_ref().map(|written| &written.parsed.document.spec);
            let forwarding = written
                .map(|spec| spec.forwarding)
                .filter(|forwarding| *forwarding != Forwarding::default());
            let size = written.and_then(|spec| spec.size).map(|size| match size {
                SizeEntry::Name(name) => name.name().to_owned(),
                SizeEntry::Numbers(_) => "given in numbers".to_owned(),
            });
            document(
                &mut settings,
                Key::Forwarding,
                file,
                forwarding.map(|f| f.name().to_owned()),
                Forwarding::default().name(),
            );
            document(
                &mut settings,
                Key::Size,
                file,
                size,
                bulkhead_config::SizeName::default().name(),
            );
            if self.terms.addresses == Addresses::Keep {
                let given = written.is_some_and(|spec| {
                    spec.interfaces
                        .iter()
                        .any(|interface| !interface.addresses.is_empty())
                });
                if given && let Some(line) = find(&mut settings, Key::Addresses) {
                    line.overrides = Some(format!("addresses in {}", file.display()));
                }
            }
            if let Some(line) = find(&mut settings, Key::Ports).filter(|line| line.value.is_none()) {
                line.value = Some(parsed.config.interfaces.len().to_string());
                line.origin = Origin::File(file.display().to_string());
            }
        }
        Ok(Contract {
            settings,
            interfaces,
            warnings,
        })
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
fn document(settings: &mut [Line], key: Key, file: &Path, written: Option<String>, default: &str) {
    let Some(line) = find(settings, key) else {
        return;
    };
    let file = file.display().to_string();
    match (&line.value, written) {
        (None, Some(written)) => {
            line.value = Some(written);
            line.origin = Origin::File(file);
        }
        (None, None) => line.value = Some(default.to_owned()),
        (Some(used), Some(written)) if *used != written => {
            line.overrides = Some(format!("{written} in {file}"));
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
