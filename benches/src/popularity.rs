//! In which order the source takes its flows.
//!
//! In turn is the worst case of any table: between two packets of a flow lie packets of all others, so that nothing of its
//! entry is left in a cache. Real traffic is not like that: a few conversations carry most packets, and their entries stay
//! close. Measured is the usual model of it, the law of Zipf with exponent 1: the n-th most popular flow is n times as rare
//! as the first. Draws are made beforehand, with a fixed seed, the same for every contender.

use crate::object::section;

/// What the source takes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Each flow in turn.
    InTurn,
    /// A flow by its popularity.
    Zipf,
}

/// Draws that a source has, which it takes again and again: more than a round of a second sends packets.
pub const DRAWS: usize = 1 << 22;

/// The flows of [`DRAWS`] packets. Which flow has which rank has nothing to do with when it was opened, so that popular
/// flows do not lie side by side in memory.
#[must_use]
pub fn zipf(flows: u32) -> Vec<u32> {
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=flows)
        .map(|rank| {
            sum += 1.0 / f64::from(rank);
            sum
        })
        .collect();
    let stride = u64::from(section(flows));
    let mut random = SplitMix(SEED);
    (0..DRAWS)
        .map(|_| {
            let drawn = random.unit() * sum;
            // The last rank too where rounding leaves the draw at the very end.
            let rank = sums.partition_point(|below| *below <= drawn).min(sums.len() - 1);
            ((rank as u64 * stride.max(1)) % u64::from(flows)) as u32
        })
        .collect()
}

const SEED: u64 = 0x6275_6c6b_6865_6164;

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014): what java.util.SplittableRandom does.
struct SplitMix(u64);

impl SplitMix {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// From 0 up to 1, without 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(flows: u32) -> Vec<usize> {
        let mut counts = vec![0; flows as usize];
        for flow in zipf(flows) {
            counts[flow as usize] += 1;
        }
        counts
    }

    #[test]
    fn the_second_is_half_as_popular_as_the_first_and_half_the_packets_are_of_few() {
        let mut counts = counts(1_000);
        counts.sort_unstable_by_key(|count| std::cmp::Reverse(*count));
        // The thousandth harmonic number is 7.485.
        for (rank, share) in [(0, 1.0 / 7.485), (1, 0.5 / 7.485), (9, 0.1 / 7.485)] {
            let measured = counts[rank] as f64 / DRAWS as f64;
            assert!(
                (measured / share - 1.0).abs() < 0.02,
                "{rank}: {measured}, expected {share}"
            );
        }
        assert!(counts[999] > 0, "the rarest is met too");
        let few: usize = counts[..24].iter().sum();
        assert!((0.49..0.52).contains(&(few as f64 / DRAWS as f64)), "{few}");
    }

    #[test]
    fn the_draws_are_the_same_every_time() {
        assert_eq!(zipf(100), zipf(100));
        assert!(zipf(1).iter().all(|flow| *flow == 0));
    }
}
