//! Pods of a group: selectors as the Kubernetes API takes them, so that a typing error is found with its line and not by an
//! API server that refuses a watch.

use super::Checker;
use crate::address::Refusal;
use crate::config::PodSelection;
use crate::document::Pods;
use crate::node::{Segment, steps};

impl Checker<'_, '_> {
    pub(super) fn pods(&mut self, group: &str, entry: &Pods, path: &[Segment]) -> PodSelection {
        let at = |field: &'static str| [path, &steps![field]].concat();
        if let Some(refusal) = refused_selector(&entry.selector) {
            self.error(&at("selector"), refusal);
        } else if entry.selector.trim().is_empty() {
            let message = format!("the selector of address group \"{group}\" selects every pod");
            let help =
                "write labels such as app=payments, or `!nobody-has-this` if every pod is meant".to_owned();
            self.error(&at("selector"), (message, Some(help)));
        }
        let mut namespaces: Vec<String> = Vec::new();
        let written = entry.namespaces.as_deref();
        for (place, name) in written.unwrap_or_default().iter().enumerate() {
            if !is_label_name(name) {
                let message = format!("\"{name}\" cannot be the name of a namespace");
                let help = "a namespace has lower case letters, digits and hyphens".to_owned();
                self.error(
                    &[&*at("namespaces"), &steps![place]].concat(),
                    (message, Some(help)),
                );
            }
            namespaces.push(name.clone());
        }
        if written.is_some_and(<[String]>::is_empty) {
            let message = format!("`namespaces` of address group \"{group}\" is empty");
            let help = "name a namespace, or leave it out for all".to_owned();
            self.error(&at("namespaces"), (message, Some(help)));
        }
        namespaces.sort_unstable();
        namespaces.dedup();
        if let Some(selector) = &entry.namespace_selector {
            if written.is_some() {
                let message = "`namespaces` and `namespaceSelector` both say which namespaces";
                let help = "leave one of them out".to_owned();
                self.error(&at("namespaceSelector"), (message.to_owned(), Some(help)));
            } else if let Some(refusal) = refused_selector(selector) {
                self.error(&at("namespaceSelector"), refusal);
            }
        }
        if let Some(network) = entry.network.as_ref().filter(|network| !is_object(network)) {
            let message = format!("\"{network}\" is not a network attachment");
            let help = "write its namespace and name: default/app-net".to_owned();
            self.error(&at("network"), (message, Some(help)));
        }
        PodSelection {
            selector: entry.selector.trim().to_owned(),
            namespaces,
            namespace_selector: entry.namespace_selector.clone(),
            network: entry.network.clone(),
        }
    }
}

impl Checker<'_, '_> {
    pub(super) fn object_name(&mut self, object: &str, path: &[Segment]) {
        if !is_object(object) {
            let message = format!("\"{object}\" is not an object AddressGroup");
            let help = "write its namespace and name: default/partners".to_owned();
            self.error(path, (message, Some(help)));
        }
    }
}

/// A namespace and a name of an object in it.
fn is_object(text: &str) -> bool {
    text.split_once('/').is_some_and(|(namespace, name)| {
        is_label_name(namespace) && name.len() <= 253 && name.split('.').all(is_label_name)
    })
}

/// RFC 1123: lower case letters and digits, hyphens within.
fn is_label_name(text: &str) -> bool {
    is_part(text, b"-") && text.bytes().all(|byte| !byte.is_ascii_uppercase())
}

/// 1 to 63 letters, digits and `within`, letters or digits at both ends.
fn is_part(text: &str, within: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    text.len() <= 63
        && ends.iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || within.contains(byte))
}

/// `app`, or with a DNS name before it: `app.kubernetes.io/name`.
fn is_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => {
            prefix.len() <= 253 && prefix.split('.').all(is_label_name) && is_part(name, b"-_.")
        }
        None => is_part(text, b"-_."),
    }
}

fn is_value(text: &str) -> bool {
    text.is_empty() || is_part(text, b"-_.")
}

/// What is wrong with a selector: requirements separated by commas, all of which hold.
fn refused_selector(selector: &str) -> Option<Refusal> {
    if selector.trim().is_empty() {
        return None;
    }
    let wrong = requirements(selector)
        .into_iter()
        .find(|part| !is_requirement(part))?;
    let help = "write key=value, key!=value, key, !key, key in (a,b) or key notin (a,b), separated by commas";
    Some((
        format!("\"{}\" is not a label requirement", wrong.trim()),
        Some(help.to_owned()),
    ))
}

/// The parts between commas that are not in parentheses.
fn requirements(selector: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for (place, character) in selector.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&selector[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    parts.push(&selector[start..]);
    parts
}

fn is_requirement(part: &str) -> bool {
    let part = part.trim();
    if let Some((left, values)) = part.split_once('(') {
        let Some((key, operator)) = left.trim().rsplit_once(char::is_whitespace) else {
            return false;
        };
        let Some(values) = values.strip_suffix(')') else {
            return false;
        };
        return matches!(operator, "in" | "notin")
            && is_key(key.trim())
            && values.split(',').all(|value| is_value(value.trim()));
    }
    for operator in ["!=", "==", "="] {
        if let Some((key, value)) = part.split_once(operator) {
            return is_key(key.trim()) && is_value(value.trim());
        }
    }
    is_key(part.strip_prefix('!').unwrap_or(part).trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_judged_as_the_api_judges_them() {
        for sound in [
            "app=payments",
            "app==payments",
            "app = payments , tier!=web",
            "app.kubernetes.io/name in (a, b,c),!canary",
            "tier notin (web)",
            "app",
            "app=",
            "x in ()",
        ] {
            assert_eq!(refused_selector(sound), None, "{sound}");
        }
        for (wrong, part) in [
            ("app=pay ments", "app=pay ments"),
            ("app=a,,b=c", ""),
            ("app in a,b", "app in a"),
            ("app in (a,b", "app in (a,b"),
            ("app near (a)", "app near (a)"),
            ("-app=a", "-app=a"),
            ("a/b/c=d", "a/b/c=d"),
            ("app=ä", "app=ä"),
            ("in (a)", "in (a)"),
        ] {
            let (message, _) = refused_selector(wrong).unwrap_or_else(|| panic!("{wrong} is accepted"));
            assert_eq!(message, format!("\"{part}\" is not a label requirement"));
        }
    }
}
