//! Random choices one after the other, from a sequence that belongs to one key.

use crate::random::Random;

/// Reads a sequence of random numbers in order.
#[derive(Debug)]
pub(super) struct Dice {
    random: Random,
    next: u64,
}

impl Dice {
    pub(super) fn new(random: Random) -> Self {
        Self { random, next: 0 }
    }

    fn advance(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// An integer below `bound`; 0 for a bound of 0.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let index = self.advance();
        self.random.below(index, bound)
    }

    /// An integer from `low` to `high`, both included.
    pub(super) fn between(&mut self, low: i32, high: i32) -> i32 {
        low + self.below((high - low + 1).unsigned_abs() as usize) as i32
    }

    /// Whether an event of this percentage happens.
    pub(super) fn percent(&mut self, percentage: usize) -> bool {
        self.below(100) < percentage
    }

    /// One of the choices; none of an empty list.
    pub(super) fn pick<T: Copy>(&mut self, choices: &[T]) -> Option<T> {
        let index = self.below(choices.len());
        choices.get(index).copied()
    }

    /// One of a fixed, non-empty list.
    pub(super) fn one_of<T: Copy, const N: usize>(&mut self, choices: &[T; N]) -> T {
        const { assert!(N > 0) };
        choices[self.below(N)]
    }

    /// One of the choices, as often as its weight says; the last where all weights are 0.
    pub(super) fn weighted<T: Copy, const N: usize>(&mut self, choices: &[(T, usize); N]) -> T {
        const { assert!(N > 0) };
        let mut at = self.below(choices.iter().map(|(_, weight)| weight).sum());
        for (choice, weight) in choices {
            match at.checked_sub(*weight) {
                Some(rest) => at = rest,
                None => return *choice,
            }
        }
        choices[N - 1].0
    }

    /// The numbers below `count` in a random order.
    pub(super) fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..count).collect();
        for last in (1..count).rev() {
            let other = self.below(last + 1);
            order.swap(last, other);
        }
        order
    }
}
