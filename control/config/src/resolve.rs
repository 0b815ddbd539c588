//! From a document to a [`Config`]: the checks of meaning, all of them in one pass.
//!
//! Owns the order of the work: names first, then what the names stand for, then the rules that use them. A thing
//! whose definition is faulty still has a name, so that one mistake is reported once and not at every use. The
//! `Config` that comes out of a faulty document is discarded by [`parse`](crate::parse).

mod feeds;
mod groups;
mod nat;
mod objects;
mod pods;
mod policies;
mod pools;
mod quantities;
mod routes;
mod screens;
mod selectors;
mod services;
mod sessions;
mod size;
mod statics;
mod wires;

use std::collections::HashMap;

pub use self::pools::MAX_POOL_RANGES;
use crate::config::{Config, Extent};
use crate::diagnostic::{Diagnostic, Diagnostics, Severity};
use crate::document::{
    AddressGroup, DestinationNat, Document, InterfaceEntry, PolicyEntry, PoolEntry, ScreenEntry,
    ServiceEntry, SourceNat, StaticNat, WireEntry, ZoneEntry,
};
use crate::node::{Node, Segment, steps};
use crate::read::Read;
use crate::suggest::nearest;

/// The most data interfaces one firewall guards.
pub const MAX_INTERFACES: usize = 15;

/// How many names a help lists before it stops.
const LISTED_NAMES: usize = 8;

/// Checks and resolves what was read.
pub(crate) fn config(read: Read<'_>, diagnostics: &mut Diagnostics) -> Option<(Document, Config)> {
    let Read {
        document,
        tree,
        named,
        complete,
    } = read;
    let mut checker = Checker {
        tree: &tree,
        diagnostics,
    };
    if named {
        checker.name("a firewall", &document.metadata.name, &[], || {
            steps!["metadata", "name"].to_vec()
        });
    }
    let spec = &document.spec;
    let interface_names = checker.names("interface", &steps!["spec", "interfaces"], &spec.interfaces);
    let zone_names = checker.names("zone", &steps!["spec", "zones"], &spec.zones);
    let screen_names = checker.names("screen", &steps!["spec", "screens"], &spec.screens);
    let group_names = checker.names("address group", &steps!["spec", "addresses"], &spec.addresses);
    let service_names = checker.names("service", &steps!["spec", "services"], &spec.services);
    let pool_names = checker.names("pool", &steps!["spec", "nat", "pools"], &spec.nat.pools);

    let groups = checker.groups(&spec.addresses, &group_names);
    let mut services = services::Services::new(service_names, checker.services(&spec.services));
    let mut screens = screens::Screens::new(screen_names, checker.screens(&spec.screens));
    let zones = checker.zones(&spec.zones, &mut services, &mut screens);
    let interfaces = checker.interfaces(spec, &zone_names);
    if let (true, Some(interfaces)) = (complete, &interfaces) {
        checker.zones_without_interface(&zones, &zone_names, interfaces);
    }
    let wires = checker.wires(spec, &interface_names, complete);
    let routes = checker.routes(spec, &interface_names, interfaces.as_deref());
    let pools = pools::Pools::new(pool_names, checker.pools(&spec.nat.pools));
    let mut groups = selectors::Groups::new(group_names, groups);
    let policies = checker.policies(&spec.policies, &zone_names, &mut groups, &mut services);
    let mut objects = nat::Objects {
        zones: &zone_names,
        groups: &mut groups,
        services: &mut services,
        pools: &pools,
    };
    let source_nat = checker.source_nat(&spec.nat.source, &mut objects);
    let destination_nat = checker.destination_nat(&spec.nat.destination, &mut objects);
    let static_nat = checker.static_nat(&spec.nat.statics, &zone_names);
    let tcp = checker.tcp(&spec.tcp);
    let (size_name, size) = checker.size(spec.size);
    let sessions = checker.sessions(&spec.sessions, size_name);
    let mut algs = spec.algs.clone();
    algs.sort_unstable();
    algs.dedup();

    let mut config = Config {
        name: document.metadata.name.clone(),
        file: checker.diagnostics.file().to_owned(),
        forwarding: spec.forwarding,
        interfaces: interfaces.unwrap_or_default(),
        wires,
        routes,
        zones,
        screens: screens.into_table(),
        groups: groups.into_table(),
        services: services.into_table(),
        policies,
        pools: pools.into_table(),
        source_nat,
        destination_nat,
        static_nat,
        answer_neighbours: spec.nat.answer_neighbours.unwrap_or(true),
        tcp,
        size,
        extent: Extent::default(),
        sessions,
        algs,
    };
    config.extent = size::extent(&config);
    checker.fits(spec, &config);
    Some((document, config))
}

/// Compares the configuration with the machine: one error for each data interface that is not in `present`.
///
/// `present` is what the kernel has, in any order. Kept apart from [`parse`](crate::parse), which knows no kernel.
pub fn check_interfaces(config: &Config, present: &[String]) -> Vec<Diagnostic> {
    let absent = |(_, interface): &(usize, &crate::Interface)| !present.contains(&interface.name);
    config
        .interfaces
        .iter()
        .enumerate()
        .filter(absent)
        .map(|(index, interface)| Diagnostic {
            severity: Severity::Error,
            file: config.file.clone(),
            line: interface.line,
            column: interface.column,
            path: format!("spec.interfaces[{index}].name"),
            message: format!("interface \"{}\" does not exist on this machine", interface.name),
            help: Some(instead(
                &interface.name,
                "interfaces",
                present.iter().map(String::as_str),
            )),
        })
        .collect()
}

/// What to write in place of a name that does not exist.
fn instead<'a>(wanted: &str, what: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    if let Some(near) = nearest(wanted, known.clone()) {
        return format!("did you mean \"{near}\"?");
    }
    let mut listed: Vec<&str> = known.take(LISTED_NAMES + 1).collect();
    if listed.is_empty() {
        return format!("there are no {what} yet");
    }
    if listed.len() > LISTED_NAMES {
        listed[LISTED_NAMES] = "…";
    }
    format!("the {what} are {}", listed.join(", "))
}

/// `[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}`
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Names of one kind, each with its place in the list.
type Names<'d> = HashMap<&'d str, usize>;

/// The names in the order of the document.
fn sorted<'d>(names: &Names<'d>) -> Vec<&'d str> {
    let mut sorted: Vec<_> = names.iter().map(|(name, index)| (*index, *name)).collect();
    sorted.sort_unstable();
    sorted.into_iter().map(|(_, name)| name).collect()
}

/// An entry of the document that others may name.
trait Named {
    fn name(&self) -> &str;
}

macro_rules! named {
    ($($entry:ty),* $(,)?) => { $(
        impl Named for $entry {
            fn name(&self) -> &str {
                &self.name
            }
        }
    )* };
}

named!(
    InterfaceEntry,
    WireEntry,
    ZoneEntry,
    ScreenEntry,
    AddressGroup,
    ServiceEntry,
    PolicyEntry,
    PoolEntry,
    SourceNat,
    DestinationNat,
    StaticNat,
);

struct Checker<'c, 's> {
    tree: &'c Node<'s>,
    diagnostics: &'c mut Diagnostics,
}

impl Checker<'_, '_> {
    fn error(&mut self, path: &[Segment], text: (String, Option<String>)) {
        let (at, path) = self.tree.locate(path);
        self.diagnostics.push(Severity::Error, at, path, text);
    }

    fn error_at_key(&mut self, path: &[Segment], text: (String, Option<String>)) {
        let (at, path) = self.tree.locate_key(path);
        self.diagnostics.push(Severity::Error, at, path, text);
    }

    fn warning(&mut self, path: &[Segment], text: (String, Option<String>)) {
        let (at, path) = self.tree.locate(path);
        self.diagnostics.push(Severity::Warning, at, path, text);
    }

    fn position(&self, path: &[Segment]) -> (u32, u32) {
        self.tree.locate(path).0
    }

    /// Line of the name of an item.
    fn line(&self, section: &[Segment], index: usize) -> u32 {
        self.position(&[section, &steps![index, "name"]].concat()).0
    }

    fn name(&mut self, what: &str, name: &str, reserved: &[&str], path: impl FnOnce() -> Vec<Segment>) {
        if !is_name(name) {
            let help =
                "a name has 1 to 63 letters, digits, `.`, `_` or `-` and begins with a letter or digit";
            self.error(
                &path(),
                (
                    format!("\"{name}\" cannot be the name of {what}"),
                    Some(help.to_owned()),
                ),
            );
        } else if reserved.contains(&name) {
            let message = format!("\"{name}\" is reserved and cannot be the name of {what}");
            self.error(&path(), (message, Some("choose another name".to_owned())));
        }
    }

    /// Checks the names of a section and remembers the first of each.
    fn names<'d>(&mut self, what: &str, section: &[Segment], entries: &'d [impl Named]) -> Names<'d> {
        let reserved: &[&str] = if what == "service" {
            &["any", "self", "all"]
        } else {
            &["any", "self"]
        };
        let article = format!("{} {what}", if what.starts_with(['a', 'i']) { "an" } else { "a" });
        let mut known = Names::new();
        for (index, name) in entries.iter().map(Named::name).enumerate() {
            let path = || [section, &steps![index, "name"]].concat();
            self.name(&article, name, reserved, path);
            match known.get(name) {
                Some(&first) => {
                    let first = self.line(section, first);
                    let message = format!("{what} \"{name}\" is already defined on line {first}");
                    self.error(
                        &path(),
                        (message, Some("give one of them another name".to_owned())),
                    );
                }
                None => {
                    known.insert(name, index);
                }
            }
        }
        known
    }
}
