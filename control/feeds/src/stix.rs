//! STIX 2.1 bundles (and TAXII 2.1 envelopes): the addresses of their indicators.
//!
//! Owns which indicators count: not revoked, valid now, and with a pattern that is a plain alternative of addresses.
//! `[ipv4-addr:value = 'x' AND …]` says less than "x", so whoever took x alone would block too much: patterns with AND,
//! NOT, a qualifier or a sequence are skipped and counted as such, and so are observables that no indicator calls bad.

mod pattern;

use std::fmt;
use std::io::BufRead;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::entry::Entry;
use crate::json::{Bounded, malformed};
use crate::list::{Collector, ListError};

pub(crate) fn read(
    input: &mut dyn BufRead,
    collector: &mut Collector<'_>,
    now: SystemTime,
) -> Result<(), ListError> {
    let mut error = None;
    let mut documents = serde_json::Deserializer::from_reader(Bounded::new(input));
    let bundle = Bundle {
        collector,
        now,
        error: &mut error,
    };
    let read = bundle.deserialize(&mut documents).and_then(|()| documents.end());
    match (error, read) {
        (Some(error), _) => Err(error),
        (None, Ok(())) => Ok(()),
        (None, Err(error)) => Err(match malformed(error) {
            ListError::Malformed { why, .. } => ListError::Malformed {
                format: "a STIX bundle",
                why,
            },
            other => other,
        }),
    }
}

struct Bundle<'c, 'r> {
    collector: &'c mut Collector<'r>,
    now: SystemTime,
    error: &'c mut Option<ListError>,
}

impl<'de> DeserializeSeed<'de> for Bundle<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Bundle<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping with objects; for other JSON give a key")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self {
            collector,
            now,
            error,
        } = self;
        let (mut objects, mut bundle) = (false, false);
        while let Some(key) = map.next_key::<String>()? {
            match &*key {
                "type" => {
                    bundle = map.next_value::<Text>()?.0.as_deref() == Some("bundle");
                    if !bundle {
                        return Err(A::Error::custom("its type is not bundle"));
                    }
                }
                // An envelope of several pages: the rest would be missing.
                "more" if map.next_value::<Flag>()?.0 => {
                    return Err(A::Error::custom(
                        "the server holds more pages; raise its page size",
                    ));
                }
                "more" => {}
                "objects" => {
                    objects = true;
                    map.next_value_seed(Objects {
                        collector: &mut *collector,
                        now,
                        error: &mut *error,
                    })?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match objects || bundle {
            true => Ok(()),
            false => Err(A::Error::custom("it has no objects; for other JSON give a key")),
        }
    }
}

struct Objects<'c, 'r> {
    collector: &'c mut Collector<'r>,
    now: SystemTime,
    error: &'c mut Option<ListError>,
}

impl<'de> DeserializeSeed<'de> for Objects<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Objects<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(object) = list.next_element::<Object>()? {
            if let Err(refused) = object.collect(self.collector, self.now) {
                *self.error = Some(refused);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// What an indicator says; other objects have none of it.
#[derive(Deserialize)]
struct Object {
    #[serde(default, rename = "type")]
    kind: Text,
    #[serde(default)]
    pattern: Text,
    #[serde(default)]
    pattern_type: Text,
    #[serde(default)]
    revoked: Flag,
    #[serde(default)]
    valid_from: Text,
    #[serde(default)]
    valid_until: Text,
}

impl Object {
    fn collect(&self, collector: &mut Collector<'_>, now: SystemTime) -> Result<(), ListError> {
        if self.kind.0.as_deref() != Some("indicator") {
            return Ok(());
        }
        let time = |text: &Text| text.0.as_deref().and_then(timestamp);
        let over = time(&self.valid_until).is_some_and(|until| until <= now);
        let to_come = time(&self.valid_from).is_some_and(|from| from > now);
        let spoken = self.pattern_type.0.as_deref().is_none_or(|kind| kind == "stix");
        let addresses = match &self.pattern.0 {
            Some(pattern) if spoken && !over && !to_come && !self.revoked.0 => pattern::addresses(pattern),
            _ => None,
        };
        let Some(addresses) = addresses.filter(|addresses| !addresses.is_empty()) else {
            collector.skip();
            return Ok(());
        };
        for address in addresses {
            let place = collector.seen() + 1;
            collector.take(place, &address, Entry::of_value(&address))?;
        }
        Ok(())
    }
}

/// A text, or something else that does not count.
#[derive(Default)]
struct Text(Option<String>);

/// `true`, or something else.
#[derive(Default)]
struct Flag(bool);

/// What may be anything. By hand, since serde builds up in memory whatever an untagged enum is made from.
enum Loose {
    Text(String),
    Flag(bool),
    Other,
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Anything)
    }
}

struct Anything;

impl<'de> Visitor<'de> for Anything {
    type Value = Loose;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_str<E>(self, text: &str) -> Result<Loose, E> {
        Ok(Loose::Text(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Loose, E> {
        Ok(Loose::Flag(value))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_unit<E>(self) -> Result<Loose, E> {
        Ok(Loose::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Loose, A::Error> {
        IgnoredAny.visit_seq(list).map(|_| Loose::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Loose, A::Error> {
        IgnoredAny.visit_map(map).map(|_| Loose::Other)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Loose::deserialize(deserializer)? {
            Loose::Text(text) => Some(text),
            Loose::Flag(_) | Loose::Other => None,
        }))
    }
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(matches!(
            Loose::deserialize(deserializer)?,
            Loose::Flag(true)
        )))
    }
}

/// A time of RFC 3339 in UTC, to the second: `2026-01-31T12:00:00.000Z`, the only form that STIX allows.
fn timestamp(text: &str) -> Option<SystemTime> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let signs = [(4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":")];
    if !text.ends_with('Z') || signs.iter().any(|&(at, sign)| text.get(at..at + 1) != Some(sign)) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970, counted in years that begin in March so that the leap day comes last.
    let (year, month) = match month {
        1 | 2 => (year - 1, month + 9),
        _ => (year, month - 3),
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + (day - 1);
    let seconds = (days.checked_sub(719_468)?) * 86_400 + number(11, 13)? * 3_600 + number(14, 16)? * 60;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds + number(17, 19)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps() {
        let seconds =
            |text| timestamp(text).map(|time| time.duration_since(UNIX_EPOCH).expect("after 1970").as_secs());
        assert_eq!(seconds("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(seconds("2000-02-29T12:34:56Z"), Some(951_827_696));
        assert_eq!(seconds("2026-11-22T21:05:59.123Z"), Some(1_795_381_559));
        for wrong in [
            "",
            "2026-11-22",
            "2026-13-22T21:05:59Z",
            "2026-11-22T21:05:59+01:00",
            "ä026-11-22T21:05:59Z",
        ] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }
}
