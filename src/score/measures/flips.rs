//! Flips of answers under edits of the image (IV-VQA, CV-VQA).
//!
//! As in the notebooks, an answer is right if it is one of the human answers, which all agree in these sets; text is
//! compared as it is but for white space around it. Intervals are clustered by the image that was edited.

use std::collections::BTreeMap;

use super::{Evidence, Figure, Originals};
use crate::error::Result;
use crate::score::References;
use crate::score::normalise::trimmed;

/// How the answers before and after an edit fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    /// As they should.
    Consistent,
    /// Not as they should.
    Flipped,
    /// The answer after the edit is no number.
    NotAnInteger,
}

/// Whether the answer is right before and after the edit.
#[derive(Debug, Clone, Copy)]
struct Pair {
    fit: Fit,
    before: bool,
    after: bool,
}

/// Answers that change although nothing that the question is about has changed.
pub(super) fn flips(evidence: &Evidence) -> Result<Vec<Figure>> {
    let originals = evidence.originals()?;
    let fit = |before: &str, after: &str| if before == after { Fit::Consistent } else { Fit::Flipped };
    Ok(figures(&originals, &pairs(evidence, &originals, fit)))
}

/// Counts that do not fall by one with the thing that was removed.
pub(super) fn count_flips(evidence: &Evidence) -> Result<Vec<Figure>> {
    let originals = evidence.originals()?;
    let pairs = pairs(evidence, &originals, |before, after| match integer(after) {
        None => Fit::NotAnInteger,
        Some(after) if integer(before).is_some_and(|before| Some(before) == after.checked_add(1)) => Fit::Consistent,
        Some(_) => Fit::Flipped,
    });
    let no_integer = pairs.iter().map(|pair| pair.fit == Fit::NotAnInteger);
    let no_integer = Figure::share("not an integer", no_integer, &clusters(&originals));
    let mut figures = figures(&originals, &pairs);
    figures.insert(CLASSES, no_integer);
    Ok(figures)
}

/// An integer in its usual form: `2`, but not `02` or `two`, which are not equal to a human answer `2` either.
fn integer(text: &str) -> Option<i64> {
    text.parse().ok().filter(|number: &i64| number.to_string() == text)
}

fn pairs(evidence: &Evidence, originals: &Originals, fit: impl Fn(&str, &str) -> Fit) -> Vec<Pair> {
    let pair = |(question, original): (usize, &usize)| {
        let (before, after) = (trimmed(originals.answers[*original]), trimmed(evidence.answers[question]));
        Pair {
            fit: fit(&before, &after),
            before: is_right(&before, originals.references, *original),
            after: is_right(&after, evidence.references, question),
        }
    };
    originals.of.iter().enumerate().map(pair).collect()
}

fn is_right(answer: &str, references: &References, question: usize) -> bool {
    references.answers(question).any(|reference| trimmed(reference.text) == answer)
}

/// The image that each question's image was made from.
fn clusters(originals: &Originals) -> Vec<u32> {
    originals.of.iter().map(|original| originals.clusters[*original]).collect()
}

/// Number of figures that classify edited questions.
const CLASSES: usize = 7;

fn figures(originals: &Originals, pairs: &[Pair]) -> Vec<Figure> {
    let clusters = clusters(originals);
    let share = |name, holds: fn(&Pair) -> bool| Figure::share(name, pairs.iter().map(holds), &clusters);
    let flipped = |name, before, after| {
        let holds = |pair: &Pair| pair.fit == Fit::Flipped && (pair.before, pair.after) == (before, after);
        Figure::share(name, pairs.iter().map(holds), &clusters)
    };
    let classes: [Figure; CLASSES] = [
        share("flips", |pair| pair.fit == Fit::Flipped),
        flipped("flips, wrong to right", false, true),
        flipped("flips, right to wrong", true, false),
        flipped("flips, wrong to wrong", false, false),
        flipped("flips, right to right", true, true),
        share("no flip, right", |pair| pair.fit == Fit::Consistent && pair.after),
        share("no flip, wrong", |pair| pair.fit == Fit::Consistent && !pair.after),
    ];
    let accuracies =
        [share("accuracy original, once per edit", |pair| pair.before), share("accuracy edited", |pair| pair.after)];
    classes.into_iter().chain(accuracies).chain(by_original(originals, pairs)).collect()
}

/// Each original counts once, with its own answer, with the worst and with the best of the answers after an edit.
fn by_original(originals: &Originals, pairs: &[Pair]) -> [Figure; 3] {
    let mut edits: BTreeMap<usize, Vec<Pair>> = BTreeMap::new();
    for (original, pair) in originals.of.iter().zip(pairs) {
        edits.entry(*original).or_default().push(*pair);
    }
    let clusters: Vec<u32> = edits.keys().map(|original| originals.clusters[*original]).collect();
    let share = |name, holds: fn(&Vec<Pair>) -> bool| Figure::share(name, edits.values().map(holds), &clusters);
    [
        share("accuracy original", |pairs| pairs.iter().all(|pair| pair.before)),
        share("accuracy edited, worst case", |pairs| pairs.iter().all(|pair| pair.after)),
        share("accuracy edited, best case", |pairs| pairs.iter().any(|pair| pair.after)),
    ]
}
