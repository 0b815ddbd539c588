//! From text to a tree of positioned values, within bounds.
//!
//! Owns what YAML allows here: one document, text keys, aliases. Assumes nothing about the text: it may be
//! hostile. Refuses more than [`MAX_DOCUMENT_BYTES`], more than [`MAX_NODES`] values, nesting beyond [`MAX_DEPTH`]
//! and aliases that unfold to more than [`MAX_COPIED_NODES`] values, so that neither time nor memory can explode.
//! A duplicate key is reported and the first one kept; a syntax error ends the reading, what was read before it
//! is not judged.

use std::borrow::Cow;
use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};

use crate::diagnostic::{Diagnostics, Severity};
use crate::node::{Entry, Kind, Node, push_index, push_key};

/// The largest text that is read. 100,000 policies take about 15 MiB.
pub const MAX_DOCUMENT_BYTES: usize = 64 << 20;
/// One value takes about 80 bytes: this bounds the tree to some 650 MB even for `[1,1,1,…`.
const MAX_NODES: usize = 8_000_000;
const MAX_COPIED_NODES: usize = 1_000_000;
/// The deepest field of the format is at 7.
const MAX_DEPTH: usize = 32;
/// From so many keys on, duplicates are found by hashing.
const LARGE_MAP: usize = 16;

/// Reads the one document of `source`, or reports why there is none.
pub(crate) fn tree<'s>(source: &'s str, diagnostics: &mut Diagnostics) -> Option<Node<'s>> {
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH + 1,
        block_nesting_limit: MAX_DEPTH + 1,
    };
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(source, options) {
        let step = match event {
            Ok((event, span)) => builder.take(event, span, diagnostics),
            Err(error) => {
                let marker = error.marker();
                Err(Stop {
                    at: position(marker.line(), marker.col()),
                    message: format!("not valid YAML: {}", error.info()),
                    help: Some("look at the indentation, quotes and brackets here and just above".to_owned()),
                })
            }
        };
        if let Err(stop) = step {
            let path = builder.path();
            diagnostics.push(Severity::Error, stop.at, path, (stop.message, stop.help));
            return None;
        }
    }
    match builder.root {
        Some(root) if !root.is_null() => Some(root),
        _ => {
            let help = format!(
                "begin with `apiVersion: {}` and `kind: {}`",
                crate::API_VERSION,
                crate::KIND
            );
            let message = "the document is empty".to_owned();
            diagnostics.push(Severity::Error, (1, 1), String::new(), (message, Some(help)));
            None
        }
    }
}

/// granit counts lines from 1 and columns from 0; people count both from 1.
fn position(line: usize, column: usize) -> (u32, u32) {
    let bounded = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    (bounded(line.max(1)), bounded(column + 1))
}

/// Why reading cannot go on.
struct Stop {
    at: (u32, u32),
    message: String,
    help: Option<String>,
}

fn stop<T>(at: (u32, u32), message: impl Into<String>, help: &str) -> Result<T, Stop> {
    Err(Stop {
        at,
        message: message.into(),
        help: Some(help.to_owned()),
    })
}

#[derive(Default)]
struct Builder<'s> {
    root: Option<Node<'s>>,
    documents: usize,
    open: Vec<Open<'s>>,
    anchored: HashMap<usize, Node<'s>>,
    nodes: usize,
    copied: usize,
}

/// A list or mapping that has begun and not ended.
struct Open<'s> {
    node: Node<'s>,
    anchor: usize,
    key: Option<(Cow<'s, str>, u32, u32)>,
    /// Line of each key, once the mapping is large.
    keys: HashMap<Cow<'s, str>, u32>,
}

impl<'s> Builder<'s> {
    fn take(&mut self, event: Event<'s>, span: Span, diagnostics: &mut Diagnostics) -> Result<(), Stop> {
        let at = position(span.start.line(), span.start.col());
        let tag_at = span
            .tag_start()
            .map_or(at, |start| position(start.line(), start.col()));
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let help = "keep one firewall in one file";
                    return stop(at, "a second document begins here, only one is read", help);
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !is_text(tag.as_deref(), tag_at)?;
                let node = self.node(at, Kind::Scalar { text, plain })?;
                self.finish(node, anchor, diagnostics)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                is_text(tag.as_deref(), tag_at)?;
                self.begin(at, Kind::List(Vec::new()), anchor)?;
            }
            Event::MappingStart(_, anchor, tag) => {
                is_text(tag.as_deref(), tag_at)?;
                self.begin(at, Kind::Map(Vec::new()), anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let open = self.open.pop().expect("the parser balances its events");
                self.finish(open.node, open.anchor, diagnostics)?;
            }
            Event::Alias(anchor) => {
                let Some(original) = self.anchored.get(&anchor) else {
                    return stop(
                        at,
                        "this alias stands inside the value it names",
                        "write the value out",
                    );
                };
                let size = original.size();
                let (mut node, budget) = (None, MAX_COPIED_NODES.saturating_sub(self.copied));
                if size <= budget {
                    node = Some(Node {
                        line: at.0,
                        column: at.1,
                        ..original.clone()
                    });
                }
                self.copied += size;
                let Some(node) = node else {
                    let message = format!("the aliases unfold to more than {MAX_COPIED_NODES} values");
                    return stop(at, message, "use address groups and services instead of aliases");
                };
                self.finish(node, 0, diagnostics)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn node(&mut self, (line, column): (u32, u32), kind: Kind<'s>) -> Result<Node<'s>, Stop> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!("the document has more than {MAX_NODES} values");
            return stop(
                (line, column),
                message,
                "use prefixes and ranges where they say the same",
            );
        }
        Ok(Node {
            id: self.nodes as u32,
            line,
            column,
            index: 0,
            kind,
        })
    }

    fn begin(&mut self, at: (u32, u32), kind: Kind<'s>, anchor: usize) -> Result<(), Stop> {
        if self.open.len() == MAX_DEPTH {
            let message = format!("the document is nested more than {MAX_DEPTH} levels deep");
            return stop(at, message, "no field of a firewall lies that deep");
        }
        let node = self.node(at, kind)?;
        self.open.push(Open {
            node,
            anchor,
            key: None,
            keys: HashMap::new(),
        });
        Ok(())
    }

    /// Puts a complete value where it belongs.
    fn finish(&mut self, node: Node<'s>, anchor: usize, diagnostics: &mut Diagnostics) -> Result<(), Stop> {
        if anchor != 0 {
            // Every anchor costs a copy, and copies can nest: they share the budget of the aliases.
            self.copied += node.size();
            if self.copied > MAX_COPIED_NODES {
                let message = format!("the anchors hold more than {MAX_COPIED_NODES} values");
                return stop(
                    (node.line, node.column),
                    message,
                    "use address groups and services instead",
                );
            }
            self.anchored.insert(anchor, node.clone());
        }
        let Some(Open {
            node: parent,
            key,
            keys,
            ..
        }) = self.open.last_mut()
        else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut parent.kind {
            Kind::Scalar { .. } => unreachable!("a scalar is never open"),
            Kind::List(items) => items.push(Node {
                index: items.len() as u32,
                ..node
            }),
            Kind::Map(entries) => match key.take() {
                None => {
                    let Kind::Scalar { text, .. } = node.kind else {
                        let help = "write `key: value` with a plain name as the key";
                        return stop(
                            (node.line, node.column),
                            "a list or mapping cannot be a key",
                            help,
                        );
                    };
                    *key = Some((text, node.line, node.column));
                }
                Some((name, line, column)) => {
                    let first = if entries.len() < LARGE_MAP {
                        entries
                            .iter()
                            .find(|entry| entry.key == name)
                            .map(|entry| entry.line)
                    } else {
                        if keys.is_empty() {
                            keys.extend(entries.iter().map(|entry| (entry.key.clone(), entry.line)));
                        }
                        keys.get(&name).copied()
                    };
                    if let Some(first) = first {
                        let message = format!("key \"{name}\" is written twice, first on line {first}");
                        let mut path = self.path();
                        push_key(&mut path, &name);
                        let help = Some("keep one of them".to_owned());
                        diagnostics.push(Severity::Error, (line, column), path, (message, help));
                        return Ok(());
                    }
                    if !keys.is_empty() {
                        keys.insert(name.clone(), line);
                    }
                    entries.push(Entry {
                        key: name,
                        line,
                        column,
                        value: node,
                    });
                }
            },
        }
        Ok(())
    }

    /// Where reading is now.
    fn path(&self) -> String {
        let mut text = String::new();
        for open in &self.open {
            match (&open.node.kind, &open.key) {
                (Kind::List(items), _) => push_index(&mut text, items.len()),
                (_, Some((key, ..))) => push_key(&mut text, key),
                _ => {}
            }
        }
        text
    }
}

/// Whether a tag says that a plain scalar is text; the other tags of the core schema say nothing new.
fn is_text(tag: Option<&Tag>, at: (u32, u32)) -> Result<bool, Stop> {
    let Some(tag) = tag else { return Ok(false) };
    match tag.core_suffix() {
        Some("str") => Ok(true),
        Some("int" | "float" | "bool" | "null" | "seq" | "map") => Ok(false),
        _ => stop(
            at,
            format!("tag {} has no meaning here", tag.original()),
            "leave it out",
        ),
    }
}
