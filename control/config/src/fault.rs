//! serde over the positioned tree: what derive knows about a document, with a place for each fault.
//!
//! Owns the difference between the shape that was written and the shape of [`Document`](crate::Document).
//! A fault names the smallest value that is to blame, so that the caller can set it aside and go on. A list
//! or mapping without a value (`policies:` and nothing more) is an empty one. Numbers and booleans are not text: the JSON Schema
//! would refuse them too.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, Expected, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::node::{Entry, Kind, Meaning, Node, Segment, meaning};

/// What does not fit.
#[derive(Debug)]
pub(crate) enum Misfit {
    UnknownField {
        found: String,
        known: &'static [&'static str],
    },
    MissingField(&'static str),
    /// Missing because it has been set aside after an earlier fault: nothing to add.
    SetAside,
    UnknownVariant {
        found: String,
        known: &'static [&'static str],
    },
    WrongType {
        found: String,
        expected: String,
        number: bool,
    },
    Other(String),
}

/// A misfit and its place.
#[derive(Debug)]
pub(crate) struct Fault(Box<Inner>);

#[derive(Debug)]
struct Inner {
    misfit: Misfit,
    site: Option<Site>,
    /// Innermost step first.
    steps: Vec<Segment>,
}

/// The value to blame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub id: u32,
    pub line: u32,
    pub column: u32,
}

impl Site {
    pub(crate) fn of(node: &Node<'_>) -> Self {
        Self {
            id: node.id,
            line: node.line,
            column: node.column,
        }
    }
}

impl Fault {
    fn new(misfit: Misfit) -> Self {
        Self(Box::new(Inner {
            misfit,
            site: None,
            steps: Vec::new(),
        }))
    }

    fn at(mut self, site: Site) -> Self {
        self.0.site.get_or_insert(site);
        self
    }

    fn under(mut self, step: Segment) -> Self {
        self.0.steps.push(step);
        self
    }

    /// What, where, and the steps from the value that was read down to the place.
    pub(crate) fn into_parts(self) -> (Misfit, Option<Site>, Vec<Segment>) {
        let Inner {
            misfit,
            site,
            mut steps,
        } = *self.0;
        steps.reverse();
        (misfit, site, steps)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.misfit)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(Misfit::Other(message.to_string()))
    }
    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let number = matches!(
            found,
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) | Unexpected::Bool(_)
        );
        let found = match found {
            Unexpected::Bool(value) => format!("the boolean {value}"),
            Unexpected::Unsigned(number) => format!("the number {number}"),
            Unexpected::Signed(number) => format!("the number {number}"),
            Unexpected::Float(number) => format!("the number {number}"),
            Unexpected::Str(text) => format!("the text \"{text}\""),
            Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "a mapping".to_owned(),
            other => other.to_string(),
        };
        let expected = match expected.to_string().as_str() {
            "a string" => "text".to_owned(),
            "a sequence" => "a list".to_owned(),
            "a boolean" => "true or false".to_owned(),
            "u16" => format!("a whole number from 0 to {}", u16::MAX),
            "u32" => format!("a whole number from 0 to {}", u32::MAX),
            other => other.to_owned(),
        };
        Self::new(Misfit::WrongType {
            found,
            expected,
            number,
        })
    }
    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }
    fn unknown_variant(found: &str, known: &'static [&'static str]) -> Self {
        Self::new(Misfit::UnknownVariant {
            found: found.to_owned(),
            known,
        })
    }
    fn unknown_field(found: &str, known: &'static [&'static str]) -> Self {
        Self::new(Misfit::UnknownField {
            found: found.to_owned(),
            known,
        })
    }
    fn missing_field(field: &'static str) -> Self {
        Self::new(Misfit::MissingField(field))
    }
}

/// What reading leaves out.
#[derive(Default)]
pub(crate) struct Omitted {
    /// Values with a fault, by number.
    pub faulty: RefCell<HashSet<u32>>,
    /// Lists whose items are read one by one, and therefore look empty from outside.
    pub hollow: HashSet<u32>,
    /// Values whose key is unknown, by number, and the field that was probably meant.
    pub misspelt: HashMap<u32, String>,
}

impl Omitted {
    /// Whether `field` of `node` is probably there under a mistyped name.
    pub(crate) fn misspelt(&self, node: &Node<'_>, field: &str) -> bool {
        let Kind::Map(entries) = &node.kind else {
            return false;
        };
        entries.iter().any(|entry| {
            self.misspelt
                .get(&entry.value.id)
                .is_some_and(|meant| meant == field)
        })
    }

    fn has(&self, node: &Node<'_>) -> bool {
        self.faulty.borrow().contains(&node.id)
    }
}

/// Reads one value, blaming the value itself for what has no closer place.
pub(crate) fn value<'de, T: Deserialize<'de>>(node: &Node<'_>, omitted: &Omitted) -> Result<T, Fault> {
    T::deserialize(Positioned { node, omitted }).map_err(|fault| fault.at(Site::of(node)))
}

#[derive(Clone, Copy)]
struct Positioned<'n, 's> {
    node: &'n Node<'s>,
    omitted: &'n Omitted,
}

impl<'de> Deserializer<'de> for Positioned<'_, '_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Scalar { text, plain: false } => visitor.visit_str(text),
            Kind::Scalar { text, plain: true } => match meaning(text) {
                Meaning::Null => visitor.visit_unit(),
                Meaning::Bool(value) => visitor.visit_bool(value),
                Meaning::Unsigned(number) => visitor.visit_u64(number),
                Meaning::Signed(number) => visitor.visit_i64(number),
                Meaning::Float(number) => visitor.visit_f64(number),
                Meaning::Text(text) => visitor.visit_str(text),
            },
            Kind::List(items) => {
                let items = if self.omitted.hollow.contains(&self.node.id) {
                    &[][..]
                } else {
                    &items[..]
                };
                visitor.visit_seq(Items {
                    items: items.iter(),
                    omitted: self.omitted,
                })
            }
            Kind::Map(entries) => {
                let fields = Fields {
                    entries: entries.iter(),
                    value: Cell::new(None),
                    omitted: self.omitted,
                };
                visitor
                    .visit_map(fields)
                    .map_err(|fault| self.explain_missing(fault))
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.node.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.node.kind {
            Kind::Scalar { text, .. } if !self.node.is_null() => {
                visitor.visit_enum(StrDeserializer::new(text))
            }
            kind => {
                let found = match kind {
                    Kind::Scalar { .. } => "nothing",
                    Kind::List(_) => "a list",
                    Kind::Map(_) => "a mapping",
                }
                .to_owned();
                let expected = format!("one of {}", variants.join(", "));
                Err(Fault::new(Misfit::WrongType {
                    found,
                    expected,
                    number: false,
                }))
            }
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.node.is_null() {
            return visitor.visit_seq(Items {
                items: [].iter(),
                omitted: self.omitted,
            });
        }
        self.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if self.node.is_null() {
            let entries = [].iter();
            return visitor.visit_map(Fields {
                entries,
                value: Cell::new(None),
                omitted: self.omitted,
            });
        }
        if matches!(self.node.kind, Kind::List(_)) {
            // serde would take the items for the fields in their order.
            return Err(de::Error::invalid_type(Unexpected::Seq, &visitor));
        }
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        tuple tuple_struct map identifier ignored_any
    }
}

impl Positioned<'_, '_> {
    /// A field that is missing may only have been set aside, or have a mistyped name that was reported already.
    fn explain_missing(&self, mut fault: Fault) -> Fault {
        if let (Misfit::MissingField(field), None) = (&fault.0.misfit, &fault.0.site) {
            let written = self.node.get(field);
            debug_assert!(
                written.is_none_or(|entry| self.omitted.has(&entry.value)),
                "a field that is there is read or set aside"
            );
            if written.is_some() || self.omitted.misspelt(self.node, field) {
                fault.0.misfit = Misfit::SetAside;
            }
        }
        fault
    }
}

struct Items<'n, 's> {
    items: std::slice::Iter<'n, Node<'s>>,
    omitted: &'n Omitted,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let omitted = self.omitted;
        let Some(node) = self.items.find(|item| !omitted.has(item)) else {
            return Ok(None);
        };
        seed.deserialize(Positioned { node, omitted })
            .map(Some)
            .map_err(|fault| {
                fault
                    .at(Site::of(node))
                    .under(Segment::Index(node.index as usize))
            })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Fields<'n, 's> {
    entries: std::slice::Iter<'n, Entry<'s>>,
    value: Cell<Option<&'n Entry<'s>>>,
    omitted: &'n Omitted,
}

impl<'de> MapAccess<'de> for Fields<'_, '_> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let omitted = self.omitted;
        let Some(entry) = self.entries.find(|entry| !omitted.has(&entry.value)) else {
            return Ok(None);
        };
        let blamed = Site {
            id: entry.value.id,
            line: entry.line,
            column: entry.column,
        };
        let key: Result<K::Value, Fault> = seed.deserialize(StrDeserializer::new(&entry.key));
        let key = key.map_err(|fault| fault.at(blamed).under(step(entry)))?;
        self.value.set(Some(entry));
        Ok(Some(key))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Fault> {
        let entry = self.value.take().expect("serde asks for a key before its value");
        let mut blamed = Site::of(&entry.value);
        if entry.value.is_null() {
            // A value that is not there has no position worth pointing at; its key has.
            (blamed.line, blamed.column) = (entry.line, entry.column);
        }
        seed.deserialize(Positioned {
            node: &entry.value,
            omitted: self.omitted,
        })
        .map_err(|fault| fault.at(blamed).under(step(entry)))
    }
}

fn step(entry: &Entry<'_>) -> Segment {
    Segment::Key(entry.key.clone().into_owned().into())
}
