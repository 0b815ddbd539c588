//! The tree of a document in which every key and value knows its line and column.
//!
//! Owns positions: any fault found later is named by a [`Segment`] path and looked up here. Text is borrowed
//! from the source where the scalar has no escapes. Assumes a bounded depth (see `yaml`), so recursion is safe.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write;

/// One value.
#[derive(Clone, Debug)]
pub(crate) struct Node<'s> {
    /// Unique in the document, except that a value read through an alias keeps the number of its original.
    pub id: u32,
    pub line: u32,
    pub column: u32,
    /// Its place in the list as written; faulty neighbours may have been removed since.
    pub index: u32,
    pub kind: Kind<'s>,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind<'s> {
    /// `plain` scalars may be numbers, booleans or null; quoted ones are text.
    Scalar {
        text: Cow<'s, str>,
        plain: bool,
    },
    List(Vec<Node<'s>>),
    Map(Vec<Entry<'s>>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry<'s> {
    pub key: Cow<'s, str>,
    pub line: u32,
    pub column: u32,
    pub value: Node<'s>,
}

/// A step into the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    Key(Cow<'static, str>),
    Index(usize),
}

impl From<&'static str> for Segment {
    fn from(key: &'static str) -> Self {
        Self::Key(Cow::Borrowed(key))
    }
}

impl From<usize> for Segment {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// `steps!["spec", "policies", 3, "source"]`
macro_rules! steps {
    ($($segment:expr),* $(,)?) => { [$($crate::node::Segment::from($segment)),*] };
}
pub(crate) use steps;

/// What a scalar means by the core schema of YAML 1.2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Meaning<'n> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(&'n str),
}

impl<'s> Node<'s> {
    pub(crate) fn get(&self, key: &str) -> Option<&Entry<'s>> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|entry| entry.key == key),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true } if meaning(text) == Meaning::Null)
    }

    /// Number of values in it, itself included.
    pub(crate) fn size(&self) -> usize {
        1 + match &self.kind {
            Kind::Scalar { .. } => 0,
            Kind::List(items) => items.iter().map(Node::size).sum(),
            Kind::Map(entries) => entries.iter().map(|entry| entry.value.size()).sum(),
        }
    }

    /// Takes the values in `faulty` out of the tree.
    pub(crate) fn prune(&mut self, faulty: &HashSet<u32>) {
        match &mut self.kind {
            Kind::Scalar { .. } => {}
            Kind::List(items) => {
                items.retain(|item| !faulty.contains(&item.id));
                items.iter_mut().for_each(|item| item.prune(faulty));
            }
            Kind::Map(entries) => {
                entries.retain(|entry| !faulty.contains(&entry.value.id));
                entries.iter_mut().for_each(|entry| entry.value.prune(faulty));
            }
        }
    }

    /// Line and column of the value at `path` and the path as the author counts it. Where the path goes on
    /// beyond what was written (a default, one value for a list), the last value on the way stands for it.
    pub(crate) fn locate(&self, path: &[Segment]) -> ((u32, u32), String) {
        let (mut node, mut at, mut text) = (self, (self.line, self.column), String::new());
        for segment in path {
            match segment {
                Segment::Key(key) => {
                    push_key(&mut text, key);
                    match node.get(key) {
                        // An empty value has no position worth pointing at; its key has.
                        Some(entry) if entry.value.is_null() => return ((entry.line, entry.column), text),
                        Some(entry) => node = &entry.value,
                        None => return (at, text),
                    }
                }
                Segment::Index(index) => match &node.kind {
                    Kind::List(items) => match items.get(*index) {
                        Some(item) => {
                            node = item;
                            push_index(&mut text, item.index as usize);
                        }
                        None => return (at, text),
                    },
                    _ => return (at, text),
                },
            }
            at = (node.line, node.column);
        }
        (at, text)
    }

    /// As [`Self::locate`], but the position of the last key instead of its value.
    pub(crate) fn locate_key(&self, path: &[Segment]) -> ((u32, u32), String) {
        let (at, text) = self.locate(path);
        let Some((Segment::Key(key), parents)) = path.split_last() else {
            return (at, text);
        };
        let mut node = self;
        for segment in parents {
            let next = match (segment, &node.kind) {
                (Segment::Key(key), _) => node.get(key).map(|entry| &entry.value),
                (Segment::Index(index), Kind::List(items)) => items.get(*index),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => return (at, text),
            }
        }
        (node.get(key).map_or(at, |entry| (entry.line, entry.column)), text)
    }
}

pub(crate) fn push_key(text: &mut String, key: &str) {
    if !text.is_empty() {
        text.push('.');
    }
    text.push_str(key);
}

pub(crate) fn push_index(text: &mut String, index: usize) {
    write!(text, "[{index}]").expect("writing into a String cannot fail");
}

/// Resolves a plain scalar.
pub(crate) fn meaning(text: &str) -> Meaning<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Meaning::Null,
        "true" | "True" | "TRUE" => return Meaning::Bool(true),
        "false" | "False" | "FALSE" => return Meaning::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Meaning::Float(f64::NAN),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Meaning::Text(text);
    }
    let based = |digits: &str, radix| u64::from_str_radix(digits, radix).ok();
    if let Some(number) = text.strip_prefix("0x").and_then(|hex| based(hex, 16)) {
        return Meaning::Unsigned(number);
    }
    if let Some(number) = text.strip_prefix("0o").and_then(|octal| based(octal, 8)) {
        return Meaning::Unsigned(number);
    }
    if let Ok(number) = text.parse::<u64>() {
        return Meaning::Unsigned(number);
    }
    if let Ok(number) = text.parse::<i64>() {
        return Meaning::Signed(number);
    }
    let infinite = matches!(unsigned, ".inf" | ".Inf" | ".INF");
    let float = unsigned
        .chars()
        .all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '-' | '+'));
    match text.parse::<f64>() {
        Ok(number) if float => Meaning::Float(number),
        _ if infinite => Meaning::Float(if text.starts_with('-') {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        }),
        _ => Meaning::Text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::{Meaning, meaning};

    #[test]
    fn scalars_mean_what_yaml_1_2_says() {
        for (text, expected) in [
            ("", Meaning::Null),
            ("~", Meaning::Null),
            ("True", Meaning::Bool(true)),
            ("yes", Meaning::Text("yes")),
            ("443", Meaning::Unsigned(443)),
            ("-1", Meaning::Signed(-1)),
            ("0x1f", Meaning::Unsigned(31)),
            ("0o17", Meaning::Unsigned(15)),
            ("1024-65535", Meaning::Text("1024-65535")),
            ("10.4", Meaning::Float(10.4)),
            ("1e3", Meaning::Float(1000.0)),
            ("10.4.0.1", Meaning::Text("10.4.0.1")),
            ("-.inf", Meaning::Float(f64::NEG_INFINITY)),
            ("::1", Meaning::Text("::1")),
            ("3/4", Meaning::Text("3/4")),
            ("infinity", Meaning::Text("infinity")),
        ] {
            assert_eq!(meaning(text), expected, "{text:?}");
        }
    }
}
