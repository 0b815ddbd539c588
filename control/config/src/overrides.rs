//! What is decided outside the document and wins over it: whoever starts a container says how it forwards and how large it
//! is, and the same document serves several of them.
//!
//! Applied before the checks of meaning, so that a document is judged as what it will be. Where the document says otherwise
//! itself, a warning tells which of the two is used; nothing is overridden in silence.

use crate::diagnostic::{Diagnostics, Severity};
use crate::document::{Forwarding, SizeEntry, SizeName};
use crate::node::steps;
use crate::read::Read;

/// Settings that win over those of a document. The default overrides nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// In place of `spec.forwarding`.
    pub forwarding: Option<Forwarding>,
    /// In place of `spec.size`. `spec.sessions.max` and `halfOpen` stay what the document says, if it does.
    pub size: Option<SizeName>,
}

/// What a document itself says of these settings; `None`: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// `spec.forwarding`.
    pub forwarding: Option<Forwarding>,
    /// `spec.size`.
    pub size: Option<SizeEntry>,
}

impl Forwarding {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Routed, Self::Wire];

    /// As it is written.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Routed => "routed",
            Self::Wire => "wire",
        }
    }
}

impl Overrides {
    /// Puts the settings in the place of the document's, and returns those.
    pub(crate) fn apply(&self, read: &mut Read<'_>, diagnostics: &mut Diagnostics) -> Written {
        let spec = &mut read.document.spec;
        let named = |field| {
            let spec = read.tree.get("spec")?;
            spec.value.get(field)
        };
        let written = Written {
            forwarding: named("forwarding").map(|_| spec.forwarding),
            size: spec.size,
        };
        let mut overridden = |field: &'static str, document: &str, used: &str| {
            let (at, path) = read.tree.locate(&steps!["spec", field]);
            let message = format!(
                "{field} is {document} in this document, but {used} was asked for at the start and is used"
            );
            let help = format!("leave `{field}` out here, or do not ask for it at the start");
            diagnostics.push(Severity::Warning, at, path, (message, Some(help)));
        };
        if let Some(forwarding) = self.forwarding {
            if written.forwarding.is_some_and(|written| written != forwarding) {
                overridden("forwarding", spec.forwarding.name(), forwarding.name());
            }
            spec.forwarding = forwarding;
        }
        if let Some(size) = self.size {
            match &spec.size {
                Some(SizeEntry::Name(name)) if *name != size => overridden("size", name.name(), size.name()),
                Some(SizeEntry::Numbers(_)) => overridden("size", "given in numbers", size.name()),
                _ => {}
            }
            spec.size = Some(SizeEntry::Name(size));
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_with;

    const DOCUMENT: &str = "apiVersion: bulkhead.dev/v1alpha1\nkind: Firewall\nmetadata: { name: edge }\nspec:\n  \
                            zones: [{ name: a }, { name: b }]\n  interfaces: [{ name: net1, zone: a }, { name: net2, zone: b }]\n";
    const WIRE: &str = "  wires: [{ name: w, interfaces: [net1, net2] }]\n";

    #[test]
    fn what_is_asked_for_at_the_start_wins_and_a_contradiction_is_told() {
        let large = Overrides {
            size: Some(SizeName::Large),
            ..Overrides::default()
        };
        for (written, warning) in [
            ("", None),
            ("  size: large\n", None),
            (
                "  size: small\n",
                Some("size is small in this document, but large was asked for"),
            ),
            (
                "  size: { policies: 5 }\n",
                Some("size is given in numbers in this document, but large"),
            ),
        ] {
            let parsed = parse_with("x.yaml", format!("{DOCUMENT}{written}"), &large).expect("sound");
            assert_eq!(parsed.config.size, SizeName::Large.size(), "{written}");
            assert_eq!(
                parsed.config.sessions.max,
                SizeName::Large.sessions(),
                "{written}"
            );
            let warnings: Vec<String> = parsed.warnings.iter().map(ToString::to_string).collect();
            match warning {
                None => assert!(warnings.is_empty(), "{written}: {warnings:?}"),
                Some(text) => assert!(
                    warnings.len() == 1 && warnings[0].contains(text) && warnings[0].starts_with("x.yaml:7:"),
                    "{written}: {warnings:?}"
                ),
            }
        }
    }

    /// A default that is written is not the same as nothing, whatever wins over it.
    #[test]
    fn what_the_document_itself_says_is_kept() {
        let both = Overrides {
            forwarding: Some(Forwarding::Wire),
            size: Some(SizeName::Large),
        };
        for overrides in [Overrides::default(), both] {
            for (text, forwarding, size) in [
                ("", None, None),
                ("  forwarding: routed\n", Some(Forwarding::Routed), None),
                ("  size: medium\n", None, Some(SizeEntry::Name(SizeName::Medium))),
            ] {
                let wires = if overrides.forwarding.is_some() { WIRE } else { "" };
                let parsed = parse_with("x.yaml", format!("{DOCUMENT}{wires}{text}"), &overrides);
                let written = parsed.expect("sound").written;
                assert_eq!(written, Written { forwarding, size }, "{text}");
            }
        }
    }

    #[test]
    fn a_document_is_judged_as_what_it_will_be() {
        let wire = Overrides {
            forwarding: Some(Forwarding::Wire),
            ..Overrides::default()
        };
        // Without a word about forwarding it is a wire's, and lacks the wires.
        let refused = parse_with("x.yaml", DOCUMENT, &wire).expect_err("no wires");
        assert!(
            refused
                .errors()
                .any(|error| error.message.contains("is in no wire"))
        );
        let parsed = parse_with("x.yaml", format!("{DOCUMENT}{WIRE}"), &wire).expect("sound");
        assert_eq!(parsed.config.wires.len(), 1);
        assert_eq!(parsed.warnings.iter().count(), 0);
        let parsed = parse_with("x.yaml", format!("{DOCUMENT}{WIRE}  forwarding: routed\n"), &wire)
            .expect("sound, with a warning");
        assert_eq!(parsed.config.forwarding, Forwarding::Wire);
        assert!(parsed.warnings.iter().any(|warning| {
            warning
                .message
                .contains("forwarding is routed in this document, but wire")
        }));
    }
}
