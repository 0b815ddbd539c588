//! A setting that is switched on by `true`, off by `false`, or on with particulars.
//!
//! Keeps what was written and judges nothing; what `true` stands for is decided in `resolve`. A fault inside the
//! particulars keeps its own place, because they are read by the type that describes them.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};

/// `true`, `false`, or a value of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toggle<T> {
    /// On with the defaults, or off.
    Switch(bool),
    /// On with these particulars.
    Set(T),
}

/// The particulars of a [`Toggle`].
pub trait Detail {
    /// What may be written, for the sentence after "must be".
    const EXPECTED: &str;
}

impl Detail for u32 {
    const EXPECTED: &str = "true, false or a whole number";
}

impl<T: Clone + Default> Toggle<T> {
    /// The particulars, those of `T::default()` for `true`; `None` if it is off.
    pub(crate) fn when_on(written: Option<&Self>) -> Option<Cow<'_, T>> {
        match written? {
            Self::Switch(false) => None,
            Self::Switch(true) => Some(Cow::Owned(T::default())),
            Self::Set(value) => Some(Cow::Borrowed(value)),
        }
    }
}

impl<T: Serialize> Serialize for Toggle<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Switch(on) => serializer.serialize_bool(*on),
            Self::Set(value) => value.serialize(serializer),
        }
    }
}

impl<'de, T: Deserialize<'de> + Detail> Deserialize<'de> for Toggle<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Detail> Visitor<'de> for Either<T> {
            type Value = Toggle<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }
            fn visit_bool<E: de::Error>(self, on: bool) -> Result<Toggle<T>, E> {
                Ok(Toggle::Switch(on))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Toggle<T>, E> {
                T::deserialize(number.into_deserializer()).map(Toggle::Set)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Toggle<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Toggle::Set)
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for Toggle<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Toggle_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let particulars = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "type": "boolean" }, particulars] })
    }
}
