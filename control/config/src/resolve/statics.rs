//! Static rules of translation: pairs of prefixes, of which no two overlap.
//!
//! An address that lay in two prefixes would have two translations, or none of its own: refused wherever it is,
//! between rules and within one.

use super::selectors::Place;
use super::{Checker, Names};
use crate::address::{IpPrefix, Member, Refusal, parse_member};
use crate::config::StaticRule;
use crate::document::StaticNat;
use crate::node::{Segment, steps};
use crate::ranges::unusable;

/// The longest prefix that RFC 6296 translates: the interface identifier of a host is not part of it.
const LONGEST_NPT: u8 = 64;

/// A prefix that was written, and where.
struct Written {
    prefix: IpPrefix,
    rule: usize,
    field: &'static str,
}

impl Checker<'_, '_> {
    pub(super) fn static_nat(&mut self, entries: &[StaticNat], zones: &Names<'_>) -> Vec<StaticRule> {
        let section = steps!["spec", "nat", "static"];
        self.names("static rule", &section, entries);
        let mut rules = Vec::with_capacity(entries.len());
        let mut written = Vec::with_capacity(2 * entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let at = Place {
                what: "static rule",
                name: &entry.name,
                section: &section,
                index,
                field: "name",
            };
            let from = self.zone_selector(&entry.from, at.of("from"), zones);
            let outside = self.static_prefix(&entry.prefix, at.of("prefix"));
            let inside = self.static_prefix(&entry.to, at.of("to"));
            let (Some(outside), Some(inside)) = (outside, inside) else {
                continue;
            };
            self.fitting(entry, outside, inside, at);
            for (prefix, field) in [(outside, "prefix"), (inside, "to")] {
                written.push(Written {
                    prefix,
                    rule: index,
                    field,
                });
            }
            rules.push(StaticRule {
                name: entry.name.clone(),
                from,
                outside,
                inside,
                npt: entry.npt,
                line: self.line(&section, index),
            });
        }
        self.overlaps(&section, entries, written);
        rules
    }

    fn static_prefix(&mut self, text: &str, at: Place<'_>) -> Option<IpPrefix> {
        match parse_static(text) {
            Ok(prefix) => match unusable(&prefix.range()) {
                None => Some(prefix),
                Some((address, why)) => {
                    let message = format!("static rule \"{}\" holds {address}, {why}", at.name);
                    let help = "write addresses that hosts can have".to_owned();
                    self.error(&at.path(), (message, Some(help)));
                    None
                }
            },
            Err(refusal) => {
                self.error(&at.path(), refusal);
                None
            }
        }
    }

    /// Whether the two prefixes can stand for each other.
    fn fitting(&mut self, entry: &StaticNat, outside: IpPrefix, inside: IpPrefix, at: Place<'_>) {
        let name = &entry.name;
        let ipv6 = outside.address.is_ipv6();
        if ipv6 != inside.address.is_ipv6() {
            let message = format!("static rule \"{name}\" pairs {outside} with {inside} of the other family");
            let help = "write two prefixes of one family: IPv4 is not translated to IPv6".to_owned();
            self.error(&at.of("to").path(), (message, Some(help)));
        } else if outside.length != inside.length {
            let message = format!("static rule \"{name}\" pairs {outside} with {inside} of another length");
            let help = IpPrefix::around(inside.address, outside.length)
                .filter(|fitting| fitting.address == inside.address)
                .map_or_else(
                    || format!("both must have the same: write a /{} here", outside.length),
                    |fitting| {
                        format!(
                            "both must have the same: write {fitting}, or a /{} there",
                            inside.length
                        )
                    },
                );
            self.error(&at.of("to").path(), (message, Some(help)));
        }
        if entry.npt && !ipv6 {
            let message = format!("static rule \"{name}\" has `npt`, but {outside} is IPv4");
            let help = "leave `npt` out: only IPv6 prefixes are translated that way".to_owned();
            self.error_at_key(&at.of("npt").path(), (message, Some(help)));
        } else if entry.npt && outside.length > LONGEST_NPT {
            let message = format!("static rule \"{name}\" has `npt`, but {outside} is too long for it");
            let help = format!("write prefixes of at most {LONGEST_NPT} bits, or leave `npt` out");
            self.error_at_key(&at.of("npt").path(), (message, Some(help)));
        }
    }

    /// Prefixes are nested or apart, so in ascending order, the wide one first, one that overlaps anything before it
    /// overlaps the one that reaches furthest.
    fn overlaps(&mut self, section: &[Segment], entries: &[StaticNat], mut written: Vec<Written>) {
        written.sort_by_key(|written| (written.prefix, written.rule));
        let mut furthest: Option<&Written> = None;
        let mut found = Vec::new();
        for this in &written {
            match furthest {
                Some(other) if other.prefix.range().overlaps(&this.prefix.range()) => {
                    // The one that comes later in the document is to blame.
                    let mut pair = [other, this];
                    pair.sort_by_key(|written| (written.rule, written.field == "to"));
                    found.push(pair);
                }
                _ => furthest = Some(this),
            }
        }
        for [first, second] in found {
            let name = &entries[second.rule].name;
            let message = if first.rule == second.rule {
                format!(
                    "static rule \"{name}\" translates {} to {}, which overlaps it",
                    first.prefix, second.prefix
                )
            } else {
                format!(
                    "{} of static rule \"{name}\" overlaps {} of static rule \"{}\" on line {}",
                    second.prefix,
                    first.prefix,
                    entries[first.rule].name,
                    self.line(section, first.rule)
                )
            };
            let help = "an address has one translation: write prefixes that lie apart".to_owned();
            let path = [section, &steps![second.rule, second.field]].concat();
            self.error(&path, (message, Some(help)));
        }
    }
}

fn parse_static(text: &str) -> Result<IpPrefix, Refusal> {
    match parse_member(text)? {
        Member::Host(address) => Ok(IpPrefix::host(address)),
        Member::Prefix(prefix) => Ok(prefix),
        Member::Range(range) => {
            let prefixes = range.prefixes();
            let help = match &prefixes[..] {
                [one] => format!("write {one}"),
                several => format!(
                    "write {} rules of a prefix each, the first {}",
                    several.len(),
                    several[0]
                ),
            };
            Err((format!("range {range} is not a prefix"), Some(help)))
        }
    }
}
