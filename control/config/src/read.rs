//! From text to a [`Document`] and the tree of its positions, with every fault of shape on the way.
//!
//! serde stops at its first fault; this goes on. A fault is reported, the smallest value to blame is set aside and
//! the enclosing item is read again without it; the items of the long lists are read one by one, so that
//! the cost stays linear. What comes out is a document without the faulty parts, fit for the checks of meaning,
//! and a tree in which the two agree on every index.

use std::collections::HashSet;

use serde::de::DeserializeOwned;

use crate::diagnostic::{Diagnostics, Severity};
use crate::document::{Document, Metadata, Spec};
use crate::fault::{self, Misfit, Omitted, Site};
use crate::node::{Entry, Kind, Node, Segment, push_index, push_key, steps};
use crate::suggest::nearest;
use crate::{API_VERSION, KIND, MAX_DOCUMENT_BYTES, yaml};

/// A single item with more faults than this is set aside as a whole.
const MAX_FAULTS_OF_ITEM: usize = 100;

/// A document and where each part of it stands.
pub(crate) struct Read<'s> {
    pub document: Document,
    pub tree: Node<'s>,
    /// `metadata` could be read; if not, its name is a stand-in that nobody should judge.
    pub named: bool,
    /// No part was set aside, so that what looks absent is absent.
    pub complete: bool,
}

/// Reads the shape of `source`. `None` when there is nothing to check further.
pub(crate) fn document<'s>(source: &'s [u8], diagnostics: &mut Diagnostics) -> Option<Read<'s>> {
    let mut error = |at, message: String, help: String| {
        diagnostics.push(Severity::Error, at, String::new(), (message, Some(help)));
    };
    if source.len() > MAX_DOCUMENT_BYTES {
        let message = format!(
            "the document has {} bytes, more than the {MAX_DOCUMENT_BYTES} allowed",
            source.len()
        );
        error(
            (1, 1),
            message,
            "use address groups and ranges where they say the same".to_owned(),
        );
        return None;
    }
    let text = match std::str::from_utf8(source) {
        Ok(text) => text,
        Err(fault) => {
            let good = String::from_utf8_lossy(&source[..fault.valid_up_to()]);
            let line = good.matches('\n').count() as u32 + 1;
            let column = good.rsplit('\n').next().map_or(0, |last| last.chars().count()) as u32 + 1;
            let byte = source[fault.valid_up_to()];
            error(
                (line, column),
                format!("byte 0x{byte:02x} is not UTF-8"),
                "save the file as UTF-8".to_owned(),
            );
            return None;
        }
    };
    let mut tree = yaml::tree(text, diagnostics)?;
    let (document, named, faulty) = Reader {
        omitted: Omitted::default(),
        diagnostics,
    }
    .root(&tree)?;
    let complete = faulty.is_empty();
    if !complete {
        tree.prune(&faulty);
    }
    Some(Read {
        document,
        tree,
        named,
        complete,
    })
}

struct Reader<'d> {
    omitted: Omitted,
    diagnostics: &'d mut Diagnostics,
}

impl Reader<'_> {
    fn root(mut self, tree: &Node<'_>) -> Option<(Document, bool, HashSet<u32>)> {
        const FIELDS: &[&str] = &["apiVersion", "kind", "metadata", "spec"];
        let Kind::Map(entries) = &tree.kind else {
            let message = "the document must be a mapping of apiVersion, kind, metadata and spec".to_owned();
            let help = format!("begin with `apiVersion: {API_VERSION}` and `kind: {KIND}`");
            self.diagnostics.push(
                Severity::Error,
                (tree.line, tree.column),
                String::new(),
                (message, Some(help)),
            );
            return None;
        };
        let other =
            |field: &str, right: fn(&str) -> bool| match tree.get(field).map(|entry| &entry.value.kind) {
                Some(Kind::Scalar { text, .. }) => !right(text),
                _ => false,
            };
        // Some other program's file: its fields are none of ours, and a list of them would hide that.
        let foreign = other("kind", |kind| kind == KIND)
            && other("apiVersion", |version| version.starts_with("bulkhead.dev/"));
        let unknown = |entry: &&Entry<'_>| !foreign && !FIELDS.contains(&&*entry.key);
        for entry in entries.iter().filter(unknown) {
            let site = Site {
                id: entry.value.id,
                line: entry.line,
                column: entry.column,
            };
            let misfit = Misfit::UnknownField {
                found: entry.key.to_string(),
                known: FIELDS,
            };
            self.report(misfit, site, &[Segment::Key(entry.key.to_string().into())]);
        }
        self.text(tree, "apiVersion", API_VERSION);
        self.text(tree, "kind", KIND);
        if foreign {
            return None;
        }
        let metadata = self.part::<Metadata>(tree, "metadata");
        let named = metadata.is_some();
        let spec = self.spec(tree);
        let document = Document {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            metadata: metadata.unwrap_or_else(|| Metadata { name: String::new() }),
            spec: spec.unwrap_or_default(),
        };
        Some((document, named, self.omitted.faulty.into_inner()))
    }

    /// `apiVersion` and `kind`: exactly one value is right.
    fn text(&mut self, tree: &Node<'_>, field: &'static str, right: &str) {
        let Some(found) = self.part::<String>(tree, field) else {
            return;
        };
        if found != right {
            let (at, path) = tree.locate(&steps![field]);
            let message = format!("{field} \"{found}\" is not supported");
            self.diagnostics.push(
                Severity::Error,
                at,
                path,
                (message, Some(format!("write `{field}: {right}`"))),
            );
        }
    }

    fn part<T: DeserializeOwned>(&mut self, tree: &Node<'_>, field: &'static str) -> Option<T> {
        let Some(entry) = tree.get(field) else {
            let misfit = match self.omitted.misspelt(tree, field) {
                true => Misfit::SetAside,
                false => Misfit::MissingField(field),
            };
            self.report(misfit, Site::of(tree), &[]);
            return None;
        };
        self.item(&entry.value, &steps![field])
    }

    fn spec(&mut self, tree: &Node<'_>) -> Option<Spec> {
        let spec = tree.get("spec").map(|entry| &entry.value);
        // Their items are read one by one.
        const LISTS: [&[&str]; 12] = [
            &["interfaces"],
            &["wires"],
            &["routes"],
            &["zones"],
            &["screens"],
            &["addresses"],
            &["services"],
            &["policies"],
            &["nat", "pools"],
            &["nat", "source"],
            &["nat", "destination"],
            &["nat", "static"],
        ];
        let lists = LISTS.map(|path| {
            let list = path
                .iter()
                .try_fold(spec?, |node, field| node.get(field).map(|entry| &entry.value))?;
            matches!(list.kind, Kind::List(_)).then_some(list)
        });
        self.omitted
            .hollow
            .extend(lists.iter().flatten().map(|list| list.id));
        let mut document = self.part::<Spec>(tree, "spec")?;
        let [
            interfaces,
            wires,
            routes,
            zones,
            screens,
            addresses,
            services,
            policies,
            pools,
            source,
            destination,
            statics,
        ] = lists;
        document.interfaces = self.items(interfaces, &steps!["spec", "interfaces"]);
        document.wires = self.items(wires, &steps!["spec", "wires"]);
        document.routes = self.items(routes, &steps!["spec", "routes"]);
        document.zones = self.items(zones, &steps!["spec", "zones"]);
        document.screens = self.items(screens, &steps!["spec", "screens"]);
        document.addresses = self.items(addresses, &steps!["spec", "addresses"]);
        document.services = self.items(services, &steps!["spec", "services"]);
        document.policies = self.items(policies, &steps!["spec", "policies"]);
        let nat = &mut document.nat;
        nat.pools = self.items(pools, &steps!["spec", "nat", "pools"]);
        nat.source = self.items(source, &steps!["spec", "nat", "source"]);
        nat.destination = self.items(destination, &steps!["spec", "nat", "destination"]);
        nat.statics = self.items(statics, &steps!["spec", "nat", "static"]);
        Some(document)
    }

    fn items<T: DeserializeOwned>(&mut self, list: Option<&Node<'_>>, path: &[Segment]) -> Vec<T> {
        let Some(Node {
            kind: Kind::List(items),
            ..
        }) = list
        else {
            return Vec::new();
        };
        let mut place = path.to_vec();
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            place.push(Segment::Index(index));
            values.extend(self.item(item, &place));
            place.pop();
        }
        values
    }

    /// Reads one value, reporting its faults one after the other.
    fn item<T: DeserializeOwned>(&mut self, node: &Node<'_>, path: &[Segment]) -> Option<T> {
        for _ in 0..MAX_FAULTS_OF_ITEM {
            let fault = match fault::value(node, &self.omitted) {
                Ok(value) => return Some(value),
                Err(fault) => fault,
            };
            let (misfit, site, steps) = fault.into_parts();
            let site = site.unwrap_or(Site::of(node));
            self.report(misfit, site, &[path, &steps].concat());
            if site.id == node.id {
                break;
            }
        }
        self.omitted.faulty.borrow_mut().insert(node.id);
        None
    }

    fn report(&mut self, misfit: Misfit, site: Site, path: &[Segment]) {
        self.omitted.faulty.borrow_mut().insert(site.id);
        let (mut place, mut last) = (String::new(), "the document");
        for segment in path {
            match segment {
                Segment::Key(key) => {
                    push_key(&mut place, key);
                    last = key;
                }
                Segment::Index(index) => push_index(&mut place, *index),
            }
        }
        let subject = if place.ends_with(']') {
            format!("an entry of {last}")
        } else {
            last.to_owned()
        };
        let text = match misfit {
            Misfit::SetAside => return,
            Misfit::UnknownField { found, known } => {
                let help = match (nearest(&found, known.iter().copied()), &*found) {
                    (Some(near), _) => {
                        self.omitted.misspelt.insert(site.id, near.to_owned());
                        format!("did you mean \"{near}\"?")
                    }
                    (None, "<<") => "merge keys are not part of YAML 1.2: write the fields out".to_owned(),
                    (None, _) => format!("the fields here are {}", known.join(", ")),
                };
                (format!("unknown field \"{found}\""), Some(help))
            }
            Misfit::MissingField(field) => {
                let place = if place.is_empty() { "the document" } else { &place };
                let help = match field {
                    "apiVersion" => format!("add `apiVersion: {API_VERSION}`"),
                    "kind" => format!("add `kind: {KIND}`"),
                    _ => format!("add `{field}`"),
                };
                (format!("{place} lacks the field \"{field}\""), Some(help))
            }
            Misfit::UnknownVariant { found, known } => {
                let help = match nearest(&found, known.iter().copied()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("it can be {}", known.join(", ")),
                };
                (format!("\"{found}\" is not a value of {last}"), Some(help))
            }
            Misfit::WrongType {
                found,
                expected,
                number,
            } => {
                let help = match &*expected {
                    _ if found == "nothing" => format!("give {last} a value"),
                    "text" if number => {
                        let value = found.rsplit(' ').next().unwrap_or_default();
                        format!("write \"{value}\" in quotes")
                    }
                    "a list" | "a single value or a list" => {
                        "write `[a, b]`, or one line with `- ` for each entry".to_owned()
                    }
                    expected if expected.starts_with("a mapping") => {
                        "write `{ field: value }`, or one line `field: value` for each".to_owned()
                    }
                    expected if expected.starts_with("a whole number") => {
                        "write only the digits, without unit or quotes".to_owned()
                    }
                    expected if expected.starts_with("true") => {
                        "write `true` without quotes, or `false`".to_owned()
                    }
                    _ => "write a single value".to_owned(),
                };
                let help = Some(help);
                (format!("{subject} must be {expected}, not {found}"), help)
            }
            Misfit::Other(message) => {
                let help = "`bulkhead schema` describes every field".to_owned();
                (format!("{subject}: {message}"), Some(help))
            }
        };
        self.diagnostics
            .push(Severity::Error, (site.line, site.column), place, text);
    }
}
