//! Rule vectors: per dimension and class, the rules that accept it, as words of three levels.
//!
//! Rules are first noted by what they name (a zone, a group, a service), in the order of their numbers. The vector of a class
//! is then made of the rules of everything the class is of: for all classes when a ruleset is compiled, and for one that
//! comes up when a group changes without a commit ([`Naming::of_class`]).

use std::collections::HashMap;

use bulkhead_abi::{AnyVectors, Dimension, RULES_PER_PAGE, RuleSet, VectorKey};

/// What a rule accepts, by indices of the ruleset; an empty list means anything.
#[derive(Clone, Copy, Default)]
pub(super) struct Accepts<'a> {
    pub(super) from: &'a [usize],
    pub(super) to: &'a [usize],
    pub(super) source: &'a [usize],
    pub(super) destination: &'a [usize],
    pub(super) service: &'a [usize],
}

/// The dimensions that addresses are looked up in.
const OF_ADDRESSES: [Dimension; 2] = [Dimension::Source, Dimension::Destination];
const OF_ZONES: [Dimension; 2] = [Dimension::FromZone, Dimension::ToZone];
const SETS: [RuleSet; 3] = [RuleSet::Policy, RuleSet::DestinationNat, RuleSet::SourceNat];

/// Which rules name what.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Naming {
    /// By dimension (rule set included) and index of what is named, zones by their table number: rules, rising.
    named: HashMap<(u16, u32), Vec<u32>>,
    /// By dimension: the rules that accept anything.
    any: HashMap<u16, Vec<u32>>,
}

/// Appends a rule, once.
fn note(rules: &mut Vec<u32>, rule: u32) {
    if rules.last() != Some(&rule) {
        rules.push(rule);
    }
}

impl Naming {
    /// Notes that a rule accepts one thing, by the number of its class or the index of what is named.
    pub(super) fn accept(&mut self, set: RuleSet, dimension: Dimension, named: u32, rule: u32) {
        let dimension = VectorKey::dimension_of(set, dimension);
        note(self.named.entry((dimension, named)).or_default(), rule);
    }

    /// Notes that a rule accepts anything in a dimension.
    pub(super) fn accept_any(&mut self, set: RuleSet, dimension: Dimension, rule: u32) {
        let dimension = VectorKey::dimension_of(set, dimension);
        note(self.any.entry(dimension).or_default(), rule);
    }

    /// Notes rule number `rule` of a set. Numbers come in rising order.
    pub(super) fn enter(&mut self, set: RuleSet, rule: u32, accepts: &Accepts<'_>) {
        for (dimension, named) in [
            (Dimension::FromZone, accepts.from),
            (Dimension::ToZone, accepts.to),
            (Dimension::Source, accepts.source),
            (Dimension::Destination, accepts.destination),
            (Dimension::Service, accepts.service),
        ] {
            if named.is_empty() {
                self.accept_any(set, dimension, rule);
            }
            for index in named {
                let zones = OF_ZONES.contains(&dimension);
                let number = if zones {
                    super::zone_number(*index)
                } else {
                    *index as u32
                };
                self.accept(set, dimension, number, rule);
            }
        }
    }

    /// The vectors of a class that is of these groups (or services), in some dimensions of every rule set.
    fn of(
        &self,
        generation: u32,
        class: u32,
        of: &[u32],
        dimensions: &[Dimension],
        out: &mut Vec<(VectorKey, u64)>,
    ) {
        for set in SETS {
            for dimension in dimensions {
                let dimension = VectorKey::dimension_of(set, *dimension);
                let mut found = of.iter().filter_map(|index| self.named.get(&(dimension, *index)));
                let Some(first) = found.next() else {
                    continue;
                };
                let merged;
                let rules = match found.next() {
                    None => first,
                    Some(second) => {
                        let mut all: Vec<u32> = first.iter().chain(second).copied().collect();
                        all.extend(found.flatten());
                        all.sort_unstable();
                        all.dedup();
                        merged = all;
                        &merged
                    }
                };
                words(rules, |index, word| {
                    let key = VectorKey {
                        generation,
                        class,
                        dimension,
                        index,
                    };
                    out.push((key, word));
                });
            }
        }
    }

    /// The vectors of an address class that is of these groups, in this generation.
    #[must_use]
    pub fn of_class(&self, generation: u32, class: u32, groups: &[u32]) -> Vec<(VectorKey, u64)> {
        let mut vectors = Vec::new();
        self.of(generation, class, groups, &OF_ADDRESSES, &mut vectors);
        vectors
    }

    /// The vectors of all classes, each with what it is of.
    pub(super) fn vectors(
        &self,
        generation: u32,
        addresses: &[(u32, Vec<u32>)],
        services: &[(u32, Vec<u32>)],
    ) -> Vec<(VectorKey, u64)> {
        let mut out = Vec::new();
        for (class, groups) in addresses {
            self.of(generation, *class, groups, &OF_ADDRESSES, &mut out);
        }
        for (class, services) in services {
            self.of(generation, *class, services, &[Dimension::Service], &mut out);
        }
        let mut zones: Vec<u32> = (0..=u32::from(u8::MAX)).collect();
        let named = |zone: &u32| {
            let mut dimensions = SETS
                .into_iter()
                .flat_map(|set| OF_ZONES.map(|dimension| VectorKey::dimension_of(set, dimension)));
            dimensions.any(|dimension| self.named.contains_key(&(dimension, *zone)))
        };
        zones.retain(named);
        for zone in zones {
            self.of(generation, zone, &[zone], &OF_ZONES, &mut out);
        }
        out
    }

    /// The vectors of the rules that accept anything.
    pub(super) fn any_vectors(&self, generation: u32) -> Vec<(VectorKey, AnyVectors)> {
        let mut found: HashMap<VectorKey, AnyVectors> = HashMap::new();
        for set in SETS {
            for dimension in Dimension::ALL {
                let Some(rules) = self.any.get(&VectorKey::dimension_of(set, dimension)) else {
                    continue;
                };
                words(rules, |index, word| {
                    let key = VectorKey {
                        generation,
                        class: VectorKey::ANY,
                        dimension: (set as u16) << 8,
                        index,
                    };
                    found.entry(key).or_default().words[dimension as usize] |= word;
                });
            }
        }
        found.into_iter().collect()
    }
}

/// The words of a vector of rising rule numbers, of all levels, by their index.
fn words(rules: &[u32], mut out: impl FnMut(u16, u64)) {
    let mut top = 0_u64;
    for page in rules.chunk_by(|a, b| a / RULES_PER_PAGE == b / RULES_PER_PAGE) {
        let Some(number) = page.first().map(|rule| rule / RULES_PER_PAGE) else {
            continue;
        };
        top |= 1 << number;
        let mut summary = 0_u64;
        for word in page.chunk_by(|a, b| a / 64 == b / 64) {
            let Some(place) = word.first().map(|rule| rule % RULES_PER_PAGE / 64) else {
                continue;
            };
            summary |= 1 << place;
            let bits = word.iter().fold(0_u64, |bits, rule| bits | 1 << (rule % 64));
            out(VectorKey::word(number, place), bits);
        }
        out(VectorKey::summary(number), summary);
    }
    if top != 0 {
        out(VectorKey::TOP, top);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_has_a_word_for_what_is_in_it_and_for_every_level_above() {
        let mut found = Vec::new();
        words(&[0, 63, 64, 4095, 4096, 262_143], |index, word| {
            found.push((index, word))
        });
        assert_eq!(
            found,
            [
                (VectorKey::word(0, 0), 1 | 1 << 63),
                (VectorKey::word(0, 1), 1),
                (VectorKey::word(0, 63), 1 << 63),
                (VectorKey::summary(0), 0b11 | 1 << 63),
                (VectorKey::word(1, 0), 1),
                (VectorKey::summary(1), 1),
                (VectorKey::word(63, 63), 1 << 63),
                (VectorKey::summary(63), 1 << 63),
                (VectorKey::TOP, 0b11 | 1 << 63),
            ]
        );
        words(&[], |index, _| panic!("a word at {index}"));
    }

    #[test]
    fn no_index_is_used_twice() {
        let mut seen = std::collections::HashSet::from([VectorKey::TOP]);
        for page in 0..bulkhead_abi::PAGES {
            assert!(seen.insert(VectorKey::summary(page)));
            for word in 0..64 {
                assert!(seen.insert(VectorKey::word(page, word)));
            }
        }
    }
}
