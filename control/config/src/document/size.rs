//! How large the firewall is made: one of four sizes by name, or numbers.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};

/// A size by name.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    serde::Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum SizeName {
    /// A branch: 64 thousand sessions, 8 thousand policies, 32 thousand addresses.
    Small,
    /// 256 thousand sessions, 64 thousand policies, 256 thousand addresses.
    #[default]
    Medium,
    /// A site: a million sessions, 128 thousand policies, a million addresses.
    Large,
    /// All there is: four million sessions, 256 thousand policies, two million addresses.
    Xlarge,
}

/// A size by its numbers; what is not written is that of `base`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, serde::Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    default,
    expecting = "a size by name, or a mapping of base, policies, addresses, routes and neighbours"
)]
pub struct SizeNumbers {
    /// The size whose numbers count where none is written. Default: `medium`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<SizeName>,
    /// How many policies there may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 262_144))]
    pub policies: Option<u32>,
    /// How many addresses and prefixes the groups may have together, of each family.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2_097_152))]
    pub addresses: Option<u32>,
    /// How many routes of the kernel are followed, of each family.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub routes: Option<u32>,
    /// How many neighbours of the kernel are followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 131_072))]
    pub neighbours: Option<u32>,
}

/// A size, by name or by numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SizeEntry {
    /// `size: large`
    Name(SizeName),
    /// `size: { base: large, routes: 4096 }`
    Numbers(SizeNumbers),
}

impl Serialize for SizeEntry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Name(name) => name.serialize(serializer),
            Self::Numbers(numbers) => numbers.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for SizeEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = SizeEntry;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a size by name, or a mapping of base, policies, addresses, routes and neighbours",
                )
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<SizeEntry, E> {
                serde::Deserialize::deserialize(name.into_deserializer()).map(SizeEntry::Name)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<SizeEntry, A::Error> {
                serde::Deserialize::deserialize(MapAccessDeserializer::new(map)).map(SizeEntry::Numbers)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for SizeEntry {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "SizeEntry".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let name = generator.subschema_for::<SizeName>();
        let numbers = generator.subschema_for::<SizeNumbers>();
        json_schema!({ "anyOf": [name, numbers] })
    }
}
