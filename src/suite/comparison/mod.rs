//! Compares two runs on the same questions, and judges whether the current one has become worse.
//!
//! Both are scored anew from their raw answers, by one metric and the human answers at hand, so that what differs between
//! them is what the models said. Runs that were asked otherwise are refused.

mod baseline;
mod difference;
mod run;
mod thresholds;
mod verdict;

use std::collections::HashSet;

use serde::Serialize;

use self::run::{Place, told};
use super::evaluation::{PlannedDataset, question_set};
use crate::error::{Error, Result};
use crate::store::AnswerSettings;

pub use baseline::{Baseline, BaselineDataset, Blessed, bless};
pub use difference::{Accuracy, AnsweredTwice, DatasetComparison, Flip, Flips, Outcome, POWER, compare_answers};
pub use run::Run;
pub use thresholds::{Limits, Thresholds};
pub use verdict::{Verdict, verdict};

/// Two runs compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// What is said and how the program exits.
    pub verdict: Verdict,
    /// Whether it passes.
    pub passes: bool,
    /// Level of the tests, for all datasets together.
    pub level: f64,
    /// The run that is compared with.
    pub baseline: Side,
    /// The run that is judged.
    pub current: Side,
    /// What else decides answers and differs.
    pub differing: Vec<Differing>,
    /// What is to be known besides.
    pub notes: Vec<String>,
    /// Each dataset.
    pub datasets: Vec<DatasetComparison>,
}

/// A run that was compared.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Side {
    /// As it was named.
    pub source: String,
    /// Name of the model.
    pub model: String,
    /// What decided the answers besides the questions.
    pub settings: AnswerSettings,
}

/// A setting in which two runs differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Differing {
    /// The setting.
    pub what: String,
    /// That of the baseline.
    pub baseline: String,
    /// That of the current run.
    pub current: String,
}

/// Compares the current run with the baseline on these datasets; up to so many `examples` of questions whose score fell, and
/// of others whose score rose, are kept of each.
///
/// # Errors
/// Runs that are not comparable: other questions, metric, prompt or decoding, or not all answers; all reasons are told.
/// Unreadable answers, and datasets without human answers.
pub fn compare(
    planned: &[PlannedDataset],
    [baseline, current]: [&Run; 2],
    thresholds: &Thresholds,
    examples: usize,
) -> Result<Comparison> {
    check_distinct(planned, [baseline, current])?;
    check_comparable(planned, [baseline, current])?;
    let answers = |run: &Run| planned.iter().map(|one| run.answers(&one.dataset)).collect::<Result<Vec<_>>>();
    let (before, after) = (answers(baseline)?, answers(current)?);
    let answered: Vec<AnsweredTwice> = planned
        .iter()
        .zip(before.iter().zip(&after))
        .map(|(planned, (baseline, current))| AnsweredTwice { planned, baseline, current })
        .collect();
    let datasets = compare_answers(&answered, thresholds, examples)?;
    let verdict = verdict(&datasets);
    Ok(Comparison {
        passes: verdict.exit_code() == 0,
        verdict,
        level: thresholds.level,
        differing: differing([baseline, current]),
        notes: notes(baseline, &datasets),
        baseline: Side::of(baseline),
        current: Side::of(current),
        datasets,
    })
}

impl Side {
    fn of(run: &Run) -> Self {
        Self { source: run.source.clone(), model: run.model.clone(), settings: run.settings.clone() }
    }
}

/// Refuses to compare a run with itself, or a dataset twice.
fn check_distinct(planned: &[PlannedDataset], [baseline, current]: [&Run; 2]) -> Result<()> {
    if baseline.is_same(current) {
        return Err(Error::input(format!("`{}` and `{}` are one and the same run", baseline.source, current.source))
            .hint("give --current the output folder of another run of `digrap-bench vqa`"));
    }
    let mut seen = HashSet::new();
    match planned.iter().find(|one| !seen.insert(&one.dataset.name)) {
        Some(twice) => {
            Err(Error::input(format!("the dataset `{}` is given twice", twice.dataset.name)).hint("give each one once"))
        }
        None => Ok(()),
    }
}

/// Most datasets that a refusal tells one kind of reason of.
const TOLD: usize = 3;

fn check_comparable(planned: &[PlannedDataset], runs: [&Run; 2]) -> Result<()> {
    let (questions, here_alone) = other_questions(planned, runs);
    let kinds = [questions, other_metrics(planned, runs), left_out(planned, runs), asked_otherwise(runs)];
    let mut found = kinds.iter().enumerate().filter(|(_, reasons)| !reasons.is_empty()).map(|(kind, _)| kind);
    let hint = match (found.next(), found.next()) {
        (None, _) => return Ok(()),
        (Some(0), None) if here_alone => {
            "give --limit N where only the first N were asked, else the dataset's files as they were then"
        }
        (Some(1), None) => {
            "name the metric of the baseline with --metric, or make the current run the baseline with --bless"
        }
        (Some(2), None) => "compare all datasets of the baseline, or make the current run the baseline with --bless",
        _ => "evaluate both in the same way with `digrap-bench vqa`, or make the current run the baseline with --bless",
    };
    let reasons: Vec<String> = kinds.into_iter().flat_map(few).collect();
    let [baseline, current] = runs.map(|run| &run.source);
    let what = format!("`{baseline}` and `{current}` cannot be compared: {}", reasons.join("; "));
    Err(Error::incomplete(what).hint(hint))
}

/// The first reasons, and how many more there are.
fn few(mut reasons: Vec<String>) -> Vec<String> {
    if reasons.len() > TOLD {
        let more = format!("{} more such", reasons.len() - TOLD);
        reasons.truncate(TOLD);
        reasons.push(more);
    }
    reasons
}

/// The datasets whose questions are not the same in both runs and here; and whether they are the same in both runs at least.
fn other_questions(planned: &[PlannedDataset], runs: [&Run; 2]) -> (Vec<String>, bool) {
    let (mut reasons, mut here_alone) = (Vec::new(), true);
    for PlannedDataset { dataset, .. } in planned {
        let at_hand = question_set(dataset);
        let [baseline, current] = runs.map(|run| run.questions(&at_hand));
        if [baseline, current] == [Some(&at_hand); 2] {
            continue;
        }
        here_alone &= baseline.is_some() && baseline == current;
        let [baseline, current] = [baseline, current].map(|set| set.map_or_else(|| "none".to_owned(), told));
        let (name, here) = (&dataset.name, told(&at_hand));
        reasons.push(format!(
            "questions of `{name}`: {baseline} in the baseline, {current} in the current run, {here} here"
        ));
    }
    (reasons, here_alone)
}

/// Datasets of a baseline that are not compared: a store may hold anything besides, but what a baseline has was chosen.
fn left_out(planned: &[PlannedDataset], runs: [&Run; 2]) -> Vec<String> {
    let compared = |name: &str| planned.iter().any(|one| one.dataset.name == name);
    let mut reasons = Vec::new();
    for run in runs {
        if let Place::Baseline(_, baseline) = &run.place {
            let left_out = baseline.datasets.iter().filter(|one| !compared(&one.dataset));
            reasons.extend(left_out.map(|one| format!("`{}` is in `{}` and left out here", one.dataset, run.source)));
        }
    }
    reasons
}

fn other_metrics(planned: &[PlannedDataset], runs: [&Run; 2]) -> Vec<String> {
    let mut reasons = Vec::new();
    for run in runs {
        for PlannedDataset { dataset, metric, .. } in planned {
            if let Some(recorded) = run.recorded(&dataset.name).filter(|recorded| recorded.metric != metric.name) {
                let (name, source) = (&dataset.name, &run.source);
                reasons.push(format!("metric of `{name}`: {} in `{source}`, {} here", recorded.metric, metric.name));
            }
        }
    }
    reasons
}

/// In what the questions were put otherwise, or answers searched for otherwise.
fn asked_otherwise(runs: [&Run; 2]) -> Vec<String> {
    let asked = |run: &Run| {
        let AnswerSettings { prompt, decoding, max_new_tokens, .. } = run.settings.clone();
        [("prompt", prompt), ("decoding", decoding), ("max-new-tokens", max_new_tokens.to_string())]
    };
    let [baseline, current] = runs.map(asked);
    let differing = baseline.into_iter().zip(current).filter(|(baseline, current)| baseline.1 != current.1);
    differing
        .map(|((what, baseline), (_, current))| {
            format!("{what}: `{baseline}` in the baseline, `{current}` in the current run")
        })
        .collect()
}

/// What decides answers and may differ between runs that are comparable.
fn differing(runs: [&Run; 2]) -> Vec<Differing> {
    let settings = |run: &Run| {
        let AnswerSettings { weights, configuration, tokenizer, dtype, provider, .. } = run.settings.clone();
        let AnswerSettings { runtime_version, preprocessing, program_version, .. } = run.settings.clone();
        [
            ("model", run.model.clone()),
            ("weights", weights),
            ("configuration", configuration),
            ("tokenizer", tokenizer),
            ("preprocessing", preprocessing),
            ("dtype", dtype),
            ("provider", provider),
            ("ONNX Runtime", runtime_version),
            ("digrap-bench", program_version),
        ]
    };
    let [baseline, current] = runs.map(settings);
    let pairs = baseline.into_iter().zip(current).filter(|(baseline, current)| baseline.1 != current.1);
    pairs.map(|((what, baseline), (_, current))| Differing { what: what.to_owned(), baseline, current }).collect()
}

/// Accuracies of a baseline that are no more what they were when it was written.
fn notes(baseline: &Run, datasets: &[DatasetComparison]) -> Vec<String> {
    let changed = |one: &DatasetComparison| {
        let (then, now) = (baseline.recorded(&one.dataset)?.accuracy.accuracy, one.baseline.accuracy);
        let told = format!(
            "the answers of the baseline to `{}` scored {then:.2} % when it was written, {now:.2} % now",
            one.dataset
        );
        (then != now).then_some(told)
    };
    datasets.iter().filter_map(changed).collect()
}
