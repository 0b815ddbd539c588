//! Parts of an object as the API sends it, each with its place, and what is said when one is not understood.
//!
//! Owns the words of a [`Fault`]. Reads no type of Rust's: the definition of MultiNetworkPolicy that a cluster has may check nothing, and one object
//! that a typed decoder refused would end the watch of all of them. Refuses fields it does not know, since one
//! that is misspelt (`form` for `from`) would permit everybody.

use std::fmt;

use serde_json::Value;

/// Longer values are cut in what people read.
const SHOWN: usize = 60;

/// Something in an object that is not understood, and what is made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    at: String,
    what: String,
    effect: &'static str,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.at, self.what, self.effect)
    }
}

/// The same, before anybody knows what to make of it.
#[derive(Debug)]
pub(super) struct Wrong {
    at: String,
    what: String,
}

impl Wrong {
    pub fn new(at: &str, what: String) -> Self {
        Self {
            at: at.to_owned(),
            what,
        }
    }

    pub fn therefore(self, effect: &'static str) -> Fault {
        Fault {
            at: self.at,
            what: self.what,
            effect,
        }
    }
}

/// A value and its place: `spec.ingress[0].from`.
#[derive(Debug)]
pub(super) struct Part<'v> {
    value: &'v Value,
    at: String,
}

/// Fields in the order in which they were asked for; `None`: absent, or null, which the API takes for the same.
pub(super) type Fields<'v, const N: usize> = [Option<Part<'v>>; N];

impl<'v> Part<'v> {
    pub fn new(value: &'v Value, at: &str) -> Self {
        Self {
            value,
            at: at.to_owned(),
        }
    }

    pub fn wrong(&self, what: String) -> Wrong {
        Wrong::new(&self.at, what)
    }

    /// The fields of a mapping, and what is wrong if it has others.
    pub fn split<const N: usize>(&self, known: [&str; N]) -> Result<(Fields<'v, N>, Option<Wrong>), Wrong> {
        let Value::Object(fields) = self.value else {
            return Err(self.wrong(format!("{} is not a mapping", self.shown())));
        };
        let unknown = fields
            .keys()
            .find(|field| !known.contains(&field.as_str()))
            .map(|field| {
                self.wrong(format!(
                    "field \"{field}\" is not known, write one of {}",
                    known.join(", ")
                ))
            });
        let fields = known.map(|field| {
            let value = fields.get(field).filter(|value| !value.is_null())?;
            Some(Self::new(value, &format!("{}.{field}", self.at)))
        });
        Ok((fields, unknown))
    }

    /// The fields of a mapping that has no others.
    pub fn fields<const N: usize>(&self, known: [&str; N]) -> Result<Fields<'v, N>, Wrong> {
        match self.split(known)? {
            (fields, None) => Ok(fields),
            (_, Some(unknown)) => Err(unknown),
        }
    }

    /// The entries of a mapping with any keys.
    pub fn entries(&self) -> Result<impl Iterator<Item = (&'v str, Self)>, Wrong> {
        let Value::Object(entries) = self.value else {
            return Err(self.wrong(format!("{} is not a mapping", self.shown())));
        };
        let at = self.at.clone();
        Ok(entries
            .iter()
            .map(move |(key, value)| (key.as_str(), Self::new(value, &format!("{at}.{key}")))))
    }

    pub fn list(&self) -> Result<Vec<Self>, Wrong> {
        let Value::Array(items) = self.value else {
            return Err(self.wrong(format!("{} is not a list", self.shown())));
        };
        let items = items.iter().enumerate();
        Ok(items
            .map(|(place, value)| Self::new(value, &format!("{}[{place}]", self.at)))
            .collect())
    }

    pub fn text(&self) -> Result<&'v str, Wrong> {
        match self.value {
            Value::String(text) => Ok(text),
            _ => Err(self.wrong(format!("{} is not text, put it in quotes", self.shown()))),
        }
    }

    /// A number; `None`: it is something else.
    pub fn number(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// The value as it is written, cut where it is long.
    pub fn shown(&self) -> String {
        let text = self.value.to_string();
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text,
        }
    }
}
