//! The mining of VQA-CE (Dancette et al. 2021, Beyond Question-Based Biases; cdancette/detect-shortcuts, vqa.py).
//!
//! A rule is a set of items (words of the question, objects in the picture) with the answer that is most frequent among
//! the training questions that have all of them. The original also drops rules that a smaller rule with the same answer
//! makes needless; that changes no question's kind, since whatever fires a dropped rule fires the smaller one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Training questions that have the items and the answer of a rule, at the least. VQA-CE asks for a share of 2.1e-5, which
/// is ten of VQAv2's 443,757 training questions; the same share of a small set would be less than one.
const SUPPORT: usize = 10;

/// Share of the training questions with the items of a rule that have its answer, at the least.
const CONFIDENCE: f64 = 0.3;

/// Items of a rule at the most; with its answer these are five.
const ITEMS: usize = 4;

/// A question as items with its answers.
#[derive(Debug, Clone)]
pub(super) struct Example {
    /// Words of the question and objects in the picture; repetitions are ignored.
    pub items: Vec<String>,
    /// The most frequent answer.
    pub common: String,
    /// All answers.
    pub answers: Vec<String>,
}

/// What shortcuts do for a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Rules fire, and all lead to answers that nobody gave.
    Counterexample,
    /// A rule leads to one of the answers.
    Easy,
    /// No rule fires.
    Hard,
}

/// The words of a question, and its punctuation marks as words of their own.
pub(super) fn words(question: &str) -> Vec<String> {
    let spaced: String = question.to_lowercase().chars().fold(String::new(), |mut spaced, character| {
        if character.is_alphanumeric() || character == '\'' {
            spaced.push(character);
        } else {
            spaced.extend([' ', character, ' ']);
        }
        spaced
    });
    spaced.split_whitespace().map(str::to_owned).collect()
}

/// Mines rules from `training` and says what they do for each question of `pool`.
pub(super) fn kinds(training: &[Example], pool: &[Example]) -> Vec<Kind> {
    let mut miner = Miner::new(training, pool);
    let everything = Occurrences { training: Bits::full(training.len()), pool: Bits::full(pool.len()) };
    miner.fire(&everything);
    let items = miner.frequent_items(training, pool);
    miner.grow(&items, 1);
    miner.kinds
}

/// A set of questions.
#[derive(Clone)]
struct Bits(Vec<u64>);

impl Bits {
    fn empty(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    fn full(count: usize) -> Self {
        let mut bits = Self::empty(count);
        (0..count).for_each(|at| bits.insert(at));
        bits
    }

    fn insert(&mut self, at: usize) {
        self.0[at / 64] |= 1 << (at % 64);
    }

    fn common(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(left, right)| left & right).collect())
    }

    fn common_count(&self, other: &Self) -> usize {
        self.0.iter().zip(&other.0).map(|(left, right)| (left & right).count_ones() as usize).sum()
    }

    fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(word, bits)| {
            let rest = |bits: &u64| Some(bits & (bits - 1)).filter(|rest| *rest != 0);
            let ones = std::iter::successors(Some(*bits).filter(|bits| *bits != 0), rest);
            ones.map(move |bits| 64 * word + bits.trailing_zeros() as usize)
        })
    }
}

/// The questions that have some items.
#[derive(Clone)]
struct Occurrences {
    training: Bits,
    pool: Bits,
}

struct Miner {
    /// The number of the most frequent answer of each training question; answers are numbered in alphabetical order.
    answers: Vec<u32>,
    /// The numbers of the answers of each question of the pool.
    pool_answers: Vec<BTreeSet<u32>>,
    kinds: Vec<Kind>,
    /// How often each answer occurs, while one rule is looked at.
    counts: Vec<usize>,
}

impl Miner {
    fn new(training: &[Example], pool: &[Example]) -> Self {
        let names: BTreeSet<&str> = training.iter().map(|example| example.common.as_str()).collect();
        let numbers: HashMap<&str, u32> = names.into_iter().zip(0..).collect();
        let known = |example: &Example| {
            example.answers.iter().filter_map(|answer| numbers.get(answer.as_str()).copied()).collect()
        };
        Self {
            answers: training.iter().map(|example| numbers[example.common.as_str()]).collect(),
            pool_answers: pool.iter().map(known).collect(),
            kinds: vec![Kind::Hard; pool.len()],
            counts: vec![0; numbers.len()],
        }
    }

    /// Where each item occurs that is frequent enough for a rule.
    fn frequent_items(&self, training: &[Example], pool: &[Example]) -> Vec<Occurrences> {
        let none = || Occurrences { training: Bits::empty(training.len()), pool: Bits::empty(pool.len()) };
        let mut items: BTreeMap<&str, Occurrences> = BTreeMap::new();
        for (at, example) in training.iter().enumerate() {
            example.items.iter().for_each(|item| items.entry(item).or_insert_with(none).training.insert(at));
        }
        for (at, example) in pool.iter().enumerate() {
            for item in &example.items {
                if let Some(occurrences) = items.get_mut(item.as_str()) {
                    occurrences.pool.insert(at);
                }
            }
        }
        let frequent = |occurrences: &Occurrences| occurrences.training.iter().nth(SUPPORT - 1).is_some();
        items.into_values().filter(frequent).collect()
    }

    /// Fires the rules of these item sets, and of all that have more of their items.
    fn grow(&mut self, siblings: &[Occurrences], length: usize) {
        for (at, occurrences) in siblings.iter().enumerate() {
            self.fire(occurrences);
            if length == ITEMS {
                continue;
            }
            let larger = siblings[at + 1..].iter().filter(|other| {
                occurrences.training.common_count(&other.training) >= SUPPORT
                    && occurrences.pool.common_count(&other.pool) > 0
            });
            let join = |other: &Occurrences| Occurrences {
                training: occurrences.training.common(&other.training),
                pool: occurrences.pool.common(&other.pool),
            };
            let larger: Vec<Occurrences> = larger.map(join).collect();
            self.grow(&larger, length + 1);
        }
    }

    /// Marks the questions of the pool that the rule of an item set is about.
    fn fire(&mut self, occurrences: &Occurrences) {
        let Some(answer) = self.rule(&occurrences.training) else { return };
        for question in occurrences.pool.iter() {
            if self.pool_answers[question].contains(&answer) {
                self.kinds[question] = Kind::Easy;
            } else if self.kinds[question] == Kind::Hard {
                self.kinds[question] = Kind::Counterexample;
            }
        }
    }

    /// The most frequent answer of these training questions, of several the first, if it makes a rule.
    fn rule(&mut self, training: &Bits) -> Option<u32> {
        let mut total = 0;
        for question in training.iter() {
            self.counts[self.answers[question] as usize] += 1;
            total += 1;
        }
        let best = (0..self.counts.len()).rev().max_by_key(|answer| self.counts[*answer])?;
        let count = self.counts[best];
        self.counts.fill(0);
        (count >= SUPPORT && count as f64 >= CONFIDENCE * total as f64).then_some(best as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example(items: &str, common: &str, answers: &[&str]) -> Example {
        Example {
            items: items.split(' ').map(str::to_owned).collect(),
            common: common.to_owned(),
            answers: answers.iter().map(|answer| (*answer).to_owned()).collect(),
        }
    }

    fn repeated(count: usize, items: &str, common: &str) -> Vec<Example> {
        vec![example(items, common, &[common]); count]
    }

    #[test]
    fn words_and_marks_are_apart() {
        assert_eq!(words("What's the Colour, here?"), ["what's", "the", "colour", ",", "here", "?"]);
    }

    #[test]
    fn kinds_follow_from_the_rules_that_fire() {
        // Twelve bananas are yellow and nine green: {banana} -> yellow. Of 33 grapes 12 are none, 11 red, 10 blue: {grape}
        // -> none, and {grape, sweet} -> none. Nine cherries are too few for a rule, alone or with other words. No answer
        // has three tenths of all 84 questions.
        let training = [
            repeated(12, "what banana", "yellow"),
            repeated(9, "what banana", "green"),
            repeated(10, "how grape", "blue"),
            repeated(11, "how grape", "red"),
            repeated(12, "how grape sweet", "none"),
            repeated(9, "where cherry", "tree"),
            repeated(21, "why plum", "1"),
        ]
        .concat();
        let pool = [
            example("what banana", "yellow", &["green", "yellow"]),
            example("what banana", "green", &["green"]),
            example("where cherry", "tree", &["tree"]),
            example("never seen", "yellow", &["yellow"]),
            example("how grape sweet", "none", &["red"]),
        ];
        let expected = [Kind::Easy, Kind::Counterexample, Kind::Hard, Kind::Hard, Kind::Counterexample];
        assert_eq!(kinds(&training, &pool), expected);
    }

    #[test]
    fn a_rule_has_up_to_four_items() {
        // Ten questions have all of some items and the answer `all`. For each item left out there are thirty more, with
        // three answers ten times each: with one item less, `all` has ten of forty.
        let around = |items: &str| {
            let whole: Vec<&str> = items.split(' ').collect();
            let mut examples = repeated(10, items, "all");
            for left_out in &whole {
                let rest: Vec<&str> = whole.iter().copied().filter(|item| item != left_out).collect();
                for number in 0..3 {
                    examples.extend(repeated(10, &rest.join(" "), &format!("{left_out}{number}")));
                }
            }
            examples
        };
        let training = [around("a b c d e"), around("f g h i")].concat();
        let pool = [example("a b c d e", "all", &["all"]), example("f g h i", "all", &["all"])];
        assert_eq!(kinds(&training, &pool), [Kind::Hard, Kind::Easy]);
    }
}
