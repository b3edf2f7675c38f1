//! The selected sets: which questions of a pool they are, found as the sets that they stand for were.
//!
//! What is found is kept as lists beside this file, since it depends on whole pools, and on models. A list is made anew,
//! after a change of the world, by
//!
//! ```text
//! digrap-bench select-miniature miniature-cp > src/data/miniature/selection/miniature-cp.txt
//! digrap-bench select-miniature miniature-ce > src/data/miniature/selection/miniature-ce.txt
//! python benchmarks/miniature/select_adversarial.py --work DIR
//! ```
//!
//! where the script trains three models that no table evaluates, and lets them answer the pool.

mod priors;
mod shortcuts;

use super::SEED;
use super::sets::{Asked, Drawn};
use crate::data::Id;
use crate::error::{Error, Result, find_row};
use crate::score::{METRICS, ScoreOptions, score};

use priors::test_split;
use shortcuts::{Example, Kind, kinds};

/// A set whose questions are selected from a pool.
#[derive(Debug)]
pub struct Selection {
    /// Name of the set.
    pub name: &'static str,
    pool: &'static str,
    /// Whether models select it, by their answers to the questions of the pool.
    pub needs_answers: bool,
    select: Select,
}

/// Answers of a model to the questions of a pool, in their order.
type Answers = Vec<Box<str>>;

/// Finds the positions of the questions that qualify.
type Select = fn(&Pool, &[Answers]) -> Result<Vec<usize>>;

/// Every selected set.
pub static SELECTIONS: &[Selection] = &[
    Selection {
        name: "miniature-cp",
        pool: "miniature-pool",
        needs_answers: false,
        select: |pool, _| Ok(other_priors(&pool.questions)),
    },
    Selection {
        name: "miniature-ce",
        pool: "miniature-pool",
        needs_answers: false,
        select: |pool, _| counterexamples(pool),
    },
    Selection { name: "miniature-adv", pool: "miniature-adversarial-pool", needs_answers: true, select: failed },
];

/// Questions of a set: the first ones of the pool that qualify, at most so many.
const QUESTIONS: usize = 1000;

/// A pool with its questions.
struct Pool {
    drawn: Drawn,
    questions: Vec<Asked>,
}

impl Pool {
    fn new(name: &str) -> Result<Self> {
        let drawn = Drawn::find(name, SEED, 1.0)?;
        Ok(Self { questions: drawn.questions(), drawn })
    }

    /// Questions as VQA-CE's mining sees them: words, objects in the picture, answers.
    fn examples(&self) -> Result<Vec<Example>> {
        let example = |question: &Asked| {
            let scene = self.drawn.scene(&question.image_id)?;
            let mut items = shortcuts::words(&question.text);
            items.extend(scene.objects.iter().map(|object| format!("[{}]", object.shape.word())));
            let answers = question.answers.iter().map(|answer| answer.text.clone()).collect();
            Ok(Example { items, common: question.common_answer().to_owned(), answers })
        };
        self.questions.iter().map(example).collect()
    }
}

impl Selection {
    /// The selection of this set.
    ///
    /// # Errors
    /// An unknown name; the hint lists all.
    pub fn find(name: &str) -> Result<&'static Self> {
        find_row(SELECTIONS, "selected set", name, |row| vec![row.name])
    }

    /// The pool that it selects from.
    ///
    /// # Errors
    /// None but for a failure of the program.
    pub fn pool(&self) -> Result<Drawn> {
        Drawn::find(self.pool, SEED, 1.0)
    }

    /// The list of the set's questions, one identifier a line. `answers` has those of each model to the questions of
    /// the pool, in their order.
    ///
    /// # Errors
    /// Models without answers where they are needed, or too few or too many answers.
    pub fn list(&self, answers: &[Vec<Box<str>>]) -> Result<String> {
        if self.needs_answers == answers.is_empty() {
            let what = if self.needs_answers { "is selected by" } else { "does not depend on" };
            return Err(Error::input(format!("`{}` {what} answers of models", self.name)));
        }
        let pool = Pool::new(self.pool)?;
        let selected = (self.select)(&pool, answers)?;
        let line = |at: usize| match &pool.questions[at].question_id {
            Id::Number(number) => format!("{number}\n"),
            Id::Text(text) => format!("{text}\n"),
        };
        Ok(selected.into_iter().take(QUESTIONS).map(line).collect())
    }
}

/// The test part of a split in which no question type has an answer in both parts (VQA-CP).
fn other_priors(questions: &[Asked]) -> Vec<usize> {
    let keys: Vec<(&str, &str)> =
        questions.iter().map(|question| (question.question_type(), question.common_answer())).collect();
    let test = test_split(&keys);
    (0..questions.len()).filter(|question| test[*question]).collect()
}

/// Questions that only mislead those who answer by the shortcuts of the training set (VQA-CE).
fn counterexamples(pool: &Pool) -> Result<Vec<usize>> {
    let training = Pool::new("miniature-training")?.examples()?;
    let kinds = kinds(&training, &pool.examples()?);
    Ok((0..kinds.len()).filter(|question| kinds[*question] == Kind::Counterexample).collect())
}

/// Questions to which more than half of the models give an answer that none of the ten people gives (AdVQA).
fn failed(pool: &Pool, models: &[Answers]) -> Result<Vec<usize>> {
    let references = pool.drawn.dataset()?.references;
    let references = references.ok_or_else(|| Error::internal("a pool without answers"))?;
    let mut failures = vec![0; pool.questions.len()];
    for answers in models {
        let scores = score(&METRICS[0], ScoreOptions::default(), answers, &references)?;
        failures.iter_mut().zip(scores).for_each(|(count, score)| *count += usize::from(score == 0.0));
    }
    Ok((0..failures.len()).filter(|question| 2 * failures[*question] > models.len()).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    /// What a list says of the pool's questions.
    fn selected<'a>(pool: &'a Pool, list: &str) -> Vec<&'a Asked> {
        let by_id: HashMap<String, &Asked> =
            pool.questions.iter().map(|question| (question.question_id.to_json(), question)).collect();
        list.lines().map(|line| by_id[line]).collect()
    }

    #[test]
    fn kept_lists_are_what_the_selections_find() {
        for (name, kept) in
            [("miniature-cp", include_str!("miniature-cp.txt")), ("miniature-ce", include_str!("miniature-ce.txt"))]
        {
            let selection = Selection::find(name).unwrap();
            let found = selection.list(&[]).unwrap();
            assert!(
                found == kept,
                "`digrap-bench select-miniature {name}` finds another list than the one that is kept"
            );
            let pool = Pool::new(selection.pool).unwrap();
            let questions = selected(&pool, kept);
            let images: HashSet<&Id> = questions.iter().map(|question| &question.image_id).collect();
            assert!(questions.len() >= 500 && images.len() >= 150, "{name}: {} of {}", questions.len(), images.len());
        }
    }

    /// Rules of up to two items, mined by plain counting.
    fn small_rules(training: &[Example]) -> HashMap<Vec<String>, String> {
        let mut counts: HashMap<Vec<String>, HashMap<&str, usize>> = HashMap::new();
        for example in training {
            for itemset in small_itemsets(example) {
                *counts.entry(itemset).or_default().entry(&example.common).or_default() += 1;
            }
        }
        let rule = |(itemset, answers): (Vec<String>, HashMap<&str, usize>)| {
            let total: usize = answers.values().sum();
            // Of equally frequent answers the first in the alphabet.
            let best =
                answers.into_iter().max_by(|left, right| left.1.cmp(&right.1).then(right.0.cmp(left.0))).unwrap();
            (best.1 >= 10 && best.1 as f64 / total as f64 >= 0.3).then(|| (itemset, best.0.to_owned()))
        };
        counts.into_iter().filter_map(rule).collect()
    }

    fn small_itemsets(example: &Example) -> Vec<Vec<String>> {
        let items: std::collections::BTreeSet<&String> = example.items.iter().collect();
        let items: Vec<&String> = items.into_iter().collect();
        let pairs = items.iter().enumerate().flat_map(|(at, left)| {
            items[at + 1..].iter().map(|right| vec![(*left).clone(), (*right).clone()]).collect::<Vec<_>>()
        });
        std::iter::once(Vec::new()).chain(items.iter().map(|item| vec![(*item).clone()])).chain(pairs).collect()
    }

    #[test]
    fn rules_of_up_to_two_items_all_mislead_about_counterexamples() {
        let pool = Pool::new("miniature-pool").unwrap();
        let rules = small_rules(&Pool::new("miniature-training").unwrap().examples().unwrap());
        let kept: HashSet<&str> = include_str!("miniature-ce.txt").lines().collect();
        let examples = pool.examples().unwrap();
        let (mut misled, mut helped) = (0, 0);
        for (question, example) in pool.questions.iter().zip(&examples) {
            let answers: Vec<&String> = small_itemsets(example).iter().filter_map(|items| rules.get(items)).collect();
            let helps = answers.iter().any(|answer| example.answers.contains(answer));
            if kept.contains(question.question_id.to_json().as_str()) {
                assert!(!helps, "{}: {answers:?} of {:?}", question.text, example.answers);
                misled += usize::from(!answers.is_empty());
            } else {
                helped += usize::from(helps);
            }
        }
        assert!(misled > 900 && helped > 10_000, "{misled} misled, {helped} helped");
    }

    /// Answers to every question of the pool: the most frequent ones, or others that nobody gives.
    fn model(pool: &Pool, is_right: impl Fn(usize) -> bool) -> Answers {
        let answer = |at: usize| if is_right(at) { pool.questions[at].common_answer() } else { "nobody" };
        (0..pool.questions.len()).map(|at| answer(at).into()).collect()
    }

    #[test]
    fn a_majority_of_models_selects() {
        let selection = Selection::find("miniature-adv").unwrap();
        let pool = Pool::new(selection.pool).unwrap();
        let models = [model(&pool, |_| true), model(&pool, |at| at % 2 == 0), model(&pool, |at| at % 3 == 0)];
        let list = selection.list(&models).unwrap();
        // Two of three are wrong where neither 2 nor 3 divides the position.
        let expected = (0..).filter(|at| at % 2 != 0 && at % 3 != 0).take(QUESTIONS);
        let ids: Vec<String> = expected.map(|at: usize| pool.questions[at].question_id.to_json()).collect();
        assert_eq!(list.lines().collect::<Vec<_>>(), ids);
        // One of two is no majority.
        assert_eq!(selection.list(&[models[0].clone(), model(&pool, |_| false)]).unwrap(), "");
        let error = selection.list(&[]).unwrap_err();
        assert_eq!(error.to_string(), "`miniature-adv` is selected by answers of models");
        let error = Selection::find("miniature-cp").unwrap().list(&models).unwrap_err();
        assert_eq!(error.to_string(), "`miniature-cp` does not depend on answers of models");
    }
}
