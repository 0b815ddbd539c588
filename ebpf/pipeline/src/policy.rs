//! Rule sets: from zones, addresses and service to the first rule that matches.
//!
//! The number of lookups does not depend on the number of rules: two address classes, one service class, then one
//! exact lookup in the decision cache. Behind the cache stand rule bit-vectors: per dimension, the rules that accept
//! the class and the rules that accept anything; the lowest bit common to all five dimensions is the first match.

use bulkhead_abi::{Decision, DecisionKey, Dimension, RULES_PER_PAGE, Reason, RuleSet, VectorKey, ZONE_SELF};

use crate::Tables;

/// What a rule set is asked: a packet's tuple and its zones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Question {
    /// Source address, memory order.
    pub source_be: [u32; 4],
    /// Destination address, memory order.
    pub destination_be: [u32; 4],
    /// Configuration generation.
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
    /// Key of the vector being read.
    vector: VectorKey,
    /// Pages with candidates in every dimension, not looked at yet.
    pages: u64,
    /// Words of `page` with candidates in every dimension, not looked at yet.
    words: u64,
    /// The page.
    page: u32,
    /// The word.
    word: u32,
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

/// ANDs over the dimensions what `read` returns for "any" and for the class.
#[inline(always)]
fn common(walk: &mut Walk, mut read: impl FnMut(&VectorKey, u32) -> u64) -> u64 {
    let mut all = u64::MAX;
    walk.vector.generation = walk.key.generation;
    walk.vector.page = walk.page as u16;
    let set = (walk.key.zones >> 28) as u16;
    let word = walk.word;
    for dimension in Dimension::ALL {
        let class = match dimension {
            Dimension::FromZone => walk.key.zones >> 16 & 0xff,
            Dimension::ToZone => walk.key.zones & 0xffff,
            Dimension::Source => walk.key.source,
            Dimension::Destination => walk.key.destination,
            Dimension::Service => walk.key.service,
        };
        walk.vector.dimension = set << 8 | dimension as u16;
        walk.vector.class = class;
        let mut accepted = read(&walk.vector, word);
        // In a policy, "to any zone" does not mean the firewall itself: that is what hostInbound is for.
        let own = set == RuleSet::Policy as u16 && class == u32::from(ZONE_SELF);
        if !(matches!(dimension, Dimension::ToZone) && own) {
            walk.vector.class = VectorKey::ANY;
            accepted |= read(&walk.vector, word);
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
    walk.pages = common(walk, |vector, _| env.vector_top(vector));
    // One step looks at one page's summary or at one word: 64 pages and their 64 words each.
    env.repeat(64 * 65, |_| {
        if walk.words == 0 {
            if walk.pages == 0 {
                return true;
            }
            walk.page = lowest(walk.pages);
            walk.pages &= walk.pages - 1;
            walk.words = common(walk, |vector, _| env.vector_summary(vector));
            return false;
        }
        walk.word = lowest(walk.words);
        walk.words &= walk.words - 1;
        let rules = common(walk, |vector, word| env.vector_word(vector, word));
        if rules == 0 {
            return false;
        }
        walk.found = walk.page * RULES_PER_PAGE + walk.word * 64 + lowest(rules);
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
