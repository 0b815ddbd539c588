//! Rule sets: from zones, addresses and service to the first rule that matches.
//!
//! The number of lookups does not depend on the number of rules: two address classes, one service class, then one
//! exact lookup in the decision cache. Behind the cache stand rule bit-vectors: per dimension, the rules that accept
//! the class and the rules that accept anything; the lowest bit common to all five dimensions is the first match. Each
//! level of the vectors costs six lookups, one per dimension and one for "anything" in all of them: 18 where the first
//! page and word with candidates decide, 6 more for each further word.

use bulkhead_abi::{
    AnyVectors, Decision, DecisionKey, Dimension, PAGES, RULES_PER_PAGE, Reason, RuleSet, VectorKey,
    ZONE_SELF,
};

use crate::Tables;

/// What a rule set is asked: a packet's tuple and its zones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Question {
    /// Source address, memory order.
    pub source_be: [u32; 4],
    /// Destination address, memory order.
    pub destination_be: [u32; 4],
    /// What the tables' keys carry ([`crate::Work::tables`]).
    pub generation: u32,
    /// Destination port, ICMP `type << 8 | code`, or 0.
    pub port: u16,
    /// IP protocol.
    pub protocol: u8,
    /// 4 or 6.
    pub family: u8,
    /// Source zone.
    pub from_zone: u8,
    /// Destination zone; [`ZONE_SELF`] for the firewall itself.
    pub to_zone: u8,
    /// The rule set asked.
    pub set: RuleSet,
}

/// State of one decision. In the scratch entry rather than on the stack, of which the way here has used most; and what
/// the verifier does not follow it need not distinguish.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Walk {
    /// The question as classes.
    pub key: DecisionKey,
    /// Key of the word being read.
    vector: VectorKey,
    /// What the rules that accept everything say at this place.
    any: AnyVectors,
    /// Pages with candidates in every dimension, not looked at yet.
    pages: u64,
    /// Words of `page` with candidates in every dimension, not looked at yet.
    words: u64,
    /// The page.
    page: u32,
    /// The rule found, or [`Decision::NO_RULE`].
    found: u32,
}

/// The number of the first rule that matches, or [`Decision::NO_RULE`]. `walk.key` keeps the classes.
#[inline(always)]
pub fn decide<E: Tables>(env: &E, question: &Question, walk: &mut Walk) -> u32 {
    // Two calls side by side: inside one another they would need the stack of both.
    classify(env, question, walk);
    find(env, walk)
}

/// Turns the question into classes.
#[inline(never)]
fn classify<E: Tables>(env: &E, question: &Question, walk: &mut Walk) {
    let generation = question.generation;
    walk.key.generation = generation;
    walk.key.zones = u32::from(question.set as u8) << 28
        | u32::from(question.from_zone) << 16
        | u32::from(question.to_zone);
    walk.key.source = env.address_class(generation, question.family, &question.source_be);
    walk.key.destination = env.address_class(generation, question.family, &question.destination_be);
    walk.key.service = env.service_class(generation, question.protocol, question.port);
}

/// The tuple whose classes `walk` holds, put to another rule set: [`decide`] without the lookups of classes.
#[inline(always)]
pub(crate) fn decide_again<E: Tables>(
    env: &E,
    walk: &mut Walk,
    set: RuleSet,
    from_zone: u8,
    to_zone: u8,
) -> u32 {
    walk.key.zones = u32::from(set as u8) << 28 | u32::from(from_zone) << 16 | u32::from(to_zone);
    find(env, walk)
}

/// The decision about classes, from the cache or from the vectors.
#[inline(never)]
fn find<E: Tables>(env: &E, walk: &mut Walk) -> u32 {
    if let Some(rule) = env
        .cached_decision(&walk.key)
        .and_then(|decision| decision.rule(&walk.key))
    {
        count(env, walk, Reason::SLOT_DECISION_CACHE_HITS);
        return rule;
    }
    count(env, walk, Reason::SLOT_DECISION_CACHE_MISSES);
    first_match(env, walk);
    env.cache_decision(&walk.key, Decision::new(&walk.key, walk.found));
    walk.found
}

/// Counts a question to policy; translation's follow the same packets and would only blur the figure.
#[inline(always)]
fn count<E: Tables>(env: &E, walk: &Walk, slot: u32) {
    if walk.key.zones >> 28 == RuleSet::Policy as u32 {
        env.count(slot);
    }
}

/// The word at `index` of the rules that match in every dimension.
#[inline(always)]
fn common<E: Tables>(env: &E, walk: &mut Walk, index: u16) -> u64 {
    let mut all = u64::MAX;
    let set = (walk.key.zones >> 28) as u16;
    let Walk { key, vector, any, .. } = walk;
    vector.generation = key.generation;
    vector.index = index;
    vector.class = VectorKey::ANY;
    vector.dimension = set << 8;
    env.any_vectors(vector, any);
    for dimension in Dimension::ALL {
        vector.class = match dimension {
            Dimension::FromZone => key.zones >> 16 & 0xff,
            Dimension::ToZone => key.zones & 0xffff,
            Dimension::Source => key.source,
            Dimension::Destination => key.destination,
            Dimension::Service => key.service,
        };
        vector.dimension = set << 8 | dimension as u16;
        let mut accepted = env.vector(vector);
        // In a policy, "to any zone" does not mean the firewall itself: that is what hostInbound is for.
        let own = set == RuleSet::Policy as u16 && vector.class == u32::from(ZONE_SELF);
        if !(matches!(dimension, Dimension::ToZone) && own) {
            let [from, to, source, destination, service] = any.words;
            accepted |= match dimension {
                Dimension::FromZone => from,
                Dimension::ToZone => to,
                Dimension::Source => source,
                Dimension::Destination => destination,
                Dimension::Service => service,
            };
        }
        // No early way out: the verifier would have to follow each one.
        all &= accepted;
    }
    all
}

/// Walks pages and words that have candidates in every dimension, lowest first.
#[inline(always)]
fn first_match<E: Tables>(env: &E, walk: &mut Walk) {
    walk.found = Decision::NO_RULE;
    walk.page = 0;
    walk.words = 0;
    walk.pages = common(env, walk, VectorKey::TOP);
    // One step looks at one page's summary or at one word.
    env.repeat(PAGES * (1 + RULES_PER_PAGE / 64), |_| {
        let summary = walk.words == 0;
        let word = lowest(walk.words);
        let index = if summary {
            if walk.pages == 0 {
                return true;
            }
            walk.page = lowest(walk.pages);
            walk.pages &= walk.pages - 1;
            VectorKey::summary(walk.page)
        } else {
            walk.words &= walk.words - 1;
            VectorKey::word(walk.page, word)
        };
        // Called in one place: the code is long.
        let found = common(env, walk, index);
        if summary {
            walk.words = found;
            return false;
        }
        if found == 0 {
            return false;
        }
        walk.found = walk.page * RULES_PER_PAGE + word * 64 + lowest(found);
        true
    });
}

/// Index of the lowest bit set; 64 for none. Counts the ones below it: arithmetic without branches, each of which the
/// verifier would follow on its own.
#[inline(always)]
pub(crate) fn lowest(bits: u64) -> u32 {
    (!bits & bits.wrapping_sub(1)).count_ones()
}

#[cfg(test)]
mod tests {
    use super::lowest;

    #[test]
    fn lowest_is_trailing_zeros() {
        for shift in 0..64 {
            for bits in [1u64 << shift, u64::MAX << shift, (1 << 63) | (1 << shift)] {
                assert_eq!(lowest(bits), bits.trailing_zeros());
            }
        }
        assert_eq!(lowest(0), 64);
    }
}
