//! Answer normalisers and metrics: strings and numbers in, numbers out.
//!
//! VQA accuracy compares one predicted string with several human answers. Each published evaluator normalises
//! a little differently; [`METRICS`] has one row for each. [`MEASURES`] has one row for each further figure that datasets
//! are made for. This room reads no file and knows no dataset.

mod measures;
pub mod normalise;
mod references;
mod summary;
mod symbols;

use std::borrow::Cow;
use std::collections::HashMap;
use std::num::NonZero;

pub use measures::{
    Evidence, Figure, Groups, MEASURES, Measure, Measurement, Needs, Originals, Parts, average_precision, f1,
    find_measure,
};
pub use references::{AnswerId, Builder, Reference, References};
pub use summary::{Group, Summary, grouped_type, summarise};

use crate::error::{Error, Result, find_row};
use references::Given;
use symbols::Symbols;

/// One way to compute VQA accuracy. Adding a metric is adding a row to [`METRICS`].
#[derive(Debug)]
pub struct Metric {
    /// Name on the command line and in stored scores.
    pub name: &'static str,
    /// Further names that find this row.
    pub aliases: &'static [&'static str],
    /// One sentence for `list metrics`.
    pub about: &'static str,
    /// The evaluator that defines it: repository and file.
    pub source: &'static str,
    /// What becomes of a predicted answer before it is compared.
    pub prediction: Text,
    /// What becomes of a human answer before it is compared.
    pub answer: Text,
    accuracy: fn(&[Given], Option<u32>, ScoreOptions) -> f64,
}

/// How a metric turns a string into what it compares.
#[derive(Debug)]
pub struct Text {
    /// The text where normalisation is off.
    pub plain: fn(&str) -> Cow<'_, str>,
    /// The text where normalisation is on.
    pub normalised: fn(&str) -> String,
    /// For which questions it is on.
    pub when: When,
}

/// For which questions a string is normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Every question.
    Always,
    /// Questions whose human answers, as plain text, are not all the same.
    AnswersDiffer,
    /// No question.
    Never,
}

/// Departures from a metric's definition that reproduce published numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScoreOptions {
    /// Leave out every answer object that *equals* the current one (same normalised text, confidence and
    /// identifier), as the official code and LAVIS do, instead of the current one alone. It differs only for answers
    /// without a unique `answer_id`.
    pub dict_equality: bool,
}

const OFFICIAL_TEXT: Text =
    Text { plain: normalise::trimmed, normalised: normalise::official, when: When::AnswersDiffer };

/// Every VQA metric, the default first.
pub static METRICS: &[Metric] = &[
    Metric {
        name: "official-2021",
        aliases: &["official", "vqa"],
        about: "VQA accuracy of the official evaluator since 2021: nothing is normalised where all human answers agree",
        source: "GT-Vision-Lab/VQA, PythonEvaluationTools/vqaEvaluation/vqaEval.py",
        prediction: OFFICIAL_TEXT,
        answer: OFFICIAL_TEXT,
        accuracy: leave_one_out,
    },
    Metric {
        name: "lavis",
        aliases: &["official-2017"],
        about: "VQA accuracy of LAVIS and the paper: predictions always normalised, human answers by punctuation alone",
        source: "salesforce/LAVIS, lavis/common/vqa_tools/vqa_eval.py",
        prediction: Text { plain: normalise::trimmed, normalised: normalise::official, when: When::Always },
        answer: Text {
            plain: unchanged,
            normalised: |text| normalise::punctuation(text, normalise::Comma::One),
            when: When::AnswersDiffer,
        },
        accuracy: leave_one_out,
    },
    Metric {
        name: "evalai",
        aliases: &["textvqa"],
        about: "VQA accuracy of TextVQA and EvalAI: everything normalised, commas and question marks removed first",
        source: "facebookresearch/mmf, mmf/utils/m4c_evaluators.py",
        prediction: Text { plain: unchanged, normalised: normalise::evalai, when: When::Always },
        answer: Text { plain: unchanged, normalised: normalise::evalai, when: When::Always },
        accuracy: leave_one_out,
    },
    Metric {
        name: "vizwiz",
        aliases: &[],
        about: "VQA accuracy of the VizWiz API: predictions normalised, human answers taken as they are",
        source: "VizWiz API, vqaEvaluation/vqaEval.py (vizwiz.org)",
        prediction: Text { plain: normalise::trimmed, normalised: normalise::vizwiz, when: When::Always },
        answer: Text { plain: unchanged, normalised: normalise::vizwiz, when: When::Never },
        accuracy: leave_one_out,
    },
    Metric {
        name: "lmms-eval-vqav2",
        aliases: &[],
        about: "VQA accuracy of lmms-eval's VQAv2 task: everything normalised, whether or not the answers agree",
        source: "EvolvingLMMs-Lab/lmms-eval, lmms_eval/tasks/vqav2/utils.py",
        prediction: Text { plain: normalise::trimmed, normalised: normalise::lmms_eval, when: When::Always },
        answer: Text { plain: normalise::trimmed, normalised: normalise::lmms_eval, when: When::Always },
        accuracy: leave_one_out,
    },
    Metric {
        name: "simple",
        aliases: &[],
        about: "min(n / 3, 1) for n equal human answers, after the official normalisation",
        source: "Antol et al. 2015, VQA: Visual Question Answering, section 3 (without leave-one-out)",
        prediction: OFFICIAL_TEXT,
        answer: OFFICIAL_TEXT,
        accuracy: third_of_matches,
    },
];

/// The metric with this name or alias.
///
/// # Errors
/// An unknown name; the hint lists all.
pub fn find_metric(name: &str) -> Result<&'static Metric> {
    find_row(METRICS, "metric", name, |metric| {
        std::iter::once(metric.name).chain(metric.aliases.iter().copied()).collect()
    })
}

impl Metric {
    /// Accuracy, 0 to 1, of one prediction against the human answers of its question.
    ///
    /// # Errors
    /// No answers.
    pub fn score_one(&self, prediction: &str, answers: &[&str]) -> Result<f64> {
        let mut builder = References::builder();
        for (number, answer) in (1..).zip(answers) {
            builder.answer(answer, None, Some(AnswerId::Number(number)))?;
        }
        builder.end_question(None, None)?;
        let scores = score(self, ScoreOptions::default(), &[prediction], &builder.finish())?;
        scores.first().copied().ok_or_else(|| Error::internal("one question gave no score"))
    }
}

/// Accuracy, 0 to 1, of every prediction against the references at the same position.
///
/// Each distinct string is normalised once; the work is shared by up to eight threads, and the result does not depend
/// on their number.
///
/// # Errors
/// Different numbers of predictions and questions.
pub fn score<S: AsRef<str> + Sync>(
    metric: &Metric,
    options: ScoreOptions,
    predictions: &[S],
    references: &References,
) -> Result<Vec<f64>> {
    if predictions.len() != references.len() {
        let (given, asked) = (predictions.len(), references.len());
        return Err(Error::incomplete(format!("{given} predictions for {asked} questions")));
    }
    let prepared = Prepared::new(metric, references);
    let scores = in_parallel(predictions.len(), |range| {
        let mut texts = HashMap::new();
        let mut answers = Vec::new();
        let one = range.map(|question| {
            let prediction = predictions[question].as_ref();
            let texts = *texts.entry(prediction).or_insert_with(|| prepared.prediction(metric, prediction));
            let differ = prepared.question(metric, references.given(question), &mut answers);
            (metric.accuracy)(&answers, texts.of(metric.prediction.when, differ), options)
        });
        one.collect()
    });
    Ok(scores)
}

/// The compared texts of all human answers of a metric, as numbers.
struct Prepared {
    ids: Symbols,
    /// Plain and normalised text of each symbol of the references; the one a metric never uses is left out.
    answers: Vec<Pair>,
}

/// A string's plain and normalised text, where it is among the compared texts.
#[derive(Debug, Clone, Copy)]
struct Pair {
    plain: Option<u32>,
    normalised: Option<u32>,
}

impl Pair {
    fn of(self, when: When, answers_differ: bool) -> Option<u32> {
        match when {
            When::Always => self.normalised,
            When::AnswersDiffer if answers_differ => self.normalised,
            When::AnswersDiffer | When::Never => self.plain,
        }
    }
}

impl Prepared {
    fn new(metric: &Metric, references: &References) -> Self {
        let symbols = references.symbols();
        let rule = &metric.answer;
        let texts = in_parallel(symbols.len(), |range| {
            let texts = range.map(|symbol| {
                let text = symbols.get(symbol as u32);
                let plain = (rule.when != When::Always).then(|| (rule.plain)(text));
                let normalised = (rule.when != When::Never).then(|| (rule.normalised)(text));
                (plain, normalised)
            });
            texts.collect()
        });
        let mut ids = Symbols::default();
        let pair = |(plain, normalised): &(Option<Cow<'_, str>>, Option<String>)| Pair {
            plain: plain.as_deref().map(|text| ids.intern(text)),
            normalised: normalised.as_deref().map(|text| ids.intern(text)),
        };
        let answers = texts.iter().map(pair).collect();
        Self { ids, answers }
    }

    fn prediction(&self, metric: &Metric, text: &str) -> Pair {
        let rule = &metric.prediction;
        Pair { plain: self.ids.find(&(rule.plain)(text)), normalised: self.ids.find(&(rule.normalised)(text)) }
    }

    /// Writes the question's compared answers to `answers` and says whether its plain texts differ.
    fn question(&self, metric: &Metric, given: &[Given], answers: &mut Vec<Given>) -> bool {
        let pair = |answer: &Given| self.answers[answer.text as usize];
        let differ = given.windows(2).any(|two| pair(&two[0]).plain != pair(&two[1]).plain);
        answers.clear();
        answers.extend(given.iter().map(|answer| {
            let text = pair(answer).of(metric.answer.when, differ).unwrap_or(u32::MAX);
            Given { text, ..*answer }
        }));
        differ
    }
}

/// Mean over the human answers of min(1, matches among the *other* answers / 3).
///
/// The order of the additions is the evaluators', so that sums agree to the last bit.
fn leave_one_out(answers: &[Given], prediction: Option<u32>, options: ScoreOptions) -> f64 {
    let Some(prediction) = prediction else { return 0.0 };
    let all = answers.iter().filter(|answer| answer.text == prediction).count();
    let matches_without = |left_out: &Given| {
        if options.dict_equality {
            answers.iter().filter(|other| other.text == prediction && *other != left_out).count()
        } else {
            all - usize::from(left_out.text == prediction)
        }
    };
    let sum = answers.iter().fold(0.0, |sum, answer| sum + (matches_without(answer) as f64 / 3.0).min(1.0));
    sum / answers.len() as f64
}

fn third_of_matches(answers: &[Given], prediction: Option<u32>, _: ScoreOptions) -> f64 {
    let matches = answers.iter().filter(|answer| Some(answer.text) == prediction).count();
    (matches as f64 / 3.0).min(1.0)
}

fn unchanged(text: &str) -> Cow<'_, str> {
    Cow::Borrowed(text)
}

/// Runs `work` on consecutive ranges of `0..count`, one a thread, and joins what it returns in order.
fn in_parallel<T: Send>(count: usize, work: impl Fn(std::ops::Range<usize>) -> Vec<T> + Sync) -> Vec<T> {
    // Below this many items a thread costs more than it saves.
    const WORTH_A_THREAD: usize = 2048;
    let threads =
        std::thread::available_parallelism().map_or(1, NonZero::get).min(8).min(count / WORTH_A_THREAD).max(1);
    let share = count.div_ceil(threads).max(1);
    let range = |thread: usize| (thread * share).min(count)..((thread + 1) * share).min(count);
    std::thread::scope(|scope| {
        let work = &work;
        let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || work(range(thread)))).collect();
        let mut joined = work(range(0));
        for other in others {
            match other.join() {
                Ok(part) => joined.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        joined
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(metric: &str, prediction: &str, answers: &[&str]) -> f64 {
        find_metric(metric).unwrap().score_one(prediction, answers).unwrap()
    }

    fn with_matches(count: usize) -> Vec<&'static str> {
        (0..10).map(|index| if index < count { "x" } else { "y" }).collect()
    }

    #[test]
    fn accuracy_by_number_of_matches() {
        for (count, expected) in [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)] {
            assert!((one("official-2021", "x", &with_matches(count)) - expected).abs() < 1e-12, "{count} matches");
        }
        for (count, expected) in [(0, 0.0), (1, 1.0 / 3.0), (2, 2.0 / 3.0), (3, 1.0), (10, 1.0)] {
            assert!((one("simple", "x", &with_matches(count)) - expected).abs() < 1e-12, "{count} matches, simple");
        }
    }

    #[test]
    fn agreement_switches_normalisation_off_in_the_official_metric_only() {
        let all_yes = ["yes"; 10];
        let scores: Vec<f64> = METRICS.iter().map(|metric| metric.score_one("Yes.", &all_yes).unwrap()).collect();
        assert_eq!(scores, [0.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn answers_that_lavis_can_never_match() {
        let mut answers = vec!["Two"; 9];
        answers.push("three");
        assert_eq!((one("lavis", "Two", &answers), one("official-2021", "Two", &answers)), (0.0, 1.0));
    }

    #[test]
    fn leaving_out_equal_objects_differs_from_leaving_out_one() {
        let mut builder = References::builder();
        for (text, confidence) in [("x", "yes"); 6].into_iter().chain([("x", "maybe"); 2]).chain([("y", "yes"); 2]) {
            builder.answer(text, Some(confidence), None).unwrap();
        }
        builder.end_question(None, None).unwrap();
        for _ in 0..10 {
            builder.answer("x", Some("yes"), None).unwrap();
        }
        builder.end_question(None, None).unwrap();
        let references = builder.finish();
        let by = |dict_equality| score(&METRICS[0], ScoreOptions { dict_equality }, &["x", "x"], &references).unwrap();
        assert_eq!(by(false), [1.0, 1.0]);
        assert!((by(true)[0] - 0.8).abs() < 1e-12);
        assert_eq!(by(true)[1], 0.0);
    }

    #[test]
    fn many_questions_score_as_single_ones() {
        let words = ["cat", "The cat", "cats", "2", "two", "cant", "can't", "U.S.A."];
        let mut builder = References::builder();
        let mut predictions = Vec::new();
        let mut expected = Vec::new();
        for question in 0..5000 {
            let answers: Vec<&str> = (0..10).map(|index| words[(question * 7 + index * (question % 3)) % 8]).collect();
            answers.iter().for_each(|answer| builder.answer(answer, None, None).unwrap());
            builder.end_question(None, None).unwrap();
            predictions.push(words[question % 8]);
            expected.push(one("lavis", words[question % 8], &answers));
        }
        let scores = score(&METRICS[1], ScoreOptions::default(), &predictions, &builder.finish()).unwrap();
        assert_eq!(scores, expected);
        assert!(scores.iter().any(|&score| score > 0.0 && score < 1.0));
    }

    #[test]
    fn names_are_unique_and_found() {
        let names: Vec<&str> = METRICS.iter().flat_map(|row| row.aliases.iter().copied().chain([row.name])).collect();
        assert!(names.iter().all(|name| names.iter().filter(|other| *other == name).count() == 1));
        assert_eq!(find_metric("official-2017").unwrap().name, "lavis");
        assert_eq!(find_metric("nope").unwrap_err().to_string(), "unknown metric `nope`");
    }

    #[test]
    fn predictions_must_match_the_questions() {
        let error = score(&METRICS[0], ScoreOptions::default(), &["x"], &References::default()).unwrap_err();
        assert_eq!(error.to_string(), "1 predictions for 0 questions");
    }
}
