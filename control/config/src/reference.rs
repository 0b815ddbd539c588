//! The reference of the configuration for people: the schema and the builtin words as one page of Markdown.
//!
//! Owns the page's form and nothing of its content: fields, values and sentences are the schema's, which is derived from the
//! types the parser reads, so a field that is not documented does not exist. Assumes the keywords that this schema uses, and
//! panics at a shape that it does not know rather than leaving a field out; a test keeps `deploy/docs/configuration.md` equal
//! to it, `cargo run -p bulkhead-config --example reference` prints it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::schema::{DURATION, MSS, NAME, PORTS};
use crate::service::{builtin_names, builtin_service, icmp_type_names, icmpv6_type_names, protocol_names};

const HEAD: &str = "\
# Configuration reference

Every field of `firewall.yaml`. Generated from the types that the parser reads (`cargo run -p bulkhead-config --example
reference > deploy/docs/configuration.md`); the same for editors is `bulkhead schema`, a JSON Schema. Complete documents to begin
with: [examples](../examples). A field that is not listed here is refused, with its line and column.

* **Names** begin with a letter or a digit and go on with those, `.`, `_` and `-`; at most 63 characters.
* **Durations** are a number and a unit: `500ms`, `90s`, `5m`, `2h`, `1d`.
* **Addresses** are single ones (`10.4.1.7`), prefixes (`2001:db8::/64`) and ranges (`10.4.2.1-10.4.2.9`) of both families.
* Where a list is allowed beside a single value, `service: https` and `service: [https]` are the same.
* Where the column *default* is empty, nothing is the default, or off.

";

/// The builtin screen as one would write it; a test compares it with the one that is used.
const BUILTIN_SCREEN: &str = "\
icmp: { pingOfDeath: true }
ip: { badOption: true, sourceRoute: true, teardrop: true }
tcp: { land: true, noFlags: true, synFin: true, finNoAck: true, winnuke: true, synFragment: true, synFlood: true }
";

/// The page.
///
/// # Panics
/// If the schema has a shape that has no words here: a defect that the tests find.
pub fn reference() -> String {
    let schema = crate::json_schema();
    let mut page = Page::of(&schema);
    page.walk("", &schema);
    let mut text = HEAD.to_owned();
    for path in &page.order {
        page.section(path, &mut text);
    }
    text.push_str(&words());
    text
}

/// The sections to come, found by following the schema from the root.
struct Page<'s> {
    definitions: &'s Map<String, Value>,
    /// Paths in the order of the page.
    order: Vec<String>,
    /// What is written there.
    objects: BTreeMap<String, &'s Value>,
    /// Where a definition stands that is used more than once.
    places: BTreeMap<&'s str, String>,
    /// Other paths of it.
    others: BTreeMap<String, Vec<String>>,
}

impl<'s> Page<'s> {
    fn of(schema: &'s Value) -> Self {
        Self {
            definitions: schema["$defs"].as_object().expect("a schema has definitions"),
            order: Vec::new(),
            objects: BTreeMap::new(),
            places: BTreeMap::new(),
            others: BTreeMap::new(),
        }
    }

    /// Takes up the object at `path` and, depth first, those below it.
    fn walk(&mut self, path: &str, object: &'s Value) {
        self.order.push(path.to_owned());
        self.objects.insert(path.to_owned(), object);
        for (name, property) in properties(object) {
            let (list, definition) = self.object_in(property);
            let Some(definition) = definition else { continue };
            let dot = if path.is_empty() { "" } else { "." };
            let below = format!("{path}{dot}{name}{}", if list { "[]" } else { "" });
            match self.places.get(definition) {
                Some(first) => self.others.entry(first.clone()).or_default().push(below),
                None => {
                    self.places.insert(definition, below.clone());
                    self.walk(&below, &self.definitions[definition]);
                }
            }
        }
    }

    /// The definition of an object that a property holds, and whether it is in a list.
    fn object_in(&self, property: &'s Value) -> (bool, Option<&'s str>) {
        if let Some(name) = property["$ref"].as_str() {
            let name = definition_name(name);
            return (
                false,
                self.definitions[name]["properties"].is_object().then_some(name),
            );
        }
        if property["items"].is_object() {
            return (true, self.object_in(&property["items"]).1);
        }
        alternatives(property)
            .map(|alternative| self.object_in(alternative))
            .find(|(_, found)| found.is_some())
            .unwrap_or_default()
    }

    fn section(&self, path: &str, text: &mut String) {
        let object = self.objects[path];
        let heading = if path.is_empty() { "The document" } else { path };
        let marks = if path.is_empty() { "" } else { "`" };
        // Writing to a string cannot fail, here and below.
        let _infallible = writeln!(text, "## {marks}{heading}{marks}\n\n{}\n", described(object));
        if let Some(others) = self.others.get(path) {
            let others: Vec<_> = others.iter().map(|other| format!("`{other}`")).collect();
            let _infallible = writeln!(text, "The same: {}.\n", others.join(", "));
        }
        text.push_str("| field | value | default | meaning |\n|---|---|---|---|\n");
        let required: Vec<_> = object["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        // Those that must be given come first, in the order of their type; the rest by name.
        let first = required.iter().map(|name| (*name, &object["properties"][*name]));
        let rest = properties(object).filter(|(name, _)| !required.contains(name));
        for (name, property) in first.chain(rest) {
            let (meaning, default) = match required.contains(&name) {
                true => (described(property).to_owned(), "must be given".to_owned()),
                false => meaning_and_default(described(property)),
            };
            let meaning = [meaning, self.choices(property)].concat();
            let value = self.value(property);
            let _infallible = writeln!(
                text,
                "| `{name}` | {value} | {default} | {} |",
                meaning.trim_end()
            );
        }
        text.push('\n');
    }

    /// What may be written, in words.
    fn value(&self, property: &Value) -> String {
        if let Some(name) = property["$ref"].as_str() {
            let name = definition_name(name);
            let definition = &self.definitions[name];
            if definition["properties"].is_object() {
                let place = &self.places[name];
                return format!("[mapping](#{})", anchor(place));
            }
            let constants: Vec<_> = constants(definition)
                .map(|(constant, _)| format!("`{constant}`"))
                .collect();
            assert!(
                !constants.is_empty(),
                "the reference has no words for {definition}"
            );
            return constants.join(", ");
        }
        if let Some(constant) = property["const"].as_str() {
            return format!("`{constant}`");
        }
        if property["anyOf"].is_array() {
            let mut ways: Vec<String> = Vec::new();
            for alternative in alternatives(property) {
                let way = match alternative["type"].as_str() {
                    Some("array") if ways.len() == 1 => "or a list of them".to_owned(),
                    Some("integer") => number(property, alternative),
                    _ => self.value(alternative),
                };
                ways.push(way);
            }
            return ways.join(", ");
        }
        let kinds: Vec<&str> = match &property["type"] {
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            kind => kind.as_str().into_iter().collect(),
        };
        let kinds: Vec<_> = kinds.into_iter().filter(|kind| *kind != "null").collect();
        match (property["pattern"].as_str(), &kinds[..]) {
            (Some(NAME), _) => "name".to_owned(),
            (Some(DURATION), _) => "duration".to_owned(),
            (Some(PORTS), _) => "`first-last`, a number or `none`".to_owned(),
            (Some(MSS), _) => "`none`, `path` or a number".to_owned(),
            (Some(pattern), _) => panic!("the reference has no word for the pattern {pattern}"),
            (None, ["array"]) => match self.value(&property["items"]).as_str() {
                mapping if mapping.starts_with("[mapping]") => {
                    mapping.replacen("mapping", "list of mappings", 1)
                }
                "text" => "list of texts".to_owned(),
                of => format!("list of {of}"),
            },
            (None, ["boolean"]) => "`true`, `false`".to_owned(),
            (None, ["integer"]) => number(property, property),
            (None, ["integer", "string"]) => "number or text".to_owned(),
            (None, ["string"]) => "text".to_owned(),
            (None, other) => panic!("the reference has no word for the type {other:?} of {property}"),
        }
    }

    /// What each word of an enumeration means.
    fn choices(&self, property: &Value) -> String {
        let mut text = String::new();
        let mut look = vec![property];
        while let Some(at) = look.pop() {
            look.extend(alternatives(at));
            if at["items"].is_object() {
                look.push(&at["items"]);
            }
            let Some(name) = at["$ref"].as_str() else { continue };
            for (constant, meaning) in constants(&self.definitions[definition_name(name)]) {
                let item = format!(" `{constant}`: {}.", meaning.trim_end_matches('.'));
                if !text.contains(&item) {
                    text.push_str(&item);
                }
            }
        }
        text
    }
}

/// By name, whatever order the map has.
fn properties(object: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let properties: BTreeMap<_, _> = object["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, property)| (name.as_str(), property))
        .collect();
    properties.into_iter()
}

/// The alternatives of a property that may be given in several ways; nested ones one by one, without "nothing".
fn alternatives(property: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    let ways = property["anyOf"].as_array().into_iter().flatten();
    Box::new(
        ways.filter(|way| way["type"] != "null")
            .flat_map(|way| match way["anyOf"].is_array() {
                true => alternatives(way),
                false => Box::new(std::iter::once(way)),
            }),
    )
}

/// The words of an enumeration and what they mean.
fn constants(definition: &Value) -> impl Iterator<Item = (&str, &str)> {
    let words = definition["oneOf"].as_array().into_iter().flatten();
    words.map(|word| (word["const"].as_str().expect("a word"), described(word)))
}

fn definition_name(reference: &str) -> &str {
    reference
        .strip_prefix("#/$defs/")
        .expect("a definition of this schema")
}

/// What the type's or the field's comment says.
fn described(value: &Value) -> &str {
    value["description"].as_str().expect("every field is documented")
}

/// A number; its bounds stand where it is described, those of an alternative at the property.
fn number(property: &Value, alternative: &Value) -> String {
    let bound = |name: &str| property[name].as_u64().or_else(|| alternative[name].as_u64());
    match (bound("minimum"), bound("maximum")) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        _ => "number".to_owned(),
    }
}

/// The comment without its "Default: …", and that, up to the end of its sentence.
fn meaning_and_default(comment: &str) -> (String, String) {
    const MARK: &str = "Default: ";
    let Some((before, after)) = comment.split_once(MARK) else {
        return (comment.to_owned(), String::new());
    };
    let end = after
        .find(". ")
        .unwrap_or_else(|| after.trim_end_matches('.').len());
    let rest = after[end..].trim_start_matches(['.', ' ']);
    let space = if rest.is_empty() { "" } else { " " };
    (
        format!("{}{space}{rest}", before.trim_end()),
        after[..end].to_owned(),
    )
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-');
    kept.map(|c| c.to_ascii_lowercase()).collect()
}

/// The words that are there without being written.
fn words() -> String {
    let mut text = String::from(
        "## Builtin words\n\n\
         Services, for `service` and `hostInbound`; a service of `spec.services` with the same name takes a builtin one's place:\n\n\
         | service | matches |\n|---|---|\n",
    );
    for name in builtin_names() {
        let matches: Vec<_> = builtin_service(name)
            .into_iter()
            .flatten()
            .map(|found| format!("`{found}`"))
            .collect();
        let _infallible = writeln!(text, "| `{name}` | {} |", matches.join(", "));
    }
    let mut list = |what: &str, names: &mut dyn Iterator<Item = &'static str>| {
        let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
        let _infallible = writeln!(text, "\n{what}: {}.", names.join(", "));
    };
    list("Protocols", &mut protocol_names());
    list("ICMP types", &mut icmp_type_names());
    list("ICMPv6 types", &mut icmpv6_type_names());
    let _infallible = write!(
        text,
        "\nThe screen `default`, as one would write it ([what each stops](screens.md)):\n\n```yaml\n{BUILTIN_SCREEN}```\n"
    );
    text
}

#[cfg(test)]
mod tests;
