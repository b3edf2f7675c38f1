//! The people who answer: a stated model of ten annotators, so that accuracy is no plain equality.
//!
//! - Six questions in ten are clear: everybody gives the plain answer, surely.
//! - Else every annotator answers alone: in 78 % the right answer, of these a quarter in another spelling where there is
//!   one (number words, `grey`, `box`); in 17 % a near miss (a similar colour, one more or less, the contrary); in 5 %
//!   any answer of the same sort.
//! - `answer_confidence` of a right answer is `yes` in 85 %, else `maybe`; of another one `maybe` in 60 %, `no` in 20 %,
//!   `yes` in 20 %.
//! - Questions about facts are answered by five annotators, whose answers count twice, as in OK-VQA.
//! - The broad mixture has no annotators: all ten answers are the plain one.

use super::dice::Dice;
use super::queries::{UNANSWERABLE, near_miss, wrong};
use super::scene::{Color, Shape};

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Panel {
    /// Ten people.
    Ten,
    /// Five people, counted twice.
    FiveTwice,
    /// Ten times the plain answer.
    Agreed,
}

/// One of ten answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The answer as given.
    pub text: String,
    /// `yes`, `maybe` or `no`.
    pub confidence: &'static str,
}

/// Answers to every question.
pub const ANSWERS: usize = 10;

const CLEAR: usize = 60;
const RIGHT: usize = 78;
const NEAR: usize = 17;
const RESPELT: usize = 25;

/// The answers of a panel to a question whose plain answer is known.
pub(super) fn answers(plain: &str, panel: Panel, dice: &mut Dice) -> Vec<Answer> {
    let surely = || Answer { text: plain.to_owned(), confidence: "yes" };
    if panel == Panel::Agreed || dice.percent(CLEAR) {
        return vec![surely(); ANSWERS];
    }
    match panel {
        Panel::FiveTwice => {
            let five: Vec<Answer> = (0..ANSWERS / 2).map(|_| answer(plain, dice)).collect();
            five.into_iter().flat_map(|answer| [answer.clone(), answer]).collect()
        }
        Panel::Ten | Panel::Agreed => (0..ANSWERS).map(|_| answer(plain, dice)).collect(),
    }
}

/// What one annotator says about a question that is not clear.
fn answer(plain: &str, dice: &mut Dice) -> Answer {
    let sort = dice.below(100);
    if sort < RIGHT {
        let text = if dice.percent(RESPELT) { respelt(plain) } else { plain };
        return Answer { text: text.to_owned(), confidence: if dice.percent(85) { "yes" } else { "maybe" } };
    }
    let text = if sort < RIGHT + NEAR { near_miss(plain, dice) } else { wrong(plain, dice) };
    Answer { text, confidence: dice.weighted(&[("maybe", 60), ("no", 20), ("yes", 20)]) }
}

const NUMBER_WORDS: [&str; 9] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight"];

/// The same answer in another spelling, where there is one.
fn respelt(plain: &str) -> &str {
    if let Some(word) = plain.parse::<usize>().ok().and_then(|number| NUMBER_WORDS.get(number)) {
        return word;
    }
    if let Some(shape) = Shape::ALL.into_iter().find(|shape| shape.word() == plain) {
        return shape.synonym();
    }
    match plain {
        _ if plain == Color::Gray.word() => "grey",
        _ if plain == Color::Purple.word() => "violet",
        UNANSWERABLE => "unsuitable",
        _ => plain,
    }
}
