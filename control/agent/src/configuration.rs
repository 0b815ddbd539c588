//! A configuration file: read, checked, compared with the machine; and what a person sees when it is refused.
//!
//! Owns [`Refused`], the one error that means exit status 2: whatever it stops, nothing was changed.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use bulkhead_config::{Diagnostic, MAX_DOCUMENT_BYTES, Parsed};

use crate::launch::{self, Terms};

/// A file that is sound.
#[derive(Debug)]
pub struct Configuration {
    /// Its text, for diagnostics.
    pub source: String,
    /// What it means.
    pub parsed: Parsed,
}

/// A configuration that is not in force and will not be.
#[derive(Debug)]
pub struct Refused {
    /// As it was named.
    pub file: String,
    /// Its text; empty if it could not be read.
    pub source: String,
    /// What is wrong; empty if it could not be read.
    pub diagnostics: Vec<Diagnostic>,
    /// Why it could not be read.
    pub unreadable: Option<String>,
    /// Data interfaces that do not exist, if nothing else is wrong.
    pub missing: Vec<String>,
}

impl fmt::Display for Refused {
    /// Each finding with its line and a caret, then how many there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(reason) = &self.unreadable {
            return write!(f, "cannot read {}: {reason}", self.file);
        }
        for diagnostic in &self.diagnostics {
            writeln!(f, "{}\n", diagnostic.render(&self.source))?;
        }
        write!(f, "{}: refused, nothing was changed", self.file)
    }
}

impl std::error::Error for Refused {}

impl Configuration {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`Refused`], as an [`anyhow::Error`] to be downcast.
    pub fn read(path: &Path, terms: &Terms) -> Result<Self> {
        Self::of(&path.display().to_string(), &Self::bytes(path)?, terms)
    }

    /// Reads a file, and judges nothing.
    ///
    /// # Errors
    /// [`Refused`], as an [`anyhow::Error`] to be downcast.
    pub fn bytes(path: &Path) -> Result<Vec<u8>> {
        let bytes = read(path).map_err(|error| Refused {
            file: path.display().to_string(),
            source: String::new(),
            diagnostics: Vec::new(),
            unreadable: Some(error.to_string()),
            missing: Vec::new(),
        })?;
        Ok(bytes)
    }

    /// Checks a document; `file` is its name in diagnostics.
    ///
    /// # Errors
    /// [`Refused`], as an [`anyhow::Error`] to be downcast.
    pub fn of(file: &str, document: &[u8], terms: &Terms) -> Result<Self> {
        let parsed = bulkhead_config::parse_with(file, document, &terms.overrides);
        // A caret needs characters; what is wrong with the bytes is a diagnostic already.
        let source = String::from_utf8_lossy(document).into_owned();
        match parsed {
            Ok(mut parsed) => {
                let wrong = terms.count(&parsed.config);
                terms.settle(&mut parsed.config);
                Self { source, parsed }.unless(wrong.into_iter().collect(), Vec::new())
            }
            Err(diagnostics) => Err(Refused {
                file: file.to_owned(),
                source,
                diagnostics: diagnostics.into_iter().collect(),
                unreadable: None,
                missing: Vec::new(),
            }
            .into()),
        }
    }

    /// Makes sure that every data interface exists in this thread's network namespace, and that none is for management.
    ///
    /// # Errors
    /// [`Refused`] if one does not, or is; anything else if the kernel does not say.
    pub fn check_interfaces(self, terms: &Terms) -> Result<Self> {
        let links = launch::links().context("cannot ask the kernel for its interfaces")?;
        let forbidden = terms.forbidden(&self.parsed.config, &links);
        if !forbidden.is_empty() {
            return self.unless(forbidden, Vec::new());
        }
        let present: Vec<String> = links.into_iter().map(|link| link.name).collect();
        let config = &self.parsed.config;
        let diagnostics = bulkhead_config::check_interfaces(config, &present);
        let interfaces = config.interfaces.iter().map(|interface| &interface.name);
        let missing = interfaces
            .filter(|name| !present.contains(name))
            .cloned()
            .collect();
        self.unless(diagnostics, missing)
    }

    /// Makes sure that no data interface is for management; they may be missing.
    ///
    /// # Errors
    /// As [`Self::check_interfaces`].
    pub fn check_place(self, terms: &Terms) -> Result<Self> {
        let links = launch::links().context("cannot ask the kernel for its interfaces")?;
        let forbidden = terms.forbidden(&self.parsed.config, &links);
        self.unless(forbidden, Vec::new())
    }

    fn unless(self, diagnostics: Vec<Diagnostic>, missing: Vec<String>) -> Result<Self> {
        if diagnostics.is_empty() {
            return Ok(self);
        }
        Err(Refused {
            file: self.parsed.config.file,
            source: self.source,
            diagnostics,
            unreadable: None,
            missing,
        }
        .into())
    }
}

/// At most one byte more than a document may have, so that a mistaken `--config /dev/zero` ends.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut source = Vec::new();
    File::open(path)?
        .take(MAX_DOCUMENT_BYTES as u64 + 1)
        .read_to_end(&mut source)?;
    Ok(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_refused_like_what_is_wrong() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("absent.yaml");
        let error = Configuration::read(&path, &Terms::default()).expect_err("a refusal");
        let refused: &Refused = error.downcast_ref().expect("a refusal");
        assert!(
            refused.to_string().contains("absent.yaml: No such file"),
            "{refused}"
        );
    }

    #[test]
    fn findings_come_with_their_line_and_a_caret() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("wrong.yaml");
        std::fs::write(
            &path,
            "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewal\nmetadata: { name: x }\nspec: {}\n",
        )
        .expect("a file");
        let refused = Configuration::read(&path, &Terms::default())
            .expect_err("a refusal")
            .to_string();
        assert!(refused.contains("2 | kind: Firewal\n  |       ^"), "{refused}");
        assert!(
            refused.ends_with("wrong.yaml: refused, nothing was changed"),
            "{refused}"
        );
    }

    #[test]
    fn an_endless_file_ends() {
        let refused = Configuration::read(Path::new("/dev/zero"), &Terms::default()).expect_err("a refusal");
        assert!(
            refused
                .downcast_ref::<Refused>()
                .is_some_and(|refused| !refused.diagnostics.is_empty()),
            "{refused}"
        );
    }

    #[test]
    fn interfaces_must_exist() {
        let document = "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: { name: x }\nspec:\n  zones: [{ name: a }]\n  \
                        interfaces: [{ name: bhk-absent0, zone: a }]\n";
        let configuration = Configuration {
            source: document.to_owned(),
            parsed: bulkhead_config::parse("x.yaml", document).expect("a sound configuration"),
        };
        let error = configuration
            .check_interfaces(&Terms::default())
            .expect_err("a refusal");
        let refused: &Refused = error.downcast_ref().expect("a refusal");
        assert_eq!(refused.missing, ["bhk-absent0"]);
        let [finding] = &refused.diagnostics[..] else {
            panic!("{refused}")
        };
        assert_eq!((finding.line, finding.column), (6, 24));
        assert!(
            finding.message.contains("\"bhk-absent0\" does not exist"),
            "{finding}"
        );
    }
}
