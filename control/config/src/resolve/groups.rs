//! Address groups: what they contain, and that none contains itself.
//!
//! One group comes out for each entry of the document, faulty or not, so that the indices of the names stay right.

use super::{Checker, Names, sorted};
use crate::address::{Member, Refusal, looks_like_address, parse_member};
use crate::config::{Group, GroupId};
use crate::document::AddressGroup;
use crate::node::{Segment, steps};
use crate::suggest::nearest;

/// RFC 1035, 2.3.4, without the dot at the end.
const LONGEST_NAME: usize = 253;

/// What a group contains, or does not: addresses, and groups with the place where each was named.
#[derive(Default)]
struct Contents {
    members: Vec<Member>,
    groups: Vec<(GroupId, usize)>,
}

/// Another group, and where it is named.
type Edge = (usize, &'static str, usize);

impl Checker<'_, '_> {
    pub(super) fn groups(&mut self, entries: &[AddressGroup], names: &Names<'_>) -> Vec<Group> {
        let mut groups = Vec::with_capacity(entries.len());
        let mut edges: Vec<Vec<Edge>> = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let name = &entry.name;
            let at = |field: &'static str| steps!["spec", "addresses", index, field];
            if looks_like_address(name) {
                let message = format!("address group \"{name}\" reads like an address");
                let help = "choose a name that cannot be mistaken".to_owned();
                self.error(&at("name"), (message, Some(help)));
            }
            let elsewhere = entry.feed.is_some()
                || entry.dns.is_some()
                || entry.pods.is_some()
                || entry.address_group.is_some();
            if entry.members.is_none() && !elsewhere {
                let message = format!("address group \"{name}\" has no members");
                let help = "write `members: [10.4.0.0/24]`, or `members: []` if it is to be empty";
                self.error_at_key(&at("members"), (message, Some(help.to_owned())));
            }
            let members = self.contents(name, entry.members.as_deref(), &at("members"), names);
            let except = self.contents(name, entry.except.as_deref(), &at("except"), names);
            let feed = entry.feed.as_ref().map(|feed| self.feed(name, feed, &at("feed")));
            let dns = entry.dns.as_deref().map(|dns| self.dns(name, dns, &at("dns")));
            let pods = entry.pods.as_ref().map(|pods| self.pods(name, pods, &at("pods")));
            if let Some(object) = &entry.address_group {
                self.object_name(object, &at("addressGroup"));
            }
            let edge = |field| move |&(group, place): &(GroupId, usize)| (group.0 as usize, field, place);
            let contained = members.groups.iter().map(edge("members"));
            edges.push(
                contained
                    .chain(except.groups.iter().map(edge("except")))
                    .collect(),
            );
            let ids = |groups: Vec<(GroupId, usize)>| groups.into_iter().map(|(group, _)| group).collect();
            groups.push(Group {
                name: name.clone(),
                literal: false,
                members: members.members,
                groups: ids(members.groups),
                except: except.members,
                except_groups: ids(except.groups),
                feed: feed.flatten().map(Box::new),
                dns: dns.unwrap_or_default(),
                pods: pods.map(Box::new),
                address_group: entry.address_group.clone(),
                line: self.line(&steps!["spec", "addresses"], index),
            });
        }
        self.cycles(entries, &edges);
        groups
    }

    /// A name of a group is one; anything else is an address.
    fn contents(
        &mut self,
        group: &str,
        written: Option<&[String]>,
        path: &[Segment],
        names: &Names<'_>,
    ) -> Contents {
        let mut contents = Contents::default();
        let written = written.unwrap_or_default();
        contents.members.reserve(written.len());
        for (place, text) in written.iter().enumerate() {
            if let Some(&index) = names.get(&**text).filter(|_| !looks_like_address(text)) {
                let id = GroupId(index as u32);
                if contents.groups.iter().all(|(known, _)| *known != id) {
                    contents.groups.push((id, place));
                }
                continue;
            }
            match parse_member(text) {
                Ok(member) => contents.members.push(member),
                Err(refusal) => {
                    let refusal = if super::is_name(text) && !looks_like_address(text) {
                        absent(group, text, names)
                    } else {
                        refusal
                    };
                    self.error(&[path, &steps![place]].concat(), refusal);
                }
            }
        }
        contents
    }

    fn dns(&mut self, group: &str, written: &[String], path: &[Segment]) -> Vec<String> {
        if written.is_empty() {
            let message = format!("`dns` of address group \"{group}\" is empty");
            let help = "write `dns: [www.example.org]`, or leave it out".to_owned();
            self.error_at_key(path, (message, Some(help)));
        }
        let mut names = Vec::with_capacity(written.len());
        for (place, text) in written.iter().enumerate() {
            let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
            if !is_host_name(&name) {
                let message = format!("\"{text}\" is not a name that DNS has addresses for");
                let help = "write a whole name such as www.example.org; addresses go under `members`";
                let at = [path, &steps![place]].concat();
                self.error(&at, (message, Some(help.to_owned())));
            } else if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    /// Refuses each circle once, at the place that closes it. Without recursion: a chain may be as long as the document.
    fn cycles(&mut self, entries: &[AddressGroup], edges: &[Vec<Edge>]) {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; edges.len()];
        for start in 0..edges.len() {
            if marks[start] != Mark::New {
                continue;
            }
            // Groups on the way, each with the next of its edges to follow.
            let mut way = vec![(start, 0)];
            marks[start] = Mark::Open;
            while let Some((group, next)) = way.last_mut() {
                let group = *group;
                let Some(&(into, field, place)) = edges[group].get(*next) else {
                    marks[group] = Mark::Done;
                    way.pop();
                    continue;
                };
                *next += 1;
                match marks[into] {
                    Mark::New => {
                        marks[into] = Mark::Open;
                        way.push((into, 0));
                    }
                    Mark::Open => {
                        let from = way.iter().position(|(group, _)| *group == into).unwrap_or(0);
                        let names = way[from..].iter().map(|(group, _)| *group).chain([into]);
                        let names: Vec<&str> = names.map(|group| &*entries[group].name).collect();
                        let message = format!(
                            "address group \"{}\" contains itself: {}",
                            entries[into].name,
                            names.join(" -> ")
                        );
                        let help = "take one of them out of another".to_owned();
                        let at = steps!["spec", "addresses", group, field, place];
                        self.error(&at, (message, Some(help)));
                    }
                    Mark::Done => {}
                }
            }
        }
    }
}

fn absent(group: &str, wanted: &str, names: &Names<'_>) -> Refusal {
    let message = format!("address group \"{group}\" names address group \"{wanted}\", which does not exist");
    let help = match nearest(wanted, sorted(names)) {
        Some(near) => format!("did you mean \"{near}\"?"),
        None if wanted.contains('.') => "names of hosts go under `dns`".to_owned(),
        None => "define it under spec.addresses, or write an address".to_owned(),
    };
    (message, Some(help))
}

/// Letters, digits, hyphens and underscores between dots, and not all digits at the end: that would be an address.
fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= LONGEST_NAME
        && name.split('.').all(label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}
