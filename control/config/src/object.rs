//! The `spec` of an object `AddressGroup` of the Kubernetes API: one group by itself.
//!
//! Owns which of a group's fields an object may have: what an address or a label says. Lists and names are fetched by the firewall,
//! on its own authority, and other groups are the document's; so those stay in the document. Judged by the same checks as
//! a document, and like it taken as a whole or not at all.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::address::{IpPrefix, Member};
use crate::config::PodSelection;
use crate::diagnostic::{Diagnostic, Severity};
use crate::{API_VERSION, KIND, ranges};

/// How many findings are told.
const FINDINGS: usize = 5;
/// What a group of a document has and an object has not.
const ELSEWHERE: &[&str] = &["name", "feed", "dns", "addressGroup"];

/// What an object says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectGroup {
    /// Its members.
    pub members: Vec<Member>,
    /// What does not belong to it.
    pub except: Vec<Member>,
    /// Pods whose addresses belong to it.
    pub pods: Option<PodSelection>,
}

impl ObjectGroup {
    /// Its fields.
    pub const FIELDS: &[&str] = &["members", "except", "pods"];

    /// Reads the `spec` of an object of this name.
    ///
    /// # Errors
    /// What is wrong, for people: a line for each of the first findings.
    pub fn parse(name: &str, spec: &Value) -> Result<Self, String> {
        let Some(fields) = spec.as_object() else {
            return Err("spec: it is not a mapping; write `members: [10.4.0.0/24]`".to_owned());
        };
        if let Some(field) = ELSEWHERE.iter().find(|field| fields.contains_key(**field)) {
            return Err(format!(
                "spec.{field}: an AddressGroup has `members`, `except` and `pods`; write `{field}` into the group of the document"
            ));
        }
        let mut group = fields.clone();
        group.insert("name".to_owned(), json!(name));
        // The least document that has a group.
        let document = json!({
            "apiVersion": API_VERSION, "kind": KIND, "metadata": { "name": "object" },
            "spec": {
                "zones": [{ "name": "zone" }],
                "interfaces": [{ "name": "net1", "zone": "zone" }],
                "addresses": [group],
            },
        });
        let parsed = crate::parse(name, document.to_string());
        let config = parsed.map_err(|refused| findings(refused.errors()))?.config;
        let group = config.groups.into_iter().next().unwrap_or_default();
        Ok(Self {
            members: group.members,
            except: group.except,
            pods: group.pods.map(|pods| *pods),
        })
    }

    /// Its addresses and those of its pods, without what does not belong to it: the fewest prefixes, in ascending order.
    pub fn prefixes(&self, pods: impl IntoIterator<Item = IpAddr>) -> Vec<IpPrefix> {
        let pods = pods.into_iter().map(Member::Host);
        let members: Vec<Member> = self.members.iter().copied().chain(pods).collect();
        let left = ranges::difference(&members, &self.except);
        left.iter().flat_map(|range| range.prefixes()).collect()
    }
}

/// With the places that the object has.
fn findings<'d>(errors: impl Iterator<Item = &'d Diagnostic>) -> String {
    let all: Vec<String> = errors
        .filter(|found| found.severity == Severity::Error)
        .map(|found| {
            let path = match found.path.strip_prefix("spec.addresses[0].") {
                Some("name") => "metadata.name".to_owned(),
                Some(field) => format!("spec.{field}"),
                None => "spec".to_owned(),
            };
            match &found.help {
                Some(help) => format!("{path}: {}; {help}", found.message),
                None => format!("{path}: {}", found.message),
            }
        })
        .collect();
    let mut told = all[..all.len().min(FINDINGS)].join("\n");
    if all.len() > FINDINGS {
        told += &format!("\nand {} more", all.len() - FINDINGS);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(spec: Value) -> Result<ObjectGroup, String> {
        ObjectGroup::parse("partners", &spec)
    }

    fn shown(group: &ObjectGroup, pods: &[&str]) -> String {
        let pods = pods.iter().map(|text| text.parse().expect("an address"));
        let prefixes = group.prefixes(pods);
        let texts: Vec<String> = prefixes.iter().map(ToString::to_string).collect();
        texts.join(" ")
    }

    #[test]
    fn members_and_pods_without_what_is_left_out_are_the_fewest_prefixes() {
        let group = parse(json!({
            "members": ["10.0.0.0/30", "10.0.0.4-10.0.0.7", "2001:db8::/127"],
            "except": ["10.0.0.5", "2001:db8::1", "192.0.2.9"],
            "pods": { "selector": "app=pay" },
        }))
        .expect("a group");
        assert_eq!(group.pods.as_ref().map(|pods| &*pods.selector), Some("app=pay"));
        assert_eq!(
            shown(&group, &["192.0.2.8", "192.0.2.9", "10.0.0.1", "2001:db8::7"]),
            "10.0.0.0/30 10.0.0.4/32 10.0.0.6/31 192.0.2.8/32 2001:db8::/128 2001:db8::7/128"
        );
        let nothing = parse(json!({ "members": [] })).expect("a group");
        assert_eq!(shown(&nothing, &[]), "");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_in_the_object() {
        for (spec, wrong) in [
            (
                json!({}),
                "spec.members: address group \"partners\" has no members; ",
            ),
            (json!(null), "spec: it is not a mapping; "),
            (
                json!({ "members": ["10.0.0.300"] }),
                "spec.members[0]: \"10.0.0.300\" ",
            ),
            (
                json!({ "members": ["farm"] }),
                "spec.members[0]: address group \"partners\" names address group \"farm\", which does not exist; ",
            ),
            (
                json!({ "members": [], "member": [] }),
                "spec.member: unknown field \"member\"",
            ),
            (
                json!({ "members": [], "pods": { "selector": "app in a" } }),
                "spec.pods.selector: \"app in a\" is not a label requirement; ",
            ),
            (json!({ "dns": ["a.example"] }), "spec.dns: an AddressGroup has "),
            (
                json!({ "feed": { "url": "https://a/" } }),
                "spec.feed: an AddressGroup has ",
            ),
            (
                json!({ "addressGroup": "a/b" }),
                "spec.addressGroup: an AddressGroup has ",
            ),
        ] {
            let error = parse(spec.clone()).expect_err("it is wrong");
            assert!(error.starts_with(wrong), "{spec}: {error}");
        }
        let many = json!({ "members": ["x.", "y.", "z.", "u.", "v.", "w."] });
        let error = parse(many).expect_err("it is wrong");
        assert_eq!(error.lines().count(), FINDINGS + 1, "{error}");
        let error = ObjectGroup::parse("any", &json!({ "members": [] })).expect_err("it is reserved");
        assert!(error.starts_with("metadata.name: "), "{error}");
    }
}
