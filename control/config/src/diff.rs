//! What differs between two documents, in the words of the configuration: which policies, groups, zones came, went, changed
//! or moved.
//!
//! Works on the documents as values, so that a field that is new to the format needs nothing here. A list whose entries have
//! names is compared name by name, any other list as a bag: its order means nothing, except where the first match
//! wins, and there an entry that changes places is said to have moved. Comments and spelling are no difference:
//! `from: web` is `from: [web]`.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::document::Document;

/// Where the first match wins.
const ORDERED: &[&str] = &["policies", "nat.source", "nat.destination"];

/// What an entry of a list is called.
const ENTRIES: &[(&str, &str)] = &[
    ("interfaces", "interface"),
    ("wires", "wire"),
    ("zones", "zone"),
    ("screens", "screen"),
    ("addresses", "address group"),
    ("services", "service"),
    ("policies", "policy"),
    ("nat.pools", "pool"),
    ("nat.source", "source NAT rule"),
    ("nat.destination", "destination NAT rule"),
    ("nat.static", "static NAT rule"),
];

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// What it is: `policy`, `zone`, or the path of a setting that has no name, such as `sessions`.
    pub kind: String,
    /// Its name; `None` for a setting.
    pub name: Option<String>,
    /// What became of it.
    pub change: Change,
    /// Its place in the older document, from 1, where places matter.
    pub old_place: Option<usize>,
    /// Its place in the newer document, from 1, where places matter.
    pub new_place: Option<usize>,
    /// What differs in it.
    pub fields: Vec<FieldDifference>,
}

/// What became of a thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Only the newer document has it.
    Added,
    /// Only the older document has it.
    Removed,
    /// Both have it, with other fields, perhaps at another place.
    Changed,
    /// Both have the same, at another place among the others.
    Moved,
}

/// A field that differs. Of a list, what was added and removed; else what it was and what it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldDifference {
    /// Its path within the thing.
    pub field: String,
    /// What it was; `None`: not written, or a list.
    pub old: Option<Value>,
    /// What it is; `None`: not written, or a list.
    pub new: Option<Value>,
    /// What a list has more.
    pub added: Vec<Value>,
    /// What a list has no more.
    pub removed: Vec<Value>,
}

/// Compares two documents; in the order of the format, and within a list in that of the newer document, what was removed
/// last.
pub fn diff(old: &Document, new: &Document) -> Vec<Difference> {
    let mut differences = Vec::new();
    settings(
        "metadata",
        value(&old.metadata),
        value(&new.metadata),
        &mut differences,
    );
    section("", &value(&old.spec), &value(&new.spec), &mut differences);
    differences
}

/// Documents are made of what JSON has.
fn value(part: &impl Serialize) -> Value {
    serde_json::to_value(part).unwrap_or_default()
}

/// The fields of `spec` and of the mappings in it that hold lists.
fn section(path: &str, old: &Value, new: &Value, differences: &mut Vec<Difference>) {
    let empty = Map::new();
    let (old, new) = (
        old.as_object().unwrap_or(&empty),
        new.as_object().unwrap_or(&empty),
    );
    let keys: BTreeMap<&String, ()> = old.keys().chain(new.keys()).map(|key| (key, ())).collect();
    let place = |key: &str| ENTRIES.iter().position(|(list, _)| *list == join(path, key));
    let mut keys: Vec<&String> = keys.into_keys().collect();
    // As the format goes; what is not in that list comes last.
    keys.sort_by_key(|key| place(key).unwrap_or(usize::MAX));
    for key in keys {
        let path = join(path, key);
        let (old, new) = (
            old.get(key).unwrap_or(&Value::Null),
            new.get(key).unwrap_or(&Value::Null),
        );
        match (named(old), named(new)) {
            (Some(old), Some(new)) => entries(&path, &old, &new, differences),
            _ if ENTRIES
                .iter()
                .any(|(list, _)| list.starts_with(&format!("{path}."))) =>
            {
                section(&path, old, new, differences);
            }
            _ => settings(&path, old.clone(), new.clone(), differences),
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}

/// The entries of a list in which all have names; an absent list has none.
fn named(value: &Value) -> Option<Vec<(&str, &Value)>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::Array(entries) => entries
            .iter()
            .map(|entry| Some((entry.get("name")?.as_str()?, entry)))
            .collect(),
        _ => None,
    }
}

fn entries(path: &str, old: &[(&str, &Value)], new: &[(&str, &Value)], differences: &mut Vec<Difference>) {
    let kind = ENTRIES
        .iter()
        .find(|(list, _)| *list == path)
        .map_or(path, |(_, kind)| kind);
    let ordered = ORDERED.contains(&path);
    let places: HashMap<&str, usize> = (0..).zip(old).map(|(place, (name, _))| (*name, place)).collect();
    let common: Vec<Option<usize>> = new.iter().map(|(name, _)| places.get(name).copied()).collect();
    let moved = moved(&common);
    let place = |place: usize| ordered.then_some(place + 1);
    let mut kept = vec![false; old.len()];
    for (index, (name, entry)) in new.iter().enumerate() {
        let difference = |change, old_place: Option<usize>, fields| Difference {
            kind: kind.to_owned(),
            name: Some((*name).to_owned()),
            change,
            old_place: old_place.and_then(place),
            new_place: place(index),
            fields,
        };
        let Some(was) = common[index] else {
            differences.push(difference(Change::Added, None, Vec::new()));
            continue;
        };
        kept[was] = true;
        let fields = fields(old[was].1, entry);
        if !fields.is_empty() {
            differences.push(difference(Change::Changed, Some(was), fields));
        } else if ordered && moved[index] {
            differences.push(difference(Change::Moved, Some(was), fields));
        }
    }
    for (index, (name, _)) in old.iter().enumerate().filter(|(index, _)| !kept[*index]) {
        differences.push(Difference {
            kind: kind.to_owned(),
            name: Some((*name).to_owned()),
            change: Change::Removed,
            old_place: place(index),
            new_place: None,
            fields: Vec::new(),
        });
    }
}

/// Which entries changed places: the fewest that, taken out, leave the others in their old order. `places` has the old
/// place of each, if it had one. Patience sorting, O(n log n).
fn moved(places: &[Option<usize>]) -> Vec<bool> {
    // The end of the best row of each length, and for each entry the one before it in its row.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; places.len()];
    for (index, place) in places.iter().enumerate() {
        let Some(place) = place else { continue };
        let length = ends.partition_point(|end| places[*end] < Some(*place));
        before[index] = length.checked_sub(1).map(|shorter| ends[shorter]);
        if length == ends.len() {
            ends.push(index);
        } else {
            ends[length] = index;
        }
    }
    let mut moved: Vec<bool> = places.iter().map(Option::is_some).collect();
    let mut next = ends.last().copied();
    while let Some(index) = next {
        moved[index] = false;
        next = before[index];
    }
    moved
}

fn settings(path: &str, old: Value, new: Value, differences: &mut Vec<Difference>) {
    // A single value is a mapping of one nameless field.
    let fields = fields(&old, &new);
    if fields.is_empty() {
        return;
    }
    differences.push(Difference {
        kind: path.to_owned(),
        name: None,
        change: Change::Changed,
        old_place: None,
        new_place: None,
        fields,
    });
}

fn fields(old: &Value, new: &Value) -> Vec<FieldDifference> {
    let mut differences = Vec::new();
    compare("", old, new, &mut differences);
    differences
}

fn compare(path: &str, old: &Value, new: &Value, differences: &mut Vec<FieldDifference>) {
    if old == new {
        return;
    }
    let empty = Map::new();
    match (old, new) {
        (Value::Object(_) | Value::Null, Value::Object(_)) | (Value::Object(_), Value::Null) => {
            let (old, new) = (
                old.as_object().unwrap_or(&empty),
                new.as_object().unwrap_or(&empty),
            );
            let keys: BTreeMap<&String, ()> = old.keys().chain(new.keys()).map(|key| (key, ())).collect();
            for key in keys.into_keys() {
                let (old, new) = (
                    old.get(key).unwrap_or(&Value::Null),
                    new.get(key).unwrap_or(&Value::Null),
                );
                compare(&join(path, key), old, new, differences);
            }
        }
        (Value::Array(_), _) | (_, Value::Array(_)) => {
            let (removed, added) = bags(&list(old), &list(new));
            if !(removed.is_empty() && added.is_empty()) {
                differences.push(FieldDifference {
                    field: path.to_owned(),
                    old: None,
                    new: None,
                    added,
                    removed,
                });
            }
        }
        _ => differences.push(FieldDifference {
            field: path.to_owned(),
            old: (!old.is_null()).then(|| old.clone()),
            new: (!new.is_null()).then(|| new.clone()),
            added: Vec::new(),
            removed: Vec::new(),
        }),
    }
}

/// A single value stands for a list of one, no value for an empty list.
fn list(value: &Value) -> Vec<&Value> {
    match value {
        Value::Null => Vec::new(),
        Value::Array(values) => values.iter().collect(),
        one => vec![one],
    }
}

/// What only the first has, and what only the second, each in its own order.
fn bags(old: &[&Value], new: &[&Value]) -> (Vec<Value>, Vec<Value>) {
    fn rest(of: &[&Value], without: &[&Value]) -> Vec<Value> {
        let mut without: HashMap<String, usize> = without.iter().fold(HashMap::new(), |mut bag, value| {
            *bag.entry(value.to_string()).or_default() += 1;
            bag
        });
        let mut rest = Vec::new();
        for value in of {
            match without.get_mut(&value.to_string()) {
                Some(number) if *number > 0 => *number -= 1,
                _ => rest.push((*value).clone()),
            }
        }
        rest
    }
    (rest(old, new), rest(new, old))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"
apiVersion: bulkhead.dev/v1alpha1
kind: Firewall
metadata: { name: edge }
spec:
  interfaces: [{ name: net1, zone: web }, { name: net2, zone: app }]
  zones: [{ name: web, hostInbound: [ping, ssh] }, { name: app }]
  addresses: [{ name: farm, members: [10.0.0.1, 10.0.0.2, 10.0.0.3] }]
  services: [{ name: rpc, tcp: 7000 }]
  policies:
    - { name: one, from: web, to: app, service: rpc, action: permit }
    - { name: two, from: web, to: app, destination: farm, action: permit }
    - { name: three, from: app, to: web, action: deny }
    - { name: four, from: any, to: any, action: reject }
  nat: { source: [{ name: hide, from: web, to: app, translate: interface }] }
"#;

    fn document(text: &str) -> Document {
        match crate::parse("x.yaml", text) {
            Ok(parsed) => parsed.document,
            Err(found) => panic!("{found}"),
        }
    }

    /// One line each, as short as can be.
    fn lines(old: &str, new: &str) -> Vec<String> {
        let text = |value: &Value| value.to_string().replace('"', "");
        diff(&document(old), &document(new))
            .iter()
            .map(|found| {
                let mut line = format!("{:?} {}", found.change, found.kind);
                if let Some(name) = &found.name {
                    line += &format!(" {name}");
                }
                if let (Some(old), Some(new)) = (found.old_place, found.new_place) {
                    line += &format!(" {old}>{new}");
                }
                for field in &found.fields {
                    line += &format!("; {}", field.field);
                    for (sign, value) in [("=", &field.old), (">", &field.new)] {
                        line.extend(value.iter().map(|value| format!(" {sign}{}", text(value))));
                    }
                    for (sign, values) in [("-", &field.removed), ("+", &field.added)] {
                        line.extend(values.iter().map(|value| format!(" {sign}{}", text(value))));
                    }
                }
                line
            })
            .collect()
    }

    fn changed(from: &str, to: &str) -> Vec<String> {
        assert!(BASE.contains(from), "{from:?}");
        lines(BASE, &BASE.replace(from, to))
    }

    #[test]
    fn spelling_and_comments_are_no_difference() {
        assert_eq!(lines(BASE, BASE), [""; 0]);
        let other = BASE
            .replace("from: web, to: app,", "from: [web], to: [app],")
            .replace("[ping, ssh]", "[ssh, ping]")
            .replace("  policies:", "  # the rules\n  policies:");
        assert_ne!(other, BASE);
        assert_eq!(lines(BASE, &other), [""; 0]);
    }

    #[test]
    fn things_come_go_and_change() {
        assert_eq!(
            changed("{ name: app }]", "{ name: app }, { name: dmz }]"),
            ["Added zone dmz"]
        );
        assert_eq!(
            changed("    - { name: three, from: app, to: web, action: deny }\n", ""),
            ["Removed policy three"]
        );
        assert_eq!(
            changed("to: web, action: deny", "to: web, action: reject"),
            ["Changed policy three 3>3; action =deny >reject"]
        );
        assert_eq!(
            changed("10.0.0.2, 10.0.0.3", "10.0.0.9, 10.0.0.3, 10.1.0.0/16"),
            ["Changed address group farm; members -10.0.0.2 +10.0.0.9 +10.1.0.0/16"]
        );
        assert_eq!(
            changed("service: rpc,", ""),
            ["Changed policy one 1>1; service =rpc"]
        );
        assert_eq!(
            changed("service: rpc,", "service: [rpc, ping],"),
            ["Changed policy one 1>1; service +ping"]
        );
        assert_eq!(
            changed("translate: interface", "translate: off"),
            ["Changed source NAT rule hide 1>1; translate =interface >off"]
        );
        assert_eq!(
            changed(
                "  services:",
                "  sessions: { max: 4096, timeouts: { icmp: 9s } }\n  tcp: { window: liberal }\n  services:"
            ),
            [
                "Changed sessions; max >4096; timeouts.icmp >9s",
                "Changed tcp; window >liberal"
            ]
        );
        assert_eq!(
            changed("metadata: { name: edge }", "metadata: { name: core }"),
            ["Changed metadata; name =edge >core"]
        );
        assert_eq!(
            changed("  services:", "  forwarding: routed\n  hook: tcx\n  services:"),
            ["Changed hook;  =auto >tcx"]
        );
    }

    #[test]
    fn only_what_changed_places_has_moved() {
        let last = "    - { name: four, from: any, to: any, action: reject }\n";
        let first = "    - { name: one,";
        let moved = BASE.replace(last, "").replace(first, &format!("{last}{first}"));
        assert_eq!(lines(BASE, &moved), ["Moved policy four 4>1"]);
        // A new rule pushes the others down, which moves none of them.
        let pushed = BASE.replace(
            first,
            &format!("    - {{ name: zero, from: app, to: app, action: deny }}\n{first}"),
        );
        assert_eq!(lines(BASE, &pushed), ["Added policy zero"]);
        // Zones have no order.
        let zones = BASE.replace(
            "[{ name: web, hostInbound: [ping, ssh] }, { name: app }]",
            "[{ name: app }, { name: web, hostInbound: [ping, ssh] }]",
        );
        assert_eq!(lines(BASE, &zones), [""; 0]);
    }

    #[test]
    fn the_fewest_are_said_to_have_moved() {
        let moved = |places: &[usize]| -> Vec<usize> {
            let places: Vec<_> = places.iter().copied().map(Some).collect();
            let moved = super::moved(&places);
            moved
                .iter()
                .enumerate()
                .filter_map(|(index, moved)| moved.then_some(index))
                .collect()
        };
        assert_eq!(moved(&[0, 1, 2, 3]), [0; 0]);
        assert_eq!(moved(&[3, 0, 1, 2]), [0]);
        assert_eq!(moved(&[1, 2, 3, 0]), [3]);
        assert_eq!(moved(&[3, 2, 1, 0]).len(), 3);
        assert_eq!(
            super::moved(&[None, Some(1), None, Some(0)])
                .iter()
                .filter(|moved| **moved)
                .count(),
            1
        );
    }
}
