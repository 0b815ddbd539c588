//! Policy: from zones, addresses and service to the first rule that matches.
//!
//! The number of lookups does not depend on the number of rules: two address classes, one service class, then one
//! exact lookup in the decision cache. Behind the cache stand rule bit-vectors: per dimension, the rules that accept
//! the class and the rules that accept anything; the lowest bit common to all five dimensions is the first match.

use bulkhead_abi::{Decision, DecisionKey, Dimension, RULES_PER_PAGE, Reason, VectorKey, ZONE_SELF};

use crate::Tables;

/// What policy is asked: a packet's tuple before translation, and its zones.
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
}

/// The number of the first rule that matches, or [`Decision::NO_RULE`].
#[inline(never)]
pub fn decide<E: Tables>(env: &E, question: &Question) -> u32 {
    let generation = question.generation;
    let key = DecisionKey {
        generation,
        zones: u32::from(question.from_zone) << 16 | u32::from(question.to_zone),
        source: env.address_class(generation, question.family, &question.source_be),
        destination: env.address_class(generation, question.family, &question.destination_be),
        service: env.service_class(generation, question.protocol, question.port),
    };
    if let Some(rule) = env.cached_decision(&key).and_then(|decision| decision.rule(&key)) {
        env.count(Reason::SLOT_DECISION_CACHE_HITS);
        return rule;
    }
    env.count(Reason::SLOT_DECISION_CACHE_MISSES);
    let rule = first_match(env, &key);
    env.cache_decision(&key, Decision::new(&key, rule));
    rule
}

/// The classes of one question, by dimension.
#[inline(always)]
fn class_of(key: &DecisionKey, dimension: Dimension) -> u32 {
    match dimension {
        Dimension::FromZone => key.zones >> 16,
        Dimension::ToZone => key.zones & 0xffff,
        Dimension::Source => key.source,
        Dimension::Destination => key.destination,
        Dimension::Service => key.service,
    }
}

/// ANDs over the dimensions what `read` returns for "any" and for the class.
#[inline(always)]
fn common(key: &DecisionKey, page: u32, mut read: impl FnMut(&VectorKey) -> u64) -> u64 {
    let mut all = u64::MAX;
    for dimension in Dimension::ALL {
        let class = class_of(key, dimension);
        let mut vector =
            VectorKey { generation: key.generation, class, dimension: dimension as u16, page: page as u16 };
        let mut accepted = read(&vector);
        // "To any zone" does not mean the firewall itself: that is what hostInbound is for.
        if !(matches!(dimension, Dimension::ToZone) && class == u32::from(ZONE_SELF)) {
            vector.class = VectorKey::ANY;
            accepted |= read(&vector);
        }
        all &= accepted;
        if all == 0 {
            break;
        }
    }
    all
}

/// Walks pages and words that have candidates in every dimension, lowest first.
#[inline(never)]
fn first_match<E: Tables>(env: &E, key: &DecisionKey) -> u32 {
    let mut found = Decision::NO_RULE;
    let mut pages = common(key, 0, |vector| env.vector_top(vector));
    let mut words = 0u64;
    let mut page = 0u32;
    // One step looks at one page's summary or at one word: 64 pages and their 64 words each.
    env.repeat(64 * 65, |_| {
        if words == 0 {
            if pages == 0 {
                return true;
            }
            page = lowest(pages);
            pages &= pages - 1;
            words = common(key, page, |vector| env.vector_summary(vector));
            return false;
        }
        let word = lowest(words);
        words &= words - 1;
        let rules = common(key, page, |vector| env.vector_word(vector, word));
        if rules == 0 {
            return false;
        }
        found = page * RULES_PER_PAGE + word * 64 + lowest(rules);
        true
    });
    found
}

/// Index of the lowest bit set; 64 for none. Six halvings: BPF has no count-zeros instruction, and what the compiler
/// makes of `trailing_zeros` is a table in `.rodata`.
#[inline(always)]
fn lowest(mut bits: u64) -> u32 {
    if bits == 0 {
        return 64;
    }
    let mut index = 0;
    let mut width = 32;
    while width > 0 {
        if bits & ((1 << width) - 1) == 0 {
            bits >>= width;
            index += width;
        }
        width >>= 1;
    }
    index as u32
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
