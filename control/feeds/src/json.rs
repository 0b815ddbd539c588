//! Lists in JSON: one document, or one after the other (NDJSON).
//!
//! Owns the way along the keys. Nothing is built up in memory: the deserializer walks, and only the strings at the end
//! of a key are looked at. Lists on the way are walked through. A document that breaks off refuses the whole list, since
//! nobody knows what is missing. Depth is bounded by serde_json (128), the length of a string by [`Bounded`], as serde_json
//! keeps one until its end.

use std::fmt;
use std::io::{self, BufRead, Read};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::entry::{Entry, Fault};
use crate::list::{Collector, ListError};

/// The longest string. A pattern of STIX may name thousands of addresses, an artifact has its content with it.
const LONGEST: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
#[error("a string is longer than {LONGEST} bytes")]
struct TooLong;

/// Fails where a string of JSON goes on for more than [`LONGEST`] bytes.
pub(crate) struct Bounded<R> {
    inner: R,
    /// How far into a string this is; `None`: between strings.
    within: Option<usize>,
    escaped: bool,
}

impl<R: Read> Bounded<R> {
    pub(crate) const fn new(inner: R) -> Self {
        Self {
            inner,
            within: None,
            escaped: false,
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.inner.read(buffer)?;
        for byte in buffer.iter().take(got) {
            self.within = match (self.within, byte) {
                (None, b'"') => Some(0),
                (None, _) => None,
                (Some(_), b'"') if !self.escaped => None,
                (Some(LONGEST), _) => return Err(io::Error::other(TooLong)),
                (Some(length), _) => Some(length + 1),
            };
            self.escaped = *byte == b'\\' && self.within.is_some() && !self.escaped;
        }
        Ok(got)
    }
}

pub(crate) fn read(input: &mut dyn BufRead, collector: &mut Collector<'_>) -> Result<(), ListError> {
    let rules = collector.rules;
    let keys: Vec<Vec<&str>> = rules.keys.iter().map(|key| key.split('.').collect()).collect();
    let paths: Vec<&[&str]> = match keys.is_empty() {
        true => vec![&[]],
        false => keys.iter().map(Vec::as_slice).collect(),
    };
    let before = collector.seen();
    let (mut error, mut found, mut any) = (None, false, false);
    let mut documents = serde_json::Deserializer::from_reader(Bounded::new(input));
    loop {
        // Ok at the end of the text; anything else that is not the text's own fault ends here too.
        match documents.end() {
            Ok(()) => break,
            Err(failure) if failure.is_io() => return Err(malformed(failure)),
            Err(_) => {}
        }
        any = true;
        let walk = Walk {
            paths: &paths,
            collector,
            error: &mut error,
            found: &mut found,
        };
        let walked = walk.deserialize(&mut documents);
        if let Some(error) = error.take() {
            return Err(error);
        }
        walked.map_err(malformed)?;
    }
    if !any {
        return Err(ListError::Malformed {
            format: "JSON",
            why: "it is empty".to_owned(),
        });
    }
    if !found && collector.seen() == before && !rules.keys.is_empty() {
        return Err(ListError::NothingAt(rules.keys.join(", ")));
    }
    Ok(())
}

pub(crate) fn malformed(error: serde_json::Error) -> ListError {
    if error.is_io() {
        let error = io::Error::from(error);
        return match error.get_ref().is_some_and(|inner| inner.is::<TooLong>()) {
            true => ListError::Malformed {
                format: "JSON",
                why: error.to_string(),
            },
            false => ListError::Read(error),
        };
    }
    ListError::Malformed {
        format: "JSON",
        why: error.to_string(),
    }
}

/// A value, and what is left of the keys that lead to it.
struct Walk<'w, 'c, 'r> {
    paths: &'w [&'w [&'w str]],
    collector: &'c mut Collector<'r>,
    /// Why the list is refused, since serde's errors carry only text.
    error: &'c mut Option<ListError>,
    /// Whether any key led to a value, an empty list included.
    found: &'c mut bool,
}

impl Walk<'_, '_, '_> {
    fn arrived(&self) -> bool {
        self.paths.iter().any(|path| path.is_empty())
    }

    fn take<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        if !self.arrived() {
            return Ok(());
        }
        *self.found = true;
        let place = self.collector.seen() + 1;
        let taken = self.collector.take(place, text, Entry::of_value(text));
        taken.map_err(|error| {
            *self.error = Some(error);
            E::custom("refused")
        })
    }

    fn other<E>(self, shown: &dyn fmt::Display) -> Result<(), E> {
        if self.arrived() {
            let place = self.collector.seen() + 1;
            self.collector.refuse(place, &shown.to_string(), Fault::NoText);
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.paths.is_empty() {
            true => deserializer.deserialize_ignored_any(IgnoredAny).map(|_| ()),
            false => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.take(text)
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.other(&value)
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.other(&value)
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.other(&value)
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.other(&value)
    }

    /// `null` is how some write that there is none.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        *self.found |= self.arrived();
        while list
            .next_element_seed(Walk {
                paths: self.paths,
                collector: &mut *self.collector,
                error: &mut *self.error,
                found: &mut *self.found,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if self.arrived() && self.paths.len() == 1 {
            return Err(A::Error::custom(
                "a mapping stands where an address is meant; give a key",
            ));
        }
        while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            let paths: Vec<&[&str]> = self
                .paths
                .iter()
                .filter_map(|path| path.split_first())
                .filter(|(first, _)| **first == "*" || **first == &*key)
                .map(|(_, rest)| rest)
                .collect();
            map.next_value_seed(Walk {
                paths: &paths,
                collector: &mut *self.collector,
                error: &mut *self.error,
                found: &mut *self.found,
            })?;
        }
        Ok(())
    }
}
