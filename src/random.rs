//! Seeded random numbers by position: a number depends on its key and its index alone, so that no order of computation
//! changes it and nothing has to be stored to go on with a sequence.
//!
//! The generator is SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014) read at an
//! index.

/// Step of the sequence: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// A sequence of random numbers that can be read at any index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Random(u64);

impl Random {
    /// The sequence of a seed.
    pub fn new(seed: u64) -> Self {
        Self(scramble(seed.wrapping_add(STEP)))
    }

    /// The sequence of its own that belongs to a number.
    #[must_use]
    pub fn number(self, number: u64) -> Self {
        Self(scramble(self.0 ^ scramble(number.wrapping_add(STEP))))
    }

    /// The sequence of its own that belongs to a name.
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        name.bytes().fold(self, |random, byte| random.number(u64::from(byte)))
    }

    /// 64 random bits.
    pub fn bits(self, index: u64) -> u64 {
        scramble(self.0.wrapping_add(index.wrapping_add(1).wrapping_mul(STEP)))
    }

    /// A number from 0 to below 1, of 53 random bits.
    pub fn uniform(self, index: u64) -> f64 {
        (self.bits(index) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A standard normal number (Box and Muller).
    pub fn normal(self, index: u64) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform(2 * index)).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform(2 * index + 1)).cos()
    }

    /// An integer below `bound`; 0 for a bound of 0.
    pub fn below(self, index: u64, bound: usize) -> usize {
        ((u128::from(self.bits(index)) * bound as u128) >> 64) as usize
    }

    /// The numbers below `count` in a random order.
    pub fn permutation(self, count: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..count as u32).collect();
        for index in (1..count).rev() {
            order.swap(index, self.below(index as u64, index + 1));
        }
        order
    }
}

fn scramble(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reference implementation's first numbers for the state 1234567 (<https://prng.di.unimi.it/splitmix64.c>).
    #[test]
    fn the_sequence_is_that_of_splitmix64() {
        let numbers: Vec<u64> = (0..3).map(|index| Random(1_234_567).bits(index)).collect();
        assert_eq!(numbers, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn numbers_have_the_right_moments_and_keys_are_independent() {
        let random = Random::new(3).name("weight");
        let count = 100_000;
        let mean = |values: &dyn Fn(u64) -> f64| (0..count).map(values).sum::<f64>() / count as f64;
        // Five standard errors each.
        assert!(mean(&|index| random.normal(index)).abs() < 0.016);
        assert!((mean(&|index| random.normal(index).powi(2)) - 1.0).abs() < 0.023);
        assert!((mean(&|index| random.uniform(index)) - 0.5).abs() < 0.005);
        let other = Random::new(4).name("weight");
        assert!(mean(&|index| random.normal(index) * other.normal(index)).abs() < 0.016);
        assert_ne!(random.name("a").bits(0), random.name("b").bits(0));
    }

    #[test]
    fn permutations_hold_every_number_once() {
        let mut order = Random::new(1).permutation(1000);
        assert_ne!(order, Random::new(2).permutation(1000));
        order.sort_unstable();
        assert_eq!(order, (0..1000).collect::<Vec<u32>>());
    }
}
